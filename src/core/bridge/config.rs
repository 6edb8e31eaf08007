//! Where the SAM bridge is, how to speak to it, and how long to wait for it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use crate::core::drive::{Log, Process};
use crate::core::settings::{BridgeOptions, Endpoint, Timeouts};
use crate::error::{Error, Operation, Result};
use crate::protocol::credentials::Credentials;
use crate::protocol::version::{Version, VersionRange};
use crate::sys::Place;

/// One SAM bridge and the manners to use with it.
pub struct Bridge {
    text: String,
    udp: String,
    udp_places: Vec<SocketAddr>,
    places: Vec<Place>,
    credentials: Option<Credentials>,
    range: VersionRange,
    may_lower: bool,
    lowered: AtomicBool,
    /// How long to wait.
    pub timeouts: Timeouts,
    /// Where the conversation is shown.
    pub log: Arc<Log>,
    /// Which process this is.
    pub process: Arc<Process>,
}

impl Bridge {
    /// Resolves the bridge's name, which may block; nothing later does.
    pub(crate) fn new(options: BridgeOptions) -> Result<Self> {
        Ok(Bridge {
            places: options.sam.resolve()?,
            udp_places: resolve_udp(&options.udp)?,
            text: options.sam_text,
            udp: options.udp_text,
            credentials: options.credentials,
            range: options.versions,
            may_lower: options.may_lower,
            lowered: AtomicBool::new(false),
            timeouts: options.timeouts,
            log: Arc::default(),
            process: Arc::default(),
        })
    }

    /// The bridge's address as it was given.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The bridge's datagram endpoint, HOST:PORT.
    pub fn udp_text(&self) -> &str {
        &self.udp
    }

    /// Every address of the bridge's datagram endpoint.
    pub fn udp_places(&self) -> &[SocketAddr] {
        &self.udp_places
    }

    /// Every address of the bridge, to be tried in this order.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// User and password.
    pub fn credentials(&self) -> Option<&Credentials> {
        self.credentials.as_ref()
    }

    /// Versions to ask for now.
    pub fn range(&self) -> VersionRange {
        let min = if self.lowered.load(Ordering::Relaxed) { Version::V3_0 } else { self.range.min };
        VersionRange { min, max: self.range.max }
    }

    /// The bridge knows none of the versions: whether asking for older ones is worth another try.
    pub fn lower(&self, asked: VersionRange) -> bool {
        let lower = self.may_lower && asked.min > Version::V3_0;
        if lower {
            self.lowered.store(true, Ordering::Relaxed);
        }
        lower
    }

    /// The error for a bridge that cannot be reached.
    pub fn unreachable(&self, error: &std::io::Error) -> Error {
        let mut result = Error::io(Operation::Handshake, &format!("no SAM bridge at {}", self.text), error);
        if matches!(error.raw_os_error(), Some(libc::ECONNREFUSED | libc::ENOENT)) {
            result.message =
                format!("no SAM bridge at {}: is the router running and SAM enabled? ({error})", self.text);
        }
        result
    }

    /// Calls in a child made by fork(2) would disturb the parent.
    pub fn check_process(&self) -> Result<()> {
        self.process.check()
    }
}

fn resolve_udp(endpoint: &Endpoint) -> Result<Vec<SocketAddr>> {
    let address = |place| match place {
        Place::Tcp(address) => Some(address),
        Place::Unix(_) => None,
    };
    Ok(endpoint.resolve()?.into_iter().filter_map(address).collect())
}
