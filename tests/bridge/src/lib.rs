//! A scriptable SAM v3 bridge on loopback.
//!
//! It speaks the protocol that I2P routers offer to programs, but knows only its own sessions: what one program
//! connects to, another (or the same) accepts, all on this machine and without a router. Programs that use SAM
//! can be tested against it offline, against the habits of several routers ([`Personality`]) and against things
//! going wrong ([`Faults`]).
//!
//! ```
//! use i2psock_bridge::{Bridge, Config};
//! use std::io::{BufRead, BufReader, Write};
//!
//! let bridge = Bridge::start(Config::default())?;
//! let mut socket = std::net::TcpStream::connect(bridge.addr())?;
//! socket.write_all(b"HELLO VERSION MIN=3.1 MAX=3.3\n")?;
//! let mut reply = String::new();
//! BufReader::new(&socket).read_line(&mut reply)?;
//! assert_eq!(reply, "HELLO REPLY RESULT=OK VERSION=3.3\n");
//! assert_eq!(bridge.texts(), ["HELLO VERSION MIN=3.1 MAX=3.3"]);
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! Faults can be set before the start ([`Config::faults`]) and while the bridge runs:
//!
//! ```
//! use i2psock_bridge::{Action, Bridge, Config, Reply, Split};
//! use std::time::Duration;
//!
//! let bridge = Bridge::start(Config::default())?;
//! let faults = bridge.faults();
//! // Every reply arrives byte by byte ...
//! faults.split(Split::Every { bytes: 1, gap: Duration::ZERO });
//! // ... and the next CONNECT fails.
//! faults.once(
//!     Reply::StreamConnect,
//!     Action::replace_and_close("STREAM STATUS RESULT=TIMEOUT\n"),
//! );
//! # Ok::<(), std::io::Error>(())
//! ```

mod bridge;
mod config;
mod conn;
pub mod destination;
pub mod encoding;
mod faults;
mod forward;
mod handler;
mod hello;
mod keepalive;
mod line;
mod naming;
mod relay;
mod session;
mod sha256;
mod shared;
mod stream;

pub use bridge::{Bridge, SessionInfo};
pub use config::{Config, Personality, Version};
pub use faults::{Action, FaultConfig, Faults, Pong, Reply, Rule, Split, Which};
pub use sha256::sha256;
pub use shared::Line;
