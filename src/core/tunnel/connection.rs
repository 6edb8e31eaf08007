//! One connection of a tunnel: sets up its other side, moves bytes both ways, and delivers the rest at the end.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::core::drive::{after, earlier, passed, Deadline, Pending, Progress};
use crate::core::relay::{Carriers, End, Flow, Flowed, Linger, LingerStep, PATIENCE};
use crate::core::settings::Limits;
use crate::core::stream::Stream;
use crate::core::tunnel::report::Shared;
use crate::error::{Error, Operation, Result, Status};
use crate::sys::{self, Place, Ready, Selector};

/// What the event loop lends to a connection while serving it.
pub(super) struct Tools<'a> {
    /// A connection has two tokens: twice its id, and that plus one for its far end.
    pub selector: &'a Selector,
    pub carriers: &'a mut Carriers,
    pub limits: &'a Limits,
    pub shared: &'a Shared,
    /// Bytes to move in one direction before others get a turn.
    pub turn: usize,
    pub now: Instant,
}

pub(super) struct Connection {
    id: u64,
    /// The end that was received.
    near: Option<End>,
    /// The state of the other end.
    stage: Stage,
    /// From the near end to the far one.
    outward: Flow,
    /// From the far end to the near one.
    inward: Flow,
    /// When it will have been idle for too long; starts once both ends are connected.
    idle_until: Deadline,
    /// Whether the near and the far end were reset; what they sent may still be in transit.
    reset: [bool; 2],
    /// When to discard what a reset end sent, because the other end does not take it.
    given_up: Deadline,
    /// When its lifetime is over.
    ends: Deadline,
}

/// The state of a connection.
pub(super) enum Stage {
    /// The far end is being connected over I2P.
    Pending(Box<Pending<Stream>>),
    /// The far end is connecting to an address; the rest are those left to try.
    Connecting(End, Vec<Place>),
    /// Both ends are connected.
    Open(End),
    /// One end has ended, and the other is still reading what it sent.
    Linger(Linger),
    Gone,
}

/// What to do with a connection after serving it.
pub(super) enum Served {
    /// Wait for an event or its deadline.
    Stays,
    /// Serve it again at once.
    Again,
    /// Close it.
    Over,
}

impl Connection {
    /// Starts with the far end in `stage`.
    pub(super) fn new(id: u64, near: End, stage: Stage, limits: &Limits, now: Instant) -> Self {
        Connection {
            id,
            near: Some(near),
            stage,
            outward: Flow::default(),
            inward: Flow::default(),
            reset: [false; 2],
            idle_until: None,
            given_up: None,
            ends: after(limits.life, now),
        }
    }

    /// Whether it counts as open; one that only lingers does not.
    pub(super) fn is_open(&self) -> bool {
        !matches!(self.stage, Stage::Linger(..) | Stage::Gone)
    }

    /// Takes the near end back, if the far one is not connected yet.
    pub(super) fn unmade(&mut self, selector: &Selector) -> Option<End> {
        if let Some(near) = &self.near {
            selector.remove(near.fd());
        }
        match self.stage {
            Stage::Pending(_) | Stage::Connecting(..) => self.near.take(),
            _ => None,
        }
    }

    /// Notes what an event says about an end of an open connection.
    pub(super) fn look(&mut self, ready: &Ready) {
        if matches!(self.stage, Stage::Open(_)) {
            let side = (ready.token % 2) as usize;
            self.reset[side] |= ready.broken;
            let from = if side == 0 { &mut self.outward } else { &mut self.inward };
            from.copies |= ready.urgent;
        }
    }

    /// Whether an end was reset and the other does not take what it sent. An orderly end is different: the reader
    /// should get everything, and may just be pausing.
    fn is_stuck(&self) -> bool {
        self.is_reset(true) && self.outward.held() > 0 || self.is_reset(false) && self.inward.held() > 0
    }

    fn is_reset(&self, near: bool) -> bool {
        let (seen, from, to) = match near {
            true => (self.reset[0], &self.outward, &self.inward),
            false => (self.reset[1], &self.inward, &self.outward),
        };
        seen || from.cut || to.broken
    }

