//! The control socket of a session, and of a forward.

use super::{forward, garbage, told, written, HELLO, RANGE};
use crate::common::{destination, Rng};
use i2psock::error::Status;
use i2psock::protocol::control::Control;
use i2psock::protocol::handshake::Handshake;
use i2psock::protocol::outbox::Outbox;
use i2psock::protocol::request::Outcome;
use i2psock::secret::Secret;

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
                control.lookup(number as u64 + 1, name).unwrap();
            }
            control.forget(3);
            for piece in pieces {
                control.input(piece, &mut events).unwrap();
            }
            if eof {
                control.eof(&mut events);
            }
            let announced = control.announced().cloned();
            (told(&events), written(&mut control), control.trace.take(), control.pongs(), announced)
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
        let (events, output, log, pongs, _) = run(&[&stream], false);
        assert!(pongs >= pings);
        // Each command is one line, and goes out with a write of its own: some bridges drop what follows in a read.
        // Answers to PING may go out together.
        assert!(
            output.iter().all(|message| {
                let lines: Vec<_> = message.split_inclusive('\n').collect();
                let are_pongs = lines.iter().all(|line| line.starts_with("PONG"));
                message.ends_with('\n') && (lines.len() == 1 || are_pongs)
            }),
            "{output:?}"
        );
        assert_eq!(output.concat().matches("PONG").count(), pongs as usize + 1);
        assert!(!log.concat().contains("c2VjcmV0"));
        // Nobody is answered twice, and nobody who left while waiting is asked for.
        let mut numbers: Vec<&str> = events.iter().filter_map(|e| e.split_once(": ")).map(|(n, _)| n).collect();
        numbers.retain(|n| *n != "forgotten");
        let sorted = numbers.clone();
        numbers.dedup();
        assert_eq!(numbers, sorted);
        assert!(!numbers.contains(&"3") && numbers.is_sorted());
    }
}

#[test]
fn control_asks_one_thing_at_a_time() {
    let mut control = Control::default();
    let mut events = Vec::new();
    for number in 1..=100 {
        control.lookup(number, &format!("n{number}.i2p")).unwrap();
    }
    for number in 1..=100 {
        assert_eq!(String::from_utf8_lossy(control.output()), format!("NAMING LOOKUP NAME=n{number}.i2p\n"));
        control.wrote(1000);
        let reply = format!("NAMING REPLY RESULT=KEY_NOT_FOUND NAME=n{number}.i2p\n");
        // A reply nobody has asked for yet answers nothing.
        let early = format!("NAMING REPLY RESULT=KEY_NOT_FOUND NAME=n{}.i2p\n", number + 1);
        control.input(format!("{early}{reply}{reply}").as_bytes(), &mut events).unwrap();
        assert_eq!(events.len(), number as usize);
    }
    assert!(control.output().is_empty());
    for bad in ["a b.i2p", "a.i2p\nQUIT", "", "ME ", "a\0.i2p", "\"a.i2p\""] {
        assert!(control.lookup(1000, bad).is_err(), "{bad:?}");
    }
    assert!(control.output().is_empty());
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
    let mut control = Control::of_forward(handshake.take_output());
    let mut events = Vec::new();
    control.input(&read[taken..], &mut events).unwrap();
    assert_eq!(written(&mut control), ["PONG 1\nPONG 2\n"]);
    assert!(events.is_empty());
    // Its end is announced under its own topic, with or without a line feed.
    control.input(b"OR MESSAGE=\"gone\"", &mut events).unwrap();
    control.eof(&mut events);
    assert!(events.is_empty());
    let end = control.announced().unwrap();
    assert!(end.status == Status::Closed && end.message.contains("gone"), "{end:?}");
}
