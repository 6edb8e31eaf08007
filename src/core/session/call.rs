//! A request with a connection of its own as an operation: what is asked of the bridge itself.

use std::os::fd::RawFd;
use std::sync::Arc;

use crate::core::bridge::{BridgeConnection, Finished};
use crate::core::drive::{after, passed, Deadline, Interest, Job, Limit, Pending, Progress, Stage};
use crate::core::session::session::Session;
use crate::error::{Error, Result, Status};
use crate::protocol::handshake::Phase;
use crate::protocol::line::Fields;

/// So long the end of a session may show after the end of one of its connections.
const CUT_PATIENCE: std::time::Duration = std::time::Duration::from_millis(100);

/// What is made of a finished exchange.
pub type Make<T> = Box<dyn FnOnce(Finished, &BridgeConnection) -> Result<T> + Send>;

/// A request on its way.
pub struct Call<T> {
    exchange: Box<BridgeConnection>,
    make: Option<Make<T>>,
    /// The session it belongs to, if any: its end is the cause of whatever fails then.
    session: Option<Arc<Session>>,
    /// A connection that ended: is it alone, or has its session ended?
    cut: Option<(Error, Deadline)>,
}

impl<T: 'static> Call<T> {
    /// Begins with the request of `exchange`.
    pub fn new(
        exchange: BridgeConnection,
        session: Option<Arc<Session>>,
        make: impl FnOnce(Finished, &BridgeConnection) -> Result<T> + Send + 'static,
    ) -> Self {
        Call { exchange: Box::new(exchange), make: Some(Box::new(make)), session, cut: None }
    }

    /// The operation, begun.
    pub fn begin(self, limit: Limit) -> Pending<T> {
        let (bridge, operation) = (Arc::clone(self.exchange.bridge()), self.exchange.request().operation());
        let limit = limit.or(self.exchange.default_timeout());
        Pending::begin(&bridge.process, operation, self, limit)
    }
}

impl<T> Call<T> {
    /// The connection.
    pub fn exchange(&self) -> &BridgeConnection {
        &self.exchange
    }

    /// The connection itself, unless it has failed.
    pub fn into_exchange(self) -> Option<Box<BridgeConnection>> {
        self.cut.is_none().then_some(self.exchange)
    }

    /// What ends a session ends its connections too, in no certain order: the session's end is the cause, also when it
    /// shows a moment later.
    fn blame_session(&mut self, error: Error) -> Result<Option<T>> {
        let Some(session) = self.session.as_ref().filter(|_| error.status == Status::Protocol) else {
            return Err(error);
        };
        session.drive();
        session.check_alive(error.operation)?;
        if !self.exchange.is_cut() {
            return Err(error);
        }
        self.cut = Some((error, after(Some(CUT_PATIENCE))));
        Ok(None)
    }
}

impl<T> Job<T> for Call<T> {
    fn step(&mut self, deadline: Deadline) -> Result<Option<T>> {
        if let Some(session) = self.session.as_ref().filter(|session| !session.has_keeper() || self.cut.is_some()) {
            session.drive();
        }
        if let Some((error, due)) = &self.cut {
            if let Some(session) = &self.session {
                session.check_alive(error.operation)?;
            }
            return if passed(*due) || passed(deadline) { Err(error.clone()) } else { Ok(None) };
        }
        match self.exchange.step() {
            Ok(Progress::Block) => Ok(None),
            Ok(Progress::Done) => {
                let finished = self.exchange.finish()?;
                self.make.take().map(|make| make(finished, &self.exchange)).transpose()
            }
            Err(error) => self.blame_session(error),
        }
    }

    fn interest(&self) -> Interest {
        match self.cut {
            None => Interest { fd: self.exchange.fd(), events: self.exchange.events() },
            Some(_) => Interest::NONE,
        }
    }

    fn generation(&self) -> u64 {
        self.exchange.generation()
    }

    fn deadline(&self) -> Deadline {
        match &self.cut {
            Some((_, due)) => *due,
            None => self.exchange.deadline(),
        }
    }

    fn stage(&self) -> Stage {
        match self.exchange.phase() {
            _ if self.cut.is_some() => Stage::Working,
            _ if !self.exchange.is_established() => Stage::Connecting,
            Phase::Hello => Stage::Greeting,
            Phase::Reply => Stage::Working,
            Phase::Peer => Stage::Listening,
            Phase::Done => Stage::Done,
        }
    }

    fn reply(&self) -> Option<&Fields> {
        self.exchange.reply()
    }

    fn control(&self) -> Option<(RawFd, i16)> {
        self.session.as_ref().filter(|session| !session.has_keeper()).and_then(|session| session.control())
    }
}
