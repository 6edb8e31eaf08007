//! Who drives a controller's destinations: a keeper thread, or the program's own calls. Only this file distinguishes
//! the two; everything else asks here.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Instant;

use crate::core::drive::deadline::{poll_timeout, Deadline};
use crate::core::drive::driven::Driven;
use crate::core::drive::keeper::{Keeper, Seat};
use crate::error::Result;
use crate::sys::{self, PollFd, SharedFd, Wake, Watch};

/// The keeper thread, or `None` if the program's calls do the work.
#[derive(Clone)]
pub struct Driver(Option<Kept>);

#[derive(Clone)]
struct Kept {
    keeper: Arc<Keeper>,
    /// The place of the destination that this drives; a controller's own driver has none.
    seat: Option<Arc<Seat>>,
}

impl Driver {
    /// With `keeper` unset, the program's calls do the work.
    pub fn new(keeper: bool) -> Result<Self> {
        let keeper = if keeper { Some(Arc::new(Keeper::new()?)) } else { None };
        Ok(Driver(keeper.map(|keeper| Kept { keeper, seat: None })))
    }

    /// The driver of one more destination: what is said to it concerns that one only.
    pub fn of_one(&self) -> Self {
        let seated = |kept: &Kept| Kept { keeper: Arc::clone(&kept.keeper), seat: Some(kept.keeper.seat()) };
        Driver(self.0.as_ref().map(seated))
    }

    /// Whether the program's calls have to do the work, as there is no keeper.
    pub fn is_caller(&self) -> bool {
        self.0.is_none()
    }

    fn seated(&self) -> Option<(&Keeper, &Arc<Seat>)> {
        self.0.as_ref().and_then(|kept| Some((&*kept.keeper, kept.seat.as_ref()?)))
    }

    /// Starts driving `one`, whose driver this must be; does nothing without a keeper.
    pub fn add(&self, one: Arc<dyn Driven>) -> Result<()> {
        self.seated().map_or(Ok(()), |(keeper, seat)| keeper.add(seat, one))
    }

    /// Stops driving what was added. When this returns, no thread of ours is using it.
    pub fn remove(&self) {
        if let Some((keeper, seat)) = self.seated() {
            keeper.remove(seat);
        }
    }

    /// For a child of fork(2): drops the keeper's reference to what was added.
    pub fn abandon(&self) {
        if let Some((keeper, seat)) = self.seated() {
            keeper.abandon(seat);
        }
    }

    /// For a child of fork(2): closes what only the keeper would have closed, which does not exist here.
    pub fn abandon_all(&self) {
        if let Some(kept) = &self.0 {
            kept.keeper.abandon_all();
        }
    }

    /// Stops the keeper, if there is one, and waits for it.
    pub fn stop(&self) {
        if let Some(kept) = &self.0 {
            kept.keeper.stop();
        }
    }

    /// Signals work, or a deadline, that no descriptor shows: makes the keeper run what was added, or sets `news` so
    /// that the program does it.
    pub fn announce(&self, news: &Wake) {
        match self.is_caller() {
            false => self.poke(),
            true => news.set(),
        }
    }

    /// Like [`Driver::announce`], but without a keeper does the work right here by calling `drive`.
    pub fn hurry(&self, drive: impl FnOnce()) {
        match self.is_caller() {
            false => self.poke(),
            true => drive(),
        }
    }

    /// Makes the keeper, if there is one, run what was added and ask for its deadline.
    pub fn poke(&self) {
        if let Some((keeper, seat)) = self.seated() {
            keeper.poke(seat);
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
