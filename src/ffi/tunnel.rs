//! `i2psock_tunnel`.

use std::ffi::{c_char, c_int, c_void, CString};
use std::mem::MaybeUninit;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::sync::Arc;

use crate::core::controller::Controller;
use crate::core::drive::{Limit, Pending};
use crate::core::settings::Limits;
use crate::core::tunnel::{MakeSend, Receive, Send, Tunnel, TunnelPlan};
use crate::error::{Error, Operation, Result, Status};
use crate::ffi::addr::i2psock_addr;
use crate::ffi::base::i2psock_fd;
use crate::ffi::controller::i2psock_controller;
use crate::ffi::dest::{self, i2psock_state};
use crate::ffi::error::{i2psock_error, i2psock_status};
use crate::ffi::guard::{self, Handle};
use crate::ffi::handles::{i2psock_pending, Any};
use crate::ffi::listener::i2psock_listener;
use crate::ffi::options::{self, i2psock_options};

/// For i2psock_tunnel_count(): connections that are open now.
pub const I2PSOCK_TUNNEL_NOW: c_int = 1;
/// For i2psock_tunnel_count(): connections that came.
pub const I2PSOCK_TUNNEL_TOTAL: c_int = 2;
/// For i2psock_tunnel_count(): of these, ones whose other side could not be made.
pub const I2PSOCK_TUNNEL_FAILED: c_int = 3;
/// For i2psock_tunnel_count(): times a connection could not be taken, or its other side not be made, for want of
/// descriptors; it waits and is tried again.
pub const I2PSOCK_TUNNEL_REFUSED: c_int = 4;
/// For i2psock_tunnel_count(): connections that were ended because "timeout" or "idle_timeout" was over.
pub const I2PSOCK_TUNNEL_EXPIRED: c_int = 5;
/// For i2psock_tunnel_count(): bytes from the side that connected to the side that was made.
pub const I2PSOCK_TUNNEL_BYTES_OUT: c_int = 6;
/// For i2psock_tunnel_count(): bytes the other way.
pub const I2PSOCK_TUNNEL_BYTES_IN: c_int = 7;

/// A tunnel joins stream sockets (i2p.sam's Tunnel, TunnelServer and TunnelClient): each connection that comes in on
/// one side gets one on the other, and what comes from either goes to the other, until one of the two closes or resets;
/// what that one has sent is delivered, then both are closed. SAM has no half close: a client that ends its half after
/// its request (nc -N) gets what is there of the answer by then. What an end had sent before a reset is given up, with
/// an error to tell, when the other end takes none of it for 10 seconds; after an end in good order it waits for a reader
/// that takes a break, with "timeout" and "idle_timeout" as the only limits. A slow reader stops the fast writer. Urgent
/// data (MSG_OOB) stays in its place among the rest and is not urgent any more. Errors of a connection end that
/// connection only. One background thread for each tunnel, with all signals blocked; where the system can (Linux), bytes
/// never leave the kernel. In a child of fork(2), descriptors of connections that were open stay so until it execs or
/// ends; connections end all the same when the parent's do.
///
/// With keeper=0 the tunnel's thread does what its destination, or the destination of its listener, needs.
///
/// Security: a firewall is needed to keep the user anonymous, since programs behind a tunnel may connect past it. And
/// an attacker can hold a connection of a tunnel open by sending a byte now and then, which no idle_timeout sees: set
/// "timeout" so that connections have to end.
///
/// Its options are those of a destination and, in milliseconds where it is a time:
///   nconnect       connections at a time; -1, the default, for no limit. Those above it wait, they are not refused
///   timeout        how long a connection may last, whatever it does; 60000 for i2psock_tunnel_new(), else -1 (no limit)
///   recover        (of the destination) 1: a tunnel outlives its router, the default with and without a name
///   idle_timeout   how long a connection may last without a byte once both ends are there; -1, the default, for no limit
///   buffer_size    bytes of one direction of a connection that may be on their way, up to 1048576; 131072
///   bind           for tunnel clients that listen on a bare port: on this address instead of 127.0.0.1; not with a
///                  HOST in `listen`
///   splice         0: copy bytes through a buffer of the program instead of in the kernel; 1
pub struct i2psock_tunnel(Handle<Lent>);

