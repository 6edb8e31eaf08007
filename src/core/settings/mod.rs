//! What a program sets: the options bag that C fills, and one struct for each thing opened with options; nothing here
//! may import any other part of core.
//!
//! Each struct has a `parse`, which checks who the options are for and everything else that can be checked without the
//! bridge or the disk. It is called once, where the call from C comes in; from there on only the struct is passed
//! around.

mod connect;
mod controller;
mod dest;
mod endpoint;
mod listener;
mod options;
mod send;
mod timeouts;
mod tunnel;

pub(crate) use connect::ConnectOptions;
pub(crate) use controller::BridgeOptions;
pub use controller::ControllerOptions;
pub(crate) use dest::{DatagramOptions, DestOptions, ED25519};
pub(crate) use endpoint::Endpoint;
pub(crate) use listener::ListenerOptions;
pub use options::Options;
pub(crate) use options::NONE;
pub(crate) use timeouts::Timeouts;
pub(crate) use tunnel::Limits;
pub use tunnel::TunnelOptions;

#[cfg(test)]
mod testing {
    use super::Options;

    pub(super) fn options(entries: &[(&str, &str)]) -> Options {
        let mut options = Options::default();
        for (key, value) in entries {
            options.set(key, value).unwrap();
        }
        options
    }
}
