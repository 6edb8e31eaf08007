//! One session: its control socket (driven by one engine), the sockets that live and die with it, accepts that were
//! given up, and what the program is told about its state.

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::address::Address;
use crate::core::acceptors::Acceptors;
use crate::core::bridge::Bridge;
use crate::core::engine::Engine;
use crate::core::exchange::Finished;
use crate::core::keeper::Keeper;
use crate::core::lookup::Ticket;
use crate::core::port::Port;
use crate::core::scope::Scope;
use crate::error::{Error, Operation, Result, Status};
use crate::keys::Keys;
use crate::protocol::command;
use crate::protocol::datagram::SendOptions;
use crate::protocol::Version;
use crate::sys::{self, SharedFd, Wake, Watch};

/// What a session carries; the numbers are the C constants and i2p.sam's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Style {
    /// Streams.
    Stream = 1,
    /// Repliable datagrams.
    Datagram = 2,
    /// Raw datagrams.
    Raw = 3,
    /// Repliable datagrams that cannot be replayed.
    Datagram2 = 4,
    /// Datagrams with the hash of an unverified sender.
    Datagram3 = 5,
}

impl Style {
    /// The style with this number.
    pub fn from_number(number: i32) -> Result<Self> {
        match number {
            1 => Ok(Style::Stream),
            2 => Ok(Style::Datagram),
            3 => Ok(Style::Raw),
            4 => Ok(Style::Datagram2),
            5 => Ok(Style::Datagram3),
            _ => Err(Error::invalid(format!("there is no style {number}"))),
        }
    }

    /// The word SAM uses.
    pub fn word(self) -> &'static str {
        match self {
            Style::Stream => "STREAM",
            Style::Datagram => "DATAGRAM",
            Style::Raw => "RAW",
            Style::Datagram2 => "DATAGRAM2",
            Style::Datagram3 => "DATAGRAM3",
        }
    }
}

/// Life of a session as a program sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum State {
    /// The bridge is being reached.
    Connecting = 1,
    /// Tunnels are being built.
    Building = 2,
    /// Streams can be opened.
    Ready = 3,
    /// The session was lost and is being opened again.
    Recovering = 4,
    /// The session has ended.
    Dead = 5,
}

/// Everything a session is made of when it begins.
pub struct Birth {
    /// SAM id.
    pub id: String,
    /// What it carries.
    pub style: Style,
    /// i2p.sam's session name; empty for a transient one.
    pub name: String,
    /// Label on the router.
    pub nickname: String,
    /// Private keys.
    pub keys: Keys,
    /// The exchange that created it.
    pub created: Finished,
    /// Descriptor of datagrams.
    pub port: Option<Arc<Port>>,
}

/// A live session.
pub struct Session {
    bridge: Arc<Bridge>,
    id: String,
    style: Style,
    name: String,
    nickname: String,
    keys: Keys,
    version: Version,
    scope: Arc<Scope>,
    engine: Mutex<Engine>,
    /// For a child of fork(2) only; everybody else goes through the engine.
    control: Arc<SharedFd>,
    port: Option<Arc<Port>>,
    keeper: Option<Arc<Keeper>>,
    acceptors: Acceptors,
    changes: Mutex<Changes>,
    changed: Wake,
    /// Only without a keeper: then the control socket must be watched by the program.
    watch: Option<Watch>,
}

struct Changes {
    state: State,
    unseen: VecDeque<State>,
}

