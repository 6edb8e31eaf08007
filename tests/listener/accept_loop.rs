//! Listeners: one descriptor, accepts that are kept armed, and what can go wrong with them.

use std::time::{Duration, Instant};

use crate::common::*;
use i2psock::core::destination::{DestHandle, State};
use i2psock::core::drive::{Pending, Progress};
use i2psock::core::listener::Listener;
use i2psock::core::stream::Stream;
use i2psock::error::Status;
use i2psock::sys;
use i2psock_bridge::{Action, Bridge, Config, Personality, Reply};

fn listen(dest: &DestHandle) -> Listener {
    Listener::open(dest, 0, &options(&[])).unwrap()
}

/// The next stream, waited for as a program does.
fn next(listener: &Listener) -> Stream {
    meet(listener, None)
}

/// The next stream; meanwhile the other end goes on connecting.
fn meet(listener: &Listener, mut connecting: Option<&mut Pending<Stream>>) -> Stream {
    let end = Instant::now() + LONG;
    loop {
        let (fd, events) = match &mut connecting {
            Some(pending) => {
                let _ = pending.step(now()).unwrap();
                (pending.fd(), pending.events())
            }
            None => (-1, 0),
        };
        if let Some(stream) = listener.accept(now()).unwrap() {
            return stream;
        }
        assert!(Instant::now() < end, "no stream: {:?}", listener.failures());
        let timeout = listener.timeout_ms(now());
        let mut fds =
            [sys::PollFd { fd: listener.fd(), events: sys::IN, revents: 0 }, sys::PollFd { fd, events, revents: 0 }];
        sys::poll(&mut fds, if timeout < 0 { 1000 } else { timeout.min(1000) }).unwrap();
    }
}

fn bridges() -> [Config; 4] {
    [Personality::Java, Personality::I2pd245, Personality::I2pd258, Personality::Emissary]
        .map(|personality| Config { personality, ..patient() })
}

#[test]
fn streams_come_one_after_the_other() {
    for config in bridges() {
        for keeper in ["1", "0"] {
            let bridge = Bridge::start(config.clone()).unwrap();
            let controller = controller_with(&bridge, &[("keeper", keeper)]);
            let (server, client) = (open(&controller), open(&controller));
            let listener = listen(&server);
            let fd = listener.fd();
            for round in 0..20 {
                let mut connecting = connect(&client, &server);
                let accepted = meet(&listener, Some(&mut connecting));
                let connected = stream_of(&mut connecting).unwrap();
                assert_eq!(accepted.remote().address.as_ref().unwrap().base64(), base64(&client));
                echo(&connected, &accepted, round, 5000);
                assert_eq!(listener.fd(), fd);
            }
            assert_eq!(listener.failures().0, 0);
        }
    }
}

#[test]
fn many_at_once_and_more_than_the_backlog() {
    for (accepts, backlog) in [("1", 1), ("1", 3), ("4", 2), ("4", 50)] {
        for keeper in ["1", "0"] {
            let bridge = Bridge::start(patient()).unwrap();
            let controller = controller_with(&bridge, &[("keeper", keeper)]);
            let (server, client) = (open(&controller), open(&controller));
            let listener = Listener::open(&server, backlog, &options(&[("accepts", accepts)])).unwrap();
            let mut connecting: Vec<_> = (0..20).map(|_| connect(&client, &server)).collect();
            std::thread::scope(|scope| {
                let ends = scope.spawn(|| connecting.iter_mut().map(|p| stream_of(p).unwrap()).collect::<Vec<_>>());
                let accepted: Vec<_> = (0..20).map(|_| next(&listener)).collect();
                let connected = ends.join().unwrap();
                // In whatever order they have come: each says its number.
                for (number, stream) in connected.iter().enumerate() {
                    send(stream, &[number as u8]);
                }
                let mut numbers: Vec<u8> = accepted.iter().flat_map(|stream| receive(stream, 1)).collect();
                numbers.sort_unstable();
                assert_eq!(numbers, (0..20).collect::<Vec<u8>>());
            });
        }
    }
}

#[test]
fn readable_exactly_while_a_stream_is_there() {
    let bridge = Bridge::start(patient()).unwrap();
    let controller = controller(&bridge);
    let (server, client) = (open(&controller), open(&controller));
    let listener = listen(&server);
    assert!(listener.accept(now()).unwrap().is_none());
    assert_eq!(sys::poll_one(listener.fd(), sys::IN, 50).unwrap(), 0);
    let mut connecting = connect(&client, &server);
    stream_of(&mut connecting).unwrap();
    assert_eq!(sys::poll_one(listener.fd(), sys::IN, 5000).unwrap(), sys::IN);
    assert!(listener.accept(now()).unwrap().is_some());
    assert_eq!(sys::poll_one(listener.fd(), sys::IN, 50).unwrap(), 0);
    assert_eq!(listener.timeout_ms(now()), -1);
    server.shutdown().unwrap();
    assert_eq!(sys::poll_one(listener.fd(), sys::IN, 5000).unwrap(), sys::IN);
    assert_eq!(failure(listener.accept(now())).status, Status::Closed);
    assert_eq!(failure(Listener::open(&server, 0, &options(&[]))).status, Status::Closed);
}

