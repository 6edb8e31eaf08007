//! Receiving datagrams: echo over every personality, strangers, broken packets, time limits, ends and floods.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::common::datagram::*;
use super::common::*;
use i2psock::core::datagram::Dgram;
use i2psock::error::{Operation, Result, Status};
use i2psock::protocol::datagram::Origin;
use i2psock::sys;
use i2psock_bridge::{Bridge, Config, Personality};
// ---- echo ----

#[test]
fn echo_over_every_router() {
    for personality in Personality::ALL {
        let (_bridge, controller) = start(personality);
        // i2pd loses raw datagrams of one and two bytes.
        echo_both(&controller, [(DGRAM, 1..7600), (RAW, 3..7600)], &[], 1000);
    }
}

#[test]
fn echo_of_the_newer_styles() {
    let (_bridge, controller) = start(Personality::Java);
    echo_both(&controller, [(DGRAM2, 1..31745), (DGRAM3, 1..31745)], &[], 1000);
    let (_bridge, controller) = start(Personality::I2pd258);
    echo_all(&controller, DGRAM2, &[], 100, 1..7600);
}

#[test]
fn echo_over_a_bad_network() {
    let (bridge, controller) = start(Personality::Java);
    let peer = Peer::open(&controller, DGRAM, &[]);
    let faults = bridge.faults();
    faults.loss(20);
    faults.duplicate(20);
    faults.reorder(20);
    faults.forge_percent(20);
    let mut came = std::collections::HashSet::new();
    wait_until("all have come", || {
        for number in 0..100u8 {
            if !came.contains(&number) {
                peer.send(peer.address(), &[number; 50]);
            }
            while let Ok(Some((got, datagram))) = peer.try_recv(100, NOW) {
                assert_eq!((got.len(), source_of(&datagram)), (50, peer.address()));
                came.insert(got[0]);
            }
        }
        came.len() == 100
    });
    assert_eq!(peer.dgram.counts().malformed, 0);
    assert!(peer.dgram.counts().refused > 0);
}

#[test]
fn without_a_keeper() {
    let bridge = Bridge::start(Config::default()).unwrap();
    let controller = control(&bridge, &[("keeper", "0")]);
    echo_all(&controller, DGRAM, &[], 100, 1..7600);
    echo_all(&controller, RAW, &[], 100, 1..7600);
    // In band the program has to let the library read.
    let peer = Peer::open(&controller, DGRAM, &[("in_band", "1")]);
    peer.send(peer.address(), b"hello");
    let mut got = None;
    wait_until("it comes", || {
        while peer.dest.destination().service(now()).is_some() {}
        got = peer.try_recv(100, NOW).unwrap();
        got.is_some()
    });
    assert_eq!(got.unwrap().0, b"hello");
}

const LOOKS_LIKE_A_HEADER: [&[u8]; 4] =
    [b"FROM_PORT=7 TO_PORT=8 PROTOCOL=99\nhello", b" \nhello", b"PROTOCOL=6\n", b"plain text\nx"];

/// A peer could make up ports there, and have the beginning of its payload taken off: it is UNSUPPORTED, and what comes is
/// never parsed.
#[test]
fn a_router_that_ignores_the_question_for_a_header() {
    let (_bridge, controller) = start(Personality::I2pd258);
    let peer = Peer::open(&controller, RAW, &[("raw_header", "1")]);
    let stranger = Peer::open(&controller, RAW, &[]);
    let unsupported = |result: Result<usize>| {
        let error = failure(result);
        assert_eq!((error.status, error.operation), (Status::Unsupported, Operation::Receive), "{error:?}");
        assert_eq!(error.message, "the router writes no headers (option raw_header)");
    };
    for payload in LOOKS_LIKE_A_HEADER {
        stranger.send(peer.address(), payload);
        unsupported(peer.try_recv(100, 0).map(|got| got.unwrap().0.len()));
        stranger.send(peer.address(), payload);
        unsupported(peer.try_recv_many(&[100; 20], 0).map(|got| got.len()));
    }
    unsupported(peer.try_recv(100, NOW).map(|_| 0));
    wait_until("nothing keeps the descriptor readable", || {
        unsupported(peer.try_recv(100, NOW).map(|_| 0));
        !readable(&peer.dgram, 0)
    });
    assert_eq!(peer.dgram.counts().received, 0);
    // Sending is another matter, and without the option all of it is payload.
    let plain = Peer::open(&controller, RAW, &[]);
    for payload in LOOKS_LIKE_A_HEADER {
        peer.send(plain.address(), payload);
        let (got, datagram) = plain.recv();
        assert_eq!((got, datagram.origin), (payload.to_vec(), Origin::default()));
    }
}

