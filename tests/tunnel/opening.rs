//! What a tunnel is given: arguments, targets, addresses.

use std::io::Read;
use std::net::{TcpListener, TcpStream};

use super::common::*;
use super::{address, call, count, round_trip, try_client, try_server, Server};
use i2psock::core::settings::Options;
use i2psock::error::Status;
use i2psock_bridge::Bridge;

#[test]
fn targets_that_refuse() {
    let bridge = Bridge::start(patient()).unwrap();
    let controller = controller(&bridge);
    let server = try_server(&controller, "127.0.0.1:1", &Options::default()).unwrap();
    let client = try_client(&controller, "0", &address(&server), &Options::default()).unwrap();
    for _ in 0..3 {
        assert_eq!(call(&client).read(&mut [0]).unwrap_or(0), 0);
    }
    wait_until("the failures", || count(&server, |c| &c.failed) == 3);
    let error = server.next_error().unwrap();
    assert_eq!((error.status, error.os_error), (Status::Io, libc::ECONNREFUSED), "{error:?}");
    // A name with several addresses is tried to the end: localhost may begin with ::1, where nobody listens.
    let target = Server::echo();
    let text = format!("localhost:{}", target.address.port());
    let server = try_server(&controller, &text, &Options::default()).unwrap();
    let client = try_client(&controller, "0", &address(&server), &Options::default()).unwrap();
    round_trip(&mut call(&client), 1, 100);
    // Nobody at the other end.
    let nobody = try_client(&controller, "0", &destination(3), &Options::default()).unwrap();
    assert_eq!(call(&nobody).read(&mut [0]).unwrap_or(0), 0);
    wait_until("the failure", || count(&nobody, |c| &c.failed) == 1);
    assert_eq!(nobody.next_error().unwrap().tag, "CANT_REACH_PEER");
}

#[test]
fn wrong_arguments() {
    let bridge = Bridge::start(patient()).unwrap();
    let controller = controller(&bridge);
    let none = Options::default();
    for target in ["", "x", "127.0.0.1", "127.0.0.1:", "127.0.0.1:99999", "a b:1", "-1"] {
        assert_eq!(failure(try_server(&controller, target, &none)).status, Status::Invalid, "{target:?}");
        assert_eq!(failure(try_client(&controller, target, "a.i2p", &none)).status, Status::Invalid, "{target:?}");
    }
    for address in ["", "a b", "x", "AAAA"] {
        assert_eq!(failure(try_client(&controller, "0", address, &none)).status, Status::Invalid, "{address:?}");
    }
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let error = failure(try_client(&controller, &port, "a.i2p", &none));
    assert_eq!((error.status, error.os_error), (Status::Io, libc::EADDRINUSE));
    let bad = options(&[("forward", "1")]);
    assert_eq!(failure(try_server(&controller, "1", &bad)).status, Status::Invalid);
    let bound = try_client(&controller, "0", "a.i2p", &options(&[("bind", "127.0.0.2")])).unwrap();
    assert!(TcpStream::connect(("127.0.0.2", bound.port())).is_ok());
}
