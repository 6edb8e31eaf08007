//! The program: its options, its one line of output, its end.
//!
//! A program of its own: a process that is just being started has the sockets of all other tests for a moment, so that no
//! bridge of theirs could be started again in its place.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use i2psock_bridge::destination::{generate, text};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const PROGRAM: &str = env!("CARGO_BIN_EXE_i2psock-bridge");

/// Kills the program when a test fails half-way.
struct Running {
    child: Child,
    port: u16,
    udp_port: u16,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(args: &[&str]) -> Running {
    let mut child = Command::new(PROGRAM)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let words: Vec<_> = line.trim_end().split(' ').collect();
    assert_eq!((words[0], words.len()), ("SAM", 3), "{line}");
    Running { child, port: words[1].parse().unwrap(), udp_port: words[2].parse().unwrap() }
}

/// Runs at ports below those that the system gives away: while the program is gone, nobody gets them by chance.
fn run_to_stay(args: &[&str]) -> Running {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let begin = std::process::id().wrapping_mul(7919);
    // Every test begins elsewhere, and so does every process.
    let mut ports = (0..50).map(|_| 12_000 + begin.wrapping_add(NEXT.fetch_add(31, Ordering::Relaxed)) % 9000 * 2);
    let free = |port: &u32| {
        TcpListener::bind(("127.0.0.1", *port as u16)).is_ok()
            && UdpSocket::bind(("127.0.0.1", *port as u16 + 1)).is_ok()
    };
    let port = ports.find(free).unwrap();
    let (port, udp_port) = (port.to_string(), (port + 1).to_string());
    run(&[&["--port", &port, "--udp-port", &udp_port], args].concat())
}

fn ask(running: &Running, lines: &[&str]) -> Vec<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", running.port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut replies = Vec::new();
    for line in lines {
        stream.write_all(format!("{line}\n").as_bytes()).unwrap();
        let mut reply = String::new();
        reader.read_line(&mut reply).unwrap();
        replies.push(reply.trim_end().to_string());
    }
    replies
}

#[test]
fn it_serves_until_its_input_ends() {
    let host = text(&generate(7).unwrap().public);
    let mut running = run(&[
        "--host",
        &format!("x.i2p={host}"),
        "--max-version=3.2",
        "--user",
        "u",
        "--password",
        "a secret",
        "--verbose",
    ]);
    let replies = ask(
        &running,
        &[
            "HELLO VERSION USER=u PASSWORD=\"a secret\"",
            "NAMING LOOKUP NAME=x.i2p",
            "SESSION CREATE STYLE=STREAM ID=a DESTINATION=TRANSIENT SIGNATURE_TYPE=7",
        ],
    );
    assert_eq!(replies[0], "HELLO REPLY RESULT=OK VERSION=3.2");
    assert_eq!(replies[1], format!("NAMING REPLY RESULT=OK NAME=x.i2p VALUE={host}"));
    let key = replies[2].split_once("DESTINATION=").unwrap().1;
    assert!(ask(&running, &["HELLO VERSION"])[0].contains("Authorization failed"));

    drop(running.child.stdin.take());
    let deadline = Instant::now() + Duration::from_secs(10);
    let status = loop {
        if let Some(status) = running.child.try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < deadline, "still running");
        std::thread::sleep(Duration::from_millis(5));
    };
    assert!(status.success());
    let mut log = String::new();
    let mut stderr = running.child.stderr.take().unwrap();
    stderr.read_to_string(&mut log).unwrap();
    assert!(log.contains("1 <- SESSION CREATE STYLE=STREAM ID=a DESTINATION=TRANSIENT"), "{log}");
    assert!(log.contains("1 -> SESSION STATUS RESULT=OK DESTINATION=<"), "{log}");
    assert!(!log.contains("a secret") && !log.contains(&key[..100]), "{log}");
    let mut output = String::new();
    let mut stdout = running.child.stdout.take().unwrap();
    stdout.read_to_string(&mut output).unwrap();
    assert_eq!(output, "", "more than one line");
}

