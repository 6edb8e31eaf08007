//! Closing an end of a relay: what was written to it is delivered first.

use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use crate::core::drive::{after, earlier, passed, Backoff, Deadline};
use crate::core::relay::end::End;
use crate::sys;

/// How long an end may go without taking any of what was sent before the other end was reset, or stay open once it has
/// taken everything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// First and longest interval between checks of how much a stream has taken: the system has no event for that.
const LOOK: Duration = Duration::from_millis(5);
const LONGEST_LOOK: Duration = Duration::from_millis(320);
/// How many bytes an end may go on sending, all discarded, before we stop waiting for it.
const WASTE: usize = 4 << 20;

/// An end about to be closed: closing it with unread input would discard output that is still queued.
pub(crate) struct Linger {
    end: End,
    /// Whether the other end ended in an orderly way: then this one should get all that it sent.
    in_order: bool,
    until: Deadline,
    unsent: usize,
    wasted: usize,
    /// Intervals between checks of a stream, and when the next check is due.
    looks: Backoff,
    look: Deadline,
}

/// What to do with a [`Linger`] after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LingerStep {
    /// Close it now.
    Over,
    /// Wait for an event or the deadline.
    Waits,
    /// Step again at once.
    Goes,
}

impl Linger {
    /// The other end has ended, `in_order` or not, and nothing more will be sent to this one.
    pub(crate) fn new(end: End, in_order: bool, now: Instant) -> Self {
        // A stream over I2P has no half-close: it would end both directions before everything is delivered.
        if let End::Socket(fd) = &end {
            sys::end_sending(fd.as_raw_fd());
        }
        let looks = Backoff::new(LOOK, LONGEST_LOOK);
        let (until, look) = (after(Some(PATIENCE), now), after(Some(LOOK), now));
        Linger { end, in_order, until, unsent: usize::MAX, wasted: 0, looks, look }
    }

    pub(crate) fn end(&self) -> &End {
        &self.end
    }

    /// Number of bytes it has not taken yet, as of the last step.
    pub(crate) fn unsent(&self) -> usize {
        self.unsent
    }

    /// When to step again even without an event.
    pub(crate) fn deadline(&self) -> Deadline {
        match self.end {
            // The peer closes it when it has read everything, and that is an event.
            End::Socket(_) => self.until,
            End::Stream(_) => earlier(self.until, self.look),
        }
    }

