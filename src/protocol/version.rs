//! SAM protocol versions and their negotiation.

use std::fmt;

/// A SAM protocol version, such as 3.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Always 3 in the versions this library speaks.
    pub major: u16,
    /// 0 to 3 today.
    pub minor: u16,
}

impl Version {
    /// The first version: stream, datagram and raw sessions.
    pub const V3_0: Version = Version { major: 3, minor: 0 };
    /// Adds SIGNATURE_TYPE.
    pub const V3_1: Version = Version { major: 3, minor: 1 };
    /// Adds ports, authentication, PING.
    pub const V3_2: Version = Version { major: 3, minor: 2 };
    /// Adds PRIMARY sessions. The newest version.
    pub const V3_3: Version = Version { major: 3, minor: 3 };

    /// Parses `x.y`.
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

/// The versions offered in HELLO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionRange {
    /// MIN, the oldest version we accept.
    pub min: Version,
    /// MAX, the newest version we accept.
    pub max: Version,
}

impl VersionRange {
    /// Whether the version a bridge answered with is acceptable.
    pub fn allows(&self, version: Version) -> bool {
        version.major == 3 && self.min <= version && version <= self.max
    }
}
