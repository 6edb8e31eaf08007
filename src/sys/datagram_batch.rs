//! Many datagrams in one system call: sendmmsg and recvmmsg on Linux, an equivalent loop elsewhere.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;

use crate::sys::datagram::{dropped, incoming, outgoing, settle, socket_address, Front, CONTROL, MAX_FRONT};
use crate::sys::{check_len, retry, Arrival, UdpAddress};

/// Most datagrams moved by one call.
pub(crate) const MANY: usize = 16;

#[cfg(target_os = "linux")]
use libc::mmsghdr as Message;

/// Same layout as Linux's mmsghdr.
#[cfg(not(target_os = "linux"))]
struct Message {
    msg_hdr: libc::msghdr,
    msg_len: libc::c_uint,
}

/// Sends up to [`MANY`] datagrams, each a header and a payload. Returns how many were sent and the error that stopped
/// the rest; if some are left without an error, try them again.
pub(crate) fn send_datagrams(
    fd: RawFd,
    to: &UdpAddress,
    datagrams: &[(&[u8], &[u8])],
    flags: i32,
) -> (usize, Option<io::Error>) {
    #[cfg(target_os = "linux")]
    return send_with(send_at_once, fd, to, datagrams, flags);
    #[cfg(not(target_os = "linux"))]
    return send_with(send_each, fd, to, datagrams, flags);
}

type Send = fn(RawFd, &mut [Message], i32) -> (usize, Option<io::Error>);

fn send_with(
    send: Send,
    fd: RawFd,
    to: &UdpAddress,
    datagrams: &[(&[u8], &[u8])],
    flags: i32,
) -> (usize, Option<io::Error>) {
    const NONE: libc::iovec = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
    let mut parts = [[NONE; 2]; MANY];
    // SAFETY: all-zero is a valid message.
    let mut messages: [Message; MANY] = unsafe { std::mem::zeroed() };
    let mut count = 0;
    for ((message, parts), (header, payload)) in messages.iter_mut().zip(&mut parts).zip(datagrams) {
        *parts = [*header, *payload]
            .map(|part| libc::iovec { iov_base: part.as_ptr().cast_mut().cast(), iov_len: part.len() });
        message.msg_hdr = outgoing(Some(to), parts);
        count += 1;
    }
    // Everything the messages point to outlives this call.
    send(fd, messages.get_mut(..count).unwrap_or_default(), flags | libc::MSG_NOSIGNAL)
}

#[cfg(target_os = "linux")]
fn send_at_once(fd: RawFd, messages: &mut [Message], flags: i32) -> (usize, Option<io::Error>) {
    // SAFETY: what the messages point to outlives the call; only their lengths are written.
    let send = || check_len(unsafe { libc::sendmmsg(fd, messages.as_mut_ptr(), messages.len() as _, flags) } as _);
    match retry(send) {
        // The next call reports what stopped this one.
        Ok(sent) => (sent, None),
        Err(error) => (0, Some(error)),
    }
}

#[cfg(any(test, not(target_os = "linux")))]
fn send_each(fd: RawFd, messages: &mut [Message], flags: i32) -> (usize, Option<io::Error>) {
    for (sent, message) in messages.iter().enumerate() {
        // SAFETY: as above.
        if let Err(error) = retry(|| check_len(unsafe { libc::sendmsg(fd, &message.msg_hdr, flags) })) {
            return (sent, Some(error));
        }
    }
    (messages.len(), None)
}

/// Everything about [`MANY`] received datagrams except their payloads.
pub(crate) struct Batch {
    fronts: Vec<Front>,
    arrivals: [(Arrival, Option<usize>); MANY],
}

impl Batch {
    /// Boxed and meant to be kept, as it is large.
    pub(crate) fn boxed() -> Box<Self> {
        let nothing = Arrival { len: 0, from: None, dropped: None };
        let fronts = std::iter::repeat_with(|| Front::EMPTY).take(MANY).collect();
        Box::new(Batch { fronts, arrivals: [(nothing, None); MANY] })
    }

    /// Results of the last receive, one per buffer used, in the form [`super::receive_split`] returns.
    pub(crate) fn arrivals(&self, count: usize) -> &[(Arrival, Option<usize>)] {
        self.arrivals.get(..count).unwrap_or_default()
    }
}

/// Receives up to [`MANY`] datagrams, one into each buffer, like [`super::receive_split`]: waits for the first, if
/// `flags` allow, then takes whatever else is queued. `decide` also gets the index of the datagram. Returns how many
/// were received; their results are in `batch`.
pub(crate) fn receive_many(
    fd: RawFd,
    flags: i32,
    predicted: usize,
    buffers: &mut [&mut [MaybeUninit<u8>]],
    batch: &mut Batch,
    decide: Decide<'_>,
) -> io::Result<usize> {
    #[cfg(target_os = "linux")]
    return receive_with(receive_at_once, fd, flags, predicted, buffers, batch, decide);
    #[cfg(not(target_os = "linux"))]
    return receive_with(receive_each, fd, flags, predicted, buffers, batch, decide);
}

