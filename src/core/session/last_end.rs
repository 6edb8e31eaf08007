//! When the last session of each of our destinations ended, for the whole process: a router may need some time before
//! it can take the same keys again.

use std::collections::HashMap;
use std::os::fd::AsRawFd;
use std::sync::{Arc, LazyLock, Weak};
use std::time::{Duration, Instant};

use crate::core::drive::Deadline;
use crate::identity::Address;
use crate::sys::lock::{Rank, RankedMutex, RankedMutexGuard};
use crate::sys::{self, SharedFd};

/// Ends that are longer ago than this are forgotten; no program waits longer.
const REMEMBERED: Duration = Duration::from_secs(3600);
/// How often to look whether the streams of an ended session have ended too.
const LOOK: Duration = Duration::from_millis(500);
/// When streams that are still open are ended: the session is gone, and they keep its successor from being made.
const STREAMS_PATIENCE: Duration = Duration::from_secs(30);
/// Attempts to get the lock; in a child of fork(2) it may be locked by a thread of the parent, for ever.
const TRIES: usize = 10_000;

/// The end of a destination's last session.
struct End {
    session: Instant,
    /// When one of its streams was last seen to be open, or else when the session ended.
    all: Instant,
    /// Streams that were open when the session ended.
    streams: Vec<Weak<SharedFd>>,
}

type Ends = HashMap<[u8; 32], End>;

static ENDS: LazyLock<RankedMutex<Ends>> = LazyLock::new(|| RankedMutex::new(Rank::LastEnds, Ends::new()));

fn ends() -> Option<RankedMutexGuard<'static, Ends>> {
    for _ in 0..TRIES {
        if let Some(ends) = ENDS.try_lock() {
            return Some(ends);
        }
        std::thread::yield_now();
    }
    None
}

/// A session of this destination ended at `when`, and these streams of it were open then.
pub(crate) fn record(address: &Address, when: Instant, streams: &[Arc<SharedFd>]) {
    let Some(mut ends) = ends() else { return };
    if ends.len() == ends.capacity() {
        ends.retain(|_, end| when.saturating_duration_since(end.all) < REMEMBERED);
    }
    let streams = streams.iter().map(Arc::downgrade);
    match ends.get_mut(address.hash()) {
        Some(end) => {
            (end.session, end.all) = (end.session.max(when), end.all.max(when));
            end.streams.retain(|stream| stream.strong_count() > 0);
            end.streams.extend(streams);
        }
        None => {
            ends.insert(*address.hash(), End { session: when, all: when, streams: streams.collect() });
        }
    }
}

/// When to ask again whether the router has been left alone for `delay`; `None` if it has.
pub(crate) fn look_again(address: &Address, delay: Option<Duration>, now: Instant) -> Deadline {
    let delay = delay?;
    let mut ends = ends()?;
    let end = ends.get_mut(address.hash())?;
    if !end.streams.is_empty() {
        // They were open at the last look, and may have ended at any time since then.
        end.all = end.all.max(now);
        let patient = now.saturating_duration_since(end.session) < STREAMS_PATIENCE;
        end.streams.retain(|stream| stream.upgrade().is_some_and(|stream| is_open(&stream, patient)));
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
    fn old_ends_are_forgotten() {
        let start = Instant::now();
        for fill in 0..=255 {
            record(&Address::from_bytes(&[&[9; 383][..], &[fill, 5, 0, 4, 0, 7, 0, 0]].concat()).unwrap(), start, &[]);
        }
        let late = start + REMEMBERED;
        for fill in 0..=255 {
            record(&Address::from_bytes(&[&[8; 383][..], &[fill, 5, 0, 4, 0, 7, 0, 0]].concat()).unwrap(), late, &[]);
        }
        assert!(ENDS.lock().values().filter(|end| end.session == start).count() < 256);
    }
}
