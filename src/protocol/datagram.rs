//! The header line before a datagram's payload, in both directions (SAM specification, "Datagrams").

use crate::error::{Error, Operation, Result};
use crate::identity::{base64_decode_strict, Address};
use crate::protocol::ports::Ports;

/// Longest header line we look for, without its line feed.
pub const MAX_HEADER: usize = 2048;
/// Largest payload of a repliable datagram (i2p.sam's MAX_DGRAM).
pub const MAX_DGRAM: usize = 31744;
/// Largest payload of a raw datagram (i2p.sam's MAX_RAW).
pub const MAX_RAW: usize = 32768;
/// What every router takes of a datagram on the control socket, the line before it included: from more than that i2pd's
/// session never recovers.
pub const MAX_IN_BAND: usize = 8191;

/// Per-datagram options, for routers that support them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SendOptions {
    /// I2CP source and destination port.
    pub ports: Ports,
    /// I2CP protocol number; raw datagrams only.
    pub protocol: Option<u8>,
    /// Number of ElGamal session tags to send.
    pub send_tags: Option<u16>,
    /// Number of ElGamal session tags below which new ones are sent.
    pub tag_threshold: Option<u16>,
    /// Seconds after which the router may drop the datagram.
    pub expires: Option<u32>,
    /// Whether to send our lease set along.
    pub send_leaseset: Option<bool>,
}

impl SendOptions {
    /// Whether any option is set. If so, the header contains more than every router accepts.
    pub fn any(&self) -> bool {
        *self != SendOptions::default()
    }

    /// These, and the ports and the protocol of `defaults` where there are none.
    #[must_use]
    pub fn or(&self, defaults: &SendOptions) -> Self {
        let ports = Ports { from: self.ports.from.or(defaults.ports.from), to: self.ports.to.or(defaults.ports.to) };
        SendOptions { ports, protocol: self.protocol.or(defaults.protocol), ..*self }
    }

    /// The options that are set, in their wire form.
    pub fn pairs(&self) -> impl Iterator<Item = (&'static str, String)> {
        let number = |value: Option<u32>| value.map(|value| value.to_string());
        [
            ("FROM_PORT", number(self.ports.from.map(u32::from))),
            ("TO_PORT", number(self.ports.to.map(u32::from))),
            ("PROTOCOL", number(self.protocol.map(u32::from))),
            ("SEND_TAGS", number(self.send_tags.map(u32::from))),
            ("TAG_THRESHOLD", number(self.tag_threshold.map(u32::from))),
            ("EXPIRES", number(self.expires)),
            ("SEND_LEASESET", self.send_leaseset.map(|send| send.to_string())),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
    }
}

/// The header of a datagram sent by UDP, with its line feed.
pub fn send_header(id: &str, destination: &Address, options: &SendOptions) -> Vec<u8> {
    let mut line = format!("3.0 {id} {}", destination.base64());
    for (key, value) in options.pairs() {
        line.push_str(&format!(" {key}={value}"));
    }
    line.push('\n');
    line.into_bytes()
}

/// The sender of a datagram, as the header names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A destination, verified by the router.
    Destination(Address),
    /// The hash of a destination, not verified (DATAGRAM3).
    Hash([u8; 32]),
}

/// Ports and protocol from a received header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// I2CP ports, if the router sends them.
    pub ports: Ports,
    /// I2CP protocol of a raw datagram, if the router sends it.
    pub protocol: Option<u8>,
}

fn malformed(why: &str) -> Error {
    Error::protocol(Operation::Receive, format!("a datagram's header is malformed: {why}"))
}

/// Splits a repliable datagram's header line, without its line feed, into the source token and the rest. The first
/// `known` bytes are known to belong to the source.
pub fn split_source(line: &[u8], known: usize) -> Result<(&[u8], Origin)> {
    let end = line.iter().skip(known).position(|b| *b == b' ').map_or(line.len(), |at| known + at);
    let (source, rest) = line.split_at(end);
    if source.is_empty() {
        return Err(malformed("no source"));
    }
    Ok((source, pairs(rest, false)?))
}

/// Parses the source token: 44 characters are a hash, anything else a destination.
pub fn source(token: &[u8]) -> Result<Source> {
    let text = std::str::from_utf8(token).map_err(|_| malformed("the source is no text"))?;
    if text.len() == 44 {
        let bytes = base64_decode_strict(text).map_err(|error| malformed(&error.message))?;
        let hash = bytes.try_into().map_err(|_| malformed("the source is no hash"))?;
        return Ok(Source::Hash(hash));
    }
    Address::parse(text).map(Source::Destination).map_err(|error| malformed(&error.message))
}

/// Parses the header of a raw datagram. The whole line must be pairs of known keys and numbers: a bridge may have ignored
/// the request for headers, so that this is payload.
pub fn raw_header(line: &[u8]) -> Option<Origin> {
    pairs(line, true).ok().filter(|_| !line.is_empty())
}

fn pairs(text: &[u8], strict: bool) -> Result<Origin> {
    let text = std::str::from_utf8(text).map_err(|_| malformed("not text"))?;
    let mut origin = Origin::default();
    for word in text.split([' ', '\r']).filter(|word| !word.is_empty()) {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        let number = || {
            let plain = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
            plain.then(|| value.parse::<u16>().ok()).flatten().ok_or_else(|| malformed("a port is no number"))
        };
        match key {
            "FROM_PORT" => origin.ports.from = Some(number()?),
            "TO_PORT" => origin.ports.to = Some(number()?),
            "PROTOCOL" => {
                let protocol = number()?.try_into().map_err(|_| malformed("the protocol is no byte"))?;
                origin.protocol = Some(protocol);
            }
            _ if strict => return Err(malformed("an unknown key")),
            _ => {}
        }
    }
    Ok(origin)
}
