//! Files that are cut, flipped, too long, or half written when the disk is full or the process is killed.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;

use super::{apart, keys, keys_of, Child, Folder};
use i2psock::core::store::{load, save, Format};
use i2psock::error::Status;

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
