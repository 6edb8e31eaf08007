//! NAMING LOOKUP and the names behind it.

use crate::config::Personality;
use crate::destination::{b32_address, generate, is_destination, text};
use crate::encoding::base64_decode;
use crate::faults::Reply;
use crate::handler::{Handler, Next};
use crate::line::Command;
use crate::shared::{lock, Shared, State};

/// The destination of a lower-case name: from the host table, or by base32 address.
pub(crate) fn find(state: &State, lower: &str) -> Option<Vec<u8>> {
    if let Some(destination) = state.hosts.get(lower) {
        return Some(destination.clone());
    }
    if !lower.ends_with(".b32.i2p") {
        return None;
    }
    state
        .sessions
        .values()
        .filter(|s| s.ready)
        .map(|s| &s.public)
        .chain(state.hosts.values())
        .find(|destination| b32_address(destination) == lower)
        .cloned()
}

/// The destination of a datagram: base64 and, when `names` are allowed, anything with a name.
pub(crate) fn destination(state: &State, text: &str, names: bool) -> Option<Vec<u8>> {
    match text.len() {
        516.. => base64_decode(text).filter(|raw| is_destination(raw)),
        _ if names => find(state, &text.to_ascii_lowercase()),
        _ => None,
    }
}

/// A destination as text becomes bytes, or an error RESULT.
pub(crate) fn resolve(shared: &Shared, name: &str) -> Result<Vec<u8>, &'static str> {
    if name.len() >= 516 {
        return base64_decode(name).filter(|raw| is_destination(raw)).ok_or("INVALID_KEY");
    }
    let lower = name.to_ascii_lowercase();
    match find(&lock(&shared.state), &lower) {
        Some(destination) => Ok(destination),
        None if lower.ends_with(".b32.i2p") => Err("CANT_REACH_PEER"),
        None if lower.ends_with(".i2p") && shared.config.personality == Personality::Emissary => Err("CANT_REACH_PEER"),
        None => Err("INVALID_KEY"),
    }
}

/// Puts a name into the host table; `false` when the destination is none.
pub(crate) fn add(state: &mut State, name: &str, destination: &str) -> bool {
    match base64_decode(destination).filter(|raw| is_destination(raw)) {
        Some(raw) => {
            state.hosts.insert(name.to_ascii_lowercase(), raw);
            true
        }
        None => false,
    }
}

impl Handler {
    /// NAMING LOOKUP.
    pub(crate) fn naming_lookup(&self, command: &Command) -> Next {
        let personality = self.shared.config.personality;
        let Some(name) = command.get("NAME") else {
            return match personality {
                Personality::Emissary => Next::Continue,
                Personality::Java => self.naming_reply("I2P_ERROR MESSAGE=\"No NAME specified\""),
                _ => Next::Close,
            };
        };
        let session = self.conn.session();
        if personality == Personality::Emissary && session.is_none() {
            return self.naming_reply(&format!("KEY_NOT_FOUND NAME={name}"));
        }
        if name == "ME" && session.is_none() && personality == Personality::Java {
            return Next::Close;
        }
        let found = {
            let mut state = lock(&self.shared.state);
            match (name, &session) {
                ("ME", Some((id, serial))) => state.session(id, *serial).map(|s| s.public.clone()),
                ("ME", None) => {
                    // i2pd answers with a destination of its own.
                    if state.local.is_none() {
                        state.local = generate(7).map(|pair| pair.public);
                    }
                    state.local.clone()
                }
                _ => find(&state, &name.to_ascii_lowercase()),
            }
        };
        let found = found.or_else(|| self.echo(name));
        match found {
            Some(raw) => self.naming_reply(&format!("OK NAME={name} VALUE={}", text(&raw))),
            None => {
                let result = match personality {
                    Personality::Java => "KEY_NOT_FOUND",
                    Personality::Emissary if name.contains(".i2p") => "KEY_NOT_FOUND",
                    _ => "INVALID_KEY",
                };
                self.naming_reply(&format!("{result} NAME={name}"))
            }
        }
    }

    /// A destination given in full: Java echoes it, i2pd when it knows it.
    fn echo(&self, name: &str) -> Option<Vec<u8>> {
        let raw = base64_decode(name).filter(|raw| is_destination(raw))?;
        match self.shared.config.personality {
            Personality::Java => Some(raw),
            Personality::Emissary => None,
            _ => {
                let state = lock(&self.shared.state);
                let mut sessions = state.sessions.values().filter(|s| s.ready).map(|s| &s.public);
                let known = sessions.any(|known| *known == raw) || state.hosts.values().any(|known| *known == raw);
                known.then_some(raw)
            }
        }
    }

    fn naming_reply(&self, rest: &str) -> Next {
        let line = format!("NAMING REPLY RESULT={rest}\n");
        Next::after(self.shared.reply(&self.conn, Reply::NamingLookup, &line))
    }
}
