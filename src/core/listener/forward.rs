//! STREAM FORWARD instead of accepts: for every stream the router connects to a loopback port of ours.
//!
//! Any local process can connect there and claim to be a peer, so these streams are not verified.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::core::bridge::{Bridge, BridgeConnection};
use crate::core::drive::{after, earlier, passed, Deadline, Progress, Watched};
use crate::core::session::{ControlSocket, Session};
use crate::core::stream::{Remote, Stream};
use crate::error::{Error, Operation, Result, Status};
use crate::protocol::peer_line::PeerLine;
use crate::protocol::request::Request;
use crate::sys::{self, Place, SharedFd, Watch};

/// Connections to take, and to look at, per run before others get a turn.
const CONNECTIONS_PER_RUN: usize = 64;
/// How long a connection may take to send its peer line: a router sends it at once.
const INTRODUCTION: Duration = Duration::from_secs(10);
/// How long a silent connection keeps its place when all are taken and another one waits.
const GRACE: Duration = Duration::from_millis(100);

/// A loopback port and the router's commitment to forward streams to it.
pub(super) struct Forward {
    port: TcpListener,
    address: SocketAddr,
    watched: bool,
    control: Control,
    arriving: VecDeque<Arriving>,
    /// Whether silent connections have taken all places.
    crowded: bool,
}

enum Control {
    None,
    Asking(Box<Watched<BridgeConnection>>),
    /// Forwarding lasts while this socket is open. It gets PINGs like that of a session.
    Forwarding(Box<ControlSocket>),
}

/// A connection that has not sent its peer line yet.
struct Arriving {
    socket: Arc<SharedFd>,
    line: PeerLine,
    since: Instant,
}

impl Forward {
    /// Binds the port. Fails unless the bridge is on this machine.
    pub(super) fn new(bridge: &Bridge) -> Result<Self> {
        let local = bridge.places().iter().find_map(|place| match place {
            Place::Tcp(address) if address.ip().is_loopback() => Some(address.ip()),
            Place::Tcp(_) => None,
            Place::Unix(_) => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        });
        let Some(ip) = local else {
            return Err(Error::invalid("option stream_forward is for a bridge on this machine"));
        };
        let system = |error| Error::io(Operation::Accept, "a loopback port to forward to", &error);
        let port = TcpListener::bind((ip, 0)).map_err(system)?;
        port.set_nonblocking(true).map_err(system)?;
        let address = port.local_addr().map_err(system)?;
        Ok(Forward { port, address, watched: false, control: Control::None, arriving: VecDeque::new(), crowded: false })
    }

    /// When it has to run even without an event.
    pub(super) fn deadline(&self) -> Deadline {
        let asking = match &self.control {
            Control::Asking(connection) => connection.get().deadline(),
            Control::Forwarding(control_socket) => control_socket.deadline(),
            Control::None => None,
        };
        let Some((_, since)) = self.oldest() else { return asking };
        // When they have taken all places, others may be waiting behind them.
        let patience = if self.crowded { GRACE } else { INTRODUCTION };
        earlier(asking, after(Some(patience), since))
    }

