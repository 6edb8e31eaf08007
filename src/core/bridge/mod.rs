//! The SAM bridge and single connections to it; nothing here knows what becomes of a connection once its request is
//! answered.

mod config;
mod connection;

pub(crate) use config::Bridge;
pub(crate) use connection::{BridgeConnection, Finished};
