//! The SAM bridge and single connections to it; nothing here knows what becomes of a connection once its request is
//! answered.

mod answer_slot;
mod config;
mod connection;
mod inquiry;
mod lookups;

pub(crate) use answer_slot::AnswerSlot;
pub(crate) use config::Bridge;
pub(crate) use connection::{BridgeConnection, Finished};
pub(crate) use lookups::{OwnLookup, Place};
