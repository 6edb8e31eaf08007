//! What a tunnel tells: counts, errors, and a descriptor for news.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::common::*;
use super::{address, count, local, reach, round_trip, try_client, try_server, works, Far, Server};
use i2psock::core::destination::State;
use i2psock::core::drive::Pending;
use i2psock::core::settings::Options;
use i2psock::core::stream::Stream;
use i2psock::core::tunnel::Tunnel;
use i2psock::error::{Error, Operation, Result, Status};
use i2psock::sys::{poll_one, Place, IN};
use i2psock_bridge::{Bridge, Config};

#[test]
fn failures_of_every_kind_leave_room() {
    let bridge = Bridge::start(patient()).unwrap();
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
    each_keeper(|keeper| {
        let bridge = Bridge::start_to_stay(patient()).unwrap();
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
        let _bridge = Bridge::start(Config { port, udp_port, ..patient() }).unwrap();
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
    });
}
