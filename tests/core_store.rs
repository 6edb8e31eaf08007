//! The key store and key files: permissions, locks between processes, damage, and death at any moment.
//!
//! Processes are made with fork(2) and end with _exit, so that each has a user, a umask and limits of its own.

// The configuration allows these in test functions only, not in their helpers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unsafe_code)]

use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{symlink, MetadataExt, PermissionsExt};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Barrier, Mutex, MutexGuard};

use i2psock::core::store::{check_name, default_folder, load, save, Format, KeyStore};
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
        let path = std::env::temp_dir().join(format!("i2psock-store-{}", std::process::id()));
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

fn umask(mask: libc::mode_t) {
    // SAFETY: always succeeds.
    unsafe { libc::umask(mask) };
}

#[test]
fn keys_come_back() {
    let folder = Folder::new();
    let store = folder.store();
    assert!(!folder.path("keys").exists());
    let claim = store.lock("alice").unwrap();
    assert!(claim.load().unwrap().is_none());
    claim.save(&keys(1)).unwrap();
    assert_eq!(claim.load().unwrap().unwrap().bytes(), keys(1).bytes());
    drop(claim);
    assert_eq!(folder.entries("keys"), ["alice.dat", "alice.lock", "alice.sum"]);
    assert_eq!(fs::read(folder.path("keys/alice.dat")).unwrap(), keys(1).bytes());
    let claim = folder.store().lock("alice").unwrap();
    assert_eq!(claim.load().unwrap().unwrap().bytes(), keys(1).bytes());
    claim.save(&keys(2)).unwrap();
    assert_eq!(claim.load().unwrap().unwrap().bytes(), keys(2).bytes());
    let sum = fs::read_to_string(folder.path("keys/alice.sum")).unwrap();
    assert_eq!(sum.lines().count(), 2, "{sum}");
    assert!(sum.starts_with(&format!("# {}\n", keys(2).address().host())) && sum.ends_with("  alice.dat\n"), "{sum}");
    // Several names, and names that look like files of others.
    let odd: Vec<_> = ["a", "a.lock.x", "a.dat.x", "Ä b", "x\u{1f980}"].map(|name| store.lock(name).unwrap()).into();
    for (number, claim) in (10..).zip(&odd) {
        assert!(claim.load().unwrap().is_none());
        claim.save(&keys(number)).unwrap();
    }
    for (number, claim) in (10..).zip(&odd) {
        assert_eq!(claim.load().unwrap().unwrap().bytes(), keys(number).bytes(), "{}", claim.name());
    }
}

#[test]
fn the_sum_is_what_sha256sum_reads() {
    let folder = Folder::new();
    let claim = folder.store().lock("Ä b").unwrap();
    claim.save(&keys(1)).unwrap();
    let checked = std::process::Command::new("sha256sum")
        .args(["--check", "--strict", "--status", "Ä b.sum"])
        .current_dir(folder.path("keys"))
        .status();
    if let Ok(status) = checked {
        assert!(status.success());
    }
}

#[test]
fn layouts_of_one_router_come_back() {
    let folder = Folder::new();
    let claim = folder.store().lock("alice").unwrap();
    let odd = keys_of(3, 0, &[3; 70]);
    assert!(Keys::from_bytes(odd.bytes()).is_err());
    claim.save(&odd).unwrap();
    assert_eq!(claim.load().unwrap().unwrap().bytes(), odd.bytes());
    // Without its sum it could be anything.
    fs::remove_file(folder.path("keys/alice.sum")).unwrap();
    assert_eq!(claim.load().unwrap_err().status, Status::Invalid);
}

#[test]
fn names() {
    for good in ["a", "Alice", "a.b", "a b", "ä", "x\u{1f980}", "a.lock.b", "dat", "CON", "~", "-rf", &"x".repeat(64)]
    {
        assert!(check_name(good).is_ok(), "{good}");
    }
    let folder = Folder::new();
    let long = "x".repeat(65);
    for bad in [
        "", ".", "..", ".a", "a/b", "/", "a\\b", "a\0b", "a\nb", "a\x7f", "a\u{85}b", " a", "a ", "\u{a0}a", &long,
        "a.dat", "a.lock", "a.sum", "a.tmp", "../a",
    ] {
        let error = folder.store().lock(bad).unwrap_err();
        assert_eq!(error.status, Status::Invalid, "{bad:?}");
    }
    // Nothing was made for them.
    assert!(!folder.path("keys").exists());
    for bad in ["", "a\0b"] {
        assert_eq!(store_at(bad).unwrap_err().status, Status::Invalid);
    }
    assert!(store_at("somewhere").unwrap().folder().is_absolute());
}

