//! Datagrams on their way from one session to another.

use crate::config::Personality;
use crate::conn::Conn;
use crate::handler::{Handler, Next};
use crate::line::Command;
use crate::naming::destination;
use crate::shared::{lock, Session, Shared};
use crate::style::{Delivery, Inbox, Style, RAW_PROTOCOL};
use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

/// Payload of repliable datagrams on Java.
const MAX_REPLIABLE: usize = 31744;
/// Payload of raw datagrams on Java.
const MAX_RAW: usize = 32768;
/// emissary cuts what is longer.
const EMISSARY_PAYLOAD: usize = 7658;
/// i2pd loses shorter raw datagrams.
const I2PD_MIN_RAW: usize = 3;
/// i2pd's buffer for a command and its payload.
const I2PD_COMMAND: usize = 8192;

/// Datagrams counted since the bridge started. `received + duplicated` is `sent + dropped + held` as soon as
/// all have been dealt with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DatagramCounts {
    /// What clients gave to the bridge, by UDP or on a control socket, broken packets included.
    pub received: u64,
    /// What the bridge gave to clients.
    pub sent: u64,
    /// What went nowhere, for whatever reason.
    pub dropped: u64,
    /// The part of `dropped` that fell to [`FaultConfig::loss`](crate::FaultConfig::loss).
    pub lost: u64,
    /// Copies made by [`FaultConfig::duplicate`](crate::FaultConfig::duplicate).
    pub duplicated: u64,
    /// Held back by [`FaultConfig::reorder`](crate::FaultConfig::reorder) at this moment.
    pub held: u64,
    /// Sent by somebody else in the bridge's name, for [`FaultConfig::forge`](crate::FaultConfig::forge) and
    /// [`Faults::forge`](crate::Faults::forge). Not part of `sent`.
    pub forged: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) received: AtomicU64,
    pub(crate) sent: AtomicU64,
    pub(crate) dropped: AtomicU64,
    pub(crate) lost: AtomicU64,
    pub(crate) duplicated: AtomicU64,
    pub(crate) forged: AtomicU64,
}

pub(crate) fn count(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::SeqCst);
}

/// A datagram as a client gives it to the bridge.
#[derive(Debug)]
pub(crate) struct Letter<'a> {
    pub(crate) to: &'a str,
    pub(crate) from_port: Option<u16>,
    pub(crate) to_port: Option<u16>,
    pub(crate) protocol: Option<u8>,
    pub(crate) payload: &'a [u8],
}

/// A datagram as a client gets it, and where.
#[derive(Clone, Debug)]
pub(crate) struct Parcel {
    /// The serial number of the session it is for.
    pub(crate) serial: u64,
    pub(crate) to: Delivery,
    pub(crate) bytes: Vec<u8>,
    /// The length of the line in front of the payload.
    pub(crate) header: usize,
}

impl Shared {
    /// Takes a datagram that `nick` sends.
    pub(crate) fn post(&self, nick: &str, letter: &Letter<'_>) {
        count(&self.counters.received, 1);
        match self.address(nick, letter) {
            Some(parcel) => self.travel(parcel),
            None => count(&self.counters.dropped, 1),
        }
    }

    /// Takes a datagram that is none.
    pub(crate) fn refuse(&self) {
        count(&self.counters.received, 1);
        count(&self.counters.dropped, 1);
    }

    /// Finds out where a datagram goes and in what form.
    fn address(&self, nick: &str, letter: &Letter<'_>) -> Option<Parcel> {
        let personality = self.config.personality;
        let state = lock(&self.state);
        let from = state.sessions.get(nick).filter(|s| s.works())?;
        let style = from.mail.style;
        let payload = fits(personality, style, letter.payload)?;
        let receives = |s: &&Session| s.works() && s.mail.style == style;
        let oldest = |s: &&Session| s.serial;
        let exact = state.sessions.values().filter(receives).filter(|s| *s.text == *letter.to).min_by_key(oldest);
        let target = match exact {
            Some(target) => target,
            None => {
                let names = personality == Personality::Java && matches!(style, Style::Datagram | Style::Raw);
                let raw = destination(&state, letter.to, names)?;
                state.sessions.values().filter(receives).filter(|s| s.public == raw).min_by_key(oldest)?
            }
        };
        let mut ports = (0, 0);
        if personality == Personality::Java {
            ports = (letter.from_port.unwrap_or(from.from_port), letter.to_port.unwrap_or(from.to_port));
        }
        // emissary listens at one port only, and all datagrams go to 0.
        if personality == Personality::Emissary && target.from_port != 0 {
            return None;
        }
        let protocol = letter.protocol.unwrap_or(from.mail.protocol);
        let mut bytes = match &target.mail.delivery {
            Delivery::Nowhere => return None,
            Delivery::Udp(_) => forwarded(from, target, ports, protocol),
            Delivery::InBand(_) => in_band(from, target, ports, protocol, payload.len()),
        }
        .into_bytes();
        let header = bytes.len();
        if matches!(target.mail.delivery, Delivery::InBand(_)) && header + payload.len() >= in_band_limit(personality) {
            return None;
        }
        bytes.extend_from_slice(payload);
        Some(Parcel { serial: target.serial, to: target.mail.delivery.clone(), bytes, header })
    }

