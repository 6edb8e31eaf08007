//! The conversation on a session's control socket once the session exists: PINGs, one command at a time, and
//! unsolicited messages from the bridge. The socket of a forward works the same, without commands.

use std::collections::VecDeque;

use crate::error::{Error, Operation, Result, Status};
use crate::identity::Address;
use crate::protocol::command::{self, Command};
use crate::protocol::hidden::Hidden;
use crate::protocol::line::{self, Fields, Line, MAX_LINE};
use crate::protocol::outbox::Outbox;
use crate::protocol::partial_line::{PartialLine, TooLong};
use crate::protocol::reply::{self, ResultCode};
use crate::protocol::request;
use crate::protocol::trace::Trace;
use crate::secret::Secret;

/// Bytes of PONGs that a bridge may leave unread before we treat it as hostile.
const MAX_UNSENT: usize = 2 * MAX_LINE;

/// What a message from the bridge means for the session.
#[derive(Debug)]
pub enum Event {
    /// The lookup with this number was answered.
    Found(u64, Answer),
    /// The bridge does not know the session any more.
    Forgotten(Error),
    /// A datagram, in the form its UDP packet would have had.
    Datagram(Vec<u8>),
}

/// Largest datagram accepted on the control socket.
const MAX_IN_BAND: usize = 65536;

/// Largest datagram skipped rather than treated as an error: no router sends larger ones, and skipping must end some
/// time.
const MAX_SKIPPED: usize = 1 << 20;

/// A datagram whose payload is still arriving.
struct Arriving {
    packet: Vec<u8>,
    left: usize,
    /// Too large: its bytes are discarded.
    skipped: bool,
}

/// The answer to a lookup.
#[derive(Debug)]
pub struct Answer {
    /// The destination, or why the lookup failed.
    pub result: Result<Address>,
    /// The reply itself; `None` if the session ended instead or the reply was malformed.
    pub fields: Option<Fields>,
}

/// Protocol state of one control socket.
#[derive(Default)]
pub struct Control {
    partial: PartialLine,
    output: Outbox,
    waiting: VecDeque<Lookup>,
    /// The command on the wire. It stays here even after it is cancelled, so that its late reply is not mistaken for
    /// the reply to the next command.
    asked: Option<Lookup>,
    /// The conversation so far, for the log.
    pub trace: Trace,
    pongs: u64,
    arriving: Option<Arriving>,
    skipped: u64,
    /// The end as the bridge announced it, until it sends anything else.
    announced: Option<Error>,
    /// It is the socket of a forward, which belongs to streams.
    is_forward: bool,
    /// The address of the session.
    own: Option<Address>,
    hidden: Hidden,
}

struct Lookup {
    number: u64,
    name: String,
    /// Whether anybody is still waiting for the answer.
    wanted: bool,
}

/// The lookup on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asking {
    /// [`LIFE`] if it asks for a sign of life.
    pub number: u64,
    /// Whether anybody is still waiting for the answer.
    pub wanted: bool,
}

/// Number of the lookup that asks for a sign of life; its answer makes no event.
pub const LIFE: u64 = 0;

impl Control {
    /// Continues a session's conversation with these bytes still to be written.
    pub fn with_output(output: Outbox) -> Self {
        Control { output, ..Control::default() }
    }

    /// The session is that of the destination `own`: a router that says otherwise has lost it.
    #[must_use]
    pub fn of(self, own: Address) -> Self {
        Control { own: Some(own), ..self }
    }

    /// Continues the conversation on the socket of a forward.
    pub fn of_forward(output: Outbox) -> Self {
        Control { output, is_forward: true, ..Control::default() }
    }

    /// The bridge was told what is `hidden`: it is not shown if it comes back.
    #[must_use]
    pub fn hiding(self, hidden: Hidden) -> Self {
        Control { hidden, ..self }
    }

    /// Queues a lookup; `name` is in its wire form.
    pub fn lookup(&mut self, number: u64, name: &str) -> Result<()> {
        command::naming_lookup(name)?;
        self.waiting.push_back(Lookup { number, name: name.to_owned(), wanted: true });
        self.next()
    }

    /// Whether no lookup is queued or unanswered, be it cancelled or not.
    pub fn is_idle(&self) -> bool {
        self.asked.is_none() && self.waiting.is_empty()
    }

