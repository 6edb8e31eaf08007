//! The background thread of a controller: it reads the control sockets of all sessions, so that PINGs are answered and
//! lost sessions are noticed while the program does something else.

use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::Mutex;

use crate::core::bridge::Bridge;
use crate::core::session::Session;
use crate::error::{Error, Operation, Result};
use crate::sys::{self, PollFd, Wake};

/// Handle to the thread, which starts with the first session.
pub struct Keeper {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    sessions: Mutex<Vec<Arc<Session>>>,
    wake: Wake,
    stop: AtomicBool,
}

impl Keeper {
    /// A keeper without a thread yet.
    pub fn new() -> Result<Self> {
        let wake = Wake::new().map_err(|error| Error::io(Operation::None, "a descriptor for the keeper", &error))?;
        let shared = Shared { sessions: Mutex::new(Vec::new()), wake, stop: AtomicBool::new(false) };
        Ok(Keeper { shared: Arc::new(shared), thread: Mutex::new(None) })
    }

    /// Takes charge of a session.
    pub fn add(&self, session: &Arc<Session>) -> Result<()> {
        let mut thread = self.thread.lock();
        if thread.is_none() {
            let shared = Arc::clone(&self.shared);
            let builder = std::thread::Builder::new().name("i2psock-keeper".into());
            // Signals belong to the program's own threads.
            let started = sys::with_signals_blocked(|| builder.spawn(move || shared.run()));
            *thread = Some(started.map_err(|error| Error::io(Operation::None, "a thread for the keeper", &error))?);
        }
        self.shared.sessions.lock().push(Arc::clone(session));
        self.poke();
        Ok(())
    }

    /// Gives a session up. When this returns the thread does not use it any more.
    pub fn remove(&self, session: &Arc<Session>) {
        let removed = {
            let mut sessions = self.shared.sessions.lock();
            let found = sessions.iter().position(|known| Arc::ptr_eq(known, session));
            found.map(|at| sessions.swap_remove(at))
        };
        drop(removed);
        self.poke();
    }

    /// In a child of fork(2), where there is no thread: drops the session.
    pub fn abandon(&self, session: &Arc<Session>) {
        if let Some(mut sessions) = self.shared.sessions.try_lock() {
            sessions.retain(|known| !Arc::ptr_eq(known, session));
        }
    }

    /// In a child of fork(2): closes what only the missing thread would have closed.
    pub fn abandon_all(&self) {
        self.shared.wake.abandon();
        if let Some(mut sessions) = self.shared.sessions.try_lock() {
            sessions.clear();
        }
    }

    /// Makes the thread look again at what the sessions wait for.
    pub fn poke(&self) {
        self.shared.wake.set();
    }

    /// Ends the thread and waits for its end.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::Release);
        self.poke();
        let thread = self.thread.lock().take();
        // A thread cannot wait for itself.
        if let Some(thread) = thread.filter(|thread| thread.thread().id() != std::thread::current().id()) {
            // The thread has no panics of its own; one in a log hook is the hook's.
            drop(thread.join());
        }
        self.shared.sessions.lock().clear();
    }
}

impl Shared {
    fn run(&self) {
        while !self.stop.load(Ordering::Acquire) {
            // Numbers only: a session that is closed meanwhile leaves at once, and a number that comes to mean
            // something else costs one needless look.
            let mut fds = vec![PollFd { fd: self.wake.as_raw_fd(), events: sys::IN, revents: 0 }];
            for session in self.sessions.lock().iter() {
                if let Some((fd, events)) = session.control() {
                    fds.push(PollFd { fd, events, revents: 0 });
                }
            }
            if sys::poll(&mut fds, -1).is_err() {
                // Only want of memory can do that; wait a little instead of spinning.
                std::thread::sleep(std::time::Duration::from_millis(100));
            }
            self.wake.clear();
            self.drive(&fds);
        }
    }

    fn drive(&self, fds: &[PollFd]) {
        let mut logs: Vec<(Arc<Bridge>, Vec<String>)> = Vec::new();
        // Under the lock, so that `remove` waits for us; hooks run when it is free again.
        self.sessions.lock().retain(|session| {
            let control = session.control();
            if !control.is_some_and(|(fd, _)| fds.iter().any(|p| p.fd == fd && p.revents != 0)) {
                return control.is_some();
            }
            let mut log = Vec::new();
            let alive = session.run(&mut log);
            logs.push((Arc::clone(session.bridge()), log));
            alive
        });
        for (bridge, log) in logs {
            bridge.log.lines(log);
        }
    }
}
