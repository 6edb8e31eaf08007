//! What Java I2P says, and when.

use crate::common::*;
use i2psock_bridge::destination::{b32_address, generate, text};
use i2psock_bridge::{Bridge, Config, FaultConfig, Personality};
use std::net::TcpListener;
use std::time::{Duration, Instant};

const RESET: &str = "STREAM STATUS RESULT=CANT_REACH_PEER MESSAGE=\"Connection reset\"\n";

fn connect(bridge: &Bridge, destination: &str) -> String {
    let mut client = Client::new(bridge);
    client.send(&format!("STREAM CONNECT ID=b DESTINATION={destination}"));
    client.rest_text()
}

#[test]
fn connecting_where_nobody_accepts() {
    let (bridge, _a, _b) = two_sessions(Config::default());
    let to = bridge.session("a").unwrap().destination;
    // Nobody ever did: it does not wait.
    let start = Instant::now();
    assert_eq!(connect(&bridge, &to), RESET);
    assert!(start.elapsed() >= Duration::from_millis(10));
    assert_eq!(bridge.session("a").unwrap().parked, 0);
    // Nobody does now: it waits for three seconds, first for somebody to come.
    stream(&bridge);
    let mut parked = Client::connecting(&bridge, "b", "a");
    assert!(bridge.wait_for(LONG, |b| b.session("a").unwrap().parked == 1));
    let mut accepted = Client::new(&bridge);
    assert_eq!(accepted.ask("STREAM ACCEPT ID=a"), "STREAM STATUS RESULT=OK");
    assert_eq!(parked.line(), "STREAM STATUS RESULT=OK");
    let start = Instant::now();
    assert_eq!(connect(&bridge, &to), RESET);
    assert!(start.elapsed() >= Duration::from_secs(3), "{:?}", start.elapsed());
}

#[test]
fn a_forward_is_somebody_who_accepts() {
    let (bridge, _a, _b) = two_sessions(Config { park: None, ..Config::default() });
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut forward = Client::new(&bridge);
    let line = format!("STREAM FORWARD ID=a PORT={}", target.local_addr().unwrap().port());
    assert_eq!(forward.ask(&line), "STREAM STATUS RESULT=OK");
    assert_eq!(Client::connecting(&bridge, "b", "a").line(), "STREAM STATUS RESULT=OK");
    drop(forward);
    assert!(bridge.wait_for(LONG, |b| !b.session("a").unwrap().forward));
    let mut parked = Client::connecting(&bridge, "b", "a");
    assert!(bridge.wait_for(LONG, |b| b.session("a").unwrap().parked == 1));
    parked.silent();
}

#[test]
fn what_it_does_not_find_when_connecting() {
    let (bridge, _a, _b) = two_sessions(Config::default());
    let nobody = generate(7).unwrap().public;
    let (b32, whole) = (b32_address(&nobody), text(&nobody));
    for (name, result, message) in [
        (b32.as_str(), "INVALID_KEY", format!("Lease set not found: {b32}")),
        ("nosuch.i2p", "INVALID_KEY", "Host name not found: nosuch.i2p".to_string()),
        ("nosuch", "INVALID_KEY", "Host name not found: nosuch".to_string()),
        (whole.as_str(), "CANT_REACH_PEER", "Connection timed out".to_string()),
    ] {
        let wanted = format!("STREAM STATUS RESULT={result} MESSAGE=\"{message}\"\n");
        assert_eq!(connect(&bridge, name), wanted, "{name}");
    }
}

#[test]
fn the_ports_of_a_session_are_for_its_datagrams() {
    let bridge = bridge();
    let mut b = Client::new(&bridge);
    assert!(b.ask(&format!("{} FROM_PORT=7 TO_PORT=8", create("b", "TRANSIENT"))).contains("RESULT=OK"));
    let _a = Client::session(&bridge, "a");
    let from = bridge.session("b").unwrap().destination;
    let to = bridge.session("a").unwrap().destination;
    for (given, wanted) in [("", "FROM_PORT=0 TO_PORT=0"), (" FROM_PORT=9", "FROM_PORT=9 TO_PORT=0")] {
        let mut accepted = Client::accept(&bridge, "a");
        let mut connected = Client::new(&bridge);
        connected.ask(&format!("STREAM CONNECT ID=b DESTINATION={to}{given}"));
        assert_eq!(accepted.line(), format!("{from} {wanted}"));
    }
}

