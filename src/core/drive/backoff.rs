//! Doubling pauses: between failing attempts, and between polls of what the system has no event for.

use std::time::Duration;

/// Computes the pause before the next attempt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// Starts with `first` and doubles up to `longest`.
    pub(crate) const fn new(first: Duration, longest: Duration) -> Self {
        Backoff { first, longest, next: first }
    }

    /// Returns the pause to make now; the next one will be twice as long.
    pub(crate) fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = self.next.saturating_mul(2).min(self.longest);
        pause
    }

    /// The pause that [`Backoff::pause`] will return next.
    pub(crate) fn next(&self) -> Duration {
        self.next
    }

    /// Starts over with the first pause.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let seconds = Duration::from_secs;
        let mut backoff = Backoff::new(seconds(1), seconds(60));
        for wanted in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert_eq!(backoff.pause(), seconds(wanted));
        }
        backoff.reset();
        assert_eq!((backoff.next(), backoff.pause(), backoff.next()), (seconds(1), seconds(1), seconds(2)));
    }

    #[test]
    fn a_pause_is_never_too_long_to_be_doubled() {
        let mut backoff = Backoff::new(Duration::MAX, Duration::MAX);
        assert_eq!((backoff.pause(), backoff.pause()), (Duration::MAX, Duration::MAX));
    }
}
