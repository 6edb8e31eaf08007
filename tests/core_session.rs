//! Sessions: keep-alive with and without the keeper, their loss, lookups on their own connection, and their end while
//! others wait.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::*;
use i2psock::core::destination::{DestHandle, State};
use i2psock::core::drive::{Limit, Pending, Progress, Stage};
use i2psock::core::settings::Options;
use i2psock::error::{Operation, Status};
use i2psock::sys::{self, PollFd};
use i2psock_bridge::{Action, Bridge, Config, Faults, Personality, Reply, Split};

fn start() -> Bridge {
    Bridge::start(Config::default()).unwrap()
}

fn readable(dest: &DestHandle, milliseconds: i32) -> bool {
    sys::poll_one(dest.destination().fd(), sys::IN, milliseconds).unwrap() != 0
}

/// Serves the destination until `done`; with a keeper there is nothing to do but wait.
fn serve_until(dest: &DestHandle, what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + LONG;
    while !done() {
        assert!(Instant::now() < end, "never: {what}");
        if !dest.destination().signals().driver.is_caller() {
            std::thread::sleep(Duration::from_millis(1));
        } else if readable(dest, 5) {
            dest.destination().service(now());
        }
    }
}

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

#[test]
fn the_loss_of_a_session_is_seen_everywhere() {
    for keeper in ["1", "0"] {
        for announce in [false, true] {
            let bridge = start();
            let controller = controller_with(&bridge, &[("keeper", keeper)]);
            let (a, b) = (open(&controller), open(&controller));
            let session = a.destination();
            assert_eq!((session.service(now()), session.service(now())), (Some(State::Ready), None));
            let (x, y) = pair(&a, &b);
            bridge.faults().every(Reply::NamingLookup, Action::Stall);
            bridge.faults().every(Reply::StreamConnect, Action::Stall);
            let accept = listening(&a);
            let mut asked = a.lookup("a.i2p", LIMIT).unwrap();
            let mut waiting = a.lookup("b.i2p", LIMIT).unwrap();
            let mut connecting = connect(&a, &b);
            until_stage(&mut connecting, Stage::Working);
            send(&y, b"last");
            assert_eq!(sys::poll_one(x.fd(), sys::IN, 5000).unwrap(), sys::IN);
            assert!(bridge.faults().kill_session(session.session().id(), announce));
            assert!(readable(&a, 5000), "keeper {keeper}");
            let end = Instant::now() + LONG;
            while session.service(now()) != Some(State::Dead) {
                assert!(Instant::now() < end);
            }
            let (state, _, cause) = session.state();
            let cause = cause.unwrap();
            assert_eq!((state, cause.status), (State::Dead, Status::Closed));
            assert_eq!(cause.message.contains("Session is closed"), announce, "{}", cause.message);
            assert_eq!((session.service(now()), readable(&a, 0)), (None, false));
            // Whatever was going on ends with the same cause.
            drop(accept);
            let pendings: [(Operation, &mut dyn AnyPending); 3] = [
                (Operation::Lookup, &mut asked),
                (Operation::Lookup, &mut waiting),
                (Operation::Connect, &mut connecting),
            ];
            for (operation, pending) in pendings {
                let error = failure(pending.complete());
                // The announcement is at the same time the answer to the question on the wire.
                let answered = announce && error.status == Status::Network && error.tag == "I2P_ERROR";
                if !(answered && operation == Operation::Lookup) {
                    assert_eq!((error.status, error.operation), (Status::Closed, operation), "{error:?}");
                    assert_eq!(error.message, cause.message);
                }
                assert_eq!(failure(pending.complete()), error, "told every time");
                assert_eq!((pending.fd(), pending.events(), pending.timeout_ms(now())), (-1, 0, 0));
            }
            for error in [
                failure(a.accept(LIMIT)),
                failure(a.connect(base64(&b), &Options::default(), LIMIT)),
                failure(a.lookup("c.i2p", LIMIT)),
            ] {
                assert_eq!((error.status, error.message), (Status::Closed, cause.message.clone()));
            }
            // What the peer had sent before is still there, then the end.
            assert_eq!(receive(&x, 100), b"last");
            // The other session and the controller know nothing of it.
            bridge.faults().clear_rules();
            assert_eq!(b.destination().state().0, State::Ready);
            assert_eq!(address_of(b.lookup("ME", LIMIT).unwrap()).unwrap(), base64(&b));
            let c = open(&controller);
            let (x, y) = pair(&c, &b);
            echo(&x, &y, 1, 100);
        }
    }
}

