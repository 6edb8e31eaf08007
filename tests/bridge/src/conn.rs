//! One client connection: its socket, what is known about it, and how lines are written to it.

use crate::config::Version;
use crate::faults::{Action, Plan, Reply, Split};
use crate::gate::Gate;
use crate::line::redact;
use crate::shared::{lock, Shared};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, TcpStream};
#[cfg(unix)]
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

enum Stream {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
}

/// A connected stream socket.
pub(crate) struct Sock {
    stream: Stream,
    gate: Arc<Gate>,
}

impl Sock {
    pub(crate) fn tcp(stream: TcpStream, gate: &Arc<Gate>) -> Self {
        // A line in several writes must arrive in several pieces, and payload without delay.
        let _ = stream.set_nodelay(true);
        Self { stream: Stream::Tcp(stream), gate: Arc::clone(gate) }
    }

    #[cfg(unix)]
    pub(crate) fn unix(stream: UnixStream, gate: &Arc<Gate>) -> Self {
        Self { stream: Stream::Unix(stream), gate: Arc::clone(gate) }
    }

    fn read_once(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.gate.pass();
        let result = match &self.stream {
            Stream::Tcp(s) => (&*s).read(buffer),
            #[cfg(unix)]
            Stream::Unix(s) => (&*s).read(buffer),
        };
        // It may have been closed since.
        self.gate.pass();
        result
    }

    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.read_once(buffer) {
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    /// `None` when the deadline passes.
    pub(crate) fn read_until(&self, buffer: &mut [u8], deadline: Option<Instant>) -> io::Result<Option<usize>> {
        loop {
            let left = match deadline {
                None => None,
                Some(deadline) => match deadline.checked_duration_since(Instant::now()) {
                    // A timeout of zero is refused by the system.
                    Some(left) if left >= Duration::from_micros(1) => Some(left),
                    _ => return Ok(None),
                },
            };
            self.set_read_timeout(left)?;
            match self.read(buffer) {
                Ok(n) => return Ok(Some(n)),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(e) => return Err(e),
            }
        }
    }

    pub(crate) fn set_read_timeout(&self, time: Option<Duration>) -> io::Result<()> {
        match &self.stream {
            Stream::Tcp(s) => s.set_read_timeout(time),
            #[cfg(unix)]
            Stream::Unix(s) => s.set_read_timeout(time),
        }
    }

    fn set_write_timeout(&self, time: Duration) {
        let _ = match &self.stream {
            Stream::Tcp(s) => s.set_write_timeout(Some(time)),
            #[cfg(unix)]
            Stream::Unix(s) => s.set_write_timeout(Some(time)),
        };
    }

    fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        self.gate.pass();
        match &self.stream {
            Stream::Tcp(s) => (&*s).write_all(bytes),
            #[cfg(unix)]
            Stream::Unix(s) => (&*s).write_all(bytes),
        }
    }

    fn shutdown(&self, how: Shutdown) {
        let _ = match &self.stream {
            Stream::Tcp(s) => s.shutdown(how),
            #[cfg(unix)]
            Stream::Unix(s) => s.shutdown(how),
        };
    }

    fn peer_ip(&self) -> IpAddr {
        match &self.stream {
            Stream::Tcp(s) => s.peer_addr().map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |a| a.ip()),
            #[cfg(unix)]
            Stream::Unix(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        }
    }
}

/// What a connection is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// No HELLO yet.
    New,
    Utility,
    Control,
    Stream,
    Forward,
}

/// What changes while a connection lives.
pub(crate) struct Info {
    pub(crate) version: Version,
    pub(crate) kind: Kind,
    /// Id and serial number of the session this socket controls.
    pub(crate) session: Option<(String, u64)>,
    /// When the last line came.
    pub(crate) last_line: Instant,
    /// A command is being carried out, so nobody reads.
    pub(crate) busy: bool,
    /// The idle PING that must be answered, and by when.
    pub(crate) expected: Option<(String, Instant)>,
    /// PINGs sent by the fault and not answered.
    pub(crate) pings: VecDeque<String>,
    pub(crate) next_ping: Option<Instant>,
}

#[derive(Default)]
struct Out {
    /// Lines kept back to go out together with the first payload.
    held: Vec<u8>,
    flusher: bool,
}

