//! The rules that `docs/ARCHITECTURE.md` states and the compiler does not know, checked over the sources: who imports
//! whom, what the data plane may not use, where `unsafe` and monoio are, and what a file looks like. Every rule is also
//! fed sources that break it, so that it cannot fall silent.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::path::Path;

/// The rooms and their floors: a room may use lower ones.
const FLOORS: [(&str, u8); 18] = [
    ("main", 8),
    ("server", 7),
    ("proxy", 6),
    ("table", 5),
    ("route", 4),
    ("policy", 4),
    ("upstream", 4),
    ("http2", 3),
    ("tls", 2),
    ("net", 1),
    ("http", 1),
    ("expression", 1),
    ("config", 0),
    ("regex", 0),
    ("proxy_protocol", 0),
    ("buf", 0),
    ("clock", 0),
    ("telemetry", 0),
];

/// What runs on a core, by the beginning of its path below `src/`.
const DATA_PLANE: [&str; 18] = [
    "buf/",
    "clock/",
    "net/",
    "http/",
    "http2/",
    "expression/",
    "route/",
    "regex.rs",
    "proxy_protocol.rs",
    "policy/",
    "upstream/",
    "tls/",
    "table/",
    "proxy/",
    "telemetry/",
    "server/worker.rs",
    "server/guard.rs",
    "server/spread.rs",
];

/// Words that mean waiting for another thread, sharing memory with one, or asking the kernel for the time.
const BANNED: [&str; 18] = [
    "Mutex",
    "RwLock",
    "Condvar",
    "Barrier",
    "Once",
    "OnceLock",
    "LazyLock",
    "Atomic*",
    "mpsc",
    "oneshot",
    "Arc",
    "ArrayQueue",
    "thread::sleep",
    "thread::park",
    "Instant::now",
    "SystemTime::now",
    "block_on",
    "JoinHandle",
];

/// Exceptions: file, word, reason. One that nothing needs any more is an error too.
const ALLOWED: [(&str, &str, &str); 33] = [
    ("policy/concurrency.rs", "Arc", "the host's count: held by whatever is under way behind the limit"),
    (
        "policy/concurrency.rs",
        "Atomic*",
        "the host's count: one exchange on entry and one on exit, of routes with the policy",
    ),
    ("clock/mod.rs", "Instant::now", "the clock of the data plane: read once, when it is made"),
    ("clock/mod.rs", "SystemTime::now", "the clock of the data plane: read by the tick"),
    ("clock/mod.rs", "OnceLock", "what the clocks of all cores have in common: set with the first of them"),
    (
        "policy/rate_limit.rs",
        "Arc",
        "the host's buckets: counted when a table is compiled or copied, never per request",
    ),
    (
        "policy/rate_limit/buckets.rs",
        "Atomic*",
        "the host's buckets: one exchange of one word of the key's own, by batches where the limit is large",
    ),
    ("expression/", "Arc", "what the `cel` crate takes its functions in: each core counts its own"),
    (
        "policy/jwt.rs",
        "Arc",
        "a flag of the host's: counted when a table is compiled or copied, never per request",
    ),
    (
        "policy/jwt.rs",
        "Atomic*",
        "whether an issuer's keys are to be fetched anew: touched for a token whose key is not known, and no other",
    ),
    ("policy/basic.rs", "Arc", "immutable users: counted when a table is compiled or copied"),
    (
        "policy/password.rs",
        "Arc",
        "immutable hashes: counted when one is to be tried, which takes long by itself",
    ),
    (
        "proxy/passwords.rs",
        "ArrayQueue",
        "the way to those who try passwords: once for each that is tried, never waited for",
    ),
    ("net/event.rs", "Arc", "the mailbox: two ends on two threads"),
    ("net/event.rs", "ArrayQueue", "the mailbox: a lock-free queue, looked into when the doorbell rang"),
    ("net/provided.rs", "Atomic*", "the tail of the ring of buffers, which the kernel reads"),
    ("net/runtime.rs", "block_on", "where a core's thread enters its runtime"),
    ("telemetry/log_queue.rs", "Arc", "the way to the log's writer: two ends on two threads"),
    ("telemetry/log_queue.rs", "ArrayQueue", "the way to the log's writer: once per batch, never waited for"),
    ("telemetry/log_writer.rs", "Arc", "the log writer's thread: no core runs it"),
    ("telemetry/log_writer.rs", "Atomic*", "the log writer's thread: orders to it"),
    ("telemetry/log_writer.rs", "JoinHandle", "the log writer's thread: its end"),
    ("telemetry/log_writer.rs", "thread::park", "the log writer's thread: it waits for batches"),
    (
        "route/compile.rs",
        "Arc",
        "immutable, and counted when a table is compiled or copied, never per request",
    ),
    ("route/table.rs", "Arc", "immutable, and counted when a table is copied, never per request"),
    ("proxy/", "Arc", "configurations of rustls: counted when a handshake begins, never per request"),
    ("tls/", "Arc", "what rustls takes; made when a table is compiled or a core gets its configuration"),
    ("table/", "Arc", "immutable, and counted when a table is compiled or copied, never per request"),
    ("upstream/balance/maglev.rs", "Arc", "immutable, and counted when a table is copied, never per request"),
    ("server/worker.rs", "oneshot", "a core's answers to the control plane: it sends and does not wait"),
    ("server/worker.rs", "JoinHandle", "the control plane's view of a core"),
    ("server/spread.rs", "Arc", "the cores' counts of connections: made once, before the cores start"),
    (
        "server/spread.rs",
        "Atomic*",
        "the cores' counts of connections: looked at on accept, so that few and long ones are spread; never per request",
    ),
];

