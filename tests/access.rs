//! Who may ask: policies that let requests pass or refuse them, and where they are asked.
#![allow(clippy::disallowed_methods, reason = "tests run no data plane")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use support::{Gateway, Peer, Response, Upstream, ok, route, trusting};

const HERE: &str = "127.0.0.0/8";
const ELSEWHERE: &str = "192.0.2.0/24";

/// A gateway with these policies and routes before one cluster, believing its peers about their clients.
fn gateway(endpoint: SocketAddr, rest: &str) -> Gateway {
    Gateway::start(&trusting(endpoint, rest))
}

fn policy(name: &str, keys: &str) -> String {
    format!("[[policy]]\nname = \"{name}\"\n{keys}\n")
}

/// What a client at this address, which a proxy names, is answered.
fn ask(gateway: &Gateway, client: &str, method: &str, path: &str, lines: &str) -> Response {
    let mut peer = gateway.connect();
    asked(&mut peer, client, method, path, lines)
}

fn asked(peer: &mut Peer, client: &str, method: &str, path: &str, lines: &str) -> Response {
    peer.send(format!("{method} {path} HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {client}\r\n{lines}\r\n"));
    peer.response()
}

#[test]
fn an_address_passes_or_does_not() {
    let inside = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&inside);
    let upstream = Upstream::answering(move |head, _| {
        seen.fetch_add(usize::from(head.starts_with("GET /inside")), Ordering::SeqCst);
        ok(b"ok")
    });
    let gateway = gateway(
        upstream.address,
        &[
            policy(
                "office",
                "ip = { allow = [\"198.51.100.0/24\", \"2001:db8::/32\"], deny = [\"198.51.100.66/32\"] }",
            ),
            route("/inside/*", "use = [\"office\"]"),
            route("/*", ""),
        ]
        .concat(),
    );
    for (client, status) in [
        ("198.51.100.1", 200),
        ("::ffff:198.51.100.1", 200),
        ("2001:db8::7", 200),
        ("198.51.100.66", 403),
        ("198.51.101.1", 403),
        ("2001:db9::7", 403),
        // Who is not a proxy says what it likes: the address before the last that is trusted counts.
        ("198.51.100.1, 203.0.113.9", 403),
        ("nonsense", 403),
    ] {
        let response = ask(&gateway, client, "GET", "/inside/x", "");
        assert_eq!(response.status, status, "{client}");
        assert_eq!(response.text().contains("ip-refused"), status == 403, "{client}: {}", response.text());
        assert_eq!(ask(&gateway, client, "GET", "/", "").status, 200, "{client}");
    }
    assert_eq!(inside.load(Ordering::SeqCst), 3, "no request that was refused");
    assert_eq!(gateway.log_line()["status"], 200);
    gateway.signal("QUIT");
    let told = gateway.message("policy=office");
    assert!(told.contains("passed=3 refused=5"), "{told}");
}

#[test]
fn a_refusal_ends_nothing_else() {
    let upstream = Upstream::saying("ok");
    let gateway = gateway(
        upstream.address,
        &[policy("p", &format!("default = true\nip = {{ allow = [\"{HERE}\"] }}")), route("/*", "")].concat(),
    );
    // On the same connection.
    let mut peer = gateway.connect();
    assert_eq!(asked(&mut peer, "192.0.2.1", "GET", "/", "").status, 403);
    assert_eq!(asked(&mut peer, "192.0.2.1", "POST", "/", "Content-Length: 0\r\n").status, 403);
    assert_eq!(asked(&mut peer, "127.0.0.1", "GET", "/", "").status, 200);
    assert_eq!(gateway.log_line()["end"], "ip-refused");
}

