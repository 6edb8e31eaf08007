//! The states of a destination.
//!
//! ```text
//!              lost             due              asked            session
//!     Ready ---------> Recovering ---> Connecting ---> Building ----------> Ready
//!       |                   ^              |               |
//!       |                   +--------------+---------------+   failed
//!       |
//!       +--> Dead: lost and not to be recovered; and from every state: ended, or refused for good
//! ```

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::core::destination::recovery::Pauses;
use crate::core::drive::{after, passed, Deadline};
use crate::error::{Error, Status};

/// State changes kept for a program that does not fetch them; then the oldest are dropped.
const CHANGES: usize = 64;

/// The state of a destination as a program sees it; the numbers are the C constants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum State {
    /// Connecting to the bridge to reopen the lost session.
    Connecting = 1,
    /// The bridge was asked for a session and is building tunnels.
    Building = 2,
    /// There is a live session.
    Ready = 3,
    /// The session was lost and will be reopened after a pause.
    Recovering = 4,
    /// The destination has ended for good.
    Dead = 5,
}

/// The current state and its data.
enum At {
    Ready { since: Instant },
    Recovering { cause: Error, due: Deadline },
    Connecting { cause: Error },
    Building { cause: Error },
    Dead { cause: Error },
}

/// The state of a destination, and the changes not yet reported to the program.
pub(super) struct Life {
    at: At,
    pauses: Pauses,
    untold: VecDeque<State>,
}

impl Life {
    pub(super) fn new(now: Instant) -> Self {
        Life { at: At::Ready { since: now }, pauses: Pauses::default(), untold: VecDeque::from([State::Ready]) }
    }

    pub(super) fn state(&self) -> State {
        match self.at {
            At::Ready { .. } => State::Ready,
            At::Recovering { .. } => State::Recovering,
            At::Connecting { .. } => State::Connecting,
            At::Building { .. } => State::Building,
            At::Dead { .. } => State::Dead,
        }
    }

    /// Number of the attempt to reopen the session.
    pub(super) fn attempt(&self) -> u32 {
        self.pauses.attempt()
    }

    pub(super) fn cause(&self) -> Option<&Error> {
        match &self.at {
            At::Ready { .. } => None,
            At::Recovering { cause, .. } | At::Connecting { cause } | At::Building { cause } | At::Dead { cause } => {
                Some(cause)
            }
        }
    }

    pub(super) fn due(&self) -> Deadline {
        match self.at {
            At::Recovering { due, .. } => due,
            _ => None,
        }
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        passed(self.due(), now)
    }

    /// The session was lost. Returns the pause before it is reopened.
    pub(super) fn lost(&mut self, cause: Error, now: Instant) -> Duration {
        if let At::Ready { since } = self.at {
            self.pauses.lived(now.saturating_duration_since(since));
        }
        self.pause(cause, now)
    }

    /// An attempt failed. Returns the pause before the next one, which is longer.
    pub(super) fn failed(&mut self, error: Error, now: Instant) -> Duration {
        self.pause(error, now)
    }

    fn pause(&mut self, cause: Error, now: Instant) -> Duration {
        let pause = self.pauses.next();
        self.change(At::Recovering { cause, due: after(Some(pause), now) });
        pause
    }

    pub(super) fn connecting(&mut self) {
        if let Some(cause) = self.attempting() {
            self.change(At::Connecting { cause });
        }
    }

    pub(super) fn building(&mut self) {
        if let Some(cause) = self.attempting() {
            self.change(At::Building { cause });
        }
    }

    /// Why the session being reopened was lost.
    fn attempting(&self) -> Option<Error> {
        match &self.at {
            At::Recovering { cause, .. } | At::Connecting { cause } | At::Building { cause } => Some(cause.clone()),
            At::Ready { .. } | At::Dead { .. } => None,
        }
    }

    pub(super) fn ready(&mut self, now: Instant) {
        self.change(At::Ready { since: now });
    }

    pub(super) fn die(&mut self, cause: Error) {
        self.change(At::Dead { cause });
    }