/// A router that stops closes all connections, the oldest first. What is pending on the session is told so, whichever
/// connection's end is noticed first.
#[test]
fn a_router_that_stops_is_one_cause_for_everybody() {
    let wrong = Arc::new(Mutex::new(Vec::new()));
    for keeper in ["1", "0"] {
        for round in 0..40 {
            let (sender, receiver) = mpsc::channel::<Talk>();
            let sender = Mutex::new(sender);
            let script = Script::start(move |_, mut talk| {
                match talk.greet() {
                    command if command.starts_with("SESSION CREATE ") => talk.session(1),
                    command if command.starts_with("STREAM ACCEPT ") => {
                        talk.say("STREAM STATUS RESULT=OK\n");
                    }
                    _ => return,
                }
                sender.lock().unwrap().send(talk).unwrap();
            });
            let controller = try_controller(&script.address(), &[("keeper", keeper)]).unwrap();
            let dest = open(&controller);
            let mut accept = listening(&dest);
            let control = receiver.recv_timeout(LONG).unwrap();
            let stream = receiver.recv_timeout(LONG).unwrap();
            let waiting = std::thread::spawn(move || failure(accept.complete()));
            if round % 2 == 0 {
                // Let it sleep in poll.
                std::thread::sleep(Duration::from_millis(2));
            }
            control.hang_up();
            stream.hang_up();
            let error = waiting.join().unwrap();
            if error.status != Status::Closed {
                wrong.lock().unwrap().push(format!("keeper {keeper}: {error:?}"));
            }
        }
    }
    let wrong = wrong.lock().unwrap();
    assert!(wrong.is_empty(), "{} of 80: {}", wrong.len(), wrong[0]);
}

#[test]
fn lookups_go_one_at_a_time_and_in_order() {
    for keeper in ["1", "0"] {
        let bridge = start();
        let controller = controller_with(&bridge, &[("keeper", keeper)]);
        let dest = open(&controller);
        for number in 0..20 {
            bridge.add_host(&format!("n{number}.i2p"), &destination(number));
        }
        bridge.clear_lines();
        bridge.faults().every(Reply::NamingLookup, Action::Delay(Duration::from_millis(3)));
        let lookups: Vec<Pending<_>> = (0..20).map(|n| dest.lookup(&format!("N{n}.i2p"), LIMIT).unwrap()).collect();
        // Asked for in any order, answered all the same.
        for (number, lookup) in lookups.into_iter().enumerate().rev() {
            assert_eq!(address_of(lookup).unwrap(), destination(number as u8), "{number}");
        }
        let expected: Vec<String> = (0..20).map(|n| format!("NAMING LOOKUP NAME=n{n}.i2p")).collect();
        assert_eq!(bridge.texts(), expected, "keeper {keeper}");
        // An address is its own answer, and so it is for the controller; the session answers for the controller too.
        bridge.clear_lines();
        assert_eq!(address_of(dest.lookup(&destination(7), LIMIT).unwrap()).unwrap(), destination(7));
        assert!(bridge.texts().is_empty());
        let before = bridge.connections_total();
        assert_eq!(address_of(controller.lookup("n3.i2p", LIMIT).unwrap()).unwrap(), destination(3));
        assert_eq!(bridge.connections_total(), before);
    }
}

#[test]
fn a_lookup_without_an_answer_stops_nothing_else() {
    for keeper in ["1", "0"] {
        let bridge = start();
        let controller = controller_with(&bridge, &[("keeper", keeper)]);
        let (a, b) = (open(&controller), open(&controller));
        bridge.add_host("late.i2p", &destination(1));
        bridge.faults().once(Reply::NamingLookup, Action::Stall);
        let mut never = a.lookup("late.i2p", Limit::After(Duration::from_millis(60))).unwrap();
        let mut behind = a.lookup("behind.i2p", Limit::After(Duration::from_millis(60))).unwrap();
        drop(a.lookup("cancelled.i2p", LIMIT).unwrap());
        for lookup in [&mut never, &mut behind] {
            let error = failure(lookup.complete());
            assert_eq!((error.status, error.operation), (Status::Timeout, Operation::Lookup));
        }
        bridge.clear_lines();
        bridge.faults().unsolicited("PING still there\n");
        serve_until(&a, "a PONG", || bridge.texts().iter().any(|line| line == "PONG still there"));
        let (x, y) = pair(&a, &b);
        echo(&x, &y, 1, 1000);
        // The late reply is nobody's; the next question gets the next answer.
        let me = a.lookup("ME", LIMIT).unwrap();
        assert!(!bridge.texts().iter().any(|line| line.contains("NAMING")), "{:?}", bridge.texts());
        bridge.faults().unsolicited(format!("NAMING REPLY RESULT=OK NAME=ME VALUE={}\n", destination(66)));
        bridge.faults().unsolicited(format!("NAMING REPLY RESULT=OK NAME=late.i2p VALUE={}\n", destination(1)));
        assert_eq!(address_of(me).unwrap(), base64(&a), "keeper {keeper}");
        assert!(!bridge.texts().iter().any(|line| line.contains("behind") || line.contains("cancelled")));
        // Nothing is left behind by a thousand cancelled ones.
        for number in 0..1000 {
            drop(a.lookup(&format!("n{number}.i2p"), LIMIT));
        }
        assert_eq!(address_of(a.lookup("ME", LIMIT).unwrap()).unwrap(), base64(&a));
        let asked = bridge.texts().iter().filter(|line| line.contains("NAME=n")).count();
        assert!(asked <= 1000);
    }
}

