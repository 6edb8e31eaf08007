//! Destinations and private key blobs: layout, addresses, generation.
//!
//! Nothing here signs or encrypts. The bridge only needs blobs that every program accepts as genuine, and the
//! public part of the blobs it is given.

use crate::encoding::{base32_encode, base64_encode};
use crate::sha256::sha256;
use std::collections::hash_map::RandomState;
use std::fs::File;
use std::hash::{BuildHasher, Hasher};
use std::io::Read;

/// Bytes in front of the certificate's payload; also the length of a destination with a NULL certificate.
const HEADER: usize = 387;

/// What one signature type needs: lengths of public key, private key and signature.
struct SigType {
    public: usize,
    private: usize,
    signature: usize,
}

fn sig_type(code: u16) -> Option<SigType> {
    let (public, private, signature) = match code {
        0 => (128, 20, 40),
        1 => (64, 32, 64),
        2 => (96, 48, 96),
        3 => (132, 66, 132),
        4 => (256, 512, 256),
        5 => (384, 768, 384),
        6 => (512, 1024, 512),
        7 | 8 | 11 => (32, 32, 64),
        9 => (64, 32, 64),
        10 => (128, 64, 128),
        _ => return None,
    };
    Some(SigType { public, private, signature })
}

/// Whether the bridge can generate keys of this signature type.
pub fn can_generate(code: u16) -> bool {
    matches!(code, 0..=3 | 7 | 8 | 11)
}

/// Fills `out` with random bytes from the system.
pub fn random(out: &mut [u8]) {
    if let Ok(mut source) = File::open("/dev/urandom") {
        if source.read_exact(out).is_ok() {
            return;
        }
    }
    // No such device: the hasher's per-process keys are random enough for keys that protect nothing.
    for (i, chunk) in out.chunks_mut(8).enumerate() {
        let mut hasher = RandomState::new().build_hasher();
        hasher.write_usize(i);
        let bytes = hasher.finish().to_be_bytes();
        chunk.copy_from_slice(&bytes[..chunk.len()]);
    }
}

/// A key pair as SAM shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPair {
    /// The public destination.
    pub public: Vec<u8>,
    /// The private blob: destination, encryption private key, signing private key.
    pub blob: Vec<u8>,
}

/// A new key pair of the given signature type, `None` when [`can_generate`] says no.
pub fn generate(code: u16) -> Option<KeyPair> {
    if !can_generate(code) {
        return None;
    }
    let kind = sig_type(code)?;
    let mut filler = [0u8; 32];
    random(&mut filler);
    // The repeated filler is what current routers do: it compresses well.
    let mut public: Vec<u8> = filler.iter().copied().cycle().take(384).collect();
    let mut key = vec![0u8; kind.public];
    random(&mut key);
    let inline = kind.public.min(128);
    public[384 - inline..].copy_from_slice(&key[..inline]);
    if code == 0 {
        public.extend_from_slice(&[0, 0, 0]);
    } else {
        let excess = &key[inline..];
        public.push(5);
        public.extend_from_slice(&(4 + excess.len() as u16).to_be_bytes());
        public.extend_from_slice(&code.to_be_bytes());
        public.extend_from_slice(&[0, 0]);
        public.extend_from_slice(excess);
    }
    let mut private = vec![0u8; 256 + kind.private];
    random(&mut private);
    // An all-zero signing key would announce an offline section.
    if let Some(last) = private.last_mut() {
        *last |= 1;
    }
    let mut blob = public.clone();
    blob.extend_from_slice(&private);
    Some(KeyPair { public, blob })
}

/// The length of the destination at the start of `data`.
fn destination_length(data: &[u8]) -> Option<usize> {
    let high = *data.get(385)?;
    let low = *data.get(386)?;
    let length = HEADER + usize::from(u16::from_be_bytes([high, low]));
    (length <= data.len()).then_some(length)
}

/// Whether `data` is exactly one destination.
pub fn is_destination(data: &[u8]) -> bool {
    destination_length(data) == Some(data.len())
}

/// Checks a private blob by its lengths and cuts the public destination out of it.
pub fn public_of_blob(blob: &[u8]) -> Option<Vec<u8>> {
    let length = destination_length(blob)?;
    let u16_at = |at: usize| Some(u16::from_be_bytes([*blob.get(at)?, *blob.get(at + 1)?]));
    let (code, encryption) = match blob.get(384)? {
        0 if length == HEADER => (0, 0),
        5 if length >= HEADER + 4 => (u16_at(387)?, u16_at(389)?),
        _ => return None,
    };
    let kind = sig_type(code)?;
    // Type 4 keys are 32 bytes on most routers and 256 on some.
    let choices: &[usize] = if encryption == 4 { &[32, 256] } else { &[256] };
    choices.iter().any(|n| is_exact(blob, length + n, &kind)).then(|| blob[..length].to_vec())
}

/// Whether a signing key at `start`, and an offline section when the key is all zero, end the blob exactly.
fn is_exact(blob: &[u8], start: usize, kind: &SigType) -> bool {
    let end = start + kind.private;
    let Some(key) = blob.get(start..end) else {
        return false;
    };
    if key.iter().any(|b| *b != 0) {
        return blob.len() == end;
    }
    let Some(code) = blob.get(end + 4..end + 6) else {
        return false;
    };
    let Some(transient) = sig_type(u16::from_be_bytes([code[0], code[1]])) else {
        return false;
    };
    blob.len() == end + 6 + transient.public + kind.signature + transient.private
}

/// The base64 text of a destination or blob.
pub fn text(data: &[u8]) -> String {
    base64_encode(data)
}

