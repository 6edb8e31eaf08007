//! The life of sessions: SESSION CREATE, their end, and looking them up.

use crate::config::Personality;
use crate::conn::{Conn, Flow, Kind};
use crate::destination::{can_generate, generate, public_of_blob, text, KeyPair};
use crate::encoding::base64_decode;
use crate::faults::{Plan, Reply};
use crate::handler::{Handler, Next};
use crate::life::Ground;
use crate::line::Command;
use crate::sha256::sha256;
use crate::shared::{lock, Outcome, Session, Shared};
use crate::style::{Delivery, Inbox, Mail, Style};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a taken id or destination may still become free: the old control socket may be closed already
/// with its thread not having noticed.
const DUPLICATE_GRACE: Duration = Duration::from_millis(150);

/// How long the streams of a session that has ended are still read: a client that closes everything in one go
/// may have bytes in its system that have not got here yet.
const LAST_BYTES: Duration = Duration::from_millis(250);

/// What a session is asked to be.
struct Wish {
    id: String,
    keys: KeyPair,
    from_port: u16,
    to_port: u16,
    mail: Mail,
    /// What fills an in-band session's queue.
    inbox: Option<Inbox>,
}

/// Why there will be no session.
pub(crate) enum Refusal {
    /// A RESULT, with its message.
    Result(&'static str, &'static str),
    /// Not a word.
    Silence,
    /// Not a word, and nothing is read any more.
    Hang,
}

pub(crate) const fn error(message: &'static str) -> Refusal {
    Refusal::Result("I2P_ERROR", message)
}

/// The number of a signature type given by number or, where the router knows names, by name.
pub(crate) fn signature_type(text: &str, personality: Personality) -> Option<u16> {
    let names = [
        ("DSA_SHA1", 0),
        ("ECDSA_SHA256_P256", 1),
        ("ECDSA_SHA384_P384", 2),
        ("ECDSA_SHA512_P521", 3),
        ("EdDSA_SHA512_Ed25519", 7),
        ("EdDSA_SHA512_Ed25519ph", 8),
        ("RedDSA_SHA512_Ed25519", 11),
    ];
    let named = names.iter().find(|(name, _)| match personality {
        Personality::Java => name.eq_ignore_ascii_case(text),
        Personality::Emissary => false,
        _ => *name == text,
    });
    named.map(|(_, code)| *code).or_else(|| text.parse().ok()).filter(|code| can_generate(*code))
}

/// A port option; absent is `None`.
pub(crate) fn port(command: &Command, key: &str) -> Result<Option<u16>, ()> {
    command.get(key).map(str::parse).transpose().map_err(|_| ())
}

impl Handler {
    /// SESSION CREATE.
    pub(crate) fn session_create(&mut self, command: &Command) -> Next {
        let plan = self.shared.plan(Reply::SessionCreate);
        if self.conn.session().is_some() {
            let refusal = match self.shared.config.personality {
                Personality::Emissary => Refusal::Silence,
                Personality::Java => error("Session already exists"),
                _ => error("Socket already in use"),
            };
            return self.session_error(&plan, refusal);
        }
        let mut wish = match self.wish(command) {
            Ok(wish) => wish,
            Err(refusal) => return self.session_error(&plan, refusal),
        };
        if command.get("DESTINATION") != Some("TRANSIENT") && lock(&self.shared.faults).is_duplicated() {
            return self.session_error(&plan, Refusal::Result("DUPLICATED_DEST", ""));
        }
        if lock(&self.shared.faults).has_no_manager() {
            // Only the last words are certain; that the keys are told along with them is.
            let result = format!("I2P_ERROR DESTINATION={}", text(&wish.keys.blob));
            let flow = self.session_status(&plan, &result, "Session creation failed: No manager yet");
            return Next::after(flow);
        }
        let line = format!("SESSION STATUS RESULT=OK DESTINATION={}\n", text(&wish.keys.blob));
        if plan.is_final() {
            let flow = self.shared.reply_planned(&self.conn, &plan, &line);
            return Next::after(flow);
        }
        let inbox = wish.inbox.take();
        let (id, serial, ground) = match self.claim(wish) {
            Ok(claimed) => claimed,
            Err(refusal) => return self.session_error(&plan, refusal),
        };
        lock(&self.conn.info).session = Some((id.clone(), serial));
        // What is there already needs no tunnels.
        if ground == Ground::Free && !self.build() {
            return Next::Close;
        }
        if let Some(session) = lock(&self.shared.state).session_mut(&id, serial) {
            session.ready = true;
            session.born = Instant::now();
        }
        self.shared.set_kind(&self.conn, Kind::Control);
        let flow = self.shared.reply_planned(&self.conn, &plan, &line);
        // Not before the reply.
        if let Some(inbox) = inbox {
            self.shared.write_in_band(&self.conn, inbox);
        }
        Next::after(flow)
    }

