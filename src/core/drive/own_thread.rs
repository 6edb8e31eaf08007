//! Tells whether the current thread is one of our background threads, and whose.
//!
//! `std::thread::current` could tell, but allocates an object for the program's main thread that is never freed.

use std::cell::Cell;

thread_local! {
    /// Address of what the thread shares with its handle; 0 in the program's own threads.
    static SHARED: Cell<usize> = const { Cell::new(0) };
}

/// Marks the current thread as the worker of `shared`.
pub(crate) fn works_for<T>(shared: &T) {
    SHARED.with(|own| own.set(std::ptr::from_ref(shared) as usize));
}

/// Whether the current thread is the worker of `shared`.
pub(crate) fn is_worker_of<T>(shared: &T) -> bool {
    SHARED.with(Cell::get) == std::ptr::from_ref(shared) as usize
}
