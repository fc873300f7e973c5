//! Endpoints that fail: refuse, hang, break off, die and come back. Clients see as little of it as HTTP allows, and the
//! log says what it was.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests run no data plane")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{
    io::{ErrorKind, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use support::{Gateway, Peer, Upstream, all_to_with, closed_port, cluster, config, get, ok, post, within};

const UNAVAILABLE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";

fn problem_of(response: &support::Response) -> String {
    let problem: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
    assert_eq!(problem["status"], response.status);
    let kind = problem["type"].as_str().unwrap();
    kind.strip_prefix("urn:ringgate:problem:").unwrap().to_owned()
}

/// What one request gets, and the log's word for it.
fn outcome(gateway: &Gateway, request: &str) -> (u16, String) {
    let mut client = gateway.connect();
    client.send(request);
    let response = client.response();
    let end = gateway.log_line()["end"].as_str().unwrap().to_owned();
    if response.status >= 500 {
        assert_eq!(problem_of(&response), end);
        assert!(response.field("proxy-status").unwrap().starts_with("ringgate; error="));
    }
    (response.status, end)
}

#[test]
fn a_refused_connection_goes_to_the_next_endpoint() {
    let (first, _first_guard) = closed_port();
    let (second, _second_guard) = closed_port();
    let upstream = Upstream::answering(|head, body| {
        ok(format!("{} {}", head.split(' ').next().unwrap(), body.len()).as_bytes())
    });
    let gateway = Gateway::start(&config(&cluster(&[first, second, upstream.address], "")));
    let mut client = gateway.connect();
    for (request, answer) in [
        (get("/"), "GET 0"),
        (post("/", "small"), "POST 5"),
        (post("/", &"x".repeat(500_000)), "POST 500000"),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n".into(),
            "POST 3",
        ),
    ] {
        client.send(&request);
        assert_eq!(client.response().text(), answer);
        let line = gateway.log_line();
        assert_eq!(line["endpoint"], upstream.address.to_string());
        assert!((1..=3).contains(&line["tries"].as_u64().unwrap()), "{line}");
    }
    assert!(gateway.figure("connect_failures") > 0);
}

#[test]
fn no_endpoint_that_can_be_reached_is_a_502() {
    let ports: Vec<_> = (0..7).map(|_| closed_port()).collect();
    let addresses: Vec<_> = ports.iter().map(|(address, _)| *address).collect();
    let gateway = Gateway::start(&config(&cluster(&addresses, "")));
    assert_eq!(outcome(&gateway, &get("/")), (502, "connect-failed".into()));
    assert_eq!(gateway.figure("connect_failures"), 5, "tries have an end");
}

#[test]
fn failures_in_a_row_eject() {
    let (bad, mut asked) = Upstream::asking();
    let good = Upstream::saying("good");
    let keys = "eject = { failures = 3, backoff = \"1h\", max_backoff = \"1h\" }\n";
    let gateway = Gateway::start(&config(&cluster(&[bad.address, good.address], keys)));
    let mut client = gateway.connect();
    // A success between failures begins the count anew.
    for answer in [UNAVAILABLE, UNAVAILABLE, &ok(b"fine"), UNAVAILABLE, UNAVAILABLE, UNAVAILABLE] {
        client.send(get("/"));
        let question = asked.question();
        question.part(answer);
        question.end();
        client.response();
        client.send(get("/"));
        assert_eq!(client.response().text(), "good");
    }
    for _ in 0..20 {
        client.send(get("/"));
        assert_eq!(client.response().text(), "good");
    }
    assert!(!asked.has_question());
    assert_eq!(gateway.figure("ejections"), 1);
}

#[test]
fn an_ejected_endpoint_comes_back_and_is_out_longer_each_time() {
    let calls = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&calls);
    let bad = Upstream::answering(move |_, _| {
        seen.fetch_add(1, Ordering::SeqCst);
        UNAVAILABLE.to_vec()
    });
    let good = Upstream::saying("good");
    let keys = "eject = { failures = 1, backoff = \"1ms\", max_backoff = \"1h\" }\n";
    let gateway = Gateway::start(&config(&cluster(&[bad.address, good.address], keys)));
    let mut client = gateway.connect();
    let mut requests = 0;
    within("it came back four times, and many requests", || {
        for _ in 0..50 {
            client.send(get("/"));
            client.response();
            requests += 1;
        }
        (gateway.figure("ejections") >= 5 && requests >= 2000).then_some(())
    });
    // After 16 ejections, each twice as long as the one before, the next would outlast this test. Were all as long as
    // the first, a good part of the requests would have met it.
    let calls = calls.load(Ordering::SeqCst);
    assert!(calls <= 16, "{calls} of {requests} requests");
    assert_eq!(gateway.figure("ejections"), calls as u64, "each return was a trial of one request");
}