    /// Whether the router has to be asked to forward (again).
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.control, Control::None)
    }

    /// Asks the router to forward.
    pub(super) fn ask(&mut self, session: &Arc<Session>, watch: &Arc<Watch>, now: Instant) -> Result<()> {
        let request = Request::Forward { id: session.id().to_owned(), to: self.address };
        self.control = Control::Asking(Box::new(Watched::new(session.connection(request)?, watch)));
        self.run_control(session, watch, now)
    }

    /// Runs the conversation with the router. After an error the router has to be asked again.
    pub(super) fn run_control(&mut self, session: &Arc<Session>, watch: &Watch, now: Instant) -> Result<()> {
        let result = self.try_control(session, watch, now);
        if result.is_err() {
            self.close_control(watch);
        }
        result
    }

    fn try_control(&mut self, session: &Arc<Session>, watch: &Watch, now: Instant) -> Result<()> {
        if let Control::Asking(connection) = &mut self.control {
            if connection.step(|connection| connection.step(now))? == Progress::Block {
                return Ok(());
            }
            let finished = connection.get_mut().finish()?;
            self.control = Control::Forwarding(Box::new(ControlSocket::of_forward(finished, now)));
        }
        let Control::Forwarding(control_socket) = &mut self.control else { return Ok(()) };
        control_socket.trace().want(session.bridge().log.is_wanted());
        let lost = control_socket.run(now);
        session.bridge().log.lines(control_socket.trace().take());
        if let Some(error) = lost {
            return Err(Error { status: Status::Protocol, ..error.during(Operation::Accept) });
        }
        if let Some((fd, events)) = control_socket.awaited() {
            drop(watch.set(&*fd, events));
        }
        Ok(())
    }

    /// Takes up to `room` connections and returns the streams of those that have sent their peer line.
    pub(super) fn run_port(&mut self, session: &Arc<Session>, room: usize, watch: &Watch, now: Instant) -> Vec<Stream> {
        let mut streams = Vec::new();
        // In turn: those left out are still ready the next time.
        for _ in 0..self.arriving.len().min(CONNECTIONS_PER_RUN) {
            let Some(mut arriving) = self.arriving.pop_front() else { break };
            match arriving.introduce(now) {
                Ok(Some(remote)) => {
                    drop(watch.remove(&*arriving.socket));
                    let (process, scope) = (Arc::clone(&session.bridge().process), Arc::clone(session.scope()));
                    streams.push(Stream::new(process, scope, arriving.socket, remote));
                }
                Ok(None) => self.arriving.push_back(arriving),
                Err(error) => {
                    drop(watch.remove(&*arriving.socket));
                    let why = || format!("dropped a connection to the forwarding port: {}", error.message);
                    session.bridge().log.line(why);
                }
            }
        }
        for _ in 0..CONNECTIONS_PER_RUN {
            // A silent one makes room: any local process can connect and say nothing.
            let is_full = streams.len() + self.arriving.len() >= room;
            let oldest = self.oldest().filter(|_| streams.len() < room);
            if is_full && oldest.is_none_or(|(_, since)| now.saturating_duration_since(since) < GRACE) {
                break;
            }
            let Ok((connection, _)) = self.port.accept() else { break };
            if let (true, Some((at, _))) = (is_full, oldest) {
                if let Some(silent) = self.arriving.remove(at) {
                    drop(watch.remove(&*silent.socket));
                    session.bridge().log.line(|| "dropped a silent connection to the forwarding port".to_owned());
                }
            }
            let prepared = connection.set_nonblocking(true).and_then(|()| connection.set_nodelay(true));
            let socket = Arc::new(SharedFd::new(OwnedFd::from(connection)));
            if prepared.is_err() || session.scope().add(&socket).is_err() {
                continue;
            }
            drop(watch.set(&*socket, sys::IN));
            self.arriving.push_back(Arriving { socket, line: PeerLine::default(), since: now });
        }
        // While there is no room, stop watching the port: connections wait in the system's backlog.
        let wanted = streams.len() + self.arriving.len() < room;
        if wanted != self.watched {
            drop(match wanted {
                true => watch.set(&self.port, sys::IN),
                false => watch.remove(&self.port),
            });
            self.watched = wanted;
        }
        self.crowded = !wanted && streams.len() < room;
        streams
    }

    /// The connection that has been silent for longest: its place in the list, and since when.
    fn oldest(&self) -> Option<(usize, Instant)> {
        self.arriving.iter().enumerate().map(|(at, one)| (at, one.since)).min_by_key(|(_, since)| *since)
    }

    fn close_control(&mut self, watch: &Watch) {
        match std::mem::replace(&mut self.control, Control::None) {
            Control::None | Control::Asking(_) => {}
            Control::Forwarding(mut control_socket) => {
                if let Some((fd, _)) = control_socket.awaited() {
                    drop(watch.remove(&*fd));
                }
                control_socket.close(&Error::closed(Operation::Accept, "the listener was closed"));
            }
        }
    }

    /// Closes everything except the port.
    pub(super) fn close(&mut self, watch: &Watch) {
        self.close_control(watch);
        for arriving in self.arriving.drain(..) {
            drop(watch.remove(&*arriving.socket));
        }
    }

    /// Stops watching the port before it is closed.
    pub(super) fn forget_port(&mut self, watch: &Watch) {
        if std::mem::take(&mut self.watched) {
            drop(watch.remove(&self.port));
        }
    }
}

impl Arriving {
    /// Reads the peer line, and not a byte of the payload after it.
    fn introduce(&mut self, now: Instant) -> Result<Option<Remote>> {
        let fd = self.socket.as_raw_fd();
        let mut buffer = [0; 4096];
        loop {
            let count = match sys::recv(fd, &mut buffer, sys::MSG_DONTWAIT | sys::MSG_PEEK) {
                Err(error) if sys::would_block(&error) => {
                    return match passed(after(Some(INTRODUCTION), self.since), now) {
                        true => Err(Error::new(Status::Timeout, Operation::Accept, "it did not say whose it is")),
                        false => Ok(None),
                    };
                }
                Err(error) => return Err(Error::io(Operation::Accept, "recv", &error)),
                Ok(0) => return Err(self.line.eof()),
                Ok(count) => count,
            };
            let (used, peer) = self.line.input(buffer.get(..count).unwrap_or_default())?;
            sys::discard(fd, used).map_err(|error| Error::io(Operation::Accept, "recv", &error))?;
            if let Some(peer) = peer {
                return Ok(Some(Remote::of_peer(peer, false)));
            }
        }
    }
}
