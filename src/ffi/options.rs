//! `i2psock_options`.

use std::ffi::{c_char, c_int};
use std::mem::MaybeUninit;
use std::path::Path;

use crate::core::settings::{Options, NONE};
use crate::core::store::default_folder;
use crate::error::Error;
use crate::ffi::error::{i2psock_error, i2psock_status};
use crate::ffi::guard::{self, Handle};
use crate::ffi::handles::i2psock_keys;
use crate::secret::SecretText;

/// Settings by name, for i2psock_controller_open(), i2psock_dest_open(), i2psock_listener_open() and
/// i2psock_dest_connect(). A call copies what it needs: options may be changed or freed right after it. Use one options
/// object in one thread at a time, and one for each kind of object: an option that is not for the object it is given to
/// is I2PSOCK_INVALID there. Names of router options cannot be checked: routers ignore those they do not know.
///
/// For a controller (times in milliseconds):
///   sam            where the bridge is: HOST, HOST:PORT, [IPV6]:PORT or /PATH of a unix socket; 127.0.0.1:7656.
///                  Every address of a name is tried, each for its share of tcp_timeout.
///   udp            where it takes datagrams: HOST:PORT; the bridge's host, port 7655 (i2pd: its SAM port minus one)
///   user, password for bridges that want them
///   version_min, version_max  SAM versions to ask for, 3.0 to 3.3; 3.1 (and 3.0 if there is nothing else) to 3.3
///   sam_timeout    every limit below at once, except accept_timeout
///   tcp_timeout    connecting to the bridge, 10000;  hello_timeout  its greeting, 30000
///   open_timeout   opening a destination, 300000;  connect_timeout  a stream, 120000
///   lookup_timeout resolving a name, 120000;  generate_timeout  making keys, 30000
///   accept_timeout waiting for a peer; none
///   bridge_timeout how long opening a controller, destination or tunnel is tried again, with growing pauses, while
///                  nothing answers at "sam" or the router is still starting; 0: not at all. Added to the default limits
///                  of these calls
///   heartbeat      how long a session's control socket may be silent before the router is asked for a sign of life;
///                  without an answer within 30 s the session is lost. 60000; 0: it is never asked
///   reopen_delay   how long the router is left alone between two sessions of the same keys; 6500; 0: not at all. See
///                  i2psock_dest_open()
///   key_store      folder of the keys of named destinations; none. Made when the first name is used. What is refused
///                  there: see i2psock_keys_load(); also a folder that others can write to, and symbolic links in it
///   keeper         1: a background thread reads the sessions' control sockets (default); 0: i2psock_dest_service() does
/// For a destination:
///   nickname       label on the router's console, no spaces; random
///   in_depth, out_depth  hops of its tunnels, 0 to 7; the router's default, which is 3
///   signature_type of new keys: 0 to 3, 7 or 11; 7 (Ed25519). Other types are refused, in keys that are given or stored
///                  too, as routers crash on some
///   from_port, to_port  default I2CP ports of its streams, 0 to 65535 (SAM 3.2)
///   recover        1: a lost session is opened again (default with a name); 0: it is the end (default without)
/// For a destination of datagrams:
///   forward        local UDP port or HOST:PORT the router sends to; a free port of 127.0.0.1. Needed when the router is on
///                  another machine, unless in_band
///   in_band        1: datagrams go over the control socket, for routers whose UDP cannot be reached (Java I2P, i2pd)
///   in_band_max    bytes the router takes of one there, with the line before it of some 600 bytes; 8191, above which i2pd
///                  never reads from the session again; Java I2P takes them all (131072)
///   any_source_port  1: the router may send from another port than that of "udp"; by default such datagrams are dropped
///   udp_source     the router may send from this IP address too, as a container with several does
///   report_source  1: a datagram that is not from the router is an error instead of being dropped
///   header_options 1: the router takes options of single datagrams (Java I2P); others lose those datagrams
///   protocol       raw only: I2CP protocol, 18 by default
///   raw_header     raw only: 1: ask for a header with ports (Java I2P). A session first sends itself a datagram to see
///                  whether the router does that; what comes before is dropped, and where it does not, or does not show
///                  within 10 s, receiving is I2PSOCK_UNSUPPORTED, since a peer could make up what looks like a header
/// For a tunnel: see i2psock_tunnel
/// For one datagram: from_port, to_port, protocol, expires, send_tags, tag_threshold, send_leaseset, see
///   i2psock_dgram_send_to()
/// For a listener:
///   accepts        accepts that are armed at a time, 1 to 64; 1
///   stream_forward 1: the router connects to a loopback port of the library for every stream (SAM's STREAM FORWARD) instead of
///                  being asked to accept. A process of this machine could connect there, too, and claim to be any peer:
///                  see i2psock_stream_peer_verified(). Only with a bridge on this machine
/// For connect:
///   from_port, to_port  I2CP ports of the stream; those of its destination (SAM 3.2; i2pd ignores them)
/// For the router, in a destination or connect: every name with a dot or a capital letter, such as inbound.length,
/// i2cp.leaseSetEncType or explicitPeers, is handed through. One that is given wins over in_depth, out_depth and over
/// what this library sets by itself: inbound.quantity=3, outbound.quantity=3, i2cp.leaseSetEncType=4,0. The value of one
/// with "priv", "secret", "psk" or "password" in its name, such as i2cp.leaseSetPrivKey, is shown as <private> in the log
/// and in errors, also when the router repeats it.
pub struct i2psock_options(pub(super) Handle<Options>);

