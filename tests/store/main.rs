//! The key store and key files. Processes are made with fork(2) and end with _exit, so that each has a user, a umask and
//! limits of its own.
// The configuration allows these in test functions only, not in their helpers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unsafe_code)]

mod damage;
mod key_files;
mod key_store;
mod locks;
mod permissions;

use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use i2psock::core::store::KeyStore;
use i2psock::error::{Error, Status};
use i2psock::identity::Keys;

/// A user without rights; what tests run as when they are not root.
const NOBODY: u32 = 65534;

fn store_at(folder: &str) -> Result<KeyStore, Error> {
    KeyStore::new(folder, &Arc::default())
}

fn is_root() -> bool {
    // SAFETY: always succeeds.
    unsafe { libc::geteuid() == 0 }
}

/// A folder of the test that is removed with it. Everybody may come in, for the processes of another user.
///
/// One test at a time: a process that is forked elsewhere meanwhile would inherit our locks, and keep them when we
/// let go.
struct Folder(PathBuf, #[allow(dead_code)] MutexGuard<'static, ()>);

impl Folder {
    fn new() -> Self {
        static ONE: Mutex<()> = Mutex::new(());
        let one = ONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        // In memory, where there is such a place: a disk takes its time for every file that is to be safe there.
        let memory = Path::new("/dev/shm");
        let place = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let path = place.join(format!("i2psock-store-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        chmod(&path, 0o755);
        Folder(path, one)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// A key store in it that was not used yet.
    fn store(&self) -> KeyStore {
        store_at(&self.text("keys")).unwrap()
    }

    fn entries(&self, name: &str) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.path(name))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn chmod(path: impl AsRef<Path>, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn chown(path: impl AsRef<Path>, user: u32) {
    std::os::unix::fs::lchown(path, Some(user), Some(user)).unwrap();
}

fn mode(path: impl AsRef<Path>) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

/// Ed25519 keys whose private parts are `fill`.
fn keys(fill: u8) -> Keys {
    keys_of(fill, 0, &[fill; 256 + 32])
}

fn keys_of(fill: u8, enc_type: u8, private: &[u8]) -> Keys {
    let mut bytes = vec![fill; 384];
    bytes.extend([5, 0, 4, 0, 7, 0, enc_type]);
    bytes.extend(private);
    Keys::from_bridge(bytes).unwrap()
}

fn refused(error: &Error, part: &str) {
    assert_eq!((error.status, error.os_error), (Status::Io, libc::EPERM), "{error}");
    assert!(error.message.contains(part), "{error}");
}

/// A forked process that runs `body`; `ready` in it wakes whoever waits in `wait_ready`.
struct Child {
    pid: libc::pid_t,
    said: File,
}

/// How a child tells its parent something.
struct Said(File);

impl Said {
    fn ready(&mut self) {
        self.0.write_all(b"r").unwrap();
    }
}

impl Child {
    fn start(body: impl FnOnce(&mut Said)) -> Child {
        let mut fds = [0; 2];
        // SAFETY: room for two descriptors, which are ours then.
        assert_eq!(unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) }, 0);
        // SAFETY: as above.
        let [said, say] = fds.map(|fd| File::from(unsafe { OwnedFd::from_raw_fd(fd) }));
        // SAFETY: the child has one thread, uses no lock another thread of the parent could have, and leaves by _exit.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let mut say = Said(say);
            let result = catch_unwind(AssertUnwindSafe(|| body(&mut say)));
            if let Err(panic) = &result {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("?");
                let _ = writeln!(std::io::stderr(), "in a child: {text}");
            }
            // SAFETY: ends the process.
            unsafe { libc::_exit(if result.is_ok() { 0 } else { 1 }) };
        }
        assert!(pid > 0);
        Child { pid, said }
    }

    fn wait_ready(&mut self) {
        let mut one = [0];
        self.said.read_exact(&mut one).expect("the child says that it is ready");
    }

    fn kill(&mut self) {
        // SAFETY: a child of ours that was not waited for.
        unsafe { libc::kill(self.pid, libc::SIGKILL) };
        self.wait();
    }

    /// The wait status; 0 when all was well.
    fn wait(&mut self) -> i32 {
        let mut status = -1;
        if self.pid > 0 {
            // SAFETY: as above.
            assert_eq!(unsafe { libc::waitpid(self.pid, &mut status, 0) }, self.pid);
            self.pid = 0;
        }
        status
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.pid > 0 {
            self.kill();
        }
    }
}

/// Runs `body` in a process of its own.
fn apart(body: impl FnOnce()) {
    assert_eq!(Child::start(|_| body()).wait(), 0, "the child has failed");
}

/// Runs `body` as a user for whom permissions mean something.
fn unprivileged(body: impl FnOnce()) {
    apart(|| {
        if is_root() {
            // SAFETY: plain system calls of a process with one thread.
            unsafe {
                assert_eq!(libc::setgroups(0, std::ptr::null()), 0);
                assert_eq!(libc::setresgid(NOBODY, NOBODY, NOBODY), 0);
                assert_eq!(libc::setresuid(NOBODY, NOBODY, NOBODY), 0);
            }
        }
        body();
    });
}
