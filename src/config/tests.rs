//! What is said about files that are wrong: each rule with a file that breaks it, the place, the words and the hint.

mod announced;
mod policies;
mod tls;

use std::{collections::HashMap, path::Path};

use super::{
    Diagnostics, Severity, inspect,
    interpolate::{Environment, NoEnvironment},
    load, parse,
    source::key_path,
    types::{HashOn, ValueMatch, Workers},
    values::{ByteSize, Span},
};

/// A file without faults, to which a test adds one. It has one listener `l`, one cluster `c`, one route `r`.
const FINE: &str = "\
[[listener]]
name = \"l\"
address = \"127.0.0.1:8080\"

[[cluster]]
name = \"c\"
endpoints = [{ address = \"10.0.0.1:80\" }]

[[route]]
name = \"r\"
cluster = \"c\"
";

struct Fixed(HashMap<&'static str, &'static str>);

impl Environment for Fixed {
    fn variable(&self, name: &str) -> Result<String, String> {
        self.0.get(name).map(|value| (*value).to_owned()).ok_or_else(|| "is not set".into())
    }

    fn file(&self, path: &Path) -> Result<String, String> {
        self.variable(path.to_str().unwrap_or_default())
    }
}

/// Every diagnostic as "line:column severity: message".
fn said(diagnostics: &Diagnostics) -> Vec<String> {
    let line = |one: &&super::Diagnostic| {
        let severity = match one.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let (line, column) =
            one.span.as_ref().map_or((0, 0), |span| diagnostics.source().position(span.start));
        format!("{line}:{column} {severity}: {}", one.message)
    };
    diagnostics.sorted().iter().map(line).collect()
}

fn faults(text: &str) -> Vec<String> {
    said(&inspect("t", text, &NoEnvironment).diagnostics)
}

/// Checks the lines that `added` brings to a good file: each of them is `(text, faults)` on its own, with lines counted
/// from where `added` begins.
#[track_caller]
fn assert_added(added: &str, expected: &[&str]) {
    let lines = FINE.lines().count();
    let shifted: Vec<String> = expected
        .iter()
        .map(|fault| {
            let (line, rest) = fault.split_once(':').unwrap();
            format!("{}:{rest}", line.parse::<usize>().unwrap() + lines)
        })
        .collect();
    assert_eq!(faults(&format!("{FINE}{added}")), shifted, "{added}");
}

#[test]
fn a_good_file_has_no_faults() {
    assert_eq!(faults(FINE), [""; 0]);
}

#[test]
fn a_misspelt_key_is_recognised() {
    let text = FINE.replace("address = \"127", "adress = \"127");
    assert_eq!(faults(&text), ["3:1 error: unknown key `adress`, did you mean `address`?"]);
}

#[test]
fn forms() {
    for (added, expected) in [
        (
            "[runtime]\nworkers = 0",
            "2:11 error: `runtime.workers` must be \"auto\" or an integer from 1 to 1024",
        ),
        (
            "[runtime]\nworkers = \"all\"",
            "2:11 error: `runtime.workers` must be \"auto\" or an integer from 1 to 1024",
        ),
        ("[runtime]\nworkers = \"Auto\"", "2:11 error: unknown value \"Auto\", did you mean \"auto\"?"),
        (
            "[runtime]\ndriver = \"iouring\"",
            "2:10 error: unknown value \"iouring\", did you mean \"io_uring\"?",
        ),
        (
            "[runtime]\nring_entries = 32",
            "2:16 error: `runtime.ring_entries` must be an integer from 256 to 32768",
        ),
        (
            "[runtime]\nmax_connections = 0",
            "2:19 error: `runtime.max_connections` must be an integer of at least 1",
        ),
        ("[runtime]\nbuffers = 63", "2:11 error: `runtime.buffers` must be an integer of at least 64"),
        (
            "[runtime]\nbuffers = 9223372036854775808",
            "2:11 error: `runtime.buffers` must be an integer of at least 64",
        ),
        ("[limits]\nheaders = 0x101", "2:11 error: `limits.headers` must be an integer from 1 to 256"),
        ("[limits]\nheaders = -1", "2:11 error: `limits.headers` must be an integer from 1 to 256"),
        ("[limits]\nheaders = 1.5", "2:11 error: `limits.headers` must be an integer from 1 to 256"),
        ("[limits]\nbody_bytes = 1", "2:14 error: `limits.body_bytes` must be a size such as \"64KiB\""),
        (
            "[limits]\nbody_bytes = \"1kb\"",
            "2:14 error: `limits.body_bytes` must be a size such as \"64KiB\"",
        ),
        ("[timeouts]\nhead = \"9\"", "2:8 error: `timeouts.head` must be a duration such as \"5s\""),
        ("[timeouts]\nhead = \"999999d\"", "2:8 error: `timeouts.head` must be a duration such as \"5s\""),
        ("[forwarding]\nforwarded = \"yes\"", "2:13 error: `forwarding.forwarded` must be true or false"),
        ("[core]\ncpu = 0", "1:1 error: `core` must be a list of tables"),
        ("[[limits]]\nheaders = 1", "1:1 error: `limits` must be a table"),
        ("[[core]]", "1:1 error: missing key `cpu` in `core`"),
        ("core = 1", "1:1 error: unknown key `core`"),
        ("[x]", "1:2 error: unknown key `x`"),
        (
            "[[route]]\nname = \"s\"\nredirect = \"/\"",
            "3:12 error: `route.redirect` must be a table with `to`",
        ),
    ] {
        assert_added(added, &[expected]);
    }
}

#[test]
fn alternatives_are_named() {
    let route =
        |matches: &str| format!("[[route]]\nname = \"s\"\ncluster = \"c\"\nmatch.header.x = {matches}");
    let value = "4:18 error: `route.match.header.x` must be a string, or a table with `regex` or `present`";
    assert_added(&route("1"), &[value]);
    assert_added(&route("{}"), &[value]);
    assert_added(&route("{ regx = 'a' }"), &[value]);
    assert_added(&route("{ regex = 1 }"), &["4:28 error: `route.match.header.x.regex` must be a string"]);
    assert_added(
        &route("{ regex = 'a', present = true }"),
        &["4:33 error: `regex` and `present` exclude each other in `route.match.header.x`"],
    );
    assert_added(&route("{ regex = 'a', x = 1 }"), &["4:33 error: unknown key `x`"]);
    let hash = |on: &str| {
        let text = "[[cluster]]\nname = \"d\"\nbalance = \"hash\"\nendpoints = [{ address = \"[::1]:1\" }]\n";
        format!("{text}hash_on = {on}\n[[route]]\nname = \"s\"\ncluster = \"d\"\n")
    };
    assert_added(
        &hash("\"client-ip\""),
        &["5:11 error: unknown value \"client-ip\", did you mean \"client_ip\"?"],
    );
    let either = "5:11 error: `cluster.hash_on` must be \"client_ip\", \"path\", or a table with `header`, `cookie` or `query`";
    assert_added(&hash("{ headr = \"x\" }"), &[either]);
    assert_added(&hash("\"nothing like it\""), &[either]);
    assert_added(&hash("{ header = \"a b\" }"), &["5:22 error: `a b` is not a field name"]);
    assert_added(&hash("{ query = \"\" }"), &["5:21 error: the query parameter needs a name"]);
    assert_added(&hash("{ cookie = \"id\" }"), &[]);
}

#[test]
fn hints() {
    let shown =
        |added: &str| inspect("t", &format!("{FINE}{added}"), &NoEnvironment).diagnostics.render(false);
    for (added, hint) in [
        ("[timeouts]\nhead = 10", "write a unit: \"10s\""),
        ("[limits]\nhead_bytes = 4096", "write a unit: \"4096B\""),
        ("[limits]\nheaders = \"10\"", "write it without quotes: 10"),
        ("[core]\ncpu = 0", "write `[[core]]`"),
        ("[[limits]]\nheaders = 1", "there is only one: write `[limits]`"),
        ("[runtime]\nqqq = 1", "the keys in `runtime` are `workers`, `driver`, "),
        ("[[cluster]]\nname = 'd'\nhash_on = { headr = 'x' }", "did you mean `header`?"),
        ("a = 1 b = 2", "the rest of the file is checked once it is valid TOML"),
    ] {
        assert!(shown(added).contains(hint), "{added}: {}", shown(added));
    }
}

#[test]
fn names() {
    assert_added("[[route]]\nname = \"r\"\ncluster = \"c\"", &["2:8 error: duplicate route name `r`"]);
    assert_added(
        "[[route]]\nname = \"\"\ncluster = \"c\"",
        &["2:8 error: a route needs a name that is not empty"],
    );
    assert_added(
        "[[route]]\nname = \"a\\nb\"\ncluster = \"c\"",
        &["2:8 error: the name of a route is one short line"],
    );
    assert_added(
        "[[route]]\nname = \"s\"\ncluster = \"d\"",
        &["3:11 error: unknown cluster `d`, did you mean `c`?"],
    );
    assert_added(
        "[[route]]\nname = \"s\"\ncluster = \"elsewhere\"",
        &["3:11 error: unknown cluster `elsewhere`"],
    );
    assert_added(
        "[[route]]\nname = \"s\"\ncluster = \"c\"\nlisteners = [\"l\", \"public\"]",
        &["4:19 error: unknown listener `public`"],
    );
    assert_added("[[core]]\ncpu = 0\nlisteners = [\"xyz\"]", &["3:14 error: unknown listener `xyz`"]);
    // The first of two is pointed at as well.
    let text = format!("{FINE}[[route]]\nname = \"r\"\ncluster = \"c\"");
    let shown = parse("t", &text, &NoEnvironment).unwrap_err().render(false);
    assert!(
        shown.contains("t:13:8") && shown.contains("t:10:8") && shown.contains("first used here"),
        "{shown}"
    );
}

#[test]
fn one_fault_is_not_reported_twice() {
    // The cluster may well be `d`, the route may well go to it.
    let text = FINE.replace("name = \"c\"", "nmae = \"c\"").replace("cluster = \"c\"", "cluster = \"ddddd\"");
    assert_eq!(faults(&text), ["6:1 error: unknown key `nmae`, did you mean `name`?"]);
    let text = FINE.replace("cluster = \"c\"", "clutser = \"c\"");
    assert_eq!(faults(&text), ["11:1 error: unknown key `clutser`, did you mean `cluster`?"]);
    let text = FINE.replace("cluster = \"c\"", "cluster = 1");
    assert_eq!(faults(&text), ["11:11 error: `route.cluster` must be a string"]);
    let text = FINE.replace("address = \"127.0.0.1:8080\"", "address = 8080");
    assert_eq!(faults(&text), ["3:11 error: `listener.address` must be a string"]);
    let text = FINE.replace("[[listener]]", "[listener]");
    assert_eq!(faults(&text), ["1:1 error: `listener` must be a list of tables"]);
}

#[test]
fn form_and_meaning_are_judged_together() {
    let text =
        FINE.replace("cluster = \"c\"", "cluster = \"d\"\nx = 1").replace("127.0.0.1:8080", "localhost");
    let expected = [
        "3:11 error: `localhost` is not an address",
        "11:11 error: unknown cluster `d`, did you mean `c`?",
        "12:1 error: unknown key `x`",
    ];
    assert_eq!(faults(&text), expected);
}

#[test]
fn syntax() {
    let found = faults("[[listener]]\nname = \nx = 'a\ny = 1");
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("2:") && found[1].starts_with("3:"), "{found:?}");
    let found = faults(&format!("{FINE}name = \"s\"\n"));
    assert_eq!(found, ["12:1 error: duplicate key"]);
    assert_eq!(faults(&"[".repeat(100_000)).len(), 1);
}

#[test]
fn listeners() {
    let listener =
        |name: &str, address: &str| format!("[[listener]]\nname = \"{name}\"\naddress = \"{address}\"\n");
    let clash = "3:11 error: this listener clashes with listener `l`";
    assert_added(&listener("m", "127.0.0.1:8080"), &[clash]);
    assert_added(&listener("m", "0.0.0.0:8080"), &[clash]);
    for fine in ["127.0.0.2:8080", "127.0.0.1:8081", "[::]:8080", "[::1]:8080"] {
        assert_added(&listener("m", fine), &[]);
    }
    assert_added(&format!("{}{}", listener("m", "0.0.0.0:0"), listener("n", "0.0.0.0:0")), &[]);
    assert_added(&listener("m", "example.com:80"), &["3:11 error: `example.com:80` is not an address"]);
    assert_added(
        &format!("{}backlog = 0", listener("m", "[::]:1")),
        &["4:11 error: `listener.backlog` must be an integer from 1 to 1048576"],
    );
    assert_added(
        &format!("{}trusted_proxies = [\"10.0.0.1/8\", \"::1\"]", listener("m", "[::]:1")),
        &["4:20 warning: `10.0.0.1/8` has host bits set", "4:34 error: `::1` is not a network"],
    );
    assert_eq!(faults(""), ["0:0 error: there is no listener"]);
}

#[test]
fn limits_and_timeouts() {
    let limits = |text: &str| format!("[limits]\n{text}");
    assert_added(&limits("head_bytes = \"65KiB\""), &["2:14 error: `head_bytes` is out of range: 65KiB"]);
    assert_added(
        &limits("head_bytes = \"1B\"\ntarget_bytes = \"1B\""),
        &["2:14 error: `head_bytes` is out of range: 1B"],
    );
    assert_added(&limits("target_bytes = \"0B\""), &["2:16 error: `target_bytes` must not be zero"]);
    let beyond = "error: `target_bytes` (8KiB) is more than `head_bytes` (4KiB)";
    // `target_bytes` has its default: its table is pointed at.
    assert_added(&limits("head_bytes = \"4KiB\""), &[&format!("1:1 {beyond}")]);
    assert_added(
        &limits("head_bytes = 4"),
        &["2:14 error: `limits.head_bytes` must be a size such as \"64KiB\""],
    );
    let listener = "[[listener]]\nname = \"m\"\naddress = \"[::]:1\"\n";
    assert_added(&format!("{listener}limits.head_bytes = \"4KiB\""), &[&format!("4:21 {beyond}")]);
    assert_added(
        &format!("{listener}limits.target_bytes = \"32KiB\""),
        &["4:23 error: `target_bytes` (32KiB) is more than `head_bytes` (16KiB)"],
    );
    assert_added(
        &format!("{listener}timeouts.write_stall = \"0ms\""),
        &["4:24 error: `write_stall` must not be zero"],
    );
}

#[test]
fn zero_is_refused_where_it_has_no_meaning() {
    for key in ["head", "body_idle", "keep_alive", "write_stall"] {
        let expected = format!("2:{} error: `{key}` must not be zero", key.len() + 4);
        assert_added(&format!("[timeouts]\n{key} = \"0s\""), &[&expected]);
    }
    for key in ["connection_age", "tunnel_idle"] {
        assert_added(&format!("[timeouts]\n{key} = \"0s\""), &[]);
    }
    let cluster = |text: &str| FINE.replace("endpoints", &format!("{text}\nendpoints"));
    for key in [
        "timeouts.connect",
        "timeouts.first_byte",
        "timeouts.idle",
        "pool.idle_timeout",
        "pool.queue_timeout",
    ] {
        let name = key.split('.').next_back().unwrap();
        let expected = format!("7:{} error: `{name}` must not be zero", key.len() + 4);
        assert_eq!(faults(&cluster(&format!("{key} = \"0s\""))), [expected]);
    }
    for fine in
        ["pool = { idle_timeout = \"0s\", max_idle = 0 }", "pool = { queue_timeout = \"0s\", queue = 0 }"]
    {
        assert_eq!(faults(&cluster(fine)), [""; 0]);
    }
}

#[test]
fn process() {
    assert_added("[runtime]\nring_entries = 300", &["2:16 error: `ring_entries` is not a power of two: 300"]);
    assert_added(
        "[[core]]\ncpu = 0\nring_entries = 400",
        &["3:16 error: `ring_entries` is not a power of two: 400"],
    );
    assert_added("[[core]]\ncpu = 1\n[[core]]\ncpu = 1", &["4:7 error: CPU 1 is tuned twice"]);
    assert_added("[[core]]\ncpu = 1\nlisteners = []", &["3:13 warning: CPU 1 would serve no listener"]);
    assert_added("[forwarding]\nvia = \"a b\"", &["2:7 error: `a b` cannot stand in `Via`"]);
    assert_added("[forwarding]\nvia = \"\"", &[]);
    assert_added("[access_log]\npath = \"\"", &["2:8 error: the access log needs a path"]);
    assert_added("[access_log]\npath = \"\"\nformat = \"off\"", &[]);
}

#[test]
fn clusters() {
    let with = |text: &str| faults(&FINE.replace("endpoints = [{ address = \"10.0.0.1:80\" }]", text));
    let endpoints = "endpoints = [{ address = \"10.0.0.1:80\" }]";
    assert_eq!(with(""), ["5:1 error: missing key `endpoints` in `cluster`"]);
    assert_eq!(with("endpoints = []"), ["7:13 error: a cluster needs at least one endpoint"]);
    assert_eq!(
        with("endpoints = [{ address = \"10.0.0.1:0\" }]"),
        ["7:26 error: an endpoint needs a port that is not 0",]
    );
    assert_eq!(
        with("endpoints = [{ address = \"10.0.0.1:1\", weight = 0 }]"),
        ["7:13 error: every endpoint of this cluster has a weight of 0",]
    );
    assert_eq!(
        with("endpoints = [{ address = \"10.0.0.1:1\", weight = -1 }]"),
        ["7:49 error: `cluster.endpoints.weight` must be an integer from 0 to 65535",]
    );
    assert_eq!(
        with("endpoints = [{ address = \"10.0.0.1:1\" }, { address = \"10.0.0.1:1\" }]"),
        ["7:54 warning: this endpoint is in the cluster twice",]
    );
    assert_eq!(
        with(&format!("{endpoints}\nhash_on = \"path\"")),
        ["8:11 error: `hash_on` has no effect without `balance = \"hash\"`",]
    );
    assert_eq!(with(&format!("{endpoints}\nbalance = \"hash\"")), [""; 0]);
    assert_eq!(with(&format!("{endpoints}\nhost = \"a/b\"")), ["8:8 error: `a/b` is not a host"]);
    assert_eq!(
        with(&format!("{endpoints}\nhost = \"preserved\"")),
        ["8:8 warning: `preserved` is sent as it stands, did you mean `preserve`?",]
    );
    assert_eq!(with(&format!("{endpoints}\nhost = \"api.internal:8080\"")), [""; 0]);
    assert_eq!(
        with(&format!("{endpoints}\nsticky.cookie = \"a;b\"")),
        ["8:17 error: `a;b` is not a cookie's name"]
    );
    assert_eq!(
        with(&format!("{endpoints}\neject = {{ backoff = \"2s\", max_backoff = \"1s\" }}")),
        ["8:41 error: `max_backoff` (1s) is less than `backoff` (2s)",]
    );
}

#[test]
fn unused_things_are_warned_of() {
    assert_added(
        "[[cluster]]\nname = \"d\"\nendpoints = [{ address = \"10.0.0.1:80\" }]",
        &["2:8 warning: nothing uses cluster `d`"],
    );
    let text = FINE.replace("cluster = \"c\"", "cluster = \"c\"\nlisteners = [\"l\"]");
    let text = format!("{text}[[listener]]\nname = \"m\"\naddress = \"[::]:1\"");
    assert_eq!(faults(&text), ["14:8 warning: listener `m` has no route"]);
    let loaded = parse("t", &text, &NoEnvironment).unwrap();
    assert_eq!(loaded.diagnostics.warnings(), 1);
}

#[test]
fn targets_of_routes() {
    let route = |text: &str| format!("[[route]]\nname = \"s\"\n{text}");
    assert_added(&route(""), &["1:1 error: this route does not say what to do with a request"]);
    assert_added(
        &route("cluster = \"c\"\nrespond = {}"),
        &["4:1 error: a route cannot have both `cluster` and `respond`"],
    );
    assert_added(&route("clusters = []"), &["3:12 error: a split needs at least one cluster"]);
    assert_added(
        &route("clusters = [{ name = \"c\", weight = 0 }]"),
        &["3:12 error: every cluster of this split has a weight of 0"],
    );
    assert_added(
        &route("clusters = [{ name = \"c\" }, { name = \"c\" }]"),
        &["3:38 warning: cluster `c` is in this split twice"],
    );
    assert_added(&route("clusters = [{ name = \"unheard\" }]"), &["3:22 error: unknown cluster `unheard`"]);
    assert_added(
        &route("redirect = { to = \"elsewhere\" }"),
        &["3:19 error: a redirect needs a target that is a path or a URL"],
    );
    assert_added(
        &route("redirect = { to = \"/\", status = 304 }"),
        &["3:33 error: 304 is not the status of a redirect"],
    );
    assert_added(&route("redirect = { to = \"https://{host}{path}\" }"), &[]);
    assert_added(
        &route("redirect = { to = \"/a\\r\\nb: c\" }"),
        &["3:19 error: this cannot be sent as a field value"],
    );
    assert_added(
        &route("respond = { status = 99 }"),
        &["3:22 error: `route.respond.status` must be an integer from 200 to 599"],
    );
    assert_added(
        &route("respond = { status = 204, body = \"x\" }"),
        &["3:34 error: a response with status 204 has no body"],
    );
    assert_added(
        &route("respond = { content_type = \"a\\nb\" }"),
        &["3:28 error: this cannot be sent as a field value"],
    );
    assert_added(
        &route("cluster = \"c\"\nrewrite = \"v2\""),
        &["4:11 error: a rewritten path begins with `/`"],
    );
    assert_added(
        &route("cluster = \"c\"\nrewrite = \"/a b\""),
        &["4:11 error: a request target has only printable ASCII characters, and no `#`"],
    );
    assert_added(
        &route("respond = {}\nrewrite = \"/x\"\ntimeout = \"1s\"\nrequest_headers.remove = [\"x\"]"),
        &[
            "4:1 warning: `rewrite` has no effect here: this route has no upstream",
            "5:1 warning: `timeout` has no effect here: this route has no upstream",
            "6:1 warning: `request_headers` has no effect here: this route has no upstream",
        ],
    );
    assert_added(&route("cluster = \"c\"\nlisteners = []"), &["4:13 error: this route is on no listener"]);
}

#[test]
fn matches_of_routes() {
    let route = |text: &str| format!("[[route]]\nname = \"s\"\ncluster = \"c\"\nmatch = {{ {text} }}");
    assert_added(
        &route("path = \"/\", path_regex = \"/\""),
        &["4:23 error: a route cannot match both `path` and `path_regex`"],
    );
    assert_added(&route("host = []"), &["4:18 error: no request has a `host` out of an empty list"]);
    assert_added(
        &route("method = [\"GET\", \"get\"]"),
        &["4:28 warning: methods are case-sensitive, did you mean `GET`?"],
    );
    assert_added(&route("method = \"G T\""), &["4:20 error: `G T` is not a method"]);
    assert_added(&route("header = { \"x y\" = \"1\" }"), &["4:22 error: `x y` is not a field name"]);
}

#[test]
fn edits_of_fields() {
    let edit = |text: &str| format!("[[route]]\nname = \"s\"\ncluster = \"c\"\n{text}");
    for field in [
        "Content-Length",
        "transfer-encoding",
        "Connection",
        "TE",
        "Trailer",
        "Upgrade",
        "Host",
        "Keep-Alive",
    ] {
        let expected = format!("4:25 error: `{field}` cannot be edited");
        assert_added(&edit(&format!("request_headers.set = {{ {field} = \"x\" }}")), &[&expected]);
        assert_added(&edit(&format!("request_headers.add = {{ {field} = \"x\" }}")), &[&expected]);
        let expected = format!("4:28 error: `{field}` cannot be edited");
        assert_added(&edit(&format!("response_headers.remove = [\"{field}\"]")), &[&expected]);
    }
    assert_added(
        &edit("request_headers.set = { x = \"a\\nb\" }"),
        &["4:29 error: this cannot be sent as a field value"],
    );
    assert_added(
        &edit("request_headers.set = { x = \"1\", X = \"2\" }"),
        &["4:25 error: `x` is the same field as `X`"],
    );
    assert_added(&edit("request_headers.remove = [\"\"]"), &["4:27 error: `` is not a field name"]);
    assert_added(
        &edit("response_headers.set = { \"a:\" = \"\" }"),
        &["4:26 error: `a:` is not a field name"],
    );
}

#[test]
fn values_of_every_notation() {
    let text = FINE
        .replace("endpoints", "balance = \"hash\"\nhash_on = { header = \"x\" }\nendpoints")
        .replace("cluster = \"c\"", "cluster = \"c\"\nmatch = { host = \"a\", header = { a = \"1\", b = { regex = \"x\" }, c = { present = false } } }");
    let text = format!("{text}timeout = \"1500ms\"\nbody_bytes = \"10MB\"\n[runtime]\nworkers = 3");
    let config = parse("t", &text, &NoEnvironment).unwrap().config;
    assert_eq!(config.runtime.workers, Workers::Count(3));
    assert_eq!(config.cluster[0].hash_on, Some(HashOn::Header("x".into())));
    let route = &config.route[0];
    assert_eq!(route.timeout, Span("1500ms".parse::<Span>().unwrap().0));
    assert_eq!(route.body_bytes, Some(ByteSize(10_000_000)));
    let kinds: Vec<_> = route.matches.header.values().collect();
    assert!(matches!(kinds[..], [ValueMatch::Exact(_), ValueMatch::Regex(_), ValueMatch::Present(_)]));
    assert_eq!(parse("t", FINE, &NoEnvironment).unwrap().config.runtime.workers, Workers::Auto);
    let text = FINE.replace("endpoints", "balance = \"hash\"\nhash_on = \"client_ip\"\nendpoints");
    assert_eq!(parse("t", &text, &NoEnvironment).unwrap().config.cluster[0].hash_on, Some(HashOn::ClientIp));
}

/// What is loaded can be written as JSON and read again: durations, sizes and words are as in the file.
#[test]
fn a_configuration_survives_json() {
    let text = format!(
        "{FINE}timeout = \"90s\"\n[runtime]\nworkers = \"auto\"\n[limits]\nhead_bytes = \"2KiB\"\ntarget_bytes = \"1KiB\""
    );
    let config = parse("t", &text, &NoEnvironment).unwrap().config;
    let json = serde_json::to_value(&config).unwrap();
    assert_eq!(json["runtime"]["workers"], "auto");
    assert_eq!(json["limits"]["head_bytes"], "2KiB");
    assert_eq!(json["route"][0]["timeout"], "90s");
    let again: super::Config = serde_json::from_value(json.clone()).unwrap();
    assert_eq!(serde_json::to_value(&again).unwrap(), json);
}

#[test]
fn references_are_resolved() {
    let environment = Fixed(HashMap::from([("PORT", "9999"), ("TRICK", "${PORT}"), ("/key", "s3cret\n")]));
    let text = FINE.replace("8080", "${PORT}");
    let text = format!(
        "{text}request_headers.set = {{ a = \"Bearer ${{file:/key}}\", b = \"$${{PORT}}\", c = \"${{TRICK}}\" }}\nmatch.header.x = '${{TRICK}}'"
    );
    let config = parse("t", &text, &environment).unwrap().config;
    assert_eq!(config.listener[0].address, "127.0.0.1:9999");
    let set = &config.route[0].request_headers.set;
    assert_eq!(set["a"], "Bearer s3cret".into());
    assert_eq!(set["b"], "${PORT}".into());
    assert_eq!(set["c"], "${PORT}".into());
    assert_eq!(config.route[0].matches.header["x"], ValueMatch::Exact("${PORT}".into()));
}

#[test]
fn references_without_a_value_are_pointed_at() {
    assert_added(
        "request_headers.set = { a = \"x ${A} ${file:/none}\" }",
        &[
            "1:32 error: environment variable `A` is not set",
            "1:37 error: file `/none` cannot be read: there are no files here",
        ],
    );
    // With an escape in it the string no longer is what is written; it is pointed at as a whole.
    assert_added(
        "request_headers.set = { a = \"\\u0024{A}\" }",
        &["1:29 error: environment variable `A` is not set"],
    );
}

/// Whatever the value that a reference stands for breaks, it is not shown.
#[test]
fn secrets_are_not_shown() {
    let environment = Fixed(HashMap::from([("S", "hunter2 hunter2\n"), ("N", "hunter")]));
    let everywhere = "
[runtime]
workers = \"${S}\"
driver = \"${N}\"
buffers = \"${N}\"
[[core]]
cpu = 0
listeners = [\"${S}\", \"huntr\"]
[limits]
head_bytes = \"${S}\"
[timeouts]
head = \"${S}\"
[forwarding]
via = \"${S}\"
[[listener]]
name = \"${S}\"
address = \"${S}\"
trusted_proxies = [\"${S}\"]
[[listener]]
name = \"${S}\"
address = \"${N}\"
[[cluster]]
name = \"${N}\"
endpoints = [{ address = \"${S}\" }, { address = \"${N}:80\" }]
host = \"${S}\"
balance = \"hash\"
hash_on = { header = \"${S}\" }
sticky = { cookie = \"${S}\" }
[[route]]
name = \"${S}\"
cluster = \"huntre\"
listeners = [\"${S}\"]
rewrite = \"${S}\"
match = { method = [\"${S}\", \"${N}\"], host = \"${S}\" }
request_headers = { remove = [\"${S}\"], set = { a = \"${S}\" } }
[[route]]
name = \"${S}\"
redirect = { to = \"${S}\" }
[[route]]
name = \"x\"
clusters = [{ name = \"${S}\" }, { name = \"${S}\" }]
respond = { content_type = \"${S}\" }
";
    let diagnostics = parse("t", everywhere, &environment).unwrap_err();
    let shown = diagnostics.render(false);
    assert!(diagnostics.errors() > 20, "{shown}");
    assert!(!shown.contains("hunter"), "{shown}");
    assert!(shown.contains("`${S}`"), "{shown}");
}

#[test]
fn more_can_be_said_by_key_path() {
    let inspected = inspect("t", &format!("{FINE}match.path = \"/{{\"\ntimeout = 1"), &NoEnvironment);
    let mut diagnostics = inspected.diagnostics;
    assert!(inspected.config.is_some());
    diagnostics.push_at(&key_path!["route", 0, "match", "path"], super::Diagnostic::error("open brace"));
    diagnostics.push_at(&key_path!["route", 0, "timeout"], super::Diagnostic::error("of a placeholder"));
    let expected =
        ["12:14 error: open brace", "13:11 error: `route.timeout` must be a duration such as \"5s\""];
    assert_eq!(said(&diagnostics), expected);
}

#[test]
fn files_are_read() {
    let path = std::env::temp_dir().join(format!("ringgate-load-{}.toml", std::process::id()));
    std::fs::write(&path, FINE).unwrap();
    let loaded = load(&path).unwrap();
    assert_eq!(loaded.source.name(), path.display().to_string());
    assert_eq!(loaded.source.text(), FINE);
    std::fs::write(&path, b"a = 1\nb = \"\xff\"").unwrap();
    assert!(load(&path).unwrap_err().render(false).contains("the file is not UTF-8: line 2"));
    std::fs::remove_file(&path).unwrap();
    let shown = load(&path).unwrap_err().render(false);
    assert!(shown.contains("the file cannot be read: No such file"), "{shown}");
    assert!(load(&std::env::temp_dir()).unwrap_err().has_errors());
}

#[test]
fn a_file_that_is_too_large_is_refused() {
    let text = " ".repeat(load::FILE_BYTES_MAX + 1);
    assert_eq!(faults(&text), ["0:0 error: the file has more than 64 MiB"]);
}
