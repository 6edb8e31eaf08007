//! I2CP ports, as in FROM_PORT and TO_PORT.

/// I2CP ports of a session, stream or datagram; the router chooses those that are not given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ports {
    /// FROM_PORT: the sender's port.
    pub from: Option<u16>,
    /// TO_PORT: the receiver's port.
    pub to: Option<u16>,
}

impl Ports {
    /// Whether at least one port is given.
    pub fn any(&self) -> bool {
        self.from.is_some() || self.to.is_some()
    }

    /// These ports, and those of `others` for the ones that are not given.
    #[must_use]
    pub fn or(self, others: Ports) -> Ports {
        Ports { from: self.from.or(others.from), to: self.to.or(others.to) }
    }
}
