//! The gateway's own answers: their shape, what they tell and what not, and what becomes of the connection; and how an
//! exchange that fails with its response under way is cut so that nobody takes it for whole.
#![allow(clippy::disallowed_methods, reason = "tests run no data plane")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::net::SocketAddr;

use support::{Accepted, Gateway, Peer, Response, Upstream, all_to, all_to_with, config, field, fields, ok};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

fn by_hand(listener: &str, cluster: &str, route: &str) -> (Gateway, Peer, Accepted, SocketAddr) {
    let (upstream, accepted) = Upstream::manual();
    let gateway = Gateway::start(&all_to_with(upstream.address, listener, cluster, route));
    let client = gateway.connect();
    (gateway, client, accepted, upstream.address)
}

/// That a response is a problem document of this status and kind, that the log says the same, and that neither names
/// anything of the inside.
fn is_problem(gateway: &Gateway, response: &Response, status: u16, kind: &str, proxy_error: &str) {
    assert_eq!(response.status, status, "{kind}");
    assert_eq!(fields(&response.head, "content-type"), ["application/problem+json"]);
    assert_eq!(fields(&response.head, "proxy-status"), [format!("ringgate; error={proxy_error}")]);
    assert_eq!(fields(&response.head, "date").len(), 1);
    assert_eq!(field(&response.head, "retry-after").is_some(), status == 503);
    assert_eq!(field(&response.head, "allow").is_some(), status == 405);
    let problem: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
    let mut keys: Vec<_> = problem.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["detail", "request_id", "status", "title", "type"]);
    assert_eq!(problem["type"], format!("urn:ringgate:problem:{kind}"));
    assert_eq!(problem["status"], status);
    assert!(
        response.head.starts_with(&format!("HTTP/1.1 {status} {}\r\n", problem["title"].as_str().unwrap()))
    );
    assert!(!problem["detail"].as_str().unwrap().is_empty());
    let line = gateway.log_line();
    assert_eq!(line["request_id"], problem["request_id"]);
    assert_eq!((line["status"].as_u64(), line["end"].as_str()), (Some(status.into()), Some(kind)));
    assert_eq!(line["sent_bytes"], response.head.len() + response.body.len());
    let told = format!("{}{}", response.head, response.text());
    for inside in ["127.0.0.1", "/tmp", ".toml", ".rs", "monoio", "cluster", "secret"] {
        assert!(!told.contains(inside), "it tells {inside}: {told}");
    }
}

#[test]
fn what_is_no_request_is_told_so_and_let_go() {
    let (upstream, seen) = Upstream::witness();
    let gateway = Gateway::start(&all_to_with(
        upstream.address,
        "limits = { target_bytes = \"1KiB\", head_bytes = \"2KiB\" }\ntimeouts = { head = \"200ms\" }",
        "",
        "",
    ));
    let long = "x".repeat(1500);
    for (wire, status, kind) in [
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n".to_owned(), 400, "head-malformed"),
        ("GET /\\ HTTP/1.1\r\nHost: a\r\n\r\n".into(), 400, "path-invalid"),
        ("GET / HT".into(), 408, "head-timeout"),
        (format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"), 414, "target-too-long"),
        ("GET / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\n\r\n".into(), 417, "expectation-unknown"),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}{long}\r\n\r\n"), 431, "head-too-large"),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n".into(), 501, "coding-unknown"),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n".into(), 505, "version-unsupported"),
    ] {
        let mut client = gateway.connect();
        client.send(wire);
        let response = client.response();
        is_problem(&gateway, &response, status, kind, "http_request_error");
        assert_eq!(response.field("connection").as_deref(), Some("close"), "{kind}");
        assert!(client.rest().is_empty());
    }
    assert_eq!(upstream.accepted(), 0);
    assert!(seen.try_recv().is_err());
}

