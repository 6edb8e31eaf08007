//! What a thread of ours, or the program without one, drives.

use std::os::fd::RawFd;

use crate::core::drive::deadline::Deadline;
use crate::core::drive::log::Log;

/// Something with work to do now and then.
pub trait Driven: Send + Sync {
    /// Descriptor that is readable when there is work.
    fn work(&self) -> RawFd;

    /// When there is work even without an event.
    fn deadline(&self) -> Deadline;

    /// Does what can be done without waiting. Returns whether there will ever be something to do.
    fn run(&self, log: &mut Vec<String>) -> bool;

    /// Where its conversation is shown.
    fn log(&self) -> &Log;
}
