//! Secrets of our own that a router may repeat in what it says: they are taken out of its lines before anything is made
//! of them, so that no message, log line or reply has them.

use crate::secret::{Gathered, Secret, SecretText, PRIVATE};

/// Shorter values are in many lines by chance, and are no secrets.
const SHORTEST: usize = 4;

/// A line that was cut off may end within a value. So much of it is enough to recognise that.
const SHORTEST_START: usize = 8;

/// The values to be taken out.
#[derive(Clone, Default)]
pub struct Hidden(Vec<SecretText>);

impl Hidden {
    /// Copies the values.
    pub fn new<'a>(values: impl Iterator<Item = &'a str>) -> Self {
        // A line has words like KEY=VALUE, so the padding of a value in base64 may be taken for an empty one.
        let values = values.map(|value| value.trim_end_matches('='));
        Hidden(values.filter(|value| value.len() >= SHORTEST).map(SecretText::from).collect())
    }

    /// `text` with all values replaced.
    pub fn out_of(&self, text: Secret) -> Secret {
        if self.0.is_empty() {
            return text;
        }
        let mut kept = Gathered::default();
        let mut rest = text.as_bytes();
        while let Some((first, after)) = rest.split_first() {
            rest = match self.at_the_start_of(rest) {
                0 => {
                    kept.extend(&[*first]);
                    after
                }
                length => {
                    kept.extend(PRIVATE.as_bytes());
                    rest.get(length..).unwrap_or_default()
                }
            };
        }
        kept.take()
    }

    /// Length of the value that `text` starts with; 0 if there is none.
    fn at_the_start_of(&self, text: &[u8]) -> usize {
        let length = |value: &[u8]| match text.len() {
            whole if text.starts_with(value) => value.len().min(whole),
            cut @ SHORTEST_START.. if value.starts_with(text) => cut,
            _ => 0,
        };
        self.0.iter().map(|value| length(value.as_str().as_bytes())).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_taken_out() {
        let hidden = Hidden::new(["c2VjcmV0c2VjcmV0==", "c2VjcmV0c2VjcmV0-longer", "abc", "pass"].into_iter());
        for (text, shown) in [
            ("", ""),
            ("nothing of that", "nothing of that"),
            ("abc", "abc"),
            ("no 'c2VjcmV0c2VjcmV0==', no", "no '<private>==', no"),
            ("passc2VjcmV0c2VjcmV0-longerpass", "<private><private><private>"),
            ("cut off: c2VjcmV0", "cut off: <private>"),
            ("cut off: c2VjcmV", "cut off: c2VjcmV"),
            ("c2VjcmV0 is not at the end", "c2VjcmV0 is not at the end"),
        ] {
            assert_eq!(hidden.out_of(Secret::from_slice(text.as_bytes())).as_bytes(), shown.as_bytes());
        }
    }
}
