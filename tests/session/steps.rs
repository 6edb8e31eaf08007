//! A step that says BLOCK leaves something to wait for, however much the bridge had said before it.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::sync::mpsc;

use super::common::*;
use i2psock::core::drive::{Pending, Progress, Stage};
use i2psock::core::settings::Options;
use i2psock::sys;

/// What one read takes.
const READ: usize = 4096;

/// Steps until the whole reply is there, then once more and again only when poll says so.
fn never_blocks_for_nothing<T>(
    mut pending: Pending<T>,
    go: &mpsc::Sender<usize>,
    said: &mpsc::Receiver<()>,
    size: usize,
) {
    until_stage(&mut pending, Stage::Working);
    go.send(size).unwrap();
    said.recv_timeout(LONG).unwrap();
    while pending.step(now()).unwrap() == Progress::Block {
        let ready = sys::poll_one(pending.fd(), pending.events(), 0).unwrap();
        assert!(ready != 0, "{size} bytes: the reply is read, and the caller is told to wait for it");
    }
}

/// The bridge is a unix socket, because that takes a whole reply before anybody reads, and reads give what is asked for.
#[test]
fn the_last_read_of_a_step_may_be_the_one_that_counts() {
    let folder = std::env::temp_dir().join(format!("i2psock-steps-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("sam");
    let listener = UnixListener::bind(&path).unwrap();
    let (go, going) = mpsc::channel::<usize>();
    let (saying, said) = mpsc::channel();
    let bridge = std::thread::spawn(move || {
        let mut sessions = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            let Some(_hello) = lines.next() else { break };
            stream.write_all(b"HELLO REPLY RESULT=OK VERSION=3.3\n").unwrap();
            // A check asks for nothing; the last connection says nothing at all.
            let Some(command) = lines.next() else { continue };
            if command.starts_with("SESSION CREATE ") {
                let reply = format!("SESSION STATUS RESULT=OK DESTINATION={}\n", private_keys(1, 2));
                stream.write_all(reply.as_bytes()).unwrap();
                sessions.push(stream);
                continue;
            }
            let reply = match command.split(' ').next() {
                Some("NAMING") => format!("NAMING REPLY RESULT=OK NAME=a.i2p VALUE={}\n", destination(3)),
                _ => "STREAM STATUS RESULT=OK\n".to_owned(),
            };
            // Neither an answer to no PING of ours nor an empty line means anything.
            let ahead = going.recv().unwrap() - reply.len();
            let pong = format!("PONG {}\n", "x".repeat(506));
            let all = pong.repeat(ahead / pong.len()) + &"\n".repeat(ahead % pong.len()) + &reply;
            stream.write_all(all.as_bytes()).unwrap();
            saying.send(()).unwrap();
            sessions.push(stream);
        }
    });
    let controller = try_controller(&format!("unix:{}", path.display()), &[]).unwrap();
    // Up to what the socket holds: on every system more than the reads of one step.
    let sizes = [1, 2, 3, 4, 8, 15, 16, 17, 31, 32, 33].map(|reads| reads * READ);
    for size in sizes {
        never_blocks_for_nothing(controller.lookup("a.i2p", LIMIT).unwrap(), &go, &said, size);
    }
    // A stream's header is looked at first and fetched second.
    let dest = open(&controller);
    for size in sizes {
        let connect = dest.connect(&destination(9), &Options::default(), LIMIT).unwrap();
        never_blocks_for_nothing(connect, &go, &said, size);
    }
    drop((dest, controller));
    drop(std::os::unix::net::UnixStream::connect(&path).unwrap());
    bridge.join().unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
}
