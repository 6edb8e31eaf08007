//! The network between sessions: what it loses, repeats, reorders and lets others add.

use crate::datagram::{count, Parcel};
use crate::faults::{FaultConfig, FaultState, Faults};
use crate::shared::{lock, Shared};
use crate::style::Delivery;
use crate::udp::stranger;
use std::collections::HashMap;
use std::net::SocketAddr;

/// What the payload of a forged datagram says.
const FORGED: &[u8] = b"forged";

/// Numbers that depend on nothing but the seed (SplitMix64).
#[derive(Debug, Default)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Whether something that happens so often happens now.
    fn hits(&mut self, percent: u8) -> bool {
        self.next() % 100 < u64::from(percent)
    }
}

/// Some copies of a datagram.
type Copies = (Parcel, u64);

/// What becomes of a datagram.
enum Fate {
    Lost,
    /// So many copies.
    Held(u64),
    /// It goes, then the one that was held back; and somebody sends another in the bridge's name.
    Goes(Copies, Option<Copies>, bool),
}

/// The state behind the settings.
#[derive(Debug, Default)]
pub(crate) struct Trouble {
    random: Random,
    /// By serial number of the session they are for.
    held: HashMap<u64, Copies>,
}

impl Trouble {
    pub(crate) fn new(seed: u64) -> Self {
        Self { random: Random(seed), held: HashMap::new() }
    }

    fn decide(&mut self, config: &FaultConfig, parcel: Parcel) -> Fate {
        let rates = [config.loss, config.duplicate, config.reorder, config.forge];
        if rates == [0; 4] && self.held.is_empty() {
            return Fate::Goes((parcel, 1), None, false);
        }
        // Always as many numbers per datagram, so that one rate does not change what the others do.
        let [lost, twice, late, forged] = rates.map(|percent| self.random.hits(percent));
        if lost {
            return Fate::Lost;
        }
        let copies = (parcel, if twice { 2 } else { 1 });
        match self.held.remove(&copies.0.serial) {
            None if late => {
                let count = copies.1;
                self.held.insert(copies.0.serial, copies);
                Fate::Held(count)
            }
            held => Fate::Goes(copies, held, forged),
        }
    }
}

impl FaultState {
    /// The number of datagrams held back.
    pub(crate) fn held(&self) -> u64 {
        self.trouble.held.values().map(|(_, copies)| copies).sum()
    }
}

impl Shared {
    /// Sends a datagram over the network.
    pub(crate) fn travel(&self, parcel: Parcel) {
        let counters = &self.counters;
        let fate = {
            let mut faults = lock(&self.faults);
            let FaultState { config, trouble, .. } = &mut *faults;
            trouble.decide(config, parcel)
        };
        if let Fate::Held(copies) | Fate::Goes((_, copies), ..) = &fate {
            count(&counters.duplicated, copies - 1);
        }
        match fate {
            Fate::Lost => {
                count(&counters.lost, 1);
                count(&counters.dropped, 1);
            }
            Fate::Held(_) => {}
            Fate::Goes(first, held, forged) => {
                if forged {
                    self.forge_like(&first.0);
                }
                self.arrive(first);
                if let Some(held) = held {
                    self.arrive(held);
                }
            }
        }
    }

    fn arrive(&self, (parcel, copies): Copies) {
        for _ in 1..copies {
            self.hand_over(parcel.clone());
        }
        self.hand_over(parcel);
    }

    /// A session has ended: what was held back for it is lost.
    pub(crate) fn forget_held(&self, serial: u64) {
        if let Some((_, copies)) = lock(&self.faults).trouble.held.remove(&serial) {
            count(&self.counters.dropped, copies);
        }
    }

    /// Hands over all that is held back.
    pub(crate) fn release_held(&self) {
        let mut held: Vec<_> = lock(&self.faults).trouble.held.drain().collect();
        held.sort_by_key(|(serial, _)| *serial);
        for (_, copies) in held {
            self.arrive(copies);
        }
    }

