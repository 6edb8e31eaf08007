//! One connection to the bridge, driven without blocking: tries each address, then runs the handshake to its end.
//!
//! ```text
//!   Start ---> Reaching ---> Talking ---> Over
//!     ^           |             |
//!     +-----------+-------------+   the next address, or the same one with older versions
//!     ^           |             |
//!     +-- Away <--+-------------+   all over again after a pause, if there is no router yet and it is waited for
//! ```

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::core::bridge::config::{Bridge, FIRST_PAUSE, LONGEST_PAUSE};
use crate::core::drive::{after, earlier, passed, Backoff, Deadline, Interest, Progress, Scope, Waiting};
use crate::error::{Error, Operation, Result, Status};
use crate::protocol::handshake::{Handshake, Phase, NO_ANSWER};
use crate::protocol::hidden::Hidden;
use crate::protocol::line::Fields;
use crate::protocol::outbox::Outbox;
use crate::protocol::request::{Outcome, Request};
use crate::protocol::version::Version;
use crate::secret::Gathered;
use crate::sys::{self, Place, SharedFd};

/// Reads per step before control returns to the caller, so that a bridge that never stops sending cannot hold it.
const READS_PER_STEP: usize = 8;

/// How long the bridge may take to confirm an accept, which it does at once.
const ACCEPT_PATIENCE: Duration = Duration::from_secs(10);

/// The least time that an address of the bridge gets, even if none is left for it.
const LEAST_SHARE: Duration = Duration::from_secs(1);

/// A connection that is to become a stream or a session, or to bring an answer.
pub struct BridgeConnection {
    bridge: Arc<Bridge>,
    scope: Arc<Scope>,
    handshake: Handshake,
    state: State,
    next_place: usize,
    /// When all addresses must have been tried; `None` until the first one is.
    reach_by: Option<Deadline>,
    generation: u64,
    /// Why the last address tried could not be reached.
    unreachable: Option<Error>,
    cut: bool,
    /// When the request was sent.
    asked: Option<Instant>,
    /// Set if a router that is not there yet is waited for.
    patience: Option<Patience>,
}

/// Waiting for a router that is not there yet.
struct Patience {
    time: Duration,
    /// Set by the first step.
    until: Deadline,
    backoff: Backoff,
}

enum State {
    /// No socket yet: the next address is to be tried.
    Start,
    Reaching(Reaching),
    Talking(Talking),
    /// There is no router yet: everything is tried again then.
    Away(Deadline),
    /// Finished: the socket now belongs to whatever was made of it.
    Over,
}

/// A connect is in progress.
struct Reaching {
    socket: Arc<SharedFd>,
    until: Deadline,
}

/// Connected; the SAM conversation is running.
struct Talking {
    socket: Arc<SharedFd>,
    /// When the answer to HELLO is due; `None` once it has arrived.
    until: Deadline,
    /// Bytes read past the reply; only on connections that never carry payload.
    surplus: Gathered,
}

/// The result of a connection whose request was answered.
pub struct Finished {
    pub outcome: Outcome,
    pub socket: Arc<SharedFd>,
    pub version: Version,
    /// Bytes read past the reply; only on connections that never carry payload.
    pub surplus: Gathered,
    /// Output still to be written (PONGs).
    pub unsent: Outbox,
    /// Secrets of the request, which are not to be shown if the bridge repeats them.
    pub hidden: Hidden,
}

impl BridgeConnection {
    /// Prepares the connection; nothing is sent before the first step. It is closed when `scope` ends.
    pub fn new(bridge: Arc<Bridge>, scope: Arc<Scope>, request: Request) -> Result<Self> {
        let handshake = Handshake::new(request, bridge.range(), bridge.credentials())?;
        Ok(BridgeConnection {
            bridge,
            scope,
            handshake,
            state: State::Start,
            next_place: 0,
            reach_by: None,
            generation: 0,
            unreachable: None,
            cut: false,
            asked: None,
            patience: None,
        })
    }

    /// Makes it wait for a router that is not there yet, for as long as the program has asked for.
    pub fn patiently(mut self) -> Self {
        let backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        self.patience = self.bridge.timeouts.bridge.map(|time| Patience { time, until: None, backoff });
        self
    }

    pub fn bridge(&self) -> &Arc<Bridge> {
        &self.bridge
    }

    /// What it ends with, and what any stream it becomes ends with.
    pub fn scope(&self) -> &Arc<Scope> {
        &self.scope
    }

