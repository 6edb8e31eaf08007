//! Operations in progress, the thread that works in the background, deadlines and the log; nothing here knows what an
//! operation does or waits for, as each kind brings its own `Job`.

mod backoff;
mod deadline;
mod driven;
mod driver;
mod keeper;
pub(crate) mod log;
pub(crate) mod own_thread;
mod pending;
mod process;
mod scope;
mod seats;
mod stage;
mod watched;

pub(crate) use backoff::Backoff;
pub use deadline::after;
pub(crate) use deadline::{earlier, passed, poll_timeout, Deadline};
pub(crate) use driven::Driven;
pub(crate) use driver::{Attended, Driver, Face};
pub(crate) use log::{inside_hook, Hook, Log};
pub(crate) use pending::{Interest, Job};
pub use pending::{Limit, Pending, Progress};
pub(crate) use process::Process;
pub(crate) use scope::Scope;
pub use stage::Stage;
pub(crate) use watched::{Waiting, Watched};
