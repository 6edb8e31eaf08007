//! Nothing is left behind: descriptors and threads are counted around everything that can happen. The counts are the
//! whole process's, so these tests have a program of their own and run one at a time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::time::{Duration, Instant};

use common::*;
use i2psock::core::drive::{Limit, Pending, Progress, Stage};
use i2psock::core::settings::Options;
use i2psock::error::{Operation, Result, Status};
use i2psock_bridge::{Action, Bridge, Config, Personality, Reply};
use std::sync::{Mutex, MutexGuard, PoisonError};

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    // A test that failed has said so; the next may still run.
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn threads(name: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|found| found.trim_end() == name).count()
}

/// The bridge's ends close a little after ours.
fn settles(what: &str, count: usize) {
    let end = Instant::now() + LONG;
    while descriptors() != count {
        let list: Vec<_> = std::fs::read_dir("/proc/self/fd")
            .unwrap()
            .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
            .collect();
        assert!(Instant::now() < end, "{what}: {} descriptors instead of {count}: {list:?}", descriptors());
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Descriptors once the bridge has finished with everything but `connections`.
fn descriptors_with(bridge: &Bridge, connections: usize) -> usize {
    wait_until("the bridge is quiet", || bridge.is_quiet(connections));
    descriptors()
}

/// The system may tell of a thread a moment after it was waited for.
fn keepers_settle(what: &str, count: usize) {
    wait_until(&format!("{what}: {count} keepers"), || threads("i2psock-keeper") == count);
}

/// Does something on a bridge of its own and counts before and after.
fn leaves_nothing(what: &str, config: Config, body: impl FnOnce(&Bridge)) {
    let bridge = Bridge::start(config).unwrap();
    let (before, keepers) = (descriptors(), threads("i2psock-keeper"));
    body(&bridge);
    settles(what, before);
    keepers_settle(what, keepers);
    bridge.stop();
}

#[test]
fn ordinary_life() {
    let _alone = alone();
    for personality in Personality::ALL {
        for keeper in ["1", "0"] {
            leaves_nothing(personality.name(), Config::with_personality(personality), |bridge| {
                let controller = controller_with(bridge, &[("keeper", keeper)]);
                let idle = {
                    let (a, b) = (open(&controller), open(&controller));
                    let before = descriptors_with(bridge, 2);
                    for seed in 0..5 {
                        let (x, y) = pair(&a, &b);
                        echo(&x, &y, seed, 100);
                        address_of(a.lookup("ME", LIMIT).unwrap()).unwrap();
                    }
                    settles("streams", before);
                    before
                };
                wait_until("they are closed", || descriptors() < idle);
                // A taken descriptor is the program's, and nobody else's.
                let (a, b) = (open(&controller), open(&controller));
                let (x, y) = pair(&a, &b);
                let fd = x.take_fd().unwrap();
                assert!(x.take_fd().is_err() && x.fd() == -1);
                drop((x, y, a, b));
                assert!(std::fs::read_link(format!("/proc/self/fd/{fd}")).is_ok());
                close(fd);
            });
        }
    }
}

#[allow(unsafe_code)]
fn close(fd: i32) {
    use std::os::fd::FromRawFd;
    // SAFETY: the descriptor was given away by the library and belongs to the test.
    drop(unsafe { std::os::fd::OwnedFd::from_raw_fd(fd) });
}

/// Goes on with an operation until it ends or comes no further, and then lets its time run out. `reply` is the one that
/// the bridge treats by `action`.
fn go_as_far_as_it_goes<T>(pending: Result<Pending<T>>, reply: Reply, action: &Action) {
    let Ok(mut pending) = pending else { return };
    let operation = pending.operation();
    let touched = match reply {
        Reply::Hello => true,
        Reply::DestGenerate => operation == Operation::Generate,
        Reply::SessionCreate => operation == Operation::Create,
        Reply::NamingLookup => operation == Operation::Lookup,
        Reply::StreamConnect => operation == Operation::Connect,
        Reply::StreamAccept => operation == Operation::Accept,
        _ => false,
    };
    let withheld = touched && *action == Action::Stall;
    // An accept waits for the connect that comes next, and that one for an accept, if there is none.
    let waits_for_peer = !touched
        && match operation {
            Operation::Accept => true,
            Operation::Connect => reply == Reply::StreamAccept,
            _ => false,
        };
    let last = match operation {
        _ if touched && reply == Reply::Hello => Stage::Greeting,
        Operation::Accept if !touched => Stage::Listening,
        _ => Stage::Working,
    };
    let (clock, end) = (Clock::default(), Instant::now() + LONG);
    while !((withheld || waits_for_peer) && pending.stage() == last) {
        assert!(Instant::now() < end, "{operation:?} stays at {:?}", pending.stage());
        match pending.step(clock.now()) {
            Ok(Progress::Block) => {}
            Ok(Progress::Done) | Err(_) => return,
        }
        wait_but_not_for_pauses(&pending, &clock);
    }
    let late = now() + LONG * 10;
    assert_eq!(failure(pending.step(late)).status, Status::Timeout, "{operation:?}");
}

#[test]
fn stalls_and_deadlines_at_every_step() {
    let _alone = alone();
    let replies = [
        Reply::Hello,
        Reply::DestGenerate,
        Reply::SessionCreate,
        Reply::NamingLookup,
        Reply::StreamConnect,
        Reply::StreamAccept,
        Reply::StreamAcceptPeer,
    ];
    for reply in replies {
        for (keeper, action) in [
            ("1", Action::Stall),
            ("0", Action::Stall),
            ("1", Action::Close),
            ("0", Action::OmitNewline),
            ("1", Action::replace_and_close("SESSION STATUS RESULT=I2P_ERROR")),
        ] {
            leaves_nothing(&format!("{reply} {action:?}"), Config::default(), |bridge| {
                let controller = controller_with(bridge, &[("keeper", keeper)]);
                let (a, b) = (open(&controller), open(&controller));
                let before = descriptors_with(bridge, 2);
                bridge.faults().every(reply, action.clone());
                drop(controller.check(Limit::After(Duration::from_millis(25))));
                go_as_far_as_it_goes(controller.open_dest("", 1, &Options::default(), LIMIT), reply, &action);
                go_as_far_as_it_goes(controller.generate(7, LIMIT), reply, &action);
                go_as_far_as_it_goes(controller.lookup("x.i2p", LIMIT), reply, &action);
                go_as_far_as_it_goes(a.lookup("x.i2p", LIMIT), reply, &action);
                go_as_far_as_it_goes(b.accept(LIMIT), reply, &action);
                go_as_far_as_it_goes(a.connect(base64(&b), &Options::default(), LIMIT), reply, &action);
                bridge.faults().clear();
                // What is left are accepts that were parked, and they end with their destination.
                b.shutdown().unwrap();
                wait_until("the bridge has closed its ends", || descriptors() <= before + 4);
            });
        }
    }
}

#[test]
fn cancelled_at_every_moment() {
    let _alone = alone();
    for keeper in ["1", "0"] {
        leaves_nothing("cancel", Config::default(), |bridge| {
            let controller = controller_with(bridge, &[("keeper", keeper)]);
            let (a, b) = (open(&controller), open(&controller));
            bridge.faults().drip(Some(Duration::from_micros(300)));
            for steps in 0..12 {
                fn cancel<T>(pending: Result<Pending<T>>, steps: usize) {
                    let Ok(mut pending) = pending else { return };
                    for _ in 0..steps {
                        drop(pending.wait(Some(Duration::from_micros(700))));
                    }
                }
                cancel(b.accept(LIMIT), steps);
                cancel(a.connect(base64(&b), &Options::default(), LIMIT), steps);
                cancel(a.lookup("ME", LIMIT), steps);
                cancel(controller.generate(7, LIMIT), steps);
                cancel(controller.open_dest("", 1, &Options::default(), LIMIT), steps);
            }
            bridge.faults().clear();
        });
    }
}

#[test]
fn sessions_that_are_lost_or_never_come_up() {
    let _alone = alone();
    for keeper in ["1", "0"] {
        leaves_nothing("loss", Config::default(), |bridge| {
            let controller = controller_with(bridge, &[("keeper", keeper)]);
            let with_controller = descriptors_with(bridge, 0);
            for round in 0..10 {
                let dest = open(&controller);
                drop(listening(&dest));
                let accept = listening(&dest);
                let lookup = dest.lookup("ME", LIMIT);
                bridge.faults().kill_all_sessions(round % 2 == 0);
                wait_until("the loss is seen", || {
                    dest.destination().service(now());
                    dest.destination().state().0 == i2psock::core::destination::State::Dead
                });
                drop((dest, accept, lookup));
            }
            settles("lost sessions", with_controller);
            // Keys nobody can read, and the bridge's own goodbye.
            for action in [
                Action::replace("SESSION STATUS RESULT=OK DESTINATION=AAAA\n"),
                Action::replace("SESSION STATUS RESULT=OK\n"),
                Action::Close,
            ] {
                bridge.faults().once(Reply::SessionCreate, action);
                assert!(try_open(&controller, LIMIT).is_err());
                bridge.faults().clear_rules();
            }
        });
    }
}

#[test]
fn a_hundred_streams_and_a_bridge_that_stops() {
    let _alone = alone();
    let before = descriptors();
    for keeper in ["1", "0"] {
        let bridge = Bridge::start(Config::default()).unwrap();
        let controller = controller_with(&bridge, &[("keeper", keeper)]);
        let (a, b) = (open(&controller), open(&controller));
        let streams: Vec<_> = (0..50).map(|_| pair(&a, &b)).collect();
        bridge.stop();
        for (x, y) in &streams {
            assert_eq!((receive(x, 1), receive(y, 1)), (vec![], vec![]));
        }
        let error = failure(try_open(&controller, LIMIT));
        assert_eq!(error.status, Status::Io);
        drop((streams, a, b, controller));
        settles("a bridge that stopped", before);
    }
}

#[test]
fn a_controller_that_cannot_be_opened() {
    let _alone = alone();
    let before = descriptors();
    for address in ["127.0.0.1:1", "localhost:1", "/nonexistent", "[::1]:1"] {
        for keeper in ["1", "0"] {
            assert!(try_controller(address, &[("keeper", keeper)]).is_err());
        }
    }
    assert_eq!(descriptors(), before);
    let script = Script::start(|_, mut talk| talk.linger());
    let with_script = descriptors();
    assert!(try_controller(&script.address(), &[("sam_timeout", "30")]).is_err());
    settles("no answer", with_script);
}

/// Nothing but drops, in any order: the last handle cleans up, also the thread.
#[test]
fn handles_that_are_only_dropped() {
    let _alone = alone();
    let bridge = Bridge::start(Config::default()).unwrap();
    let (before, keepers) = (descriptors(), threads("i2psock-keeper"));
    for order in 0..3 {
        let mut opts = options(&[("sam_timeout", "5000")]);
        opts.set("sam", &bridge.addr().to_string()).unwrap();
        let controller = i2psock::core::controller::Controller::open(&opts).unwrap();
        let mut pending = controller.open_dest("", 1, &Options::default(), LIMIT).unwrap();
        pending.complete().unwrap();
        match order {
            0 => {
                drop(controller);
                drop(pending);
            }
            1 => {
                let dest = dest_of(pending).unwrap();
                let accept = listening(&dest);
                drop(controller);
                drop(dest);
                drop(accept);
            }
            _ => {
                drop(pending);
                drop(controller);
            }
        }
        settles(&format!("order {order}"), before);
        keepers_settle(&format!("order {order}"), keepers);
    }
}
