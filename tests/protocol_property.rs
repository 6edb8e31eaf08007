//! The protocol without sockets against every segmentation, and against bridges and callers that mean harm.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::time::{Duration, Instant};

use common::{destination, private_keys, Rng};
use i2psock::error::{Error, Operation, Status};
use i2psock::identity::{Address, Keys, Target};
use i2psock::protocol::command::{self, Identity};
use i2psock::protocol::control::{Control, Event};
use i2psock::protocol::credentials::Credentials;
use i2psock::protocol::handshake::{Handshake, Phase};
use i2psock::protocol::line::{self, Line, MAX_LINE};
use i2psock::protocol::outbox::Outbox;
use i2psock::protocol::peer_line::PeerLine;
use i2psock::protocol::ports::Ports;
use i2psock::protocol::reply::{self, ResultCode};
use i2psock::protocol::request::{NewIdentity, Outcome, Request};
use i2psock::protocol::version::{Version, VersionRange};
use i2psock::secret::Secret;

const RANGE: VersionRange = VersionRange { min: Version::V3_1, max: Version::V3_3 };
const HELLO: &str = "HELLO REPLY RESULT=OK VERSION=3.3\n";

// ---------------------------------------------------------------------------------------------------------------------
// The handshake
// ---------------------------------------------------------------------------------------------------------------------

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

fn bytes(case: &Case) -> Vec<Vec<u8>> {
    let mut turns: Vec<Vec<u8>> = case.turns.iter().map(|turn| turn.clone().into_bytes()).collect();
    turns.last_mut().unwrap().extend_from_slice(case.payload);
    turns
}

#[test]
fn any_split_gives_what_one_read_gives() {
    let mut rng = Rng::new(1);
    for case in cases() {
        let turns = bytes(&case);
        let at_once = converse((case.request)(), &whole(&turns), false);
        assert_eq!((at_once.outcome.as_str(), &at_once.error), (case.outcome.as_str(), &None), "{}", case.name);
        assert_eq!(at_once.taken, turns.last().unwrap().len() - case.payload.len(), "{}", case.name);
        let check = |turns: &[Vec<&[u8]>]| {
            let seen = converse((case.request)(), turns, false);
            assert_eq!(seen, at_once, "{} in {turns:?}", case.name);
        };
        // Every turn cut in two at every place; reading stops at the end of the header, as on a socket.
        for (index, turn) in turns.iter().enumerate() {
            for at in 0..=turn.len() {
                let mut cut = whole(&turns);
                cut[index] = vec![&turn[..at], &turn[at..]];
                if at + case.payload.len() > turn.len() && index + 1 == turns.len() {
                    // The second piece is payload alone.
                    cut[index].pop();
                }
                check(&cut);
            }
        }
        let bytewise: Vec<Vec<&[u8]>> = turns.iter().map(|turn| turn.chunks(1).collect()).collect();
        check(&bytewise);
        for _ in 0..300 {
            let cut: Vec<Vec<&[u8]>> = turns.iter().map(|turn| rng.pieces(turn)).collect();
            check(&cut);
        }
    }
}

#[test]
fn payload_stays_where_it_is() {
    // Whatever follows the header, in one piece with it or not: not one byte is taken.
    let mut rng = Rng::new(2);
    for case in cases().iter().filter(|case| !case.payload.is_empty()) {
        for round in 0..500 {
            let payload: Vec<u8> = match round {
                0 => vec![b'\n'; 70_000],
                1 => vec![b'a'; MAX_LINE * 2],
                _ => (0..rng.below(300)).map(|_| rng.next() as u8).collect(),
            };
            let header = case.turns[1].as_bytes();
            let turn = [header, &payload[..]].concat();
            let seen = converse((case.request)(), &[vec![HELLO.as_bytes()], vec![&turn]], false);
            assert_eq!((seen.outcome.as_str(), seen.taken), (case.outcome.as_str(), header.len()), "{}", case.name);
        }
        let mut handshake = Handshake::new((case.request)(), RANGE, None).unwrap();
        for turn in &case.turns {
            handshake.wrote(handshake.output().len());
            handshake.input(turn.as_bytes()).unwrap();
        }
        assert_eq!(handshake.phase(), Phase::Done);
        assert_eq!(handshake.input(PAYLOAD).unwrap(), 0);
        assert!(handshake.output().is_empty());
    }
}

/// Keep-alive lines and exactly what answers them.
const PINGS: [(&[u8], &[u8]); 6] = [
    (b"PING\n", b"PONG\n"),
    (b"PING \n", b"PONG \n"),
    (b"PING 1763750000000\n", b"PONG 1763750000000\n"),
    (b"PING a  \"b  c=d RESULT=OK\n", b"PONG a  \"b  c=d RESULT=OK\n"),
    (b"PING \xff\xfe\t\x01\n", b"PONG \xff\xfe\t\x01\n"),
    (b"PING 1\nPING 2\n", b"PONG 1\nPONG 2\n"),
];

#[test]
fn pings_at_every_line_boundary_are_answered_and_change_nothing() {
    for case in cases() {
        let plain = converse((case.request)(), &whole(&bytes(&case)), false);
        for (index, turn) in case.turns.iter().enumerate() {
            let boundaries = turn.char_indices().filter(|(_, c)| *c == '\n').map(|(at, _)| at + 1);
            for at in [0].into_iter().chain(boundaries).filter(|at| *at < turn.len()) {
                for (ping, pong) in PINGS {
                    let (before, after) = turn.as_bytes().split_at(at);
                    let mut turns = bytes(&case);
                    let rest = turns[index].split_off(turn.len());
                    turns[index] = [before, ping, after, &rest].concat();
                    let pong = String::from_utf8_lossy(pong).into_owned();
                    for apart in [false, true] {
                        let mut cut = whole(&turns);
                        if apart {
                            let (first, second) = turns[index].split_at(before.len() + ping.len());
                            cut[index] = [first.split_at(before.len()).0, &first[before.len()..], second].to_vec();
                        }
                        let seen = converse((case.request)(), &cut, false);
                        let name = format!("{} turn {index} at {at} {ping:?} apart {apart}", case.name);
                        assert_eq!((&seen.outcome, &seen.error), (&plain.outcome, &plain.error), "{name}");
                        assert_eq!(&seen.log, &plain.log, "{name}");
                        // Once the connection carries payload an answer would be read by the peer.
                        let payload = (case.name.starts_with("connect") || case.name.starts_with("accept"))
                            && index + 1 == case.turns.len();
                        if payload && seen.sent == plain.sent {
                            continue;
                        }
                        assert_eq!(seen.sent.len(), plain.sent.len() + pong.len(), "{name}");
                        // As a whole, between other lines.
                        assert_eq!(seen.sent.replacen(&pong, "", 1), plain.sent, "{name}");
                        assert!(format!("\n{}", seen.sent).contains(&format!("\n{pong}")), "{name}");
                    }
                }
            }
        }
    }
}

