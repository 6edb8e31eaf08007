//! Output queue of whole messages, one per write, because bridges discard whatever they read after the first line.
//! Wiped, as a message may contain a private key.

use std::collections::VecDeque;

use crate::secret::Secret;

/// Messages waiting to be written.
#[derive(Default)]
pub struct Outbox {
    messages: VecDeque<Secret>,
    /// Bytes of the first message that were already written.
    begun: usize,
    unsent: usize,
}

impl Outbox {
    /// Adds a message to the end of the queue.
    pub fn push(&mut self, message: Secret) {
        if !message.is_empty() {
            self.unsent += message.len();
            self.messages.push_back(message);
        }
    }

    /// Bytes to write with one call; empty if there are none.
    pub fn front(&self) -> &[u8] {
        self.messages.front().and_then(|message| message.as_bytes().get(self.begun..)).unwrap_or_default()
    }

    /// Records that the first `count` bytes of the front were written.
    pub fn wrote(&mut self, count: usize) {
        let count = count.min(self.front().len());
        self.begun += count;
        self.unsent -= count;
        if self.front().is_empty() {
            self.messages.pop_front();
            self.begun = 0;
        }
    }

    /// Total number of bytes waiting to be written.
    pub fn unsent(&self) -> usize {
        self.unsent
    }

    /// Discards all messages.
    pub fn clear(&mut self) {
        *self = Outbox::default();
    }
}
