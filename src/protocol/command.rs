//! Building every line that is sent. Whatever a caller supplies is checked here, before a byte leaves, so that no text
//! can put a second command, another option or a broken token on the wire.

use std::net::{IpAddr, SocketAddr};

use crate::error::{Error, Result};
use crate::identity::{Address, Keys, Target};
use crate::protocol::credentials::Credentials;
use crate::protocol::datagram::SendOptions;
use crate::protocol::line;
use crate::protocol::ports::Ports;
use crate::protocol::version::VersionRange;
use crate::secret::Secret;

/// Longest line sent, without its line feed: the smallest limit of any bridge, minus one.
pub const MAX_COMMAND: usize = 4095;

/// Most lines for a log are shorter than this.
const SHOWN: usize = 256;

/// One command line, ready to be written with a single write, and the same for a log.
#[derive(Debug)]
pub struct Command {
    bytes: Secret,
    redacted: String,
}

impl Command {
    /// The line with its line feed.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.as_bytes()
    }

    /// The line for a log, without passwords and private keys.
    pub fn redacted(&self) -> &str {
        &self.redacted
    }
}

/// Collects a line of unquoted and quoted words twice: as it is sent and as it may be shown.
struct Builder {
    line: Vec<u8>,
    shown: String,
    too_long: bool,
}

impl Builder {
    fn new(words: &str) -> Self {
        // Never grows: no copy of a private key stays behind in freed memory.
        let mut builder =
            Builder { line: Vec::with_capacity(MAX_COMMAND + 1), shown: String::with_capacity(SHOWN), too_long: false };
        builder.push(words.as_bytes());
        builder.shown.push_str(words);
        builder
    }

    fn push(&mut self, bytes: &[u8]) {
        if self.line.len() + bytes.len() > MAX_COMMAND {
            self.too_long = true;
        } else {
            self.line.extend_from_slice(bytes);
        }
    }

    fn word(mut self, key: &str, value: &str) -> Self {
        self.add(key, value);
        self
    }

    fn add(&mut self, key: &str, value: &str) {
        self.hidden(key, value.as_bytes(), &line::excerpt(value.as_bytes(), 80));
    }

    /// A session id: whoever knows it can use the session, so a log gets only its beginning.
    fn id(mut self, id: &str) -> Self {
        self.hidden("ID", id.as_bytes(), &line::excerpt(id.as_bytes(), 4));
        self
    }

    fn hidden(&mut self, key: &str, value: &[u8], shown: &str) {
        for part in [b" ", key.as_bytes(), b"=", value] {
            self.push(part);
        }
        for part in [" ", key, "=", shown] {
            self.shown.push_str(part);
        }
    }

    fn ports(&mut self, ports: Ports) {
        for (key, port) in [("FROM_PORT", ports.from), ("TO_PORT", ports.to)] {
            if let Some(port) = port {
                self.add(key, &port.to_string());
            }
        }
    }

    fn finish(mut self) -> Result<Command> {
        let fits = !self.too_long;
        self.line.push(b'\n');
        let bytes = Secret::from_vec(self.line);
        if fits {
            Ok(Command { bytes, redacted: self.shown })
        } else {
            Err(Error::invalid(format!("the SAM command would be longer than {MAX_COMMAND} bytes")))
        }
    }
}

/// `HELLO VERSION`: first line of every connection.
pub fn hello(range: VersionRange, credentials: Option<&Credentials>) -> Result<Command> {
    let mut builder =
        Builder::new("HELLO VERSION").word("MIN", &range.min.to_string()).word("MAX", &range.max.to_string());
    if let Some(credentials) = credentials {
        builder.hidden("USER", credentials.user(), "<private>");
        builder.hidden("PASSWORD", credentials.password(), "<private>");
    }
    builder.finish()
}

/// `DEST GENERATE`.
pub fn dest_generate(signature_type: u16) -> Result<Command> {
    Builder::new("DEST GENERATE").word("SIGNATURE_TYPE", &signature_type.to_string()).finish()
}

/// `NAMING LOOKUP` of a name or address, or of the session's own address ("ME").
pub fn naming_lookup(name: &str) -> Result<Command> {
    if name != "ME" {
        Target::parse(name)?;
    }
    Builder::new("NAMING LOOKUP").word("NAME", name).finish()
}

/// What a new session is made of.
#[derive(Clone, Copy)]
pub enum Identity<'a> {
    /// New keys, made by the router.
    Transient {
        /// Number of the signature type; 7 is Ed25519.
        signature_type: u16,
    },
    /// Keys we have.
    Keys(&'a Keys),
}

