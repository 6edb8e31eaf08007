//! One connection of a tunnel: its other side is made, bytes go both ways, and what is left is delivered at the end.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::core::drive::{after, earlier, passed, Deadline, Pending, Progress};
use crate::core::relay::{Carriers, End, Flow, Flowed, Linger, LingerStep, PATIENCE};
use crate::core::settings::Limits;
use crate::core::stream::Stream;
use crate::core::tunnel::report::Shared;
use crate::error::{Error, Operation, Result, Status};
use crate::sys::{self, Place, Ready, Selector};

/// What the tunnel lends to each of its connections while it is served.
pub(super) struct Tools<'a> {
    /// Tells when a descriptor is ready. A connection has two tokens: twice its number, and one more for its far end.
    pub selector: &'a Selector,
    /// Room for bytes on their way.
    pub carriers: &'a mut Carriers,
    /// How long and how much.
    pub limits: &'a Limits,
    /// Where it is counted.
    pub shared: &'a Shared,
    /// Bytes of one direction before others get a turn.
    pub turn: usize,
    /// The time.
    pub now: Instant,
}

/// A connection.
pub(super) struct Connection {
    id: u64,
    /// The end that came.
    near: Option<End>,
    /// What is done about the other one.
    stage: Stage,
    /// From `near` to the other end.
    outward: Flow,
    /// The other way.
    inward: Flow,
    /// When it has been idle for too long; counted from when both ends are there.
    idle_until: Deadline,
    /// Ends that were reset, though what they had sent may still be on its way: the near one, the other one.
    reset: [bool; 2],
    /// When what a reset end had sent is given up, since the other end does not take it.
    given_up: Deadline,
    /// When its life is over.
    ends: Deadline,
}

/// How far a connection is.
pub(super) enum Stage {
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
pub(super) enum Served {
    /// It waits.
    Stays,
    /// It wants another turn at once.
    Again,
    /// It is to be closed.
    Over,
}

impl Connection {
    /// A connection whose other side is being made.
    pub(super) fn new(id: u64, near: End, stage: Stage, limits: &Limits, now: Instant) -> Self {
        Connection {
            id,
            near: Some(near),
            stage,
            outward: Flow::default(),
            inward: Flow::default(),
            reset: [false; 2],
            idle_until: None,
            given_up: None,
            ends: after(limits.life, now),
        }
    }

    /// Whether it counts: one that only lingers does not.
    pub(super) fn is_open(&self) -> bool {
        !matches!(self.stage, Stage::Linger(..) | Stage::Gone)
    }

    /// The end that came, if the other one is not there yet.
    pub(super) fn unmade(&mut self, selector: &Selector) -> Option<End> {
        if let Some(near) = &self.near {
            selector.remove(near.fd());
        }
        match self.stage {
            Stage::Pending(_) | Stage::Connecting(..) => self.near.take(),
            _ => None,
        }
    }

    /// What an event on an end of an open connection tells about it.
    pub(super) fn look(&mut self, ready: &Ready) {
        if matches!(self.stage, Stage::Open(_)) {
            let side = (ready.token % 2) as usize;
            self.reset[side] |= ready.broken;
            let from = if side == 0 { &mut self.outward } else { &mut self.inward };
            from.copies |= ready.urgent;
        }
    }

    /// Whether an end was reset and the other one does not take what it had sent. One that has ended in good order is
    /// different: everything it had sent is for a reader that may only take a break.
    fn is_stuck(&self) -> bool {
        self.is_reset(true) && self.outward.held() > 0 || self.is_reset(false) && self.inward.held() > 0
    }

    fn is_reset(&self, near: bool) -> bool {
        let (seen, from, to) = match near {
            true => (self.reset[0], &self.outward, &self.inward),
            false => (self.reset[1], &self.inward, &self.outward),
        };
        seen || from.cut || to.broken
    }

