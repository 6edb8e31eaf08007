//! The addresses that datagrams of a destination are sent to: each is parsed or resolved once and cached together with
//! its header. Nothing here asks the router: what a lookup has found is put in.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::identity::Address;
use crate::protocol::datagram::{send_header, SendOptions};
use crate::sys::lock::{Rank, RankedMutex};

/// How long a resolved name is used without asking again.
const AGE: Duration = Duration::from_secs(600);
/// Maximum number of names, and of destinations; beyond it, the one that was added first is dropped.
const KEPT: usize = 1024;

/// A resolved address.
pub struct Known {
    pub address: Address,
    /// The header without options, containing the id of the session.
    pub header: Vec<u8>,
    session: Box<str>,
}

impl Known {
    fn new(session: &str, address: Address) -> Arc<Self> {
        let header = send_header(session, &address, &SendOptions::default());
        Arc::new(Known { address, header, session: session.into() })
    }
}

/// Cached addresses by the text they were given as. Shared by everything that sends from a destination or looks up a name
/// for it.
pub struct TargetCache(RankedMutex<Targets>);

/// Kept apart, so that answering any number of peers leaves the names that were looked up alone.
#[derive(Default)]
struct Targets {
    /// By their wire form.
    names: Shelf,
    destinations: Shelf,
}

#[derive(Default)]
struct Shelf {
    /// Valid until then, if it is a name.
    known: HashMap<Arc<str>, (Arc<Known>, Option<Instant>)>,
    /// The keys of `known`; the one that was added or renewed last comes last.
    order: VecDeque<Arc<str>>,
}

impl Shelf {
    fn insert(&mut self, text: &str, known: Arc<Known>, expires: Option<Instant>) {
        if let Some(entry) = self.known.get_mut(text) {
            *entry = (known, expires);
            if let Some(at) = self.order.iter().position(|known| **known == *text) {
                let renewed = self.order.remove(at);
                self.order.extend(renewed);
            }
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

    fn cached(&mut self, session: &str, text: &str, now: Instant) -> Option<Arc<Known>> {
        let (known, expires) = self.known.get_mut(text)?;
        if expires.is_some_and(|at| now >= at) {
            return None;
        }
        if *known.session != *session {
            *known = Known::new(session, known.address.clone());
        }
        Some(Arc::clone(known))
    }
}

impl Default for TargetCache {
    fn default() -> Self {
        TargetCache(RankedMutex::new(Rank::Targets, Targets::default()))
    }
}

impl TargetCache {
    /// Caches what a name stands for, given in its wire form.
    pub fn keep_name(&self, session: &str, name: &str, address: Address, now: Instant) -> Arc<Known> {
        let known = Known::new(session, address);
        self.0.lock().names.insert(name, Arc::clone(&known), now.checked_add(AGE));
        known
    }

    /// Caches a destination by the text it was given as.
    pub fn keep_destination(&self, session: &str, text: &str, address: Address) -> Arc<Known> {
        let known = Known::new(session, address);
        self.0.lock().destinations.insert(text, Arc::clone(&known), None);
        known
    }

    /// The address `text` stands for, if it is cached, with the header for the session with this id.
    pub fn cached(&self, session: &str, text: &str, now: Instant) -> Option<Arc<Known>> {
        let mut targets = self.0.lock();
        match targets.destinations.cached(session, text, now) {
            Some(known) => Some(known),
            None => targets.names.cached(session, text, now),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const JUST: Duration = Duration::from_nanos(1);

    fn address(fill: u8) -> Address {
        Address::from_bytes(&[&[fill; 384][..], &[5, 0, 4, 0, 7, 0, 0]].concat()).unwrap()
    }

    #[test]
    fn a_name_is_believed_for_ten_minutes() {
        let (cache, start) = (TargetCache::default(), Instant::now());
        let cached = |now| cache.cached("one", "bob.i2p", now).map(|known| known.address.clone());
        assert_eq!(cached(start), None);
        cache.keep_name("one", "bob.i2p", address(1), start);
        for now in [start, start + 300 * SECOND, start + 600 * SECOND - JUST] {
            assert_eq!(cached(now), Some(address(1)), "{:?}", now - start);
        }
        for now in [start + 600 * SECOND, start + 6000 * SECOND] {
            assert_eq!(cached(now), None, "{:?}: use does not make it younger", now - start);
        }
        // Another ten minutes with a new answer.
        let again = start + 700 * SECOND;
        cache.keep_name("one", "bob.i2p", address(2), again);
        assert_eq!(cached(again + 600 * SECOND - JUST), Some(address(2)));
        assert_eq!(cached(again + 600 * SECOND), None);
    }

    #[test]
    fn a_destination_does_not_age() {
        let (cache, start, text) = (TargetCache::default(), Instant::now(), address(1).base64().to_owned());
        cache.keep_destination("one", &text, address(1));
        let later = start + 1_000_000 * SECOND;
        assert_eq!(cache.cached("one", &text, later).unwrap().address, address(1));
    }

    #[test]
    fn the_next_session_has_a_header_of_its_own_and_the_name_its_age() {
        let (cache, start) = (TargetCache::default(), Instant::now());
        let header = |id: &str| format!("3.0 {id} {}\n", address(1).base64()).into_bytes();
        assert_eq!(cache.keep_name("one", "bob.i2p", address(1), start).header, header("one"));
        let last = start + 600 * SECOND - JUST;
        for id in ["two", "two", "one"] {
            assert_eq!(cache.cached(id, "bob.i2p", last).unwrap().header, header(id));
        }
        assert!(cache.cached("two", "bob.i2p", last + JUST).is_none());
    }

    #[test]
    fn when_it_is_full_one_address_makes_room_for_the_next() {
        let (cache, now) = (TargetCache::default(), Instant::now());
        let name = |number: usize| format!("n{number}.i2p");
        let is_cached = |number: usize| cache.cached("one", &name(number), now).is_some();
        for number in 0..KEPT {
            cache.keep_name("one", &name(number), address(1), now);
        }
        // A new answer for one that is there takes no place, and makes it the youngest.
        cache.keep_name("one", &name(0), address(2), now);
        assert!((0..KEPT).all(is_cached));
        cache.keep_name("one", &name(KEPT), address(1), now);
        assert!(!is_cached(1) && is_cached(0) && (2..=KEPT).all(is_cached));
        let targets = cache.0.lock();
        assert_eq!((targets.names.known.len(), targets.names.order.len()), (KEPT, KEPT));
    }

    /// A server answers whoever writes to it, and that must not cost the names that it has looked up.
    #[test]
    fn any_number_of_peers_leaves_the_names_alone() {
        let (cache, now) = (TargetCache::default(), Instant::now());
        cache.keep_name("one", "bob.i2p", address(1), now);
        for number in 0..=KEPT {
            cache.keep_destination("one", &number.to_string(), address(2));
        }
        assert!(cache.cached("one", "bob.i2p", now).is_some());
        assert!(cache.cached("one", "0", now).is_none() && cache.cached("one", "1", now).is_some());
    }
}
