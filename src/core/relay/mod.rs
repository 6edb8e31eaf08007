//! Moving bytes between two sockets until both are done; nothing here knows where the sockets came from.

mod end;
mod flow;
mod linger;

pub(crate) use end::End;
pub(crate) use flow::{Carriers, Flow, Flowed};
pub(crate) use linger::{Linger, LingerStep, PATIENCE};
