//! Command lines: reading them from a socket, taking them apart the way each router does, hiding secrets.

use crate::config::Personality;
use crate::conn::Sock;
use std::io;
use std::time::Instant;

/// One command.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Command {
    pub(crate) topic: String,
    pub(crate) action: String,
    pub(crate) params: Vec<(String, String)>,
    /// Why the line is refused, when it is.
    pub(crate) error: Option<&'static str>,
}

impl Command {
    /// The first value of `key`.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.params.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    pub(crate) fn is(&self, topic: &str, action: &str) -> bool {
        self.topic == topic && self.action == action
    }

    fn push(&mut self, key: &str, value: String) {
        if self.get(key).is_some() {
            self.error = Some("Duplicate parameter");
        }
        self.params.push((key.to_string(), value));
    }
}

/// Takes a line (without its LF) apart as the router would.
pub(crate) fn parse(line: &str, personality: Personality) -> Command {
    match personality {
        Personality::Java => parse_java(line),
        Personality::Emissary => parse_emissary(line),
        Personality::I2pd245 | Personality::I2pd258 => parse_i2pd(line),
    }
}

/// Quotes are stripped, a backslash escapes anything anywhere, words fold to upper case, empty values are `true`.
fn parse_java(line: &str) -> Command {
    let mut command = Command::default();
    let mut tokens: Vec<(String, Option<usize>)> = Vec::new();
    let (mut token, mut equals, mut quoted, mut any) = (String::new(), None, false, false);
    let mut chars = line.chars().filter(|c| *c != '\r');
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                token.extend(chars.next());
                any = true;
            }
            '"' => {
                quoted = !quoted;
                any = true;
            }
            ' ' | '\t' | '\u{8}' | '\u{c}' if !quoted => {
                if any {
                    tokens.push((std::mem::take(&mut token), equals.take()));
                }
                any = false;
            }
            _ => {
                if c == '=' && equals.is_none() && !quoted {
                    equals = Some(token.len());
                }
                token.push(c);
                any = true;
            }
        }
    }
    if quoted {
        command.error = Some("Unclosed quote");
    }
    if any {
        tokens.push((token, equals));
    }
    let mut tokens = tokens.into_iter().peekable();
    if let Some((topic, _)) = tokens.next() {
        command.topic = topic.to_ascii_uppercase();
    }
    if let Some((action, _)) = tokens.next_if(|(_, equals)| equals.is_none()) {
        command.action = action.to_ascii_uppercase();
    }
    for (token, equals) in tokens {
        let (key, value) = match equals {
            Some(at) => (&token[..at], &token[at + 1..]),
            None => (token.as_str(), ""),
        };
        let value = if value.is_empty() { "true" } else { value };
        command.push(key, value.to_string());
    }
    command
}

/// One space between words, no quoting at all.
fn parse_i2pd(line: &str) -> Command {
    let line = line.strip_suffix('\r').unwrap_or(line);
    let mut words = line.split(' ');
    let mut command = Command {
        topic: words.next().unwrap_or_default().to_string(),
        action: words.next().unwrap_or_default().to_string(),
        ..Command::default()
    };
    for word in words {
        if let Some((key, value)) = word.split_once('=') {
            command.params.push((key.to_string(), value.to_string()));
        }
    }
    command
}

/// Any white space, quotes understood; at the first thing it does not understand the rest of the line is lost.
fn parse_emissary(line: &str) -> Command {
    let line = line.trim();
    let word = |text: &str| {
        let end = text.find(char::is_whitespace).unwrap_or(text.len());
        (text[..end].to_string(), text[end..].trim_start().to_string())
    };
    let (topic, rest) = word(line);
    let (action, mut rest) = if rest.split(char::is_whitespace).next().unwrap_or("").contains('=') {
        (String::new(), rest)
    } else {
        word(&rest)
    };
    let mut command = Command { topic, action, ..Command::default() };
    while let Some((key, after)) = rest.split_once('=') {
        let good = key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.');
        if !good {
            break;
        }
        let (value, next) = match after.strip_prefix('"') {
            Some(inside) => {
                let mut escaped = false;
                let end = inside.find(|c| {
                    let closes = c == '"' && !escaped;
                    escaped = c == '\\' && !escaped;
                    closes
                });
                match end {
                    Some(end) => (inside[..end].to_string(), inside[end + 1..].trim_start().to_string()),
                    None => break,
                }
            }
            None => word(after),
        };
        if value.is_empty() {
            break;
        }
        command.params.push((key.to_string(), value));
        rest = next;
    }
    command
}

/// What a read brought.
#[derive(Debug)]
pub(crate) enum Got {
    /// A line without its LF, and the number of reads it took.
    Line(Vec<u8>, usize),
    Eof,
    Timeout,
    TooLong,
}

/// Reads lines and keeps what came behind them.
pub(crate) struct LineReader {
    buffer: Vec<u8>,
    cap: usize,
    /// Routers that handle one command per read throw the rest away.
    discards: bool,
    /// But not what comes behind a datagram.
    keeps: bool,
}

impl LineReader {
    pub(crate) fn new(personality: Personality) -> Self {
        Self {
            buffer: Vec::new(),
            cap: if personality == Personality::Emissary { 4096 } else { 8192 },
            discards: personality != Personality::Java,
            keeps: false,
        }
    }

