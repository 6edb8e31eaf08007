//! Who drives a controller's destinations: a keeper thread, or the calls of the program. This is the one place that
//! knows; everything else asks here.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Instant;

use crate::core::drive::deadline::{poll_timeout, Deadline};
use crate::core::drive::driven::Driven;
use crate::core::drive::keeper::Keeper;
use crate::error::Result;
use crate::sys::{self, PollFd, SharedFd, Wake, Watch};

/// Who drives.
#[derive(Clone)]
pub struct Driver(Option<Arc<Keeper>>);

impl Driver {
    /// A thread, or with `keeper` unset the calls of the program.
    pub fn new(keeper: bool) -> Result<Self> {
        Ok(Driver(if keeper { Some(Arc::new(Keeper::new()?)) } else { None }))
    }

    /// Whether the calls of the program have to drive, since no thread does.
    pub fn is_caller(&self) -> bool {
        self.0.is_none()
    }

    /// Takes charge of one.
    pub fn add(&self, one: Arc<dyn Driven>) -> Result<()> {
        self.0.as_ref().map_or(Ok(()), |keeper| keeper.add(one))
    }

    /// Gives one up. When this returns no thread of ours uses it any more.
    pub fn remove(&self, one: &Arc<dyn Driven>) {
        if let Some(keeper) = &self.0 {
            keeper.remove(one);
        }
    }

    /// In a child of fork(2): drops one.
    pub fn abandon(&self, one: &Arc<dyn Driven>) {
        if let Some(keeper) = &self.0 {
            keeper.abandon(one);
        }
    }

    /// In a child of fork(2): closes what only the missing thread would have closed.
    pub fn abandon_all(&self) {
        if let Some(keeper) = &self.0 {
            keeper.abandon_all();
        }
    }

    /// Ends the thread, if there is one, and waits for its end.
    pub fn stop(&self) {
        if let Some(keeper) = &self.0 {
            keeper.stop();
        }
    }

    /// There is work that no descriptor tells of: the keeper looks, or the program does when `news` is readable.
    pub fn announce(&self, news: &Wake) {
        match &self.0 {
            Some(keeper) => keeper.poke(),
            None => news.set(),
        }
    }

    /// There is work that no descriptor tells of: it is done soon by the keeper, or now.
    pub fn hurry(&self, drive: impl FnOnce()) {
        match &self.0 {
            Some(keeper) => keeper.poke(),
            None => drive(),
        }
    }

    /// When a program has to drive `one` even without an event, in milliseconds; -1 for never, as always with a keeper.
    pub fn timeout_ms(&self, one: &dyn Driven, now: Instant) -> i32 {
        match self.0 {
            Some(_) => -1,
            None => poll_timeout(one.deadline(), now),
        }
    }
}

/// What a program polls: readable when there is news and, where the program drives, when there is work.
pub(crate) struct Face(Option<Watch>);

impl Face {
    /// For a program that is told by `news`.
    pub(crate) fn new(driver: &Driver, news: &Wake, work: &Watch) -> io::Result<Self> {
        if !driver.is_caller() {
            return Ok(Face(None));
        }
        let watch = Watch::new()?;
        watch.add(news, sys::IN)?;
        watch.add(work, sys::IN)?;
        Ok(Face(Some(watch)))
    }

    /// The descriptor; `news` as when it was made.
    pub(crate) fn fd(&self, news: &Wake) -> RawFd {
        self.0.as_ref().map_or(news.as_raw_fd(), AsRawFd::as_raw_fd)
    }

    /// In a child of fork(2): closes our copy.
    pub(crate) fn abandon(&self) {
        if let Some(watch) = &self.0 {
            watch.abandon();
        }
    }
}

/// A descriptor that a caller who waits has to watch besides its own, since no keeper does, and the events.
pub(crate) type Attended = (Arc<SharedFd>, i16);

/// Waits until `fd` has one of `events`, or until there is something to do about what is `attended`, or `deadline`.
pub(super) fn wait(
    fd: RawFd,
    events: i16,
    attended: Option<&Attended>,
    deadline: Deadline,
    now: Instant,
) -> io::Result<()> {
    let other = attended.map_or((-1, 0), |(fd, events)| (fd.as_raw_fd(), *events));
    let mut fds = [PollFd { fd, events, revents: 0 }, PollFd { fd: other.0, events: other.1, revents: 0 }];
    sys::poll(&mut fds, poll_timeout(deadline, now)).map(drop)
}