#[test]
fn never_more_than_half_are_ejected() {
    let bad: Vec<_> = (0..3).map(|_| Upstream::answering(|_, _| UNAVAILABLE.to_vec())).collect();
    let good = Upstream::saying("good");
    let mut addresses: Vec<_> = bad.iter().map(|upstream| upstream.address).collect();
    addresses.push(good.address);
    let keys = "eject = { failures = 1, backoff = \"1h\", max_backoff = \"1h\" }\n";
    let gateway = Gateway::start(&config(&cluster(&addresses, keys)));
    let mut client = gateway.connect();
    let statuses: Vec<_> = (0..40)
        .map(|_| {
            client.send(get("/"));
            client.response().status
        })
        .collect();
    assert_eq!(gateway.figure("ejections"), 2);
    // Two are left, one of them bad: it still gets its share.
    let late = statuses[20..].iter().filter(|status| **status == 503).count();
    assert_eq!(late, 10, "{statuses:?}");
}

#[test]
fn all_down_uses_all() {
    // Only an endpoint with a weight counts, so of one none is ever ejected: all are used, and recovery is seen at once.
    let up = Arc::new(AtomicBool::new(false));
    let is_up = Arc::clone(&up);
    let upstream =
        Upstream::answering(
            move |_, _| {
                if is_up.load(Ordering::SeqCst) { ok(b"up") } else { UNAVAILABLE.to_vec() }
            },
        );
    let (closed, _guard) = closed_port();
    let keys = "eject = { failures = 1, backoff = \"1h\", max_backoff = \"1h\" }\n";
    let gateway = Gateway::start(&config(&cluster(&[closed, upstream.address], keys)));
    let mut client = gateway.connect();
    for _ in 0..10 {
        client.send(get("/"));
        assert_eq!(client.response().status, 503, "the endpoint's own answer, not the gateway's");
    }
    up.store(true, Ordering::SeqCst);
    client.send(get("/"));
    assert_eq!(client.response().text(), "up");
}

/// An address that takes no connection and refuses none: its backlog is full.
fn blackhole() -> (SocketAddr, TcpListener, Vec<TcpStream>) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    socket.bind(&any.into()).unwrap();
    socket.listen(0).unwrap();
    let listener: TcpListener = socket.into();
    let address = listener.local_addr().unwrap();
    let mut held = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
        held.push(stream);
        assert!(held.len() < 64, "the backlog never fills");
    }
    (address, listener, held)
}

#[test]
fn a_connection_that_is_not_accepted_in_time() {
    let (address, _listener, _held) = blackhole();
    let keys = "timeouts = { connect = \"150ms\" }\n";
    let gateway = Gateway::start(&config(&cluster(&[address], keys)));
    assert_eq!(outcome(&gateway, &get("/")), (504, "connect-timeout".into()));
    // With another endpoint it costs time, but no error, whatever the method.
    let upstream = Upstream::saying("there");
    let gateway = Gateway::start(&config(&cluster(&[address, upstream.address], keys)));
    assert_eq!(outcome(&gateway, &post("/", "body")), (200, "ok".into()));
    assert_eq!(gateway.figure("upstream_connections_active"), 1);
}

#[test]
fn a_client_that_leaves_while_an_endpoint_is_connected_to_is_not_waited_for() {
    let (address, _listener, _held) = blackhole();
    for keys in ["", "protocol = \"h2\"\n"] {
        let keys = format!("timeouts = {{ connect = \"1h\" }}\n{keys}");
        let gateway = Gateway::start(&config(&cluster(&[address], &keys)));
        let mut client = gateway.connect();
        client.send(get("/"));
        gateway.wait_for_figure("exchanges_active", 1);
        client.reset();
        assert_eq!(gateway.log_line()["end"], "client-gone", "{keys}");
        gateway.wait_for_figure("exchanges_active", 0);
    }
    // What it sends meanwhile is its next request.
    let upstream = Upstream::saying("there");
    let keys = "timeouts = { connect = \"300ms\" }\n";
    let gateway = Gateway::start(&config(&cluster(&[address, upstream.address], keys)));
    let mut client = gateway.connect();
    client.send(get("/1"));
    gateway.wait_for_figure("exchanges_active", 1);
    client.send(get("/2"));
    assert_eq!((client.response().text(), client.response().text()), ("there".into(), "there".into()));
}

