//! The habits in which routers differ: streams.

use crate::common::*;
use i2psock_bridge::{Bridge, Config, Personality};
use std::time::Duration;

const I2PD: [Personality; 2] = [Personality::I2pd245, Personality::I2pd258];
const JAVA: Personality = Personality::Java;
const EMISSARY: Personality = Personality::Emissary;

fn start(personality: Personality) -> (Bridge, Client, Client) {
    two_sessions(Config::with_personality(personality))
}

fn connect_line(destination: &str) -> String {
    format!("STREAM CONNECT ID=b DESTINATION={destination}")
}

#[test]
fn the_same_stream_works_everywhere() {
    for personality in Personality::ALL {
        let (bridge, _a, _b) = start(personality);
        let (mut connected, mut accepted) = stream(&bridge);
        connected.write("hello");
        assert_eq!(accepted.exact(5), b"hello", "{personality}");
        accepted.write(pattern(300_000, 1));
        drop(accepted);
        assert!(connected.rest() == pattern(300_000, 1), "{personality}");
    }
}

#[test]
fn the_peer_line() {
    for personality in Personality::ALL {
        let (bridge, _a, _b) = start(personality);
        let mut accepted = Client::accept(&bridge, "a");
        let mut connected = Client::new(&bridge);
        let to = bridge.session("a").unwrap().destination;
        connected.ask(&format!("{} FROM_PORT=7 TO_PORT=8", connect_line(&to)));
        let ports = if personality == JAVA { " FROM_PORT=7 TO_PORT=8" } else { "" };
        let from = bridge.session("b").unwrap().destination;
        assert_eq!(accepted.line(), format!("{from}{ports}"), "{personality}");
    }
}

#[test]
fn connecting_to_oneself() {
    for (personality, refused) in Personality::ALL.into_iter().zip([false, false, true, true]) {
        let (bridge, _a, _b) = start(personality);
        let _accepted = Client::accept(&bridge, "b");
        let mut client = Client::connecting(&bridge, "b", "b");
        if refused {
            assert!(client.rest_text().contains("CANT_REACH_PEER"), "{personality}");
        } else {
            assert_eq!(client.line(), "STREAM STATUS RESULT=OK", "{personality}");
        }
    }
}

#[test]
fn abandoned_accepts() {
    for personality in Personality::ALL {
        let (bridge, _a, _b) = start(personality);
        let abandoned = Client::accept(&bridge, "a");
        let open = bridge.connections_open();
        drop(abandoned);
        if I2PD.contains(&personality) {
            assert!(bridge.wait_for(LONG, |b| b.connections_open() == open - 1));
            assert_eq!(bridge.session("a").unwrap().accepts, 0);
            continue;
        }
        let mut good = Client::new(&bridge);
        assert_eq!(good.ask("STREAM ACCEPT ID=a"), "STREAM STATUS RESULT=OK");
        assert!(bridge.wait_for(LONG, |b| b.session("a").unwrap().accepts == 2));
        // The abandoned one swallows the first stream.
        let mut lost = Client::connecting(&bridge, "b", "a");
        assert_eq!(lost.rest_text(), "STREAM STATUS RESULT=OK\n", "{personality}");
        let mut connected = Client::connecting(&bridge, "b", "a");
        connected.line();
        connected.write("x");
        good.line();
        assert_eq!(good.exact(1), b"x");
    }
}

#[test]
fn talking_while_accepting() {
    for personality in Personality::ALL {
        let (bridge, _a, _b) = start(personality);
        let mut accepted = Client::accept(&bridge, "a");
        accepted.write("early");
        if I2PD.contains(&personality) {
            assert!(accepted.rest().is_empty(), "{personality}");
            continue;
        }
        let mut connected = Client::connecting(&bridge, "b", "a");
        connected.line();
        assert_eq!(connected.exact(5), b"early");
    }
}

#[test]
fn ok_before_the_peer_accepts() {
    at_once(Personality::ALL, |personality| {
        let (bridge, _a, _b) =
            two_sessions(Config { park: Some(Duration::from_secs(2)), ..Config::with_personality(personality) });
        let mut connected = Client::connecting(&bridge, "b", "a");
        if personality == JAVA {
            connected.silent();
        } else {
            assert_eq!(connected.line(), "STREAM STATUS RESULT=OK", "{personality}");
        }
        let early = personality != JAVA;
        if early {
            connected.write("early");
        }
        let mut accepted = Client::new(&bridge);
        accepted.ask("STREAM ACCEPT ID=a");
        accepted.line();
        if early {
            assert_eq!(accepted.exact(5), b"early");
        }
        // With nobody accepting it ends after a while.
        let mut lost = Client::connecting(&bridge, "b", "a");
        let wanted = match personality {
            JAVA => "STREAM STATUS RESULT=CANT_REACH_PEER MESSAGE=\"Connection reset\"\n",
            _ => "STREAM STATUS RESULT=OK\n",
        };
        assert_eq!(lost.rest_text(), wanted, "{personality}");
    });
}

#[test]
fn data_in_the_same_write_as_connect() {
    for (personality, line_end, wanted) in [
        (JAVA, "\n", "datalater"),
        (Personality::I2pd245, "\n", "ata\0later"),
        (Personality::I2pd258, "\n", "ata\0later"),
        (Personality::I2pd258, "\r\n", "data\0later"),
        (EMISSARY, "\n", "later"),
    ] {
        let (bridge, _a, _b) = start(personality);
        let mut accepted = Client::accept(&bridge, "a");
        let mut connected = Client::new(&bridge);
        let to = bridge.session("a").unwrap().destination;
        connected.write(format!("{}{line_end}data", connect_line(&to)));
        assert_eq!(connected.line(), "STREAM STATUS RESULT=OK");
        connected.write("later");
        drop(connected);
        accepted.line();
        assert_eq!(accepted.rest_text(), wanted, "{personality}");
    }
}

#[test]
fn stream_commands_on_the_control_socket() {
    for personality in Personality::ALL {
        let (bridge, mut a, _b) = start(personality);
        a.send("STREAM ACCEPT ID=a");
        let line = match personality {
            EMISSARY => {
                a.silent();
                assert!(bridge.session("a").is_some());
                continue;
            }
            JAVA => "STREAM STATUS RESULT=I2P_ERROR MESSAGE=\"Socket already in use\"\n",
            _ => "SESSION STATUS RESULT=I2P_ERROR MESSAGE=\"Socket already in use\"\n",
        };
        assert_eq!(a.rest_text(), line, "{personality}");
        assert!(bridge.wait_for(LONG, |b| b.session("a").is_none()));
    }
}
