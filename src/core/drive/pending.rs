//! One operation in progress. A step never blocks; waiting is done with poll.
//!
//! What an operation does is up to its [`Job`], which is defined in the folder it belongs to: connecting and accepting
//! in `session`, opening in `destination`.

use std::ffi::CStr;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::core::drive::deadline::{after, earlier, passed, poll_timeout, Deadline};
use crate::core::drive::driver::{self, Attended};
use crate::core::drive::log;
use crate::core::drive::process::Process;
use crate::core::drive::stage::Stage;
use crate::error::{Error, Operation, Result, Status};
use crate::protocol::handshake::NO_ANSWER;
use crate::protocol::line::Fields;

/// The outcome of a step or a wait that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Progress {
    /// The operation has finished.
    Done,
    /// Call again when the descriptor is ready or the timeout has passed.
    Block,
}

/// Time limit of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// The controller's default for this operation.
    Default,
    /// No limit.
    Never,
    /// A limit of this length.
    After(Duration),
}

impl Limit {
    /// Converts the number a C caller passes: -1 is the default, -2 no limit.
    pub fn from_millis(milliseconds: i32) -> Result<Self> {
        match (milliseconds, u64::try_from(milliseconds)) {
            (_, Ok(milliseconds)) => Ok(Limit::After(Duration::from_millis(milliseconds))),
            (-1, _) => Ok(Limit::Default),
            (-2, _) => Ok(Limit::Never),
            _ => Err(Error::invalid(format!("{milliseconds} is not a time limit"))),
        }
    }

