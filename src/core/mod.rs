//! Sockets, sessions and streams in safe Rust. Every operation is a step that never blocks; blocking is step + poll.

pub mod bridge;
pub mod controller;
pub mod datagram;
pub mod destination;
pub mod drive;
pub mod listener;
pub mod relay;
pub mod session;
pub mod settings;
pub mod store;
pub mod stream;
pub mod tunnel;
