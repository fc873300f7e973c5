//! What of a message changes on its way: hop-by-hop fields, the fields that say who asked, the canonical path, and the
//! operator's edits and rewrites.
#![allow(clippy::disallowed_methods, reason = "tests run no data plane")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use support::{Gateway, Upstream, all_to_with, config, field, fields, ok};

/// A gateway before an upstream that says the head it received.
fn mirror(listener: &str, cluster: &str, route: &str) -> Gateway {
    let upstream = Upstream::answering(|head, _| ok(head.as_bytes()));
    Gateway::start(&all_to_with(upstream.address, listener, cluster, route))
}

/// The head that comes upstream of a request with these lines.
fn seen(gateway: &Gateway, target: &str, lines: &str) -> String {
    let mut client = gateway.connect();
    client.send(format!("GET {target} HTTP/1.1\r\nHost: example.com\r\n{lines}\r\n"));
    let response = client.response();
    assert_eq!(response.status, 200, "{}", response.text());
    response.text()
}

/// The head that a client gets of a response with these lines.
fn answered(lines: &'static str, route: &str) -> String {
    let upstream = Upstream::answering(move |_, _| {
        format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{lines}\r\n").into_bytes()
    });
    let gateway = Gateway::start(&all_to_with(upstream.address, "", "", route));
    let mut client = gateway.connect();
    client.send("GET /a/b?q=x HTTP/1.1\r\nHost: example.com\r\nX-In: 1\r\n\r\n");
    client.response().head
}

#[test]
fn hop_by_hop_fields_of_a_request_end_here() {
    let gateway = mirror("", "", "");
    let head = seen(
        &gateway,
        "/",
        "Connection: keep-alive, X-One ,, x-TWO\r\nConnection: Proxy-Authorization\r\nKeep-Alive: timeout=5\r\n\
         Proxy-Connection: keep-alive\r\nTE: trailers\r\nX-One: 1\r\nX-Two: 2\r\nX-Two: 22\r\nX-Three: 3\r\n\
         Proxy-Authorization: Basic x\r\n",
    );
    for name in [
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "x-one",
        "x-two",
        "upgrade",
        "proxy-authorization",
    ] {
        assert_eq!(field(&head, name), None, "{name}");
    }
    assert_eq!(field(&head, "x-three").as_deref(), Some("3"));
}

#[test]
fn hop_by_hop_fields_of_a_response_end_here() {
    let head = answered(
        "Connection: X-One, keep-alive\r\nKeep-Alive: timeout=5\r\nProxy-Connection: close\r\nX-One: 1\r\n\
         Upgrade: h2c\r\nX-Three: 3\r\nProxy-Authenticate: Basic\r\n",
        "",
    );
    for name in ["connection", "keep-alive", "proxy-connection", "x-one", "upgrade"] {
        assert_eq!(field(&head, name), None, "{name}");
    }
    assert_eq!(
        (field(&head, "x-three").as_deref(), field(&head, "proxy-authenticate").as_deref()),
        (Some("3"), Some("Basic"))
    );
}

