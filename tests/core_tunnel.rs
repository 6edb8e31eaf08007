//! Tunnels: any TCP program on I2P, and what can go wrong with its connections.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

use common::*;
use i2psock::core::options::Options;
use i2psock::core::pending::{Pending, Product};
use i2psock::core::tunnel::{Tunnel, TunnelPlan};
use i2psock::error::{Result, Status};
use i2psock_bridge::{Bridge, Config};

fn tunnel_of(mut pending: Pending) -> Result<Tunnel> {
    pending.complete()?;
    pending.take_as("tunnel", |product| match product {
        Product::Tunnel(tunnel) => Ok(tunnel),
        other => Err(other),
    })
}

fn try_server(controller: &Control, target: &str, options: &Options) -> Result<Tunnel> {
    tunnel_of(Tunnel::open(controller, "", TunnelPlan::server(target, options)?, options, LIMIT)?)
}

fn try_client(controller: &Control, listen: &str, address: &str, options: &Options) -> Result<Tunnel> {
    tunnel_of(Tunnel::open(controller, "", TunnelPlan::client(listen, address, options)?, options, LIMIT)?)
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

#[test]
fn bytes_go_both_ways() {
    for keeper in ["1", "0"] {
        for splice in ["1", "0"] {
            let bridge = Bridge::start(Config::default()).unwrap();
            let controller = controller_with(&bridge, &[("keeper", keeper)]);
            let target = Server::echo();
            let (server, client) = both(&controller, &target, &[("splice", splice), ("buffer_size", "3000")]);
            for round in 0..5 {
                round_trip(&mut call(&client), round, 1 << round << 14);
            }
            wait_until("all are closed", || count(&client, |c| &c.now) + count(&server, |c| &c.now) == 0);
            let bytes: u64 = (0..5).map(|round| 1 << round << 14).sum();
            assert_eq!(count(&client, |c| &c.bytes_out), bytes);
            assert_eq!(count(&client, |c| &c.bytes_in), bytes);
            assert_eq!((count(&server, |c| &c.total), count(&server, |c| &c.failed)), (5, 0));
            assert!(client.next_error().is_none() && server.next_error().is_none());
        }
    }
}

/// A web server closes after its answer, which must be complete.
#[test]
fn an_answer_before_the_end_is_delivered() {
    let bridge = Bridge::start(Config::default()).unwrap();
    let controller = controller(&bridge);
    let target = Server::start(|mut stream| {
        let mut request = [0; 5];
        stream.read_exact(&mut request).unwrap();
        stream.write_all(&vec![b'a'; 700_000]).unwrap();
    });
    let (_server, client) = both(&controller, &target, &[]);
    for _ in 0..5 {
        let mut stream = call(&client);
        stream.write_all(b"GET /").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert_eq!(answer.len(), 700_000);
    }
}

#[test]
fn targets_that_refuse() {
    let bridge = Bridge::start(Config::default()).unwrap();
    let controller = controller(&bridge);
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server = try_server(&controller, &gone.to_string(), &Options::default()).unwrap();
    let client = try_client(&controller, "0", &address(&server), &Options::default()).unwrap();
    for _ in 0..3 {
        assert_eq!(call(&client).read(&mut [0]).unwrap_or(0), 0);
    }
    wait_until("the failures", || count(&server, |c| &c.failed) == 3);
    let error = server.next_error().unwrap();
    assert_eq!((error.status, error.os_error), (Status::Io, libc::ECONNREFUSED), "{error:?}");
    // A name with several addresses is tried to the end: localhost may begin with ::1, where nobody listens.
    let target = Server::echo();
    let text = format!("localhost:{}", target.address.port());
    let server = try_server(&controller, &text, &Options::default()).unwrap();
    let client = try_client(&controller, "0", &address(&server), &Options::default()).unwrap();
    round_trip(&mut call(&client), 1, 100);
    // Nobody at the other end.
    let nobody = try_client(&controller, "0", &destination(3), &Options::default()).unwrap();
    assert_eq!(call(&nobody).read(&mut [0]).unwrap_or(0), 0);
    wait_until("the failure", || count(&nobody, |c| &c.failed) == 1);
    assert_eq!(nobody.next_error().unwrap().tag, "CANT_REACH_PEER");
}

#[test]
fn those_above_the_limit_wait() {
    let bridge = Bridge::start(Config::default()).unwrap();
    let controller = controller(&bridge);
    let target = Server::echo();
    let server = try_server(&controller, &target.address.to_string(), &Options::default()).unwrap();
    let client = try_client(&controller, "0", &address(&server), &options(&[("nconnect", "1")])).unwrap();
    let streams: Vec<_> = (0..20).map(|_| call(&client)).collect();
    std::thread::scope(|scope| {
        for (number, mut stream) in streams.into_iter().enumerate() {
            let client = &client;
            scope.spawn(move || {
                round_trip(&mut stream, number as u64, 1000);
                assert_eq!(count(client, |c| &c.now), 1);
            });
        }
    });
    assert_eq!(count(&client, |c| &c.total), 20);
}

#[test]
fn a_life_is_bounded_and_idleness_too() {
    let bridge = Bridge::start(Config::default()).unwrap();
    let controller = controller(&bridge);
    let target = Server::echo();
    let server = try_server(&controller, &target.address.to_string(), &Options::default()).unwrap();
    for (option, ends) in [("timeout", true), ("idle_timeout", false)] {
        let client = try_client(&controller, "0", &address(&server), &options(&[(option, "500")])).unwrap();
        let mut stream = call(&client);
        // Traffic keeps a connection from being idle, not from being over.
        let mut rounds = 0;
        let over = loop {
            if stream.write_all(b"x").is_err() || !matches!(stream.read(&mut [0]), Ok(1)) {
                break true;
            }
            rounds += 1;
            if rounds == 200 {
                break false;
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        assert_eq!(over, ends, "{option}");
        if !ends {
            assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0);
        }
        wait_until("it is counted", || count(&client, |c| &c.expired) == 1);
    }
}

#[test]
fn a_slow_reader_stops_the_writer_and_nobody_else() {
    let bridge = Bridge::start(Config::default()).unwrap();
    let controller = controller(&bridge);
    let target = Server::start(|mut stream| {
        let mut first = [0];
        stream.read_exact(&mut first).unwrap();
        if first[0] == b'n' {
            std::thread::sleep(LONG);
        }
        stream.write_all(&first).unwrap();
        let mut writer = stream.try_clone().unwrap();
        drop(std::io::copy(&mut stream, &mut writer));
    });
    let (server, client) = both(&controller, &target, &[]);
    let mut stuck: Vec<_> = (0..20).map(|_| call(&client)).collect();
    for stream in &mut stuck {
        stream.set_nonblocking(true).unwrap();
        stream.write_all(b"n").unwrap();
    }
    // All that fits goes; then nothing.
    let mut sent = 0;
    let bytes = vec![0; 1 << 16];
    let mut quiet = 0;
    while quiet < 20 {
        let before = sent;
        for stream in &mut stuck {
            sent += stream.write(&bytes).unwrap_or(0);
        }
        quiet = if sent == before { quiet + 1 } else { 0 };
        assert!(sent < 20 * (64 << 20), "the writer is not stopped");
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut stream = call(&client);
    stream.write_all(b"y").unwrap();
    stream.read_exact(&mut [0]).unwrap();
    round_trip(&mut stream, 1, 100_000);
    let start = std::time::Instant::now();
    client.close();
    server.close();
    assert!(start.elapsed() < SOON);
    assert_eq!(count(&client, |c| &c.now), 0);
}

#[test]
fn many_at_random() {
    let bridge = Bridge::start(Config::default()).unwrap();
    let controller = controller(&bridge);
    let target = Server::echo();
    let (server, client) = both(&controller, &target, &[]);
    std::thread::scope(|scope| {
        for thread in 0..8u64 {
            let client = &client;
            scope.spawn(move || {
                let mut rng = Rng::new(thread + 1);
                for round in 0..40 {
                    let mut stream = call(client);
                    match rng.next() % 4 {
                        // Gone before, in the middle, and after; or with a reset.
                        0 => drop(stream),
                        1 => {
                            drop(stream.write_all(&vec![1; (rng.next() % 50_000) as usize]));
                            drop(stream.shutdown(Shutdown::Both));
                        }
                        _ => round_trip(&mut stream, round, (rng.next() % 100_000) as usize + 1),
                    }
                }
            });
        }
    });
    wait_until("all are closed", || count(&client, |c| &c.now) + count(&server, |c| &c.now) == 0);
    assert_eq!(count(&client, |c| &c.total), 320);
}

#[test]
fn wrong_arguments() {
    let bridge = Bridge::start(Config::default()).unwrap();
    let controller = controller(&bridge);
    let none = Options::default();
    for target in ["", "x", "127.0.0.1", "127.0.0.1:", "127.0.0.1:99999", "a b:1", "-1"] {
        assert_eq!(failure(try_server(&controller, target, &none)).status, Status::Invalid, "{target:?}");
        assert_eq!(failure(try_client(&controller, target, "a.i2p", &none)).status, Status::Invalid, "{target:?}");
    }
    for address in ["", "a b", "x", "AAAA"] {
        assert_eq!(failure(try_client(&controller, "0", address, &none)).status, Status::Invalid, "{address:?}");
    }
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let error = failure(try_client(&controller, &port, "a.i2p", &none));
    assert_eq!((error.status, error.os_error), (Status::Io, libc::EADDRINUSE));
    let bad = options(&[("forward", "1")]);
    assert_eq!(failure(try_server(&controller, "1", &bad)).status, Status::Invalid);
    let bound = try_client(&controller, "0", "a.i2p", &options(&[("bind", "127.0.0.2")])).unwrap();
    assert!(TcpStream::connect(("127.0.0.2", bound.port())).is_ok());
}
