//! The thread of a tunnel: one loop that takes connections, has their other sides made, and moves the bytes.

use std::collections::{BTreeSet, HashMap};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::core::pending::{Pending, Product};
use crate::core::relay::{Carriers, End, Farewell, Flow, Flowed};
use crate::core::tunnel::{Limits, MakeSend, Receive, Send, Shared};
use crate::core::{after, earlier, passed, poll_timeout, Deadline, Progress};
use crate::error::{Error, Operation, Result, Status};
use crate::sys::{self, Place, Ready, Selector};

/// Bytes of one direction before others get a turn.
const TURN: usize = 1 << 20;
/// Connections taken before those that are there get a turn.
const TAKES: usize = 64;
/// How long to leave new connections alone when there are no descriptors for them.
const NO_DESCRIPTORS: Duration = Duration::from_millis(200);
/// How long an end may take to read what was sent to it before the other end had ended.
const FAREWELL: Duration = Duration::from_secs(10);
/// How often to look whether it has: the system has no event for that.
const LOOK: Duration = Duration::from_millis(10);

const WAKE: u64 = 0;
const RECEIVE: u64 = 1;
/// Tokens of connections begin here: two for each, one for either side.
const FIRST: u64 = 2;

/// A connection.
struct Link {
    near: Option<End>,
    stage: Stage,
    outward: Flow,
    inward: Flow,
    idle_until: Deadline,
    ends: Deadline,
    /// When it is in `timers`.
    due: Deadline,
}

enum Stage {
    /// The other side is being made by the library.
    Pending(Box<Pending>),
    /// The other side is connecting; there are more places to try.
    Connecting(End, Vec<Place>),
    /// Both are there.
    Open(End),
    /// One end has ended, and the other one is reading what it had sent.
    Farewell(Farewell, Deadline),
    /// Over.
    Gone,
}

/// What became of serving a connection.
enum Served {
    Stays,
    /// It wants another turn at once.
    Again,
    Over,
}

/// Everything the thread has.
pub struct Tunneling {
    shared: Arc<Shared>,
    receive: Receive,
    make: MakeSend,
    limits: Limits,
    selector: Selector,
    carriers: Carriers,
    links: HashMap<u64, Link>,
    /// Those that carry or are about to; not those that only say farewell.
    open: usize,
    timers: BTreeSet<(Instant, u64)>,
    last: u64,
    /// Whether new connections are waited for, and when they will be again.
    receiving: bool,
    pause: Deadline,
    over: bool,
}

impl Tunneling {
    /// Prepares it.
    pub fn new(shared: Arc<Shared>, receive: Receive, make: MakeSend, limits: Limits) -> Result<Self> {
        let system = |error| Error::io(Operation::None, "a descriptor for the tunnel", &error);
        let selector = Selector::new().map_err(system)?;
        selector.add(shared.wake.as_raw_fd(), WAKE, sys::IN).map_err(system)?;
        let carriers = Carriers::new(limits.buffer, limits.splice);
        Ok(Tunneling {
            shared,
            receive,
            make,
            limits,
            selector,
            carriers,
            links: HashMap::new(),
            open: 0,
            timers: BTreeSet::new(),
            last: FIRST / 2,
            receiving: false,
            pause: None,
            over: false,
        })
    }

    /// Runs until it is stopped.
    pub fn run(mut self) {
        let mut ready: Vec<Ready> = Vec::new();
        let mut again: Vec<u64> = Vec::new();
        while !self.shared.stop.load(Ordering::Acquire) {
            self.watch_receive();
            let timeout = if again.is_empty() { poll_timeout(self.next_due()) } else { 0 };
            if self.selector.wait(&mut ready, timeout).is_err() {
                // Only want of memory can do that; wait a little instead of spinning.
                std::thread::sleep(NO_DESCRIPTORS);
            }
            let mut serve = std::mem::take(&mut again);
            let mut receive = passed(self.pause) || self.receive_due();
            for ready in &ready {
                match ready.token {
                    WAKE => self.shared.wake.clear(),
                    RECEIVE => receive = true,
                    token => serve.push(token / 2),
                }
            }
            serve.extend(self.expired());
            serve.sort_unstable();
            serve.dedup();
            for id in serve {
                if self.serve(id) {
                    again.push(id);
                }
            }
            if receive && !self.over {
                self.take_connections(&mut again);
            }
        }
        self.close();
    }

