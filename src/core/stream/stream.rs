//! A connected stream: from here on it is just a socket, and its payload is never buffered in user space.

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

/// Flags accepted by [`Stream::recv`].
const RECEIVE_FLAGS: i32 = sys::MSG_DONTWAIT | sys::MSG_PEEK | sys::MSG_WAITALL | sys::MSG_NOSIGNAL;
const SEND_FLAGS: i32 = sys::MSG_DONTWAIT | sys::MSG_NOSIGNAL | sys::MSG_MORE;

/// First and longest interval between checks of what the bridge has not taken yet.
const FIRST_LOOK: Duration = Duration::from_micros(50);
const LONGEST_LOOK: Duration = Duration::from_millis(20);

/// The outcome of a send or receive that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// Number of bytes moved.
    Bytes(usize),
    /// Nothing was moved, as it would have blocked.
    Block,
}

/// The peer of a stream.
#[derive(Clone, Debug)]
pub struct Remote {
    /// The peer's destination, if known: always for an accepted stream, and for one connected by destination.
    pub address: Option<Address>,
    /// What to show to people: the address as a host name, or the name that was connected to.
    pub text: String,
    /// I2CP port the peer connected from (accepted) or we connected from (connected).
    pub from_port: Option<u16>,
    /// I2CP port that was connected to.
    pub to_port: Option<u16>,
    /// Whether the router vouches for the address. Not so with a forward: any local process can connect to its port.
    pub verified: bool,
}

impl Remote {
    /// For an accepted stream; `verified` unless it came through a forward.
    pub fn of_peer(peer: Peer, verified: bool) -> Self {
        let text = peer.address.host().to_owned();
        Remote { address: Some(peer.address), text, from_port: peer.from_port, to_port: peer.to_port, verified }
    }

    /// For a stream we connected.
    pub fn of_target(target: Target, ports: Ports) -> Self {
        let (text, address) = match target {
            Target::Destination(address) => (address.host().to_owned(), Some(address)),
            other => (other.wire().to_owned(), None),
        };
        Remote { address, text, from_port: ports.from, to_port: ports.to, verified: true }
    }
}

/// A connected stream. Dropping it closes the socket, unless that was given away.
pub struct Stream {
    process: Arc<Process>,
    socket: Arc<SharedFd>,
    remote: Remote,
    /// Time limit of one send or receive in milliseconds; -1 for none.
    timeout: AtomicI32,
}

impl Stream {
    /// Takes a socket on which only payload follows.
    pub fn new(process: Arc<Process>, socket: Arc<SharedFd>, remote: Remote) -> Self {
        socket.set_carrying();
        Stream { process, socket, remote, timeout: AtomicI32::new(-1) }
    }

    /// The peer, as far as it is known.
    pub fn remote(&self) -> &Remote {
        &self.remote
    }

    /// Fails in a child of fork(2), to which the stream does not belong.
    pub fn check_process(&self) -> Result<()> {
        self.process.check()
    }

    /// The descriptor; -1 if it was given away.
    pub fn fd(&self) -> RawFd {
        if self.socket.is_taken() {
            -1
        } else {
            self.socket.as_raw_fd()
        }
    }

    /// Gives the descriptor away: closing it is then up to the caller.
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

    /// recv(2) with this stream's time limit. Returns 0 bytes only for an empty buffer; end of stream is CLOSED.
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

    /// Sends everything or, on a non-blocking stream, as much as fits. Returns how much was sent along with the result.
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

    /// Sets or clears O_NONBLOCK on the descriptor.
    pub fn set_nonblocking(&self, on: bool) -> Result<()> {
        let fd = self.check(Operation::None)?;
        sys::set_nonblocking(fd, on).map_err(|error| Error::io(Operation::None, "ioctl", &error))
    }

    /// Sets the time limit of each send and receive; -1 for none.
    pub fn set_timeout(&self, milliseconds: i32) -> Result<()> {
        self.check(Operation::None)?;
        if milliseconds < -1 {
            return Err(Error::invalid("a time limit is -1 for none or a number of milliseconds"));
        }
        self.timeout.store(milliseconds, Ordering::Relaxed);
        Ok(())
    }

    /// Shuts down both directions and wakes all threads blocked on the stream.
    pub fn shutdown(&self) -> Result<()> {
        self.check_process()?;
        if self.socket.is_taken() {
            return Err(taken());
        }
        self.socket.end();
        Ok(())
    }

    /// Number of bytes written that the bridge has not taken yet.
    pub fn unsent(&self) -> Result<usize> {
        let fd = self.check(Operation::Send)?;
        sys::unsent(fd).map_err(|error| Error::io(Operation::Send, "ioctl", &error))
    }

    /// Waits until the bridge has taken everything written, discarding what arrives: closing with unread input would
    /// discard output that is still queued.
    pub fn drain(&self, deadline: Deadline) -> Result<()> {
        self.check_process()?;
        if self.socket.is_taken() {
            return Ok(());
        }
        let fd = self.check(Operation::Send)?;
        let mut waste = [MaybeUninit::uninit(); 16384];
        // The system has no event for an empty send queue, so check it at growing intervals.
        let mut looks = Backoff::new(FIRST_LOOK, LONGEST_LOOK);
        loop {
            // One read per round: a peer that never stops sending must not keep us from checking the queue.
            let received = sys::retry(|| sys::recv_once(fd, &mut waste, sys::MSG_DONTWAIT));
            let quiet = !matches!(received, Ok(1..));
            let system = |error| Error::io(Operation::Send, "ioctl", &error);
            let left = sys::unsent(fd).map_err(system)?;
            if left == 0 && quiet {
                return Ok(());
            }
            // After a reset the queue stays as it was, and receiving does not necessarily show the reset.
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