#[test]
fn closing_wakes_everybody_who_waits() {
    for keeper in ["1", "0"] {
        for what in ["controller", "destination"] {
            let bridge = start();
            bridge.faults().every(Reply::NamingLookup, Action::Stall);
            bridge.faults().every(Reply::StreamConnect, Action::Stall);
            let controller = controller_with(&bridge, &[("keeper", keeper)]);
            let dest = Arc::new(open(&controller));
            let other = open(&controller);
            let (x, y) = pair_stalled(&bridge, &dest, &other);
            bridge.faults().every(Reply::SessionCreate, Action::Stall);
            bridge.faults().every(Reply::DestGenerate, Action::Stall);
            bridge.clear_lines();
            type Wait = Box<dyn FnOnce() -> i2psock::error::Result<()> + Send>;
            fn wait<T: Send + 'static>(mut pending: Pending<T>) -> Wait {
                Box::new(move || pending.complete())
            }
            let mut waiting: Vec<(&str, Wait)> = vec![
                ("accept", wait(dest.accept(LIMIT).unwrap())),
                ("accept", wait(dest.accept(Limit::Never).unwrap())),
                ("connect", wait(connect(&dest, &other))),
                ("lookup", wait(dest.lookup("a.i2p", LIMIT).unwrap())),
                ("lookup", wait(dest.lookup("b.i2p", Limit::Never).unwrap())),
            ];
            if what == "controller" {
                waiting.push(("create", wait(controller.open_dest("", 1, &Options::default(), LIMIT).unwrap())));
                waiting.push(("generate", wait(controller.generate(7, Limit::Never).unwrap())));
            }
            let threads: Vec<_> = waiting.into_iter().map(|(name, wait)| (name, std::thread::spawn(wait))).collect();
            let receiving = std::thread::spawn(move || receive(&x, 1));
            let expected = if what == "controller" { 6 } else { 4 };
            let count = |bridge: &Bridge| bridge.texts().iter().filter(|line| !line.starts_with("HELLO")).count();
            assert!(bridge.wait_for(LONG, |bridge| count(bridge) >= expected), "{:?}", bridge.texts());
            let start = Instant::now();
            let closing = Arc::clone(&dest);
            if what == "controller" {
                controller.close();
            } else {
                closing.shutdown().unwrap();
            }
            for (name, thread) in threads {
                let error = failure(thread.join().unwrap());
                assert_eq!((error.status, error.operation.name()), (Status::Closed, name), "{what} {error:?}");
                assert!(error.message.contains(what), "{name}: {}", error.message);
            }
            assert_eq!(receiving.join().unwrap(), b"", "a stream of the {what} goes on");
            assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
            // The handles stay valid and say what happened.
            assert_eq!(dest.destination().state().0, State::Dead);
            for error in [failure(dest.accept(LIMIT)), failure(dest.lookup("ME", LIMIT))] {
                assert_eq!(error.status, Status::Closed);
            }
            assert_eq!(controller.lookup("a.i2p", LIMIT).is_err(), what == "controller");
            closing.shutdown().unwrap();
            drop(y);
        }
    }
}

fn pair_stalled(
    bridge: &Bridge,
    a: &DestHandle,
    b: &DestHandle,
) -> (i2psock::core::stream::Stream, i2psock::core::stream::Stream) {
    bridge.faults().clear_rules();
    let pair = pair(a, b);
    bridge.faults().every(Reply::NamingLookup, Action::Stall);
    bridge.faults().every(Reply::StreamConnect, Action::Stall);
    pair
}

