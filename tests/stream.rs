//! Streams over the loopback bridge: every router's habits, every segmentation, every address form, every version.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::time::Duration;

use common::*;
use i2psock::core::drive::{Limit, Pending};
use i2psock::core::settings::Options;
use i2psock::core::stream::Stream;
use i2psock::error::{Operation, Status};
use i2psock_bridge::{Action, Bridge, Config, Personality, Reply, Split, Version, Which};

#[test]
fn echo_over_every_router() {
    for personality in Personality::ALL {
        let bridge = Bridge::start(Config::with_personality(personality)).unwrap();
        let controller = controller(&bridge);
        let (a, b) = (open(&controller), open(&controller));
        let (x, y) = pair(&a, &b);
        echo(&x, &y, 1, 300_000);
        assert_eq!(y.remote().address.as_ref().unwrap().base64(), base64(&a));
        assert_eq!(x.remote().address.as_ref().unwrap().base64(), base64(&b));
        let ports = (personality == Personality::Java).then_some(0);
        assert_eq!((y.remote().from_port, y.remote().to_port), (ports, ports), "{personality}");
        // By name and by hash, where the peer is not known beforehand.
        bridge.add_host("b.i2p", base64(&b));
        for name in ["b.i2p", b.destination().keys().address().host()] {
            let mut accept = listening(&b);
            let mut connect = a.connect(name, &Options::default(), LIMIT).unwrap();
            let (x, y) = (stream_of(&mut connect).unwrap(), stream_of(&mut accept).unwrap());
            assert_eq!((x.remote().text.as_str(), x.remote().address.is_none()), (name, true));
            echo(&x, &y, 2, 1000);
        }
        // The end of one side is the end of the other, after everything that was sent.
        send(&x, b"last words");
        x.drain(None).unwrap();
        drop(x);
        assert_eq!(receive(&y, 100), b"last words", "{personality}");
    }
}

/// One of everything, with payload.
fn everything(controller: &Control, personality: Personality) {
    let (a, b) = (open(controller), open(controller));
    assert_eq!(address_of(a.lookup("ME", LIMIT).unwrap()).unwrap(), base64(&a));
    let (x, y) = pair(&a, &b);
    echo(&x, &y, 3, 100);
    assert_eq!(y.remote().from_port.is_some(), personality == Personality::Java);
}

#[test]
fn every_reply_cut_at_every_byte() {
    // Longest line: SESSION STATUS with its 908 characters of keys.
    let controller_of = |bridge: &Bridge| controller(bridge);
    std::thread::scope(|scope| {
        for (personality, step) in [(Personality::Java, 3), (Personality::Emissary, 5)] {
            scope.spawn(move || {
                let bridge = Bridge::start(Config::with_personality(personality)).unwrap();
                let controller = controller_of(&bridge);
                // Short lines at every byte, the long ones at every few.
                for byte in (1..60).chain((60..1000).step_by(step * 7)) {
                    bridge.faults().split(Split::At { byte, gap: Duration::from_micros(200) });
                    everything(&controller, personality);
                }
                for bytes in [1, 2, 7] {
                    bridge.faults().split(Split::Every { bytes, gap: Duration::ZERO });
                    everything(&controller, personality);
                }
            });
        }
    });
}

#[test]
fn every_byte_of_the_replies_that_carry_streams_arrives_alone() {
    let bridge = Bridge::start(Config::default()).unwrap();
    let controller = controller(&bridge);
    let (a, b) = (open(&controller), open(&controller));
    bridge.faults().split(Split::Every { bytes: 1, gap: Duration::from_micros(50) });
    for seed in 0..3 {
        let (x, y) = pair(&a, &b);
        echo(&x, &y, seed, 5000);
    }
}

#[test]
fn status_peer_and_payload_in_one_segment() {
    at_once(Personality::ALL, |personality| {
        let bridge = Bridge::start(Config { personality, ..patient() }).unwrap();
        let controller = controller(&bridge);
        let (a, b) = (open(&controller), open(&controller));
        bridge.faults().coalesce(Some(Duration::from_millis(60)));
        for (seed, size) in [(1u64, 1usize), (2, 3000), (3, 5000), (4, 100_000)] {
            let mut accept = b.accept(LIMIT).unwrap();
            let mut connect = connect(&a, &b);
            let mut rng = Rng::new(seed);
            let bytes: Vec<u8> = (0..size).map(|_| b"\n\0PSTREAM "[rng.below(10)]).collect();
            // The connecting side speaks first, before the accepting side has looked at anything.
            std::thread::scope(|scope| {
                let expected = &bytes;
                let accepting = scope.spawn(move || {
                    let stream = stream_of(&mut accept).unwrap();
                    assert!(receive(&stream, size) == *expected, "{personality} {size}");
                    stream
                });
                let stream = stream_of(&mut connect).unwrap();
                send(&stream, &bytes);
                let accepted = accepting.join().unwrap();
                echo(&accepted, &stream, seed, 1000);
            });
        }
    });
}

