//! One session on the router: its control socket (driven by one engine), the sockets that live and die with it, and
//! accepts that were given up.

use std::os::fd::RawFd;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::core::bridge::{Bridge, BridgeConnection, Finished};
use crate::core::drive::{Keeper, Scope};
use crate::core::session::accept_pool::AcceptPool;
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
use crate::sys::{SharedFd, Wake, Watch};

/// What belongs to the destination of a session and outlives it.
#[derive(Clone)]
pub struct Home {
    /// Readable when a control socket has something for us; watches whatever else the destination waits for, too.
    pub work: Arc<Watch>,
    /// Readable when there is news for the program.
    pub changed: Arc<Wake>,
    /// The thread that looks at `work`, if there is one.
    pub keeper: Option<Arc<Keeper>>,
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
    engine: Mutex<ControlSocket>,
    /// For a child of fork(2) only; everybody else goes through the engine.
    control: Arc<SharedFd>,
    home: Home,
    acceptors: AcceptPool,
}

impl Session {
    /// Begins a session on the connection that created it.
    pub fn begin(bridge: Arc<Bridge>, home: Home, birth: NewSession) -> Result<Arc<Self>> {
        let system = |error| Error::io(Operation::Create, "a descriptor for the session", &error);
        let control = Arc::clone(&birth.created.socket);
        let version = birth.created.version;
        let acceptors = AcceptPool::new().map_err(system)?;
        let engine = ControlSocket::new(birth.created, birth.port);
        if let Some((fd, events)) = engine.interest() {
            home.work.set(fd, events).map_err(system)?;
        }
        Ok(Arc::new(Session {
            bridge,
            id: birth.id,
            style: birth.style,
            version,
            scope: Arc::new(Scope::default()),
            engine: Mutex::new(engine),
            control,
            home,
            acceptors,
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

    /// Whether a thread of ours reads the control socket.
    pub fn has_keeper(&self) -> bool {
        self.home.keeper.is_some()
    }

    /// The control socket and the events it needs; `None` once it is gone.
    pub fn control(&self) -> Option<(RawFd, i16)> {
        self.engine.lock().interest()
    }

    /// Does what the control socket has for us and shows the conversation to the program.
    pub fn drive(&self) {
        let mut log = Vec::new();
        self.run(&mut log);
        self.bridge.log.lines(log);
    }

    /// Does what the control socket has for us. Returns whether the session is still alive.
    pub fn run(&self, log: &mut Vec<String>) -> bool {
        let lost = {
            let mut engine = self.engine.lock();
            engine.trace().want(self.bridge.log.is_wanted());
            let lost = engine.run();
            self.follow(&engine);
            log.append(&mut engine.trace().take());
            lost
        };
        // Whatever the reason was: for the program the session has ended.
        let Some(cause) = lost.map(|cause| Error { status: Status::Closed, ..cause }) else {
            return self.scope.cause().is_none();
        };
        log.push(format!("session lost: {}", cause.message));
        self.finish(cause, false);
        false
    }

    /// Keeps the descriptor that is waited on in step with what the control socket waits for.
    fn follow(&self, engine: &ControlSocket) {
        if let Some((fd, events)) = engine.interest() {
            // Cannot fail: the socket was added when the session began and is removed before it is closed.
            drop(self.home.work.modify(fd, events));
        }
    }

    /// Ends the session and everything on it; with `all`, streams that carry payload too. Whoever cares for the
    /// destination has to look at it again.
    pub fn finish(&self, cause: Error, all: bool) {
        // Streams and accepts first, then the control socket: the router sees an orderly end.
        self.scope.end(cause, all);
        self.acceptors.end();
        {
            let mut engine = self.engine.lock();
            if let Some((fd, _)) = engine.interest() {
                // The description may live on in a child of fork(2): closing alone would not remove it.
                drop(self.home.work.remove(fd));
            }
            if let Some(cause) = self.scope.cause() {
                engine.close(&cause);
            }
        }
        match &self.home.keeper {
            Some(keeper) => keeper.poke(),
            // Nobody else looks.
            None => self.home.changed.set(),
        }
    }

    /// In a child of fork(2) the session is the parent's: our copies of its descriptors are closed and nothing else.
    /// What another thread of the parent had locked at that moment stays locked here, and is left alone.
    pub fn abandon(&self) {
        self.control.close_now();
        self.acceptors.abandon();
    }

    /// The error for whatever is tried on a session that has ended.
    pub fn check_alive(&self, operation: Operation) -> Result<()> {
        match self.scope.cause() {
            Some(cause) => Err(cause.during(operation)),
            None => Ok(()),
        }
    }

    /// Asks the session's own connection for a name.
    pub fn lookup(&self, name: &str) -> Result<Ticket> {
        let (ticket, log) = {
            let mut engine = self.engine.lock();
            if engine.interest().is_none() {
                drop(engine);
                self.check_alive(Operation::Lookup)?;
                return Err(Error::closed(Operation::Lookup, "the session has ended"));
            }
            engine.trace().want(self.bridge.log.is_wanted());
            let ticket = engine.lookup(name, !self.has_keeper())?;
            self.follow(&engine);
            (ticket, engine.trace().take())
        };
        self.bridge.log.lines(log);
        Ok(ticket)
    }

    /// Nobody waits for this lookup any more.
    pub fn forget(&self, ticket: &Ticket) {
        self.engine.lock().forget(ticket.number);
    }

    /// Sends a datagram on the control socket; `false` when too much is queued there.
    pub fn send_in_band(&self, to: &Address, payload: &[u8], options: &SendOptions) -> Result<bool> {
        let command = command::datagram_send(self.style.word(), to, payload.len(), options)?;
        let (sent, log) = {
            let mut engine = self.engine.lock();
            engine.trace().want(self.bridge.log.is_wanted());
            let sent = engine.send_datagram(&command, payload);
            self.follow(&engine);
            (sent, engine.trace().take())
        };
        self.bridge.log.lines(log);
        Ok(sent)
    }

    /// A connection that asks the bridge for something on this session, and ends with it.
    pub fn exchange(&self, request: Request) -> Result<BridgeConnection> {
        BridgeConnection::new(Arc::clone(&self.bridge), Arc::clone(&self.scope), request)
    }

    /// Accepts that wait and that were given up.
    pub fn acceptors(&self) -> &AcceptPool {
        &self.acceptors
    }
}
