//! `i2psock_stream`.

use std::ffi::{c_char, c_int, c_void, CString};
use std::mem::MaybeUninit;
use std::time::Instant;

use crate::core::drive::{after, Limit};
use crate::core::stream::{Moved, Stream};
use crate::error::{Error, Result};
use crate::ffi::addr::i2psock_addr;
use crate::ffi::base::i2psock_fd;
use crate::ffi::error::{i2psock_error, i2psock_status};
use crate::ffi::guard::{self, Handle};

/// A connected stream: a socket (leaflet's StreamSocket). One thread may send while another receives.
///
/// i2psock_stream_fd() is an ordinary connected stream socket with nothing of the payload held back in this library, so
/// poll, select, epoll, read, write, sendfile, fdopen, getsockopt, setsockopt and fcntl do what they always do. Some
/// calls would work on the connection to the bridge instead of on I2P, so do not use them on it; use these:
///   bind, listen           nothing: a destination is always bound
///   accept, connect        i2psock_dest_accept(), i2psock_dest_connect()
///   sendto, recvfrom       i2psock_stream_send(), i2psock_stream_recv(): a stream has one peer
///   getpeername            i2psock_stream_peer()
///   gethostbyname          i2psock_dest_lookup(), i2psock_controller_lookup()
/// SAM has no half close: shutdown(fd, SHUT_WR) ends both directions, and what the peer still has to send is lost.
/// write(2) on it raises SIGPIPE like on every socket; i2psock_stream_send() does not.
pub struct i2psock_stream(Handle<Lent>);

/// A stream and the things its getters lend out.
struct Lent {
    stream: Stream,
    peer: Option<i2psock_addr>,
    text: CString,
}

impl i2psock_stream {
    pub(super) fn new(stream: Stream) -> Self {
        let peer = stream.remote().address.clone().map(i2psock_addr::new);
        let text = guard::c_string(&stream.remote().text);
        i2psock_stream(Handle::new(Lent { stream, peer, text }))
    }

    pub(super) fn core(&self) -> &Stream {
        &self.0.get().stream
    }
}

/// The peer's destination, verified by the router (leaflet's parse_headers, i2p.sam's accept; but see
/// i2psock_stream_peer_verified()): always for an accepted stream, and for one that was connected to a whole
/// destination. NULL for one connected by name or base32: the router resolved that by itself (i2psock_dest_lookup()
/// tells). Borrowed: it lives as long as `stream`.
#[no_mangle]
pub extern "C" fn i2psock_stream_peer(stream: Option<&i2psock_stream>) -> *const i2psock_addr {
    let peer = stream.and_then(|stream| stream.0.get().peer.as_ref());
    peer.map_or(std::ptr::null(), std::ptr::from_ref)
}

/// The peer for a person to read: "<base32>.b32.i2p", or the name that was connected to. Lives as long as `stream`;
/// NULL for NULL.
#[no_mangle]
pub extern "C" fn i2psock_stream_peer_text(stream: Option<&i2psock_stream>) -> *const c_char {
    stream.map_or(std::ptr::null(), |stream| stream.0.get().text.as_ptr())
}

/// 1 if the router vouches for i2psock_stream_peer(), as it does for every stream but those of a listener with option
/// "stream_forward": there any process of this machine could have connected and named a peer. 0 otherwise, and for NULL.
#[no_mangle]
pub extern "C" fn i2psock_stream_peer_verified(stream: Option<&i2psock_stream>) -> c_int {
    stream.is_some_and(|stream| stream.core().remote().verified).into()
}

/// I2CP port the stream comes from: the peer's for an accepted stream; ours for a connected one, if option "from_port" of
/// the connect or of its destination says one. -1: not told.
#[no_mangle]
pub extern "C" fn i2psock_stream_from_port(stream: Option<&i2psock_stream>) -> c_int {
    stream.and_then(|stream| stream.core().remote().from_port).map_or(-1, c_int::from)
}

