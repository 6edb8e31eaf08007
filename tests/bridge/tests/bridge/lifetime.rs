//! How sessions, connections and bridges begin and end.

use crate::common::*;
use i2psock_bridge::{Bridge, Config};
use std::time::{Duration, Instant};

#[test]
fn an_id_is_free_as_soon_as_its_socket_is_closed() {
    let bridge = bridge();
    let mut owner = Client::session(&bridge, "same");
    for _ in 0..100 {
        // Already greeted, so that its CREATE comes right behind the end of the other.
        let mut next = Client::new(&bridge);
        drop(owner);
        let reply = next.ask(&create("same", "TRANSIENT"));
        assert!(reply.contains("RESULT=OK"), "{reply}");
        owner = next;
    }
}

#[test]
fn a_session_takes_everything_with_it() {
    let (bridge, a, _b) = two_sessions(Config { park: Some(LONG), ..Config::default() });
    let (mut connected, mut accepted) = stream(&bridge);
    let mut waiting = Client::accept(&bridge, "a");
    drop(a);
    assert!(connected.rest().is_empty());
    assert!(accepted.rest().is_empty());
    assert_eq!(waiting.rest_text(), "STREAM STATUS RESULT=I2P_ERROR MESSAGE=\"Session is closed\"\n");
    let again = Client::session(&bridge, "a");
    // A connect that waits dies with either session.
    let mut parked = Client::connecting(&bridge, "b", "a");
    assert!(bridge.wait_for(LONG, |b| b.session("a").unwrap().parked == 1));
    drop(again);
    assert!(parked.rest_text().starts_with("STREAM STATUS RESULT=CANT_REACH_PEER"));
    drop((connected, accepted, waiting, parked));
    assert!(bridge.wait_for(LONG, |b| b.connections_open() == 1));
    assert_eq!(bridge.sessions().len(), 1);
}

#[test]
fn what_was_written_before_the_session_ended_arrives() {
    let (bridge, _a, mut b) = two_sessions(Config::default());
    let data = pattern(500_000, 1);
    for _ in 0..20 {
        let (mut connected, mut accepted) = stream(&bridge);
        let reader = std::thread::spawn(move || accepted.rest());
        connected.write(&data);
        drop(connected);
        drop(b);
        assert!(reader.join().unwrap() == data);
        b = Client::session(&bridge, "b");
    }
}

#[test]
fn building_takes_time_and_can_be_given_up() {
    let bridge = Bridge::start(Config { build_delay: Duration::from_millis(200), ..Config::default() }).unwrap();
    let start = Instant::now();
    let _a = Client::session(&bridge, "a");
    assert!(start.elapsed() >= Duration::from_millis(200));
    let mut gives_up = Client::new(&bridge);
    gives_up.send(&create("b", "TRANSIENT"));
    drop(gives_up);
    assert!(bridge.wait_for(LONG, |b| b.connections_open() == 1));
    Client::session(&bridge, "b");
}

#[test]
fn stopping_is_prompt_whatever_goes_on() {
    let bridge = Bridge::start_to_stay(Config { park: Some(LONG), ..Config::default() }).unwrap();
    let (mut a, mut b) = (Client::session(&bridge, "a"), Client::session(&bridge, "b"));
    let (mut connected, mut accepted) = stream(&bridge);
    let mut waiting = Client::accept(&bridge, "a");
    let mut parked = Client::connecting(&bridge, "a", "b");
    let mut fresh = Client::bare(&bridge);
    assert!(bridge.wait_for(LONG, |b| b.session("b").unwrap().parked == 1));
    let addr = bridge.addr();
    let start = Instant::now();
    bridge.stop();
    assert!(start.elapsed() < PROMPT, "{:?}", start.elapsed());
    for client in [&mut a, &mut b, &mut connected, &mut accepted, &mut fresh] {
        assert!(client.rest().is_empty());
    }
    waiting.rest();
    parked.rest();
    assert!(std::net::TcpStream::connect(addr).is_err());
    assert!(std::net::TcpListener::bind(addr).is_ok());
}

#[test]
fn other_listeners() {
    let directory = std::env::temp_dir().join(format!("i2psock-bridge-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("sam");
    let bridge = Bridge::start(Config { ipv6: true, unix: Some(path.clone()), ..Config::default() }).unwrap();
    let v6 = bridge.addr_v6().unwrap();
    assert_eq!(v6.port(), bridge.port());
    let mut client = Client { stream: std::net::TcpStream::connect(v6).unwrap() };
    assert_eq!(client.ask("HELLO VERSION"), "HELLO REPLY RESULT=OK VERSION=3.3");
    {
        use std::io::{BufRead, BufReader, Write};
        let mut unix = std::os::unix::net::UnixStream::connect(&path).unwrap();
        unix.set_read_timeout(Some(LONG)).unwrap();
        let mut reader = BufReader::new(unix.try_clone().unwrap());
        let mut reply = String::new();
        unix.write_all(b"HELLO VERSION\n").unwrap();
        reader.read_line(&mut reply).unwrap();
        assert_eq!(reply, "HELLO REPLY RESULT=OK VERSION=3.3\n");
    }
    assert!(Bridge::start(Config { unix: Some(path.clone()), ..Config::default() }).is_err());
    let start = Instant::now();
    bridge.stop();
    assert!(start.elapsed() < PROMPT);
    assert!(!path.exists());
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn what_was_received_is_recorded() {
    let bridge = bridge();
    let mut first = Client::new(&bridge);
    first.write("PING a\r\n");
    first.line();
    let mut second = Client::new(&bridge);
    second.ask("NAMING LOOKUP NAME=x.i2p");
    let lines: Vec<_> = bridge.lines().iter().map(|line| (line.connection, line.text())).collect();
    let wanted = [
        (1, "HELLO VERSION MIN=3.1 MAX=3.3"),
        (1, "PING a\r"),
        (2, "HELLO VERSION MIN=3.1 MAX=3.3"),
        (2, "NAMING LOOKUP NAME=x.i2p"),
    ];
    assert_eq!(lines, wanted.map(|(n, text)| (n, text.to_string())));
    assert_eq!((bridge.connections_total(), bridge.connections_open()), (2, 2));
    drop(first);
    assert!(bridge.wait_for(LONG, |b| b.connections_open() == 1));
    assert_eq!(bridge.connections_total(), 2);
}
