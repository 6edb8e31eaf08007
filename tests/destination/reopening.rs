//! The router is left alone between two sessions of the same keys, unless it is known to let go of the first one at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{mpsc, Arc, Mutex};
use std::time::Duration;

use super::common::*;
use i2psock::core::destination::{DestHandle, State};
use i2psock::core::drive::{Limit, Pending, Progress, Stage};
use i2psock::core::settings::Options;
use i2psock::error::{Error, Status};
use i2psock::identity::Keys;
use i2psock::sys;

/// What a router says about a name that cannot exist.
#[derive(Clone, Copy, PartialEq)]
enum Says {
    KeyNotFound,
    InvalidKey,
    Nothing,
}

/// A router that keeps the control connections, and counts the sessions it was asked for.
struct Router {
    script: Script,
    created: mpsc::Receiver<Talk>,
}

impl Router {
    fn new(says: Says) -> Self {
        let (sender, created) = mpsc::channel();
        let sender = Mutex::new(sender);
        let script = Script::start(move |_, mut talk| {
            let command = talk.greet();
            if command.starts_with("SESSION CREATE ") {
                let words = command.split(' ').find_map(|word| word.strip_prefix("DESTINATION=")).unwrap().to_owned();
                talk.say(format!("SESSION STATUS RESULT=OK DESTINATION={words}\n"));
                sender.lock().unwrap().send(talk).unwrap();
            } else if command.starts_with("NAMING LOOKUP ") {
                match says {
                    Says::KeyNotFound => talk.say("NAMING REPLY RESULT=KEY_NOT_FOUND NAME=i2psock.invalid.i2p\n"),
                    Says::InvalidKey => talk.say("NAMING REPLY RESULT=INVALID_KEY NAME=i2psock.invalid.i2p\n"),
                    Says::Nothing => false,
                };
                talk.linger();
            } else if command.starts_with("STREAM CONNECT ") {
                talk.say("STREAM STATUS RESULT=OK\n");
                talk.linger();
            }
        });
        Router { script, created }
    }

    fn controller(&self, entries: &[(&str, &str)]) -> Control {
        try_controller(&self.script.address(), entries).unwrap()
    }

    /// The sessions made since the last call.
    fn sessions(&self) -> Vec<Talk> {
        self.created.try_iter().collect()
    }

    /// The session that was just made.
    fn session(&self) -> Talk {
        self.created.recv_timeout(LONG).unwrap()
    }
}

/// Keys that no other test of this program has.
fn keys(fill: u8) -> Options {
    let mut options = Options::default();
    options.set_keys(Some(&Keys::from_text(&private_keys(fill + 150, 1)).unwrap()));
    options
}

fn open_with(controller: &Control, options: &Options) -> Pending<DestHandle> {
    controller.open_dest("", 1, options, LIMIT).unwrap()
}

/// Opens it without waiting for pauses. Returns the time that they took.
fn pauses_of(pending: &mut Pending<DestHandle>) -> (Duration, Result<(), Error>) {
    let (start, clock) = (now(), Clock::default());
    let mut paused = Duration::ZERO;
    let end = start + LONG;
    loop {
        match pending.step(clock.now()) {
            Ok(Progress::Done) => return (paused, Ok(())),
            Err(error) => return (paused, Err(error)),
            Ok(Progress::Block) => assert!(now() < end, "stays at {:?}", pending.stage()),
        }
        if pending.stage() == Stage::LettingGo && pending.fd() < 0 {
            let timeout = pending.timeout_ms(clock.now());
            clock.pass_timeout(timeout);
            paused += Duration::from_millis(timeout.try_into().unwrap());
        } else {
            sys::poll_one(pending.fd(), pending.events(), 1).unwrap();
        }
    }
}

fn milliseconds(number: u64) -> Duration {
    Duration::from_millis(number)
}

