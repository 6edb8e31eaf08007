//! Datagram sockets: sending and receiving on the descriptor of a destination. Binding it, and reading what comes in band
//! from a control socket, belongs to `session`.
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
