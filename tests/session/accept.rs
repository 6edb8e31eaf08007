//! Accepts that are given up, parked and taken up again: no stream may get lost or stuck on the way.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::common::*;
use i2psock::core::destination::DestHandle;
use i2psock::core::drive::{Limit, Progress, Stage};
use i2psock::core::settings::Options;
use i2psock::core::stream::Stream;
use i2psock::error::Status;
use i2psock_bridge::{Action, Bridge, Config, Personality, Reply};

/// Routers that go on with an accept whose socket was closed.
const KEEPERS_OF_ACCEPTS: [Personality; 2] = [Personality::Java, Personality::Emissary];

fn bridge(personality: Personality) -> Bridge {
    Bridge::start(Config { personality, ..patient() }).unwrap()
}

fn short(milliseconds: u64) -> Limit {
    Limit::After(Duration::from_millis(milliseconds))
}

fn try_accept(dest: &DestHandle, limit: Limit) -> Option<Stream> {
    match dest.accept(limit).and_then(|mut pending| stream_of(&mut pending)) {
        Ok(stream) => Some(stream),
        Err(error) => {
            assert_eq!(error.status, Status::Timeout, "{error:?}");
            None
        }
    }
}

/// Every stream that is sent arrives, whatever the accepting side does with its accepts.
fn no_stream_is_lost(personality: Personality, count: usize, accept: impl Fn(&DestHandle, usize) -> Option<Stream>) {
    let bridge = bridge(personality);
    let controller = controller(&bridge);
    let (a, b) = (open(&controller), open(&controller));
    let (a, to) = (&a, base64(&b).to_owned());
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for number in 0..count {
                let mut pending = a.connect(&to, &Options::default(), LIMIT).unwrap();
                let stream = stream_of(&mut pending).unwrap();
                send(&stream, &[number as u8]);
                // The other side answers: nothing is in flight when the stream is closed.
                assert_eq!(receive(&stream, 1), [number as u8]);
                if number % 3 == 0 {
                    // Let some accepts end without a stream.
                    std::thread::sleep(Duration::from_millis(7));
                }
            }
        });
        let mut seen = BTreeSet::new();
        let end = Instant::now() + LONG;
        for round in 0.. {
            if seen.len() == count {
                break;
            }
            assert!(Instant::now() < end, "{personality}: only {seen:?} of {count} arrived");
            if let Some(stream) = accept(&b, round) {
                let byte = receive(&stream, 1);
                assert!(seen.insert(byte[0]), "{personality}: {byte:?} came twice");
                send(&stream, &byte);
            }
        }
    });
    // Not one accept per deadline: the same ones over and over.
    let accepts = bridge.texts().iter().filter(|line| line.starts_with("STREAM ACCEPT")).count();
    assert!(accepts <= count + 40, "{personality}: {accepts} accepts for {count} streams");
}

#[test]
fn short_deadlines_in_a_loop_lose_no_stream() {
    for personality in Personality::ALL {
        no_stream_is_lost(personality, 40, |dest, _| try_accept(dest, short(3)));
    }
}

#[test]
fn cancelled_accepts_lose_no_stream() {
    for personality in KEEPERS_OF_ACCEPTS {
        no_stream_is_lost(personality, 30, |dest, round| {
            // Stepped a few times and dropped at any point, also when the stream is there already.
            let mut pending = dest.accept(LIMIT).unwrap();
            for _ in 0..round % 7 {
                if pending.wait(Some(Duration::from_millis(1))).unwrap() == Progress::Done {
                    break;
                }
            }
            if round % 2 == 0 || pending.step(now()).unwrap() == Progress::Block {
                drop(pending);
                return None;
            }
            Some(take_stream(&mut pending).unwrap())
        });
    }
}

#[test]
fn several_threads_with_short_deadlines_lose_no_stream() {
    for personality in KEEPERS_OF_ACCEPTS {
        let bridge = bridge(personality);
        let controller = controller(&bridge);
        let (a, b) = (open(&controller), open(&controller));
        let (count, arrived) = (30, AtomicUsize::new(0));
        let end = Instant::now() + LONG;
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while arrived.load(Ordering::SeqCst) < count {
                        assert!(Instant::now() < end, "{personality}: {arrived:?} of {count}");
                        if let Some(stream) = try_accept(&b, short(4)) {
                            arrived.fetch_add(1, Ordering::SeqCst);
                            send(&stream, &receive(&stream, 1));
                        }
                    }
                });
            }
            for _ in 0..count {
                let stream = stream_of(&mut connect(&a, &b)).unwrap();
                send(&stream, b"x");
                assert_eq!(receive(&stream, 1), b"x", "{personality}");
            }
        });
    }
}

