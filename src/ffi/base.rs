//! Version of the library and the numbers that belong to no object.

use std::ffi::{c_char, c_int};

/// Major version of this header.
pub const I2PSOCK_VERSION_MAJOR: c_int = 0;
/// Minor version of this header.
pub const I2PSOCK_VERSION_MINOR: c_int = 4;
/// Patch version of this header.
pub const I2PSOCK_VERSION_PATCH: c_int = 0;

/// Version of the library that runs, such as "0.4.0"; compare with I2PSOCK_VERSION of the header. Static: never free it.
#[no_mangle]
pub extern "C" fn i2psock_version() -> *const c_char {
    static TEXT: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    TEXT.as_ptr().cast()
}

/// A descriptor of the system; -1 when there is none.
pub type i2psock_fd = c_int;

/// Style of a destination: streams (i2p.sam's SOCK_STREAM, leaflet's "stream").
pub const I2PSOCK_STREAM: c_int = 1;
/// Style of a destination: repliable datagrams (i2p.sam's SOCK_DGRAM, leaflet's "datagram").
pub const I2PSOCK_DGRAM: c_int = 2;
/// Style of a destination: raw datagrams (i2p.sam's SOCK_RAW).
pub const I2PSOCK_RAW: c_int = 3;

/// Style of a destination: repliable datagrams that cannot be replayed (SAM's DATAGRAM2).
pub const I2PSOCK_DGRAM2: c_int = 4;
/// Style of a destination: datagrams with the hash of an unverified sender (SAM's DATAGRAM3).
pub const I2PSOCK_DGRAM3: c_int = 5;

/// Format of a key file: bytes, as in a .dat file of i2pd or Java I2P.
pub const I2PSOCK_KEYS_BINARY: c_int = 1;
/// Format of a key file: one line of I2P base64.
pub const I2PSOCK_KEYS_TEXT: c_int = 2;

/// As `timeout_ms`: the controller's own limit for the operation.
pub const I2PSOCK_TIMEOUT_DEFAULT: c_int = -1;
/// As `timeout_ms`: no limit.
pub const I2PSOCK_TIMEOUT_NONE: c_int = -2;
