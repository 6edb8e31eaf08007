//! A lookup through a session's control socket, as an operation.

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Instant;

use crate::core::drive::{Attended, Deadline, Interest, Job, Limit, Pending};
use crate::core::session::lookup_ticket::Ticket;
use crate::core::session::session::Session;
use crate::error::{Operation, Result};
use crate::identity::Address;
use crate::protocol::line::Fields;
use crate::sys;

pub(crate) struct Lookup {
    session: Arc<Session>,
    ticket: Ticket,
    fields: Option<Fields>,
}

impl Lookup {
    /// Queues the lookup on the session.
    pub(crate) fn new(session: &Arc<Session>, name: &str, now: Instant) -> Result<Self> {
        let ticket = session.lookup(name, now)?;
        Ok(Lookup { session: Arc::clone(session), ticket, fields: None })
    }

    /// Starts the operation.
    pub(crate) fn begin(session: &Arc<Session>, name: &str, limit: Limit, now: Instant) -> Result<Pending<Address>> {
        let limit = limit.or(session.bridge().timeouts.lookup);
        Ok(Pending::begin(&session.bridge().process, Operation::Lookup, Lookup::new(session, name, now)?, limit, now))
    }
}

impl Job<Address> for Lookup {
    fn step(&mut self, now: Instant, _: Deadline) -> Result<Option<Address>> {
        self.session.attend(now);
        let Some(answer) = self.ticket.slot.take() else {
            // The events the control socket needs change: once the command is out, it no longer waits to write. If it
            // is closed, the answer is about to arrive.
            if let (Some(watch), Some((control, events))) = (&self.ticket.watch, self.session.control()) {
                drop(watch.modify(&*control, events));
            }
            return Ok(None);
        };
        self.fields = answer.fields;
        answer.result.map(Some)
    }

    fn interest(&self) -> Interest {
        let fd = self.ticket.watch.as_ref().map_or(self.ticket.slot.wake.as_raw_fd(), AsRawFd::as_raw_fd);
        Interest { fd, events: sys::IN }
    }

    fn generation(&self) -> u64 {
        1
    }

    fn deadline(&self) -> Deadline {
        self.session.attended_deadline()
    }

    fn reply(&self) -> Option<&Fields> {
        self.fields.as_ref()
    }

    fn attended(&self) -> Option<Attended> {
        self.session.attended()
    }

    fn give_up(&mut self, _: Option<Address>) {
        self.session.forget(&self.ticket);
    }
}
