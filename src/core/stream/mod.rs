//! A connected stream: a socket of the system whose header has been read. Nothing here knows how it was connected.

mod stream;
mod timed;

pub(crate) use stream::Remote;
pub use stream::{Moved, Stream};
