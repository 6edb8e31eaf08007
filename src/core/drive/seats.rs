//! What the keeper drives, by number, and their deadlines in order: finding who is due takes no time however many there
//! are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use crate::core::drive::deadline::Deadline;
use crate::core::drive::driven::Driven;

#[derive(Default)]
pub(super) struct Seats {
    taken: BTreeMap<u64, Seated>,
    /// Deadlines with the numbers of those that have one.
    due: BTreeSet<(Instant, u64)>,
}

struct Seated {
    one: Arc<dyn Driven>,
    deadline: Deadline,
}

impl Seats {
    pub(super) fn add(&mut self, number: u64, one: Arc<dyn Driven>) {
        self.taken.insert(number, Seated { one, deadline: None });
    }

    pub(super) fn remove(&mut self, number: u64) -> Option<Arc<dyn Driven>> {
        let seated = self.taken.remove(&number)?;
        if let Some(at) = seated.deadline {
            self.due.remove(&(at, number));
        }
        Some(seated.one)
    }

    /// `None` if it was removed.
    pub(super) fn get(&self, number: u64) -> Option<Arc<dyn Driven>> {
        self.taken.get(&number).map(|seated| Arc::clone(&seated.one))
    }

    /// Replaces the deadline of one; does nothing if it was removed.
    pub(super) fn set_deadline(&mut self, number: u64, deadline: Deadline) {
        let Some(seated) = self.taken.get_mut(&number) else { return };
        let before = std::mem::replace(&mut seated.deadline, deadline);
        if before == deadline {
            return;
        }
        if let Some(at) = before {
            self.due.remove(&(at, number));
        }
        if let Some(at) = deadline {
            self.due.insert((at, number));
        }
    }

    /// The earliest deadline of all.
    pub(super) fn first_deadline(&self) -> Deadline {
        self.due.first().map(|(at, _)| *at)
    }

    /// The numbers of those whose deadline has passed.
    pub(super) fn overdue(&self, now: Instant) -> impl Iterator<Item = u64> + '_ {
        self.due.range(..=(now, u64::MAX)).map(|(_, number)| *number)
    }

    /// Removes all of them.
    pub(super) fn take_all(&mut self) -> Vec<Arc<dyn Driven>> {
        self.due.clear();
        std::mem::take(&mut self.taken).into_values().map(|seated| seated.one).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::RawFd;
    use std::time::Duration;

    use super::*;

    struct Idle;

    impl Driven for Idle {
        fn work(&self) -> RawFd {
            -1
        }

        fn deadline(&self) -> Deadline {
            None
        }

        fn run(&self, _: Instant) -> bool {
            true
        }

        fn has_kept(&self) -> bool {
            false
        }

        fn release(&self) {}
    }

    fn overdue(seats: &Seats, now: Instant) -> Vec<u64> {
        seats.overdue(now).collect()
    }

    #[test]
    fn the_overdue_are_found_in_order_and_only_once_each() {
        let (start, mut seats) = (Instant::now(), Seats::default());
        let at = |seconds| start + Duration::from_secs(seconds);
        for number in 1..=4 {
            seats.add(number, Arc::new(Idle));
        }
        assert_eq!((seats.first_deadline(), overdue(&seats, at(1000))), (None, vec![]));
        seats.set_deadline(1, Some(at(30)));
        seats.set_deadline(2, Some(at(10)));
        seats.set_deadline(3, Some(at(10)));
        assert_eq!(seats.first_deadline(), Some(at(10)));
        assert_eq!((overdue(&seats, at(9)), overdue(&seats, at(10))), (vec![], vec![2, 3]));
        // Later, earlier, none at all: the one before does not count any more.
        seats.set_deadline(2, Some(at(40)));
        seats.set_deadline(1, Some(at(5)));
        seats.set_deadline(3, None);
        assert_eq!(overdue(&seats, at(100)), [1, 2]);
        assert_eq!(seats.first_deadline(), Some(at(5)));
    }

    #[test]
    fn what_was_removed_is_never_due() {
        let (start, mut seats) = (Instant::now(), Seats::default());
        seats.add(7, Arc::new(Idle));
        seats.set_deadline(7, Some(start));
        assert!(seats.get(7).is_some() && seats.remove(7).is_some());
        assert!(seats.get(7).is_none() && seats.remove(7).is_none());
        // It was running when it was removed.
        seats.set_deadline(7, Some(start));
        assert_eq!((seats.first_deadline(), overdue(&seats, start)), (None, vec![]));
        seats.add(8, Arc::new(Idle));
        seats.set_deadline(8, Some(start));
        assert_eq!((seats.take_all().len(), seats.first_deadline()), (1, None));
        assert!(seats.get(8).is_none());
    }
}
