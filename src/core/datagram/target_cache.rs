//! Addresses a datagram socket sends to: each is parsed or resolved once, and kept with the header it gives.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::core::drive::Limit;
use crate::core::session::{Lookup, Session, Ticket};
use crate::error::{Error, Operation, Result, Status};
use crate::identity::{Address, Target};
use crate::protocol::datagram::{send_header, SendOptions};

/// How long a resolved name is believed.
const AGE: Duration = Duration::from_secs(600);
/// Addresses kept; beyond that the list begins anew.
const KEPT: usize = 1024;

/// An address that can be sent to.
pub struct Known {
    /// Its destination.
    pub address: Address,
    /// The header without options, for the session it was made for.
    pub header: Vec<u8>,
    session: Weak<Session>,
}

enum Entry {
    /// Until then, if it was a name.
    Known(Arc<Known>, Option<Instant>),
    /// Since then.
    Asking(Ticket, Instant),
}

/// Addresses by the text they were given as.
#[derive(Default)]
pub struct TargetCache(Mutex<HashMap<Box<str>, Entry>>);

impl TargetCache {
    /// The address `text` stands for. A name that is not known yet is resolved: by waiting for it, or, without `wait`, in
    /// the background, `None` meaning that it is not there yet.
    pub fn find(&self, session: &Arc<Session>, text: &str, wait: bool) -> Result<Option<Arc<Known>>> {
        let address = match Target::parse(text)? {
            Target::Destination(address) => address,
            target if wait => resolve(session, target.wire(), Limit::Default)?,
            target => {
                self.ask(session, text, target.wire())?;
                // The answer may be there already, and without a keeper nobody else looks.
                return Ok(self.cached(session, text));
            }
        };
        Ok(Some(self.keep(session, text, address)))
    }

    /// Remembers an address, for some time if it came by a name.
    pub fn keep(&self, session: &Arc<Session>, text: &str, address: Address) -> Arc<Known> {
        let expires = if text.contains('.') { Instant::now().checked_add(AGE) } else { None };
        let header = send_header(session.id(), &address, &SendOptions::default());
        let known = Arc::new(Known { address, header, session: Arc::downgrade(session) });
        let mut entries = self.0.lock();
        if entries.len() >= KEPT {
            entries.clear();
        }
        entries.insert(text.into(), Entry::Known(Arc::clone(&known), expires));
        known
    }

    /// The address `text` stands for, if it is known.
    pub fn cached(&self, session: &Arc<Session>, text: &str) -> Option<Arc<Known>> {
        let mut entries = self.0.lock();
        let Some(Entry::Known(known, expires)) = entries.get_mut(text) else { return None };
        if expires.is_some_and(|at| Instant::now() >= at) {
            return None;
        }
        // The header has the session's id in it.
        if known.session.as_ptr() != Arc::as_ptr(session) {
            let (address, session) = (known.address.clone(), Arc::downgrade(session));
            let header = send_header(session.upgrade()?.id(), &address, &SendOptions::default());
            *known = Arc::new(Known { address, header, session });
        }
        Some(Arc::clone(known))
    }

    /// Starts a lookup in the background, or takes the answer of the one that was started.
    fn ask(&self, session: &Arc<Session>, text: &str, wire: &str) -> Result<()> {
        session.attend();
        let mut late = false;
        let answer = match self.0.lock().get(text) {
            Some(Entry::Asking(ticket, since)) => {
                let limit = session.bridge().timeouts.lookup;
                late = limit.is_some_and(|limit| since.elapsed() >= limit);
                Some(ticket.slot.take().map(|answer| answer.result))
            }
            _ => None,
        };
        match answer {
            Some(Some(Ok(address))) => {
                self.keep(session, text, address);
            }
            Some(Some(Err(error))) => {
                self.0.lock().remove(text);
                return Err(error);
            }
            Some(None) if late => {
                if let Some(Entry::Asking(ticket, _)) = self.0.lock().remove(text) {
                    session.forget(&ticket);
                }
                let message = format!("the name {text} was not resolved in time");
                return Err(Error::new(Status::Timeout, Operation::Lookup, message));
            }
            Some(None) => {}
            None => {
                // Without the lock: the lookup may run the program's log hook.
                let ticket = session.lookup(wire)?;
                let mut entries = self.0.lock();
                if !matches!(entries.get(text), Some(Entry::Known(_, expires)) if expires.is_none_or(|at| Instant::now() < at))
                {
                    entries.insert(text.into(), Entry::Asking(ticket, Instant::now()));
                }
            }
        }
        Ok(())
    }
}

/// Resolves a name through the session, waiting for the answer.
pub fn resolve(session: &Arc<Session>, wire: &str, limit: Limit) -> Result<Address> {
    Lookup::begin(session, wire, limit, Instant::now())?.product()
}
