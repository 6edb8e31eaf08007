//! Bytes between two sockets. Nothing here knows where the two came from.

mod end;
mod flow;
mod linger;

pub(crate) use end::End;
pub(crate) use flow::{Carriers, Flow, Flowed};
pub(crate) use linger::{Linger, LingerStep, PATIENCE};
