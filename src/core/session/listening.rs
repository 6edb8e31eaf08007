//! Whether the bridge listens for datagrams at all.
//!
//! The system tells that nothing does only to a socket that is connected to the place, by an error that makes poll return
//! at once for as long as nobody has asked for it. The program polls the descriptor it has been given for datagrams to
//! read, so that one must not have such errors: a second socket, which is connected, now and then sends a datagram in its
//! place. The bridge knows the session by the datagram's header and does not care where it comes from.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use crate::error::{Error, Operation, Status};
use crate::sys::{self, SharedFd, Wake};

/// Milliseconds between two datagrams that are sent by the connected socket while the bridge is there.
const PERIOD: u64 = 1000;

/// The connected socket, and what it has shown.
pub struct Listening {
    bridge: SocketAddr,
    socket: SharedFd,
    start: Instant,
    /// Whether something shows that the bridge listens, and nothing later that it does not.
    proven: AtomicBool,
    /// When to send the next datagram this way, in milliseconds from the start. While it is not proven, all are.
    next: AtomicU64,
    refused_at: AtomicU64,
    /// How often it was refused, and how many of these the receivers know of.
    refusals: AtomicU32,
    told: AtomicU32,
    /// Readable while receivers do not know of the last refusal.
    news: Wake,
}

impl Listening {
    /// Sends nothing yet.
    pub(crate) fn new(local: SocketAddr, bridge: SocketAddr, now: Instant) -> io::Result<Self> {
        Ok(Listening {
            bridge,
            socket: SharedFd::new(sys::connect_udp(SocketAddr::new(local.ip(), 0), bridge)?),
            start: now,
            proven: AtomicBool::new(false),
            next: AtomicU64::new(0),
            refused_at: AtomicU64::new(0),
            refusals: AtomicU32::new(0),
            told: AtomicU32::new(0),
            news: Wake::new()?,
        })
    }

    fn millis(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.start).as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether the next datagram is to be sent with [`Listening::send`].
    pub fn is_due(&self, now: Instant) -> bool {
        !self.is_proven() || self.millis(now) >= self.next.load(Relaxed)
    }

    /// Whether there is nothing to tell a receiver but datagrams.
    pub fn is_proven(&self) -> bool {
        self.proven.load(Relaxed)
    }

    /// Records that something came from the bridge.
    pub fn heard(&self) {
        if !self.is_proven() {
            self.proven.store(true, Relaxed);
        }
    }

    /// Sends a datagram. Fails with ECONNREFUSED if it was refused, or one before it and nothing shows that it was not.
    pub fn send(&self, header: &[u8], payload: &[u8], flags: i32, now: Instant) -> io::Result<()> {
        let before = self.refusals.load(Relaxed);
        // The system reports a refusal instead of sending the next one, so that one is sent again.
        let mut result = Ok(0);
        for _ in 0..3 {
            result = sys::send_datagram(self.socket.as_raw_fd(), None, header, payload, flags);
            match &result {
                Err(error) if is_refusal(error) => self.refused(now),
                _ => break,
            }
        }
        // On this machine the answer is there by now.
        self.look(now);
        if self.refusals.load(Relaxed) != before {
            return Err(io::Error::from_raw_os_error(libc::ECONNREFUSED));
        }
        result?;
        let millis = self.millis(now);
        // Over a network it takes its time.
        if self.bridge.ip().is_loopback() || millis >= self.refused_at.load(Relaxed).saturating_add(PERIOD) {
            self.proven.store(true, Relaxed);
            self.next.store(millis.saturating_add(PERIOD), Relaxed);
        }
        Ok(())
    }

    /// Whether a receiver has to report a refusal, which it does once.
    pub fn is_refused(&self, now: Instant) -> bool {
        if self.is_proven() {
            return false;
        }
        self.look(now);
        let refusals = self.refusals.load(Relaxed);
        let news = self.told.swap(refusals, Relaxed) != refusals;
        if news {
            self.news.clear();
        }
        news
    }

