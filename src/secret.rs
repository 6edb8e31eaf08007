//! Bytes that must not outlive their use: key material, passwords, lines that contain them.

use std::fmt;

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