/// Where it writes them, they are believed, and payload is payload whatever it looks like.
#[test]
fn a_router_that_writes_headers() {
    let (bridge, controller) = start(Personality::Java);
    for entries in [&[("raw_header", "1")][..], &[("raw_header", "1"), ("from_port", "5"), ("to_port", "6")]] {
        let peer = Peer::open(&controller, RAW, entries);
        let stranger = Peer::open(&controller, RAW, &[("header_options", "1")]);
        let ports = sending(&[("from_port", "1"), ("to_port", "2"), ("protocol", "77")]);
        for payload in LOOKS_LIKE_A_HEADER {
            assert!(stranger.dgram.send_to(peer.address(), payload, 0, &ports).unwrap());
            let (got, datagram) = peer.recv();
            let Origin { ports, protocol } = datagram.origin;
            assert_eq!((got, ports.from, ports.to, protocol), (payload.to_vec(), Some(1), Some(2), Some(77)));
        }
        // What comes without one now is not from the router's network.
        assert!(bridge.faults().inject(&peer.id(), b"bare"));
        assert!(stranger.dgram.send_to(peer.address(), b"good", 0, &ports).unwrap());
        assert_eq!(peer.recv().0, b"good");
        // Our own question counts for nothing.
        let counts = peer.dgram.counts();
        assert_eq!((counts.sent, counts.received, counts.malformed), (0, 5, 1));
    }
}

/// A session on a router that loses the question waits for the answer for ten seconds, asking again.
#[test]
fn nothing_is_believed_before_the_router_has_shown_how_it_writes() {
    let bridge = Bridge::start(Config::default()).unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let controller = controller_with(&bridge, &[("udp", &udp.local_addr().unwrap().to_string())]);
    let peer = Peer::open(&controller, RAW, &[("raw_header", "1")]);
    let ours = sys::local_address(peer.dgram.fd()).unwrap();
    let mut buffer = [0; 2000];
    let mut question = || {
        let len = udp.recv(&mut buffer).unwrap();
        let text = std::str::from_utf8(&buffer[..len]).unwrap();
        text.strip_prefix(&format!("3.0 {} {}\n", peer.id(), peer.address())).unwrap().to_owned()
    };
    let first = question();
    for payload in LOOKS_LIKE_A_HEADER {
        udp.send_to(payload, ours).unwrap();
        assert!(peer.try_recv(100, NOW).unwrap().is_none());
    }
    assert_eq!((peer.dgram.counts().malformed, peer.dgram.counts().received), (4, 0));
    // A receiver that waits asks again.
    std::thread::scope(|scope| {
        let receiver = scope.spawn(|| peer.recv().0);
        assert_eq!(question(), first);
        udp.send_to(format!("FROM_PORT=0 TO_PORT=0 PROTOCOL=18\n{first}").as_bytes(), ours).unwrap();
        udp.send_to(b"FROM_PORT=7\nhello", ours).unwrap();
        assert_eq!(receiver.join().unwrap(), b"hello");
    });
}

// ---- strangers ----

