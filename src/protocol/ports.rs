//! I2CP ports.

/// I2CP ports of a session or stream; what is not given is the router's business.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ports {
    /// FROM_PORT.
    pub from: Option<u16>,
    /// TO_PORT.
    pub to: Option<u16>,
}

impl Ports {
    /// Whether any is given.
    pub fn any(&self) -> bool {
        self.from.is_some() || self.to.is_some()
    }
}
