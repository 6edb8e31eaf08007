//! Sending one datagram, or many in few system calls.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Instant;

use crate::core::datagram::endpoint::{check_flags, clock, Endpoint, Waiting};
use crate::core::drive::Limit;
use crate::core::session::{is_refusal, Known, Lookup, Path, Session};
use crate::error::{Error, Operation, Result, Status};
use crate::identity::{base32_encode, Address, Target};
use crate::protocol::datagram::{self, SendOptions, MAX_DGRAM, MAX_RAW};
use crate::sys::{self, PollFd, UdpAddress, MANY};

/// Flags accepted for sending.
const FLAGS: i32 = sys::MSG_DONTWAIT | sys::MSG_NOSIGNAL;

/// A datagram to send.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outgoing<'a> {
    /// The destination, as base64, host name, b32 or b33.
    pub address: &'a str,
    /// The bytes to send.
    pub payload: &'a [u8],
}

/// Datagrams to send with one system call.
#[derive(Default)]
struct Bundle<'a> {
    targets: [Option<Arc<Known>>; MANY],
    payloads: [&'a [u8]; MANY],
    len: usize,
}

/// The sending half of a datagram handle.
pub(super) struct Sender {
    endpoint: Arc<Endpoint>,
}

impl Sender {
    pub(super) fn new(endpoint: Arc<Endpoint>) -> Self {
        Sender { endpoint }
    }

    pub(super) fn send_to(
        &self,
        address: &str,
        payload: &[u8],
        flags: i32,
        options: &SendOptions,
        now: Instant,
    ) -> Result<bool> {
        let fd = self.endpoint.check(Operation::Send)?;
        let session = self.endpoint.destination().live(Operation::Send)?;
        check_flags(flags, FLAGS)?;
        self.check_size(payload)?;
        if options.protocol.is_some() && !self.endpoint.is_raw() {
            return Err(Error::invalid("option protocol is for raw datagrams"));
        }
        let port = self.endpoint.port();
        if options.any() && !port.header_options {
            let message = "options of a datagram reach the peer only through routers that know them (Java I2P), \
                           and others lose the datagram: open the destination with option header_options=1 to insist";
            return Err(Error::new(Status::Unsupported, Operation::Send, message));
        }
        let waiting = self.endpoint.waiting(flags, Operation::Send, now);
        let target = match port.targets.cached(session.id(), address, now) {
            Some(known) => known,
            None => self.find(&session, fd, address, &waiting, now)?,
        };
        let went = match &port.path {
            Path::InBand(_) => self.put_in_band(&session, fd, &target.address, payload, options, &waiting)?,
            Path::Udp { raw, .. } if !options.any() => self.put(fd, raw, (&target.header, payload), &waiting, now)?,
            Path::Udp { raw, .. } => {
                let header = datagram::send_header(session.id(), &target.address, options);
                self.put(fd, raw, (&header, payload), &waiting, now)?
            }
        };
        port.counters.sent.fetch_add(went.into(), Ordering::Relaxed);
        Ok(went)
    }