    /// What has been read behind the last line.
    pub(crate) fn take_rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffer)
    }

    /// Puts bytes behind what has been read.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Counts the line's LF to what follows it.
    pub(crate) fn unread_newline(&mut self) {
        self.buffer.insert(0, b'\n');
    }

    /// Exactly the next `len` bytes.
    pub(crate) fn exact(&mut self, sock: &Sock, len: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < len {
            let mut chunk = [0u8; 8192];
            match sock.read_until(&mut chunk, None)? {
                None | Some(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Some(n) => self.push(&chunk[..n]),
            }
        }
        let rest = self.buffer.split_off(len);
        self.keeps = true;
        Ok(std::mem::replace(&mut self.buffer, rest))
    }

    /// The next line; `deadline` bounds the wait.
    pub(crate) fn next(&mut self, sock: &Sock, deadline: Option<Instant>) -> io::Result<Got> {
        if self.discards && !std::mem::take(&mut self.keeps) {
            self.buffer.clear();
        }
        let mut reads = 0;
        let mut searched = 0;
        loop {
            if let Some(at) = self.buffer[searched..].iter().position(|b| *b == b'\n') {
                let at = searched + at;
                if at >= self.cap {
                    return Ok(Got::TooLong);
                }
                let rest = self.buffer.split_off(at + 1);
                let mut line = std::mem::replace(&mut self.buffer, rest);
                line.pop();
                return Ok(Got::Line(line, reads));
            }
            searched = self.buffer.len();
            if searched >= self.cap {
                return Ok(Got::TooLong);
            }
            let mut chunk = [0u8; 8192];
            match sock.read_until(&mut chunk, deadline)? {
                None => return Ok(Got::Timeout),
                Some(0) => return Ok(Got::Eof),
                Some(n) => self.push(&chunk[..n]),
            }
            reads += 1;
        }
    }
}

/// The line with private keys and passwords replaced by their lengths.
pub(crate) fn redact(line: &str) -> String {
    let session = line.trim_start().to_ascii_uppercase().starts_with("SESSION");
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find('=') {
        let (head, value) = rest.split_at(at + 1);
        out.push_str(head);
        let key = head[..at].rsplit(char::is_whitespace).next().unwrap_or("");
        let key = key.to_ascii_uppercase();
        let length = if let Some(inside) = value.strip_prefix('"') {
            let mut escaped = false;
            inside
                .find(|c| {
                    let closes = c == '"' && !escaped;
                    escaped = c == '\\' && !escaped;
                    closes
                })
                .map_or(value.len(), |end| end + 2)
        } else {
            value.find(char::is_whitespace).unwrap_or(value.len())
        };
        let (value, next) = value.split_at(length);
        let secret =
            matches!(key.as_str(), "PRIV" | "PASSWORD") || (session && key == "DESTINATION" && value != "TRANSIENT");
        if secret {
            out.push_str(&format!("<{} characters>", value.len()));
        } else {
            out.push_str(value);
        }
        rest = next;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(command: &Command) -> Vec<(&str, &str)> {
        command.params.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect()
    }

    #[test]
    fn java_quotes_and_escapes() {
        let c = parse("hello version MIN=3.1  USER=\"al\\\"i ce\" PASSWORD=\"p\\\\w d\" X= Y\r", Personality::Java);
        assert!(c.is("HELLO", "VERSION"));
        assert_eq!(
            pairs(&c),
            [("MIN", "3.1"), ("USER", "al\"i ce"), ("PASSWORD", "p\\w d"), ("X", "true"), ("Y", "true")]
        );
        assert_eq!(c.error, None);
        assert!(parse("A B C=1 C=2", Personality::Java).error.is_some());
        assert!(parse("A B C=\"1", Personality::Java).error.is_some());
        let c = parse("NAMING LOOKUP NAME=AA==", Personality::Java);
        assert_eq!(pairs(&c), [("NAME", "AA==")]);
    }

    #[test]
    fn i2pd_knows_no_quotes() {
        let c = parse("HELLO VERSION MIN=\"3.1 x\" MAX=3.3\r", Personality::I2pd245);
        assert_eq!(pairs(&c), [("MIN", "\"3.1"), ("MAX", "3.3")]);
        assert!(!parse("HELLO  VERSION", Personality::I2pd245).is("HELLO", "VERSION"));
        assert!(!parse("hello version", Personality::I2pd258).is("HELLO", "VERSION"));
    }

    #[test]
    fn emissary_stops_at_what_it_does_not_know() {
        let c = parse(" HELLO   VERSION MIN=3.1\tA=\"b c\" E= MAX=3.3", Personality::Emissary);
        assert!(c.is("HELLO", "VERSION"));
        assert_eq!(pairs(&c), [("MIN", "3.1"), ("A", "b c")]);
        let c = parse("A B C=1 d-e=2 F=3", Personality::Emissary);
        assert_eq!(pairs(&c), [("C", "1")]);
    }

    #[test]
    fn no_input_upsets_a_parser() {
        for text in ["", " ", "=", "\"", "\\", "a=\"\\", "é=ü \"", "A B =", "\u{8}\u{c}", "PING  x"] {
            for personality in Personality::ALL {
                parse(text, personality);
            }
            redact(text);
        }
    }

    #[test]
    fn secrets_are_hidden() {
        assert_eq!(
            redact("SESSION CREATE ID=a DESTINATION=SECRET X=1"),
            "SESSION CREATE ID=a DESTINATION=<6 characters> X=1"
        );
        assert_eq!(redact("SESSION CREATE DESTINATION=TRANSIENT"), "SESSION CREATE DESTINATION=TRANSIENT");
        assert_eq!(redact("DEST REPLY PUB=AA== PRIV=BB=="), "DEST REPLY PUB=AA== PRIV=<4 characters>");
        let hidden = redact("HELLO VERSION USER=\"u\" PASSWORD=\"a \\\" b\" MAX=3.3");
        assert_eq!(hidden, "HELLO VERSION USER=\"u\" PASSWORD=<8 characters> MAX=3.3");
        assert_eq!(redact("STREAM CONNECT DESTINATION=AA=="), "STREAM CONNECT DESTINATION=AA==");
    }
}
