//! What a connection is opened for: one request after HELLO, and what its answer means.

use std::net::SocketAddr;

use crate::error::{Error, Operation, Result, Status};
use crate::identity::{Address, Keys, Target};
use crate::protocol::command::{self, Command, Delivery, Identity};
use crate::protocol::line::Fields;
use crate::protocol::ports::Ports;
use crate::protocol::reply::{self, Peer};
use crate::protocol::version::Version;
use crate::secret::Secret;

/// Identity of a session that is to be created.
pub enum NewIdentity {
    /// New keys of this signature type, made by the router.
    Transient(u16),
    /// Keys we have.
    Keys(Keys),
}

/// The one thing asked for after HELLO.
pub enum Request {
    /// Nothing: HELLO was the question.
    Check,
    /// DEST GENERATE.
    Generate {
        /// Number of the signature type.
        signature_type: u16,
    },
    /// NAMING LOOKUP on a connection without a session.
    Lookup {
        /// Name or address, as it is sent.
        name: String,
    },
    /// SESSION CREATE.
    Create {
        /// STREAM, DATAGRAM, ...
        style: &'static str,
        /// Random id.
        id: String,
        /// Keys.
        identity: NewIdentity,
        /// Default ports of the session.
        ports: Ports,
        /// How datagrams come.
        delivery: Delivery,
        /// I2CP options.
        options: Vec<(String, String)>,
    },
    /// STREAM CONNECT.
    Connect {
        /// Session.
        id: String,
        /// Whom to reach.
        target: Target,
        /// Ports of the stream.
        ports: Ports,
        /// Streaming options.
        options: Vec<(String, String)>,
    },
    /// STREAM ACCEPT.
    Accept {
        /// Session.
        id: String,
    },
    /// STREAM FORWARD: every stream comes by a connection of its own, which begins with the peer line.
    Forward {
        /// Session.
        id: String,
        /// Where the router is to connect to.
        to: SocketAddr,
    },
}

/// What a request came to.
#[derive(Debug)]
pub enum Outcome {
    /// The bridge is there and speaks SAM.
    Checked,
    /// Private keys, as I2P base64 text.
    Keys(Secret),
    /// The session exists; these are its private keys, as I2P base64 text.
    Created(Secret),
    /// The stream is open.
    Connected,
    /// A peer has connected.
    Accepted(Peer),
    /// Streams are forwarded for as long as this connection is open. PINGs may come on it.
    Forwarding,
    /// Destination of a name.
    Found(Address),
}

impl Request {
    /// The operation errors are attributed to.
    pub fn operation(&self) -> Operation {
        match self {
            Request::Check => Operation::Handshake,
            Request::Generate { .. } => Operation::Generate,
            Request::Lookup { .. } => Operation::Lookup,
            Request::Create { .. } => Operation::Create,
            Request::Connect { .. } => Operation::Connect,
            Request::Accept { .. } | Request::Forward { .. } => Operation::Accept,
        }
    }

    /// The command for a bridge that speaks `version`; `None` when there is nothing to ask.
    pub fn command(&self, version: Version) -> Result<Option<Command>> {
        match self {
            Request::Check => Ok(None),
            Request::Generate { signature_type } => command::dest_generate(*signature_type).map(Some),
            Request::Lookup { name } => command::naming_lookup(name).map(Some),
            Request::Create { style, id, identity, ports, delivery, options } => {
                self.require_ports(*ports, version)?;
                if (delivery.header || delivery.protocol.is_some()) && version < Version::V3_2 {
                    return Err(self.too_old("raw headers and protocols", version));
                }
                let identity = match identity {
                    NewIdentity::Transient(signature_type) => Identity::Transient { signature_type: *signature_type },
                    NewIdentity::Keys(keys) => Identity::Keys(keys),
                };
                command::session_create(style, id, identity, *ports, *delivery, options).map(Some)
            }
            Request::Connect { id, target, ports, options } => {
                self.require_ports(*ports, version)?;
                command::stream_connect(id, target, *ports, options).map(Some)
            }
            Request::Accept { id } => command::stream_accept(id).map(Some),
            Request::Forward { id, to } => command::stream_forward(id, to.ip(), to.port(), false).map(Some),
        }
    }

    /// Ports came with SAM 3.2: a bridge that speaks less would ignore them silently.
    fn require_ports(&self, ports: Ports, version: Version) -> Result<()> {
        if ports.any() && version < Version::V3_2 {
            return Err(self.too_old("ports", version));
        }
        Ok(())
    }

    fn too_old(&self, what: &str, version: Version) -> Error {
        let message = format!("the router speaks SAM {version}, which has no {what} (3.2 has)");
        Error::new(Status::Unsupported, self.operation(), message)
    }

    /// Whether it asks for datagrams on the control socket.
    pub fn is_in_band(&self) -> bool {
        matches!(self, Request::Create { style, delivery, .. } if *style != "STREAM" && delivery.forward.is_none())
    }

    /// Topic and action of the proper reply.
    pub fn expected(&self) -> (&'static str, &'static str) {
        match self {
            Request::Check => ("HELLO", "REPLY"),
            Request::Generate { .. } => ("DEST", "REPLY"),
            Request::Lookup { .. } => ("NAMING", "REPLY"),
            Request::Create { .. } => ("SESSION", "STATUS"),
            Request::Connect { .. } | Request::Accept { .. } | Request::Forward { .. } => ("STREAM", "STATUS"),
        }
    }

    /// What a successful reply says; `None` when another line follows (the peer of an accept).
    pub fn outcome(&self, fields: &mut Fields) -> Result<Option<Outcome>> {
        Ok(match self {
            Request::Check => Some(Outcome::Checked),
            Request::Generate { .. } => Some(Outcome::Keys(reply::dest(fields)?)),
            Request::Lookup { name } => {
                if !answers_name(fields, name) {
                    return Err(Error::protocol(Operation::Lookup, "the bridge answered for another name"));
                }
                Some(Outcome::Found(reply::naming(fields)?))
            }
            Request::Create { .. } => Some(Outcome::Created(reply::session(fields)?)),
            Request::Connect { .. } => Some(Outcome::Connected),
            Request::Accept { .. } => None,
            Request::Forward { .. } => Some(Outcome::Forwarding),
        })
    }
}

/// Whether a NAMING REPLY belongs to a question for `name`.
pub fn answers_name(fields: &Fields, name: &str) -> bool {
    fields.get("NAME").is_none_or(|echoed| echoed.eq_ignore_ascii_case(name))
}
