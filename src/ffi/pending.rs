//! `i2psock_pending`.

use std::ffi::{c_char, c_int, CString};
use std::mem::MaybeUninit;
use std::time::Duration;

use crate::core::pending::{Pending, Product, Stage};
use crate::error::{Error, Result};
use crate::ffi::addr::i2psock_addr;
use crate::ffi::dest::i2psock_dest;
use crate::ffi::error::{i2psock_error, i2psock_status};
use crate::ffi::guard::{self, Handle};
use crate::ffi::i2psock_fd;
use crate::ffi::stream::i2psock_stream;
use crate::ffi::tunnel::i2psock_tunnel;

/// One operation in progress, for a program with its own poll loop: call i2psock_pending_step() when
/// i2psock_pending_fd() has i2psock_pending_events() or i2psock_pending_timeout_ms() have passed, until it does not return
/// I2PSOCK_BLOCK, then take the result with the i2psock_pending_finish_ function of its kind. (leaflet's connect and
/// register_accept, which return at once; step is its parse_headers.) Use one pending in one thread at a time.
pub struct i2psock_pending(Handle<Kept>);

struct Kept {
    pending: Pending,
    /// Fields of the reply that were asked for.
    texts: Vec<(String, CString)>,
}

impl i2psock_pending {
    pub(super) fn new(pending: Pending) -> Self {
        i2psock_pending(Handle::new(Kept { pending, texts: Vec::new() }))
    }

    /// Takes back what was given to the program; nothing for NULL.
    ///
    /// # Safety
    /// `pointer` came from this library and is not used again.
    pub(super) unsafe fn take(pointer: *mut i2psock_pending) -> Option<Pending> {
        if pointer.is_null() {
            return None;
        }
        // SAFETY: promised by the caller.
        let owned = unsafe { Box::from_raw(pointer) };
        Some(owned.0.into_inner().pending)
    }
}

/// How far an operation is. Numbers are only ever added.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum i2psock_stage {
    /// The handle is NULL.
    I2PSOCK_STAGE_NONE = 0,
    /// Connecting to the bridge.
    I2PSOCK_STAGE_CONNECTING = 1,
    /// Greeting the bridge.
    I2PSOCK_STAGE_GREETING = 2,
    /// The router is at work: it builds tunnels, reaches the peer, resolves the name.
    I2PSOCK_STAGE_WORKING = 3,
    /// The router waits for a peer: the descriptor is readable only when one comes, on error or at the end.
    I2PSOCK_STAGE_LISTENING = 4,
    /// Done.
    I2PSOCK_STAGE_DONE = 5,
    /// Failed.
    I2PSOCK_STAGE_FAILED = 6,
}

impl From<Stage> for i2psock_stage {
    fn from(stage: Stage) -> Self {
        match stage {
            Stage::Connecting => i2psock_stage::I2PSOCK_STAGE_CONNECTING,
            Stage::Greeting => i2psock_stage::I2PSOCK_STAGE_GREETING,
            Stage::Working => i2psock_stage::I2PSOCK_STAGE_WORKING,
            Stage::Listening => i2psock_stage::I2PSOCK_STAGE_LISTENING,
            Stage::Done => i2psock_stage::I2PSOCK_STAGE_DONE,
            Stage::Failed => i2psock_stage::I2PSOCK_STAGE_FAILED,
        }
    }
}

/// Waits for an operation and takes its product: the blocking form of everything.
pub(super) fn complete<T>(mut pending: Pending, take: impl FnOnce(&mut Pending) -> Result<T>) -> Result<T> {
    pending.complete()?;
    take(&mut pending)
}

pub(super) fn address(pending: &mut Pending) -> Result<i2psock_addr> {
    pending.take_as("address", |product| match product {
        Product::Address(address) => Ok(i2psock_addr::new(address)),
        other => Err(other),
    })
}

pub(super) fn dest(pending: &mut Pending) -> Result<i2psock_dest> {
    pending.take_as("destination", |product| match product {
        Product::Dest(dest) => Ok(i2psock_dest::new(dest)),
        other => Err(other),
    })
}