#[test]
fn payload_right_behind_the_status_of_a_connect() {
    let tail = b"\nPING 1\nSTREAM STATUS RESULT=I2P_ERROR\n\0\xff payload".repeat(200);
    let expected = tail.clone();
    let script = Script::start(move |number, mut talk| match talk.greet() {
        command if command.starts_with("SESSION CREATE ") => {
            talk.session(1);
            talk.linger();
        }
        command if command.starts_with("STREAM CONNECT ") => {
            let all = [b"PING before\nSTREAM STATUS RESULT=OK X=\"a b\"\r\n", &tail[..]].concat();
            // Once in one segment, then cut around the end of the line.
            let cut = all.len() - tail.len() + 2;
            let at = if number % 2 == 0 { cut - number.min(6) } else { all.len() };
            talk.say(&all[..at]);
            talk.say(&all[at..]);
            talk.linger();
        }
        _ => {}
    });
    let controller = try_controller(&script.address(), &[]).unwrap();
    let dest = open(&controller);
    for _ in 0..8 {
        let mut connect = dest.connect(&destination(9), &Options::default(), LIMIT).unwrap();
        let stream = stream_of(&mut connect).unwrap();
        assert!(receive(&stream, expected.len()) == expected);
    }
}

#[test]
fn a_pending_s_descriptor_never_swallows_payload() {
    // The descriptor is readable when there is payload and only then, right after the header.
    let bridge = Bridge::start(Config::default()).unwrap();
    let controller = controller(&bridge);
    let (a, b) = (open(&controller), open(&controller));
    let (x, y) = pair(&a, &b);
    assert_eq!(i2psock::sys::poll_one(y.fd(), i2psock::sys::IN, 0).unwrap(), 0);
    send(&x, b"!");
    assert_eq!(i2psock::sys::poll_one(y.fd(), i2psock::sys::IN, 5000).unwrap(), i2psock::sys::IN);
    assert_eq!(receive(&y, 1), b"!");
}

#[test]
fn version_ladder() {
    for (personality, range, negotiated, hellos) in [
        (Personality::Java, "3.3", "3.3", vec!["MIN=3.1 MAX=3.3"]),
        (Personality::Emissary, "3.3", "3.2", vec!["MIN=3.1 MAX=3.3"]),
        (Personality::I2pd245, "3.3", "3.1", vec!["MIN=3.1 MAX=3.3"]),
        (Personality::I2pd258, "3.3", "3.3", vec!["MIN=3.1 MAX=3.3"]),
        (Personality::Java, "3.0", "3.0", vec!["MIN=3.0 MAX=3.0"]),
    ] {
        let bridge = Bridge::start(Config::with_personality(personality)).unwrap();
        let controller = controller_with(&bridge, &[("version_max", range)]);
        assert_eq!(controller.version().to_string(), negotiated, "{personality}");
        let hellos: Vec<String> = hellos.iter().map(|range| format!("HELLO VERSION {range}")).collect();
        assert_eq!(bridge.texts(), hellos);
    }
    // A bridge that knows 3.0 only: asked once more, and from then on at once.
    let bridge = Bridge::start(Config { max_version: Version::V3_0, ..Config::default() }).unwrap();
    let controller = controller(&bridge);
    assert_eq!(controller.version().to_string(), "3.0");
    let (a, b) = (open(&controller), open(&controller));
    let (x, y) = pair(&a, &b);
    echo(&x, &y, 1, 1000);
    let hellos: Vec<String> = bridge.texts().into_iter().filter(|line| line.starts_with("HELLO")).collect();
    assert_eq!(hellos[0], "HELLO VERSION MIN=3.1 MAX=3.3");
    assert!(hellos[1..].iter().all(|line| line == "HELLO VERSION MIN=3.0 MAX=3.3"), "{hellos:?}");
    // Who asks for a lower end gets no other.
    let error = failure(try_controller(&bridge.addr().to_string(), &[("version_min", "3.1")]));
    assert_eq!((error.status, error.tag.as_str()), (Status::Network, "NOVERSION"));
    // A bridge that refuses every version is asked twice, not for ever.
    bridge.faults().every(Reply::Hello, Action::replace_and_close("HELLO REPLY RESULT=NOVERSION\n"));
    let before = bridge.connections_total();
    let error = failure(try_controller(&bridge.addr().to_string(), &[]));
    assert_eq!((error.status, error.tag.as_str()), (Status::Network, "NOVERSION"));
    assert_eq!(bridge.connections_total() - before, 2);
}