#[test]
fn forged_packets_are_dropped_and_counted() {
    let (bridge, controller) = start(Personality::Java);
    for style in [DGRAM, RAW] {
        let peer = Peer::open(&controller, style, &[]);
        let good = format!("{}\nforged", peer.address());
        for number in 1..=5 {
            bridge.faults().forge(&peer.id(), &good).unwrap();
            assert!(readable(&peer.dgram, 5000));
            peer.nothing();
            assert_eq!(peer.dgram.counts().refused, number);
        }
        // Between good ones, and nothing blocks on them.
        bridge.faults().forge(&peer.id(), &good).unwrap();
        peer.send(peer.address(), b"good");
        bridge.faults().forge(&peer.id(), b"").unwrap();
        assert_eq!(peer.recv().0, b"good");
        wait_until("both refused", || {
            let _ = peer.try_recv(10, NOW);
            peer.dgram.counts().refused == 7
        });
        assert_eq!(peer.dgram.counts().malformed, 0);
        assert_eq!(peer.dgram.counts().received, 1);
    }
}

#[test]
fn forged_packets_can_be_reported() {
    let (bridge, controller) = start(Personality::Java);
    let peer = Peer::open(&controller, DGRAM, &[("report_source", "1")]);
    bridge.faults().forge(&peer.id(), format!("{}\nforged", peer.address())).unwrap();
    for flags in [0, sys::MSG_PEEK] {
        let error = failure(peer.try_recv(100, flags));
        assert_eq!((error.status, error.operation), (Status::Protocol, Operation::Source));
        bridge.faults().forge(&peer.id(), "x").unwrap();
    }
    assert_eq!(failure(peer.try_recv(100, NOW)).operation, Operation::Source);
    peer.nothing();
    assert_eq!(peer.dgram.counts().refused, 3);
    // The end of the session is not a stranger.
    assert!(bridge.faults().kill_session(&peer.id(), true));
    assert_eq!(failure(peer.try_recv(100, 0)).status, Status::Closed);
    assert_eq!(peer.dgram.counts().refused, 3);
}

#[test]
fn a_router_with_another_port() {
    let (bridge, controller) = start(Personality::Java);
    let peer = Peer::open(&controller, DGRAM, &[("any_source_port", "1")]);
    bridge.faults().forge(&peer.id(), format!("{}\nhello", peer.address())).unwrap();
    assert_eq!(peer.recv().0, b"hello");
    // Another machine of the loopback net is still a stranger.
    let to = bridge.session(&peer.id()).unwrap().udp.unwrap();
    let stranger = UdpSocket::bind("127.0.0.9:0").unwrap();
    stranger.send_to(format!("{}\nbad", peer.address()).as_bytes(), to).unwrap();
    wait_until("refused", || {
        let _ = peer.try_recv(10, NOW);
        peer.dgram.counts().refused == 1
    });
}

/// Strangers who never stop must not keep a receiver beyond its time limit, nor one that does not wait at all.
#[test]
fn a_flood_of_forged_packets_does_not_hold_a_receiver() {
    let (bridge, controller) = start(Personality::Java);
    let peer = Peer::open(&controller, DGRAM, &[]);
    let to = bridge.session(&peer.id()).unwrap().udp.unwrap();
    let stop = AtomicBool::new(false);
    peer.dgram.set_timeout(50).unwrap();
    let took = std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                let until = Instant::now() + LONG;
                while !stop.load(Ordering::Relaxed) && Instant::now() < until {
                    let _ = socket.send_to(b"x", to);
                }
            });
        }
        assert!(readable(&peer.dgram, LONG.as_millis() as i32));
        let took = [(NOW, 1), (0, 1), (NOW, 20), (0, 20)].map(|(flags, many)| {
            let start = Instant::now();
            let _ = match many {
                1 => peer.try_recv(100, flags).map(drop),
                many => peer.try_recv_many(&vec![100; many], flags).map(drop),
            };
            start.elapsed()
        });
        stop.store(true, Ordering::Relaxed);
        took
    });
    assert!(took.iter().all(|took| *took < SOON), "{took:?}");
}

// ---- broken packets ----

