//! Interprets replies: RESULT values as an open set, and the typed content of each kind of reply.

use crate::error::{Error, Operation, Result, Status};
use crate::identity::Address;
use crate::protocol::line::{self, Fields};
use crate::protocol::version::{Version, VersionRange};
use crate::secret::Secret;

/// RESULT of a reply. The set is open: unlisted values are kept verbatim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResultCode {
    /// The request succeeded.
    Ok,
    /// HELLO: there is no common version.
    NoVersion,
    /// Any failure without a more specific code.
    I2pError,
    /// SESSION: the id is already in use.
    DuplicatedId,
    /// SESSION: the destination is already in use.
    DuplicatedDest,
    /// A destination or private key is malformed.
    InvalidKey,
    /// STREAM: the session id is unknown.
    InvalidId,
    /// STREAM: the peer cannot be reached.
    CantReachPeer,
    /// STREAM: there is no such peer.
    PeerNotFound,
    /// STREAM: the peer refused (Java).
    ConnectionRefused,
    /// STREAM: the router's own timeout expired.
    Timeout,
    /// STREAM ACCEPT: another accept is pending on this session.
    AlreadyAccepting,
    /// NAMING: the name is unknown.
    KeyNotFound,
    /// NAMING with options: no lease set was found.
    LeasesetNotFound,
    /// Anything else, verbatim.
    Other(String),
}

/// Every known RESULT: its token on the wire and its meaning. The first token of a meaning is the specification's
/// spelling.
const CODES: [(&str, ResultCode); 16] = [
    ("OK", ResultCode::Ok),
    ("NOVERSION", ResultCode::NoVersion),
    ("I2P_ERROR", ResultCode::I2pError),
    ("DUPLICATED_ID", ResultCode::DuplicatedId),
    ("DUPLICATED_DEST", ResultCode::DuplicatedDest),
    ("INVALID_KEY", ResultCode::InvalidKey),
    ("INVALID_ID", ResultCode::InvalidId),
    ("CANT_REACH_PEER", ResultCode::CantReachPeer),
    ("PEER_NOT_FOUND", ResultCode::PeerNotFound),
    ("CONNECTION_REFUSED", ResultCode::ConnectionRefused),
    ("TIMEOUT", ResultCode::Timeout),
    ("ALREADY_ACCEPTING", ResultCode::AlreadyAccepting),
    ("KEY_NOT_FOUND", ResultCode::KeyNotFound),
    ("LEASESET_NOT_FOUND", ResultCode::LeasesetNotFound),
    // emissary's spellings
    ("DUPLICATE_ID", ResultCode::DuplicatedId),
    ("DUPLICATE_DEST", ResultCode::DuplicatedDest),
];

impl ResultCode {
    /// Parses a token; unknown ones become [`ResultCode::Other`].
    pub fn parse(token: &str) -> Self {
        let known = CODES.iter().find(|(text, _)| *text == token);
        known.map_or_else(|| ResultCode::Other(token.to_owned()), |(_, code)| code.clone())
    }

    /// The token in the specification's spelling.
    pub fn token(&self) -> &str {
        match self {
            ResultCode::Other(text) => text,
            known => CODES.iter().find(|(_, code)| code == known).map_or("", |(text, _)| text),
        }
    }
}

/// The RESULT of `fields`, if it has one.
pub fn result_of(fields: &Fields) -> Option<ResultCode> {
    fields.get("RESULT").map(ResultCode::parse)
}

/// The error for a reply whose RESULT is not OK.
pub fn refusal(operation: Operation, code: &ResultCode, fields: &Fields) -> Error {
    let text = line::excerpt(fields.get("MESSAGE").unwrap_or_default().as_bytes(), 400);
    let verbatim = line::excerpt(fields.get("RESULT").unwrap_or_default().as_bytes(), 100);
    let mut error = Error::network(operation, &verbatim, &text);
    error.tag = line::excerpt(code.token().as_bytes(), 100);
    if operation == Operation::Accept && is_about_others(fields) {
        error.tag = ResultCode::AlreadyAccepting.token().to_owned();
    }
    if operation == Operation::Lookup {
        let name = line::excerpt(fields.get("NAME").unwrap_or("this name").as_bytes(), 100);
        return of_name(error, code, fields, &name);
    }
    error
}

