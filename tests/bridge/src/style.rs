//! Session styles: which router knows which, and the options that only datagram sessions take.

use crate::config::{Personality, Version};
use crate::handler::Handler;
use crate::line::Command;
use crate::session::{error, port, Refusal};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::sync::mpsc::{sync_channel, Receiver, SyncSender};

/// Datagrams that may wait for a control socket to take them.
const IN_BAND_QUEUE: usize = 256;

/// The I2CP protocol of raw datagrams.
pub(crate) const RAW_PROTOCOL: u8 = 18;

/// What a session is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Style {
    /// STREAM
    Stream,
    /// DATAGRAM, and i2pd's other name for it, DATAGRAM1
    Datagram,
    /// DATAGRAM2
    Datagram2,
    /// DATAGRAM3
    Datagram3,
    /// RAW
    Raw,
}

impl Style {
    /// What a router makes of the text after `STYLE=`.
    pub(crate) fn known(text: &str, personality: Personality) -> Option<Self> {
        let newer = matches!(personality, Personality::Java | Personality::I2pd258);
        match text {
            "STREAM" => Some(Self::Stream),
            "DATAGRAM" => Some(Self::Datagram),
            "DATAGRAM1" if personality == Personality::I2pd258 => Some(Self::Datagram),
            "DATAGRAM2" if newer => Some(Self::Datagram2),
            "DATAGRAM3" if newer => Some(Self::Datagram3),
            "RAW" => Some(Self::Raw),
            _ => None,
        }
    }
}

impl fmt::Display for Style {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stream => "STREAM",
            Self::Datagram => "DATAGRAM",
            Self::Datagram2 => "DATAGRAM2",
            Self::Datagram3 => "DATAGRAM3",
            Self::Raw => "RAW",
        })
    }
}

/// The other end of an in-band session's queue.
pub(crate) type Inbox = Receiver<Vec<u8>>;

/// Where a session's datagrams go.
#[derive(Clone, Debug)]
pub(crate) enum Delivery {
    /// There is no such place: a stream session, or a host nobody knows.
    Nowhere,
    /// A UDP port of the client.
    Udp(SocketAddr),
    /// The control socket.
    InBand(SyncSender<Vec<u8>>),
}

/// What a session was told about its datagrams.
#[derive(Debug)]
pub(crate) struct Mail {
    pub(crate) style: Style,
    pub(crate) delivery: Delivery,
    /// Raw datagrams get a line in front.
    pub(crate) header: bool,
    /// The lines say the ports.
    pub(crate) ports: bool,
    /// Of raw datagrams sent.
    pub(crate) protocol: u8,
}

impl Handler {
    /// Takes the datagram options of SESSION CREATE, and gives back what fills an in-band session's queue.
    pub(crate) fn mail(&self, command: &Command, style: Style) -> Result<(Mail, Option<Inbox>), Refusal> {
        let personality = self.shared.config.personality;
        let new = self.conn.version() >= Version::V3_2;
        let java = personality == Personality::Java;
        let mut mail = Mail {
            style,
            delivery: Delivery::Nowhere,
            header: false,
            ports: (java && new) || personality == Personality::Emissary,
            protocol: RAW_PROTOCOL,
        };
        if style == Style::Stream {
            return Ok((mail, None));
        }
        if java && style == Style::Raw {
            mail.header = new && command.get("HEADER").is_some_and(|v| v.eq_ignore_ascii_case("true"));
            mail.protocol = match command.get("PROTOCOL").map(str::parse) {
                None => RAW_PROTOCOL,
                Some(Ok(6 | 17 | 19 | 20)) | Some(Err(_)) => return Err(error("Bad PROTOCOL")),
                Some(Ok(protocol)) => protocol,
            };
        }
        let target = match personality {
            Personality::Java => self.java_target(command)?,
            Personality::Emissary => Some(Delivery::Udp(emissary_target(command)?)),
            Personality::I2pd245 | Personality::I2pd258 => i2pd_target(command, personality)?.map(Delivery::Udp),
        };
        if let Some(delivery) = target {
            mail.delivery = delivery;
            return Ok((mail, None));
        }
        let (sender, receiver) = sync_channel(IN_BAND_QUEUE);
        mail.delivery = Delivery::InBand(sender);
        Ok((mail, Some(receiver)))
    }

    /// HOST may be a name, and is the client itself when it is missing.
    fn java_target(&self, command: &Command) -> Result<Option<Delivery>, Refusal> {
        let port = match port(command, "PORT") {
            Ok(None) => return Ok(None),
            Ok(Some(port @ 1..)) => port,
            _ => return Err(error("Bad PORT")),
        };
        let target = match command.get("HOST") {
            None => Some(SocketAddr::new(self.conn.peer_ip(), port)),
            Some(host) => match host.parse::<IpAddr>() {
                Ok(ip) => Some(SocketAddr::new(ip, port)),
                // The bridge's own socket is an IPv4 one.
                Err(_) => (host, port).to_socket_addrs().ok().and_then(|mut all| all.find(SocketAddr::is_ipv4)),
            },
        };
        Ok(Some(target.map_or(Delivery::Nowhere, Delivery::Udp)))
    }
}

/// Forwards only when HOST and PORT are both there.
fn i2pd_target(command: &Command, personality: Personality) -> Result<Option<SocketAddr>, Refusal> {
    let (Some(host), Some(_)) = (command.get("HOST"), command.get("PORT")) else {
        return Ok(None);
    };
    let ip = host.parse().map_err(|_| error("Invalid IP Address in HOST"))?;
    match port(command, "PORT") {
        Ok(Some(port)) => Ok(Some(SocketAddr::new(ip, port))),
        // It throws, and that socket is never read again.
        _ if personality == Personality::I2pd245 => Err(Refusal::Hang),
        _ => Err(error("Invalid port")),
    }
}

/// Needs PORT and does not look at HOST.
fn emissary_target(command: &Command) -> Result<SocketAddr, Refusal> {
    match port(command, "PORT") {
        Ok(Some(port @ 1..)) => Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
        _ => Err(Refusal::Silence),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn styles_per_router() {
        let table = [
            ("STREAM", [true; 4]),
            ("DATAGRAM", [true; 4]),
            ("DATAGRAM1", [false, false, true, false]),
            ("DATAGRAM2", [true, false, true, false]),
            ("DATAGRAM3", [true, false, true, false]),
            ("RAW", [true; 4]),
            ("datagram", [false; 4]),
        ];
        for (text, wanted) in table {
            let got = Personality::ALL.map(|personality| Style::known(text, personality).is_some());
            assert_eq!(got, wanted, "{text}");
        }
        for style in [Style::Stream, Style::Datagram, Style::Datagram2, Style::Datagram3, Style::Raw] {
            assert_eq!(Style::known(&style.to_string(), Personality::Java), Some(style));
        }
    }
}
