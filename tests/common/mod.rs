//! What the tests of the protocol and of the core share.
#![allow(dead_code)]

pub mod datagram;

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use i2psock::core::controller::Controller;
use i2psock::core::destination::DestHandle;
use i2psock::core::drive::{Limit, Pending, Progress, Stage};
use i2psock::core::settings::Options;
use i2psock::core::stream::{Moved, Stream};
use i2psock::error::{Error, Result};
use i2psock::identity::{base64_encode, Address};
use i2psock_bridge::{Bridge, Config};

/// Longer than anything here takes; only a hang gets there.
pub const LONG: Duration = Duration::from_secs(30);
/// Long enough for something quick on a busy machine, and still shorter than what the library itself waits for.
pub const SOON: Duration = Duration::from_secs(8);
pub const LIMIT: Limit = Limit::After(LONG);

/// The time, for calls that take it.
pub fn now() -> Instant {
    Instant::now()
}

/// A time that a test makes pass without waiting, for what is driven by the calls of the program: steps, and everything of
/// a controller without a keeper. What reads the clock itself (the start of an operation, the keeper, a tunnel) knows
/// nothing of it.
#[derive(Default)]
pub struct Clock(Cell<Duration>);

impl Clock {
    pub fn now(&self) -> Instant {
        Instant::now() + self.0.get()
    }

    pub fn pass(&self, time: Duration) {
        self.0.set(self.0.get() + time);
    }

    /// Lets the milliseconds pass that a call has given as its time-out.
    pub fn pass_timeout(&self, milliseconds: i32) {
        self.pass(Duration::from_millis(milliseconds.try_into().unwrap()));
    }
}

/// Completes an operation without waiting for its pauses.
pub fn complete_without_pauses<T>(pending: &mut Pending<T>) -> Result<()> {
    let (clock, end) = (Clock::default(), Instant::now() + LONG);
    while pending.step(clock.now())? == Progress::Block {
        assert!(Instant::now() < end, "stays at {:?}", pending.stage());
        wait_but_not_for_pauses(pending, &clock);
    }
    Ok(())
}

/// Waits a moment for an event. A pause, such as the one after the end of a connection, passes on the clock: it has no
/// descriptor, or is over within a second without an event.
pub fn wait_but_not_for_pauses<T>(pending: &Pending<T>, clock: &Clock) {
    let timeout = pending.timeout_ms(clock.now());
    let is_quiet = |fd| i2psock::sys::poll_one(fd, pending.events(), 2).unwrap() == 0;
    match pending.fd() {
        -1 => clock.pass_timeout(timeout),
        fd if is_quiet(fd) && (0..1000).contains(&timeout) => clock.pass_timeout(timeout),
        _ => {}
    }
}

/// Runs `body` for all cases at the same time: for those that mostly wait.
pub fn at_once<T: Send>(cases: impl IntoIterator<Item = T>, body: impl Fn(T) + Sync) {
    std::thread::scope(|scope| {
        for case in cases {
            let body = &body;
            scope.spawn(move || body(case));
        }
    });
}

/// Runs `body` with a keeper and without, at the same time.
pub fn each_keeper(body: impl Fn(&'static str) + Sync) {
    at_once(["1", "0"], body);
}

/// xorshift64*: random enough for tests and the same on every machine.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Rng(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        ((self.next() >> 33) as usize) % limit.max(1)
    }

    pub fn pick<'a, T: ?Sized>(&mut self, list: &[&'a T]) -> &'a T {
        list[self.below(list.len())]
    }

    /// Cuts `bytes` into pieces of random sizes, small ones more often.
    pub fn pieces<'a>(&mut self, mut bytes: &'a [u8]) -> Vec<&'a [u8]> {
        let mut pieces = Vec::new();
        while !bytes.is_empty() {
            let most = [2, 8, 64, 1024][self.below(4)];
            let (piece, rest) = bytes.split_at((1 + self.below(most)).min(bytes.len()));
            pieces.push(piece);
            bytes = rest;
        }
        pieces
    }
}

/// A destination (Ed25519, KEY certificate) whose bytes are all `fill`, in I2P base64.
pub fn destination(fill: u8) -> String {
    base64_encode(&destination_bytes(fill))
}

fn destination_bytes(fill: u8) -> Vec<u8> {
    [&[fill; 384][..], &[5, 0, 4, 0, 7, 0, 0]].concat()
}

/// Private keys of [`destination`], in I2P base64. The private part is `secret`.
pub fn private_keys(fill: u8, secret: u8) -> String {
    base64_encode(&[&destination_bytes(fill)[..], &[secret; 256 + 32]].concat())
}

pub fn options(entries: &[(&str, &str)]) -> Options {
    let mut options = Options::default();
    for (key, value) in entries {
        options.set(key, value).unwrap();
    }
    options
}

/// A controller at `address` with more options; closed when dropped.
pub struct Control(pub Arc<Controller>);

impl std::ops::Deref for Control {
    type Target = Arc<Controller>;

    fn deref(&self) -> &Arc<Controller> {
        &self.0
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.0.close();
    }
}

