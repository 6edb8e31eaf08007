//! The handle a program has: real UDP, one system call per datagram each way, nothing allocated.

use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::sync::Arc;

use crate::core::datagram::endpoint::{clock, Counts, Endpoint};
use crate::core::datagram::receiver::{Datagram, Receiver, Slot};
use crate::core::datagram::sender::{Outgoing, Sender};
use crate::core::destination::{DestHandle, Destination};
use crate::core::drive::Limit;
use crate::error::{Error, Operation, Result};
use crate::identity::Address;
use crate::protocol::datagram::SendOptions;

/// A handle to the datagrams of a destination.
pub struct Dgram {
    endpoint: Arc<Endpoint>,
    sender: Sender,
    receiver: Receiver,
}

impl Dgram {
    /// The datagrams of a destination.
    pub fn bind(dest: &DestHandle) -> Result<Self> {
        let destination = dest.destination();
        destination.bridge().check_process()?;
        destination.check(Operation::None)?;
        let Some(port) = &destination.spec().port else {
            return Err(Error::state("datagrams are for destinations of a datagram style"));
        };
        let endpoint = Arc::new(Endpoint::new(Arc::clone(destination), Arc::clone(port)));
        let (sender, receiver) = (Sender::new(Arc::clone(&endpoint)), Receiver::new(Arc::clone(&endpoint)));
        Ok(Dgram { endpoint, sender, receiver })
    }

    /// The destination.
    pub fn destination(&self) -> &Arc<Destination> {
        self.endpoint.destination()
    }

    /// The descriptor, for poll.
    pub fn fd(&self) -> RawFd {
        self.endpoint.fd()
    }

    /// What has happened so far, through all handles of the destination.
    pub fn counts(&self) -> Counts {
        self.endpoint.counts()
    }

    /// The descriptor, unless the destination has ended or this is a child of fork(2).
    pub fn check(&self, operation: Operation) -> Result<RawFd> {
        self.endpoint.check(operation)
    }

    /// Sets or clears O_NONBLOCK.
    pub fn set_nonblocking(&self, on: bool) -> Result<()> {
        self.endpoint.set_nonblocking(on)
    }

    /// Bounds every send and receive in milliseconds; -1 for no bound.
    pub fn set_timeout(&self, milliseconds: i32) -> Result<()> {
        self.endpoint.set_timeout(milliseconds)
    }

    /// Sends one datagram, whole or not at all; whether it went (otherwise it would have blocked).
    pub fn send_to(&self, address: &str, payload: &[u8], flags: i32, options: &SendOptions) -> Result<bool> {
        self.sender.send_to(address, payload, flags, options, clock())
    }

    /// Sends datagrams in order, as [`Dgram::send_to`] would one by one. Returns how many went and, unless all did,
    /// what is the matter with the next: an error, or `false` when it would have blocked.
    pub fn send_many(&self, list: &[Outgoing<'_>], flags: i32) -> (usize, Result<bool>) {
        self.sender.send_many(list, flags, clock())
    }

    /// Destination of a hash, resolved once.
    pub fn resolve(&self, hash: &[u8; 32], limit: Limit) -> Result<Address> {
        self.sender.resolve(hash, limit, clock())
    }

    /// Receives one datagram into `buffer`; `None` when it would have blocked. What is not from the bridge or makes no
    /// sense is dropped and counted on the way.
    pub fn recv_from(&self, buffer: &mut [MaybeUninit<u8>], flags: i32) -> Result<Option<Datagram>> {
        self.receiver.recv_from(buffer, flags, clock())
    }

    /// Waits for a datagram like [`Dgram::recv_from`] and takes what else is there. Fills the first slots and returns
    /// how many; none when it would have blocked.
    pub fn recv_many(&self, slots: &mut [Slot<'_>], flags: i32) -> Result<usize> {
        self.receiver.recv_many(slots, flags, clock())
    }

    /// The next receive returns this: it came when there was something to return already.
    pub fn defer(&self, error: Error) {
        self.receiver.defer(error);
    }
}
