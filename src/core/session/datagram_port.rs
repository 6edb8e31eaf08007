//! The descriptor of a datagram destination: bound before the first session is created, and kept until the destination
//! ends.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use crate::core::bridge::Bridge;
use crate::core::session::header_trial::HeaderTrial;
use crate::core::session::listening::Listening;
use crate::core::session::target_cache::TargetCache;
use crate::core::settings::DatagramOptions;
use crate::error::{Error, Operation, Result, Status};
use crate::identity::Address;
use crate::protocol::command::Delivery;
use crate::protocol::datagram::{send_header, SendOptions, MAX_IN_BAND};
use crate::protocol::ports::Ports;
use crate::protocol::style::Style;
use crate::sys::{self, SharedFd, UdpAddress};

/// How datagrams travel to the bridge and back.
pub enum Path {
    Udp {
        /// The bridge's datagram endpoint.
        bridge: SocketAddr,
        /// The same in the system's form.
        raw: UdpAddress,
        /// `None` if the system has no way there, as sending will show.
        listening: Option<Box<Listening>>,
    },
    /// Over the control socket: [`DatagramPort::feed`] writes what arrives to this end of a socket pair.
    InBand(SharedFd),
}

/// Statistics. There is one socket, so all its handles share them.
#[derive(Debug, Default)]
pub struct Counters {
    pub sent: AtomicU64,
    pub received: AtomicU64,
    pub refused: AtomicU64,
    pub malformed: AtomicU64,
    pub truncated: AtomicU64,
    by_system: AtomicU64,
    /// Dropped in band for lack of buffer space.
    pushed_out: AtomicU64,
    /// Dropped in band for being too large.
    skipped: AtomicU64,
}

impl Counters {
    /// Records the system's 32-bit count of drops since the socket was created. Two receiving threads may report out of
    /// order.
    pub fn system_dropped(&self, total: u32) {
        let newer = |known: u64| {
            let more = total.wrapping_sub(known as u32);
            (more < 1 << 31).then(|| known + u64::from(more))
        };
        // An older count changes nothing.
        let _ = self.by_system.fetch_update(Relaxed, Relaxed, newer);
    }

    /// Total number of datagrams dropped for lack of buffer space or for being too large.
    pub fn dropped(&self) -> u64 {
        [&self.by_system, &self.pushed_out, &self.skipped].map(|counter| counter.load(Relaxed)).iter().sum()
    }
}

/// The descriptor that a datagram destination's handles share, and its settings.
pub struct DatagramPort {
    /// The program's end: the UDP socket, or one of the pair.
    pub socket: Arc<SharedFd>,
    pub path: Path,
    /// Whether raw datagrams should come with a header line.
    pub raw_header: bool,
    /// Set if it is up to the router whether they do.
    pub header_trial: Option<HeaderTrial>,
    /// Whether the bridge may send from a port other than the one it listens on.
    pub any_port: bool,
    /// Another address the bridge sends from.
    pub also_from: Option<IpAddr>,
    /// The first one that something was dropped from, as it is not the bridge's.
    pub stranger: OnceLock<SocketAddr>,
    /// Whether a datagram that is not from the bridge is reported as an error instead of being dropped.
    pub report_source: bool,
    /// Whether the caller asserts that the router accepts options in the header.
    pub header_options: bool,
    /// What the router takes of a datagram in band, with the line before it.
    pub in_band_max: usize,
    /// The ports and the protocol of the destination. Not every router applies them in band.
    pub defaults: SendOptions,
    pub counters: Counters,
    /// The addresses datagrams are sent to.
    pub targets: TargetCache,
    delivery: Delivery,
}

