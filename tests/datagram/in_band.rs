//! Datagrams on the control socket, without UDP.

use std::sync::{mpsc, Mutex};
use std::time::Duration;

use super::common::datagram::*;
use super::common::*;
use i2psock::core::destination::State;
use i2psock::error::{Operation, Status};
use i2psock::protocol::control::{Control as Wire, Event};
use i2psock_bridge::{Bridge, Config, Personality, Split};
// ---- echo ----

#[test]
fn echo_in_band() {
    let (_bridge, controller) = start(Personality::Java);
    let large = [("in_band", "1"), ("in_band_max", "40000")];
    echo_both(&controller, [(DGRAM, 1..31745), (RAW, 1..32769)], &large, 1000);
    for personality in [Personality::I2pd245, Personality::I2pd258] {
        let (_bridge, controller) = start(personality);
        echo_both(&controller, [(DGRAM, 1..7000), (RAW, 3..7000)], &[("in_band", "1")], 300);
    }
}

/// More than 8191 bytes, the line included, and i2pd reads nothing more from the session, which says OK to all of it.
#[test]
fn what_would_stop_the_session_is_refused() {
    for (personality, entries, max) in [
        (Personality::I2pd245, &[("in_band", "1")][..], 8191),
        (Personality::I2pd258, &[("in_band", "1")], 8191),
        (Personality::Java, &[("in_band", "1")], 8191),
        (Personality::Java, &[("in_band", "1"), ("in_band_max", "12000")], 12_000),
        (Personality::Java, &[("in_band", "1"), ("in_band_max", "700")], 700),
    ] {
        let (bridge, controller) = start(personality);
        for (style, word) in [(DGRAM, "DATAGRAM"), (RAW, "RAW")] {
            let peer = Peer::open(&controller, style, entries);
            let digits = if max > 1000 { 4 } else { 3 };
            let line = format!("{word} SEND DESTINATION={} SIZE=\n", peer.address()).len() + digits;
            let room = max - line - usize::from(max > 11_000);
            bridge.clear_lines();
            let payload = vec![b'x'; room + 1];
            let error = failure(peer.dgram.send_to(peer.address(), &payload, 0, &NONE));
            assert_eq!(error.status, Status::Invalid);
            let start = format!("a datagram of {} bytes: {room} can be sent in band, as routers take {max} ", room + 1);
            assert!(error.message.starts_with(&start), "{}", error.message);
            assert_eq!(peer.dgram.counts().sent, 0);
            assert!(bridge.texts().is_empty());
            // The largest one goes through, though i2pd 2.45 may not have room for it and its sender on the way back.
            peer.send(peer.address(), &payload[..room]);
            peer.send(peer.address(), b"after");
            let first = peer.recv().0.len();
            match personality {
                Personality::I2pd245 if first == 5 => {}
                _ => assert_eq!((first, peer.recv().0.len()), (room, 5)),
            }
        }
    }
}

/// Java applies the ports of a session to what comes by UDP, and to nothing else.
#[test]
fn ports_and_protocol_of_the_destination_in_band() {
    let (bridge, controller) = start(Personality::Java);
    let (ports, insist) = ([("from_port", "7"), ("to_port", "8")], [("in_band", "1"), ("header_options", "1")]);
    for (style, word, more, tail) in
        [(DGRAM, "DATAGRAM", &[][..], ""), (RAW, "RAW", &[("protocol", "99")], " PROTOCOL=99")]
    {
        let peer = Peer::open(&controller, style, &[&ports[..], &insist, more].concat());
        bridge.clear_lines();
        peer.send(peer.address(), b"abc");
        let origin = peer.recv().1.origin;
        assert_eq!((origin.ports.from, origin.ports.to), (Some(7), Some(8)));
        assert_eq!(origin.protocol, (style == RAW).then_some(99));
        // One's own come first.
        assert!(peer.dgram.send_to(peer.address(), b"abc", 0, &sending(&[("to_port", "9")])).unwrap());
        assert_eq!(peer.recv().1.origin.ports.to, Some(9));
        let start = format!("{word} SEND DESTINATION={} SIZE=3 FROM_PORT=7", peer.address());
        assert_eq!(bridge.texts(), [format!("{start} TO_PORT=8{tail}"), format!("{start} TO_PORT=9{tail}")]);
    }
}

