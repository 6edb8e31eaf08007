//! What went wrong: one error type for the whole library.
//!
//! BLOCK is not an error here: operations that may have to wait say so in their result type.

use std::fmt;

use crate::secret::{conceal, Secret};

/// Families of outcomes; the numbers are the C constants `I2PSOCK_*` and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Status {
    /// Ended, gracefully or not: stream, session or handle (i2p.sam's ClosedError).
    Closed = 2,
    /// The router said no: tag and message are its own words (i2p.sam's NetworkError).
    Network = 3,
    /// A deadline of ours ran out.
    Timeout = 4,
    /// The system refused; `os_error` holds errno.
    Io = 5,
    /// The bridge does not speak SAM as it should.
    Protocol = 6,
    /// This library or the router at the other end cannot do that.
    Unsupported = 7,
    /// An argument is wrong; nothing was done.
    Invalid = 8,
    /// Right call, wrong moment or wrong object; nothing was done.
    State = 9,
    /// A defect of this library.
    Internal = 99,
}

/// What was being done when it failed (leaflet's exception classes, and the rest).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(i32)]
pub enum Operation {
    /// Nothing on the network: arguments, options, parsing.
    #[default]
    None = 0,
    /// Reaching the bridge and HELLO (leaflet's HandshakeError).
    Handshake = 1,
    /// Resolving a name (leaflet's NSError).
    Lookup = 2,
    /// Creating a session (leaflet's CreateDestError).
    Create = 3,
    /// Connecting a stream (leaflet's ReachError).
    Connect = 4,
    /// Accepting a stream (leaflet's AcceptError).
    Accept = 5,
    /// A datagram that did not come from the bridge (leaflet's SourceError).
    Source = 6,
    /// Making keys.
    Generate = 7,
    /// Sending on a stream or datagram socket.
    Send = 8,
    /// Receiving on a stream or datagram socket.
    Receive = 9,
    /// The session itself: its control socket, its end.
    Session = 10,
}

impl Operation {
    /// The word used in messages and by `i2psock_error_operation_name`.
    pub fn name(self) -> &'static str {
        match self {
            Operation::None => "none",
            Operation::Handshake => "handshake",
            Operation::Lookup => "lookup",
            Operation::Create => "create",
            Operation::Connect => "connect",
            Operation::Accept => "accept",
            Operation::Source => "source",
            Operation::Generate => "generate",
            Operation::Send => "send",
            Operation::Receive => "receive",
            Operation::Session => "session",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An error: status, operation, the router's RESULT token and text verbatim, errno.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// The family.
    pub status: Status,
    /// What was being done.
    pub operation: Operation,
    /// RESULT token of the router, verbatim; empty when the router said nothing.
    pub tag: String,
    /// One line for a person; contains the router's own text where there is one.
    pub message: String,
    /// errno, or 0.
    pub os_error: i32,
}

// Errors are made in many places and seldom: the code that makes them is not inlined there.
impl Error {
    /// The same error, met while doing `operation`.
    #[must_use]
    pub fn during(mut self, operation: Operation) -> Self {
        self.operation = operation;
        self
    }

    /// Ended: a stream, a session or a handle.
    #[cold]
    #[inline(never)]
    pub fn closed(operation: Operation, message: impl Into<String>) -> Self {
        Error::new(Status::Closed, operation, message)
    }

    /// An error without tag and errno.
    #[cold]
    #[inline(never)]
    pub fn new(status: Status, operation: Operation, message: impl Into<String>) -> Self {
        Error { status, operation, tag: String::new(), message: String::new(), os_error: 0 }.saying(message)
    }

    /// The same error with another message. Whatever a program took for a name, an address or a path may be a private
    /// key, so what looks like one is left out of it.
    #[must_use]
    pub fn saying(mut self, message: impl Into<String>) -> Self {
        let message = message.into();
        self.message = conceal(&message).into_owned();
        drop(Secret::from_vec(message.into_bytes()));
        self
    }

    /// A wrong argument.
    #[cold]
    #[inline(never)]
    pub fn invalid(message: impl Into<String>) -> Self {
        Error::new(Status::Invalid, Operation::None, message)
    }

    /// Right call, wrong moment.
    #[cold]
    #[inline(never)]
    pub fn state(message: impl Into<String>) -> Self {
        Error::new(Status::State, Operation::None, message)
    }

    /// The peer does not follow the protocol.
    #[cold]
    #[inline(never)]
    pub fn protocol(operation: Operation, message: impl Into<String>) -> Self {
        Error::new(Status::Protocol, operation, message)
    }

    /// The router said no.
    #[cold]
    #[inline(never)]
    pub fn network(operation: Operation, tag: &str, text: &str) -> Self {
        let message = if text.is_empty() {
            format!("{operation} failed: the router answered {tag}")
        } else {
            format!("{operation} failed: the router answered {tag}: {text}")
        };
        Error { tag: tag.to_owned(), ..Error::new(Status::Network, operation, message) }
    }

    /// A file that may not be used as it is, though the system would let us: `os_error` is EPERM.
    #[cold]
    #[inline(never)]
    pub fn refused(message: impl Into<String>) -> Self {
        Error { os_error: libc::EPERM, ..Error::new(Status::Io, Operation::None, message) }
    }

    /// A system call failed; `what` names it in words.
    #[cold]
    #[inline(never)]
    pub fn io(operation: Operation, what: &str, error: &std::io::Error) -> Self {
        Error {
            os_error: error.raw_os_error().unwrap_or(0),
            ..Error::new(Status::Io, operation, format!("{what}: {error}"))
        }
    }
}

impl Status {
    /// The status with this number, unless it is OK, BLOCK or none at all.
    pub fn from_number(number: i32) -> Option<Self> {
        use Status::*;
        [Closed, Network, Timeout, Io, Protocol, Unsupported, Invalid, State, Internal]
            .into_iter()
            .find(|status| *status as i32 == number)
    }
}

/// Result of everything in this crate that can fail.
pub type Result<T> = std::result::Result<T, Error>;