    pub fn interest(&self) -> Interest {
        self.awaited().map_or(Interest::NONE, |(socket, events)| Interest { fd: socket.as_raw_fd(), events })
    }

    /// Incremented whenever the descriptor refers to a new open file description.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// When the current phase of the conversation times out.
    pub fn deadline(&self) -> Deadline {
        match &self.state {
            State::Start | State::Over => None,
            State::Reaching(reaching) => reaching.until,
            State::Talking(talking) => talking.until,
            State::Away(due) => *due,
        }
    }

    /// Whether there is no router yet, and it is being waited for.
    pub fn is_away(&self) -> bool {
        matches!(self.state, State::Away(_))
    }

    /// When the request was sent; `None` if it was not sent yet.
    pub fn asked_at(&self) -> Option<Instant> {
        self.asked
    }

    /// How long ago the request was sent; `None` if it was not sent yet.
    pub fn asked_for(&self, now: Instant) -> Option<Duration> {
        self.asked.map(|asked| now.saturating_duration_since(asked))
    }

    /// Whether the connection to the bridge is up.
    pub fn is_established(&self) -> bool {
        matches!(self.state, State::Talking(_) | State::Over)
    }

    /// Fails if the scope it belongs to has ended.
    pub fn check_scope(&self) -> Result<()> {
        self.scope.check(self.request().operation())
    }

    pub fn phase(&self) -> Phase {
        self.handshake.phase()
    }

    /// Whether the bridge has the whole request, and so may be acting on it.
    pub fn is_asked(&self) -> bool {
        self.handshake.is_asked()
    }

    /// Whether it is an accept that the bridge has confirmed and then ended without a word, although nobody has come.
    pub fn is_dropped_accept(&self) -> bool {
        self.cut && self.phase() == Phase::Peer && self.handshake.ended_silently()
    }

    /// Whether it failed because the connection was closed or reset.
    pub fn is_cut(&self) -> bool {
        self.cut
    }

    /// Whether it failed without a word from a router of SAM 3.3, which knows how to say no: that router was stopped.
    pub fn is_gone(&self) -> bool {
        self.cut && self.handshake.version() >= Some(Version::V3_3)
    }

    pub fn reply(&self) -> Option<&Fields> {
        self.handshake.reply()
    }

    /// Takes the last reply out.
    pub fn take_reply(&mut self) -> Option<Fields> {
        self.handshake.take_reply()
    }

    pub fn request(&self) -> &Request {
        self.handshake.request()
    }

    /// Gets as far as possible without blocking.
    pub fn step(&mut self, now: Instant) -> Result<Progress> {
        self.handshake.trace.want(self.bridge.log.is_wanted());
        if let Some(patience) = self.patience.as_mut().filter(|patience| patience.until.is_none()) {
            patience.until = after(Some(patience.time), now);
        }
        let result = match self.run(now) {
            Err(error) if self.wait_for_router(&error, now) => Ok(Progress::Block),
            result => result,
        };
        self.bridge.log.lines(self.handshake.trace.take());
        result
    }

    fn run(&mut self, now: Instant) -> Result<Progress> {
        loop {
            self.scope.check(self.request().operation())?;
            match &self.state {
                State::Start => self.open_next(now)?,
                State::Reaching(reaching) => {
                    let (socket, until) = (Arc::clone(&reaching.socket), reaching.until);
                    if !self.check_connected(&socket, until, now)? {
                        return self.in_time(until, now, "no connection to the bridge at", "");
                    }
                }
                State::Talking(talking) => {
                    let socket = Arc::clone(&talking.socket);
                    match self.talk(&socket, now) {
                        Err(error) if self.try_older(&error) => {}
                        Err(error) => {
                            self.scope.check(self.request().operation())?;
                            return Err(error);
                        }
                        Ok(Progress::Done) => return Ok(Progress::Done),
                        Ok(Progress::Block) => {
                            let (what, hint) = match self.phase() {
                                Phase::Hello => ("no answer to HELLO from the bridge at", NO_ANSWER),
                                _ => ("no answer to STREAM ACCEPT from the bridge at", ""),
                            };
                            return self.in_time(self.deadline(), now, what, hint);
                        }
                    }
                }
                State::Away(due) if passed(*due, now) => self.state = State::Start,
                State::Away(_) => return Ok(Progress::Block),
                State::Over => return Ok(Progress::Done),
            }
        }
    }

    fn in_time(&self, until: Deadline, now: Instant, what: &str, hint: &str) -> Result<Progress> {
        if passed(until, now) {
            let message = format!("{what} {} in time{hint}", self.bridge.text());
            return Err(Error::new(Status::Timeout, Operation::Handshake, message));
        }
        Ok(Progress::Block)
    }

