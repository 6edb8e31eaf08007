//! Private key blobs, which make a destination ours.
//!
//! ```text
//! destination | encryption private key | signing private key | offline section, iff the signing key is all zero
//! offline section: expires (4) | transient type (2) | transient public key | signature | transient private key
//! ```
//!
//! A blob is kept and returned unchanged. Every copy made here is wiped, and error messages never reveal its content.

use std::ffi::CStr;
use std::fmt;

use crate::error::{Error, Result};
use crate::identity::address::{Address, KeyLengths};
use crate::identity::encoding::{base64_decode_secret, base64_encode_secret_c};
use crate::secret::Secret;

/// A private key blob and the address it belongs to; wiped when dropped.
pub struct Keys {
    address: Address,
    bytes: Secret,
    /// Padded base64 with a terminating NUL.
    base64: Secret,
    offline: Option<Offline>,
}

/// The offline section: the signing key is kept elsewhere, and a transient key signs until it expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offline {
    /// When the transient key expires, in seconds since 1970.
    pub expires: u32,
    /// The signature type that the transient key signs with.
    pub transient_sig_type: u16,
}

impl Keys {
    /// Parses the binary form; see [`Keys::from_secret`]. Our copy is wiped; wiping `bytes` is up to the caller.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        Keys::from_secret(Secret::from_slice(bytes))
    }

    /// Parses I2P base64, with or without padding, ignoring white space around it; see [`Keys::from_secret`].
    pub fn from_text(text: &str) -> Result<Self> {
        Keys::from_secret(base64_decode_secret(text.trim_ascii())?)
    }

    /// Parses keys of any origin.
    ///
    /// With encryption type 0, which all keys should have, every length must be right and nothing may be left over.
    /// With any other encryption type, or an unknown signature type, bridges write different lengths, and keys written
    /// by any of them must be loadable; so in that case we only check that private parts are present.
    pub fn from_secret(bytes: Secret) -> Result<Self> {
        Keys::build(bytes, check)
    }

    /// Parses the content of a key file after detecting its format: binary; one line of I2P base64; or two lines, the
    /// address and the keys, in either order.
    pub fn from_file(content: Secret) -> Result<Self> {
        let none = |error: Error| {
            let message = format!("no private keys: {}", error.message);
            error.saying(message)
        };
        // Text cannot contain the first byte of a certificate, which is 0 or 5.
        let Some(text) = as_text(content.as_bytes()) else { return Keys::from_secret(content).map_err(none) };
        let mut lines = text.lines().map(str::trim_ascii).filter(|line| !line.is_empty());
        match (lines.next(), lines.next(), lines.next()) {
            (None, ..) => Err(none(Error::invalid("the file is empty"))),
            (Some(line), None, _) => Keys::from_text(line).map_err(none),
            (Some(first), Some(second), None) => {
                // The keys are the longer line, as they start with the address.
                let (public, private) = if first.len() < second.len() { (first, second) } else { (second, first) };
                let keys = Keys::from_text(private).map_err(none)?;
                match Address::parse(public) {
                    Ok(address) if address == *keys.address() => Ok(keys),
                    _ => Err(Error::invalid("the two lines are not an address and its private keys")),
                }
            }
            _ => Err(none(Error::invalid("these are more than two lines of text"))),
        }
    }

    /// Parses keys that a bridge returned for us: any layout that starts with a destination and continues after it.
    pub fn from_bridge(bytes: Vec<u8>) -> Result<Self> {
        Keys::from_bridge_secret(Secret::from_vec(bytes))
    }

    /// [`Keys::from_bridge`] for the base64 text of the reply.
    pub fn from_bridge_text(text: &str) -> Result<Self> {
        Keys::from_bridge_secret(base64_decode_secret(text)?)
    }

    /// [`Keys::from_bridge`] for bytes that are already in wiped memory.
    pub fn from_bridge_secret(bytes: Secret) -> Result<Self> {
        Keys::build(bytes, |address, private| match check(address, private) {
            Err(_) if !private.is_empty() => Ok(None),
            result => result,
        })
    }

    fn build(bytes: Secret, check: impl Fn(&Address, &[u8]) -> Result<Option<Offline>>) -> Result<Self> {
        let (address, len) = Address::split_prefix(bytes.as_bytes())?;
        let offline = check(&address, bytes.as_bytes().get(len..).unwrap_or_default())?;
        let base64 = base64_encode_secret_c(bytes.as_bytes())?;
        Ok(Keys { address, bytes, base64, offline })
    }

    /// A copy, wiped like the original.
    pub fn duplicate(&self) -> Self {
        let (bytes, base64) = (self.bytes.duplicate(), self.base64.duplicate());
        Keys { address: self.address.clone(), bytes, base64, offline: self.offline }
    }

    /// The public destination these keys belong to.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The binary blob. Secret: copy it only into memory that will be wiped.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.as_bytes()
    }

    /// The blob in padded I2P base64. Secret, like [`Keys::bytes`].
    pub fn base64(&self) -> &str {
        self.base64_c().to_str().unwrap_or_default()
    }

    /// [`Keys::base64`] for C; valid until the keys are dropped.
    pub fn base64_c(&self) -> &CStr {
        CStr::from_bytes_with_nul(self.base64.as_bytes()).unwrap_or_default()
    }

    /// Signature type of the destination.
    pub fn signature_type(&self) -> u16 {
        self.address.signature_type()
    }

    /// Whether a transient key signs. Keys in a bridge's own layout count as not offline.
    pub fn is_offline(&self) -> bool {
        self.offline.is_some()
    }

    /// When the transient key expires and what type it has. Verifying its signature is up to the router.
    pub fn offline(&self) -> Option<Offline> {
        self.offline
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({}, {:?})", self.address.host(), self.bytes)
    }
}