#[test]
fn the_usual_folder() {
    let folder = |data: Option<&[u8]>, home: Option<&[u8]>| {
        default_folder(|key| {
            let value = if key == "HOME" { home } else { data.filter(|_| key == "XDG_DATA_HOME") };
            value.map(|bytes| std::ffi::OsStr::from_bytes(bytes).to_owned())
        })
        .map(|path| path.as_os_str().as_bytes().to_vec())
    };
    assert_eq!(folder(Some(b"/d"), Some(b"/h")).unwrap(), b"/d/i2psock");
    for unset in [None, Some(&b""[..]), Some(b"d"), Some(b"./d")] {
        assert_eq!(folder(unset, Some(b"/h")).unwrap(), b"/h/.local/share/i2psock");
        assert_eq!(folder(unset, Some(b"h")), None);
        assert_eq!(folder(unset, Some(b"")), None);
        assert_eq!(folder(unset, None), None);
    }
    assert_eq!(folder(None, Some(b"/\xff")).unwrap(), b"/\xff/.local/share/i2psock");
}

#[test]
fn modes_whatever_the_umask() {
    let folder = Folder::new();
    chmod(&folder.0, 0o777);
    for (mask, name) in [(0, "open"), (0o777, "closed"), (0o277, "odd")] {
        unprivileged(|| {
            umask(mask);
            let store = store_at(&folder.text(&format!("{name}/deep/keys"))).unwrap();
            for fill in [1, 2] {
                let claim = store.lock("alice").unwrap();
                claim.save(&keys(fill)).unwrap();
                assert_eq!(claim.load().unwrap().unwrap().bytes(), keys(fill).bytes());
            }
            for part in ["", "/deep", "/deep/keys"] {
                assert_eq!(mode(folder.path(&format!("{name}{part}"))), 0o700, "{name}{part}");
            }
            for file in ["alice.dat", "alice.sum", "alice.lock"] {
                assert_eq!(mode(store.folder().join(file)), 0o600, "{mask:o} {file}");
            }
            for (format, file) in [(Format::Binary, "b"), (Format::Text, "t")] {
                let path = store.folder().join(file).to_str().unwrap().to_owned();
                fs::write(&path, "old").unwrap();
                chmod(&path, 0o644);
                save(&keys(3), &path, format).unwrap();
                assert_eq!((mode(&path), load(&path).unwrap().bytes()), (0o600, keys(3).bytes()));
            }
        });
    }
}

#[test]
fn key_files_of_others_are_refused() {
    let folder = Folder::new();
    let claim = folder.store().lock("alice").unwrap();
    claim.save(&keys(1)).unwrap();
    let (file, text) = (folder.path("keys/alice.dat"), folder.text("keys/alice.dat"));
    for good in [0o600, 0o400, 0o700] {
        chmod(&file, good);
        assert!(claim.load().unwrap().is_some() && load(&text).is_ok(), "{good:o}");
    }
    for bad in [0o640, 0o620, 0o610, 0o604, 0o602, 0o601, 0o666, 0o644] {
        chmod(&file, bad);
        for error in [claim.load().unwrap_err(), load(&text).unwrap_err()] {
            refused(&error, &format!("{bad:04o}"));
        }
    }
    chmod(&file, 0o600);
    if is_root() {
        chown(&file, NOBODY);
        for error in [claim.load().unwrap_err(), load(&text).unwrap_err()] {
            refused(&error, "belongs to user 65534, and this is user 0");
        }
        chown(&file, 0);
    }
    assert_eq!(claim.load().unwrap().unwrap().bytes(), keys(1).bytes());
}