#[test]
fn the_end_after_every_byte_is_an_error() {
    for case in cases() {
        for (index, turn) in case.turns.iter().enumerate() {
            for at in 0..turn.len() {
                let mut turns: Vec<Vec<&[u8]>> = case.turns.iter().map(|t| vec![t.as_bytes()]).collect();
                turns.truncate(index + 1);
                turns[index] = vec![&turn.as_bytes()[..at]];
                let seen = converse((case.request)(), &turns, true);
                let error =
                    seen.error.unwrap_or_else(|| panic!("{} turn {index} ends after {at}: no error", case.name));
                // Cut in the middle of RESULT=OK it may look like another result; never a success, never our fault.
                let halves = ["RESULT", "RESULT=", "RESULT=O"].iter().any(|cut| turn[..at].ends_with(cut));
                let status = if halves { error.status } else { Status::Protocol };
                assert!(matches!(status, Status::Protocol | Status::Network));
                assert_eq!(error.status, status, "{} turn {index} ends after {at}: {error:?}", case.name);
                assert_eq!(seen.outcome, "nothing", "{} turn {index} ends after {at}", case.name);
                assert!(!error.message.is_empty());
            }
        }
    }
}

/// NETWORK comes with the router's own token: a line that ends before the token has none.
#[test]
fn a_result_that_was_cut_off_is_no_answer_of_the_router() {
    for line in ["STREAM STATUS RESULT", "STREAM STATUS RESULT=", "STREAM STATUS RESULT=\"\""] {
        for (end, eof) in [("", true), ("\n", false)] {
            let turn = format!("{line}{end}");
            let error = converse(connect(), &[vec![HELLO.as_bytes()], vec![turn.as_bytes()]], eof).error.unwrap();
            assert_eq!(error.status, Status::Protocol, "{turn:?}: {error:?}");
        }
    }
}

/// Every RESULT that means no: token on the wire, and what a program is told.
const REFUSALS: [(&str, &str); 17] = [
    ("NOVERSION", "NOVERSION"),
    ("I2P_ERROR", "I2P_ERROR"),
    ("DUPLICATED_ID", "DUPLICATED_ID"),
    ("DUPLICATED_DEST", "DUPLICATED_DEST"),
    ("DUPLICATE_ID", "DUPLICATED_ID"),
    ("DUPLICATE_DEST", "DUPLICATED_DEST"),
    ("INVALID_KEY", "INVALID_KEY"),
    ("INVALID_ID", "INVALID_ID"),
    ("CANT_REACH_PEER", "CANT_REACH_PEER"),
    ("PEER_NOT_FOUND", "PEER_NOT_FOUND"),
    ("CONNECTION_REFUSED", "CONNECTION_REFUSED"),
    ("TIMEOUT", "TIMEOUT"),
    ("ALREADY_ACCEPTING", "ALREADY_ACCEPTING"),
    ("KEY_NOT_FOUND", "KEY_NOT_FOUND"),
    ("LEASESET_NOT_FOUND", "LEASESET_NOT_FOUND"),
    ("SOMETHING_NEW", "SOMETHING_NEW"),
    ("ok", "ok"),
];

fn operation(name: &str) -> Operation {
    match name {
        "generate" => Operation::Generate,
        "lookup" => Operation::Lookup,
        "create" | "create with keys" => Operation::Create,
        "connect" => Operation::Connect,
        _ => Operation::Accept,
    }
}

#[test]
fn errors_with_and_without_their_line_feed_under_any_topic() {
    let topics =
        ["SESSION STATUS", "STREAM STATUS", "DEST REPLY", "NAMING REPLY", "STREAM", "SESSION", "X Y", "HELLO REPLY"];
    for case in cases().iter().filter(|case| case.turns.len() > 1) {
        for topic in topics {
            for (token, tag) in REFUSALS {
                for tail in ["", " MESSAGE=\"the text\"", " MESSAGE= UNKNOWN=1 FLAG X=\"=\""] {
                    let line = format!("{topic} RESULT={token}{tail}");
                    let with_lf = converse(
                        (case.request)(),
                        &[vec![HELLO.as_bytes()], vec![format!("{line}\n").as_bytes()]],
                        false,
                    );
                    let error = with_lf.error.unwrap_or_else(|| panic!("{}: {line} is no error", case.name));
                    assert_eq!((error.status, error.operation), (Status::Network, operation(case.name)), "{line}");
                    let tag = if case.name == "lookup" && token == "INVALID_KEY" { "KEY_NOT_FOUND" } else { tag };
                    assert_eq!(error.tag, tag, "{line}");
                    if tail.ends_with("text\"") && tag != "KEY_NOT_FOUND" {
                        assert!(error.message.contains("the text"), "{line}: {}", error.message);
                    }
                    let without = converse((case.request)(), &[vec![HELLO.as_bytes()], vec![line.as_bytes()]], true);
                    // A token nobody knows, right at the end, may have been cut.
                    let cut = tail.is_empty() && matches!(ResultCode::parse(token), ResultCode::Other(_));
                    match without.error {
                        Some(other) if cut => assert_eq!(other.status, Status::Protocol, "{line}"),
                        other => assert_eq!(other, Some(error), "{line}"),
                    }
                    assert_eq!((with_lf.outcome.as_str(), without.outcome.as_str()), ("nothing", "nothing"));
                }
            }
        }
    }
    // After the OK of an accept too, and in place of the answer to HELLO.
    for line in [
        "STREAM STATUS RESULT=I2P_ERROR MESSAGE=\"Router restart\"",
        "SESSION STATUS RESULT=I2P_ERROR",
        "STREAM RESULT=I2P_ERROR",
    ] {
        let turn = format!("STREAM STATUS RESULT=OK\n{line}");
        let seen = converse(accept(), &[vec![HELLO.as_bytes()], vec![turn.as_bytes()]], true);
        let error = seen.error.unwrap();
        assert_eq!(
            (error.status, error.operation, error.tag.as_str()),
            (Status::Network, Operation::Accept, "I2P_ERROR")
        );
    }
    for (line, tag) in [("HELLO REPLY RESULT=NOVERSION", "NOVERSION"), ("SESSION STATUS RESULT=I2P_ERROR", "I2P_ERROR")]
    {
        for case in cases() {
            let error = converse((case.request)(), &[vec![line.as_bytes()]], true).error.unwrap();
            assert_eq!(
                (error.status, error.operation, error.tag.as_str()),
                (Status::Network, Operation::Handshake, tag)
            );
        }
    }
}

