//! Keeps a [`Watch`] in step with the descriptor that a connection is waiting on.

use std::sync::Arc;

use crate::core::drive::pending::Progress;
use crate::error::Result;
use crate::sys::{SharedFd, Watch};

/// Something that waits on a descriptor, which may be a different one, or none, after each step.
pub(crate) trait Waiting {
    fn awaited(&self) -> Option<(&Arc<SharedFd>, i16)>;
}

/// Something that waits, and the descriptor watched on its behalf.
pub(crate) struct Watched<C> {
    inner: C,
    watch: Arc<Watch>,
    registered: Option<Registered>,
}

/// A descriptor registered with a watch; removed from it when this is dropped.
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
    pub(crate) fn new(inner: C, watch: &Arc<Watch>) -> Self {
        Watched { inner, watch: Arc::clone(watch), registered: None }
    }

    /// Steps it, then watches what it is waiting for: nothing once it is done or has failed.
    ///
    /// A step may drop its descriptor. We keep it open until it is removed from the watch: if a child of fork(2) holds
    /// the same description, it would otherwise be watched forever.
    pub(crate) fn step(&mut self, step: impl FnOnce(&mut C) -> Result<Progress>) -> Result<Progress> {
        let result = step(&mut self.inner);
        let waits = matches!(result, Ok(Progress::Block));
        let wanted = self.inner.awaited().filter(|_| waits);
        match (&mut self.registered, wanted) {
            (Some(known), Some((fd, events))) if Arc::ptr_eq(&known.fd, fd) => {
                if known.events != events {
                    known.events = events;
                    // Cannot fail, since it is already watched.
                    drop(self.watch.modify(&**fd, events));
                }
            }
            (known, wanted) => {
                *known = None;
                if let Some((fd, events)) = wanted {
                    // If memory is short, the next deadline still triggers a step.
                    drop(self.watch.add(&**fd, events));
                    *known = Some(Registered { watch: Arc::clone(&self.watch), fd: Arc::clone(fd), events });
                }
            }
        }
        result
    }

    pub(crate) fn get(&self) -> &C {
        &self.inner
    }

    pub(crate) fn get_mut(&mut self) -> &mut C {
        &mut self.inner
    }

    /// Stops watching.
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

    /// As after fork(2): the description is still open elsewhere, so closing the descriptor does not end the watching.
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
