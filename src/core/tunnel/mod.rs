//! Tunnels, which connect ordinary TCP programs to I2P and back; nothing here knows SAM, as streams come from a
//! listener or from connecting through a destination.

mod connection;
mod event_loop;
mod plan;
mod report;
mod sides;
mod tunnel;

pub use plan::TunnelPlan;
pub use report::Counts;
pub use sides::{MakeSend, Receive, Send};
pub use tunnel::Tunnel;