#[test]
fn an_ok_that_answers_something_else_is_none() {
    let dest = destination(3);
    let lines = [
        "HELLO REPLY RESULT=OK VERSION=3.3",
        "SESSION STATUS RESULT=OK",
        "SESSION STATUS RESULT=OK DESTINATION=",
        "STREAM STATUS",
        "STREAM STATUS MESSAGE=OK",
        "STREAM RESULT=OK",
        "STREAM REPLY RESULT=OK",
        "NAMING REPLY RESULT=OK NAME=example.i2p",
        "NAMING REPLY RESULT=OK NAME=other.i2p",
        "NAMING STATUS RESULT=OK",
        "DEST REPLY PUB=x",
        "DEST REPLY RESULT=OK PRIV=",
        "AUTH STATUS RESULT=OK",
        "A B",
        "A",
        "X=Y",
        "=",
        "STREAM STATUS RESULT=OK RESULT=OK",
        "STREAM STATUS RESULT=OK MESSAGE=\"open",
        "STREAM STATUS RESULT=OK MESSAGE=\"open\\",
        "stream status RESULT=OK",
    ];
    for case in cases().iter().filter(|case| case.turns.len() > 1 && !case.name.contains("accept")) {
        for line in lines {
            let seen = converse((case.request)(), &[vec![HELLO.as_bytes()], vec![line.as_bytes(), b"\n"]], false);
            let error = seen.error.unwrap_or_else(|| panic!("{} takes {line}", case.name));
            assert_eq!((error.status, error.operation), (Status::Protocol, operation(case.name)), "{line}");
        }
    }
    let wrong_name = format!("NAMING REPLY RESULT=OK NAME=other.i2p VALUE={dest}\n");
    let seen = converse(lookup(), &[vec![HELLO.as_bytes()], vec![wrong_name.as_bytes()]], false);
    assert_eq!(seen.error.unwrap().status, Status::Protocol);
    // A name comes back in the router's own spelling, or not at all.
    for name in [" NAME=EXAMPLE.I2P", ""] {
        let line = format!("NAMING REPLY RESULT=OK{name} VALUE={dest}\n");
        let seen = converse(lookup(), &[vec![HELLO.as_bytes()], vec![line.as_bytes()]], false);
        assert_eq!(seen.outcome, format!("found {dest}"));
    }
    // Where a private key is due or a public one, the other is refused.
    let keys = private_keys(3, 4);
    let line = format!("NAMING REPLY RESULT=OK NAME=example.i2p VALUE={keys}\n");
    let error = converse(lookup(), &[vec![HELLO.as_bytes()], vec![line.as_bytes()]], false).error.unwrap();
    assert_eq!(error.status, Status::Protocol);
    assert!(!error.message.contains(&keys[600..640]));
}

#[test]
fn an_answer_before_the_question_is_refused() {
    // All in one read: the command has not left when its answer comes.
    for case in cases().iter().filter(|case| case.turns.len() > 1) {
        let all = case.turns.concat();
        let error = converse((case.request)(), &[vec![all.as_bytes()]], false).error.unwrap();
        assert_eq!(error.status, Status::Protocol, "{}", case.name);
    }
}

