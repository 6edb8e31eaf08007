//! The handles that functions of several nouns take: a pending comes from destinations, controllers and tunnels and is
//! taken apart into theirs, keys are an option and are made by a controller.

use std::ffi::CString;

use crate::core::destination::DestHandle;
use crate::core::drive::Pending;
use crate::core::stream::Stream;
use crate::core::tunnel::Tunnel;
use crate::error::{Error, Status};
use crate::ffi::guard::Handle;
use crate::identity::{Address, Keys};

/// Private keys of a destination (leaflet's Dest with is_private True): whoever has them is that destination. Wiped when
/// freed, never logged, never in a message; a type of its own, so that keys cannot be handed out as an address. Never
/// changes; may be used by many threads at once.
pub struct i2psock_keys(pub(super) Handle<Keys>);

impl i2psock_keys {
    pub(super) fn new(keys: Keys) -> Self {
        i2psock_keys(Handle::new(keys))
    }
}

/// One operation in progress, for a program with its own poll loop: call i2psock_pending_step() when
/// i2psock_pending_fd() has i2psock_pending_events() or i2psock_pending_timeout_ms() have passed, until it does not return
/// I2PSOCK_BLOCK, then take the result with the i2psock_pending_finish_ function of its kind. (leaflet's connect and
/// register_accept, which return at once; step is its parse_headers.) Use one pending in one thread at a time.
pub struct i2psock_pending(pub(super) Handle<Kept>);

/// An operation and the texts its getters lend out.
pub(super) struct Kept {
    pub(super) pending: Any,
    /// Fields of the reply that were asked for.
    pub(super) texts: Vec<(String, CString)>,
}

/// An operation, whatever it makes.
pub(super) enum Any {
    Destination(Pending<DestHandle>),
    Stream(Pending<Stream>),
    Addr(Pending<Address>),
    Tunnel(Pending<Tunnel>),
}

/// The same for every kind of operation.
macro_rules! each {
    ($any:expr, $pending:ident => $body:expr) => {
        match $any {
            Any::Destination($pending) => $body,
            Any::Stream($pending) => $body,
            Any::Addr($pending) => $body,
            Any::Tunnel($pending) => $body,
        }
    };
}

pub(super) use each;

macro_rules! any_of {
    ($($made:ty => $kind:ident),*) => { $(
        impl From<Pending<$made>> for Any {
            fn from(pending: Pending<$made>) -> Self {
                Any::$kind(pending)
            }
        }
    )* };
}

any_of!(DestHandle => Destination, Stream => Stream, Address => Addr, Tunnel => Tunnel);

impl Any {
    /// Why `what` cannot be taken from an operation that makes something else.
    pub(super) fn makes_no(&self, what: &str) -> Error {
        each!(self, pending => pending.check_done().err().unwrap_or_else(|| {
            let operation = pending.operation();
            Error::new(Status::State, operation, format!("{operation} does not make a {what}"))
        }))
    }
}

impl i2psock_pending {
    pub(super) fn new(pending: impl Into<Any>) -> Self {
        i2psock_pending(Handle::new(Kept { pending: pending.into(), texts: Vec::new() }))
    }

    /// Takes back what was given to the program; nothing for NULL.
    ///
    /// # Safety
    /// `pointer` came from this library and is not used again.
    pub(super) unsafe fn take(pointer: *mut i2psock_pending) -> Option<Any> {
        if pointer.is_null() {
            return None;
        }
        // SAFETY: promised by the caller.
        let owned = unsafe { Box::from_raw(pointer) };
        Some(owned.0.into_inner().pending)
    }
}
