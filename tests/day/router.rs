//! A router in virtual time, with the habits in which real ones lose sessions.
//!
//! It has no thread: it does everything that is possible now in [`Router::turn`], and nothing in between. Its sockets are
//! unix sockets, where whatever is written, connected or closed is there at the other end at once. So what happens depends
//! on the times alone, not on how busy the machine is.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::common::{destination, Rng};

/// How long i2pd keeps a closed destination, and how long Java says that it is in use.
const KEPT: Duration = Duration::from_secs(5);
const IN_USE: Duration = Duration::from_millis(1100);
/// How long Java has no manager after it has begun to listen.
const NO_MANAGER: Duration = Duration::from_secs(1);
const PING: Duration = Duration::from_secs(180);
/// The least time between two lookups of ME on one control socket.
const LOOKUP_PAUSE: Duration = Duration::from_millis(59_900);

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Java,
    I2pd245,
    I2pd258,
}

impl Kind {
    fn is_java(self) -> bool {
        self == Kind::Java
    }
}

/// What a router still knows of a session whose control socket is open.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Life {
    Alive,
    /// It got a destination that is about to be deleted, and has it until then.
    Doomed(Instant),
    /// Its id is not known any more: to STREAM commands and, if set, to lookups.
    Forgotten {
        lookups: bool,
    },
    /// Accepts are confirmed and refused, as Java does.
    Dead,
    /// Its end was announced, and nothing more is said about it.
    Announced,
}

struct Session {
    serial: u64,
    id: String,
    life: Life,
    ping: Instant,
    /// When ME was last looked up.
    asked: Option<Instant>,
}

#[derive(Clone, Debug, PartialEq)]
enum Role {
    New,
    Greeted,
    /// A session is being made, until then.
    Building {
        id: String,
        ready: Instant,
    },
    Control(u64),
    /// An accept that was confirmed.
    Waiting(u64),
    Stream(u64),
    /// Whatever comes is not answered.
    Mute,
    Closed,
}

struct Connection {
    serial: u64,
    socket: UnixStream,
    input: Vec<u8>,
    role: Role,
}

impl Connection {
    /// Says it. The library may have hung up.
    fn say(&mut self, text: &str) {
        drop(self.socket.write_all(text.as_bytes()));
    }

    fn say_and_close(&mut self, text: &str) {
        self.say(text);
        self.role = Role::Closed;
    }
}

/// What a test wants to know in the end.
#[derive(Debug, Default)]
pub struct Counts {
    pub created: usize,
    /// Sessions that were made too soon, and so are dead from the start.
    pub doomed: usize,
    pub lookups: usize,
    pub pings: usize,
    pub pongs: usize,
    /// Sessions that were refused for a reason that passes.
    pub refused: u32,
    pub accepts: usize,
}

pub struct Router {
    pub kind: Kind,
    own: u8,
    path: PathBuf,
    listener: Option<UnixListener>,
    connections: Vec<Connection>,
    sessions: Vec<Session>,
    serial: u64,
    rng: Rng,
    up_since: Instant,
    /// When the destination ended: its session, or the last stream.
    ended: Option<Instant>,
    stopped: bool,
    mute_accept: bool,
    pub counts: Counts,
}

impl Router {
    /// Its sessions are all of the destination of the number `own`.
    pub fn new(kind: Kind, path: PathBuf, seed: u64, own: u8, now: Instant) -> Self {
        let mut router = Router {
            kind,
            own,
            path,
            listener: None,
            connections: Vec::new(),
            sessions: Vec::new(),
            serial: 0,
            rng: Rng::new(seed),
            up_since: now,
            ended: None,
            stopped: false,
            mute_accept: false,
            counts: Counts::default(),
        };
        router.start(now);
        router.up_since = now.checked_sub(NO_MANAGER).unwrap();
        router
    }

    pub fn address(&self) -> String {
        format!("unix:{}", self.path.display())
    }

    /// Whether there is a session, and the router runs: then the library has no reason to think otherwise.
    pub fn serves(&self) -> bool {
        !self.stopped && self.sessions.iter().any(|session| session.life == Life::Alive)
    }

    /// When there is something to do without anything arriving.
    pub fn due(&self) -> Option<Instant> {
        if self.stopped {
            return None;
        }
        let building = self.connections.iter().filter_map(|connection| match &connection.role {
            Role::Building { ready, .. } => Some(*ready),
            _ => None,
        });
        let pings = self.sessions.iter().filter(|session| self.pings(session)).map(|session| session.ping);
        building.chain(pings).min()
    }

