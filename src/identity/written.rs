//! How people and programs write an address, and which part of it is the address.
//!
//! What is cut off here has one meaning at most. The rest is named, so that whoever gave it learns what to write instead.

use std::borrow::Cow;

/// The suffix of every name.
pub(super) const SUFFIX: &str = ".i2p";

/// An address without what surrounded it.
pub(super) struct Written<'a> {
    pub address: Cow<'a, str>,
    /// What was there besides, and cannot be left out without a change of meaning.
    pub surplus: Option<&'static str>,
}

/// Takes the address out of `text`. Leaves out a line feed at the end, `http://` in front, `/` and the default port 0
/// behind it, the full stop of a complete domain name, and `.i2p` behind a destination of at least `shortest`
/// characters, as BitTorrent writes it: all names are shorter.
pub(super) fn read(text: &str, shortest: usize) -> Written<'_> {
    let text = text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line));
    let (scheme, rest) = text.split_once("://").map_or(("", text), |(scheme, rest)| (scheme, rest));
    // A slash in base64 is one of another alphabet.
    if scheme.is_empty() && !text.contains('.') {
        return Written { address: unescaped(text), surplus: None };
    }
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let (host, port) = authority.rsplit_once(':').unwrap_or((authority, "0"));
    let host = host.strip_suffix('.').unwrap_or(host);
    let surplus = if !scheme.is_empty() && !scheme.eq_ignore_ascii_case("http") {
        Some("an address has no scheme")
    } else if !matches!(path, "" | "/") {
        Some("an address has no path")
    } else if port != "0" {
        Some("a port is not part of an address: it goes into option to_port")
    } else {
        None
    };
    let label = without_suffix(host).filter(|label| label.len() >= shortest && !label.contains('.'));
    Written { address: unescaped(label.unwrap_or(host)), surplus }
}

fn without_suffix(host: &str) -> Option<&str> {
    let (label, suffix) = host.split_at_checked(host.len().checked_sub(SUFFIX.len())?)?;
    suffix.eq_ignore_ascii_case(SUFFIX).then_some(label)
}

/// The padding of base64 as URLs have it.
fn unescaped(text: &str) -> Cow<'_, str> {
    let escaped = |text: &str| text.ends_with("%3D") || text.ends_with("%3d");
    let mut bare = text;
    while escaped(bare) {
        bare = bare.get(..bare.len() - 3).unwrap_or_default();
    }
    match (text.len() - bare.len()) / 3 {
        0 => Cow::Borrowed(text),
        padding => Cow::Owned(format!("{bare}{}", "=".repeat(padding))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The address, and the first words of what is wrong.
    fn told(text: &str) -> (String, &'static str) {
        let Written { address, surplus } = read(text, 8);
        (address.into_owned(), surplus.unwrap_or_default().split(' ').next().unwrap_or_default())
    }

    #[test]
    fn one_meaning() {
        for text in
            ["a.i2p\n", "a.i2p\r\n", "a.i2p.", "a.i2p/", "http://a.i2p", "HTTP://a.i2p./\n", "a.i2p:0", "a.i2p:0/"]
        {
            assert_eq!(told(text), ("a.i2p".into(), ""), "{text:?}");
        }
        for text in
            ["AAAAAA==", "AAAAAA==.i2p", "AAAAAA==.I2P.", "AAAAAA%3D%3d.i2p", "AAAAAA%3D%3D", "http://AAAAAA==/"]
        {
            assert_eq!(told(text), ("AAAAAA==".into(), ""), "{text:?}");
        }
    }

    #[test]
    fn nothing_is_guessed() {
        for text in
            ["a.i2p\n\n", " a.i2p", "a.i2p ", "a.i2p..", "AA/AAAA+", "AA/", "ä.i2p", "AAAAAAA.i2p", "aaaa.aaa.i2p"]
        {
            let bare = text.strip_suffix(['\n', '.']).unwrap_or(text);
            assert_eq!(told(text), (bare.into(), ""), "{text:?}");
        }
        for (text, wrong) in [
            ("https://a.i2p", "an"),
            ("udp://a.i2p:6969/announce", "an"),
            ("http://a.i2p/b", "an"),
            ("a.i2p?b", "an"),
            ("a.i2p:80", "a"),
            ("http://a.i2p:80/", "a"),
            ("a.i2p:", "a"),
        ] {
            assert_eq!(told(text), ("a.i2p".into(), wrong), "{text:?}");
        }
    }
}
