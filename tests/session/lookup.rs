//! Lookups, on the connections of sessions and on their own.

use std::time::Duration;

use super::common::*;
use super::{serve_until, start};
use i2psock::core::destination::DestHandle;
use i2psock::core::drive::{Limit, Pending, Progress};
use i2psock::error::{Error, Operation, Status};
use i2psock::identity::Address;
use i2psock_bridge::{Action, Bridge, Config, Personality, Reply};

/// How often the bridge was asked for `name`.
fn asked(bridge: &Bridge, name: &str) -> usize {
    let line = format!("NAMING LOOKUP NAME={name}");
    bridge.texts().into_iter().filter(|text| *text == line).count()
}

/// How many names the bridge was asked for.
fn questions(bridge: &Bridge) -> usize {
    bridge.texts().into_iter().filter(|text| text.starts_with("NAMING")).count()
}

/// Steps them all until `done`.
fn step_until(what: &str, lookups: &mut [Pending<Address>], mut done: impl FnMut() -> bool) {
    wait_until(what, || {
        for lookup in lookups.iter_mut() {
            assert_eq!(lookup.step(now()).unwrap(), Progress::Block);
        }
        done()
    });
}

fn refusal(lookup: Pending<Address>) -> Error {
    failure(lookup.product())
}

#[test]
fn lookups_do_not_wait_for_each_other() {
    each_keeper(|keeper| {
        let bridge = start();
        let controller = controller_with(&bridge, &[("keeper", keeper)]);
        let dest = open(&controller);
        bridge.add_host("known.i2p", &destination(1));
        bridge.faults().once(Reply::NamingLookup, Action::Stall);
        let before = bridge.connections_total();
        let mut slow = dest.lookup("slow.i2p", LIMIT).unwrap();
        step_until("the first one", std::slice::from_mut(&mut slow), || asked(&bridge, "slow.i2p") == 1);
        assert_eq!(bridge.connections_total(), before, "the session's connection was idle");
        assert_eq!(address_of(dest.lookup("known.i2p", LIMIT).unwrap()).unwrap(), destination(1));
        assert_eq!(address_of(controller.lookup("known.i2p", LIMIT).unwrap()).unwrap(), destination(1));
        assert_eq!(bridge.connections_total(), before + 2);
        // Even when nobody waits for it any more: the router still has the question.
        drop(slow);
        assert_eq!(address_of(dest.lookup("known.i2p", LIMIT).unwrap()).unwrap(), destination(1));
        assert_eq!(bridge.connections_total(), before + 3);
    });
}

#[test]
fn eight_at_a_time_and_in_order() {
    each_keeper(|keeper| {
        let bridge = start();
        let controller = controller_with(&bridge, &[("keeper", keeper)]);
        let dest = open(&controller);
        for number in 0..20 {
            bridge.add_host(&format!("n{number}.i2p"), &destination(number));
        }
        bridge.faults().every(Reply::NamingLookup, Action::Stall);
        let before = bridge.connections_total();
        let mut lookups: Vec<Pending<_>> = (0..20).map(|n| dest.lookup(&format!("N{n}.i2p"), LIMIT).unwrap()).collect();
        step_until("8 questions", &mut lookups, || questions(&bridge) == 8);
        step_until("nothing more", &mut lookups, || true);
        assert_eq!((questions(&bridge), bridge.connections_total() - before), (8, 7), "keeper {keeper}");
        assert!((0..8).all(|number| asked(&bridge, &format!("n{number}.i2p")) == 1));
        // Two of them are given up: the next two have their turn.
        lookups.drain(3..5);
        step_until("10 questions", &mut lookups, || questions(&bridge) == 10);
        assert_eq!((asked(&bridge, "n8.i2p"), asked(&bridge, "n9.i2p")), (1, 1));
        bridge.faults().clear_rules();
        lookups.drain(0..8);
        // Waited for in any order, answered all the same.
        for (number, lookup) in (10..20).zip(lookups).rev() {
            assert_eq!(address_of(lookup).unwrap(), destination(number), "{number}");
        }
        assert_eq!(questions(&bridge), 20);
        // An address is its own answer, and so it is for the controller.
        bridge.clear_lines();
        assert_eq!(address_of(dest.lookup(&destination(7), LIMIT).unwrap()).unwrap(), destination(7));
        assert_eq!(address_of(controller.lookup(&destination(7), LIMIT).unwrap()).unwrap(), destination(7));
        assert!(bridge.texts().is_empty());
    });
}

