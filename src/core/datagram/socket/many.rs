//! Many datagrams in few system calls.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::sync::atomic::Ordering;
use std::sync::Arc;

use crate::core::datagram::socket::{check_flags, Datagram, Dgram, Verdict, DROPS_PER_LOOK, SEND_FLAGS};
use crate::core::datagram::target_cache::Known;
use crate::core::drive::Deadline;
use crate::core::session::Path;
use crate::error::{Operation, Result};
use crate::protocol::datagram::SendOptions;
use crate::sys::{self, Batch, UdpAddress, MANY};

/// Flags of receiving many: peeking would show the first one again and again.
const RECEIVE_MANY_FLAGS: i32 = sys::MSG_DONTWAIT | sys::MSG_NOSIGNAL;

/// A datagram that is to be sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outgoing<'a> {
    /// Where it goes.
    pub address: &'a str,
    /// What it says.
    pub payload: &'a [u8],
}

/// Room for a datagram.
#[derive(Debug, Default)]
pub struct Slot<'a> {
    /// For its payload.
    pub room: &'a mut [MaybeUninit<u8>],
    /// What was received.
    pub datagram: Option<Datagram>,
}

/// Datagrams that wait to be sent together.
#[derive(Default)]
struct Bundle<'a> {
    targets: [Option<Arc<Known>>; MANY],
    payloads: [&'a [u8]; MANY],
    len: usize,
}

