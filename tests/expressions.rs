//! Expressions where configurations have them: routes that are chosen by them, and policies that allow by them.
#![allow(clippy::disallowed_methods, reason = "tests run no data plane")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{process::Command, sync::Arc};

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use support::{
    Gateway, Upstream,
    mint::{Files, Mint},
    ok,
    secure::Client,
    trusting,
};

/// A route that says by which one a request came.
fn says(name: &str, matches: &str, keys: &str) -> String {
    format!(
        "[[route]]\nname = \"{name}\"\nrespond = {{ body = \"{name}\" }}\n{keys}\n[route.match]\n{matches}\n"
    )
}

fn text_of(gateway: &Gateway, target: &str, lines: &str) -> String {
    let mut client = gateway.connect();
    client.send(format!("{target} HTTP/1.1\r\nHost: Shop.example\r\n{lines}\r\n"));
    client.response().text()
}

#[test]
fn routes_are_chosen_by_what_holds() {
    let upstream = Upstream::saying("up");
    let routes = [
        ("mobile", "path = \"/*\"\nwhen = \"request.headers['User-Agent'].contains('Mobile')\""),
        ("page", "path = \"/list\"\nwhen = \"int(request.query.page) > 10\""),
        ("user", "path = \"/users/{id}\"\nwhen = \"request.params.id.matches('^[0-9]+$')\""),
        ("cookie", "path = \"/c\"\nwhen = \"request.cookies.beta == '1' && request.host == 'shop.example'\""),
        ("client", "path = \"/ip\"\nwhen = \"cidr('198.51.100.0/24').containsIP(request.client.ip)\""),
        (
            "large",
            "path = \"/l\"\nmethod = \"POST\"\nwhen = \"request.size > 3 && request.scheme == 'http'\"",
        ),
        ("rest", "path = \"/*\""),
    ]
    .map(|(name, matches)| says(name, matches, ""));
    let gateway = Gateway::start(&trusting(upstream.address, &routes.concat()));
    for (target, lines, expected) in [
        ("GET /list?page=11", "", "page"),
        ("GET /list?page=2", "", "rest"),
        ("GET /list?page=11", "user-agent: A Mobile\r\n", "page"),
        ("GET /other", "user-agent: A Mobile\r\n", "mobile"),
        ("GET /users/12", "", "user"),
        ("GET /users/anna", "", "rest"),
        ("GET /c", "Cookie: a=b; beta=1\r\n", "cookie"),
        ("GET /c", "Cookie: beta=1; beta=2\r\n", "rest"),
        ("GET /ip", "X-Forwarded-For: 198.51.100.7\r\n", "client"),
        ("GET /ip", "X-Forwarded-For: 203.0.113.7\r\n", "rest"),
        ("POST /l", "Content-Length: 3\r\n\r\nabc", "rest"),
    ] {
        assert_eq!(text_of(&gateway, target, lines), expected, "{target} {lines}");
    }
    // What a stranger claims is not there.
    let claims = says(
        "claims",
        "path = \"/*\"\nwhen = \"'x-forwarded-user' in request.headers || has(request.headers.forwarded)\"",
        "",
    );
    let stranger = Gateway::start(&support::config(&[claims, says("rest", "path = \"/*\"", "")].concat()));
    assert_eq!(text_of(&stranger, "GET /", "X-Forwarded-User: root\r\nForwarded: for=1.1.1.1\r\n"), "rest");
    // What has no value is counted: no User-Agent, a page that is no number, two cookies.
    let before = gateway.figure("expressions_failed");
    assert!(before > 0);
    assert_eq!(text_of(&gateway, "GET /list?page=x", "User-Agent: a\r\n"), "rest");
    gateway.wait_for_figure("expressions_failed", before + 1);
}

