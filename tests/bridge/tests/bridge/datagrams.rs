//! Datagrams over UDP: what gets where, in what form and how much of it.

use crate::common::mail::{dropped, Mail};
use crate::common::*;
use i2psock_bridge::destination::{b32_address, generate, text};
use i2psock_bridge::encoding::{base64_decode, base64_encode};
use i2psock_bridge::{sha256, Bridge, Config, Personality, Style};
use std::collections::HashMap;
use std::net::UdpSocket;
use std::time::Instant;

fn hash(destination: &str) -> String {
    base64_encode(&sha256(&base64_decode(destination).unwrap()))
}

#[test]
fn there_and_back() {
    let bridge = bridge();
    for (style, kind) in [
        ("DATAGRAM", Style::Datagram),
        ("DATAGRAM2", Style::Datagram2),
        ("DATAGRAM3", Style::Datagram3),
        ("RAW", Style::Raw),
    ] {
        let (a, b) = (Mail::new(&bridge, style, "a"), Mail::new(&bridge, style, "b"));
        let info = bridge.session("a").unwrap();
        assert_eq!((info.style, info.udp), (kind, Some(a.udp.local_addr().unwrap())));
        for (payload, from, to) in [
            (&b"hello"[..], &a, &b),
            (b"back", &b, &a),
            (b"line\nline\n\0\xff", &a, &b),
            (b"", &a, &b),
            (b"\n", &a, &a),
        ] {
            from.send(&to.me, payload);
            match kind {
                Style::Raw => assert_eq!(to.packet(), (payload.to_vec(), bridge.udp_addr())),
                Style::Datagram3 => {
                    let source = hash(&from.me);
                    assert_eq!(source.len(), 44);
                    assert_eq!(to.letter(), (format!("{source} FROM_PORT=0 TO_PORT=0"), payload.to_vec()));
                }
                _ => assert_eq!(to.letter(), (format!("{} FROM_PORT=0 TO_PORT=0", from.me), payload.to_vec())),
            }
        }
        drop((a, b));
        assert!(bridge.wait_for(LONG, |b| b.sessions().is_empty()));
    }
    let counts = bridge.datagram_counts();
    assert_eq!((counts.received, counts.sent, counts.dropped), (20, 20, 0));
}

#[test]
fn ports_protocol_and_header() {
    let bridge = bridge();
    let a = Mail::with(&bridge, "DATAGRAM", "a", "FROM_PORT=5 TO_PORT=6");
    a.send(&a.me, "x");
    assert_eq!(a.letter().0, format!("{} FROM_PORT=5 TO_PORT=6", a.me));
    a.send(&format!("{} FROM_PORT=7 SEND_TAGS=1 TAG_THRESHOLD=2 EXPIRES=3 SEND_LEASESET=false", a.me), "x");
    assert_eq!(a.letter().0, format!("{} FROM_PORT=7 TO_PORT=6", a.me));

    let r = Mail::with(&bridge, "RAW", "r", "HEADER=TRUE PROTOCOL=33 TO_PORT=9");
    r.send(&r.me, "x");
    assert_eq!(r.letter(), ("PROTOCOL=33 FROM_PORT=0 TO_PORT=9".to_string(), b"x".to_vec()));
    r.send(&format!("{} PROTOCOL=200 TO_PORT=65535", r.me), "y\nz");
    assert_eq!(r.letter(), ("PROTOCOL=200 FROM_PORT=0 TO_PORT=65535".to_string(), b"y\nz".to_vec()));
    assert_eq!(bridge.udp_headers()[1].split_once(" FROM").unwrap().1.len(), 65);
    bridge.clear_lines();
    assert!(bridge.udp_headers().is_empty());

    // Neither below 3.2.
    let old = |style: &str, id: &str| {
        let mut control = Client::bare(&bridge);
        control.ask("HELLO VERSION MIN=3.1 MAX=3.1");
        let options = format!("PORT={} HEADER=true", a.port());
        assert!(control.ask(&mail::create(style, id, &options)).contains("RESULT=OK"));
        (control, bridge.session(id).unwrap().destination)
    };
    let (_control, to) = old("DATAGRAM", "old");
    a.send(&to, "x");
    assert_eq!(a.letter(), (a.me.clone(), b"x".to_vec()));
    let (_control, to) = old("RAW", "older");
    r.send(&to, "x");
    assert_eq!(a.bare(), b"x");
}

