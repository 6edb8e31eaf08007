//! Every conversion between C and Rust, and the barrier no panic crosses.

use std::ffi::{c_char, c_void, CStr};
use std::mem::MaybeUninit;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::core::drive::{inside_hook, Progress};
use crate::error::{Error, Operation, Result, Status};
use crate::ffi::error::{i2psock_error, i2psock_status};
pub(super) use crate::ffi::memory::{c_string, free, into_raw};

/// Where an error goes; NULL when the caller does not want it.
pub(super) type ErrorOut<'a> = Option<&'a mut MaybeUninit<*mut i2psock_error>>;
/// Where a new object goes.
pub(super) type Out<'a, T> = Option<&'a mut MaybeUninit<*mut T>>;

/// What an opaque handle points to.
pub(super) struct Handle<T> {
    value: T,
    /// Set by a panic: the value may be half changed and is not used again.
    broken: AtomicBool,
}

impl<T> Handle<T> {
    /// A sound one.
    pub(super) fn new(value: T) -> Self {
        Handle { value, broken: AtomicBool::new(false) }
    }

    /// The value of a handle that is given up.
    pub(super) fn into_inner(self) -> T {
        self.value
    }

    /// The value, for getters, which cannot fail.
    pub(super) fn get(&self) -> &T {
        &self.value
    }

    /// The value, for getters that keep what they return.
    pub(super) fn get_mut(&mut self) -> &mut T {
        &mut self.value
    }

    fn sound(&self) -> Result<&T> {
        if self.broken.load(Ordering::Relaxed) {
            return Err(Error::new(
                Status::Internal,
                Operation::None,
                "this handle was broken by an earlier internal error",
            ));
        }
        Ok(&self.value)
    }
}

/// Runs the body of a function that can fail.
pub(super) fn call(err: ErrorOut<'_>, body: impl FnOnce() -> Result<i2psock_status>) -> i2psock_status {
    run(err, None, body)
}

/// Runs the body of a function of one handle.
pub(super) fn on<T>(
    handle: Option<&Handle<T>>,
    what: &str,
    err: ErrorOut<'_>,
    body: impl FnOnce(&T) -> Result<i2psock_status>,
) -> i2psock_status {
    run(err, handle.map(|handle| &handle.broken), || body(some(handle, what)?.sound()?))
}

/// Runs the body of a function that has a handle for itself.
pub(super) fn on_mut<T>(
    handle: Option<&mut Handle<T>>,
    what: &str,
    err: ErrorOut<'_>,
    body: impl FnOnce(&mut T) -> Result<i2psock_status>,
) -> i2psock_status {
    let Some(handle) = handle else {
        return call(err, || some(None, what));
    };
    let Handle { value, broken } = handle;
    let was_broken = broken.load(Ordering::Relaxed);
    run(err, Some(broken), || {
        if was_broken {
            return Err(Error::new(
                Status::Internal,
                Operation::None,
                "this handle was broken by an earlier internal error",
            ));
        }
        body(value)
    })
}

fn run(
    err: ErrorOut<'_>,
    broken: Option<&AtomicBool>,
    body: impl FnOnce() -> Result<i2psock_status>,
) -> i2psock_status {
    let body = || {
        if inside_hook() {
            return Err(Error::state("this library may not be called from its own log hook"));
        }
        body()
    };
    let result = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|_| {
        if let Some(broken) = broken {
            broken.store(true, Ordering::Relaxed);
        }
        Err(Error::new(Status::Internal, Operation::None, "internal error: please report it"))
    });
    let (status, error) = match result {
        Ok(status) => (status, std::ptr::null_mut()),
        Err(error) if err.is_some() => (error.status.into(), into_raw(i2psock_error::new(error))),
        Err(error) => (error.status.into(), std::ptr::null_mut()),
    };
    if let Some(err) = err {
        err.write(error);
    }
    status
}

/// Runs a getter; a panic gives `fallback`.
pub(super) fn getter<R>(fallback: R, body: impl FnOnce() -> Option<R>) -> R {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Some(value)) => value,
        _ => fallback,
    }
}

/// The pointer a caller must give.
pub(super) fn some<T>(pointer: Option<T>, what: &str) -> Result<T> {
    pointer.ok_or_else(|| Error::invalid(format!("{what} is NULL")))
}

