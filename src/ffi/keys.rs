//! `i2psock_keys`.

use std::ffi::{c_char, c_int, c_void};
use std::mem::MaybeUninit;

use crate::core::controller::Controller;
use crate::core::drive::Limit;
use crate::core::store::{key_file, Format};
use crate::error::{Error, Result};
use crate::ffi::addr::i2psock_addr;
use crate::ffi::base::{I2PSOCK_KEYS_BINARY, I2PSOCK_KEYS_TEXT};
use crate::ffi::controller::i2psock_controller;
use crate::ffi::error::{i2psock_error, i2psock_status};
use crate::ffi::guard;
use crate::ffi::handles::i2psock_keys;
use crate::identity::Keys;

/// Reads private keys in I2P base64, as routers and other SAM programs write them, offline-signed ones included; white
/// space around them does not matter. `*out` is yours to free. I2PSOCK_INVALID: these are no private keys.
#[no_mangle]
pub unsafe extern "C" fn i2psock_keys_from_text(
    text: *const c_char,
    out: Option<&mut MaybeUninit<*mut i2psock_keys>>,
    err: Option<&mut MaybeUninit<*mut i2psock_error>>,
) -> i2psock_status {
    let out = guard::clear(out);
    guard::call(err, || {
        // SAFETY: the contract of the header.
        let text = unsafe { guard::text(text, "text")? };
        guard::give(out, "out", || Keys::from_text(text).map(i2psock_keys::new))
    })
}

/// Reads private keys in their binary form (the content of a .dat file of i2pd or Java I2P). Otherwise as
/// i2psock_keys_from_text().
#[no_mangle]
pub unsafe extern "C" fn i2psock_keys_from_bytes(
    data: *const c_void,
    len: usize,
    out: Option<&mut MaybeUninit<*mut i2psock_keys>>,
    err: Option<&mut MaybeUninit<*mut i2psock_error>>,
) -> i2psock_status {
    let out = guard::clear(out);
    guard::call(err, || {
        // SAFETY: the contract of the header.
        let bytes = unsafe { guard::bytes(data, len, "data")? };
        guard::give(out, "out", || Keys::from_bytes(bytes).map(i2psock_keys::new))
    })
}

/// Reads private keys from a file (leaflet's Dest(keyfile, encoding, sig_type, private)). What is in it tells its
/// form: bytes, as in a .dat file of i2pd or Java I2P; a line of I2P base64; or two lines, the address and the keys,
/// in any order. `*out` is yours to free. Reads the disk. I2PSOCK_INVALID: there are no private keys in it, an
/// address that is not theirs, or more than 64 KiB. I2PSOCK_IO: it cannot be read; with os_error EPERM, it must not
/// be used: others can read or write it (it must be for its owner alone, as with mode 0600), it belongs to another
/// user, or is no regular file. A symbolic link is followed.
#[no_mangle]
pub unsafe extern "C" fn i2psock_keys_load(
    path: *const c_char,
    out: Option<&mut MaybeUninit<*mut i2psock_keys>>,
    err: Option<&mut MaybeUninit<*mut i2psock_error>>,
) -> i2psock_status {
    let out = guard::clear(out);
    guard::call(err, || {
        // SAFETY: the contract of the header.
        let path = unsafe { guard::text(path, "path")? };
        guard::give(out, "out", || key_file::load(path).map(i2psock_keys::new))
    })
}

/// Writes private keys to a file that only its owner can read or write (mode 0600), whatever the umask is. `format` is
/// I2PSOCK_KEYS_BINARY or I2PSOCK_KEYS_TEXT. A file that is there is replaced, in one piece: when the disk is full,
/// the process killed or the power lost, there is the old one or the new one. (A killed process may leave a file
/// .NAME.*.tmp beside it.) Writes the disk and waits for it. I2PSOCK_INVALID: `path` or `format` is wrong;
/// I2PSOCK_IO: it cannot be written, or (os_error EPERM) something is there that is no regular file, such as a
/// symbolic link.
#[no_mangle]
pub unsafe extern "C" fn i2psock_keys_save(
    keys: Option<&i2psock_keys>,
    path: *const c_char,
    format: c_int,
    err: Option<&mut MaybeUninit<*mut i2psock_error>>,
) -> i2psock_status {
    guard::on(keys.map(|keys| &keys.0), "keys", err, |keys| {
        // SAFETY: the contract of the header.
        let path = unsafe { guard::text(path, "path")? };
        let format = match format {
            I2PSOCK_KEYS_BINARY => Format::Binary,
            I2PSOCK_KEYS_TEXT => Format::Text,
            _ => return Err(Error::invalid("there is no such format of key files")),
        };
        key_file::save(keys, path, format).map(|()| i2psock_status::I2PSOCK_OK)
    })
}

