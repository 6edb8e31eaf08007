//! The thread of a tunnel: one loop that takes connections, has their other sides set up, and moves the bytes.

use std::collections::{BTreeSet, HashMap};
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::core::destination::Destination;
use crate::core::drive::{after, earlier, log, own_thread, passed, poll_timeout, Deadline, Driven};
use crate::core::relay::{Carriers, End};
use crate::core::settings::Limits;
use crate::core::tunnel::connection::{connect, far_socket, Connection, Served, Stage, Tools};
use crate::core::tunnel::report::Shared;
use crate::core::tunnel::sides::{MakeSend, Receive, Send};
use crate::error::{Error, Operation, Result, Status};
use crate::sys::lock::assert_none_held;
use crate::sys::{self, Ready, Selector};

/// Bytes to move in one direction before others get a turn. Long turns keep the data in the processor's caches, but all
/// turns together must not take long.
const LONGEST_TURN: usize = 1 << 22;
const SHORTEST_TURN: usize = 1 << 20;
const ALL_TURNS: usize = 1 << 25;
/// Connections taken before the existing ones get a turn.
const TAKES: usize = 64;
/// How long to stop taking new connections when descriptors have run out.
const NO_DESCRIPTORS: Duration = Duration::from_millis(200);
/// How many connections may linger, in addition to as many as may be open.
const LINGERING: usize = 64;

const WAKE: u64 = 0;
const RECEIVE: u64 = 1;
const DEST: u64 = 2;
/// Tokens of connections start after this, two for each: one per end.
const LAST: u64 = 3;

/// The state of the thread.
pub(super) struct EventLoop {
    shared: Arc<Shared>,
    receive: Receive,
    make: MakeSend,
    limits: Limits,
    selector: Selector,
    carriers: Carriers,
    /// By id, each with its entry in `timers`.
    connections: HashMap<u64, (Connection, Deadline)>,
    /// Number of connections that are connecting or open, not counting those that linger.
    open: usize,
    timers: BTreeSet<(Instant, u64)>,
    last: u64,
    /// Bytes to move in one direction before others get a turn.
    turn: usize,
    /// Whether we are waiting for new connections, and when to resume.
    receiving: bool,
    pause: Deadline,
    over: bool,
    /// A connection whose other side could not be set up for lack of descriptors.
    waiting: Option<End>,
    /// The tunnel's own destination, or that of its listener, if there is no keeper to drive it.
    dest: Option<Arc<Destination>>,
}

impl EventLoop {
    pub(super) fn new(
        shared: Arc<Shared>,
        receive: Receive,
        make: MakeSend,
        limits: Limits,
        dest: Option<Arc<Destination>>,
    ) -> Result<Self> {
        let dest =
            dest.as_ref().or_else(|| receive.destination()).filter(|dest| dest.signals().driver.is_caller()).cloned();
        let selector = Selector::new().map_err(system)?;
        selector.add(shared.wake.as_raw_fd(), WAKE, sys::IN).map_err(system)?;
        if let Some(dest) = &dest {
            // Its state changes are for others to fetch.
            selector.add(dest.signals().work.as_raw_fd(), DEST, sys::IN).map_err(system)?;
        }
        let carriers = Carriers::new(limits.buffer, limits.splice);
        Ok(EventLoop {
            shared,
            receive,
            make,
            limits,
            selector,
            carriers,
            connections: HashMap::new(),
            open: 0,
            timers: BTreeSet::new(),
            last: LAST / 2,
            turn: LONGEST_TURN,
            receiving: false,
            pause: None,
            over: false,
            waiting: None,
            dest,
        })
    }

