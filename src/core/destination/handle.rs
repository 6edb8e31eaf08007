//! A destination of ours: a handle to its destination on the router.

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

/// A handle to a destination of ours. When the last one is dropped, its session ends and everything on it.
pub struct DestHandle {
    destination: Arc<Destination>,
    /// Keeps the thread of the destination's controller from being dropped under it.
    _context: Arc<Context>,
}

impl DestHandle {
    /// A handle that counts already.
    pub fn new(destination: Arc<Destination>, context: &Arc<Context>) -> Self {
        DestHandle { destination, _context: Arc::clone(context) }
    }

    /// The destination's destination on the router.
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

    /// The error for what only a destination of style STREAM can do.
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
        connect(session, Target::parse(address)?, options, limit)
    }

    /// The same with arguments that are checked already.
    pub(crate) fn connect_with(
        &self,
        target: Target,
        options: ConnectOptions,
        limit: Limit,
    ) -> Result<Pending<Stream>> {
        connect(self.live_streams(Operation::Connect)?, target, options, limit)
    }

    /// Starts accepting one stream. An accept that was given up earlier is taken up again: the bridge may be about to
    /// hand it the next stream.
    pub fn accept(&self, limit: Limit) -> Result<Pending<Stream>> {
        accept(&self.live_streams(Operation::Accept)?, limit, Instant::now())
    }

    /// Starts resolving `name`, or "ME", through the session's own connection.
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

    /// Ends the session, whoever shares it; blocked calls return CLOSED. The handle stays valid.
    pub fn shutdown(&self) -> Result<()> {
        self.destination.bridge().check_process()?;
        self.destination.end("the destination was closed");
        Ok(())
    }
}

fn connect(session: Arc<Session>, target: Target, options: ConnectOptions, limit: Limit) -> Result<Pending<Stream>> {
    let ConnectOptions { ports, router } = options;
    let request = Request::Connect { id: session.id().to_owned(), target: target.clone(), ports, options: router };
    let connection = session.connection(request)?;
    let make = move |finished: Finished, connection: &BridgeConnection| {
        let remote = Remote::of_target(target, ports);
        Ok(Stream::new(Arc::clone(&connection.bridge().process), finished.socket, remote))
    };
    Ok(Call::new(connection, Some(session), make).begin(limit, Instant::now()))
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
