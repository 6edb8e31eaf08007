//! `i2psock_dgram` and `i2psock_from`.

use std::ffi::{c_char, c_int, c_void};
use std::mem::MaybeUninit;

use crate::core::datagram::{Datagram, Dgram, Outgoing, Slot};
use crate::core::drive::Limit;
use crate::error::{Error, Operation, Result};
use crate::ffi::addr::i2psock_addr;
use crate::ffi::base::i2psock_fd;
use crate::ffi::dest::i2psock_dest;
use crate::ffi::error::{i2psock_error, i2psock_status};
use crate::ffi::guard::{self, Handle};
use crate::ffi::options::{self, i2psock_options};
use crate::identity::Address;
use crate::protocol::datagram::{SendOptions, Source};
use crate::sys::MANY;

/// Largest payload of a repliable datagram, in bytes (i2p.sam's MAX_DGRAM).
pub const I2PSOCK_MAX_DGRAM: c_int = 31744;
/// Largest payload of a raw datagram, in bytes (i2p.sam's MAX_RAW).
pub const I2PSOCK_MAX_RAW: c_int = 32768;
/// A buffer size for which no datagram is too large (leaflet's default for collect).
pub const I2PSOCK_COLLECT_SIZE: c_int = 32768;

/// For i2psock_dgram_count(): datagrams handed to the bridge.
pub const I2PSOCK_COUNT_SENT: c_int = 1;
/// For i2psock_dgram_count(): datagrams handed to the program.
pub const I2PSOCK_COUNT_RECEIVED: c_int = 2;
/// For i2psock_dgram_count(): dropped because they did not come from the bridge.
pub const I2PSOCK_COUNT_REFUSED: c_int = 3;
/// For i2psock_dgram_count(): dropped because their header made no sense.
pub const I2PSOCK_COUNT_MALFORMED: c_int = 4;
/// For i2psock_dgram_count(): handed to the program cut short, its buffer being too small.
pub const I2PSOCK_COUNT_TRUNCATED: c_int = 5;
/// For i2psock_dgram_count(): dropped for want of room, by the system (which tells, where it does, with the next datagram
/// that is received) or in band by this library.
pub const I2PSOCK_COUNT_DROPPED: c_int = 6;

/// The datagrams of a destination of style I2PSOCK_DGRAM, I2PSOCK_RAW, I2PSOCK_DGRAM2 or I2PSOCK_DGRAM3 (leaflet's
/// DatagramSocket). One thread may send while another receives.
///
/// i2psock_dgram_fd() is a real socket: readable when a datagram is there (or one that will be dropped, so
/// I2PSOCK_BLOCK is a legal answer), or when the session has ended. Do not use sendto or recvfrom on it: the router's
/// header lines are in there.
///
/// Datagrams get lost, come twice, and come in any order; the first one to a new peer is often lost. Up to
/// I2PSOCK_MAX_DGRAM or I2PSOCK_MAX_RAW bytes can be sent, but routers split large ones, each part of which may be lost:
/// stay under 15 KB. Some routers cut what is too large for them without a word, and it then looks whole: emissary 0.4
/// above 7638 bytes of payload, i2pd above 32214.
pub struct i2psock_dgram(Handle<Lent>);

/// A datagram socket and the address its getter lends out.
struct Lent {
    dgram: Dgram,
    addr: i2psock_addr,
}

/// Where a datagram came from and what is known about it, filled by i2psock_dgram_recv_from(). Make one and use it
/// again and again: then receiving allocates nothing. Use one in one thread at a time.
pub struct i2psock_from {
    addr: Option<i2psock_addr>,
    hash: Option<[u8; 32]>,
    from_port: c_int,
    to_port: c_int,
    protocol: c_int,
    full_len: usize,
    truncated: bool,
}

impl i2psock_from {
    const EMPTY: i2psock_from = i2psock_from {
        addr: None,
        hash: None,
        from_port: -1,
        to_port: -1,
        protocol: -1,
        full_len: 0,
        truncated: false,
    };

