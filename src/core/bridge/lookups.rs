//! The lookups of a controller: how many there may be at a time, and those on connections of their own.
//!
//! Whoever waits for one of these drives them all, so that they may be waited for in any order: an answer that nobody
//! fetches does not keep the place of the next.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Weak};
use std::time::Instant;

use crate::core::bridge::answer_slot::AnswerSlot;
use crate::core::drive::{earlier, passed, Deadline, Process, Progress, Stage, Waiting, Watched};
use crate::error::{Error, Operation, Result};
use crate::protocol::control::Answer;
use crate::sys::lock::{Rank, RankedMutex, RankedMutexGuard};
use crate::sys::{self, SharedFd, Wake, Watch};

/// Lookups at a time; others wait for their turn.
const AT_A_TIME: usize = 8;

/// What asks for a name on a connection of its own.
pub(crate) trait Inquiry: Waiting + Send {
    /// Gets as far as possible without blocking. Returns the answer once there is one.
    fn step(&mut self, now: Instant) -> Option<Answer>;

    /// Fails if a step would, as what it belongs to has ended.
    fn check(&self) -> Result<()>;

    /// When a step is due even without an event.
    fn deadline(&self) -> Deadline;

    fn stage(&self) -> Stage;
}

impl Waiting for Box<dyn Inquiry> {
    fn awaited(&self) -> Option<(&Arc<SharedFd>, i16)> {
        (**self).awaited()
    }
}

/// Shared by everything of a controller that looks up names.
pub(crate) struct Lookups {
    process: Arc<Process>,
    list: RankedMutex<List>,
}

#[derive(Default)]
struct List {
    active: Vec<Asking>,
    waiting: VecDeque<Asking>,
    /// Places of lookups on the control sockets of sessions, and how long they count.
    places: BTreeMap<u64, Deadline>,
    last_number: u64,
    activity: Weak<Activity>,
    /// Whether `Activity::moved` is set.
    moved: bool,
}

/// A lookup on a connection of its own, which is made by its first step.
struct Asking {
    number: u64,
    /// Then it makes room for others, even if nobody has called to see that its time is over.
    until: Deadline,
    inquiry: Watched<Box<dyn Inquiry>>,
    slot: Weak<AnswerSlot>,
}

/// What everybody watches who waits for one of these lookups; exists while there are any.
struct Activity {
    /// Readable when there is something to drive.
    watch: Arc<Watch>,
    /// Set when one that waits may have its turn.
    moved: Wake,
}

/// The place of a lookup on a session's control socket, until this is dropped.
pub(crate) struct Place {
    lookups: Arc<Lookups>,
    number: u64,
}

/// A lookup on a connection of its own; dropping it ends it.
pub(crate) struct OwnLookup {
    lookups: Arc<Lookups>,
    number: u64,
    slot: Arc<AnswerSlot>,
    activity: Arc<Activity>,
    /// Readable when the answer has arrived or there is something to drive.
    watch: Watch,
}

impl Lookups {
    pub(super) fn new(process: &Arc<Process>) -> Arc<Self> {
        let list = RankedMutex::new(Rank::Lookups, List::default());
        Arc::new(Lookups { process: Arc::clone(process), list })
    }

    /// A place for a lookup on a control socket, unless all are taken or others wait for one.
    pub(crate) fn place(self: &Arc<Self>, until: Deadline, now: Instant) -> Option<Place> {
        let mut list = self.list.lock();
        if !list.has_room(now) || !list.waiting.is_empty() {
            return None;
        }
        let number = list.next_number();
        list.places.insert(number, until);
        Some(Place { lookups: Arc::clone(self), number })
    }

    /// Queues a lookup: it starts when there is a place for it, and it or another is stepped.
    pub(crate) fn begin(self: &Arc<Self>, inquiry: Box<dyn Inquiry>, until: Deadline) -> Result<OwnLookup> {
        let system = |error| Error::io(Operation::Lookup, "a descriptor for the lookup", &error);
        let slot = Arc::new(AnswerSlot::new(None)?);
        let watch = Watch::new().map_err(system)?;
        watch.add(&slot.wake, sys::IN).map_err(system)?;
        let mut list = self.list.lock();
        let activity = list.activity().map_err(system)?;
        watch.add(&*activity.watch, sys::IN).map_err(system)?;
        let number = list.next_number();
        let inquiry = Watched::new(inquiry, &activity.watch);
        list.waiting.push_back(Asking { number, until, inquiry, slot: Arc::downgrade(&slot) });
        Ok(OwnLookup { lookups: Arc::clone(self), number, slot, activity, watch })
    }

