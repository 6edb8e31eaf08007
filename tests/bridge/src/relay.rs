//! The byte pipe between two sockets.
//!
//! Each direction is pumped by the thread of the socket it reads. When one side closes, the other gets all that
//! had been sent, then its end of file; what it still writes is read and thrown away for a while, because closing
//! a socket with unread input would make the system drop what the client has not fetched yet.

use crate::conn::Conn;
use crate::shared::{lock, Shared};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

const BUFFER: usize = 128 * 1024;

#[derive(Default)]
struct LinkState {
    /// Both sides have got their header lines.
    ready: bool,
    ended: [bool; 2],
}

/// Two sockets that belong together: the connecting one and the accepting one.
pub(crate) struct Link {
    ends: [Arc<Conn>; 2],
    state: Mutex<LinkState>,
    changed: Condvar,
}

/// An end of a [`Link`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Connecting = 0,
    Accepting = 1,
}

impl Link {
    pub(crate) fn new(connecting: &Arc<Conn>, accepting: &Arc<Conn>) -> Arc<Self> {
        Arc::new(Self {
            ends: [Arc::clone(connecting), Arc::clone(accepting)],
            state: Mutex::new(LinkState::default()),
            changed: Condvar::new(),
        })
    }

    /// Lets the bytes flow.
    pub(crate) fn open(&self) {
        lock(&self.state).ready = true;
        self.changed.notify_all();
    }

    /// Pumps what comes from `side`, beginning with `initial`, until that side ends.
    pub(crate) fn run(&self, shared: &Shared, side: Side, initial: &[u8]) {
        let (from, to) = match side {
            Side::Connecting => (&self.ends[0], &self.ends[1]),
            Side::Accepting => (&self.ends[1], &self.ends[0]),
        };
        {
            // Whoever made the link opens it after at most two short writes, so this is no long wait.
            let mut state = lock(&self.state);
            while !state.ready {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
        pump(from, to, initial);
        to.finish_writing();
        from.flush();
        from.kill();
        let deadline = Instant::now() + shared.config.linger;
        let mut state = lock(&self.state);
        state.ended[side as usize] = true;
        self.changed.notify_all();
        while !state.ended[1 - side as usize] {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                break;
            };
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(state);
        shared.gate.pass();
        to.kill();
    }
}

fn pump(from: &Conn, to: &Conn, initial: &[u8]) {
    let _ = from.sock.set_read_timeout(None);
    // After a failed write the rest is still read: see above.
    let mut deaf = !initial.is_empty() && to.send(initial).is_err();
    let mut buffer = vec![0u8; BUFFER];
    while let Ok(n @ 1..) = from.sock.read(&mut buffer) {
        deaf = deaf || to.send(&buffer[..n]).is_err();
    }
}
