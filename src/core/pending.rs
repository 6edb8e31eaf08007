//! One operation in progress: open, connect, accept, lookup, key generation. A step never blocks; waiting is poll.

mod opening;
mod stage;

use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

pub use self::stage::Stage;
use crate::core::acceptors::Parked;
use crate::core::bridge::Bridge;
use crate::core::controller::Controller;
use crate::core::dest::DestPlan;
use crate::core::exchange::Exchange;
pub use crate::core::goal::{Goal, Product};
use crate::core::lookup::Ticket;
use crate::core::session::Session;
use crate::core::tunnel::TunnelPlan;
use crate::core::{after, earlier, passed, poll_timeout, Deadline, Progress};
use crate::error::{Error, Operation, Result, Status};
use crate::protocol::handshake::Phase;
use crate::protocol::line::Fields;
use crate::sys::{self, PollFd, Wake, Watch};

/// So long the end of a session may show after the end of one of its connections.
const CUT_PATIENCE: Duration = Duration::from_millis(100);

/// How long an operation may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// What the controller says for this operation.
    Default,
    /// For ever.
    Never,
    /// So long.
    After(Duration),
}

impl Limit {
    /// From the number a C caller gives.
    pub fn from_millis(milliseconds: i32) -> Result<Self> {
        match (milliseconds, u64::try_from(milliseconds)) {
            (_, Ok(milliseconds)) => Ok(Limit::After(Duration::from_millis(milliseconds))),
            (-1, _) => Ok(Limit::Default),
            (-2, _) => Ok(Limit::Never),
            _ => Err(Error::invalid(format!("{milliseconds} is no time limit"))),
        }
    }

    fn or(self, default: Option<Duration>) -> Option<Duration> {
        match self {
            Limit::Default => default,
            Limit::Never => None,
            Limit::After(duration) => Some(duration),
        }
    }
}

enum Work {
    Exchange(Box<Exchange>, Goal),
    Lookup {
        session: Arc<Session>,
        ticket: Ticket,
        fields: Option<Fields>,
        /// For a lookup that may go through any session: whom to ask when this one ends, and the name.
        elsewhere: Option<(Arc<Controller>, String)>,
    },
    /// A connection that ended: is it alone, or has its session ended?
    Cut {
        exchange: Box<Exchange>,
        error: Error,
        due: Deadline,
    },
    /// A destination whose name somebody else is busy with, or that the router has not let go of yet.
    Later {
        controller: Arc<Controller>,
        plan: Box<DestPlan>,
        wake: Option<Arc<Wake>>,
        due: Deadline,
    },
    Nothing,
}

enum State {
    Running,
    Ready(Box<Product>),
    Taken,
    Failed(Error),
}

/// One operation.
pub struct Pending {
    bridge: Arc<Bridge>,
    operation: Operation,
    work: Work,
    state: State,
    /// The session it belongs to, if any.
    session: Option<Arc<Session>>,
    limit: Option<Duration>,
    deadline: Deadline,
    /// Until then DUPLICATED_DEST need not mean that somebody else has the keys.
    patience: Deadline,
    /// Descriptions used up by work that was begun anew.
    past_generations: u64,
    /// What is to be made of the destination that is opened.
    then: Option<TunnelPlan>,
    /// Of an accept that waits for a peer: readable for every accept of the session.
    watch: Option<Arc<Watch>>,
}

impl Pending {
    fn new(bridge: &Arc<Bridge>, operation: Operation, work: Work, state: State, limit: Option<Duration>) -> Self {
        let bridge = Arc::clone(bridge);
        Pending {
            bridge,
            operation,
            work,
            state,
            session: None,
            limit,
            deadline: after(limit),
            patience: after(Some(opening::DUPLICATE_PATIENCE)),
            past_generations: 0,
            then: None,
            watch: None,
        }
    }

    /// An operation that is done already.
    pub fn ready(bridge: &Arc<Bridge>, operation: Operation, product: Product) -> Self {
        Pending::new(bridge, operation, Work::Nothing, State::Ready(Box::new(product)), None)
    }

    /// Says which session a ready stream belongs to.
    #[must_use]
    pub fn on(mut self, session: &Arc<Session>) -> Self {
        self.session = Some(Arc::clone(session));
        self
    }

    /// An operation with a connection of its own, begun.
    pub fn exchange(exchange: Exchange, goal: Goal, limit: Limit) -> Self {
        let (operation, limit) = (exchange.request().operation(), limit.or(exchange.default_timeout()));
        let (bridge, session) = (Arc::clone(exchange.bridge()), goal.session());
        let work = Work::Exchange(Box::new(exchange), goal);
        let mut pending = Pending::new(&bridge, operation, work, State::Running, limit);
        pending.session = session;
        pending.begin()
    }