    /// Called when a session has ended: makes those who wait for a place on its behalf notice.
    pub(crate) fn nudge(&self) {
        self.list.lock().tell();
    }

    /// Gets all of them as far as possible without blocking.
    fn drive(&self, now: Instant) {
        let answers = self.list.lock().drive(now);
        for (slot, answer) in answers {
            slot.put(answer);
        }
    }
}

impl List {
    fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    fn has_room(&mut self, now: Instant) -> bool {
        self.places.retain(|_, until| !passed(*until, now));
        self.active.len() + self.places.len() < AT_A_TIME
    }

    /// When there is something to do even without an event.
    fn deadline(&self) -> Deadline {
        let first = |sum, asking: &Asking| earlier(sum, earlier(asking.until, asking.inquiry.get().deadline()));
        let active = self.active.iter().fold(None, first);
        match self.waiting.is_empty() {
            true => active,
            false => self.places.values().fold(active, |sum, until| earlier(sum, *until)),
        }
    }

    fn activity(&mut self) -> std::io::Result<Arc<Activity>> {
        if let Some(activity) = self.activity.upgrade() {
            return Ok(activity);
        }
        let activity = Arc::new(Activity { watch: Arc::new(Watch::new()?), moved: Wake::new()? });
        activity.watch.add(&activity.moved, sys::IN)?;
        self.activity = Arc::downgrade(&activity);
        self.moved = false;
        Ok(activity)
    }

    /// Tells those who wait for a place that it may be their turn.
    fn tell(&mut self) {
        if self.waiting.is_empty() || self.moved {
            return;
        }
        if let Some(activity) = self.activity.upgrade() {
            activity.moved.set();
            self.moved = true;
        }
    }

    fn drive(&mut self, now: Instant) -> Vec<(Arc<AnswerSlot>, Answer)> {
        let mut answers = Vec::new();
        if std::mem::take(&mut self.moved) {
            if let Some(activity) = self.activity.upgrade() {
                activity.moved.clear();
            }
            self.answer_ended(&mut answers);
        }
        for asking in std::mem::take(&mut self.active) {
            self.step(asking, now, &mut answers);
        }
        while self.has_room(now) {
            let Some(asking) = self.waiting.pop_front() else { break };
            self.step(asking, now, &mut answers);
        }
        answers
    }

    /// Those that still wait, and have no connection that would end, when what they belong to has ended.
    fn answer_ended(&mut self, answers: &mut Vec<(Arc<AnswerSlot>, Answer)>) {
        self.waiting.retain(|asking| match (asking.inquiry.get().check(), asking.slot.upgrade()) {
            (Ok(()), slot) => slot.is_some(),
            (Err(error), slot) => {
                answers.extend(slot.map(|slot| (slot, Answer { result: Err(error), fields: None })));
                false
            }
        });
    }

    fn step(&mut self, mut asking: Asking, now: Instant, answers: &mut Vec<(Arc<AnswerSlot>, Answer)>) {
        let mut answer = None;
        drop(asking.inquiry.step(|inquiry| {
            answer = inquiry.step(now);
            Ok(if answer.is_some() { Progress::Done } else { Progress::Block })
        }));
        match (answer, asking.slot.upgrade()) {
            (Some(answer), Some(slot)) => answers.push((slot, answer)),
            (None, Some(_)) if !passed(asking.until, now) => self.active.push(asking),
            _ => {}
        }
    }

    fn remove(&mut self, number: u64) -> Option<Asking> {
        if let Some(at) = self.active.iter().position(|asking| asking.number == number) {
            return Some(self.active.remove(at));
        }
        let at = self.waiting.iter().position(|asking| asking.number == number)?;
        self.waiting.remove(at)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // In a child of fork(2) the list may be locked by a thread that does not exist here.
        if self.lookups.process.in_child() {
            return;
        }
        let mut list = self.lookups.list.lock();
        list.places.remove(&self.number);
        list.tell();
    }
}