/// `SESSION CREATE`. `options` are I2CP options; ports only where the router knows them.
pub fn session_create(
    style: &str,
    id: &str,
    identity: Identity<'_>,
    ports: Ports,
    delivery: Delivery,
    options: &[(String, String)],
) -> Result<Command> {
    check_id(id)?;
    let mut builder = Builder::new("SESSION CREATE").word("STYLE", style).id(id);
    match identity {
        Identity::Transient { signature_type } => {
            builder.add("DESTINATION", "TRANSIENT");
            builder.add("SIGNATURE_TYPE", &signature_type.to_string());
        }
        Identity::Keys(keys) => builder.hidden("DESTINATION", keys.base64_c().to_bytes(), "<private>"),
    }
    builder.ports(ports);
    if let Some(forward) = delivery.forward {
        builder.add("PORT", &forward.port().to_string());
        builder.add("HOST", &forward.ip().to_string());
    }
    if let Some(protocol) = delivery.protocol {
        builder.add("PROTOCOL", &protocol.to_string());
    }
    if delivery.header {
        builder.add("HEADER", "true");
    }
    add_options(&mut builder, options)?;
    builder.finish()
}

/// How a session gets its datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delivery {
    /// Where the bridge sends them; without it they come on the control socket.
    pub forward: Option<SocketAddr>,
    /// I2CP protocol of raw ones.
    pub protocol: Option<u8>,
    /// Raw ones come with a header line.
    pub header: bool,
}

/// `STREAM CONNECT`.
pub fn stream_connect(id: &str, target: &Target, ports: Ports, options: &[(String, String)]) -> Result<Command> {
    check_id(id)?;
    let mut builder = Builder::new("STREAM CONNECT").id(id).word("DESTINATION", target.wire());
    builder.ports(ports);
    add_options(&mut builder, options)?;
    builder.finish()
}

/// `STREAM ACCEPT`.
pub fn stream_accept(id: &str) -> Result<Command> {
    check_id(id)?;
    Builder::new("STREAM ACCEPT").id(id).finish()
}

/// `STREAM FORWARD` to `host`, which is always given: i2pd wants it, and by number. With `silent` no peer line comes.
pub fn stream_forward(id: &str, host: IpAddr, port: u16, silent: bool) -> Result<Command> {
    check_id(id)?;
    if port == 0 || host.is_unspecified() || host.is_multicast() {
        return Err(Error::invalid(format!("nobody can be reached at {}", SocketAddr::new(host, port))));
    }
    let mut builder =
        Builder::new("STREAM FORWARD").id(id).word("PORT", &port.to_string()).word("HOST", &host.to_string());
    if silent {
        builder.add("SILENT", "true");
    }
    builder.finish()
}

/// `DATAGRAM SEND` or `RAW SEND`, to be followed by `size` bytes.
pub fn datagram_send(style: &str, destination: &Address, size: usize, options: &SendOptions) -> Result<Command> {
    let mut builder = Builder::new(&format!("{style} SEND"))
        .word("DESTINATION", destination.base64())
        .word("SIZE", &size.to_string());
    for (key, value) in options.pairs() {
        builder.add(key, &value);
    }
    builder.finish()
}

/// The answer to a PING: `rest` is what followed the word PING, with its leading space.
pub fn pong(rest: &[u8]) -> Vec<u8> {
    [b"PONG", rest, b"\n"].concat()
}

fn add_options(builder: &mut Builder, options: &[(String, String)]) -> Result<()> {
    for (index, (key, value)) in options.iter().enumerate() {
        check_option(key, value)?;
        if options.iter().take(index).any(|(earlier, _)| earlier == key) {
            return Err(Error::invalid(format!("option {key} is given twice")));
        }
        builder.add(key, value);
    }
    Ok(())
}

