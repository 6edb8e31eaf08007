//! The limits of a tunnel.

use std::time::Duration;

use crate::core::settings::Options;

/// Limits of a tunnel.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at a time; those above wait.
    pub connections: usize,
    /// How long one may last, whatever it does.
    pub life: Option<Duration>,
    /// How long one may last without a byte.
    pub idle: Option<Duration>,
    /// Bytes of one direction that may be on their way.
    pub buffer: usize,
    /// Whether bytes may stay in the kernel.
    pub splice: bool,
}

impl Limits {
    /// From options; `life` unless they say something else.
    pub fn new(options: &Options, life: Option<Duration>) -> Self {
        let time = |key: &str, default: Option<Duration>| match options.text(key) {
            None => default,
            Some("-1") => None,
            Some(_) => options.duration(key),
        };
        Limits {
            connections: options.number("nconnect").unwrap_or(usize::MAX),
            life: time("timeout", life),
            idle: time("idle_timeout", None),
            buffer: options.number("buffer_size").unwrap_or(1 << 17),
            splice: options.text("splice") != Some("0"),
        }
    }
}
