//! The standstill of a whole bridge: everything that reads or writes passes a gate.

use crate::faults::Faults;
use crate::shared::{lock, Shared};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

/// Open, or closed while the bridge stands still.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    closed: AtomicBool,
    waiting: Mutex<()>,
    changed: Condvar,
}

impl Gate {
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    fn open(&self) {
        self.closed.store(false, Ordering::SeqCst);
        // Without the lock a thread between its look and its wait would miss this.
        drop(lock(&self.waiting));
        self.changed.notify_all();
    }

    /// Waits until it is open. Never call this with the state locked.
    pub(crate) fn pass(&self) {
        if !self.is_closed() {
            return;
        }
        let mut waiting = lock(&self.waiting);
        while self.is_closed() {
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Shared {
    /// Lets everything go on.
    pub(crate) fn thaw(&self) {
        self.gate.open();
        self.poke();
    }
}

impl Faults {
    /// Makes the bridge stand still, like a router whose machine has lost its power without a word: nothing that arrives
    /// is read or answered, nothing is sent, and no connection is closed. The system still takes new connections and
    /// bytes for the bridge, as it does for a stopped program.
    ///
    /// What is done through this handle is done all the same, except that calls that write on a connection wait for
    /// [`Faults::thaw`].
    pub fn freeze(&self) {
        self.shared.gate.close();
    }

    /// Ends [`Faults::freeze`]: what has arrived in the time between is dealt with now.
    pub fn thaw(&self) {
        self.shared.thaw();
    }
}
