//! No text of a caller breaks a command.

use super::RANGE;
use crate::common::{destination, private_keys, Rng};
use i2psock::error::Status;
use i2psock::identity::{Keys, Target};
use i2psock::protocol::command::{self, Identity, RouterOption};
use i2psock::protocol::credentials::Credentials;
use i2psock::protocol::line::{self, Line};
use i2psock::protocol::ports::Ports;
use i2psock::secret::SecretText;

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
        let value = || SecretText::from(text.as_str());
        for option in [(text.clone(), "x".into()), ("a.b".to_owned(), value()), (text.clone(), value())] {
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
        let options: Vec<RouterOption> = (0..1 + rng.below(3))
            .map(|_| (letters(&mut rng, KEYS, 11, 12), letters(&mut rng, VALUES, 33, 20).into()))
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
