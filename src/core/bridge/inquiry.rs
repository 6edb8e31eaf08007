//! A connection to the bridge that asks for a name and nothing else.

use std::time::Instant;

use crate::core::bridge::connection::BridgeConnection;
use crate::core::bridge::lookups::Inquiry;
use crate::core::drive::{Deadline, Progress, Stage};
use crate::error::{Error, Operation, Result, Status};
use crate::identity::Address;
use crate::protocol::control::Answer;
use crate::protocol::handshake::Phase;
use crate::protocol::request::Outcome;

impl Inquiry for BridgeConnection {
    fn step(&mut self, now: Instant) -> Option<Answer> {
        let result = match BridgeConnection::step(self, now) {
            Ok(Progress::Block) => return None,
            Ok(Progress::Done) => found(self),
            Err(error) => Err(error),
        };
        Some(Answer { result, fields: self.take_reply() })
    }

    fn check(&self) -> Result<()> {
        self.check_scope()
    }

    fn deadline(&self) -> Deadline {
        BridgeConnection::deadline(self)
    }

    fn stage(&self) -> Stage {
        match self.phase() {
            _ if !self.is_established() => Stage::Connecting,
            Phase::Hello => Stage::Greeting,
            _ => Stage::Working,
        }
    }
}

fn found(connection: &mut BridgeConnection) -> Result<Address> {
    match connection.finish()?.outcome {
        Outcome::Found(address) => Ok(address),
        _ => Err(Error::new(Status::Internal, Operation::Lookup, "a lookup without an address")),
    }
}
