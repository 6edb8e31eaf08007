//! What sending and receiving share: the descriptor and its state, the time limit, waiting, and connection refusals.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::core::destination::Destination;
use crate::core::drive::{earlier, log, poll_timeout, Deadline};
use crate::core::session::{DatagramPort, HeaderTrial, Path};
use crate::error::{Error, Operation, Result, Status};
use crate::protocol::style::Style;
use crate::sys::{self, PollFd};

/// The clock of this folder. Code that decides about limits and ages takes the time as an argument, so that its tests
/// need not wait. Only the handle, when called, and loops that have waited read the clock.
pub(super) fn clock() -> Instant {
    Instant::now()
}

/// A snapshot of the counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Datagrams handed to the bridge.
    pub sent: u64,
    /// Datagrams handed to the program.
    pub received: u64,
    /// Dropped because they did not come from the bridge's address.
    pub refused: u64,
    /// Dropped because their header was malformed.
    pub malformed: u64,
    /// Handed to the program truncated.
    pub truncated: u64,
    /// Dropped for lack of buffer space by the system or, in band, by this library.
    pub dropped: u64,
}

/// How long one call waits, and whether the system or this library does the waiting.
pub(super) struct Waiting {
    flags: i32,
    operation: Operation,
    until: Until,
}

#[derive(Clone, Copy)]
enum Until {
    /// No time limit: the system call itself blocks.
    InSystemCall,
    /// Poll until then.
    Poll(Deadline),
}

impl Waiting {
    /// For a call with `flags` that starts at `now`, limited to `timeout` milliseconds unless that is negative.
    fn new(flags: i32, operation: Operation, timeout: i32, now: Instant) -> Self {
        let until = match u64::try_from(timeout) {
            // A time too far away to represent counts as no limit.
            Ok(timeout) => Until::Poll(now.checked_add(Duration::from_millis(timeout))),
            Err(_) => Until::InSystemCall,
        };
        Waiting { flags, operation, until }
    }

    /// Uses poll even if there is no time limit.
    fn by_poll(self) -> Self {
        let until = match self.until {
            Until::InSystemCall => Until::Poll(None),
            poll @ Until::Poll(_) => poll,
        };
        Waiting { until, ..self }
    }

    /// The flags to pass to the system call.
    pub(super) fn flags(&self) -> i32 {
        match self.until {
            Until::InSystemCall => self.flags,
            Until::Poll(_) => self.flags | sys::MSG_DONTWAIT,
        }
    }

    /// Time left at `now`; `None` if there is no limit.
    pub(super) fn left(&self, now: Instant) -> Option<Duration> {
        match self.until {
            Until::Poll(Some(deadline)) => Some(deadline.saturating_duration_since(now)),
            _ => None,
        }
    }

    /// Fails with TIMEOUT once the time limit has passed.
    fn check(&self, now: Instant) -> Result<()> {
        match self.until {
            Until::Poll(Some(deadline)) if now >= deadline => {
                let message = format!("{} took longer than the socket's time limit", self.operation);
                Err(Error::new(Status::Timeout, self.operation, message))
            }
            _ => Ok(()),
        }
    }
}

/// One handle's view of a destination's descriptor.
pub(super) struct Endpoint {
    destination: Arc<Destination>,
    port: Arc<DatagramPort>,
    timeout: AtomicI32,
}

impl Endpoint {
    pub(super) fn new(destination: Arc<Destination>, port: Arc<DatagramPort>) -> Self {
        Endpoint { destination, port, timeout: AtomicI32::new(-1) }
    }

    pub(super) fn destination(&self) -> &Arc<Destination> {
        &self.destination
    }

    /// The descriptor and counters that all handles of the destination share.
    pub(super) fn port(&self) -> &DatagramPort {
        &self.port
    }

    /// Whether datagrams are raw: without a source, and without ports unless headers were requested.
    pub(super) fn is_raw(&self) -> bool {
        self.destination.style() == Style::Raw
    }

    pub(super) fn fd(&self) -> RawFd {
        self.port.socket.as_raw_fd()
    }

