//! Rejecting calls in a child of fork(2).

use crate::error::{Error, Operation, Result, Status};
use crate::sys::ForkGuard;

/// Tells whether this is still the process it was created in.
#[derive(Debug, Default)]
pub struct Process(ForkGuard);

impl Process {
    /// Whether this is a child that inherited it through fork(2).
    pub fn in_child(&self) -> bool {
        self.0.in_child()
    }

    /// Fails in a child of fork(2), whose calls would disturb the parent.
    pub fn check(&self) -> Result<()> {
        if self.in_child() {
            return Err(inherited());
        }
        Ok(())
    }
}

#[cold]
fn inherited() -> Error {
    let message = "this handle was made before fork(2): in the child it can only be freed";
    Error::new(Status::State, Operation::None, message)
}
