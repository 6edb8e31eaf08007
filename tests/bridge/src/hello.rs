//! HELLO: version negotiation and authentication.

use crate::config::{Config, Personality, Version};
use crate::line::Command;
use crate::shared::{lock, Shared};

/// The answer to a HELLO.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The reply line and the version it means.
    Accept(String, Version),
    /// The reply line, then close.
    Refuse(String),
    /// Close without a word.
    Close,
    /// Not a word, and the connection stays open.
    Silence,
}

pub(crate) fn answer(shared: &Shared, command: &Command) -> Answer {
    let config = &shared.config;
    match config.personality {
        Personality::Java => java(shared, command),
        Personality::I2pd245 => i2pd_245(config, command),
        Personality::I2pd258 => i2pd_258(config, command),
        Personality::Emissary => emissary(config, command),
    }
}

fn accept(version: Version) -> Answer {
    Answer::Accept(format!("HELLO REPLY RESULT=OK VERSION={version}\n"), version)
}

fn no_version() -> Answer {
    Answer::Refuse("HELLO REPLY RESULT=NOVERSION\n".to_string())
}

fn error(message: &str) -> Answer {
    Answer::Refuse(format!("HELLO REPLY RESULT=I2P_ERROR MESSAGE=\"{message}\"\n"))
}

fn java(shared: &Shared, command: &Command) -> Answer {
    if !command.is("HELLO", "VERSION") {
        return error("Must start with HELLO VERSION");
    }
    if let Some(message) = command.error {
        return error(message);
    }
    let cap = shared.config.max_version;
    let parse = |key| command.get(key).map(str::parse::<Version>).transpose();
    let (Ok(min), Ok(max)) = (parse("MIN"), parse("MAX")) else {
        return error("Bad version number");
    };
    let version = max.unwrap_or(cap).min(cap);
    if version < min.unwrap_or(Version::V3_0) || version.major < 3 {
        return no_version();
    }
    let state = lock(&shared.state);
    if state.auth {
        let right = match (command.get("USER"), command.get("PASSWORD")) {
            (Some(user), Some(password)) => state.users.get(user).is_some_and(|known| known == password),
            _ => false,
        };
        if !right {
            return error("Authorization failed");
        }
    }
    accept(version)
}

/// Everything above 3.1 makes it answer MIN.
fn i2pd_245(config: &Config, command: &Command) -> Answer {
    if !command.is("HELLO", "VERSION") {
        return Answer::Close;
    }
    let cap = config.max_version.min(Version::V3_1);
    // Exactly three characters: `3` and quoted versions are not acceptable.
    let acceptable = |key, default| {
        let text = command.get(key).unwrap_or(default);
        text.parse::<Version>().ok().filter(|v| text.len() == 3 && *v >= Version::V3_0 && *v <= cap)
    };
    match acceptable("MAX", "3.1").or(acceptable("MIN", "3.0")) {
        Some(version) => accept(version),
        None => no_version(),
    }
}

/// Reads only the digits of a version, so that `3` is 0.3.
fn i2pd_258(config: &Config, command: &Command) -> Answer {
    if !command.is("HELLO", "VERSION") {
        return Answer::Close;
    }
    let digits = |key| {
        let mut value = 0u32;
        for c in command.get(key)?.bytes().filter(u8::is_ascii_digit) {
            value = value.saturating_mul(10).saturating_add(u32::from(c - b'0'));
        }
        Some(value)
    };
    let cap = u32::from(config.max_version.major) * 10 + u32::from(config.max_version.minor);
    let chosen = match (digits("MIN"), digits("MAX")) {
        (None, None) => 30,
        (_, Some(max)) if max <= cap => max,
        (Some(min), _) if min <= cap => min,
        _ => return no_version(),
    };
    accept(Version { major: (chosen / 10) as u8, minor: (chosen % 10) as u8 })
}

/// Answers 3.2 whatever is asked for, except 3.1 when that is the MAX.
fn emissary(config: &Config, command: &Command) -> Answer {
    if !command.is("HELLO", "VERSION") {
        return Answer::Silence;
    }
    let wanted = match command.get("MAX") {
        Some("3.1") => Version::V3_1,
        _ => Version::V3_2,
    };
    accept(wanted.min(config.max_version))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::line::parse;
    use crate::udp::Udp;

    fn ask(personality: Personality, line: &str) -> Option<String> {
        let shared = Shared::new(Config::with_personality(personality), Udp::default());
        match answer(&shared, &parse(line, personality)) {
            Answer::Accept(_, version) => Some(version.to_string()),
            Answer::Refuse(text) => Some(text.trim_end().to_string()),
            Answer::Close => Some("close".to_string()),
            Answer::Silence => None,
        }
    }

    #[test]
    fn version_table() {
        const NONE: &str = "HELLO REPLY RESULT=NOVERSION";
        let table = [
            ("MIN=3.1 MAX=3.3", ["3.3", "3.1", "3.3", "3.2"]),
            ("MIN=3.0 MAX=3.3", ["3.3", "3.0", "3.3", "3.2"]),
            ("MIN=3.1 MAX=3.1", ["3.1", "3.1", "3.1", "3.1"]),
            ("MIN=3.2 MAX=3.3", ["3.3", NONE, "3.3", "3.2"]),
            ("MIN=3.3 MAX=3.3", ["3.3", NONE, "3.3", "3.2"]),
            ("MIN=3 MAX=3", ["3.0", NONE, "0.3", "3.2"]),
            ("MIN=3.1 MAX=99.9", ["3.3", "3.1", "3.1", "3.2"]),
            ("MIN=3.4 MAX=3.9", [NONE, NONE, NONE, "3.2"]),
        ];
        for (range, wanted) in table {
            for (personality, wanted) in Personality::ALL.into_iter().zip(wanted) {
                let got = ask(personality, &format!("HELLO VERSION {range}"));
                assert_eq!(got.as_deref(), Some(wanted), "{personality} {range}");
            }
        }
        for (personality, wanted) in Personality::ALL.into_iter().zip(["3.3", "3.1", "3.0", "3.2"]) {
            assert_eq!(ask(personality, "HELLO VERSION").as_deref(), Some(wanted));
        }
    }

    #[test]
    fn what_is_no_hello() {
        assert!(ask(Personality::Java, "NAMING LOOKUP").is_some_and(|a| a.contains("I2P_ERROR")));
        assert_eq!(ask(Personality::I2pd245, "hello version").as_deref(), Some("close"));
        assert_eq!(ask(Personality::I2pd258, "HELLO").as_deref(), Some("close"));
        assert_eq!(ask(Personality::Emissary, "HELLO"), None);
    }
}
