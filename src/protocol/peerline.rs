//! Lines that arrive in pieces, and the one line at the head of a connection that a router makes to us for a forwarded
//! stream. What stands behind that line is payload, and none of it is taken.

use crate::error::{Error, Operation, Result};
use crate::protocol::line::MAX_LINE;
use crate::protocol::reply::{self, Peer};
use crate::secret::{Gathered, Secret};

/// A line of which a part has arrived. Wiped, because it may carry a private key.
#[derive(Default)]
pub struct PartialLine(Gathered);

/// A line that is longer than any bridge's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

impl PartialLine {
    /// Takes the bytes up to the end of the line and says how many these are, its line feed included; the line comes
    /// without it, once it is complete.
    pub fn input(&mut self, bytes: &[u8]) -> std::result::Result<(usize, Option<Secret>), TooLong> {
        let end = bytes.iter().position(|b| *b == b'\n');
        let part = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default();
        if self.0.len() + part.len() > MAX_LINE {
            return Err(TooLong);
        }
        self.0.extend(part);
        Ok((part.len() + usize::from(end.is_some()), end.map(|_| self.0.take())))
    }

    /// What has arrived of the line.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// Whether nothing has arrived of it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes what has arrived, when nothing more will.
    pub fn take(&mut self) -> Secret {
        self.0.take()
    }
}

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