#[test]
fn personality_and_faults_by_option() {
    let running = run(&["--personality", "i2pd-2.45", "--split", "3", "--no-stdin", "--port=0"]);
    let replies = ask(&running, &["HELLO VERSION MIN=3.0 MAX=3.3"]);
    assert_eq!(replies, ["HELLO REPLY RESULT=OK VERSION=3.0"]);
}

#[test]
fn datagrams_by_option() {
    let running = run_to_stay(&["--duplicate=100", "--forge", "100", "--seed", "5"]);
    let free = running.udp_port;
    assert_eq!(free, running.port + 1);
    let mut control = TcpStream::connect(("127.0.0.1", running.port)).unwrap();
    let mut reader = BufReader::new(control.try_clone().unwrap());
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let pair = generate(7).unwrap();
    let (public, blob, port) = (text(&pair.public), text(&pair.blob), udp.local_addr().unwrap().port());
    let create = format!("SESSION CREATE STYLE=RAW ID=a DESTINATION={blob} PORT={port}\n");
    for line in ["HELLO VERSION\n", create.as_str()] {
        control.write_all(line.as_bytes()).unwrap();
        let mut reply = String::new();
        reader.read_line(&mut reply).unwrap();
        assert!(reply.contains("RESULT=OK"), "{reply}");
    }
    udp.send_to(format!("3.0 a {public}\nhello").as_bytes(), ("127.0.0.1", free)).unwrap();
    let mut got: Vec<_> = (0..3)
        .map(|_| {
            let mut packet = [0; 100];
            let (n, from) = udp.recv_from(&mut packet).unwrap();
            (from.port() == free, packet[..n].to_vec())
        })
        .collect();
    got.sort();
    assert_eq!(got, [(false, b"forged".to_vec()), (true, b"hello".to_vec()), (true, b"hello".to_vec())]);
}

#[test]
fn killed_and_started_again_on_the_same_port() {
    let mut running = run_to_stay(&[]);
    let (port, udp_port) = (running.port.to_string(), running.udp_port.to_string());
    for _ in 0..5 {
        let mut client = TcpStream::connect(("127.0.0.1", running.port)).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        client.write_all(b"HELLO VERSION\n").unwrap();
        assert!(client.read(&mut [0; 100]).unwrap() > 0);
        running.child.kill().unwrap();
        running.child.wait().unwrap();
        // Its end, or the system's word for it.
        assert!(matches!(client.read(&mut [0; 100]), Ok(0) | Err(_)));
        running = run(&["--port", &port, "--udp-port", &udp_port]);
        assert_eq!(running.port.to_string(), port);
        assert_eq!(ask(&running, &["HELLO VERSION"]), ["HELLO REPLY RESULT=OK VERSION=3.3"]);
    }
}

/// Says a line to the program and returns its answer.
fn order(running: &mut Running, line: &str) -> String {
    running.child.stdin.as_mut().unwrap().write_all(format!("{line}\n").as_bytes()).unwrap();
    let mut answer = Vec::new();
    let mut byte = [0];
    while running.child.stdout.as_mut().unwrap().read(&mut byte).unwrap() == 1 && byte != *b"\n" {
        answer.push(byte[0]);
    }
    String::from_utf8(answer).unwrap()
}

