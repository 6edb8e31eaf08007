//! The protocol without sockets: against every segmentation, and against bridges and callers that mean harm.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod answers;
mod command;
#[path = "../common/mod.rs"]
mod common;
mod control;
mod garbage;
mod handshake;
mod lines;
mod peer_line;

use common::{destination, private_keys, Rng};
use i2psock::error::Error;
use i2psock::identity::{Keys, Target};

use i2psock::protocol::control::{Control, Event};
use i2psock::protocol::handshake::{Handshake, Phase};
use i2psock::protocol::ports::Ports;
use i2psock::protocol::request::{NewIdentity, Outcome, Request};
use i2psock::protocol::version::{Version, VersionRange};

const RANGE: VersionRange = VersionRange { min: Version::V3_1, max: Version::V3_3 };
const HELLO: &str = "HELLO REPLY RESULT=OK VERSION=3.3\n";

/// One kind of request, what a bridge says to it line by line, and what may follow.
struct Case {
    name: &'static str,
    request: fn() -> Request,
    /// Each is sent only after the command before it has been written.
    turns: Vec<String>,
    payload: &'static [u8],
    outcome: String,
}

/// Payload that looks like more header.
const PAYLOAD: &[u8] = b"PING 1\nSTREAM STATUS RESULT=I2P_ERROR\n\0\xff\r\n\n";

fn create() -> Request {
    Request::Create {
        style: "STREAM",
        id: "abcdefghijklmnop".into(),
        identity: NewIdentity::Transient(7),
        ports: Ports::default(),
        delivery: Default::default(),
        options: vec![("inbound.quantity".into(), "3".into())],
    }
}

fn create_with_keys() -> Request {
    Request::Create {
        style: "STREAM",
        id: "abcdefghijklmnop".into(),
        identity: NewIdentity::Keys(Keys::from_text(&private_keys(1, 2)).unwrap()),
        ports: Ports { from: Some(1), to: None },
        delivery: Default::default(),
        options: Vec::new(),
    }
}

fn connect() -> Request {
    Request::Connect {
        id: "abcdefghijklmnop".into(),
        target: Target::parse(&destination(9)).unwrap(),
        ports: Ports::default(),
        options: Vec::new(),
    }
}

fn accept() -> Request {
    Request::Accept { id: "abcdefghijklmnop".into() }
}

fn forward() -> Request {
    Request::Forward { id: "abcdefghijklmnop".into(), to: ([127, 0, 0, 1], 4567).into() }
}

fn lookup() -> Request {
    Request::Lookup { name: "example.i2p".into() }
}

fn generate() -> Request {
    Request::Generate { signature_type: 7 }
}

fn cases() -> Vec<Case> {
    let (dest, keys) = (destination(3), private_keys(3, 4));
    let hello = || HELLO.to_owned();
    let case = |name, request, second: Option<String>, payload, outcome: String| Case {
        name,
        request,
        turns: [hello()].into_iter().chain(second).collect(),
        payload,
        outcome,
    };
    let session = format!("SESSION STATUS RESULT=OK DESTINATION={keys}\n");
    vec![
        case("check", || Request::Check, None, b"", "checked".into()),
        case("generate", generate, Some(format!("DEST REPLY PUB={dest} PRIV={keys}\n")), b"", format!("keys {keys}")),
        case(
            "lookup",
            lookup,
            Some(format!("NAMING REPLY RESULT=OK NAME=example.i2p VALUE={dest} OPTION:x=\"a b\"\n")),
            b"",
            format!("found {dest}"),
        ),
        case("create", create, Some(session.clone()), b"", format!("created {keys}")),
        case("create with keys", create_with_keys, Some(session), b"", format!("created {keys}")),
        case("connect", connect, Some("STREAM STATUS RESULT=OK\n".into()), PAYLOAD, "connected".into()),
        case(
            "accept",
            accept,
            Some(format!("STREAM STATUS RESULT=OK\n{dest} FROM_PORT=1 TO_PORT=65535\n")),
            PAYLOAD,
            format!("accepted {dest} Some(1) Some(65535)"),
        ),
        case(
            "accept, no ports",
            accept,
            Some(format!("STREAM STATUS RESULT=OK MESSAGE=\"a \\\"b\\\" \\\\\"\r\n{dest}\r\n")),
            PAYLOAD,
            format!("accepted {dest} None None"),
        ),
        case("forward", forward, Some("STREAM STATUS RESULT=OK\n".into()), b"", "forwarding".into()),
    ]
}

fn describe(outcome: Option<Outcome>) -> String {
    let secret = |secret: i2psock::secret::Secret| String::from_utf8(secret.as_bytes().to_vec()).unwrap();
    match outcome {
        None => "nothing".into(),
        Some(Outcome::Checked) => "checked".into(),
        Some(Outcome::Keys(keys)) => format!("keys {}", secret(keys)),
        Some(Outcome::Created(keys)) => format!("created {}", secret(keys)),
        Some(Outcome::Connected) => "connected".into(),
        Some(Outcome::Accepted(peer)) => {
            format!("accepted {} {:?} {:?}", peer.address.base64(), peer.from_port, peer.to_port)
        }
        Some(Outcome::Forwarding) => "forwarding".into(),
        Some(Outcome::Found(address)) => format!("found {}", address.base64()),
    }
}

