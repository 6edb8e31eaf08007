//! A destination of ours: a handle to its presence on the router, and how that begins.

use std::sync::Arc;

use crate::core::acceptors::Parked;
use crate::core::controller::{Controller, ED25519};
use crate::core::dgram::Dgram;
use crate::core::exchange::{Exchange, Finished};
use crate::core::named::{Hold, Turn};
use crate::core::options::{Options, Owner};
use crate::core::pending::{Goal, Limit, Pending, Product};
use crate::core::presence::{Beginning, Presence};
use crate::core::recipe::Recipe;
use crate::core::session::{Session, Style};
use crate::error::{Error, Operation, Result, Status};
use crate::keys::Keys;
use crate::name::Target;
use crate::protocol::request::{NewIdentity, Request};
use crate::sys::Wake;

/// A destination that is to be opened.
pub struct DestPlan {
    recipe: Recipe,
    options: Options,
    id: String,
    hold: Option<Hold>,
    /// Those it is opened with; without any the router makes new ones.
    keys: Option<Keys>,
}

/// What comes next in opening a destination.
pub enum Next {
    /// The bridge is to be asked for a session.
    Ask(Box<Exchange>),
    /// Somebody is just opening or closing it: try again when this is readable.
    Wait(Arc<Wake>),
    /// It is open already.
    Done(Dest),
}

impl DestPlan {
    /// Checks the arguments of an open.
    pub fn new(name: &str, style: i32, options: &Options) -> Result<Self> {
        let recipe = Recipe::new(name, style, options)?;
        Ok(DestPlan { recipe, options: options.duplicate(), id: Recipe::new_id()?, hold: None, keys: None })
    }

    /// Whether it has a name.
    pub fn is_named(&self) -> bool {
        !self.recipe.name.is_empty()
    }

    /// Takes the next step.
    pub fn next(&mut self, controller: &Arc<Controller>) -> Result<Next> {
        if self.is_named() && self.hold.is_none() {
            match controller.named().turn(&self.recipe.name)? {
                Turn::Shared(presence) => {
                    // From here on the handle counts, also if it turns out to be the wrong one.
                    let dest = Dest { presence, controller: Arc::clone(controller) };
                    dest.presence.recipe().check_shareable(&self.recipe)?;
                    self.check_keys(dest.presence.keys())?;
                    return Ok(Next::Done(dest));
                }
                Turn::Wait(wake) => return Ok(Next::Wait(wake)),
                Turn::Mine(hold) => {
                    let kept = hold.load()?;
                    if let Some(kept) = &kept {
                        self.check_keys(kept)?;
                    }
                    self.keys = kept;
                    self.hold = Some(hold);
                }
            }
        }
        if self.keys.is_none() {
            self.keys = self.options.keys().map(Keys::duplicate);
        }
        if self.recipe.port.is_none() {
            self.recipe.bind(controller.bridge(), &self.options)?;
        }
        let identity = match &self.keys {
            Some(keys) => keys.duplicate().into(),
            None => NewIdentity::Transient(self.options.number("signature_type").unwrap_or(ED25519)),
        };
        controller.ask(self.recipe.request(self.id.clone(), identity)).map(|exchange| Next::Ask(Box::new(exchange)))
    }

    /// Keys that exist already must be those the caller asks for.
    fn check_keys(&self, kept: &Keys) -> Result<()> {
        let state = |message| Err(Error::new(Status::State, Operation::Create, message));
        let name = &self.recipe.name;
        if self.options.keys().is_some_and(|given| given.address() != kept.address()) {
            return state(format!("destination \"{name}\" exists with other keys than those that are given"));
        }
        if self.options.number("signature_type").is_some_and(|wanted: u16| wanted != kept.signature_type()) {
            return state(format!(
                "destination \"{name}\" exists with keys of signature type {}",
                kept.signature_type()
            ));
        }
        Ok(())
    }

    /// Makes the destination of the connection that created its session.
    pub fn finish(self, controller: &Arc<Controller>, created: Finished) -> Result<Dest> {
        let keys = Recipe::keys_of(&created)?;
        if let Some(given) = &self.keys {
            Recipe::check_same(&keys, given.address())?;
        }
        // Those that were given are what the key file has, or what is to be in it.
        let fresh = self.hold.as_ref().map_or(Ok(None), Hold::load)?.is_none();
        let keys = self.keys.unwrap_or(keys);
        if let Some(hold) = self.hold.as_ref().filter(|_| fresh) {
            hold.save(&keys)?;
        }
        let beginning = Beginning { recipe: self.recipe, hold: self.hold, keys, id: self.id, created };
        let presence = Presence::begin(Arc::clone(controller.bridge()), controller.keeper().cloned(), beginning)?;
        let dest = Dest { presence, controller: Arc::clone(controller) };
        controller.add(&dest.presence)?;
        Ok(dest)
    }
}

