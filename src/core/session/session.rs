//! One session on the router: its control socket, the sockets that end with it, and accepts that were given up.

use std::sync::{Arc, Weak};

use crate::core::bridge::{Bridge, BridgeConnection, Finished};
use crate::core::drive::{log, Attended, Driver, Scope};
use crate::core::session::abandoned_accepts::AcceptPool;
use crate::core::session::control_socket::ControlSocket;
use crate::core::session::datagram_port::DatagramPort;
use crate::core::session::lookup_ticket::Ticket;
use crate::error::{Error, Operation, Result, Status};
use crate::identity::Address;
use crate::protocol::command;
use crate::protocol::datagram::SendOptions;
use crate::protocol::request::Request;
use crate::protocol::style::Style;
use crate::protocol::version::Version;
use crate::sys::lock::{Rank, RankedMutex};
use crate::sys::{SharedFd, Wake, Watch};

/// What the destination of a session has for it, and what outlives the session: the descriptors that wake whoever drives
/// it.
#[derive(Clone)]
pub struct Signals {
    /// Readable when a control socket has something for us; watches whatever else the destination waits for, too.
    pub work: Arc<Watch>,
    /// Readable when there is news for the program.
    pub changed: Arc<Wake>,
    /// Who looks at `work`.
    pub driver: Driver,
}

/// Everything a session is made of when it begins.
pub struct NewSession {
    /// SAM id.
    pub id: String,
    /// What it carries.
    pub style: Style,
    /// The exchange that created it.
    pub created: Finished,
    /// Descriptor of datagrams.
    pub port: Option<Arc<DatagramPort>>,
}

/// A session, alive or ended.
pub struct Session {
    bridge: Arc<Bridge>,
    id: String,
    style: Style,
    version: Version,
    scope: Arc<Scope>,
    control_socket: RankedMutex<ControlSocket>,
    /// For a child of fork(2) only; all others go through the control socket.
    control_fd: Weak<SharedFd>,
    signals: Signals,
    accept_pool: AcceptPool,
}

impl Session {
    /// Begins a session on the connection that created it.
    pub fn begin(bridge: Arc<Bridge>, signals: Signals, birth: NewSession) -> Result<Arc<Self>> {
        let system = |error| Error::io(Operation::Create, "a descriptor for the session", &error);
        let control_fd = Arc::downgrade(&birth.created.socket);
        let version = birth.created.version;
        let accept_pool = AcceptPool::new().map_err(system)?;
        let control_socket = ControlSocket::new(birth.created, birth.port);
        if let Some((fd, events)) = control_socket.awaited() {
            signals.work.set(&*fd, events).map_err(system)?;
        }
        Ok(Arc::new(Session {
            bridge,
            id: birth.id,
            style: birth.style,
            version,
            scope: Arc::new(Scope::default()),
            control_socket: RankedMutex::new(Rank::ControlSocket, control_socket),
            control_fd,
            signals,
            accept_pool,
        }))
    }

    /// The bridge.
    pub fn bridge(&self) -> &Arc<Bridge> {
        &self.bridge
    }

    /// SAM id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What it carries.
    pub fn style(&self) -> Style {
        self.style
    }

    /// Version negotiated on the control socket.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Sockets that end with the session.
    pub fn scope(&self) -> &Arc<Scope> {
        &self.scope
    }

    /// The control socket and the events it needs; `None` once it is closed.
    pub fn control(&self) -> Option<Attended> {
        self.control_socket.lock().awaited()
    }

    /// The control socket, where the caller has to watch it because no thread of ours does.
    pub fn attended(&self) -> Option<Attended> {
        if self.signals.driver.is_caller() {
            self.control()
        } else {
            None
        }
    }

    /// Does what the control socket has for us, unless a thread of ours does.
    pub fn attend(&self) {
        if self.signals.driver.is_caller() {
            self.drive();
        }
    }

    /// Does what the control socket has for us.
    pub fn drive(&self) {
        let _edge = log::edge();
        let lost = self.with_control(ControlSocket::run);
        // Whatever the reason was: for the program the session has ended.
        if let Some(cause) = lost.map(|cause| Error { status: Status::Closed, ..cause }) {
            self.bridge.log.line(|| format!("session lost: {}", cause.message));
            self.finish(cause, false);
        }
    }

    /// Does something on the control socket, shows the conversation in the log, and keeps the descriptor that is waited on
    /// in step with what the control socket waits for.
    fn with_control<T>(&self, act: impl FnOnce(&mut ControlSocket) -> T) -> T {
        let mut control_socket = self.control_socket.lock();
        control_socket.trace().want(self.bridge.log.is_wanted());
        let result = act(&mut control_socket);
        if let Some((fd, events)) = control_socket.awaited() {
            // Cannot fail: the socket was added when the session began and is removed before it is closed.
            drop(self.signals.work.modify(&*fd, events));
        }
        self.bridge.log.lines(control_socket.trace().take());
        result
    }

    /// Ends the session and everything on it; with `all`, streams that carry payload too. Whoever cares for the
    /// destination has to look at it again.
    pub fn finish(&self, cause: Error, all: bool) {
        // Streams and accepts first, then the control socket: the router sees an orderly end.
        self.scope.end(cause, all);
        self.accept_pool.end();
        {
            let mut control_socket = self.control_socket.lock();
            if let Some((fd, _)) = control_socket.awaited() {
                // The description may live on in a child of fork(2): closing alone would not remove it.
                drop(self.signals.work.remove(&*fd));
            }
            if let Some(cause) = self.scope.cause() {
                control_socket.close(&cause);
            }
        }
        self.signals.driver.announce(&self.signals.changed);
    }

    /// In a child of fork(2) the session is the parent's: our copies of its descriptors are closed and nothing else.
    /// What another thread of the parent had locked at that moment stays locked here, and is left alone.
    pub fn abandon(&self) {
        if let Some(control) = self.control_fd.upgrade() {
            control.abandon();
        }
        self.accept_pool.abandon();
    }

    /// The error for whatever is tried on a session that has ended.
    pub fn check_alive(&self, operation: Operation) -> Result<()> {
        self.scope.check(operation)
    }

    /// Asks the session's own connection for a name.
    pub fn lookup(&self, name: &str) -> Result<Ticket> {
        let _edge = log::edge();
        let watched = self.signals.driver.is_caller();
        let asked = self.with_control(|control_socket| {
            control_socket.awaited()?;
            Some(control_socket.lookup(name, watched))
        });
        asked.unwrap_or_else(|| {
            self.check_alive(Operation::Lookup)?;
            Err(Error::closed(Operation::Lookup, "the session has ended"))
        })
    }

    /// The answer to this lookup is not wanted any more.
    pub fn forget(&self, ticket: &Ticket) {
        self.control_socket.lock().forget(ticket.number);
    }

    /// Sends a datagram on the control socket; `false` when too much is queued there.
    pub fn send_in_band(&self, to: &Address, payload: &[u8], options: &SendOptions) -> Result<bool> {
        let command = command::datagram_send(self.style.word(), to, payload.len(), options)?;
        let _edge = log::edge();
        Ok(self.with_control(|control_socket| control_socket.send_datagram(&command, payload)))
    }

    /// A connection that asks the bridge for something on this session, and ends with it.
    pub fn connection(&self, request: Request) -> Result<BridgeConnection> {
        BridgeConnection::new(Arc::clone(&self.bridge), Arc::clone(&self.scope), request)
    }

    /// Accepts that wait and that were given up.
    pub fn accept_pool(&self) -> &AcceptPool {
        &self.accept_pool
    }
}