    /// Checks whether it can be closed now. Discards what it still sends.
    pub(crate) fn step(&mut self, now: Instant) -> LingerStep {
        let fd = self.end.fd();
        let mut waste = [0; 16384];
        let mut quiet = false;
        for _ in 0..16 {
            match sys::recv(fd, &mut waste, sys::MSG_DONTWAIT) {
                Ok(0) => return LingerStep::Over,
                Ok(count) => self.wasted = self.wasted.saturating_add(count),
                Err(error) if sys::would_block(&error) => {
                    quiet = true;
                    break;
                }
                Err(_) => return LingerStep::Over,
            }
        }
        let Ok(unsent) = sys::unsent(fd) else { return LingerStep::Over };
        let has_all = unsent == 0 && (matches!(self.end, End::Stream(_)) || self.wasted >= WASTE);
        if unsent < self.unsent {
            // The reader is slow, but it is reading.
            self.unsent = unsent;
            self.until = after(Some(PATIENCE), now);
        }
        // If we closed now, it would lose what it has not taken as soon as it sends anything. But we do not wait for
        // one that only sends.
        let is_patient = self.in_order && unsent > 0 && self.wasted < WASTE;
        if has_all || passed(self.until, now) && !is_patient {
            return LingerStep::Over;
        }
        if passed(self.until, now) {
            self.until = after(Some(PATIENCE), now);
        }
        self.looks.pause();
        self.look = after(Some(self.looks.next()), now);
        if quiet {
            LingerStep::Waits
        } else {
            LingerStep::Goes
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::core::stream::Stream;

    /// An end that was sent `sent` bytes, and its peer, which has read none of them.
    fn pair(sent: usize) -> (End, UnixStream) {
        let (ours, peer) = UnixStream::pair().unwrap();
        (&ours).write_all(&vec![b'a'; sent]).unwrap();
        (End::Socket(ours.into()), peer)
    }

    /// The step is done until there is nothing more to do at once.
    fn settle(linger: &mut Linger, now: Instant) -> LingerStep {
        loop {
            match linger.step(now) {
                LingerStep::Goes => {}
                step => return step,
            }
        }
    }

    const MOMENT: Duration = Duration::from_millis(1);

    #[test]
    fn a_reader_may_take_any_break_when_the_other_end_ended_in_order() {
        let start = Instant::now();
        let (end, mut peer) = pair(50_000);
        let mut linger = Linger::new(end, true, start);
        for round in 0..1000 {
            let now = start + PATIENCE * round;
            assert_eq!(settle(&mut linger, now), LingerStep::Waits, "round {round}");
            assert!(linger.deadline().unwrap() > now, "nothing is due at once");
        }
        // What it says in the break changes nothing.
        peer.write_all(b"x").unwrap();
        assert_eq!(settle(&mut linger, start + PATIENCE * 1001), LingerStep::Waits);
        let mut got = vec![0; 50_000];
        peer.read_exact(&mut got).unwrap();
        drop(peer);
        assert_eq!(settle(&mut linger, start + PATIENCE * 1001), LingerStep::Over);
    }

    #[test]
    fn after_a_reset_what_is_not_taken_is_given_up() {
        let start = Instant::now();
        let (end, mut peer) = pair(50_000);
        let mut linger = Linger::new(end, false, start);
        assert_eq!(settle(&mut linger, start), LingerStep::Waits);
        assert_eq!(settle(&mut linger, start + PATIENCE - MOMENT), LingerStep::Waits);
        // Whatever it takes gives it as much time again.
        peer.read_exact(&mut [0; 40_000]).unwrap();
        let later = start + PATIENCE - MOMENT;
        assert_eq!(settle(&mut linger, later), LingerStep::Waits);
        assert_eq!(settle(&mut linger, later + PATIENCE - MOMENT), LingerStep::Waits);
        assert_eq!(linger.deadline(), Some(later + PATIENCE));
        assert_eq!(settle(&mut linger, later + PATIENCE), LingerStep::Over);
    }

    #[test]
    fn one_that_has_everything_may_stay_for_a_while() {
        for in_order in [true, false] {
            let start = Instant::now();
            let (end, _peer) = pair(0);
            let mut linger = Linger::new(end, in_order, start);
            assert_eq!(settle(&mut linger, start), LingerStep::Waits);
            let told = start + PATIENCE;
            assert_eq!(settle(&mut linger, told - MOMENT), LingerStep::Waits);
            assert_eq!(settle(&mut linger, told), LingerStep::Over);
        }
    }

    #[test]
    fn one_that_only_talks_is_not_waited_for() {
        let start = Instant::now();
        let (end, mut peer) = pair(50_000);
        let mut linger = Linger::new(end, true, start);
        peer.set_nonblocking(true).unwrap();
        let mut said = 0;
        while said < WASTE {
            said += peer.write(&[0; 10_000]).unwrap_or(0);
            assert_eq!(settle(&mut linger, start), LingerStep::Waits);
        }
        assert_eq!(settle(&mut linger, start + PATIENCE), LingerStep::Over);
    }

    #[test]
    fn looks_at_a_stream_come_at_growing_intervals() {
        let start = Instant::now();
        let (ours, _peer) = UnixStream::pair().unwrap();
        (&ours).write_all(b"unread").unwrap();
        let mut linger = Linger::new(End::Stream(Stream::of_socket(ours.into())), true, start);
        let mut now = start;
        for milliseconds in [5, 10, 20, 40, 80, 160, 320, 320] {
            let due = now + Duration::from_millis(milliseconds);
            assert_eq!(linger.deadline(), Some(due));
            now = due;
            assert_eq!(settle(&mut linger, now), LingerStep::Waits);
        }
    }
}