#[test]
fn no_connection_option_takes_an_end_to_end_field_away() {
    let gateway = mirror("", "", "");
    let kept = [
        ("Authorization", "Bearer x"),
        ("Cookie", "a=b"),
        ("Content-Type", "text/plain"),
        ("Accept-Encoding", "gzip"),
        ("If-Match", "\"x\""),
        ("Range", "bytes=0-1"),
        ("Cache-Control", "no-store"),
        ("Origin", "http://a"),
        ("Expect", "100-continue"),
    ];
    for (name, value) in kept {
        let lines = format!("Connection: close, {name}, host, via, x-forwarded-for\r\n{name}: {value}\r\n");
        let head = seen(&gateway, "/", &lines);
        assert_eq!(fields(&head, name), [value]);
        assert_eq!(fields(&head, "host"), ["example.com"]);
        assert_eq!(fields(&head, "x-forwarded-for"), ["127.0.0.1"]);
        assert_eq!(fields(&head, "via"), ["1.1 ringgate"]);
    }
    // Nor the framing.
    let mut client = gateway.connect();
    client.send(
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: Content-Length, Host\r\nContent-Length: 4\r\n\r\nbody\
         GET /next HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    assert_eq!(fields(&client.response().text(), "content-length"), ["4"]);
    assert!(client.response().text().starts_with("GET /next "));
    let head = answered(
        "Connection: Set-Cookie, Cache-Control, Content-Length, Date\r\nSet-Cookie: a=b\r\nCache-Control: private\r\n",
        "",
    );
    assert_eq!(fields(&head, "set-cookie"), ["a=b"]);
    assert_eq!(fields(&head, "cache-control"), ["private"]);
    assert_eq!((fields(&head, "content-length"), fields(&head, "date").len()), (vec!["0".into()], 1));
}

#[test]
fn via_says_each_hop() {
    let gateway = mirror("", "", "");
    assert_eq!(fields(&seen(&gateway, "/", ""), "via"), ["1.1 ringgate"]);
    assert_eq!(fields(&seen(&gateway, "/", "Via: 1.0 fred\r\n"), "via"), ["1.0 fred", "1.1 ringgate"]);
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.0\r\n\r\n");
    let response = client.response();
    assert_eq!(fields(&response.text(), "via"), ["1.0 ringgate"]);
    assert_eq!(fields(&response.head, "via"), ["1.1 ringgate"]);
    assert_eq!(fields(&answered("Via: 1.1 inner\r\n", ""), "via"), ["1.1 inner", "1.1 ringgate"]);
}

#[test]
fn forwarding_switches() {
    let client_says = "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\n\
                       Forwarded: for=6.6.6.6\r\nX-Request-Id: theirs\r\n";
    let names =
        ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded", "x-request-id", "via"];
    for (switch, off) in [
        ("x_forwarded = false", &names[..3]),
        ("forwarded = false", &names[3..4]),
        ("request_id = false", &names[4..5]),
        ("via = \"\"", &names[5..]),
    ] {
        let gateway = mirror("", "", &format!("[forwarding]\n{switch}"));
        let head = seen(&gateway, "/", client_says);
        for name in names {
            assert_eq!(
                fields(&head, name).len(),
                usize::from(!off.contains(&name)),
                "{switch}: {name}: {head}"
            );
        }
        assert!(!head.contains("6.6.6.6") && !head.contains("evil") && !head.contains("theirs"), "{switch}");
    }
    let gateway = mirror("", "", "[forwarding]\nvia = \"edge-1\"");
    assert_eq!(fields(&seen(&gateway, "/", ""), "via"), ["1.1 edge-1"]);
}

#[test]
fn strangers_are_not_believed() {
    let gateway = mirror("trusted_proxies = [\"10.0.0.0/8\"]", "", "");
    let head = seen(
        &gateway,
        "/",
        "X-Forwarded-For: 6.6.6.6\r\nx-forwarded-for: 7.7.7.7\r\nX-Forwarded-Proto: https\r\n\
         X-Forwarded-Host: evil\r\nForwarded: for=6.6.6.6\r\nX-Request-Id: theirs\r\n\
         X-Forwarded-Prefix: /evil\r\nX-Forwarded-Server: evil\r\nX-Forwarded-Ssl: on-evil\r\nX-Forwarded-Uri: /evil\r\n\
         X-Forwarded-Method: EVIL\r\nX-Forwarded-Scheme: evil\r\nX-Original-URL: /evil\r\nX-Rewrite-URL: /evil\r\n\
         X-Original-Host: evil\r\nTrue-Client-IP: 6.6.6.6\r\nX-Client-IP: 6.6.6.6\r\nX.Real.IP: 6.6.6.6\r\n\
         X-Forwarded-User: evil\r\nx-FORWARDED-client-cert: evil\r\nX_Forwarded-Email: evil\r\n",
    );
    assert!(!head.to_lowercase().contains("evil") && !head.contains("6.6.6.6"), "{head}");
    assert_eq!(fields(&head, "x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(fields(&head, "x-forwarded-proto"), ["http"]);
    assert_eq!(fields(&head, "x-forwarded-host"), ["example.com"]);
    assert_eq!(fields(&head, "forwarded"), ["for=127.0.0.1;host=example.com;proto=http"]);
    let id = fields(&head, "x-request-id");
    assert_eq!((id.len(), id[0].len(), &id[0][14..15]), (1, 36, "7"));
    let line = gateway.log_line();
    assert_eq!(
        (line["client"].as_str(), line["request_id"].as_str()),
        (Some("127.0.0.1"), Some(id[0].as_str()))
    );
}

/// Many an upstream shows fields as variables, where `-` and `_` are one (RFC 3875 §4.1.18).
#[test]
fn no_one_poses_by_underscores() {
    let gateway = mirror(
        "",
        "",
        "[route.request_headers]\nremove = [\"X-Secret\"]\n[route.request_headers.set]\nX-User-Name = \"anna\"",
    );
    let head = seen(
        &gateway,
        "/",
        "X_Forwarded_For: 6.6.6.6\r\nx-forwarded_proto: https\r\nX_Real_IP: 6.6.6.6\r\nx_request_id: theirs\r\n\
         X_User-Name: root\r\nx_USER_name: root\r\nX_Secret: s\r\nContent_Length: 9\r\nTransfer_Encoding: chunked\r\n\
         Host_: b\r\nX_Other: kept\r\n_: kept too\r\n",
    );
    for gone in ["6.6.6.6", "https", "theirs", "root", "secret", "content_", "transfer_"] {
        assert!(!head.to_lowercase().contains(gone), "{gone}: {head}");
    }
    assert_eq!(
        (field(&head, "x_other").as_deref(), field(&head, "_").as_deref()),
        (Some("kept"), Some("kept too"))
    );
    assert_eq!(fields(&head, "x-user-name"), ["anna"]);
    // Of a client that is trusted they go on, where the gateway says nothing itself.
    let gateway = mirror("trusted_proxies = [\"127.0.0.0/8\"]", "", "");
    let head = seen(&gateway, "/", "X_Real_IP: 6.6.6.6\r\nX_Forwarded_For: 6.6.6.6\r\n");
    assert_eq!(
        (field(&head, "x_real_ip").as_deref(), field(&head, "x_forwarded_for")),
        (Some("6.6.6.6"), None)
    );
}

#[test]
fn trusted_proxies_are_extended() {
    let gateway = mirror("trusted_proxies = [\"127.0.0.0/8\", \"10.0.0.0/8\"]", "", "");
    let head = seen(
        &gateway,
        "/",
        "X-Forwarded-For: 6.6.6.6, 192.0.2.7\r\nX-Forwarded-For: 10.1.1.1\r\nX-Forwarded-Proto: https\r\n\
         X-Forwarded-Host: shop.example\r\nForwarded: for=192.0.2.7;proto=https\r\nX-Request-Id: theirs-1\r\n",
    );
    assert_eq!(fields(&head, "x-forwarded-for"), ["6.6.6.6, 192.0.2.7, 10.1.1.1, 127.0.0.1"]);
    assert_eq!(fields(&head, "x-forwarded-proto"), ["https"]);
    assert_eq!(fields(&head, "x-forwarded-host"), ["shop.example"]);
    assert_eq!(
        fields(&head, "forwarded"),
        ["for=192.0.2.7;proto=https, for=127.0.0.1;host=example.com;proto=http"]
    );
    assert_eq!(fields(&head, "x-request-id"), ["theirs-1"]);
    let line = gateway.log_line();
    // The right-most that no proxy of ours is: what stands before it anyone can have written.
    assert_eq!((line["client"].as_str(), line["request_id"].as_str()), (Some("192.0.2.7"), Some("theirs-1")));
    // An id that would need escaping somewhere is replaced, from whomever it comes.
    let head = seen(&gateway, "/", "X-Request-Id: a\"b\r\n");
    assert_eq!(fields(&head, "x-request-id")[0].len(), 36);
    assert_eq!(gateway.log_line()["client"], "127.0.0.1");
    // With the switch off, a trusted proxy's fields pass as they are.
    let gateway = mirror("trusted_proxies = [\"127.0.0.1/32\"]", "", "[forwarding]\nx_forwarded = false");
    let head = seen(&gateway, "/", "X-Forwarded-For: 192.0.2.7\r\n");
    assert_eq!(fields(&head, "x-forwarded-for"), ["192.0.2.7"]);
}

#[test]
fn the_client_behind_a_trusted_proxy_counts_everywhere() {
    let names = ["a", "b", "c", "d"];
    let upstreams = names.map(Upstream::saying);
    let list: Vec<String> =
        upstreams.iter().map(|upstream| format!("{{ address = \"{}\" }}", upstream.address)).collect();
    let gateway = Gateway::start(&config(&format!(
        "trusted_proxies = [\"127.0.0.1/32\"]\n[[cluster]]\nname = \"c\"\nbalance = \"hash\"\nendpoints = [{}]\n\
         [[route]]\nname = \"ip\"\nmatch = {{ path = \"/ip\" }}\nrespond = {{ body = \"{{client.ip}}\" }}\n\
         [[route]]\nname = \"hash\"\ncluster = \"c\"",
        list.join(", ")
    )));
    let mut client = gateway.connect();
    let mut asked = Vec::new();
    let mut ask = |path: &str, ip: &str| {
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {ip}\r\n\r\n"));
        asked.push(ip.to_owned());
        client.response().text()
    };
    assert_eq!(ask("/ip", "192.0.2.9"), "192.0.2.9");
    assert_eq!(ask("/ip", "2001:db8::1"), "2001:db8::1");
    let mut met = std::collections::BTreeSet::new();
    for n in 0..64 {
        let ip = format!("192.0.2.{n}");
        let first = ask("/", &ip);
        assert_eq!(ask("/", &ip), first, "the same client meets the same endpoint");
        met.insert(first);
    }
    assert_eq!(met.len(), 4, "many clients meet all of them");
    for ip in asked {
        assert_eq!(gateway.log_line()["client"], ip);
    }
}

/// What a target becomes under these path rules: the status, and where that is 200 the path as routed, logged and sent
/// upstream, which must all be one.
fn path_under(rules: &str, cases: &[(&str, Result<&str, u16>)]) {
    let upstream = Upstream::answering(|head, _| {
        let target = head.split(' ').nth(1).unwrap();
        let routed = field(head, "x-routed").unwrap();
        ok(format!("{target} {routed}").as_bytes())
    });
    let route = "request_headers = { set = { x-routed = \"{path}\" } }";
    let gateway = Gateway::start(&all_to_with(upstream.address, &format!("path = {{ {rules} }}"), "", route));
    let responses = cases.iter().map(|(target, _)| {
        // A refused path ends its connection.
        let mut client = gateway.connect();
        client.send(format!("GET {target}?q=%2f/../ HTTP/1.1\r\nHost: a\r\n\r\n"));
        client.response()
    });
    let responses: Vec<_> = responses.collect();
    for ((target, expected), response) in cases.iter().zip(responses) {
        let line = gateway.log_line();
        match expected {
            Ok(path) => {
                assert_eq!(response.text(), format!("{path}?q=%2f/../ {path}"), "{rules}: {target}");
                assert_eq!(line["path"], *path, "{rules}: {target}");
            }
            Err(status) => {
                assert_eq!(response.status, *status, "{rules}: {target}");
                assert_eq!(line["end"], "path-invalid", "{rules}: {target}");
            }
        }
    }
}

#[test]
fn paths_are_canonical_by_default() {
    path_under(
        "",
        &[
            ("/", Ok("/")),
            ("/a/b/", Ok("/a/b/")),
            ("/a/./b/../c", Ok("/a/c")),
            ("/a/%2e%2E/b", Ok("/b")),
            ("/../../etc/passwd", Ok("/etc/passwd")),
            ("/a/..", Ok("/")),
            ("/a/.", Ok("/a/")),
            ("/...", Ok("/...")),
            ("/%61%7e%41", Ok("/a~A")),
            ("/%c3%a9", Ok("/%C3%A9")),
            ("/a%2fb", Ok("/a%2Fb")),
            ("/a%2F..%2fb", Ok("/a%2F..%2Fb")),
            ("//a///b", Ok("/a/b")),
            ("/a//../b", Ok("/b")),
            ("/%252e%252e/", Ok("/%252e%252e/")),
            ("/a;x=1/..;/b", Ok("/a;x=1/..;/b")),
            ("/a\\b", Err(400)),
            ("/a%5cb", Err(400)),
            ("/a%00b", Err(400)),
            ("/a%0d%0ab", Err(400)),
            ("/a%7fb", Err(400)),
        ],
    );
}

#[test]
fn encoded_slashes() {
    path_under("encoded_slash = \"keep\"", &[("/a%2fb", Ok("/a%2Fb"))]);
    path_under("encoded_slash = \"reject\"", &[("/a%2fb", Err(400)), ("/a/b", Ok("/a/b"))]);
    path_under(
        "encoded_slash = \"decode\"",
        &[
            ("/a%2fb", Ok("/a/b")),
            ("/a%2f%2e%2e%2fb", Ok("/b")),
            ("/a%2f%2Fb", Ok("/a/b")),
            ("/a%2f", Ok("/a/")),
        ],
    );
}

#[test]
fn backslashes() {
    path_under("backslash = \"reject\"", &[("/a\\b", Err(400)), ("/a%5Cb", Err(400))]);
    path_under(
        "backslash = \"slash\"",
        &[("/a\\b", Ok("/a/b")), ("/a%5c..%5Cb", Ok("/b")), ("/\\a", Ok("/a")), ("/a\\", Ok("/a/"))],
    );
    path_under("backslash = \"keep\"", &[("/a\\b", Ok("/a%5Cb")), ("/a%5c..", Ok("/a%5C.."))]);
}

#[test]
fn empty_segments() {
    path_under("empty_segment = \"merge\"", &[("//a//b//", Ok("/a/b/"))]);
    path_under(
        "empty_segment = \"reject\"",
        &[("/a//b", Err(400)), ("//", Err(400)), ("/a/b/", Ok("/a/b/"))],
    );
    path_under("empty_segment = \"keep\"", &[("//a//b", Ok("//a//b")), ("/a//../b", Ok("/a/b"))]);
}

#[test]
fn no_spelling_reaches_a_route_that_its_meaning_does_not() {
    let gateway = Gateway::start(&config(
        "[[route]]\nname = \"admin\"\nmatch = { path = \"/admin/*\" }\nrespond = { status = 403, body = \"admin {path}\" }\n\
         [[route]]\nname = \"public\"\nmatch = { path = \"/public/*\" }\nrespond = { body = \"public {path}\" }",
    ));
    let mut client = gateway.connect();
    for (target, expected) in [
        ("/public/../admin/x", "admin /admin/x"),
        ("/public/%2e%2e/admin/x", "admin /admin/x"),
        ("/public/.%2E/%61dmin/x", "admin /admin/x"),
        ("//admin//x", "admin /admin/x"),
        ("/./admin/x", "admin /admin/x"),
        ("/admin/../public/x", "public /public/x"),
        ("/public/..%2fadmin/x", "public /public/..%2Fadmin/x"),
        ("/public/x/../../../admin", "admin /admin"),
        ("http://a/public/../admin/x", "admin /admin/x"),
    ] {
        client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(client.response().text(), expected, "{target}");
    }
    for target in ["/Admin/x", "/adminx", "/%2fadmin/x", "/%252e%252e/admin/x"] {
        client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(client.response().status, 404, "{target}");
    }
}

#[test]
fn rewrites_stay_canonical() {
    let gateway =
        mirror("", "", "match = { path = \"/users/{id}/{*rest}\" }\nrewrite = \"/v2/{path.rest}/u/{id}\"");
    for (target, line) in [
        ("/users/7/a/b?q=1", "GET /v2/a/b/u/7?q=1 HTTP/1.1"),
        ("/users/a%2fb/c", "GET /v2/c/u/a%2Fb HTTP/1.1"),
        ("/users/%20/c/", "GET /v2/c/u/%20 HTTP/1.1"),
        ("/users/%3f/%23", "GET /v2/%23/u/%3F HTTP/1.1"),
    ] {
        assert_eq!(seen(&gateway, target, "").lines().next(), Some(line), "{target}");
    }
    let gateway = mirror("", "", "rewrite = \"/x{path}?from={query.q}&h={header.x-h}\"");
    let head = seen(&gateway, "/a/b?q=1%262&r=3", "X-H: a b&c=d#\r\n");
    assert_eq!(head.lines().next(), Some("GET /x/a/b?from=1%262&h=a%20b%26c%3Dd%23 HTTP/1.1"));
    // No value leads out of what was written.
    let gateway = mirror("", "", "rewrite = \"/files/{query.f}\"");
    let mut client = gateway.connect();
    for f in ["..", ".", "%2e%2e", "../etc", "a/../../b"] {
        client.send(format!("GET /?f={f} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(client.response().status, 400, "{f}");
    }
    client.send("GET /?f=a/b%3f HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.response().text().starts_with("GET /files/a%2Fb%3F?f=a/b%3f "));
}

#[test]
fn requests_are_edited() {
    let gateway = mirror(
        "",
        "",
        "match = { path = \"/a/{id}\" }\n\
         [route.request_headers]\nremove = [\"X-Secret\", \"accept\"]\n\
         [route.request_headers.set]\nX-Set = \"new\"\n\
         X-All = \"{client.ip} {host} {path} {path.id} {id} {query} {query.q} {header.x-in} {request.id} {method} {scheme} {route}\"\n\
         X-None = \"{query.none}{header.none}\"\n\
         [route.request_headers.add]\nX-Add = \"more\"",
    );
    let mut client = gateway.connect();
    client.send(
        "GET /a/%20b?q=x&q=y HTTP/1.1\r\nHost: example.com:80\r\nX-In: in\r\nX-SECRET: s\r\nAccept: */*\r\n\
         x-set: old\r\nX-Set: older\r\nX-Add: one\r\n\r\n",
    );
    let head = client.response().text();
    let id = field(&head, "x-request-id").unwrap();
    assert_eq!(
        fields(&head, "x-all"),
        [format!("127.0.0.1 example.com:80 /a/%20b %20b %20b q=x&q=y x in {id} GET http all")]
    );
    assert_eq!(
        (fields(&head, "x-set"), fields(&head, "x-add")),
        (vec!["new".into()], vec!["one".into(), "more".into()])
    );
    assert_eq!(
        (field(&head, "x-secret"), field(&head, "accept"), fields(&head, "x-none")),
        (None, None, vec![String::new()])
    );
}

#[test]
fn responses_are_edited() {
    let head = answered(
        "Server: inner/1.0\r\nX-Old: 1\r\nCache-Control: private\r\n",
        "match = { path = \"/a/{id}\" }\n[route.response_headers]\nremove = [\"server\"]\n\
         [route.response_headers.set]\nCache-Control = \"no-store\"\nX-Info = \"{path.id} {query.q} {header.x-in} {route}\"\n\
         [route.response_headers.add]\nX-Old = \"2\"",
    );
    assert_eq!((field(&head, "server"), fields(&head, "x-old")), (None, vec!["1".into(), "2".into()]));
    assert_eq!(
        (fields(&head, "cache-control"), fields(&head, "x-info")),
        (vec!["no-store".into()], vec!["b x 1 all".into()])
    );
}

#[test]
fn edits_of_the_fields_that_the_gateway_writes_replace_them() {
    let gateway = mirror(
        "",
        "",
        "[route.request_headers]\nremove = [\"Forwarded\"]\n\
         [route.request_headers.set]\nX-Forwarded-Proto = \"https\"\nX-Request-Id = \"mine\"",
    );
    let head = seen(&gateway, "/", "");
    assert_eq!(
        (fields(&head, "x-forwarded-proto"), fields(&head, "forwarded")),
        (vec!["https".into()], vec![])
    );
    assert_eq!(
        (fields(&head, "x-request-id"), fields(&head, "x-forwarded-for")),
        (vec!["mine".into()], vec!["127.0.0.1".into()])
    );

    let set_date = "[route.response_headers.set]\nDate = \"Thu, 01 Jan 1970 00:00:00 GMT\"";
    for lines in ["", "Date: Fri, 02 Jan 1970 00:00:00 GMT\r\n"] {
        assert_eq!(fields(&answered(lines, set_date), "date"), ["Thu, 01 Jan 1970 00:00:00 GMT"], "{lines}");
    }

    let gateway = Gateway::start(&config(
        "[[route]]\nname = \"own\"\nmatch = { path = \"/own\" }\nrespond = { body = \"{}\" }\n\
         [route.response_headers.set]\nContent-Type = \"application/json\"\nDate = \"x\"\n\
         [[route]]\nname = \"there\"\nmatch = { path = \"/there\" }\nredirect = { to = \"/here\" }\n\
         response_headers = { set = { Location = \"/elsewhere\" }, add = { X-A = \"{path}\" } }\n\
         [[route]]\nname = \"bare\"\nmatch = { path = \"/bare\" }\nrespond = { body = \"x\" }\n\
         response_headers = { remove = [\"Content-Type\"] }"
            .replace("\"{}\"", "\"{{}}\"")
            .as_str(),
    ));
    let mut client = gateway.connect();
    client.send("GET /own HTTP/1.1\r\nHost: a\r\n\r\nGET /there HTTP/1.1\r\nHost: a\r\n\r\nGET /bare HTTP/1.1\r\nHost: a\r\n\r\n");
    let response = client.response();
    assert_eq!(fields(&response.head, "content-type"), ["application/json"]);
    assert_eq!((fields(&response.head, "date"), response.text().as_str()), (vec!["x".into()], "{}"));
    let response = client.response();
    assert_eq!(
        (fields(&response.head, "location"), response.field("x-a").as_deref()),
        (vec!["/elsewhere".into()], Some("/there"))
    );
    assert_eq!(field(&client.response().head, "content-type"), None);
}

#[test]
fn a_response_without_a_date_gets_one() {
    let dates = fields(&answered("", ""), "date");
    assert!(dates.len() == 1 && dates[0].ends_with(" GMT") && dates[0].len() == 29, "{dates:?}");
    let given = "Thu, 01 Jan 1970 00:00:00 GMT";
    assert_eq!(fields(&answered("Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n", ""), "date"), [given]);
    let removed = "response_headers = { remove = [\"Date\"] }";
    assert_eq!(fields(&answered("Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n", removed), "date").len(), 0);
    assert_eq!(fields(&answered("", removed), "date").len(), 0, "removed is removed");
}

#[test]
fn the_host_that_goes_upstream() {
    let upstream = Upstream::answering(|head, _| ok(head.as_bytes()));
    let endpoint = upstream.address.to_string();
    for (rule, expected) in
        [("preserve", "example.com"), ("endpoint", endpoint.as_str()), ("inner.example", "inner.example")]
    {
        let gateway = Gateway::start(&all_to_with(upstream.address, "", &format!("host = \"{rule}\""), ""));
        let head = seen(&gateway, "/", "");
        assert_eq!(
            (fields(&head, "host"), fields(&head, "x-forwarded-host")),
            (vec![expected.into()], vec!["example.com".into()])
        );
    }
}

#[test]
fn redirects() {
    for status in [301, 302, 303, 307, 308] {
        let gateway = Gateway::start(&config(&format!(
            "[[route]]\nname = \"r\"\nmatch = {{ path = \"/old/{{id}}/{{*rest}}\" }}\n\
             redirect = {{ to = \"https://{{host}}/new/{{id}}/{{rest}}?was={{path}}&{{query}}\", status = {status} }}"
        )));
        let mut client = gateway.connect();
        client.send("GET /old/7%2f8/a/b?c=d HTTP/1.1\r\nHost: example.com\r\n\r\n");
        let response = client.response();
        assert_eq!(response.status, status);
        assert_eq!(
            fields(&response.head, "location"),
            ["https://example.com/new/7%2F8/a/b?was=/old/7%2F8/a/b&c=d"]
        );
        assert_eq!(
            (response.field("content-length").as_deref(), response.field("connection")),
            (Some("0"), None)
        );
        client.send("HEAD /old/7/a HTTP/1.1\r\nHost: example.com\r\n\r\nPOST /old/8/a HTTP/1.1\r\nHost: example.com\r\nContent-Length: 1\r\n\r\nx");
        assert!(field(&client.head(), "location").unwrap().contains("/new/7/"));
        assert!(client.response().field("location").unwrap().contains("/new/8/"));
    }
    let gateway = Gateway::start(&config(
        "[[route]]\nname = \"r\"\nmatch = { path = \"/go/{*to}\" }\nredirect = { to = \"/{to}\" }",
    ));
    let mut client = gateway.connect();
    client.send("GET /go/%2Fevil.example/x HTTP/1.1\r\nHost: a\r\n\r\n");
    let response = client.response();
    assert_eq!(response.status, 308, "the default");
    assert!(!response.field("location").unwrap().starts_with("//"), "{}", response.head);
}

#[test]
fn responses_from_the_configuration() {
    let large = "x".repeat(100_000);
    let gateway = Gateway::start(&config(&format!(
        "[[route]]\nname = \"text\"\nmatch = {{ path = \"/text/{{id}}\" }}\nrespond = {{ status = 418, body = \"{{id}} {{query.q}}\", content_type = \"text/x\" }}\n\
         [[route]]\nname = \"none\"\nmatch = {{ path = \"/none\" }}\nrespond = {{ status = 204 }}\n\
         [[route]]\nname = \"plain\"\nmatch = {{ path = \"/plain\" }}\nrespond = {{}}\n\
         [[route]]\nname = \"large\"\nmatch = {{ path = \"/large\" }}\nrespond = {{ body = \"{large}\" }}"
    )));
    let mut client = gateway.connect();
    client.send("GET /text/a%20b?q=r%20s HTTP/1.1\r\nHost: a\r\n\r\n");
    let response = client.response();
    assert_eq!((response.status, response.text().as_str()), (418, "a%20b r%20s"));
    assert_eq!(fields(&response.head, "content-type"), ["text/x"]);
    client.send("HEAD /text/abc?q=d HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(field(&client.head(), "content-length").as_deref(), Some("5"));
    client.send("GET /none HTTP/1.1\r\nHost: a\r\n\r\n");
    let response = client.response();
    assert_eq!(
        (response.status, response.field("content-length"), response.field("content-type")),
        (204, None, None)
    );
    client.send("POST /plain HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n");
    let response = client.response();
    assert_eq!(
        (response.status, response.field("content-length").as_deref(), response.field("connection")),
        (200, Some("0"), None)
    );
    client.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\nGET /plain HTTP/1.1\r\nHost: a\r\n\r\n");
    let response = client.response();
    assert_eq!((response.status, response.body.len()), (200, large.len()));
    assert_eq!(client.response().status, 200);
}
