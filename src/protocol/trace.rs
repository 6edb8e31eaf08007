//! Collects the conversation with the bridge as lines for the log.

/// Redacted lines for the log, collected only while there is a log hook.
#[derive(Debug, Default)]
pub struct Trace {
    wanted: bool,
    lines: Vec<String>,
}

impl Trace {
    /// Starts collecting at once, until [`Trace::want`] turns it off.
    pub fn collecting() -> Self {
        Trace { wanted: true, lines: Vec::new() }
    }

    /// Turns collecting on or off.
    pub fn want(&mut self, wanted: bool) {
        self.wanted = wanted;
        if !wanted {
            self.lines.clear();
        }
    }

    /// Adds a line; `line` is not called if nothing is collected.
    pub fn add(&mut self, line: impl FnOnce() -> String) {
        if self.wanted {
            self.lines.push(line());
        }
    }

    /// Takes the lines collected so far.
    pub fn take(&mut self) -> Vec<String> {
        std::mem::take(&mut self.lines)
    }
}
