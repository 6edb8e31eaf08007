//! The vectors beside this file, against the library.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod datagrams;
mod keys;
mod lines;
