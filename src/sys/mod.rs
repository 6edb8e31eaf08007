//! The few system calls `std` lacks, safely wrapped, and ranked locks; nothing here knows about I2P or SAM. Apart from
//! `ffi`, this is the only place with `unsafe` code.
//!
//! Every function here is safe to call: descriptors come in as types that own or borrow them, lengths come from slices,
//! EINTR is retried (or, in [`poll`], reported to callers, which own the deadline).
#![allow(unsafe_code)]

mod datagram;
mod datagram_batch;
mod event;
mod file;
mod fork;
#[cfg(debug_assertions)]
mod held_locks;
pub(crate) mod lock;
mod lock_rank;
mod process;
mod shared_fd;
mod socket;
mod splice;

pub use datagram::*;
pub(crate) use datagram_batch::{receive_many, send_datagrams, Batch, MANY};
pub use event::{poll, poll_one, PollFd, ERR, IN, OUT};
pub(crate) use event::{Ready, Selector, Wake, Watch, HUP, RDHUP};
pub(crate) use file::{open_to_read, try_lock, unlock, user, Access, Folder};
pub(crate) use fork::ForkGuard;
pub(crate) use process::{boot_clock, random, wipe, with_signals_blocked};
pub use shared_fd::SharedFd;
pub use socket::*;
pub(crate) use splice::Carrier;

use std::io;

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn check_len(result: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Calls `call` again for as long as a signal interrupts it (EINTR).
pub fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}