    fn fill(&mut self, datagram: Datagram) {
        let port = |port: Option<u16>| port.map_or(-1, c_int::from);
        let (addr, hash) = match datagram.source {
            Some(Source::Destination(address)) => (Some(address), None),
            Some(Source::Hash(hash)) => (None, Some(hash)),
            None => (None, None),
        };
        *self = i2psock_from {
            hash: addr.as_ref().map(|address| *address.hash()).or(hash),
            addr: addr.map(i2psock_addr::new),
            from_port: port(datagram.origin.ports.from),
            to_port: port(datagram.origin.ports.to),
            protocol: datagram.origin.protocol.map_or(-1, c_int::from),
            full_len: datagram.full_len,
            truncated: datagram.len < datagram.full_len,
        };
    }
}

/// Gives the datagrams of a destination (leaflet's OurDest.bind; its socket was bound when the destination was opened,
/// option "forward"). `*out` is yours to free; several are allowed, but each datagram goes to one of them.
/// I2PSOCK_STATE: the destination is of style I2PSOCK_STREAM; I2PSOCK_CLOSED: it has ended.
#[no_mangle]
pub extern "C" fn i2psock_dest_bind(
    dest: Option<&i2psock_dest>,
    out: Option<&mut MaybeUninit<*mut i2psock_dgram>>,
    err: Option<&mut MaybeUninit<*mut i2psock_error>>,
) -> i2psock_status {
    let out = guard::clear(out);
    guard::on(dest.map(i2psock_dest::handle), "dest", err, |dest| {
        guard::give(out, "out", || {
            let dgram = Dgram::bind(dest)?;
            let addr = i2psock_addr::new(dgram.destination().keys().address().clone());
            Ok(i2psock_dgram(Handle::new(Lent { dgram, addr })))
        })
    })
}

/// The socket, borrowed, for poll; never close it. The same number and description as long as the destination lives. -1
/// for NULL. (leaflet's fileno.)
#[no_mangle]
pub extern "C" fn i2psock_dgram_fd(dgram: Option<&i2psock_dgram>) -> i2psock_fd {
    dgram.map_or(-1, |dgram| dgram.0.get().dgram.fd())
}

/// Our own address (i2p.sam's property dest). Borrowed: it lives as long as `dgram`. NULL for NULL.
#[no_mangle]
pub extern "C" fn i2psock_dgram_dest(dgram: Option<&i2psock_dgram>) -> *const i2psock_addr {
    dgram.map_or(std::ptr::null(), |dgram| std::ptr::from_ref(&dgram.0.get().addr))
}

/// A number of datagrams of the destination so far, `which` being one of I2PSOCK_COUNT_*; 0 for NULL and unknown numbers.
/// The socket is one, so everything counts that went through any handle of i2psock_dest_bind(), and all tell the same.
#[no_mangle]
pub extern "C" fn i2psock_dgram_count(dgram: Option<&i2psock_dgram>, which: c_int) -> u64 {
    guard::getter(0, || {
        let counts = dgram?.0.get().dgram.counts();
        Some(match which {
            I2PSOCK_COUNT_SENT => counts.sent,
            I2PSOCK_COUNT_RECEIVED => counts.received,
            I2PSOCK_COUNT_REFUSED => counts.refused,
            I2PSOCK_COUNT_MALFORMED => counts.malformed,
            I2PSOCK_COUNT_TRUNCATED => counts.truncated,
            I2PSOCK_COUNT_DROPPED => counts.dropped,
            _ => 0,
        })
    })
}

/// Makes the socket non-blocking (1) or blocking (0, the default), as O_NONBLOCK does.
#[no_mangle]
pub extern "C" fn i2psock_dgram_set_nonblocking(
    dgram: Option<&i2psock_dgram>,
    on: c_int,
    err: Option<&mut MaybeUninit<*mut i2psock_error>>,
) -> i2psock_status {
    guard::on(dgram.map(|dgram| &dgram.0), "dgram", err, |lent| {
        lent.dgram.set_nonblocking(on != 0).map(|()| i2psock_status::I2PSOCK_OK)
    })
}

