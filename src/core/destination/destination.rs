//! A destination of ours on the router: its session and, when that is lost, the next one. Shared by all its handles.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Once, OnceState};

use crate::core::bridge::{Bridge, Finished};
use crate::core::destination::recovery::{Origin, Recovery, RecoveryStep};
use crate::core::destination::state::{is_hopeless, Life, State};
use crate::core::drive::{earlier, log, Deadline, Driven, Driver, Face, Scope};
use crate::core::session::{NewSession, Session, SessionSpec, Signals};
use crate::error::{Error, Operation, Result, Status};
use crate::identity::Keys;
use crate::protocol::style::Style;
use crate::sys::lock::{Rank, RankedMutex};
use crate::sys::{Wake, Watch};

/// Everything needed to start a destination.
pub struct NewDestination {
    pub spec: SessionSpec,
    pub keys: Keys,
    pub id: String,
    /// The result of the connection that created the first session.
    pub created: Finished,
}

/// Something that stays with a destination from session to session: a listener.
pub trait Follower: Send + Sync {
    /// Gets as far as possible on the current session without blocking.
    fn run(&self, session: &Arc<Session>, now: Instant);

    /// When it has to run even without an event.
    fn deadline(&self) -> Deadline;

    /// Called when the destination has ended.
    fn end(&self);

    /// For a child of fork(2): closes our copies of its descriptors.
    fn abandon(&self);
}

pub struct Destination {
    origin: Origin,
    signals: Signals,
    face: Face,
    handles: AtomicUsize,
    present: RankedMutex<Present>,
    recovery: Recovery,
    /// Dropped when the destination ends.
    kept: RankedMutex<Option<Box<dyn Send>>>,
    /// Done once `kept` was dropped.
    released: Once,
    followers: RankedMutex<Vec<Weak<dyn Follower>>>,
}

struct Present {
    /// The current session, or the last one.
    session: Arc<Session>,
    life: Life,
    /// Set at every state change, besides `signals.changed`.
    watchers: Vec<Weak<Wake>>,
}

impl Destination {
    /// Takes over the connection that created the first session. Starts with one handle.
    pub fn begin(bridge: Arc<Bridge>, driver: Driver, new: NewDestination, now: Instant) -> Result<Arc<Self>> {
        let _edge = log::edge();
        let NewDestination { spec, keys, id, created } = new;
        let system = |error| Error::io(Operation::Create, "a descriptor for the destination", &error);
        let signals = Signals {
            work: Arc::new(Watch::new().map_err(system)?),
            changed: Arc::new(Wake::new().map_err(system)?),
            driver: driver.of_one(),
        };
        let face = Face::new(&signals.driver, &signals.changed, &signals.work).map_err(system)?;
        let scope = Arc::new(Scope::default());
        if let Some(port) = &spec.port {
            // The descriptor is shut down when the destination ends, which wakes threads waiting on it.
            scope.add(&port.socket)?;
        }
        let address = keys.address().clone();
        let new = NewSession { id, address, style: spec.style, created, port: spec.port.clone() };
        let session = Session::begin(Arc::clone(&bridge), signals.clone(), new, now)?;
        signals.changed.set();
        let destination = Arc::new(Destination {
            origin: Origin { bridge, spec, keys, scope },
            signals,
            face,
            handles: AtomicUsize::new(1),
            present: RankedMutex::new(Rank::Present, Present { session, life: Life::new(now), watchers: Vec::new() }),
            recovery: Recovery::default(),
            kept: RankedMutex::new(Rank::Kept, None),
            released: Once::new(),
            followers: RankedMutex::new(Rank::Followers, Vec::new()),
        });
        destination.drive(now);
        destination.signals.driver.add(destination.as_driven())?;
        Ok(destination)
    }

    pub fn bridge(&self) -> &Arc<Bridge> {
        &self.origin.bridge
    }

    pub fn spec(&self) -> &SessionSpec {
        &self.origin.spec
    }

    pub fn style(&self) -> Style {
        self.origin.spec.style
    }

    pub fn keys(&self) -> &Keys {
        &self.origin.keys
    }

    pub fn signals(&self) -> &Signals {
        &self.signals
    }

    /// The current session, or the last one.
    pub fn session(&self) -> Arc<Session> {
        Arc::clone(&self.present.lock().session)
    }

    /// The current session; fails with CLOSED while there is none.
    pub fn live(&self, operation: Operation) -> Result<Arc<Session>> {
        self.check(operation)?;
        let session = self.session();
        let Some(cause) = session.scope().cause() else { return Ok(session) };
        self.check(operation)?;
        let message = match self.origin.spec.recover {
            true => format!("{} (it is being opened again)", cause.message),
            false => cause.message,
        };
        Err(Error { message, ..cause }.during(operation))
    }

    /// Fails if the destination has ended.
    pub fn check(&self, operation: Operation) -> Result<()> {
        self.origin.scope.check(operation)
    }

    fn has_ended(&self) -> bool {
        self.origin.scope.has_ended()
    }

