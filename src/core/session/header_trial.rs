//! Whether the router writes a line with the ports before raw datagrams, as it was asked to with HEADER=true.
//!
//! A router that does not know the request says OK to the session and delivers the bare payload, whose first line may look
//! like that of a router: a peer could make up ports, and have the line taken off its payload. So a session sends itself a
//! datagram that nobody else can know, and sees how that arrives. Until then nothing that arrives can be told to be with
//! or without a line.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicU8, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::error::{Error, Operation, Result, Status};
use crate::identity::base32_encode;
use crate::protocol::datagram;
use crate::sys;

/// How long a session waits for its own datagram before it sends another.
const AGAIN: Duration = Duration::from_secs(1);
/// How long a receiver waits for any of them.
const PATIENCE: Duration = Duration::from_secs(10);

/// Nothing that is longer is one of ours.
const MAX_OWN: usize = 256;

const UNKNOWN: u8 = 0;
const WRITES: u8 = 1;
const IGNORES: u8 = 2;

/// How a datagram is to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// It is our own, and not for the program.
    Ours,
    /// Begins with a line of the router.
    Header,
    /// There is no telling, or no line.
    Unclear,
}

/// What the sessions of a destination have found out, the present one above all.
pub struct HeaderTrial {
    secret: String,
    session: AtomicU32,
    verdict: AtomicU8,
    start: Instant,
    /// When the present session began and when it last sent itself a datagram, in milliseconds from `start`.
    began: AtomicU64,
    asked: AtomicU64,
}

impl HeaderTrial {
    pub(crate) fn new(now: Instant) -> Result<Self> {
        let mut random = [0; 15];
        sys::random(&mut random).map_err(|error| Error::io(Operation::Create, "getrandom", &error))?;
        Ok(HeaderTrial {
            secret: format!("i2psock-{}-", base32_encode(&random)),
            session: AtomicU32::new(0),
            verdict: AtomicU8::new(UNKNOWN),
            start: now,
            began: AtomicU64::new(0),
            asked: AtomicU64::new(u64::MAX),
        })
    }

