//! Single lines: quoting, redaction, and the time it takes to read one.

use std::time::{Duration, Instant};

use crate::common::Rng;
use i2psock::protocol::control::Control;
use i2psock::protocol::line::{self, Line, MAX_LINE};

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
