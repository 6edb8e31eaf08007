//! Destinations with names: their keys stay, handles share a session, and names are taken in turn.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::common::*;
use i2psock::core::destination::DestHandle;
use i2psock::core::drive::{Limit, Progress, Stage};
use i2psock::core::settings::Options;
use i2psock::error::{Operation, Result, Status};
use i2psock::identity::{base64_encode, Keys};
use i2psock::sys::poll_one;
use i2psock_bridge::{Action, Bridge, Config, Reply};

/// A folder of its own, removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("i2psock-named-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
        Folder(path)
    }

    fn controller(&self, bridge: &Bridge) -> Control {
        controller_with(bridge, &[("key_store", self.0.to_str().unwrap())])
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

fn try_named(controller: &Control, name: &str, style: i32, options: &Options) -> Result<DestHandle> {
    dest_of(controller.open_dest(name, style, options, LIMIT)?)
}

fn named(controller: &Control, name: &str) -> DestHandle {
    try_named(controller, name, 1, &Options::default()).unwrap()
}

#[test]
fn a_name_keeps_its_address() {
    let (folder, bridge) = (Folder::new(), Bridge::start(Config::default()).unwrap());
    let (alice, bob) = {
        let controller = folder.controller(&bridge);
        let (alice, bob) = (named(&controller, "alice"), named(&controller, "bob"));
        assert_eq!((&*alice.destination().spec().name, alice.destination().spec().recover), ("alice", true));
        (base64(&alice).to_owned(), base64(&bob).to_owned())
    };
    assert_ne!(alice, bob);
    // With another style, after the first has ended, and through another bridge.
    for (style, bridge) in
        [(1, Bridge::start(Config::default()).unwrap()), (2, Bridge::start(Config::default()).unwrap())]
    {
        let controller = folder.controller(&bridge);
        let wanted = options(&[("in_depth", "2"), ("out_depth", "5")]);
        assert_eq!(base64(&try_named(&controller, "alice", style, &wanted).unwrap()), alice);
        let created = bridge.texts().into_iter().find(|line| line.contains("SESSION CREATE")).unwrap();
        assert!(created.contains(" inbound.length=2 ") && created.contains(" outbound.length=5 "), "{created}");
    }
}

#[test]
fn names_need_a_folder() {
    let bridge = Bridge::start(Config::default()).unwrap();
    let controller = controller(&bridge);
    let error = failure(try_named(&controller, "alice", 1, &Options::default()));
    assert_eq!(error.status, Status::Invalid);
    assert!(error.message.contains("key_store"), "{error:?}");
}

#[test]
fn handles_share_a_session() {
    let (folder, bridge) = (Folder::new(), Bridge::start(Config::default()).unwrap());
    let controller = folder.controller(&bridge);
    let wanted = options(&[("in_depth", "2"), ("i2cp.gzip", "false")]);
    let first = try_named(&controller, "alice", 1, &wanted).unwrap();
    let second = named(&controller, "alice");
    let third = try_named(&controller, "alice", 1, &options(&[("in_depth", "2")])).unwrap();
    assert_eq!(bridge.sessions().len(), 1);
    for (style, entries) in
        [(2, vec![]), (1, vec![("in_depth", "3")]), (1, vec![("out_depth", "2")]), (1, vec![("i2cp.gzip", "true")])]
    {
        let error = failure(try_named(&controller, "alice", style, &options(&entries)));
        assert_eq!(error.status, Status::State, "{error:?}");
        assert!(error.message.contains("alice"), "{error:?}");
    }
    let (x, y) = pair(&open(&controller), &second);
    drop(x);
    drop(y);
    drop(first);
    drop(third);
    let client = open(&controller);
    let (x, y) = pair(&client, &second);
    echo(&x, &y, 1, 100);
    assert_eq!(bridge.sessions().len(), 2);
    // The last handle ends everything, streams included.
    drop(second);
    assert!(bridge.wait_for(LONG, |bridge| bridge.sessions().len() == 1));
    assert_eq!(receive(&y, 1), b"");
    assert_eq!(receive(&x, 1), b"");
    named(&controller, "alice");
}

#[test]
fn one_controller_at_a_time() {
    let (folder, bridge) = (Folder::new(), Bridge::start(Config::default()).unwrap());
    let (one, other) = (folder.controller(&bridge), folder.controller(&bridge));
    let alice = named(&one, "alice");
    let error = failure(try_named(&other, "alice", 1, &Options::default()));
    assert_eq!(error.status, Status::State, "{error:?}");
    let bob = named(&other, "bob");
    drop(alice);
    let alice = named(&other, "alice");
    // Shut down it is free as well, though the handle is still there.
    alice.shutdown().unwrap();
    drop(named(&one, "alice"));
    other.close();
    drop(named(&one, "bob"));
    drop((alice, bob));
}

#[test]
fn fifty_threads_and_one_name() {
    let (folder, bridge) = (Folder::new(), Bridge::start(Config::default()).unwrap());
    let controller = folder.controller(&bridge);
    let address = base64(&named(&controller, "alice")).to_owned();
    std::thread::scope(|scope| {
        for thread in 0..50 {
            let (controller, address) = (&controller, &address);
            scope.spawn(move || {
                for round in 0..10 {
                    let dest = named(controller, "alice");
                    assert_eq!(base64(&dest), address);
                    if (thread + round) % 7 == 0 {
                        std::thread::yield_now();
                    }
                }
            });
        }
    });
    assert!(bridge.wait_for(LONG, |bridge| bridge.connections_open() == 0));
    drop(named(&controller, "alice"));
}

#[test]
fn whoever_waits_for_a_name_gets_it_when_the_first_gives_up() {
    let (folder, bridge) = (Folder::new(), Bridge::start(Config::default()).unwrap());
    let controller = folder.controller(&bridge);
    bridge.faults().once(Reply::SessionCreate, Action::Stall);
    let none = Options::default();
    let mut first = controller.open_dest("alice", 1, &none, LIMIT).unwrap();
    until_stage(&mut first, i2psock::core::drive::Stage::Working);
    let mut second = controller.open_dest("alice", 1, &none, LIMIT).unwrap();
    let mut third = controller.open_dest("alice", 1, &none, Limit::After(Duration::from_millis(20))).unwrap();
    assert_eq!(failure(third.complete()).status, Status::Timeout);
    drop(first);
    second.complete().unwrap();
    drop(dest_of(second).unwrap());
    // A first one that failed is in nobody's way, though it is not freed yet.
    bridge.faults().once(Reply::SessionCreate, Action::replace_and_close("SESSION STATUS RESULT=I2P_ERROR\n"));
    let mut first = controller.open_dest("alice", 1, &none, LIMIT).unwrap();
    let second = controller.open_dest("alice", 1, &none, LIMIT).unwrap();
    assert_eq!(failure(first.complete()).tag, "I2P_ERROR");
    drop(dest_of(second).unwrap());
    // And of two that are opened, the second shares what the first gets.
    let mut first = controller.open_dest("alice", 1, &none, LIMIT).unwrap();
    let second = controller.open_dest("alice", 1, &none, LIMIT).unwrap();
    first.complete().unwrap();
    let (second, first) = (dest_of(second).unwrap(), dest_of(first).unwrap());
    assert_eq!(first.destination().session().id(), second.destination().session().id());
}

#[test]
fn closing_the_controller_ends_the_wait_for_a_name() {
    let (folder, bridge) = (Folder::new(), Bridge::start(Config::default()).unwrap());
    let controller = folder.controller(&bridge);
    bridge.faults().every(Reply::SessionCreate, Action::Stall);
    let _first = controller.open_dest("alice", 1, &Options::default(), Limit::Never).unwrap();
    let mut second = controller.open_dest("alice", 1, &Options::default(), Limit::Never).unwrap();
    let waiting = std::thread::spawn(move || failure(second.complete()));
    controller.close();
    assert_eq!(waiting.join().unwrap().status, Status::Closed);
}

/// Nobody has looked at it since: opening the name again is opening it anew.
#[test]
fn a_session_that_was_lost_unseen_is_not_shared() {
    let (folder, bridge) = (Folder::new(), Bridge::start(Config::default()).unwrap());
    let store = folder.0.to_str().unwrap();
    let controller = controller_with(&bridge, &[("key_store", store), ("keeper", "0")]);
    let wanted = options(&[("recover", "0")]);
    let lost = try_named(&controller, "alice", 1, &wanted).unwrap();
    bridge.faults().kill_all_sessions(false);
    wait_until("the end has arrived", || {
        i2psock::sys::poll_one(lost.destination().fd(), i2psock::sys::IN, 0).unwrap() != 0
    });
    wait_until("it is lost", || {
        lost.destination().session().drive(now());
        lost.destination().session().scope().cause().is_some()
    });
    let again = try_named(&controller, "alice", 1, &wanted).unwrap();
    let client = open(&controller);
    let (x, y) = pair(&client, &again);
    echo(&x, &y, 1, 100);
    assert_eq!(failure(lost.connect(base64(&client), &Options::default(), LIMIT)).status, Status::Closed);
}

#[test]
fn keys_can_be_brought_along() {
    let (folder, bridge) = (Folder::new(), Bridge::start(Config::default()).unwrap());
    let controller = folder.controller(&bridge);
    let mut wanted = Options::default();
    let keys = open(&controller).destination().keys().duplicate();
    wanted.set_keys(Some(&keys));
    assert_eq!(base64(&try_named(&controller, "carol", 1, &wanted).unwrap()), keys.address().base64());
    let carol = named(&controller, "carol");
    assert_eq!(base64(&carol), keys.address().base64());
    let others = open(&controller).destination().keys().duplicate();
    wanted.set_keys(Some(&others));
    assert_eq!(failure(try_named(&controller, "carol", 1, &wanted)).status, Status::State);
    drop(carol);
    assert_eq!(failure(try_named(&controller, "carol", 1, &wanted)).status, Status::State);
    wanted.set_keys(None::<&Keys>);
    drop(try_named(&controller, "carol", 1, &wanted).unwrap());
}

/// Keys of a type that was not asked for would lock the name out for the type that is.
#[test]
fn keys_of_another_type_are_not_kept() {
    let folder = Folder::new();
    let asked = AtomicUsize::new(0);
    let script = Script::start(move |_, mut talk| {
        if !talk.greet().starts_with("SESSION CREATE ") {
            return;
        }
        match asked.fetch_add(1, Ordering::SeqCst) {
            // DSA, by a NULL certificate.
            0 => {
                let keys = base64_encode(&[&[9; 384][..], &[0; 3], &[1; 256 + 20]].concat());
                talk.say(format!("SESSION STATUS RESULT=OK DESTINATION={keys}\n"));
            }
            _ => talk.session(1),
        }
        talk.linger();
    });
    let controller = try_controller(&script.address(), &[("key_store", folder.0.to_str().unwrap())]).unwrap();
    let wanted = options(&[("signature_type", "7")]);
    let error = failure(try_named(&controller, "alice", 1, &wanted));
    assert_eq!((error.status, error.operation), (Status::Network, Operation::Create), "{error:?}");
    let dest = try_named(&controller, "alice", 1, &wanted).unwrap();
    assert_eq!(base64(&dest), destination(1));
}

/// Keys of types that routers crash on may be in a folder from elsewhere.
#[test]
fn stored_keys_that_are_not_for_routers_stay_here() {
    let (folder, bridge) = (Folder::new(), Bridge::start(Config::default()).unwrap());
    let controller = folder.controller(&bridge);
    drop(named(&controller, "alice"));
    let file = folder.0.join("alice.dat");
    // The byte of the certificate that says Ed25519ph, which is as long.
    let mut keys = std::fs::read(&file).unwrap();
    keys[388] = 8;
    std::fs::write(&file, keys).unwrap();
    drop(std::fs::remove_file(folder.0.join("alice.sum")));
    let connections = bridge.connections_total();
    let error = failure(try_named(&controller, "alice", 1, &Options::default()));
    assert_eq!((error.status, &error.message[..16]), (Status::Invalid, "signature type 8"), "{error:?}");
    assert_eq!(bridge.connections_total(), connections);
}

/// As after a crash of the program: the router finds out only later. It is asked again and again, with growing pauses, up
/// to the limit of the caller.
#[test]
fn keys_that_are_in_use_are_waited_for() {
    let seconds = Duration::from_secs;
    for by_name in [true, false] {
        for (times, limit, opens) in [(20, Limit::Never, true), (1000, Limit::After(seconds(60)), false)] {
            let (folder, bridge) = (Folder::new(), Bridge::start(Config::default()).unwrap());
            let controller = folder.controller(&bridge);
            let alice = named(&controller, "alice");
            let mut options = Options::default();
            options.set_keys((!by_name).then(|| alice.destination().keys()));
            drop(alice);
            bridge.clear_lines();
            bridge.faults().duplicated_times(times);
            let name = if by_name { "alice" } else { "" };
            let mut opening = controller.open_dest(name, 1, &options, limit).unwrap();
            // It stands still but for the pauses.
            let start = now();
            let mut time = start;
            let result = loop {
                match opening.step(time) {
                    Ok(Progress::Block) if opening.fd() < 0 => {
                        assert_eq!(opening.stage(), Stage::LettingGo);
                        time += Duration::from_millis(opening.timeout_ms(time).try_into().unwrap());
                    }
                    Ok(Progress::Block) => {
                        assert_ne!(poll_one(opening.fd(), opening.events(), LONG.as_millis() as i32).unwrap(), 0);
                    }
                    other => break other,
                }
            };
            let asked = bridge.texts().iter().filter(|line| line.starts_with("SESSION CREATE")).count();
            let passed = (time - start).as_millis();
            if opens {
                assert_eq!(result.unwrap(), Progress::Done);
                assert_eq!((asked, passed / 100), (21, 357), "0.25, 0.5, 1, and 17 times 2 s");
            } else {
                let error = failure(result);
                assert_eq!((error.status, error.tag.as_str()), (Status::Network, "DUPLICATED_DEST"));
                assert!((30..=35).contains(&asked), "asked {asked} times");
                assert!((59_000..=60_100).contains(&passed), "{passed} ms");
            }
        }
    }
}

#[test]
fn a_router_that_has_not_let_go_yet() {
    let (folder, bridge) = (Folder::new(), Bridge::start(Config::default()).unwrap());
    let controller = folder.controller(&bridge);
    drop(named(&controller, "alice"));
    let refusal = "SESSION STATUS RESULT=DUPLICATED_DEST\n";
    bridge.faults().once(Reply::SessionCreate, Action::replace_and_close(refusal));
    drop(named(&controller, "alice"));
    // Without a name nobody can have had the keys but somebody else.
    bridge.faults().once(Reply::SessionCreate, Action::replace_and_close(refusal));
    assert_eq!(failure(try_open(&controller, LIMIT)).tag, "DUPLICATED_DEST");
}
