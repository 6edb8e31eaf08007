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
//! Datagrams, DATAGRAM, DATAGRAM2, DATAGRAM3 and RAW, go by UDP as they do on a router: clients send to
//! [`Bridge::udp_addr`], and the bridge forwards from there. Without a forward port they come on the control
//! socket, where the personality has that; 256 of them wait for a client that does not read, and what comes then is
//! dropped. Otherwise nothing gets lost unless it is told to, or a client is slower than its own UDP socket allows:
//!
//! ```
//! use i2psock_bridge::{Bridge, Config};
//! use std::io::{BufRead, BufReader, Write};
//!
//! let bridge = Bridge::start(Config::default())?;
//! let mut socket = std::net::TcpStream::connect(bridge.addr())?;
//! let udp = std::net::UdpSocket::bind("127.0.0.1:0")?;
//! let port = udp.local_addr()?.port();
//! let mut reader = BufReader::new(socket.try_clone()?);
//! let mut reply = String::new();
//! socket.write_all(b"HELLO VERSION MIN=3.1 MAX=3.1\n")?;
//! reader.read_line(&mut reply)?;
//! let options = "ID=me DESTINATION=TRANSIENT SIGNATURE_TYPE=7";
//! socket.write_all(format!("SESSION CREATE STYLE=DATAGRAM {options} HOST=127.0.0.1 PORT={port}\n").as_bytes())?;
//! reader.read_line(&mut reply)?;
//!
//! let me = bridge.sessions()[0].destination.clone();
//! udp.send_to(format!("3.0 me {me}\nhello").as_bytes(), bridge.udp_addr())?;
//! let mut packet = [0; 2048];
//! let (n, from) = udp.recv_from(&mut packet)?;
//! assert_eq!(&packet[..n], format!("{me}\nhello").as_bytes());
//! assert_eq!(from, bridge.udp_addr());
//! assert_eq!(bridge.datagram_counts().sent, 1);
//!
//! // From now on every second one or so gets lost, the same ones in every run.
//! bridge.faults().seed(1);
//! bridge.faults().loss(50);
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
mod datagram;
pub mod destination;
pub mod encoding;
mod faults;
mod forward;
mod gate;
mod handler;
mod hello;
mod keepalive;
mod life;
mod line;
mod naming;
mod relay;
mod session;
mod sha256;
mod shared;
mod stream;
mod style;
mod trouble;
mod udp;

pub use bridge::{Bridge, SessionInfo};
pub use config::{Config, Personality, Version};
pub use datagram::DatagramCounts;
pub use faults::{Action, FaultConfig, Faults, Pong, Reply, Rule, Split, Which};
pub use sha256::sha256;
pub use shared::Line;
pub use style::Style;
