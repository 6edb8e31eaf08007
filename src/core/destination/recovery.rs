//! Reopening a lost session, one attempt at a time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::core::bridge::{Bridge, BridgeConnection};
use crate::core::drive::{after, earlier, passed, Backoff, Deadline, Progress, Scope, Watched};
use crate::core::session::{last_session, Claim, LettingGo, NewSession, SessionSpec};
use crate::error::{Error, Operation, Result, Status};
use crate::identity::Keys;
use crate::protocol::handshake::Phase;
use crate::sys::lock::{Rank, RankedMutex};
use crate::sys::Watch;

/// Pauses before attempts to reopen a lost session: starts with the first and doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// When a session is lost that lasted at least this long, the pauses start over with the first.
const GOOD_LIFE: Duration = Duration::from_secs(60);

/// The pauses between attempts, and how many attempts there have been.
pub(super) struct Pauses {
    attempt: u32,
    backoff: Backoff,
}

impl Default for Pauses {
    fn default() -> Self {
        Pauses { attempt: 0, backoff: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE) }
    }
}

impl Pauses {
    /// Number of the attempt that is due or in progress; 0 before the first.
    pub(super) fn attempt(&self) -> u32 {
        self.attempt
    }

    /// A session was lost that had lasted for `life`.
    pub(super) fn lived(&mut self, life: Duration) {
        if life >= GOOD_LIFE {
            *self = Pauses::default();
        }
    }

    /// The pause before the next attempt.
    pub(super) fn next(&mut self) -> Duration {
        self.attempt = self.attempt.saturating_add(1);
        self.backoff.pause()
    }
}

/// What all sessions of a destination are created from.
pub(super) struct Origin {
    pub bridge: Arc<Bridge>,
    pub spec: SessionSpec,
    pub keys: Keys,
    /// Ends what outlives a session: the datagram socket, and the connection that opens the next session.
    pub scope: Arc<Scope>,
}

/// The attempt to reopen a lost session, if one is in progress.
pub(super) struct Recovery {
    /// Held while stepping; others skip.
    attempt: RankedMutex<Option<Attempt>>,
}

struct Attempt {
    /// Set until the router has let go of the last session.
    letting_go: Option<Watched<LettingGo>>,
    connection: Watched<BridgeConnection>,
    id: String,
    until: Deadline,
    claim: Claim,
}

pub(super) enum RecoveryStep {
    /// No attempt is in progress, another thread is stepping it, or the router has not let go of the last session.
    Idle,
    /// Connecting to the bridge, or (`asked`) waiting for it to create the session.
    Waits { asked: bool },
    /// The bridge has created a session. The claim is to be kept until the session has begun.
    Created(Box<NewSession>, Claim),
    /// The attempt failed, or could not even be started (not `begun`).
    Failed { begun: bool, error: Error },
}

impl Default for Recovery {
    fn default() -> Self {
        Recovery { attempt: RankedMutex::new(Rank::Recovery, None) }
    }
}

impl Recovery {
    /// Gets as far as possible without blocking. Starts an attempt if one is `due` and none is in progress.
    pub(super) fn step(&self, origin: &Origin, work: &Arc<Watch>, due: bool, now: Instant) -> RecoveryStep {
        let Some(mut slot) = self.attempt.try_lock() else { return RecoveryStep::Idle };
        if due && slot.is_none() {
            match Attempt::begin(origin, work, now) {
                Ok(attempt) => *slot = Some(attempt),
                Err(error) => return RecoveryStep::Failed { begun: false, error },
            }
        }
        let Some(attempt) = slot.as_mut() else { return RecoveryStep::Idle };
        if let Some(letting_go) = &mut attempt.letting_go {
            match letting_go.step(|letting_go| letting_go.step(now)) {
                Ok(Progress::Block) => return RecoveryStep::Idle,
                Ok(Progress::Done) => {}
                Err(error) => {
                    *slot = None;
                    return RecoveryStep::Failed { begun: true, error };
                }
            }
            attempt.letting_go = None;
            attempt.until = after(attempt.connection.get().default_timeout(), now);
        }
        let result = match attempt.connection.step(|connection| connection.step(now)) {
            Ok(Progress::Block) if passed(attempt.until, now) => {
                Err(Error::new(Status::Timeout, Operation::Create, "the session could not be opened again in time"))
            }
            Ok(Progress::Block) => {
                return RecoveryStep::Waits { asked: attempt.connection.get().phase() == Phase::Reply };
            }
            Ok(Progress::Done) => attempt.created(origin),
            // It had a session of this style before, so this is no reason to give up.
            Err(error) if error.status == Status::Unsupported && attempt.connection.get().is_gone() => {
                Err(Error { status: Status::Closed, ..error })
            }
            Err(error) => Err(error),
        };
        if result.as_ref().is_err_and(|error| error.status != Status::Network) {
            attempt.leave_behind(origin, now);
        }
        match (result, slot.take()) {
            (Ok(session), Some(attempt)) => RecoveryStep::Created(Box::new(session), attempt.claim),
            (Err(error), _) => RecoveryStep::Failed { begun: true, error },
            (Ok(_), None) => RecoveryStep::Idle,
        }
    }

    /// When a step is due even without an event: `due` if no attempt is in progress. `None` while another thread is
    /// stepping, which will look again afterwards.
    pub(super) fn deadline(&self, due: Deadline) -> Deadline {
        let attempt = self.attempt.try_lock()?;
        let Some(attempt) = attempt.as_ref() else { return due };
        match &attempt.letting_go {
            Some(letting_go) => letting_go.get().deadline(),
            None => earlier(attempt.until, attempt.connection.get().deadline()),
        }
    }

    pub(super) fn stop(&self, origin: &Origin, now: Instant) {
        if let Some(attempt) = self.attempt.lock().take() {
            attempt.leave_behind(origin, now);
        }
    }

    /// For a child of fork(2): closes our copies, unless a thread of the parent held the lock.
    pub(super) fn abandon(&self) {
        if let Some(mut attempt) = self.attempt.try_lock() {
            *attempt = None;
        }
    }
}

impl Attempt {
    fn begin(origin: &Origin, work: &Arc<Watch>, now: Instant) -> Result<Self> {
        let claim = last_session::claim(origin.keys.address(), &origin.bridge, now)?;
        let id = SessionSpec::new_id()?;
        let request = origin.spec.request(id.clone(), origin.keys.duplicate().into());
        let connection = BridgeConnection::new(Arc::clone(&origin.bridge), Arc::clone(&origin.scope), request)?;
        let letting_go = LettingGo::new(&origin.bridge, &origin.scope, origin.keys.address().clone());
        let letting_go = Some(Watched::new(letting_go, work));
        let until = after(connection.default_timeout(), now);
        Ok(Attempt { letting_go, connection: Watched::new(connection, work), id, until, claim })
    }

    /// The bridge was asked for a session and did not say that there will be none: there may be one, until now.
    fn leave_behind(&self, origin: &Origin, now: Instant) {
        if self.connection.get().is_asked() {
            last_session::record(origin.keys.address(), now, &[]);
            last_session::doubt(origin.keys.address());
        }
    }

    fn created(&mut self, origin: &Origin) -> Result<NewSession> {
        let created = self.connection.get_mut().finish()?;
        SessionSpec::check_same(&SessionSpec::keys_of(&created)?, origin.keys.address())?;
        let (id, style, port) = (std::mem::take(&mut self.id), origin.spec.style, origin.spec.port.clone());
        Ok(NewSession { id, address: origin.keys.address().clone(), style, created, port })
    }
}
