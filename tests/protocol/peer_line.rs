//! The line before the payload of an accepted stream.

use super::PAYLOAD;
use crate::common::{destination, private_keys, Rng};
use i2psock::error::{Operation, Status};
use i2psock::identity::Address;
use i2psock::protocol::line::MAX_LINE;
use i2psock::protocol::peer_line::PeerLine;
use i2psock::protocol::reply::{self};

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
