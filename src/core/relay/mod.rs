//! Moving bytes between two sockets until both are done. Nothing here knows where the sockets came from.

mod end;
mod flow;
mod linger;

pub(crate) use end::End;
pub(crate) use flow::{Carriers, Flow, Flowed};
pub(crate) use linger::{Linger, LingerStep, PATIENCE};
