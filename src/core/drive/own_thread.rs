//! Background threads of ours: whose thread is the present one?
//!
//! `std::thread::current` would tell, but makes an object for the program's main thread that is never freed.

use std::cell::Cell;

thread_local! {
    /// Address of what the thread shares with its handle; 0 in the program's threads.
    static SHARED: Cell<usize> = const { Cell::new(0) };
}

/// The present thread works for `shared` from now on.
pub(crate) fn works_for<T>(shared: &T) {
    SHARED.with(|own| own.set(std::ptr::from_ref(shared) as usize));
}

/// Whether the present thread is the one that works for `shared`.
pub(crate) fn is_worker_of<T>(shared: &T) -> bool {
    SHARED.with(Cell::get) == std::ptr::from_ref(shared) as usize
}