#[test]
fn every_policy_attached_is_asked() {
    let upstream = Upstream::saying("ok");
    let gateway = gateway(
        upstream.address,
        &[
            policy("all", &format!("default = true\nip = {{ deny = [\"{ELSEWHERE}\"] }}")),
            policy("few", "ip = { allow = [\"10.0.0.0/8\"] }"),
            policy("fewer", "ip = { deny = [\"10.1.0.0/16\"] }"),
            route("/open", "skip = [\"all\"]"),
            route("/some", "use = [\"few\", \"fewer\"]"),
            route("/any", ""),
        ]
        .concat(),
    );
    for (client, path, status) in [
        ("192.0.2.1", "/open", 200),
        ("192.0.2.1", "/any", 403),
        ("192.0.2.1", "/some", 403),
        ("192.0.2.1", "/nowhere", 403),
        ("10.0.0.1", "/nowhere", 404),
        ("10.0.0.1", "/some", 200),
        ("10.1.0.1", "/some", 403),
        ("11.0.0.1", "/some", 403),
        ("11.0.0.1", "/any", 200),
    ] {
        assert_eq!(ask(&gateway, client, "GET", path, "").status, status, "{client} {path}");
    }
}

#[test]
fn a_preflight_is_answered_before_and_a_refusal_can_be_read() {
    let upstream = Upstream::saying("ok");
    let gateway = gateway(
        upstream.address,
        &[
            policy("p", &format!("ip = {{ allow = [\"{ELSEWHERE}\"] }}")),
            policy("q", "cors = { origins = [\"https://a.test\"] }"),
            route("/*", "use = [\"p\", \"q\"]"),
        ]
        .concat(),
    );
    let origin = "Origin: https://a.test\r\n";
    let preflight = [origin, "Access-Control-Request-Method: GET\r\n"].concat();
    assert_eq!(ask(&gateway, "127.0.0.1", "OPTIONS", "/", &preflight).status, 204);
    let refused = ask(&gateway, "127.0.0.1", "GET", "/", origin);
    assert_eq!(refused.status, 403);
    assert_eq!(refused.field("access-control-allow-origin").as_deref(), Some("https://a.test"));
    assert_eq!(ask(&gateway, "192.0.2.1", "GET", "/", origin).status, 200);
}

/// Hashes of `secret` and of `other`.
const SECRET: &str = "sha256:2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
const OTHER: &str = "sha256:d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa";

fn consumers() -> String {
    format!(
        "[[consumer]]\nname = \"acme\"\nkeys = [\"{SECRET}\"]\ntags = [\"partner\"]\n\
         [[consumer]]\nname = \"globex\"\nkeys = [\"{OTHER}\"]\n"
    )
}

/// An upstream that answers with the head that it gets.
fn mirror() -> Upstream {
    Upstream::answering(|head, _| ok(head.as_bytes()))
}

