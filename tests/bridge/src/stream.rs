//! STREAM CONNECT and ACCEPT.

use crate::config::{Personality, Version};
use crate::conn::{Conn, Flow, Kind};
use crate::destination::text;
use crate::faults::{Plan, Reply};
use crate::handler::{Handler, Next};
use crate::life::DIED;
use crate::line::Command;
use crate::naming::resolve;
use crate::relay::{Link, Side};
use crate::session::port;
use crate::shared::{lock, Forward, Outcome, Peer, Shared, Slot, State};
use crate::style::Style;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) const OK: &str = "STREAM STATUS RESULT=OK\n";

/// What Java says when nobody accepts.
const RESET: &str = "Connection reset";

/// How long that takes where nobody has ever accepted.
const RESET_TIME: Duration = Duration::from_millis(10);

/// Streams that may wait for an ACCEPT.
const MAX_PARKED: usize = 1024;

/// What is to be done with a stream.
enum Route {
    /// An ACCEPT was waiting.
    Linked(Arc<Link>, Arc<Slot>),
    Parked(Arc<Slot>),
    Forward(Forward),
    /// One of the sessions has gone.
    Gone,
}

/// The session a STREAM command names.
pub(crate) struct Own {
    pub(crate) id: String,
    pub(crate) serial: u64,
    pub(crate) public: Vec<u8>,
}

/// The line that names the connecting side.
fn peer_line(shared: &Shared, peer: &Peer, version: Version) -> String {
    if shared.config.personality == Personality::Java && version >= Version::V3_2 {
        format!("{} FROM_PORT={} TO_PORT={}\n", peer.destination, peer.from_port, peer.to_port)
    } else {
        format!("{}\n", peer.destination)
    }
}

/// Puts two sockets together and makes them part of their sessions.
pub(crate) fn link(state: &mut State, connecting: &Slot, target: &str, accepting: &Slot) -> Arc<Link> {
    let link = Link::new(&connecting.conn, &accepting.conn);
    let own = connecting.peer.session.as_str();
    for (id, slot) in [(own, connecting), (target, accepting)] {
        if let Some(session) = state.sessions.get_mut(id) {
            session.streams.insert(slot.conn.id, Arc::clone(&slot.conn));
        }
    }
    link
}

/// A socket is no longer one of the session's streams.
pub(crate) fn leave(shared: &Shared, conn: &Conn, id: &str, serial: u64) {
    let public = {
        let mut state = lock(&shared.state);
        let session = state.session_mut(id, serial);
        session.and_then(|s| s.streams.remove(&conn.id).map(|_| s.public.clone()))
    };
    if let Some(public) = public {
        shared.stream_ended(&public);
    }
}

impl Handler {
    /// Any STREAM command.
    pub(crate) fn stream(&mut self, command: &Command, carriage_return: bool) -> Next {
        let personality = self.shared.config.personality;
        let kind = match command.action.as_str() {
            "CONNECT" => Reply::StreamConnect,
            "ACCEPT" => Reply::StreamAccept,
            "FORWARD" => Reply::StreamForward,
            _ => return self.unknown(command),
        };
        if self.conn.session().is_some() {
            return match personality {
                Personality::Emissary => Next::Continue,
                Personality::Java => self.stream_error(kind, "I2P_ERROR", "Socket already in use"),
                _ => {
                    let plan = self.shared.plan(kind);
                    self.session_status(&plan, "I2P_ERROR", "Socket already in use");
                    Next::Close
                }
            };
        }
        if let Some(message) = command.error {
            return self.stream_error(kind, "I2P_ERROR", message);
        }
        let (mut style, mut dead) = (Style::Stream, false);
        let own = command.get("ID").and_then(|id| {
            let state = lock(&self.shared.state);
            let session = state.sessions.get(id).filter(|s| s.ready)?;
            (style, dead) = (session.mail.style, session.dead);
            (style == Style::Stream).then(|| Own {
                id: id.to_string(),
                serial: session.serial,
                public: session.public.clone(),
            })
        });
        let Some(own) = own else {
            return match personality {
                Personality::Emissary => Next::Close,
                Personality::Java if style != Style::Stream => {
                    self.stream_error(kind, "I2P_ERROR", "specified ID is not a STREAM session")
                }
                _ => self.stream_error(kind, "INVALID_ID", ""),
            };
        };
        let silent = command.get("SILENT").is_some_and(|v| match personality {
            Personality::Java => v.eq_ignore_ascii_case("true"),
            _ => v == "true",
        });
        match kind {
            _ if dead => self.dead(kind, silent),
            Reply::StreamConnect => self.connect(command, &own, silent, carriage_return),
            Reply::StreamAccept => self.accept(&own, silent),
            _ => self.forward(command, &own, silent),
        }
    }