    /// Sends something with the same header and another payload from a strange port.
    fn forge_like(&self, parcel: &Parcel) {
        if let Delivery::Udp(to) = parcel.to {
            let header = parcel.bytes.get(..parcel.header).unwrap_or_default();
            self.forge_to(to, &[header, FORGED].concat());
        }
    }

    fn forge_to(&self, to: SocketAddr, bytes: &[u8]) -> Option<SocketAddr> {
        let socket = stranger(to).ok()?;
        socket.send_to(bytes, to).ok()?;
        count(&self.counters.forged, 1);
        socket.local_addr().ok()
    }
}

impl Faults {
    fn change(&self, change: impl FnOnce(&mut FaultConfig)) {
        change(&mut lock(&self.shared.faults).config);
    }

    /// Loses this many percent of all datagrams from now on.
    pub fn loss(&self, percent: u8) {
        self.change(|config| config.loss = percent);
    }

    /// Delivers this many percent of all datagrams twice from now on.
    pub fn duplicate(&self, percent: u8) {
        self.change(|config| config.duplicate = percent);
    }

    /// Holds this many percent of all datagrams back until the next one to the same session has arrived. 0 hands
    /// over what is held back.
    pub fn reorder(&self, percent: u8) {
        self.change(|config| config.reorder = percent);
        if percent == 0 {
            self.shared.release_held();
        }
    }

    /// Sends a forged datagram along with this many percent of the forwarded ones from now on; see
    /// [`FaultConfig::forge`].
    pub fn forge_percent(&self, percent: u8) {
        self.change(|config| config.forge = percent);
    }

    /// Begins again with the random numbers of this seed.
    pub fn seed(&self, seed: u64) {
        let mut faults = lock(&self.shared.faults);
        faults.config.seed = seed;
        faults.trouble.random = Random(seed);
    }

    /// Sends these bytes, as they are, to the session's forward port, from another local UDP port than the
    /// bridge's. Gives the address they came from; `None` without such a session or when it has no forward port.
    pub fn forge(&self, id: &str, bytes: impl AsRef<[u8]>) -> Option<SocketAddr> {
        let to = self.forward_port(id)?;
        self.shared.forge_to(to, bytes.as_ref())
    }

    /// Sends these bytes, as they are, to the session's forward port, from the bridge's own UDP port. Says
    /// whether there is such a session and it has a forward port.
    pub fn inject(&self, id: &str, bytes: impl AsRef<[u8]>) -> bool {
        self.forward_port(id).is_some_and(|to| self.shared.udp.send(bytes.as_ref(), to).is_ok())
    }

    fn forward_port(&self, id: &str) -> Option<SocketAddr> {
        let state = lock(&self.shared.state);
        state.sessions.get(id).filter(|s| s.ready).and_then(|s| s.forward_port())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parcel(serial: u64) -> Parcel {
        Parcel { serial, to: Delivery::Nowhere, bytes: Vec::new(), header: 0 }
    }

    fn lost(seed: u64, duplicate: u8) -> Vec<bool> {
        let config = FaultConfig { loss: 30, duplicate, ..FaultConfig::default() };
        let mut trouble = Trouble::new(seed);
        (0..1000).map(|_| matches!(trouble.decide(&config, parcel(1)), Fate::Lost)).collect()
    }

    #[test]
    fn the_seed_decides() {
        assert_eq!(lost(1, 0), lost(1, 50));
        assert_ne!(lost(1, 0), lost(2, 0));
        let count = lost(1, 0).iter().filter(|lost| **lost).count();
        assert!((250..350).contains(&count), "{count}");
    }

    #[test]
    fn one_is_held_back_per_session() {
        let config = FaultConfig { reorder: 100, ..FaultConfig::default() };
        let mut trouble = Trouble::new(0);
        for _ in 0..3 {
            assert!(matches!(trouble.decide(&config, parcel(1)), Fate::Held(1)));
            assert!(matches!(trouble.decide(&config, parcel(2)), Fate::Held(1)));
            assert!(matches!(trouble.decide(&config, parcel(1)), Fate::Goes(_, Some(_), false)));
            assert!(matches!(trouble.decide(&config, parcel(2)), Fate::Goes(_, Some(_), false)));
        }
        assert!(trouble.held.is_empty());
    }
}
