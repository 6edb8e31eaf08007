//! The table in tests/README.md: it quotes the header, leaves out nothing of the contract of every function, and names
//! tests that exist.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

/// What stands for a test where there is none; a reason follows.
const NONE: &str = "No test: ";

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The header's comments as running text.
fn header() -> String {
    let text = read("include/i2psock.h");
    let lines = text.lines().map(|line| match line.trim() {
        "*" | "///" => "",
        line => line.trim_start_matches("/// ").trim_start_matches("* "),
    });
    words(&lines.collect::<Vec<_>>().join("\n"))
}

/// The rows of the table: a sentence of the header, and the tests that fail without it.
fn table(readme: &str) -> Vec<(String, String)> {
    let rows = readme.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |")?.split_once(" | "));
    rows.skip_while(|(sentence, _)| *sentence != "The header says")
        .skip(1)
        .map(|(sentence, tests)| (sentence.to_owned(), tests.to_owned()))
        .collect()
}

/// What is wrong with the tests named in a row; `file` reads one below tests/.
fn wrong_tests(tests: &str, file: impl Fn(&str) -> Option<String>) -> Vec<String> {
    if let Some(reason) = tests.strip_prefix(NONE) {
        return if reason.is_empty() { vec!["no reason".into()] } else { Vec::new() };
    }
    let named: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
    let mut wrong: Vec<String> = named.iter().filter(|test| !exists(test, &file)).map(|test| (*test).into()).collect();
    if named.is_empty() {
        wrong.push("no test is named".into());
    }
    wrong
}

/// Whether `FILE NAME` is a test.
fn exists(test: &str, file: impl Fn(&str) -> Option<String>) -> bool {
    let Some((path, name)) = test.split_once(' ') else { return false };
    let Some(text) = file(path) else { return false };
    match path.rsplit('.').next() {
        // Among the tests that the program runs: T(name), T_LONG(name).
        Some("c") => text.match_indices(&format!("({name})")).any(|(at, _)| {
            let list = text[..at].rsplit(|c: char| c != '_' && !c.is_alphanumeric()).next();
            list.is_some_and(|word| word.starts_with('T'))
        }),
        Some("rs") => {
            let mut lines = text.lines().map(str::trim);
            let is_test = |line: &str| line == "#[test]";
            let found = lines.clone().position(|line| line.starts_with(&format!("fn {name}()")));
            found.is_some_and(|at| at > 0 && lines.nth(at - 1).is_some_and(is_test))
        }
        Some("sh") => text.contains(name),
        _ => false,
    }
}

fn file(path: &str) -> Option<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path =
        path.strip_prefix("src/").map_or_else(|| root.join("tests").join(path), |path| root.join("src").join(path));
    std::fs::read_to_string(path).ok()
}

#[test]
fn every_sentence_in_the_table_is_in_the_header() {
    let (header, table) = (header(), table(&read("tests/README.md")));
    assert!(table.len() > 50, "the table was not found");
    let strange: Vec<_> = table.iter().map(|(sentence, _)| sentence).filter(|s| !header.contains(&words(s))).collect();
    assert!(strange.is_empty(), "not in include/i2psock.h: {strange:#?}");
}

#[test]
fn every_test_in_the_table_exists() {
    let wrong: Vec<_> = table(&read("tests/README.md"))
        .into_iter()
        .flat_map(|(sentence, tests)| {
            wrong_tests(&tests, file).into_iter().map(move |w| format!("{w} ({sentence:.40})"))
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The contract of every function, sentence for sentence: what is left of it without those in the table.
#[test]
fn the_whole_contract_is_in_the_table() {
    let header = header();
    let start = header.find("The contract of every function: ").unwrap();
    let end = start + header[start..].find(" #ifndef").unwrap();
    let mut left = header[start..end].to_owned();
    for (sentence, _) in table(&read("tests/README.md")) {
        left = left.replace(&words(&sentence), "");
    }
    let labels = [
        "The contract of every function:",
        "Outputs",
        "Ownership",
        "Statuses",
        "Text",
        "Time",
        "Descriptors",
        "Blocking",
        "Threads",
        "fork",
        "Memory",
        "Process",
        "ABI",
        "*/",
    ];
    for label in labels {
        left = left.replacen(label, "", 1);
    }
    assert_eq!(words(&left), "", "not in the table of tests/README.md");
}

#[test]
fn a_test_that_is_not_there_is_noticed() {
    let file = |path: &str| match path {
        "a.c" => {
            Some("static void one(void) {}\nstatic const test_case tests[] = {\n    T(two), T_LONG(three),\n};".into())
        }
        "b.rs" => Some("#[test]\nfn four() {\n}\nfn five() {\n}\n".to_owned()),
        _ => None,
    };
    for good in ["`a.c two`", "`a.c two`, `a.c three`, `b.rs four`", "No test: nothing to see."] {
        assert_eq!(wrong_tests(good, file), [""; 0], "{good}");
    }
    for bad in ["`a.c one`", "`b.rs five`", "`b.rs fou`", "`c.c two`", "two", "", "`a.c two`, `a.c tw`", "No test: "] {
        assert_eq!(wrong_tests(bad, file).len(), 1, "{bad}");
    }
}
