//! Who drives a controller's destinations: a keeper thread, or the program's own calls. Only this file distinguishes
//! the two; everything else asks here.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Instant;

use crate::core::drive::deadline::{poll_timeout, Deadline};
use crate::core::drive::driven::Driven;
use crate::core::drive::keeper::Keeper;
use crate::error::Result;
use crate::sys::{self, PollFd, SharedFd, Wake, Watch};

/// The keeper thread, or `None` if the program's calls do the work.
#[derive(Clone)]
pub struct Driver(Option<Arc<Keeper>>);

impl Driver {
    /// With `keeper` unset, the program's calls do the work.
    pub fn new(keeper: bool) -> Result<Self> {
        Ok(Driver(if keeper { Some(Arc::new(Keeper::new()?)) } else { None }))
    }

    /// Whether the program's calls have to do the work, as there is no keeper.
    pub fn is_caller(&self) -> bool {
        self.0.is_none()
    }

    /// Starts driving `one`; does nothing without a keeper.
    pub fn add(&self, one: Arc<dyn Driven>) -> Result<()> {
        self.0.as_ref().map_or(Ok(()), |keeper| keeper.add(one))
    }

    /// Stops driving `one`. When this returns, no thread of ours is using it.
    pub fn remove(&self, one: &Arc<dyn Driven>) {
        if let Some(keeper) = &self.0 {
            keeper.remove(one);
        }
    }

    /// For a child of fork(2): drops the keeper's reference to `one`.
    pub fn abandon(&self, one: &Arc<dyn Driven>) {
        if let Some(keeper) = &self.0 {
            keeper.abandon(one);
        }
    }

    /// For a child of fork(2): closes what only the keeper would have closed, which does not exist here.
    pub fn abandon_all(&self) {
        if let Some(keeper) = &self.0 {
            keeper.abandon_all();
        }
    }

    /// Stops the keeper, if there is one, and waits for it.
    pub fn stop(&self) {
        if let Some(keeper) = &self.0 {
            keeper.stop();
        }
    }

    /// Signals work that no descriptor shows: wakes the keeper, or sets `news` so that the program does it.
    pub fn announce(&self, news: &Wake) {
        match &self.0 {
            Some(keeper) => keeper.poke(),
            None => news.set(),
        }
    }

    /// Like [`Driver::announce`], but without a keeper does the work right here by calling `drive`.
    pub fn hurry(&self, drive: impl FnOnce()) {
        match &self.0 {
            Some(keeper) => keeper.poke(),
            None => drive(),
        }
    }

    /// Milliseconds until the program has to drive `one` even without an event; -1 for never, which with a keeper is
    /// always the case.
    pub fn timeout_ms(&self, one: &dyn Driven, now: Instant) -> i32 {
        match self.0 {
            Some(_) => -1,
            None => poll_timeout(one.deadline(), now),
        }
    }
}

/// The descriptor a program polls: readable when there is news and, without a keeper, when there is work.
pub(crate) struct Face(Option<Watch>);

impl Face {
    /// `news` is set when there is something to report; `work` is readable when there is something to do.
    pub(crate) fn new(driver: &Driver, news: &Wake, work: &Watch) -> io::Result<Self> {
        if !driver.is_caller() {
            return Ok(Face(None));
        }
        let watch = Watch::new()?;
        watch.add(news, sys::IN)?;
        watch.add(work, sys::IN)?;
        Ok(Face(Some(watch)))
    }

    /// `news` must be the one passed to [`Face::new`].
    pub(crate) fn fd(&self, news: &Wake) -> RawFd {
        self.0.as_ref().map_or(news.as_raw_fd(), AsRawFd::as_raw_fd)
    }

    /// For a child of fork(2): closes our copy.
    pub(crate) fn abandon(&self) {
        if let Some(watch) = &self.0 {
            watch.abandon();
        }
    }
}

/// A second descriptor, and its events, that a waiting caller has to watch because there is no keeper to do it.
pub(crate) type Attended = (Arc<SharedFd>, i16);

/// Waits until `fd` has one of `events`, the `attended` descriptor is ready, or `deadline` has passed.
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