/// Lines of a file, at most: beyond it is more than one thing.
const LINES_MAX: usize = 700;

/// A file below `src/`.
struct Source {
    /// Its path there.
    path: String,
    text: String,
    /// The text without comments, texts and tests: the same lines, so that they can be numbered.
    code: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        Self { path: path.into(), text: text.into(), code: without_tests(&bare(text)) }
    }

    /// The room that it is in.
    fn room(&self) -> &str {
        self.path.split(['/', '.']).next().unwrap()
    }

    fn is_test(&self) -> bool {
        self.path.ends_with("tests.rs") || self.path.contains("/tests/")
    }
}

/// Every file below `src/`.
fn sources() -> Vec<Source> {
    fn collect(directory: &Path, root: &Path, into: &mut Vec<Source>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, root, into);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap();
                into.push(Source::new(name, &std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    let root = support::repository("src");
    let mut all = Vec::new();
    collect(&root, &root, &mut all);
    assert!(all.len() > 100, "only {} files were found", all.len());
    all
}

/// Rust without its comments and the contents of its texts: blanks in their place, line ends kept.
fn bare(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut blank = |from: usize, to: usize| {
        out[from..to].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
    };
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes[at..].starts_with(b"//") => at + text[at..].find('\n').unwrap_or(text.len() - at),
            b'/' if bytes[at..].starts_with(b"/*") => {
                at + text[at..].find("*/").map_or(text.len() - at, |n| n + 2)
            }
            b'r' if raw_text(&text[at..]).is_some() && !is_word(bytes, at) => {
                at + raw_text(&text[at..]).unwrap()
            }
            b'"' => at + quoted(&bytes[at..]),
            b'\'' => at + character(&bytes[at..]),
            _ => {
                at += 1;
                continue;
            }
        };
        blank(at, end);
        at = end;
    }
    String::from_utf8(out).unwrap()
}

/// Whether the byte before continues a word; `br"…"` is a text all the same.
fn is_word(bytes: &[u8], at: usize) -> bool {
    let before = |back: usize| at.checked_sub(back).map(|at| bytes[at]);
    let is_letter = |byte: Option<u8>| byte.is_some_and(|byte| byte == b'_' || byte.is_ascii_alphanumeric());
    is_letter(before(1)) && (before(1) != Some(b'b') || is_letter(before(2)))
}

