//! Lookups through a session's control socket: where their answers arrive.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use crate::error::{Error, Operation, Result};
use crate::protocol::control::Answer;
use crate::sys::lock::{Rank, RankedMutex};
use crate::sys::{self, SharedFd, Wake, Watch};

/// A lookup on its way through a session's control socket.
pub struct Ticket {
    /// Number in the engine.
    pub number: u64,
    /// Where the answer arrives.
    pub slot: Arc<Slot>,
    /// Without a keeper: readable for the answer and for whatever the control socket has.
    pub watch: Option<Watch>,
}

/// Where the answer to a lookup arrives.
pub struct Slot {
    answer: RankedMutex<Option<Answer>>,
    /// Readable once the answer is there.
    pub wake: Wake,
}

impl Slot {
    /// An empty one.
    pub fn new() -> Result<Arc<Self>> {
        let wake = Wake::new().map_err(|error| Error::io(Operation::Lookup, "a descriptor for the lookup", &error))?;
        Ok(Arc::new(Slot { answer: RankedMutex::new(Rank::LookupAnswer, None), wake }))
    }

    /// One descriptor for the answer and for the control socket.
    pub fn watch(&self, control: &SharedFd, events: i16) -> Result<Watch> {
        let watched = Watch::new().and_then(|watch| {
            watch.add(&self.wake, sys::IN)?;
            watch.add(control, events)?;
            Ok(watch)
        });
        watched.map_err(|error| Error::io(Operation::Lookup, "a descriptor for the lookup", &error))
    }

    /// Delivers the answer.
    pub fn put(&self, answer: Answer) {
        self.answer.lock().get_or_insert(answer);
        self.wake.set();
    }

    /// The answer, if it is there.
    pub fn take(&self) -> Option<Answer> {
        self.answer.lock().take()
    }
}

/// Slots by number; those of callers that went away are gone by themselves.
pub(super) type Slots = HashMap<u64, Weak<Slot>>;
