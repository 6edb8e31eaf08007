//! Deadlines: points in time, or none. Time is an argument everywhere below the calls of a program and our own threads:
//! `now` is read once for each step, and tests make it pass without waiting.

use std::time::{Duration, Instant};

/// A time limit, or none.
pub(crate) type Deadline = Option<Instant>;

/// The earlier of two deadlines.
pub(crate) fn earlier(a: Deadline, b: Deadline) -> Deadline {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// `timeout` from `now`.
pub fn after(timeout: Option<Duration>, now: Instant) -> Deadline {
    // A time too far away to be represented is no limit.
    timeout.and_then(|timeout| now.checked_add(timeout))
}

/// Whether the deadline has passed.
pub(crate) fn passed(deadline: Deadline, now: Instant) -> bool {
    deadline.is_some_and(|at| now >= at)
}

/// Milliseconds until `deadline` as poll(2) takes them: rounded up, -1 for never.
pub(crate) fn poll_timeout(deadline: Deadline, now: Instant) -> i32 {
    let Some(at) = deadline else { return -1 };
    let left = at.saturating_duration_since(now);
    i32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(i32::MAX)
}
