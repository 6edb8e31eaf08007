//! Linux: wake-ups by eventfd(2), descriptor sets by epoll(7).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use super::{poll_one, IN};
use crate::sys::check;
use crate::sys::lock::assert_none_held;
use crate::sys::shared_fd::SharedFd;

/// An event descriptor: readable from `set` until `clear`.
#[derive(Debug)]
pub struct Wake(SharedFd);

impl Wake {
    pub fn new() -> io::Result<Self> {
        // SAFETY: plain system call; the new descriptor is ours.
        let fd = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        // SAFETY: as above.
        Ok(Wake(SharedFd::new(unsafe { OwnedFd::from_raw_fd(fd) })))
    }

    pub fn set(&self) {
        let one: u64 = 1;
        // SAFETY: the value outlives the call. It can only fail if the descriptor is readable already.
        unsafe { libc::write(self.as_raw_fd(), ptr::addr_of!(one).cast(), 8) };
    }

    pub fn clear(&self) {
        let mut value: u64 = 0;
        // SAFETY: the value outlives the call. It can only fail if the descriptor is not readable anyway.
        unsafe { libc::read(self.as_raw_fd(), ptr::addr_of_mut!(value).cast(), 8) };
    }

    pub fn is_set(&self) -> bool {
        poll_one(self.as_raw_fd(), IN, 0).is_ok_and(|events| events != 0)
    }

    /// For a child of fork(2): closes it now; any other users stayed in the parent.
    pub fn abandon(&self) {
        self.0.abandon();
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Wake {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// One descriptor that is readable while any of the watched ones has its requested events (epoll).
#[derive(Debug)]
pub struct Watch(SharedFd);

impl Watch {
    pub fn new() -> io::Result<Self> {
        // SAFETY: plain system call; the new descriptor is ours.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: as above.
        Ok(Watch(SharedFd::new(unsafe { OwnedFd::from_raw_fd(fd) })))
    }

    fn control(&self, operation: libc::c_int, fd: &impl AsFd, events: i16) -> io::Result<()> {
        // In a child of fork(2) the open file description is shared with the parent, so leave it alone.
        if self.0.is_taken() {
            return Ok(());
        }
        let mut event = libc::epoll_event { events: events as u32, u64: 0 };
        let fd = fd.as_fd().as_raw_fd();
        // SAFETY: the event outlives the call.
        check(unsafe { libc::epoll_ctl(self.0.as_raw_fd(), operation, fd, &mut event) }).map(drop)
    }

    /// Starts watching `fd`.
    pub fn add(&self, fd: &impl AsFd, events: i16) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, events)
    }

    /// Changes the events `fd` is watched for.
    pub fn modify(&self, fd: &impl AsFd, events: i16) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd, events)
    }

    /// Adds `fd`, or changes its events if it is already watched.
    pub fn set(&self, fd: &impl AsFd, events: i16) -> io::Result<()> {
        match self.modify(fd, events) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => self.add(fd, events),
            other => other,
        }
    }

    /// Stops watching `fd`. Call this while it is still open: if a child of fork(2) holds the same description, closing
    /// it here would leave it watched.
    pub fn remove(&self, fd: &impl AsFd) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_DEL, fd, 0)
    }

    /// For a child of fork(2): closes it now; any other users stayed in the parent.
    pub fn abandon(&self) {
        self.0.abandon();
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Watch {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// A ready descriptor, as reported by [`Selector::wait`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ready {
    /// The token it was added with.
    pub token: u64,
    /// It has an error; an orderly end does not count.
    pub broken: bool,
    pub urgent: bool,
}

impl Ready {
    fn new(token: u64, events: u32) -> Self {
        let has = |event: libc::c_int| events & event as u32 != 0;
        Ready { token, broken: has(libc::EPOLLERR), urgent: has(libc::EPOLLPRI) }
    }
}

/// An epoll set for our own threads: many descriptors, each with a token.
#[derive(Debug)]
pub(crate) struct Selector(SharedFd);

impl Selector {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: plain system call; the new descriptor is ours.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: as above.
        Ok(Selector(SharedFd::new(unsafe { OwnedFd::from_raw_fd(fd) })))
    }

    /// Watches `fd` in both directions, edge-triggered: reports when something becomes possible that was not before.
    pub(crate) fn add_changes(&self, fd: RawFd, token: u64) -> io::Result<()> {
        let events = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLPRI | libc::EPOLLRDHUP | libc::EPOLLET;
        self.add_events(fd, token, events as u32)
    }

    /// Watches `fd` level-triggered: reports it for as long as it has one of `events`.
    pub(crate) fn add(&self, fd: RawFd, token: u64, events: i16) -> io::Result<()> {
        self.add_events(fd, token, events as u32)
    }

    fn add_events(&self, fd: RawFd, token: u64, events: u32) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, libc::epoll_event { events, u64: token })
    }

    fn control(&self, operation: libc::c_int, fd: RawFd, mut event: libc::epoll_event) -> io::Result<()> {
        // In a child of fork(2) the open file description is shared with the parent, so leave it alone.
        if self.0.is_taken() {
            return Ok(());
        }
        // SAFETY: the event outlives the call.
        check(unsafe { libc::epoll_ctl(self.0.as_raw_fd(), operation, fd, &mut event) }).map(drop)
    }

    /// Stops watching `fd`. Call this before closing it, as a child of fork(2) may hold it too.
    pub(crate) fn remove(&self, fd: RawFd) {
        // It fails only if `fd` is not in the set.
        drop(self.control(libc::EPOLL_CTL_DEL, fd, libc::epoll_event { events: 0, u64: 0 }));
    }

    /// For a child of fork(2): closes it now; any other users stayed in the parent.
    pub(crate) fn abandon(&self) {
        self.0.abandon();
    }

    /// Waits up to `timeout_ms` (-1: forever) and stores what is ready in `ready`, which is empty after an interrupted
    /// wait.
    pub(crate) fn wait(&self, ready: &mut Vec<Ready>, timeout_ms: i32) -> io::Result<()> {
        if timeout_ms != 0 {
            assert_none_held("a wait");
        }
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 256];
        ready.clear();
        // SAFETY: pointer and length belong to `events`.
        let result = check(unsafe { libc::epoll_wait(self.0.as_raw_fd(), events.as_mut_ptr(), 256, timeout_ms) });
        match result {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(error),
            Ok(count) => {
                ready.extend(events.iter().take(count as usize).map(|event| Ready::new(event.u64, event.events)));
                Ok(())
            }
        }
    }
}
