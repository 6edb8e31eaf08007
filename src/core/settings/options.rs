//! The options bag: the library's own settings by name, and router options (I2CP, streaming), which are passed through.
//!
//! A value is checked when it is set; combinations are checked by the struct that is parsed from the bag. Only those
//! structs read the bag, so that option names are not looked up anywhere else.

use std::time::Duration;

use crate::core::settings::endpoint::Endpoint;
use crate::error::{Error, Result};
use crate::identity::Keys;
use crate::protocol::command::{check_option, RouterOption};
use crate::protocol::ports::Ports;
use crate::protocol::version::Version;

/// The kind of call an option is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// `i2psock_controller_open`.
    Controller,
    /// `i2psock_dest_open`.
    Destination,
    /// `i2psock_dest_connect`.
    Connect,
    /// `i2psock_dgram_send_to`.
    Send,
    /// `i2psock_listener_open`.
    Listener,
    /// `i2psock_tunnel_server` and its siblings.
    Tunnel,
}

impl Owner {
    fn name(self) -> &'static str {
        match self {
            Owner::Controller => "controller",
            Owner::Destination => "destination",
            Owner::Connect => "connect",
            Owner::Send => "datagram",
            Owner::Listener => "listener",
            Owner::Tunnel => "tunnel",
        }
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Text,
    Path,
    Endpoint,
    Millis,
    Flag,
    Number(u32),
    /// A number other than 0.
    Count(u32),
    /// A number other than 0, or -1 for no limit.
    CountOrNone,
    /// Milliseconds other than 0, or -1 for no limit.
    MillisOrNone,
    Version,
    Label,
}

/// All of the library's own options: name, owners, kind of value.
const KNOWN: [(&str, &[Owner], Kind); 47] = [
    ("sam", &[Owner::Controller], Kind::Endpoint),
    ("udp", &[Owner::Controller], Kind::Endpoint),
    ("user", &[Owner::Controller], Kind::Text),
    ("password", &[Owner::Controller], Kind::Text),
    ("version_min", &[Owner::Controller], Kind::Version),
    ("version_max", &[Owner::Controller], Kind::Version),
    ("sam_timeout", &[Owner::Controller], Kind::Millis),
    ("tcp_timeout", &[Owner::Controller], Kind::Millis),
    ("hello_timeout", &[Owner::Controller], Kind::Millis),
    ("generate_timeout", &[Owner::Controller], Kind::Millis),
    ("lookup_timeout", &[Owner::Controller], Kind::Millis),
    ("open_timeout", &[Owner::Controller], Kind::Millis),
    ("connect_timeout", &[Owner::Controller], Kind::Millis),
    ("accept_timeout", &[Owner::Controller], Kind::Millis),
    ("bridge_timeout", &[Owner::Controller], Kind::Millis),
    ("heartbeat", &[Owner::Controller], Kind::Millis),
    ("reopen_delay", &[Owner::Controller], Kind::Millis),
    ("keeper", &[Owner::Controller], Kind::Flag),
    ("key_store", &[Owner::Controller], Kind::Path),
    ("nickname", &[Owner::Destination], Kind::Label),
    ("in_depth", &[Owner::Destination], Kind::Number(7)),
    ("out_depth", &[Owner::Destination], Kind::Number(7)),
    ("signature_type", &[Owner::Destination], Kind::Number(65535)),
    ("recover", &[Owner::Destination], Kind::Flag),
    ("from_port", &[Owner::Destination, Owner::Connect, Owner::Send], Kind::Number(65535)),
    ("to_port", &[Owner::Destination, Owner::Connect, Owner::Send], Kind::Number(65535)),
    ("forward", &[Owner::Destination], Kind::Text),
    ("in_band", &[Owner::Destination], Kind::Flag),
    ("in_band_max", &[Owner::Destination], Kind::Count(1 << 17)),
    ("protocol", &[Owner::Destination, Owner::Send], Kind::Number(255)),
    ("raw_header", &[Owner::Destination], Kind::Flag),
    ("header_options", &[Owner::Destination], Kind::Flag),
    ("any_source_port", &[Owner::Destination], Kind::Flag),
    ("udp_source", &[Owner::Destination], Kind::Text),
    ("report_source", &[Owner::Destination], Kind::Flag),
    ("send_tags", &[Owner::Send], Kind::Number(65535)),
    ("tag_threshold", &[Owner::Send], Kind::Number(65535)),
    ("expires", &[Owner::Send], Kind::Number(86400)),
    ("send_leaseset", &[Owner::Send], Kind::Flag),
    ("accepts", &[Owner::Listener], Kind::Count(64)),
    ("stream_forward", &[Owner::Listener], Kind::Flag),
    ("nconnect", &[Owner::Tunnel], Kind::CountOrNone),
    ("timeout", &[Owner::Tunnel], Kind::MillisOrNone),
    ("idle_timeout", &[Owner::Tunnel], Kind::MillisOrNone),
    ("buffer_size", &[Owner::Tunnel], Kind::Count(1 << 20)),
    ("bind", &[Owner::Tunnel], Kind::Text),
    ("splice", &[Owner::Tunnel], Kind::Flag),
];

