//! A gateway that does the plain things: relays, keeps alive, answers by itself, logs.
#![allow(clippy::disallowed_methods, reason = "tests run no data plane")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use support::{Gateway, Upstream, all_to, config, field};

#[test]
fn relays_and_keeps_both_connections() {
    let upstream = Upstream::saying("hello");
    let gateway = Gateway::start(&all_to(&[upstream.address]));
    let mut client = gateway.connect();
    for _ in 0..3 {
        client.send("GET /a?b=c HTTP/1.1\r\nHost: example.com\r\n\r\n");
        let response = client.response();
        assert_eq!((response.status, response.text().as_str()), (200, "hello"));
    }
    assert_eq!(upstream.accepted(), 1);
    let line = gateway.log_line();
    assert_eq!(
        (line["path"].as_str(), line["status"].as_u64(), line["end"].as_str()),
        (Some("/a"), Some(200), Some("ok"))
    );
}

#[test]
fn tells_the_upstream_who_asks() {
    let upstream = Upstream::answering(|head, _| support::ok(head.as_bytes()));
    let gateway = Gateway::start(&all_to(&[upstream.address]));
    let mut client = gateway.connect();
    client.send(
        "GET / HTTP/1.1\r\nHost: example.com\r\nX-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\n\r\n",
    );
    let seen = client.response().text();
    assert_eq!(field(&seen, "x-forwarded-for").as_deref(), Some("127.0.0.1"));
    assert_eq!(field(&seen, "forwarded").as_deref(), Some("for=127.0.0.1;host=example.com;proto=http"));
    assert_eq!(field(&seen, "host").as_deref(), Some("example.com"));
    assert!(!seen.contains("6.6.6.6"));
}

#[test]
fn no_route_is_a_problem_document_and_keeps_the_connection() {
    let gateway = Gateway::start(&config(
        "[[route]]\nname = \"only\"\nmatch = { path = \"/only\" }\nrespond = { body = \"yes\" }",
    ));
    let mut client = gateway.connect();
    client.send("GET /other HTTP/1.1\r\nHost: a\r\n\r\n");
    let response = client.response();
    assert_eq!(response.status, 404);
    assert_eq!(response.field("content-type").as_deref(), Some("application/problem+json"));
    let problem: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
    assert_eq!(problem["type"], "urn:ringgate:problem:no-route");
    assert_eq!(problem["status"], 404);
    client.send("GET /only HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.response().text(), "yes");
}

/// Its failures are 200, which a cache that does not look at the content type of requests would keep.
#[test]
fn a_content_type_alone_does_not_make_a_call_of_grpc() {
    let gateway =
        Gateway::start(&config("[[route]]\nname = \"only\"\nmatch = { path = \"/only\" }\nrespond = {}"));
    let mut client = gateway.connect();
    for method in ["GET", "POST"] {
        client.send(format!(
            "{method} /other HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\n\r\n"
        ));
        let response = client.response();
        assert_eq!(response.status, 404, "{method}");
        assert_eq!(response.field("grpc-status"), None, "{method}");
    }
}

/// Huge pages would double what a process at rest holds.
#[test]
fn the_process_has_small_pages() {
    let gateway = Gateway::start(&config("[[route]]\nname = \"x\"\nrespond = {}"));
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
    // A kernel without the line has no huge pages to refuse.
    assert!(!status.contains("THP_enabled:\t1"), "{status}");
}
