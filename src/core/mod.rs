//! Sockets, sessions and streams in safe Rust. Every operation is a step that never blocks; blocking is step + poll.

pub mod acceptors;
pub mod bridge;
pub mod controller;
pub mod dest;
pub mod dgram;
pub mod engine;
pub mod exchange;
pub mod forwarding;
pub mod goal;
pub mod keeper;
pub mod keyfile;
pub mod link;
pub mod listener;
pub mod listening;
pub mod log;
pub mod lookup;
pub mod named;
pub mod names;
pub mod options;
pub mod pending;
pub mod port;
pub mod presence;
pub mod recipe;
pub mod relay;
pub mod scope;
pub mod session;
pub mod store;
pub mod stream;
pub mod tunnel;
pub mod tunneling;
pub mod worker;

use std::time::{Duration, Instant};

/// Whether an operation is done or has to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Progress {
    /// Done.
    Done,
    /// Call again when the descriptor is ready or the time-out has passed.
    Block,
}

/// A time limit, or none.
pub type Deadline = Option<Instant>;

/// The earlier of two deadlines.
pub fn earlier(a: Deadline, b: Deadline) -> Deadline {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// `timeout` from now.
pub fn after(timeout: Option<Duration>) -> Deadline {
    // A time too far away to be represented is no limit.
    timeout.and_then(|timeout| Instant::now().checked_add(timeout))
}

/// Whether the deadline has passed.
pub fn passed(deadline: Deadline) -> bool {
    deadline.is_some_and(|at| Instant::now() >= at)
}

/// Milliseconds until `deadline` as poll(2) wants them: rounded up, -1 for never.
pub fn poll_timeout(deadline: Deadline) -> i32 {
    let Some(at) = deadline else { return -1 };
    let left = at.saturating_duration_since(Instant::now());
    i32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(i32::MAX)
}
