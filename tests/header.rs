//! The checked-in header is the one cbindgen makes, and its version is the crate's.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};

/// In the order they are to be read.
const SOURCES: [&str; 13] = [
    "base",
    "error",
    "handles",
    "options",
    "addr",
    "keys",
    "controller",
    "dest",
    "pending",
    "stream",
    "listener",
    "dgram",
    "tunnel",
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn generate() -> String {
    let config = cbindgen::Config::from_file(root().join("cbindgen.toml")).expect("cbindgen.toml");
    let mut builder = cbindgen::Builder::new().with_config(config);
    for name in SOURCES {
        builder = builder.with_src(root().join("src/ffi").join(name).with_extension("rs"));
    }
    let mut text = Vec::new();
    builder.generate().expect("the header can be generated").write(&mut text);
    in_parentheses(&String::from_utf8(text).expect("UTF-8"))
}

/// cbindgen writes negative constants bare, and `1 I2PSOCK_SIG_ANY` would be 0.
fn in_parentheses(header: &str) -> String {
    let line = |line: &str| match line.strip_prefix("#define ").and_then(|rest| rest.split_once(" -")) {
        Some((name, number)) => format!("#define {name} (-{number})\n"),
        None => format!("{line}\n"),
    };
    header.lines().map(line).collect()
}

#[test]
fn negative_constants_are_in_parentheses() {
    let header = generate();
    let negative = |line: &&str| line.starts_with("#define ") && line.contains('-') && !line.contains("(-");
    assert_eq!(header.lines().find(negative), None);
    assert!(header.contains("#define I2PSOCK_TIMEOUT_NONE (-2)\n"));
}

#[test]
fn every_ffi_source_is_in_the_header() {
    let files = std::fs::read_dir(root().join("src/ffi")).unwrap();
    for file in files.map(|file| file.unwrap().path()) {
        let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        assert!(
            ["guard", "memory", "mod"].contains(&name.as_str()) || SOURCES.contains(&name.as_str()),
            "{name} is not in the list"
        );
    }
}

#[test]
fn the_header_is_up_to_date() {
    let path = root().join("include/i2psock.h");
    let fresh = generate();
    let mut kept = std::fs::read_to_string(&path).unwrap_or_default();
    if kept != fresh && std::env::var_os("I2PSOCK_WRITE_HEADER").is_some() {
        std::fs::write(&path, &fresh).unwrap();
        kept = std::fs::read_to_string(&path).unwrap();
    }
    assert!(kept == fresh, "include/i2psock.h is out of date: run `make header`");
}

#[test]
fn versions_agree() {
    let header = std::fs::read_to_string(root().join("include/i2psock.h")).unwrap();
    let define = |name: &str| {
        let line = header.lines().find_map(|line| line.strip_prefix(&format!("#define {name} "))).expect(name);
        line.trim_matches('"').to_owned()
    };
    let parts = ["MAJOR", "MINOR", "PATCH"].map(|part| define(&format!("I2PSOCK_VERSION_{part}")));
    assert_eq!(parts.join("."), env!("CARGO_PKG_VERSION"));
    assert_eq!(define("I2PSOCK_VERSION"), env!("CARGO_PKG_VERSION"));
    let changelog = read("CHANGELOG.md");
    assert!(changelog.contains(&format!("## {}", env!("CARGO_PKG_VERSION"))), "CHANGELOG.md knows the version");
}

fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}