impl Session {
    /// Begins a session on the connection that created it.
    pub fn begin(bridge: Arc<Bridge>, keeper: Option<Arc<Keeper>>, birth: Birth) -> Result<Arc<Self>> {
        let system = |error| Error::io(Operation::Create, "a descriptor for the session", &error);
        let changed = Wake::new().map_err(system)?;
        let control = birth.created.socket.as_raw_fd();
        let watch = match keeper {
            Some(_) => None,
            None => {
                let watch = Watch::new().map_err(system)?;
                watch.add(changed.as_raw_fd(), sys::IN).and_then(|()| watch.add(control, sys::IN)).map_err(system)?;
                Some(watch)
            }
        };
        changed.set();
        let session = Arc::new(Session {
            bridge,
            id: birth.id,
            style: birth.style,
            name: birth.name,
            nickname: birth.nickname,
            keys: birth.keys,
            version: birth.created.version,
            scope: Arc::new(Scope::default()),
            control: Arc::clone(&birth.created.socket),
            engine: Mutex::new(Engine::new(birth.created, birth.port.clone())),
            port: birth.port,
            keeper,
            acceptors: Acceptors::new().map_err(system)?,
            changes: Mutex::new(Changes { state: State::Ready, unseen: VecDeque::from([State::Ready]) }),
            changed,
            watch,
        });
        if let Some(port) = &session.port {
            // The descriptor ends with the session, which wakes whoever waits on it.
            session.scope.add(&port.socket)?;
        }
        if let Some(keeper) = &session.keeper {
            keeper.add(&session)?;
        }
        session.drive();
        Ok(session)
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

    /// Session name; empty for a transient one.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Label on the router.
    pub fn nickname(&self) -> &str {
        &self.nickname
    }

    /// Private keys.
    pub fn keys(&self) -> &Keys {
        &self.keys
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
        self.keeper.is_some()
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
        let Some(cause) = lost.map(|cause| Error { status: Status::Closed, ..cause }) else { return true };
        log.push(format!("session lost: {}", cause.message));
        self.finish(cause, false);
        false
    }

    /// Keeps the program's descriptor in step with what the control socket waits for.
    fn follow(&self, engine: &Engine) {
        if let (Some(watch), Some((fd, events))) = (&self.watch, engine.interest()) {
            // Cannot fail: the socket was added when the session began and is removed before it is closed.
            drop(watch.modify(fd, events));
        }
    }

    /// Ends the session and everything on it.
    pub fn end(self: &Arc<Self>, message: &str) {
        self.finish(Error::closed(Operation::Session, message), true);
        if let Some(keeper) = &self.keeper {
            keeper.remove(self);
        }
    }

    /// In a child of fork(2) the session is the parent's: our copies of its descriptors are closed and nothing else.
    /// What another thread of the parent had locked at that moment stays locked here, and is left alone.
    pub fn abandon(self: &Arc<Self>) {
        self.control.close_now();
        self.changed.abandon();
        self.acceptors.abandon();
        if let Some(keeper) = &self.keeper {
            keeper.abandon(self);
        }
    }

    fn finish(&self, cause: Error, all: bool) {
        // Streams and accepts first, then the control socket: the router sees an orderly end.
        self.scope.end(cause, all);
        self.acceptors.end();
        {
            let mut engine = self.engine.lock();
            if let (Some(watch), Some((fd, _))) = (&self.watch, engine.interest()) {
                // The description may live on in a child of fork(2): closing alone would not remove it.
                drop(watch.remove(fd));
            }
            if let Some(cause) = self.scope.cause() {
                engine.close(&cause);
            }
        }
        let mut changes = self.changes.lock();
        if changes.state != State::Dead {
            changes.state = State::Dead;
            changes.unseen.push_back(State::Dead);
            self.changed.set();
        }
    }

    /// The error for whatever is tried on a session that has ended.
    pub fn check_alive(&self, operation: Operation) -> Result<()> {
        match self.scope.cause() {
            Some(cause) => Err(cause.during(operation)),
            None => Ok(()),
        }
    }

    /// Descriptor that is readable while `service` has something to do or to report.
    pub fn fd(&self) -> RawFd {
        self.watch.as_ref().map_or(self.changed.as_raw_fd(), AsRawFd::as_raw_fd)
    }

    /// Present state, and why it is what it is when it is not ready.
    pub fn state(&self) -> (State, Option<Error>) {
        match self.scope.cause() {
            Some(cause) => (State::Dead, Some(cause)),
            None => (self.changes.lock().state, None),
        }
    }

    /// Does pending work on the control socket (without a keeper) and returns the next unreported change.
    pub fn service(&self) -> Option<State> {
        if !self.has_keeper() {
            self.drive();
        }
        let mut changes = self.changes.lock();
        let change = changes.unseen.pop_front();
        if changes.unseen.is_empty() {
            self.changed.clear();
        }
        change
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
        self.poke();
        Ok(ticket)
    }

    /// Nobody waits for this lookup any more.
    pub fn forget(&self, ticket: &Ticket) {
        self.engine.lock().forget(ticket.number);
    }

    /// Descriptor of datagrams.
    pub fn port(&self) -> Option<&Arc<Port>> {
        self.port.as_ref()
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
        self.poke();
        Ok(sent)
    }

    /// The keeper has to look at what the control socket waits for.
    fn poke(&self) {
        if let Some(keeper) = &self.keeper {
            keeper.poke();
        }
    }

    /// Accepts that wait and that were given up.
    pub fn acceptors(&self) -> &Acceptors {
        &self.acceptors
    }
}
