//! Accepts that are kept armed, so that streams come without anybody asking for each of them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::core::bridge::BridgeConnection;
use crate::core::destination::Follower;
use crate::core::drive::{after, earlier, passed, Deadline, Progress};
use crate::core::listener::forward::Forward;
use crate::core::session::{accepted, AbandonedAccept, Session};
use crate::core::stream::Stream;
use crate::error::{Error, Operation, Result};
use crate::protocol::request::Request;
use crate::sys::{Wake, Watch};

/// The second failure in a row and those after it cost a pause: so long, doubled each time up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The accepts of one listener and the streams that nobody has fetched yet.
pub struct AcceptLoop {
    backlog: usize,
    /// Tells of the accepts.
    watch: Arc<Watch>,
    /// Readable while a stream is there, or for ever once it is over.
    arrived: Wake,
    /// Whoever drives it has the lock; others do not wait for it.
    armed: Mutex<Armed>,
    queue: Mutex<Queue>,
    failures: AtomicU32,
}

struct Armed {
    session: Option<Arc<Session>>,
    accepts: Vec<BridgeConnection>,
    /// So many at a time.
    width: usize,
    /// Streams come this way instead.
    forwarding: Option<Forward>,
    /// No new ones before.
    pause: Deadline,
}

#[derive(Default)]
struct Queue {
    streams: VecDeque<Stream>,
    over: bool,
    /// Why the last accept failed.
    error: Option<Error>,
}

impl AcceptLoop {
    /// Nothing is armed before it is driven: up to `width` accepts at a time, or a forwarding; `backlog` streams in all.
    pub fn new(backlog: usize, width: usize, forwarding: Option<Forward>) -> Result<Arc<Self>> {
        let system = |error| Error::io(Operation::Accept, "a descriptor for the listener", &error);
        Ok(Arc::new(AcceptLoop {
            backlog,
            watch: Arc::new(Watch::new().map_err(system)?),
            arrived: Wake::new().map_err(system)?,
            armed: Mutex::new(Armed { session: None, accepts: Vec::new(), width, forwarding, pause: None }),
            queue: Mutex::default(),
            failures: AtomicU32::new(0),
        }))
    }

    /// Readable while it has to be driven.
    pub fn watch(&self) -> &Watch {
        &self.watch
    }

    /// Readable while there is a stream to fetch, or it is over.
    pub fn arrived(&self) -> &Wake {
        &self.arrived
    }

    /// Fetches a stream; whether there was room for another accept only now.
    pub fn fetch(&self) -> (Option<Stream>, bool) {
        let mut queue = self.queue.lock();
        let full = queue.streams.len() >= self.backlog;
        let stream = queue.streams.pop_front();
        if queue.streams.is_empty() && !queue.over {
            self.arrived.clear();
        }
        (stream, full)
    }

    /// How many accepts have failed one after the other, and why the last one has; that only if it is told without waiting
    /// for a lock, unless `wait` is set.
    pub fn failures(&self, wait: bool) -> (u32, Option<Error>) {
        let queue = if wait { Some(self.queue.lock()) } else { self.queue.try_lock() };
        (self.failures.load(Ordering::Relaxed), queue.and_then(|queue| queue.error.clone()))
    }

    fn run_forwarding(
        &self,
        armed: &mut Armed,
        mut forwarding: Forward,
        session: &Arc<Session>,
        log: &mut Vec<String>,
    ) {
        let result = match (forwarding.is_idle(), armed.pause) {
            (true, Some(_)) => Ok(()),
            (true, None) => forwarding.ask(session, &self.watch, log),
            (false, _) => forwarding.run_control(session, &self.watch, log),
        };
        if let Err(error) = result {
            self.fail(armed, error, log);
        }
        let room = self.backlog.saturating_sub(self.queue.lock().streams.len());
        for stream in forwarding.run_port(session, room, &self.watch, log) {
            self.failures.store(0, Ordering::Relaxed);
            self.put(stream);
        }
        armed.forwarding = Some(forwarding);
    }

    fn has_room(&self, armed: &Armed) -> bool {
        self.queue.lock().streams.len() + armed.accepts.len() < self.backlog
    }

    fn next(&self, session: &Arc<Session>) -> Result<BridgeConnection> {
        if let Some(AbandonedAccept::Waiting(accept)) = session.acceptors().adopt_waiting() {
            return Ok(*accept);
        }
        session.exchange(Request::Accept { id: session.id().to_owned() })
    }

    fn step(&self, armed: &mut Armed, mut accept: BridgeConnection, watched: bool, log: &mut Vec<String>) {
        // A step may close its socket, and what is closed must not be watched: a child of fork(2) may still have it.
        if watched {
            drop(self.watch.remove(accept.fd()));
        }
        match accept.step_with(log) {
            Ok(Progress::Block) => {
                drop(self.watch.set(accept.fd(), accept.events()));
                armed.accepts.push(accept);
            }
            Ok(Progress::Done) => self.reach(armed, &mut accept, log),
            Err(error) => self.fail(armed, error, log),
        }
    }

