//! A router that goes away and comes back: sessions are opened again, and everything that waits goes on.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::Instant;

use super::common::*;
use i2psock::core::destination::{DestHandle, State};
use i2psock::core::listener::Listener;
use i2psock::core::settings::Options;
use i2psock::error::Status;
use i2psock::sys;
use i2psock_bridge::{Action, Bridge, Config, Reply};

fn recovering(controller: &Control) -> DestHandle {
    dest_of(controller.open_dest("", 1, &options(&[("recover", "1")]), LIMIT).unwrap()).unwrap()
}

/// Serves the destinations as a program's poll loop does, until `done`; returns the states that the first one went through.
/// Nobody waits for the pause before an attempt: without a keeper it passes on the clock.
fn serve(clock: &Clock, dests: &[&DestHandle], what: &str, mut done: impl FnMut() -> bool) -> Vec<State> {
    let end = Instant::now() + LONG;
    let mut states = Vec::new();
    while !done() {
        assert!(Instant::now() < end, "never: {what}");
        let timeouts = dests.iter().map(|dest| dest.destination().timeout_ms(clock.now())).filter(|ms| *ms >= 0).min();
        let mut fds: Vec<_> =
            dests.iter().map(|dest| sys::PollFd { fd: dest.destination().fd(), events: sys::IN, revents: 0 }).collect();
        let pauses = dests.iter().filter(|dest| dest.destination().state().0 == State::Recovering);
        match pauses.map(|dest| dest.destination().timeout_ms(clock.now())).filter(|ms| *ms >= 0).min() {
            // The router may be about to say how it lets go of sessions.
            Some(_) if sys::poll(&mut fds, 20).unwrap() != 0 => {}
            Some(pause) => clock.pass_timeout(pause),
            None => drop(sys::poll(&mut fds, timeouts.unwrap_or(20).min(20)).unwrap()),
        }
        for (number, dest) in dests.iter().enumerate() {
            while let Some(state) = dest.destination().service(clock.now()) {
                if number == 0 {
                    states.push(state);
                }
            }
        }
    }
    states
}

fn is_ready(dest: &DestHandle) -> bool {
    dest.destination().state().0 == State::Ready
}

#[test]
fn a_lost_session_is_opened_again() {
    each_keeper(|keeper| {
        let clock = Clock::default();
        for announce in [false, true] {
            let bridge = Bridge::start(patient()).unwrap();
            let controller = controller_with(&bridge, &[("keeper", keeper)]);
            let (server, client) = (recovering(&controller), recovering(&controller));
            let address = base64(&server).to_owned();
            let listener = Listener::open(&server, 0, &Options::default()).unwrap();
            let fds = (server.destination().fd(), listener.fd());
            assert_eq!(server.destination().service(clock.now()), Some(State::Ready));
            let id = server.destination().session().id().to_owned();
            bridge.faults().every(Reply::StreamConnect, Action::Stall);
            let mut waiting = client.connect(&address, &Options::default(), LIMIT).unwrap();
            until_stage(&mut waiting, i2psock::core::drive::Stage::Working);
            assert_eq!(bridge.faults().kill_all_sessions(announce), 2);
            let error = failure(waiting.complete());
            assert_eq!(error.status, Status::Closed, "{error:?}");
            let mut states = serve(&clock, &[&server, &client], "lost", || !is_ready(&server) && !is_ready(&client));
            // Between the sessions everything says why.
            let (state, attempt, cause) = server.destination().state();
            assert_eq!((state, attempt), (State::Recovering, 1));
            assert_eq!(cause.unwrap().status, Status::Closed);
            let error = failure(client.connect(&address, &Options::default(), LIMIT));
            assert_eq!(error.status, Status::Closed);
            assert!(error.message.contains("opened again"), "{error:?}");
            assert!(listener.accept(clock.now()).unwrap().is_none());
            bridge.faults().clear_rules();
            states.extend(serve(&clock, &[&server, &client], "ready again", || is_ready(&server) && is_ready(&client)));
            states.extend(std::iter::from_fn(|| server.destination().service(clock.now())));
            assert_eq!(states.first(), Some(&State::Recovering), "{states:?}");
            assert!(states.contains(&State::Connecting), "{states:?}");
            assert_eq!(server.destination().state().2, None);
            assert_eq!((server.destination().fd(), listener.fd()), fds);
            assert_eq!(base64(&server), address);
            assert_ne!(server.destination().session().id(), id);
            let mut connecting = connect(&client, &server);
            let mut accepted = None;
            serve(&clock, &[&server, &client], "a stream", || {
                let _ = connecting.step(clock.now()).unwrap();
                accepted = accepted.take().or_else(|| listener.accept(clock.now()).unwrap());
                accepted.is_some()
            });
            echo(&stream_of(&mut connecting).unwrap(), &accepted.unwrap(), 1, 10_000);
        }
    });
}

