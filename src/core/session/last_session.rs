//! The last session of each of our destinations, for the whole process: a router may need some time after its end before
//! it can take the same keys again, and cannot take them at all before that.

use std::collections::HashMap;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Weak};
use std::time::{Duration, Instant};

use crate::core::bridge::Bridge;
use crate::core::drive::{Deadline, Scope};
use crate::error::{Error, Operation, Result, Status};
use crate::identity::Address;
use crate::protocol::reply::ResultCode;
use crate::sys::lock::{Rank, RankedMutex, RankedMutexGuard};
use crate::sys::{self, SharedFd};

/// Ends that are longer ago than this are forgotten; no program waits longer.
const REMEMBERED: Duration = Duration::from_secs(3600);
/// How often to look whether the streams of an ended session have ended too.
const LOOK: Duration = Duration::from_millis(500);
/// When streams that are still open are ended: the session is gone, and they keep its successor from being made.
const STREAMS_PATIENCE: Duration = Duration::from_secs(30);
/// Attempts to get the lock in a child of fork(2), where it may be locked by a thread of the parent, for ever.
const TRIES: usize = 10_000;

/// A destination's last session.
#[derive(Default)]
struct Last {
    /// Those that are alive, and the bridges they are on: the same keys may be on several routers.
    alive: Vec<(Weak<Bridge>, Weak<Scope>)>,
    end: Option<End>,
}

/// The end of a session.
struct End {
    session: Instant,
    /// When one of its streams was last seen to be open, or else when the session ended.
    all: Instant,
    /// Streams that were open when the session ended.
    streams: Vec<Weak<SharedFd>>,
    /// Whether the router has answered anything since the session ended, and so must have noticed.
    noticed: bool,
    /// The router did not answer when the session was given up, or later: whenever it is heard again may be when it
    /// notices.
    silent: bool,
}

type Sessions = HashMap<[u8; 32], Last>;

static SESSIONS: LazyLock<RankedMutex<Sessions>> =
    LazyLock::new(|| RankedMutex::new(Rank::LastSessions, Sessions::new()));

/// The process whose threads take the lock.
static OWNER: AtomicU32 = AtomicU32::new(0);

/// `None` if nobody will ever unlock it.
fn sessions() -> Option<RankedMutexGuard<'static, Sessions>> {
    let this = std::process::id();
    match OWNER.compare_exchange(0, this, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => return Some(SESSIONS.lock()),
        Err(owner) if owner == this => return Some(SESSIONS.lock()),
        Err(_) => {}
    }
    for _ in 0..TRIES {
        if let Some(sessions) = SESSIONS.try_lock() {
            OWNER.store(this, Ordering::Relaxed);
            return Some(sessions);
        }
        std::thread::yield_now();
    }
    None
}

impl Last {
    fn is_alive(&mut self, bridge: Option<&Bridge>) -> bool {
        self.alive.retain(|(_, scope)| scope.upgrade().is_some_and(|scope| !scope.has_ended()));
        self.alive
            .iter()
            .filter_map(|(known, _)| known.upgrade())
            .any(|known| bridge.is_none_or(|bridge| known.places() == bridge.places()))
    }
}

fn entry<'a>(sessions: &'a mut Sessions, address: &Address, now: Instant) -> &'a mut Last {
    if sessions.len() == sessions.capacity() {
        let is_recent = |end: &End| now.saturating_duration_since(end.all) < REMEMBERED;
        sessions.retain(|_, last| last.end.as_ref().is_some_and(is_recent) || last.is_alive(None));
    }
    sessions.entry(*address.hash()).or_default()
}

/// A session of this destination begins; it is alive until `scope` ends.
pub(crate) fn begin(address: &Address, bridge: &Arc<Bridge>, scope: &Arc<Scope>, now: Instant) {
    let Some(mut sessions) = sessions() else { return };
    entry(&mut sessions, address, now).alive.push((Arc::downgrade(bridge), Arc::downgrade(scope)));
}

/// The keys of a destination are about to be used on a bridge, until this is dropped.
pub(crate) struct Claim {
    _alive: Arc<Scope>,
}

/// Claims the keys of this destination for a session on this bridge. Fails with DUPLICATED_DEST if it has one, or is about
/// to. Some routers would take the same keys twice, and then neither session would work.
pub(crate) fn claim(address: &Address, bridge: &Arc<Bridge>, now: Instant) -> Result<Claim> {
    let claim = Claim { _alive: Arc::default() };
    let Some(mut sessions) = sessions() else { return Ok(claim) };
    let last = entry(&mut sessions, address, now);
    if last.is_alive(Some(bridge)) {
        let message = "these keys are in use: another destination of this process was opened with them";
        let error = Error::new(Status::Network, Operation::Create, message);
        return Err(Error { tag: ResultCode::DuplicatedDest.token().to_owned(), ..error });
    }
    last.alive.push((Arc::downgrade(bridge), Arc::downgrade(&claim._alive)));
    Ok(claim)
}

