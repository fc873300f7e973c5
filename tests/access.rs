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

use support::{Gateway, Peer, Response, Upstream, config, ok};

const HERE: &str = "127.0.0.0/8";
const ELSEWHERE: &str = "192.0.2.0/24";

/// A gateway with these policies and routes before one cluster, believing its peers about their clients.
fn gateway(endpoint: SocketAddr, rest: &str) -> Gateway {
    let cluster = format!("[[cluster]]\nname = \"c\"\nendpoints = [{{ address = \"{endpoint}\" }}]\n");
    let text = config(&[&cluster, rest].concat());
    Gateway::start(&text.replacen("[[listener]]\n", "[[listener]]\ntrusted_proxies = [\"127.0.0.0/8\"]\n", 1))
}

fn policy(name: &str, keys: &str) -> String {
    format!("[[policy]]\nname = \"{name}\"\n{keys}\n")
}

fn route(path: &str, keys: &str) -> String {
    let name = path.replace(['/', '*'], "");
    format!("[[route]]\nname = \"r{name}\"\nmatch.path = \"{path}\"\ncluster = \"c\"\n{keys}\n")
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
