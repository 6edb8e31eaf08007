//! A listener: one descriptor that is readable when a stream is there.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use crate::core::destination::{DestHandle, Destination, Follower};
use crate::core::listener::accept_loop::AcceptLoop;
use crate::core::listener::forward::Forward;
use crate::core::settings::{Options, Owner};
use crate::core::stream::Stream;
use crate::error::{Error, Operation, Result};
use crate::sys::{self, Watch};

/// Streams that wait to be fetched, unless the caller says otherwise.
const BACKLOG: usize = 16;
/// More of them would only use up descriptors.
const MAX_BACKLOG: usize = 4096;

/// A listener on a destination. Dropping it leaves the destination as it is.
pub struct Listener {
    presence: Arc<Destination>,
    listening: Arc<AcceptLoop>,
    /// Without a keeper: what the program polls, all that the destination waits for included.
    face: Option<Watch>,
}

impl Listener {
    /// Begins to accept streams; up to `backlog` wait to be fetched, 0 meaning a sensible number.
    pub fn open(dest: &DestHandle, backlog: i32, options: &Options) -> Result<Self> {
        options.check_owner(Owner::Listener)?;
        dest.check_stream(Operation::Accept)?;
        let presence = Arc::clone(dest.presence());
        presence.bridge().check_process()?;
        presence.check(Operation::Accept)?;
        let backlog = match usize::try_from(backlog) {
            Ok(0) => BACKLOG,
            Ok(backlog) => backlog.min(MAX_BACKLOG),
            Err(_) => return Err(Error::invalid("backlog is negative")),
        };
        let forwarding = match options.text("stream_forward") {
            Some("1") => Some(Forward::new(presence.bridge())?),
            _ => None,
        };
        if forwarding.is_some() && options.text("accepts").is_some() {
            return Err(Error::invalid("options accepts and stream_forward exclude each other"));
        }
        let listening = AcceptLoop::new(backlog, options.number("accepts").unwrap_or(1), forwarding)?;
        let system = |error| Error::io(Operation::Accept, "a descriptor for the listener", &error);
        let work = &presence.home().work;
        let face = match presence.home().keeper {
            Some(_) => None,
            None => {
                let face = Watch::new().map_err(system)?;
                face.add(listening.arrived().as_raw_fd(), sys::IN).map_err(system)?;
                face.add(work.as_raw_fd(), sys::IN).map_err(system)?;
                Some(face)
            }
        };
        work.add(listening.watch().as_raw_fd(), sys::IN).map_err(system)?;
        let follower: Arc<dyn Follower> = Arc::<AcceptLoop>::clone(&listening);
        presence.follow(&follower);
        let listener = Listener { presence, listening, face };
        listener.look();
        Ok(listener)
    }

    /// Descriptor that is readable when `accept` has something to give, and without a keeper when it has something to do.
    pub fn fd(&self) -> RawFd {
        self.face.as_ref().map_or(self.listening.arrived().as_raw_fd(), AsRawFd::as_raw_fd)
    }

    /// The destination it is on.
    pub fn presence(&self) -> &Arc<Destination> {
        &self.presence
    }

    /// Milliseconds until `accept` has something to do even without an event; -1 for never.
    pub fn timeout_ms(&self) -> i32 {
        self.presence.timeout_ms()
    }

    /// The next stream, if there is one.
    pub fn accept(&self) -> Result<Option<Stream>> {
        self.presence.bridge().check_process()?;
        if self.face.is_some() {
            self.presence.drive();
        }
        self.presence.check(Operation::Accept)?;
        let (stream, was_full) = self.listening.fetch();
        if was_full {
            self.look();
        }
        Ok(stream)
    }

    /// How many accepts have failed one after the other, and why the last one has.
    pub fn failures(&self) -> (u32, Option<Error>) {
        self.listening.failures(!self.presence.bridge().process.in_child())
    }

    /// There is something to do that no descriptor tells of.
    fn look(&self) {
        match &self.presence.home().keeper {
            Some(keeper) => keeper.poke(),
            None => self.presence.drive(),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if self.presence.bridge().process.in_child() {
            self.listening.abandon();
            return;
        }
        // The description may live on in a child of fork(2): closing alone would not remove it.
        drop(self.presence.home().work.remove(self.listening.watch().as_raw_fd()));
        self.listening.give_up();
    }
}
