//! PINGs are answered, by the keeper or by the calls of a program, and nothing else makes a descriptor readable.

use std::sync::{mpsc, Arc, Mutex};
use std::time::{Duration, Instant};

use super::common::*;
use super::{readable, serve_until, start};
use i2psock::core::destination::State;
use i2psock::core::drive::{Progress, Stage};
use i2psock::core::settings::Options;
use i2psock::sys::{self, PollFd};
use i2psock_bridge::{Action, Bridge, Config, Faults, Reply, Split};

fn all_answered(faults: &Faults, at_least: u64) -> bool {
    faults.pings_sent() >= at_least && faults.pongs().len() as u64 >= faults.pings_sent()
}

#[test]
fn ping_storms_are_answered_exactly() {
    for keeper in ["1", "0"] {
        let bridge = start();
        let controller = controller_with(&bridge, &[("keeper", keeper)]);
        let dest = open(&controller);
        assert_eq!(dest.destination().service(now()), Some(State::Ready));
        for split in [Split::Whole, Split::Every { bytes: 1, gap: Duration::ZERO }] {
            let faults = bridge.faults();
            faults.split(split);
            let sent = faults.pings_sent();
            faults.ping_every(Some(Duration::from_millis(1)));
            serve_until(&dest, "200 PINGs", || faults.pings_sent() >= sent + 200);
            faults.ping_every(None);
            serve_until(&dest, "all answers", || all_answered(&faults, sent + 200));
            assert!(faults.pongs().iter().all(|pong| pong.matched), "{:?}", faults.pongs());
        }
        // A whole storm in one segment, with odd texts.
        let storm = "PING  two  spaces\nPING\n\nPING x=\"y\nnonsense\nPONG\n".repeat(50);
        bridge.clear_lines();
        assert_eq!(bridge.faults().unsolicited(&storm), 1);
        // A last numbered PING may have been under way when they were switched off.
        let numbered = |line: &String| line.strip_prefix("PONG ").is_some_and(|rest| rest.parse::<u64>().is_ok());
        let answers = || bridge.texts().into_iter().filter(|line| !numbered(line)).collect::<Vec<_>>();
        serve_until(&dest, "150 answers", || answers().len() >= 150);
        let expected = ["PONG  two  spaces", "PONG", "PONG x=\"y"].repeat(50);
        assert_eq!(answers(), expected, "keeper {keeper}");
        assert_eq!(dest.destination().state().0, State::Ready);
        // The session has not suffered.
        assert_eq!(address_of(dest.lookup("ME", LIMIT).unwrap()).unwrap(), base64(&dest));
    }
}

#[test]
fn java_drops_who_does_not_answer_and_nobody_is_dropped() {
    // It drops whoever is silent twice as long.
    let idle_ping = Some(Duration::from_secs(1));
    let bridge = Bridge::start(Config { idle_ping, ..Config::default() }).unwrap();
    std::thread::scope(|scope| {
        for keeper in ["1", "0"] {
            let bridge = &bridge;
            scope.spawn(move || {
                let controller = controller_with(bridge, &[("keeper", keeper)]);
                let dest = open(&controller);
                let connection = bridge.session(dest.destination().session().id()).unwrap().connection;
                let is_pong =
                    |line: &i2psock_bridge::Line| line.connection == connection && line.text().starts_with("PONG ");
                serve_until(&dest, "3 PONGs", || bridge.lines().iter().filter(|line| is_pong(line)).count() >= 3);
                assert_eq!(dest.destination().state().0, State::Ready, "keeper {keeper}");
            });
        }
    });
}

/// Without a keeper every wait on the session answers PINGs, whatever it waits for.
#[test]
fn waits_answer_pings_without_a_keeper() {
    let bridge = start();
    let controller = controller_with(&bridge, &[("keeper", "0")]);
    let (a, b) = (open(&controller), open(&controller));
    let faults = bridge.faults();
    let mut accept = listening(&a);
    faults.once(Reply::StreamConnect, Action::Stall);
    let mut connecting = a.connect(base64(&b), &Options::default(), LIMIT).unwrap();
    faults.once(Reply::NamingLookup, Action::Stall);
    let mut lookup = a.lookup("a.i2p", LIMIT).unwrap();
    let waiting: [&mut dyn AnyPending; 3] = [&mut accept, &mut connecting, &mut lookup];
    for pending in waiting {
        bridge.clear_lines();
        faults.unsolicited("PING wait\n");
        let pongs = |bridge: &Bridge| bridge.texts().iter().filter(|line| *line == "PONG wait").count();
        wait_until("the PONG", || {
            assert_eq!(pending.wait(Some(Duration::from_millis(10))).unwrap(), Progress::Block);
            pongs(&bridge) > 0
        });
        // The other session's PING is that one's business.
        assert_eq!(pongs(&bridge), 1, "{:?}", bridge.texts());
        b.destination().service(now());
        assert!(bridge.wait_for(LONG, |bridge| pongs(bridge) == 2));
    }
}