    /// Hands a datagram over.
    pub(crate) fn hand_over(&self, parcel: Parcel) {
        match parcel.to {
            Delivery::Nowhere => count(&self.counters.dropped, 1),
            Delivery::Udp(to) => self.give(|| self.udp.send(&parcel.bytes, to)),
            Delivery::InBand(queue) => {
                // Otherwise it is counted when it is written.
                if queue.try_send(parcel.bytes).is_err() {
                    count(&self.counters.dropped, 1);
                }
            }
        }
    }

    /// Counts what is sent before the client can see it.
    fn give(&self, send: impl FnOnce() -> io::Result<()>) {
        count(&self.counters.sent, 1);
        if send().is_err() {
            self.counters.sent.fetch_sub(1, Ordering::SeqCst);
            count(&self.counters.dropped, 1);
        }
    }

    /// Writes the datagrams of an in-band session to its control socket, as fast as the client reads them.
    pub(crate) fn write_in_band(self: &Arc<Self>, conn: &Arc<Conn>, queue: Inbox) {
        let (shared, conn) = (Arc::clone(self), Arc::clone(conn));
        // Without the thread the queue closes, and the datagrams are dropped.
        let _ = self.spawn("in-band", move || {
            let mut open = true;
            for bytes in queue {
                shared.give(|| {
                    // After half a datagram nothing else may follow.
                    let result = if open { shared.emit(&conn, &bytes) } else { Err(ErrorKind::BrokenPipe.into()) };
                    open = result.is_ok();
                    result
                });
            }
        });
    }

    /// The numbers so far.
    pub(crate) fn datagram_counts(&self) -> DatagramCounts {
        let held = lock(&self.faults).held();
        let get = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
        let counters = &self.counters;
        DatagramCounts {
            received: get(&counters.received),
            sent: get(&counters.sent),
            dropped: get(&counters.dropped),
            lost: get(&counters.lost),
            duplicated: get(&counters.duplicated),
            held,
            forged: get(&counters.forged),
        }
    }
}

/// What the router takes of a payload; `None` when it throws it away.
fn fits(personality: Personality, style: Style, payload: &[u8]) -> Option<&[u8]> {
    let max = match style {
        Style::Stream => return None,
        Style::Raw => MAX_RAW,
        _ => MAX_REPLIABLE,
    };
    match personality {
        Personality::Java => (payload.len() <= max).then_some(payload),
        Personality::Emissary => Some(&payload[..payload.len().min(EMISSARY_PAYLOAD)]),
        _ if style == Style::Raw && payload.len() < I2PD_MIN_RAW => None,
        Personality::I2pd258 if style == Style::Datagram3 => None,
        Personality::I2pd245 | Personality::I2pd258 => Some(payload),
    }
}

/// The line in front of a datagram that goes to a UDP port.
fn forwarded(from: &Session, target: &Session, (from_port, to_port): (u16, u16), protocol: u8) -> String {
    let source = match from.mail.style {
        Style::Raw if target.mail.header => {
            return format!("PROTOCOL={protocol} FROM_PORT={from_port} TO_PORT={to_port}\n");
        }
        Style::Raw => return String::new(),
        Style::Datagram3 => &from.hash,
        _ => &from.text,
    };
    match target.mail.ports {
        true => format!("{source} FROM_PORT={from_port} TO_PORT={to_port}\n"),
        false => format!("{source}\n"),
    }
}

/// The line in front of a datagram that goes to the control socket.
fn in_band(from: &Session, target: &Session, (from_port, to_port): (u16, u16), protocol: u8, size: usize) -> String {
    let ports = format!(" FROM_PORT={from_port} TO_PORT={to_port}");
    let ports = if target.mail.ports { ports.as_str() } else { "" };
    let source = match from.mail.style {
        Style::Raw if target.mail.ports => return format!("RAW RECEIVED SIZE={size} PROTOCOL={protocol}{ports}\n"),
        Style::Raw => return format!("RAW RECEIVED SIZE={size}\n"),
        Style::Datagram3 => &from.hash,
        _ => &from.text,
    };
    format!("DATAGRAM RECEIVED DESTINATION={source} SIZE={size}{ports}\n")
}

