//! The descriptor of a datagram destination: bound before its session is created, living as long as that.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::Arc;

use crate::core::bridge::Bridge;
use crate::core::settings::DatagramOptions;
use crate::error::{Error, Operation, Result};
use crate::protocol::command::Delivery;
use crate::protocol::style::Style;
use crate::sys::{self, SharedFd, UdpAddress};

/// How datagrams get to the bridge and back.
pub enum Path {
    /// By UDP.
    Udp {
        /// Where the bridge takes datagrams.
        bridge: SocketAddr,
        /// The same for the system.
        raw: UdpAddress,
    },
    /// On the control socket: the engine feeds this end of a pair.
    InBand(SharedFd),
}

/// What has happened to datagrams so far. The socket is one, so all handles to it share these.
#[derive(Debug, Default)]
pub struct Counters {
    /// Handed to the bridge.
    pub sent: AtomicU64,
    /// Handed to the program.
    pub received: AtomicU64,
    /// Dropped because they did not come from the bridge.
    pub refused: AtomicU64,
    /// Dropped because their header made no sense.
    pub malformed: AtomicU64,
    /// Handed to the program cut short.
    pub truncated: AtomicU64,
    by_system: AtomicU64,
    /// In band, for want of room.
    pushed_out: AtomicU64,
    /// In band, too large.
    skipped: AtomicU64,
}

impl Counters {
    /// The system says how many it has dropped since the socket was made, in 32 bits. Of two threads that receive the
    /// later one may come first.
    pub fn system_dropped(&self, total: u32) {
        let newer = |known: u64| {
            let more = total.wrapping_sub(known as u32);
            (more < 1 << 31).then(|| known + u64::from(more))
        };
        // Unless it is newer nothing changes.
        let _ = self.by_system.fetch_update(Relaxed, Relaxed, newer);
    }

    /// Datagrams that were dropped for want of room.
    pub fn dropped(&self) -> u64 {
        [&self.by_system, &self.pushed_out, &self.skipped].map(|counter| counter.load(Relaxed)).iter().sum()
    }
}

/// The program's end and what belongs to it.
pub struct DatagramPort {
    /// The program's end.
    pub socket: Arc<SharedFd>,
    /// Ways in and out.
    pub path: Path,
    /// Raw datagrams come with a header line.
    pub raw_header: bool,
    /// The bridge may send from another port than it listens on.
    pub any_port: bool,
    /// A datagram from somebody else than the bridge is an error instead of being dropped.
    pub report_source: bool,
    /// The caller says that the router takes options in the header.
    pub header_options: bool,
    /// What has happened so far.
    pub counters: Counters,
    delivery: Delivery,
}

impl DatagramPort {
    /// Binds the descriptor a destination of `style` needs.
    pub(crate) fn bind(bridge: &Bridge, style: Style, options: &DatagramOptions) -> Result<Arc<Self>> {
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
            delivery.forward = Some(sys::local_address(socket.as_raw_fd()).map_err(system)?);
            (socket, Path::Udp { bridge: target, raw: UdpAddress::new(target).map_err(system)? })
        };
        Ok(Arc::new(DatagramPort {
            socket: Arc::new(SharedFd::new(socket)),
            // In band every datagram has a line of its own, so raw ones do too.
            raw_header: delivery.header || (raw && matches!(path, Path::InBand(_))),
            path,
            any_port: options.any_source_port,
            report_source: options.report_source,
            header_options: options.header_options,
            counters: Counters::default(),
            delivery,
        }))
    }

    /// What the session has to be told.
    pub fn delivery(&self) -> Delivery {
        self.delivery
    }

    /// Whether a datagram with this source address was sent by the bridge: anything else may be forged.
    pub(crate) fn is_from_bridge(&self, from: Option<SocketAddr>) -> bool {
        match &self.path {
            Path::InBand(_) => true,
            Path::Udp { bridge, .. } => {
                from.is_some_and(|from| from.ip() == bridge.ip() && (self.any_port || from.port() == bridge.port()))
            }
        }
    }

    /// Hands a datagram that came on the control socket to the program; when there is no room the oldest one goes.
    pub fn feed(&self, packet: &[u8]) {
        let Path::InBand(end) = &self.path else { return };
        // Bounded: a program that receives at the same time makes room as well.
        for _ in 0..64 {
            match sys::send_datagram(end.as_raw_fd(), None, packet, &[], sys::MSG_DONTWAIT) {
                Err(error) if sys::would_block(&error) || error.raw_os_error() == Some(libc::ENOBUFS) => {
                    // The program may have been quicker, and taken it.
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

    /// So many datagrams on the control socket were too large to be taken.
    pub fn set_skipped(&self, skipped: u64) {
        self.counters.skipped.store(skipped, Relaxed);
    }
}

/// Where to bind when option forward does not say it: any port of the loopback address the bridge is on.
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

    /// A program that takes datagrams while others push them out: each is counted once.
    #[test]
    fn what_the_program_has_taken_was_not_pushed_out() {
        const COUNT: u64 = 100_000;
        let (ours, theirs) = sys::datagram_pair().unwrap();
        sys::set_nonblocking(theirs.as_raw_fd(), true).unwrap();
        let port = DatagramPort {
            socket: Arc::new(SharedFd::new(ours)),
            path: Path::InBand(SharedFd::new(theirs)),
            raw_header: false,
            any_port: false,
            report_source: false,
            header_options: false,
            counters: Counters::default(),
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
