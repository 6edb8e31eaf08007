//! The few system calls `std` lacks. Besides `ffi` the only place with `unsafe`.
//!
//! Every function here is safe to call: descriptors come in as types that own or borrow them, lengths come from
//! slices, EINTR is retried (or, in [`poll`], reported to callers that own the deadline).
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::ptr;
use std::sync::atomic::{compiler_fence, AtomicBool, Ordering};

use parking_lot::Mutex;

/// Readable.
pub const IN: i16 = libc::POLLIN;
/// Writable.
pub const OUT: i16 = libc::POLLOUT;

/// Flags the stream functions understand; the system's values.
pub const MSG_DONTWAIT: i32 = libc::MSG_DONTWAIT;
/// See recv(2).
pub const MSG_PEEK: i32 = libc::MSG_PEEK;
/// See recv(2).
pub const MSG_WAITALL: i32 = libc::MSG_WAITALL;
/// See send(2).
pub const MSG_NOSIGNAL: i32 = libc::MSG_NOSIGNAL;
/// See send(2).
pub const MSG_MORE: i32 = libc::MSG_MORE;

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn check_len(result: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Retries `call` while it is interrupted by a signal.
fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// Overwrites `bytes` with zeros in a way the compiler may not leave out.
pub fn wipe(bytes: &mut [u8]) {
    for byte in bytes.iter_mut() {
        // SAFETY: `byte` is a valid, exclusive reference.
        unsafe { ptr::write_volatile(byte, 0) };
    }
    compiler_fence(Ordering::SeqCst);
}

/// Fills `bytes` with random numbers of the system, fit for identifiers nobody may guess.
pub fn random(bytes: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        // SAFETY: pointer and length belong to `rest`.
        filled += retry(|| check_len(unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) }))?;
    }
    Ok(())
}

/// A socket or event descriptor that several handles may use at once, and that may be given away.
///
/// Ending (`end`) wakes everybody who is blocked on it. Closing happens when the last user drops it, so its number is
/// never reused under somebody's feet.
#[derive(Debug)]
pub struct SharedFd {
    fd: RawFd,
    /// Guards "given away" against "shut down by number".
    taken: Mutex<bool>,
    ended: AtomicBool,
    carrying: AtomicBool,
}

impl SharedFd {
    /// Takes ownership of `fd`.
    pub fn new(fd: OwnedFd) -> Self {
        use std::os::fd::IntoRawFd;
        SharedFd {
            fd: fd.into_raw_fd(),
            taken: Mutex::new(false),
            ended: AtomicBool::new(false),
            carrying: AtomicBool::new(false),
        }
    }

    /// Marks the descriptor as ended and, if it is still ours, shuts the socket down in both directions.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Release);
        let taken = self.taken.lock();
        if !*taken {
            // SAFETY: plain system call on a descriptor that is open as long as `self` lives and is not taken.
            unsafe { libc::shutdown(self.fd, libc::SHUT_RDWR) };
        }
    }

    /// Whether `end` was called.
    pub fn is_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Says that the socket carries payload from now on.
    pub fn set_carrying(&self) {
        self.carrying.store(true, Ordering::Release);
    }

    /// Whether the socket carries payload.
    pub fn is_carrying(&self) -> bool {
        self.carrying.load(Ordering::Acquire)
    }

    /// Gives the descriptor away: from now on the caller closes it. `None` when it was given away before.
    pub fn take(&self) -> Option<RawFd> {
        let mut taken = self.taken.lock();
        (!std::mem::replace(&mut *taken, true)).then_some(self.fd)
    }

    /// Whether the descriptor was given away.
    pub fn is_taken(&self) -> bool {
        *self.taken.lock()
    }
}

impl AsRawFd for SharedFd {
    fn as_raw_fd(&self) -> RawFd {
        self.fd
    }
}

impl Drop for SharedFd {
    fn drop(&mut self) {
        if !*self.taken.get_mut() {
            // SAFETY: we own the descriptor and nobody else can use it any more.
            unsafe { libc::close(self.fd) };
        }
    }
}

/// A descriptor and the events asked of it, for [`poll`].
#[derive(Clone, Copy, Debug)]
pub struct PollFd {
    /// The descriptor; -1 is skipped.
    pub fd: RawFd,
    /// Events wanted.
    pub events: i16,
    /// Events seen.
    pub revents: i16,
}