    /// Checks the options.
    fn wish(&self, command: &Command) -> Result<Wish, Refusal> {
        let personality = self.shared.config.personality;
        let silent = personality == Personality::Emissary;
        let needed = |key, message| match command.get(key) {
            Some(value) => Ok(value.to_string()),
            None if silent => Err(Refusal::Silence),
            None => Err(error(message)),
        };
        let style = needed("STYLE", "No SESSION STYLE specified")?;
        let id = needed("ID", "ID not specified")?;
        let destination = needed("DESTINATION", "No SESSION DESTINATION specified")?;
        let zero_hops = |key| command.get(key) == Some("0");
        if silent && (zero_hops("inbound.length") || zero_hops("outbound.length")) {
            return Err(Refusal::Silence);
        }
        if personality.is_i2pd() && id.contains(['<', '>', '"', '\'', '/']) {
            return Err(Refusal::Result("INVALID_ID", ""));
        }
        let Some(style) = Style::known(&style, personality) else {
            return Err(match style.as_str() {
                "PRIMARY" | "MASTER" => error("Style not supported by this bridge"),
                _ if silent => Refusal::Silence,
                _ if personality == Personality::Java => error("Unrecognized SESSION STYLE"),
                _ => error("Unknown STYLE"),
            });
        };
        let keys = if destination == "TRANSIENT" {
            let code = match (personality, command.get("SIGNATURE_TYPE")) {
                _ if lock(&self.shared.faults).config.dsa_keys => 0,
                (Personality::Emissary, _) => 7,
                (_, None) => 0,
                (_, Some(text)) => match signature_type(text, personality) {
                    Some(code) => code,
                    None if personality == Personality::Java => {
                        return Err(error("SIGNATURE_TYPE unsupported"));
                    }
                    None => 0,
                },
            };
            generate(code).ok_or(error("Key generation failed"))?
        } else {
            let invalid = || match silent {
                true => Refusal::Silence,
                false => Refusal::Result("INVALID_KEY", ""),
            };
            let blob = base64_decode(&destination).ok_or_else(invalid)?;
            let public = public_of_blob(&blob).ok_or_else(invalid)?;
            KeyPair { public, blob }
        };
        let mut ports = [0; 2];
        for (slot, key) in ports.iter_mut().zip(["FROM_PORT", "TO_PORT"]) {
            *slot = match (personality, port(command, key)) {
                (Personality::Java, Err(())) => return Err(error("Bad port")),
                (Personality::Java | Personality::Emissary, Ok(Some(port))) => port,
                _ => 0,
            };
        }
        let [from_port, to_port] = ports;
        let (mail, inbox) = self.mail(command, style)?;
        Ok(Wish { id, keys, from_port, to_port, mail, inbox })
    }

    /// Takes the id, and the destination where the router minds two sessions sharing one.
    fn claim(&self, wish: Wish) -> Result<(String, u64, Ground), Refusal> {
        let personality = self.shared.config.personality;
        let public = &wish.keys.public;
        self.shared.wait(Some(Instant::now() + DUPLICATE_GRACE), |state| {
            let taken = state.sessions.contains_key(&wish.id) || state.sessions.values().any(|s| s.public == *public);
            (!taken).then_some(())
        });
        let mut state = lock(&self.shared.state);
        if state.sessions.contains_key(&wish.id) {
            if personality == Personality::Java {
                // It tidies up after the one that failed, and takes the other's entry for it.
                state.forget(&wish.id);
            }
            return Err(Refusal::Result("DUPLICATED_ID", ""));
        }
        if state.busy.get(public).is_some_and(|until| *until > Instant::now()) {
            return Err(Refusal::Result("DUPLICATED_DEST", ""));
        }
        let ground = match personality.is_i2pd() {
            true => state.ground(public),
            false if state.sessions.values().any(|s| s.public == *public) => {
                return Err(Refusal::Result("DUPLICATED_DEST", ""));
            }
            false => Ground::Free,
        };
        if ground == Ground::Doomed {
            return Err(Refusal::Hang);
        }
        state.serial += 1;
        let serial = state.serial;
        let session = Session {
            serial,
            ready: false,
            dead: false,
            born: Instant::now(),
            accepted: false,
            text: text(public),
            hash: text(&sha256(public)),
            public: public.clone(),
            control: Arc::clone(&self.conn),
            from_port: wish.from_port,
            to_port: wish.to_port,
            mail: wish.mail,
            acceptors: VecDeque::new(),
            incoming: VecDeque::new(),
            forward: None,
            streams: HashMap::new(),
        };
        state.sessions.insert(wish.id.clone(), session);
        let mut streams = Vec::new();
        if ground == Ground::Shared {
            streams = state.die_all(public, personality);
        }
        drop(state);
        self.shared.changed.notify_all();
        end_streams(&self.shared, streams, None);
        Ok((wish.id, serial, ground))
    }

