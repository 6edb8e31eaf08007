//! The loss of a session is seen everywhere, and its cause is the one that is told.

use std::sync::{mpsc, Arc, Mutex};
use std::time::{Duration, Instant};

use super::common::*;
use super::{readable, start};
use i2psock::core::destination::State;
use i2psock::core::drive::{Progress, Stage};
use i2psock::core::settings::Options;
use i2psock::error::{Operation, Status};
use i2psock::sys::{self};
use i2psock_bridge::{Action, Reply};

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
            let error = failure(x.send(b"x", 0));
            assert_eq!((error.status, error.operation), (Status::Closed, Operation::Send));
            assert!(error.message.ends_with(&format!(" ({})", cause.message)), "{}", error.message);
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
            // The clock stands still: however slow this machine is, the session ends in the moment that is waited for it.
            let time = now();
            let mut connecting = dest.connect(&destination(9), &Options::default(), LIMIT).unwrap();
            wait_until("the end of the connection is noticed", || {
                assert_eq!(connecting.step(time).unwrap(), Progress::Block);
                connecting.fd() < 0
            });
            let pause = connecting.timeout_ms(time);
            // Counted from when it was noticed, which the start of the operation may have done.
            assert!(pause >= 100, "{pause} ms");
            let end = time + Duration::from_millis(pause.try_into().unwrap());
            if ends {
                control.hang_up();
            } else {
                assert_eq!(connecting.step(end - Duration::from_millis(1)).unwrap(), Progress::Block);
            }
            let mut result = connecting.step(if ends { time } else { end });
            wait_until("it fails", || {
                let over = result.is_err();
                result = connecting.step(time);
                over
            });
            let error = failure(result);
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
