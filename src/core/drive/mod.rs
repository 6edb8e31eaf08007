//! Waiting, and who does the work meanwhile: operations in progress, the background thread, what ends together.

mod deadline;
mod driven;
mod keeper;
mod log;
pub mod own_thread;
mod pending;
mod process;
mod scope;
mod stage;

pub use deadline::{after, earlier, passed, poll_timeout, Deadline};
pub use driven::Driven;
pub use keeper::Keeper;
pub use log::{inside_hook, Hook, Log};
pub use pending::{Interest, Job, Limit, Pending, Progress};
pub use process::Process;
pub use scope::Scope;
pub use stage::Stage;
