//! `i2psock_dest`.

use std::ffi::{c_char, c_int, CString};
use std::mem::MaybeUninit;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Instant;

use crate::core::controller::Controller;
use crate::core::destination::{DestHandle, State};
use crate::core::drive::{Limit, Pending};
use crate::core::stream::Stream;
use crate::error::{Error, Result};
use crate::ffi::addr::i2psock_addr;
use crate::ffi::base::i2psock_fd;
use crate::ffi::controller::i2psock_controller;
use crate::ffi::error::{i2psock_error, i2psock_status};
use crate::ffi::guard::{self, Handle};
use crate::ffi::handles::{i2psock_keys, i2psock_pending};
use crate::ffi::options::{self, i2psock_options};
use crate::ffi::stream::i2psock_stream;

/// A destination of ours: a handle to its session on the router (leaflet's OurDest, i2p.sam's socket before it is
/// connected). May be used by many threads at once.
///
/// A session is lost when its control socket ends; when the router does not know it any more (INVALID_ID to any
/// command), refuses five accepts in a row at once although nobody has come, or announces the session's end and says
/// nothing else for 2 s; and when it does not answer (the controller's option "heartbeat"; a path to another machine
/// that is dead is noticed within a minute). i2psock_dest_state() gives the reason in the router's words.
///
/// With option "recover", the default for destinations with a name, a session that was lost, because the router was
/// started anew for example, is opened again with the same keys, after 1, 2, 4 ... 60 s, as often as it takes; the first
/// time no sooner than i2psock_dest_open() would.
/// Meanwhile connecting and sending datagrams are I2PSOCK_CLOSED with the reason (just before a loss is noticed also
/// I2PSOCK_IO, and when the peer is not back yet I2PSOCK_NETWORK: after any failure wait a little and try again), what
/// was pending fails the same way, and streams end; listeners and the descriptors of the destination, its datagrams and
/// listeners stay and go on by themselves afterwards.
pub struct i2psock_dest(Handle<Lent>);

/// A destination and the texts its getters lend out.
struct Lent {
    dest: DestHandle,
    addr: i2psock_addr,
    name: CString,
    nickname: CString,
}

impl Deref for Lent {
    type Target = DestHandle;

    fn deref(&self) -> &DestHandle {
        &self.dest
    }
}

impl i2psock_dest {
    pub(super) fn handle(&self) -> &Handle<impl Deref<Target = DestHandle>> {
        &self.0
    }

    pub(super) fn new(dest: DestHandle) -> Self {
        let destination = dest.destination();
        let addr = i2psock_addr::new(destination.keys().address().clone());
        let spec = destination.spec();
        let (name, nickname) = (guard::c_string(&spec.name), guard::c_string(&spec.nickname));
        i2psock_dest(Handle::new(Lent { dest, addr, name, nickname }))
    }
}

/// Life of a destination: READY; after a loss RECOVERING, CONNECTING, BUILDING, and READY or RECOVERING again; DEAD.
/// Numbers are only ever added.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum i2psock_state {
    /// The handle is NULL.
    I2PSOCK_STATE_NONE = 0,
    /// The session was lost, and the bridge is being reached to open it again.
    I2PSOCK_STATE_CONNECTING = 1,
    /// The session was lost, and its tunnels are being built again.
    I2PSOCK_STATE_BUILDING = 2,
    /// Streams can be opened, datagrams sent and received.
    I2PSOCK_STATE_READY = 3,
    /// The session was lost, and after a pause it is opened again.
    I2PSOCK_STATE_RECOVERING = 4,
    /// The destination has ended.
    I2PSOCK_STATE_DEAD = 5,
}

impl From<State> for i2psock_state {
    fn from(state: State) -> Self {
        match state {
            State::Connecting => i2psock_state::I2PSOCK_STATE_CONNECTING,
            State::Building => i2psock_state::I2PSOCK_STATE_BUILDING,
            State::Ready => i2psock_state::I2PSOCK_STATE_READY,
            State::Recovering => i2psock_state::I2PSOCK_STATE_RECOVERING,
            State::Dead => i2psock_state::I2PSOCK_STATE_DEAD,
        }
    }
}

