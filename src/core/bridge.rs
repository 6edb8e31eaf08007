//! Where the SAM bridge is, how to speak to it, and how long to wait for it.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::core::log::Log;
use crate::core::options::Options;
use crate::error::{Error, Operation, Result, Status};
pub use crate::protocol::command::Credentials;
use crate::protocol::{Version, VersionRange};
use crate::sys::{ForkGuard, Place};

/// Default address of a SAM bridge.
pub const DEFAULT_SAM: &str = "127.0.0.1:7656";
/// Default port of a bridge.
const SAM_PORT: u16 = 7656;
/// Default port for datagrams.
const UDP_PORT: u16 = 7655;

/// A host and port, or a path, as a user writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A name or address, and a port.
    Host(String, u16),
    /// A unix domain socket.
    Unix(PathBuf),
}

impl Endpoint {
    /// Reads `host`, `host:port`, `1.2.3.4:port`, `[::1]:port`, `::1`, `/path` or `unix:path`.
    pub fn parse(text: &str, default_port: u16) -> Result<Endpoint> {
        Endpoint::parse_any(text, default_port, false)
    }

    /// The same with a port, which may be 0: any that is free.
    pub fn parse_local(text: &str) -> Result<Endpoint> {
        Endpoint::parse_any(text, 0, true)
    }

    fn parse_any(text: &str, default_port: u16, any_port: bool) -> Result<Endpoint> {
        let shown = crate::protocol::line::excerpt(text.as_bytes(), 100);
        let wrong = |why: &str| Error::invalid(format!("\"{shown}\" is no HOST:PORT, [IPV6]:PORT or /PATH: {why}"));
        if let Some(path) = text.strip_prefix("unix:").or_else(|| text.starts_with('/').then_some(text)) {
            // The system's own limit for the path of a socket.
            if path.is_empty() || path.len() > 107 || path.contains('\0') {
                return Err(wrong("the path is empty or too long"));
            }
            return Ok(Endpoint::Unix(PathBuf::from(path)));
        }
        if text.parse::<IpAddr>().is_ok() {
            return Ok(Endpoint::Host(text.to_owned(), default_port));
        }
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, after) = rest.split_once(']').ok_or_else(|| wrong("] is missing"))?;
                host.parse::<std::net::Ipv6Addr>().map_err(|_| wrong("no IPv6 address in []"))?;
                (host, after.strip_prefix(':').or(after.is_empty().then_some("")))
            }
            None => match text.rsplit_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, Some("")),
            },
        };
        let port = match port {
            Some("") if !text.ends_with(':') => default_port,
            Some("0") if any_port => 0,
            Some(digits) => parse_port(digits).ok_or_else(|| wrong("the port is not 1 to 65535"))?,
            None => return Err(wrong("text after ]")),
        };
        if host.is_empty() || host.bytes().any(|b| b <= b' ' || b == 0x7f || (b == b':' && !text.starts_with('['))) {
            return Err(wrong("the host is empty or has spaces, control characters or colons"));
        }
        Ok(Endpoint::Host(host.to_owned(), port))
    }

    /// Its addresses; may block.
    pub fn resolve(&self) -> Result<Vec<Place>> {
        let (host, port) = match self {
            Endpoint::Unix(path) => return Ok(vec![Place::Unix(path.clone())]),
            Endpoint::Host(host, port) => (host.as_str(), *port),
        };
        let found = (host, port)
            .to_socket_addrs()
            .map_err(|error| Error::io(Operation::Handshake, &format!("the host {host} cannot be resolved"), &error))?;
        let mut places: Vec<Place> = Vec::new();
        for address in found.map(Place::Tcp) {
            if !places.contains(&address) {
                places.push(address);
            }
        }
        Ok(places)
    }
}

fn parse_port(digits: &str) -> Option<u16> {
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten().filter(|port| *port != 0)
}

/// How long each step of speaking to the bridge may take; `None` is for ever.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// TCP connection to the bridge.
    pub tcp: Option<Duration>,
    /// Answer to HELLO.
    pub hello: Option<Duration>,
    /// DEST GENERATE.
    pub generate: Option<Duration>,
    /// NAMING LOOKUP.
    pub lookup: Option<Duration>,
    /// SESSION CREATE: tunnels are built in that time.
    pub open: Option<Duration>,
    /// STREAM CONNECT.
    pub connect: Option<Duration>,
    /// STREAM ACCEPT: a peer may come in days.
    pub accept: Option<Duration>,
}

