//! A session that is dead is lost, even if its control socket is open; one that is alive is not.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{mpsc, Arc, Mutex};
use std::time::Duration;

use super::common::*;
use i2psock::core::destination::{DestHandle, State};
use i2psock::core::drive::{Limit, Pending, Progress, Stage};
use i2psock::core::listener::Listener;
use i2psock::core::settings::Options;
use i2psock::error::{Error, Status};
use i2psock::sys;

const SECOND: Duration = Duration::from_secs(1);

/// A bridge with sessions, which answers everything else as `answer` says: `None` means never.
struct Router {
    script: Script,
    /// The control sockets.
    sessions: mpsc::Receiver<Talk>,
    /// The commands other than SESSION CREATE.
    commands: Arc<Mutex<Vec<String>>>,
}

impl Router {
    fn new(answer: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Self {
        let (sender, sessions) = mpsc::channel();
        let (sender, commands) = (Mutex::new(sender), Arc::new(Mutex::new(Vec::new())));
        let heard = Arc::clone(&commands);
        let script = Script::start(move |_, mut talk| {
            let command = talk.greet();
            if command.starts_with("SESSION CREATE ") {
                talk.session(1);
                sender.lock().unwrap().send(talk).unwrap();
                return;
            }
            // The check of the controller says HELLO only.
            if command.is_empty() {
                return;
            }
            heard.lock().unwrap().push(command.clone());
            if let Some(text) = answer(&command) {
                talk.say(text);
            }
            talk.linger();
        });
        Router { script, sessions, commands }
    }

    fn open(&self, entries: &[(&str, &str)], dest: &[(&str, &str)]) -> (Control, DestHandle, Talk) {
        let controller = try_controller(&self.script.address(), entries).unwrap();
        let dest = controller.open_dest("", 1, &options(dest), LIMIT).unwrap().product().unwrap();
        let session = self.sessions.recv_timeout(LONG).unwrap();
        (controller, dest, session)
    }

    fn count(&self, command: &str) -> usize {
        self.commands.lock().unwrap().iter().filter(|heard| heard.starts_with(command)).count()
    }
}

fn state(dest: &DestHandle) -> (State, String) {
    let (state, _, cause) = dest.destination().state();
    (state, cause.map(|cause| cause.message).unwrap_or_default())
}

fn until_dead(dest: &DestHandle, words: &str) {
    wait_until("it is dead", || {
        dest.destination().service(now());
        dest.destination().state().0 == State::Dead
    });
    let (_, _, cause) = dest.destination().state();
    let cause = cause.unwrap();
    assert!(cause.status == Status::Closed && cause.message.contains(words), "{cause:?}");
}

#[test]
fn a_router_that_does_not_know_the_session_has_lost_it() {
    each_keeper(|keeper| {
        for what in ["connect", "accept", "listener", "forward"] {
            let router = Router::new(|_| Some("STREAM STATUS RESULT=INVALID_ID MESSAGE=\"no such session\"\n".into()));
            let (_controller, dest, _session) = router.open(&[("keeper", keeper)], &[]);
            let told = |error: Error| {
                assert_eq!(error.status, Status::Closed, "{error:?}");
                assert!(error.message.contains("no such session"), "{error:?}");
            };
            let listener = match what {
                "listener" => Some(Listener::open(&dest, 0, &Options::default()).unwrap()),
                "forward" => Some(Listener::open(&dest, 0, &options(&[("stream_forward", "1")])).unwrap()),
                _ => None,
            };
            match what {
                "connect" => told(failure(
                    dest.connect(&destination(2), &Options::default(), LIMIT).and_then(|pending| pending.product()),
                )),
                "accept" => told(failure(dest.accept(LIMIT).and_then(|pending| pending.product()))),
                _ => wait_until("the listener has noticed", || listener.as_ref().unwrap().accept(now()).is_err()),
            }
            until_dead(&dest, "no such session");
        }
    });
}

/// Java I2P says OK to accepts on a session that is dead, and takes it back at once.
#[test]
fn accepts_that_are_refused_over_and_over_mean_that_the_session_is_dead() {
    let refused = "STREAM STATUS RESULT=OK\nSTREAM STATUS RESULT=I2P_ERROR MESSAGE=\"Session was closed\"\n";
    each_keeper(|keeper| {
        // By a listener, which pauses in between.
        let router = Router::new(|_| Some(refused.into()));
        let (_controller, dest, _session) = router.open(&[("keeper", keeper)], &[]);
        let listener = Listener::open(&dest, 0, &Options::default()).unwrap();
        let clock = Clock::default();
        wait_until("the listener has noticed", || {
            clock.pass(Duration::from_millis(5));
            listener.accept(clock.now()).is_err()
        });
        until_dead(&dest, "Session was closed");
        assert_eq!(router.count("STREAM ACCEPT"), 5);
        // By the program's own accepts.
        let router = Router::new(|_| Some(refused.into()));
        let (_controller, dest, _session) = router.open(&[("keeper", keeper)], &[]);
        for number in 0..4 {
            let error = failure(dest.accept(LIMIT).unwrap().product());
            assert_eq!((error.status, error.tag.as_str()), (Status::Network, "I2P_ERROR"), "{number}");
            assert_eq!(state(&dest).0, State::Ready);
        }
        assert_eq!(failure(dest.accept(LIMIT).unwrap().product()).status, Status::Closed);
        until_dead(&dest, "Session was closed");
    });
}

#[test]
fn a_stream_that_comes_shows_that_the_session_is_alive() {
    let number = AtomicUsize::new(0);
    let router = Router::new(move |_| {
        let number = number.fetch_add(1, Ordering::SeqCst);
        Some(match number % 5 {
            4 => format!("STREAM STATUS RESULT=OK\n{}\n", destination(3)),
            _ => "STREAM STATUS RESULT=OK\nSTREAM STATUS RESULT=I2P_ERROR MESSAGE=\"busy\"\n".into(),
        })
    });
    let (_controller, dest, _session) = router.open(&[], &[]);
    for number in 0..20 {
        assert_eq!(dest.accept(LIMIT).unwrap().product().is_ok(), number % 5 == 4);
    }
    assert_eq!(state(&dest).0, State::Ready);
}

/// A router that refuses accepts may still connect.
#[test]
fn a_stream_that_is_made_shows_that_the_session_is_alive() {
    let router = Router::new(|command| {
        Some(match command.starts_with("STREAM CONNECT ") {
            true => "STREAM STATUS RESULT=OK\n".into(),
            false => "STREAM STATUS RESULT=I2P_ERROR MESSAGE=\"busy\"\n".into(),
        })
    });
    let (_controller, dest, _session) = router.open(&[], &[]);
    for number in 0..20 {
        assert_eq!(failure(dest.accept(LIMIT).unwrap().product()).status, Status::Network);
        if number % 4 == 3 {
            dest.connect(&destination(2), &Options::default(), LIMIT).unwrap().product().unwrap();
        }
    }
    assert_eq!(state(&dest).0, State::Ready);
}

/// Many accepts wait at the same time, and the router has a hiccup.
#[test]
fn accepts_that_are_refused_together_are_no_evidence() {
    let (held, number) = (Arc::new(Mutex::new(())), AtomicUsize::new(0));
    let (until, hold) = (Arc::clone(&held), held.lock().unwrap());
    let router = Router::new(move |_| {
        let refused = number.fetch_add(1, Ordering::SeqCst) < 16;
        drop(until.lock().unwrap());
        refused.then(|| "STREAM STATUS RESULT=I2P_ERROR MESSAGE=\"busy\"\n".into())
    });
    let (_controller, dest, _session) = router.open(&[], &[]);
    let mut all: Vec<_> = (0..16).map(|_| dest.accept(LIMIT).unwrap()).collect();
    for accept in &mut all {
        until_stage(accept, Stage::Working);
    }
    wait_until("all are asked", || router.count("STREAM ACCEPT") == 16);
    drop(hold);
    for mut accept in all {
        assert_eq!(failure(accept.complete()).status, Status::Network);
    }
    assert_eq!(state(&dest).0, State::Ready);
}

/// It forwards to a listener: that the program also accepts is a mistake, but the session is fine.
#[test]
fn a_session_that_forwards_is_not_dead() {
    let router = Router::new(|_| Some("STREAM STATUS RESULT=I2P_ERROR MESSAGE=\"Already accepting\"\n".into()));
    let (_controller, dest, _session) = router.open(&[], &[]);
    for _ in 0..20 {
        assert_eq!(failure(dest.accept(LIMIT).unwrap().product()).tag, "ALREADY_ACCEPTING");
    }
    assert_eq!(state(&dest).0, State::Ready);
}

/// Lets time pass on the clock, and serves the destination, until `done`. Returns how much time that was.
fn serve(clock: &Clock, dest: &DestHandle, step: Duration, mut done: impl FnMut() -> bool) -> Duration {
    let (mut passed, end) = (Duration::ZERO, now() + LONG);
    while !done() {
        assert!(now() < end, "never");
        if sys::poll_one(dest.destination().fd(), sys::IN, 2).unwrap() == 0 {
            clock.pass(step);
            passed += step;
        }
        while dest.destination().service(clock.now()).is_some() {}
    }
    passed
}

#[test]
fn an_end_that_is_announced_is_believed_when_nothing_else_comes() {
    let end = "SESSION STATUS RESULT=I2P_ERROR MESSAGE=\"bye\"\n";
    for news in ["", "PING 1\n"] {
        let router = Router::new(|_| None);
        let (_controller, dest, mut session) = router.open(&[("keeper", "0")], &[]);
        let clock = Clock::default();
        while dest.destination().service(clock.now()).is_some() {}
        session.say(format!("{end}{news}"));
        assert_ne!(sys::poll_one(dest.destination().fd(), sys::IN, 30_000).unwrap(), 0);
        while dest.destination().service(clock.now()).is_some() {}
        assert_eq!(state(&dest).0, State::Ready);
        let timeout = dest.destination().timeout_ms(clock.now());
        if news.is_empty() {
            assert!((1900..=2000).contains(&timeout), "{timeout}");
            clock.pass_timeout(timeout);
            dest.destination().service(clock.now());
            until_dead(&dest, "bye");
        } else {
            assert!(timeout > 50_000, "{timeout}");
        }
    }
    // With a keeper: by itself.
    let router = Router::new(|_| None);
    let (_controller, dest, mut session) = router.open(&[], &[]);
    session.say(end);
    until_dead(&dest, "bye");
}

#[test]
fn a_silent_router_is_asked_for_a_sign_of_life() {
    let router = Router::new(|_| None);
    let (_controller, dest, mut session) = router.open(&[("keeper", "0")], &[]);
    let clock = Clock::default();
    while dest.destination().service(clock.now()).is_some() {}
    // It is asked once a minute, and answers.
    for _ in 0..3 {
        let timeout = dest.destination().timeout_ms(clock.now());
        assert!((55_000..=60_000).contains(&timeout), "{timeout}");
        clock.pass_timeout(timeout);
        assert_eq!(dest.destination().service(clock.now()), None);
        assert_eq!(session.line(), "NAMING LOOKUP NAME=ME");
        session.say(format!("NAMING REPLY RESULT=OK NAME=ME VALUE={}\n", destination(1)));
        assert_ne!(sys::poll_one(dest.destination().fd(), sys::IN, 30_000).unwrap(), 0);
        assert_eq!(dest.destination().service(clock.now()), None);
    }
    // It does not answer any more.
    let passed = serve(&clock, &dest, SECOND, || state(&dest).0 == State::Dead);
    assert!(passed >= 89 * SECOND && passed <= 91 * SECOND, "{passed:?}");
    assert!(state(&dest).1.contains("has not answered for 9"), "{}", state(&dest).1);
    assert_eq!(session.line(), "NAMING LOOKUP NAME=ME");
}

#[test]
fn silence_means_nothing_if_nobody_asks() {
    let router = Router::new(|_| None);
    let (_controller, dest, _session) = router.open(&[("keeper", "0"), ("heartbeat", "0")], &[]);
    let clock = Clock::default();
    while dest.destination().service(clock.now()).is_some() {}
    assert_eq!(dest.destination().timeout_ms(clock.now()), -1);
    clock.pass(SECOND * 100_000);
    assert_eq!((dest.destination().service(clock.now()), state(&dest).0), (None, State::Ready));
}

/// A call that blocks serves the session meanwhile.
#[test]
fn a_blocked_accept_without_a_keeper_notices_a_silent_router() {
    let router = Router::new(|_| Some("STREAM STATUS RESULT=OK\n".into()));
    let (_controller, dest, mut session) = router.open(&[("keeper", "0"), ("heartbeat", "50")], &[]);
    let mut accept = listening(&dest);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            assert_eq!(session.line(), "NAMING LOOKUP NAME=ME");
            session.hang_up();
        });
        assert_eq!(failure(accept.complete()).status, Status::Closed);
    });
}

