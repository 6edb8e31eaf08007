//! Moving bytes between sockets: through a kernel pipe where the system supports it, otherwise through a buffer.

use std::io;
use std::os::fd::RawFd;
#[cfg(target_os = "linux")]
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

#[cfg(target_os = "linux")]
use crate::sys::{check, check_len, retry};

/// Requested pipe capacity; the system may grant less.
#[cfg(target_os = "linux")]
const PIPE_SIZE: libc::c_int = 1 << 18;

#[derive(Debug)]
enum Room {
    /// Bytes pass through the pipe without being copied to user space.
    #[cfg(target_os = "linux")]
    Pipe { read: OwnedFd, write: OwnedFd },
    /// `done` bytes from the start of the buffer have been passed on.
    Buffer { bytes: Box<[u8]>, done: usize },
}

/// Bytes in transit from one socket to another, and the pipe or buffer that holds them.
#[derive(Debug)]
pub(crate) struct Carrier {
    room: Room,
    held: usize,
    size: usize,
}

impl Carrier {
    /// Moves up to `size` bytes at a time.
    pub(crate) fn new(size: usize, splice: bool) -> Self {
        #[cfg(target_os = "linux")]
        if let Some(Ok(room)) = splice.then(|| pipe(size)) {
            return Carrier { room, held: 0, size };
        }
        let _ = splice;
        Carrier { room: Room::Buffer { bytes: vec![0; size].into_boxed_slice(), done: 0 }, held: 0, size }
    }

    /// Whether the bytes stay in the kernel.
    pub(crate) fn splices(&self) -> bool {
        !matches!(self.room, Room::Buffer { .. })
    }

    /// Number of bytes taken but not yet given.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Fills an empty carrier with what `from` has, without blocking. Returns the number of bytes, 0 at end of stream.
    pub(crate) fn take(&mut self, from: RawFd) -> io::Result<usize> {
        let count = match &mut self.room {
            #[cfg(target_os = "linux")]
            Room::Pipe { write, .. } => splice(from, write.as_raw_fd(), self.size)?,
            Room::Buffer { bytes, done } => {
                *done = 0;
                super::recv(from, bytes, super::MSG_DONTWAIT)?
            }
        };
        self.held = count;
        Ok(count)
    }

    /// Writes as much to `to` as it accepts without blocking. Returns the number of bytes.
    pub(crate) fn give(&mut self, to: RawFd) -> io::Result<usize> {
        let count = match &mut self.room {
            #[cfg(target_os = "linux")]
            Room::Pipe { read, .. } => splice(read.as_raw_fd(), to, self.held)?,
            Room::Buffer { bytes, done } => {
                let count = super::send_now(to, bytes.get(*done..*done + self.held).unwrap_or_default())?;
                *done += count;
                count
            }
        };
        self.held -= count.min(self.held);
        Ok(count)
    }
}

#[cfg(target_os = "linux")]
fn pipe(size: usize) -> io::Result<Room> {
    let mut fds = [-1; 2];
    // SAFETY: room for two descriptors, which are ours.
    let (read, write) = unsafe {
        check(libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK))?;
        (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1]))
    };
    let wanted = libc::c_int::try_from(size).unwrap_or(PIPE_SIZE).min(1 << 20);
    // The system limits the total per user: beyond that, pipes stay small, which is only slower.
    // SAFETY: plain system call on our descriptor.
    unsafe { libc::fcntl(write.as_raw_fd(), libc::F_SETPIPE_SZ, wanted) };
    Ok(Room::Pipe { read, write })
}

/// splice(2) without blocking. A broken receiver raises SIGPIPE, which the calling threads have blocked.
#[cfg(target_os = "linux")]
fn splice(from: RawFd, to: RawFd, count: usize) -> io::Result<usize> {
    let flags = libc::SPLICE_F_NONBLOCK | libc::SPLICE_F_MOVE;
    // SAFETY: plain system call without pointers.
    retry(|| check_len(unsafe { libc::splice(from, std::ptr::null_mut(), to, std::ptr::null_mut(), count, flags) }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn bytes_come_through_in_order() {
        for splice in [true, false] {
            let (mut a, b) = UnixStream::pair().unwrap();
            let (c, mut d) = UnixStream::pair().unwrap();
            let mut carrier = Carrier::new(1000, splice);
            a.write_all(&[7; 2500]).unwrap();
            let mut moved = 0;
            while moved < 2500 {
                let taken = carrier.take(b.as_raw_fd()).unwrap();
                assert!(taken > 0 && taken <= 1000);
                while carrier.held() > 0 {
                    moved += carrier.give(c.as_raw_fd()).unwrap();
                }
            }
            let mut all = vec![0; 2500];
            d.read_exact(&mut all).unwrap();
            assert_eq!(all, [7; 2500]);
            let error = carrier.take(b.as_raw_fd()).unwrap_err();
            assert!(super::super::would_block(&error));
            drop(a);
            assert_eq!(carrier.take(b.as_raw_fd()).unwrap(), 0);
        }
    }
}
