//! Things going wrong on purpose.

use crate::common::*;
use i2psock_bridge::{Action, Bridge, Config, FaultConfig, Personality, Reply, Rule, Split, Which};
use std::io::Read;
use std::time::{Duration, Instant};

const HELLO: &str = "HELLO VERSION MIN=3.1 MAX=3.3";
const HELLO_OK: &str = "HELLO REPLY RESULT=OK VERSION=3.3";

/// The sizes of the pieces in which bytes come up to an LF, when read as they come.
fn pieces(client: &mut Client) -> Vec<usize> {
    let mut sizes = Vec::new();
    let mut buffer = [0u8; 4096];
    loop {
        let n = client.stream.read(&mut buffer).unwrap();
        assert!(n > 0);
        sizes.push(n);
        if buffer[n - 1] == b'\n' {
            return sizes;
        }
    }
}

/// Where pieces end. Who comes late finds several of them as one.
fn assert_ends(sizes: &[usize], wanted: &[usize]) {
    let mut at = 0;
    for size in sizes {
        at += size;
        assert!(wanted.contains(&at), "{sizes:?}");
    }
    assert_eq!(Some(&at), wanted.last(), "{sizes:?}");
}

#[test]
fn split_replies() {
    let bridge = bridge();
    let faults = bridge.faults();
    let gap = Duration::from_millis(15);
    for (split, first) in [(Split::At { byte: 10, gap: LONG }, 10), (Split::Every { bytes: 8, gap: LONG }, 8)] {
        faults.split(split);
        let mut client = Client::bare(&bridge);
        client.send(HELLO);
        assert_eq!(client.exact(first), &HELLO_OK.as_bytes()[..first]);
        client.silent();
    }
    faults.split(Split::At { byte: 10, gap });
    let mut client = Client::bare(&bridge);
    client.send(HELLO);
    assert_ends(&pieces(&mut client), &[10, 34]);
    faults.split(Split::Every { bytes: 8, gap });
    let mut client = Client::bare(&bridge);
    client.send(HELLO);
    assert_ends(&pieces(&mut client), &[8, 16, 24, 32, 34]);
    for bytes in [0, 1, 2, 1000] {
        let gap = Duration::ZERO;
        faults.split(Split::Every { bytes, gap });
        assert_eq!(Client::bare(&bridge).ask(HELLO), HELLO_OK);
    }
    for byte in [0, 1, HELLO_OK.len(), HELLO_OK.len() + 1, 5000] {
        let gap = Duration::ZERO;
        faults.split(Split::At { byte, gap });
        assert_eq!(Client::bare(&bridge).ask(HELLO), HELLO_OK);
    }
}

#[test]
fn dripping_takes_its_time_and_does_not_delay_stopping() {
    let bridge = bridge();
    bridge.faults().drip(Some(Duration::from_millis(5)));
    let start = Instant::now();
    assert_eq!(Client::bare(&bridge).ask(HELLO), HELLO_OK);
    assert!(start.elapsed() >= Duration::from_millis(5 * HELLO_OK.len() as u64));
    bridge.faults().drip(Some(Duration::from_secs(60)));
    let mut client = Client::bare(&bridge);
    client.send(HELLO);
    assert_eq!(client.exact(1), b"H");
    let start = Instant::now();
    bridge.stop();
    assert!(start.elapsed() < PROMPT);
}

#[test]
fn stalling() {
    let bridge = Bridge::start(Config {
        faults: FaultConfig {
            rules: vec![Rule { reply: Reply::Hello, which: Which::Nth(2), action: Action::Stall }],
            ..FaultConfig::default()
        },
        ..Config::default()
    })
    .unwrap();
    Client::new(&bridge);
    let mut stalled = Client::bare(&bridge);
    stalled.send(HELLO);
    stalled.silent();
    let mut client = Client::new(&bridge);
    drop(stalled);
    assert!(bridge.wait_for(LONG, |b| b.connections_open() == 1));

    // A lookup without an answer; the socket goes on.
    let faults = bridge.faults();
    faults.once(Reply::NamingLookup, Action::Stall);
    client.send("NAMING LOOKUP NAME=a.i2p");
    client.silent();
    assert!(client.ask("NAMING LOOKUP NAME=b.i2p").contains("b.i2p"));
    // The second of any replies.
    faults.rule(Reply::Any, Which::Nth(2), Action::Stall);
    assert_eq!(client.ask("PING 1"), "PONG 1");
    client.send("PING 2");
    client.silent();
    assert_eq!(client.ask("PING 3"), "PONG 3");
    faults.clear();
    // A session that never comes up is none.
    faults.once(Reply::SessionCreate, Action::Stall);
    client.send(&create("a", "TRANSIENT"));
    client.silent();
    assert!(bridge.sessions().is_empty());
    Client::session(&bridge, "a");
}