/// Bounds each send and receive on a blocking socket to `timeout_ms` milliseconds, after which they return
/// I2PSOCK_TIMEOUT; -1, the default, for no bound.
#[no_mangle]
pub extern "C" fn i2psock_dgram_set_timeout(
    dgram: Option<&i2psock_dgram>,
    timeout_ms: c_int,
    err: Option<&mut MaybeUninit<*mut i2psock_error>>,
) -> i2psock_status {
    guard::on(dgram.map(|dgram| &dgram.0), "dgram", err, |lent| {
        lent.dgram.set_timeout(timeout_ms).map(|()| i2psock_status::I2PSOCK_OK)
    })
}

/// Sends one datagram of 1 to I2PSOCK_MAX_DGRAM (raw: I2PSOCK_MAX_RAW) bytes, whole or not at all (i2p.sam's sendto,
/// leaflet's transmit). `address`: as for i2psock_dest_connect(). A destination in base64 costs one system call. A name
/// or base32 is looked up the first time, which blocks, within i2psock_dgram_set_timeout() and lookup_timeout, and is
/// then remembered for ten minutes, by all handles of the destination. On a non-blocking socket, or with MSG_DONTWAIT,
/// one that is not known is I2PSOCK_STATE: look it up first with i2psock_dest_lookup_start() or i2psock_dest_lookup(),
/// which is remembered in the same way (the last 1024 names). `flags`: 0, MSG_DONTWAIT, MSG_NOSIGNAL. `options` may be
/// NULL: from_port, to_port, protocol (raw), expires (seconds), send_tags, tag_threshold, send_leaseset (0 or 1), which
/// only some routers know; others lose the datagram, so the destination must have been opened with header_options=1.
/// I2PSOCK_OK: handed to the bridge, nothing more is ever known; I2PSOCK_BLOCK: no room; I2PSOCK_INVALID: a wrong size
/// (in band: see in_band_max) or address; I2PSOCK_STATE: a name that has to be looked up first; I2PSOCK_NETWORK: the
/// name does not resolve (leaflet's NSError); I2PSOCK_UNSUPPORTED: options without header_options; I2PSOCK_CLOSED: the
/// destination has ended; I2PSOCK_TIMEOUT; I2PSOCK_IO, with ECONNREFUSED when nothing listens at the controller's
/// option "udp": every time, where the system tells, but for the datagrams of a second or so when the bridge has gone.
/// They may have gone out all the same.
#[no_mangle]
pub unsafe extern "C" fn i2psock_dgram_send_to(
    dgram: Option<&i2psock_dgram>,
    address: *const c_char,
    data: *const c_void,
    len: usize,
    flags: c_int,
    options: Option<&i2psock_options>,
    err: Option<&mut MaybeUninit<*mut i2psock_error>>,
) -> i2psock_status {
    guard::on(dgram.map(|dgram| &dgram.0), "dgram", err, |lent| {
        // SAFETY: the contract of the header.
        let (address, bytes) = unsafe { (guard::text(address, "address")?, guard::bytes(data, len, "data")?) };
        let options = SendOptions::parse(options::given(options))?;
        Ok(went(lent.dgram.send_to(address, bytes, flags, &options)?))
    })
}

fn went(went: bool) -> i2psock_status {
    match went {
        true => i2psock_status::I2PSOCK_OK,
        false => i2psock_status::I2PSOCK_BLOCK,
    }
}

