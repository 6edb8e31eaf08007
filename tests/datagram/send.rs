//! Sending datagrams: what is said to the bridge, names, options of the destination, bridges that do not listen.

use std::net::{SocketAddr, UdpSocket};

use super::common::datagram::*;
use super::common::*;
use i2psock::core::datagram::{Dgram, Outgoing};
use i2psock::core::settings::Options;
use i2psock::error::{Error, Operation, Status};
use i2psock::protocol::datagram::Source;
use i2psock::sys;
use i2psock_bridge::{Action, Bridge, Config, Personality, Reply, Version};
// ---- what is said to the bridge ----

fn created(bridge: &Bridge, id: &str) -> String {
    let part = format!(" ID={id} ");
    let line = bridge.texts().into_iter().find(|line| line.starts_with("SESSION CREATE") && line.contains(&part));
    line.expect("SESSION CREATE")
}

#[test]
fn the_exact_words() {
    let (bridge, controller) = start(Personality::Java);
    let tail = "inbound.nickname=n outbound.nickname=n inbound.quantity=3 outbound.quantity=3 i2cp.leaseSetEncType=4,0";
    type Case = (i32, &'static str, &'static [(&'static str, &'static str)], &'static str);
    let cases: [Case; 9] = [
        (DGRAM, "DATAGRAM", &[], " PORT=% HOST=127.0.0.1"),
        (DGRAM2, "DATAGRAM2", &[], " PORT=% HOST=127.0.0.1"),
        (DGRAM3, "DATAGRAM3", &[], " PORT=% HOST=127.0.0.1"),
        (RAW, "RAW", &[], " PORT=% HOST=127.0.0.1"),
        (RAW, "RAW", &[("protocol", "200"), ("raw_header", "1")], " PORT=% HOST=127.0.0.1 PROTOCOL=200 HEADER=true"),
        (RAW, "RAW", &[("raw_header", "0")], " PORT=% HOST=127.0.0.1"),
        (DGRAM, "DATAGRAM", &[("from_port", "7"), ("to_port", "8")], " FROM_PORT=7 TO_PORT=8 PORT=% HOST=127.0.0.1"),
        (DGRAM, "DATAGRAM", &[("in_band", "1")], ""),
        (RAW, "RAW", &[("in_band", "1"), ("protocol", "99")], " PROTOCOL=99"),
    ];
    for (style, word, entries, words) in cases {
        let peer = Peer::open(&controller, style, &[&[("nickname", "n")], entries].concat());
        let port = bridge.session(&peer.id()).unwrap().udp.map_or(0, |place| place.port());
        let words = words.replace('%', &port.to_string());
        let id = &peer.id();
        let wanted =
            format!("SESSION CREATE STYLE={word} ID={id} DESTINATION=TRANSIENT SIGNATURE_TYPE=7{words} {tail}");
        assert_eq!(created(&bridge, id), wanted);
    }
    // Headers.
    let peer = Peer::open(&controller, RAW, &[("header_options", "1")]);
    bridge.clear_lines();
    peer.send(peer.address(), b"abc");
    peer.recv();
    let all = sending(&[
        ("send_leaseset", "0"),
        ("expires", "60"),
        ("from_port", "1"),
        ("to_port", "65535"),
        ("protocol", "200"),
        ("send_tags", "3"),
        ("tag_threshold", "4"),
    ]);
    assert!(peer.dgram.send_to(peer.address(), b"x\ny", 0, &all).unwrap());
    assert_eq!(peer.recv().0, b"x\ny");
    let start = format!("3.0 {} {}", peer.id(), peer.address());
    let pairs = "FROM_PORT=1 TO_PORT=65535 PROTOCOL=200 SEND_TAGS=3 TAG_THRESHOLD=4 EXPIRES=60 SEND_LEASESET=false";
    assert_eq!(bridge.udp_headers(), [start.clone(), format!("{start} {pairs}")]);
    assert!(bridge.texts().is_empty(), "{:?}", bridge.texts());
    // In band.
    let peer = Peer::open(&controller, RAW, &[("in_band", "1"), ("header_options", "1")]);
    bridge.clear_lines();
    peer.send(peer.address(), b"abc");
    peer.recv();
    let ports = sending(&[("from_port", "1"), ("protocol", "77")]);
    assert!(peer.dgram.send_to(peer.address(), b"q\n", 0, &ports).unwrap());
    let (got, datagram) = peer.recv();
    assert_eq!((got, datagram.origin.ports.from, datagram.origin.protocol), (b"q\n".to_vec(), Some(1), Some(77)));
    let start = format!("RAW SEND DESTINATION={}", peer.address());
    assert_eq!(bridge.texts(), [format!("{start} SIZE=3"), format!("{start} SIZE=2 FROM_PORT=1 PROTOCOL=77")]);
    assert!(bridge.udp_headers().is_empty());
}

/// PROTOCOL and HEADER came with SAM 3.2, as ports did, which are UNSUPPORTED before.
#[test]
fn an_old_bridge_is_not_asked_for_what_it_does_not_know() {
    let bridge = Bridge::start(Config { max_version: Version::V3_1, ..Config::default() }).unwrap();
    let controller = control(&bridge, &[]);
    for (style, key, value) in
        [(DGRAM, "from_port", "5"), (RAW, "to_port", "5"), (RAW, "protocol", "200"), (RAW, "raw_header", "1")]
    {
        let result = Peer::try_open(&controller, style, &[(key, value)]);
        assert_eq!(failure(result).status, Status::Unsupported, "{key}");
    }
}

#[test]
fn options_of_single_datagrams_have_to_be_wanted() {
    let (bridge, controller) = start(Personality::Java);
    let plain = Peer::open(&controller, DGRAM, &[]);
    for (key, value) in
        [("from_port", "0"), ("to_port", "1"), ("expires", "1"), ("send_tags", "0"), ("send_leaseset", "1")]
    {
        let options = sending(&[(key, value)]);
        let error = failure(plain.dgram.send_to(plain.address(), b"x", 0, &options));
        assert_eq!((error.status, error.operation), (Status::Unsupported, Operation::Send), "{key}");
    }
    assert!(bridge.udp_headers().is_empty());
    let free = Peer::open(&controller, DGRAM, &[("header_options", "1")]);
    let ports = sending(&[("from_port", "5"), ("to_port", "6")]);
    assert!(free.dgram.send_to(plain.address(), b"x", 0, &ports).unwrap());
    let (_, datagram) = plain.recv();
    assert_eq!((datagram.origin.ports.from, datagram.origin.ports.to), (Some(5), Some(6)));
    // Raw, with a header that tells.
    let to = Peer::open(&controller, RAW, &[("raw_header", "1")]);
    let from = Peer::open(&controller, RAW, &[("header_options", "1")]);
    let all = sending(&[("from_port", "5"), ("to_port", "6"), ("protocol", "222")]);
    assert!(from.dgram.send_to(to.address(), b"\n", 0, &all).unwrap());
    let (got, datagram) = to.recv();
    assert_eq!((got, datagram.full_len), (b"\n".to_vec(), 1));
    assert_eq!(
        (datagram.origin.ports.from, datagram.origin.ports.to, datagram.origin.protocol),
        (Some(5), Some(6), Some(222))
    );
}

/// PROTOCOL is for raw datagrams alone.
#[test]
fn a_protocol_for_a_repliable_datagram_is_refused() {
    let (_bridge, controller) = start(Personality::Java);
    let peer = Peer::open(&controller, DGRAM, &[("header_options", "1")]);
    let options = sending(&[("protocol", "200")]);
    assert_eq!(failure(peer.dgram.send_to(peer.address(), b"x", 0, &options)).status, Status::Invalid);
}

#[test]
fn flags_and_sizes() {
    let (bridge, controller) = start(Personality::Java);
    for entries in [&[][..], &[("in_band", "1"), ("in_band_max", "131072")]] {
        let (dgram, raw) = (Peer::open(&controller, DGRAM, entries), Peer::open(&controller, RAW, entries));
        for flags in [libc::MSG_WAITALL, libc::MSG_OOB, libc::MSG_TRUNC, 1 << 30, libc::MSG_WAITALL | NOW] {
            assert_eq!(failure(dgram.try_recv(10, flags)).status, Status::Invalid, "{flags:#x}");
            assert_eq!(failure(dgram.dgram.send_to(dgram.address(), b"x", flags, &NONE)).status, Status::Invalid);
        }
        assert_eq!(failure(dgram.dgram.send_to(dgram.address(), b"x", sys::MSG_PEEK, &NONE)).status, Status::Invalid);
        bridge.clear_lines();
        let before = bridge.datagram_counts().received;
        for (peer, bad) in [(&dgram, [0, 31745, 32768, 65536]), (&raw, [0, 32769, 65507, 65536])] {
            for size in bad {
                let error = failure(peer.dgram.send_to(peer.address(), &vec![1; size], 0, &NONE));
                assert_eq!(error.status, Status::Invalid, "{size}");
                assert!(error.message.contains(&size.to_string()), "{}", error.message);
            }
        }
        assert_eq!(bridge.datagram_counts().received, before);
        for (peer, size) in [(&dgram, 31744), (&raw, 31745), (&raw, 32768), (&dgram, 1), (&raw, 1)] {
            let payload = bytes(&mut Rng::new(size as u64), size);
            peer.send(peer.address(), &payload);
            assert!(peer.recv().0 == payload, "{size}");
        }
    }
}

// ---- names ----

#[test]
fn names_are_asked_for_once() {
    for personality in Personality::ALL {
        let (bridge, controller) = start(personality);
        let peer = Peer::open(&controller, DGRAM, &[]);
        assert!(bridge.add_host("bob.i2p", peer.address()));
        for _ in 0..5 {
            peer.send("bob.i2p", b"hello");
            assert_eq!(peer.recv().0, b"hello");
        }
        assert_eq!(lookups(&bridge, "bob.i2p"), 1, "{personality}");
        let host = format!("{}.b32.i2p", peer.dest.destination().keys().address().base32());
        for _ in 0..3 {
            peer.send(&host, b"hello");
            assert_eq!(peer.recv().0, b"hello");
        }
        assert_eq!(lookups(&bridge, &host), 1, "{personality}");
        // Always base64 on the wire, whatever was given.
        let wanted = format!("3.0 {} {}", peer.id(), peer.address());
        assert!(bridge.udp_headers().iter().all(|header| *header == wanted));
        let error = failure(peer.dgram.send_to("nobody.i2p", b"x", 0, &NONE));
        assert_eq!((error.status, error.tag.as_str()), (Status::Network, "KEY_NOT_FOUND"), "{error:?}");
        // It is asked again: the answer may be another one now.
        assert!(bridge.add_host("nobody.i2p", peer.address()));
        peer.send("nobody.i2p", b"there");
        assert_eq!(peer.recv().0, b"there");
    }
}

/// What does not wait asks for nothing, whatever becomes of it; what has been looked up is there at once.
#[test]
fn names_without_waiting() {
    for (keeper, style, in_band) in [("1", DGRAM, "0"), ("0", RAW, "0"), ("1", RAW, "1"), ("0", DGRAM, "1")] {
        let bridge = Bridge::start(Config::default()).unwrap();
        let controller = control(&bridge, &[("keeper", keeper)]);
        let peer = Peer::open(&controller, style, &[("in_band", in_band)]);
        let host = format!("{}.b32.i2p", peer.dest.destination().keys().address().base32());
        assert!(bridge.add_host("bob.i2p", peer.address()));
        bridge.clear_lines();
        let connections = bridge.connections_total();
        for (nonblocking, flags) in [(false, NOW), (true, 0)] {
            peer.dgram.set_nonblocking(nonblocking).unwrap();
            for name in ["bob.i2p", "BOB.i2p", "nobody.i2p", &host] {
                let error = failure(peer.dgram.send_to(name, b"x", flags, &NONE));
                assert_eq!((error.status, error.operation), (Status::State, Operation::Send), "{error:?}");
                assert!(error.message.contains("look it up first"), "{}", error.message);
                let outgoing = Outgoing { address: name, payload: b"x" };
                let (sent, result) = peer.dgram.send_many(&[outgoing], flags);
                assert_eq!((sent, failure(result).status), (0, Status::State));
            }
        }
        assert_eq!((bridge.texts(), bridge.connections_total()), (Vec::<String>::new(), connections));
        // Whichever handle looks it up, and however it is written: all handles know it then.
        let second = Dgram::bind(&peer.dest).unwrap();
        for name in ["Bob.i2p", &host] {
            assert_eq!(peer.dest.lookup(name, LIMIT).unwrap().product().unwrap().base64(), peer.address());
        }
        for dgram in [&peer.dgram, &second] {
            for name in ["bob.i2p", "BOB.i2p", &host] {
                assert!(dgram.send_to(name, b"abc", 0, &NONE).unwrap());
                peer.dgram.set_nonblocking(false).unwrap();
                assert_eq!(peer.recv().0, b"abc");
                peer.dgram.set_nonblocking(true).unwrap();
            }
        }
        assert_eq!((lookups(&bridge, "bob.i2p"), lookups(&bridge, &host)), (1, 1));
        assert!(peer.dest.lookup("nobody.i2p", LIMIT).unwrap().product().is_err());
        assert_eq!(failure(peer.dgram.send_to("nobody.i2p", b"x", 0, &NONE)).status, Status::State);
    }
}

/// The socket's own limit counts, and that of lookups, whichever is shorter.
#[test]
fn names_without_an_answer_end_at_the_time_limit() {
    for (lookup_timeout, timeout) in [("100", -1), ("100", 600_000), ("600000", 100)] {
        let bridge = Bridge::start(Config::default()).unwrap();
        let controller = control(&bridge, &[("lookup_timeout", lookup_timeout)]);
        let peer = Peer::open(&controller, DGRAM, &[]);
        bridge.faults().every(Reply::NamingLookup, Action::Stall);
        peer.dgram.set_timeout(timeout).unwrap();
        let error = failure(peer.dgram.send_to("a.i2p", b"x", 0, &NONE));
        assert_eq!((error.status, error.operation), (Status::Timeout, Operation::Lookup));
        assert_eq!(error.message, "the name a.i2p was not resolved in time");
        let (sent, result) = peer.dgram.send_many(&[Outgoing { address: "a.i2p", payload: b"x" }], 0);
        assert_eq!((sent, failure(result).status), (0, Status::Timeout));
    }
}

#[test]
fn bad_addresses_go_nowhere() {
    let (bridge, controller) = start(Personality::Java);
    let peer = Peer::open(&controller, DGRAM, &[]);
    bridge.clear_lines();
    let target = destination(1);
    let cut =
        [target[..500].to_owned(), format!("{target}\n\n"), format!(" {target}"), format!("{target} FROM_PORT=1")];
    let texts = ["", "a b", "a\nQUIT", "a.i2p\n\n", "a\0.i2p", "\u{e9}.i2p", "AAAA", "a.i2p:80", "TRANSIENT", "ME"];
    for text in texts.into_iter().chain(cut.iter().map(String::as_str)) {
        for flags in [0, NOW] {
            let error = failure(peer.dgram.send_to(text, b"x", flags, &NONE));
            assert_eq!(error.status, Status::Invalid, "{text:?}");
        }
    }
    assert!(bridge.texts().is_empty() && bridge.udp_headers().is_empty());
}

#[test]
fn hashes_are_resolved_once() {
    let (bridge, controller) = start(Personality::Java);
    let (a, b) = (Peer::open(&controller, DGRAM3, &[]), Peer::open(&controller, DGRAM3, &[]));
    a.send(b.address(), b"x");
    let Some(Source::Hash(hash)) = b.recv().1.source else { panic!() };
    for _ in 0..3 {
        assert_eq!(b.dgram.resolve(&hash, LIMIT).unwrap().base64(), a.address());
    }
    let host = format!("{}.b32.i2p", a.dest.destination().keys().address().base32());
    assert_eq!(lookups(&bridge, &host), 1);
    // What was resolved for the sender serves for the answer.
    b.send(&host, b"y");
    assert_eq!(a.recv().0, b"y");
    assert_eq!(lookups(&bridge, &host), 1);
    let error = failure(b.dgram.resolve(&[7; 32], LIMIT));
    assert_eq!((error.status, error.tag.as_str()), (Status::Network, "KEY_NOT_FOUND"));
}

/// "No lock of the library is held" while the log hook runs: other threads must get on.
#[test]
fn the_log_hook_holds_nobody_up() {
    let (bridge, controller) = start(Personality::Java);
    let peer = Peer::open(&controller, DGRAM, &[]);
    assert!(bridge.add_host("bob.i2p", peer.address()));
    let (inside, entered) = std::sync::mpsc::channel();
    let (release, go) = std::sync::mpsc::channel::<()>();
    let (inside, go) = (std::sync::Mutex::new(inside), std::sync::Mutex::new(go));
    controller.bridge().log.set(Some(std::sync::Arc::new(move |line: &str| {
        if line.starts_with("-> NAMING LOOKUP") {
            let _ = inside.lock().unwrap().send(());
            let _ = go.lock().unwrap().recv_timeout(LONG);
        }
    })));
    std::thread::scope(|scope| {
        scope.spawn(|| peer.dgram.send_to("bob.i2p", b"x", 0, &NONE));
        entered.recv_timeout(LONG).unwrap();
        let (done, finished) = std::sync::mpsc::channel();
        let peer = &peer;
        scope.spawn(move || {
            peer.send(peer.address(), b"meanwhile");
            let _ = done.send(());
        });
        let on = finished.recv_timeout(SOON).is_ok();
        let _ = release.send(());
        controller.bridge().log.set(None);
        assert!(on, "send_to waits for a lock that is held while the log hook runs");
    });
}

// ---- options of the destination ----

fn refusal(controller: &Control, style: i32, entries: &[(&str, &str)]) -> Error {
    failure(Peer::try_open(controller, style, entries))
}

#[test]
fn where_the_bridge_sends_to() {
    let (bridge, controller) = start(Personality::Java);
    let free: SocketAddr = ([127, 0, 0, 1], free_udp_port("127.0.0.1")).into();
    for text in [free.port().to_string(), free.to_string(), format!("127.0.0.2:{}", free.port())] {
        let peer = Peer::open(&controller, DGRAM, &[("forward", &text)]);
        assert_eq!(bridge.session(&peer.id()).unwrap().udp.unwrap().port(), free.port(), "{text}");
        peer.send(peer.address(), b"x");
        assert_eq!(peer.recv().0, b"x");
        let taken = refusal(&controller, DGRAM, &[("forward", &text)]);
        assert_eq!((taken.status, taken.os_error), (Status::Io, libc::EADDRINUSE), "{taken:?}");
        drop(peer);
    }
    let foreign = refusal(&controller, DGRAM, &[("forward", "192.0.2.1:4000")]);
    assert_eq!((foreign.status, foreign.os_error), (Status::Io, libc::EADDRNOTAVAIL), "{foreign:?}");
    let (lines, total) = (bridge.texts().len(), bridge.connections_total());
    let texts = [
        "nonsense",
        "65536",
        "-1",
        "127.0.0.1",
        "127.0.0.1:",
        ":5",
        "localhost:5",
        "[::1]",
        "1.2.3.4:99999",
        "[::1]:5",
        " 5",
    ];
    for text in texts {
        assert_eq!(refusal(&controller, DGRAM, &[("forward", text)]).status, Status::Invalid, "{text}");
    }
    assert_eq!(refusal(&controller, DGRAM, &[("forward", "5"), ("in_band", "1")]).status, Status::Invalid);
    for key in ["forward", "in_band", "protocol", "raw_header", "header_options", "any_source_port", "report_source"] {
        assert_eq!(refusal(&controller, STREAM, &[(key, "1")]).status, Status::Invalid, "{key}");
    }
    for style in [DGRAM, DGRAM2, DGRAM3] {
        for key in ["protocol", "raw_header"] {
            assert_eq!(refusal(&controller, style, &[(key, "1")]).status, Status::Invalid, "{key}");
        }
    }
    for number in ["6", "17", "19", "20"] {
        assert_eq!(refusal(&controller, RAW, &[("protocol", number)]).status, Status::Invalid, "{number}");
    }
    assert_eq!((bridge.texts().len(), bridge.connections_total()), (lines, total));
}

/// emissary says OK to a destination with ports, and no datagram ever gets there. Others have no such habit, nor has it
/// with streams.
#[test]
fn what_a_router_is_known_to_lose_is_refused_or_told() {
    for personality in [Personality::Emissary, Personality::Java, Personality::I2pd258] {
        let (_bridge, controller) = start(personality);
        let (lines, log) = std::sync::mpsc::channel();
        let lines = std::sync::Mutex::new(lines);
        let hook = move |line: &str| drop(lines.lock().unwrap().send(line.to_owned()));
        controller.bridge().log.set(Some(std::sync::Arc::new(hook)));
        for (entries, lost) in [
            (&[("from_port", "5")][..], true),
            (&[("to_port", "6")], true),
            (&[("from_port", "0"), ("to_port", "0")], false),
        ] {
            for style in [DGRAM, RAW] {
                let result = Peer::try_open(&controller, style, entries).map(drop);
                if lost && personality == Personality::Emissary {
                    let error = failure(result);
                    assert_eq!((error.status, error.operation), (Status::Unsupported, Operation::Create));
                    assert!(error.message.contains("emissary"), "{}", error.message);
                } else {
                    result.unwrap();
                }
            }
            drop(dest_of(controller.open_dest("", STREAM, &options(entries), LIMIT).unwrap()).unwrap());
        }
        if personality != Personality::Emissary {
            while log.try_recv().is_ok() {}
            drop(Peer::open(&controller, DGRAM3, &[]));
            let told = log.try_iter().filter(|line| line.contains("DATAGRAM3: some routers")).count();
            assert_eq!(told, 1);
        }
        controller.bridge().log.set(None);
    }
}

/// A wildcard is not an address a router could send to.
#[test]
fn a_wildcard_is_not_told_to_the_router() {
    let (bridge, controller) = start(Personality::Java);
    match Peer::try_open(&controller, DGRAM, &[("forward", "0.0.0.0:0")]) {
        Err(error) => assert_eq!(error.status, Status::Invalid),
        Ok(peer) => assert!(!created(&bridge, &peer.id()).contains("HOST=0.0.0.0"), "HOST=0.0.0.0"),
    }
}

#[test]
fn over_ipv6() {
    let bridge = Bridge::start(Config { ipv6: true, ..Config::default() }).unwrap();
    let udp = format!("[::1]:{}", bridge.udp_port());
    let sam = format!("[::1]:{}", bridge.port());
    let controller = try_controller(&sam, &[("udp", &udp)]).unwrap();
    let forward = format!("[::1]:{}", free_udp_port("::1"));
    for entries in [&[][..], &[("forward", forward.as_str())]] {
        let peer = Peer::open(&controller, DGRAM, entries);
        assert!(created(&bridge, &peer.id()).contains(" HOST=::1 "));
        peer.send(peer.address(), b"six");
        assert_eq!(peer.recv().0, b"six");
        bridge.faults().forge(&peer.id(), "x\nx").unwrap();
        wait_until("refused", || {
            let _ = peer.try_recv(10, NOW);
            peer.dgram.counts().refused == 1
        });
    }
    assert_eq!(refusal(&controller, DGRAM, &[("forward", "127.0.0.1:0")]).status, Status::Invalid);
}

#[test]
fn streams_and_datagrams_do_not_mix() {
    let (bridge, controller) = start(Personality::Java);
    let (stream, peer) = (open(&controller), Peer::open(&controller, DGRAM, &[]));
    let lines = bridge.texts().len();
    assert_eq!(failure(Dgram::bind(&stream)).status, Status::State);
    assert_eq!(failure(peer.dest.connect(base64(&stream), &Options::default(), LIMIT)).status, Status::State);
    assert_eq!(failure(peer.dest.accept(LIMIT)).status, Status::State);
    assert_eq!(bridge.texts().len(), lines);
    assert_eq!(failure(controller.open_dest("", 6, &Options::default(), LIMIT)).status, Status::Invalid);
}

// ---- bridges that do not listen ----

/// A bridge whose UDP side is gone: it is seen within a second or so, then every datagram is told until it is back.
#[cfg(target_os = "linux")]
#[test]
fn a_bridge_that_stopped_listening_for_datagrams() {
    let bridge = Bridge::start(Config::default()).unwrap();
    let place = SocketAddr::from(([127, 0, 0, 1], free_udp_port("127.0.0.1")));
    let mut udp = UdpSocket::bind(place).unwrap();
    let controller = controller_with(&bridge, &[("udp", &place.to_string())]);
    let peer = Peer::open(&controller, DGRAM, &[]);
    let ours = sys::local_address(peer.dgram.fd()).unwrap();
    let payload = Outgoing { address: peer.address(), payload: b"x" };
    for many in [false, true] {
        let send = || match many {
            false => peer.dgram.send_to(peer.address(), b"x", 0, &NONE),
            true => peer.dgram.send_many(&[payload; 20], 0).1,
        };
        assert!(send().unwrap());
        udp.send_to(format!("{}\nhere", peer.address()).as_bytes(), ours).unwrap();
        assert_eq!(peer.recv().0, b"here");
        drop(udp);
        wait_until("it is seen", || send().is_err());
        for _ in 0..10 {
            let before = peer.dgram.counts().sent;
            let error = failure(send());
            assert_eq!((error.status, error.os_error), (Status::Io, libc::ECONNREFUSED));
            assert_eq!(peer.dgram.counts().sent, before);
        }
        assert_eq!(failure(peer.try_recv(10, NOW)).os_error, libc::ECONNREFUSED);
        assert_eq!(sys::poll_one(peer.dgram.fd(), sys::IN, 0).unwrap(), 0, "nothing for poll");
        udp = UdpSocket::bind(place).unwrap();
        wait_until("it is back", || send().is_ok());
    }
}

/// A bridge whose UDP side is not there: told every time, to who sends and to who receives, and poll can wait.
#[cfg(target_os = "linux")]
#[test]
fn nobody_listens_for_datagrams() {
    let bridge = Bridge::start(Config::default()).unwrap();
    let place = format!("127.0.0.1:{}", free_udp_port("127.0.0.1"));
    let controller = controller_with(&bridge, &[("udp", &place)]);
    let message = format!("nothing listens for datagrams at {place} (option udp; i2pd: SAM port - 1)");
    for style in [DGRAM, RAW] {
        let peer = Peer::open(&controller, style, &[]);
        let told = |error: Error, operation| {
            assert_eq!((error.status, error.os_error), (Status::Io, libc::ECONNREFUSED));
            assert_eq!((error.operation, error.message.as_str()), (operation, message.as_str()));
        };
        assert!(peer.try_recv(10, NOW).unwrap().is_none(), "nothing has been sent");
        // On a busy system, the answer to the very first one may come too late for it.
        let _ = peer.dgram.send_to(peer.address(), b"x", 0, &NONE);
        for _ in 0..10 {
            told(failure(peer.dgram.send_to(peer.address(), b"x", NOW, &NONE)), Operation::Send);
            let list = [Outgoing { address: peer.address(), payload: b"x" }; 20];
            let (sent, result) = peer.dgram.send_many(&list, NOW);
            told(failure(result), Operation::Send);
            assert_eq!((sent, peer.dgram.counts().sent), (0, peer.dgram.counts().sent));
            assert_eq!(sys::poll_one(peer.dgram.fd(), sys::IN, 0).unwrap(), 0, "nothing for poll");
            told(failure(peer.try_recv(10, NOW)), Operation::Receive);
            assert!(peer.try_recv(10, NOW).unwrap().is_none(), "once for all that were refused");
            assert_eq!(sys::poll_one(peer.dgram.fd(), sys::IN, 0).unwrap(), 0, "nothing for poll");
        }
        // Receivers that wait already are woken, whether they have a time limit or not.
        for timeout in [-1, LONG.as_millis() as i32] {
            peer.dgram.set_timeout(timeout).unwrap();
            std::thread::scope(|scope| {
                let receiver = spawn_until_it_waits(scope, || peer.try_recv_many(&[10], 0));
                assert!(peer.dgram.send_to(peer.address(), b"x", 0, &NONE).is_err());
                told(failure(receiver.join().unwrap()), Operation::Receive);
            });
        }
    }
}

/// A router with several addresses that sends from another one than the one it is reached at.
#[cfg(target_os = "linux")]
#[test]
fn datagrams_from_another_address_of_the_router() {
    let (_bridge, controller) = start(Personality::Java);
    let other = UdpSocket::bind("127.0.0.2:0").unwrap();
    let from = other.local_addr().unwrap();
    let deliver = |peer: &Peer| {
        let packet = format!("{}\nhello", peer.address());
        other.send_to(packet.as_bytes(), sys::local_address(peer.dgram.fd()).unwrap()).unwrap();
        assert!(readable(&peer.dgram, LONG.as_millis() as i32));
    };
    let taken = Peer::open(&controller, DGRAM, &[("udp_source", "127.0.0.2"), ("any_source_port", "1")]);
    deliver(&taken);
    assert_eq!(taken.recv().0, b"hello");
    // The other one is still good.
    taken.send(taken.address(), b"self");
    assert_eq!(taken.recv().0, b"self");
    assert_eq!(taken.dgram.counts().refused, 0);
    // An address says nothing about the port, and a port nothing about the address.
    let cases: [(&[(&str, &str)], &str); 3] = [
        (&[("any_source_port", "1")], "udp_source"),
        (&[], "udp_source"),
        (&[("udp_source", "127.0.0.3"), ("any_source_port", "1")], "udp_source"),
    ];
    for (entries, option) in cases {
        let peer = Peer::open(&controller, DGRAM, entries);
        deliver(&peer);
        peer.dgram.set_timeout(0).unwrap();
        let error = failure(peer.try_recv(10, 0));
        let limit = "receive took longer than the socket's time limit; datagrams were dropped from";
        assert!(error.message.starts_with(&format!("{limit} {from}, ")), "{}", error.message);
        assert!(error.message.ends_with(&format!("(if it is, see option {option})")), "{}", error.message);
        assert_eq!((error.status, peer.dgram.counts().refused), (Status::Timeout, 1));
        let reported = Peer::open(&controller, DGRAM, &[entries, &[("report_source", "1")]].concat());
        deliver(&reported);
        let error = failure(reported.try_recv(10, 0));
        assert_eq!((error.status, error.operation), (Status::Protocol, Operation::Source));
        assert!(error.message.starts_with(&format!("a datagram came from {from}, ")), "{}", error.message);
    }
}
