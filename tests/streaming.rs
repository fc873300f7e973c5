//! Bodies under way: backpressure and what is held, answers before the request's end, both directions at once, and
//! clients that leave or say that they are done sending.
#![allow(clippy::disallowed_methods, reason = "tests run no data plane")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{
    io::{ErrorKind, Write},
    thread,
    time::Duration,
};

use support::{Accepted, Gateway, Peer, Upstream, all_to_with, field, ok, request_body};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const MIB: usize = 1024 * 1024;

fn by_hand(listener: &str, cluster: &str) -> (Gateway, Peer, Accepted) {
    let (upstream, accepted) = Upstream::manual();
    let gateway = Gateway::start(&all_to_with(upstream.address, listener, cluster, ""));
    let client = gateway.connect();
    (gateway, client, accepted)
}

/// The byte at a place of a long body.
fn byte_at(place: usize) -> u8 {
    (place % 251) as u8
}

fn body(range: std::ops::Range<usize>) -> Vec<u8> {
    range.map(byte_at).collect()
}

/// Sends as much of a long body as the other side takes without reading on: how much that was.
fn send_until_blocked(peer: &mut Peer, total: usize) -> usize {
    peer.stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut sent = 0;
    while sent < total {
        match peer.stream.write(&body(sent..total.min(sent + 65536))) {
            Ok(count) => sent += count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            Err(error) => panic!("{error}"),
        }
    }
    peer.stream.set_write_timeout(Some(support::PATIENCE)).unwrap();
    sent
}

/// Receives the rest of a long body and compares each byte.
fn receive_and_compare(peer: &mut Peer, total: usize) {
    let mut received = 0;
    while received < total {
        let piece = peer.exactly(65536.min(total - received));
        assert!(piece == body(received..received + piece.len()), "differs behind {received}");
        received += piece.len();
    }
}

#[test]
fn a_client_that_does_not_read_holds_the_upstream_back() {
    let (gateway, mut client, accepted) = by_hand("", "");
    client.send(GET);
    let mut server = accepted.next();
    server.head();
    let before_kib = gateway.resident_kib();
    let total = 64 * MIB;
    server.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {total}\r\n\r\n"));
    let sent = send_until_blocked(&mut server, total);
    assert!(sent < total / 2, "the kernel's buffers and one of the gateway's took {sent} bytes");
    let grown_kib = gateway.resident_kib().saturating_sub(before_kib);
    assert!(grown_kib < 4096, "the gateway holds {grown_kib} KiB more");
    let sending = thread::spawn(move || {
        for from in (sent..total).step_by(65536) {
            server.send(body(from..total.min(from + 65536)));
        }
        server
    });
    client.head();
    receive_and_compare(&mut client, total);
    let mut server = sending.join().unwrap();
    let grown_kib = gateway.resident_kib().saturating_sub(before_kib);
    assert!(grown_kib < 4096, "the gateway holds {grown_kib} KiB more");
    client.send(GET);
    server.head();
    server.send(ok(b"both connections are in order"));
    assert_eq!(client.response().status, 200);
}

#[test]
fn an_upstream_that_does_not_read_holds_the_client_back() {
    let (gateway, mut client, accepted) = by_hand("", "");
    let total = 64 * MIB;
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {total}\r\n\r\n"));
    let mut server = accepted.next();
    let before_kib = gateway.resident_kib();
    let sent = send_until_blocked(&mut client, total);
    assert!(sent < total / 2, "the kernel's buffers and one of the gateway's took {sent} bytes");
    let grown_kib = gateway.resident_kib().saturating_sub(before_kib);
    assert!(grown_kib < 4096, "the gateway holds {grown_kib} KiB more");
    let sending = thread::spawn(move || {
        for from in (sent..total).step_by(65536) {
            client.send(body(from..total.min(from + 65536)));
        }
        client
    });
    server.head();
    receive_and_compare(&mut server, total);
    server.send(ok(b"all there"));
    assert_eq!(sending.join().unwrap().response().text(), "all there");
    let line = gateway.log_line();
    assert!(line["received_bytes"].as_u64().unwrap() > total as u64);
}

