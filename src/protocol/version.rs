//! Protocol versions.

use std::fmt;

/// A protocol version, such as 3.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Always 3 in what this library speaks.
    pub major: u16,
    /// 0 to 3 today.
    pub minor: u16,
}

impl Version {
    /// The first: stream, datagram and raw sessions.
    pub const V3_0: Version = Version { major: 3, minor: 0 };
    /// Adds SIGNATURE_TYPE.
    pub const V3_1: Version = Version { major: 3, minor: 1 };
    /// Adds ports, authentication, PING.
    pub const V3_2: Version = Version { major: 3, minor: 2 };
    /// Adds PRIMARY sessions. The newest.
    pub const V3_3: Version = Version { major: 3, minor: 3 };

    /// Reads `x.y`.
    pub fn parse(text: &str) -> Option<Version> {
        let (major, minor) = text.split_once('.')?;
        let number = |digits: &str| {
            let plain = !digits.is_empty() && digits.len() <= 3 && digits.bytes().all(|b| b.is_ascii_digit());
            plain.then(|| digits.parse().ok()).flatten()
        };
        Some(Version { major: number(major)?, minor: number(minor)? })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// What is asked for in HELLO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionRange {
    /// MIN.
    pub min: Version,
    /// MAX.
    pub max: Version,
}

impl VersionRange {
    /// Whether a bridge's answer may be used.
    pub fn allows(&self, version: Version) -> bool {
        version.major == 3 && self.min <= version && version <= self.max
    }
}