/// The content as text, if it consists of printable ASCII and white space.
fn as_text(content: &[u8]) -> Option<&str> {
    let plain = content.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace());
    std::str::from_utf8(content).ok().filter(|_| plain)
}

/// Checks the lengths of what follows the destination.
fn check(address: &Address, private: &[u8]) -> Result<Option<Offline>> {
    match (KeyLengths::of(address.signature_type()), address.encryption_type()) {
        (Some(lengths), 0) => layout(private, 256, lengths),
        // Some bridges write just the 32 bytes of such a key, others fill the 256-byte field.
        (Some(lengths), 4) => layout(private, 32, lengths)
            .or_else(|_| layout(private, 256, lengths))
            .or_else(|_| longer_than(private, lengths.private)),
        (Some(lengths), _) => longer_than(private, lengths.private),
        (None, 0) => longer_than(private, 256),
        (None, _) => longer_than(private, 0),
    }
}

fn longer_than(private: &[u8], len: usize) -> Result<Option<Offline>> {
    match private.len() > len {
        true => Ok(None),
        false => Err(cut_off()),
    }
}

fn layout(private: &[u8], enc_len: usize, lengths: KeyLengths) -> Result<Option<Offline>> {
    let (signing, rest) = private
        .split_at_checked(enc_len)
        .and_then(|(_, keys)| keys.split_at_checked(lengths.private))
        .ok_or_else(cut_off)?;
    match (signing.iter().all(|byte| *byte == 0), rest.len()) {
        (true, _) => offline_section(rest, lengths.signature).map(Some),
        (false, 0) => Ok(None),
        (false, len) => Err(Error::invalid(format!("{len} bytes follow the private keys"))),
    }
}

fn offline_section(section: &[u8], signature_len: usize) -> Result<Offline> {
    let Some((&[e3, e2, e1, e0, t1, t0], rest)) = section.split_first_chunk() else {
        return Err(Error::invalid("the signing private key is zero and no offline section follows it"));
    };
    let transient_sig_type = u16::from_be_bytes([t1, t0]);
    let lengths = KeyLengths::of(transient_sig_type)
        .ok_or_else(|| Error::invalid(format!("unknown signature type {transient_sig_type} in the offline section")))?;
    if rest.len() != lengths.public + signature_len + lengths.private {
        return Err(Error::invalid("the offline section has the wrong length"));
    }
    Ok(Offline { expires: u32::from_be_bytes([e3, e2, e1, e0]), transient_sig_type })
}

