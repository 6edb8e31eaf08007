//! Options of a tunnel.

use std::time::Duration;

use crate::core::settings::dest::DestOptions;
use crate::core::settings::options::{Options, Owner};
use crate::error::Result;
use crate::protocol::style::Style;

/// How long a connection may last in a tunnel without a destination of its own.
const LIFE: Duration = Duration::from_secs(60);

/// What a tunnel with a destination of its own is opened with.
pub struct TunnelOptions {
    /// Limits of its connections.
    pub limits: Limits,
    /// The address a client listens on with a bare port.
    pub(crate) bind: Option<String>,
    pub(crate) dest: DestOptions,
}

/// Limits of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time; those above wait.
    pub connections: usize,
    /// How long one may last, whatever it does.
    pub life: Option<Duration>,
    /// How long one may last without a byte.
    pub idle: Option<Duration>,
    /// Bytes of one direction that may be on their way.
    pub buffer: usize,
    /// Whether bytes may stay in the kernel.
    pub splice: bool,
}

impl TunnelOptions {
    /// Reads and checks the options of a tunnel and of its destination.
    pub fn parse(options: &Options) -> Result<Self> {
        options.check_owner(Owner::Tunnel)?;
        let mut dest = options.only(Owner::Destination);
        if dest.flag("recover").is_none() {
            // A tunnel is to outlive the router, with a name or without.
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
    /// Reads and checks the options of a tunnel without a destination of its own.
    pub(crate) fn parse(options: &Options) -> Result<Self> {
        options.check_owner(Owner::Tunnel)?;
        options.check_none(Owner::Destination)?;
        Ok(Limits::read(options, Some(LIFE)))
    }

    /// `life` unless the options say something else.
    fn read(options: &Options, life: Option<Duration>) -> Self {
        let time = |key: &str, default: Option<Duration>| match options.text(key) {
            None => default,
            Some("-1") => None,
            Some(_) => options.duration(key),
        };
        Limits {
            // -1 is no number of connections.
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
        // Its own are nothing that a second open of the destination would have to have.
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
