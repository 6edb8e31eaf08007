//! `i2psock_listener`.

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::time::Instant;

use crate::core::listener::Listener;
use crate::ffi::base::i2psock_fd;
use crate::ffi::dest::i2psock_dest;
use crate::ffi::error::{i2psock_error, i2psock_status};
use crate::ffi::guard::{self, Handle};
use crate::ffi::options::{self, i2psock_options};
use crate::ffi::stream::i2psock_stream;

/// Accepts streams for a poll loop: ONE descriptor that is readable when a stream is there (i2p.sam's listen and
/// accept, leaflet's register_accept again and again). It keeps accepts armed on the router, arms the next one as soon
/// as a peer has come, pauses after failures, and goes on by itself when the destination's session was lost and is
/// there again. May be used by many threads at once.
pub struct i2psock_listener(Handle<Arc<Listener>>);

impl i2psock_listener {
    pub(super) fn core(&self) -> &Arc<Listener> {
        self.0.get()
    }
}

/// Begins to accept streams on `dest`, which must be of style STREAM. Up to `backlog` streams wait to be fetched, 0
/// meaning 16; when so many wait, peers have to wait at the router, which keeps them for some seconds. Option "accepts"
/// says how many accepts are armed at a time (1); more save a round trip to the bridge between peers that come at the
/// same moment. With option "stream_forward" the router connects to a loopback port instead, see i2psock_options.
/// `options` may be NULL. Does not block: nothing has been asked of the router yet when this returns, and a router's
/// refusal shows in i2psock_listener_failures(). `*out` is yours to close; the destination must not be closed before it
/// unless nothing more is to come. Several listeners on a destination share its streams. I2PSOCK_STATE: another style;
/// I2PSOCK_INVALID: `backlog` is negative, or an option is not for listeners; I2PSOCK_CLOSED: the destination has
/// ended; I2PSOCK_IO: no descriptors left.
#[no_mangle]
pub extern "C" fn i2psock_listener_open(
    dest: Option<&i2psock_dest>,
    backlog: c_int,
    options: Option<&i2psock_options>,
    out: Option<&mut MaybeUninit<*mut i2psock_listener>>,
    err: Option<&mut MaybeUninit<*mut i2psock_error>>,
) -> i2psock_status {
    let out = guard::clear(out);
    guard::on(dest.map(i2psock_dest::handle), "dest", err, |dest| {
        let options = options::given(options);
        guard::give(out, "out", || Ok(i2psock_listener(Handle::new(Arc::new(Listener::open(dest, backlog, options)?)))))
    })
}

/// A descriptor that is readable when i2psock_listener_accept() has a stream to give, or the destination has ended; for
/// poll only, never read, write or close it. The same number and description as long as `listener` lives. Without the
/// keeper it is also readable when there is something to do, so that I2PSOCK_BLOCK is a legal answer. As long as a
/// stream waits it stays readable, and for ever after the end: leave it out of poll while you want no stream. -1 for
/// NULL.
#[no_mangle]
pub extern "C" fn i2psock_listener_fd(listener: Option<&i2psock_listener>) -> i2psock_fd {
    listener.map_or(-1, |listener| listener.0.get().fd())
}

/// Milliseconds after which i2psock_listener_accept() is due even without an event, fit for poll; -1 for never, as
/// always with the keeper.
#[no_mangle]
pub extern "C" fn i2psock_listener_timeout_ms(listener: Option<&i2psock_listener>) -> c_int {
    listener.map_or(-1, |listener| listener.0.get().timeout_ms(Instant::now()))
}

/// Gives the next stream that has come, with its peer (i2psock_stream_peer()); never blocks. The stream is
/// non-blocking, see i2psock_stream_set_nonblocking(). `*out` is yours to free. Without the keeper this also does what
/// the destination's connections need, as i2psock_dest_service() does. I2PSOCK_BLOCK: none is there, wait on
/// i2psock_listener_fd(); `*out` is NULL then. I2PSOCK_CLOSED: the destination has ended; while it is only being opened
/// again there are just no streams.
#[no_mangle]
pub extern "C" fn i2psock_listener_accept(
    listener: Option<&i2psock_listener>,
    out: Option<&mut MaybeUninit<*mut i2psock_stream>>,
    err: Option<&mut MaybeUninit<*mut i2psock_error>>,
) -> i2psock_status {
    let mut out = guard::clear(out);
    guard::on(listener.map(|listener| &listener.0), "listener", err, |listener| {
        let Some(out) = out.as_mut() else { return Err(crate::error::Error::invalid("out is NULL")) };
        Ok(match listener.accept(Instant::now())? {
            Some(stream) => {
                out.write(guard::into_raw(i2psock_stream::new(stream)));
                i2psock_status::I2PSOCK_OK
            }
            None => i2psock_status::I2PSOCK_BLOCK,
        })
    })
}

/// How many accepts the router has failed since the last stream came; 0 while all is well, and for NULL. After the
/// second one each next accept comes after a pause, which grows from 20 ms to 5 s. `*err`, if it is not NULL, gets why
/// the last one failed, however long ago, yours to free, or NULL.
#[no_mangle]
pub extern "C" fn i2psock_listener_failures(
    listener: Option<&i2psock_listener>,
    err: Option<&mut MaybeUninit<*mut i2psock_error>>,
) -> c_int {
    let (failures, cause) = listener.map_or((0, None), |listener| listener.0.get().failures());
    guard::tell(err, cause);
    c_int::try_from(failures).unwrap_or(c_int::MAX)
}

/// Closes a listener and frees the handle. Streams nobody has fetched, and peers the router brings on an accept it was
/// asked for already, go to the next i2psock_dest_accept() or listener of the destination. Nobody else may be using the
/// handle. NULL is allowed.
#[no_mangle]
pub unsafe extern "C" fn i2psock_listener_close(listener: *mut i2psock_listener) {
    // SAFETY: the contract of the header.
    unsafe { guard::free(listener) }
}
