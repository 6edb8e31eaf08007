//! Listeners: streams that arrive without a call for each of them; nothing here opens a destination or a session, as a
//! listener just follows its destination from session to session.

mod accept_loop;
mod forward;
mod listener;

pub use listener::Listener;
