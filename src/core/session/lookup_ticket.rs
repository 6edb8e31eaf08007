//! A lookup in progress on a session's control socket.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use crate::core::bridge::AnswerSlot;
use crate::error::{Error, Operation, Result};
use crate::sys::{self, SharedFd, Watch};

pub struct Ticket {
    /// Its number in the [`super::ControlSocket`].
    pub number: u64,
    pub slot: Arc<AnswerSlot>,
    /// Without a keeper: readable when the answer has arrived or the control socket needs attention.
    pub watch: Option<Watch>,
}

/// Creates one descriptor that covers both the answer and the control socket.
pub(super) fn watch_both(slot: &AnswerSlot, control: &SharedFd, events: i16) -> Result<Watch> {
    let watched = Watch::new().and_then(|watch| {
        watch.add(&slot.wake, sys::IN)?;
        watch.add(control, events)?;
        Ok(watch)
    });
    watched.map_err(|error| Error::io(Operation::Lookup, "a descriptor for the lookup", &error))
}

/// Slots by lookup number; weak, so those of callers that went away vanish by themselves.
pub(super) type Slots = HashMap<u64, Weak<AnswerSlot>>;