#[test]
fn orders() {
    let mut running = run_to_stay(&[]);
    let connect = |running: &Running| TcpStream::connect(("127.0.0.1", running.port));
    let mut sessions: Vec<_> = ["a", "b", "c"]
        .map(|id| {
            let mut stream = connect(&running).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            for line in ["HELLO VERSION\n", &format!("SESSION CREATE STYLE=STREAM ID={id} DESTINATION=TRANSIENT\n")] {
                stream.write_all(line.as_bytes()).unwrap();
                let mut reply = String::new();
                reader.read_line(&mut reply).unwrap();
                assert!(reply.contains("RESULT=OK"), "{reply}");
            }
            reader
        })
        .into();
    assert_eq!(order(&mut running, "refuse"), "OK");
    assert!(connect(&running).is_err());
    assert_eq!(order(&mut running, "listen"), "OK");
    assert!(connect(&running).is_ok());
    assert_eq!(order(&mut running, "die b"), "OK");
    assert_eq!(order(&mut running, "die all"), "OK");
    assert_eq!(order(&mut running, "die nosuch"), "ERROR there is no session \"nosuch\"");
    let dead = "STREAM STATUS RESULT=I2P_ERROR MESSAGE=\"Session was closed\"";
    assert_eq!(ask(&running, &["HELLO VERSION", "STREAM CONNECT ID=b DESTINATION=x"])[1], dead);
    assert_eq!(order(&mut running, "kill b"), "OK");
    assert_eq!(order(&mut running, "kill b"), "ERROR there is no session \"b\"");
    assert_eq!(order(&mut running, "kill a announced"), "OK");
    assert_eq!(order(&mut running, "forget c"), "OK");
    assert_eq!(order(&mut running, "forget c"), "ERROR there is no session \"c\"");
    assert_eq!(ask(&running, &["HELLO VERSION", "STREAM ACCEPT ID=c"])[1], "STREAM STATUS RESULT=INVALID_ID");
    assert_eq!(order(&mut running, "kill all"), "OK");
    let last = sessions.iter_mut().map(|reader| {
        let mut last = String::new();
        reader.read_to_string(&mut last).unwrap();
        last
    });
    let announced = "SESSION STATUS RESULT=I2P_ERROR MESSAGE=\"Session is closed\"\n";
    assert_eq!(last.collect::<Vec<_>>(), [announced, "", ""]);
    for line in ["", "kill", "kill a loudly", "refuse all", "\u{fffd}"] {
        assert!(order(&mut running, line).starts_with("ERROR unknown order"), "{line:?}");
    }
    running.child.stdin.as_mut().unwrap().write_all(b"\xff\n").unwrap();
    assert!(order(&mut running, "listen").starts_with("ERROR"));
}

#[test]
fn recovery_by_option() {
    let running = run(&["--duplicated", "1", "--accepts-fail", "1", "--accepts-end", "2"]);
    let keys = text(&generate(7).unwrap().blob);
    let create = format!("SESSION CREATE STYLE=STREAM ID=a DESTINATION={keys}");
    assert_eq!(ask(&running, &["HELLO VERSION", &create])[1], "SESSION STATUS RESULT=DUPLICATED_DEST");
    let mut control = TcpStream::connect(("127.0.0.1", running.port)).unwrap();
    let mut reader = BufReader::new(control.try_clone().unwrap());
    for line in ["HELLO VERSION", &create] {
        control.write_all(format!("{line}\n").as_bytes()).unwrap();
        let mut reply = String::new();
        reader.read_line(&mut reply).unwrap();
        assert!(reply.contains("RESULT=OK"), "{reply}");
    }
    for last in ["STREAM STATUS RESULT=I2P_ERROR MESSAGE=\"on demand\"", ""] {
        let mut accept = TcpStream::connect(("127.0.0.1", running.port)).unwrap();
        accept.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        accept.write_all(b"HELLO VERSION\nSTREAM ACCEPT ID=a\n").unwrap();
        let mut all = String::new();
        accept.read_to_string(&mut all).unwrap();
        let lines: Vec<_> = all.lines().collect();
        assert_eq!(lines[1], "STREAM STATUS RESULT=OK");
        assert_eq!(lines.get(2).copied().unwrap_or_default(), last);
    }
    let busy = run(&["--duplicated-for=3600000"]);
    for _ in 0..3 {
        assert_eq!(ask(&busy, &["HELLO VERSION", &create])[1], "SESSION STATUS RESULT=DUPLICATED_DEST");
    }
}