#[test]
fn what_java_does_not_send() {
    let bridge = bridge();
    let (a, r) = (Mail::new(&bridge, "DATAGRAM", "a"), Mail::new(&bridge, "RAW", "r"));
    let two = Mail::new(&bridge, "DATAGRAM2", "two");
    let stream = Client::session(&bridge, "s");
    let nobody = text(&generate(7).unwrap().public);
    let s = bridge.session("s").unwrap().destination;
    // Wrong styles, wrong ids, wrong destinations, wrong options.
    for to in [&r.me, &two.me, &s, &nobody, "no.i2p", "AAAA", "", &a.me[1..]] {
        a.send(to, "x");
    }
    r.send(&a.me, "x");
    two.send(&b32_address(&base64_decode(&two.me).unwrap()), "x");
    for options in ["FROM_PORT=70000", "TO_PORT=x", "EXPIRES=soon"] {
        a.send(&format!("{} {options}", a.me), "x");
    }
    a.raw(format!("3.0 nosuch {}\nx", a.me));
    a.raw(format!("3.0 s {}\nx", a.me));
    a.raw(format!("2.0 a {}\nx", a.me));
    a.raw(format!("3.0 a {}", a.me));
    a.raw(format!("3.0 a {} X={}\nx", a.me, "y".repeat(2048)));
    // Too much.
    a.send(&a.me, vec![b'x'; 31745]);
    r.send(&r.me, vec![b'x'; 32769]);
    assert_eq!(dropped(&bridge, 20), 20);
    // And the most.
    a.send(&a.me, vec![b'y'; 31744]);
    r.send(&r.me, vec![b'y'; 32768]);
    assert_eq!(a.letter().1, vec![b'y'; 31744]);
    assert_eq!(r.bare(), vec![b'y'; 32768]);
    two.silent();
    drop(stream);
}

#[test]
fn java_knows_names() {
    let bridge = bridge();
    let (a, r) = (Mail::new(&bridge, "DATAGRAM", "a"), Mail::new(&bridge, "RAW", "r"));
    assert!(bridge.add_host("a.i2p", &a.me));
    a.send("A.i2p", "1");
    a.send(&b32_address(&base64_decode(&a.me).unwrap()), "2");
    r.send(&b32_address(&base64_decode(&r.me).unwrap()), "3");
    assert_eq!((a.letter().1, a.letter().1, r.bare()), (b"1".to_vec(), b"2".to_vec(), b"3".to_vec()));
}

#[test]
fn where_java_forwards_to() {
    let bridge = Bridge::start(Config { ipv6: UdpSocket::bind("[::1]:0").is_ok(), ..Config::default() }).unwrap();
    let sender = Mail::new(&bridge, "DATAGRAM", "sender");
    let case = |id: &str, options: String| {
        let mut control = Client::new(&bridge);
        let reply = control.ask(&mail::create("DATAGRAM", id, &options));
        assert!(reply.contains("RESULT=OK"), "{reply}");
        let info = bridge.session(id).unwrap();
        sender.send(&info.destination, "x");
        (control, info.udp)
    };
    let port = sender.port();
    let (_c, udp) = case("default", format!("PORT={port}"));
    assert_eq!(udp, Some(sender.udp.local_addr().unwrap()));
    assert_eq!(sender.letter().1, b"x");
    let (_c, _) = case("name", format!("PORT={port} HOST=localhost"));
    assert_eq!(sender.letter().1, b"x");
    if bridge.addr_v6().is_some() {
        let udp = UdpSocket::bind("[::1]:0").unwrap();
        udp.set_read_timeout(Some(LONG)).unwrap();
        let (_c, _) = case("six", format!("PORT={} HOST=::1", udp.local_addr().unwrap().port()));
        let mut packet = [0; 1000];
        let (n, from) = udp.recv_from(&mut packet).unwrap();
        assert!(packet[..n].ends_with(b"\nx"));
        assert_eq!((from.ip().is_ipv6(), from.port()), (true, bridge.udp_port()));
        udp.send_to(format!("3.0 sender {}\nsix", sender.me).as_bytes(), from).unwrap();
        assert_eq!(sender.letter().1, b"six");
    }
    for (options, style) in
        [("PORT=0", "RAW"), ("PORT=70000", "DATAGRAM3"), ("PROTOCOL=17", "RAW"), ("PROTOCOL=256", "RAW")]
    {
        let reply = Client::new(&bridge).ask(&mail::create(style, "bad", options));
        assert!(reply.starts_with("SESSION STATUS RESULT=I2P_ERROR"), "{options} {reply}");
    }
}

