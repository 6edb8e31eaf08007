//! Deadlines: points in time, or none. Except in the program's calls and our own threads, time is always an argument:
//! `now` is read once per step, and tests advance it without waiting.

use std::time::{Duration, Instant};

/// A point in time, or `None` for never.
pub(crate) type Deadline = Option<Instant>;

pub(crate) fn earlier(a: Deadline, b: Deadline) -> Deadline {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// The deadline that is `timeout` after `now`.
pub fn after(timeout: Option<Duration>, now: Instant) -> Deadline {
    // A time too far away to represent counts as no limit.
    timeout.and_then(|timeout| now.checked_add(timeout))
}

pub(crate) fn passed(deadline: Deadline, now: Instant) -> bool {
    deadline.is_some_and(|at| now >= at)
}

/// Milliseconds until `deadline` in poll(2)'s form: rounded up, -1 for never.
pub(crate) fn poll_timeout(deadline: Deadline, now: Instant) -> i32 {
    let Some(at) = deadline else { return -1 };
    let left = at.saturating_duration_since(now);
    i32::try_from(left.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_to_wait_is_never_rounded_down() {
        let now = Instant::now();
        for (nanoseconds, milliseconds) in [(0, 0), (1, 1), (999_999, 1), (1_000_000, 1), (1_000_001, 2)] {
            let at = now + Duration::from_nanos(nanoseconds);
            assert_eq!(poll_timeout(Some(at), now), milliseconds, "{nanoseconds} ns");
        }
        let far = now + Duration::from_secs(1 << 32);
        assert_eq!((poll_timeout(None, now), poll_timeout(Some(far), now)), (-1, i32::MAX));
        assert_eq!(poll_timeout(Some(now), now + Duration::from_secs(1)), 0, "it is long past");
    }
}