impl DatagramPort {
    /// Creates the descriptor that a destination of `style` needs.
    pub(crate) fn bind(bridge: &Bridge, style: Style, ports: Ports, options: &DatagramOptions) -> Result<Arc<Self>> {
        let raw = style == Style::Raw;
        let mut delivery = Delivery { forward: None, protocol: options.protocol, header: options.raw_header };
        let system = |error| Error::io(Operation::Create, "a datagram socket", &error);
        let (socket, path) = if options.in_band {
            let (ours, theirs) = sys::datagram_pair().map_err(system)?;
            sys::set_nonblocking(theirs.as_raw_fd(), true).map_err(system)?;
            (ours, Path::InBand(SharedFd::new(theirs)))
        } else {
            let wanted = options.forward.map_or_else(|| local_end(bridge), Ok)?;
            let target = udp_of(bridge, wanted)?;
            let socket = sys::bind_udp(wanted)
                .map_err(|error| Error::io(Operation::Create, &format!("cannot bind UDP to {wanted}"), &error))?;
            let local = sys::local_address(socket.as_raw_fd()).map_err(system)?;
            delivery.forward = Some(local);
            let listening = Listening::new(local, target, Instant::now()).ok().map(Box::new);
            (socket, Path::Udp { bridge: target, raw: UdpAddress::new(target).map_err(system)?, listening })
        };
        Ok(Arc::new(DatagramPort {
            socket: Arc::new(SharedFd::new(socket)),
            // In band every datagram is announced by a line, so raw ones have a header too.
            header_trial: match &path {
                Path::Udp { .. } if delivery.header => Some(HeaderTrial::new(Instant::now())?),
                _ => None,
            },
            raw_header: delivery.header || (raw && matches!(path, Path::InBand(_))),
            path,
            any_port: options.any_source_port,
            also_from: options.udp_source,
            stranger: OnceLock::new(),
            report_source: options.report_source,
            header_options: options.header_options,
            in_band_max: options.in_band_max.unwrap_or(MAX_IN_BAND),
            defaults: SendOptions { ports, protocol: options.protocol, ..SendOptions::default() },
            counters: Counters::default(),
            targets: TargetCache::default(),
            delivery,
        }))
    }

    /// Fails if the router is known to lose what a destination with these settings sends or gets, which it would say OK to.
    /// Returns a warning for the log if some are known to. Emissary is known by its version of SAM: it speaks 3.2 when asked
    /// for more.
    pub fn check_router(&self, style: Style, is_emissary: bool) -> Result<Option<&'static str>> {
        let ports = [self.defaults.ports.from, self.defaults.ports.to];
        if is_emissary && ports.iter().any(|port| port.is_some_and(|port| port != 0)) {
            let message =
                "the router speaks SAM 3.2, as emissary does, which loses the datagrams of a destination with \
                           ports (options from_port, to_port)";
            return Err(Error::new(Status::Unsupported, Operation::Create, message));
        }
        Ok((style == Style::Datagram3).then_some(
            "a session of style DATAGRAM3: some routers say OK to it and deliver nothing (i2pd 2.58); if nothing comes, \
             use another style",
        ))
    }

    /// A session with this id has begun, for the destination `own`.
    pub fn begin(&self, id: &str, own: &Address, now: Instant) {
        if let Some(trial) = &self.header_trial {
            trial.begin(now);
            self.ask_for_header(id, own, now);
        }
    }

    /// Sends the session a datagram of its own, if it is time to find out whether the router writes headers.
    pub fn ask_for_header(&self, id: &str, own: &Address, now: Instant) {
        let (Some(trial), Path::Udp { raw, .. }) = (&self.header_trial, &self.path) else { return };
        let Some(payload) = trial.ask(now) else { return };
        let mut options = SendOptions::default();
        let (from, to) = (self.defaults.ports.from.unwrap_or(0), self.defaults.ports.to.unwrap_or(0));
        if from != to {
            options.ports.to = Some(from);
        }
        let header = send_header(id, own, &options);
        // Whatever becomes of it, it is sent again.
        drop(sys::send_datagram(self.socket.as_raw_fd(), Some(raw), &header, &payload, sys::MSG_DONTWAIT));
    }

    /// What to tell the router when creating a session.
    pub fn delivery(&self) -> Delivery {
        self.delivery
    }

    /// Whether a datagram with this source address was sent by the bridge: anything else may be forged.
    pub(crate) fn is_from_bridge(&self, from: Option<SocketAddr>) -> bool {
        match &self.path {
            Path::InBand(_) => true,
            Path::Udp { bridge, .. } => {
                let is_ours = |ip| ip == bridge.ip() || Some(ip) == self.also_from;
                from.is_some_and(|from| is_ours(from.ip()) && (self.any_port || from.port() == bridge.port()))
            }
        }
    }

    /// Finds out whether the bridge listens for datagrams, if they go by UDP.
    pub fn listening(&self) -> Option<&Listening> {
        match &self.path {
            Path::Udp { listening, .. } => listening.as_deref(),
            Path::InBand(_) => None,
        }
    }

    /// What to say about datagrams from `from`, which is not the bridge.
    pub fn foreign(&self, from: Option<SocketAddr>) -> String {
        let (Path::Udp { bridge, .. }, Some(from)) = (&self.path, from) else { return String::from("somebody else") };
        let option = if from.ip() == bridge.ip() { "any_source_port" } else { "udp_source" };
        format!("{from}, which is not the SAM bridge at {bridge} (if it is, see option {option})")
    }

    /// Passes a datagram from the control socket to the program. If there is no room, the oldest one is dropped.
    pub fn feed(&self, packet: &[u8]) {
        let Path::InBand(end) = &self.path else { return };
        // Bounded, because a program receiving at the same time makes room as well.
        for _ in 0..64 {
            match sys::send_datagram(end.as_raw_fd(), None, packet, &[], sys::MSG_DONTWAIT) {
                Err(error) if sys::would_block(&error) || error.raw_os_error() == Some(libc::ENOBUFS) => {
                    // The program may have been faster and received it.
                    if sys::discard_datagram(self.socket.as_raw_fd()) {
                        self.counters.pushed_out.fetch_add(1, Relaxed);
                    }
                }
                Ok(_) => return,
                Err(_) => break,
            }
        }
        self.counters.pushed_out.fetch_add(1, Relaxed);
    }

    /// Sets the total of datagrams on the control socket that were too large.
    pub fn set_skipped(&self, skipped: u64) {
        self.counters.skipped.store(skipped, Relaxed);
    }
}

