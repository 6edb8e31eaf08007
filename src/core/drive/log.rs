//! The log hook: a program may watch the redacted conversation with the bridge.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use parking_lot::Mutex;

/// Receives one line of text. Runs on whatever thread does the work, without any lock held.
pub type Hook = Arc<dyn Fn(&str) + Send + Sync>;

thread_local! {
    /// Whether this thread is inside a hook.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Whether the present thread is inside a hook, where no call of this library is allowed.
pub fn inside_hook() -> bool {
    INSIDE.with(Cell::get)
}

/// Marks the present thread as inside a hook while it runs `hook`.
pub fn inside<T>(hook: impl FnOnce() -> T) -> T {
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            INSIDE.with(|inside| inside.set(false));
        }
    }
    INSIDE.with(|inside| inside.set(true));
    let _reset = Reset;
    hook()
}

/// Where log lines go; nowhere by default.
#[derive(Default)]
pub struct Log {
    hook: Mutex<Option<Hook>>,
    wanted: AtomicBool,
}

impl Log {
    /// Sets or removes the hook.
    pub fn set(&self, hook: Option<Hook>) {
        let mut current = self.hook.lock();
        self.wanted.store(hook.is_some(), Ordering::Relaxed);
        *current = hook;
    }

    /// Whether anybody listens: lines nobody reads need not be made.
    pub fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }

    /// Hands `lines` to the hook.
    pub fn lines(&self, lines: Vec<String>) {
        if lines.is_empty() {
            return;
        }
        let hook = self.hook.lock().clone();
        if let Some(hook) = hook {
            for line in lines {
                inside(|| hook(&line));
            }
        }
    }
}
