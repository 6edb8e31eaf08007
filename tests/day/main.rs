//! A day with routers that lose sessions in every way they are known to, in virtual time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;
mod day;
mod router;