pub fn try_controller(address: &str, entries: &[(&str, &str)]) -> Result<Control> {
    let mut options = options(entries);
    options.set("sam", address).unwrap();
    if entries.iter().all(|(key, _)| *key != "sam_timeout") {
        options.set("sam_timeout", "10000").unwrap();
    }
    Controller::open(&options).map(Control)
}

/// A bridge where streams wait for the first ACCEPT. Java refuses them until then, so that a test that connects while a
/// listener or a tunnel is still beginning would fail now and then.
pub fn patient() -> Config {
    Config { park: Some(LONG), ..Config::default() }
}

pub fn controller(bridge: &Bridge) -> Control {
    controller_with(bridge, &[])
}

pub fn controller_with(bridge: &Bridge, entries: &[(&str, &str)]) -> Control {
    try_controller(&bridge.addr().to_string(), entries).unwrap()
}

/// A pending, whatever it makes: for tests that wait for several kinds in one list.
pub trait AnyPending {
    fn step(&mut self, now: Instant) -> Result<Progress>;
    fn wait(&mut self, limit: Option<Duration>) -> Result<Progress>;
    fn complete(&mut self) -> Result<()>;
    fn stage(&self) -> Stage;
    fn fd(&self) -> RawFd;
    fn events(&self) -> i16;
    fn timeout_ms(&self, now: Instant) -> i32;
}

impl<T> AnyPending for Pending<T> {
    fn step(&mut self, now: Instant) -> Result<Progress> {
        Pending::step(self, now)
    }

    fn wait(&mut self, limit: Option<Duration>) -> Result<Progress> {
        Pending::wait(self, limit)
    }

    fn complete(&mut self) -> Result<()> {
        Pending::complete(self)
    }

    fn stage(&self) -> Stage {
        Pending::stage(self)
    }

    fn fd(&self) -> RawFd {
        Pending::fd(self)
    }

    fn events(&self) -> i16 {
        Pending::events(self)
    }

    fn timeout_ms(&self, now: Instant) -> i32 {
        Pending::timeout_ms(self, now)
    }
}

pub fn dest_of(pending: Pending<DestHandle>) -> Result<DestHandle> {
    pending.product()
}

pub fn stream_of(pending: &mut Pending<Stream>) -> Result<Stream> {
    pending.complete()?;
    pending.take()
}

pub fn take_stream(pending: &mut Pending<Stream>) -> Result<Stream> {
    pending.take()
}

/// The base64 of a looked-up destination.
pub fn address_of(pending: Pending<Address>) -> Result<String> {
    Ok(pending.product()?.base64().to_owned())
}

pub fn open(controller: &Control) -> DestHandle {
    try_open(controller, LIMIT).unwrap()
}

pub fn try_open(controller: &Control, limit: Limit) -> Result<DestHandle> {
    dest_of(controller.open_dest("", 1, &Options::default(), limit)?)
}

pub fn base64(dest: &DestHandle) -> &str {
    dest.destination().keys().address().base64()
}

/// An accept the bridge has said OK to.
pub fn listening(dest: &DestHandle) -> Pending<Stream> {
    let mut pending = dest.accept(LIMIT).unwrap();
    until_stage(&mut pending, Stage::Listening);
    pending
}

pub fn until_stage<T>(pending: &mut Pending<T>, stage: Stage) {
    let end = Instant::now() + LONG;
    while pending.stage() != stage {
        assert_eq!(pending.wait(Some(Duration::from_millis(1))).unwrap(), Progress::Block, "{:?}", pending.stage());
        assert!(Instant::now() < end, "stays at {:?}", pending.stage());
    }
}

pub fn connect(from: &DestHandle, to: &DestHandle) -> Pending<Stream> {
    from.connect(base64(to), &Options::default(), LIMIT).unwrap()
}

/// Two ends of a stream: the connecting and the accepting one.
pub fn pair(from: &DestHandle, to: &DestHandle) -> (Stream, Stream) {
    let mut accept = listening(to);
    let mut connect = connect(from, to);
    // Together: some routers wait with OK for the other side.
    (stream_of(&mut connect).unwrap(), stream_of(&mut accept).unwrap())
}

pub fn send(stream: &Stream, bytes: &[u8]) {
    stream.set_nonblocking(false).unwrap();
    let (sent, result) = stream.send_all(bytes);
    result.unwrap();
    assert_eq!(sent, bytes.len());
}

/// Exactly `count` bytes, or what came before the stream ended.
pub fn receive(stream: &Stream, count: usize) -> Vec<u8> {
    let prepared = stream.set_nonblocking(false).and_then(|()| stream.set_timeout(LONG.as_millis() as i32));
    match prepared {
        // Shut down before this thread came to it.
        Err(error) if error.status == i2psock::error::Status::Closed => return Vec::new(),
        other => other.unwrap(),
    }
    let mut bytes = Vec::new();
    let mut buffer = vec![std::mem::MaybeUninit::new(0); 65536];
    while bytes.len() < count {
        let want = (count - bytes.len()).min(buffer.len());
        match stream.recv(&mut buffer[..want], 0) {
            // The library has initialised what it counts, and the rest was initialised above.
            Ok(Moved::Bytes(got)) => bytes.extend(buffer[..got].iter().map(init)),
            Ok(Moved::Block) => panic!("a blocking stream blocks"),
            Err(error) if error.status == i2psock::error::Status::Closed => break,
            Err(error) => panic!("{error:?}"),
        }
    }
    bytes
}

