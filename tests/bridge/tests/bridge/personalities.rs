//! The habits in which routers differ.

use crate::common::*;
use i2psock_bridge::destination::{b32_address, generate, text};
use i2psock_bridge::encoding::base64_decode;
use i2psock_bridge::{Bridge, Config, Personality};
use std::time::{Duration, Instant};

const I2PD: [Personality; 2] = [Personality::I2pd245, Personality::I2pd258];
const JAVA: Personality = Personality::Java;
const EMISSARY: Personality = Personality::Emissary;

fn start(personality: Personality) -> (Bridge, Client, Client) {
    two_sessions(Config::with_personality(personality))
}

fn connect_line(destination: &str) -> String {
    format!("STREAM CONNECT ID=b DESTINATION={destination}")
}

#[test]
fn a_hello_in_pieces_or_with_more_behind_it() {
    for personality in Personality::ALL {
        let bridge = bridge_as(personality);
        let mut client = Client::bare(&bridge);
        client.write("HELLO VER");
        assert!(bridge.wait_for(LONG, |b| b.connections_open() == 1));
        client.silent();
        // The bridge may have gone already.
        let _ = std::io::Write::write_all(&mut client.stream, b"SION MIN=3.1 MAX=3.1\n");
        client.finish_writing_if_open();
        let reply = client.rest_text();
        let whole = "HELLO REPLY RESULT=OK VERSION=3.1\n";
        let wanted = if I2PD.contains(&personality) { "" } else { whole };
        assert_eq!(reply, wanted, "{personality}");

        let mut client = Client::bare(&bridge);
        client.write("HELLO VERSION MIN=3.1 MAX=3.1\nNAMING LOOKUP NAME=x.i2p\n");
        assert_eq!(client.line(), whole.trim_end());
        if personality == JAVA {
            assert!(client.line().starts_with("NAMING REPLY"));
        } else {
            client.silent();
        }
    }
}

impl Client {
    fn finish_writing_if_open(&mut self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
    }
}

#[test]
fn a_command_in_pieces() {
    for personality in Personality::ALL {
        let bridge = bridge_as(personality);
        let mut client = Client::new(&bridge);
        client.write("NAMING LOOKUP ");
        client.silent();
        client.write("NAME=x.i2p\n");
        if personality == EMISSARY {
            client.silent();
        } else {
            assert!(client.line().starts_with("NAMING REPLY"), "{personality}");
        }
    }
}

#[test]
fn unknown_commands_and_pings() {
    for (personality, unknown, ping, closed) in [
        (JAVA, "FOO STATUS RESULT=I2P_ERROR MESSAGE=\"Unrecognized command\"\n", "PONG x\n", false),
        (Personality::I2pd245, "", "", true),
        (Personality::I2pd258, "", "PONG x\n", true),
        (EMISSARY, "", "", false),
    ] {
        let bridge = bridge_as(personality);
        let mut client = Client::new(&bridge);
        client.send("FOO BAR");
        if closed {
            assert_eq!(client.rest_text(), unknown, "{personality}");
            // It kills the session as well.
            let mut control = Client::session(&bridge, "a");
            control.send("PING x");
            assert_eq!(control.rest_text(), ping, "{personality}");
            assert!(bridge.wait_for(LONG, |b| b.sessions().is_empty()));
        } else {
            assert_eq!(client.exact(unknown.len()), unknown.as_bytes());
            client.send("PING x");
            assert_eq!(client.exact(ping.len()), ping.as_bytes());
            client.silent();
        }
    }
}

#[test]
fn duplicates() {
    for (personality, id, destination) in [
        (JAVA, "SESSION STATUS RESULT=DUPLICATED_ID\n", "SESSION STATUS RESULT=DUPLICATED_DEST\n"),
        (Personality::I2pd245, "SESSION STATUS RESULT=DUPLICATED_ID\n", ""),
        (Personality::I2pd258, "SESSION STATUS RESULT=DUPLICATED_ID\n", ""),
        (EMISSARY, "SESSION STATUS RESULT=DUPLICATE_ID", "SESSION STATUS RESULT=DUPLICATE_DEST"),
    ] {
        let bridge = bridge_as(personality);
        let blob = text(&generate(7).unwrap().blob);
        let mut first = Client::new(&bridge);
        let ok = format!("SESSION STATUS RESULT=OK DESTINATION={blob}");
        assert_eq!(first.ask(&create("a", &blob)), ok);
        let mut second = Client::new(&bridge);
        second.send(&create("a", "TRANSIENT"));
        assert_eq!(second.exact(id.len()), id.as_bytes(), "{personality}");
        if personality != JAVA {
            assert!(second.rest().is_empty(), "{personality}");
        }
        let mut third = Client::new(&bridge);
        third.send(&create("b", &blob));
        if destination.is_empty() {
            assert_eq!(third.line(), ok, "{personality}");
        } else {
            assert_eq!(third.exact(destination.len()), destination.as_bytes(), "{personality}");
        }
    }
}

