//! Garbage, lines without end, and floods.

use super::{accept, cases, connect, converse, create, describe, garbage, told, written, HELLO, RANGE};
use crate::common::Rng;
use i2psock::error::{Operation, Status};
use i2psock::protocol::control::Control;
use i2psock::protocol::handshake::{Handshake, Phase};
use i2psock::protocol::line::{self, Line, MAX_LINE};
use i2psock::protocol::request::Request;

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