/// Names and values as they were set. A value may be a password or a key for the router, so all of them are wiped.
#[derive(Default)]
pub(super) struct Entries(Vec<RouterOption>);

impl Entries {
    pub(super) fn iter(&self) -> std::slice::Iter<'_, RouterOption> {
        self.0.iter()
    }

    /// The options for the router, in the order they were set.
    pub(super) fn router(&self) -> impl Iterator<Item = &RouterOption> {
        self.iter().filter(|(key, _)| is_router_option(key))
    }
}

/// Options collected for a later call, as names and values.
#[derive(Default)]
pub struct Options {
    entries: Entries,
    keys: Option<Keys>,
}

/// Stands in for a caller that passes no options.
pub(crate) static NONE: Options = Options { entries: Entries(Vec::new()), keys: None };

/// Router options have a dot or a capital letter in their key; this library's own have neither.
fn is_router_option(key: &str) -> bool {
    key.contains('.') || key.bytes().any(|b| b.is_ascii_uppercase())
}

impl Options {
    /// Sets `key`, replacing any earlier value.
    pub fn set(&mut self, key: &str, value: &str) -> Result<()> {
        if is_router_option(key) {
            check_option(key, value)?;
        } else {
            check_own(key, value)?;
        }
        let entries = &mut self.entries.0;
        match entries.iter_mut().find(|(known, _)| known == key) {
            Some((_, old)) => *old = value.into(),
            None => entries.push((key.to_owned(), value.into())),
        }
        Ok(())
    }

    /// Sets the private keys of a destination; `None` removes them.
    pub fn set_keys(&mut self, keys: Option<&Keys>) {
        self.keys = keys.map(Keys::duplicate);
    }

    pub(super) fn entries(&self) -> Entries {
        Entries(self.entries.0.clone())
    }

    pub(super) fn keys(&self) -> Option<&Keys> {
        self.keys.as_ref()
    }

    /// Rejects options that are not for `owner`.
    pub(super) fn check_owner(&self, owner: Owner) -> Result<()> {
        for (key, _) in self.entries.iter() {
            let fits = match known(key) {
                // A tunnel takes its destination's options too.
                Some((_, owners, _)) => {
                    owners.contains(&owner) || (owner == Owner::Tunnel && owners.contains(&Owner::Destination))
                }
                None => matches!(owner, Owner::Destination | Owner::Connect | Owner::Tunnel),
            };
            if !fits {
                return Err(Error::invalid(format!("option {key} is not for a {}", owner.name())));
            }
        }
        if self.keys.is_some() && !matches!(owner, Owner::Destination | Owner::Tunnel) {
            return Err(Error::invalid(format!("private keys are not for a {}", owner.name())));
        }
        Ok(())
    }

    /// Rejects options for `owner`, and private keys.
    pub(super) fn check_none(&self, owner: Owner) -> Result<()> {
        match self.of(owner).next() {
            Some((key, _)) => Err(Error::invalid(format!("option {key} is for a {}", owner.name()))),
            None if self.keys.is_some() => Err(Error::invalid("private keys are for a destination")),
            None => Ok(()),
        }
    }

    /// A copy with only the options for `owner`.
    pub(super) fn only(&self, owner: Owner) -> Self {
        let entries = Entries(self.of(owner).cloned().collect());
        Options { entries, keys: self.keys.as_ref().map(Keys::duplicate) }
    }

    fn of(&self, owner: Owner) -> impl Iterator<Item = &RouterOption> {
        self.entries.iter().filter(move |(key, _)| known(key).is_none_or(|(_, owners, _)| owners.contains(&owner)))
    }

    pub(super) fn text(&self, key: &str) -> Option<&str> {
        debug_assert!(known(key).is_some(), "{key} is not in the table");
        self.entries.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    /// Cannot fail to parse, as it was checked when it was set.
    pub(super) fn number<T: std::str::FromStr>(&self, key: &str) -> Option<T> {
        self.text(key).and_then(|text| text.parse().ok())
    }

    pub(super) fn flag(&self, key: &str) -> Option<bool> {
        self.text(key).map(|text| text == "1")
    }

    pub(super) fn duration(&self, key: &str) -> Option<Duration> {
        self.number(key).map(Duration::from_millis)
    }

    pub(super) fn ports(&self) -> Ports {
        Ports { from: self.number("from_port"), to: self.number("to_port") }
    }

    /// A copy of the options for the router, in the order they were set.
    pub(super) fn router_options(&self) -> Vec<RouterOption> {
        self.entries.router().cloned().collect()
    }
}

fn known(key: &str) -> Option<&'static (&'static str, &'static [Owner], Kind)> {
    KNOWN.iter().find(|(name, ..)| *name == key)
}

