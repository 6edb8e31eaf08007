//! Whether accepts that are refused mean that their session is dead.
//!
//! A router may confirm accept after accept on a session that is dead, and refuse them right afterwards. It may also
//! refuse many at a time for a reason that passes, and those count as one.

use std::time::{Duration, Instant};

/// A session that was refused this many accepts one after the other, each of them at once, is dead.
const REFUSED: u32 = 5;
/// How long after it was asked for an accept counts as refused at once.
const AT_ONCE: Duration = Duration::from_secs(10);

/// The refusals since a stream last succeeded.
#[derive(Default)]
pub(super) struct Refusals {
    count: u32,
    last: Option<Instant>,
}

impl Refusals {
    /// An accept that was asked for at `asked` was refused. Returns whether that is one too many.
    pub(super) fn add(&mut self, asked: Instant, now: Instant) -> bool {
        let at_once = now.saturating_duration_since(asked) < AT_ONCE;
        // Only one that was asked for after the last refusal says anything new.
        if at_once && self.last.is_none_or(|last| asked >= last) {
            self.count = self.count.saturating_add(1);
            self.last = Some(now);
        }
        self.count >= REFUSED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn five_in_a_row_are_too_many() {
        let (mut refusals, start) = (Refusals::default(), Instant::now());
        let told = (0..5).map(|number| refusals.add(start + number * SECOND, start + number * SECOND));
        assert_eq!(told.collect::<Vec<_>>(), [false, false, false, false, true]);
    }

    #[test]
    fn those_that_are_refused_together_are_one() {
        let (mut refusals, start) = (Refusals::default(), Instant::now());
        for round in 0..4 {
            let asked = start + round * SECOND;
            assert!((1..=64).all(|number| !refusals.add(asked, asked + number * SECOND / 100)), "{round}");
        }
        assert!(refusals.add(start + 4 * SECOND, start + 4 * SECOND));
    }

    #[test]
    fn those_that_have_waited_do_not_count() {
        let (mut refusals, start) = (Refusals::default(), Instant::now());
        assert!((0..20).all(|number| !refusals.add(start + number * AT_ONCE, start + (number + 1) * AT_ONCE)));
    }
}