fn broken() -> Vec<(&'static str, Vec<u8>)> {
    let far = |line: usize| [vec![b'A'; line], b"\nx".to_vec()].concat();
    vec![
        ("no newline", b"no newline".to_vec()),
        ("empty", Vec::new()),
        ("only a newline", b"\n".to_vec()),
        ("a space first", b" FROM_PORT=1\nx".to_vec()),
        // As much as a UDP packet holds.
        ("65 KB before the newline", far(65_505)),
        ("65 KB and no newline", vec![b'A'; 65_507]),
        ("2047", far(2047)),
        ("2048", far(2048)),
        ("2049", far(2049)),
        ("no base64", b"!!!!\nx".to_vec()),
        ("short base64", b"AAAA\nx".to_vec()),
        ("no destination", [vec![b'A'; 520], b"\nx".to_vec()].concat()),
        ("half a destination", [destination(1).as_bytes()[..500].to_vec(), b"\nx".to_vec()].concat()),
        ("binary", vec![0xff, 0xfe, b'\n', 0]),
        ("NULs", vec![0; 600]),
        ("ports", format!("{} FROM_PORT=99999\nx", destination(1)).into_bytes()),
        ("no port", format!("{} TO_PORT=\nx", destination(1)).into_bytes()),
        ("44 letters that are no hash", [vec![b'A'; 44], b"\nx".to_vec()].concat()),
    ]
}

#[test]
fn broken_packets_are_dropped_and_counted() {
    let (bridge, controller) = start(Personality::Java);
    for flags in [NOW, NOW | sys::MSG_PEEK] {
        let peer = Peer::open(&controller, DGRAM, &[]);
        // These begin like the last good one.
        let alike = ["", "AAAA\nx", "\0\nx", "=\nx", " FROM_PORT\nx", " FROM_PORT=1"]
            .map(|rest| (rest, format!("{}{rest}", peer.address()).into_bytes()));
        for (number, (what, packet)) in broken().into_iter().chain(alike).enumerate() {
            assert!(bridge.faults().inject(&peer.id(), packet), "{what}");
            assert!(readable(&peer.dgram, 5000), "{what}");
            assert!(peer.try_recv(100, flags).unwrap().is_none(), "{what}");
            assert_eq!(peer.dgram.counts().malformed, number as u64 + 1, "{what}");
            peer.nothing();
            // The next good one is not disturbed.
            peer.send(peer.address(), b"good");
            assert_eq!(peer.recv().0, b"good", "after {what}");
        }
        assert_eq!(peer.dgram.counts().refused, 0);
    }
}

#[test]
fn any_payload_survives() {
    let (bridge, controller) = start(Personality::Java);
    let peer = Peer::open(&controller, DGRAM, &[]);
    let long = [&b"\n\0\n\0"[..], &[b'\n'; 3000]].concat();
    for payload in [&b""[..], b"\n", b"\n\n\n", b"\0", b"a\0b\nc\r\n", &long] {
        let packet = [format!("{}\n", peer.address()).as_bytes(), payload].concat();
        assert!(bridge.faults().inject(&peer.id(), packet));
        let (got, datagram) = peer.recv();
        assert!(got == payload, "{got:?}");
        assert_eq!((datagram.len, datagram.full_len), (payload.len(), payload.len()));
        assert_eq!(datagram.origin.ports.from, None);
    }
    assert_eq!(peer.dgram.counts().malformed, 0);
    // A header that grows and shrinks: what was predicted is wrong every time.
    for number in 1..50usize {
        let more = ["", " FROM_PORT=1", " FROM_PORT=65535 TO_PORT=65535", " X=y"][number % 4];
        let payload = bytes(&mut Rng::new(number as u64), number * 7);
        let packet = [format!("{}{more}\n", peer.address()).as_bytes(), &payload].concat();
        assert!(bridge.faults().inject(&peer.id(), packet));
        for room in [payload.len() / 2, payload.len()] {
            let flags = if room == payload.len() { 0 } else { sys::MSG_PEEK };
            let (got, datagram) = peer.try_recv(room, flags).unwrap().unwrap();
            assert_eq!((got, datagram.full_len), (payload[..room].to_vec(), payload.len()), "{number} {room}");
        }
    }
    // Raw: all of it is payload, an empty one too.
    let peer = Peer::open(&controller, RAW, &[]);
    for payload in [&b""[..], b"\n", b"a\nb", &long] {
        assert!(bridge.faults().inject(&peer.id(), payload));
        assert!(peer.recv().0 == payload);
    }
}

