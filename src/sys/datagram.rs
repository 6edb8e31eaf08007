//! Datagram sockets, one system call per datagram; `datagram_batch` has the calls that move many at once.

use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use crate::sys::socket::{raw_address, set_int, RawAddress};
use crate::sys::{check, check_len, retry, Place};

/// A peer's address converted to a `sockaddr` once, so that sending does not convert it again.
pub struct UdpAddress(RawAddress);

impl UdpAddress {
    /// Converts `address` to the system's form.
    pub fn new(address: SocketAddr) -> io::Result<Self> {
        raw_address(&Place::Tcp(address)).map(UdpAddress)
    }
}

/// Creates a blocking UDP socket bound to `address`. The kernel counts the datagrams it drops, where it can.
pub fn bind_udp(address: SocketAddr) -> io::Result<OwnedFd> {
    let raw = raw_address(&Place::Tcp(address))?;
    // SAFETY: plain system call; the new descriptor is ours.
    let socket =
        unsafe { OwnedFd::from_raw_fd(check(libc::socket(raw.family, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0))?) };
    // SAFETY: the address outlives the call.
    check(unsafe { libc::bind(socket.as_raw_fd(), ptr::addr_of!(raw.storage).cast(), raw.len) })?;
    // A burst should fit while the program does something else; the system caps this at its own limit.
    drop(set_int(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF, 1 << 21));
    #[cfg(target_os = "linux")]
    set_int(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1)?;
    Ok(socket)
}

/// Creates a blocking UDP socket bound to `local` and connected to `peer`: unlike others, it gets an error when nothing
/// listens there.
pub fn connect_udp(local: SocketAddr, peer: SocketAddr) -> io::Result<OwnedFd> {
    let (local, peer) = (raw_address(&Place::Tcp(local))?, raw_address(&Place::Tcp(peer))?);
    // SAFETY: plain system call; the new descriptor is ours.
    let socket =
        unsafe { OwnedFd::from_raw_fd(check(libc::socket(local.family, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0))?) };
    // SAFETY: the addresses outlive the calls.
    unsafe {
        check(libc::bind(socket.as_raw_fd(), ptr::addr_of!(local.storage).cast(), local.len))?;
        check(libc::connect(socket.as_raw_fd(), ptr::addr_of!(peer.storage).cast(), peer.len))?;
    }
    Ok(socket)
}

/// Creates a connected pair of unix datagram sockets.
pub fn datagram_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [-1; 2];
    // SAFETY: room for two descriptors, which are ours.
    unsafe {
        check(libc::socketpair(libc::AF_UNIX, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0, fds.as_mut_ptr()))?;
        Ok((OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])))
    }
}

/// Returns the address a socket is bound to.
pub fn local_address(fd: RawFd) -> io::Result<SocketAddr> {
    // SAFETY: all-zero is a valid sockaddr_storage.
    let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let mut len = std::mem::size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    // SAFETY: storage and length outlive the call.
    check(unsafe { libc::getsockname(fd, ptr::addr_of_mut!(storage).cast(), &mut len) })?;
    socket_address(&storage).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

pub(super) fn socket_address(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match libc::c_int::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says which kind of address it is, and the storage has room for either.
            let v4: &libc::sockaddr_in = unsafe { &*ptr::from_ref(storage).cast() };
            let ip = IpAddr::from(v4.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddr::new(ip, u16::from_be(v4.sin_port)))
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let v6: &libc::sockaddr_in6 = unsafe { &*ptr::from_ref(storage).cast() };
            let address = SocketAddrV6::new(
                v6.sin6_addr.s6_addr.into(),
                u16::from_be(v6.sin6_port),
                v6.sin6_flowinfo,
                v6.sin6_scope_id,
            );
            Some(SocketAddr::V6(address))
        }
        _ => None,
    }
}

