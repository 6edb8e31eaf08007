//! STREAM FORWARD, and the streams that go that way.

use crate::config::Personality;
use crate::conn::{Kind, Sock};
use crate::faults::Reply;
use crate::handler::{Handler, Next};
use crate::line::Command;
use crate::relay::Side;
use crate::session::port;
use crate::shared::{lock, Forward, Outcome, Peer, Slot};
use crate::stream::{leave, link, Own, OK};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

/// How long a forward target may take to answer.
const FORWARD_TIME: Duration = Duration::from_secs(3);

impl Handler {
    /// STREAM FORWARD.
    pub(crate) fn forward(&mut self, command: &Command, own: &Own, silent: bool) -> Next {
        let personality = self.shared.config.personality;
        let plan = self.shared.plan(Reply::StreamForward);
        if plan.is_final() {
            return self.stream_fault(&plan);
        }
        let refuse = |message: &str| {
            if personality.is_i2pd() {
                self.session_status(&plan, "I2P_ERROR", message);
                Next::Close
            } else {
                self.stream_error_planned(&plan, "I2P_ERROR", message)
            }
        };
        let Ok(Some(port @ 1..)) = port(command, "PORT") else {
            return match personality {
                Personality::Emissary => Next::Continue,
                _ => refuse("PORT is missing or bad"),
            };
        };
        if personality == Personality::Java && command.get("SSL").is_some_and(|v| v != "false") {
            return refuse("SSL is not supported by this bridge");
        }
        let host = match (personality, command.get("HOST")) {
            (Personality::Java | Personality::I2pd258, Some(host)) => host.to_string(),
            (Personality::Emissary, _) => "127.0.0.1".to_string(),
            _ => self.conn.peer_ip().to_string(),
        };
        let target = match host.parse::<IpAddr>() {
            Ok(ip) => Some(SocketAddr::new(ip, port)),
            Err(_) if personality == Personality::Java => {
                (host.as_str(), port).to_socket_addrs().ok().and_then(|mut all| all.next())
            }
            Err(_) => None,
        };
        let Some(target) = target else {
            return refuse("Invalid IP Address in HOST");
        };
        {
            let mut state = lock(&self.shared.state);
            let Some(session) = state.session_mut(&own.id, own.serial) else {
                return Next::Close;
            };
            if session.forward.is_some() || !session.acceptors.is_empty() {
                drop(state);
                return refuse("Already accepting");
            }
            session.accepted = true;
            session.forward = Some(Forward { conn: Arc::clone(&self.conn), target, silent });
            for slot in session.incoming.drain(..) {
                slot.set(Outcome::Forward);
            }
        }
        self.shared.set_kind(&self.conn, Kind::Forward);
        self.forwards = Some((own.id.clone(), own.serial));
        Next::after(self.shared.reply_planned(&self.conn, &plan, OK))
    }

    /// The forward socket has been closed.
    pub(crate) fn end_forward(&self) {
        // emissary goes on forwarding.
        let Some((id, serial)) = self.forwards.as_ref() else {
            return;
        };
        if self.shared.config.personality == Personality::Emissary {
            return;
        }
        let mut state = lock(&self.shared.state);
        if let Some(session) = state.session_mut(id, *serial) {
            session.forward = None;
        }
    }

    /// Connects to a forward target and relays. The peer has a stream before the target answers.
    pub(crate) fn to_forward(&self, destination: &[u8], slot: &Arc<Slot>, target: &Forward, early: &[u8]) -> Next {
        let plan = lock(&slot.status).take();
        self.write_status(&self.conn, plan, slot.silent);
        let Ok(stream) = TcpStream::connect_timeout(&target.target, FORWARD_TIME) else {
            return Next::Close;
        };
        let Some(conn) = self.shared.register(Sock::tcp(stream, &self.shared.gate), false) else {
            return Next::Close;
        };
        let accepting = Slot::new(&conn, target.silent, Peer::default(), None);
        let (link, id) = {
            let mut state = lock(&self.shared.state);
            let id = state.owner(destination).unwrap_or_default().to_string();
            let serial = state.sessions.get(&id).map_or(0, |s| s.serial);
            let link = link(&mut state, slot, &id, &accepting);
            (link, (id, serial))
        };
        lock(&conn.info).version = target.conn.version();
        self.introduce(slot, &conn, target.silent);
        link.open();
        let (shared, there, back) = (Arc::clone(&self.shared), Arc::clone(&conn), Arc::clone(&link));
        let started = self.shared.spawn("forward", move || {
            back.run(&shared, Side::Accepting, &[]);
            leave(&shared, &there, &id.0, id.1);
            shared.unregister(&there);
        });
        if started.is_err() {
            conn.kill();
            self.shared.unregister(&conn);
            return Next::Close;
        }
        link.run(&self.shared, Side::Connecting, early);
        Next::Close
    }
}
