//! What a controller and its destinations share: the bridge, the keeper, the names, and the list of what is open.

use std::sync::{Arc, Weak};

use crate::core::bridge::{Bridge, BridgeConnection};
use crate::core::destination::destination::Destination;
use crate::core::destination::name_registry::NameRegistry;
use crate::core::destination::state::State;
use crate::core::drive::{log, Driver, Scope};
use crate::core::session::{LookupOwner, Session};
use crate::error::{Error, Operation, Result};
use crate::protocol::request::Request;
use crate::sys::lock::RankedMutex;

/// State shared by a controller and its destinations.
pub struct Context {
    pub bridge: Arc<Bridge>,
    /// Ends connections that belong to no session.
    pub scope: Arc<Scope>,
    pub driver: Driver,
    pub names: Arc<NameRegistry>,
    pub destinations: RankedMutex<Vec<Weak<Destination>>>,
}

impl Context {
    /// Fails if the controller was closed or this is a child of fork(2).
    pub fn check_open(&self, operation: Operation) -> Result<()> {
        self.bridge.check_process()?;
        self.scope.check(operation)
    }

    /// Any session that can do lookups.
    pub fn live_session(&self) -> Option<Arc<Session>> {
        let destinations = self.destinations.lock();
        destinations.iter().filter_map(Weak::upgrade).find(|one| one.state().0 == State::Ready).map(|one| one.session())
    }

    /// Prepares a connection that belongs to no session.
    pub fn ask(&self, request: Request) -> Result<BridgeConnection> {
        BridgeConnection::new(Arc::clone(&self.bridge), Arc::clone(&self.scope), request)
    }

    /// Registers a new destination, which [`Context::close`] will end.
    pub fn add(&self, destination: &Arc<Destination>) -> Result<()> {
        let mut destinations = self.destinations.lock();
        // Checked under the lock, which `close` takes after ending the scope, so that none slips through.
        self.check_open(Operation::Create)?;
        // Drop dead entries before the list grows, so that the cost per destination stays constant.
        if destinations.len() == destinations.capacity() {
            destinations.retain(|known| known.strong_count() > 0);
            let live = destinations.len();
            destinations.reserve(live.max(8));
        }
        destinations.push(Arc::downgrade(destination));
        Ok(())
    }

    /// Ends everything opened through this controller, and its keeper.
    pub fn close(&self) {
        let _edge = log::edge();
        if self.bridge.process.in_child() {
            self.driver.abandon_all();
            return;
        }
        // This spares the sessions' control sockets: the sessions end those themselves, after reporting why.
        self.scope.end(Error::closed(Operation::Session, "the controller was closed"), false);
        let destinations = std::mem::take(&mut *self.destinations.lock());
        for destination in destinations.iter().filter_map(Weak::upgrade) {
            destination.end("the controller was closed");
        }
        self.names.wake_all();
        self.driver.stop();
        self.bridge.log.set(None);
    }
}

/// A lookup through whatever session there is, which survives the end of that.
impl LookupOwner for Arc<Context> {
    fn check(&self) -> Result<()> {
        self.check_open(Operation::Lookup)
    }

    fn session(&self) -> Option<Arc<Session>> {
        self.live_session()
    }

    fn connection(&self, request: Request) -> Result<BridgeConnection> {
        self.ask(request)
    }
}