    fn change(&mut self, at: At) {
        let before = self.state();
        self.at = at;
        if self.state() != before {
            if self.untold.len() == CHANGES {
                self.untold.pop_front();
            }
            self.untold.push_back(self.state());
        }
    }

    /// The oldest change not reported yet.
    pub(super) fn next_change(&mut self) -> Option<State> {
        self.untold.pop_front()
    }

    /// Whether all changes were reported.
    pub(super) fn is_told(&self) -> bool {
        self.untold.is_empty()
    }
}

/// Whether the router will never accept the request, so that retrying is pointless.
pub(super) fn is_hopeless(error: &Error) -> bool {
    matches!(error.status, Status::Unsupported | Status::Invalid | Status::State) || error.tag == "INVALID_KEY"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Operation;

    fn error(message: &str) -> Error {
        Error::closed(Operation::Session, message)
    }

    const SECOND: Duration = Duration::from_secs(1);

    fn changes(life: &mut Life) -> Vec<State> {
        std::iter::from_fn(|| life.next_change()).collect()
    }

    #[test]
    fn a_lost_session_is_opened_again_after_growing_pauses() {
        let start = Instant::now();
        let mut life = Life::new(start);
        assert_eq!(changes(&mut life), [State::Ready]);
        assert_eq!(life.lost(error("gone"), start), SECOND);
        assert!(!life.is_due(start) && life.is_due(start + SECOND));
        assert_eq!((life.state(), life.attempt(), life.cause()), (State::Recovering, 1, Some(&error("gone"))));
        let mut now = start;
        for (attempt, pause) in [2, 4, 8, 16, 32, 60, 60].into_iter().enumerate() {
            life.connecting();
            life.building();
            assert_eq!((life.due(), life.is_due(now + 100 * SECOND)), (None, false), "an attempt is under way");
            now += 5 * SECOND;
            assert_eq!(life.failed(error("refused"), now), pause * SECOND);
            assert_eq!((life.attempt(), life.due()), (attempt as u32 + 2, Some(now + pause * SECOND)));
        }
        life.ready(now);
        assert_eq!((life.state(), life.cause()), (State::Ready, None));
        assert_eq!(life.lost(error("gone"), now + 59 * SECOND), 60 * SECOND, "it did not live long enough");
        life.ready(now);
        assert_eq!((life.lost(error("gone"), now + 60 * SECOND), life.attempt()), (SECOND, 1));
    }

    #[test]
    fn every_change_is_told_once() {
        let now = Instant::now();
        let mut life = Life::new(now);
        life.lost(error("gone"), now);
        life.connecting();
        life.connecting();
        life.building();
        life.ready(now);
        life.die(error("over"));
        let all = [State::Ready, State::Recovering, State::Connecting, State::Building, State::Ready, State::Dead];
        assert_eq!(changes(&mut life), all);
        assert!(life.is_told());
    }

    #[test]
    fn the_dead_stay_dead() {
        let now = Instant::now();
        let mut life = Life::new(now);
        life.die(error("over"));
        life.connecting();
        life.building();
        assert_eq!((life.state(), life.cause()), (State::Dead, Some(&error("over"))));
    }

    #[test]
    fn changes_that_are_never_asked_for_do_not_pile_up() {
        let now = Instant::now();
        let mut life = Life::new(now);
        for _ in 0..100 {
            life.lost(error("gone"), now);
            life.connecting();
            life.building();
            life.ready(now);
        }
        let told = changes(&mut life);
        assert_eq!((told.len(), told.last()), (CHANGES, Some(&State::Ready)));
    }

    #[test]
    fn what_a_router_will_never_accept_is_not_tried_again() {
        assert!(is_hopeless(&Error::invalid("x")) && !is_hopeless(&error("x")));
        let refused = |tag: &str| Error { tag: tag.into(), ..Error::new(Status::Network, Operation::Create, "x") };
        assert!(is_hopeless(&refused("INVALID_KEY")) && !is_hopeless(&refused("DUPLICATED_DEST")));
    }
}