/// Receives one datagram into `data` (i2p.sam's recvfrom, leaflet's collect). `capacity` is for the payload alone,
/// I2PSOCK_COLLECT_SIZE being enough for every one; of a longer datagram the rest is lost (i2psock_from_truncated()).
/// `*received` is the length, which may be 0. `from`, which may be NULL, is filled with the rest. `flags`: 0,
/// MSG_DONTWAIT, MSG_PEEK (what is not from the bridge is dropped all the same; do not peek while another thread
/// receives); MSG_WAITALL makes no sense here and is I2PSOCK_INVALID. Datagrams from others than the bridge and
/// malformed ones are dropped and counted; with the destination's option report_source=1 the former are
/// I2PSOCK_PROTOCOL with operation I2PSOCK_OP_SOURCE (leaflet's SourceError). I2PSOCK_BLOCK: nothing there on a
/// non-blocking socket or with MSG_DONTWAIT; I2PSOCK_TIMEOUT: nothing came within i2psock_dgram_set_timeout();
/// I2PSOCK_CLOSED: the destination has ended; I2PSOCK_IO with ECONNREFUSED, once, when datagrams were refused since the
/// last call, as nothing listens at option "udp": none will come. The descriptor does not show that. I2PSOCK_UNSUPPORTED:
/// with raw_header=1 on a router that writes no headers.
#[no_mangle]
pub unsafe extern "C" fn i2psock_dgram_recv_from(
    dgram: Option<&i2psock_dgram>,
    data: *mut c_void,
    capacity: usize,
    flags: c_int,
    received: Option<&mut MaybeUninit<usize>>,
    from: Option<&mut i2psock_from>,
    err: Option<&mut MaybeUninit<*mut i2psock_error>>,
) -> i2psock_status {
    let (mut received, mut from) = (received, from);
    guard::put(&mut received, 0);
    if let Some(from) = &mut from {
        **from = i2psock_from::EMPTY;
    }
    guard::on(dgram.map(|dgram| &dgram.0), "dgram", err, |lent| {
        if received.is_none() {
            return Err(Error::invalid("received is NULL"));
        }
        // SAFETY: the contract of the header.
        let room = unsafe { guard::room(data, capacity, "data")? };
        let Some(datagram) = lent.dgram.recv_from(room, flags)? else { return Ok(i2psock_status::I2PSOCK_BLOCK) };
        guard::put(&mut received, datagram.len);
        if let Some(from) = from {
            from.fill(datagram);
        }
        Ok(i2psock_status::I2PSOCK_OK)
    })
}

/// One datagram of i2psock_dgram_send_many().
#[repr(C)]
pub struct i2psock_outgoing {
    /// Where it goes, as for i2psock_dgram_send_to().
    pub address: *const c_char,
    /// Its payload.
    pub data: *const c_void,
    /// Length of the payload.
    pub len: usize,
}

/// One datagram of i2psock_dgram_recv_many().
#[repr(C)]
pub struct i2psock_incoming {
    /// In: room for the payload.
    pub data: *mut c_void,
    /// In: how much. Of a longer payload the rest is lost.
    pub capacity: usize,
    /// Out: how many bytes of payload are in `data`. Unchanged if nothing was received here.
    pub len: usize,
    /// In: filled like that of i2psock_dgram_recv_from(); may be NULL.
    pub from: *mut i2psock_from,
}

/// Sends `count` datagrams in order, as i2psock_dgram_send_to() would one after the other, but on Linux with one system
/// call for up to 16 of them (not with in_band), and another one about once a second, to see whether the bridge
/// listens. `*sent`, which may be NULL, is how many went; I2PSOCK_OK: all. With any other status the datagram after
/// those is the one it is about, and nothing of that one or those behind it was sent; statuses as
/// i2psock_dgram_send_to(). A name that is not known yet is looked up when it is its datagram's turn.
#[no_mangle]
pub unsafe extern "C" fn i2psock_dgram_send_many(
    dgram: Option<&i2psock_dgram>,
    datagrams: *const i2psock_outgoing,
    count: usize,
    flags: c_int,
    sent: Option<&mut MaybeUninit<usize>>,
    err: Option<&mut MaybeUninit<*mut i2psock_error>>,
) -> i2psock_status {
    let mut sent = sent;
    guard::put(&mut sent, 0);
    guard::on(dgram.map(|dgram| &dgram.0), "dgram", err, |lent| {
        // SAFETY: the contract of the header.
        let list = unsafe { guard::array(datagrams, count, "datagrams")? };
        let mut done = 0;
        for chunk in list.chunks(MANY) {
            let mut sound = [Outgoing::default(); MANY];
            let (mut len, mut wrong) = (0, None);
            for (place, one) in sound.iter_mut().zip(chunk) {
                // SAFETY: the contract of the header.
                match unsafe { outgoing(one) } {
                    Ok(datagram) => *place = datagram,
                    Err(error) => {
                        wrong = Some(error);
                        break;
                    }
                }
                len += 1;
            }
            let (went, result) = lent.dgram.send_many(sound.get(..len).unwrap_or_default(), flags);
            done += went;
            guard::put(&mut sent, done);
            if !result? {
                return Ok(i2psock_status::I2PSOCK_BLOCK);
            }
            if let Some(error) = wrong {
                return Err(error);
            }
        }
        Ok(i2psock_status::I2PSOCK_OK)
    })
}

