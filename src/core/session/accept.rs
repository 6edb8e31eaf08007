//! Accepting one stream on a session. A waiting accept also takes streams from abandoned accepts.

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::core::bridge::{BridgeConnection, Finished};
use crate::core::drive::{
    after, earlier, log, passed, Attended, Backoff, Deadline, Interest, Job, Limit, Pending, Stage,
};
use crate::core::session::abandoned_accepts::AbandonedAccept;
use crate::core::session::call::Call;
use crate::core::session::session::Session;
use crate::core::stream::{Remote, Stream};
use crate::error::{Error, Operation, Result, Status};
use crate::protocol::handshake::Phase;
use crate::protocol::line::Fields;
use crate::protocol::request::{Outcome, Request};
use crate::sys::{self, Watch};

/// The pauses before an accept is asked for again, doubled each time up to the longest.
pub(crate) fn accept_pauses() -> Backoff {
    Backoff::new(Duration::from_millis(20), Duration::from_secs(5))
}

/// Starts accepting one stream. Resumes an abandoned accept, if there is one: the bridge may be about to hand the next
/// stream to it.
pub(crate) fn accept(session: &Arc<Session>, limit: Limit, now: Instant) -> Result<Pending<Stream>> {
    let _edge = log::edge();
    let connection = match session.accept_pool().adopt(now) {
        Some(AbandonedAccept::Arrived(stream)) => {
            let job = Box::new(Accept::new(session, None));
            return Ok(Pending::ready(&session.bridge().process, Operation::Accept, *stream, Some(job)));
        }
        Some(AbandonedAccept::Waiting(connection)) => *connection,
        None => session.connection(Request::Accept { id: session.id().to_owned() })?,
    };
    let limit = limit.or(connection.default_timeout());
    let call = Call::new(connection, Some(Arc::clone(session)), of_finished);
    let job = Accept::new(session, Some(call));
    Ok(Pending::begin(&session.bridge().process, Operation::Accept, job, limit, now))
}

/// Takes the stream of a finished accept.
pub(crate) fn accepted(connection: &mut BridgeConnection) -> Result<Stream> {
    let finished = connection.finish()?;
    of_finished(finished, connection)
}

fn of_finished(finished: Finished, connection: &BridgeConnection) -> Result<Stream> {
    let Outcome::Accepted(peer) = finished.outcome else {
        return Err(Error::new(Status::Internal, Operation::Accept, "an accept without a peer"));
    };
    let (process, scope) = (Arc::clone(&connection.bridge().process), Arc::clone(connection.scope()));
    Ok(Stream::new(process, scope, finished.socket, Remote::of_peer(peer, true)))
}

struct Accept {
    session: Arc<Session>,
    /// `None` once the stream of another accept was taken.
    call: Option<Call<Stream>>,
    /// Set once it waits for a peer; covers every abandoned accept of the session as well.
    watch: Option<Arc<Watch>>,
    /// Generations used up by accepts that were thrown away.
    past: u64,
    /// Set while there is no accept, because the router has dropped the last one: asked for again then.
    again: Deadline,
    backoff: Backoff,
}

impl Accept {
    fn new(session: &Arc<Session>, call: Option<Call<Stream>>) -> Self {
        Accept { session: Arc::clone(session), call, watch: None, past: 0, again: None, backoff: accept_pauses() }
    }

    fn ask(&mut self) -> Result<()> {
        let connection = self.session.connection(Request::Accept { id: self.session.id().to_owned() })?;
        self.call = Some(Call::new(connection, Some(Arc::clone(&self.session)), of_finished));
        Ok(())
    }

    /// Throws the accept away.
    fn forget(&mut self) {
        self.past = self.generation();
        (self.call, self.watch) = (None, None);
    }

    /// Takes a stream that arrived on an abandoned accept of the session, if this one has to wait.
    fn elsewhere(&mut self, now: Instant) -> Result<Option<Stream>> {
        let Some(call) = &self.call else { return Ok(None) };
        // Watch first, then look, so that nothing can arrive unseen in between.
        if self.watch.is_none() && call.connection().phase() == Phase::Peer {
            self.watch = Some(self.session.accept_pool().watch(call.connection())?);
        }
        let stream = match self.session.accept_pool().ready(now) {
            None => return Ok(None),
            Some(AbandonedAccept::Arrived(stream)) => Ok(*stream),
            Some(AbandonedAccept::Waiting(mut other)) => accepted(&mut other),
        };
        self.session.stream_succeeded();
        self.give_up(None);
        stream.map(Some)
    }
}

/// Whether it failed because the bridge did not confirm it.
fn is_unconfirmed(call: &Call<Stream>, error: &Error) -> bool {
    error.status == Status::Timeout && call.connection().phase() == Phase::Reply
}

impl Job<Stream> for Accept {
    fn step(&mut self, now: Instant, deadline: Deadline) -> Result<Option<Stream>> {
        if passed(self.again, now) {
            self.session.check_alive(Operation::Accept)?;
            self.again = None;
            self.ask()?;
        }
        let Some(call) = &mut self.call else { return Ok(None) };
        match call.step(now, deadline) {
            Ok(Some(stream)) => Ok(Some(stream)),
            Ok(None) => self.elsewhere(now),
            // The bridge has not confirmed it: it may have forgotten about it, so ask again.
            Err(error) if is_unconfirmed(call, &error) && !passed(deadline, now) => {
                self.forget();
                self.ask()?;
                self.step(now, deadline)
            }
            // The router has dropped it although nobody has come, as i2pd does.
            Err(_) if call.connection().is_dropped_accept() => {
                self.session.check_alive(Operation::Accept)?;
                self.forget();
                self.again = after(Some(self.backoff.pause()), now);
                Ok(None)
            }
            Err(error) => {
                self.session.accept_failed(call.connection(), &error, now);
                self.session.check_alive(Operation::Accept)?;
                Err(error)
            }
        }
    }

    fn interest(&self) -> Interest {
        match (&self.watch, &self.call) {
            // The watch would report the ended connection over and over.
            (_, Some(call)) if call.is_cut() => Interest::NONE,
            (Some(watch), _) => Interest { fd: watch.as_raw_fd(), events: sys::IN },
            (None, Some(call)) => call.interest(),
            (None, None) => Interest::NONE,
        }
    }

    fn generation(&self) -> u64 {
        self.past + self.call.as_ref().map_or(0, |call| call.generation()) + u64::from(self.watch.is_some())
    }

    fn deadline(&self) -> Deadline {
        earlier(self.again, self.call.as_ref().and_then(|call| call.deadline()))
    }

    fn stage(&self) -> Stage {
        match &self.call {
            Some(call) => call.stage(),
            None if self.again.is_some() => Stage::Working,
            None => Stage::Done,
        }
    }

    fn reply(&self) -> Option<&Fields> {
        self.call.as_ref().and_then(|call| call.reply())
    }

    fn attended(&self) -> Option<Attended> {
        self.call.as_ref().and_then(|call| call.attended())
    }

    /// Returns the accept, which the bridge knows about, to its session, along with any stream it got.
    fn give_up(&mut self, unclaimed: Option<Stream>) {
        self.watch = None;
        let connection = self.call.take().and_then(Call::into_connection);
        let given_up = match unclaimed {
            Some(stream) => Some(AbandonedAccept::Arrived(Box::new(stream))),
            None => connection.map(AbandonedAccept::Waiting),
        };
        if let Some(given_up) = given_up {
            self.session.accept_pool().park(given_up, Instant::now());
        }
    }
}
