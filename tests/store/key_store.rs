//! Keys come back under their names.

use std::fs::{self};
use std::os::unix::ffi::OsStrExt;

use super::{keys, keys_of, store_at, Folder};
use i2psock::core::store::{check_name, default_folder, load};
use i2psock::error::Status;
use i2psock::identity::Keys;

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
