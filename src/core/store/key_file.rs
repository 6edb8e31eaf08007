//! Key files: one careful reader and one atomic writer, both for files the user names and for the key store.

use std::fs::{File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use crate::error::{Error, Operation, Result};
use crate::identity::Keys;
use crate::secret::Secret;
use crate::sys::lock::assert_none_held;
use crate::sys::{self, Access, Folder};

/// Longest file to read: the longest possible keys take about 3 KB.
const MAX_LEN: u64 = 64 * 1024;

/// The format keys are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Binary, like the .dat files of i2pd and Java I2P.
    Binary,
    /// One line of I2P base64.
    Text,
}

/// Reads a key file of any format. Follows a symbolic link: what counts is the owner and mode of the file it leads to.
pub fn load(path: &str) -> Result<Keys> {
    assert_none_held("access to a key file");
    let what = format!("key file {path:?}");
    let file = sys::open_to_read(Path::new(path)).map_err(|error| io_error(&what, &error))?;
    let bytes = read(file, &what, Others::Refused)?;
    Keys::from_file(bytes).map_err(|error| within(&what, error))
}

/// Writes a key file, replacing any existing one.
pub fn save(keys: &Keys, path: &str, format: Format) -> Result<()> {
    assert_none_held("access to a key file");
    let what = format!("key file {path:?}");
    let (folder, name) = match path.rsplit_once('/') {
        None => (".", path),
        Some(("", name)) => ("/", name),
        Some(parts) => parts,
    };
    if matches!(name, "" | "." | "..") || path.contains('\0') {
        return Err(Error::invalid(format!("{what}: this is no name of a file")));
    }
    let folder = Folder::open(Path::new(folder)).map_err(|error| io_error(&what, &error))?;
    match format {
        Format::Binary => replace(&folder, name, &what, &[keys.bytes()]),
        Format::Text => replace(&folder, name, &what, &[keys.base64().as_bytes(), b"\n"]),
    }
}

/// Whether a file may belong to another user, or be readable or writable by others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Others {
    /// No: it contains secrets.
    Refused,
    /// Yes: it contains no secrets.
    Welcome,
}

/// Opens a file in a folder; `None` if it does not exist.
pub(super) fn open(folder: &Folder, name: &str, what: &str) -> Result<Option<File>> {
    match folder.open_file(name, Access::Read) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(open_error(what, &error)),
    }
}

/// Reads a regular file of reasonable length, after checking who has access to it.
pub(super) fn read(mut file: File, what: &str, others: Others) -> Result<Secret> {
    let len = check(&file, what, others)?;
    if len > MAX_LEN {
        return Err(Error::invalid(format!("{what} has {len} bytes: that is no key file")));
    }
    // One byte more than expected, to notice if the file is growing.
    let mut bytes = Secret::zeroed(len as usize + 1);
    let mut filled = 0;
    while let Some(room) = bytes.as_mut_bytes().get_mut(filled..).filter(|room| !room.is_empty()) {
        match sys::retry(|| file.read(room)).map_err(|error| io_error(what, &error))? {
            0 => break,
            count => filled += count,
        }
    }
    if filled as u64 > len {
        return Err(Error::invalid(format!("{what} grows while it is read")));
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// Checks type, owner and mode of an open file, and returns its length.
pub(super) fn check(file: &File, what: &str, others: Others) -> Result<u64> {
    let found = file.metadata().map_err(|error| io_error(what, &error))?;
    if !found.is_file() {
        return Err(Error::refused(format!("{what} is not a regular file")));
    }
    if others == Others::Refused {
        let (owner, user, mode) = (found.uid(), sys::user(), found.mode() & 0o7777);
        if owner != user {
            return Err(Error::refused(format!("{what} belongs to user {owner}, and this is user {user}")));
        }
        if mode & 0o077 != 0 {
            return Err(Error::refused(format!(
                "{what} is open to others (mode {mode:04o}): it must be for its owner alone (0600)"
            )));
        }
    }
    Ok(found.len())
}

/// Writes a file atomically: a reader finds either the old content or the new, even after a power loss. The file is
/// accessible only to its owner, whatever the umask. Only a regular file is replaced.
pub(super) fn replace(folder: &Folder, name: &str, what: &str, parts: &[&[u8]]) -> Result<()> {
    let failed = |error: io::Error| io_error(what, &error);
    if folder.is_regular(name).map_err(failed)? == Some(false) {
        return Err(Error::refused(format!("{what} is not a regular file, and is not replaced")));
    }
    let temporary = temporary_name(name).map_err(failed)?;
    let mut file = folder.open_file(&temporary, Access::New).map_err(failed)?;
    let written = (|| {
        file.set_permissions(Permissions::from_mode(0o600))?;
        parts.iter().try_for_each(|part| file.write_all(part))?;
        file.sync_all()?;
        folder.rename(&temporary, name)
    })();
    if let Err(error) = written {
        // Nothing more can be done if this fails too; the next process to lock the name tries again.
        let _ = folder.remove(&temporary);
        return Err(failed(error));
    }
    folder.sync().map_err(failed)
}

fn temporary_name(name: &str) -> io::Result<String> {
    let mut random = [0; 8];
    sys::random(&mut random)?;
    let mut stem = name.to_owned();
    // File names are limited to 255 bytes. Those of the key store are never cut.
    while stem.len() > 200 {
        stem.pop();
    }
    Ok(format!(".{stem}.{:016x}.tmp", u64::from_ne_bytes(random)))
}

/// Whether `entry` is a temporary file left by a process that was killed while writing the file `name`.
pub(super) fn is_temporary_of(entry: &str, name: &str) -> bool {
    let middle =
        entry.strip_prefix('.').and_then(|rest| rest.strip_prefix(name)).and_then(|rest| rest.strip_prefix('.'));
    middle
        .and_then(|rest| rest.strip_suffix(".tmp"))
        .is_some_and(|random| random.len() == 16 && random.bytes().all(|b| b.is_ascii_hexdigit()))
}

pub(super) fn io_error(what: &str, error: &io::Error) -> Error {
    Error::io(Operation::None, what, error)
}

/// The error for an open that does not follow symbolic links.
pub(super) fn open_error(what: &str, error: &io::Error) -> Error {
    if error.raw_os_error() == Some(libc::ELOOP) {
        return Error::refused(format!("{what} is a symbolic link"));
    }
    io_error(what, error)
}

/// Prefixes an error message with the name of the file.
pub(super) fn within(what: &str, error: Error) -> Error {
    let message = format!("{what}: {}", error.message);
    error.saying(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temporaries_are_told_by_their_names() {
        let name = temporary_name("alice.dat").unwrap();
        assert!(is_temporary_of(&name, "alice.dat"));
        for other in ["alice", "lice.dat", "alice.da", "alice.dat.", "", "bob.dat"] {
            assert!(!is_temporary_of(&name, other), "{other}");
        }
        for entry in
            ["alice.dat", ".alice.dat.tmp", ".alice.dat.0123456789abcde.tmp", ".alice.dat.0123456789abcdeg.tmp"]
        {
            assert!(!is_temporary_of(entry, "alice.dat"), "{entry}");
        }
        // A name that looks like part of a temporary one.
        let odd = "alice.dat.0123456789abcdef";
        assert!(!is_temporary_of(&temporary_name(odd).unwrap(), "alice.dat"));
        assert_ne!(name, temporary_name("alice.dat").unwrap());
        assert!(temporary_name(&"ä".repeat(120)).unwrap().len() < 255);
    }
}
