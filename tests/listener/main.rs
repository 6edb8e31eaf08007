//! Listeners: streams that come without being asked for one by one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod accept_loop;
#[path = "../common/mod.rs"]
mod common;
mod forward;
