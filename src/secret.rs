//! What must not outlive its use, nor be shown: key material, passwords, lines that contain them.

use std::borrow::Cow;
use std::fmt;

/// Stands in for whatever must not be shown.
pub const PRIVATE: &str = "<private>";

/// Longest run of base64 in a text that is shown. A destination has 516 characters or more, and what follows it in a
/// private key is as long again; a hash, a b33 address or a public key is shorter.
const LONGEST_SHOWN: usize = 200;

/// Owned bytes that are wiped when dropped.
///
/// It never grows, so no reallocation leaves a copy behind. It has neither `Clone` nor `Display`, and `Debug` prints
/// `<secret>`: copying and printing have to be asked for.
pub struct Secret {
    bytes: Vec<u8>,
}

impl Secret {
    /// Takes over a vector. Its spare capacity belongs to the secret and is wiped with it.
    pub fn from_vec(bytes: Vec<u8>) -> Self {
        Secret { bytes }
    }

    /// Copies a slice into a buffer of exactly its size; the original stays with the caller.
    pub fn from_slice(bytes: &[u8]) -> Self {
        Secret::from_vec(bytes.to_vec())
    }

    /// `len` zero bytes, to be filled in place through [`Secret::as_mut_bytes`].
    pub fn zeroed(len: usize) -> Self {
        Secret::from_vec(vec![0; len])
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes, to be changed in place; the length stays.
    pub fn as_mut_bytes(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// Number of bytes.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Drops everything after the first `len` bytes; what is cut off is wiped at once.
    pub fn truncate(&mut self, len: usize) {
        if let Some(rest) = self.bytes.get_mut(len..) {
            crate::sys::wipe(rest);
            self.bytes.truncate(len);
        }
    }

    /// A second copy, also wiped on drop. A method of its own, so that every copy can be found by name.
    pub fn duplicate(&self) -> Self {
        Secret::from_slice(&self.bytes)
    }
}

/// Bytes that are gathered piece by piece and wiped like a [`Secret`], also where they lay before they had to move.
#[derive(Default)]
pub struct Gathered(Vec<u8>);

impl Gathered {
    /// Adds bytes.
    pub fn extend(&mut self, bytes: &[u8]) {
        let needed = self.0.len() + bytes.len();
        if needed > self.0.capacity() {
            let mut larger = Vec::with_capacity(needed.max(2 * self.0.capacity()).max(256));
            larger.extend_from_slice(&self.0);
            drop(Secret::from_vec(std::mem::replace(&mut self.0, larger)));
        }
        self.0.extend_from_slice(bytes);
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Number of bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes the bytes out.
    pub fn take(&mut self) -> Secret {
        Secret::from_vec(std::mem::take(&mut self.0))
    }
}

/// Text that is wiped when dropped, as is every copy of it: the value of an option, which may be a key or a password.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(String);

impl SecretText {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for SecretText {
    fn from(text: &str) -> Self {
        SecretText(text.to_owned())
    }
}

impl From<String> for SecretText {
    fn from(text: String) -> Self {
        SecretText(text)
    }
}

impl Drop for SecretText {
    fn drop(&mut self) {
        drop(Secret::from_vec(std::mem::take(&mut self.0).into_bytes()));
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PRIVATE)
    }
}

/// Whether what is called `name` is a secret by the sound of it, whichever router it is for: a private key, a secret, a
/// pre-shared key or a password.
pub fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["priv", "secret", "psk", "password"].iter().any(|part| name.contains(part))
}

/// `text` as it may be shown: a run of I2P base64 that is long enough to be a private key, or a part of one, is
/// replaced, even if it is spread over several lines. All error messages come through here.
pub fn conceal(text: &str) -> Cow<'_, str> {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'~' | b'=' | b'\r' | b'\n');
    let length = |run: &str| run.bytes().filter(|byte| !matches!(byte, b'\r' | b'\n')).count();
    let (mut shown, mut rest) = (Cow::Borrowed(""), text);
    while !rest.is_empty() {
        let (run, after) = rest.split_at(rest.bytes().position(|byte| !is_part(byte)).unwrap_or(rest.len()));
        let (between, after) = after.split_at(after.bytes().position(is_part).unwrap_or(after.len()));
        if length(run) > LONGEST_SHOWN {
            shown.to_mut().push_str(PRIVATE);
        } else {
            shown += run;
        }
        shown += between;
        rest = after;
    }
    shown
}

impl Drop for Gathered {
    fn drop(&mut self) {
        drop(self.take());
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        // Up to the capacity, which never reallocates: a vector taken over may have been longer before.
        self.bytes.resize(self.bytes.capacity(), 0);
        crate::sys::wipe(&mut self.bytes);
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing() {
        let secret = Secret::from_slice(b"hunter2");
        assert_eq!(format!("{secret:?} {:?}", Some(&secret)), "<secret> Some(<secret>)");
    }

    #[test]
    fn text_is_not_shown_either() {
        let text = SecretText::from("hunter2");
        assert_eq!(format!("{text:?} {:?}", vec![("password", text.clone())]), "<private> [(\"password\", <private>)]");
        assert_eq!((text.as_str(), &text), ("hunter2", &text.clone()));
        for name in ["i2cp.leaseSetPrivKey", "i2cp.leaseSetClient.psk.0", "SECRET", "a.PassWord", "i2cp.leaseSetSecret"]
        {
            assert!(is_secret_name(name), "{name}");
        }
        for name in ["inbound.length", "i2cp.leaseSetKey", "PUB", "VALUE", ""] {
            assert!(!is_secret_name(name), "{name}");
        }
    }

    #[test]
    fn what_may_be_a_private_key_is_concealed() {
        let longest = "Ab~-".repeat(LONGEST_SHOWN / 4);
        let wrapped = "0123456789\r\n".repeat(21);
        for (text, shown) in [
            ("", ""),
            ("no key: \u{e9} a b.i2p", "no key: \u{e9} a b.i2p"),
            (&longest, longest.as_str()),
            (&format!("{longest}="), "<private>"),
            (&format!("say \"{longest}x\", and \u{e9}{longest}x"), "say \"<private>\", and \u{e9}<private>"),
            (&format!("{longest}.{longest}"), &format!("{longest}.{longest}")),
            (&format!(": {wrapped} "), ": <private> "),
            (&"a\n".repeat(LONGEST_SHOWN), &"a\n".repeat(LONGEST_SHOWN)),
        ] {
            assert_eq!(conceal(text), shown);
        }
    }

    #[test]
    fn buffers_are_exact_and_independent() {
        let mut secret = Secret::from_slice(b"0123456789");
        assert_eq!(secret.bytes.capacity(), 10);
        let copy = secret.duplicate();
        secret.as_mut_bytes().fill(b'x');
        secret.truncate(3);
        secret.truncate(30);
        assert_eq!((secret.as_bytes(), secret.bytes.capacity()), (&b"xxx"[..], 10));
        assert_eq!((copy.len(), copy.as_bytes()), (10, &b"0123456789"[..]));
        assert!(Secret::zeroed(0).is_empty());
        assert_eq!(Secret::zeroed(4).as_bytes(), [0; 4]);
    }
}
