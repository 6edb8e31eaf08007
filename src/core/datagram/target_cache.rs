//! Addresses a datagram socket sends to: each is parsed or resolved once and cached together with its header. Nothing
//! here blocks.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::core::drive::{log, Limit, Pending, Progress};
use crate::core::session::{Lookup, Session};
use crate::error::{Error, Operation, Result, Status};
use crate::identity::Address;
use crate::protocol::datagram::{send_header, SendOptions};
use crate::sys::lock::{Rank, RankedMutex};

/// How long a resolved name is used without asking again.
const AGE: Duration = Duration::from_secs(600);
/// Maximum number of addresses; beyond it, the one that was added first is dropped.
const KEPT: usize = 1024;
/// Maximum number of lookups in the background, as each holds descriptors; beyond it, a name has to wait.
const ASKING: usize = 64;

/// A resolved address.
pub(super) struct Known {
    pub address: Address,
    /// The header without options, containing the id of `session`.
    pub header: Vec<u8>,
    session: Weak<Session>,
}

/// Cached addresses and pending lookups, by the text the address was given as.
pub(super) struct TargetCache(RankedMutex<Targets>);

#[derive(Default)]
struct Targets {
    /// Valid until then if it was a name, otherwise forever.
    known: HashMap<Arc<str>, (Arc<Known>, Option<Instant>)>,
    /// The keys of `known` in the order in which they were added.
    order: VecDeque<Arc<str>>,
    /// The one that was looked at least recently comes first; few enough to be searched.
    asking: VecDeque<(Box<str>, Pending<Address>)>,
}

impl Targets {
    fn insert(&mut self, text: &str, known: Arc<Known>, expires: Option<Instant>) {
        if let Some(entry) = self.known.get_mut(text) {
            *entry = (known, expires);
            return;
        }
        if self.known.len() >= KEPT {
            if let Some(oldest) = self.order.pop_front() {
                self.known.remove(&oldest);
            }
        }
        let text: Arc<str> = text.into();
        self.order.push_back(Arc::clone(&text));
        self.known.insert(text, (known, expires));
    }

    fn cached(&mut self, session: &Arc<Session>, text: &str, now: Instant) -> Option<Arc<Known>> {
        let (known, expires) = self.known.get_mut(text)?;
        if expires.is_some_and(|at| now >= at) {
            return None;
        }
        // The header contains the session's id.
        if known.session.as_ptr() != Arc::as_ptr(session) {
            let (address, session) = (known.address.clone(), Arc::downgrade(session));
            let header = send_header(session.upgrade()?.id(), &address, &SendOptions::default());
            *known = Arc::new(Known { address, header, session });
        }
        Some(Arc::clone(known))
    }

    fn keep(&mut self, session: &Arc<Session>, text: &str, address: Address, now: Instant) -> Arc<Known> {
        let expires = if text.contains('.') { now.checked_add(AGE) } else { None };
        let header = send_header(session.id(), &address, &SendOptions::default());
        let known = Arc::new(Known { address, header, session: Arc::downgrade(session) });
        self.insert(text, Arc::clone(&known), expires);
        known
    }

    /// Whether there may be one more lookup. If there are too many, looks whether the one that has waited longest is
    /// over: nobody may ever send to that name again.
    fn make_room(&mut self, session: &Arc<Session>, now: Instant) -> bool {
        if self.asking.len() < ASKING {
            return true;
        }
        let Some((text, mut lookup)) = self.asking.pop_front() else { return true };
        match lookup.step(now) {
            Ok(Progress::Block) => {
                self.asking.push_back((text, lookup));
                return false;
            }
            Ok(Progress::Done) => {
                if let Ok(address) = lookup.take() {
                    self.keep(session, &text, address, now);
                }
            }
            Err(_) => {}
        }
        true
    }
}

impl Default for TargetCache {
    fn default() -> Self {
        TargetCache(RankedMutex::new(Rank::Targets, Targets::default()))
    }
}