/// poll(2): waits until one of `fds` has an event or `timeout_ms` has passed (-1: for ever). An interrupted wait is
/// reported as 0 events, so that the caller looks at its deadline again.
pub fn poll(fds: &mut [PollFd], timeout_ms: i32) -> io::Result<usize> {
    let mut raw: Vec<libc::pollfd> =
        fds.iter().map(|p| libc::pollfd { fd: p.fd, events: p.events, revents: 0 }).collect();
    // SAFETY: pointer and length belong to `raw`.
    let count = unsafe { libc::poll(raw.as_mut_ptr(), raw.len() as libc::nfds_t, timeout_ms) };
    match check(count) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
        Err(error) => Err(error),
        Ok(count) => {
            for (p, r) in fds.iter_mut().zip(&raw) {
                p.revents = r.revents;
            }
            Ok(count as usize)
        }
    }
}

/// poll(2) on one descriptor: the events seen, 0 when there were none.
pub fn poll_one(fd: RawFd, events: i16, timeout_ms: i32) -> io::Result<i16> {
    let mut fds = [PollFd { fd, events, revents: 0 }];
    poll(&mut fds, timeout_ms)?;
    Ok(fds[0].revents)
}

/// recv(2). 0 means end of stream (or an empty buffer).
pub fn recv(fd: RawFd, buffer: &mut [u8], flags: i32) -> io::Result<usize> {
    // SAFETY: pointer and length belong to `buffer`.
    retry(|| check_len(unsafe { libc::recv(fd, buffer.as_mut_ptr().cast(), buffer.len(), flags) }))
}

/// recv(2) into memory that need not be initialised; reports EINTR.
pub fn recv_once(fd: RawFd, buffer: &mut [MaybeUninit<u8>], flags: i32) -> io::Result<usize> {
    // SAFETY: pointer and length belong to `buffer`, which is only written to.
    check_len(unsafe { libc::recv(fd, buffer.as_mut_ptr().cast(), buffer.len(), flags) })
}

/// send(2) without SIGPIPE; reports EINTR.
pub fn send_once(fd: RawFd, bytes: &[u8], flags: i32) -> io::Result<usize> {
    // SAFETY: pointer and length belong to `bytes`.
    check_len(unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), flags | MSG_NOSIGNAL) })
}

/// send(2) without SIGPIPE and without waiting.
pub fn send_now(fd: RawFd, bytes: &[u8]) -> io::Result<usize> {
    retry(|| send_once(fd, bytes, MSG_DONTWAIT))
}

/// Whether a result means "would block".
pub fn would_block(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

/// Where a bridge listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// TCP over IPv4 or IPv6.
    Tcp(SocketAddr),
    /// A unix domain socket.
    Unix(std::path::PathBuf),
}

/// A socket address as the system wants it.
struct RawAddress {
    storage: libc::sockaddr_storage,
    len: libc::socklen_t,
    family: libc::c_int,
}

fn raw_address(place: &Place) -> io::Result<RawAddress> {
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
            // SAFETY: sockaddr_storage is large and aligned enough for every socket address.
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
    // SAFETY: sockaddr_storage is large and aligned enough for every socket address.
    unsafe { ptr::write(target.cast(), raw) };
    Ok(std::mem::size_of::<libc::sockaddr_un>())
}

/// Starts a connection without waiting for it. `true`: it is established already.
pub fn connect_start(place: &Place) -> io::Result<(OwnedFd, bool)> {
    let address = raw_address(place)?;
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: plain system call; the new descriptor is ours.
    let socket = unsafe { OwnedFd::from_raw_fd(check(libc::socket(address.family, kind, 0))?) };
    if matches!(place, Place::Tcp(_)) {
        set_int(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
    }
    // SAFETY: the address lives as long as the call and `len` is the length of the variant written into it.
    let result = unsafe { libc::connect(socket.as_raw_fd(), ptr::addr_of!(address.storage).cast(), address.len) };
    match check(result) {
        Ok(_) => Ok((socket, true)),
        // An interrupted connect goes on in the background, like one in progress.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINPROGRESS | libc::EINTR)) => Ok((socket, false)),
        Err(error) => Err(error),
    }
}

fn set_int(fd: RawFd, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let len = std::mem::size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the value lives as long as the call.
    check(unsafe { libc::setsockopt(fd, level, name, ptr::addr_of!(value).cast(), len) }).map(drop)
}

/// The pending error of a socket (SO_ERROR), which also tells whether a started connection was made.
pub fn socket_error(fd: RawFd) -> io::Result<()> {
    let mut value: libc::c_int = 0;
    let mut len = std::mem::size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: value and length live as long as the call.
    check(unsafe {
        libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_ERROR, ptr::addr_of_mut!(value).cast(), &mut len)
    })?;
    if value == 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(value))
    }
}

