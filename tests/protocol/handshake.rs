//! The handshake against every segmentation of what a bridge says.

use super::{cases, converse, describe, whole, Case, HELLO, PAYLOAD, RANGE};
use crate::common::Rng;
use i2psock::error::Status;
use i2psock::identity::Target;
use i2psock::protocol::handshake::{Handshake, Phase};
use i2psock::protocol::line::MAX_LINE;
use i2psock::protocol::ports::Ports;
use i2psock::protocol::request::Request;
use i2psock::protocol::version::{Version, VersionRange};

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
                let stopped = case.name.starts_with("create") && index == 1 && at == 0;
                let status = match (halves, stopped) {
                    (true, _) => error.status,
                    (_, true) => Status::Closed,
                    _ => Status::Protocol,
                };
                assert!(matches!(status, Status::Protocol | Status::Network | Status::Closed));
                assert_eq!(error.status, status, "{} turn {index} ends after {at}: {error:?}", case.name);
                assert_eq!(seen.outcome, "nothing", "{} turn {index} ends after {at}", case.name);
                assert!(!error.message.is_empty());
            }
        }
    }
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
