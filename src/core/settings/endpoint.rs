//! Addresses to connect to or listen on, as users write them.

use std::net::{IpAddr, ToSocketAddrs};
use std::path::PathBuf;

use crate::error::{Error, Operation, Result};
use crate::sys::lock::assert_none_held;
use crate::sys::Place;

/// A host and port or a path, as users write it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// A host name or IP address, and a port.
    Host(String, u16),
    Unix(PathBuf),
}

impl Endpoint {
    /// Parses `host`, `host:port`, `1.2.3.4:port`, `[::1]:port`, `::1`, `/path` or `unix:path`.
    pub(crate) fn parse(text: &str, default_port: u16) -> Result<Endpoint> {
        Endpoint::parse_any(text, default_port, false)
    }

    /// Like [`Endpoint::parse`], but a port of 0 is allowed and means any free one, which is also the default.
    pub(crate) fn parse_local(text: &str) -> Result<Endpoint> {
        Endpoint::parse_any(text, 0, true)
    }

    fn parse_any(text: &str, default_port: u16, any_port: bool) -> Result<Endpoint> {
        let shown = crate::protocol::line::excerpt(text.as_bytes(), 100);
        let wrong = |why: &str| Error::invalid(format!("\"{shown}\" is no HOST:PORT, [IPV6]:PORT or /PATH: {why}"));
        if let Some(path) = text.strip_prefix("unix:").or_else(|| text.starts_with('/').then_some(text)) {
            // The system's own limit for socket paths.
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

    /// Resolves it to addresses; may block.
    pub(crate) fn resolve(&self) -> Result<Vec<Place>> {
        let (host, port) = match self {
            Endpoint::Unix(path) => return Ok(vec![Place::Unix(path.clone())]),
            Endpoint::Host(host, port) => (host.as_str(), *port),
        };
        assert_none_held("the resolution of a name");
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
}
