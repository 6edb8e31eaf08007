//! The bridge's UDP side: its sockets, the thread that reads them, and the header line clients send.

use crate::config::{Config, Personality};
use crate::datagram::Letter;
use crate::shared::{lock, Shared};
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Mutex;
use std::time::Duration;

/// Larger than any packet.
const BUFFER: usize = 64 * 1024;

/// i2pd reads no more of a packet.
const I2PD_PACKET: usize = 32 * 1024;

/// Java looks no further for the end of the header.
const JAVA_HEADER: usize = 2048;

/// Headers kept for tests; older ones are forgotten.
const MAX_HEADERS: usize = 10_000;

/// After this long without a packet the threads look whether the bridge is still there. A packet wakes them before.
const IDLE: Duration = Duration::from_secs(15);

/// The sockets, and the headers that came in.
#[derive(Debug, Default)]
pub(crate) struct Udp {
    v4: Option<UdpSocket>,
    v6: Option<UdpSocket>,
    headers: Mutex<VecDeque<String>>,
}

impl Udp {
    /// Binds on 127.0.0.1, and on the same port of ::1 when the bridge listens there.
    pub(crate) fn bind(config: &Config, tcp_port: u16) -> io::Result<Self> {
        if config.udp_port == 0 && config.personality.is_i2pd() && tcp_port > 1 {
            if let Ok(udp) = Self::bind_to(config, tcp_port - 1) {
                return Ok(udp);
            }
        }
        let mut last = None;
        // A free port of one family may be taken in the other.
        for _ in 0..20 {
            match Self::bind_to(config, config.udp_port) {
                Err(e) if e.kind() == ErrorKind::AddrInUse && config.udp_port == 0 => last = Some(e),
                result => return result,
            }
        }
        Err(last.unwrap_or_else(|| ErrorKind::AddrInUse.into()))
    }

    fn bind_to(config: &Config, port: u16) -> io::Result<Self> {
        let v4 = UdpSocket::bind((Ipv4Addr::LOCALHOST, port))?;
        v4.set_read_timeout(Some(IDLE))?;
        let v6 = match config.ipv6 {
            true => Some(UdpSocket::bind((Ipv6Addr::LOCALHOST, v4.local_addr()?.port()))?),
            false => None,
        };
        if let Some(v6) = &v6 {
            v6.set_read_timeout(Some(IDLE))?;
        }
        Ok(Self { v4: Some(v4), v6, headers: Mutex::default() })
    }

    pub(crate) fn addr(&self) -> io::Result<SocketAddr> {
        self.v4.as_ref().map_or(Err(ErrorKind::NotConnected.into()), UdpSocket::local_addr)
    }

    /// Handles to read from, one per socket.
    pub(crate) fn readers(&self) -> io::Result<Vec<UdpSocket>> {
        self.v4.iter().chain(&self.v6).map(UdpSocket::try_clone).collect()
    }

    /// Sends from the bridge's address.
    pub(crate) fn send(&self, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
        let socket = if to.is_ipv4() { &self.v4 } else { &self.v6 };
        let socket = socket.as_ref().ok_or(ErrorKind::AddrNotAvailable)?;
        loop {
            match socket.send_to(bytes, to) {
                // A port that had refused an earlier packet is no reason to keep this one.
                Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionRefused) => {}
                result => return result.map(|_| ()),
            }
        }
    }

    /// Wakes the reading threads.
    pub(crate) fn wake(&self) {
        for socket in self.v4.iter().chain(&self.v6) {
            if let Ok(addr) = socket.local_addr() {
                let _ = stranger(addr).and_then(|s| s.send_to(&[], addr));
            }
        }
    }

    fn record(&self, header: &[u8]) {
        let header = String::from_utf8_lossy(header).into_owned();
        let mut headers = lock(&self.headers);
        if headers.len() >= MAX_HEADERS {
            headers.pop_front();
        }
        headers.push_back(header);
    }

    pub(crate) fn headers(&self) -> Vec<String> {
        lock(&self.headers).iter().cloned().collect()
    }

    pub(crate) fn clear_headers(&self) {
        lock(&self.headers).clear();
    }
}

/// A socket that is not the bridge's, for packets to `target`.
pub(crate) fn stranger(target: SocketAddr) -> io::Result<UdpSocket> {
    match target {
        SocketAddr::V4(_) => UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)),
        SocketAddr::V6(_) => UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)),
    }
}