    /// Lets the time pass that tunnels take; `false` when the client has gone meanwhile.
    fn build(&mut self) -> bool {
        let deadline = Instant::now() + self.shared.config.build_delay;
        let mut buffer = [0u8; 1024];
        loop {
            match self.conn.sock.read_until(&mut buffer, Some(deadline)) {
                Ok(None) => return !self.shared.is_stopping(),
                Ok(Some(n @ 1..)) => self.reader.push(&buffer[..n]),
                Ok(Some(0)) | Err(_) => return false,
            }
        }
    }

    /// Tells that there is no session, in the router's own way.
    fn session_error(&self, plan: &Plan, refusal: Refusal) -> Next {
        let personality = self.shared.config.personality;
        let (result, message) = match refusal {
            Refusal::Silence => return Next::Continue,
            Refusal::Hang => return self.hang(),
            Refusal::Result(result, message) => (result, message),
        };
        if personality == Personality::Emissary {
            let result = match result {
                "DUPLICATED_ID" => "DUPLICATE_ID",
                "DUPLICATED_DEST" => "DUPLICATE_DEST",
                other => other,
            };
            let line = format!("SESSION STATUS RESULT={result}");
            self.shared.reply_planned(&self.conn, plan, &line);
            return Next::Close;
        }
        let flow = self.session_status(plan, result, message);
        match personality {
            Personality::Java => Next::after(flow),
            _ => Next::Close,
        }
    }

    /// A SESSION STATUS line with an error.
    pub(crate) fn session_status(&self, plan: &Plan, result: &str, message: &str) -> Flow {
        let message = match message {
            "" => String::new(),
            text => format!(" MESSAGE=\"{text}\""),
        };
        let line = format!("SESSION STATUS RESULT={result}{message}\n");
        self.shared.reply_planned(&self.conn, plan, &line)
    }
}

/// Removes a session and ends all that belongs to it, except the control socket. Its id is free afterwards.
pub(crate) fn end(shared: &Arc<Shared>, id: &str, serial: u64) {
    let session = {
        let mut state = lock(&shared.state);
        let Some(session) = state.take(id, serial) else {
            return;
        };
        let keep = shared.config.keep_time();
        if !keep.is_zero() {
            state.keep(&session, keep);
        }
        let busy = lock(&shared.faults).config.duplicated_after;
        if !busy.is_zero() {
            let now = Instant::now();
            state.busy.retain(|_, until| *until > now);
            state.busy.insert(session.public.clone(), now + busy);
        }
        for slot in session.acceptors.iter().chain(&session.incoming) {
            slot.set(Outcome::Closed);
        }
        session
    };
    shared.changed.notify_all();
    shared.forget_held(serial);
    end_streams(shared, session.streams.into_values().collect(), Some(session.public));
    // Java's accepts get a last line from their own threads; i2pd's are reading and must be woken.
    if shared.config.personality.is_i2pd() {
        for slot in &session.acceptors {
            slot.conn.kill();
        }
    }
    if let Some(forward) = &session.forward {
        forward.conn.kill();
    }
}

/// Ends a session's ends of streams. Their clients see the end at once; what they had sent still arrives. Where there is
/// a destination, it is kept until after the last of them.
pub(crate) fn end_streams(shared: &Arc<Shared>, conns: Vec<Arc<Conn>>, public: Option<Vec<u8>>) {
    if conns.is_empty() {
        return;
    }
    for conn in &conns {
        conn.end_writing();
    }
    let conns = Arc::new(conns);
    let (waiting, doomed) = (Arc::clone(shared), Arc::clone(&conns));
    let started = shared.spawn("end", move || {
        waiting.sleep(LAST_BYTES);
        doomed.iter().for_each(|conn| conn.kill());
        if let Some(public) = public {
            waiting.stream_ended(&public);
        }
    });
    if started.is_err() {
        conns.iter().for_each(|conn| conn.kill());
    }
}

/// Ends a session by force.
pub(crate) fn kill(shared: &Arc<Shared>, id: &str, announce: bool) -> bool {
    let found = {
        let state = lock(&shared.state);
        let in_band = |s: &Session| matches!(s.mail.delivery, Delivery::InBand(_));
        state.sessions.get(id).map(|s| (s.serial, in_band(s), Arc::clone(&s.control)))
    };
    let Some((serial, in_band, control)) = found else {
        return false;
    };
    end(shared, id, serial);
    if announce && (!in_band || control.hurry(LAST_BYTES)) {
        let line = b"SESSION STATUS RESULT=I2P_ERROR MESSAGE=\"Session is closed\"\n";
        let _ = shared.emit(&control, line);
    }
    control.kill();
    true
}

/// The ids of all sessions.
pub(crate) fn all_ids(shared: &Shared) -> Vec<String> {
    lock(&shared.state).sessions.keys().cloned().collect()
}

/// The control sockets of all sessions.
pub(crate) fn controls(shared: &Shared) -> Vec<Arc<Conn>> {
    let state = lock(&shared.state);
    state.sessions.values().filter(|s| s.ready).map(|s| Arc::clone(&s.control)).collect()
}
