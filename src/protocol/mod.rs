//! The SAM v3 protocol as pure state machines, bytes in and bytes out; nothing here has sockets, a clock or threads.

pub mod command;
pub mod control;
pub mod credentials;
pub mod datagram;
pub mod handshake;
pub mod heartbeat;
pub mod hidden;
pub mod line;
pub mod outbox;
pub(crate) mod partial_line;
pub mod peer_line;
pub mod ports;
pub mod reply;
pub mod request;
pub(crate) mod style;
pub(crate) mod trace;
pub mod version;
