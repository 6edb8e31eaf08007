//! Bridges that are none, that say nothing, too much, or the wrong thing at the wrong time; and what must not be seen.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::*;
use i2psock::core::drive::Limit;
use i2psock::core::settings::Options;
use i2psock::error::{Operation, Status};
use i2psock::identity::Keys;
use i2psock_bridge::{Action, Bridge, Config, Personality, Reply};

/// For what never comes, and for what must come.
const SHORT: &str = "300";
const PATIENT: &str = "30000";

/// What `Controller::open` says to a server that does this.
fn greeting(timeout: &str, says: impl Fn(&mut Talk) + Send + Sync + 'static) -> (i2psock::error::Error, Duration) {
    let script = Script::start(move |_, mut talk| says(&mut talk));
    let start = Instant::now();
    let error = failure(try_controller(&script.address(), &[("sam_timeout", timeout)]));
    (error, start.elapsed())
}

#[test]
fn other_servers_are_recognised() {
    for (bytes, told) in [
        (&b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"[..], "HTTP/1.1 400"),
        (b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n", "SSH-2.0-OpenSSH"),
        (b"220 mail.example.org ESMTP\r\n", "no SAM bridge"),
        (b"\x15\x03\x01\x00\x02\x02\x46", "TLS"),
        (b"", "TLS"),
        (b"\0", "no SAM bridge"),
    ] {
        for close in [true, false] {
            if bytes.is_empty() && !close {
                continue;
            }
            let (error, _) = greeting(PATIENT, move |talk| {
                talk.line();
                talk.say(bytes);
                if !close {
                    talk.linger();
                }
            });
            assert_eq!((error.status, error.operation), (Status::Protocol, Operation::Handshake), "{error:?}");
            assert!(error.message.contains(told), "{}", error.message);
        }
        // Before we have said anything, with a reset at the end.
        let (error, _) = greeting(PATIENT, move |talk| {
            talk.say(bytes);
        });
        assert_eq!((error.status, error.operation), (Status::Protocol, Operation::Handshake), "{error:?}");
    }
}

#[test]
fn every_way_to_say_nothing_ends_at_the_deadline() {
    type Way = fn(&mut Talk);
    let ways: [(&str, Way); 6] = [
        ("silence", |talk| talk.linger()),
        ("drip", |talk| {
            for byte in b"HELLO REPLY RESULT=OK VERSION=3.3".iter().cycle() {
                std::thread::sleep(Duration::from_millis(20));
                if !talk.say([*byte]) {
                    break;
                }
            }
        }),
        ("empty lines", |talk| while talk.say("\n".repeat(10_000)) {}),
        ("PONGs", |talk| while talk.say("PONG x\n".repeat(1000)) {}),
        ("PINGs", |talk| {
            let mut reader = Talk(talk.0.try_clone().unwrap());
            let thread = std::thread::spawn(move || reader.linger());
            while talk.say("PING x\n") {
                std::thread::sleep(Duration::from_micros(200));
            }
            drop(thread.join());
        }),
        ("PINGs without end", |talk| while talk.say("PING x\n".repeat(1000)) {}),
    ];
    std::thread::scope(|scope| {
        for (name, way) in ways {
            scope.spawn(move || {
                let (error, time) = greeting(SHORT, way);
                assert!(time < LONG, "{name}: {time:?}");
                let flood = name == "PINGs without end" && error.status == Status::Protocol;
                assert!(error.status == Status::Timeout || flood, "{name}: {error:?}");
                assert_eq!(error.operation, Operation::Handshake, "{name}");
                assert!(flood || error.message.contains("TLS or a user and password"), "{name}: {}", error.message);
            });
        }
    });
}

/// The same after the greeting: the operation's own deadline holds, whatever the bridge does meanwhile.
#[test]
fn floods_do_not_outlast_a_deadline() {
    at_once(["", "\n\n\n\n", "PONG x\n", "PING x\n"], |flood| {
        let script = Script::start(move |_, mut talk| match talk.greet() {
            command if command.starts_with("SESSION CREATE ID=") || command.is_empty() => {}
            command if command.starts_with("SESSION CREATE ") => {
                talk.session(1);
                talk.linger();
            }
            command => {
                if command.starts_with("STREAM ACCEPT ") {
                    talk.say("STREAM STATUS RESULT=OK\n");
                }
                let mut reader = Talk(talk.0.try_clone().unwrap());
                let thread = std::thread::spawn(move || reader.linger());
                match flood {
                    "" => {}
                    flood => while talk.say(flood.repeat(500)) {},
                }
                drop(thread.join());
            }
        });
        let controller = try_controller(&script.address(), &[]).unwrap();
        let dest = open(&controller);
        let limit = Limit::After(Duration::from_millis(150));
        let start = Instant::now();
        for error in [
            failure(dest.connect(&destination(9), &Options::default(), limit).and_then(|mut p| stream_of(&mut p))),
            failure(controller.generate(7, limit).and_then(|mut p| p.complete())),
        ] {
            // The last resort against PINGs that nobody can answer is to hang up.
            assert!(error.status == Status::Timeout || flood.starts_with("PING"), "{flood:?}: {error:?}");
        }
        if flood.is_empty() {
            let error = failure(dest.accept(limit).and_then(|mut p| stream_of(&mut p)));
            assert_eq!(error.status, Status::Timeout);
        } else {
            let error = failure(dest.accept(limit).and_then(|mut p| stream_of(&mut p)));
            assert!(matches!(error.status, Status::Timeout | Status::Protocol), "{flood:?}: {error:?}");
        }
        // Without the deadlines it would never end.
        assert!(start.elapsed() < LONG, "{flood:?}: {:?}", start.elapsed());
    });
}

#[test]
fn deadlines_hold_at_every_step() {
    let bridge = Bridge::start(Config::default()).unwrap();
    let controller = controller(&bridge);
    let (a, b) = (open(&controller), open(&controller));
    let limit = Limit::After(Duration::from_millis(50));
    let faults = bridge.faults();
    for reply in [
        Reply::Hello,
        Reply::SessionCreate,
        Reply::DestGenerate,
        Reply::NamingLookup,
        Reply::StreamConnect,
        Reply::StreamAccept,
    ] {
        faults.every(reply, Action::Stall);
        let start = Instant::now();
        let error = match reply {
            Reply::Hello => {
                let error = failure(controller.check(limit));
                assert_eq!(error.operation, Operation::Handshake);
                failure(b.connect(base64(&a), &Options::default(), limit).and_then(|mut p| stream_of(&mut p)))
            }
            Reply::SessionCreate => failure(try_open(&controller, limit)),
            Reply::DestGenerate => failure(controller.generate(7, limit).and_then(|mut p| p.complete())),
            Reply::NamingLookup => failure(a.lookup("x.i2p", limit).and_then(address_of)),
            Reply::StreamConnect => {
                failure(a.connect(base64(&b), &Options::default(), limit).and_then(|mut p| stream_of(&mut p)))
            }
            _ => failure(a.accept(limit).and_then(|mut p| stream_of(&mut p))),
        };
        let time = start.elapsed();
        assert_eq!(error.status, Status::Timeout, "{reply}: {error:?}");
        assert!(error.message.contains("50 ms"), "{}", error.message);
        assert_eq!(error.message.contains("TLS"), reply == Reply::Hello, "{}", error.message);
        assert!((Duration::from_millis(50)..SOON).contains(&time), "{reply}: {time:?}");
        faults.clear_rules();
    }
    // The greeting has a limit of its own, which the long one of the operation does not lift.
    let bridge = Bridge::start(Config::default()).unwrap();
    let controller = controller_with(&bridge, &[("hello_timeout", "60")]);
    bridge.faults().every(Reply::Hello, Action::Stall);
    for error in [failure(controller.check(LIMIT)), failure(try_open(&controller, Limit::Never))] {
        assert_eq!((error.status, error.operation), (Status::Timeout, Operation::Handshake), "{error:?}");
    }
}

#[test]
fn a_bridge_that_mixes_up_its_answers() {
    // Each gets the answer to the other's question; none may be taken for success.
    let answers = [
        ("SESSION CREATE", "STREAM STATUS RESULT=OK\n"),
        ("SESSION CREATE", "SESSION STATUS RESULT=OK\n"),
        ("SESSION CREATE", "SESSION STATUS RESULT=OK DESTINATION=AAAA\n"),
        ("SESSION CREATE", "DEST REPLY PUB=AAAA PRIV=AAAA\n"),
        ("SESSION CREATE", "HELLO REPLY RESULT=OK VERSION=3.3\n"),
        ("DEST GENERATE", "SESSION STATUS RESULT=OK DESTINATION=AAAA\n"),
        ("DEST GENERATE", "DEST REPLY PUB=AAAA\n"),
        ("DEST GENERATE", "DEST REPLY PRIV=AAAA\n"),
        ("NAMING LOOKUP", "NAMING REPLY RESULT=OK NAME=a.i2p VALUE=AAAA\n"),
        ("NAMING LOOKUP", "NAMING REPLY RESULT=OK NAME=b.i2p\n"),
    ];
    for (command, answer) in answers {
        let script = Script::start(move |_, mut talk| {
            if talk.greet().starts_with(command) {
                talk.say(answer);
                talk.linger();
            }
        });
        let controller = try_controller(&script.address(), &[("sam_timeout", PATIENT)]).unwrap();
        let error = match command {
            "SESSION CREATE" => failure(try_open(&controller, Limit::Default)),
            "DEST GENERATE" => failure(controller.generate(7, Limit::Default).and_then(|mut p| {
                p.complete()?;
                p.take()
            })),
            _ => failure(controller.lookup("a.i2p", Limit::Default).and_then(address_of)),
        };
        assert_eq!(error.status, Status::Protocol, "{command} {answer} {error:?}");
    }
    // A public destination where a private one is due is none.
    let public = destination(5);
    let script = Script::start(move |_, mut talk| {
        if !talk.greet().is_empty() {
            talk.say(format!("SESSION STATUS RESULT=OK DESTINATION={public}\n"));
            talk.linger();
        }
    });
    let controller = try_controller(&script.address(), &[("sam_timeout", PATIENT)]).unwrap();
    assert_eq!(failure(try_open(&controller, Limit::Default)).status, Status::Protocol);
}

#[test]
fn a_bridge_that_talks_before_it_is_asked() {
    // HELLO, OK and payload in one segment: no stream may come of it, and certainly none without its payload.
    let script = Script::start(|_, mut talk| {
        talk.line();
        talk.say("HELLO REPLY RESULT=OK VERSION=3.3\nSTREAM STATUS RESULT=OK\npayload");
        talk.linger();
    });
    let session = Script::start(|_, mut talk| {
        if talk.greet().starts_with("SESSION") {
            talk.session(1);
            talk.linger();
        }
    });
    drop(session);
    let controller = try_controller(&script.address(), &[("sam_timeout", PATIENT)]);
    // The check is content with the answer to HELLO.
    let controller = controller.unwrap();
    let error = failure(try_open(&controller, Limit::Default));
    assert_eq!(error.status, Status::Protocol, "{error:?}");
}

#[test]
fn careless_callers_are_stopped_before_anything_is_sent() {
    let bridge = Bridge::start(Config::default()).unwrap();
    let controller = controller(&bridge);
    let dest = open(&controller);
    let (lines, connections) = (bridge.texts().len(), bridge.connections_total());
    let target = destination(1);
    let texts = [
        "",
        "a b",
        "a\nQUIT",
        "a.i2p\n\n",
        "a.i2p\r\nQUIT",
        "a\0.i2p",
        "\"a.i2p\"",
        "a.i2p ID=x",
        "\u{e9}.i2p",
        "ME",
        "me",
        "AAAA",
        "http://a.i2p/b",
        "a.i2p:80",
        "a\\.i2p",
        "TRANSIENT",
    ];
    let cut =
        [&target[..500], &format!("{target}\n\n"), &format!(" {target}"), &format!("{target}=")].map(str::to_owned);
    for text in texts.into_iter().chain(cut.iter().map(String::as_str)) {
        let error = failure(dest.connect(text, &Options::default(), LIMIT));
        assert_eq!(error.status, Status::Invalid, "{text:?}");
        if text != "ME" {
            assert_eq!(failure(dest.lookup(text, LIMIT)).status, Status::Invalid, "{text:?}");
        }
        assert_eq!(failure(controller.lookup(text, LIMIT)).status, Status::Invalid, "{text:?}");
    }
    for (key, value) in [
        ("a.b", "1 2"),
        ("a.b", "1\nQUIT"),
        ("a.b", ""),
        ("a b.c", "1"),
        ("a.b=c", "1"),
        ("ID", "x"),
        ("SILENT", "true"),
        ("DESTINATION", "x"),
    ] {
        assert!(Options::default().set(key, value).is_err(), "{key}={value:?}");
    }
    // Too much for one line, by options that are fine one by one.
    let mut many = Options::default();
    for number in 0..100 {
        many.set(&format!("a.option{number}"), &"x".repeat(50)).unwrap();
    }
    assert_eq!(failure(dest.connect(&target, &many, LIMIT)).status, Status::Invalid);
    assert_eq!(failure(controller.open_dest("", 1, &many, LIMIT)).status, Status::Invalid);
    for number in [-1, 0, 6, 99] {
        assert_eq!(failure(controller.open_dest("", number, &Options::default(), LIMIT)).status, Status::Invalid);
    }
    for kind in [4, 5, 6, 8, 9, 10, 12, 65535] {
        assert_eq!(failure(controller.generate(kind, LIMIT)).status, Status::Invalid, "{kind}");
    }
    assert_eq!((bridge.texts().len(), bridge.connections_total()), (lines, connections));
    assert_eq!(address_of(dest.lookup("ME", LIMIT).unwrap()).unwrap(), base64(&dest));
}

/// Collects what the log hook is told.
fn watch(controller: &Control) -> Arc<Mutex<Vec<String>>> {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&lines);
    controller.bridge().log.set(Some(Arc::new(move |line: &str| log.lock().unwrap().push(line.to_owned()))));
    lines
}

/// Parts of a private key that are nowhere in the public one.
fn secrets(keys: &Keys) -> Vec<String> {
    let text = keys.base64();
    let private = keys.address().base64().len();
    // Off the border, where the public part shares a character.
    vec![text[private..private + 40].to_owned(), text[text.len() - 44..text.len() - 2].to_owned()]
}

#[test]
fn no_private_key_nor_password_is_ever_shown() {
    let password = "pass\"wo\\rd-7";
    for personality in Personality::ALL {
        let auth = Some(("alice".to_owned(), password.to_owned()));
        let bridge = Bridge::start(Config { auth, ..Config::with_personality(personality) }).unwrap();
        let controller = controller_with(&bridge, &[("user", "alice"), ("password", password)]);
        let log = watch(&controller);
        let mut hidden = vec![password.to_owned(), "wo\\\\rd".to_owned()];
        let mut errors = Vec::new();

        let mut generate = controller.generate(7, LIMIT).unwrap();
        generate.complete().unwrap();
        assert!(generate.reply("PRIV").is_none());
        let keys = generate.take();
        let keys = keys.unwrap();
        hidden.extend(secrets(&keys));
        let mut with_keys = Options::default();
        with_keys.set_keys(Some(&keys));
        let mut opening = controller.open_dest("", 1, &with_keys, LIMIT).unwrap();
        opening.complete().unwrap();
        assert!(opening.reply("DESTINATION").is_none() && opening.reply("RESULT").is_some());
        let a = dest_of(opening).unwrap();
        let b = open(&controller);
        hidden.extend(secrets(b.destination().keys()));
        let (x, y) = pair(&a, &b);
        echo(&x, &y, 1, 100);
        drop(a.lookup("nosuch.i2p", LIMIT).map(|mut lookup| lookup.complete()));

        // Flows that fail, at every place where keys are on the wire.
        let faults = bridge.faults();
        let private = keys.base64();
        let actions = [
            Action::CloseAfter(700),
            Action::CloseAfter(28),
            Action::OmitNewline,
            Action::replace_and_close(format!("SESSION STATUS RESULT=I2P_ERROR DESTINATION={private}\n")),
            Action::replace_and_close(format!("SESSION STATUS RESULT=OK DESTINATION=\"{private}\n")),
            Action::replace_and_close(format!("SESSION STATUS RESULT=OK DESTINATION={private}x\n")),
            Action::replace_and_close(format!("DEST REPLY PUB=x PRIV={private}\n")),
            Action::replace_and_close(format!("SESSION STATUS RESULT=OK DESTINATION={private} RESULT=OK\n")),
            Action::replace_and_close(format!("SESSION  STATUS\tRESULT=OK\tDESTINATION={private}\r\n")),
            Action::prepend(format!("PING {}\n", "x".repeat(30))),
        ];
        for action in actions {
            faults.once(Reply::SessionCreate, action.clone());
            errors.extend(try_open(&controller, LIMIT).err());
            faults.clear_rules();
            faults.once(Reply::DestGenerate, action);
            errors.extend(controller.generate(7, LIMIT).and_then(|mut p| p.complete()).err());
            faults.clear_rules();
        }
        faults.unsolicited(format!("SESSION STATUS RESULT=OK DESTINATION={private}\n"));
        faults.unsolicited(format!("DEST REPLY PUB=x PRIV={private}\n"));
        faults.unsolicited("PING done\n");
        wait_until("all is read", || bridge.texts().iter().any(|line| line == "PONG done"));
        faults.kill_all_sessions(true);
        wait_until("the loss is logged", || log.lock().unwrap().iter().any(|line| line.contains("session lost")));

        let lines = log.lock().unwrap();
        assert!(lines.len() > 20 && errors.len() > 5, "{} {}", lines.len(), errors.len());
        let messages = errors.iter().map(|error| &error.message);
        for line in lines.iter().chain(messages) {
            for secret in &hidden {
                assert!(!line.contains(secret.as_str()), "{personality}: {line}");
            }
        }
        // What was sent is shown, with the private parts replaced.
        for part in
            ["-> HELLO VERSION", "-> SESSION CREATE", "DESTINATION=<private>", "<- SESSION STATUS", "-> STREAM CONNECT"]
        {
            assert!(lines.iter().any(|line| line.contains(part)), "{part}");
        }
        if personality == Personality::Java {
            assert!(lines.iter().any(|line| line.contains("PASSWORD=<private>")));
        }
        // Whole session ids are not shown either: who knows one can use the session.
        assert!(!lines.iter().any(|line| line.contains(a.destination().session().id())));
    }
}

#[test]
fn a_wrong_password_is_told() {
    let auth = Some(("alice".to_owned(), "right".to_owned()));
    let bridge = Bridge::start(Config { auth, ..Config::default() }).unwrap();
    for entries in [&[][..], &[("user", "alice"), ("password", "wrong")]] {
        let error = failure(try_controller(&bridge.addr().to_string(), entries));
        assert_eq!(
            (error.status, error.operation, error.tag.as_str()),
            (Status::Network, Operation::Handshake, "I2P_ERROR")
        );
        assert!(
            error.message.contains("Authorization failed") && error.message.contains("password"),
            "{}",
            error.message
        );
    }
    let controller = controller_with(&bridge, &[("user", "alice"), ("password", "right")]);
    open(&controller);
}

/// A log hook may take its time or be changed at any moment; it is never called with anything locked.
#[test]
fn a_log_hook_may_use_other_handles() {
    let bridge = Bridge::start(Config::default()).unwrap();
    let controller = controller(&bridge);
    let dest = Arc::new(open(&controller));
    let (seen, target) = (Arc::new(Mutex::new(0)), Arc::clone(&dest));
    let counter = Arc::clone(&seen);
    controller.bridge().log.set(Some(Arc::new(move |_: &str| {
        // The state of a session is there for everybody.
        let _ = target.destination().state();
        let _ = target.destination().session().control();
        *counter.lock().unwrap() += 1;
    })));
    let dest = Arc::clone(&dest);
    bounded("the hook", move || {
        for number in 0..50 {
            drop(dest.lookup(&format!("n{number}.i2p"), LIMIT).map(|mut lookup| lookup.complete()));
        }
        dest.shutdown().unwrap();
    });
    assert!(*seen.lock().unwrap() >= 100);
    controller.bridge().log.set(None);
}
