//! Encodings, addresses and private keys against the vectors in `tests/vectors`, and against mutations of them.

// The configuration allows these in test functions only, not in their helpers.

use i2psock::identity::{
    base32_decode, base32_encode, base64_decode, base64_decode_strict, base64_encode, Address, Keys, Target, B33,
};
use serde_json::Value;

fn load(file: &str) -> Value {
    let path = format!("{}/tests/vectors/{file}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    serde_json::from_str(&text).unwrap()
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    let list = value[key].as_array().unwrap_or_else(|| panic!("no {key}"));
    assert!(!list.is_empty(), "{key}");
    list
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value}"))
}

fn number(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or_else(|| panic!("no {key} in {value}"))
}

fn hex(text: &str) -> Vec<u8> {
    assert!(text.len() % 2 == 0);
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

#[test]
fn destinations() {
    for vector in list(&load("destinations.json"), "vectors") {
        let name = text(vector, "name");
        let bytes = hex(text(vector, "dest_hex"));
        let address = Address::from_bytes(&bytes).unwrap();
        assert_eq!(bytes.len() as u64, number(vector, "dest_len"), "{name}");
        assert_eq!(address.as_bytes(), bytes, "{name}");
        assert_eq!(address.base64(), text(vector, "dest_b64"), "{name}");
        assert_eq!(address.base64().len() as u64, number(vector, "dest_b64_len"), "{name}");
        assert_eq!(address.hash()[..], hex(text(vector, "sha256_hex")), "{name}");
        assert_eq!(base64_encode(address.hash()), text(vector, "hash_b64"), "{name}");
        assert_eq!(address.host(), text(vector, "b32"), "{name}");
        assert_eq!(u64::from(address.signature_type()), number(vector, "sig_type"), "{name}");
        assert_eq!(u64::from(address.encryption_type()), number(vector, "enc_type"), "{name}");
        assert_eq!(u64::from(bytes[384]), number(vector, "cert_type"), "{name}");
        assert_eq!(bytes.len() as u64 - 387, number(vector, "cert_len"), "{name}");
        if let Some(key) = vector["signing_public_key_hex"].as_str() {
            let key = hex(key);
            let (head, excess) = key.split_at(128);
            assert_eq!((&bytes[256..384], &bytes[391..]), (head, excess), "{name}");
        }

        assert_eq!(Address::parse(text(vector, "dest_b64")).unwrap(), address, "{name}");
        let target = Target::parse(text(vector, "dest_b64")).unwrap();
        assert_eq!(target.wire(), text(vector, "dest_b64"), "{name}");
        assert_eq!(target, Target::Destination(address.clone()), "{name}");
        let by_hash = Target::parse(&text(vector, "b32").to_uppercase().replace("I2P", "i2p")).unwrap();
        assert_eq!(by_hash.wire(), text(vector, "b32"), "{name}");
        let Target::B32 { hash, .. } = by_hash else { panic!("{name}") };
        assert_eq!(&hash, address.hash(), "{name}");
    }
}

#[test]
fn private_keys() {
    for vector in list(&load("private_keys.json"), "vectors") {
        let name = text(vector, "name");
        let keys = Keys::from_text(text(vector, "blob_b64")).unwrap();
        assert_eq!(keys.bytes().len() as u64, number(vector, "blob_len"), "{name}");
        assert_eq!(keys.base64(), text(vector, "blob_b64"), "{name}");
        assert_eq!(keys.base64().len() as u64, number(vector, "blob_b64_len"), "{name}");
        assert_eq!(keys.address().base64(), text(vector, "dest_b64"), "{name}");
        assert_eq!(keys.address().host(), text(vector, "b32"), "{name}");
        let part = |key: &str| {
            let offset = |i: usize| vector["offsets"][key][i].as_u64().unwrap() as usize;
            &keys.bytes()[offset(0)..offset(1)]
        };
        assert_eq!(part("destination"), keys.address().as_bytes(), "{name}");
        assert_eq!(part("signing_private_key"), hex(text(vector, "signing_private_key_hex")), "{name}");
        match keys.offline() {
            Some(offline) => {
                assert_eq!(u64::from(offline.expires), number(vector, "offline_expires"));
                assert_eq!(part("offline_expires"), offline.expires.to_be_bytes());
                let sig_type = u64::from(offline.transient_sig_type);
                assert_eq!(sig_type, number(vector, "offline_transient_sig_type"));
            }
            None => assert!(vector["offsets"]["offline_expires"].is_null(), "{name}"),
        }
        assert_eq!(keys.is_offline(), keys.offline().is_some());

        // The same, however the keys get here.
        for again in [Keys::from_bytes(keys.bytes()), Keys::from_bridge(keys.bytes().to_vec())] {
            let again = again.unwrap();
            assert_eq!((again.bytes(), again.offline()), (keys.bytes(), keys.offline()), "{name}");
        }
        assert_eq!(Keys::from_bridge_text(keys.base64()).unwrap().bytes(), keys.bytes(), "{name}");

        // A private key is never taken for an address.
        assert!(Address::parse(keys.base64()).is_err(), "{name}");
        assert!(Target::parse(keys.base64()).is_err(), "{name}");
        let (address, len) = Address::split_prefix(keys.bytes()).unwrap();
        assert_eq!((&address, len), (keys.address(), part("destination").len()), "{name}");
    }
}

#[test]
fn malformed_private_keys() {
    for vector in list(&load("private_keys.json"), "malformed") {
        let (name, input) = (text(vector, "name"), text(vector, "b64"));
        let error = Keys::from_text(input).unwrap_err();
        assert_eq!(error.status, i2psock::error::Status::Invalid, "{name}");
        // "missing_padding" is a whole destination: fine as an address for the lenient reader only.
        let lenient = name == "missing_padding";
        assert_eq!(Address::parse(input).is_ok(), lenient, "{name}");
        assert!(!lenient || base64_decode_strict(input).is_err(), "{name}");
        // What a bridge returned is not cut by our idea of private lengths, but the destination must be whole.
        let only_private_part_is_odd = matches!(name, "trailing_byte" | "truncated_signing_key");
        assert_eq!(Keys::from_bridge_text(input).is_ok(), only_private_part_is_odd, "{name}");
        // No eight characters of the input are repeated to the user.
        let leaks = input.as_bytes().windows(8).any(|w| error.message.as_bytes().windows(8).any(|m| m == w));
        assert!(!leaks, "{name}: {error}");
    }
}

#[test]
fn b33_addresses() {
    let vectors = load("b33.json");
    for vector in list(&vectors, "vectors") {
        let address = text(vector, "address");
        let b33 = B33::parse(address).unwrap();
        assert_eq!(u64::from(b33.flags()), number(vector, "flags"), "{address}");
        assert_eq!(vector["secret_required"], b33.secret_required(), "{address}");
        assert_eq!(vector["client_auth_required"], b33.client_auth_required(), "{address}");
        assert_eq!(u64::from(b33.sig_type()), number(vector, "sig_type"), "{address}");
        assert_eq!(u64::from(b33.blinded_sig_type()), number(vector, "blinded_sig_type"), "{address}");
        assert_eq!(b33.public_key(), hex(text(vector, "public_key_hex")), "{address}");
        assert_eq!(b33.address(), address);
        let built = B33::new(b33.flags(), b33.sig_type(), b33.blinded_sig_type(), b33.public_key());
        assert_eq!(built.unwrap(), b33);
        assert_eq!(Target::parse(&address.to_uppercase()).unwrap(), Target::B33(b33));
    }
    for vector in list(&vectors, "invalid") {
        assert!(B33::parse(text(vector, "address")).is_err(), "{vector}");
        assert!(Target::parse(text(vector, "address")).is_err(), "{vector}");
    }
}

#[test]
fn encodings() {
    let vectors = load("encodings.json");
    for vector in list(&vectors, "vectors") {
        let (bytes, b64, b32) = (hex(text(vector, "hex")), text(vector, "b64"), text(vector, "b32"));
        assert_eq!((base64_encode(&bytes).as_str(), base32_encode(&bytes).as_str()), (b64, b32));
        assert_eq!(base64_decode(b64).unwrap(), bytes);
        assert_eq!(base64_decode_strict(b64).unwrap(), bytes);
        assert_eq!(base32_decode(b32).unwrap(), bytes);
    }
    let reject = list(&vectors, "base64_reject").iter().map(|v| v.as_str().unwrap());
    let noncanonical = list(&vectors, "base64_noncanonical").iter().map(|v| text(v, "b64"));
    for input in reject.chain(noncanonical) {
        assert!(base64_decode_strict(input).is_err(), "{input:?}");
        // The one of them that only lacks its padding.
        assert_eq!(base64_decode(input).is_ok(), input == "AAA", "{input:?}");
    }
    for input in list(&vectors, "base32_reject") {
        assert!(base32_decode(input.as_str().unwrap()).is_err(), "{input}");
    }
    let case = &vectors["base32_case"];
    let bytes = base32_decode(text(case, "upper")).unwrap();
    assert_eq!(bytes, base32_decode(text(case, "lower")).unwrap());
    assert_eq!(base32_encode(&bytes), text(case, "lower"));
    let source = &vectors["datagram3_source"];
    let hash = base64_decode_strict(text(source, "hash_b64")).unwrap();
    assert_eq!(format!("{}.b32.i2p", base32_encode(&hash)), text(source, "b32"));
}

/// xorshift64*: the same sequence on every run and every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 11) as usize % limit
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| (self.next() >> 32) as u8).collect()
    }
}

