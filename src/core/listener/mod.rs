//! Listeners: streams that arrive without a call for each of them. Nothing here opens a destination or its session; a
//! listener follows a destination through all its sessions.

mod accept_loop;
mod forward;
mod listener;

pub use listener::Listener;
