//! A destination of ours on the router: its session and, when that is lost, the next one. Handles share it.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

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

/// Everything a destination is made of when it begins.
pub struct NewDestination {
    /// What its sessions are made from.
    pub spec: SessionSpec,
    /// Private keys.
    pub keys: Keys,
    /// SAM id of the first session.
    pub id: String,
    /// The connection that created the first session.
    pub created: Finished,
}

/// What goes on from session to session with a destination: a listener.
pub trait Follower: Send + Sync {
    /// Does what can be done without waiting on the session there is.
    fn run(&self, session: &Arc<Session>, now: Instant);

    /// When it has to be driven even without an event.
    fn deadline(&self) -> Deadline;

    /// The destination has ended.
    fn end(&self);

    /// In a child of fork(2): closes our copies of its descriptors.
    fn abandon(&self);
}

/// A destination of ours.
pub struct Destination {
    origin: Origin,
    signals: Signals,
    /// What the program polls.
    face: Face,
    handles: AtomicUsize,
    present: RankedMutex<Present>,
    recovery: Recovery,
    /// What is dropped when it ends.
    kept: RankedMutex<Option<Box<dyn Send>>>,
    followers: RankedMutex<Vec<Weak<dyn Follower>>>,
}

struct Present {
    /// The session there is, or the last one there was.
    session: Arc<Session>,
    life: Life,
    /// Who else is told of changes.
    watchers: Vec<Weak<Wake>>,
}

impl Destination {
    /// Begins with the connection that created the first session. It has one handle.
    pub fn begin(bridge: Arc<Bridge>, driver: Driver, new: NewDestination, now: Instant) -> Result<Arc<Self>> {
        let _edge = log::edge();
        let NewDestination { spec, keys, id, created } = new;
        let system = |error| Error::io(Operation::Create, "a descriptor for the destination", &error);
        let signals = Signals {
            work: Arc::new(Watch::new().map_err(system)?),
            changed: Arc::new(Wake::new().map_err(system)?),
            driver,
        };
        let face = Face::new(&signals.driver, &signals.changed, &signals.work).map_err(system)?;
        let scope = Arc::new(Scope::default());
        if let Some(port) = &spec.port {
            // The descriptor ends with the destination, which wakes those who wait on it.
            scope.add(&port.socket)?;
        }
        let new = NewSession { id, style: spec.style, created, port: spec.port.clone() };
        let session = Session::begin(Arc::clone(&bridge), signals.clone(), new)?;
        signals.changed.set();
        let destination = Arc::new(Destination {
            origin: Origin { bridge, spec, keys, scope },
            signals,
            face,
            handles: AtomicUsize::new(1),
            present: RankedMutex::new(Rank::Present, Present { session, life: Life::new(now), watchers: Vec::new() }),
            recovery: Recovery::default(),
            kept: RankedMutex::new(Rank::Kept, None),
            followers: RankedMutex::new(Rank::Followers, Vec::new()),
        });
        destination.drive(now);
        destination.signals.driver.add(destination.as_driven())?;
        Ok(destination)
    }

    /// The bridge its sessions are asked of.
    pub fn bridge(&self) -> &Arc<Bridge> {
        &self.origin.bridge
    }

    /// What its sessions are made from.
    pub fn spec(&self) -> &SessionSpec {
        &self.origin.spec
    }

    /// What it carries.
    pub fn style(&self) -> Style {
        self.origin.spec.style
    }

    /// Private keys.
    pub fn keys(&self) -> &Keys {
        &self.origin.keys
    }

    /// Its descriptors, and who drives it.
    pub fn signals(&self) -> &Signals {
        &self.signals
    }

    /// The session there is, or the last one there was.
    pub fn session(&self) -> Arc<Session> {
        Arc::clone(&self.present.lock().session)
    }

    /// The session there is; CLOSED while there is none.
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

    /// The error for whatever is tried on a destination that has ended.
    pub fn check(&self, operation: Operation) -> Result<()> {
        self.origin.scope.check(operation)
    }