    pub(super) fn send_many(&self, list: &[Outgoing<'_>], flags: i32, now: Instant) -> (usize, Result<bool>) {
        let mut sent = 0;
        let result = match &self.endpoint.port().path {
            Path::InBand(_) => self.send_each(list, flags, &mut sent),
            Path::Udp { raw, .. } => self.send_bundled(raw, list, flags, &mut sent, now),
        };
        (sent, result)
    }

    pub(super) fn resolve(&self, hash: &[u8; 32], limit: Limit, now: Instant) -> Result<Address> {
        self.endpoint.check(Operation::Lookup)?;
        let session = self.endpoint.destination().live(Operation::Lookup)?;
        let host = format!("{}.b32.i2p", base32_encode(hash));
        match self.endpoint.port().targets.cached(session.id(), &host, now) {
            Some(known) => Ok(known.address.clone()),
            // The session keeps the answer.
            None => Lookup::begin(&session, &host, limit, now)?.product(),
        }
    }

    /// Resolves an address that is not cached under this very text. A name that is not known takes a lookup, which is
    /// part of the call if that may block, within its time limit and that of lookups. Otherwise it is up to the program:
    /// there is nothing a descriptor could tell it, and nothing would end what was asked for here.
    fn find(
        &self,
        session: &Arc<Session>,
        fd: RawFd,
        text: &str,
        waiting: &Waiting,
        now: Instant,
    ) -> Result<Arc<Known>> {
        let targets = &self.endpoint.port().targets;
        let target = match Target::parse(text)? {
            Target::Destination(address) => return Ok(targets.keep_destination(session.id(), text, address)),
            target => target,
        };
        let name = target.wire();
        if let Some(known) = targets.cached(session.id(), name, now) {
            return Ok(known);
        }
        if !self.endpoint.goes_on(fd, waiting, now)? {
            let message = format!(
                "what {name} stands for is not known, and this call may not wait for an answer: look it up first, \
                 which is remembered for ten minutes"
            );
            return Err(Error::new(Status::State, Operation::Send, message));
        }
        let lookup = session.bridge().timeouts.lookup;
        let limit = match (waiting.left(now), lookup) {
            (Some(left), Some(lookup)) => Limit::After(left.min(lookup)),
            (Some(left), None) => Limit::After(left),
            (None, _) => Limit::Default,
        };
        let address = Lookup::begin(session, name, limit, now)?.product().map_err(|error| match error.status {
            Status::Timeout => error.saying(format!("the name {name} was not resolved in time")),
            _ => error,
        })?;
        let now = clock();
        // The session has kept the answer, unless the name has been pushed out already.
        Ok(targets
            .cached(session.id(), name, now)
            .unwrap_or_else(|| targets.keep_name(session.id(), name, address, now)))
    }

    fn check_size(&self, payload: &[u8]) -> Result<()> {
        let limit = if self.endpoint.is_raw() { MAX_RAW } else { MAX_DGRAM };
        if payload.is_empty() || payload.len() > limit {
            let len = payload.len();
            return Err(Error::invalid(format!("a datagram of {len} bytes: 1 to {limit} can be sent")));
        }
        Ok(())
    }

    fn put(
        &self,
        fd: RawFd,
        to: &UdpAddress,
        (header, payload): (&[u8], &[u8]),
        waiting: &Waiting,
        now: Instant,
    ) -> Result<bool> {
        if self.put_first(header, payload, waiting, now)? {
            return Ok(true);
        }
        loop {
            match sys::send_datagram(fd, Some(to), header, payload, waiting.flags()) {
                Ok(_) => return Ok(true),
                Err(error) if sys::would_block(&error) => {
                    if !self.endpoint.wait(fd, sys::OUT, waiting, clock())? {
                        return Ok(false);
                    }
                }
                Err(error) => return Err(self.endpoint.failed(Operation::Send, &error)),
            }
        }
    }

    /// Sends a datagram by the connected socket, if it is time to see whether the bridge listens. Returns `false` if it
    /// still has to be sent.
    fn put_first(&self, header: &[u8], payload: &[u8], waiting: &Waiting, now: Instant) -> Result<bool> {
        let Some(bridge) = self.endpoint.port().listening().filter(|bridge| bridge.is_due(now)) else {
            return Ok(false);
        };
        match bridge.send(header, payload, waiting.flags(), now) {
            Ok(()) => Ok(true),
            Err(error) if is_refusal(&error) => {
                self.endpoint.check(Operation::Send)?;
                Err(bridge.error(Operation::Send))
            }
            // The other socket tells the same, and can be waited for.
            Err(_) => Ok(false),
        }
    }

    /// Sends on the control socket, waiting for room there if the caller may block.
    fn put_in_band(
        &self,
        session: &Session,
        fd: RawFd,
        to: &Address,
        payload: &[u8],
        options: &SendOptions,
        waiting: &Waiting,
    ) -> Result<bool> {
        loop {
            if session.send_in_band(to, payload, options)? {
                return Ok(true);
            }
            if !self.endpoint.goes_on(fd, waiting, clock())? {
                return Ok(false);
            }
            session.check_alive(Operation::Send)?;
            if let Some((control, _)) = session.control() {
                self.endpoint.poll(&mut [PollFd { fd: control.as_raw_fd(), events: sys::OUT, revents: 0 }], waiting)?;
            }
            session.drive(clock());
        }
    }

    fn send_each(&self, list: &[Outgoing<'_>], flags: i32, sent: &mut usize) -> Result<bool> {
        for one in list {
            // Each datagram gets the full time limit.
            if !self.send_to(one.address, one.payload, flags, &SendOptions::default(), clock())? {
                return Ok(false);
            }
            *sent += 1;
        }
        Ok(true)
    }

    fn send_bundled(
        &self,
        to: &UdpAddress,
        list: &[Outgoing<'_>],
        flags: i32,
        sent: &mut usize,
        now: Instant,
    ) -> Result<bool> {
        let fd = self.endpoint.check(Operation::Send)?;
        let session = self.endpoint.destination().live(Operation::Send)?;
        check_flags(flags, FLAGS)?;
        let (mut bundle, mut now) = (Bundle::default(), now);
        for one in list {
            let sound = self.check_size(one.payload);
            let targets = &self.endpoint.port().targets;
            let mut target = if sound.is_ok() { targets.cached(session.id(), one.address, now) } else { None };
            // Send what is bundled so far: one that needs a lookup or is invalid must not hold up those before it.
            if target.is_none() || bundle.len == MANY {
                if !self.put_bundle(fd, to, &mut bundle, flags, sent, now)? {
                    return Ok(false);
                }
                sound?;
                now = clock();
            }
            if target.is_none() {
                // The time it takes counts for the bundle that begins here.
                let waiting = self.endpoint.waiting(flags, Operation::Send, now);
                target = Some(self.find(&session, fd, one.address, &waiting, now)?);
                // The lookup may have taken long.
                session.check_alive(Operation::Send)?;
            }
            if let (Some(place), Some(payload)) =
                (bundle.targets.get_mut(bundle.len), bundle.payloads.get_mut(bundle.len))
            {
                (*place, *payload) = (target, one.payload);
                bundle.len += 1;
            }
        }
        self.put_bundle(fd, to, &mut bundle, flags, sent, now)
    }

    fn put_bundle(
        &self,
        fd: RawFd,
        to: &UdpAddress,
        bundle: &mut Bundle<'_>,
        flags: i32,
        sent: &mut usize,
        now: Instant,
    ) -> Result<bool> {
        let mut parts: [(&[u8], &[u8]); MANY] = Default::default();
        for (part, (target, payload)) in parts.iter_mut().zip(bundle.targets.iter().zip(bundle.payloads)) {
            *part = (target.as_deref().map_or(&[][..], |known| &known.header), payload);
        }
        // Each bundle gets the full time limit.
        let waiting = self.endpoint.waiting(flags, Operation::Send, now);
        let mut done = 0;
        if let Some((header, payload)) = parts.first().filter(|_| bundle.len > 0) {
            if self.put_first(header, payload, &waiting, now)? {
                done += 1;
                *sent += 1;
                self.endpoint.port().counters.sent.fetch_add(1, Ordering::Relaxed);
            }
        }
        while done < bundle.len {
            self.endpoint.check(Operation::Send)?;
            let rest = parts.get(done..bundle.len).unwrap_or_default();
            let (went, error) = sys::send_datagrams(fd, to, rest, waiting.flags());
            done += went;
            *sent += went;
            self.endpoint.port().counters.sent.fetch_add(went as u64, Ordering::Relaxed);
            let Some(error) = error else { continue };
            if sys::would_block(&error) {
                if !self.endpoint.wait(fd, sys::OUT, &waiting, clock())? {
                    return Ok(false);
                }
            } else {
                return Err(self.endpoint.failed(Operation::Send, &error));
            }
        }
        bundle.len = 0;
        Ok(true)
    }
}
