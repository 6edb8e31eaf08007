//! Lookups on the connection of a session.

use std::time::Duration;

use super::common::*;
use super::{serve_until, start};
use i2psock::core::drive::{Limit, Pending};
use i2psock::error::{Operation, Status};
use i2psock_bridge::{Action, Reply};

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