/// # Safety
/// The contract of the header.
unsafe fn outgoing(one: &i2psock_outgoing) -> Result<Outgoing<'_>> {
    // SAFETY: promised by the caller.
    let (address, payload) =
        unsafe { (guard::text(one.address, "address")?, guard::bytes(one.data, one.len, "data")?) };
    Ok(Outgoing { address, payload })
}

/// Receives up to `count` datagrams: waits for the first like i2psock_dgram_recv_from() and takes what else is there,
/// on Linux with one system call for up to 16. `*received` is how many; they are in the first elements, each payload in
/// the room of its own element, in the order of their arrival. What is not from the bridge or malformed is dropped and
/// counted and leaves no gap. The rooms must not overlap, and those behind the first `*received` may have been written
/// to. `from` may be the same for several elements, and then tells about the last. It is fastest with elements of one
/// capacity: at one that has less than that before it another system call begins. `flags`: 0, MSG_DONTWAIT; MSG_PEEK
/// would show the first one again and again and is I2PSOCK_INVALID. Statuses as i2psock_dgram_recv_from(), for the
/// first one: an error behind it is returned by the next call. With option report_source every datagram costs a system
/// call.
#[no_mangle]
pub unsafe extern "C" fn i2psock_dgram_recv_many(
    dgram: Option<&i2psock_dgram>,
    datagrams: *mut i2psock_incoming,
    count: usize,
    flags: c_int,
    received: Option<&mut MaybeUninit<usize>>,
    err: Option<&mut MaybeUninit<*mut i2psock_error>>,
) -> i2psock_status {
    let mut received = received;
    guard::put(&mut received, 0);
    guard::on(dgram.map(|dgram| &dgram.0), "dgram", err, |lent| {
        if received.is_none() {
            return Err(Error::invalid("received is NULL"));
        }
        // SAFETY: the contract of the header.
        let list = unsafe { guard::array_mut(datagrams, count, "datagrams")? };
        for one in list.iter() {
            guard::check_buffer(one.data.is_null(), one.capacity, "data")?;
        }
        let mut done = 0;
        while let Some(rest) = list.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let mut slots: [Slot<'_>; MANY] = Default::default();
            let mut len = 0;
            for (slot, one) in slots.iter_mut().zip(rest.iter()) {
                // SAFETY: the contract of the header.
                slot.room = unsafe { guard::room(one.data, one.capacity, "data")? };
                len += 1;
            }
            let slots = slots.get_mut(..len).unwrap_or_default();
            let now = if done > 0 { flags | crate::sys::MSG_DONTWAIT } else { flags };
            let got = match lent.dgram.recv_many(slots, now) {
                Ok(got) => got,
                Err(error) if done == 0 => return Err(error),
                // What was received counts; the next call returns the error.
                Err(error) => {
                    lent.dgram.defer(error);
                    break;
                }
            };
            for (one, datagram) in rest.iter_mut().zip(slots.iter_mut().filter_map(|slot| slot.datagram.take())) {
                one.len = datagram.len;
                // SAFETY: the contract of the header.
                if let Some(from) = unsafe { one.from.as_mut() } {
                    from.fill(datagram);
                }
            }
            done += got;
            guard::put(&mut received, done);
            if got < len {
                break;
            }
        }
        Ok(match done == 0 && count > 0 {
            true => i2psock_status::I2PSOCK_BLOCK,
            false => i2psock_status::I2PSOCK_OK,
        })
    })
}

/// Frees the handle; the destination goes on. NULL is allowed.
#[no_mangle]
pub unsafe extern "C" fn i2psock_dgram_free(dgram: *mut i2psock_dgram) {
    // SAFETY: the contract of the header.
    unsafe { guard::free(dgram) }
}

