//! What a bridge is told before it starts.

use crate::faults::FaultConfig;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// Which router's habits the bridge shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Personality {
    /// Java I2P: the most complete and most forgiving one.
    #[default]
    Java,
    /// i2pd 2.45, as in Debian 12: protocol 3.0 and 3.1.
    I2pd245,
    /// i2pd 2.58: protocol 3.0 to 3.3.
    I2pd258,
    /// emissary: always answers 3.2, silent about what it does not understand.
    Emissary,
}

impl Personality {
    /// All of them, for tests that run once per router.
    pub const ALL: [Self; 4] = [Self::Java, Self::I2pd245, Self::I2pd258, Self::Emissary];

    /// The name used on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Java => "java",
            Self::I2pd245 => "i2pd-2.45",
            Self::I2pd258 => "i2pd-2.58",
            Self::Emissary => "emissary",
        }
    }

    pub(crate) fn is_i2pd(self) -> bool {
        matches!(self, Self::I2pd245 | Self::I2pd258)
    }
}

impl fmt::Display for Personality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Personality {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|p| p.name() == text).ok_or_else(|| format!("unknown personality {text:?}"))
    }
}

/// A protocol version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Before the dot.
    pub major: u8,
    /// After the dot.
    pub minor: u8,
}

impl Version {
    /// 3.0
    pub const V3_0: Self = Self { major: 3, minor: 0 };
    /// 3.1
    pub const V3_1: Self = Self { major: 3, minor: 1 };
    /// 3.2
    pub const V3_2: Self = Self { major: 3, minor: 2 };
    /// 3.3
    pub const V3_3: Self = Self { major: 3, minor: 3 };
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for Version {
    type Err = String;

    /// Takes `x.y` and a bare `x`, which means `x.0`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (major, minor) = text.split_once('.').unwrap_or((text, "0"));
        let number = |part: &str| part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse().ok()).flatten();
        match (number(major), number(minor)) {
            (Some(major), Some(minor)) => Ok(Self { major, minor }),
            _ => Err(format!("bad version {text:?}")),
        }
    }
}

/// How to start a bridge. `Config::default()` is a quick, well-behaved bridge on a free port.
#[derive(Clone, Debug)]
pub struct Config {
    /// TCP port on 127.0.0.1; 0 picks a free one.
    pub port: u16,
    /// Where clients send datagrams: the UDP port on 127.0.0.1. 0 picks a free one; on i2pd that is the TCP port
    /// minus one, if it is free.
    pub udp_port: u16,
    /// Listen on the same ports of ::1 too, without which no datagrams can be forwarded to IPv6 addresses.
    pub ipv6: bool,
    /// Listen on this unix socket too. The path must not exist; the bridge removes it when it stops.
    pub unix: Option<PathBuf>,
    /// Whose habits to show.
    pub personality: Personality,
    /// The highest version to negotiate, where the personality would go higher.
    pub max_version: Version,
    /// Ask for this user and password in HELLO. Only [`Personality::Java`] does.
    pub auth: Option<(String, String)>,
    /// How long SESSION CREATE takes, as tunnels would.
    pub build_delay: Duration,
    /// Host names and their base64 destinations.
    pub hosts: Vec<(String, String)>,
    /// Send PING on sockets idle for this long, and drop them when the exact PONG does not come within the
    /// same time. Only [`Personality::Java`] at 3.2 or above does; `None` (the default) never.
    pub idle_ping: Option<Duration>,
    /// How long a stream waits for an ACCEPT. `None`: 3 seconds on Java, except where nobody has ever accepted, when it
    /// fails at once; 10 seconds on i2pd, 60 on emissary.
    pub park: Option<Duration>,
    /// How long a closed destination is kept. A session with the same keys is answered OK at once in this time, gets what
    /// was kept, and is dead for good when the time is over, although its control socket stays open; streams that are
    /// open then prolong it. Only i2pd does, for 5 seconds unless said otherwise here; zero is not at all.
    pub keep_closed: Option<Duration>,
    /// How long a stream's socket stays open after the other side has closed, so that a slow reader gets
    /// all bytes although it still writes.
    pub linger: Duration,
    /// How long a connection may take to its HELLO and (emissary) to a session. `None`: 60 seconds on Java,
    /// 10 on emissary, unlimited on i2pd.
    pub command_timeout: Option<Duration>,
    /// How long CONNECT to an unknown destination takes to fail.
    pub unreachable_delay: Duration,
    /// Write all lines to standard error, private keys and passwords left out.
    pub verbose: bool,
    /// Faults to begin with.
    pub faults: FaultConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            port: 0,
            udp_port: 0,
            ipv6: false,
            unix: None,
            personality: Personality::Java,
            max_version: Version::V3_3,
            auth: None,
            build_delay: Duration::ZERO,
            hosts: Vec::new(),
            idle_ping: None,
            park: None,
            keep_closed: None,
            linger: Duration::from_secs(5),
            command_timeout: None,
            unreachable_delay: Duration::ZERO,
            verbose: false,
            faults: FaultConfig::default(),
        }
    }
}

impl Config {
    /// The defaults with another personality.
    pub fn with_personality(personality: Personality) -> Self {
        Self { personality, ..Self::default() }
    }

    pub(crate) fn park_time(&self) -> Duration {
        self.park.unwrap_or(Duration::from_secs(match self.personality {
            Personality::Java => 3,
            Personality::I2pd245 | Personality::I2pd258 => 10,
            Personality::Emissary => 60,
        }))
    }

    pub(crate) fn keep_time(&self) -> Duration {
        match self.personality.is_i2pd() {
            true => self.keep_closed.unwrap_or(Duration::from_secs(5)),
            false => Duration::ZERO,
        }
    }

    pub(crate) fn first_command_time(&self) -> Option<Duration> {
        self.command_timeout.or(match self.personality {
            Personality::Java => Some(Duration::from_secs(60)),
            Personality::Emissary => Some(Duration::from_secs(10)),
            Personality::I2pd245 | Personality::I2pd258 => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_per_router() {
        let times = |config: fn(Personality) -> Config| {
            Personality::ALL.map(config).map(|config| (config.park_time().as_secs(), config.keep_time().as_secs()))
        };
        assert_eq!(times(Config::with_personality), [(3, 0), (10, 5), (10, 5), (60, 0)]);
        let given = times(|personality| {
            let time = Some(Duration::from_secs(7));
            Config { park: time, keep_closed: time, ..Config::with_personality(personality) }
        });
        assert_eq!(given, [(7, 0), (7, 7), (7, 7), (7, 0)]);
    }
}
