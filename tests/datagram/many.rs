//! Many datagrams at once.

use super::common::datagram::*;
use super::common::*;
use i2psock::core::datagram::Outgoing;
use i2psock::error::{Operation, Status};
use i2psock::sys;
use i2psock_bridge::{Bridge, Config, Personality};
#[test]
fn many_go_in_order_to_several() {
    for entries in [&[][..], &[("in_band", "1")]] {
        let (bridge, controller) = start(Personality::Java);
        let peers = [(); 3].map(|()| Peer::open(&controller, DGRAM, entries));
        assert!(bridge.add_host("bob.i2p", peers[1].address()));
        let host = format!("{}.b32.i2p", peers[2].dest.destination().keys().address().base32());
        let texts = [peers[0].address(), "bob.i2p", host.as_str()];
        let payloads: Vec<Vec<u8>> = (0..90usize).map(|n| vec![n as u8; 1 + n * 10]).collect();
        // In portions that have room in band.
        for (at, portion) in payloads.chunks(30).enumerate() {
            let list: Vec<_> =
                portion.iter().enumerate().map(|(n, payload)| Outgoing { address: texts[n % 3], payload }).collect();
            let (sent, result) = peers[0].dgram.send_many(&list, 0);
            assert!(sent == 30 && result.unwrap(), "{sent}");
            for (which, peer) in peers.iter().enumerate() {
                let mut got = Vec::new();
                while got.len() < 10 {
                    got.extend(peer.try_recv_many(&[2000; 10][got.len()..], 0).unwrap());
                }
                for (n, (payload, datagram)) in got.iter().enumerate() {
                    assert!(*payload == payloads[at * 30 + n * 3 + which], "{which} {n}");
                    assert_eq!(source_of(datagram), peers[0].address());
                }
                peer.nothing();
            }
        }
        assert_eq!(peers[0].dgram.counts().sent, 90);
        assert_eq!((lookups(&bridge, "bob.i2p"), lookups(&bridge, &host)), (1, 1));
    }
}

/// Whatever was dropped between them: the n-th good datagram is in the n-th slot, cut only by the room of that one.
#[test]
fn many_come_without_gaps() {
    let (bridge, controller) = start(Personality::Java);
    let mut rng = Rng::new(7);
    for (style, entries) in [(DGRAM, &[][..]), (RAW, &[])] {
        for round in 0..150 {
            let peer = Peer::open(&controller, style, entries);
            let header = if style == RAW { String::new() } else { format!("{}\n", peer.address()) };
            let (mut good, mut refused, mut malformed) = (Vec::new(), 0, 0);
            for _ in 0..rng.below(40) {
                match rng.below(4) {
                    0 => {
                        refused += 1;
                        bridge.faults().forge(&peer.id(), format!("{header}forged")).unwrap();
                    }
                    1 if style == DGRAM => {
                        malformed += 1;
                        assert!(bridge.faults().inject(&peer.id(), b"malformed".repeat(rng.below(100))));
                    }
                    _ => {
                        let len = rng.below(300);
                        let payload = bytes(&mut rng, len);
                        // A header the prediction is wrong for, now and then.
                        let header = if style == DGRAM && rng.below(4) == 0 {
                            format!("{} FROM_PORT=7\n", peer.address())
                        } else {
                            header.clone()
                        };
                        assert!(bridge.faults().inject(&peer.id(), [header.as_bytes(), &payload].concat()));
                        good.push(payload);
                    }
                }
            }
            let (mut came, mut cut) = (0, 0);
            loop {
                let rooms: Vec<usize> = match rng.below(3) {
                    0 => vec![400; 1 + rng.below(40)],
                    1 => (0..20).map(|n| n * 20).collect(),
                    _ => (0..1 + rng.below(40)).map(|_| rng.below(400)).collect(),
                };
                let got = peer.try_recv_many(&rooms, NOW).unwrap();
                if got.is_empty() {
                    break;
                }
                for ((payload, datagram), room) in got.iter().zip(&rooms) {
                    let whole = &good[came];
                    assert!(*payload == whole[..whole.len().min(*room)], "{style} {round}: {came}");
                    assert_eq!((datagram.len, datagram.full_len), (payload.len(), whole.len()));
                    cut += u64::from(payload.len() < whole.len());
                    came += 1;
                }
            }
            assert_eq!(came, good.len(), "{style} {round}");
            let counts = peer.dgram.counts();
            let wanted = (came as u64, refused, malformed, cut, 0);
            let counted = (counts.received, counts.refused, counts.malformed, counts.truncated, counts.dropped);
            assert_eq!(counted, wanted, "{style} {round}");
        }
    }
}

