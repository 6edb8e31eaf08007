//! The one line at the head of a connection that a router makes to us for a forwarded stream. What follows it is
//! payload, and none of it is taken.

use crate::error::{Error, Operation, Result};
use crate::protocol::partial_line::{PartialLine, TooLong};
use crate::protocol::reply::{self, Peer};

/// The line before a forwarded stream: `$destination[ FROM_PORT=n TO_PORT=n]`.
///
/// Any process of the machine can connect and say such a line: whether it was the router is for the caller to find out.
#[derive(Default)]
pub struct PeerLine(PartialLine);

impl PeerLine {
    /// Takes bytes from the connection and returns how many of them belong to the line, and the peer once the line is
    /// complete. The rest is payload: look at the bytes first (MSG_PEEK), and fetch so many. Not to be called again
    /// after the peer or an error.
    pub fn input(&mut self, bytes: &[u8]) -> Result<(usize, Option<Peer>)> {
        let (taken, line) = self.0.input(bytes).map_err(|TooLong| {
            Error::protocol(Operation::Accept, "a connection to our forwarding port says too long a line")
        })?;
        let peer = line.map(|line| reply::peer(line.as_bytes())).transpose()?;
        Ok((taken, peer))
    }

    /// The connection has ended before the line was complete.
    pub fn eof(&self) -> Error {
        let message = match self.0.is_empty() {
            true => "a connection to our forwarding port ended without a word",
            false => "a connection to our forwarding port ended before it had said whose it is",
        };
        Error::protocol(Operation::Accept, message)
    }
}
