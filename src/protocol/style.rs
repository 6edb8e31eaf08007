//! SAM's session styles.

use crate::error::{Error, Result};

/// What a session carries; the numbers are those of the C constants and of i2p.sam.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Style {
    /// Streams, like TCP connections.
    Stream = 1,
    /// Repliable datagrams: authenticated by the sender's destination.
    Datagram = 2,
    /// Raw datagrams: without a sender.
    Raw = 3,
    /// Repliable datagrams with replay protection.
    Datagram2 = 4,
    /// Datagrams with the unverified hash of the sender.
    Datagram3 = 5,
}

/// What to do about a router that does not know the style with this SAM name.
pub(crate) fn unknown(word: &str) -> String {
    match word {
        "DATAGRAM2" | "DATAGRAM3" => format!("this router may not have {word}: use DATAGRAM, or a newer router"),
        _ => format!("this router may not have {word}: use another router"),
    }
}

impl Style {
    /// Converts the number used in C.
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

    /// SAM's name for the style.
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
