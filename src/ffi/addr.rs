//! `i2psock_addr`, and the names that stand for one.

use std::ffi::{c_char, c_int, c_void};
use std::mem::MaybeUninit;

use crate::error::Error;
use crate::ffi::error::{i2psock_error, i2psock_status};
use crate::ffi::guard::{self, Handle};
use crate::identity::{Address, Target, B33};

/// A public destination, the address of somebody on I2P (leaflet's Dest with is_private False). Never changes; may be
/// used by many threads at once.
pub struct i2psock_addr(pub(super) Handle<Address>);

impl i2psock_addr {
    pub(super) fn new(address: Address) -> Self {
        i2psock_addr(Handle::new(address))
    }
}

/// What a text given as an address is.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum i2psock_name_kind {
    /// Nothing that can be used as an address.
    I2PSOCK_NAME_INVALID = 0,
    /// A whole destination in I2P base64.
    I2PSOCK_NAME_DESTINATION = 1,
    /// A name of the router's address book, such as "example.i2p".
    I2PSOCK_NAME_HOST = 2,
    /// A base32 address: 52 characters and ".b32.i2p".
    I2PSOCK_NAME_B32 = 3,
    /// A base32 address of an encrypted lease set: 56 or more characters and ".b32.i2p".
    I2PSOCK_NAME_B33 = 4,
}

/// Any signature type, for i2psock_addr_parse().
pub const I2PSOCK_SIG_ANY: c_int = -1;
/// A secret is needed to use this address, in the flags of i2psock_b33_decode().
pub const I2PSOCK_B33_SECRET: c_int = 2;
/// The client must authenticate itself, in the flags of i2psock_b33_decode().
pub const I2PSOCK_B33_CLIENT_AUTH: c_int = 4;

/// Reads a destination in I2P base64 (leaflet's Dest), in every form of i2psock_name_classify(). `sig_type` demands a
/// signature type; I2PSOCK_SIG_ANY takes the one of the certificate. Private keys are refused: they are not an address.
/// `*out` is yours to free. No I/O; names are resolved by i2psock_controller_lookup(). I2PSOCK_INVALID: it is no
/// destination, or of another type.
#[no_mangle]
pub unsafe extern "C" fn i2psock_addr_parse(
    text: *const c_char,
    sig_type: c_int,
    out: Option<&mut MaybeUninit<*mut i2psock_addr>>,
    err: Option<&mut MaybeUninit<*mut i2psock_error>>,
) -> i2psock_status {
    let out = guard::clear(out);
    guard::call(err, || {
        // SAFETY: the contract of the header.
        let text = unsafe { guard::text(text, "text")? };
        let sig_type = match (sig_type, u16::try_from(sig_type)) {
            (I2PSOCK_SIG_ANY, _) => None,
            (_, Ok(number)) => Some(number),
            _ => return Err(Error::invalid("sig_type is not 0 to 65535 or I2PSOCK_SIG_ANY")),
        };
        guard::give(out, "out", || match Target::parse(text)? {
            Target::Destination(address) => address.expecting(sig_type).map(i2psock_addr::new),
            _ => Err(Error::invalid(
                "a name and not a destination: i2psock_dest_lookup() and i2psock_controller_lookup() resolve it",
            )),
        })
    })
}

/// Reads a destination in its binary form, of exactly `len` bytes. Otherwise as i2psock_addr_parse().
#[no_mangle]
pub unsafe extern "C" fn i2psock_addr_from_bytes(
    data: *const c_void,
    len: usize,
    out: Option<&mut MaybeUninit<*mut i2psock_addr>>,
    err: Option<&mut MaybeUninit<*mut i2psock_error>>,
) -> i2psock_status {
    let out = guard::clear(out);
    guard::call(err, || {
        // SAFETY: the contract of the header.
        let bytes = unsafe { guard::bytes(data, len, "data")? };
        guard::give(out, "out", || Address::from_bytes(bytes).map(i2psock_addr::new))
    })
}

/// A second handle to the same address, yours to free. NULL for NULL.
#[no_mangle]
pub extern "C" fn i2psock_addr_copy(addr: Option<&i2psock_addr>) -> *mut i2psock_addr {
    addr.map_or(std::ptr::null_mut(), |addr| guard::into_raw(i2psock_addr::new(addr.0.get().clone())))
}

/// The destination in I2P base64, with padding (leaflet's Dest.base64). Can be given wherever an address is wanted. Lives
/// as long as `addr`; NULL for NULL.
#[no_mangle]
pub extern "C" fn i2psock_addr_base64(addr: Option<&i2psock_addr>) -> *const c_char {
    addr.map_or(std::ptr::null(), |addr| addr.0.get().base64_c().as_ptr())
}

/// Base32 of the SHA-256 of the destination: 52 characters, without a suffix (leaflet's Dest.base32). Lives as long as
/// `addr`; NULL for NULL.
#[no_mangle]
pub extern "C" fn i2psock_addr_base32(addr: Option<&i2psock_addr>) -> *const c_char {
    addr.map_or(std::ptr::null(), |addr| addr.0.get().base32_c().as_ptr())
}

/// The same with ".b32.i2p": what one gives to people. Lives as long as `addr`; NULL for NULL.
#[no_mangle]
pub extern "C" fn i2psock_addr_host(addr: Option<&i2psock_addr>) -> *const c_char {
    addr.map_or(std::ptr::null(), |addr| addr.0.get().host_c().as_ptr())
}