    /// Adds a handle; `false` if the last one is already gone.
    pub fn join(self: &Arc<Self>) -> bool {
        let more = |handles: usize| if handles == 0 { None } else { handles.checked_add(1) };
        !self.has_ended() && self.handles.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok()
    }

    /// Removes a handle; removing the last one ends the destination.
    pub fn leave(self: &Arc<Self>) {
        let less = |handles: usize| handles.checked_sub(1);
        // After a shutdown the count is already 0.
        if self.handles.fetch_update(Ordering::AcqRel, Ordering::Acquire, less) == Ok(1) {
            self.end("the destination was closed");
        }
    }

    /// Ends the destination, its session and everything on it.
    pub fn end(self: &Arc<Self>, message: &str) {
        let _edge = log::edge();
        let now = Instant::now();
        self.handles.store(0, Ordering::Release);
        let cause = Error::closed(Operation::Session, message);
        self.die(cause.clone(), now);
        // Streams survive the loss of a session, but not the end of the destination.
        self.session().finish(cause, true, now);
        self.signals.driver.remove();
        // From here on no thread drives it.
        self.recovery.stop(&self.origin, now);
        // Last: the session is gone from the router before another process can get the name.
        self.release();
    }

    fn die(&self, cause: Error, now: Instant) {
        let session = {
            let mut present = self.present.lock();
            if present.life.state() == State::Dead {
                return;
            }
            self.change(&mut present, |life| life.die(cause.clone()));
            Arc::clone(&present.session)
        };
        session.finish(cause.clone(), false, now);
        self.origin.scope.end(cause, true);
        for follower in self.followers() {
            follower.end();
        }
    }

    /// For a child of fork(2), where everything belongs to the parent: closes our copies of its descriptors and does
    /// nothing else.
    pub fn abandon(self: &Arc<Self>) {
        // Do this first: the watch is shared with the parent, and what is dropped below must not be removed from it.
        self.signals.changed.abandon();
        self.signals.work.abandon();
        self.face.abandon();
        if let Some(present) = self.present.try_lock() {
            present.session.abandon();
        }
        self.recovery.abandon();
        if let Some(mut kept) = self.kept.try_lock() {
            *kept = None;
        }
        if let Some(followers) = self.followers.try_lock() {
            for follower in followers.iter().filter_map(Weak::upgrade) {
                follower.abandon();
            }
        }
        self.signals.driver.abandon();
    }

    /// Descriptor that is readable while [`Destination::service`] has something to do or report.
    pub fn fd(&self) -> RawFd {
        self.face.fd(&self.signals.changed)
    }

    /// Milliseconds until the program has to call [`Destination::service`] even without an event; -1 for never.
    pub fn timeout_ms(&self, now: Instant) -> i32 {
        match self.origin.bridge.process.in_child() {
            true => -1,
            false => self.signals.driver.timeout_ms(self, now),
        }
    }

    /// The current state, the number of the attempt to reopen the session, and why there is no session.
    pub fn state(&self) -> (State, u32, Option<Error>) {
        let told = |life: &Life| (life.state(), life.attempt(), life.cause().cloned());
        if self.origin.bridge.process.in_child() {
            // The thread holding the lock may not exist here.
            return self.present.try_lock().map_or((State::Dead, 0, None), |present| told(&present.life));
        }
        let present = self.present.lock();
        match (present.life.state(), present.session.scope().cause()) {
            // The loss of the session has not been noticed yet.
            (State::Ready, Some(cause)) if self.origin.spec.recover => {
                (State::Recovering, present.life.attempt() + 1, Some(cause))
            }
            (State::Ready, Some(cause)) => (State::Dead, 0, Some(cause)),
            _ => told(&present.life),
        }
    }

    /// Sets `watcher` at every state change, until it is dropped.
    pub fn tell(&self, watcher: &Arc<Wake>) {
        let mut present = self.present.lock();
        present.watchers.retain(|known| known.strong_count() > 0);
        present.watchers.push(Arc::downgrade(watcher));
    }

    /// Checks whether the session was lost, without driving it.
    pub fn look(&self, now: Instant) {
        let _edge = log::edge();
        self.notice(now);
        if self.has_ended() {
            self.release_unless_busy();
        }
    }

    /// Does pending work, if there is no keeper, and returns the next state change not reported yet.
    pub fn service(&self, now: Instant) -> Option<State> {
        match self.signals.driver.is_caller() {
            true => self.drive(now),
            // The keeper may not have noticed yet.
            false => self.look(now),
        }
        let mut present = self.present.lock();
        let change = present.life.next_change();
        if present.life.is_told() {
            self.signals.changed.clear();
        }
        change
    }

    /// Gets as far as possible without blocking.
    pub fn drive(&self, now: Instant) {
        let _edge = log::edge();
        if !self.run(now) {
            self.release_unless_busy();
        }
        // It may have come meanwhile, skipped what was locked here, and seen no deadline.
        self.signals.driver.poke();
    }

    /// Releases what was kept, unless another thread is at it: that may take long.
    fn release_unless_busy(&self) {
        if self.released.state() == OnceState::New {
            self.release();
        }
    }

