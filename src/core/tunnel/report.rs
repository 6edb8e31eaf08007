//! What a tunnel reports: counters and errors.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;

use crate::core::destination::State;
use crate::error::Error;
use crate::sys::lock::RankedMutex;
use crate::sys::Wake;

/// Maximum number of connection errors kept.
const ERRORS: usize = 16;

/// Counters of a tunnel.
#[derive(Debug, Default)]
pub struct Counts {
    /// Connections currently open.
    pub now: AtomicU64,
    /// Connections received.
    pub total: AtomicU64,
    /// Connections whose other side could not be set up.
    pub failed: AtomicU64,
    /// Connections that could not be taken, for example for lack of descriptors.
    pub refused: AtomicU64,
    /// Connections ended by a time limit.
    pub expired: AtomicU64,
    /// Bytes moved from the receiving side to the other.
    pub bytes_out: AtomicU64,
    /// Bytes moved to the receiving side.
    pub bytes_in: AtomicU64,
}

/// State shared by a tunnel's thread and its handle.
pub(super) struct Shared {
    pub counts: Counts,
    /// Wakes the thread.
    pub wake: Wake,
    /// Tells the thread to end.
    pub stop: AtomicBool,
    /// Readable when there is something new to report to the program.
    pub news: Arc<Wake>,
    pub unheard: RankedMutex<Unheard>,
}

/// What was not reported to the program yet.
pub(super) struct Unheard {
    /// Connection errors, the oldest first.
    pub errors: VecDeque<Error>,
    /// The destination's state as last reported.
    pub told: State,
}

impl Shared {
    /// Keeps the error of a connection for the program to fetch.
    pub(super) fn remember(&self, error: Error) {
        self.remember_and(error, || ());
    }

    /// Keeps an error and counts it, both under the lock: a program that sees one of the two also finds the other.
    pub(super) fn remember_and_count(&self, error: Error, counter: &AtomicU64) {
        self.remember_and(error, || {
            counter.fetch_add(1, Ordering::Release);
        });
    }

    fn remember_and(&self, error: Error, then: impl FnOnce()) {
        let mut unheard = self.unheard.lock();
        if unheard.errors.len() == ERRORS {
            unheard.errors.pop_front();
        }
        unheard.errors.push_back(error);
        self.news.set();
        then();
    }
}
