//! Datagram sockets: sending, receiving, many at a time, and on the control socket.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;
mod in_band;
mod many;
mod receive;
mod send;