#[test]
fn a_failing_accept_is_tried_again() {
    for keeper in ["1", "0"] {
        let bridge = Bridge::start(patient()).unwrap();
        let controller = controller_with(&bridge, &[("keeper", keeper)]);
        let client = open(&controller);
        for action in [
            Action::replace_and_close("STREAM STATUS RESULT=I2P_ERROR MESSAGE=\"no\"\n"),
            Action::replace_and_close("STREAM STATUS RESULT=OK\nSTREAM STATUS RESULT=I2P_ERROR MESSAGE=\"late\"\n"),
            Action::replace_and_close("nonsense\n"),
        ] {
            let server = open(&controller);
            let before = bridge.texts().iter().filter(|line| line.contains("STREAM ACCEPT")).count();
            bridge.faults().every(Reply::StreamAccept, action);
            let listener = listen(&server);
            let end = Instant::now() + LONG;
            while listener.failures().0 < 4 {
                assert!(Instant::now() < end, "{:?}", listener.failures());
                assert!(listener.accept(now()).unwrap().is_none());
                let timeout = listener.timeout_ms(now());
                sys::poll_one(listener.fd(), sys::IN, if timeout < 0 { 5 } else { timeout.min(5) }).unwrap();
            }
            let (_, error) = listener.failures();
            assert!(error.is_some());
            // Paused in between: 0, 20, 40 and 80 ms allow no more.
            let accepts = bridge.texts().iter().filter(|line| line.contains("STREAM ACCEPT")).count() - before;
            assert!(accepts < 50, "{accepts} accepts");
            bridge.faults().clear_rules();
            let mut connecting = connect(&client, &server);
            let accepted = meet(&listener, Some(&mut connecting));
            echo(&stream_of(&mut connecting).unwrap(), &accepted, 1, 100);
            assert_eq!(listener.failures().0, 0);
        }
    }
}

#[test]
fn what_a_listener_leaves_goes_to_the_next() {
    for keeper in ["1", "0"] {
        let bridge = Bridge::start(Config::with_personality(Personality::Emissary)).unwrap();
        let controller = controller_with(&bridge, &[("keeper", keeper)]);
        let (server, client) = (open(&controller), open(&controller));
        for round in 0..6 {
            let listener = listen(&server);
            wait_until("it is armed", || {
                assert!(listener.accept(now()).unwrap().is_none());
                bridge.texts().iter().filter(|line| line.contains("STREAM ACCEPT")).count() > round / 2
            });
            drop(listener);
            let mut connecting = connect(&client, &server);
            let accepted = if round % 2 == 0 {
                meet(&listen(&server), Some(&mut connecting))
            } else {
                let mut accepting = server.accept(LIMIT).unwrap();
                wait_until("both", || {
                    let _ = connecting.step(now()).unwrap();
                    accepting.step(now()).unwrap() == Progress::Done
                });
                stream_of(&mut accepting).unwrap()
            };
            echo(&stream_of(&mut connecting).unwrap(), &accepted, 1, 100);
        }
    }
}

#[test]
fn an_accept_that_is_given_up_while_a_listener_waits_is_not_lost() {
    let bridge = Bridge::start(Config::with_personality(Personality::Emissary)).unwrap();
    let controller = controller(&bridge);
    let (server, client) = (open(&controller), open(&controller));
    // Asked for first: the router gives it the first stream.
    let accept = listening(&server);
    let listener = listen(&server);
    wait_until("armed", || bridge.texts().iter().filter(|line| line.contains("STREAM ACCEPT")).count() == 2);
    drop(accept);
    for round in 0..3 {
        let mut connecting = connect(&client, &server);
        let accepted = meet(&listener, Some(&mut connecting));
        echo(&stream_of(&mut connecting).unwrap(), &accepted, round, 100);
    }
}

#[test]
fn ends_in_every_order() {
    for keeper in ["1", "0"] {
        for order in 0..6 {
            let bridge = Bridge::start(patient()).unwrap();
            let controller = controller_with(&bridge, &[("keeper", keeper)]);
            let (server, client) = (open(&controller), open(&controller));
            let listener = listen(&server);
            let mut connecting = connect(&client, &server);
            let accepted = meet(&listener, Some(&mut connecting));
            let connected = stream_of(&mut connecting).unwrap();
            let mut things: Vec<Box<dyn std::any::Any>> =
                vec![Box::new(listener), Box::new(server), Box::new(accepted)];
            things.swap(0, order % 3);
            if order >= 3 {
                things.swap(1, 2);
            }
            drop(things);
            assert_eq!(receive(&connected, 1), b"");
        }
    }
}

