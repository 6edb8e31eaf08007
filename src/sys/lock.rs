//! Mutexes with a rank: the order they may be taken in is written down once, and builds for debugging check it.
//!
//! Two threads that take the same two locks in different order wait for each other for ever, but only when they meet,
//! which no test can be relied on to bring about. So every lock has a [`Rank`], and a thread that waits for a lock must
//! hold none of the same rank or one behind it: then no circle of waiting threads can close. With `debug_assertions` a
//! thread that breaks the rule panics each time, whether another one is in its way or not; without them a
//! [`RankedMutex`] is a mutex of parking_lot and nothing else.

use parking_lot::{Mutex, MutexGuard};

/// Every lock of the library, in the order they may be taken in: a thread that holds one may wait only for those behind
/// it. What each one guards is told at the top of `core`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// `Keeper::thread`
    KeeperThread,
    /// `Keeper::running`
    KeeperRunning,
    /// `Keeper::driven`
    KeeperDriven,
    /// `Keeper::dropping`
    KeeperDropping,
    /// `Context::destinations`
    Destinations,
    /// `Tunnel::thread`
    TunnelThread,
    /// `tunnel::Shared::unheard`
    TunnelReport,
    /// `Recovery::attempt`
    Recovery,
    /// `Destination::followers`
    Followers,
    /// `AcceptLoop::armed`
    ArmedAccepts,
    /// `AcceptLoop::queue`
    AcceptQueue,
    /// `Destination::kept`
    Kept,
    /// `NameRegistry::names`
    Names,
    /// `Destination::present`
    Present,
    /// `TargetCache`
    Targets,
    /// `Session::control_socket`
    ControlSocket,
    /// `AcceptPool::list`
    AcceptPool,
    /// `lookup_ticket::Slot::answer`
    LookupAnswer,
    /// `Scope::sockets`
    ScopeSockets,
    /// `Scope::cause`
    ScopeCause,
    /// `Dgram::sources`
    DatagramSources,
    /// `Dgram::deferred`
    DatagramError,
    /// `Dgram::batch`
    DatagramBatch,
    /// `Log::hook`
    LogHook,
    /// `SharedFd::giving`
    SharedFd,
}

/// A mutex of parking_lot that knows its place in the order.
#[derive(Debug)]
pub struct RankedMutex<T> {
    #[cfg(debug_assertions)]
    rank: Rank,
    mutex: Mutex<T>,
}

/// What a [`RankedMutex`] guards, as long as it is locked.
#[derive(Debug)]
pub struct RankedMutexGuard<'a, T> {
    guard: MutexGuard<'a, T>,
    // Dropped after the lock is free.
    #[cfg(debug_assertions)]
    _held: held::Held,
}

#[cfg(not(debug_assertions))]
const _: () = {
    use std::mem::{needs_drop, size_of};
    assert!(size_of::<RankedMutex<()>>() == size_of::<Mutex<()>>());
    assert!(size_of::<RankedMutex<[u64; 3]>>() == size_of::<Mutex<[u64; 3]>>());
    assert!(size_of::<RankedMutexGuard<'_, u64>>() == size_of::<MutexGuard<'_, u64>>());
    assert!(!needs_drop::<RankedMutex<u64>>());
};

impl<T> RankedMutex<T> {
    /// A mutex of this rank, not locked.
    #[cfg_attr(not(debug_assertions), allow(unused_variables))]
    pub const fn new(rank: Rank, value: T) -> Self {
        RankedMutex {
            #[cfg(debug_assertions)]
            rank,
            mutex: Mutex::new(value),
        }
    }

    /// Waits for the lock. The thread may hold no lock of the same rank or one behind it.
    #[inline]
    #[cfg_attr(debug_assertions, track_caller)]
    pub fn lock(&self) -> RankedMutexGuard<'_, T> {
        #[cfg(debug_assertions)]
        held::check_order(self.rank);
        RankedMutexGuard {
            guard: self.mutex.lock(),
            #[cfg(debug_assertions)]
            _held: held::Held::new(self.rank),
        }
    }

    /// Takes the lock if it is free. Whatever the thread holds: what does not wait cannot wait for ever.
    #[inline]
    pub fn try_lock(&self) -> Option<RankedMutexGuard<'_, T>> {
        let guard = self.mutex.try_lock()?;
        Some(RankedMutexGuard {
            guard,
            #[cfg(debug_assertions)]
            _held: held::Held::new(self.rank),
        })
    }

    /// What it guards: the only reference to the mutex needs no lock.
    pub fn get_mut(&mut self) -> &mut T {
        self.mutex.get_mut()
    }

    /// What it guarded.
    pub fn into_inner(self) -> T {
        self.mutex.into_inner()
    }
}

impl<T> std::ops::Deref for RankedMutexGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> std::ops::DerefMut for RankedMutexGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

/// The present thread is about to do `what`, which may take any time or call the library again: with a lock held, other
/// threads would wait just as long. Checked in builds for debugging only.
#[inline]
#[cfg_attr(debug_assertions, track_caller)]
#[cfg_attr(not(debug_assertions), allow(unused_variables))]
pub fn assert_none_held(what: &str) {
    #[cfg(debug_assertions)]
    held::check_none(what);
}

/// What the present thread holds.
#[cfg(debug_assertions)]
mod held {
    use std::cell::Cell;

    use super::Rank;

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
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mutex(rank: Rank) -> RankedMutex<u32> {
        RankedMutex::new(rank, 0)
    }

