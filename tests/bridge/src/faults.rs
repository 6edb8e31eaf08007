//! What can be made to go wrong, and the handle that does it while the bridge runs.

use crate::shared::{lock, Shared};
use crate::trouble::Trouble;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The kind of a line the bridge writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reply {
    /// Every kind; only in a [`Rule`].
    Any,
    /// To HELLO VERSION.
    Hello,
    /// To DEST GENERATE.
    DestGenerate,
    /// To SESSION CREATE.
    SessionCreate,
    /// To SESSION ADD.
    SessionAdd,
    /// To SESSION REMOVE.
    SessionRemove,
    /// To STREAM CONNECT.
    StreamConnect,
    /// To STREAM ACCEPT: the status line.
    StreamAccept,
    /// The line that names the peer, to an accepting or a forwarded socket.
    StreamAcceptPeer,
    /// To STREAM FORWARD.
    StreamForward,
    /// To NAMING LOOKUP.
    NamingLookup,
    /// To AUTH.
    Auth,
    /// To PING.
    Pong,
    /// To QUIT and its synonyms.
    Quit,
    /// To anything else.
    Other,
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Any => "ANY",
            Self::Hello => "HELLO",
            Self::DestGenerate => "DEST GENERATE",
            Self::SessionCreate => "SESSION CREATE",
            Self::SessionAdd => "SESSION ADD",
            Self::SessionRemove => "SESSION REMOVE",
            Self::StreamConnect => "STREAM CONNECT",
            Self::StreamAccept => "STREAM ACCEPT",
            Self::StreamAcceptPeer => "STREAM ACCEPT PEER",
            Self::StreamForward => "STREAM FORWARD",
            Self::NamingLookup => "NAMING LOOKUP",
            Self::Auth => "AUTH",
            Self::Pong => "PONG",
            Self::Quit => "QUIT",
            Self::Other => "OTHER",
        })
    }
}

/// What happens to a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is never written; the connection stays open and silent.
    Stall,
    /// It is not written; the connection is closed.
    Close,
    /// Only its first bytes are written, then the connection is closed.
    CloseAfter(usize),
    /// Its newline is not written, then the connection is closed.
    OmitNewline,
    /// These bytes are written in its place.
    Replace {
        /// What is written, exactly.
        bytes: Vec<u8>,
        /// Whether the connection is closed afterwards.
        close: bool,
    },
    /// These bytes are written in front of it. Other rules still apply.
    Prepend(Vec<u8>),
    /// It is written this much later. Other rules still apply.
    Delay(Duration),
    /// It is written, and so much later these bytes, then the connection is closed. What was asked for is not done.
    ThenClose {
        /// How long all seems well.
        after: Duration,
        /// What is written at the end, exactly; may be empty.
        bytes: Vec<u8>,
    },
}

impl Action {
    /// [`Action::Replace`] that leaves the connection open.
    pub fn replace(bytes: impl AsRef<[u8]>) -> Self {
        Self::Replace { bytes: bytes.as_ref().to_vec(), close: false }
    }

    /// [`Action::Replace`] that closes the connection.
    pub fn replace_and_close(bytes: impl AsRef<[u8]>) -> Self {
        Self::Replace { bytes: bytes.as_ref().to_vec(), close: true }
    }

    /// [`Action::ThenClose`].
    pub fn then_close(after: Duration, bytes: impl AsRef<[u8]>) -> Self {
        Self::ThenClose { after, bytes: bytes.as_ref().to_vec() }
    }

    /// [`Action::Prepend`].
    pub fn prepend(bytes: impl AsRef<[u8]>) -> Self {
        Self::Prepend(bytes.as_ref().to_vec())
    }
}

/// Which replies of a kind a rule takes, counted over all connections from when the rule was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// All.
    Every,
    /// The nth, beginning with 1.
    Nth(u64),
    /// The first n.
    First(u64),
    /// All after the first n.
    After(u64),
}

/// One fault of one kind of reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The kind of reply.
    pub reply: Reply,
    /// Which of them.
    pub which: Which,
    /// What happens to it.
    pub action: Action,
}

/// How lines are cut into writes. Stream data is never cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Split {
    /// One write per line.
    #[default]
    Whole,
    /// Writes of so many bytes.
    Every {
        /// Bytes per write; 0 counts as 1.
        bytes: usize,
        /// The pause between two writes.
        gap: Duration,
    },
    /// Two writes.
    At {
        /// Bytes in the first write.
        byte: usize,
        /// The pause between the writes.
        gap: Duration,
    },
}