    fn has_room(&self) -> bool {
        self.open < self.limits.connections
    }

    /// Connections are waited for only while there is room: those above the limit wait where they are.
    fn watch_receive(&mut self) {
        if passed(self.pause) {
            self.pause = None;
        }
        let wanted = self.has_room() && self.pause.is_none() && !self.over;
        if wanted == self.receiving {
            return;
        }
        let fd = self.receive.as_raw_fd();
        if wanted {
            // Without memory for it, the next round tries again.
            self.receiving = self.selector.add(fd, RECEIVE, sys::IN).is_ok();
        } else {
            self.selector.remove(fd);
            self.receiving = false;
        }
    }

    fn next_due(&self) -> Deadline {
        let timer = self.timers.first().map(|(at, _)| *at);
        earlier(earlier(timer, self.pause), self.listener_deadline())
    }

    /// Without a keeper somebody has to drive the listener's destination.
    fn listener_deadline(&self) -> Deadline {
        let timeout = match &self.receive {
            Receive::Listener(listener) => listener.timeout_ms(),
            Receive::Borrowed(listener) => listener.timeout_ms(),
            _ => -1,
        };
        u64::try_from(timeout).ok().and_then(|timeout| after(Some(Duration::from_millis(timeout))))
    }

    fn receive_due(&self) -> bool {
        passed(self.listener_deadline())
    }

