//! What the tests of datagrams share.

use std::mem::MaybeUninit;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::{Scope, ScopedJoinHandle};

use i2psock::core::datagram::{Datagram, Dgram, Slot};
use i2psock::core::destination::DestHandle;
use i2psock::error::Result;
use i2psock::protocol::datagram::{SendOptions, Source};
use i2psock::sys;
use i2psock_bridge::{Bridge, Config, Personality};

use super::*;

pub const STREAM: i32 = 1;
pub const DGRAM: i32 = 2;
pub const RAW: i32 = 3;
pub const DGRAM2: i32 = 4;
pub const DGRAM3: i32 = 5;
pub const NONE: SendOptions = SendOptions {
    ports: i2psock::protocol::ports::Ports { from: None, to: None },
    protocol: None,
    send_tags: None,
    tag_threshold: None,
    expires: None,
    send_leaseset: None,
};
pub const NOW: i32 = sys::MSG_DONTWAIT;

pub fn start(personality: Personality) -> (Bridge, Control) {
    let bridge = Bridge::start(Config::with_personality(personality)).unwrap();
    let controller = control(&bridge, &[]);
    (bridge, controller)
}

pub fn control(bridge: &Bridge, more: &[(&str, &str)]) -> Control {
    let udp = bridge.udp_addr().to_string();
    controller_with(bridge, &[&[("udp", udp.as_str())], more].concat())
}

/// A destination of datagrams and its socket.
pub struct Peer {
    pub dest: DestHandle,
    pub dgram: Dgram,
}

impl Peer {
    pub fn try_open(controller: &Control, style: i32, entries: &[(&str, &str)]) -> Result<Self> {
        let dest = dest_of(controller.open_dest("", style, &options(entries), LIMIT)?)?;
        let dgram = Dgram::bind(&dest)?;
        dgram.set_timeout(LONG.as_millis() as i32)?;
        Ok(Peer { dest, dgram })
    }

    pub fn open(controller: &Control, style: i32, entries: &[(&str, &str)]) -> Self {
        Peer::try_open(controller, style, entries).unwrap()
    }

    pub fn address(&self) -> &str {
        base64(&self.dest)
    }

    pub fn id(&self) -> String {
        self.dest.destination().session().id().to_owned()
    }

    pub fn send(&self, to: &str, payload: &[u8]) {
        assert!(self.dgram.send_to(to, payload, 0, &NONE).unwrap(), "BLOCK");
    }

    pub fn try_recv(&self, room: usize, flags: i32) -> Result<Option<(Vec<u8>, Datagram)>> {
        let mut buffer = buffer(room);
        let Some(datagram) = self.dgram.recv_from(&mut buffer, flags)? else { return Ok(None) };
        Ok(Some((initialised(&buffer[..datagram.len]), datagram)))
    }

    pub fn recv(&self) -> (Vec<u8>, Datagram) {
        self.try_recv(40_000, 0).unwrap().expect("BLOCK")
    }

    /// Several at once, into rooms of these sizes.
    pub fn try_recv_many(&self, rooms: &[usize], flags: i32) -> Result<Vec<(Vec<u8>, Datagram)>> {
        let mut buffers: Vec<_> = rooms.iter().map(|room| buffer(*room)).collect();
        let mut slots: Vec<_> = buffers.iter_mut().map(|room| Slot { room, datagram: None }).collect();
        let got = self.dgram.recv_many(&mut slots, flags)?;
        let filled = slots.iter().position(|slot| slot.datagram.is_none()).unwrap_or(slots.len());
        assert_eq!(filled, got, "the first ones, without gaps");
        let took = |slot: Slot| {
            let datagram = slot.datagram.expect("filled");
            (initialised(&slot.room[..datagram.len]), datagram)
        };
        Ok(slots.into_iter().take(got).map(took).collect())
    }

    /// Nothing is there, and the fd says so after the answer.
    pub fn nothing(&self) {
        assert!(self.try_recv(100, NOW).unwrap().is_none());
        assert!(!readable(&self.dgram, 0));
    }
}

pub fn readable(dgram: &Dgram, milliseconds: i32) -> bool {
    sys::poll_one(dgram.fd(), sys::IN, milliseconds).unwrap() != 0
}

pub fn source_of(datagram: &Datagram) -> &str {
    match &datagram.source {
        Some(Source::Destination(address)) => address.base64(),
        other => panic!("{other:?}"),
    }
}

