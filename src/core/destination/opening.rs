//! Opening a destination: a name is waited for, keys are found, and the bridge is asked for a session.

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use crate::core::bridge::{BridgeConnection, Finished};
use crate::core::destination::context::Context;
use crate::core::destination::destination::{Destination, NewDestination};
use crate::core::destination::handle::DestHandle;
use crate::core::destination::name_registry::{NameLease, NameTurn};
use crate::core::drive::{after, passed, Deadline, Interest, Job, Limit, Pending, Progress, Stage};
use crate::core::session::{SessionSpec, ED25519};
use crate::core::settings::Options;
use crate::error::{Error, Operation, Result, Status};
use crate::identity::Keys;
use crate::protocol::handshake::Phase;
use crate::protocol::line::Fields;
use crate::protocol::request::NewIdentity;
use crate::sys::{self, Wake};

/// So long a named destination that is "in use" is asked for again, after such pauses.
const DUPLICATE_PATIENCE: Duration = Duration::from_secs(6);
const DUPLICATE_PAUSE: Duration = Duration::from_millis(250);

/// A destination that is to be opened.
pub struct DestPlan {
    recipe: SessionSpec,
    options: Options,
    id: String,
    hold: Option<NameLease>,
    /// Those it is opened with; without any the router makes new ones.
    keys: Option<Keys>,
}

/// What comes next in opening a destination.
pub enum Next {
    /// The bridge is to be asked for a session.
    Ask(Box<BridgeConnection>),
    /// Somebody is just opening or closing it: try again when this is readable.
    Wait(Arc<Wake>),
    /// It is open already.
    Done(DestHandle),
}

impl DestPlan {
    /// Checks the arguments of an open.
    pub fn new(name: &str, style: i32, options: &Options) -> Result<Self> {
        let recipe = SessionSpec::new(name, style, options)?;
        Ok(DestPlan { recipe, options: options.duplicate(), id: SessionSpec::new_id()?, hold: None, keys: None })
    }

    /// Whether it has a name.
    pub fn is_named(&self) -> bool {
        !self.recipe.name.is_empty()
    }

    /// Takes the next step.
    pub fn next(&mut self, context: &Arc<Context>) -> Result<Next> {
        if self.is_named() && self.hold.is_none() {
            match context.named.turn(&self.recipe.name)? {
                NameTurn::Shared(presence) => {
                    // From here on the handle counts, also if it turns out to be the wrong one.
                    let dest = DestHandle::new(presence, context);
                    dest.presence().recipe().check_shareable(&self.recipe)?;
                    self.check_keys(dest.presence().keys())?;
                    return Ok(Next::Done(dest));
                }
                NameTurn::Wait(wake) => return Ok(Next::Wait(wake)),
                NameTurn::Mine(hold) => {
                    let kept = hold.load()?;
                    if let Some(kept) = &kept {
                        self.check_keys(kept)?;
                    }
                    self.keys = kept;
                    self.hold = Some(hold);
                }
            }
        }
        if self.keys.is_none() {
            self.keys = self.options.keys().map(Keys::duplicate);
        }
        if self.recipe.port.is_none() {
            self.recipe.bind(&context.bridge, &self.options)?;
        }
        let identity = match &self.keys {
            Some(keys) => keys.duplicate().into(),
            None => NewIdentity::Transient(self.options.number("signature_type").unwrap_or(ED25519)),
        };
        context.ask(self.recipe.request(self.id.clone(), identity)).map(|exchange| Next::Ask(Box::new(exchange)))
    }

    /// Keys that exist already must be those the caller asks for.
    fn check_keys(&self, kept: &Keys) -> Result<()> {
        let state = |message| Err(Error::new(Status::State, Operation::Create, message));
        let name = &self.recipe.name;
        if self.options.keys().is_some_and(|given| given.address() != kept.address()) {
            return state(format!("destination \"{name}\" exists with other keys than those that are given"));
        }
        if self.options.number("signature_type").is_some_and(|wanted: u16| wanted != kept.signature_type()) {
            return state(format!(
                "destination \"{name}\" exists with keys of signature type {}",
                kept.signature_type()
            ));
        }
        Ok(())
    }

    /// Makes the destination of the connection that created its session.
    pub fn finish(self, context: &Arc<Context>, created: Finished) -> Result<DestHandle> {
        let keys = SessionSpec::keys_of(&created)?;
        if let Some(given) = &self.keys {
            SessionSpec::check_same(&keys, given.address())?;
        }
        // Those that were given are what the key file has, or what is to be in it.
        let fresh = self.hold.as_ref().map_or(Ok(None), NameLease::load)?.is_none();
        let keys = self.keys.unwrap_or(keys);
        if let Some(hold) = self.hold.as_ref().filter(|_| fresh) {
            hold.save(&keys)?;
        }
        let beginning = NewDestination { recipe: self.recipe, keys, id: self.id, created };
        let presence = Destination::begin(Arc::clone(&context.bridge), context.keeper.clone(), beginning)?;
        if let Some(hold) = self.hold {
            hold.settle(&presence);
            presence.keep(Box::new(hold));
        }
        let dest = DestHandle::new(presence, context);
        context.add(dest.presence())?;
        Ok(dest)
    }
}