/// Sends `header` and `payload` as one datagram; `to` is `None` on a connected socket. Retries after EINTR, since
/// nothing was sent then.
pub fn send_datagram(
    fd: RawFd,
    to: Option<&UdpAddress>,
    header: &[u8],
    payload: &[u8],
    flags: i32,
) -> io::Result<usize> {
    let mut parts =
        [header, payload].map(|part| libc::iovec { iov_base: part.as_ptr().cast_mut().cast(), iov_len: part.len() });
    let message = outgoing(to, &mut parts);
    // SAFETY: everything the message points to outlives the call, and sendmsg does not write to it.
    retry(|| check_len(unsafe { libc::sendmsg(fd, &message, flags | libc::MSG_NOSIGNAL) }))
}

pub(super) fn outgoing(to: Option<&UdpAddress>, parts: &mut [libc::iovec]) -> libc::msghdr {
    // SAFETY: all-zero is a valid msghdr.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    if let Some(UdpAddress(to)) = to {
        message.msg_name = ptr::addr_of!(to.storage).cast_mut().cast();
        message.msg_namelen = to.len;
    }
    message.msg_iov = parts.as_mut_ptr();
    message.msg_iovlen = parts.len() as _;
    message
}

/// What the kernel reports along with a received datagram.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// Length on the wire, which may exceed the room that was provided.
    pub len: usize,
    /// The sender, if the socket family has addresses.
    pub from: Option<SocketAddr>,
    /// Number of datagrams the kernel has dropped since the socket was created, where it reports that.
    pub dropped: Option<u32>,
}

/// Longest header a datagram may start with, including its line feed.
pub const MAX_FRONT: usize = 2049;

/// The memory before and after the payload buffer in a scattered receive. If the header is longer than predicted, it
/// pushes the end of the payload out of the buffer into `tail`.
pub(super) struct Front {
    pub head: [u8; MAX_FRONT],
    pub tail: [u8; MAX_FRONT],
}

impl Front {
    pub(super) const EMPTY: Front = Front { head: [0; MAX_FRONT], tail: [0; MAX_FRONT] };

    /// The pieces the next datagram is received into; `predicted` is at most [`MAX_FRONT`].
    pub(super) fn parts(&mut self, predicted: usize, buffer: &mut [MaybeUninit<u8>]) -> [libc::iovec; 3] {
        [
            libc::iovec { iov_base: self.head.as_mut_ptr().cast(), iov_len: predicted },
            libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() },
            libc::iovec { iov_base: self.tail.as_mut_ptr().cast(), iov_len: MAX_FRONT },
        ]
    }
}

/// Receives one datagram whose header is expected to be `predicted` bytes long, so that the payload lands in `buffer`
/// without a copy. `decide` gets the first bytes, up to [`MAX_FRONT`], and returns the real length of the header, or
/// `None` to drop the datagram; the payload is moved only if the prediction was wrong. Returns how many payload bytes
/// are in `buffer`.
pub fn receive_split(
    fd: RawFd,
    flags: i32,
    predicted: usize,
    buffer: &mut [MaybeUninit<u8>],
    decide: &mut dyn FnMut(&[u8], &Arrival) -> Option<usize>,
) -> io::Result<(Arrival, Option<usize>)> {
    let predicted = predicted.min(MAX_FRONT);
    let mut front = Front::EMPTY;
    let arrival = receive_parts(fd, &mut front.parts(predicted, buffer), flags)?;
    // SAFETY: the kernel has just filled these parts.
    let moved = unsafe { settle(&mut front, predicted, buffer, &arrival, decide) };
    Ok((arrival, moved))
}