    /// When it has to be served even without an event.
    pub(super) fn deadline(&self) -> Deadline {
        let limits = earlier(self.ends, self.idle_until);
        match &self.stage {
            Stage::Pending(pending) => earlier(limits, pending.due()),
            Stage::Linger(linger) => earlier(limits, linger.deadline()),
            Stage::Connecting(..) => limits,
            Stage::Open(_) => earlier(limits, self.given_up),
            Stage::Gone => None,
        }
    }

    fn has_expired(&self, now: Instant) -> bool {
        passed(self.ends, now) || passed(self.idle_until, now)
    }

    /// Does what can be done without waiting.
    pub(super) fn serve(&mut self, tools: &mut Tools<'_>) -> Result<Served> {
        if self.has_expired(tools.now) {
            if self.is_open() {
                tools.shared.counts.expired.fetch_add(1, Ordering::Relaxed);
            }
            return Ok(Served::Over);
        }
        match &mut self.stage {
            Stage::Pending(pending) => {
                // A step may close its descriptor.
                tools.selector.remove(pending.fd());
                if pending.step(tools.now)? == Progress::Done {
                    let stream = pending.take()?;
                    return self.join(End::Stream(stream), tools);
                }
                let (fd, events) = (pending.fd(), pending.events());
                if fd >= 0 {
                    tools.selector.add(fd, self.id * 2, events).map_err(system)?;
                }
                Ok(Served::Stays)
            }
            Stage::Connecting(end, places) => {
                tools.selector.remove(end.fd());
                let events = sys::poll_one(end.fd(), sys::OUT, 0).map_err(system)?;
                if events == 0 {
                    tools.selector.add(end.fd(), self.id * 2, sys::OUT).map_err(system)?;
                    return Ok(Served::Stays);
                }
                match sys::socket_error(end.fd()) {
                    Ok(()) => match std::mem::replace(&mut self.stage, Stage::Gone) {
                        Stage::Connecting(end, _) => self.join(end, tools),
                        _ => Ok(Served::Over),
                    },
                    Err(error) if places.is_empty() => {
                        Err(Error::io(Operation::Connect, "cannot connect to the target", &error))
                    }
                    Err(_) => {
                        self.stage = connect(std::mem::take(places))?;
                        Ok(Served::Again)
                    }
                }
            }
            Stage::Open(_) => Ok(self.relay(tools)),
            Stage::Linger(linger) => {
                let before = linger.unsent();
                let step = linger.step(tools.now);
                if linger.unsent() != before {
                    self.idle_until = after(tools.limits.idle, tools.now);
                }
                Ok(match step {
                    LingerStep::Over => Served::Over,
                    LingerStep::Waits => Served::Stays,
                    LingerStep::Goes => Served::Again,
                })
            }
            Stage::Gone => Ok(Served::Over),
        }
    }

    /// Both sides are there: bytes may go.
    fn join(&mut self, far: End, tools: &Tools<'_>) -> Result<Served> {
        sys::set_urgent_inline(far.fd());
        if let Some(near) = &self.near {
            sys::set_urgent_inline(near.fd());
            tools.selector.add_changes(near.fd(), self.id * 2).map_err(system)?;
        }
        tools.selector.add_changes(far.fd(), self.id * 2 + 1).map_err(system)?;
        self.stage = Stage::Open(far);
        self.idle_until = after(tools.limits.idle, tools.now);
        Ok(Served::Again)
    }

    fn relay(&mut self, tools: &mut Tools<'_>) -> Served {
        let before = self.outward.moved + self.inward.moved;
        let turn = tools.turn;
        let outward = self.flow(true, turn, tools);
        let inward = self.flow(false, turn, tools);
        if self.outward.moved + self.inward.moved != before {
            self.idle_until = after(tools.limits.idle, tools.now);
            self.given_up = None;
        }
        if !self.is_stuck() {
            self.given_up = None;
        } else if passed(self.given_up, tools.now) {
            let text = "one end was reset, and the other one does not take what it had sent";
            tools.shared.remember(Error::new(Status::Closed, Operation::Send, text));
            return Served::Over;
        } else if self.given_up.is_none() {
            self.given_up = after(Some(PATIENCE), tools.now);
        }
        match (outward, inward) {
            (Flowed::Ended, _) => self.part(true, tools),
            (_, Flowed::Ended) => self.part(false, tools),
            (Flowed::Refused, Flowed::Refused) => Served::Over,
            (Flowed::Goes, _) | (_, Flowed::Goes) => Served::Again,
            _ => Served::Stays,
        }
    }

