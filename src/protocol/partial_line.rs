//! Lines that arrive in pieces.

use crate::protocol::line::MAX_LINE;
use crate::secret::{Gathered, Secret};

/// A line of which a part has arrived. Wiped, because it may carry a private key.
#[derive(Default)]
pub(crate) struct PartialLine(Gathered);

/// A line that is longer than any bridge's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

impl PartialLine {
    /// Takes the bytes up to the end of the line and says how many these are, its line feed included; the line comes
    /// without it, once it is complete.
    pub(crate) fn input(&mut self, bytes: &[u8]) -> std::result::Result<(usize, Option<Secret>), TooLong> {
        let end = bytes.iter().position(|b| *b == b'\n');
        let part = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default();
        if self.0.len() + part.len() > MAX_LINE {
            return Err(TooLong);
        }
        self.0.extend(part);
        Ok((part.len() + usize::from(end.is_some()), end.map(|_| self.0.take())))
    }

    /// What has arrived of the line.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// Whether nothing has arrived of it.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes what has arrived, when nothing more will.
    pub(crate) fn take(&mut self) -> Secret {
        self.0.take()
    }
}