/// Moves header and payload of a received datagram to where they belong. Returns how many payload bytes end up in
/// `buffer`.
///
/// # Safety
/// The datagram must have been received into [`Front::parts`] of these arguments.
pub(super) unsafe fn settle(
    front: &mut Front,
    predicted: usize,
    buffer: &mut [MaybeUninit<u8>],
    arrival: &Arrival,
    decide: &mut dyn FnMut(&[u8], &Arrival) -> Option<usize>,
) -> Option<usize> {
    let Front { head, tail } = front;
    let room = buffer.len();
    let stored = arrival.len.min(predicted + room + MAX_FRONT);
    let in_buffer = stored.saturating_sub(predicted).min(room);
    // SAFETY: the kernel has filled the parts in order, so the first `in_buffer` bytes are initialised.
    let filled = unsafe { std::slice::from_raw_parts(buffer.as_ptr().cast::<u8>(), in_buffer) };
    let in_tail = stored.saturating_sub(predicted + room);
    let front = stored.min(predicted);
    // The prediction was right if the header fills the front exactly.
    if predicted > 0 && head[..front].ends_with(b"\n") && decide(&head[..front], arrival) == Some(front) {
        return Some(in_buffer);
    }
    let from_buffer = in_buffer.min(MAX_FRONT - front);
    head[front..front + from_buffer].copy_from_slice(&filled[..from_buffer]);
    let from_tail = in_tail.min(MAX_FRONT - front - from_buffer);
    let first = front + from_buffer + from_tail;
    head[front + from_buffer..first].copy_from_slice(&tail[..from_tail]);
    let header = decide(&head[..first], arrival)?.min(first);
    if header <= front {
        let gap = (front - header).min(room);
        let kept = in_buffer.min(room - gap);
        buffer.copy_within(..kept, gap);
        for (to, from) in buffer.iter_mut().zip(&head[header..header + gap]) {
            to.write(*from);
        }
        return Some((gap + kept).min(stored - header));
    }
    let skip = header - front;
    let kept = in_buffer.saturating_sub(skip);
    if kept > 0 {
        buffer.copy_within(skip..in_buffer, 0);
    }
    let after = skip.saturating_sub(in_buffer);
    let rest = tail.get(after..in_tail).unwrap_or_default();
    let spare = buffer.get_mut(kept..).unwrap_or_default();
    for (to, from) in spare.iter_mut().zip(rest) {
        to.write(*from);
    }
    Some(kept + rest.len().min(room - kept))
}

/// Discards the next datagram unread. Returns false if none was queued.
pub fn discard_datagram(fd: RawFd) -> bool {
    // SAFETY: a zero-length receive writes nothing.
    unsafe { libc::recv(fd, ptr::null_mut(), 0, libc::MSG_DONTWAIT) >= 0 }
}

/// Receives one datagram scattered over `parts` in order; reports EINTR. The length is that of the whole datagram, even
/// if it was truncated.
fn receive_parts(fd: RawFd, parts: &mut [libc::iovec], flags: i32) -> io::Result<Arrival> {
    // SAFETY: all-zero is a valid sockaddr_storage.
    let mut from: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let mut control = CONTROL;
    let mut message = incoming(parts, &mut from, &mut control);
    // SAFETY: everything the message points to outlives the call and is written only within its lengths, which the
    // callers in this file take from slices.
    let len = check_len(unsafe { libc::recvmsg(fd, &mut message, flags | libc::MSG_TRUNC) })?;
    Ok(Arrival { len, from: socket_address(&from), dropped: dropped(&message) })
}

/// Room for one control message holding an int, suitably aligned.
pub(super) const CONTROL: [u64; 8] = [0; 8];

/// Builds a message to receive into the arguments. It points to them, so they must outlive its use.
pub(super) fn incoming(
    parts: &mut [libc::iovec],
    from: &mut libc::sockaddr_storage,
    control: &mut [u64; 8],
) -> libc::msghdr {
    // SAFETY: all-zero is a valid msghdr.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_name = ptr::from_mut(from).cast();
    message.msg_namelen = std::mem::size_of_val(from) as libc::socklen_t;
    message.msg_iov = parts.as_mut_ptr();
    message.msg_iovlen = parts.len() as _;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = std::mem::size_of_val(control) as _;
    message
}

/// Reads the kernel's drop counter from a received message.
#[cfg(target_os = "linux")]
pub(super) fn dropped(message: &libc::msghdr) -> Option<u32> {
    // SAFETY: the kernel has filled the control buffer, and the macros stay within its length.
    unsafe {
        let mut next = libc::CMSG_FIRSTHDR(message);
        while let Some(header) = next.as_ref() {
            if header.cmsg_level == libc::SOL_SOCKET && header.cmsg_type == libc::SO_RXQ_OVFL {
                return Some(ptr::read_unaligned(libc::CMSG_DATA(header).cast()));
            }
            next = libc::CMSG_NXTHDR(message, header);
        }
    }
    None
}