/// I2CP port the stream goes to, by option "to_port" for a connected one. -1: not told.
#[no_mangle]
pub extern "C" fn i2psock_stream_to_port(stream: Option<&i2psock_stream>) -> c_int {
    stream.and_then(|stream| stream.core().remote().to_port).map_or(-1, c_int::from)
}

/// The socket, borrowed: poll, read and write it as you like, never close it. -1 for NULL and after
/// i2psock_stream_take_fd(). (leaflet's fileno.)
#[no_mangle]
pub extern "C" fn i2psock_stream_fd(stream: Option<&i2psock_stream>) -> i2psock_fd {
    stream.map_or(-1, |stream| stream.core().fd())
}

/// Gives you the socket: from now on you close it (leaflet's detach). Its flags do not change, and nothing of the
/// payload is left behind. The handle keeps its getters and must still be freed; every other call on it returns
/// I2PSOCK_STATE. Closing or losing the destination still ends the stream. Before close(2), read what has arrived and
/// see that ioctl(SIOCOUTQ) says 0: a close with unread input throws away what was written. Of the end you get to know
/// what the system tells: read(2) returns 0 when the peer has ended, and also when the session was lost, of which
/// i2psock_dest_state() knows; write(2) succeeds for a while after that. ECONNRESET comes once, in whichever call is the
/// first, and then read(2) returns 0 as if all had come: remember it. I2PSOCK_STATE: taken before; `*fd` is -1 then.
#[no_mangle]
pub extern "C" fn i2psock_stream_take_fd(
    stream: Option<&mut i2psock_stream>,
    fd: Option<&mut MaybeUninit<i2psock_fd>>,
    err: Option<&mut MaybeUninit<*mut i2psock_error>>,
) -> i2psock_status {
    let mut fd = fd;
    guard::put(&mut fd, -1);
    guard::on_mut(stream.map(|stream| &mut stream.0), "stream", err, |lent| {
        let fd = guard::some(fd, "fd")?;
        fd.write(lent.stream.take_fd()?);
        Ok(i2psock_status::I2PSOCK_OK)
    })
}

fn moved(result: Result<Moved>, count: &mut Option<&mut MaybeUninit<usize>>) -> Result<i2psock_status> {
    Ok(match result? {
        Moved::Bytes(bytes) => {
            guard::put(count, bytes);
            i2psock_status::I2PSOCK_OK
        }
        Moved::Block => i2psock_status::I2PSOCK_BLOCK,
    })
}

/// Sends like send(2): on a blocking stream all of `len` bytes (with i2psock_stream_set_timeout(): those that went in
/// time, if any), on a non-blocking one what fits; `*sent`, which may be NULL, is how many. `flags`: 0, MSG_DONTWAIT,
/// MSG_MORE, MSG_NOSIGNAL (always on: no SIGPIPE). I2PSOCK_BLOCK: nothing fits now; I2PSOCK_TIMEOUT: nothing fitted
/// within i2psock_stream_set_timeout(); I2PSOCK_CLOSED: the stream has ended, every time; I2PSOCK_STATE: the descriptor
/// was taken. An end that i2psock_stream_recv() has told is one for sending, too, as SAM has no half close; of another
/// the system may learn only after it has taken some bytes more.
#[no_mangle]
pub unsafe extern "C" fn i2psock_stream_send(
    stream: Option<&i2psock_stream>,
    data: *const c_void,
    len: usize,
    flags: c_int,
    sent: Option<&mut MaybeUninit<usize>>,
    err: Option<&mut MaybeUninit<*mut i2psock_error>>,
) -> i2psock_status {
    let mut sent = sent;
    guard::put(&mut sent, 0);
    guard::on(stream.map(|stream| &stream.0), "stream", err, |lent| {
        // SAFETY: the contract of the header.
        let bytes = unsafe { guard::bytes(data, len, "data")? };
        moved(lent.stream.send(bytes, flags), &mut sent)
    })
}