#[test]
fn ports_where_the_router_has_them() {
    for personality in Personality::ALL {
        let bridge = Bridge::start(Config::with_personality(personality)).unwrap();
        let controller = controller(&bridge);
        let (a, b) = (open(&controller), open(&controller));
        let ports = options(&[("from_port", "7"), ("to_port", "80")]);
        let mut accept = listening(&b);
        bridge.clear_lines();
        let result = a.connect(base64(&b), &ports, LIMIT).and_then(|mut connect| stream_of(&mut connect));
        if personality == Personality::I2pd245 {
            let error = failure(result);
            assert_eq!((error.status, error.operation), (Status::Unsupported, Operation::Connect));
            assert!(!bridge.texts().iter().any(|line| line.starts_with("STREAM")), "{:?}", bridge.texts());
            let error = failure(controller.open_dest("", 1, &ports, LIMIT).and_then(dest_of));
            assert_eq!((error.status, error.operation), (Status::Unsupported, Operation::Create));
            continue;
        }
        let (x, y) = (result.unwrap(), stream_of(&mut accept).unwrap());
        assert_eq!((x.remote().from_port, x.remote().to_port), (Some(7), Some(80)));
        if personality == Personality::Java {
            assert_eq!((y.remote().from_port, y.remote().to_port), (Some(7), Some(80)));
        }
        assert!(bridge.texts().iter().any(|line| line.ends_with(" FROM_PORT=7 TO_PORT=80")));
    }
    // Refused before anything is sent where the range excludes them.
    let bridge = Bridge::start(Config::default()).unwrap();
    let controller = controller_with(&bridge, &[("version_max", "3.1")]);
    let dest = open(&controller);
    let before = bridge.connections_total();
    let error = failure(dest.connect(&destination(1), &options(&[("to_port", "1")]), LIMIT));
    assert_eq!((error.status, bridge.connections_total()), (Status::Unsupported, before));
}

/// Java uses those of SESSION CREATE for UDP datagrams alone.
#[test]
fn the_ports_of_a_destination_are_those_of_its_streams() {
    for personality in [Personality::Java, Personality::I2pd258, Personality::Emissary] {
        let bridge = Bridge::start(Config::with_personality(personality)).unwrap();
        let controller = controller(&bridge);
        let ports = options(&[("from_port", "7"), ("to_port", "80")]);
        let a = dest_of(controller.open_dest("", 1, &ports, LIMIT).unwrap()).unwrap();
        let b = open(&controller);
        for (own, from, to) in [(vec![], 7, 80), (vec![("to_port", "81")], 7, 81), (vec![("from_port", "0")], 0, 80)] {
            let mut accept = listening(&b);
            let mut connect = a.connect(base64(&b), &options(&own), LIMIT).unwrap();
            let (x, y) = (stream_of(&mut connect).unwrap(), stream_of(&mut accept).unwrap());
            assert_eq!((x.remote().from_port, x.remote().to_port), (Some(from), Some(to)), "{personality}");
            if personality == Personality::Java {
                assert_eq!((y.remote().from_port, y.remote().to_port), (Some(from), Some(to)));
            }
            assert!(bridge.texts().iter().any(|line| {
                line.starts_with("STREAM CONNECT ") && line.ends_with(&format!(" FROM_PORT={from} TO_PORT={to}"))
            }));
        }
    }
}

#[test]
fn every_address_of_a_name_is_tried() {
    let bridge = Bridge::start(Config::default()).unwrap();
    // localhost is ::1 first where there is IPv6, and nothing listens there.
    let controller = try_controller(&format!("localhost:{}", bridge.port()), &[]).unwrap();
    let (a, b) = (open(&controller), open(&controller));
    let (x, y) = pair(&a, &b);
    echo(&x, &y, 1, 100);
    // Nobody anywhere: IO, and the message helps.
    let error = failure(try_controller("localhost:1", &[]));
    assert_eq!((error.status, error.os_error), (Status::Io, 111));
    assert!(error.message.contains("is the router running and SAM enabled?"), "{}", error.message);
    let error = failure(try_controller("/nonexistent/sam", &[]));
    assert_eq!(error.status, Status::Io);
    if let Ok(bridge) = Bridge::start(Config { ipv6: true, ..Config::default() }) {
        let controller = try_controller(&format!("[::1]:{}", bridge.port()), &[]).unwrap();
        let (a, b) = (open(&controller), open(&controller));
        let (x, y) = pair(&a, &b);
        echo(&x, &y, 1, 100);
    }
}

