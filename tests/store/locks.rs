//! A name is open once, in all processes.

use std::fs::{self};
use std::os::unix::fs::MetadataExt;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use super::{apart, chmod, chown, is_root, keys, mode, refused, store_at, Child, Folder, NOBODY};
use i2psock::error::Status;

/// The first line of a lock file.
fn holder(folder: &Folder) -> String {
    let text = fs::read_to_string(folder.path("keys/alice.lock")).unwrap();
    text.lines().next().unwrap().to_owned()
}

/// What another process sees of it: when the last session under the name ended.
#[test]
fn a_lock_file_says_when_the_last_session_ended() {
    let (folder, now) = (Folder::new(), Instant::now());
    let last_end = || folder.store().lock("alice").unwrap().last_end(now);
    assert_eq!(last_end(), None, "there was none");
    assert_eq!(last_end(), None, "there was none while it was locked before");
    folder.store().lock("alice").unwrap().set_used();
    let ended = last_end().unwrap();
    assert!(now.saturating_duration_since(ended) < Duration::from_secs(60));
    // One that made no session leaves it as it was, but for the resolution of the clock.
    let again = last_end().unwrap();
    let apart = again.saturating_duration_since(ended).max(ended.saturating_duration_since(again));
    assert!(apart < Duration::from_millis(2), "{apart:?}");
    // After a crash it may have lasted until now.
    let claim = folder.store().lock("alice").unwrap();
    claim.set_used();
    let held = fs::read(folder.path("keys/alice.lock")).unwrap();
    drop(claim);
    fs::write(folder.path("keys/alice.lock"), &held).unwrap();
    let claim = folder.store().lock("alice").unwrap();
    let later = now + Duration::from_secs(7);
    assert_eq!((claim.last_end(now), claim.last_end(later)), (Some(now), Some(later)));
    drop(claim);
    // The machine was started since then.
    fs::write(folder.path("keys/alice.lock"), "1\nheld 00000000-0000-0000-0000-000000000000\n").unwrap();
    assert_eq!(last_end(), None);
}

#[test]
fn one_at_a_time() {
    let folder = Folder::new();
    let claim = folder.store().lock("alice").unwrap();
    let error = folder.store().lock("alice").unwrap_err();
    assert_eq!(error.status, Status::State);
    assert_eq!(error.message, "destination \"alice\" is open already, by another controller of this process");
    assert_eq!(holder(&folder), std::process::id().to_string());
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
    assert_eq!(holder(&folder), std::process::id().to_string());
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
