//! The protocol itself, with the default personality.

use crate::common::*;
use i2psock_bridge::destination::{b32_address, generate, public_of_blob, text};
use i2psock_bridge::encoding::base64_decode;
use i2psock_bridge::{Bridge, Config, Version};
use std::time::Duration;

fn value<'a>(line: &'a str, key: &str) -> &'a str {
    line.split(' ')
        .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
        .unwrap_or_else(|| panic!("no {key} in {line}"))
}

#[test]
fn keys_have_the_right_shape() {
    let bridge = bridge();
    let mut client = Client::new(&bridge);
    for (option, public, private) in [
        (" SIGNATURE_TYPE=7", 524, 908),
        (" SIGNATURE_TYPE=EdDSA_SHA512_Ed25519", 524, 908),
        (" SIGNATURE_TYPE=1", 524, 908),
        (" SIGNATURE_TYPE=0", 516, 884),
        ("", 516, 884),
    ] {
        let reply = client.ask(&format!("DEST GENERATE{option}"));
        assert!(reply.starts_with("DEST REPLY PUB="), "{reply}");
        let (public_key, private_key) = (value(&reply, "PUB"), value(&reply, "PRIV"));
        assert_eq!((public_key.len(), private_key.len()), (public, private));
        let blob = base64_decode(private_key).unwrap();
        assert_eq!(text(&public_of_blob(&blob).unwrap()), public_key);
    }
    let reply = client.ask("DEST GENERATE SIGNATURE_TYPE=99");
    assert_eq!(reply, "DEST REPLY RESULT=I2P_ERROR MESSAGE=\"SIGNATURE_TYPE 99 unsupported\"");
    assert!(client.rest().is_empty());
}

#[test]
fn sessions_and_their_errors() {
    let bridge = bridge();
    let mut first = Client::new(&bridge);
    let reply = first.ask(&create("first", "TRANSIENT"));
    let blob = value(&reply, "DESTINATION").to_string();
    assert_eq!(blob.len(), 908);

    let mut second = Client::new(&bridge);
    // Failures leave the socket usable.
    for (line, wanted) in [
        (create("first", "TRANSIENT"), "DUPLICATED_ID"),
        (create("second", &blob), "DUPLICATED_DEST"),
        (create("second", "AAAA"), "INVALID_KEY"),
        (create("second", &blob[4..]), "INVALID_KEY"),
        (create("second", "not base64"), "INVALID_KEY"),
        ("SESSION CREATE STYLE=STREAM ID=x".to_string(), "I2P_ERROR"),
        ("SESSION CREATE STYLE=STREAM DESTINATION=TRANSIENT".to_string(), "I2P_ERROR"),
        ("SESSION CREATE STYLE=NONE ID=x DESTINATION=TRANSIENT".to_string(), "I2P_ERROR"),
        ("SESSION CREATE STYLE=PRIMARY ID=x DESTINATION=TRANSIENT".to_string(), "I2P_ERROR"),
    ] {
        let reply = second.ask(&line);
        assert_eq!(value(&reply, "RESULT"), wanted, "{line}");
    }
    let reply = second.ask(&create("second", "TRANSIENT"));
    assert_eq!(value(&reply, "RESULT"), "OK");
    assert_eq!(value(&second.ask(&create("third", "TRANSIENT")), "RESULT"), "I2P_ERROR");

    let public = text(&public_of_blob(&base64_decode(&blob).unwrap()).unwrap());
    assert_eq!(bridge.session("first").unwrap().destination, public);
    drop(first);
    // Id and destination are free again at once, and the key comes back as it was given.
    let mut again = Client::new(&bridge);
    let reply = again.ask(&create("first", &blob));
    assert_eq!(reply, format!("SESSION STATUS RESULT=OK DESTINATION={blob}"));
    assert_eq!(value(&again.ask("NAMING LOOKUP NAME=ME"), "VALUE"), public);
}

