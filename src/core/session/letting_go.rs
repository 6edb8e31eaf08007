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

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::core::bridge::{Bridge, BridgeConnection};
use crate::core::drive::{after, earlier, passed, Deadline, Progress, Scope, Waiting};
use crate::core::session::last_session;
use crate::error::Result;
use crate::identity::Address;
use crate::protocol::request::Request;
use crate::sys::SharedFd;

/// A name that no address book has: ours to make up, since `.invalid` is never a host of anything.
pub(crate) const NO_SUCH_NAME: &str = "i2psock.invalid.i2p";

/// How long to wait for the answer about it, which needs no network.
const ANSWER: Duration = Duration::from_secs(5);

/// Waits, if necessary, until the router has let go of the last session of a destination.
pub(crate) struct LettingGo {
    address: Address,
    delay: Option<Duration>,
    /// The connection to ask on, until it was asked.
    question: Option<BridgeConnection>,
    state: State,
    /// Descriptors that are not used any more.
    past: u64,
}

enum State {
    Start,
    /// The router is being asked how it does it, until then.
    Asking(Box<BridgeConnection>, Deadline),
    /// Left alone until then.
    Waiting(Deadline),
    Done,
}

impl LettingGo {
    /// The router is only asked if there was a session of this destination a short time ago.
    pub(crate) fn new(bridge: &Arc<Bridge>, scope: &Arc<Scope>, address: Address) -> Result<Self> {
        let request = Request::Lookup { name: NO_SUCH_NAME.to_owned() };
        let question = BridgeConnection::new(Arc::clone(bridge), Arc::clone(scope), request)?;
        let delay = bridge.timeouts.reopen;
        Ok(LettingGo { address, delay, question: Some(question), state: State::Start, past: 0 })
    }

    /// Gets as far as possible without blocking.
    pub(crate) fn step(&mut self, now: Instant) -> Progress {
        loop {
            let due = match &mut self.state {
                State::Done => return Progress::Done,
                State::Start | State::Waiting(_) => None,
                State::Asking(connection, until) => {
                    let result = connection.step(now);
                    if matches!(result, Ok(Progress::Block)) && !passed(*until, now) {
                        // Meanwhile the time may be up anyway.
                        Some(*until)
                    } else if connection.reply().and_then(|reply| reply.get("RESULT")) == Some("KEY_NOT_FOUND") {
                        self.past = connection.generation();
                        self.state = State::Done;
                        return Progress::Done;
                    } else {
                        None
                    }
                }
            };
            let Some(again) = last_session::look_again(&self.address, self.delay, now) else {
                self.past = self.generation();
                self.state = State::Done;
                return Progress::Done;
            };
            if due.is_some() {
                return Progress::Block;
            }
            self.past = self.generation();
            match self.question.take() {
                Some(connection) => self.state = State::Asking(Box::new(connection), after(Some(ANSWER), now)),
                None => {
                    self.state = State::Waiting(Some(again));
                    return Progress::Block;
                }
            }
        }
    }

    /// Incremented whenever the descriptor to wait for refers to a new open file description.
    pub(crate) fn generation(&self) -> u64 {
        match &self.state {
            State::Asking(connection, _) => connection.generation(),
            State::Start | State::Waiting(_) | State::Done => self.past,
        }
    }

    /// When the next step is due even without an event.
    pub(crate) fn deadline(&self) -> Deadline {
        match &self.state {
            State::Start | State::Done => None,
            State::Asking(connection, until) => earlier(connection.deadline(), *until),
            State::Waiting(due) => *due,
        }
    }
}

impl Waiting for LettingGo {
    fn awaited(&self) -> Option<(&Arc<SharedFd>, i16)> {
        match &self.state {
            State::Asking(connection, _) => connection.awaited(),
            State::Start | State::Waiting(_) | State::Done => None,
        }
    }
}