pub(crate) struct Conn {
    pub(crate) id: u64,
    pub(crate) sock: Sock,
    /// Made by a client, not by the bridge to a forward target.
    pub(crate) inbound: bool,
    pub(crate) info: Mutex<Info>,
    out: Mutex<Out>,
    /// Everything written is thrown away: the silence of a stalled reply.
    muted: AtomicBool,
}

impl Conn {
    pub(crate) fn new(id: u64, sock: Sock, inbound: bool) -> Self {
        Self {
            id,
            sock,
            inbound,
            info: Mutex::new(Info {
                version: Version::V3_0,
                kind: Kind::New,
                session: None,
                last_line: Instant::now(),
                busy: false,
                expected: None,
                pings: VecDeque::new(),
                next_ping: None,
            }),
            out: Mutex::new(Out::default()),
            muted: AtomicBool::new(false),
        }
    }

    pub(crate) fn version(&self) -> Version {
        lock(&self.info).version
    }

    pub(crate) fn session(&self) -> Option<(String, u64)> {
        lock(&self.info).session.clone()
    }

    pub(crate) fn peer_ip(&self) -> IpAddr {
        self.sock.peer_ip()
    }

    /// Writes stream data, together with lines kept back.
    pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let mut out = lock(&self.out);
        if self.muted.load(Ordering::Relaxed) {
            return Ok(());
        }
        if out.held.is_empty() {
            return self.sock.write_all(bytes);
        }
        let mut held = std::mem::take(&mut out.held);
        held.extend_from_slice(bytes);
        self.sock.write_all(&held)
    }

    /// Nothing more will be written. What was written is delivered.
    pub(crate) fn finish_writing(&self) {
        let _ = self.send(&[]);
        self.sock.shutdown(Shutdown::Write);
    }

    /// Shows the client the end of the stream, without waiting for a write that is going on.
    pub(crate) fn end_writing(&self) {
        self.flush();
        self.sock.shutdown(Shutdown::Write);
    }

    /// Writes lines kept back, unless somebody is writing already: that writes them too.
    pub(crate) fn flush(&self) {
        if let Ok(mut out) = self.out.try_lock() {
            let held = std::mem::take(&mut out.held);
            if !held.is_empty() && !self.muted.load(Ordering::Relaxed) {
                let _ = self.sock.write_all(&held);
            }
        }
    }

    /// From now on no write waits longer than this for the client. Says whether one that is going on has ended
    /// within that time.
    pub(crate) fn hurry(&self, time: Duration) -> bool {
        self.sock.set_write_timeout(time);
        let deadline = Instant::now() + time;
        while self.out.try_lock().is_err() {
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        true
    }

    /// Ends the connection. What was written is delivered, and what the client had sent can still be read.
    pub(crate) fn kill(&self) {
        self.sock.shutdown(Shutdown::Both);
    }

    /// Says goodbye without the reset that unread input would cause, which could destroy the last reply.
    pub(crate) fn close_gently(&self, time: Duration) {
        self.finish_writing();
        let deadline = Some(Instant::now() + time);
        let mut buffer = [0u8; 4096];
        while let Ok(Some(1..)) = self.sock.read_until(&mut buffer, deadline) {}
        self.kill();
    }
}

/// What becomes of the connection after a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    Go,
    /// The reply was withheld.
    Stalled,
    Closed,
}

impl Shared {
    /// Writes bytes the way the split and drip faults want.
    pub(crate) fn emit(&self, conn: &Conn, bytes: &[u8]) -> io::Result<()> {
        let (split, drip) = {
            let faults = lock(&self.faults);
            (faults.config.split, faults.config.drip)
        };
        let mut out = lock(&conn.out);
        if conn.muted.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mut all = std::mem::take(&mut out.held);
        all.extend_from_slice(bytes);
        let (first, every, gap) = match (drip, split) {
            (Some(interval), _) => (1, 1, interval),
            (None, Split::Whole) => (all.len(), all.len(), Duration::ZERO),
            (None, Split::Every { bytes, gap }) => (bytes.max(1), bytes.max(1), gap),
            (None, Split::At { byte, gap }) => (byte.min(all.len()), all.len(), gap),
        };
        let (head, tail) = all.split_at(first.min(all.len()));
        if !head.is_empty() {
            conn.sock.write_all(head)?;
        }
        for piece in tail.chunks(every.max(1)) {
            if !gap.is_zero() && !self.sleep(gap) {
                return Err(ErrorKind::ConnectionAborted.into());
            }
            conn.sock.write_all(piece)?;
        }
        Ok(())
    }

