//! A plain SAM client for tests: blocking, every read bounded.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod mail;

use i2psock_bridge::{Bridge, Config, Personality};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

/// Longer than anything takes, so that a hang fails the test instead of stopping it.
pub const LONG: Duration = Duration::from_secs(20);
/// What happens at once takes less, also on a busy machine; what gives up waiting takes more.
pub const PROMPT: Duration = Duration::from_secs(10);
/// How long silence is listened to.
pub const SHORT: Duration = Duration::from_millis(150);

pub struct Client {
    pub stream: TcpStream,
}

pub fn bridge() -> Bridge {
    Bridge::start(Config::default()).unwrap()
}

pub fn bridge_as(personality: Personality) -> Bridge {
    Bridge::start(Config::with_personality(personality)).unwrap()
}

impl Client {
    /// Connects without a HELLO.
    pub fn bare(bridge: &Bridge) -> Self {
        let stream = TcpStream::connect(bridge.addr()).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream.set_write_timeout(Some(LONG)).unwrap();
        Self { stream }
    }

    /// Connects and says HELLO.
    pub fn new(bridge: &Bridge) -> Self {
        let mut client = Self::bare(bridge);
        let reply = client.ask("HELLO VERSION MIN=3.1 MAX=3.3");
        assert!(reply.starts_with("HELLO REPLY RESULT=OK"), "{reply}");
        client
    }

    pub fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    pub fn send(&mut self, line: &str) {
        self.write(format!("{line}\n"));
    }

    /// A line and the line that answers it.
    pub fn ask(&mut self, line: &str) -> String {
        self.send(line);
        self.line()
    }

    /// The next line, byte by byte so that nothing behind it is taken.
    pub fn line(&mut self) -> String {
        let mut line = Vec::new();
        let mut byte = [0];
        loop {
            match self.stream.read(&mut byte) {
                Ok(0) => panic!("end of file after {:?}", String::from_utf8_lossy(&line)),
                Ok(_) if byte == *b"\n" => return String::from_utf8(line).unwrap(),
                Ok(_) => line.push(byte[0]),
                // A process that was stopped and goes on.
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => panic!("{e} after {:?}", String::from_utf8_lossy(&line)),
            }
        }
    }

    pub fn exact(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// Everything up to the end of file.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self.stream.read_to_end(&mut bytes) {
            Err(e) if e.kind() != ErrorKind::ConnectionReset => panic!("no end of file: {e}"),
            _ => bytes,
        }
    }

    pub fn rest_text(&mut self) -> String {
        String::from_utf8(self.rest()).unwrap()
    }

    /// Asserts that nothing comes for a while, not even the end.
    pub fn silent(&mut self) {
        self.stream.set_read_timeout(Some(SHORT)).unwrap();
        let mut byte = [0];
        let result = self.stream.read(&mut byte);
        self.stream.set_read_timeout(Some(LONG)).unwrap();
        match result {
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            other => panic!("not silent: {other:?} {byte:?}"),
        }
    }

    pub fn finish_writing(&mut self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// A control socket with a stream session.
    pub fn session(bridge: &Bridge, id: &str) -> Self {
        let mut client = Self::new(bridge);
        let reply = client.ask(&create(id, "TRANSIENT"));
        assert!(reply.starts_with("SESSION STATUS RESULT=OK DESTINATION="), "{reply}");
        client
    }

    /// A socket with the OK of an ACCEPT.
    pub fn accept(bridge: &Bridge, id: &str) -> Self {
        let mut client = Self::new(bridge);
        let reply = client.ask(&format!("STREAM ACCEPT ID={id}"));
        assert_eq!(reply, "STREAM STATUS RESULT=OK");
        let ready = bridge.wait_for(LONG, |b| b.session(id).is_some_and(|s| s.accepts + s.streams > 0));
        assert!(ready, "the accept is not in its queue");
        client
    }

    /// A socket that has sent CONNECT and not read the answer.
    pub fn connecting(bridge: &Bridge, from: &str, to: &str) -> Self {
        let mut client = Self::new(bridge);
        let destination = bridge.session(to).unwrap().destination;
        client.send(&format!("STREAM CONNECT ID={from} DESTINATION={destination}"));
        client
    }
}

pub fn create(id: &str, destination: &str) -> String {
    format!("SESSION CREATE STYLE=STREAM ID={id} DESTINATION={destination} SIGNATURE_TYPE=7")
}

/// A bridge with sessions `a` and `b`, whose control sockets come with it.
pub fn two_sessions(config: Config) -> (Bridge, Client, Client) {
    let bridge = Bridge::start(config).unwrap();
    let a = Client::session(&bridge, "a");
    let b = Client::session(&bridge, "b");
    (bridge, a, b)
}

/// A stream from `b` to `a`: the connected side and the accepted side, header lines read.
pub fn stream(bridge: &Bridge) -> (Client, Client) {
    let mut accepted = Client::accept(bridge, "a");
    let mut connected = Client::connecting(bridge, "b", "a");
    assert_eq!(connected.line(), "STREAM STATUS RESULT=OK");
    let peer = accepted.line();
    let from = bridge.session("b").unwrap().destination;
    assert_eq!(peer.split(' ').next(), Some(from.as_str()));
    (connected, accepted)
}

/// Bytes that differ at every position and for every seed.
pub fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect()
}

/// Runs `body` for all cases at the same time: for those that mostly wait.
pub fn at_once<T: Send>(cases: impl IntoIterator<Item = T>, body: impl Fn(T) + Sync) {
    std::thread::scope(|scope| {
        for case in cases {
            let body = &body;
            scope.spawn(move || body(case));
        }
    });
}
