//! What all threads of one bridge share.

use crate::config::Config;
use crate::conn::{Conn, Kind};
use crate::datagram::Counters;
use crate::faults::{FaultState, Plan};
use crate::gate::Gate;
use crate::life::Closed;
use crate::relay::Link;
use crate::style::{Delivery, Mail, Style};
use crate::udp::Udp;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

/// Lines kept for tests; older ones are forgotten.
const MAX_LINES: usize = 100_000;

/// Locks, also after a thread has died with the lock held: every section leaves the data in order.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A line the bridge has received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The connection's number, counted from 1 in the order of arrival.
    pub connection: u64,
    /// The line without its LF.
    pub bytes: Vec<u8>,
}

impl Line {
    /// The line as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

/// What becomes of a socket that waits for its other side.
#[derive(Clone)]
pub(crate) enum Outcome {
    Linked(Arc<Link>),
    /// A forward has been set up meanwhile: go there.
    Forward,
    Closed,
    /// Its session has died behind its open control socket.
    Died,
}

/// A waiting ACCEPT, or a CONNECT that waits for one.
pub(crate) struct Slot {
    pub(crate) conn: Arc<Conn>,
    pub(crate) silent: bool,
    /// CONNECT only: what the peer line says.
    pub(crate) peer: Peer,
    /// CONNECT only: faults of its status line, `None` once that has been written.
    pub(crate) status: Mutex<Option<Plan>>,
    /// Only set with the state locked.
    pub(crate) outcome: Mutex<Option<Outcome>>,
}

impl Slot {
    pub(crate) fn new(conn: &Arc<Conn>, silent: bool, peer: Peer, status: Option<Plan>) -> Self {
        Self { conn: Arc::clone(conn), silent, peer, status: Mutex::new(status), outcome: Mutex::new(None) }
    }

    pub(crate) fn outcome(&self) -> Option<Outcome> {
        lock(&self.outcome).clone()
    }

    pub(crate) fn set(&self, outcome: Outcome) {
        *lock(&self.outcome) = Some(outcome);
    }
}

/// The connecting side as the accepting side sees it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peer {
    /// The id of its session.
    pub(crate) session: String,
    pub(crate) destination: String,
    pub(crate) from_port: u16,
    pub(crate) to_port: u16,
}

/// Where STREAM FORWARD sends streams.
#[derive(Clone)]
pub(crate) struct Forward {
    pub(crate) conn: Arc<Conn>,
    pub(crate) target: SocketAddr,
    pub(crate) silent: bool,
}

pub(crate) struct Session {
    /// Tells sessions of the same id apart.
    pub(crate) serial: u64,
    /// Tunnels are there.
    pub(crate) ready: bool,
    /// It exists in name only.
    pub(crate) dead: bool,
    /// When it was ready.
    pub(crate) born: Instant,
    /// There has been an ACCEPT or a FORWARD.
    pub(crate) accepted: bool,
    pub(crate) public: Vec<u8>,
    /// The same as base64.
    pub(crate) text: String,
    /// The base64 of its hash.
    pub(crate) hash: String,
    pub(crate) control: Arc<Conn>,
    pub(crate) from_port: u16,
    pub(crate) to_port: u16,
    /// Its style, and what becomes of its datagrams.
    pub(crate) mail: Mail,
    pub(crate) acceptors: VecDeque<Arc<Slot>>,
    pub(crate) incoming: VecDeque<Arc<Slot>>,
    pub(crate) forward: Option<Forward>,
    /// This session's ends of streams, by connection number.
    pub(crate) streams: HashMap<u64, Arc<Conn>>,
}

impl Session {
    /// Where its datagrams are forwarded to.
    pub(crate) fn forward_port(&self) -> Option<SocketAddr> {
        match self.mail.delivery {
            Delivery::Udp(to) => Some(to),
            Delivery::Nowhere | Delivery::InBand(_) => None,
        }
    }
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) sessions: HashMap<String, Session>,
    /// By public destination: what i2pd does to the next session that has it.
    pub(crate) closed: HashMap<Vec<u8>, Closed>,
    /// By public destination: until when it is refused with DUPLICATED_DEST.
    pub(crate) busy: HashMap<Vec<u8>, Instant>,
    pub(crate) conns: HashMap<u64, Arc<Conn>>,
    /// Lower-case name to destination.
    pub(crate) hosts: HashMap<String, Vec<u8>>,
    pub(crate) users: HashMap<String, String>,
    pub(crate) auth: bool,
    pub(crate) serial: u64,
    /// Sessions that have died behind their open control sockets.
    pub(crate) deaths: u64,
    /// i2pd's shared local destination, made when first asked for.
    pub(crate) local: Option<Vec<u8>>,
    /// Threads that listen.
    pub(crate) listening: usize,
    pub(crate) threads: usize,
    handles: Vec<JoinHandle<()>>,
}

impl State {
    /// The session that takes a destination's streams.
    pub(crate) fn owner(&self, destination: &[u8]) -> Option<&str> {
        self.sessions
            .iter()
            .filter(|(_, s)| s.works() && s.mail.style == Style::Stream && s.public == destination)
            // Where two share a destination, always the older one.
            .min_by_key(|(_, s)| s.serial)
            .map(|(id, _)| id.as_str())
    }
}

