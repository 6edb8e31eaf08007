//! Mutexes with a rank: the order in which they may be taken is written down once, and debug builds check it.
//!
//! Two threads that take the same two locks in different orders can deadlock, but only if their timing happens to
//! collide, and no test reliably makes that happen. So every lock has a [`Rank`], and a thread waiting for a lock must
//! not hold one of the same or a later rank; then threads cannot wait in a cycle. With `debug_assertions`, a thread
//! that breaks the rule panics every time, contended or not; without them a [`RankedMutex`] is nothing but a
//! parking_lot mutex.

use parking_lot::{Mutex, MutexGuard};

#[cfg(debug_assertions)]
use crate::sys::held_locks as held;
pub(crate) use crate::sys::lock_rank::Rank;

/// A parking_lot mutex that knows its place in the lock order.
#[derive(Debug)]
pub struct RankedMutex<T> {
    #[cfg(debug_assertions)]
    rank: Rank,
    mutex: Mutex<T>,
}

/// Access to the value of a locked [`RankedMutex`]; unlocks when dropped.
#[derive(Debug)]
pub struct RankedMutexGuard<'a, T> {
    guard: MutexGuard<'a, T>,
    // Declared last, so that it is dropped after the lock is released.
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
    /// Creates an unlocked mutex of this rank.
    #[cfg_attr(not(debug_assertions), allow(unused_variables))]
    pub const fn new(rank: Rank, value: T) -> Self {
        RankedMutex {
            #[cfg(debug_assertions)]
            rank,
            mutex: Mutex::new(value),
        }
    }

    /// Waits for the lock. The thread must not hold a lock of the same or a later rank.
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

    /// Takes the lock if it is free. Allowed whatever the thread holds: what never waits cannot deadlock.
    #[inline]
    pub fn try_lock(&self) -> Option<RankedMutexGuard<'_, T>> {
        let guard = self.mutex.try_lock()?;
        Some(RankedMutexGuard {
            guard,
            #[cfg(debug_assertions)]
            _held: held::Held::new(self.rank),
        })
    }

    /// Accesses the value without locking: `&mut self` proves there is no other reference.
    pub fn get_mut(&mut self) -> &mut T {
        self.mutex.get_mut()
    }

    /// Consumes the mutex and returns the value.
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

/// Call before doing `what`, if that may take arbitrarily long or call back into the library: with a lock held, other
/// threads would have to wait that long too. Checked in debug builds only.
#[inline]
#[cfg_attr(debug_assertions, track_caller)]
#[cfg_attr(not(debug_assertions), allow(unused_variables))]
pub(crate) fn assert_none_held(what: &str) {
    #[cfg(debug_assertions)]
    held::check_none(what);
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

    fn names_of_ranks() -> Vec<&'static str> {
        let body = include_str!("lock_rank.rs").split_once("pub enum Rank {").unwrap().1.split_once('}').unwrap().0;
        body.lines().filter_map(|line| line.trim().strip_suffix(',')).collect()
    }

    #[test]
    fn the_table_of_core_is_in_the_order_of_the_ranks() {
        let ranks = names_of_ranks();
        let table = include_str!("../core/mod.rs").lines().filter_map(|line| line.strip_prefix("//! | `"));
        let rows: Vec<_> = table.filter_map(|row| row.split_once('`')).map(|(rank, _)| rank).collect();
        assert_eq!(ranks.last().copied(), Some(format!("{:?}", Rank::SharedFd)).as_deref());
        assert_eq!(rows, ranks);
    }

    /// The source of the library without this file, tests and white space.
    fn sources(folder: &std::path::Path) -> String {
        let mut all = String::new();
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                all += &sources(&path);
            } else if !path.ends_with("sys/lock.rs") {
                let text = std::fs::read_to_string(path).unwrap();
                let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
                all.extend(code.split_whitespace());
            }
        }
        all
    }

    #[test]
    fn every_lock_has_a_rank_of_its_own() {
        let all = sources(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
        for rank in names_of_ranks() {
            assert_eq!(all.matches(&format!("RankedMutex::new(Rank::{rank},")).count(), 1, "{rank}");
        }
        assert_eq!(all.matches("RankedMutex::new(").count(), all.matches("Mutex::new(").count());
        assert_eq!(all.matches("RwLock").count(), 0);
    }

    #[cfg(debug_assertions)]
    mod checked {
        use super::*;
        use std::panic::{catch_unwind, AssertUnwindSafe};

        /// Runs `body` in its own thread and returns the panic message, if it panics.
        fn told(body: impl FnOnce() + Send) -> Option<String> {
            std::thread::scope(|scope| {
                let panic = scope.spawn(|| catch_unwind(AssertUnwindSafe(body)).err()).join().unwrap()?;
                Some(*panic.downcast::<String>().unwrap())
            })
        }

        #[test]
        fn the_right_order_passes() {
            let (a, b, c) = (mutex(Rank::KeeperSeats), mutex(Rank::Names), mutex(Rank::SharedFd));
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
            // It panicked before taking the second lock, and nothing is left locked.
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
            // A failed try_lock does not count.
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
                // The third is still held.
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