#[test]
fn unknown_ids_and_destinations() {
    let nobody = text(&generate(7).unwrap().public);
    for (personality, id, peer, bad) in [
        (
            JAVA,
            "STREAM STATUS RESULT=INVALID_ID\n",
            "STREAM STATUS RESULT=CANT_REACH_PEER MESSAGE=\"Connection timed out\"\n",
            "STREAM STATUS RESULT=INVALID_KEY MESSAGE=\"Host name not found: rubbish\"\n",
        ),
        (
            Personality::I2pd245,
            "STREAM STATUS RESULT=INVALID_ID\n",
            "STREAM STATUS RESULT=CANT_REACH_PEER\n",
            "STREAM STATUS RESULT=INVALID_KEY\n",
        ),
        (
            Personality::I2pd258,
            "STREAM STATUS RESULT=INVALID_ID\n",
            "STREAM STATUS RESULT=CANT_REACH_PEER MESSAGE=\"LeaseSet not found\"\n",
            "STREAM STATUS RESULT=INVALID_KEY\n",
        ),
        (EMISSARY, "", "STREAM STATUS RESULT=CANT_REACH_PEER", ""),
    ] {
        let (bridge, _a, _b) = two_sessions(Config {
            // For what ends in silence.
            command_timeout: Some(Duration::from_secs(2)),
            ..Config::with_personality(personality)
        });
        for (line, wanted) in
            [("STREAM ACCEPT ID=nosuch".to_string(), id), (connect_line(&nobody), peer), (connect_line("rubbish"), bad)]
        {
            let mut client = Client::new(&bridge);
            client.send(&line);
            assert_eq!(client.rest_text(), wanted, "{personality} {line}");
        }
    }
}

#[test]
fn lookups() {
    for personality in Personality::ALL {
        let (bridge, mut a, _b) = start(personality);
        let me = bridge.session("a").unwrap().destination;
        let address = b32_address(&base64_decode(&me).unwrap());
        let ok = |name: &str| format!("NAMING REPLY RESULT=OK NAME={name} VALUE={me}");
        assert_eq!(a.ask("NAMING LOOKUP NAME=ME"), ok("ME"));
        assert_eq!(a.ask(&format!("NAMING LOOKUP NAME={address}")), ok(&address));
        let missing = if I2PD.contains(&personality) { "INVALID_KEY" } else { "KEY_NOT_FOUND" };
        let not_found = |name| format!("NAMING REPLY RESULT={missing} NAME={name}");
        assert_eq!(a.ask("NAMING LOOKUP NAME=no.i2p"), not_found("no.i2p"));
        let mut other = Client::new(&bridge);
        assert_eq!(other.ask("NAMING LOOKUP NAME=no.i2p"), not_found("no.i2p"));
        let reply = other.ask(&format!("NAMING LOOKUP NAME={address}"));
        match personality {
            EMISSARY => assert_eq!(reply, not_found(&address)),
            _ => assert_eq!(reply, ok(&address)),
        }
        other.send("NAMING LOOKUP NAME=ME");
        match personality {
            JAVA => assert!(other.rest().is_empty()),
            EMISSARY => assert_eq!(other.line(), not_found("ME")),
            _ => assert!(other.line().starts_with("NAMING REPLY RESULT=OK NAME=ME VALUE=")),
        }
    }
}

