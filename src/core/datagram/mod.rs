//! Datagram sockets.

mod socket;
mod target_cache;

pub use socket::{Datagram, Dgram, Outgoing, Slot};
