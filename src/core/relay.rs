//! Two sockets joined: what comes from one goes to the other.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use crate::core::stream::Stream;
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
        Carriers { spare: Vec::new(), size, splice }
    }

    fn get(&mut self) -> Carrier {
        self.spare.pop().unwrap_or_else(|| Carrier::new(self.size, self.splice))
    }

    /// Only an empty one may be used for other bytes.
    fn put(&mut self, carrier: Carrier) {
        if carrier.held() == 0 && self.spare.len() < SPARE {
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
}

/// One direction.
#[derive(Default)]
pub struct Flow {
    carrier: Option<Carrier>,
    /// Bytes delivered.
    pub moved: u64,
}

impl Flow {
    /// Moves what can be moved without waiting, up to about `budget` bytes.
    pub fn run(&mut self, from: RawFd, to: RawFd, carriers: &mut Carriers, budget: usize) -> io::Result<Flowed> {
        let mut left = budget;
        loop {
            let carrier = self.carrier.get_or_insert_with(|| carriers.get());
            if carrier.held() == 0 {
                match carrier.take(from) {
                    Ok(0) => {
                        self.release(carriers);
                        return Ok(Flowed::Ended);
                    }
                    Ok(_) => {}
                    Err(error) if sys::would_block(&error) => {
                        // While nothing moves, a relay has no pipe.
                        self.release(carriers);
                        return Ok(Flowed::Waits);
                    }
                    Err(error) => return Err(error),
                }
            }
            while carrier.held() > 0 {
                match carrier.give(to) {
                    Ok(count) => {
                        self.moved += count as u64;
                        left = left.saturating_sub(count);
                    }
                    Err(error) if sys::would_block(&error) => return Ok(Flowed::Waits),
                    Err(error) => return Err(error),
                }
            }
            if left == 0 {
                return Ok(Flowed::Goes);
            }
        }
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

/// An end that is about to be closed: closing it with unread input would throw away what is still on its way out.
pub struct Farewell(End);

impl Farewell {
    /// Nothing more is sent to it.
    pub fn new(end: End) -> Self {
        // A stream over I2P has no half close: there it would end both directions before all is delivered.
        if let End::Socket(fd) = &end {
            sys::end_sending(fd.as_raw_fd());
        }
        Farewell(end)
    }

    /// Whether it can be closed now. What it still sends is dropped.
    pub fn is_over(&self) -> bool {
        let fd = self.0.fd();
        let mut waste = [0; 16384];
        for _ in 0..16 {
            match sys::recv(fd, &mut waste, sys::MSG_DONTWAIT) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) if sys::would_block(&error) => break,
                Err(_) => return true,
            }
        }
        match (&self.0, sys::unsent(fd)) {
            // It closes when it has read everything, and that is when we do.
            (End::Socket(_), _) => false,
            (End::Stream(_), left) => left.map_or(true, |left| left == 0),
        }
    }
}
