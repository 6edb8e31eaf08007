//! Time limits for the bridge.

use std::time::Duration;

use crate::core::settings::options::Options;

/// Time limits for the steps of talking to the bridge; `None` means no limit.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// Connecting to the bridge.
    pub tcp: Option<Duration>,
    /// The answer to HELLO.
    pub hello: Option<Duration>,
    pub generate: Option<Duration>,
    pub lookup: Option<Duration>,
    /// SESSION CREATE, which includes building tunnels.
    pub open: Option<Duration>,
    /// STREAM CONNECT and STREAM FORWARD.
    pub connect: Option<Duration>,
    /// STREAM ACCEPT; it may take days until a peer connects.
    pub accept: Option<Duration>,
}

impl Timeouts {
    pub(super) fn read(options: &Options) -> Self {
        let all = options.duration("sam_timeout");
        let pick = |key, default| Some(options.duration(key).or(all).unwrap_or(Duration::from_secs(default)));
        Timeouts {
            tcp: pick("tcp_timeout", 10),
            hello: pick("hello_timeout", 30),
            generate: pick("generate_timeout", 30),
            lookup: pick("lookup_timeout", 120),
            open: pick("open_timeout", 300),
            connect: pick("connect_timeout", 120),
            // Not limited by sam_timeout: this waits for a peer, not for the bridge.
            accept: options.duration("accept_timeout"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_timeout_for_all_or_one_for_each() {
        let mut options = Options::default();
        let defaults = Timeouts::read(&options);
        assert_eq!((defaults.open, defaults.accept), (Some(Duration::from_secs(300)), None));
        options.set("sam_timeout", "60000").unwrap();
        options.set("open_timeout", "90000").unwrap();
        let set = Timeouts::read(&options);
        assert_eq!(set.open, Some(Duration::from_secs(90)));
        for one in [set.tcp, set.hello, set.generate, set.lookup, set.connect] {
            assert_eq!(one, Some(Duration::from_secs(60)));
        }
        assert_eq!(set.accept, None);
    }
}