    /// Cancels a lookup. If it is not on the wire yet, it is dropped.
    pub fn forget(&mut self, number: u64) {
        self.waiting.retain(|lookup| lookup.number != number);
        if let Some(asked) = self.asked.as_mut().filter(|asked| asked.number == number) {
            asked.wanted = false;
        }
    }

    /// Asks for a sign of life: a lookup that every router answers at once. Nothing else may be on the wire.
    pub fn ask_for_life(&mut self) -> Result<()> {
        self.lookup(LIFE, "ME")
    }

    /// The lookup on the wire.
    pub fn asking(&self) -> Option<Asking> {
        self.asked.as_ref().map(|asked| Asking { number: asked.number, wanted: asked.wanted })
    }

    /// The end of the session or the forward, if that is the last thing the bridge has said.
    pub fn announced(&self) -> Option<&Error> {
        self.announced.as_ref()
    }

    /// Bytes to write with one call; empty if there are none.
    pub fn output(&self) -> &[u8] {
        self.output.front()
    }

    /// Records that the first `count` bytes of the output were written.
    pub fn wrote(&mut self, count: usize) {
        self.output.wrote(count);
    }

    /// Number of bytes waiting to be written.
    pub fn unsent(&self) -> usize {
        self.output.unsent()
    }

    /// Queues a datagram; no reply will come.
    pub fn send_datagram(&mut self, command: &Command, payload: &[u8]) {
        self.trace.add(|| format!("-> {}", command.redacted()));
        self.output.push(Secret::from_vec([command.bytes(), payload].concat()));
    }

    /// How many datagrams were skipped for being too large.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// How many PINGs were answered.
    pub fn pongs(&self) -> u64 {
        self.pongs
    }