pub(super) fn tunnel(pending: &mut Pending) -> Result<i2psock_tunnel> {
    pending.take_as("tunnel", |product| match product {
        Product::Tunnel(tunnel) => Ok(i2psock_tunnel::new(tunnel)),
        other => Err(other),
    })
}

pub(super) fn stream(pending: &mut Pending) -> Result<i2psock_stream> {
    pending.take_as("stream", |product| match product {
        Product::Stream(stream) => Ok(i2psock_stream::new(stream)),
        other => Err(other),
    })
}

/// Does what can be done without blocking. I2PSOCK_OK: done, now finish; I2PSOCK_BLOCK: wait on the descriptor, which
/// may be another one now, and step again. Anything else is the operation's failure, final and told every time:
/// I2PSOCK_TIMEOUT when its own limit is over, I2PSOCK_CLOSED when its destination or controller was closed or lost,
/// and the statuses of the call that started it.
#[no_mangle]
pub extern "C" fn i2psock_pending_step(
    pending: Option<&mut i2psock_pending>,
    err: Option<&mut MaybeUninit<*mut i2psock_error>>,
) -> i2psock_status {
    guard::on_mut(pending.map(|pending| &mut pending.0), "pending", err, |kept| {
        kept.texts.clear();
        kept.pending.step().map(guard::progress)
    })
}

/// Steps and polls until the operation has ended (I2PSOCK_OK or its failure) or `timeout_ms` have passed: then
/// I2PSOCK_BLOCK, and the operation goes on and may be waited for again. -1 waits for the operation's own limit.
#[no_mangle]
pub extern "C" fn i2psock_pending_wait(
    pending: Option<&mut i2psock_pending>,
    timeout_ms: c_int,
    err: Option<&mut MaybeUninit<*mut i2psock_error>>,
) -> i2psock_status {
    guard::on_mut(pending.map(|pending| &mut pending.0), "pending", err, |kept| {
        kept.texts.clear();
        let limit = match (timeout_ms, u64::try_from(timeout_ms)) {
            (_, Ok(milliseconds)) => Some(Duration::from_millis(milliseconds)),
            (-1, _) => None,
            _ => return Err(Error::invalid("timeout_ms is -1 or a number of milliseconds")),
        };
        kept.pending.wait(limit).map(guard::progress)
    })
}

/// The descriptor to wait on, for poll only: never read, write or close it. -1 when there is nothing to wait for. Ask again
/// after every step: it may have changed.
#[no_mangle]
pub extern "C" fn i2psock_pending_fd(pending: Option<&i2psock_pending>) -> i2psock_fd {
    guard::getter(-1, || pending.map(|pending| pending.0.get().pending.fd()))
}

/// Rises whenever i2psock_pending_fd() is a new description, even under the same number: then epoll has to be told anew. 0
/// for NULL.
#[no_mangle]
pub extern "C" fn i2psock_pending_generation(pending: Option<&i2psock_pending>) -> u64 {
    guard::getter(0, || pending.map(|pending| pending.0.get().pending.generation()))
}

/// Events to wait for: POLLIN, POLLOUT or both; 0 when there is nothing to wait for.
#[no_mangle]
pub extern "C" fn i2psock_pending_events(pending: Option<&i2psock_pending>) -> c_int {
    guard::getter(0, || pending.map(|pending| pending.0.get().pending.events().into()))
}

/// Milliseconds after which a step is due even without an event, fit for poll; -1 for never, 0 when the operation has
/// ended.
#[no_mangle]
pub extern "C" fn i2psock_pending_timeout_ms(pending: Option<&i2psock_pending>) -> c_int {
    guard::getter(-1, || pending.map(|pending| pending.0.get().pending.timeout_ms()))
}

/// How far the operation is, for a progress display.
#[no_mangle]
pub extern "C" fn i2psock_pending_stage(pending: Option<&i2psock_pending>) -> i2psock_stage {
    guard::getter(i2psock_stage::I2PSOCK_STAGE_NONE, || pending.map(|pending| pending.0.get().pending.stage().into()))
}

