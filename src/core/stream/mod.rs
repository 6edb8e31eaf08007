//! A connected stream: a system socket whose SAM lines have been read; nothing here knows how it was connected.

mod fate;
mod stream;
mod timed;

pub(crate) use stream::Remote;
pub use stream::{Moved, Stream};