#[test]
fn what_is_no_regular_file_is_refused() {
    let folder = Folder::new();
    let claim = folder.store().lock("alice").unwrap();
    let (file, text) = (folder.path("keys/alice.dat"), folder.text("keys/alice.dat"));
    save(&keys(1), &folder.text("target"), Format::Binary).unwrap();
    // In the store not even a link to a good file; one that the user names is followed.
    symlink(folder.path("target"), &file).unwrap();
    refused(&claim.load().unwrap_err(), "symbolic link");
    refused(&claim.save(&keys(2)).unwrap_err(), "symbolic link");
    assert_eq!(load(&text).unwrap().bytes(), keys(1).bytes());
    refused(&save(&keys(2), &text, Format::Binary).unwrap_err(), "not replaced");
    chmod(folder.path("target"), 0o644);
    refused(&load(&text).unwrap_err(), "0644");
    fs::remove_file(&file).unwrap();
    symlink(folder.path("nowhere"), &file).unwrap();
    refused(&claim.load().unwrap_err(), "symbolic link");
    fs::remove_file(&file).unwrap();

    fs::create_dir(&file).unwrap();
    chmod(&file, 0o700);
    refused(&claim.load().unwrap_err(), "not a regular file");
    refused(&claim.save(&keys(2)).unwrap_err(), "not a regular file");
    refused(&load(&text).unwrap_err(), "not a regular file");
    fs::remove_dir(&file).unwrap();

    let name = std::ffi::CString::new(text.clone()).unwrap();
    // SAFETY: the name is NUL-terminated.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    refused(&claim.load().unwrap_err(), "not a regular file");
    refused(&load(&text).unwrap_err(), "not a regular file");
    refused(&save(&keys(2), &text, Format::Text).unwrap_err(), "not replaced");
    fs::remove_file(&file).unwrap();
    for device in ["/dev/null", "/dev/zero", "/proc/self/mem", "/proc/self/environ", "/"] {
        let error = load(device).unwrap_err();
        assert!(matches!(error.status, Status::Io | Status::Invalid), "{device}: {error}");
    }
    // The lock and the sum are no way out of the folder either.
    for (name, part) in [("bob.lock", "lock file"), ("bob.sum", "checksum file")] {
        symlink(folder.path("target"), folder.path("keys").join(name)).unwrap();
        let error = match folder.store().lock("bob") {
            Ok(claim) => claim.save(&keys(1)).unwrap_err(),
            Err(error) => error,
        };
        refused(&error, part);
        fs::remove_file(folder.path("keys").join(name)).unwrap();
    }
    assert_eq!(fs::read(folder.path("target")).unwrap(), keys(1).bytes());
}

#[test]
fn folders_that_others_can_write_to_are_refused() {
    let folder = Folder::new();
    let claim = folder.store().lock("alice").unwrap();
    claim.save(&keys(1)).unwrap();
    for bad in [0o720, 0o702, 0o777, 0o1777, 0o770] {
        chmod(folder.path("keys"), bad);
        refused(&folder.store().lock("bob").unwrap_err(), &format!("{bad:04o}"));
        refused(&claim.load().unwrap_err(), "others can write");
        refused(&claim.save(&keys(2)).unwrap_err(), "others can write");
    }
    chmod(folder.path("keys"), 0o755);
    assert_eq!(claim.load().unwrap().unwrap().bytes(), keys(1).bytes());
    // A link to a folder is the user's own decision; what it leads to is checked.
    symlink("keys", folder.path("link")).unwrap();
    let linked = store_at(&folder.text("link")).unwrap();
    assert!(linked.lock("bob").is_ok());
    chmod(folder.path("keys"), 0o777);
    refused(&linked.lock("bob").unwrap_err(), "others can write");
    chmod(folder.path("keys"), 0o700);
    if is_root() {
        chown(folder.path("keys"), NOBODY);
        refused(&linked.lock("bob").unwrap_err(), "belongs to user 65534");
        chown(folder.path("keys"), 0);
        // The other way round: files and folders of root, for somebody else.
        chmod(folder.path("keys"), 0o755);
        unprivileged(|| {
            let error = folder.store().lock("alice").unwrap_err();
            assert_eq!((error.status, error.os_error), (Status::Io, libc::EACCES), "{error}");
        });
    }
    // Exchanged while a name is open: what is there now has not our lock.
    fs::rename(folder.path("keys"), folder.path("away")).unwrap();
    assert_eq!(claim.save(&keys(2)).unwrap_err().os_error, libc::ENOENT);
    assert!(!folder.path("keys").exists());
    fs::create_dir(folder.path("keys")).unwrap();
    chmod(folder.path("keys"), 0o700);
    refused(&claim.load().unwrap_err(), "exchanged");
    refused(&claim.save(&keys(2)).unwrap_err(), "exchanged");
    assert_eq!(folder.entries("keys"), [""; 0]);
}

