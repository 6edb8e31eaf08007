//! Receiving one datagram, or many in few system calls. Drops what is malformed or not from the bridge.

use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::Instant;

use crate::core::datagram::endpoint::{check_flags, clock, Endpoint, Waiting};
use crate::core::session::Form;
use crate::error::{Error, Operation, Result};
use crate::protocol::datagram::{self, Origin, Source, MAX_HEADER};
use crate::sys::lock::{Rank, RankedMutex};
use crate::sys::{self, Arrival, Batch, MANY};

/// Flags for receiving one datagram.
const FLAGS: i32 = sys::MSG_DONTWAIT | sys::MSG_PEEK | sys::MSG_NOSIGNAL;
/// Flags for receiving many: peeking would return the first one over and over.
const FLAGS_OF_MANY: i32 = sys::MSG_DONTWAIT | sys::MSG_NOSIGNAL;
/// Number of sources cached. Each datagram of a peer beyond these costs a parse.
const KNOWN_SOURCES: usize = 64;
/// Number of datagrams dropped before a receiver checks its time limit again.
const DROPS_PER_LOOK: usize = 16;

/// A received datagram; its payload is in the caller's buffer.
#[derive(Debug)]
pub struct Datagram {
    /// Number of payload bytes in the buffer.
    pub len: usize,
    /// Number of payload bytes the datagram had.
    pub full_len: usize,
    /// The sender; `None` for raw datagrams.
    pub source: Option<Source>,
    /// I2CP ports and protocol, if the header has them.
    pub origin: Origin,
}

/// Room for one datagram in [`super::Dgram::recv_many`].
#[derive(Debug, Default)]
pub struct Slot<'a> {
    /// Where its payload goes.
    pub room: &'a mut [MaybeUninit<u8>],
    /// Set when a datagram was received into `room`.
    pub datagram: Option<Datagram>,
}

/// Classification of a datagram from the system.
enum Verdict {
    Payload(Datagram),
    Ended,
    Forged(Option<SocketAddr>),
    Malformed,
    /// Sent by this library to itself.
    Ours,
}

/// The receiving half of a datagram handle.
pub(super) struct Receiver {
    endpoint: Arc<Endpoint>,
    /// Length of the last header, by which to place the next payload.
    predicted: AtomicUsize,
    /// The most recent one first.
    sources: RankedMutex<Vec<(Box<[u8]>, Source)>>,
    deferred: RankedMutex<Option<Error>>,
    /// Reused between calls; taken out while a thread receives many.
    batch: RankedMutex<Option<Box<Batch>>>,
}

impl Receiver {
    pub(super) fn new(endpoint: Arc<Endpoint>) -> Self {
        let predicted = match (endpoint.is_raw(), endpoint.port().raw_header) {
            (true, false) => 0,
            (true, true) => 32,
            (false, _) => 525,
        };
        Receiver {
            endpoint,
            predicted: AtomicUsize::new(predicted),
            sources: RankedMutex::new(Rank::DatagramSources, Vec::new()),
            deferred: RankedMutex::new(Rank::DatagramError, None),
            batch: RankedMutex::new(Rank::DatagramBatch, None),
        }
    }

