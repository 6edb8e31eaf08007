//! Keeps accepts armed, so that streams arrive without a call for each of them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::core::bridge::BridgeConnection;
use crate::core::destination::Follower;
use crate::core::drive::{after, earlier, passed, Backoff, Deadline, Progress, Watched};
use crate::core::listener::forward::Forward;
use crate::core::session::{accept_pauses, accepted, AbandonedAccept, Session};
use crate::core::stream::Stream;
use crate::error::{Error, Operation, Result};
use crate::protocol::request::Request;
use crate::sys::lock::{Rank, RankedMutex};
use crate::sys::{Wake, Watch};

/// The accepts of one listener, and the streams not fetched yet.
pub(super) struct AcceptLoop {
    backlog: usize,
    /// Readable when an accept has something to do.
    watch: Arc<Watch>,
    /// Readable while there is a stream, and forever once the loop is over.
    arrived: Wake,
    /// Held while stepping; others skip.
    armed: RankedMutex<Armed>,
    queue: RankedMutex<Queue>,
    failures: AtomicU32,
}

struct Armed {
    session: Option<Arc<Session>>,
    accepts: Vec<Watched<BridgeConnection>>,
    /// Number of accepts to keep armed.
    width: usize,
    /// If set, streams arrive this way instead.
    forward: Option<Forward>,
    backoff: Backoff,
    /// No new accepts before then.
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
    /// Arms nothing before it is driven. `width` is the number of accepts at a time, unless there is a `forward`;
    /// `backlog` limits streams and accepts in total.
    pub(super) fn new(backlog: usize, width: usize, forward: Option<Forward>) -> Result<Arc<Self>> {
        let system = |error| Error::io(Operation::Accept, "a descriptor for the listener", &error);
        let backoff = accept_pauses();
        let armed = Armed { session: None, accepts: Vec::new(), width, forward, backoff, pause: None };
        Ok(Arc::new(AcceptLoop {
            backlog,
            watch: Arc::new(Watch::new().map_err(system)?),
            arrived: Wake::new().map_err(system)?,
            armed: RankedMutex::new(Rank::ArmedAccepts, armed),
            queue: RankedMutex::new(Rank::AcceptQueue, Queue::default()),
            failures: AtomicU32::new(0),
        }))
    }

    pub(super) fn watch(&self) -> &Watch {
        &self.watch
    }

    /// Readable while there is a stream to fetch, or once the loop is over.
    pub(super) fn arrived(&self) -> &Wake {
        &self.arrived
    }

    /// Fetches a stream. Also returns whether the queue was full, so that there is room for another accept only now.
    pub(super) fn fetch(&self) -> (Option<Stream>, bool) {
        let mut queue = self.queue.lock();
        let full = queue.streams.len() >= self.backlog;
        let stream = queue.streams.pop_front();
        if queue.streams.is_empty() && !queue.over {
            self.arrived.clear();
        }
        (stream, full)
    }

    /// The number of consecutive failed accepts, and why the last one failed. Without `wait`, the reason is left out if
    /// it would mean waiting for a lock.
    pub(super) fn failures(&self, wait: bool) -> (u32, Option<Error>) {
        let queue = if wait { Some(self.queue.lock()) } else { self.queue.try_lock() };
        (self.failures.load(Ordering::Relaxed), queue.and_then(|queue| queue.error.clone()))
    }

    fn run_forward(&self, armed: &mut Armed, mut forward: Forward, session: &Arc<Session>, now: Instant) {
        // An accept that nobody waits for any more gets the next stream, and routers refuse to forward until it has.
        while self.queue.lock().streams.len() < self.backlog {
            match session.accept_pool().ready(now) {
                Some(AbandonedAccept::Arrived(stream)) => self.succeed(armed, *stream),
                Some(AbandonedAccept::Waiting(mut accept)) => self.complete(armed, session, &mut accept, now),
                None => break,
            }
        }
        let result = match (forward.is_idle(), armed.pause) {
            (true, Some(_)) => Ok(()),
            (true, None) if session.accept_pool().is_waiting() => Ok(()),
            (true, None) => forward.ask(session, &self.watch, now),
            (false, _) => forward.run_control(session, &self.watch, now),
        };
        if let Err(error) = result {
            session.heard(&error, now);
            self.fail(armed, session, error, now);
        }
        let room = self.backlog.saturating_sub(self.queue.lock().streams.len());
        for stream in forward.run_port(session, room, &self.watch, now) {
            session.stream_succeeded();
            self.succeed(armed, stream);
        }
        armed.forward = Some(forward);
    }

    fn has_room(&self, armed: &Armed) -> bool {
        self.queue.lock().streams.len() + armed.accepts.len() < self.backlog
    }

    /// An accept to arm: one abandoned earlier, or a new one.
    fn next(&self, session: &Arc<Session>) -> Result<Watched<BridgeConnection>> {
        let accept = match session.accept_pool().adopt_waiting() {
            Some(AbandonedAccept::Waiting(accept)) => *accept,
            _ => session.connection(Request::Accept { id: session.id().to_owned() })?,
        };
        Ok(Watched::new(accept, &self.watch))
    }

