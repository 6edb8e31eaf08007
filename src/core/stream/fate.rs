//! How a stream has ended. The system tells of a reset once, to whichever call meets it first, and of an orderly end from
//! then on, so that a transfer that was cut off looks whole.

use std::io;
use std::sync::atomic::{AtomicI32, Ordering};

/// What is known about the end of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fated {
    /// All the peer sent has arrived.
    Ended,
    /// It was cut off; the errno of that.
    Reset(i32),
}

/// The first end that a call has met; later ones change nothing.
#[derive(Default)]
pub(super) struct Fate(AtomicI32);

const OPEN: i32 = 0;
const ENDED: i32 = -1;

impl Fate {
    pub(super) fn get(&self) -> Option<Fated> {
        match self.0.load(Ordering::Acquire) {
            OPEN => None,
            ENDED => Some(Fated::Ended),
            code => Some(Fated::Reset(code)),
        }
    }

    pub(super) fn set(&self, fated: Fated) {
        let new = match fated {
            Fated::Ended => ENDED,
            Fated::Reset(code) => code,
        };
        let _ = self.0.compare_exchange(OPEN, new, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Keeps the reset in what a system call returned. EPIPE is not one: the peer has ended in order, and we went on.
    pub(super) fn note(&self, result: io::Result<usize>) -> io::Result<usize> {
        let resets = [libc::ECONNRESET, libc::ECONNABORTED, libc::ETIMEDOUT];
        if let Some(code) = result.as_ref().err().and_then(io::Error::raw_os_error).filter(|code| resets.contains(code))
        {
            self.set(Fated::Reset(code));
        }
        result
    }
}
