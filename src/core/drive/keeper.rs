//! The background thread of a controller. It drives all destinations, so that PINGs are answered, lost sessions are
//! noticed and reopened, and streams are accepted while the program does something else.
//!
//! What a wake-up costs depends on what there is to do, not on how many destinations there are: epoll says whose
//! descriptor is ready, [`Seats`] whose deadline has passed, and a poke concerns one of them.

use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::core::drive::deadline::poll_timeout;
use crate::core::drive::driven::Driven;
use crate::core::drive::seats::Seats;
use crate::core::drive::{log, own_thread};
use crate::error::{Error, Operation, Result};
use crate::sys::lock::{Rank, RankedMutex};
use crate::sys::{self, Ready, Selector, Wake};

/// Pause after the wait itself failed, which only happens when memory is short.
const NO_MEMORY_PAUSE: Duration = Duration::from_millis(100);

/// The token of `Shared::wake`; those of seats are their numbers, which are never reused.
const WAKE: u64 = 0;

/// Handle to the thread, which is started for the first destination.
pub(super) struct Keeper {
    shared: Arc<Shared>,
    thread: RankedMutex<Option<JoinHandle<()>>>,
    last_number: AtomicU64,
}

/// The place of one destination with the keeper, which it may be poked for before it is added.
pub(super) struct Seat {
    number: u64,
    /// Whether it is in `Shared::poked`.
    poked: AtomicBool,
}

struct Shared {
    seats: RankedMutex<Seats>,
    /// Held while one of them runs, so that `remove` can wait for it to finish.
    running: RankedMutex<()>,
    /// Threads that drop what ended destinations left behind.
    releasing: RankedMutex<Vec<JoinHandle<()>>>,
    /// Those that have work which no descriptor shows.
    poked: RankedMutex<Vec<Arc<Seat>>>,
    /// The descriptors of all of them. In a child of fork(2) the set is shared with the parent: never change it there.
    selector: Selector,
    /// Set when there is something in `poked`, and to stop.
    wake: Wake,
    stop: AtomicBool,
}

impl Keeper {
    pub(super) fn new() -> Result<Self> {
        let system = |error| Error::io(Operation::None, "a descriptor for the keeper", &error);
        let (selector, wake) = (Selector::new().map_err(system)?, Wake::new().map_err(system)?);
        selector.add(wake.as_raw_fd(), WAKE, sys::IN).map_err(system)?;
        let shared = Shared {
            seats: RankedMutex::new(Rank::KeeperSeats, Seats::default()),
            running: RankedMutex::new(Rank::KeeperRunning, ()),
            releasing: RankedMutex::new(Rank::KeeperReleasing, Vec::new()),
            poked: RankedMutex::new(Rank::KeeperPoked, Vec::new()),
            selector,
            wake,
            stop: AtomicBool::new(false),
        };
        Ok(Keeper {
            shared: Arc::new(shared),
            thread: RankedMutex::new(Rank::KeeperThread, None),
            last_number: AtomicU64::new(WAKE),
        })
    }

    /// A place for one more destination.
    pub(super) fn seat(&self) -> Arc<Seat> {
        let number = self.last_number.fetch_add(1, Ordering::Relaxed) + 1;
        Arc::new(Seat { number, poked: AtomicBool::new(false) })
    }

    /// Starts driving `one`, unless the system has no room for its descriptor.
    pub(super) fn add(&self, seat: &Arc<Seat>, one: Arc<dyn Driven>) -> Result<()> {
        self.start()?;
        let work = one.work();
        self.shared.seats.lock().add(seat.number, one);
        if let Err(error) = self.shared.selector.add(work, seat.number, sys::IN) {
            self.remove(seat);
            return Err(Error::io(Operation::None, "the keeper cannot watch a descriptor", &error));
        }
        self.poke(seat);
        Ok(())
    }

    fn start(&self) -> Result<()> {
        let mut thread = self.thread.lock();
        if thread.is_none() {
            let shared = Arc::clone(&self.shared);
            let builder = std::thread::Builder::new().name("i2psock-keeper".into());
            // Signals are for the program's own threads.
            let started = sys::with_signals_blocked(|| builder.spawn(move || shared.run()));
            *thread = Some(started.map_err(|error| Error::io(Operation::None, "a thread for the keeper", &error))?);
        }
        Ok(())
    }

