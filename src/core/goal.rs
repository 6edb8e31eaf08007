//! What an exchange is for, and making that of it when it is done.

use std::sync::Arc;

use crate::address::Address;
use crate::core::controller::Controller;
use crate::core::dest::{Dest, DestPlan};
use crate::core::exchange::{Exchange, Finished};
use crate::core::session::Session;
use crate::core::stream::{Remote, Stream};
use crate::core::tunnel::Tunnel;
use crate::error::{Error, Result, Status};
use crate::keys::Keys;
use crate::name::Target;
use crate::protocol::command::Ports;
use crate::protocol::request::{Outcome, Request};
use crate::protocol::Version;

/// What an exchange is for.
pub enum Goal {
    /// Which version the bridge speaks.
    Version,
    /// New keys.
    Keys,
    /// The destination of a name.
    Address,
    /// A destination of ours.
    Dest(Arc<Controller>, Box<DestPlan>),
    /// A stream to a peer.
    Connect(Arc<Session>, Target),
    /// A stream from a peer.
    Accept(Arc<Session>),
    /// Reached.
    Reached,
}

/// What an operation makes.
pub enum Product {
    /// Version of the bridge.
    Version(Version),
    /// New keys.
    Keys(Keys),
    /// A destination of somebody's.
    Address(Address),
    /// A destination of ours.
    Dest(Dest),
    /// A stream.
    Stream(Stream),
    /// A tunnel.
    Tunnel(Tunnel),
}

impl Goal {
    /// The session it belongs to, if any.
    pub fn session(&self) -> Option<Arc<Session>> {
        match self {
            Goal::Connect(session, _) | Goal::Accept(session) => Some(Arc::clone(session)),
            _ => None,
        }
    }

    /// Makes the product of a finished exchange.
    pub fn reach(&mut self, exchange: &mut Exchange) -> Result<Product> {
        let ports = match exchange.request() {
            Request::Connect { ports, .. } => *ports,
            _ => Default::default(),
        };
        let mut finished = exchange.finish()?;
        match std::mem::replace(self, Goal::Reached) {
            Goal::Dest(controller, plan) => plan.finish(&controller, finished).map(Product::Dest),
            goal => {
                let outcome = std::mem::replace(&mut finished.outcome, Outcome::Checked);
                goal.simple(outcome, finished, exchange, ports)
            }
        }
    }

    fn simple(self, outcome: Outcome, finished: Finished, exchange: &Exchange, ports: Ports) -> Result<Product> {
        let operation = exchange.request().operation();
        let stream = |remote| Product::Stream(Stream::new(Arc::clone(exchange.bridge()), finished.socket, remote));
        match (self, outcome) {
            (Goal::Version, _) => Ok(Product::Version(finished.version)),
            (_, Outcome::Found(address)) => Ok(Product::Address(address)),
            (_, Outcome::Keys(text)) => {
                let unusable = || Error::protocol(operation, "DEST REPLY has keys that cannot be read");
                let text = std::str::from_utf8(text.as_bytes()).map_err(|_| unusable())?;
                Keys::from_bridge_text(text).map(Product::Keys).map_err(|_| unusable())
            }
            (Goal::Connect(_, target), Outcome::Connected) => {
                let (from_port, to_port) = (ports.from, ports.to);
                Ok(stream(match target {
                    Target::Destination(address) => {
                        let text = address.host().to_owned();
                        Remote { address: Some(address), text, from_port, to_port, verified: true }
                    }
                    other => {
                        Remote { address: None, text: other.wire().to_owned(), from_port, to_port, verified: true }
                    }
                }))
            }
            (Goal::Accept(_), Outcome::Accepted(peer)) => {
                let text = peer.address.host().to_owned();
                let (from_port, to_port) = (peer.from_port, peer.to_port);
                Ok(stream(Remote { address: Some(peer.address), text, from_port, to_port, verified: true }))
            }
            _ => Err(Error::new(Status::Internal, operation, "an answer to another question")),
        }
    }
}
