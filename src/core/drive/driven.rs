//! The interface of what the keeper thread drives, or the program if there is no keeper.

use std::os::fd::RawFd;
use std::time::Instant;

use crate::core::drive::deadline::Deadline;

/// Something that has work to do from time to time.
pub trait Driven: Send + Sync {
    /// Descriptor that is readable while there is work; for poll only.
    fn work(&self) -> RawFd;

    /// When there will be work even without an event. The keeper asks after every run, and only then: whoever makes it
    /// earlier from elsewhere has to poke, and so has whoever was at work during a run, which may have skipped that.
    fn deadline(&self) -> Deadline;

    /// Gets as far as possible without blocking. Returns false if there will never be anything to do again.
    fn run(&self, now: Instant) -> bool;

    /// Whether something is left to be released after the end.
    fn has_kept(&self) -> bool;

    /// After the end: releases what was kept until then, which may use the disk and take its time. Returns once that is
    /// done, by this thread or another.
    fn release(&self);
}
