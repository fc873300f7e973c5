//! Limits and deadlines of a client's connection, each with the answer and the log line's `end` that it costs.
#![allow(clippy::disallowed_methods, reason = "tests run no data plane")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::time::Duration;

use support::{Accepted, Gateway, Peer, Response, Upstream, all_to_with, config, ok};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// A gateway whose upstream answers anything.
fn gateway(listener: &str, route: &str) -> Gateway {
    let upstream = Upstream::answering(|_, body| ok(body.len().to_string().as_bytes()));
    Gateway::start(&all_to_with(upstream.address, listener, "", route))
}

fn by_hand(listener: &str, cluster: &str) -> (Gateway, Peer, Accepted) {
    let (upstream, accepted) = Upstream::manual();
    let gateway = Gateway::start(&all_to_with(upstream.address, listener, cluster, ""));
    let client = gateway.connect();
    (gateway, client, accepted)
}

fn ask(gateway: &Gateway, wire: &str) -> Response {
    let mut client = gateway.connect();
    client.send(wire);
    client.response()
}

/// The status of the answer to `wire`, its problem type's last part, and the log line's `end`. The connection is
/// closed after it.
fn refusal(gateway: &Gateway, wire: &str) -> (u16, String, String) {
    let mut client = gateway.connect();
    // The gateway may answer, and close, before it has taken everything.
    let _ = client.try_send(wire);
    let response = client.response();
    assert_eq!(response.field("connection").as_deref(), Some("close"));
    assert!(client.rest().is_empty());
    let problem: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
    let kind = problem["type"].as_str().unwrap().rsplit(':').next().unwrap().to_owned();
    let line = gateway.log_line();
    assert_eq!(line["status"], response.status);
    (response.status, kind, line["end"].as_str().unwrap().to_owned())
}

fn refused(status: u16, kind: &str) -> (u16, String, String) {
    (status, kind.into(), kind.into())
}

#[test]
fn head_bytes() {
    let gateway = gateway("limits = { head_bytes = \"2KiB\", target_bytes = \"1KiB\" }", "");
    let wire = |pad: usize| format!("GET / HTTP/1.1\r\nHost: a\r\nX-Pad: {}\r\n\r\n", "x".repeat(pad));
    let rest = wire(0).len();
    assert_eq!(ask(&gateway, &wire(2048 - rest)).status, 200);
    assert_eq!(gateway.log_line()["end"], "ok");
    for pad in [2049 - rest, 5000, 100_000] {
        assert_eq!(refusal(&gateway, &wire(pad)), refused(431, "head-too-large"), "{pad}");
    }
    // Before the end of it is there: no one waits for a head that is too large already.
    assert_eq!(refusal(&gateway, &wire(3000)[..2500]), refused(431, "head-too-large"));
}

#[test]
fn head_bytes_by_default() {
    let gateway = gateway("", "");
    let wire = |pad: usize| format!("GET / HTTP/1.1\r\nHost: a\r\nX-Pad: {}\r\n\r\n", "x".repeat(pad));
    let rest = wire(0).len();
    assert_eq!(ask(&gateway, &wire(16384 - rest)).status, 200);
    gateway.log_line();
    assert_eq!(refusal(&gateway, &wire(16385 - rest)), refused(431, "head-too-large"));
}

#[test]
fn headers() {
    let gateway = gateway("limits = { headers = 5 }", "");
    let wire = |count: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(count - 1));
    assert_eq!(ask(&gateway, &wire(5)).status, 200);
    gateway.log_line();
    assert_eq!(refusal(&gateway, &wire(6)), refused(431, "head-too-large"));
    let gateway = self::gateway("", "");
    assert_eq!(ask(&gateway, &wire(100)).status, 200);
    gateway.log_line();
    assert_eq!(refusal(&gateway, &wire(101)), refused(431, "head-too-large"));
}