/// State of a destination, if there is one, and why it has no session.
pub(super) fn state(found: Option<(State, Option<Error>)>, err: guard::ErrorOut<'_>) -> i2psock_state {
    let Some((state, cause)) = found else {
        guard::tell(err, None);
        return i2psock_state::I2PSOCK_STATE_NONE;
    };
    guard::tell(err, cause);
    state.into()
}

/// Name of a state, such as "READY"; "unknown" for other numbers. Static: never free it.
#[no_mangle]
pub extern "C" fn i2psock_state_name(state: c_int) -> *const c_char {
    let name = match state {
        0 => c"NONE",
        1 => c"CONNECTING",
        2 => c"BUILDING",
        3 => c"READY",
        4 => c"RECOVERING",
        5 => c"DEAD",
        _ => c"unknown",
    };
    name.as_ptr()
}

/// Opens a destination (i2p.sam's socket(), leaflet's create_dest) and blocks until its tunnels are built, seconds as a
/// rule and minutes right after a router's start. `style` is I2PSOCK_STREAM, I2PSOCK_DGRAM, I2PSOCK_RAW, I2PSOCK_DGRAM2
/// or I2PSOCK_DGRAM3; not every router knows the last two. `options` may be NULL. `*out` is yours to close.
///
/// `name` is i2p.sam's session name. NULL or "": a transient destination, with new keys or those of
/// i2psock_options_set_keys(). Any other name (1 to 64 bytes of UTF-8 without slash, backslash and control characters,
/// no dot in front, no white space at either end, not ending in .dat, .sum, .lock or .tmp) has an address of its own
/// that stays: its keys are made when it is first opened, or are those that are given, and are kept in the folder of
/// the controller's option "key_store". Names are for every style. A name is open in one process at a time; within a
/// controller, opening it again gives another handle to the same session, which ends with the last handle.
///
/// Keys that were in use a moment ago may have to wait, within the limit of the call, for the router to let go of the
/// last session (I2PSOCK_STAGE_LETTING_GO). i2pd keeps a closed destination for 5 s, gives it to the next session with
/// the same keys and then deletes it all the same, so that session would look alive and be dead. So no session is asked
/// for within "reopen_delay" of the end of the last one with these keys, or of its last stream: in this process by
/// address, in other processes by name. After a process was killed, the time counts from when the name was free. A
/// router that is known not to do this is asked at once: one that answers KEY_NOT_FOUND, and not INVALID_KEY as i2pd
/// does, to the lookup of a name that cannot exist. One that answers DUPLICATED_DEST is asked again until the limit.
///
/// I2PSOCK_NETWORK: the router refuses ("DUPLICATED_DEST": these keys are in use; "INVALID_KEY"; "I2P_ERROR"), or made
/// keys of another signature type than asked for, which are not kept; I2PSOCK_TIMEOUT; I2PSOCK_IO: the bridge is gone,
/// or the key file cannot be read or written; I2PSOCK_PROTOCOL: the bridge does not answer; I2PSOCK_STATE: the name is
/// open in another process or controller, or with another style or another value of one of the options, or has other
/// keys than those given; I2PSOCK_UNSUPPORTED: the router does not know the style, or another option; I2PSOCK_INVALID:
/// also a name without "key_store", a key file without keys, or keys of a signature type that routers crash on;
/// I2PSOCK_CLOSED: the controller was closed meanwhile, or the router went away while it was building tunnels.
#[no_mangle]
pub unsafe extern "C" fn i2psock_dest_open(
    controller: Option<&i2psock_controller>,
    name: *const c_char,
    style: c_int,
    options: Option<&i2psock_options>,
    timeout_ms: c_int,
    out: Option<&mut MaybeUninit<*mut i2psock_dest>>,
    err: Option<&mut MaybeUninit<*mut i2psock_error>>,
) -> i2psock_status {
    let out = guard::clear(out);
    guard::on(controller.map(|controller| &controller.0), "controller", err, |controller| {
        // SAFETY: the contract of the header.
        let name = unsafe { guard::text_or_empty(name, "name")? };
        guard::give(out, "out", || open(controller, name, style, options, timeout_ms)?.product().map(i2psock_dest::new))
    })
}

