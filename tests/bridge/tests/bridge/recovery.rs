//! What a client has to get over: routers that go and come back, sessions that die, refusals that pass.

use crate::common::*;
use i2psock_bridge::destination::{generate, text, KeyPair};
use i2psock_bridge::{Bridge, Config, FaultConfig, Personality};
use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

const ANNOUNCED: &str = "SESSION STATUS RESULT=I2P_ERROR MESSAGE=\"Session is closed\"\n";

/// A session with these keys; its address must be theirs.
fn with_keys(bridge: &Bridge, id: &str, keys: &KeyPair) -> Client {
    let mut client = Client::new(bridge);
    let reply = client.ask(&create(id, &text(&keys.blob)));
    assert_eq!(reply, format!("SESSION STATUS RESULT=OK DESTINATION={}", text(&keys.blob)));
    assert_eq!(bridge.session(id).unwrap().destination, text(&keys.public));
    client
}

#[test]
fn a_bridge_comes_back_at_its_place_and_so_do_sessions_with_keys() {
    for personality in Personality::ALL {
        let mut bridge = Bridge::start_to_stay(Config::with_personality(personality)).unwrap();
        let (addr, udp) = (bridge.addr(), bridge.udp_addr());
        let keys = [generate(7).unwrap(), generate(7).unwrap()];
        for round in 0..5 {
            let mut a = with_keys(&bridge, "a", &keys[0]);
            let mut b = with_keys(&bridge, "b", &keys[1]);
            assert_eq!(
                a.ask("NAMING LOOKUP NAME=ME"),
                format!("NAMING REPLY RESULT=OK NAME=ME VALUE={}", text(&keys[0].public))
            );
            let (mut connected, mut accepted) = stream(&bridge);
            connected.write("round");
            assert_eq!(accepted.exact(5), b"round", "{personality} {round}");
            let mut waiting = Client::accept(&bridge, "a");
            bridge = bridge.restart().unwrap();
            assert_eq!((bridge.addr(), bridge.udp_addr()), (addr, udp));
            for client in [&mut a, &mut b, &mut connected, &mut accepted] {
                assert!(client.rest().is_empty(), "{personality} {round}");
            }
            waiting.rest();
            assert!(bridge.sessions().is_empty());
            assert_eq!(bridge.connections_total(), 0);
        }
        // The same by hand.
        bridge.stop();
        let again = Bridge::start(Config { port: addr.port(), personality, ..Config::default() }).unwrap();
        assert_eq!(again.addr(), addr);
        with_keys(&again, "a", &keys[0]);
    }
}

#[test]
fn a_destination_stays_busy_for_a_while() {
    for (personality, refusal) in [
        (Personality::Java, "SESSION STATUS RESULT=DUPLICATED_DEST\n"),
        (Personality::I2pd245, "SESSION STATUS RESULT=DUPLICATED_DEST\n"),
        (Personality::Emissary, "SESSION STATUS RESULT=DUPLICATE_DEST"),
    ] {
        let faults = FaultConfig { duplicated_times: 2, ..FaultConfig::default() };
        let keep_closed = Some(Duration::ZERO);
        let bridge = Bridge::start(Config { personality, faults, keep_closed, ..Config::default() }).unwrap();
        let keys = generate(7).unwrap();
        let refused = || {
            let mut client = Client::new(&bridge);
            client.send(&create("a", &text(&keys.blob)));
            client.finish_writing();
            client.rest_text() == refusal
        };
        // New keys cannot be in use.
        Client::session(&bridge, "other");
        assert!(refused() && refused());
        drop(with_keys(&bridge, "a", &keys));
        bridge.faults().duplicated_times(1);
        assert!(refused());
        assert!(bridge.wait_for(LONG, |b| b.sessions().is_empty()));
        drop(with_keys(&bridge, "b", &keys));
        bridge.faults().duplicated_for(Duration::from_secs(3600));
        assert!((0..5).all(|_| refused()));
        let time = Duration::from_millis(100);
        let start = Instant::now();
        bridge.faults().duplicated_for(time);
        while refused() {
            assert!(start.elapsed() < LONG);
        }
        assert!(start.elapsed() >= time);
        bridge.faults().duplicated_for(Duration::from_secs(3600));
        bridge.faults().clear();
        assert!(bridge.wait_for(LONG, |b| b.sessions().is_empty()));
        with_keys(&bridge, "a", &keys);
    }
    // From the start of the bridge.
    let faults = FaultConfig { duplicated_for: Duration::from_secs(3600), ..FaultConfig::default() };
    let bridge = Bridge::start(Config { faults, ..Config::default() }).unwrap();
    let mut client = Client::new(&bridge);
    let reply = client.ask(&create("a", &text(&generate(7).unwrap().blob)));
    assert_eq!(reply, "SESSION STATUS RESULT=DUPLICATED_DEST");
}

#[test]
fn sessions_die_on_demand() {
    let (bridge, mut a, mut b) = two_sessions(Config::default());
    let (mut connected, mut accepted) = stream(&bridge);
    assert!(bridge.faults().kill_session("a", true));
    assert_eq!(a.rest_text(), ANNOUNCED);
    assert!(connected.rest().is_empty() && accepted.rest().is_empty());
    assert!(!bridge.faults().kill_session("a", true));
    assert_eq!(bridge.faults().kill_all_sessions(false), 1);
    assert!(b.rest().is_empty());
    assert!(bridge.sessions().is_empty());
    Client::session(&bridge, "a");
}