#[test]
fn versions_in_hello() {
    for (version, good) in [
        ("3.1", true),
        ("3.2", true),
        ("3.3", true),
        ("3.0", false),
        ("3.4", false),
        ("0.3", false),
        ("4.0", false),
        ("2.9", false),
        ("3", false),
        ("", false),
        ("\"3.3\"", true),
        ("3.3.3", false),
        ("-3.3", false),
        ("65536.65536", false),
        ("99999999999999999999.1", false),
    ] {
        let line = format!("HELLO REPLY RESULT=OK VERSION={version}\n");
        let seen = converse(Request::Check, &[vec![line.as_bytes()]], false);
        assert_eq!(seen.error.is_none(), good, "{version}: {:?}", seen.error);
        assert_eq!(seen.outcome == "checked", good, "{version}");
    }
    let ports = || Request::Connect {
        id: "x".into(),
        target: Target::parse("a.i2p").unwrap(),
        ports: Ports { from: None, to: Some(80) },
        options: Vec::new(),
    };
    let seen = converse(ports(), &[vec![b"HELLO REPLY RESULT=OK VERSION=3.1\n"]], false);
    assert_eq!(seen.error.unwrap().status, Status::Unsupported);
    assert_eq!(seen.sent, "HELLO VERSION MIN=3.1 MAX=3.3\n", "nothing is sent that would be ignored");
    let old = VersionRange { min: Version::V3_0, max: Version::V3_1 };
    let error = Handshake::new(ports(), old, None).err().unwrap();
    assert_eq!(error.status, Status::Unsupported);
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

#[test]
fn garbage_never_panics_nor_piles_up() {
    let mut rng = Rng::new(3);
    let cases = cases();
    let mut outcomes = 0;
    for round in 0..20_000 {
        let case = &cases[round % cases.len()];
        let mut handshake = Handshake::new((case.request)(), RANGE, None).unwrap();
        // Begin anywhere.
        for turn in case.turns.iter().take(rng.below(case.turns.len() + 1).min(case.turns.len() - 1)) {
            handshake.wrote(handshake.output().len());
            handshake.input(turn.as_bytes()).unwrap();
        }
        if rng.below(4) > 0 {
            handshake.wrote(handshake.output().len());
        }
        let bytes = garbage(&mut rng, 12);
        let mut failed = false;
        for piece in rng.pieces(&bytes) {
            match handshake.input(piece) {
                Ok(taken) => assert!(taken == piece.len() || handshake.phase() == Phase::Done),
                Err(error) => {
                    assert!(error.status != Status::Internal && !error.message.contains('\n'), "{error:?}");
                    assert!(error.message.len() < 2000, "{error:?}");
                    failed = true;
                    break;
                }
            }
        }
        if handshake.phase() == Phase::Done {
            outcomes += 1;
            assert_ne!(describe(handshake.take_outcome()), "nothing");
        } else if !failed {
            let error = handshake.eof();
            assert!(error.message.len() < 2000, "{error:?}");
            assert!(handshake.take_outcome().is_none());
        }
        for line in handshake.trace.take() {
            assert!(!line.contains('\n'), "{line:?}");
        }
    }
    // A control socket has no end to reach: everything on it is taken or ignored.
    let mut control = Control::default();
    let mut events = Vec::new();
    for round in 0..80_000 {
        if round % 1000 == 0 {
            control = Control::default();
            control.trace.want(true);
        }
        if round % 5 == 0 {
            control.lookup(round, "example.i2p").unwrap();
        }
        if control.input(&garbage(&mut rng, 8), &mut events).is_err() {
            control = Control::default();
        }
        drop(written(&mut control));
        assert!(events.drain(..).all(|event| told(&[event])[0].len() < 2000));
        assert!(control.trace.take().iter().all(|line| !line.contains('\n')));
    }
    assert!(outcomes > 100, "the garbage is too far from SAM to prove anything: {outcomes}");
}

#[test]
fn long_lines_are_refused_at_the_cap() {
    let head = "STREAM STATUS RESULT=I2P_ERROR MESSAGE=";
    let fits = format!("{head}{}", "x".repeat(MAX_LINE - head.len()));
    let seen = converse(connect(), &[vec![HELLO.as_bytes()], vec![fits.as_bytes(), b"\n"]], false);
    assert_eq!(seen.error.unwrap().status, Status::Network);
    let too_long = format!("{fits}x");
    for eof in [false, true] {
        // Refused as soon as it is too long, without waiting for its end.
        let seen = converse(connect(), &[vec![HELLO.as_bytes()], vec![too_long.as_bytes()]], eof);
        let error = seen.error.unwrap();
        assert!(error.status == Status::Protocol && error.message.contains("too long"), "{error:?}");
    }
    for piece in [1, 1000, 4096, 100_000] {
        for start in ["HELLO REPLY ", "PING ", "x"] {
            let endless = format!("{start}{}", "y".repeat(MAX_LINE));
            let seen = converse(Request::Check, &[endless.as_bytes().chunks(piece).collect()], false);
            assert!(seen.error.unwrap().message.contains("too long"));
            let turn = endless.as_bytes().chunks(piece).collect();
            let seen = converse(accept(), &[vec![HELLO.as_bytes()], vec![b"STREAM STATUS RESULT=OK\n"], turn], false);
            assert!(seen.error.unwrap().message.contains("too long"));
        }
    }
    let mut control = Control::default();
    let error = control.input(too_long.as_bytes(), &mut Vec::new()).unwrap_err();
    assert_eq!((error.status, error.operation), (Status::Protocol, Operation::Session));
}

#[test]
fn ping_floods_that_nobody_reads_end() {
    for request in [accept as fn() -> Request, connect, || Request::Check, create] {
        let mut handshake = Handshake::new(request(), RANGE, None).unwrap();
        let long = format!("PING {}\n", "x".repeat(60_000));
        let mut peak = 0;
        let error = loop {
            match handshake.input(long.as_bytes()) {
                Ok(_) => peak = peak.max(handshake.output().len()),
                Err(error) => break error,
            }
        };
        assert_eq!(error.status, Status::Protocol);
        assert!(peak < 3 * MAX_LINE, "{peak}");
    }
    let mut control = Control::default();
    control.lookup(1, "a.i2p").unwrap();
    while control.input(b"PING 1234567890\nPING\n", &mut Vec::new()).is_ok() {
        assert!(control.output().len() < 3 * MAX_LINE);
    }
    // Whoever reads the answers may ask as much as he likes.
    let mut control = Control::default();
    for _ in 0..100_000 {
        control.input(b"PING 1\n", &mut Vec::new()).unwrap();
        control.wrote(7);
    }
    assert_eq!((control.pongs(), control.output().len()), (100_000, 0));
}

#[test]
fn what_is_no_sam_bridge_is_told_apart() {
    let alert = b"\x15\x03\x01\x00\x02\x02\x46";
    for at in 1..=alert.len() {
        for rest in [&alert[at..], b""] {
            let error = converse(Request::Check, &[vec![&alert[..at], rest]], true).error.unwrap();
            assert_eq!((error.status, error.operation), (Status::Protocol, Operation::Handshake));
            assert!(error.message.contains("TLS"), "{}", error.message);
        }
    }
    let foreign: [&[u8]; 12] = [
        b"HTTP/1.1 400 Bad Request\r\nServer: nginx\r\n\r\n<html>",
        b"<html><body>400</body></html>\n",
        b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n",
        b"SSH-2.0-dropbear\r\n",
        b"220 mail.example.org ESMTP Postfix\r\n",
        b"+OK POP3 ready\r\n",
        b"* OK IMAP4rev1\r\n",
        b"-ERR unknown command 'HELLO'\r\n",
        b"ERROR\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\0\0\0\0",
        b"HELLO VERSION MIN=3.1 MAX=3.3\n",
    ];
    for bytes in foreign {
        let shown = String::from_utf8_lossy(bytes).into_owned();
        for pieces in [vec![bytes], bytes.chunks(1).collect()] {
            let error = converse(create(), &[pieces], true).error.unwrap();
            assert_eq!((error.status, error.operation), (Status::Protocol, Operation::Handshake), "{shown:?}");
            let told = error.message.contains("no SAM bridge") || shown.starts_with("HELLO");
            assert!(told, "{shown:?}: {}", error.message);
            assert!(!error.message.contains(|c: char| c.is_control()), "{:?}", error.message);
        }
    }
    // Nothing at all: TLS servers and password-minded ones do that.
    let error = converse(Request::Check, &[], true).error.unwrap();
    assert!(error.message.contains("TLS") && error.message.contains("password"), "{}", error.message);
}

#[test]
fn a_restart_forgets_the_first_conversation() {
    for case in cases() {
        let mut handshake = Handshake::new((case.request)(), RANGE, None).unwrap();
        handshake.wrote(5);
        assert!(handshake.input(b"PING 1\nHELLO REPLY RESULT=NOVERSION\nPART").is_err());
        let lower = VersionRange { min: Version::V3_0, max: Version::V3_3 };
        handshake.restart(lower, None).unwrap();
        assert_eq!(handshake.output(), b"HELLO VERSION MIN=3.0 MAX=3.3\n");
        for turn in &case.turns {
            handshake.wrote(handshake.output().len());
            handshake.input(turn.as_bytes()).unwrap();
        }
        assert_eq!(describe(handshake.take_outcome()), case.outcome);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// The control socket
// ---------------------------------------------------------------------------------------------------------------------

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
        Event::Ending(error) => format!("ending: {:?} {} {}", error.status, error.tag, error.message),
    };
    events.iter().map(describe).collect()
}

#[test]
fn control_any_split_gives_the_same_events() {
    let mut rng = Rng::new(4);
    let found = |name: &str| format!("NAMING REPLY RESULT=OK NAME={name} VALUE={}\n", destination(7));
    for round in 0..60 {
        let mut stream = Vec::new();
        let mut pings = 0;
        for _ in 0..rng.below(25) {
            let name = *rng.pick(&[&"a.i2p", &"b.i2p", &"c.i2p", &"ME", &"zzz.i2p"]);
            let line = match rng.below(10) {
                0 => found(name).into_bytes(),
                1 => format!("NAMING REPLY RESULT=KEY_NOT_FOUND NAME={name}\n").into_bytes(),
                2 => b"NAMING REPLY RESULT=INVALID_KEY\n".to_vec(),
                3 => b"SESSION STATUS RESULT=I2P_ERROR MESSAGE=\"Session is closed\"\n".to_vec(),
                4 => b"STREAM STATUS RESULT=I2P_ERROR MESSAGE=\"invalid state\"\n".to_vec(),
                5 => b"SESSION STATUS RESULT=OK DESTINATION=c2VjcmV0\n".to_vec(),
                6 => [&garbage(&mut rng, 6)[..], b"\n"].concat(),
                _ => {
                    pings += 1;
                    format!("PING {}\n", rng.below(1000)).into_bytes()
                }
            };
            stream.extend(line);
        }
        let run = |pieces: &[&[u8]], eof: bool| {
            let mut left = Outbox::default();
            left.push(Secret::from_slice(b"PONG left over\n"));
            let mut control = Control::with_output(left);
            let mut events = Vec::new();
            control.trace.want(true);
            for (number, name) in ["a.i2p", "b.i2p", "a.i2p", "ME", "c.i2p"].iter().enumerate() {
                control.lookup(number as u64, name).unwrap();
            }
            control.forget(2);
            for piece in pieces {
                control.input(piece, &mut events).unwrap();
            }
            if eof {
                control.eof(&mut events);
            }
            (told(&events), written(&mut control), control.trace.take(), control.pongs())
        };
        for eof in [false, true] {
            let at_once = run(&[&stream], eof);
            let bytewise: Vec<&[u8]> = stream.chunks(1).collect();
            assert_eq!(run(&bytewise, eof), at_once, "{:?}", String::from_utf8_lossy(&stream));
            for _ in 0..4 {
                assert_eq!(run(&rng.pieces(&stream), eof), at_once);
            }
        }
        if round < 30 && stream.len() < 600 {
            for at in 0..stream.len() {
                assert_eq!(run(&[&stream[..at], &stream[at..]], false), run(&[&stream], false));
            }
        }
        let (events, output, log, pongs) = run(&[&stream], false);
        assert!(pongs >= pings);
        // Each message is one line, and goes out with a write of its own: some bridges drop what follows in a read.
        assert!(
            output.iter().all(|message| message.ends_with('\n') && message.matches('\n').count() == 1),
            "{output:?}"
        );
        assert_eq!(output.iter().filter(|message| message.starts_with("PONG")).count(), pongs as usize + 1);
        assert!(!log.concat().contains("c2VjcmV0"));
        // Nobody is answered twice, and nobody who left while waiting is asked for.
        let mut numbers: Vec<&str> = events.iter().filter_map(|e| e.split_once(": ")).map(|(n, _)| n).collect();
        numbers.retain(|n| *n != "ending");
        let sorted = numbers.clone();
        numbers.dedup();
        assert_eq!(numbers, sorted);
        assert!(!numbers.contains(&"2") && numbers.is_sorted());
    }
}

#[test]
fn control_asks_one_thing_at_a_time() {
    let mut control = Control::default();
    let mut events = Vec::new();
    for number in 0..100 {
        control.lookup(number, &format!("n{number}.i2p")).unwrap();
    }
    for number in 0..100 {
        assert_eq!(String::from_utf8_lossy(control.output()), format!("NAMING LOOKUP NAME=n{number}.i2p\n"));
        control.wrote(1000);
        let reply = format!("NAMING REPLY RESULT=KEY_NOT_FOUND NAME=n{number}.i2p\n");
        // A reply nobody has asked for yet answers nothing.
        let early = format!("NAMING REPLY RESULT=KEY_NOT_FOUND NAME=n{}.i2p\n", number + 1);
        control.input(format!("{early}{reply}{reply}").as_bytes(), &mut events).unwrap();
        assert_eq!(events.len(), number as usize + 1);
    }
    assert!(control.output().is_empty());
    for bad in ["a b.i2p", "a.i2p\nQUIT", "", "ME ", "a\0.i2p", "\"a.i2p\""] {
        assert!(control.lookup(1000, bad).is_err(), "{bad:?}");
    }
    assert!(control.output().is_empty());
}

// ---------------------------------------------------------------------------------------------------------------------
// Lines, peers, commands
// ---------------------------------------------------------------------------------------------------------------------

#[test]
fn quoted_values_come_back_as_they_were() {
    let mut rng = Rng::new(5);
    const PARTS: [&str; 12] = ["a", " ", "\t", "\"", "\\", "=", "\u{e9}", "\u{1f600}", "RESULT=", "x y", "\r", "n"];
    for _ in 0..20_000 {
        let mut text = String::from("TOPIC ACTION");
        let mut expected = Vec::new();
        for key in 0..rng.below(5) {
            let value: String = (0..rng.below(8)).map(|_| rng.pick(&PARTS)).collect();
            let quoted = value.replace('\\', "\\\\").replace('"', "\\\"");
            text.push_str(&format!("{}K{key}=\"{quoted}\"", rng.pick(&[" ", "  ", "\t", " \t "])));
            expected.push(value);
        }
        let Ok(Line::Reply(fields)) = line::parse(text.as_bytes()) else { panic!("{text:?}") };
        for (key, value) in expected.iter().enumerate() {
            assert_eq!(fields.get(&format!("K{key}")), Some(value.as_str()), "{text:?}");
        }
        assert_eq!(fields.get(&format!("K{}", expected.len())), None);
    }
}

#[test]
fn random_lines_never_panic_and_never_show_private_values() {
    let mut rng = Rng::new(6);
    for _ in 0..20_000 {
        let bytes = garbage(&mut rng, 10);
        for line in bytes.split(|b| *b == b'\n') {
            if let Ok(Line::Reply(mut fields)) = line::parse(line) {
                let shown = format!("{} {fields:?}", fields.redacted());
                for key in ["PRIV", "DESTINATION"] {
                    if let Some(secret) = fields.take_private(key).filter(|secret| secret.len() > 20) {
                        let secret = String::from_utf8_lossy(secret.as_bytes()).into_owned();
                        assert!(!shown.contains(&secret), "{shown}");
                    }
                }
            }
        }
    }
}

/// Log lines go to terminals: nothing a bridge says may steer one, or fill the disk.
#[test]
fn redacted_lines_are_printable_and_short() {
    let long = "K".repeat(30_000);
    let lines = [
        "STREAM STATUS RESULT=\x1b[2J MESSAGE=\"\x07\u{9b}31m\"".to_owned(),
        "STREAM STATUS \x1b[2J=x".to_owned(),
        "STREAM \x1b]0;title\x07 RESULT=OK".to_owned(),
        "\x1b[2J STATUS RESULT=OK".to_owned(),
        "STREAM STATUS A\rB=x".to_owned(),
        format!("STREAM STATUS {long}=x"),
        format!("{long} {long}"),
    ];
    for line in &lines[..] {
        let Ok(Line::Reply(fields)) = line::parse(line.as_bytes()) else { panic!("{line:?}") };
        let shown = fields.redacted();
        assert!(!shown.contains(|c: char| c.is_control()), "{shown:?}");
        assert!(shown.len() < 5000, "{} bytes from one line", shown.len());
    }
    // The same through the conversation.
    let mut control = Control::default();
    control.trace.want(true);
    control.input(format!("{}\n", lines[1]).as_bytes(), &mut Vec::new()).unwrap();
    let log = control.trace.take().concat();
    assert!(!log.is_empty());
    assert!(!log.contains('\x1b'), "{log:?}");
}

/// A bridge chooses its lines: the time to read one may grow with its length, not with its square. While one is read
/// nobody else's PING is answered.
#[test]
fn the_longest_lines_are_read_quickly() {
    let fill = |mut piece: Box<dyn FnMut(usize) -> String>| {
        let mut text = String::from("A B");
        for number in 0.. {
            let next = piece(number);
            // A quarter of what is allowed, which is enough to tell the two apart.
            if text.len() + next.len() > MAX_LINE / 4 {
                return text;
            }
            text.push_str(&next);
        }
        text
    };
    let distinct = |number: usize| {
        let letters = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.";
        let letter = |at: usize| char::from(letters[at % letters.len()]);
        [letter(number), letter(number / 64), letter(number / 4096)].iter().collect::<String>()
    };
    let lines = [
        ("blanks", fill(Box::new(|_| " ".into()))),
        ("one word", fill(Box::new(|_| "x".into()))),
        ("the same key", fill(Box::new(|_| " k=v".into()))),
        ("the same bare key", fill(Box::new(|_| " k".into()))),
        ("many keys", fill(Box::new(move |n| format!(" {}=1", distinct(n))))),
        ("many bare keys", fill(Box::new(move |n| format!(" {}", distinct(n))))),
        ("quotes", fill(Box::new(|n| format!(" k{n}=\"\\\"\"")))),
    ];
    let mut slow = Vec::new();
    for (name, text) in &lines {
        let once = || {
            let start = Instant::now();
            drop(line::parse(text.as_bytes()));
            start.elapsed()
        };
        // A busy machine may be slow now and then, not every time.
        if (0..20).all(|_| once() > Duration::from_millis(60)) {
            slow.push(*name);
        }
    }
    assert!(slow.is_empty(), "{slow:?}");
}

#[test]
fn a_forward_s_socket_goes_on_after_its_reply() {
    // What came with the reply and what is still to be written belongs to whoever keeps the forward alive.
    let mut handshake = Handshake::new(forward(), RANGE, None).unwrap();
    handshake.wrote(handshake.output().len());
    handshake.input(HELLO.as_bytes()).unwrap();
    assert_eq!(
        String::from_utf8_lossy(handshake.output()),
        "STREAM FORWARD ID=abcdefghijklmnop PORT=4567 HOST=127.0.0.1\n"
    );
    handshake.wrote(handshake.output().len());
    let read = b"PING 1\nSTREAM STATUS RESULT=OK\nPING 2\nSTREAM STATUS RESULT=I2P_ERR";
    let taken = handshake.input(read).unwrap();
    assert_eq!(&read[..taken], b"PING 1\nSTREAM STATUS RESULT=OK\n");
    assert!(matches!(handshake.take_outcome(), Some(Outcome::Forwarding)));
    let mut control = Control::with_output(handshake.take_output());
    let mut events = Vec::new();
    control.input(&read[taken..], &mut events).unwrap();
    assert_eq!(written(&mut control), ["PONG 1\n", "PONG 2\n"]);
    assert!(events.is_empty());
    // Its end is announced under its own topic, with or without a line feed.
    control.input(b"OR MESSAGE=\"gone\"", &mut events).unwrap();
    control.eof(&mut events);
    assert!(
        matches!(&events[..], [Event::Ending(error)] if error.status == Status::Closed && error.message.contains("gone"))
    );
}

#[test]
fn a_forwarded_stream_s_line_is_taken_and_not_one_byte_more() {
    let mut rng = Rng::new(9);
    let dest = destination(0x5a);
    for (line, ports) in [
        (format!("{dest}\n"), (None, None)),
        (format!("{dest}\r\n"), (None, None)),
        (format!("{dest} FROM_PORT=0 TO_PORT=65535\n"), (Some(0), Some(65535))),
    ] {
        let all = [line.as_bytes(), PAYLOAD].concat();
        for round in 0..line.len() + 300 {
            // Cut in two at every place, then anyhow.
            let pieces = match all.split_at_checked(round) {
                Some((first, second)) if round < line.len() => vec![first, second],
                _ => rng.pieces(&all),
            };
            let (mut reader, mut taken, mut peer) = (PeerLine::default(), 0, None);
            for piece in pieces {
                let (more, found) = reader.input(piece).unwrap();
                taken += more;
                if found.is_some() {
                    peer = found;
                    break;
                }
                assert_eq!(more, piece.len(), "the line goes on");
            }
            let peer = peer.unwrap();
            assert_eq!(taken, line.len());
            assert_eq!((peer.address.base64(), (peer.from_port, peer.to_port)), (dest.as_str(), ports));
            assert_eq!(peer, reply::peer(line.trim_end().as_bytes()).unwrap());
        }
    }
}

#[test]
fn whoever_connects_to_a_forwarding_port_may_say_anything() {
    let dest = destination(0x5a);
    for line in ["\n", "PING 1\n", "STREAM STATUS RESULT=OK\n", "GET / HTTP/1.1\r\n", "example.i2p\n", "\0\n"] {
        let error = PeerLine::default().input(line.as_bytes()).unwrap_err();
        assert_eq!((error.status, error.operation), (Status::Protocol, Operation::Accept), "{line:?}");
        assert!(!error.message.contains(|c: char| c.is_control()), "{error:?}");
    }
    // A line without an end is refused at the length that others are refused at, in whatever pieces it comes.
    for size in [1, 4096, MAX_LINE, MAX_LINE + 1] {
        let (mut reader, mut sent) = (PeerLine::default(), 0);
        let piece = vec![b'A'; size];
        let refused = loop {
            match reader.input(&piece) {
                Ok((taken, None)) => sent += taken,
                Ok(other) => panic!("{other:?}"),
                Err(error) => break error,
            }
        };
        assert_eq!((refused.status, refused.operation), (Status::Protocol, Operation::Accept));
        assert_eq!(sent, MAX_LINE / size * size, "pieces of {size}");
    }
    // The end after every byte.
    for at in 0..dest.len() {
        let mut reader = PeerLine::default();
        assert_eq!(reader.input(&dest.as_bytes()[..at]).unwrap(), (at, None));
        let error = reader.eof();
        assert_eq!((error.status, error.operation), (Status::Protocol, Operation::Accept));
        assert_eq!(error.message.contains("without a word"), at == 0, "{}", error.message);
    }
}

#[test]
fn peer_lines_mutated() {
    let mut rng = Rng::new(7);
    let dest = destination(0x5a);
    let line = format!("{dest} FROM_PORT=1234 TO_PORT=80");
    let good = reply::peer(line.as_bytes()).unwrap();
    for at in 0..line.len() {
        for _ in 0..8 {
            let mut bytes = line.clone().into_bytes();
            match rng.below(3) {
                0 => bytes[at] = rng.next() as u8,
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, rng.next() as u8),
            }
            match reply::peer(&bytes) {
                // Whatever is taken for a destination is one, and is the text that came.
                Ok(peer) => {
                    let word = String::from_utf8(bytes).unwrap();
                    let word = word.split([' ', '\t', '\r']).find(|word| !word.is_empty()).unwrap();
                    assert_eq!(peer.address, Address::parse(word).unwrap());
                }
                Err(error) => {
                    assert_eq!((error.status, error.operation), (Status::Protocol, Operation::Accept));
                    assert!(
                        error.message.len() < 500 && !error.message.contains(|c: char| c.is_control()),
                        "{error:?}"
                    );
                }
            }
        }
    }
    // A destination that was cut is none; where only the padding is missing it is still the same one.
    for at in 0..dest.len() {
        match reply::peer(&dest.as_bytes()[..at]) {
            Ok(peer) => assert_eq!((peer.address, at), (good.address.clone(), dest.trim_end_matches('=').len())),
            Err(error) => assert_eq!(error.status, Status::Protocol),
        }
    }
    for line in [
        format!("{dest} TO_PORT=80 FROM_PORT=1234"),
        format!("  {dest}\tFROM_PORT=1234  TO_PORT=80 "),
        format!("{dest} X FROM_PORT=1234 Y=Z TO_PORT=80\r"),
    ] {
        assert_eq!(reply::peer(line.as_bytes()).unwrap(), good, "{line}");
    }
    for bad in ["FROM_PORT=65536", "TO_PORT=-1", "FROM_PORT=", "TO_PORT=0x50", "TO_PORT=8 0x"] {
        let result = reply::peer(format!("{dest} {bad}").as_bytes());
        assert_eq!(result.is_err(), !bad.contains(' '), "{bad}");
    }
    for line in ["", " ", "STREAM", "STREAM STATUS RESULT=OK", "example.i2p", &private_keys(0x5a, 1)] {
        let error = reply::peer(line.as_bytes()).unwrap_err();
        assert!(!error.message.contains(&private_keys(0x5a, 1)[560..600]), "{}", error.message);
    }
}

