//! The order of the source: which folder may import from which, and what no file may do. Read from the text of `src/`,
//! since the compiler lets modules of one crate import each other in circles.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::OnceLock;

/// The floors from the ground up, each a list of rooms: folders or files of `src/`. A file may import from its own room
/// and from the floors below it. It may import from another room on its floor, too, unless that closes a circle.
const FLOORS: [&[&str]; 16] = [
    &["sys"],
    // On top of `sys`: secrets are wiped by it.
    &["error.rs", "secret.rs"],
    &["identity"],
    &["protocol"],
    &["core/settings"],
    &["core/drive"],
    &["core/store"],
    &["core/bridge"],
    &["core/stream"],
    &["core/relay"],
    &["core/session"],
    &["core/destination"],
    &["core/controller.rs"],
    &["core/listener", "core/datagram"],
    &["core/tunnel"],
    &["ffi"],
];

/// Files that stand beside the floors: they declare modules and re-export, and hold nothing of their own.
const BESIDE: [&str; 2] = ["lib.rs", "core/mod.rs"];

/// Rooms that may use `unsafe`.
const UNSAFE: [&str; 2] = ["sys", "ffi"];

/// Rooms with `pub(super)` fields: a C handle is opaque to C, not to the functions on other handles.
const OPEN_FIELDS: [&str; 1] = ["ffi"];

/// Texts by their path in `src/`.
type Tree = BTreeMap<String, String>;

/// Every way in which `tree` is out of order, one sentence each.
fn complaints(tree: &Tree) -> Vec<String> {
    let house = House::read(tree);
    let imports = house.imports();
    let mut found = places(tree);
    found.extend(first_lines(tree));
    found.extend(house.files.iter().flat_map(|(path, file)| held_beside(path, file)));
    found.extend(house.files.iter().flat_map(|(path, file)| child_modules(path, file)));
    found.extend(house.files.iter().flat_map(|(path, file)| restricted_fields(path, file)));
    found.extend(house.files.iter().flat_map(|(path, file)| unsafe_words(path, file)));
    found.extend(imports.iter().filter_map(direction));
    found.extend(room_circles(&imports));
    found.extend(file_circles(&imports));
    found
}

// The rules.

/// Every file is in a room, and every room of the table is there.
fn places(tree: &Tree) -> Vec<String> {
    let homeless = tree.keys().filter(|path| !BESIDE.contains(&path.as_str()) && room(path).is_none());
    let rooms: BTreeSet<&str> = tree.keys().filter_map(|path| room(path)).map(|(_, name)| name).collect();
    let empty = FLOORS.iter().copied().flatten().filter(|name| !rooms.contains(*name));
    homeless
        .map(|path| format!("src/{path}:1: the file is in none of the rooms in the table of floors."))
        .chain(empty.map(|name| format!("src/{name}: the table of floors names this room, but it is not there.")))
        .collect()
}

/// Every file begins with `//!`, and a folder's mod.rs with a sentence that says what lives there.
fn first_lines(tree: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    let folders: BTreeSet<&str> =
        tree.keys().filter_map(|path| path.rsplit_once('/')).map(|(folder, _)| folder).collect();
    for folder in folders {
        if !tree.contains_key(&format!("{folder}/mod.rs")) {
            found.push(format!("src/{folder}: the folder has no mod.rs to say what lives there."));
        }
    }
    for (path, text) in tree {
        let paragraph: Vec<&str> = text.lines().map_while(|line| line.strip_prefix("//! ")).collect();
        let paragraph = paragraph.join(" ");
        if paragraph.trim().is_empty() {
            found.push(format!("src/{path}:1: the first line is not a `//! ` comment that says what is in the file."));
        } else if is_mod(path) && !paragraph.contains(". ") && !paragraph.trim_end().ends_with('.') {
            found.push(format!("src/{path}:1: the first paragraph has no sentence that ends with a period."));
        }
    }
    found
}

/// Files beside the floors hold nothing, for what they held would be below and above everything else.
fn held_beside(path: &str, file: &File) -> Vec<String> {
    let held = file.items.iter().filter(|_| BESIDE.contains(&path));
    held.map(|(name, line)| {
        format!("src/{path}:{line}: declares `{name}`, but this file may only declare modules and re-export.")
    })
    .collect()
}

/// A child module sees the private items of its parent, so only a mod.rs, which should hold few, has child modules.
fn child_modules(path: &str, file: &File) -> Vec<String> {
    let mut found = Vec::new();
    for three in file.tokens.windows(3).filter(|three| three[0].text == "mod") {
        let (line, name) = (three[0].line, three[1].text);
        if three[2].text == "{" {
            found.push(format!(
                "src/{path}:{line}: the module `{name}` stands inside a file; it needs a file of its own."
            ));
        } else if !is_mod(path) {
            found.push(format!("src/{path}:{line}: declares the child module `{name}`, which only a mod.rs may."));
        }
    }
    found
}

