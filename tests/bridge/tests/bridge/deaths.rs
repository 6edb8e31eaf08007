//! Sessions that die while their control sockets stay open, and those that get what is left of others.

use crate::common::*;
use i2psock_bridge::destination::{generate, text, KeyPair};
use i2psock_bridge::{Bridge, Config, FaultConfig, Personality};
use std::net::UdpSocket;
use std::time::{Duration, Instant};

const I2PD: [Personality; 2] = [Personality::I2pd245, Personality::I2pd258];
const OK: &str = "STREAM STATUS RESULT=OK";
const CLOSED: &str = "STREAM STATUS RESULT=I2P_ERROR MESSAGE=\"Session was closed\"\n";
const INVALID_ID: &str = "STREAM STATUS RESULT=INVALID_ID\n";

fn keeping(personality: Personality, time: Duration) -> Bridge {
    Bridge::start(Config { keep_closed: Some(time), ..Config::with_personality(personality) }).unwrap()
}

/// Asks for a session with these keys and does not wait for the answer.
fn creating(bridge: &Bridge, id: &str, keys: &KeyPair) -> Client {
    let mut client = Client::new(bridge);
    client.send(&create(id, &text(&keys.blob)));
    client
}

/// A session with these keys.
fn with_keys(bridge: &Bridge, id: &str, keys: &KeyPair) -> Client {
    let mut client = creating(bridge, id, keys);
    assert_eq!(client.line(), format!("SESSION STATUS RESULT=OK DESTINATION={}", text(&keys.blob)));
    client
}

/// Ends a session, and says when that was at the latest.
fn close(bridge: &Bridge, id: &str, control: Client) -> Instant {
    drop(control);
    assert!(bridge.wait_for(LONG, |b| b.session(id).is_none()));
    Instant::now()
}

fn is_alive(bridge: &Bridge, id: &str) -> bool {
    bridge.session(id).unwrap().alive
}

fn asking(bridge: &Bridge, line: &str) -> Client {
    let mut client = Client::new(bridge);
    client.send(line);
    client
}

/// What i2pd does with a session that has died: `a`, whose control socket this is. There also is a live one, `b`.
fn is_dead(bridge: &Bridge, control: &mut Client) {
    let live = bridge.session("b").unwrap().destination;
    let dead = bridge.session("a").unwrap().destination;
    let personality = control.personality(bridge);
    for _ in 0..3 {
        for line in ["STREAM ACCEPT ID=a", &format!("STREAM CONNECT ID=a DESTINATION={live}")] {
            let mut client = asking(bridge, line);
            if personality == Personality::I2pd245 {
                assert_eq!(client.rest_text(), INVALID_ID, "{line}");
            } else {
                assert_eq!(client.line(), OK, "{line}");
                client.write("x");
                client.silent();
            }
        }
    }
    let mut client = asking(bridge, &format!("STREAM CONNECT ID=b DESTINATION={dead}"));
    assert!(client.line().starts_with("STREAM STATUS RESULT=CANT_REACH_PEER"));
    assert_eq!(
        control.ask("NAMING LOOKUP NAME=ME"),
        format!("NAMING REPLY RESULT=OK NAME=ME VALUE={dead}"),
        "{personality}"
    );
}

impl Client {
    /// Which of the two i2pds this is.
    fn personality(&self, bridge: &Bridge) -> Personality {
        let mut client = Client::bare(bridge);
        match client.ask("HELLO VERSION MIN=3.1 MAX=3.3").as_str() {
            "HELLO REPLY RESULT=OK VERSION=3.3" => Personality::I2pd258,
            _ => Personality::I2pd245,
        }
    }
}

#[test]
fn i2pd_gives_a_closed_destination_away_and_deletes_it_then() {
    at_once(I2PD, |personality| {
        let (keep, build) = (Duration::from_secs(1), Duration::from_secs(3));
        let config = Config { keep_closed: Some(keep), build_delay: build, ..Config::with_personality(personality) };
        let bridge = Bridge::start(config).unwrap();
        let keys = generate(7).unwrap();
        let mut other = creating(&bridge, "b", &generate(7).unwrap());
        let first = with_keys(&bridge, "a", &keys);
        other.line();
        let end = close(&bridge, "a", first);

        let start = Instant::now();
        let mut second = with_keys(&bridge, "a", &keys);
        assert!(start.elapsed() < build, "it was built");
        assert!(is_alive(&bridge, "a"));
        let waiting = Client::accept(&bridge, "a");
        assert!(bridge.wait_for(LONG, |b| !is_alive(b, "a")));
        assert!(end.elapsed() + Duration::from_millis(100) >= keep, "{:?}", end.elapsed());
        is_dead(&bridge, &mut second);
        { waiting }.silent();
    });
}