    /// Processes bytes from the bridge. After an error the connection is unusable.
    pub fn input(&mut self, bytes: &[u8], events: &mut Vec<Event>) -> Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            if let Some(after) = self.payload(rest, events) {
                rest = after;
                continue;
            }
            let too_long = |TooLong| Error::protocol(Operation::Session, "a line on the control socket is too long");
            let (taken, line) = self.partial.input(rest).map_err(too_long)?;
            rest = rest.get(taken..).unwrap_or_default();
            if let Some(line) = line {
                self.line(line.as_bytes(), events)?;
            }
        }
        Ok(())
    }

    /// Takes payload of the arriving datagram from the front of `bytes` and returns the rest; `None` if no payload is
    /// due.
    fn payload<'a>(&mut self, bytes: &'a [u8], events: &mut Vec<Event>) -> Option<&'a [u8]> {
        let arriving = self.arriving.as_mut()?;
        let (part, rest) = bytes.split_at(arriving.left.min(bytes.len()));
        arriving.left -= part.len();
        if !arriving.skipped {
            arriving.packet.extend_from_slice(part);
        }
        if let Some(done) = self.arriving.take_if(|arriving| arriving.left == 0) {
            if !done.skipped {
                events.push(Event::Datagram(done.packet));
            }
        }
        Some(rest)
    }

    /// Handles `DATAGRAM RECEIVED` or `RAW RECEIVED`; the payload follows.
    fn received(&mut self, fields: &Fields, events: &mut Vec<Event>) -> Result<()> {
        let lost = || Error::protocol(Operation::Session, "the bridge announced a datagram without a usable SIZE");
        let digits = fields.get("SIZE").filter(|size| size.bytes().all(|b| b.is_ascii_digit()));
        let left: usize =
            digits.and_then(|size| size.parse().ok()).filter(|size| *size <= MAX_SKIPPED).ok_or_else(lost)?;
        let skipped = left > MAX_IN_BAND;
        self.skipped += u64::from(skipped);
        // A raw datagram without ports still gets a header line, a single blank.
        let mut packet = fields.get("DESTINATION").unwrap_or_default().to_owned();
        for key in ["FROM_PORT", "TO_PORT", "PROTOCOL"] {
            if let Some(value) = fields.get(key) {
                packet.push_str(&format!(" {key}={value}"));
            }
        }
        if packet.is_empty() {
            packet.push(' ');
        }
        packet.push('\n');
        self.arriving = Some(Arriving { packet: packet.into_bytes(), left, skipped });
        // An empty datagram is already complete.
        if left == 0 {
            self.payload(&[], events);
        }
        Ok(())
    }

    /// The bridge has closed the connection. The owner must notify those still waiting for lookups.
    pub fn eof(&mut self, events: &mut Vec<Event>) {
        let line = self.partial.take();
        // Some bridges omit the last line feed of an error. A success without one does not count: it may be cut short.
        let is_success = |fields: &Fields| reply::result_of(fields) == Some(ResultCode::Ok);
        let counts = match line::parse_without(&self.hidden, line.as_bytes()) {
            Ok(Line::Reply(fields)) => !is_success(&fields),
            Ok(Line::Ping(_) | Line::Pong) | Err(_) => false,
        };
        if counts {
            drop(self.line(line.as_bytes(), events));
        }
    }

    /// Sends the next command unless one is still unanswered.
    fn next(&mut self) -> Result<()> {
        if self.asked.is_none() {
            if let Some(lookup) = self.waiting.pop_front() {
                let command = command::naming_lookup(&lookup.name)?;
                self.trace.add(|| format!("-> {}", command.redacted()));
                self.output.push(Secret::from_slice(command.bytes()));
                self.asked = Some(lookup);
            }
        }
        Ok(())
    }

    fn line(&mut self, line: &[u8], events: &mut Vec<Event>) -> Result<()> {
        if !line.trim_ascii().is_empty() {
            // Whatever it is, it is news: a bridge that goes on talking has not ended.
            self.announced = None;
        }
        match line::parse_without(&self.hidden, line) {
            Ok(Line::Ping(text)) => {
                if self.output.unsent() + text.len() > MAX_UNSENT {
                    return Err(Error::protocol(
                        Operation::Session,
                        "the bridge sends PINGs and does not read the answers",
                    ));
                }
                self.output.push(command::pong(text.as_bytes()));
                self.pongs += 1;
                Ok(())
            }
            Ok(Line::Pong) => Ok(()),
            Ok(Line::Reply(fields)) => self.reply(fields, events),
            Err(malformed) => {
                self.trace.add(|| format!("<- malformed line: {}", malformed.0));
                // Payload follows, and there is no telling how much.
                if line.starts_with(b"DATAGRAM RECEIVED") || line.starts_with(b"RAW RECEIVED") {
                    let message =
                        format!("the bridge announced a datagram in a way that cannot be understood: {}", malformed.0);
                    return Err(Error::protocol(Operation::Session, message));
                }
                // This must be the answer, even if malformed: waiting for another would block everything queued behind
                // it.
                let asked = if line.starts_with(b"NAMING") { self.asked.take() } else { None };
                if let Some(asked) = asked {
                    let message = format!("the bridge's answer cannot be understood: {}", malformed.0);
                    let result = Err(Error::protocol(Operation::Lookup, message));
                    found(asked.number, Answer { result, fields: None }, events);
                }
                self.next()
            }
        }
    }

    fn reply(&mut self, fields: Fields, events: &mut Vec<Event>) -> Result<()> {
        self.trace.add(|| format!("<- {}", fields.redacted()));
        if fields.action() == "RECEIVED" && matches!(fields.topic(), "DATAGRAM" | "RAW") {
            return self.received(&fields, events);
        }
        let failure = reply::result_of(&fields).filter(|code| *code != ResultCode::Ok);
        // Nothing but a session's own lines says anything about it: on the control socket of a session we never send a
        // STREAM command, so that a STREAM line there is about something else.
        let is_ours = fields.topic() == "SESSION" || (self.is_forward && fields.topic() == "STREAM");
        if let Some(code) = failure.as_ref().filter(|_| is_ours) {
            self.announced = Some(closed(code, &fields));
        }
        if fields.topic() != "NAMING" {
            return Ok(());
        }
        let Some(asked) = self.asked.take_if(|asked| request::answers_name(&fields, &asked.name)) else {
            return Ok(());
        };
        if let Some(code) = failure.filter(|code| *code == ResultCode::InvalidId) {
            events.push(Event::Forgotten(closed(&code, &fields)));
        }
        let result = reply::lookup(&fields);
        if let (LIFE, Some(own), Ok(said)) = (asked.number, &self.own, &result) {
            if said != own {
                let message = format!("the router says that this session is that of {}", said.host());
                events.push(Event::Forgotten(Error::closed(Operation::Session, message)));
            }
        }
        found(asked.number, Answer { result, fields: Some(fields) }, events);
        self.next()
    }
}

