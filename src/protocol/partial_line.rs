//! Assembles lines that arrive in pieces.

use crate::protocol::line::MAX_LINE;
use crate::secret::{Gathered, Secret};

/// The part of a line that has arrived so far. Wiped, as it may contain a private key.
#[derive(Default)]
pub(crate) struct PartialLine(Gathered);

/// The line exceeds [`MAX_LINE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

impl PartialLine {
    /// Consumes bytes up to the end of the line and returns how many, line feed included, along with the line (without
    /// line feed) once it is complete.
    pub(crate) fn input(&mut self, bytes: &[u8]) -> std::result::Result<(usize, Option<Secret>), TooLong> {
        let end = bytes.iter().position(|b| *b == b'\n');
        let part = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default();
        if self.0.len() + part.len() > MAX_LINE {
            return Err(TooLong);
        }
        self.0.extend(part);
        Ok((part.len() + usize::from(end.is_some()), end.map(|_| self.0.take())))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes the incomplete line, when nothing more will come.
    pub(crate) fn take(&mut self) -> Secret {
        self.0.take()
    }
}