/// Starts i2psock_dest_open() without blocking (key files are read and written all the same); finish with
/// i2psock_pending_finish_dest(). `*out` is yours to free.
#[no_mangle]
pub unsafe extern "C" fn i2psock_dest_open_start(
    controller: Option<&i2psock_controller>,
    name: *const c_char,
    style: c_int,
    options: Option<&i2psock_options>,
    timeout_ms: c_int,
    out: Option<&mut MaybeUninit<*mut i2psock_pending>>,
    err: Option<&mut MaybeUninit<*mut i2psock_error>>,
) -> i2psock_status {
    let out = guard::clear(out);
    guard::on(controller.map(|controller| &controller.0), "controller", err, |controller| {
        // SAFETY: the contract of the header.
        let name = unsafe { guard::text_or_empty(name, "name")? };
        guard::give(out, "out", || open(controller, name, style, options, timeout_ms).map(i2psock_pending::new))
    })
}

fn open(
    controller: &Arc<Controller>,
    name: &str,
    style: c_int,
    options: Option<&i2psock_options>,
    timeout_ms: c_int,
) -> Result<Pending<DestHandle>> {
    let options = options::given(options);
    controller.open_dest(name, style, options, Limit::from_millis(timeout_ms)?)
}

/// Our address (i2p.sam's property dest). Borrowed: it lives as long as `dest`, never free it. NULL for NULL.
#[no_mangle]
pub extern "C" fn i2psock_dest_addr(dest: Option<&i2psock_dest>) -> *const i2psock_addr {
    dest.map_or(std::ptr::null(), |dest| std::ptr::from_ref(&dest.0.get().addr))
}

/// A copy of our private keys, SECRET, yours to free with i2psock_keys_free(). NULL for NULL.
#[no_mangle]
pub extern "C" fn i2psock_dest_keys(dest: Option<&i2psock_dest>) -> *mut i2psock_keys {
    dest.map_or(std::ptr::null_mut(), |dest| {
        guard::into_raw(i2psock_keys::new(dest.0.get().destination().keys().duplicate()))
    })
}

/// Session name (i2p.sam's property session); "" for a transient destination. Lives as long as `dest`; NULL for NULL.
#[no_mangle]
pub extern "C" fn i2psock_dest_name(dest: Option<&i2psock_dest>) -> *const c_char {
    dest.map_or(std::ptr::null(), |dest| dest.0.get().name.as_ptr())
}

/// Label on the router's console (leaflet's name). Lives as long as `dest`; NULL for NULL.
#[no_mangle]
pub extern "C" fn i2psock_dest_nickname(dest: Option<&i2psock_dest>) -> *const c_char {
    dest.map_or(std::ptr::null(), |dest| dest.0.get().nickname.as_ptr())
}

/// Style (i2p.sam's property type): I2PSOCK_STREAM and so on; 0 for NULL.
#[no_mangle]
pub extern "C" fn i2psock_dest_style(dest: Option<&i2psock_dest>) -> c_int {
    dest.map_or(0, |dest| dest.0.get().destination().style() as c_int)
}

/// Present state. `*err`, if it is not NULL, gets why there is no session, yours to free, or NULL when there is one.
#[no_mangle]
pub extern "C" fn i2psock_dest_state(
    dest: Option<&i2psock_dest>,
    err: Option<&mut MaybeUninit<*mut i2psock_error>>,
) -> i2psock_state {
    let found = dest.map(|dest| dest.0.get().destination().state());
    state(found.map(|(state, _, cause)| (state, cause)), err)
}