/// Every entry point; whatever is accepted must come back unchanged.
fn feed_bytes(bytes: &[u8]) {
    if let Ok(address) = Address::from_bytes(bytes) {
        assert_eq!(address.as_bytes(), bytes);
        assert_eq!(Address::parse(address.base64()).unwrap(), address);
        assert_eq!(Target::parse(address.host()).unwrap().wire(), address.host());
    }
    let split = Address::split_prefix(bytes);
    if let Ok((address, len)) = &split {
        assert_eq!(address.as_bytes(), &bytes[..*len]);
    }
    let bridge = Keys::from_bridge(bytes.to_vec());
    assert_eq!(bridge.is_ok(), split.is_ok_and(|(_, len)| len < bytes.len()));
    if let Ok(keys) = Keys::from_bytes(bytes) {
        assert_eq!((keys.bytes(), bridge.unwrap().offline()), (bytes, keys.offline()));
        assert_eq!(Keys::from_text(keys.base64()).unwrap().bytes(), bytes);
        assert_eq!(format!("{keys:?}"), format!("Keys({}, <secret>)", keys.address().host()));
    }
}

/// The same for text. What goes to the wire is one word of printable ASCII and means the same when read again.
fn feed_text(input: &str) {
    if let Ok(target) = Target::parse(input) {
        assert!(target.wire().bytes().all(|b| b.is_ascii_graphic()));
        assert_eq!(Target::parse(target.wire()).unwrap(), target);
    }
    if let Ok(bytes) = base64_decode(input) {
        assert_eq!(base64_encode(&bytes).trim_end_matches('='), input.trim_end_matches('='));
    }
    assert!(base64_decode_strict(input).map_or(true, |bytes| base64_encode(&bytes) == input));
    assert!(base32_decode(input).map_or(true, |bytes| base32_encode(&bytes) == input.to_ascii_lowercase()));
    assert!(B33::parse(input).map_or(true, |b33| b33.address() == input.to_ascii_lowercase()));
    assert!(Keys::from_text(input).map_or(true, |keys| keys.base64().starts_with(input.trim().trim_end_matches('='))));
    let _ = Keys::from_bridge_text(input);
}

