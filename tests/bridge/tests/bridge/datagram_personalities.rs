//! The habits in which routers differ, with datagrams.

use crate::common::mail::{create, dropped, Mail};
use crate::common::*;
use i2psock_bridge::destination::{b32_address, generate, text};
use i2psock_bridge::encoding::base64_decode;
use i2psock_bridge::{Bridge, Config, Personality, Style};
use std::net::UdpSocket;
use std::time::Duration;

const JAVA: Personality = Personality::Java;
const EMISSARY: Personality = Personality::Emissary;
const I2PD: [Personality; 2] = [Personality::I2pd245, Personality::I2pd258];

fn impatient(personality: Personality) -> Bridge {
    let command_timeout = Some(Duration::from_secs(1));
    Bridge::start(Config { command_timeout, ..Config::with_personality(personality) }).unwrap()
}

#[test]
fn styles() {
    let mut cases = Vec::new();
    for (style, known) in [
        ("DATAGRAM", [true; 4]),
        ("DATAGRAM1", [false, false, true, false]),
        ("DATAGRAM2", [true, false, true, false]),
        ("DATAGRAM3", [true, false, true, false]),
        ("RAW", [true; 4]),
    ] {
        cases.extend(Personality::ALL.into_iter().zip(known).map(|(personality, known)| (style, personality, known)));
    }
    at_once(cases, |(style, personality, known)| {
        let bridge = impatient(personality);
        let mut client = Client::new(&bridge);
        client.send(&create(style, "a", "HOST=127.0.0.1 PORT=9"));
        if known {
            assert!(client.line().contains("RESULT=OK"), "{personality} {style}");
        } else if personality == EMISSARY {
            assert!(client.rest().is_empty());
        } else {
            assert!(client.line().starts_with("SESSION STATUS RESULT=I2P_ERROR"), "{personality} {style}");
        }
    });
}

#[test]
fn forward_addresses() {
    const BAD_HOST: &str = "SESSION STATUS RESULT=I2P_ERROR MESSAGE=\"Invalid IP Address in HOST\"";
    for personality in I2PD {
        let bridge = bridge_as(personality);
        for options in ["", "PORT=9", "HOST=127.0.0.1", "HOST=localhost"] {
            let a = Mail::open(&bridge, UdpSocket::bind("127.0.0.1:0").unwrap(), "RAW", "a", options);
            assert_eq!(bridge.session("a").unwrap().udp, None, "{personality} {options}");
            drop(a);
            assert!(bridge.wait_for(LONG, |b| b.sessions().is_empty()));
        }
        let mut client = Client::new(&bridge);
        assert_eq!(client.ask(&create("RAW", "a", "HOST=localhost PORT=9")), BAD_HOST);
        assert!(client.rest().is_empty());
        let mut client = Client::new(&bridge);
        client.send(&create("RAW", "a", "HOST=127.0.0.1 PORT=x"));
        match personality {
            Personality::I2pd245 => client.silent(),
            _ => assert!(client.line().contains("I2P_ERROR")),
        }
    }

    let bridge = impatient(EMISSARY);
    let a = Mail::with(&bridge, "RAW", "a", "HOST=10.1.2.3");
    assert_eq!(bridge.session("a").unwrap().udp, Some(a.udp.local_addr().unwrap()));
    at_once(["HOST=127.0.0.1", "PORT=0", "PORT=x", ""], |options| {
        let mut client = Client::new(&bridge);
        client.send(&create("RAW", "b", options));
        assert!(client.rest().is_empty(), "{options}");
    });
}

#[test]
fn lines_in_front() {
    for personality in Personality::ALL {
        let bridge = bridge_as(personality);
        let (d, r) = (Mail::new(&bridge, "DATAGRAM", "d"), Mail::with(&bridge, "RAW", "r", "HEADER=true"));
        d.send(&d.me, "payload");
        let header = match personality {
            JAVA | EMISSARY => format!("{} FROM_PORT=0 TO_PORT=0", d.me),
            _ => d.me.clone(),
        };
        assert_eq!(d.letter(), (header, b"payload".to_vec()), "{personality}");
        r.send(&r.me, "payload");
        let raw = if personality == JAVA { "PROTOCOL=18 FROM_PORT=0 TO_PORT=0\npayload" } else { "payload" };
        assert_eq!(r.packet(), (raw.as_bytes().to_vec(), bridge.udp_addr()));
    }
}