fn check_own(key: &str, value: &str) -> Result<()> {
    let Some((_, _, kind)) = known(key) else {
        let shown = crate::protocol::line::excerpt(key.as_bytes(), 40);
        return Err(Error::invalid(format!(
            "there is no option \"{shown}\" (router options have a dot in their name)"
        )));
    };
    let number = |limit: u32| {
        !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) && value.parse().is_ok_and(|n: u32| n <= limit)
    };
    let (good, wanted) = match kind {
        Kind::Text => {
            (!value.is_empty() && !value.chars().any(char::is_control), "text without control characters".into())
        }
        Kind::Path => (!value.is_empty() && !value.contains('\0'), "the path of a folder".into()),
        Kind::Endpoint => return Endpoint::parse(value, 1).map(drop),
        Kind::Millis => (number(i32::MAX as u32), "milliseconds, 0 to 2147483647".into()),
        Kind::Flag => (matches!(value, "0" | "1"), "0 or 1".into()),
        Kind::Number(limit) => (number(*limit), format!("a number from 0 to {limit}")),
        Kind::Count(limit) => (number(*limit) && value != "0", format!("a number from 1 to {limit}")),
        Kind::CountOrNone => {
            (value == "-1" || (number(i32::MAX as u32) && value != "0"), "a number from 1, or -1 for no limit".into())
        }
        Kind::MillisOrNone => (
            value == "-1" || (number(i32::MAX as u32) && value != "0"),
            "milliseconds from 1, or -1 for no limit".into(),
        ),
        Kind::Version => {
            let known = Version::parse(value).is_some_and(|v| (Version::V3_0..=Version::V3_3).contains(&v));
            (known, "a version from 3.0 to 3.3".into())
        }
        Kind::Label => {
            let plain = check_option("inbound.nickname", value).is_ok() && value.len() <= 64;
            (plain, "1 to 64 printable ASCII characters without space, quote and backslash".into())
        }
    };
    if good {
        return Ok(());
    }
    Err(Error::invalid(format!("option {key} wants {wanted}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::settings::testing::options;

    #[test]
    fn wrong_names_and_values_are_refused_at_once() {
        let mut options = Options::default();
        for (key, value) in [
            ("nick", "x"),
            ("", "x"),
            ("nickname", "a b"),
            ("nickname", ""),
            ("nickname", "a\"b"),
            ("nickname", "a\\b"),
            ("nickname", "a\nb"),
            ("nickname", "é"),
            ("in_depth", "8"),
            ("in_depth", "-1"),
            ("in_depth", "+1"),
            ("from_port", "65536"),
            ("sam_timeout", "1.5"),
            ("keeper", "yes"),
            ("key_store", ""),
            ("key_store", "a\0b"),
            ("version_max", "3"),
            ("version_max", "3.4"),
            ("version_max", "2.9"),
            ("user", "a\nb"),
            ("inbound.length", "1 2"),
            ("STYLE", "RAW"),
            ("in.bad=x", "1"),
        ] {
            assert!(options.set(key, value).is_err(), "{key}={value:?}");
        }
        assert_eq!(options.entries.iter().count(), 0);
    }

    #[test]
    fn options_have_owners() {
        let dest = options(&[("nickname", "x"), ("inbound.length", "1"), ("explicitPeers", "a,b")]);
        assert!(dest.check_owner(Owner::Destination).is_ok());
        assert!(dest.check_owner(Owner::Controller).is_err());
        assert!(options(&[("sam", "localhost:7656")]).check_owner(Owner::Destination).is_err());
        assert!(options(&[("key_store", "/a\tb ä")]).check_owner(Owner::Controller).is_ok());
        assert!(options(&[("key_store", "x")]).check_owner(Owner::Destination).is_err());
        assert!(options(&[("to_port", "1")]).check_owner(Owner::Connect).is_ok());
        assert!(options(&[("i2p.streaming.connectTimeout", "1")]).check_owner(Owner::Controller).is_err());
    }

    #[test]
    fn later_values_replace_earlier_ones() {
        let both = options(&[("in_depth", "1"), ("in_depth", "2"), ("inbound.length", "1"), ("inbound.length", "3")]);
        assert_eq!(both.number::<u32>("in_depth"), Some(2));
        assert_eq!(both.router_options(), [("inbound.length".to_owned(), "3".into())]);
    }
}