/// Without anything that is slow there is no connection but the session's.
#[test]
fn one_after_the_other_they_take_the_session_s_connection() {
    each_keeper(|keeper| {
        let bridge = start();
        let controller = controller_with(&bridge, &[("keeper", keeper)]);
        let dest = open(&controller);
        bridge.add_host("known.i2p", &destination(3));
        let before = bridge.connections_total();
        for _ in 0..20 {
            assert_eq!(address_of(dest.lookup("known.i2p", LIMIT).unwrap()).unwrap(), destination(3));
            assert_eq!(address_of(controller.lookup("known.i2p", LIMIT).unwrap()).unwrap(), destination(3));
            assert_eq!(refusal(dest.lookup("unknown.i2p", LIMIT).unwrap()).tag, "KEY_NOT_FOUND");
            assert_eq!(address_of(dest.lookup("ME", LIMIT).unwrap()).unwrap(), base64(&dest));
        }
        assert_eq!(bridge.connections_total(), before);
    });
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
        wait_until("it is asked", || asked(&bridge, "late.i2p") == 1);
        let mut behind = [a.lookup("behind.i2p", LIMIT).unwrap()];
        drop(a.lookup("cancelled.i2p", LIMIT).unwrap());
        // It is not known there, but may be through the session: now it waits for its turn.
        step_until("the other connection", &mut behind, || asked(&bridge, "behind.i2p") == 1);
        step_until("the end of the other connection", &mut behind, || bridge.is_quiet(2));
        drop(behind);
        let error = failure(never.complete());
        assert_eq!((error.status, error.operation), (Status::Timeout, Operation::Lookup));
        bridge.clear_lines();
        bridge.faults().unsolicited("PING still there\n");
        serve_until(&a, "a PONG", || bridge.texts().iter().any(|line| line == "PONG still there"));
        let (x, y) = pair(&a, &b);
        echo(&x, &y, 1, 1000);
        // The late reply is nobody's; the next question gets the next answer.
        let me = a.lookup("ME", LIMIT).unwrap();
        assert_eq!(questions(&bridge), 0, "{:?}", bridge.texts());
        bridge.faults().unsolicited(format!("NAMING REPLY RESULT=OK NAME=ME VALUE={}\n", destination(66)));
        bridge.faults().unsolicited(format!("NAMING REPLY RESULT=OK NAME=late.i2p VALUE={}\n", destination(1)));
        assert_eq!(address_of(me).unwrap(), base64(&a), "keeper {keeper}");
        assert_eq!(questions(&bridge), 1);
        // Nothing is left behind by a thousand cancelled ones.
        for number in 0..1000 {
            drop(a.lookup(&format!("n{number}.i2p"), LIMIT));
        }
        assert_eq!(address_of(a.lookup("ME", LIMIT).unwrap()).unwrap(), base64(&a));
        let asked = bridge.texts().iter().filter(|line| line.contains("NAME=n")).count();
        assert!(asked <= 1000);
    }
}

/// Emissary knows nothing without a session. What waits for the session's connection is asked there in turn.
#[test]
fn a_router_that_only_resolves_through_sessions() {
    each_keeper(|keeper| {
        let config = Config { personality: Personality::Emissary, ..Config::default() };
        let bridge = Bridge::start(config).unwrap();
        let controller = controller_with(&bridge, &[("keeper", keeper)]);
        bridge.add_host("known.i2p", &destination(1));
        let alone = refusal(controller.lookup("known.i2p", LIMIT).unwrap());
        assert_eq!((alone.status, alone.tag.as_str()), (Status::Network, "KEY_NOT_FOUND"));
        assert!(alone.message.contains("may only resolve names through an open destination"), "{}", alone.message);
        let dest = open(&controller);
        assert_eq!(address_of(controller.lookup("known.i2p", LIMIT).unwrap()).unwrap(), destination(1));
        bridge.faults().once(Reply::NamingLookup, Action::Stall);
        let mut slow = [dest.lookup("slow.i2p", LIMIT).unwrap()];
        step_until("the slow one", &mut slow, || asked(&bridge, "slow.i2p") == 1);
        bridge.clear_lines();
        let mut behind = [dest.lookup("known.i2p", LIMIT).unwrap(), controller.lookup("unknown.i2p", LIMIT).unwrap()];
        step_until("both alone", &mut behind, || questions(&bridge) == 2 && bridge.is_quiet(1));
        let [known, unknown] = behind;
        bridge.faults().unsolicited("NAMING REPLY RESULT=KEY_NOT_FOUND NAME=slow.i2p\n");
        assert_eq!(address_of(known).unwrap(), destination(1), "keeper {keeper}");
        let error = refusal(unknown);
        assert_eq!(error.tag, "KEY_NOT_FOUND");
        assert!(!error.message.contains("open destination"), "{}", error.message);
        assert_eq!((asked(&bridge, "known.i2p"), asked(&bridge, "unknown.i2p")), (2, 2));
    });
}

