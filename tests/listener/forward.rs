//! Listeners by STREAM FORWARD: the router connects to a port of ours, and so may anybody else on this machine.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::common::*;
use i2psock::core::destination::DestHandle;
use i2psock::core::drive::Pending;
use i2psock::core::listener::Listener;
use i2psock::core::stream::Stream;
use i2psock::error::Status;
use i2psock::sys;
use i2psock_bridge::{Action, Bridge, Config, Personality, Reply};

fn forward(dest: &DestHandle, backlog: i32) -> Listener {
    Listener::open(dest, backlog, &options(&[("stream_forward", "1")])).unwrap()
}

/// Serves the listener until `done`, going on with `pending` meanwhile.
fn serve(listener: &Listener, mut pending: Option<&mut Pending<Stream>>, mut done: impl FnMut(Option<Stream>) -> bool) {
    let end = Instant::now() + LONG;
    loop {
        let (fd, events) = match &mut pending {
            Some(pending) => {
                let _ = pending.step(now()).unwrap();
                (pending.fd(), pending.events())
            }
            None => (-1, 0),
        };
        if done(listener.accept(now()).unwrap()) {
            return;
        }
        assert!(Instant::now() < end, "{:?}", listener.failures());
        let timeout = listener.timeout_ms(now());
        let mut fds =
            [(listener.fd(), sys::IN), (fd, events)].map(|(fd, events)| sys::PollFd { fd, events, revents: 0 });
        sys::poll(&mut fds, if timeout < 0 { 20 } else { timeout.min(20) }).unwrap();
    }
}

/// Streams wait for the listener however long that takes.
fn patient_with(personality: Personality) -> Bridge {
    Bridge::start(Config { park: Some(LONG), ..Config::with_personality(personality) }).unwrap()
}

fn next(listener: &Listener, pending: Option<&mut Pending<Stream>>) -> Stream {
    let mut found = None;
    serve(listener, pending, |stream| {
        found = found.take().or(stream);
        found.is_some()
    });
    found.unwrap()
}

fn forwards(bridge: &Bridge) -> Vec<SocketAddr> {
    let port = |line: &String| {
        let port = line.split(" PORT=").nth(1)?.split(' ').next()?.parse().ok()?;
        line.starts_with("STREAM FORWARD ").then_some(SocketAddr::from(([127, 0, 0, 1], port)))
    };
    bridge.texts().iter().filter_map(port).collect()
}

/// Where the router was told to connect to, once it has promised.
fn address(bridge: &Bridge, listener: &Listener) -> SocketAddr {
    serve(listener, None, |stream| {
        assert!(stream.is_none());
        !forwards(bridge).is_empty()
    });
    *forwards(bridge).last().unwrap()
}

#[test]
fn streams_are_brought() {
    for personality in [Personality::Java, Personality::I2pd245, Personality::I2pd258, Personality::Emissary] {
        for keeper in ["1", "0"] {
            let bridge = Bridge::start(Config::with_personality(personality)).unwrap();
            let controller = controller_with(&bridge, &[("keeper", keeper)]);
            let (server, client) = (open(&controller), open(&controller));
            let listener = forward(&server, 0);
            address(&bridge, &listener);
            wait_until("the promise", || {
                assert!(listener.accept(now()).unwrap().is_none());
                bridge.sessions().iter().any(|session| session.forward)
            });
            for round in 0..10 {
                let mut connecting = connect(&client, &server);
                let accepted = next(&listener, Some(&mut connecting));
                assert!(!accepted.remote().verified);
                assert_eq!(accepted.remote().address.as_ref().unwrap().base64(), base64(&client));
                echo(&stream_of(&mut connecting).unwrap(), &accepted, round, 5000);
            }
            assert_eq!((forwards(&bridge).len(), listener.failures().0), (1, 0));
            drop(listener);
            assert_eq!(
                failure(
                    TcpStream::connect(forwards(&bridge)[0]).map_err(|_| i2psock::error::Error::invalid("refused"))
                )
                .status,
                Status::Invalid
            );
        }
    }
}