    /// A lookup through a session's connection, begun.
    pub fn lookup(session: Arc<Session>, name: &str, limit: Limit) -> Result<Self> {
        let (limit, bridge) = (limit.or(session.bridge().deadlines.lookup), Arc::clone(session.bridge()));
        let mut pending = Pending::new(&bridge, Operation::Lookup, Work::Nothing, State::Running, limit);
        pending.ask(session, name, None)?;
        Ok(pending.begin())
    }

    /// A lookup through any session of a controller, or directly, begun.
    pub fn lookup_by_any(controller: &Arc<Controller>, name: &str, limit: Limit) -> Result<Self> {
        let limit = limit.or(controller.bridge().deadlines.lookup);
        let mut pending = Pending::new(controller.bridge(), Operation::Lookup, Work::Nothing, State::Running, limit);
        pending.ask_any(controller, name)?;
        Ok(pending.begin())
    }

    fn ask(&mut self, session: Arc<Session>, name: &str, elsewhere: Option<&Arc<Controller>>) -> Result<()> {
        let ticket = session.lookup(name)?;
        self.past_generations = self.generation();
        self.session = Some(Arc::clone(&session));
        let elsewhere = elsewhere.map(|controller| (Arc::clone(controller), name.to_owned()));
        self.work = Work::Lookup { session, ticket, fields: None, elsewhere };
        Ok(())
    }

    fn ask_any(&mut self, controller: &Arc<Controller>, name: &str) -> Result<()> {
        controller.check_open(Operation::Lookup)?;
        while let Some(session) = controller.live_session() {
            match self.ask(session, name, Some(controller)) {
                // It has ended since.
                Err(error) if error.status == Status::Closed => {}
                other => return other,
            }
        }
        let exchange = controller.lookup_exchange(name)?;
        self.past_generations = self.generation();
        self.session = None;
        self.work = Work::Exchange(Box::new(exchange), Goal::Address);
        Ok(())
    }

    /// The first step belongs to the start. What comes of it, good or bad, is told by the next one.
    fn begin(mut self) -> Self {
        drop(self.step());
        self
    }

    /// What it is.
    pub fn operation(&self) -> Operation {
        self.operation
    }

    /// Does what can be done without waiting. A failure is final and told every time.
    pub fn step(&mut self) -> Result<Progress> {
        self.bridge.check_process()?;
        match &self.state {
            State::Running => {}
            State::Failed(error) => return Err(error.clone()),
            State::Ready(_) | State::Taken => return Ok(Progress::Done),
        }
        if let Some(session) = self.session.as_ref().filter(|session| !session.has_keeper()) {
            session.drive();
        }
        let result = self.advance();
        match result {
            Ok(Some(product)) => {
                self.state = State::Ready(Box::new(product));
                self.make_tunnel();
                if let State::Failed(error) = &self.state {
                    return Err(error.clone());
                }
            }
            Ok(None) if passed(self.deadline) => return Err(self.time_out()),
            Ok(None) => return Ok(Progress::Block),
            Err(error) => {
                if let Work::Exchange(_, goal @ Goal::Dest(..)) = &mut self.work {
                    // Others may be waiting for the name, and need not until this is freed; the reply stays.
                    *goal = Goal::Reached;
                }
                self.state = State::Failed(error.clone());
                return Err(error);
            }
        }
        Ok(Progress::Done)
    }

    fn time_out(&mut self) -> Error {
        let milliseconds = self.limit.unwrap_or_default().as_millis();
        let message = format!(
            "{} did not end within {milliseconds} ms ({})",
            self.operation,
            self.stage_name().to_string_lossy()
        );
        let error = Error::new(Status::Timeout, self.operation, message);
        self.give_up();
        self.state = State::Failed(error.clone());
        error
    }

