//! Named destinations of a controller: which names are taken, who waits for them, and the folder their keys are kept in.
//!
//! ```text
//! free --turn--> Opening --settle--> Open --lease dropped--> Closing --file unlocked--> free
//!                   '------------- lease dropped --------------^
//! ```
//!
//! The lock of the list is held only to look a name up and to note its state. A folder may take any time to answer, so
//! all that is done on the disk is done without a lock, by the thread that has the lease. The entry of a name is there
//! before its file is locked and until it is unlocked: other threads of this controller wait for the entry and never
//! meet the lock of the file.

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

/// The names of a controller.
pub struct NameRegistry {
    bridge: Arc<Bridge>,
    store: Option<KeyStore>,
    names: RankedMutex<HashMap<String, Entry>>,
}

/// A name that is taken.
struct Entry {
    state: State,
    /// Those that ask again when the name can be shared, or is free.
    waiting: Vec<Weak<Wake>>,
}

enum State {
    /// Its file is being locked, or its destination opened.
    Opening,
    /// A destination has it.
    Open(Weak<Destination>),
    /// The destination has ended or could not be opened, and the file is being unlocked.
    Closing,
}

impl Entry {
    fn holder(&self) -> Option<Arc<Destination>> {
        match &self.state {
            State::Open(holder) => holder.upgrade(),
            State::Opening | State::Closing => None,
        }
    }

    /// Something that is set when it is worth asking again.
    fn wait(&mut self) -> Result<Arc<Wake>> {
        let wake = Wake::new().map_err(|error| Error::io(Operation::Create, "a descriptor", &error))?;
        let wake = Arc::new(wake);
        self.waiting.retain(|known| known.strong_count() > 0);
        self.waiting.push(Arc::downgrade(&wake));
        Ok(wake)
    }
}

/// What became of asking for a name.
pub enum NameTurn {
    /// It is open already: one more handle to it.
    Shared(Arc<Destination>),
    /// It is the caller's to open.
    Mine(NameLease),
    /// It is being opened or closed elsewhere: ask again when this is readable.
    Wait(Arc<Wake>),
}

impl NameRegistry {
    /// Without a folder no name can be taken.
    pub fn new(bridge: Arc<Bridge>, store: Option<KeyStore>) -> Arc<Self> {
        Arc::new(NameRegistry { bridge, store, names: RankedMutex::new(Rank::Names, HashMap::new()) })
    }

    /// Asks for `name`, which can be shared when it is open. When it is free its file is locked, which may take as long as
    /// the folder needs.
    pub fn turn(self: &Arc<Self>, name: &str, now: Instant) -> Result<NameTurn> {
        let Some(store) = &self.store else {
            return Err(Error::invalid(
                "a named destination needs a folder for its keys: set the controller's option key_store",
            ));
        };
        crate::core::store::check_name(name)?;
        // The holder may have lost its session without having been looked at since.
        let holder = self.names.lock().get(name).and_then(Entry::holder);
        if let Some(holder) = holder {
            holder.look(now);
        }
        let ticket = match self.ask(name)? {
            Asked::Shared(holder) => return Ok(NameTurn::Shared(holder)),
            Asked::Wait(wake) => return Ok(NameTurn::Wait(wake)),
            Asked::Free(ticket) => ticket,
        };
        // If that fails the ticket goes back, and those that have come to wait try it themselves.
        let claim = store.lock(name).map_err(|error| error.during(Operation::Create))?;
        Ok(NameTurn::Mine(NameLease { claim, ticket }))
    }

    /// The part of `turn` that needs the lock, and no time.
    fn ask(self: &Arc<Self>, name: &str) -> Result<Asked> {
        // Declared first, so that it is dropped without the lock: dropping the last reference ends a destination.
        let holder;
        let mut names = self.names.lock();
        let Some(entry) = names.get_mut(name) else {
            names.insert(name.to_owned(), Entry { state: State::Opening, waiting: Vec::new() });
            return Ok(Asked::Free(NameTicket { named: Arc::clone(self), name: name.to_owned() }));
        };
        holder = entry.holder();
        match holder.as_ref().filter(|holder| holder.join()) {
            Some(holder) => Ok(Asked::Shared(Arc::clone(holder))),
            None => entry.wait().map(Asked::Wait),
        }
    }

    /// The controller is closed: those that wait for a name have to look again.
    pub fn wake_all(&self) {
        let waiting: Vec<_> =
            self.names.lock().values_mut().flat_map(|entry| std::mem::take(&mut entry.waiting)).collect();
        wake(&waiting);
    }
}

/// What the list says about a name.
enum Asked {
    Shared(Arc<Destination>),
    Wait(Arc<Wake>),
    Free(NameTicket),
}

/// The entry of a name in the list, which goes when this is dropped.
struct NameTicket {
    named: Arc<NameRegistry>,
    name: String,
}

impl NameTicket {
    /// Notes the state of the name.
    fn set(&self, state: State) {
        if let Some(entry) = self.named.names.lock().get_mut(&self.name) {
            entry.state = state;
        }
    }

    fn in_child(&self) -> bool {
        self.named.bridge.process.in_child()
    }
}

impl Drop for NameTicket {
    fn drop(&mut self) {
        // In a child of fork(2) the list is the parent's, and may be locked by a thread that is not here.
        if self.in_child() {
            return;
        }
        let entry = self.named.names.lock().remove(&self.name);
        wake(&entry.map(|entry| entry.waiting).unwrap_or_default());
    }
}

/// A name that is ours until this is dropped.
pub struct NameLease {
    // In this order: the next one to get the name gets the lock of its file, too.
    claim: NameLock,
    ticket: NameTicket,
}

impl NameLease {
    /// The keys that belong to the name, if there are any yet.
    pub fn load(&self) -> Result<Option<Keys>> {
        self.claim.load().map_err(|error| error.during(Operation::Create))
    }

    /// Keeps new keys.
    pub fn save(&self, keys: &Keys) -> Result<()> {
        self.claim.save(keys).map_err(|error| error.during(Operation::Create))
    }

    /// From now on the name can be shared.
    pub fn settle(&self, destination: &Arc<Destination>) {
        let waiting = {
            let mut names = self.ticket.named.names.lock();
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
            // The name is the parent's.
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
