//! Opening a lost session again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::core::bridge::BridgeConnection;
use crate::core::destination::destination::{Destination, Present, State};
use crate::core::drive::{after, passed, Deadline, Progress};
use crate::core::session::{NewSession, Session, SessionSpec};
use crate::error::{Error, Operation, Result, Status};
use crate::protocol::handshake::Phase;

/// Pauses before attempts to open a lost session again: the first one, doubled up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A session that lived so long was a good one: when it is lost the pauses begin anew.
const GOOD_LIFE: Duration = Duration::from_secs(60);

/// An attempt to open a lost session again.
pub(super) struct Attempt {
    pub(super) exchange: BridgeConnection,
    id: String,
    pub(super) deadline: Deadline,
}

impl Destination {
    /// Sees whether the session was lost.
    pub(super) fn notice(&self, log: &mut Vec<String>) {
        let cause = {
            let mut present = self.present.lock();
            let Some(cause) = present.session.scope().cause().filter(|_| present.state == State::Ready) else { return };
            if self.recipe.recover {
                if present.ready_since.elapsed() >= GOOD_LIFE {
                    present.attempt = 0;
                }
                self.pause(&mut present, cause, log);
                return;
            }
            cause
        };
        self.die(cause);
        drop(self.kept.lock().take());
    }

    fn pause(&self, present: &mut Present, cause: Error, log: &mut Vec<String>) {
        let pause = 1u32
            .checked_shl(present.attempt)
            .map_or(LONGEST_PAUSE, |times| FIRST_PAUSE.checked_mul(times).unwrap_or(LONGEST_PAUSE).min(LONGEST_PAUSE));
        present.attempt = present.attempt.saturating_add(1);
        present.due = after(Some(pause));
        log.push(format!("attempt {} to open the session again in {} s", present.attempt, pause.as_secs()));
        present.error = Some(cause);
        present.change(State::Recovering, &self.home);
    }

    /// Opens the next session, as far as that is possible now.
    pub(super) fn reopen(&self, log: &mut Vec<String>) {
        let Some(mut slot) = self.attempt.try_lock() else { return };
        let due = {
            let present = self.present.lock();
            present.state == State::Recovering && passed(present.due)
        };
        if due && slot.is_none() {
            match self.attempt() {
                Ok(attempt) => *slot = Some(attempt),
                Err(error) => return self.failed(error, log),
            }
            self.advance(State::Connecting);
        }
        let Some(attempt) = slot.as_mut() else { return };
        // Sockets that an exchange closes must not be watched any more: see `Session::finish`.
        drop(self.home.work.remove(attempt.exchange.fd()));
        let result = match attempt.exchange.step_with(log) {
            Ok(Progress::Block) if passed(attempt.deadline) => {
                Err(Error::new(Status::Timeout, Operation::Create, "the session could not be opened again in time"))
            }
            other => other,
        };
        match result {
            Ok(Progress::Block) => {
                drop(self.home.work.set(attempt.exchange.fd(), attempt.exchange.events()));
                if attempt.exchange.phase() == Phase::Reply {
                    self.advance(State::Building);
                }
            }
            Ok(Progress::Done) => {
                // However quick the router was, a program sees the same changes.
                self.advance(State::Building);
                if let Some(attempt) = slot.take() {
                    if let Err(error) = self.renew(attempt) {
                        self.failed(error, log);
                    }
                }
            }
            Err(error) => {
                *slot = None;
                self.failed(error, log);
            }
        }
    }

    fn advance(&self, state: State) {
        let mut present = self.present.lock();
        if present.state != State::Dead {
            present.change(state, &self.home);
        }
    }

    fn attempt(&self) -> Result<Attempt> {
        let id = SessionSpec::new_id()?;
        let request = self.recipe.request(id.clone(), self.keys.duplicate().into());
        let exchange = BridgeConnection::new(Arc::clone(&self.bridge), Arc::clone(&self.scope), request)?;
        let deadline = after(exchange.default_timeout());
        Ok(Attempt { exchange, id, deadline })
    }

    /// There is a session again.
    fn renew(&self, mut attempt: Attempt) -> Result<()> {
        let created = attempt.exchange.finish()?;
        SessionSpec::check_same(&SessionSpec::keys_of(&created)?, self.keys.address())?;
        let birth = NewSession { id: attempt.id, style: self.recipe.style, created, port: self.recipe.port.clone() };
        let session = Session::begin(Arc::clone(&self.bridge), self.home.clone(), birth)?;
        let dead = {
            let mut present = self.present.lock();
            let dead = if present.state == State::Dead { present.error.clone() } else { None };
            if dead.is_none() {
                present.session = Arc::clone(&session);
                present.error = None;
                present.due = None;
                present.ready_since = Instant::now();
                present.change(State::Ready, &self.home);
            }
            dead
        };
        if let Some(cause) = dead {
            session.finish(cause, true);
        }
        Ok(())
    }

    fn failed(&self, error: Error, log: &mut Vec<String>) {
        log.push(format!("the session could not be opened again: {}", error.message));
        // What the router will never accept.
        let hopeless =
            matches!(error.status, Status::Unsupported | Status::Invalid | Status::State) || error.tag == "INVALID_KEY";
        {
            let mut present = self.present.lock();
            if present.state == State::Dead {
                return;
            }
            if !hopeless {
                return self.pause(&mut present, error, log);
            }
        }
        self.die(Error { status: Status::Closed, ..error });
        drop(self.kept.lock().take());
    }
}
