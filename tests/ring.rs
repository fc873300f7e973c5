//! What the ring does by itself: receives that it leaves standing, bodies that it splices, and buffers that it hands
//! out; each against peers that do what no one expects.
#![allow(clippy::disallowed_methods, reason = "tests run no data plane")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{
    fmt::Write as _,
    sync::{Arc, Barrier},
    thread,
};

use socket2::SockRef;
use support::{Asked, Gateway, Peer, Upstream, all_to, all_to_with, get, ok, request_body, within};

const MIB: usize = 1024 * 1024;

/// Exchanges after which both connections of a calm client have a standing receive.
const CALM: usize = 4;

fn body(length: usize) -> Vec<u8> {
    (0..length).map(|place| (place % 251) as u8).collect()
}

/// An upstream that answers with the body it got, or with the path when there was none.
fn echo() -> Upstream {
    Upstream::answering(|head, body| {
        if body.is_empty() { ok(head.split(' ').nth(1).unwrap().as_bytes()) } else { ok(body) }
    })
}

fn upload(length: usize) -> Vec<u8> {
    let mut request = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n").into_bytes();
    request.extend(body(length));
    request
}

fn ask(client: &mut Peer, path: &str) {
    client.send(get(path));
    assert_eq!(client.response().text(), path);
}

/// Exchanges after which the connections' receives are left standing.
fn be_calm(client: &mut Peer, asked: &mut Asked) {
    for _ in 0..CALM {
        client.send(get("/"));
        asked.question().ok("calm");
        assert_eq!(client.response().text(), "calm");
    }
}

#[test]
fn what_an_endpoint_sends_unasked_to_a_standing_receive_is_no_answer() {
    for comes_with_the_response in [false, true] {
        let (upstream, mut asked) = Upstream::asking();
        let gateway = Gateway::start(&all_to(&[upstream.address]));
        let mut client = gateway.connect();
        be_calm(&mut client, &mut asked);
        client.send(get("/"));
        let question = asked.question();
        assert_eq!(question.connection, 0);
        if comes_with_the_response {
            question.part([ok(b"own"), ok(b"poison")].concat());
            assert_eq!(client.response().text(), "own");
        } else {
            question.part(ok(b"own"));
            assert_eq!(client.response().text(), "own");
            question.part(ok(b"poison"));
        }
        question.end();
        assert_eq!(asked.ended(), 0, "the gateway closes what it no longer trusts");
        client.send(get("/"));
        let question = asked.question();
        assert_eq!(question.connection, 1);
        question.ok("fresh");
        assert_eq!(client.response().text(), "fresh");
    }
}

#[test]
fn an_endpoint_that_ends_a_standing_receive_between_requests() {
    let (upstream, mut asked) = Upstream::asking();
    let gateway = Gateway::start(&all_to(&[upstream.address]));
    let mut client = gateway.connect();
    be_calm(&mut client, &mut asked);
    client.send(get("/"));
    asked.question().last(ok(b"last"));
    assert_eq!(client.response().text(), "last");
    assert_eq!(asked.ended(), 0);
    client.send(support::post("/", "must not be sent twice"));
    let question = asked.question();
    assert_eq!(question.connection, 1);
    question.ok("fresh");
    assert_eq!(client.response().text(), "fresh");
}

#[test]
fn a_response_in_pieces_after_calm_ones() {
    let (upstream, mut asked) = Upstream::asking();
    let gateway = Gateway::start(&all_to(&[upstream.address]));
    let mut client = gateway.connect();
    for round in 0..3 * CALM {
        client.send(get("/"));
        let question = asked.question();
        assert_eq!(question.connection, 0);
        let text = format!("in pieces {round}");
        if round >= CALM {
            for piece in ok(text.as_bytes()).chunks(1 + round) {
                question.part(piece);
            }
        } else {
            question.part(ok(text.as_bytes()));
        }
        question.end();
        assert_eq!(client.response().text(), text);
    }
}

#[test]
fn a_client_that_changes_its_manners() {
    let upstream = echo();
    let gateway = Gateway::start(&all_to(&[upstream.address]));
    let mut client = gateway.connect();
    for turn in 0..3 {
        for number in 0..CALM {
            ask(&mut client, &format!("/calm/{turn}/{number}"));
        }
        // Many at once, in one send: what comes unasked is held in order.
        let mut requests = String::new();
        (0..50).for_each(|number| write!(requests, "{}", get(&format!("/many/{number}"))).unwrap());
        client.send(requests);
        for number in 0..50 {
            assert_eq!(client.response().text(), format!("/many/{number}"));
        }
        // A body that is streamed, with its head in the same send.
        client.send(upload(MIB));
        let head = client.head();
        assert!(client.body_of(head).body == body(MIB), "it came back changed");
        // A head cut in two.
        let request = get("/cut");
        let (first, second) = request.split_at(3 + 7 * turn);
        client.send(first);
        gateway.figures();
        client.send(second);
        assert_eq!(client.response().text(), "/cut");
    }
    drop(client);
    within("no buffer in use", || (gateway.figure("buffers_active") == 0).then_some(()));
}

