//! Tunnels: any TCP program on I2P, and what can go wrong with its connections.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod destination;
mod ends;
mod limits;
mod opening;
mod relay;
mod report;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use crate::common::{self, *};
use i2psock::core::drive::Pending;
use i2psock::core::settings::{Options, TunnelOptions};
use i2psock::core::tunnel::{MakeSend, Receive, Tunnel, TunnelPlan};
use i2psock::error::Result;
use i2psock::sys::Place;

fn tunnel_of(pending: Pending<Tunnel>) -> Result<Tunnel> {
    pending.product()
}

fn try_server(controller: &Control, target: &str, options: &Options) -> Result<Tunnel> {
    tunnel_of(TunnelPlan::server(target, options)?.open(controller, "", LIMIT)?)
}

fn try_client(controller: &Control, listen: &str, address: &str, options: &Options) -> Result<Tunnel> {
    tunnel_of(TunnelPlan::client(listen, address, options)?.open(controller, "", LIMIT)?)
}

fn address(tunnel: &Tunnel) -> String {
    base64(tunnel.dest().unwrap()).to_owned()
}

/// A TCP server that hands each connection to a thread of its own.
struct Server {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    fn start(handler: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, handler) = (Arc::new(AtomicBool::new(false)), Arc::new(handler));
        let stopping = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopping.load(Ordering::SeqCst) {
                    break;
                }
                let (stream, handler) = (stream.unwrap(), Arc::clone(&handler));
                stream.set_read_timeout(Some(LONG)).unwrap();
                std::thread::spawn(move || handler(stream));
            }
        });
        Server { address, stop, thread: Some(thread) }
    }

    /// Sends everything back; the end, too.
    fn echo() -> Self {
        Server::start(|mut stream| {
            let mut writer = stream.try_clone().unwrap();
            drop(std::io::copy(&mut stream, &mut writer));
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
        drop(self.thread.take().unwrap().join());
    }
}

/// A server tunnel and a client tunnel that leads to it.
fn both(controller: &Control, target: &Server, entries: &[(&str, &str)]) -> (Tunnel, Tunnel) {
    let server = try_server(controller, &target.address.to_string(), &options(entries)).unwrap();
    let client = try_client(controller, "0", &address(&server), &options(entries)).unwrap();
    (server, client)
}

fn call(tunnel: &Tunnel) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", tunnel.port())).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.set_write_timeout(Some(LONG)).unwrap();
    stream
}

fn round_trip(stream: &mut TcpStream, seed: u64, size: usize) {
    let mut rng = Rng::new(seed);
    let bytes: Vec<u8> = (0..size).map(|_| rng.next() as u8).collect();
    let mut writer = stream.try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| writer.write_all(&bytes).unwrap());
        let mut back = vec![0; size];
        stream.read_exact(&mut back).unwrap();
        assert!(back == bytes, "payload differs");
    });
}

fn count(tunnel: &Tunnel, pick: impl Fn(&i2psock::core::tunnel::Counts) -> &std::sync::atomic::AtomicU64) -> u64 {
    pick(tunnel.counts()).load(Ordering::Relaxed)
}

type Far = i2psock::core::tunnel::Send;

/// A tunnel without I2P: from a TCP port to what `make` makes.
fn local(make: impl FnMut() -> Result<Far> + Send + 'static, entries: &[(&str, &str)]) -> (Tunnel, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let make: MakeSend = Box::new(make);
    let limits = TunnelOptions::parse(&options(entries)).unwrap().limits;
    (Tunnel::begin(Receive::Socket(listener.into()), make, limits, None, None, 0).unwrap(), address)
}

fn reach(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.set_write_timeout(Some(LONG)).unwrap();
    stream
}

/// A tunnel without I2P to a TCP target.
fn local_to_tcp(entries: &[(&str, &str)]) -> (Tunnel, SocketAddr, TcpListener) {
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = Place::Tcp(target.local_addr().unwrap());
    let (tunnel, address) = local(move || Ok(Far::Places(vec![place.clone()])), entries);
    (tunnel, address, target)
}

fn taken(target: &TcpListener) -> TcpStream {
    let listener = target.try_clone().unwrap();
    let stream = bounded("accepting", move || listener.accept().unwrap().0);
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.set_write_timeout(Some(LONG)).unwrap();
    stream
}

/// Whether a connection through it works.
fn works(tunnel: &Tunnel) -> bool {
    let mut stream = call(tunnel);
    stream.write_all(b"x").is_ok() && matches!(stream.read(&mut [0]), Ok(1))
}
