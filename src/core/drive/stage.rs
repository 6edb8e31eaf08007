//! How far an operation is, as a number and in words.

use std::ffi::CStr;

use crate::error::Operation;

/// How far an operation is; the numbers are the C constants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Stage {
    /// The bridge is being reached.
    Connecting = 1,
    /// The bridge has been greeted.
    Greeting = 2,
    /// The router works: it builds tunnels, reaches the peer, resolves the name.
    Working = 3,
    /// The router waits for a peer.
    Listening = 4,
    /// Done.
    Done = 5,
    /// Failed.
    Failed = 6,
}

impl Stage {
    /// The stage of `operation` in words.
    pub fn name(self, operation: Operation) -> &'static CStr {
        match (self, operation) {
            (Stage::Connecting, _) => c"connecting to the bridge",
            (Stage::Greeting, _) => c"greeting the bridge",
            (Stage::Working, Operation::Create) => c"building tunnels",
            (Stage::Working, Operation::Connect) => c"reaching the peer",
            (Stage::Working, Operation::Lookup) => c"resolving the name",
            (Stage::Working, Operation::Generate) => c"making keys",
            (Stage::Working, _) => c"waiting for the router",
            (Stage::Listening, _) => c"waiting for a peer",
            (Stage::Done, _) => c"done",
            (Stage::Failed, _) => c"failed",
        }
    }
}