#[test]
fn sessions_of_other_styles_are_no_stream_sessions() {
    for (personality, wrong_id) in [
        (Personality::Java, "STREAM STATUS RESULT=I2P_ERROR"),
        (Personality::I2pd258, "STREAM STATUS RESULT=INVALID_ID"),
        (Personality::Emissary, ""),
    ] {
        let bridge = bridge_as(personality);
        let a = Mail::new(&bridge, "DATAGRAM", "a");
        let _s = Client::session(&bridge, "s");
        for (line, wanted) in [
            ("STREAM ACCEPT ID=a".to_string(), wrong_id),
            (format!("STREAM CONNECT ID=s DESTINATION={}", a.me), "STREAM STATUS RESULT=CANT_REACH_PEER"),
        ] {
            let mut client = Client::new(&bridge);
            client.send(&line);
            let reply = client.rest_text();
            assert!(reply.starts_with(wanted) && reply.is_empty() == wanted.is_empty(), "{personality} {reply}");
        }
    }
}

#[test]
fn a_thousand_datagrams_of_all_sizes_come_back() {
    const WINDOW: usize = 16;
    for (style, header) in [("DATAGRAM", 560), ("RAW", 0)] {
        let bridge = bridge();
        let (a, b) = (Mail::new(&bridge, style, "a"), Mail::new(&bridge, style, "b"));
        let (back, mut tagged) = (a.me.clone(), HashMap::new());
        let start = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..1000 {
                    let (packet, _) = b.packet();
                    let at = if header > 0 { packet.iter().position(|b| *b == b'\n').unwrap() + 1 } else { 0 };
                    b.send(&back, &packet[at..]);
                }
            });
            let (mut sent, mut got) = (0u64, 0);
            while got < 1000 {
                while sent < 1000 && tagged.len() < WINDOW {
                    let mut payload = pattern(1 + (sent * 761 % 7600) as usize, sent);
                    // What cannot hold its number must be told apart by its size.
                    let tag = sent.to_be_bytes();
                    let n = payload.len().min(8);
                    payload[..n].copy_from_slice(&tag[8 - n..]);
                    a.send(&b.me, &payload);
                    tagged.insert(payload, sent);
                    sent += 1;
                }
                let (packet, _) = a.packet();
                let at = if header > 0 { packet.iter().position(|b| *b == b'\n').unwrap() + 1 } else { 0 };
                assert!(tagged.remove(&packet[at..]).is_some(), "{} unexpected bytes", packet.len());
                got += 1;
            }
        });
        let counts = bridge.datagram_counts();
        assert_eq!((counts.received, counts.sent, counts.dropped), (2000, 2000, 0), "{style}");
        println!("{style}: {:?}", start.elapsed());
    }
}

#[test]
fn the_bridge_stops_at_once_and_its_ports_are_free_again() {
    let bridge = Bridge::start_to_stay(Config::default()).unwrap();
    let (tcp, udp) = (bridge.port(), bridge.udp_port());
    let a = Mail::new(&bridge, "DATAGRAM", "a");
    let start = Instant::now();
    bridge.stop();
    assert!(start.elapsed() < PROMPT);
    let again = Bridge::start(Config { port: tcp, udp_port: udp, ..Config::default() }).unwrap();
    assert_eq!(again.udp_port(), udp);
    assert!(Bridge::start(Config { udp_port: udp, ..Config::default() }).is_err());
    drop(a);
}