impl Dgram {
    /// Sends datagrams in order, as [`Dgram::send_to`] would one by one. Returns how many went and, unless all did,
    /// what is the matter with the next: an error, or `false` when it would have blocked.
    pub fn send_many(&self, list: &[Outgoing<'_>], flags: i32) -> (usize, Result<bool>) {
        let mut sent = 0;
        let result = match &self.port.path {
            Path::InBand(_) => self.send_each(list, flags, &mut sent),
            Path::Udp { raw, .. } => self.send_bundled(raw, list, flags, &mut sent),
        };
        (sent, result)
    }

    fn send_each(&self, list: &[Outgoing<'_>], flags: i32, sent: &mut usize) -> Result<bool> {
        for one in list {
            if !self.send_to(one.address, one.payload, flags, &SendOptions::default())? {
                return Ok(false);
            }
            *sent += 1;
        }
        Ok(true)
    }

    fn send_bundled(&self, to: &UdpAddress, list: &[Outgoing<'_>], flags: i32, sent: &mut usize) -> Result<bool> {
        let fd = self.check(Operation::Send)?;
        let session = self.presence.live(Operation::Send)?;
        check_flags(flags, SEND_FLAGS)?;
        let mut bundle = Bundle::default();
        for one in list {
            let sound = self.check_size(one.payload);
            let mut target = if sound.is_ok() { self.names.cached(&session, one.address) } else { None };
            // What has to be looked up, or is wrong, holds up nothing before it.
            if target.is_none() || bundle.len == MANY {
                if !self.put_bundle(fd, to, &mut bundle, flags, sent)? {
                    return Ok(false);
                }
                sound?;
            }
            if target.is_none() {
                target = self.find(&session, fd, one.address, flags)?;
                // That may have taken its time.
                session.check_alive(Operation::Send)?;
            }
            if target.is_none() {
                return Ok(false);
            }
            if let (Some(place), Some(payload)) =
                (bundle.targets.get_mut(bundle.len), bundle.payloads.get_mut(bundle.len))
            {
                (*place, *payload) = (target, one.payload);
                bundle.len += 1;
            }
        }
        self.put_bundle(fd, to, &mut bundle, flags, sent)
    }

    fn put_bundle(
        &self,
        fd: RawFd,
        to: &UdpAddress,
        bundle: &mut Bundle<'_>,
        flags: i32,
        sent: &mut usize,
    ) -> Result<bool> {
        let mut parts: [(&[u8], &[u8]); MANY] = Default::default();
        for (part, (target, payload)) in parts.iter_mut().zip(bundle.targets.iter().zip(bundle.payloads)) {
            *part = (target.as_deref().map_or(&[][..], |known| &known.header), payload);
        }
        let deadline = self.deadline();
        let once = if deadline.is_some() { flags | sys::MSG_DONTWAIT } else { flags };
        let mut done = 0;
        while done < bundle.len {
            self.check(Operation::Send)?;
            let (went, error) = sys::send_datagrams(fd, to, parts.get(done..bundle.len).unwrap_or_default(), once);
            done += went;
            *sent += went;
            self.port.counters.sent.fetch_add(went as u64, Ordering::Relaxed);
            let Some(error) = error else { continue };
            if sys::would_block(&error) {
                if !self.wait(fd, flags, sys::OUT, deadline, Operation::Send)? {
                    return Ok(false);
                }
            } else if !self.is_first_refusal(fd, &error) {
                return Err(self.failed(Operation::Send, &error));
            }
        }
        bundle.len = 0;
        Ok(true)
    }

    /// Waits for a datagram like [`Dgram::recv_from`] and takes what else is there. Fills the first slots and returns
    /// how many; none when it would have blocked.
    pub fn recv_many(&self, slots: &mut [Slot<'_>], flags: i32) -> Result<usize> {
        check_flags(flags, RECEIVE_MANY_FLAGS)?;
        // Errors are told in the order of the datagrams they stand for.
        if self.port.report_source {
            return self.receive_each(slots, flags);
        }
        // Without a keeper somebody has to read the control socket while this waits.
        let limit = self.deadline().or(self.drives_itself().then_some(None));
        let once = if limit.is_some() { flags | sys::MSG_DONTWAIT } else { flags };
        if let Some(error) = self.deferred.lock().take() {
            return Err(error);
        }
        let mut batch = self.batch.lock().take().unwrap_or_else(Batch::boxed);
        let result = self.receive_batches(slots, flags, once, limit, &mut batch);
        *self.batch.lock() = Some(batch);
        result
    }

    fn receive_each(&self, slots: &mut [Slot<'_>], flags: i32) -> Result<usize> {
        let mut now = flags;
        for (got, slot) in slots.iter_mut().enumerate() {
            match self.recv_from(slot.room, now) {
                Ok(Some(datagram)) => slot.datagram = Some(datagram),
                Ok(None) => return Ok(got),
                Err(error) if got == 0 => return Err(error),
                // What was received counts; the next call returns the error.
                Err(error) => {
                    self.defer(error);
                    return Ok(got);
                }
            }
            now |= sys::MSG_DONTWAIT;
        }
        Ok(slots.len())
    }

    fn receive_batches(
        &self,
        slots: &mut [Slot<'_>],
        flags: i32,
        once: i32,
        limit: Option<Deadline>,
        batch: &mut Batch,
    ) -> Result<usize> {
        let operation = Operation::Receive;
        let (mut got, mut dropped) = (0, 0);
        while let Some(rest) = slots.get_mut(got..).filter(|rest| !rest.is_empty()) {
            let fd = match self.check(operation) {
                Ok(fd) => fd,
                Err(error) if got == 0 => return Err(error),
                Err(_) => break,
            };
            let flags_now = if got > 0 { once | sys::MSG_DONTWAIT } else { once };
            let rest = alike(rest);
            let wanted = rest.len();
            match self.receive_batch(fd, rest, flags_now, batch) {
                Ok((came, good)) => {
                    got += good;
                    // What comes while this looks is for the next call, and so is what a flood of strangers hides.
                    if got > 0 && (came < wanted || good == 0) {
                        break;
                    }
                    dropped += came - good;
                    // A flood of strangers holds nobody who does not want to wait, or not longer.
                    if got == 0 && dropped >= DROPS_PER_LOOK as usize {
                        dropped = 0;
                        if !self.goes_on(fd, flags, limit, operation)? {
                            break;
                        }
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if self.is_first_refusal(fd, &error) => {}
                Err(error) if got > 0 => {
                    if !sys::would_block(&error) {
                        self.defer(self.failed(operation, &error));
                    }
                    break;
                }
                Err(error) if sys::would_block(&error) => {
                    if !self.wait(fd, flags, sys::IN, limit, operation)? {
                        break;
                    }
                }
                Err(error) => return Err(self.failed(operation, &error)),
            }
        }
        Ok(got)
    }

    /// One system call: how many datagrams came, and how many of them are in the first slots now.
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
            let mut decide = |index: usize, first: &[u8], arrival: &sys::Arrival| {
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
                // All that follow are the same end.
                Verdict::Ended => return Ok((index.max(1), good)),
                Verdict::Forged | Verdict::Malformed => {}
            }
        }
        Ok((came, good))
    }
}

/// The first slots that can be filled together. When a datagram among them is dropped, what came into the slots behind
/// moves up: where no slot is smaller than the one before it, that cuts off only what would not have fitted anyway.
fn alike<'s, 'a>(slots: &'s mut [Slot<'a>]) -> &'s mut [Slot<'a>] {
    let shrinks = slots.windows(2).position(|two| matches!(two, [a, b] if b.room.len() < a.room.len()));
    let len = shrinks.map_or(slots.len(), |at| at + 1).min(MANY);
    slots.get_mut(..len).unwrap_or_default()
}

/// Moves `len` bytes of payload from one slot to an earlier one; how many are there then.
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