#[test]
fn peer_lines_are_as_strict_as_other_lines() {
    let dest = destination(0x5a);
    assert!(reply::peer(format!("{dest} X=\0").as_bytes()).is_err(), "a NUL in the line");
    assert!(reply::peer(format!("{dest} TO_PORT=+80").as_bytes()).is_err(), "a sign in a port");
    let quoted = reply::peer(format!("{dest} FROM_PORT=\"1\" TO_PORT=\"2\"").as_bytes()).unwrap();
    assert_eq!((quoted.from_port, quoted.to_port), (Some(1), Some(2)));
    let twice = reply::peer(format!("{dest} TO_PORT=1 TO_PORT=2").as_bytes()).unwrap();
    assert_eq!(twice.to_port, Some(1), "of two keys the first counts");
}

/// Texts a careless or malicious caller might pass.
fn nasty() -> Vec<String> {
    let mut list: Vec<String> = [
        "",
        " ",
        "a b",
        "a\tb",
        "a\nQUIT",
        "\n",
        "a\r",
        "\r\n",
        "a\0b",
        "a\"b",
        "\"a b\"",
        "a\\b",
        "\\",
        "a=b",
        "=",
        "\u{85}",
        "\u{2028}",
        "a\u{a0}b",
        "\u{e9}",
        "\u{202e}",
        "\u{feff}",
        "a\x0bb",
        "a\x0cb",
        "\x7f",
        "\x1b[2J",
        "ME ID=x",
        "x SILENT=true",
        "TRANSIENT STYLE=RAW",
        "a.i2p\n",
        "a.i2p FROM_PORT=1",
        "a b.i2p",
        "http://a.i2p/",
        "a.i2p:80",
        "\u{ff21}.i2p",
        "a\u{301}.i2p",
        "'",
        "`id`",
        "$(id)",
        "%0a",
        "%n%s",
        "&#10;",
        "\\n",
        "\\x0a",
        "../../x.i2p",
        "a.i2p;QUIT",
    ]
    .map(String::from)
    .to_vec();
    for byte in 0..=0x9f {
        let odd = char::from_u32(byte).unwrap();
        list.extend([format!("{odd}"), format!("x{odd}y"), format!("x.i2p{odd}"), format!("x{odd}.i2p")]);
    }
    let (dest, keys) = (destination(1), private_keys(1, 2));
    for tail in ["\n", " ", "=", "\"", "\0", "\nQUIT\n", " ID=x"] {
        list.extend([format!("{dest}{tail}"), format!("{tail}{dest}"), format!("{keys}{tail}")]);
    }
    list.extend(["x".repeat(65), "x".repeat(5000), "x".repeat(100_000), format!("{}.i2p", "x".repeat(5000))]);
    list
}