#[test]
fn a_bridge_that_is_started_anew() {
    each_keeper(|keeper| {
        let clock = Clock::default();
        let bridge = Bridge::start_to_stay(patient()).unwrap();
        let controller = controller_with(&bridge, &[("keeper", keeper)]);
        let (server, client) = (recovering(&controller), recovering(&controller));
        let (port, udp_port) = (bridge.port(), bridge.udp_port());
        let listener = Listener::open(&server, 0, &Options::default()).unwrap();
        let (x, y) = {
            let mut connecting = connect(&client, &server);
            let mut accepted = None;
            serve(&clock, &[&server, &client], "a stream", || {
                let _ = connecting.step(clock.now()).unwrap();
                accepted = accepted.take().or_else(|| listener.accept(clock.now()).unwrap());
                accepted.is_some()
            });
            (stream_of(&mut connecting).unwrap(), accepted.unwrap())
        };
        bridge.stop();
        serve(&clock, &[&server, &client], "an attempt that fails", || {
            server.destination().state().1 >= 2 && client.destination().state().1 >= 2
        });
        let cause = server.destination().state().2.unwrap();
        assert_eq!(cause.status, Status::Io, "{cause:?}");
        // Streams of the lost session have ended.
        assert_eq!((receive(&x, 1), receive(&y, 1)), (vec![], vec![]));
        let _bridge = Bridge::start(Config { port, udp_port, ..patient() }).unwrap();
        serve(&clock, &[&server, &client], "ready again", || is_ready(&server) && is_ready(&client));
        let mut connecting = connect(&client, &server);
        let mut accepted = None;
        serve(&clock, &[&server, &client], "a stream", || {
            let _ = connecting.step(clock.now()).unwrap();
            accepted = accepted.take().or_else(|| listener.accept(clock.now()).unwrap());
            accepted.is_some()
        });
        echo(&stream_of(&mut connecting).unwrap(), &accepted.unwrap(), 1, 10_000);
    });
}

#[test]
fn without_recovery_a_loss_is_the_end() {
    each_keeper(|keeper| {
        let clock = Clock::default();
        let bridge = Bridge::start(patient()).unwrap();
        let controller = controller_with(&bridge, &[("keeper", keeper)]);
        let dest = open(&controller);
        let listener = Listener::open(&dest, 0, &Options::default()).unwrap();
        assert_eq!(bridge.faults().kill_all_sessions(false), 1);
        let mut states = serve(&clock, &[&dest], "dead", || dest.destination().state().0 == State::Dead);
        // The state may be known before the change was asked for.
        states.extend(std::iter::from_fn(|| dest.destination().service(clock.now())));
        assert_eq!(states, [State::Ready, State::Dead]);
        assert_eq!(failure(listener.accept(clock.now())).status, Status::Closed);
    });
}

#[test]
fn keys_that_are_refused_end_it() {
    each_keeper(|keeper| {
        let clock = Clock::default();
        let bridge = Bridge::start(patient()).unwrap();
        let controller = controller_with(&bridge, &[("keeper", keeper)]);
        let dest = recovering(&controller);
        bridge.faults().every(Reply::SessionCreate, Action::replace("SESSION STATUS RESULT=INVALID_KEY\n"));
        bridge.faults().kill_all_sessions(false);
        serve(&clock, &[&dest], "dead", || dest.destination().state().0 == State::Dead);
        let cause = dest.destination().state().2.unwrap();
        assert_eq!((cause.status, cause.tag.as_str()), (Status::Closed, "INVALID_KEY"));
    });
}

