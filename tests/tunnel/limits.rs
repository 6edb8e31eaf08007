//! How many connections, and how long.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{mpsc, Arc, Mutex, OnceLock};
use std::time::Instant;

use super::common::*;
use super::{address, call, count, local, reach, round_trip, try_client, try_server, Server};
use i2psock::core::settings::Options;
use i2psock::core::tunnel::Tunnel;
use i2psock::error::{Error, Operation, Status};
use i2psock_bridge::Bridge;

#[test]
fn those_above_the_limit_wait() {
    let bridge = Bridge::start(patient()).unwrap();
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
    let bridge = Bridge::start(patient()).unwrap();
    let controller = controller(&bridge);
    let target = Server::echo();
    let server = try_server(&controller, &target.address.to_string(), &Options::default()).unwrap();
    // Traffic keeps a connection from being idle, not from being over; how long exactly is tested beside the code.
    for (option, busy) in [("timeout", true), ("idle_timeout", false)] {
        let client = try_client(&controller, "0", &address(&server), &options(&[(option, "300")])).unwrap();
        let (mut stream, end) = (call(&client), Instant::now() + LONG);
        while busy && Instant::now() < end && stream.write_all(b"x").is_ok() && matches!(stream.read(&mut [0]), Ok(1)) {
        }
        assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0, "{option}");
        wait_until("it is counted", || count(&client, |c| &c.expired) == 1);
    }
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