/// A tunnel and the texts its getters lend out.
struct Lent {
    tunnel: Tunnel,
    addr: Option<i2psock_addr>,
    name: CString,
    remote: CString,
}

impl i2psock_tunnel {
    pub(super) fn new(tunnel: Tunnel) -> Self {
        let destination = tunnel.dest().map(|dest| dest.destination());
        let addr = destination.map(|destination| i2psock_addr::new(destination.keys().address().clone()));
        let name = guard::c_string(destination.map_or("", |destination| destination.spec().name.as_str()));
        let remote = guard::c_string(tunnel.remote().map_or("", |remote| remote.wire()));
        i2psock_tunnel(Handle::new(Lent { tunnel, addr, name, remote }))
    }
}

/// Relays streams to the destination `name` to `target` (i2p.sam's TunnelServer): a port of 127.0.0.1, HOST:PORT,
/// [IPV6]:PORT, or /PATH of a unix socket, resolved now. `name` and `options` as for i2psock_dest_open(), NULL and ""
/// giving a new address each time. Blocks until the destination is ready. `*out` is yours to close. Statuses as
/// i2psock_dest_open(), also I2PSOCK_IO: the host of `target` does not resolve. Whether something listens there shows
/// when a connection comes.
#[no_mangle]
pub unsafe extern "C" fn i2psock_tunnel_server(
    controller: Option<&i2psock_controller>,
    name: *const c_char,
    target: *const c_char,
    options: Option<&i2psock_options>,
    timeout_ms: c_int,
    out: Option<&mut MaybeUninit<*mut i2psock_tunnel>>,
    err: Option<&mut MaybeUninit<*mut i2psock_error>>,
) -> i2psock_status {
    let out = guard::clear(out);
    guard::on(controller.map(|controller| &controller.0), "controller", err, |controller| {
        // SAFETY: the contract of the header.
        let (name, target) = unsafe { (guard::text_or_empty(name, "name")?, guard::text(target, "target")?) };
        guard::give(out, "out", || {
            server(controller, name, target, options, timeout_ms)?.product().map(i2psock_tunnel::new)
        })
    })
}

/// Starts i2psock_tunnel_server(), blocking only to resolve the host of `target`; finish with
/// i2psock_pending_finish_tunnel(). `*out` is yours to free.
#[no_mangle]
pub unsafe extern "C" fn i2psock_tunnel_server_start(
    controller: Option<&i2psock_controller>,
    name: *const c_char,
    target: *const c_char,
    options: Option<&i2psock_options>,
    timeout_ms: c_int,
    out: Option<&mut MaybeUninit<*mut i2psock_pending>>,
    err: Option<&mut MaybeUninit<*mut i2psock_error>>,
) -> i2psock_status {
    let out = guard::clear(out);
    guard::on(controller.map(|controller| &controller.0), "controller", err, |controller| {
        // SAFETY: the contract of the header.
        let (name, target) = unsafe { (guard::text_or_empty(name, "name")?, guard::text(target, "target")?) };
        guard::give(out, "out", || server(controller, name, target, options, timeout_ms).map(i2psock_pending::new))
    })
}

fn server(
    controller: &Arc<Controller>,
    name: &str,
    target: &str,
    options: Option<&i2psock_options>,
    timeout_ms: c_int,
) -> Result<Pending<Tunnel>> {
    let options = options::given(options);
    let limit = Limit::from_millis(timeout_ms)?;
    TunnelPlan::server(target, options)?.open(controller, name, limit)
}

