//! The specification that all sessions of a destination are created from, the first one and its successors.

use std::sync::Arc;

use crate::core::bridge::{Bridge, Finished};
use crate::core::session::datagram_port::DatagramPort;
use crate::core::settings::DestOptions;
use crate::error::{Error, Operation, Result, Status};
use crate::identity::{Address, Keys};
use crate::protocol::command::RouterOption;
use crate::protocol::ports::Ports;
use crate::protocol::request::{NewIdentity, Outcome, Request};
use crate::protocol::style::Style;
use crate::sys;

/// The specification that a destination's sessions are created from.
pub struct SessionSpec {
    /// The session name, as in i2p.sam; empty for a transient destination.
    pub name: String,
    /// How the router labels the session.
    pub nickname: String,
    pub style: Style,
    /// Whether a lost session is reopened.
    pub recover: bool,
    /// For datagram styles, once it is bound.
    pub port: Option<Arc<DatagramPort>>,
    options: DestOptions,
    /// I2CP options to send.
    router_options: Vec<RouterOption>,
}

impl SessionSpec {
    /// Generates a nickname if `options` has none.
    pub(crate) fn new(name: &str, mut options: DestOptions) -> Result<Self> {
        let nickname = match options.nickname.take() {
            Some(nickname) => nickname,
            None => format!("i2psock-{}", random_text(5)?),
        };
        Ok(SessionSpec {
            name: name.to_owned(),
            style: options.style,
            recover: options.recovers(!name.is_empty()),
            port: None,
            router_options: router_options(&options, &nickname),
            nickname,
            options,
        })
    }

    /// The ports of what leaves the session without ports of its own.
    pub fn ports(&self) -> Ports {
        self.options.ports
    }

    /// Generates a random SAM id.
    pub fn new_id() -> Result<String> {
        random_text(15)
    }

    /// Binds the datagram descriptor, if the style needs one.
    pub fn bind(&mut self, bridge: &Bridge) -> Result<()> {
        if let Some(options) = &self.options.datagrams {
            self.port = Some(DatagramPort::bind(bridge, self.style, self.options.ports, options)?);
        }
        Ok(())
    }

    pub fn request(&self, id: String, identity: NewIdentity) -> Request {
        Request::Create {
            style: self.style.word(),
            id,
            identity,
            ports: self.options.ports,
            delivery: self.port.as_ref().map(|port| port.delivery()).unwrap_or_default(),
            options: self.router_options.clone(),
        }
    }

    /// Fails if an open destination with this spec does not match what `wanted` asks for.
    pub fn check_shareable(&self, wanted: &SessionSpec) -> Result<()> {
        self.options.check_shareable(&self.name, &wanted.options)
    }

    /// The keys in the reply that created a session.
    pub fn keys_of(created: &Finished) -> Result<Keys> {
        let Outcome::Created(text) = &created.outcome else {
            return Err(Error::new(Status::Internal, Operation::Create, "no session in the reply"));
        };
        let unusable = || Error::protocol(Operation::Create, "SESSION STATUS has keys that cannot be read");
        let text = std::str::from_utf8(text.as_bytes()).map_err(|_| unusable())?;
        Keys::from_bridge_text(text).map_err(|_| unusable())
    }

    /// Fails if the bridge opened a destination other than that of the keys it was given.
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

/// I2CP options; those set by the caller take precedence over our defaults.
fn router_options(options: &DestOptions, nickname: &str) -> Vec<RouterOption> {
    let mut list: Vec<_> = options.router().cloned().collect();
    let mut default = |key: &str, value: Option<&str>| {
        if let Some(value) = value.filter(|_| list.iter().all(|(known, _)| known != key)) {
            list.push((key.to_owned(), value.into()));
        }
    };
    default("inbound.nickname", Some(nickname));
    default("outbound.nickname", Some(nickname));
    let hops = |depth: Option<u8>| depth.map(|depth| depth.to_string());
    default("inbound.length", hops(options.in_depth).as_deref());
    default("outbound.length", hops(options.out_depth).as_deref());
    // Router defaults differ (i2pd: five tunnels each way; Java: old encryption).
    default("inbound.quantity", Some("3"));
    default("outbound.quantity", Some("3"));
    default("i2cp.leaseSetEncType", Some("4,0"));
    list
}

/// Encodes this many random bytes as lower-case letters and digits.
fn random_text(bytes: usize) -> Result<String> {
    let mut random = vec![0; bytes];
    sys::random(&mut random).map_err(|error| Error::io(Operation::Create, "getrandom", &error))?;
    Ok(crate::identity::base32_encode(&random))
}
