//! A connection that is stepped when its descriptor has an event, and watched in between.

use std::sync::Arc;

use crate::core::drive::pending::Progress;
use crate::error::Result;
use crate::sys::{SharedFd, Watch};

/// What can be watched: it has a descriptor now and then, which may be another one after each step.
pub(crate) trait Waiting {
    /// The descriptor to wait on and the events to wait for.
    fn awaited(&self) -> Option<(&Arc<SharedFd>, i16)>;
}

/// Something that waits, and what is watched for it.
pub(crate) struct Watched<C> {
    inner: C,
    watch: Arc<Watch>,
    registered: Option<Registered>,
}

/// A descriptor a watch knows of, until this is dropped.
struct Registered {
    watch: Arc<Watch>,
    fd: Arc<SharedFd>,
    events: i16,
}

impl Drop for Registered {
    fn drop(&mut self) {
        drop(self.watch.remove(&*self.fd));
    }
}

impl<C: Waiting> Watched<C> {
    /// Nothing is watched before the first step.
    pub(crate) fn new(inner: C, watch: &Arc<Watch>) -> Self {
        Watched { inner, watch: Arc::clone(watch), registered: None }
    }

    /// Steps it and watches what it waits for then; nothing after it is done or has failed.
    ///
    /// A step may close its descriptor. That stays open until it is not watched any more: a child of fork(2) may have the
    /// description too, which would then be watched for ever.
    pub(crate) fn step(&mut self, step: impl FnOnce(&mut C) -> Result<Progress>) -> Result<Progress> {
        let result = step(&mut self.inner);
        let waits = matches!(result, Ok(Progress::Block));
        let wanted = self.inner.awaited().filter(|_| waits);
        match (&mut self.registered, wanted) {
            (Some(known), Some((fd, events))) if Arc::ptr_eq(&known.fd, fd) => {
                if known.events != events {
                    known.events = events;
                    // Cannot fail: it is watched already.
                    drop(self.watch.modify(&**fd, events));
                }
            }
            (known, wanted) => {
                *known = None;
                if let Some((fd, events)) = wanted {
                    // Without memory for it, the next deadline still brings a step.
                    drop(self.watch.add(&**fd, events));
                    *known = Some(Registered { watch: Arc::clone(&self.watch), fd: Arc::clone(fd), events });
                }
            }
        }
        result
    }

    /// What is watched.
    pub(crate) fn get(&self) -> &C {
        &self.inner
    }

    /// The same, to take from it what a step has made.
    pub(crate) fn get_mut(&mut self) -> &mut C {
        &mut self.inner
    }

    /// What was watched, and is not any more.
    pub(crate) fn into_inner(self) -> C {
        self.inner
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::sys::{self, poll_one};

    struct Ear(Option<(Arc<SharedFd>, i16)>);

    impl Waiting for Ear {
        fn awaited(&self) -> Option<(&Arc<SharedFd>, i16)> {
            self.0.as_ref().map(|(fd, events)| (fd, *events))
        }
    }

    fn socket() -> (Arc<SharedFd>, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Arc::new(SharedFd::new(ours.into())), theirs)
    }

    fn is_ready(watch: &Watch) -> bool {
        poll_one(watch.as_raw_fd(), sys::IN, 0).unwrap() != 0
    }

    #[test]
    fn what_a_step_waits_for_is_watched_and_nothing_else() {
        let watch = Arc::new(Watch::new().unwrap());
        let ((a, _far_a), (b, _far_b)) = (socket(), socket());
        let mut watched = Watched::new(Ear(None), &watch);
        let mut wait_for = |fd: Option<&Arc<SharedFd>>, events: i16, result: Result<Progress>| {
            let next = fd.map(|fd| (Arc::clone(fd), events));
            drop(watched.step(|ear| {
                ear.0 = next;
                result
            }));
            is_ready(&watch)
        };
        assert!(!wait_for(Some(&a), sys::IN, Ok(Progress::Block)));
        assert!(wait_for(Some(&a), sys::OUT, Ok(Progress::Block)));
        assert!(!wait_for(Some(&b), sys::IN, Ok(Progress::Block)), "the first one is not watched any more");
        assert!(wait_for(Some(&b), sys::OUT, Ok(Progress::Block)));
        assert!(!wait_for(None, 0, Ok(Progress::Block)));
        assert!(wait_for(Some(&a), sys::OUT, Ok(Progress::Block)));
        assert!(!wait_for(Some(&a), sys::OUT, Ok(Progress::Done)), "what is done is not watched");
        assert!(wait_for(Some(&a), sys::OUT, Ok(Progress::Block)));
        drop(watched);
        assert!(!is_ready(&watch));
    }

    /// As after fork(2): the description lives on elsewhere, so that closing the descriptor does not end the watching.
    #[test]
    fn a_descriptor_that_a_step_closes_is_not_watched_for_ever() {
        let watch = Arc::new(Watch::new().unwrap());
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let _copy = ours.try_clone().unwrap();
        let fd = Arc::new(SharedFd::new(ours.into()));
        let mut watched = Watched::new(Ear(Some((fd, sys::OUT))), &watch);
        drop(watched.step(|_| Ok(Progress::Block)));
        assert!(is_ready(&watch));
        drop(watched.step(|ear| {
            ear.0 = None;
            Ok(Progress::Block)
        }));
        assert!(!is_ready(&watch));
    }
}