/// What a refusal means if the command had `name` in it, and not a whole destination. i2pd and Java I2P answer INVALID_KEY
/// for names they do not know, Java also for a b32 address whose lease set is not there now. Our names are well-formed,
/// so this means the same as KEY_NOT_FOUND.
pub fn of_name(error: Error, code: &ResultCode, fields: &Fields, name: &str) -> Error {
    if !matches!(code, ResultCode::InvalidKey | ResultCode::KeyNotFound) {
        return error;
    }
    let verbatim = line::excerpt(fields.get("RESULT").unwrap_or_default().as_bytes(), 100);
    let message = match line::excerpt(fields.get("MESSAGE").unwrap_or_default().as_bytes(), 400) {
        text if text.is_empty() => format!("the router does not know {name} ({verbatim})"),
        text => format!("the router does not find {name} ({verbatim}: {text})"),
    };
    Error { tag: ResultCode::KeyNotFound.token().to_owned(), ..error.saying(message) }
}

/// Whether a refusal means that the router does not know the style of a session. There is no RESULT for that: i2pd says
/// I2P_ERROR and "Unknown STYLE", Java I2P "Unrecognized SESSION STYLE".
pub fn is_about_style(fields: &Fields) -> bool {
    let text = fields.get("MESSAGE").unwrap_or_default().to_ascii_lowercase();
    let no = ["unknown", "unrecognized", "unsupported", "not supported"];
    text.contains("style") && no.iter().any(|word| text.contains(word))
}

/// Whether a refusal means that the session has an accept or a forward already: i2pd says I2P_ERROR and "Already
/// accepting", Java I2P "a forwarding server is already defined".
fn is_about_others(fields: &Fields) -> bool {
    let text = fields.get("MESSAGE").unwrap_or_default().to_ascii_lowercase();
    ["already accepting", "server is already defined"].iter().any(|words| text.contains(words))
}

/// The version in a successful HELLO REPLY, if it is in `range`.
pub fn hello(fields: &Fields, range: VersionRange) -> Result<Version> {
    let operation = Operation::Handshake;
    let Some(version) = fields.get("VERSION").and_then(Version::parse) else {
        return Err(Error::protocol(operation, "the bridge's HELLO REPLY names no version"));
    };
    if range.allows(version) {
        return Ok(version);
    }
    let (min, max) = (range.min, range.max);
    let message = format!("the bridge speaks SAM {version}; {min} to {max} was asked for");
    Err(Error { tag: ResultCode::NoVersion.token().to_owned(), ..Error::new(Status::Network, operation, message) })
}

/// The private keys in a successful SESSION STATUS.
pub fn session(fields: &mut Fields) -> Result<Secret> {
    fields
        .take_private("DESTINATION")
        .filter(|keys| !keys.as_bytes().is_empty())
        .ok_or_else(|| Error::protocol(Operation::Create, "SESSION STATUS has no DESTINATION"))
}

/// The private keys in a successful DEST REPLY.
pub fn dest(fields: &mut Fields) -> Result<Secret> {
    fields
        .take_private("PRIV")
        .filter(|keys| !keys.as_bytes().is_empty())
        .ok_or_else(|| Error::protocol(Operation::Generate, "DEST REPLY has no PRIV"))
}

/// The answer in a NAMING REPLY.
pub fn lookup(fields: &Fields) -> Result<Address> {
    match result_of(fields) {
        None => Err(Error::protocol(Operation::Lookup, "NAMING REPLY has no RESULT")),
        Some(ResultCode::Ok) => naming(fields),
        Some(ResultCode::Other(text)) if text.is_empty() => {
            Err(Error::protocol(Operation::Lookup, "NAMING REPLY has an empty RESULT"))
        }
        Some(code) => Err(refusal(Operation::Lookup, &code, fields)),
    }
}

/// The destination in a successful NAMING REPLY.
pub fn naming(fields: &Fields) -> Result<Address> {
    let bad = |why: &str| Error::protocol(Operation::Lookup, format!("NAMING REPLY has no usable VALUE{why}"));
    let value = fields.get("VALUE").ok_or_else(|| bad(""))?;
    Address::parse(value).map_err(|error| bad(&format!(": {}", error.message)))
}

/// The peer of an accepted stream, from the line in front of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The peer's destination, verified by the router.
    pub address: Address,
    /// Port the peer connected from, if the router sends it.
    pub from_port: Option<u16>,
    /// Port the peer connected to, if the router sends it.
    pub to_port: Option<u16>,
}

