//! When the last session under a name ended: the second line of the name's lock file.
//!
//! ```text
//! held BOOT              by a process that may have a session; it stays if that process is killed
//! ended BOOT MILLIS      the last session ended at this time since the machine was started
//! ```
//!
//! BOOT is the kernel's id of this start of the machine: a router does not survive the next one.

use std::time::{Duration, Instant};

use crate::sys;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stamp {
    Held { boot: String },
    Ended { boot: String, at: Duration },
}

impl Stamp {
    /// For a name that is taken now.
    pub(super) fn held() -> Self {
        Stamp::Held { boot: boot() }
    }

    /// For a name whose last session has ended just now.
    pub(super) fn ended() -> Self {
        Stamp::Ended { boot: boot(), at: sys::boot_clock() }
    }

    /// Reads the content of a lock file; `None` if no stamp is in it.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut words = text.lines().nth(1)?.split(' ');
        let kind = words.next()?;
        let boot = words.next().filter(|boot| !boot.is_empty())?.to_owned();
        match (kind, words.next(), words.next()) {
            ("held", None, None) => Some(Stamp::Held { boot }),
            ("ended", Some(millis), None) => {
                millis.parse().ok().map(|millis| Stamp::Ended { boot, at: Duration::from_millis(millis) })
            }
            _ => None,
        }
    }

    /// The line for the lock file.
    pub(super) fn line(&self) -> String {
        match self {
            Stamp::Held { boot } => format!("held {boot}\n"),
            Stamp::Ended { boot, at } => format!("ended {boot} {}\n", at.as_millis()),
        }
    }

    /// When the last session ended, if that was since the machine was started. A process that was killed may have had a
    /// session until `now`.
    pub(super) fn when(&self, now: Instant) -> Option<Instant> {
        self.when_at(now, sys::boot_clock(), &boot())
    }

    fn when_at(&self, now: Instant, clock: Duration, this: &str) -> Option<Instant> {
        match self {
            Stamp::Held { boot } => (boot == this).then_some(now),
            Stamp::Ended { boot, at } if boot == this => now.checked_sub(clock.checked_sub(*at)?),
            Stamp::Ended { .. } => None,
        }
    }
}

/// The kernel's id of this start of the machine; `-` if it has none.
fn boot() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    match id.split_ascii_whitespace().next() {
        Some(id) => id.to_owned(),
        None => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_the_second_line() {
        let ended = Stamp::Ended { boot: boot(), at: Duration::from_millis(13_207_752) };
        for stamp in [Stamp::held(), ended] {
            assert_eq!(Stamp::parse(&format!("4711\n{}", stamp.line())), Some(stamp));
        }
        for text in [
            "",
            "12\n",
            "12\nheld\n",
            "12\nheld \n",
            "12\nheld a 3\n",
            "12\nended a\n",
            "12\nended a x\n",
            "12\nended a 1 2\n",
            "12\nwas a\n",
            "held a\n",
            "12\nended a -1\n",
            "12\nended a 99999999999999999999\n",
        ] {
            assert_eq!(Stamp::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn it_counts_until_the_machine_is_started_anew() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let ended = Stamp::Ended { boot: "a".to_owned(), at: 100 * second };
        assert_eq!(ended.when_at(now, 101 * second, "a"), now.checked_sub(second));
        assert_eq!(ended.when_at(now, 100 * second, "a"), Some(now));
        assert_eq!(ended.when_at(now, 99 * second, "a"), None, "another clock");
        assert_eq!(ended.when_at(now, 101 * second, "b"), None);
        let held = Stamp::Held { boot: "a".to_owned() };
        assert_eq!((held.when_at(now, second, "a"), held.when_at(now, second, "b")), (Some(now), None));
        assert!(Stamp::ended().when(now).is_some_and(|when| now.saturating_duration_since(when) < 60 * second));
    }
}
