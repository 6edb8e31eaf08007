//! The background thread of a controller: it drives all destinations, so that PINGs are answered, lost presences are
//! noticed and opened again, and streams accepted, while the program does something else.

use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::Mutex;

use crate::core::bridge::Bridge;
use crate::core::presence::Presence;
use crate::core::worker;
use crate::core::{earlier, passed, poll_timeout};
use crate::error::{Error, Operation, Result};
use crate::sys::{self, PollFd, Wake};

/// Handle to the thread, which starts with the first destination.
pub struct Keeper {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    presences: Mutex<Vec<Arc<Presence>>>,
    wake: Wake,
    stop: AtomicBool,
}

impl Keeper {
    /// A keeper without a thread yet.
    pub fn new() -> Result<Self> {
        let wake = Wake::new().map_err(|error| Error::io(Operation::None, "a descriptor for the keeper", &error))?;
        let shared = Shared { presences: Mutex::new(Vec::new()), wake, stop: AtomicBool::new(false) };
        Ok(Keeper { shared: Arc::new(shared), thread: Mutex::new(None) })
    }

    /// Takes charge of a destination.
    pub fn add(&self, presence: &Arc<Presence>) -> Result<()> {
        let mut thread = self.thread.lock();
        if thread.is_none() {
            let shared = Arc::clone(&self.shared);
            let builder = std::thread::Builder::new().name("i2psock-keeper".into());
            // Signals belong to the program's own threads.
            let started = sys::with_signals_blocked(|| builder.spawn(move || shared.run()));
            *thread = Some(started.map_err(|error| Error::io(Operation::None, "a thread for the keeper", &error))?);
        }
        self.shared.presences.lock().push(Arc::clone(presence));
        self.poke();
        Ok(())
    }

    /// Gives a destination up. When this returns the thread does not use it any more.
    pub fn remove(&self, presence: &Arc<Presence>) {
        let removed = {
            let mut presences = self.shared.presences.lock();
            let found = presences.iter().position(|known| Arc::ptr_eq(known, presence));
            found.map(|at| presences.swap_remove(at))
        };
        drop(removed);
        self.poke();
    }

    /// In a child of fork(2), where there is no thread: drops the destination.
    pub fn abandon(&self, presence: &Arc<Presence>) {
        if let Some(mut presences) = self.shared.presences.try_lock() {
            presences.retain(|known| !Arc::ptr_eq(known, presence));
        }
    }

    /// In a child of fork(2): closes what only the missing thread would have closed.
    pub fn abandon_all(&self) {
        self.shared.wake.abandon();
        if let Some(mut presences) = self.shared.presences.try_lock() {
            presences.clear();
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
        if let Some(thread) = thread.filter(|_| !worker::is_worker_of(&*self.shared)) {
            // The thread has no panics of its own; one in a log hook is the hook's.
            drop(thread.join());
        }
        self.shared.presences.lock().clear();
    }
}

impl Shared {
    fn run(&self) {
        worker::works_for(self);
        while !self.stop.load(Ordering::Acquire) {
            let mut fds = vec![PollFd { fd: self.wake.as_raw_fd(), events: sys::IN, revents: 0 }];
            let mut deadline = None;
            for presence in self.presences.lock().iter() {
                // Open as long as the destination lives, which cannot end while we have it in the list, or else costs
                // one needless look.
                fds.push(PollFd { fd: presence.home().work.as_raw_fd(), events: sys::IN, revents: 0 });
                deadline = earlier(deadline, presence.deadline());
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
        let mut logs: Vec<(Arc<Bridge>, Vec<String>)> = Vec::new();
        // Under the lock, so that `remove` waits for us; hooks run when it is free again.
        self.presences.lock().retain(|presence| {
            let work = presence.home().work.as_raw_fd();
            let event = fds.iter().any(|p| p.fd == work && p.revents != 0);
            if !woken && !event && !passed(presence.deadline()) {
                return true;
            }
            let mut log = Vec::new();
            let alive = presence.run(&mut log);
            logs.push((Arc::clone(presence.bridge()), log));
            alive
        });
        for (bridge, log) in logs {
            bridge.log.lines(log);
        }
    }
}
