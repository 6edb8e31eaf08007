//! Tunnels: any TCP program on I2P, and what can go wrong with its connections.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{mpsc, Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use common::*;
use i2psock::core::destination::State;
use i2psock::core::drive::Pending;
use i2psock::core::listener::Listener;
use i2psock::core::settings::{Options, TunnelOptions};
use i2psock::core::stream::Stream;
use i2psock::core::tunnel::{MakeSend, Receive, Tunnel, TunnelPlan};
use i2psock::error::{Error, Operation, Result, Status};
use i2psock::sys::{self, poll_one, Place, IN};
use i2psock_bridge::{Action, Bridge, Config, Reply};

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
    let server = try_server(&controller, "127.0.0.1:1", &Options::default()).unwrap();
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
    // Longer than a busy machine may stand still, and shorter than the rounds take.
    for (option, limit, ends) in [("timeout", "500", true), ("idle_timeout", "2000", false)] {
        let client = try_client(&controller, "0", &address(&server), &options(&[(option, limit)])).unwrap();
        let mut stream = call(&client);
        // Traffic keeps a connection from being idle, not from being over.
        let mut rounds = 0;
        let over = loop {
            if stream.write_all(b"x").is_err() || !matches!(stream.read(&mut [0]), Ok(1)) {
                break true;
            }
            rounds += 1;
            if rounds == 250 {
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
    let over = Arc::new(AtomicBool::new(false));
    let done = Arc::clone(&over);
    let target = Server::start(move |mut stream| {
        let mut first = [0];
        stream.read_exact(&mut first).unwrap();
        while first[0] == b'n' && !done.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(10));
        }
        drop(stream.write_all(&first));
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
    over.store(true, Ordering::SeqCst);
}

/// I2PSOCK_TUNNEL_ROUNDS=125 makes it a thousand connections.
#[test]
fn many_at_random() {
    let rounds = std::env::var("I2PSOCK_TUNNEL_ROUNDS").map_or(40, |text| text.parse().unwrap());
    let bridge = Bridge::start(Config::default()).unwrap();
    let controller = controller(&bridge);
    let target = Server::echo();
    let (server, client) = both(&controller, &target, &[]);
    std::thread::scope(|scope| {
        for thread in 0..8u64 {
            let client = &client;
            scope.spawn(move || {
                let mut rng = Rng::new(thread + 1);
                for round in 0..rounds {
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
    assert_eq!(count(&client, |c| &c.total), 8 * rounds);
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

fn far_pair() -> (UnixStream, UnixStream) {
    let (far, target) = UnixStream::pair().unwrap();
    target.set_read_timeout(Some(LONG)).unwrap();
    target.set_write_timeout(Some(LONG)).unwrap();
    (far, target)
}

/// Writes until nothing more fits for a while, and says how much did.
fn stuff(stream: &impl AsRawFd) -> usize {
    let (mut sent, mut quiet) = (0, 0);
    while quiet < 20 {
        match i2psock::sys::send_now(stream.as_raw_fd(), &[b'a'; 10_000]) {
            Ok(count) => (sent, quiet) = (sent + count, 0),
            Err(_) => {
                quiet += 1;
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
    sent
}

/// A client that says all it has to say and ends its half: the connection ends, but not before what is there already.
#[test]
fn an_answer_that_is_there_already_is_delivered() {
    let (far, mut target) = far_pair();
    let (mut far, (release, wait)) = (Some(far), mpsc::channel::<()>());
    let (tunnel, address) = local(
        move || {
            wait.recv_timeout(LONG).unwrap();
            Ok(Far::Socket(far.take().unwrap().into()))
        },
        &[],
    );
    let mut stream = reach(address);
    stream.write_all(b"request").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    target.write_all(&[b'a'; 100_000]).unwrap();
    release.send(()).unwrap();
    let (mut answer, mut request) = (Vec::new(), Vec::new());
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!(answer.len(), 100_000);
    target.read_to_end(&mut request).unwrap();
    assert_eq!(request, b"request");
    assert_eq!(count(&tunnel, |c| &c.bytes_in), 100_000);
}

/// A server that answers the beginning of an upload with an error and closes, which resets the rest of it.
#[test]
fn an_answer_to_half_a_request_is_delivered() {
    let (far, target) = far_pair();
    let mut far = Some(far);
    let (_tunnel, address) = local(move || Ok(Far::Socket(far.take().unwrap().into())), &[]);
    let mut stream = reach(address);
    let mut uploading = stream.try_clone().unwrap();
    let upload = std::thread::spawn(move || drop(uploading.write_all(&vec![1; 50 << 20])));
    let mut first = [0];
    (&target).read_exact(&mut first).unwrap();
    // As much as there is room for all the way; the client reads none of it yet.
    let sent = stuff(&target);
    drop(target);
    let mut got = 0;
    let mut buffer = vec![0; 10_000];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        got += count;
    }
    assert_eq!(got, sent);
    upload.join().unwrap();
}

/// Sends what there is room for all the way to a target that does not read, and resets the connection. `far` is the
/// tunnel's end of the connection to the target.
fn leave_amid_a_request(address: SocketAddr, far: UnixStream, mut target: &UnixStream) {
    let stream = reach(address);
    let is_full = || i2psock::sys::poll_one(far.as_raw_fd(), i2psock::sys::OUT, 0).unwrap() == 0;
    wait_until("it is full up to the target", || {
        let full = is_full();
        stuff(&stream);
        full
    });
    drop(far);
    // What is closed with something unread is reset.
    target.write_all(b"x").unwrap();
    assert_eq!(stream.peek(&mut [0]).unwrap(), 1);
}

/// Nobody takes what was sent, and who has sent it has gone: such a connection must not stay for ever.
#[test]
fn nothing_is_kept_for_a_target_that_never_reads() {
    let (far, target) = far_pair();
    let ours = far.try_clone().unwrap();
    let mut far = Some(far);
    let (tunnel, address) = local(move || Ok(Far::Socket(far.take().unwrap().into())), &[]);
    leave_amid_a_request(address, ours, &target);
    assert_eq!(count(&tunnel, |c| &c.now), 1, "the target may still read");
    wait_until_within(LONG * 3, "it is given up", || count(&tunnel, |c| &c.now) == 0);
    assert!(tunnel.next_error().unwrap().to_string().contains("was reset"));
}

/// A target that reads late still gets what has come so far.
#[test]
fn what_was_on_its_way_is_delivered_after_a_reset() {
    let (far, mut target) = far_pair();
    let ours = far.try_clone().unwrap();
    let mut far = Some(far);
    let (tunnel, address) = local(move || Ok(Far::Socket(far.take().unwrap().into())), &[]);
    leave_amid_a_request(address, ours, &target);
    let delivered = count(&tunnel, |c| &c.bytes_out);
    let mut got = Vec::new();
    target.read_to_end(&mut got).unwrap();
    assert!(got.len() as u64 > delivered + 65_536, "{} after {delivered}", got.len());
    wait_until("it is over", || count(&tunnel, |c| &c.now) == 0);
    assert!(tunnel.next_error().is_none());
}

/// Whoever has ended in good order and long ago: all of it is there for a reader that takes a break.
#[test]
fn a_reader_that_takes_a_break_loses_nothing() {
    let bridge = Bridge::start(Config::default()).unwrap();
    let controller = controller(&bridge);
    let size = 20 << 20;
    let target = Server::start(move |mut stream| stream.write_all(&vec![b'a'; size]).unwrap());
    let (_server, client) = both(&controller, &target, &[]);
    // Less room than the bridge and the tunnels have.
    let path = std::env::temp_dir().join(format!("i2psock-tunnel-{}", std::process::id()));
    let listener = UnixListener::bind(&path).unwrap();
    let near = try_server(&controller, path.to_str().unwrap(), &Options::default()).unwrap();
    let far = try_client(&controller, "0", &address(&near), &Options::default()).unwrap();
    let mut download = call(&client);
    let mut upload = call(&far);
    upload.write_all(&[b'b'; 300_000]).unwrap();
    drop(upload);
    let mut uploaded = bounded("accepting", move || listener.accept().unwrap().0);
    std::fs::remove_file(&path).unwrap();
    uploaded.set_read_timeout(Some(LONG)).unwrap();
    // Longer than a tunnel waits for somebody to take what was sent before a reset.
    std::thread::sleep(Duration::from_secs(12));
    for (reader, size) in [(&mut download as &mut dyn Read, size), (&mut uploaded, 300_000)] {
        let mut got = Vec::new();
        reader.read_to_end(&mut got).unwrap();
        assert_eq!(got.len(), size);
    }
    assert!(near.next_error().is_none() && client.next_error().is_none());
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

/// Whoever breaks off while it is being answered: the target has not taken what it had sent, and never will.
#[test]
fn nothing_is_kept_of_a_reset_amid_an_answer() {
    let (tunnel, address, target) = local_to_tcp(&[]);
    let mut kept = Vec::new();
    for _ in 0..10 {
        let client = reach(address);
        let target = taken(&target);
        // Up to the target there is no room for more.
        while stuff(&client) > 0 {}
        let mut answering = target.try_clone().unwrap();
        let answer = std::thread::spawn(move || {
            answering.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
            while answering.write_all(&[b'b'; 65_536]).is_ok() {}
        });
        (&client).read_exact(&mut vec![0; 4 << 20]).unwrap();
        // With something unread, which resets it.
        assert_eq!(client.peek(&mut [0]).unwrap(), 1);
        drop(client);
        answer.join().unwrap();
        kept.push(target);
    }
    wait_until_within(LONG, "all are given up", || count(&tunnel, |c| &c.now) == 0);
}

/// A reader that takes a long break and says something before it reads on.
#[test]
fn a_reader_that_talks_in_a_break_loses_nothing() {
    let (tunnel, address, target) = local_to_tcp(&[]);
    let mut client = reach(address);
    let mut target = taken(&target);
    // More than a reader has room for, and not more than that and the tunnel's socket have.
    let size = 500_000;
    client.write_all(&vec![b'a'; size]).unwrap();
    let (mut there, mut quiet) = (0, 0);
    while quiet < 20 {
        let before = std::mem::replace(&mut there, sys::unread(target.as_raw_fd()).unwrap());
        quiet = if there == before && there > 0 { quiet + 1 } else { 0 };
        assert!(there < size, "there is room for all of it");
        std::thread::sleep(Duration::from_millis(100));
    }
    drop(client);
    wait_until("the tunnel has passed it on", || count(&tunnel, |c| &c.now) == 0);
    assert_eq!(count(&tunnel, |c| &c.bytes_out), size as u64);
    // Longer than a tunnel waits for somebody to take what was sent before a reset.
    std::thread::sleep(Duration::from_secs(12));
    target.write_all(b"x").unwrap();
    let mut got = Vec::new();
    target.read_to_end(&mut got).unwrap();
    assert_eq!(got.len(), size);
}

/// That break is limited by the time a connection may be idle, and no shorter.
#[test]
fn a_break_is_as_long_as_idleness_may_be() {
    let (tunnel, address, target) = local_to_tcp(&[("idle_timeout", "2000")]);
    let mut client = reach(address);
    let mut target = taken(&target);
    let size = 500_000;
    client.write_all(&vec![b'a'; size]).unwrap();
    drop(client);
    wait_until("the tunnel has passed it on", || count(&tunnel, |c| &c.now) == 0);
    let start = Instant::now();
    // It is closed once what it says is refused.
    while target.write_all(b"x").is_ok() {
        assert!(start.elapsed() < SOON, "it stays");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(start.elapsed() > Duration::from_millis(1500), "{:?}", start.elapsed());
}

/// Urgent data stays where it is among the rest, and nothing behind it is lost.
#[test]
fn urgent_data_goes_through() {
    for splice in ["1", "0"] {
        let (tunnel, address, target) = local_to_tcp(&[("splice", splice)]);
        let client = reach(address);
        let server = taken(&target);
        for (mut from, mut to) in [(&client, &server), (&server, &client)] {
            for _ in 0..3 {
                from.write_all(b"before").unwrap();
                send_urgent(from, b'!');
                from.write_all(b"after").unwrap();
                let mut got = [0; 12];
                to.read_exact(&mut got).unwrap();
                assert_eq!(&got, b"before!after");
            }
        }
        wait_until("it is counted", || count(&tunnel, |c| &c.bytes_in) == 36);
        drop((client, server));
        // The end comes with it.
        for _ in 0..20 {
            let mut client = reach(address);
            client.write_all(b"before").unwrap();
            send_urgent(&client, b'!');
            client.write_all(b"after").unwrap();
            drop(client);
            let mut got = String::new();
            taken(&target).read_to_string(&mut got).unwrap();
            assert_eq!(got, "before!after");
        }
    }
}

/// A target that goes on talking to somebody who has left does not keep us busy.
#[test]
fn a_target_that_never_stops_is_stopped() {
    let (far, mut target) = far_pair();
    let mut far = Some(far);
    let (_tunnel, address) = local(move || Ok(Far::Socket(far.take().unwrap().into())), &[]);
    drop(reach(address));
    assert_eq!(target.read(&mut [0]).unwrap(), 0);
    let start = Instant::now();
    while target.write_all(&[0; 10_000]).is_ok() {
        assert!(start.elapsed() < SOON, "it is still listened to");
    }
}

#[test]
fn failures_of_every_kind_leave_room() {
    let bridge = Bridge::start(Config::default()).unwrap();
    let controller = controller(&bridge);
    let dest = Arc::new(open(&controller));
    let nobody = destination(3);
    let (target, refusing) = (Server::echo(), SocketAddr::from(([127, 0, 0, 1], 1)));
    let leaving = Server::start(drop);
    let resetting = Server::start(|mut stream| stream.read_exact(&mut [0]).unwrap_or(()));
    let addresses = [target.address, leaving.address, resetting.address];
    let next = Arc::new(AtomicUsize::new(0));
    let (turn, from) = (Arc::clone(&next), Arc::clone(&dest));
    let places = |address| Ok(Far::Places(vec![Place::Tcp(address)]));
    let pending = |pending: Result<Pending<Stream>>| pending.map(|pending| Far::Pending(Box::new(pending)));
    let (tunnel, address) = local(
        move || match turn.load(Ordering::SeqCst) {
            0 => Err(Error::new(Status::State, Operation::Connect, "no")),
            1 => places(refusing),
            2 => Ok(Far::Places(Vec::new())),
            3 => Ok(Far::Socket(std::fs::File::open("/dev/null").unwrap().into())),
            4 => Ok(Far::Socket(std::fs::File::open("/proc/self/exe").unwrap().into())),
            5 => pending(from.connect(&nobody, &Options::default(), LIMIT)),
            6 => Err(Error::new(Status::State, Operation::Connect, "no")),
            7 => Ok(Far::Socket(TcpListener::bind("127.0.0.1:0").unwrap().into())),
            8 => Ok(Far::Socket(std::net::UdpSocket::bind("127.0.0.1:0").unwrap().into())),
            9 => places(addresses[1]),
            10 => places(addresses[2]),
            // Nobody accepts it.
            11 => pending(from.connect(
                base64(&from),
                &Options::default(),
                i2psock::core::drive::Limit::After(Duration::from_millis(50)),
            )),
            _ => places(addresses[0]),
        },
        &[("nconnect", "2")],
    );
    for kind in 0..12 {
        next.store(kind, Ordering::SeqCst);
        let mut streams: Vec<_> = (0..4).map(|_| reach(address)).collect();
        for stream in &mut streams {
            drop(stream.write_all(b"xy"));
            let mut byte = [0];
            assert!(!matches!(stream.read(&mut byte), Ok(1)), "kind {kind}");
        }
        wait_until(&format!("all of kind {kind} are over"), || count(&tunnel, |c| &c.now) == 0);
    }
    next.store(12, Ordering::SeqCst);
    let streams: Vec<_> = (0..8).map(|_| reach(address)).collect();
    for (number, mut stream) in streams.into_iter().enumerate() {
        round_trip(&mut stream, number as u64, 1000);
    }
    wait_until("they are over", || count(&tunnel, |c| &c.now) == 0);
    assert_eq!(count(&tunnel, |c| &c.total), 56);
    assert!(count(&tunnel, |c| &c.failed) >= 28, "{:?}", tunnel.counts());
    assert!(tunnel.next_error().is_some());
}

/// Closing, even from within, keeps nobody waiting for the connections that are still to be taken.
#[test]
fn closing_takes_no_more_connections() {
    let own: Arc<OnceLock<Tunnel>> = Arc::default();
    let calls = Arc::new(AtomicUsize::new(0));
    let (release, wait) = mpsc::channel::<()>();
    let (closing, counter, wait) = (Arc::clone(&own), Arc::clone(&calls), Mutex::new(wait));
    let (tunnel, address) = local(
        move || {
            counter.fetch_add(1, Ordering::SeqCst);
            wait.lock().unwrap().recv_timeout(LONG).unwrap();
            closing.get().unwrap().close();
            Err(Error::new(Status::State, Operation::Connect, "closed"))
        },
        &[],
    );
    own.set(tunnel).ok().unwrap();
    let streams: Vec<_> = (0..10).map(|_| reach(address)).collect();
    for _ in &streams {
        // It is gone once the tunnel is.
        let _ = release.send(());
    }
    for mut stream in streams {
        assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0);
    }
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

/// Connecting over I2P takes longer than a connection may be idle.
#[test]
fn nobody_is_idle_before_it_is_connected() {
    let bridge = Bridge::start(Config::default()).unwrap();
    let controller = controller(&bridge);
    let target = Server::echo();
    let server = try_server(&controller, &target.address.to_string(), &Options::default()).unwrap();
    let client = try_client(&controller, "0", &address(&server), &options(&[("idle_timeout", "2000")])).unwrap();
    bridge.faults().every(Reply::StreamConnect, Action::Delay(Duration::from_millis(2500)));
    round_trip(&mut call(&client), 1, 100);
    assert_eq!(count(&client, |c| &c.expired), 0);
}

/// Whether a connection through it works.
fn works(tunnel: &Tunnel) -> bool {
    let mut stream = call(tunnel);
    stream.write_all(b"x").is_ok() && matches!(stream.read(&mut [0]), Ok(1))
}

/// A bridge that stops and is started again: nobody has to call anything, with a keeper or without.
#[test]
fn both_ends_outlive_the_router() {
    for keeper in ["1", "0"] {
        let bridge = Bridge::start_to_stay(Config::default()).unwrap();
        let controller = controller_with(&bridge, &[("keeper", keeper)]);
        let target = Server::echo();
        let (server, client) = both(&controller, &target, &[("recover", "1")]);
        let mut streams: Vec<_> = (0..10).map(|_| call(&client)).collect();
        for stream in &mut streams {
            round_trip(stream, 1, 1000);
        }
        // In the middle of all these.
        let (port, udp_port) = (bridge.port(), bridge.udp_port());
        bridge.stop();
        for mut stream in streams {
            assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0);
        }
        wait_until("all are closed", || count(&client, |c| &c.now) + count(&server, |c| &c.now) == 0);
        for _ in 0..3 {
            assert!(!works(&client));
        }
        assert_eq!(count(&client, |c| &c.failed), 3);
        let error = client.next_error().unwrap();
        assert!(matches!(error.status, Status::Closed | Status::Io), "{error:?}");
        let _bridge = Bridge::start(Config { port, udp_port, ..Config::default() }).unwrap();
        let end = Instant::now() + LONG * 3;
        while !works(&client) {
            assert!(Instant::now() < end, "it never works again with keeper {keeper}");
            std::thread::sleep(Duration::from_millis(20));
        }
        round_trip(&mut call(&client), 2, 100_000);
    }
}

fn has_news(tunnel: &Tunnel) -> bool {
    poll_one(tunnel.fd(), IN, 0).unwrap() != 0
}

/// Whoever sees that a connection has failed finds out why, and that there is something to find out.
#[test]
fn a_failure_is_told_before_it_is_counted() {
    let (tunnel, address) = local(|| Err(Error::new(Status::State, Operation::Connect, "no")), &[]);
    let end = Instant::now() + LONG;
    for round in 1..=2000 {
        let stream = reach(address);
        // Without a pause, to see it at once.
        while count(&tunnel, |c| &c.failed) < round {
            assert!(Instant::now() < end, "{round}");
        }
        assert!(has_news(&tunnel), "{round}");
        assert!(tunnel.next_error().is_some() && !has_news(&tunnel), "{round}");
        drop(stream);
    }
}

/// Errors, and changes of the destination's state, can be waited for.
#[test]
fn news_are_on_a_descriptor() {
    for keeper in ["1", "0"] {
        let bridge = Bridge::start_to_stay(Config::default()).unwrap();
        let controller = controller_with(&bridge, &[("keeper", keeper)]);
        let wanted = options(&[("recover", "1")]);
        // Nobody is there.
        let server = try_server(&controller, "127.0.0.1:1", &wanted).unwrap();
        let client = try_client(&controller, "0", &address(&server), &wanted).unwrap();
        let wait = |tunnel: &Tunnel| assert_ne!(poll_one(tunnel.fd(), IN, LONG.as_millis() as i32).unwrap(), 0);
        assert!(!has_news(&server) && !has_news(&client));
        for _ in 0..2 {
            assert!(!works(&client));
        }
        wait_until("both have failed", || count(&server, |c| &c.failed) == 2);
        // The state is none of them.
        assert_eq!(server.state().unwrap().0, State::Ready);
        for _ in 0..2 {
            wait(&server);
            assert!(server.next_error().is_some());
        }
        assert!(!has_news(&server) && server.next_error().is_none());
        let (port, udp_port) = (bridge.port(), bridge.udp_port());
        bridge.stop();
        wait(&server);
        while server.next_error().is_some() {}
        // Errors are not the state, which may come behind them.
        wait(&server);
        assert_ne!(server.state().unwrap().0, State::Ready);
        let _bridge = Bridge::start(Config { port, udp_port, ..Config::default() }).unwrap();
        let end = Instant::now() + LONG * 3;
        loop {
            wait(&server);
            while server.next_error().is_some() {}
            if server.state().unwrap().0 == State::Ready {
                break;
            }
            assert!(Instant::now() < end, "it does not come back with keeper {keeper}");
        }
        assert!(!has_news(&server));
    }
}

/// A session that is lost without recovery: the tunnel says so by failing what comes, and closes in time.
#[test]
fn a_destination_that_ends_under_it() {
    for keeper in ["1", "0"] {
        let bridge = Bridge::start(Config::default()).unwrap();
        let controller = controller_with(&bridge, &[("keeper", keeper)]);
        let target = Server::echo();
        let (server, client) = both(&controller, &target, &[]);
        assert!(works(&client));
        server.dest().unwrap().shutdown().unwrap();
        client.dest().unwrap().shutdown().unwrap();
        assert!(!works(&client));
        wait_until("the failure", || count(&client, |c| &c.failed) == 1);
        wait_until("the error", || server.next_error().is_some_and(|error| error.status == Status::Closed));
        let start = Instant::now();
        client.close();
        server.close();
        assert!(start.elapsed() < SOON);
    }
}

/// A full tunnel still serves its destination.
#[test]
fn a_full_tunnel_without_a_keeper_is_driven() {
    let bridge = Bridge::start(Config { idle_ping: Some(Duration::from_secs(2)), ..Config::default() }).unwrap();
    let controller = controller_with(&bridge, &[("keeper", "0")]);
    let target = Server::echo();
    let (server, client) = both(&controller, &target, &[("nconnect", "1")]);
    let mut stream = call(&client);
    round_trip(&mut stream, 1, 100);
    let pongs = |bridge: &Bridge| bridge.texts().iter().filter(|line| line.contains("PONG")).count();
    assert!(bridge.wait_for(LONG, |bridge| pongs(bridge) >= 4), "{:?}", bridge.texts());
    round_trip(&mut stream, 2, 100);
    assert_eq!((count(&client, |c| &c.now), count(&server, |c| &c.now)), (1, 1));
}

/// A full tunnel still serves the destination of a listener that was lent to it.
#[test]
fn a_full_tunnel_without_a_keeper_drives_its_listener() {
    let bridge = Bridge::start(Config { idle_ping: Some(Duration::from_secs(2)), ..Config::default() }).unwrap();
    let (lazy, busy) = (controller_with(&bridge, &[("keeper", "0")]), controller(&bridge));
    let (dest, from) = (Arc::new(open(&lazy)), open(&busy));
    let listener = Arc::new(Listener::open(&dest, 4, &Options::default()).unwrap());
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = Place::Tcp(target.local_addr().unwrap());
    let make: MakeSend = Box::new(move || Ok(Far::Places(vec![place.clone()])));
    let limits = TunnelOptions::parse(&options(&[("nconnect", "1")])).unwrap().limits;
    let tunnel = Tunnel::begin(Receive::Borrowed(listener), make, limits, None, None, 0).unwrap();
    let stream = stream_of(&mut from.connect(base64(&dest), &Options::default(), LIMIT).unwrap()).unwrap();
    stream.send_all(b"x").1.unwrap();
    let mut server = taken(&target);
    server.read_exact(&mut [0]).unwrap();
    assert_eq!(count(&tunnel, |c| &c.now), 1);
    let pongs = |bridge: &Bridge| bridge.texts().iter().filter(|line| line.contains("PONG")).count();
    // Both answer.
    bridge.wait_for(LONG, |bridge| pongs(bridge) >= 8 || dest.destination().state().0 != State::Ready);
    assert_eq!(dest.destination().state().0, State::Ready);
    stream.send_all(b"y").1.unwrap();
    server.read_exact(&mut [0]).unwrap();
}