/// SAM has no DATAGRAM2 SEND: it is refused, or it works; OK for what goes nowhere is neither.
#[test]
fn the_newer_styles_in_band() {
    let (_bridge, controller) = start(Personality::Java);
    for style in [DGRAM2, DGRAM3] {
        let Ok(peer) = Peer::try_open(&controller, style, &[("in_band", "1")]) else { continue };
        peer.dgram.set_timeout(500).unwrap();
        if peer.dgram.send_to(peer.address(), b"hello", 0, &NONE).is_ok() {
            let got = peer.try_recv(100, 0);
            assert!(matches!(&got, Ok(Some((got, _))) if got == b"hello"), "style {style}: {got:?}");
        }
        assert_eq!(
            peer.dest.destination().state().0,
            State::Ready,
            "style {style}: sending in band killed the session"
        );
    }
}

/// A blocking receive cannot depend on another thread's i2psock_dest_service() for what only this library can read.
#[test]
fn a_blocking_receive_in_band_without_a_keeper() {
    let bridge = Bridge::start(Config::default()).unwrap();
    let controller = control(&bridge, &[("keeper", "0")]);
    let peer = Peer::open(&controller, DGRAM, &[("in_band", "1")]);
    peer.send(peer.address(), b"hello");
    let got = peer.try_recv(100, 0);
    assert!(matches!(&got, Ok(Some((bytes, _))) if bytes == b"hello"), "{got:?}");
}

#[test]
fn lookups_between_datagrams_in_band() {
    let (bridge, controller) = start(Personality::Java);
    let peer = Peer::open(&controller, DGRAM, &[("in_band", "1")]);
    assert!(bridge.add_host("bob.i2p", peer.address()));
    for number in 0..50u8 {
        peer.send("bob.i2p", &[number; 300]);
        assert_eq!(address_of(peer.dest.lookup("ME", LIMIT).unwrap()).unwrap(), peer.address());
        assert_eq!(peer.recv().0, [number; 300]);
    }
    assert_eq!(lookups(&bridge, "bob.i2p"), 1);
}

// ---- what the bridge says ----

fn in_band(text: &str, payload: &[u8]) -> Vec<u8> {
    [format!("{text} SIZE={}\n", payload.len()).as_bytes(), payload].concat()
}

fn received_from(fill: u8, payload: &[u8]) -> Vec<u8> {
    in_band(&format!("DATAGRAM RECEIVED DESTINATION={}", destination(fill)), payload)
}

#[test]
fn a_datagram_in_the_same_segment_as_the_session() {
    let script = Script::start(|_, mut talk| {
        if talk.greet().starts_with("SESSION") {
            let session = format!("SESSION STATUS RESULT=OK DESTINATION={}\n", private_keys(1, 101));
            talk.say([session.as_bytes(), &received_from(2, b"early"), b"PING x\n"].concat());
            assert_eq!(talk.line(), "PONG x");
            talk.linger();
        }
    });
    let controller = try_controller(&script.address(), &[]).unwrap();
    let peer = Peer::open(&controller, DGRAM, &[("in_band", "1")]);
    let (got, datagram) = peer.recv();
    assert_eq!((got.as_slice(), source_of(&datagram)), (&b"early"[..], destination(2).as_str()));
}

#[test]
fn too_large_in_band_is_passed_over() {
    let (bridge, controller) = start(Personality::Java);
    let peer = Peer::open(&controller, DGRAM, &[("in_band", "1")]);
    for (number, size) in [65_537, 70_000, 1_000_000].into_iter().enumerate() {
        let junk = b"PING x\nDATAGRAM RECEIVED SIZE=3\n".repeat(size / 32 + 1);
        bridge.faults().unsolicited(received_from(1, &junk[..size]));
        bridge.faults().unsolicited(received_from(2, b"good"));
        let (got, datagram) = peer.recv();
        assert_eq!((got.as_slice(), source_of(&datagram)), (&b"good"[..], destination(2).as_str()));
        assert_eq!(peer.dgram.counts().dropped, number as u64 + 1);
    }
    bridge.faults().unsolicited(received_from(3, &vec![b'\n'; 65_536]));
    let (got, datagram) = peer.recv();
    assert_eq!((got.len(), datagram.full_len), (40_000, 65_536));
    assert!(bridge.faults().pongs().is_empty(), "payload was taken for PINGs");
    assert_eq!(peer.dest.destination().state().0, State::Ready);
}