    pub(super) fn run(mut self) {
        own_thread::works_for(&*self.shared);
        let mut ready: Vec<Ready> = Vec::new();
        let mut again: Vec<u64> = Vec::new();
        while !self.is_stopped() {
            let mut now = Instant::now();
            self.watch_receive(now);
            let timeout = if again.is_empty() { poll_timeout(self.next_due(now), now) } else { 0 };
            if self.selector.wait(&mut ready, timeout).is_err() {
                // Fails only if memory is short: wait a little instead of spinning.
                std::thread::sleep(NO_DESCRIPTORS);
            }
            now = Instant::now();
            let _edge = log::edge();
            let mut serve = std::mem::take(&mut again);
            let mut receive = passed(self.pause, now) || self.is_waiting();
            let mut drive = self.dest.as_ref().is_some_and(|dest| passed(dest.deadline(), now));
            for ready in &ready {
                match ready.token {
                    WAKE => self.shared.wake.clear(),
                    RECEIVE => receive = true,
                    DEST => drive = true,
                    token => {
                        let id = token / 2;
                        if let Some((connection, _)) = self.connections.get_mut(&id) {
                            connection.look(ready);
                        }
                        serve.push(id);
                    }
                }
            }
            if drive {
                self.drive(now);
            }
            serve.extend(self.expired(now));
            serve.sort_unstable();
            serve.dedup();
            self.turn = (ALL_TURNS / serve.len().max(1)).clamp(SHORTEST_TURN, LONGEST_TURN);
            for id in serve {
                if self.is_stopped() {
                    break;
                }
                // Read the clock for each: serving one may take long, and must not make another look idle.
                if self.serve(id, Instant::now()) {
                    again.push(id);
                }
            }
            if receive {
                self.take_connections(&mut again, now);
            }
        }
        self.close();
    }

    fn is_stopped(&self) -> bool {
        self.shared.stop.load(Ordering::Acquire)
    }

    /// Drives the destination in place of a keeper.
    fn drive(&mut self, now: Instant) {
        let Some(dest) = &self.dest else { return };
        dest.drive(now);
        if dest.check(Operation::None).is_err() {
            self.selector.remove(dest.signals().work.as_raw_fd());
            self.dest = None;
        }
    }

    fn has_room(&self) -> bool {
        let most = self.limits.connections;
        self.open < most && self.connections.len() < most.saturating_mul(2).saturating_add(LINGERING)
    }

    /// Whether to retry the connection that waits for descriptors now.
    fn is_waiting(&self) -> bool {
        self.waiting.is_some() && self.pause.is_none() && self.has_room()
    }

    /// Waits for connections only while there is room: those above the limit stay queued in the system or the listener.
    fn watch_receive(&mut self, now: Instant) {
        if passed(self.pause, now) {
            self.pause = None;
        }
        let wanted = self.has_room() && self.pause.is_none() && !self.over;
        if wanted == self.receiving {
            return;
        }
        let fd = self.receive.as_raw_fd();
        if wanted {
            self.receiving = self.selector.add(fd, RECEIVE, sys::IN).is_ok();
            if !self.receiving {
                // If memory is short, try again later, as there is no event for that.
                self.pause = after(Some(NO_DESCRIPTORS), now);
            }
        } else {
            self.selector.remove(fd);
            self.receiving = false;
        }
    }

    fn next_due(&self, now: Instant) -> Deadline {
        if self.is_waiting() {
            return Some(now);
        }
        let timer = self.timers.first().map(|(at, _)| *at);
        let dest = self.dest.as_ref().and_then(|dest| dest.deadline());
        earlier(earlier(timer, self.pause), dest)
    }

