//! How far an operation has got, as a number and in words.

use std::ffi::CStr;

use crate::error::Operation;

/// How far an operation has got; the numbers are the C constants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Stage {
    /// Connecting to the bridge.
    Connecting = 1,
    /// Connected; waiting for the answer to HELLO.
    Greeting = 2,
    /// The router is at work: building tunnels, reaching the peer, resolving the name.
    Working = 3,
    /// The router is waiting for a peer.
    Listening = 4,
    /// The operation has succeeded.
    Done = 5,
    /// The operation has failed.
    Failed = 6,
    /// There is no router yet; it is being waited for.
    Away = 7,
    /// Waiting until the router has let go of the last session with the same keys.
    LettingGo = 8,
}

impl Stage {
    /// The stage in words that fit `operation`.
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
            (Stage::Away, _) => c"waiting for a router",
            (Stage::LettingGo, _) => c"waiting for the router to let go of the last session",
        }
    }
}
