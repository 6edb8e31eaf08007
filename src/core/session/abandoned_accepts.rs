//! Abandoned accepts of one session: those whose operation was cancelled, timed out or got a stream elsewhere, or whose
//! listener was closed.
//!
//! The router does not know that an accept was abandoned and may hand the next stream to it, before or after accepts
//! issued later. So every waiting accept also watches the abandoned ones and takes a stream from any of them.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::core::bridge::BridgeConnection;
use crate::core::drive::{Progress, Waiting};
use crate::core::stream::Stream;
use crate::error::{Error, Operation, Result};
use crate::protocol::handshake::Phase;
use crate::sys::lock::{Rank, RankedMutex};
use crate::sys::{self, SharedFd, Wake, Watch};

/// How long a bridge needs at most to confirm an accept that is worth keeping.
const CONFIRMATION: Duration = Duration::from_secs(1);

/// An accept that no operation is waiting for any more.
pub enum AbandonedAccept {
    /// Its connection, which may have received a stream by now.
    Waiting(Box<BridgeConnection>),
    /// A stream that was not fetched.
    Arrived(Box<Stream>),
}

/// The abandoned accepts of a session, and the watches of those that wait.
pub struct AcceptPool {
    list: RankedMutex<List>,
    /// Readable while there is an unfetched stream.
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
    pub fn new() -> io::Result<Self> {
        Ok(AcceptPool { list: RankedMutex::new(Rank::AcceptPool, List::default()), arrived: Wake::new()? })
    }