#[test]
fn no_manager_yet() {
    let time = Duration::from_millis(300);
    let faults = FaultConfig { no_manager: time, ..FaultConfig::default() };
    let start = Instant::now();
    let bridge = Bridge::start(Config { faults, ..Config::default() }).unwrap();
    let mut client = Client::new(&bridge);
    let mut refused = 0;
    // The connection can be used again.
    loop {
        let reply = client.ask(&create("a", "TRANSIENT"));
        if reply.starts_with("SESSION STATUS RESULT=OK") {
            break;
        }
        assert!(
            reply.starts_with("SESSION STATUS RESULT=I2P_ERROR ") && reply.ends_with(": No manager yet\""),
            "{reply}"
        );
        assert!(bridge.sessions().is_empty());
        refused += 1;
    }
    assert!(refused > 0 && start.elapsed() >= time);
    bridge.faults().no_manager(Duration::from_secs(3600));
    let ask = || Client::new(&bridge).ask(&create("b", "TRANSIENT"));
    assert!(ask().contains("No manager yet"));
    bridge.faults().clear();
    assert!(ask().contains("RESULT=OK"));
}

#[test]
fn a_destination_is_busy_after_its_end() {
    let time = Duration::from_millis(400);
    let faults = FaultConfig { duplicated_after: time, ..FaultConfig::default() };
    let bridge = Bridge::start(Config { faults, ..Config::default() }).unwrap();
    let keys = text(&generate(7).unwrap().blob);
    let ask = |id: &str, keys: &str| {
        let mut client = Client::new(&bridge);
        let reply = client.ask(&create(id, keys));
        (client, reply)
    };
    // Not before there was one.
    let (first, reply) = ask("a", &keys);
    assert!(reply.contains("RESULT=OK"));
    let start = Instant::now();
    drop(first);
    assert!(bridge.wait_for(LONG, |b| b.sessions().is_empty()));
    assert_eq!(ask("a", &keys).1, "SESSION STATUS RESULT=DUPLICATED_DEST");
    let other = text(&generate(7).unwrap().blob);
    assert!(ask("x", &other).1.contains("RESULT=OK"));
    let (last, _) = loop {
        let (client, reply) = ask("b", &keys);
        if reply.contains("RESULT=OK") {
            break (client, reply);
        }
        assert_eq!(reply, "SESSION STATUS RESULT=DUPLICATED_DEST");
        assert!(start.elapsed() < LONG);
    };
    assert!(start.elapsed() >= time);
    bridge.faults().duplicated_after(Duration::ZERO);
    drop(last);
    assert!(bridge.wait_for(LONG, |b| b.session("b").is_none()));
    assert!(ask("b", &keys).1.contains("RESULT=OK"));
}

/// A client knows by this which router lets go of a destination at once.
#[test]
fn a_name_that_cannot_be_tells_i2pd_from_the_others() {
    for personality in Personality::ALL {
        let wanted = match personality {
            Personality::Java | Personality::Emissary => "KEY_NOT_FOUND",
            Personality::I2pd245 | Personality::I2pd258 => "INVALID_KEY",
        };
        let bridge = bridge_as(personality);
        let mut control = Client::session(&bridge, "a");
        let mut other = Client::new(&bridge);
        for name in ["nosuch.i2p", "a-name-that-nobody-has.invalid.i2p", &format!("{}.b32.i2p", "a".repeat(52))] {
            for client in [&mut control, &mut other] {
                let reply = client.ask(&format!("NAMING LOOKUP NAME={name}"));
                assert_eq!(reply, format!("NAMING REPLY RESULT={wanted} NAME={name}"), "{personality}");
            }
        }
    }
}