impl TargetCache {
    /// Caches an address; one that came from a name expires.
    pub(super) fn keep(&self, session: &Arc<Session>, text: &str, address: Address, now: Instant) -> Arc<Known> {
        self.0.lock().keep(session, text, address, now)
    }

    /// The address `text` stands for, if it is cached.
    pub(super) fn cached(&self, session: &Arc<Session>, text: &str, now: Instant) -> Option<Arc<Known>> {
        self.0.lock().cached(session, text, now)
    }

    /// Looks up a name that is not cached, in the background: starts the lookup, or takes its answer. `None` while
    /// there is no answer.
    pub(super) fn ask(
        &self,
        session: &Arc<Session>,
        text: &str,
        wire: &str,
        now: Instant,
    ) -> Result<Option<Arc<Known>>> {
        // Before the lock: the lookup may have something for the program's log hook.
        let _edge = log::edge();
        let mut targets = self.0.lock();
        // Another thread may have received the answer.
        if let Some(known) = targets.cached(session, text, now) {
            return Ok(Some(known));
        }
        let asked = targets.asking.iter().position(|(asked, _)| **asked == *text);
        let (text, mut lookup) = match asked.and_then(|at| targets.asking.remove(at)) {
            Some(asked) => asked,
            None => {
                if targets.make_room(session, now) {
                    let lookup = Lookup::begin(session, wire, Limit::Default, now)?;
                    targets.asking.push_back((text.into(), lookup));
                }
                return Ok(None);
            }
        };
        match lookup.step(now) {
            Ok(Progress::Block) => {
                targets.asking.push_back((text, lookup));
                Ok(None)
            }
            Ok(Progress::Done) => Ok(Some(targets.keep(session, &text, lookup.take()?, now))),
            Err(error) if error.status == Status::Timeout => {
                let message = format!("the name {text} was not resolved in time");
                Err(Error::new(Status::Timeout, Operation::Lookup, message))
            }
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::core::bridge::{Bridge, Finished};
    use crate::core::drive::Driver;
    use crate::core::session::{NewSession, Signals};
    use crate::core::settings::{ControllerOptions, Options};
    use crate::identity::base64_encode;
    use crate::protocol::request::Outcome;
    use crate::protocol::style::Style;
    use crate::protocol::version::Version;
    use crate::sys::{SharedFd, Wake, Watch};

    const SECOND: Duration = Duration::from_secs(1);
    const JUST: Duration = Duration::from_nanos(1);

    /// A session without a keeper, and the bridge's end of its control socket.
    fn session(id: &str) -> (Arc<Session>, UnixStream) {
        let mut options = Options::default();
        options.set("lookup_timeout", "120000").unwrap();
        options.set("heartbeat", "0").unwrap();
        // There is only the session's connection.
        options.set("sam", "unix:/nowhere/at/all").unwrap();
        let (ours, bridge) = UnixStream::pair().unwrap();
        let created = Finished {
            outcome: Outcome::Checked,
            socket: Arc::new(SharedFd::new(ours.into())),
            version: Version::V3_3,
            surplus: Default::default(),
            unsent: Default::default(),
            hidden: Default::default(),
        };
        let signals = Signals {
            work: Arc::new(Watch::new().unwrap()),
            changed: Arc::new(Wake::new().unwrap()),
            driver: Driver::new(false).unwrap(),
        };
        let new = NewSession { id: id.to_owned(), address: address(9), style: Style::Datagram, created, port: None };
        let ours = Bridge::new(ControllerOptions::parse(&options).unwrap().bridge).unwrap();
        (Session::begin(Arc::new(ours), signals, new, Instant::now()).unwrap(), bridge)
    }

    fn address(fill: u8) -> Address {
        Address::from_bytes(&[&[fill; 384][..], &[5, 0, 4, 0, 7, 0, 0]].concat()).unwrap()
    }

    fn lookup(bridge: &UnixStream) -> String {
        let mut line = String::new();
        BufReader::new(bridge).read_line(&mut line).unwrap();
        line
    }

    fn answer(bridge: &mut UnixStream, name: &str, fill: u8) {
        let value = base64_encode(address(fill).as_bytes());
        writeln!(bridge, "NAMING REPLY RESULT=OK NAME={name} VALUE={value}").unwrap();
    }

    #[test]
    fn a_name_is_believed_for_ten_minutes() {
        let (session, _bridge) = session("one");
        let (cache, start) = (TargetCache::default(), Instant::now());
        let cached = |now| cache.cached(&session, "bob.i2p", now).map(|known| known.address.clone());
        assert_eq!(cached(start), None);
        cache.keep(&session, "bob.i2p", address(1), start);
        for now in [start, start + 300 * SECOND, start + 600 * SECOND - JUST] {
            assert_eq!(cached(now), Some(address(1)), "{:?}", now - start);
        }
        for now in [start + 600 * SECOND, start + 6000 * SECOND] {
            assert_eq!(cached(now), None, "{:?}: use does not make it younger", now - start);
        }
        // Another ten minutes with a new answer.
        let again = start + 700 * SECOND;
        cache.keep(&session, "bob.i2p", address(2), again);
        assert_eq!(cached(again + 600 * SECOND - JUST), Some(address(2)));
        assert_eq!(cached(again + 600 * SECOND), None);
    }

    #[test]
    fn a_destination_does_not_age() {
        let (session, _bridge) = session("one");
        let (cache, start, text) = (TargetCache::default(), Instant::now(), address(1).base64().to_owned());
        cache.keep(&session, &text, address(1), start);
        let later = start + 1_000_000 * SECOND;
        assert_eq!(cache.cached(&session, &text, later).unwrap().address, address(1));
    }

    #[test]
    fn the_next_session_has_a_header_of_its_own_and_the_name_its_age() {
        let ((first, _first), (second, _second)) = (session("one"), session("two"));
        let (cache, start) = (TargetCache::default(), Instant::now());
        let header = |id: &str| format!("3.0 {id} {}\n", address(1).base64()).into_bytes();
        assert_eq!(cache.keep(&first, "bob.i2p", address(1), start).header, header("one"));
        let last = start + 600 * SECOND - JUST;
        for (session, id) in [(&second, "two"), (&second, "two"), (&first, "one")] {
            assert_eq!(cache.cached(session, "bob.i2p", last).unwrap().header, header(id));
        }
        assert!(cache.cached(&second, "bob.i2p", last + JUST).is_none());
    }

    #[test]
    fn in_the_background_the_age_counts_from_the_answer() {
        let (session, mut bridge) = session("one");
        let (cache, start) = (TargetCache::default(), Instant::now());
        let ask = |now| cache.ask(&session, "bob.i2p", "bob.i2p", now).map(|known| known.map(|k| k.address.clone()));
        assert_eq!(ask(start).unwrap(), None);
        assert_eq!(lookup(&bridge), "NAMING LOOKUP NAME=bob.i2p\n");
        assert_eq!(ask(start + 100 * SECOND).unwrap(), None);
        answer(&mut bridge, "bob.i2p", 1);
        // The answer counts, even though it is late.
        let came = start + 130 * SECOND;
        assert_eq!(ask(came).unwrap(), Some(address(1)));
        let cached = |now| cache.cached(&session, "bob.i2p", now).map(|known| known.address.clone());
        assert_eq!(cached(came + 600 * SECOND - JUST), Some(address(1)));
        assert_eq!(cached(came + 600 * SECOND), None);
        // Once it has expired, it is looked up again.
        assert_eq!(ask(came + 600 * SECOND).unwrap(), None);
        assert_eq!(lookup(&bridge), "NAMING LOOKUP NAME=bob.i2p\n");
        answer(&mut bridge, "bob.i2p", 2);
        assert_eq!(ask(came + 601 * SECOND).unwrap(), Some(address(2)));
    }

    #[test]
    fn in_the_background_a_lookup_has_its_time_limit() {
        let (session, mut bridge) = session("one");
        let (cache, start) = (TargetCache::default(), Instant::now());
        let ask = |now| cache.ask(&session, "bob.i2p", "bob.i2p", now).map(|known| known.map(|k| k.address.clone()));
        // Each lookup gets the full limit, however often its answer is asked for.
        for begin in [start, start + 120 * SECOND, start + 1000 * SECOND] {
            for now in [begin, begin, begin + 60 * SECOND, begin + 120 * SECOND - JUST] {
                assert_eq!(ask(now).unwrap(), None, "{:?}", now - begin);
            }
            let error = ask(begin + 120 * SECOND).unwrap_err();
            assert_eq!((error.status, error.operation), (Status::Timeout, Operation::Lookup));
            assert_eq!(error.message, "the name bob.i2p was not resolved in time");
        }
        // The first answer is for the first of these lookups, which was sent; the others left nothing behind.
        let begin = start + 2000 * SECOND;
        assert_eq!(ask(begin).unwrap(), None);
        answer(&mut bridge, "bob.i2p", 1);
        assert_eq!(ask(begin + SECOND).unwrap(), None);
        answer(&mut bridge, "bob.i2p", 2);
        assert_eq!(ask(begin + SECOND).unwrap(), Some(address(2)));
    }

    #[test]
    fn when_it_is_full_one_address_makes_room_for_the_next() {
        let (session, _bridge) = session("one");
        let (cache, now) = (TargetCache::default(), Instant::now());
        let name = |number: usize| format!("n{number}.i2p");
        let is_cached = |number: usize| cache.cached(&session, &name(number), now).is_some();
        for number in 0..KEPT {
            cache.keep(&session, &name(number), address(1), now);
        }
        // A new answer for one that is there takes no place.
        cache.keep(&session, &name(0), address(2), now);
        assert!((0..KEPT).all(is_cached));
        cache.keep(&session, &name(KEPT), address(1), now);
        assert!(!is_cached(0) && (1..=KEPT).all(is_cached));
        let targets = cache.0.lock();
        assert_eq!((targets.known.len(), targets.order.len()), (KEPT, KEPT));
    }

    /// Nothing for names that are never sent to again but a number of lookups, which others get past.
    #[test]
    fn lookups_in_the_background_are_bounded() {
        let (session, mut bridge) = session("one");
        let (cache, now) = (TargetCache::default(), Instant::now());
        let ask = |number: usize, now| {
            let name = format!("n{number}.i2p");
            cache.ask(&session, &name, &name, now)
        };
        for number in 0..500 {
            assert!(ask(number, now).unwrap().is_none());
        }
        assert_eq!(cache.0.lock().asking.len(), ASKING);
        // Sent to over and over, the others have their turn while the first are answered.
        let others = 3 * ASKING..4 * ASKING;
        for _ in 0..2 * ASKING {
            let name = lookup(&bridge).trim_end().split('=').next_back().unwrap().to_owned();
            answer(&mut bridge, &name, 1);
            // Whatever is answered is fetched, and none is asked for twice.
            for number in others.clone() {
                drop(ask(number, now).unwrap());
            }
            assert!(cache.0.lock().asking.len() <= ASKING);
        }
        assert!(others.clone().all(|number| ask(number, now).unwrap().is_some()));
        // And those nobody answers do not stay for ever.
        for number in 500..500 + ASKING {
            assert!(ask(number, now).unwrap().is_none());
        }
        assert_eq!(cache.0.lock().asking.len(), ASKING);
        let later = now + 120 * SECOND;
        for number in 1000..1000 + ASKING {
            assert!(ask(number, later).unwrap().is_none());
        }
        assert!(cache.0.lock().asking.iter().all(|(text, _)| text.len() == "n1000.i2p".len()));
    }
}
