//! The conversation with the bridge as lines for a log.

/// Lines for the log, redacted; gathered only when somebody listens.
#[derive(Debug, Default)]
pub struct Trace {
    wanted: bool,
    lines: Vec<String>,
}

impl Trace {
    /// One that gathers lines until it is said that nobody listens.
    pub fn listening() -> Self {
        Trace { wanted: true, lines: Vec::new() }
    }

    /// Says whether anybody listens.
    pub fn want(&mut self, wanted: bool) {
        self.wanted = wanted;
        if !wanted {
            self.lines.clear();
        }
    }

    /// Adds a line.
    pub fn add(&mut self, line: impl FnOnce() -> String) {
        if self.wanted {
            self.lines.push(line());
        }
    }

    /// Takes the lines that have gathered.
    pub fn take(&mut self) -> Vec<String> {
        std::mem::take(&mut self.lines)
    }
}
