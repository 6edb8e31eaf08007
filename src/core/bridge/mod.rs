//! The SAM bridge, and one connection to it.

mod config;
mod connection;

pub use config::Bridge;
pub use connection::{BridgeConnection, Finished};
