//! One connection to the bridge driven without blocking: every address is tried, then the handshake runs to its end.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use crate::core::bridge::config::Bridge;
use crate::core::drive::{after, passed, Deadline, Progress, Scope};
use crate::error::{Error, Operation, Result, Status};
use crate::protocol::handshake::{Handshake, Phase};
use crate::protocol::line::Fields;
use crate::protocol::outbox::Outbox;
use crate::protocol::request::{Outcome, Request};
use crate::protocol::version::Version;
use crate::sys::{self, Place, SharedFd};

/// Reads in one step before the caller gets a word again: a bridge that never stops talking must not hold it.
const READS_PER_STEP: usize = 32;

/// A connection on its way to being a stream, a session, or an answer.
pub struct BridgeConnection {
    bridge: Arc<Bridge>,
    scope: Arc<Scope>,
    handshake: Handshake,
    socket: Option<Arc<SharedFd>>,
    established: bool,
    next_place: usize,
    generation: u64,
    phase_deadline: Deadline,
    unreachable: Option<Error>,
    surplus: Vec<u8>,
    cut: bool,
}

/// What is left of an exchange that came to its end.
pub struct Finished {
    /// The result.
    pub outcome: Outcome,
    /// The connection.
    pub socket: Arc<SharedFd>,
    /// Version negotiated on it.
    pub version: Version,
    /// Bytes read beyond the reply; only on connections that never carry payload.
    pub surplus: Vec<u8>,
    /// What is still to be written (answers to PING).
    pub unsent: Outbox,
}

impl BridgeConnection {
    /// Prepares the exchange; nothing is sent before the first step. The connection ends with `scope`.
    pub fn new(bridge: Arc<Bridge>, scope: Arc<Scope>, request: Request) -> Result<Self> {
        let handshake = Handshake::new(request, bridge.range(), bridge.credentials())?;
        Ok(BridgeConnection {
            bridge,
            scope,
            handshake,
            socket: None,
            established: false,
            next_place: 0,
            generation: 0,
            phase_deadline: None,
            unreachable: None,
            surplus: Vec::new(),
            cut: false,
        })
    }

    /// The bridge it talks to.
    pub fn bridge(&self) -> &Arc<Bridge> {
        &self.bridge
    }

    /// The descriptor to wait on.
    pub fn fd(&self) -> RawFd {
        self.socket.as_ref().map_or(-1, |socket| socket.as_raw_fd())
    }

    /// The events to wait for.
    pub fn events(&self) -> i16 {
        if !self.established {
            sys::OUT
        } else if self.handshake.output().is_empty() {
            sys::IN
        } else {
            sys::IN | sys::OUT
        }
    }

    /// Rises whenever `fd` is a new description.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// When this step of the conversation must be over.
    pub fn deadline(&self) -> Deadline {
        self.phase_deadline
    }

    /// Whether the TCP connection stands.
    pub fn is_established(&self) -> bool {
        self.established
    }

    /// What the conversation waits for.
    pub fn phase(&self) -> Phase {
        self.handshake.phase()
    }

    /// Whether the bridge has the whole request and may be acting on it.
    pub fn is_asked(&self) -> bool {
        self.handshake.is_asked()
    }

    /// Whether it failed because the connection ended.
    pub fn is_cut(&self) -> bool {
        self.cut
    }

    /// The last reply.
    pub fn reply(&self) -> Option<&Fields> {
        self.handshake.reply()
    }

    /// The request.
    pub fn request(&self) -> &Request {
        self.handshake.request()
    }

    /// Does what can be done without waiting, and shows the conversation to the program.
    pub fn step(&mut self) -> Result<Progress> {
        let mut log = Vec::new();
        let result = self.step_with(&mut log);
        self.bridge.log.lines(log);
        result
    }

    /// The same where the program's hook cannot run.
    pub fn step_with(&mut self, log: &mut Vec<String>) -> Result<Progress> {
        self.handshake.trace.want(self.bridge.log.is_wanted());
        let result = self.run();
        log.append(&mut self.handshake.trace.take());
        result
    }

    fn run(&mut self) -> Result<Progress> {
        loop {
            if let Some(cause) = self.scope.cause() {
                return Err(cause.during(self.request().operation()));
            }
            match self.socket.clone() {
                None => self.open_next()?,
                Some(socket) if self.established => match self.talk(&socket) {
                    Err(error) if self.try_older(&error) => {}
                    Err(error) => {
                        return Err(self.scope.cause().map_or(error, |c| c.during(self.request().operation())))
                    }
                    Ok(Progress::Done) => return Ok(Progress::Done),
                    Ok(Progress::Block) => return self.check_deadline("no answer to HELLO from the bridge at"),
                },
                Some(socket) => {
                    if !self.check_connected(&socket)? {
                        return self.check_deadline("no connection to the bridge at");
                    }
                }
            }
        }
    }

    fn check_deadline(&self, what: &str) -> Result<Progress> {
        if passed(self.phase_deadline) {
            let message = format!("{what} {} in time", self.bridge.text());
            return Err(Error::new(Status::Timeout, Operation::Handshake, message));
        }
        Ok(Progress::Block)
    }

    /// A bridge without any of the versions asked for gets one more connection that asks for older ones.
    fn try_older(&mut self, error: &Error) -> bool {
        let again =
            self.phase() == Phase::Hello && error.tag == "NOVERSION" && self.bridge.lower(self.handshake.range());
        if again {
            self.next_place = self.next_place.saturating_sub(1);
            self.reset();
            self.handshake.restart(self.bridge.range(), self.bridge.credentials()).is_ok()
        } else {
            false
        }
    }

