//! Two sockets joined: what comes from one goes to the other.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use crate::core::stream::Stream;
use crate::core::{after, earlier, passed, Deadline};
use crate::sys::{self, Carrier};

/// Room for bytes on their way that nobody uses at the moment, kept for the next who does.
pub struct Carriers {
    spare: Vec<Carrier>,
    size: usize,
    splice: bool,
}

/// Spare ones kept; each is two descriptors.
const SPARE: usize = 16;

impl Carriers {
    /// Carriers for up to `size` bytes.
    pub fn new(size: usize, splice: bool) -> Self {
        Carriers { spare: Vec::new(), size, splice: splice && cfg!(target_os = "linux") }
    }

    fn get(&mut self, copies: bool) -> Carrier {
        if copies {
            return Carrier::new(self.size, false);
        }
        self.spare.pop().unwrap_or_else(|| Carrier::new(self.size, self.splice))
    }

    /// Only an empty one may be used for other bytes.
    fn put(&mut self, carrier: Carrier) {
        if carrier.held() == 0 && carrier.splices() == self.splice && self.spare.len() < SPARE {
            self.spare.push(carrier);
        }
    }
}

/// A socket of a relay.
pub enum End {
    /// A socket of the system.
    Socket(OwnedFd),
    /// A stream over I2P.
    Stream(Stream),
}

impl End {
    /// The descriptor.
    pub fn fd(&self) -> RawFd {
        match self {
            End::Socket(fd) => fd.as_raw_fd(),
            End::Stream(stream) => stream.fd(),
        }
    }

    /// Ends it in both directions, after what is still on its way out. Closing alone would not, while a child of
    /// fork(2) has it, too.
    pub fn end(&self) {
        match self {
            End::Socket(fd) => sys::end_both(fd.as_raw_fd()),
            // It fails only when that has happened before.
            End::Stream(stream) => drop(stream.shutdown()),
        }
    }
}

/// What became of moving bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flowed {
    /// Nothing more is possible at present.
    Waits,
    /// More is possible, but others want a turn.
    Goes,
    /// The source has ended and everything it had sent is delivered.
    Ended,
    /// The other end takes nothing any more.
    Refused,
}

/// One direction.
#[derive(Default)]
pub struct Flow {
    carrier: Option<Carrier>,
    refused: bool,
    /// The kernel moves nothing past urgent data: from the first of it on everything is copied.
    pub copies: bool,
    /// The receiver was reset, as far as giving tells: an error is told only once, and not as an event any more.
    pub broken: bool,
    /// The source has ended with an error.
    pub cut: bool,
    /// Bytes delivered.
    pub moved: u64,
}

impl Flow {
    /// Moves what can be moved without waiting, up to about `budget` bytes.
    pub fn run(&mut self, from: RawFd, to: RawFd, carriers: &mut Carriers, budget: usize) -> Flowed {
        let mut left = budget;
        while !self.refused {
            let copies = self.copies;
            let carrier = self.carrier.get_or_insert_with(|| carriers.get(copies));
            if carrier.held() == 0 {
                if copies && carrier.splices() {
                    self.release(carriers);
                    continue;
                }
                match carrier.take(from) {
                    Ok(1..) => {}
                    Err(error) if sys::would_block(&error) => {
                        // While nothing moves, a relay has no pipe.
                        self.release(carriers);
                        return Flowed::Waits;
                    }
                    // That is no end, but urgent data before it.
                    Ok(0) | Err(_) if carrier.splices() && sys::unread(from).is_ok_and(|left| left > 0) => {
                        self.copies = true;
                        continue;
                    }
                    // A reset is an end, too: what came before it has been taken.
                    result => {
                        self.cut = result.is_err();
                        self.release(carriers);
                        return Flowed::Ended;
                    }
                }
            }
            while carrier.held() > 0 {
                match carrier.give(to) {
                    Ok(count) => {
                        self.moved += count as u64;
                        left = left.saturating_sub(count);
                    }
                    Err(error) if sys::would_block(&error) => return Flowed::Waits,
                    Err(error) => {
                        // On a unix socket that may as well be an end in good order.
                        self.broken = error.raw_os_error() != Some(libc::EPIPE) || !sys::is_local(to);
                        // It may still have something to say: an answer to the beginning of what was sent to it.
                        self.refused = true;
                        self.release(carriers);
                        return Flowed::Refused;
                    }
                }
            }
            if left == 0 {
                return Flowed::Goes;
            }
        }
        Flowed::Refused
    }