    pub(super) fn deadline(&self) -> Deadline {
        let limits = earlier(self.ends, self.idle_until);
        match &self.stage {
            Stage::Pending(pending) => earlier(limits, pending.due()),
            Stage::Linger(linger) => earlier(limits, linger.deadline()),
            Stage::Connecting(..) => limits,
            Stage::Open(_) => earlier(limits, self.given_up),
            Stage::Gone => None,
        }
    }

    fn has_expired(&self, now: Instant) -> bool {
        passed(self.ends, now) || passed(self.idle_until, now)
    }

    /// Gets as far as possible without blocking.
    pub(super) fn serve(&mut self, tools: &mut Tools<'_>) -> Result<Served> {
        if self.has_expired(tools.now) {
            if self.is_open() {
                tools.shared.counts.expired.fetch_add(1, Ordering::Relaxed);
            }
            return Ok(Served::Over);
        }
        match &mut self.stage {
            Stage::Pending(pending) => {
                // Deregister first, as the step may close the descriptor.
                tools.selector.remove(pending.fd());
                if pending.step(tools.now)? == Progress::Done {
                    let stream = pending.take()?;
                    return self.join(End::Stream(stream), tools);
                }
                let (fd, events) = (pending.fd(), pending.events());
                if fd >= 0 {
                    tools.selector.add(fd, self.id * 2, events).map_err(system)?;
                }
                Ok(Served::Stays)
            }
            Stage::Connecting(end, places) => {
                tools.selector.remove(end.fd());
                let events = sys::poll_one(end.fd(), sys::OUT, 0).map_err(system)?;
                if events == 0 {
                    tools.selector.add(end.fd(), self.id * 2, sys::OUT).map_err(system)?;
                    return Ok(Served::Stays);
                }
                match sys::socket_error(end.fd()) {
                    Ok(()) => match std::mem::replace(&mut self.stage, Stage::Gone) {
                        Stage::Connecting(end, _) => self.join(end, tools),
                        _ => Ok(Served::Over),
                    },
                    Err(error) if places.is_empty() => {
                        Err(Error::io(Operation::Connect, "cannot connect to the target", &error))
                    }
                    Err(_) => {
                        self.stage = connect(std::mem::take(places))?;
                        Ok(Served::Again)
                    }
                }
            }
            Stage::Open(_) => Ok(self.relay(tools)),
            Stage::Linger(linger) => {
                let before = linger.unsent();
                let step = linger.step(tools.now);
                if linger.unsent() != before {
                    self.idle_until = after(tools.limits.idle, tools.now);
                }
                Ok(match step {
                    LingerStep::Over => Served::Over,
                    LingerStep::Waits => Served::Stays,
                    LingerStep::Goes => Served::Again,
                })
            }
            Stage::Gone => Ok(Served::Over),
        }
    }

    /// Called when the far end is connected: starts moving bytes.
    fn join(&mut self, far: End, tools: &Tools<'_>) -> Result<Served> {
        sys::set_urgent_inline(far.fd());
        if let Some(near) = &self.near {
            sys::set_urgent_inline(near.fd());
            tools.selector.add_changes(near.fd(), self.id * 2).map_err(system)?;
        }
        tools.selector.add_changes(far.fd(), self.id * 2 + 1).map_err(system)?;
        self.stage = Stage::Open(far);
        self.idle_until = after(tools.limits.idle, tools.now);
        Ok(Served::Again)
    }

    fn relay(&mut self, tools: &mut Tools<'_>) -> Served {
        let before = self.outward.moved + self.inward.moved;
        let turn = tools.turn;
        let outward = self.flow(true, turn, tools);
        let inward = self.flow(false, turn, tools);
        if self.outward.moved + self.inward.moved != before {
            self.idle_until = after(tools.limits.idle, tools.now);
            self.given_up = None;
        }
        if !self.is_stuck() {
            self.given_up = None;
        } else if passed(self.given_up, tools.now) {
            let text = "one end was reset, and the other one does not take what it had sent";
            tools.shared.remember(Error::new(Status::Closed, Operation::Send, text));
            return Served::Over;
        } else if self.given_up.is_none() {
            self.given_up = after(Some(PATIENCE), tools.now);
        }
        match (outward, inward) {
            (Flowed::Ended, _) => self.start_linger(true, tools),
            (_, Flowed::Ended) => self.start_linger(false, tools),
            (Flowed::Refused, Flowed::Refused) => Served::Over,
            (Flowed::Goes, _) | (_, Flowed::Goes) => Served::Again,
            _ => Served::Stays,
        }
    }

