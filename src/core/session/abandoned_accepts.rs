//! Accepts of one session that were given up, and those that wait.
//!
//! A router keeps an accept that was given up and may hand it the next stream, before or after the accepts that were
//! issued since. So every accept that waits also watches those that were given up, and takes a stream from any of them.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Weak};
use std::time::Instant;

use crate::core::bridge::BridgeConnection;
use crate::core::drive::{Progress, Waiting};
use crate::core::stream::Stream;
use crate::error::{Error, Operation, Result};
use crate::sys::lock::{Rank, RankedMutex};
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
    list: RankedMutex<List>,
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
    pub fn new() -> io::Result<Self> {
        Ok(AcceptPool { list: RankedMutex::new(Rank::AcceptPool, List::default()), arrived: Wake::new()? })
    }

    /// Keeps an accept that was given up.
    pub fn park(&self, parked: AbandonedAccept) {
        let mut list = self.list.lock();
        if list.ended {
            return;
        }
        match parked {
            AbandonedAccept::Waiting(accept) => {
                list.each_watch(|watch| watch_too(watch, &accept));
                list.waiting.push_back(accept);
            }
            AbandonedAccept::Arrived(stream) => {
                list.streams.push_back(stream);
                self.arrived.set();
            }
        }
    }

    /// What a new accept should begin with: a stream that nobody fetched, or else the oldest accept that was given up and
    /// is still good.
    pub fn adopt(&self, now: Instant) -> Option<AbandonedAccept> {
        self.ready(now).or_else(|| self.adopt_waiting())
    }

    /// The oldest accept that was given up.
    pub fn adopt_waiting(&self) -> Option<AbandonedAccept> {
        let mut list = self.list.lock();
        let accept = list.waiting.pop_front()?;
        list.each_watch(|watch| watch_no_more(watch, &accept));
        Some(AbandonedAccept::Waiting(accept))
    }

    /// A stream that nobody fetched, or an accept that was given up and has come to its end meanwhile.
    pub fn ready(&self, now: Instant) -> Option<AbandonedAccept> {
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
            let mut accept = self.list.lock().waiting.pop_front()?;
            match accept.step(now) {
                Ok(Progress::Done) => {
                    self.list.lock().each_watch(|watch| watch_no_more(watch, &accept));
                    return Some(AbandonedAccept::Waiting(accept));
                }
                // Its place in the row does not matter: all are watched.
                Ok(Progress::Block) => {
                    let mut list = self.list.lock();
                    if !list.ended {
                        list.each_watch(|watch| watch_too(watch, &accept));
                        list.waiting.push_back(accept);
                    }
                }
                Err(_) => self.list.lock().each_watch(|watch| watch_no_more(watch, &accept)),
            }
        }
        None
    }

    /// One descriptor for an accept that waits: readable when it, or one that was given up, has something.
    pub fn watch(&self, own: &BridgeConnection) -> Result<Arc<Watch>> {
        let system = |error| Error::io(Operation::Accept, "a descriptor for the accept", &error);
        let watch = Arc::new(Watch::new().map_err(system)?);
        if let Some((socket, _)) = own.awaited() {
            watch.add(&**socket, sys::IN).map_err(system)?;
        }
        self.tell(&watch);
        Ok(watch)
    }

    /// From now on `watch` is also readable when an accept that was given up has something.
    pub fn tell(&self, watch: &Arc<Watch>) {
        // Only want of memory can refuse that, and then the accept that waits is still watched.
        drop(watch.set(&self.arrived, sys::IN));
        let mut list = self.list.lock();
        for accept in &list.waiting {
            drop(watch_too(watch, accept));
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
                drop(watch.remove(&self.arrived));
                for accept in &list.waiting {
                    drop(watch_no_more(&watch, accept));
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
    fn each_watch(&self, act: impl Fn(&Watch) -> io::Result<()>) {
        for watch in self.watches.iter().filter_map(Weak::upgrade) {
            drop(act(&watch));
        }
    }
}

/// `watch` tells of an accept that was given up. One without a socket yet has nothing to watch; the next step gives it one.
fn watch_too(watch: &Watch, accept: &BridgeConnection) -> io::Result<()> {
    accept.awaited().map_or(Ok(()), |(socket, events)| watch.set(&**socket, events))
}

fn watch_no_more(watch: &Watch, accept: &BridgeConnection) -> io::Result<()> {
    accept.awaited().map_or(Ok(()), |(socket, _)| watch.remove(&**socket))
}
