//! Opening a destination: waits for its name, finds its keys, and asks the bridge for a session.

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::core::bridge::{BridgeConnection, Finished};
use crate::core::destination::context::Context;
use crate::core::destination::destination::{Destination, NewDestination};
use crate::core::destination::handle::DestHandle;
use crate::core::destination::name_registry::{NameLease, NameTurn};
use crate::core::drive::{
    after, log, passed, Backoff, Deadline, Interest, Job, Limit, Pending, Progress, Stage, Waiting,
};
use crate::core::session::{last_session, Claim, LettingGo, SessionSpec};
use crate::core::settings::{DestOptions, ED25519};
use crate::error::{Error, Operation, Result, Status};
use crate::identity::Keys;
use crate::protocol::handshake::Phase;
use crate::protocol::line::Fields;
use crate::protocol::reply::ResultCode;
use crate::protocol::request::NewIdentity;
use crate::sys::{self, SharedFd, Wake};

/// Pauses while the router says that the keys are in use: starts with the first and doubles up to the longest.
const DUPLICATE_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_DUPLICATE_PAUSE: Duration = Duration::from_secs(2);

/// A destination about to be opened.
pub(crate) struct DestPlan {
    spec: SessionSpec,
    /// The keys, or the signature type of new ones, if the caller asked for specific ones.
    wanted: Option<NewIdentity>,
    id: String,
    lease: Option<NameLease>,
    /// The keys to open it with; if there are none, the router generates new ones.
    keys: Option<Keys>,
    claim: Option<Claim>,
}

/// The next step of opening a destination.
pub(crate) enum Next {
    /// Ask the bridge for a session, once it has let go of the last one.
    Ask(Option<Box<LettingGo>>, Box<BridgeConnection>),
    /// Another thread is opening or closing the name: try again when this is readable.
    Wait(Arc<Wake>),
    /// It was already open.
    Done(DestHandle),
    /// Another destination of this process has the keys: try again later.
    Duplicate(Error),
}

impl DestPlan {
    /// Does not contact the bridge yet.
    pub(crate) fn new(name: &str, mut options: DestOptions) -> Result<Self> {
        // The options live as long as the destination, which has its own copy of the keys.
        let wanted = options.identity.take();
        let spec = SessionSpec::new(name, options)?;
        Ok(DestPlan { spec, wanted, id: SessionSpec::new_id()?, lease: None, keys: None, claim: None })
    }

    pub(crate) fn is_named(&self) -> bool {
        !self.spec.name.is_empty()
    }

    pub(crate) fn next(&mut self, context: &Arc<Context>, now: Instant) -> Result<Next> {
        if self.is_named() && self.lease.is_none() {
            match context.names.turn(&self.spec.name, now)? {
                NameTurn::Shared(destination) => {
                    // The handle is already counted: wrap it now, so that it is uncounted if the checks fail.
                    let dest = DestHandle::new(destination, context);
                    dest.destination().spec().check_shareable(&self.spec)?;
                    self.check_keys(dest.destination().keys())?;
                    return Ok(Next::Done(dest));
                }
                NameTurn::Wait(wake) => return Ok(Next::Wait(wake)),
                NameTurn::Mine(lease) => {
                    let kept = lease.load()?;
                    if let Some(kept) = &kept {
                        self.check_keys(kept)?;
                    }
                    if let (Some(kept), Some(when)) = (&kept, lease.last_end(now)) {
                        last_session::record(kept.address(), when, &[]);
                    }
                    self.keys = kept;
                    self.lease = Some(lease);
                }
            }
        }
        if let (None, Some(NewIdentity::Keys(given))) = (&self.keys, &self.wanted) {
            self.keys = Some(given.duplicate());
        }
        if let (Some(keys), None) = (&self.keys, &self.claim) {
            match last_session::claim(keys.address(), &context.bridge, now) {
                Ok(claim) => self.claim = Some(claim),
                Err(error) => return Ok(Next::Duplicate(error)),
            }
        }
        if self.spec.port.is_none() {
            self.spec.bind(&context.bridge)?;
        }
        let identity = match (&self.keys, &self.wanted) {
            (Some(keys), _) => keys.duplicate().into(),
            (None, Some(NewIdentity::Transient(signature_type))) => NewIdentity::Transient(*signature_type),
            (None, _) => NewIdentity::Transient(ED25519),
        };
        let connection = context.ask(self.spec.request(self.id.clone(), identity))?.patiently();
        let letting_go = match &self.keys {
            Some(keys) => {
                let address = keys.address().clone();
                Some(Box::new(LettingGo::new(&context.bridge, &context.scope, address)))
            }
            None => None,
        };
        Ok(Next::Ask(letting_go, Box::new(connection)))
    }

