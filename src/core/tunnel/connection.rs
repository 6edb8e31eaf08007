//! One connection of a tunnel and its deadlines.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use crate::core::drive::{after, earlier, Deadline, Pending};
use crate::core::relay::{End, Flow, Linger};
use crate::core::stream::Stream;
use crate::error::{Error, Operation, Result, Status};
use crate::sys::{self, Place, Ready};

/// A connection.
pub struct Connection {
    /// The end that came.
    pub near: Option<End>,
    /// What is done about the other one.
    pub stage: Stage,
    /// From `near` to the other end.
    pub outward: Flow,
    /// The other way.
    pub inward: Flow,
    /// When it has been idle for too long; counted from when both ends are there.
    pub idle_until: Deadline,
    /// Ends that were reset, though what they had sent may still be on its way: the near one, the other one.
    pub reset: [bool; 2],
    /// When what an end had sent that was reset is given up, since nobody takes it.
    pub given_up: Deadline,
    /// When its life is over.
    pub ends: Deadline,
    /// When it is in the tunnel's timers.
    pub due: Deadline,
}

/// How far a connection is.
pub enum Stage {
    /// The other side is being made by the library.
    Pending(Box<Pending<Stream>>),
    /// The other side is connecting; there are more places to try.
    Connecting(End, Vec<Place>),
    /// Both are there.
    Open(End),
    /// One end has ended, and the other one is reading what it had sent.
    Linger(Linger),
    /// Over.
    Gone,
}

/// What became of serving a connection.
pub enum Served {
    /// It waits.
    Stays,
    /// It wants another turn at once.
    Again,
    /// It is to be closed.
    Over,
}

impl Connection {
    /// A connection whose other side is being made; it may last until `ends`.
    pub fn new(near: End, stage: Stage, ends: Deadline) -> Self {
        let (outward, inward) = (Flow::default(), Flow::default());
        Connection {
            near: Some(near),
            stage,
            outward,
            inward,
            reset: [false; 2],
            idle_until: None,
            given_up: None,
            ends,
            due: None,
        }
    }

    /// Whether it counts.
    pub fn is_open(&self) -> bool {
        !matches!(self.stage, Stage::Linger(..) | Stage::Gone)
    }

    /// The end that came, if the other one is not there yet.
    pub fn unmade(&mut self) -> Option<End> {
        match self.stage {
            Stage::Pending(_) | Stage::Connecting(..) => self.near.take(),
            _ => None,
        }
    }

    /// What an event on an end of an open connection tells about it.
    pub fn look(&mut self, ready: &Ready) {
        if matches!(self.stage, Stage::Open(_)) {
            let side = (ready.token % 2) as usize;
            self.reset[side] |= ready.broken;
            let from = if side == 0 { &mut self.outward } else { &mut self.inward };
            from.copies |= ready.urgent;
        }
    }

    /// Whether an end was reset and the other one does not take what it had sent. One that has ended in good order is
    /// different: everything it had sent is for a reader that may only take a break.
    pub fn is_stuck(&self) -> bool {
        self.is_reset(true) && self.outward.held() > 0 || self.is_reset(false) && self.inward.held() > 0
    }

    /// Whether an end was reset.
    pub fn is_reset(&self, near: bool) -> bool {
        let (seen, from, to) = match near {
            true => (self.reset[0], &self.outward, &self.inward),
            false => (self.reset[1], &self.inward, &self.outward),
        };
        seen || from.cut || to.broken
    }

    /// When it has to be served even without an event.
    pub fn deadline(&self) -> Deadline {
        let limits = earlier(self.ends, self.idle_until);
        match &self.stage {
            Stage::Pending(pending) => {
                let step = u64::try_from(pending.timeout_ms()).ok().map(Duration::from_millis);
                earlier(limits, step.and_then(|step| after(Some(step))))
            }
            Stage::Linger(farewell) => earlier(limits, farewell.deadline()),
            Stage::Connecting(..) => limits,
            Stage::Open(_) => earlier(limits, self.given_up),
            Stage::Gone => None,
        }
    }
}

/// A socket of the program's as the other side: moving bytes must never wait, however it was made.
pub fn far_socket(fd: OwnedFd) -> Result<Stage> {
    let system = |error| Error::io(Operation::Connect, "the other side of a connection", &error);
    if !sys::is_stream(fd.as_raw_fd()).map_err(system)? {
        return Err(Error::invalid("the other side of a connection is no stream socket, or one that listens"));
    }
    sys::set_nonblocking(fd.as_raw_fd(), true).map_err(system)?;
    Ok(Stage::Connecting(End::Socket(fd), Vec::new()))
}

/// Starts connecting to the first of `places` that does not refuse at once.
pub fn connect(places: Vec<Place>) -> Result<Stage> {
    let mut failure = Error::new(Status::Io, Operation::Connect, "the target has no address");
    let mut left = places.into_iter();
    while let Some(place) = left.next() {
        match sys::connect_start(&place) {
            Ok((fd, _)) => return Ok(Stage::Connecting(End::Socket(fd), left.collect())),
            Err(error) => failure = Error::io(Operation::Connect, "cannot connect to the target", &error),
        }
    }
    Err(failure)
}