    fn pings(&self, session: &Session) -> bool {
        self.kind.is_java() && matches!(session.life, Life::Alive | Life::Dead)
    }

    /// Does everything that is possible now. Says whether that was anything.
    pub fn turn(&mut self, now: Instant) -> bool {
        let mut busy = false;
        if self.stopped {
            return busy;
        }
        while let Some(Ok((socket, _))) = self.listener.as_ref().map(UnixListener::accept) {
            socket.set_nonblocking(true).unwrap();
            self.serial += 1;
            self.connections.push(Connection { serial: self.serial, socket, input: Vec::new(), role: Role::New });
            busy = true;
        }
        for number in 0..self.connections.len() {
            let (news, is_over) = self.read(number);
            while let Some(line) = self.line(number) {
                self.command(number, &line, now);
            }
            if is_over {
                let role = std::mem::replace(&mut self.connections[number].role, Role::Closed);
                self.closed(&role, now);
            }
            busy |= news || is_over;
        }
        busy |= self.build(now) | self.ping(now);
        self.tidy();
        busy
    }

    fn tidy(&mut self) {
        self.connections.retain(|connection| connection.role != Role::Closed);
    }

    /// Whether anything has come, and whether the library has hung up after it.
    fn read(&mut self, number: usize) -> (bool, bool) {
        let connection = &mut self.connections[number];
        let mut buffer = [0; 4096];
        let mut news = false;
        while connection.role != Role::Closed {
            match connection.socket.read(&mut buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Ok(count @ 1..) => connection.input.extend_from_slice(&buffer[..count]),
                Ok(_) | Err(_) => return (news, true),
            }
            news = true;
        }
        (news, false)
    }

    fn line(&mut self, number: usize) -> Option<String> {
        let connection = &mut self.connections[number];
        let end = connection.input.iter().position(|byte| *byte == b'\n')?;
        let line: Vec<u8> = connection.input.drain(..=end).collect();
        Some(String::from_utf8(line).unwrap().trim_end().to_owned())
    }

    /// The library has closed something.
    fn closed(&mut self, role: &Role, now: Instant) {
        match role {
            Role::Control(serial) => self.end(*serial, now),
            Role::Building { .. } => self.ended = Some(now),
            Role::Stream(serial) if self.session(*serial).is_none() => self.ended = Some(now),
            _ => {}
        }
    }

    fn session(&mut self, serial: u64) -> Option<&mut Session> {
        self.sessions.iter_mut().find(|session| session.serial == serial)
    }

    /// Ends a session and its accepts. Its streams go on.
    fn end(&mut self, serial: u64, now: Instant) {
        self.sessions.retain(|session| session.serial != serial);
        self.ended = Some(now);
        for connection in &mut self.connections {
            if [Role::Control(serial), Role::Waiting(serial)].contains(&connection.role) {
                connection.role = Role::Closed;
            }
        }
    }

    fn command(&mut self, number: usize, line: &str, now: Instant) {
        let words: Vec<&str> = line.split(' ').collect();
        let field = |key: &str| words.iter().find_map(|word| word.strip_prefix(key)).unwrap_or_default().to_owned();
        let role = self.connections[number].role.clone();
        match (&role, words[0], words.get(1).copied().unwrap_or_default()) {
            (Role::New, "HELLO", "VERSION") => {
                let version = if self.kind == Kind::I2pd245 { "3.1" } else { "3.3" };
                self.connections[number].say(&format!("HELLO REPLY RESULT=OK VERSION={version}\n"));
                self.connections[number].role = Role::Greeted;
            }
            (Role::Greeted, "SESSION", "CREATE") => self.create(number, field("ID="), field("DESTINATION="), now),
            (Role::Greeted, "STREAM", command) => self.stream(number, command, &field("ID="), now),
            (Role::Greeted, "NAMING", "LOOKUP") => {
                let result = if self.kind.is_java() { "KEY_NOT_FOUND" } else { "INVALID_KEY" };
                self.connections[number].say(&format!("NAMING REPLY RESULT={result} NAME={}\n", field("NAME=")));
            }
            (Role::Control(serial), "NAMING", "LOOKUP") => self.look_up(number, *serial, &field("NAME="), now),
            (Role::Control(_), "PONG", number) => {
                assert_eq!(number.parse(), Ok(self.counts.pings), "{line}");
                self.counts.pongs += 1;
            }
            _ => panic!("{line:?} as {role:?}"),
        }
    }

