//! Bytes go both ways, all of them, whoever is slow and whatever is urgent.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

use super::common::*;
use super::{both, call, count, local_to_tcp, reach, round_trip, taken, Server};
use i2psock_bridge::Bridge;

#[test]
fn bytes_go_both_ways() {
    for keeper in ["1", "0"] {
        for splice in ["1", "0"] {
            let bridge = Bridge::start(patient()).unwrap();
            let controller = controller_with(&bridge, &[("keeper", keeper)]);
            let target = Server::echo();
            let (server, client) = both(&controller, &target, &[("splice", splice), ("buffer_size", "3000")]);
            for round in 0..5 {
                round_trip(&mut call(&client), round, 1 << round << 14);
            }
            wait_until("all are closed", || count(&client, |c| &c.now) + count(&server, |c| &c.now) == 0);
            let bytes: u64 = (0..5).map(|round| 1 << round << 14).sum();
            assert_eq!(count(&client, |c| &c.bytes_out), bytes);
            assert_eq!(count(&client, |c| &c.bytes_in), bytes);
            assert_eq!((count(&server, |c| &c.total), count(&server, |c| &c.failed)), (5, 0));
            assert!(client.next_error().is_none() && server.next_error().is_none());
        }
    }
}

#[test]
fn a_slow_reader_stops_the_writer_and_nobody_else() {
    let bridge = Bridge::start(patient()).unwrap();
    let controller = controller(&bridge);
    let over = Arc::new(AtomicBool::new(false));
    let done = Arc::clone(&over);
    let target = Server::start(move |mut stream| {
        let mut first = [0];
        stream.read_exact(&mut first).unwrap();
        while first[0] == b'n' && !done.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(10));
        }
        drop(stream.write_all(&first));
        let mut writer = stream.try_clone().unwrap();
        drop(std::io::copy(&mut stream, &mut writer));
    });
    let (server, client) = both(&controller, &target, &[]);
    let mut stuck: Vec<_> = (0..20).map(|_| call(&client)).collect();
    for stream in &mut stuck {
        stream.set_nonblocking(true).unwrap();
        stream.write_all(b"n").unwrap();
    }
    // All that fits goes; then nothing.
    let mut sent = 0;
    let bytes = vec![0; 1 << 16];
    let mut quiet = 0;
    while quiet < 20 {
        let before = sent;
        for stream in &mut stuck {
            sent += stream.write(&bytes).unwrap_or(0);
        }
        quiet = if sent == before { quiet + 1 } else { 0 };
        assert!(sent < 20 * (64 << 20), "the writer is not stopped");
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut stream = call(&client);
    stream.write_all(b"y").unwrap();
    stream.read_exact(&mut [0]).unwrap();
    round_trip(&mut stream, 1, 100_000);
    let start = std::time::Instant::now();
    client.close();
    server.close();
    assert!(start.elapsed() < SOON);
    assert_eq!(count(&client, |c| &c.now), 0);
    over.store(true, Ordering::SeqCst);
}

/// I2PSOCK_TUNNEL_ROUNDS=125 makes it a thousand connections.
#[test]
fn many_at_random() {
    let rounds = std::env::var("I2PSOCK_TUNNEL_ROUNDS").map_or(40, |text| text.parse().unwrap());
    let bridge = Bridge::start(patient()).unwrap();
    let controller = controller(&bridge);
    let target = Server::echo();
    let (server, client) = both(&controller, &target, &[]);
    std::thread::scope(|scope| {
        for thread in 0..8u64 {
            let client = &client;
            scope.spawn(move || {
                let mut rng = Rng::new(thread + 1);
                for round in 0..rounds {
                    let mut stream = call(client);
                    match rng.next() % 4 {
                        // Gone before, in the middle, and after; or with a reset.
                        0 => drop(stream),
                        1 => {
                            drop(stream.write_all(&vec![1; (rng.next() % 50_000) as usize]));
                            drop(stream.shutdown(Shutdown::Both));
                        }
                        _ => round_trip(&mut stream, round, (rng.next() % 100_000) as usize + 1),
                    }
                }
            });
        }
    });
    wait_until("all are closed", || count(&client, |c| &c.now) + count(&server, |c| &c.now) == 0);
    assert_eq!(count(&client, |c| &c.total), 8 * rounds);
}

/// Urgent data stays where it is among the rest, and nothing behind it is lost.
#[test]
fn urgent_data_goes_through() {
    for splice in ["1", "0"] {
        let (tunnel, address, target) = local_to_tcp(&[("splice", splice)]);
        let client = reach(address);
        let server = taken(&target);
        for (mut from, mut to) in [(&client, &server), (&server, &client)] {
            for _ in 0..3 {
                from.write_all(b"before").unwrap();
                send_urgent(from, b'!');
                from.write_all(b"after").unwrap();
                let mut got = [0; 12];
                to.read_exact(&mut got).unwrap();
                assert_eq!(&got, b"before!after");
            }
        }
        wait_until("it is counted", || count(&tunnel, |c| &c.bytes_in) == 36);
        drop((client, server));
        // The end comes with it.
        for _ in 0..20 {
            let mut client = reach(address);
            client.write_all(b"before").unwrap();
            send_urgent(&client, b'!');
            client.write_all(b"after").unwrap();
            drop(client);
            let mut got = String::new();
            taken(&target).read_to_string(&mut got).unwrap();
            assert_eq!(got, "before!after");
        }
    }
}
