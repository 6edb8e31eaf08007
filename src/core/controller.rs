//! A controller: one bridge that answered HELLO, and everything opened through it.

use std::sync::Arc;
use std::time::Instant;

use crate::core::bridge::{Bridge, BridgeConnection, Finished};
use crate::core::destination::{open, Context, DestHandle, DestPlan, NameRegistry};
use crate::core::drive::{log, Driver, Limit, Pending, Scope};
use crate::core::session::{Call, Lookup};
use crate::core::settings::{ControllerOptions, DestOptions, Options};
use crate::core::store::KeyStore;
use crate::error::{Error, Operation, Result};
use crate::identity::{Address, Keys, Target};
use crate::protocol::request::{Outcome, Request};
use crate::protocol::style::Style;
use crate::protocol::version::Version;
use crate::sys::lock::{Rank, RankedMutex};

/// One SAM bridge and everything opened through it.
pub struct Controller {
    context: Arc<Context>,
    version: Version,
}

impl Controller {
    /// Resolves the bridge's host name, connects and exchanges HELLO (leaflet's `check_api`).
    pub fn open(options: &Options) -> Result<Arc<Self>> {
        let options = ControllerOptions::parse(options)?;
        let bridge = Arc::new(Bridge::new(options.bridge)?);
        let driver = Driver::new(options.keeper)?;
        let scope = Arc::new(Scope::default());
        let store = options.key_store.map(|folder| KeyStore::new(&folder, &bridge.process)).transpose()?;
        let version = check(
            BridgeConnection::new(Arc::clone(&bridge), Arc::clone(&scope), Request::Check)?.patiently(),
            Limit::Default,
        )?;
        let names = NameRegistry::new(Arc::clone(&bridge), store);
        let context =
            Context { bridge, scope, driver, names, destinations: RankedMutex::new(Rank::Destinations, Vec::new()) };
        Ok(Arc::new(Controller { context: Arc::new(context), version }))
    }

    /// The bridge that everything of this controller is opened through.
    pub fn bridge(&self) -> &Arc<Bridge> {
        &self.context.bridge
    }

    /// SAM version negotiated when the controller was opened.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Checks on a new connection that the bridge still answers HELLO.
    pub fn check(&self, limit: Limit) -> Result<()> {
        self.context.check_open(Operation::Handshake)?;
        check(self.context.ask(Request::Check)?, limit).map(drop)
    }

    /// Starts resolving `name`. A base64 destination needs no lookup. Otherwise asks through a live session, if there
    /// is one (some routers only support lookups there), else on a connection of its own.
    pub fn lookup(&self, name: &str, limit: Limit) -> Result<Pending<Address>> {
        self.context.check_open(Operation::Lookup)?;
        if name == "ME" {
            return Err(Error::invalid("\"ME\" is a destination's own address: look it up through a destination"));
        }
        match Target::parse(name)? {
            Target::Destination(address) => {
                Ok(Pending::ready(&self.context.bridge.process, Operation::Lookup, address, None))
            }
            target => {
                let _edge = log::edge();
                let owner = Box::new(Arc::clone(&self.context));
                Lookup::start(&self.context.bridge, owner, target.wire(), limit, Instant::now())
            }
        }
    }

    /// Starts generating keys on the router.
    pub fn generate(&self, signature_type: u16, limit: Limit) -> Result<Pending<Keys>> {
        self.context.check_open(Operation::Generate)?;
        let connection = self.context.ask(Request::Generate { signature_type })?;
        Ok(Call::new(connection, None, generated).begin(limit, Instant::now()))
    }

    /// Starts opening a destination; an empty `name` makes it transient.
    pub fn open_dest(&self, name: &str, style: i32, options: &Options, limit: Limit) -> Result<Pending<DestHandle>> {
        self.context.check_open(Operation::Create)?;
        self.open_dest_with(name, DestOptions::parse(Style::from_number(style)?, options)?, limit)
    }

    /// [`Controller::open_dest`] with options that were already parsed.
    pub(crate) fn open_dest_with(&self, name: &str, options: DestOptions, limit: Limit) -> Result<Pending<DestHandle>> {
        open(&self.context, DestPlan::new(name, options)?, limit, Instant::now())
    }

    /// Ends everything opened through this controller, and its keeper thread.
    pub fn close(&self) {
        self.context.close();
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.close();
    }
}

fn check(connection: BridgeConnection, limit: Limit) -> Result<Version> {
    Call::new(connection, None, |finished, _| Ok(finished.version)).begin(limit, Instant::now()).product()
}

fn generated(finished: Finished, _: &BridgeConnection) -> Result<Keys> {
    let unusable = || Error::protocol(Operation::Generate, "DEST REPLY has keys that cannot be read");
    let Outcome::Keys(text) = finished.outcome else { return Err(unusable()) };
    let text = std::str::from_utf8(text.as_bytes()).map_err(|_| unusable())?;
    Keys::from_bridge_text(text).map_err(|_| unusable())
}
