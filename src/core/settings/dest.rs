//! Options for opening a destination.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::core::settings::options::{Entries, Options, Owner};
use crate::error::{Error, Operation, Result, Status};
use crate::protocol::command::{check_keys, check_signature_type, RouterOption};
use crate::protocol::ports::Ports;
use crate::protocol::request::NewIdentity;
use crate::protocol::style::Style;

/// The default signature type.
pub(crate) const ED25519: u16 = 7;

pub(crate) struct DestOptions {
    pub style: Style,
    /// The keys, or the signature type of new ones, if the program asked for specific ones.
    pub identity: Option<NewIdentity>,
    /// How the router labels the session.
    pub nickname: Option<String>,
    /// Number of hops of the tunnels.
    pub in_depth: Option<u8>,
    pub out_depth: Option<u8>,
    /// Default I2CP ports of the session.
    pub ports: Ports,
    /// `None` for style STREAM.
    pub datagrams: Option<DatagramOptions>,
    recover: Option<bool>,
    given: Entries,
}

/// Options that only datagram styles have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DatagramOptions {
    /// Where the bridge is to send datagrams; port 0 means any free one.
    pub forward: Option<SocketAddr>,
    /// Whether datagrams travel over the control socket.
    pub in_band: bool,
    /// What the router takes of one there, with the line before it, if that is not the usual.
    pub in_band_max: Option<usize>,
    /// I2CP protocol number; raw only.
    pub protocol: Option<u8>,
    /// Whether to ask the bridge for a header; raw only.
    pub raw_header: bool,
    /// Whether the program asserts that the router accepts options in the header.
    pub header_options: bool,
    /// Whether the bridge may send from a port other than the one it listens on.
    pub any_source_port: bool,
    /// Another address the bridge sends from.
    pub udp_source: Option<IpAddr>,
    /// Whether a datagram that is not from the bridge is reported as an error instead of being dropped.
    pub report_source: bool,
}

impl DestOptions {
    pub(crate) fn parse(style: Style, options: &Options) -> Result<Self> {
        options.check_owner(Owner::Destination)?;
        Ok(DestOptions {
            style,
            identity: identity(options)?,
            datagrams: DatagramOptions::read(style, options)?,
            nickname: options.text("nickname").map(str::to_owned),
            in_depth: options.number("in_depth"),
            out_depth: options.number("out_depth"),
            ports: options.ports(),
            recover: options.flag("recover"),
            given: options.entries(),
        })
    }

    /// Whether a lost session is reopened. By default, only if the destination is named.
    pub(crate) fn recovers(&self, named: bool) -> bool {
        self.recover.unwrap_or(named)
    }

    /// The options for the router, in the order they were set.
    pub(crate) fn router(&self) -> impl Iterator<Item = &RouterOption> {
        self.given.router()
    }

    /// Fails unless the destination `name`, which is open with these options, is what `wanted` asks for: the same
    /// style, and the same value for every option in `wanted`.
    pub(crate) fn check_shareable(&self, name: &str, wanted: &DestOptions) -> Result<()> {
        let state = |message| Err(Error::new(Status::State, Operation::Create, message));
        if self.style != wanted.style {
            return state(format!(
                "destination \"{name}\" is open with style {}, and a destination has one style at a time",
                self.style.word()
            ));
        }
        let has = |entry: &RouterOption| match entry.0.as_str() {
            // Compare the effective values, as the default counts too. A shared destination always has a name.
            "recover" => self.recovers(true) == wanted.recovers(true),
            // Checked against the keys instead.
            "signature_type" => true,
            _ => self.given.iter().any(|known| known == entry),
        };
        match wanted.given.iter().find(|entry| !has(entry)) {
            Some((key, _)) => state(format!("destination \"{name}\" is open with another value of option {key}")),
            None => Ok(()),
        }
    }
}

