//! Public destinations: the bytes that others reach us by.
//!
//! ```text
//! 0..256    encryption public key field (unused today)
//! 256..384  signing public key, right-aligned; a longer one continues in the certificate
//! 384       certificate type    385..387  L, big endian    387..387+L  payload
//! ```

use std::ffi::{CStr, CString};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::error::{Error, Operation, Result, Status};
use crate::identity::encoding::{base32_encode, base64_decode, base64_encode};

/// Length of a destination with an empty certificate, the shortest possible.
pub(super) const MIN_LEN: usize = CERTIFICATE + 3;
/// Offset of the certificate.
const CERTIFICATE: usize = 384;
/// Bytes of the signing key that fit into the fixed part.
const SIGNING_AREA: usize = 128;

/// Key and signature lengths of one signature type, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeyLengths {
    pub public: usize,
    pub private: usize,
    pub signature: usize,
}

impl KeyLengths {
    /// `None` for signature types whose keys we do not know.
    pub(super) fn of(sig_type: u16) -> Option<Self> {
        let (public, private, signature) = match sig_type {
            0 => (128, 20, 40),         // DSA_SHA1
            1 => (64, 32, 64),          // ECDSA_SHA256_P256
            2 => (96, 48, 96),          // ECDSA_SHA384_P384
            3 => (132, 66, 132),        // ECDSA_SHA512_P521
            4 => (256, 512, 256),       // RSA_SHA256_2048
            5 => (384, 768, 384),       // RSA_SHA384_3072
            6 => (512, 1024, 512),      // RSA_SHA512_4096
            7 | 8 | 11 => (32, 32, 64), // EdDSA_SHA512_Ed25519, its ph variant, RedDSA_SHA512_Ed25519
            9 => (64, 32, 64),          // GOST R 34.10, 256 bits
            10 => (128, 64, 128),       // GOST R 34.10, 512 bits
            _ => return None,
        };
        Some(KeyLengths { public, private, signature })
    }
}

/// A public destination. Cheap to clone; the text forms are computed once.
#[derive(Clone)]
pub struct Address(Arc<Inner>);

struct Inner {
    bytes: Box<[u8]>,
    hash: [u8; 32],
    sig_type: u16,
    enc_type: u16,
    base64: CString,
    base32: CString,
    host: CString,
}

