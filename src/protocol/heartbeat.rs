//! Whether the router still serves a session, judged by what arrives on its control socket and when.
//!
//! An open socket proves nothing: the path to the router may have died without a word, the router may be stopped, or it
//! may have announced the session's end and kept the socket.
//!
//! ```text
//!            silent for the interval          no answer in time
//!   Quiet ---------------------------> Asked -------------------> lost
//!     ^  anything arrives               |
//!     +---------------------------------+
//!   announced, then silent for 2 s -------------------------------> lost
//! ```

use std::time::{Duration, Instant};

use crate::protocol::control::{Asking, LIFE};

/// How long the router may take to answer when it is asked for a sign of life.
const LIFE_PATIENCE: Duration = Duration::from_secs(30);
/// How long a router may be silent over a lookup on the control socket, as it may have to ask the network: with a caller
/// that waits for the answer, and with none.
const LOOKUP_PATIENCE: Duration = Duration::from_secs(180);
const UNWANTED_PATIENCE: Duration = Duration::from_secs(60);
/// How long an announced end waits for other news.
const ANNOUNCED_PATIENCE: Duration = Duration::from_secs(2);

/// What silence means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Alive,
    /// It is time to ask for a sign of life.
    Ask,
    /// The router did not answer for this long.
    Silent(Duration),
    /// The router announced the end and has said nothing since.
    Ended,
}

/// The times that matter for one control socket.
#[derive(Debug)]
pub struct Heartbeat {
    interval: Option<Duration>,
    /// When anything last arrived.
    heard: Instant,
    /// The lookup on the wire, and since when.
    asking: Option<(Asking, Instant)>,
    /// Since when the end has been announced.
    announced: Option<Instant>,
}

impl Heartbeat {
    /// The router is asked for a sign of life after it was silent for `interval`; with `None` it is never asked, and
    /// silence means nothing.
    pub fn new(interval: Option<Duration>, now: Instant) -> Self {
        Heartbeat { interval, heard: now, asking: None, announced: None }
    }

    /// Something arrived.
    pub fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// Records which lookup is on the wire, and whether the bridge's last word was the announcement of the end.
    pub fn observe(&mut self, asking: Option<Asking>, announced: bool, now: Instant) {
        self.asking = match (asking, self.asking) {
            (Some(asking), Some((before, since))) if asking.number == before.number => Some((asking, since)),
            (asking, _) => asking.map(|asking| (asking, now)),
        };
        if announced != self.announced.is_some() {
            self.announced = announced.then_some(now);
        }
    }

    /// When [`Heartbeat::verdict`] may next be something else, unless anything arrives.
    pub fn deadline(&self) -> Option<Instant> {
        let ended = self.announced.and_then(|since| since.checked_add(ANNOUNCED_PATIENCE));
        let silent = self.silent_at();
        match (ended, silent) {
            (Some(ended), Some(silent)) => Some(ended.min(silent)),
            (ended, silent) => ended.or(silent),
        }
    }

    /// What the silence so far means.
    pub fn verdict(&self, now: Instant) -> Verdict {
        let since = |start: Instant| now.saturating_duration_since(start);
        if self.announced.is_some_and(|announced| since(announced) >= ANNOUNCED_PATIENCE) {
            return Verdict::Ended;
        }
        match self.silent_at() {
            Some(at) if now >= at && self.asking.is_some() => Verdict::Silent(since(self.heard)),
            Some(at) if now >= at => Verdict::Ask,
            _ => Verdict::Alive,
        }
    }

