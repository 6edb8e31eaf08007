//! Where the SAM bridge is, how to talk to it, and how long to wait for it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::core::bridge::lookups::Lookups;
use crate::core::drive::{after, Backoff, Log, Process};
use crate::core::settings::{BridgeOptions, Endpoint, Timeouts};
use crate::error::{Error, Operation, Result, Status};
use crate::protocol::credentials::Credentials;
use crate::protocol::version::{Version, VersionRange};
use crate::sys::Place;

/// Pauses while there is no router: starts with the first and doubles up to the longest.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(250);
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Address and settings of one SAM bridge.
pub struct Bridge {
    text: String,
    udp: String,
    udp_places: Vec<SocketAddr>,
    places: Vec<Place>,
    credentials: Option<Credentials>,
    range: VersionRange,
    may_lower: bool,
    lowered: AtomicBool,
    resolves_alone: AtomicBool,
    pub(crate) lookups: Arc<Lookups>,
    pub timeouts: Timeouts,
    pub log: Arc<Log>,
    pub process: Arc<Process>,
}

impl Bridge {
    /// Resolves the bridge's host name, which may block; nothing after this does. A name that cannot be resolved yet is
    /// waited for as the bridge itself.
    pub(crate) fn new(options: BridgeOptions) -> Result<Self> {
        let process = Arc::default();
        Ok(Bridge {
            places: resolve_patiently(&options.sam, options.timeouts.bridge)?,
            udp_places: resolve_udp(&options.udp)?,
            text: options.sam_text,
            udp: options.udp_text,
            credentials: options.credentials,
            range: options.versions,
            may_lower: options.may_lower,
            lowered: AtomicBool::new(false),
            resolves_alone: AtomicBool::new(false),
            lookups: Lookups::new(&process),
            timeouts: options.timeouts,
            log: Arc::default(),
            process,
        })
    }

    /// The bridge's address as the program wrote it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The bridge's datagram endpoint as HOST:PORT.
    pub fn udp_text(&self) -> &str {
        &self.udp
    }

    pub fn udp_places(&self) -> &[SocketAddr] {
        &self.udp_places
    }

    /// All addresses of the bridge, in the order to try them.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    pub fn credentials(&self) -> Option<&Credentials> {
        self.credentials.as_ref()
    }

    /// The versions to ask for, after any [`Bridge::lower`].
    pub fn range(&self) -> VersionRange {
        let min = if self.lowered.load(Ordering::Relaxed) { Version::V3_0 } else { self.range.min };
        VersionRange { min, max: self.range.max }
    }

    /// Called when the bridge supports none of the versions asked for. Returns whether to retry with older ones, and if
    /// so remembers that for later connections.
    pub fn lower(&self, asked: VersionRange) -> bool {
        let lower = self.may_lower && asked.min > Version::V3_0;
        if lower {
            self.lowered.store(true, Ordering::Relaxed);
        }
        lower
    }

    /// Whether the router is known to resolve host names on connections without a session; not all do.
    pub fn resolves_alone(&self) -> bool {
        self.resolves_alone.load(Ordering::Relaxed)
    }

    /// Records that the router has resolved a host name on a connection without a session.
    pub fn set_resolves_alone(&self) {
        self.resolves_alone.store(true, Ordering::Relaxed);
    }

    pub fn unreachable(&self, error: &std::io::Error) -> Error {
        let text = &self.text;
        let io = |what: String| Error::io(Operation::Handshake, &what, error);
        match error.raw_os_error() {
            Some(libc::ECONNREFUSED | libc::ENOENT) => {
                let hint = format!("no SAM bridge at {text}: is the router running and SAM enabled? ({error})");
                io(String::new()).saying(hint)
            }
            Some(libc::ETIMEDOUT | libc::EHOSTUNREACH | libc::ENETUNREACH) => io(format!("no SAM bridge at {text}")),
            // This machine or this process lacks something, and the bridge may well be there.
            _ => io(format!("cannot connect to the SAM bridge at {text}")),
        }
    }

    /// Fails in a child of fork(2), whose calls would disturb the parent.
    pub fn check_process(&self) -> Result<()> {
        self.process.check()
    }
}

fn resolve_patiently(endpoint: &Endpoint, patience: Option<Duration>) -> Result<Vec<Place>> {
    let until = after(patience, Instant::now()).filter(|_| patience.is_some());
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    loop {
        let now = Instant::now();
        match endpoint.resolve() {
            Err(error) if error.status == Status::Io && until.is_some_and(|until| now < until) => {
                let left = until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
                std::thread::sleep(backoff.pause().min(left));
            }
            result => return result,
        }
    }
}

fn resolve_udp(endpoint: &Endpoint) -> Result<Vec<SocketAddr>> {
    let address = |place| match place {
        Place::Tcp(address) => Some(address),
        Place::Unix(_) => None,
    };
    Ok(endpoint.resolve()?.into_iter().filter_map(address).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::settings::{ControllerOptions, Options};
    use crate::error::Status;

    impl Bridge {
        /// A bridge with these addresses and all the defaults.
        pub(in crate::core::bridge) fn at(places: Vec<Place>) -> Bridge {
            let options = ControllerOptions::parse(&Options::default()).unwrap();
            Bridge { places, ..Bridge::new(options.bridge).unwrap() }
        }
    }

    #[test]
    fn what_is_missing_is_told_apart() {
        let bridge = Bridge::at(Vec::new());
        for (number, start) in [
            (libc::ECONNREFUSED, "no SAM bridge at 127.0.0.1:7656: is the router running and SAM enabled? ("),
            (libc::ENOENT, "no SAM bridge at 127.0.0.1:7656: is the router running and SAM enabled? ("),
            (libc::EHOSTUNREACH, "no SAM bridge at 127.0.0.1:7656: "),
            (libc::ETIMEDOUT, "no SAM bridge at 127.0.0.1:7656: "),
            (libc::EMFILE, "cannot connect to the SAM bridge at 127.0.0.1:7656: Too many open files"),
            (libc::ENFILE, "cannot connect to the SAM bridge at 127.0.0.1:7656: Too many open files"),
            (libc::ENOMEM, "cannot connect to the SAM bridge at 127.0.0.1:7656: "),
            (libc::ENOBUFS, "cannot connect to the SAM bridge at 127.0.0.1:7656: "),
        ] {
            let error = bridge.unreachable(&std::io::Error::from_raw_os_error(number));
            assert!(error.message.starts_with(start), "{}", error.message);
            assert_eq!((error.status, error.os_error), (Status::Io, number));
        }
    }
}
