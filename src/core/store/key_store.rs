//! The key store: a folder with one key file per name, each used by one process at a time.
//!
//! ```text
//! NAME.dat   the keys, as i2pd and Java I2P write them
//! NAME.sum   checksum of NAME.dat in the format of sha256sum(1), and the address in a comment
//! NAME.lock  locked with flock(2) by the process that has the name; contains its pid, and when the last session under
//!            this name ended; never renamed or removed
//! .NAME.dat.*.tmp, .NAME.sum.*.tmp   left by a process that was killed while writing
//! ```
//!
//! A key file has no checksum of its own, and a flipped bit would mean a different address or keys that do not work;
//! hence NAME.sum. It may be missing, for example next to a file copied from elsewhere. While keys are being replaced
//! it contains the sums of both files, so that at any moment it matches the file that is there.

use std::ffi::OsString;
use std::fs::{File, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Instant;

use sha2::{Digest, Sha256};

use crate::core::drive::Process;
use crate::core::store::key_file::{self, io_error, within, Others};
use crate::core::store::stamp::Stamp;
use crate::error::{Error, Result};
use crate::identity::Keys;
use crate::sys::lock::assert_none_held;
use crate::sys::{self, Access, Folder, SharedFd};

/// Longest name, in bytes.
const MAX_NAME: usize = 64;

/// A folder of key files.
#[derive(Clone, Debug)]
pub struct KeyStore {
    folder: PathBuf,
    process: Arc<Process>,
}

impl KeyStore {
    /// Stores the folder's absolute path. The folder is checked, and created if necessary (mode 0700, including missing
    /// parents), when the first name is locked, so that programs that use no names leave no folder behind.
    pub fn new(folder: &str, process: &Arc<Process>) -> Result<KeyStore> {
        if folder.is_empty() || folder.contains('\0') {
            return Err(Error::invalid("the key store wants the name of a folder"));
        }
        let folder = std::path::absolute(folder).map_err(|error| io_error("folder of the key store", &error))?;
        Ok(KeyStore { folder, process: Arc::clone(process) })
    }

    /// The folder, as an absolute path.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Takes the name for this process. Fails with STATE if any process has it, including this one.
    pub fn lock(&self, name: &str) -> Result<NameLock> {
        check_name(name)?;
        let folder = self.open_folder(true)?;
        let path = self.folder.join(format!("{name}.lock"));
        let what = format!("lock file {path:?}");
        let file = folder
            .open_file(&format!("{name}.lock"), Access::Lock)
            .map_err(|error| key_file::open_error(&what, &error))?;
        let before = take(&file, name, &what)?;
        let identity = identity(&folder).map_err(|error| folder_error(&self.folder, &error))?;
        remove_leftovers(&folder, &self.folder, name);
        Ok(NameLock {
            name: name.to_owned(),
            store: self.clone(),
            identity,
            lock: SharedFd::new(OwnedFd::from(file)),
            before,
            used: AtomicBool::new(false),
        })
    }

    fn open_folder(&self, make: bool) -> Result<Folder> {
        assert_none_held("access to the key store");
        let folder = match Folder::open(&self.folder) {
            Err(error) if make && error.kind() == ErrorKind::NotFound => {
                make_folder(&self.folder).and_then(|()| Folder::open(&self.folder))
            }
            result => result,
        };
        let folder = folder.map_err(|error| folder_error(&self.folder, &error))?;
        let found = folder.metadata().map_err(|error| folder_error(&self.folder, &error))?;
        let (owner, user, mode) = (found.uid(), sys::user(), found.mode() & 0o7777);
        let path = &self.folder;
        if owner != user && owner != 0 {
            return Err(Error::refused(format!("key store {path:?} belongs to user {owner}, and this is user {user}")));
        }
        if mode & 0o022 != 0 {
            return Err(Error::refused(format!("others can write to the key store {path:?} (mode {mode:04o})")));
        }
        Ok(folder)
    }
}

/// Exclusive use of a name, until this is dropped.
///
/// In a child of fork(2), dropping it only closes the descriptor: unlocking there would unlock the name for the parent
/// too.
#[derive(Debug)]
pub struct NameLock {
    name: String,
    store: KeyStore,
    identity: (u64, u64),
    lock: SharedFd,
    /// What the lock file said about the last session when it was locked.
    before: Option<Stamp>,
    /// Whether there may have been a session since then.
    used: AtomicBool,
}

impl Drop for NameLock {
    fn drop(&mut self) {
        // In a child of fork(2), unlocking would take it from the parent.
        if !self.store.process.in_child() && !self.lock.is_taken() {
            assert_none_held("access to the key store");
            let stamp = if *self.used.get_mut() { Some(Stamp::ended()) } else { self.before.take() };
            if let Ok(file) = self.lock.as_fd().try_clone_to_owned().map(File::from) {
                write_lock_file(&file, stamp.as_ref());
            }
            // Closing alone would leave it locked until every child of fork(2) has exited.
            sys::unlock(self.lock.as_raw_fd());
        }
    }
}

impl NameLock {
    pub fn name(&self) -> &str {
        &self.name
    }

    /// When the last session under this name ended, in any process, as far as it matters: not before the machine was
    /// started. If a process was killed, its session may have lasted until `now`.
    pub fn last_end(&self, now: Instant) -> Option<Instant> {
        self.before.as_ref().and_then(|stamp| stamp.when(now))
    }

    /// Records that there may have been a session under this name.
    pub fn set_used(&self) {
        self.used.store(true, Ordering::Relaxed);
    }

    /// Reads the keys; `None` if there is no key file yet. Fails with INVALID if the file contains no keys or is
    /// damaged; with IO if it cannot be read or (EPERM) others can read or write it, it belongs to another user or is
    /// not a regular file. The file is never changed.
    pub fn load(&self) -> Result<Option<Keys>> {
        let folder = self.folder()?;
        let what = self.what("key file", "dat");
        let Some(file) = key_file::open(&folder, &self.file("dat"), &what)? else { return Ok(None) };
        let content = key_file::read(file, &what, Others::Refused)?;
        let sum = checksum(content.as_bytes());
        match self.read_sums(&folder)? {
            None => {
                let keys = Keys::from_file(content).map_err(|error| within(&what, error))?;
                // Only for the next time; the keys are good without it.
                let _ = self.write_sums(&folder, &keys, &[sum]);
                Ok(Some(keys))
            }
            Some(sums) if sums.contains(&sum) => {
                // Unchanged since it was saved, but perhaps in one router's own layout.
                let copy = content.duplicate();
                let keys = Keys::from_file(content).or_else(|_| Keys::from_bridge_secret(copy));
                keys.map(Some).map_err(|error| within(&what, error))
            }
            Some(_) => Err(Error::invalid(format!(
                "{what} was damaged or exchanged: its checksum is not that of {name}.sum \
                 (remove {name}.sum if the keys are what they should be)",
                name = self.name
            ))),
        }
    }

    /// Writes the checksums, old and new, then the keys, each atomically. If it fails or the process is killed in
    /// between, the key file is either the old one or the new one. Fails with IO if it cannot be written, or (EPERM) if
    /// what is there is not a regular file.
    pub fn save(&self, keys: &Keys) -> Result<()> {
        let folder = self.folder()?;
        let what = self.what("key file", "dat");
        let new = checksum(keys.bytes());
        let old = match key_file::open(&folder, &self.file("dat"), &what)? {
            // A file too long to be a key file has no sum worth keeping.
            Some(file) => key_file::read(file, &what, Others::Welcome).ok().map(|old| checksum(old.as_bytes())),
            None => None,
        };
        let old = old.filter(|old| *old != new);
        let both: Vec<String> = [Some(new.clone()), old.clone()].into_iter().flatten().collect();
        self.write_sums(&folder, keys, &both)?;
        key_file::replace(&folder, &self.file("dat"), &what, &[keys.bytes()])?;
        if old.is_some() {
            // Errors do not matter: the keys are safe, and their sum is already there.
            let _ = self.write_sums(&folder, keys, &[new]);
        }
        Ok(())
    }

    /// For a child of fork(2): closes our copy of the descriptor; the parent keeps the lock.
    pub fn abandon(&self) {
        self.lock.abandon();
    }

    fn file(&self, suffix: &str) -> String {
        format!("{}.{suffix}", self.name)
    }

    fn what(&self, kind: &str, suffix: &str) -> String {
        format!("{kind} {:?}", self.store.folder.join(self.file(suffix)))
    }

    /// Opens the folder, which must still be the one containing our lock.
    fn folder(&self) -> Result<Folder> {
        if self.lock.is_taken() {
            return Err(Error::state(format!("the name \"{}\" is not ours any more", self.name)));
        }
        let folder = self.store.open_folder(false)?;
        let path = &self.store.folder;
        match identity(&folder) {
            Ok(identity) if identity == self.identity => Ok(folder),
            Ok(_) => Err(Error::refused(format!("key store {path:?} was exchanged for another folder"))),
            Err(error) => Err(folder_error(path, &error)),
        }
    }

    fn read_sums(&self, folder: &Folder) -> Result<Option<Vec<String>>> {
        let what = self.what("checksum file", "sum");
        let Some(file) = key_file::open(folder, &self.file("sum"), &what)? else { return Ok(None) };
        let content = key_file::read(file, &what, Others::Welcome)?;
        let text = String::from_utf8_lossy(content.as_bytes());
        let first_word = |line: &str| line.split_ascii_whitespace().next().map(str::to_owned);
        Ok(Some(text.lines().filter(|line| !line.starts_with('#')).filter_map(first_word).collect()))
    }

    fn write_sums(&self, folder: &Folder, keys: &Keys, sums: &[String]) -> Result<()> {
        let lines: String = sums.iter().map(|sum| format!("{sum}  {}\n", self.file("dat"))).collect();
        let text = format!("# {}\n{lines}", keys.address().host());
        key_file::replace(folder, &self.file("sum"), &self.what("checksum file", "sum"), &[text.as_bytes()])
    }
}

/// Checks a name: 1 to 64 bytes of UTF-8 without `/`, `\` and control characters, not starting with a dot, and neither
/// starting nor ending with white space. The extensions of the store's own files are rejected, because a caller that
/// passes one has mistaken the name for a file name.
pub fn check_name(name: &str) -> Result<()> {
    let wrong = |why: &str| Err(Error::invalid(format!("the name of a destination {why}")));
    if name.is_empty() || name.len() > MAX_NAME {
        return wrong("has 1 to 64 bytes");
    }
    if name.chars().any(|c| c.is_control() || matches!(c, '/' | '\\')) {
        return wrong("has no slash, backslash or control character in it");
    }
    if name.starts_with('.') || name.trim() != name {
        return wrong("begins with no dot, and neither begins nor ends with a space");
    }
    if [".dat", ".sum", ".lock", ".tmp"].iter().any(|ending| name.ends_with(ending)) {
        return wrong("is no file name: without .dat, .sum, .lock or .tmp at its end");
    }
    Ok(())
}

/// The user's default folder: `$XDG_DATA_HOME/i2psock`, or else `$HOME/.local/share/i2psock`. Relative paths count as
/// not set, as the XDG specification requires. `None` if neither is set.
pub fn default_folder(env: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let absolute = |key: &str| env(key).map(PathBuf::from).filter(|path| path.is_absolute());
    let data = absolute("XDG_DATA_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/share")))?;
    Some(data.join("i2psock"))
}