/// Everything that can be seen of a conversation.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    outcome: String,
    error: Option<Error>,
    /// Bytes taken of the last turn.
    taken: usize,
    sent: String,
    log: Vec<String>,
    phase: Phase,
}

/// Holds a conversation in which each turn arrives in the given pieces.
fn converse(request: Request, turns: &[Vec<&[u8]>], eof: bool) -> Seen {
    let mut handshake = Handshake::new(request, RANGE, None).unwrap();
    let mut seen = Seen {
        outcome: String::new(),
        error: None,
        taken: 0,
        sent: String::new(),
        log: Vec::new(),
        phase: Phase::Hello,
    };
    let flush = |handshake: &mut Handshake, sent: &mut String| {
        while !handshake.output().is_empty() {
            sent.push_str(&String::from_utf8_lossy(handshake.output()));
            handshake.wrote(handshake.output().len());
        }
    };
    'turns: for turn in turns {
        seen.taken = 0;
        flush(&mut handshake, &mut seen.sent);
        for piece in turn {
            match handshake.input(piece) {
                Ok(taken) => {
                    seen.taken += taken;
                    assert!(taken <= piece.len());
                    assert!(taken == piece.len() || handshake.phase() == Phase::Done, "bytes are left before the end");
                    // Whoever reads ahead must know from when on that is not allowed.
                    let stream = matches!(handshake.request(), Request::Connect { .. } | Request::Accept { .. });
                    assert_eq!(handshake.must_read_exactly(), stream && handshake.phase() != Phase::Hello);
                }
                Err(error) => {
                    seen.error = Some(error);
                    break 'turns;
                }
            }
        }
    }
    if eof && seen.error.is_none() {
        seen.error = Some(handshake.eof());
    }
    flush(&mut handshake, &mut seen.sent);
    seen.phase = handshake.phase();
    seen.outcome = describe(handshake.take_outcome());
    seen.log = handshake.trace.take();
    seen
}

fn whole(turns: &[Vec<u8>]) -> Vec<Vec<&[u8]>> {
    turns.iter().map(|turn| vec![&turn[..]]).collect()
}

/// Bytes that look like SAM often enough to get somewhere.
fn garbage(rng: &mut Rng, most: usize) -> Vec<u8> {
    const WORDS: [&str; 40] = [
        "HELLO",
        "REPLY",
        "RESULT=OK",
        "VERSION=3.3",
        "VERSION=3.1",
        "SESSION",
        "STATUS",
        "STREAM",
        "NAMING",
        "DEST",
        "PING",
        "PONG",
        "RESULT=I2P_ERROR",
        "RESULT=",
        "RESULT",
        "MESSAGE=\"",
        "MESSAGE=",
        "\"",
        "\\",
        "\\\"",
        "=",
        "==",
        " ",
        "  ",
        "\t",
        "\r",
        "\n",
        "\n",
        "\n",
        "\r\n",
        "\0",
        "DESTINATION=",
        "PRIV=",
        "PUB=",
        "VALUE=",
        "NAME=example.i2p",
        "FROM_PORT=",
        "99999",
        "AAAA",
        "\u{e9}",
    ];
    const LINES: [&str; 6] = [
        HELLO,
        "STREAM STATUS RESULT=OK\n",
        "HELLO REPLY RESULT=OK VERSION=3.1\r\n",
        "PING x\n",
        "STREAM STATUS RESULT=OK X=1\nPONG\n",
        "SESSION STATUS RESULT=I2P_ERROR\n",
    ];
    let mut bytes = Vec::new();
    for _ in 0..rng.below(most) {
        match rng.below(50) {
            0..=4 => bytes.push(rng.next() as u8),
            5 => bytes.extend(destination(rng.next() as u8).bytes()),
            6 => bytes.extend(private_keys(rng.next() as u8, 1).bytes().take(700 + rng.below(300))),
            7..=11 => bytes.extend(rng.pick(&LINES).bytes()),
            _ => bytes.extend(rng.pick(&WORDS).bytes()),
        }
        if rng.below(3) > 0 {
            bytes.push(b' ');
        }
    }
    bytes
}

/// Everything that is to be written, message by message.
fn written(control: &mut Control) -> Vec<String> {
    let mut messages = Vec::new();
    while !control.output().is_empty() {
        messages.push(String::from_utf8_lossy(control.output()).into_owned());
        control.wrote(control.output().len());
    }
    messages
}

fn told(events: &[Event]) -> Vec<String> {
    let describe = |event: &Event| match event {
        Event::Datagram(packet) => format!("datagram of {}", packet.len()),
        Event::Found(number, answer) => match &answer.result {
            Ok(address) => format!("{number}: {}", address.host()),
            Err(error) => format!("{number}: {:?} {} {}", error.status, error.tag, error.message),
        },
        Event::Forgotten(error) => format!("forgotten: {:?} {} {}", error.status, error.tag, error.message),
    };
    events.iter().map(describe).collect()
}