/// Number of the attempt to open a lost session again that is going on, comes next, or has succeeded; 0 when no session
/// was lost, and for NULL. Counted from 1, and anew after a session that lived for a minute.
#[no_mangle]
pub extern "C" fn i2psock_dest_attempt(dest: Option<&i2psock_dest>) -> c_int {
    dest.map_or(0, |dest| c_int::try_from(dest.0.get().destination().state().1).unwrap_or(c_int::MAX))
}

/// A descriptor that is readable while i2psock_dest_service() has something to do or to report; for poll only, never
/// read, write or close it. The same number and description as long as `dest` lives. -1 for NULL.
#[no_mangle]
pub extern "C" fn i2psock_dest_fd(dest: Option<&i2psock_dest>) -> i2psock_fd {
    dest.map_or(-1, |dest| dest.0.get().destination().fd())
}

/// Milliseconds after which i2psock_dest_service() is due even without an event, fit for poll; -1 for never, as always
/// with the keeper.
#[no_mangle]
pub extern "C" fn i2psock_dest_timeout_ms(dest: Option<&i2psock_dest>) -> c_int {
    dest.map_or(-1, |dest| dest.0.get().destination().timeout_ms(Instant::now()))
}

/// Reports the next change of state that was not reported yet, the first being I2PSOCK_STATE_READY, which makes the
/// descriptor readable at once; i2psock_dest_state() gives the reason of a loss. Of changes nobody asks for only the
/// last 64 are kept, and handles of one name share them: each is reported once. i2psock_dest_state() and
/// i2psock_dest_attempt() tell of the present, which may be further on. With the keeper, watching it is optional:
/// everything on a destination that has ended returns I2PSOCK_CLOSED anyway. Without the keeper this also does what the
/// destination's connections need, such as answering the router's PING, opening a lost session again, and accepting for
/// listeners. Never blocks. I2PSOCK_OK: `*state`, which may be NULL, is set; I2PSOCK_BLOCK: nothing new, wait on
/// i2psock_dest_fd().
#[no_mangle]
pub extern "C" fn i2psock_dest_service(
    dest: Option<&i2psock_dest>,
    state: Option<&mut MaybeUninit<i2psock_state>>,
    err: Option<&mut MaybeUninit<*mut i2psock_error>>,
) -> i2psock_status {
    let mut state = state;
    guard::put(&mut state, i2psock_state::I2PSOCK_STATE_NONE);
    guard::on(dest.map(|dest| &dest.0), "dest", err, |dest| {
        dest.destination().bridge().check_process()?;
        Ok(match dest.destination().service(Instant::now()) {
            Some(change) => {
                guard::put(&mut state, change.into());
                i2psock_status::I2PSOCK_OK
            }
            None => i2psock_status::I2PSOCK_BLOCK,
        })
    })
}

/// Connects a stream to `address` (i2p.sam's and leaflet's connect): a destination in base64 (an i2psock_addr is given
/// as i2psock_addr_base64()), "name.i2p", or base32. `options` may be NULL. Blocks up to `timeout_ms`; the stream is
/// blocking. `*out` is yours to free. Success says that the peer's router is reached (i2pd: that its lease set was
/// found), not that somebody accepts: if nobody does, the stream ends. Routers other than Java I2P refuse to connect a
/// destination to itself ("CANT_REACH_PEER"). I2PSOCK_NETWORK: "CANT_REACH_PEER", "TIMEOUT", "KEY_NOT_FOUND" (a name or
/// base32 address that does not resolve: unknown, or not there now, so it is worth another try) and so on;
/// I2PSOCK_CLOSED: the destination was closed or lost; I2PSOCK_TIMEOUT; I2PSOCK_INVALID: not an address; I2PSOCK_STATE:
/// the destination is not of style STREAM; I2PSOCK_UNSUPPORTED: ports with a router without them; I2PSOCK_IO,
/// I2PSOCK_PROTOCOL: the bridge.
#[no_mangle]
pub unsafe extern "C" fn i2psock_dest_connect(
    dest: Option<&i2psock_dest>,
    address: *const c_char,
    options: Option<&i2psock_options>,
    timeout_ms: c_int,
    out: Option<&mut MaybeUninit<*mut i2psock_stream>>,
    err: Option<&mut MaybeUninit<*mut i2psock_error>>,
) -> i2psock_status {
    let out = guard::clear(out);
    guard::on(dest.map(|dest| &dest.0), "dest", err, |dest| {
        // SAFETY: the contract of the header.
        let address = unsafe { guard::text(address, "address")? };
        guard::give(out, "out", || blocking(connect(dest, address, options, timeout_ms)?))
    })
}

