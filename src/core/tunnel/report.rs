//! What a tunnel tells: numbers and errors.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;

use crate::core::destination::State;
use crate::error::Error;
use crate::sys::lock::RankedMutex;
use crate::sys::Wake;

/// Errors of connections that are remembered.
const ERRORS: usize = 16;

/// What has happened so far.
#[derive(Debug, Default)]
pub struct Counts {
    /// Connections that are open.
    pub now: AtomicU64,
    /// Connections that came.
    pub total: AtomicU64,
    /// Connections whose other side could not be made.
    pub failed: AtomicU64,
    /// Connections that could not be taken, for want of descriptors for example.
    pub refused: AtomicU64,
    /// Connections that were ended because their time was over.
    pub expired: AtomicU64,
    /// Bytes to the side that is made.
    pub bytes_out: AtomicU64,
    /// Bytes to the side that is received.
    pub bytes_in: AtomicU64,
}

/// What a tunnel's thread and its handle share.
pub(super) struct Shared {
    /// Numbers.
    pub counts: Counts,
    /// Makes the thread look.
    pub wake: Wake,
    /// It has to end.
    pub stop: AtomicBool,
    /// Readable when there is something the program was not told yet.
    pub news: Arc<Wake>,
    /// What that is.
    pub unheard: RankedMutex<Unheard>,
}

/// What the program was not told yet.
pub(super) struct Unheard {
    /// Of connections, the oldest first.
    pub errors: VecDeque<Error>,
    /// The state of the destination it was told last.
    pub told: State,
}

impl Shared {
    /// Remembers the error of a connection.
    pub(super) fn remember(&self, error: Error) {
        self.remember_and(error, || ());
    }

    /// Remembers an error and counts it: whoever sees the number finds the error, and whoever has the error the number.
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
