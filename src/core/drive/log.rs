//! The log hook, through which a program can watch the redacted conversation with the bridge.
//!
//! Lines are gathered per thread, with or without locks held, and passed to the hook at the [`edge`]: where a call of
//! the program, or a round of one of our own threads, ends and no lock is held.

use std::cell::{Cell, RefCell};
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use crate::sys::lock::{assert_none_held, Rank, RankedMutex};

/// Receives one line of text. Runs on the thread that did the work, with no lock held.
pub(crate) type Hook = Arc<dyn Fn(&str) + Send + Sync>;

type Line = (Arc<Log>, String);

thread_local! {
    /// Whether this thread is running a hook.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
    /// Number of nested edges this thread is in.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    /// Empty, and without an allocation, whenever the depth is 0; so it needs no destructor, which would keep the
    /// library from being unloaded.
    static GATHERED: RefCell<ManuallyDrop<Vec<Line>>> = const { RefCell::new(ManuallyDrop::new(Vec::new())) };
}

/// Whether the current thread is running a hook, from which this library must not be called.
pub(crate) fn inside_hook() -> bool {
    INSIDE.with(Cell::get)
}

/// Runs `hook` with the current thread marked as inside a hook.
pub(crate) fn inside<T>(hook: impl FnOnce() -> T) -> T {
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

/// Passes log lines to the program's hook; without one, discards them.
pub struct Log {
    hook: RankedMutex<Option<Hook>>,
    wanted: AtomicBool,
}

impl Default for Log {
    fn default() -> Self {
        Log { hook: RankedMutex::new(Rank::LogHook, None), wanted: AtomicBool::new(false) }
    }
}

impl Log {
    pub fn set(&self, hook: Option<Hook>) {
        let mut current = self.hook.lock();
        self.wanted.store(hook.is_some(), Ordering::Relaxed);
        *current = hook;
    }

    /// Whether there is a hook; without one, lines need not be formatted.
    pub fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }

    /// Adds a line, which is passed to the hook at the edge.
    pub fn line(self: &Arc<Self>, line: impl FnOnce() -> String) {
        if self.is_wanted() {
            self.lines(vec![line()]);
        }
    }

    /// Adds lines that are already formatted.
    pub fn lines(self: &Arc<Self>, lines: Vec<String>) {
        if lines.is_empty() {
            return;
        }
        debug_assert!(DEPTH.with(Cell::get) > 0, "a log line outside of every edge would never be handed out");
        GATHERED.with_borrow_mut(|gathered| gathered.extend(lines.into_iter().map(|line| (Arc::clone(self), line))));
    }

    fn hand_out(&self, line: &str) {
        let hook = self.hook.lock().clone();
        if let Some(hook) = hook {
            assert_none_held("the log hook");
            inside(|| hook(line));
        }
    }
}

/// Passes the lines gathered on this thread to the hook when the outermost edge is dropped. Create it before taking any
/// lock.
#[must_use]
pub(crate) struct Edge(());

/// Marks the start of a call of the program, or of a round of one of our threads.
#[inline(never)]
pub(crate) fn edge() -> Edge {
    DEPTH.with(|depth| depth.set(depth.get() + 1));
    Edge(())
}

impl Drop for Edge {
    // Not inlined: there are many edges.
    #[inline(never)]
    fn drop(&mut self) {
        let left = DEPTH.with(|depth| {
            depth.set(depth.get() - 1);
            depth.get()
        });
        if left == 0 {
            hand_out_all();
        }
    }
}

fn hand_out_all() {
    let lines = GATHERED.with_borrow_mut(|gathered| std::mem::take(&mut **gathered));
    // A hook that panics too would end the program.
    if !std::thread::panicking() {
        lines.iter().for_each(|(log, line)| log.hand_out(line));
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    fn recording() -> (Arc<Log>, Arc<Mutex<Vec<String>>>) {
        let (log, heard) = (Arc::new(Log::default()), Arc::new(Mutex::new(Vec::new())));
        let ear = Arc::clone(&heard);
        log.set(Some(Arc::new(move |line: &str| ear.lock().push(line.to_owned()))));
        (log, heard)
    }

    #[test]
    fn lines_are_handed_out_at_the_outermost_edge_in_order() {
        let ((a, heard_a), (b, heard_b)) = (recording(), recording());
        let outer = edge();
        a.line(|| "1".into());
        {
            let _inner = edge();
            b.line(|| "x".into());
            a.lines(vec!["2".into(), "3".into()]);
        }
        assert!(heard_a.lock().is_empty() && heard_b.lock().is_empty());
        drop(outer);
        assert_eq!((heard_a.lock().join(" "), heard_b.lock().join(" ")), ("1 2 3".to_owned(), "x".to_owned()));
        assert_eq!(GATHERED.with_borrow(|gathered| gathered.capacity()), 0);
    }

    #[test]
    fn without_a_hook_no_line_is_made() {
        let _edge = edge();
        Arc::new(Log::default()).line(|| unreachable!());
    }

    #[test]
    fn a_hook_may_not_call_back() {
        let log = Arc::new(Log::default());
        let seen = Arc::new(AtomicBool::new(false));
        let inner = Arc::clone(&seen);
        log.set(Some(Arc::new(move |_: &str| inner.store(inside_hook(), Ordering::Relaxed))));
        let edge = edge();
        log.line(|| "x".into());
        drop(edge);
        assert!(seen.load(Ordering::Relaxed) && !inside_hook());
    }
}
