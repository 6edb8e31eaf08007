//! The byte pipe and forwarding.

use crate::common::*;
use i2psock_bridge::{Bridge, Config, Personality};
use std::io::{ErrorKind, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

const MEGABYTE: usize = 1 << 20;

#[test]
fn both_directions_at_once() {
    let (bridge, _a, _b) = two_sessions(Config::default());
    let (mut connected, mut accepted) = stream(&bridge);
    let (out, back) = (pattern(16 * MEGABYTE, 1), pattern(16 * MEGABYTE, 2));
    std::thread::scope(|scope| {
        for (end, data) in [(&connected, &out), (&accepted, &back)] {
            let mut end = end.stream.try_clone().unwrap();
            scope.spawn(move || end.write_all(data).unwrap());
        }
        let got = scope.spawn(|| accepted.exact(out.len()) == out);
        assert!(connected.exact(back.len()) == back);
        assert!(got.join().unwrap());
    });
}

#[test]
fn closing_delivers_what_was_written() {
    let (bridge, _a, _b) = two_sessions(Config::default());
    let data = pattern(3 * MEGABYTE + 17, 3);
    for half in [false, true] {
        for reverse in [false, true] {
            let (mut from, mut to) = stream(&bridge);
            if reverse {
                (from, to) = (to, from);
            }
            std::thread::scope(|scope| {
                let data = &data;
                scope.spawn(move || {
                    from.write(data);
                    if half {
                        from.finish_writing();
                        // The other direction is over as well.
                        from.rest();
                    }
                });
                assert!(to.rest() == *data, "half {half}, reverse {reverse}");
            });
        }
    }
}

#[test]
fn a_slow_reader_that_still_writes_loses_nothing() {
    let (bridge, _a, _b) = two_sessions(Config::default());
    let (mut from, mut to) = stream(&bridge);
    let data = pattern(MEGABYTE / 8, 4);
    from.write(&data);
    from.finish_writing();
    // Closed by the bridge: it has handed everything to the system.
    assert!(from.rest().is_empty());
    // Nobody reads this, and it must not cost what is on its way.
    to.write(pattern(MEGABYTE, 5));
    assert!(to.rest() == data);
}

#[test]
fn a_writer_notices_in_the_end() {
    let (bridge, _a, _b) = two_sessions(Config { linger: Duration::from_millis(50), ..Config::default() });
    let (from, mut to) = stream(&bridge);
    drop(from);
    assert!(to.rest().is_empty());
    let deadline = Instant::now() + LONG;
    let error = loop {
        assert!(Instant::now() < deadline, "writing never fails");
        if let Err(e) = to.stream.write_all(b"x") {
            break e.kind();
        }
        std::thread::yield_now();
    };
    assert!(matches!(error, ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{error}");
}

#[test]
fn small_writes_are_not_held_back() {
    let (bridge, _a, _b) = two_sessions(Config::default());
    let (mut connected, mut accepted) = stream(&bridge);
    let mut slow = 0;
    for n in 0..200u8 {
        let start = Instant::now();
        // Two writes and then a wait is what delayed acknowledgements make slow, 40 ms each.
        for _ in 0..2 {
            connected.write([n]);
            assert_eq!(accepted.exact(1), [n]);
        }
        accepted.write([n]);
        assert_eq!(connected.exact(1), [n]);
        slow += usize::from(start.elapsed() > Duration::from_millis(35));
    }
    // A busy machine is slow now and then.
    assert!(slow < 100, "{slow} of 200 rounds");
}

#[test]
fn many_streams_at_once() {
    let (bridge, _a, _b) = two_sessions(Config::default());
    let mut pairs: Vec<_> = (0..40).map(|_| stream(&bridge)).collect();
    for (n, (connected, _)) in pairs.iter_mut().enumerate() {
        connected.write(pattern(5000, n as u64));
    }
    for (n, (connected, accepted)) in pairs.into_iter().enumerate() {
        let mut accepted = accepted;
        drop(connected);
        assert!(accepted.rest() == pattern(5000, n as u64), "{n}");
    }
    assert!(bridge.wait_for(LONG, |b| b.connections_open() == 2));
    assert_eq!(bridge.session("a").unwrap().streams, 0);
}

struct Target {
    listener: TcpListener,
}

impl Target {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        Self { listener }
    }

    fn port(&self) -> u16 {
        self.listener.local_addr().unwrap().port()
    }

    fn accept(&self) -> Client {
        let deadline = Instant::now() + LONG;
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false).unwrap();
                    stream.set_read_timeout(Some(LONG)).unwrap();
                    return Client { stream };
                }
                Err(e) => assert!(Instant::now() < deadline, "{e}"),
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

fn forward(bridge: &Bridge, options: &str) -> Client {
    let mut client = Client::new(bridge);
    let reply = client.ask(&format!("STREAM FORWARD ID=a {options}"));
    assert_eq!(reply, "STREAM STATUS RESULT=OK");
    client
}

#[test]
fn forwarding() {
    for personality in Personality::ALL {
        let config = Config { park: Some(LONG), ..Config::with_personality(personality) };
        let (bridge, _a, _b) = two_sessions(config);
        let target = Target::new();
        let waiting = Client::connecting(&bridge, "b", "a");
        assert!(bridge.wait_for(LONG, |b| b.session("a").unwrap().parked == 1));
        let forwarder = forward(&bridge, &format!("PORT={} HOST=127.0.0.1", target.port()));
        let ports = match personality {
            Personality::Java => " FROM_PORT=0 TO_PORT=0",
            _ => "",
        };
        let peer = format!("{}{ports}", bridge.session("b").unwrap().destination);
        // The one that had been waiting, and a new one.
        for connected in [Some(waiting), None] {
            let mut connected = connected.unwrap_or_else(|| Client::connecting(&bridge, "b", "a"));
            let mut accepted = target.accept();
            assert_eq!(connected.line(), "STREAM STATUS RESULT=OK");
            assert_eq!(accepted.line(), peer, "{personality}");
            connected.write("hello");
            assert_eq!(accepted.exact(5), b"hello");
            accepted.write("world");
            drop(accepted);
            assert_eq!(connected.rest(), b"world");
        }
        assert!(bridge.session("a").unwrap().forward);
        drop(forwarder);
        if personality == Personality::Emissary {
            let connected = Client::connecting(&bridge, "b", "a");
            target.accept();
            drop(connected);
            assert!(bridge.session("a").unwrap().forward);
        } else {
            assert!(bridge.wait_for(LONG, |b| !b.session("a").unwrap().forward));
        }
    }
}

#[test]
fn silent_forwarding_and_a_target_that_is_not_there() {
    let (bridge, a, _b) = two_sessions(Config::default());
    let target = Target::new();
    let port = target.port();
    let mut forwarder = forward(&bridge, &format!("PORT={port} SILENT=true"));
    let mut connected = Client::connecting(&bridge, "b", "a");
    let mut accepted = target.accept();
    connected.line();
    connected.write("x");
    drop(connected);
    assert_eq!(accepted.rest(), b"x");
    // While a forward is active there is no accepting.
    let mut client = Client::new(&bridge);
    assert_eq!(
        client.ask("STREAM ACCEPT ID=a") + &client.rest_text(),
        "STREAM STATUS RESULT=OKSTREAM STATUS RESULT=ALREADY_ACCEPTING\n"
    );
    drop(target);
    let mut connected = Client::connecting(&bridge, "b", "a");
    assert_eq!(connected.rest_text(), "STREAM STATUS RESULT=OK\n");
    // The forward ends with its session.
    drop(a);
    assert!(forwarder.rest().is_empty());
    for options in ["", "PORT=0", "PORT=x", "PORT=1 SSL=true"] {
        let _a = Client::session(&bridge, "a");
        let mut client = Client::new(&bridge);
        let reply = client.ask(&format!("STREAM FORWARD ID=a {options}"));
        assert!(reply.starts_with("STREAM STATUS RESULT=I2P_ERROR"), "{reply}");
    }
}

#[test]
fn forwarding_and_accepting_exclude_each_other() {
    let (bridge, _a, _b) = two_sessions(Config::default());
    let _waiting = Client::accept(&bridge, "a");
    let mut client = Client::new(&bridge);
    let reply = client.ask("STREAM FORWARD ID=a PORT=1");
    assert!(reply.starts_with("STREAM STATUS RESULT=I2P_ERROR"), "{reply}");
}
