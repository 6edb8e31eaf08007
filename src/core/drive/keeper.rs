//! The background thread of a controller: it drives all destinations, so that PINGs are answered, lost presences are
//! noticed and opened again, and streams accepted, while the program does something else.

use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::Mutex;

use crate::core::drive::deadline::{earlier, passed, poll_timeout};
use crate::core::drive::driven::Driven;
use crate::core::drive::own_thread;
use crate::error::{Error, Operation, Result};
use crate::sys::{self, PollFd, Wake};

/// Handle to the thread, which starts with the first destination.
pub struct Keeper {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    driven: Mutex<Vec<Arc<dyn Driven>>>,
    wake: Wake,
    stop: AtomicBool,
}

impl Keeper {
    /// A keeper without a thread yet.
    pub fn new() -> Result<Self> {
        let wake = Wake::new().map_err(|error| Error::io(Operation::None, "a descriptor for the keeper", &error))?;
        let shared = Shared { driven: Mutex::new(Vec::new()), wake, stop: AtomicBool::new(false) };
        Ok(Keeper { shared: Arc::new(shared), thread: Mutex::new(None) })
    }

    /// Takes charge of a destination.
    pub fn add(&self, one: Arc<dyn Driven>) -> Result<()> {
        let mut thread = self.thread.lock();
        if thread.is_none() {
            let shared = Arc::clone(&self.shared);
            let builder = std::thread::Builder::new().name("i2psock-keeper".into());
            // Signals belong to the program's own threads.
            let started = sys::with_signals_blocked(|| builder.spawn(move || shared.run()));
            *thread = Some(started.map_err(|error| Error::io(Operation::None, "a thread for the keeper", &error))?);
        }
        self.shared.driven.lock().push(one);
        self.poke();
        Ok(())
    }

    /// Gives one up. When this returns the thread does not use it any more.
    pub fn remove(&self, one: &Arc<dyn Driven>) {
        let removed = {
            let mut driven = self.shared.driven.lock();
            let found = driven.iter().position(|known| is_same(known, one));
            found.map(|at| driven.swap_remove(at))
        };
        drop(removed);
        self.poke();
    }

    /// In a child of fork(2), where there is no thread: drops it.
    pub fn abandon(&self, one: &Arc<dyn Driven>) {
        if let Some(mut driven) = self.shared.driven.try_lock() {
            driven.retain(|known| !is_same(known, one));
        }
    }

    /// In a child of fork(2): closes what only the missing thread would have closed.
    pub fn abandon_all(&self) {
        self.shared.wake.abandon();
        if let Some(mut driven) = self.shared.driven.try_lock() {
            driven.clear();
        }
    }

    /// Makes the thread look again at what the destinations wait for.
    pub fn poke(&self) {
        self.shared.wake.set();
    }

    /// Ends the thread and waits for its end.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::Release);
        self.poke();
        let thread = self.thread.lock().take();
        // A thread cannot wait for itself.
        if let Some(thread) = thread.filter(|_| !own_thread::is_worker_of(&*self.shared)) {
            // The thread has no panics of its own; one in a log hook is the hook's.
            drop(thread.join());
        }
        self.shared.driven.lock().clear();
    }
}

impl Shared {
    fn run(&self) {
        own_thread::works_for(self);
        while !self.stop.load(Ordering::Acquire) {
            let mut fds = vec![PollFd { fd: self.wake.as_raw_fd(), events: sys::IN, revents: 0 }];
            let mut deadline = None;
            for one in self.driven.lock().iter() {
                // Open as long as it lives, which cannot end while we have it in the list, or else costs one needless
                // look.
                fds.push(PollFd { fd: one.work(), events: sys::IN, revents: 0 });
                deadline = earlier(deadline, one.deadline());
            }
            if sys::poll(&mut fds, poll_timeout(deadline)).is_err() {
                // Only want of memory can do that; wait a little instead of spinning.
                std::thread::sleep(std::time::Duration::from_millis(100));
            }
            let woken = fds.first().is_some_and(|wake| wake.revents != 0);
            self.wake.clear();
            self.drive(&fds, woken);
        }
    }

    fn drive(&self, fds: &[PollFd], woken: bool) {
        let mut logs: Vec<(Arc<dyn Driven>, Vec<String>)> = Vec::new();
        // Under the lock, so that `remove` waits for us; hooks run when it is free again.
        self.driven.lock().retain(|one| {
            let work = one.work();
            let event = fds.iter().any(|p| p.fd == work && p.revents != 0);
            if !woken && !event && !passed(one.deadline()) {
                return true;
            }
            let mut log = Vec::new();
            let alive = one.run(&mut log);
            logs.push((Arc::clone(one), log));
            alive
        });
        for (one, log) in logs {
            one.log().lines(log);
        }
    }
}

fn is_same(a: &Arc<dyn Driven>, b: &Arc<dyn Driven>) -> bool {
    std::ptr::addr_eq(Arc::as_ptr(a), Arc::as_ptr(b))
}