#[test]
fn over_a_unix_socket() {
    let path = std::env::temp_dir().join(format!("i2psock-core-{}", std::process::id()));
    let bridge = Bridge::start(Config { unix: Some(path.clone()), ..Config::default() }).unwrap();
    let controller = try_controller(path.to_str().unwrap(), &[]).unwrap();
    let (a, b) = (open(&controller), open(&controller));
    let (x, y) = pair(&a, &b);
    echo(&x, &y, 1, 300_000);
    send(&x, b"end");
    x.drain(i2psock::core::drive::after(Some(LONG), now())).unwrap();
    drop(x);
    assert_eq!(receive(&y, 10), b"end");
    drop(bridge);
    assert!(!path.exists());
}

#[test]
fn refusals_of_the_router() {
    for personality in Personality::ALL {
        let bridge = Bridge::start(Config::with_personality(personality)).unwrap();
        let controller = controller(&bridge);
        let dest = open(&controller);
        let start =
            |address: &str| dest.connect(address, &Options::default(), LIMIT).and_then(|mut p| stream_of(&mut p));
        let error = failure(start(&destination(0x77)));
        assert_eq!((error.status, error.operation), (Status::Network, Operation::Connect), "{personality}: {error:?}");
        assert_eq!(error.tag, "CANT_REACH_PEER", "{personality}");
        let error = failure(start("nosuch.i2p"));
        assert_eq!((error.status, error.operation), (Status::Network, Operation::Connect), "{personality}: {error:?}");
        let unknown =
            |error: &i2psock::error::Error| (error.tag == "KEY_NOT_FOUND", error.message.contains("INVALID_KEY"));
        // emissary says that it cannot reach the peer, whatever the reason.
        let told = personality != Personality::Emissary;
        assert_eq!(unknown(&error), (told, told), "{personality}: {error:?}");
        let error = failure(start(&format!("{}.b32.i2p", "a".repeat(52))));
        assert_eq!((error.status, error.operation), (Status::Network, Operation::Connect), "{personality}: {error:?}");
        let java = personality == Personality::Java;
        assert_eq!(error.tag, if java { "KEY_NOT_FOUND" } else { "CANT_REACH_PEER" }, "{personality}: {error:?}");
        assert_eq!(error.message.contains("INVALID_KEY: Lease set not found"), java, "{personality}: {error:?}");
        // Nothing of that harms the session.
        assert_eq!(address_of(dest.lookup("ME", LIMIT).unwrap()).unwrap(), base64(&dest));
        for name in ["nosuch.i2p", &format!("{}.b32.i2p", "a".repeat(52))] {
            // The answer may be there before the start has returned.
            let error = failure(dest.lookup(name, LIMIT).and_then(address_of));
            assert_eq!((error.status, error.tag.as_str()), (Status::Network, "KEY_NOT_FOUND"), "{personality}");
        }
        // The same keys twice: also an error where the router would take them, and both sessions would be dead.
        let mut same = Options::default();
        same.set_keys(Some(dest.destination().keys()));
        let short = Limit::After(Duration::from_millis(300));
        let error = failure(controller.open_dest("", 1, &same, short).and_then(dest_of));
        assert_eq!((error.status, error.tag.as_str()), (Status::Network, "DUPLICATED_DEST"), "{personality}");
        assert_eq!(address_of(dest.lookup("ME", LIMIT).unwrap()).unwrap(), base64(&dest));
    }
}