#[test]
fn what_cannot_be_served_is_told_so_and_the_connection_kept() {
    let (endpoint, _guard) = support::closed_port();
    let gateway = Gateway::start(&config(&format!(
        "[[cluster]]\nname = \"secret\"\nendpoints = [{{ address = \"{endpoint}\" }}]\n\
         [[route]]\nname = \"down\"\nmatch = {{ path = \"/down\" }}\ncluster = \"secret\"\n\
         [[route]]\nname = \"small\"\nmatch = {{ path = \"/small\" }}\nbody_bytes = \"1B\"\ncluster = \"secret\"",
    )));
    let mut client = gateway.connect();
    for (wire, status, kind, error) in [
        (GET, 404, "no-route", "destination_not_found"),
        ("TRACE /down HTTP/1.1\r\nHost: a\r\n\r\n", 405, "method-not-allowed", "http_request_denied"),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", 405, "method-not-allowed", "http_request_denied"),
        (
            "POST /small HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi",
            413,
            "body-too-large",
            "http_request_error",
        ),
        ("GET https://a/down HTTP/1.1\r\nHost: a\r\n\r\n", 421, "misdirected", "http_request_error"),
        ("GET /down HTTP/1.1\r\nHost: a\r\n\r\n", 502, "connect-failed", "connection_refused"),
        (
            "POST /down HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            502,
            "connect-failed",
            "connection_refused",
        ),
    ] {
        client.send(wire);
        let response = client.response();
        is_problem(&gateway, &response, status, kind, error);
        // Who asks in such a way may mean by what follows something else than a request.
        let ends = ["path-invalid", "method-not-allowed", "misdirected", "body-too-large"].contains(&kind);
        assert_eq!(response.field("connection").as_deref(), ends.then_some("close"), "{kind}");
        if ends {
            assert_eq!(client.rest(), b"", "{kind}");
            client = gateway.connect();
        }
    }
}

#[test]
fn an_answer_amid_a_request_ends_the_connection() {
    let (endpoint, _guard) = support::closed_port();
    let gateway = Gateway::start(&all_to(&[endpoint]));
    for (wire, status) in [
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
            502,
        ),
        ("TRACE / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhi", 405),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", 502),
    ] {
        let mut client = gateway.connect();
        client.send(wire);
        let response = client.response();
        assert_eq!((response.status, response.field("connection").as_deref()), (status, Some("close")));
        assert!(client.rest().is_empty(), "one answer, and the end");
    }
}

#[test]
fn a_body_that_came_in_pieces_counts_as_complete_too() {
    let (gateway, mut client, accepted, _) = by_hand("", "", "");
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n");
    let mut server = accepted.next();
    server.head();
    client.send("body");
    server.exactly(4);
    drop(server);
    let response = client.response();
    is_problem(&gateway, &response, 502, "upstream-closed", "connection_terminated");
    assert_eq!(response.field("connection"), None);
    client.send(GET);
    let mut server = accepted.next();
    server.head();
    server.send(ok(b"on"));
    assert_eq!(client.response().text(), "on");
}

#[test]
fn an_upstream_without_sense_is_a_502() {
    for (wire, kind, error) in [
        ("", "upstream-closed", "connection_terminated"),
        ("HTTP/1.1 200 OK\r\nContent-Le", "response-truncated", "http_response_incomplete"),
        ("SSH-2.0-OpenSSH\r\n", "response-invalid", "http_protocol_error"),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "response-invalid",
            "http_protocol_error",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            "response-invalid",
            "http_protocol_error",
        ),
        ("HTTP/1.1 200 OK\nContent-Length: 0\n\n", "response-invalid", "http_protocol_error"),
        ("HTTP/2.0 200 OK\r\n\r\n", "response-invalid", "http_protocol_error"),
        ("HTTP/1.1 99 OK\r\n\r\n", "response-invalid", "http_protocol_error"),
    ] {
        let (gateway, mut client, accepted, _) = by_hand("", "", "");
        client.send(GET);
        let mut server = accepted.next();
        server.head();
        server.send(wire);
        server.finish();
        let response = client.response();
        is_problem(&gateway, &response, 502, kind, error);
        assert_eq!(response.field("connection"), None);
        client.send(GET);
        let mut server = accepted.next();
        server.head();
        server.send(ok(b"on"));
        assert_eq!(client.response().text(), "on", "{wire}");
    }
    let (gateway, mut client, accepted, _) = by_hand("", "", "");
    client.send(GET);
    let mut server = accepted.next();
    server.head();
    server.send(format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(20_000)));
    is_problem(
        &gateway,
        &client.response(),
        502,
        "response-head-too-large",
        "http_response_header_section_size",
    );
}