#[test]
fn what_does_not_fit_is_cut() {
    let (_bridge, controller) = start(Personality::Java);
    for (style, entries) in [(DGRAM, &[][..]), (RAW, &[]), (DGRAM, &[("in_band", "1")]), (RAW, &[("in_band", "1")])] {
        let peer = Peer::open(&controller, style, entries);
        let payload = bytes(&mut Rng::new(1), 5000);
        for (number, room) in [0, 1, 100, 4999].into_iter().enumerate() {
            peer.send(peer.address(), &payload);
            let (got, datagram) = peer.try_recv(room, 0).unwrap().unwrap();
            assert_eq!((got, datagram.len, datagram.full_len), (payload[..room].to_vec(), room, 5000));
            assert_eq!(peer.dgram.counts().truncated, number as u64 + 1);
            peer.nothing();
        }
        peer.send(peer.address(), &payload);
        assert_eq!(peer.try_recv(5000, 0).unwrap().unwrap().1.full_len, 5000);
        assert_eq!(peer.dgram.counts().truncated, 4);
    }
}

#[test]
fn peeking() {
    let (bridge, controller) = start(Personality::Java);
    for entries in [&[][..], &[("in_band", "1")]] {
        let peer = Peer::open(&controller, DGRAM, entries);
        assert!(peer.try_recv(100, NOW | sys::MSG_PEEK).unwrap().is_none());
        peer.send(peer.address(), b"hello");
        for _ in 0..3 {
            let (got, datagram) = peer.try_recv(100, sys::MSG_PEEK).unwrap().unwrap();
            assert_eq!((got.as_slice(), source_of(&datagram)), (&b"hello"[..], peer.address()));
            assert_eq!(peer.try_recv(2, sys::MSG_PEEK).unwrap().unwrap().1.full_len, 5);
        }
        assert_eq!((peer.dgram.counts().received, peer.dgram.counts().truncated), (0, 0));
        assert_eq!(peer.recv().0, b"hello");
        assert_eq!(peer.dgram.counts().received, 1);
        peer.nothing();
    }
    // Forged ones in front are gone when the good one is seen.
    let peer = Peer::open(&controller, DGRAM, &[]);
    for _ in 0..3 {
        bridge.faults().forge(&peer.id(), format!("{}\nforged", peer.address())).unwrap();
    }
    peer.send(peer.address(), b"good");
    assert_eq!(peer.try_recv(100, sys::MSG_PEEK).unwrap().unwrap().0, b"good");
    assert_eq!(peer.dgram.counts().refused, 3);
    assert_eq!(peer.recv().0, b"good");
    peer.nothing();
    assert_eq!(peer.dgram.counts().refused, 3);
}

// ---- waiting and ends ----

#[test]
fn time_limits() {
    let (_bridge, controller) = start(Personality::Java);
    for entries in [&[][..], &[("in_band", "1")]] {
        let peer = Peer::open(&controller, DGRAM, entries);
        peer.dgram.set_timeout(50).unwrap();
        let start = Instant::now();
        let error = failure(peer.try_recv(100, 0));
        assert_eq!((error.status, error.operation), (Status::Timeout, Operation::Receive));
        assert!((Duration::from_millis(50)..SOON).contains(&start.elapsed()), "{:?}", start.elapsed());
        assert!(peer.try_recv(100, NOW).unwrap().is_none());
        peer.dgram.set_timeout(0).unwrap();
        assert_eq!(failure(peer.try_recv(100, 0)).status, Status::Timeout);
        peer.dgram.set_nonblocking(true).unwrap();
        assert!(peer.try_recv(100, 0).unwrap().is_none());
        peer.dgram.set_timeout(-1).unwrap();
        assert!(peer.try_recv(100, 0).unwrap().is_none());
        assert_eq!(failure(peer.dgram.set_timeout(-2)).status, Status::Invalid);
        peer.send(peer.address(), b"x");
        assert!(readable(&peer.dgram, 5000));
        assert_eq!(peer.try_recv(100, 0).unwrap().unwrap().0, b"x");
    }
}

