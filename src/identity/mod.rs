//! What identifies a peer on I2P: destinations, their private keys, and the texts that stand for them; nothing here
//! does I/O or knows about SAM.

mod address;
mod b33;
mod encoding;
mod keys;
mod target;
mod written;

pub use address::Address;
pub use b33::B33;
pub use encoding::{base32_decode, base32_encode, base64_decode, base64_decode_strict, base64_encode};
pub use keys::Keys;
pub use target::Target;
