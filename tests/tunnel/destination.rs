//! A tunnel and its destination: lost sessions, restarts of the router, and driving it without a keeper.

use std::io::Read;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::common::*;
use super::{both, call, count, round_trip, taken, works, Far, Server};
use i2psock::core::destination::State;
use i2psock::core::listener::Listener;
use i2psock::core::settings::{Options, TunnelOptions};
use i2psock::core::tunnel::{MakeSend, Receive, Tunnel};
use i2psock::error::Status;
use i2psock::sys::Place;
use i2psock_bridge::{Bridge, Config};

/// A bridge that stops and is started again: nobody has to call anything, with a keeper or without.
#[test]
fn both_ends_outlive_the_router() {
    each_keeper(|keeper| {
        let bridge = Bridge::start_to_stay(patient()).unwrap();
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
        let _bridge = Bridge::start(Config { port, udp_port, ..patient() }).unwrap();
        let end = Instant::now() + LONG * 3;
        while !works(&client) {
            assert!(Instant::now() < end, "it never works again with keeper {keeper}");
            std::thread::sleep(Duration::from_millis(20));
        }
        round_trip(&mut call(&client), 2, 100_000);
    });
}

/// A session that is lost without recovery: the tunnel says so by failing what comes, and closes in time.
#[test]
fn a_destination_that_ends_under_it() {
    each_keeper(|keeper| {
        let bridge = Bridge::start(patient()).unwrap();
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
    });
}

/// Every session is asked this many times, one time after the other, and each time all of them answer.
fn all_answer(bridge: &Bridge, times: usize) {
    let sessions = bridge.sessions().len();
    for time in 0..times {
        let ping = format!("PING {time} of {times}\n");
        assert_eq!(bridge.faults().unsolicited(&ping), sessions);
        let pong = ping.trim_end().replace("PING", "PONG");
        let answers = |bridge: &Bridge| bridge.texts().iter().filter(|line| **line == pong).count();
        assert!(bridge.wait_for(LONG, |bridge| answers(bridge) == sessions), "{:?}", bridge.texts());
    }
}

/// A full tunnel still serves its destination.
#[test]
fn a_full_tunnel_without_a_keeper_is_driven() {
    let bridge = Bridge::start(patient()).unwrap();
    let controller = controller_with(&bridge, &[("keeper", "0")]);
    let target = Server::echo();
    let (server, client) = both(&controller, &target, &[("nconnect", "1")]);
    let mut stream = call(&client);
    round_trip(&mut stream, 1, 100);
    all_answer(&bridge, 4);
    round_trip(&mut stream, 2, 100);
    assert_eq!((count(&client, |c| &c.now), count(&server, |c| &c.now)), (1, 1));
}

/// A full tunnel still serves the destination of a listener that was lent to it.
#[test]
fn a_full_tunnel_without_a_keeper_drives_its_listener() {
    let bridge = Bridge::start(patient()).unwrap();
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
    all_answer(&bridge, 4);
    assert_eq!(dest.destination().state().0, State::Ready);
    stream.send_all(b"y").1.unwrap();
    server.read_exact(&mut [0]).unwrap();
}