/// A session of this destination ended at `when`, and these streams of it were open then.
pub(crate) fn record(address: &Address, when: Instant, streams: &[Arc<SharedFd>]) {
    let Some(mut sessions) = sessions() else { return };
    let last = entry(&mut sessions, address, when);
    let end =
        last.end.get_or_insert(End { session: when, all: when, streams: Vec::new(), noticed: false, silent: false });
    if when > end.session {
        (end.noticed, end.silent) = (false, false);
    }
    (end.session, end.all) = (end.session.max(when), end.all.max(when));
    end.streams.retain(|stream| stream.strong_count() > 0);
    end.streams.extend(streams.iter().map(Arc::downgrade));
}

/// Whether the router may still have to notice that the last session ended: it was not heard since then. One that stood
/// still notices when it goes on, which may be long after we have given the session up.
pub(crate) fn is_unnoticed(address: &Address, now: Instant) -> bool {
    let is_recent = |end: &End| now.saturating_duration_since(end.session) < REMEMBERED;
    let Some(sessions) = sessions() else { return false };
    let end = sessions.get(address.hash()).and_then(|last| last.end.as_ref());
    end.is_some_and(|end| !end.noticed && is_recent(end))
}

/// The router does not answer.
pub(crate) fn doubt(address: &Address) {
    let Some(mut sessions) = sessions() else { return };
    if let Some(end) = sessions.get_mut(address.hash()).and_then(|last| last.end.as_mut()) {
        end.silent = true;
    }
}

/// The router has answered something, so that it has noticed the end of the last session by now. If it did not answer
/// `at_once`, that may have been only just now.
pub(crate) fn notice(address: &Address, at_once: bool, now: Instant) {
    let Some(mut sessions) = sessions() else { return };
    let end = sessions.get_mut(address.hash()).and_then(|last| last.end.as_mut());
    let Some(end) = end.filter(|end| !end.noticed) else { return };
    if end.silent || !at_once {
        end.all = end.all.max(now);
    }
    (end.noticed, end.silent) = (true, false);
}

/// When to ask again whether the router has been left alone for `delay`; `None` if it has.
pub(crate) fn look_again(address: &Address, delay: Option<Duration>, now: Instant) -> Deadline {
    let delay = delay?;
    let mut sessions = sessions()?;
    let end = sessions.get_mut(address.hash())?.end.as_mut()?;
    if !end.streams.is_empty() {
        // They were open at the last look, and may have ended at any time since then.
        end.all = end.all.max(now);
        let patient = now.saturating_duration_since(end.session) < STREAMS_PATIENCE;
        end.streams.retain(|stream| stream.upgrade().is_some_and(|stream| is_open(&stream, patient)));
        end.noticed &= !end.streams.is_empty();
    }
    let due = end.all.checked_add(delay).filter(|due| *due > now)?;
    match end.streams.is_empty() {
        true => Some(due),
        false => now.checked_add(LOOK),
    }
}

