//! Accepts of one session that were given up, and those that wait.
//!
//! A router keeps an accept that was given up and may hand it the next stream, before or after the accepts that were
//! issued since. So every accept that waits also watches those that were given up, and takes a stream from any of them.

use std::collections::VecDeque;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::core::bridge::BridgeConnection;
use crate::core::drive::Progress;
use crate::core::stream::Stream;
use crate::error::{Error, Operation, Result};
use crate::sys::{self, Wake, Watch};

/// An accept that was given up.
pub enum AbandonedAccept {
    /// Still waiting.
    Waiting(Box<BridgeConnection>),
    /// A stream that nobody fetched.
    Arrived(Box<Stream>),
}

/// The accepts of a session.
pub struct AcceptPool {
    list: Mutex<List>,
    /// Readable while a stream is there that nobody fetched.
    arrived: Wake,
}

#[derive(Default)]
struct List {
    waiting: VecDeque<Box<BridgeConnection>>,
    streams: VecDeque<Box<Stream>>,
    watches: Vec<Weak<Watch>>,
    ended: bool,
}

impl AcceptPool {
    /// None yet.
    pub fn new() -> std::io::Result<Self> {
        Ok(AcceptPool { list: Mutex::default(), arrived: Wake::new()? })
    }

    /// Keeps an accept that was given up.
    pub fn park(&self, parked: AbandonedAccept) {
        let mut list = self.list.lock();
        if list.ended {
            return;
        }
        match parked {
            AbandonedAccept::Waiting(exchange) => {
                list.each_watch(|watch| watch.set(exchange.fd(), exchange.events()));
                list.waiting.push_back(exchange);
            }
            AbandonedAccept::Arrived(stream) => {
                list.streams.push_back(stream);
                self.arrived.set();
            }
        }
    }

    /// What a new accept should begin with: a stream that nobody fetched, or else the oldest accept that was given up and
    /// is still good.
    pub fn adopt(&self, log: &mut Vec<String>) -> Option<AbandonedAccept> {
        self.ready(log).or_else(|| self.adopt_waiting())
    }

    /// The oldest accept that was given up.
    pub fn adopt_waiting(&self) -> Option<AbandonedAccept> {
        let mut list = self.list.lock();
        let exchange = list.waiting.pop_front()?;
        list.each_watch(|watch| watch.remove(exchange.fd()));
        Some(AbandonedAccept::Waiting(exchange))
    }

    /// A stream that nobody fetched, or an accept that was given up and has come to its end meanwhile.
    pub fn ready(&self, log: &mut Vec<String>) -> Option<AbandonedAccept> {
        let mut left = {
            let mut list = self.list.lock();
            if let Some(stream) = list.streams.pop_front() {
                if list.streams.is_empty() {
                    self.arrived.clear();
                }
                return Some(AbandonedAccept::Arrived(stream));
            }
            list.waiting.len()
        };
        // One at a time, and not under the lock.
        while left > 0 {
            left -= 1;
            let mut exchange = self.list.lock().waiting.pop_front()?;
            match exchange.step_with(log) {
                Ok(Progress::Done) => {
                    self.list.lock().each_watch(|watch| watch.remove(exchange.fd()));
                    return Some(AbandonedAccept::Waiting(exchange));
                }
                // Its place in the row does not matter: all are watched.
                Ok(Progress::Block) => {
                    let mut list = self.list.lock();
                    if !list.ended {
                        list.each_watch(|watch| watch.set(exchange.fd(), exchange.events()));
                        list.waiting.push_back(exchange);
                    }
                }
                Err(_) => self.list.lock().each_watch(|watch| watch.remove(exchange.fd())),
            }
        }
        None
    }

    /// One descriptor for an accept that waits: readable when it, or one that was given up, has something.
    pub fn watch(&self, own: &BridgeConnection) -> Result<Arc<Watch>> {
        let system = |error| Error::io(Operation::Accept, "a descriptor for the accept", &error);
        let watch = Arc::new(Watch::new().map_err(system)?);
        watch.add(own.fd(), sys::IN).map_err(system)?;
        self.tell(&watch);
        Ok(watch)
    }

    /// From now on `watch` is also readable when an accept that was given up has something.
    pub fn tell(&self, watch: &Arc<Watch>) {
        // Only want of memory can refuse that, and then the accept that waits is still watched.
        drop(watch.set(self.arrived.as_raw_fd(), sys::IN));
        let mut list = self.list.lock();
        for exchange in &list.waiting {
            // One without a socket yet has nothing to watch; the next step gives it one.
            drop(watch.set(exchange.fd(), exchange.events()));
        }
        list.watches.retain(|known| known.strong_count() > 0);
        list.watches.push(Arc::downgrade(watch));
    }

    /// The session has ended: nothing is kept any more.
    pub fn end(&self) {
        let (waiting, streams) = {
            let mut list = self.list.lock();
            list.ended = true;
            let watches = std::mem::take(&mut list.watches);
            for watch in watches.iter().filter_map(Weak::upgrade) {
                // Closing alone does not do it: a child of fork(2) may have them, too.
                drop(watch.remove(self.arrived.as_raw_fd()));
                for exchange in &list.waiting {
                    drop(watch.remove(exchange.fd()));
                }
            }
            (std::mem::take(&mut list.waiting), std::mem::take(&mut list.streams))
        };
        drop((waiting, streams));
    }

    /// In a child of fork(2): closes our copies, unless somebody held the lock.
    pub fn abandon(&self) {
        if let Some(mut list) = self.list.try_lock() {
            *list = List { ended: true, ..List::default() };
        }
        self.arrived.abandon();
    }
}

impl List {
    /// What cannot be done to one watch is of no interest to the others: an accept that left may be gone already.
    fn each_watch(&self, act: impl Fn(&Watch) -> std::io::Result<()>) {
        for watch in self.watches.iter().filter_map(Weak::upgrade) {
            drop(act(&watch));
        }
    }
}