    fn has_ended(&self) -> bool {
        self.origin.scope.has_ended()
    }

    /// One handle more; `false` when the last one is gone already.
    pub fn join(self: &Arc<Self>) -> bool {
        let more = |handles: usize| if handles == 0 { None } else { handles.checked_add(1) };
        !self.has_ended() && self.handles.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok()
    }

    /// One handle less; the last one ends it.
    pub fn leave(self: &Arc<Self>) {
        let less = |handles: usize| handles.checked_sub(1);
        // None are left when it was shut down.
        if self.handles.fetch_update(Ordering::AcqRel, Ordering::Acquire, less) == Ok(1) {
            self.end("the destination was closed");
        }
    }

    /// Ends it, its session and everything on it.
    pub fn end(self: &Arc<Self>, message: &str) {
        let _edge = log::edge();
        self.handles.store(0, Ordering::Release);
        // Dropped last, and by this thread: the router is left before the name is.
        let _kept = self.take_kept();
        let cause = Error::closed(Operation::Session, message);
        self.die(cause.clone());
        // Streams outlive a session that was lost, but not this.
        self.session().finish(cause, true);
        self.signals.driver.remove(&self.as_driven());
        // Nothing drives it any more, or begins to.
        self.recovery.stop();
    }

    fn die(&self, cause: Error) {
        let session = {
            let mut present = self.present.lock();
            if present.life.state() == State::Dead {
                return;
            }
            self.change(&mut present, |life| life.die(cause.clone()));
            Arc::clone(&present.session)
        };
        session.finish(cause.clone(), false);
        self.origin.scope.end(cause, true);
        for follower in self.followers() {
            follower.end();
        }
    }

    /// In a child of fork(2) all of it is the parent's: our copies of its descriptors are closed and nothing else.
    pub fn abandon(self: &Arc<Self>) {
        // First: what is taken from a watch later must not be taken from the parent's.
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
        self.signals.driver.abandon(&self.as_driven());
    }

    /// Descriptor that is readable while `service` has something to do or to report.
    pub fn fd(&self) -> RawFd {
        self.face.fd(&self.signals.changed)
    }

    /// Milliseconds until the program has to drive it even without an event; -1 for never.
    pub fn timeout_ms(&self, now: Instant) -> i32 {
        match self.origin.bridge.process.in_child() {
            true => -1,
            false => self.signals.driver.timeout_ms(self, now),
        }
    }

    /// Present state, number of the attempt to open the session again, and why there is none.
    pub fn state(&self) -> (State, u32, Option<Error>) {
        let told = |life: &Life| (life.state(), life.attempt(), life.cause().cloned());
        if self.origin.bridge.process.in_child() {
            // A thread that had the lock is not here.
            return self.present.try_lock().map_or((State::Dead, 0, None), |present| told(&present.life));
        }
        let present = self.present.lock();
        match (present.life.state(), present.session.scope().cause()) {
            // The loss has not been noticed yet.
            (State::Ready, Some(cause)) if self.origin.spec.recover => {
                (State::Recovering, present.life.attempt() + 1, Some(cause))
            }
            (State::Ready, Some(cause)) => (State::Dead, 0, Some(cause)),
            _ => told(&present.life),
        }
    }

    /// Sets `watcher` at every change, as long as it lives.
    pub fn tell(&self, watcher: &Arc<Wake>) {
        let mut present = self.present.lock();
        present.watchers.retain(|known| known.strong_count() > 0);
        present.watchers.push(Arc::downgrade(watcher));
    }

    /// Sees whether the session was lost.
    pub fn look(&self, now: Instant) {
        let _edge = log::edge();
        self.notice(now);
        if self.has_ended() {
            drop(self.take_kept());
        }
    }

    /// Does pending work (without a keeper) and returns the next change that was not reported yet.
    pub fn service(&self, now: Instant) -> Option<State> {
        match self.signals.driver.is_caller() {
            true => self.drive(now),
            // The keeper may not have got there yet.
            false => self.look(now),
        }
        let mut present = self.present.lock();
        let change = present.life.next_change();
        if present.life.is_told() {
            self.signals.changed.clear();
        }
        change
    }