    /// When this returns, the thread is no longer using it.
    pub(super) fn remove(&self, seat: &Seat) {
        let removed = self.shared.forget(seat.number);
        drop(self.shared.running.lock());
        drop(removed);
    }

    /// For a child of fork(2), where the thread does not exist: drops it.
    pub(super) fn abandon(&self, seat: &Seat) {
        let abandoned = self.shared.seats.try_lock().and_then(|mut seats| seats.remove(seat.number));
        drop(abandoned);
    }

    /// For a child of fork(2): closes what only the thread would have closed.
    pub(super) fn abandon_all(&self) {
        self.shared.wake.abandon();
        self.shared.selector.abandon();
        let abandoned = self.shared.seats.try_lock().map(|mut seats| seats.take_all());
        drop(abandoned);
    }

    /// Makes the thread run it, and ask for its deadline.
    pub(super) fn poke(&self, seat: &Arc<Seat>) {
        self.shared.poke(seat);
    }

    pub(super) fn stop(&self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.wake.set();
        let thread = self.thread.lock().take();
        // A thread cannot join itself.
        if let Some(thread) = thread.filter(|_| !own_thread::is_worker_of(&*self.shared)) {
            // The thread itself never panics; a panic in a log hook is the hook's problem.
            drop(thread.join());
        }
        let left = self.shared.seats.lock().take_all();
        for one in &left {
            self.shared.selector.remove(one.work());
        }
        drop(left);
        let releasing = std::mem::take(&mut *self.shared.releasing.lock());
        for thread in releasing {
            drop(thread.join());
        }
    }
}

impl Shared {
    fn run(&self) {
        own_thread::works_for(self);
        let (mut ready, mut due) = (Vec::new(), Vec::new());
        while !self.stop.load(Ordering::Acquire) {
            let first = self.seats.lock().first_deadline();
            if self.selector.wait(&mut ready, poll_timeout(first, Instant::now())).is_err() {
                std::thread::sleep(NO_MEMORY_PAUSE);
            }
            let _edge = log::edge();
            self.gather(&ready, &mut due, Instant::now());
            due.drain(..).for_each(|number| self.step(number));
        }
    }

    fn poke(&self, seat: &Arc<Seat>) {
        if !seat.poked.swap(true, Ordering::AcqRel) {
            self.poked.lock().push(Arc::clone(seat));
            self.wake.set();
        }
    }

    /// Collects the numbers of those to run, each once: none gets a second turn before the others had one.
    fn gather(&self, ready: &[Ready], due: &mut Vec<u64>, now: Instant) {
        if ready.iter().any(|ready| ready.token == WAKE) {
            // In this order, so that a poke in between wakes us again.
            self.wake.clear();
            for seat in std::mem::take(&mut *self.poked.lock()) {
                // Before it runs: from here on it can be poked again.
                seat.poked.store(false, Ordering::Release);
                due.push(seat.number);
            }
        }
        due.extend(ready.iter().map(|ready| ready.token).filter(|token| *token != WAKE));
        due.extend(self.seats.lock().overdue(now));
        due.sort_unstable();
        due.dedup();
    }

