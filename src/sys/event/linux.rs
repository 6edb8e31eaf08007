//! eventfd(2) and epoll(7).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use super::{poll_one, IN};
use crate::sys::check;
use crate::sys::shared_fd::SharedFd;

/// An event descriptor: readable from `set` until `clear`.
#[derive(Debug)]
pub struct Wake(SharedFd);

impl Wake {
    /// A new one, not readable.
    pub fn new() -> io::Result<Self> {
        // SAFETY: plain system call; the new descriptor is ours.
        let fd = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        // SAFETY: as above.
        Ok(Wake(SharedFd::new(unsafe { OwnedFd::from_raw_fd(fd) })))
    }

    /// Makes it readable.
    pub fn set(&self) {
        let one: u64 = 1;
        // SAFETY: the value lives as long as the call. It can only fail when it is readable anyway.
        unsafe { libc::write(self.as_raw_fd(), ptr::addr_of!(one).cast(), 8) };
    }

    /// Makes it unreadable.
    pub fn clear(&self) {
        let mut value: u64 = 0;
        // SAFETY: the value lives as long as the call. It can only fail when it is not readable anyway.
        unsafe { libc::read(self.as_raw_fd(), ptr::addr_of_mut!(value).cast(), 8) };
    }

    /// Whether it is readable.
    pub fn is_set(&self) -> bool {
        poll_one(self.as_raw_fd(), IN, 0).is_ok_and(|events| events != 0)
    }

    /// In a child of fork(2): closes it, whoever seems to use it.
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

/// One descriptor that is readable while any of several others has the events asked of it (epoll).
#[derive(Debug)]
pub struct Watch(SharedFd);

impl Watch {
    /// A new one that watches nothing.
    pub fn new() -> io::Result<Self> {
        // SAFETY: plain system call; the new descriptor is ours.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: as above.
        Ok(Watch(SharedFd::new(unsafe { OwnedFd::from_raw_fd(fd) })))
    }

    fn control(&self, operation: libc::c_int, fd: &impl AsFd, events: i16) -> io::Result<()> {
        // In a child of fork(2) the description is the parent's, and is left as it is.
        if self.0.is_taken() {
            return Ok(());
        }
        let mut event = libc::epoll_event { events: events as u32, u64: 0 };
        let fd = fd.as_fd().as_raw_fd();
        // SAFETY: the event lives as long as the call.
        check(unsafe { libc::epoll_ctl(self.0.as_raw_fd(), operation, fd, &mut event) }).map(drop)
    }

    /// Watches `fd` as well.
    pub fn add(&self, fd: &impl AsFd, events: i16) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, events)
    }

    /// Changes what is asked of `fd`.
    pub fn modify(&self, fd: &impl AsFd, events: i16) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd, events)
    }

    /// Watches `fd` for these events, whether it was watched before or not.
    pub fn set(&self, fd: &impl AsFd, events: i16) -> io::Result<()> {
        match self.modify(fd, events) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => self.add(fd, events),
            other => other,
        }
    }

    /// Watches `fd` no longer. To be called while it is open: a child of fork(2) may have the description too, and then
    /// closing it here would leave it watched.
    pub fn remove(&self, fd: &impl AsFd) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_DEL, fd, 0)
    }

    /// In a child of fork(2): closes it, whoever seems to use it.
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

/// One of the descriptors of a [`Selector`] is ready.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ready {
    /// What it was added with.
    pub token: u64,
    /// It is broken; an end in good order is not told here.
    pub broken: bool,
    /// It has urgent data.
    pub urgent: bool,
}

impl Ready {
    fn new(token: u64, events: u32) -> Self {
        let has = |event: libc::c_int| events & event as u32 != 0;
        Ready { token, broken: has(libc::EPOLLERR), urgent: has(libc::EPOLLPRI) }
    }
}

/// Many descriptors to wait for, each with a token (epoll).
#[derive(Debug)]
pub(crate) struct Selector(OwnedFd);

impl Selector {
    /// A new one without descriptors.
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: plain system call; the new descriptor is ours.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: as above.
        Ok(Selector(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Tells whenever something becomes possible on `fd` that was not possible before, in either direction.
    pub(crate) fn add_changes(&self, fd: RawFd, token: u64) -> io::Result<()> {
        let events = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLPRI | libc::EPOLLRDHUP | libc::EPOLLET;
        self.add_events(fd, token, events as u32)
    }

    /// Tells as long as `fd` has one of `events`.
    pub(crate) fn add(&self, fd: RawFd, token: u64, events: i16) -> io::Result<()> {
        self.add_events(fd, token, events as u32)
    }

    fn add_events(&self, fd: RawFd, token: u64, events: u32) -> io::Result<()> {
        let mut event = libc::epoll_event { events, u64: token };
        // SAFETY: the event lives as long as the call.
        check(unsafe { libc::epoll_ctl(self.0.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &mut event) }).map(drop)
    }

    /// Tells nothing about `fd` any more. To be called before it is closed: a child of fork(2) may have it, too.
    pub(crate) fn remove(&self, fd: RawFd) {
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        // SAFETY: the event lives as long as the call. It fails only when it is not in there.
        unsafe { libc::epoll_ctl(self.0.as_raw_fd(), libc::EPOLL_CTL_DEL, fd, &mut event) };
    }

    /// Waits up to `timeout_ms` (-1: for ever) and writes what is ready to `ready`. An interrupted wait finds nothing.
    pub(crate) fn wait(&self, ready: &mut Vec<Ready>, timeout_ms: i32) -> io::Result<()> {
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