/// A struct whose fields other files of the folder may touch is spread over these files.
fn restricted_fields(path: &str, file: &File) -> Vec<String> {
    let mut found = Vec::new();
    let words: Vec<&str> = file.tokens.iter().map(|token| token.text).collect();
    let closed = !room(path).is_some_and(|(_, room)| OPEN_FIELDS.contains(&room));
    for start in (0..words.len()).filter(|at| closed && words[*at] == "struct") {
        for at in start..item_end(&file.tokens, start) {
            let ["pub", "(", scope @ ("super" | "in"), ..] = words[at..] else { continue };
            let (_, field) = after_visibility(&file.tokens, at);
            let named = words.get(field + 1) == Some(&":");
            let field = if named { format!("the field `{}`", words[field]) } else { "a field".into() };
            let (line, name) = (file.tokens[at].line, words[start + 1]);
            found.push(format!("src/{path}:{line}: {field} of `{name}` is pub({scope}), but no file may touch another file's private fields."));
        }
    }
    found
}

fn unsafe_words(path: &str, file: &File) -> Vec<String> {
    let allowed = room(path).is_some_and(|(_, room)| UNSAFE.contains(&room));
    let used = file.tokens.iter().filter(|token| !allowed && token.text == "unsafe");
    used.map(|token| format!("src/{path}:{}: uses `unsafe`, which only {} may.", token.line, UNSAFE.join(" and ")))
        .collect()
}

/// What is wrong with an import by itself: it names what is not there, a file without a room, or a room above.
fn direction(import: &Import) -> Option<String> {
    let Some(to) = import.to else { return Some(format!("{import}, which no file of src declares.")) };
    if BESIDE.contains(&import.from) {
        return Some(format!("{import}, but this file may only declare modules and re-export."));
    }
    if BESIDE.contains(&to) {
        return None; // What it holds is complained about where it stands.
    }
    let Some((above, target)) = room(to) else {
        return Some(format!("{import} from src/{to}, which is in none of the rooms in the table of floors."));
    };
    let (below, own) = room(import.from)?;
    (below < above)
        .then(|| format!("{import}, but {own} (floor {below}) may not import from {target} (floor {above}) above it."))
}

/// Rooms on one floor that import from each other. Between floors every circle has an import that goes up.
fn room_circles(imports: &[Import]) -> Vec<String> {
    circles(imports, "rooms on one floor", |from, to| {
        let ((from_floor, from), (to_floor, to)) = (room(from)?, room(to)?);
        (from_floor == to_floor).then_some((from, to))
    })
}

fn file_circles(imports: &[Import]) -> Vec<String> {
    circles(imports, "files", |from, to| Some((from, to)))
}

/// By importer and imported, the first import of the one from the other.
type Graph<'i> = BTreeMap<&'i str, BTreeMap<&'i str, &'i Import<'i>>>;

/// Circles that have no import in common, the shortest first. They are not all there are, but there are others only if
/// there are these.
fn circles<'i>(
    imports: &'i [Import<'i>],
    what: &str,
    ends: impl Fn(&'i str, &'i str) -> Option<(&'i str, &'i str)>,
) -> Vec<String> {
    let mut graph = Graph::new();
    for import in imports {
        if let Some((from, to)) = import.to.and_then(|to| ends(import.from, to)).filter(|(from, to)| from != to) {
            graph.entry(from).or_default().entry(to).or_insert(import);
        }
    }
    let mut found = Vec::new();
    while let Some(circle) = graph.keys().filter_map(|start| circle_at(&graph, start)).min_by_key(Vec::len) {
        let imports = circle.iter().filter_map(|(from, to)| graph.get_mut(from)?.remove(to));
        let steps: Vec<String> = imports.map(ToString::to_string).collect();
        found.push(format!("{}; {what} may not import each other in a circle.", steps.join(", and ")));
    }
    found
}

/// The shortest way from `start` back to it.
fn circle_at<'i>(graph: &Graph<'i>, start: &'i str) -> Option<Vec<(&'i str, &'i str)>> {
    let mut came_from = BTreeMap::new();
    let mut waiting = VecDeque::from([start]);
    while let Some(node) = waiting.pop_front() {
        for next in graph.get(node).into_iter().flat_map(BTreeMap::keys) {
            if !came_from.contains_key(next) {
                came_from.insert(*next, node);
                waiting.push_back(next);
            }
        }
    }
    let (mut way, mut node) = (Vec::new(), start);
    while way.is_empty() || node != start {
        let before = came_from.get(node)?;
        way.insert(0, (*before, node));
        node = before;
    }
    Some(way)
}

/// The number of the floor a file is on, and the room it is in.
fn room(path: &str) -> Option<(usize, &'static str)> {
    let holds = |room: &str| path.strip_prefix(room).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    FLOORS.iter().zip(1..).find_map(|(rooms, floor)| Some((floor, *rooms.iter().find(|room| holds(room))?)))
}

