//! The interface of what the keeper thread drives, or the program if there is no keeper.

use std::os::fd::RawFd;
use std::time::Instant;

use crate::core::drive::deadline::Deadline;

/// Something that has work to do from time to time.
pub trait Driven: Send + Sync {
    /// Descriptor that is readable while there is work; for poll only.
    fn work(&self) -> RawFd;

    /// When there will be work even without an event.
    fn deadline(&self) -> Deadline;

    /// Gets as far as possible without blocking. Returns false if there will never be anything to do again.
    fn run(&self, now: Instant) -> bool;

    /// Called after `run` returned false: what is left to drop. Dropping it may access the disk and take long.
    fn take_kept(&self) -> Option<Box<dyn Send>>;
}