#[test]
fn folders_that_cannot_be() {
    let folder = Folder::new();
    fs::write(folder.path("file"), "").unwrap();
    for (path, errno) in [("file", libc::ENOTDIR), ("file/keys", libc::ENOTDIR), ("file/a/keys", libc::ENOTDIR)] {
        let error = store_at(&folder.text(path)).unwrap().lock("alice").unwrap_err();
        assert_eq!((error.status, error.os_error), (Status::Io, errno), "{path}: {error}");
    }
    // Read-only.
    fs::create_dir(folder.path("keys")).unwrap();
    if is_root() {
        chown(folder.path("keys"), NOBODY);
    }
    unprivileged(|| {
        chmod(folder.path("keys"), 0o700);
        let claim = folder.store().lock("alice").unwrap();
        claim.save(&keys(1)).unwrap();
        chmod(folder.path("keys"), 0o500);
        let error = claim.save(&keys(2)).unwrap_err();
        assert_eq!((error.status, error.os_error), (Status::Io, libc::EACCES), "{error}");
        assert_eq!(claim.load().unwrap().unwrap().bytes(), keys(1).bytes());
        assert_eq!(folder.store().lock("bob").unwrap_err().os_error, libc::EACCES);
        assert_eq!(save(&keys(2), &folder.text("keys/x"), Format::Text).unwrap_err().os_error, libc::EACCES);
        // Keys without a sum are as good where none can be written.
        chmod(folder.path("keys"), 0o700);
        fs::remove_file(folder.path("keys/alice.sum")).unwrap();
        chmod(folder.path("keys"), 0o500);
        assert_eq!(claim.load().unwrap().unwrap().bytes(), keys(1).bytes());
        assert_eq!(folder.entries("keys"), ["alice.dat", "alice.lock"]);
        chmod(folder.path("keys"), 0o700);
    });
}

/// No room for the keys: as on a full disk, a write fails in the middle.
#[test]
fn no_room() {
    for limit in [0, 1, 100, 678] {
        let folder = Folder::new();
        let claim = folder.store().lock("alice").unwrap();
        claim.save(&keys(1)).unwrap();
        drop(claim);
        save(&keys(1), &folder.text("keys/x.dat"), Format::Binary).unwrap();
        apart(|| {
            let claim = folder.store().lock("alice").unwrap();
            let limit = libc::rlimit { rlim_cur: limit, rlim_max: limit };
            // SAFETY: plain system calls; the limit lives as long as the call.
            unsafe {
                libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
                assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &limit), 0);
            }
            for error in [
                claim.save(&keys(2)).unwrap_err(),
                save(&keys(2), &folder.text("keys/x.dat"), Format::Binary).unwrap_err(),
                save(&keys(2), &folder.text("keys/y.dat"), Format::Text).unwrap_err(),
            ] {
                assert_eq!((error.status, error.os_error), (Status::Io, libc::EFBIG), "{error}");
            }
            // A name can be taken without room for our number.
            drop(claim);
            assert_eq!(folder.store().lock("alice").unwrap().load().unwrap().unwrap().bytes(), keys(1).bytes());
        });
        assert_eq!(folder.entries("keys"), ["alice.dat", "alice.lock", "alice.sum", "x.dat"]);
        let claim = folder.store().lock("alice").unwrap();
        assert_eq!(claim.load().unwrap().unwrap().bytes(), keys(1).bytes());
        assert_eq!(load(&folder.text("keys/x.dat")).unwrap().bytes(), keys(1).bytes());
        claim.save(&keys(2)).unwrap();
        assert_eq!(claim.load().unwrap().unwrap().bytes(), keys(2).bytes());
    }
}

