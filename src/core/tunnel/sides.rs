//! The two sides of a tunnel: where connections come from, and where they go to.

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

/// The side that connections come from.
pub enum Receive {
    /// Streams over I2P, from a listener of the tunnel's own.
    Listener(Listener),
    /// Streams over I2P, from a listener of the program's.
    Borrowed(Arc<Listener>),
    /// A listening socket of the tunnel's own.
    Socket(OwnedFd),
    /// A listening socket of the program's, which is not closed.
    Foreign(RawFd),
}

/// The other side of one connection.
pub enum Send {
    /// A socket that is connected or connecting.
    Socket(OwnedFd),
    /// Addresses to connect to; the first one that works is used.
    Places(Vec<Place>),
    /// A stream being connected over I2P.
    Pending(Box<Pending<Stream>>),
}

/// Provides the other side of a connection; runs on the tunnel's thread.
pub type MakeSend = Box<dyn FnMut() -> Result<Send> + std::marker::Send>;

impl Receive {
    /// Uses a socket of the program's, which must be bound and listening.
    pub fn foreign(fd: RawFd) -> Result<Self> {
        match sys::is_listening(fd) {
            Ok(true) => Ok(Receive::Foreign(fd)),
            Ok(false) => Err(Error::invalid("receive is no stream socket that is bound and listening")),
            Err(error) => Err(Error::invalid(format!("receive is no socket: {error}"))),
        }
    }

    /// The listener's destination, if connections come from a listener.
    pub fn destination(&self) -> Option<&Arc<Destination>> {
        match self {
            Receive::Listener(listener) => Some(listener.destination()),
            Receive::Borrowed(listener) => Some(listener.destination()),
            Receive::Socket(_) | Receive::Foreign(_) => None,
        }
    }

    /// Takes the next connection, if there is one.
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
            // That connection is already gone; there may be another.
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
