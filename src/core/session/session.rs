//! One session on the router: its control socket, the sockets that end with it, and its abandoned accepts.

use std::sync::{Arc, Weak};
use std::time::Instant;

use crate::core::bridge::{Bridge, BridgeConnection, Finished};
use crate::core::drive::{earlier, log, Attended, Deadline, Driver, Scope};
use crate::core::session::abandoned_accepts::AcceptPool;
use crate::core::session::control_socket::ControlSocket;
use crate::core::session::datagram_port::DatagramPort;
use crate::core::session::last_session;
use crate::core::session::lookup_ticket::Ticket;
use crate::core::session::refusals::Refusals;
use crate::error::{Error, Operation, Result, Status};
use crate::identity::Address;
use crate::protocol::command;
use crate::protocol::datagram::SendOptions;
use crate::protocol::reply::ResultCode;
use crate::protocol::request::Request;
use crate::protocol::style::Style;
use crate::protocol::version::Version;
use crate::sys::lock::{Rank, RankedMutex};
use crate::sys::{SharedFd, Wake, Watch};

/// What a session gets from its destination and what outlives it: the descriptors that wake whatever drives it.
#[derive(Clone)]
pub struct Signals {
    /// Readable when the control socket, or anything else the destination waits for, needs attention.
    pub work: Arc<Watch>,
    /// Readable when there is something to report to the program.
    pub changed: Arc<Wake>,
    /// Drives the destination when `work` is readable.
    pub driver: Driver,
}

/// Everything needed to start a session.
pub struct NewSession {
    pub id: String,
    /// The address of the destination it belongs to.
    pub address: Address,
    pub style: Style,
    /// The result of the connection that created it.
    pub created: Finished,
    /// Set for datagram styles.
    pub port: Option<Arc<DatagramPort>>,
}

/// A session, alive or ended.
pub struct Session {
    bridge: Arc<Bridge>,
    id: String,
    address: Address,
    style: Style,
    version: Version,
    scope: Arc<Scope>,
    control_socket: RankedMutex<ControlSocket>,
    /// Only for use in a child of fork(2); everything else goes through `control_socket`.
    control_fd: Weak<SharedFd>,
    signals: Signals,
    accept_pool: AcceptPool,
    /// Set for datagram styles.
    port: Option<Arc<DatagramPort>>,
    refusals: RankedMutex<Refusals>,
}

impl Session {
    /// Starts a session on the connection that created it.
    pub fn begin(bridge: Arc<Bridge>, signals: Signals, new: NewSession, now: Instant) -> Result<Arc<Self>> {
        let address = new.address.clone();
        let result = Session::try_begin(bridge, signals, new, now);
        if result.is_err() {
            // The router has made it all the same.
            last_session::record(&address, now, &[]);
        }
        result
    }

    fn try_begin(bridge: Arc<Bridge>, signals: Signals, new: NewSession, now: Instant) -> Result<Arc<Self>> {
        let system = |error| Error::io(Operation::Create, "a descriptor for the session", &error);
        let _edge = log::edge();
        if let Some(port) = &new.port {
            let about_emissary = bridge.range().max > Version::V3_2 && new.created.version == Version::V3_2;
            port.check_router(new.style, about_emissary)?.into_iter().for_each(|note| bridge.log.line(|| note.into()));
        }
        let control_fd = Arc::downgrade(&new.created.socket);
        let version = new.created.version;
        let accept_pool = AcceptPool::new().map_err(system)?;
        let control_socket =
            ControlSocket::of_session(new.created, &new.address, new.port.clone(), bridge.timeouts.heartbeat, now);
        if let Some((fd, events)) = control_socket.awaited() {
            signals.work.set(&*fd, events).map_err(system)?;
        }
        if let Some(port) = &new.port {
            port.begin(&new.id, &new.address, now);
        }
        let scope = Arc::new(Scope::default());
        last_session::begin(&new.address, &bridge, &scope, now);
        Ok(Arc::new(Session {
            bridge,
            id: new.id,
            address: new.address,
            style: new.style,
            version,
            scope,
            control_socket: RankedMutex::new(Rank::ControlSocket, control_socket),
            control_fd,
            signals,
            accept_pool,
            port: new.port,
            refusals: RankedMutex::new(Rank::Refusals, Refusals::default()),
        }))
    }