    /// Moves bytes one way.
    fn flow(&mut self, outward: bool, budget: usize, tools: &mut Tools<'_>) -> Flowed {
        let (Some(near), Stage::Open(far)) = (&self.near, &self.stage) else { return Flowed::Refused };
        let counts = &tools.shared.counts;
        let (flow, from, to, count) = match outward {
            true => (&mut self.outward, near.fd(), far.fd(), &counts.bytes_out),
            false => (&mut self.inward, far.fd(), near.fd(), &counts.bytes_in),
        };
        let before = flow.moved;
        let flowed = flow.run(from, to, tools.carriers, budget);
        count.fetch_add(flow.moved - before, Ordering::Relaxed);
        flowed
    }

    /// One side has ended and the other has been given all it had sent: that one may still read it in peace.
    fn part(&mut self, near_ended: bool, tools: &mut Tools<'_>) -> Served {
        let (Some(near), Stage::Open(far)) = (&self.near, &self.stage) else { return Served::Over };
        let in_order = !self.is_reset(near_ended);
        // What the other one had sent before goes as far as it goes without waiting.
        let (held, left) = if near_ended { (self.inward.held(), far.fd()) } else { (self.outward.held(), near.fd()) };
        let budget = held.saturating_add(sys::unread(left).unwrap_or(0));
        tools.selector.remove(near.fd());
        tools.selector.remove(far.fd());
        if budget > 0 {
            self.flow(!near_ended, budget, tools);
        }
        self.outward.stop(tools.carriers);
        self.inward.stop(tools.carriers);
        let (near, stage) = (self.near.take(), std::mem::replace(&mut self.stage, Stage::Gone));
        let (Some(near), Stage::Open(far)) = (near, stage) else { return Served::Over };
        let (ended, left) = if near_ended { (near, far) } else { (far, near) };
        ended.end();
        let linger = Linger::new(left, in_order, tools.now);
        // Without memory for it, it is looked at later.
        drop(tools.selector.add_changes(linger.end().fd(), self.id * 2));
        self.stage = Stage::Linger(linger);
        Served::Again
    }

    /// Closes what is left of it.
    pub(super) fn close(mut self, selector: &Selector, carriers: &mut Carriers) {
        self.outward.stop(carriers);
        self.inward.stop(carriers);
        if let Stage::Pending(pending) = &self.stage {
            selector.remove(pending.fd());
        }
        let far = match &self.stage {
            Stage::Connecting(end, _) | Stage::Open(end) => Some(end),
            Stage::Linger(linger) => Some(linger.end()),
            Stage::Pending(_) | Stage::Gone => None,
        };
        for end in self.near.iter().chain(far) {
            selector.remove(end.fd());
            end.end();
        }
    }
}

/// A socket of the program's as the other side: moving bytes must never wait, however it was made.
pub(super) fn far_socket(fd: OwnedFd) -> Result<Stage> {
    let system = |error| Error::io(Operation::Connect, "the other side of a connection", &error);
    if !sys::is_stream(fd.as_raw_fd()).map_err(system)? {
        return Err(Error::invalid("the other side of a connection is no stream socket, or one that listens"));
    }
    sys::set_nonblocking(fd.as_raw_fd(), true).map_err(system)?;
    Ok(Stage::Connecting(End::Socket(fd), Vec::new()))
}

/// Starts connecting to the first of `places` that does not refuse at once.
pub(super) fn connect(places: Vec<Place>) -> Result<Stage> {
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

fn system(error: std::io::Error) -> Error {
    Error::io(Operation::None, "a descriptor for the tunnel", &error)
}