    fn expired(&mut self) -> Vec<u64> {
        let now = Instant::now();
        let mut ids = Vec::new();
        while let Some((at, id)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, id));
            if let Some(link) = self.links.get_mut(&id) {
                link.due = None;
            }
            ids.push(id);
        }
        ids
    }

    fn take_connections(&mut self, again: &mut Vec<u64>) {
        for _ in 0..TAKES {
            if !self.has_room() {
                return;
            }
            match self.take_one() {
                Ok(Some(near)) => {
                    if let Some(id) = self.begin(near) {
                        again.push(id);
                    }
                }
                Ok(None) => return,
                Err(error) if error.status == Status::Closed => {
                    // Its destination has ended: nothing will ever come again.
                    self.over = true;
                    self.shared.remember(error);
                    return;
                }
                Err(error) => {
                    self.shared.counts.refused.fetch_add(1, Ordering::Relaxed);
                    self.shared.remember(error);
                    self.pause = after(Some(NO_DESCRIPTORS));
                    return;
                }
            }
        }
    }

    fn take_one(&self) -> Result<Option<End>> {
        let fd = match &self.receive {
            Receive::Listener(listener) => return Ok(listener.accept()?.map(End::Stream)),
            Receive::Borrowed(listener) => return Ok(listener.accept()?.map(End::Stream)),
            Receive::Socket(fd) => fd.as_raw_fd(),
            Receive::Foreign(fd) => *fd,
        };
        match sys::accept_now(fd) {
            Ok(socket) => {
                sys::set_nodelay(socket.as_raw_fd());
                Ok(Some(End::Socket(socket)))
            }
            Err(error) if sys::would_block(&error) => Ok(None),
            // That one is gone already; the next may be there.
            Err(error) if error.raw_os_error() == Some(libc::ECONNABORTED) => Ok(None),
            Err(error) => Err(Error::io(Operation::Accept, "accept", &error)),
        }
    }

    /// Has the other side of a connection made.
    fn begin(&mut self, near: End) -> Option<u64> {
        self.shared.counts.total.fetch_add(1, Ordering::Relaxed);
        let stage = match (self.make)() {
            Ok(Send::Pending(pending)) => Ok(Stage::Pending(pending)),
            // Moving bytes must never wait, however the program has made it.
            Ok(Send::Socket(fd)) => sys::set_nonblocking(fd.as_raw_fd(), true)
                .map_err(system)
                .map(|()| Stage::Connecting(End::Socket(fd), Vec::new())),
            Ok(Send::Places(places)) => connect(places),
            Err(error) => Err(error),
        };
        let stage = match stage {
            Ok(stage) => stage,
            Err(error) => {
                self.shared.counts.failed.fetch_add(1, Ordering::Relaxed);
                self.shared.remember(error);
                return None;
            }
        };
        self.last += 1;
        let id = self.last;
        let link = Link {
            near: Some(near),
            stage,
            outward: Flow::default(),
            inward: Flow::default(),
            idle_until: after(self.limits.idle),
            ends: after(self.limits.life),
            due: None,
        };
        self.links.insert(id, link);
        self.open += 1;
        self.shared.counts.now.fetch_add(1, Ordering::Relaxed);
        Some(id)
    }

    /// Serves a connection; whether it wants another turn at once.
    fn serve(&mut self, id: u64) -> bool {
        let Some(mut link) = self.links.remove(&id) else { return false };
        if let Some(due) = link.due.take() {
            self.timers.remove(&(due, id));
        }
        let was_open = link.is_open();
        let served = self.advance(id, &mut link);
        let is_open = matches!(served, Ok(Served::Stays | Served::Again)) && link.is_open();
        if was_open && !is_open {
            self.open -= 1;
            self.shared.counts.now.fetch_sub(1, Ordering::Relaxed);
        }
        match served {
            Ok(Served::Over) => {
                self.forget(link);
                false
            }
            Ok(served) => {
                let again = matches!(served, Served::Again);
                link.due = link.deadline();
                if let Some(due) = link.due {
                    self.timers.insert((due, id));
                }
                self.links.insert(id, link);
                again
            }
            Err(error) => {
                self.shared.remember(error);
                self.forget(link);
                false
            }
        }
    }

    fn advance(&mut self, id: u64, link: &mut Link) -> Result<Served> {
        let shared = Arc::clone(&self.shared);
        let counts = &shared.counts;
        if link.is_open() && (passed(link.ends) || passed(link.idle_until)) {
            counts.expired.fetch_add(1, Ordering::Relaxed);
            return Ok(Served::Over);
        }
        let failed = |error: Error| {
            counts.failed.fetch_add(1, Ordering::Relaxed);
            error
        };
        match &mut link.stage {
            Stage::Pending(pending) => {
                // A step may close its descriptor.
                self.selector.remove(pending.fd());
                match pending.step().map_err(failed)? {
                    Progress::Block => {
                        let (fd, events) = (pending.fd(), pending.events());
                        if fd >= 0 {
                            self.selector.add(fd, id * 2, events).map_err(|error| failed(system(error)))?;
                        }
                        Ok(Served::Stays)
                    }
                    Progress::Done => {
                        let stream = pending.take_as("stream", |product| match product {
                            Product::Stream(stream) => Ok(stream),
                            other => Err(other),
                        });
                        let stream = stream.map_err(failed)?;
                        self.join(id, link, End::Stream(stream)).map_err(failed)
                    }
                }
            }
            Stage::Connecting(end, places) => {
                self.selector.remove(end.fd());
                let events = sys::poll_one(end.fd(), sys::OUT, 0).map_err(|error| failed(system(error)))?;
                if events == 0 {
                    self.selector.add(end.fd(), id * 2, sys::OUT).map_err(|error| failed(system(error)))?;
                    return Ok(Served::Stays);
                }
                match sys::socket_error(end.fd()) {
                    Ok(()) => {
                        let stage = std::mem::replace(&mut link.stage, Stage::Gone);
                        let Stage::Connecting(end, _) = stage else { return Ok(Served::Over) };
                        self.join(id, link, end).map_err(failed)
                    }
                    Err(error) if places.is_empty() => {
                        Err(failed(Error::io(Operation::Connect, "cannot connect to the target", &error)))
                    }
                    Err(_) => {
                        link.stage = connect(std::mem::take(places)).map_err(failed)?;
                        Ok(Served::Again)
                    }
                }
            }
            Stage::Open(_) => self.relay(link),
            Stage::Gone => Ok(Served::Over),
            Stage::Farewell(farewell, until) => match farewell.is_over() || passed(*until) {
                true => Ok(Served::Over),
                false => Ok(Served::Stays),
            },
        }
    }

    /// Both sides are there: bytes may go.
    fn join(&mut self, id: u64, link: &mut Link, far: End) -> Result<Served> {
        if let Some(near) = &link.near {
            self.selector.add_changes(near.fd(), id * 2).map_err(system)?;
        }
        self.selector.add_changes(far.fd(), id * 2 + 1).map_err(system)?;
        link.stage = Stage::Open(far);
        Ok(Served::Again)
    }

    fn relay(&mut self, link: &mut Link) -> Result<Served> {
        let (Some(near), Stage::Open(far)) = (&link.near, &link.stage) else { return Ok(Served::Over) };
        let (near_fd, far_fd) = (near.fd(), far.fd());
        let mut flow = |flow: &mut Flow, from, to, count: &AtomicU64| {
            let before = flow.moved;
            let result = flow.run(from, to, &mut self.carriers, TURN);
            count.fetch_add(flow.moved - before, Ordering::Relaxed);
            result
        };
        let before = link.outward.moved + link.inward.moved;
        let outward = flow(&mut link.outward, near_fd, far_fd, &self.shared.counts.bytes_out);
        let inward = flow(&mut link.inward, far_fd, near_fd, &self.shared.counts.bytes_in);
        if self.limits.idle.is_some() && link.outward.moved + link.inward.moved != before {
            link.idle_until = after(self.limits.idle);
        }
        match (outward, inward) {
            (Ok(Flowed::Ended), _) => self.part(link, true),
            (_, Ok(Flowed::Ended)) => self.part(link, false),
            // A reset is an end; what the other side has sent goes nowhere any more.
            (Err(_), _) | (_, Err(_)) => Ok(Served::Over),
            (Ok(Flowed::Goes), _) | (_, Ok(Flowed::Goes)) => Ok(Served::Again),
            (Ok(Flowed::Waits), Ok(Flowed::Waits)) => Ok(Served::Stays),
        }
    }

    /// One side has ended and the other has been given all it had sent: that one may still read it in peace.
    fn part(&mut self, link: &mut Link, near_ended: bool) -> Result<Served> {
        let Stage::Open(far) = std::mem::replace(&mut link.stage, Stage::Gone) else {
            return Ok(Served::Over);
        };
        let Some(near) = link.near.take() else { return Ok(Served::Over) };
        self.selector.remove(near.fd());
        self.selector.remove(far.fd());
        let (ended, left) = if near_ended { (near, far) } else { (far, near) };
        drop(ended);
        link.outward.stop(&mut self.carriers);
        link.inward.stop(&mut self.carriers);
        link.stage = Stage::Farewell(Farewell::new(left), after(Some(FAREWELL)));
        Ok(Served::Again)
    }

    /// Closes what is left of a connection.
    fn forget(&mut self, mut link: Link) {
        link.outward.stop(&mut self.carriers);
        link.inward.stop(&mut self.carriers);
        if let Some(near) = &link.near {
            self.selector.remove(near.fd());
        }
        match &link.stage {
            Stage::Pending(pending) => self.selector.remove(pending.fd()),
            Stage::Connecting(end, _) | Stage::Open(end) => self.selector.remove(end.fd()),
            Stage::Farewell(..) | Stage::Gone => {}
        }
    }

    fn close(mut self) {
        if self.receiving {
            self.selector.remove(self.receive.as_raw_fd());
        }
        for (_, link) in std::mem::take(&mut self.links) {
            self.forget(link);
        }
        self.shared.counts.now.store(0, Ordering::Relaxed);
    }
}

