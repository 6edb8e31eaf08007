//! Real I2P sockets for C, and for every language that calls C, over a router's SAM v3 bridge.
//!
//! Calls go one way: `ffi` (the C functions) → `core` (sockets, sessions, streams) → `protocol` (bytes in, bytes out).
//! The C header `include/i2psock.h` is generated from `ffi` and is the documentation of the library.
pub mod core;
pub mod error;
pub mod ffi;
pub mod identity;
pub mod protocol;
pub mod secret;
pub mod sys;