#[test]
fn header_options_and_names() {
    for personality in Personality::ALL {
        let bridge = bridge_as(personality);
        let d = Mail::new(&bridge, "DATAGRAM", "d");
        d.send(&format!("{} FROM_PORT=7 TO_PORT=8", d.me), "options");
        d.send(&b32_address(&base64_decode(&d.me).unwrap()), "name");
        d.send(&text(&generate(7).unwrap().public), "nobody");
        d.send(&d.me, "end");
        let (header, payload) = d.letter();
        match personality {
            JAVA => {
                assert_eq!((header, payload), (format!("{} FROM_PORT=7 TO_PORT=8", d.me), b"options".to_vec()));
                assert_eq!((d.letter().1, d.letter().1), (b"name".to_vec(), b"end".to_vec()));
            }
            EMISSARY => {
                assert_eq!((header, payload), (format!("{} FROM_PORT=0 TO_PORT=0", d.me), b"options".to_vec()));
                assert_eq!(d.letter().1, b"end");
            }
            _ => assert_eq!(payload, b"end"),
        }
        let wanted = if personality == JAVA { 1 } else { 2 + u64::from(personality != EMISSARY) };
        assert_eq!(dropped(&bridge, 4), wanted, "{personality}");
    }
}

#[test]
fn sizes() {
    for personality in I2PD {
        let bridge = bridge_as(personality);
        let d = Mail::new(&bridge, "DATAGRAM", "nick");
        let header = format!("3.0 nick {}\n", d.me).len();
        for size in [1, 30000, 32768 - header, 32769 - header, 32768, 60000] {
            d.send(&d.me, vec![b'x'; size]);
            assert_eq!(d.letter().1.len(), size.min(32768 - header), "{personality} {size}");
        }
        let r = Mail::new(&bridge, "RAW", "r");
        for size in [0, 1, 2, 3] {
            r.send(&r.me, vec![b'x'; size]);
        }
        assert_eq!(r.bare(), b"xxx");
        assert_eq!(dropped(&bridge, 10), 3);
    }
    let bridge = bridge_as(EMISSARY);
    let d = Mail::new(&bridge, "DATAGRAM", "d");
    for size in [0, 1, 7658, 7659, 31744] {
        d.send(&d.me, vec![b'x'; size]);
        assert_eq!(d.letter().1.len(), size.min(7658), "{size}");
    }
}

#[test]
fn only_the_version_java_looks_at() {
    for personality in Personality::ALL {
        let bridge = bridge_as(personality);
        let r = Mail::new(&bridge, "RAW", "r");
        r.raw(format!("9.9 r {}\nfirst", r.me));
        r.raw(format!("3.3 r {}\nsecond", r.me));
        let wanted: &[u8] = if I2PD.contains(&personality) { b"first" } else { b"second" };
        assert_eq!(r.bare(), wanted, "{personality}");
    }
}

#[test]
fn emissary_hears_one_port_only() {
    let bridge = bridge_as(EMISSARY);
    let zero = Mail::new(&bridge, "DATAGRAM", "zero");
    let seven = Mail::with(&bridge, "DATAGRAM", "seven", "FROM_PORT=7");
    zero.send(&format!("{} TO_PORT=7", seven.me), "x");
    seven.send(&zero.me, "y");
    assert_eq!(zero.letter().1, b"y");
    assert_eq!(dropped(&bridge, 2), 1);
}

#[test]
fn the_other_datagrams_of_i2pd() {
    let bridge = bridge_as(Personality::I2pd258);
    let one = Mail::new(&bridge, "DATAGRAM1", "one");
    assert_eq!(bridge.session("one").unwrap().style, Style::Datagram);
    let plain = Mail::new(&bridge, "DATAGRAM", "plain");
    one.send(&plain.me, "x");
    assert_eq!(plain.letter(), (one.me.clone(), b"x".to_vec()));
    let two = Mail::new(&bridge, "DATAGRAM2", "two");
    two.send(&two.me, "x");
    assert_eq!(two.letter(), (two.me.clone(), b"x".to_vec()));
    let three = Mail::new(&bridge, "DATAGRAM3", "three");
    three.send(&three.me, "x");
    assert_eq!(dropped(&bridge, 3), 1);
}

#[test]
fn the_udp_port() {
    for personality in I2PD {
        // The port below may be anybody's.
        let below = (0..50).any(|_| {
            let bridge = bridge_as(personality);
            bridge.udp_port() == bridge.port() - 1
        });
        assert!(below, "{personality}");
    }
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port() + 1;
    let config = Config { port, ..Config::with_personality(Personality::I2pd258) };
    // The TCP port may be taken as well.
    if let Ok(bridge) = Bridge::start(config) {
        assert_ne!(bridge.udp_port(), port - 1);
    }
}