fn cut_off() -> Error {
    Error::invalid("the private keys are missing or cut off")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::encoding::base64_encode;

    fn blob(sig_type: u16, enc_type: u16, private: &[&[u8]]) -> Vec<u8> {
        let excess = KeyLengths::of(sig_type).map_or(0, |l| l.public.saturating_sub(128));
        let len = u16::try_from(4 + excess).unwrap().to_be_bytes();
        let mut blob = [&[0x5a; 384][..], &[5], &len].concat();
        blob.extend([sig_type.to_be_bytes(), enc_type.to_be_bytes()].concat());
        blob.resize(blob.len() + excess, 6);
        blob.extend(private.concat());
        blob
    }

    #[test]
    fn lengths_of_every_signature_type() {
        let known = [(0, 667), (1, 679), (2, 695), (3, 717), (4, 1287), (5, 1671), (6, 2055)];
        for (sig_type, total) in known.into_iter().chain([(7, 679), (8, 679), (9, 679), (10, 711), (11, 679)]) {
            let signing = vec![1; KeyLengths::of(sig_type).unwrap().private];
            let bytes = blob(sig_type, 0, &[&[0; 256], &signing]);
            assert_eq!(bytes.len(), total, "{sig_type}");
            let keys = Keys::from_bytes(&bytes).unwrap();
            assert_eq!((keys.bytes(), keys.signature_type()), (&bytes[..], sig_type));
            assert!(!keys.is_offline());
            for len in 0..bytes.len() {
                assert!(Keys::from_bytes(&bytes[..len]).is_err(), "{sig_type}: {len}");
            }
            assert!(Keys::from_bytes(&[&bytes[..], b"\0"].concat()).is_err());
        }
    }

    #[test]
    fn offline_section() {
        let zero: &[&[u8]] = &[&[9; 256], &[0; 32]];
        let section = [&[0xf4, 0x86, 0x57, 0, 0, 1][..], &[2; 64 + 64 + 32]].concat();
        let bytes = blob(7, 0, &[zero[0], zero[1], &section]);
        let keys = Keys::from_bytes(&bytes).unwrap();
        assert_eq!(keys.offline(), Some(Offline { expires: 4_102_444_800, transient_sig_type: 1 }));
        for wrong in [&section[..0], &section[..5], &section[..section.len() - 1], &[0xff; 166]] {
            assert!(Keys::from_bytes(&blob(7, 0, &[zero[0], zero[1], wrong])).is_err());
        }
        // The same after the shorter encryption key.
        assert!(Keys::from_bytes(&blob(7, 4, &[&[9; 32], zero[1], &section])).unwrap().is_offline());
    }

    #[test]
    fn layouts_of_bridges_round_trip() {
        // 32 or 256 bytes before the signing key, and a signing key of 64 bytes.
        for (enc, signing) in [(32, 32), (256, 32), (32, 64)] {
            let bytes = blob(7, 4, &[&vec![1; enc], &vec![2; signing]]);
            let keys = Keys::from_bridge(bytes.clone()).unwrap();
            assert_eq!(keys.bytes(), bytes);
            assert_eq!(Keys::from_text(keys.base64()).unwrap().bytes(), bytes);
            assert_eq!(Keys::from_bridge_text(keys.base64()).unwrap().bytes(), bytes);
        }
        let odd = blob(7, 0, &[&[1; 70]]);
        assert!(Keys::from_bytes(&odd).is_err());
        assert_eq!(Keys::from_bridge(odd).unwrap().offline(), None);
        assert!(Keys::from_bridge(blob(7, 0, &[])).is_err());
        assert!(Keys::from_bridge(blob(7, 4, &[])).is_err());
        assert!(Keys::from_bytes(&blob(7, 4, &[&[1; 32]])).is_err());
        // Unknown types: there must at least be something.
        assert!(Keys::from_bytes(&blob(65280, 0, &[&[1; 256]])).is_err());
        assert!(Keys::from_bytes(&blob(65280, 0, &[&[1; 257]])).is_ok());
        assert!(Keys::from_bytes(&blob(65280, 9, &[&[1; 1]])).is_ok());
        assert!(Keys::from_bytes(&blob(65280, 9, &[])).is_err());
    }

    #[test]
    fn contents_of_files() {
        let file = |content: &str| Keys::from_file(Secret::from_slice(content.as_bytes()));
        let bytes = blob(7, 0, &[&[0; 256], &[0xee; 32]]);
        let (private, keys) = (base64_encode(&bytes), Keys::from_file(Secret::from_slice(&bytes)).unwrap());
        let public = keys.address().base64();
        for good in [
            private.clone(),
            format!("{private}\n"),
            format!("\r\n {private}\t\r\n\n"),
            format!("{public}\n{private}\n"),
            format!("{public}\r\n\r\n{private}"),
            format!("{private}\n{}", public.trim_end_matches('=')),
        ] {
            assert_eq!(file(&good).unwrap().bytes(), bytes, "{good:?}");
        }
        let other = public.replacen('W', "X", 1);
        for (bad, part) in [
            (String::new(), "empty"),
            (" \r\n".to_owned(), "empty"),
            (public.to_owned(), "missing or cut off"),
            (format!("{other}\n{private}"), "the two lines"),
            (format!("{public}\n{public}"), "missing or cut off"),
            (format!("{private}\n{private}"), "the two lines"),
            (format!("{public}\n{private}\nx"), "two lines"),
            (format!("PRIV={private}"), "not I2P base64"),
            (format!("{private}\u{e4}"), "no private keys"),
            (format!("{private}\0"), "no private keys"),
        ] {
            let error = file(&bad).unwrap_err();
            assert!(error.message.contains(part) && !error.message.contains("7u7u"), "{bad:?}: {error}");
        }
        // Nothing but the padding may be missing.
        for len in 0..private.trim_end_matches('=').len() {
            assert!(file(&private[..len]).is_err(), "{len}");
            assert!(file(&format!("{public}\n{}", &private[..len])).is_err(), "{len}");
        }
    }

    #[test]
    fn texts_and_debug() {
        let bytes = blob(7, 0, &[&[0; 256], &[0xee; 32]]);
        let text = base64_encode(&bytes);
        let keys = Keys::from_text(&format!("\n {}\r\n", text.trim_end_matches('='))).unwrap();
        assert_eq!(keys.base64(), text);
        assert_eq!(keys.base64_c().to_bytes(), text.as_bytes());
        assert_eq!(format!("{keys:?}"), format!("Keys({}, <secret>)", keys.address().host()));
        assert!(Keys::from_text(&text.replacen('W', " ", 1)).is_err());
    }
}