#[test]
fn names() {
    let host = text(&generate(7).unwrap().public);
    let bridge =
        Bridge::start(Config { hosts: vec![("Example.i2p".to_string(), host.clone())], ..Config::default() }).unwrap();
    let mut control = Client::session(&bridge, "a");
    let me = value(&control.ask("NAMING LOOKUP NAME=ME"), "VALUE").to_string();
    assert_eq!(me, bridge.session("a").unwrap().destination);
    let address = b32_address(&base64_decode(&me).unwrap());
    let mut other = Client::new(&bridge);
    for (name, wanted) in [
        (address.as_str(), &me),
        (&address.to_uppercase().replace(".B32.I2P", ".b32.i2p"), &me),
        ("example.i2p", &host),
        (&b32_address(&base64_decode(&host).unwrap()), &host),
        (&me, &me),
    ] {
        let reply = other.ask(&format!("NAMING LOOKUP NAME={name}"));
        assert_eq!(reply, format!("NAMING REPLY RESULT=OK NAME={name} VALUE={wanted}"));
    }
    for name in ["nosuch.i2p", &format!("{}.b32.i2p", "a".repeat(52)), "AAAA"] {
        let reply = other.ask(&format!("NAMING LOOKUP NAME={name}"));
        assert_eq!(reply, format!("NAMING REPLY RESULT=KEY_NOT_FOUND NAME={name}"));
    }
    assert!(bridge.add_host("nosuch.i2p", &me));
    assert!(!bridge.add_host("bad.i2p", "AAAA"));
    assert_eq!(value(&other.ask("NAMING LOOKUP NAME=nosuch.i2p"), "VALUE"), me);
    // ME without a session: the socket is closed.
    other.send("NAMING LOOKUP NAME=ME");
    assert!(other.rest().is_empty());
    let wrong = Config { hosts: vec![("x.i2p".to_string(), "AAAA".to_string())], ..Config::default() };
    assert!(Bridge::start(wrong).is_err());
}

#[test]
fn small_commands() {
    let bridge = bridge();
    let mut client = Client::new(&bridge);
    assert_eq!(client.ask("PING  any  text=\"x "), "PONG  any  text=\"x ");
    assert_eq!(client.ask("PING"), "PONG");
    assert!(client.ask("FOO BAR").starts_with("FOO STATUS RESULT=I2P_ERROR"));
    assert_eq!(client.ask("AUTH ADD USER=\"a b\" PASSWORD=\"p\\\"w\""), "AUTH STATUS RESULT=OK");
    assert!(client.ask("AUTH ADD USER=\"a b\" PASSWORD=x").contains("I2P_ERROR"));
    assert!(client.ask("AUTH REMOVE USER=nobody").contains("I2P_ERROR"));
    assert_eq!(client.ask("AUTH ENABLE"), "AUTH STATUS RESULT=OK");
    // Two lines in one write.
    client.write("PING 1\nPING 2\n");
    assert_eq!((client.line(), client.line()), ("PONG 1".to_string(), "PONG 2".to_string()));

    let refused = "HELLO REPLY RESULT=I2P_ERROR MESSAGE=\"Authorization failed\"";
    for credentials in ["", " USER=\"a b\"", " USER=\"a b\" PASSWORD=wrong", " USER=x PASSWORD=x"] {
        let mut other = Client::bare(&bridge);
        assert_eq!(other.ask(&format!("HELLO VERSION{credentials}")), refused);
        assert!(other.rest().is_empty());
    }
    let mut other = Client::bare(&bridge);
    let reply = other.ask("HELLO VERSION MAX=3.2 USER=\"a b\" PASSWORD=\"p\\\"w\"");
    assert_eq!(reply, "HELLO REPLY RESULT=OK VERSION=3.2");
    assert_eq!(client.ask("AUTH REMOVE USER=\"a b\""), "AUTH STATUS RESULT=OK");
    assert_eq!(client.ask("AUTH DISABLE"), "AUTH STATUS RESULT=OK");
    assert_eq!(client.ask("QUIT"), "QUIT STATUS RESULT=OK MESSAGE=bye");
    assert!(client.rest().is_empty());
    Client::new(&bridge);
}

