//! Starting and stopping a bridge, and what it tells about itself.

use crate::config::Config;
use crate::conn::Sock;
use crate::datagram::DatagramCounts;
use crate::faults::Faults;
use crate::gate::Gate;
use crate::shared::{lock, Line, Shared};
use crate::style::Style;
use crate::udp::Udp;
use crate::{handler, keepalive, naming, udp};
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
#[cfg(unix)]
use std::os::unix::net::{UnixListener, UnixStream};
#[cfg(unix)]
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long stopping may take before threads are left to themselves.
const STOP_TIME: Duration = Duration::from_secs(20);

/// A running bridge. Dropping it stops it.
pub struct Bridge {
    shared: Arc<Shared>,
    addr: SocketAddr,
    addr_v6: Option<SocketAddr>,
    udp_addr: SocketAddr,
    places: Vec<Place>,
    /// Threads that are there without any connection, besides those that listen.
    always: usize,
    stopped: bool,
}

/// What is known about a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionInfo {
    /// Its id, also when the router has forgotten that.
    pub id: String,
    /// Whether it works; one that has died behind its open control socket does not.
    pub alive: bool,
    /// Its public destination, base64.
    pub destination: String,
    /// What it is for.
    pub style: Style,
    /// Where its datagrams are forwarded to; `None` when they come on the control socket, or not at all.
    pub udp: Option<SocketAddr>,
    /// The number of its control connection.
    pub connection: u64,
    /// ACCEPTs that wait for a stream, abandoned ones included where the router keeps those.
    pub accepts: usize,
    /// Streams that wait for an ACCEPT.
    pub parked: usize,
    /// Whether a FORWARD is active.
    pub forward: bool,
    /// Its ends of open streams.
    pub streams: usize,
}

/// Where a listener listens.
#[derive(Clone)]
enum Place {
    Tcp(SocketAddr),
    #[cfg(unix)]
    Unix(PathBuf),
}

impl Place {
    fn listen(&self) -> io::Result<Listener> {
        match self {
            Self::Tcp(addr) => TcpListener::bind(addr).map(Listener::Tcp),
            #[cfg(unix)]
            Self::Unix(path) => {
                // That of the listener before this one, to which nothing leads any more.
                let _ = std::fs::remove_file(path);
                UnixListener::bind(path).map(Listener::Unix)
            }
        }
    }

    /// A listening thread only wakes up for a connection.
    fn wake(&self) {
        match self {
            Self::Tcp(addr) => drop(TcpStream::connect_timeout(addr, Duration::from_secs(1))),
            #[cfg(unix)]
            Self::Unix(path) => drop(UnixStream::connect(path)),
        }
    }
}

enum Listener {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(UnixListener),
}

impl Listener {
    fn accept(&self, gate: &Arc<Gate>) -> io::Result<Sock> {
        match self {
            Self::Tcp(listener) => listener.accept().map(|(stream, _)| Sock::tcp(stream, gate)),
            #[cfg(unix)]
            Self::Unix(listener) => listener.accept().map(|(stream, _)| Sock::unix(stream, gate)),
        }
    }
}

/// Listens on 127.0.0.1, and on the same port of ::1 when asked to.
fn listen(config: &Config) -> io::Result<(TcpListener, Option<TcpListener>)> {
    let mut last = None;
    // A free port of one family may be taken in the other.
    for _ in 0..20 {
        let v4 = TcpListener::bind((Ipv4Addr::LOCALHOST, config.port))?;
        if !config.ipv6 {
            return Ok((v4, None));
        }
        match TcpListener::bind((Ipv6Addr::LOCALHOST, v4.local_addr()?.port())) {
            Ok(v6) => return Ok((v4, Some(v6))),
            Err(e) if e.kind() == ErrorKind::AddrInUse && config.port == 0 => last = Some(e),
            Err(e) => return Err(e),
        }
    }
    Err(last.unwrap_or_else(|| ErrorKind::AddrInUse.into()))
}

