//! Destinations: names that keep their keys, and sessions that are opened again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;
mod names;
mod recovery;
