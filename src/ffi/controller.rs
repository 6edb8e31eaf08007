//! `i2psock_controller`.

use std::ffi::{c_char, c_int, c_void, CString};
use std::mem::MaybeUninit;
use std::ops::Deref;
use std::sync::Arc;

use crate::core::controller::Controller;
use crate::core::drive::{inside_hook, Hook, Limit};
use crate::ffi::addr::i2psock_addr;
use crate::ffi::error::{i2psock_error, i2psock_status};
use crate::ffi::guard::{self, Handle};
use crate::ffi::handles::i2psock_pending;
use crate::ffi::options::{self, i2psock_options};

/// One SAM bridge and everything that is open through it (leaflet's Controller). May be used by many threads at once.
pub struct i2psock_controller(pub(super) Handle<Opened>);

/// A controller and the texts its getters lend out.
pub(super) struct Opened {
    pub(super) controller: Arc<Controller>,
    version: CString,
    address: CString,
    udp: CString,
}

impl Deref for Opened {
    type Target = Arc<Controller>;

    fn deref(&self) -> &Arc<Controller> {
        &self.controller
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        // From inside a hook the thread that runs it would wait for itself.
        if !inside_hook() {
            self.controller.close();
        }
    }
}

/// Opens a controller and checks that a SAM bridge answers (leaflet's Controller() and check_api). `options` may be
/// NULL: 127.0.0.1:7656 and the defaults of i2psock_options. Blocks: the bridge's name is resolved, which no time limit
/// bounds, then it is connected to and greeted within tcp_timeout and hello_timeout. With option bridge_timeout a bridge
/// that is not there yet, or whose name cannot be resolved yet, is tried again that long. `*out` is yours to close.
/// I2PSOCK_IO: there is no bridge; I2PSOCK_PROTOCOL: something else answers there (a web server, TLS); I2PSOCK_NETWORK:
/// the bridge refuses us (tag "NOVERSION": it speaks none of the versions; tag "I2P_ERROR": user and password);
/// I2PSOCK_TIMEOUT, I2PSOCK_INVALID.
#[no_mangle]
pub extern "C" fn i2psock_controller_open(
    options: Option<&i2psock_options>,
    out: Option<&mut MaybeUninit<*mut i2psock_controller>>,
    err: Option<&mut MaybeUninit<*mut i2psock_error>>,
) -> i2psock_status {
    let out = guard::clear(out);
    guard::call(err, || {
        guard::give(out, "out", || {
            let controller = Controller::open(options::given(options))?;
            let version = guard::c_string(&controller.version().to_string());
            let address = guard::c_string(controller.bridge().text());
            let udp = guard::c_string(controller.bridge().udp_text());
            Ok(i2psock_controller(Handle::new(Opened { controller, version, address, udp })))
        })
    })
}

/// Connects to the bridge and greets it once more, to see whether it is still there (leaflet's check_api). Blocks up to
/// `timeout_ms`. Statuses as i2psock_controller_open().
#[no_mangle]
pub extern "C" fn i2psock_controller_check(
    controller: Option<&i2psock_controller>,
    timeout_ms: c_int,
    err: Option<&mut MaybeUninit<*mut i2psock_error>>,
) -> i2psock_status {
    guard::on(controller.map(|controller| &controller.0), "controller", err, |controller| {
        controller.check(Limit::from_millis(timeout_ms)?).map(|()| i2psock_status::I2PSOCK_OK)
    })
}

/// SAM version the bridge answered when the controller was opened, such as "3.2". Lives as long as the controller; NULL
/// for NULL.
#[no_mangle]
pub extern "C" fn i2psock_controller_version(controller: Option<&i2psock_controller>) -> *const c_char {
    controller.map_or(std::ptr::null(), |controller| controller.0.get().version.as_ptr())
}

/// Address of the bridge as it was given. Lives as long as the controller; NULL for NULL.
#[no_mangle]
pub extern "C" fn i2psock_controller_address(controller: Option<&i2psock_controller>) -> *const c_char {
    controller.map_or(std::ptr::null(), |controller| controller.0.get().address.as_ptr())
}

/// The bridge's endpoint for datagrams, HOST:PORT (leaflet's dgram_api). Lives as long as the controller; NULL for NULL.
#[no_mangle]
pub extern "C" fn i2psock_controller_udp_address(controller: Option<&i2psock_controller>) -> *const c_char {
    controller.map_or(std::ptr::null(), |controller| controller.0.get().udp.as_ptr())
}