    fn advance(&mut self) -> Result<Option<Product>> {
        match &mut self.work {
            Work::Nothing => Err(Error::new(Status::Internal, self.operation, "nothing to do")),
            Work::Exchange(exchange, goal) => match exchange.step() {
                Ok(Progress::Done) => goal.reach(exchange).map(Some),
                Ok(Progress::Block) => self.accept_elsewhere(),
                Err(error) if self.try_later(&error) => Ok(None),
                Err(error) => self.blame_session(error),
            },
            Work::Cut { error, due, .. } => {
                if let Some(session) = &self.session {
                    session.drive();
                    session.check_alive(self.operation)?;
                }
                if passed(*due) || passed(self.deadline) {
                    Err(error.clone())
                } else {
                    Ok(None)
                }
            }
            Work::Later { wake, due, .. } => {
                let called = wake.as_ref().is_some_and(|wake| wake.is_set());
                if !called && !passed(*due) {
                    return Ok(None);
                }
                match std::mem::replace(&mut self.work, Work::Nothing) {
                    Work::Later { controller, plan, .. } => match self.open_next(controller, plan)? {
                        None if matches!(self.work, Work::Exchange(..)) => self.advance(),
                        other => Ok(other),
                    },
                    _ => Ok(None),
                }
            }
            Work::Lookup { session, ticket, fields, elsewhere } => {
                let Some(answer) = ticket.slot.take() else {
                    // What the control socket waits for changes: once the question is out it is not writability. If it
                    // is closed the answer is on its way.
                    if let (Some(watch), Some((control, events))) = (&ticket.watch, session.control()) {
                        drop(watch.modify(control, events));
                    }
                    return Ok(None);
                };
                *fields = answer.fields;
                match (answer.result, elsewhere.take()) {
                    (Ok(address), _) => Ok(Some(Product::Address(address))),
                    // That session's end is not this lookup's.
                    (Err(error), Some((controller, name))) if error.status == Status::Closed => {
                        self.ask_any(&controller, &name)?;
                        self.advance()
                    }
                    (Err(error), _) => Err(error),
                }
            }
        }
    }

    /// What ends a session ends its connections too, in no certain order: the session's end is the cause, also when it shows
    /// a moment later.
    fn blame_session(&mut self, error: Error) -> Result<Option<Product>> {
        let Some(session) = self.session.as_ref().filter(|_| error.status == Status::Protocol) else {
            return Err(error);
        };
        session.drive();
        session.check_alive(self.operation)?;
        match std::mem::replace(&mut self.work, Work::Nothing) {
            Work::Exchange(exchange, _) if exchange.is_cut() => {
                self.past_generations += exchange.generation() + u64::from(self.watch.take().is_some());
                self.work = Work::Cut { exchange, error, due: after(Some(CUT_PATIENCE)) };
                Ok(None)
            }
            other => {
                self.work = other;
                Err(error)
            }
        }
    }

    /// An accept that has to wait takes a stream that came to another one of its session, which was given up.
    fn accept_elsewhere(&mut self) -> Result<Option<Product>> {
        let Work::Exchange(exchange, goal) = &mut self.work else { return Ok(None) };
        let Goal::Accept(session) = &*goal else { return Ok(None) };
        let session = Arc::clone(session);
        // Watched first, looked at second: nothing comes in between unseen.
        if self.watch.is_none() && exchange.phase() == Phase::Peer {
            self.watch = Some(session.acceptors().watch(exchange)?);
        }
        let mut log = Vec::new();
        let parked = session.acceptors().ready(&mut log);
        self.bridge.log.lines(log);
        match parked {
            None => Ok(None),
            Some(Parked::Arrived(stream)) => {
                self.give_up();
                self.session = Some(session);
                Ok(Some(Product::Stream(*stream)))
            }
            Some(Parked::Waiting(mut other)) => {
                let product = Goal::Accept(Arc::clone(&session)).reach(&mut other);
                self.give_up();
                self.work = Work::Exchange(other, Goal::Reached);
                product.map(Some)
            }
        }
    }

    /// Waits until the operation has ended or `limit` has passed; then it goes on and may be waited for again.
    pub fn wait(&mut self, limit: Option<Duration>) -> Result<Progress> {
        let until = after(limit);
        loop {
            if self.step()? == Progress::Done {
                return Ok(Progress::Done);
            }
            if passed(until) {
                return Ok(Progress::Block);
            }
            let mut fds = vec![PollFd { fd: self.fd(), events: self.events(), revents: 0 }];
            // Without a keeper nobody else would answer a PING meanwhile.
            let control = self.session.as_ref().filter(|session| !session.has_keeper()).and_then(|s| s.control());
            fds.extend(control.map(|(fd, events)| PollFd { fd, events, revents: 0 }));
            sys::poll(&mut fds, poll_timeout(earlier(self.deadline(), until)))
                .map_err(|error| Error::io(self.operation, "poll", &error))?;
        }
    }

    /// Waits until the operation has ended, one way or the other.
    pub fn complete(&mut self) -> Result<()> {
        while self.wait(None)? == Progress::Block {}
        Ok(())
    }