/// Receives like recv(2) into `data`, up to `len` bytes; `*received` is how many, never 0 with I2PSOCK_OK unless `len`
/// is 0. `flags`: 0, MSG_DONTWAIT, MSG_PEEK, MSG_WAITALL. I2PSOCK_BLOCK: nothing there on a non-blocking stream or with
/// MSG_DONTWAIT; I2PSOCK_TIMEOUT: nothing came within i2psock_stream_set_timeout(); I2PSOCK_CLOSED: the stream has
/// ended, every time; I2PSOCK_STATE: the descriptor was taken. If the stream was cut off and what has come may not be
/// all, i2psock_error_os_error() is ECONNRESET, for this and all later calls on it, whichever met the reset first; 0
/// after an orderly end. After the loss of the session the message says why that was.
#[no_mangle]
pub unsafe extern "C" fn i2psock_stream_recv(
    stream: Option<&i2psock_stream>,
    data: *mut c_void,
    len: usize,
    flags: c_int,
    received: Option<&mut MaybeUninit<usize>>,
    err: Option<&mut MaybeUninit<*mut i2psock_error>>,
) -> i2psock_status {
    let mut received = received;
    guard::put(&mut received, 0);
    guard::on(stream.map(|stream| &stream.0), "stream", err, |lent| {
        if received.is_none() {
            return Err(Error::invalid("received is NULL"));
        }
        // SAFETY: the contract of the header.
        let room = unsafe { guard::room(data, len, "data")? };
        moved(lent.stream.recv(room, flags), &mut received)
    })
}

/// Sends everything (leaflet's sendall). A blocking stream sends it all, within i2psock_stream_set_timeout() for each
/// part. A non-blocking one sends what fits and returns I2PSOCK_BLOCK: `*sent` bytes are gone, send the rest when the
/// descriptor is writable. (i2p.sam's send took everything at once without blocking, by keeping it in memory; a
/// descriptor that tells poll the truth cannot.) With any other status too, `*sent` says how much was sent.
///
///     const char *data = ...; size_t left = ...;
///     while (left > 0) {
///         size_t sent;
///         i2psock_status status = i2psock_stream_send_all(stream, data, left, &sent, &err);
///         data += sent; left -= sent;
///         if (status == I2PSOCK_BLOCK) {
///             struct pollfd p = { i2psock_stream_fd(stream), POLLOUT, 0 };
///             poll(&p, 1, -1);
///         } else if (status != I2PSOCK_OK) {
///             break;
///         }
///     }
#[no_mangle]
pub unsafe extern "C" fn i2psock_stream_send_all(
    stream: Option<&i2psock_stream>,
    data: *const c_void,
    len: usize,
    sent: Option<&mut MaybeUninit<usize>>,
    err: Option<&mut MaybeUninit<*mut i2psock_error>>,
) -> i2psock_status {
    let mut sent = sent;
    guard::put(&mut sent, 0);
    guard::on(stream.map(|stream| &stream.0), "stream", err, |lent| {
        // SAFETY: the contract of the header.
        let bytes = unsafe { guard::bytes(data, len, "data")? };
        let (count, result) = lent.stream.send_all(bytes);
        guard::put(&mut sent, count);
        moved(result, &mut None)
    })
}

/// Makes the socket non-blocking (1) or blocking (0), as O_NONBLOCK does (leaflet's setblocking).
#[no_mangle]
pub extern "C" fn i2psock_stream_set_nonblocking(
    stream: Option<&i2psock_stream>,
    on: c_int,
    err: Option<&mut MaybeUninit<*mut i2psock_error>>,
) -> i2psock_status {
    guard::on(stream.map(|stream| &stream.0), "stream", err, |lent| {
        lent.stream.set_nonblocking(on != 0).map(|()| i2psock_status::I2PSOCK_OK)
    })
}