/// Every way to end, while one thread receives and another polls.
#[test]
fn an_end_wakes_receivers_and_polls() {
    let mut wrong = Vec::new();
    for limit in [-1, 60_000] {
        for (style, entries) in [(DGRAM, &[][..]), (RAW, &[]), (DGRAM, &[("in_band", "1")]), (RAW, &[("in_band", "1")])]
        {
            for way in ["killed", "announced", "closed"] {
                let (bridge, controller) = start(Personality::Java);
                let peer = Peer::open(&controller, style, entries);
                peer.dgram.set_timeout(limit).unwrap();
                let (result, took) = std::thread::scope(|scope| {
                    let receiver = spawn_until_it_waits(scope, || peer.try_recv(100, 0));
                    let poller = spawn_until_it_waits(scope, || {
                        sys::poll_one(peer.dgram.fd(), sys::IN, LONG.as_millis() as i32).unwrap()
                    });
                    let start = Instant::now();
                    match way {
                        "closed" => peer.dest.destination().end("test"),
                        way => assert!(bridge.faults().kill_session(&peer.id(), way == "announced")),
                    }
                    assert_ne!(poller.join().unwrap(), 0, "poll");
                    (receiver.join().unwrap(), start.elapsed())
                });
                let case = format!("{style} {entries:?} {way} {limit}");
                assert!(took < SOON, "{case}: {took:?}");
                match result {
                    Err(error) if error.status == Status::Closed => {}
                    other => wrong.push(format!("{case}: {other:?}")),
                }
                for _ in 0..3 {
                    assert_eq!(failure(peer.try_recv(100, NOW)).status, Status::Closed);
                    assert_eq!(failure(peer.dgram.send_to(peer.address(), b"x", 0, &NONE)).status, Status::Closed);
                    assert!(readable(&peer.dgram, 0));
                }
                assert_eq!(failure(peer.dgram.set_timeout(1)).status, Status::Closed);
                assert_eq!(failure(Dgram::bind(&peer.dest)).status, Status::Closed);
                let counts = peer.dgram.counts();
                let all = (counts.received, counts.refused, counts.malformed, counts.truncated);
                // The end is not a datagram.
                if all != (0, 0, 0, 0) {
                    wrong.push(format!("{case}: {counts:?}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

// ---- several handles and threads ----

#[test]
fn several_handles_share_one_socket() {
    let (_bridge, controller) = start(Personality::Java);
    let peer = Peer::open(&controller, DGRAM, &[]);
    let other = Dgram::bind(&peer.dest).unwrap();
    assert_eq!(other.fd(), peer.dgram.fd());
    drop(other);
    peer.send(peer.address(), b"x");
    assert_eq!(peer.recv().0, b"x");
}

/// All handles tell the same, as the system does, which counts for the socket.
#[test]
fn handles_count_together() {
    let (bridge, controller) = start(Personality::Java);
    let peer = Peer::open(&controller, DGRAM, &[]);
    let other = Peer { dgram: Dgram::bind(&peer.dest).unwrap(), dest: Peer::open(&controller, DGRAM, &[]).dest };
    peer.send(peer.address(), b"one");
    assert!(other.dgram.send_to(peer.address(), b"two", 0, &NONE).unwrap());
    assert_eq!(other.try_recv(2, 0).unwrap().unwrap().0, b"on");
    assert_eq!(peer.recv().0, b"two");
    bridge.faults().forge(&peer.id(), "x").unwrap();
    assert!(bridge.faults().inject(&peer.id(), b"x"));
    other.nothing();
    for packet in std::iter::repeat_n(format!("{}\nx", peer.address()), 5000) {
        assert!(bridge.faults().inject(&peer.id(), packet));
    }
    let mut got = 2;
    while !other.try_recv_many(&[10; 20], NOW).unwrap().is_empty() || readable(&peer.dgram, 0) {}
    peer.send(peer.address(), b"last");
    assert_eq!(peer.recv().0, b"last");
    let counts = peer.dgram.counts();
    got += 5000 - counts.dropped + 1;
    assert_eq!((counts.sent, counts.received, counts.refused, counts.malformed, counts.truncated), (3, got, 1, 1, 1));
    if cfg!(target_os = "linux") {
        assert!(counts.dropped > 0, "not a flood");
    }
    assert_eq!(other.dgram.counts(), counts);
    assert_eq!(Dgram::bind(&peer.dest).unwrap().counts(), counts);
}

#[test]
fn many_threads() {
    let (_bridge, controller) = start(Personality::Java);
    for entries in [&[][..], &[("in_band", "1")]] {
        let (a, b) = (Peer::open(&controller, DGRAM, entries), Peer::open(&controller, DGRAM, entries));
        let (address, over) = (b.address().to_owned(), AtomicBool::new(false));
        b.dgram.set_timeout(10).unwrap();
        let (mut ends, limit) = (0, Instant::now() + LONG * 2);
        std::thread::scope(|scope| {
            let senders = [(); 4].map(|()| {
                scope.spawn(|| {
                    for _ in 0..250 {
                        while !a.dgram.send_to(&address, &[7; 500], NOW, &NONE).unwrap() {
                            std::thread::yield_now();
                        }
                    }
                })
            });
            for _ in 0..4 {
                scope.spawn(|| loop {
                    match b.try_recv(1000, 0) {
                        Ok(Some((got, datagram))) => {
                            assert_eq!(source_of(&datagram), a.address());
                            match got.as_slice() {
                                b"end" => over.store(true, Ordering::Relaxed),
                                got => assert_eq!(got, [7; 500]),
                            }
                        }
                        Ok(None) => panic!("BLOCK"),
                        Err(error) => {
                            assert_eq!(error.status, Status::Timeout);
                            if over.load(Ordering::Relaxed) || Instant::now() > limit {
                                break;
                            }
                        }
                    }
                });
            }
            for sender in senders {
                sender.join().unwrap();
            }
            // Behind all others; it may be lost as they may.
            wait_until("the end comes", || {
                a.send(&address, b"end");
                ends += 1;
                (0..100).any(|_| {
                    std::thread::sleep(Duration::from_millis(1));
                    over.load(Ordering::Relaxed)
                })
            });
        });
        let (sent, got) = (a.dgram.counts(), b.dgram.counts());
        assert_eq!((sent.sent, got.malformed, got.refused), (1000 + ends, 0, 0));
        // The bridge may have lost some as well.
        assert!((2..=1000 + ends).contains(&(got.received + got.dropped)), "{entries:?} {got:?}");
    }
}

#[test]
fn a_flood_by_udp() {
    const COUNT: u64 = 10_000;
    let (bridge, controller) = start(Personality::Java);
    let peer = Peer::open(&controller, DGRAM, &[]);
    for number in 0..COUNT {
        let packet = [format!("{}\n{number} ", peer.address()).as_bytes(), &[b'x'; 1000]].concat();
        assert!(bridge.faults().inject(&peer.id(), packet));
    }
    let mut got = 0;
    while peer.try_recv(2000, NOW).unwrap().is_some() {
        got += 1;
    }
    // The system tells with the next one.
    peer.send(peer.address(), b"last");
    assert_eq!(peer.recv().0, b"last");
    let counts = peer.dgram.counts();
    assert_eq!(counts.received, got + 1);
    assert!(got < COUNT, "not a flood");
    if cfg!(target_os = "linux") {
        assert_eq!(counts.dropped + got, COUNT, "{counts:?}");
    }
}