#[test]
fn with_a_keeper_a_silent_router_is_asked_by_itself() {
    let router = Router::new(|_| None);
    let (_controller, _dest, mut session) = router.open(&[("heartbeat", "50")], &[]);
    assert_eq!(session.line(), "NAMING LOOKUP NAME=ME");
}

fn confirmed(clock: &Clock, accept: &mut Pending<i2psock::core::stream::Stream>) {
    let end = now() + LONG;
    while accept.stage() != Stage::Listening {
        assert!(now() < end, "stays at {:?}", accept.stage());
        assert_eq!(accept.step(clock.now()).unwrap(), Progress::Block);
        if sys::poll_one(accept.fd(), accept.events(), 5).unwrap() == 0 && accept.stage() == Stage::Working {
            clock.pass(SECOND);
        }
    }
}

/// One STREAM ACCEPT that is never answered must not make the destination deaf.
#[test]
fn an_accept_that_is_not_confirmed_is_asked_for_again() {
    let router = |unanswered: usize| {
        let number = AtomicUsize::new(0);
        Router::new(move |_| {
            let number = number.fetch_add(1, Ordering::SeqCst);
            (number >= unanswered).then(|| format!("STREAM STATUS RESULT=OK\n{}\n", destination(3)))
        })
    };
    // One that is waited for.
    let two = router(2);
    let (_controller, dest, _session) = two.open(&[], &[]);
    let clock = Clock::default();
    let (mut accept, end) = (dest.accept(LIMIT).unwrap(), now() + LONG);
    let generation = accept.generation();
    while accept.step(clock.now()).unwrap() == Progress::Block {
        assert!(now() < end);
        if sys::poll_one(accept.fd(), accept.events(), 5).unwrap() == 0 && accept.stage() == Stage::Working {
            assert!(accept.timeout_ms(clock.now()) <= 10_000);
            clock.pass_timeout(accept.timeout_ms(clock.now()));
        }
    }
    assert!(accept.take().is_ok() && accept.generation() >= generation + 2);
    assert_eq!(two.count("STREAM ACCEPT"), 3);
    // A listener's.
    let one = router(1);
    let (_controller, dest, _session) = one.open(&[("keeper", "0")], &[]);
    let listener = Listener::open(&dest, 0, &Options::default()).unwrap();
    serve(&clock, &dest, SECOND, || listener.accept(clock.now()).unwrap().is_some());
    // One whose caller has given up is not kept, unless it is young.
    let one = router(1);
    let (_controller, dest, _session) = one.open(&[], &[]);
    let error = failure(dest.accept(Limit::After(Duration::from_millis(1100))).unwrap().product());
    assert_eq!(error.status, Status::Timeout);
    assert!(dest.accept(LIMIT).unwrap().product().is_ok());
}