/// Makes an empty one, yours to free with i2psock_from_free(). Never NULL.
#[no_mangle]
pub extern "C" fn i2psock_from_new() -> *mut i2psock_from {
    guard::into_raw(i2psock_from::EMPTY)
}

/// The sender's destination, verified by the router for I2PSOCK_DGRAM and I2PSOCK_DGRAM2. NULL when the datagram tells
/// only its hash (I2PSOCK_DGRAM3) or nothing (I2PSOCK_RAW). Borrowed: it lives until `from` is used for the next
/// datagram or freed.
#[no_mangle]
pub extern "C" fn i2psock_from_addr(from: Option<&i2psock_from>) -> *const i2psock_addr {
    from.and_then(|from| from.addr.as_ref()).map_or(std::ptr::null(), std::ptr::from_ref)
}

/// The 32-byte hash of the sender's destination; not verified for I2PSOCK_DGRAM3. NULL when the datagram does not tell.
/// Borrowed like i2psock_from_addr().
#[no_mangle]
pub extern "C" fn i2psock_from_hash(from: Option<&i2psock_from>) -> *const u8 {
    from.and_then(|from| from.hash.as_ref()).map_or(std::ptr::null(), |hash| hash.as_ptr())
}

/// I2CP port it was sent from; -1: not told.
#[no_mangle]
pub extern "C" fn i2psock_from_port(from: Option<&i2psock_from>) -> c_int {
    from.map_or(-1, |from| from.from_port)
}

/// I2CP port it was sent to; -1: not told.
#[no_mangle]
pub extern "C" fn i2psock_from_to_port(from: Option<&i2psock_from>) -> c_int {
    from.map_or(-1, |from| from.to_port)
}

/// I2CP protocol of a raw datagram; -1: not told.
#[no_mangle]
pub extern "C" fn i2psock_from_protocol(from: Option<&i2psock_from>) -> c_int {
    from.map_or(-1, |from| from.protocol)
}

/// Length of the whole payload, more than was received if it was truncated (where the system tells).
#[no_mangle]
pub extern "C" fn i2psock_from_length(from: Option<&i2psock_from>) -> usize {
    from.map_or(0, |from| from.full_len)
}

/// 1 if the buffer was too small and the rest of the datagram is lost, else 0.
#[no_mangle]
pub extern "C" fn i2psock_from_truncated(from: Option<&i2psock_from>) -> c_int {
    from.is_some_and(|from| from.truncated).into()
}

/// Resolves the sender of a datagram: its destination if it told that, else a lookup of its hash through the session,
/// which is remembered. Blocks up to `timeout_ms`. `*out` is yours to free. I2PSOCK_NETWORK with tag "KEY_NOT_FOUND":
/// the router does not find it; I2PSOCK_STATE: the datagram did not tell its sender.
#[no_mangle]
pub extern "C" fn i2psock_dgram_resolve(
    dgram: Option<&i2psock_dgram>,
    from: Option<&i2psock_from>,
    timeout_ms: c_int,
    out: Option<&mut MaybeUninit<*mut i2psock_addr>>,
    err: Option<&mut MaybeUninit<*mut i2psock_error>>,
) -> i2psock_status {
    let out = guard::clear(out);
    guard::on(dgram.map(|dgram| &dgram.0), "dgram", err, |lent| {
        let from = guard::some(from, "from")?;
        guard::give(out, "out", || resolve(&lent.dgram, from, timeout_ms).map(i2psock_addr::new))
    })
}

fn resolve(dgram: &Dgram, from: &i2psock_from, timeout_ms: c_int) -> Result<Address> {
    let limit = Limit::from_millis(timeout_ms)?;
    dgram.check(Operation::Lookup)?;
    match (&from.addr, &from.hash) {
        (Some(addr), _) => Ok(addr.0.get().clone()),
        (None, Some(hash)) => dgram.resolve(hash, limit),
        (None, None) => Err(Error::state("the datagram did not tell its sender")),
    }
}

/// Frees it. NULL is allowed.
#[no_mangle]
pub unsafe extern "C" fn i2psock_from_free(from: *mut i2psock_from) {
    // SAFETY: the contract of the header.
    unsafe { guard::free(from) }
}