/// Whether a file's child modules are beside it rather than in a folder of its name.
fn is_mod(path: &str) -> bool {
    path == "lib.rs" || path.ends_with("/mod.rs")
}

// Imports: which file a path leads to.

/// What one file names of another.
struct Import<'a> {
    from: &'a str,
    line: usize,
    /// From the crate's root on.
    path: String,
    /// The file where re-exports lead; none if nothing of that name was found.
    to: Option<&'a str>,
}

impl std::fmt::Display for Import<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "src/{}:{}: imports `crate::{}`", self.from, self.line, self.path)
    }
}

/// One name brought in by a `use`.
struct Use<'a> {
    line: usize,
    path: Vec<&'a str>,
    /// What it is called here; none for `*`.
    name: Option<&'a str>,
    public: bool,
}

/// A file as far as it matters here.
struct File<'a> {
    tokens: Vec<Token<'a>>,
    uses: Vec<Use<'a>>,
    /// Paths in the code, with their lines.
    paths: Vec<(usize, Vec<&'a str>)>,
    /// Names of the items, modules left out, with their lines.
    items: BTreeMap<&'a str, usize>,
}

struct House<'a> {
    files: BTreeMap<&'a str, File<'a>>,
}

impl<'a> House<'a> {
    fn read(tree: &'a Tree) -> Self {
        House { files: tree.iter().map(|(path, text)| (path.as_str(), File::read(text))).collect() }
    }

    fn imports(&self) -> Vec<Import<'a>> {
        let mut found: Vec<Import> = Vec::new();
        for (&from, file) in &self.files {
            let (module, first) = (module_of(from), found.len());
            let import =
                |line, path: &[&'a str]| Import { from, line, path: path.join("::"), to: self.resolve(path, 0) };
            for used in &file.uses {
                let Some(path) = self.absolute(from, &used.path) else { continue };
                // A folder's mod.rs offers what its files hold, and lib.rs and core/mod.rs offer rooms.
                let own = path.len() > module.len() && path.starts_with(&module);
                if !(used.public && is_mod(from) && (own || BESIDE.contains(&from))) {
                    found.push(import(used.line, &path));
                    let behind = if used.name.is_none() { self.behind_glob(&path) } else { Vec::new() };
                    found.extend(behind.iter().map(|path| import(used.line, path)));
                }
            }
            for (line, written) in &file.paths {
                let Some(path) = self.absolute(from, written) else { continue };
                let named = import(*line, &path);
                // `Name::new` tells nothing that `use a::Name` has not told.
                let told = found[first..].iter().any(|known| known.to == named.to);
                if !told || matches!(written[0], "crate" | "self" | "super") {
                    found.push(named);
                }
            }
        }
        found
    }