/// Where to bind if option forward is not set: any port on the loopback address the bridge uses.
fn local_end(bridge: &Bridge) -> Result<SocketAddr> {
    match bridge.udp_places().first().map(SocketAddr::ip) {
        Some(ip) if ip.is_loopback() => Ok(SocketAddr::new(ip, 0)),
        Some(_) => Err(Error::invalid(
            "the bridge is on another machine: set option forward to HOST:PORT with an address of this one, or in_band to 1",
        )),
        None => Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
    }
}

fn udp_of(bridge: &Bridge, local: SocketAddr) -> Result<SocketAddr> {
    let same_family = |place: &&SocketAddr| matches!(place.ip(), IpAddr::V4(_)) == matches!(local.ip(), IpAddr::V4(_));
    bridge.udp_places().iter().find(same_family).copied().ok_or_else(|| {
        Error::invalid(format!("{} and {} are not of one address family", local.ip(), bridge.udp_text()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If the program receives datagrams while others are pushed out, each is counted once.
    #[test]
    fn what_the_program_has_taken_was_not_pushed_out() {
        const COUNT: u64 = 100_000;
        let (ours, theirs) = sys::datagram_pair().unwrap();
        sys::set_nonblocking(theirs.as_raw_fd(), true).unwrap();
        let port = DatagramPort {
            socket: Arc::new(SharedFd::new(ours)),
            path: Path::InBand(SharedFd::new(theirs)),
            raw_header: false,
            header_trial: None,
            any_port: false,
            also_from: None,
            stranger: OnceLock::new(),
            report_source: false,
            header_options: false,
            in_band_max: MAX_IN_BAND,
            defaults: SendOptions::default(),
            counters: Counters::default(),
            targets: TargetCache::default(),
            delivery: Delivery::default(),
        };
        let over = std::sync::atomic::AtomicBool::new(false);
        let taken: u64 = std::thread::scope(|scope| {
            let takers = [(); 8].map(|()| {
                scope.spawn(|| {
                    let mut taken = 0;
                    loop {
                        let last = over.load(Relaxed);
                        match sys::discard_datagram(port.socket.as_raw_fd()) {
                            true => taken += 1,
                            false if last => return taken,
                            false => {}
                        }
                    }
                })
            });
            (0..COUNT).for_each(|_| port.feed(b"x"));
            over.store(true, Relaxed);
            takers.map(|taker| taker.join().unwrap()).iter().sum()
        });
        assert_eq!(taken + port.counters.dropped(), COUNT);
    }

    #[test]
    fn the_count_of_the_system_may_wrap_and_come_late() {
        let counters = Counters::default();
        let steps = [(0, 0), (5, 5), (3, 5), (u32::MAX / 2, 0x7fff_ffff), (u32::MAX - 1, 0xffff_fffe)];
        for (total, wanted) in steps.into_iter().chain([(7, 0x1_0000_0007), (u32::MAX, 0x1_0000_0007)]) {
            counters.system_dropped(total);
            assert_eq!(counters.dropped(), wanted, "{total}");
        }
    }
}
