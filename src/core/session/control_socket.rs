//! The sole owner of a session's control socket: reads it, answers PINGs, sends one command at a time.

use std::os::fd::AsRawFd;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::core::bridge::{AnswerSlot, Finished, Place};
use crate::core::drive::{Attended, Deadline};
use crate::core::session::datagram_port::DatagramPort;
use crate::core::session::lookup_ticket::{watch_both, Slots, Ticket};
use crate::error::{Error, Operation, Result, Status};
use crate::identity::Address;
use crate::protocol::command::Command;
use crate::protocol::control::{Answer, Control, Event, LIFE};
use crate::protocol::heartbeat::{Heartbeat, Verdict};
use crate::protocol::outbox::Outbox;
use crate::protocol::trace::Trace;
use crate::secret::Gathered;
use crate::sys::{self, SharedFd};

/// What one run may read before others get a turn: bytes, and messages such as datagrams, which cost more. A run ends
/// with the read that reaches one of them.
const BYTES_PER_RUN: usize = 1 << 16;
const EVENTS_PER_RUN: usize = 256;

/// Bytes of datagrams that may be queued for the control socket.
const MAX_QUEUED: usize = 1 << 18;

/// A control socket and the conversation on it.
pub(crate) struct ControlSocket {
    socket: Option<Arc<SharedFd>>,
    control: Control,
    slots: Slots,
    last_number: u64,
    /// Bytes read together with the reply that created the session.
    surplus: Gathered,
    heartbeat: Heartbeat,
    outlet: Outlet,
    /// Where to deliver datagrams that arrive on the control socket.
    port: Option<Arc<DatagramPort>>,
}

/// Whether the router takes what it is sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outlet {
    Open,
    /// The socket is full.
    Full,
    /// It was full, and then took more: the router reads, even if it has no time to say anything.
    Drained,
}

impl ControlSocket {
    /// Takes over the connection that created a session. The router is asked for a sign of life when it was silent for
    /// `heartbeat`, if that is set.
    pub(crate) fn of_session(
        created: Finished,
        own: &Address,
        port: Option<Arc<DatagramPort>>,
        heartbeat: Option<Duration>,
        now: Instant,
    ) -> Self {
        let control = |output| Control::with_output(output).of(own.clone());
        ControlSocket::new(created, control, port, Heartbeat::new(heartbeat, now))
    }

    /// Takes over the connection that created a forward. No commands are possible there.
    pub(crate) fn of_forward(created: Finished, now: Instant) -> Self {
        ControlSocket::new(created, Control::of_forward, None, Heartbeat::new(None, now))
    }

    fn new(
        created: Finished,
        control: impl FnOnce(Outbox) -> Control,
        port: Option<Arc<DatagramPort>>,
        heartbeat: Heartbeat,
    ) -> Self {
        // Keeps the controller's scope from ending it: the session does that, after reporting why to all waiters.
        created.socket.set_carrying();
        ControlSocket {
            socket: Some(created.socket),
            control: control(created.unsent).hiding(created.hidden),
            slots: Slots::new(),
            last_number: LIFE,
            surplus: created.surplus,
            heartbeat,
            outlet: Outlet::Open,
            port,
        }
    }

    /// The socket and the events to wait for; `None` once it is closed.
    pub(crate) fn awaited(&self) -> Option<Attended> {
        self.socket.as_ref().map(|socket| (Arc::clone(socket), self.events()))
    }

    /// The events to wait for on the socket.
    pub(crate) fn events(&self) -> i16 {
        if self.control.output().is_empty() {
            sys::IN
        } else {
            sys::IN | sys::OUT
        }
    }

    pub(crate) fn trace(&mut self) -> &mut Trace {
        &mut self.control.trace
    }

    /// Whether no lookup is queued or unanswered.
    pub(crate) fn is_idle(&self) -> bool {
        self.control.is_idle()
    }