    /// A path from the crate's root on; none for other crates.
    fn absolute(&self, from: &str, path: &[&'a str]) -> Option<Vec<&'a str>> {
        let module = self.files.get_key_value(from).map(|(path, _)| module_of(path))?;
        let (&first, rest) = path.split_first()?;
        let start = match first {
            "crate" => Vec::new(),
            "self" if rest.first() == Some(&"super") => return self.absolute(from, rest),
            "self" => module,
            "super" => {
                let ups = rest.iter().take_while(|segment| **segment == "super").count();
                let kept = module.len().checked_sub(ups + 1)?;
                return Some([&module[..kept], &rest[ups..]].concat());
            }
            child if self.file_of(&[&module[..], &[child]].concat()).is_some() => [&module[..], &[child]].concat(),
            name => {
                let used = self.files[from].uses.iter().find(|used| used.name == Some(name) && used.path[0] != name)?;
                self.absolute(from, &used.path)?
            }
        };
        Some([&start[..], rest].concat())
    }

    /// The file that holds what an absolute path names: through the re-exports of each mod.rs on the way.
    fn resolve(&self, path: &[&'a str], depth: usize) -> Option<&'a str> {
        let mut module = self.file_of(&[])?;
        for (at, &segment) in path.iter().enumerate() {
            let declared = self.files[module].items.contains_key(segment);
            // A function may be called like a module. As the last name it is more likely to be meant.
            let child = self.file_of(&path[..=at]).filter(|_| !declared || at + 1 < path.len());
            match child {
                Some(child) => module = child,
                None if declared || !is_mod(module) => return Some(module),
                None => return self.offered(module, &path[at..], depth),
            }
        }
        Some(module)
    }

    /// The file behind a re-export in a mod.rs.
    fn offered(&self, module: &'a str, path: &[&'a str], depth: usize) -> Option<&'a str> {
        let uses = &self.files[module].uses;
        let name = *path.first().filter(|_| depth < 20)?; // Re-exports may name each other.
        if let Some(used) = uses.iter().find(|used| used.name == Some(name)) {
            let Some(target) = self.absolute(module, &used.path) else { return Some(module) }; // Of another crate.
            return self.resolve(&[&target[..], &path[1..]].concat(), depth + 1);
        }
        uses.iter().filter(|used| used.name.is_none()).find_map(|used| {
            let target = self.absolute(module, &used.path)?;
            let holder = self.resolve(&target, depth + 1)?;
            let held = &self.files[holder];
            let holds = held.items.contains_key(name) || held.uses.iter().any(|used| used.name == Some(name));
            let target = [&target[..], path].concat();
            self.resolve(&target, depth + 1).filter(|_| holds || is_mod(holder))
        })
    }

    /// What `*` brings in from a mod.rs.
    fn behind_glob(&self, path: &[&'a str]) -> Vec<Vec<&'a str>> {
        let Some(module) = self.resolve(path, 0).filter(|module| is_mod(module)) else { return Vec::new() };
        let offered = self.files[module].uses.iter().filter(|used| used.public);
        offered.filter_map(|used| self.absolute(module, &used.path)).collect()
    }

    fn file_of(&self, module: &[&str]) -> Option<&'a str> {
        let name = module.join("/");
        let places = if name.is_empty() {
            ["lib.rs".into(), String::new()]
        } else {
            [format!("{name}.rs"), format!("{name}/mod.rs")]
        };
        places.iter().find_map(|place| self.files.get_key_value(place.as_str())).map(|(path, _)| *path)
    }
}

fn module_of(path: &str) -> Vec<&str> {
    let name = path.trim_end_matches(".rs");
    name.split('/').filter(|part| !matches!(*part, "mod" | "lib")).collect()
}

// Text: just enough of Rust's grammar.

#[derive(Clone, Copy)]
struct Token<'a> {
    text: &'a str,
    line: usize,
}

impl<'a> File<'a> {
    fn read(text: &'a str) -> Self {
        let tokens = without_tests(tokens(text));
        let words: Vec<&str> = tokens.iter().map(|token| token.text).collect();
        let mut file = File { uses: Vec::new(), paths: Vec::new(), items: items(&tokens), tokens };
        let (mut at, mut public) = (0, false);
        while let Some(&Token { text: word, line }) = file.tokens.get(at) {
            let follows = |text| words.get(at + 1) == Some(&text);
            match word {
                "pub" => {
                    // What stands in `pub(in crate::core)` is not an import.
                    (public, at) = after_visibility(&file.tokens, at);
                    continue;
                }
                "use" => {
                    at += 1;
                    use_tree(&file.tokens, &mut at, &mut Vec::new(), public, &mut file.uses);
                }
                _ if is_word(word) && follows("::") => {
                    let mut path = vec![word];
                    while words.get(at + 1) == Some(&"::") && words.get(at + 2).is_some_and(|next| is_word(next)) {
                        path.push(words[at + 2]);
                        at += 2;
                    }
                    file.paths.push((line, path));
                    at += 1;
                }
                _ => at += 1,
            }
            public = false;
        }
        file
    }
}

/// Reads `a::{b, c::d as e, self}` from `at` on; `path` is what stands before it.
fn use_tree<'a>(tokens: &[Token<'a>], at: &mut usize, path: &mut Vec<&'a str>, public: bool, uses: &mut Vec<Use<'a>>) {
    let outer = path.len();
    while let Some(&Token { text, line }) = tokens.get(*at) {
        *at += 1;
        match text {
            "::" => {}
            "*" => uses.push(Use { line, path: path.clone(), name: None, public }),
            "{" => {
                while tokens.get(*at).is_some_and(|token| token.text != "}") {
                    use_tree(tokens, at, path, public, uses);
                }
                *at += 1;
                break;
            }
            "}" => {
                *at -= 1; // Of the list around this name.
                break;
            }
            "as" => {
                if let (Some(used), Some(name)) = (uses.last_mut(), tokens.get(*at)) {
                    used.name = Some(name.text);
                }
                *at += 1;
            }
            _ if is_word(text) => {
                if text != "self" || path.is_empty() {
                    path.push(text);
                }
                if tokens.get(*at).is_none_or(|next| next.text != "::") {
                    uses.push(Use { line, path: path.clone(), name: path.last().copied(), public });
                }
            }
            _ => break, // `,` or `;`
        }
    }
    path.truncate(outer);
}

/// The items of a file, not of what stands inside them, with their lines. Modules are not among them.
fn items<'a>(tokens: &[Token<'a>]) -> BTreeMap<&'a str, usize> {
    let kinds = ["fn", "struct", "enum", "union", "trait", "type", "const", "static", "macro_rules"];
    let (mut depth, mut found) = (0, BTreeMap::new());
    for (at, token) in tokens.iter().enumerate() {
        match token.text {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => depth -= 1,
            kind if depth == 0 && kinds.contains(&kind) => {
                let mut after = tokens[at + 1..].iter().map(|token| token.text);
                let name =
                    after.find(|word| is_word(word) && !kinds.contains(word) && !matches!(*word, "mut" | "unsafe"));
                found.extend(name.map(|name| (name, token.line)));
            }
            _ => {}
        }
    }
    found
}