    fn reset(&mut self) {
        self.socket = None;
        self.established = false;
        self.phase_deadline = None;
    }

    fn open_next(&mut self) -> Result<()> {
        let Some(place) = self.bridge.places().get(self.next_place).cloned() else {
            let none = || Error::new(Status::Io, Operation::Handshake, "the bridge's host has no address");
            return Err(self.unreachable.take().unwrap_or_else(none));
        };
        self.next_place += 1;
        match sys::connect_start(&place) {
            Ok((fd, established)) => {
                let socket = Arc::new(SharedFd::new(fd));
                let operation = self.request().operation();
                self.scope.add(&socket).map_err(|cause| cause.during(operation))?;
                self.socket = Some(socket);
                self.established = established;
                self.generation += 1;
                let timeouts = &self.bridge.timeouts;
                self.phase_deadline = after(if established { timeouts.hello } else { timeouts.tcp });
            }
            // A unix socket whose queue is full refuses with EAGAIN, which must not look like waiting.
            Err(error) => self.remember(&place, &error),
        }
        Ok(())
    }

    fn remember(&mut self, place: &Place, error: &io::Error) {
        let mut error = self.bridge.unreachable(error);
        if let (Place::Tcp(address), true) = (place, self.bridge.places().len() > 1) {
            error.message.push_str(&format!(" [tried {address}]"));
        }
        self.unreachable = Some(error);
    }

    /// Whether a started connection stands. A failed one makes room for the next address.
    fn check_connected(&mut self, socket: &Arc<SharedFd>) -> Result<bool> {
        let system = |error| Error::io(Operation::Handshake, "poll", &error);
        if sys::poll_one(socket.as_raw_fd(), sys::OUT, 0).map_err(system)? == 0 {
            let more = self.next_place < self.bridge.places().len();
            if more && passed(self.phase_deadline) {
                self.fail_place(&io::Error::from_raw_os_error(libc::ETIMEDOUT));
                return Ok(true);
            }
            return Ok(false);
        }
        match sys::socket_error(socket.as_raw_fd()) {
            Ok(()) => {
                self.established = true;
                self.phase_deadline = after(self.bridge.timeouts.hello);
            }
            Err(error) => self.fail_place(&error),
        }
        Ok(true)
    }

    fn fail_place(&mut self, error: &io::Error) {
        if let Some(place) = self.bridge.places().get(self.next_place.wrapping_sub(1)).cloned() {
            self.remember(&place, error);
        }
        self.reset();
    }

    fn talk(&mut self, socket: &SharedFd) -> Result<Progress> {
        for reads in 0..=READS_PER_STEP {
            self.write(socket)?;
            // After the last read as well: it may have brought all there is, and then nothing wakes the caller again.
            if self.phase() == Phase::Done {
                return Ok(Progress::Done);
            }
            if self.phase() != Phase::Hello {
                self.phase_deadline = None;
            }
            if reads == READS_PER_STEP || !self.read(socket)? {
                break;
            }
        }
        Ok(Progress::Block)
    }

    fn write(&mut self, socket: &SharedFd) -> Result<()> {
        while !self.handshake.output().is_empty() {
            match sys::send_now(socket.as_raw_fd(), self.handshake.output()) {
                Ok(count) => self.handshake.wrote(count),
                Err(error) if sys::would_block(&error) => break,
                // The bridge may have said why before it closed: that is read first.
                Err(_) => break,
            }
        }
        Ok(())
    }

    /// Reads once; whether there was anything.
    fn read(&mut self, socket: &SharedFd) -> Result<bool> {
        let mut buffer = [0; 4096];
        let exact = self.handshake.must_read_exactly();
        let peek = if exact { sys::MSG_PEEK } else { 0 };
        let result = match sys::recv(socket.as_raw_fd(), &mut buffer, sys::MSG_DONTWAIT | peek) {
            Err(error) if sys::would_block(&error) => return Ok(false),
            Err(error) => {
                self.cut = true;
                let mut closed = self.handshake.eof();
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
            self.surplus.extend_from_slice(bytes.get(used..).unwrap_or_default());
            return Ok(());
        }
        sys::discard(socket.as_raw_fd(), used).map_err(|error| Error::io(self.request().operation(), "recv", &error))
    }

    /// What the exchange came to, after [`Progress::Done`].
    pub fn finish(&mut self) -> Result<Finished> {
        let outcome = self.handshake.take_outcome();
        match (outcome, self.socket.take(), self.handshake.version()) {
            (Some(outcome), Some(socket), Some(version)) => Ok(Finished {
                outcome,
                socket,
                version,
                surplus: std::mem::take(&mut self.surplus),
                unsent: self.handshake.take_output(),
            }),
            _ => Err(Error::new(Status::Internal, self.request().operation(), "an exchange without a result")),
        }
    }

    /// How long the whole request may take unless the caller says otherwise.
    pub fn default_timeout(&self) -> Option<Duration> {
        let timeouts = &self.bridge.timeouts;
        match self.request() {
            Request::Check => timeouts.tcp.zip(timeouts.hello).map(|(tcp, hello)| tcp + hello),
            Request::Generate { .. } => timeouts.generate,
            Request::Lookup { .. } => timeouts.lookup,
            Request::Create { .. } => timeouts.open,
            Request::Connect { .. } | Request::Forward { .. } => timeouts.connect,
            Request::Accept { .. } => timeouts.accept,
        }
    }
}
