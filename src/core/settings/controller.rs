//! Options for opening a controller.

use std::net::{Ipv6Addr, SocketAddr};

use crate::core::settings::endpoint::Endpoint;
use crate::core::settings::options::{Options, Owner};
use crate::core::settings::timeouts::Timeouts;
use crate::error::{Error, Result};
use crate::protocol::credentials::Credentials;
use crate::protocol::version::{Version, VersionRange};

const DEFAULT_SAM: &str = "127.0.0.1:7656";
const SAM_PORT: u16 = 7656;
const UDP_PORT: u16 = 7655;

/// The parsed options of a controller.
pub struct ControllerOptions {
    pub(crate) bridge: BridgeOptions,
    /// Whether a background thread drives the destinations.
    pub(crate) keeper: bool,
    /// Folder with the keys of named destinations.
    pub(crate) key_store: Option<String>,
}

/// Where the bridge is, how to talk to it, and how long to wait for it.
pub(crate) struct BridgeOptions {
    pub sam: Endpoint,
    /// `sam` as the program wrote it.
    pub sam_text: String,
    /// The bridge's datagram endpoint, always a host and port.
    pub udp: Endpoint,
    /// `udp` as HOST:PORT.
    pub udp_text: String,
    pub credentials: Option<Credentials>,
    pub versions: VersionRange,
    /// Whether to fall back to 3.0 if a bridge supports none of `versions`.
    pub may_lower: bool,
    pub timeouts: Timeouts,
}

impl ControllerOptions {
    /// Fails for options that are not a controller's or contradict each other.
    pub fn parse(options: &Options) -> Result<Self> {
        options.check_owner(Owner::Controller)?;
        Ok(ControllerOptions {
            bridge: BridgeOptions::read(options)?,
            keeper: options.flag("keeper").unwrap_or(true),
            key_store: options.text("key_store").map(str::to_owned),
        })
    }
}

impl BridgeOptions {
    fn read(options: &Options) -> Result<Self> {
        let sam_text = options.text("sam").unwrap_or(DEFAULT_SAM).to_owned();
        let sam = Endpoint::parse(&sam_text, SAM_PORT)?;
        let (udp_host, udp_port) = match options.text("udp") {
            Some(text) => match Endpoint::parse(text, UDP_PORT)? {
                Endpoint::Unix(_) => return Err(Error::invalid("option udp wants HOST:PORT")),
                Endpoint::Host(host, port) => (host, port),
            },
            None => match &sam {
                Endpoint::Host(host, _) => (host.clone(), UDP_PORT),
                Endpoint::Unix(_) => ("127.0.0.1".to_owned(), UDP_PORT),
            },
        };
        let (versions, may_lower) = versions(options)?;
        Ok(BridgeOptions {
            sam,
            sam_text,
            udp_text: join(&udp_host, udp_port),
            udp: Endpoint::Host(udp_host, udp_port),
            credentials: credentials(options)?,
            versions,
            may_lower,
            timeouts: Timeouts::read(options),
        })
    }
}

/// The versions to ask for, and whether the minimum may be lowered if a bridge supports none of them.
fn versions(options: &Options) -> Result<(VersionRange, bool)> {
    let version = |key| options.text(key).and_then(Version::parse);
    let max = version("version_max").unwrap_or(Version::V3_3);
    let asked = version("version_min");
    let min = asked.unwrap_or(Version::V3_1.min(max));
    if min > max {
        return Err(Error::invalid(format!("version_min {min} is above version_max {max}")));
    }
    Ok((VersionRange { min, max }, asked.is_none() && min > Version::V3_0))
}

fn credentials(options: &Options) -> Result<Option<Credentials>> {
    match (options.text("user"), options.text("password")) {
        (None, None) => Ok(None),
        (Some(user), Some(password)) => Credentials::new(user, password).map(Some),
        _ => Err(Error::invalid("user and password come together")),
    }
}

fn join(host: &str, port: u16) -> String {
    match host.parse::<Ipv6Addr>() {
        Ok(v6) => SocketAddr::from((v6, port)).to_string(),
        Err(_) => format!("{host}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::settings::testing::options;

    fn parse(entries: &[(&str, &str)]) -> Result<ControllerOptions> {
        ControllerOptions::parse(&options(entries))
    }

    fn message(entries: &[(&str, &str)]) -> String {
        parse(entries).err().unwrap().message
    }

    #[test]
    fn defaults() {
        let ControllerOptions { bridge, keeper, key_store } = parse(&[]).unwrap();
        assert_eq!((keeper, key_store), (true, None));
        assert_eq!((bridge.sam_text.as_str(), bridge.udp_text.as_str()), ("127.0.0.1:7656", "127.0.0.1:7655"));
        assert_eq!(bridge.sam, Endpoint::Host("127.0.0.1".to_owned(), 7656));
        assert!(bridge.credentials.is_none());
        let set = parse(&[("keeper", "0"), ("key_store", "/a b")]).unwrap();
        assert_eq!((set.keeper, set.key_store.as_deref()), (false, Some("/a b")));
        assert!(parse(&[("keeper", "1")]).unwrap().keeper);
    }

    #[test]
    fn datagrams_go_to_the_host_of_the_bridge_unless_another_is_named() {
        for (entries, wanted) in [
            (&[("sam", "router:1")][..], "router:7655"),
            (&[("sam", "[::1]:1")], "[::1]:7655"),
            (&[("sam", "/run/sam")], "127.0.0.1:7655"),
            (&[("sam", "a:1"), ("udp", "b:2")], "b:2"),
            (&[("sam", "a:1"), ("udp", "b")], "b:7655"),
            (&[("udp", "[0:0::1]")], "[::1]:7655"),
        ] {
            let bridge = parse(entries).unwrap().bridge;
            assert_eq!(bridge.udp_text, wanted);
            // The text reported is the endpoint in use.
            let again = Endpoint::parse(&bridge.udp_text, 1).unwrap();
            assert_eq!(again.resolve().ok(), bridge.udp.resolve().ok());
        }
        assert_eq!(message(&[("udp", "/run/sam")]), "option udp wants HOST:PORT");
    }

    #[test]
    fn version_range() {
        let range = |entries: &[(&str, &str)]| {
            parse(entries).map(|options| (options.bridge.versions, options.bridge.may_lower))
        };
        let (default, may_lower) = range(&[]).unwrap();
        assert_eq!((default.min, default.max, may_lower), (Version::V3_1, Version::V3_3, true));
        let (old, may_lower) = range(&[("version_max", "3.0")]).unwrap();
        assert_eq!((old.min, old.max, may_lower), (Version::V3_0, Version::V3_0, false));
        let (fixed, may_lower) = range(&[("version_min", "3.2")]).unwrap();
        assert_eq!((fixed.min, fixed.max, may_lower), (Version::V3_2, Version::V3_3, false));
        let wrong = [("version_min", "3.2"), ("version_max", "3.1")];
        assert_eq!(message(&wrong), "version_min 3.2 is above version_max 3.1");
    }

    #[test]
    fn credentials_come_in_pairs() {
        assert!(parse(&[("user", "a"), ("password", "b")]).unwrap().bridge.credentials.is_some());
        for alone in ["user", "password"] {
            assert_eq!(message(&[(alone, "a")]), "user and password come together");
        }
    }

    #[test]
    fn others_options_are_refused() {
        assert_eq!(message(&[("nickname", "x")]), "option nickname is not for a controller");
        assert_eq!(message(&[("i2cp.gzip", "false")]), "option i2cp.gzip is not for a controller");
    }
}