/// Once the router has resolved a host name without a session, it is believed that it does not know another. A hash is
/// something else: i2pd looks for it with a destination that may not find it.
#[test]
fn a_router_that_resolves_names_alone_is_believed() {
    let bridge = start();
    let controller = controller(&bridge);
    bridge.add_host("known.i2p", &destination(1));
    let hash = format!("{}.b32.i2p", "a".repeat(52));
    let error = refusal(controller.lookup("unknown.i2p", LIMIT).unwrap());
    assert!(error.message.contains("open destination"), "it may be so: {}", error.message);
    let dest = open(&controller);
    bridge.faults().once(Reply::NamingLookup, Action::Stall);
    let mut slow = [dest.lookup("slow.i2p", LIMIT).unwrap()];
    step_until("the slow one", &mut slow, || asked(&bridge, "slow.i2p") == 1);
    let mut doubtful = [dest.lookup("nowhere.i2p", LIMIT).unwrap()];
    step_until("its own connection", &mut doubtful, || asked(&bridge, "nowhere.i2p") == 1 && bridge.is_quiet(1));
    assert_eq!(address_of(dest.lookup("known.i2p", LIMIT).unwrap()).unwrap(), destination(1));
    let error = refusal(dest.lookup("elsewhere.i2p", LIMIT).unwrap());
    assert_eq!((error.tag.as_str(), asked(&bridge, "elsewhere.i2p")), ("KEY_NOT_FOUND", 1));
    let mut doubtful = [dest.lookup(&hash, LIMIT).unwrap()];
    step_until("its own connection", &mut doubtful, || asked(&bridge, &hash) == 1 && bridge.is_quiet(1));
    drop(dest);
    let error = refusal(controller.lookup("unknown.i2p", LIMIT).unwrap());
    assert!(!error.message.contains("open destination"), "it is known to be otherwise: {}", error.message);
}

/// On the control socket, on their own and still waiting: those of the destination end, those of the controller go on.
#[test]
fn the_end_of_the_session_while_all_are_busy() {
    each_keeper(|keeper| {
        for kill in [true, false] {
            let bridge = start();
            let controller = controller_with(&bridge, &[("keeper", keeper)]);
            let dest = open(&controller);
            bridge.add_host("known.i2p", &destination(1));
            bridge.faults().every(Reply::NamingLookup, Action::Stall);
            let mut all: Vec<_> = (0..4).map(|_| controller.lookup("known.i2p", LIMIT).unwrap()).collect();
            all.extend((0..4).map(|n| dest.lookup(&format!("n{n}.i2p"), LIMIT).unwrap()));
            all.extend((0..2).map(|_| controller.lookup("known.i2p", LIMIT).unwrap()));
            all.extend((0..2).map(|_| dest.lookup("known.i2p", LIMIT).unwrap()));
            step_until("8 questions", &mut all, || questions(&bridge) == 8);
            bridge.faults().clear_rules();
            let last = all.split_off(8);
            let first = all.split_off(4);
            if kill {
                assert!(bridge.faults().kill_session(dest.destination().session().id(), false));
            } else {
                dest.shutdown().unwrap();
            }
            for (number, lookup) in last.into_iter().enumerate().rev() {
                match number {
                    0 | 1 => assert_eq!(address_of(lookup).unwrap(), destination(1), "keeper {keeper}"),
                    _ => assert_eq!(refusal(lookup).status, Status::Closed, "keeper {keeper}"),
                }
            }
            for lookup in first {
                let error = refusal(lookup);
                assert_eq!((error.status, error.operation), (Status::Closed, Operation::Lookup), "keeper {keeper}");
            }
            // The one that was on the session's connection is asked again, on one of its own.
            assert_eq!(address_of(all.remove(0)).unwrap(), destination(1), "keeper {keeper}");
        }
    });
}

/// Threads that wait: one has been waiting for its turn when its destination is closed.
#[test]
fn closing_wakes_a_lookup_that_waits_for_its_turn() {
    let bridge = start();
    let controller = controller(&bridge);
    let (busy, dest) = (open(&controller), open(&controller));
    bridge.faults().every(Reply::NamingLookup, Action::Stall);
    let begin = |dest: &DestHandle, name: &str| dest.lookup(name, Limit::Never).unwrap();
    let mut all: Vec<_> = (0..8).map(|number| begin(&busy, &format!("n{number}.i2p"))).collect();
    step_until("8 questions", &mut all, || questions(&bridge) == 8);
    let waiting = begin(&dest, "known.i2p");
    let error = bounded("a lookup after its destination was closed", move || {
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| refusal(waiting));
            dest.shutdown().unwrap();
            waiter.join().unwrap()
        })
    });
    assert_eq!(error.status, Status::Closed, "{}", error.message);
    assert_eq!(asked(&bridge, "known.i2p"), 0);
}
