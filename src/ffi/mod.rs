//! The C face. Thin: every function converts its arguments, calls `core`, converts the result. The doc comments here
//! become the header.
//!
//! References in signatures are the C caller's pointers: `Option<&T>` is a pointer that may be NULL, `MaybeUninit`
//! marks outputs, which need not be initialised.
#![allow(unsafe_code, non_camel_case_types)]
// The contract of every function stands in the preamble of the header.
#![allow(clippy::missing_safety_doc)]

pub mod addr;
pub mod base;
pub mod controller;
pub mod dest;
pub mod dgram;
pub mod error;
mod guard;
mod handles;
pub mod keys;
pub mod listener;
mod memory;
pub mod options;
pub mod pending;
pub mod stream;
pub mod tunnel;

pub use base::i2psock_fd;
