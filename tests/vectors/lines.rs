//! Reply lines, PINGs, accept lines and malformed lines of `tests/vectors/reply_lines.json`.

use i2psock::error::{Operation, Status};
use i2psock::protocol::control::Control;
use i2psock::protocol::handshake::{Handshake, Phase};
use i2psock::protocol::line::{self, Fields, Line};
use i2psock::protocol::peer_line::PeerLine;
use i2psock::protocol::reply::{self, ResultCode};
use i2psock::protocol::request::{Outcome, Request};
use i2psock::protocol::version::{Version, VersionRange};
use serde_json::Value;

const RANGE: VersionRange = VersionRange { min: Version::V3_1, max: Version::V3_3 };

fn vectors() -> Value {
    let path = format!("{}/tests/vectors/reply_lines.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn list<'a>(vectors: &'a Value, key: &str) -> &'a [Value] {
    let list = vectors[key].as_array().unwrap_or_else(|| panic!("no {key}"));
    assert!(!list.is_empty(), "{key}");
    list
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value}"))
}

fn fields(line: &str) -> Fields {
    match line::parse(line.as_bytes()) {
        Ok(Line::Reply(fields)) => fields,
        other => panic!("{line}: {other:?}"),
    }
}

fn is_private(topic: &str, key: &str) -> bool {
    matches!((topic, key), ("SESSION", "DESTINATION") | (_, "PRIV"))
}

#[test]
fn replies() {
    let mut private = 0;
    for vector in list(&vectors(), "replies") {
        let line = text(vector, "line");
        // A CR before the LF means nothing.
        for line in [line.to_owned(), format!("{line}\r")] {
            let mut fields = fields(&line);
            assert_eq!((fields.topic(), fields.action()), (text(vector, "topic"), text(vector, "action")), "{line}");
            let (redacted, debug) = (fields.redacted(), format!("{fields:?}"));
            for (key, value) in vector["params"].as_object().unwrap() {
                let value = value.as_str().unwrap();
                if !is_private(text(vector, "topic"), key) {
                    assert_eq!(fields.get(key), Some(value), "{key} of {line}");
                    assert!(fields.take_private(key).is_none(), "{key} of {line}");
                    continue;
                }
                private += 1;
                assert_eq!(fields.get(key), None);
                assert!(redacted.contains(&format!(" {key}=<private>")), "{redacted}");
                // The private part, beyond the destination at its beginning.
                let secret = &value[600..640];
                assert!(!redacted.contains(secret) && !debug.contains(secret));
                assert_eq!(fields.take_private(key).unwrap().as_bytes(), value.as_bytes());
                assert!(fields.take_private(key).is_none() && fields.get(key).is_none());
            }
            assert_eq!(fields.get("NOSUCHKEY"), None);
            assert_eq!(reply::result_of(&fields).is_some(), vector["params"].get("RESULT").is_some());
        }
    }
    assert!(private >= 4, "{private}");
    assert_eq!(ResultCode::parse("DUPLICATE_ID"), ResultCode::DuplicatedId);
}

#[test]
fn pings() {
    let vectors = vectors();
    for vector in list(&vectors, "ping") {
        let line = text(vector, "line");
        let mut control = Control::default();
        let mut events = Vec::new();
        control.input(format!("{line}\n").as_bytes(), &mut events).unwrap();
        assert!(events.is_empty());
        let expected = vector["reply"].as_str().map_or(String::new(), |reply| format!("{reply}\n"));
        assert_eq!(String::from_utf8_lossy(control.output()), expected, "{line}");
        assert_eq!(control.pongs(), u64::from(vector["reply"].is_string()));
        match (text(vector, "kind"), line::parse(line.as_bytes()).unwrap()) {
            ("ping", Line::Ping(rest)) => {
                let text = vector["text"].as_str().map_or(String::new(), |text| format!(" {text}"));
                assert_eq!(rest.as_bytes(), text.as_bytes());
            }
            ("pong", Line::Pong) => {}
            (kind, other) => panic!("{kind}: {other:?}"),
        }
        // The same in the middle of a handshake.
        let mut handshake = asking();
        handshake.input(format!("{line}\n").as_bytes()).unwrap();
        assert_eq!(String::from_utf8_lossy(handshake.output()), expected, "{line}");
        assert_eq!(handshake.phase(), Phase::Reply);
    }
}

