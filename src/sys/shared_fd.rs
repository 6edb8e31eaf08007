//! A descriptor with several users.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::sys::lock::{Rank, RankedMutex};

/// A socket or event descriptor that several handles may use at once, and that may be given away.
///
/// Ending (`end`) wakes everybody who is blocked on it. Closing happens when the last user drops it, so its number is
/// never reused under somebody's feet.
#[derive(Debug)]
pub struct SharedFd {
    fd: RawFd,
    taken: AtomicBool,
    /// Guards "given away" against "shut down by number".
    giving: RankedMutex<()>,
    ended: AtomicBool,
    carrying: AtomicBool,
}

impl SharedFd {
    /// Takes ownership of `fd`.
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

    /// Marks the descriptor as ended and, if it is still ours, shuts the socket down in both directions.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Release);
        let _giving = self.giving.lock();
        if !self.is_taken() {
            // SAFETY: plain system call on a descriptor that is open as long as `self` lives and is not taken.
            unsafe { libc::shutdown(self.fd, libc::SHUT_RDWR) };
        }
    }

    /// In a child of fork(2), where there are no other users: closes our copy now. Takes no lock, since the thread that
    /// held it is not here.
    pub fn abandon(&self) {
        if !self.taken.swap(true, Ordering::AcqRel) {
            // SAFETY: it is ours, and marked as given away before it is closed.
            unsafe { libc::close(self.fd) };
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
        let _giving = self.giving.lock();
        (!self.taken.swap(true, Ordering::AcqRel)).then_some(self.fd)
    }

    /// Whether the descriptor was given away. Never waits: in a child of fork(2) somebody may have had the lock for ever.
    pub fn is_taken(&self) -> bool {
        self.taken.load(Ordering::Acquire)
    }
}

impl AsFd for SharedFd {
    /// Open as long as this lives, unless it was given away: then the number is the new owner's business.
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: see above; a descriptor that was given away is not used any more by this library.
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
            // SAFETY: we own the descriptor and nobody else can use it any more.
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
