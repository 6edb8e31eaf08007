//! Modes and owners of what is written, and what is refused for them.

use std::fs::{self};
use std::os::unix::fs::symlink;

use super::{chmod, chown, is_root, keys, mode, refused, store_at, unprivileged, Folder, NOBODY};
use i2psock::core::store::{load, save, Format};
use i2psock::error::Status;

fn umask(mask: libc::mode_t) {
    // SAFETY: always succeeds.
    unsafe { libc::umask(mask) };
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