/// A socket with a session of these keys, once the bridge has answered OK.
fn session(running: &Running, keys: &str) -> TcpStream {
    let mut control = TcpStream::connect(("127.0.0.1", running.port)).unwrap();
    control.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut reader = BufReader::new(control.try_clone().unwrap());
    for line in ["HELLO VERSION", &format!("SESSION CREATE STYLE=STREAM ID=a DESTINATION={keys}")] {
        control.write_all(format!("{line}\n").as_bytes()).unwrap();
        let mut reply = String::new();
        reader.read_line(&mut reply).unwrap();
        assert!(reply.contains("RESULT=OK"), "{reply}");
    }
    control
}

/// Waits until a STREAM command of the session `a` is answered like this.
fn becomes(running: &Running, wanted: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while ask(running, &["HELLO VERSION", "STREAM CONNECT ID=a DESTINATION=x"])[1] != wanted {
        assert!(Instant::now() < deadline, "{wanted}");
    }
}

#[test]
fn deaths_by_option() {
    let keys = text(&generate(7).unwrap().blob);
    let dies = run(&["--die-after", "1"]);
    let _control = session(&dies, &keys);
    becomes(&dies, "STREAM STATUS RESULT=I2P_ERROR MESSAGE=\"Session was closed\"");
    let forgets = run(&["--forget-after", "1"]);
    let _control = session(&forgets, &keys);
    becomes(&forgets, "STREAM STATUS RESULT=INVALID_ID");

    let keeps = run(&["--personality", "i2pd-2.45", "--keep-closed", "1000"]);
    drop(session(&keeps, &keys));
    let _control = session(&keeps, &keys);
    becomes(&keeps, "STREAM STATUS RESULT=INVALID_ID");
}

#[test]
fn refusals_and_keys_by_option() {
    let create = "SESSION CREATE STYLE=STREAM ID=a DESTINATION=TRANSIENT SIGNATURE_TYPE=7";
    let early = run(&["--no-manager", "3600000"]);
    assert!(ask(&early, &["HELLO VERSION", create])[1].ends_with(": No manager yet\""));
    let busy = run(&["--duplicated-after", "3600000"]);
    let keys = text(&generate(7).unwrap().blob);
    drop(session(&busy, &keys));
    let again = format!("SESSION CREATE STYLE=STREAM ID=b DESTINATION={keys}");
    assert_eq!(ask(&busy, &["HELLO VERSION", &again])[1], "SESSION STATUS RESULT=DUPLICATED_DEST");
    let old = run(&["--dsa-keys"]);
    let reply = &ask(&old, &["HELLO VERSION", create])[1];
    assert_eq!(reply.len(), "SESSION STATUS RESULT=OK DESTINATION=".len() + 884);
}

#[test]
fn help_and_wrong_options() {
    let output = Command::new(PROGRAM).arg("--help").output().unwrap();
    assert!(output.status.success());
    let help = String::from_utf8(output.stdout).unwrap();
    assert!(help.starts_with("Usage: i2psock-bridge"));
    for args in [
        &["--port"][..],
        &["--port", "65536"],
        &["--port", "x"],
        &["--personality", "none"],
        &["--max-version", "x"],
        &["--udp-port", "65536"],
        &["--loss", "101"],
        &["--duplicate", "-1"],
        &["--seed"],
        &["--duplicated=-1"],
        &["--keep-closed", "x"],
        &["--no-manager"],
        &["--die-after", "-1"],
        &["--forget-after", ""],
        &["--duplicated-after", "x"],
        &["--dsa-keys=1"],
        &["--accepts-end", "x"],
        &["--host", "x"],
        &["--user", "u"],
        &["--verbose=1"],
        &["--nosuch"],
        &["rubbish"],
    ] {
        let output = Command::new(PROGRAM).args(args).stdin(Stdio::null()).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(output.stdout.is_empty());
        assert!(output.stderr.starts_with(b"i2psock-bridge: "), "{args:?}");
    }
    let args = ["--host", "x.i2p=AAAA"];
    let output = Command::new(PROGRAM).args(args).stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
}
