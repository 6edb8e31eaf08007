//! A descriptor shared by several handles and threads.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::sys::lock::{Rank, RankedMutex};

/// A socket or event descriptor that several handles may use at once and that can be given away.
///
/// `end` wakes every thread blocked on it. It is closed when the last user drops it, so its number is never reused
/// while one of them might still use it.
#[derive(Debug)]
pub struct SharedFd {
    fd: RawFd,
    taken: AtomicBool,
    /// Keeps `end` from shutting the number down after `take` has given it away.
    giving: RankedMutex<()>,
    ended: AtomicBool,
    carrying: AtomicBool,
}

impl SharedFd {
    /// Takes ownership of `fd`; the last user's drop closes it, unless it is given away.
    pub fn new(fd: OwnedFd) -> Self {
        use std::os::fd::IntoRawFd;
        SharedFd {
            fd: fd.into_raw_fd(),
            taken: AtomicBool::new(false),
            giving: RankedMutex::new(Rank::SharedFd, ()),
            ended: AtomicBool::new(false),
            carrying: AtomicBool::new(false),
        }
    }

    /// Marks the descriptor as ended and, if it is still ours, shuts down the socket in both directions.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Release);
        let _giving = self.giving.lock();
        if !self.is_taken() {
            // SAFETY: plain system call on a descriptor that stays open until `self` is dropped or it is taken.
            unsafe { libc::shutdown(self.fd, libc::SHUT_RDWR) };
        }
    }

    /// For a child of fork(2), where there are no other users: closes our copy now. Takes no lock, since a thread that
    /// held it in the parent does not exist here.
    pub fn abandon(&self) {
        if !self.taken.swap(true, Ordering::AcqRel) {
            // SAFETY: it is ours, and was marked as given away before closing.
            unsafe { libc::close(self.fd) };
        }
    }

    /// Whether [`SharedFd::end`] was called.
    pub fn is_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Records that the socket carries payload from now on.
    pub fn set_carrying(&self) {
        self.carrying.store(true, Ordering::Release);
    }

    /// Whether [`SharedFd::set_carrying`] was called.
    pub fn is_carrying(&self) -> bool {
        self.carrying.load(Ordering::Acquire)
    }

    /// Gives the descriptor away: from now on closing it is up to the caller. `None` if it was given away before.
    pub fn take(&self) -> Option<RawFd> {
        let _giving = self.giving.lock();
        (!self.taken.swap(true, Ordering::AcqRel)).then_some(self.fd)
    }

    /// Whether the descriptor was given away. Takes no lock: in a child of fork(2) it may be locked forever by a thread
    /// of the parent.
    pub fn is_taken(&self) -> bool {
        self.taken.load(Ordering::Acquire)
    }
}

impl AsFd for SharedFd {
    /// Open until `self` is dropped, unless it was given away: then the number belongs to the new owner.
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: see above; this library no longer uses a descriptor that was given away.
        unsafe { BorrowedFd::borrow_raw(self.fd) }
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
            // SAFETY: we own the descriptor and were its last user.
            unsafe { libc::close(self.fd) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::FromRawFd;

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
}