/// All faults that are settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FaultConfig {
    /// How lines are cut.
    pub split: Split,
    /// One byte of each line per interval.
    pub drip: Option<Duration>,
    /// Hold the OK of CONNECT and ACCEPT and the peer line back until the first payload, and write all in one
    /// piece; at most for this long.
    pub coalesce: Option<Duration>,
    /// Send PING on all session control sockets and all forward sockets at this interval, at most one a millisecond.
    pub ping_every: Option<Duration>,
    /// So many sessions with given keys are refused with DUPLICATED_DEST, whatever the personality: their last session
    /// is not quite gone yet.
    pub duplicated_times: u64,
    /// The same for all of them in this time from the start of the bridge.
    pub duplicated_for: Duration,
    /// The same for a destination in this time from the end of its last session, as Java does for a second or so.
    pub duplicated_after: Duration,
    /// All sessions in this time from the start of the bridge are refused with Java's `No manager yet`.
    pub no_manager: Duration,
    /// Every session dies so long after it was answered OK: see [`Faults::die_session`].
    pub die_after: Option<Duration>,
    /// Every session is forgotten so long after it was answered OK: see [`Faults::forget_session`].
    pub forget_after: Option<Duration>,
    /// New keys are DSA_SHA1 ones, whatever SIGNATURE_TYPE asks for.
    pub dsa_keys: bool,
    /// This many percent of all datagrams are lost.
    pub loss: u8,
    /// This many percent of all datagrams are delivered twice.
    pub duplicate: u8,
    /// This many percent of all datagrams are held back until the next one to the same session has arrived.
    pub reorder: u8,
    /// Along with this many percent of all datagrams forwarded by UDP another one is sent, with the same header
    /// and the payload `forged`, from a port that is not the bridge's.
    pub forge: u8,
    /// Decides which datagrams these are: they are the same ones with the same seed.
    pub seed: u64,
    /// Faults of single replies. The first that applies wins.
    pub rules: Vec<Rule>,
}

/// A PONG that came in answer to [`FaultConfig::ping_every`] or unasked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pong {
    /// The connection's number.
    pub connection: u64,
    /// What follows `PONG `.
    pub text: String,
    /// Whether exactly this text had been sent there and not been answered yet.
    pub matched: bool,
}

#[derive(Debug, Default)]
pub(crate) struct FaultState {
    pub(crate) config: FaultConfig,
    /// Replies seen by each rule.
    seen: Vec<u64>,
    pub(crate) pings: u64,
    pub(crate) pongs: Vec<Pong>,
    pub(crate) trouble: Trouble,
    /// Until when sessions with given keys are refused.
    duplicated_until: Option<Instant>,
    /// Until when all sessions are refused.
    no_manager_until: Option<Instant>,
}

/// What has been decided about one reply.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    pub(crate) delay: Duration,
    pub(crate) prepend: Vec<u8>,
    pub(crate) action: Option<Action>,
}

impl Plan {
    /// Whether the connection is of no use afterwards. Such a command is answered but not carried out, so that
    /// no other session notices it.
    pub(crate) fn is_final(&self) -> bool {
        match &self.action {
            None => false,
            Some(Action::Replace { close, .. }) => *close,
            Some(_) => true,
        }
    }
}

impl FaultState {
    pub(crate) fn new(config: FaultConfig) -> Self {
        let trouble = Trouble::new(config.seed);
        let now = Instant::now();
        Self {
            seen: vec![0; config.rules.len()],
            duplicated_until: Some(now + config.duplicated_for),
            no_manager_until: Some(now + config.no_manager),
            config,
            trouble,
            ..Self::default()
        }
    }

    /// Whether no session is possible yet.
    pub(crate) fn has_no_manager(&self) -> bool {
        self.no_manager_until.is_some_and(|until| Instant::now() < until)
    }

    /// Whether a session with given keys is refused, which counts.
    pub(crate) fn is_duplicated(&mut self) -> bool {
        if self.duplicated_until.is_some_and(|until| Instant::now() < until) {
            return true;
        }
        let refused = self.config.duplicated_times > 0;
        self.config.duplicated_times -= u64::from(refused);
        refused
    }

    /// Decides about the next reply of this kind.
    pub(crate) fn plan(&mut self, reply: Reply) -> Plan {
        let mut plan = Plan::default();
        for (rule, seen) in self.config.rules.iter().zip(&mut self.seen) {
            if rule.reply != reply && rule.reply != Reply::Any {
                continue;
            }
            *seen += 1;
            let applies = match rule.which {
                Which::Every => true,
                Which::Nth(n) => *seen == n,
                Which::First(n) => *seen <= n,
                Which::After(n) => *seen > n,
            };
            if !applies {
                continue;
            }
            match &rule.action {
                Action::Prepend(bytes) => plan.prepend.extend_from_slice(bytes),
                Action::Delay(time) => plan.delay += *time,
                action if plan.action.is_none() => plan.action = Some(action.clone()),
                _ => {}
            }
        }
        plan
    }
}

/// Changes a running bridge. Clones drive the same bridge, from any thread.
#[derive(Clone)]
pub struct Faults {
    pub(crate) shared: Arc<Shared>,
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        lock(&self.shared.faults).fmt(f)
    }
}

impl Faults {
    /// Adds a rule behind the others.
    pub fn rule(&self, reply: Reply, which: Which, action: Action) {
        let mut faults = lock(&self.shared.faults);
        faults.config.rules.push(Rule { reply, which, action });
        faults.seen.push(0);
    }

    /// A rule for every reply of this kind.
    pub fn every(&self, reply: Reply, action: Action) {
        self.rule(reply, Which::Every, action);
    }

