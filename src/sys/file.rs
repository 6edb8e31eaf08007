//! Files addressed relative to an open folder, and file locks between processes.

use std::ffi::{CString, OsStr};
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::sys::{check, retry};

/// What a file of a [`Folder`] is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// For reading; it must exist.
    Read,
    /// For writing; it must not exist yet.
    New,
    /// For locking, reading and writing; created if missing.
    Lock,
}

/// A folder held open by its descriptor, so that renaming or replacing its path has no effect on us.
#[derive(Debug)]
pub(crate) struct Folder(File);

impl Folder {
    /// Follows a symbolic link to a folder.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(path).map(Folder)
    }

    pub(crate) fn metadata(&self) -> io::Result<Metadata> {
        self.0.metadata()
    }

    /// Opens a file close-on-exec, without following a symbolic link (ELOOP) or waiting for the other side of a FIFO. A
    /// new file is accessible to its owner alone; the umask may take away even that.
    pub(crate) fn open_file(&self, name: &str, access: Access) -> io::Result<File> {
        let flags = match access {
            Access::Read => libc::O_RDONLY,
            Access::New => libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL,
            Access::Lock => libc::O_RDWR | libc::O_CREAT,
        } | libc::O_NOFOLLOW
            | libc::O_NONBLOCK
            | libc::O_NOCTTY
            | libc::O_CLOEXEC;
        let name = c_name(name)?;
        let mode: libc::c_uint = 0o600;
        // SAFETY: the name is NUL-terminated and outlives the call.
        let fd = retry(|| check(unsafe { libc::openat(self.0.as_raw_fd(), name.as_ptr(), flags, mode) }))?;
        // SAFETY: the new descriptor is ours.
        Ok(unsafe { File::from_raw_fd(fd) })
    }

    /// Whether `name` is a regular file; `None` if it does not exist.
    pub(crate) fn is_regular(&self, name: &str) -> io::Result<Option<bool>> {
        let name = c_name(name)?;
        // SAFETY: all-zero is a valid stat to be overwritten.
        let mut stat: libc::stat = unsafe { std::mem::zeroed() };
        // SAFETY: name and stat outlive the call.
        let result = unsafe { libc::fstatat(self.0.as_raw_fd(), name.as_ptr(), &mut stat, libc::AT_SYMLINK_NOFOLLOW) };
        match check(result) {
            Ok(_) => Ok(Some(stat.st_mode & libc::S_IFMT == libc::S_IFREG)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Renames a file, replacing any existing `to`.
    pub(crate) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (from, to, fd) = (c_name(from)?, c_name(to)?, self.0.as_raw_fd());
        // SAFETY: both names are NUL-terminated and outlive the call.
        check(unsafe { libc::renameat(fd, from.as_ptr(), fd, to.as_ptr()) }).map(drop)
    }

    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        let name = c_name(name)?;
        // SAFETY: as in `rename`.
        check(unsafe { libc::unlinkat(self.0.as_raw_fd(), name.as_ptr(), 0) }).map(drop)
    }

    /// Makes created and renamed names survive a power loss, where the file system supports that.
    pub(crate) fn sync(&self) -> io::Result<()> {
        match self.0.sync_all() {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
            result => result,
        }
    }
}

fn c_name(name: &str) -> io::Result<CString> {
    CString::new(OsStr::new(name).as_bytes()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

/// Opens a file by any path for reading, without waiting for the other side of a FIFO.
pub(crate) fn open_to_read(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)
}

/// flock(2): locks the file for this open file description; false if another one has the lock. It is released when the
/// last descriptor of the description is closed, in any process.
pub(crate) fn try_lock(file: &File) -> io::Result<bool> {
    // SAFETY: plain system call on a descriptor borrowed for its duration.
    match retry(|| check(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) })) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}

/// Releases a lock taken by [`try_lock`] for every holder of the open file description: otherwise a child of fork(2)
/// that outlives us would keep it.
pub(crate) fn unlock(fd: RawFd) {
    // SAFETY: plain system call. It can only fail if the descriptor is not open.
    unsafe { libc::flock(fd, libc::LOCK_UN) };
}

/// The effective user id.
pub(crate) fn user() -> u32 {
    // SAFETY: always succeeds.
    unsafe { libc::geteuid() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_files_are_new() {
        let path = std::env::temp_dir().join(format!("i2psock-file-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        let folder = Folder::open(&path).unwrap();
        assert_eq!(folder.is_regular("a").unwrap(), None);
        folder.open_file("a", Access::New).unwrap();
        let again = folder.open_file("a", Access::New).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(folder.is_regular("a").unwrap(), Some(true));
        folder.rename("a", "b").unwrap();
        folder.sync().unwrap();
        assert_eq!(folder.open_file("a", Access::Read).unwrap_err().kind(), io::ErrorKind::NotFound);
        folder.remove("b").unwrap();
        for wrong in ["a\0b", "b"] {
            assert!(folder.remove(wrong).is_err(), "{wrong:?}");
        }
        std::fs::remove_dir(&path).unwrap();
        assert!(Folder::open(&path).is_err());
    }
}
