//! I2P's text encodings: base64 with `-` and `~`, the base32 of addresses, and the CRC inside b33 addresses.
//!
//! Error messages never quote the input, as it may be a private key.

use base64::alphabet::Alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::engine::DecodePaddingMode;
use base64::{DecodeError, DecodeSliceError, Engine};

use crate::error::{Error, Result, Status};
use crate::secret::Secret;

/// `A-Z a-z 0-9 - ~`. The panic can only happen at compile time.
const I2P: Alphabet = match Alphabet::new("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-~") {
    Ok(alphabet) => alphabet,
    Err(_) => panic!("not an alphabet"),
};

const PADDED: GeneralPurpose = GeneralPurpose::new(
    &I2P,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);

const UNPADDED: GeneralPurpose =
    GeneralPurpose::new(&I2P, GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::RequireNone));

/// Encodes I2P base64, always padded: some routers reject text whose length is not a multiple of 4.
pub fn base64_encode(bytes: &[u8]) -> String {
    PADDED.encode(bytes)
}

/// Decodes I2P base64 as users write it: the padding may be left out entirely; everything else is as strict as in
/// [`base64_decode_strict`]. Re-encode before sending.
pub fn base64_decode(text: &str) -> Result<Vec<u8>> {
    let mut bytes = vec![0; base64::decoded_len_estimate(text.len())];
    let len = decode_into(text, &mut bytes)?;
    bytes.truncate(len);
    Ok(bytes)
}

/// Decodes I2P base64 and rejects anything [`base64_encode`] would not have written: other alphabets, white space,
/// wrong or missing padding, unused bits that are set.
pub fn base64_decode_strict(text: &str) -> Result<Vec<u8>> {
    if text.len() % 4 != 0 {
        return Err(Error::invalid("not I2P base64: the padding is missing"));
    }
    base64_decode(text)
}

/// [`base64_decode`] for key material: decodes directly into a buffer that is wiped, even if decoding fails.
pub(super) fn base64_decode_secret(text: &str) -> Result<Secret> {
    let mut secret = Secret::zeroed(base64::decoded_len_estimate(text.len()));
    let len = decode_into(text, secret.as_mut_bytes())?;
    secret.truncate(len);
    Ok(secret)
}

/// [`base64_encode`] for key material, with a terminating NUL so that C can borrow it.
pub(super) fn base64_encode_secret_c(bytes: &[u8]) -> Result<Secret> {
    let too_long = || Error::invalid("too long for base64");
    let len = base64::encoded_len(bytes.len(), true).ok_or_else(too_long)?;
    let mut text = Secret::zeroed(len.checked_add(1).ok_or_else(too_long)?);
    match PADDED.encode_slice(bytes, text.as_mut_bytes()) {
        Ok(written) if written == len => Ok(text),
        _ => Err(Error::new(Status::Internal, Default::default(), "base64 length is wrong")),
    }
}

fn decode_into(text: &str, out: &mut [u8]) -> Result<usize> {
    let engine = if text.len() % 4 == 0 { &PADDED } else { &UNPADDED };
    engine.decode_slice(text, out).map_err(|error| {
        Error::invalid(match error {
            DecodeSliceError::DecodeError(DecodeError::InvalidByte(_, b'=')) => {
                match text.trim_end_matches('=').contains('=') {
                    true => "not I2P base64: `=` is not at the end (of a line NAME=VALUE only the value is wanted)",
                    false => "not I2P base64: the padding is wrong",
                }
            }
            DecodeSliceError::DecodeError(DecodeError::InvalidByte(_, b'+' | b'/')) => {
                "not I2P base64: `+` and `/` are of standard base64, for which I2P has `-` and `~`"
            }
            DecodeSliceError::DecodeError(DecodeError::InvalidByte(_, byte)) if byte.is_ascii_whitespace() => {
                "not I2P base64: there is white space in it"
            }
            DecodeSliceError::DecodeError(DecodeError::InvalidByte(..)) => {
                "not I2P base64: only A-Z a-z 0-9 - ~ and = at the end are allowed"
            }
            DecodeSliceError::DecodeError(DecodeError::InvalidLastSymbol(..)) => {
                "not I2P base64: bits after the last byte are set"
            }
            DecodeSliceError::DecodeError(DecodeError::InvalidPadding) => "not I2P base64: the padding is wrong",
            DecodeSliceError::DecodeError(DecodeError::InvalidLength(_)) | DecodeSliceError::OutputSliceTooSmall => {
                "not I2P base64: no text has this length"
            }
        })
    })
}