/// Bounds each i2psock_stream_send() and i2psock_stream_recv() on a blocking stream to `timeout_ms` milliseconds, after
/// which they return I2PSOCK_TIMEOUT; -1, the default, for no bound (leaflet's settimeout). Does not touch the
/// descriptor: a non-blocking stream goes on to return I2PSOCK_BLOCK.
#[no_mangle]
pub extern "C" fn i2psock_stream_set_timeout(
    stream: Option<&i2psock_stream>,
    timeout_ms: c_int,
    err: Option<&mut MaybeUninit<*mut i2psock_error>>,
) -> i2psock_status {
    guard::on(stream.map(|stream| &stream.0), "stream", err, |lent| {
        lent.stream.set_timeout(timeout_ms).map(|()| i2psock_status::I2PSOCK_OK)
    })
}

/// Ends both directions at once and wakes every thread that is blocked on the stream; they, and all later calls, return
/// I2PSOCK_CLOSED. Frees nothing. Does not block. (leaflet's shutdown; SAM has no half close.)
#[no_mangle]
pub extern "C" fn i2psock_stream_shutdown(
    stream: Option<&i2psock_stream>,
    err: Option<&mut MaybeUninit<*mut i2psock_error>>,
) -> i2psock_status {
    guard::on(stream.map(|stream| &stream.0), "stream", err, |lent| {
        lent.stream.shutdown().map(|()| i2psock_status::I2PSOCK_OK)
    })
}

/// Bytes that were written and that the bridge has not taken yet; -1 when nobody can tell: NULL, an ended stream, a
/// taken descriptor. To close without loss from a poll loop: write no more; receive and drop what still comes; look
/// again every few milliseconds (the system has no event for it); when this is 0 and nothing is left to receive,
/// i2psock_stream_free().
#[no_mangle]
pub extern "C" fn i2psock_stream_unsent(stream: Option<&i2psock_stream>) -> i64 {
    guard::getter(-1, || stream?.core().unsent().ok()?.try_into().ok())
}

/// Closes a stream and frees the handle, whatever the status. Waits up to `timeout_ms` (-1: as long as it takes) until
/// the bridge has taken all that was written, dropping what still arrives; nothing is said about the peer. I2PSOCK_OK:
/// taken; I2PSOCK_TIMEOUT: not in time, the rest may be lost; I2PSOCK_CLOSED: the stream was reset (even if nothing was
/// left to take; os_error is ECONNRESET) or shut down before, and the rest is lost. In a poll loop use
/// i2psock_stream_unsent(). NULL is allowed.
#[no_mangle]
pub unsafe extern "C" fn i2psock_stream_close(
    stream: *mut i2psock_stream,
    timeout_ms: c_int,
    err: Option<&mut MaybeUninit<*mut i2psock_error>>,
) -> i2psock_status {
    // SAFETY: the contract of the header.
    let handle = unsafe { stream.as_ref() };
    let status = match handle {
        None => guard::call(err, || Ok(i2psock_status::I2PSOCK_OK)),
        Some(handle) => guard::on(Some(&handle.0), "stream", err, |lent| {
            let limit = match Limit::from_millis(timeout_ms)? {
                Limit::After(duration) => Some(duration),
                Limit::Default | Limit::Never => None,
            };
            lent.stream.drain(after(limit, Instant::now())).map(|()| i2psock_status::I2PSOCK_OK)
        }),
    };
    // SAFETY: as above; `handle` is not used again.
    unsafe { guard::free(stream) };
    status
}

/// Closes a stream at once and frees the handle. What was written may be lost, and is when there is unread input: see
/// i2psock_stream_unsent() and i2psock_stream_close(). NULL is allowed.
#[no_mangle]
pub unsafe extern "C" fn i2psock_stream_free(stream: *mut i2psock_stream) {
    // SAFETY: the contract of the header.
    unsafe { guard::free(stream) }
}
