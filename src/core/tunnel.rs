//! Tunnels: connections that come in on one side go out on the other.

use std::collections::VecDeque;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;

use crate::core::bridge::Endpoint;
use crate::core::controller::Controller;
use crate::core::dest::Dest;
use crate::core::listener::Listener;
use crate::core::options::{Options, Owner};
use crate::core::pending::{Limit, Pending};
use crate::core::presence::{Presence, State};
use crate::core::relay::End;
use crate::core::tunneling::Tunneling;
use crate::core::worker;
use crate::error::{Error, Operation, Result};
use crate::name::Target;
use crate::sys::{self, ForkGuard, Place, Wake};

/// Errors of connections that are remembered.
const ERRORS: usize = 16;

/// Where connections come from.
pub enum Receive {
    /// Streams over I2P.
    Listener(Listener),
    /// Streams over I2P, of somebody else's listener.
    Borrowed(Arc<Listener>),
    /// A listening socket.
    Socket(OwnedFd),
    /// A listening socket of somebody else's.
    Foreign(RawFd),
}

/// What becomes the other side of a connection.
pub enum Send {
    /// A socket that is connected, or connecting.
    Socket(OwnedFd),
    /// The first of these that can be connected to.
    Places(Vec<Place>),
    /// Connecting over I2P.
    Pending(Box<Pending>),
}

/// Makes the other side of a connection; runs on the tunnel's thread.
pub type MakeSend = Box<dyn FnMut() -> Result<Send> + std::marker::Send>;

/// Limits of a tunnel.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at a time; those above wait.
    pub connections: usize,
    /// How long one may last, whatever it does.
    pub life: Option<Duration>,
    /// How long one may last without a byte.
    pub idle: Option<Duration>,
    /// Bytes of one direction that may be on their way.
    pub buffer: usize,
    /// Whether bytes may stay in the kernel.
    pub splice: bool,
}

impl Limits {
    /// From options; `life` unless they say something else.
    pub fn new(options: &Options, life: Option<Duration>) -> Self {
        let time = |key: &str, default: Option<Duration>| match options.text(key) {
            None => default,
            Some("-1") => None,
            Some(_) => options.duration(key),
        };
        Limits {
            connections: options.number("nconnect").unwrap_or(usize::MAX),
            life: time("timeout", life),
            idle: time("idle_timeout", None),
            buffer: options.number("buffer_size").unwrap_or(1 << 17),
            splice: options.text("splice") != Some("0"),
        }
    }
}

/// What has happened so far.
#[derive(Debug, Default)]
pub struct Counts {
    /// Connections that are open.
    pub now: AtomicU64,
    /// Connections that came.
    pub total: AtomicU64,
    /// Connections whose other side could not be made.
    pub failed: AtomicU64,
    /// Connections that could not be taken, for want of descriptors for example.
    pub refused: AtomicU64,
    /// Connections that were ended because their time was over.
    pub expired: AtomicU64,
    /// Bytes to the side that is made.
    pub bytes_out: AtomicU64,
    /// Bytes to the side that is received.
    pub bytes_in: AtomicU64,
}

/// What a tunnel's thread and its handle share.
pub struct Shared {
    /// Numbers.
    pub counts: Counts,
    /// Makes the thread look.
    pub wake: Wake,
    /// It has to end.
    pub stop: AtomicBool,
    /// Readable when there is something the program was not told yet.
    news: Arc<Wake>,
    unheard: Mutex<Unheard>,
}

/// What the program was not told yet.
struct Unheard {
    errors: VecDeque<Error>,
    /// The state of the destination it was told last.
    told: State,
}

impl Shared {
    /// Remembers the error of a connection.
    pub fn remember(&self, error: Error) {
        self.remember_and(error, || ());
    }

    /// Remembers an error and counts it: whoever sees the number finds the error, and whoever has the error the number.
    pub fn remember_and_count(&self, error: Error, counter: &AtomicU64) {
        self.remember_and(error, || {
            counter.fetch_add(1, Ordering::Release);
        });
    }

    fn remember_and(&self, error: Error, then: impl FnOnce()) {
        let mut unheard = self.unheard.lock();
        if unheard.errors.len() == ERRORS {
            unheard.errors.pop_front();
        }
        unheard.errors.push_back(error);
        self.news.set();
        then();
    }
}

/// A tunnel. Dropping it ends all its connections.
pub struct Tunnel {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    dest: Option<Arc<Dest>>,
    remote: Option<Box<Target>>,
    port: u16,
    fork: ForkGuard,
}

/// A tunnel that needs its destination first.
pub enum TunnelPlan {
    /// From I2P to a socket address.
    Server(Vec<Place>, Limits),
    /// From a listening socket to an I2P address.
    Client(TcpListener, Target, Limits),
}

impl TunnelPlan {
    /// From I2P to `target`, a port, HOST:PORT or path.
    pub fn server(target: &str, options: &Options) -> Result<Self> {
        options.check_owner(Owner::Tunnel)?;
        let places = places(target, "target")?;
        if options.text("bind").is_some() {
            return Err(Error::invalid("option bind is for tunnel clients"));
        }
        Ok(TunnelPlan::Server(places, Limits::new(options, None)))
    }