    /// The bridge was asked for a session and did not say that there will be none: there may be one, until now.
    fn leave_behind(&self, now: Instant) {
        if let Some(keys) = &self.keys {
            last_session::record(keys.address(), now, &[]);
            last_session::doubt(keys.address());
        }
        if let Some(lease) = &self.lease {
            lease.set_used();
        }
    }

    /// Existing keys must be those the caller asked for.
    fn check_keys(&self, kept: &Keys) -> Result<()> {
        let state = |message| Err(Error::new(Status::State, Operation::Create, message));
        let name = &self.spec.name;
        match &self.wanted {
            Some(NewIdentity::Keys(given)) if given.address() != kept.address() => {
                state(format!("destination \"{name}\" exists with other keys than those that are given"))
            }
            Some(NewIdentity::Transient(wanted)) if *wanted != kept.signature_type() => {
                state(format!("destination \"{name}\" exists with keys of signature type {}", kept.signature_type()))
            }
            _ => Ok(()),
        }
    }

    /// Makes the destination from the connection that created its session.
    pub(crate) fn finish(self, context: &Arc<Context>, created: Finished, now: Instant) -> Result<DestHandle> {
        if let Some(lease) = &self.lease {
            lease.set_used();
        }
        let keys = SessionSpec::keys_of(&created)?;
        let address = keys.address().clone();
        let result = self.begin(keys, context, created, now);
        if result.is_err() {
            // There was a session.
            last_session::record(&address, now, &[]);
        }
        result
    }

    fn begin(self, keys: Keys, context: &Arc<Context>, created: Finished, now: Instant) -> Result<DestHandle> {
        if let Some(given) = &self.keys {
            SessionSpec::check_same(&keys, given.address())?;
        }
        // If there were keys before, they are those in the key file, or those to be stored there.
        let fresh = self.lease.as_ref().map_or(Ok(None), NameLease::load)?.is_none();
        let keys = self.keys.unwrap_or(keys);
        if let Some(lease) = self.lease.as_ref().filter(|_| fresh) {
            lease.save(&keys)?;
        }
        let new = NewDestination { spec: self.spec, keys, id: self.id, created };
        let destination = Destination::begin(Arc::clone(&context.bridge), context.driver.clone(), new, now)?;
        if let Some(lease) = self.lease {
            lease.settle(&destination);
            destination.keep(Box::new(lease));
        }
        let dest = DestHandle::new(destination, context);
        context.add(dest.destination())?;
        Ok(dest)
    }
}

pub(crate) fn open(context: &Arc<Context>, plan: DestPlan, limit: Limit, now: Instant) -> Result<Pending<DestHandle>> {
    let _edge = log::edge();
    let timeouts = &context.bridge.timeouts;
    let limit = limit.or(timeouts.open.map(|open| open + timeouts.bridge.unwrap_or_default()));
    let mut opening = Opening {
        context: Arc::clone(context),
        plan: Some(Box::new(plan)),
        at: At::Start,
        duplicates: Backoff::new(DUPLICATE_PAUSE, LONGEST_DUPLICATE_PAUSE),
        past: 0,
    };
    match opening.next(now)? {
        Some(dest) => Ok(Pending::ready(&context.bridge.process, Operation::Create, dest, None)),
        None => Ok(Pending::begin(&context.bridge.process, Operation::Create, opening, limit, now)),
    }
}

struct Opening {
    context: Arc<Context>,
    /// `None` once it is done or has failed.
    plan: Option<Box<DestPlan>>,
    at: At,
    duplicates: Backoff,
    /// Generations used up by earlier descriptors.
    past: u64,
}

/// What the opening is waiting for.
enum At {
    Start,
    /// Another thread is opening or closing the name.
    Name(Arc<Wake>),
    /// The router has not let go of the last session with these keys.
    LettingGo(Box<LettingGo>, Box<BridgeConnection>),
    /// The router says that the keys are in use: asked again then. It may not have noticed yet that the last session
    /// with them has ended.
    Duplicate(Error, Deadline),
    /// The bridge's answer.
    Asking(Box<BridgeConnection>),
}

impl Opening {
    fn next(&mut self, now: Instant) -> Result<Option<DestHandle>> {
        let Some(plan) = &mut self.plan else { return Ok(None) };
        self.context.check_open(Operation::Create)?;
        let next = plan.next(&self.context, now)?;
        self.past = self.generation();
        self.at = match next {
            Next::Done(dest) => return Ok(Some(dest)),
            Next::Wait(wake) => {
                // If the controller was closed in between, nothing will set this any more.
                self.context.check_open(Operation::Create)?;
                At::Name(wake)
            }
            Next::Duplicate(error) => self.duplicate(error, now),
            Next::Ask(Some(letting_go), connection) => At::LettingGo(letting_go, connection),
            Next::Ask(None, connection) => At::Asking(connection),
        };
        Ok(None)
    }