impl DatagramOptions {
    fn read(style: Style, options: &Options) -> Result<Option<Self>> {
        check_style(style, options)?;
        if style == Style::Stream {
            return Ok(None);
        }
        let protocol = match options.number("protocol") {
            Some(6 | 17 | 19 | 20) => {
                return Err(Error::invalid("protocols 6, 17, 19 and 20 belong to streams and datagrams"))
            }
            other => other,
        };
        let flag = |key| options.flag(key).unwrap_or(false);
        let in_band = flag("in_band");
        if in_band && !matches!(style, Style::Datagram | Style::Raw) {
            let message = format!("SAM has no {} on the control socket (option in_band)", style.word());
            return Err(Error::new(Status::Unsupported, Operation::Create, message));
        }
        let forward = options.text("forward");
        if in_band && forward.is_some() {
            return Err(Error::invalid("options forward and in_band exclude each other"));
        }
        if !in_band && options.text("in_band_max").is_some() {
            return Err(Error::invalid("option in_band_max goes with in_band=1"));
        }
        Ok(Some(DatagramOptions {
            forward: forward.map(local_end).transpose()?,
            in_band,
            in_band_max: options.number("in_band_max"),
            protocol,
            raw_header: flag("raw_header"),
            header_options: flag("header_options"),
            any_source_port: flag("any_source_port"),
            udp_source: options.text("udp_source").map(source).transpose()?,
            report_source: flag("report_source"),
        }))
    }
}

/// Rejects options that a destination of `style` does not have.
fn check_style(style: Style, options: &Options) -> Result<()> {
    let (foreign, whose): (&[&str], _) = match style {
        Style::Stream => (
            &[
                "forward",
                "in_band",
                "in_band_max",
                "protocol",
                "raw_header",
                "header_options",
                "any_source_port",
                "udp_source",
                "report_source",
            ],
            "not for streams",
        ),
        Style::Raw => (&[], ""),
        Style::Datagram | Style::Datagram2 | Style::Datagram3 => (&["protocol", "raw_header"], "for raw datagrams"),
    };
    match foreign.iter().find(|name| options.text(name).is_some()) {
        Some(name) => Err(Error::invalid(format!("option {name} is {whose}"))),
        None => Ok(()),
    }
}

/// Parses a local port, or HOST:PORT.
fn local_end(text: &str) -> Result<SocketAddr> {
    let wrong = || Error::invalid("option forward wants a port or HOST:PORT, HOST being an IP address of this machine");
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port))).map_err(|_| wrong());
    }
    let address: SocketAddr = text.parse().map_err(|_| wrong())?;
    // The router has to be given one specific address.
    match address.ip().is_unspecified() {
        true => Err(wrong()),
        false => Ok(address),
    }
}

/// Parses an address datagrams come from: a number, as names are not resolved while a destination is opened.
fn source(text: &str) -> Result<IpAddr> {
    let address: Option<IpAddr> = text.parse().ok();
    address.filter(|ip| !ip.is_unspecified()).ok_or_else(|| Error::invalid("option udp_source wants an IP address"))
}

