//! Stream sockets: non-blocking connect, send, receive, and socket options.

use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::ptr;

use crate::sys::{check, check_len, retry};

/// See recv(2). These flags have the system's values and are those the stream functions accept.
pub const MSG_DONTWAIT: i32 = libc::MSG_DONTWAIT;
/// See recv(2).
pub const MSG_PEEK: i32 = libc::MSG_PEEK;
/// See recv(2).
pub const MSG_WAITALL: i32 = libc::MSG_WAITALL;
/// See send(2).
pub const MSG_NOSIGNAL: i32 = libc::MSG_NOSIGNAL;
/// See send(2).
pub const MSG_MORE: i32 = libc::MSG_MORE;

/// recv(2), retried after EINTR. 0 means end of stream (or an empty buffer).
pub fn recv(fd: RawFd, buffer: &mut [u8], flags: i32) -> io::Result<usize> {
    // SAFETY: pointer and length belong to `buffer`.
    retry(|| check_len(unsafe { libc::recv(fd, buffer.as_mut_ptr().cast(), buffer.len(), flags) }))
}

/// recv(2) into possibly uninitialised memory; reports EINTR.
pub fn recv_once(fd: RawFd, buffer: &mut [MaybeUninit<u8>], flags: i32) -> io::Result<usize> {
    // SAFETY: pointer and length belong to `buffer`, which is only written to.
    check_len(unsafe { libc::recv(fd, buffer.as_mut_ptr().cast(), buffer.len(), flags) })
}

/// Discards `count` bytes that were already seen with MSG_PEEK, and so are there without waiting.
pub fn discard(fd: RawFd, count: usize) -> io::Result<()> {
    let mut waste = [0; 512];
    let mut left = count;
    while left > 0 {
        let want = left.min(waste.len());
        match recv(fd, waste.get_mut(..want).unwrap_or_default(), super::MSG_DONTWAIT)? {
            0 => break,
            got => left -= got,
        }
    }
    Ok(())
}

/// send(2) without SIGPIPE; reports EINTR.
pub fn send_once(fd: RawFd, bytes: &[u8], flags: i32) -> io::Result<usize> {
    // SAFETY: pointer and length belong to `bytes`.
    check_len(unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), flags | MSG_NOSIGNAL) })
}

/// send(2) without SIGPIPE and without blocking.
pub fn send_now(fd: RawFd, bytes: &[u8]) -> io::Result<usize> {
    retry(|| send_once(fd, bytes, MSG_DONTWAIT))
}

/// Whether an error only means that the call would have blocked.
pub fn would_block(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

/// Where a bridge listens: the address to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// TCP over IPv4 or IPv6.
    Tcp(SocketAddr),
    /// A unix domain socket.
    Unix(std::path::PathBuf),
}

/// A socket address in the system's form.
pub(super) struct RawAddress {
    pub storage: libc::sockaddr_storage,
    pub len: libc::socklen_t,
    pub family: libc::c_int,
}

pub(super) fn raw_address(place: &Place) -> io::Result<RawAddress> {
    // SAFETY: all-zero is a valid sockaddr_storage.
    let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let target = ptr::addr_of_mut!(storage);
    let (family, len) = match place {
        Place::Tcp(SocketAddr::V4(v4)) => {
            let raw = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                sin_zero: [0; 8],
            };
            // SAFETY: sockaddr_storage is large and aligned enough for any socket address.
            unsafe { ptr::write(target.cast(), raw) };
            (libc::AF_INET, std::mem::size_of::<libc::sockaddr_in>())
        }
        Place::Tcp(SocketAddr::V6(v6)) => {
            let raw = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: v6.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                sin6_scope_id: v6.scope_id(),
            };
            // SAFETY: as above.
            unsafe { ptr::write(target.cast(), raw) };
            (libc::AF_INET6, std::mem::size_of::<libc::sockaddr_in6>())
        }
        Place::Unix(path) => (libc::AF_UNIX, write_unix(path, target)?),
    };
    Ok(RawAddress { storage, len: len as libc::socklen_t, family })
}

fn write_unix(path: &Path, target: *mut libc::sockaddr_storage) -> io::Result<usize> {
    use std::os::unix::ffi::OsStrExt;
    let bytes = path.as_os_str().as_bytes();
    // SAFETY: all-zero is a valid sockaddr_un.
    let mut raw: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    raw.sun_family = libc::AF_UNIX as libc::sa_family_t;
    if bytes.is_empty() || bytes.len() >= raw.sun_path.len() || bytes.contains(&0) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "unix socket path is empty or too long"));
    }
    for (to, from) in raw.sun_path.iter_mut().zip(bytes) {
        *to = *from as libc::c_char;
    }
    // SAFETY: sockaddr_storage is large and aligned enough for any socket address.
    unsafe { ptr::write(target.cast(), raw) };
    Ok(std::mem::size_of::<libc::sockaddr_un>())
}