    /// From `listen`, a port or HOST:PORT, to `address` over I2P. Binds the port at once.
    pub fn client(listen: &str, address: &str, options: &Options) -> Result<Self> {
        options.check_owner(Owner::Tunnel)?;
        let target = Target::parse(address)?;
        let mut addresses = Vec::new();
        for place in places(&with_bind(listen, options)?, "listen")? {
            match place {
                Place::Tcp(address) => addresses.push(address),
                Place::Unix(_) => return Err(Error::invalid("listen is a port or HOST:PORT")),
            }
        }
        let system = |error| Error::io(Operation::None, &format!("cannot listen on {listen}"), &error);
        let listener = TcpListener::bind(&*addresses).map_err(system)?;
        listener.set_nonblocking(true).map_err(system)?;
        Ok(TunnelPlan::Client(listener, target, Limits::new(options, None)))
    }

    /// The tunnel, once its destination is there.
    pub fn begin(self, dest: Dest) -> Result<Tunnel> {
        let dest = Arc::new(dest);
        match self {
            TunnelPlan::Server(places, limits) => {
                let listener = Listener::open(&dest, 64, &Options::default())?;
                let make: MakeSend = Box::new(move || Ok(Send::Places(places.clone())));
                Tunnel::begin(Receive::Listener(listener), make, limits, Some(dest), None, 0)
            }
            TunnelPlan::Client(listener, target, limits) => {
                let port = listener.local_addr().map_or(0, |address| address.port());
                // In a child of fork(2) nobody would drop what the thread has.
                let (from, to) = (Arc::downgrade(&dest), target.wire().to_owned());
                let make: MakeSend = Box::new(move || {
                    let gone = || Error::closed(Operation::Connect, "the tunnel was closed");
                    let pending = from.upgrade().ok_or_else(gone)?.connect(&to, &Options::default(), Limit::Default)?;
                    Ok(Send::Pending(Box::new(pending)))
                });
                Tunnel::begin(Receive::Socket(listener.into()), make, limits, Some(dest), Some(target), port)
            }
        }
    }
}

/// The address of a target or a port to listen on: a bare port is one of 127.0.0.1.
fn places(text: &str, what: &str) -> Result<Vec<Place>> {
    let full = match text.bytes().all(|b| b.is_ascii_digit()) && !text.is_empty() {
        true => format!("127.0.0.1:{text}"),
        false => text.to_owned(),
    };
    if !full.starts_with('/') && !full.starts_with("unix:") && !full.contains(':') {
        return Err(Error::invalid(format!("{what} needs a port: PORT, HOST:PORT or [IPV6]:PORT")));
    }
    Endpoint::parse_local(&full)?.resolve()
}

fn with_bind(listen: &str, options: &Options) -> Result<String> {
    let bare = listen.bytes().all(|b| b.is_ascii_digit());
    match options.text("bind") {
        Some(bind) if bare && bind.contains(':') => Ok(format!("[{bind}]:{listen}")),
        Some(bind) if bare => Ok(format!("{bind}:{listen}")),
        Some(_) => Err(Error::invalid("option bind and a host in listen exclude each other")),
        None => Ok(listen.to_owned()),
    }
}

impl Tunnel {
    /// Starts the thread.
    pub fn begin(
        receive: Receive,
        make: MakeSend,
        limits: Limits,
        dest: Option<Arc<Dest>>,
        remote: Option<Target>,
        port: u16,
    ) -> Result<Self> {
        let system = |error| Error::io(Operation::None, "a descriptor for the tunnel", &error);
        let shared = Arc::new(Shared {
            counts: Counts::default(),
            wake: Wake::new().map_err(system)?,
            stop: AtomicBool::new(false),
            news: Arc::new(Wake::new().map_err(system)?),
            unheard: Mutex::new(Unheard { errors: VecDeque::new(), told: State::Ready }),
        });
        let presence = dest.as_ref().map(|dest| Arc::clone(dest.presence()));
        if let Some(presence) = &presence {
            presence.tell(&shared.news);
            if presence.state().0 != State::Ready {
                shared.news.set();
            }
        }
        let tunneling = Tunneling::new(Arc::clone(&shared), receive, make, limits, presence)?;
        let builder = std::thread::Builder::new().name("i2psock-tunnel".into());
        // Signals belong to the program's own threads; and splice(2) knows no MSG_NOSIGNAL.
        let thread = sys::with_signals_blocked(|| builder.spawn(move || tunneling.run()));
        let thread = thread.map_err(|error| Error::io(Operation::None, "a thread for the tunnel", &error))?;
        Ok(Tunnel {
            shared,
            thread: Mutex::new(Some(thread)),
            dest,
            remote: remote.map(Box::new),
            port,
            fork: ForkGuard::new(),
        })
    }

