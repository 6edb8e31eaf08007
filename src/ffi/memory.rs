//! Objects and texts on their way to C and back.

use std::ffi::CString;
use std::panic::{catch_unwind, AssertUnwindSafe};

/// A value as a heap object for C.
pub(super) fn into_raw<T>(value: T) -> *mut T {
    Box::into_raw(Box::new(value))
}

/// Takes back and drops what [`into_raw`] gave out. NULL is nothing.
///
/// # Safety
/// `pointer` came from [`into_raw`] and is not used again.
pub(super) unsafe fn free<T>(pointer: *mut T) {
    if !pointer.is_null() {
        // SAFETY: promised by the caller.
        let owned = unsafe { Box::from_raw(pointer) };
        // A defect in a destructor must not unwind into C.
        drop(catch_unwind(AssertUnwindSafe(move || drop(owned))));
    }
}

/// Text for C. A NUL inside, which no text here should have, ends it.
pub(super) fn c_string(text: &str) -> CString {
    let end = text.find('\0').unwrap_or(text.len());
    CString::new(text.get(..end).unwrap_or_default()).unwrap_or_default()
}