    /// Queues a lookup. With `watched`, the ticket has a watch for callers without a keeper.
    pub(crate) fn lookup(&mut self, name: &str, place: Option<Place>, watched: bool, now: Instant) -> Result<Ticket> {
        let slot = Arc::new(AnswerSlot::new(place.map(|place| Box::new(place) as Box<dyn Send>))?);
        // Created here, under the lock, so that the socket cannot be closed in between.
        let watch = match self.awaited().filter(|_| watched) {
            Some((control, events)) => Some(watch_both(&slot, &control, events)?),
            None => None,
        };
        self.last_number += 1;
        let number = self.last_number;
        self.control.lookup(number, name)?;
        self.slots.insert(number, Arc::downgrade(&slot));
        self.observe(now);
        self.write();
        Ok(Ticket { number, slot, watch })
    }

    /// Queues a datagram. Returns `false` if too much is queued already.
    pub(crate) fn send_datagram(&mut self, command: &Command, payload: &[u8]) -> bool {
        let room = self.control.unsent() < MAX_QUEUED;
        if room {
            self.control.send_datagram(command, payload);
            self.write();
        }
        room
    }

    /// Cancels a lookup.
    pub(crate) fn forget(&mut self, number: u64) {
        self.slots.remove(&number);
        self.control.forget(number);
    }

    /// When it has to run even without an event.
    pub(crate) fn deadline(&self) -> Deadline {
        self.socket.as_ref().and_then(|_| self.heartbeat.deadline())
    }

    fn observe(&mut self, now: Instant) {
        if self.outlet == Outlet::Drained {
            self.outlet = Outlet::Open;
            self.heartbeat.heard(now);
        }
        self.heartbeat.observe(self.control.asking(), self.control.announced().is_some(), now);
    }

    /// Gets as far as possible without blocking. Returns the cause once the session is lost.
    pub(crate) fn run(&mut self, now: Instant) -> Option<Error> {
        let socket = self.socket.clone()?;
        let mut events = Vec::new();
        let mut end = None;
        let surplus = self.surplus.take();
        if let Err(error) = self.control.input(surplus.as_bytes(), &mut events) {
            end = Some(error);
        }
        let mut buffer = [0; 4096];
        let mut left = BYTES_PER_RUN;
        while end.is_none() && left > 0 && events.len() < EVENTS_PER_RUN {
            match sys::recv(socket.as_raw_fd(), &mut buffer, sys::MSG_DONTWAIT) {
                Err(error) if sys::would_block(&error) => break,
                Err(error) => end = Some(gone(&error.to_string())),
                Ok(0) => {
                    self.control.eof(&mut events);
                    end = Some(gone("the router closed it"));
                }
                Ok(count) => {
                    self.heartbeat.heard(now);
                    left = left.saturating_sub(count);
                    end = self.control.input(buffer.get(..count).unwrap_or_default(), &mut events).err();
                    // Write between reads, so that a bridge waiting for a PONG gets it at once.
                    self.write();
                    // That was all there is, or nearly always so: what comes after it is an event of its own. Behind
                    // the answer to a command or the announcement of the end, however, there may be the end itself.
                    if count < buffer.len() && events.is_empty() && self.control.announced().is_none() {
                        break;
                    }
                }
            }
        }
        sys::wipe(&mut buffer);
        if let Some(port) = &self.port {
            port.set_skipped(self.control.skipped());
        }
        for event in events {
            match event {
                Event::Found(number, answer) => self.deliver(number, answer),
                Event::Forgotten(error) => end = end.or(Some(error)),
                Event::Datagram(packet) => {
                    if let Some(port) = &self.port {
                        port.feed(&packet);
                    }
                }
            }
        }
        self.write();
        // The bridge's announcement explains more than the mere end of the connection.
        let end = end.map(|error| self.control.announced().cloned().unwrap_or(error)).or_else(|| self.judge(now));
        self.write();
        end
    }

