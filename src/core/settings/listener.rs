//! Options for opening a listener.

use crate::core::settings::options::{Options, Owner};
use crate::error::{Error, Result};

/// How a listener gets its streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ListenerOptions {
    /// By STREAM ACCEPT, with this many accepts at a time.
    Accept(usize),
    /// By STREAM FORWARD: the router connects to a loopback port for each stream.
    Forward,
}

impl Default for ListenerOptions {
    fn default() -> Self {
        ListenerOptions::Accept(1)
    }
}

impl ListenerOptions {
    pub(crate) fn parse(options: &Options) -> Result<Self> {
        options.check_owner(Owner::Listener)?;
        match (options.flag("stream_forward"), options.number("accepts")) {
            (Some(true), Some(_)) => Err(Error::invalid("options accepts and stream_forward exclude each other")),
            (Some(true), None) => Ok(ListenerOptions::Forward),
            (_, Some(accepts)) => Ok(ListenerOptions::Accept(accepts)),
            (_, None) => Ok(ListenerOptions::default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::settings::testing::options;

    #[test]
    fn accepts_or_a_port() {
        for (entries, wanted) in [
            (&[][..], ListenerOptions::Accept(1)),
            (&[("accepts", "64")], ListenerOptions::Accept(64)),
            (&[("stream_forward", "1")], ListenerOptions::Forward),
            (&[("stream_forward", "0")], ListenerOptions::Accept(1)),
            (&[("stream_forward", "0"), ("accepts", "2")], ListenerOptions::Accept(2)),
        ] {
            assert_eq!(ListenerOptions::parse(&options(entries)).unwrap(), wanted, "{entries:?}");
        }
        let both = ListenerOptions::parse(&options(&[("accepts", "1"), ("stream_forward", "1")])).unwrap_err();
        assert_eq!(both.message, "options accepts and stream_forward exclude each other");
        let wrong = ListenerOptions::parse(&options(&[("to_port", "1")])).unwrap_err();
        assert_eq!(wrong.message, "option to_port is not for a listener");
    }
}