#[test]
fn target_bytes() {
    let gateway = gateway("limits = { target_bytes = \"1KiB\" }", "");
    let wire = |len: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(len - 1));
    assert_eq!(ask(&gateway, &wire(1024)).status, 200);
    gateway.log_line();
    assert_eq!(refusal(&gateway, &wire(1025)), refused(414, "target-too-long"));
    let gateway = self::gateway("", "");
    assert_eq!(ask(&gateway, &wire(8192)).status, 200);
    gateway.log_line();
    assert_eq!(refusal(&gateway, &wire(8193)), refused(414, "target-too-long"));
}

#[test]
fn body_bytes_announced() {
    let gateway = gateway("limits = { body_bytes = \"10B\" }", "");
    assert_eq!(
        ask(&gateway, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n0123456789").text(),
        "10"
    );
    gateway.log_line();
    // Refused by the announcement; not a byte of it need come.
    let wire = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n";
    assert_eq!(refusal(&gateway, wire), refused(413, "body-too-large"));
    let wire = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 11\r\n\r\n";
    assert_eq!(refusal(&gateway, wire), refused(413, "body-too-large"));
}

#[test]
fn a_route_has_its_own_body_bytes() {
    for (listener, route, fits) in [("10B", "20B", 20), ("20B", "10B", 10)] {
        let gateway = gateway(
            &format!("limits = {{ body_bytes = \"{listener}\" }}"),
            &format!("body_bytes = \"{route}\""),
        );
        let wire = |len: usize| {
            format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {len}\r\n\r\n{}", "x".repeat(len))
        };
        assert_eq!(ask(&gateway, &wire(fits)).text(), fits.to_string());
        gateway.log_line();
        let mut client = gateway.connect();
        client.send(wire(fits + 1));
        assert_eq!(client.response().status, 413);
        // The whole request was here, but a client is told alike however much of it was.
        assert_eq!(client.rest(), b"");
    }
}

#[test]
fn body_bytes_of_a_chunked_body() {
    let (gateway, mut client, accepted) = by_hand("limits = { body_bytes = \"10B\" }", "");
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nabcdef\r\n");
    let mut server = accepted.next();
    server.until(b"6\r\nabcdef\r\n");
    client.send("5\r\nghijk\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
    let response = client.response();
    assert_eq!((response.status, response.field("connection").as_deref()), (413, Some("close")));
    assert!(server.rest().is_empty(), "cut, without a last chunk");
    assert!(client.rest().is_empty(), "no second answer");
    assert_eq!(gateway.log_line()["end"], "body-too-large");
}

#[test]
fn the_heads_deadline_is_absolute() {
    let gateway = gateway("timeouts = { head = \"300ms\" }", "");
    let mut client = gateway.connect();
    // Slowly, but steadily; until the answer is there.
    let mut wire = b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ".iter().copied().chain(std::iter::repeat(b'x'));
    client.stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let mut sent = 0;
    while let Err(error) = client.stream.peek(&mut [0]) {
        assert!(
            matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut),
            "{error}"
        );
        assert!(client.try_send([wire.next().unwrap()]));
        sent += 1;
        assert!(sent < 1000, "each byte buys more time");
    }
    client.stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
    let response = client.response();
    assert_eq!((response.status, response.field("connection").as_deref()), (408, Some("close")));
    assert!(client.rest().is_empty());
    let line = gateway.log_line();
    assert_eq!((line["status"].as_u64(), line["end"].as_str()), (Some(408), Some("head-timeout")));
}

#[test]
fn the_heads_deadline_begins_anew_with_each_request() {
    let gateway = gateway("timeouts = { head = \"200ms\", keep_alive = \"20s\" }", "");
    let mut client = gateway.connect();
    for _ in 0..2 {
        client.send(GET);
        assert_eq!(client.response().status, 200);
        assert_eq!(gateway.log_line()["end"], "ok");
        // By the time that another client's head has timed out, this one's would have.
        assert_eq!(refusal(&gateway, "GET / HT"), refused(408, "head-timeout"));
    }
    client.send("GET /");
    assert_eq!(client.response().status, 408);
}

#[test]
fn body_idle() {
    for framing in ["Content-Length: 10\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"] {
        let (gateway, mut client, accepted) = by_hand("timeouts = { body_idle = \"200ms\" }", "");
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}"));
        let mut server = accepted.next();
        server.until(b"hello");
        let response = client.response();
        assert_eq!((response.status, response.field("connection").as_deref()), (408, Some("close")));
        assert!(client.rest().is_empty());
        assert!(matches!(server.rest().as_slice(), b"" | b"\r\n"), "cut, without a last chunk");
        assert_eq!(gateway.log_line()["end"], "body-timeout");
    }
}