/// Leaves out what is built for unit tests only.
fn without_tests(tokens: Vec<Token>) -> Vec<Token> {
    let words: Vec<&str> = tokens.iter().map(|token| token.text).collect();
    let (mut kept, mut at) = (Vec::new(), 0);
    while at < tokens.len() {
        if let ["#", "[", "cfg", "(", "test", ..] | ["#", "[", "cfg", "(", "all", "(", "test", ..] = words[at..] {
            at = item_end(&tokens, end(&tokens, at, &["]"]));
        } else {
            kept.push(tokens[at]);
            at += 1;
        }
    }
    kept
}

/// Where an item ends that goes on at `at`: behind its `;` or its block.
fn item_end(tokens: &[Token], at: usize) -> usize {
    end(tokens, at, &[";", "}"])
}

/// Behind the first of `last` that is not inside brackets, or where the brackets around `at` are closed.
fn end(tokens: &[Token], at: usize, last: &[&str]) -> usize {
    let mut depth = 0;
    for (here, token) in tokens.iter().enumerate().skip(at) {
        match token.text {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" if depth == 0 => return here,
            "}" | ")" | "]" => depth -= 1,
            _ => {}
        }
        if depth == 0 && last.contains(&token.text) {
            return here + 1;
        }
    }
    tokens.len()
}

/// Whether there is a `pub` at `at`, and where what it belongs to begins.
fn after_visibility(tokens: &[Token], at: usize) -> (bool, usize) {
    let word = |at: usize| tokens.get(at).map_or("", |token| token.text);
    match (word(at), word(at + 1), word(at + 2), word(at + 3)) {
        ("pub", "(", "in", _) | ("pub", "(", "crate" | "self" | "super", ")") => (true, end(tokens, at, &[")"])),
        ("pub", ..) => (true, at + 1),
        _ => (false, at),
    }
}

fn is_word(text: &str) -> bool {
    text.starts_with(|first: char| first == '_' || first.is_alphabetic())
}

/// The words and signs of a text. Comments, lifetimes, strings and characters are left out.
fn tokens(text: &str) -> Vec<Token<'_>> {
    let (mut found, mut rest, mut line) = (Vec::new(), text, 1);
    while let Some(first) = rest.chars().next() {
        let mut token = None;
        let len = if first.is_whitespace() {
            rest.len() - rest.trim_start().len()
        } else if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            comment_len(rest)
        } else if let Some(len) = literal_len(rest) {
            len
        } else {
            let word = rest.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(rest.len());
            let len = if rest.starts_with("::") { 2 } else { word.max(first.len_utf8()) };
            token = Some(Token { text: &rest[..len], line });
            len
        };
        found.extend(token);
        line += rest[..len].matches('\n').count();
        rest = &rest[len..];
    }
    found
}

/// Block comments may contain block comments.
fn comment_len(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        let step = match text.as_bytes()[at..] {
            [b'/', b'*', ..] => (1, 2),
            [b'*', b'/', ..] => (-1, 2),
            _ => (0, 1),
        };
        (depth, at) = (depth + step.0, at + step.1);
        if depth == 0 {
            break;
        }
    }
    at
}

/// The length of the string, character or lifetime a text begins with.
fn literal_len(text: &str) -> Option<usize> {
    let prefix = text.find(|c| !matches!(c, 'b' | 'c' | 'r')).filter(|len| *len <= 2)?;
    let (raw, body) = (text[..prefix].ends_with('r'), &text[prefix..]);
    let quoted = |quote: char| {
        let mut escaped = false;
        let end = body[1..].find(|c| {
            let ends = c == quote && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        end.map_or(text.len(), |end| prefix + 1 + end + 1)
    };
    let hashes = body.len() - body.trim_start_matches('#').len();
    if raw && body[hashes..].starts_with('"') {
        let quote = format!("\"{}", "#".repeat(hashes));
        let start = prefix + hashes + 1;
        return Some(text[start..].find(&quote).map_or(text.len(), |end| start + end + quote.len()));
    }
    let mut chars = body.chars();
    match (chars.next()?, chars.next(), chars.next()) {
        ('"', ..) => Some(quoted('"')),
        ('\'', Some('\\'), _) | ('\'', _, Some('\'')) => Some(quoted('\'')),
        ('\'', ..) => Some(prefix + 1 + body[1..].find(|c: char| c != '_' && !c.is_alphanumeric())?),
        _ => None,
    }
}

/// The source as it is, and what is complained about in it.
fn source() -> &'static (Tree, Vec<String>) {
    static SOURCE: OnceLock<(Tree, Vec<String>)> = OnceLock::new();
    SOURCE.get_or_init(|| {
        let tree = read_source();
        let found = complaints(&tree);
        (tree, found)
    })
}

fn read_source() -> Tree {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut tree, mut folders) = (Tree::new(), vec![root.clone()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(&root).unwrap().to_str().unwrap().replace('\\', "/");
                tree.insert(name, std::fs::read_to_string(path).unwrap());
            }
        }
    }
    tree
}