#[test]
fn strangers_are_shown_the_door() {
    for keeper in ["1", "0"] {
        let bridge = Bridge::start(Config::default()).unwrap();
        let controller = controller_with(&bridge, &[("keeper", keeper)]);
        let (server, client) = (open(&controller), open(&controller));
        let listener = forward(&server, 4);
        let to = address(&bridge, &listener);
        let long = "x".repeat(70_000);
        for word in ["", "\n", "nonsense\n", "GET / HTTP/1.1\r\n\r\n", long.as_str()] {
            let mut stranger = TcpStream::connect(to).unwrap();
            // It may be shown the door before it has said all.
            drop(stranger.write_all(word.as_bytes()));
            drop(stranger.shutdown(std::net::Shutdown::Write));
            stranger.set_read_timeout(Some(LONG)).unwrap();
            let mut ended = false;
            std::thread::scope(|scope| {
                let end = scope.spawn(|| matches!(stranger.read(&mut [0]), Ok(0) | Err(_)));
                serve(&listener, None, |stream| {
                    assert!(stream.is_none(), "{word:.20}");
                    end.is_finished()
                });
                ended = end.join().unwrap();
            });
            assert!(ended);
        }
        // One that says nothing takes a place, but the others go on; a peer line in pieces is a peer line.
        let silent = TcpStream::connect(to).unwrap();
        let mut slow = TcpStream::connect(to).unwrap();
        slow.set_nodelay(true).unwrap();
        let line = format!("{} FROM_PORT=1 TO_PORT=2\nhello", base64(&client));
        let (first, rest) = line.split_at(300);
        slow.write_all(first.as_bytes()).unwrap();
        let mut connecting = connect(&client, &server);
        let accepted = next(&listener, Some(&mut connecting));
        echo(&stream_of(&mut connecting).unwrap(), &accepted, 1, 1000);
        slow.write_all(rest.as_bytes()).unwrap();
        let accepted = next(&listener, None);
        assert_eq!((accepted.remote().from_port, accepted.remote().to_port), (Some(1), Some(2)));
        assert_eq!(receive(&accepted, 5), b"hello");
        drop(silent);
    }
}

#[test]
fn no_more_than_the_backlog() {
    let bridge = Bridge::start(Config::default()).unwrap();
    let controller = controller(&bridge);
    let (server, client) = (open(&controller), open(&controller));
    let listener = forward(&server, 2);
    let to = address(&bridge, &listener);
    let line = format!("{}\n", base64(&client));
    let mut peers: Vec<_> = (0..8u8)
        .map(|number| {
            let mut peer = TcpStream::connect(to).unwrap();
            peer.write_all(line.as_bytes()).and_then(|()| peer.write_all(&[number])).unwrap();
            peer
        })
        .collect();
    let mut numbers: Vec<u8> = (0..8).flat_map(|_| receive(&next(&listener, None), 1)).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6, 7]);
    peers.clear();
}

#[test]
fn a_refused_or_broken_promise_is_asked_for_again() {
    each_keeper(|keeper| {
        let bridge = Bridge::start(Config::default()).unwrap();
        let controller = controller_with(&bridge, &[("keeper", keeper)]);
        let (server, client) = (open(&controller), open(&controller));
        bridge.faults().once(Reply::StreamForward, Action::replace_and_close("STREAM STATUS RESULT=I2P_ERROR\n"));
        bridge.faults().ping_every(Some(Duration::from_millis(1)));
        let listener = forward(&server, 0);
        serve(&listener, None, |_| forwards(&bridge).len() == 2 && bridge.sessions().iter().any(|s| s.forward));
        assert_eq!(listener.failures().1.unwrap().tag, "I2P_ERROR");
        // PINGs come on that socket as well, and are answered.
        serve(&listener, None, |_| bridge.faults().pongs().len() > 100);
        let mut connecting = connect(&client, &server);
        let accepted = next(&listener, Some(&mut connecting));
        bridge.faults().ping_every(None);
        echo(&stream_of(&mut connecting).unwrap(), &accepted, 1, 1000);
    });
}