    /// Starts opening a tunnel on a destination of its own.
    pub fn open(
        controller: &Arc<Controller>,
        name: &str,
        plan: TunnelPlan,
        options: &Options,
        limit: Limit,
    ) -> Result<Pending> {
        let mut dest = options.only(Owner::Dest);
        if dest.text("recover").is_none() {
            // A tunnel is to outlive the router, with a name or without.
            dest.set("recover", "1")?;
        }
        Ok(controller.open_dest(name, 1, &dest, limit)?.then(plan))
    }

    /// The error for whatever is tried in a child of fork(2).
    pub fn check_process(&self) -> Result<()> {
        match self.fork.in_child() {
            true => Err(Error::state("this process is a child of the one that opened the tunnel")),
            false => Ok(()),
        }
    }

    /// Its destination, if it has one of its own.
    pub fn dest(&self) -> Option<&Arc<Dest>> {
        self.dest.as_ref()
    }

    /// Where it leads to over I2P.
    pub fn remote(&self) -> Option<&Target> {
        self.remote.as_deref()
    }

    /// The port it listens on; 0: none.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What has happened so far.
    pub fn counts(&self) -> &Counts {
        &self.shared.counts
    }

    /// Descriptor that is readable while `state` or `next_error` has something new to tell.
    pub fn fd(&self) -> RawFd {
        self.shared.news.as_raw_fd()
    }

    /// The state of its destination, if it has one of its own, and why there is no session.
    pub fn state(&self) -> Option<(State, Option<Error>)> {
        let (state, _, cause) = self.dest.as_ref()?.presence().state();
        if !self.fork.in_child() {
            let mut unheard = self.shared.unheard.lock();
            unheard.told = state;
            self.calm(&unheard);
        }
        Some((state, cause))
    }

    /// The oldest error of a connection that was not asked for yet.
    pub fn next_error(&self) -> Option<Error> {
        if self.fork.in_child() {
            // Whoever had the lock is not here.
            return None;
        }
        let mut unheard = self.shared.unheard.lock();
        let error = unheard.errors.pop_front();
        self.calm(&unheard);
        error
    }

    /// Makes the descriptor unreadable if there is nothing new.
    fn calm(&self, unheard: &Unheard) {
        if unheard.errors.is_empty() {
            // Looked at afterwards: a change that comes in between must not be lost.
            self.shared.news.clear();
            if self.dest.as_ref().is_some_and(|dest| dest.presence().state().0 != unheard.told) {
                self.shared.news.set();
            }
        }
    }

    /// Ends all connections and waits for the thread.
    pub fn close(&self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.wake.set();
        let thread = self.thread.lock().take();
        if let Some(thread) = thread.filter(|_| !worker::is_worker_of(&*self.shared)) {
            // It has no panics of its own; one in the program's function is the program's.
            drop(thread.join());
        }
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        if self.fork.in_child() {
            self.shared.wake.abandon();
            self.shared.news.abandon();
            // The handle of a thread that is not here.
            if let Some(thread) = self.thread.try_lock().and_then(|mut thread| thread.take()) {
                std::mem::forget(thread);
            }
        } else {
            self.close();
        }
    }
}

impl Receive {
    /// A socket of the program's, which must be bound and listening.
    pub fn foreign(fd: RawFd) -> Result<Self> {
        match sys::is_listening(fd) {
            Ok(true) => Ok(Receive::Foreign(fd)),
            Ok(false) => Err(Error::invalid("receive is no stream socket that is bound and listening")),
            Err(error) => Err(Error::invalid(format!("receive is no socket: {error}"))),
        }
    }

    /// The destination of a listener.
    pub fn presence(&self) -> Option<&Arc<Presence>> {
        match self {
            Receive::Listener(listener) => Some(listener.presence()),
            Receive::Borrowed(listener) => Some(listener.presence()),
            Receive::Socket(_) | Receive::Foreign(_) => None,
        }
    }

    /// The next connection, if there is one.
    pub fn take(&self) -> Result<Option<End>> {
        let fd = match self {
            Receive::Listener(listener) => return Ok(listener.accept()?.map(End::Stream)),
            Receive::Borrowed(listener) => return Ok(listener.accept()?.map(End::Stream)),
            Receive::Socket(fd) => fd.as_raw_fd(),
            Receive::Foreign(fd) => *fd,
        };
        match sys::accept_now(fd) {
            Ok(socket) => {
                sys::set_nodelay(socket.as_raw_fd());
                Ok(Some(End::Socket(socket)))
            }
            Err(error) if sys::would_block(&error) => Ok(None),
            // That one is gone already; the next may be there.
            Err(error) if error.raw_os_error() == Some(libc::ECONNABORTED) => Ok(None),
            Err(error) => Err(Error::io(Operation::Accept, "accept", &error)),
        }
    }
}

impl AsRawFd for Receive {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Receive::Listener(listener) => listener.fd(),
            Receive::Borrowed(listener) => listener.fd(),
            Receive::Socket(fd) => fd.as_raw_fd(),
            Receive::Foreign(fd) => *fd,
        }
    }
}