    pub(crate) fn stream_error(&self, kind: Reply, result: &str, message: &str) -> Next {
        let plan = self.shared.plan(kind);
        self.stream_error_planned(&plan, result, message)
    }

    pub(crate) fn stream_error_planned(&self, plan: &Plan, result: &str, message: &str) -> Next {
        let emissary = self.shared.config.personality == Personality::Emissary;
        let line = match message {
            "" if emissary => format!("STREAM STATUS RESULT={result}"),
            "" => format!("STREAM STATUS RESULT={result}\n"),
            text => format!("STREAM STATUS RESULT={result} MESSAGE=\"{text}\"\n"),
        };
        match self.shared.reply_planned(&self.conn, plan, &line) {
            Flow::Stalled => self.hang(),
            _ => Next::Close,
        }
    }

    /// A final fault: the command is answered, but not carried out.
    pub(crate) fn stream_fault(&self, plan: &Plan) -> Next {
        match self.shared.reply_planned(&self.conn, plan, OK) {
            Flow::Stalled => self.hang(),
            _ => Next::Close,
        }
    }

    /// Says nothing until the client goes.
    pub(crate) fn hang(&self) -> Next {
        let mut buffer = [0u8; 4096];
        while let Ok(Some(1..)) = self.conn.sock.read_until(&mut buffer, None) {}
        Next::Close
    }

    fn connect(&mut self, command: &Command, own: &Own, silent: bool, carriage_return: bool) -> Next {
        let personality = self.shared.config.personality;
        let plan = self.shared.plan(Reply::StreamConnect);
        if plan.is_final() {
            return self.stream_fault(&plan);
        }
        let name = command.get("DESTINATION").unwrap_or("");
        let destination = match resolve(&self.shared, name) {
            Ok(destination) => destination,
            Err(result) if personality == Personality::Java => return self.unresolved(&plan, name, result),
            // It never finds out that this was meant to be a destination, and waits for its timer.
            Err("INVALID_KEY") if personality == Personality::Emissary => return Next::Continue,
            Err("INVALID_KEY") => return self.stream_error_planned(&plan, "INVALID_KEY", ""),
            Err(result) => return self.unreachable(&plan, result),
        };
        let refuses_self = matches!(personality, Personality::I2pd258 | Personality::Emissary);
        let reachable = lock(&self.shared.state).owner(&destination).is_some();
        if !reachable || (refuses_self && destination == own.public) {
            return self.unreachable(&plan, "CANT_REACH_PEER");
        }
        let (Ok(from_port), Ok(to_port)) = (port(command, "FROM_PORT"), port(command, "TO_PORT")) else {
            return self.stream_error_planned(&plan, "I2P_ERROR", "Bad port");
        };
        if personality == Personality::Java && self.shared.config.park.is_none() && !self.ever_accepted(&destination) {
            if !self.shared.sleep(RESET_TIME) {
                return Next::Close;
            }
            return self.stream_error_planned(&plan, "CANT_REACH_PEER", RESET);
        }
        let peer = Peer {
            session: own.id.clone(),
            destination: text(&own.public),
            // The session's own ports are for datagrams alone.
            from_port: from_port.unwrap_or(0),
            to_port: to_port.unwrap_or(0),
        };
        let early = self.early_bytes(carriage_return);
        self.shared.set_kind(&self.conn, Kind::Stream);
        let mut status = Some(plan);
        // Only Java waits for the peer before it says OK.
        if personality != Personality::Java {
            self.write_status(&self.conn, status.take(), silent);
        }
        let slot = Arc::new(Slot::new(&self.conn, silent, peer, status));
        let next = match self.route(own, &destination, &slot) {
            Route::Linked(link, accepting) => {
                self.introduce(&slot, &accepting.conn, accepting.silent);
                link.open();
                link.run(&self.shared, Side::Connecting, &early);
                Next::Close
            }
            Route::Forward(target) => self.to_forward(&destination, &slot, &target, &early),
            Route::Parked(slot) => self.parked(own, &destination, &slot, &early),
            Route::Gone => Next::Close,
        };
        leave(&self.shared, &self.conn, &own.id, own.serial);
        next
    }

    /// Whether anybody has ever accepted streams at a destination.
    fn ever_accepted(&self, destination: &[u8]) -> bool {
        let state = lock(&self.shared.state);
        let session = state.owner(destination).and_then(|id| state.sessions.get(id));
        session.is_some_and(|s| s.accepted)
    }

