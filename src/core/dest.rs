//! A destination of ours: a handle to a live session.

use std::sync::Arc;

use crate::address::Address;
use crate::core::acceptors::Parked;
use crate::core::bridge::Bridge;
use crate::core::controller::{check_signature_type, Controller, ED25519};
use crate::core::dgram::Dgram;
use crate::core::exchange::{Exchange, Finished};
use crate::core::options::{Options, Owner};
use crate::core::pending::{Goal, Limit, Pending, Product};
use crate::core::port::Port;
use crate::core::session::{Birth, Session, Style};
use crate::error::{Error, Operation, Result, Status};
use crate::keys::Keys;
use crate::name::Target;
use crate::protocol::request::{NewIdentity, Outcome, Request};
use crate::sys;

/// What a new destination is to be.
pub struct DestPlan {
    id: String,
    name: String,
    nickname: String,
    style: Style,
    /// Of the keys that were given.
    address: Option<Address>,
    port: Option<Arc<Port>>,
}

impl DestPlan {
    /// Checks the arguments of an open.
    pub fn new(bridge: &Bridge, name: &str, style: i32, options: &Options) -> Result<Self> {
        let style = Style::from_number(style)?;
        options.check_owner(Owner::Dest)?;
        if !name.is_empty() {
            let message =
                "named destinations need a key store, which is not supported yet: use NULL or \"\" as the name";
            return Err(Error::new(Status::Unsupported, Operation::Create, message));
        }
        if let Some(signature_type) = options.number("signature_type") {
            check_signature_type(signature_type)?;
            if options.keys().is_some() {
                return Err(Error::invalid("option signature_type is for new keys, and keys are given"));
            }
        }
        let nickname = match options.text("nickname") {
            Some(nickname) => nickname.to_owned(),
            None => format!("i2psock-{}", random_text(5)?),
        };
        let port = Port::bind(bridge, style, options)?;
        let address = options.keys().map(|keys| keys.address().clone());
        Ok(DestPlan { id: random_text(15)?, name: name.to_owned(), nickname, style, port, address })
    }

    /// The request that creates it.
    pub fn request(&self, options: &Options) -> Request {
        let identity = match options.keys() {
            Some(keys) => NewIdentity::Keys(keys.duplicate()),
            None => NewIdentity::Transient(options.number("signature_type").unwrap_or(ED25519)),
        };
        Request::Create {
            style: self.style.word(),
            id: self.id.clone(),
            identity,
            ports: options.ports(),
            delivery: self.port.as_ref().map(|port| port.delivery()).unwrap_or_default(),
            options: self.router_options(options),
        }
    }

    /// I2CP options: what the caller gave wins over what this library thinks best.
    fn router_options(&self, options: &Options) -> Vec<(String, String)> {
        let mut list = options.router_options();
        let mut default = |key: &str, value: Option<&str>| {
            if let Some(value) = value.filter(|_| list.iter().all(|(known, _)| known != key)) {
                list.push((key.to_owned(), value.to_owned()));
            }
        };
        default("inbound.nickname", Some(&self.nickname));
        default("outbound.nickname", Some(&self.nickname));
        default("inbound.length", options.text("in_depth"));
        default("outbound.length", options.text("out_depth"));
        // Routers differ in their defaults (i2pd: five tunnels each way, Java: old encryption).
        default("inbound.quantity", Some("3"));
        default("outbound.quantity", Some("3"));
        default("i2cp.leaseSetEncType", Some("4,0"));
        list
    }

    /// Makes the destination of the connection that created its session.
    pub fn finish(self, controller: &Arc<Controller>, mut created: Finished) -> Result<Dest> {
        let outcome = std::mem::replace(&mut created.outcome, Outcome::Checked);
        let Outcome::Created(text) = outcome else {
            return Err(Error::new(Status::Internal, Operation::Create, "no session in the reply"));
        };
        let unusable = |_| Error::protocol(Operation::Create, "SESSION STATUS has keys that cannot be read");
        let text = std::str::from_utf8(text.as_bytes()).map_err(|_| unusable(Error::invalid("")))?;
        let keys = Keys::from_bridge_text(text).map_err(unusable)?;
        if self.address.is_some_and(|address| address != *keys.address()) {
            return Err(Error::protocol(
                Operation::Create,
                "the bridge opened another destination than that of the keys",
            ));
        }
        let (id, style, port) = (self.id, self.style, self.port);
        let birth = Birth { id, style, name: self.name, nickname: self.nickname, keys, created, port };
        let session = Session::begin(Arc::clone(controller.bridge()), controller.keeper().cloned(), birth)?;
        let dest = Dest { session, _controller: Arc::clone(controller) };
        controller.add(&dest.session)?;
        Ok(dest)
    }
}