    /// When silence means something.
    fn silent_at(&self) -> Option<Instant> {
        let interval = self.interval?;
        let Some((asking, since)) = self.asking else { return self.heard.checked_add(interval) };
        let (since_heard, since_asked) = match asking {
            Asking { number: LIFE, .. } => (LIFE_PATIENCE, LIFE_PATIENCE),
            Asking { wanted: true, .. } => (LOOKUP_PATIENCE, LOOKUP_PATIENCE),
            // It is as good as asking for a sign of life, only that it may take longer.
            Asking { wanted: false, .. } => (interval + LIFE_PATIENCE, UNWANTED_PATIENCE),
        };
        Some(self.heard.checked_add(since_heard)?.max(since.checked_add(since_asked)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const MINUTE: Duration = Duration::from_secs(60);
    const ME: Option<Asking> = Some(Asking { number: LIFE, wanted: true });

    fn name(number: u64, wanted: bool) -> Option<Asking> {
        Some(Asking { number, wanted })
    }

    #[test]
    fn a_silent_router_is_asked_and_lost_when_it_does_not_answer() {
        let start = Instant::now();
        let mut beat = Heartbeat::new(Some(MINUTE), start);
        assert_eq!((beat.verdict(start), beat.deadline()), (Verdict::Alive, Some(start + MINUTE)));
        beat.heard(start + 10 * SECOND);
        assert_eq!(beat.verdict(start + MINUTE), Verdict::Alive);
        let asked = start + 70 * SECOND;
        assert_eq!((beat.deadline(), beat.verdict(asked)), (Some(asked), Verdict::Ask));
        beat.observe(ME, false, asked);
        beat.observe(ME, false, asked + SECOND);
        assert_eq!(beat.verdict(asked + 29 * SECOND), Verdict::Alive);
        assert_eq!(beat.deadline(), Some(asked + 30 * SECOND));
        assert_eq!(beat.verdict(asked + 30 * SECOND), Verdict::Silent(90 * SECOND));
        // An answer, and all is well for another minute.
        beat.heard(asked + 30 * SECOND);
        beat.observe(None, false, asked + 30 * SECOND);
        assert_eq!((beat.verdict(asked + 89 * SECOND), beat.deadline()), (Verdict::Alive, Some(asked + 90 * SECOND)));
    }

    #[test]
    fn a_lookup_in_progress_explains_silence_for_a_while() {
        let start = Instant::now();
        let mut beat = Heartbeat::new(Some(MINUTE), start);
        beat.observe(name(7, true), false, start + 50 * SECOND);
        assert_eq!((beat.verdict(start + 229 * SECOND)), Verdict::Alive);
        assert_eq!((beat.verdict(start + 230 * SECOND)), Verdict::Silent(230 * SECOND));
        // A PING in between is a sign of life; the next lookup has its own time.
        beat.heard(start + 100 * SECOND);
        assert_eq!(beat.deadline(), Some(start + 280 * SECOND));
        beat.observe(name(8, true), false, start + 130 * SECOND);
        assert_eq!(beat.deadline(), Some(start + 310 * SECOND));
    }

    #[test]
    fn a_lookup_that_was_given_up_explains_less() {
        for (asked, lost) in [(5, 90), (29, 90), (50, 110)] {
            let start = Instant::now();
            let mut beat = Heartbeat::new(Some(MINUTE), start);
            beat.observe(name(7, true), false, start + asked * SECOND);
            beat.observe(name(7, false), false, start + (asked + 1) * SECOND);
            assert_eq!(beat.deadline(), Some(start + lost * SECOND));
        }
    }

    #[test]
    fn an_announced_end_is_believed_after_two_seconds_without_other_news() {
        let start = Instant::now();
        for interval in [None, Some(MINUTE)] {
            let mut beat = Heartbeat::new(interval, start);
            beat.observe(None, true, start);
            beat.observe(None, true, start + SECOND);
            assert_eq!((beat.verdict(start + SECOND), beat.deadline()), (Verdict::Alive, Some(start + 2 * SECOND)));
            assert_eq!(beat.verdict(start + 2 * SECOND), Verdict::Ended);
            beat.observe(None, false, start + SECOND);
            assert_ne!(beat.verdict(start + 2 * SECOND), Verdict::Ended);
        }
    }

    #[test]
    fn without_an_interval_silence_means_nothing() {
        let start = Instant::now();
        let mut beat = Heartbeat::new(None, start);
        assert_eq!((beat.deadline(), beat.verdict(start + 1000 * MINUTE)), (None, Verdict::Alive));
        beat.observe(name(3, true), false, start);
        assert_eq!((beat.deadline(), beat.verdict(start + 1000 * MINUTE)), (None, Verdict::Alive));
    }
}