    fn millis(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.start).as_millis()).unwrap_or(u64::MAX)
    }

    /// A session has begun, perhaps on another router.
    pub(crate) fn begin(&self, now: Instant) {
        self.session.fetch_add(1, Relaxed);
        self.began.store(self.millis(now), Relaxed);
        self.asked.store(u64::MAX, Relaxed);
        self.verdict.store(UNKNOWN, Relaxed);
    }

    fn payload(&self) -> Vec<u8> {
        format!("{}{:08x}", self.secret, self.session.load(Relaxed)).into_bytes()
    }

    /// The payload of the datagram that the session should send itself now, if it should.
    pub(crate) fn ask(&self, now: Instant) -> Option<Vec<u8>> {
        let (now, asked) = (self.millis(now), self.asked.load(Relaxed));
        let due = asked == u64::MAX || now >= asked.saturating_add(AGAIN.as_millis() as u64);
        // Another thread may be asking.
        let mine = self.is_open() && due && self.asked.compare_exchange(asked, now, Relaxed, Relaxed).is_ok();
        mine.then(|| self.payload())
    }

    /// Whether it is still to be found out, so that a receiver should not wait longer than [`AGAIN`] at a time.
    pub(crate) fn is_open(&self) -> bool {
        self.verdict.load(Relaxed) == UNKNOWN
    }

    /// When a receiver has to ask again at the latest.
    pub(crate) fn next(&self, now: Instant) -> Option<Instant> {
        if self.is_open() {
            now.checked_add(AGAIN)
        } else {
            None
        }
    }

    /// Fails if the router does not write headers.
    pub(crate) fn check_refused(&self) -> Result<()> {
        if self.verdict.load(Relaxed) != IGNORES {
            return Ok(());
        }
        Err(Error::new(Status::Unsupported, Operation::Receive, "the router writes no headers (option raw_header)"))
    }

    /// Fails if the router does not write headers, or has not shown in time that it does.
    pub(crate) fn check(&self, now: Instant) -> Result<()> {
        self.check_refused()?;
        let over = self.began.load(Relaxed).saturating_add(PATIENCE.as_millis() as u64);
        if !self.is_open() || self.millis(now) < over {
            return Ok(());
        }
        let message = format!(
            "the router has not shown within {} s that it writes headers (option raw_header): a datagram of the session \
             to itself has not come back",
            PATIENCE.as_secs()
        );
        Err(Error::new(Status::Unsupported, Operation::Receive, message))
    }

    /// Judges a datagram of `len` bytes that starts with `first`, and learns from one of ours.
    pub(crate) fn judge(&self, first: &[u8], len: usize) -> Form {
        if let Some(line) = self.line_of_own(first, len) {
            // Our own of an earlier session say nothing about this one.
            if first.ends_with(&self.payload()) && self.is_open() {
                match line {
                    [] => self.verdict.store(IGNORES, Relaxed),
                    [line @ .., b'\n'] if datagram::raw_header(line).is_some() => self.verdict.store(WRITES, Relaxed),
                    _ => {}
                }
            }
            return Form::Ours;
        }
        match self.verdict.load(Relaxed) {
            WRITES => Form::Header,
            _ => Form::Unclear,
        }
    }

    /// What is before the payload, if that is one of ours.
    fn line_of_own<'a>(&self, first: &'a [u8], len: usize) -> Option<&'a [u8]> {
        if len > MAX_OWN || len != first.len() {
            return None;
        }
        let (line, payload) = first.split_at_checked(len.checked_sub(self.secret.len() + 8)?)?;
        payload.starts_with(self.secret.as_bytes()).then_some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun() -> (HeaderTrial, Instant) {
        let now = Instant::now();
        let trial = HeaderTrial::new(now).unwrap();
        trial.begin(now);
        (trial, now)
    }

    fn judge(trial: &HeaderTrial, datagram: &[u8]) -> Form {
        trial.judge(datagram, datagram.len())
    }

    const FORGED: &[u8] = b"FROM_PORT=7 TO_PORT=8 PROTOCOL=99\nhello";

    #[test]
    fn headers_are_believed_once_our_own_has_one() {
        let (trial, now) = begun();
        assert_eq!(judge(&trial, FORGED), Form::Unclear);
        let own = trial.ask(now).unwrap();
        let with = |line: &[u8]| [line, &own[..]].concat();
        // Neither this nor what merely looks like it.
        assert_eq!(judge(&trial, &with(b"hello\n")), Form::Ours);
        assert_eq!(judge(&trial, &[&own[..], b"x"].concat()), Form::Unclear);
        assert_eq!(judge(&trial, &[b"FROM_PORT=1\n", &own[1..]].concat()), Form::Unclear);
        assert_eq!(trial.judge(&with(b"FROM_PORT=0\n"), 2000), Form::Unclear, "longer than what there is of it");
        assert!(trial.is_open());
        assert_eq!(judge(&trial, &with(b"FROM_PORT=0 TO_PORT=0 PROTOCOL=18\n")), Form::Ours);
        assert!(!trial.is_open() && trial.check(now + PATIENCE).is_ok());
        assert_eq!(judge(&trial, FORGED), Form::Header);
        // One that comes twice, or late.
        assert_eq!((judge(&trial, &own), judge(&trial, FORGED)), (Form::Ours, Form::Header));
    }

    #[test]
    fn without_a_header_nothing_is_ever_taken_for_one() {
        let (trial, now) = begun();
        let own = trial.ask(now).unwrap();
        assert!(trial.check_refused().is_ok());
        assert_eq!(judge(&trial, &own), Form::Ours);
        assert_eq!(judge(&trial, FORGED), Form::Unclear);
        for error in [trial.check(now).unwrap_err(), trial.check_refused().unwrap_err()] {
            assert_eq!((error.status, error.operation), (Status::Unsupported, Operation::Receive));
        }
        assert_eq!(judge(&trial, &[b"FROM_PORT=1\n", &own[..]].concat()), Form::Ours);
        assert_eq!(judge(&trial, FORGED), Form::Unclear, "that was settled");
    }

    #[test]
    fn it_is_asked_again_and_not_waited_for_forever() {
        let (trial, now) = begun();
        let at = |millis| now + Duration::from_millis(millis);
        assert!(trial.ask(now).is_some());
        assert!(trial.ask(now).is_none() && trial.ask(at(999)).is_none());
        let again = trial.ask(at(1000)).unwrap();
        assert!(trial.ask(at(1999)).is_none() && trial.check(at(9999)).is_ok());
        let error = trial.check(at(10_000)).unwrap_err();
        assert_eq!(error.status, Status::Unsupported);
        assert!(error.message.contains("within 10 s"), "{}", error.message);
        // Better late than never.
        assert_eq!(judge(&trial, &[b"FROM_PORT=0\n", &again[..]].concat()), Form::Ours);
        assert!(trial.check(at(10_000)).is_ok() && trial.next(now).is_none() && trial.ask(at(20_000)).is_none());
    }

    #[test]
    fn the_next_session_finds_out_for_itself() {
        let (trial, now) = begun();
        let first = trial.ask(now).unwrap();
        assert_eq!(judge(&trial, &[b"FROM_PORT=0\n", &first[..]].concat()), Form::Ours);
        let later = now + 100 * PATIENCE;
        trial.begin(later);
        assert_eq!(judge(&trial, FORGED), Form::Unclear);
        let second = trial.ask(later).unwrap();
        assert_ne!(first, second);
        assert_eq!(judge(&trial, &[b"FROM_PORT=0\n", &first[..]].concat()), Form::Ours);
        assert!(trial.is_open() && trial.check(later).is_ok());
        assert_eq!(judge(&trial, &second), Form::Ours);
        assert!(trial.check_refused().is_err());
    }
}
