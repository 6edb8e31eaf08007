//! The handle a program uses: real UDP, one system call per datagram each way, no allocations.

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

/// A handle for sending and receiving datagrams of a destination.
pub struct Dgram {
    endpoint: Arc<Endpoint>,
    sender: Sender,
    receiver: Receiver,
}

impl Dgram {
    /// Fails unless `dest` has a datagram style.
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

    /// The destination it sends from and receives for.
    pub fn destination(&self) -> &Arc<Destination> {
        self.endpoint.destination()
    }

    /// The descriptor, for poll only.
    pub fn fd(&self) -> RawFd {
        self.endpoint.fd()
    }

    /// Counters, summed over all handles of the destination.
    pub fn counts(&self) -> Counts {
        self.endpoint.counts()
    }

    /// Returns the descriptor, or an error if the destination has ended or this is a child of fork(2).
    pub fn check(&self, operation: Operation) -> Result<RawFd> {
        self.endpoint.check(operation)
    }

    /// Sets or clears O_NONBLOCK on the descriptor.
    pub fn set_nonblocking(&self, on: bool) -> Result<()> {
        self.endpoint.set_nonblocking(on)
    }

    /// Sets the time limit of each send and receive in milliseconds; -1 for none.
    pub fn set_timeout(&self, milliseconds: i32) -> Result<()> {
        self.endpoint.set_timeout(milliseconds)
    }

    /// Sends one datagram, entirely or not at all. Returns `false` if that would have blocked.
    pub fn send_to(&self, address: &str, payload: &[u8], flags: i32, options: &SendOptions) -> Result<bool> {
        self.sender.send_to(address, payload, flags, options, clock())
    }

    /// Sends datagrams in order, as calling [`Dgram::send_to`] for each would. Returns how many were sent and, unless
    /// all were, the outcome of the next one: an error, or `false` if it would have blocked.
    pub fn send_many(&self, list: &[Outgoing<'_>], flags: i32) -> (usize, Result<bool>) {
        self.sender.send_many(list, flags, clock())
    }

    /// Resolves a hash to its destination. The answer is cached.
    pub fn resolve(&self, hash: &[u8; 32], limit: Limit) -> Result<Address> {
        self.sender.resolve(hash, limit, clock())
    }

    /// Receives one datagram into `buffer`; `None` if that would have blocked. Datagrams that are malformed or not from
    /// the bridge are dropped and counted.
    pub fn recv_from(&self, buffer: &mut [MaybeUninit<u8>], flags: i32) -> Result<Option<Datagram>> {
        self.receiver.recv_from(buffer, flags, clock())
    }

    /// Waits for a datagram like [`Dgram::recv_from`], then takes whatever else is queued. Fills the leading slots and
    /// returns how many; 0 if it would have blocked.
    pub fn recv_many(&self, slots: &mut [Slot<'_>], flags: i32) -> Result<usize> {
        self.receiver.recv_many(slots, flags, clock())
    }

    /// Makes the next receive return this error, which occurred when there was already something else to return.
    pub fn defer(&self, error: Error) {
        self.receiver.defer(error);
    }
}