#[test]
fn cut_short_at_every_length() {
    let folder = Folder::new();
    let claim = folder.store().lock("alice").unwrap();
    // With encryption type 4 some cuts make another layout that would be allowed.
    for keys in [keys(1), keys_of(1, 4, &[1; 256 + 32])] {
        claim.save(&keys).unwrap();
        let file = folder.path("keys/alice.dat");
        for len in 0..keys.bytes().len() {
            fs::write(&file, &keys.bytes()[..len]).unwrap();
            let error = claim.load().unwrap_err();
            assert_eq!(error.status, Status::Invalid, "{len}: {error}");
            assert_eq!(fs::read(&file).unwrap(), &keys.bytes()[..len]);
        }
        fs::write(&file, [keys.bytes(), b"\n"].concat()).unwrap();
        assert_eq!(claim.load().unwrap_err().status, Status::Invalid);
        fs::write(&file, keys.bytes()).unwrap();
        assert_eq!(claim.load().unwrap().unwrap().bytes(), keys.bytes());
    }
    // Without the sum the lengths tell, where the layout is known.
    for len in 0..keys(1).bytes().len() {
        fs::write(folder.path("keys/alice.dat"), &keys(1).bytes()[..len]).unwrap();
        let _ = fs::remove_file(folder.path("keys/alice.sum"));
        let error = claim.load().unwrap_err();
        assert!(error.status == Status::Invalid && error.message.contains("no private keys"), "{len}: {error}");
        // And a file without keys gets no sum.
        assert!(!folder.path("keys/alice.sum").exists());
    }
}

#[test]
fn one_byte_flipped() {
    let folder = Folder::new();
    let claim = folder.store().lock("alice").unwrap();
    claim.save(&keys(1)).unwrap();
    let (file, sum) = (folder.path("keys/alice.dat"), folder.path("keys/alice.sum"));
    for place in 0..keys(1).bytes().len() {
        for bit in [1, 0x80] {
            let mut bytes = keys(1).bytes().to_vec();
            bytes[place] ^= bit;
            fs::write(&file, &bytes).unwrap();
            let error = claim.load().unwrap_err();
            assert_eq!(error.status, Status::Invalid, "{place}: {error}");
            assert!(error.message.contains("alice.sum"), "{error}");
            assert_eq!(fs::read(&file).unwrap(), bytes);
        }
    }
    fs::write(&file, keys(1).bytes()).unwrap();
    // In the sum: refused, or no harm done; and its removal always helps.
    let good = fs::read(&sum).unwrap();
    let mut refusals = 0;
    for place in 0..good.len() {
        let mut bytes = good.clone();
        bytes[place] ^= 1;
        fs::write(&sum, &bytes).unwrap();
        match claim.load() {
            Ok(loaded) => assert_eq!(loaded.unwrap().bytes(), keys(1).bytes()),
            Err(error) => {
                refusals += 1;
                assert_eq!(error.status, Status::Invalid);
            }
        }
    }
    assert!(refusals >= 64, "{refusals}");
    for wrong in [&b""[..], b"\n", b"# x\n", b"\xff\xff", &[b'a'; 5000]] {
        fs::write(&sum, wrong).unwrap();
        assert_eq!(claim.load().unwrap_err().status, Status::Invalid);
    }
    fs::remove_file(&sum).unwrap();
    assert_eq!(claim.load().unwrap().unwrap().bytes(), keys(1).bytes());
    assert_eq!(fs::read(&sum).unwrap(), good);
}

#[test]
fn too_long() {
    let folder = Folder::new();
    let claim = folder.store().lock("alice").unwrap();
    let (file, text) = (folder.path("keys/alice.dat"), folder.text("keys/alice.dat"));
    // A sparse file: nobody has the memory to read that.
    for len in [64 * 1024 + 1, 1 << 40] {
        let made = File::create(&file).unwrap();
        made.set_len(len).unwrap();
        made.set_permissions(Permissions::from_mode(0o600)).unwrap();
        for error in [claim.load().unwrap_err(), load(&text).unwrap_err()] {
            assert_eq!(error.status, Status::Invalid, "{error}");
            assert!(error.message.contains(&len.to_string()), "{error}");
        }
    }
    claim.save(&keys(1)).unwrap();
    assert!(claim.load().unwrap().is_some());
}

