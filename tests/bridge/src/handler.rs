//! One connection from its HELLO to its end: which command goes where, and the small commands themselves.

use crate::config::{Personality, Version};
use crate::conn::{Conn, Flow, Kind};
use crate::destination::{generate, text};
use crate::faults::{Pong, Reply};
use crate::hello::{answer, Answer};
use crate::line::{parse, Command, Got, LineReader};
use crate::session::{end, signature_type};
use crate::shared::{lock, Shared};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a client may take to close its side after the bridge has closed.
const GOODBYE: Duration = Duration::from_millis(500);

/// What follows a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Continue,
    Close,
}

impl Next {
    /// A command whose reply is withheld leaves the connection usable.
    pub(crate) fn after(flow: Flow) -> Self {
        match flow {
            Flow::Go | Flow::Stalled => Self::Continue,
            Flow::Closed => Self::Close,
        }
    }
}

/// Serves one connection.
pub(crate) struct Handler {
    pub(crate) shared: Arc<Shared>,
    pub(crate) conn: Arc<Conn>,
    pub(crate) reader: LineReader,
    /// Id and serial number of the session this socket forwards for.
    pub(crate) forwards: Option<(String, u64)>,
}

/// Serves a connection to its end.
pub(crate) fn serve(shared: &Arc<Shared>, conn: &Arc<Conn>) {
    let mut handler = Handler {
        shared: Arc::clone(shared),
        conn: Arc::clone(conn),
        reader: LineReader::new(shared.config.personality),
        forwards: None,
    };
    if handler.hello() == Next::Continue {
        shared.set_kind(conn, Kind::Utility);
        handler.commands();
    }
    handler.end_forward();
    if let Some((id, serial)) = conn.session() {
        end(shared, &id, serial);
    }
    conn.close_gently(GOODBYE);
    shared.unregister(conn);
}

impl Handler {
    fn personality(&self) -> Personality {
        self.shared.config.personality
    }

    /// Writes down that a line came.
    fn received(&self, line: &[u8]) {
        self.shared.record(&self.conn, line);
        if self.shared.config.verbose {
            self.shared.log(&self.conn.id.to_string(), "<-", line);
        }
        lock(&self.conn.info).last_line = Instant::now();
    }

    fn hello(&mut self) -> Next {
        let limit = self.shared.config.first_command_time();
        let deadline = limit.map(|time| Instant::now() + time);
        loop {
            let (line, reads) = match self.reader.next(&self.conn.sock, deadline) {
                Ok(Got::Line(line, reads)) => (line, reads),
                Ok(Got::Timeout | Got::TooLong) if self.personality() == Personality::Java => {
                    let line = "HELLO REPLY RESULT=I2P_ERROR MESSAGE=\"Bad or no HELLO\"\n";
                    self.shared.reply(&self.conn, Reply::Hello, line);
                    return Next::Close;
                }
                _ => return Next::Close,
            };
            self.received(&line);
            // i2pd wants the whole line in its first read.
            if self.personality().is_i2pd() && reads > 1 {
                return Next::Close;
            }
            let command = parse(&String::from_utf8_lossy(&line), self.personality());
            match answer(&self.shared, &command) {
                Answer::Accept(text, version) => {
                    lock(&self.conn.info).version = version;
                    return match self.shared.reply(&self.conn, Reply::Hello, &text) {
                        Flow::Go => Next::Continue,
                        Flow::Stalled => self.hang(),
                        Flow::Closed => Next::Close,
                    };
                }
                Answer::Refuse(text) => {
                    return match self.shared.reply(&self.conn, Reply::Hello, &text) {
                        Flow::Stalled => self.hang(),
                        _ => Next::Close,
                    };
                }
                Answer::Close => return Next::Close,
                Answer::Silence => {}
            }
        }
    }

    fn commands(&mut self) {
        let emissary = self.personality() == Personality::Emissary;
        let limit = self.shared.config.first_command_time();
        let impatient = match self.personality() {
            // The others keep their clients with PINGs.
            Personality::Java => self.conn.version() < Version::V3_2,
            _ => true,
        };
        let mut deadline = limit.filter(|_| impatient).map(|time| Instant::now() + time);
        loop {
            // emissary's timer runs until there is a session, Java's until the first command.
            if lock(&self.conn.info).kind != Kind::Utility {
                deadline = None;
            }
            let (line, reads) = match self.reader.next(&self.conn.sock, deadline) {
                Ok(Got::Line(line, reads)) => (line, reads),
                Ok(Got::TooLong) if self.personality() == Personality::Java => {
                    let plan = self.shared.plan(Reply::Other);
                    self.session_status(&plan, "I2P_ERROR", "Line too long");
                    return;
                }
                Ok(Got::TooLong) if self.personality().is_i2pd() => {
                    // Such a line is never complete for it.
                    self.hang();
                    return;
                }
                _ => return,
            };
            self.received(&line);
            if !emissary {
                deadline = None;
            }
            // emissary loses a command that comes in pieces.
            if emissary && reads > 1 {
                continue;
            }
            lock(&self.conn.info).busy = true;
            let next = self.command(&line);
            {
                let mut info = lock(&self.conn.info);
                info.busy = false;
                info.last_line = Instant::now();
            }
            if next == Next::Close {
                return;
            }
            if self.shared.config.idle_ping.is_some() {
                self.shared.poke();
            }
        }
    }

