//! The habits in which real routers lose sessions, over the loopback bridge: whatever it was, streams get through again.
//!
//! The bridge has no virtual time, so its times are short here, and those of the library a little longer.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::Duration;

use super::common::*;
use i2psock::core::destination::{DestHandle, State};
use i2psock::core::listener::Listener;
use i2psock::core::settings::Options;
use i2psock::core::stream::Stream;
use i2psock::sys;
use i2psock_bridge::{Action, Bridge, Config, Personality, Reply};

const KEPT: Duration = Duration::from_millis(300);
/// Longer than that, as the library's own time is longer than that of i2pd.
const DELAY: &str = "500";

fn bridge(personality: Personality) -> Bridge {
    Bridge::start(Config { personality, keep_closed: Some(KEPT), ..patient() }).unwrap()
}

fn recovering(controller: &Control) -> DestHandle {
    dest_of(controller.open_dest("", 1, &options(&[("recover", "1")]), LIMIT).unwrap()).unwrap()
}

/// A server and a client on one bridge.
struct Pair {
    listener: Listener,
    server: DestHandle,
    client: DestHandle,
    _controller: Control,
}

impl Pair {
    fn new(bridge: &Bridge, keeper: &str, entries: &[(&str, &str)]) -> Self {
        let entries = [&[("keeper", keeper), ("reopen_delay", DELAY)], entries].concat();
        let controller = controller_with(bridge, &entries);
        let (server, client) = (recovering(&controller), recovering(&controller));
        let listener = Listener::open(&server, 0, &Options::default()).unwrap();
        Pair { listener, server, client, _controller: controller }
    }

    fn id(&self) -> String {
        self.server.destination().session().id().to_owned()
    }

    /// Serves both as a program's loop does, until `done`.
    fn serve(&self, what: &str, done: impl FnMut(&Self) -> bool) {
        self.serve_at(&Clock::default(), what, done);
    }

    fn serve_at(&self, clock: &Clock, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let end = now() + LONG;
        while !done(self) {
            assert!(now() < end, "never: {what}; {:?}", self.server.destination().state());
            let dests = [&self.server, &self.client].map(|dest| dest.destination());
            let mut fds = dests.map(|dest| sys::PollFd { fd: dest.fd(), events: sys::IN, revents: 0 });
            sys::poll(&mut fds, 5).unwrap();
            for dest in dests {
                while dest.service(clock.now()).is_some() {}
            }
        }
    }

    /// Waits for another session than the one with this id.
    fn until_reopened(&self, id: &str) {
        self.serve("it is opened again", |pair| pair.id() != id && is_ready(&pair.server) && is_ready(&pair.client));
    }

    fn accept(&self) -> Option<Stream> {
        self.listener.accept(now()).unwrap()
    }

    /// The client connects, and the server gets it.
    fn stream(&self) -> (Stream, Stream) {
        let mut connecting = connect(&self.client, &self.server);
        let (mut accepted, mut connected) = (None, false);
        self.serve("a stream", |pair| {
            connected = connected || connecting.step(now()).unwrap() == i2psock::core::drive::Progress::Done;
            accepted = accepted.take().or_else(|| pair.accept());
            accepted.is_some() && connected
        });
        (connecting.take().unwrap(), accepted.unwrap())
    }

    fn stream_gets_through(&self) {
        let (a, b) = self.stream();
        echo(&a, &b, 1, 1000);
    }
}

/// Makes the router forget the session with this id.
type Forget = dyn Fn(&Bridge, &str) + Sync;

fn is_ready(dest: &DestHandle) -> bool {
    dest.destination().state().0 == State::Ready
}

fn is_alive(bridge: &Bridge, id: &str) -> bool {
    bridge.session(id).is_some_and(|session| session.alive)
}