    /// Java says what it did not find. It looks for a lease set as long as for a destination.
    fn unresolved(&self, plan: &Plan, name: &str, result: &str) -> Next {
        let (what, time) = match (name.len(), result) {
            (_, "CANT_REACH_PEER") => ("Lease set", self.shared.config.unreachable_delay),
            (516.., _) => {
                let message = format!("Bad Base64 dest: {name}");
                return self.stream_error_planned(plan, "INVALID_KEY", &message);
            }
            _ => ("Host name", Duration::ZERO),
        };
        if !self.shared.sleep(time) {
            return Next::Close;
        }
        let message = format!("{what} not found: {}", name.replace(['"', '\\'], ""));
        self.stream_error_planned(plan, "INVALID_KEY", &message)
    }

    fn unreachable(&self, plan: &Plan, result: &str) -> Next {
        if !self.shared.sleep(self.shared.config.unreachable_delay) {
            return Next::Close;
        }
        let message = match self.shared.config.personality {
            Personality::Java => "Connection timed out",
            Personality::I2pd258 => "LeaseSet not found",
            Personality::I2pd245 | Personality::Emissary => "",
        };
        self.stream_error_planned(plan, result, message)
    }

    /// What the peer gets of the bytes that came in the same segment as CONNECT.
    fn early_bytes(&mut self, carriage_return: bool) -> Vec<u8> {
        let mut rest = self.reader.take_rest();
        match self.shared.config.personality {
            Personality::Java => rest,
            Personality::Emissary => Vec::new(),
            Personality::I2pd245 | Personality::I2pd258 => {
                // It copies from one byte too far; a CR counts as such a byte.
                if carriage_return {
                    rest.insert(0, 0);
                }
                if !rest.is_empty() {
                    rest.remove(0);
                    rest.push(0);
                }
                rest
            }
        }
    }

    fn route(&self, own: &Own, destination: &[u8], slot: &Arc<Slot>) -> Route {
        let mut state = lock(&self.shared.state);
        let target = state.owner(destination).map(str::to_string);
        let (Some(target), Some(_)) = (target, state.session(&own.id, own.serial)) else {
            return Route::Gone;
        };
        let Some(session) = state.sessions.get_mut(&target) else {
            return Route::Gone;
        };
        if let Some(forward) = &session.forward {
            return Route::Forward(forward.clone());
        }
        if let Some(accepting) = session.acceptors.pop_front() {
            let link = link(&mut state, slot, &target, &accepting);
            accepting.set(Outcome::Linked(Arc::clone(&link)));
            drop(state);
            self.shared.changed.notify_all();
            return Route::Linked(link, accepting);
        }
        if session.incoming.len() >= MAX_PARKED {
            return Route::Gone;
        }
        session.incoming.push_back(Arc::clone(slot));
        drop(state);
        self.shared.changed.notify_all();
        Route::Parked(Arc::clone(slot))
    }

    /// Waits for an ACCEPT.
    fn parked(&self, own: &Own, destination: &[u8], slot: &Arc<Slot>, early: &[u8]) -> Next {
        let deadline = Some(Instant::now() + self.shared.config.park_time());
        let outcome = self.shared.wait(deadline, |state| {
            // Its own session may end meanwhile.
            let gone = state.session(&own.id, own.serial).is_none();
            slot.outcome().or(gone.then_some(Outcome::Closed))
        });
        let outcome = outcome.or_else(|| self.withdraw(slot));
        match outcome {
            Some(Outcome::Linked(link)) => {
                link.run(&self.shared, Side::Connecting, early);
                Next::Close
            }
            Some(Outcome::Forward) => {
                let target = {
                    let state = lock(&self.shared.state);
                    let id = state.owner(destination).unwrap_or_default();
                    state.sessions.get(id).and_then(|s| s.forward.clone())
                };
                match target {
                    Some(target) => self.to_forward(destination, slot, &target, early),
                    None => Next::Close,
                }
            }
            outcome => {
                self.withdraw(slot);
                let plan = lock(&slot.status).take();
                match plan {
                    Some(plan) if outcome.is_none() => self.stream_error_planned(&plan, "CANT_REACH_PEER", RESET),
                    Some(plan) => self.stream_error_planned(&plan, "CANT_REACH_PEER", "Session is closed"),
                    None => Next::Close,
                }
            }
        }
    }

    /// Takes a socket out of the queue it waits in. What has happened to it just before still counts.
    fn withdraw(&self, slot: &Arc<Slot>) -> Option<Outcome> {
        let mut state = lock(&self.shared.state);
        for session in state.sessions.values_mut() {
            session.incoming.retain(|s| !Arc::ptr_eq(s, slot));
            session.acceptors.retain(|s| !Arc::ptr_eq(s, slot));
        }
        slot.outcome()
    }

    pub(crate) fn write_status(&self, conn: &Arc<Conn>, plan: Option<Plan>, silent: bool) {
        if let (Some(plan), false) = (plan, silent) {
            self.shared.begin_stream(conn, &plan, OK);
        }
    }