/// Session ids are made by this library; this is the last gate.
fn check_id(id: &str) -> Result<()> {
    let good = (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
    if good {
        Ok(())
    } else {
        Err(Error::invalid("a session id is 1 to 64 of A-Z a-z 0-9 _ -"))
    }
}

/// Keys that mean something to SAM itself and therefore cannot be options.
const RESERVED: [&str; 21] = [
    "STYLE",
    "ID",
    "DESTINATION",
    "SIGNATURE_TYPE",
    "PORT",
    "HOST",
    "FROM_PORT",
    "TO_PORT",
    "PROTOCOL",
    "HEADER",
    "LISTEN_PORT",
    "LISTEN_PROTOCOL",
    "SILENT",
    "SSL",
    "SIZE",
    "NAME",
    "MIN",
    "MAX",
    "USER",
    "PASSWORD",
    "CRYPTO_TYPE",
];

/// Checks an I2CP option: a key of letters, digits, `_` and `.`, a value of printable ASCII without space, quote and
/// backslash (no bridge but Java's understands those).
pub fn check_option(key: &str, value: &str) -> Result<()> {
    let mut letters = key.bytes();
    let first = letters.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    if !first || key.len() > 128 || !letters.all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'.') {
        let key = line::excerpt(key.as_bytes(), 40);
        return Err(Error::invalid(format!("option key \"{key}\" is not 1 to 128 letters, digits, '_' and '.'")));
    }
    if RESERVED.contains(&key) {
        return Err(Error::invalid(format!("{key} belongs to the SAM protocol and cannot be set as an option")));
    }
    if value.is_empty() || !value.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\') {
        return Err(Error::invalid(format!(
            "the value of option {key} is empty or has a space, a quote, a backslash or a character that is not printable ASCII"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::version::Version;

    const RANGE: VersionRange = VersionRange { min: Version::V3_1, max: Version::V3_3 };

    fn text(command: Result<Command>) -> String {
        String::from_utf8(command.unwrap().bytes().to_vec()).unwrap()
    }

    #[test]
    fn hello_with_and_without_credentials() {
        assert_eq!(text(hello(RANGE, None)), "HELLO VERSION MIN=3.1 MAX=3.3\n");
        let credentials = Credentials::new("al\"ice", "p\\w d").unwrap();
        let command = hello(RANGE, Some(&credentials)).unwrap();
        assert!(!format!("{command:?}").contains("p\\"));
        assert_eq!(text(Ok(command)), "HELLO VERSION MIN=3.1 MAX=3.3 USER=\"al\\\"ice\" PASSWORD=\"p\\\\w d\"\n");
        for bad in ["", "a\nb", "a\0b", "a\u{2028}b", "\u{85}"] {
            assert!(Credentials::new(bad, "x").is_err());
            assert!(Credentials::new("x", bad).is_err());
        }
    }

    #[test]
    fn nothing_that_could_break_a_line_gets_into_one() {
        for bad in ["a b", "a\tb", "a\nb", "a\rb", "a\0b", "a\"b", "a\\b", "ä", ""] {
            assert!(check_option("i2cp.x", bad).is_err(), "{bad:?}");
            assert!(check_option(bad, "x").is_err(), "{bad:?}");
            assert!(stream_accept(bad).is_err(), "{bad:?}");
            assert!(stream_forward(bad, [127, 0, 0, 1].into(), 1, false).is_err(), "{bad:?}");
            assert!(naming_lookup(bad).is_err(), "{bad:?}");
        }
        for (host, port) in [([127, 0, 0, 1], 0), ([0, 0, 0, 0], 1), ([224, 0, 0, 1], 1)] {
            assert!(stream_forward("x", host.into(), port, false).is_err(), "{host:?}");
        }
        for key in ["a=b", "1a", ".a", "STYLE", "DESTINATION"] {
            assert!(check_option(key, "x").is_err(), "{key:?}");
        }
        assert!(check_option("i2cp.leaseSetEncType", "4,0").is_ok());
        let twice = [("a.b".to_owned(), "1".to_owned()), ("a.b".to_owned(), "2".to_owned())];
        let identity = Identity::Transient { signature_type: 7 };
        assert!(session_create("STREAM", "x", identity, Ports::default(), Delivery::default(), &twice).is_err());
        let long = [("a.b".to_owned(), "1".repeat(MAX_COMMAND))];
        assert!(session_create("STREAM", "x", identity, Ports::default(), Delivery::default(), &long).is_err());
    }

    #[test]
    fn the_exact_text_of_each_command() {
        let options = [("inbound.quantity".to_owned(), "3".to_owned())];
        let identity = Identity::Transient { signature_type: 7 };
        let ports = Ports { from: Some(1), to: Some(65535) };
        assert_eq!(
            text(session_create("STREAM", "abc", identity, ports, Delivery::default(), &options)),
            "SESSION CREATE STYLE=STREAM ID=abc DESTINATION=TRANSIENT SIGNATURE_TYPE=7 FROM_PORT=1 TO_PORT=65535 inbound.quantity=3\n"
        );
        let target = Target::parse("Example.i2p").unwrap();
        assert_eq!(
            text(stream_connect("abc", &target, Ports::default(), &[])),
            "STREAM CONNECT ID=abc DESTINATION=example.i2p\n"
        );
        assert_eq!(text(stream_accept("abc")), "STREAM ACCEPT ID=abc\n");
        let (v4, v6) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]));
        assert_eq!(text(stream_forward("abc", v4, 65535, false)), "STREAM FORWARD ID=abc PORT=65535 HOST=127.0.0.1\n");
        assert_eq!(text(stream_forward("abc", v6, 1, true)), "STREAM FORWARD ID=abc PORT=1 HOST=::1 SILENT=true\n");
        assert_eq!(text(dest_generate(7)), "DEST GENERATE SIGNATURE_TYPE=7\n");
        assert_eq!(text(naming_lookup("ME")), "NAMING LOOKUP NAME=ME\n");
        assert_eq!(pong(b" 1 \"2"), b"PONG 1 \"2\n");
    }

    #[test]
    fn the_longest_line_is_the_longest_line() {
        let fill = |n: usize| {
            let options = [("a.b".to_owned(), "1".repeat(n))];
            session_create(
                "STREAM",
                "x",
                Identity::Transient { signature_type: 7 },
                Ports::default(),
                Delivery::default(),
                &options,
            )
        };
        let empty = fill(1).unwrap().bytes().len() - 1;
        assert_eq!(fill(MAX_COMMAND + 1 - empty).unwrap().bytes().len(), MAX_COMMAND + 1);
        assert!(fill(MAX_COMMAND + 2 - empty).is_err());
    }
}