/// The bytes from which on a datagram with its line is dropped.
fn in_band_limit(personality: Personality) -> usize {
    match personality {
        Personality::I2pd245 => 8192,
        Personality::I2pd258 => 16384,
        Personality::Java | Personality::Emissary => usize::MAX,
    }
}

impl Handler {
    /// DATAGRAM SEND and RAW SEND. There never is a reply.
    pub(crate) fn send_datagram(&mut self, command: &Command, line: &[u8]) -> Next {
        match self.shared.config.personality {
            Personality::Java => self.send_java(command).unwrap_or(Next::Close),
            Personality::Emissary => Next::Continue,
            Personality::I2pd245 | Personality::I2pd258 => self.send_i2pd(command, line),
        }
    }

    /// `None` for all that makes it close the socket.
    fn send_java(&mut self, command: &Command) -> Option<Next> {
        let (id, serial) = self.conn.session()?;
        let (nick, style) = {
            let state = lock(&self.shared.state);
            // A dead one gets no further.
            let session = state.session(&id, serial).filter(|s| s.works())?;
            (state.key(&id, serial)?, session.mail.style)
        };
        let (wanted, max) = match command.topic.as_str() {
            "RAW" => (Style::Raw, MAX_RAW),
            _ => (Style::Datagram, MAX_REPLIABLE),
        };
        let to = command.get("DESTINATION")?;
        let size = command.get("SIZE")?.parse().ok().filter(|size| (1..=max).contains(size))?;
        let known = destination(&lock(&self.shared.state), to, true).is_some();
        if style != wanted || !known {
            return None;
        }
        // The session's own ports and protocol count only for UDP.
        let number = |key| command.get(key).map_or(Some(0), |text| text.parse::<u16>().ok());
        let (from_port, to_port) = (Some(number("FROM_PORT")?), Some(number("TO_PORT")?));
        let protocol = Some(command.get("PROTOCOL").map_or(Some(RAW_PROTOCOL), |text| text.parse().ok())?);
        let payload = self.reader.exact(&self.conn.sock, size).ok()?;
        self.shared.post(&nick, &Letter { to, from_port, to_port, protocol, payload: &payload });
        Some(Next::Continue)
    }

    /// Whether it is DATAGRAM or RAW depends on the session alone.
    fn send_i2pd(&mut self, command: &Command, line: &[u8]) -> Next {
        let size = command.get("SIZE").and_then(|text| text.parse::<usize>().ok());
        let room = I2PD_COMMAND.saturating_sub(line.len() + 1);
        let Some(size) = size.filter(|size| *size <= room) else {
            // It waits for bytes it has no room for, or has stopped reading at all.
            return self.hang();
        };
        if line.ends_with(b"\r") {
            self.reader.unread_newline();
        }
        let Ok(payload) = self.reader.exact(&self.conn.sock, size) else {
            return Next::Close;
        };
        if let (Some((nick, _)), Some(to)) = (self.conn.session(), command.get("DESTINATION")) {
            let letter = Letter { to, from_port: None, to_port: None, protocol: None, payload: &payload };
            self.shared.post(&nick, &letter);
        }
        Next::Continue
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_per_router() {
        let payload = vec![0u8; 33000];
        let taken = |style, size: usize| Personality::ALL.map(|p| fits(p, style, &payload[..size]).map(<[u8]>::len));
        assert_eq!(taken(Style::Datagram, 31744), [Some(31744), Some(31744), Some(31744), Some(7658)]);
        assert_eq!(taken(Style::Datagram, 31745), [None, Some(31745), Some(31745), Some(7658)]);
        assert_eq!(taken(Style::Raw, 32768)[0], Some(32768));
        assert_eq!(taken(Style::Raw, 32769)[0], None);
        assert_eq!(taken(Style::Raw, 2), [Some(2), None, None, Some(2)]);
        assert_eq!(taken(Style::Raw, 3), [Some(3); 4]);
        assert_eq!(taken(Style::Datagram, 0), [Some(0); 4]);
        assert_eq!(taken(Style::Datagram3, 5)[2], None);
        assert_eq!(taken(Style::Stream, 5), [None; 4]);
    }
}