/// Returns the length of a datagram's header, or `None` to drop the datagram.
type Decide<'a> = &'a mut dyn FnMut(usize, &[u8], &Arrival) -> Option<usize>;

type Receive = fn(RawFd, &mut [Message], i32) -> io::Result<usize>;

fn receive_with(
    receive: Receive,
    fd: RawFd,
    flags: i32,
    predicted: usize,
    buffers: &mut [&mut [MaybeUninit<u8>]],
    batch: &mut Batch,
    decide: Decide<'_>,
) -> io::Result<usize> {
    const NONE: libc::iovec = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
    let predicted = predicted.min(MAX_FRONT);
    let mut parts = [[NONE; 3]; MANY];
    let mut control = [CONTROL; MANY];
    // SAFETY: all-zero is a valid sockaddr_storage, and a valid message.
    let (mut from, mut messages): ([libc::sockaddr_storage; MANY], [Message; MANY]) = unsafe { std::mem::zeroed() };
    let mut count = 0;
    let rooms = parts.iter_mut().zip(&mut from).zip(&mut control);
    let targets = batch.fronts.iter_mut().zip(buffers.iter_mut());
    for ((message, ((parts, from), control)), (front, buffer)) in messages.iter_mut().zip(rooms).zip(targets) {
        *parts = front.parts(predicted, buffer);
        message.msg_hdr = incoming(parts, from, control);
        count += 1;
    }
    // Everything the messages point to outlives this call.
    let came = receive(fd, messages.get_mut(..count).unwrap_or_default(), flags | libc::MSG_TRUNC)?;
    let arrived = messages.iter().zip(&from).take(came);
    let targets = batch.fronts.iter_mut().zip(&mut batch.arrivals).zip(buffers.iter_mut());
    for (index, ((message, from), ((front, result), buffer))) in arrived.zip(targets).enumerate() {
        let arrival =
            Arrival { len: message.msg_len as usize, from: socket_address(from), dropped: dropped(&message.msg_hdr) };
        let mut decide = |first: &[u8], arrival: &Arrival| decide(index, first, arrival);
        // SAFETY: this message was received into the parts of this front and this buffer.
        let moved = unsafe { settle(front, predicted, buffer, &arrival, &mut decide) };
        *result = (arrival, moved);
    }
    Ok(came)
}

#[cfg(target_os = "linux")]
fn receive_at_once(fd: RawFd, messages: &mut [Message], flags: i32) -> io::Result<usize> {
    let flags = flags | libc::MSG_WAITFORONE;
    // SAFETY: what the messages point to outlives the call and is written only within its lengths.
    let came = unsafe {
        libc::recvmmsg(fd, messages.as_mut_ptr(), messages.len() as _, flags, std::ptr::null_mut::<libc::timespec>())
    };
    check_len(came as _)
}

