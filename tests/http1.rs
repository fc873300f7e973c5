//! HTTP/1.1 as clients and upstreams speak it: keep-alive and pipelining, interim responses, messages without bodies,
//! HTTP/1.0, the forms of a target, trailers, and heads that come in odd pieces.
#![allow(clippy::disallowed_methods, reason = "tests run no data plane")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use support::{Gateway, Peer, Upstream, all_to, all_to_with, config, field, fields, ok, request_body};

const GET: &str = "GET / HTTP/1.1\r\nHost: example.com\r\n\r\n";

/// Says its request's target and body.
fn echo() -> Upstream {
    Upstream::answering(|head, body| {
        let target = head.split(' ').nth(1).unwrap();
        ok(&[target.as_bytes(), b" ", body].concat())
    })
}

/// A gateway before an upstream that the test plays itself, a client's connection to it, and what comes upstream.
fn by_hand() -> (Gateway, Peer, support::Accepted) {
    by_hand_with("", "", "")
}

fn by_hand_with(listener: &str, cluster: &str, route: &str) -> (Gateway, Peer, support::Accepted) {
    let (upstream, accepted) = Upstream::manual();
    let gateway = Gateway::start(&all_to_with(upstream.address, listener, cluster, route));
    let client = gateway.connect();
    (gateway, client, accepted)
}

/// The connection serves one more exchange, on both sides.
fn still_works(client: &mut Peer, server: &mut Peer) {
    client.send("GET /still HTTP/1.1\r\nHost: example.com\r\n\r\n");
    assert!(server.head().starts_with("GET /still "));
    server.send(ok(b"alive"));
    assert_eq!(client.response().text(), "alive");
}

#[test]
fn pipelined_requests_are_answered_in_order_with_their_bodies() {
    let upstream = echo();
    let gateway = Gateway::start(&all_to(&[upstream.address]));
    let mut client = gateway.connect();
    client.send(
        "GET /1 HTTP/1.1\r\nHost: a\r\n\r\n\
         POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello\
         PUT /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n3;x=y\r\ncde\r\n0\r\n\r\n\
         POST /4 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n\
         GET /5 HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    for expected in ["/1 ", "/2 hello", "/3 abcde", "/4 ", "/5 "] {
        assert_eq!(client.response().text(), expected);
    }
    for path in ["/1", "/2", "/3", "/4", "/5"] {
        let line = gateway.log_line();
        assert_eq!((line["path"].as_str(), line["end"].as_str()), (Some(path), Some("ok")));
    }
    assert_eq!(upstream.accepted(), 1);
}