    /// Judges by what has arrived so far whether the session is still alive.
    fn judge(&mut self, now: Instant) -> Option<Error> {
        self.observe(now);
        match self.heartbeat.verdict(now) {
            Verdict::Alive => None,
            Verdict::Ask => {
                let failed = self.control.ask_for_life().err();
                self.observe(now);
                failed
            }
            Verdict::Silent(time) => Some(Error::new(
                Status::Timeout,
                Operation::Session,
                format!("the session was lost: the router has not answered for {} s", time.as_secs()),
            )),
            Verdict::Ended => self.control.announced().cloned(),
        }
    }

    fn deliver(&mut self, number: u64, answer: Answer) {
        if let Some(slot) = self.slots.remove(&number).as_ref().and_then(Weak::upgrade) {
            slot.put(answer);
        }
    }

    fn write(&mut self) {
        let Some(socket) = &self.socket else { return };
        while !self.control.output().is_empty() {
            match sys::send_now(socket.as_raw_fd(), self.control.output()) {
                Ok(count) => {
                    self.control.wrote(count);
                    if self.outlet == Outlet::Full {
                        self.outlet = Outlet::Drained;
                    }
                }
                // If it is full, retry later; if it is broken, reading will show that.
                Err(_) => {
                    if self.outlet == Outlet::Open {
                        self.outlet = Outlet::Full;
                    }
                    break;
                }
            }
        }
    }

    /// Closes the control socket and answers all pending lookups with `cause`.
    pub(crate) fn close(&mut self, cause: &Error) {
        // The descriptor is closed when its last user drops it, so its number is not reused while one still polls it.
        if let Some(socket) = self.socket.take() {
            socket.end();
        }
        for (_, slot) in self.slots.drain() {
            if let Some(slot) = slot.upgrade() {
                slot.put(Answer { result: Err(cause.clone().during(Operation::Lookup)), fields: None });
            }
        }
    }
}