    /// Does what can be done without waiting.
    pub fn drive(&self, now: Instant) {
        let _edge = log::edge();
        if !self.run(now) {
            drop(self.take_kept());
        }
    }

    /// Takes what follows it from session to session; it is driven from now on.
    pub fn follow(&self, follower: &Arc<dyn Follower>) {
        {
            let mut followers = self.followers.lock();
            followers.retain(|known| known.strong_count() > 0);
            followers.push(Arc::downgrade(follower));
        }
        // It may have ended in between, without knowing of this one.
        if self.has_ended() {
            follower.end();
        }
    }

    fn followers(&self) -> Vec<Arc<dyn Follower>> {
        self.followers.lock().iter().filter_map(Weak::upgrade).collect()
    }

    /// Keeps `kept` until it ends: dropping it gives a name back.
    pub fn keep(&self, kept: Box<dyn Send>) {
        *self.kept.lock() = Some(kept);
        // It may have ended in between.
        if self.has_ended() {
            drop(self.take_kept());
        }
    }

    fn as_driven(self: &Arc<Self>) -> Arc<dyn Driven> {
        Arc::<Destination>::clone(self)
    }

    /// Changes the state and wakes those who wait for that.
    fn change(&self, present: &mut Present, change: impl FnOnce(&mut Life)) {
        let before = present.life.state();
        change(&mut present.life);
        if present.life.state() != before {
            self.signals.changed.set();
            present.watchers.iter().filter_map(Weak::upgrade).for_each(|watcher| watcher.set());
        }
    }

    /// Sees whether the session was lost.
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
        self.die(cause);
    }

    /// Changes the state to a pause, and says in the log how long it is.
    fn pause(&self, present: &mut Present, change: impl FnOnce(&mut Life) -> Duration) {
        let mut pause = Duration::ZERO;
        self.change(present, |life| pause = change(life));
        let attempt = present.life.attempt();
        self.origin.bridge.log.line(|| format!("attempt {attempt} to open the session again in {} s", pause.as_secs()));
    }

    /// Opens the next session, as far as that is possible now.
    fn reopen(&self, now: Instant) {
        let due = self.present.lock().life.is_due(now);
        match self.recovery.step(&self.origin, &self.signals.work, due, now) {
            RecoveryStep::Idle => {}
            RecoveryStep::Waits { asked } => self.attempting(asked),
            RecoveryStep::Created(session) => {
                // However quick the router was, a program sees the same changes.
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
        // One after the other: each is a change to be told.
        if present.life.state() == State::Recovering {
            self.change(&mut present, Life::connecting);
        }
        if asked {
            self.change(&mut present, Life::building);
        }
    }

    /// There is a session again.
    fn renew(&self, new: NewSession, now: Instant) -> Result<()> {
        let session = Session::begin(Arc::clone(&self.origin.bridge), self.signals.clone(), new)?;
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
            session.finish(cause, true);
        }
        Ok(())
    }

    fn failed(&self, error: Error, now: Instant) {
        self.origin.bridge.log.line(|| format!("the session could not be opened again: {}", error.message));
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
        self.die(Error { status: Status::Closed, ..error });
    }
}

impl Driven for Destination {
    fn work(&self) -> RawFd {
        self.signals.work.as_raw_fd()
    }

    fn deadline(&self) -> Deadline {
        let due = earlier(self.present.lock().life.due(), self.recovery.deadline());
        self.followers().iter().fold(due, |sum, follower| earlier(sum, follower.deadline()))
    }

    fn run(&self, now: Instant) -> bool {
        self.session().drive();
        self.notice(now);
        self.reopen(now);
        for follower in self.followers() {
            follower.run(&self.session(), now);
        }
        !self.has_ended()
    }

    fn take_kept(&self) -> Option<Box<dyn Send>> {
        self.kept.lock().take()
    }
}
