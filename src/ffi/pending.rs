//! `i2psock_pending`.

use std::ffi::{c_char, c_int};
use std::mem::MaybeUninit;
use std::time::{Duration, Instant};

use crate::core::drive::Stage;
use crate::error::Error;
use crate::ffi::addr::i2psock_addr;
use crate::ffi::base::i2psock_fd;
use crate::ffi::dest::i2psock_dest;
use crate::ffi::error::{i2psock_error, i2psock_status};
use crate::ffi::guard;
use crate::ffi::handles::{each, i2psock_pending, Any};
use crate::ffi::stream::i2psock_stream;
use crate::ffi::tunnel::i2psock_tunnel;

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
    /// No router answers yet, and option bridge_timeout says to wait for one.
    I2PSOCK_STAGE_AWAY = 7,
    /// Waiting until the router has let go of the last session with the same keys (option reopen_delay).
    I2PSOCK_STAGE_LETTING_GO = 8,
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
            Stage::Away => i2psock_stage::I2PSOCK_STAGE_AWAY,
            Stage::LettingGo => i2psock_stage::I2PSOCK_STAGE_LETTING_GO,
        }
    }
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
        each!(&mut kept.pending, pending => pending.step(Instant::now())).map(guard::progress)
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
        each!(&mut kept.pending, pending => pending.wait(limit)).map(guard::progress)
    })
}

/// The descriptor to wait on, for poll only: never read, write or close it. -1 when there is nothing to wait for. Ask again
/// after every step: it may have changed.
#[no_mangle]
pub extern "C" fn i2psock_pending_fd(pending: Option<&i2psock_pending>) -> i2psock_fd {
    guard::getter(-1, || pending.map(|pending| each!(&pending.0.get().pending, p => p.fd())))
}

/// Rises whenever i2psock_pending_fd() is a new description, even under the same number: then epoll has to be told anew. 0
/// for NULL.
#[no_mangle]
pub extern "C" fn i2psock_pending_generation(pending: Option<&i2psock_pending>) -> u64 {
    guard::getter(0, || pending.map(|pending| each!(&pending.0.get().pending, p => p.generation())))
}

/// Events to wait for: POLLIN, POLLOUT or both; 0 when there is nothing to wait for.
#[no_mangle]
pub extern "C" fn i2psock_pending_events(pending: Option<&i2psock_pending>) -> c_int {
    guard::getter(0, || pending.map(|pending| each!(&pending.0.get().pending, p => p.events()).into()))
}

/// Milliseconds after which a step is due even without an event, fit for poll; -1 for never, 0 when the operation has
/// ended.
#[no_mangle]
pub extern "C" fn i2psock_pending_timeout_ms(pending: Option<&i2psock_pending>) -> c_int {
    guard::getter(-1, || pending.map(|pending| each!(&pending.0.get().pending, p => p.timeout_ms(Instant::now()))))
}

/// How far the operation is, for a progress display.
#[no_mangle]
pub extern "C" fn i2psock_pending_stage(pending: Option<&i2psock_pending>) -> i2psock_stage {
    guard::getter(i2psock_stage::I2PSOCK_STAGE_NONE, || {
        pending.map(|pending| each!(&pending.0.get().pending, p => p.stage()).into())
    })
}

/// The same in words, such as "building tunnels". Static: never free it.
#[no_mangle]
pub extern "C" fn i2psock_pending_stage_name(pending: Option<&i2psock_pending>) -> *const c_char {
    guard::getter(c"".as_ptr(), || pending.map(|pending| each!(&pending.0.get().pending, p => p.stage_name()).as_ptr()))
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
            let text = guard::c_string(each!(&kept.pending, pending => pending.reply(key))?);
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
        guard::give(out, "out", || match &mut kept.pending {
            Any::Destination(pending) => pending.take().map(i2psock_dest::new),
            other => Err(other.makes_no("destination")),
        })
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
        guard::give(out, "out", || match &mut kept.pending {
            Any::Stream(pending) => pending.take().map(i2psock_stream::new),
            other => Err(other.makes_no("stream")),
        })
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
        guard::give(out, "out", || match &mut kept.pending {
            Any::Tunnel(pending) => pending.take().map(i2psock_tunnel::new),
            other => Err(other.makes_no("tunnel")),
        })
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
        guard::give(out, "out", || match &mut kept.pending {
            Any::Addr(pending) => pending.take().map(i2psock_addr::new),
            other => Err(other.makes_no("address")),
        })
    })
}

/// Cancels the operation if it is not done, and frees it. An accept the router knows of already is kept by its
/// destination and taken up by the next accept, with the stream that may have come meanwhile. NULL is allowed.
#[no_mangle]
pub unsafe extern "C" fn i2psock_pending_free(pending: *mut i2psock_pending) {
    // SAFETY: the contract of the header.
    unsafe { guard::free(pending) }
}
