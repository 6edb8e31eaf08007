//! The state machine of a connection to the bridge: HELLO, its reply, one command, its reply and, for an accept, the
//! peer line.
//!
//! Feed bytes to [`Handshake::input`] in whatever pieces they arrive. Once payload may follow, it consumes only the
//! header: the rest belongs to the program.

use crate::error::{Error, Operation, Result, Status};
use crate::identity::Target;
use crate::protocol::command::{self, Command};
use crate::protocol::credentials::Credentials;
use crate::protocol::hidden::Hidden;
use crate::protocol::line::{self, Fields, Line, MAX_LINE};
use crate::protocol::outbox::Outbox;
use crate::protocol::partial_line::{PartialLine, TooLong};
use crate::protocol::reply::{self, ResultCode};
use crate::protocol::request::{Outcome, Request};
use crate::protocol::style;
use crate::protocol::trace::Trace;
use crate::protocol::version::{Version, VersionRange};
use crate::secret::Secret;

/// Bytes of PONGs that a bridge may leave unread before we treat it as hostile.
const MAX_UNSENT: usize = 2 * MAX_LINE;

/// What may be wrong when HELLO is not answered in time.
pub const NO_ANSWER: &str = ": is this a SAM bridge, and does it expect TLS or a user and password?";

/// What the conversation is waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The answer to HELLO.
    Hello,
    /// The answer to the request.
    Reply,
    /// The line that announces the peer of an accept.
    Peer,
    /// Nothing: the conversation is over.
    Done,
}

/// The conversation on one connection, up to the point where it becomes a stream or a session or is closed.
pub struct Handshake {
    request: Request,
    range: VersionRange,
    phase: Phase,
    version: Option<Version>,
    partial: PartialLine,
    output: Outbox,
    /// Number of bytes still to be written before the request is out.
    request_left: usize,
    fields: Option<Fields>,
    outcome: Option<Outcome>,
    hidden: Hidden,
    /// Whether the bridge has closed the connection between two lines.
    ended_silently: bool,
    /// The conversation so far, for the log.
    pub trace: Trace,
}

impl Handshake {
    /// Prepares a conversation. Builds the request once, so that invalid arguments fail before anything is sent.
    pub fn new(request: Request, range: VersionRange, credentials: Option<&Credentials>) -> Result<Self> {
        request.command(range.max)?;
        let mut handshake = Handshake {
            hidden: request.hidden(),
            request,
            range,
            phase: Phase::Hello,
            version: None,
            partial: PartialLine::default(),
            output: Outbox::default(),
            request_left: 0,
            fields: None,
            outcome: None,
            ended_silently: false,
            // HELLO is built here, before the owner can say whether there is a log hook.
            trace: Trace::collecting(),
        };
        handshake.send(&command::hello(range, credentials)?);
        Ok(handshake)
    }

    /// Starts over on a new connection, asking for a different version range.
    pub fn restart(&mut self, range: VersionRange, credentials: Option<&Credentials>) -> Result<()> {
        self.range = range;
        self.phase = Phase::Hello;
        self.version = None;
        drop(self.partial.take());
        self.output.clear();
        self.send(&command::hello(range, credentials)?);
        Ok(())
    }

    /// The version range last asked for.
    pub fn range(&self) -> VersionRange {
        self.range
    }

    /// Bytes to write with one call; report how many were written to [`Handshake::wrote`].
    pub fn output(&self) -> &[u8] {
        self.output.front()
    }

    /// Records that the first `count` bytes of the output were written.
    pub fn wrote(&mut self, count: usize) {
        self.request_left = self.request_left.saturating_sub(count.min(self.output.front().len()));
        self.output.wrote(count);
    }

    /// Takes what is left to write, for the next owner of the connection.
    pub fn take_output(&mut self) -> Outbox {
        std::mem::take(&mut self.output)
    }

