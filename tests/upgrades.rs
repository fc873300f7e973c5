//! Connections that become something else: 101 to a protocol that the client asked for, and CONNECT where it is
//! allowed. Early bytes, half-close, silence, and the switches that must not happen.
#![allow(clippy::disallowed_methods, reason = "tests run no data plane")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::time::Duration;

use support::{Accepted, Gateway, Peer, Upstream, all_to_with, field, fields, ok};

const WEBSOCKET: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
                         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

fn by_hand(listener: &str) -> (Gateway, Peer, Accepted) {
    let (upstream, accepted) = Upstream::manual();
    let gateway = Gateway::start(&all_to_with(upstream.address, listener, "", ""));
    let client = gateway.connect();
    (gateway, client, accepted)
}

/// The same, switched.
fn switched(listener: &str) -> (Gateway, Peer, Peer) {
    let (gateway, mut client, accepted) = by_hand(listener);
    client.send(WEBSOCKET);
    let mut server = accepted.next();
    server.head();
    server.send(SWITCHED);
    assert!(client.head().starts_with("HTTP/1.1 101 "));
    (gateway, client, server)
}

fn end_of(gateway: &Gateway) -> String {
    gateway.log_line()["end"].as_str().unwrap().to_owned()
}

#[test]
fn a_websocket_handshake_passes_whole() {
    let (gateway, mut client, accepted) = by_hand("");
    client.send(WEBSOCKET);
    let mut server = accepted.next();
    let head = server.head();
    assert_eq!(
        (fields(&head, "connection"), fields(&head, "upgrade")),
        (vec!["upgrade".into()], vec!["websocket".into()])
    );
    assert_eq!(field(&head, "sec-websocket-key").as_deref(), Some("dGhlIHNhbXBsZSBub25jZQ=="));
    server.send(SWITCHED);
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"));
    assert_eq!(
        (fields(&head, "connection"), fields(&head, "upgrade")),
        (vec!["upgrade".into()], vec!["websocket".into()])
    );
    assert_eq!(field(&head, "sec-websocket-accept").as_deref(), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!((field(&head, "content-length"), field(&head, "transfer-encoding")), (None, None));
    // Frames, and what looks like HTTP, are only bytes now.
    for n in 0_u8..50 {
        let frame = [0x81, 0x85, n, 0, 255, n, b'\r', b'\n', b'\r', b'\n'];
        client.send(frame);
        assert_eq!(server.exactly(frame.len()), frame);
        server.send(b"HTTP/1.1 200 OK\r\n\r\n");
        assert_eq!(client.exactly(19), b"HTTP/1.1 200 OK\r\n\r\n");
    }
    client.finish();
    assert!(server.rest().is_empty());
    server.finish();
    assert!(client.rest().is_empty());
    let line = gateway.log_line();
    assert_eq!((line["status"].as_u64(), line["end"].as_str()), (Some(101), Some("ok")));
    assert_eq!(line["received_bytes"], WEBSOCKET.len() + 500);
    assert!(line["sent_bytes"].as_u64().unwrap() > 950);
}

#[test]
fn any_protocol_is_passed_on() {
    let (_gateway, mut client, accepted) = by_hand("");
    client.send("POST /x HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: my-proto/2, other\r\nContent-Length: 4\r\n\r\nbody");
    let mut server = accepted.next();
    let head = server.head();
    assert_eq!(field(&head, "upgrade").as_deref(), Some("my-proto/2, other"));
    assert_eq!(server.exactly(4), b"body");
    server.send("HTTP/1.1 101 Yes\r\nConnection: upgrade\r\nUpgrade: my-proto/2\r\n\r\n");
    assert_eq!(field(&client.head(), "upgrade").as_deref(), Some("my-proto/2"));
    client.send("\0ping");
    assert_eq!(server.exactly(5), b"\0ping");
    server.send("\0pong");
    assert_eq!(client.exactly(5), b"\0pong");
}

#[test]
fn bytes_that_come_early_are_kept() {
    let (_gateway, mut client, accepted) = by_hand("");
    // With the request; behind it, before the answer; and with the answer.
    client.send([WEBSOCKET.as_bytes(), b"with"].concat());
    let mut server = accepted.next();
    server.head();
    client.send("behind");
    server.send([SWITCHED.as_bytes(), b"hello"].concat());
    client.head();
    assert_eq!(client.exactly(5), b"hello");
    assert_eq!(server.exactly(10), b"withbehind");
    let (_gateway, mut client, accepted) = by_hand("");
    client.send(WEBSOCKET);
    let mut server = accepted.next();
    server.head();
    client.send("behind only");
    server.send(SWITCHED);
    client.head();
    assert_eq!(server.exactly(11), b"behind only");
}

#[test]
fn each_direction_ends_by_itself() {
    let (gateway, mut client, mut server) = switched("");
    client.send("last words");
    client.finish();
    assert_eq!(server.rest(), b"last words");
    server.send("and an answer");
    assert_eq!(client.exactly(13), b"and an answer");
    server.finish();
    assert!(client.rest().is_empty());
    assert_eq!(end_of(&gateway), "ok");

    let (gateway, mut client, mut server) = switched("");
    server.send("last words");
    server.finish();
    assert_eq!(client.rest(), b"last words");
    client.send("and an answer");
    assert_eq!(server.exactly(13), b"and an answer");
    client.finish();
    assert!(server.rest().is_empty());
    assert_eq!(end_of(&gateway), "ok");
}

#[test]
fn much_passes_both_ways_at_once() {
    let (_gateway, mut client, mut server) = switched("");
    let size = 8 * 1024 * 1024;
    let sender = |peer: &Peer| {
        let mut peer = Peer::new(peer.stream.try_clone().unwrap());
        std::thread::spawn(move || {
            for n in 0..size / 65536 {
                peer.send(vec![(n % 251) as u8; 65536]);
            }
        })
    };
    let senders = [sender(&client), sender(&server)];
    let receiver = std::thread::spawn(move || {
        for n in 0..size / 65536 {
            assert!(server.exactly(65536) == vec![(n % 251) as u8; 65536]);
        }
    });
    for n in 0..size / 65536 {
        assert!(client.exactly(65536) == vec![(n % 251) as u8; 65536]);
    }
    receiver.join().unwrap();
    for sender in senders {
        sender.join().unwrap();
    }
}

#[test]
fn a_side_that_breaks_takes_the_other_along() {
    let (gateway, client, mut server) = switched("");
    client.reset();
    assert!(server.rest().is_empty());
    assert_eq!(end_of(&gateway), "tunnel-broken");
    let (gateway, mut client, server) = switched("");
    server.reset();
    assert!(client.rest().is_empty());
    assert_eq!(end_of(&gateway), "tunnel-broken");
}

#[test]
fn silence_ends_a_tunnel_and_talk_in_one_direction_keeps_it() {
    let (upstream, accepted) = Upstream::manual();
    let listener = "timeouts = { tunnel_idle = \"1500ms\" }";
    let gateway = Gateway::start(&all_to_with(upstream.address, listener, "", ""));
    let tunnel = || {
        let mut client = gateway.connect();
        client.send(WEBSOCKET);
        let mut server = accepted.next();
        server.head();
        server.send(SWITCHED);
        client.head();
        (client, server)
    };
    let (mut client, mut server) = tunnel();
    let (mut silent_client, mut silent_server) = tunnel();
    // Until the silent one, which is younger, has ended.
    silent_client.stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    while silent_client.stream.peek(&mut [0]).is_err() {
        server.send("tick");
        assert_eq!(client.exactly(4), b"tick");
    }
    assert!(silent_client.rest().is_empty());
    assert!(silent_server.rest().is_empty());
    assert_eq!(end_of(&gateway), "tunnel-idle");
    // What is kept so long is kept on.
    server.send("tock");
    assert_eq!(client.exactly(4), b"tock");
    assert!(server.rest().is_empty());
    assert!(client.rest().is_empty());
    assert_eq!(end_of(&gateway), "tunnel-idle");
}

#[test]
fn a_tunnel_has_an_age_however_much_is_said() {
    let (gateway, mut client, mut server) =
        switched("timeouts = { tunnel_age = \"700ms\", tunnel_idle = \"600ms\" }");
    client.stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    // It talks until it is ended.
    while client.stream.peek(&mut [0]).is_err() {
        client.try_send("tick");
    }
    assert!(client.is_ended());
    server.rest();
    assert_eq!(end_of(&gateway), "tunnel-aged");
}

#[test]
fn a_refused_upgrade_is_an_ordinary_response() {
    let (_gateway, mut client, accepted) = by_hand("");
    client.send(WEBSOCKET);
    let mut server = accepted.next();
    server.head();
    server.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
    let response = client.response();
    assert_eq!((response.status, response.text().as_str(), response.field("connection")), (403, "no", None));
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(field(&server.head(), "upgrade"), None);
    server.send(ok(b"on"));
    assert_eq!(client.response().text(), "on");
}

#[test]
fn h2c_is_never_asked_for() {
    for upgrade in ["h2c", "H2C", "h2c, websocket", "websocket, h2c"] {
        let (_gateway, mut client, accepted) = by_hand("");
        client.send(format!(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: {upgrade}\r\n\
             HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n"
        ));
        let mut server = accepted.next();
        let head = server.head();
        for name in ["upgrade", "connection", "http2-settings"] {
            assert_eq!(field(&head, name), None, "{upgrade}: {head}");
        }
        // And if the upstream switches all the same, no tunnel comes of it.
        server.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n");
        assert_eq!(client.response().status, 502);
        assert!(server.rest().is_empty());
    }
}

#[test]
fn an_upgrade_that_connection_does_not_name_is_none() {
    for wire in [
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\n\r\n",
    ] {
        let (gateway, mut client, accepted) = by_hand("");
        client.send(wire);
        let mut server = accepted.next();
        let head = server.head();
        assert_eq!((field(&head, "upgrade"), field(&head, "connection")), (None, None), "{wire}");
        server.send(SWITCHED);
        assert_eq!(client.response().status, 502, "{wire}");
        assert!(server.rest().is_empty());
        assert_eq!(end_of(&gateway), "response-invalid");
    }
}

#[test]
fn a_switch_unasked_or_unnamed_is_a_broken_response() {
    for (request, response) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", SWITCHED),
        (WEBSOCKET, "HTTP/1.1 101 Switching Protocols\r\n\r\n"),
        (WEBSOCKET, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"),
        (WEBSOCKET, "HTTP/1.0 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"),
        (WEBSOCKET, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: other\r\n\r\n"),
    ] {
        let (gateway, mut client, accepted) = by_hand("");
        client.send(request);
        let mut server = accepted.next();
        server.head();
        server.send(response);
        assert_eq!(client.response().status, 502, "{response}");
        assert!(server.rest().is_empty());
        assert_eq!(end_of(&gateway), "response-invalid");
    }
}

#[test]
fn a_switch_before_the_requests_end_is_a_broken_response() {
    // RFC 9110 §7.8: not before the whole request was received. What is left of it would be taken for the tunnel's.
    for body in ["Content-Length: 10\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"] {
        let (gateway, mut client, accepted) = by_hand("");
        client.send(format!(
            "POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n{body}"
        ));
        let mut server = accepted.next();
        server.head();
        server.until(b"hello");
        server.send(SWITCHED);
        assert_eq!(client.response().status, 502, "{body}");
        assert!(matches!(server.rest().as_slice(), b"" | b"\r\n"));
        assert_eq!(end_of(&gateway), "response-invalid");
    }
}

#[test]
fn connect_makes_a_tunnel_where_it_is_allowed() {
    let (_gateway, mut client, accepted) = by_hand("allow_methods = [\"CONNECT\"]");
    client.send("CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\nearly");
    let mut server = accepted.next();
    let head = server.head();
    assert!(head.starts_with("CONNECT example.com:443 HTTP/1.1\r\n"), "{head}");
    assert_eq!(fields(&head, "host"), ["example.com:443"]);
    server.send("HTTP/1.1 200 Established\r\nContent-Length: 5\r\n\r\nhello");
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 200 "));
    assert_eq!((field(&head, "content-length"), field(&head, "transfer-encoding")), (None, None));
    assert_eq!(client.exactly(5), b"hello");
    assert_eq!(server.exactly(5), b"early");
    client.send("up");
    assert_eq!(server.exactly(2), b"up");
}

/// It would be taken for the tunnel's first bytes, by one of the two (RFC 9110 §9.3.6).
#[test]
fn connect_has_no_content() {
    for lines in ["Content-Length: 5", "Transfer-Encoding: chunked"] {
        let (upstream, _accepted) = Upstream::manual();
        let gateway = Gateway::start(&all_to_with(upstream.address, "allow_methods = [\"CONNECT\"]", "", ""));
        let mut client = gateway.connect();
        client.send(format!("CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n{lines}\r\n\r\nhello"));
        let response = client.response();
        assert_eq!(response.status, 400);
        assert_eq!(upstream.accepted(), 0);
    }
}

#[test]
fn connect_refused_by_the_upstream_is_an_ordinary_response() {
    let (_gateway, mut client, accepted) = by_hand("allow_methods = [\"CONNECT\"]");
    client.send("CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n");
    let mut server = accepted.next();
    server.head();
    server.send("HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 2\r\n\r\nno");
    let response = client.response();
    assert_eq!((response.status, response.text().as_str()), (407, "no"));
}