    /// Readable when a receiver should ask whether it is refused.
    pub fn news(&self) -> RawFd {
        self.news.as_raw_fd()
    }

    /// The error to report.
    pub fn error(&self, operation: Operation) -> Error {
        let message = format!("nothing listens for datagrams at {} (option udp; i2pd: SAM port - 1)", self.bridge);
        Error { os_error: libc::ECONNREFUSED, ..Error::new(Status::Io, operation, message) }
    }

    fn look(&self, now: Instant) {
        if sys::socket_error(self.socket.as_raw_fd()).is_err_and(|error| is_refusal(&error)) {
            self.refused(now);
        }
    }

    fn refused(&self, now: Instant) {
        self.refused_at.store(self.millis(now), Relaxed);
        self.refusals.fetch_add(1, Relaxed);
        self.proven.store(false, Relaxed);
        self.news.set();
    }
}

pub(crate) fn is_refusal(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ECONNREFUSED)
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::Duration;

    use super::*;

    const HERE: ([u8; 4], u16) = ([127, 0, 0, 1], 0);

    fn refused(listening: &Listening, now: Instant) -> bool {
        match listening.send(b"header\n", b"payload", 0, now) {
            Ok(()) => false,
            Err(error) => {
                assert!(is_refusal(&error), "{error}");
                true
            }
        }
    }

    /// On a busy system the answer may come late, and then the next one tells.
    #[test]
    #[cfg(target_os = "linux")]
    fn every_datagram_that_nobody_takes_is_told() {
        let udp = UdpSocket::bind(SocketAddr::from(HERE)).unwrap();
        let (place, now) = (udp.local_addr().unwrap(), Instant::now());
        drop(udp);
        let listening = Listening::new(HERE.into(), place, now).unwrap();
        assert!(!listening.is_refused(now), "nothing was sent");
        refused(&listening, now);
        for _ in 0..100 {
            assert!(listening.is_due(now) && refused(&listening, now));
            assert!(!listening.is_proven());
        }
        assert!(sys::poll_one(listening.news(), sys::IN, 0).unwrap() != 0);
        assert!(listening.is_refused(now) && !listening.is_refused(now), "once");
        assert_eq!(sys::poll_one(listening.news(), sys::IN, 0).unwrap(), 0);
        let error = listening.error(Operation::Send);
        let message = format!("nothing listens for datagrams at {place} (option udp; i2pd: SAM port - 1)");
        assert_eq!((error.status, error.os_error, error.message), (Status::Io, libc::ECONNREFUSED, message));
        // It is there now.
        let udp = UdpSocket::bind(place).unwrap();
        while refused(&listening, now) {}
        assert!(listening.is_proven() && !listening.is_due(now) && !listening.is_refused(now));
        let mut buffer = [0; 100];
        let len = udp.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], b"header\npayload");
    }

    #[test]
    fn a_bridge_that_listens_is_seldom_asked() {
        let udp = UdpSocket::bind(SocketAddr::from(HERE)).unwrap();
        let now = Instant::now();
        let at = |millis| now + Duration::from_millis(millis);
        let listening = Listening::new(HERE.into(), udp.local_addr().unwrap(), now).unwrap();
        assert!(listening.is_due(now) && !refused(&listening, now));
        assert!(!listening.is_due(now) && !listening.is_due(at(999)) && listening.is_due(at(1000)));
        assert!(!refused(&listening, at(1500)));
        assert!(!listening.is_due(at(2499)) && listening.is_due(at(2500)));
    }

    #[test]
    fn what_comes_from_the_bridge_is_proof_enough() {
        let now = Instant::now();
        let listening = Listening::new(HERE.into(), ([127, 0, 0, 1], 9).into(), now).unwrap();
        assert!(!listening.is_proven());
        listening.refused(now);
        listening.heard();
        assert!(listening.is_proven() && !listening.is_refused(now));
    }
}