impl Deadlines {
    fn from_options(options: &Options) -> Self {
        let all = options.duration("sam_timeout");
        let pick = |key, default| Some(options.duration(key).or(all).unwrap_or(Duration::from_secs(default)));
        Deadlines {
            tcp: pick("tcp_timeout", 10),
            hello: pick("hello_timeout", 30),
            generate: pick("generate_timeout", 30),
            lookup: pick("lookup_timeout", 120),
            open: pick("open_timeout", 300),
            connect: pick("connect_timeout", 120),
            // Waiting for a peer is not waiting for the bridge.
            accept: options.duration("accept_timeout"),
        }
    }
}

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
    pub deadlines: Deadlines,
    /// Where the conversation is shown.
    pub log: Log,
    /// Which process this is.
    pub fork: ForkGuard,
}

impl Bridge {
    /// Reads the options and resolves the bridge's name, which may block; nothing later does.
    pub fn new(options: &Options) -> Result<Self> {
        let text = options.text("sam").unwrap_or(DEFAULT_SAM).to_owned();
        let endpoint = Endpoint::parse(&text, SAM_PORT)?;
        let udp = match options.text("udp") {
            Some(text) => match Endpoint::parse(text, UDP_PORT)? {
                Endpoint::Unix(_) => return Err(Error::invalid("option udp wants HOST:PORT")),
                Endpoint::Host(host, port) => join(&host, port),
            },
            None => match &endpoint {
                Endpoint::Host(host, _) => join(host, UDP_PORT),
                Endpoint::Unix(_) => join("127.0.0.1", UDP_PORT),
            },
        };
        let (range, may_lower) = options.versions()?;
        let credentials = options.credentials()?;
        Ok(Bridge {
            places: endpoint.resolve()?,
            udp_places: resolve_udp(&udp)?,
            text,
            udp,
            credentials,
            range,
            may_lower,
            lowered: AtomicBool::new(false),
            deadlines: Deadlines::from_options(options),
            log: Log::default(),
            fork: ForkGuard::new(),
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
        if self.fork.in_child() {
            return Err(Error::new(
                Status::State,
                Operation::None,
                "this handle was made before fork(2): in the child it can only be freed",
            ));
        }
        Ok(())
    }
}

fn resolve_udp(text: &str) -> Result<Vec<SocketAddr>> {
    let places = Endpoint::parse(text, UDP_PORT)?.resolve()?;
    let address = |place| match place {
        Place::Tcp(address) => Some(address),
        Place::Unix(_) => None,
    };
    Ok(places.into_iter().filter_map(address).collect())
}

fn join(host: &str, port: u16) -> String {
    match host.parse::<std::net::Ipv6Addr>() {
        Ok(v6) => SocketAddr::from((v6, port)).to_string(),
        Err(_) => format!("{host}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        let host = |h: &str, p| Endpoint::Host(h.to_owned(), p);
        for (text, expected) in [
            ("127.0.0.1:7656", host("127.0.0.1", 7656)),
            ("127.0.0.1", host("127.0.0.1", 7656)),
            ("localhost:1", host("localhost", 1)),
            ("localhost", host("localhost", 7656)),
            ("[::1]:65535", host("::1", 65535)),
            ("[::1]", host("::1", 7656)),
            ("::1", host("::1", 7656)),
            ("/run/sam", Endpoint::Unix("/run/sam".into())),
            ("unix:sam", Endpoint::Unix("sam".into())),
        ] {
            assert_eq!(Endpoint::parse(text, 7656).unwrap(), expected, "{text}");
        }
        for text in
            ["", ":1", "a:", "a:0", "a:65536", "a:+1", "a b:1", "[::1]x", "[::1]:", "[::1", "[a]:1", "a:b:1", "a\n:1"]
        {
            assert!(Endpoint::parse(text, 7656).is_err(), "{text:?}");
        }
    }

    #[test]
    fn one_timeout_for_all_or_one_for_each() {
        let mut options = Options::default();
        let defaults = Deadlines::from_options(&options);
        assert_eq!((defaults.open, defaults.accept), (Some(Duration::from_secs(300)), None));
        options.set("sam_timeout", "60000").unwrap();
        options.set("open_timeout", "90000").unwrap();
        let set = Deadlines::from_options(&options);
        assert_eq!(set.open, Some(Duration::from_secs(90)));
        for one in [set.tcp, set.hello, set.generate, set.lookup, set.connect] {
            assert_eq!(one, Some(Duration::from_secs(60)));
        }
        assert_eq!(set.accept, None);
    }
}