impl Address {
    /// Parses the binary form, which must be exactly one destination of 387 + L bytes.
    ///
    /// Accepts the NULL certificate (DSA_SHA1) and the KEY certificate. Unknown signature types are taken as they are;
    /// for known ones, the part of the key that does not fit into the fixed field must be present. Surplus bytes inside
    /// the certificate are kept, as routers do. HASHCASH, SIGNED and MULTIPLE certificates were never used and HIDDEN
    /// is for routers, so all of these are rejected, as are encryption types 5 to 7, which only occur in lease sets.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let (address, len) = Address::split_prefix(bytes)?;
        match bytes.len() - len {
            0 => Ok(address),
            rest => Err(Error::invalid(format!("{rest} bytes follow the destination; a private key is no address"))),
        }
    }

    /// Parses I2P base64; the padding may be missing, white space is not allowed.
    pub fn parse(text: &str) -> Result<Self> {
        Address::from_bytes(&base64_decode(text)?)
    }

    /// Fails if the certificate names a signature type other than `expected`.
    pub fn expecting(self, expected: Option<u16>) -> Result<Self> {
        match (expected, self.signature_type()) {
            (Some(expected), other) if expected != other => {
                Err(Error::invalid(format!("the destination has signature type {other}, not {expected}")))
            }
            _ => Ok(self),
        }
    }

    /// Parses the destination at the start of a longer blob; returns it and its length in bytes.
    pub fn split_prefix(bytes: &[u8]) -> Result<(Self, usize)> {
        let Some(&[kind, high, low]) = bytes.get(CERTIFICATE..MIN_LEN) else {
            return Err(Error::invalid(format!(
                "{} bytes are no destination: the shortest has {MIN_LEN}",
                bytes.len()
            )));
        };
        let len = MIN_LEN + usize::from(u16::from_be_bytes([high, low]));
        let (Some(own), Some(payload)) = (bytes.get(..len), bytes.get(MIN_LEN..len)) else {
            return Err(Error::invalid(format!(
                "the destination is cut off: its certificate says {len} bytes, there are {}",
                bytes.len()
            )));
        };
        let (sig_type, enc_type) = certificate(kind, payload)?;
        Ok((Address::build(own, sig_type, enc_type)?, len))
    }

    fn build(bytes: &[u8], sig_type: u16, enc_type: u16) -> Result<Self> {
        let c_string = |text: String| {
            CString::new(text).map_err(|_| Error::new(Status::Internal, Operation::None, "NUL in an encoded address"))
        };
        let hash: [u8; 32] = Sha256::digest(bytes).into();
        let base32 = base32_encode(&hash);
        Ok(Address(Arc::new(Inner {
            bytes: bytes.into(),
            hash,
            sig_type,
            enc_type,
            base64: c_string(base64_encode(bytes))?,
            host: c_string(format!("{base32}.b32.i2p"))?,
            base32: c_string(base32)?,
        })))
    }

    /// The binary form, 387 + L bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0.bytes
    }

    /// SHA-256 over the whole destination.
    pub fn hash(&self) -> &[u8; 32] {
        &self.0.hash
    }

    /// Signature type from the certificate; 0 (DSA_SHA1) for a NULL certificate.
    pub fn signature_type(&self) -> u16 {
        self.0.sig_type
    }

    /// Encryption type from the certificate. The network does not use it: each session chooses its own.
    pub fn encryption_type(&self) -> u16 {
        self.0.enc_type
    }

    /// Padded I2P base64.
    pub fn base64(&self) -> &str {
        text(&self.0.base64)
    }

    /// The hash in base32: 52 characters without a suffix.
    pub fn base32(&self) -> &str {
        text(&self.0.base32)
    }

    /// The hash as a host name: 52 characters and `.b32.i2p`.
    pub fn host(&self) -> &str {
        text(&self.0.host)
    }

    /// [`Address::base64`] for C.
    pub fn base64_c(&self) -> &CStr {
        &self.0.base64
    }

    /// [`Address::base32`] for C.
    pub fn base32_c(&self) -> &CStr {
        &self.0.base32
    }

    /// [`Address::host`] for C.
    pub fn host_c(&self) -> &CStr {
        &self.0.host
    }
}

/// Returns signature and encryption type, or an error for certificates a destination cannot have.
fn certificate(kind: u8, payload: &[u8]) -> Result<(u16, u16)> {
    let name = match kind {
        0 if payload.is_empty() => return Ok((0, 0)),
        0 => return Err(Error::invalid("a NULL certificate has no payload")),
        1 => "HASHCASH",
        2 => "HIDDEN",
        3 => "SIGNED",
        4 => "MULTIPLE",
        5 => return key_certificate(payload),
        _ => "unknown",
    };
    Err(Error::invalid(format!("no destination has certificate type {kind} ({name}), only NULL and KEY")))
}

fn key_certificate(payload: &[u8]) -> Result<(u16, u16)> {
    let &[s1, s0, e1, e0, ref excess @ ..] = payload else {
        return Err(Error::invalid("a KEY certificate has at least 4 bytes"));
    };
    let (sig_type, enc_type) = (u16::from_be_bytes([s1, s0]), u16::from_be_bytes([e1, e0]));
    if (5..=7).contains(&enc_type) {
        return Err(Error::invalid(format!("encryption type {enc_type} is for lease sets, not destinations")));
    }
    // A destination's encryption key never exceeds its field, so everything here belongs to the signing key.
    let needed = KeyLengths::of(sig_type).map_or(0, |l| l.public.saturating_sub(SIGNING_AREA));
    if excess.len() < needed {
        return Err(Error::invalid(format!(
            "the certificate lacks {} bytes of the signing key (signature type {sig_type})",
            needed - excess.len()
        )));
    }
    Ok((sig_type, enc_type))
}

/// Never falls back to the default, as our encoders write ASCII.
fn text(text: &CStr) -> &str {
    text.to_str().unwrap_or_default()
}

