//! One session on the router, and what is asked on it.

mod accept;
mod accept_pool;
mod call;
mod control_socket;
mod datagram_port;
mod lookup;
mod lookup_ticket;
mod session;
mod spec;

pub use accept::{accept, accepted};
pub use accept_pool::AbandonedAccept;
pub use call::Call;
pub use control_socket::ControlSocket;
pub use datagram_port::{DatagramPort, Path};
pub use lookup::Lookup;
pub use lookup_ticket::Ticket;
pub use session::{NewSession, Session, Signals};
pub use spec::SessionSpec;
