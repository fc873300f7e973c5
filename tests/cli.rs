//! The command line as a shell sees it: what `check`, `explain` and `schema` print, and with which code each command ends
//! (0 good, 1 refused with a reason, 2 usage).
#![allow(clippy::disallowed_methods, reason = "tests run no data plane")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::process::{Command, Stdio};

use serde_json::Value;
use support::{repository, tempdir::TempDir};

/// What a command printed and how it ended.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    out: String,
    error: String,
}

fn ringgate(arguments: &[&str]) -> Said {
    let output = Command::new(env!("CARGO_BIN_EXE_ringgate")).args(arguments).output().unwrap();
    Said {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        error: String::from_utf8(output.stderr).unwrap(),
    }
}

fn path(name: &str) -> String {
    repository(name).to_str().unwrap().to_owned()
}

/// `check` of a file with this text.
fn check(text: &str) -> Said {
    let dir = TempDir::new();
    let file = dir.path().join("gateway.toml");
    std::fs::write(&file, text).unwrap();
    ringgate(&["check", file.to_str().unwrap()])
}

fn explain(arguments: &[&str]) -> Said {
    ringgate(&[&["explain", &path("config/demo.toml")], arguments].concat())
}

/// Every fault of `tests/cli-faults.toml`: line and column, the message, the text that is marked, and what else is said.
const FAULTS: [(&str, &str, &str, &str); 26] = [
    ("3:11", "`runtime.workers` must be \"auto\" or an integer from 1 to 1024", "0", ""),
    ("4:16", "`ring_entries` is not a power of two: 1000", "1000", "help: 512 or 1024"),
    ("8:1", "unknown key `adress`, did you mean `address`?", "adress", "no such key in `listener`"),
    ("13:11", "this listener clashes with listener `public`", "\"127.0.0.1:8080\"", "9:11"),
    ("16:8", "duplicate listener name `public`", "\"public\"", "7:8"),
    ("17:11", "`localhost:http` is not an address", "\"localhost:http\"", "help: `http` is not a port"),
    ("18:20", "`10.0.0.0/99` is not a network", "\"10.0.0.0/99\"", "help: write it as `10.0.0.0/8`"),
    ("22:26", "`10.0.0.1` is not an address", "\"10.0.0.1\"", "help: it has no port: `10.0.0.1:8080`"),
    ("22:69", "unknown key `wieght`, did you mean `weight`?", "wieght", "no such key in `cluster.endpoints`"),
    (
        "26:13",
        "every endpoint of this cluster has a weight of 0",
        "[{",
        "help: give at least one a weight above 0",
    ),
    ("30:13", "a cluster needs at least one endpoint", "[]", "help: endpoints = [{ address = "),
    ("33:8", "duplicate cluster name `users`", "\"users\"", "21:8"),
    ("34:11", "`cluster.balance` must be \"round_robin\", \"least_requests\"", "\"fair\"", "\"fair\" is not"),
    ("40:11", "unknown cluster `userz`, did you mean `users`?", "\"userz\"", "there is no such cluster"),
    (
        "44:18",
        "in `{id`, a capture must be a whole segment",
        "\"/users/{id\"",
        "help: capture the whole segment",
    ),
    ("49:24", "not a regex: unclosed group", "\"/c/(\"", ""),
    ("56:11", "unknown variable `{ident}`", "\"/d/{ident}\"", "help: "),
    (
        "57:11",
        "`route.timeout` must be a duration such as \"5s\"",
        "\"5 parsecs\"",
        "help: a number and a unit",
    ),
    ("60:8", "duplicate route name `d`", "\"d\"", "53:8"),
    (
        "62:12",
        "every cluster of this split has a weight of 0",
        "[{",
        "help: give at least one a weight above 0",
    ),
    ("68:1", "a route cannot have both `cluster` and `respond`", "respond", "67:1"),
    (
        "72:9",
        "route `g` can never match: `f` takes every request it could",
        "{",
        "help: give it a narrower match",
    ),
    ("77:35", "`x y` is not a field name", "\"x y\"", "help: it is made of letters"),
    (
        "78:19",
        "a redirect needs a target that is a path or a URL",
        "\"elsewhere\"",
        "help: it begins with `/`",
    ),
    ("78:41", "`route.redirect.status` must be an integer from 300 to 399", "200", "200 is not"),
    (
        "80:1",
        "this route does not say what to do with a request",
        "[[route]]",
        "help: a route has exactly one of",
    ),
];