#[cfg(any(test, not(target_os = "linux")))]
fn receive_each(fd: RawFd, messages: &mut [Message], flags: i32) -> io::Result<usize> {
    let mut flags = flags;
    for (index, message) in messages.iter_mut().enumerate() {
        // SAFETY: as above.
        match check_len(unsafe { libc::recvmsg(fd, &mut message.msg_hdr, flags) }) {
            Ok(len) => message.msg_len = libc::c_uint::try_from(len).unwrap_or(libc::c_uint::MAX),
            Err(error) if index == 0 => return Err(error),
            // Usually just "nothing else queued". A lasting error comes back with the next call.
            Err(_) => return Ok(index),
        }
        flags |= libc::MSG_DONTWAIT;
    }
    Ok(messages.len())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsRawFd;

    use super::*;
    use crate::sys::{bind_udp, datagram_pair, local_address, would_block};

    const SENDS: [(&str, Send); 2] = [("sendmmsg", send_at_once), ("sendmsg", send_each)];
    const RECEIVES: [(&str, Receive); 2] = [("recvmmsg", receive_at_once), ("recvmsg", receive_each)];

    fn loopback() -> std::net::SocketAddr {
        std::net::SocketAddr::from(([127, 0, 0, 1], 0))
    }

    fn init(bytes: &[MaybeUninit<u8>]) -> Vec<u8> {
        // SAFETY: the tests initialise their buffers.
        bytes.iter().map(|byte| unsafe { byte.assume_init() }).collect()
    }

    #[test]
    fn many_go_and_come_in_order() {
        for (sends, send) in SENDS {
            for (receives, receive) in RECEIVES {
                let (ours, theirs) = (bind_udp(loopback()).unwrap(), bind_udp(loopback()).unwrap());
                let to = UdpAddress::new(local_address(ours.as_raw_fd()).unwrap()).unwrap();
                let headers: Vec<Vec<u8>> = (0..MANY).map(|n| format!("{}\n", "h".repeat(n)).into_bytes()).collect();
                let payloads: Vec<Vec<u8>> = (0..MANY).map(|n| vec![b'a' + n as u8; n * 100]).collect();
                let both: Vec<_> = headers.iter().zip(&payloads).map(|(h, p)| (h.as_slice(), p.as_slice())).collect();
                let (sent, error) = send_with(send, theirs.as_raw_fd(), &to, &both[..10], 0);
                assert!(sent == 10 && error.is_none(), "{sends}");
                let mut rooms = vec![vec![MaybeUninit::new(0xEE); 600]; MANY];
                let mut buffers: Vec<_> = rooms.iter_mut().map(Vec::as_mut_slice).collect();
                let mut batch = Batch::boxed();
                let mut decide = |index: usize, first: &[u8], arrival: &Arrival| {
                    assert_eq!(arrival.from, Some(local_address(theirs.as_raw_fd()).unwrap()));
                    assert!(first.starts_with(&headers[index]));
                    (index != 3).then_some(headers[index].len())
                };
                let mut take = |buffers: &mut [&mut [MaybeUninit<u8>]], flags, batch: &mut Batch| {
                    receive_with(receive, ours.as_raw_fd(), flags, 5, buffers, batch, &mut decide)
                };
                // More buffers than datagrams: it must not wait for the rest.
                assert_eq!(take(&mut buffers, 0, &mut batch).unwrap(), 10, "{receives}");
                for (index, (arrival, moved)) in batch.arrivals(10).iter().enumerate() {
                    let whole = &payloads[index];
                    assert_eq!(arrival.len, headers[index].len() + whole.len(), "{receives} {index}");
                    assert_eq!(*moved, (index != 3).then_some(whole.len().min(600)), "{receives} {index}");
                    if let Some(len) = *moved {
                        assert_eq!(init(&buffers[index][..len]), whole[..len], "{receives} {index}");
                    }
                }
                let nothing = take(&mut buffers, libc::MSG_DONTWAIT, &mut batch).unwrap_err();
                assert!(would_block(&nothing), "{receives}: {nothing}");
                // Fewer buffers than datagrams: the rest stays queued.
                assert_eq!(send_with(send, theirs.as_raw_fd(), &to, &both[..5], 0).0, 5);
                assert_eq!(take(&mut buffers[..3], 0, &mut batch).unwrap(), 3, "{receives}");
                let mut rest =
                    |_: usize, first: &[u8], _: &Arrival| first.iter().position(|b| *b == b'\n').map(|n| n + 1);
                let fd = ours.as_raw_fd();
                assert_eq!(receive_with(receive, fd, 0, 5, &mut buffers, &mut batch, &mut rest).unwrap(), 2);
                assert_eq!(init(&buffers[1][..400]), payloads[4], "{receives}");
            }
        }
    }

    #[test]
    fn what_does_not_go_is_told() {
        for (name, send) in SENDS {
            let ours = bind_udp(loopback()).unwrap();
            let sink = UdpSocket::bind("127.0.0.1:0").unwrap();
            let to = UdpAddress::new(sink.local_addr().unwrap()).unwrap();
            // One too large for UDP stops those behind it.
            let large = vec![0; 70_000];
            let list: [(&[u8], &[u8]); 4] = [(b"1", b"x"), (b"2", b"x"), (b"3", &large), (b"4", b"x")];
            let (sent, error) = send_with(send, ours.as_raw_fd(), &to, &list, 0);
            assert_eq!(sent, 2, "{name}");
            let error = error.or_else(|| send_with(send, ours.as_raw_fd(), &to, &list[2..], 0).1).unwrap();
            assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE), "{name}");
        }
    }

    #[test]
    fn a_full_socket_takes_some() {
        for (name, send) in SENDS {
            let (ours, theirs) = datagram_pair().unwrap();
            let mut parts = [libc::iovec { iov_base: [0u8; 1].as_mut_ptr().cast(), iov_len: 1 }];
            // No address, since the pair is connected.
            // SAFETY: all-zero is a valid message.
            let mut messages: Vec<Message> = (0..4000).map(|_| unsafe { std::mem::zeroed() }).collect();
            for message in &mut messages {
                message.msg_hdr = outgoing(None, &mut parts);
            }
            let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
            let (first, _) = send(ours.as_raw_fd(), &mut messages[..1000], flags);
            assert!(first > 0 && first < 1000, "{name}: {first}");
            let (sent, error) = send(ours.as_raw_fd(), &mut messages[first..1000], flags);
            assert!(sent == 0 && would_block(&error.unwrap()), "{name}");
            drop(theirs);
        }
    }
}
