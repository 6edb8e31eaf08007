//! send and recv with a time limit, which the system's calls do not have.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::time::Instant;

use crate::core::drive::{passed, poll_timeout, Deadline};
use crate::error::{Error, Result};
use crate::sys::{self, ReceiveTimeout};

/// Refuses flags that are not among `known`.
pub(super) fn check_flags(flags: i32, known: i32) -> Result<()> {
    if flags & !known == 0 {
        Ok(())
    } else {
        Err(Error::invalid(format!("flags {flags:#x} are not among those a stream knows")))
    }
}

/// Moves bytes until there are some (`all`: until there are `want`). With a limit `call` does not block and waiting is
/// done here; without one `call` blocks as the descriptor does, and is repeated when a signal has cut it short. What was
/// moved before a limit or error is never lost: it is returned, and the next call meets the error again.
pub(super) fn move_until(
    fd: RawFd,
    events: i16,
    flags: i32,
    limit: Option<Deadline>,
    want: usize,
    all: bool,
    call: &mut dyn FnMut(usize) -> io::Result<usize>,
) -> io::Result<usize> {
    let mut done = 0;
    loop {
        let stop = match sys::retry(|| call(done)) {
            Ok(0) => Ok(done),
            Ok(count) => {
                done += count;
                // Without waiting, a part is all there is for now.
                if done < want && all && flags & sys::MSG_DONTWAIT == 0 {
                    continue;
                }
                Ok(done)
            }
            Err(error) if !sys::would_block(&error) => Err(error),
            Err(error) => match (limit, Instant::now()) {
                (None, _) => Err(error),
                (Some(_), _) if flags & sys::MSG_DONTWAIT != 0 || sys::is_nonblocking(fd)? => Err(error),
                (Some(deadline), now) if passed(deadline, now) => Err(io::Error::from(io::ErrorKind::TimedOut)),
                (Some(deadline), now) => {
                    sys::poll_one(fd, events, poll_timeout(deadline, now))?;
                    continue;
                }
            },
        };
        return if done > 0 { Ok(done) } else { stop };
    }
}

/// Looking at a full buffer can only be waited for by the system itself.
pub(super) fn peek_all(fd: RawFd, buffer: &mut [MaybeUninit<u8>], flags: i32, deadline: Deadline) -> io::Result<usize> {
    if flags & sys::MSG_DONTWAIT != 0 || sys::is_nonblocking(fd)? {
        return sys::retry(|| sys::recv_once(fd, buffer, flags));
    }
    let before = ReceiveTimeout::of(fd)?;
    let result = sys::retry(|| {
        let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        ReceiveTimeout::new(left).set(fd)?;
        sys::recv_once(fd, buffer, flags)
    });
    before.set(fd)?;
    match result {
        Err(error) if sys::would_block(&error) => Err(io::Error::from(io::ErrorKind::TimedOut)),
        result => result,
    }
}