/// Relays connections to `listen` to the I2P address `address` (i2p.sam's TunnelClient): `listen` is a port of
/// 127.0.0.1, HOST:PORT or [IPV6]:PORT, port 0 for one that is free (i2psock_tunnel_port()); `address` as for
/// i2psock_dest_connect(), resolved by the router for each connection. `name` is that of the local destination the
/// streams come from. Blocks until that is ready; connections that come before wait. `*out` is yours to close. Statuses
/// as i2psock_dest_open(), also I2PSOCK_IO, with EADDRINUSE for example: the port cannot be bound.
#[no_mangle]
pub unsafe extern "C" fn i2psock_tunnel_client(
    controller: Option<&i2psock_controller>,
    name: *const c_char,
    listen: *const c_char,
    address: *const c_char,
    options: Option<&i2psock_options>,
    timeout_ms: c_int,
    out: Option<&mut MaybeUninit<*mut i2psock_tunnel>>,
    err: Option<&mut MaybeUninit<*mut i2psock_error>>,
) -> i2psock_status {
    let out = guard::clear(out);
    guard::on(controller.map(|controller| &controller.0), "controller", err, |controller| {
        // SAFETY: the contract of the header.
        let texts = unsafe { client_texts(name, listen, address)? };
        guard::give(out, "out", || client(controller, texts, options, timeout_ms)?.product().map(i2psock_tunnel::new))
    })
}

/// Starts i2psock_tunnel_client(), blocking only to resolve the host of `listen`; finish with
/// i2psock_pending_finish_tunnel(). `*out` is yours to free.
#[no_mangle]
pub unsafe extern "C" fn i2psock_tunnel_client_start(
    controller: Option<&i2psock_controller>,
    name: *const c_char,
    listen: *const c_char,
    address: *const c_char,
    options: Option<&i2psock_options>,
    timeout_ms: c_int,
    out: Option<&mut MaybeUninit<*mut i2psock_pending>>,
    err: Option<&mut MaybeUninit<*mut i2psock_error>>,
) -> i2psock_status {
    let out = guard::clear(out);
    guard::on(controller.map(|controller| &controller.0), "controller", err, |controller| {
        // SAFETY: the contract of the header.
        let texts = unsafe { client_texts(name, listen, address)? };
        guard::give(out, "out", || client(controller, texts, options, timeout_ms).map(i2psock_pending::new))
    })
}

/// Name, place to listen, and address.
///
/// # Safety
/// As [`guard::text`] for each.
unsafe fn client_texts<'a>(
    name: *const c_char,
    listen: *const c_char,
    address: *const c_char,
) -> Result<(&'a str, &'a str, &'a str)> {
    // SAFETY: promised by the caller.
    unsafe {
        Ok((guard::text_or_empty(name, "name")?, guard::text(listen, "listen")?, guard::text(address, "address")?))
    }
}

fn client(
    controller: &Arc<Controller>,
    (name, listen, address): (&str, &str, &str),
    options: Option<&i2psock_options>,
    timeout_ms: c_int,
) -> Result<Pending<Tunnel>> {
    let options = options::given(options);
    let limit = Limit::from_millis(timeout_ms)?;
    TunnelPlan::client(listen, address, options)?.open(controller, name, limit)
}

/// Makes the other side of a connection for i2psock_tunnel_new(): sets either `*fd`, -1 before, to a connected or
/// connecting stream socket, which the tunnel makes non-blocking, or `*pending`, NULL before, to a connect that was
/// started with i2psock_dest_connect_start(). Whatever is set becomes the tunnel's, with any status; both or none is an
/// error. Runs on the tunnel's thread, where it must not block, for each connection; no lock of the library is held. It
/// may use the library, but not close this tunnel. It returns an i2psock_status; any but I2PSOCK_OK ends that
/// connection only, and is that of its error in i2psock_tunnel_next_error(). What `user` points to, and the
/// destination, must outlive the tunnel.
pub type i2psock_make_send =
    Option<unsafe extern "C" fn(user: *mut c_void, fd: *mut i2psock_fd, pending: *mut *mut i2psock_pending) -> c_int>;

/// A C function and its argument, which the program promises to be usable from the tunnel's thread.
struct Maker {
    make: unsafe extern "C" fn(user: *mut c_void, fd: *mut i2psock_fd, pending: *mut *mut i2psock_pending) -> c_int,
    user: *mut c_void,
}