    /// Resolves [`Limit::Default`] to `default`; `None` means no limit.
    pub fn or(self, default: Option<Duration>) -> Option<Duration> {
        match self {
            Limit::Default => default,
            Limit::Never => None,
            Limit::After(duration) => Some(duration),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interest {
    /// For poll only; -1 if there is no descriptor to wait for.
    pub fd: RawFd,
    pub events: i16,
}

impl Interest {
    /// No descriptor; waits only for time to pass.
    pub const NONE: Interest = Interest { fd: -1, events: 0 };
}

/// The work of an operation.
pub trait Job<T>: Send {
    /// Gets as far as possible without blocking. `deadline` is that of the whole operation.
    fn step(&mut self, now: Instant, deadline: Deadline) -> Result<Option<T>>;

    /// The descriptor and events to wait for before the next step.
    fn interest(&self) -> Interest;

    /// Incremented whenever the descriptor to wait for refers to a new open file description.
    fn generation(&self) -> u64;

    /// When the next step is due even without an event.
    fn deadline(&self) -> Deadline {
        None
    }

    fn stage(&self) -> Stage {
        Stage::Working
    }

    fn reply(&self) -> Option<&Fields> {
        None
    }

    /// What else a waiting caller has to watch, because there is no keeper.
    fn attended(&self) -> Option<Attended> {
        None
    }

    /// Called when the operation is cancelled or times out. `unclaimed` is its product, if that was not taken.
    fn give_up(&mut self, unclaimed: Option<T>) {
        drop(unclaimed);
    }
}

enum State<T> {
    Running,
    Ready(T),
    Taken,
    Failed(Error),
}

/// One operation that produces a `T`.
pub struct Pending<T> {
    process: Arc<Process>,
    operation: Operation,
    job: Option<Box<dyn Job<T>>>,
    state: State<T>,
    limit: Option<Duration>,
    deadline: Deadline,
    /// Generation of a job that was dropped.
    last_generation: u64,
}

impl<T> Pending<T> {
    fn new(process: &Arc<Process>, operation: Operation, job: Option<Box<dyn Job<T>>>, state: State<T>) -> Self {
        let process = Arc::clone(process);
        Pending { process, operation, job, state, limit: None, deadline: None, last_generation: 0 }
    }

    /// Starts an operation and takes its first step. The outcome of that step, good or bad, is reported by the next
    /// one.
    pub fn begin(
        process: &Arc<Process>,
        operation: Operation,
        job: impl Job<T> + 'static,
        limit: Option<Duration>,
        now: Instant,
    ) -> Self {
        Pending::begin_boxed(process, operation, Box::new(job), limit, now)
    }

    /// The same for every kind of job: one piece of code.
    #[inline(never)]
    fn begin_boxed(
        process: &Arc<Process>,
        operation: Operation,
        job: Box<dyn Job<T>>,
        limit: Option<Duration>,
        now: Instant,
    ) -> Self {
        let mut pending = Pending::new(process, operation, Some(job), State::Running);
        (pending.limit, pending.deadline) = (limit, after(limit, now));
        drop(pending.step(now));
        pending
    }

    /// An operation that is already done. If its product is not taken, it goes back to `job`.
    pub fn ready(process: &Arc<Process>, operation: Operation, product: T, job: Option<Box<dyn Job<T>>>) -> Self {
        Pending::new(process, operation, job, State::Ready(product))
    }

    /// The operation that errors are attributed to.
    pub fn operation(&self) -> Operation {
        self.operation
    }

    /// Gets as far as possible without blocking. A failure is final and returned by every later step.
    pub fn step(&mut self, now: Instant) -> Result<Progress> {
        self.process.check()?;
        let _edge = log::edge();
        match (&self.state, &mut self.job) {
            (State::Failed(error), _) => Err(error.clone()),
            (State::Running, Some(job)) => match job.step(now, self.deadline) {
                Ok(Some(product)) => {
                    self.state = State::Ready(product);
                    Ok(Progress::Done)
                }
                Ok(None) if passed(self.deadline, now) => Err(self.time_out()),
                Ok(None) => Ok(Progress::Block),
                Err(error) => {
                    self.state = State::Failed(error.clone());
                    Err(error)
                }
            },
            _ => Ok(Progress::Done),
        }
    }

    #[inline(never)]
    fn time_out(&mut self) -> Error {
        let mut error = timed_out(self.operation, self.limit, self.stage_name());
        if self.stage() == Stage::Greeting {
            error.message.push_str(NO_ANSWER);
        }
        self.give_up();
        self.state = State::Failed(error.clone());
        error
    }

    /// Waits until the operation has ended or `limit` has passed. In the latter case it continues and can be waited for
    /// again.
    pub fn wait(&mut self, limit: Option<Duration>) -> Result<Progress> {
        wait_for(self, limit)
    }

    /// Waits until the operation has succeeded or failed.
    pub fn complete(&mut self) -> Result<()> {
        while self.wait(None)? == Progress::Block {}
        Ok(())
    }

    /// Waits until the operation has ended and takes its product.
    pub fn product(mut self) -> Result<T> {
        self.complete()?;
        self.take()
    }

    /// Takes the product of a finished operation; possible only once.
    pub fn take(&mut self) -> Result<T> {
        self.check_done()?;
        match std::mem::replace(&mut self.state, State::Taken) {
            State::Ready(product) => Ok(product),
            _ => Err(Error::new(Status::Internal, self.operation, "what was there is gone")),
        }
    }

    /// Returns the error [`Pending::take`] would return, if any.
    pub fn check_done(&self) -> Result<()> {
        self.process.check()?;
        match &self.state {
            State::Ready(_) => Ok(()),
            State::Taken => Err(Error::state("the result of this operation was taken before")),
            State::Failed(error) => Err(error.clone()),
            State::Running => {
                Err(Error::new(Status::State, self.operation, "the operation is not done: step or wait first"))
            }
        }
    }

    /// Converts the product with `make` once the operation is done.
    pub fn then<U>(mut self, make: impl FnOnce(T) -> Result<U> + Send + 'static) -> Pending<U>
    where
        T: 'static,
        U: 'static,
    {
        let job = self.job.take().map(|job| Box::new(Then { job, make: None }) as Box<Then<T, U>>);
        let (state, job) = match (std::mem::replace(&mut self.state, State::Taken), job) {
            (State::Ready(product), _) => match make(product) {
                Ok(made) => (State::Ready(made), None),
                Err(error) => (State::Failed(error), None),
            },
            (State::Running, Some(mut job)) => {
                job.make = Some(Box::new(make));
                (State::Running, Some(job as Box<dyn Job<U>>))
            }
            (State::Failed(error), job) => (State::Failed(error), job.map(|job| job as Box<dyn Job<U>>)),
            (_, _) => (State::Taken, None),
        };
        let mut pending = Pending::new(&self.process, self.operation, job, state);
        (pending.limit, pending.deadline) = (self.limit, self.deadline);
        pending
    }

    /// How far the operation has got.
    pub fn stage(&self) -> Stage {
        match (&self.state, &self.job) {
            (State::Failed(_), _) => Stage::Failed,
            (State::Running, Some(job)) => job.stage(),
            _ => Stage::Done,
        }
    }

    /// The stage in words, for people.
    pub fn stage_name(&self) -> &'static CStr {
        self.stage().name(self.operation)
    }

    fn interest(&self) -> Interest {
        match (&self.state, &self.job) {
            (State::Running, Some(job)) => job.interest(),
            _ => Interest::NONE,
        }
    }

    /// The descriptor to wait on, for poll only; -1 if there is none to wait for.
    pub fn fd(&self) -> RawFd {
        self.interest().fd
    }

    /// The events to wait for on `fd`.
    pub fn events(&self) -> i16 {
        self.interest().events
    }

    /// Incremented whenever `fd` refers to a new open file description, even under the same number.
    pub fn generation(&self) -> u64 {
        self.job.as_ref().map_or(self.last_generation, |job| job.generation())
    }

    /// When the next step is due even without an event.
    pub fn due(&self) -> Deadline {
        match (&self.state, &self.job) {
            (State::Running, Some(job)) => earlier(self.deadline, job.deadline()),
            _ => None,
        }
    }

    /// Milliseconds until the next step is due even without an event; -1 for never.
    pub fn timeout_ms(&self, now: Instant) -> i32 {
        match self.state {
            State::Running => poll_timeout(self.due(), now),
            _ => 0,
        }
    }

    /// A field of the bridge's last reply. Private keys are never included.
    pub fn reply(&self, key: &str) -> Option<&str> {
        self.job.as_ref()?.reply()?.get(key)
    }

    #[inline(never)]
    fn give_up(&mut self) {
        let _edge = log::edge();
        self.last_generation = self.generation();
        let unclaimed = match std::mem::replace(&mut self.state, State::Taken) {
            State::Ready(product) => Some(product),
            State::Running => None,
            State::Taken | State::Failed(_) => return,
        };
        if let Some(mut job) = self.job.take() {
            job.give_up(unclaimed);
        }
    }
}

impl<T> Drop for Pending<T> {
    fn drop(&mut self) {
        // A child of fork(2) must not touch anything of the parent's.
        if !self.process.in_child() {
            self.give_up();
        }
    }
}

/// What waiting needs to know of an operation: one piece of code serves operations of every type.
trait Waitable {
    fn step(&mut self, now: Instant) -> Result<Progress>;
    fn awaited(&self) -> (Interest, Option<Attended>, Deadline);
    fn operation(&self) -> Operation;
}

impl<T> Waitable for Pending<T> {
    fn step(&mut self, now: Instant) -> Result<Progress> {
        Pending::step(self, now)
    }

    fn awaited(&self) -> (Interest, Option<Attended>, Deadline) {
        (self.interest(), self.job.as_ref().and_then(|job| job.attended()), self.due())
    }

    fn operation(&self) -> Operation {
        self.operation
    }
}

fn wait_for(pending: &mut dyn Waitable, limit: Option<Duration>) -> Result<Progress> {
    let mut now = Instant::now();
    let until = after(limit, now);
    loop {
        if pending.step(now)? == Progress::Done {
            return Ok(Progress::Done);
        }
        if passed(until, now) {
            return Ok(Progress::Block);
        }
        let (Interest { fd, events }, attended, due) = pending.awaited();
        driver::wait(fd, events, attended.as_ref(), earlier(due, until), now)
            .map_err(|error| Error::io(pending.operation(), "poll", &error))?;
        now = Instant::now();
    }
}

#[cold]
fn timed_out(operation: Operation, limit: Option<Duration>, stage: &CStr) -> Error {
    let milliseconds = limit.unwrap_or_default().as_millis();
    let stage = stage.to_string_lossy();
    let message = format!("{operation} did not end within {milliseconds} ms ({stage})");
    Error::new(Status::Timeout, operation, message)
}

/// A job whose product is converted.
struct Then<T, U> {
    job: Box<dyn Job<T>>,
    make: Option<Box<dyn FnOnce(T) -> Result<U> + Send>>,
}

impl<T, U> Job<U> for Then<T, U> {
    fn step(&mut self, now: Instant, deadline: Deadline) -> Result<Option<U>> {
        let Some(product) = self.job.step(now, deadline)? else { return Ok(None) };
        self.make.take().map(|make| make(product)).transpose()
    }

    fn interest(&self) -> Interest {
        self.job.interest()
    }

    fn generation(&self) -> u64 {
        self.job.generation()
    }

    fn deadline(&self) -> Deadline {
        self.job.deadline()
    }

    fn stage(&self) -> Stage {
        self.job.stage()
    }

    fn reply(&self) -> Option<&Fields> {
        self.job.reply()
    }

    fn attended(&self) -> Option<Attended> {
        self.job.attended()
    }

    fn give_up(&mut self, _: Option<U>) {
        self.job.give_up(None);
    }
}