/// One line, one LF at its end, no quotes, and the words are separated by single spaces.
fn check_line(bytes: &[u8], words: usize) {
    let line = bytes.strip_suffix(b"\n").unwrap();
    let shown = String::from_utf8_lossy(line).into_owned();
    assert!(bytes.len() <= command::MAX_COMMAND + 1, "{}", bytes.len());
    assert!(line.iter().all(|b| b.is_ascii_graphic() && !b"\"\\".contains(b) || *b == b' '), "{shown:?}");
    assert_eq!(shown.split(' ').count(), words, "{shown:?}");
    assert!(shown.split(' ').all(|word| !word.is_empty()), "{shown:?}");
    for word in shown.split(' ').skip(2) {
        let (key, value) = word.split_once('=').unwrap();
        assert!(!key.is_empty() && !value.is_empty(), "{shown:?}");
    }
}

#[test]
fn no_text_breaks_a_command() {
    let transient = || Identity::Transient { signature_type: 7 };
    let (mut accepted, mut refused) = (0, 0);
    let host = Target::parse("a.i2p").unwrap();
    for text in nasty() {
        let mut check = |result: i2psock::error::Result<command::Command>, words| match result {
            Ok(command) => {
                accepted += 1;
                check_line(command.bytes(), words);
                assert!(!command.redacted().contains(|c: char| c.is_control()));
            }
            Err(error) => {
                refused += 1;
                assert_eq!(error.status, Status::Invalid, "{text:?}");
                assert!(!error.message.contains(|c: char| c.is_control()), "{:?}", error.message);
            }
        };
        check(command::naming_lookup(&text), 3);
        check(command::stream_accept(&text), 3);
        check(command::stream_forward(&text, [127, 0, 0, 1].into(), 1, false), 5);
        check(command::stream_forward(&text, [255; 16].map(|b: u8| b / 2).into(), 65535, true), 6);
        check(command::stream_connect(&text, &host, Ports::default(), &[]), 4);
        check(command::session_create("STREAM", &text, transient(), Ports::default(), Default::default(), &[]), 6);
        for option in [(text.clone(), "x".to_owned()), ("a.b".to_owned(), text.clone()), (text.clone(), text.clone())] {
            let options = [option];
            check(
                command::session_create("STREAM", "id", transient(), Ports::default(), Default::default(), &options),
                7,
            );
            check(command::stream_connect("id", &host, Ports::default(), &options), 5);
        }
        if let Ok(target) = Target::parse(&text) {
            check(command::stream_connect("id", &target, Ports::default(), &[]), 4);
        }
        if let Ok(keys) = Keys::from_text(&text) {
            check(
                command::session_create(
                    "STREAM",
                    "id",
                    Identity::Keys(&keys),
                    Ports::default(),
                    Default::default(),
                    &[],
                ),
                5,
            );
        }
        // Credentials are quoted: one line, and read back exactly.
        if let Ok(credentials) = Credentials::new(&text, &text) {
            if let Ok(command) = command::hello(RANGE, Some(&credentials)) {
                assert_eq!(command.bytes().iter().filter(|b| **b == b'\n').count(), 1);
                assert!(!command.bytes().iter().any(|b| *b < b' ' && *b != b'\n'), "{text:?}");
                let line = &command.bytes()[..command.bytes().len() - 1];
                let Ok(Line::Reply(mut fields)) = line::parse(line) else { panic!("{text:?}") };
                assert_eq!(fields.get("USER"), Some(text.as_str()));
                assert_eq!(fields.take_private("PASSWORD").unwrap().as_bytes(), text.as_bytes());
                assert!(text.len() < 3 || text == "MIN" || !command.redacted().contains(&text), "{text:?}");
            }
        }
    }
    assert!(accepted > 50 && refused > 1000, "{accepted} {refused}");
}