#[test]
fn mutations_of_valid_bytes() {
    let destinations = load("destinations.json");
    let keys = load("private_keys.json");
    let valid = list(&destinations, "vectors").iter().map(|v| text(v, "dest_b64"));
    let valid = valid.chain(list(&keys, "vectors").iter().map(|v| text(v, "blob_b64")));
    let mut random = Random(0x1234_5678_9abc_def0);
    for bytes in valid.map(|b64| base64_decode(b64).unwrap()) {
        for len in 0..=bytes.len() {
            feed_bytes(&bytes[..len]);
        }
        // Every bit of the certificate, alone and with something behind; elsewhere bits at random.
        let certificate = 384 * 8..bytes.len().min(395) * 8;
        let others: Vec<usize> = (0..300).map(|_| random.below(bytes.len() * 8)).collect();
        for bit in certificate.chain(others) {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            feed_bytes(&flipped);
            flipped.extend(random.bytes(300));
            feed_bytes(&flipped);
        }
    }
}

#[test]
fn random_bytes() {
    let mut random = Random(42);
    for round in 0..3000 {
        let len = random.below(1200);
        let mut bytes = random.bytes(len);
        feed_bytes(&bytes);
        // With a plausible certificate more of it gets past the first checks.
        let certificate = [5, 0, (round % 12) as u8, 0, (round % 13) as u8, 0, (round % 5) as u8];
        if let Some(place) = bytes.get_mut(384..391) {
            place.copy_from_slice(&certificate);
            feed_bytes(&bytes);
            bytes.iter_mut().skip(391 + 256).for_each(|byte| *byte = 0);
            feed_bytes(&bytes);
        }
    }
}

#[test]
fn mutations_of_valid_texts() {
    let (destinations, keys, b33) = (load("destinations.json"), load("private_keys.json"), load("b33.json"));
    let mut valid = vec!["example.i2p", "a-b_c.i2p"];
    valid.extend(list(&destinations, "vectors").iter().flat_map(|v| [text(v, "dest_b64"), text(v, "b32")]));
    valid.extend(list(&keys, "vectors").iter().map(|v| text(v, "blob_b64")));
    valid.extend(list(&b33, "vectors").iter().map(|v| text(v, "address")));
    let mut random = Random(7);
    for input in valid {
        for len in 0..=input.len() {
            feed_text(&input[..len]);
        }
        for _ in 0..400 {
            let mut bytes = input.as_bytes().to_vec();
            let place = random.below(bytes.len());
            match random.below(4) {
                0 => bytes[place] = random.below(256) as u8,
                1 => bytes[place] = b"+/=.-~ \n\0aZ9\""[random.below(13)],
                2 => bytes.insert(place, b"=.-a A\n7"[random.below(8)]),
                _ => drop(bytes.remove(place)),
            }
            feed_text(&String::from_utf8_lossy(&bytes));
        }
    }
    for _ in 0..3000 {
        let len = random.below(80);
        feed_text(&String::from_utf8_lossy(&random.bytes(len)));
        let label: String =
            (0..len).map(|_| char::from(b"abcdefghijklmnopqrstuvwxyz234567"[random.below(32)])).collect();
        feed_text(&label);
        feed_text(&format!("{label}.i2p"));
        feed_text(&format!("{label}.b32.i2p"));
    }
}
