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
    /// How long opening is tried again while there is no router.
    pub bridge: Option<Duration>,
    /// Silence after which the router is asked for a sign of life; `None` if it is never asked.
    pub heartbeat: Option<Duration>,
    /// How long the router has to be left alone between two sessions of the same keys, unless it is known to let go of
    /// the first one at once.
    pub reopen: Option<Duration>,
}

impl Timeouts {
    pub(super) fn read(options: &Options) -> Self {
        let all = options.duration("sam_timeout");
        let pick = |key, default| Some(options.duration(key).or(all).unwrap_or(Duration::from_secs(default)));
        // 0 turns these off.
        let positive = |key, default| {
            let time = options.duration(key).unwrap_or(Duration::from_millis(default));
            (!time.is_zero()).then_some(time)
        };
        Timeouts {
            tcp: pick("tcp_timeout", 10),
            hello: pick("hello_timeout", 30),
            generate: pick("generate_timeout", 30),
            lookup: pick("lookup_timeout", 120),
            open: pick("open_timeout", 300),
            connect: pick("connect_timeout", 120),
            // Not limited by sam_timeout: this waits for a peer, not for the bridge.
            accept: options.duration("accept_timeout"),
            bridge: positive("bridge_timeout", 0),
            heartbeat: positive("heartbeat", 60_000),
            reopen: positive("reopen_delay", 6_500),
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
        assert_eq!((set.bridge, set.heartbeat, set.reopen), (defaults.bridge, defaults.heartbeat, defaults.reopen));
    }

    #[test]
    fn what_a_zero_turns_off() {
        let read = |entries| {
            let set = Timeouts::read(&crate::core::settings::testing::options(entries));
            [set.bridge, set.heartbeat, set.reopen].map(|time| time.map(|time| time.as_millis()))
        };
        assert_eq!(read(&[]), [None, Some(60_000), Some(6_500)]);
        assert_eq!(
            read(&[("bridge_timeout", "9"), ("heartbeat", "8"), ("reopen_delay", "7")]),
            [Some(9), Some(8), Some(7)]
        );
        assert_eq!(read(&[("bridge_timeout", "0"), ("heartbeat", "0"), ("reopen_delay", "0")]), [None; 3]);
    }
}