#[test]
fn a_chunked_body_is_held_back_too() {
    let (gateway, mut client, accepted) = by_hand("", "");
    client.send(GET);
    let mut server = accepted.next();
    server.head();
    let before_kib = gateway.resident_kib();
    let total = 64 * MIB;
    server.send(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{total:x}\r\n"));
    let sent = send_until_blocked(&mut server, total);
    assert!(sent < total / 2, "the kernel's buffers and one of the gateway's took {sent} bytes");
    let grown_kib = gateway.resident_kib().saturating_sub(before_kib);
    assert!(grown_kib < 4096, "the gateway holds {grown_kib} KiB more");
    drop(client);
    assert_eq!(gateway.log_line()["end"], "client-gone");
}

#[test]
fn the_log_counts_each_byte_once() {
    let (gateway, mut client, accepted) = by_hand("", "");
    // With the head, behind it, and both.
    for (with, behind) in [(5, 0), (0, 5), (3, 4), (0, 0)] {
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", with + behind);
        client.send([head.as_bytes(), &vec![b'x'; with]].concat());
        let mut server = accepted.next();
        let seen = server.head();
        client.send(vec![b'x'; behind]);
        request_body(&mut server, &seen);
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi";
        server.send(answer);
        let response = client.response();
        let line = gateway.log_line();
        assert_eq!(line["received_bytes"], head.len() + with + behind, "{with} and {behind}");
        assert_eq!(line["sent_bytes"], response.head.len() + 2);
    }
}

#[test]
fn an_answer_before_the_bodys_end_comes_at_once() {
    let (gateway, mut client, accepted) = by_hand("", "");
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\nbeginning");
    let mut server = accepted.next();
    server.head();
    server.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 8\r\n\r\ntoo much");
    let head = client.head();
    assert_eq!(field(&head, "connection").as_deref(), Some("close"));
    // A client that sends on regardless must still be able to read the answer.
    client.send(vec![b'x'; 200_000]);
    let response = client.body_of(head);
    assert_eq!((response.status, response.text().as_str()), (413, "too much"));
    // The upstream's connection has half a request on it.
    server.until(b"beginning");
    server.rest();
    assert!(client.rest().is_empty());
    let line = gateway.log_line();
    assert_eq!((line["status"].as_u64(), line["end"].as_str()), (Some(413), Some("ok")));
}

#[test]
fn an_answer_from_an_upstream_that_takes_no_more_is_relayed() {
    let (_gateway, mut client, accepted) = by_hand("", "");
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    let mut server = accepted.next();
    server.head();
    server.until(b"hello\r\n");
    server.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno");
    server.finish();
    let response = client.response();
    assert_eq!((response.status, response.text().as_str()), (403, "no"));
}

#[test]
fn both_directions_stream_at_once() {
    let (_gateway, mut client, accepted) = by_hand("", "");
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    let mut server = accepted.next();
    server.head();
    server.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    let head = client.head();
    assert_eq!(field(&head, "transfer-encoding").as_deref(), Some("chunked"));
    for n in 0..100 {
        let chunk = format!("8\r\nping{n:04}\r\n");
        client.send(&chunk);
        assert_eq!(server.exactly(chunk.len()), chunk.as_bytes());
        server.send(&chunk);
        assert_eq!(client.exactly(chunk.len()), chunk.as_bytes());
    }
    client.send("0\r\n\r\n");
    server.until(b"0\r\n\r\n");
    server.send("3\r\nend\r\n0\r\n\r\n");
    assert_eq!(client.chunked(), b"end");
}

#[test]
fn the_wait_for_the_first_byte_does_not_begin_behind_it() {
    let (gateway, mut client, accepted) = by_hand("", "timeouts = { first_byte = \"100ms\" }");
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbo");
    let mut server = accepted.next();
    server.head();
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe");
    client.until(b"\r\n\r\nhe");
    client.send("dy");
    server.until(b"body");
    // Another connection's exchange outlasts the wait: by its timeout it is certain to have passed.
    let mut other = gateway.connect();
    other.send(GET);
    let _waits = accepted.next();
    assert_eq!(other.response().status, 504);
    assert_eq!(gateway.log_line()["end"], "first-byte-timeout");
    server.send("llo");
    assert_eq!(client.exactly(3), b"llo");
    assert_eq!(gateway.log_line()["end"], "ok");
}

#[test]
fn a_client_that_leaves_while_it_waits_aborts_the_upstream() {
    let (gateway, mut client, accepted) = by_hand("", "");
    client.send(GET);
    let mut server = accepted.next();
    server.head();
    client.reset();
    assert!(server.rest().is_empty());
    let line = gateway.log_line();
    assert_eq!((line["status"].as_u64(), line["end"].as_str()), (Some(499), Some("client-gone")));
}

#[test]
fn a_client_that_leaves_while_it_sends_aborts_the_upstream() {
    let (gateway, mut client, accepted) = by_hand("", "");
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    let mut server = accepted.next();
    server.head();
    server.until(b"5\r\nhello\r\n");
    client.reset();
    assert!(server.rest().is_empty(), "no last chunk");
    let line = gateway.log_line();
    assert_eq!((line["status"].as_u64(), line["end"].as_str()), (Some(499), Some("client-gone")));
}

#[test]
fn a_client_that_leaves_while_it_reads_aborts_the_upstream() {
    // A body that is under way, and one that pauses.
    for flows in [true, false] {
        let (gateway, mut client, accepted) = by_hand("", "");
        client.send(GET);
        let mut server = accepted.next();
        server.head();
        server.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
        client.until(b"hello");
        client.reset();
        if flows {
            while server.try_send("5\r\nhello\r\n") {}
        } else {
            assert!(server.rest().is_empty());
        }
        let line = gateway.log_line();
        assert_eq!((line["status"].as_u64(), line["end"].as_str()), (Some(200), Some("client-gone")));
    }
}

#[test]
fn a_client_that_is_done_sending_still_gets_its_response() {
    let (gateway, mut client, accepted) = by_hand("", "");
    client.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n");
    client.finish();
    let mut server = accepted.next();
    server.head();
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst");
    client.until(b"first");
    server.send("-half");
    assert_eq!(client.exactly(5), b"-half");
    assert!(server.head().starts_with("GET /2 "), "what was sent before the end counts");
    server.send(ok(b"second"));
    assert_eq!(client.response().text(), "second");
    assert!(client.rest().is_empty(), "nothing more can come: the connection ends");
    assert_eq!(gateway.log_line()["end"], "ok");
    assert_eq!(gateway.log_line()["end"], "ok");
}

#[test]
fn a_clients_end_is_a_departure_where_it_is_said_to_be() {
    let (gateway, mut client, accepted) = by_hand("half_close = \"abort\"", "");
    client.send(GET);
    let mut server = accepted.next();
    server.head();
    client.finish();
    assert!(server.rest().is_empty());
    let line = gateway.log_line();
    assert_eq!((line["status"].as_u64(), line["end"].as_str()), (Some(499), Some("client-gone")));
    assert!(client.rest().is_empty());
}

#[test]
fn a_clients_end_amid_its_body_is_never_the_bodys_end() {
    for framing in ["Content-Length: 10\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"] {
        let (gateway, mut client, accepted) = by_hand("", "");
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}"));
        let mut server = accepted.next();
        server.head();
        server.until(b"hello");
        client.finish();
        assert!(matches!(server.rest().as_slice(), b"" | b"\r\n"), "no last chunk");
        assert_eq!(client.response().status, 400);
        assert!(client.rest().is_empty());
        assert_eq!(gateway.log_line()["end"], "body-truncated");
    }
}