#[test]
fn a_third_one_on_i2pd_gets_no_answer_until_all_is_over() {
    at_once(I2PD, |personality| {
        let keep = Duration::from_secs(1);
        let bridge = keeping(personality, keep);
        let _b = Client::session(&bridge, "b");
        let keys = generate(7).unwrap();
        close(&bridge, "a", with_keys(&bridge, "a", &keys));
        let second = with_keys(&bridge, "a", &keys);
        assert!(bridge.wait_for(LONG, |b| !is_alive(b, "a")));
        // Be the second there or not.
        let mut third = creating(&bridge, "c", &keys);
        third.silent();
        let start = Instant::now();
        close(&bridge, "a", second);
        let last = loop {
            let mut client = creating(&bridge, "a", &keys);
            if bridge.wait_for(Duration::from_millis(500), |b| b.session("a").is_some()) {
                assert!(client.line().starts_with("SESSION STATUS RESULT=OK"));
                break client;
            }
            client.silent();
            assert!(start.elapsed() < LONG, "never");
        };
        assert!(start.elapsed() >= keep);
        third.silent();
        stream(&bridge);
        // And it stays so.
        assert!(!bridge.wait_for(2 * keep, |b| !is_alive(b, "a")));
        drop(last);
    });
}

#[test]
fn open_streams_prolong_the_life_of_a_destination_that_will_be_deleted() {
    at_once(I2PD, |personality| {
        let keep = Duration::from_millis(500);
        let bridge = keeping(personality, keep);
        let _b = Client::session(&bridge, "b");
        let keys = generate(7).unwrap();
        close(&bridge, "a", with_keys(&bridge, "a", &keys));
        let _a = with_keys(&bridge, "a", &keys);
        let (mut connected, mut accepted) = stream(&bridge);
        assert!(!bridge.wait_for(2 * keep, |b| !is_alive(b, "a")));
        connected.write("x");
        assert_eq!(accepted.exact(1), b"x");
        let end = Instant::now();
        drop((connected, accepted));
        assert!(bridge.wait_for(LONG, |b| !is_alive(b, "a")));
        assert!(end.elapsed() >= keep, "{:?}", end.elapsed());
    });
}

#[test]
fn nothing_is_kept_where_that_is_not_wanted_nor_by_others() {
    for (personality, time) in [
        (Personality::I2pd245, Some(Duration::ZERO)),
        (Personality::I2pd258, Some(Duration::ZERO)),
        (Personality::Java, Some(Duration::from_millis(1))),
        (Personality::Java, None),
        (Personality::Emissary, None),
    ] {
        let config = Config { keep_closed: time, ..Config::with_personality(personality) };
        let bridge = Bridge::start(config).unwrap();
        let _b = Client::session(&bridge, "b");
        let keys = generate(7).unwrap();
        for _ in 0..5 {
            let control = with_keys(&bridge, "a", &keys);
            stream(&bridge);
            close(&bridge, "a", control);
        }
        let _a = with_keys(&bridge, "a", &keys);
        assert!(!bridge.wait_for(SHORT, |b| !is_alive(b, "a")), "{personality}");
    }
}

