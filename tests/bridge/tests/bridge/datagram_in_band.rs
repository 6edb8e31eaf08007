//! Datagrams on the control socket.

use crate::common::mail::{dropped, Mail};
use crate::common::*;
use i2psock_bridge::destination::{generate, text};
use i2psock_bridge::{Personality, Split};
use std::time::{Duration, Instant};

const JAVA: Personality = Personality::Java;
const I2PD: [Personality; 2] = [Personality::I2pd245, Personality::I2pd258];

fn send_line(style: &str, to: &str, size: usize) -> String {
    format!("{style} SEND DESTINATION={to} SIZE={size}\n")
}

#[test]
fn both_ways() {
    for personality in [JAVA, I2PD[0], I2PD[1]] {
        let bridge = bridge_as(personality);
        let ports = if personality == JAVA { " FROM_PORT=0 TO_PORT=0" } else { "" };
        let raw = if personality == JAVA { " PROTOCOL=18 FROM_PORT=0 TO_PORT=0" } else { "" };
        let (mut d, mut r) = (Mail::in_band(&bridge, "DATAGRAM", "d"), Mail::in_band(&bridge, "RAW", "r"));
        assert_eq!(bridge.session("d").unwrap().udp, None);
        for size in [3usize, 100, 7000] {
            let payload = pattern(size, size as u64);
            // Header and payload in one write, then apart.
            let me = d.me.clone();
            d.control.write([send_line("DATAGRAM", &me, size).as_bytes(), &payload].concat());
            assert_eq!(d.control.line(), format!("DATAGRAM RECEIVED DESTINATION={me} SIZE={size}{ports}"));
            assert!(d.control.exact(size) == payload);
            let me = r.me.clone();
            r.control.write(send_line("RAW", &me, size));
            std::thread::sleep(Duration::from_millis(20));
            r.control.write(&payload);
            assert_eq!(r.control.line(), format!("RAW RECEIVED SIZE={size}{raw}"));
            assert!(r.control.exact(size) == payload);
            // The socket still takes commands.
            assert!(r.control.ask("NAMING LOOKUP NAME=ME").contains(&me), "{personality}");
        }
        // By UDP to a control socket, and the other way.
        d.send(&d.me, "by UDP");
        assert!(d.control.line().contains(" SIZE=6"));
        assert_eq!(d.control.exact(6), b"by UDP");
        let u = Mail::new(&bridge, "RAW", "u");
        r.control.write([send_line("RAW", &u.me, 7).as_bytes(), b"on\nline"].concat());
        assert_eq!(u.bare(), b"on\nline");
        // Several in one write.
        let me = r.me.clone();
        let one = [send_line("RAW", &me, 4).as_bytes(), b"one\n"].concat();
        r.control.write(one.repeat(5));
        for _ in 0..5 {
            assert_eq!(r.control.line(), format!("RAW RECEIVED SIZE=4{raw}"));
            assert_eq!(r.control.exact(4), b"one\n");
        }
    }
}

#[test]
fn java_takes_options() {
    let bridge = bridge();
    let mut r = Mail::in_band(&bridge, "RAW", "r");
    let me = r.me.clone();
    r.control.write(format!("RAW SEND FROM_PORT=1 SIZE=1 TO_PORT=2 PROTOCOL=3 DESTINATION={me}\nx"));
    assert_eq!(r.control.line(), "RAW RECEIVED SIZE=1 PROTOCOL=3 FROM_PORT=1 TO_PORT=2");
    assert_eq!(r.control.exact(1), b"x");
    // The session's ports are not those of its SENDs.
    let mut d = Mail::open(&bridge, std::net::UdpSocket::bind("127.0.0.1:0").unwrap(), "DATAGRAM", "d", "TO_PORT=5");
    let me = d.me.clone();
    d.control.write(send_line("DATAGRAM", &me, 1) + "x");
    assert!(d.control.line().ends_with(" FROM_PORT=0 TO_PORT=0"));
    d.control.exact(1);
    d.send(&me, "y");
    assert!(d.control.line().ends_with(" FROM_PORT=0 TO_PORT=5"));
    let mut three = Mail::in_band(&bridge, "DATAGRAM3", "three");
    three.send(&three.me, "z");
    assert_eq!(three.control.line().len(), "DATAGRAM RECEIVED DESTINATION= SIZE=1 FROM_PORT=0 TO_PORT=0".len() + 44);
}

