//! A network that loses, repeats and reorders, and strangers on it.

use crate::common::mail::{dropped, Mail};
use crate::common::*;
use i2psock_bridge::{Bridge, Config, FaultConfig};

fn start(faults: FaultConfig) -> (Bridge, Mail) {
    let bridge = Bridge::start(Config { faults, ..Config::default() }).unwrap();
    let a = Mail::new(&bridge, "RAW", "a");
    (bridge, a)
}

/// Sends so many numbered datagrams, each when the one before has been dealt with, and gives what has come.
fn numbered(bridge: &Bridge, a: &Mail, numbers: std::ops::Range<u8>) -> Vec<u8> {
    let before = bridge.datagram_counts();
    for n in numbers.clone() {
        a.send(&a.me, [n]);
        dropped(bridge, before.received + u64::from(n - numbers.start) + 1);
    }
    let come = bridge.datagram_counts().sent - before.sent;
    (0..come).map(|_| a.bare()[0]).collect()
}

#[test]
fn loss_and_duplicates_follow_the_seed() {
    let run = |seed| {
        let (bridge, a) = start(FaultConfig { loss: 20, duplicate: 20, reorder: 20, seed, ..FaultConfig::default() });
        let first = numbered(&bridge, &a, 0..200);
        let counts = bridge.datagram_counts();
        assert_eq!(counts.lost, counts.dropped);
        assert!((15..70).contains(&counts.lost) && (15..70).contains(&counts.duplicated), "{counts:?}");
        bridge.faults().clear();
        first
    };
    let first = run(7);
    assert_eq!(first, run(7));
    assert_ne!(first, run(8));
    // Out of order, some missing, some twice.
    assert!(first.windows(2).any(|w| w[0] > w[1]));
    assert!(first.windows(2).any(|w| w[0] == w[1]));
    assert!((0..200).any(|n| !first.contains(&n)));
}

#[test]
fn all_or_nothing() {
    let (bridge, a) = start(FaultConfig::default());
    let faults = bridge.faults();
    faults.loss(100);
    assert_eq!(numbered(&bridge, &a, 0..5), []);
    assert_eq!(bridge.datagram_counts().lost, 5);
    faults.loss(0);
    faults.duplicate(100);
    assert_eq!(numbered(&bridge, &a, 0..3), [0, 0, 1, 1, 2, 2]);
    faults.duplicate(0);
    faults.reorder(100);
    assert_eq!(numbered(&bridge, &a, 0..5), [1, 0, 3, 2]);
    assert_eq!(bridge.datagram_counts().held, 1);
    faults.reorder(0);
    assert_eq!(a.bare(), [4]);
    // What is held back for a session ends with it.
    faults.reorder(100);
    faults.duplicate(100);
    assert_eq!(numbered(&bridge, &a, 0..1), []);
    assert_eq!(bridge.datagram_counts().held, 2);
    drop(a);
    assert!(bridge.wait_for(LONG, |b| b.datagram_counts().held == 0));
    assert_eq!(bridge.datagram_counts().dropped, 7);
}

#[test]
fn one_session_does_not_release_what_another_waits_for() {
    let (bridge, a) = start(FaultConfig { reorder: 100, ..FaultConfig::default() });
    let b = Mail::new(&bridge, "RAW", "b");
    a.send(&a.me, "1");
    a.send(&b.me, "2");
    dropped(&bridge, 2);
    assert_eq!(bridge.datagram_counts().held, 2);
    a.send(&b.me, "3");
    assert_eq!((b.bare(), b.bare()), (b"3".to_vec(), b"2".to_vec()));
    bridge.faults().clear();
    assert_eq!(a.bare(), b"1");
}

#[test]
fn forged_and_injected() {
    let bridge = bridge();
    let a = Mail::new(&bridge, "DATAGRAM", "a");
    let faults = bridge.faults();
    let from = faults.forge("a", format!("{}\nfake", a.me)).unwrap();
    assert_ne!(from, bridge.udp_addr());
    assert_eq!(a.packet(), (format!("{}\nfake", a.me).into_bytes(), from));
    for bytes in [&b""[..], b"no newline", b"\n", &[b'x'; 60000]] {
        assert!(faults.inject("a", bytes));
        assert_eq!(a.packet(), (bytes.to_vec(), bridge.udp_addr()));
    }
    let _c = Mail::in_band(&bridge, "DATAGRAM", "c");
    for id in ["c", "nosuch"] {
        assert!(!faults.inject(id, "x") && faults.forge(id, "x").is_none());
    }
    faults.forge_percent(100);
    a.send(&a.me, "real");
    let mut packets = [a.packet(), a.packet()];
    packets.sort_by_key(|(_, from)| *from != bridge.udp_addr());
    let header = format!("{} FROM_PORT=0 TO_PORT=0\n", a.me);
    assert_eq!(packets[0].0, format!("{header}real").as_bytes());
    assert_eq!(packets[1].0, format!("{header}forged").as_bytes());
    assert_ne!(packets[1].1, bridge.udp_addr());
    assert_eq!(bridge.datagram_counts().forged, 2);
    assert_eq!(bridge.datagram_counts().sent, 1);
}

#[test]
fn a_port_nobody_listens_on_harms_nobody() {
    let bridge = bridge();
    let a = Mail::new(&bridge, "DATAGRAM", "a");
    let mut gone = Mail::new(&bridge, "DATAGRAM", "gone");
    gone.udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    for _ in 0..50 {
        a.send(&gone.me, "x");
        a.send(&a.me, "y");
        assert_eq!(a.letter().1, b"y");
    }
}

#[test]
fn trouble_also_on_the_control_socket() {
    let bridge = bridge();
    let mut a = Mail::in_band(&bridge, "RAW", "a");
    bridge.faults().duplicate(100);
    a.control.write(format!("RAW SEND DESTINATION={} SIZE=3\nabc", a.me));
    for _ in 0..2 {
        assert_eq!(a.control.line(), "RAW RECEIVED SIZE=3 PROTOCOL=18 FROM_PORT=0 TO_PORT=0");
        assert_eq!(a.control.exact(3), b"abc");
    }
}