/// Why the session has ended, in the bridge's words.
fn closed(code: &ResultCode, fields: &Fields) -> Error {
    Error { status: Status::Closed, ..reply::refusal(Operation::Session, code, fields) }
}

fn found(number: u64, answer: Answer, events: &mut Vec<Event>) {
    if number != LIFE {
        events.push(Event::Found(number, answer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::handshake::Handshake;
    use crate::protocol::version::{Version, VersionRange};

    fn feed(control: &mut Control, text: &str) -> Vec<Event> {
        let mut events = Vec::new();
        control.input(text.as_bytes(), &mut events).unwrap();
        events
    }

    fn sent(control: &mut Control) -> String {
        let mut text = String::new();
        while !control.output().is_empty() {
            text.push_str(std::str::from_utf8(control.output()).unwrap());
            control.wrote(control.output().len());
        }
        text
    }

    #[test]
    fn pings_are_answered_byte_for_byte() {
        let mut control = Control::default();
        feed(&mut control, "PING 17 \"x\nPING\nPI");
        feed(&mut control, "NG a  b\n");
        assert_eq!(sent(&mut control), "PONG 17 \"x\nPONG\nPONG a  b\n");
        assert_eq!(control.pongs(), 3);
    }

    #[test]
    fn one_command_at_a_time_and_replies_go_by_name() {
        let mut control = Control::default();
        control.lookup(1, "a.i2p").unwrap();
        control.lookup(2, "b.i2p").unwrap();
        assert_eq!(sent(&mut control), "NAMING LOOKUP NAME=a.i2p\n");
        assert!(feed(&mut control, "NAMING REPLY RESULT=KEY_NOT_FOUND NAME=zzz.i2p\n").is_empty());
        assert!(feed(&mut control, "HELLO REPLY RESULT=OK\n\nnonsense\n").is_empty());
        assert_eq!(sent(&mut control), "");
        let events = feed(&mut control, "NAMING REPLY RESULT=KEY_NOT_FOUND NAME=A.i2p\n");
        assert!(
            matches!(&events[..], [Event::Found(1, Answer { result: Err(error), .. })] if error.tag == "KEY_NOT_FOUND")
        );
        assert_eq!(sent(&mut control), "NAMING LOOKUP NAME=b.i2p\n");
    }

    #[test]
    fn a_forgotten_lookup_keeps_its_late_reply_from_the_next() {
        let mut control = Control::default();
        control.lookup(1, "a.i2p").unwrap();
        control.lookup(2, "b.i2p").unwrap();
        control.lookup(3, "c.i2p").unwrap();
        assert_eq!(control.asking(), Some(Asking { number: 1, wanted: true }));
        control.forget(1);
        control.forget(2);
        assert_eq!(control.asking(), Some(Asking { number: 1, wanted: false }));
        assert_eq!(sent(&mut control), "NAMING LOOKUP NAME=a.i2p\n");
        let events = feed(&mut control, "NAMING REPLY RESULT=KEY_NOT_FOUND NAME=a.i2p\n");
        assert!(matches!(&events[..], [Event::Found(1, Answer { result: Err(_), .. })]));
        assert_eq!(sent(&mut control), "NAMING LOOKUP NAME=c.i2p\n");
    }

    #[test]
    fn an_announced_end_stands_until_there_is_other_news() {
        let end = "SESSION STATUS RESULT=I2P_ERROR MESSAGE=\"Router restart\"\n";
        let mut control = Control::default();
        control.lookup(7, "ME").unwrap();
        assert!(feed(&mut control, &format!("{end}\n")).is_empty(), "it is not the answer to a lookup");
        let announced = control.announced().unwrap();
        assert_eq!((announced.status, announced.message.contains("Router restart")), (Status::Closed, true));
        feed(&mut control, "PING 1\n");
        assert!(control.announced().is_none());
        feed(&mut control, end);
        feed(&mut control, "NAMING REPLY RESULT=KEY_NOT_FOUND NAME=other.i2p\n");
        assert!(control.announced().is_none());
        feed(&mut control, "SESSION STATUS RESULT=OK DESTINATION=c2VjcmV0\n");
        assert!(control.announced().is_none());
        // The last line may lack its end.
        let mut events = Vec::new();
        control.input(b"SESSION STATUS RESULT=I2P_ERROR", &mut events).unwrap();
        control.eof(&mut events);
        assert!(events.is_empty() && control.announced().is_some());
        // A success without an end may be cut short.
        let mut control = Control::default();
        control.lookup(1, "a.i2p").unwrap();
        control.input(b"NAMING REPLY RESULT=OK NAME=a.i2p VALUE=x", &mut events).unwrap();
        control.eof(&mut events);
        assert!(events.is_empty());
    }

    #[test]
    fn what_is_about_something_else_neither_answers_nor_ends_anything() {
        for topic in ["STREAM", "DATAGRAM", "COMMAND"] {
            let line = format!("{topic} STATUS RESULT=CANT_REACH_PEER MESSAGE=\"late\"\n");
            let mut control = Control::default();
            control.lookup(1, "a.i2p").unwrap();
            assert!(feed(&mut control, &line).is_empty(), "{topic}");
            assert!(
                control.announced().is_none() && control.asking().map(|asking| asking.number) == Some(1),
                "{topic}"
            );
            let events = feed(&mut control, "NAMING REPLY RESULT=KEY_NOT_FOUND NAME=a.i2p\n");
            assert!(matches!(&events[..], [Event::Found(1, _)]));
            let mut forward = Control::of_forward(Outbox::default());
            feed(&mut forward, &line);
            assert_eq!(forward.announced().is_some(), topic == "STREAM");
        }
    }

    #[test]
    fn a_session_that_the_router_has_forgotten() {
        let mut control = Control::default();
        control.ask_for_life().unwrap();
        assert_eq!(control.asking(), Some(Asking { number: LIFE, wanted: true }));
        assert_eq!(sent(&mut control), "NAMING LOOKUP NAME=ME\n");
        assert!(feed(&mut control, "NAMING REPLY RESULT=OK NAME=ME VALUE=x\n").is_empty());
        assert_eq!(control.asking(), None);
        control.ask_for_life().unwrap();
        // It has given it to somebody else.
        let value = |fill: u8| crate::identity::base64_encode(&[&[fill; 384][..], &[5, 0, 4, 0, 7, 0, 0]].concat());
        let mut other = Control::default().of(Address::parse(&value(1)).unwrap());
        for (fill, lost) in [(1, false), (2, true)] {
            other.ask_for_life().unwrap();
            let events = feed(&mut other, &format!("NAMING REPLY RESULT=OK NAME=ME VALUE={}\n", value(fill)));
            assert_eq!(matches!(&events[..], [Event::Forgotten(_)]), lost);
        }
        let events = feed(&mut control, "NAMING REPLY RESULT=INVALID_ID NAME=ME MESSAGE=\"no such session\"\n");
        assert!(matches!(&events[..], [Event::Forgotten(error)]
            if error.status == Status::Closed && error.message.contains("no such session")));
    }

    /// The same reply means the same here as on a connection that was made for the lookup.
    #[test]
    fn a_reply_is_judged_as_on_a_connection_of_its_own() {
        for reply in [
            "",
            "RESULT=",
            "RESULT=OK",
            "RESULT=OK VALUE=x",
            "RESULT=KEY_NOT_FOUND",
            "RESULT=INVALID_KEY",
            "RESULT=I2P_ERROR MESSAGE=no",
            "RESULT=WHAT",
        ] {
            let line = format!("NAMING REPLY NAME=a.i2p {reply}\n");
            let mut control = Control::default();
            control.lookup(1, "a.i2p").unwrap();
            let [Event::Found(1, Answer { result: Err(here), .. })] = &feed(&mut control, &line)[..] else {
                panic!("{reply}");
            };
            let range = VersionRange { min: Version::V3_1, max: Version::V3_3 };
            let request = request::Request::Lookup { name: "a.i2p".to_owned() };
            let mut alone = Handshake::new(request, range, None).unwrap();
            alone.input(b"HELLO REPLY RESULT=OK VERSION=3.3\n").unwrap();
            alone.wrote(alone.output().len());
            alone.wrote(alone.output().len());
            assert_eq!(*here, alone.input(line.as_bytes()).unwrap_err(), "{reply}");
        }
    }

    #[test]
    fn floods_are_bounded() {
        let mut control = Control::default();
        assert!(control.input(&vec![b'x'; MAX_LINE + 1], &mut Vec::new()).is_err());
        let mut control = Control::default();
        let storm = "PING\n".repeat(MAX_UNSENT);
        assert!(control.input(storm.as_bytes(), &mut Vec::new()).is_err());
    }
}