/// Receives the conversation with the bridge line by line, as `text` that lives during the call: "-> " sent, "<- "
/// received, private keys, passwords and other secrets left out. Runs on the thread that made the call in question, or
/// on the keeper's, which may be a moment after the call has returned; several threads may be in it at once; no lock of
/// the library is held. It may not call the library: I2PSOCK_STATE.
pub type i2psock_log_fn = Option<unsafe extern "C" fn(user: *mut c_void, text: *const c_char)>;

/// A C function and its argument, which the program promises to be usable from every thread.
struct CHook {
    hook: unsafe extern "C" fn(user: *mut c_void, text: *const c_char),
    user: *mut c_void,
}

// SAFETY: the contract of the header: the function and its argument may be used from any thread.
unsafe impl Send for CHook {}
// SAFETY: as above.
unsafe impl Sync for CHook {}

impl CHook {
    fn line(&self, text: &str) {
        let text = guard::c_string(text);
        // SAFETY: a function of the program, called as its type says.
        unsafe { (self.hook)(self.user, text.as_ptr()) };
    }
}

/// Sets the log hook; NULL removes it. A call of the old hook that is under way in another thread may still end after
/// this returns; after i2psock_controller_close() none is.
#[no_mangle]
pub extern "C" fn i2psock_controller_set_log(
    controller: Option<&i2psock_controller>,
    hook: i2psock_log_fn,
    user: *mut c_void,
    err: Option<&mut MaybeUninit<*mut i2psock_error>>,
) -> i2psock_status {
    guard::on(controller.map(|controller| &controller.0), "controller", err, |controller| {
        controller.bridge().check_process()?;
        let hook = hook.map(|hook| {
            let hook = CHook { hook, user };
            Arc::new(move |text: &str| hook.line(text)) as Hook
        });
        controller.bridge().log.set(hook);
        Ok(i2psock_status::I2PSOCK_OK)
    })
}

/// Resolves a name to a destination (i2p.sam's resolve, leaflet's Controller.lookup): "name.i2p" from the router's
/// address book, or base32. A destination in base64 is its own answer, without I/O. Asks through an open destination of
/// this controller, if there is one: some routers resolve only there. Lookups do not wait for each other: up to eight
/// at a time are under way, those that find the destination's connection busy on others of their own. Blocks up to
/// `timeout_ms`. `*out` is yours to free. I2PSOCK_NETWORK with tag "KEY_NOT_FOUND": the router does not know the name,
/// or without an open destination not this way; I2PSOCK_INVALID: it is no name.
#[no_mangle]
pub unsafe extern "C" fn i2psock_controller_lookup(
    controller: Option<&i2psock_controller>,
    name: *const c_char,
    timeout_ms: c_int,
    out: Option<&mut MaybeUninit<*mut i2psock_addr>>,
    err: Option<&mut MaybeUninit<*mut i2psock_error>>,
) -> i2psock_status {
    let out = guard::clear(out);
    guard::on(controller.map(|controller| &controller.0), "controller", err, |controller| {
        // SAFETY: the contract of the header.
        let name = unsafe { guard::text(name, "name")? };
        guard::give(out, "out", || {
            controller.lookup(name, Limit::from_millis(timeout_ms)?)?.product().map(i2psock_addr::new)
        })
    })
}

/// Starts i2psock_controller_lookup() without blocking; finish with i2psock_pending_finish_addr(). `*out` is yours to
/// free.
#[no_mangle]
pub unsafe extern "C" fn i2psock_controller_lookup_start(
    controller: Option<&i2psock_controller>,
    name: *const c_char,
    timeout_ms: c_int,
    out: Option<&mut MaybeUninit<*mut i2psock_pending>>,
    err: Option<&mut MaybeUninit<*mut i2psock_error>>,
) -> i2psock_status {
    let out = guard::clear(out);
    guard::on(controller.map(|controller| &controller.0), "controller", err, |controller| {
        // SAFETY: the contract of the header.
        let name = unsafe { guard::text(name, "name")? };
        guard::give(out, "out", || controller.lookup(name, Limit::from_millis(timeout_ms)?).map(i2psock_pending::new))
    })
}

/// Ends everything that is open through the controller with I2PSOCK_CLOSED, ends its thread and frees it. Handles of
/// destinations, streams and pendings stay valid and are freed as ever, before or after. Nobody else may be using the
/// controller. Does nothing when called from the log hook. NULL is allowed.
#[no_mangle]
pub unsafe extern "C" fn i2psock_controller_close(controller: *mut i2psock_controller) {
    if !inside_hook() {
        // SAFETY: the contract of the header.
        unsafe { guard::free(controller) }
    }
}