#[test]
fn stalled_and_broken_streams() {
    let (bridge, _a, _b) = two_sessions(Config::default());
    let faults = bridge.faults();
    let mut waiting = Client::accept(&bridge, "a");
    for (action, wanted) in [
        (Action::Close, ""),
        (Action::CloseAfter(6), "STREAM"),
        (Action::OmitNewline, "STREAM STATUS RESULT=OK"),
        (Action::replace_and_close("rubbish"), "rubbish"),
    ] {
        faults.once(Reply::StreamConnect, action);
        let mut client = Client::connecting(&bridge, "b", "a");
        assert_eq!(client.rest_text(), wanted);
        faults.clear_rules();
    }
    faults.once(Reply::StreamConnect, Action::Stall);
    let mut client = Client::connecting(&bridge, "b", "a");
    client.silent();
    // None of these took the accept.
    waiting.silent();
    faults.once(Reply::StreamAcceptPeer, Action::Stall);
    let mut connected = Client::connecting(&bridge, "b", "a");
    assert_eq!(connected.line(), "STREAM STATUS RESULT=OK");
    connected.write("not to be seen");
    waiting.silent();
    drop(waiting);
    assert!(connected.rest().is_empty());

    for (action, wanted) in [(Action::CloseAfter(3), 3), (Action::OmitNewline, 524 + " FROM_PORT=0 TO_PORT=0".len())] {
        faults.clear_rules();
        faults.once(Reply::StreamAcceptPeer, action);
        let mut accepted = Client::accept(&bridge, "a");
        let mut connected = Client::connecting(&bridge, "b", "a");
        assert_eq!(accepted.rest().len(), wanted);
        assert_eq!(connected.rest_text(), "STREAM STATUS RESULT=OK\n");
    }
    faults.once(Reply::StreamAccept, Action::replace("STREAM STATUS RESULT=OK EXTRA=1\n"));
    let mut accepted = Client::new(&bridge);
    assert_eq!(accepted.ask("STREAM ACCEPT ID=a"), "STREAM STATUS RESULT=OK EXTRA=1");
    let mut connected = Client::connecting(&bridge, "b", "a");
    connected.line();
    connected.write("x");
    accepted.line();
    assert_eq!(accepted.exact(1), b"x");
}

#[test]
fn replaced_replies() {
    let bridge = bridge();
    let faults = bridge.faults();
    faults.once(Reply::Hello, Action::replace("HELLO REPLY RESULT=NOVERSION\n"));
    assert_eq!(Client::bare(&bridge).ask(HELLO), "HELLO REPLY RESULT=NOVERSION");
    for (kind, line) in [
        (Reply::SessionCreate, create("a", "TRANSIENT")),
        (Reply::NamingLookup, "NAMING LOOKUP NAME=x.i2p".to_string()),
        (Reply::DestGenerate, "DEST GENERATE SIGNATURE_TYPE=7".to_string()),
    ] {
        faults.once(kind, Action::replace_and_close(b"\xff\0raw"));
        let mut client = Client::new(&bridge);
        client.send(&line);
        assert_eq!(client.rest(), b"\xff\0raw", "{kind}");
        faults.clear_rules();
        let mut client = Client::new(&bridge);
        assert!(client.ask(&line).contains(" REPLY") || bridge.sessions().len() == 1);
    }
}

#[test]
fn lines_in_between() {
    let bridge = bridge();
    let faults = bridge.faults();
    faults.every(Reply::NamingLookup, Action::prepend("PING 12345\n"));
    faults.every(Reply::NamingLookup, Action::prepend("DEST REPLY\n"));
    faults.every(Reply::NamingLookup, Action::Delay(Duration::from_millis(50)));
    let mut control = Client::session(&bridge, "a");
    let start = Instant::now();
    assert_eq!(control.ask("NAMING LOOKUP NAME=ME"), "PING 12345");
    assert!(start.elapsed() >= Duration::from_millis(50));
    assert_eq!(control.line(), "DEST REPLY");
    assert!(control.line().starts_with("NAMING REPLY RESULT=OK NAME=ME"));
    control.send("PONG 12345");
    assert!(bridge.wait_for(LONG, |_| faults.pongs().len() == 1));
    assert!(!faults.pongs()[0].matched);
    assert_eq!(faults.unsolicited("ANY THING=1\n"), 1);
    assert_eq!(control.line(), "ANY THING=1");
}

