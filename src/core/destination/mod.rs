//! A destination of ours over time: its name, its sessions one after the other, its handles.

mod context;
mod destination;
mod handle;
mod name_registry;
pub mod opening;

pub use context::Context;
pub use destination::{Destination, Follower, State};
pub use handle::DestHandle;
pub use name_registry::NameRegistry;
pub use opening::DestPlan;
