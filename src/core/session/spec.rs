//! What the sessions of a destination are made from, the first one and those that follow it.

use std::sync::Arc;

use crate::core::bridge::{Bridge, Finished};
use crate::core::session::datagram_port::DatagramPort;
use crate::core::settings::{Options, Owner};
use crate::error::{Error, Operation, Result, Status};
use crate::identity::{Address, Keys};
use crate::protocol::ports::Ports;
use crate::protocol::request::{NewIdentity, Outcome, Request};
use crate::protocol::style::Style;
use crate::sys;

/// The default signature type: Ed25519.
pub const ED25519: u16 = 7;

/// What the sessions of a destination are made from.
pub struct SessionSpec {
    /// i2p.sam's session name; empty for a transient destination.
    pub name: String,
    /// Label on the router.
    pub nickname: String,
    /// What it carries.
    pub style: Style,
    /// Whether a lost session is opened again.
    pub recover: bool,
    /// Descriptor of datagrams, once it is bound.
    pub port: Option<Arc<DatagramPort>>,
    ports: Ports,
    /// What the caller asked for.
    wanted: Vec<(String, String)>,
    /// I2CP options.
    router_options: Vec<(String, String)>,
}

impl SessionSpec {
    /// Checks the arguments of an open.
    pub fn new(name: &str, style: i32, options: &Options) -> Result<Self> {
        let style = Style::from_number(style)?;
        options.check_owner(Owner::Destination)?;
        if let Some(signature_type) = options.number("signature_type") {
            check_signature_type(signature_type)?;
            if options.keys().is_some() {
                return Err(Error::invalid("option signature_type is for new keys, and keys are given"));
            }
        }
        DatagramPort::check_options(style, options)?;
        let nickname = match options.text("nickname") {
            Some(nickname) => nickname.to_owned(),
            None => format!("i2psock-{}", random_text(5)?),
        };
        Ok(SessionSpec {
            name: name.to_owned(),
            style,
            recover: options.text("recover").map_or(!name.is_empty(), |text| text == "1"),
            port: None,
            ports: options.ports(),
            wanted: options.entries().to_vec(),
            router_options: router_options(options, &nickname),
            nickname,
        })
    }

    /// A random SAM id.
    pub fn new_id() -> Result<String> {
        random_text(15)
    }

    /// Binds the descriptor of datagrams, if the style needs one.
    pub fn bind(&mut self, bridge: &Bridge, options: &Options) -> Result<()> {
        self.port = DatagramPort::bind(bridge, self.style, options)?;
        Ok(())
    }

    /// The request that creates a session.
    pub fn request(&self, id: String, identity: NewIdentity) -> Request {
        Request::Create {
            style: self.style.word(),
            id,
            identity,
            ports: self.ports,
            delivery: self.port.as_ref().map(|port| port.delivery()).unwrap_or_default(),
            options: self.router_options.clone(),
        }
    }

    /// Whether a destination of this recipe is what `wanted` asks for: of that style, and with every option `wanted` has.
    pub fn check_shareable(&self, wanted: &SessionSpec) -> Result<()> {
        let state = |message| Err(Error::new(Status::State, Operation::Create, message));
        let name = &self.name;
        if self.style != wanted.style {
            return state(format!(
                "destination \"{name}\" is open with style {}, and a destination has one style at a time",
                self.style.word()
            ));
        }
        let has = |entry: &(String, String)| match entry.0.as_str() {
            // What it is by default counts, too.
            "recover" => self.recover == wanted.recover,
            // Keys tell theirs.
            "signature_type" => true,
            _ => self.wanted.contains(entry),
        };
        match wanted.wanted.iter().find(|entry| !has(entry)) {
            Some((key, _)) => state(format!("destination \"{name}\" is open with another value of option {key}")),
            None => Ok(()),
        }
    }

    /// The keys a new session came with.
    pub fn keys_of(created: &Finished) -> Result<Keys> {
        let Outcome::Created(text) = &created.outcome else {
            return Err(Error::new(Status::Internal, Operation::Create, "no session in the reply"));
        };
        let unusable = || Error::protocol(Operation::Create, "SESSION STATUS has keys that cannot be read");
        let text = std::str::from_utf8(text.as_bytes()).map_err(|_| unusable())?;
        Keys::from_bridge_text(text).map_err(|_| unusable())
    }

    /// The bridge must not open another destination than that of the keys it was given.
    pub fn check_same(created: &Keys, given: &Address) -> Result<()> {
        if created.address() != given {
            let message = "the bridge opened another destination than that of the keys";
            return Err(Error::protocol(Operation::Create, message));
        }
        Ok(())
    }
}

impl From<Keys> for NewIdentity {
    fn from(keys: Keys) -> Self {
        NewIdentity::Keys(keys)
    }
}

/// I2CP options: what the caller gave wins over what this library thinks best.
fn router_options(options: &Options, nickname: &str) -> Vec<(String, String)> {
    let mut list = options.router_options();
    let mut default = |key: &str, value: Option<&str>| {
        if let Some(value) = value.filter(|_| list.iter().all(|(known, _)| known != key)) {
            list.push((key.to_owned(), value.to_owned()));
        }
    };
    default("inbound.nickname", Some(nickname));
    default("outbound.nickname", Some(nickname));
    default("inbound.length", options.text("in_depth"));
    default("outbound.length", options.text("out_depth"));
    // Routers differ in their defaults (i2pd: five tunnels each way, Java: old encryption).
    default("inbound.quantity", Some("3"));
    default("outbound.quantity", Some("3"));
    default("i2cp.leaseSetEncType", Some("4,0"));
    list
}

/// Random text of lower-case letters and digits.
fn random_text(bytes: usize) -> Result<String> {
    let mut random = vec![0; bytes];
    sys::random(&mut random).map_err(|error| Error::io(Operation::Create, "getrandom", &error))?;
    Ok(crate::identity::base32_encode(&random))
}

/// i2pd 2.58 crashes on types it does not know, so only those of the specification are sent.
pub fn check_signature_type(signature_type: u16) -> Result<()> {
    match signature_type {
        0..=3 | 7 | 8 | 11 => Ok(()),
        4..=6 => Err(Error::invalid("RSA signature types are not for destinations")),
        _ => Err(Error::invalid(format!("signature type {signature_type} is unknown; 7 is Ed25519"))),
    }
}
