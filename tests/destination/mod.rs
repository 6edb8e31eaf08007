//! Destinations: names that keep their keys, and sessions that are opened again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod habits;
mod names;
mod no_router_yet;
mod recovery;
mod reopening;

use crate::common;
