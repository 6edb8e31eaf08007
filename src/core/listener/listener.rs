//! A listener: one descriptor that is readable when a stream has arrived.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Instant;

use crate::core::destination::{DestHandle, Destination, Follower};
use crate::core::drive::{log, Face};
use crate::core::listener::accept_loop::AcceptLoop;
use crate::core::listener::forward::Forward;
use crate::core::settings::{ListenerOptions, Options};
use crate::core::stream::Stream;
use crate::error::{Error, Operation, Result};
use crate::sys;

/// Default number of streams that may wait to be fetched.
const BACKLOG: usize = 16;
/// A larger backlog would only use up descriptors.
const MAX_BACKLOG: usize = 4096;

/// A listener on a destination. Dropping it does not affect the destination.
pub struct Listener {
    destination: Arc<Destination>,
    accept_loop: Arc<AcceptLoop>,
    /// Without a keeper, this includes everything the destination waits for.
    face: Face,
}

impl Listener {
    /// Starts accepting streams. Up to `backlog` wait to be fetched; 0 means a sensible default.
    pub fn open(dest: &DestHandle, backlog: i32, options: &Options) -> Result<Self> {
        let _edge = log::edge();
        let destination = listenable(dest)?;
        Self::begin(destination, backlog, ListenerOptions::parse(options)?)
    }

    /// [`Listener::open`] with options that were already parsed.
    pub(crate) fn open_with(dest: &DestHandle, backlog: i32, options: ListenerOptions) -> Result<Self> {
        let _edge = log::edge();
        Self::begin(listenable(dest)?, backlog, options)
    }

    fn begin(destination: Arc<Destination>, backlog: i32, options: ListenerOptions) -> Result<Self> {
        let backlog = match usize::try_from(backlog) {
            Ok(0) => BACKLOG,
            Ok(backlog) => backlog.min(MAX_BACKLOG),
            Err(_) => return Err(Error::invalid("backlog is negative")),
        };
        let accept_loop = match options {
            ListenerOptions::Accept(width) => AcceptLoop::new(backlog, width, None)?,
            ListenerOptions::Forward => AcceptLoop::new(backlog, 1, Some(Forward::new(destination.bridge())?))?,
        };
        let system = |error| Error::io(Operation::Accept, "a descriptor for the listener", &error);
        let signals = destination.signals();
        let face = Face::new(&signals.driver, accept_loop.arrived(), &signals.work).map_err(system)?;
        signals.work.add(accept_loop.watch(), sys::IN).map_err(system)?;
        let follower: Arc<dyn Follower> = Arc::<AcceptLoop>::clone(&accept_loop);
        destination.follow(&follower);
        let listener = Listener { destination, accept_loop, face };
        listener.look(Instant::now());
        Ok(listener)
    }

    /// Descriptor that is readable when `accept` has a stream to return or, without a keeper, work to do.
    pub fn fd(&self) -> RawFd {
        self.face.fd(self.accept_loop.arrived())
    }

    /// The destination it accepts streams for.
    pub fn destination(&self) -> &Arc<Destination> {
        &self.destination
    }

    /// Milliseconds until `accept` has work to do even without an event; -1 for never.
    pub fn timeout_ms(&self, now: Instant) -> i32 {
        self.destination.timeout_ms(now)
    }

    /// Returns the next stream, or `None` if none has arrived.
    pub fn accept(&self, now: Instant) -> Result<Option<Stream>> {
        self.destination.bridge().check_process()?;
        let _edge = log::edge();
        if self.destination.signals().driver.is_caller() {
            self.destination.drive(now);
        }
        self.destination.check(Operation::Accept)?;
        let (stream, was_full) = self.accept_loop.fetch();
        if was_full {
            self.look(now);
        }
        Ok(stream)
    }

    /// The number of consecutive failed accepts, and why the last one failed.
    pub fn failures(&self) -> (u32, Option<Error>) {
        self.accept_loop.failures(!self.destination.bridge().process.in_child())
    }

    /// Gets work done that no descriptor signals.
    fn look(&self, now: Instant) {
        self.destination.signals().driver.hurry(|| self.destination.drive(now));
    }
}

/// Fails if the destination cannot have a listener now.
fn listenable(dest: &DestHandle) -> Result<Arc<Destination>> {
    dest.check_stream(Operation::Accept)?;
    let destination = dest.destination();
    destination.bridge().check_process()?;
    destination.check(Operation::Accept)?;
    Ok(Arc::clone(destination))
}

impl Drop for Listener {
    fn drop(&mut self) {
        if self.destination.bridge().process.in_child() {
            self.accept_loop.abandon();
            return;
        }
        // Closing alone would not remove it: a child of fork(2) may hold the same description.
        let _edge = log::edge();
        drop(self.destination.signals().work.remove(self.accept_loop.watch()));
        self.accept_loop.give_up();
    }
}