#[allow(unsafe_code)]
pub fn init(byte: &std::mem::MaybeUninit<u8>) -> u8 {
    // SAFETY: every byte of the buffer is initialised where it is made.
    unsafe { byte.assume_init() }
}

/// Sends a byte as urgent data.
#[allow(unsafe_code)]
pub fn send_urgent(stream: &TcpStream, byte: u8) {
    use std::os::fd::AsRawFd;
    // SAFETY: the byte lives as long as the call.
    let sent = unsafe { libc::send(stream.as_raw_fd(), std::ptr::addr_of!(byte).cast(), 1, libc::MSG_OOB) };
    assert_eq!(sent, 1);
}

/// What goes in at one end comes out at the other, both ways, and nothing else.
pub fn echo(a: &Stream, b: &Stream, seed: u64, size: usize) {
    let mut rng = Rng::new(seed);
    for (from, to) in [(a, b), (b, a)] {
        let bytes: Vec<u8> = (0..size).map(|_| rng.next() as u8).collect();
        std::thread::scope(|scope| {
            scope.spawn(|| send(from, &bytes));
            assert!(receive(to, size) == bytes, "payload differs");
        });
    }
}

pub fn wait_until(what: &str, condition: impl FnMut() -> bool) {
    wait_until_within(LONG, what, condition);
}

/// As [`wait_until`], for what takes longer.
pub fn wait_until_within(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Runs `body` in a thread and fails when it takes longer than [`LONG`] twice: a hang must not hang the tests.
pub fn bounded<T: Send + 'static>(what: &str, body: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let result = body();
        // Nobody listens any more when the time is over.
        let _ = sender.send(());
        result
    });
    if receiver.recv_timeout(LONG * 2) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
        panic!("{what} hangs");
    }
    match thread.join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// The error of something that must not succeed; results need no Debug.
pub fn failure<T>(result: Result<T>) -> Error {
    match result {
        Ok(_) => panic!("it succeeded"),
        Err(error) => error,
    }
}

/// A port of UDP that is free and stays so: it is below those that the system gives away.
pub fn free_udp_port(host: &str) -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let mut ports = (0..50).map(|_| {
        let begin = std::process::id().wrapping_mul(7919);
        // Even ones are for bridges that stay.
        12_001 + (begin.wrapping_add(NEXT.fetch_add(31, Ordering::Relaxed)) % 9000) as u16 * 2
    });
    ports.find(|port| UdpSocket::bind((host, *port)).is_ok()).unwrap()
}

/// A bridge that does exactly what a test says: the handler gets each connection with its number, from 0.
pub struct Script {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Script {
    pub fn start(handler: impl Fn(usize, Talk) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, handler) = (Arc::new(AtomicBool::new(false)), Arc::new(handler));
        let stopping = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                if stopping.load(Ordering::SeqCst) {
                    break;
                }
                let (handler, talk) = (Arc::clone(&handler), Talk(stream.unwrap()));
                talk.0.set_nodelay(true).unwrap();
                talk.0.set_read_timeout(Some(LONG)).unwrap();
                std::thread::spawn(move || handler(number, talk));
            }
        });
        Script { address, stop, thread: Some(thread) }
    }

    pub fn address(&self) -> String {
        self.address.to_string()
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// One connection of a [`Script`]. Everything ignores errors: the library may hang up whenever it likes.
pub struct Talk(pub TcpStream);

impl Talk {
    /// The next line without its LF; empty at the end.
    pub fn line(&mut self) -> String {
        let mut line = Vec::new();
        let mut byte = [0];
        while let Ok(1) = self.0.read(&mut byte) {
            if byte[0] == b'\n' {
                break;
            }
            line.push(byte[0]);
        }
        String::from_utf8(line).unwrap()
    }

    /// Whether all was taken.
    pub fn say(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.0.write_all(bytes.as_ref()).is_ok()
    }

    /// Reads HELLO, answers 3.3, and returns the command that follows.
    pub fn greet(&mut self) -> String {
        let hello = self.line();
        if hello.is_empty() {
            return hello;
        }
        assert!(hello.starts_with("HELLO VERSION MIN="), "{hello}");
        self.say("HELLO REPLY RESULT=OK VERSION=3.3\n");
        self.line()
    }

    /// A session with the keys of the number `fill`.
    pub fn session(&mut self, fill: u8) {
        self.say(format!("SESSION STATUS RESULT=OK DESTINATION={}\n", private_keys(fill, fill + 100)));
    }

    /// Reads until the library hangs up.
    pub fn linger(&mut self) {
        let mut buffer = [0; 4096];
        while let Ok(1..) = self.0.read(&mut buffer) {}
    }

    pub fn hang_up(&self) {
        drop(self.0.shutdown(Shutdown::Both));
    }
}
