//! A destination's presence on the router: its session and, when that is lost, the next one. Handles share it.

mod recovery;

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::Mutex;

use crate::core::bridge::{Bridge, Finished};
use crate::core::destination::destination::recovery::Attempt;
use crate::core::drive::{earlier, poll_timeout, Deadline, Driven, Keeper, Log, Scope};
use crate::core::session::{Home, NewSession, Session, SessionSpec};
use crate::error::{Error, Operation, Result};
use crate::identity::Keys;
use crate::protocol::style::Style;
use crate::sys::{self, Wake, Watch};

/// Changes kept for a program that does not ask for them; the oldest go.
const CHANGES: usize = 64;

/// Life of a destination as a program sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum State {
    /// The bridge is being reached, to open the lost session again.
    Connecting = 1,
    /// The bridge was asked for a session: tunnels are being built.
    Building = 2,
    /// There is a session.
    Ready = 3,
    /// The session was lost; after a pause it is opened again.
    Recovering = 4,
    /// The destination has ended.
    Dead = 5,
}

/// Everything a presence is made of when it begins.
pub struct NewDestination {
    /// What its sessions are made from.
    pub recipe: SessionSpec,
    /// Private keys.
    pub keys: Keys,
    /// SAM id of the first session.
    pub id: String,
    /// The exchange that created the first session.
    pub created: Finished,
}

/// What goes on from session to session with a destination: a listener.
pub trait Follower: Send + Sync {
    /// Does what can be done without waiting on the session there is.
    fn run(&self, session: &Arc<Session>, log: &mut Vec<String>);

    /// When it has to be driven even without an event.
    fn deadline(&self) -> Deadline;

    /// The destination has ended.
    fn end(&self);

    /// In a child of fork(2): closes our copies of its descriptors.
    fn abandon(&self);
}

/// A destination's presence on the router.
pub struct Destination {
    bridge: Arc<Bridge>,
    recipe: SessionSpec,
    keys: Keys,
    home: Home,
    /// Without a keeper: what the program polls, everything that `home.work` and `home.changed` tell.
    face: Option<Watch>,
    /// What lives across sessions: the datagram socket, and the connection that opens the next session.
    scope: Arc<Scope>,
    handles: AtomicUsize,
    present: Mutex<Present>,
    /// Whoever drives it has the lock; others do not wait for it.
    attempt: Mutex<Option<Attempt>>,
    /// What is dropped when it ends.
    kept: Mutex<Option<Box<dyn Send>>>,
    followers: Mutex<Vec<Weak<dyn Follower>>>,
}

struct Present {
    session: Arc<Session>,
    state: State,
    unseen: VecDeque<State>,
    /// Who else wants to know of changes.
    watchers: Vec<Weak<Wake>>,
    /// Number of the attempt to open the session again; 0 before the first.
    attempt: u32,
    /// Why there is no session.
    error: Option<Error>,
    /// When the next attempt is due.
    due: Deadline,
    ready_since: Instant,
}

impl Present {
    fn change(&mut self, state: State, home: &Home) {
        if self.state != state {
            self.state = state;
            if self.unseen.len() == CHANGES {
                self.unseen.pop_front();
            }
            self.unseen.push_back(state);
            home.changed.set();
            self.watchers.iter().filter_map(Weak::upgrade).for_each(|watcher| watcher.set());
        }
    }
}