fn checksum(content: &[u8]) -> String {
    let mut hasher = Sha256::new();
    hasher.update(content);
    let sum = hasher.finalize_reset();
    // The hasher's buffer still contains the end of the private keys, up to where the content's length was put.
    hasher.update([0; 63]);
    std::hint::black_box(&hasher);
    sum.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn folder_error(path: &Path, error: &io::Error) -> Error {
    io_error(&format!("key store {path:?}"), error)
}

/// Device and inode number.
fn identity(folder: &Folder) -> io::Result<(u64, u64)> {
    folder.metadata().map(|found| (found.dev(), found.ino()))
}

/// Creates the folder and its missing parents, accessible only to their owner whatever the umask.
fn make_folder(path: &Path) -> io::Result<()> {
    let mut missing: Vec<&Path> = path.ancestors().take_while(|part| !part.exists()).collect();
    while let Some(part) = missing.pop() {
        match std::fs::DirBuilder::new().mode(0o700).create(part) {
            // Another process was faster.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
            result => result?,
        }
        if std::fs::symlink_metadata(part)?.mode() & 0o7777 != 0o700 {
            std::fs::set_permissions(part, Permissions::from_mode(0o700))?;
        }
        if let Some(parent) = part.parent() {
            // A parent may be searchable but not readable; then it is up to the system when this reaches the disk.
            let _ = Folder::open(parent).and_then(|parent| parent.sync());
        }
    }
    Ok(())
}

/// Locks an open lock file and writes our pid into it. Returns what it said about the last session.
fn take(file: &File, name: &str, what: &str) -> Result<Option<Stamp>> {
    let failed = |error: io::Error| io_error(what, &error);
    key_file::check(file, what, Others::Welcome)?;
    let found = file.metadata().map_err(failed)?;
    if found.uid() != sys::user() {
        return Err(Error::refused(format!(
            "{what} belongs to user {}, and this is user {}",
            found.uid(),
            sys::user()
        )));
    }
    if found.mode() & 0o7777 != 0o600 {
        file.set_permissions(Permissions::from_mode(0o600)).map_err(failed)?;
    }
    let own = std::process::id();
    if !sys::try_lock(file).map_err(failed)? {
        return Err(Error::state(match holder(file) {
            Some(pid) if pid == own => {
                format!("destination \"{name}\" is open already, by another controller of this process")
            }
            Some(pid) => format!("destination \"{name}\" is open in process {pid}"),
            None => format!("destination \"{name}\" is open in another process"),
        }));
    }
    let before = Stamp::parse(&lock_file_text(file));
    write_lock_file(file, Some(&Stamp::held()));
    Ok(before)
}

/// Errors do not matter: the lock works on a full disk too. Truncates after writing, so that the file contains a number
/// at any time.
fn write_lock_file(file: &File, stamp: Option<&Stamp>) {
    let text = format!("{}\n{}", std::process::id(), stamp.map(Stamp::line).unwrap_or_default());
    let _ = file.write_all_at(text.as_bytes(), 0).and_then(|()| file.set_len(text.len() as u64));
}

fn lock_file_text(file: &File) -> String {
    let mut text = [0; 128];
    let count = file.read_at(&mut text, 0).unwrap_or(0);
    String::from_utf8_lossy(text.get(..count).unwrap_or_default()).into_owned()
}

/// The pid in a lock file.
fn holder(file: &File) -> Option<u32> {
    lock_file_text(file).lines().next()?.parse().ok()
}

/// Removes what killed processes left behind for this name. Call it only with the name locked. Leftovers that cannot be
/// removed are harmless.
fn remove_leftovers(folder: &Folder, path: &Path, name: &str) {
    let Ok(entries) = std::fs::read_dir(path) else { return };
    let files = [format!("{name}.dat"), format!("{name}.sum")];
    for entry in entries.flatten() {
        let entry = entry.file_name();
        let Some(entry) = entry.to_str() else { continue };
        if files.iter().any(|file| key_file::is_temporary_of(entry, file)) {
            let _ = folder.remove(entry);
        }
    }
}