    pub(super) fn recv_from(
        &self,
        buffer: &mut [MaybeUninit<u8>],
        flags: i32,
        now: Instant,
    ) -> Result<Option<Datagram>> {
        check_flags(flags, FLAGS)?;
        let operation = Operation::Receive;
        let waiting = self.endpoint.waiting(flags, operation, now);
        if let Some(error) = self.deferred.lock().take() {
            return Err(error);
        }
        let mut dropped = 0;
        self.try_header(now)?;
        loop {
            let fd = self.endpoint.check(operation)?;
            match self.receive(fd, buffer, waiting.flags()) {
                Ok(Verdict::Payload(datagram)) => return Ok(Some(datagram)),
                Ok(Verdict::Forged(from)) if self.endpoint.port().report_source => {
                    let message = format!("a datagram came from {}", self.endpoint.port().foreign(from));
                    return Err(Error::protocol(Operation::Source, message));
                }
                Ok(Verdict::Ended | Verdict::Ours) => {}
                Ok(Verdict::Forged(_) | Verdict::Malformed) => {
                    dropped += 1;
                    // A flood of foreign datagrams must not hold up a non-blocking caller, nor a blocking one beyond
                    // its time limit.
                    if dropped >= DROPS_PER_LOOK {
                        dropped = 0;
                        if !self.endpoint.goes_on(fd, &waiting, clock())? {
                            return Ok(None);
                        }
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if sys::would_block(&error) => {
                    self.endpoint.check_listening()?;
                    self.try_header(clock())?;
                    self.endpoint.check_header()?;
                    if !self.endpoint.wait(fd, sys::IN, &waiting, clock())? {
                        return Ok(None);
                    }
                }
                Err(error) => return Err(self.endpoint.failed(operation, &error)),
            }
        }
    }

    pub(super) fn recv_many(&self, slots: &mut [Slot<'_>], flags: i32, now: Instant) -> Result<usize> {
        check_flags(flags, FLAGS_OF_MANY)?;
        // Errors must be returned in the order of the datagrams they are about.
        if self.endpoint.port().report_source {
            return self.receive_each(slots, flags, now);
        }
        let waiting = self.endpoint.waiting(flags, Operation::Receive, now);
        if let Some(error) = self.deferred.lock().take() {
            return Err(error);
        }
        self.try_header(now)?;
        let mut batch = self.batch.lock().take().unwrap_or_else(Batch::boxed);
        let result = self.receive_batches(slots, &waiting, &mut batch);
        *self.batch.lock() = Some(batch);
        result
    }

    /// As [`Endpoint::try_header`]. What has come without a header is of no use, and must not keep the descriptor readable.
    fn try_header(&self, now: Instant) -> Result<()> {
        if self.endpoint.port().header_trial.is_none() {
            return Ok(());
        }
        self.endpoint.check(Operation::Receive)?;
        self.endpoint.try_header(now).inspect_err(|_| {
            if sys::discard_datagram(self.endpoint.fd()) {
                self.endpoint.port().counters.malformed.fetch_add(1, Ordering::Relaxed);
            }
        })
    }

    /// Makes the next call return this error.
    pub(super) fn defer(&self, error: Error) {
        *self.deferred.lock() = Some(error);
    }

    fn receive_each(&self, slots: &mut [Slot<'_>], flags: i32, now: Instant) -> Result<usize> {
        let mut flags = flags;
        for (got, slot) in slots.iter_mut().enumerate() {
            match self.recv_from(slot.room, flags, now) {
                Ok(Some(datagram)) => slot.datagram = Some(datagram),
                Ok(None) => return Ok(got),
                Err(error) if got == 0 => return Err(error),
                // Return what was received; the next call returns the error.
                Err(error) => {
                    self.defer(error);
                    return Ok(got);
                }
            }
            flags |= sys::MSG_DONTWAIT;
        }
        Ok(slots.len())
    }

    fn receive_batches(&self, slots: &mut [Slot<'_>], waiting: &Waiting, batch: &mut Batch) -> Result<usize> {
        let operation = Operation::Receive;
        let (mut got, mut dropped) = (0, 0);
        while let Some(rest) = slots.get_mut(got..).filter(|rest| !rest.is_empty()) {
            let fd = match self.endpoint.check(operation) {
                Ok(fd) => fd,
                Err(error) if got == 0 => return Err(error),
                Err(_) => break,
            };
            let flags = if got > 0 { waiting.flags() | sys::MSG_DONTWAIT } else { waiting.flags() };
            let rest = alike(rest);
            let wanted = rest.len();
            match self.receive_batch(fd, rest, flags, batch) {
                Ok((came, good)) => {
                    got += good;
                    // Leave to the next call what arrives by now, or is queued behind a flood of foreign datagrams.
                    if got > 0 && (came < wanted || good == 0) {
                        break;
                    }
                    dropped += came - good;
                    // As in `recv_from`.
                    if got == 0 && dropped >= DROPS_PER_LOOK {
                        dropped = 0;
                        if !self.endpoint.goes_on(fd, waiting, clock())? {
                            break;
                        }
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if got > 0 => {
                    if !sys::would_block(&error) {
                        self.defer(self.endpoint.failed(operation, &error));
                    }
                    break;
                }
                Err(error) if sys::would_block(&error) => {
                    self.endpoint.check_listening()?;
                    self.try_header(clock())?;
                    self.endpoint.check_header()?;
                    if !self.endpoint.wait(fd, sys::IN, waiting, clock())? {
                        break;
                    }
                }
                Err(error) => return Err(self.endpoint.failed(operation, &error)),
            }
        }
        Ok(got)
    }

    /// Receives with one system call and moves header and payload to where they belong.
    fn receive(&self, fd: RawFd, buffer: &mut [MaybeUninit<u8>], flags: i32) -> io::Result<Verdict> {
        let mut verdict = Verdict::Malformed;
        let mut decide = |first: &[u8], arrival: &Arrival| self.decide(first, arrival, &mut verdict);
        let predicted = self.predicted.load(Ordering::Relaxed);
        let (arrival, moved) = sys::receive_split(fd, flags, predicted, buffer, &mut decide)?;
        let peeked = flags & sys::MSG_PEEK != 0;
        self.settle(&mut verdict, &arrival, moved.unwrap_or(0), peeked);
        if peeked && matches!(verdict, Verdict::Forged(_) | Verdict::Malformed | Verdict::Ours) {
            sys::discard_datagram(fd);
        }
        Ok(verdict)
    }

    /// Receives with one system call. Returns how many datagrams came, and how many of them are now in the first slots.
    fn receive_batch(
        &self,
        fd: RawFd,
        slots: &mut [Slot<'_>],
        flags: i32,
        batch: &mut Batch,
    ) -> io::Result<(usize, usize)> {
        let mut verdicts: [Verdict; MANY] = std::array::from_fn(|_| Verdict::Malformed);
        let came = {
            let len = slots.len();
            let mut buffers: [&mut [MaybeUninit<u8>]; MANY] = Default::default();
            for (buffer, slot) in buffers.iter_mut().zip(slots.iter_mut()) {
                *buffer = &mut *slot.room;
            }
            let mut decide = |index: usize, first: &[u8], arrival: &Arrival| {
                verdicts.get_mut(index).and_then(|verdict| self.decide(first, arrival, verdict))
            };
            let predicted = self.predicted.load(Ordering::Relaxed);
            let buffers = buffers.get_mut(..len).unwrap_or_default();
            sys::receive_many(fd, flags, predicted, buffers, batch, &mut decide)?
        };
        let mut good = 0;
        for (index, (verdict, (arrival, moved))) in verdicts.iter_mut().zip(batch.arrivals(came)).enumerate() {
            let mut moved = moved.unwrap_or(0);
            if matches!(verdict, Verdict::Payload(_)) {
                moved = move_up(slots, index, good, moved);
            }
            self.settle(verdict, arrival, moved, false);
            match std::mem::replace(verdict, Verdict::Ended) {
                Verdict::Payload(datagram) => {
                    if let Some(slot) = slots.get_mut(good) {
                        slot.datagram = Some(datagram);
                        good += 1;
                    }
                }
                // All that follow show the same end.
                Verdict::Ended => return Ok((index.max(1), good)),
                Verdict::Forged(_) | Verdict::Malformed | Verdict::Ours => {}
            }
        }
        Ok((came, good))
    }

    /// Length of the header of a datagram that starts with `first`; `None` if it is not for the program.
    fn decide(&self, first: &[u8], arrival: &Arrival, verdict: &mut Verdict) -> Option<usize> {
        // Shutting down the descriptor looks like an empty datagram; the next check returns the cause.
        if arrival.len == 0 && self.endpoint.port().socket.is_ended() {
            *verdict = Verdict::Ended;
            return None;
        }
        if !self.endpoint.port().is_from_bridge(arrival.from) {
            self.endpoint.note_stranger(arrival.from);
            *verdict = Verdict::Forged(arrival.from);
            return None;
        }
        if let Some(trial) = &self.endpoint.port().header_trial {
            match trial.judge(first, arrival.len) {
                Form::Header => {}
                Form::Ours => {
                    *verdict = Verdict::Ours;
                    return None;
                }
                Form::Unclear => {
                    *verdict = Verdict::Malformed;
                    return None;
                }
            }
        }
        *verdict = Verdict::Malformed;
        let (len, source, origin) = self.header(first)?;
        *verdict = Verdict::Payload(Datagram { len, full_len: arrival.len - len.min(arrival.len), source, origin });
        Some(len)
    }

    /// Counts a datagram, `moved` payload bytes of which are now in the program's buffer.
    fn settle(&self, verdict: &mut Verdict, arrival: &Arrival, moved: usize, peeked: bool) {
        let counters = &self.endpoint.port().counters;
        if let Some(total) = arrival.dropped {
            counters.system_dropped(total);
        }
        match verdict {
            Verdict::Payload(datagram) => {
                // Up to here, `len` was the length of the header.
                if datagram.len > 0 {
                    self.predicted.store(datagram.len, Ordering::Relaxed);
                }
                datagram.len = moved;
                self.endpoint.heard();
                if !peeked {
                    counters.received.fetch_add(1, Ordering::Relaxed);
                    counters.truncated.fetch_add(u64::from(moved < datagram.full_len), Ordering::Relaxed);
                }
            }
            Verdict::Ended => {}
            Verdict::Ours => self.endpoint.heard(),
            Verdict::Forged(_) => _ = counters.refused.fetch_add(1, Ordering::Relaxed),
            Verdict::Malformed => _ = counters.malformed.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// Length of the header including its line feed, and its content; `None` if it is malformed.
    fn header(&self, first: &[u8]) -> Option<(usize, Option<Source>, Origin)> {
        let raw = self.endpoint.is_raw();
        if raw && !self.endpoint.port().raw_header {
            return Some((0, None, Origin::default()));
        }
        // Most datagrams come from the same source as the last one: scanning every byte of it again would take longer
        // than everything else.
        let known = if raw { 0 } else { self.last_source(first) };
        let end = first.iter().skip(known).position(|b| *b == b'\n').map(|at| known + at);
        let end = end.filter(|end| *end <= MAX_HEADER);
        if raw {
            let line = first.get(..end?)?;
            return Some((line.len() + 1, None, datagram::raw_header(line)?));
        }
        let (token, origin) = datagram::split_source(first.get(..end?)?, known).ok()?;
        Some((end? + 1, Some(self.source(token)?), origin))
    }

    /// Length of the last source's token, if `packet` starts with it; otherwise 0.
    fn last_source(&self, packet: &[u8]) -> usize {
        let sources = self.sources.lock();
        sources.first().filter(|(token, _)| packet.starts_with(token)).map_or(0, |(token, _)| token.len())
    }

    /// Parses a source token, through a cache of recent peers.
    fn source(&self, token: &[u8]) -> Option<Source> {
        let mut sources = self.sources.lock();
        if let Some(at) = sources.iter().position(|(known, _)| **known == *token) {
            sources.swap(0, at);
            return sources.first().map(|(_, source)| source.clone());
        }
        let source = datagram::source(token).ok()?;
        sources.truncate(KNOWN_SOURCES - 1);
        sources.insert(0, (token.into(), source.clone()));
        Some(source)
    }
}

/// The leading slots that can be filled by one system call. If one of their datagrams is dropped, later ones move up
/// into earlier slots. As long as no slot is smaller than the one before it, that cuts off only what would not have fit
/// anyway.
fn alike<'s, 'a>(slots: &'s mut [Slot<'a>]) -> &'s mut [Slot<'a>] {
    let shrinks = slots.windows(2).position(|two| matches!(two, [a, b] if b.room.len() < a.room.len()));
    let len = shrinks.map_or(slots.len(), |at| at + 1).min(MANY);
    slots.get_mut(..len).unwrap_or_default()
}

/// Moves `len` payload bytes from one slot to an earlier one. Returns how many fit there.
fn move_up(slots: &mut [Slot<'_>], from: usize, to: usize, len: usize) -> usize {
    if from == to {
        return len;
    }
    let Some((before, after)) = slots.split_at_mut_checked(from) else { return len };
    let (Some(to), Some(from)) = (before.get_mut(to), after.first()) else { return len };
    let len = len.min(to.room.len());
    if let (Some(to), Some(from)) = (to.room.get_mut(..len), from.room.get(..len)) {
        to.copy_from_slice(from);
    }
    len
}