#[test]
fn an_upstream_that_is_too_slow_is_a_504() {
    let timeouts = "timeouts = { first_byte = \"200ms\", idle = \"200ms\" }";
    for (wire, route, kind, error) in [
        ("", "", "first-byte-timeout", "http_response_timeout"),
        ("HTTP/1.1 100 Continue\r\n\r\n", "", "first-byte-timeout", "http_response_timeout"),
        ("HTTP/1.1 200", "", "response-timeout", "connection_read_timeout"),
        ("", "timeout = \"100ms\"", "exchange-timeout", "http_response_timeout"),
    ] {
        let (gateway, mut client, accepted, _) = by_hand("", timeouts, route);
        client.send(GET);
        let mut server = accepted.next();
        server.head();
        server.send(wire);
        if wire.contains(" 100 ") {
            assert!(client.head().starts_with("HTTP/1.1 100 "));
        }
        let response = client.response();
        if !wire.contains(" 100 ") {
            is_problem(&gateway, &response, 504, kind, error);
        }
        assert_eq!((response.status, response.field("connection")), (504, None), "{kind}");
        assert!(server.rest().is_empty(), "the late answer has nowhere to come");
        client.send(GET);
        let mut server = accepted.next();
        server.head();
        server.send(ok(b"on"));
        assert_eq!(client.response().text(), "on");
    }
}

#[test]
fn no_room_is_a_503_with_retry_after() {
    let (upstream, accepted) = Upstream::manual();
    let cluster = "pool = { max_connections = 1, queue = 1, queue_timeout = \"1s\" }";
    let gateway = Gateway::start(&all_to_with(upstream.address, "", cluster, ""));
    let mut first = gateway.connect();
    first.send(GET);
    let mut server = accepted.next();
    server.head();
    // One waits, in vain; while it waits there is no room for another.
    let mut waits = gateway.connect();
    waits.send(GET);
    let (mut full, mut waited) = (0, 0);
    let response = waits.response();
    is_problem(&gateway, &response, 503, "queue-timeout", "connection_limit_reached");
    let mut clients = [gateway.connect(), gateway.connect()];
    for client in &mut clients {
        client.send(GET);
    }
    for client in &mut clients {
        let response = client.response();
        assert_eq!((response.status, response.field("retry-after").as_deref()), (503, Some("1")));
        let text = response.text();
        full += usize::from(text.contains("problem:queue-full"));
        waited += usize::from(text.contains("problem:queue-timeout"));
    }
    assert_eq!((full, waited), (1, 1));
    server.send(ok(b"served"));
    assert_eq!(first.response().text(), "served");
}