#[test]
fn key_files_from_elsewhere() {
    let folder = Folder::new();
    let claim = folder.store().lock("alice").unwrap();
    let (private, public) = (keys(1).base64().to_owned(), keys(1).address().base64().to_owned());
    for content in [keys(1).bytes().to_vec(), format!("{private}\n").into(), format!("{public}\n{private}\n").into()] {
        let _ = fs::remove_file(folder.path("keys/alice.sum"));
        fs::write(folder.path("keys/alice.dat"), &content).unwrap();
        chmod(folder.path("keys/alice.dat"), 0o600);
        for _ in 0..2 {
            assert_eq!(claim.load().unwrap().unwrap().bytes(), keys(1).bytes());
        }
        assert!(folder.path("keys/alice.sum").exists());
        assert_eq!(fs::read(folder.path("keys/alice.dat")).unwrap(), content);
    }
}

#[test]
fn files_the_user_names() {
    let folder = Folder::new();
    let text = folder.text("x");
    save(&keys(1), &text, Format::Text).unwrap();
    assert_eq!(fs::read_to_string(&text).unwrap(), format!("{}\n", keys(1).base64()));
    assert_eq!(load(&text).unwrap().bytes(), keys(1).bytes());
    save(&keys(2), &text, Format::Binary).unwrap();
    assert_eq!(fs::read(&text).unwrap(), keys(2).bytes());
    assert_eq!(folder.entries(""), ["x"]);
    for bad in ["", ".", "..", "/", "x/", "x/.", "/..", "a\0b"] {
        let error = save(&keys(1), bad, Format::Binary).unwrap_err();
        assert_eq!(error.status, Status::Invalid, "{bad:?}: {error}");
    }
    assert_eq!(load(&folder.text("nothing")).unwrap_err().os_error, libc::ENOENT);
    assert_eq!(load("").unwrap_err().os_error, libc::ENOENT);
    assert_eq!(load("a\0b").unwrap_err().status, Status::Io);
    assert_eq!(save(&keys(1), &folder.text("no/x"), Format::Text).unwrap_err().os_error, libc::ENOENT);
    assert_eq!(save(&keys(1), &folder.text("x/y"), Format::Text).unwrap_err().os_error, libc::ENOTDIR);
    let long = folder.text(&"x".repeat(255));
    save(&keys(1), &long, Format::Text).unwrap();
    assert_eq!(load(&long).unwrap().bytes(), keys(1).bytes());
    assert_eq!(save(&keys(1), &format!("{long}x"), Format::Text).unwrap_err().os_error, libc::ENAMETOOLONG);
    fs::write(&text, keys(1).address().base64()).unwrap();
    let error = load(&text).unwrap_err();
    assert!(error.status == Status::Invalid && error.message.contains("no private keys"), "{error}");
}

/// Made by i2pd 2.45.1 for two tunnels of its configuration; the addresses were computed with Python.
#[test]
fn files_of_i2pd() {
    for (name, sig_type, base32) in [
        ("i2pd.dat", 7, "lnykmsjxssrjb4qq6k5umnppkjvc4jngeobmfjtqytgi55o7cfva"),
        ("i2pd_dsa.dat", 0, "4i4tifq42cabp2sc7d6wow3qy4qc5bp3nsv5r43lp77symicrliq"),
    ] {
        let original = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name);
        let (original, folder) = (fs::read(original).unwrap(), Folder::new());
        let path = folder.text(name);
        fs::write(&path, &original).unwrap();
        // As i2pd leaves them.
        chmod(&path, 0o644);
        refused(&load(&path).unwrap_err(), "0644");
        chmod(&path, 0o600);
        let loaded = load(&path).unwrap();
        assert_eq!((loaded.bytes(), loaded.signature_type()), (&original[..], sig_type));
        assert_eq!(loaded.address().host(), format!("{base32}.b32.i2p"));
        save(&loaded, &path, Format::Binary).unwrap();
        assert_eq!(fs::read(&path).unwrap(), original);
        // In the store.
        let claim = folder.store().lock("i2pd").unwrap();
        fs::rename(&path, folder.path("keys/i2pd.dat")).unwrap();
        assert_eq!(claim.load().unwrap().unwrap().bytes(), original);
    }
}