    /// Writes a reply, with the faults that apply to its kind.
    pub(crate) fn reply(&self, conn: &Conn, kind: Reply, text: &str) -> Flow {
        let plan = self.plan(kind);
        self.reply_planned(conn, &plan, text)
    }

    pub(crate) fn plan(&self, kind: Reply) -> Plan {
        lock(&self.faults).plan(kind)
    }

    /// Writes a reply whose faults have been decided on.
    pub(crate) fn reply_planned(&self, conn: &Conn, plan: &Plan, text: &str) -> Flow {
        if !plan.delay.is_zero() && !self.sleep(plan.delay) {
            return Flow::Closed;
        }
        let mut bytes = plan.prepend.clone();
        let mut flow = Flow::Closed;
        let mut end = None;
        match &plan.action {
            Some(Action::Stall) => flow = Flow::Stalled,
            Some(Action::Close) => {}
            Some(Action::CloseAfter(n)) => {
                bytes.extend_from_slice(text.as_bytes());
                bytes.truncate(*n);
            }
            Some(Action::ThenClose { after, bytes: last }) => {
                bytes.extend_from_slice(text.as_bytes());
                end = Some((*after, last));
            }
            Some(Action::OmitNewline) => {
                bytes.extend_from_slice(text.strip_suffix('\n').unwrap_or(text).as_bytes());
            }
            Some(Action::Replace { bytes: new, close }) => {
                bytes.extend_from_slice(new);
                if !close {
                    flow = Flow::Go;
                }
            }
            Some(Action::Prepend(_) | Action::Delay(_)) | None => {
                bytes.extend_from_slice(text.as_bytes());
                flow = Flow::Go;
            }
        }
        if self.config.verbose {
            self.log(&conn.id.to_string(), "->", &bytes);
        }
        if self.emit(conn, &bytes).is_err() {
            return Flow::Closed;
        }
        if let Some((after, last)) = end {
            // A client that goes meanwhile is found out by the write, or does not matter.
            if self.sleep(after) && !last.is_empty() {
                if self.config.verbose {
                    self.log(&conn.id.to_string(), "->", last);
                }
                let _ = self.emit(conn, last);
            }
        }
        flow
    }

    /// Writes a line that begins a stream. Whatever the faults do, the stream can go on: a stalled socket is
    /// mute, a closed one reads as closed.
    pub(crate) fn begin_stream(self: &Arc<Self>, conn: &Arc<Conn>, plan: &Plan, text: &str) {
        let coalesce = lock(&self.faults).config.coalesce;
        if let (Some(time), None) = (coalesce, &plan.action) {
            if !self.sleep(plan.delay) {
                return;
            }
            let mut bytes = plan.prepend.clone();
            bytes.extend_from_slice(text.as_bytes());
            return self.hold(conn, &bytes, time);
        }
        match self.reply_planned(conn, plan, text) {
            Flow::Go => {}
            Flow::Stalled => conn.muted.store(true, Ordering::Relaxed),
            Flow::Closed => conn.kill(),
        }
    }

    /// Keeps a line back until payload comes or the time is over.
    fn hold(self: &Arc<Self>, conn: &Arc<Conn>, bytes: &[u8], time: Duration) {
        if self.config.verbose {
            self.log(&conn.id.to_string(), "->", bytes);
        }
        let mut out = lock(&conn.out);
        out.held.extend_from_slice(bytes);
        if std::mem::replace(&mut out.flusher, true) {
            return;
        }
        let (shared, target) = (Arc::clone(self), Arc::clone(conn));
        let started = self.spawn("hold", move || {
            shared.sleep(time);
            lock(&target.out).flusher = false;
            let _ = target.send(&[]);
        });
        if started.is_err() {
            let held = std::mem::take(&mut out.held);
            let _ = conn.sock.write_all(&held);
        }
    }

    pub(crate) fn log(&self, conn: &str, arrow: &str, bytes: &[u8]) {
        let mut stderr = io::stderr().lock();
        for line in String::from_utf8_lossy(bytes).lines() {
            // Nobody reading the log is no reason to stop.
            let _ = writeln!(stderr, "{conn} {arrow} {}", redact(line));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn small_writes_leave_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let Stream::Tcp(stream) = Sock::tcp(stream, &Arc::default()).stream else {
            panic!("not TCP");
        };
        assert!(stream.nodelay().unwrap());
    }
}
