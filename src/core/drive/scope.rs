//! Sockets that end together, as with their session or controller.

use std::sync::{Arc, Weak};

use crate::error::{Error, Operation};
use crate::sys::lock::{Rank, RankedMutex};
use crate::sys::SharedFd;

pub struct Scope {
    sockets: RankedMutex<Vec<Weak<SharedFd>>>,
    cause: RankedMutex<Option<Error>>,
}

impl Default for Scope {
    fn default() -> Self {
        Scope {
            sockets: RankedMutex::new(Rank::ScopeSockets, Vec::new()),
            cause: RankedMutex::new(Rank::ScopeCause, None),
        }
    }
}

impl Scope {
    /// Adds a socket, unless the scope has ended.
    pub fn add(&self, socket: &Arc<SharedFd>) -> std::result::Result<(), Error> {
        let mut sockets = self.sockets.lock();
        if let Some(cause) = self.cause() {
            return Err(cause);
        }
        // Drop dead entries before the list grows, so that the cost per socket stays constant.
        if sockets.len() == sockets.capacity() {
            sockets.retain(|known| known.strong_count() > 0);
            let live = sockets.len();
            sockets.reserve(live.max(8));
        }
        sockets.push(Arc::downgrade(socket));
        Ok(())
    }

    #[inline(never)]
    pub fn cause(&self) -> Option<Error> {
        self.cause.lock().clone()
    }

    /// The error for anything that is tried after the end.
    #[inline(never)]
    pub(crate) fn check(&self, operation: Operation) -> std::result::Result<(), Error> {
        match &*self.cause.lock() {
            Some(cause) => Err(cause.clone().during(operation)),
            None => Ok(()),
        }
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.cause.lock().is_some()
    }

    /// The sockets that carry payload and are still open and ours.
    pub(crate) fn carrying(&self) -> Vec<Arc<SharedFd>> {
        let open = |socket: &Arc<SharedFd>| socket.is_carrying() && !socket.is_ended() && !socket.is_taken();
        self.sockets.lock().iter().filter_map(Weak::upgrade).filter(open).collect()
    }

    /// Ends the scope; only the first cause counts. Sockets that already carry payload are left open unless `all` is
    /// set.
    pub fn end(&self, cause: Error, all: bool) {
        let sockets = self.sockets.lock();
        self.cause.lock().get_or_insert(cause);
        for socket in sockets.iter().filter_map(Weak::upgrade) {
            if all || !socket.is_carrying() {
                socket.end();
            }
        }
    }
}