impl Bridge {
    /// Starts a bridge. It is listening when this returns.
    pub fn start(config: Config) -> io::Result<Self> {
        let (v4, v6) = listen(&config)?;
        let addr = v4.local_addr()?;
        let addr_v6 = v6.as_ref().map(TcpListener::local_addr).transpose()?;
        let mut places: Vec<_> = std::iter::once(addr).chain(addr_v6).map(Place::Tcp).collect();
        let mut listeners = vec![Listener::Tcp(v4)];
        listeners.extend(v6.map(Listener::Tcp));
        let udp = Udp::bind(&config, addr.port())?;
        let udp_addr = udp.addr()?;
        let packets = udp.readers()?;
        let shared = Arc::new(Shared::new(config, udp));
        for (name, destination) in &shared.config.hosts {
            if !naming::add(&mut lock(&shared.state), name, destination) {
                let message = format!("host {name:?} has no valid destination");
                return Err(io::Error::new(ErrorKind::InvalidInput, message));
            }
        }
        if let Some(path) = &shared.config.unix {
            #[cfg(unix)]
            {
                listeners.push(Listener::Unix(UnixListener::bind(path)?));
                places.push(Place::Unix(path.clone()));
            }
            #[cfg(not(unix))]
            return Err(io::Error::new(ErrorKind::Unsupported, format!("{path:?}")));
        }
        let always = packets.len() + 1;
        let bridge = Self { shared, addr, addr_v6, udp_addr, places, always, stopped: false };
        bridge.serve(listeners)?;
        for socket in packets {
            let shared = Arc::clone(&bridge.shared);
            bridge.shared.spawn("udp", move || udp::serve(&shared, &socket))?;
        }
        let shared = Arc::clone(&bridge.shared);
        bridge.shared.spawn("ping", move || keepalive::run(&shared))?;
        Ok(bridge)
    }

    /// Starts a bridge at ports below those that the system gives away: while it is gone, nobody gets them by chance.
    pub fn start_to_stay(config: Config) -> io::Result<Self> {
        static TRIES: AtomicU16 = AtomicU16::new(0);
        let mut last = None;
        for _ in 0..50 {
            // Other processes begin elsewhere.
            let begin = std::process::id().wrapping_mul(7919);
            let port = (begin.wrapping_add(u32::from(TRIES.fetch_add(1, Ordering::Relaxed)) * 31) % 9000) as u16 * 2;
            let (port, udp_port) = (12001 + port, 12000 + port);
            match Self::start(Config { port, udp_port, ..config.clone() }) {
                Err(e) if e.kind() == ErrorKind::AddrInUse => last = Some(e),
                result => return result,
            }
        }
        Err(last.unwrap_or_else(|| ErrorKind::AddrInUse.into()))
    }

    fn serve(&self, listeners: Vec<Listener>) -> io::Result<()> {
        for listener in listeners {
            let shared = Arc::clone(&self.shared);
            lock(&shared.state).listening += 1;
            let started = self.shared.spawn("listen", move || {
                accept_all(&shared, &listener);
                drop(listener);
                lock(&shared.state).listening -= 1;
                shared.changed.notify_all();
            });
            if let Err(e) = started {
                lock(&self.shared.state).listening -= 1;
                return Err(e);
            }
        }
        Ok(())
    }

    /// Refuses new connections from now on: nobody listens any more. What is connected stays as it is.
    pub fn stop_listening(&self) {
        self.shared.set_deaf(true);
        self.places.iter().for_each(Place::wake);
        self.shared.wait(Some(Instant::now() + STOP_TIME), |state| (state.listening == 0).then_some(()));
    }

    /// Listens again at the same places after [`Bridge::stop_listening`].
    pub fn listen_again(&self) -> io::Result<()> {
        if !self.shared.is_deaf() {
            return Ok(());
        }
        let listeners = self.places.iter().map(Place::listen).collect::<io::Result<_>>()?;
        self.shared.set_deaf(false);
        self.serve(listeners)
    }

    /// Stops the bridge and starts another one in its place: the same configuration, the same ports, nothing else. All
    /// connections end, and all sessions.
    pub fn restart(self) -> io::Result<Self> {
        let config = Config { port: self.port(), udp_port: self.udp_port(), ..self.shared.config.clone() };
        self.stop();
        Self::start(config)
    }

    /// The TCP port.
    pub fn port(&self) -> u16 {
        self.addr.port()
    }

    /// The address on 127.0.0.1.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The address on ::1, when there is one.
    pub fn addr_v6(&self) -> Option<SocketAddr> {
        self.addr_v6
    }

    /// The UDP port, where clients send datagrams and where forwarded ones come from.
    pub fn udp_port(&self) -> u16 {
        self.udp_addr.port()
    }

    /// The UDP address on 127.0.0.1. With IPv6 there is another with the same port on ::1.
    pub fn udp_addr(&self) -> SocketAddr {
        self.udp_addr
    }

