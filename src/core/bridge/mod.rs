//! The SAM bridge and single connections to it. Nothing here knows about sessions, or what a request is for.

mod config;
mod connection;

pub(crate) use config::Bridge;
pub(crate) use connection::{BridgeConnection, Finished};