#[test]
fn check_reports_every_fault_of_a_file_at_its_place_and_once() {
    let file = path("tests/cli-faults.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let said = ringgate(&["check", &file]);
    assert_eq!((said.code, said.out.as_str()), (Some(1), ""), "{}", said.error);
    let blocks: Vec<&str> = said.error.split("error: ").skip(1).collect();
    for (block, (place, message, marked, also)) in blocks.iter().zip(FAULTS) {
        assert!(block.starts_with(message), "`{message}` is not the next of:\n{block}");
        assert!(block.contains(&format!("--> {file}:{place}\n")), "{place}:\n{block}");
        assert!(block.contains(also), "`{also}`:\n{block}");
        let (line, column) = place.split_once(':').unwrap();
        let line = text.lines().nth(line.parse::<usize>().unwrap() - 1).unwrap();
        let column: usize = column.parse().unwrap();
        assert!(line[column - 1..].starts_with(marked), "{place} is not where `{marked}` is");
        assert!(block.contains(line), "the text itself is shown:\n{block}");
    }
    assert_eq!(blocks.len(), FAULTS.len(), "{}", said.error);
    assert!(said.error.ends_with(&format!("26 errors in {file}\n")), "{}", said.error);
}

#[test]
fn check_goes_on_behind_a_faulty_pattern() {
    // Each fault in turn, alone: what hides another when they come together shows here.
    let listener = "[[listener]]\nname = 'l'\naddress = '127.0.0.1:0'\n";
    let cluster = "[[cluster]]\nname = 'c'\nendpoints = [{ address = '127.0.0.1:1' }]\n";
    let route = |name: &str, rest: &str| format!("[[route]]\nname = '{name}'\n{rest}\n");
    let faults = [
        (route("pattern", "match.path = 'a'\ncluster = 'c'"), "match.path"),
        (route("variable", "match.path = '/b'\ncluster = 'c'\nrewrite = '/{b}'"), "unknown variable `{b}`"),
        (route("all", "cluster = 'c'") + &route("never", "cluster = 'c'"), "route `never` can never match"),
        (
            route("edit", "match.path = '/d'\ncluster = 'c'\nrequest_headers.set = { x-a = '{path.a}' }"),
            "x-a",
        ),
    ];
    for (fault, message) in &faults {
        let said = check(&format!("{listener}{cluster}{fault}"));
        assert_eq!(said.code, Some(1), "{fault}");
        assert!(said.error.contains(message), "{message}: {}", said.error);
        assert!(said.error.contains("\n1 error in "), "{}", said.error);
    }
    let all: String = faults.iter().map(|(fault, _)| fault.as_str()).collect();
    let said = check(&format!("{listener}{cluster}{all}"));
    for (_, message) in &faults {
        assert!(said.error.contains(message), "{message}: {}", said.error);
    }
    assert!(said.error.contains("\n4 errors in "), "{}", said.error);
}

#[test]
fn check_of_what_is_no_toml_or_no_file() {
    let said = check("[[listener]\nname = ");
    assert_eq!(said.code, Some(1));
    assert!(said.error.contains("gateway.toml:1:"), "{}", said.error);
    let said = ringgate(&["check", "/no/such/file"]);
    assert_eq!(said.code, Some(1));
    assert!(said.error.contains("cannot be read") && said.error.contains("/no/such/file"), "{}", said.error);
    let said = ringgate(&["run", "-c", "/no/such/file"]);
    assert_eq!(said.code, Some(1));
}

#[test]
fn check_reads_certificates_and_points_at_what_names_a_bad_one() {
    let dir = TempDir::new();
    let put = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    let (one, two) = (certificate("a.test"), certificate("a.test"));
    put("one.pem", &one.cert.pem());
    put("one.key", &one.signing_key.serialize_pem());
    put("two.pem", &two.cert.pem());
    put("two.key", &two.signing_key.serialize_pem());
    let check = |certificates: &str, cluster: &str| {
        let text = format!(
            "[[listener]]\nname = 'l'\naddress = '127.0.0.1:0'\ntls.certificates = [\n{certificates}]\n\
             [[cluster]]\nname = 'c'\nendpoints = [{{ address = '127.0.0.1:1' }}]\n{cluster}\n\
             [[route]]\nname = 'r'\ncluster = 'c'\n"
        );
        check(&text.replace('@', &format!("{}/", dir.path().display())))
    };
    let good = "{ cert = '@one.pem', key = '@one.key' },\n";
    let said = check(good, "tls = { ca = '@one.pem' }");
    assert_eq!((said.code, said.error.as_str()), (Some(0), ""));

    let said = check(&format!("{good}{{ cert = '@two.pem', key = '@two.key' }},\n"), "");
    assert_eq!(said.code, Some(0), "{}", said.error);
    assert!(said.error.contains("warning: this certificate is never used for `a.test`"), "{}", said.error);
    assert!(said.error.contains("gateway.toml:6:10\n"), "{}", said.error);

    let bad = "{ cert = '@one.pem', key = '@two.key' },\n{ cert = '@none', key = '@one.pem' },\n";
    let said = check(&format!("{good}{bad}"), "tls = { ca = '@one.key' }");
    assert_eq!(said.code, Some(1));
    for (line, message) in [
        (6, "the private key does not belong to the certificate"),
        (7, "the file cannot be read: No such file or directory"),
        (7, "there is no private key in the file"),
        (12, "there is no certificate in the file"),
    ] {
        let at = said.error.find(message).unwrap_or_else(|| panic!("{message}: {}", said.error));
        let place = format!("gateway.toml:{line}:");
        assert!(said.error[at..].lines().nth(1).unwrap().contains(&place), "{place} {}", said.error);
    }
    assert!(said.error.contains("\n4 errors in "), "{}", said.error);
    // What is wrong with the file itself is said together with what is wrong with those that it names.
    let said = check(bad, "tls = { ca = '@one.pem', sever_name = 'a' }");
    assert!(said.error.contains("\n4 errors in "), "{}", said.error);
}

fn certificate(name: &str) -> rcgen::CertifiedKey<rcgen::KeyPair> {
    rcgen::generate_simple_self_signed([name.into()]).unwrap()
}

#[test]
fn check_of_a_good_file_says_so_and_warns() {
    let said = ringgate(&["check", &path("config/demo.toml")]);
    assert_eq!((said.code, said.error.as_str()), (Some(0), ""));
    assert!(said.out.contains("demo.toml: good (1 listeners, "), "{}", said.out);
    let said = check(
        "[[listener]]\nname = 'l'\naddress = '127.0.0.1:0'\n[[cluster]]\nname = 'unused'\n\
         endpoints = [{ address = '127.0.0.1:1' }]\n[[route]]\nname = 'r'\nrespond.body = 'r'\n",
    );
    assert_eq!(said.code, Some(0));
    assert!(said.error.contains("warning: nothing uses cluster `unused`"), "{}", said.error);
}

#[test]
fn explain_shows_the_winner_its_captures_and_where_it_leads() {
    let said = explain(&["GET", "http://localhost/users/7?x=1"]);
    assert_eq!((said.code, said.error.as_str()), (Some(0), ""));
    for line in [
        "listener   public",
        "host       localhost",
        "path       /users/7",
        "  + user: matches",
        "route      user",
        "  {id} = 7",
        "cluster    users (100 %)",
        "  weight 5     http://127.0.0.1:9101/v2/users/7?x=1",
        "  weight 1     http://127.0.0.1:9102/v2/users/7?x=1",
        "  weight 1     http://127.0.0.1:9103/v2/users/7?x=1",
        "  timeouts   connect 2s, first byte 30s, idle 30s, whole exchange none",
        "body       at most 16GiB",
    ] {
        assert!(said.out.lines().any(|said| said == line), "`{line}` is not in:\n{}", said.out);
    }
}

#[test]
fn explain_says_why_each_candidate_lost() {
    let said = explain(&["GET", "/search?page=x", "-H", "x-beta: 2"]);
    let expected = "candidates \n  - search-beta: header x-beta is `2`, not `1`\n  - search-page: query parameter page \
                    is `x`, which does not match `[0-9]+`\n  + search: matches\nroute      search\n";
    assert!(said.out.contains(expected), "{}", said.out);
    assert_eq!(said.code, Some(0));

    let said = explain(&["GET", "/search?page=3", "-H", "X-Beta: 1"]);
    assert!(said.out.contains("  + search-beta: matches\n"), "{}", said.out);
    assert!(said.out.contains("  - search: `search-beta` goes before it\n"), "{}", said.out);

    let said = explain(&["POST", "http://localhost/users/7"]);
    assert!(said.out.contains("  - user: method is POST, not GET or HEAD\n"), "{}", said.out);
    assert!(said.out.ends_with("answer     404 (no-route)\n"), "{}", said.out);
    assert_eq!(said.code, Some(1));
}

#[test]
fn explain_of_splits_answers_limits_and_the_canonical_path() {
    let said = explain(&["GET", "/shop"]);
    for line in ["cluster    users (80 %)", "cluster    canary (20 %)", "  host       the endpoint's address"]
    {
        assert!(said.out.lines().any(|said| said == line), "`{line}` is not in:\n{}", said.out);
    }
    assert!(explain(&["GET", "/old/7"]).out.contains("answer     308, Location: /users/7\n"));
    assert!(
        explain(&["GET", "/healthz"]).out.contains("answer     200, text/plain; charset=utf-8, 3 bytes\n")
    );
    assert!(explain(&["POST", "/echo/small"]).out.contains("body       at most 16B\n"));
    assert!(explain(&["GET", "/hurry"]).out.contains("whole exchange 500ms\n"));
    assert!(explain(&["GET", "/a/../%75sers/./7"]).out.contains("path       /users/7\n"));
    assert!(explain(&["GET", "http://acme.demo.test/x"]).out.contains("route      tenant\n"));
    assert!(explain(&["GET", "/x", "-H", "Host: acme.demo.test"]).out.contains("route      tenant\n"));
    // The whole server is no path.
    assert!(explain(&["OPTIONS", "*"]).out.ends_with("answer     404 (no-route)\n"));
}

#[test]
fn explain_says_what_is_spoken_with_endpoints() {
    let dir = TempDir::new();
    let file = dir.path().join("gateway.toml");
    let endpoints = "endpoints = [{ address = '127.0.0.1:1' }, { address = '127.0.0.1:2' }]";
    std::fs::write(
        &file,
        format!(
            "[[listener]]\nname = 'l'\naddress = '127.0.0.1:0'\n\
             [[cluster]]\nname = 'a'\ntls = {{ verify = false }}\nprotocol = 'auto'\n{endpoints}\n\
             [[cluster]]\nname = 'b'\nprotocol = 'h2'\ngrpc_web = true\n{endpoints}\n\
             [[cluster]]\nname = 'c'\nproxy_protocol = 'v2'\n{endpoints}\n\
             [[cluster]]\nname = 'd'\ntls = {{ verify = false, server_name = 'd.test' }}\n{endpoints}\n\
             [[route]]\nname = 'r'\nclusters = [{{ name = 'a' }}, {{ name = 'b' }}, {{ name = 'c' }}, {{ name = 'd' }}]\n"
        ),
    )
    .unwrap();
    let said = ringgate(&["explain", file.to_str().unwrap(), "GET", "/"]);
    let spoken: Vec<&str> = said
        .out
        .lines()
        .filter(|line| {
            ["cluster ", "  protocol ", "  tls ", "  PROXY "].iter().any(|word| line.starts_with(word))
        })
        .collect();
    let expected = [
        "cluster    a (25 %)",
        "  protocol   HTTP/2 or HTTP/1.1 by ALPN",
        "  tls        not verified as 127.0.0.1",
        "cluster    b (25 %)",
        "  protocol   HTTP/2 by prior knowledge, gRPC-Web made into gRPC",
        "cluster    c (25 %)",
        "  protocol   HTTP/1.1",
        "  PROXY      version 2",
        "cluster    d (25 %)",
        "  protocol   HTTP/1.1",
        "  tls        not verified as d.test",
    ];
    assert_eq!(spoken, expected, "{}", said.error);
}

#[test]
fn explain_refuses_what_the_gateway_would() {
    for (arguments, reason) in [
        (vec!["GET", "/a b"], "the gateway would refuse this request"),
        (vec!["GET", "/a\r\nHost: b\r\n\r\nGET /"], ""),
        (vec!["GET", "/%00"], "the gateway would refuse this path"),
        (vec!["TRACE", "/"], "This method is not allowed here"),
        (vec!["CONNECT", "a:80"], "This method is not allowed here"),
        (vec!["GET", "https://a/"], "does not serve that scheme"),
        (vec!["GET", "/", "--listener", "private"], "there is no listener `private`"),
        (vec!["GET", "/", "-H", "a b: c"], "the gateway would refuse this request"),
    ] {
        let said = explain(&arguments);
        assert_eq!((said.code, said.out.as_str()), (Some(1), ""), "{arguments:?}");
        assert!(!said.error.is_empty() && said.error.contains(reason), "{arguments:?}: {}", said.error);
    }
}

#[test]
fn schema_is_json_and_knows_every_section() {
    let said = ringgate(&["schema"]);
    assert_eq!((said.code, said.error.as_str()), (Some(0), ""));
    let schema: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(schema["additionalProperties"], false);
    for section in ["runtime", "core", "limits", "timeouts", "access_log", "listener", "cluster", "route"] {
        assert!(schema["properties"][section].is_object(), "{section}");
    }
}

#[test]
fn usage_errors_end_with_2_and_help_with_0() {
    for arguments in [
        &[][..],
        &["chekc"],
        &["check"],
        &["run"],
        &["run", "gateway.toml"],
        &["explain", "gateway.toml", "GET"],
        &["explain", "gateway.toml", "GET", "/", "-H", "no colon"],
        &["demo", "--listen", "nowhere"],
        &["schema", "--all"],
    ] {
        let said = ringgate(arguments);
        assert_eq!((said.code, said.out.as_str()), (Some(2), ""), "{arguments:?}");
        assert!(said.error.contains("Usage: ringgate") || said.error.contains("--help"), "{}", said.error);
    }
    for arguments in [&["--help"][..], &["help"], &["check", "--help"], &["demo", "-h"]] {
        let said = ringgate(arguments);
        assert_eq!((said.code, said.error.as_str()), (Some(0), ""), "{arguments:?}");
        assert!(said.out.contains("Usage: ringgate"), "{}", said.out);
    }
    let help = ringgate(&["--help"]).out;
    for command in ["run", "demo", "check", "explain", "schema"] {
        assert!(help.lines().any(|line| line.trim_start().starts_with(command)), "{command}: {help}");
    }
    let version = ringgate(&["--version"]);
    assert_eq!(
        (version.code, version.out),
        (Some(0), concat!("ringgate ", env!("CARGO_PKG_VERSION"), "\n").into())
    );
}

#[test]
fn a_reader_that_stops_reading_is_no_panic() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_ringgate"))
        .arg("schema")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!error.contains("panicked"), "{error}");
    assert!(matches!(output.status.code(), Some(0 | 1)), "{:?}", output.status);
}