impl Destination {
    /// Begins with the connection that created the first session. It has one handle.
    pub fn begin(bridge: Arc<Bridge>, keeper: Option<Arc<Keeper>>, beginning: NewDestination) -> Result<Arc<Self>> {
        let NewDestination { recipe, keys, id, created } = beginning;
        let system = |error| Error::io(Operation::Create, "a descriptor for the destination", &error);
        let home = Home {
            work: Arc::new(Watch::new().map_err(system)?),
            changed: Arc::new(Wake::new().map_err(system)?),
            keeper,
        };
        let face = match home.keeper {
            Some(_) => None,
            None => {
                let face = Watch::new().map_err(system)?;
                face.add(home.work.as_raw_fd(), sys::IN).map_err(system)?;
                face.add(home.changed.as_raw_fd(), sys::IN).map_err(system)?;
                Some(face)
            }
        };
        let scope = Arc::new(Scope::default());
        if let Some(port) = &recipe.port {
            // The descriptor ends with the destination, which wakes whoever waits on it.
            scope.add(&port.socket)?;
        }
        let birth = NewSession { id, style: recipe.style, created, port: recipe.port.clone() };
        let session = Session::begin(Arc::clone(&bridge), home.clone(), birth)?;
        home.changed.set();
        let presence = Arc::new(Destination {
            bridge,
            recipe,
            keys,
            home,
            face,
            scope,
            handles: AtomicUsize::new(1),
            present: Mutex::new(Present {
                session,
                state: State::Ready,
                unseen: VecDeque::from([State::Ready]),
                watchers: Vec::new(),
                attempt: 0,
                error: None,
                due: None,
                ready_since: Instant::now(),
            }),
            attempt: Mutex::new(None),
            kept: Mutex::new(None),
            followers: Mutex::default(),
        });
        presence.drive();
        if let Some(keeper) = &presence.home.keeper {
            let driven: Arc<dyn Driven> = Arc::<Destination>::clone(&presence);
            keeper.add(driven)?;
        }
        Ok(presence)
    }

    /// The bridge.
    pub fn bridge(&self) -> &Arc<Bridge> {
        &self.bridge
    }

    /// What its sessions are made from.
    pub fn recipe(&self) -> &SessionSpec {
        &self.recipe
    }

    /// What it carries.
    pub fn style(&self) -> Style {
        self.recipe.style
    }

    /// Private keys.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Descriptors it is known by to its sessions.
    pub fn home(&self) -> &Home {
        &self.home
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
        let message =
            if self.recipe.recover { format!("{} (it is being opened again)", cause.message) } else { cause.message };
        Err(Error { message, ..cause }.during(operation))
    }

    /// The error for whatever is tried on a destination that has ended.
    pub fn check(&self, operation: Operation) -> Result<()> {
        match self.scope.cause() {
            Some(cause) => Err(cause.during(operation)),
            None => Ok(()),
        }
    }

    /// One handle more; `false` when the last one is gone already.
    pub fn join(self: &Arc<Self>) -> bool {
        let more = |handles: usize| if handles == 0 { None } else { handles.checked_add(1) };
        self.scope.cause().is_none() && self.handles.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok()
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
        self.handles.store(0, Ordering::Release);
        let cause = Error::closed(Operation::Session, message);
        self.die(cause.clone());
        // Streams outlive a session that was lost, but not this.
        self.session().finish(cause, true);
        if let Some(keeper) = &self.home.keeper {
            keeper.remove(&self.as_driven());
        }
        // Nobody drives it any more, and nobody begins to: the router is left before the name is.
        drop(self.attempt.lock().take());
        drop(self.kept.lock().take());
    }

    fn die(&self, cause: Error) {
        let session = {
            let mut present = self.present.lock();
            if present.state == State::Dead {
                return;
            }
            present.error = Some(cause.clone());
            present.due = None;
            present.change(State::Dead, &self.home);
            Arc::clone(&present.session)
        };
        session.finish(cause.clone(), false);
        self.scope.end(cause, true);
        for follower in self.followers() {
            follower.end();
        }
    }

    /// In a child of fork(2) all of it is the parent's: our copies of its descriptors are closed and nothing else.
    pub fn abandon(self: &Arc<Self>) {
        if let Some(present) = self.present.try_lock() {
            present.session.abandon();
        }
        self.home.changed.abandon();
        self.home.work.abandon();
        if let Some(face) = &self.face {
            face.abandon();
        }
        if let Some(mut attempt) = self.attempt.try_lock() {
            *attempt = None;
        }
        if let Some(mut kept) = self.kept.try_lock() {
            *kept = None;
        }
        if let Some(followers) = self.followers.try_lock() {
            for follower in followers.iter().filter_map(Weak::upgrade) {
                follower.abandon();
            }
        }
        if let Some(keeper) = &self.home.keeper {
            keeper.abandon(&self.as_driven());
        }
    }

    /// Descriptor that is readable while `service` has something to do or to report.
    pub fn fd(&self) -> RawFd {
        self.face.as_ref().map_or(self.home.changed.as_raw_fd(), AsRawFd::as_raw_fd)
    }