    /// Adds a follower, which runs whenever the destination is driven.
    pub fn follow(&self, follower: &Arc<dyn Follower>) {
        {
            let mut followers = self.followers.lock();
            followers.retain(|known| known.strong_count() > 0);
            followers.push(Arc::downgrade(follower));
        }
        // The destination may have ended in between, without knowing of this one.
        if self.has_ended() {
            follower.end();
        }
    }

    fn followers(&self) -> Vec<Arc<dyn Follower>> {
        self.followers.lock().iter().filter_map(Weak::upgrade).collect()
    }

    /// Keeps `kept` until the destination ends; dropping it releases a name.
    pub fn keep(&self, kept: Box<dyn Send>) {
        *self.kept.lock() = Some(kept);
        // The destination may have ended in between.
        if self.has_ended() {
            let kept = self.kept.lock().take();
            drop(kept);
        }
    }

    fn as_driven(self: &Arc<Self>) -> Arc<dyn Driven> {
        Arc::<Destination>::clone(self)
    }

    /// Changes the state and wakes those waiting for state changes.
    fn change(&self, present: &mut Present, change: impl FnOnce(&mut Life)) {
        let before = present.life.state();
        change(&mut present.life);
        if present.life.state() != before {
            self.signals.changed.set();
            present.watchers.iter().filter_map(Weak::upgrade).for_each(|watcher| watcher.set());
        }
    }

    /// If the session was lost, starts recovering or ends the destination.
    fn notice(&self, now: Instant) {
        let cause = {
            let mut present = self.present.lock();
            let is_ready = present.life.state() == State::Ready;
            let Some(cause) = present.session.scope().cause().filter(|_| is_ready) else { return };
            if self.origin.spec.recover {
                return self.pause(&mut present, |life| life.lost(cause, now));
            }
            cause
        };
        self.die(cause, now);
    }

    /// Changes the state to a pause and logs its length.
    fn pause(&self, present: &mut Present, change: impl FnOnce(&mut Life) -> Duration) {
        let mut pause = Duration::ZERO;
        self.change(present, |life| pause = change(life));
        let attempt = present.life.attempt();
        self.origin.bridge.log.line(|| format!("reopening the session in {} s (attempt {attempt})", pause.as_secs()));
    }

    /// Reopens the session, as far as possible without blocking.
    fn reopen(&self, now: Instant) {
        let due = self.present.lock().life.is_due(now);
        match self.recovery.step(&self.origin, &self.signals.work, due, now) {
            RecoveryStep::Idle => {}
            RecoveryStep::Waits { asked } => self.attempting(asked),
            RecoveryStep::Created(session, _claim) => {
                // The program should see the same state changes however fast the router was.
                self.attempting(true);
                if let Err(error) = self.renew(*session, now) {
                    self.failed(error, now);
                }
            }
            RecoveryStep::Failed { begun, error } => {
                if begun {
                    self.attempting(false);
                }
                self.failed(error, now);
            }
        }
    }

    fn attempting(&self, asked: bool) {
        let mut present = self.present.lock();
        // One after the other, since each is a state change to report.
        if present.life.state() == State::Recovering {
            self.change(&mut present, Life::connecting);
        }
        if asked {
            self.change(&mut present, Life::building);
        }
    }

    /// Starts using a new session.
    fn renew(&self, new: NewSession, now: Instant) -> Result<()> {
        let session = Session::begin(Arc::clone(&self.origin.bridge), self.signals.clone(), new, now)?;
        let ended = {
            let mut present = self.present.lock();
            let dead = present.life.state() == State::Dead;
            let ended = present.life.cause().filter(|_| dead).cloned();
            if ended.is_none() {
                present.session = Arc::clone(&session);
                self.change(&mut present, |life| life.ready(now));
            }
            ended
        };
        if let Some(cause) = ended {
            session.finish(cause, true, now);
        }
        Ok(())
    }

    fn failed(&self, error: Error, now: Instant) {
        self.origin.bridge.log.line(|| format!("reopening the session failed: {}", error.message));
        let hopeless = is_hopeless(&error);
        {
            let mut present = self.present.lock();
            if present.life.state() == State::Dead {
                return;
            }
            if !hopeless {
                return self.pause(&mut present, |life| life.failed(error, now));
            }
        }
        self.die(Error { status: Status::Closed, ..error }, now);
    }
}

impl Driven for Destination {
    fn work(&self) -> RawFd {
        self.signals.work.as_raw_fd()
    }

    fn deadline(&self) -> Deadline {
        let session = self.session().deadline();
        let due = self.present.lock().life.due();
        let due = earlier(self.recovery.deadline(due), session);
        self.followers().iter().fold(due, |sum, follower| earlier(sum, follower.deadline()))
    }

    fn run(&self, now: Instant) -> bool {
        self.session().drive(now);
        self.notice(now);
        self.reopen(now);
        for follower in self.followers() {
            follower.run(&self.session(), now);
        }
        !self.has_ended()
    }

    fn has_kept(&self) -> bool {
        self.kept.lock().is_some()
    }

    fn release(&self) {
        self.released.call_once(|| {
            // Not dropped under the lock.
            let kept = self.kept.lock().take();
            drop(kept);
        });
    }
}
