//! Sessions over the loopback bridge: one file for each topic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod accept;
mod closing;
mod evidence;
mod keep_alive;
mod lookup;
mod loss;
mod steps;

use std::time::{Duration, Instant};

use crate::common::{self, *};
use i2psock::core::destination::DestHandle;
use i2psock::sys::{self};
use i2psock_bridge::{Bridge, Config};

fn start() -> Bridge {
    Bridge::start(Config::default()).unwrap()
}

fn readable(dest: &DestHandle, milliseconds: i32) -> bool {
    sys::poll_one(dest.destination().fd(), sys::IN, milliseconds).unwrap() != 0
}

/// Serves the destination until `done`; with a keeper there is nothing to do but wait.
fn serve_until(dest: &DestHandle, what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + LONG;
    while !done() {
        assert!(Instant::now() < end, "never: {what}");
        if !dest.destination().signals().driver.is_caller() {
            std::thread::sleep(Duration::from_millis(1));
        } else if readable(dest, 5) {
            dest.destination().service(now());
        }
    }
}
