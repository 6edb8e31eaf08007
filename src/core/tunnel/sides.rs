//! The two sides of a tunnel's connections: where they come from, and what is made for them.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Instant;

use crate::core::destination::Destination;
use crate::core::drive::Pending;
use crate::core::listener::Listener;
use crate::core::relay::End;
use crate::core::stream::Stream;
use crate::error::{Error, Operation, Result};
use crate::sys::{self, Place};

/// Where connections come from.
pub enum Receive {
    /// Streams over I2P.
    Listener(Listener),
    /// Streams over I2P, of somebody else's listener.
    Borrowed(Arc<Listener>),
    /// A listening socket.
    Socket(OwnedFd),
    /// A listening socket of somebody else's.
    Foreign(RawFd),
}

/// What becomes the other side of a connection.
pub enum Send {
    /// A socket that is connected, or connecting.
    Socket(OwnedFd),
    /// The first of these that can be connected to.
    Places(Vec<Place>),
    /// Connecting over I2P.
    Pending(Box<Pending<Stream>>),
}

/// Makes the other side of a connection; runs on the tunnel's thread.
pub type MakeSend = Box<dyn FnMut() -> Result<Send> + std::marker::Send>;

impl Receive {
    /// A socket of the program's, which must be bound and listening.
    pub fn foreign(fd: RawFd) -> Result<Self> {
        match sys::is_listening(fd) {
            Ok(true) => Ok(Receive::Foreign(fd)),
            Ok(false) => Err(Error::invalid("receive is no stream socket that is bound and listening")),
            Err(error) => Err(Error::invalid(format!("receive is no socket: {error}"))),
        }
    }

    /// The destination of a listener.
    pub fn destination(&self) -> Option<&Arc<Destination>> {
        match self {
            Receive::Listener(listener) => Some(listener.destination()),
            Receive::Borrowed(listener) => Some(listener.destination()),
            Receive::Socket(_) | Receive::Foreign(_) => None,
        }
    }

    /// The next connection, if there is one.
    pub fn take(&self, now: Instant) -> Result<Option<End>> {
        let fd = match self {
            Receive::Listener(listener) => return Ok(listener.accept(now)?.map(End::Stream)),
            Receive::Borrowed(listener) => return Ok(listener.accept(now)?.map(End::Stream)),
            Receive::Socket(fd) => fd.as_raw_fd(),
            Receive::Foreign(fd) => *fd,
        };
        match sys::accept_now(fd) {
            Ok(socket) => {
                sys::set_nodelay(socket.as_raw_fd());
                Ok(Some(End::Socket(socket)))
            }
            Err(error) if sys::would_block(&error) => Ok(None),
            // That one is gone already; the next may be there.
            Err(error) if error.raw_os_error() == Some(libc::ECONNABORTED) => Ok(None),
            Err(error) => Err(Error::io(Operation::Accept, "accept", &error)),
        }
    }
}

impl AsRawFd for Receive {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Receive::Listener(listener) => listener.fd(),
            Receive::Borrowed(listener) => listener.fd(),
            Receive::Socket(fd) => fd.as_raw_fd(),
            Receive::Foreign(fd) => *fd,
        }
    }
}
