//! `i2psock_status`, `i2psock_operation`, `i2psock_error`.

use std::ffi::{c_char, c_int, CString};

use crate::error::{Error, Operation, Status};
use crate::ffi::memory;

/// What a call came to. Numbers are only ever added.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum i2psock_status {
    /// Done.
    I2PSOCK_OK = 0,
    /// It would have blocked: wait on the descriptor and call again (i2p.sam's BlockError). No error object is made.
    I2PSOCK_BLOCK = 1,
    /// The stream, session or handle has ended, gracefully or not (i2p.sam's ClosedError).
    I2PSOCK_CLOSED = 2,
    /// The router said no; i2psock_error_tag() and i2psock_error_message() tell what (i2p.sam's NetworkError).
    I2PSOCK_NETWORK = 3,
    /// A time limit of ours ran out.
    I2PSOCK_TIMEOUT = 4,
    /// The system refused; i2psock_error_os_error() is errno.
    I2PSOCK_IO = 5,
    /// What the bridge said is not SAM, or makes no sense.
    I2PSOCK_PROTOCOL = 6,
    /// This version of the library, or the router, cannot do that.
    I2PSOCK_UNSUPPORTED = 7,
    /// An argument is wrong; nothing was done, nothing was sent.
    I2PSOCK_INVALID = 8,
    /// The call does not fit this object or moment; nothing was done.
    I2PSOCK_STATE = 9,
    /// A defect of this library; the handle is not usable any more.
    I2PSOCK_INTERNAL = 99,
}

impl From<Status> for i2psock_status {
    fn from(status: Status) -> Self {
        match status {
            Status::Closed => i2psock_status::I2PSOCK_CLOSED,
            Status::Network => i2psock_status::I2PSOCK_NETWORK,
            Status::Timeout => i2psock_status::I2PSOCK_TIMEOUT,
            Status::Io => i2psock_status::I2PSOCK_IO,
            Status::Protocol => i2psock_status::I2PSOCK_PROTOCOL,
            Status::Unsupported => i2psock_status::I2PSOCK_UNSUPPORTED,
            Status::Invalid => i2psock_status::I2PSOCK_INVALID,
            Status::State => i2psock_status::I2PSOCK_STATE,
            Status::Internal => i2psock_status::I2PSOCK_INTERNAL,
        }
    }
}

/// What was being done when it failed (leaflet's exception classes). Numbers are only ever added.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum i2psock_operation {
    /// Nothing on the network: arguments, options, parsing.
    I2PSOCK_OP_NONE = 0,
    /// Reaching and greeting the bridge (HandshakeError).
    I2PSOCK_OP_HANDSHAKE = 1,
    /// Resolving a name (NSError).
    I2PSOCK_OP_LOOKUP = 2,
    /// Opening a destination (CreateDestError).
    I2PSOCK_OP_CREATE = 3,
    /// Connecting a stream (ReachError).
    I2PSOCK_OP_CONNECT = 4,
    /// Accepting a stream (AcceptError).
    I2PSOCK_OP_ACCEPT = 5,
    /// A datagram that did not come from the bridge (SourceError).
    I2PSOCK_OP_SOURCE = 6,
    /// Making keys.
    I2PSOCK_OP_GENERATE = 7,
    /// Sending.
    I2PSOCK_OP_SEND = 8,
    /// Receiving.
    I2PSOCK_OP_RECEIVE = 9,
    /// The session itself.
    I2PSOCK_OP_SESSION = 10,
}

impl From<Operation> for i2psock_operation {
    fn from(operation: Operation) -> Self {
        match operation {
            Operation::None => i2psock_operation::I2PSOCK_OP_NONE,
            Operation::Handshake => i2psock_operation::I2PSOCK_OP_HANDSHAKE,
            Operation::Lookup => i2psock_operation::I2PSOCK_OP_LOOKUP,
            Operation::Create => i2psock_operation::I2PSOCK_OP_CREATE,
            Operation::Connect => i2psock_operation::I2PSOCK_OP_CONNECT,
            Operation::Accept => i2psock_operation::I2PSOCK_OP_ACCEPT,
            Operation::Source => i2psock_operation::I2PSOCK_OP_SOURCE,
            Operation::Generate => i2psock_operation::I2PSOCK_OP_GENERATE,
            Operation::Send => i2psock_operation::I2PSOCK_OP_SEND,
            Operation::Receive => i2psock_operation::I2PSOCK_OP_RECEIVE,
            Operation::Session => i2psock_operation::I2PSOCK_OP_SESSION,
        }
    }
}