#[test]
fn versions_and_users_by_configuration() {
    let bridge = Bridge::start(Config {
        max_version: Version::V3_1,
        auth: Some(("u".to_string(), "p".to_string())),
        ..Config::default()
    })
    .unwrap();
    let mut client = Client::bare(&bridge);
    let reply = client.ask("HELLO VERSION MIN=3.0 MAX=3.3 USER=u PASSWORD=p");
    assert_eq!(reply, "HELLO REPLY RESULT=OK VERSION=3.1");
    let mut client = Client::bare(&bridge);
    assert_eq!(client.ask("HELLO VERSION MIN=3.2 MAX=3.3"), "HELLO REPLY RESULT=NOVERSION");
    assert!(client.rest().is_empty());
}

#[test]
fn a_stream_and_its_ports() {
    let (bridge, _a, _b) = two_sessions(Config::default());
    let mut accepted = Client::accept(&bridge, "a");
    let mut connected = Client::new(&bridge);
    let to = bridge.session("a").unwrap().destination;
    let address = b32_address(&base64_decode(&to).unwrap());
    let line = format!("STREAM CONNECT ID=b DESTINATION={address} FROM_PORT=1234 TO_PORT=80");
    assert_eq!(connected.ask(&line), "STREAM STATUS RESULT=OK");
    let from = bridge.session("b").unwrap().destination;
    assert_eq!(accepted.line(), format!("{from} FROM_PORT=1234 TO_PORT=80"));
    connected.write("hello");
    assert_eq!(accepted.exact(5), b"hello");
    accepted.write("world");
    assert_eq!(connected.exact(5), b"world");
    drop(accepted);
    assert!(connected.rest().is_empty());

    // No ports below 3.2; a host name works too.
    assert!(bridge.add_host("a.i2p", &to));
    let mut accepted = Client::bare(&bridge);
    accepted.ask("HELLO VERSION MIN=3.1 MAX=3.1");
    assert_eq!(accepted.ask("STREAM ACCEPT ID=a"), "STREAM STATUS RESULT=OK");
    let mut connected = Client::new(&bridge);
    let reply = connected.ask("STREAM CONNECT ID=b DESTINATION=a.i2p TO_PORT=80");
    assert_eq!(reply, "STREAM STATUS RESULT=OK");
    assert_eq!(accepted.line(), from);
}

#[test]
fn silent_streams_have_no_header() {
    let (bridge, _a, _b) = two_sessions(Config::default());
    let mut accepted = Client::new(&bridge);
    accepted.send("STREAM ACCEPT ID=a SILENT=true");
    // Before the first accept Java refuses at once.
    assert!(bridge.wait_for(LONG, |b| b.session("a").unwrap().accepts == 1));
    let mut connected = Client::new(&bridge);
    let to = bridge.session("a").unwrap().destination;
    connected.send(&format!("STREAM CONNECT ID=b DESTINATION={to} SILENT=true"));
    connected.write("x");
    accepted.write("y");
    drop(connected.exact(1));
    assert_eq!(accepted.exact(1), b"x");
    drop(connected);
    assert!(accepted.rest().is_empty());
}

#[test]
fn accepts_are_served_in_order() {
    let (bridge, _a, _b) = two_sessions(Config::default());
    let mut accepts = Vec::new();
    for n in 1..=4 {
        accepts.push(Client::accept(&bridge, "a"));
        assert!(bridge.wait_for(LONG, |b| b.session("a").unwrap().accepts == n));
    }
    for (n, accepted) in accepts.iter_mut().enumerate() {
        let mut connected = Client::connecting(&bridge, "b", "a");
        assert_eq!(connected.line(), "STREAM STATUS RESULT=OK");
        connected.write([n as u8]);
        accepted.line();
        assert_eq!(accepted.exact(1), [n as u8]);
    }
}

