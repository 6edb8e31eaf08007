//! Tunnels: connections that come in on one side go out on the other.

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

/// A tunnel. Dropping it ends all its connections.
pub struct Tunnel {
    shared: Arc<Shared>,
    thread: RankedMutex<Option<JoinHandle<()>>>,
    dest: Option<Arc<DestHandle>>,
    remote: Option<Box<Target>>,
    port: u16,
    process: Arc<Process>,
}

impl Tunnel {
    /// Starts the thread.
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
        let tunneling = EventLoop::new(Arc::clone(&shared), receive, make, limits, destination)?;
        let builder = std::thread::Builder::new().name("i2psock-tunnel".into());
        // Signals belong to the program's own threads; and splice(2) knows no MSG_NOSIGNAL.
        let thread = sys::with_signals_blocked(|| builder.spawn(move || tunneling.run()));
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

    /// The error for whatever is tried in a child of fork(2).
    pub fn check_process(&self) -> Result<()> {
        self.process.check()
    }

    /// Its destination, if it has one of its own.
    pub fn dest(&self) -> Option<&Arc<DestHandle>> {
        self.dest.as_ref()
    }

    /// Where it leads to over I2P.
    pub fn remote(&self) -> Option<&Target> {
        self.remote.as_deref()
    }

    /// The port it listens on; 0: none.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What has happened so far.
    pub fn counts(&self) -> &Counts {
        &self.shared.counts
    }

    /// Descriptor that is readable while `state` or `next_error` has something new to tell.
    pub fn fd(&self) -> RawFd {
        self.shared.news.as_raw_fd()
    }

    /// The state of its destination, if it has one of its own, and why there is no session.
    pub fn state(&self) -> Option<(State, Option<Error>)> {
        let (state, _, cause) = self.dest.as_ref()?.destination().state();
        if !self.process.in_child() {
            let mut unheard = self.shared.unheard.lock();
            unheard.told = state;
            self.calm(&unheard);
        }
        Some((state, cause))
    }

    /// The oldest error of a connection that was not asked for yet.
    pub fn next_error(&self) -> Option<Error> {
        if self.process.in_child() {
            // Whoever had the lock is not here.
            return None;
        }
        let mut unheard = self.shared.unheard.lock();
        let error = unheard.errors.pop_front();
        self.calm(&unheard);
        error
    }

    /// Makes the descriptor unreadable if there is nothing new.
    fn calm(&self, unheard: &Unheard) {
        if unheard.errors.is_empty() {
            // Looked at afterwards: a change that comes in between must not be lost.
            self.shared.news.clear();
            if self.dest.as_ref().is_some_and(|dest| dest.destination().state().0 != unheard.told) {
                self.shared.news.set();
            }
        }
    }

    /// Ends all connections and waits for the thread.
    pub fn close(&self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.wake.set();
        let thread = self.thread.lock().take();
        if let Some(thread) = thread.filter(|_| !own_thread::is_worker_of(&*self.shared)) {
            // It has no panics of its own; one in the program's function is the program's.
            drop(thread.join());
        }
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        if self.process.in_child() {
            self.shared.wake.abandon();
            self.shared.news.abandon();
            // The handle of a thread that is not here.
            if let Some(thread) = self.thread.try_lock().and_then(|mut thread| thread.take()) {
                std::mem::forget(thread);
            }
        } else {
            self.close();
        }
    }
}