#[test]
fn pings_every_millisecond_on_control_and_forward_sockets() {
    for personality in Personality::ALL {
        let bridge = bridge_as(personality);
        let mut a = Client::session(&bridge, "a");
        let target = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = target.local_addr().unwrap().port();
        let mut forward = Client::new(&bridge);
        assert_eq!(forward.ask(&format!("STREAM FORWARD ID=a PORT={port} HOST=127.0.0.1")), "STREAM STATUS RESULT=OK");
        let mut utility = Client::new(&bridge);
        bridge.faults().ping_every(Some(Duration::from_millis(1)));
        for count in 1..=50 {
            for (client, also) in [(&mut a, 1), (&mut forward, 0)] {
                let ping = client.line();
                client.send(&format!("PONG {}", ping.strip_prefix("PING ").unwrap()));
                // Some routers drop what comes in one piece with another line.
                let heard = bridge.wait_for(LONG, |b| b.faults().pongs().len() == 2 * count - also);
                assert!(heard, "{personality} {count}");
            }
        }
        bridge.faults().ping_every(None);
        let pongs = bridge.faults().pongs();
        assert!(pongs.iter().all(|pong| pong.matched));
        let connections = [1, 2].map(|number| pongs.iter().filter(|pong| pong.connection == number).count());
        assert_eq!(connections, [50, 50], "{personality}");
        utility.silent();
        assert!(bridge.session("a").unwrap().forward);
    }
}

#[test]
fn accepts_that_end_after_their_ok() {
    for personality in Personality::ALL {
        let bridge = bridge_as(personality);
        let (_a, _b) = (Client::session(&bridge, "a"), Client::session(&bridge, "b"));
        let accept = || {
            let mut client = Client::new(&bridge);
            assert_eq!(client.ask("STREAM ACCEPT ID=a"), "STREAM STATUS RESULT=OK");
            client
        };
        let line = "STREAM STATUS RESULT=I2P_ERROR MESSAGE=\"gone\"\n";
        bridge.faults().accepts_end(2, Duration::from_millis(30), line);
        for _ in 0..2 {
            assert_eq!(accept().rest_text(), line);
        }
        bridge.faults().clear_rules();
        bridge.faults().accepts_end(1, Duration::ZERO, "");
        assert!(accept().rest().is_empty());
        stream(&bridge);
        // The OK does not wait for the end.
        bridge.faults().accepts_end(2, Duration::from_secs(3600), line);
        accept().silent();
    }
}

#[test]
fn one_accept_at_a_time_before_3_2() {
    let bridge = bridge();
    let _a = Client::session(&bridge, "a");
    let accept = |max: &str| {
        let mut client = Client::bare(&bridge);
        assert_eq!(
            client.ask(&format!("HELLO VERSION MIN=3.0 MAX={max}")),
            format!("HELLO REPLY RESULT=OK VERSION={max}")
        );
        let reply = client.ask("STREAM ACCEPT ID=a");
        (client, reply)
    };
    let (_first, reply) = accept("3.1");
    assert_eq!(reply, "STREAM STATUS RESULT=OK");
    assert!(bridge.wait_for(LONG, |b| b.session("a").unwrap().accepts == 1));
    let (mut second, reply) = accept("3.1");
    assert_eq!(reply, "STREAM STATUS RESULT=ALREADY_ACCEPTING");
    assert!(second.rest().is_empty());
    let (_third, reply) = accept("3.2");
    assert_eq!(reply, "STREAM STATUS RESULT=OK");
    assert!(bridge.wait_for(LONG, |b| b.session("a").unwrap().accepts == 2));
}

#[test]
fn connections_are_refused_for_a_while() {
    let directory = std::env::temp_dir().join(format!("i2psock-refusing-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("sam");
    let config = Config { ipv6: true, unix: Some(path.clone()), ..Config::default() };
    let bridge = Bridge::start_to_stay(config).unwrap();
    let (mut a, _b) = (Client::session(&bridge, "a"), Client::session(&bridge, "b"));
    let refused = || {
        let kinds = [
            TcpStream::connect(bridge.addr()).map(drop),
            TcpStream::connect(bridge.addr_v6().unwrap()).map(drop),
            std::os::unix::net::UnixStream::connect(&path).map(drop),
        ];
        kinds.iter().filter(|kind| kind.as_ref().is_err_and(|e| e.kind() == ErrorKind::ConnectionRefused)).count()
    };
    assert_eq!(refused(), 0);
    let total = bridge.connections_total();
    for _ in 0..3 {
        bridge.stop_listening();
        bridge.stop_listening();
        assert_eq!(refused(), 3);
        // Who is connected does not notice.
        assert!(a.ask("NAMING LOOKUP NAME=ME").starts_with("NAMING REPLY RESULT=OK"));
        bridge.listen_again().unwrap();
        bridge.listen_again().unwrap();
        stream(&bridge);
    }
    assert!(bridge.connections_total() > total);
    bridge.stop_listening();
    let bridge = bridge.restart().unwrap();
    Client::session(&bridge, "a");
    bridge.stop();
    std::fs::remove_dir_all(&directory).unwrap();
}
