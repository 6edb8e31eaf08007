//! A datagram socket on a real UDP descriptor: one system call per datagram each way, nothing allocated.

use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::core::datagram::target_cache::{self, Known, TargetCache};
use crate::core::destination::{DestHandle, Destination};
use crate::core::drive::{after, passed, poll_timeout, Deadline, Limit};
use crate::core::session::{DatagramPort, Path, Session};
use crate::error::{Error, Operation, Result, Status};
use crate::identity::{base32_encode, Address};
use crate::protocol::datagram::{self, Origin, SendOptions, Source, MAX_DGRAM, MAX_HEADER, MAX_RAW};
use crate::protocol::style::Style;
use crate::sys::{self, Arrival, Batch, PollFd, UdpAddress};

pub(super) mod many;

pub use crate::core::datagram::socket::many::{Outgoing, Slot};

/// Flags the calls take.
const RECEIVE_FLAGS: i32 = sys::MSG_DONTWAIT | sys::MSG_PEEK | sys::MSG_NOSIGNAL;
const SEND_FLAGS: i32 = sys::MSG_DONTWAIT | sys::MSG_NOSIGNAL;
/// Sources remembered: peers beyond that cost a parse each.
const KNOWN_SOURCES: usize = 64;

/// Datagrams that are dropped before a receiver looks at its time limit again.
const DROPS_PER_LOOK: u32 = 16;

/// The counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Handed to the bridge.
    pub sent: u64,
    /// Handed to the program.
    pub received: u64,
    /// Dropped because they did not come from the bridge.
    pub refused: u64,
    /// Dropped because their header made no sense.
    pub malformed: u64,
    /// Handed to the program cut short.
    pub truncated: u64,
    /// Dropped by the system, or in band by this library, for want of room.
    pub dropped: u64,
}

/// A received datagram; its payload is in the caller's buffer.
#[derive(Debug)]
pub struct Datagram {
    /// Payload bytes in the buffer.
    pub len: usize,
    /// Payload bytes there were.
    pub full_len: usize,
    /// Who sent it; `None` for raw ones.
    pub source: Option<Source>,
    /// Ports and protocol.
    pub origin: Origin,
}

/// A handle to the datagrams of a destination.
pub struct Dgram {
    presence: Arc<Destination>,
    port: Arc<DatagramPort>,
    timeout: AtomicI32,
    /// Length of the last header: where to put the next payload.
    predicted: AtomicUsize,
    sources: Mutex<Vec<(Box<[u8]>, Source)>>,
    names: TargetCache,
    refused_once: AtomicBool,
    deferred: Mutex<Option<Error>>,
    /// For receiving many; away while somebody does.
    batch: Mutex<Option<Box<Batch>>>,
}

impl Dgram {
    /// The datagrams of a destination.
    pub fn bind(dest: &DestHandle) -> Result<Self> {
        let presence = dest.destination();
        presence.bridge().check_process()?;
        presence.check(Operation::None)?;
        let Some(port) = &presence.spec().port else {
            return Err(Error::state("datagrams are for destinations of a datagram style"));
        };
        Ok(Dgram::new(Arc::clone(presence), Arc::clone(port)))
    }

    /// A handle to the port of a destination.
    fn new(presence: Arc<Destination>, port: Arc<DatagramPort>) -> Self {
        let predicted = match (presence.style(), port.raw_header) {
            (Style::Raw, false) => 0,
            (Style::Raw, true) => 32,
            _ => 525,
        };
        Dgram {
            presence,
            port,
            timeout: AtomicI32::new(-1),
            predicted: AtomicUsize::new(predicted),
            sources: Mutex::new(Vec::new()),
            names: TargetCache::default(),
            refused_once: AtomicBool::new(false),
            deferred: Mutex::new(None),
            batch: Mutex::new(None),
        }
    }

    /// The destination.
    pub fn presence(&self) -> &Arc<Destination> {
        &self.presence
    }

    /// The descriptor, for poll.
    pub fn fd(&self) -> RawFd {
        self.port.socket.as_raw_fd()
    }

