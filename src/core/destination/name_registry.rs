//! Named destinations of a controller: who has a name, who waits for it, and the folder its keys are kept in.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::Mutex;

use crate::core::bridge::Bridge;
use crate::core::destination::destination::Destination;
use crate::core::store::{KeyStore, NameLock};
use crate::error::{Error, Operation, Result};
use crate::identity::Keys;
use crate::sys::Wake;

/// The names of a controller.
pub struct NameRegistry {
    bridge: Arc<Bridge>,
    store: Option<KeyStore>,
    names: Mutex<HashMap<String, Entry>>,
}

/// A name that is taken.
#[derive(Default)]
struct Entry {
    /// Whose it is; nobody's yet while the destination is being opened.
    destination: Weak<Destination>,
    waiting: Vec<Weak<Wake>>,
}

/// What became of asking for a name.
pub enum NameTurn {
    /// It is open already: one more handle to it.
    Shared(Arc<Destination>),
    /// It is the caller's to open.
    Mine(NameLease),
    /// Somebody is just opening or closing it: ask again when this is readable.
    Wait(Arc<Wake>),
}

impl NameRegistry {
    /// Without a folder no name can be taken.
    pub fn new(bridge: Arc<Bridge>, store: Option<KeyStore>) -> Arc<Self> {
        Arc::new(NameRegistry { bridge, store, names: Mutex::default() })
    }

    /// Asks for `name`; whoever has it may have it shared.
    pub fn turn(self: &Arc<Self>, name: &str, now: Instant) -> Result<NameTurn> {
        let Some(store) = &self.store else {
            return Err(Error::invalid(
                "a named destination needs a folder for its keys: set the controller's option key_store",
            ));
        };
        crate::core::store::check_name(name)?;
        // Whoever has the name may have lost its session without anybody having looked yet.
        let holder = self.names.lock().get(name).and_then(|entry| entry.destination.upgrade());
        if let Some(holder) = holder {
            holder.look(now);
        }
        // Declared first, so that it is dropped without the lock: the last one to drop it needs that.
        let known;
        let mut names = self.names.lock();
        if let Some(entry) = names.get_mut(name) {
            known = entry.destination.upgrade();
            if let Some(destination) = known.as_ref().filter(|destination| destination.join()) {
                return Ok(NameTurn::Shared(Arc::clone(destination)));
            }
            let wake = Wake::new().map_err(|error| Error::io(Operation::Create, "a descriptor", &error))?;
            let wake = Arc::new(wake);
            entry.waiting.retain(|known| known.strong_count() > 0);
            entry.waiting.push(Arc::downgrade(&wake));
            return Ok(NameTurn::Wait(wake));
        }
        // Under the lock: two threads must not meet each other's file lock.
        let claim = store.lock(name).map_err(|error| error.during(Operation::Create))?;
        names.insert(name.to_owned(), Entry::default());
        drop(names);
        Ok(NameTurn::Mine(NameLease { named: Arc::clone(self), name: name.to_owned(), claim: Some(claim) }))
    }

    /// Whoever waits for a name has to look again: the controller is closed.
    pub fn wake_all(&self) {
        let waiting: Vec<_> =
            self.names.lock().values_mut().flat_map(|entry| std::mem::take(&mut entry.waiting)).collect();
        wake(&waiting);
    }
}

/// A name that is ours until this is dropped.
pub struct NameLease {
    named: Arc<NameRegistry>,
    name: String,
    claim: Option<NameLock>,
}

impl NameLease {
    /// The keys that belong to the name, if there are any yet.
    pub fn load(&self) -> Result<Option<Keys>> {
        self.claim.as_ref().map_or(Ok(None), NameLock::load).map_err(|error| error.during(Operation::Create))
    }

    /// Keeps new keys.
    pub fn save(&self, keys: &Keys) -> Result<()> {
        let saved = self.claim.as_ref().map_or(Ok(()), |claim| claim.save(keys));
        saved.map_err(|error| error.during(Operation::Create))
    }

    /// From now on the name can be shared.
    pub fn settle(&self, destination: &Arc<Destination>) {
        let waiting = {
            let mut names = self.named.names.lock();
            let Some(entry) = names.get_mut(&self.name) else { return };
            entry.destination = Arc::downgrade(destination);
            std::mem::take(&mut entry.waiting)
        };
        wake(&waiting);
    }
}

impl Drop for NameLease {
    fn drop(&mut self) {
        // In a child of fork(2) the name is the parent's, and its lock may be held by a thread that is not here.
        if self.named.bridge.process.in_child() {
            if let Some(claim) = &self.claim {
                claim.abandon();
            }
            return;
        }
        let waiting = {
            let mut names = self.named.names.lock();
            // The file first: whoever gets the name next gets its lock, too.
            self.claim = None;
            names.remove(&self.name).map(|entry| entry.waiting).unwrap_or_default()
        };
        wake(&waiting);
    }
}

fn wake(waiting: &[Weak<Wake>]) {
    for wake in waiting.iter().filter_map(Weak::upgrade) {
        wake.set();
    }
}
