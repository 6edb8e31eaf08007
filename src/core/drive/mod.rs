//! Waiting, and who does the work in between: operations in progress, the background thread, what ends together. Nothing
//! here knows what is waited for: each noun brings its own job.

mod backoff;
mod deadline;
mod driven;
mod driver;
mod keeper;
pub mod log;
pub mod own_thread;
mod pending;
mod process;
mod scope;
mod stage;
mod watched;

pub use backoff::Backoff;
pub use deadline::{after, earlier, passed, poll_timeout, Deadline};
pub use driven::Driven;
pub use driver::{wait, Attended, Driver, Face};
pub use log::{inside_hook, Hook, Log};
pub use pending::{Interest, Job, Limit, Pending, Progress};
pub use process::Process;
pub use scope::Scope;
pub use stage::Stage;
pub use watched::{Waiting, Watched};