    /// Writes the lines that are due when two sides have met: the peer line, and Java's late OK.
    pub(crate) fn introduce(&self, connecting: &Slot, accepting: &Arc<Conn>, silent: bool) {
        if !silent {
            let line = peer_line(&self.shared, &connecting.peer, accepting.version());
            let plan = self.shared.plan(Reply::StreamAcceptPeer);
            self.shared.begin_stream(accepting, &plan, &line);
        }
        let plan = lock(&connecting.status).take();
        self.write_status(&connecting.conn, plan, connecting.silent);
    }

    fn accept(&mut self, own: &Own, silent: bool) -> Next {
        let personality = self.shared.config.personality;
        let plan = self.shared.plan(Reply::StreamAccept);
        if plan.is_final() {
            return self.stream_fault(&plan);
        }
        let (forwarded, accepted) = {
            let state = lock(&self.shared.state);
            let session = state.session(&own.id, own.serial);
            (session.is_some_and(|s| s.forward.is_some()), session.is_some_and(|s| !s.acceptors.is_empty()))
        };
        // Several at a time came with 3.2.
        if accepted && personality == Personality::Java && self.conn.version() < Version::V3_2 {
            return self.stream_error_planned(&plan, "ALREADY_ACCEPTING", "");
        }
        if forwarded {
            return match personality {
                Personality::Java => {
                    // It finds out only after it has said OK.
                    self.shared.reply_planned(&self.conn, &plan, OK);
                    self.stream_error(Reply::StreamAcceptPeer, "ALREADY_ACCEPTING", "")
                }
                Personality::Emissary => Next::Close,
                _ => {
                    self.session_status(&plan, "I2P_ERROR", "Already accepting");
                    Next::Close
                }
            };
        }
        let early = match personality {
            Personality::Java => self.reader.take_rest(),
            _ => Vec::new(),
        };
        self.shared.set_kind(&self.conn, Kind::Stream);
        // Whoever has seen the OK may count on it.
        if let Some(session) = lock(&self.shared.state).session_mut(&own.id, own.serial) {
            session.accepted = true;
        }
        self.write_status(&self.conn, Some(plan), silent);
        let slot = Arc::new(Slot::new(&self.conn, silent, Peer::default(), None));
        let next = self.accepting(own, &slot, early);
        leave(&self.shared, &self.conn, &own.id, own.serial);
        next
    }

    fn accepting(&self, own: &Own, slot: &Arc<Slot>, mut early: Vec<u8>) -> Next {
        if let Some((link, connecting)) = self.next_incoming(own, slot) {
            self.introduce(&connecting, &self.conn, slot.silent);
            link.open();
            link.run(&self.shared, Side::Accepting, &early);
            return Next::Close;
        }
        let outcome = if let Some(outcome) = slot.outcome() {
            Some(outcome)
        } else if self.shared.config.personality.is_i2pd() {
            // It reads all the time: a closed socket is noticed, and bytes are taken for a command.
            let mut buffer = vec![0u8; 16 * 1024];
            let read = self.conn.sock.read_until(&mut buffer, None);
            let n = read.ok().flatten().unwrap_or(0);
            let outcome = self.withdraw(slot);
            early.extend_from_slice(&buffer[..n]);
            outcome
        } else {
            self.shared.wait(None, |state| {
                let gone = state.session(&own.id, own.serial).is_none();
                slot.outcome().or(gone.then_some(Outcome::Closed))
            })
        };
        match outcome {
            Some(Outcome::Linked(link)) => {
                link.run(&self.shared, Side::Accepting, &early);
                Next::Close
            }
            Some(Outcome::Died) if self.shared.config.personality == Personality::Java => {
                self.stream_error(Reply::StreamAcceptPeer, "I2P_ERROR", DIED)
            }
            Some(_) if self.shared.config.personality == Personality::Java => {
                self.stream_error(Reply::StreamAcceptPeer, "I2P_ERROR", "Session is closed")
            }
            _ => Next::Close,
        }
    }

    /// Takes the first stream that waits, or joins the queue of accepts.
    fn next_incoming(&self, own: &Own, slot: &Arc<Slot>) -> Option<(Arc<Link>, Arc<Slot>)> {
        let mut state = lock(&self.shared.state);
        let Some(session) = state.session_mut(&own.id, own.serial) else {
            slot.set(Outcome::Closed);
            return None;
        };
        if session.dead {
            slot.set(Outcome::Died);
            return None;
        }
        let Some(connecting) = session.incoming.pop_front() else {
            session.acceptors.push_back(Arc::clone(slot));
            drop(state);
            self.shared.changed.notify_all();
            return None;
        };
        let link = link(&mut state, &connecting, &own.id, slot);
        connecting.set(Outcome::Linked(Arc::clone(&link)));
        drop(state);
        self.shared.changed.notify_all();
        Some((link, connecting))
    }
}
