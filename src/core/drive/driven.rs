//! What a thread of ours, or the program without one, drives.

use std::os::fd::RawFd;
use std::time::Instant;

use crate::core::drive::deadline::Deadline;

/// Something with work to do now and then.
pub trait Driven: Send + Sync {
    /// Descriptor that is readable when there is work; for poll only.
    fn work(&self) -> RawFd;

    /// When there is work even without an event.
    fn deadline(&self) -> Deadline;

    /// Does what can be done without waiting. Returns whether there will ever be something to do again.
    fn run(&self, now: Instant) -> bool;

    /// Once it has nothing to do any more: what is left to be dropped, which may use the disk and take its time.
    fn take_kept(&self) -> Option<Box<dyn Send>>;
}
