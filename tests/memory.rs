//! Memory seen from outside: no private key in freed blocks, and no bridge makes the library pile up more than a bound.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(unsafe_code)]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use common::{destination, private_keys, Rng};
use i2psock::core::settings::{ControllerOptions, TunnelOptions};
use i2psock::error::Error;
use i2psock::identity::Keys;
use i2psock::protocol::control::Control;
use i2psock::protocol::credentials::Credentials;
use i2psock::protocol::handshake::{Handshake, Phase};
use i2psock::protocol::line::{self, Line, MAX_LINE};
use i2psock::protocol::ports::Ports;
use i2psock::protocol::request::{NewIdentity, Outcome, Request};
use i2psock::protocol::version::{Version, VersionRange};
use i2psock::secret::{Secret, SecretText};

const RANGE: VersionRange = VersionRange { min: Version::V3_1, max: Version::V3_3 };

/// Private bytes are all 0xd7: this is the middle of their base64.
const NEEDLE: &[u8] = b"19fX19fX19fX19fX19fX19fX";
/// And this is what they decode to.
const RAW: [u8; 18] = [0xd7; 18];

/// Counts memory in use, and looks into every block that is given back.
struct Watching;

static USED: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static LOOKING: AtomicBool = AtomicBool::new(false);
static FOUND: AtomicUsize = AtomicUsize::new(0);

fn contains_secret(block: &[u8]) -> bool {
    block.windows(NEEDLE.len()).any(|part| part == NEEDLE) || block.windows(RAW.len()).any(|part| part == RAW)
}

