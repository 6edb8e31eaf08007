//! Datagrams: echo over every personality, strangers, broken packets, names, sizes, floods and ends.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::mem::MaybeUninit;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use common::*;
use i2psock::core::datagram::{Datagram, Dgram, Outgoing, Slot};
use i2psock::core::destination::{DestHandle, State};
use i2psock::core::settings::Options;
use i2psock::error::{Error, Operation, Result, Status};
use i2psock::protocol::control::{Control as Wire, Event};
use i2psock::protocol::datagram::{SendOptions, Source};
use i2psock::sys;
use i2psock_bridge::{Action, Bridge, Config, Personality, Reply, Split, Version};

const STREAM: i32 = 1;
const DGRAM: i32 = 2;
const RAW: i32 = 3;
const DGRAM2: i32 = 4;
const DGRAM3: i32 = 5;
const NONE: SendOptions = SendOptions {
    ports: i2psock::protocol::ports::Ports { from: None, to: None },
    protocol: None,
    send_tags: None,
    tag_threshold: None,
    expires: None,
    send_leaseset: None,
};
const NOW: i32 = sys::MSG_DONTWAIT;

fn start(personality: Personality) -> (Bridge, Control) {
    let bridge = Bridge::start(Config::with_personality(personality)).unwrap();
    let controller = control(&bridge, &[]);
    (bridge, controller)
}

fn control(bridge: &Bridge, more: &[(&str, &str)]) -> Control {
    let udp = bridge.udp_addr().to_string();
    controller_with(bridge, &[&[("udp", udp.as_str())], more].concat())
}

fn sending(entries: &[(&str, &str)]) -> SendOptions {
    SendOptions::parse(&options(entries)).unwrap()
}

/// A destination of datagrams and its socket.
struct Peer {
    dest: DestHandle,
    dgram: Dgram,
}

impl Peer {
    fn try_open(controller: &Control, style: i32, entries: &[(&str, &str)]) -> Result<Self> {
        let dest = dest_of(controller.open_dest("", style, &options(entries), LIMIT)?)?;
        let dgram = i2psock::core::datagram::Dgram::bind(&dest)?;
        dgram.set_timeout(LONG.as_millis() as i32)?;
        Ok(Peer { dest, dgram })
    }

    fn open(controller: &Control, style: i32, entries: &[(&str, &str)]) -> Self {
        Peer::try_open(controller, style, entries).unwrap()
    }

    fn address(&self) -> &str {
        base64(&self.dest)
    }

    fn id(&self) -> String {
        self.dest.destination().session().id().to_owned()
    }

    fn send(&self, to: &str, payload: &[u8]) {
        assert!(self.dgram.send_to(to, payload, 0, &NONE).unwrap(), "BLOCK");
    }

    fn try_recv(&self, room: usize, flags: i32) -> Result<Option<(Vec<u8>, Datagram)>> {
        let mut buffer = vec![MaybeUninit::new(0xEE); room];
        let Some(datagram) = self.dgram.recv_from(&mut buffer, flags)? else { return Ok(None) };
        Ok(Some((buffer[..datagram.len].iter().map(init).collect(), datagram)))
    }

    fn recv(&self) -> (Vec<u8>, Datagram) {
        self.try_recv(40_000, 0).unwrap().expect("BLOCK")
    }

    /// Several at once, into rooms of these sizes.
    fn try_recv_many(&self, rooms: &[usize], flags: i32) -> Result<Vec<(Vec<u8>, Datagram)>> {
        let mut buffers: Vec<_> = rooms.iter().map(|room| vec![MaybeUninit::new(0xEE); *room]).collect();
        let mut slots: Vec<_> = buffers.iter_mut().map(|room| Slot { room, datagram: None }).collect();
        let got = self.dgram.recv_many(&mut slots, flags)?;
        let filled = slots.iter().position(|slot| slot.datagram.is_none()).unwrap_or(slots.len());
        assert_eq!(filled, got, "the first ones, without gaps");
        let took = |slot: Slot| {
            let datagram = slot.datagram.expect("filled");
            (slot.room[..datagram.len].iter().map(init).collect(), datagram)
        };
        Ok(slots.into_iter().take(got).map(took).collect())
    }

