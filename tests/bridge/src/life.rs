//! Whether sessions live: how they die behind an open control socket, how routers forget them, and what i2pd does to
//! those that get a closed destination which it still has.

use crate::config::Personality;
use crate::conn::{Conn, Kind};
use crate::faults::{Faults, Reply};
use crate::handler::{Handler, Next};
use crate::session::end_streams;
use crate::shared::{lock, Outcome, Session, Shared, State};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What Java says when a session has died behind its open control socket.
pub(crate) const DIED: &str = "Session was closed";

/// What i2pd still has to do with the keys of sessions that have ended.
#[derive(Debug, Default)]
pub(crate) struct Closed {
    /// When it deletes the destination: once for every session that had it.
    deletions: Vec<Instant>,
    /// The destination is still there, and the next session with these keys gets it.
    kept: bool,
}

/// What a new session finds when another one had its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ground {
    /// Nothing.
    Free,
    /// Another session that has these keys now.
    Shared,
    /// A closed destination, to be deleted before long.
    Kept,
    /// A deletion that is still to come, which hits the new destination before it is ready.
    Doomed,
}

/// Streams that end with their session.
type Streams = Vec<Arc<Conn>>;

/// Where a session is kept that cannot be named any more: no id has a line feed.
fn unnameable(id: &str, serial: u64) -> String {
    format!("{id}\n{serial}")
}

impl Session {
    /// It is there, and not only in name.
    pub(crate) fn works(&self) -> bool {
        self.ready && !self.dead
    }
}

impl State {
    /// The key of a session in the table: its id, unless it was forgotten.
    pub(crate) fn key(&self, id: &str, serial: u64) -> Option<String> {
        let is_it = |key: &str| self.sessions.get(key).is_some_and(|s| s.serial == serial);
        if is_it(id) {
            return Some(id.to_string());
        }
        Some(unnameable(id, serial)).filter(|key| is_it(key))
    }

    pub(crate) fn session(&self, id: &str, serial: u64) -> Option<&Session> {
        self.key(id, serial).and_then(|key| self.sessions.get(&key))
    }

    pub(crate) fn session_mut(&mut self, id: &str, serial: u64) -> Option<&mut Session> {
        self.key(id, serial).and_then(|key| self.sessions.get_mut(&key))
    }

    /// Takes a session out of the table.
    pub(crate) fn take(&mut self, id: &str, serial: u64) -> Option<Session> {
        self.key(id, serial).and_then(|key| self.sessions.remove(&key))
    }

    /// A session loses its id. What it has stays as it is; `false` when there is no such session.
    pub(crate) fn forget(&mut self, id: &str) -> bool {
        match self.sessions.remove(id) {
            Some(session) => {
                self.sessions.insert(unnameable(id, session.serial), session);
                true
            }
            None => false,
        }
    }

    /// A session is dead from now on, with its control socket open. Gives the streams that end with it.
    fn die(&mut self, key: &str, personality: Personality) -> Streams {
        self.deaths += 1;
        let Some(session) = self.sessions.get_mut(key) else {
            return Vec::new();
        };
        session.dead = true;
        // Whoever waits there on i2pd goes on waiting.
        if !personality.is_i2pd() {
            for slot in session.acceptors.drain(..).chain(session.incoming.drain(..)) {
                slot.set(Outcome::Died);
            }
        }
        session.streams.drain().map(|(_, conn)| conn).collect()
    }

    /// All living sessions with these keys die.
    pub(crate) fn die_all(&mut self, public: &[u8], personality: Personality) -> Streams {
        let live = self.sessions.iter().filter(|(_, s)| !s.dead && s.public == public);
        let keys: Vec<_> = live.map(|(key, _)| key.clone()).collect();
        keys.iter().flat_map(|key| self.die(key, personality)).collect()
    }

    /// What a new session with these keys finds on i2pd.
    pub(crate) fn ground(&self, public: &[u8]) -> Ground {
        match self.closed.get(public) {
            _ if self.sessions.values().any(|s| !s.dead && s.public == public) => Ground::Shared,
            Some(closed) if closed.kept => Ground::Kept,
            Some(_) => Ground::Doomed,
            None => Ground::Free,
        }
    }

    /// A session with this destination has ended, and i2pd keeps the destination for a while.
    pub(crate) fn keep(&mut self, session: &Session, time: Duration) {
        let closed = self.closed.entry(session.public.clone()).or_default();
        closed.kept |= !session.dead;
        closed.deletions.push(Instant::now() + time);
    }

    /// A stream of this destination has ended, from when on a closed destination is kept as long again.
    pub(crate) fn stream_ended(&mut self, public: &[u8], time: Duration) {
        if let Some(closed) = self.closed.get_mut(public) {
            let until = Instant::now() + time;
            closed.deletions.iter_mut().for_each(|at| *at = until.max(*at));
        }
    }

