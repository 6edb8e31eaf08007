//! Where the answer to a lookup arrives, whatever way it was asked.

use crate::error::{Error, Operation, Result};
use crate::protocol::control::Answer;
use crate::sys::lock::{Rank, RankedMutex};
use crate::sys::Wake;

/// Receives the answer to one lookup.
pub struct AnswerSlot {
    inside: RankedMutex<Inside>,
    /// Readable once the answer has arrived.
    pub wake: Wake,
}

struct Inside {
    answer: Option<Answer>,
    /// Dropped when the answer arrives, even if nobody takes that: the place of the lookup.
    kept: Option<Box<dyn Send>>,
}

impl AnswerSlot {
    pub fn new(kept: Option<Box<dyn Send>>) -> Result<Self> {
        let wake = Wake::new().map_err(|error| Error::io(Operation::Lookup, "a descriptor for the lookup", &error))?;
        Ok(AnswerSlot { inside: RankedMutex::new(Rank::LookupAnswer, Inside { answer: None, kept }), wake })
    }

    pub fn put(&self, answer: Answer) {
        let mut inside = self.inside.lock();
        inside.answer.get_or_insert(answer);
        inside.kept = None;
        self.wake.set();
    }

    /// Takes the answer, if it has arrived.
    pub fn take(&self) -> Option<Answer> {
        self.inside.lock().answer.take()
    }
}
