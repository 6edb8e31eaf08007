//! User and password.

use crate::error::{Error, Result};
use crate::secret::Secret;

/// User and password of a bridge that wants them.
pub struct Credentials {
    user: Secret,
    password: Secret,
}

impl Credentials {
    /// Checks both: any text without control characters.
    pub fn new(user: &str, password: &str) -> Result<Self> {
        for (what, text) in [("user", user), ("password", password)] {
            if text.is_empty() || text.chars().any(|c| c.is_control() || c == '\u{2028}' || c == '\u{2029}') {
                return Err(Error::invalid(format!("the {what} is empty or has control characters")));
            }
        }
        Ok(Credentials { user: quoted(user), password: quoted(password) })
    }

    /// The user's name in quotes, ready to be sent.
    pub fn user(&self) -> &[u8] {
        self.user.as_bytes()
    }

    /// The password in quotes, ready to be sent.
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