/// Counts a thread out, however it ends.
struct Leaving(Arc<Shared>);

impl Drop for Leaving {
    fn drop(&mut self) {
        lock(&self.0.state).threads -= 1;
        self.0.changed.notify_all();
    }
}

pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) state: Mutex<State>,
    /// Signalled after every change of the state.
    pub(crate) changed: Condvar,
    pub(crate) faults: Mutex<FaultState>,
    pub(crate) lines: Mutex<VecDeque<Line>>,
    pub(crate) udp: Udp,
    pub(crate) gate: Arc<Gate>,
    pub(crate) counters: Counters,
    pub(crate) total: AtomicU64,
    next_conn: AtomicU64,
    stopping: AtomicBool,
    /// New connections are refused.
    deaf: AtomicBool,
}

impl Shared {
    pub(crate) fn new(config: Config, udp: Udp) -> Self {
        let faults = Mutex::new(FaultState::new(config.faults.clone()));
        let mut state = State::default();
        if let Some((user, password)) = &config.auth {
            state.users.insert(user.clone(), password.clone());
            state.auth = true;
        }
        Self {
            config,
            state: Mutex::new(state),
            changed: Condvar::new(),
            faults,
            lines: Mutex::new(VecDeque::new()),
            udp,
            gate: Arc::default(),
            counters: Counters::default(),
            total: AtomicU64::new(0),
            next_conn: AtomicU64::new(1),
            stopping: AtomicBool::new(false),
            deaf: AtomicBool::new(false),
        }
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    pub(crate) fn is_deaf(&self) -> bool {
        self.deaf.load(Ordering::SeqCst)
    }

    pub(crate) fn set_deaf(&self, deaf: bool) {
        self.deaf.store(deaf, Ordering::SeqCst);
        self.poke();
    }

    /// Wakes all waiting threads to look at the state again.
    pub(crate) fn poke(&self) {
        // Without the lock a thread between its look and its wait would miss this.
        drop(lock(&self.state));
        self.changed.notify_all();
    }

    /// Waits until `done` gives something; `None` at the deadline and when the bridge stops.
    pub(crate) fn wait<T>(
        &self,
        deadline: Option<Instant>,
        mut done: impl FnMut(&mut State) -> Option<T>,
    ) -> Option<T> {
        let mut state = lock(&self.state);
        loop {
            if let Some(value) = done(&mut state) {
                return Some(value);
            }
            if self.is_stopping() {
                return None;
            }
            state = match deadline {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.checked_duration_since(Instant::now())?;
                    self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Sleeps; `false` when the bridge stops meanwhile.
    pub(crate) fn sleep(&self, time: Duration) -> bool {
        self.wait::<()>(Some(Instant::now() + time), |_| None);
        !self.is_stopping()
    }

    /// Registers a connection; `None` when the bridge is stopping.
    pub(crate) fn register(&self, sock: crate::conn::Sock, inbound: bool) -> Option<Arc<Conn>> {
        let mut state = lock(&self.state);
        if self.is_stopping() {
            return None;
        }
        let id = self.next_conn.fetch_add(1, Ordering::Relaxed);
        let conn = Arc::new(Conn::new(id, sock, inbound));
        state.conns.insert(id, Arc::clone(&conn));
        if inbound {
            self.total.fetch_add(1, Ordering::Relaxed);
        }
        self.changed.notify_all();
        Some(conn)
    }

    pub(crate) fn unregister(&self, conn: &Conn) {
        lock(&self.state).conns.remove(&conn.id);
        self.changed.notify_all();
    }

    pub(crate) fn set_kind(&self, conn: &Conn, kind: Kind) {
        lock(&conn.info).kind = kind;
        self.poke();
    }

    pub(crate) fn record(&self, conn: &Conn, line: &[u8]) {
        let mut lines = lock(&self.lines);
        if lines.len() >= MAX_LINES {
            lines.pop_front();
        }
        lines.push_back(Line { connection: conn.id, bytes: line.to_vec() });
    }

    /// Starts a thread that [`Shared::finish_stop`] waits for.
    pub(crate) fn spawn(self: &Arc<Self>, name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let shared = Arc::clone(self);
        let mut state = lock(&self.state);
        let handle = Builder::new().name(format!("bridge-{name}")).spawn(move || {
            let _leaving = Leaving(shared);
            body();
        })?;
        state.threads += 1;
        state.handles.retain(|h| !h.is_finished());
        state.handles.push(handle);
        Ok(())
    }

    /// Closes all connections and wakes all threads.
    pub(crate) fn begin_stop(&self) {
        let conns: Vec<_> = {
            let state = lock(&self.state);
            self.stopping.store(true, Ordering::SeqCst);
            state.conns.values().cloned().collect()
        };
        self.thaw();
        for conn in &conns {
            conn.kill();
        }
    }

    /// Waits, at most for `time`, until all threads are gone.
    pub(crate) fn finish_stop(&self, time: Duration) {
        let deadline = Instant::now() + time;
        let mut state = lock(&self.state);
        while state.threads > 0 {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                break;
            };
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let all_done = state.threads == 0;
        let handles = std::mem::take(&mut state.handles);
        drop(state);
        for handle in handles {
            if all_done || handle.is_finished() {
                let _ = handle.join();
            }
        }
    }
}