#[test]
fn the_house_is_in_order() {
    let (tree, found) = source();
    assert!(tree.len() > 50 && House::read(tree).imports().len() > 300, "the source was not found");
    assert!(found.is_empty(), "{} complaints:\n{}", found.len(), found.join("\n"));
}

// Does each rule bite? First where the whole answer can be seen, then in the source as it is.

/// Files with their first line, and a mod.rs where a folder has none.
fn small(files: &[(&str, &str)]) -> Tree {
    let mut tree = Tree::from([("lib.rs".into(), "//! Test.".into())]);
    for (path, text) in files {
        tree.insert((*path).into(), format!("//! Test.\n{text}"));
        for (at, _) in path.match_indices('/') {
            tree.entry(format!("{}/mod.rs", &path[..at])).or_insert("//! Test.".into());
        }
    }
    tree
}

/// Complaints about a few files, for which most rooms need not be there.
fn about(files: &[(&str, &str)]) -> Vec<String> {
    complaints(&small(files)).into_iter().filter(|line| !line.ends_with("but it is not there.")).collect()
}

#[test]
fn comments_and_literals_are_left_out() {
    let text = r####"a /* b /* c */ d */ e // f
        "g \" h" 'i' '\'' '"' '\u{6a}' b'k' br"\" l r#"m " n"# r##"o "# p"## c"q" <'s> 'static é::r2 "
        " ending"####;
    let found: Vec<String> = tokens(text).iter().map(|token| format!("{}:{}", token.text, token.line)).collect();
    assert_eq!(found, ["a:1", "e:1", "l:2", "<:2", ">:2", "é:2", ":::2", "r2:2", "ending:3"]);
}

#[test]
fn what_is_built_for_tests_only_is_left_out() {
    let text = "#[cfg(test)] #[allow(x)] mod tests { a { b } } #[cfg(all(test, unix))] use c; #[cfg(unix)] d \
                struct E { #[cfg(test)] f: G } h";
    let found: Vec<&str> = without_tests(tokens(text)).iter().map(|token| token.text).collect();
    assert_eq!(found.join(" "), "# [ cfg ( unix ) ] d struct E { } h");
}

#[test]
fn imports_lead_to_files() {
    let tree = small(&[
        ("sys/mod.rs", "mod a;\nmod b;\nmod own;\npub use a::*;\npub use self::b::{B, Deep as D};\npub use libc::E;\npub fn own() {}"),
        ("sys/a.rs", "pub struct A;\npub use libc::F;"),
        ("sys/own.rs", "pub struct G;"),
        ("sys/b/mod.rs", "mod deep;\npub(crate) use deep::Deep;\npub struct B;"),
        ("sys/b/deep.rs", "use super::super::{own, a};\nuse super::B;\nuse std::fmt;\npub struct Deep(pub(in crate::sys) a::A);"),
        ("protocol/p.rs", "use crate::{\n    sys::{self, A, b as c, own as mine, D, E, F, own::G},\n};\nuse crate::sys::b::Deep;\nuse crate::sys::*;"),
        ("protocol/q.rs", "fn f() {\n    sys::own(); sys::A::new(); super::p::x::<u8>(); d::x(); C::<u8>::d()\n}\nuse crate::sys;\nuse libc::sys as d;"),
        ("protocol/r.rs", "pub use crate::sys::gone;\nuse self::super::p;\nfn f() { super::p::x(); p::y(); }"),
    ]);
    let house = House::read(&tree);
    let found = house.imports();
    let found = found.iter().map(|i| format!("{}:{} {} = {}", i.from, i.line, i.path, i.to.unwrap_or("?")));
    let found: Vec<String> = found.collect();
    assert_eq!(
        found,
        [
            "protocol/p.rs:3 sys = sys/mod.rs",
            "protocol/p.rs:3 sys::A = sys/a.rs",
            "protocol/p.rs:3 sys::b = sys/b/mod.rs",
            "protocol/p.rs:3 sys::own = sys/mod.rs",
            "protocol/p.rs:3 sys::D = sys/b/deep.rs",
            "protocol/p.rs:3 sys::E = sys/mod.rs",
            "protocol/p.rs:3 sys::F = sys/a.rs",
            "protocol/p.rs:3 sys::own::G = sys/own.rs",
            "protocol/p.rs:5 sys::b::Deep = sys/b/deep.rs",
            "protocol/p.rs:6 sys = sys/mod.rs",
            "protocol/p.rs:6 sys::a = sys/a.rs",
            "protocol/p.rs:6 sys::b::B = sys/b/mod.rs",
            "protocol/p.rs:6 sys::b::Deep = sys/b/deep.rs",
            "protocol/q.rs:5 sys = sys/mod.rs",
            "protocol/q.rs:3 sys::A::new = sys/a.rs",
            "protocol/q.rs:3 protocol::p::x = protocol/p.rs",
            "protocol/r.rs:2 sys::gone = ?",
            "protocol/r.rs:3 protocol::p = protocol/p.rs",
            "protocol/r.rs:4 protocol::p::x = protocol/p.rs",
            "sys/b/deep.rs:2 sys::own = sys/mod.rs",
            "sys/b/deep.rs:2 sys::a = sys/a.rs",
            "sys/b/deep.rs:3 sys::b::B = sys/b/mod.rs",
        ]
    );
}