    fn reach(&self, armed: &mut Armed, accept: &mut BridgeConnection, log: &mut Vec<String>) {
        match accepted(accept) {
            Ok(stream) => {
                self.failures.store(0, Ordering::Relaxed);
                armed.pause = None;
                self.put(stream);
            }
            Err(error) => self.fail(armed, error, log),
        }
    }

    fn put(&self, stream: Stream) {
        let mut queue = self.queue.lock();
        if !queue.over {
            queue.streams.push_back(stream);
            self.arrived.set();
        }
    }

    fn fail(&self, armed: &mut Armed, error: Error, log: &mut Vec<String>) {
        // The router takes one accept at a time: the others wait for their turn here.
        if error.tag == "ALREADY_ACCEPTING" && armed.width > 1 && !armed.accepts.is_empty() {
            armed.width = 1;
            return;
        }
        let failures = self.failures.fetch_add(1, Ordering::Relaxed);
        let pause = match failures {
            0 => Duration::ZERO,
            more => FIRST_PAUSE.saturating_mul(1 << (more - 1).min(16)).min(LONGEST_PAUSE),
        };
        log.push(format!("accept failed: {} (next one in {} ms)", error.message, pause.as_millis()));
        armed.pause = after(Some(pause));
        self.queue.lock().error = Some(error);
    }

    /// It is given up: what the router has been asked for goes back to the session.
    pub fn give_up(&self) {
        let mut armed = self.armed.lock();
        let streams = {
            let mut queue = self.queue.lock();
            queue.over = true;
            self.arrived.set();
            std::mem::take(&mut queue.streams)
        };
        if let Some(mut forwarding) = armed.forwarding.take() {
            forwarding.close(&self.watch);
            forwarding.forget_port(&self.watch);
        }
        let accepts = std::mem::take(&mut armed.accepts);
        let Some(session) = armed.session.take() else { return };
        for stream in streams {
            session.acceptors().park(AbandonedAccept::Arrived(Box::new(stream)));
        }
        for accept in accepts {
            drop(self.watch.remove(accept.fd()));
            session.acceptors().park(AbandonedAccept::Waiting(Box::new(accept)));
        }
    }
}

impl Follower for AcceptLoop {
    fn deadline(&self) -> Deadline {
        // Somebody who has the lock is at work.
        let armed = self.armed.try_lock()?;
        let steps = armed.accepts.iter().fold(None, |sum, accept| earlier(sum, accept.deadline()));
        let forwarding = armed.forwarding.as_ref().and_then(Forward::deadline);
        earlier(armed.pause, earlier(steps, forwarding))
    }

    fn run(&self, session: &Arc<Session>, log: &mut Vec<String>) {
        let Some(mut armed) = self.armed.try_lock() else { return };
        if session.scope().cause().is_some() || self.queue.lock().over {
            armed.drop_all(&self.watch);
            // Nothing is due before there is a session again.
            armed.pause = None;
            return;
        }
        if armed.session.as_ref().is_none_or(|known| !Arc::ptr_eq(known, session)) {
            armed.drop_all(&self.watch);
            session.acceptors().tell(&self.watch);
            armed.session = Some(Arc::clone(session));
            armed.pause = None;
        }
        if armed.pause.is_some() && passed(armed.pause) {
            armed.pause = None;
        }
        if let Some(forwarding) = armed.forwarding.take() {
            self.run_forwarding(&mut armed, forwarding, session, log);
            return;
        }
        let accepts = std::mem::take(&mut armed.accepts);
        for accept in accepts {
            self.step(&mut armed, accept, true, log);
        }
        while self.has_room(&armed) {
            match session.acceptors().ready(log) {
                Some(AbandonedAccept::Arrived(stream)) => self.put(*stream),
                Some(AbandonedAccept::Waiting(mut accept)) => self.reach(&mut armed, &mut accept, log),
                None => break,
            }
        }
        while armed.pause.is_none() && armed.accepts.len() < armed.width && self.has_room(&armed) {
            match self.next(session) {
                Ok(accept) => self.step(&mut armed, accept, false, log),
                Err(error) => self.fail(&mut armed, error, log),
            }
        }
    }

    fn end(&self) {
        let mut queue = self.queue.lock();
        queue.over = true;
        queue.streams.clear();
        self.arrived.set();
    }

    fn abandon(&self) {
        if let Some(mut armed) = self.armed.try_lock() {
            armed.accepts.clear();
            armed.forwarding = None;
        }
        if let Some(mut queue) = self.queue.try_lock() {
            queue.streams.clear();
        }
        self.arrived.abandon();
        self.watch.abandon();
    }
}

impl Armed {
    fn drop_all(&mut self, watch: &Watch) {
        for accept in self.accepts.drain(..) {
            drop(watch.remove(accept.fd()));
        }
        if let Some(forwarding) = &mut self.forwarding {
            forwarding.close(watch);
        }
    }
}