    /// Retries on a new connection with older versions, once, if the bridge supports none of those asked for.
    fn try_older(&mut self, error: &Error) -> bool {
        let again =
            self.phase() == Phase::Hello && error.tag == "NOVERSION" && self.bridge.lower(self.handshake.range());
        if again {
            self.next_place = self.next_place.saturating_sub(1);
            self.reach_by = None;
            self.state = State::Start;
            self.handshake.restart(self.bridge.range(), self.bridge.credentials()).is_ok()
        } else {
            false
        }
    }

    /// Whether `error` means that there is no router yet, and it is waited for. Then everything is tried again later.
    fn wait_for_router(&mut self, error: &Error, now: Instant) -> bool {
        let absent = match &self.state {
            State::Start => is_absent(error.os_error),
            // Something may accept connections for a router that is not there, as Docker does.
            State::Talking(_) if self.phase() == Phase::Hello => self.cut,
            // Java I2P opens its SAM port before it can make sessions.
            State::Talking(_) => error.status == Status::Network && error.message.contains("No manager yet"),
            State::Reaching(_) | State::Away(_) | State::Over => false,
        };
        let (range, credentials) = (self.bridge.range(), self.bridge.credentials());
        let Some(patience) = self.patience.as_mut().filter(|patience| absent && !passed(patience.until, now)) else {
            return false;
        };
        if self.handshake.restart(range, credentials).is_err() {
            return false;
        }
        self.bridge.log.line(|| format!("waiting for the router: {}", error.message));
        self.state = State::Away(earlier(after(Some(patience.backoff.pause()), now), patience.until));
        (self.next_place, self.reach_by, self.cut, self.asked) = (0, None, false, None);
        true
    }

    fn open_next(&mut self, now: Instant) -> Result<()> {
        let Some(place) = self.bridge.places().get(self.next_place).cloned() else {
            let none = || Error::new(Status::Io, Operation::Handshake, "the bridge's host has no address");
            return Err(self.unreachable.take().unwrap_or_else(none));
        };
        let until = self.share(now);
        self.next_place += 1;
        match sys::connect_start(&place) {
            Ok((fd, established)) => {
                let socket = Arc::new(SharedFd::new(fd));
                let operation = self.request().operation();
                self.scope.add(&socket).map_err(|cause| cause.during(operation))?;
                self.generation += 1;
                self.state = match established {
                    true => self.talking(socket, now),
                    false => State::Reaching(Reaching { socket, until }),
                };
            }
            // A unix socket whose backlog is full fails with EAGAIN, which must not be mistaken for "in progress".
            Err(error) => self.remember(&place, &error),
        }
        Ok(())
    }

    /// When the next address counts as unreachable: no address may use up the time of those behind it.
    fn share(&mut self, now: Instant) -> Deadline {
        let all = (*self.reach_by.get_or_insert_with(|| after(self.bridge.timeouts.tcp, now)))?;
        let left = u32::try_from(self.bridge.places().len().saturating_sub(self.next_place)).unwrap_or(u32::MAX);
        let share = all.saturating_duration_since(now) / left.max(1);
        // A single address gets exactly what the program said.
        let share = if self.next_place == 0 { share } else { share.max(LEAST_SHARE) };
        after(Some(share), now)
    }

    fn talking(&self, socket: Arc<SharedFd>, now: Instant) -> State {
        State::Talking(Talking { socket, until: after(self.bridge.timeouts.hello, now), surplus: Gathered::default() })
    }

    fn remember(&mut self, place: &Place, error: &io::Error) {
        let mut error = self.bridge.unreachable(error);
        if let (Place::Tcp(address), true) = (place, self.bridge.places().len() > 1) {
            let message = format!("{} [tried {address}]", error.message);
            error = error.saying(message);
        }
        self.unreachable = Some(error);
    }

    /// Whether the connect in progress has been decided. If it failed, the next address is up.
    fn check_connected(&mut self, socket: &Arc<SharedFd>, until: Deadline, now: Instant) -> Result<bool> {
        let system = |error| Error::io(Operation::Handshake, "poll", &error);
        if sys::poll_one(socket.as_raw_fd(), sys::OUT, 0).map_err(system)? == 0 {
            let more = self.next_place < self.bridge.places().len();
            if more && passed(until, now) {
                self.fail_place(&io::Error::from_raw_os_error(libc::ETIMEDOUT));
                return Ok(true);
            }
            return Ok(false);
        }
        match sys::socket_error(socket.as_raw_fd()) {
            Ok(()) => self.state = self.talking(Arc::clone(socket), now),
            Err(error) => self.fail_place(&error),
        }
        Ok(true)
    }