/// Starts i2psock_dest_connect() without blocking; finish with i2psock_pending_finish_stream(), whose stream is
/// non-blocking. `*out` is yours to free.
#[no_mangle]
pub unsafe extern "C" fn i2psock_dest_connect_start(
    dest: Option<&i2psock_dest>,
    address: *const c_char,
    options: Option<&i2psock_options>,
    timeout_ms: c_int,
    out: Option<&mut MaybeUninit<*mut i2psock_pending>>,
    err: Option<&mut MaybeUninit<*mut i2psock_error>>,
) -> i2psock_status {
    let out = guard::clear(out);
    guard::on(dest.map(|dest| &dest.0), "dest", err, |dest| {
        // SAFETY: the contract of the header.
        let address = unsafe { guard::text(address, "address")? };
        guard::give(out, "out", || connect(dest, address, options, timeout_ms).map(i2psock_pending::new))
    })
}

fn connect(
    dest: &DestHandle,
    address: &str,
    options: Option<&i2psock_options>,
    timeout_ms: c_int,
) -> Result<Pending<Stream>> {
    let options = options::given(options);
    dest.connect(address, options, Limit::from_millis(timeout_ms)?)
}

/// The blocking form of connect and accept gives a blocking stream.
fn blocking(pending: Pending<Stream>) -> Result<i2psock_stream> {
    let stream = pending.product()?;
    stream.set_nonblocking(false)?;
    Ok(i2psock_stream::new(stream))
}

/// Accepts one stream (i2p.sam's accept, leaflet's register_accept and parse_headers). Blocks up to `timeout_ms`, with
/// I2PSOCK_TIMEOUT_DEFAULT for ever; the stream is blocking. `*out` is yours to free. Short limits in a loop lose no
/// stream: an accept that was given up is taken up by the next one. Several accepts may wait at once, in one thread or
/// many. Start the next one when a stream has come, not when it has ended; peers that come in between are kept by the
/// router for some seconds (i2pd: 10). A stream may have ended when it is accepted, its peer having given up. After a
/// failure other than I2PSOCK_CLOSED and I2PSOCK_STATE accepting again is worth a try, after a pause. I2PSOCK_CLOSED:
/// the destination was closed or lost; I2PSOCK_TIMEOUT; I2PSOCK_NETWORK: the router refuses ("ALREADY_ACCEPTING", ...);
/// I2PSOCK_PROTOCOL: the router announced a peer in a way that cannot be read (leaflet's ValueError), the next accept
/// works; I2PSOCK_STATE: the destination is not of style STREAM.
#[no_mangle]
pub extern "C" fn i2psock_dest_accept(
    dest: Option<&i2psock_dest>,
    timeout_ms: c_int,
    out: Option<&mut MaybeUninit<*mut i2psock_stream>>,
    err: Option<&mut MaybeUninit<*mut i2psock_error>>,
) -> i2psock_status {
    let out = guard::clear(out);
    guard::on(dest.map(|dest| &dest.0), "dest", err, |dest| {
        guard::give(out, "out", || blocking(dest.accept(Limit::from_millis(timeout_ms)?)?))
    })
}

