//! A lookup as an operation, for a destination or for a whole controller.
//!
//! Lookups do not wait for each other, although a control socket takes one command at a time: one that finds it busy
//! goes on a connection of its own.
//!
//! ```text
//!   control socket idle ---> on the control socket ------------------> answer
//!   busy, or no session ---> on a connection of its own -------------> answer
//!                                 | not found there, and there is a session
//!                                 '---> in turn on the control socket -> answer
//! ```
//!
//! The last step is for routers that resolve nothing (emissary), or no hashes (i2pd), without a session.

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Instant;

use crate::core::bridge::{Bridge, BridgeConnection, OwnLookup};
use crate::core::drive::{after, Attended, Deadline, Interest, Job, Limit, Pending, Stage};
use crate::core::session::lookup_ticket::Ticket;
use crate::core::session::session::Session;
use crate::error::{Error, Operation, Result, Status};
use crate::identity::Address;
use crate::protocol::control::Answer;
use crate::protocol::line::Fields;
use crate::protocol::request::Request;
use crate::sys;

/// On whose behalf a name is looked up.
pub(crate) trait LookupOwner: Send {
    /// Fails once it has ended, and the lookup with it.
    fn check(&self) -> Result<()>;

    /// A session to ask, if there is a live one.
    fn session(&self) -> Option<Arc<Session>>;

    /// Prepares a connection that ends with the owner.
    fn connection(&self, request: Request) -> Result<BridgeConnection>;

    /// Called with what was found for `name`, which is in its wire form.
    fn found(&self, _name: &str, _address: &Address, _now: Instant) {}
}

impl LookupOwner for Arc<Session> {
    fn check(&self) -> Result<()> {
        self.check_alive(Operation::Lookup)
    }

    fn session(&self) -> Option<Arc<Session>> {
        Some(Arc::clone(self))
    }

    fn connection(&self, request: Request) -> Result<BridgeConnection> {
        Session::connection(self, request)
    }

    fn found(&self, name: &str, address: &Address, now: Instant) {
        Session::found(self, name, address, now);
    }
}

pub(crate) struct Lookup {
    bridge: Arc<Bridge>,
    owner: Box<dyn LookupOwner>,
    /// In its wire form.
    name: String,
    until: Deadline,
    at: At,
    /// The session that is asked, or that has to be attended to meanwhile.
    session: Option<Arc<Session>>,
    /// Whether a connection of its own was tried.
    tried_alone: bool,
    generation: u64,
    fields: Option<Fields>,
}

enum At {
    Start,
    ControlSocket(Ticket),
    Alone(OwnLookup),
}

/// The way to ask.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// On the control socket if it is idle, else alone.
    Best,
    /// On a connection of its own.
    Alone,
    /// On the control socket, after whatever waits there.
    InTurn,
}

impl Lookup {
    /// Asks for `name`, which is in its wire form, and starts the operation.
    pub(crate) fn start(
        bridge: &Arc<Bridge>,
        owner: Box<dyn LookupOwner>,
        name: &str,
        limit: Limit,
        now: Instant,
    ) -> Result<Pending<Address>> {
        let limit = limit.or(bridge.timeouts.lookup);
        let mut lookup = Lookup {
            bridge: Arc::clone(bridge),
            owner,
            name: name.to_owned(),
            until: after(limit, now),
            at: At::Start,
            session: None,
            tried_alone: false,
            generation: 0,
            fields: None,
        };
        // Only the session itself knows who it is.
        lookup.ask(if name == "ME" { Way::InTurn } else { Way::Best }, now)?;
        Ok(Pending::begin(&bridge.process, Operation::Lookup, lookup, limit, now))
    }

    /// Starts the operation for a session, whose end is the end of the lookup.
    pub(crate) fn begin(session: &Arc<Session>, name: &str, limit: Limit, now: Instant) -> Result<Pending<Address>> {
        Lookup::start(session.bridge(), Box::new(Arc::clone(session)), name, limit, now)
    }

    fn ask(&mut self, way: Way, now: Instant) -> Result<()> {
        // What was asked before is over.
        self.at = At::Start;
        let (at, session) = loop {
            self.owner.check()?;
            let session = self.owner.session();
            let asked = match (&session, way) {
                (None, _) | (_, Way::Alone) => Ok(None),
                (Some(session), Way::InTurn) => session.lookup(&self.name, now).map(Some),
                (Some(session), Way::Best) => session.lookup_if_idle(&self.name, self.until, now),
            };
            match asked {
                Ok(Some(ticket)) => break (At::ControlSocket(ticket), session),
                Ok(None) => {
                    let connection = self.owner.connection(Request::Lookup { name: self.name.clone() })?;
                    self.tried_alone = true;
                    break (At::Alone(self.bridge.lookups.begin(Box::new(connection), self.until)?), session);
                }
                // The session has ended in between: try another.
                Err(error) if error.status == Status::Closed => {}
                Err(error) => return Err(error),
            }
        };
        (self.at, self.session) = (at, session);
        self.generation += 1;
        Ok(())
    }