    /// Deletes the closed destinations whose time is over, unless they have streams. Gives the streams that end and when
    /// to look again.
    fn delete_closed(&mut self, now: Instant, time: Duration, personality: Personality) -> (Streams, Option<Instant>) {
        let mut ended = Vec::new();
        let due = self.closed.iter().filter(|(_, closed)| closed.deletions.iter().any(|at| *at <= now));
        let due: Vec<_> = due.map(|(public, _)| public.clone()).collect();
        for public in due {
            let busy = |s: &Session| s.public == public && !s.streams.is_empty();
            if self.sessions.values().any(busy) {
                // The end of the stream sets another time.
                continue;
            }
            let dies = self.sessions.values().any(|s| !s.dead && s.public == public);
            ended.extend(self.die_all(&public, personality));
            if let Some(closed) = self.closed.get_mut(&public) {
                closed.kept = false;
                closed.deletions.retain(|at| *at > now);
                // While the dead one is there, another one fares no better.
                closed.deletions.extend(dies.then_some(now + time));
            }
        }
        self.closed.retain(|_, closed| !closed.deletions.is_empty());
        let times = self.closed.values().flat_map(|closed| &closed.deletions);
        (ended, times.filter(|at| **at > now).min().copied())
    }
}

/// Lets die what has to. Gives the streams that end, and when to look again.
pub(crate) fn run(shared: &Arc<Shared>, state: &mut State, now: Instant) -> (Streams, Option<Instant>) {
    let personality = shared.config.personality;
    let deaths = state.deaths;
    let (mut streams, mut wake) = state.delete_closed(now, shared.config.keep_time(), personality);
    let limits = {
        let faults = lock(&shared.faults);
        [faults.config.die_after, faults.config.forget_after]
    };
    for (forget, limit) in [false, true].into_iter().zip(limits) {
        let Some(limit) = limit else {
            continue;
        };
        // Those that are dead can still be forgotten.
        let counts = |key: &str, s: &Session| s.ready && if forget { !key.contains('\n') } else { !s.dead };
        let sessions = state.sessions.iter().filter(|(key, s)| counts(key, s));
        let ends: Vec<_> = sessions.map(|(key, s)| (key.clone(), s.born + limit)).collect();
        for (key, at) in ends {
            if at > now {
                wake = Some(wake.map_or(at, |other| other.min(at)));
            } else if forget {
                state.forget(&key);
            } else {
                streams.extend(state.die(&key, personality));
            }
        }
    }
    if state.deaths != deaths {
        // Accepts of those that died may be waiting.
        shared.changed.notify_all();
    }
    (streams, wake)
}

impl Shared {
    /// A stream of this destination has ended.
    pub(crate) fn stream_ended(&self, public: &[u8]) {
        lock(&self.state).stream_ended(public, self.config.keep_time());
        self.changed.notify_all();
    }
}

impl Handler {
    /// A STREAM command for a session that has died behind its open control socket.
    pub(crate) fn dead(&self, kind: Reply, silent: bool) -> Next {
        let plan = self.shared.plan(kind);
        if plan.is_final() {
            return self.stream_fault(&plan);
        }
        self.shared.set_kind(&self.conn, Kind::Stream);
        match (self.shared.config.personality, kind) {
            (Personality::Emissary, _) => Next::Close,
            (Personality::I2pd245, _) => self.stream_error_planned(&plan, "INVALID_ID", ""),
            (Personality::Java, Reply::StreamConnect) => self.stream_error_planned(&plan, "I2P_ERROR", DIED),
            (Personality::Java, Reply::StreamAccept) if silent => Next::Close,
            (Personality::Java, Reply::StreamAccept) => {
                self.write_status(&self.conn, Some(plan), silent);
                self.stream_error(Reply::StreamAcceptPeer, "I2P_ERROR", DIED)
            }
            // OK, and nothing ever follows.
            _ => {
                self.write_status(&self.conn, Some(plan), silent);
                self.hang()
            }
        }
    }
}

impl Faults {
    /// The session with this id dies while its control socket stays open and is answered as before, the way routers lose
    /// sessions: on Java ACCEPT gets OK and then `Session was closed`, CONNECT that at once; i2pd 2.45 answers all STREAM
    /// commands with INVALID_ID; i2pd 2.58 says OK to them and nothing follows; emissary closes their connections.
    /// Datagrams vanish. Says whether there was such a session.
    pub fn die_session(&self, id: &str) -> bool {
        let streams = {
            let mut state = lock(&self.shared.state);
            if !state.sessions.contains_key(id) {
                return false;
            }
            state.die(id, self.shared.config.personality)
        };
        self.shared.changed.notify_all();
        end_streams(&self.shared, streams, None);
        true
    }

    /// The router forgets the id of this session, which goes on otherwise: STREAM commands are answered as for an id that
    /// never was. Says whether there was such a session.
    pub fn forget_session(&self, id: &str) -> bool {
        let found = lock(&self.shared.state).forget(id);
        self.shared.changed.notify_all();
        found
    }
}
