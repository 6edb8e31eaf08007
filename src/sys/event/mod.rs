//! Waiting for descriptors: poll(2), wake-ups between threads, and sets of descriptors; nothing here knows what a
//! descriptor is for. What poll cannot do is in one file per system.

use std::io;
use std::os::fd::RawFd;

use crate::sys::check;
use crate::sys::lock::assert_none_held;

mod linux;

pub(crate) use linux::{Ready, Selector, Wake, Watch};

/// There is something to read, or the end.
pub const IN: i16 = libc::POLLIN;
/// A write would not block.
pub const OUT: i16 = libc::POLLOUT;
/// The descriptor has an error; reported even if not asked for.
pub const ERR: i16 = libc::POLLERR;
/// The other end has stopped sending.
pub(crate) const RDHUP: i16 = libc::POLLRDHUP;
/// Shut down in both directions; reported even if not asked for.
pub(crate) const HUP: i16 = libc::POLLHUP;

/// A descriptor, the events requested and the events seen; poll skips descriptor -1.
pub use libc::pollfd as PollFd;

/// poll(2): waits until one of `fds` has an event or `timeout_ms` has passed (-1: forever). An interrupted wait returns
/// 0 events, so that the caller checks its deadline again.
pub fn poll(fds: &mut [PollFd], timeout_ms: i32) -> io::Result<usize> {
    if timeout_ms != 0 {
        assert_none_held("a wait");
    }
    for fd in fds.iter_mut() {
        fd.revents = 0;
    }
    // SAFETY: pointer and length belong to `fds`.
    match check(unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, timeout_ms) }) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
        Err(error) => Err(error),
        Ok(count) => Ok(count as usize),
    }
}

/// poll(2) on one descriptor: returns the events seen, 0 for none.
pub fn poll_one(fd: RawFd, events: i16, timeout_ms: i32) -> io::Result<i16> {
    let mut fds = [PollFd { fd, events, revents: 0 }];
    poll(&mut fds, timeout_ms)?;
    Ok(fds[0].revents)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

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
        watch.add(&wake, IN).unwrap();
        assert_eq!(poll_one(watch.as_raw_fd(), IN, 0).unwrap(), 0);
        wake.set();
        assert_eq!(poll_one(watch.as_raw_fd(), IN, 0).unwrap(), IN);
        watch.remove(&wake).unwrap();
        assert_eq!(poll_one(watch.as_raw_fd(), IN, 0).unwrap(), 0);
    }
}
