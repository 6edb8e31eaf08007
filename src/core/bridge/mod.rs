//! The SAM bridge, and one connection to it.

mod config;
mod connection;

pub(crate) use config::Bridge;
pub(crate) use connection::{BridgeConnection, Finished};