    /// Nothing is there, and the fd says so after the answer.
    fn nothing(&self) {
        assert!(self.try_recv(100, NOW).unwrap().is_none());
        assert!(!readable(&self.dgram, 0));
    }
}

fn readable(dgram: &Dgram, milliseconds: i32) -> bool {
    sys::poll_one(dgram.fd(), sys::IN, milliseconds).unwrap() != 0
}

fn source_of(datagram: &Datagram) -> &str {
    match &datagram.source {
        Some(Source::Destination(address)) => address.base64(),
        other => panic!("{other:?}"),
    }
}

fn bytes(rng: &mut Rng, len: usize) -> Vec<u8> {
    (0..len).map(|_| rng.next() as u8).collect()
}

fn echo_all(controller: &Control, style: i32, entries: &[(&str, &str)], count: usize, sizes: std::ops::Range<usize>) {
    let (a, b) = (Peer::open(controller, style, entries), Peer::open(controller, style, entries));
    let mut rng = Rng::new(style as u64);
    for number in 0..count {
        let len = sizes.start + rng.below(sizes.end - sizes.start);
        let payload = bytes(&mut rng, len);
        a.send(b.address(), &payload);
        let (got, datagram) = b.recv();
        assert!(got == payload, "{number}: {} of {len} bytes", got.len());
        assert_eq!((datagram.len, datagram.full_len), (len, len));
        match style {
            RAW => assert!(datagram.source.is_none()),
            DGRAM3 => assert_eq!(datagram.source, Some(Source::Hash(*a.dest.destination().keys().address().hash()))),
            _ => assert_eq!(source_of(&datagram), a.address()),
        }
        b.send(a.address(), &got);
        assert!(a.recv().0 == payload, "{number} back");
    }
    let count = count as u64;
    for peer in [&a, &b] {
        let counts = peer.dgram.counts();
        assert_eq!((counts.sent, counts.received), (count, count));
        assert_eq!((counts.refused, counts.malformed, counts.truncated, counts.dropped), (0, 0, 0, 0));
        peer.nothing();
    }
}

// ---- echo ----

#[test]
fn echo_over_every_router() {
    for personality in Personality::ALL {
        let (_bridge, controller) = start(personality);
        echo_all(&controller, DGRAM, &[], 1000, 1..7600);
        // i2pd loses raw datagrams of one and two bytes.
        echo_all(&controller, RAW, &[], 1000, 3..7600);
    }
}

#[test]
fn echo_of_the_newer_styles() {
    let (_bridge, controller) = start(Personality::Java);
    echo_all(&controller, DGRAM2, &[], 1000, 1..31745);
    echo_all(&controller, DGRAM3, &[], 1000, 1..31745);
    let (_bridge, controller) = start(Personality::I2pd258);
    echo_all(&controller, DGRAM2, &[], 100, 1..7600);
}