/// Has the router make new keys (SAM's DEST GENERATE), without opening a destination. `sig_type`: 7 (Ed25519) is the one to
/// use; 0 to 3 and 11 are known to some routers. Blocks up to `timeout_ms`. `*out` is yours to free. I2PSOCK_NETWORK: the
/// router does not make such keys, or made others; I2PSOCK_INVALID: any other type, which is not sent, as routers crash
/// on some; I2PSOCK_IO, I2PSOCK_PROTOCOL: the bridge is not there or not right.
#[no_mangle]
pub extern "C" fn i2psock_keys_generate(
    controller: Option<&i2psock_controller>,
    sig_type: c_int,
    timeout_ms: c_int,
    out: Option<&mut MaybeUninit<*mut i2psock_keys>>,
    err: Option<&mut MaybeUninit<*mut i2psock_error>>,
) -> i2psock_status {
    let out = guard::clear(out);
    guard::on(controller.map(|controller| &controller.0), "controller", err, |controller| {
        guard::give(out, "out", || generate(controller, sig_type, timeout_ms).map(i2psock_keys::new))
    })
}

fn generate(controller: &Controller, sig_type: c_int, timeout_ms: c_int) -> Result<Keys> {
    let sig_type = u16::try_from(sig_type).map_err(|_| Error::invalid("sig_type is not 0 to 65535"))?;
    controller.generate(sig_type, Limit::from_millis(timeout_ms)?)?.product()
}

/// The address that belongs to the keys, yours to free with i2psock_addr_free(). NULL for NULL.
#[no_mangle]
pub extern "C" fn i2psock_keys_addr(keys: Option<&i2psock_keys>) -> *mut i2psock_addr {
    keys.map_or(std::ptr::null_mut(), |keys| guard::into_raw(i2psock_addr::new(keys.0.get().address().clone())))
}

/// The keys themselves in I2P base64: SECRET. Lives as long as `keys` and is wiped with them; copies are yours to wipe.
/// NULL for NULL.
#[no_mangle]
pub extern "C" fn i2psock_keys_base64(keys: Option<&i2psock_keys>) -> *const c_char {
    keys.map_or(std::ptr::null(), |keys| keys.0.get().base64_c().as_ptr())
}

/// The keys themselves in binary form: SECRET. `*len` is set to their length. Lives as long as `keys` and is wiped with
/// them. NULL and 0 for NULL.
#[no_mangle]
pub extern "C" fn i2psock_keys_bytes(keys: Option<&i2psock_keys>, len: Option<&mut MaybeUninit<usize>>) -> *const u8 {
    let mut len = len;
    let bytes = keys.map(|keys| keys.0.get().bytes());
    guard::put(&mut len, bytes.map_or(0, <[u8]>::len));
    bytes.map_or(std::ptr::null(), <[u8]>::as_ptr)
}

/// Number of the signature type; 7 is Ed25519. -1 for NULL.
#[no_mangle]
pub extern "C" fn i2psock_keys_sig_type(keys: Option<&i2psock_keys>) -> c_int {
    keys.map_or(-1, |keys| keys.0.get().signature_type().into())
}

/// 1 if these are offline-signed keys, whose own signing key is kept elsewhere; else 0. `*expires`, which may be NULL,
/// is set to the end of their validity in seconds since 1970, or 0.
#[no_mangle]
pub extern "C" fn i2psock_keys_is_offline(
    keys: Option<&i2psock_keys>,
    expires: Option<&mut MaybeUninit<u32>>,
) -> c_int {
    let mut expires = expires;
    let offline = keys.and_then(|keys| keys.0.get().offline());
    guard::put(&mut expires, offline.map_or(0, |offline| offline.expires));
    offline.is_some().into()
}

/// Wipes and frees keys. NULL is allowed.
#[no_mangle]
pub unsafe extern "C" fn i2psock_keys_free(keys: *mut i2psock_keys) {
    // SAFETY: the contract of the header.
    unsafe { guard::free(keys) }
}