/// The length of the raw text that `text` begins with.
fn raw_text(text: &str) -> Option<usize> {
    let hashes = text[1..].bytes().take_while(|byte| *byte == b'#').count();
    text[1 + hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let start = hashes + 2;
    Some(start + text[start..].find(&end)? + end.len())
}

/// The length of the text in quotes that `bytes` begin with.
fn quoted(bytes: &[u8]) -> usize {
    let mut at = 1;
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

/// The length of the character that `bytes` begin with; 1 for a lifetime's mark.
fn character(bytes: &[u8]) -> usize {
    match bytes {
        [_, b'\\', _, rest @ ..] => 3 + rest.iter().position(|byte| *byte == b'\'').map_or(0, |at| at + 1),
        [_, _, b'\'', ..] => 3,
        _ => 1,
    }
}

/// Blanks what is only compiled for tests: an item behind `#[cfg(test)]`.
fn without_tests(code: &str) -> String {
    let mut out = String::new();
    let mut rest = code;
    while let Some(at) = rest.find("#[cfg(test)]") {
        out.push_str(&rest[..at]);
        let item = &rest[at..];
        let end = match item.find(['{', ';']) {
            Some(start) if item[start..].starts_with('{') => start + block(&item[start..]),
            Some(end) => end + 1,
            None => item.len(),
        };
        out.extend(item[..end].chars().filter(|c| *c == '\n'));
        rest = &item[end..];
    }
    out + rest
}

/// The length of the block in braces that `code` begins with.
fn block(code: &str) -> usize {
    let mut depth = 0;
    for (at, c) in code.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    code.len()
}

/// Where `word` stands in `code` as a whole word. A `*` at its end stands for more letters.
fn places(code: &str, word: &str) -> Vec<usize> {
    let (stem, is_open) = word.strip_suffix('*').map_or((word, false), |stem| (stem, true));
    let is_letter = |c: Option<char>| c.is_some_and(|c| c == '_' || c.is_alphanumeric());
    let is_whole = |at: usize| {
        !is_letter(code[..at].chars().next_back())
            && (is_open || !is_letter(code[at + stem.len()..].chars().next()))
    };
    code.match_indices(stem).map(|(at, _)| at).filter(|at| is_whole(*at)).collect()
}

fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// The rooms that a source names: `crate::room`, also in groups `crate::{room, other::{…}}`; `ringgate::` where the crate
/// is used by its name; `super::super::` where that leads to the root. With the places.
fn imports(source: &Source) -> Vec<(String, usize)> {
    let code = &source.code;
    // How many modules up the root is.
    let is_file = !source.path.ends_with("mod.rs");
    let depth = source.path.matches('/').count() + usize::from(is_file);
    let to_root = vec!["super"; depth].join("::");
    let mut found = Vec::new();
    for root in ["crate", "ringgate", &to_root] {
        for at in places(code, root) {
            let Some(rest) = code[at + root.len()..].strip_prefix("::") else { continue };
            let names = match rest.strip_prefix('{') {
                Some(_) => group(&rest[1..block(rest) - 1]),
                None => vec![first_word(rest)],
            };
            found.extend(names.into_iter().map(|name| (name, at)));
        }
    }
    found
}

fn first_word(text: &str) -> String {
    text.trim_start().chars().take_while(|c| *c == '_' || c.is_alphanumeric()).collect()
}

/// The first words of a group's parts, inner groups left out.
fn group(text: &str) -> Vec<String> {
    let mut depth = 0;
    let parts = text.split(|c| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        c == ',' && depth == 0
    });
    parts.map(first_word).filter(|word| !word.is_empty()).collect()
}

fn floor(room: &str) -> Option<u8> {
    FLOORS.iter().find(|(name, _)| *name == room).map(|(_, floor)| *floor)
}

/// (a) Rooms use lower rooms alone.
fn floors(source: &Source) -> Vec<String> {
    let room = source.room();
    if room == "lib" {
        return Vec::new();
    }
    let Some(own) = floor(room) else { return vec![format!("{}: a room without a floor", source.path)] };
    let is_above = |name: &str| name != room && floor(name).is_some_and(|other| other >= own);
    let found = imports(source).into_iter().filter(|(name, _)| is_above(name));
    found.map(|(name, at)| format!("{}:{}: uses {name}", source.path, line_of(&source.code, at))).collect()
}

/// (b) The data plane neither waits for other threads nor shares memory with them. `used` learns which exceptions
/// were needed.
fn waiting(source: &Source, used: &mut [bool]) -> Vec<String> {
    if source.is_test() || !DATA_PLANE.iter().any(|start| source.path.starts_with(start)) {
        return Vec::new();
    }
    let mut found = Vec::new();
    for word in BANNED {
        for at in places(&source.code, word) {
            let allowed =
                ALLOWED.iter().position(|(path, of, _)| source.path.starts_with(path) && *of == word);
            match allowed {
                Some(place) => used[place] = true,
                None => {
                    found.push(format!("{}:{}: uses {word}", source.path, line_of(&source.code, at)));
                }
            }
        }
    }
    found
}

/// (c) `unsafe` is in `buf` and `net`, and says each time why it is right.
fn unsafety(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    let lines: Vec<&str> = source.text.lines().collect();
    for at in places(&source.code, "unsafe") {
        let line = line_of(&source.code, at);
        if !["buf", "net"].contains(&source.room()) {
            found.push(format!("{}:{line}: unsafe", source.path));
        }
        // What a trait's unsafe function must keep, the trait says.
        let is_function = source.code[at..].trim_start_matches("unsafe").trim_start().starts_with("fn");
        let above = lines[..line - 1].iter().rev().map(|line| line.trim());
        // The comment stands above the statement, which may begin a line or two before the word.
        let is_explained = above
            .clone()
            .take(8)
            .skip_while(|line| !line.starts_with("//"))
            .any(|line| line.starts_with("// SAFETY: "))
            && above
                .take_while(|line| !line.starts_with("// SAFETY: "))
                .all(|line| !line.ends_with(['}', ';']));
        if !is_function && !is_explained {
            found.push(format!("{}:{line}: unsafe without a reason", source.path));
        }
    }
    found
}

/// (d) monoio is behind `net`, and the protocol sees neither sockets nor clocks.
fn borders(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    let mut refuse = |word: &str, at: usize| {
        found.push(format!("{}:{}: uses {word}", source.path, line_of(&source.code, at)));
    };
    if source.room() != "net" {
        places(&source.code, "monoio").into_iter().for_each(|at| refuse("monoio", at));
        places(&source.code, "io_uring").into_iter().for_each(|at| refuse("io_uring", at));
    }
    if source.room() == "http" {
        for (name, at) in imports(source) {
            if ["net", "clock"].contains(&name.as_str()) {
                refuse(&name, at);
            }
        }
        for word in ["TcpStream", "Instant", "SystemTime", "async", "tokio"] {
            places(&source.code, word).into_iter().for_each(|at| refuse(word, at));
        }
    }
    found
}

/// (e) A file says what it is, and is not too long.
fn form(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    if !source.text.starts_with("//! ") {
        found.push(format!("{}: does not say what it is", source.path));
    }
    let lines = source.text.lines().count();
    if lines > LINES_MAX {
        found.push(format!("{}: has {lines} lines", source.path));
    }
    found
}

fn assert_none(found: Vec<String>) {
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

/// Asserts that a rule finds so much in a source that breaks it.
fn assert_bites(rule: impl Fn(&Source) -> Vec<String>, path: &str, text: &str, times: usize) {
    let found = rule(&Source::new(path, text));
    assert_eq!(found.len(), times, "in {path}:\n{text}\nfound: {found:#?}");
}

#[test]
fn rooms_use_lower_rooms_alone() {
    assert_none(sources().iter().flat_map(floors).collect());

    assert_bites(floors, "http/a.rs", "use crate::net::Rx;", 1);
    assert_bites(floors, "config/a.rs", "use crate::{\n    buf::{Buf, Size},\n    config::types,\n};", 1);
    assert_bites(floors, "route/a.rs", "fn f() { crate::policy::is_token(b\"\") }", 1);
    assert_bites(floors, "policy/a/b.rs", "pub(crate) use crate::{http::{field, path}, {table::Table}};", 0);
    assert_bites(floors, "upstream/a.rs", "use crate::{net::{self, Tx}, table, proxy::Core};", 2);
    assert_bites(floors, "server/a.rs", "use ringgate::main;", 1);
    assert_bites(floors, "http/a.rs", "use super::field; use super::super::net::Rx;", 1);
    assert_bites(floors, "http/mod.rs", "use super::net::Rx; mod net;", 1);
    assert_bites(floors, "cache/a.rs", "", 1);
    let innocent = "//! crate::server\n/* crate::server */ const A: &str = \"crate::server\";\nuse crate::buf::Buf;\n\
                    #[cfg(test)]\nmod tests {\n    use crate::server;\n}\n";
    assert_bites(floors, "net/a.rs", innocent, 0);
}

#[test]
fn the_data_plane_waits_for_no_one_and_shares_nothing() {
    let mut used = [false; ALLOWED.len()];
    assert_none(sources().iter().flat_map(|source| waiting(source, &mut used)).collect());
    let stale = ALLOWED.iter().zip(used).filter(|(_, used)| !used);
    assert_none(stale.map(|((path, word, _), _)| format!("{path} needs no {word} any more")).collect());

    let rule = |source: &Source| waiting(source, &mut [false; ALLOWED.len()]);
    assert_bites(rule, "proxy/a.rs", "use std::sync::{Mutex, atomic::AtomicU64};", 2);
    assert_bites(rule, "buf/mod.rs", "static A: std::sync::atomic::AtomicBool;", 1);
    assert_bites(rule, "clock/date.rs", "let a = Instant::now(); let b = std::time::SystemTime::now();", 2);
    assert_bites(rule, "server/guard.rs", "std::thread::sleep(a); let (a, b) = mpsc::channel();", 2);
    assert_bites(rule, "net/listen.rs", "fn f(a: Arc<ArrayQueue<u8>>) {}", 2);
    assert_bites(rule, "net/event.rs", "fn f(a: Arc<ArrayQueue<u8>>, b: RwLock<u8>) {}", 1);
    assert_bites(rule, "server/control/mod.rs", "use std::sync::Mutex;", 0);
    assert_bites(rule, "server/spread.rs", "fn f(a: Arc<AtomicUsize>, b: Mutex<u8>) {}", 1);
    assert_bites(rule, "server/worker.rs", "static A: AtomicUsize = AtomicUsize::new(0);", 2);
    assert_bites(rule, "http/a.rs", "// Mutex\nstruct MutexLike; const A: &str = r#\"\"Mutex\"#;", 0);
    assert_bites(rule, "http/a.rs", "const A: char = '\"'; type B = Mutex<u8>; const C: char = '\"';", 1);
    assert_bites(rule, "http/a.rs", "fn f<'a>(a: &'a Mutex<u8>) -> &'a u8 {}", 1);
}

#[test]
fn unsafe_is_in_two_rooms_and_explained() {
    let all = sources();
    assert_none(all.iter().flat_map(unsafety).collect());
    assert!(all.iter().any(|source| !places(&source.code, "unsafe").is_empty()), "the rule sees none at all");

    assert_bites(unsafety, "net/a.rs", "fn f() {\n    unsafe { g() }\n}", 1);
    assert_bites(unsafety, "net/a.rs", "fn f() {\n    // SAFETY: g is fine.\n    unsafe { g() }\n}", 0);
    assert_bites(unsafety, "net/a.rs", "// SAFETY: fine.\nunsafe { g() };\nunsafe { h() };", 1);
    assert_bites(unsafety, "net/a.rs", "// SAFETY: fine.\nlet a =\n    unsafe { g() };", 0);
    assert_bites(unsafety, "proxy/a.rs", "// SAFETY: fine.\nunsafe { g() };", 1);
    assert_bites(unsafety, "proxy/a.rs", "// unsafe\n#![deny(unsafe_code)]", 0);
}

#[test]
fn monoio_is_behind_one_room_and_the_protocol_knows_no_socket_or_clock() {
    let all = sources();
    assert_none(all.iter().flat_map(borders).collect());
    for driver in ["monoio", "io_uring"] {
        assert!(
            all.iter().any(|source| !places(&source.code, driver).is_empty()),
            "the rule sees no {driver}"
        );
    }

    assert_bites(borders, "proxy/a.rs", "use monoio::net::TcpStream;", 1);
    assert_bites(borders, "server/a.rs", "io_uring::IoUring::builder()", 1);
    assert_bites(borders, "net/a.rs", "use monoio::net::TcpStream;", 0);
    assert_bites(borders, "http/a.rs", "use crate::{buf::Buf, clock::Clock};", 1);
    assert_bites(borders, "http/a.rs", "async fn f(a: std::net::TcpStream) {}", 2);
}

#[test]
fn files_say_what_they_are_and_are_not_too_long() {
    assert_none(sources().iter().flat_map(form).collect());

    assert_bites(form, "proxy/a.rs", "use std::io;\n", 1);
    assert_bites(form, "proxy/a.rs", &format!("//! A.\n{}", "\n".repeat(LINES_MAX)), 1);
    assert_bites(form, "proxy/a.rs", &format!("//! A.\n{}", "\n".repeat(LINES_MAX - 1)), 0);
}
