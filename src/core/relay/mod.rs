//! Bytes between two sockets. Nothing here knows where the two came from.

mod end;
mod flow;
mod linger;

pub use end::End;
pub use flow::{Carriers, Flow, Flowed};
pub use linger::{Linger, LingerStep, PATIENCE};