#[test]
fn header_and_payload_in_one_piece() {
    let (bridge, _a, _b) = two_sessions(Config::default());
    let faults = bridge.faults();
    faults.coalesce(Some(Duration::from_secs(10)));
    let mut accepted = Client::new(&bridge);
    accepted.send("STREAM ACCEPT ID=a");
    assert!(bridge.wait_for(LONG, |b| b.session("a").unwrap().accepts == 1));
    accepted.silent();
    let mut connected = Client::connecting(&bridge, "b", "a");
    assert!(bridge.wait_for(LONG, |b| b.session("b").unwrap().streams == 1));
    connected.silent();
    connected.write("payload");
    let mut buffer = [0u8; 4096];
    let n = accepted.stream.read(&mut buffer).unwrap();
    let got = String::from_utf8_lossy(&buffer[..n]).into_owned();
    let from = bridge.session("b").unwrap().destination;
    assert_eq!(got, format!("STREAM STATUS RESULT=OK\n{from} FROM_PORT=0 TO_PORT=0\npayload"));
    accepted.write("back");
    let n = connected.stream.read(&mut buffer).unwrap();
    assert_eq!(&buffer[..n], b"STREAM STATUS RESULT=OK\nback");

    // Without payload it comes in the end, and when the stream ends.
    faults.coalesce(Some(Duration::from_millis(20)));
    let mut accepted = Client::accept(&bridge, "a");
    faults.coalesce(Some(Duration::from_secs(10)));
    let mut connected = Client::connecting(&bridge, "b", "a");
    assert!(bridge.wait_for(LONG, |b| b.session("b").unwrap().streams > 1));
    accepted.finish_writing();
    assert_eq!(connected.rest_text(), "STREAM STATUS RESULT=OK\n");
    assert!(accepted.rest_text().ends_with("TO_PORT=0\n"));
}

#[test]
fn ping_storm() {
    let (bridge, mut a, _b) = two_sessions(Config::default());
    let faults = bridge.faults();
    faults.ping_every(Some(Duration::from_millis(2)));
    for n in 0..20 {
        let text = a.line().replace("PING ", "");
        // One of them wrong.
        let text = if n == 7 { "wrong".to_string() } else { text };
        a.send(&format!("PONG {text}"));
    }
    faults.ping_every(None);
    assert!(bridge.wait_for(LONG, |_| faults.pongs().len() == 20));
    let pongs = faults.pongs();
    assert!(faults.pings_sent() >= 20);
    let number = bridge.session("a").unwrap().connection;
    assert!(pongs.iter().all(|p| p.connection == number));
    assert_eq!(pongs.iter().filter(|p| !p.matched).count(), 1);
    assert_eq!(pongs[7].text, "wrong");
}

#[test]
fn killed_sessions() {
    let (bridge, mut a, mut b) = two_sessions(Config::default());
    let (mut connected, mut accepted) = stream(&bridge);
    let faults = bridge.faults();
    assert!(!faults.kill_session("nosuch", true));
    assert!(faults.kill_session("a", true));
    assert!(bridge.session("a").is_none());
    assert_eq!(a.rest_text(), "SESSION STATUS RESULT=I2P_ERROR MESSAGE=\"Session is closed\"\n");
    assert!(accepted.rest().is_empty());
    assert!(connected.rest().is_empty());
    let mut again = Client::session(&bridge, "a");
    assert_eq!(faults.kill_all_sessions(false), 2);
    assert!(again.rest().is_empty());
    assert!(b.rest().is_empty());
    assert_eq!(faults.kill_all_sessions(false), 0);
}

#[test]
fn an_accept_that_is_never_answered_is_alone_with_that() {
    for personality in Personality::ALL {
        let (bridge, mut a, _b) = two_sessions(Config::with_personality(personality));
        bridge.faults().once(Reply::StreamAccept, Action::Stall);
        let mut stalled = Client::new(&bridge);
        stalled.send("STREAM ACCEPT ID=a");
        stalled.silent();
        assert_eq!(bridge.session("a").unwrap().accepts, 0);
        // The next one is served, and so is its session.
        let (mut connected, mut accepted) = stream(&bridge);
        connected.write("x");
        assert_eq!(accepted.exact(1), b"x");
        assert!(a.ask("NAMING LOOKUP NAME=ME").contains("RESULT=OK"), "{personality}");
        stalled.silent();
        // It ends when its client has had enough.
        let open = bridge.connections_open();
        drop(stalled);
        assert!(bridge.wait_for(LONG, |b| b.connections_open() == open - 1));
    }
}

#[test]
fn keys_of_another_type_than_was_asked_for() {
    // What DSA keys and a destination without a certificate need.
    let (private, public) = (884, 516);
    for personality in Personality::ALL {
        let faults = FaultConfig { dsa_keys: true, ..FaultConfig::default() };
        let bridge = Bridge::start(Config { faults, ..Config::with_personality(personality) }).unwrap();
        let session = |id: &str| {
            let mut client = Client::new(&bridge);
            let reply = client.ask(&create(id, "TRANSIENT"));
            let length = reply.strip_prefix("SESSION STATUS RESULT=OK DESTINATION=").unwrap().len();
            (client, length)
        };
        let (_a, length) = session("a");
        assert_eq!(length, private, "{personality}");
        let generate = || Client::new(&bridge).ask("DEST GENERATE SIGNATURE_TYPE=7").len();
        assert_eq!(generate(), "DEST REPLY PUB= PRIV=".len() + public + private, "{personality}");
        bridge.faults().dsa_keys(false);
        assert_ne!(session("b").1, private);
        assert_ne!(generate(), "DEST REPLY PUB= PRIV=".len() + public + private);
    }
}