#[test]
fn refused_sessions() {
    for (personality, bad_key, bad_id, bad_style) in [
        (JAVA, "INVALID_KEY", "OK", "I2P_ERROR"),
        (Personality::I2pd245, "INVALID_KEY", "INVALID_ID", "I2P_ERROR"),
        (Personality::I2pd258, "INVALID_KEY", "INVALID_ID", "I2P_ERROR"),
        (EMISSARY, "", "OK", ""),
    ] {
        let bridge = Bridge::start(Config {
            command_timeout: Some(Duration::from_secs(2)),
            ..Config::with_personality(personality)
        })
        .unwrap();
        for (line, wanted) in [
            (create("x", "AAAA"), bad_key),
            (create("a/b", "TRANSIENT"), bad_id),
            ("SESSION CREATE STYLE=NONE ID=x DESTINATION=TRANSIENT".to_string(), bad_style),
        ] {
            let mut client = Client::new(&bridge);
            client.send(&line);
            client.finish_writing();
            let reply = client.rest_text();
            if wanted.is_empty() {
                assert_eq!(reply, "", "{personality} {line}");
            } else {
                let prefix = format!("SESSION STATUS RESULT={wanted}");
                assert!(reply.starts_with(&prefix), "{personality} {line} {reply}");
            }
        }
    }
}

#[test]
fn keys() {
    let bridge = bridge_as(EMISSARY);
    let mut client = Client::new(&bridge);
    client.send("DEST GENERATE");
    client.silent();
    assert!(client.ask("DEST GENERATE SIGNATURE_TYPE=7").starts_with("DEST REPLY PUB="));

    let bridge = bridge_as(Personality::I2pd245);
    let reply = Client::new(&bridge).ask("DEST GENERATE SIGNATURE_TYPE=99");
    assert_eq!(reply.len(), "DEST REPLY PUB= PRIV=".len() + 516 + 884);

    let bridge = bridge_as(Personality::I2pd258);
    let mut client = Client::new(&bridge);
    client.send("DEST GENERATE SIGNATURE_TYPE=99");
    assert!(client.rest().is_empty());
}

#[test]
fn emissary_ends_connections_without_a_session() {
    let bridge =
        Bridge::start(Config { command_timeout: Some(Duration::from_secs(2)), ..Config::with_personality(EMISSARY) })
            .unwrap();
    let mut control = Client::session(&bridge, "a");
    let start = Instant::now();
    let mut idle = Client::new(&bridge);
    idle.ask("NAMING LOOKUP NAME=x.i2p");
    assert!(idle.rest().is_empty());
    assert!(start.elapsed() >= Duration::from_secs(2));
    assert!(control.ask("NAMING LOOKUP NAME=ME").contains("RESULT=OK"));
}

#[test]
fn long_lines() {
    for personality in Personality::ALL {
        let bridge = bridge_as(personality);
        for (length, fits) in
            [(4094, true), (4096, personality != EMISSARY), (8191, personality != EMISSARY), (8192, false)]
        {
            let mut client = Client::new(&bridge);
            let line = format!("NAMING LOOKUP NAME={}", "a".repeat(length - 19));
            client.send(&line);
            if fits {
                assert!(client.line().starts_with("NAMING REPLY"), "{personality} {length}");
                continue;
            }
            match personality {
                JAVA => assert!(client.rest_text().contains("RESULT=I2P_ERROR")),
                EMISSARY => assert!(client.rest().is_empty()),
                _ => client.silent(),
            }
        }
    }
}

#[test]
fn java_asks_idle_clients() {
    let bridge = Bridge::start(Config { idle_ping: Some(Duration::from_secs(1)), ..Config::default() }).unwrap();
    // Not below 3.2.
    let mut old = Client::bare(&bridge);
    old.ask("HELLO VERSION MIN=3.1 MAX=3.1");
    let mut control = Client::session(&bridge, "a");
    for _ in 0..2 {
        let ping = control.line();
        let text = ping.strip_prefix("PING ").unwrap();
        assert!(text.parse::<u64>().is_ok(), "{ping}");
        control.send(&format!("PONG {text}"));
    }
    // Almost right is not right.
    let text = control.line().replace("PING ", "");
    control.send(&format!("PONG {text}0"));
    assert_eq!(control.rest_text(), "SESSION STATUS RESULT=I2P_ERROR MESSAGE=\"PONG timeout\"\n");
    assert!(bridge.wait_for(LONG, |b| b.sessions().is_empty()));
    assert_eq!(bridge.faults().pings_sent(), 0);
    // All that time.
    old.silent();
}