#[test]
fn head_gets_the_same_answers_without_their_bodies() {
    let (endpoint, _guard) = support::closed_port();
    let gateway = Gateway::start(&config(&format!(
        "[[cluster]]\nname = \"down\"\nendpoints = [{{ address = \"{endpoint}\" }}]\n\
         [[route]]\nname = \"down\"\nmatch = {{ path = \"/down\" }}\ncluster = \"down\"",
    )));
    let mut client = gateway.connect();
    for (path, status) in [("/down", 502), ("/none", 404)] {
        client.send(format!("HEAD {path} HTTP/1.1\r\nHost: a\r\n\r\nGET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let head = client.head();
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")));
        let response = client.response();
        assert_eq!(response.status, status, "the next answer follows at once");
        assert_eq!(field(&head, "content-length"), response.field("content-length"));
        assert_eq!(field(&head, "content-type"), response.field("content-type"));
    }
}

#[test]
fn an_http_10_client_gets_answers_too() {
    let gateway = Gateway::start(&config("[[route]]\nname = \"x\"\nmatch = { path = \"/x\" }\nrespond = {}"));
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let response = client.response();
    assert_eq!((response.status, response.field("connection").as_deref()), (404, Some("keep-alive")));
    client.send("GET / HTTP/1.0\r\n\r\n");
    let response = client.response();
    assert_eq!((response.status, response.field("connection").as_deref()), (404, Some("close")));
    assert!(client.rest().is_empty());
}

#[test]
fn a_trusted_peers_id_is_the_answers_too() {
    let gateway = Gateway::start(&config(
        "trusted_proxies = [\"127.0.0.0/8\"]\n[[route]]\nname = \"x\"\nmatch = { path = \"/x\" }\nrespond = {}",
    ));
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: abc-1\r\n\r\n");
    let problem: serde_json::Value = serde_json::from_slice(&client.response().body).unwrap();
    assert_eq!(
        (problem["request_id"].as_str(), gateway.log_line()["request_id"].as_str()),
        (Some("abc-1"), Some("abc-1"))
    );
}

/// Lets an upstream begin a response of which the client has received `arrived`, then does `fail` to it.
fn broken_off(
    request: &str,
    response: &str,
    arrived: &str,
    cluster: &str,
    fail: impl FnOnce(Peer),
) -> (String, Vec<u8>, serde_json::Value) {
    let (gateway, mut client, accepted, _) = by_hand("", cluster, "");
    client.send(request);
    let mut server = accepted.next();
    server.head();
    server.send(response);
    let head = client.head();
    client.until(arrived.as_bytes());
    fail(server);
    let rest = client.rest();
    (head, rest, gateway.log_line())
}

#[test]
fn a_response_that_breaks_off_never_looks_complete() {
    let sized = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello";
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    let open = "HTTP/1.1 200 OK\r\n\r\nhello";
    let idle = "timeouts = { idle = \"200ms\" }";
    let finish = |server: Peer| drop(server);
    let reset = |server: Peer| server.reset();
    type Fail = fn(Peer);
    let stay: Fail = |mut server| {
        server.rest();
    };
    for (response, cluster, fail, end) in [
        (sized, "", finish as Fail, "response-truncated"),
        (sized, "", reset as Fail, "response-truncated"),
        (sized, idle, stay, "response-timeout"),
        (chunked, "", finish as Fail, "response-truncated"),
        (chunked, "", reset as Fail, "response-truncated"),
        (chunked, idle, stay, "response-timeout"),
        (open, "", reset as Fail, "response-truncated"),
        (open, idle, stay, "response-timeout"),
    ] {
        let (head, rest, line) = broken_off(GET, response, "hello", cluster, fail);
        assert_eq!(field(&head, "transfer-encoding").is_some(), response != sized);
        // Of chunks there may be the end of the one that came, but not the last.
        assert!(matches!(rest.as_slice(), b"" | b"\r\n"), "{response}: {rest:?}");
        assert_eq!((line["status"].as_u64(), line["end"].as_str()), (Some(200), Some(end)), "{response}");
    }
}

#[test]
fn a_chunked_response_that_turns_out_broken_is_cut() {
    for broken in [
        "zz\r\n",
        "5\r\nhelloXX",
        "ffffffffffffffffff\r\n",
        "0\r\nContent-Length: 5\r\n\r\n",
        "0\r\n bad\r\n\r\n",
    ] {
        let start = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
        let (_, rest, line) = broken_off(GET, start, "hello", "", |mut server| {
            server.send(broken);
            server.rest();
        });
        let rest = String::from_utf8(rest).unwrap();
        assert!(!rest.contains("\r\n0\r\n") && !rest.starts_with("0\r\n"), "{broken:?}: {rest:?}");
        assert_eq!(line["end"], "response-invalid", "{broken:?}");
    }
}

#[test]
fn an_exchange_that_takes_too_long_is_cut() {
    let (gateway, mut client, accepted, _) = by_hand("", "", "timeout = \"300ms\"");
    client.send(GET);
    let mut server = accepted.next();
    server.head();
    server.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    // It flows, but it does not end.
    while server.try_send("5\r\nhello\r\n") {
        client.until(b"hello");
        if client.stream.peek(&mut [0; 1]).is_ok_and(|count| count == 0) {
            break;
        }
    }
    let line = gateway.log_line();
    assert_eq!((line["status"].as_u64(), line["end"].as_str()), (Some(200), Some("exchange-timeout")));
}

#[test]
fn no_route_by_host_or_method_is_a_404() {
    let gateway = Gateway::start(&config(
        "[[route]]\nname = \"x\"\nmatch = { host = \"in.example\", method = [\"GET\"], path = \"/x\" }\nrespond = {}",
    ));
    let mut client = gateway.connect();
    for (method, host, status) in
        [("GET", "in.example", 200), ("GET", "out.example", 404), ("PUT", "in.example", 404)]
    {
        client.send(format!("{method} /x HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(client.response().status, status);
    }
}

#[test]
fn a_text_that_cannot_be_filled_in_is_a_400() {
    let gateway =
        Gateway::start(&config("[[route]]\nname = \"moved\"\nredirect = { to = \"https://{host}/x\" }"));
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let response = client.response();
    is_problem(&gateway, &response, 400, "rewrite-invalid", "http_request_error");
}