#[test]
fn a_program_with_its_own_poll_needs_no_thread() {
    // Only descriptors and timeouts, as a C program with one poll loop has them.
    let bridge = start();
    let controller = controller_with(&bridge, &[("keeper", "0")]);
    let (a, b) = (open(&controller), open(&controller));
    let faults = bridge.faults();
    faults.ping_every(Some(Duration::from_millis(2)));
    let mut accept = b.accept(LIMIT).unwrap();
    let mut lookup = a.lookup("ME", LIMIT).unwrap();
    until_stage(&mut accept, Stage::Listening);
    let mut connecting = connect(&a, &b);
    let mut pendings: [&mut dyn AnyPending; 3] = [&mut accept, &mut lookup, &mut connecting];
    let end = Instant::now() + LONG;
    let mut rounds = 0;
    while pendings.iter().any(|pending| pending.stage() != Stage::Done) || faults.pings_sent() < 50 {
        assert!(Instant::now() < end, "{:?}", pendings.iter().map(|pending| pending.stage()).collect::<Vec<_>>());
        let mut fds: Vec<PollFd> = pendings
            .iter()
            .map(|pending| PollFd { fd: pending.fd(), events: pending.events(), revents: 0 })
            .chain([&a, &b].map(|dest| PollFd { fd: dest.destination().fd(), events: sys::IN, revents: 0 }))
            .collect();
        sys::poll(&mut fds, 20).unwrap();
        for pending in &mut pendings {
            let _ = pending.step(now()).unwrap();
        }
        for (dest, fd) in [&a, &b].iter().zip(&fds[3..]) {
            if fd.revents != 0 {
                dest.destination().service(now());
            }
        }
        rounds += 1;
    }
    // PINGs and a handful of replies, not a busy loop.
    assert!(rounds < 2000, "{rounds} rounds");
    faults.ping_every(None);
    serve_until(&a, "a's answers", || {
        b.destination().drive(now());
        all_answered(&faults, 50)
    });
    assert!(faults.pongs().iter().all(|pong| pong.matched));
    assert!(pendings.iter().all(|pending| pending.events() == 0));
    let (y, x) = (take_stream(&mut accept).unwrap(), take_stream(&mut connecting).unwrap());
    echo(&x, &y, 1, 1000);
}

#[test]
fn nothing_is_readable_while_nothing_happens() {
    for keeper in ["1", "0"] {
        let bridge = start();
        let controller = controller_with(&bridge, &[("keeper", keeper)]);
        let dest = open(&controller);
        assert!(readable(&dest, 0));
        assert_eq!((dest.destination().service(now()), dest.destination().service(now())), (Some(State::Ready), None));
        assert!(!readable(&dest, 20), "keeper {keeper}");
        bridge.faults().once(Reply::NamingLookup, Action::Stall);
        let lookup = dest.lookup("a.i2p", LIMIT).unwrap();
        let accept = listening(&dest);
        let waiting: [&dyn AnyPending; 2] = [&lookup, &accept];
        for pending in waiting {
            assert_eq!(sys::poll_one(pending.fd(), pending.events(), 20).unwrap(), 0, "keeper {keeper}");
        }
        assert!(!readable(&dest, 0));
    }
}

/// The bridge's own control socket may be full: nothing waits for it, and nothing of a PONG is lost.
#[test]
fn a_router_that_does_not_read_blocks_nobody() {
    for keeper in ["1", "0"] {
        let (sender, receiver) = mpsc::channel::<Talk>();
        let sender = Mutex::new(sender);
        let script = Script::start(move |_, mut talk| match talk.greet() {
            command if command.starts_with("SESSION CREATE ") => {
                talk.session(1);
                sender.lock().unwrap().send(talk).unwrap();
            }
            command if command.starts_with("STREAM CONNECT ") => {
                talk.say("STREAM STATUS RESULT=OK\n!");
                talk.linger();
            }
            _ => {}
        });
        let controller = try_controller(&script.address(), &[("keeper", keeper)]).unwrap();
        let dest = Arc::new(open(&controller));
        let mut talk = receiver.recv_timeout(LONG).unwrap();
        // PINGs until neither side can write: the answers are not read.
        talk.0.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
        let line = format!("PING {}\n", "x".repeat(2000));
        let mut sent = 0;
        let end = Instant::now() + Duration::from_secs(4);
        while Instant::now() < end && dest.destination().state().0 == State::Ready && talk.say(&line) {
            sent += 1;
            if keeper == "0" {
                dest.destination().drive(now());
            }
        }
        assert!(sent > 100);
        // Either side may have given the session up by now, but the library is alive and says so.
        match dest.connect(&destination(9), &Options::default(), LIMIT).and_then(|mut p| stream_of(&mut p)) {
            Ok(stream) => assert_eq!(receive(&stream, 1), b"!"),
            Err(error) => {
                assert!(error.message.contains("PING"), "{error:?}");
                wait_until("the loss shows", || dest.destination().state().0 == State::Dead);
            }
        }
    }
}