/// Urgent data stop a splice for good, though the socket says that it can be read.
#[test]
fn an_urgent_byte_in_a_large_body_stops_nothing() {
    let upstream = echo();
    let gateway = Gateway::start(&all_to(&[upstream.address]));
    let mut client = gateway.connect();
    let mut reader = Peer::new(client.stream.try_clone().unwrap());
    let sender = thread::spawn(move || {
        let request = upload(MIB);
        let (first, second) = request.split_at(MIB / 2);
        client.send(first);
        assert_eq!(SockRef::from(&client.stream).send_out_of_band(b"!").unwrap(), 1);
        client.send(second);
        client
    });
    let head = reader.head();
    assert!(reader.body_of(head).body == body(MIB), "it came back changed");
    drop(sender.join().unwrap());
}

#[test]
fn an_urgent_byte_does_not_keep_a_silent_client() {
    let (upstream, _asked) = Upstream::asking();
    let config =
        all_to_with(upstream.address, "timeouts = { body_idle = \"200ms\" }", "", "timeout = \"1h\"");
    let gateway = Gateway::start(&config);
    let mut client = gateway.connect();
    let request = upload(MIB);
    client.send(&request[..MIB / 2]);
    SockRef::from(&client.stream).send_out_of_band(b"!").unwrap();
    client.send(&request[MIB / 2..MIB / 2 + 1]);
    assert_eq!(client.response().status, 408);
    assert_eq!(gateway.log_line()["end"], "body-timeout");
}

#[test]
fn an_endpoint_that_breaks_off_in_a_spliced_body() {
    let (upstream, accepted) = Upstream::manual();
    let gateway = Gateway::start(&all_to(&[upstream.address]));
    let mut client = gateway.connect();
    client.send(get("/"));
    let mut server = accepted.next();
    server.head();
    server.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {MIB}\r\n\r\n"));
    server.send(body(MIB / 2));
    drop(server);
    client.head();
    assert!(client.rest().len() <= MIB / 2);
    assert_eq!(gateway.log_line()["end"], "response-truncated");
}

#[test]
fn bytes_behind_a_spliced_body_are_no_answer() {
    let upstream = Upstream::scripted(|mut peer, _| {
        while let Some(head) = peer.try_head() {
            request_body(&mut peer, &head);
            if !peer.try_send([ok(&body(MIB)), ok(b"poison")].concat()) {
                return;
            }
        }
    });
    let gateway = Gateway::start(&all_to(&[upstream.address]));
    let mut client = gateway.connect();
    for number in 1..=5 {
        client.send(get("/"));
        let head = client.head();
        assert!(client.body_of(head).body == body(MIB), "another's bytes");
        assert_eq!(upstream.accepted(), number, "a connection with bytes left is not used again");
    }
}

/// Far more clients than the kernel has buffers for, all at once: each is served, or told that there is no room.
#[test]
fn more_clients_at_once_than_buffers() {
    let upstream = echo();
    let config = all_to(&[upstream.address]).replace("[runtime]", "[runtime]\nbuffers = 128");
    let gateway = Gateway::start(&config);
    let address = gateway.address();
    let clients = 300;
    let barrier = Arc::new(Barrier::new(clients));
    let asking: Vec<_> = (0..clients)
        .map(|number| {
            let barrier = Arc::clone(&barrier);
            thread::spawn(move || {
                let mut client = Peer::connect(address);
                barrier.wait();
                client.send(get(&format!("/{number}")));
                let response = client.response();
                if response.status == 200 {
                    assert_eq!(response.text(), format!("/{number}"));
                }
                response.status
            })
        })
        .collect();
    for client in asking {
        let status = client.join().unwrap();
        assert!(matches!(status, 200 | 503), "{status}");
    }
    ask(&mut gateway.connect(), "/afterwards");
}

#[test]
fn connections_that_close_with_operations_under_way_leave_nothing() {
    let (upstream, accepted) = Upstream::manual();
    let config = all_to(&[upstream.address]).replace("[runtime]", "[runtime]\nring_entries = 256");
    let gateway = Gateway::start(&config);
    let mut pairs: Vec<(Peer, Peer)> = Vec::new();
    for _ in 0..300 {
        let mut client = gateway.connect();
        client.send(get("/"));
        let mut server = accepted.next();
        server.head();
        pairs.push((client, server));
    }
    gateway.wait_for_figure("connections_active", 300);
    drop(pairs);
    within("no connection", || (gateway.figure("connections_active") == 0).then_some(()));
    within("no connection upstream", || (gateway.figure("upstream_connections_active") == 0).then_some(()));
    within("no buffer in use", || (gateway.figure("buffers_active") == 0).then_some(()));
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", gateway.pid())).unwrap().count();
    within("descriptors", || (descriptors() < 50).then_some(()));
}