#[test]
fn who_shows_a_key_passes() {
    let upstream = mirror();
    let gateway = gateway(
        upstream.address,
        &[
            consumers(),
            policy("any", "key = {}"),
            policy("partners", "key = { header = \"Authorization\", tags = [\"partner\"], forward = true }"),
            policy("one", "key = { consumers = [\"globex\"] }"),
            route("/any", "use = [\"any\"]\nrequest_headers.set = { x-consumer = \"{consumer.name}\" }"),
            route("/partners", "use = [\"partners\"]"),
            route("/one", "use = [\"one\"]"),
            route("/open", ""),
        ]
        .concat(),
    );
    for (path, lines, status, end, consumer) in [
        ("/any", "X-Api-Key: secret\r\n", 200, "ok", Some("acme")),
        ("/any", "x-api-KEY: other\r\n", 200, "ok", Some("globex")),
        ("/any", "", 401, "key-missing", None),
        ("/any", "X-Api-Key:\r\n", 401, "key-missing", None),
        ("/any", "X-Api-Key: secre\r\n", 401, "key-unknown", None),
        ("/any", "X-Api-Key: secret\r\nX-Api-Key: secret\r\n", 401, "key-unknown", None),
        ("/any", "X-Consumer: acme\r\n", 401, "key-missing", None),
        ("/partners", "Authorization: secret\r\n", 200, "ok", Some("acme")),
        ("/partners", "X-Api-Key: secret\r\n", 401, "key-missing", None),
        ("/partners", "Authorization: other\r\n", 403, "key-not-allowed", Some("globex")),
        ("/one", "X-Api-Key: other\r\n", 200, "ok", Some("globex")),
        ("/one", "X-Api-Key: secret\r\n", 403, "key-not-allowed", Some("acme")),
        ("/open", "X-Api-Key: secret\r\n", 200, "ok", None),
    ] {
        let response = ask(&gateway, "192.0.2.1", "GET", path, lines);
        let line = gateway.log_line();
        assert_eq!((response.status, line["end"].as_str()), (status, Some(end)), "{path} {lines}");
        assert_eq!(line["consumer"].as_str(), consumer, "{path} {lines}");
        assert!(!line.to_string().contains("secret"), "{line}");
        let challenge = response.field("www-authenticate");
        assert_eq!(challenge.as_deref(), (status == 401).then_some("ApiKey"), "{path} {lines}");
        if status == 200 {
            let sees_key = response.text().contains("secret") || response.text().contains(" other");
            assert_eq!(sees_key, path == "/partners" || path == "/open", "{}", response.text());
        } else {
            assert!(!response.text().contains("secret"), "{}", response.text());
        }
        if path == "/any" && status == 200 {
            let forged = "X-Consumer: root\r\nx-consumer: root\r\n";
            let told = ask(&gateway, "192.0.2.1", "GET", path, &[lines, forged].concat());
            gateway.log_line();
            assert_eq!(support::fields(&told.text(), "x-consumer"), [consumer.unwrap()]);
        }
    }
}

#[test]
fn keys_come_in_queries_and_cookies_too() {
    let upstream = mirror();
    let gateway = gateway(
        upstream.address,
        &[
            consumers(),
            policy("query", "key = { query = \"key\" }"),
            policy("cookie", "key = { cookie = \"key\" }"),
            policy("shown", "key = { query = \"key\", forward = true }"),
            route("/q", "use = [\"query\"]\nrequest_headers.set = { x-query = \"{query}\" }"),
            route("/r", "use = [\"query\"]\nrewrite = \"/r2?x&{query}\""),
            route("/c", "use = [\"cookie\"]"),
            route("/s", "use = [\"shown\"]"),
        ]
        .concat(),
    );
    for (target, lines, status, first_line) in [
        ("/q?key=secret", "", 200, "GET /q HTTP/1.1"),
        ("/q?a=1&key=secret&b=%20&", "", 200, "GET /q?a=1&b=%20 HTTP/1.1"),
        ("/q?k%65y=s%65cret&a", "", 200, "GET /q?a HTTP/1.1"),
        ("/q", "X-Api-Key: secret\r\nCookie: key=secret\r\n", 401, ""),
        ("/q?key=", "", 401, ""),
        ("/q?key=secret&key=secret", "", 401, ""),
        ("/q?key=secret&key=wrong", "", 401, ""),
        ("/q?key=wrong", "", 401, ""),
        ("/r?key=secret&b", "", 200, "GET /r2?x&b HTTP/1.1"),
        ("/s?key=secret", "", 200, "GET /s?key=secret HTTP/1.1"),
        ("/c?a", "Cookie: a=b; key=secret; c=d\r\nX-A: 1\r\nCookie: e\r\n", 200, "GET /c?a HTTP/1.1"),
        ("/c", "Cookie: key=secret\r\n", 200, "GET /c HTTP/1.1"),
        ("/c?key=secret", "", 401, ""),
        ("/c", "Cookie: key=secret; key=secret\r\n", 401, ""),
        ("/c", "Cookie: key=secret\r\nCookie: key=wrong\r\n", 401, ""),
        ("/c", "Cookie: Key=secret\r\n", 401, ""),
    ] {
        let response = ask(&gateway, "192.0.2.1", "GET", target, lines);
        let line = gateway.log_line();
        assert_eq!(response.status, status, "{target} {lines}");
        assert!(!line.to_string().contains("secret"), "{line}");
        let text = response.text();
        if status == 200 {
            assert_eq!(text.lines().next(), Some(first_line), "{lines}");
            assert_eq!(text.contains("secret"), target.starts_with("/s"), "{text}");
            assert_eq!(line["consumer"], "acme");
        }
        if lines.contains("c=d") {
            assert_eq!(support::fields(&text, "cookie"), ["a=b; c=d", "e"]);
        } else if status == 200 {
            assert_eq!(support::field(&text, "cookie"), None);
        }
    }
}

