//! The ranks of the locks that the present thread holds; in builds for debugging only.

use std::cell::Cell;

use crate::sys::rank::Rank;

/// No thread holds as many locks.
const PLACES: usize = 32;

thread_local! {
    /// The rank of each lock the thread holds, in no certain order: guards may be dropped in any. Plain values in
    /// an array, so that no destructor is registered for the thread, which would keep the library from being
    /// unloaded.
    static HELD: [Cell<Option<Rank>>; PLACES] = const { [const { Cell::new(None) }; PLACES] };
}

const _: () = assert!(!std::mem::needs_drop::<[Cell<Option<Rank>>; PLACES]>());

/// One lock the present thread holds: its place in the list. It lies beside a guard of parking_lot, which stays in
/// its thread.
#[derive(Debug)]
pub(super) struct Held(usize);

impl Held {
    pub(super) fn new(rank: Rank) -> Self {
        HELD.with(|held| {
            let place = held.iter().position(|place| place.get().is_none());
            if let Some(free) = place.and_then(|place| held.get(place)) {
                free.set(Some(rank));
            }
            // Beyond the end there is no such place, and the lock is not counted.
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
    // A second panic would end the process before the first one is told.
    if !std::thread::panicking() {
        panic!("{message}");
    }
}
