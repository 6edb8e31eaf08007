//! Streams that come without being asked for one by one.

mod accept_loop;
mod forward;
mod listener;

pub use listener::Listener;