/// Whether the stream is open in both directions. Without `patient`, it is ended.
fn is_open(stream: &SharedFd, patient: bool) -> bool {
    let over = stream.is_taken()
        || stream.is_ended()
        || sys::poll_one(stream.as_raw_fd(), sys::RDHUP, 0).is_ok_and(|events| events != 0);
    if !over && !patient {
        stream.end();
    }
    !over && patient
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::core::settings::{ControllerOptions, Options};

    const SECOND: Duration = Duration::from_secs(1);
    const DELAY: Option<Duration> = Some(Duration::from_secs(6));

    fn address(fill: u8) -> Address {
        Address::from_bytes(&[&[fill; 384][..], &[5, 0, 4, 0, 7, 0, 0]].concat()).unwrap()
    }

    fn stream() -> (Arc<SharedFd>, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Arc::new(SharedFd::new(ours.into())), theirs)
    }

    #[test]
    fn the_router_is_left_alone_for_a_while() {
        let (one, start) = (address(101), Instant::now());
        assert_eq!(look_again(&one, DELAY, start), None);
        record(&one, start, &[]);
        let due = start + 6 * SECOND;
        assert_eq!(look_again(&one, DELAY, start), Some(due));
        assert_eq!(look_again(&one, DELAY, due - SECOND), Some(due));
        assert_eq!((look_again(&one, DELAY, due), look_again(&one, None, start)), (None, None));
        assert_eq!(look_again(&address(102), DELAY, start), None, "another destination");
        // A later end counts, an earlier one does not.
        record(&one, start + 5 * SECOND, &[]);
        record(&one, start, &[]);
        assert_eq!(look_again(&one, DELAY, due), Some(start + 11 * SECOND));
    }

    #[test]
    fn streams_that_are_still_open_prolong_it() {
        let (one, start) = (address(103), Instant::now());
        let ((a, far_a), (b, _far_b), (c, _far_c)) = (stream(), stream(), stream());
        record(&one, start, &[Arc::clone(&a), Arc::clone(&b), c]);
        let mut now = start + SECOND;
        assert_eq!(look_again(&one, DELAY, now), Some(now + LOOK));
        drop(b);
        now += 10 * SECOND;
        assert_eq!(look_again(&one, DELAY, now), Some(now + LOOK), "one is still open");
        drop(far_a);
        now += SECOND;
        assert_eq!(look_again(&one, DELAY, now), Some(now + 6 * SECOND), "from when the last one was seen");
        assert_eq!(look_again(&one, DELAY, now + 6 * SECOND), None);
    }

    #[test]
    fn a_router_that_was_not_heard_since_may_have_noticed_late() {
        let (one, start) = (address(105), Instant::now());
        notice(&one, true, start);
        doubt(&one);
        assert!(!is_unnoticed(&one, start), "there was no session");
        let late = start + 100 * SECOND;
        for (silent, at_once, due) in [(false, true, None), (false, false, Some(late)), (true, true, Some(late))] {
            record(&one, start, &[]);
            record(&one, start + SECOND, &[]);
            assert!(is_unnoticed(&one, start + 200 * SECOND) && !is_unnoticed(&one, start + SECOND + REMEMBERED));
            if silent {
                doubt(&one);
            }
            notice(&one, at_once, late);
            assert!(!is_unnoticed(&one, late));
            assert_eq!(look_again(&one, DELAY, late), due.map(|due| due + 6 * SECOND));
            // Only the first answer counts, and an end that is known already is no news.
            notice(&one, false, late + SECOND);
            record(&one, start, &[]);
            assert!(!is_unnoticed(&one, late) && look_again(&one, DELAY, late + 6 * SECOND).is_none());
            SESSIONS.lock().remove(one.hash());
        }
        // The end of the last stream has to be noticed too.
        let (ours, far) = stream();
        record(&one, start, &[Arc::clone(&ours)]);
        notice(&one, true, start);
        assert!(look_again(&one, DELAY, start).is_some() && !is_unnoticed(&one, start));
        drop(far);
        assert!(look_again(&one, DELAY, start).is_some() && is_unnoticed(&one, start));
    }

    #[test]
    fn streams_that_never_end_are_ended() {
        let (one, start) = (address(104), Instant::now());
        let (ours, far) = stream();
        record(&one, start, &[Arc::clone(&ours)]);
        let late = start + STREAMS_PATIENCE;
        assert_eq!(look_again(&one, DELAY, late - LOOK), Some(late));
        assert!(!ours.is_ended());
        assert_eq!(look_again(&one, DELAY, late), Some(late + 6 * SECOND));
        assert!(ours.is_ended());
        assert_ne!(sys::poll_one(far.as_raw_fd(), sys::RDHUP, 0).unwrap(), 0);
    }

    #[test]
    fn keys_are_claimed_by_one_at_a_time() {
        let (one, now) = (address(106), Instant::now());
        let bridge = |sam: &str| {
            let mut options = Options::default();
            options.set("sam", sam).unwrap();
            Arc::new(Bridge::new(ControllerOptions::parse(&options).unwrap().bridge).unwrap())
        };
        let (here, there) = (bridge("127.0.0.1:1"), bridge("127.0.0.1:2"));
        let first = claim(&one, &here, now).unwrap();
        let error = claim(&one, &bridge("127.0.0.1:1"), now).err().unwrap();
        assert_eq!((error.status, error.tag.as_str()), (Status::Network, "DUPLICATED_DEST"));
        assert!(claim(&one, &there, now).is_ok() && claim(&address(107), &here, now).is_ok());
        // It becomes a session, or nothing.
        let scope = Arc::default();
        begin(&one, &here, &scope, now);
        drop(first);
        assert!(claim(&one, &here, now).is_err());
        scope.end(Error::closed(Operation::Session, "over"), false);
        drop(claim(&one, &here, now).unwrap());
        assert!(claim(&one, &here, now).is_ok());
    }

    /// It would not be known that the router has to be left alone.
    #[test]
    fn an_end_is_not_forgotten_because_another_thread_has_the_lock() {
        let (one, start) = (address(108), Instant::now());
        let held = sessions();
        std::thread::scope(|scope| {
            let recording = scope.spawn(|| record(&one, start, &[]));
            for _ in 0..50 * TRIES {
                if recording.is_finished() {
                    break;
                }
                std::thread::yield_now();
            }
            drop(held);
        });
        assert!(look_again(&one, DELAY, start).is_some());
    }

    #[test]
    fn old_ends_are_forgotten() {
        let start = Instant::now();
        for fill in 0..=255 {
            record(&Address::from_bytes(&[&[9; 383][..], &[fill, 5, 0, 4, 0, 7, 0, 0]].concat()).unwrap(), start, &[]);
        }
        let late = start + REMEMBERED;
        for fill in 0..=255 {
            record(&Address::from_bytes(&[&[8; 383][..], &[fill, 5, 0, 4, 0, 7, 0, 0]].concat()).unwrap(), late, &[]);
        }
        let is_old = |last: &&Last| last.end.as_ref().is_some_and(|end| end.session == start);
        assert!(SESSIONS.lock().values().filter(is_old).count() < 256);
    }
}
