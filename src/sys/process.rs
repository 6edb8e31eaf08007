//! Wiping memory, random bytes, the time since the machine was started, and signal masks of new threads.

use std::io;
use std::ptr;
use std::time::Duration;

use crate::sys::{check_len, retry};

/// Overwrites `bytes` with zeros. The C library promises that this is not optimised away, and it is as quick as
/// memset.
pub(crate) fn wipe(bytes: &mut [u8]) {
    // SAFETY: pointer and length belong to `bytes`, which is exclusive.
    unsafe { libc::explicit_bzero(bytes.as_mut_ptr().cast(), bytes.len()) };
}

/// Fills `bytes` from the system's random generator; good enough for ids that must be unguessable.
pub(crate) fn random(bytes: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        // SAFETY: pointer and length belong to `rest`.
        filled += retry(|| check_len(unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) }))?;
    }
    Ok(())
}

/// The time since the machine was started, time asleep included: the same clock for every process.
pub(crate) fn boot_clock() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the value outlives the call.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut time) };
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// Runs `start` with every signal blocked in this thread, so that a thread it spawns never runs the program's signal
/// handlers.
pub(crate) fn with_signals_blocked<T>(start: impl FnOnce() -> T) -> T {
    // SAFETY: all-zero is a valid sigset_t to be overwritten; both sets outlive the calls.
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
    fn random_numbers_differ() {
        let (mut a, mut b) = ([0; 16], [0; 16]);
        random(&mut a).unwrap();
        random(&mut b).unwrap();
        assert_ne!(a, b);
    }
}
