//! One direction of a relay: what is read from one socket is written to the other.

use std::os::fd::RawFd;

use crate::sys::{self, Carrier};

/// A cache of idle carriers for reuse.
pub(crate) struct Carriers {
    spare: Vec<Carrier>,
    size: usize,
    splice: bool,
}

/// Number of idle carriers to keep; each takes two descriptors.
const SPARE: usize = 16;

impl Carriers {
    /// Carriers hold up to `size` bytes each.
    pub(crate) fn new(size: usize, splice: bool) -> Self {
        Carriers { spare: Vec::new(), size, splice: splice && cfg!(target_os = "linux") }
    }

    fn get(&mut self, copies: bool) -> Carrier {
        if copies {
            return Carrier::new(self.size, false);
        }
        self.spare.pop().unwrap_or_else(|| Carrier::new(self.size, self.splice))
    }

    /// Only an empty carrier may be reused.
    fn put(&mut self, carrier: Carrier) {
        if carrier.held() == 0 && carrier.splices() == self.splice && self.spare.len() < SPARE {
            self.spare.push(carrier);
        }
    }
}

/// Why moving bytes stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flowed {
    /// Nothing more can be moved at the moment.
    Waits,
    /// There is more to move, but it is the others' turn.
    Goes,
    /// The source has ended and everything it sent was delivered.
    Ended,
    /// The receiver no longer accepts anything.
    Refused,
}

/// One direction of a relay.
#[derive(Default)]
pub(crate) struct Flow {
    carrier: Option<Carrier>,
    refused: bool,
    /// splice(2) moves nothing past urgent data, so once there is some, everything is copied.
    pub copies: bool,
    /// The receiver was reset, as far as writing to it shows: the error is reported only once, and then not as an event
    /// as well.
    pub broken: bool,
    /// The source ended with an error.
    pub cut: bool,
    /// Number of bytes delivered.
    pub moved: u64,
}

impl Flow {
    /// Moves as much as possible without blocking, up to about `budget` bytes.
    pub(crate) fn run(&mut self, from: RawFd, to: RawFd, carriers: &mut Carriers, budget: usize) -> Flowed {
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
                        // A relay holds no pipe while nothing moves.
                        self.release(carriers);
                        return Flowed::Waits;
                    }
                    // Not an end, but urgent data in the way.
                    Ok(0) | Err(_) if carrier.splices() && sys::unread(from).is_ok_and(|left| left > 0) => {
                        self.copies = true;
                        continue;
                    }
                    // A reset is an end too: everything before it was taken.
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
                        // On a unix socket, EPIPE may just as well mean an orderly end.
                        self.broken = error.raw_os_error() != Some(libc::EPIPE) || !sys::is_local(to);
                        // It may still have something to send, such as an answer to what it has received so far.
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

    /// Number of bytes taken but not yet given.
    pub(crate) fn held(&self) -> usize {
        self.carrier.as_ref().map_or(0, Carrier::held)
    }

    /// Stops for good; bytes in transit are lost.
    pub(crate) fn stop(&mut self, carriers: &mut Carriers) {
        self.release(carriers);
    }

    fn release(&mut self, carriers: &mut Carriers) {
        if let Some(carrier) = self.carrier.take() {
            carriers.put(carrier);
        }
    }
}