// SAFETY: the contract of the header: the function and its argument may be used from the tunnel's thread.
unsafe impl std::marker::Send for Maker {}

impl Maker {
    fn make(&self) -> Result<Send> {
        let (mut fd, mut pending) = (-1, std::ptr::null_mut());
        // SAFETY: a function of the program, called as its type says.
        let status = unsafe { (self.make)(self.user, &mut fd, &mut pending) };
        // SAFETY: the contract of the header: what the function sets is ours.
        let (fd, pending) = unsafe { ((fd >= 0).then(|| OwnedFd::from_raw_fd(fd)), i2psock_pending::take(pending)) };
        let failure = |message| Err(Error::new(Status::State, Operation::Connect, message));
        match (status, fd, pending) {
            (0, Some(fd), None) => Ok(Send::Socket(fd)),
            (0, None, Some(Any::Stream(pending))) if pending.operation() == Operation::Connect => {
                Ok(Send::Pending(Box::new(pending)))
            }
            (0, None, Some(_)) => failure("the pending that make_send has set makes no connect"),
            (0, ..) => failure("make_send set neither a descriptor nor a pending, or both"),
            (status, ..) => {
                let status = Status::from_number(status).unwrap_or(Status::State);
                let message = format!("make_send returned {}", format!("{status:?}").to_uppercase());
                Err(Error::new(status, Operation::Connect, message))
            }
        }
    }
}

/// Relays what comes to a listener or a listening socket to whatever `make_send` makes for it (i2p.sam's Tunnel). Give
/// either `listener`, with `receive` -1, or NULL and `receive`, the descriptor of a stream socket that is bound and
/// listening; both stay yours, must outlive the tunnel, and nobody else may accept from them meanwhile. `user` is
/// handed to `make_send`. `options` may be NULL: those of tunnels, not of destinations. Does not block. `*out` is yours
/// to close. I2PSOCK_INVALID: `receive` does not listen, both or none of the two are given, `make_send` is NULL;
/// I2PSOCK_IO: no descriptors or thread left.
#[no_mangle]
pub extern "C" fn i2psock_tunnel_new(
    listener: Option<&i2psock_listener>,
    receive: i2psock_fd,
    make_send: i2psock_make_send,
    user: *mut c_void,
    options: Option<&i2psock_options>,
    out: Option<&mut MaybeUninit<*mut i2psock_tunnel>>,
    err: Option<&mut MaybeUninit<*mut i2psock_error>>,
) -> i2psock_status {
    let out = guard::clear(out);
    guard::call(err, || {
        let maker = Maker { make: guard::some(make_send, "make_send")?, user };
        let limits = Limits::parse(options::given(options))?;
        let receive = match (listener, receive) {
            (Some(listener), -1) => Receive::Borrowed(Arc::clone(listener.core())),
            (None, 0..) => Receive::foreign(receive)?,
            _ => return Err(Error::invalid("give either a listener or the descriptor of a listening socket")),
        };
        // The whole struct has to move, not only its fields.
        let make: MakeSend = Box::new(move || {
            let maker = &maker;
            maker.make()
        });
        guard::give(out, "out", || Tunnel::begin(receive, make, limits, None, None, 0).map(i2psock_tunnel::new))
    })
}

/// The tunnel's own destination (i2p.sam's TunnelServer.dest, TunnelClient.dest). NULL for NULL and for one of
/// i2psock_tunnel_new(). Borrowed: it lives as long as `tunnel`.
#[no_mangle]
pub extern "C" fn i2psock_tunnel_addr(tunnel: Option<&i2psock_tunnel>) -> *const i2psock_addr {
    tunnel.and_then(|tunnel| tunnel.0.get().addr.as_ref()).map_or(std::ptr::null(), std::ptr::from_ref)
}

/// Name of the tunnel's own destination (i2p.sam's session); "" without one. Lives as long as `tunnel`; NULL for NULL.
#[no_mangle]
pub extern "C" fn i2psock_tunnel_name(tunnel: Option<&i2psock_tunnel>) -> *const c_char {
    tunnel.map_or(std::ptr::null(), |tunnel| tunnel.0.get().name.as_ptr())
}

