//! How many connections, and how long.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{mpsc, Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use super::{address, call, count, local, local_to_tcp, reach, round_trip, taken, try_client, try_server, Server};
use crate::common::*;
use i2psock::core::settings::Options;
use i2psock::core::tunnel::Tunnel;
use i2psock::error::{Error, Operation, Status};
use i2psock_bridge::{Action, Bridge, Config, Reply};

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
