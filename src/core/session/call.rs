//! A request to the bridge on a connection of its own, as an operation.

use std::sync::Arc;
use std::time::Instant;

use crate::core::bridge::{BridgeConnection, Finished};
use crate::core::drive::{after, earlier, passed, Attended, Deadline, Interest, Job, Limit, Pending, Progress, Stage};
use crate::core::session::session::Session;
use crate::error::{Error, Result, Status};
use crate::protocol::handshake::Phase;
use crate::protocol::line::Fields;

/// How long the end of a session may take to show after the end of one of its connections.
const CUT_PATIENCE: std::time::Duration = std::time::Duration::from_millis(100);

/// Converts a finished connection to the product of the operation.
pub(super) type Make<T> = Box<dyn FnOnce(Finished, &BridgeConnection) -> Result<T> + Send>;

/// A request in progress, and the conversion of its answer.
pub(crate) struct Call<T> {
    asked: Asked,
    make: Option<Make<T>>,
}

/// A request in progress, whatever its answer is converted to.
struct Asked {
    connection: Box<BridgeConnection>,
    /// The session it belongs to, if any. If that ends, its cause takes precedence over the error of the request.
    session: Option<Arc<Session>>,
    /// Set when the connection has ended, while we find out whether its session has ended as well.
    cut: Option<(Error, Deadline)>,
}

impl<T: 'static> Call<T> {
    pub(crate) fn new(
        connection: BridgeConnection,
        session: Option<Arc<Session>>,
        make: impl FnOnce(Finished, &BridgeConnection) -> Result<T> + Send + 'static,
    ) -> Self {
        Call { asked: Asked { connection: Box::new(connection), session, cut: None }, make: Some(Box::new(make)) }
    }

    /// Starts the operation.
    pub(crate) fn begin(self, limit: Limit, now: Instant) -> Pending<T> {
        let connection = &self.asked.connection;
        let (bridge, operation) = (Arc::clone(connection.bridge()), connection.request().operation());
        let limit = limit.or(connection.default_timeout());
        Pending::begin(&bridge.process, operation, self, limit, now)
    }
}

impl<T> Call<T> {
    pub(crate) fn connection(&self) -> &BridgeConnection {
        &self.asked.connection
    }

    /// Whether the connection has ended, and all that is left is to find out whether its session has as well.
    pub(crate) fn is_cut(&self) -> bool {
        self.asked.cut.is_some()
    }

    /// Returns the connection, unless it has failed.
    pub(crate) fn into_connection(self) -> Option<Box<BridgeConnection>> {
        self.asked.cut.is_none().then_some(self.asked.connection)
    }
}

impl Asked {
    fn step(&mut self, now: Instant, deadline: Deadline) -> Result<Option<Finished>> {
        if let Some(session) = &self.session {
            match self.cut {
                Some(_) => session.drive(now),
                None => session.attend(now),
            }
        }
        if let Some((error, due)) = &self.cut {
            if let Some(session) = &self.session {
                session.check_alive(error.operation)?;
            }
            return if passed(*due, now) || passed(deadline, now) { Err(error.clone()) } else { Ok(None) };
        }
        match self.connection.step(now) {
            Ok(Progress::Block) => Ok(None),
            Ok(Progress::Done) => {
                if let Some(session) = &self.session {
                    session.stream_succeeded();
                }
                self.connection.finish().map(Some)
            }
            Err(error) => self.blame_session(error, now).map(|()| None),
        }
    }

    /// Whatever ends a session also ends its connections, in no particular order. Report the session's end as the
    /// cause, even if it shows a moment later.
    fn blame_session(&mut self, error: Error, now: Instant) -> Result<()> {
        let Some(session) = self.session.as_ref() else { return Err(error) };
        session.heard(&error, now);
        if !self.connection.is_cut() && error.status != Status::Protocol {
            session.check_alive(error.operation)?;
            return Err(error);
        }
        session.drive(now);
        session.check_alive(error.operation)?;
        if !self.connection.is_cut() {
            return Err(error);
        }
        self.cut = Some((error, after(Some(CUT_PATIENCE), now)));
        Ok(())
    }

    fn deadline(&self) -> Deadline {
        let own = match &self.cut {
            Some((_, due)) => *due,
            None => self.connection.deadline(),
        };
        earlier(own, self.session.as_ref().and_then(|session| session.attended_deadline()))
    }

    fn stage(&self) -> Stage {
        match self.connection.phase() {
            _ if self.cut.is_some() => Stage::Working,
            _ if self.connection.is_away() => Stage::Away,
            _ if !self.connection.is_established() => Stage::Connecting,
            Phase::Hello => Stage::Greeting,
            Phase::Reply => Stage::Working,
            Phase::Peer => Stage::Listening,
            Phase::Done => Stage::Done,
        }
    }
}

impl<T> Job<T> for Call<T> {
    fn step(&mut self, now: Instant, deadline: Deadline) -> Result<Option<T>> {
        let Some(finished) = self.asked.step(now, deadline)? else { return Ok(None) };
        self.make.take().map(|make| make(finished, &self.asked.connection)).transpose()
    }

    fn interest(&self) -> Interest {
        match self.asked.cut {
            None => self.asked.connection.interest(),
            Some(_) => Interest::NONE,
        }
    }

    fn generation(&self) -> u64 {
        self.asked.connection.generation()
    }

    fn deadline(&self) -> Deadline {
        self.asked.deadline()
    }

    fn stage(&self) -> Stage {
        self.asked.stage()
    }

    fn reply(&self) -> Option<&Fields> {
        self.asked.connection.reply()
    }

    fn attended(&self) -> Option<Attended> {
        self.asked.session.as_ref().and_then(|session| session.attended())
    }
}
