//! What a controller and its destinations share: the bridge, the thread, the names, and everything that is open.

use std::sync::{Arc, Weak};

use crate::core::bridge::{Bridge, BridgeConnection};
use crate::core::destination::destination::Destination;
use crate::core::destination::name_registry::NameRegistry;
use crate::core::destination::state::State;
use crate::core::drive::{log, Driver, Scope};
use crate::core::session::Session;
use crate::error::{Error, Operation, Result};
use crate::protocol::request::Request;
use crate::sys::lock::RankedMutex;

/// What is shared.
pub struct Context {
    /// The bridge.
    pub bridge: Arc<Bridge>,
    /// Connections that belong to no session.
    pub scope: Arc<Scope>,
    /// Who keeps the sessions alive.
    pub driver: Driver,
    /// Destinations that have a name.
    pub names: Arc<NameRegistry>,
    /// All destinations.
    pub destinations: RankedMutex<Vec<Weak<Destination>>>,
}

impl Context {
    /// The error for whatever is tried through a controller that was closed, or in a child of fork(2).
    pub fn check_open(&self, operation: Operation) -> Result<()> {
        self.bridge.check_process()?;
        self.scope.check(operation)
    }

    /// A session that can be asked for names.
    pub fn live_session(&self) -> Option<Arc<Session>> {
        let destinations = self.destinations.lock();
        destinations.iter().filter_map(Weak::upgrade).find(|one| one.state().0 == State::Ready).map(|one| one.session())
    }

    /// A connection that asks the bridge for something.
    pub fn ask(&self, request: Request) -> Result<BridgeConnection> {
        BridgeConnection::new(Arc::clone(&self.bridge), Arc::clone(&self.scope), request)
    }

    /// Takes charge of a new destination.
    pub fn add(&self, destination: &Arc<Destination>) -> Result<()> {
        let mut destinations = self.destinations.lock();
        // Under the lock that `close` takes after the scope has ended: none slips through.
        self.check_open(Operation::Create)?;
        destinations.retain(|known| known.strong_count() > 0);
        destinations.push(Arc::downgrade(destination));
        Ok(())
    }

    /// Ends everything that is open through this controller and its thread.
    pub fn close(&self) {
        let _edge = log::edge();
        if self.bridge.process.in_child() {
            self.driver.abandon_all();
            return;
        }
        // Control sockets of sessions are left out: those are ended by their sessions, which tell why first.
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
