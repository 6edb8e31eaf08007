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
    i32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(i32::MAX)
}