/// Starts opening a destination.
pub fn open(context: &Arc<Context>, plan: DestPlan, limit: Limit) -> Result<Pending<DestHandle>> {
    let limit = limit.or(context.bridge.timeouts.open);
    let mut opening = Opening {
        context: Arc::clone(context),
        plan: Some(Box::new(plan)),
        at: At::Start,
        patience: after(Some(DUPLICATE_PATIENCE)),
        past: 0,
    };
    match opening.next()? {
        Some(dest) => Ok(Pending::ready(&context.bridge.process, Operation::Create, dest, None)),
        None => Ok(Pending::begin(&context.bridge.process, Operation::Create, opening, limit)),
    }
}

struct Opening {
    context: Arc<Context>,
    /// None once it is done or has failed.
    plan: Option<Box<DestPlan>>,
    at: At,
    /// Until then DUPLICATED_DEST need not mean that somebody else has the keys.
    patience: Deadline,
    /// Descriptions used up.
    past: u64,
}

/// How far an opening is.
enum At {
    Start,
    /// Somebody else is busy with the name.
    Name(Arc<Wake>),
    /// The router has not let go of the keys yet.
    Pause(Deadline),
    /// The bridge is asked.
    Asking(Box<BridgeConnection>),
}

impl Opening {
    fn next(&mut self) -> Result<Option<DestHandle>> {
        let Some(plan) = &mut self.plan else { return Ok(None) };
        self.context.check_open(Operation::Create)?;
        let next = plan.next(&self.context)?;
        self.past = self.generation();
        self.at = match next {
            Next::Done(dest) => return Ok(Some(dest)),
            Next::Wait(wake) => {
                // Closed in between, it will wake nobody any more.
                self.context.check_open(Operation::Create)?;
                At::Name(wake)
            }
            Next::Ask(exchange) => At::Asking(exchange),
        };
        Ok(None)
    }

    fn advance(&mut self) -> Result<Option<DestHandle>> {
        let due = match &self.at {
            At::Start | At::Asking(_) => true,
            At::Name(wake) => wake.is_set(),
            At::Pause(due) => passed(*due),
        };
        if !due {
            return Ok(None);
        }
        if !matches!(self.at, At::Asking(_)) {
            if let Some(dest) = self.next()? {
                return Ok(Some(dest));
            }
        }
        let At::Asking(exchange) = &mut self.at else { return Ok(None) };
        match exchange.step() {
            Ok(Progress::Block) => Ok(None),
            Ok(Progress::Done) => {
                let created = exchange.finish()?;
                self.plan.take().map(|plan| plan.finish(&self.context, created)).transpose()
            }
            // A router may not have noticed yet that the last session of these keys has ended.
            Err(error) if error.tag == "DUPLICATED_DEST" && self.may_repeat() => {
                self.past = self.generation();
                self.at = At::Pause(after(Some(DUPLICATE_PAUSE)));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn may_repeat(&self) -> bool {
        self.plan.as_ref().is_some_and(|plan| plan.is_named()) && !passed(self.patience)
    }
}

impl Job<DestHandle> for Opening {
    fn step(&mut self, _: Deadline) -> Result<Option<DestHandle>> {
        let result = self.advance();
        if result.is_err() {
            // Others may be waiting for the name, and need not until this is freed; the reply stays.
            self.plan = None;
        }
        result
    }

    fn interest(&self) -> Interest {
        match &self.at {
            At::Start | At::Pause(_) => Interest::NONE,
            At::Name(wake) => Interest { fd: wake.as_raw_fd(), events: sys::IN },
            At::Asking(exchange) => Interest { fd: exchange.fd(), events: exchange.events() },
        }
    }

    fn generation(&self) -> u64 {
        self.past
            + match &self.at {
                At::Start | At::Pause(_) => 0,
                At::Name(_) => 1,
                At::Asking(exchange) => exchange.generation(),
            }
    }

    fn deadline(&self) -> Deadline {
        match &self.at {
            At::Pause(due) => *due,
            At::Asking(exchange) => exchange.deadline(),
            At::Start | At::Name(_) => None,
        }
    }

    fn stage(&self) -> Stage {
        match &self.at {
            At::Asking(exchange) if !exchange.is_established() => Stage::Connecting,
            At::Asking(exchange) if exchange.phase() == Phase::Hello => Stage::Greeting,
            _ => Stage::Working,
        }
    }

    fn reply(&self) -> Option<&Fields> {
        match &self.at {
            At::Asking(exchange) => exchange.reply(),
            _ => None,
        }
    }
}