#[test]
fn one_at_a_time() {
    let folder = Folder::new();
    let claim = folder.store().lock("alice").unwrap();
    let error = folder.store().lock("alice").unwrap_err();
    assert_eq!(error.status, Status::State);
    assert_eq!(error.message, "destination \"alice\" is open already, by another controller of this process");
    assert_eq!(fs::read_to_string(folder.path("keys/alice.lock")).unwrap(), format!("{}\n", std::process::id()));
    // Programs that are started do not get it.
    let started = std::process::Command::new("ls").args(["-l", "/proc/self/fd"]).output().unwrap();
    let listed = String::from_utf8_lossy(&started.stdout).into_owned();
    assert!(listed.contains("->") && !listed.contains("alice"), "{listed}");
    // Other names are free.
    let other = folder.store().lock("bob").unwrap();
    drop(claim);
    let claim = folder.store().lock("alice").unwrap();
    // A number nobody can read.
    for text in ["", "x", "99999999999999999999999"] {
        fs::write(folder.path("keys/alice.lock"), text).unwrap();
        let error = folder.store().lock("alice").unwrap_err();
        assert_eq!(error.message, "destination \"alice\" is open in another process");
    }
    drop((claim, other));
    // A longer number of an earlier holder.
    fs::write(folder.path("keys/alice.lock"), "4294967295\n").unwrap();
    chmod(folder.path("keys/alice.lock"), 0o666);
    let before = fs::metadata(folder.path("keys/alice.lock")).unwrap().ino();
    let claim = folder.store().lock("alice").unwrap();
    assert_eq!(fs::read_to_string(folder.path("keys/alice.lock")).unwrap(), format!("{}\n", std::process::id()));
    assert_eq!(mode(folder.path("keys/alice.lock")), 0o600);
    drop(claim);
    assert_eq!(fs::metadata(folder.path("keys/alice.lock")).unwrap().ino(), before);
    if is_root() {
        chown(folder.path("keys/alice.lock"), NOBODY);
        refused(&folder.store().lock("alice").unwrap_err(), "belongs to user 65534");
    }
}

#[test]
fn another_process_has_it() {
    let folder = Folder::new();
    let mut child = Child::start(|said| {
        let _claim = folder.store().lock("alice").unwrap();
        said.ready();
        loop {
            std::thread::park();
        }
    });
    child.wait_ready();
    let error = folder.store().lock("alice").unwrap_err();
    assert_eq!(error.status, Status::State);
    assert_eq!(error.message, format!("destination \"alice\" is open in process {}", child.pid));
    child.kill();
    let claim = folder.store().lock("alice").unwrap();
    // And in the other direction.
    let own = std::process::id();
    apart(|| {
        let error = folder.store().lock("alice").unwrap_err();
        assert_eq!(error.message, format!("destination \"alice\" is open in process {own}"));
    });
    drop(claim);
}

#[test]
fn a_forked_child_does_not_unlock_its_parent() {
    let folder = Folder::new();
    let claim = folder.store().lock("alice").unwrap();
    let taken = || matches!(folder.store().lock("alice"), Err(error) if error.status == Status::State);
    apart(|| {
        let fds = || fs::read_dir("/proc/self/fd").unwrap().count();
        let before = fds();
        claim.abandon();
        claim.abandon();
        assert_eq!(fds(), before - 1);
        assert_eq!(claim.load().unwrap_err().status, Status::State);
        assert_eq!(claim.save(&keys(1)).unwrap_err().status, Status::State);
        assert!(taken());
    });
    assert!(taken());
    let mut claim = Some(claim);
    apart(|| {
        drop(claim.take());
        assert!(taken());
    });
    // Only the child has dropped its copy.
    let claim = claim.unwrap();
    assert!(taken());
    claim.save(&keys(1)).unwrap();
    drop(claim);
    assert!(!taken());
}

#[test]
fn killed_while_saving() {
    let folder = Folder::new();
    let store = folder.store();
    store.lock("alice").unwrap().save(&keys(1)).unwrap();
    let mut rng = 88172645463325252u64;
    let mut half = 0;
    for round in 0..100 {
        let mut child = Child::start(|said| {
            let claim = store.lock("alice").unwrap();
            said.ready();
            for fill in (1..=3).cycle() {
                claim.save(&keys(fill)).unwrap();
            }
        });
        child.wait_ready();
        rng ^= rng << 13;
        rng ^= rng >> 7;
        rng ^= rng << 17;
        // Anywhere in the first few saves.
        std::thread::sleep(std::time::Duration::from_micros(rng % 3000));
        child.kill();
        half += usize::from(folder.entries("keys").len() > 3);
        let claim = store.lock("alice").unwrap();
        // What was left behind is gone.
        assert_eq!(folder.entries("keys"), ["alice.dat", "alice.lock", "alice.sum"], "round {round}");
        let loaded = claim.load().unwrap().unwrap();
        assert!((1..=3).any(|fill| loaded.bytes() == keys(fill).bytes()), "round {round}");
        claim.save(&keys(1 + (round % 3) as u8)).unwrap();
        assert_eq!(claim.load().unwrap().unwrap().bytes(), keys(1 + (round % 3) as u8).bytes());
    }
    println!("{half} of 100 were killed with a file half written");
}

