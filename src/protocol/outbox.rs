//! Output queue of whole messages, one per write, because bridges discard whatever they read after the first line. Only
//! PONGs in a row are one message: they are no commands, and there may be many. Wiped, as a message may contain a
//! private key.

use std::collections::VecDeque;

use crate::secret::{Gathered, Secret};

/// Length from which on PONGs are not joined by more, so that what was written is dropped some time.
const JOINED: usize = 4096;

/// Messages waiting to be written.
#[derive(Default)]
pub struct Outbox {
    messages: VecDeque<Message>,
    /// Bytes of the first message that were already written.
    begun: usize,
    unsent: usize,
}

enum Message {
    One(Secret),
    Pongs(Gathered),
}

impl Message {
    fn as_bytes(&self) -> &[u8] {
        match self {
            Message::One(message) => message.as_bytes(),
            Message::Pongs(lines) => lines.as_bytes(),
        }
    }
}

impl Outbox {
    /// Adds a message to the end of the queue.
    pub fn push(&mut self, message: Secret) {
        if message.is_empty() {
            return;
        }
        self.unsent += message.len();
        if !message.as_bytes().starts_with(b"PONG") {
            self.messages.push_back(Message::One(message));
            return;
        }
        match self.messages.back_mut() {
            Some(Message::Pongs(lines)) if lines.len() < JOINED => lines.extend(message.as_bytes()),
            _ => {
                let mut lines = Gathered::default();
                lines.extend(message.as_bytes());
                self.messages.push_back(Message::Pongs(lines));
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What each write has, if a write takes at most `most` bytes.
    fn writes(outbox: &mut Outbox, most: usize) -> Vec<String> {
        let mut all = Vec::new();
        while !outbox.front().is_empty() {
            let front = outbox.front();
            let part = front.get(..most.min(front.len())).unwrap();
            all.push(String::from_utf8(part.to_vec()).unwrap());
            outbox.wrote(all.last().unwrap().len());
        }
        assert_eq!(outbox.unsent(), 0);
        all
    }

    fn outbox(messages: &[&str]) -> Outbox {
        let mut outbox = Outbox::default();
        messages.iter().for_each(|message| outbox.push(Secret::from_slice(message.as_bytes())));
        assert_eq!(outbox.unsent(), messages.concat().len());
        outbox
    }

    #[test]
    fn pongs_go_together_and_commands_alone() {
        let mut outbox =
            outbox(&["PONG 1\n", "PONG 2\n", "NAMING LOOKUP\n", "", "RAW SEND\nPONG", "PONG\n", "PONG 3\n"]);
        assert_eq!(
            writes(&mut outbox, 1000),
            ["PONG 1\nPONG 2\n", "NAMING LOOKUP\n", "RAW SEND\nPONG", "PONG\nPONG 3\n"]
        );
    }

    #[test]
    fn a_pong_may_join_others_of_which_a_part_is_out() {
        let mut outbox = outbox(&["PONG 1\n"]);
        outbox.wrote(3);
        outbox.push(Secret::from_slice(b"PONG 2\n"));
        assert_eq!((outbox.front(), outbox.unsent()), (&b"G 1\nPONG 2\n"[..], 11));
        assert_eq!(writes(&mut outbox, 4), ["G 1\n", "PONG", " 2\n"]);
    }

    /// The first message would otherwise never end.
    #[test]
    fn a_bridge_that_always_leaves_a_part_unread_does_not_make_it_grow() {
        let mut outbox = outbox(&["PONG 1\n"]);
        for _ in 0..10 * JOINED {
            outbox.push(Secret::from_slice(b"PONG 2\n"));
            outbox.wrote(7);
        }
        assert!(outbox.begun <= JOINED + 7 && outbox.messages.len() <= 2, "{}", outbox.begun);
    }
}