    /// Takes what the next owner of the connection must not show either.
    pub fn take_hidden(&mut self) -> Hidden {
        std::mem::take(&mut self.hidden)
    }

    /// What the conversation is waiting for.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether the bridge has closed the connection between two lines.
    pub fn ended_silently(&self) -> bool {
        self.ended_silently
    }

    /// The request this connection was opened for.
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// Whether the whole request was written, so that the bridge may already be acting on it.
    pub fn is_asked(&self) -> bool {
        matches!(self.phase, Phase::Reply | Phase::Peer) && self.request_left == 0
    }

    /// Whether bytes after the awaited line may be payload, which must stay in the kernel.
    pub fn must_read_exactly(&self) -> bool {
        self.phase != Phase::Hello && matches!(self.request, Request::Connect { .. } | Request::Accept { .. })
    }

    /// The version the bridge agreed to, once it has answered HELLO.
    pub fn version(&self) -> Option<Version> {
        self.version
    }

    /// Takes the last reply out, without private keys.
    pub fn take_reply(&mut self) -> Option<Fields> {
        self.fields.take()
    }

    /// The last reply, without private keys.
    pub fn reply(&self) -> Option<&Fields> {
        self.fields.as_ref()
    }

    /// Takes the result; there is one once the phase is [`Phase::Done`].
    pub fn take_outcome(&mut self) -> Option<Outcome> {
        self.outcome.take()
    }

    fn send(&mut self, command: &Command) {
        self.trace.add(|| format!("-> {}", command.redacted()));
        self.output.push(Secret::from_slice(command.bytes()));
        self.request_left = self.output.unsent();
    }

    /// Processes bytes from the bridge and returns how many of them belong to the header. The rest, if any, is payload.
    pub fn input(&mut self, bytes: &[u8]) -> Result<usize> {
        let mut taken = 0;
        while self.phase != Phase::Done && taken < bytes.len() {
            let rest = bytes.get(taken..).unwrap_or_default();
            if self.partial.is_empty() && self.phase == Phase::Hello {
                self.check_greeting(rest)?;
            }
            let (more, line) =
                self.partial.input(rest).map_err(|TooLong| self.not_understood("the line is too long"))?;
            taken += more;
            if let Some(line) = line {
                self.line(line.as_bytes())?;
            }
        }
        Ok(taken)
    }

    /// The bridge has closed the connection; returns the error that this amounts to.
    pub fn eof(&mut self) -> Error {
        self.ended(false)
    }

    /// The connection broke off, which no router does in answer to a request; otherwise as [`Handshake::eof`].
    pub fn reset(&mut self) -> Error {
        self.ended(true)
    }

    fn ended(&mut self, by_reset: bool) -> Error {
        let line = self.partial.take();
        self.ended_silently = line.is_empty();
        // Some bridges omit the last line feed of an error. A success without one does not count.
        let words = line.as_bytes().split(|b| *b == b' ').filter(|word| !word.is_empty()).count();
        if words >= 2 {
            match self.line(line.as_bytes()) {
                // An unknown token right at the end may be a truncated known one.
                Err(error) if !is_cut(line.as_bytes(), &error.tag) => error,
                _ => {
                    self.outcome = None;
                    self.closed_early(false, by_reset)
                }
            }
        } else {
            self.closed_early(line.is_empty(), by_reset)
        }
    }

    fn closed_early(&self, silent: bool, by_reset: bool) -> Error {
        match (self.phase, silent) {
            (_, false) => self.protocol("the bridge closed the connection in the middle of a reply"),
            (Phase::Hello, _) => self.protocol(
                "the connection was closed without an answer to HELLO: \
                 this is no SAM bridge, or it expects TLS or a user and password",
            ),
            (Phase::Peer, _) => self.protocol("the bridge closed the connection while waiting for a peer"),
            (Phase::Reply, _) if matches!(self.request, Request::Create { .. }) => self.went_away(by_reset),
            _ => self.protocol(
                "the bridge closed the connection without an answer: \
                 it does not know the session, or does not support what was asked",
            ),
        }
    }