#[test]
fn without_a_size_the_session_is_lost() {
    let mut wrong = Vec::new();
    for words in
        ["", " SIZE=", " SIZE=x", " SIZE=-1", " SIZE=99999999999999999999999", " SIZE", " SIZE=+5", " SIZE=5 SIZE=5"]
    {
        for topic in ["DATAGRAM", "RAW"] {
            let (bridge, controller) = start(Personality::Java);
            let peer = Peer::open(&controller, DGRAM, &[("in_band", "1")]);
            bridge.faults().unsolicited(format!("{topic} RECEIVED DESTINATION={}{words}\n", destination(1)));
            if failure(peer.try_recv(100, 0)).status != Status::Closed {
                wrong.push(format!("{topic}{words}"));
            }
        }
    }
    // What cannot be understood at all is no better: the payload behind it would be read as lines.
    for line in ["DATAGRAM RECEIVED DESTINATION=\"x SIZE=5\n", "DATAGRAM RECEIVED X=\"\\ SIZE=5\n"] {
        let (bridge, controller) = start(Personality::Java);
        let peer = Peer::open(&controller, DGRAM, &[("in_band", "1")]);
        bridge.faults().unsolicited(line);
        if failure(peer.try_recv(100, 0)).status != Status::Closed {
            wrong.push(line.to_owned());
        }
    }
    assert!(wrong.is_empty(), "the session goes on after {wrong:?}");
}

/// emissary says nothing to it, and closes after 10 seconds.
#[test]
fn a_router_without_datagrams_in_band() {
    for (style, entries, hint) in [
        (DGRAM, &[("in_band", "1")][..], true),
        (RAW, &[("in_band", "1")], true),
        (DGRAM, &[], false),
        (STREAM, &[], false),
    ] {
        let script = Script::start(|_, mut talk| assert!(!talk.greet().starts_with("SESSION STATUS")));
        let controller = try_controller(&script.address(), &[]).unwrap();
        let error = failure(controller.open_dest("", style, &options(entries), LIMIT).and_then(dest_of));
        assert_eq!((error.status, error.operation), (Status::Closed, Operation::Create));
        assert_eq!(error.message.contains("option in_band"), hint, "{style} {entries:?}: {}", error.message);
    }
}

#[test]
fn a_header_of_100_kilobytes_in_band_ends_the_session() {
    let long = "A".repeat(100_000);
    for line in [
        format!("DATAGRAM RECEIVED DESTINATION={long} SIZE=1\nx"),
        format!("DATAGRAM RECEIVED DESTINATION={} SIZE=1 X={long}", destination(1)),
        long.clone(),
    ] {
        let (bridge, controller) = start(Personality::Java);
        let peer = Peer::open(&controller, DGRAM, &[("in_band", "1")]);
        bridge.faults().unsolicited(line);
        let error = failure(peer.try_recv(100, 0));
        assert_eq!(error.status, Status::Closed, "{error:?}");
        assert!(error.message.len() < 1000, "{} bytes of message", error.message.len());
    }
}

#[test]
fn odd_things_in_band() {
    let (bridge, controller) = start(Personality::Java);
    let peer = Peer::open(&controller, DGRAM, &[("in_band", "1")]);
    let faults = bridge.faults();
    faults.unsolicited(in_band("DATAGRAM RECEIVED", b"no source"));
    faults.unsolicited(in_band("DATAGRAM RECEIVED DESTINATION=", b"no source"));
    faults.unsolicited(in_band("DATAGRAM RECEIVED DESTINATION=AAAA", b"bad source"));
    faults.unsolicited(in_band(&format!("DATAGRAM RECEIVED DESTINATION={} FROM_PORT=70000", destination(1)), b"port"));
    faults.unsolicited(received_from(1, b""));
    let (got, datagram) = peer.recv();
    assert_eq!((got.as_slice(), source_of(&datagram), datagram.full_len), (&b""[..], destination(1).as_str(), 0));
    assert_eq!(peer.dgram.counts().malformed, 4);
    faults.unsolicited(in_band(
        &format!("DATAGRAM RECEIVED FROM_PORT=1 DESTINATION={} TO_PORT=2", destination(1)),
        b"\n",
    ));
    let (got, datagram) = peer.recv();
    assert_eq!((got, datagram.origin.ports.from, datagram.origin.ports.to), (b"\n".to_vec(), Some(1), Some(2)));
    // On a session of streams, and on one with UDP, they are passed over whole.
    let (bridge, controller) = start(Personality::Java);
    let (stream, udp) = (open(&controller), Peer::open(&controller, DGRAM, &[]));
    bridge.faults().unsolicited(received_from(1, b"SESSION STATUS RESULT=I2P_ERROR\nPING x\n"));
    assert_eq!(address_of(stream.lookup("ME", LIMIT).unwrap()).unwrap(), base64(&stream));
    assert_eq!(address_of(udp.dest.lookup("ME", LIMIT).unwrap()).unwrap(), udp.address());
    udp.nothing();
    let raw = Peer::open(&controller, RAW, &[("in_band", "1")]);
    bridge.faults().unsolicited(in_band("RAW RECEIVED", b"FROM_PORT=1\nx"));
    bridge.faults().unsolicited(in_band("RAW RECEIVED", b""));
    assert_eq!(raw.recv().0, b"FROM_PORT=1\nx");
    assert_eq!(raw.recv().0, b"");
}