/// Parses the line in front of an accepted stream: `$destination[ FROM_PORT=n TO_PORT=n]`.
pub fn peer(line: &[u8]) -> Result<Peer> {
    let bad = |why: &str| {
        let shown = line::excerpt(line, 120);
        Error::protocol(Operation::Accept, format!("the bridge announced a peer by \"{shown}\": {why}"))
    };
    let line = line.trim_ascii_start();
    let end = line.iter().position(|b| matches!(b, b' ' | b'\t' | b'\r')).unwrap_or(line.len());
    let (token, rest) = line.split_at(end);
    let token = std::str::from_utf8(token).map_err(|_| bad("not text"))?;
    let address = Address::parse(token).map_err(|error| bad(&error.message))?;
    let fields = line::parse_pairs(rest).map_err(|malformed| bad(malformed.0))?;
    let port = |key| match fields.get(key) {
        None => Ok(None),
        Some(text) => number(text).map(Some).ok_or_else(|| bad("a port is not a number")),
    };
    Ok(Peer { from_port: port("FROM_PORT")?, to_port: port("TO_PORT")?, address })
}

/// Parses a number from 0 to 65535 in plain digits.
pub fn number(text: &str) -> Option<u16> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::line::{parse, Line};

    fn fields(text: &str) -> Fields {
        match parse(text.as_bytes()).unwrap() {
            Line::Reply(fields) => fields,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn aliases_and_unknown_results() {
        assert_eq!(ResultCode::parse("DUPLICATE_ID"), ResultCode::DuplicatedId);
        assert_eq!(ResultCode::parse("DUPLICATE_DEST").token(), "DUPLICATED_DEST");
        assert_eq!(ResultCode::parse("ok").token(), "ok");
        for (token, code) in CODES.iter().take(14) {
            assert_eq!(code.token(), *token);
            assert_eq!(ResultCode::parse(token), *code);
        }
    }

    #[test]
    fn refusals_carry_tag_and_text() {
        let f = fields("SESSION STATUS RESULT=DUPLICATE_DEST MESSAGE=\"in use\"");
        let error = refusal(Operation::Create, &result_of(&f).unwrap(), &f);
        assert_eq!((error.status, error.tag.as_str()), (Status::Network, "DUPLICATED_DEST"));
        assert!(error.message.contains("DUPLICATE_DEST: in use"));
        let f = fields("NAMING REPLY RESULT=INVALID_KEY NAME=x.i2p");
        let error = refusal(Operation::Lookup, &result_of(&f).unwrap(), &f);
        assert_eq!(
            (error.tag.as_str(), error.message.as_str()),
            ("KEY_NOT_FOUND", "the router does not know x.i2p (INVALID_KEY)")
        );
        let f = fields("STREAM STATUS RESULT=INVALID_KEY MESSAGE=\"Lease set not found: x\"");
        let error = refusal(Operation::Connect, &ResultCode::InvalidKey, &f);
        assert_eq!(error.tag, "INVALID_KEY");
        let error = of_name(error, &ResultCode::InvalidKey, &f, "y.b32.i2p");
        assert_eq!(
            (error.status, error.operation, error.tag.as_str()),
            (Status::Network, Operation::Connect, "KEY_NOT_FOUND")
        );
        assert_eq!(error.message, "the router does not find y.b32.i2p (INVALID_KEY: Lease set not found: x)");
        let f = fields("STREAM STATUS RESULT=CANT_REACH_PEER");
        let error = refusal(Operation::Connect, &ResultCode::CantReachPeer, &f);
        assert_eq!(of_name(error.clone(), &ResultCode::CantReachPeer, &f, "y.i2p"), error);
    }

    #[test]
    fn an_accept_that_is_in_the_way_is_known_by_its_words() {
        for (words, tag) in [
            ("Already accepting", "ALREADY_ACCEPTING"),
            ("a forwarding server is already defined for this destination", "ALREADY_ACCEPTING"),
            ("Session was closed", "I2P_ERROR"),
        ] {
            let f = fields(&format!("STREAM STATUS RESULT=I2P_ERROR MESSAGE=\"{words}\""));
            let error = refusal(Operation::Accept, &ResultCode::I2pError, &f);
            assert_eq!((error.tag.as_str(), error.message.contains(words)), (tag, true));
            assert_eq!(refusal(Operation::Connect, &ResultCode::I2pError, &f).tag, "I2P_ERROR");
        }
    }

    #[test]
    fn versions_outside_the_range_are_refused() {
        let range = VersionRange { min: Version::V3_1, max: Version::V3_2 };
        for (text, good) in
            [("3.1", true), ("3.2", true), ("3.3", false), ("3.0", false), ("4.1", false), ("0.3", false)]
        {
            let f = fields(&format!("HELLO REPLY RESULT=OK VERSION={text}"));
            assert_eq!(hello(&f, range).is_ok(), good, "{text}");
        }
        for text in ["3", "3.x", "3.", ".1", "3.99999999999", "3.+1", "3.-1", "3. 1"] {
            assert!(Version::parse(text).is_none(), "{text}");
        }
    }
}