/// A keep-alive line is no peer, whichever it is.
#[test]
fn pings_before_the_peer_line() {
    let vectors = vectors();
    for vector in list(&vectors, "ping") {
        let line = text(vector, "line");
        let expected = vector["reply"].as_str().map_or(String::new(), |reply| format!("{reply}\n"));
        let mut handshake = accepting();
        handshake.input(format!("{line}\n").as_bytes()).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert_eq!(String::from_utf8_lossy(handshake.output()), expected, "{line}");
        assert_eq!(handshake.phase(), Phase::Peer);
    }
}

/// An accept whose command is written.
fn asking() -> Handshake {
    let mut handshake = Handshake::new(Request::Accept { id: "x".into() }, RANGE, None).unwrap();
    handshake.wrote(handshake.output().len());
    handshake.input(b"HELLO REPLY RESULT=OK VERSION=3.3\n").unwrap();
    handshake.wrote(handshake.output().len());
    handshake
}

/// An accept that waits for its peer.
fn accepting() -> Handshake {
    let mut handshake = asking();
    let line = b"STREAM STATUS RESULT=OK\n";
    assert_eq!(handshake.input(line).unwrap(), line.len());
    handshake
}

#[test]
fn accept_lines() {
    let vectors = vectors();
    let mut errors = 0;
    for vector in list(&vectors, "accept_lines") {
        let line = text(vector, "line");
        for end in ["\n", "\r\n"] {
            let mut handshake = accepting();
            let input = format!("{line}{end}payload");
            let result = handshake.input(input.as_bytes());
            let Some(tag) = vector["error"].as_str() else {
                assert_eq!(result.unwrap(), line.len() + end.len());
                let Some(Outcome::Accepted(peer)) = handshake.take_outcome() else { panic!("{line}") };
                assert_eq!(peer.address.base64(), text(vector, "destination"));
                assert_eq!(peer.from_port.map(u64::from), vector["from_port"].as_u64());
                assert_eq!(peer.to_port.map(u64::from), vector["to_port"].as_u64());
                assert_eq!(reply::peer(line.as_bytes()).unwrap(), peer);
                // The same before a forwarded stream.
                let forwarded = PeerLine::default().input(input.as_bytes()).unwrap();
                assert_eq!(forwarded, (line.len() + end.len(), Some(peer)));
                continue;
            };
            errors += 1;
            let error = result.unwrap_err();
            assert_eq!((error.status, error.operation), (Status::Network, Operation::Accept), "{line}");
            assert_eq!(error.tag, tag);
            let message = line.split('"').nth(1).unwrap();
            assert!(error.message.contains(message), "{}", error.message);
            assert!(handshake.take_outcome().is_none());
            assert!(reply::peer(line.as_bytes()).is_err());
            assert!(PeerLine::default().input(input.as_bytes()).is_err());
        }
    }
    assert!(errors >= 4);
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn malformed_lines() {
    let vectors = vectors();
    for vector in list(&vectors, "malformed") {
        let line = vector["line"].as_str().map_or_else(|| hex(text(vector, "line_hex")), |line| line.into());
        let shown = String::from_utf8_lossy(&line).into_owned();
        assert!(line::parse(&line).is_err(), "{shown:?}");
        // In place of the reply to an accept: an error, except that an empty line means nothing.
        let mut handshake = asking();
        let with_lf = [&line[..], b"\n"].concat();
        match handshake.input(&with_lf) {
            Ok(_) => assert_eq!((shown.as_str(), handshake.phase()), ("", Phase::Reply)),
            Err(error) => assert_eq!(error.status, Status::Protocol, "{shown:?}"),
        }
        assert!(handshake.take_outcome().is_none());
        // On a control socket: ignored, and what follows is understood.
        let mut control = Control::default();
        let mut events = Vec::new();
        control.input(&[&with_lf[..], b"PING 1\n"].concat(), &mut events).unwrap();
        assert!(events.is_empty());
        assert_eq!(control.output(), b"PONG 1\n", "{shown:?}");
    }
}
