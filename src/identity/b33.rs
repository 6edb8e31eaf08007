//! b33 addresses, which lead to encrypted lease sets.

use crate::error::{Error, Result};
use crate::identity::address::KeyLengths;
use crate::identity::encoding::{base32_decode, base32_encode, crc32};

/// Suffix of every b32 and b33 address.
pub(super) const B32_SUFFIX: &str = ".b32.i2p";

/// Address of an encrypted lease set: the public key itself, from which each day's hash is derived.
///
/// The binary form is flags, signature type, blinded signature type and public key, with the CRC-32 of everything from
/// the fourth byte on XORed into the first three. There is no other checksum, so a mistyped character shows up as
/// undefined flags or types; only defined ones are accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct B33 {
    flags: u8,
    sig_type: u16,
    blinded_sig_type: u16,
    public_key: Vec<u8>,
    address: String,
}

impl B33 {
    /// Flag: the two signature types take two bytes each.
    pub const TWO_BYTE_TYPES: u8 = 1;
    /// Flag: a secret is needed to find the lease set.
    pub const SECRET: u8 = 2;
    /// Flag: each client needs its own key.
    pub const CLIENT_AUTH: u8 = 4;

    /// Checks the parts and builds the address from them.
    pub fn new(flags: u8, sig_type: u16, blinded_sig_type: u16, public_key: &[u8]) -> Result<Self> {
        if flags & !(B33::TWO_BYTE_TYPES | B33::SECRET | B33::CLIENT_AUTH) != 0 {
            return Err(mistyped("unknown flags"));
        }
        // Blinding is only defined from Ed25519 (7) and RedDSA (11) to RedDSA.
        if !matches!((sig_type, blinded_sig_type), (7 | 11, 11)) {
            return Err(mistyped("signature types without blinding"));
        }
        if KeyLengths::of(sig_type).map(|l| l.public) != Some(public_key.len()) {
            return Err(mistyped("a key of the wrong length"));
        }
        let mut bytes = vec![flags];
        for kind in [sig_type, blinded_sig_type] {
            let [high, low] = kind.to_be_bytes();
            if flags & B33::TWO_BYTE_TYPES != 0 {
                bytes.push(high);
            }
            bytes.push(low);
        }
        bytes.extend_from_slice(public_key);
        xor_crc(&mut bytes);
        let address = format!("{}{B32_SUFFIX}", base32_encode(&bytes));
        Ok(B33 { flags, sig_type, blinded_sig_type, public_key: public_key.to_vec(), address })
    }

    /// Parses the text form, suffix included, in upper or lower case.
    pub fn parse(text: &str) -> Result<Self> {
        let name = text.to_ascii_lowercase();
        let label = name.strip_suffix(B32_SUFFIX).ok_or_else(|| Error::invalid("a b33 address ends in .b32.i2p"))?;
        let mut bytes = base32_decode(label)?;
        xor_crc(&mut bytes);
        let (flags, sig_type, blinded_sig_type, public_key) = match *bytes.as_slice() {
            [flags, s1, s0, b1, b0, ref key @ ..] if flags & B33::TWO_BYTE_TYPES != 0 => {
                (flags, u16::from_be_bytes([s1, s0]), u16::from_be_bytes([b1, b0]), key)
            }
            [flags, s, b, ref key @ ..] => (flags, u16::from(s), u16::from(b), key),
            _ => return Err(mistyped("too few bytes")),
        };
        B33::new(flags, sig_type, blinded_sig_type, public_key)
    }

    /// The flags; see [`B33::SECRET`] and its siblings.
    pub fn flags(&self) -> u8 {
        self.flags
    }

    /// Whether a secret is needed to find the lease set.
    pub fn secret_required(&self) -> bool {
        self.flags & B33::SECRET != 0
    }

    /// Whether each client needs its own key.
    pub fn client_auth_required(&self) -> bool {
        self.flags & B33::CLIENT_AUTH != 0
    }

    /// Signature type of the destination, before blinding.
    pub fn sig_type(&self) -> u16 {
        self.sig_type
    }

    /// Signature type after blinding.
    pub fn blinded_sig_type(&self) -> u16 {
        self.blinded_sig_type
    }

    /// The destination's signing public key, unblinded.
    pub fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    /// The text form in lower case, suffix included.
    pub fn address(&self) -> &str {
        &self.address
    }
}

/// Encoding and decoding are the same operation, since the CRC covers only bytes that do not change.
fn xor_crc(bytes: &mut [u8]) {
    if let Some((head, rest)) = bytes.split_first_chunk_mut::<3>() {
        for (byte, crc) in head.iter_mut().zip(crc32(rest).to_le_bytes()) {
            *byte ^= crc;
        }
    }
}

fn mistyped(what: &str) -> Error {
    Error::invalid(format!("not a b33 address, perhaps mistyped: it decodes to {what}"))
}