    /// What has become of the datagrams so far.
    pub fn datagram_counts(&self) -> DatagramCounts {
        self.shared.datagram_counts()
    }

    /// The first lines of all packets received by UDP so far, without their LF.
    pub fn udp_headers(&self) -> Vec<String> {
        self.shared.udp.headers()
    }

    /// The handle that makes things go wrong.
    pub fn faults(&self) -> Faults {
        Faults { shared: Arc::clone(&self.shared) }
    }

    /// All lines received so far, in order.
    pub fn lines(&self) -> Vec<Line> {
        lock(&self.shared.lines).iter().cloned().collect()
    }

    /// All lines received so far, as text.
    pub fn texts(&self) -> Vec<String> {
        lock(&self.shared.lines).iter().map(Line::text).collect()
    }

    /// Forgets the lines and the UDP headers received so far.
    pub fn clear_lines(&self) {
        self.shared.udp.clear_headers();
        lock(&self.shared.lines).clear();
    }

    /// Connections accepted so far.
    pub fn connections_total(&self) -> u64 {
        self.shared.total.load(Ordering::Relaxed)
    }

    /// Connections the bridge has not finished with. One that the client has closed counts until the bridge
    /// notices, which the abandoned ACCEPTs of some routers never do.
    pub fn connections_open(&self) -> usize {
        let state = lock(&self.shared.state);
        state.conns.values().filter(|c| c.inbound).count()
    }

    /// Whether it has finished with all connections but so many: their threads have ended, their descriptors are closed.
    pub fn is_quiet(&self, connections: usize) -> bool {
        let state = lock(&self.shared.state);
        let open = state.conns.values().filter(|c| c.inbound).count();
        open == connections && state.threads == state.listening + self.always + connections
    }

    /// The sessions there are, by id.
    pub fn sessions(&self) -> Vec<SessionInfo> {
        let state = lock(&self.shared.state);
        let mut all: Vec<_> = state
            .sessions
            .iter()
            .filter(|(_, s)| s.ready)
            .map(|(id, s)| SessionInfo {
                id: id.split('\n').next().unwrap_or_default().to_string(),
                alive: s.works(),
                destination: s.text.clone(),
                style: s.mail.style,
                udp: s.forward_port(),
                connection: s.control.id,
                accepts: s.acceptors.len(),
                parked: s.incoming.len(),
                forward: s.forward.is_some(),
                streams: s.streams.len(),
            })
            .collect();
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    }

    /// The session with this id.
    pub fn session(&self, id: &str) -> Option<SessionInfo> {
        self.sessions().into_iter().find(|s| s.id == id)
    }

    /// Adds a host name, or changes it; `false` when the base64 destination is none.
    pub fn add_host(&self, name: &str, destination: &str) -> bool {
        naming::add(&mut lock(&self.shared.state), name, destination)
    }

    /// Waits until `condition` holds; `false` when it does not within `time`.
    pub fn wait_for(&self, time: Duration, condition: impl Fn(&Self) -> bool) -> bool {
        let deadline = Instant::now() + time;
        loop {
            if condition(self) {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Closes everything and waits for all threads, which takes a moment.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if std::mem::replace(&mut self.stopped, true) {
            return;
        }
        self.shared.begin_stop();
        self.places.iter().for_each(Place::wake);
        self.shared.udp.wake();
        #[cfg(unix)]
        if let Some(path) = &self.shared.config.unix {
            let _ = std::fs::remove_file(path);
        }
        self.shared.finish_stop(STOP_TIME);
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.end();
    }
}

impl std::fmt::Debug for Bridge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bridge").field("addr", &self.addr).finish()
    }
}

fn accept_all(shared: &Arc<Shared>, listener: &Listener) {
    loop {
        let accepted = listener.accept(&shared.gate);
        // The system has it, and that is all while the bridge stands still.
        shared.wait(None, |_| (!shared.gate.is_closed() || shared.is_deaf()).then_some(()));
        if shared.is_stopping() || shared.is_deaf() {
            return;
        }
        let Ok(sock) = accepted else {
            // Most likely out of file descriptors: give the others time to close some.
            if !shared.sleep(Duration::from_millis(20)) {
                return;
            }
            continue;
        };
        let Some(conn) = shared.register(sock, true) else {
            return;
        };
        let (mine, served) = (Arc::clone(shared), Arc::clone(&conn));
        if shared.spawn("conn", move || handler::serve(&mine, &served)).is_err() {
            shared.unregister(&conn);
        }
    }
}
