//! Which process this is: handles are inherited by children of fork(2), which must leave them alone.

use std::ptr;

/// Knows whether this process is the one it was made in, without a system call each time.
///
/// One page that the kernel hands to a forked child as zeros (MADV_WIPEONFORK); where the kernel cannot do that, the
/// process number is compared.
#[derive(Debug)]
pub(crate) struct ForkGuard {
    page: *mut u8,
    pid: u32,
}

// SAFETY: the page is written once, before it is shared, and only read afterwards.
unsafe impl Send for ForkGuard {}
// SAFETY: as above.
unsafe impl Sync for ForkGuard {}

const PAGE: usize = 4096;

impl ForkGuard {
    /// Remembers the present process.
    pub(crate) fn new() -> Self {
        let pid = std::process::id();
        // SAFETY: an anonymous private mapping of one page; nothing else refers to it.
        let page = unsafe {
            libc::mmap(
                ptr::null_mut(),
                PAGE,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if page == libc::MAP_FAILED {
            return ForkGuard { page: ptr::null_mut(), pid };
        }
        // SAFETY: the mapping made above.
        if unsafe { libc::madvise(page, PAGE, libc::MADV_WIPEONFORK) } != 0 {
            // SAFETY: as above; it is not used again.
            unsafe { libc::munmap(page, PAGE) };
            return ForkGuard { page: ptr::null_mut(), pid };
        }
        // SAFETY: as above, writable.
        unsafe { ptr::write_volatile(page.cast::<u8>(), 1) };
        ForkGuard { page: page.cast(), pid }
    }

    /// Whether this is a child that inherited the guard by fork(2).
    pub(crate) fn in_child(&self) -> bool {
        if self.page.is_null() {
            return std::process::id() != self.pid;
        }
        // SAFETY: the mapping lives as long as `self`.
        unsafe { ptr::read_volatile(self.page) == 0 }
    }
}

impl Default for ForkGuard {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for ForkGuard {
    fn drop(&mut self) {
        if !self.page.is_null() {
            // SAFETY: the mapping made in `new`; nothing uses it any more.
            unsafe { libc::munmap(self.page.cast(), PAGE) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fork_guard_tells_parent_from_child() {
        let guard = ForkGuard::new();
        assert!(!guard.in_child());
        // SAFETY: the child only reads memory and leaves at once.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: leaves without running destructors of the parent's threads.
            unsafe { libc::_exit(if guard.in_child() { 42 } else { 1 }) };
        }
        let mut status = 0;
        // SAFETY: waits for the child made above.
        unsafe { libc::waitpid(child, &mut status, 0) };
        assert_eq!(libc::WEXITSTATUS(status), 42);
    }
}