/// Reads packets until the bridge stops.
pub(crate) fn serve(shared: &Shared, socket: &UdpSocket) {
    let mut buffer = vec![0u8; BUFFER];
    loop {
        let result = socket.recv_from(&mut buffer);
        if shared.is_stopping() {
            return;
        }
        match result {
            Ok((n, _)) => {
                shared.gate.pass();
                receive(shared, &buffer[..n]);
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {}
            // Such as an answer to an earlier packet; nothing to lose by a pause.
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

fn receive(shared: &Shared, packet: &[u8]) {
    let personality = shared.config.personality;
    let packet = match personality.is_i2pd() {
        true => &packet[..packet.len().min(I2PD_PACKET)],
        false => packet,
    };
    let header = packet.iter().position(|b| *b == b'\n').map(|at| &packet[..at]);
    if let Some(header) = header {
        shared.udp.record(header);
        if shared.config.verbose {
            shared.log("udp", "<-", header);
        }
    }
    match parse(personality, packet) {
        Some((nick, letter)) => shared.post(nick, &letter),
        None => shared.refuse(),
    }
}

/// Takes a packet apart: the session it is for, and the rest.
fn parse(personality: Personality, packet: &[u8]) -> Option<(&str, Letter<'_>)> {
    let end = packet.iter().position(|b| *b == b'\n')?;
    let header = std::str::from_utf8(&packet[..end]).ok()?;
    let letter = |to| Letter { to, from_port: None, to_port: None, protocol: None, payload: &packet[end + 1..] };
    if personality.is_i2pd() {
        // The version may be anything; all behind the second space is the destination.
        let mut words = header.splitn(3, ' ').skip(1);
        let nick = words.next()?;
        return Some((nick, letter(words.next()?)));
    }
    let mut words = header.split(' ').filter(|word| !word.is_empty());
    if !words.next()?.starts_with('3') {
        return None;
    }
    let nick = words.next()?;
    let mut letter = letter(words.next()?);
    if personality == Personality::Emissary {
        return Some((nick, letter));
    }
    if end > JAVA_HEADER {
        return None;
    }
    for word in words {
        let Some((key, value)) = word.split_once('=') else {
            continue;
        };
        match key {
            "FROM_PORT" => letter.from_port = Some(value.parse().ok()?),
            "TO_PORT" => letter.to_port = Some(value.parse().ok()?),
            "PROTOCOL" => letter.protocol = Some(value.parse().ok()?),
            "SEND_TAGS" | "TAG_THRESHOLD" | "EXPIRES" => {
                value.parse::<u32>().ok()?;
            }
            _ => {}
        }
    }
    Some((nick, letter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_per_router() {
        let packet = b"3.2 nick dest FROM_PORT=7 TO_PORT=8 PROTOCOL=200 EXPIRES=9 X=\nhello\nworld\0\xff";
        let (nick, letter) = parse(Personality::Java, packet).unwrap();
        assert_eq!((nick, letter.to, letter.payload), ("nick", "dest", &b"hello\nworld\0\xff"[..]));
        assert_eq!((letter.from_port, letter.to_port, letter.protocol), (Some(7), Some(8), Some(200)));
        let (_, letter) = parse(Personality::Emissary, packet).unwrap();
        assert_eq!((letter.to, letter.from_port, letter.protocol), ("dest", None, None));
        let (nick, letter) = parse(Personality::I2pd245, packet).unwrap();
        assert_eq!(nick, "nick");
        assert!(letter.to.starts_with("dest FROM_PORT=7 "));
        assert_eq!(parse(Personality::I2pd258, b"what nick dest\n").unwrap().0, "nick");
    }

    #[test]
    fn what_is_no_packet() {
        let long = [b"3.0 nick dest ".to_vec(), vec![b'x'; JAVA_HEADER], b"\n".to_vec()].concat();
        assert!(parse(Personality::Java, &long).is_none());
        let bad = [
            &b""[..],
            b"\n",
            b"3.0",
            b"3.0 nick dest",
            b"3.0 nick\n",
            b"2.0 nick dest\n",
            b"3.0 nick dest FROM_PORT=65536\n",
            b"3.0 nick dest PROTOCOL=256\n",
            b"3.0 nick dest EXPIRES=x\n",
            b"3.0 nick \xff\n",
        ];
        for packet in bad {
            assert!(parse(Personality::Java, packet).is_none(), "{packet:?}");
        }
        for personality in Personality::ALL {
            for packet in &bad[..5] {
                assert!(parse(personality, packet).is_none(), "{personality} {packet:?}");
            }
        }
    }
}
