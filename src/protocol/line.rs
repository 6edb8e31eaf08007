//! Splits a line from a bridge into tokens (SAM specification, "SAM v3 protocol: command and reply format").
//!
//! A line may contain a private key, so nothing here prints values: errors are fixed texts and `Debug` shows only keys.

use std::fmt;

use crate::protocol::hidden::Hidden;
use crate::secret::{conceal, is_secret_name, Secret, SecretText, PRIVATE};

/// Longest line accepted from a bridge, without its line feed. A SESSION STATUS with RSA keys needs about 3 kB.
pub const MAX_LINE: usize = 65536;

/// Maximum number of pairs in a line. A NAMING REPLY with lease set options has the most.
const MAX_PAIRS: usize = 512;

/// The kinds of line a bridge sends.
#[derive(Debug)]
pub enum Line {
    /// Keep-alive; the opaque rest of the line, including its leading space, must be echoed byte for byte.
    Ping(Secret),
    /// An answer to a PING of ours, or a stray one.
    Pong,
    /// Everything else: topic, action and `KEY=value` pairs.
    Reply(Fields),
}

/// The tokens of a reply line.
pub struct Fields {
    topic: String,
    action: String,
    pairs: Vec<(String, Value)>,
}

enum Value {
    Text(SecretText),
    Private(Secret),
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.topic, self.action)?;
        for (key, _) in &self.pairs {
            write!(f, " {key}=…")?;
        }
        Ok(())
    }
}

impl Fields {
    /// First word: HELLO, SESSION, STREAM, NAMING, DEST...
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Second word: REPLY or STATUS; empty if the bridge left it out.
    pub fn action(&self) -> &str {
        &self.action
    }

    /// The value of `key`, unless it is absent or private.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.pairs.iter().find(|(k, _)| k == key).and_then(|(_, value)| match value {
            Value::Text(text) => Some(text.as_str()),
            Value::Private(_) => None,
        })
    }

    /// Removes and returns the private value of `key`.
    pub fn take_private(&mut self, key: &str) -> Option<Secret> {
        let found = self.pairs.iter().position(|(k, v)| k == key && matches!(v, Value::Private(_)))?;
        match self.pairs.swap_remove(found).1 {
            Value::Private(secret) => Some(secret),
            Value::Text(_) => None,
        }
    }

    /// The line for the log: private values replaced, long ones shortened.
    pub fn redacted(&self) -> String {
        let word = |text: &str| excerpt(text.as_bytes(), 32);
        let mut text = format!("{} {}", word(&self.topic), word(&self.action));
        for (key, value) in self.pairs.iter().take(16) {
            match value {
                Value::Private(_) => text.push_str(&format!(" {}={PRIVATE}", word(key))),
                Value::Text(value) => {
                    let part = if is_address(key) { beginning } else { excerpt };
                    text.push_str(&format!(" {}={}", word(key), part(value.as_str().as_bytes(), 80)));
                }
            }
        }
        text
    }

    /// Whether the value of `key` in a reply of this topic is a private key.
    fn is_private(topic: &str, key: &str) -> bool {
        // SESSION STATUS calls the private key blob DESTINATION.
        is_secret_name(key) || (topic == "SESSION" && key == "DESTINATION")
    }
}

/// Whether the value of `key` is a name or an address, if it is not private.
fn is_address(key: &str) -> bool {
    matches!(key, "NAME" | "VALUE" | "PUB" | "DESTINATION")
}

/// Why a line cannot be parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

/// At most `limit` characters of untrusted text, made printable; what may be a private key is not shown.
pub fn excerpt(bytes: &[u8], limit: usize) -> String {
    printable(&conceal(&String::from_utf8_lossy(bytes)), limit)
}

/// [`excerpt`] for a name or an address, of which the beginning is shown however long it is. A private key begins with
/// its destination, and nothing else in it is among its first 500 characters.
pub fn beginning(bytes: &[u8], limit: usize) -> String {
    printable(&String::from_utf8_lossy(bytes), limit)
}