    /// What has happened so far, through all handles of the destination.
    pub fn counts(&self) -> Counts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.port.counters;
        Counts {
            sent: get(&counters.sent),
            received: get(&counters.received),
            refused: get(&counters.refused),
            malformed: get(&counters.malformed),
            truncated: get(&counters.truncated),
            dropped: counters.dropped(),
        }
    }

    /// The descriptor, unless the destination has ended or this is a child of fork(2).
    pub fn check(&self, operation: Operation) -> Result<RawFd> {
        self.presence.bridge().check_process()?;
        self.presence.check(operation)?;
        Ok(self.fd())
    }

    fn deadline(&self) -> Option<Deadline> {
        let timeout = u64::try_from(self.timeout.load(Ordering::Relaxed)).ok()?;
        Some(after(Some(Duration::from_millis(timeout)), Instant::now()))
    }

    /// Sets or clears O_NONBLOCK.
    pub fn set_nonblocking(&self, on: bool) -> Result<()> {
        let fd = self.check(Operation::None)?;
        sys::set_nonblocking(fd, on).map_err(|error| Error::io(Operation::None, "ioctl", &error))
    }

    /// Bounds every send and receive in milliseconds; -1 for no bound.
    pub fn set_timeout(&self, milliseconds: i32) -> Result<()> {
        self.check(Operation::None)?;
        if milliseconds < -1 {
            return Err(Error::invalid("a time limit is -1 for none or a number of milliseconds"));
        }
        self.timeout.store(milliseconds, Ordering::Relaxed);
        Ok(())
    }

    /// Sends one datagram, whole or not at all; whether it went (otherwise it would have blocked).
    pub fn send_to(&self, address: &str, payload: &[u8], flags: i32, options: &SendOptions) -> Result<bool> {
        let fd = self.check(Operation::Send)?;
        let session = self.presence.live(Operation::Send)?;
        check_flags(flags, SEND_FLAGS)?;
        self.check_size(payload)?;
        if options.protocol.is_some() && self.presence.style() != Style::Raw {
            return Err(Error::invalid("option protocol is for raw datagrams"));
        }
        if options.any() && !self.port.header_options {
            let message = "options of a datagram reach the peer only through routers that know them (Java I2P), \
                           and others lose the datagram: open the destination with option header_options=1 to insist";
            return Err(Error::new(Status::Unsupported, Operation::Send, message));
        }
        let target = match self.names.cached(&session, address) {
            Some(known) => known,
            None => match self.find(&session, fd, address, flags)? {
                Some(known) => known,
                None => return Ok(false),
            },
        };
        let went = match &self.port.path {
            Path::InBand(_) => self.put_in_band(&session, fd, &target.address, payload, flags, options)?,
            Path::Udp { raw, .. } if !options.any() => self.put(fd, raw, &target.header, payload, flags)?,
            Path::Udp { raw, .. } => {
                let header = datagram::send_header(session.id(), &target.address, options);
                self.put(fd, raw, &header, payload, flags)?
            }
        };
        self.port.counters.sent.fetch_add(went.into(), Ordering::Relaxed);
        Ok(went)
    }

    /// The address of somebody who was not sent to yet; `None` if that would have blocked.
    fn find(&self, session: &Arc<Session>, fd: RawFd, address: &str, flags: i32) -> Result<Option<Arc<Known>>> {
        let wait = flags & sys::MSG_DONTWAIT == 0 && !self.is_nonblocking(fd)?;
        self.names.find(session, address, wait)
    }

    fn is_nonblocking(&self, fd: RawFd) -> Result<bool> {
        sys::is_nonblocking(fd).map_err(|error| self.failed(Operation::None, &error))
    }

    /// Destination of a hash, resolved once.
    pub fn resolve(&self, hash: &[u8; 32], limit: Limit) -> Result<Address> {
        self.check(Operation::Lookup)?;
        let session = self.presence.live(Operation::Lookup)?;
        let host = format!("{}.b32.i2p", base32_encode(hash));
        if let Some(known) = self.names.cached(&session, &host) {
            return Ok(known.address.clone());
        }
        let address = target_cache::resolve(&session, &host, limit)?;
        Ok(self.names.keep(&session, &host, address).address.clone())
    }

    fn check_size(&self, payload: &[u8]) -> Result<()> {
        let limit = if self.presence.style() == Style::Raw { MAX_RAW } else { MAX_DGRAM };
        if payload.is_empty() || payload.len() > limit {
            let len = payload.len();
            return Err(Error::invalid(format!("a datagram of {len} bytes: 1 to {limit} can be sent")));
        }
        Ok(())
    }

    fn put(&self, fd: RawFd, to: &UdpAddress, header: &[u8], payload: &[u8], flags: i32) -> Result<bool> {
        let deadline = self.deadline();
        let once = if deadline.is_some() { flags | sys::MSG_DONTWAIT } else { flags };
        loop {
            match sys::send_datagram(fd, Some(to), header, payload, once) {
                Ok(_) => return Ok(true),
                Err(error) if sys::would_block(&error) => {
                    if !self.wait(fd, flags, sys::OUT, deadline, Operation::Send)? {
                        return Ok(false);
                    }
                }
                Err(error) if self.is_first_refusal(fd, &error) => {}
                Err(error) => return Err(self.failed(Operation::Send, &error)),
            }
        }
    }

    /// Waits for `events` if the caller waits and has a limit; otherwise `false`, the system having said BLOCK.
    fn wait(&self, fd: RawFd, flags: i32, events: i16, limit: Option<Deadline>, operation: Operation) -> Result<bool> {
        let Some(deadline) = limit else { return Ok(false) };
        if !self.goes_on(fd, flags, limit, operation)? {
            return Ok(false);
        }
        let (control, wanted) = match self.drives_itself() {
            true => (self.presence.signals().work.as_raw_fd(), sys::IN),
            false => (-1, 0),
        };
        let mut fds = [PollFd { fd, events, revents: 0 }, PollFd { fd: control, events: wanted, revents: 0 }];
        sys::poll(&mut fds, poll_timeout(deadline, Instant::now())).map_err(|error| self.failed(operation, &error))?;
        if self.drives_itself() {
            self.presence.drive(Instant::now());
        }
        Ok(true)
    }

    /// Sends on the control socket, waiting there for room if the caller waits.
    fn put_in_band(
        &self,
        session: &Session,
        fd: RawFd,
        to: &Address,
        payload: &[u8],
        flags: i32,
        options: &SendOptions,
    ) -> Result<bool> {
        let limit = Some(self.deadline().unwrap_or(None));
        loop {
            if session.send_in_band(to, payload, options)? {
                return Ok(true);
            }
            if !self.goes_on(fd, flags, limit, Operation::Send)? {
                return Ok(false);
            }
            session.check_alive(Operation::Send)?;
            if let Some((control, _)) = session.control() {
                let mut fds = [PollFd { fd: control.as_raw_fd(), events: sys::OUT, revents: 0 }];
                sys::poll(&mut fds, poll_timeout(limit.flatten(), Instant::now()))
                    .map_err(|error| self.failed(Operation::Send, &error))?;
            }
            session.drive();
        }
    }

    /// Whether the error says that nobody listens at the bridge's end, for the first time since something came from
    /// there. It speaks of an earlier datagram, and the bridge may only just be starting: the next one is reported.
    fn is_first_refusal(&self, fd: RawFd, error: &io::Error) -> bool {
        let refused = error.raw_os_error() == Some(libc::ECONNREFUSED);
        if refused {
            sys::drain_errors(fd);
        }
        refused && !self.refused_once.swap(true, Ordering::Relaxed)
    }

    /// Whether the caller waits and has time left; having none is its TIMEOUT.
    fn goes_on(&self, fd: RawFd, flags: i32, limit: Option<Deadline>, operation: Operation) -> Result<bool> {
        if flags & sys::MSG_DONTWAIT != 0 || self.is_nonblocking(fd)? {
            return Ok(false);
        }
        if limit.is_some_and(|limit| passed(limit, Instant::now())) {
            let message = format!("{operation} took longer than the socket's time limit");
            return Err(Error::new(Status::Timeout, operation, message));
        }
        Ok(true)
    }

    fn failed(&self, operation: Operation, error: &io::Error) -> Error {
        match self.presence.check(operation) {
            Err(ended) => ended,
            Ok(()) => Error::io(operation, operation.name(), error),
        }
    }

    /// Receives one datagram into `buffer`; `None` when it would have blocked. What is not from the bridge or makes no
    /// sense is dropped and counted on the way.
    pub fn recv_from(&self, buffer: &mut [MaybeUninit<u8>], flags: i32) -> Result<Option<Datagram>> {
        check_flags(flags, RECEIVE_FLAGS)?;
        let operation = Operation::Receive;
        // Without a keeper somebody has to read the control socket while this waits.
        let limit = self.deadline().or(self.drives_itself().then_some(None));
        let once = if limit.is_some() { flags | sys::MSG_DONTWAIT } else { flags };
        if let Some(error) = self.deferred.lock().take() {
            return Err(error);
        }
        let mut dropped = 0u32;
        loop {
            let fd = self.check(operation)?;
            match self.receive(fd, buffer, once) {
                Ok(Verdict::Payload(datagram)) => return Ok(Some(datagram)),
                Ok(Verdict::Forged) if self.port.report_source => {
                    let message = "a datagram came from somebody else than the SAM bridge";
                    return Err(Error::protocol(Operation::Source, message));
                }
                Ok(Verdict::Ended) => {}
                Ok(Verdict::Forged | Verdict::Malformed) => {
                    dropped += 1;
                    // A flood of strangers holds nobody who does not want to wait, or not longer.
                    if dropped % DROPS_PER_LOOK == 0 && !self.goes_on(fd, flags, limit, operation)? {
                        return Ok(None);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if self.is_first_refusal(fd, &error) => {}
                Err(error) if sys::would_block(&error) => {
                    if !self.wait(fd, flags, sys::IN, limit, operation)? {
                        return Ok(None);
                    }
                }
                Err(error) => return Err(self.failed(operation, &error)),
            }
        }
    }

    /// The next receive returns this: it came when there was something to return already.
    pub fn defer(&self, error: Error) {
        *self.deferred.lock() = Some(error);
    }

    /// Whether nobody else reads the datagrams that come on the control socket.
    fn drives_itself(&self) -> bool {
        matches!(self.port.path, Path::InBand(_)) && self.presence.signals().driver.is_caller()
    }

    /// One system call, after which header and payload are where they belong.
    fn receive(&self, fd: RawFd, buffer: &mut [MaybeUninit<u8>], flags: i32) -> io::Result<Verdict> {
        let mut verdict = Verdict::Malformed;
        let mut decide = |first: &[u8], arrival: &Arrival| self.decide(first, arrival, &mut verdict);
        let predicted = self.predicted.load(Ordering::Relaxed);
        let (arrival, moved) = sys::receive_split(fd, flags, predicted, buffer, &mut decide)?;
        let peeked = flags & sys::MSG_PEEK != 0;
        self.settle(&mut verdict, &arrival, moved.unwrap_or(0), peeked);
        if peeked && matches!(verdict, Verdict::Forged | Verdict::Malformed) {
            sys::discard_datagram(fd);
        }
        Ok(verdict)
    }

    /// Length of the header of a datagram that begins with `first`; `None` if it is not for the program.
    fn decide(&self, first: &[u8], arrival: &Arrival, verdict: &mut Verdict) -> Option<usize> {
        // The end of a session looks like an empty datagram; the next check finds it.
        if arrival.len == 0 && self.port.socket.is_ended() {
            *verdict = Verdict::Ended;
            return None;
        }
        if !self.is_from_bridge(arrival.from) {
            *verdict = Verdict::Forged;
            return None;
        }
        *verdict = Verdict::Malformed;
        let (len, source, origin) = self.header(first)?;
        *verdict = Verdict::Payload(Datagram { len, full_len: arrival.len - len.min(arrival.len), source, origin });
        Some(len)
    }

    /// Counts a datagram of which `moved` bytes of payload are in the program's buffer now.
    fn settle(&self, verdict: &mut Verdict, arrival: &Arrival, moved: usize, peeked: bool) {
        let counters = &self.port.counters;
        if let Some(total) = arrival.dropped {
            counters.system_dropped(total);
        }
        match verdict {
            Verdict::Payload(datagram) => {
                // Until now `len` was the length of the header.
                if datagram.len > 0 {
                    self.predicted.store(datagram.len, Ordering::Relaxed);
                }
                datagram.len = moved;
                self.refused_once.store(false, Ordering::Relaxed);
                if !peeked {
                    counters.received.fetch_add(1, Ordering::Relaxed);
                    counters.truncated.fetch_add(u64::from(moved < datagram.full_len), Ordering::Relaxed);
                }
            }
            Verdict::Ended => {}
            Verdict::Forged => _ = counters.refused.fetch_add(1, Ordering::Relaxed),
            Verdict::Malformed => _ = counters.malformed.fetch_add(1, Ordering::Relaxed),
        }
    }

    fn is_from_bridge(&self, from: Option<SocketAddr>) -> bool {
        match &self.port.path {
            Path::InBand(_) => true,
            Path::Udp { bridge, .. } => from
                .is_some_and(|from| from.ip() == bridge.ip() && (self.port.any_port || from.port() == bridge.port())),
        }
    }

    /// Length of the header with its line feed, and what it says; `None` if it makes no sense.
    fn header(&self, first: &[u8]) -> Option<(usize, Option<Source>, Origin)> {
        let raw = self.presence.style() == Style::Raw;
        if raw && !self.port.raw_header {
            return Some((0, None, Origin::default()));
        }
        // Most come from whom the last one came from: looking at every byte of that again would take longer than the rest.
        let known = if raw { 0 } else { self.last_source(first) };
        let end = first.iter().skip(known).position(|b| *b == b'\n').map(|at| known + at);
        let end = end.filter(|end| *end <= MAX_HEADER);
        if raw {
            // A bridge that ignores the question for a header sends bare payload.
            let line = end.and_then(|end| first.get(..end));
            return Some(match line.and_then(|line| Some((line.len() + 1, datagram::raw_header(line)?))) {
                Some((len, origin)) => (len, None, origin),
                None => (0, None, Origin::default()),
            });
        }
        let (token, origin) = datagram::split_source(first.get(..end?)?, known).ok()?;
        Some((end? + 1, Some(self.source(token)?), origin))
    }

    /// Length of the last source's token, if `packet` begins with it.
    fn last_source(&self, packet: &[u8]) -> usize {
        let sources = self.sources.lock();
        sources.first().filter(|(token, _)| packet.starts_with(token)).map_or(0, |(token, _)| token.len())
    }

    /// The source a token stands for; those of the last peers are remembered.
    fn source(&self, token: &[u8]) -> Option<Source> {
        let mut sources = self.sources.lock();
        if let Some(at) = sources.iter().position(|(known, _)| **known == *token) {
            sources.swap(0, at);
            return sources.first().map(|(_, source)| source.clone());
        }
        let source = datagram::source(token).ok()?;
        sources.truncate(KNOWN_SOURCES - 1);
        sources.insert(0, (token.into(), source.clone()));
        Some(source)
    }
}

enum Verdict {
    Payload(Datagram),
    Ended,
    Forged,
    Malformed,
}

fn check_flags(flags: i32, known: i32) -> Result<()> {
    if flags & !known == 0 {
        Ok(())
    } else {
        Err(Error::invalid(format!("flags {flags:#x} are not among those a datagram socket knows")))
    }
}