    /// Moves bytes in one direction.
    fn flow(&mut self, outward: bool, budget: usize, tools: &mut Tools<'_>) -> Flowed {
        let (Some(near), Stage::Open(far)) = (&self.near, &self.stage) else { return Flowed::Refused };
        let counts = &tools.shared.counts;
        let (flow, from, to, count) = match outward {
            true => (&mut self.outward, near.fd(), far.fd(), &counts.bytes_out),
            false => (&mut self.inward, far.fd(), near.fd(), &counts.bytes_in),
        };
        let before = flow.moved;
        let flowed = flow.run(from, to, tools.carriers, budget);
        count.fetch_add(flow.moved - before, Ordering::Relaxed);
        flowed
    }

    /// One end has ended, and everything it sent was written to the other, which gets time to read it.
    fn start_linger(&mut self, near_ended: bool, tools: &mut Tools<'_>) -> Served {
        let (Some(near), Stage::Open(far)) = (&self.near, &self.stage) else { return Served::Over };
        let in_order = !self.is_reset(near_ended);
        // Deliver what the other end sent before that, as far as possible without blocking.
        let (held, left) = if near_ended { (self.inward.held(), far.fd()) } else { (self.outward.held(), near.fd()) };
        let budget = held.saturating_add(sys::unread(left).unwrap_or(0));
        tools.selector.remove(near.fd());
        tools.selector.remove(far.fd());
        if budget > 0 {
            self.flow(!near_ended, budget, tools);
        }
        self.outward.stop(tools.carriers);
        self.inward.stop(tools.carriers);
        let (near, stage) = (self.near.take(), std::mem::replace(&mut self.stage, Stage::Gone));
        let (Some(near), Stage::Open(far)) = (near, stage) else { return Served::Over };
        let (ended, left) = if near_ended { (near, far) } else { (far, near) };
        ended.end();
        let linger = Linger::new(left, in_order, tools.now);
        // If memory is short, it is still checked at its deadline.
        drop(tools.selector.add_changes(linger.end().fd(), self.id * 2));
        self.stage = Stage::Linger(linger);
        Served::Again
    }

    /// Shuts down and closes whatever ends are left.
    pub(super) fn close(mut self, selector: &Selector, carriers: &mut Carriers) {
        self.outward.stop(carriers);
        self.inward.stop(carriers);
        if let Stage::Pending(pending) = &self.stage {
            selector.remove(pending.fd());
        }
        let far = match &self.stage {
            Stage::Connecting(end, _) | Stage::Open(end) => Some(end),
            Stage::Linger(linger) => Some(linger.end()),
            Stage::Pending(_) | Stage::Gone => None,
        };
        for end in self.near.iter().chain(far) {
            selector.remove(end.fd());
            end.end();
        }
    }
}

/// Uses a socket of the program's as the far end. Makes it non-blocking, as moving bytes must never block.
pub(super) fn far_socket(fd: OwnedFd) -> Result<Stage> {
    let system = |error| Error::io(Operation::Connect, "the other side of a connection", &error);
    if !sys::is_stream(fd.as_raw_fd()).map_err(system)? {
        return Err(Error::invalid("the other side of a connection is no stream socket, or one that listens"));
    }
    sys::set_nonblocking(fd.as_raw_fd(), true).map_err(system)?;
    Ok(Stage::Connecting(End::Socket(fd), Vec::new()))
}

