//! Sessions, destinations and tunnels over the loopback bridge: one program, since their tests mostly wait, and do so at
//! the same time here.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;
mod destination;
mod session;
mod tunnel;
