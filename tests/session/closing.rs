//! Closing handles while others wait on them, open and close.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::common::*;
use super::start;
use i2psock::core::destination::{DestHandle, State};
use i2psock::core::drive::{Limit, Pending};
use i2psock::core::settings::Options;
use i2psock::error::Status;
use i2psock_bridge::{Action, Bridge, Config, Personality, Reply};

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
