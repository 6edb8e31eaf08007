//! Datagram sockets: sending and receiving on a destination's descriptor. Nothing here binds that descriptor or reads a
//! control socket; both belong to `session`.
//!
//! Imports go one way: socket -> sender, receiver -> endpoint, target_cache.

mod endpoint;
mod receiver;
mod sender;
mod socket;
mod target_cache;

pub use receiver::{Datagram, Slot};
pub use sender::Outgoing;
pub use socket::Dgram;
