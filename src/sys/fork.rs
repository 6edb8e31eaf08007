//! Detecting a child of fork(2): it inherits the handles of its parent and must leave them alone.

use std::ptr;

/// Tells whether this process is a child forked after this was created, without a system call per check.
///
/// It is a page that the kernel zeroes in a forked child (MADV_WIPEONFORK); where the kernel cannot do that, the
/// process id is compared.
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

    /// Whether this process is a child that inherited the guard through fork(2).
    pub(crate) fn in_child(&self) -> bool {
        if self.page.is_null() {
            return std::process::id() != self.pid;
        }
        // SAFETY: the mapping lives until `self` is dropped.
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
            // SAFETY: the mapping made in `new`; this was its last user.
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
        // SAFETY: the child only reads memory and exits at once.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: exits without running destructors of the parent's threads.
            unsafe { libc::_exit(if guard.in_child() { 42 } else { 1 }) };
        }
        let mut status = 0;
        // SAFETY: waits for the child forked above.
        unsafe { libc::waitpid(child, &mut status, 0) };
        assert_eq!(libc::WEXITSTATUS(status), 42);
    }
}
