//! The named destinations of a controller: which names are taken, who is waiting for them, and the folder with their
//! keys.
//!
//! ```text
//! free --turn--> Opening --settle--> Open --lease dropped--> Closing --file unlocked--> free
//!                   '------------- lease dropped --------------^
//! ```
//!
//! The list is locked only to look up a name and record its state. Disk access may take arbitrarily long, so it happens
//! without the lock, on the thread that has the lease. The entry of a name exists before its file is locked and until
//! after it is unlocked: other threads of this controller wait for the entry and never contend for the file lock.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Instant;

use crate::core::bridge::Bridge;
use crate::core::destination::destination::Destination;
use crate::core::store::{KeyStore, NameLock};
use crate::error::{Error, Operation, Result};
use crate::identity::Keys;
use crate::sys::lock::{Rank, RankedMutex};
use crate::sys::Wake;

pub struct NameRegistry {
    bridge: Arc<Bridge>,
    store: Option<KeyStore>,
    names: RankedMutex<HashMap<String, Entry>>,
}

struct Entry {
    state: State,
    /// Set when the name can be shared or is free, so that the waiters ask again.
    waiting: Vec<Weak<Wake>>,
}

enum State {
    /// Its file is being locked, or its destination is being opened.
    Opening,
    /// An open destination has the name.
    Open(Weak<Destination>),
    /// The destination has ended or failed to open, and the file is being unlocked.
    Closing,
}

impl Entry {
    fn holder(&self) -> Option<Arc<Destination>> {
        match &self.state {
            State::Open(holder) => holder.upgrade(),
            State::Opening | State::Closing => None,
        }
    }

    /// Returns an event that is set when it is worth asking again.
    fn wait(&mut self) -> Result<Arc<Wake>> {
        let wake = Wake::new().map_err(|error| Error::io(Operation::Create, "a descriptor", &error))?;
        let wake = Arc::new(wake);
        self.waiting.retain(|known| known.strong_count() > 0);
        self.waiting.push(Arc::downgrade(&wake));
        Ok(wake)
    }
}

/// The result of asking for a name.
pub enum NameTurn {
    /// It is already open; one more handle was counted.
    Shared(Arc<Destination>),
    /// The caller may open it.
    Mine(NameLease),
    /// Another thread is opening or closing it: ask again when this is readable.
    Wait(Arc<Wake>),
}

impl NameRegistry {
    /// Without a `store`, names cannot be used.
    pub fn new(bridge: Arc<Bridge>, store: Option<KeyStore>) -> Arc<Self> {
        Arc::new(NameRegistry { bridge, store, names: RankedMutex::new(Rank::Names, HashMap::new()) })
    }

    /// Asks for `name`: shares it if it is open. If it is free, locks its file, which takes as long as the disk needs.
    pub fn turn(self: &Arc<Self>, name: &str, now: Instant) -> Result<NameTurn> {
        let Some(store) = &self.store else {
            return Err(Error::invalid(
                "a named destination needs a folder for its keys: set the controller's option key_store",
            ));
        };
        crate::core::store::check_name(name)?;
        // The holder may have lost its session without having noticed yet.
        let holder = self.names.lock().get(name).and_then(Entry::holder);
        if let Some(holder) = holder {
            holder.look(now);
        }
        let ticket = match self.ask(name)? {
            Asked::Shared(holder) => return Ok(NameTurn::Shared(holder)),
            Asked::Wait(wake) => return Ok(NameTurn::Wait(wake)),
            Asked::Free(ticket) => ticket,
        };
        // If this fails, dropping the ticket frees the name and wakes the waiters, which then try it themselves.
        let claim = store.lock(name).map_err(|error| error.during(Operation::Create))?;
        Ok(NameTurn::Mine(NameLease { claim, ticket }))
    }

    /// The part of `turn` that needs the lock and takes no time.
    fn ask(self: &Arc<Self>, name: &str) -> Result<Asked> {
        // Declared first, so that it is dropped after the lock: dropping the last reference ends a destination.
        let holder;
        let mut names = self.names.lock();
        let Some(entry) = names.get_mut(name) else {
            names.insert(name.to_owned(), Entry { state: State::Opening, waiting: Vec::new() });
            return Ok(Asked::Free(NameTicket { registry: Arc::clone(self), name: name.to_owned() }));
        };
        holder = entry.holder();
        match holder.as_ref().filter(|holder| holder.join()) {
            Some(holder) => Ok(Asked::Shared(Arc::clone(holder))),
            None => entry.wait().map(Asked::Wait),
        }
    }

    /// Called when the controller is closed: makes everyone waiting for a name look again.
    pub fn wake_all(&self) {
        let waiting: Vec<_> =
            self.names.lock().values_mut().flat_map(|entry| std::mem::take(&mut entry.waiting)).collect();
        wake(&waiting);
    }
}

/// What the list says about a name; see [`NameTurn`].
enum Asked {
    Shared(Arc<Destination>),
    Wait(Arc<Wake>),
    Free(NameTicket),
}

/// Owns the entry of a name in the list; dropping it removes the entry.
struct NameTicket {
    registry: Arc<NameRegistry>,
    name: String,
}

impl NameTicket {
    fn set(&self, state: State) {
        if let Some(entry) = self.registry.names.lock().get_mut(&self.name) {
            entry.state = state;
        }
    }

    fn in_child(&self) -> bool {
        self.registry.bridge.process.in_child()
    }
}

impl Drop for NameTicket {
    fn drop(&mut self) {
        // In a child of fork(2) the list belongs to the parent and may be locked by a thread that does not exist here.
        if self.in_child() {
            return;
        }
        let entry = self.registry.names.lock().remove(&self.name);
        wake(&entry.map(|entry| entry.waiting).unwrap_or_default());
    }
}

/// Ownership of a name, until this is dropped.
pub struct NameLease {
    // Dropped in this order: the file must be unlocked before the next owner can get the name.
    claim: NameLock,
    ticket: NameTicket,
}

impl NameLease {
    /// Loads the keys of the name, if it has any yet.
    pub fn load(&self) -> Result<Option<Keys>> {
        self.claim.load().map_err(|error| error.during(Operation::Create))
    }

    /// When the last session under this name ended, in any process, as far as it matters.
    pub fn last_end(&self, now: Instant) -> Option<Instant> {
        self.claim.last_end(now)
    }

    /// Records that there may have been a session under this name.
    pub fn set_used(&self) {
        self.claim.set_used();
    }

    /// Stores new keys for the name.
    pub fn save(&self, keys: &Keys) -> Result<()> {
        self.claim.save(keys).map_err(|error| error.during(Operation::Create))
    }

    /// Lets others share the name from now on.
    pub fn settle(&self, destination: &Arc<Destination>) {
        let waiting = {
            let mut names = self.ticket.registry.names.lock();
            let Some(entry) = names.get_mut(&self.ticket.name) else { return };
            entry.state = State::Open(Arc::downgrade(destination));
            std::mem::take(&mut entry.waiting)
        };
        wake(&waiting);
    }
}

impl Drop for NameLease {
    fn drop(&mut self) {
        match self.ticket.in_child() {
            // The name belongs to the parent.
            true => self.claim.abandon(),
            false => self.ticket.set(State::Closing),
        }
    }
}

fn wake(waiting: &[Weak<Wake>]) {
    for wake in waiting.iter().filter_map(Weak::upgrade) {
        wake.set();
    }
}