#[test]
fn keys_are_asked_for_after_addresses_and_by_one_policy() {
    let upstream = Upstream::saying("ok");
    let gateway = gateway(
        upstream.address,
        &[
            consumers(),
            policy("all", "default = true\nkey = {}"),
            policy("one", "key = { consumers = [\"globex\"] }"),
            policy("here", &format!("ip = {{ deny = [\"{ELSEWHERE}\"] }}")),
            route("/one", "use = [\"one\", \"here\"]"),
            route("/open", "skip = [\"all\"]"),
            route("/any", ""),
        ]
        .concat(),
    );
    for (client, path, key, status) in [
        ("127.0.0.1", "/one", "other", 200),
        ("127.0.0.1", "/one", "secret", 403),
        ("192.0.2.1", "/one", "other", 403),
        ("192.0.2.1", "/any", "secret", 200),
        ("192.0.2.1", "/any", "wrong", 401),
        ("192.0.2.1", "/open", "wrong", 200),
        // Who has no key is not told which paths there are.
        ("192.0.2.1", "/nowhere", "wrong", 401),
        ("192.0.2.1", "/nowhere", "secret", 404),
    ] {
        let response = ask(&gateway, client, "GET", path, &format!("X-Api-Key: {key}\r\n"));
        assert_eq!(response.status, status, "{client} {path} {key}");
    }
}

const TOKEN_SECRET: &str = "a secret of thirty-two bytes, ok";

/// A token with this payload, signed by the secret.
fn token(payload: &str) -> String {
    let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let message = format!("{}.{}", part(br#"{"alg":"HS256"}"#), part(payload.as_bytes()));
    let mark = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, TOKEN_SECRET.as_bytes()), message.as_bytes());
    format!("{message}.{}", part(mark.as_ref()))
}

