//! What a text can be where an address is expected: a destination, a host name, a b32 or a b33 address.

use crate::error::{Error, Result};
use crate::identity::address::{Address, MIN_LEN};
use crate::identity::b33::{B32_SUFFIX, B33};
use crate::identity::encoding::base32_decode;
use crate::identity::written::{self, Written, SUFFIX};

/// Number of characters of a b32 address before the suffix.
const B32_LEN: usize = 52;
/// Minimum number of characters of a b33 address before the suffix.
const B33_MIN_LEN: usize = 56;
/// Longest host name we put into a command.
const HOST_MAX_LEN: usize = 255;

/// An address given by the caller, validated so that nothing in it can break a SAM command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A complete destination; needs no lookup.
    Destination(Address),
    /// A name for the router's address book, in lower case, ending in `.i2p`.
    Host(String),
    /// The hash of a destination, to be looked up.
    B32 {
        /// 52 characters in lower case and `.b32.i2p`.
        address: String,
        /// The decoded characters.
        hash: [u8; 32],
    },
    /// The key of an encrypted lease set.
    B33(B33),
}

impl Target {
    /// Detects the kind of address and validates it. A text with a dot is a name, one without is a destination: base64
    /// has no dots. What people put around an address is left out where the meaning is certain.
    ///
    /// The word `ME` is not an address; callers that allow it check for it first.
    pub fn parse(text: &str) -> Result<Self> {
        let Written { address, surplus } = written::read(text, base64_len_without_padding(MIN_LEN));
        let target = Target::parse_bare(&address)?;
        match (surplus, &target) {
            (None, _) => Ok(target),
            (Some(surplus), Target::Destination(_)) => {
                Err(Error::invalid(format!("{surplus}: write the base64 alone")))
            }
            (Some(surplus), name) => Err(Error::invalid(format!("{surplus}: write {}", name.wire()))),
        }
    }

    fn parse_bare(text: &str) -> Result<Self> {
        if text.contains('.') {
            return Target::parse_name(text);
        }
        if text.len() >= base64_len_without_padding(MIN_LEN) {
            return Address::parse(text).map(Target::Destination);
        }
        let suffixed = format!("{text}{B32_SUFFIX}");
        Err(Error::invalid(match Target::parse_name(&suffixed) {
            Ok(Target::B32 { address, .. }) => format!("not an address; did you mean {address}?"),
            Ok(Target::B33(b33)) => format!("not an address; did you mean {}?", b33.address()),
            _ => "not an address: neither a base64 destination nor a name that ends in .i2p".to_owned(),
        }))
    }

    fn parse_name(text: &str) -> Result<Self> {
        if text.split_once('=').is_some_and(|(name, _)| name.to_ascii_lowercase().ends_with(SUFFIX)) {
            return Err(Error::invalid("a line of an address book: write the name, or what is behind the `=`, alone"));
        }
        if text.chars().any(char::is_whitespace) {
            return Err(Error::invalid("there is white space in the host name"));
        }
        if text.chars().any(|c| !c.is_ascii() && c.is_alphanumeric()) {
            return Err(Error::invalid("an international host name has to be written in ASCII, as \"xn--...\""));
        }
        if !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_')) {
            return Err(Error::invalid("a host name has only A-Z a-z 0-9 . - _"));
        }
        let name = text.to_ascii_lowercase();
        if let Some(label) = name.strip_suffix(B32_SUFFIX) {
            return match label.len() {
                B32_LEN => {
                    let hash = base32_decode(label)?
                        .try_into()
                        .map_err(|_| Error::invalid("a b32 address stands for 32 bytes"))?;
                    Ok(Target::B32 { address: name, hash })
                }
                B33_MIN_LEN.. => B33::parse(&name).map(Target::B33),
                len => Err(Error::invalid(format!(
                    "*.b32.i2p is reserved for {B32_LEN} or at least {B33_MIN_LEN} base32 characters, here are {len}"
                ))),
            };
        }
        match name.strip_suffix(SUFFIX) {
            Some("") => Err(Error::invalid("the host name is empty")),
            Some("b32") => Err(Error::invalid("b32.i2p is reserved")),
            Some(_) if name.len() > HOST_MAX_LEN => {
                Err(Error::invalid(format!("a host name has at most {HOST_MAX_LEN} characters")))
            }
            Some(_) => Ok(Target::Host(name)),
            None => Err(Error::invalid("a host name of I2P ends in .i2p")),
        }
    }

    /// The exact text to send in a command.
    pub fn wire(&self) -> &str {
        match self {
            Target::Destination(address) => address.base64(),
            Target::Host(name) => name,
            Target::B32 { address, .. } => address,
            Target::B33(b33) => b33.address(),
        }
    }
}