fn gone(why: &str) -> Error {
    Error::closed(Operation::Session, format!("the session was lost: its connection to the router ended ({why})"))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::OwnedFd;
    use std::os::unix::net::{UnixDatagram, UnixStream};

    use super::*;
    use crate::protocol::request::Outcome;
    use crate::protocol::version::Version;

    fn control_socket(ours: impl Into<OwnedFd>) -> ControlSocket {
        let created = Finished {
            outcome: Outcome::Checked,
            socket: Arc::new(SharedFd::new(ours.into())),
            version: Version::V3_3,
            surplus: Default::default(),
            hidden: Default::default(),
            unsent: Default::default(),
        };
        let own = Address::from_bytes(&[&[1; 384][..], &[5, 0, 4, 0, 7, 0, 0]].concat()).unwrap();
        ControlSocket::of_session(created, &own, None, None, Instant::now())
    }

    fn pair() -> (ControlSocket, UnixStream) {
        let (ours, bridge) = UnixStream::pair().unwrap();
        bridge.set_nonblocking(true).unwrap();
        (control_socket(ours), bridge)
    }

    /// What the bridge has got since it last looked.
    fn received(bridge: &mut UnixStream) -> String {
        let mut bytes = Vec::new();
        assert_eq!(bridge.read_to_end(&mut bytes).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_flood_of_pings_is_answered_in_turns() {
        let (mut control, mut bridge) = pair();
        let flood = "PING 1\n".repeat(20_000);
        bridge.write_all(flood.as_bytes()).unwrap();
        let (mut answers, mut runs) = (0, 0);
        while answers < flood.len() {
            assert_eq!(control.run(Instant::now()), None);
            let turn = received(&mut bridge).len();
            assert!((1..=BYTES_PER_RUN + 4096).contains(&turn), "{turn}");
            (answers, runs) = (answers + turn, runs + 1);
        }
        assert_eq!((answers, runs), (flood.len(), flood.len().div_ceil(BYTES_PER_RUN)));
    }

    #[test]
    fn a_flood_of_datagrams_is_taken_in_turns() {
        let (mut control, mut bridge) = pair();
        let datagram = "RAW RECEIVED SIZE=1\nx";
        let flood = datagram.repeat(3000) + "PING end\n";
        assert!(flood.len() < BYTES_PER_RUN);
        bridge.write_all(flood.as_bytes()).unwrap();
        let mut runs = 0;
        while received(&mut bridge) != "PONG end\n" {
            assert_eq!(control.run(Instant::now()), None);
            runs += 1;
            assert!(runs < 1000);
        }
        let most = EVENTS_PER_RUN + 4096usize.div_ceil(datagram.len());
        assert!(runs >= 3000usize.div_ceil(most), "{runs} runs");
    }

    /// A socket that keeps writes apart shows what one write has.
    #[test]
    fn pongs_are_one_write_and_a_command_is_another() {
        let (ours, bridge) = UnixDatagram::pair().unwrap();
        bridge.set_nonblocking(true).unwrap();
        let mut control = control_socket(ours);
        let write = || {
            let mut buffer = [0; 8192];
            bridge.recv(&mut buffer).map(|count| String::from_utf8(buffer[..count].to_vec()).unwrap()).ok()
        };
        bridge.send("PING 1\n".repeat(500).as_bytes()).unwrap();
        assert_eq!(control.run(Instant::now()), None);
        assert_eq!((write(), write()), (Some("PONG 1\n".repeat(500)), None));
        let _a = control.lookup("a.i2p", None, false, Instant::now()).unwrap();
        let _b = control.lookup("b.i2p", None, false, Instant::now()).unwrap();
        assert_eq!((write(), write()), (Some("NAMING LOOKUP NAME=a.i2p\n".to_owned()), None));
        bridge.send(b"PING 2\nNAMING REPLY RESULT=KEY_NOT_FOUND NAME=a.i2p\nPING 3\nPING 4\n").unwrap();
        assert_eq!(control.run(Instant::now()), None);
        let writes = ["PONG 2\n", "NAMING LOOKUP NAME=b.i2p\n", "PONG 3\nPONG 4\n"];
        assert_eq!([write(), write(), write()], writes.map(|text| Some(text.to_owned())));
    }

    /// A router that is busy with many datagrams does not get to the question for a sign of life, which is behind them.
    #[test]
    fn a_router_that_reads_what_it_is_sent_is_alive() {
        let (ours, mut bridge) = UnixStream::pair().unwrap();
        bridge.set_nonblocking(true).unwrap();
        let (start, minute) = (Instant::now(), Duration::from_secs(60));
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut control = control_socket(ours);
        control.heartbeat = Heartbeat::new(Some(minute), start);
        let own = Address::from_bytes(&[&[1; 384][..], &[5, 0, 4, 0, 7, 0, 0]].concat()).unwrap();
        let command = crate::protocol::command::datagram_send("RAW", &own, 9000, &Default::default()).unwrap();
        let fill = |control: &mut ControlSocket| while control.send_datagram(&command, &[0; 9000]) {};
        fill(&mut control);
        assert_eq!((control.run(at(60)), control.deadline()), (None, Some(at(90))));
        let mut taken = vec![0; 1 << 16];
        for seconds in [80, 100, 120] {
            let mut left = taken.len();
            while left > 0 {
                left -= bridge.read(&mut taken[..left]).unwrap();
            }
            assert_eq!((control.run(at(seconds)), control.deadline()), (None, Some(at(seconds + 30))));
            fill(&mut control);
        }
        assert_eq!(control.run(at(149)), None);
        assert_eq!(control.run(at(150)).unwrap().status, Status::Timeout);
    }

    /// No second read behind a PING, but behind an answer or an announcement, so that the end shows together with it.
    #[test]
    fn the_end_is_looked_for_where_it_is_likely() {
        let (mut control, mut bridge) = pair();
        bridge.write_all(b"PING\n").unwrap();
        bridge.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(control.run(Instant::now()), None);
        assert!(control.run(Instant::now()).is_some());
        let (mut control, mut bridge) = pair();
        bridge.write_all(b"SESSION STATUS RESULT=I2P_ERROR MESSAGE=\"Restart\"\n").unwrap();
        bridge.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(control.run(Instant::now()).is_some_and(|error| error.message.contains("Restart")));
    }
}