    /// Takes what the operation has made.
    pub fn take(&mut self) -> Result<Product> {
        match std::mem::replace(&mut self.state, State::Taken) {
            State::Ready(product) => Ok(*product),
            State::Taken => Err(Error::state("the result of this operation was taken before")),
            State::Failed(error) => {
                self.state = State::Failed(error.clone());
                Err(error)
            }
            State::Running => {
                self.state = State::Running;
                Err(Error::new(Status::State, self.operation, "the operation is not done: step or wait first"))
            }
        }
    }

    /// Takes the product if it is what `pick` wants; otherwise leaves it and says that this operation makes none.
    pub fn take_as<T>(
        &mut self,
        what: &str,
        pick: impl FnOnce(Product) -> std::result::Result<T, Product>,
    ) -> Result<T> {
        self.bridge.check_process()?;
        pick(self.take()?).map_err(|product| {
            self.state = State::Ready(Box::new(product));
            Error::new(Status::State, self.operation, format!("{} does not make a {what}", self.operation))
        })
    }

    /// The descriptor to wait on, for poll only; -1 when there is nothing to wait for.
    pub fn fd(&self) -> RawFd {
        match (&self.state, &self.work) {
            (State::Running, Work::Exchange(exchange, _)) => {
                self.watch.as_ref().map_or(exchange.fd(), |watch| watch.as_raw_fd())
            }
            (State::Running, Work::Lookup { ticket, .. }) => {
                ticket.watch.as_ref().map_or(ticket.slot.wake.as_raw_fd(), AsRawFd::as_raw_fd)
            }
            (State::Running, Work::Later { wake: Some(wake), .. }) => wake.as_raw_fd(),
            _ => -1,
        }
    }

    /// Rises whenever `fd` is a new description, even under the same number.
    pub fn generation(&self) -> u64 {
        let present = match &self.work {
            Work::Exchange(exchange, _) => exchange.generation(),
            Work::Lookup { .. } | Work::Later { wake: Some(_), .. } => 1,
            Work::Later { wake: None, .. } | Work::Cut { .. } | Work::Nothing => 0,
        };
        self.past_generations + present + u64::from(self.watch.is_some())
    }

    /// Events to wait for on `fd`.
    pub fn events(&self) -> i16 {
        match (&self.state, &self.work) {
            (State::Running, Work::Exchange(exchange, _)) if self.watch.is_none() => exchange.events(),
            (State::Running, Work::Exchange(..)) => sys::IN,
            (State::Running, Work::Lookup { .. } | Work::Later { wake: Some(_), .. }) => sys::IN,
            _ => 0,
        }
    }

    fn deadline(&self) -> Deadline {
        match (&self.state, &self.work) {
            (State::Running, Work::Exchange(exchange, _)) => earlier(self.deadline, exchange.deadline()),
            (State::Running, Work::Later { due, .. } | Work::Cut { due, .. }) => earlier(self.deadline, *due),
            (State::Running, _) => self.deadline,
            _ => None,
        }
    }

    /// Milliseconds until a step is due even without an event; -1 for never.
    pub fn timeout_ms(&self) -> i32 {
        match self.state {
            State::Running => poll_timeout(self.deadline()),
            _ => 0,
        }
    }

    /// A field of the bridge's last reply; private keys are never among them.
    pub fn reply(&self, key: &str) -> Option<&str> {
        let fields = match &self.work {
            Work::Exchange(exchange, _) | Work::Cut { exchange, .. } => exchange.reply(),
            Work::Lookup { fields, .. } => fields.as_ref(),
            Work::Later { .. } | Work::Nothing => None,
        };
        fields?.get(key)
    }

    /// Nobody waits any more. An accept the bridge knows of goes back to its session, with whatever came of it.
    fn give_up(&mut self) {
        self.past_generations = self.generation();
        self.watch = None;
        let work = std::mem::replace(&mut self.work, Work::Nothing);
        match (work, std::mem::replace(&mut self.state, State::Taken)) {
            (Work::Exchange(exchange, Goal::Accept(session)), State::Running) => {
                session.acceptors().park(Parked::Waiting(exchange));
            }
            (Work::Lookup { session, ticket, .. }, State::Running) => session.forget(&ticket),
            (_, State::Ready(product)) if self.operation == Operation::Accept => {
                if let (Product::Stream(stream), Some(session)) = (*product, &self.session) {
                    session.acceptors().park(Parked::Arrived(Box::new(stream)));
                }
            }
            _ => {}
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        // In a child of fork(2) nothing of the parent's may be touched.
        if !self.bridge.fork.in_child() {
            self.give_up();
        }
    }
}