    fn create(&mut self, number: usize, id: String, keys: String, now: Instant) {
        let refusal = match (self.kind.is_java(), self.ended) {
            (true, _) if now < self.up_since + NO_MANAGER => "I2P_ERROR MESSAGE=\"No manager yet\"",
            (true, Some(ended)) if now < ended + IN_USE => "DUPLICATED_DEST",
            (true, _) if !self.sessions.is_empty() => "DUPLICATED_DEST",
            _ => "",
        };
        if !refusal.is_empty() {
            self.counts.refused += 1;
            return self.connections[number].say_and_close(&format!("SESSION STATUS RESULT={refusal}\n"));
        }
        // The destination is answered with, and kept for when the tunnels are there.
        self.connections[number].input = keys.into_bytes();
        // The first one is made in real time.
        let longest = if self.counts.created == 0 { 1 } else { 3000 };
        let time = Duration::from_millis(self.rng.below(longest) as u64);
        self.connections[number].role = Role::Building { id, ready: now + time };
    }

    /// Makes the sessions whose tunnels are there.
    fn build(&mut self, now: Instant) -> bool {
        let mut busy = false;
        for number in 0..self.connections.len() {
            let Role::Building { id, ready } = self.connections[number].role.clone() else { continue };
            if now < ready {
                continue;
            }
            busy = true;
            let began = self.connections[number].serial;
            let life = match self.ended {
                _ if self.kind.is_java() => Life::Alive,
                // Twice the same keys, or a destination that still has streams.
                _ if !self.sessions.is_empty() || self.has_streams_of_others() => Life::Doomed(now),
                Some(ended) if now < ended + KEPT => Life::Doomed(ended + KEPT),
                _ => Life::Alive,
            };
            self.counts.doomed += usize::from(life != Life::Alive);
            self.counts.created += 1;
            self.sessions.push(Session { serial: began, id, life, ping: now + PING, asked: None });
            let keys = String::from_utf8(std::mem::take(&mut self.connections[number].input)).unwrap();
            self.connections[number].say(&format!("SESSION STATUS RESULT=OK DESTINATION={keys}\n"));
            self.connections[number].role = Role::Control(began);
        }
        busy
    }

    fn has_streams_of_others(&self) -> bool {
        let is_known = |serial: u64| self.sessions.iter().any(|session| session.serial == serial);
        let is_other = |role: &Role| matches!(role, Role::Stream(serial) if !is_known(*serial));
        self.connections.iter().any(|connection| is_other(&connection.role))
    }

    fn stream(&mut self, number: usize, command: &str, id: &str, now: Instant) {
        let found = self.sessions.iter().find(|session| session.id == id).map(|session| (session.serial, session.life));
        let mute = std::mem::take(&mut self.mute_accept) && command == "ACCEPT";
        let is_lost = |life: Life| matches!(life, Life::Doomed(until) if now >= until);
        self.counts.accepts += usize::from(command == "ACCEPT");
        let connection = &mut self.connections[number];
        match (found, command) {
            (None | Some((_, Life::Forgotten { .. })), _) => {
                connection.say_and_close("STREAM STATUS RESULT=INVALID_ID MESSAGE=\"no such session\"\n");
            }
            (Some((_, life)), _) if is_lost(life) && self.kind == Kind::I2pd245 => {
                connection.say_and_close("STREAM STATUS RESULT=INVALID_ID\n");
            }
            (Some((_, Life::Dead)), "ACCEPT") => {
                let died = "STREAM STATUS RESULT=OK\nSTREAM STATUS RESULT=I2P_ERROR MESSAGE=\"Session was closed\"\n";
                connection.say_and_close(died);
            }
            (Some((_, Life::Dead)), _) => {
                connection.say_and_close("STREAM STATUS RESULT=I2P_ERROR MESSAGE=\"Session was closed\"\n");
            }
            (Some(_), "ACCEPT") if mute => connection.role = Role::Mute,
            (Some((serial, life)), "ACCEPT") => {
                connection.say("STREAM STATUS RESULT=OK\n");
                connection.role = if life == Life::Alive { Role::Waiting(serial) } else { Role::Mute };
            }
            (Some((serial, _)), _) => {
                connection.say("STREAM STATUS RESULT=OK\n");
                connection.role = Role::Stream(serial);
            }
        }
    }