impl PartialEq for Address {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Address {}

impl Hash for Address {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({})", self.host())
    }
}

impl fmt::Display for Address {
    /// The host form, which is short enough for a log line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.host())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn destination(kind: u8, payload: &[u8]) -> Vec<u8> {
        let len = u16::try_from(payload.len()).unwrap().to_be_bytes();
        [&[0x5a; CERTIFICATE][..], &[kind], &len, payload].concat()
    }

    fn key(sig_type: u16, enc_type: u16, excess: usize) -> Vec<u8> {
        destination(5, &[&sig_type.to_be_bytes()[..], &enc_type.to_be_bytes(), &vec![7; excess]].concat())
    }

    #[test]
    fn every_signature_type_has_its_length() {
        let table = [(0, 0, 391), (1, 0, 391), (2, 0, 391), (3, 4, 395), (4, 128, 519), (5, 256, 647)];
        let table = table.into_iter().chain([(6, 384, 775), (7, 0, 391), (8, 0, 391), (9, 0, 391)]);
        for (sig_type, excess, len) in table.chain([(10, 0, 391), (11, 0, 391), (12, 0, 391), (65280, 9, 400)]) {
            let bytes = key(sig_type, 0, excess);
            let address = Address::from_bytes(&bytes).unwrap();
            assert_eq!((bytes.len(), address.signature_type(), address.encryption_type()), (len, sig_type, 0));
            assert_eq!(address.as_bytes(), bytes);
            if excess > 0 && KeyLengths::of(sig_type).is_some() {
                assert!(Address::from_bytes(&key(sig_type, 0, excess - 1)).is_err());
            }
        }
    }

    #[test]
    fn certificates() {
        assert_eq!(Address::from_bytes(&destination(0, b"")).unwrap().signature_type(), 0);
        assert_eq!(Address::from_bytes(&key(7, 4, 0)).unwrap().encryption_type(), 4);
        assert!(Address::from_bytes(&key(7, 0, 3)).is_ok(), "surplus inside the certificate");
        let refused = [destination(0, b"x"), destination(5, b"\0\x07\0"), destination(5, b""), key(7, 6, 0)];
        for bytes in refused.into_iter().chain([1, 2, 3, 4, 6, 255].map(|kind| destination(kind, b""))) {
            assert_eq!(Address::from_bytes(&bytes).unwrap_err().status, Status::Invalid);
        }
    }

    #[test]
    fn lengths_are_exact() {
        let bytes = key(7, 0, 0);
        for len in 0..bytes.len() {
            assert!(Address::from_bytes(&bytes[..len]).is_err(), "{len}");
        }
        let longer = [&bytes[..], b"\0"].concat();
        assert!(Address::from_bytes(&longer).unwrap_err().message.contains("private key"));
        let (address, len) = Address::split_prefix(&longer).unwrap();
        assert_eq!((address.as_bytes(), len), (&bytes[..], bytes.len()));
    }

    #[test]
    fn texts_equality_and_expected_type() {
        let address = Address::from_bytes(&key(7, 0, 0)).unwrap();
        let again = Address::parse(address.base64().trim_end_matches('=')).unwrap();
        assert_eq!(address, again);
        assert_ne!(address, Address::from_bytes(&key(11, 0, 0)).unwrap());
        assert_eq!(std::collections::HashSet::from([address.clone(), again]).len(), 1);
        assert_eq!(address.base64_c().to_bytes(), address.base64().as_bytes());
        assert_eq!(address.host(), format!("{}.b32.i2p", address.base32()));
        assert_eq!((address.host_c().to_bytes().len(), address.base32_c().to_bytes().len()), (60, 52));
        assert_eq!(format!("{address:?}"), format!("Address({address})"));
        assert!(address.clone().expecting(None).is_ok());
        assert!(address.clone().expecting(Some(7)).is_ok());
        let error = address.clone().expecting(Some(11)).unwrap_err();
        assert_eq!(error.message, "the destination has signature type 7, not 11");
        assert!(Address::parse(&format!("{}\n", address.base64())).is_err());
    }
}