#[test]
fn a_busy_router_is_not_asked_in_vain() {
    let bridge = Bridge::start(Config { max_version: i2psock_bridge::Version::V3_1, ..patient() }).unwrap();
    let controller = controller(&bridge);
    let (server, client) = (open(&controller), open(&controller));
    let listener = Listener::open(&server, 10, &options(&[("accepts", "5")])).unwrap();
    for round in 0..5 {
        let mut connecting = connect(&client, &server);
        let accepted = meet(&listener, Some(&mut connecting));
        echo(&stream_of(&mut connecting).unwrap(), &accepted, round, 100);
    }
    std::thread::sleep(Duration::from_millis(50));
    let asked = bridge.texts().iter().filter(|line| line.contains("STREAM ACCEPT")).count();
    assert!(asked <= 20, "asked {asked} times");
}

/// The clock stands still but for the pauses.
#[test]
fn the_pauses_grow_from_20_ms_to_5_s() {
    let bridge = Bridge::start(patient()).unwrap();
    let controller = controller_with(&bridge, &[("keeper", "0")]);
    let (server, client) = (open(&controller), open(&controller));
    // Not refused, which would mean after some time that the session is dead.
    bridge.faults().every(Reply::StreamAccept, Action::Close);
    let listener = listen(&server);
    let mut time = now();
    let mut pauses = Vec::new();
    while pauses.len() < 11 {
        // The failure may have come with the call that began the accept.
        while listener.failures().0 as usize == pauses.len() {
            assert_ne!(sys::poll_one(listener.fd(), sys::IN, LONG.as_millis() as i32).unwrap(), 0);
            assert!(listener.accept(time).unwrap().is_none());
        }
        assert_eq!(listener.failures().0 as usize, pauses.len() + 1);
        let pause = listener.timeout_ms(time);
        if pause > 0 {
            assert!(listener.accept(time + Duration::from_millis(pause as u64 - 1)).unwrap().is_none());
            assert_eq!(listener.timeout_ms(time), pause, "nothing is asked before");
        }
        pauses.push(pause);
        time += Duration::from_millis(pause as u64);
        assert!(listener.accept(time).unwrap().is_none());
    }
    assert_eq!(pauses, [0, 20, 40, 80, 160, 320, 640, 1280, 2560, 5000, 5000]);
    bridge.faults().clear_rules();
    // What comes ends the row of failures. One accept may still be answered by the old rule.
    let mut connecting = connect(&client, &server);
    let end = now() + LONG;
    let accepted = loop {
        let _ = connecting.step(now()).unwrap();
        let before = listener.failures().0;
        if let Some(stream) = listener.accept(time).unwrap() {
            break stream;
        }
        if listener.failures().0 > before {
            time += Duration::from_secs(5);
        }
        assert!(now() < end, "{:?}", listener.failures());
        sys::poll_one(listener.fd(), sys::IN, 1).unwrap();
    };
    assert_eq!(listener.failures().0, 0);
    echo(&stream_of(&mut connecting).unwrap(), &accepted, 1, 100);
}

/// An accept that is to be tried again when the session has gone: nothing is due before there is a session again.
#[test]
fn a_pause_does_not_outlast_its_session() {
    let bridge = Bridge::start(Config::default()).unwrap();
    let controller = controller_with(&bridge, &[("keeper", "0")]);
    let wanted = options(&[("recover", "1")]);
    let server = dest_of(controller.open_dest("", 1, &wanted, LIMIT).unwrap()).unwrap();
    bridge.faults().every(Reply::StreamAccept, Action::replace_and_close("STREAM STATUS RESULT=I2P_ERROR\n"));
    let listener = listen(&server);
    let presence = server.destination();
    let clock = Clock::default();
    let mut rounds = 0;
    let end = Instant::now() + LONG;
    // The loss comes in the middle of a pause.
    while listener.failures().0 < 5 || presence.timeout_ms(now()) <= 10 {
        assert!(Instant::now() < end);
        sys::poll_one(listener.fd(), sys::IN, presence.timeout_ms(now())).unwrap();
        assert!(listener.accept(now()).unwrap().is_none());
    }
    bridge.faults().kill_all_sessions(false);
    while presence.state().1 == 0 || presence.state().0 != State::Ready {
        match presence.state().0 {
            // Whatever is due is the next attempt to open the session.
            State::Recovering if presence.timeout_ms(clock.now()) >= 0 => {
                clock.pass_timeout(presence.timeout_ms(clock.now()));
            }
            _ => drop(sys::poll_one(listener.fd(), sys::IN, presence.timeout_ms(clock.now())).unwrap()),
        }
        assert!(listener.accept(clock.now()).unwrap().is_none());
        rounds += 1;
        assert!(Instant::now() < end && rounds < 200, "{rounds} rounds");
    }
}