#[test]
fn many_small_requests_in_one_segment_are_answered_in_order() {
    let upstream = echo();
    let gateway = Gateway::start(&all_to(&[upstream.address]));
    let mut client = gateway.connect();
    let count = 600;
    let all: String = (0..count).map(|n| format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    assert!(all.len() > 16 * 1024, "more than one receive takes");
    client.send(all);
    for n in 0..count {
        assert_eq!(client.response().text(), format!("/{n} "));
    }
    assert_eq!(upstream.accepted(), 1);
}

#[test]
fn a_request_that_comes_while_the_one_before_waits_is_kept() {
    let (_gateway, mut client, accepted) = by_hand();
    client.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut server = accepted.next();
    assert!(server.head().starts_with("GET /1 "));
    client.send("POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbo");
    client.send("dyGET /3 HTTP/1.1\r\nHost: a\r\n\r\n");
    server.send(ok(b"one"));
    let head = server.head();
    assert!(head.starts_with("POST /2 "));
    assert_eq!(request_body(&mut server, &head), b"body");
    server.send(ok(b"two"));
    assert!(server.head().starts_with("GET /3 "));
    server.send(ok(b"three"));
    for expected in ["one", "two", "three"] {
        assert_eq!(client.response().text(), expected);
    }
}

#[test]
fn requests_that_come_while_another_is_sent_again_are_kept() {
    let (_gateway, mut client, accepted) = by_hand();
    client.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut first = accepted.next();
    first.head();
    first.send(ok(b"one"));
    assert_eq!(client.response().text(), "one");
    client.send("GET /2 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(first.head().starts_with("GET /2 "));
    client.send("GET /3 HTTP/1.1\r\nHost: a\r\n\r\n");
    // The connection had been idle, and it closes without an answer.
    drop(first);
    let mut second = accepted.next();
    assert!(second.head().starts_with("GET /2 "));
    client.send("GET /4 HTTP/1.1\r\nHost: a\r\n\r\n");
    second.send(ok(b"two"));
    for path in ["GET /3 ", "GET /4 "] {
        assert!(second.head().starts_with(path));
        second.send(ok(path.as_bytes()));
    }
    for expected in ["two", "GET /3 ", "GET /4 "] {
        assert_eq!(client.response().text(), expected);
    }
}

#[test]
fn requests_cut_at_every_place_mean_the_same() {
    let upstream = echo();
    let gateway = Gateway::start(&all_to(&[upstream.address]));
    let wire = "POST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx: y\r\n\r\n\
                POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody";
    let mut client = gateway.connect();
    for at in 0..=wire.len() {
        client.send(&wire[..at]);
        client.send(&wire[at..]);
        assert_eq!(client.response().text(), "/1 abc", "cut at {at}");
        assert_eq!(client.response().text(), "/2 body", "cut at {at}");
    }
}

#[test]
fn one_empty_line_before_a_request_is_let_pass() {
    let upstream = echo();
    let gateway = Gateway::start(&all_to(&[upstream.address]));
    let mut client = gateway.connect();
    client.send(
        "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    assert_eq!(client.response().text(), "/1 x");
    assert_eq!(client.response().text(), "/2 ");
}

#[test]
fn connection_close_is_heeded_on_either_side() {
    let (_gateway, mut client, accepted) = by_hand();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut server = accepted.next();
    assert_eq!(field(&server.head(), "connection"), None);
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi");
    let response = client.response();
    assert_eq!((response.text().as_str(), response.field("connection")), ("hi", None));
    assert!(server.rest().is_empty(), "the upstream's wish ends the upstream's connection");
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let mut server = accepted.next();
    assert_eq!(field(&server.head(), "connection"), None);
    server.send(ok(b"bye"));
    let response = client.response();
    assert_eq!(response.field("connection").as_deref(), Some("close"));
    assert!(client.rest().is_empty(), "the client's wish ends the client's connection");
    let mut client = _gateway.connect();
    still_works(&mut client, &mut server);
}

#[test]
fn the_upstreams_100_is_relayed_before_the_body_is_sent() {
    let (_gateway, mut client, accepted) = by_hand();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
    let mut server = accepted.next();
    assert_eq!(field(&server.head(), "expect").as_deref(), Some("100-continue"));
    server.send("HTTP/1.1 100 Continue\r\n\r\n");
    assert!(client.head().starts_with("HTTP/1.1 100 "));
    client.send("body");
    assert_eq!(server.exactly(4), b"body");
    server.send(ok(b"got it"));
    assert_eq!(client.response().text(), "got it");
    still_works(&mut client, &mut server);
}

#[test]
fn a_final_status_instead_of_100_ends_both_connections() {
    let (_gateway, mut client, accepted) = by_hand();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
    let mut server = accepted.next();
    server.head();
    server.send("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno");
    let response = client.response();
    assert_eq!((response.status, response.text().as_str()), (417, "no"));
    assert_eq!(response.field("connection").as_deref(), Some("close"));
    // Whether the body still comes is unknown on both: neither may carry another request.
    assert!(server.rest().is_empty());
    assert!(client.rest().is_empty());
}

#[test]
fn a_client_that_does_not_wait_for_100_is_not_held_up() {
    let (_gateway, mut client, accepted) = by_hand();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
    let mut server = accepted.next();
    let head = server.head();
    client.send("body");
    assert_eq!(request_body(&mut server, &head), b"body");
    server.send(ok(b"never said 100"));
    assert_eq!(client.response().text(), "never said 100");
    still_works(&mut client, &mut server);
}

#[test]
fn the_gateways_own_answer_needs_no_100() {
    let gateway = Gateway::start(&config(
        "[[route]]\nname = \"no\"\nmatch = { path = \"/no\" }\nrespond = { status = 403, body = \"no\" }",
    ));
    for (path, status) in [("/no", 403), ("/other", 404)] {
        let mut client = gateway.connect();
        client.send(format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
        ));
        let response = client.response();
        assert_eq!((response.status, response.field("connection").as_deref()), (status, Some("close")));
        // The body that comes all the same is no request.
        let _ = client.try_send("GET ");
        assert!(client.rest().is_empty());
    }
}

#[test]
fn interim_responses_are_relayed_as_they_come() {
    let (_gateway, mut client, accepted) = by_hand();
    client.send(GET);
    let mut server = accepted.next();
    server.head();
    server.send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n");
    let hints = client.head();
    assert!(hints.starts_with("HTTP/1.1 103 "), "{hints}");
    assert_eq!(field(&hints, "link").as_deref(), Some("</a.css>; rel=preload"));
    // Two more, and the final one, in a single segment.
    server.send(
        "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </b.css>\r\n\r\n\
         HTTP/1.1 200 OK\r\nContent-Length: 5\r\nLink: </c.css>\r\n\r\nfinal",
    );
    assert!(client.head().starts_with("HTTP/1.1 102 "));
    assert_eq!(field(&client.head(), "link").as_deref(), Some("</b.css>"));
    let response = client.response();
    assert_eq!(
        (response.text().as_str(), fields(&response.head, "link")),
        ("final", vec!["</c.css>".into()])
    );
    still_works(&mut client, &mut server);
}

#[test]
fn an_http_10_client_gets_no_interim_responses() {
    let (_gateway, mut client, accepted) = by_hand();
    client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    let mut server = accepted.next();
    server.head();
    server.send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n");
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
    let response = client.response();
    assert_eq!((response.status, response.text().as_str()), (200, "hi"));
}

#[test]
fn endless_interim_responses_are_a_broken_response() {
    let (gateway, mut client, accepted) = by_hand();
    client.send(GET);
    let mut server = accepted.next();
    server.head();
    while server.try_send("HTTP/1.1 103 Early Hints\r\n\r\n") {}
    let mut head = client.head();
    while head.starts_with("HTTP/1.1 103 ") {
        head = client.head();
    }
    assert_eq!(client.body_of(head).status, 502);
    assert_eq!(gateway.log_line()["end"], "response-invalid");
}

#[test]
fn responses_without_a_body_leave_the_connection_in_order() {
    let (_gateway, mut client, accepted) = by_hand();
    client.send("HEAD /1 HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut server = accepted.next();
    for (request, response) in [
        ("HEAD /1", "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nETag: \"x\"\r\n\r\n"),
        ("HEAD /2", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nETag: \"x\"\r\n\r\n"),
        ("HEAD /3", "HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\nETag: \"x\"\r\n\r\n"),
        ("HEAD /4", "HTTP/1.1 200 OK\r\nETag: \"x\"\r\n\r\n"),
        ("GET /5", "HTTP/1.1 204 No Content\r\nETag: \"x\"\r\n\r\n"),
        ("GET /6", "HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\nETag: \"x\"\r\n\r\n"),
        ("GET /7", "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n"),
        ("DELETE /8", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nETag: \"x\"\r\n\r\n"),
    ] {
        if request != "HEAD /1" {
            client.send(format!("{request} HTTP/1.1\r\nHost: a\r\n\r\n"));
        }
        assert!(server.head().starts_with(request));
        server.send(response);
        let head = client.head();
        assert_eq!(head.lines().next(), response.lines().next(), "{request}");
        assert_eq!(field(&head, "content-length"), field(response, "content-length"), "{request}");
        assert_eq!((field(&head, "etag").as_deref(), field(&head, "connection")), (Some("\"x\""), None));
    }
    still_works(&mut client, &mut server);
}

#[test]
fn a_204_has_no_length_even_if_the_upstream_says_so() {
    let (_gateway, mut client, accepted) = by_hand();
    client.send(GET);
    let mut server = accepted.next();
    server.head();
    server.send("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n");
    let head = client.head();
    assert_eq!((field(&head, "content-length"), field(&head, "transfer-encoding")), (None, None));
    still_works(&mut client, &mut server);
}

#[test]
fn a_body_where_none_belongs_reaches_no_one() {
    for (request, response) in [
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"),
        ("GET", "HTTP/1.1 204 No Content\r\nContent-Length: 6\r\n\r\npoison"),
        ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 6\r\n\r\npoison"),
        (
            "GET",
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
        ),
        ("GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\npoison"),
    ] {
        let (_gateway, mut client, accepted) = by_hand();
        client.send(format!("{request} / HTTP/1.1\r\nHost: a\r\n\r\n"));
        let mut server = accepted.next();
        server.head();
        server.send(response);
        let head = client.head();
        if field(&head, "transfer-encoding").is_some() {
            assert_eq!(client.chunked(), b"x");
        }
        assert!(server.rest().is_empty(), "the connection is not used again");
        client.send(GET);
        let mut server = accepted.next();
        server.head();
        server.send(ok(b"pure"));
        assert_eq!(client.response().text(), "pure", "{request} {response}");
    }
}

#[test]
fn a_response_nobody_asked_for_reaches_no_one() {
    let (_gateway, mut client, accepted) = by_hand();
    client.send(GET);
    let mut server = accepted.next();
    server.head();
    server.send(ok(b"one"));
    assert_eq!(client.response().text(), "one");
    server.send(ok(b"poison"));
    assert!(server.rest().is_empty(), "the connection is closed before anyone uses it");
    client.send(GET);
    let mut server = accepted.next();
    server.head();
    server.send(ok(b"two"));
    assert_eq!(client.response().text(), "two");
}

#[test]
fn an_http_10_client_is_closed_after_its_response() {
    let (_gateway, mut client, accepted) = by_hand();
    client.send("GET /old HTTP/1.0\r\n\r\n");
    let mut server = accepted.next();
    let head = server.head();
    assert!(head.starts_with("GET /old HTTP/1.1\r\n"));
    assert_eq!(fields(&head, "host").len(), 1);
    server.send(ok(b"hi"));
    let response = client.response();
    assert_eq!((response.text().as_str(), response.field("connection").as_deref()), ("hi", Some("close")));
    assert!(client.rest().is_empty());
}

#[test]
fn an_http_10_client_is_kept_when_it_asks() {
    let (_gateway, mut client, accepted) = by_hand();
    let wire = "GET / HTTP/1.0\r\nHost: a\r\nConnection: Keep-Alive\r\n\r\n";
    client.send(wire);
    let mut server = accepted.next();
    for last in [false, true] {
        server.head();
        server.send(ok(b"hi"));
        let response = client.response();
        assert_eq!(response.text(), "hi");
        assert_eq!(response.field("connection").as_deref(), Some("keep-alive"));
        if !last {
            client.send(wire);
        }
    }
    client.send("HEAD / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n");
    server.head();
    server.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_eq!(field(&client.head(), "connection").as_deref(), Some("keep-alive"));
    client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    server.head();
    server.send(ok(b"last"));
    assert_eq!(client.response().text(), "last");
    assert!(client.rest().is_empty());
}

#[test]
fn an_http_10_client_gets_chunks_decoded_and_then_the_end() {
    // Keep-alive cannot be granted: nothing but the connection's end can end this body.
    for wish in ["", "Connection: keep-alive\r\n"] {
        let (_gateway, mut client, accepted) = by_hand();
        client.send(format!("GET / HTTP/1.0\r\nHost: a\r\n{wish}\r\n"));
        let mut server = accepted.next();
        server.head();
        server.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
        let head = client.head();
        assert_eq!((field(&head, "transfer-encoding"), field(&head, "content-length")), (None, None));
        assert_eq!(field(&head, "connection").as_deref(), Some("close"), "{wish}");
        assert_eq!(client.exactly(5), b"hello");
        server.send("6\r\n world\r\n0\r\nX-Trailer: dropped\r\n\r\n");
        assert_eq!(client.rest(), b" world");
        // The upstream's connection is in order.
        let mut client = _gateway.connect();
        still_works(&mut client, &mut server);
    }
}

#[test]
fn an_http_10_upstream_is_understood() {
    let (_gateway, mut client, accepted) = by_hand();
    client.send(GET);
    let mut server = accepted.next();
    server.head();
    server.send("HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nhi");
    let response = client.response();
    assert!(response.head.starts_with("HTTP/1.1 200 "));
    assert_eq!((response.text().as_str(), response.field("via").as_deref()), ("hi", Some("1.0 ringgate")));
    client.send(GET);
    server.head();
    server.send("HTTP/1.0 200 OK\r\n\r\nto the end");
    server.finish();
    let response = client.response();
    assert_eq!(response.field("transfer-encoding").as_deref(), Some("chunked"));
    assert_eq!((response.text().as_str(), response.field("connection")), ("to the end", None));
    client.send(GET);
    let mut server = accepted.next();
    server.head();
    server.send("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi");
    assert_eq!(client.response().text(), "hi");
    assert!(server.rest().is_empty(), "HTTP/1.0 does not persist unless it says so");
}

#[test]
fn an_absolute_target_wins_over_host() {
    let upstream = Upstream::answering(|head, _| ok(head.as_bytes()));
    let gateway = Gateway::start(&all_to(&[upstream.address]));
    let mut client = gateway.connect();
    for (target, line, host) in [
        ("http://other.example:81/x?y", "GET /x?y HTTP/1.1", "other.example:81"),
        ("http://other.example", "GET / HTTP/1.1", "other.example"),
        ("HTTP://other.example?q=1", "GET /?q=1 HTTP/1.1", "other.example"),
        ("http://[::1]:81/a/../b", "GET /b HTTP/1.1", "[::1]:81"),
    ] {
        client.send(format!("GET {target} HTTP/1.1\r\nHost: example.com\r\n\r\n"));
        let seen = client.response().text();
        assert_eq!(seen.lines().next(), Some(line));
        assert_eq!(fields(&seen, "host"), [host]);
        assert_eq!(field(&seen, "x-forwarded-host").as_deref(), Some(host));
        let logged = gateway.log_line();
        assert_eq!(logged["host"], host);
        assert_eq!(logged["path"].as_str(), line.split([' ', '?']).nth(1));
    }
}

#[test]
fn an_absolute_target_is_routed_by_its_own_host() {
    let gateway = Gateway::start(&config(
        "[[route]]\nname = \"in\"\nmatch = { host = \"in.example\" }\nrespond = { body = \"in\" }\n\
         [[route]]\nname = \"out\"\nmatch = { host = \"out.example\" }\nrespond = { body = \"out\" }",
    ));
    let mut client = gateway.connect();
    client.send("GET http://in.example/ HTTP/1.1\r\nHost: out.example\r\n\r\n");
    assert_eq!(client.response().text(), "in");
}

#[test]
fn options_for_the_server_as_a_whole() {
    let upstream = Upstream::answering(|head, _| ok(head.as_bytes()));
    let gateway = Gateway::start(&all_to_with(upstream.address, "", "", "rewrite = \"/rewritten{path}\""));
    let mut client = gateway.connect();
    for (target, line) in [
        ("*", "OPTIONS * HTTP/1.1"),
        ("http://example.com", "OPTIONS * HTTP/1.1"),
        ("/x", "OPTIONS /rewritten/x HTTP/1.1"),
    ] {
        client.send(format!("OPTIONS {target} HTTP/1.1\r\nHost: example.com\r\n\r\n"));
        let seen = client.response().text();
        assert_eq!((seen.lines().next(), fields(&seen, "host")), (Some(line), vec!["example.com".into()]));
    }
}

#[test]
fn chunked_bodies_keep_their_trailers_both_ways() {
    let (_gateway, mut client, accepted) = by_hand();
    // All in one segment, in two, and byte by byte.
    for cuts in 0..3 {
        let request = "POST / HTTP/1.1\r\nHost: a\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n\
                       5;ext=\"a;b\"\r\nhello\r\n0\r\nX-Sum: 1\r\nx-more:  2 \r\n\r\n";
        let response = "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n\
                        3\r\nbye\r\n000\r\nX-Sum: 3\r\nx-more:  4 \r\n\r\n";
        let send = |peer: &mut Peer, wire: &str| match cuts {
            0 => peer.send(wire),
            1 => {
                let at = wire.find("\r\n\r\n").unwrap() + 4;
                peer.send(&wire[..at]);
                peer.send(&wire[at..]);
            }
            _ => wire.bytes().for_each(|byte| peer.send([byte])),
        };
        send(&mut client, request);
        let mut server = accepted.next();
        let head = server.head();
        assert_eq!(fields(&head, "transfer-encoding"), ["chunked"]);
        assert_eq!(
            (field(&head, "trailer").as_deref(), field(&head, "content-length")),
            (Some("X-Sum"), None)
        );
        let body = String::from_utf8(server.until(b"\r\n\r\n")).unwrap();
        assert_eq!(decoded(&body), ("hello".into(), "X-Sum: 1\r\nx-more: 2\r\n".into()), "{body:?}");
        send(&mut server, response);
        let head = client.head();
        assert_eq!(fields(&head, "transfer-encoding"), ["chunked"]);
        assert_eq!(
            (field(&head, "trailer").as_deref(), field(&head, "content-length")),
            (Some("X-Sum"), None)
        );
        let body = String::from_utf8(client.until(b"\r\n\r\n")).unwrap();
        assert_eq!(decoded(&body), ("bye".into(), "X-Sum: 3\r\nx-more: 4\r\n".into()), "{body:?}");
        still_works(&mut client, &mut server);
        // The next round begins on a connection of its own.
        client.send("GET /end HTTP/1.1\r\nHost: a\r\n\r\n");
        server.head();
        server.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        client.response();
    }
}

/// A chunked body's payload, without extensions on its chunks, and its trailer lines.
fn decoded(wire: &str) -> (String, String) {
    let (mut payload, mut rest) = (String::new(), wire);
    loop {
        let (size, behind) = rest.split_once("\r\n").unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return (payload, behind.strip_suffix("\r\n").unwrap().to_owned());
        }
        payload.push_str(&behind[..size]);
        rest = behind[size..].strip_prefix("\r\n").unwrap();
    }
}

#[test]
fn a_body_to_the_connections_end_becomes_chunks() {
    let (_gateway, mut client, accepted) = by_hand();
    client.send(GET);
    let mut server = accepted.next();
    server.head();
    server.send("HTTP/1.1 200 OK\r\n\r\nfirst ");
    let head = client.head();
    assert_eq!(fields(&head, "transfer-encoding"), ["chunked"]);
    server.send("second");
    server.finish();
    assert_eq!(client.chunked(), b"first second");
    client.send(GET);
    let mut server = accepted.next();
    server.head();
    server.send(ok(b"the client's connection lives on"));
    client.response();
}

#[test]
fn a_response_that_comes_byte_by_byte_means_the_same() {
    let (_gateway, mut client, accepted) = by_hand();
    client.send(GET);
    let mut server = accepted.next();
    server.head();
    let wire = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 Fine\r\nContent-Length: 5\r\nX-A: b\r\n\r\nhello";
    for byte in wire.bytes() {
        server.send([byte]);
    }
    assert_eq!(field(&client.head(), "link").as_deref(), Some("</a>"));
    let response = client.response();
    assert!(response.head.starts_with("HTTP/1.1 200 Fine\r\n"));
    assert_eq!((response.text().as_str(), response.field("x-a").as_deref()), ("hello", Some("b")));
    still_works(&mut client, &mut server);
}

#[test]
fn a_response_cut_at_every_place_means_the_same() {
    let (_gateway, mut client, accepted) = by_hand();
    let wire = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx: y\r\n\r\n";
    client.send(GET);
    let mut server = accepted.next();
    for at in 1..wire.len() {
        server.head();
        server.send(&wire[..at]);
        server.send(&wire[at..]);
        assert_eq!(client.response().text(), "abc", "cut at {at}");
        client.send(GET);
    }
}

#[test]
fn a_response_head_of_60_kib_passes_where_the_limit_allows() {
    let (_gateway, mut client, accepted) = by_hand_with("limits = { head_bytes = \"64KiB\" }", "", "");
    client.send(GET);
    let mut server = accepted.next();
    let large = "x".repeat(6 * 1024);
    let lines: String = (0..10).map(|n| format!("X-{n}: {large}\r\n")).collect();
    // Alone, and with a body that fills the segment.
    for body in [10, 100_000] {
        server.head();
        server.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {body}\r\n{lines}\r\n{}", "b".repeat(body)));
        let response = client.response();
        assert_eq!((response.status, response.body.len()), (200, body));
        for n in 0..10 {
            assert_eq!(response.field(&format!("x-{n}")).as_deref(), Some(large.as_str()));
        }
        client.send(GET);
    }
}

#[test]
fn a_response_head_that_outgrows_its_buffer_is_the_upstreams_fault() {
    let edits = format!("response_headers = {{ set = {{ x-more = \"{}\" }} }}", "y".repeat(8000));
    let (gateway, mut client, accepted) = by_hand_with("limits = { head_bytes = \"64KiB\" }", "", &edits);
    client.send(GET);
    let mut server = accepted.next();
    server.head();
    let lines = format!("X-Large: {}\r\n", "x".repeat(6000)).repeat(10);
    server.send(format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{lines}\r\n"));
    assert_eq!(client.response().status, 502);
    assert!(server.rest().is_empty());
    assert_eq!(gateway.log_line()["end"], "response-head-too-large");
}

#[test]
fn a_large_request_head_and_the_body_behind_it_pass_together() {
    let upstream = Upstream::answering(|head, body| {
        ok(format!("{} {}", field(head, "x-large").unwrap().len(), body.len()).as_bytes())
    });
    let gateway =
        Gateway::start(&all_to_with(upstream.address, "limits = { head_bytes = \"64KiB\" }", "", ""));
    let mut client = gateway.connect();
    for (head, body) in [(20_000, 10), (20_000, 100_000), (40_000, 26_000), (60_000, 100_000)] {
        client.send(format!(
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {body}\r\nX-Large: {}\r\n\r\n{}",
            "h".repeat(head),
            "b".repeat(body)
        ));
        let response = client.response();
        assert_eq!((response.status, response.text()), (200, format!("{head} {body}")));
    }
    for (head, chunks) in [(20_000, 20), (40_000, 7)] {
        client.send(format!(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nX-Large: {}\r\n\r\n{}0\r\n\r\n",
            "h".repeat(head),
            format!("{:x}\r\n{}\r\n", 5000, "b".repeat(5000)).repeat(chunks)
        ));
        let response = client.response();
        assert_eq!((response.status, response.text()), (200, format!("{head} {}", chunks * 5000)));
    }
}
