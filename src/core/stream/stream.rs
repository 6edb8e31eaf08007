//! A connected stream: from here on it is just a socket, and its payload is never buffered in user space.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::core::drive::{after, passed, Backoff, Deadline, Process, Scope};
use crate::core::stream::fate::{Fate, Fated};
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
    /// Its session's, which knows why that has ended.
    scope: Arc<Scope>,
    fate: Fate,
    /// Time limit of one send or receive in milliseconds; -1 for none.
    timeout: AtomicI32,
}

impl Stream {
    /// Takes a socket on which only payload follows.
    pub fn new(process: Arc<Process>, scope: Arc<Scope>, socket: Arc<SharedFd>, remote: Remote) -> Self {
        socket.set_carrying();
        Stream { process, socket, remote, scope, fate: Fate::default(), timeout: AtomicI32::new(-1) }
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
            return Err(self.over(operation));
        }
        Ok(self.socket.as_raw_fd())
    }

    /// The error of a call on a stream that has ended, with all that is known about the end.
    fn over(&self, operation: Operation) -> Error {
        let (what, os_error) = match self.fate.get() {
            Some(Fated::Reset(code)) => (format!("the stream has ended: {}", io::Error::from_raw_os_error(code)), code),
            _ if self.socket.is_ended() && !self.scope.has_ended() => ("the stream was shut down".to_owned(), 0),
            _ => ("the stream has ended".to_owned(), 0),
        };
        let message = match self.scope.cause() {
            Some(cause) => format!("{what} ({})", cause.message),
            None => what,
        };
        Error { os_error, ..Error::closed(operation, message) }
    }

    /// What a send or receive came to, for the program.
    fn moved(&self, operation: Operation, result: io::Result<usize>) -> Result<Moved> {
        match result {
            Ok(count) => Ok(Moved::Bytes(count)),
            Err(error) if sys::would_block(&error) => Ok(Moved::Block),
            Err(error) if error.kind() == io::ErrorKind::TimedOut && error.raw_os_error().is_none() => {
                let message = format!("{operation} took longer than the stream's time limit");
                Err(Error::new(Status::Timeout, operation, message))
            }
            Err(error) if is_end(&error) => {
                let over = self.over(operation);
                let os_error =
                    if over.os_error == 0 && !self.socket.is_ended() { code_of(&error) } else { over.os_error };
                Err(Error { os_error, ..over })
            }
            Err(error) => Err(Error::io(operation, operation.name(), &error)),
        }
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
            Some(deadline) if all && flags & sys::MSG_PEEK != 0 => {
                self.fate.note(peek_all(fd, buffer, flags, deadline))
            }
            None if !all || flags & sys::MSG_PEEK != 0 => {
                self.fate.note(sys::retry(|| sys::recv_once(fd, buffer, flags)))
            }
            _ => {
                let once = if limit.is_some() { (flags & !sys::MSG_WAITALL) | sys::MSG_DONTWAIT } else { flags };
                let want = buffer.len();
                // Noted at once: a reset after the first bytes is told by the system here and never again.
                let mut receive =
                    |done: usize| self.fate.note(sys::recv_once(fd, buffer.get_mut(done..).unwrap_or_default(), once));
                move_until(fd, sys::IN, flags, limit, want, all, &mut receive)
            }
        };
        match result {
            Ok(0) => {
                self.fate.set(Fated::Ended);
                Err(self.over(operation))
            }
            result => self.moved(operation, result),
        }
    }

    /// send(2) with this stream's time limit.
    pub fn send(&self, bytes: &[u8], flags: i32) -> Result<Moved> {
        check_flags(flags, SEND_FLAGS)?;
        let fd = self.check(Operation::Send)?;
        if self.fate.get().is_some() {
            // The system would still take what nobody is going to read: SAM has no half close.
            return Err(self.over(Operation::Send));
        }
        if bytes.is_empty() {
            return Ok(Moved::Bytes(0));
        }
        let limit = self.deadline();
        let once = if limit.is_some() { flags | sys::MSG_DONTWAIT } else { flags };
        let mut send = |done: usize| self.fate.note(sys::send_once(fd, bytes.get(done..).unwrap_or_default(), once));
        let result = move_until(fd, sys::OUT, flags, limit, bytes.len(), true, &mut send);
        self.moved(Operation::Send, result)
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

    fn lost_tail(&self) -> Error {
        let message = "the stream was reset before the bridge had taken everything";
        Error { os_error: self.over(Operation::Send).os_error, ..Error::closed(Operation::Send, message) }
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
            let received = self.fate.note(sys::retry(|| sys::recv_once(fd, &mut waste, sys::MSG_DONTWAIT)));
            if let Some(Fated::Reset(_)) = self.fate.get() {
                return Err(self.lost_tail());
            }
            let quiet = !matches!(received, Ok(1..));
            let system = |error| Error::io(Operation::Send, "ioctl", &error);
            let left = sys::unsent(fd).map_err(system)?;
            if left == 0 && quiet {
                return Ok(());
            }
            // After a reset the queue stays as it was, and receiving does not necessarily show the reset.
            if left > 0 && sys::poll_one(fd, 0, 0).map_err(system)? & (sys::ERR | sys::HUP) != 0 {
                return Err(self.lost_tail());
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

fn code_of(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(0)
}

fn taken() -> Error {
    Error::state("the descriptor of this stream was taken: use it with the system's calls")
}

fn is_end(error: &io::Error) -> bool {
    let ends = [libc::ECONNRESET, libc::EPIPE, libc::ENOTCONN, libc::ECONNABORTED, libc::ESHUTDOWN, libc::ETIMEDOUT];
    error.raw_os_error().is_some_and(|code| ends.contains(&code))
}

#[cfg(test)]
impl Stream {
    /// A stream of any connected socket, for tests of what uses streams.
    pub fn of_socket(fd: std::os::fd::OwnedFd) -> Self {
        let remote = Remote { address: None, text: String::new(), from_port: None, to_port: None, verified: false };
        Stream::new(Arc::default(), Arc::default(), Arc::new(SharedFd::new(fd)), remote)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    const LONG: i32 = 60_000;

    fn pair() -> (Stream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (Stream::of_socket(near.into()), listener.accept().unwrap().0)
    }

    /// The peer has said "abc" and then cut the stream off.
    fn cut() -> Stream {
        let (near, mut far) = pair();
        std::io::Write::write_all(&mut far, b"abc").unwrap();
        near.send(b"x", 0).unwrap();
        sys::poll_one(std::os::fd::AsRawFd::as_raw_fd(&far), sys::IN, LONG).unwrap();
        // A close with unread input is a reset.
        drop(far);
        while sys::poll_one(near.fd(), 0, LONG).unwrap() & (sys::ERR | sys::HUP) == 0 {}
        near
    }

    fn recv(stream: &Stream, flags: i32) -> std::result::Result<usize, (Status, i32)> {
        let mut room = [MaybeUninit::uninit(); 10];
        match stream.recv(&mut room, flags) {
            Ok(Moved::Bytes(count)) => Ok(count),
            Ok(Moved::Block) => Err((Status::State, 0)),
            Err(error) => Err((error.status, error.os_error)),
        }
    }

    fn send(stream: &Stream) -> std::result::Result<Moved, (Status, i32)> {
        stream.send(b"y", 0).map_err(|error| (error.status, error.os_error))
    }

    #[test]
    fn a_reset_stays_a_reset_whoever_meets_it_first() {
        let reset = (Status::Closed, libc::ECONNRESET);
        let firsts: [fn(&Stream); 6] = [
            |stream| assert_eq!(recv(stream, 0), Ok(3)),
            |stream| assert_eq!(recv(stream, sys::MSG_WAITALL), Ok(3)),
            |stream| assert_eq!(recv(stream, sys::MSG_WAITALL | sys::MSG_DONTWAIT), Ok(3)),
            |stream| assert_eq!(recv(stream, sys::MSG_WAITALL | sys::MSG_PEEK), Ok(3)),
            |stream| assert_eq!(send(stream), Err((Status::Closed, libc::ECONNRESET))),
            |stream| assert_eq!(stream.drain(None).unwrap_err().os_error, libc::ECONNRESET),
        ];
        for (number, first) in firsts.iter().enumerate() {
            for limit in [-1, LONG] {
                let stream = cut();
                stream.set_timeout(limit).unwrap();
                first(&stream);
                // What had arrived before is still there, unless it was taken.
                while let Ok(count) = recv(&stream, 0) {
                    assert_eq!(count, 3, "{number}");
                }
                for flags in [0, sys::MSG_DONTWAIT, sys::MSG_PEEK, sys::MSG_WAITALL] {
                    assert_eq!(recv(&stream, flags), Err(reset), "{number}");
                    assert_eq!(send(&stream), Err(reset), "{number}");
                }
                let error = stream.drain(None).unwrap_err();
                assert_eq!((error.status, error.os_error), reset, "{number}");
                stream.shutdown().unwrap();
                assert_eq!((recv(&stream, 0), send(&stream)), (Err(reset), Err(reset)), "{number}");
            }
        }
    }

    /// The system would take it: for TCP only one direction has ended.
    #[test]
    fn nothing_is_sent_on_a_stream_that_has_ended() {
        for flags in [0, sys::MSG_WAITALL, sys::MSG_PEEK] {
            let (near, far) = pair();
            far.shutdown(std::net::Shutdown::Write).unwrap();
            assert_eq!(recv(&near, flags), Err((Status::Closed, 0)));
            for _ in 0..3 {
                assert_eq!(send(&near), Err((Status::Closed, 0)));
                assert_eq!(recv(&near, flags), Err((Status::Closed, 0)));
            }
            far.set_nonblocking(true).unwrap();
            let taken = std::io::Read::read(&mut &far, &mut [0; 8]);
            assert_eq!(taken.unwrap_err().kind(), io::ErrorKind::WouldBlock);
            // In order, with nothing left to take.
            near.drain(None).unwrap();
        }
    }

    #[test]
    fn why_a_stream_has_ended() {
        let told = |stream: &Stream| (recv(stream, 0).unwrap_err().0, stream.send(b"y", 0).unwrap_err().message);
        let (near, far) = pair();
        drop(far);
        assert_eq!(told(&near), (Status::Closed, "the stream has ended".to_owned()));
        near.scope.end(Error::closed(Operation::Session, "the session was lost"), false);
        assert_eq!(told(&near), (Status::Closed, "the stream has ended (the session was lost)".to_owned()));
        let (near, _far) = pair();
        near.shutdown().unwrap();
        assert_eq!(told(&near), (Status::Closed, "the stream was shut down".to_owned()));
        let (near, _far) = pair();
        near.scope.add(&near.socket).unwrap();
        near.scope.end(Error::closed(Operation::Session, "the destination was closed"), true);
        assert_eq!(told(&near), (Status::Closed, "the stream has ended (the destination was closed)".to_owned()));
    }
}