    fn step(&self, number: u64) {
        let running = self.running.lock();
        // It may have been removed in the meantime.
        let Some(one) = self.seats.lock().get(number) else { return };
        if one.run(Instant::now()) {
            // Whoever changes it after this pokes.
            let deadline = one.deadline();
            self.seats.lock().set_deadline(number, deadline);
            return;
        }
        drop(running);
        drop(self.forget(number));
        if one.has_kept() {
            self.release_elsewhere(one);
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

    fn forget(&self, number: u64) -> Option<Arc<dyn Driven>> {
        let one = self.seats.lock().remove(number)?;
        // Its descriptor is still open: closing it would not remove it from the set if a child of fork(2) has it too.
        self.selector.remove(one.work());
        Some(one)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::RawFd;
    use std::sync::mpsc::{channel, Receiver, Sender};

    use parking_lot::Mutex;

    use super::*;
    use crate::core::drive::deadline::Deadline;

    /// What only a hang reaches.
    const LONG: Duration = Duration::from_secs(60);

    /// Reports each of its runs, then does `act`.
    struct Probe {
        name: u64,
        work: Wake,
        deadline: Mutex<Deadline>,
        runs: Mutex<Sender<u64>>,
        asked: AtomicU64,
        act: Box<dyn Fn(&Probe) -> bool + Send + Sync>,
    }

    impl Driven for Probe {
        fn work(&self) -> RawFd {
            self.work.as_raw_fd()
        }

        fn deadline(&self) -> Deadline {
            self.asked.fetch_add(1, Ordering::Relaxed);
            *self.deadline.lock()
        }

        fn run(&self, now: Instant) -> bool {
            self.work.clear();
            self.deadline.lock().take_if(|at| now >= *at);
            self.runs.lock().send(self.name).unwrap();
            (self.act)(self)
        }

        fn has_kept(&self) -> bool {
            false
        }

        fn release(&self) {}
    }

    struct Bench {
        keeper: Keeper,
        sender: Sender<u64>,
        runs: Receiver<u64>,
    }

    impl Bench {
        fn new() -> Self {
            let (sender, runs) = channel();
            Bench { keeper: Keeper::new().unwrap(), sender, runs }
        }

        fn probe(&self, name: u64, act: impl Fn(&Probe) -> bool + Send + Sync + 'static) -> Arc<Probe> {
            Arc::new(Probe {
                name,
                work: Wake::new().unwrap(),
                deadline: Mutex::new(None),
                runs: Mutex::new(self.sender.clone()),
                asked: AtomicU64::new(0),
                act: Box::new(act),
            })
        }

        /// Adds one that goes on for ever, and waits until it has run for the first time.
        fn add(&self, name: u64) -> (Arc<Probe>, Arc<Seat>) {
            let (probe, seat) = (self.probe(name, |_| true), self.keeper.seat());
            self.keeper.add(&seat, probe.clone()).unwrap();
            assert_eq!(self.next(), name);
            (probe, seat)
        }

        fn next(&self) -> u64 {
            self.runs.recv_timeout(LONG).unwrap()
        }
    }

    impl Drop for Bench {
        fn drop(&mut self) {
            self.keeper.stop();
        }
    }

    /// Whatever there is to do for one of them, the others are neither run nor asked.
    #[test]
    fn only_the_one_concerned_runs() {
        let bench = Bench::new();
        let all: Vec<_> = (0..100).map(|name| bench.add(name)).collect();
        for round in 0..10 {
            let (ready, poked, due) = (round, 30 + round, 60 + round);
            all[ready as usize].0.work.set();
            assert_eq!(bench.next(), ready);
            bench.keeper.poke(&all[poked as usize].1);
            assert_eq!(bench.next(), poked);
            *all[due as usize].0.deadline.lock() = Some(Instant::now());
            bench.keeper.poke(&all[due as usize].1);
            assert_eq!(bench.next(), due);
        }
        bench.keeper.stop();
        // Each once when it was added, and 30 of them once more.
        let asked: Vec<_> = all.iter().map(|(probe, _)| probe.asked.load(Ordering::Relaxed)).collect();
        assert_eq!(asked, (0..100).map(|name| if name % 30 < 10 && name < 90 { 2 } else { 1 }).collect::<Vec<_>>());
        assert!(bench.runs.try_recv().is_err());
    }

    #[test]
    fn the_earliest_deadline_is_the_next() {
        let bench = Bench::new();
        let all: Vec<_> = (0..4).map(|name| bench.add(name)).collect();
        let start = Instant::now();
        let set = |name: u64, deadline| {
            let (probe, seat) = &all[name as usize];
            *probe.deadline.lock() = deadline;
            bench.keeper.poke(seat);
            assert_eq!(bench.next(), name);
            // One after the other, so that what follows the run of the first is over as well.
            bench.keeper.poke(&all[3].1);
            assert_eq!(bench.next(), 3);
            bench.keeper.shared.seats.lock().first_deadline()
        };
        let at = |hours: u64| Some(start + Duration::from_secs(3600 * hours));
        assert_eq!(set(0, at(9)), at(9));
        assert_eq!(set(1, at(6)), at(6));
        assert_eq!(set(2, at(7)), at(6));
        assert_eq!(set(1, at(8)), at(7));
        assert_eq!(set(2, None), at(8));
        // Time gets through to the one that is due.
        let (probe, seat) = &all[0];
        let due = Instant::now() + Duration::from_millis(20);
        *probe.deadline.lock() = Some(due);
        bench.keeper.poke(seat);
        while probe.deadline.lock().is_some() {
            assert_eq!(bench.next(), 0);
        }
        assert!(Instant::now() >= due);
    }

    /// Poked before it is added, several times, and while it runs: each poke is followed by a run that begins later.
    #[test]
    fn no_poke_is_lost() {
        let bench = Bench::new();
        let seat = bench.keeper.seat();
        bench.keeper.poke(&seat);
        bench.add(1);
        let (inside, go_on) = (channel(), channel());
        let (entered, proceed) = (Mutex::new(inside.0), Mutex::new(go_on.1));
        let probe = bench.probe(2, move |_| {
            entered.lock().send(()).unwrap();
            proceed.lock().recv_timeout(LONG).unwrap();
            true
        });
        bench.keeper.add(&seat, probe).unwrap();
        for _ in 0..3 {
            inside.1.recv_timeout(LONG).unwrap();
            // It is running.
            (0..1000).for_each(|_| bench.keeper.poke(&seat));
            go_on.0.send(()).unwrap();
        }
        inside.1.recv_timeout(LONG).unwrap();
        go_on.0.send(()).unwrap();
        bench.keeper.remove(&seat);
        assert_eq!(bench.runs.try_iter().collect::<Vec<_>>(), [2, 2, 2, 2]);
    }

    /// One is ready, due and poked again after each of its turns. Another that becomes ready has the next.
    #[test]
    fn one_that_never_rests_does_not_hold_up_another() {
        let bench = Bench::new();
        let ((quiet, _), seat) = (bench.add(1), bench.keeper.seat());
        let own = (Arc::clone(&bench.keeper.shared), Arc::clone(&seat));
        let busy = bench.probe(2, move |probe| {
            quiet.work.set();
            probe.work.set();
            *probe.deadline.lock() = Some(Instant::now());
            own.0.poke(&own.1);
            true
        });
        bench.keeper.add(&seat, busy).unwrap();
        let turns: Vec<_> = (0..100).map(|_| bench.next()).collect();
        bench.keeper.remove(&seat);
        assert_eq!(turns, [2, 1].repeat(50));
    }

    #[test]
    fn one_that_ends_or_is_removed_is_let_go() {
        let bench = Bench::new();
        let (ended, seat) = (bench.probe(1, |_| false), bench.keeper.seat());
        bench.keeper.add(&seat, ended.clone()).unwrap();
        assert_eq!(bench.next(), 1);
        let (removed, other) = bench.add(2);
        *removed.deadline.lock() = Some(Instant::now() + LONG);
        bench.keeper.poke(&other);
        assert_eq!(bench.next(), 2);
        bench.keeper.remove(&other);
        bench.keeper.remove(&seat);
        assert_eq!((Arc::strong_count(&ended), Arc::strong_count(&removed)), (1, 1));
        assert_eq!(bench.keeper.shared.seats.lock().first_deadline(), None);
        for (probe, seat) in [(&ended, &seat), (&removed, &other)] {
            probe.work.set();
            bench.keeper.poke(seat);
        }
        bench.add(3);
        assert!(bench.runs.try_recv().is_err(), "it still runs");
    }

    /// As when the system has no room left for what is watched.
    #[test]
    fn one_that_cannot_be_watched_is_refused_and_let_go() {
        struct Unwatchable(Arc<Probe>);

        impl Driven for Unwatchable {
            fn work(&self) -> RawFd {
                -1
            }

            fn deadline(&self) -> Deadline {
                self.0.deadline()
            }

            fn run(&self, now: Instant) -> bool {
                self.0.run(now)
            }

            fn has_kept(&self) -> bool {
                false
            }

            fn release(&self) {}
        }

        let bench = Bench::new();
        let (probe, seat) = (bench.probe(1, |_| true), bench.keeper.seat());
        let error = bench.keeper.add(&seat, Arc::new(Unwatchable(probe.clone()))).unwrap_err();
        assert_eq!((error.status, error.os_error), (crate::error::Status::Io, libc::EBADF));
        assert_eq!(Arc::strong_count(&probe), 1);
        bench.keeper.poke(&seat);
        bench.add(2);
        assert!(bench.runs.try_recv().is_err());
    }
}
