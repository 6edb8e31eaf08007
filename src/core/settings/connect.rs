//! Options for connecting one stream.

use crate::core::settings::options::{Options, Owner};
use crate::error::Result;
use crate::protocol::command::RouterOption;
use crate::protocol::ports::Ports;

#[derive(Default)]
pub(crate) struct ConnectOptions {
    pub ports: Ports,
    /// Streaming options, passed through to the router.
    pub router: Vec<RouterOption>,
}

impl ConnectOptions {
    pub(crate) fn parse(options: &Options) -> Result<Self> {
        options.check_owner(Owner::Connect)?;
        Ok(ConnectOptions { ports: options.ports(), router: options.router_options() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::settings::testing::options;

    #[test]
    fn ports_and_options_of_the_router() {
        let set = options(&[("b.x", "1"), ("to_port", "80"), ("a.x", "2")]);
        let parsed = ConnectOptions::parse(&set).unwrap();
        assert_eq!(parsed.ports, Ports { from: None, to: Some(80) });
        assert_eq!(parsed.router, [("b.x", "1"), ("a.x", "2")].map(|(key, value)| (key.to_owned(), value.into())));
        let wrong = ConnectOptions::parse(&options(&[("in_depth", "1")])).err().unwrap();
        assert_eq!(wrong.message, "option in_depth is not for a connect");
    }
}
