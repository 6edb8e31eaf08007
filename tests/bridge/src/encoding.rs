//! I2P's base64 (`-` and `~` in place of `+` and `/`, always padded) and base32 (lower case, unpadded).

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-~";
const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// Encodes with padding.
pub fn base64_encode(data: &[u8]) -> String {
    let mut out = String::with_capacity(data.len().div_ceil(3) * 4);
    for group in data.chunks(3) {
        let at = |i: usize| u32::from(group.get(i).copied().unwrap_or(0));
        let bits = (at(0) << 16) | (at(1) << 8) | at(2);
        for i in 0..4usize {
            if i <= group.len() {
                let index = (bits >> (18 - 6 * i)) & 63;
                out.push(char::from(BASE64[index as usize]));
            } else {
                out.push('=');
            }
        }
    }
    out
}

fn base64_digit(c: u8) -> Option<u32> {
    Some(u32::from(match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a' + 26,
        b'0'..=b'9' => c - b'0' + 52,
        b'-' => 62,
        b'~' => 63,
        _ => return None,
    }))
}

/// Decodes padded text; anything outside the alphabet, a wrong length or misplaced padding gives `None`.
/// Unused bits of the last character may be set, because routers accept that too.
pub fn base64_decode(text: &str) -> Option<Vec<u8>> {
    let bytes = text.as_bytes();
    if bytes.len() % 4 != 0 {
        return None;
    }
    let groups = bytes.len() / 4;
    let mut out = Vec::with_capacity(groups * 3);
    for (n, group) in bytes.chunks_exact(4).enumerate() {
        let padding = group.iter().rev().take_while(|c| **c == b'=').count();
        if padding > 2 || (padding > 0 && n + 1 != groups) {
            return None;
        }
        let mut bits = 0u32;
        for c in &group[..4 - padding] {
            bits = (bits << 6) | base64_digit(*c)?;
        }
        bits <<= 6 * padding;
        out.extend_from_slice(&bits.to_be_bytes()[1..4 - padding]);
    }
    Some(out)
}

/// Encodes without padding.
pub fn base32_encode(data: &[u8]) -> String {
    let mut out = String::with_capacity((data.len() * 8).div_ceil(5));
    let (mut bits, mut count) = (0u32, 0u32);
    for byte in data {
        bits = (bits << 8) | u32::from(*byte);
        count += 8;
        while count >= 5 {
            count -= 5;
            out.push(char::from(BASE32[((bits >> count) & 31) as usize]));
        }
        bits &= (1 << count) - 1;
    }
    if count > 0 {
        out.push(char::from(BASE32[((bits << (5 - count)) & 31) as usize]));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_pairs_both_ways() {
        let cases: [(&[u8], &str, &str); 7] = [
            (b"", "", ""),
            (&[0], "AA==", "aa"),
            (&[0xff], "~w==", "74"),
            (&[0xfb, 0xff], "-~8=", "7p7q"),
            (&[0xfb, 0xef, 0xbe], "----", "7px34"),
            (&[0xff, 0xff, 0xff], "~~~~", "77776"),
            (b"hello", "aGVsbG8=", "nbswy3dp"),
        ];
        for (raw, b64, b32) in cases {
            assert_eq!(base64_encode(raw), b64);
            assert_eq!(base64_decode(b64).as_deref(), Some(raw));
            assert_eq!(base32_encode(raw), b32);
        }
    }

    #[test]
    fn every_length_survives() {
        for len in 0..100u8 {
            let data: Vec<u8> = (0..len).map(|b| b.wrapping_mul(151)).collect();
            assert_eq!(base64_decode(&base64_encode(&data)), Some(data));
        }
    }

    #[test]
    fn rejects_what_is_not_base64() {
        for bad in ["A", "AA=", "AAA", "AAAA=", "+AAA", "/AAA", "AA AA", "AA=A", "====", "AA\nAA", "AA==AAAA", "ä=="] {
            assert_eq!(base64_decode(bad), None, "{bad:?}");
        }
    }
}
