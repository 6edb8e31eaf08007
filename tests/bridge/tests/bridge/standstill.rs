//! A bridge that stands still.

use crate::common::*;
use i2psock_bridge::{Bridge, Config, Personality};
use std::net::UdpSocket;
use std::time::Duration;

#[test]
fn nothing_is_read_answered_or_closed_until_it_goes_on() {
    for personality in Personality::ALL {
        // What has its time must not run out either.
        let config =
            Config { command_timeout: Some(Duration::from_secs(3600)), ..Config::with_personality(personality) };
        let (bridge, mut a, _b) = two_sessions(config);
        let (mut connected, mut accepted) = stream(&bridge);
        let mut waiting = Client::accept(&bridge, "a");
        let to = bridge.session("a").unwrap().destination;
        let (lines, total) = (bridge.lines().len(), bridge.connections_total());

        bridge.faults().freeze();
        a.send("NAMING LOOKUP NAME=ME");
        connected.write("payload");
        let mut fresh = Client::bare(&bridge);
        fresh.send("HELLO VERSION MIN=3.1 MAX=3.1");
        for client in [&mut a, &mut accepted, &mut fresh, &mut waiting, &mut connected] {
            client.silent();
        }
        assert_eq!((bridge.lines().len(), bridge.connections_total()), (lines, total), "{personality}");

        bridge.faults().thaw();
        assert!(a.line().starts_with("NAMING REPLY RESULT=OK NAME=ME"), "{personality}");
        assert_eq!(accepted.exact(7), b"payload");
        assert_eq!(fresh.line(), "HELLO REPLY RESULT=OK VERSION=3.1");
        fresh.send(&format!("STREAM CONNECT ID=b DESTINATION={to}"));
        assert_eq!(fresh.line(), "STREAM STATUS RESULT=OK");
        waiting.line();
    }
}

#[test]
fn ends_and_datagrams_wait_too() {
    let bridge = Bridge::start(Config::default()).unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut control = Client::new(&bridge);
    let port = udp.local_addr().unwrap().port();
    let line = format!("SESSION CREATE STYLE=RAW ID=r DESTINATION=TRANSIENT SIGNATURE_TYPE=7 PORT={port}");
    assert!(control.ask(&line).contains("RESULT=OK"));
    let me = bridge.session("r").unwrap().destination;
    bridge.faults().freeze();
    udp.send_to(format!("3.0 r {me}\nraw").as_bytes(), bridge.udp_addr()).unwrap();
    udp.set_read_timeout(Some(SHORT)).unwrap();
    assert!(udp.recv(&mut [0; 10]).is_err());
    bridge.faults().thaw();
    udp.set_read_timeout(Some(LONG)).unwrap();
    assert_eq!(udp.recv(&mut [0; 10]).unwrap(), 3);
    bridge.faults().freeze();
    drop(control);
    assert!(!bridge.wait_for(SHORT, |b| b.sessions().is_empty()));
    bridge.faults().thaw();
    assert!(bridge.wait_for(LONG, |b| b.sessions().is_empty()));
}

#[test]
fn a_frozen_bridge_can_be_stopped_and_told_not_to_listen() {
    let (bridge, mut a, _b) = two_sessions(Config::default());
    bridge.faults().freeze();
    a.send("PING x");
    let _fresh = Client::bare(&bridge);
    bridge.stop_listening();
    assert!(std::net::TcpStream::connect(bridge.addr()).is_err());
    bridge.stop();
    a.rest();
}
