//! Packets of `tests/vectors/udp_packets.json`, sent and received.

use i2psock::identity::Address;
use i2psock::protocol::datagram::{self, Origin, SendOptions, Source};
use i2psock::protocol::ports::Ports;
use serde_json::Value;

fn vectors(key: &str) -> Vec<Value> {
    let path = format!("{}/tests/vectors/udp_packets.json", env!("CARGO_MANIFEST_DIR"));
    let all: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let list = all[key].as_array().unwrap().clone();
    assert!(!list.is_empty(), "{key}");
    list
}

fn bytes(value: &Value, key: &str) -> Vec<u8> {
    let text = value[key].as_str().unwrap();
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn number<T: TryFrom<u64>>(value: &Value, key: &str) -> Option<T> {
    value[key].as_u64().and_then(|number| T::try_from(number).ok())
}

/// The options a header's pairs stand for.
fn options(pairs: &[&str]) -> SendOptions {
    let mut options = SendOptions::default();
    for pair in pairs {
        let (key, value) = pair.split_once('=').unwrap();
        match key {
            "FROM_PORT" => options.ports.from = value.parse().ok(),
            "TO_PORT" => options.ports.to = value.parse().ok(),
            "PROTOCOL" => options.protocol = value.parse().ok(),
            "SEND_TAGS" => options.send_tags = value.parse().ok(),
            "TAG_THRESHOLD" => options.tag_threshold = value.parse().ok(),
            "EXPIRES" => options.expires = value.parse().ok(),
            "SEND_LEASESET" => options.send_leaseset = value.parse().ok(),
            other => panic!("{other}"),
        }
    }
    options
}

fn sorted(text: &str) -> Vec<&str> {
    let mut words: Vec<_> = text.split(' ').skip(1).collect();
    words.sort_unstable();
    words
}

#[test]
fn sent() {
    for vector in vectors("client_to_bridge") {
        let header = vector["header"].as_str().unwrap();
        let words: Vec<_> = header.split(' ').collect();
        let options = options(&words[3..]);
        let address = Address::parse(words[2]).unwrap();
        let ours = datagram::send_header(words[1], &address, &options);
        let text = std::str::from_utf8(&ours).unwrap().strip_suffix('\n').unwrap();
        assert!(text.starts_with("3.0 "), "{text}");
        assert_eq!(sorted(text), sorted(header));
        if words[0] == "3.0" {
            assert_eq!([&ours[..], &bytes(&vector, "payload_hex")].concat(), bytes(&vector, "packet_hex"));
        }
        assert_eq!(options.any(), words.len() > 3);
    }
}

#[test]
fn received() {
    for vector in vectors("bridge_to_client") {
        let (packet, payload) = (bytes(&vector, "packet_hex"), bytes(&vector, "payload_hex"));
        let end = packet.iter().position(|byte| *byte == b'\n').unwrap();
        let line = &packet[..end];
        let ports = Ports { from: number(&vector, "from_port"), to: number(&vector, "to_port") };
        let wanted = Origin { ports, protocol: number(&vector, "protocol") };
        if vector["style"] == "RAW" {
            if vector["header"] == true {
                assert_eq!(datagram::raw_header(line), Some(wanted));
                assert_eq!(packet[end + 1..], payload);
            } else {
                assert_eq!(datagram::raw_header(line), None, "payload is no header");
                assert_eq!(packet, payload);
            }
            continue;
        }
        assert_eq!(packet[end + 1..], payload);
        let (token, origin) = datagram::split_source(line, 0).unwrap();
        assert_eq!(token, vector["source"].as_str().unwrap().as_bytes());
        assert_eq!(origin, wanted);
        for known in 0..=token.len() {
            assert_eq!(datagram::split_source(line, known).unwrap(), (token, wanted));
        }
        match (datagram::source(token).unwrap(), vector["style"].as_str().unwrap()) {
            (Source::Destination(address), "DATAGRAM") => assert_eq!(address.base64().as_bytes(), token),
            (Source::Hash(hash), "DATAGRAM3") => {
                let host = format!("{}.b32.i2p", i2psock::identity::base32_encode(&hash));
                assert_eq!(host, vector["source_b32"].as_str().unwrap());
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn headers_that_make_no_sense() {
    for line in
        ["", " ", " FROM_PORT=1", "x FROM_PORT=", "x FROM_PORT", "x FROM_PORT=65536", "x TO_PORT=-1", "x TO_PORT=+1"]
    {
        assert!(datagram::split_source(line.as_bytes(), 0).is_err(), "{line:?}");
    }
    assert!(datagram::split_source(b"x \xff", 0).is_err());
    for line in ["", "x", "FROM_PORT=1 x", "FROM_PORT=", "PROTOCOL=256", "from_port=1", "FROM_PORT=1 X=2"] {
        assert!(datagram::raw_header(line.as_bytes()).is_none(), "{line:?}");
    }
    for token in
        ["", "A", &"A".repeat(43), &"A".repeat(44), &"!".repeat(44), &"A".repeat(45), &"A".repeat(520), "\u{e9}"]
    {
        // 44 letters are 33 bytes, which are no hash.
        assert!(datagram::source(token.as_bytes()).is_err(), "{token:?}");
    }
    assert!(datagram::source(b"\xff\xfe").is_err());
    // What newer routers may add does not matter.
    assert!(datagram::split_source(b"x NEW=thing  FROM_PORT=3\r", 0).is_ok_and(|(_, o)| o.ports.from == Some(3)));
}