impl Watching {
    /// # Safety
    /// `block` must be valid for `len` bytes. What was never written reads as anything; the tests only look for bytes
    /// they wrote.
    unsafe fn look(block: *const u8, len: usize) {
        if LOOKING.load(Ordering::Relaxed) {
            // SAFETY: the block is still allocated.
            let bytes = unsafe { std::slice::from_raw_parts(block, len) };
            if contains_secret(bytes) {
                FOUND.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

// SAFETY: everything is handed on to the system's allocator.
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let used = USED.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(used, Ordering::Relaxed);
        // Zeroed, so that old content is not taken for new.
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        USED.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe {
            Watching::look(block, layout.size());
            System.dealloc(block, layout);
        }
    }
    // `realloc` is the default: allocate, copy, deallocate, so every move is seen.
}

#[global_allocator]
static ALLOCATOR: Watching = Watching;

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many freed blocks held private bytes while `body` ran.
fn leaks(body: impl FnOnce()) -> usize {
    FOUND.store(0, Ordering::SeqCst);
    LOOKING.store(true, Ordering::SeqCst);
    body();
    LOOKING.store(false, Ordering::SeqCst);
    FOUND.load(Ordering::SeqCst)
}

/// The most memory that was in use at once while `body` ran, beyond what was before.
fn peak(body: impl FnOnce()) -> usize {
    let before = USED.load(Ordering::SeqCst);
    PEAK.store(before, Ordering::SeqCst);
    body();
    PEAK.load(Ordering::SeqCst).saturating_sub(before)
}

const PRIVATE: u8 = 0xd7;

fn create(identity: NewIdentity) -> Request {
    Request::Create {
        style: "STREAM",
        id: "x".into(),
        identity,
        ports: Ports::default(),
        delivery: Default::default(),
        options: Vec::new(),
    }
}

/// The keys a bridge sends, made before anybody looks.
fn line_with_keys(words: &str) -> Vec<u8> {
    format!("{words}{}\n", private_keys(1, PRIVATE)).into_bytes()
}

fn receive(request: Request, line: &[u8], piece: usize) {
    let mut handshake = Handshake::new(request, RANGE, None).unwrap();
    handshake.wrote(handshake.output().len());
    handshake.input(b"HELLO REPLY RESULT=OK VERSION=3.3\n").unwrap();
    handshake.wrote(handshake.output().len());
    for part in line.chunks(piece) {
        handshake.input(part).unwrap();
    }
    assert_eq!(handshake.phase(), Phase::Done);
    let (Some(Outcome::Created(text)) | Some(Outcome::Keys(text))) = handshake.take_outcome() else { panic!() };
    let keys = Keys::from_bridge_text(std::str::from_utf8(text.as_bytes()).unwrap()).unwrap();
    drop(keys.duplicate());
}

#[test]
fn the_watching_works() {
    let _alone = alone();
    let text = line_with_keys("");
    assert_eq!(leaks(|| drop(text.clone())), 1);
    assert!(leaks(|| drop(Keys::from_text(std::str::from_utf8(&text).unwrap().trim()).unwrap())) == 0);
    assert!(peak(|| drop(vec![1u8; 1 << 20])) >= 1 << 20);
}

#[test]
fn received_keys_are_wiped_when_they_come_in_one_piece() {
    let _alone = alone();
    let session = line_with_keys("SESSION STATUS RESULT=OK DESTINATION=");
    let generated = line_with_keys("DEST REPLY PUB=x PRIV=");
    assert_eq!(leaks(|| receive(create(NewIdentity::Transient(7)), &session, 100_000)), 0);
    assert_eq!(leaks(|| receive(Request::Generate { signature_type: 7 }, &generated, 100_000)), 0);
}

#[test]
fn received_keys_are_wiped_however_they_arrive() {
    let _alone = alone();
    let session = line_with_keys("SESSION STATUS RESULT=OK DESTINATION=");
    let generated = line_with_keys("DEST REPLY PUB=x PRIV=");
    for piece in [1, 7, 100, 600, 800] {
        let found = leaks(|| {
            receive(create(NewIdentity::Transient(7)), &session, piece);
            receive(Request::Generate { signature_type: 7 }, &generated, piece);
        });
        assert_eq!(found, 0, "freed blocks with private bytes, pieces of {piece}");
    }
}

#[test]
fn sent_keys_are_wiped_whatever_happens_meanwhile() {
    let _alone = alone();
    let keys = Keys::from_text(&private_keys(1, PRIVATE)).unwrap();
    for (name, ping) in [("nothing", ""), ("a PING", "PING x\n"), ("a long PING", "PINGPONG\n")] {
        let long = format!("PING {}\n", "y".repeat(6000));
        let ping = if ping == "PINGPONG\n" { &long } else { ping };
        let found = leaks(|| {
            let request = create(NewIdentity::Keys(keys.duplicate()));
            let mut handshake = Handshake::new(request, RANGE, None).unwrap();
            handshake.wrote(handshake.output().len());
            handshake.input(b"HELLO REPLY RESULT=OK VERSION=3.3\n").unwrap();
            // The command is not written yet, or only half of it.
            handshake.wrote(20);
            handshake.input(ping.as_bytes()).unwrap();
            handshake.wrote(handshake.output().len());
        });
        assert_eq!(found, 0, "{name}");
    }
    let found = leaks(|| {
        // Given up before anything was written.
        drop(Handshake::new(create(NewIdentity::Keys(keys.duplicate())), RANGE, None).unwrap());
    });
    assert_eq!(found, 0);
}

#[test]
fn passwords_are_wiped() {
    let _alone = alone();
    let password = String::from_utf8(NEEDLE.to_vec()).unwrap();
    let found = leaks(|| {
        let credentials = Credentials::new("user", &password).unwrap();
        let mut handshake = Handshake::new(Request::Check, RANGE, Some(&credentials)).unwrap();
        handshake.wrote(handshake.output().len());
        handshake.restart(RANGE, Some(&credentials)).unwrap();
        handshake.wrote(10);
        handshake.restart(RANGE, Some(&credentials)).unwrap();
        drop(handshake);
        let mut options = common::options(&[("user", "user"), ("password", &password)]);
        drop(ControllerOptions::parse(&options).unwrap());
        options.set("password", "another").unwrap();
        options.set("password", &password).unwrap();
    });
    assert_eq!(found, 0);
}

/// Routers take keys as options, too.
#[test]
fn options_of_a_destination_are_wiped() {
    let _alone = alone();
    let keys = Keys::from_text(&private_keys(5, PRIVATE)).unwrap();
    let secret = String::from_utf8(NEEDLE.to_vec()).unwrap();
    let found = leaks(|| {
        let mut options = common::options(&[("i2cp.leaseSetPrivKey", &secret)]);
        options.set_keys(Some(&keys));
        drop(TunnelOptions::parse(&options).unwrap());
    });
    assert_eq!(found, 0);
}

/// What a bridge may say to a command with secrets.
fn echoes(secret: &str, keys: &str) -> Vec<String> {
    [
        "SESSION STATUS RESULT=I2P_ERROR MESSAGE=\"bad value %s, or %k\"\n",
        "SESSION STATUS RESULT=I2P_ERROR MESSAGE=bad value %s\n",
        "SESSION STATUS RESULT=I2P_ERROR i2cp.leaseSetPrivKey=%s x.y=%s %k\n",
        "SESSION STATUS RESULT=%s\n",
        "SESSION STATUS RESULT=%s MESSAGE=\"%k",
        "SESSION %s %k=%s\n",
        "%s %k\n",
        "%s=%k\n",
        "SESSION STATUS RESULT=I2P_ERROR RESULT=%s\n",
        "PING %s %k\nSESSION STATUS RESULT=I2P_ERROR\n",
        "SESSION STATUS RESULT=I2P_ERROR MESSAGE=\"%s",
        "SESSION STATUS RESULT=I2P_ERROR MESSAGE=%s",
    ]
    .map(|line| line.replace("%s", secret).replace("%k", keys))
    .to_vec()
}

/// Routers take keys as options, too: nothing of them is left, nor in messages and log lines, which are given back here.
#[test]
fn secrets_among_the_options_are_wiped_whatever_a_bridge_says() {
    let _alone = alone();
    let keys = Keys::from_text(&private_keys(5, PRIVATE)).unwrap();
    let secret = String::from_utf8(NEEDLE.to_vec()).unwrap();
    let request = || {
        let value = SecretText::from(secret.as_str());
        let options = vec![("i2cp.leaseSetPrivKey".to_owned(), value.clone()), ("a.PASSWORDS".to_owned(), value)];
        let Request::Create { style, id, ports, delivery, .. } = create(NewIdentity::Transient(7)) else { panic!() };
        Request::Create { style, id, identity: NewIdentity::Keys(keys.duplicate()), ports, delivery, options }
    };
    let session = format!("SESSION STATUS RESULT=OK DESTINATION={}\n", keys.base64());
    for echo in echoes(&secret, keys.base64()) {
        for piece in [1, 50, 100_000] {
            let found = leaks(|| {
                let mut handshake = Handshake::new(request(), RANGE, None).unwrap();
                handshake.wrote(handshake.output().len());
                handshake.input(b"HELLO REPLY RESULT=OK VERSION=3.3\n").unwrap();
                handshake.wrote(handshake.output().len());
                let mut result = Ok(0);
                for part in echo.as_bytes().chunks(piece) {
                    result = result.and_then(|_| handshake.input(part));
                }
                let error = result.err().unwrap_or_else(|| handshake.eof());
                assert!(!contains_secret(format!("{error:?} {:?}", handshake.trace).as_bytes()), "{echo}: {error:?}");
                drop(handshake.trace.take());
            });
            assert_eq!(found, 0, "{echo:?} in pieces of {piece}");
        }
        let found = leaks(|| {
            // On the session's control socket, once there is one.
            let mut handshake = Handshake::new(request(), RANGE, None).unwrap();
            handshake.wrote(handshake.output().len());
            handshake.input(b"HELLO REPLY RESULT=OK VERSION=3.3\n").unwrap();
            handshake.wrote(handshake.output().len());
            handshake.input(session.as_bytes()).unwrap();
            let mut control = Control::with_output(handshake.take_output()).hiding(handshake.take_hidden());
            drop(handshake);
            control.trace.want(true);
            control.lookup(1, "a.i2p").unwrap();
            let mut events = Vec::new();
            control.input(echo.as_bytes(), &mut events).unwrap();
            control.eof(&mut events);
            assert!(!contains_secret(format!("{events:?} {:?}", control.trace).as_bytes()), "{echo}: {events:?}");
        });
        assert_eq!(found, 0, "{echo:?} on a control socket");
    }
}

/// A program that takes private keys for something else gets an error without them.
#[test]
fn private_keys_by_mistake_are_wiped() {
    let _alone = alone();
    let text = private_keys(5, PRIVATE);
    let (words, endpoint) = (format!("x {text}"), format!("{text}:0"));
    let found = leaks(|| {
        for error in [
            Keys::from_file(Secret::from_slice(words.as_bytes())).err(),
            common::options(&[]).set("sam", &endpoint).err(),
            common::options(&[]).set(&text, "1").err(),
            common::options(&[]).set("in_depth", &text).err(),
            Some(Error::invalid(text.as_str())),
        ] {
            let error = error.unwrap();
            assert!(!contains_secret(error.message.as_bytes()), "{}", error.message);
        }
    });
    assert_eq!(found, 0);
}

#[test]
fn lines_that_hold_keys_are_wiped_when_they_are_wrong() {
    let _alone = alone();
    for words in [
        "SESSION STATUS RESULT=I2P_ERROR DESTINATION=",
        "SESSION STATUS RESULT=OK MESSAGE=\"open DESTINATION=",
        "SESSION STATUS RESULT=OK RESULT=OK DESTINATION=",
        "SESSION STATUS DESTINATION=",
        "SESSION STATUS RESULT=OK DESTINATION=\"",
        "DEST REPLY PRIV=",
    ] {
        let line = line_with_keys(words);
        let found = leaks(|| {
            if let Ok(Line::Reply(mut fields)) = line::parse(line.strip_suffix(b"\n").unwrap()) {
                drop(fields.redacted());
                drop(fields.take_private("DESTINATION"));
            }
            let mut handshake = Handshake::new(create(NewIdentity::Transient(7)), RANGE, None).unwrap();
            handshake.wrote(handshake.output().len());
            handshake.input(b"HELLO REPLY RESULT=OK VERSION=3.3\n").unwrap();
            handshake.wrote(handshake.output().len());
            assert!(handshake.input(&line).is_err());
        });
        assert_eq!(found, 0, "{words}");
    }
}

#[test]
fn memory_is_bounded_whatever_a_bridge_says() {
    let _alone = alone();
    const BOUND: usize = 24 << 20;
    let mut rng = Rng::new(1);
    let noise: Vec<u8> = (0..65_000).map(|_| rng.next() as u8).collect();
    let floods: Vec<(&str, Vec<u8>)> = vec![
        ("line feeds", b"\n".repeat(100_000)),
        ("PONGs", b"PONG\n".repeat(20_000)),
        ("replies", b"STREAM STATUS RESULT=OK\n".repeat(5000)),
        ("foreign replies", b"X Y Z=1\n".repeat(10_000)),
        ("noise", noise),
        ("bare keys", [&b"A B"[..], &b" k".repeat(32_000), b"\n"].concat()),
        ("pairs", [&b"A B"[..], &b" k=v".repeat(2000), b"\n"].concat()),
        ("no end", vec![b'x'; MAX_LINE]),
        ("announcements", b"SESSION STATUS RESULT=I2P_ERROR\n".repeat(3000)),
        ("names", format!("NAMING REPLY RESULT=OK NAME=x VALUE={}\n", destination(1)).repeat(100).into_bytes()),
    ];
    for (name, flood) in &floods {
        let used = peak(|| {
            let mut control = Control::default();
            control.trace.want(true);
            control.lookup(1, "a.i2p").unwrap();
            for _ in 0..3 {
                let mut events = Vec::new();
                for piece in flood.chunks(4096) {
                    if control.input(piece, &mut events).is_err() {
                        break;
                    }
                    control.wrote(control.output().len());
                }
                drop(control.trace.take());
            }
        });
        assert!(used < BOUND, "{name}: {used} bytes on a control socket");
        let used = peak(|| {
            for turns in 0..3 {
                let mut handshake = Handshake::new(Request::Accept { id: "x".into() }, RANGE, None).unwrap();
                for turn in ["HELLO REPLY RESULT=OK VERSION=3.3\n", "STREAM STATUS RESULT=OK\n"].iter().take(turns) {
                    handshake.wrote(handshake.output().len());
                    handshake.input(turn.as_bytes()).unwrap();
                }
                handshake.wrote(handshake.output().len());
                for piece in flood.repeat(2).chunks(4096) {
                    if handshake.input(piece).is_err() {
                        break;
                    }
                }
            }
        });
        assert!(used < BOUND, "{name}: {used} bytes in a handshake");
    }
}