impl Link {
    /// Whether it counts.
    fn is_open(&self) -> bool {
        !matches!(self.stage, Stage::Farewell(..) | Stage::Gone)
    }

    fn deadline(&self) -> Deadline {
        let limits = earlier(self.ends, self.idle_until);
        match &self.stage {
            Stage::Pending(pending) => {
                let step = u64::try_from(pending.timeout_ms()).ok().map(Duration::from_millis);
                earlier(limits, step.and_then(|step| after(Some(step))))
            }
            Stage::Farewell(_, until) => earlier(*until, after(Some(LOOK))),
            Stage::Connecting(..) | Stage::Open(_) => limits,
            Stage::Gone => None,
        }
    }
}

/// Starts connecting to the first of `places` that does not refuse at once.
fn connect(places: Vec<Place>) -> Result<Stage> {
    let mut failure = Error::new(Status::Io, Operation::Connect, "the target has no address");
    let mut left = places.into_iter();
    while let Some(place) = left.next() {
        match sys::connect_start(&place) {
            Ok((fd, _)) => return Ok(Stage::Connecting(End::Socket(fd), left.collect())),
            Err(error) => failure = Error::io(Operation::Connect, "cannot connect to the target", &error),
        }
    }
    Err(failure)
}

fn system(error: std::io::Error) -> Error {
    Error::io(Operation::None, "a descriptor for the tunnel", &error)
}
