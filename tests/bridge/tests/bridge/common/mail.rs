//! Clients with a datagram session.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::{Client, LONG, SHORT};
use i2psock_bridge::Bridge;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};

/// A control socket, its UDP socket, and where the bridge listens.
pub struct Mail {
    pub control: Client,
    pub udp: UdpSocket,
    pub bridge: SocketAddr,
    pub id: String,
    pub me: String,
}

impl Mail {
    /// A session whose datagrams come by UDP.
    pub fn new(bridge: &Bridge, style: &str, id: &str) -> Self {
        Self::with(bridge, style, id, "")
    }

    /// The same with more options.
    pub fn with(bridge: &Bridge, style: &str, id: &str, options: &str) -> Self {
        let udp = socket();
        let port = udp.local_addr().unwrap().port();
        let options = format!("HOST=127.0.0.1 PORT={port} {options}");
        Self::open(bridge, udp, style, id, options.trim_end())
    }

    /// A session whose datagrams come on the control socket.
    pub fn in_band(bridge: &Bridge, style: &str, id: &str) -> Self {
        Self::open(bridge, socket(), style, id, "SIGNATURE_TYPE=7")
    }

    pub fn open(bridge: &Bridge, udp: UdpSocket, style: &str, id: &str, options: &str) -> Self {
        let mut control = Client::new(bridge);
        let reply = control.ask(&create(style, id, options));
        assert!(reply.starts_with("SESSION STATUS RESULT=OK DESTINATION="), "{reply}");
        let me = bridge.session(id).unwrap().destination;
        Self { control, udp, bridge: bridge.udp_addr(), id: id.to_string(), me }
    }

    pub fn port(&self) -> u16 {
        self.udp.local_addr().unwrap().port()
    }

    /// Sends by UDP; `to` may have options behind it.
    pub fn send(&self, to: &str, payload: impl AsRef<[u8]>) {
        let header = format!("3.0 {} {to}\n", self.id);
        self.raw([header.as_bytes(), payload.as_ref()].concat());
    }

    /// Sends a packet as it is.
    pub fn raw(&self, packet: impl AsRef<[u8]>) {
        self.udp.send_to(packet.as_ref(), self.bridge).unwrap();
    }

    /// The next packet and who sent it.
    pub fn packet(&self) -> (Vec<u8>, SocketAddr) {
        let mut packet = vec![0; 65536];
        let (n, from) = self.udp.recv_from(&mut packet).unwrap();
        packet.truncate(n);
        (packet, from)
    }

    /// The next packet, which must be the bridge's, at its first LF.
    pub fn letter(&self) -> (String, Vec<u8>) {
        let (packet, from) = self.packet();
        assert_eq!(from, self.bridge);
        let end = packet.iter().position(|b| *b == b'\n').unwrap();
        (String::from_utf8(packet[..end].to_vec()).unwrap(), packet[end + 1..].to_vec())
    }

    /// The next packet, all of it payload.
    pub fn bare(&self) -> Vec<u8> {
        self.packet().0
    }

    /// Asserts that nothing comes for a while.
    pub fn silent(&self) {
        self.udp.set_read_timeout(Some(SHORT)).unwrap();
        let result = self.udp.recv(&mut [0; 100]);
        self.udp.set_read_timeout(Some(LONG)).unwrap();
        match result {
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            other => panic!("not silent: {other:?}"),
        }
    }
}

fn socket() -> UdpSocket {
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.set_read_timeout(Some(LONG)).unwrap();
    udp
}

pub fn create(style: &str, id: &str, options: &str) -> String {
    format!("SESSION CREATE STYLE={style} ID={id} DESTINATION=TRANSIENT {options}")
}

/// Waits until the bridge has dealt with so many datagrams, and says how many of them it dropped.
pub fn dropped(bridge: &Bridge, received: u64) -> u64 {
    let done = bridge.wait_for(LONG, |b| {
        let c = b.datagram_counts();
        c.received == received && c.received + c.duplicated == c.sent + c.dropped + c.held
    });
    assert!(done, "{:?}", bridge.datagram_counts());
    bridge.datagram_counts().dropped
}