    fn look_up(&mut self, number: usize, serial: u64, name: &str, now: Instant) {
        self.counts.lookups += 1;
        assert_eq!(name, "ME");
        let Some(session) = self.session(serial) else { return };
        if let Some(before) = session.asked.replace(now) {
            assert!(now - before >= LOOKUP_PAUSE, "asked for a sign of life again after {:?}", now - before);
        }
        let life = session.life;
        match life {
            Life::Announced => {}
            Life::Forgotten { lookups: true } => {
                self.connections[number].say("NAMING REPLY RESULT=INVALID_ID NAME=ME\n");
            }
            _ => {
                let answer = format!("NAMING REPLY RESULT=OK NAME=ME VALUE={}\n", destination(self.own));
                self.connections[number].say(&answer);
            }
        }
    }

    fn ping(&mut self, now: Instant) -> bool {
        let mut busy = false;
        for index in 0..self.sessions.len() {
            if !self.pings(&self.sessions[index]) || now < self.sessions[index].ping {
                continue;
            }
            self.sessions[index].ping = now + PING;
            self.counts.pings += 1;
            let (control, text) = (Role::Control(self.sessions[index].serial), format!("PING {}\n", self.counts.pings));
            let connection = self.connections.iter_mut().find(|connection| connection.role == control);
            connection.unwrap().say(&text);
            busy = true;
        }
        busy
    }

    /// A client comes on a waiting accept of a session that lives; `false` if there is none.
    pub fn deliver(&mut self) -> bool {
        let alive = |serial| self.sessions.iter().any(|one| one.serial == serial && one.life == Life::Alive);
        let waiting = |connection: &&mut Connection| matches!(connection.role, Role::Waiting(one) if alive(one));
        let Some(connection) = self.connections.iter_mut().find(waiting) else { return false };
        let ports = if self.kind.is_java() { " FROM_PORT=0 TO_PORT=0" } else { "" };
        connection.say(&format!("{}{ports}\n", destination(3)));
        let Role::Waiting(serial) = connection.role else { return false };
        connection.role = Role::Stream(serial);
        true
    }

    /// The router ends its sessions and closes their control sockets.
    pub fn end_sessions(&mut self, now: Instant) {
        while let Some(session) = self.sessions.first() {
            self.end(session.serial, now);
        }
        self.tidy();
    }

    /// It does nothing more, as if its machine had lost its power, until [`Router::come_back`].
    pub fn stop(&mut self) {
        self.stopped = true;
    }

    /// Its process ends, and with it everything.
    pub fn shut_down(&mut self) {
        self.listener = None;
        std::fs::remove_file(&self.path).unwrap();
        self.connections.clear();
        self.sessions.clear();
        self.ended = None;
    }

    /// Whether it answers.
    pub fn runs(&self) -> bool {
        self.listener.is_some() && !self.stopped
    }

    /// It goes on after it was stopped, or is started again.
    pub fn come_back(&mut self, now: Instant) {
        if !std::mem::take(&mut self.stopped) {
            self.start(now);
        }
    }

    fn start(&mut self, now: Instant) {
        let listener = UnixListener::bind(&self.path).unwrap();
        listener.set_nonblocking(true).unwrap();
        self.listener = Some(listener);
        self.up_since = now;
    }

    /// The sessions' ids mean nothing to it any more, although their control sockets stay open. With `accepts`, it ends
    /// their accepts; with `lookups`, the answer to those is different too.
    pub fn forget(&mut self, accepts: bool, lookups: bool, now: Instant) {
        for session in &mut self.sessions {
            session.life = Life::Forgotten { lookups };
        }
        self.ended = Some(now);
        for connection in &mut self.connections {
            if let Role::Waiting(_) = connection.role {
                connection.role = if accepts { Role::Closed } else { Role::Mute };
            }
        }
        self.tidy();
    }

    /// Java's session dies behind its open control socket.
    pub fn die(&mut self) {
        for session in &mut self.sessions {
            session.life = Life::Dead;
        }
        for connection in &mut self.connections {
            if let Role::Waiting(_) = connection.role {
                connection.say_and_close("STREAM STATUS RESULT=I2P_ERROR MESSAGE=\"Session was closed\"\n");
            }
        }
        self.tidy();
    }

    /// The end of the sessions is announced, and nothing else happens.
    pub fn announce(&mut self) {
        for session in &mut self.sessions {
            session.life = Life::Announced;
        }
        for connection in &mut self.connections {
            match connection.role {
                Role::Control(_) => connection.say("SESSION STATUS RESULT=I2P_ERROR MESSAGE=\"Router restart\"\n"),
                Role::Waiting(_) => connection.role = Role::Mute,
                _ => {}
            }
        }
    }

    /// The next accept is never answered.
    pub fn leave_next_accept(&mut self) {
        self.mute_accept = true;
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.path));
    }
}
