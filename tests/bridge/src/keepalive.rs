//! The one thread per bridge that sends PINGs, drops sockets that do not answer them, and lets sessions die.

use crate::config::Personality;
use crate::conn::{Conn, Kind};
use crate::handler::pings_when_idle;
use crate::life;
use crate::session::end_streams;
use crate::shared::{lock, Shared};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// An interval of zero would leave no time for anything else.
const MIN_INTERVAL: Duration = Duration::from_millis(1);

/// What a connection is due for.
enum Due {
    /// The flag: it is the fault's, which counts them.
    Ping(Arc<Conn>, String, bool),
    Drop(Arc<Conn>),
}

/// Runs until the bridge stops.
pub(crate) fn run(shared: &Arc<Shared>) {
    let mut counter = 0;
    let mut state = lock(&shared.state);
    while !shared.is_stopping() {
        let now = Instant::now();
        let every = lock(&shared.faults).config.ping_every;
        let every = every.map(|time| time.max(MIN_INTERVAL));
        let idle = shared.config.idle_ping.filter(|_| shared.config.personality == Personality::Java);
        let mut due = Vec::new();
        let (ended, mut wake) = life::run(shared, &mut state, now);
        if every.is_some() || idle.is_some() {
            for conn in state.conns.values() {
                for at in look(conn, now, every, idle, &mut counter, &mut due) {
                    wake = Some(wake.map_or(at, |other| other.min(at)));
                }
            }
        }
        if due.is_empty() && ended.is_empty() {
            state = match wake {
                None => shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(at) => {
                    shared
                        .changed
                        .wait_timeout(state, at.saturating_duration_since(now))
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
            };
            continue;
        }
        // Never write with the state locked: a client that does not read would stop everybody.
        drop(state);
        end_streams(shared, ended, None);
        for action in due {
            act(shared, action);
        }
        state = lock(&shared.state);
    }
}

/// Finds what is due on one connection and when to look again.
fn look(
    conn: &Arc<Conn>,
    now: Instant,
    every: Option<Duration>,
    idle: Option<Duration>,
    counter: &mut u64,
    due: &mut Vec<Due>,
) -> Vec<Instant> {
    let mut again = Vec::new();
    let mut info = lock(&conn.info);
    if let (Some(interval), Kind::Control | Kind::Forward) = (every, info.kind) {
        let at = *info.next_ping.get_or_insert(now + interval);
        if at <= now {
            *counter += 1;
            let text = counter.to_string();
            info.pings.push_back(text.clone());
            info.next_ping = Some(now + interval);
            again.push(now + interval);
            due.push(Due::Ping(Arc::clone(conn), text, true));
        } else {
            again.push(at);
        }
    }
    if let Some(interval) = idle.filter(|_| !info.busy && pings_when_idle(info.version, info.kind)) {
        let at = match &info.expected {
            Some((_, until)) => *until,
            None => info.last_line + interval,
        };
        if at > now {
            again.push(at);
        } else if info.expected.is_some() {
            // Once is enough, however long the socket takes to go.
            info.kind = Kind::Stream;
            due.push(Due::Drop(Arc::clone(conn)));
        } else {
            let time = SystemTime::now().duration_since(UNIX_EPOCH);
            let text = time.map_or(0, |t| t.as_millis()).to_string();
            info.expected = Some((text.clone(), now + interval));
            again.push(now + interval);
            due.push(Due::Ping(Arc::clone(conn), text, false));
        }
    }
    again
}

fn act(shared: &Shared, due: Due) {
    match due {
        Due::Ping(conn, text, counted) => {
            let sent = shared.emit(&conn, format!("PING {text}\n").as_bytes());
            if counted && sent.is_ok() {
                lock(&shared.faults).pings += 1;
            }
        }
        Due::Drop(conn) => {
            let line = b"SESSION STATUS RESULT=I2P_ERROR MESSAGE=\"PONG timeout\"\n";
            let _ = shared.emit(&conn, line);
            conn.kill();
        }
    }
}