/// A handle to a destination of ours. When the last one is dropped, its session ends and everything on it.
pub struct Dest {
    presence: Arc<Presence>,
    /// Keeps the thread of the destination's controller from being dropped under it.
    controller: Arc<Controller>,
}

impl Dest {
    /// The destination's presence on the router.
    pub fn presence(&self) -> &Arc<Presence> {
        &self.presence
    }

    /// The controller it was opened through.
    pub fn controller(&self) -> &Arc<Controller> {
        &self.controller
    }

    fn live(&self, operation: Operation) -> Result<Arc<Session>> {
        self.presence.bridge().check_process()?;
        self.presence.live(operation)
    }

    /// The error for what only a destination of style STREAM can do.
    pub fn check_stream(&self, operation: Operation) -> Result<()> {
        if self.presence.style() == Style::Stream {
            return Ok(());
        }
        let message = format!("{operation} is for destinations of style STREAM");
        Err(Error::new(Status::State, operation, message))
    }

    /// Starts connecting to `address`: base64, `name.i2p`, b32 or b33.
    pub fn connect(&self, address: &str, options: &Options, limit: Limit) -> Result<Pending> {
        self.check_stream(Operation::Connect)?;
        let session = self.live(Operation::Connect)?;
        options.check_owner(Owner::Connect)?;
        let target = Target::parse(address)?;
        let request = Request::Connect {
            id: session.id().to_owned(),
            target: target.clone(),
            ports: options.ports(),
            options: options.router_options(),
        };
        let exchange = exchange(&session, request)?;
        Ok(Pending::exchange(exchange, Goal::Connect(session, target), limit))
    }

    /// Starts accepting one stream. An accept that was given up earlier is taken up again: the bridge may be about to
    /// hand it the next stream.
    pub fn accept(&self, limit: Limit) -> Result<Pending> {
        self.check_stream(Operation::Accept)?;
        let session = self.live(Operation::Accept)?;
        let mut log = Vec::new();
        let parked = session.acceptors().adopt(&mut log);
        session.bridge().log.lines(log);
        match parked {
            Some(Parked::Arrived(stream)) => {
                let ready = Pending::ready(session.bridge(), Operation::Accept, Product::Stream(*stream));
                Ok(ready.on(&session))
            }
            Some(Parked::Waiting(exchange)) => Ok(Pending::exchange(*exchange, Goal::Accept(session), limit)),
            None => {
                let exchange = exchange(&session, Request::Accept { id: session.id().to_owned() })?;
                Ok(Pending::exchange(exchange, Goal::Accept(session), limit))
            }
        }
    }

    /// The destination's datagrams.
    pub fn bind(&self) -> Result<Dgram> {
        self.presence.bridge().check_process()?;
        self.presence.check(Operation::None)?;
        let Some(port) = &self.presence.recipe().port else {
            return Err(Error::state("datagrams are for destinations of a datagram style"));
        };
        Ok(Dgram::new(Arc::clone(&self.presence), Arc::clone(port)))
    }

    /// Starts resolving `name`, or "ME", through the session's own connection.
    pub fn lookup(&self, name: &str, limit: Limit) -> Result<Pending> {
        let session = self.live(Operation::Lookup)?;
        if name == "ME" {
            return Pending::lookup(session, name, limit);
        }
        match Target::parse(name)? {
            Target::Destination(address) => {
                Ok(Pending::ready(session.bridge(), Operation::Lookup, Product::Address(address)))
            }
            target => Pending::lookup(session, target.wire(), limit),
        }
    }

    /// Ends the session, whoever shares it; blocked calls return CLOSED. The handle stays valid.
    pub fn shutdown(&self) -> Result<()> {
        self.presence.bridge().check_process()?;
        self.presence.end("the destination was closed");
        Ok(())
    }
}

fn exchange(session: &Arc<Session>, request: Request) -> Result<Exchange> {
    Exchange::new(Arc::clone(session.bridge()), Arc::clone(session.scope()), request)
}

impl Drop for Dest {
    fn drop(&mut self) {
        if self.presence.bridge().fork.in_child() {
            self.presence.abandon();
        } else {
            self.presence.leave();
        }
    }
}