/// Bounds the next blocking receive of a socket (SO_RCVTIMEO); `None` lifts the bound.
pub fn set_receive_timeout(fd: RawFd, timeout: Option<std::time::Duration>) -> io::Result<()> {
    // Zero would mean "no bound": the shortest bound the system knows is a microsecond.
    let timeout = timeout.map_or(std::time::Duration::ZERO, |t| t.max(std::time::Duration::from_micros(1)));
    let value = libc::timeval {
        tv_sec: timeout.as_secs().min(i32::MAX as u64) as libc::time_t,
        tv_usec: timeout.subsec_micros() as libc::suseconds_t,
    };
    let len = std::mem::size_of::<libc::timeval>() as libc::socklen_t;
    // SAFETY: the value lives as long as the call.
    check(unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_RCVTIMEO, ptr::addr_of!(value).cast(), len) })
        .map(drop)
}

/// Whether the description behind `fd` has O_NONBLOCK.
pub fn is_nonblocking(fd: RawFd) -> io::Result<bool> {
    // SAFETY: plain system call.
    Ok(check(unsafe { libc::fcntl(fd, libc::F_GETFL) })? & libc::O_NONBLOCK != 0)
}

/// Sets or clears O_NONBLOCK.
pub fn set_nonblocking(fd: RawFd, on: bool) -> io::Result<()> {
    // SAFETY: plain system call.
    let flags = check(unsafe { libc::fcntl(fd, libc::F_GETFL) })?;
    let wanted = if on { flags | libc::O_NONBLOCK } else { flags & !libc::O_NONBLOCK };
    if wanted != flags {
        // SAFETY: plain system call.
        check(unsafe { libc::fcntl(fd, libc::F_SETFL, wanted) })?;
    }
    Ok(())
}

/// Bytes written to a socket that its other end has not taken yet (SIOCOUTQ).
pub fn unsent(fd: RawFd) -> io::Result<usize> {
    let mut value: libc::c_int = 0;
    // SAFETY: SIOCOUTQ (the same request as TIOCOUTQ) writes one int.
    check(unsafe { libc::ioctl(fd, libc::TIOCOUTQ, &mut value) })?;
    Ok(usize::try_from(value).unwrap_or(0))
}

/// An event descriptor: readable from `set` until `clear`.
#[derive(Debug)]
pub struct Wake(OwnedFd);

