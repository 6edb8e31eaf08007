//! Two sockets joined: what comes from one goes to the other.

use std::os::fd::RawFd;

use crate::sys::{self, Carrier};

/// Room for bytes on their way that nobody uses at the moment, kept for the next who does.
pub(crate) struct Carriers {
    spare: Vec<Carrier>,
    size: usize,
    splice: bool,
}

/// Spare ones kept; each is two descriptors.
const SPARE: usize = 16;

impl Carriers {
    /// Carriers for up to `size` bytes.
    pub(crate) fn new(size: usize, splice: bool) -> Self {
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

/// What became of moving bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flowed {
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
pub(crate) struct Flow {
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
    pub(crate) fn held(&self) -> usize {
        self.carrier.as_ref().map_or(0, Carrier::held)
    }

    /// Nothing is moved any more; what was on its way is lost.
    pub(crate) fn stop(&mut self, carriers: &mut Carriers) {
        self.release(carriers);
    }

    fn release(&mut self, carriers: &mut Carriers) {
        if let Some(carrier) = self.carrier.take() {
            carriers.put(carrier);
        }
    }
}