#[test]
fn echo_in_band() {
    let (_bridge, controller) = start(Personality::Java);
    echo_all(&controller, DGRAM, &[("in_band", "1")], 1000, 1..31745);
    echo_all(&controller, RAW, &[("in_band", "1")], 1000, 1..32769);
    for personality in [Personality::I2pd245, Personality::I2pd258] {
        let (_bridge, controller) = start(personality);
        echo_all(&controller, DGRAM, &[("in_band", "1")], 300, 1..7000);
        echo_all(&controller, RAW, &[("in_band", "1")], 300, 3..7000);
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
fn a_router_that_ignores_the_question_for_a_header() {
    let (bridge, controller) = start(Personality::I2pd258);
    let peer = Peer::open(&controller, RAW, &[("raw_header", "1")]);
    for payload in [&b"plain"[..], b"two\nlines", b"\n\n\n", b"FROM_PORT=x\nabc", b"\0\0\0"] {
        peer.send(peer.address(), payload);
        let (got, datagram) = peer.recv();
        assert_eq!((got, datagram.full_len, datagram.origin.ports.from), (payload.to_vec(), payload.len(), None));
    }
    let long = vec![b'x'; 9000];
    assert!(bridge.faults().inject(&peer.id(), &long));
    assert!(peer.recv().0 == long);
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
    // The end of the session is no stranger.
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

#[test]
fn flags_and_sizes() {
    let (bridge, controller) = start(Personality::Java);
    for entries in [&[][..], &[("in_band", "1")]] {
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
                    let receiver = scope.spawn(|| peer.try_recv(100, 0));
                    let poller =
                        scope.spawn(|| sys::poll_one(peer.dgram.fd(), sys::IN, LONG.as_millis() as i32).unwrap());
                    std::thread::sleep(Duration::from_millis(60));
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
                assert_eq!(failure(i2psock::core::datagram::Dgram::bind(&peer.dest)).status, Status::Closed);
                let counts = peer.dgram.counts();
                let all = (counts.received, counts.refused, counts.malformed, counts.truncated);
                // The end is no datagram.
                if all != (0, 0, 0, 0) {
                    wrong.push(format!("{case}: {counts:?}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn several_handles_share_one_socket() {
    let (_bridge, controller) = start(Personality::Java);
    let peer = Peer::open(&controller, DGRAM, &[]);
    let other = i2psock::core::datagram::Dgram::bind(&peer.dest).unwrap();
    assert_eq!(other.fd(), peer.dgram.fd());
    drop(other);
    peer.send(peer.address(), b"x");
    assert_eq!(peer.recv().0, b"x");
}

// ---- names ----

fn lookups(bridge: &Bridge, name: &str) -> usize {
    let line = format!("NAMING LOOKUP NAME={name}");
    bridge.texts().iter().filter(|text| **text == line).count()
}

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

#[test]
fn names_without_waiting() {
    for keeper in ["1", "0"] {
        let bridge = Bridge::start(Config::default()).unwrap();
        let controller = control(&bridge, &[("keeper", keeper)]);
        let peer = Peer::open(&controller, DGRAM, &[]);
        assert!(bridge.add_host("bob.i2p", peer.address()));
        for (nonblocking, flags) in [(false, NOW), (true, 0)] {
            peer.dgram.set_nonblocking(nonblocking).unwrap();
            let name = if nonblocking { "BOB.i2p" } else { "bob.i2p" };
            let mut blocks = 0;
            wait_until("the name resolves", || {
                let went = peer.dgram.send_to(name, b"x", flags, &NONE).unwrap();
                blocks += u32::from(!went);
                went
            });
            assert!(blocks > 0, "it cannot have been there at once");
            assert_eq!(lookups(&bridge, "bob.i2p"), 1 + usize::from(nonblocking));
            assert!(readable(&peer.dgram, 5000));
            assert_eq!(peer.try_recv(10, NOW).unwrap().unwrap().0, b"x");
            let mut end = None;
            wait_until("the name fails", || match peer.dgram.send_to("nobody.i2p", b"x", flags, &NONE) {
                Ok(went) => {
                    assert!(!went);
                    false
                }
                Err(error) => {
                    end = Some(error);
                    true
                }
            });
            let error = end.unwrap();
            assert_eq!((error.status, error.tag.as_str()), (Status::Network, "KEY_NOT_FOUND"));
        }
    }
}

/// "BLOCK until it is there": but not for ever when no answer comes.
#[test]
fn names_without_an_answer_end_at_the_time_limit() {
    let bridge = Bridge::start(Config::default()).unwrap();
    let controller = control(&bridge, &[("lookup_timeout", "300")]);
    let peer = Peer::open(&controller, DGRAM, &[]);
    bridge.faults().every(Reply::NamingLookup, Action::Stall);
    assert_eq!(failure(peer.dgram.send_to("a.i2p", b"x", 0, &NONE)).status, Status::Timeout);
    let start = Instant::now();
    while start.elapsed() < LONG {
        match peer.dgram.send_to("b.i2p", b"x", NOW, &NONE) {
            Ok(went) => assert!(!went),
            Err(error) => {
                assert_eq!((error.status, error.operation), (Status::Timeout, Operation::Lookup));
                return;
            }
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("BLOCK for {LONG:?} with a limit of 300 ms");
}

#[test]
fn bad_addresses_go_nowhere() {
    let (bridge, controller) = start(Personality::Java);
    let peer = Peer::open(&controller, DGRAM, &[]);
    bridge.clear_lines();
    let target = destination(1);
    let cut = [target[..500].to_owned(), format!("{target}\n"), format!(" {target}"), format!("{target} FROM_PORT=1")];
    let texts = ["", "a b", "a\nQUIT", "a.i2p\n", "a\0.i2p", "\u{e9}.i2p", "AAAA", "a.i2p:80", "TRANSIENT", "ME"];
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

/// "No lock of the library is held" while the log hook runs: another thread must get on meanwhile.
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
        scope.spawn(|| peer.dgram.send_to("bob.i2p", b"x", NOW, &NONE));
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

/// A wildcard is no address a router could send to.
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
    assert_eq!(failure(i2psock::core::datagram::Dgram::bind(&stream)).status, Status::State);
    assert_eq!(failure(peer.dest.connect(base64(&stream), &Options::default(), LIMIT)).status, Status::State);
    assert_eq!(failure(peer.dest.accept(LIMIT)).status, Status::State);
    assert_eq!(bridge.texts().len(), lines);
    assert_eq!(failure(controller.open_dest("", 6, &Options::default(), LIMIT)).status, Status::Invalid);
}

/// A bridge whose UDP side is gone: once ignored, then reported, and ignored again once it was there again.
#[test]
#[cfg(target_os = "linux")]
fn a_bridge_that_stopped_listening_for_datagrams() {
    let bridge = Bridge::start(Config::default()).unwrap();
    let place = SocketAddr::from(([127, 0, 0, 1], free_udp_port("127.0.0.1")));
    let mut udp = UdpSocket::bind(place).unwrap();
    let controller = controller_with(&bridge, &[("udp", &place.to_string())]);
    let peer = Peer::open(&controller, DGRAM, &[]);
    let ours = sys::local_address(peer.dgram.fd()).unwrap();
    let payload = Outgoing { address: peer.address(), payload: b"x" };
    for round in 0..4 {
        peer.send(peer.address(), b"x");
        drop(udp);
        let refused =
            |what: &str| wait_until(what, || sys::poll_one(peer.dgram.fd(), 0, 1000).unwrap() & sys::ERR != 0);
        peer.send(peer.address(), b"x");
        refused("the first refusal");
        // The second one is sent again, the third is not.
        peer.send(peer.address(), b"x");
        refused("the second refusal");
        let before = peer.dgram.counts().sent;
        let (sent, result) = match round % 2 {
            0 => (0, peer.dgram.send_to(peer.address(), b"x", 0, &NONE)),
            _ => peer.dgram.send_many(&[payload; 20], 0),
        };
        let error = failure(result);
        assert_eq!((sent, error.status, error.os_error), (0, Status::Io, libc::ECONNREFUSED));
        assert_eq!(peer.dgram.counts().sent, before);
        // What has been reported is gone: in vain, but this one goes.
        if round == 3 {
            let (sent, _) = peer.dgram.send_many(&[payload; 20], 0);
            assert!(sent > 0);
            assert_eq!(peer.dgram.counts().sent, before + sent as u64);
        }
        udp = UdpSocket::bind(place).unwrap();
        // A receiver is not told at all the first time, and what comes from there is a good sign.
        udp.send_to(format!("{}\nback", peer.address()).as_bytes(), ours).unwrap();
        assert_eq!(peer.recv().0, b"back", "round {round}");
    }
}

/// A bridge whose UDP side is not there: once ignored, then reported.
#[test]
fn nobody_listens_for_datagrams() {
    let bridge = Bridge::start(Config::default()).unwrap();
    let controller = controller_with(&bridge, &[("udp", "127.0.0.1:1")]);
    let peer = Peer::open(&controller, DGRAM, &[]);
    let mut told = None;
    for _ in 0..20 {
        if let Err(error) = peer.dgram.send_to(peer.address(), b"x", 0, &NONE) {
            told = Some(error);
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let error = told.expect("the system's refusal was never reported");
    assert_eq!((error.status, error.os_error), (Status::Io, libc::ECONNREFUSED));
}

// ---- many at once ----

#[test]
fn many_go_in_order_to_several() {
    for entries in [&[][..], &[("in_band", "1")]] {
        let (bridge, controller) = start(Personality::Java);
        let peers = [(); 3].map(|()| Peer::open(&controller, DGRAM, entries));
        assert!(bridge.add_host("bob.i2p", peers[1].address()));
        let host = format!("{}.b32.i2p", peers[2].dest.destination().keys().address().base32());
        let texts = [peers[0].address(), "bob.i2p", host.as_str()];
        let payloads: Vec<Vec<u8>> = (0..90usize).map(|n| vec![n as u8; 1 + n * 10]).collect();
        // In portions that have room in band.
        for (at, portion) in payloads.chunks(30).enumerate() {
            let list: Vec<_> =
                portion.iter().enumerate().map(|(n, payload)| Outgoing { address: texts[n % 3], payload }).collect();
            let (sent, result) = peers[0].dgram.send_many(&list, 0);
            assert!(sent == 30 && result.unwrap(), "{sent}");
            for (which, peer) in peers.iter().enumerate() {
                let mut got = Vec::new();
                while got.len() < 10 {
                    got.extend(peer.try_recv_many(&[2000; 10][got.len()..], 0).unwrap());
                }
                for (n, (payload, datagram)) in got.iter().enumerate() {
                    assert!(*payload == payloads[at * 30 + n * 3 + which], "{which} {n}");
                    assert_eq!(source_of(datagram), peers[0].address());
                }
                peer.nothing();
            }
        }
        assert_eq!(peers[0].dgram.counts().sent, 90);
        assert_eq!((lookups(&bridge, "bob.i2p"), lookups(&bridge, &host)), (1, 1));
    }
}

/// Whatever was dropped between them: the n-th good datagram is in the n-th slot, cut only by the room of that one.
#[test]
fn many_come_without_gaps() {
    let (bridge, controller) = start(Personality::Java);
    let mut rng = Rng::new(7);
    for (style, entries) in [(DGRAM, &[][..]), (RAW, &[])] {
        for round in 0..150 {
            let peer = Peer::open(&controller, style, entries);
            let header = if style == RAW { String::new() } else { format!("{}\n", peer.address()) };
            let (mut good, mut refused, mut malformed) = (Vec::new(), 0, 0);
            for _ in 0..rng.below(40) {
                match rng.below(4) {
                    0 => {
                        refused += 1;
                        bridge.faults().forge(&peer.id(), format!("{header}forged")).unwrap();
                    }
                    1 if style == DGRAM => {
                        malformed += 1;
                        assert!(bridge.faults().inject(&peer.id(), b"malformed".repeat(rng.below(100))));
                    }
                    _ => {
                        let len = rng.below(300);
                        let payload = bytes(&mut rng, len);
                        // A header the prediction is wrong for, now and then.
                        let header = if style == DGRAM && rng.below(4) == 0 {
                            format!("{} FROM_PORT=7\n", peer.address())
                        } else {
                            header.clone()
                        };
                        assert!(bridge.faults().inject(&peer.id(), [header.as_bytes(), &payload].concat()));
                        good.push(payload);
                    }
                }
            }
            let (mut came, mut cut) = (0, 0);
            loop {
                let rooms: Vec<usize> = match rng.below(3) {
                    0 => vec![400; 1 + rng.below(40)],
                    1 => (0..20).map(|n| n * 20).collect(),
                    _ => (0..1 + rng.below(40)).map(|_| rng.below(400)).collect(),
                };
                let got = peer.try_recv_many(&rooms, NOW).unwrap();
                if got.is_empty() {
                    break;
                }
                for ((payload, datagram), room) in got.iter().zip(&rooms) {
                    let whole = &good[came];
                    assert!(*payload == whole[..whole.len().min(*room)], "{style} {round}: {came}");
                    assert_eq!((datagram.len, datagram.full_len), (payload.len(), whole.len()));
                    cut += u64::from(payload.len() < whole.len());
                    came += 1;
                }
            }
            assert_eq!(came, good.len(), "{style} {round}");
            let counts = peer.dgram.counts();
            let wanted = (came as u64, refused, malformed, cut, 0);
            let counted = (counts.received, counts.refused, counts.malformed, counts.truncated, counts.dropped);
            assert_eq!(counted, wanted, "{style} {round}");
        }
    }
}

#[test]
fn many_one_of_which_is_wrong() {
    for entries in [&[][..], &[("in_band", "1")]] {
        let (bridge, controller) = start(Personality::Java);
        let peer = Peer::open(&controller, DGRAM, entries);
        let good = Outgoing { address: peer.address(), payload: b"good" };
        let large = vec![0; 31_745];
        let wrong = [
            (Outgoing { payload: b"", ..good }, Status::Invalid, ""),
            (Outgoing { payload: &large, ..good }, Status::Invalid, ""),
            (Outgoing { address: "not an address", ..good }, Status::Invalid, ""),
            (Outgoing { address: "nobody.i2p", ..good }, Status::Network, "KEY_NOT_FOUND"),
        ];
        for (one, status, tag) in wrong {
            for at in [0, 1, 15, 16, 17, 20] {
                let mut list = vec![good; 20];
                list.insert(at, one);
                let before = (peer.dgram.counts().sent, bridge.datagram_counts().received);
                let (sent, result) = peer.dgram.send_many(&list, 0);
                let error = failure(result);
                assert_eq!((sent, error.status, error.tag.as_str()), (at, status, tag), "{error:?}");
                assert_eq!(peer.dgram.counts().sent, before.0 + at as u64);
                for _ in 0..at {
                    assert_eq!(peer.recv().0, b"good");
                }
                peer.nothing();
                assert_eq!(bridge.datagram_counts().received, before.1 + at as u64, "nothing else was sent");
            }
        }
        for flags in [sys::MSG_PEEK, libc::MSG_OOB, 1 << 30] {
            assert_eq!(failure(peer.dgram.send_many(&[good], flags).1).status, Status::Invalid, "{flags:#x}");
            assert_eq!(failure(peer.try_recv_many(&[10], flags)).status, Status::Invalid, "{flags:#x}");
        }
    }
}

/// A name that is not known yet holds up nothing before it, also when nothing waits.
#[test]
fn many_with_a_name_that_is_not_there_yet() {
    let (bridge, controller) = start(Personality::Java);
    let peer = Peer::open(&controller, DGRAM, &[]);
    assert!(bridge.add_host("bob.i2p", peer.address()));
    let known = Outgoing { address: peer.address(), payload: b"known" };
    let list = [known, known, Outgoing { address: "bob.i2p", payload: b"bob" }, known];
    let (sent, result) = peer.dgram.send_many(&list, NOW);
    assert!(sent == 2 && !result.unwrap(), "{sent}");
    assert_eq!((peer.recv().0, peer.recv().0), (b"known".to_vec(), b"known".to_vec()));
    let mut sent = 2;
    wait_until("the name resolves", || {
        let (went, result) = peer.dgram.send_many(&list[sent..], NOW);
        sent += went;
        result.unwrap()
    });
    assert_eq!((peer.recv().0, peer.recv().0), (b"bob".to_vec(), b"known".to_vec()));
    assert_eq!(lookups(&bridge, "bob.i2p"), 1);
}

#[test]
fn many_wait_for_the_first_alone() {
    let bridge = Bridge::start(Config::default()).unwrap();
    for keeper in ["1", "0"] {
        let controller = control(&bridge, &[("keeper", keeper)]);
        for entries in [&[][..], &[("in_band", "1")]] {
            let peer = Peer::open(&controller, DGRAM, entries);
            assert!(peer.try_recv_many(&[100; 40], NOW).unwrap().is_empty());
            assert!(peer.try_recv_many(&[], 0).unwrap().is_empty());
            peer.dgram.set_timeout(50).unwrap();
            let error = failure(peer.try_recv_many(&[100; 40], 0));
            assert_eq!((error.status, error.operation), (Status::Timeout, Operation::Receive));
            for limit in [-1, LONG.as_millis() as i32] {
                peer.dgram.set_timeout(limit).unwrap();
                std::thread::scope(|scope| {
                    let receiver = scope.spawn(|| peer.try_recv_many(&[100; 40], 0).unwrap());
                    std::thread::sleep(Duration::from_millis(30));
                    peer.send(peer.address(), b"hello");
                    let got = receiver.join().unwrap();
                    assert_eq!((got.len(), got[0].0.as_slice()), (1, &b"hello"[..]), "keeper {keeper} {entries:?}");
                });
            }
            peer.dgram.set_nonblocking(true).unwrap();
            assert!(peer.try_recv_many(&[100; 2], 0).unwrap().is_empty());
        }
    }
}

#[test]
fn an_end_wakes_those_who_receive_many() {
    for (limit, entries) in [(-1, &[][..]), (60_000, &[]), (-1, &[("in_band", "1")]), (60_000, &[("in_band", "1")])] {
        let (bridge, controller) = start(Personality::Java);
        let peer = Peer::open(&controller, DGRAM, entries);
        peer.dgram.set_timeout(limit).unwrap();
        let result = std::thread::scope(|scope| {
            let receiver = scope.spawn(|| peer.try_recv_many(&[100; 20], 0));
            std::thread::sleep(Duration::from_millis(60));
            assert!(bridge.faults().kill_session(&peer.id(), true));
            receiver.join().unwrap()
        });
        assert_eq!(failure(result).status, Status::Closed, "{limit} {entries:?}");
        assert_eq!(failure(peer.try_recv_many(&[100; 20], NOW)).status, Status::Closed);
        let one = Outgoing { address: peer.address(), payload: b"x" };
        let (sent, result) = peer.dgram.send_many(&[one; 3], 0);
        assert_eq!((sent, failure(result).status), (0, Status::Closed));
        let counts = peer.dgram.counts();
        assert_eq!((counts.received, counts.refused, counts.malformed), (0, 0, 0), "the end is no datagram");
    }
}

/// All handles tell the same, as the system does, which counts for the socket.
#[test]
fn handles_count_together() {
    let (bridge, controller) = start(Personality::Java);
    let peer = Peer::open(&controller, DGRAM, &[]);
    let other = Peer {
        dgram: i2psock::core::datagram::Dgram::bind(&peer.dest).unwrap(),
        dest: Peer::open(&controller, DGRAM, &[]).dest,
    };
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
    assert_eq!(i2psock::core::datagram::Dgram::bind(&peer.dest).unwrap().counts(), counts);
}

// ---- in band ----

fn in_band(text: &str, payload: &[u8]) -> Vec<u8> {
    [format!("{text} SIZE={}\n", payload.len()).as_bytes(), payload].concat()
}

fn received_from(fill: u8, payload: &[u8]) -> Vec<u8> {
    in_band(&format!("DATAGRAM RECEIVED DESTINATION={}", destination(fill)), payload)
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
        assert_eq!((error.status, error.operation), (Status::Protocol, Operation::Create));
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

/// On a blocking socket a datagram waits until there is room; BLOCK is for those who do not wait.
#[test]
fn a_full_control_socket_makes_a_blocking_sender_wait() {
    let script = Script::start(|_, mut talk| {
        if talk.greet().starts_with("SESSION") {
            talk.session(1);
            std::thread::sleep(Duration::from_millis(500));
            talk.linger();
        }
    });
    let controller = try_controller(&script.address(), &[]).unwrap();
    let peer = Peer::open(&controller, DGRAM, &[("in_band", "1")]);
    let payload = vec![b'x'; 31_744];
    for number in 0..400 {
        let went = peer.dgram.send_to(&destination(2), &payload, 0, &NONE).unwrap();
        assert!(went, "BLOCK from a blocking socket at datagram {number}");
    }
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
    let peer = Peer::open(&controller, DGRAM, &[("in_band", "1")]);
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

// ---- floods ----

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

#[test]
fn a_flood_in_band_keeps_the_newest() {
    const COUNT: u64 = 10_000;
    let (bridge, controller) = start(Personality::Java);
    let peer = Peer::open(&controller, DGRAM, &[("in_band", "1")]);
    for batch in (0..COUNT).collect::<Vec<_>>().chunks(100) {
        let bytes: Vec<u8> = batch.iter().flat_map(|n| received_from(1, n.to_string().as_bytes())).collect();
        assert_eq!(bridge.faults().unsolicited(bytes), 1);
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

#[test]
fn many_threads() {
    let (_bridge, controller) = start(Personality::Java);
    for entries in [&[][..], &[("in_band", "1")]] {
        let (a, b) = (Peer::open(&controller, DGRAM, entries), Peer::open(&controller, DGRAM, entries));
        let (address, end) = (b.address().to_owned(), Instant::now() + LONG);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..250 {
                        while !a.dgram.send_to(&address, &[7; 500], NOW, &NONE).unwrap() {
                            std::thread::yield_now();
                        }
                    }
                });
                scope.spawn(|| {
                    b.dgram.set_timeout(500).unwrap();
                    loop {
                        match b.try_recv(1000, 0) {
                            Ok(Some((got, datagram))) => {
                                assert_eq!((got, source_of(&datagram)), (vec![7; 500], a.address()));
                            }
                            // The first ones may take their time.
                            Err(_) if b.dgram.counts().received == 0 && Instant::now() < end => {}
                            _ => break,
                        }
                    }
                });
            }
        });
        let (sent, got) = (a.dgram.counts(), b.dgram.counts());
        assert_eq!((sent.sent, got.malformed, got.refused), (1000, 0, 0));
        // The bridge may have lost some as well.
        assert!((1..=1000).contains(&(got.received + got.dropped)), "{entries:?} {got:?}");
    }
}

/// Strangers who never stop must not keep a receiver beyond its time limit, nor one that does not wait at all.
#[test]
fn a_flood_of_forged_packets_does_not_hold_a_receiver() {
    let (bridge, controller) = start(Personality::Java);
    let peer = Peer::open(&controller, DGRAM, &[]);
    let to = bridge.session(&peer.id()).unwrap().udp.unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    peer.dgram.set_timeout(200).unwrap();
    let took = std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                let until = Instant::now() + LONG;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) && Instant::now() < until {
                    let _ = socket.send_to(b"x", to);
                }
            });
        }
        std::thread::sleep(Duration::from_millis(50));
        let took = [(NOW, 1), (0, 1), (NOW, 20), (0, 20)].map(|(flags, many)| {
            let start = Instant::now();
            let _ = match many {
                1 => peer.try_recv(100, flags).map(drop),
                many => peer.try_recv_many(&vec![100; many], flags).map(drop),
            };
            start.elapsed()
        });
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        took
    });
    assert!(took.iter().all(|took| *took < SOON), "{took:?}");
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