    fn command(&mut self, line: &[u8]) -> Next {
        let line_text = String::from_utf8_lossy(line);
        let bare = line_text.strip_suffix('\r').unwrap_or(&line_text);
        match bare.split_once(' ').unwrap_or((bare, "")) {
            ("PING", text) => return self.ping(text),
            ("PONG", text) => return self.pong(text),
            _ => {}
        }
        let command = parse(&line_text, self.personality());
        if command.topic.is_empty() && self.personality() != Personality::Java {
            return self.unknown(&command);
        }
        match (command.topic.as_str(), command.action.as_str()) {
            ("STREAM", _) => self.stream(&command, line.ends_with(b"\r")),
            _ if command.error.is_some() => {
                let message = command.error.unwrap_or_default();
                let line = format!("{} STATUS RESULT=I2P_ERROR MESSAGE=\"{message}\"\n", command.topic);
                self.shared.reply(&self.conn, Reply::Other, &line);
                Next::Close
            }
            ("SESSION", "CREATE") => self.session_create(&command),
            ("DATAGRAM" | "RAW", "SEND") => self.send_datagram(&command, line),
            ("NAMING", "LOOKUP") => self.naming_lookup(&command),
            ("DEST", "GENERATE") => self.dest_generate(&command),
            ("AUTH", _) if self.personality() == Personality::Java => self.auth(&command),
            ("QUIT" | "STOP" | "EXIT", _) => {
                if self.personality() == Personality::Java {
                    let line = "QUIT STATUS RESULT=OK MESSAGE=bye\n";
                    self.shared.reply(&self.conn, Reply::Quit, line);
                }
                Next::Close
            }
            _ => self.unknown(&command),
        }
    }

    /// A command the router does not know.
    pub(crate) fn unknown(&self, command: &Command) -> Next {
        match self.personality() {
            Personality::Java => {
                let topic = if command.topic.is_empty() { "SESSION" } else { &command.topic };
                let line = format!("{topic} STATUS RESULT=I2P_ERROR MESSAGE=\"Unrecognized command\"\n");
                Next::after(self.shared.reply(&self.conn, Reply::Other, &line))
            }
            Personality::Emissary => Next::Continue,
            Personality::I2pd245 | Personality::I2pd258 => Next::Close,
        }
    }

    fn ping(&self, text: &str) -> Next {
        let line = match text {
            "" => "PONG\n".to_string(),
            text => format!("PONG {text}\n"),
        };
        match self.personality() {
            Personality::Java => Next::after(self.shared.reply(&self.conn, Reply::Pong, &line)),
            Personality::I2pd258 => {
                self.shared.reply(&self.conn, Reply::Pong, &line);
                Next::Close
            }
            Personality::I2pd245 => Next::Close,
            Personality::Emissary => Next::Continue,
        }
    }

    fn pong(&self, text: &str) -> Next {
        let matched = {
            let mut info = lock(&self.conn.info);
            if info.expected.as_ref().is_some_and(|(sent, _)| sent == text) {
                info.expected = None;
                return Next::Continue;
            }
            let at = info.pings.iter().position(|sent| sent == text);
            at.and_then(|at| info.pings.remove(at)).is_some()
        };
        lock(&self.shared.faults).pongs.push(Pong { connection: self.conn.id, text: text.to_string(), matched });
        Next::Continue
    }

    fn dest_generate(&self, command: &Command) -> Next {
        let given = command.get("SIGNATURE_TYPE");
        let personality = self.personality();
        let code = match personality {
            Personality::Emissary if given != Some("7") || self.conn.session().is_some() => {
                return Next::Continue;
            }
            _ if lock(&self.shared.faults).config.dsa_keys => Some(0),
            _ => given.map_or(Some(0), |text| signature_type(text, personality)),
        };
        let code = match (code, personality) {
            (Some(code), _) => code,
            // It takes the router down; all the client sees is its socket closing.
            (None, Personality::I2pd258) => return Next::Close,
            (None, Personality::I2pd245) => 0,
            (None, _) => {
                let line = format!(
                    "DEST REPLY RESULT=I2P_ERROR MESSAGE=\"SIGNATURE_TYPE {} unsupported\"\n",
                    given.unwrap_or_default().replace(['"', '\\'], "")
                );
                self.shared.reply(&self.conn, Reply::DestGenerate, &line);
                return Next::Close;
            }
        };
        let Some(pair) = generate(code) else {
            return Next::Close;
        };
        let line = format!("DEST REPLY PUB={} PRIV={}\n", text(&pair.public), text(&pair.blob));
        Next::after(self.shared.reply(&self.conn, Reply::DestGenerate, &line))
    }

    fn auth(&self, command: &Command) -> Next {
        let user = command.get("USER");
        let password = command.get("PASSWORD");
        let error = {
            let mut state = lock(&self.shared.state);
            match (command.action.as_str(), user, password) {
                ("ENABLE", ..) => {
                    state.auth = true;
                    None
                }
                ("DISABLE", ..) => {
                    state.auth = false;
                    None
                }
                ("ADD", Some(user), Some(password)) => match state.users.contains_key(user) {
                    true => Some("user already exists"),
                    false => {
                        state.users.insert(user.to_string(), password.to_string());
                        None
                    }
                },
                ("ADD", ..) => Some("USER and PASSWORD required"),
                ("REMOVE", Some(user), _) => match state.users.remove(user) {
                    Some(_) => None,
                    None => Some("user not found"),
                },
                ("REMOVE", ..) => Some("USER required"),
                _ => Some("unknown AUTH command"),
            }
        };
        let line = match error {
            None => "AUTH STATUS RESULT=OK\n".to_string(),
            Some(message) => format!("AUTH STATUS RESULT=I2P_ERROR MESSAGE=\"{message}\"\n"),
        };
        Next::after(self.shared.reply(&self.conn, Reply::Auth, &line))
    }
}

/// Whether a connection gets PINGs when it is idle.
pub(crate) fn pings_when_idle(version: Version, kind: Kind) -> bool {
    version >= Version::V3_2 && matches!(kind, Kind::Utility | Kind::Control | Kind::Forward)
}