/// The `….b32.i2p` address of a destination.
pub fn b32_address(destination: &[u8]) -> String {
    format!("{}.b32.i2p", base32_encode(&sha256(destination)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::base64_decode;

    fn hex(data: &[u8]) -> String {
        data.iter().map(|b| format!("{b:02x}")).collect()
    }

    /// Ed25519 with repeated filler.
    const ED25519: &str = "dPu45WnZodKffMFs8f~pO9vdGDZYvx8UTEJ8rZ5Ezmp0-7jladmh0p98wWzx~-k7290YNli~HxRMQnytnkTOanT7uOVp2aHSn3zBbPH~6Tvb3Rg2WL8fFExCfK2eRM5qdPu45WnZodKffMFs8f~pO9vdGDZYvx8UTEJ8rZ5Ezmp0-7jladmh0p98wWzx~-k7290YNli~HxRMQnytnkTOanT7uOVp2aHSn3zBbPH~6Tvb3Rg2WL8fFExCfK2eRM5qdPu45WnZodKffMFs8f~pO9vdGDZYvx8UTEJ8rZ5Ezmp0-7jladmh0p98wWzx~-k7290YNli~HxRMQnytnkTOanT7uOVp2aHSn3zBbPH~6Tvb3Rg2WL8fFExCfK2eRM5qdPu45WnZodKffMFs8f~pO9vdGDZYvx8UTEJ8rZ5Ezmp0-7jladmh0p98wWzx~-k7290YNli~HxRMQnytnkTOamf0UrGG6NPrKIetudADKM2vYsADa0KDv-DkcgX~iuXVBQAEAAcAAA==";
    /// DSA with a NULL certificate.
    const DSA: &str = "QWqr~lzEbfp9b1Z9uRYcmmHRsFPiTeRvwdSj8812J4W2jABwlnLhLcx3ymINHTIAeMVkBizJ4Ll9kit-EWBJ8sfoyvrXobZlStqZqupRvpe~wLrnaBLgr22NRBSfcGE6HPK2O0MeOm~4gk3-pjE6GivTNZd6uBCZdIC8ugnV7BA5jwLI1ZqJngHI6w2AShtuGYdBDlXMouiG8eW3-J-GRVN9Lw7OyBddDP3iQge5STPIS2R4PTsHQXzecV1QC8YwInc5v0NbCk9-0dvhrY0SkzYloDNAREyu0RSKahlJ3Nop5umjNjSj-AbFNzBdjENpBlmdY0OewpfFkt9iohw~R7INj0ADsmd7lm-SaKyD9bL7Z2cNyltzjDqKaZTK~puBGTkj6znmhGRZ38igTby3auz~jmysRtly7rfBEbdYN-z~~bSYC4xx-ye3Zaaf0KheN1baviNIOUsrQv0rQ7d3~nt1W~Svc2UhgkUN5Nbhgt7KYQnXiKxJp1is40V4yxHWAAAA";

    #[test]
    fn known_addresses() {
        let cases = [
            (
                ED25519,
                391,
                "82ff0ed99e818fd2842a124b8219c3f34cef550a9bbc5a8b221b1d4190f51228",
                "ql7q5wm6qgh5fbbkcjfyegod6ngo6vikto6fvczcdmoudehvciua.b32.i2p",
            ),
            (
                DSA,
                387,
                "0d14c5391337ade9186cd97c5c555d8a6e83c836abc83ee8ad7dab585ffe7d63",
                "bukmkoitg6w6sgdm3f6fyvk5rjxihsbwvped52fnpwvvqx76pvrq.b32.i2p",
            ),
        ];
        for (b64, length, hash, address) in cases {
            let raw = base64_decode(b64).unwrap();
            assert!(is_destination(&raw));
            assert_eq!(raw.len(), length);
            assert_eq!(hex(&sha256(&raw)), hash);
            assert_eq!(b32_address(&raw), address);
        }
    }

    #[test]
    fn generated_layouts() {
        for (code, public, blob) in
            [(0u16, 387, 663), (1, 391, 679), (2, 391, 695), (3, 395, 717), (7, 391, 679), (11, 391, 679)]
        {
            let pair = generate(code).unwrap();
            assert_eq!((pair.public.len(), pair.blob.len()), (public, blob));
            assert!(is_destination(&pair.public));
            assert_eq!(public_of_blob(&pair.blob), Some(pair.public.clone()));
            assert_ne!(generate(code).unwrap().public, pair.public);
        }
        let pair = generate(7).unwrap();
        assert!(text(&pair.public).ends_with("BQAEAAcAAA=="));
        assert_eq!(text(&pair.public).len(), 524);
        assert_eq!(text(&pair.blob).len(), 908);
        assert_eq!(generate(99), None);
    }

    #[test]
    fn malformed_blobs() {
        let good = generate(7).unwrap().blob;
        for cut in [0, 1, 386, 387, 391, 678] {
            assert_eq!(public_of_blob(&good[..cut]), None, "{cut}");
        }
        let mut long = good.clone();
        long.push(0);
        assert_eq!(public_of_blob(&long), None);
        let mut past_end = good.clone();
        past_end[385] = 0xff;
        assert_eq!(public_of_blob(&past_end), None);
        let mut unknown = good.clone();
        unknown[388] = 99;
        assert_eq!(public_of_blob(&unknown), None);
        // All zero means an offline section must follow.
        let mut zero = good.clone();
        zero[647..].fill(0);
        assert_eq!(public_of_blob(&zero), None);
        zero.extend_from_slice(&[0, 0, 0, 1, 0, 7]);
        zero.extend_from_slice(&[1; 32 + 64 + 32]);
        assert_eq!(zero.len(), 813);
        assert!(public_of_blob(&zero).is_some());
    }
}