/// The same in words, such as "building tunnels". Static: never free it.
#[no_mangle]
pub extern "C" fn i2psock_pending_stage_name(pending: Option<&i2psock_pending>) -> *const c_char {
    guard::getter(c"".as_ptr(), || pending.map(|pending| pending.0.get().pending.stage_name().as_ptr()))
}

/// A field of the bridge's last reply, such as "RESULT", "MESSAGE", "VERSION" or "NAME" (leaflet's SAMReply). NULL when the
/// reply has no such field, when there was no reply, and for private keys, always. Lives until the next step, wait or free.
#[no_mangle]
pub unsafe extern "C" fn i2psock_pending_reply(
    pending: Option<&mut i2psock_pending>,
    key: *const c_char,
) -> *const c_char {
    guard::getter(std::ptr::null(), || {
        let kept = pending?.0.get_mut();
        // SAFETY: the contract of the header.
        let key = unsafe { guard::text(key, "key") }.ok()?;
        if !kept.texts.iter().any(|(known, _)| known == key) {
            let text = guard::c_string(kept.pending.reply(key)?);
            kept.texts.push((key.to_owned(), text));
        }
        kept.texts.iter().find(|(known, _)| known == key).map(|(_, text)| text.as_ptr())
    })
}

/// Takes the destination an open has made. `*out` is yours to close. I2PSOCK_STATE: it is not done, was taken before, or
/// makes something else; otherwise the operation's failure. The pending is still yours to free.
#[no_mangle]
pub extern "C" fn i2psock_pending_finish_dest(
    pending: Option<&mut i2psock_pending>,
    out: Option<&mut MaybeUninit<*mut i2psock_dest>>,
    err: Option<&mut MaybeUninit<*mut i2psock_error>>,
) -> i2psock_status {
    let out = guard::clear(out);
    guard::on_mut(pending.map(|pending| &mut pending.0), "pending", err, |kept| {
        guard::give(out, "out", || dest(&mut kept.pending))
    })
}

/// Takes the stream a connect or accept has made; it is non-blocking. `*out` is yours to free. Otherwise as
/// i2psock_pending_finish_dest().
#[no_mangle]
pub extern "C" fn i2psock_pending_finish_stream(
    pending: Option<&mut i2psock_pending>,
    out: Option<&mut MaybeUninit<*mut i2psock_stream>>,
    err: Option<&mut MaybeUninit<*mut i2psock_error>>,
) -> i2psock_status {
    let out = guard::clear(out);
    guard::on_mut(pending.map(|pending| &mut pending.0), "pending", err, |kept| {
        guard::give(out, "out", || stream(&mut kept.pending))
    })
}

/// Takes the tunnel that was opened. `*out` is yours to close. Otherwise as i2psock_pending_finish_dest().
#[no_mangle]
pub extern "C" fn i2psock_pending_finish_tunnel(
    pending: Option<&mut i2psock_pending>,
    out: Option<&mut MaybeUninit<*mut i2psock_tunnel>>,
    err: Option<&mut MaybeUninit<*mut i2psock_error>>,
) -> i2psock_status {
    let out = guard::clear(out);
    guard::on_mut(pending.map(|pending| &mut pending.0), "pending", err, |kept| {
        guard::give(out, "out", || tunnel(&mut kept.pending))
    })
}

/// Takes the address a lookup has found. `*out` is yours to free. Otherwise as i2psock_pending_finish_dest().
#[no_mangle]
pub extern "C" fn i2psock_pending_finish_addr(
    pending: Option<&mut i2psock_pending>,
    out: Option<&mut MaybeUninit<*mut i2psock_addr>>,
    err: Option<&mut MaybeUninit<*mut i2psock_error>>,
) -> i2psock_status {
    let out = guard::clear(out);
    guard::on_mut(pending.map(|pending| &mut pending.0), "pending", err, |kept| {
        guard::give(out, "out", || address(&mut kept.pending))
    })
}

/// Cancels the operation if it is not done, and frees it. An accept the router knows of already is kept by its
/// destination and taken up by the next accept, with the stream that may have come meanwhile. NULL is allowed.
#[no_mangle]
pub unsafe extern "C" fn i2psock_pending_free(pending: *mut i2psock_pending) {
    // SAFETY: the contract of the header.
    unsafe { guard::free(pending) }
}
