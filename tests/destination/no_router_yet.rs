//! A program that is there before the router: with bridge_timeout, opening waits for it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::Duration;

use super::common::*;
use i2psock::core::drive::{Limit, Progress, Stage};
use i2psock::core::settings::Options;
use i2psock::error::Status;
use i2psock_bridge::{Action, Bridge, Config, Reply, Which};

/// A port on which nothing listens, and on which nothing else will.
fn free_port() -> u16 {
    let bridge = Bridge::start_to_stay(Config::default()).unwrap();
    bridge.port()
}

#[test]
fn a_controller_waits_for_the_router() {
    let port = free_port();
    let address = format!("127.0.0.1:{port}");
    let late = std::thread::spawn(move || {
        // Not before it was refused at least once, which nobody can see from here.
        std::thread::sleep(Duration::from_millis(300));
        Bridge::start(Config { port, ..Config::default() }).unwrap()
    });
    let controller = try_controller(&address, &[("bridge_timeout", "30000")]).unwrap();
    let bridge = late.join().unwrap();
    drop(open(&controller));
    assert!(bridge.texts().iter().any(|line| line.starts_with("SESSION CREATE")));
}

#[test]
fn without_a_router_the_wait_has_an_end() {
    let address = format!("127.0.0.1:{}", free_port());
    for (entries, least) in [(&[][..], 0), (&[("bridge_timeout", "700")], 700)] {
        let start = now();
        let error = failure(try_controller(&address, entries));
        assert_eq!((error.status, error.os_error), (Status::Io, libc::ECONNREFUSED));
        assert!(error.message.contains("is the router running"), "{error:?}");
        assert!(start.elapsed() >= Duration::from_millis(least));
    }
}

/// As Docker does for a container that has not come so far.
#[test]
fn a_port_that_is_there_before_the_router() {
    let times = Arc::new(AtomicUsize::new(0));
    let number = Arc::clone(&times);
    let script = Script::start(move |_, mut talk| {
        if number.fetch_add(1, Ordering::SeqCst) < 2 {
            talk.hang_up();
        } else {
            talk.greet();
        }
    });
    assert_eq!(failure(try_controller(&script.address(), &[])).status, Status::Protocol);
    assert!(try_controller(&script.address(), &[("bridge_timeout", "30000")]).is_ok());
    assert_eq!(times.load(Ordering::SeqCst), 3);
}

/// A program that has its controller, and opens a destination while the router is away or starting.
#[test]
fn a_destination_waits_for_the_router() {
    let no_manager = "SESSION STATUS RESULT=I2P_ERROR MESSAGE=\"error connecting to router: No manager yet\"\n";
    for away in [true, false] {
        let bridge = Bridge::start_to_stay(Config::default()).unwrap();
        let (address, port) = (bridge.addr().to_string(), bridge.port());
        let hasty = try_controller(&address, &[]).unwrap();
        let patient = try_controller(&address, &[("bridge_timeout", "60000")]).unwrap();
        let mut running = Some(bridge);
        if away {
            running.take().unwrap().stop();
        } else {
            let refuse = Action::replace_and_close(no_manager);
            running.as_ref().unwrap().faults().rule(Reply::SessionCreate, Which::First(4), refuse);
        }
        let error = failure(try_open(&hasty, LIMIT));
        assert_eq!(error.status, if away { Status::Io } else { Status::Network }, "{error:?}");
        let mut pending = patient.open_dest("", 1, &Options::default(), LIMIT).unwrap();
        until_stage(&mut pending, Stage::Away);
        assert_eq!(pending.fd(), -1);
        // It is tried again with pauses that grow, and a limit of the caller ends it as anything else.
        let short = Limit::After(Duration::from_millis(50));
        let error = failure(patient.open_dest("", 1, &Options::default(), short).unwrap().product());
        assert_eq!(error.status, Status::Timeout);
        assert!(error.message.contains("waiting for a router"), "{}", error.message);
        if away {
            running = Some(Bridge::start(Config { port, ..Config::default() }).unwrap());
        }
        complete_without_pauses(&mut pending).unwrap();
        drop(pending.take().unwrap());
        drop(running);
    }
}

#[test]
fn a_router_that_stays_away_is_reported_as_it_was() {
    let bridge = Bridge::start_to_stay(Config::default()).unwrap();
    let patient = try_controller(&bridge.addr().to_string(), &[("bridge_timeout", "20000")]).unwrap();
    bridge.stop();
    let (clock, start) = (Clock::default(), now());
    let mut pending = patient.open_dest("", 1, &Options::default(), Limit::Never).unwrap();
    let error = loop {
        match pending.step(clock.now()) {
            Ok(Progress::Block) => clock.pass_timeout(pending.timeout_ms(clock.now()).max(0)),
            Ok(Progress::Done) => panic!("there is no router"),
            Err(error) => break error,
        }
        assert!(start.elapsed() < LONG);
    };
    assert_eq!((error.status, error.os_error), (Status::Io, libc::ECONNREFUSED));
    assert!(clock.now() >= start + Duration::from_secs(20));
}
