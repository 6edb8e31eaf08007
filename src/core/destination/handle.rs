//! A handle to a destination of ours, and what can be done on it.

use std::sync::Arc;
use std::time::Instant;

use crate::core::bridge::{BridgeConnection, Finished};
use crate::core::destination::context::Context;
use crate::core::destination::destination::Destination;
use crate::core::drive::{Limit, Pending};
use crate::core::session::{accept, Call, Lookup, Session};
use crate::core::settings::{ConnectOptions, Options};
use crate::core::stream::{Remote, Stream};
use crate::error::{Error, Operation, Result, Status};
use crate::identity::{Address, Target};
use crate::protocol::request::Request;
use crate::protocol::style::Style;
use crate::protocol::version::Version;

/// A handle to a destination of ours. Dropping the last one ends the session and everything on it.
pub struct DestHandle {
    destination: Arc<Destination>,
    /// Keeps what it shares with the controller, the keeper above all, from being dropped first.
    _context: Arc<Context>,
}

impl DestHandle {
    /// Wraps a destination that already counts this handle.
    pub fn new(destination: Arc<Destination>, context: &Arc<Context>) -> Self {
        DestHandle { destination, _context: Arc::clone(context) }
    }

    /// The destination that all its handles share.
    pub fn destination(&self) -> &Arc<Destination> {
        &self.destination
    }

    fn live(&self, operation: Operation) -> Result<Arc<Session>> {
        self.destination.bridge().check_process()?;
        self.destination.live(operation)
    }

    fn live_streams(&self, operation: Operation) -> Result<Arc<Session>> {
        self.check_stream(operation)?;
        self.live(operation)
    }

    /// Fails unless the style is STREAM.
    pub fn check_stream(&self, operation: Operation) -> Result<()> {
        if self.destination.style() == Style::Stream {
            return Ok(());
        }
        let message = format!("{operation} is for destinations of style STREAM");
        Err(Error::new(Status::State, operation, message))
    }

    /// Starts connecting to `address`: base64, `name.i2p`, b32 or b33.
    pub fn connect(&self, address: &str, options: &Options, limit: Limit) -> Result<Pending<Stream>> {
        let session = self.live_streams(Operation::Connect)?;
        let options = ConnectOptions::parse(options)?;
        self.connect_on(session, Target::parse(address)?, options, limit)
    }

    /// [`DestHandle::connect`] with arguments that were already parsed.
    pub(crate) fn connect_with(
        &self,
        target: Target,
        options: ConnectOptions,
        limit: Limit,
    ) -> Result<Pending<Stream>> {
        self.connect_on(self.live_streams(Operation::Connect)?, target, options, limit)
    }

    fn connect_on(
        &self,
        session: Arc<Session>,
        target: Target,
        options: ConnectOptions,
        limit: Limit,
    ) -> Result<Pending<Stream>> {
        let ConnectOptions { mut ports, router } = options;
        if session.version() >= Version::V3_2 {
            // Those of SESSION CREATE are for UDP datagrams alone in Java I2P.
            ports = ports.or(self.destination.spec().ports());
        }
        let request = Request::Connect { id: session.id().to_owned(), target: target.clone(), ports, options: router };
        let connection = session.connection(request)?;
        let make = move |finished: Finished, connection: &BridgeConnection| {
            let remote = Remote::of_target(target, ports);
            let (process, scope) = (Arc::clone(&connection.bridge().process), Arc::clone(connection.scope()));
            Ok(Stream::new(process, scope, finished.socket, remote))
        };
        Ok(Call::new(connection, Some(session), make).begin(limit, Instant::now()))
    }

    /// Starts accepting one stream. Resumes an accept abandoned earlier, if there is one: the bridge may be about to
    /// hand the next stream to it.
    pub fn accept(&self, limit: Limit) -> Result<Pending<Stream>> {
        accept(&self.live_streams(Operation::Accept)?, limit, Instant::now())
    }

    /// Starts resolving `name`, or "ME", through the session's control socket.
    pub fn lookup(&self, name: &str, limit: Limit) -> Result<Pending<Address>> {
        let session = self.live(Operation::Lookup)?;
        if name == "ME" {
            return Lookup::begin(&session, name, limit, Instant::now());
        }
        match Target::parse(name)? {
            Target::Destination(address) => {
                Ok(Pending::ready(&session.bridge().process, Operation::Lookup, address, None))
            }
            target => Lookup::begin(&session, target.wire(), limit, Instant::now()),
        }
    }

    /// Ends the destination for all its handles; blocked calls return CLOSED. The handle itself stays valid.
    pub fn shutdown(&self) -> Result<()> {
        self.destination.bridge().check_process()?;
        self.destination.end("the destination was closed");
        Ok(())
    }
}

impl Drop for DestHandle {
    fn drop(&mut self) {
        if self.destination.bridge().process.in_child() {
            self.destination.abandon();
        } else {
            self.destination.leave();
        }
    }
}