/// Sends of a body that has no end as much as the other side takes.
fn fill(client: &mut Peer, piece: &[u8]) {
    client.stream.set_nonblocking(true).unwrap();
    let mut sent = 0;
    loop {
        match client.stream.write(piece) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock && sent > 0 => return,
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_client_that_leaves_amid_a_body_that_stands_still_is_not_waited_for() {
    let (upstream, accepted) = Upstream::manual();
    let piece = vec![b'x'; 64 * 1024];
    let chunk = [format!("{:x}\r\n", piece.len()).as_bytes(), &piece, b"\r\n"].concat();
    for (driver, framing, piece) in [
        ("auto", "Content-Length: 1000000000", &piece),
        ("auto", "Transfer-Encoding: chunked", &chunk),
        ("epoll", "Content-Length: 1000000000", &piece),
    ] {
        let gateway = Gateway::start(
            &all_to_with(
                upstream.address,
                "limits = { body_bytes = \"1GiB\" }",
                "timeouts = { first_byte = \"1h\", idle = \"1h\" }",
                "",
            )
            .replacen("workers = 1\n", &format!("workers = 1\ndriver = \"{driver}\"\n"), 1),
        );
        let mut client = gateway.connect();
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n"));
        let held = accepted.next();
        fill(&mut client, piece);
        // An end would wait behind what was sent before it.
        client.reset();
        assert_eq!(gateway.log_line()["end"], "client-gone", "{driver} {framing}");
        gateway.wait_for_figure("exchanges_active", 0);
        drop(held);
    }
}

/// An upstream that says this after a request, and then nothing.
fn stalling(part: &'static str) -> Upstream {
    Upstream::scripted(move |mut peer, _| {
        peer.head();
        peer.send(part);
        peer.rest();
    })
}

#[test]
fn a_response_that_does_not_begin_in_time() {
    let upstream = stalling("");
    let keys = "timeouts = { first_byte = \"100ms\", idle = \"1h\" }\n";
    let gateway = Gateway::start(&config(&cluster(&[upstream.address], keys)));
    assert_eq!(outcome(&gateway, &get("/")), (504, "first-byte-timeout".into()));
    assert_eq!(upstream.accepted(), 1, "it is not repeated");
    // A connection in an unknown state is not used again.
    assert_eq!(outcome(&gateway, &get("/")), (504, "first-byte-timeout".into()));
    assert_eq!(upstream.accepted(), 2);
}

#[test]
fn a_response_head_that_stops() {
    let upstream = stalling("HTTP/1.1 200 OK\r\nContent-");
    let keys = "timeouts = { first_byte = \"1h\", idle = \"100ms\" }\n";
    let gateway = Gateway::start(&config(&cluster(&[upstream.address], keys)));
    assert_eq!(outcome(&gateway, &get("/")), (504, "response-timeout".into()));
}

#[test]
fn a_response_body_that_stops_ends_the_connection() {
    for (part, framing) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", "content-length"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", "transfer-encoding"),
    ] {
        let upstream = stalling(part);
        let keys = "timeouts = { idle = \"100ms\" }\n";
        let gateway = Gateway::start(&config(&cluster(&[upstream.address], keys)));
        let mut client = gateway.connect();
        client.send(get("/"));
        let head = client.head();
        assert!(support::field(&head, framing).is_some(), "{head}");
        let rest = String::from_utf8(client.rest()).unwrap();
        assert!(rest.contains("half") && !rest.contains("0\r\n\r\n"), "it must not look complete: {rest}");
        let line = gateway.log_line();
        assert_eq!((line["status"].as_u64(), line["end"].as_str()), (Some(200), Some("response-timeout")));
    }
}