#[test]
fn it_goes_on_with_the_next_session() {
    each_keeper(|keeper| {
        let bridge = Bridge::start(Config::default()).unwrap();
        let controller = controller_with(&bridge, &[("keeper", keeper)]);
        let recovering =
            || dest_of(controller.open_dest("", 1, &options(&[("recover", "1")]), LIMIT).unwrap()).unwrap();
        let server = recovering();
        let listener = forward(&server, 0);
        let to = address(&bridge, &listener);
        bridge.faults().kill_all_sessions(false);
        // The promise may be seen to end before the session is, and be asked for in vain once or twice.
        serve(&listener, None, |_| bridge.sessions().iter().any(|session| session.forward));
        let asked = forwards(&bridge);
        assert!(asked.len() >= 2 && asked.iter().all(|address| *address == to), "{asked:?}, not {to}");
        let client = open(&controller);
        let mut connecting = connect(&client, &server);
        let accepted = next(&listener, Some(&mut connecting));
        echo(&stream_of(&mut connecting).unwrap(), &accepted, 1, 1000);
    });
}

#[test]
fn only_on_this_machine() {
    let bridge = Bridge::start(Config::default()).unwrap();
    let dest = open(&controller(&bridge));
    let error = failure(Listener::open(&dest, 0, &options(&[("stream_forward", "1"), ("accepts", "2")])));
    assert_eq!(error.status, Status::Closed, "{error:?}");
    let controller = controller(&bridge);
    let dest = open(&controller);
    let error = failure(Listener::open(&dest, 0, &options(&[("stream_forward", "1"), ("accepts", "2")])));
    assert_eq!(error.status, Status::Invalid, "{error:?}");
}

/// The router gives the next stream to an accept that was given up, and until then it may not forward.
#[test]
fn an_accept_that_is_left_over_is_used_up_first() {
    for personality in [Personality::Java, Personality::I2pd258] {
        for keeper in ["1", "0"] {
            let bridge = patient_with(personality);
            let controller = controller_with(&bridge, &[("keeper", keeper)]);
            let (server, client) = (open(&controller), open(&controller));
            drop(listening(&server));
            let listener = forward(&server, 0);
            for round in 0..3 {
                let mut connecting = connect(&client, &server);
                let accepted = next(&listener, Some(&mut connecting));
                assert_eq!(accepted.remote().verified, round == 0, "{personality}");
                echo(&stream_of(&mut connecting).unwrap(), &accepted, round, 1000);
                if round == 0 {
                    address(&bridge, &listener);
                    wait_until("the promise", || {
                        assert!(listener.accept(now()).unwrap().is_none());
                        bridge.sessions().iter().any(|session| session.forward)
                    });
                }
            }
            assert_eq!((forwards(&bridge).len(), listener.failures().0), (1, 0));
        }
    }
}

/// Local processes that connect and say nothing keep nobody out.
#[test]
fn silent_connections_make_room() {
    each_keeper(|keeper| {
        let bridge = patient_with(Personality::Java);
        let controller = controller_with(&bridge, &[("keeper", keeper)]);
        let (server, client) = (open(&controller), open(&controller));
        let listener = forward(&server, 4);
        let to = address(&bridge, &listener);
        let silent: Vec<_> = (0..20).map(|_| TcpStream::connect(to).unwrap()).collect();
        let start = Instant::now();
        let mut connecting = connect(&client, &server);
        let accepted = next(&listener, Some(&mut connecting));
        echo(&stream_of(&mut connecting).unwrap(), &accepted, 1, 1000);
        // They would have had ten seconds each.
        assert!(start.elapsed() < Duration::from_secs(9), "{:?}", start.elapsed());
        drop(silent);
    });
}