    /// A rule for the next reply of this kind.
    pub fn once(&self, reply: Reply, action: Action) {
        self.rule(reply, Which::Nth(1), action);
    }

    /// Forgets all rules.
    pub fn clear_rules(&self) {
        let mut faults = lock(&self.shared.faults);
        faults.config.rules.clear();
        faults.seen.clear();
    }

    /// Switches everything off: rules, split, drip, coalesce, PINGs, refusals, trouble with datagrams. What was
    /// recorded stays, and datagrams that were held back are handed over.
    pub fn clear(&self) {
        self.clear_rules();
        {
            let mut faults = lock(&self.shared.faults);
            faults.config = FaultConfig::default();
            faults.duplicated_until = None;
            faults.no_manager_until = None;
        }
        self.shared.poke();
        self.shared.release_held();
    }

    /// How lines are cut from now on.
    pub fn split(&self, split: Split) {
        lock(&self.shared.faults).config.split = split;
    }

    /// One byte of each line per interval from now on; `None` ends it.
    pub fn drip(&self, interval: Option<Duration>) {
        lock(&self.shared.faults).config.drip = interval;
    }

    /// Writes status line, peer line and first payload in one piece when the payload comes within `hold`.
    pub fn coalesce(&self, hold: Option<Duration>) {
        lock(&self.shared.faults).config.coalesce = hold;
    }

    /// PINGs on all control and forward sockets from now on; `None` ends it.
    pub fn ping_every(&self, interval: Option<Duration>) {
        lock(&self.shared.faults).config.ping_every = interval;
        self.shared.poke();
    }

    /// The next so many sessions with given keys are refused with DUPLICATED_DEST.
    pub fn duplicated_times(&self, times: u64) {
        lock(&self.shared.faults).config.duplicated_times = times;
    }

    /// All sessions with given keys are refused with DUPLICATED_DEST for so long from now.
    pub fn duplicated_for(&self, time: Duration) {
        lock(&self.shared.faults).duplicated_until = Some(Instant::now() + time);
    }

    /// A destination whose session ends from now on is refused with DUPLICATED_DEST for so long.
    pub fn duplicated_after(&self, time: Duration) {
        lock(&self.shared.faults).config.duplicated_after = time;
    }

    /// All sessions are refused with `No manager yet` for so long from now.
    pub fn no_manager(&self, time: Duration) {
        lock(&self.shared.faults).no_manager_until = Some(Instant::now() + time);
    }

    /// Whether new keys are DSA_SHA1 ones from now on, whatever is asked for.
    pub fn dsa_keys(&self, on: bool) {
        lock(&self.shared.faults).config.dsa_keys = on;
    }

    /// The next so many ACCEPTs are answered OK and after this time closed, with these bytes as the last ones.
    pub fn accepts_end(&self, times: u64, after: Duration, bytes: impl AsRef<[u8]>) {
        self.rule(Reply::StreamAccept, Which::First(times), Action::then_close(after, bytes));
    }

    /// PINGs sent by [`Faults::ping_every`] so far.
    pub fn pings_sent(&self) -> u64 {
        lock(&self.shared.faults).pings
    }

    /// PONGs received so far.
    pub fn pongs(&self) -> Vec<Pong> {
        lock(&self.shared.faults).pongs.clone()
    }

    /// Ends the session with this id and closes its control socket, after a
    /// `SESSION STATUS RESULT=I2P_ERROR` line when `announce` is set. Says whether there was one.
    pub fn kill_session(&self, id: &str, announce: bool) -> bool {
        crate::session::kill(&self.shared, id, announce)
    }

    /// Ends all sessions, as [`Faults::kill_session`], and returns how many.
    pub fn kill_all_sessions(&self, announce: bool) -> usize {
        crate::session::all_ids(&self.shared).iter().filter(|id| self.kill_session(id, announce)).count()
    }

    /// Writes these bytes on all session control sockets and returns on how many.
    pub fn unsolicited(&self, bytes: impl AsRef<[u8]>) -> usize {
        crate::session::controls(&self.shared)
            .iter()
            .filter(|conn| self.shared.emit(conn, bytes.as_ref()).is_ok())
            .count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(which: Which, action: Action) -> Rule {
        Rule { reply: Reply::Hello, which, action }
    }

    #[test]
    fn rules_count_and_combine() {
        let mut faults = FaultState::new(FaultConfig {
            rules: vec![
                rule(Which::Every, Action::prepend("x")),
                rule(Which::Nth(2), Action::Stall),
                rule(Which::After(2), Action::Close),
                rule(Which::Every, Action::Delay(Duration::from_secs(1))),
            ],
            ..FaultConfig::default()
        });
        for wanted in [None, Some(Action::Stall), Some(Action::Close)] {
            assert!(faults.plan(Reply::Other).prepend.is_empty());
            let plan = faults.plan(Reply::Hello);
            assert_eq!(plan.action, wanted);
            assert_eq!(plan.is_final(), wanted.is_some());
            assert_eq!(plan.prepend, b"x");
            assert_eq!(plan.delay, Duration::from_secs(1));
        }
    }
}