    #[test]
    fn it_is_a_mutex() {
        let mut mutex = mutex(Rank::Names);
        *mutex.lock() += 1;
        {
            let mut first = mutex.try_lock().unwrap();
            *first += 1;
            assert!(mutex.try_lock().is_none());
        }
        *mutex.get_mut() += 1;
        assert_eq!(*mutex.lock(), 3);
        std::thread::scope(|scope| {
            let guard = mutex.lock();
            scope.spawn(|| *mutex.lock() += 1);
            drop(guard);
        });
        assert_eq!(mutex.into_inner(), 4);
    }

    #[test]
    fn the_table_of_core_is_in_the_order_of_the_ranks() {
        let body = include_str!("lock.rs").split_once("pub enum Rank {").unwrap().1.split_once('}').unwrap().0;
        let ranks: Vec<_> = body.lines().filter_map(|line| line.trim().strip_suffix(',')).collect();
        let table = include_str!("../core/mod.rs").lines().filter_map(|line| line.strip_prefix("//! | `"));
        let rows: Vec<_> = table.filter_map(|row| row.split_once('`')).map(|(rank, _)| rank).collect();
        assert_eq!(ranks.last().copied(), Some(format!("{:?}", Rank::SharedFd)).as_deref());
        assert_eq!(rows, ranks);
    }

    #[cfg(debug_assertions)]
    mod checked {
        use super::*;
        use std::panic::{catch_unwind, AssertUnwindSafe};

        /// What a thread of its own panics with, if it does.
        fn told(body: impl FnOnce() + Send) -> Option<String> {
            std::thread::scope(|scope| {
                let panic = scope.spawn(|| catch_unwind(AssertUnwindSafe(body)).err()).join().unwrap()?;
                Some(*panic.downcast::<String>().unwrap())
            })
        }

        #[test]
        fn the_right_order_passes() {
            let (a, b, c) = (mutex(Rank::KeeperDriven), mutex(Rank::Names), mutex(Rank::SharedFd));
            assert_eq!(
                told(|| {
                    let _a = a.lock();
                    let _c = {
                        let _b = b.lock();
                        c.lock()
                    };
                    drop(_c);
                    drop(b.lock());
                }),
                None
            );
        }

        #[test]
        fn the_wrong_order_panics_with_both_names() {
            let (a, b) = (mutex(Rank::Names), mutex(Rank::Present));
            let text = told(|| {
                let _b = b.lock();
                let _a = a.lock();
            });
            let text = text.unwrap();
            assert!(text.contains("Names") && text.contains("Present"), "{text}");
            // It was told before the lock was taken, and nothing is left locked.
            assert!(a.try_lock().is_some() && b.try_lock().is_some());
        }

        #[test]
        fn one_rank_twice_panics() {
            let (a, b) = (mutex(Rank::Present), mutex(Rank::Present));
            let text = told(|| {
                let _a = a.lock();
                let _b = b.lock();
            });
            assert!(text.unwrap().matches("Present").count() == 2);
        }

        #[test]
        fn try_lock_is_exempt_and_counts() {
            let (a, b, c) = (mutex(Rank::Recovery), mutex(Rank::Names), mutex(Rank::Present));
            let exempt = told(|| {
                let _c = c.lock();
                let _a = a.try_lock().unwrap();
                let same = mutex(Rank::Recovery);
                let _same = same.try_lock().unwrap();
            });
            assert_eq!(exempt, None);
            let counts = told(|| {
                let _c = c.try_lock().unwrap();
                let _b = b.lock();
            });
            assert!(counts.unwrap().contains("Names"));
            // One that was not got does not.
            let missed = told(|| {
                let _c = c.lock();
                std::thread::scope(|scope| {
                    scope.spawn(|| {
                        assert!(c.try_lock().is_none());
                        drop(b.lock());
                    });
                });
            });
            assert_eq!(missed, None);
        }

        #[test]
        fn guards_may_be_dropped_in_any_order() {
            let (a, b, c) = (mutex(Rank::Recovery), mutex(Rank::Names), mutex(Rank::Present));
            let text = told(|| {
                let (first, second, third) = (a.lock(), b.lock(), c.lock());
                drop(second);
                drop(first);
                // The last one still counts.
                assert!(catch_unwind(AssertUnwindSafe(|| drop(b.lock()))).is_err());
                drop(third);
                drop(a.lock());
                assert_none_held("the end");
            });
            assert_eq!(text, None);
        }

        #[test]
        fn none_may_be_held_across_what_takes_its_time() {
            assert_eq!(told(|| assert_none_held("the log hook")), None);
            let a = mutex(Rank::Names);
            let text = told(|| {
                let _a = a.try_lock().unwrap();
                assert_none_held("the log hook");
            });
            let text = text.unwrap();
            assert!(text.contains("Names") && text.contains("the log hook"), "{text}");
        }

        #[test]
        fn a_panic_is_not_followed_by_another_one() {
            struct Breaks<'a>(&'a RankedMutex<u32>);
            impl Drop for Breaks<'_> {
                fn drop(&mut self) {
                    drop(self.0.lock());
                }
            }
            let (a, b) = (mutex(Rank::Names), mutex(Rank::Present));
            let text = told(|| {
                let _b = b.lock();
                let _breaks = Breaks(&a);
                std::panic::panic_any("the first".to_owned());
            });
            assert_eq!(text.as_deref(), Some("the first"));
        }
    }
}