#[test]
fn the_same_keys_twice_at_once_on_i2pd_are_the_death_of_both() {
    for personality in I2PD {
        let bridge = keeping(personality, Duration::from_secs(3600));
        let _b = Client::session(&bridge, "b");
        let keys = generate(7).unwrap();
        let mut first = with_keys(&bridge, "a", &keys);
        let (mut connected, mut accepted) = stream(&bridge);
        let mut second = with_keys(&bridge, "x", &keys);
        assert_eq!((is_alive(&bridge, "a"), is_alive(&bridge, "x")), (false, false));
        assert!(connected.rest().is_empty() && accepted.rest().is_empty());
        is_dead(&bridge, &mut first);
        second.silent();
        assert!(second.ask("NAMING LOOKUP NAME=ME").contains("RESULT=OK"));
        drop(first);
        assert!(bridge.wait_for(LONG, |b| b.session("a").is_none()));
        creating(&bridge, "a", &keys).silent();
        // Whatever they are for.
        let keys = generate(7).unwrap();
        let mut raw = Client::new(&bridge);
        let line = format!("SESSION CREATE STYLE=RAW ID=r DESTINATION={}", text(&keys.blob));
        assert!(raw.ask(&line).contains("RESULT=OK"));
        let _stream = with_keys(&bridge, "s", &keys);
        assert_eq!((is_alive(&bridge, "r"), is_alive(&bridge, "s")), (false, false));
    }
}

#[test]
fn a_session_that_dies_behind_its_control_socket() {
    let (bridge, mut a, _b) = two_sessions(Config::default());
    let (mut connected, mut accepted) = stream(&bridge);
    let mut waiting = Client::accept(&bridge, "a");
    assert!(bridge.faults().die_session("a"));
    assert!(!bridge.faults().die_session("nosuch"));
    assert_eq!((is_alive(&bridge, "a"), is_alive(&bridge, "b")), (false, true));
    assert_eq!(waiting.rest_text(), CLOSED);
    assert!(connected.rest().is_empty() && accepted.rest().is_empty());
    let live = bridge.session("b").unwrap().destination;
    let dead = bridge.session("a").unwrap().destination;
    for round in 0..3 {
        assert_eq!(asking(&bridge, "STREAM ACCEPT ID=a").rest_text(), format!("{OK}\n{CLOSED}"));
        let connect = format!("STREAM CONNECT ID=a DESTINATION={live}");
        assert_eq!(asking(&bridge, &connect).rest_text(), CLOSED);
        let reply = asking(&bridge, &format!("STREAM CONNECT ID=b DESTINATION={dead}")).rest_text();
        assert_eq!(reply, "STREAM STATUS RESULT=CANT_REACH_PEER MESSAGE=\"Connection timed out\"\n");
        assert_eq!(a.ask("NAMING LOOKUP NAME=ME"), format!("NAMING REPLY RESULT=OK NAME=ME VALUE={dead}"));
        assert_eq!(a.ask(&format!("PING {round}")), format!("PONG {round}"));
    }
    a.silent();
    // Its id and its destination are taken until its socket closes.
    drop(a);
    assert!(bridge.wait_for(LONG, |b| b.session("a").is_none()));
    let _a = Client::session(&bridge, "a");
    stream(&bridge);
}

#[test]
fn a_dead_session_of_each_router() {
    for (personality, wanted) in Personality::ALL.into_iter().zip([CLOSED, INVALID_ID, "", ""]) {
        let faults = FaultConfig { die_after: Some(Duration::from_millis(1)), ..FaultConfig::default() };
        let bridge = Bridge::start(Config { faults, ..Config::with_personality(personality) }).unwrap();
        let mut a = Client::session(&bridge, "a");
        assert!(bridge.wait_for(LONG, |b| !is_alive(b, "a")), "{personality}");
        let me = bridge.session("a").unwrap().destination;
        let mut client = asking(&bridge, &format!("STREAM CONNECT ID=a DESTINATION={me}"));
        if personality == Personality::I2pd258 {
            assert_eq!(client.line(), OK);
            client.silent();
        } else {
            assert_eq!(client.rest_text(), wanted, "{personality}");
        }
        assert!(a.ask("NAMING LOOKUP NAME=ME").contains("RESULT=OK"));
        a.silent();
    }
}

