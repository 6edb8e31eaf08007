//! A tunnel's connections from when both sides are there until they are closed.

use std::sync::atomic::Ordering;

use crate::core::drive::{after, passed};
use crate::core::relay::{End, Flowed, Linger, PATIENCE};
use crate::core::tunnel::connection::{Connection, Served, Stage};
use crate::core::tunnel::event_loop::{system, EventLoop};
use crate::error::{Error, Operation, Result, Status};
use crate::sys;

impl EventLoop {
    /// Both sides are there: bytes may go.
    pub(super) fn join(&mut self, id: u64, link: &mut Connection, far: End) -> Result<Served> {
        sys::set_urgent_inline(far.fd());
        if let Some(near) = &link.near {
            sys::set_urgent_inline(near.fd());
            self.selector.add_changes(near.fd(), id * 2).map_err(system)?;
        }
        self.selector.add_changes(far.fd(), id * 2 + 1).map_err(system)?;
        link.stage = Stage::Open(far);
        link.idle_until = after(self.limits.idle);
        Ok(Served::Again)
    }

    pub(super) fn relay(&mut self, id: u64, link: &mut Connection) -> Served {
        let before = link.outward.moved + link.inward.moved;
        let outward = self.flow(link, true, self.turn);
        let inward = self.flow(link, false, self.turn);
        if link.outward.moved + link.inward.moved != before {
            link.idle_until = after(self.limits.idle);
            link.given_up = None;
        }
        if !link.is_stuck() {
            link.given_up = None;
        } else if passed(link.given_up) {
            let text = "one end was reset, and the other one does not take what it had sent";
            self.shared.remember(Error::new(Status::Closed, Operation::Send, text));
            return Served::Over;
        } else if link.given_up.is_none() {
            link.given_up = after(Some(PATIENCE));
        }
        match (outward, inward) {
            (Flowed::Ended, _) => self.part(id, link, true),
            (_, Flowed::Ended) => self.part(id, link, false),
            (Flowed::Refused, Flowed::Refused) => Served::Over,
            (Flowed::Goes, _) | (_, Flowed::Goes) => Served::Again,
            _ => Served::Stays,
        }
    }

    /// Moves bytes one way.
    fn flow(&mut self, link: &mut Connection, outward: bool, budget: usize) -> Flowed {
        let (Some(near), Stage::Open(far)) = (&link.near, &link.stage) else { return Flowed::Refused };
        let (flow, from, to, count) = match outward {
            true => (&mut link.outward, near.fd(), far.fd(), &self.shared.counts.bytes_out),
            false => (&mut link.inward, far.fd(), near.fd(), &self.shared.counts.bytes_in),
        };
        let before = flow.moved;
        let flowed = flow.run(from, to, &mut self.carriers, budget);
        count.fetch_add(flow.moved - before, Ordering::Relaxed);
        flowed
    }

    /// One side has ended and the other has been given all it had sent: that one may still read it in peace.
    fn part(&mut self, id: u64, link: &mut Connection, near_ended: bool) -> Served {
        let (Some(near), Stage::Open(far)) = (&link.near, &link.stage) else { return Served::Over };
        let in_order = !link.is_reset(near_ended);
        // What the other one had sent before goes as far as it goes without waiting.
        let (held, left) = if near_ended { (link.inward.held(), far.fd()) } else { (link.outward.held(), near.fd()) };
        let budget = held.saturating_add(sys::unread(left).unwrap_or(0));
        self.selector.remove(near.fd());
        self.selector.remove(far.fd());
        if budget > 0 {
            self.flow(link, !near_ended, budget);
        }
        link.outward.stop(&mut self.carriers);
        link.inward.stop(&mut self.carriers);
        let (near, stage) = (link.near.take(), std::mem::replace(&mut link.stage, Stage::Gone));
        let (Some(near), Stage::Open(far)) = (near, stage) else { return Served::Over };
        let (ended, left) = if near_ended { (near, far) } else { (far, near) };
        ended.end();
        let farewell = Linger::new(left, in_order);
        // Without memory for it, it is looked at later.
        drop(self.selector.add_changes(farewell.end().fd(), id * 2));
        link.stage = Stage::Linger(farewell);
        Served::Again
    }

    /// Closes what is left of a connection.
    pub(super) fn forget(&mut self, mut link: Connection) {
        link.outward.stop(&mut self.carriers);
        link.inward.stop(&mut self.carriers);
        if let Stage::Pending(pending) = &link.stage {
            self.selector.remove(pending.fd());
        }
        let far = match &link.stage {
            Stage::Connecting(end, _) | Stage::Open(end) => Some(end),
            Stage::Linger(farewell) => Some(farewell.end()),
            Stage::Pending(_) | Stage::Gone => None,
        };
        for end in link.near.iter().chain(far) {
            self.selector.remove(end.fd());
            end.end();
        }
    }
}