/// Starts connecting to the first of `places` that does not fail at once.
pub(super) fn connect(places: Vec<Place>) -> Result<Stage> {
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

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;
    use std::sync::atomic::{AtomicBool, AtomicU64};
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::core::destination::State;
    use crate::core::drive::{Interest, Job};
    use crate::core::tunnel::report::{Counts, Unheard};
    use crate::sys::lock::{Rank, RankedMutex};
    use crate::sys::Wake;

    const SECOND: Duration = Duration::from_secs(1);
    const MOMENT: Duration = Duration::from_millis(1);
    /// Longer than the system takes to move bytes on one machine; only a hang gets there.
    const LONG: Duration = Duration::from_secs(30);

    /// A connection and what its tunnel lends to it. The time stands still unless a test makes it pass.
    struct Bench {
        connection: Option<Connection>,
        selector: Selector,
        carriers: Carriers,
        limits: Limits,
        shared: Shared,
        now: Instant,
    }

    fn limits(life: Option<Duration>, idle: Option<Duration>) -> Limits {
        Limits { connections: 1, life, idle, buffer: 1 << 17, splice: true }
    }

    impl Bench {
        fn new(near: End, stage: Stage, limits: Limits) -> Self {
            let unheard = Unheard { errors: VecDeque::new(), told: State::Ready };
            let now = Instant::now();
            let mut bench = Bench {
                connection: Some(Connection::new(1, near, stage, &limits, now)),
                selector: Selector::new().unwrap(),
                carriers: Carriers::new(limits.buffer, limits.splice),
                limits,
                shared: Shared {
                    counts: Counts::default(),
                    wake: Wake::new().unwrap(),
                    stop: AtomicBool::new(false),
                    news: Arc::new(Wake::new().unwrap()),
                    unheard: RankedMutex::new(Rank::TunnelReport, unheard),
                },
                now,
            };
            bench.serve();
            bench
        }

        /// Between two sockets that are connected.
        fn open(near: impl Into<OwnedFd>, far: impl Into<OwnedFd>, limits: Limits) -> Self {
            let near: OwnedFd = near.into();
            sys::set_nonblocking(near.as_raw_fd(), true).unwrap();
            Bench::new(End::Socket(near), far_socket(far.into()).unwrap(), limits)
        }

        /// As the tunnel serves it: again and again, as long as it wants to be.
        fn serve(&mut self) {
            loop {
                let Some(connection) = &mut self.connection else { return };
                let served = connection.serve(&mut Tools {
                    selector: &self.selector,
                    carriers: &mut self.carriers,
                    limits: &self.limits,
                    shared: &self.shared,
                    turn: 1 << 20,
                    now: self.now,
                });
                match served.unwrap() {
                    Served::Again => {}
                    Served::Stays => return,
                    Served::Over => {
                        let over = self.connection.take().unwrap();
                        over.close(&self.selector, &mut self.carriers);
                    }
                }
            }
        }

        /// Serves it at every event until `done`.
        fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
            let (start, mut ready) = (Instant::now(), Vec::new());
            while !done(self) {
                assert!(start.elapsed() < LONG, "never: {what}");
                self.selector.wait(&mut ready, 1).unwrap();
                for ready in &ready {
                    self.connection.iter_mut().for_each(|connection| connection.look(ready));
                }
                self.serve();
            }
        }

        /// Lets time pass; whether it is still there then.
        fn pass(&mut self, time: Duration) -> bool {
            self.now += time;
            self.serve();
            self.connection.is_some()
        }

        fn count(&self, pick: impl Fn(&Counts) -> &AtomicU64) -> u64 {
            pick(&self.shared.counts).load(Ordering::Relaxed)
        }

        fn lingers(&self) -> bool {
            matches!(&self.connection, Some(Connection { stage: Stage::Linger(_), .. }))
        }

        /// When it is given up since nobody takes what an end had sent that was reset.
        fn given_up(&self) -> Deadline {
            self.connection.as_ref().and_then(|connection| connection.given_up)
        }

        fn next_error(&self) -> Option<Error> {
            self.shared.unheard.lock().errors.pop_front()
        }
    }

    /// Both ends of a TCP connection.
    fn tcp() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (listener.accept().unwrap().0, client)
    }

    /// Sends until nothing more fits all the way.
    fn stuff(bench: &mut Bench, stream: &impl AsRawFd) -> usize {
        let mut sent = 0;
        for _ in 0..20 {
            bench.until("it takes a little", |bench| {
                let before = sent;
                while let Ok(count) = sys::send_now(stream.as_raw_fd(), &[b'a'; 10_000]) {
                    sent += count;
                }
                bench.serve();
                sent == before
            });
            // What is on its way between the sockets may make room.
            bench.selector.wait(&mut Vec::new(), 2).unwrap();
            bench.serve();
        }
        sent
    }

    #[test]
    fn a_life_ends_whatever_happens_in_it() {
        let ((near, mut client), (far, mut target)) = (tcp(), UnixStream::pair().unwrap());
        let mut bench = Bench::open(near, far, limits(Some(60 * SECOND), None));
        for _ in 0..59 {
            client.write_all(b"x").unwrap();
            let before = bench.count(|c| &c.bytes_out);
            bench.until("the byte", |bench| bench.count(|c| &c.bytes_out) > before);
            target.read_exact(&mut [0]).unwrap();
            assert!(bench.pass(SECOND));
        }
        assert!(bench.pass(SECOND - MOMENT));
        assert!(!bench.pass(MOMENT));
        assert_eq!((bench.count(|c| &c.expired), client.read(&mut [0]).unwrap()), (1, 0));
    }

    #[test]
    fn traffic_keeps_a_connection_from_being_idle() {
        let ((near, mut client), (far, mut target)) = (tcp(), UnixStream::pair().unwrap());
        let mut bench = Bench::open(near, far, limits(None, Some(10 * SECOND)));
        for round in 0..20 {
            assert!(bench.pass(10 * SECOND - MOMENT), "round {round}");
            // Both ways count.
            let (from, to): (&mut dyn Write, &mut dyn Read) =
                if round % 2 == 0 { (&mut client, &mut target) } else { (&mut target, &mut client) };
            from.write_all(b"x").unwrap();
            let moved = |bench: &mut Bench| bench.count(|c| &c.bytes_out) + bench.count(|c| &c.bytes_in);
            bench.until("the byte", |bench| moved(bench) == round + 1);
            to.read_exact(&mut [0]).unwrap();
        }
        assert_eq!(bench.connection.as_ref().unwrap().deadline(), Some(bench.now + 10 * SECOND));
        assert!(!bench.pass(10 * SECOND));
        assert_eq!((bench.count(|c| &c.expired), client.read(&mut [0]).unwrap()), (1, 0));
    }

    /// Connecting over I2P, until it is told to have been done.
    struct Connecting(Arc<AtomicBool>, Option<Stream>);

    impl Job<Stream> for Connecting {
        fn step(&mut self, _: Instant, _: Deadline) -> Result<Option<Stream>> {
            Ok(if self.0.load(Ordering::Relaxed) { self.1.take() } else { None })
        }

        fn interest(&self) -> Interest {
            Interest::NONE
        }

        fn generation(&self) -> u64 {
            0
        }
    }

    /// Connecting over I2P takes longer than a connection may be idle.
    #[test]
    fn nobody_is_idle_before_it_is_connected() {
        let ((near, _client), (far, _target)) = (tcp(), UnixStream::pair().unwrap());
        near.set_nonblocking(true).and_then(|()| far.set_nonblocking(true)).unwrap();
        let connected = Arc::new(AtomicBool::new(false));
        let job = Connecting(Arc::clone(&connected), Some(Stream::of_socket(far.into())));
        let pending = Pending::begin(&Arc::default(), Operation::Connect, job, None, Instant::now());
        let near = End::Socket(near.into());
        let mut bench = Bench::new(near, Stage::Pending(Box::new(pending)), limits(None, Some(2 * SECOND)));
        assert!(bench.pass(600 * SECOND));
        connected.store(true, Ordering::Relaxed);
        assert!(bench.pass(600 * SECOND));
        assert!(bench.pass(2 * SECOND - MOMENT) && bench.count(|c| &c.expired) == 0);
        assert!(!bench.pass(MOMENT));
        assert_eq!(bench.count(|c| &c.expired), 1);
    }

    /// Nobody takes what was sent, and who has sent it has gone: such a connection must not stay for ever.
    #[test]
    fn nothing_is_kept_for_a_target_that_never_reads() {
        for reads_a_little in [false, true] {
            let ((near, client), (far, mut target)) = (tcp(), UnixStream::pair().unwrap());
            let mut bench = Bench::open(near, far, limits(None, None));
            stuff(&mut bench, &client);
            // What is closed with something unread is reset.
            target.write_all(b"x").unwrap();
            bench.until("it may be read", |bench| bench.count(|c| &c.bytes_in) == 1);
            assert_eq!(client.peek(&mut [0]).unwrap(), 1);
            drop(client);
            bench.until("the reset is noticed", |bench| bench.given_up().is_some());
            assert_eq!(bench.given_up(), Some(bench.now + PATIENCE));
            assert!(bench.pass(PATIENCE - MOMENT), "the target may still read");
            if reads_a_little {
                let before = bench.count(|c| &c.bytes_out);
                target.read_exact(&mut vec![0; 100_000]).unwrap();
                bench.until("it gets more", |bench| bench.count(|c| &c.bytes_out) > before);
                assert_eq!(bench.given_up(), Some(bench.now + PATIENCE), "it has as much time again");
                assert!(bench.pass(PATIENCE - MOMENT));
            }
            assert!(!bench.pass(MOMENT));
            assert!(bench.next_error().unwrap().to_string().contains("was reset"));
        }
    }

    /// Whoever breaks off while it is being answered: the target has not taken what it had sent, and never will.
    #[test]
    fn nothing_is_kept_of_a_reset_amid_an_answer() {
        let ((near, mut client), (far, target)) = (tcp(), tcp());
        let mut bench = Bench::open(near, far, limits(None, None));
        // Up to the target there is no room for more, and neither is there up to the client.
        stuff(&mut bench, &client);
        stuff(&mut bench, &target);
        client.read_exact(&mut [0; 100_000]).unwrap();
        stuff(&mut bench, &target);
        // With something unread, which resets it.
        assert_eq!(client.peek(&mut [0]).unwrap(), 1);
        drop(client);
        bench.until("the reset is noticed", |bench| bench.given_up().is_some());
        assert!(bench.pass(PATIENCE - MOMENT));
        assert!(!bench.pass(MOMENT));
    }

    /// A connection whose client has sent `size` bytes and gone, more than the target has room for.
    fn unread(size: usize, limits: Limits) -> (Bench, TcpStream) {
        let ((near, mut client), (far, target)) = (tcp(), tcp());
        let mut bench = Bench::open(near, far, limits);
        client.set_nonblocking(true).unwrap();
        let mut left = size;
        bench.until("all is sent", |_| {
            left -= client.write(&vec![b'a'; left]).unwrap_or(0);
            left == 0
        });
        drop(client);
        bench.until("all is passed on", |bench| bench.lingers());
        assert_eq!(bench.count(|c| &c.bytes_out), size as u64);
        (bench, target)
    }

    /// More than a reader has room for, and not more than that and the tunnel's socket have.
    const SIZE: usize = 500_000;

    /// A reader that takes a long break and says something before it reads on.
    #[test]
    fn a_reader_that_talks_in_a_break_loses_nothing() {
        let (mut bench, mut target) = unread(SIZE, limits(None, None));
        for _ in 0..100 {
            assert!(bench.pass(PATIENCE + SECOND));
        }
        target.write_all(b"x").unwrap();
        assert!(bench.pass(PATIENCE + SECOND));
        target.set_nonblocking(true).unwrap();
        let (mut got, mut buffer) = (0, [0; 10_000]);
        // The end comes when it has everything.
        bench.until("the end", |_| loop {
            match target.read(&mut buffer) {
                Ok(0) => break true,
                Ok(count) => got += count,
                Err(_) => break false,
            }
        });
        assert_eq!(got, SIZE);
    }

    /// That break is limited by the time a connection may be idle, and no shorter.
    #[test]
    fn a_break_is_as_long_as_idleness_may_be() {
        let (mut bench, mut target) = unread(SIZE, limits(None, Some(60 * SECOND)));
        assert!(bench.pass(60 * SECOND - MOMENT));
        let unsent = |bench: &Bench| match &bench.connection.as_ref().unwrap().stage {
            Stage::Linger(linger) => linger.unsent(),
            _ => unreachable!(),
        };
        let before = unsent(&bench);
        // A little at a time, so that something is left.
        bench.until("it takes more", |bench| {
            target.read_exact(&mut [0; 10_000]).unwrap();
            unsent(bench) < before
        });
        assert!(unsent(&bench) > 0);
        // Reading is not idling; a break is.
        assert!(bench.pass(60 * SECOND - MOMENT));
        assert!(!bench.pass(60 * SECOND));
        assert_eq!(bench.count(|c| &c.expired), 0, "it was over already");
    }
}