/// Makes the system notice within a minute that the path to the other end is dead (a cable, a VPN, a power failure): no
/// end arrives then. The connection is probed after 30 s of silence, and dead when nothing was acknowledged for 30 s.
fn notice_dead_path(fd: RawFd) -> io::Result<()> {
    set_int(fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
    set_int(fd, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, 30)?;
    set_int(fd, libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, 10)?;
    // For data as well as for probes, however many of them there were.
    set_int(fd, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, 30_000)
}

/// Starts a connection without waiting for it. `true` means it is already established.
pub fn connect_start(place: &Place) -> io::Result<(OwnedFd, bool)> {
    let address = raw_address(place)?;
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: plain system call; the new descriptor is ours.
    let socket = unsafe { OwnedFd::from_raw_fd(check(libc::socket(address.family, kind, 0))?) };
    if matches!(place, Place::Tcp(_)) {
        set_int(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
        notice_dead_path(socket.as_raw_fd())?;
    }
    // SAFETY: the address outlives the call, and `len` is the length of the variant written into it.
    let result = unsafe { libc::connect(socket.as_raw_fd(), ptr::addr_of!(address.storage).cast(), address.len) };
    match check(result) {
        Ok(_) => Ok((socket, true)),
        // An interrupted connect continues in the background, like one in progress.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINPROGRESS | libc::EINTR)) => Ok((socket, false)),
        Err(error) => Err(error),
    }
}

/// Shuts down the sending half: the peer sees end of stream after everything that was sent.
pub fn end_sending(fd: RawFd) {
    // SAFETY: plain system call. It fails only if the connection is gone anyway.
    unsafe { libc::shutdown(fd, libc::SHUT_WR) };
}

/// Shuts down both halves; a listening socket stops listening. Unlike close, this affects every process that holds the
/// socket.
pub fn end_both(fd: RawFd) {
    // SAFETY: plain system call. It fails only if the connection is gone anyway.
    unsafe { libc::shutdown(fd, libc::SHUT_RDWR) };
}

/// Number of bytes received but not yet read (FIONREAD).
pub fn unread(fd: RawFd) -> io::Result<usize> {
    let mut value: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int.
    check(unsafe { libc::ioctl(fd, libc::FIONREAD, &mut value) })?;
    Ok(usize::try_from(value).unwrap_or(0))
}

/// Whether `fd` is a listening stream socket.
pub fn is_listening(fd: RawFd) -> io::Result<bool> {
    Ok(get_int(fd, libc::SOL_SOCKET, libc::SO_ACCEPTCONN)? != 0
        && get_int(fd, libc::SOL_SOCKET, libc::SO_TYPE)? == libc::SOCK_STREAM)
}

/// Whether `fd` is a stream socket that is not listening.
pub fn is_stream(fd: RawFd) -> io::Result<bool> {
    Ok(get_int(fd, libc::SOL_SOCKET, libc::SO_ACCEPTCONN)? == 0
        && get_int(fd, libc::SOL_SOCKET, libc::SO_TYPE)? == libc::SOCK_STREAM)
}

/// accept(2) on a socket we were given, without blocking whatever its flags; the accepted connection is non-blocking.
pub fn accept_now(fd: RawFd) -> io::Result<OwnedFd> {
    if super::poll_one(fd, super::IN, 0)? == 0 {
        return Err(io::Error::from(io::ErrorKind::WouldBlock));
    }
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: plain system call that is not asked for an address; the new descriptor is ours.
    retry(|| unsafe {
        check(libc::accept4(fd, ptr::null_mut(), ptr::null_mut(), flags)).map(|fd| OwnedFd::from_raw_fd(fd))
    })
}

/// Sends small writes at once (TCP_NODELAY); other kinds of socket do so anyway.
pub fn set_nodelay(fd: RawFd) {
    drop(set_int(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1));
}

/// Delivers urgent data in order within the normal stream (SO_OOBINLINE).
pub fn set_urgent_inline(fd: RawFd) {
    drop(set_int(fd, libc::SOL_SOCKET, libc::SO_OOBINLINE, 1));
}

/// Whether `fd` is a unix domain socket.
pub fn is_local(fd: RawFd) -> bool {
    // SAFETY: all-zero is a valid sockaddr_storage.
    let mut name: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let mut len = std::mem::size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    // SAFETY: name and length outlive the call.
    let result = check(unsafe { libc::getsockname(fd, ptr::addr_of_mut!(name).cast(), &mut len) });
    result.is_ok() && libc::c_int::from(name.ss_family) == libc::AF_UNIX
}

fn get_int(fd: RawFd, level: libc::c_int, name: libc::c_int) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut len = std::mem::size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: value and length outlive the call.
    check(unsafe { libc::getsockopt(fd, level, name, ptr::addr_of_mut!(value).cast(), &mut len) })?;
    Ok(value)
}

pub(super) fn set_int(fd: RawFd, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let len = std::mem::size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the value outlives the call.
    check(unsafe { libc::setsockopt(fd, level, name, ptr::addr_of!(value).cast(), len) }).map(drop)
}

/// Returns and clears the pending error of a socket (SO_ERROR), which is also the result of a started connect.
pub fn socket_error(fd: RawFd) -> io::Result<()> {
    let value = get_int(fd, libc::SOL_SOCKET, libc::SO_ERROR)?;
    if value == 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(value))
    }
}