pub fn bytes(rng: &mut Rng, len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend_from_slice(&rng.next().to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Room for a payload, every byte of it 0xEE. It is copied as a whole: filled byte by byte, it took longer than the tests.
fn buffer(len: usize) -> Vec<MaybeUninit<u8>> {
    static PATTERN: [MaybeUninit<u8>; 40_000] = [MaybeUninit::new(0xEE); 40_000];
    PATTERN[..len].to_vec()
}

/// The bytes of a part of a [`buffer`].
#[allow(unsafe_code)]
fn initialised(part: &[MaybeUninit<u8>]) -> Vec<u8> {
    // SAFETY: every byte of a buffer is initialised where it is made.
    unsafe { std::slice::from_raw_parts(part.as_ptr().cast::<u8>(), part.len()) }.to_vec()
}

/// Runs `body` in a thread of `scope` and returns once that waits in a system call, or has ended without.
pub fn spawn_until_it_waits<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    body: impl FnOnce() -> T + Send + 'scope,
) -> ScopedJoinHandle<'scope, T> {
    let (tell, told) = mpsc::channel();
    let thread = scope.spawn(move || {
        let _ = tell.send(system_call_file());
        body()
    });
    let Some(file) = told.recv().unwrap() else {
        // The system does not tell. This is long enough mostly, and what the tests ask for holds in any case.
        std::thread::sleep(Duration::from_millis(100));
        return thread;
    };
    let mut before = String::new();
    wait_until("the thread waits", || {
        let now = std::fs::read_to_string(&file).unwrap_or_default();
        let number = now.split(' ').next().and_then(|number| number.parse::<libc::c_long>().ok());
        // Waiting for a lock passes, and so does a call that is only seen once.
        let waits = number.is_some_and(|number| number >= 0 && number != FUTEX) && now == before;
        before = now;
        waits || thread.is_finished()
    });
    thread
}

/// Where the system tells in which system call this thread is: its number and arguments and where it was called from, or
/// "running".
fn system_call_file() -> Option<PathBuf> {
    let thread = std::fs::read_link("/proc/thread-self").ok()?;
    let file = Path::new("/proc").join(thread).join("syscall");
    std::fs::read_to_string(&file).is_ok().then_some(file)
}

#[cfg(target_os = "linux")]
const FUTEX: libc::c_long = libc::SYS_futex;
#[cfg(not(target_os = "linux"))]
const FUTEX: libc::c_long = -1;

pub fn lookups(bridge: &Bridge, name: &str) -> usize {
    let line = format!("NAMING LOOKUP NAME={name}");
    bridge.texts().iter().filter(|text| **text == line).count()
}

/// Echoes of two styles at the same time.
pub fn echo_both(controller: &Control, styles: [(i32, Range<usize>); 2], entries: &[(&str, &str)], count: usize) {
    std::thread::scope(|scope| {
        for (style, sizes) in styles {
            scope.spawn(move || echo_all(controller, style, entries, count, sizes));
        }
    });
}

pub fn echo_all(controller: &Control, style: i32, entries: &[(&str, &str)], count: usize, sizes: Range<usize>) {
    let (a, b) = (Peer::open(controller, style, entries), Peer::open(controller, style, entries));
    let mut rng = Rng::new(style as u64);
    for number in 0..count {
        let len = sizes.start + rng.below(sizes.end - sizes.start);
        let payload = bytes(&mut rng, len);
        a.send(b.address(), &payload);
        let (got, datagram) = b.recv();
        assert!(got == payload, "{number}: {} of {len} bytes", got.len());
        assert_eq!((datagram.len, datagram.full_len), (len, len));
        match style {
            RAW => assert!(datagram.source.is_none()),
            DGRAM3 => assert_eq!(datagram.source, Some(Source::Hash(*a.dest.destination().keys().address().hash()))),
            _ => assert_eq!(source_of(&datagram), a.address()),
        }
        b.send(a.address(), &got);
        assert!(a.recv().0 == payload, "{number} back");
    }
    let count = count as u64;
    for peer in [&a, &b] {
        let counts = peer.dgram.counts();
        assert_eq!((counts.sent, counts.received), (count, count));
        assert_eq!((counts.refused, counts.malformed, counts.truncated, counts.dropped), (0, 0, 0, 0));
        peer.nothing();
    }
}

/// Options of one datagram.
pub fn sending(entries: &[(&str, &str)]) -> SendOptions {
    SendOptions::parse(&options(entries)).unwrap()
}