#[test]
fn explain_says_why_an_expression_does_not_hold() {
    let files = Files::new();
    let routes = [
        says("a", "path = \"/*\"\nwhen = \"request.query.page == '2'\"", ""),
        says("b", "path = \"/*\"\nwhen = \"request.method == 'PUT'\"", "use = [\"staff\"]"),
        says("c", "path = \"/*\"", "use = [\"staff\"]"),
    ];
    let policy = "[[policy]]\nname = \"staff\"\nallow = \"request.tls.version != ''\"\n";
    let file = files.write("gateway.toml", &support::config(&[policy, &routes.concat()].concat()));
    let output =
        Command::new(env!("CARGO_BIN_EXE_ringgate")).args(["explain", &file, "GET", "/x"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for line in [
        "- a: `request.query.page == '2'` fails: there is no `page`",
        "- b: `request.method == 'PUT'` does not hold",
        "+ c: matches",
        "policies   staff (allow)",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
}

#[test]
fn faults_are_pointed_at() {
    let files = Files::new();
    let routes = [
        says("a", "path = \"/a\"\nwhen = \"request.nope == 1\"", ""),
        says("b", "path = \"/b\"\nwhen = \"auth.subject == ''\"", ""),
        says("c", "path = \"/c\"", "use = [\"staff\"]"),
    ];
    let policy = "[[policy]]\nname = \"staff\"\nallow = \"request.host\"\n";
    let file = files.write("gateway.toml", &support::config(&[policy, &routes.concat()].concat()));
    let output = Command::new(env!("CARGO_BIN_EXE_ringgate")).args(["check", &file]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    for part in [
        "there is no field `nope`",
        "gateway.toml:15:8",
        "`auth` is not known where routes are chosen",
        "it comes to a string, and a bool is wanted",
        "gateway.toml:8:9",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

/// A token of these claims.
fn token(claims: &str) -> String {
    const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
    let signed = [r#"{"alg":"HS256"}"#, claims].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag))
}

#[test]
fn policies_allow_what_holds_and_nothing_else() {
    let upstream = Upstream::answering(|_, _| ok(b"inside"));
    let policies = "[[policy]]\nname = \"who\"\njwt = { algorithms = [\"HS256\"], keys = [{ secret = \
                    \"0123456789abcdef0123456789abcdef\" }] }\n\
                    [[policy]]\nname = \"staff\"\nallow = \"'admin' in claims.roles && claims.org.id == 'a1'\"\n\
                    [[policy]]\nname = \"own\"\nallow = \"request.params.user == auth.subject\"\n\
                    [[policy]]\nname = \"hours\"\nallow = \"now > timestamp('2026-01-01T00:00:00Z')\"\n";
    let route = |name: &str, path: &str, uses: &str| {
        format!("[[route]]\nname = \"{name}\"\nmatch.path = \"{path}\"\ncluster = \"all\"\nuse = [{uses}]\n")
    };
    let routes = [
        route("staff", "/staff", "\"who\", \"staff\", \"hours\""),
        route("own", "/users/{user}", "\"own\", \"who\""),
        route("open", "/open", "\"staff\""),
    ];
    let gateway = Gateway::start(
        &support::all_to_with(upstream.address, "h2c = true", "", "match.path = \"/all\"")
            .replace("[[route]]", &format!("{policies}{}[[route]]", routes.concat())),
    );
    let until = r#""exp":4102444800"#;
    let claims = |more: &str| format!("{{{until},\"sub\":\"anna\"{more}}}");
    let admin = claims(r#","roles":["admin"],"org":{"id":"a1"}"#);
    let other = claims(r#","roles":["user"],"org":{"id":"a1"}"#);
    let bare = claims("");
    for (path, claims, status) in [
        ("/staff", Some(&admin), 200),
        ("/staff", Some(&other), 403),
        // A claim that is not there allows nothing.
        ("/staff", Some(&bare), 403),
        ("/staff", None, 401),
        ("/users/anna", Some(&bare), 200),
        ("/users/ben", Some(&admin), 403),
        // Without a token no one is anyone.
        ("/open", Some(&admin), 403),
        ("/open", None, 403),
    ] {
        let mut client = gateway.connect();
        let shown =
            claims.map_or_else(String::new, |claims| format!("Authorization: Bearer {}\r\n", token(claims)));
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n{shown}\r\n"));
        let response = client.response();
        assert_eq!(response.status, status, "{path} {claims:?} {}", response.text());
        if status == 403 {
            assert!(response.text().contains("urn:ringgate:problem:not-allowed"), "{}", response.text());
            assert_eq!(gateway.log_line()["end"], "not-allowed");
            assert!(!response.text().contains("anna") && !response.text().contains("roles"));
        } else {
            gateway.log_line();
        }
    }
    let figures = gateway.figures();
    assert!(figures["expressions_failed"] >= 3, "{figures:?}");
}

#[test]
fn fields_say_what_expressions_come_to() {
    let upstream = Upstream::answering(|head, _| ok(head.as_bytes()));
    let edits = "[route.request_headers.set]\nX-Tenant = { expression = \"request.headers.tenant.lowerAscii()\" }\n\
                 [route.request_headers.add]\nX-Who = { expression = \"request.params.id + '@' + request.client.ip\" }\n\
                 [route.response_headers.set]\nX-Path = { expression = \"request.path\" }\n\
                 Server = { expression = \"request.query.nope\" }\n";
    let gateway = Gateway::start(&support::all_to_with(
        upstream.address,
        "",
        "",
        &format!("match.path = \"/users/{{id}}\"\n{edits}"),
    ));
    let ask = |lines: &str| {
        let mut client = gateway.connect();
        client.send(format!("GET /users/7 HTTP/1.1\r\nHost: a\r\nX-Tenant: theirs\r\n{lines}\r\n"));
        client.response()
    };
    let response = ask("Tenant: ACME\r\nX-Who: me\r\n");
    let seen = response.text();
    assert_eq!(support::fields(&seen, "x-tenant"), ["acme"]);
    assert_eq!(support::fields(&seen, "x-who"), ["me", "7@127.0.0.1"]);
    assert_eq!((response.field("x-path").as_deref(), response.field("server")), (Some("/users/7"), None));
    // Where it has no value the field is left out, and the client's own with it.
    assert!(support::fields(&ask("").text(), "x-tenant").is_empty());
}

#[test]
fn lines_are_written_when_an_expression_holds() {
    let routes = [says("a", "path = \"/a\"", ""), says("b", "path = \"/b\"", "")].concat();
    let log = "[access_log]\nwhen = \"response.status >= 400 || request.headers['x-trace'] == '1'\"\n";
    let gateway = Gateway::start(&format!("{}{log}", support::config(&routes)));
    let mut client = gateway.connect();
    for (target, lines) in [
        ("/a", "X-Trace: 0\r\n"),
        ("/b", "X-Trace: 1\r\n"),
        ("/none", "X-Trace: 0\r\n"),
        // It has no value: the line is written.
        ("/a", ""),
        ("/b", "X-Trace: 0\r\n"),
    ] {
        client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n{lines}\r\n"));
        client.response();
    }
    client.send("nonsense\r\n\r\n");
    client.response();
    let told: Vec<_> = (0..4).map(|_| gateway.log_line()["path"].as_str().unwrap().to_owned()).collect();
    assert_eq!(told, ["/b", "/none", "/a", ""]);
    gateway.signal("TERM");
    assert!(gateway.rest_of_log().is_empty());
}

#[test]
fn certificates_are_spoken_of() {
    let root = Mint::new("root");
    let people = Mint::new("people");
    let files = Files::new();
    let tls = format!(
        "tls = {{ certificates = [{}], client_auth = {{ ca = \"{}\", mode = \"optional\" }} }}\n",
        files.pair("a", &root.pair(&["a.test"])),
        files.write("people.pem", &people.cert)
    );
    let routes = [
        says("partner", "path = \"/*\"\nwhen = \"'pc.partner.test' in request.tls.client_names\"", ""),
        says("anyone", "path = \"/*\"\nwhen = \"request.tls.client_subject != ''\"", ""),
        says("named", "path = \"/*\"\nwhen = \"request.tls.server_name == 'a.test'\"", ""),
    ];
    let gateway = Gateway::start(&support::config(&[tls, routes.concat()].concat()));
    for (shown, expected) in [
        (Some(people.pair(&["x.test", "pc.partner.test"])), "partner"),
        (Some(people.pair(&["xpc.partner.test"])), "anyone"),
        (None, "named"),
    ] {
        let client = Client::of(&root);
        let config = shown.into_iter().fold(client, |client, pair| client.shows(&pair)).config();
        let Ok(mut peer) = gateway.connect().secured(&Arc::clone(&config), "a.test") else {
            panic!("no handshake");
        };
        peer.send("GET / HTTP/1.1\r\nHost: a.test\r\nX-Client-Names: pc.partner.test\r\n\r\n");
        assert_eq!(peer.response().text(), expected);
    }
}
