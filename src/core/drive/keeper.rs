//! The background thread of a controller. It drives all destinations, so that PINGs are answered, lost sessions are
//! noticed and reopened, and streams are accepted while the program does something else.

use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::core::drive::deadline::{earlier, passed, poll_timeout};
use crate::core::drive::driven::Driven;
use crate::core::drive::{log, own_thread};
use crate::error::{Error, Operation, Result};
use crate::sys::lock::{Rank, RankedMutex};
use crate::sys::{self, PollFd, Wake};

/// Pause after poll(2) itself failed, which only happens when memory is short.
const NO_MEMORY_PAUSE: Duration = Duration::from_millis(100);

/// Handle to the thread, which is started for the first destination.
pub(super) struct Keeper {
    shared: Arc<Shared>,
    thread: RankedMutex<Option<JoinHandle<()>>>,
}

struct Shared {
    driven: RankedMutex<Vec<Arc<dyn Driven>>>,
    /// Held while one of them runs, so that `remove` can wait for it to finish.
    running: RankedMutex<()>,
    /// Threads that drop what ended destinations left behind.
    releasing: RankedMutex<Vec<JoinHandle<()>>>,
    wake: Wake,
    stop: AtomicBool,
}

impl Keeper {
    pub(super) fn new() -> Result<Self> {
        let wake = Wake::new().map_err(|error| Error::io(Operation::None, "a descriptor for the keeper", &error))?;
        let shared = Shared {
            driven: RankedMutex::new(Rank::KeeperDriven, Vec::new()),
            running: RankedMutex::new(Rank::KeeperRunning, ()),
            releasing: RankedMutex::new(Rank::KeeperReleasing, Vec::new()),
            wake,
            stop: AtomicBool::new(false),
        };
        Ok(Keeper { shared: Arc::new(shared), thread: RankedMutex::new(Rank::KeeperThread, None) })
    }

    pub(super) fn add(&self, one: Arc<dyn Driven>) -> Result<()> {
        let mut thread = self.thread.lock();
        if thread.is_none() {
            let shared = Arc::clone(&self.shared);
            let builder = std::thread::Builder::new().name("i2psock-keeper".into());
            // Signals are for the program's own threads.
            let started = sys::with_signals_blocked(|| builder.spawn(move || shared.run()));
            *thread = Some(started.map_err(|error| Error::io(Operation::None, "a thread for the keeper", &error))?);
        }
        self.shared.driven.lock().push(one);
        self.poke();
        Ok(())
    }

    /// When this returns, the thread is no longer using `one`.
    pub(super) fn remove(&self, one: &Arc<dyn Driven>) {
        let removed = self.shared.forget(one);
        drop(self.shared.running.lock());
        drop(removed);
        self.poke();
    }

    /// For a child of fork(2), where the thread does not exist: drops `one`.
    pub(super) fn abandon(&self, one: &Arc<dyn Driven>) {
        if let Some(mut driven) = self.shared.driven.try_lock() {
            driven.retain(|known| !is_same(known, one));
        }
    }

    /// For a child of fork(2): closes what only the thread would have closed.
    pub(super) fn abandon_all(&self) {
        self.shared.wake.abandon();
        if let Some(mut driven) = self.shared.driven.try_lock() {
            driven.clear();
        }
    }

    /// Wakes the thread, which then runs every destination.
    pub(super) fn poke(&self) {
        self.shared.wake.set();
    }

    pub(super) fn stop(&self) {
        self.shared.stop.store(true, Ordering::Release);
        self.poke();
        let thread = self.thread.lock().take();
        // A thread cannot join itself.
        if let Some(thread) = thread.filter(|_| !own_thread::is_worker_of(&*self.shared)) {
            // The thread itself never panics; a panic in a log hook is the hook's problem.
            drop(thread.join());
        }
        self.shared.driven.lock().clear();
        let releasing = std::mem::take(&mut *self.shared.releasing.lock());
        for thread in releasing {
            drop(thread.join());
        }
    }
}

impl Shared {
    fn run(&self) {
        own_thread::works_for(self);
        let mut fds = Vec::new();
        let mut due = Vec::new();
        while !self.stop.load(Ordering::Acquire) {
            fds.clear();
            fds.push(PollFd { fd: self.wake.as_raw_fd(), events: sys::IN, revents: 0 });
            let mut deadline = None;
            for one in self.driven.lock().iter() {
                // If one is removed after this, its descriptor wakes us at most once for nothing.
                fds.push(PollFd { fd: one.work(), events: sys::IN, revents: 0 });
                deadline = earlier(deadline, one.deadline());
            }
            if sys::poll(&mut fds, poll_timeout(deadline, Instant::now())).is_err() {
                std::thread::sleep(NO_MEMORY_PAUSE);
            }
            self.wake.clear();
            self.round(&fds, &mut due, Instant::now());
        }
    }

    fn round(&self, fds: &[PollFd], due: &mut Vec<Arc<dyn Driven>>, now: Instant) {
        let _edge = log::edge();
        let woken = fds.first().is_some_and(|wake| wake.revents != 0);
        due.extend(self.driven.lock().iter().filter(|one| woken || has_work(&***one, fds, now)).cloned());
        for one in due.drain(..) {
            let running = self.running.lock();
            // It may have been removed since the round started.
            let alive = !self.driven.lock().iter().any(|known| is_same(known, &one)) || one.run(now);
            drop(running);
            if !alive {
                drop(self.forget(&one));
                if one.has_kept() {
                    self.release_elsewhere(one);
                }
            }
        }
    }

    /// Releases what is left of `one` in a separate thread: an unresponsive disk must not keep this one from answering
    /// PINGs.
    fn release_elsewhere(&self, one: Arc<dyn Driven>) {
        let builder = std::thread::Builder::new().name("i2psock-name".into());
        // If the thread cannot be started, closing the destination does it.
        let thread = sys::with_signals_blocked(|| builder.spawn(move || one.release()));
        let mut releasing = self.releasing.lock();
        releasing.retain(|thread| !thread.is_finished());
        releasing.extend(thread);
    }

    fn forget(&self, one: &Arc<dyn Driven>) -> Option<Arc<dyn Driven>> {
        let mut driven = self.driven.lock();
        let at = driven.iter().position(|known| is_same(known, one))?;
        Some(driven.swap_remove(at))
    }
}

fn has_work(one: &dyn Driven, fds: &[PollFd], now: Instant) -> bool {
    let work = one.work();
    fds.iter().any(|polled| polled.fd == work && polled.revents != 0) || passed(one.deadline(), now)
}

fn is_same(a: &Arc<dyn Driven>, b: &Arc<dyn Driven>) -> bool {
    std::ptr::addr_eq(Arc::as_ptr(a), Arc::as_ptr(b))
}