/// The SHA-256 of the destination, 32 bytes. Lives as long as `addr`; NULL for NULL.
#[no_mangle]
pub extern "C" fn i2psock_addr_hash(addr: Option<&i2psock_addr>) -> *const u8 {
    addr.map_or(std::ptr::null(), |addr| addr.0.get().hash().as_ptr())
}

/// The binary form; `*len` is set to its length. Lives as long as `addr`; NULL and 0 for NULL.
#[no_mangle]
pub extern "C" fn i2psock_addr_bytes(addr: Option<&i2psock_addr>, len: Option<&mut MaybeUninit<usize>>) -> *const u8 {
    let mut len = len;
    let bytes = addr.map(|addr| addr.0.get().as_bytes());
    guard::put(&mut len, bytes.map_or(0, <[u8]>::len));
    bytes.map_or(std::ptr::null(), <[u8]>::as_ptr)
}

/// Number of the signature type; 7 is Ed25519. -1 for NULL.
#[no_mangle]
pub extern "C" fn i2psock_addr_sig_type(addr: Option<&i2psock_addr>) -> c_int {
    addr.map_or(-1, |addr| addr.0.get().signature_type().into())
}

/// 1 if both are the same destination, else 0. NULL equals nothing.
#[no_mangle]
pub extern "C" fn i2psock_addr_equal(a: Option<&i2psock_addr>, b: Option<&i2psock_addr>) -> c_int {
    a.zip(b).is_some_and(|(a, b)| a.0.get() == b.0.get()).into()
}

/// Frees an address. NULL is allowed.
#[no_mangle]
pub unsafe extern "C" fn i2psock_addr_free(addr: *mut i2psock_addr) {
    // SAFETY: the contract of the header.
    unsafe { guard::free(addr) }
}

/// What `text` is, by its form alone. No I/O. Wherever an address is wanted it may be written as people have it: in
/// upper case, with a line feed or a full stop at the end, with "http://" before it or a "/" or ":0" behind it; and a
/// destination with ".i2p" behind it, as BitTorrent has it, and with "%3D" for "=". What has another port, a path,
/// another scheme or international letters in it is refused, and the message says what to write instead.
#[no_mangle]
pub unsafe extern "C" fn i2psock_name_classify(text: *const c_char) -> i2psock_name_kind {
    guard::getter(i2psock_name_kind::I2PSOCK_NAME_INVALID, || {
        // SAFETY: the contract of the header.
        let text = unsafe { guard::text(text, "text") }.ok()?;
        Some(match Target::parse(text).ok()? {
            Target::Destination(_) => i2psock_name_kind::I2PSOCK_NAME_DESTINATION,
            Target::Host(_) => i2psock_name_kind::I2PSOCK_NAME_HOST,
            Target::B32 { .. } => i2psock_name_kind::I2PSOCK_NAME_B32,
            Target::B33(_) => i2psock_name_kind::I2PSOCK_NAME_B33,
        })
    })
}

/// Takes the address of an encrypted lease set apart ("b33": 56 or more characters and ".b32.i2p"). `*flags` has
/// I2PSOCK_B33_SECRET and I2PSOCK_B33_CLIENT_AUTH, `*sig_type` and `*blinded_sig_type` are the types of the key and of
/// its blinded form, and its first `capacity` bytes go to `key`, `*key_len` being its whole length (32 today). Every
/// output may be NULL. I2PSOCK_INVALID: it is no such address.
#[no_mangle]
pub unsafe extern "C" fn i2psock_b33_decode(
    text: *const c_char,
    flags: Option<&mut MaybeUninit<c_int>>,
    sig_type: Option<&mut MaybeUninit<c_int>>,
    blinded_sig_type: Option<&mut MaybeUninit<c_int>>,
    key: *mut c_void,
    capacity: usize,
    key_len: Option<&mut MaybeUninit<usize>>,
    err: Option<&mut MaybeUninit<*mut i2psock_error>>,
) -> i2psock_status {
    let (mut flags, mut sig_type, mut blinded_sig_type) = (flags, sig_type, blinded_sig_type);
    let mut key_len = key_len;
    guard::put(&mut flags, 0);
    guard::put(&mut sig_type, -1);
    guard::put(&mut blinded_sig_type, -1);
    guard::put(&mut key_len, 0);
    guard::call(err, || {
        // SAFETY: the contract of the header.
        let (text, room) = unsafe { (guard::text(text, "text")?, guard::room(key, capacity, "key")?) };
        let b33 = match Target::parse(text) {
            Ok(Target::B33(b33)) => b33,
            _ => B33::parse(text)?,
        };
        guard::put(&mut flags, c_int::from(b33.flags()) & (I2PSOCK_B33_SECRET | I2PSOCK_B33_CLIENT_AUTH));
        guard::put(&mut sig_type, b33.sig_type().into());
        guard::put(&mut blinded_sig_type, b33.blinded_sig_type().into());
        guard::put(&mut key_len, b33.public_key().len());
        for (to, from) in room.iter_mut().zip(b33.public_key()) {
            to.write(*from);
        }
        Ok(i2psock_status::I2PSOCK_OK)
    })
}
