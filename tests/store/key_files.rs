//! Key files that the user names, and those of routers.

use std::fs::{self};
use std::path::Path;

use super::{chmod, keys, refused, Folder};
use i2psock::core::store::{load, save, Format};
use i2psock::error::Status;

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
