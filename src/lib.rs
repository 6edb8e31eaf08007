//! Real I2P sockets for C, and for every language that calls C, over a router's SAM v3 bridge.
//!
//! The library's interface is the C header `include/i2psock.h`, which is generated from `ffi` and is the documentation.
//! The Rust side is not an API: what is `pub` here is what the tests of this package use, and may change at any time.
//!
//! The source has floors; each file imports only from its own folder and from the floors below it, and nothing imports in
//! a circle (`tests/house.rs` checks that). From the ground up:
//!
//! - `sys` is the few system calls `std` lacks, and the locks with their order. Only here and in `ffi` is code unsafe.
//!   `error` and `secret` stand on it.
//! - `identity` says what an address, a key and a name are.
//! - `protocol` is SAM without input and output: bytes in, bytes out, no clock.
//! - `core` is sockets, sessions and streams in safe Rust, in rooms of their own: `settings` (what a program sets, parsed
//!   once), `drive` (operations in progress, who does the work, deadlines, the log), `store` (key files), `bridge` (one
//!   connection to the router's bridge), `stream`, `relay` (bytes between two sockets), `session` (one session and what is
//!   asked on it), `destination` (its name, its sessions one after the other, its handles), `controller`, `listener`,
//!   `datagram` and `tunnel`.
//! - `ffi` is the C surface: thin functions that convert arguments, call `core` and convert the result.
//!
//! Every operation is a step that never blocks; blocking is step and poll. A step is given the time: only a call of the
//! program, a blocking wait and our own threads (the keeper of a controller, one for each tunnel) read the clock. The
//! order of the locks stands at the top of `core`.
#![warn(unreachable_pub)]

pub mod core;
pub mod error;
pub mod ffi;
pub mod identity;
pub mod protocol;
pub mod secret;
pub mod sys;