#[test]
fn a_given_up_accept_is_taken_up_again() {
    for personality in Personality::ALL {
        let bridge = bridge(personality);
        let controller = controller(&bridge);
        let (a, b) = (open(&controller), open(&controller));
        drop(listening(&b));
        let connections = bridge.connections_total();
        // The stream comes while nobody accepts.
        let mut connecting = connect(&a, &b);
        until(&mut connecting);
        let stream = try_accept(&b, LIMIT).unwrap();
        echo(&stream, &stream_of(&mut connecting).unwrap(), 1, 1000);
        assert_eq!(bridge.connections_total(), connections + 1, "{personality}: another connection for the accept");
        // It has served: the next is a new one.
        drop(listening(&b));
        assert_eq!(bridge.connections_total(), connections + 2, "{personality}");
        let accept = listening(&b);
        assert_eq!((bridge.connections_total(), accept.stage()), (connections + 2, Stage::Listening), "{personality}");
    }
}

/// Sends the request; on Java the answer comes only with the accept.
fn until(connecting: &mut i2psock::core::drive::Pending<Stream>) {
    let end = Instant::now() + LONG;
    while !matches!(connecting.stage(), Stage::Working | Stage::Done) {
        assert!(connecting.wait(Some(Duration::from_millis(1))).is_ok() && Instant::now() < end);
    }
}

#[test]
fn a_stream_that_nobody_fetched_is_kept() {
    for personality in Personality::ALL {
        let bridge = bridge(personality);
        let controller = controller(&bridge);
        let (a, b) = (open(&controller), open(&controller));
        let mut first = listening(&b);
        let x = stream_of(&mut connect(&a, &b)).unwrap();
        first.complete().unwrap();
        send(&x, b"kept");
        // Done, but dropped instead of taken.
        drop(first);
        let connections = bridge.connections_total();
        let mut second = b.accept(Limit::After(Duration::ZERO)).unwrap();
        assert_eq!((second.stage(), second.fd()), (Stage::Done, -1));
        // And once more.
        drop(second);
        second = b.accept(LIMIT).unwrap();
        let y = take_stream(&mut second).unwrap();
        assert_eq!(receive(&y, 4), b"kept", "{personality}");
        assert_eq!(y.remote().address.as_ref().unwrap().base64(), base64(&a));
        assert_eq!(bridge.connections_total(), connections);
        // Taken streams are the program's: dropping the operation afterwards does nothing.
        drop(second);
        echo(&x, &y, 1, 1000);
    }
}

/// Two accepts were given up, the one the router serves first last: whoever accepts next must get the stream, whichever
/// of the parked ones it comes to.
#[test]
fn a_stream_that_comes_to_another_parked_accept_does_not_get_stuck() {
    for personality in Personality::ALL {
        let bridge = bridge(personality);
        let controller = controller(&bridge);
        let (a, b) = (open(&controller), open(&controller));
        let served_first = listening(&b);
        let served_second = listening(&b);
        drop(served_second);
        drop(served_first);
        let mut accept = b.accept(LIMIT).unwrap();
        let mut connecting = connect(&a, &b);
        until(&mut connecting);
        let result = stream_of(&mut accept);
        assert!(result.is_ok(), "{personality}: {:?}", result.err());
        echo(&result.unwrap(), &stream_of(&mut connecting).unwrap(), 1, 100);
    }
}

/// The same with a thread that is already waiting when another gives up the accept that is served first.
#[test]
fn a_stream_that_comes_to_a_parked_accept_reaches_who_waits() {
    let bridge = bridge(Personality::Emissary);
    let controller = controller(&bridge);
    let (a, b) = (open(&controller), open(&controller));
    let given_up = listening(&b);
    let mut waiting = b.accept(LIMIT).unwrap();
    until_stage(&mut waiting, Stage::Listening);
    drop(given_up);
    let x = stream_of(&mut connect(&a, &b)).unwrap();
    send(&x, b"!");
    let result = stream_of(&mut waiting);
    assert!(result.is_ok(), "{:?}", result.err());
    assert_eq!(receive(&result.unwrap(), 1), b"!");
}