#[test]
fn who_shows_a_token_passes() {
    let upstream = mirror();
    let jwt = |keys: &str| {
        format!("jwt = {{ algorithms = [\"HS256\"], keys = [{{ secret = \"{TOKEN_SECRET}\" }}], {keys} }}")
    };
    let gateway = gateway(
        upstream.address,
        &[
            consumers(),
            policy("login", &jwt("issuer = \"us\", require = [\"sub\"]")),
            policy("reader", &jwt("scopes = [\"read\"]")),
            policy("hidden", &jwt("query = \"t\", forward = false")),
            policy("key", "key = { query = \"k\" }"),
            route(
                "/mine",
                "use = [\"login\"]\nrequest_headers.set = { x-user = \"{claims.sub}\", x-roles = \"{claims.roles}\" }",
            ),
            route("/read", "use = [\"reader\"]"),
            route("/both", "use = [\"hidden\", \"key\"]"),
            route("/open", "request_headers.set = { x-user = \"{claims.sub}\" }"),
        ]
        .concat(),
    );
    let good = token(r#"{"iss":"us","sub":"anna","roles":["a","b"],"exp":99999999999}"#);
    let reader = token(r#"{"sub":"bob","scope":"write read","exp":99999999999}"#);
    let old = token(r#"{"iss":"us","sub":"anna","exp":1000000000}"#);
    let other = token(r#"{"iss":"them","sub":"anna","exp":99999999999}"#);
    let bearer = |token: &str| format!("Authorization: Bearer {token}\r\n");
    let denied = Some("Bearer error=\"invalid_token\"");
    for (target, lines, status, end, challenge) in [
        ("/mine", bearer(&good), 200, "ok", None),
        ("/mine", bearer(&good), 200, "ok", None),
        ("/mine", String::new(), 401, "token-missing", Some("Bearer")),
        ("/mine", "Authorization: Basic YTpi\r\n".into(), 401, "token-missing", Some("Bearer")),
        ("/mine", bearer(&old), 401, "token-expired", denied),
        ("/mine", bearer(&other), 401, "token-invalid", denied),
        ("/mine", bearer(&good[1..]), 401, "token-invalid", denied),
        ("/mine", [bearer(&good), bearer(&good)].concat(), 401, "token-invalid", denied),
        ("/read", bearer(&good), 403, "token-scope", Some("Bearer error=\"insufficient_scope\"")),
        ("/read", bearer(&reader), 200, "ok", None),
        (&format!("/both?a=1&t={good}&k=secret"), String::new(), 200, "ok", None),
        (&format!("/both?t={good}"), String::new(), 401, "key-missing", Some("ApiKey")),
        ("/both?k=secret", String::new(), 401, "token-missing", Some("Bearer")),
        ("/open", bearer(&good), 200, "ok", None),
    ] {
        let forged = "X-User: root\r\nx_user: root\r\n";
        let response = ask(&gateway, "192.0.2.1", "GET", target, &[&lines, forged].concat());
        let line = gateway.log_line();
        assert_eq!((response.status, line["end"].as_str()), (status, Some(end)), "{target} {lines}");
        assert_eq!(response.field("www-authenticate").as_deref(), challenge, "{target} {lines}");
        assert!(!line.to_string().contains(&good[40..]), "{line}");
        let is_known = status != 401 && target != "/open";
        let subject = if lines.contains(&reader) { "bob" } else { "anna" };
        assert_eq!(line["subject"].as_str(), is_known.then_some(subject), "{target} {lines}");
        let text = response.text();
        if status != 200 {
            assert!(!text.contains(&good[40..]), "{text}");
        } else if target == "/mine" {
            assert_eq!(support::fields(&text, "x-user"), ["anna"]);
            assert_eq!(support::fields(&text, "x-roles"), ["a b"]);
            assert!(text.contains(&good) && !text.contains("root"));
        } else if target == "/open" {
            assert_eq!(support::fields(&text, "x-user"), [""]);
        } else if target == "/read" {
            assert!(text.contains(&reader), "{text}");
        } else {
            assert!(text.starts_with("GET /both?a=1 HTTP/1.1\r\n"), "{text}");
        }
    }
}

/// Whatever is asked is asked again by HTTPS, and no endpoint sees it.
#[test]
fn a_listener_sends_everyone_to_https() {
    let upstream = Upstream::answering(|_, _| panic!("a request that was to be redirected"));
    for (port, authority) in [(443, "a.test"), (8443, "a.test:8443")] {
        let text = trusting(upstream.address, &route("/*", ""));
        let with = format!("[[listener]]\nhttps_redirect = {port}\n");
        let gateway = Gateway::start(&text.replacen("[[listener]]\n", &with, 1));
        let mut peer = gateway.connect();
        for target in ["/", "/a/b?c=d%20e"] {
            peer.send(format!("POST {target} HTTP/1.1\r\nHost: a.test:80\r\nContent-Length: 0\r\n\r\n"));
            let response = peer.response();
            assert_eq!(response.status, 308);
            assert_eq!(response.field("location"), Some(format!("https://{authority}{target}")));
        }
        peer.send("GET / HTTP/1.0\r\n\r\n");
        assert_eq!(peer.response().status, 400, "to no host there is no way");
    }
}