/// Starts i2psock_dest_accept() without blocking; finish with i2psock_pending_finish_stream(), whose stream is
/// non-blocking. Once its stage is I2PSOCK_STAGE_LISTENING, its descriptor is readable only for a peer, an error or the
/// end. `*out` is yours to free.
#[no_mangle]
pub extern "C" fn i2psock_dest_accept_start(
    dest: Option<&i2psock_dest>,
    timeout_ms: c_int,
    out: Option<&mut MaybeUninit<*mut i2psock_pending>>,
    err: Option<&mut MaybeUninit<*mut i2psock_error>>,
) -> i2psock_status {
    let out = guard::clear(out);
    guard::on(dest.map(|dest| &dest.0), "dest", err, |dest| {
        guard::give(out, "out", || dest.accept(Limit::from_millis(timeout_ms)?).map(i2psock_pending::new))
    })
}

/// As i2psock_controller_lookup(), through this destination (leaflet's StreamSocket.lookup): on its own connection to the
/// router while that is idle. "ME" is this destination's address as the router knows it. What is found is remembered for
/// ten minutes, for i2psock_dgram_send_to(). I2PSOCK_CLOSED: the destination was closed or lost.
#[no_mangle]
pub unsafe extern "C" fn i2psock_dest_lookup(
    dest: Option<&i2psock_dest>,
    name: *const c_char,
    timeout_ms: c_int,
    out: Option<&mut MaybeUninit<*mut i2psock_addr>>,
    err: Option<&mut MaybeUninit<*mut i2psock_error>>,
) -> i2psock_status {
    let out = guard::clear(out);
    guard::on(dest.map(|dest| &dest.0), "dest", err, |dest| {
        // SAFETY: the contract of the header.
        let name = unsafe { guard::text(name, "name")? };
        guard::give(out, "out", || dest.lookup(name, Limit::from_millis(timeout_ms)?)?.product().map(i2psock_addr::new))
    })
}

/// Starts i2psock_dest_lookup() without blocking; finish with i2psock_pending_finish_addr(). `*out` is yours to free.
#[no_mangle]
pub unsafe extern "C" fn i2psock_dest_lookup_start(
    dest: Option<&i2psock_dest>,
    name: *const c_char,
    timeout_ms: c_int,
    out: Option<&mut MaybeUninit<*mut i2psock_pending>>,
    err: Option<&mut MaybeUninit<*mut i2psock_error>>,
) -> i2psock_status {
    let out = guard::clear(out);
    guard::on(dest.map(|dest| &dest.0), "dest", err, |dest| {
        // SAFETY: the contract of the header.
        let name = unsafe { guard::text(name, "name")? };
        guard::give(out, "out", || dest.lookup(name, Limit::from_millis(timeout_ms)?).map(i2psock_pending::new))
    })
}

/// Ends the destination and everything on it, for all handles of its name: calls that are blocked in other threads, and
/// all later ones on the destination, its pendings and its streams, return I2PSOCK_CLOSED. Frees nothing. Does not
/// block.
#[no_mangle]
pub extern "C" fn i2psock_dest_shutdown(
    dest: Option<&i2psock_dest>,
    err: Option<&mut MaybeUninit<*mut i2psock_error>>,
) -> i2psock_status {
    guard::on(dest.map(|dest| &dest.0), "dest", err, |dest| dest.shutdown().map(|()| i2psock_status::I2PSOCK_OK))
}

/// Closes a destination (leaflet's OurDest.close) and frees the handle. What the router has taken and not yet passed on
/// to the peers is lost with it, i2pd's news that a stream has ended included: let the peers have the last word, or
/// wait a second. With the last handle of a name, and always without a name, the session ends, and a transient
/// destination is gone for good; its pendings and streams, those whose descriptor was taken included, end with
/// I2PSOCK_CLOSED, and their handles stay valid until they are freed. Nobody else may be using the handle. NULL is
/// allowed.
#[no_mangle]
pub unsafe extern "C" fn i2psock_dest_close(dest: *mut i2psock_dest) {
    // SAFETY: the contract of the header.
    unsafe { guard::free(dest) }
}