    /// Totals over all handles of the destination.
    pub(super) fn counts(&self) -> Counts {
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

    /// Returns the descriptor, or an error if the destination has ended or this is a child of fork(2).
    pub(super) fn check(&self, operation: Operation) -> Result<RawFd> {
        self.destination.bridge().check_process()?;
        self.destination.check(operation)?;
        Ok(self.fd())
    }

    pub(super) fn set_nonblocking(&self, on: bool) -> Result<()> {
        let fd = self.check(Operation::None)?;
        sys::set_nonblocking(fd, on).map_err(|error| Error::io(Operation::None, "ioctl", &error))
    }

    /// Sets the time limit of each send and receive in milliseconds; -1 for none.
    pub(super) fn set_timeout(&self, milliseconds: i32) -> Result<()> {
        self.check(Operation::None)?;
        if milliseconds < -1 {
            return Err(Error::invalid("a time limit is -1 for none or a number of milliseconds"));
        }
        self.timeout.store(milliseconds, Ordering::Relaxed);
        Ok(())
    }

    /// How a call with `flags` that starts at `now` is to wait.
    pub(super) fn waiting(&self, flags: i32, operation: Operation, now: Instant) -> Waiting {
        let waiting = Waiting::new(flags, operation, self.timeout.load(Ordering::Relaxed), now);
        // Without a keeper, the waiting caller has to read the control socket itself, as that is where datagrams
        // arrive. A receiver also waits for the news that the bridge does not listen.
        let news = operation == Operation::Receive && self.port.listening().is_some_and(|bridge| !bridge.is_proven());
        let trial = self.port.header_trial.as_ref().is_some_and(HeaderTrial::is_open);
        if self.drives_itself() || news || (operation == Operation::Receive && trial) {
            waiting.by_poll()
        } else {
            waiting
        }
    }

    /// Whether datagrams arrive on the control socket and only our callers read it.
    fn drives_itself(&self) -> bool {
        matches!(self.port.path, Path::InBand(_)) && self.destination.signals().driver.is_caller()
    }

    /// Whether a call with `flags` may block.
    pub(super) fn may_wait(&self, fd: RawFd, flags: i32) -> Result<bool> {
        if flags & sys::MSG_DONTWAIT != 0 {
            return Ok(false);
        }
        match sys::is_nonblocking(fd) {
            Ok(nonblocking) => Ok(!nonblocking),
            Err(error) => Err(self.failed(Operation::None, &error)),
        }
    }

    /// Whether the caller may block and has time left. Fails with TIMEOUT if it may, but has none left.
    pub(super) fn goes_on(&self, fd: RawFd, waiting: &Waiting, now: Instant) -> Result<bool> {
        if !self.may_wait(fd, waiting.flags)? {
            return Ok(false);
        }
        match waiting.check(now) {
            Ok(()) => Ok(true),
            Err(error) => Err(self.explained(error)),
        }
    }

    /// The time limit of a receiver may have passed because everything that came was dropped.
    fn explained(&self, error: Error) -> Error {
        match self.port.stranger.get().filter(|_| error.operation == Operation::Receive) {
            Some(from) => {
                let message =
                    format!("{}; datagrams were dropped from {}", error.message, self.port.foreign(Some(*from)));
                error.saying(message)
            }
            None => error,
        }
    }

    /// Notes that a datagram from `from` is dropped, as it is not from the bridge.
    pub(super) fn note_stranger(&self, from: Option<SocketAddr>) {
        if let Some(from) = from.filter(|_| self.port.stranger.get().is_none()) {
            if self.port.stranger.set(from).is_ok() {
                let _edge = log::edge();
                let text = || format!("datagrams are dropped from {}", self.port.foreign(Some(from)));
                self.destination.bridge().log.line(text);
            }
        }
    }

    /// Waits for `events`, after a system call that would have blocked. Returns `false`, meaning BLOCK, if the caller
    /// may not block or the waiting was up to the system call.
    pub(super) fn wait(&self, fd: RawFd, events: i16, waiting: &Waiting, now: Instant) -> Result<bool> {
        if matches!(waiting.until, Until::InSystemCall) || !self.goes_on(fd, waiting, now)? {
            return Ok(false);
        }
        let (control, wanted) = match self.drives_itself() {
            true => (self.destination.signals().work.as_raw_fd(), sys::IN),
            false => (self.port.listening().filter(|_| events == sys::IN).map_or(-1, |bridge| bridge.news()), sys::IN),
        };
        let mut fds = [PollFd { fd, events, revents: 0 }, PollFd { fd: control, events: wanted, revents: 0 }];
        let again = self.port.header_trial.as_ref().filter(|_| events == sys::IN).and_then(|trial| trial.next(now));
        self.poll_until(&mut fds, waiting, again)?;
        if self.drives_itself() {
            self.destination.drive(clock());
        }
        Ok(true)
    }

    /// Polls `fds` until the time limit.
    pub(super) fn poll(&self, fds: &mut [PollFd], waiting: &Waiting) -> Result<()> {
        self.poll_until(fds, waiting, None)
    }

    fn poll_until(&self, fds: &mut [PollFd], waiting: &Waiting, due: Deadline) -> Result<()> {
        let timeout = match waiting.until {
            Until::InSystemCall => -1,
            Until::Poll(deadline) => poll_timeout(earlier(deadline, due), clock()),
        };
        sys::poll(fds, timeout).map_err(|error| self.failed(waiting.operation, &error))?;
        Ok(())
    }

    /// Fails if the bridge does not listen for datagrams, once for each that was refused.
    pub(super) fn check_listening(&self) -> Result<()> {
        match self.port.listening() {
            Some(bridge) if bridge.is_refused(clock()) => Err(bridge.error(Operation::Receive)),
            _ => Ok(()),
        }
    }

    /// Goes on finding out whether the router writes headers before raw datagrams, if that matters. Fails if it is known
    /// not to.
    pub(super) fn try_header(&self, now: Instant) -> Result<()> {
        let Some(trial) = &self.port.header_trial else { return Ok(()) };
        if let (true, Ok(session)) = (trial.is_open(), self.destination.live(Operation::Receive)) {
            self.port.ask_for_header(session.id(), self.destination.keys().address(), now);
        }
        trial.check_refused()
    }

    /// Fails once it is known, or has to be assumed, that the router writes no headers before raw datagrams.
    pub(super) fn check_header(&self) -> Result<()> {
        self.port.header_trial.as_ref().map_or(Ok(()), |trial| trial.check(clock()))
    }

    /// Records that something came from the bridge, so it is listening.
    pub(super) fn heard(&self) {
        if let Some(bridge) = self.port.listening() {
            bridge.heard();
        }
    }

    /// The error for a failed system call, or why the destination has ended, if it has.
    pub(super) fn failed(&self, operation: Operation, error: &io::Error) -> Error {
        match self.destination.check(operation) {
            Err(ended) => ended,
            Ok(()) => Error::io(operation, operation.name(), error),
        }
    }
}

/// Rejects flags other than `known`.
pub(super) fn check_flags(flags: i32, known: i32) -> Result<()> {
    if flags & !known == 0 {
        Ok(())
    } else {
        Err(Error::invalid(format!("flags {flags:#x} are not among those a datagram socket knows")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEYOND_ALL: Duration = Duration::from_secs(1 << 32);

    #[test]
    fn a_time_limit_ends_at_its_millisecond() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        for operation in [Operation::Send, Operation::Receive] {
            let waiting = Waiting::new(0, operation, 50, start);
            for early in [start, at(1), at(50) - Duration::from_nanos(1)] {
                assert!(waiting.check(early).is_ok());
            }
            for late in [at(50), at(51), start + BEYOND_ALL] {
                let error = waiting.check(late).unwrap_err();
                assert_eq!((error.status, error.operation), (Status::Timeout, operation));
                assert_eq!(error.message, format!("{operation} took longer than the socket's time limit"));
            }
        }
        let longest = Waiting::new(0, Operation::Send, i32::MAX, start);
        assert!(longest.check(at(i32::MAX as u64 - 1)).is_ok());
        assert!(longest.check(at(i32::MAX as u64)).is_err());
        assert!(Waiting::new(0, Operation::Send, 0, start).check(start).is_err(), "no time at all");
    }

    #[test]
    fn without_a_time_limit_there_is_no_end() {
        let start = Instant::now();
        for waiting in
            [Waiting::new(0, Operation::Receive, -1, start), Waiting::new(0, Operation::Receive, -1, start).by_poll()]
        {
            assert!(waiting.check(start + BEYOND_ALL).is_ok());
        }
    }

    #[test]
    fn by_poll_the_limit_stays() {
        let start = Instant::now();
        let waiting = Waiting::new(0, Operation::Receive, 50, start).by_poll();
        assert!(waiting.check(start + Duration::from_millis(49)).is_ok());
        assert!(waiting.check(start + Duration::from_millis(50)).is_err());
    }

    /// A blocking system call would not honour the time limit.
    #[test]
    fn the_system_waits_only_where_this_library_does_not() {
        let start = Instant::now();
        let new = |flags, timeout| Waiting::new(flags, Operation::Receive, timeout, start);
        assert_eq!(new(sys::MSG_PEEK, -1).flags(), sys::MSG_PEEK);
        let both = sys::MSG_PEEK | sys::MSG_DONTWAIT;
        for waiting in [new(sys::MSG_PEEK, 0), new(sys::MSG_PEEK, 50), new(sys::MSG_PEEK, -1).by_poll(), new(both, -1)]
        {
            assert_eq!(waiting.flags(), both);
        }
    }
}