const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// Encodes base32 (RFC 4648), lower case and unpadded, as in `.b32.i2p` addresses. Written here because two functions
/// are not worth a dependency.
pub fn base32_encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(5) * 8);
    let mut push = |value: u32| {
        if let Some(symbol) = BASE32.get((value & 31) as usize) {
            text.push(char::from(*symbol));
        }
    };
    let (mut buffer, mut bits) = (0u32, 0u32);
    for byte in bytes {
        buffer = ((buffer & 0xff) << 8) | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            push(buffer >> bits);
        }
    }
    if bits > 0 {
        push(buffer << (5 - bits));
    }
    text
}

/// Decodes base32 in upper or lower case; rejects padding, other characters, impossible lengths, and unused bits that
/// are set.
pub fn base32_decode(text: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() * 5 / 8);
    let (mut buffer, mut bits) = (0u32, 0u32);
    for symbol in text.bytes() {
        let value = match symbol {
            b'a'..=b'z' => symbol - b'a',
            b'A'..=b'Z' => symbol - b'A',
            b'2'..=b'7' => symbol - b'2' + 26,
            _ => return Err(Error::invalid("not base32: only a-z and 2-7 are allowed")),
        };
        buffer = ((buffer & 0xff) << 5) | u32::from(value);
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push((buffer >> bits) as u8);
        }
    }
    if bits >= 5 {
        return Err(Error::invalid("not base32: no text has this length"));
    }
    if buffer & ((1 << bits) - 1) != 0 {
        return Err(Error::invalid("not base32: bits after the last byte are set"));
    }
    Ok(bytes)
}

/// CRC-32 (IEEE 802.3, as in zip). Written here, without a table, because it only runs over 32 bytes.
pub(super) fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32_check_value() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32(b""), 0);
    }

    #[test]
    fn every_length_round_trips() {
        let bytes: Vec<u8> = (0..=255u8).rev().collect();
        for len in 0..bytes.len() {
            let part = &bytes[..len];
            let (b64, b32) = (base64_encode(part), base32_encode(part));
            assert_eq!(base64_decode_strict(&b64).unwrap(), part);
            assert_eq!(base64_decode(b64.trim_end_matches('=')).unwrap(), part);
            assert_eq!(base64_decode_secret(&b64).unwrap().as_bytes(), part);
            let c_text = base64_encode_secret_c(part).unwrap();
            assert_eq!(c_text.as_bytes(), [b64.as_bytes(), b"\0"].concat());
            assert_eq!(base32_decode(&b32).unwrap(), part);
            assert_eq!(base32_decode(&b32.to_uppercase()).unwrap(), part);
        }
    }

    #[test]
    fn missing_padding_is_accepted_and_wrong_padding_is_not() {
        assert_eq!(base64_decode("AAA").unwrap(), [0, 0]);
        assert_eq!(base64_decode("AA").unwrap(), [0]);
        for text in ["A", "AA=", "AAA==", "AAAA=", "=", "==", "A===", "AAAAA", "AAB", "AB", "AB==", "AA\0A"] {
            assert!(base64_decode(text).is_err(), "{text:?}");
            assert!(base64_decode_secret(text).is_err(), "{text:?}");
        }
        assert!(base64_decode_strict("AAA").is_err());
    }

    #[test]
    fn base32_is_strict() {
        assert_eq!(base32_decode("nbswy3dp").unwrap(), b"hello");
        // Lengths 1, 3 and 6 modulo 8 are impossible; "ab" has unused bits set.
        for text in ["a", "aaa", "aaaaaa", "ab", "aa======", "a a", "é", "a\0"] {
            assert!(base32_decode(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn messages_do_not_quote_the_input() {
        for text in ["QQ+Q", "QQQ=Q", "QQ Q", "QQR=", "QQQQQ"] {
            assert!(!base64_decode(text).unwrap_err().message.contains("QQ"));
        }
    }
}
