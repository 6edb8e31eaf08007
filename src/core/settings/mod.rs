//! What a program sets: options, endpoints.

mod endpoint;
mod options;
mod timeouts;

pub use endpoint::Endpoint;
pub use options::{Options, Owner, NONE};
pub use timeouts::Timeouts;