/// A router that does not know the style of the session will not learn it; one that is stopped while it is asked says
/// nothing either, and is asked again.
#[test]
fn a_style_the_router_does_not_know_ends_it() {
    let unknown = "SESSION STATUS RESULT=I2P_ERROR MESSAGE=\"Unknown STYLE\"\n";
    for (version, answer, dies) in [("3.2", "", true), ("3.3", unknown, true), ("3.3", "", false)] {
        let clock = Clock::default();
        let asked = AtomicUsize::new(0);
        let script = Script::start(move |_, mut talk| {
            talk.line();
            talk.say(format!("HELLO REPLY RESULT=OK VERSION={version}\n"));
            if talk.line().starts_with("SESSION CREATE STYLE=DATAGRAM2 ") {
                match asked.fetch_add(1, Ordering::SeqCst) {
                    0 => talk.session(1),
                    _ => drop(talk.say(answer)),
                }
            }
        });
        let controller = try_controller(&script.address(), &[("keeper", "0")]).unwrap();
        let dest = dest_of(controller.open_dest("", 4, &options(&[("recover", "1")]), LIMIT).unwrap()).unwrap();
        let state = || dest.destination().state();
        serve(&clock, &[&dest], "an end", || state().0 == State::Dead || state().1 > 3);
        assert_eq!(state().0 == State::Dead, dies, "{version} {answer}");
        let cause = state().2.unwrap();
        assert_eq!(cause.status, Status::Closed);
        assert!(cause.message.contains("may not have DATAGRAM2: use DATAGRAM"), "{}", cause.message);
    }
}

#[test]
fn duplicates_are_waited_out() {
    let clock = Clock::default();
    let bridge = Bridge::start(patient()).unwrap();
    let controller = controller_with(&bridge, &[("keeper", "0")]);
    let dest = recovering(&controller);
    bridge.faults().every(Reply::SessionCreate, Action::replace("SESSION STATUS RESULT=DUPLICATED_DEST\n"));
    bridge.faults().kill_all_sessions(false);
    serve(&clock, &[&dest], "one refusal", || dest.destination().state().1 == 2);
    assert_eq!(dest.destination().state().2.unwrap().tag, "DUPLICATED_DEST");
    bridge.faults().clear_rules();
    serve(&clock, &[&dest], "ready", || is_ready(&dest));
}

#[test]
fn closing_in_the_middle_of_it() {
    each_keeper(|keeper| {
        let clock = Clock::default();
        for stage in [State::Recovering, State::Building] {
            let bridge = Bridge::start(patient()).unwrap();
            let controller = controller_with(&bridge, &[("keeper", keeper)]);
            let dest = Arc::new(recovering(&controller));
            let listener = Listener::open(&dest, 0, &Options::default()).unwrap();
            bridge.faults().every(Reply::SessionCreate, Action::Stall);
            bridge.faults().kill_all_sessions(false);
            serve(&clock, &[&dest], "that stage", || dest.destination().state().0 == stage);
            drop(dest);
            assert_eq!(failure(listener.accept(clock.now())).status, Status::Closed);
            assert!(bridge.wait_for(LONG, |bridge| bridge.connections_open() == 0));
        }
    });
}

#[test]
fn datagrams_go_on() {
    each_keeper(|keeper| {
        let clock = Clock::default();
        for in_band in ["0", "1"] {
            let bridge = Bridge::start(patient()).unwrap();
            let udp = bridge.udp_addr().to_string();
            let controller = controller_with(&bridge, &[("keeper", keeper), ("udp", &udp)]);
            let wanted = options(&[("recover", "1"), ("in_band", in_band)]);
            let dests = [0, 1].map(|_| dest_of(controller.open_dest("", 2, &wanted, LIMIT).unwrap()).unwrap());
            let [a, b] = [0, 1].map(|i: usize| i2psock::core::datagram::Dgram::bind(&dests[i]).unwrap());
            let fd = b.fd();
            let exchange = |text: &[u8]| {
                assert!(a.send_to(base64(&dests[1]), text, 0, &Default::default()).unwrap());
                let mut buffer = [std::mem::MaybeUninit::uninit(); 100];
                b.set_timeout(LONG.as_millis() as i32).unwrap();
                let got = b.recv_from(&mut buffer, 0).unwrap().unwrap();
                assert_eq!(buffer[..got.len].iter().map(init).collect::<Vec<u8>>(), text);
            };
            exchange(b"before");
            assert_eq!(bridge.faults().kill_all_sessions(false), 2);
            serve(&clock, &[&dests[0], &dests[1]], "lost", || !is_ready(&dests[0]) && !is_ready(&dests[1]));
            let error = failure(a.send_to(base64(&dests[1]), b"lost", 0, &Default::default()));
            assert_eq!(error.status, Status::Closed);
            serve(&clock, &[&dests[0], &dests[1]], "ready again", || is_ready(&dests[0]) && is_ready(&dests[1]));
            exchange(b"after");
            assert_eq!(b.fd(), fd);
        }
    });
}
