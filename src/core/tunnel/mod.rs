//! Any TCP program on I2P.

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
