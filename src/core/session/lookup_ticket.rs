//! Where the answers to lookups on a session's control socket arrive.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use crate::error::{Error, Operation, Result};
use crate::protocol::control::Answer;
use crate::sys::lock::{Rank, RankedMutex};
use crate::sys::{self, SharedFd, Wake, Watch};

/// A lookup in progress on a session's control socket.
pub struct Ticket {
    /// Its number in the [`super::ControlSocket`].
    pub number: u64,
    pub slot: Arc<Slot>,
    /// Without a keeper: readable when the answer has arrived or the control socket needs attention.
    pub watch: Option<Watch>,
}

/// Receives the answer to one lookup.
pub struct Slot {
    answer: RankedMutex<Option<Answer>>,
    /// Readable once the answer has arrived.
    pub wake: Wake,
}

impl Slot {
    pub fn new() -> Result<Arc<Self>> {
        let wake = Wake::new().map_err(|error| Error::io(Operation::Lookup, "a descriptor for the lookup", &error))?;
        Ok(Arc::new(Slot { answer: RankedMutex::new(Rank::LookupAnswer, None), wake }))
    }

    /// Creates one descriptor that covers both the answer and the control socket.
    pub fn watch(&self, control: &SharedFd, events: i16) -> Result<Watch> {
        let watched = Watch::new().and_then(|watch| {
            watch.add(&self.wake, sys::IN)?;
            watch.add(control, events)?;
            Ok(watch)
        });
        watched.map_err(|error| Error::io(Operation::Lookup, "a descriptor for the lookup", &error))
    }

    pub fn put(&self, answer: Answer) {
        self.answer.lock().get_or_insert(answer);
        self.wake.set();
    }

    /// Takes the answer, if it has arrived.
    pub fn take(&self) -> Option<Answer> {
        self.answer.lock().take()
    }
}

/// Slots by lookup number; weak, so those of callers that went away vanish by themselves.
pub(super) type Slots = HashMap<u64, Weak<Slot>>;