fn printable(text: &str, limit: usize) -> String {
    let readable = |c: char| if c.is_control() || c == char::REPLACEMENT_CHARACTER { '?' } else { c };
    let mut shown: String = text.chars().take(limit).map(readable).collect();
    if text.chars().nth(limit).is_some() {
        shown.push('…');
    }
    shown
}

fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

/// Parses `line`, which comes without its line feed.
pub fn parse(line: &[u8]) -> Result<Line, Malformed> {
    parse_without(&Hidden::default(), line)
}

/// [`parse`] for a line that may repeat what is `hidden`. The text of a PING is left as it is: it is sent back and not
/// shown.
pub fn parse_without(hidden: &Hidden, line: &[u8]) -> Result<Line, Malformed> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.len() > MAX_LINE {
        return Err(Malformed("the line is too long"));
    }
    if line.contains(&0) {
        return Err(Malformed("a NUL byte in the line"));
    }
    if let Some(rest) = keep_alive(line, b"PING") {
        return Ok(Line::Ping(Secret::from_slice(rest)));
    }
    if keep_alive(line, b"PONG").is_some() {
        return Ok(Line::Pong);
    }
    parse_fields(hidden, line).map(Line::Reply)
}

/// The opaque rest of `line` if its first word is `word`.
fn keep_alive<'a>(line: &'a [u8], word: &[u8]) -> Option<&'a [u8]> {
    line.strip_prefix(word).filter(|rest| rest.is_empty() || rest.starts_with(b" "))
}

fn parse_fields(hidden: &Hidden, line: &[u8]) -> Result<Fields, Malformed> {
    let mut tokens = Tokens { rest: line };
    let topic = match tokens.next_token()? {
        Some(Token { key, value: None }) => word(hidden, key)?,
        Some(_) => return Err(Malformed("the first word is not a topic")),
        None => return Err(Malformed("an empty line")),
    };
    let mut fields = Fields { topic, action: String::new(), pairs: Vec::new() };
    match tokens.next_token()? {
        None => return Err(Malformed("a topic without an action")),
        Some(Token { key, value: None }) => fields.action = word(hidden, key)?,
        Some(pair) => fields.add(hidden, pair)?,
    }
    while let Some(pair) = tokens.next_token()? {
        fields.add(hidden, pair)?;
    }
    Ok(fields)
}

impl Fields {
    fn add(&mut self, hidden: &Hidden, Token { key, value }: Token<'_>) -> Result<(), Malformed> {
        if self.pairs.len() >= MAX_PAIRS {
            return Err(Malformed("too many words"));
        }
        let key = word(hidden, key)?;
        if self.pairs.iter().any(|(known, _)| *known == key) {
            // Two RESULTs would be contradictory, and two SIZEs would leave it open where the next line starts. For all
            // other keys the first one counts.
            return if matches!(key.as_str(), "RESULT" | "SIZE") { Err(Malformed("a key twice")) } else { Ok(()) };
        }
        let value = value.unwrap_or(Secret::from_vec(Vec::new()));
        let value = if Self::is_private(&self.topic, &key) {
            Value::Private(value)
        } else if is_address(&key) {
            Value::Text(utf8(value.as_bytes())?.into())
        } else {
            let value = hidden.out_of(value);
            Value::Text(match key.as_str() {
                "MESSAGE" => String::from_utf8_lossy(value.as_bytes()).into_owned().into(),
                _ => utf8(value.as_bytes())?.into(),
            })
        };
        self.pairs.push((key, value));
        Ok(())
    }
}

/// A word that is not a value. Those of SAM, such as DESTINATION, are never hidden, whatever a secret looks like.
fn word(hidden: &Hidden, bytes: &[u8]) -> Result<String, Malformed> {
    if bytes.len() <= b"DESTINATION".len() && bytes.iter().all(|b| b.is_ascii_uppercase() || *b == b'_') {
        return utf8(bytes);
    }
    utf8(hidden.out_of(Secret::from_slice(bytes)).as_bytes())
}