impl Wake {
    /// A new one, not readable.
    pub fn new() -> io::Result<Self> {
        // SAFETY: plain system call; the new descriptor is ours.
        let fd = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        // SAFETY: as above.
        Ok(Wake(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Makes it readable.
    pub fn set(&self) {
        let one: u64 = 1;
        // SAFETY: the value lives as long as the call. It can only fail when it is readable anyway.
        unsafe { libc::write(self.0.as_raw_fd(), ptr::addr_of!(one).cast(), 8) };
    }

    /// Makes it unreadable.
    pub fn clear(&self) {
        let mut value: u64 = 0;
        // SAFETY: the value lives as long as the call. It can only fail when it is not readable anyway.
        unsafe { libc::read(self.0.as_raw_fd(), ptr::addr_of_mut!(value).cast(), 8) };
    }
}

impl AsRawFd for Wake {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// One descriptor that is readable while any of several others has the events asked of it (epoll).
#[derive(Debug)]
pub struct Watch(OwnedFd);

impl Watch {
    /// A new one that watches nothing.
    pub fn new() -> io::Result<Self> {
        // SAFETY: plain system call; the new descriptor is ours.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: as above.
        Ok(Watch(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    fn control(&self, operation: libc::c_int, fd: RawFd, events: i16) -> io::Result<()> {
        let mut event = libc::epoll_event { events: events as u32, u64: 0 };
        // SAFETY: the event lives as long as the call.
        check(unsafe { libc::epoll_ctl(self.0.as_raw_fd(), operation, fd, &mut event) }).map(drop)
    }

    /// Watches `fd` as well.
    pub fn add(&self, fd: RawFd, events: i16) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, events)
    }

    /// Changes what is asked of `fd`.
    pub fn modify(&self, fd: RawFd, events: i16) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd, events)
    }

    /// Watches `fd` no longer.
    pub fn remove(&self, fd: RawFd) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_DEL, fd, 0)
    }
}

impl AsRawFd for Watch {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Knows whether this process is the one it was made in, without a system call each time.
///
/// One page that the kernel hands to a forked child as zeros (MADV_WIPEONFORK); where the kernel cannot do that, the
/// process number is compared.
#[derive(Debug)]
pub struct ForkGuard {
    page: *mut u8,
    pid: u32,
}

// SAFETY: the page is written once, before it is shared, and only read afterwards.
unsafe impl Send for ForkGuard {}
// SAFETY: as above.
unsafe impl Sync for ForkGuard {}

const PAGE: usize = 4096;

impl ForkGuard {
    /// Remembers the present process.
    pub fn new() -> Self {
        let pid = std::process::id();
        // SAFETY: an anonymous private mapping of one page; nothing else refers to it.
        let page = unsafe {
            libc::mmap(
                ptr::null_mut(),
                PAGE,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if page == libc::MAP_FAILED {
            return ForkGuard { page: ptr::null_mut(), pid };
        }
        // SAFETY: the mapping made above.
        if unsafe { libc::madvise(page, PAGE, libc::MADV_WIPEONFORK) } != 0 {
            // SAFETY: as above; it is not used again.
            unsafe { libc::munmap(page, PAGE) };
            return ForkGuard { page: ptr::null_mut(), pid };
        }
        // SAFETY: as above, writable.
        unsafe { ptr::write_volatile(page.cast::<u8>(), 1) };
        ForkGuard { page: page.cast(), pid }
    }

    /// Whether this is a child that inherited the guard by fork(2).
    pub fn in_child(&self) -> bool {
        if self.page.is_null() {
            return std::process::id() != self.pid;
        }
        // SAFETY: the mapping lives as long as `self`.
        unsafe { ptr::read_volatile(self.page) == 0 }
    }
}

impl Default for ForkGuard {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for ForkGuard {
    fn drop(&mut self) {
        if !self.page.is_null() {
            // SAFETY: the mapping made in `new`; nothing uses it any more.
            unsafe { libc::munmap(self.page.cast(), PAGE) };
        }
    }
}

/// Runs `start` with every signal blocked in this thread, so that a thread it creates never runs a program's handlers.
pub fn with_signals_blocked<T>(start: impl FnOnce() -> T) -> T {
    // SAFETY: all-zero is a valid sigset_t to be overwritten; both sets live as long as the calls.
    let mut all: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    let mut before: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    unsafe {
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
    }
    let result = start();
    // SAFETY: `before` was filled above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &before, ptr::null_mut()) };
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wake_is_readable_from_set_until_clear() {
        let wake = Wake::new().unwrap();
        assert_eq!(poll_one(wake.as_raw_fd(), IN, 0).unwrap(), 0);
        wake.set();
        wake.set();
        assert_eq!(poll_one(wake.as_raw_fd(), IN, 0).unwrap(), IN);
        wake.clear();
        assert_eq!(poll_one(wake.as_raw_fd(), IN, 0).unwrap(), 0);
    }

    #[test]
    fn watch_is_readable_while_a_watched_descriptor_is() {
        let (watch, wake) = (Watch::new().unwrap(), Wake::new().unwrap());
        watch.add(wake.as_raw_fd(), IN).unwrap();
        assert_eq!(poll_one(watch.as_raw_fd(), IN, 0).unwrap(), 0);
        wake.set();
        assert_eq!(poll_one(watch.as_raw_fd(), IN, 0).unwrap(), IN);
        watch.remove(wake.as_raw_fd()).unwrap();
        assert_eq!(poll_one(watch.as_raw_fd(), IN, 0).unwrap(), 0);
    }

    #[test]
    fn a_taken_descriptor_is_neither_shut_nor_closed() {
        use std::io::{Read, Write};
        let (a, mut b) = std::os::unix::net::UnixStream::pair().unwrap();
        let shared = SharedFd::new(a.into());
        let fd = shared.take().unwrap();
        assert!(shared.take().is_none());
        shared.end();
        drop(shared);
        // SAFETY: given away above.
        let mut a = std::os::unix::net::UnixStream::from(unsafe { OwnedFd::from_raw_fd(fd) });
        a.write_all(b"x").unwrap();
        let mut one = [0];
        b.read_exact(&mut one).unwrap();
        assert_eq!(&one, b"x");
    }

    #[test]
    fn the_fork_guard_tells_parent_from_child() {
        let guard = ForkGuard::new();
        assert!(!guard.in_child());
        // SAFETY: the child only reads memory and leaves at once.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: leaves without running destructors of the parent's threads.
            unsafe { libc::_exit(if guard.in_child() { 42 } else { 1 }) };
        }
        let mut status = 0;
        // SAFETY: waits for the child made above.
        unsafe { libc::waitpid(child, &mut status, 0) };
        assert_eq!(libc::WEXITSTATUS(status), 42);
    }

    #[test]
    fn random_numbers_differ() {
        let (mut a, mut b) = ([0; 16], [0; 16]);
        random(&mut a).unwrap();
        random(&mut b).unwrap();
        assert_ne!(a, b);
    }
}