/// A folder for keys, removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        use std::os::unix::fs::DirBuilderExt;
        let path = std::env::temp_dir().join(format!("i2psock-habits-{}-{name}", std::process::id()));
        std::fs::DirBuilder::new().mode(0o700).create(&path).unwrap();
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// i2pd hands a closed destination to the next session, and deletes it all the same.
#[test]
fn a_name_that_is_opened_again_at_once_is_alive() {
    let cases = [Personality::I2pd245, Personality::I2pd258].map(|router| ["1", "0"].map(|keeper| (router, keeper)));
    at_once(cases.into_iter().flatten(), |(router, keeper)| {
        for delay in [DELAY, "0"] {
            let (bridge, folder) = (bridge(router), Folder::new(&format!("{router}-{keeper}-{delay}")));
            let store = folder.0.to_str().unwrap();
            let entries = [("keeper", keeper), ("reopen_delay", delay), ("key_store", store)];
            let controller = controller_with(&bridge, &entries);
            let named = || dest_of(controller.open_dest("alice", 1, &Options::default(), LIMIT).unwrap()).unwrap();
            drop(named());
            let closed = now();
            let server = named();
            let waited = closed.elapsed();
            let id = server.destination().session().id().to_owned();
            let client = recovering(&controller);
            if delay == "0" {
                // It looks alive at first, so that the wait above is not for nothing.
                wait_until("it is dead", || !is_alive(&bridge, &id));
                assert!(is_ready(&server));
            }
            let listener = Listener::open(&server, 0, &Options::default()).unwrap();
            let pair = Pair { listener, server, client, _controller: controller };
            match (delay, router) {
                // This one never says so.
                ("0", Personality::I2pd258) => continue,
                ("0", _) => pair.until_reopened(&id),
                // Nothing will happen to it any more.
                _ => assert!(waited > KEPT && is_alive(&bridge, &id), "{waited:?}"),
            }
            pair.stream_gets_through();
            assert!(is_alive(&bridge, &pair.id()));
        }
    });
}

#[test]
fn a_loss_is_recovered_from_on_every_router() {
    let cases = Personality::ALL.map(|router| ["1", "0"].map(|keeper| (router, keeper)));
    at_once(cases.into_iter().flatten(), |(router, keeper)| {
        for announced in [false, true] {
            let bridge = bridge(router);
            let pair = Pair::new(&bridge, keeper, &[]);
            pair.stream_gets_through();
            let id = pair.id();
            assert_eq!(bridge.faults().kill_all_sessions(announced), 2, "{router}");
            pair.until_reopened(&id);
            pair.stream_gets_through();
            assert!(is_alive(&bridge, &pair.id()), "{router}");
        }
    });
}

/// The accepts of the dead session are confirmed and refused, and so show it.
#[test]
fn a_session_that_dies_on_java_is_replaced() {
    each_keeper(|keeper| {
        let bridge = bridge(Personality::Java);
        let pair = Pair::new(&bridge, keeper, &[]);
        pair.stream_gets_through();
        let id = pair.id();
        assert!(bridge.faults().die_session(&id));
        pair.until_reopened(&id);
        pair.stream_gets_through();
    });
}

/// A client still comes on the accept that waits, and the next accept is one for a session that nobody knows.
#[test]
fn a_session_that_is_forgotten_is_replaced() {
    let forgotten = |bridge: &Bridge, id: &str| assert!(bridge.faults().forget_session(id));
    // Java forgets a session when another program asks for one with its id.
    let taken = |bridge: &Bridge, id: &str| {
        let mut stranger = TcpStream::connect(bridge.addr()).unwrap();
        stranger.set_read_timeout(Some(LONG)).unwrap();
        let mut lines = BufReader::new(stranger.try_clone().unwrap()).lines();
        stranger.write_all(b"HELLO VERSION MIN=3.1 MAX=3.3\n").unwrap();
        lines.next().unwrap().unwrap();
        let create = format!("SESSION CREATE STYLE=STREAM ID={id} DESTINATION=TRANSIENT SIGNATURE_TYPE=7\n");
        stranger.write_all(create.as_bytes()).unwrap();
        let answer = lines.next().unwrap().unwrap();
        assert!(answer.contains("RESULT=DUPLICATED_ID"), "{answer}");
    };
    let cases: [(Personality, &Forget); 3] =
        [(Personality::Java, &forgotten), (Personality::I2pd245, &forgotten), (Personality::Java, &taken)];
    each_keeper(|keeper| {
        at_once(cases, |(router, forget)| {
            let bridge = bridge(router);
            let pair = Pair::new(&bridge, keeper, &[]);
            pair.serve("an accept waits", |pair| bridge.session(&pair.id()).is_some_and(|one| one.accepts == 1));
            let id = pair.id();
            forget(&bridge, &id);
            bridge.clear_lines();
            drop(pair.stream());
            pair.until_reopened(&id);
            let accept = format!("STREAM ACCEPT ID={id}");
            let asked = bridge.texts().iter().filter(|line| line.starts_with(&accept)).count();
            assert_eq!(asked, 1, "once is enough");
            pair.stream_gets_through();
        });
    });
}