    pub fn bridge(&self) -> &Arc<Bridge> {
        &self.bridge
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn style(&self) -> Style {
        self.style
    }

    pub fn version(&self) -> Version {
        self.version
    }

    /// The sockets that end with the session.
    pub fn scope(&self) -> &Arc<Scope> {
        &self.scope
    }

    /// The control socket and the events to wait for; `None` once it is closed.
    pub fn control(&self) -> Option<Attended> {
        self.control_socket.lock().awaited()
    }

    /// The control socket, if callers have to watch it because there is no keeper.
    pub fn attended(&self) -> Option<Attended> {
        if self.signals.driver.is_caller() {
            self.control()
        } else {
            None
        }
    }

    /// When callers have to run the control socket even without an event, because there is no keeper.
    pub fn attended_deadline(&self) -> Deadline {
        if self.signals.driver.is_caller() {
            self.deadline()
        } else {
            None
        }
    }

    /// Runs the control socket, if there is no keeper to do it.
    pub fn attend(&self, now: Instant) {
        if self.signals.driver.is_caller() {
            self.drive(now);
        }
    }

    /// When the control socket has to run even without an event.
    pub fn deadline(&self) -> Deadline {
        self.control_socket.lock().deadline()
    }

    /// Runs the control socket without blocking, and ends the session if it is lost.
    pub fn drive(&self, now: Instant) {
        let _edge = log::edge();
        let (lost, hurried) = self.with_control(|control_socket| {
            let before = control_socket.deadline();
            let lost = control_socket.run(now);
            (lost, earlier(before, control_socket.deadline()) != before)
        });
        if let Some(cause) = lost {
            self.lose(cause, now);
        } else if hurried {
            // The keeper may be asleep until later.
            self.signals.driver.poke();
        }
    }

    /// Ends the session because it is lost.
    pub fn lose(&self, cause: Error, now: Instant) {
        if self.scope.has_ended() {
            return;
        }
        let _edge = log::edge();
        let is_silent = cause.status == Status::Timeout;
        // For the program, any cause means that the session is closed.
        let cause = Error { status: Status::Closed, ..cause.during(Operation::Session) };
        self.bridge.log.line(|| format!("session lost: {}", cause.message));
        self.finish(cause, false, now);
        if is_silent {
            last_session::doubt(&self.address);
        }
    }

    /// Runs `act` on the control socket, logs the conversation, and updates the events that `work` watches it for.
    fn with_control<T>(&self, act: impl FnOnce(&mut ControlSocket) -> T) -> T {
        let mut control_socket = self.control_socket.lock();
        control_socket.trace().want(self.bridge.log.is_wanted());
        let before = control_socket.events();
        let result = act(&mut control_socket);
        if let Some((fd, events)) = control_socket.awaited().filter(|(_, events)| *events != before) {
            // Cannot fail: the socket was added when the session started and is removed before it is closed.
            drop(self.signals.work.modify(&*fd, events));
        }
        self.bridge.log.lines(control_socket.trace().take());
        result
    }

    /// Ends the session and everything on it, including streams that carry payload if `all` is set. Wakes the driver,
    /// so that the destination notices.
    pub fn finish(&self, cause: Error, all: bool, now: Instant) {
        let first = !self.scope.has_ended();
        // Streams and accepts first, then the control socket, so that the router sees an orderly end.
        self.scope.end(cause, all);
        self.accept_pool.end();
        {
            let mut control_socket = self.control_socket.lock();
            if let Some((fd, _)) = control_socket.awaited() {
                // Closing alone would not remove it: a child of fork(2) may hold the same description.
                drop(self.signals.work.remove(&*fd));
            }
            if let Some(cause) = self.scope.cause() {
                control_socket.close(&cause);
            }
        }
        if first {
            last_session::record(&self.address, now, &self.scope.carrying());
        }
        self.bridge.lookups.nudge();
        self.signals.driver.announce(&self.signals.changed);
    }

    /// For a child of fork(2), where the session belongs to the parent: closes our copies of its descriptors and
    /// nothing else. What a thread of the parent had locked at the fork stays locked here and is left alone.
    pub fn abandon(&self) {
        if let Some(control) = self.control_fd.upgrade() {
            control.abandon();
        }
        self.accept_pool.abandon();
    }

    /// Fails if the session has ended.
    pub fn check_alive(&self, operation: Operation) -> Result<()> {
        self.scope.check(operation)
    }

    /// Starts a lookup on the control socket, after those that wait there.
    pub fn lookup(&self, name: &str, now: Instant) -> Result<Ticket> {
        self.lookup_with(|control_socket, watched| Some(control_socket.lookup(name, None, watched, now)))?
            .ok_or_else(|| Error::new(Status::Internal, Operation::Lookup, "a lookup that was not started"))
    }

    /// Starts a lookup on the control socket if no other is in progress there, and not too many are elsewhere.
    pub fn lookup_if_idle(&self, name: &str, until: Deadline, now: Instant) -> Result<Option<Ticket>> {
        self.lookup_with(|control_socket, watched| {
            let place = if control_socket.is_idle() { self.bridge.lookups.place(until, now)? } else { return None };
            Some(control_socket.lookup(name, Some(place), watched, now))
        })
    }

    fn lookup_with(
        &self,
        start: impl FnOnce(&mut ControlSocket, bool) -> Option<Result<Ticket>>,
    ) -> Result<Option<Ticket>> {
        let _edge = log::edge();
        let watched = self.signals.driver.is_caller();
        let asked = self.with_control(|control_socket| {
            control_socket.awaited()?;
            Some(start(control_socket, watched).transpose())
        });
        asked.unwrap_or_else(|| {
            self.check_alive(Operation::Lookup)?;
            Err(Error::closed(Operation::Lookup, "the session has ended"))
        })
    }

    /// Cancels a lookup.
    pub fn forget(&self, ticket: &Ticket) {
        self.control_socket.lock().forget(ticket.number);
    }

    /// Takes in what a lookup has found: datagrams to that name need not wait for it any more.
    pub fn found(&self, name: &str, address: &Address, now: Instant) {
        if let Some(port) = self.port.as_ref().filter(|_| name != "ME") {
            port.targets.keep_name(&self.id, name, address.clone(), now);
        }
    }

    /// Sends a datagram on the control socket; `false` if too much is queued there.
    pub fn send_in_band(&self, to: &Address, payload: &[u8], options: &SendOptions) -> Result<bool> {
        let port =
            self.port.as_ref().ok_or_else(|| Error::state("datagrams are for destinations of a datagram style"))?;
        let options = if self.version >= Version::V3_2 { options.or(&port.defaults) } else { *options };
        let command = command::datagram_send(self.style.word(), to, payload.len(), &options)?;
        let (line, max) = (command.bytes().len(), port.in_band_max);
        if line + payload.len() > max {
            let (len, room) = (payload.len(), max.saturating_sub(line));
            return Err(Error::invalid(format!(
                "a datagram of {len} bytes: {room} can be sent in band, as routers take {max} with the line before it \
                 (option in_band_max, if this one takes more)"
            )));
        }
        let _edge = log::edge();
        Ok(self.with_control(|control_socket| control_socket.send_datagram(&command, payload)))
    }

    /// Takes in what the answer to a command says about the session: a router that does not know its id has lost it.
    pub fn heard(&self, error: &Error, now: Instant) {
        if error.tag == ResultCode::InvalidId.token() {
            self.lose(lost(error), now);
        }
    }

    /// Takes in that an accept failed.
    pub fn accept_failed(&self, accept: &BridgeConnection, error: &Error, now: Instant) {
        self.heard(error, now);
        let refused = error.status == Status::Network && error.tag != ResultCode::AlreadyAccepting.token();
        let Some(asked) = accept.asked_at().filter(|_| refused) else { return };
        let dead = self.refusals.lock().add(asked, now);
        if dead {
            self.lose(lost(error), now);
        }
    }

    /// Takes in that there is a stream on this session, in whatever way it was made.
    pub fn stream_succeeded(&self) {
        *self.refusals.lock() = Refusals::default();
    }

    /// Prepares a connection for a request on this session; it ends with the session.
    pub fn connection(&self, request: Request) -> Result<BridgeConnection> {
        BridgeConnection::new(Arc::clone(&self.bridge), Arc::clone(&self.scope), request)
    }

    pub fn accept_pool(&self) -> &AcceptPool {
        &self.accept_pool
    }
}

/// A loss in the words of the router.
fn lost(error: &Error) -> Error {
    let message = format!("the session was lost: the router refuses it ({})", error.message);
    Error { tag: error.tag.clone(), ..Error::closed(Operation::Session, message) }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::core::settings::{ControllerOptions, Options};
    use crate::protocol::request::Outcome;

    /// As when descriptors are short: the router has made the session, and keeps its destination for a while.
    #[test]
    fn a_session_that_cannot_be_used_has_ended_all_the_same() {
        let now = Instant::now();
        let options = ControllerOptions::parse(&Options::default()).unwrap();
        let bridge = Arc::new(Bridge::new(options.bridge).unwrap());
        let signals = Signals {
            work: Arc::new(Watch::new().unwrap()),
            changed: Arc::new(Wake::new().unwrap()),
            driver: Driver::new(false).unwrap(),
        };
        let address = Address::from_bytes(&[&[120; 384][..], &[5, 0, 4, 0, 7, 0, 0]].concat()).unwrap();
        let created = Finished {
            outcome: Outcome::Checked,
            // It cannot be watched.
            socket: Arc::new(SharedFd::new(File::open("/proc/self/exe").unwrap().into())),
            version: Version::V3_3,
            surplus: Default::default(),
            hidden: Default::default(),
            unsent: Default::default(),
        };
        let new =
            NewSession { id: "x".to_owned(), address: address.clone(), style: Style::Stream, created, port: None };
        let delay = bridge.timeouts.reopen;
        assert!(Session::begin(bridge, signals, new, now).is_err());
        assert!(last_session::look_again(&address, delay, now).is_some());
    }
}