/// Deadlines shorter than the greeting takes: the accept goes on where it was instead of beginning again every time.
#[test]
fn deadlines_too_short_for_the_greeting_get_there_at_last() {
    for (limit, delay) in [(0, 300), (2, 300)] {
        let bridge = bridge(Personality::Java);
        let controller = controller(&bridge);
        let (a, b) = (open(&controller), open(&controller));
        bridge.faults().every(Reply::Hello, Action::Delay(Duration::from_millis(delay)));
        let b = &b;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let end = Instant::now() + LONG;
                let before = bridge.connections_total();
                while Instant::now() < end {
                    if let Some(stream) = try_accept(b, short(limit)) {
                        send(&stream, b"!");
                        return;
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
                let connections = bridge.connections_total() - before;
                panic!("no stream in {LONG:?} with a limit of {limit} ms: {connections} connections were made");
            });
            let result = a.connect(base64(b), &Options::default(), LIMIT).and_then(|mut p| stream_of(&mut p));
            assert_eq!(receive(&result.unwrap(), 1), b"!");
        });
    }
}

#[test]
fn parked_accepts_that_died_are_passed_over() {
    let bridge = bridge(Personality::Java);
    let controller = controller(&bridge);
    let (a, b) = (open(&controller), open(&controller));
    // The router ends them while they are parked, with and without a word.
    let parked: Vec<_> = (0..4).map(|_| listening(&b)).collect();
    drop(parked);
    let lines = ["STREAM STATUS RESULT=I2P_ERROR MESSAGE=\"x\"\n", "", "nonsense\n", "STREAM STATUS RESULT=I2P_ERROR"];
    for line in lines {
        bridge.faults().once(Reply::StreamAcceptPeer, Action::replace_and_close(line));
        drop(stream_of(&mut connect(&a, &b)));
        bridge.faults().clear_rules();
    }
    // Their connections have been closed, so that the library can see it, too.
    wait_until("the dead ones are closed", || bridge.is_quiet(2));
    let (x, y) = pair(&a, &b);
    echo(&x, &y, 1, 100);
}

#[test]
fn parked_accepts_end_with_their_destination() {
    for personality in Personality::ALL {
        let bridge = bridge(personality);
        let controller = controller(&bridge);
        let (a, b) = (open(&controller), open(&controller));
        let parked: Vec<_> = (0..5).map(|_| listening(&b)).collect();
        let mut done = listening(&b);
        let streams: Vec<_> = (0..6).map(|_| stream_of(&mut connect(&a, &b)).unwrap()).collect();
        done.complete().unwrap();
        drop(done);
        drop(parked);
        let open = bridge.connections_open();
        b.shutdown().unwrap();
        let error = failure(b.accept(LIMIT));
        assert_eq!(error.status, Status::Closed);
        for stream in &streams {
            assert_eq!(receive(stream, 1), b"", "{personality}");
        }
        drop(streams);
        wait_until("the bridge is rid of them", || bridge.connections_open() == 1);
        assert!(open > 1);
    }
}

#[test]
fn the_same_accept_is_never_adopted_twice() {
    let bridge = bridge(Personality::Emissary);
    let controller = controller(&bridge);
    let (a, b) = (open(&controller), Arc::new(open(&controller)));
    drop((0..3).map(|_| listening(&b)).collect::<Vec<_>>());
    let connections = bridge.connections_total();
    let accepts: Vec<_> = (0..5).map(|_| listening(&b)).collect();
    assert_eq!(bridge.connections_total(), connections + 2, "three are taken up again, two are new");
    let fds: BTreeSet<_> = accepts.iter().map(|pending| pending.fd()).collect();
    assert_eq!(fds.len(), 5);
    let streams: Vec<_> = (0..5).map(|_| stream_of(&mut connect(&a, &b)).unwrap()).collect();
    for mut accept in accepts {
        let y = stream_of(&mut accept).unwrap();
        send(&y, b"!");
    }
    for stream in &streams {
        assert_eq!(receive(stream, 1), b"!");
    }
}
