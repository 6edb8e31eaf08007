//! Options for opening a tunnel.

use std::time::Duration;

use crate::core::settings::dest::DestOptions;
use crate::core::settings::options::{Options, Owner};
use crate::error::Result;
use crate::protocol::style::Style;

/// Default lifetime of a connection in a tunnel without its own destination.
const LIFE: Duration = Duration::from_secs(60);

/// The parsed options of a tunnel with its own destination.
pub struct TunnelOptions {
    /// Limits on its connections.
    pub limits: Limits,
    /// The address a client tunnel listens on if it is given a bare port.
    pub(crate) bind: Option<String>,
    pub(crate) dest: DestOptions,
}

/// Limits on a tunnel's connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Maximum number of connections at a time; further ones wait.
    pub connections: usize,
    /// How long a connection may last, active or not.
    pub life: Option<Duration>,
    /// How long a connection may stay without moving a byte.
    pub idle: Option<Duration>,
    /// Bytes that may be in transit in one direction.
    pub buffer: usize,
    /// Whether to keep bytes in the kernel with splice(2), if possible.
    pub splice: bool,
}

impl TunnelOptions {
    /// Parses the options of a tunnel together with those of its destination.
    pub fn parse(options: &Options) -> Result<Self> {
        options.check_owner(Owner::Tunnel)?;
        let mut dest = options.only(Owner::Destination);
        if dest.flag("recover").is_none() {
            // A tunnel should survive a restart of the router, named or not.
            dest.set("recover", "1")?;
        }
        Ok(TunnelOptions {
            limits: Limits::read(options, None),
            bind: options.text("bind").map(str::to_owned),
            dest: DestOptions::parse(Style::Stream, &dest)?,
        })
    }
}

impl Limits {
    /// Parses the options of a tunnel without its own destination.
    pub(crate) fn parse(options: &Options) -> Result<Self> {
        options.check_owner(Owner::Tunnel)?;
        options.check_none(Owner::Destination)?;
        Ok(Limits::read(options, Some(LIFE)))
    }

    /// `life` is the default lifetime.
    fn read(options: &Options, life: Option<Duration>) -> Self {
        let time = |key: &str, default: Option<Duration>| match options.text(key) {
            None => default,
            Some("-1") => None,
            Some(_) => options.duration(key),
        };
        Limits {
            // -1 does not parse as usize, so it means no limit.
            connections: options.number("nconnect").unwrap_or(usize::MAX),
            life: time("timeout", life),
            idle: time("idle_timeout", None),
            buffer: options.number("buffer_size").unwrap_or(1 << 17),
            splice: options.flag("splice").unwrap_or(true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::settings::testing::options;

    const NONE: Limits = Limits { connections: usize::MAX, life: None, idle: None, buffer: 1 << 17, splice: true };

    #[test]
    fn limits() {
        for (entries, wanted) in [
            (&[][..], NONE),
            (&[("nconnect", "-1"), ("timeout", "-1"), ("idle_timeout", "-1")], NONE),
            (
                &[("nconnect", "3"), ("timeout", "5"), ("idle_timeout", "6"), ("buffer_size", "7"), ("splice", "0")],
                Limits {
                    connections: 3,
                    life: Some(Duration::from_millis(5)),
                    idle: Some(Duration::from_millis(6)),
                    buffer: 7,
                    splice: false,
                },
            ),
        ] {
            assert_eq!(TunnelOptions::parse(&options(entries)).unwrap().limits, wanted, "{entries:?}");
            let alone = Limits::parse(&options(entries)).unwrap();
            assert_eq!(alone, Limits { life: if entries.is_empty() { Some(LIFE) } else { wanted.life }, ..wanted });
        }
    }

    #[test]
    fn a_tunnel_has_the_options_of_its_destination() {
        let set = options(&[("in_depth", "1"), ("nconnect", "1"), ("i2cp.gzip", "false"), ("bind", "::1")]);
        let tunnel = TunnelOptions::parse(&set).unwrap();
        assert_eq!((tunnel.bind.as_deref(), tunnel.dest.style), (Some("::1"), Style::Stream));
        assert_eq!((tunnel.dest.in_depth, tunnel.dest.router().count()), (Some(1), 1));
        // The tunnel's own options do not matter for sharing its destination.
        let plain = options(&[("in_depth", "1"), ("i2cp.gzip", "false")]);
        let plain = DestOptions::parse(Style::Stream, &plain).unwrap();
        assert!(plain.check_shareable("a", &tunnel.dest).is_ok());
        assert!(tunnel.dest.recovers(false));
        assert!(!TunnelOptions::parse(&options(&[("recover", "0")])).unwrap().dest.recovers(true));
        for (key, message) in
            [("accepts", "option accepts is not for a tunnel"), ("forward", "option forward is not for streams")]
        {
            assert_eq!(TunnelOptions::parse(&options(&[(key, "1")])).err().unwrap().message, message);
        }
    }

    #[test]
    fn options_of_a_destination_are_for_tunnels_that_have_one() {
        for key in ["recover", "i2cp.gzip"] {
            let wrong = Limits::parse(&options(&[(key, "1")])).unwrap_err();
            assert_eq!(wrong.message, format!("option {key} is for a destination"));
        }
    }
}