/// Random text of lower-case letters and digits.
fn random_text(bytes: usize) -> Result<String> {
    let mut random = vec![0; bytes];
    sys::random(&mut random).map_err(|error| Error::io(Operation::Create, "getrandom", &error))?;
    Ok(crate::encoding::base32_encode(&random))
}

/// A destination of ours. Dropping it ends its session and everything on it.
pub struct Dest {
    session: Arc<Session>,
    /// Keeps the thread of the session's controller from being dropped under it.
    _controller: Arc<Controller>,
}

impl Dest {
    /// The session behind it.
    pub fn session(&self) -> &Arc<Session> {
        &self.session
    }

    fn check(&self, operation: Operation) -> Result<()> {
        self.session.bridge().check_process()?;
        self.session.check_alive(operation)
    }

    fn check_stream(&self, operation: Operation) -> Result<()> {
        if self.session.style() != Style::Stream {
            let message = format!("{operation} is for destinations of style STREAM");
            return Err(Error::new(Status::State, operation, message));
        }
        self.check(operation)
    }

    /// Starts connecting to `address`: base64, `name.i2p`, b32 or b33.
    pub fn connect(&self, address: &str, options: &Options, limit: Limit) -> Result<Pending> {
        self.check_stream(Operation::Connect)?;
        options.check_owner(Owner::Connect)?;
        let target = Target::parse(address)?;
        let request = Request::Connect {
            id: self.session.id().to_owned(),
            target: target.clone(),
            ports: options.ports(),
            options: options.router_options(),
        };
        let exchange = self.exchange(request)?;
        Ok(Pending::exchange(exchange, Goal::Connect(Arc::clone(&self.session), target), limit))
    }

    /// Starts accepting one stream. An accept that was given up earlier is taken up again: the bridge may be about to
    /// hand it the next stream.
    pub fn accept(&self, limit: Limit) -> Result<Pending> {
        self.check_stream(Operation::Accept)?;
        match self.session.acceptors().adopt() {
            Some(Parked::Arrived(stream)) => {
                let ready = Pending::ready(self.session.bridge(), Operation::Accept, Product::Stream(*stream));
                Ok(ready.on(&self.session))
            }
            Some(Parked::Waiting(exchange)) => {
                Ok(Pending::exchange(*exchange, Goal::Accept(Arc::clone(&self.session)), limit))
            }
            None => {
                let exchange = self.exchange(Request::Accept { id: self.session.id().to_owned() })?;
                Ok(Pending::exchange(exchange, Goal::Accept(Arc::clone(&self.session)), limit))
            }
        }
    }

    /// The destination's datagrams.
    pub fn bind(&self) -> Result<Dgram> {
        self.check(Operation::None)?;
        let Some(port) = self.session.port() else {
            return Err(Error::state("datagrams are for destinations of a datagram style"));
        };
        Ok(Dgram::new(Arc::clone(&self.session), Arc::clone(port)))
    }

    /// Starts resolving `name`, or "ME", through the session's own connection.
    pub fn lookup(&self, name: &str, limit: Limit) -> Result<Pending> {
        self.check(Operation::Lookup)?;
        if name == "ME" {
            return Pending::lookup(Arc::clone(&self.session), name, limit);
        }
        match Target::parse(name)? {
            Target::Destination(address) => {
                Ok(Pending::ready(self.session.bridge(), Operation::Lookup, Product::Address(address)))
            }
            target => Pending::lookup(Arc::clone(&self.session), target.wire(), limit),
        }
    }

    fn exchange(&self, request: Request) -> Result<Exchange> {
        Exchange::new(Arc::clone(self.session.bridge()), Arc::clone(self.session.scope()), request)
    }

    /// Ends the session; blocked calls return CLOSED. The handle stays valid.
    pub fn shutdown(&self) -> Result<()> {
        self.session.bridge().check_process()?;
        self.session.end("the destination was closed");
        Ok(())
    }
}

impl Drop for Dest {
    fn drop(&mut self) {
        if self.session.bridge().fork.in_child() {
            self.session.abandon();
        } else {
            self.session.end("the destination was closed");
        }
    }
}
