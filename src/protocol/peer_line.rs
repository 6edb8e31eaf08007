//! Reads the one line at the start of a connection that a router makes to us for a forwarded stream. What follows is
//! payload and is not consumed.

use crate::error::{Error, Operation, Result};
use crate::protocol::partial_line::{PartialLine, TooLong};
use crate::protocol::reply::{self, Peer};

/// The line before a forwarded stream: `$destination[ FROM_PORT=n TO_PORT=n]`.
///
/// Any local process can connect and send such a line; the caller has to find out whether it was the router.
#[derive(Default)]
pub struct PeerLine(PartialLine);

impl PeerLine {
    /// Processes bytes from the connection and returns how many of them belong to the line, and the peer once the line
    /// is complete. The rest is payload, so peek first (MSG_PEEK) and then read only that many. Must not be called
    /// again after it returned a peer or an error.
    pub fn input(&mut self, bytes: &[u8]) -> Result<(usize, Option<Peer>)> {
        let (taken, line) = self.0.input(bytes).map_err(|TooLong| {
            Error::protocol(Operation::Accept, "a connection to our forwarding port says too long a line")
        })?;
        let peer = line.map(|line| reply::peer(line.as_bytes())).transpose()?;
        Ok((taken, peer))
    }

    /// The error for a connection that ended before the line was complete.
    pub fn eof(&self) -> Error {
        let message = match self.0.is_empty() {
            true => "a connection to our forwarding port ended without a word",
            false => "a connection to our forwarding port ended before it had said whose it is",
        };
        Error::protocol(Operation::Accept, message)
    }
}
