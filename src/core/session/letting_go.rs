//! Waiting until the router has let go of the last session with the same keys.
//!
//! i2pd keeps a closed destination for five seconds, gives it to the next session with these keys, and then deletes it
//! all the same: that session looks alive and is dead for good. Other routers do not. What tells them apart is what they
//! say about a name that cannot exist: i2pd answers INVALID_KEY, the others KEY_NOT_FOUND. So before we wait, we ask.
//!
//! ```text
//!   Start ---> Asking ---> Waiting ---> done
//!     |           |  KEY_NOT_FOUND       ^
//!     +-----------+----------------------+
//! ```
//!
//! A router that stood still when we gave a session up notices its end when it goes on, and keeps the destination from
//! then on. So we also ask if it was not heard since the session ended, however long ago that is, and if it does not answer
//! at once, the wait begins with its answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::core::bridge::{Bridge, BridgeConnection};
use crate::core::drive::{after, earlier, passed, Deadline, Progress, Scope, Waiting};
use crate::core::session::last_session;
use crate::error::{Result, Status};
use crate::identity::Address;
use crate::protocol::handshake::Phase;
use crate::protocol::request::Request;
use crate::sys::SharedFd;

/// A name that no address book has: ours to make up, since `.invalid` is never a host of anything.
pub(crate) const NO_SUCH_NAME: &str = "i2psock.invalid.i2p";

/// How long to wait for the answer about it, which needs no network.
const ANSWER: Duration = Duration::from_secs(5);

/// A router that runs has answered HELLO after this part of the wait.
const AT_ONCE: u32 = 64;

/// Waits, if necessary, until the router has let go of the last session of a destination.
pub(crate) struct LettingGo {
    address: Address,
    delay: Option<Duration>,
    bridge: Arc<Bridge>,
    scope: Arc<Scope>,
    /// Whether the router is to be asked, again if there is more that it may not have noticed.
    asks: bool,
    state: State,
    /// Descriptors that are not used any more.
    past: u64,
}

enum State {
    Start,
    /// The router is being asked how it does it.
    Asking(Box<Question>),
    /// Left alone until then.
    Waiting(Deadline),
    Done,
}

struct Question {
    connection: BridgeConnection,
    since: Instant,
    /// When the answer is due; `None` while it matters that the router answers at all.
    until: Deadline,
}

impl LettingGo {
    /// The router is only asked if there was a session of this destination a short time ago, or it
    /// was not heard since.
    pub(crate) fn new(bridge: &Arc<Bridge>, scope: &Arc<Scope>, address: Address) -> Self {
        let (bridge, scope) = (Arc::clone(bridge), Arc::clone(scope));
        LettingGo { address, delay: bridge.timeouts.reopen, bridge, scope, asks: true, state: State::Start, past: 0 }
    }

    /// Gets as far as possible without blocking. Fails if the router does not answer and may not have noticed the end of
    /// the last session.
    pub(crate) fn step(&mut self, now: Instant) -> Result<Progress> {
        loop {
            let mut asking = false;
            match &mut self.state {
                State::Done => return Ok(Progress::Done),
                State::Start | State::Waiting(_) => {}
                State::Asking(question) => {
                    let result = question.step(&self.address, self.delay, now);
                    if question.connection.reply().and_then(|reply| reply.get("RESULT")) == Some("KEY_NOT_FOUND") {
                        return Ok(self.done());
                    }
                    // Meanwhile the time may be up anyway.
                    asking = result? == Progress::Block;
                    self.asks = question.is_heard();
                }
            }
            let again = last_session::look_again(&self.address, self.delay, now);
            let unnoticed = self.delay.is_some() && last_session::is_unnoticed(&self.address, now);
            if again.is_none() && !(unnoticed && (asking || self.asks)) {
                return Ok(self.done());
            }
            if asking {
                return Ok(Progress::Block);
            }
            self.past = self.generation();
            if matches!(self.state, State::Start) || (unnoticed && self.asks) {
                let until = if unnoticed { None } else { after(Some(ANSWER), now) };
                let connection = self.question()?;
                self.state = State::Asking(Box::new(Question { connection, since: now, until }));
            } else {
                self.state = State::Waiting(again);
                return Ok(Progress::Block);
            }
        }
    }

    fn question(&self) -> Result<BridgeConnection> {
        let request = Request::Lookup { name: NO_SUCH_NAME.to_owned() };
        BridgeConnection::new(Arc::clone(&self.bridge), Arc::clone(&self.scope), request)
    }

    fn done(&mut self) -> Progress {
        self.past = self.generation();
        self.state = State::Done;
        Progress::Done
    }

    /// Incremented whenever the descriptor to wait for refers to a new open file description.
    pub(crate) fn generation(&self) -> u64 {
        match &self.state {
            State::Asking(question) => question.connection.generation(),
            State::Start | State::Waiting(_) | State::Done => self.past,
        }
    }

    /// When the next step is due even without an event.
    pub(crate) fn deadline(&self) -> Deadline {
        match &self.state {
            State::Start | State::Done => None,
            State::Asking(question) => earlier(question.connection.deadline(), question.until),
            State::Waiting(due) => *due,
        }
    }
}

impl Question {
    /// Whether the router has answered anything.
    fn is_heard(&self) -> bool {
        self.connection.phase() != Phase::Hello
    }

    /// Says whether the answer is still to come.
    fn step(&mut self, address: &Address, delay: Option<Duration>, now: Instant) -> Result<Progress> {
        let result = self.connection.step(now);
        if self.is_heard() && self.until.is_none() {
            let limit = delay.unwrap_or_default() / AT_ONCE;
            last_session::notice(address, now.saturating_duration_since(self.since) < limit, now);
            self.until = after(Some(ANSWER), now);
        }
        match result {
            Err(error) if self.until.is_none() && error.status == Status::Timeout => {
                last_session::doubt(address);
                Err(error)
            }
            Ok(Progress::Block) if !passed(self.until, now) => Ok(Progress::Block),
            _ => Ok(Progress::Done),
        }
    }
}

impl Waiting for LettingGo {
    fn awaited(&self) -> Option<(&Arc<SharedFd>, i16)> {
        match &self.state {
            State::Asking(question) => question.connection.awaited(),
            State::Start | State::Waiting(_) | State::Done => None,
        }
    }
}