    fn advance(&mut self, now: Instant, deadline: Deadline) -> Result<Option<DestHandle>> {
        let due = match &self.at {
            At::Start => true,
            At::Name(wake) => wake.is_set(),
            At::Duplicate(error, _) if passed(deadline, now) => return Err(error.clone()),
            At::Duplicate(_, due) => passed(*due, now),
            At::LettingGo(..) | At::Asking(_) => false,
        };
        if due {
            if let Some(dest) = self.next(now)? {
                return Ok(Some(dest));
            }
        }
        if let At::LettingGo(letting_go, _) = &mut self.at {
            self.context.check_open(Operation::Create)?;
            if letting_go.step(now)? == Progress::Block {
                return Ok(None);
            }
            self.past = self.generation();
            if let At::LettingGo(_, connection) = std::mem::replace(&mut self.at, At::Start) {
                self.at = At::Asking(connection);
            }
        }
        let At::Asking(connection) = &mut self.at else { return Ok(None) };
        match connection.step(now) {
            Ok(Progress::Block) => Ok(None),
            Ok(Progress::Done) => {
                let created = connection.finish()?;
                self.plan.take().map(|plan| plan.finish(&self.context, created, now)).transpose()
            }
            Err(error) if self.is_in_use(&error) && !passed(deadline, now) => {
                self.past = self.generation();
                self.at = self.duplicate(error, now);
                Ok(None)
            }
            Err(error) => {
                if error.status != Status::Network {
                    self.leave_behind(now);
                }
                Err(error)
            }
        }
    }

    fn duplicate(&mut self, error: Error, now: Instant) -> At {
        At::Duplicate(error, after(Some(self.duplicates.pause()), now))
    }

    /// Whether the router says that the keys are in use, and that may pass: new keys cannot be.
    fn is_in_use(&self, error: &Error) -> bool {
        let has_keys = self.plan.as_ref().is_some_and(|plan| plan.keys.is_some());
        has_keys && error.tag == ResultCode::DuplicatedDest.token()
    }

    fn leave_behind(&self, now: Instant) {
        if let (At::Asking(connection), Some(plan)) = (&self.at, &self.plan) {
            if connection.is_asked() {
                plan.leave_behind(now);
            }
        }
    }
}

impl Job<DestHandle> for Opening {
    fn step(&mut self, now: Instant, deadline: Deadline) -> Result<Option<DestHandle>> {
        let result = self.advance(now, deadline);
        if result.is_err() {
            // Release the name now, as others may be waiting for it. The reply stays available.
            self.plan = None;
        }
        result
    }

    fn interest(&self) -> Interest {
        let of = |awaited: Option<(&Arc<SharedFd>, i16)>| {
            awaited.map_or(Interest::NONE, |(fd, events)| Interest { fd: fd.as_raw_fd(), events })
        };
        match &self.at {
            At::Start | At::Duplicate(..) => Interest::NONE,
            At::Name(wake) => Interest { fd: wake.as_raw_fd(), events: sys::IN },
            At::LettingGo(letting_go, _) => of(letting_go.awaited()),
            At::Asking(connection) => of(connection.awaited()),
        }
    }

    fn generation(&self) -> u64 {
        self.past
            + match &self.at {
                At::Start | At::Duplicate(..) => 0,
                At::Name(_) => 1,
                At::LettingGo(letting_go, _) => letting_go.generation(),
                At::Asking(connection) => connection.generation(),
            }
    }

    fn deadline(&self) -> Deadline {
        match &self.at {
            At::Duplicate(_, due) => *due,
            At::LettingGo(letting_go, _) => letting_go.deadline(),
            At::Asking(connection) => connection.deadline(),
            At::Start | At::Name(_) => None,
        }
    }

    fn stage(&self) -> Stage {
        match &self.at {
            At::LettingGo(..) | At::Duplicate(..) => Stage::LettingGo,
            At::Asking(connection) if connection.is_away() => Stage::Away,
            At::Asking(connection) if !connection.is_established() => Stage::Connecting,
            At::Asking(connection) if connection.phase() == Phase::Hello => Stage::Greeting,
            _ => Stage::Working,
        }
    }

    fn reply(&self) -> Option<&Fields> {
        match &self.at {
            At::Asking(connection) => connection.reply(),
            _ => None,
        }
    }

    fn give_up(&mut self, _: Option<DestHandle>) {
        self.leave_behind(Instant::now());
        self.plan = None;
    }
}
