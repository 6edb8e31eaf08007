//! What waits to be written: whole messages, one per write, because bridges discard what stands behind the first line of
//! a read. Wiped, because one of them may carry a private key.

use std::collections::VecDeque;

use crate::secret::Secret;

/// Messages that wait to be written.
#[derive(Default)]
pub struct Outbox {
    messages: VecDeque<Secret>,
    /// Bytes of the first message that are on their way already.
    begun: usize,
    unsent: usize,
}

impl Outbox {
    /// Adds a message.
    pub fn push(&mut self, message: Secret) {
        if !message.is_empty() {
            self.unsent += message.len();
            self.messages.push_back(message);
        }
    }

    /// Bytes to write with one call; empty when there are none.
    pub fn front(&self) -> &[u8] {
        self.messages.front().and_then(|message| message.as_bytes().get(self.begun..)).unwrap_or_default()
    }

    /// The first `count` bytes of the front are on their way.
    pub fn wrote(&mut self, count: usize) {
        let count = count.min(self.front().len());
        self.begun += count;
        self.unsent -= count;
        if self.front().is_empty() {
            self.messages.pop_front();
            self.begun = 0;
        }
    }

    /// Bytes that wait.
    pub fn unsent(&self) -> usize {
        self.unsent
    }

    /// Drops everything.
    pub fn clear(&mut self) {
        *self = Outbox::default();
    }
}
