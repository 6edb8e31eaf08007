//! Answers that mean no, and those that are none.

use super::{accept, cases, connect, converse, create, generate, lookup, HELLO, RANGE};
use crate::common::{destination, private_keys};
use i2psock::error::{Operation, Status};
use i2psock::identity::{base64_encode, Target};
use i2psock::protocol::handshake::Handshake;
use i2psock::protocol::ports::Ports;
use i2psock::protocol::reply::ResultCode;
use i2psock::protocol::request::{NewIdentity, Request};

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
                    if tail.ends_with("text\"") {
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

fn create_with_style(style: &'static str) -> Request {
    let Request::Create { id, identity, ports, delivery, options, .. } = create() else { panic!() };
    Request::Create { style, id, identity, ports, delivery, options }
}

const STYLES: [&str; 5] = ["STREAM", "DATAGRAM", "RAW", "DATAGRAM2", "DATAGRAM3"];

#[test]
fn a_style_the_router_does_not_know_is_not_supported() {
    for style in STYLES {
        for (text, about_style) in [
            ("Unknown STYLE", true),
            ("Unrecognized SESSION STYLE", true),
            ("Unsupported STYLE", true),
            ("Unknown option", false),
            ("", false),
        ] {
            for (end, eof) in [("\n", false), ("", true)] {
                let turn = format!("SESSION STATUS RESULT=I2P_ERROR MESSAGE=\"{text}\"{end}");
                let turns = [vec![HELLO.as_bytes()], vec![turn.as_bytes()]];
                let error = converse(create_with_style(style), &turns, eof).error.unwrap();
                let status = if about_style { Status::Unsupported } else { Status::Network };
                assert_eq!((error.status, error.tag.as_str()), (status, "I2P_ERROR"), "{style}: {text}");
                assert!(error.message.contains(text), "{}", error.message);
                assert_eq!(error.message.contains(&format!("may not have {style}: use ")), about_style, "{error:?}");
            }
        }
    }
    // Elsewhere there is no style.
    let turns = [vec![HELLO.as_bytes()], vec![&b"STREAM STATUS RESULT=I2P_ERROR MESSAGE=\"Unknown STYLE\"\n"[..]]];
    assert_eq!(converse(connect(), &turns, false).error.unwrap().status, Status::Network);
}

#[test]
fn a_router_that_goes_away_while_it_builds_tunnels() {
    for style in STYLES {
        for reset in [false, true] {
            let mut handshake = Handshake::new(create_with_style(style), RANGE, None).unwrap();
            handshake.wrote(handshake.output().len());
            handshake.input(HELLO.as_bytes()).unwrap();
            handshake.wrote(handshake.output().len());
            let error = if reset { handshake.reset() } else { handshake.eof() };
            // emissary closes the connection instead of saying that it does not know the style.
            let status = if !reset && style.ends_with(['2', '3']) { Status::Unsupported } else { Status::Closed };
            assert_eq!((error.status, error.operation), (status, Operation::Create), "{style}: {error:?}");
            assert!(error.message.contains("while it was building tunnels"), "{}", error.message);
            let in_band = !reset && matches!(style, "DATAGRAM" | "RAW");
            assert_eq!(error.message.contains("without option in_band"), in_band, "{}", error.message);
            assert_eq!(error.message.contains("use DATAGRAM"), status == Status::Unsupported, "{}", error.message);
        }
        // Half a line is not nothing.
        let turns = [vec![HELLO.as_bytes()], vec![&b"SESSION STATUS RES"[..]]];
        assert_eq!(converse(create_with_style(style), &turns, true).error.unwrap().status, Status::Protocol);
    }
    for request in [connect(), lookup(), accept()] {
        assert_eq!(converse(request, &[vec![HELLO.as_bytes()]], true).error.unwrap().status, Status::Protocol);
    }
}

/// Some routers make keys of another type than they were asked for, without a word.
#[test]
fn keys_of_another_type_are_refused() {
    // DSA: a NULL certificate.
    let dsa = base64_encode(&[&[9; 384][..], &[0; 3], &[1; 256 + 20]].concat());
    for (request, line) in [
        (create as fn() -> Request, format!("SESSION STATUS RESULT=OK DESTINATION={dsa}\n")),
        (generate, format!("DEST REPLY PUB=x PRIV={dsa}\n")),
    ] {
        let seen = converse(request(), &[vec![HELLO.as_bytes()], vec![line.as_bytes()]], false);
        let error = seen.error.unwrap();
        assert_eq!((error.status, error.tag.as_str()), (Status::Network, ""), "{error:?}");
        assert!(error.message.contains("type 0, and 7 was asked for"), "{}", error.message);
        assert_eq!(seen.outcome, "nothing");
        let asked = match request() {
            Request::Create { style, id, ports, delivery, options, .. } => {
                Request::Create { style, id, identity: NewIdentity::Transient(0), ports, delivery, options }
            }
            _ => Request::Generate { signature_type: 0 },
        };
        let seen = converse(asked, &[vec![HELLO.as_bytes()], vec![line.as_bytes()]], false);
        assert!(seen.outcome.ends_with(&dsa), "{:?}", seen.error);
    }
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

/// A name that does not resolve has one tag, in a lookup and in a connect; a destination that the router cannot read has
/// not.
#[test]
fn a_name_that_is_not_found_in_a_connect() {
    let line = "STREAM STATUS RESULT=INVALID_KEY MESSAGE=\"Lease set not found: x\"\n";
    let b32 = format!("{}.b32.i2p", "a".repeat(52));
    let whole = destination(9);
    for (address, tag) in [("x.i2p", "KEY_NOT_FOUND"), (&b32, "KEY_NOT_FOUND"), (&whole, "INVALID_KEY")] {
        let request = Request::Connect {
            id: "abcdefghijklmnop".into(),
            target: Target::parse(address).unwrap(),
            ports: Ports::default(),
            options: Vec::new(),
        };
        let error = converse(request, &[vec![HELLO.as_bytes()], vec![line.as_bytes()]], false).error.unwrap();
        assert_eq!((error.status, error.operation, error.tag.as_str()), (Status::Network, Operation::Connect, tag));
        assert!(error.message.contains("INVALID_KEY: Lease set not found: x"), "{}", error.message);
    }
}