    /// Bytes that were taken and not given yet.
    pub fn held(&self) -> usize {
        self.carrier.as_ref().map_or(0, Carrier::held)
    }

    /// Nothing is moved any more; what was on its way is lost.
    pub fn stop(&mut self, carriers: &mut Carriers) {
        self.release(carriers);
    }

    fn release(&mut self, carriers: &mut Carriers) {
        if let Some(carrier) = self.carrier.take() {
            carriers.put(carrier);
        }
    }
}

/// How long an end may take none of what was sent to it before the other end was reset, or stay when it has everything.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// Between looking how much a stream has taken, at first and at most: the system has no event for that.
const LOOK: Duration = Duration::from_millis(5);
const LONGEST_LOOK: Duration = Duration::from_millis(320);
/// What an end that has everything may go on sending to nobody.
const WASTE: usize = 4 << 20;

/// An end that is about to be closed: closing it with unread input would throw away what is still on its way out.
pub struct Farewell {
    end: End,
    /// Whether the other end has ended in good order: then all of what it had sent is for this one.
    in_order: bool,
    until: Deadline,
    unsent: usize,
    wasted: usize,
    look: Duration,
}

/// How a [`Farewell`] goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parting {
    /// It can be closed now.
    Over,
    /// Not yet.
    Waits,
    /// There is more to do at once.
    Goes,
}

impl Farewell {
    /// Nothing more is sent to it, the other end having ended, `in_order` or not.
    pub fn new(end: End, in_order: bool) -> Self {
        // A stream over I2P has no half close: there it would end both directions before all is delivered.
        if let End::Socket(fd) = &end {
            sys::end_sending(fd.as_raw_fd());
        }
        Farewell { end, in_order, until: after(Some(PATIENCE)), unsent: usize::MAX, wasted: 0, look: LOOK }
    }

    /// The end.
    pub fn end(&self) -> &End {
        &self.end
    }

    /// Bytes it has not taken yet, as far as is known.
    pub fn unsent(&self) -> usize {
        self.unsent
    }

    /// When to look again even without an event.
    pub fn deadline(&self) -> Deadline {
        match self.end {
            // It closes when it has read everything, and that is an event.
            End::Socket(_) => self.until,
            End::Stream(_) => earlier(self.until, after(Some(self.look))),
        }
    }

    /// Looks whether it can be closed now. What it still sends is dropped.
    pub fn step(&mut self) -> Parting {
        let fd = self.end.fd();
        let mut waste = [0; 16384];
        let mut quiet = false;
        for _ in 0..16 {
            match sys::recv(fd, &mut waste, sys::MSG_DONTWAIT) {
                Ok(0) => return Parting::Over,
                Ok(count) => self.wasted = self.wasted.saturating_add(count),
                Err(error) if sys::would_block(&error) => {
                    quiet = true;
                    break;
                }
                Err(_) => return Parting::Over,
            }
        }
        let Ok(unsent) = sys::unsent(fd) else { return Parting::Over };
        let has_all = unsent == 0 && (matches!(self.end, End::Stream(_)) || self.wasted >= WASTE);
        if unsent < self.unsent {
            // A slow reader reads.
            self.unsent = unsent;
            self.until = after(Some(PATIENCE));
        }
        // Closing would lose what it has not taken as soon as it says a word. One that only talks is not waited for.
        let is_patient = self.in_order && unsent > 0 && self.wasted < WASTE;
        if has_all || passed(self.until) && !is_patient {
            return Parting::Over;
        }
        if passed(self.until) {
            self.until = after(Some(PATIENCE));
        }
        self.look = (self.look * 2).min(LONGEST_LOOK);
        if quiet {
            Parting::Waits
        } else {
            Parting::Goes
        }
    }
}
