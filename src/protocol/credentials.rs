//! User name and password for bridges that require authentication.

use crate::error::{Error, Result};
use crate::secret::Secret;

/// User name and password, both wiped when dropped.
pub struct Credentials {
    user: Secret,
    password: Secret,
}

impl Credentials {
    /// Accepts any non-empty text without control characters.
    pub fn new(user: &str, password: &str) -> Result<Self> {
        for (what, text) in [("user", user), ("password", password)] {
            if text.is_empty() || text.chars().any(|c| c.is_control() || c == '\u{2028}' || c == '\u{2029}') {
                return Err(Error::invalid(format!("the {what} is empty or has control characters")));
            }
        }
        Ok(Credentials { user: quoted(user), password: quoted(password) })
    }

    /// The user name, quoted and ready to send.
    pub fn user(&self) -> &[u8] {
        self.user.as_bytes()
    }

    /// The password, quoted and ready to send.
    pub fn password(&self) -> &[u8] {
        self.password.as_bytes()
    }
}

fn quoted(text: &str) -> Secret {
    let mut out = Vec::with_capacity(text.len() * 2 + 2);
    out.push(b'"');
    for byte in text.bytes() {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b'"');
    Secret::from_vec(out)
}
