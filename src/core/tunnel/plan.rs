//! What a tunnel is to be: its arguments, checked, until its destination is open.

use std::net::TcpListener;
use std::sync::Arc;

use crate::core::controller::Controller;
use crate::core::destination::DestHandle;
use crate::core::drive::{Limit, Pending};
use crate::core::listener::Listener;
use crate::core::settings::{Endpoint, Options, Owner};
use crate::core::tunnel::limits::Limits;
use crate::core::tunnel::sides::{MakeSend, Receive, Send};
use crate::core::tunnel::tunnel::Tunnel;
use crate::error::{Error, Operation, Result};
use crate::identity::Target;
use crate::sys::Place;

/// A tunnel that needs its destination first.
pub enum TunnelPlan {
    /// From I2P to a socket address.
    Server(Vec<Place>, Limits),
    /// From a listening socket to an I2P address.
    Client(TcpListener, Target, Limits),
}

impl TunnelPlan {
    /// From I2P to `target`, a port, HOST:PORT or path.
    pub fn server(target: &str, options: &Options) -> Result<Self> {
        options.check_owner(Owner::Tunnel)?;
        let places = places(target, "target")?;
        if options.text("bind").is_some() {
            return Err(Error::invalid("option bind is for tunnel clients"));
        }
        Ok(TunnelPlan::Server(places, Limits::new(options, None)))
    }

    /// From `listen`, a port or HOST:PORT, to `address` over I2P. Binds the port at once.
    pub fn client(listen: &str, address: &str, options: &Options) -> Result<Self> {
        options.check_owner(Owner::Tunnel)?;
        let target = Target::parse(address)?;
        let mut addresses = Vec::new();
        for place in places(&with_bind(listen, options)?, "listen")? {
            match place {
                Place::Tcp(address) => addresses.push(address),
                Place::Unix(_) => return Err(Error::invalid("listen is a port or HOST:PORT")),
            }
        }
        let system = |error| Error::io(Operation::None, &format!("cannot listen on {listen}"), &error);
        let listener = TcpListener::bind(&*addresses).map_err(system)?;
        listener.set_nonblocking(true).map_err(system)?;
        Ok(TunnelPlan::Client(listener, target, Limits::new(options, None)))
    }

    /// Starts opening the tunnel, on a destination of its own.
    pub fn open(
        self,
        controller: &Arc<Controller>,
        name: &str,
        options: &Options,
        limit: Limit,
    ) -> Result<Pending<Tunnel>> {
        let mut dest = options.only(Owner::Destination);
        if dest.text("recover").is_none() {
            // A tunnel is to outlive the router, with a name or without.
            dest.set("recover", "1")?;
        }
        Ok(controller.open_dest(name, 1, &dest, limit)?.then(|dest| self.begin(dest)))
    }

    /// The tunnel, once its destination is there.
    fn begin(self, dest: DestHandle) -> Result<Tunnel> {
        let dest = Arc::new(dest);
        match self {
            TunnelPlan::Server(places, limits) => {
                let listener = Listener::open(&dest, 64, &Options::default())?;
                let make: MakeSend = Box::new(move || Ok(Send::Places(places.clone())));
                Tunnel::begin(Receive::Listener(listener), make, limits, Some(dest), None, 0)
            }
            TunnelPlan::Client(listener, target, limits) => {
                let port = listener.local_addr().map_or(0, |address| address.port());
                // In a child of fork(2) nobody would drop what the thread has.
                let (from, to) = (Arc::downgrade(&dest), target.wire().to_owned());
                let make: MakeSend = Box::new(move || {
                    let gone = || Error::closed(Operation::Connect, "the tunnel was closed");
                    let pending = from.upgrade().ok_or_else(gone)?.connect(&to, &Options::default(), Limit::Default)?;
                    Ok(Send::Pending(Box::new(pending)))
                });
                Tunnel::begin(Receive::Socket(listener.into()), make, limits, Some(dest), Some(target), port)
            }
        }
    }
}

/// The address of a target or a port to listen on: a bare port is one of 127.0.0.1.
fn places(text: &str, what: &str) -> Result<Vec<Place>> {
    let full = match text.bytes().all(|b| b.is_ascii_digit()) && !text.is_empty() {
        true => format!("127.0.0.1:{text}"),
        false => text.to_owned(),
    };
    if !full.starts_with('/') && !full.starts_with("unix:") && !full.contains(':') {
        return Err(Error::invalid(format!("{what} needs a port: PORT, HOST:PORT or [IPV6]:PORT")));
    }
    Endpoint::parse_local(&full)?.resolve()
}

fn with_bind(listen: &str, options: &Options) -> Result<String> {
    let bare = listen.bytes().all(|b| b.is_ascii_digit());
    match options.text("bind") {
        Some(bind) if bare && bind.contains(':') => Ok(format!("[{bind}]:{listen}")),
        Some(bind) if bare => Ok(format!("{bind}:{listen}")),
        Some(_) => Err(Error::invalid("option bind and a host in listen exclude each other")),
        None => Ok(listen.to_owned()),
    }
}