/// A time limit on blocking receives (SO_RCVTIMEO).
#[derive(Clone, Copy)]
pub struct ReceiveTimeout(libc::timeval);

impl ReceiveTimeout {
    /// `None` means no limit.
    pub fn new(timeout: Option<std::time::Duration>) -> Self {
        // Zero would mean "no limit"; the shortest limit the system knows is a microsecond.
        let timeout = timeout.map_or(std::time::Duration::ZERO, |t| t.max(std::time::Duration::from_micros(1)));
        ReceiveTimeout(libc::timeval {
            tv_sec: timeout.as_secs().min(i32::MAX as u64) as libc::time_t,
            tv_usec: timeout.subsec_micros() as libc::suseconds_t,
        })
    }

    /// Reads the limit set on `fd`.
    pub fn of(fd: RawFd) -> io::Result<Self> {
        let mut value = ReceiveTimeout::new(None);
        let mut len = std::mem::size_of::<libc::timeval>() as libc::socklen_t;
        // SAFETY: value and length outlive the call.
        check(unsafe {
            libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_RCVTIMEO, ptr::addr_of_mut!(value.0).cast(), &mut len)
        })?;
        Ok(value)
    }

    /// Sets this limit on `fd`.
    pub fn set(&self, fd: RawFd) -> io::Result<()> {
        let len = std::mem::size_of::<libc::timeval>() as libc::socklen_t;
        // SAFETY: the value outlives the call.
        check(unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_RCVTIMEO, ptr::addr_of!(self.0).cast(), len) })
            .map(drop)
    }
}

/// Whether the open file description of `fd` has O_NONBLOCK set.
pub fn is_nonblocking(fd: RawFd) -> io::Result<bool> {
    // SAFETY: plain system call.
    Ok(check(unsafe { libc::fcntl(fd, libc::F_GETFL) })? & libc::O_NONBLOCK != 0)
}

/// Sets or clears O_NONBLOCK.
pub fn set_nonblocking(fd: RawFd, on: bool) -> io::Result<()> {
    let mut value = libc::c_int::from(on);
    // SAFETY: FIONBIO reads one int. This is one system call where fcntl needs two.
    check(unsafe { libc::ioctl(fd, libc::FIONBIO, &mut value) }).map(drop)
}

/// Number of bytes written to a socket that its other end has not taken yet (SIOCOUTQ).
pub fn unsent(fd: RawFd) -> io::Result<usize> {
    let mut value: libc::c_int = 0;
    // SAFETY: SIOCOUTQ (the same request as TIOCOUTQ) writes one int.
    check(unsafe { libc::ioctl(fd, libc::TIOCOUTQ, &mut value) })?;
    Ok(usize::try_from(value).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_connection_to_the_bridge_is_probed() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let (socket, _) = connect_start(&Place::Tcp(listener.local_addr().unwrap())).unwrap();
        let option = |level, name| get_int(socket.as_raw_fd(), level, name).unwrap();
        assert_eq!(option(libc::SOL_SOCKET, libc::SO_KEEPALIVE), 1);
        // Probed after 30 s, dead after another 30 without an acknowledgement: within a minute and a probe's interval.
        let tcp = |name| option(libc::IPPROTO_TCP, name);
        assert_eq!((tcp(libc::TCP_KEEPIDLE), tcp(libc::TCP_KEEPINTVL)), (30, 10));
        assert_eq!((tcp(libc::TCP_USER_TIMEOUT), tcp(libc::TCP_NODELAY)), (30_000, 1));
    }
}