#[test]
fn what_makes_java_close() {
    let bridge = bridge();
    let nobody = text(&generate(7).unwrap().public);
    for (style, line) in [
        ("DATAGRAM", send_line("DATAGRAM", &nobody, 0)),
        ("DATAGRAM", send_line("DATAGRAM", &nobody, 31745)),
        ("RAW", send_line("RAW", &nobody, 32769)),
        ("RAW", format!("RAW SEND DESTINATION={nobody} SIZE=x\n")),
        ("RAW", format!("RAW SEND DESTINATION={nobody}\n")),
        ("RAW", "RAW SEND SIZE=1\n".to_string()),
        ("RAW", send_line("RAW", "rubbish", 1)),
        ("RAW", send_line("RAW", "no.i2p", 1)),
        ("RAW", send_line("DATAGRAM", &nobody, 1)),
        ("DATAGRAM", send_line("RAW", &nobody, 1)),
        ("DATAGRAM2", send_line("DATAGRAM", &nobody, 1)),
    ] {
        let mut a = Mail::in_band(&bridge, style, "a");
        a.control.write(line.as_bytes());
        assert!(a.control.rest().is_empty(), "{line}");
        assert!(bridge.wait_for(LONG, |b| b.sessions().is_empty()), "{line}");
    }
    let mut without = Client::new(&bridge);
    without.write(send_line("RAW", &nobody, 1));
    assert!(without.rest().is_empty());
    // Nobody there is no reason.
    let mut a = Mail::in_band(&bridge, "RAW", "a");
    a.control.write(send_line("RAW", &nobody, 1) + "x");
    assert!(a.control.ask("NAMING LOOKUP NAME=ME").contains("RESULT=OK"));
    assert_eq!(dropped(&bridge, 1), 1);
}

#[test]
fn limits_of_i2pd() {
    for (personality, limit) in I2PD.into_iter().zip([8192, 16384]) {
        let bridge = bridge_as(personality);
        let mut r = Mail::in_band(&bridge, "RAW", "r");
        // Incoming: the line and the payload in its buffer.
        let fits = limit - 1 - format!("RAW RECEIVED SIZE={limit}\n").len();
        r.send(&r.me, vec![b'x'; limit]);
        r.send(&r.me, vec![b'x'; fits + 5]);
        r.send(&r.me, vec![b'y'; fits]);
        assert_eq!(r.control.line(), format!("RAW RECEIVED SIZE={fits}"), "{personality}");
        assert_eq!(r.control.exact(fits), vec![b'y'; fits]);
        assert_eq!(dropped(&bridge, 3), 2);
        // Outgoing: 8192 on both; the word in front does not count.
        let me = r.me.clone();
        let size = 8192 - send_line("DATAGRAM", &me, 7000).len();
        r.control.write(send_line("DATAGRAM", &me, size) + &"z".repeat(size));
        if fits > size {
            assert_eq!(r.control.line(), format!("RAW RECEIVED SIZE={size}"));
            assert_eq!(r.control.exact(size), vec![b'z'; size]);
        }
        // A CR shifts the payload; what it leaves behind spoils the next command.
        r.control.write(send_line("RAW", &me, 5).replace('\n', "\r\n") + "abcde");
        assert_eq!(r.control.line(), "RAW RECEIVED SIZE=5");
        assert_eq!(r.control.exact(5), b"\nabcd");
        let mut r = Mail::in_band(&bridge, "RAW", "r2");
        r.control.write(send_line("RAW", &me, size + 20) + &"z".repeat(size + 20));
        r.control.send("NAMING LOOKUP NAME=ME");
        r.control.silent();
    }
}

#[test]
fn replies_and_pings_in_between() {
    let bridge = bridge();
    bridge.faults().split(Split::Every { bytes: 7, gap: Duration::ZERO });
    bridge.faults().ping_every(Some(Duration::from_millis(1)));
    let mut a = Mail::in_band(&bridge, "RAW", "a");
    let mut wanted = 0u8;
    let (mut pings, mut replies) = (0, 0);
    for n in 0..100u8 {
        a.send(&a.me, [n; 50]);
        a.control.send("NAMING LOOKUP NAME=ME");
    }
    while wanted < 100 || replies < 100 || pings < 3 {
        let line = a.control.line();
        match line.split(' ').next().unwrap() {
            "PING" => {
                a.control.send(&line.replace("PING", "PONG"));
                pings += 1;
            }
            "NAMING" => replies += 1,
            "RAW" => {
                assert_eq!(a.control.exact(50), [wanted; 50]);
                wanted += 1;
            }
            _ => panic!("{line}"),
        }
    }
}

#[test]
fn a_client_that_does_not_read_stops_nobody() {
    let bridge = bridge();
    let deaf = Mail::in_band(&bridge, "RAW", "deaf");
    let a = Mail::new(&bridge, "RAW", "a");
    let payload = vec![b'x'; 32768];
    let full = bridge.wait_for(LONG, |b| {
        a.send(&deaf.me, &payload);
        b.datagram_counts().dropped > 10
    });
    assert!(full);
    a.send(&a.me, "still there");
    assert_eq!(a.bare(), b"still there");
    let start = Instant::now();
    assert!(bridge.faults().kill_session("deaf", true));
    assert!(bridge.wait_for(LONG, |b| b.session("deaf").is_none()));
    assert!(start.elapsed() < PROMPT);
    let again = Mail::in_band(&bridge, "RAW", "deaf");
    let start = Instant::now();
    drop(again);
    drop(deaf);
    bridge.stop();
    assert!(start.elapsed() < PROMPT);
}

#[test]
fn emissary_has_none_of_it() {
    let bridge = bridge_as(Personality::Emissary);
    let mut a = Mail::new(&bridge, "RAW", "a");
    let me = a.me.clone();
    a.control.write(send_line("RAW", &me, 3) + "abc");
    a.control.silent();
    a.silent();
    assert!(a.control.ask("NAMING LOOKUP NAME=ME").contains("RESULT=OK"));
    assert_eq!(bridge.datagram_counts().received, 0);
}