    fn answer(&self, now: Instant) -> Option<Answer> {
        match &self.at {
            At::Start => None,
            At::Alone(own) => own.step(now),
            At::ControlSocket(ticket) => {
                let answer = ticket.slot.take();
                if answer.is_none() {
                    // The events the control socket needs change: once the command is out, it no longer waits to write.
                    // If it is closed, the answer is about to arrive.
                    let control = self.session.as_ref().and_then(|session| session.control());
                    if let (Some(watch), Some((control, events))) = (&ticket.watch, control) {
                        drop(watch.modify(&*control, events));
                    }
                }
                answer
            }
        }
    }

    /// Asks in another way after `error`, or fails with it.
    fn retry(&mut self, error: Error, now: Instant) -> Result<()> {
        match self.at {
            // The session has ended or is about to. One of the controller's goes on elsewhere.
            At::ControlSocket(_) if error.status == Status::Closed => {
                self.owner.check()?;
                let same = |next: &Arc<Session>| self.session.as_ref().is_some_and(|asked| Arc::ptr_eq(asked, next));
                match self.owner.session() {
                    Some(next) if same(&next) && self.tried_alone => Err(error),
                    Some(next) if same(&next) => self.ask(Way::Alone, now),
                    _ => self.ask(Way::Best, now),
                }
            }
            At::Alone(_) => self.retry_with_session(error, now),
            _ => Err(error),
        }
    }

    fn retry_with_session(&mut self, error: Error, now: Instant) -> Result<()> {
        let unknown = matches!(error.tag.as_str(), "KEY_NOT_FOUND" | "INVALID_KEY");
        let reliable = is_host(&self.name) && self.bridge.resolves_alone();
        // Anything else the router has said would be said again; what failed on the way to it need not fail there.
        let vain = error.status == Status::Closed || (error.status == Status::Network && !unknown);
        if vain || (unknown && reliable) {
            return Err(error);
        }
        self.owner.check()?;
        match self.owner.session() {
            Some(_) => self.ask(Way::InTurn, now),
            None if unknown => {
                let message = format!("{}; it may only resolve names through an open destination", error.message);
                Err(Error { message, ..error })
            }
            None => Err(error),
        }
    }
}

fn is_host(name: &str) -> bool {
    !name.ends_with(".b32.i2p")
}

impl Job<Address> for Lookup {
    fn step(&mut self, now: Instant, _: Deadline) -> Result<Option<Address>> {
        loop {
            if let Some(session) = &self.session {
                session.attend(now);
            }
            let Some(answer) = self.answer(now) else { return Ok(None) };
            self.fields = answer.fields;
            match answer.result {
                Ok(address) => {
                    if matches!(self.at, At::Alone(_)) && is_host(&self.name) {
                        self.bridge.set_resolves_alone();
                    }
                    self.owner.found(&self.name, &address, now);
                    return Ok(Some(address));
                }
                Err(error) => self.retry(error, now)?,
            }
        }
    }

    fn interest(&self) -> Interest {
        let fd = match &self.at {
            At::Start => return Interest::NONE,
            At::ControlSocket(ticket) => ticket.watch.as_ref().map_or(ticket.slot.wake.as_raw_fd(), AsRawFd::as_raw_fd),
            At::Alone(own) => own.fd(),
        };
        Interest { fd, events: sys::IN }
    }

    fn generation(&self) -> u64 {
        self.generation
    }

    fn deadline(&self) -> Deadline {
        match &self.at {
            At::Alone(own) => own.deadline(),
            At::Start => None,
            At::ControlSocket(_) => self.session.as_ref().and_then(|session| session.attended_deadline()),
        }
    }

    fn stage(&self) -> Stage {
        match &self.at {
            At::Alone(own) => own.stage(),
            At::Start | At::ControlSocket(_) => Stage::Working,
        }
    }

    fn reply(&self) -> Option<&Fields> {
        self.fields.as_ref()
    }

    fn attended(&self) -> Option<Attended> {
        self.session.as_ref().and_then(|session| session.attended())
    }

    fn give_up(&mut self, _: Option<Address>) {
        if let (At::ControlSocket(ticket), Some(session)) = (&self.at, &self.session) {
            session.forget(ticket);
        }
        // Its place is for the next.
        self.at = At::Start;
    }
}