#[test]
fn accepted_options_are_read_back_exactly() {
    let mut rng = Rng::new(8);
    const KEYS: &[u8] = b"abcXYZ019_.-= \"\\\n\x7f";
    const VALUES: &[u8] = b"aZ09=,:;/+-~_.!#$%&'()*<>?@[]^`{|} \t\"\\\n\r\0\x7f";
    let mut accepted = 0;
    for _ in 0..12_000 {
        let letters = |rng: &mut Rng, from: &[u8], good: usize, most: usize| -> String {
            // Mostly good ones, so that many get through.
            let limit = if rng.below(4) == 0 { from.len() } else { good };
            (0..rng.below(most)).map(|_| char::from(from[rng.below(limit)])).collect()
        };
        let options: Vec<(String, String)> = (0..1 + rng.below(3))
            .map(|_| (letters(&mut rng, KEYS, 11, 12), letters(&mut rng, VALUES, 33, 20)))
            .collect();
        let transient = Identity::Transient { signature_type: 7 };
        let Ok(command) =
            command::session_create("STREAM", "id", transient, Ports::default(), Default::default(), &options)
        else {
            continue;
        };
        accepted += 1;
        check_line(command.bytes(), 6 + options.len());
        let line = &command.bytes()[..command.bytes().len() - 1];
        let Ok(Line::Reply(mut fields)) = line::parse(line) else { panic!("{options:?}") };
        for (key, value) in &options {
            assert_eq!(fields.get(key), Some(value.as_str()), "{options:?}");
        }
        let own = [("STYLE", "STREAM"), ("ID", "id"), ("SIGNATURE_TYPE", "7")];
        assert!(own.iter().all(|(key, value)| fields.get(key) == Some(value)), "{options:?}");
        assert_eq!(fields.take_private("DESTINATION").unwrap().as_bytes(), b"TRANSIENT");
    }
    assert!(accepted > 1000, "{accepted}");
}
