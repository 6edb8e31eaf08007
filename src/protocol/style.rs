//! What a session carries.

use crate::error::{Error, Result};

/// What a session carries; the numbers are the C constants and i2p.sam's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Style {
    /// Streams.
    Stream = 1,
    /// Repliable datagrams.
    Datagram = 2,
    /// Raw datagrams.
    Raw = 3,
    /// Repliable datagrams that cannot be replayed.
    Datagram2 = 4,
    /// Datagrams with the hash of an unverified sender.
    Datagram3 = 5,
}

impl Style {
    /// The style with this number.
    pub fn from_number(number: i32) -> Result<Self> {
        match number {
            1 => Ok(Style::Stream),
            2 => Ok(Style::Datagram),
            3 => Ok(Style::Raw),
            4 => Ok(Style::Datagram2),
            5 => Ok(Style::Datagram3),
            _ => Err(Error::invalid(format!("there is no style {number}"))),
        }
    }

    /// The word SAM uses.
    pub fn word(self) -> &'static str {
        match self {
            Style::Stream => "STREAM",
            Style::Datagram => "DATAGRAM",
            Style::Raw => "RAW",
            Style::Datagram2 => "DATAGRAM2",
            Style::Datagram3 => "DATAGRAM3",
        }
    }
}