/// The router stands still, and notices the end of the session only when it goes on: i2pd keeps the destination from then.
#[test]
fn a_router_that_stood_still_is_given_its_time() {
    at_once(Personality::ALL, |router| {
        let bridge = bridge(router);
        let pair = Pair::new(&bridge, "0", &[("heartbeat", "200")]);
        pair.stream_gets_through();
        let (id, clock) = (pair.id(), Clock::default());
        bridge.faults().freeze();
        pair.serve_at(&clock, "it is lost", |pair| {
            clock.pass(Duration::from_millis(100));
            !is_ready(&pair.server) && !is_ready(&pair.client)
        });
        // The next attempt waits for the answer to its HELLO.
        pair.serve_at(&clock, "it is asked", |pair| {
            let timeout = pair.server.destination().timeout_ms(clock.now());
            if timeout < 2000 {
                clock.pass_timeout(timeout);
            }
            timeout > 2000
        });
        let thawed = now();
        bridge.faults().thaw();
        pair.serve_at(&clock, "it is opened again", |pair| pair.id() != id && is_ready(&pair.server));
        if matches!(router, Personality::I2pd245 | Personality::I2pd258) {
            assert!(thawed.elapsed() > KEPT, "{router}: {:?}", thawed.elapsed());
        }
        pair.serve_at(&clock, "both are", |pair| is_ready(&pair.client));
        let (mut connecting, mut accepted) = (connect(&pair.client, &pair.server), None);
        pair.serve_at(&clock, "a stream", |pair| {
            // It was started by the real clock.
            let _ = connecting.step(now()).unwrap();
            accepted = accepted.take().or_else(|| pair.listener.accept(clock.now()).unwrap());
            accepted.is_some()
        });
        assert!(is_alive(&bridge, &pair.id()), "{router}");
    });
}

#[test]
fn a_java_router_without_a_manager_is_waited_for() {
    each_keeper(|keeper| {
        let bridge = bridge(Personality::Java);
        bridge.faults().no_manager(Duration::from_millis(400));
        let pair = Pair::new(&bridge, keeper, &[("bridge_timeout", "20000")]);
        pair.stream_gets_through();
        assert!(bridge.texts().iter().filter(|line| line.contains("SESSION CREATE")).count() > 2);
        // A session that is reopened waits without that too.
        let id = pair.id();
        bridge.faults().no_manager(Duration::from_millis(1500));
        bridge.faults().kill_all_sessions(false);
        pair.until_reopened(&id);
        pair.stream_gets_through();
    });
}

/// Java says so for a second or so after the end of a session.
#[test]
fn keys_that_are_still_in_use_are_waited_for() {
    each_keeper(|keeper| {
        let (bridge, folder) = (bridge(Personality::Java), Folder::new(&format!("in-use-{keeper}")));
        bridge.faults().duplicated_after(Duration::from_millis(1200));
        let pair = Pair::new(&bridge, keeper, &[]);
        let id = pair.id();
        bridge.faults().kill_all_sessions(false);
        pair.until_reopened(&id);
        pair.stream_gets_through();
        let controller = controller_with(&bridge, &[("keeper", keeper), ("key_store", folder.0.to_str().unwrap())]);
        let named = || dest_of(controller.open_dest("alice", 1, &Options::default(), LIMIT).unwrap());
        drop(named().unwrap());
        bridge.clear_lines();
        assert!(is_ready(&named().unwrap()));
        assert!(bridge.texts().iter().filter(|line| line.contains("SESSION CREATE")).count() > 1);
    });
}

#[test]
fn an_accept_that_is_never_answered_is_asked_for_again() {
    each_keeper(|keeper| {
        let bridge = bridge(Personality::Java);
        bridge.faults().once(Reply::StreamAccept, Action::Stall);
        let pair = Pair::new(&bridge, keeper, &[("hello_timeout", "400")]);
        pair.stream_gets_through();
        assert!(bridge.texts().iter().filter(|line| line.contains("STREAM ACCEPT")).count() > 1);
        assert_eq!(bridge.sessions().len(), 2);
    });
}