fn identity(options: &Options) -> Result<Option<NewIdentity>> {
    let keys = options.keys();
    if let Some(signature_type) = options.number("signature_type") {
        check_signature_type(signature_type)?;
        if keys.is_some() {
            return Err(Error::invalid("option signature_type is for new keys, and keys are given"));
        }
        return Ok(Some(NewIdentity::Transient(signature_type)));
    }
    let Some(keys) = keys else { return Ok(None) };
    check_keys(keys)?;
    Ok(Some(NewIdentity::Keys(keys.duplicate())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::settings::testing::options;
    use crate::identity::Keys;

    const STYLES: [Style; 5] = [Style::Stream, Style::Datagram, Style::Raw, Style::Datagram2, Style::Datagram3];

    fn parse(style: Style, entries: &[(&str, &str)]) -> Result<DestOptions> {
        DestOptions::parse(style, &options(entries))
    }

    fn error(style: Style, entries: &[(&str, &str)]) -> Error {
        parse(style, entries).err().unwrap()
    }

    fn datagrams(style: Style, entries: &[(&str, &str)]) -> DatagramOptions {
        parse(style, entries).unwrap().datagrams.unwrap()
    }

    /// Ed25519 keys that are only valid in form; `mark` makes them distinct.
    fn keys(mark: u8) -> Keys {
        let address = [&[mark; 384][..], &[5, 0, 4, 0, 7, 0, 0]].concat();
        Keys::from_bytes(&[&address[..], &[1; 256 + 32]].concat()).unwrap()
    }

    #[test]
    fn what_is_set() {
        let dest = parse(
            Style::Stream,
            &[("b.x", "1"), ("nickname", "n"), ("in_depth", "0"), ("from_port", "1"), ("a.x", "2")],
        )
        .unwrap();
        assert_eq!((dest.style, dest.nickname.as_deref()), (Style::Stream, Some("n")));
        assert_eq!((dest.in_depth, dest.out_depth), (Some(0), None));
        assert_eq!(dest.ports, Ports { from: Some(1), to: None });
        assert!(dest.identity.is_none() && dest.datagrams.is_none());
        let router: Vec<_> = dest.router().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(router, [("b.x", "1"), ("a.x", "2")]);
        assert_eq!(error(Style::Stream, &[("accepts", "1")]).message, "option accepts is not for a destination");
    }

    #[test]
    fn a_name_makes_it_recover_unless_it_is_told_otherwise() {
        for (entries, named, unnamed) in
            [(&[][..], true, false), (&[("recover", "0")], false, false), (&[("recover", "1")], true, true)]
        {
            let dest = parse(Style::Stream, entries).unwrap();
            assert_eq!((dest.recovers(true), dest.recovers(false)), (named, unnamed), "{entries:?}");
        }
    }

    #[test]
    fn signature_types() {
        for known in [0, 1, 2, 3, 7, 11] {
            let identity = parse(Style::Raw, &[("signature_type", &known.to_string())]).unwrap().identity;
            assert!(matches!(identity, Some(NewIdentity::Transient(found)) if found == known));
        }
        for unknown in ["4", "5", "6", "8", "9", "10", "12", "65535"] {
            assert_eq!(error(Style::Stream, &[("signature_type", unknown)]).status, Status::Invalid, "{unknown}");
        }
        let mut both = options(&[("signature_type", "7")]);
        both.set_keys(Some(&keys(1)));
        let error = DestOptions::parse(Style::Stream, &both).err().unwrap();
        assert_eq!(error.message, "option signature_type is for new keys, and keys are given");
        let mut given = options(&[]);
        given.set_keys(Some(&keys(1)));
        let identity = DestOptions::parse(Style::Stream, &given).unwrap().identity;
        assert!(matches!(identity, Some(NewIdentity::Keys(found)) if found.bytes() == keys(1).bytes()));
        // The byte of the certificate that says Ed25519ph, which is as long.
        let mut other = keys(1).bytes().to_vec();
        other[388] = 8;
        given.set_keys(Some(&Keys::from_bytes(&other).unwrap()));
        let error = DestOptions::parse(Style::Stream, &given).err().unwrap();
        assert_eq!((error.status, &error.message[..16]), (Status::Invalid, "signature type 8"));
    }

    #[test]
    fn options_of_datagrams() {
        for style in STYLES {
            for (key, streams, raw_alone) in [
                ("forward", false, false),
                ("in_band", false, false),
                ("protocol", false, true),
                ("raw_header", false, true),
                ("header_options", false, false),
                ("any_source_port", false, false),
                ("report_source", false, false),
                ("to_port", true, false),
            ] {
                let wanted = match style {
                    Style::Stream if !streams => Some(format!("option {key} is not for streams")),
                    Style::Datagram | Style::Datagram2 | Style::Datagram3 if raw_alone => {
                        Some(format!("option {key} is for raw datagrams"))
                    }
                    Style::Datagram2 | Style::Datagram3 if key == "in_band" => {
                        Some(format!("SAM has no {} on the control socket (option in_band)", style.word()))
                    }
                    _ => None,
                };
                assert_eq!(parse(style, &[(key, "1")]).err().map(|error| error.message), wanted, "{style:?}");
            }
        }
        assert_eq!(datagrams(Style::Datagram2, &[]), DatagramOptions::default());
        let all = datagrams(
            Style::Raw,
            &[
                ("in_band", "1"),
                ("in_band_max", "20000"),
                ("protocol", "18"),
                ("raw_header", "1"),
                ("header_options", "1"),
                ("any_source_port", "1"),
                ("udp_source", "192.0.2.1"),
                ("report_source", "1"),
            ],
        );
        let wanted = DatagramOptions {
            forward: None,
            in_band: true,
            in_band_max: Some(20000),
            protocol: Some(18),
            raw_header: true,
            header_options: true,
            any_source_port: true,
            udp_source: Some(IpAddr::from([192, 0, 2, 1])),
            report_source: true,
        };
        assert_eq!(all, wanted);
        for text in ["", "router", "127.0.0.1:7655", "[::1]", "0.0.0.0", "::", "1.2.3.4 "] {
            let set =
                Options::default().set("udp_source", text).and_then(|()| parse(Style::Raw, &[("udp_source", text)]));
            assert_eq!(set.err().map(|error| error.status), Some(Status::Invalid), "{text}");
        }
        assert_eq!(datagrams(Style::Datagram, &[("udp_source", "::1")]).udp_source, "::1".parse().ok());
        assert_eq!(error(Style::Stream, &[("udp_source", "::1")]).message, "option udp_source is not for streams");
        assert_eq!(error(Style::Datagram3, &[("in_band", "1")]).status, Status::Unsupported);
        assert_eq!(datagrams(Style::Datagram3, &[("in_band", "0")]), DatagramOptions::default());
        let both = error(Style::Raw, &[("in_band", "1"), ("forward", "nonsense")]);
        assert_eq!(both.message, "options forward and in_band exclude each other");
        for set in [&[("in_band_max", "9000")][..], &[("in_band_max", "9000"), ("in_band", "0")]] {
            assert_eq!(error(Style::Raw, set).message, "option in_band_max goes with in_band=1");
        }
        assert_eq!(error(Style::Stream, &[("in_band_max", "1")]).message, "option in_band_max is not for streams");
        for number in ["6", "17", "19", "20"] {
            assert_eq!(error(Style::Raw, &[("protocol", number)]).status, Status::Invalid, "{number}");
        }
    }

    #[test]
    fn where_datagrams_are_sent_to() {
        for (text, wanted) in [
            ("0", "127.0.0.1:0"),
            ("65535", "127.0.0.1:65535"),
            ("192.0.2.1:5", "192.0.2.1:5"),
            ("[::1]:5", "[::1]:5"),
            ("127.0.0.1:0", "127.0.0.1:0"),
        ] {
            let found = datagrams(Style::Raw, &[("forward", text)]).forward;
            assert_eq!(found.map(|address| address.to_string()).as_deref(), Some(wanted));
        }
        // A name may have several addresses, but the router is given one.
        for text in ["65536", "-1", "127.0.0.1", "localhost:5", "[::1]", ":5", " 5", "0.0.0.0:5", "[::]:5"] {
            assert_eq!(error(Style::Datagram, &[("forward", text)]).status, Status::Invalid, "{text}");
        }
    }

    #[test]
    fn what_a_second_open_of_a_name_may_ask_for() {
        let first = parse(Style::Stream, &[("in_depth", "2"), ("a.b", "c"), ("signature_type", "7")]).unwrap();
        let check = |style, entries: &[(&str, &str)]| {
            first.check_shareable("alice", &parse(style, entries).unwrap()).map_err(|error| error.message)
        };
        for good in [
            &[][..],
            &[("in_depth", "2")],
            &[("a.b", "c"), ("recover", "1")],
            // The type is checked against the keys instead.
            &[("signature_type", "11")],
        ] {
            assert_eq!(check(Style::Stream, good), Ok(()), "{good:?}");
        }
        for (wrong, key) in [
            (&[("in_depth", "3")][..], "in_depth"),
            (&[("in_depth", "2"), ("out_depth", "3"), ("recover", "0")], "out_depth"),
            (&[("a.b", "d")], "a.b"),
            (&[("recover", "0"), ("a.b", "d")], "recover"),
        ] {
            let message = format!("destination \"alice\" is open with another value of option {key}");
            assert_eq!(check(Style::Stream, wrong), Err(message));
        }
        let message = "destination \"alice\" is open with style STREAM, and a destination has one style at a time";
        assert_eq!(check(Style::Raw, &[("in_depth", "3")]), Err(message.to_owned()));
        let fleeting = parse(Style::Stream, &[("recover", "0")]).unwrap();
        assert!(fleeting.check_shareable("a", &parse(Style::Stream, &[]).unwrap()).is_ok());
        assert!(fleeting.check_shareable("a", &parse(Style::Stream, &[("recover", "0")]).unwrap()).is_ok());
        assert!(fleeting.check_shareable("a", &parse(Style::Stream, &[("recover", "1")]).unwrap()).is_err());
    }
}