#[test]
fn a_response_that_is_cut_short_ends_the_connection() {
    const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n";
    for (part, last, end) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", "", "response-truncated"),
        (CHUNKED, "", "response-truncated"),
        (CHUNKED, "zz\r\n", "response-invalid"),
    ] {
        let (upstream, mut asked) = Upstream::asking();
        let gateway = Gateway::start(&config(&cluster(&[upstream.address], "")));
        let mut client = gateway.connect();
        client.send(get("/"));
        let question = asked.question();
        question.part(part);
        client.head();
        question.last(last);
        let rest = String::from_utf8(client.rest()).unwrap();
        assert!(!rest.contains("0\r\n\r\n"), "it must not look complete: {rest}");
        assert_eq!(gateway.log_line()["end"], end, "{part}{last}");
    }
}

#[test]
fn a_whole_exchange_that_takes_too_long() {
    let silent = stalling("");
    let dripping = Upstream::scripted(|mut peer, _| {
        peer.head();
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n");
        // As long as someone takes it.
        while peer.try_send("x") {
            thread::park_timeout(Duration::from_millis(5));
        }
    });
    let route = |address: SocketAddr| {
        config(&cluster(&[address], "")).replace("[[route]]\n", "[[route]]\ntimeout = \"200ms\"\n")
    };
    let gateway = Gateway::start(&route(silent.address));
    assert_eq!(outcome(&gateway, &get("/")), (504, "exchange-timeout".into()));
    let gateway = Gateway::start(&route(dripping.address));
    let mut client = gateway.connect();
    client.send(get("/"));
    client.head();
    assert!(client.rest().len() < 1_000_000);
    let line = gateway.log_line();
    assert_eq!((line["status"].as_u64(), line["end"].as_str()), (Some(200), Some("exchange-timeout")));
    let (address, _listener, _held) = blackhole();
    let gateway = Gateway::start(&route(address));
    assert_eq!(outcome(&gateway, &get("/")), (504, "exchange-timeout".into()));
}

#[test]
fn an_endpoint_that_takes_nothing_of_a_request() {
    let upstream = Upstream::scripted(|_peer, _| {
        // Holds the connection and reads nothing.
        thread::park_timeout(support::PATIENCE);
    });
    let keys = "timeouts = { idle = \"200ms\", first_byte = \"1h\" }\n";
    let gateway = Gateway::start(&config(&cluster(&[upstream.address], keys)));
    let mut client = gateway.connect();
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n");
    let piece = vec![b'x'; 1 << 16];
    let mut reader = Peer::new(client.stream.try_clone().unwrap());
    let sender = thread::spawn(move || while client.try_send(&piece) {});
    let response = reader.response();
    assert_eq!((response.status, problem_of(&response).as_str()), (504, "upstream-stall"));
    drop(reader);
    sender.join().unwrap();
    assert_eq!(gateway.log_line()["end"], "upstream-stall");
}

#[test]
fn a_fresh_connection_that_dies_unanswered_moves_on_when_that_is_safe() {
    let (dying, mut asked) = Upstream::asking();
    let good = Upstream::saying("good");
    let keys = "eject = { failures = 0 }\n";
    let gateway = Gateway::start(&config(&cluster(&[dying.address, good.address], keys)));
    let mut client = gateway.connect();
    client.send(get("/"));
    drop(asked.question());
    assert_eq!(client.response().text(), "good");
    let line = gateway.log_line();
    assert_eq!((line["tries"].as_u64(), line["end"].as_str()), (Some(2), Some("ok")));
    // Not what must not be sent twice.
    client.send(get("/"));
    drop(asked.question());
    assert_eq!(client.response().text(), "good");
    client.send(post("/", "body"));
    drop(asked.question());
    assert_eq!(client.response().status, 502);
    assert!(!asked.has_question());
}

#[test]
fn a_request_that_kills_endpoints_kills_two_at_most() {
    let killed = Arc::new(AtomicUsize::new(0));
    let upstreams: Vec<_> = (0..5)
        .map(|_| {
            let killed = Arc::clone(&killed);
            Upstream::scripted(move |mut peer, _| {
                peer.head();
                killed.fetch_add(1, Ordering::SeqCst);
            })
        })
        .collect();
    let addresses: Vec<_> = upstreams.iter().map(|upstream| upstream.address).collect();
    let gateway = Gateway::start(&config(&cluster(&addresses, "")));
    assert_eq!(outcome(&gateway, &get("/")), (502, "upstream-closed".into()));
    assert_eq!(killed.load(Ordering::SeqCst), 2);
}