fn base64_len_without_padding(bytes: usize) -> usize {
    (bytes * 4).div_ceil(3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::encoding::base32_encode;

    const B32: &str = "ql7q5wm6qgh5fbbkcjfyegod6ngo6vikto6fvczcdmoudehvciua";

    #[test]
    fn names() {
        let long = format!("{}.i2p", "a".repeat(251));
        for (given, wire) in [("Example.I2P", "example.i2p"), ("a-b_c.d.i2p", "a-b_c.d.i2p"), (&long, &long)] {
            let target = Target::parse(given).unwrap();
            assert_eq!(target, Target::Host(wire.to_owned()));
            assert_eq!(target.wire(), wire);
        }
        let too_long = format!("{}.i2p", "a".repeat(252));
        let refused = ["", "ME", "i2p", ".i2p", "x", "example.com", "i2p.", "a.i2p..", "a.i2p ", " a.i2p", "a b.i2p"];
        let broken = ["a.i2p\n\n", "a\0.i2p", "a=b.i2p", "\"a\".i2p", "http://", "a\n.i2p", "a.i2p:80", "ä.i2p"];
        for text in refused.into_iter().chain(broken).chain([too_long.as_str()]) {
            assert!(Target::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn as_people_write_them() {
        let base64 =
            Address::from_bytes(&[&[1; 384][..], &[5, 0, 4, 0, 7, 0, 0]].concat()).unwrap().base64().to_owned();
        for text in ["Stats.i2p.", "stats.i2p\n", "http://stats.i2p/", "stats.i2p:0", "STATS.I2P/"] {
            assert_eq!(Target::parse(text).unwrap().wire(), "stats.i2p", "{text:?}");
        }
        for text in [format!("{B32}.b32.i2p."), format!("http://{B32}.B32.I2P/"), format!("{B32}.b32.i2p:0")] {
            assert_eq!(Target::parse(&text).unwrap().wire(), format!("{B32}.b32.i2p"), "{text:?}");
        }
        for text in [format!("{base64}.i2p"), format!("{base64}\r\n"), base64.replace('=', "%3D") + ".I2P"] {
            assert_eq!(Target::parse(&text).unwrap().wire(), base64, "{text:?}");
        }
    }

    #[test]
    fn what_is_refused_is_told_with_what_to_write() {
        let base64 =
            Address::from_bytes(&[&[1; 384][..], &[5, 0, 4, 0, 7, 0, 0]].concat()).unwrap().base64().to_owned();
        for (text, told) in [
            ("stats.i2p:80".to_owned(), "it goes into option to_port: write stats.i2p"),
            ("https://Stats.i2p/".to_owned(), "an address has no scheme: write stats.i2p"),
            ("http://stats.i2p/cgi?a=b".to_owned(), "an address has no path: write stats.i2p"),
            (format!("http://{base64}.i2p/a"), "an address has no path: write the base64 alone"),
            ("example.com:80".to_owned(), "ends in .i2p"),
            ("bücher.i2p".to_owned(), "\"xn--...\""),
            (format!("stats.i2p={base64}"), "write the name, or what is behind the `=`, alone"),
            (format!("{base64}=.i2p"), "not I2P base64: the padding is wrong"),
            (base64.replace('=', ""), ""),
            (base64.replacen('A', "+", 1), "standard base64"),
            (base64.replacen('A', " ", 1), "white space"),
            ("a b.i2p".to_owned(), "white space"),
        ] {
            match Target::parse(&text) {
                Ok(_) => assert_eq!(told, "", "{text}"),
                Err(error) => {
                    assert!(!told.is_empty() && error.message.contains(told), "{text:?}: {}", error.message);
                    assert!(!error.message.contains("international") || text.starts_with('b'), "{}", error.message);
                }
            }
        }
    }

    #[test]
    fn b32_names() {
        let upper = format!("{}.B32.i2p", B32.to_uppercase());
        let target = Target::parse(&upper).unwrap();
        assert_eq!(target.wire(), format!("{B32}.b32.i2p"));
        let Target::B32 { hash, .. } = target else { panic!("{target:?}") };
        assert_eq!(base32_encode(&hash), B32);

        for len in (0..B32_LEN).chain(B32_LEN + 1..B33_MIN_LEN) {
            let error = Target::parse(&format!("{}.b32.i2p", "a".repeat(len))).unwrap_err();
            assert!(error.message.contains("reserved"), "{len}: {}", error.message);
        }
        for label in [B32.replace('q', "1"), format!("{}b", &B32[..51]), format!("w.{}", &B32[2..])] {
            assert!(Target::parse(&format!("{label}.b32.i2p")).is_err(), "{label}");
        }
        assert!(Target::parse("b32.i2p").is_err());
        assert!(Target::parse(&format!("www.{B32}.b32.i2p")).is_err());
    }

    #[test]
    fn a_bare_hash_gets_a_hint() {
        let hint = |text: &str| Target::parse(text).unwrap_err().message;
        assert!(hint(&B32.to_uppercase()).ends_with(&format!("did you mean {B32}.b32.i2p?")));
        let b33 = B33::new(0, 7, 11, &[9; 32]).unwrap();
        let bare = b33.address().trim_end_matches(".b32.i2p");
        assert!(hint(bare).contains(&format!("did you mean {}?", b33.address())));
        assert!(!hint("b32").contains("did you mean"));
    }

    #[test]
    fn destinations_are_padded_again() {
        let bytes = [&[1; 384][..], &[5, 0, 4, 0, 7, 0, 0]].concat();
        let address = Address::from_bytes(&bytes).unwrap();
        let target = Target::parse(address.base64().trim_end_matches('=')).unwrap();
        assert_eq!(target.wire(), address.base64());
        assert_eq!(target, Target::Destination(address));
    }

    #[test]
    fn b33_parts() {
        for flags in 0..8 {
            let b33 = B33::new(flags, 11, 11, &[0xa5; 32]).unwrap();
            assert_eq!(b33.address().len(), if flags & 1 == 0 { 64 } else { 68 });
            assert_eq!(B33::parse(&b33.address().to_uppercase()).unwrap(), b33);
            assert_eq!(Target::parse(b33.address()).unwrap(), Target::B33(b33));
        }
        assert!(B33::new(8, 7, 11, &[0; 32]).is_err());
        assert!(B33::new(0, 8, 11, &[0; 32]).is_err());
        assert!(B33::new(0, 7, 7, &[0; 32]).is_err());
        assert!(B33::new(0, 7, 11, &[0; 33]).is_err());
        for text in ["", ".b32.i2p", "aa.b32.i2p", "aaaa.b32.i2p", "aaaaa"] {
            assert!(B33::parse(text).is_err(), "{text}");
        }
    }
}