#[test]
fn streams_wait_for_an_accept() {
    let (bridge, _a, _b) = two_sessions(Config { park: Some(Duration::from_secs(2)), ..Config::default() });
    let mut early = Client::connecting(&bridge, "b", "a");
    assert!(bridge.wait_for(LONG, |b| b.session("a").unwrap().parked == 1));
    early.silent();
    let mut accepted = Client::new(&bridge);
    assert_eq!(accepted.ask("STREAM ACCEPT ID=a"), "STREAM STATUS RESULT=OK");
    assert_eq!(early.line(), "STREAM STATUS RESULT=OK");
    accepted.line();
    early.write("x");
    assert_eq!(accepted.exact(1), b"x");
    // But not for ever.
    let mut lost = Client::connecting(&bridge, "b", "a");
    assert!(lost.rest_text().starts_with("STREAM STATUS RESULT=CANT_REACH_PEER"));
    assert_eq!(bridge.session("a").unwrap().parked, 0);
}

#[test]
fn connect_errors() {
    let (bridge, mut a, _b) = two_sessions(Config::default());
    let nobody = text(&generate(7).unwrap().public);
    let known = bridge.session("a").unwrap().destination;
    for (id, destination, wanted) in [
        ("b", nobody.as_str(), "CANT_REACH_PEER"),
        ("b", &format!("{}.b32.i2p", "a".repeat(52)), "INVALID_KEY"),
        ("b", "nosuch.i2p", "INVALID_KEY"),
        ("b", "rubbish", "INVALID_KEY"),
        ("b", &nobody[..520], "INVALID_KEY"),
        ("b", &format!("{nobody}AAAA"), "INVALID_KEY"),
        ("nosuch", &known, "INVALID_ID"),
    ] {
        let mut client = Client::new(&bridge);
        let reply = client.ask(&format!("STREAM CONNECT ID={id} DESTINATION={destination}"));
        assert_eq!(value(&reply, "RESULT"), wanted, "{destination}");
        assert!(client.rest().is_empty());
    }
    let mut client = Client::new(&bridge);
    assert_eq!(client.ask("STREAM ACCEPT ID=nosuch"), "STREAM STATUS RESULT=INVALID_ID");
    let mut client = Client::new(&bridge);
    let reply = client.ask(&format!("STREAM CONNECT ID=b DESTINATION={known} TO_PORT=65536"));
    assert_eq!(value(&reply, "RESULT"), "I2P_ERROR");
    // On a control socket it costs the session.
    let reply = a.ask("STREAM ACCEPT ID=a");
    assert_eq!(value(&reply, "RESULT"), "I2P_ERROR");
    assert!(a.rest().is_empty());
    assert!(bridge.wait_for(LONG, |b| b.session("a").is_none()));
}

#[test]
fn nothing_a_client_sends_upsets_the_bridge() {
    let bridge = bridge();
    let noise = pattern(20_000, 7);
    let long = vec![b'A'; 20_000];
    for start in ["", "HELLO VERSION\n", "HELLO VERSION\nNAMING LOOKUP NAME="] {
        for tail in [&noise, &long] {
            let mut client = Client::bare(&bridge);
            client.write(start);
            client.write(tail);
            client.finish_writing();
            let reply = client.rest();
            assert!(reply.is_empty() || reply.contains(&b'\n'));
        }
    }
    for line in [
        "",
        " ",
        "SESSION",
        "SESSION CREATE",
        "STREAM",
        "STREAM CONNECT",
        "STREAM CONNECT ID",
        "DEST",
        "DEST GENERATE SIGNATURE_TYPE=",
        "NAMING LOOKUP",
        "NAMING LOOKUP NAME=",
        "PONG",
        "PONG x",
        "AUTH",
        "=",
        "STREAM FORWARD ID=a",
        "HELLO VERSION",
        "A B C=1 C=2",
        "A \"",
        "\\",
    ] {
        let mut client = Client::new(&bridge);
        client.send(line);
        client.finish_writing();
        client.rest();
    }
    Client::session(&bridge, "still-alive");
}
