//! A connected stream: from here on it is a socket, and nothing of its payload is ever kept in user space.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::core::drive::{after, passed, Backoff, Deadline, Process};
use crate::core::stream::timed::{check_flags, move_until, peek_all};
use crate::error::{Error, Operation, Result, Status};
use crate::identity::{Address, Target};
use crate::protocol::ports::Ports;
use crate::protocol::reply::Peer;
use crate::sys::{self, SharedFd};

/// Flags a stream takes.
const RECEIVE_FLAGS: i32 = sys::MSG_DONTWAIT | sys::MSG_PEEK | sys::MSG_WAITALL | sys::MSG_NOSIGNAL;
const SEND_FLAGS: i32 = sys::MSG_DONTWAIT | sys::MSG_NOSIGNAL | sys::MSG_MORE;

/// Between looks at what the bridge has not taken yet, at first and at most.
const FIRST_LOOK: Duration = Duration::from_micros(50);
const LONGEST_LOOK: Duration = Duration::from_millis(20);

/// Bytes moved, or nothing yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// So many bytes.
    Bytes(usize),
    /// None: it would have blocked.
    Block,
}

/// Who is at the other end.
#[derive(Clone, Debug)]
pub struct Remote {
    /// Destination, where it is known: always for an accepted stream, and for one connected to a destination.
    pub address: Option<Address>,
    /// What to show a person: the address's host name, or the name that was connected to.
    pub text: String,
    /// I2CP port the peer sent from (accepted) or we sent from (connected).
    pub from_port: Option<u16>,
    /// I2CP port the stream was sent to.
    pub to_port: Option<u16>,
    /// Whether the router vouches for the address: anybody on this machine can connect to a forwarding port.
    pub verified: bool,
}

impl Remote {
    /// Who the router, or whoever connected, says it is.
    pub fn of_peer(peer: Peer, verified: bool) -> Self {
        let text = peer.address.host().to_owned();
        Remote { address: Some(peer.address), text, from_port: peer.from_port, to_port: peer.to_port, verified }
    }

    /// Whom we have connected to.
    pub fn of_target(target: Target, ports: Ports) -> Self {
        let (text, address) = match target {
            Target::Destination(address) => (address.host().to_owned(), Some(address)),
            other => (other.wire().to_owned(), None),
        };
        Remote { address, text, from_port: ports.from, to_port: ports.to, verified: true }
    }
}

/// A stream.
pub struct Stream {
    process: Arc<Process>,
    socket: Arc<SharedFd>,
    remote: Remote,
    /// Bound of one send or receive in milliseconds; -1 is none.
    timeout: AtomicI32,
}

impl Stream {
    /// A stream on a socket whose header is read.
    pub fn new(process: Arc<Process>, socket: Arc<SharedFd>, remote: Remote) -> Self {
        socket.set_carrying();
        Stream { process, socket, remote, timeout: AtomicI32::new(-1) }
    }

    /// Who is at the other end.
    pub fn remote(&self) -> &Remote {
        &self.remote
    }

    /// Whether the call comes from the process that made the stream.
    pub fn check_process(&self) -> Result<()> {
        self.process.check()
    }

    /// The descriptor; -1 once it was given away.
    pub fn fd(&self) -> RawFd {
        if self.socket.is_taken() {
            -1
        } else {
            self.socket.as_raw_fd()
        }
    }

    /// Gives the descriptor away.
    pub fn take_fd(&self) -> Result<RawFd> {
        self.check_process()?;
        self.socket.take().ok_or_else(taken)
    }

    fn check(&self, operation: Operation) -> Result<RawFd> {
        self.check_process()?;
        if self.socket.is_taken() {
            return Err(taken());
        }
        if self.socket.is_ended() {
            return Err(Error::closed(operation, "the stream was shut down or its destination closed"));
        }
        Ok(self.socket.as_raw_fd())
    }

    fn deadline(&self) -> Option<Deadline> {
        let timeout = u64::try_from(self.timeout.load(Ordering::Relaxed)).ok()?;
        Some(after(Some(Duration::from_millis(timeout)), Instant::now()))
    }

    /// recv(2) with this stream's time limit. 0 bytes only for an empty buffer: the end is CLOSED.
    pub fn recv(&self, buffer: &mut [MaybeUninit<u8>], flags: i32) -> Result<Moved> {
        let operation = Operation::Receive;
        check_flags(flags, RECEIVE_FLAGS)?;
        let fd = self.check(operation)?;
        if buffer.is_empty() {
            return Ok(Moved::Bytes(0));
        }
        let (limit, all) = (self.deadline(), flags & sys::MSG_WAITALL != 0);
        let result = match limit {
            Some(deadline) if all && flags & sys::MSG_PEEK != 0 => peek_all(fd, buffer, flags, deadline),
            None if !all || flags & sys::MSG_PEEK != 0 => sys::retry(|| sys::recv_once(fd, buffer, flags)),
            _ => {
                let once = if limit.is_some() { (flags & !sys::MSG_WAITALL) | sys::MSG_DONTWAIT } else { flags };
                let want = buffer.len();
                let mut receive = |done: usize| sys::recv_once(fd, buffer.get_mut(done..).unwrap_or_default(), once);
                move_until(fd, sys::IN, flags, limit, want, all, &mut receive)
            }
        };
        match result {
            Ok(0) => Err(Error::closed(operation, "the stream has ended")),
            result => moved(operation, result),
        }
    }