/// Where a tunnel client leads to (i2p.sam's TunnelClient.remotedest), as it is told to the router; "" for other tunnels.
/// Lives as long as `tunnel`; NULL for NULL.
#[no_mangle]
pub extern "C" fn i2psock_tunnel_remote(tunnel: Option<&i2psock_tunnel>) -> *const c_char {
    tunnel.map_or(std::ptr::null(), |tunnel| tunnel.0.get().remote.as_ptr())
}

/// Local port a tunnel client listens on; 0 for other tunnels and for NULL.
#[no_mangle]
pub extern "C" fn i2psock_tunnel_port(tunnel: Option<&i2psock_tunnel>) -> c_int {
    tunnel.map_or(0, |tunnel| tunnel.0.get().tunnel.port().into())
}

/// State of the tunnel's own destination, as i2psock_dest_state() tells it, `*err` included: a tunnel outlives a router
/// that is started anew if its destination does (option "recover"). I2PSOCK_STATE_NONE without one and for NULL.
#[no_mangle]
pub extern "C" fn i2psock_tunnel_state(
    tunnel: Option<&i2psock_tunnel>,
    err: Option<&mut MaybeUninit<*mut i2psock_error>>,
) -> i2psock_state {
    dest::state(tunnel.and_then(|tunnel| tunnel.0.get().tunnel.state()), err)
}

/// A descriptor that is readable while i2psock_tunnel_next_error() has an error to tell, or i2psock_tunnel_state() another
/// state than it told last (READY at first); for poll only, never read, write or close it. The same number as long as
/// `tunnel` lives. A program need not watch it: a tunnel works by itself. -1 for NULL.
#[no_mangle]
pub extern "C" fn i2psock_tunnel_fd(tunnel: Option<&i2psock_tunnel>) -> i2psock_fd {
    tunnel.map_or(-1, |tunnel| tunnel.0.get().tunnel.fd())
}

/// A number about the tunnel, `which` being one of I2PSOCK_TUNNEL_*; 0 for NULL and unknown numbers.
#[no_mangle]
pub extern "C" fn i2psock_tunnel_count(tunnel: Option<&i2psock_tunnel>, which: c_int) -> u64 {
    guard::getter(0, || {
        let counts = tunnel?.0.get().tunnel.counts();
        let count = match which {
            I2PSOCK_TUNNEL_NOW => &counts.now,
            I2PSOCK_TUNNEL_TOTAL => &counts.total,
            I2PSOCK_TUNNEL_FAILED => &counts.failed,
            I2PSOCK_TUNNEL_REFUSED => &counts.refused,
            I2PSOCK_TUNNEL_EXPIRED => &counts.expired,
            I2PSOCK_TUNNEL_BYTES_OUT => &counts.bytes_out,
            I2PSOCK_TUNNEL_BYTES_IN => &counts.bytes_in,
            _ => return None,
        };
        Some(count.load(Ordering::Relaxed))
    })
}

/// The oldest error of a connection that was not asked for yet, yours to free, or NULL; the last 16 are kept.
/// NULL in a child of fork(2).
#[no_mangle]
pub extern "C" fn i2psock_tunnel_next_error(tunnel: Option<&i2psock_tunnel>) -> *mut i2psock_error {
    let error = tunnel.and_then(|tunnel| tunnel.0.get().tunnel.next_error());
    error.map_or(std::ptr::null_mut(), |error| guard::into_raw(i2psock_error::new(error)))
}

/// Ends all connections of a tunnel at once (i2p.sam's Tunnel.close), waits for its thread, closes its own destination
/// and frees the handle. Blocks only as long as a `make_send` that is running. NULL is allowed.
#[no_mangle]
pub unsafe extern "C" fn i2psock_tunnel_close(tunnel: *mut i2psock_tunnel) {
    // SAFETY: the contract of the header.
    unsafe { guard::free(tunnel) }
}