/// i2pd drops accepts that wait, without a word. That is no failure, and no reason to ask as fast as it goes.
#[test]
fn an_accept_that_the_router_drops_is_asked_for_again() {
    let router = |dropped: usize| {
        let number = Arc::new(AtomicUsize::new(0));
        let script = {
            let number = Arc::clone(&number);
            Script::start(move |_, mut talk| match talk.greet() {
                command if command.starts_with("SESSION CREATE ") => {
                    talk.session(1);
                    talk.linger();
                }
                command if command.starts_with("STREAM ACCEPT ") => {
                    talk.say("STREAM STATUS RESULT=OK\n");
                    if number.fetch_add(1, Ordering::SeqCst) >= dropped {
                        talk.say(format!("{}\n", destination(3)));
                        talk.linger();
                    }
                }
                _ => {}
            })
        };
        (script, number)
    };
    // By the program's own accept: 20, 40 ... 640 ms between them.
    let (script, number) = router(6);
    let controller = try_controller(&script.address(), &[("keeper", "0")]).unwrap();
    let dest = open(&controller);
    let (mut accept, clock) = (dest.accept(LIMIT).unwrap(), Clock::default());
    let (end, mut paused) = (now() + LONG, 0);
    while accept.step(clock.now()).unwrap() == Progress::Block {
        assert!(now() < end, "stays at {:?}", accept.stage());
        if accept.fd() < 0 {
            let pause = accept.timeout_ms(clock.now());
            clock.pass_timeout(pause);
            paused += pause;
        } else {
            sys::poll_one(accept.fd(), accept.events(), 5).unwrap();
        }
    }
    accept.take().unwrap();
    assert_eq!(number.load(Ordering::SeqCst), 7);
    // Besides the pauses, each end is looked at for a moment: it may be that of the session.
    assert!((1260..=1260 + 6 * 110).contains(&paused), "{paused} ms");
    // By a listener.
    let (script, number) = router(6);
    let controller = try_controller(&script.address(), &[("keeper", "0")]).unwrap();
    let dest = open(&controller);
    let listener = Listener::open(&dest, 0, &Options::default()).unwrap();
    let mut time = now();
    let end = now() + LONG;
    while listener.accept(time).unwrap().is_none() {
        assert!(now() < end);
        assert_eq!(listener.failures().0, 0);
        match listener.timeout_ms(time) {
            0..=5000 if sys::poll_one(listener.fd(), sys::IN, 5).unwrap() == 0 => {
                time += Duration::from_millis(listener.timeout_ms(time).try_into().unwrap());
            }
            _ => drop(sys::poll_one(listener.fd(), sys::IN, 5).unwrap()),
        }
    }
    assert_eq!(number.load(Ordering::SeqCst), 7);
    // One that gives up in between gets the reason.
    let (script, _) = router(usize::MAX);
    let controller = try_controller(&script.address(), &[]).unwrap();
    let error = failure(open(&controller).accept(Limit::After(Duration::from_millis(300))).unwrap().product());
    assert_eq!(error.status, Status::Timeout);
}