#[cfg(not(target_os = "linux"))]
pub(super) fn dropped(_: &libc::msghdr) -> Option<u32> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_discarded_if_there_is_one() {
        let (ours, theirs) = datagram_pair().unwrap();
        assert!(!discard_datagram(ours.as_raw_fd()));
        for text in [&b"one"[..], b"", b"two"] {
            send_datagram(theirs.as_raw_fd(), None, text, b"", 0).unwrap();
        }
        assert_eq!([(); 4].map(|()| discard_datagram(ours.as_raw_fd())), [true, true, true, false]);
    }

    /// Receives `header` and `payload` with a right or wrong prediction and returns what landed in the buffer.
    fn receive(header: &[u8], payload: &[u8], predicted: usize, room: usize) -> (usize, Option<Vec<u8>>) {
        let (ours, theirs) = datagram_pair().unwrap();
        send_datagram(theirs.as_raw_fd(), None, header, payload, 0).unwrap();
        let mut buffer = vec![MaybeUninit::new(0xEE); room];
        let mut decide = |first: &[u8], _: &Arrival| {
            assert!([header, payload].concat().starts_with(first), "the first bytes in order");
            first.windows(header.len().max(1)).next().filter(|start| start.starts_with(header)).map(|_| header.len())
        };
        let (arrival, len) = receive_split(ours.as_raw_fd(), 0, predicted, &mut buffer, &mut decide).unwrap();
        let filled = len.map(|len| {
            // SAFETY: every byte was initialised above.
            buffer[..len].iter().map(|byte| unsafe { byte.assume_init() }).collect()
        });
        (arrival.len, filled)
    }

    #[test]
    fn whatever_was_predicted_the_payload_is_whole_or_cut_at_the_end() {
        let payload: Vec<u8> = (0..200u8).map(|byte| if byte == b'\n' { b'x' } else { byte }).collect();
        for header_len in [0, 1, 2, 31, 32, 33, 60] {
            let mut header = vec![b'h'; header_len];
            if let Some(last) = header.last_mut() {
                *last = b'\n';
            }
            for payload_len in [1, 2, 29, 31, 32, 33, 64, 200] {
                let payload = &payload[..payload_len];
                for predicted in [0, 1, 2, 30, 31, 32, 33, 34, 59, 60, 61, 100, 300, MAX_FRONT] {
                    for room in [0, 1, 2, 16, 31, 32, 33, 64, 199, 200, 201, 400] {
                        let (len, got) = receive(&header, payload, predicted, room);
                        let case =
                            format!("header {header_len} payload {payload_len} predicted {predicted} room {room}");
                        assert_eq!(len, header_len + payload_len, "{case}");
                        let got = got.expect(&case);
                        let expected = payload_len.min(room);
                        assert_eq!(got, &payload[..expected], "{case}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_kernel_tells_the_sender() {
        let ours = bind_udp("127.0.0.1:0".parse().unwrap()).unwrap();
        let theirs = bind_udp("127.0.0.1:0".parse().unwrap()).unwrap();
        let to = UdpAddress::new(local_address(ours.as_raw_fd()).unwrap()).unwrap();
        send_datagram(theirs.as_raw_fd(), Some(&to), b"a\n", b"b", 0).unwrap();
        let mut buffer = [MaybeUninit::uninit(); 10];
        let mut decide = |first: &[u8], arrival: &Arrival| {
            assert_eq!(first, b"a\nb");
            assert_eq!(arrival.from, Some(local_address(theirs.as_raw_fd()).unwrap()));
            None
        };
        let (arrival, len) = receive_split(ours.as_raw_fd(), 0, 0, &mut buffer, &mut decide).unwrap();
        assert_eq!((arrival.len, len), (3, None));
    }
}