#[test]
fn keep_alive() {
    let gateway = gateway("timeouts = { keep_alive = \"200ms\" }", "");
    let mut client = gateway.connect();
    client.send(GET);
    client.response();
    assert!(client.rest().is_empty(), "closed without a word");
    // Before the first request too.
    assert!(gateway.connect().rest().is_empty());
    assert_eq!(gateway.log_line()["end"], "ok");
}

#[test]
fn requests_per_connection() {
    let gateway = gateway("limits = { requests_per_connection = 3 }", "");
    let mut client = gateway.connect();
    client.send(GET.repeat(5));
    for last in [false, false, true] {
        let response = client.response();
        assert_eq!(response.field("connection").as_deref(), last.then_some("close"));
    }
    assert!(client.rest().is_empty());
    // An error is a response like any other.
    let gateway = Gateway::start(&config(
        "limits = { requests_per_connection = 2 }\n[[route]]\nname = \"x\"\nmatch = { path = \"/x\" }\nrespond = {}",
    ));
    let mut client = gateway.connect();
    client.send(GET.repeat(3));
    assert_eq!(client.response().field("connection"), None);
    assert_eq!(client.response().field("connection").as_deref(), Some("close"));
    assert!(client.rest().is_empty());
}

#[test]
fn connection_age() {
    let gateway = gateway("timeouts = { connection_age = \"300ms\" }", "");
    let mut client = gateway.connect();
    let mut count = 0;
    loop {
        client.send(GET);
        let response = client.response();
        assert_eq!(response.status, 200);
        count += 1;
        if response.field("connection").as_deref() == Some("close") {
            break;
        }
        assert!(count < 1_000_000, "it does not age");
    }
    assert!(client.rest().is_empty());
}

#[test]
fn write_stall() {
    let (gateway, mut client, accepted) = by_hand("timeouts = { write_stall = \"300ms\" }", "");
    client.send(GET);
    let mut server = accepted.next();
    server.head();
    let total = 64 * 1024 * 1024;
    server.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {total}\r\n\r\n"));
    let piece = vec![b'x'; 65536];
    while server.try_send(&piece) {}
    let line = gateway.log_line();
    assert_eq!((line["status"].as_u64(), line["end"].as_str()), (Some(200), Some("write-stall")));
    assert!(client.rest().len() < total, "it ends short of its length");
}

#[test]
fn what_a_listener_does_not_set_is_the_files() {
    let gateway = Gateway::start(
        &config("limits = { headers = 3 }\n[limits]\nheaders = 2\nbody_bytes = \"5B\"\n[[route]]\nname = \"x\"\nrespond = {}")
            .replace("[runtime]", "[timeouts]\nhead = \"200ms\"\n[runtime]"),
    );
    assert_eq!(ask(&gateway, "GET / HTTP/1.1\r\nHost: a\r\nA: b\r\nC: d\r\n\r\n").status, 200);
    gateway.log_line();
    let wire = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\n";
    assert_eq!(refusal(&gateway, wire), refused(413, "body-too-large"));
    assert_eq!(refusal(&gateway, "GET"), refused(408, "head-timeout"));
}
