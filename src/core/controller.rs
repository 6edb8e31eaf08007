//! A controller: one bridge, checked, and everything that is open through it.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::core::bridge::Bridge;
use crate::core::dest::DestPlan;
use crate::core::exchange::Exchange;
use crate::core::keeper::Keeper;
use crate::core::named::Named;
use crate::core::options::{Options, Owner};
use crate::core::pending::{Goal, Limit, Pending, Product};
use crate::core::presence::{Presence, State};
use crate::core::scope::Scope;
use crate::core::session::Session;
use crate::core::store::Store;
use crate::error::{Error, Operation, Result, Status};
use crate::name::Target;
use crate::protocol::request::Request;
use crate::protocol::Version;

/// The default signature type: Ed25519.
pub const ED25519: u16 = 7;

/// One SAM bridge and what is open through it.
pub struct Controller {
    bridge: Arc<Bridge>,
    scope: Arc<Scope>,
    keeper: Option<Arc<Keeper>>,
    named: Arc<Named>,
    presences: Mutex<Vec<Weak<Presence>>>,
    version: Version,
}

impl Controller {
    /// Resolves the bridge's name, connects to it and says HELLO (leaflet's `check_api`).
    pub fn open(options: &Options) -> Result<Arc<Self>> {
        options.check_owner(Owner::Controller)?;
        let bridge = Arc::new(Bridge::new(options)?);
        let keeper = match options.text("keeper") {
            Some("0") => None,
            _ => Some(Arc::new(Keeper::new()?)),
        };
        let scope = Arc::new(Scope::default());
        let store = options.text("key_store").map(Store::new).transpose()?;
        let version = check(&bridge, &scope, Limit::Default)?;
        let named = Named::new(Arc::clone(&bridge), store);
        Ok(Arc::new(Controller { bridge, scope, keeper, named, presences: Mutex::default(), version }))
    }

    /// The bridge.
    pub fn bridge(&self) -> &Arc<Bridge> {
        &self.bridge
    }

    /// The thread that keeps sessions alive, if there is one.
    pub fn keeper(&self) -> Option<&Arc<Keeper>> {
        self.keeper.as_ref()
    }

    /// Destinations that have a name.
    pub fn named(&self) -> &Arc<Named> {
        &self.named
    }

    /// Version negotiated when the controller was opened.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Connects to the bridge and says HELLO.
    pub fn check(&self, limit: Limit) -> Result<()> {
        self.check_open(Operation::Handshake)?;
        check(&self.bridge, &self.scope, limit).map(drop)
    }

    /// The error for whatever is tried through a controller that was closed, or in a child of fork(2).
    pub fn check_open(&self, operation: Operation) -> Result<()> {
        self.bridge.check_process()?;
        match self.scope.cause() {
            Some(cause) => Err(cause.during(operation)),
            None => Ok(()),
        }
    }

    fn exchange(&self, request: Request, goal: Goal, limit: Limit) -> Result<Pending> {
        Ok(Pending::exchange(self.ask(request)?, goal, limit))
    }

    /// Starts resolving `name`. An address given as text is its own answer; otherwise a live session is asked, where there
    /// is one (some routers can look up only there), else the bridge directly.
    pub fn lookup(self: &Arc<Self>, name: &str, limit: Limit) -> Result<Pending> {
        self.check_open(Operation::Lookup)?;
        if name == "ME" {
            return Err(Error::invalid("\"ME\" is a destination's own address: look it up through a destination"));
        }
        match Target::parse(name)? {
            Target::Destination(address) => {
                Ok(Pending::ready(&self.bridge, Operation::Lookup, Product::Address(address)))
            }
            target => Pending::lookup_by_any(self, target.wire(), limit),
        }
    }

    /// A connection that asks the bridge for `name` directly.
    pub fn lookup_exchange(&self, name: &str) -> Result<Exchange> {
        self.ask(Request::Lookup { name: name.to_owned() })
    }

    /// A session that can be asked for names.
    pub fn live_session(&self) -> Option<Arc<Session>> {
        let presences = self.presences.lock();
        presences.iter().filter_map(Weak::upgrade).find(|p| p.state().0 == State::Ready).map(|p| p.session())
    }

    /// Starts making keys on the router.
    pub fn generate(&self, signature_type: u16, limit: Limit) -> Result<Pending> {
        self.check_open(Operation::Generate)?;
        check_signature_type(signature_type)?;
        self.exchange(Request::Generate { signature_type }, Goal::Keys, limit)
    }

    /// Starts opening a destination.
    pub fn open_dest(self: &Arc<Self>, name: &str, style: i32, options: &Options, limit: Limit) -> Result<Pending> {
        self.check_open(Operation::Create)?;
        Pending::open(self, DestPlan::new(name, style, options)?, limit)
    }

    /// A connection that asks the bridge for something.
    pub fn ask(&self, request: Request) -> Result<Exchange> {
        Exchange::new(Arc::clone(&self.bridge), Arc::clone(&self.scope), request)
    }

    /// Takes charge of a new destination.
    pub fn add(&self, presence: &Arc<Presence>) -> Result<()> {
        let mut presences = self.presences.lock();
        // Under the lock that `close` takes after the scope has ended: none slips through.
        self.check_open(Operation::Create)?;
        presences.retain(|known| known.strong_count() > 0);
        presences.push(Arc::downgrade(presence));
        Ok(())
    }

    /// Ends everything that is open through this controller and its thread.
    pub fn close(&self) {
        if self.bridge.fork.in_child() {
            if let Some(keeper) = &self.keeper {
                keeper.abandon_all();
            }
            return;
        }
        // Control sockets of sessions are left out: those are ended by their sessions, which tell why first.
        self.scope.end(Error::closed(Operation::Session, "the controller was closed"), false);
        let presences = std::mem::take(&mut *self.presences.lock());
        for presence in presences.iter().filter_map(Weak::upgrade) {
            presence.end("the controller was closed");
        }
        self.named.wake_all();
        if let Some(keeper) = &self.keeper {
            keeper.stop();
        }
        self.bridge.log.set(None);
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.close();
    }
}

fn check(bridge: &Arc<Bridge>, scope: &Arc<Scope>, limit: Limit) -> Result<Version> {
    let exchange = Exchange::new(Arc::clone(bridge), Arc::clone(scope), Request::Check)?;
    let mut pending = Pending::exchange(exchange, Goal::Version, limit);
    pending.complete()?;
    match pending.take()? {
        Product::Version(version) => Ok(version),
        _ => Err(Error::new(Status::Internal, Operation::Handshake, "a check without a version")),
    }
}

/// i2pd 2.58 crashes on types it does not know, so only those of the specification are sent.
pub fn check_signature_type(signature_type: u16) -> Result<()> {
    match signature_type {
        0..=3 | 7 | 8 | 11 => Ok(()),
        4..=6 => Err(Error::invalid("RSA signature types are not for destinations")),
        _ => Err(Error::invalid(format!("signature type {signature_type} is unknown; 7 is Ed25519"))),
    }
}