#[test]
fn many_one_of_which_is_wrong() {
    for entries in [&[][..], &[("in_band", "1")]] {
        let (bridge, controller) = start(Personality::Java);
        let peer = Peer::open(&controller, DGRAM, entries);
        let good = Outgoing { address: peer.address(), payload: b"good" };
        let large = vec![0; 31_745];
        let wrong = [
            (Outgoing { payload: b"", ..good }, Status::Invalid, ""),
            (Outgoing { payload: &large, ..good }, Status::Invalid, ""),
            (Outgoing { address: "not an address", ..good }, Status::Invalid, ""),
            (Outgoing { address: "nobody.i2p", ..good }, Status::Network, "KEY_NOT_FOUND"),
        ];
        for (one, status, tag) in wrong {
            for at in [0, 1, 15, 16, 17, 20] {
                let mut list = vec![good; 20];
                list.insert(at, one);
                let before = (peer.dgram.counts().sent, bridge.datagram_counts().received);
                let (sent, result) = peer.dgram.send_many(&list, 0);
                let error = failure(result);
                assert_eq!((sent, error.status, error.tag.as_str()), (at, status, tag), "{error:?}");
                assert_eq!(peer.dgram.counts().sent, before.0 + at as u64);
                for _ in 0..at {
                    assert_eq!(peer.recv().0, b"good");
                }
                peer.nothing();
                assert_eq!(bridge.datagram_counts().received, before.1 + at as u64, "nothing else was sent");
            }
        }
        for flags in [sys::MSG_PEEK, libc::MSG_OOB, 1 << 30] {
            assert_eq!(failure(peer.dgram.send_many(&[good], flags).1).status, Status::Invalid, "{flags:#x}");
            assert_eq!(failure(peer.try_recv_many(&[10], flags)).status, Status::Invalid, "{flags:#x}");
        }
    }
}

/// A name that is not known yet holds up nothing before it, also when nothing waits.
#[test]
fn many_with_a_name_that_is_not_there_yet() {
    let (bridge, controller) = start(Personality::Java);
    let peer = Peer::open(&controller, DGRAM, &[]);
    assert!(bridge.add_host("bob.i2p", peer.address()));
    let known = Outgoing { address: peer.address(), payload: b"known" };
    let list = [known, known, Outgoing { address: "bob.i2p", payload: b"bob" }, known];
    let (sent, result) = peer.dgram.send_many(&list, NOW);
    assert_eq!((sent, failure(result).status), (2, Status::State));
    assert_eq!((peer.recv().0, peer.recv().0), (b"known".to_vec(), b"known".to_vec()));
    assert_eq!(lookups(&bridge, "bob.i2p"), 0);
    let (went, result) = peer.dgram.send_many(&list[sent..], 0);
    assert!(went == 2 && result.unwrap(), "{went}");
    assert_eq!((peer.recv().0, peer.recv().0), (b"bob".to_vec(), b"known".to_vec()));
    assert_eq!(lookups(&bridge, "bob.i2p"), 1);
}

#[test]
fn many_wait_for_the_first_alone() {
    let bridge = Bridge::start(Config::default()).unwrap();
    for keeper in ["1", "0"] {
        let controller = control(&bridge, &[("keeper", keeper)]);
        for entries in [&[][..], &[("in_band", "1")]] {
            let peer = Peer::open(&controller, DGRAM, entries);
            assert!(peer.try_recv_many(&[100; 40], NOW).unwrap().is_empty());
            assert!(peer.try_recv_many(&[], 0).unwrap().is_empty());
            peer.dgram.set_timeout(50).unwrap();
            let error = failure(peer.try_recv_many(&[100; 40], 0));
            assert_eq!((error.status, error.operation), (Status::Timeout, Operation::Receive));
            for limit in [-1, LONG.as_millis() as i32] {
                peer.dgram.set_timeout(limit).unwrap();
                std::thread::scope(|scope| {
                    let receiver = spawn_until_it_waits(scope, || peer.try_recv_many(&[100; 40], 0).unwrap());
                    peer.send(peer.address(), b"hello");
                    let got = receiver.join().unwrap();
                    assert_eq!((got.len(), got[0].0.as_slice()), (1, &b"hello"[..]), "keeper {keeper} {entries:?}");
                });
            }
            peer.dgram.set_nonblocking(true).unwrap();
            assert!(peer.try_recv_many(&[100; 2], 0).unwrap().is_empty());
        }
    }
}

#[test]
fn an_end_wakes_those_who_receive_many() {
    for (limit, entries) in [(-1, &[][..]), (60_000, &[]), (-1, &[("in_band", "1")]), (60_000, &[("in_band", "1")])] {
        let (bridge, controller) = start(Personality::Java);
        let peer = Peer::open(&controller, DGRAM, entries);
        peer.dgram.set_timeout(limit).unwrap();
        let result = std::thread::scope(|scope| {
            let receiver = spawn_until_it_waits(scope, || peer.try_recv_many(&[100; 20], 0));
            assert!(bridge.faults().kill_session(&peer.id(), true));
            receiver.join().unwrap()
        });
        assert_eq!(failure(result).status, Status::Closed, "{limit} {entries:?}");
        assert_eq!(failure(peer.try_recv_many(&[100; 20], NOW)).status, Status::Closed);
        let one = Outgoing { address: peer.address(), payload: b"x" };
        let (sent, result) = peer.dgram.send_many(&[one; 3], 0);
        assert_eq!((sent, failure(result).status), (0, Status::Closed));
        let counts = peer.dgram.counts();
        assert_eq!((counts.received, counts.refused, counts.malformed), (0, 0, 0), "the end is not a datagram");
    }
}