/// The options of a caller, who may give none.
pub(super) fn given(options: Option<&i2psock_options>) -> &Options {
    options.map_or(&NONE, |options| options.0.get())
}

/// Makes an empty options object, yours to free with i2psock_options_free(). Never NULL.
#[no_mangle]
pub extern "C" fn i2psock_options_new() -> *mut i2psock_options {
    guard::into_raw(i2psock_options(Handle::new(Options::default())))
}

/// Sets an option, replacing an earlier value. I2PSOCK_INVALID: there is no such option, or the value is wrong; what was
/// set before stays. (leaflet: the arguments of Controller and create_dest; i2p.sam: the keyword arguments of socket.)
#[no_mangle]
pub unsafe extern "C" fn i2psock_options_set(
    options: Option<&mut i2psock_options>,
    key: *const c_char,
    value: *const c_char,
    err: Option<&mut MaybeUninit<*mut i2psock_error>>,
) -> i2psock_status {
    guard::on_mut(options.map(|options| &mut options.0), "options", err, |options| {
        // SAFETY: the contract of the header.
        let (key, value) = unsafe { (guard::text(key, "key")?, guard::text(value, "value")?) };
        options.set(key, value).map(|()| i2psock_status::I2PSOCK_OK)
    })
}

/// Sets an option that is a number; otherwise as i2psock_options_set().
#[no_mangle]
pub unsafe extern "C" fn i2psock_options_set_int(
    options: Option<&mut i2psock_options>,
    key: *const c_char,
    value: c_int,
    err: Option<&mut MaybeUninit<*mut i2psock_error>>,
) -> i2psock_status {
    guard::on_mut(options.map(|options| &mut options.0), "options", err, |options| {
        // SAFETY: the contract of the header.
        let key = unsafe { guard::text(key, "key")? };
        options.set(key, SecretText::from(value.to_string()).as_str()).map(|()| i2psock_status::I2PSOCK_OK)
    })
}

/// Sets the private keys a destination is opened with; they are copied. NULL: none, so that the router makes new ones.
#[no_mangle]
pub extern "C" fn i2psock_options_set_keys(
    options: Option<&mut i2psock_options>,
    keys: Option<&i2psock_keys>,
    err: Option<&mut MaybeUninit<*mut i2psock_error>>,
) -> i2psock_status {
    guard::on_mut(options.map(|options| &mut options.0), "options", err, |options| {
        options.set_keys(keys.map(|keys| keys.0.get()));
        Ok(i2psock_status::I2PSOCK_OK)
    })
}

/// Takes settings from the environment: I2P_SAM_ADDRESS sets "sam", if it is set and not empty; "key_store" is set to
/// the usual folder of the user, $XDG_DATA_HOME/i2psock or else $HOME/.local/share/i2psock, if one of these is set to
/// an absolute path in UTF-8. What you want instead, set afterwards. The only call of this library that reads the
/// environment; do not change that in another thread meanwhile. I2PSOCK_INVALID: I2P_SAM_ADDRESS is no address.
#[no_mangle]
pub extern "C" fn i2psock_options_from_env(
    options: Option<&mut i2psock_options>,
    err: Option<&mut MaybeUninit<*mut i2psock_error>>,
) -> i2psock_status {
    guard::on_mut(options.map(|options| &mut options.0), "options", err, |options| {
        if let Some(value) = std::env::var_os("I2P_SAM_ADDRESS").filter(|value| !value.is_empty()) {
            let value = value.to_str().ok_or_else(|| Error::invalid("I2P_SAM_ADDRESS is not UTF-8"))?;
            options.set("sam", value)?;
        }
        if let Some(folder) = default_folder(|key| std::env::var_os(key)).as_deref().and_then(Path::to_str) {
            options.set("key_store", folder)?;
        }
        Ok(i2psock_status::I2PSOCK_OK)
    })
}

/// Frees options and wipes their values and the keys in them. NULL is allowed.
#[no_mangle]
pub unsafe extern "C" fn i2psock_options_free(options: *mut i2psock_options) {
    // SAFETY: the contract of the header.
    unsafe { guard::free(options) }
}