    /// Adds an abandoned accept, unless the bridge should have confirmed it by now: it may have forgotten about it. What
    /// it has said since the last step counts, as there may be a stream behind it.
    pub fn park(&self, abandoned: AbandonedAccept, now: Instant) {
        let mut list = self.list.lock();
        if list.ended {
            return;
        }
        match abandoned {
            AbandonedAccept::Waiting(accept) if is_unconfirmed(&accept, now) => {}
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

    /// What a new accept should start from: an unfetched stream, or else the oldest abandoned accept that still works.
    pub fn adopt(&self, now: Instant) -> Option<AbandonedAccept> {
        self.ready(now).or_else(|| self.adopt_waiting())
    }

    /// Whether there are abandoned accepts that may still get a stream.
    pub fn is_waiting(&self) -> bool {
        self.list.lock().waiting.iter().any(|accept| accept.phase() == Phase::Peer)
    }

    /// Removes and returns the oldest abandoned accept.
    pub fn adopt_waiting(&self) -> Option<AbandonedAccept> {
        let mut list = self.list.lock();
        let accept = list.waiting.pop_front()?;
        list.each_watch(|watch| watch_no_more(watch, &accept));
        Some(AbandonedAccept::Waiting(accept))
    }

    /// Returns an unfetched stream, or an abandoned accept that has finished in the meantime.
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
        // Step them one at a time, without holding the lock.
        while left > 0 {
            left -= 1;
            let mut accept = self.list.lock().waiting.pop_front()?;
            match accept.step(now) {
                Ok(Progress::Done) => {
                    self.list.lock().each_watch(|watch| watch_no_more(watch, &accept));
                    return Some(AbandonedAccept::Waiting(accept));
                }
                // Its place in the queue does not matter, since all are watched.
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

    /// Creates a descriptor for a waiting accept: readable when it or any abandoned accept has something.
    pub fn watch(&self, own: &BridgeConnection) -> Result<Arc<Watch>> {
        let system = |error| Error::io(Operation::Accept, "a descriptor for the accept", &error);
        let watch = Arc::new(Watch::new().map_err(system)?);
        if let Some((socket, _)) = own.awaited() {
            watch.add(&**socket, sys::IN).map_err(system)?;
        }
        self.tell(&watch);
        Ok(watch)
    }

    /// Makes `watch` readable also when an abandoned accept has something.
    pub fn tell(&self, watch: &Arc<Watch>) {
        // Fails only if memory is short, and then the waiting accept itself is still watched.
        drop(watch.set(&self.arrived, sys::IN));
        let mut list = self.list.lock();
        for accept in &list.waiting {
            drop(watch_too(watch, accept));
        }
        list.watches.retain(|known| known.strong_count() > 0);
        list.watches.push(Arc::downgrade(watch));
    }

    /// Called when the session has ended: drops everything and keeps nothing from now on.
    pub fn end(&self) {
        let (waiting, streams) = {
            let mut list = self.list.lock();
            list.ended = true;
            let watches = std::mem::take(&mut list.watches);
            for watch in watches.iter().filter_map(Weak::upgrade) {
                // Closing alone would not remove them: a child of fork(2) may hold them too.
                drop(watch.remove(&self.arrived));
                for accept in &list.waiting {
                    drop(watch_no_more(&watch, accept));
                }
            }
            (std::mem::take(&mut list.waiting), std::mem::take(&mut list.streams))
        };
        drop((waiting, streams));
    }

    /// For a child of fork(2): closes our copies, unless a thread of the parent held the lock.
    pub fn abandon(&self) {
        if let Some(mut list) = self.list.try_lock() {
            *list = List { ended: true, ..List::default() };
        }
        self.arrived.abandon();
    }
}

impl List {
    /// Ignores errors, which concern single watches only: an accept to remove may already be gone from one.
    fn each_watch(&self, act: impl Fn(&Watch) -> io::Result<()>) {
        for watch in self.watches.iter().filter_map(Weak::upgrade) {
            drop(act(&watch));
        }
    }
}

fn is_unconfirmed(accept: &BridgeConnection, now: Instant) -> bool {
    let late = accept.phase() == Phase::Reply && accept.asked_for(now).is_some_and(|time| time >= CONFIRMATION);
    let has_news = |socket: &SharedFd| sys::poll_one(socket.as_raw_fd(), sys::IN, 0).is_ok_and(|events| events != 0);
    late && !accept.awaited().is_some_and(|(socket, _)| has_news(socket))
}

/// Adds an abandoned accept to `watch`. One without a socket has nothing to watch; its next step gives it one.
fn watch_too(watch: &Watch, accept: &BridgeConnection) -> io::Result<()> {
    accept.awaited().map_or(Ok(()), |(socket, events)| watch.set(&**socket, events))
}

fn watch_no_more(watch: &Watch, accept: &BridgeConnection) -> io::Result<()> {
    accept.awaited().map_or(Ok(()), |(socket, _)| watch.remove(&**socket))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::core::bridge::Bridge;
    use crate::core::settings::{ControllerOptions, Options};
    use crate::protocol::request::Request;

    /// An accept that was sent at `now`, and the far end of its connection.
    fn asked(now: Instant) -> (Box<BridgeConnection>, TcpStream) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let mut options = Options::default();
        options.set("sam", &listener.local_addr().unwrap().to_string()).unwrap();
        let bridge = Arc::new(Bridge::new(ControllerOptions::parse(&options).unwrap().bridge).unwrap());
        let request = Request::Accept { id: "x".to_owned() };
        let mut accept = BridgeConnection::new(bridge, Arc::default(), request).unwrap();
        assert_eq!(accept.step(now).unwrap(), Progress::Block);
        let (mut far, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(far.try_clone().unwrap());
        let mut line = String::new();
        while accept.phase() != Phase::Reply {
            line.clear();
            let (socket, _) = accept.awaited().unwrap();
            sys::poll_one(socket.as_raw_fd(), sys::OUT, 60_000).unwrap();
            assert_eq!(accept.step(now).unwrap(), Progress::Block);
            reader.read_line(&mut line).unwrap();
            far.write_all(b"HELLO REPLY RESULT=OK VERSION=3.3\n").unwrap();
            sys::poll_one(accept.awaited().unwrap().0.as_raw_fd(), sys::IN, 60_000).unwrap();
            assert_eq!(accept.step(now).unwrap(), Progress::Block);
        }
        (Box::new(accept), far)
    }

    /// The program has not looked at it since it was sent, and cancels it.
    #[test]
    fn a_stream_that_nobody_has_seen_is_not_thrown_away() {
        let _edge = crate::core::drive::log::edge();
        let (now, pool) = (Instant::now(), AcceptPool::new().unwrap());
        let (unanswered, _far) = asked(now);
        pool.park(AbandonedAccept::Waiting(unanswered), now + CONFIRMATION);
        assert!(pool.adopt_waiting().is_none());
        let (answered, mut far) = asked(now);
        let peer = crate::identity::base64_encode(&[&[7; 384][..], &[5, 0, 4, 0, 7, 0, 0]].concat());
        far.write_all(format!("STREAM STATUS RESULT=OK\n{peer} FROM_PORT=0 TO_PORT=0\n").as_bytes()).unwrap();
        sys::poll_one(answered.awaited().unwrap().0.as_raw_fd(), sys::IN, 60_000).unwrap();
        pool.park(AbandonedAccept::Waiting(answered), now + CONFIRMATION);
        let Some(AbandonedAccept::Waiting(stream)) = pool.ready(now + CONFIRMATION) else { panic!("it is lost") };
        assert_eq!(stream.phase(), Phase::Done);
    }
}