#[test]
fn closing_while_others_open_and_close() {
    // No deadlock, no panic, whatever meets whatever.
    bounded("closing", || {
        for round in 0..15 {
            let bridge = start();
            let controller = controller_with(&bridge, &[("keeper", ["1", "0"][round % 2])]);
            std::thread::scope(|scope| {
                for worker in 0..4 {
                    let controller = &controller;
                    scope.spawn(move || loop {
                        let dest = match try_open(controller, LIMIT) {
                            Ok(dest) => dest,
                            Err(error) => {
                                assert_eq!(error.status, Status::Closed, "{error:?}");
                                return;
                            }
                        };
                        let _ = dest.accept(Limit::After(Duration::from_millis(1)));
                        let _ = dest.lookup("ME", LIMIT).map(|mut lookup| lookup.complete());
                        if worker % 2 == 0 {
                            dest.shutdown().unwrap();
                        }
                    });
                }
                std::thread::sleep(Duration::from_millis(3 * round as u64));
                controller.close();
            });
            assert!(bridge.wait_for(LONG, |bridge| bridge.sessions().is_empty()));
        }
    });
}

#[test]
fn dropping_the_last_handle_ends_the_session() {
    for personality in Personality::ALL {
        let bridge = Bridge::start(Config::with_personality(personality)).unwrap();
        let controller = controller(&bridge);
        let dest = open(&controller);
        let accept = listening(&dest);
        drop(dest);
        let mut accept = accept;
        let error = failure(accept.complete());
        assert_eq!(error.status, Status::Closed);
        assert!(bridge.wait_for(LONG, |bridge| bridge.sessions().is_empty()), "{personality}");
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

/// A router that dies ends its connections in no certain order: the end of the session is the cause of all.
#[test]
fn the_session_is_blamed_although_its_end_shows_later() {
    for keeper in ["1", "0"] {
        for ends in [true, false] {
            let (sender, receiver) = mpsc::channel::<Talk>();
            let sender = Mutex::new(sender);
            let script = Script::start(move |_, mut talk| match talk.greet() {
                command if command.starts_with("SESSION CREATE ") => {
                    talk.session(1);
                    sender.lock().unwrap().send(talk).unwrap();
                }
                command if command.starts_with("STREAM CONNECT ") => talk.hang_up(),
                _ => {}
            });
            let controller = try_controller(&script.address(), &[("keeper", keeper)]).unwrap();
            let dest = open(&controller);
            let control = receiver.recv_timeout(LONG).unwrap();
            let mut connecting = dest.connect(&destination(9), &Options::default(), LIMIT).unwrap();
            wait_until("the end of the connection is noticed", || {
                assert_eq!(connecting.step(now()).unwrap(), Progress::Block);
                // The session's end is waited for a moment.
                (0..=1000).contains(&connecting.timeout_ms(now()))
            });
            if ends {
                control.hang_up();
            }
            let error = failure(stream_of(&mut connecting));
            assert_eq!(error.operation, Operation::Connect);
            let expected = if ends { Status::Closed } else { Status::Protocol };
            assert_eq!(error.status, expected, "keeper {keeper}: {error:?}");
            assert_eq!(failure(connecting.complete()), error);
        }
    }
}

/// A session that ends because the bridge breaks the protocol has ended: CLOSED, as after any other loss.
#[test]
fn a_session_lost_by_nonsense_is_closed() {
    for keeper in ["1", "0"] {
        let bridge = start();
        let controller = controller_with(&bridge, &[("keeper", keeper)]);
        let dest = open(&controller);
        let mut accept = listening(&dest);
        bridge.faults().once(Reply::NamingLookup, Action::Stall);
        let mut lookup = dest.lookup("a.i2p", LIMIT).unwrap();
        bridge.faults().unsolicited("x".repeat(70_000));
        let waiting: [&mut dyn AnyPending; 2] = [&mut accept, &mut lookup];
        for pending in waiting {
            let error = failure(pending.complete());
            assert!(error.message.contains("too long"), "{error:?}");
            assert_eq!(error.status, Status::Closed, "{error:?}");
        }
        let (state, _, cause) = dest.destination().state();
        assert_eq!((state, cause.unwrap().status), (State::Dead, Status::Closed));
        assert_eq!(failure(dest.accept(LIMIT)).status, Status::Closed);
    }
}
