//! A destination of ours over time: its name, its successive sessions, its handles; listeners, which stay with it from
//! session to session, live above it and are known here only as a `Follower`.

mod context;
mod destination;
mod handle;
mod name_registry;
mod opening;
mod recovery;
mod state;

pub(crate) use context::Context;
pub(crate) use destination::{Destination, Follower};
pub use handle::DestHandle;
pub(crate) use name_registry::NameRegistry;
pub(crate) use opening::{open, DestPlan};
pub use state::State;
