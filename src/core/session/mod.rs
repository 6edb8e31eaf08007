//! One session on the router and the operations on it; nothing here reopens a lost session or knows the destination
//! that does.

mod abandoned_accepts;
mod accept;
mod call;
mod control_socket;
mod datagram_port;
mod header_trial;
pub(crate) mod last_session;
mod letting_go;
mod listening;
mod lookup;
mod lookup_ticket;
mod refusals;
mod session;
mod spec;
mod target_cache;

pub(crate) use abandoned_accepts::AbandonedAccept;
pub(crate) use accept::{accept, accept_pauses, accepted};
pub(crate) use call::Call;
pub(crate) use control_socket::ControlSocket;
pub(crate) use datagram_port::{DatagramPort, Path};
pub(crate) use header_trial::{Form, HeaderTrial};
pub(crate) use last_session::Claim;
pub(crate) use letting_go::LettingGo;
pub(crate) use listening::is_refusal;
pub(crate) use lookup::{Lookup, LookupOwner};
pub(crate) use session::{NewSession, Session, Signals};
pub(crate) use spec::SessionSpec;
pub(crate) use target_cache::Known;