#[test]
fn small_trees_show_each_rule() {
    let nothing: [&str; 0] = [];
    // Down, within a room, and past what is no code.
    let fine =
        "use crate::sys::a;\nuse super::other;\n// use crate::ffi::a;\nconst A: &str = \"crate::ffi::a unsafe\";\n\
                #[cfg(test)]\nmod tests {\n    use crate::ffi::a;\n}";
    let rest = [
        ("sys/mod.rs", "//! The few calls:\n//! - one"),
        ("sys/a.rs", ""),
        ("ffi/a.rs", "pub struct H(pub(super) u8);\nunsafe fn f() {}"),
        ("protocol/other.rs", ""),
        ("core/controller.rs", "use crate::protocol::other;\nuse crate::core;"),
    ];
    assert_eq!(about(&[&rest[..], &[("protocol/a.rs", fine)]].concat()), nothing);
    // Rooms on one floor: one way is allowed, both ways are not, though no files import each other.
    let one_way = [
        ("core/listener/a.rs", "use crate::core::datagram::a;"),
        ("core/datagram/a.rs", ""),
        ("core/listener/b.rs", ""),
    ];
    assert_eq!(about(&one_way), nothing);
    assert_eq!(
        about(&[&one_way[..], &[("core/datagram/b.rs", "use crate::core::listener::b;")]].concat()),
        ["src/core/datagram/b.rs:2: imports `crate::core::listener::b`, and src/core/listener/a.rs:2: imports \
          `crate::core::datagram::a`; rooms on one floor may not import each other in a circle."]
    );
    // A circle through the re-exports of two folders, with the import that goes up.
    assert_eq!(
        about(&[
            ("identity/mod.rs", "mod a;\npub use a::A;"),
            ("identity/a.rs", "use crate::protocol::B;"),
            ("protocol/mod.rs", "mod b;\nmod c;\npub use self::b::B;"),
            ("protocol/b.rs", "use super::c;"),
            ("protocol/c.rs", "fn f() {\n    crate::identity::A::new()\n}"),
        ]),
        [
            "src/identity/a.rs:2: imports `crate::protocol::B`, but identity (floor 3) may not import from protocol (floor 4) above it.",
            "src/identity/a.rs:2: imports `crate::protocol::B`, and src/protocol/b.rs:2: imports `crate::protocol::c`, and \
             src/protocol/c.rs:3: imports `crate::identity::A::new`; files may not import each other in a circle.",
        ]
    );
    // A child module, which sees what is private in its parent.
    assert_eq!(
        about(&[("protocol/a.rs", "mod b;\npub use self::b::B;"), ("protocol/a/b.rs", "use super::Private;")]),
        [
            "src/protocol/a.rs:2: declares the child module `b`, which only a mod.rs may.",
            "src/protocol/a.rs:3: imports `crate::protocol::a::b::B`, and src/protocol/a/b.rs:2: imports \
             `crate::protocol::a::Private`; files may not import each other in a circle.",
        ]
    );
    // All complaints are told, not only the first.
    assert_eq!(about(&[("identity/a.rs", "use crate::{ffi::A, error::B};\nunsafe fn f() {}")]).len(), 3);
}

/// What is complained about in the source after a change and was not before.
fn after(change: impl FnOnce(&mut Tree)) -> Vec<String> {
    let (mut tree, before) = source().clone();
    change(&mut tree);
    complaints(&tree).into_iter().filter(|complaint| !before.contains(complaint)).collect()
}

/// The same after lines were added, each to a file, with `{}` in `expected` for the number of the line.
fn adding(lines: &[(&str, &str)], expected: &[&str]) {
    let mut numbers = BTreeMap::new();
    let found = after(|tree| {
        for (path, line) in lines {
            let text = tree.entry((*path).into()).or_insert("//! New.".into());
            let text_before = text.trim_end().to_string();
            numbers.insert(format!("src/{path}:{{}}"), format!("src/{path}:{}", text_before.lines().count() + 1));
            *text = format!("{text_before}\n{line}\n");
        }
    });
    let number = |text: &&str| numbers.iter().fold((*text).to_string(), |text, (from, to)| text.replace(from, to));
    assert_eq!(found, expected.iter().map(number).collect::<Vec<_>>());
}