/// Only one that was confirmed may get the next stream.
#[test]
fn an_accept_that_is_confirmed_is_kept() {
    let router = Router::new(|_| Some("STREAM STATUS RESULT=OK\n".into()));
    let (_controller, dest, _session) = router.open(&[], &[]);
    let clock = Clock::default();
    for _ in 0..5 {
        confirmed(&clock, &mut dest.accept(LIMIT).unwrap());
        clock.pass(SECOND * 100);
    }
    assert_eq!(router.count("STREAM ACCEPT"), 1);
}

/// What a router says about something else is neither the answer to a lookup nor the reason of a loss.
#[test]
fn lines_about_streams_mean_nothing_on_a_control_socket() {
    let router = Router::new(|_| None);
    let (_controller, dest, mut session) = router.open(&[], &[]);
    let lookup = dest.lookup("a.i2p", LIMIT).unwrap();
    assert_eq!(session.line(), "NAMING LOOKUP NAME=a.i2p");
    session.say("STREAM STATUS RESULT=CANT_REACH_PEER MESSAGE=\"late\"\n");
    session.say(format!("NAMING REPLY RESULT=OK NAME=a.i2p VALUE={}\n", destination(7)));
    assert_eq!(address_of(lookup).unwrap(), destination(7));
    session.say("STREAM STATUS RESULT=CANT_REACH_PEER MESSAGE=\"late\"\n");
    session.hang_up();
    until_dead(&dest, "its connection to the router ended");
    assert!(!state(&dest).1.contains("late"));
}
