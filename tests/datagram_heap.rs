//! Heap calls per datagram, counted in the thread that sends and receives: none once both sides know each other.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(unsafe_code)]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ffi::CString;
use std::mem::MaybeUninit;

use common::*;
use i2psock::core::datagram::{Dgram, Outgoing, Slot};
use i2psock::core::destination::DestHandle;
use i2psock::ffi::addr::*;
use i2psock::ffi::controller::*;
use i2psock::ffi::dest::*;
use i2psock::ffi::dgram::*;
use i2psock::ffi::options::*;
use i2psock::protocol::datagram::SendOptions;
use i2psock_bridge::{Bridge, Config};

struct Counting;

thread_local! {
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // Not in a thread that is ending.
    let _ = CALLS.try_with(|calls| calls.set(calls.get() + 1));
}

// SAFETY: everything is handed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count();
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as the caller promises.
        unsafe { System.realloc(block, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn calls(body: impl FnOnce()) -> u64 {
    let before = CALLS.get();
    body();
    CALLS.get() - before
}

fn open_dgram(controller: &Control, style: i32) -> DestHandle {
    dest_of(controller.open_dest("", style, &options(&[]), LIMIT).unwrap()).unwrap()
}

#[test]
fn the_counting_works() {
    assert_eq!(calls(|| ()), 0);
    assert_eq!(calls(|| drop(vec![1u8; 100])), 2);
}

#[test]
fn nothing_per_datagram() {
    let bridge = Bridge::start(Config::default()).unwrap();
    let udp = bridge.udp_addr().to_string();
    let controller = controller_with(&bridge, &[("udp", &udp)]);
    for style in [2, 3, 4, 5] {
        let (a, b) = (open_dgram(&controller, style), open_dgram(&controller, style));
        let (from, to) = (Dgram::bind(&a).unwrap(), Dgram::bind(&b).unwrap());
        let address = base64(&b).to_owned();
        let payload = [b'x'; 1000];
        let mut buffer = vec![MaybeUninit::new(0u8); 2000];
        let mut round = |n: usize| {
            for _ in 0..n {
                assert!(from.send_to(&address, &payload, 0, &SendOptions::default()).unwrap());
                let datagram = to.recv_from(&mut buffer, 0).unwrap().unwrap();
                assert_eq!(datagram.len, 1000);
            }
        };
        round(3);
        let used = calls(|| round(500));
        assert_eq!(used, 0, "style {style}: heap calls for 500 datagrams");
        // Many at once: more than go with one system call.
        let list = [Outgoing { address: &address, payload: &payload }; 20];
        let mut buffers = vec![[MaybeUninit::new(0u8); 2000]; 20];
        let mut round = |n: usize| {
            for _ in 0..n {
                let (sent, result) = from.send_many(&list, 0);
                assert!(sent == 20 && result.unwrap());
                let mut got = 0;
                while got < 20 {
                    let mut slots: [Slot<'_>; 20] = Default::default();
                    for (slot, buffer) in slots.iter_mut().zip(&mut buffers[got..]) {
                        slot.room = buffer;
                    }
                    let left = 20 - got;
                    got += to.recv_many(&mut slots[..left], 0).unwrap();
                }
            }
        };
        round(3);
        let used = calls(|| round(20));
        assert_eq!(used, 0, "style {style}: heap calls for 20 times 20 datagrams");
    }
}

#[test]
fn waiting_with_a_time_limit_costs_nothing_either() {
    let bridge = Bridge::start(Config::default()).unwrap();
    let udp = bridge.udp_addr().to_string();
    let controller = controller_with(&bridge, &[("udp", &udp)]);
    let a = open_dgram(&controller, 2);
    let dgram = Dgram::bind(&a).unwrap();
    dgram.set_timeout(10_000).unwrap();
    let address = base64(&a).to_owned();
    let mut buffer = vec![MaybeUninit::new(0u8); 2000];
    let mut round = |n: usize| {
        for _ in 0..n {
            assert!(dgram.send_to(&address, b"x", 0, &SendOptions::default()).unwrap());
            dgram.recv_from(&mut buffer, 0).unwrap().unwrap();
        }
    };
    round(3);
    assert_eq!(calls(|| round(200)), 0);
}

/// The whole way a C program goes.
#[test]
fn nothing_per_datagram_from_c() {
    let bridge = Bridge::start(Config::default()).unwrap();
    for style in [2, 3, 5] {
        // SAFETY: handles come from the library and are freed once; text is NUL-terminated.
        unsafe {
            let settings = i2psock_options_new();
            for (key, value) in [("sam", bridge.addr().to_string()), ("udp", bridge.udp_addr().to_string())] {
                let (key, value) = (CString::new(key).unwrap(), CString::new(value).unwrap());
                let status = i2psock_options_set(settings.as_mut(), key.as_ptr(), value.as_ptr(), None);
                assert_eq!(status as i32, 0);
            }
            let mut controller = MaybeUninit::uninit();
            assert_eq!(i2psock_controller_open(settings.as_ref(), Some(&mut controller), None) as i32, 0);
            let controller = controller.assume_init();
            let mut dest = MaybeUninit::uninit();
            let none = std::ptr::null();
            assert_eq!(i2psock_dest_open(controller.as_ref(), none, style, None, -1, Some(&mut dest), None) as i32, 0);
            let dest = dest.assume_init();
            let mut dgram = MaybeUninit::uninit();
            assert_eq!(i2psock_dest_bind(dest.as_ref(), Some(&mut dgram), None) as i32, 0);
            let dgram = dgram.assume_init();
            let address = i2psock_addr_base64(i2psock_dgram_dest(dgram.as_ref()).as_ref());
            let from = i2psock_from_new();
            let mut buffer = [0u8; 100];
            let mut round = |n: usize| {
                for _ in 0..n {
                    let sent = i2psock_dgram_send_to(dgram.as_ref(), address, b"abc".as_ptr().cast(), 3, 0, None, None);
                    assert_eq!(sent as i32, 0);
                    let mut len = MaybeUninit::uninit();
                    let room = buffer.as_mut_ptr().cast();
                    let got =
                        i2psock_dgram_recv_from(dgram.as_ref(), room, 100, 0, Some(&mut len), from.as_mut(), None);
                    assert_eq!((got as i32, len.assume_init()), (0, 3));
                    assert_eq!(i2psock_from_addr(from.as_ref()).is_null(), style != 2);
                }
            };
            round(3);
            let used = calls(|| round(300));
            let list = [(); 20].map(|()| i2psock_outgoing { address, data: b"abc".as_ptr().cast(), len: 3 });
            let mut rooms = [[0u8; 100]; 20];
            let mut incoming = rooms.each_mut().map(|room| {
                let data = room.as_mut_ptr().cast();
                i2psock_incoming { data, capacity: 100, len: 0, from }
            });
            let mut round = |n: usize| {
                for _ in 0..n {
                    let mut count = MaybeUninit::uninit();
                    let sent = i2psock_dgram_send_many(dgram.as_ref(), list.as_ptr(), 20, 0, Some(&mut count), None);
                    assert_eq!((sent as i32, count.assume_init()), (0, 20));
                    let mut got = 0;
                    while got < 20 {
                        let rest = incoming[got..].as_mut_ptr();
                        let status = i2psock_dgram_recv_many(dgram.as_ref(), rest, 20 - got, 0, Some(&mut count), None);
                        assert_eq!(status as i32, 0);
                        got += count.assume_init();
                    }
                    assert_eq!(incoming.each_ref().map(|one| one.len), [3; 20]);
                }
            };
            round(3);
            let used = used + calls(|| round(20));
            i2psock_from_free(from);
            i2psock_dgram_free(dgram);
            i2psock_dest_close(dest);
            i2psock_controller_close(controller);
            i2psock_options_free(settings);
            assert_eq!(used, 0, "style {style}: heap calls for 300 datagrams and 20 times 20");
        }
    }
}
