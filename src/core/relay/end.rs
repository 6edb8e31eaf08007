//! One of the two ends of a relay: a system socket or a stream over I2P.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use crate::core::stream::Stream;
use crate::sys;

pub enum End {
    Socket(OwnedFd),
    Stream(Stream),
}

impl End {
    pub fn fd(&self) -> RawFd {
        match self {
            End::Socket(fd) => fd.as_raw_fd(),
            End::Stream(stream) => stream.fd(),
        }
    }

    /// Shuts it down in both directions, after output that is still queued. Closing alone would not do so while a child
    /// of fork(2) holds it too.
    pub fn end(&self) {
        match self {
            End::Socket(fd) => sys::end_both(fd.as_raw_fd()),
            // Fails only if it was given away or shut down before.
            End::Stream(stream) => drop(stream.shutdown()),
        }
    }
}