#[test]
fn the_same_keys_wait_for_a_router_that_does_not_let_go() {
    for (fill, says, delay, least) in [
        (1, Says::InvalidKey, "6500", 6000),
        (2, Says::KeyNotFound, "6500", 0),
        (3, Says::InvalidKey, "0", 0),
        (4, Says::InvalidKey, "60000", 59_000),
    ] {
        let router = Router::new(says);
        let controller = router.controller(&[("reopen_delay", delay)]);
        let mut first = open_with(&controller, &keys(fill));
        assert_eq!(pauses_of(&mut first), (Duration::ZERO, Ok(())), "nobody had them before");
        drop(first.take().unwrap());
        router.session();
        // Other keys do not wait, but another controller does.
        assert_eq!(pauses_of(&mut open_with(&controller, &keys(fill + 50))), (Duration::ZERO, Ok(())));
        router.session();
        let other = router.controller(&[("reopen_delay", delay)]);
        let mut second = other.open_dest("", 1, &keys(fill), Limit::After(LONG * 3)).unwrap();
        let (paused, result) = pauses_of(&mut second);
        assert_eq!(result, Ok(()));
        assert!(paused >= milliseconds(least) && paused <= milliseconds(least + 1100), "{paused:?}");
        router.session();
        assert_eq!(router.sessions().len(), 0);
    }
}

#[test]
fn the_wait_can_be_cut_short() {
    let router = Router::new(Says::InvalidKey);
    let controller = router.controller(&[]);
    drop(open_with(&controller, &keys(5)).product().unwrap());
    // By the limit of the caller, which says what was waited for.
    let mut short = controller.open_dest("", 1, &keys(5), Limit::After(milliseconds(300))).unwrap();
    let error = failure(short.complete());
    assert_eq!(error.status, Status::Timeout);
    assert!(error.message.contains("let go of the last session"), "{}", error.message);
    // By cancelling it, and by closing the controller.
    let mut pending = open_with(&controller, &keys(5));
    until_stage(&mut pending, Stage::LettingGo);
    drop(pending);
    let mut pending = open_with(&controller, &keys(5));
    until_stage(&mut pending, Stage::LettingGo);
    controller.close();
    assert_eq!(failure(pending.step(now() + LONG)).status, Status::Closed);
    router.session();
    assert_eq!(router.sessions().len(), 0);
}

/// It may be a router of the kind that answers INVALID_KEY.
#[test]
fn a_router_that_does_not_say_how_it_does_it_is_left_alone() {
    let router = Router::new(Says::Nothing);
    let controller = router.controller(&[]);
    drop(open_with(&controller, &keys(6)).product().unwrap());
    let mut pending = open_with(&controller, &keys(6));
    let clock = Clock::default();
    let end = now() + LONG;
    while pending.step(clock.now()).unwrap() == Progress::Block {
        assert!(now() < end && (router.sessions().len() <= 1));
        assert!(pending.stage() == Stage::LettingGo || clock.now() >= now() + milliseconds(6000));
        wait_but_not_for_pauses(&pending, &clock);
        if pending.stage() == Stage::LettingGo && pending.fd() >= 0 {
            clock.pass(milliseconds(100));
        }
    }
    assert!(clock.now() >= now() + milliseconds(6000));
}

/// It was asked for a session and did not say that there is none.
#[test]
fn a_session_that_may_have_been_made_counts() {
    let asked = Arc::new(AtomicBool::new(false));
    let is_asked = Arc::clone(&asked);
    let script = Script::start(move |_, mut talk| {
        if talk.greet().starts_with("NAMING LOOKUP ") {
            talk.say("NAMING REPLY RESULT=INVALID_KEY NAME=i2psock.invalid.i2p\n");
        } else {
            is_asked.store(true, Ordering::SeqCst);
        }
        talk.linger();
    });
    let controller = try_controller(&script.address(), &[]).unwrap();
    let first = open_with(&controller, &keys(7));
    drop(first);
    let mut first = open_with(&controller, &keys(7));
    until_stage(&mut first, Stage::Working);
    wait_until("it is asked", || asked.load(Ordering::SeqCst));
    drop(first);
    let mut second = open_with(&controller, &keys(7));
    until_stage(&mut second, Stage::LettingGo);
}