    /// send(2) with this stream's time limit.
    pub fn send(&self, bytes: &[u8], flags: i32) -> Result<Moved> {
        check_flags(flags, SEND_FLAGS)?;
        let fd = self.check(Operation::Send)?;
        if bytes.is_empty() {
            return Ok(Moved::Bytes(0));
        }
        let limit = self.deadline();
        let once = if limit.is_some() { flags | sys::MSG_DONTWAIT } else { flags };
        let mut send = |done: usize| sys::send_once(fd, bytes.get(done..).unwrap_or_default(), once);
        let result = move_until(fd, sys::OUT, flags, limit, bytes.len(), true, &mut send);
        moved(Operation::Send, result)
    }

    /// Sends everything, or on a non-blocking stream what fits. Returns how much was sent besides the result.
    pub fn send_all(&self, bytes: &[u8]) -> (usize, Result<Moved>) {
        let mut sent = 0;
        while let Some(rest) = bytes.get(sent..).filter(|rest| !rest.is_empty()) {
            match self.send(rest, 0) {
                Ok(Moved::Bytes(count)) => sent += count,
                other => return (sent, other),
            }
        }
        (sent, self.check(Operation::Send).map(|_| Moved::Bytes(sent)))
    }

    /// Sets or clears O_NONBLOCK of the descriptor.
    pub fn set_nonblocking(&self, on: bool) -> Result<()> {
        let fd = self.check(Operation::None)?;
        sys::set_nonblocking(fd, on).map_err(|error| Error::io(Operation::None, "ioctl", &error))
    }

    /// Bounds every send and receive; -1 for no bound.
    pub fn set_timeout(&self, milliseconds: i32) -> Result<()> {
        self.check(Operation::None)?;
        if milliseconds < -1 {
            return Err(Error::invalid("a time limit is -1 for none or a number of milliseconds"));
        }
        self.timeout.store(milliseconds, Ordering::Relaxed);
        Ok(())
    }

    /// Ends both directions and wakes everybody who is blocked on the stream.
    pub fn shutdown(&self) -> Result<()> {
        self.check_process()?;
        if self.socket.is_taken() {
            return Err(taken());
        }
        self.socket.end();
        Ok(())
    }

    /// Bytes that were written and that the bridge has not taken yet.
    pub fn unsent(&self) -> Result<usize> {
        let fd = self.check(Operation::Send)?;
        sys::unsent(fd).map_err(|error| Error::io(Operation::Send, "ioctl", &error))
    }

    /// Waits until the bridge has taken all that was written, reading and dropping what arrives: a close with unread
    /// input would throw away what is still on its way out.
    pub fn drain(&self, deadline: Deadline) -> Result<()> {
        self.check_process()?;
        if self.socket.is_taken() {
            return Ok(());
        }
        let fd = self.check(Operation::Send)?;
        let mut waste = [MaybeUninit::uninit(); 16384];
        // The system has no event for "the send queue is empty", so it is looked at in growing intervals.
        let mut looks = Backoff::new(FIRST_LOOK, LONGEST_LOOK);
        loop {
            // A peer that never stops sending must not keep us from looking at the queue.
            let received = sys::retry(|| sys::recv_once(fd, &mut waste, sys::MSG_DONTWAIT));
            let quiet = !matches!(received, Ok(1..));
            let system = |error| Error::io(Operation::Send, "ioctl", &error);
            let left = sys::unsent(fd).map_err(system)?;
            if left == 0 && quiet {
                return Ok(());
            }
            // After a reset the queue stays as it was, and receiving need not tell.
            if left > 0 && sys::poll_one(fd, 0, 0).map_err(system)? & (sys::ERR | sys::HUP) != 0 {
                return Err(lost_tail());
            }
            let now = Instant::now();
            if left > 0 && passed(deadline, now) {
                let message = format!("the bridge has not taken the last {left} bytes in time");
                return Err(Error::new(Status::Timeout, Operation::Send, message));
            }
            if passed(deadline, now) {
                return Ok(());
            }
            if quiet {
                let (pause, left) = (looks.pause(), deadline.map(|at| at.saturating_duration_since(now)));
                std::thread::sleep(left.map_or(pause, |left| left.min(pause)));
            }
        }
    }
}

fn taken() -> Error {
    Error::state("the descriptor of this stream was taken: use it with the system's calls")
}

fn lost_tail() -> Error {
    Error::closed(Operation::Send, "the stream was reset before the bridge had taken everything")
}

fn is_end(error: &io::Error) -> bool {
    let ends = [libc::ECONNRESET, libc::EPIPE, libc::ENOTCONN, libc::ECONNABORTED, libc::ESHUTDOWN, libc::ETIMEDOUT];
    error.raw_os_error().is_some_and(|code| ends.contains(&code))
}

fn moved(operation: Operation, result: io::Result<usize>) -> Result<Moved> {
    match result {
        Ok(count) => Ok(Moved::Bytes(count)),
        Err(error) if sys::would_block(&error) => Ok(Moved::Block),
        Err(error) if error.kind() == io::ErrorKind::TimedOut && error.raw_os_error().is_none() => {
            Err(Error::new(Status::Timeout, operation, format!("{operation} took longer than the stream's time limit")))
        }
        Err(error) if is_end(&error) => {
            let os_error = error.raw_os_error().unwrap_or(0);
            Err(Error { os_error, ..Error::closed(operation, format!("the stream has ended: {error}")) })
        }
        Err(error) => Err(Error::io(operation, operation.name(), &error)),
    }
}

#[cfg(test)]
impl Stream {
    /// A stream of any connected socket, for tests of what uses streams.
    pub fn of_socket(fd: std::os::fd::OwnedFd) -> Self {
        let remote = Remote { address: None, text: String::new(), from_port: None, to_port: None, verified: false };
        Stream::new(Arc::default(), Arc::new(SharedFd::new(fd)), remote)
    }
}
