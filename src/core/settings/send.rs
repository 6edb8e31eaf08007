//! Options for sending one datagram.

use crate::core::settings::options::{Options, Owner};
use crate::error::Result;
use crate::protocol::datagram::SendOptions;

impl SendOptions {
    /// Fails for options that are not for a datagram.
    pub fn parse(options: &Options) -> Result<Self> {
        options.check_owner(Owner::Send)?;
        Ok(SendOptions {
            ports: options.ports(),
            protocol: options.number("protocol"),
            send_tags: options.number("send_tags"),
            tag_threshold: options.number("tag_threshold"),
            expires: options.number("expires"),
            send_leaseset: options.flag("send_leaseset"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::settings::testing::options;
    use crate::protocol::ports::Ports;

    #[test]
    fn every_option_of_a_datagram() {
        assert!(!SendOptions::parse(&options(&[])).unwrap().any());
        let set = options(&[
            ("send_leaseset", "0"),
            ("expires", "86400"),
            ("from_port", "0"),
            ("to_port", "65535"),
            ("protocol", "255"),
            ("send_tags", "3"),
            ("tag_threshold", "4"),
        ]);
        let wanted = SendOptions {
            ports: Ports { from: Some(0), to: Some(65535) },
            protocol: Some(255),
            send_tags: Some(3),
            tag_threshold: Some(4),
            expires: Some(86400),
            send_leaseset: Some(false),
        };
        assert_eq!(SendOptions::parse(&set).unwrap(), wanted);
        for foreign in ["in_band", "a.b"] {
            let wrong = SendOptions::parse(&options(&[(foreign, "1")])).unwrap_err();
            assert_eq!(wrong.message, format!("option {foreign} is not for a datagram"));
        }
    }
}