/// An endpoint that can be killed, as the kernel kills: its listener and all its connections at once.
struct Mortal {
    address: SocketAddr,
    alive: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Mortal {
    fn start(address: SocketAddr, served: Arc<AtomicUsize>) -> Self {
        let listener = within("the address is free", || {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            socket.set_reuse_address(true).unwrap();
            socket.bind(&address.into()).ok()?;
            socket.listen(1024).ok()?;
            Some(TcpListener::from(socket))
        });
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        let alive = Arc::new(AtomicBool::new(true));
        let is_alive = Arc::clone(&alive);
        let thread = thread::spawn(move || {
            let mut connections: Vec<Peer> = Vec::new();
            while is_alive.load(Ordering::SeqCst) {
                while let Ok((stream, _)) = listener.accept() {
                    let peer = Peer::new(stream);
                    peer.stream.set_nonblocking(true).unwrap();
                    connections.push(peer);
                }
                connections.retain_mut(|peer| Self::serve(peer, &served));
                thread::park_timeout(Duration::from_micros(200));
            }
            drop(listener);
        });
        Self { address, alive, thread: Some(thread) }
    }

    /// Answers what is there; `false` when the connection is over.
    fn serve(peer: &mut Peer, served: &AtomicUsize) -> bool {
        let mut chunk = [0; 16384];
        match std::io::Read::read(&mut peer.stream, &mut chunk) {
            Ok(0) => false,
            Ok(count) => {
                let requests = chunk[..count].windows(4).filter(|window| window == b"\r\n\r\n").count();
                served.fetch_add(requests, Ordering::SeqCst);
                (0..requests).all(|_| peer.try_send(ok(b"alive")))
            }
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        }
    }

    fn kill(mut self) -> SocketAddr {
        self.alive.store(false, Ordering::SeqCst);
        self.thread.take().unwrap().join().unwrap();
        self.address
    }
}

#[test]
fn killing_and_restarting_an_endpoint_under_load_costs_no_get() {
    let counters: Vec<_> = (0..3).map(|_| Arc::new(AtomicUsize::new(0))).collect();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let mut endpoints: Vec<_> =
        counters.iter().map(|served| Some(Mortal::start(any, Arc::clone(served)))).collect();
    let addresses: Vec<_> = endpoints.iter().flatten().map(|endpoint| endpoint.address).collect();
    let keys = "eject = { failures = 3, backoff = \"50ms\", max_backoff = \"100ms\" }\n";
    let gateway = Gateway::start(&(config(&cluster(&addresses, keys)) + "[access_log]\nformat = \"off\"\n"));
    let done = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..12)
        .map(|number| {
            let (mut client, done, address) = (gateway.connect(), Arc::clone(&done), gateway.address());
            thread::spawn(move || {
                let (mut requests, mut wrong) = (0, Vec::new());
                while !done.load(Ordering::SeqCst) {
                    // Some clients come anew each time.
                    if number % 3 == 0 {
                        client = Peer::new(TcpStream::connect(address).unwrap());
                    }
                    client.send(get("/"));
                    let response = client.response();
                    requests += 1;
                    if response.status != 200 {
                        wrong.push(response);
                    }
                }
                (requests, wrong)
            })
        })
        .collect();
    for round in 0..6 {
        let at = round % 3;
        let before = counters[at].load(Ordering::SeqCst);
        within("it serves", || (counters[at].load(Ordering::SeqCst) > before + 50).then_some(()));
        let address = endpoints[at].take().unwrap().kill();
        let others = counters[(at + 1) % 3].load(Ordering::SeqCst);
        within("the others serve on", || {
            (counters[(at + 1) % 3].load(Ordering::SeqCst) > others + 200).then_some(())
        });
        let before = counters[at].load(Ordering::SeqCst);
        endpoints[at] = Some(Mortal::start(address, Arc::clone(&counters[at])));
        within("it serves again", || (counters[at].load(Ordering::SeqCst) > before).then_some(()));
    }
    done.store(true, Ordering::SeqCst);
    let mut requests = 0;
    for client in clients {
        let (count, wrong) = client.join().unwrap();
        assert!(wrong.is_empty(), "{} of {count}: {:?}", wrong.len(), wrong[0]);
        requests += count;
    }
    assert!(requests > 1000);
    for endpoint in endpoints.into_iter().flatten() {
        endpoint.kill();
    }
}