impl OwnLookup {
    /// Gets all lookups as far as possible without blocking, then takes the answer to this one, if it has arrived.
    pub(crate) fn step(&self, now: Instant) -> Option<Answer> {
        self.lookups.drive(now);
        self.slot.take()
    }

    /// Readable when it has to be stepped.
    pub(crate) fn fd(&self) -> RawFd {
        self.watch.as_raw_fd()
    }

    /// When it has to be stepped even without an event.
    pub(crate) fn deadline(&self) -> Deadline {
        self.look()?.deadline()
    }

    pub(crate) fn stage(&self) -> Stage {
        let list = self.look();
        let asking = list.iter().flat_map(|list| &list.active).find(|asking| asking.number == self.number);
        asking.map_or(Stage::Working, |asking| asking.inquiry.get().stage())
    }

    /// The list; in a child of fork(2) only if it is not locked by a thread that does not exist there.
    fn look(&self) -> Option<RankedMutexGuard<'_, List>> {
        match self.lookups.process.in_child() {
            true => self.lookups.list.try_lock(),
            false => Some(self.lookups.list.lock()),
        }
    }
}

impl Drop for OwnLookup {
    fn drop(&mut self) {
        if self.lookups.process.in_child() {
            // The watch is shared with the parent, and what is dropped must not be removed from it. The thread holding
            // the lock may not exist here.
            self.activity.watch.abandon();
            let removed = self.look().and_then(|mut list| list.remove(self.number));
            drop(removed);
            return;
        }
        let mut list = self.lookups.list.lock();
        drop(list.remove(self.number));
        list.tell();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use parking_lot::Mutex;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// What the router would do.
    #[derive(Default)]
    struct Router {
        asked: Vec<u32>,
        answers: Vec<u32>,
        /// Those whose session has ended.
        ended: Vec<u32>,
    }

    struct Question(u32, Arc<Mutex<Router>>);

    fn closed() -> Error {
        Error::closed(Operation::Lookup, "ended")
    }

    impl Waiting for Question {
        fn awaited(&self) -> Option<(&Arc<SharedFd>, i16)> {
            None
        }
    }

    impl Inquiry for Question {
        fn step(&mut self, _: Instant) -> Option<Answer> {
            let mut router = self.1.lock();
            if !router.asked.contains(&self.0) {
                router.asked.push(self.0);
            }
            let result = Err(Error::invalid(self.0.to_string()));
            router.answers.contains(&self.0).then_some(Answer { result, fields: None })
        }

        fn check(&self) -> Result<()> {
            if self.1.lock().ended.contains(&self.0) {
                return Err(closed());
            }
            Ok(())
        }

        fn deadline(&self) -> Deadline {
            None
        }

        fn stage(&self) -> Stage {
            Stage::Greeting
        }
    }

    struct Bench {
        lookups: Arc<Lookups>,
        router: Arc<Mutex<Router>>,
        now: Instant,
    }

    impl Bench {
        fn new() -> Self {
            Bench { lookups: Lookups::new(&Arc::default()), router: Arc::default(), now: Instant::now() }
        }

        fn begin(&self, number: u32, until: Deadline) -> OwnLookup {
            self.lookups.begin(Box::new(Question(number, Arc::clone(&self.router))), until).unwrap()
        }

        fn begin_all(&self, numbers: std::ops::Range<u32>) -> Vec<OwnLookup> {
            numbers.map(|number| self.begin(number, None)).collect()
        }

        fn asked(&self) -> Vec<u32> {
            self.router.lock().asked.clone()
        }
    }

    fn is_ready(lookup: &OwnLookup) -> bool {
        sys::poll_one(lookup.fd(), sys::IN, 0).unwrap() != 0
    }

    /// The number in the answer.
    fn told(answer: Option<Answer>) -> Option<String> {
        answer.map(|answer| answer.result.unwrap_err().message)
    }

    #[test]
    fn eight_at_a_time_and_whoever_waits_drives_them_all() {
        let bench = Bench::new();
        let all = bench.begin_all(0..20);
        assert_eq!(all.iter().map(OwnLookup::stage).collect::<Vec<_>>(), [Stage::Working; 20]);
        assert!(all[19].step(bench.now).is_none());
        assert_eq!(bench.asked(), (0..8).collect::<Vec<_>>());
        assert_eq!((all[7].stage(), all[8].stage()), (Stage::Greeting, Stage::Working));
        // Answers that nobody fetches make room for the next ones, in their order.
        bench.router.lock().answers.extend([3, 5]);
        assert!(all[19].step(bench.now).is_none());
        assert_eq!(bench.asked(), (0..10).collect::<Vec<_>>());
        bench.router.lock().answers.extend(0..20);
        assert_eq!(told(all[19].step(bench.now)), Some("19".to_owned()));
        for (number, lookup) in all.iter().enumerate().take(19) {
            assert!(is_ready(lookup));
            assert_eq!(told(lookup.step(bench.now)), Some(number.to_string()));
        }
        assert_eq!(bench.asked(), (0..20).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_dropped_makes_room_and_tells_those_who_wait() {
        let bench = Bench::new();
        let mut all = bench.begin_all(0..10);
        assert!(all[9].step(bench.now).is_none());
        assert!(!is_ready(&all[9]));
        // One that waits is never asked.
        drop(all.remove(8));
        drop(all.remove(2));
        let last = &all[7];
        assert!(is_ready(last));
        assert!(last.step(bench.now).is_none());
        assert!(!is_ready(last));
        assert_eq!(bench.asked(), [0, 1, 2, 3, 4, 5, 6, 7, 9]);
    }

    #[test]
    fn places_on_control_sockets_count() {
        let bench = Bench::new();
        let place = |until| bench.lookups.place(until, bench.now);
        let mut places: Vec<_> = (0..7).map(|_| place(None).unwrap()).collect();
        let (first, second) = (bench.begin(1, None), bench.begin(2, None));
        assert!(place(None).is_none(), "there is room, but others are waiting for it");
        assert!(second.step(bench.now).is_none());
        assert_eq!(bench.asked(), [1]);
        assert!(!is_ready(&second));
        // A place is free again when the answer arrives, whether it is fetched or not.
        let slot = AnswerSlot::new(Some(Box::new(places.remove(0)))).unwrap();
        assert!(!is_ready(&second));
        slot.put(Answer { result: Err(closed()), fields: None });
        assert!(is_ready(&second));
        assert!(second.step(bench.now).is_none());
        assert_eq!(bench.asked(), [1, 2]);
        assert!(place(None).is_none());
        drop((first, second));
        assert!(place(None).is_some());
    }

    /// An operation whose time is over does not know that before it is called again, if ever.
    #[test]
    fn nothing_keeps_its_place_after_its_time() {
        let bench = Bench::new();
        let until = |seconds: u32| Some(bench.now + seconds * SECOND);
        let _places: Vec<_> = (0..4).map(|_| bench.lookups.place(until(10), bench.now).unwrap()).collect();
        let slow: Vec<_> = (0..4).map(|number| bench.begin(number, until(20))).collect();
        let waiting = bench.begin_all(4..12);
        let last = &waiting[7];
        assert!(last.step(bench.now + 9 * SECOND).is_none());
        assert_eq!((bench.asked().len(), last.deadline()), (4, until(10)));
        assert!(last.step(bench.now + 10 * SECOND).is_none());
        assert_eq!((bench.asked().len(), last.deadline()), (8, until(20)));
        assert!(last.step(bench.now + 20 * SECOND).is_none());
        assert_eq!(bench.asked(), (0..12).collect::<Vec<_>>());
        assert_eq!(last.deadline(), None);
        // Late is too late for them, but not for the others.
        bench.router.lock().answers.extend([0, 11]);
        assert_eq!(told(last.step(bench.now + 21 * SECOND)), Some("11".to_owned()));
        assert!(slow[0].step(bench.now + 21 * SECOND).is_none());
    }

    /// It has no connection that would end with its session.
    #[test]
    fn the_end_of_a_session_reaches_those_who_wait() {
        let bench = Bench::new();
        let all = bench.begin_all(0..10);
        assert!(all[0].step(bench.now).is_none());
        bench.router.lock().ended.push(8);
        assert!(!is_ready(&all[8]));
        bench.lookups.nudge();
        assert!(is_ready(&all[8]) && is_ready(&all[9]));
        // It may be another who looks first.
        assert!(all[9].step(bench.now).is_none());
        assert!(is_ready(&all[8]) && !is_ready(&all[9]));
        assert_eq!(told(all[8].step(bench.now)), Some("ended".to_owned()));
        assert_eq!(bench.asked(), (0..8).collect::<Vec<_>>());
    }
}