    /// Milliseconds until the program has to drive it even without an event; -1 for never, as always with a keeper.
    pub fn timeout_ms(&self) -> i32 {
        match self.home.keeper {
            None if !self.bridge.process.in_child() => poll_timeout(self.deadline()),
            _ => -1,
        }
    }

    /// Present state, number of the attempt to open the session again, and why there is none.
    pub fn state(&self) -> (State, u32, Option<Error>) {
        if self.bridge.process.in_child() {
            // Whoever had the lock is not here.
            let present = self.present.try_lock();
            return present.map_or((State::Dead, 0, None), |p| (p.state, p.attempt, p.error.clone()));
        }
        let present = self.present.lock();
        match (present.state, present.session.scope().cause()) {
            // Nobody has looked at it yet.
            (State::Ready, Some(cause)) if self.recipe.recover => (State::Recovering, present.attempt + 1, Some(cause)),
            (State::Ready, Some(cause)) => (State::Dead, 0, Some(cause)),
            (state, _) => (state, present.attempt, present.error.clone()),
        }
    }

    /// Sets `watcher` at every change, whoever else hears of it; as long as there is somebody who has it.
    pub fn tell(&self, watcher: &Arc<Wake>) {
        let mut present = self.present.lock();
        present.watchers.retain(|known| known.strong_count() > 0);
        present.watchers.push(Arc::downgrade(watcher));
    }

    /// Sees whether the session was lost.
    pub fn look(&self) {
        let mut log = Vec::new();
        self.notice(&mut log);
        self.bridge.log.lines(log);
    }

    /// Does pending work (without a keeper) and returns the next unreported change.
    pub fn service(&self) -> Option<State> {
        match self.home.keeper {
            None => self.drive(),
            // It may not have got there yet.
            Some(_) => self.look(),
        }
        let mut present = self.present.lock();
        let change = present.unseen.pop_front();
        if present.unseen.is_empty() {
            self.home.changed.clear();
        }
        change
    }

    /// Does what can be done without waiting and shows the conversation to the program.
    pub fn drive(&self) {
        let mut log = Vec::new();
        self.run(&mut log);
        self.bridge.log.lines(log);
    }

    /// Takes what follows it from session to session; it is driven from now on.
    pub fn follow(&self, follower: &Arc<dyn Follower>) {
        {
            let mut followers = self.followers.lock();
            followers.retain(|known| known.strong_count() > 0);
            followers.push(Arc::downgrade(follower));
        }
        // It may have ended meanwhile, without knowing of this one.
        if self.scope.cause().is_some() {
            follower.end();
        }
    }

    fn followers(&self) -> Vec<Arc<dyn Follower>> {
        self.followers.lock().iter().filter_map(Weak::upgrade).collect()
    }

    /// Keeps `kept` until it ends: dropping it gives a name back.
    pub fn keep(&self, kept: Box<dyn Send>) {
        *self.kept.lock() = Some(kept);
        // It may have ended meanwhile.
        if self.scope.cause().is_some() {
            drop(self.kept.lock().take());
        }
    }

    fn as_driven(self: &Arc<Self>) -> Arc<dyn Driven> {
        Arc::<Destination>::clone(self)
    }
}

impl Driven for Destination {
    fn work(&self) -> RawFd {
        self.home.work.as_raw_fd()
    }

    fn deadline(&self) -> Deadline {
        let due = match &*self.present.lock() {
            Present { state: State::Recovering, due, .. } => *due,
            _ => None,
        };
        // Somebody who has the lock is at work, and looks at it himself afterwards.
        let attempt = self.attempt.try_lock().and_then(|attempt| {
            attempt.as_ref().and_then(|attempt| earlier(attempt.deadline, attempt.exchange.deadline()))
        });
        self.followers().iter().fold(earlier(due, attempt), |sum, follower| earlier(sum, follower.deadline()))
    }

    fn run(&self, log: &mut Vec<String>) -> bool {
        self.session().run(log);
        self.notice(log);
        self.reopen(log);
        for follower in self.followers() {
            follower.run(&self.session(), log);
        }
        self.scope.cause().is_none()
    }

    fn log(&self) -> &Log {
        &self.bridge.log
    }
}