#[test]
fn what_follows_a_response_that_ends_the_connection_does_not_destroy_it() {
    let (upstream, accepted) = Upstream::manual();
    let listener = "limits = { requests_per_connection = 1 }";
    let gateway = Gateway::start(&all_to_with(upstream.address, listener, "", ""));
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&gateway.address().into()).unwrap();
    let mut client = Peer::new(socket.into());
    client.send(GET);
    let mut server = accepted.next();
    server.head();
    // Requests that nobody will read: closing with them unread resets, and destroys what is not yet delivered.
    client.send(GET.repeat(2000));
    let large = body(0..200_000);
    server.send(ok(&large));
    assert_eq!(gateway.log_line()["end"], "ok");
    let response = client.response();
    assert_eq!(response.field("connection").as_deref(), Some("close"));
    assert!(response.body == large);
    assert!(client.rest().is_empty(), "one request was all");
}

#[test]
fn a_body_that_only_the_close_ends_is_cut_with_a_reset() {
    let upstream = Upstream::scripted(|mut peer, _| {
        peer.head();
        peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
        peer.finish();
    });
    let gateway = Gateway::start(&all_to_with(upstream.address, "", "", ""));
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    let mut seen = Vec::new();
    let end = std::io::Read::read_to_end(&mut client.stream, &mut seen);
    assert_eq!(end.map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset));
    assert_eq!(gateway.log_line()["end"], "response-truncated");
}