/// The router has made it, and the keys cannot be stored.
#[test]
fn a_session_that_could_not_be_kept_counts() {
    let folder = std::env::temp_dir().join(format!("i2psock-kept-{}", std::process::id()));
    let in_the_way = folder.join("name.dat");
    let make = in_the_way.clone();
    let script = Script::start(move |_, mut talk| {
        let command = talk.greet();
        if command.starts_with("NAMING LOOKUP ") {
            talk.say("NAMING REPLY RESULT=INVALID_KEY NAME=i2psock.invalid.i2p\n");
        } else if let Some(keys) = command.split(' ').find_map(|word| word.strip_prefix("DESTINATION=")) {
            std::fs::create_dir(&make).unwrap();
            talk.say(format!("SESSION STATUS RESULT=OK DESTINATION={keys}\n"));
        }
        talk.linger();
    });
    let controller = try_controller(&script.address(), &[("key_store", folder.to_str().unwrap())]).unwrap();
    let error = failure(controller.open_dest("name", 1, &keys(11), LIMIT).unwrap().product());
    assert_eq!(error.status, Status::Io, "{error:?}");
    let mut second = open_with(&controller, &keys(11));
    until_stage(&mut second, Stage::LettingGo);
    std::fs::remove_dir_all(folder).unwrap();
}

/// Some routers would take the same keys twice, and then neither session works.
#[test]
fn the_same_keys_are_not_asked_for_twice_at_once() {
    let router = Router::new(Says::Nothing);
    let controller = router.controller(&[]);
    drop(open_with(&controller, &keys(12)).product().unwrap());
    router.session();
    let mut first = open_with(&controller, &keys(12));
    until_stage(&mut first, Stage::LettingGo);
    let second = controller.open_dest("", 1, &keys(12), Limit::After(milliseconds(300))).unwrap();
    let error = failure(second.product());
    assert_eq!((error.status, error.tag.as_str()), (Status::Network, "DUPLICATED_DEST"));
    // It is free when the first one is given up.
    drop(first);
    let mut third = open_with(&controller, &keys(12));
    until_stage(&mut third, Stage::LettingGo);
    assert!(third.fd() >= 0, "it is asking the router");
}

fn state_of(dest: &DestHandle) -> State {
    dest.destination().state().0
}

#[test]
fn a_lost_session_is_not_made_again_too_soon() {
    for (fill, says, least, most) in [(8, Says::InvalidKey, 6000, 7200), (9, Says::KeyNotFound, 900, 1100)] {
        let router = Router::new(says);
        let controller = router.controller(&[("keeper", "0")]);
        let mut options = keys(fill);
        options.set("recover", "1").unwrap();
        let dest = open_with(&controller, &options).product().unwrap();
        router.session().hang_up();
        let (clock, mut passed) = (Clock::default(), 0);
        wait_until("the loss is noticed", || {
            dest.destination().service(clock.now());
            state_of(&dest) != State::Ready
        });
        while state_of(&dest) != State::Ready {
            let timeout = dest.destination().timeout_ms(clock.now());
            let is_quiet = sys::poll_one(dest.destination().fd(), sys::IN, 5).unwrap() == 0;
            if is_quiet && state_of(&dest) == State::Recovering && timeout < 4000 {
                clock.pass_timeout(timeout);
                passed += timeout;
            } else if is_quiet && state_of(&dest) == State::Recovering {
                clock.pass(milliseconds(500));
                passed += 500;
            }
            dest.destination().service(clock.now());
        }
        assert!((least..most).contains(&passed), "{passed} ms");
        router.session();
    }
}

/// i2pd keeps the destination until its last stream has ended.
#[test]
fn streams_that_are_still_open_prolong_the_wait() {
    let router = Router::new(Says::InvalidKey);
    let controller = router.controller(&[("keeper", "0")]);
    let mut options = keys(10);
    options.set("recover", "1").unwrap();
    let dest = open_with(&controller, &options).product().unwrap();
    let stream = dest.connect(&destination(1), &Options::default(), LIMIT).unwrap().product().unwrap();
    router.session().hang_up();
    let clock = Clock::default();
    wait_until("the loss is noticed", || {
        dest.destination().service(clock.now());
        state_of(&dest) == State::Recovering
    });
    let step = |time: u64| {
        for _ in 0..time / 500 {
            clock.pass(milliseconds(500));
            for _ in 0..3 {
                sys::poll_one(dest.destination().fd(), sys::IN, 5).unwrap();
                dest.destination().service(clock.now());
            }
        }
    };
    step(15_000);
    assert_eq!((state_of(&dest), router.sessions().len()), (State::Recovering, 0));
    drop(stream);
    step(6_000);
    assert_eq!((state_of(&dest), router.sessions().len()), (State::Recovering, 0));
    step(1_500);
    wait_until("it is opened again", || {
        dest.destination().service(clock.now());
        state_of(&dest) == State::Ready
    });
}
