//! One of the two sockets of a relay: a socket of the system, or a stream over I2P.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use crate::core::stream::Stream;
use crate::sys;

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