#[test]
fn a_peer_without_a_destination_ends_that_accept_only() {
    let bridge = Bridge::start(Config::default()).unwrap();
    let controller = controller(&bridge);
    let (a, b) = (open(&controller), open(&controller));
    for line in ["unknown\n", "\n", "STREAM\n", "AAAA FROM_PORT=1\n"] {
        bridge.faults().once(Reply::StreamAcceptPeer, Action::replace(line));
        let mut accept = listening(&b);
        let connected = stream_of(&mut connect(&a, &b));
        let error = failure(stream_of(&mut accept));
        assert_eq!((error.status, error.operation), (Status::Protocol, Operation::Accept), "{line:?}");
        assert!(error.message.contains(line.trim_end()));
        drop(connected);
        bridge.faults().clear_rules();
        let (x, y) = pair(&a, &b);
        echo(&x, &y, 1, 100);
    }
    for (text, tag) in [
        ("STREAM STATUS RESULT=I2P_ERROR MESSAGE=\"Router restart\"", "I2P_ERROR"),
        ("STREAM STATUS RESULT=ALREADY_ACCEPTING", "ALREADY_ACCEPTING"),
    ] {
        bridge.faults().once(Reply::StreamAcceptPeer, Action::replace_and_close(text));
        let mut accept = listening(&b);
        let connected = stream_of(&mut connect(&a, &b));
        let error = failure(stream_of(&mut accept));
        assert_eq!((error.status, error.tag.as_str()), (Status::Network, tag));
        drop(connected);
        bridge.faults().clear_rules();
    }
}

#[test]
fn replies_that_end_after_every_byte() {
    let bridge = Bridge::start(Config::default()).unwrap();
    let controller = controller(&bridge);
    let (a, b) = (open(&controller), open(&controller));
    let faults = bridge.faults();
    // The end of a connection is followed by a pause, in which the end of its session may show.
    let end_of = |pending: i2psock::error::Result<Pending<Stream>>| {
        failure(pending.and_then(|mut pending| complete_without_pauses(&mut pending)))
    };
    for count in 0..24 {
        faults.rule(Reply::StreamConnect, Which::Every, Action::CloseAfter(count));
        faults.rule(Reply::StreamAccept, Which::Every, Action::CloseAfter(count));
        faults.rule(Reply::NamingLookup, Which::Every, Action::CloseAfter(count));
        let limit = Limit::After(LONG);
        for error in [end_of(a.connect(base64(&b), &Options::default(), limit)), end_of(b.accept(limit))] {
            assert!(matches!(error.status, Status::Protocol | Status::Network), "{count}: {error:?}");
        }
        faults.clear_rules();
    }
    for count in (0..930).step_by(31) {
        faults.rule(Reply::SessionCreate, Which::Every, Action::CloseAfter(count));
        let error = failure(try_open(&controller, LIMIT));
        // Without a single byte of it, the router may have been stopped.
        let expected = if count == 0 { Status::Closed } else { Status::Protocol };
        assert!(matches!(error.status, Status::Network) || error.status == expected, "{count}: {error:?}");
        faults.clear_rules();
        // Without a single byte of it, it is asked for again.
        faults.rule(Reply::StreamAcceptPeer, Which::Every, Action::CloseAfter(count.clamp(1, 546)));
        let accept = listening(&b);
        let mut connecting = connect(&a, &b);
        let connected = complete_without_pauses(&mut connecting).and_then(|()| take_stream(&mut connecting));
        let error = end_of(Ok(accept));
        assert_eq!(error.status, Status::Protocol, "{count}: {error:?}");
        drop(connected);
        faults.clear_rules();
    }
    for count in 0..34 {
        faults.rule(Reply::Hello, Which::Every, Action::CloseAfter(count));
        let error = failure(try_controller(&bridge.addr().to_string(), &[]));
        assert_eq!(error.operation, Operation::Handshake, "{count}: {error:?}");
        faults.clear_rules();
    }
    let (x, y) = pair(&a, &b);
    echo(&x, &y, 1, 100);
}

/// A close drains: the system's queue is empty long before a peer that never stops talking stops talking.
#[test]
fn drain_ends_although_the_peer_goes_on_talking() {
    let script = Script::start(|_, mut talk| match talk.greet() {
        command if command.starts_with("SESSION CREATE ") => {
            talk.session(1);
            talk.linger();
        }
        command if command.starts_with("STREAM CONNECT ") => {
            talk.say("STREAM STATUS RESULT=OK\n");
            let mut other = Talk(talk.0.try_clone().unwrap());
            std::thread::spawn(move || other.linger());
            let end = std::time::Instant::now() + LONG;
            let flood = vec![7; 1 << 20];
            while std::time::Instant::now() < end && talk.say(&flood) {}
            talk.hang_up();
        }
        _ => {}
    });
    let controller = try_controller(&script.address(), &[]).unwrap();
    let dest = open(&controller);
    let stream: Stream = stream_of(&mut dest.connect(&destination(9), &Options::default(), LIMIT).unwrap()).unwrap();
    assert_eq!(receive(&stream, 100_000).len(), 100_000);
    send(&stream, b"bye");
    let start = std::time::Instant::now();
    stream.drain(None).unwrap();
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
}