    fn fail_place(&mut self, error: &io::Error) {
        if let Some(place) = self.bridge.places().get(self.next_place.wrapping_sub(1)).cloned() {
            self.remember(&place, error);
        }
        self.state = State::Start;
    }

    fn talk(&mut self, socket: &SharedFd, now: Instant) -> Result<Progress> {
        for reads in 0..=READS_PER_STEP {
            self.write(socket);
            // Checked after the last read too: if that brought everything, no further event would wake the caller.
            if self.phase() == Phase::Done {
                return Ok(Progress::Done);
            }
            if self.phase() != Phase::Hello {
                let asked = *self.asked.get_or_insert(now);
                let unconfirmed = self.phase() == Phase::Reply && matches!(self.request(), Request::Accept { .. });
                let patience = self.bridge.timeouts.hello.map_or(ACCEPT_PATIENCE, |hello| hello.min(ACCEPT_PATIENCE));
                if let State::Talking(talking) = &mut self.state {
                    talking.until = after(unconfirmed.then_some(patience), asked);
                }
            }
            if reads == READS_PER_STEP || !self.read(socket)? {
                break;
            }
        }
        Ok(Progress::Block)
    }

    fn write(&mut self, socket: &SharedFd) {
        while !self.handshake.output().is_empty() {
            match sys::send_now(socket.as_raw_fd(), self.handshake.output()) {
                Ok(count) => self.handshake.wrote(count),
                // If the socket is full, retry later. If it is broken, read first: the bridge may have said why before
                // it closed.
                Err(_) => break,
            }
        }
    }

    /// Reads once. Returns whether there was anything to read.
    fn read(&mut self, socket: &SharedFd) -> Result<bool> {
        let mut buffer = [0; 4096];
        let exact = self.handshake.must_read_exactly();
        let peek = if exact { sys::MSG_PEEK } else { 0 };
        let result = match sys::recv(socket.as_raw_fd(), &mut buffer, sys::MSG_DONTWAIT | peek) {
            Err(error) if sys::would_block(&error) => return Ok(false),
            Err(error) => {
                self.cut = true;
                let mut closed = self.handshake.reset();
                closed.os_error = error.raw_os_error().unwrap_or(0);
                Err(closed)
            }
            Ok(0) => {
                self.cut = true;
                Err(self.handshake.eof())
            }
            Ok(count) => self.take(socket, buffer.get(..count).unwrap_or_default(), exact),
        };
        sys::wipe(&mut buffer);
        result.map(|()| true)
    }

    fn take(&mut self, socket: &SharedFd, bytes: &[u8], exact: bool) -> Result<()> {
        let used = self.handshake.input(bytes)?;
        if !exact {
            if let State::Talking(talking) = &mut self.state {
                talking.surplus.extend(bytes.get(used..).unwrap_or_default());
            }
            return Ok(());
        }
        sys::discard(socket.as_raw_fd(), used).map_err(|error| Error::io(self.request().operation(), "recv", &error))
    }

    /// Takes the result, after [`Progress::Done`].
    pub fn finish(&mut self) -> Result<Finished> {
        let state = std::mem::replace(&mut self.state, State::Over);
        match (state, self.handshake.take_outcome(), self.handshake.version()) {
            (State::Talking(Talking { socket, surplus, .. }), Some(outcome), Some(version)) => {
                let (unsent, hidden) = (self.handshake.take_output(), self.handshake.take_hidden());
                Ok(Finished { outcome, socket, version, surplus, unsent, hidden })
            }
            _ => Err(Error::new(Status::Internal, self.request().operation(), "a connection without a result")),
        }
    }

    /// Time limit of the whole request, unless the caller sets one.
    pub fn default_timeout(&self) -> Option<Duration> {
        let timeouts = &self.bridge.timeouts;
        let waits = self.patience.as_ref().map_or(Duration::ZERO, |patience| patience.time);
        match self.request() {
            Request::Check => timeouts.tcp.zip(timeouts.hello).map(|(tcp, hello)| tcp + hello + waits),
            Request::Generate { .. } => timeouts.generate,
            Request::Lookup { .. } => timeouts.lookup,
            Request::Create { .. } => timeouts.open.map(|open| open + waits),
            Request::Connect { .. } | Request::Forward { .. } => timeouts.connect,
            Request::Accept { .. } => timeouts.accept,
        }
    }
}