    /// No answer to SESSION CREATE: the router was stopped, or it is one that says nothing to what it does not know
    /// (emissary, which closes the connection in the end).
    fn went_away(&self, by_reset: bool) -> Error {
        let create = Operation::Create;
        let closed = "the router closed the connection while it was building tunnels";
        match self.request.unusual_style().filter(|_| !by_reset) {
            Some(style) => Error::new(Status::Unsupported, create, format!("{closed}: {}", style::unknown(style))),
            None if by_reset => Error::closed(create, "the router went away while it was building tunnels"),
            None if self.request.is_in_band() => Error::closed(
                create,
                format!(
                    "{closed}: it was stopped, or it does not deliver datagrams on the control socket (emissary does \
                     not); then open the destination without option in_band"
                ),
            ),
            None => Error::closed(create, format!("{closed}: it was stopped, or does not support what was asked")),
        }
    }

    fn protocol(&self, message: impl Into<String>) -> Error {
        let operation = if self.phase == Phase::Hello { Operation::Handshake } else { self.request.operation() };
        Error::protocol(operation, message)
    }

    /// Rejects, by the first bytes, what is certainly not a SAM bridge, so that we need not wait for the end of a line.
    fn check_greeting(&self, start: &[u8]) -> Result<()> {
        match start {
            [0x15, 3, ..] | [0x15] => {
                Err(self.protocol("the bridge answered in TLS: its SAM port expects TLS, which is not supported here"))
            }
            [first, ..] if !first.is_ascii_alphabetic() && *first != b'\n' => {
                Err(self.not_understood("not a reply line"))
            }
            _ => Ok(()),
        }
    }

    fn not_understood(&self, why: &str) -> Error {
        if self.phase == Phase::Hello {
            let start = line::excerpt(self.partial.as_bytes(), 40);
            let shown = if start.is_empty() { String::new() } else { format!(": it says \"{start}\"") };
            return self.protocol(format!("this is no SAM bridge ({why}){shown}"));
        }
        self.protocol(format!("the bridge sent a line that cannot be understood: {why}"))
    }

    fn line(&mut self, line: &[u8]) -> Result<()> {
        // A destination may start with the same letters, but is not followed by a space there.
        let words_of_sam = [&b"STREAM "[..], b"SESSION ", b"PING ", b"PONG "].iter().any(|word| line.starts_with(word));
        if self.phase == Phase::Peer && !words_of_sam && !matches!(line, b"PING" | b"PONG") {
            return self.peer(line);
        }
        match line::parse_without(&self.hidden, line) {
            Ok(Line::Ping(text)) => self.ping(text.as_bytes()),
            Ok(Line::Pong) => Ok(()),
            Ok(Line::Reply(fields)) => self.reply_line(fields),
            // Ignore empty lines between replies.
            Err(_) if line.is_empty() || line == b"\r" => Ok(()),
            Err(_) if self.phase == Phase::Hello => {
                let start = line::excerpt(line, 40);
                Err(self.protocol(format!("this is no SAM bridge: it says \"{start}\"")))
            }
            Err(malformed) => Err(self.not_understood(malformed.0)),
        }
    }

    fn ping(&mut self, text: &[u8]) -> Result<()> {
        if self.output.unsent() + text.len() > MAX_UNSENT {
            return Err(self.protocol("the bridge sends PINGs and does not read the answers"));
        }
        self.output.push(command::pong(text));
        Ok(())
    }