#[test]
fn many_make_the_folder_at_once() {
    let folder = Folder::new();
    for round in 0..30 {
        let (start, path) = (Barrier::new(8), folder.text(&format!("{round}/deep/keys")));
        std::thread::scope(|scope| {
            for number in 0..8 {
                let (start, path) = (&start, &path);
                scope.spawn(move || {
                    let store = store_at(path).unwrap();
                    start.wait();
                    let claim = store.lock(&format!("name{number}")).unwrap();
                    claim.save(&keys(number)).unwrap();
                    assert_eq!(claim.load().unwrap().unwrap().bytes(), keys(number).bytes());
                });
            }
        });
    }
}

/// Every state a kill can leave: each is loadable as the old keys or the new.
#[test]
fn every_state_between_two_keys() {
    let folder = Folder::new();
    let claim = folder.store().lock("alice").unwrap();
    let (file, sum) = (folder.path("keys/alice.dat"), folder.path("keys/alice.sum"));
    claim.save(&keys(2)).unwrap();
    let only_new = fs::read_to_string(&sum).unwrap();
    claim.save(&keys(1)).unwrap();
    let only_old = fs::read_to_string(&sum).unwrap();
    let both = format!("{only_new}{}", only_old.lines().last().unwrap());
    for (present, sums) in [(1, &only_old), (1, &both), (2, &both), (2, &only_new)] {
        fs::write(&file, keys(present).bytes()).unwrap();
        fs::write(&sum, sums).unwrap();
        assert_eq!(claim.load().unwrap().unwrap().bytes(), keys(present).bytes());
    }
    // Before the first keys: a sum and no file.
    fs::remove_file(&file).unwrap();
    assert!(claim.load().unwrap().is_none());
    claim.save(&keys(3)).unwrap();
    assert_eq!(claim.load().unwrap().unwrap().bytes(), keys(3).bytes());
}

#[test]
fn only_leftovers_of_the_name_are_removed() {
    let folder = Folder::new();
    folder.store().lock("alice").unwrap();
    let gone = [".alice.dat.0123456789abcdef.tmp", ".alice.sum.ffffffffffffffff.tmp"];
    let stay = [
        ".bob.dat.0123456789abcdef.tmp",
        ".alice.dat.tmp",
        ".alice.dat.0123456789abcdef.x.tmp",
        "alice.dat.bak",
        ".alice.0123456789abcdef.tmp",
        ".alice.lock.0123456789abcdef.tmp",
    ];
    for name in gone.iter().chain(&stay) {
        fs::write(folder.path("keys").join(name), "").unwrap();
    }
    let claim = folder.store().lock("alice").unwrap();
    // Not by who does not have the lock.
    fs::write(folder.path("keys").join(gone[0]), "").unwrap();
    folder.store().lock("alice").unwrap_err();
    let entries = folder.entries("keys");
    assert!(entries.contains(&gone[0].to_owned()) && !entries.contains(&gone[1].to_owned()));
    drop(claim);
    folder.store().lock("alice").unwrap();
    let mut wanted: Vec<String> = stay.iter().copied().chain(["alice.lock"]).map(str::to_owned).collect();
    wanted.sort();
    assert_eq!(folder.entries("keys"), wanted);
}

#[test]
fn no_message_has_a_secret() {
    let folder = Folder::new();
    let claim = folder.store().lock("alice").unwrap();
    claim.save(&keys(0x41)).unwrap();
    fs::write(folder.path("keys/alice.dat"), format!("{} x", keys(0x41).base64())).unwrap();
    let without = load(&folder.text("keys/alice.dat")).unwrap_err();
    for error in [claim.load().unwrap_err(), without] {
        assert!(!error.message.contains("AAAA") && !error.message.contains("QUFB"), "{error}");
    }
    assert!(!format!("{claim:?}").contains("AAAA"));
}
