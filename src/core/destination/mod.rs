//! A destination of ours over time: its name, its sessions one after the other, its handles. What follows it from session
//! to session stands above it and is known here only as a [`Follower`].

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
