//! The handle to a tunnel, which owns the thread that does the work.

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::core::destination::{DestHandle, State};
use crate::core::drive::{own_thread, Process};
use crate::core::settings::Limits;
use crate::core::tunnel::event_loop::EventLoop;
use crate::core::tunnel::report::{Counts, Shared, Unheard};
use crate::core::tunnel::sides::{MakeSend, Receive};
use crate::error::{Error, Operation, Result};
use crate::identity::Target;
use crate::sys::lock::{Rank, RankedMutex};
use crate::sys::{self, Wake};

/// A tunnel: connections that come in on one side go out on the other. Dropping it ends all of them.
pub struct Tunnel {
    shared: Arc<Shared>,
    thread: RankedMutex<Option<JoinHandle<()>>>,
    dest: Option<Arc<DestHandle>>,
    remote: Option<Box<Target>>,
    port: u16,
    process: Arc<Process>,
}

impl Tunnel {
    /// Starts the thread; `dest`, `remote` and `port` are for the handle to report.
    pub fn begin(
        receive: Receive,
        make: MakeSend,
        limits: Limits,
        dest: Option<Arc<DestHandle>>,
        remote: Option<Target>,
        port: u16,
    ) -> Result<Self> {
        let system = |error| Error::io(Operation::None, "a descriptor for the tunnel", &error);
        let shared = Arc::new(Shared {
            counts: Counts::default(),
            wake: Wake::new().map_err(system)?,
            stop: AtomicBool::new(false),
            news: Arc::new(Wake::new().map_err(system)?),
            unheard: RankedMutex::new(Rank::TunnelReport, Unheard { errors: VecDeque::new(), told: State::Ready }),
        });
        let destination = dest.as_ref().map(|dest| Arc::clone(dest.destination()));
        let process = destination.as_ref().map_or_else(Arc::default, |own| Arc::clone(&own.bridge().process));
        if let Some(destination) = &destination {
            destination.tell(&shared.news);
            if destination.state().0 != State::Ready {
                shared.news.set();
            }
        }
        let event_loop = EventLoop::new(Arc::clone(&shared), receive, make, limits, destination)?;
        let builder = std::thread::Builder::new().name("i2psock-tunnel".into());
        // Signals are for the program's own threads. Besides, splice(2) has no MSG_NOSIGNAL.
        let thread = sys::with_signals_blocked(|| builder.spawn(move || event_loop.run()));
        let thread = thread.map_err(|error| Error::io(Operation::None, "a thread for the tunnel", &error))?;
        Ok(Tunnel {
            shared,
            thread: RankedMutex::new(Rank::TunnelThread, Some(thread)),
            dest,
            remote: remote.map(Box::new),
            port,
            process,
        })
    }

    /// Fails in a child of fork(2), to which the tunnel does not belong.
    pub fn check_process(&self) -> Result<()> {
        self.process.check()
    }

    /// Its own destination, if it has one.
    pub fn dest(&self) -> Option<&Arc<DestHandle>> {
        self.dest.as_ref()
    }

    /// The I2P address it leads to, for a client tunnel.
    pub fn remote(&self) -> Option<&Target> {
        self.remote.as_deref()
    }

    /// The port it listens on; 0 if it does not.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Counters, which the thread keeps updating.
    pub fn counts(&self) -> &Counts {
        &self.shared.counts
    }

    /// Descriptor that is readable while `state` or `next_error` has something new to report.
    pub fn fd(&self) -> RawFd {
        self.shared.news.as_raw_fd()
    }

    /// The state of its own destination, if it has one, and why there is no session.
    pub fn state(&self) -> Option<(State, Option<Error>)> {
        let (state, _, cause) = self.dest.as_ref()?.destination().state();
        if !self.process.in_child() {
            let mut unheard = self.shared.unheard.lock();
            unheard.told = state;
            self.calm(&unheard);
        }
        Some((state, cause))
    }

    /// Returns the oldest connection error not fetched yet.
    pub fn next_error(&self) -> Option<Error> {
        if self.process.in_child() {
            // The thread holding the lock may not exist here.
            return None;
        }
        let mut unheard = self.shared.unheard.lock();
        let error = unheard.errors.pop_front();
        self.calm(&unheard);
        error
    }

    /// Makes the descriptor unreadable if there is nothing new to report.
    fn calm(&self, unheard: &Unheard) {
        if unheard.errors.is_empty() {
            // Clear first, then check, so that a change in between is not lost.
            self.shared.news.clear();
            if self.dest.as_ref().is_some_and(|dest| dest.destination().state().0 != unheard.told) {
                self.shared.news.set();
            }
        }
    }

    /// Ends all connections and joins the thread.
    pub fn close(&self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.wake.set();
        let thread = self.thread.lock().take();
        if let Some(thread) = thread.filter(|_| !own_thread::is_worker_of(&*self.shared)) {
            // The thread itself never panics; a panic in the program's function is the program's problem.
            drop(thread.join());
        }
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        if self.process.in_child() {
            self.shared.wake.abandon();
            self.shared.news.abandon();
            // The handle is for a thread that does not exist here.
            if let Some(thread) = self.thread.try_lock().and_then(|mut thread| thread.take()) {
                std::mem::forget(thread);
            }
        } else {
            self.close();
        }
    }
}
