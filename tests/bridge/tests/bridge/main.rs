//! The loopback bridge against a plain SAM client. One program, so that tests that wait do so together.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod basics;
mod common;
mod datagram_in_band;
mod datagram_personalities;
mod datagram_trouble;
mod datagrams;
mod deaths;
mod faults;
mod java;
mod lifetime;
mod personalities;
mod personality_streams;
mod recovery;
mod relay;
mod standstill;