impl Waiting for BridgeConnection {
    fn awaited(&self) -> Option<(&Arc<SharedFd>, i16)> {
        match &self.state {
            State::Start | State::Away(_) | State::Over => None,
            State::Reaching(reaching) => Some((&reaching.socket, sys::OUT)),
            State::Talking(talking) if self.handshake.output().is_empty() => Some((&talking.socket, sys::IN)),
            State::Talking(talking) => Some((&talking.socket, sys::IN | sys::OUT)),
        }
    }
}

/// Whether a connect failed because nothing listens there, or nobody is there at all.
fn is_absent(os_error: i32) -> bool {
    let absent = [
        libc::ECONNREFUSED,
        libc::ENOENT,
        libc::ECONNRESET,
        libc::ETIMEDOUT,
        libc::EHOSTUNREACH,
        libc::EHOSTDOWN,
        libc::ENETUNREACH,
        libc::ENETDOWN,
    ];
    absent.contains(&os_error)
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener};
    use std::os::fd::OwnedFd;

    use super::*;

    /// An address where connects are neither taken nor refused, as with a host that drops packets: the queue of its
    /// listener is full.
    fn silent() -> (Place, TcpListener, Vec<OwnedFd>) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let place = Place::Tcp(listener.local_addr().unwrap());
        let mut queued = Vec::new();
        while queued.last().is_none_or(|fd: &OwnedFd| sys::poll_one(fd.as_raw_fd(), sys::OUT, 50).unwrap() != 0) {
            assert!(queued.len() < 10_000);
            queued.push(sys::connect_start(&place).unwrap().0);
        }
        (place, listener, queued)
    }

    fn connection(places: &[Place]) -> BridgeConnection {
        let bridge = Arc::new(Bridge::at(places.to_vec()));
        BridgeConnection::new(bridge, Arc::default(), Request::Check).unwrap()
    }

    #[test]
    fn each_address_gets_its_share_of_the_time() {
        let _edge = crate::core::drive::log::edge();
        let (silent, _listener, _queued) = silent();
        let there = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let good = Place::Tcp(there.local_addr().unwrap());
        let (start, ten) = (Instant::now(), Duration::from_secs(10));
        let block = |connection: &mut BridgeConnection, now| {
            assert_eq!(connection.step(now).unwrap(), Progress::Block);
            connection.deadline().unwrap()
        };
        // All of it for a single one.
        let mut alone = connection(std::slice::from_ref(&silent));
        assert_eq!(block(&mut alone, start), start + ten);
        assert_eq!(alone.step(start + ten).unwrap_err().status, Status::Timeout);
        // The last one gets what is left.
        let mut three = connection(&[silent.clone(), silent.clone(), silent.clone()]);
        assert_eq!(block(&mut three, start), start + ten / 3);
        assert_eq!(block(&mut three, start + ten / 3 - Duration::from_millis(1)), start + ten / 3);
        let second = block(&mut three, start + ten / 2);
        assert_eq!(second, start + ten / 4 * 3);
        assert_eq!(block(&mut three, second), start + ten);
        assert_eq!(three.step(start + ten).unwrap_err().status, Status::Timeout);
        // Or a little, if nobody looked for long.
        let mut late = connection(&[silent.clone(), silent.clone()]);
        block(&mut late, start);
        assert_eq!(block(&mut late, start + 6 * ten), start + 6 * ten + LEAST_SHARE);
        // The bridge behind a silent address is reached.
        let mut both = connection(&[silent, good]);
        let second = block(&mut both, start);
        assert_eq!((second, both.is_established()), (start + ten / 2, false));
        block(&mut both, second);
        let (socket, _) = both.awaited().unwrap();
        sys::poll_one(socket.as_raw_fd(), sys::OUT, 60_000).unwrap();
        block(&mut both, second);
        assert!(both.is_established());
    }

    #[test]
    fn a_refused_address_costs_no_time() {
        let _edge = crate::core::drive::log::edge();
        let gone: SocketAddr = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
        let mut connection = connection(&[Place::Tcp(gone), Place::Tcp(gone)]);
        let error = connection.step(Instant::now()).unwrap_err();
        assert_eq!((error.status, error.os_error), (Status::Io, libc::ECONNREFUSED));
        assert!(error.message.ends_with(&format!(" [tried {gone}]")), "{}", error.message);
    }
}