#[test]
fn in_band_cut_anywhere_with_pings_between() {
    let payload = b"PING no\nDATAGRAM RECEIVED SIZE=9\n\0\n";
    let one = received_from(5, payload);
    let whole = [&b"PING 1\n"[..], &one, b"PING 2\n", &one, b"PING 3\n"].concat();
    for cut in 1..whole.len() {
        let (mut wire, mut events) = (Wire::default(), Vec::new());
        wire.input(&whole[..cut], &mut events).unwrap();
        wire.input(&whole[cut..], &mut events).unwrap();
        assert_eq!(wire.pongs(), 3, "cut at {cut}");
        let wanted = [format!("{}\n", destination(5)).as_bytes(), &payload[..]].concat();
        assert_eq!(events.len(), 2);
        for event in &events {
            assert!(matches!(event, Event::Datagram(packet) if *packet == wanted), "cut at {cut}");
        }
    }
    let (bridge, controller) = start(Personality::Java);
    let peer = Peer::open(&controller, DGRAM, &[("in_band", "1")]);
    bridge.faults().split(Split::Every { bytes: 1, gap: Duration::ZERO });
    bridge.faults().unsolicited(whole);
    assert_eq!((peer.recv().0, peer.recv().0), (payload.to_vec(), payload.to_vec()));
    assert_eq!(address_of(peer.dest.lookup("ME", LIMIT).unwrap()).unwrap(), peer.address());
}

// ---- floods ----

#[test]
fn a_flood_in_band_keeps_the_newest() {
    const COUNT: u64 = 10_000;
    let (bridge, controller) = start(Personality::Java);
    let peer = Peer::open(&controller, DGRAM, &[("in_band", "1")]);
    for batch in (0..COUNT).collect::<Vec<_>>().chunks(100) {
        let lines: Vec<_> = batch.iter().map(|n| received_from(1, n.to_string().as_bytes())).collect();
        assert_eq!(bridge.faults().unsolicited(lines.concat()), 1);
    }
    // When this is answered, all before it was read.
    assert_eq!(address_of(peer.dest.lookup("ME", LIMIT).unwrap()).unwrap(), peer.address());
    let mut numbers = Vec::new();
    while let Some((got, _)) = peer.try_recv(100, NOW).unwrap() {
        numbers.push(String::from_utf8(got).unwrap().parse::<u64>().unwrap());
    }
    let kept = numbers.len() as u64;
    assert!(kept > 0 && kept < 1000, "{kept} kept");
    assert_eq!(numbers, (COUNT - kept..COUNT).collect::<Vec<_>>(), "the newest, in order");
    assert_eq!(peer.dgram.counts().dropped, COUNT - kept);
    peer.nothing();
    peer.send(peer.address(), b"after");
    assert_eq!(peer.recv().0, b"after");
}

/// On a blocking socket a datagram waits until there is room; BLOCK is for those who do not wait.
#[test]
fn a_full_control_socket_makes_a_blocking_sender_wait() {
    let (read, go) = mpsc::channel();
    let go = Mutex::new(go);
    let script = Script::start(move |_, mut talk| {
        if talk.greet().starts_with("SESSION") {
            talk.session(1);
            let _ = go.lock().unwrap().recv_timeout(LONG);
            talk.linger();
        }
    });
    let controller = try_controller(&script.address(), &[]).unwrap();
    let peer = Peer::open(&controller, DGRAM, &[("in_band", "1"), ("in_band_max", "40000")]);
    let payload = vec![b'x'; 31_744];
    std::thread::scope(|scope| {
        let sender = spawn_until_it_waits(scope, || {
            for number in 0..400 {
                let went = peer.dgram.send_to(&destination(2), &payload, 0, &NONE).unwrap();
                assert!(went, "BLOCK from a blocking socket at datagram {number}");
            }
        });
        read.send(()).unwrap();
        sender.join().unwrap();
    });
}

#[test]
fn a_full_control_socket_blocks() {
    let script = Script::start(|_, mut talk| {
        if talk.greet().starts_with("SESSION") {
            talk.session(1);
            std::thread::sleep(LONG);
        }
    });
    let controller = try_controller(&script.address(), &[]).unwrap();
    let peer = Peer::open(&controller, DGRAM, &[("in_band", "1"), ("in_band_max", "40000")]);
    let payload = vec![b'x'; 31_744];
    let mut sent = 0u64;
    while peer.dgram.send_to(&destination(2), &payload, NOW, &NONE).unwrap() {
        sent += 1;
        assert!(sent < 10_000, "unbounded");
    }
    assert_eq!(peer.dgram.counts().sent, sent);
    // A PING can still be answered and the session lives.
    assert_eq!(peer.dest.destination().state().0, State::Ready);
}
