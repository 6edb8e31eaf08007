//! send and recv with a time limit, which the system calls lack.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::time::Instant;

use crate::core::drive::{passed, poll_timeout, Deadline};
use crate::error::{Error, Result};
use crate::sys::{self, ReceiveTimeout};

/// Rejects flags other than `known`.
pub(super) fn check_flags(flags: i32, known: i32) -> Result<()> {
    if flags & !known == 0 {
        Ok(())
    } else {
        Err(Error::invalid(format!("flags {flags:#x} are not among those a stream knows")))
    }
}

/// Repeats `call` until it has moved some bytes (with `all`: `want` bytes). With a limit, `call` must not block, and
/// waiting is done here. Without one, `call` blocks if the descriptor does, and is repeated if a signal cut it short.
/// Bytes moved before a timeout or error are never lost: their number is returned, and the next call gets the error
/// again.
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
                // If we may not wait, a part is all there is for now.
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

/// MSG_PEEK with MSG_WAITALL and a time limit: only the system itself can wait for a full buffer while peeking.
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