#[test]
fn the_source_with_one_import_too_many() {
    adding(
        &[
            ("core/tunnel/mod.rs", "use crate::sys::SharedFd;"),
            ("sys/socket.rs", "// use crate::ffi;"),
            ("core/mod.rs", "pub use crate::secret::Secret;"),
        ],
        &[],
    );
    adding(
        &[("sys/socket.rs", "fn up() -> crate::ffi::i2psock_fd { 0 }")],
        &["src/sys/socket.rs:{}: imports `crate::ffi::i2psock_fd`, but sys (floor 1) may not import from ffi (floor 16) above it."],
    );
    adding(
        &[("sys/file.rs", "use super::{socket::{a as b}};"), ("sys/socket.rs", "use crate::sys::{file::{self}};")],
        &["src/sys/file.rs:{}: imports `crate::sys::socket::a`, and src/sys/socket.rs:{}: imports `crate::sys::file`; \
           files may not import each other in a circle."],
    );
    adding(
        &[("ffi/base.rs", "use super::new::N;"), ("ffi/new.rs", "use crate::ffi::i2psock_fd;")],
        &["src/ffi/base.rs:{}: imports `crate::ffi::new::N`, and src/ffi/new.rs:{}: imports `crate::ffi::i2psock_fd`; \
           files may not import each other in a circle."],
    );
    adding(
        &[("core/datagram/new.rs", "use crate::core::listener::new;"), ("core/listener/new.rs", ""),
          ("core/listener/old.rs", "use crate::core::datagram::endpoint;")],
        &["src/core/datagram/new.rs:{}: imports `crate::core::listener::new`, and src/core/listener/old.rs:{}: imports \
           `crate::core::datagram::endpoint`; rooms on one floor may not import each other in a circle."],
    );
    adding(
        &[("core/session/session.rs", "use crate::core::session::Nothing;")],
        &["src/core/session/session.rs:{}: imports `crate::core::session::Nothing`, which no file of src declares."],
    );
    adding(
        &[("attic.rs", "pub fn old() {}"), ("ffi/base.rs", "use crate::attic::old;")],
        &["src/attic.rs:1: the file is in none of the rooms in the table of floors.",
          "src/ffi/base.rs:{}: imports `crate::attic::old` from src/attic.rs, which is in none of the rooms in the table of floors."],
    );
}

#[test]
fn the_source_with_one_file_out_of_order() {
    let session = "core/session/session.rs";
    adding(
        &[(session, "struct Half { pub(super) open: u8 }"), ("ffi/base.rs", "struct Handle(pub(super) u8);")],
        &["src/core/session/session.rs:{}: the field `open` of `Half` is pub(super), but no file may touch another file's private fields."],
    );
    adding(
        &[(session, "struct Half<T: Fn()>(T, pub(in crate::core) u8);")],
        &["src/core/session/session.rs:{}: a field of `Half` is pub(in), but no file may touch another file's private fields."],
    );
    adding(
        &[(session, "mod inner;")],
        &["src/core/session/session.rs:{}: declares the child module `inner`, which only a mod.rs may."],
    );
    adding(
        &[("core/session/mod.rs", "mod inner { }")],
        &["src/core/session/mod.rs:{}: the module `inner` stands inside a file; it needs a file of its own."],
    );
    adding(
        &[(session, "unsafe fn f() {}")],
        &["src/core/session/session.rs:{}: uses `unsafe`, which only sys and ffi may."],
    );
    adding(
        &[("core/mod.rs", "pub const fn odd() {}")],
        &["src/core/mod.rs:{}: declares `odd`, but this file may only declare modules and re-export."],
    );
    adding(
        &[("core/mod.rs", "use crate::secret::Secret;")],
        &["src/core/mod.rs:{}: imports `crate::secret::Secret`, but this file may only declare modules and re-export."],
    );
    adding(&[("sys/deep/new.rs", "")], &["src/sys/deep: the folder has no mod.rs to say what lives there."]);
    assert_eq!(
        after(|tree| tree.retain(|path, _| !path.starts_with("ffi/"))),
        ["src/ffi: the table of floors names this room, but it is not there."]
    );
    assert_eq!(
        after(|tree| *tree.get_mut(session).unwrap() = tree[session].replacen("//! ", "// ", 1)),
        ["src/core/session/session.rs:1: the first line is not a `//! ` comment that says what is in the file."]
    );
    assert_eq!(
        after(|tree| *tree.get_mut("ffi/mod.rs").unwrap() = format!("//! The C face\n//!\n{}", tree["ffi/mod.rs"])),
        ["src/ffi/mod.rs:1: the first paragraph has no sentence that ends with a period."]
    );
}
