//! Datagram sockets: sending and receiving on a destination's descriptor; binding that descriptor and reading what
//! comes in band from a control socket belong to `session`, not here.
//!
//! Imports go one way: socket -> sender, receiver -> endpoint.

mod endpoint;
mod receiver;
mod sender;
mod socket;

pub use receiver::{Datagram, Slot};
pub use sender::Outgoing;
pub use socket::Dgram;