/// Sets an output before anything can fail and returns where the result will go. Never fails for a NULL output: that
/// is found by [`some`] inside the body.
pub(super) fn clear<T>(mut out: Out<'_, T>) -> Out<'_, T> {
    put(&mut out, std::ptr::null_mut());
    out
}

/// Gives a new object to the caller.
pub(super) fn give<T>(out: Out<'_, T>, what: &str, make: impl FnOnce() -> Result<T>) -> Result<i2psock_status> {
    let out = some(out, what)?;
    out.write(into_raw(make()?));
    Ok(i2psock_status::I2PSOCK_OK)
}

/// Why something is as it is, for a caller who asks: an error that is no failure of the call.
pub(super) fn tell(err: ErrorOut<'_>, cause: Option<Error>) {
    if let Some(err) = err {
        err.write(cause.map_or(std::ptr::null_mut(), |cause| into_raw(i2psock_error::new(cause))));
    }
}

/// A number for the caller, if it wants it.
pub(super) fn put<T>(out: &mut Option<&mut MaybeUninit<T>>, value: T) {
    if let Some(out) = out {
        out.write(value);
    }
}

/// Text of a caller.
///
/// # Safety
/// `text` is NULL or NUL-terminated and stays unchanged during the call.
pub(super) unsafe fn text<'a>(text: *const c_char, what: &str) -> Result<&'a str> {
    if text.is_null() {
        return Err(Error::invalid(format!("{what} is NULL")));
    }
    // SAFETY: promised by the caller.
    let bytes = unsafe { CStr::from_ptr(text) };
    bytes.to_str().map_err(|_| Error::invalid(format!("{what} is not UTF-8")))
}

/// Text of a caller; NULL is the empty text.
///
/// # Safety
/// As [`text`].
pub(super) unsafe fn text_or_empty<'a>(pointer: *const c_char, what: &str) -> Result<&'a str> {
    if pointer.is_null() {
        return Ok("");
    }
    // SAFETY: promised by the caller.
    unsafe { text(pointer, what) }
}

/// Bytes of a caller; NULL only with length 0.
///
/// # Safety
/// `data` is valid for reads of `len` bytes and stays unchanged during the call.
pub(super) unsafe fn bytes<'a>(data: *const c_void, len: usize, what: &str) -> Result<&'a [u8]> {
    check_buffer(data.is_null(), len, what)?;
    if len == 0 {
        return Ok(&[]);
    }
    // SAFETY: promised by the caller.
    Ok(unsafe { std::slice::from_raw_parts(data.cast(), len) })
}

/// Room of a caller, which need not be initialised; NULL only with length 0.
///
/// # Safety
/// `data` is valid for writes of `len` bytes and used by nobody else during the call.
pub(super) unsafe fn room<'a>(data: *mut c_void, len: usize, what: &str) -> Result<&'a mut [MaybeUninit<u8>]> {
    check_buffer(data.is_null(), len, what)?;
    if len == 0 {
        return Ok(&mut []);
    }
    // SAFETY: promised by the caller.
    Ok(unsafe { std::slice::from_raw_parts_mut(data.cast(), len) })
}

/// An array of a caller; NULL only with length 0.
///
/// # Safety
/// As [`bytes`], for `count` elements.
pub(super) unsafe fn array<'a, T>(list: *const T, count: usize, what: &str) -> Result<&'a [T]> {
    check_buffer(list.is_null(), count.saturating_mul(std::mem::size_of::<T>()), what)?;
    if count == 0 {
        return Ok(&[]);
    }
    // SAFETY: promised by the caller.
    Ok(unsafe { std::slice::from_raw_parts(list, count) })
}

/// An array of a caller that is written to; NULL only with length 0.
///
/// # Safety
/// As [`array`], and used by nobody else during the call.
pub(super) unsafe fn array_mut<'a, T>(list: *mut T, count: usize, what: &str) -> Result<&'a mut [T]> {
    check_buffer(list.is_null(), count.saturating_mul(std::mem::size_of::<T>()), what)?;
    if count == 0 {
        return Ok(&mut []);
    }
    // SAFETY: promised by the caller.
    Ok(unsafe { std::slice::from_raw_parts_mut(list, count) })
}

/// What [`bytes`] and [`room`] demand of a pointer and a length.
pub(super) fn check_buffer(null: bool, len: usize, what: &str) -> Result<()> {
    if null && len > 0 {
        return Err(Error::invalid(format!("{what} is NULL")));
    }
    if isize::try_from(len).is_err() {
        return Err(Error::invalid(format!("the length of {what} is impossible")));
    }
    Ok(())
}

/// Done or BLOCK as a status.
pub(super) fn progress(progress: Progress) -> i2psock_status {
    match progress {
        Progress::Done => i2psock_status::I2PSOCK_OK,
        Progress::Block => i2psock_status::I2PSOCK_BLOCK,
    }
}