fn utf8(bytes: &[u8]) -> Result<String, Malformed> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| Malformed("text that is not UTF-8"))
}

struct Token<'a> {
    key: &'a [u8],
    value: Option<Secret>,
}

struct Tokens<'a> {
    rest: &'a [u8],
}

impl<'a> Tokens<'a> {
    fn next_token(&mut self) -> Result<Option<Token<'a>>, Malformed> {
        let start = self.rest.iter().position(|b| !is_blank(*b)).unwrap_or(self.rest.len());
        let text = self.rest.get(start..).unwrap_or_default();
        if text.is_empty() {
            return Ok(None);
        }
        let stop = text.iter().position(|b| is_blank(*b) || *b == b'=').unwrap_or(text.len());
        let (key, after) = text.split_at(stop);
        let Some(value) = after.strip_prefix(b"=") else {
            self.rest = after;
            return Ok(Some(Token { key, value: None }));
        };
        if key.is_empty() {
            return Err(Malformed("a value without a key"));
        }
        let value = self.value(value)?;
        Ok(Some(Token { key, value: Some(value) }))
    }

    /// The value at the start of `text`; quotes only have a meaning there. If more text follows the closing quote
    /// without a space, it belongs to the value too (bridges quote messages carelessly).
    fn value(&mut self, text: &'a [u8]) -> Result<Secret, Malformed> {
        let raw = raw_value(text);
        self.rest = text.get(raw.len()..).unwrap_or_default();
        // Never reallocates, so no copy of a private key stays behind in freed memory.
        let mut value = Vec::with_capacity(raw.len());
        let mut bytes = raw.iter().copied();
        let mut quoted = raw.first() == Some(&b'"');
        if quoted {
            bytes.next();
        }
        while let Some(byte) = bytes.next() {
            match byte {
                b'"' if quoted => quoted = false,
                b'\\' if quoted => match bytes.next() {
                    Some(next @ (b'"' | b'\\')) => value.push(next),
                    Some(next) => value.extend([byte, next]),
                    None => return Err(Malformed("a backslash at the end")),
                },
                _ => value.push(byte),
            }
        }
        let value = Secret::from_vec(value);
        if quoted {
            return Err(Malformed("a quote that is not closed"));
        }
        Ok(value)
    }
}

/// The value at the start of `text`, undecoded, up to the next unquoted blank.
fn raw_value(text: &[u8]) -> &[u8] {
    let (mut quoted, mut escaped) = (text.first() == Some(&b'"'), false);
    let end = text.iter().enumerate().position(|(at, byte)| match byte {
        _ if escaped => {
            escaped = false;
            false
        }
        b'\\' if quoted => {
            escaped = true;
            false
        }
        b'"' if quoted && at > 0 => {
            quoted = false;
            false
        }
        _ => !quoted && is_blank(*byte),
    });
    text.get(..end.unwrap_or(text.len())).unwrap_or_default()
}

