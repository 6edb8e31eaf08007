//! The checked arguments of a tunnel, until its destination is open.

use std::net::TcpListener;
use std::sync::Arc;

use crate::core::controller::Controller;
use crate::core::destination::DestHandle;
use crate::core::drive::{Limit, Pending};
use crate::core::listener::Listener;
use crate::core::settings::{ConnectOptions, DestOptions, Endpoint, Limits, ListenerOptions, Options, TunnelOptions};
use crate::core::tunnel::sides::{MakeSend, Receive, Send};
use crate::core::tunnel::tunnel::Tunnel;
use crate::error::{Error, Operation, Result};
use crate::identity::Target;
use crate::sys::Place;

/// A tunnel whose destination has to be opened first.
pub struct TunnelPlan {
    kind: Kind,
    limits: Limits,
    dest: DestOptions,
}

enum Kind {
    /// From I2P to a TCP address or unix socket.
    Server(Vec<Place>),
    /// From a listening socket to an I2P address.
    Client(TcpListener, Target),
}

impl TunnelPlan {
    /// A tunnel from I2P to `target`: a port, HOST:PORT or path.
    pub fn server(target: &str, options: &Options) -> Result<Self> {
        let TunnelOptions { limits, bind, dest } = TunnelOptions::parse(options)?;
        let places = places(target, "target")?;
        if bind.is_some() {
            return Err(Error::invalid("option bind is for tunnel clients"));
        }
        Ok(TunnelPlan { kind: Kind::Server(places), limits, dest })
    }

    /// A tunnel from `listen`, a port or HOST:PORT, to `address` over I2P. Binds the port at once.
    pub fn client(listen: &str, address: &str, options: &Options) -> Result<Self> {
        let TunnelOptions { limits, bind, dest } = TunnelOptions::parse(options)?;
        let target = Target::parse(address)?;
        let mut addresses = Vec::new();
        for place in places(&with_bind(listen, bind.as_deref())?, "listen")? {
            match place {
                Place::Tcp(address) => addresses.push(address),
                Place::Unix(_) => return Err(Error::invalid("listen is a port or HOST:PORT")),
            }
        }
        let system = |error| Error::io(Operation::None, &format!("cannot listen on {listen}"), &error);
        let listener = TcpListener::bind(&*addresses).map_err(system)?;
        listener.set_nonblocking(true).map_err(system)?;
        Ok(TunnelPlan { kind: Kind::Client(listener, target), limits, dest })
    }

    /// Starts opening the tunnel on its own destination.
    pub fn open(self, controller: &Arc<Controller>, name: &str, limit: Limit) -> Result<Pending<Tunnel>> {
        let TunnelPlan { kind, limits, dest } = self;
        Ok(controller.open_dest_with(name, dest, limit)?.then(move |dest| kind.begin(limits, dest)))
    }
}

impl Kind {
    /// Starts the tunnel, once its destination is open.
    fn begin(self, limits: Limits, dest: DestHandle) -> Result<Tunnel> {
        let dest = Arc::new(dest);
        match self {
            Kind::Server(places) => {
                let listener = Listener::open_with(&dest, 64, ListenerOptions::default())?;
                let make: MakeSend = Box::new(move || Ok(Send::Places(places.clone())));
                Tunnel::begin(Receive::Listener(listener), make, limits, Some(dest), None, 0)
            }
            Kind::Client(listener, target) => {
                let port = listener.local_addr().map_or(0, |address| address.port());
                // Weak, because in a child of fork(2) nothing drops what the thread owns.
                let (from, to) = (Arc::downgrade(&dest), target.clone());
                let make: MakeSend = Box::new(move || {
                    let gone = || Error::closed(Operation::Connect, "the tunnel was closed");
                    let from = from.upgrade().ok_or_else(gone)?;
                    let pending = from.connect_with(to.clone(), ConnectOptions::default(), Limit::Default)?;
                    Ok(Send::Pending(Box::new(pending)))
                });
                Tunnel::begin(Receive::Socket(listener.into()), make, limits, Some(dest), Some(target), port)
            }
        }
    }
}

/// Resolves a target or an address to listen on. A bare port is on 127.0.0.1.
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

fn with_bind(listen: &str, bind: Option<&str>) -> Result<String> {
    let bare = listen.bytes().all(|b| b.is_ascii_digit());
    match bind {
        Some(bind) if bare && bind.contains(':') => Ok(format!("[{bind}]:{listen}")),
        Some(bind) if bare => Ok(format!("{bind}:{listen}")),
        Some(_) => Err(Error::invalid("option bind and a host in listen exclude each other")),
        None => Ok(listen.to_owned()),
    }
}