#[test]
fn datagrams_of_the_dead_vanish() {
    let bridge = bridge();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = udp.local_addr().unwrap().port();
    let mut controls = ["live", "dead", "inband"].map(|id| {
        let mut client = Client::new(&bridge);
        let forward = if id == "inband" { String::new() } else { format!(" PORT={port}") };
        let line = format!("SESSION CREATE STYLE=DATAGRAM ID={id} DESTINATION=TRANSIENT SIGNATURE_TYPE=7{forward}");
        assert!(client.ask(&line).contains("RESULT=OK"));
        client
    });
    let [live, dead] = ["live", "dead"].map(|id| bridge.session(id).unwrap().destination);
    let sent = |from: &str, to: &str| {
        let before = bridge.datagram_counts();
        udp.send_to(format!("3.0 {from} {to}\nx").as_bytes(), bridge.udp_addr()).unwrap();
        assert!(bridge.wait_for(LONG, |b| {
            let now = b.datagram_counts();
            now.sent + now.dropped > before.sent + before.dropped
        }));
        bridge.datagram_counts().sent - before.sent
    };
    assert_eq!((sent("live", &dead), sent("dead", &live)), (1, 1));
    assert!(bridge.faults().die_session("dead") && bridge.faults().die_session("inband"));
    assert_eq!((sent("live", &dead), sent("dead", &live), sent("live", &live)), (0, 0, 1));
    let [_, dead, inband] = &mut controls;
    assert_eq!(dead.ask("PING x"), "PONG x");
    assert_eq!(inband.ask("PING x"), "PONG x");
    // Nothing else tells.
    inband.write(format!("DATAGRAM SEND DESTINATION={live} SIZE=1\nx"));
    assert!(inband.rest().is_empty());
}

#[test]
fn java_forgets_a_session_when_somebody_else_wants_its_id() {
    let (bridge, mut a, _b) = two_sessions(Config::default());
    let mut waiting = Client::accept(&bridge, "a");
    let me = bridge.session("a").unwrap().destination;
    let mut stranger = Client::new(&bridge);
    assert_eq!(stranger.ask(&create("a", "TRANSIENT")), "SESSION STATUS RESULT=DUPLICATED_ID");
    let is_invalid = |line: &str| assert_eq!(asking(&bridge, line).rest_text(), INVALID_ID, "{line}");
    for _ in 0..3 {
        is_invalid("STREAM ACCEPT ID=a");
        is_invalid(&format!("STREAM CONNECT ID=a DESTINATION={me}"));
        is_invalid("STREAM FORWARD ID=a PORT=1");
    }
    assert_eq!(a.ask("NAMING LOOKUP NAME=ME"), format!("NAMING REPLY RESULT=OK NAME=ME VALUE={me}"));
    // What it had asked for before is still served.
    let mut connected = asking(&bridge, &format!("STREAM CONNECT ID=b DESTINATION={me}"));
    assert_eq!(connected.line(), OK);
    waiting.line();
    connected.write("x");
    assert_eq!(waiting.exact(1), b"x");
    // The id is free, and the old session ends with its socket.
    assert!(stranger.ask(&create("a", "TRANSIENT")).contains("RESULT=OK"));
    drop(a);
    assert!(connected.rest().is_empty() && waiting.rest().is_empty());
    stream(&bridge);
    assert_eq!(bridge.sessions().len(), 2);
}

#[test]
fn only_java_forgets_for_that_but_all_can_be_made_to() {
    for personality in Personality::ALL {
        let (bridge, mut a, _b) = two_sessions(Config::with_personality(personality));
        if personality != Personality::Java {
            assert!(!asking(&bridge, &create("a", "TRANSIENT")).rest().is_empty());
            stream(&bridge);
        }
        assert!(bridge.faults().forget_session("a"));
        assert!(!bridge.faults().forget_session("a"));
        let wanted = if personality == Personality::Emissary { "" } else { INVALID_ID };
        assert_eq!(asking(&bridge, "STREAM ACCEPT ID=a").rest_text(), wanted, "{personality}");
        assert!(a.ask("NAMING LOOKUP NAME=ME").contains("RESULT=OK"));
        drop(a);
        assert!(bridge.wait_for(LONG, |b| b.session("a").is_none()));
    }
    let faults = FaultConfig { forget_after: Some(Duration::from_millis(1)), ..FaultConfig::default() };
    let bridge = Bridge::start(Config { faults, ..Config::default() }).unwrap();
    let _a = Client::session(&bridge, "a");
    let start = Instant::now();
    while asking(&bridge, "STREAM CONNECT ID=a DESTINATION=x").rest_text() != INVALID_ID {
        assert!(start.elapsed() < LONG);
    }
}