    fn reply_line(&mut self, mut fields: Fields) -> Result<()> {
        self.trace.add(|| format!("<- {}", fields.redacted()));
        let (topic, action) = if self.phase == Phase::Hello { ("HELLO", "REPLY") } else { self.request.expected() };
        let code = reply::result_of(&fields);
        let proper = fields.topic() == topic && fields.action() == action;
        if self.phase == Phase::Hello && !proper && fields.topic() != "SESSION" && fields.topic() != "HELLO" {
            let start = line::excerpt(format!("{} {}", fields.topic(), fields.action()).as_bytes(), 40);
            return Err(self.protocol(format!("this is no SAM bridge: it says \"{start}\"")));
        }
        if self.phase == Phase::Reply && self.request_left > 0 {
            return Err(self.protocol("the bridge answered before it was asked"));
        }
        let result = match code {
            Some(ResultCode::Other(text)) if text.is_empty() => {
                Err(self.protocol(format!("{topic} {action} has an empty RESULT")))
            }
            // Errors may come with any topic (i2pd: SESSION for a stream; go-bridge: no action).
            Some(code) if code != ResultCode::Ok => Err(self.refused(&code, &fields)),
            _ if !proper => {
                let shown = line::excerpt(format!("{} {}", fields.topic(), fields.action()).as_bytes(), 40);
                Err(self.protocol(format!("the bridge answered \"{shown}\" where {topic} {action} was due")))
            }
            // A successful DEST REPLY has no RESULT; everything else must say OK.
            None if topic != "DEST" => Err(self.protocol(format!("{topic} {action} has no RESULT"))),
            _ => self.success(&mut fields),
        };
        self.fields = Some(fields);
        result
    }

    fn refused(&self, code: &ResultCode, fields: &Fields) -> Error {
        if self.phase != Phase::Hello {
            let error = reply::refusal(self.request.operation(), code, fields);
            if let Request::Connect {
                target: target @ (Target::Host(_) | Target::B32 { .. } | Target::B33(_)), ..
            } = &self.request
            {
                return reply::of_name(error, code, fields, target.wire());
            }
            if let (Request::Create { style, .. }, true) = (&self.request, reply::is_about_style(fields)) {
                let message = format!("{} ({})", error.message, style::unknown(style));
                return Error { status: Status::Unsupported, ..error.saying(message) };
            }
            return error;
        }
        let mut error = reply::refusal(Operation::Handshake, code, fields);
        error.message = match code {
            ResultCode::NoVersion => {
                format!("the bridge speaks no SAM version from {} to {}", self.range.min, self.range.max)
            }
            _ => format!("the bridge refused us (is a user and password needed, or wrong?): {}", error.message),
        };
        error
    }

    fn success(&mut self, fields: &mut Fields) -> Result<()> {
        match self.phase {
            Phase::Hello => {
                let version = reply::hello(fields, self.range)?;
                self.version = Some(version);
                match self.request.command(version)? {
                    None => self.finish(Outcome::Checked),
                    Some(command) => {
                        self.phase = Phase::Reply;
                        self.send(&command);
                    }
                }
            }
            Phase::Reply => match self.request.outcome(fields)? {
                None => self.phase = Phase::Peer,
                Some(outcome) => self.finish(outcome),
            },
            // A second OK carries no information.
            Phase::Peer | Phase::Done => {}
        }
        Ok(())
    }

    fn peer(&mut self, line: &[u8]) -> Result<()> {
        let peer = reply::peer(line)?;
        self.trace.add(|| format!("<- stream from {}", peer.address.host()));
        self.finish(Outcome::Accepted(peer));
        Ok(())
    }

    fn finish(&mut self, outcome: Outcome) {
        if matches!(outcome, Outcome::Connected | Outcome::Accepted(_)) {
            // From here on everything we write is payload: the peer would read a PONG.
            self.output.clear();
        }
        self.outcome = Some(outcome);
        self.phase = Phase::Done;
    }
}

fn is_cut(line: &[u8], tag: &str) -> bool {
    matches!(ResultCode::parse(tag), ResultCode::Other(_)) && !tag.is_empty() && line.ends_with(tag.as_bytes())
}