    fn expired(&mut self, now: Instant) -> Vec<u64> {
        let mut ids = Vec::new();
        while let Some((at, id)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, id));
            if let Some((_, due)) = self.connections.get_mut(&id) {
                *due = None;
            }
            ids.push(id);
        }
        ids
    }

    #[inline(never)]
    fn take_connections(&mut self, again: &mut Vec<u64>, now: Instant) {
        for _ in 0..TAKES {
            if !self.has_room() || self.is_stopped() {
                return;
            }
            let taken = match self.waiting.take() {
                Some(near) => Ok(Some(near)),
                None if self.over => return,
                None => self.receive.take(now).inspect(|taken| {
                    self.shared.counts.total.fetch_add(taken.iter().count() as u64, Ordering::Relaxed);
                }),
            };
            match taken {
                Ok(Some(near)) => {
                    if let Some(id) = self.begin(near, now).filter(|id| self.serve(*id, now)) {
                        again.push(id);
                    }
                    if self.pause.is_some() {
                        return;
                    }
                }
                Ok(None) => return,
                Err(error) if error.status == Status::Closed => {
                    // The destination has ended, so there will be no more connections.
                    self.over = true;
                    self.shared.remember(error);
                    return;
                }
                Err(error) => return self.pause(error, now),
            }
        }
    }

    /// Stops taking new connections for a while.
    #[inline(never)]
    fn pause(&mut self, error: Error, now: Instant) {
        self.shared.remember_and_count(error, &self.shared.counts.refused);
        self.pause = after(Some(NO_DESCRIPTORS), now);
    }

    /// Called when the other side of a connection cannot be set up. If only for lack of descriptors, the connection
    /// waits for some; but only one does, since waiting connections use descriptors too.
    #[inline(never)]
    fn fail(&mut self, near: Option<End>, error: Error, now: Instant) {
        let exhausted =
            [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM, libc::ENOSPC].contains(&error.os_error);
        if near.is_some() && exhausted && self.waiting.is_none() {
            self.waiting = near;
            return self.pause(error, now);
        }
        // Record it first: the program may ask as soon as it sees the connection end.
        self.shared.remember_and_count(error, &self.shared.counts.failed);
        if let Some(near) = near {
            near.end();
        }
    }

    /// Starts setting up the other side of a connection.
    fn begin(&mut self, near: End, now: Instant) -> Option<u64> {
        assert_none_held("make_send");
        let stage = match (self.make)() {
            Ok(Send::Pending(pending)) => Ok(Stage::Pending(pending)),
            Ok(Send::Socket(fd)) => far_socket(fd),
            Ok(Send::Places(places)) => connect(places),
            Err(error) => Err(error),
        };
        let stage = match stage {
            Ok(stage) => stage,
            Err(error) => {
                self.fail(Some(near), error, now);
                return None;
            }
        };
        self.last += 1;
        let id = self.last;
        self.connections.insert(id, (Connection::new(id, near, stage, &self.limits, now), None));
        self.open += 1;
        self.shared.counts.now.fetch_add(1, Ordering::Relaxed);
        Some(id)
    }

    /// Serves a connection. Returns whether to serve it again at once.
    #[inline(never)]
    fn serve(&mut self, id: u64, now: Instant) -> bool {
        let Some((mut connection, due)) = self.connections.remove(&id) else { return false };
        if let Some(due) = due {
            self.timers.remove(&(due, id));
        }
        let was_open = connection.is_open();
        let served = connection.serve(&mut Tools {
            selector: &self.selector,
            carriers: &mut self.carriers,
            limits: &self.limits,
            shared: &self.shared,
            turn: self.turn,
            now,
        });
        let is_open = matches!(served, Ok(Served::Stays | Served::Again)) && connection.is_open();
        if was_open && !is_open {
            self.open -= 1;
            self.shared.counts.now.fetch_sub(1, Ordering::Relaxed);
        }
        match served {
            Ok(Served::Over) => {
                connection.close(&self.selector, &mut self.carriers);
                false
            }
            Ok(served) => {
                let due = connection.deadline();
                if let Some(due) = due {
                    self.timers.insert((due, id));
                }
                self.connections.insert(id, (connection, due));
                matches!(served, Served::Again)
            }
            Err(error) => {
                let near = connection.unmade(&self.selector);
                connection.close(&self.selector, &mut self.carriers);
                self.fail(near, error, now);
                false
            }
        }
    }

    fn close(mut self) {
        if self.receiving {
            self.selector.remove(self.receive.as_raw_fd());
        }
        if let Some(dest) = &self.dest {
            self.selector.remove(dest.signals().work.as_raw_fd());
        }
        for (_, (connection, _)) in std::mem::take(&mut self.connections) {
            connection.close(&self.selector, &mut self.carriers);
        }
        if let Some(near) = &self.waiting {
            near.end();
        }
        if let Receive::Socket(fd) = &self.receive {
            // A child of fork(2) may hold it too, and must not keep the port open.
            sys::end_both(fd.as_raw_fd());
        }
        self.shared.counts.now.store(0, Ordering::Relaxed);
    }
}

fn system(error: std::io::Error) -> Error {
    Error::io(Operation::None, "a descriptor for the tunnel", &error)
}
