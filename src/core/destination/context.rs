//! What a controller and its destinations share: the bridge, the thread, the names, and everything that is open.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::core::bridge::{Bridge, BridgeConnection};
use crate::core::destination::destination::{Destination, State};
use crate::core::destination::name_registry::NameRegistry;
use crate::core::drive::{Keeper, Scope};
use crate::core::session::Session;
use crate::error::{Error, Operation, Result};
use crate::protocol::request::Request;

/// What is shared.
pub struct Context {
    /// The bridge.
    pub bridge: Arc<Bridge>,
    /// Connections that belong to no session.
    pub scope: Arc<Scope>,
    /// The thread that keeps sessions alive, if there is one.
    pub keeper: Option<Arc<Keeper>>,
    /// Destinations that have a name.
    pub named: Arc<NameRegistry>,
    /// All destinations.
    pub presences: Mutex<Vec<Weak<Destination>>>,
}

impl Context {
    /// The error for whatever is tried through a controller that was closed, or in a child of fork(2).
    pub fn check_open(&self, operation: Operation) -> Result<()> {
        self.bridge.check_process()?;
        match self.scope.cause() {
            Some(cause) => Err(cause.during(operation)),
            None => Ok(()),
        }
    }

    /// A session that can be asked for names.
    pub fn live_session(&self) -> Option<Arc<Session>> {
        let presences = self.presences.lock();
        presences.iter().filter_map(Weak::upgrade).find(|p| p.state().0 == State::Ready).map(|p| p.session())
    }

    /// A connection that asks the bridge for something.
    pub fn ask(&self, request: Request) -> Result<BridgeConnection> {
        BridgeConnection::new(Arc::clone(&self.bridge), Arc::clone(&self.scope), request)
    }

    /// Takes charge of a new destination.
    pub fn add(&self, presence: &Arc<Destination>) -> Result<()> {
        let mut presences = self.presences.lock();
        // Under the lock that `close` takes after the scope has ended: none slips through.
        self.check_open(Operation::Create)?;
        presences.retain(|known| known.strong_count() > 0);
        presences.push(Arc::downgrade(presence));
        Ok(())
    }

    /// Ends everything that is open through this controller and its thread.
    pub fn close(&self) {
        if self.bridge.process.in_child() {
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