/// Parses `KEY=value` pairs without a topic and action in front.
pub fn parse_pairs(text: &[u8]) -> Result<Fields, Malformed> {
    if text.contains(&0) {
        return Err(Malformed("a NUL byte in the line"));
    }
    let mut tokens = Tokens { rest: text.strip_suffix(b"\r").unwrap_or(text) };
    let mut fields = Fields { topic: String::new(), action: String::new(), pairs: Vec::new() };
    while let Some(pair) = tokens.next_token()? {
        fields.add(&Hidden::default(), pair)?;
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(line: &str) -> Fields {
        match parse(line.as_bytes()).unwrap() {
            Line::Reply(fields) => fields,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn quotes_escapes_and_bare_keys() {
        let f = reply(r#"STREAM STATUS RESULT=I2P_ERROR FLAG MESSAGE="say \"hi\" to c:\\x \n" X=a"b"#);
        assert_eq!(f.get("RESULT"), Some("I2P_ERROR"));
        assert_eq!(f.get("FLAG"), Some(""));
        assert_eq!(f.get("MESSAGE"), Some(r#"say "hi" to c:\x \n"#));
        assert_eq!(f.get("X"), Some("a\"b"));
        assert_eq!(f.get("Y"), None);
    }

    #[test]
    fn a_reply_without_action_is_kept() {
        let f = reply("STREAM RESULT=I2P_ERROR MESSAGE=\"unknown command\"");
        assert_eq!((f.topic(), f.action()), ("STREAM", ""));
        assert_eq!(f.get("RESULT"), Some("I2P_ERROR"));
    }

    #[test]
    fn private_values_are_not_readable_as_text_nor_printed() {
        let mut f = reply("SESSION STATUS RESULT=OK DESTINATION=c2VjcmV0");
        assert_eq!(f.get("DESTINATION"), None);
        assert!(!format!("{f:?} {}", f.redacted()).contains("c2Vj"));
        assert_eq!(f.take_private("DESTINATION").unwrap().as_bytes(), b"c2VjcmV0");
        assert!(f.take_private("DESTINATION").is_none());
        assert_eq!(reply("NAMING REPLY VALUE=x DESTINATION=y").get("DESTINATION"), Some("y"));
    }

    #[test]
    fn what_is_hidden_is_nowhere_but_the_words_of_sam_stay() {
        let hidden = Hidden::new(["hunter22", "RESULT", "STATUS", "LONGSECRETWORD"].into_iter());
        let line =
            b"SESSION STATUS RESULT=hunter22 hunter22=1 LONGSECRETWORD X=STATUS VALUE=STATUS a.psk=1 MESSAGE=\"\xff \
            hunter22'";
        let line = [&line[..], b"\""].concat();
        let Ok(Line::Reply(f)) = parse_without(&hidden, &line) else { panic!() };
        assert_eq!((f.topic(), f.action(), f.get("RESULT")), ("SESSION", "STATUS", Some("<private>")));
        assert_eq!((f.get("X"), f.get("VALUE"), f.get("a.psk")), (Some("<private>"), Some("STATUS"), None));
        assert_eq!(f.get("MESSAGE"), Some("\u{fffd} <private>'"));
        let shown = f.redacted();
        assert!(shown.contains("a.psk=<private>") && shown.contains(" <private>=<private> X=<private> "), "{shown}");
    }

    #[test]
    fn what_may_be_a_private_key_is_not_shown() {
        let key = "k".repeat(300);
        let f = reply(&format!(
            "SESSION STATUS RESULT=I2P_ERROR X={key} MESSAGE=\"bad {key}\" PUB={key} DESTINATION={key}"
        ));
        let shown = format!("X=<private> MESSAGE=bad <private> PUB={}… DESTINATION=<private>", "k".repeat(80));
        assert!(f.redacted().ends_with(&shown), "{}", f.redacted());
        assert_eq!(excerpt(format!("{key}!").as_bytes(), 4), "<pri…");
        assert_eq!(beginning(key.as_bytes(), 4), "kkkk…");
    }

    #[test]
    fn odd_bytes() {
        assert!(parse(b"STREAM STATUS RESULT=\xff").is_err());
        let Ok(Line::Reply(f)) = parse(b"STREAM STATUS RESULT=X MESSAGE=\"\xff\"") else { panic!() };
        assert_eq!(f.get("MESSAGE"), Some("\u{fffd}"));
        assert!(parse(b"\0").is_err());
        assert!(parse(&vec![b'a'; MAX_LINE + 1]).is_err());
        assert_eq!(excerpt(b"a\x1b\xffbcd", 4), "a??b…");
    }
}