/// What went wrong (i2p.sam's Error and its kinds, leaflet's exceptions). Free with i2psock_error_free().
pub struct i2psock_error {
    error: Error,
    tag: CString,
    message: CString,
    operation: CString,
}

impl i2psock_error {
    pub(super) fn new(error: Error) -> Self {
        let (tag, message) = (memory::c_string(&error.tag), memory::c_string(&error.message));
        let operation = memory::c_string(error.operation.name());
        i2psock_error { error, tag, message, operation }
    }
}

/// Name of a status, such as "NETWORK"; "unknown" for other numbers. Static: never free it.
#[no_mangle]
pub extern "C" fn i2psock_status_name(status: c_int) -> *const c_char {
    let name = match status {
        0 => c"OK",
        1 => c"BLOCK",
        2 => c"CLOSED",
        3 => c"NETWORK",
        4 => c"TIMEOUT",
        5 => c"IO",
        6 => c"PROTOCOL",
        7 => c"UNSUPPORTED",
        8 => c"INVALID",
        9 => c"STATE",
        99 => c"INTERNAL",
        _ => c"unknown",
    };
    name.as_ptr()
}

/// Status of the failed call, the same that it returned; I2PSOCK_OK for NULL.
#[no_mangle]
pub extern "C" fn i2psock_error_status(error: Option<&i2psock_error>) -> i2psock_status {
    error.map_or(i2psock_status::I2PSOCK_OK, |error| error.error.status.into())
}

/// What was being done; I2PSOCK_OP_NONE for NULL.
#[no_mangle]
pub extern "C" fn i2psock_error_operation(error: Option<&i2psock_error>) -> i2psock_operation {
    error.map_or(i2psock_operation::I2PSOCK_OP_NONE, |error| error.error.operation.into())
}

/// What was being done, in a word such as "connect"; "" for NULL. Lives as long as the error.
#[no_mangle]
pub extern "C" fn i2psock_error_operation_name(error: Option<&i2psock_error>) -> *const c_char {
    error.map_or(c"".as_ptr(), |error| error.operation.as_ptr())
}

/// The router's RESULT token with status I2PSOCK_NETWORK (i2p.sam's errtag), else "". Known misspellings are mended:
/// "DUPLICATED_ID" and "DUPLICATED_DEST" whatever the router wrote, and "KEY_NOT_FOUND" for every lookup of a name that
/// does not resolve, and every connect to one; the message has the router's own words. Lives as long as the error.
#[no_mangle]
pub extern "C" fn i2psock_error_tag(error: Option<&i2psock_error>) -> *const c_char {
    error.map_or(c"".as_ptr(), |error| error.tag.as_ptr())
}

/// One line for a person (i2p.sam's errdesc), with the router's own text where there is one and never with a private
/// key; "" for NULL. Lives as long as the error.
#[no_mangle]
pub extern "C" fn i2psock_error_message(error: Option<&i2psock_error>) -> *const c_char {
    error.map_or(c"".as_ptr(), |error| error.message.as_ptr())
}

/// errno of the system call that failed; 0 when there was none, and when a host name does not resolve. With
/// I2PSOCK_CLOSED it tells a reset of the connection (ECONNRESET, EPIPE) from an orderly end (0).
#[no_mangle]
pub extern "C" fn i2psock_error_os_error(error: Option<&i2psock_error>) -> c_int {
    error.map_or(0, |error| error.error.os_error)
}

/// Frees an error. NULL is allowed.
#[no_mangle]
pub unsafe extern "C" fn i2psock_error_free(error: *mut i2psock_error) {
    // SAFETY: the contract of the header.
    unsafe { memory::free(error) }
}
