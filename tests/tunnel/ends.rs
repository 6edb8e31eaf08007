//! The end of a connection: what was sent before it is delivered, and nothing is kept for ever.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::common::*;
use super::{address, both, call, count, local, reach, try_client, try_server, Far, Server};
use i2psock::core::settings::Options;
use i2psock_bridge::Bridge;

/// A web server closes after its answer, which must be complete.
#[test]
fn an_answer_before_the_end_is_delivered() {
    let bridge = Bridge::start(patient()).unwrap();
    let controller = controller(&bridge);
    let target = Server::start(|mut stream| {
        let mut request = [0; 5];
        stream.read_exact(&mut request).unwrap();
        stream.write_all(&vec![b'a'; 700_000]).unwrap();
    });
    let (_server, client) = both(&controller, &target, &[]);
    for _ in 0..5 {
        let mut stream = call(&client);
        stream.write_all(b"GET /").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert_eq!(answer.len(), 700_000);
    }
}

fn far_pair() -> (UnixStream, UnixStream) {
    let (far, target) = UnixStream::pair().unwrap();
    target.set_read_timeout(Some(LONG)).unwrap();
    target.set_write_timeout(Some(LONG)).unwrap();
    (far, target)
}

/// Writes until nothing more fits for a while, and says how much did.
fn stuff(stream: &impl AsRawFd) -> usize {
    let (mut sent, mut quiet) = (0, 0);
    while quiet < 20 {
        match i2psock::sys::send_now(stream.as_raw_fd(), &[b'a'; 10_000]) {
            Ok(count) => (sent, quiet) = (sent + count, 0),
            Err(_) => {
                quiet += 1;
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
    sent
}

/// A client that says all it has to say and ends its half: the connection ends, but not before what is there already.
#[test]
fn an_answer_that_is_there_already_is_delivered() {
    let (far, mut target) = far_pair();
    let (mut far, (release, wait)) = (Some(far), mpsc::channel::<()>());
    let (tunnel, address) = local(
        move || {
            wait.recv_timeout(LONG).unwrap();
            Ok(Far::Socket(far.take().unwrap().into()))
        },
        &[],
    );
    let mut stream = reach(address);
    stream.write_all(b"request").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    target.write_all(&[b'a'; 100_000]).unwrap();
    release.send(()).unwrap();
    let (mut answer, mut request) = (Vec::new(), Vec::new());
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!(answer.len(), 100_000);
    target.read_to_end(&mut request).unwrap();
    assert_eq!(request, b"request");
    assert_eq!(count(&tunnel, |c| &c.bytes_in), 100_000);
}

/// A server that answers the beginning of an upload with an error and closes, which resets the rest of it.
#[test]
fn an_answer_to_half_a_request_is_delivered() {
    let (far, target) = far_pair();
    let mut far = Some(far);
    let (_tunnel, address) = local(move || Ok(Far::Socket(far.take().unwrap().into())), &[]);
    let mut stream = reach(address);
    let mut uploading = stream.try_clone().unwrap();
    let upload = std::thread::spawn(move || drop(uploading.write_all(&vec![1; 50 << 20])));
    let mut first = [0];
    (&target).read_exact(&mut first).unwrap();
    // As much as there is room for all the way; the client reads none of it yet.
    let sent = stuff(&target);
    drop(target);
    let mut got = 0;
    let mut buffer = vec![0; 10_000];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        got += count;
    }
    assert_eq!(got, sent);
    upload.join().unwrap();
}

/// Sends what there is room for all the way to a target that does not read, and resets the connection. `far` is the
/// tunnel's end of the connection to the target.
fn leave_amid_a_request(address: SocketAddr, far: UnixStream, mut target: &UnixStream) {
    let stream = reach(address);
    let is_full = || i2psock::sys::poll_one(far.as_raw_fd(), i2psock::sys::OUT, 0).unwrap() == 0;
    wait_until("it is full up to the target", || {
        let full = is_full();
        stuff(&stream);
        full
    });
    drop(far);
    // What is closed with something unread is reset.
    target.write_all(b"x").unwrap();
    assert_eq!(stream.peek(&mut [0]).unwrap(), 1);
}

/// A target that reads late still gets what has come so far.
#[test]
fn what_was_on_its_way_is_delivered_after_a_reset() {
    let (far, mut target) = far_pair();
    let ours = far.try_clone().unwrap();
    let mut far = Some(far);
    let (tunnel, address) = local(move || Ok(Far::Socket(far.take().unwrap().into())), &[]);
    leave_amid_a_request(address, ours, &target);
    let delivered = count(&tunnel, |c| &c.bytes_out);
    let mut got = Vec::new();
    target.read_to_end(&mut got).unwrap();
    assert!(got.len() as u64 > delivered + 65_536, "{} after {delivered}", got.len());
    wait_until("it is over", || count(&tunnel, |c| &c.now) == 0);
    assert!(tunnel.next_error().is_none());
}

/// Whoever has ended in good order and long ago: all of it is there for a reader that takes a break.
#[test]
fn a_reader_that_takes_a_break_loses_nothing() {
    let bridge = Bridge::start(patient()).unwrap();
    let controller = controller(&bridge);
    let size = 20 << 20;
    let target = Server::start(move |mut stream| stream.write_all(&vec![b'a'; size]).unwrap());
    let (_server, client) = both(&controller, &target, &[]);
    // Less room than the bridge and the tunnels have.
    let path = std::env::temp_dir().join(format!("i2psock-tunnel-{}", std::process::id()));
    let listener = UnixListener::bind(&path).unwrap();
    let near = try_server(&controller, path.to_str().unwrap(), &Options::default()).unwrap();
    let far = try_client(&controller, "0", &address(&near), &Options::default()).unwrap();
    let mut download = call(&client);
    let mut upload = call(&far);
    upload.write_all(&[b'b'; 300_000]).unwrap();
    drop(upload);
    let mut uploaded = bounded("accepting", move || listener.accept().unwrap().0);
    std::fs::remove_file(&path).unwrap();
    uploaded.set_read_timeout(Some(LONG)).unwrap();
    // How long the break may be is tested beside the code; here it lasts until all is on its way.
    wait_until("all is on its way", || count(&far, |c| &c.bytes_out) == 300_000);
    for (reader, size) in [(&mut download as &mut dyn Read, size), (&mut uploaded, 300_000)] {
        let mut got = Vec::new();
        reader.read_to_end(&mut got).unwrap();
        assert_eq!(got.len(), size);
    }
    assert!(near.next_error().is_none() && client.next_error().is_none());
}

/// A target that goes on talking to somebody who has left does not keep us busy.
#[test]
fn a_target_that_never_stops_is_stopped() {
    let (far, mut target) = far_pair();
    let mut far = Some(far);
    let (_tunnel, address) = local(move || Ok(Far::Socket(far.take().unwrap().into())), &[]);
    drop(reach(address));
    assert_eq!(target.read(&mut [0]).unwrap(), 0);
    let start = Instant::now();
    while target.write_all(&[0; 10_000]).is_ok() {
        assert!(start.elapsed() < SOON, "it is still listened to");
    }
}
