//! The ranks of the locks that the current thread holds; debug builds only.

use std::cell::Cell;

use crate::sys::lock_rank::Rank;

/// More locks than any thread ever holds.
const PLACES: usize = 32;

thread_local! {
    /// The rank of each lock the thread holds, unordered, as guards may be dropped in any order. An array of plain
    /// values, so that no thread destructor is registered: one would keep the library from being unloaded.
    static HELD: [Cell<Option<Rank>>; PLACES] = const { [const { Cell::new(None) }; PLACES] };
}

const _: () = assert!(!std::mem::needs_drop::<[Cell<Option<Rank>>; PLACES]>());

/// One lock the current thread holds: its index in [`HELD`]. It is stored next to a parking_lot guard, which is not
/// `Send` either.
#[derive(Debug)]
pub(super) struct Held(usize);

impl Held {
    pub(super) fn new(rank: Rank) -> Self {
        HELD.with(|held| {
            let place = held.iter().position(|place| place.get().is_none());
            if let Some(free) = place.and_then(|place| held.get(place)) {
                free.set(Some(rank));
            }
            // If the array is full, the index is out of range and the lock is not tracked.
            Held(place.unwrap_or(PLACES))
        })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        HELD.with(|held| held.get(self.0).map(|place| place.set(None)));
    }
}

fn last() -> Option<Rank> {
    HELD.with(|held| held.iter().filter_map(Cell::get).max())
}

#[track_caller]
pub(super) fn check_order(rank: Rank) {
    if let Some(last) = last().filter(|last| *last >= rank) {
        fail(&format!("lock {rank:?} is waited for while {last:?} is held, which comes after it in the order"));
    }
}

#[track_caller]
pub(super) fn check_none(what: &str) {
    if let Some(last) = last() {
        fail(&format!("lock {last:?} is held across {what}"));
    }
}

#[track_caller]
#[allow(clippy::panic)]
fn fail(message: &str) {
    // A second panic would abort the process before the first one is reported.
    if !std::thread::panicking() {
        panic!("{message}");
    }
}