    #[inline(never)]
    fn step(&self, armed: &mut Armed, session: &Arc<Session>, mut accept: Watched<BridgeConnection>, now: Instant) {
        match accept.step(|accept| accept.step(now)) {
            Ok(Progress::Block) => armed.accepts.push(accept),
            Ok(Progress::Done) => self.complete(armed, session, accept.get_mut(), now),
            // Not a failure: some routers do that with accepts that wait. But asking again at once may be in vain.
            Err(error) if accept.get().is_dropped_accept() => {
                let pause = armed.backoff.pause();
                let message = || format!("{} (retrying in {} ms)", error.message, pause.as_millis());
                session.bridge().log.line(message);
                armed.pause = after(Some(pause), now);
            }
            Err(error) => {
                session.accept_failed(accept.get(), &error, now);
                self.fail(armed, session, error, now);
            }
        }
    }

    fn complete(&self, armed: &mut Armed, session: &Session, accept: &mut BridgeConnection, now: Instant) {
        match accepted(accept) {
            Ok(stream) => {
                armed.pause = None;
                session.stream_succeeded();
                self.succeed(armed, stream);
            }
            Err(error) => self.fail(armed, session, error, now),
        }
    }

    fn succeed(&self, armed: &mut Armed, stream: Stream) {
        self.failures.store(0, Ordering::Relaxed);
        armed.backoff.reset();
        self.put(stream);
    }

    #[inline(never)]
    fn put(&self, stream: Stream) {
        let mut queue = self.queue.lock();
        if !queue.over {
            queue.streams.push_back(stream);
            self.arrived.set();
        }
    }

    #[inline(never)]
    fn fail(&self, armed: &mut Armed, session: &Session, error: Error, now: Instant) {
        // This router takes one accept at a time, so arm only one from now on.
        if error.tag == "ALREADY_ACCEPTING" && armed.width > 1 && !armed.accepts.is_empty() {
            armed.width = 1;
            return;
        }
        let pause = match self.failures.fetch_add(1, Ordering::Relaxed) {
            0 => Duration::ZERO,
            _ => armed.backoff.pause(),
        };
        let message = || format!("accept failed: {} (retrying in {} ms)", error.message, pause.as_millis());
        session.bridge().log.line(message);
        armed.pause = after(Some(pause), now);
        self.queue.lock().error = Some(error);
    }

    /// Called when the listener is closed: returns pending accepts and unfetched streams to the session.
    pub(super) fn give_up(&self) {
        let mut armed = self.armed.lock();
        let streams = {
            let mut queue = self.queue.lock();
            queue.over = true;
            self.arrived.set();
            std::mem::take(&mut queue.streams)
        };
        if let Some(mut forward) = armed.forward.take() {
            forward.close(&self.watch);
            forward.forget_port(&self.watch);
        }
        let accepts = std::mem::take(&mut armed.accepts);
        let Some(session) = armed.session.take() else { return };
        let now = Instant::now();
        for stream in streams {
            session.accept_pool().park(AbandonedAccept::Arrived(Box::new(stream)), now);
        }
        for accept in accepts {
            session.accept_pool().park(AbandonedAccept::Waiting(Box::new(accept.into_inner())), now);
        }
    }
}

impl Follower for AcceptLoop {
    fn deadline(&self) -> Deadline {
        // `None` while another thread is stepping it: that thread looks again afterwards.
        let armed = self.armed.try_lock()?;
        let steps = armed.accepts.iter().fold(None, |sum, accept| earlier(sum, accept.get().deadline()));
        let forward = armed.forward.as_ref().and_then(Forward::deadline);
        earlier(armed.pause, earlier(steps, forward))
    }

    fn run(&self, session: &Arc<Session>, now: Instant) {
        let Some(mut armed) = self.armed.try_lock() else { return };
        if session.scope().has_ended() || self.queue.lock().over {
            armed.drop_all(&self.watch);
            // Nothing is due until there is a new session.
            armed.pause = None;
            return;
        }
        if armed.session.as_ref().is_none_or(|known| !Arc::ptr_eq(known, session)) {
            armed.drop_all(&self.watch);
            session.accept_pool().tell(&self.watch);
            armed.session = Some(Arc::clone(session));
            armed.pause = None;
        }
        if passed(armed.pause, now) {
            armed.pause = None;
        }
        if let Some(forward) = armed.forward.take() {
            self.run_forward(&mut armed, forward, session, now);
            return;
        }
        for accept in std::mem::take(&mut armed.accepts) {
            self.step(&mut armed, session, accept, now);
        }
        while self.has_room(&armed) {
            match session.accept_pool().ready(now) {
                Some(AbandonedAccept::Arrived(stream)) => self.put(*stream),
                Some(AbandonedAccept::Waiting(mut accept)) => self.complete(&mut armed, session, &mut accept, now),
                None => break,
            }
        }
        while armed.pause.is_none() && armed.accepts.len() < armed.width && self.has_room(&armed) {
            match self.next(session) {
                Ok(accept) => self.step(&mut armed, session, accept, now),
                Err(error) => self.fail(&mut armed, session, error, now),
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
        // Do this first: the watch is shared with the parent, and what is dropped below must not be removed from it.
        self.watch.abandon();
        if let Some(mut armed) = self.armed.try_lock() {
            armed.accepts.clear();
            armed.forward = None;
        }
        if let Some(mut queue) = self.queue.try_lock() {
            queue.streams.clear();
        }
        self.arrived.abandon();
    }
}

impl Armed {
    fn drop_all(&mut self, watch: &Watch) {
        self.accepts.clear();
        if let Some(forward) = &mut self.forward {
            forward.close(watch);
        }
    }
}
