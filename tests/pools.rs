//! Connections to endpoints: which one is used again, how many there are, who waits for one, and what happens to a
//! request whose connection dies.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests run no data plane")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{
    io::{ErrorKind, Read},
    sync::{
        Arc, Barrier,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use support::{Asked, Gateway, Peer, Upstream, cluster, config, get, ok, post, within};

/// A gateway before one endpoint with these pool settings.
fn pooled(upstream: &Upstream, pool: &str) -> Gateway {
    Gateway::start(&config(&cluster(&[upstream.address], &format!("pool = {{ {pool} }}\n"))))
}

/// So many requests at once, each on its own client connection, all held at the upstream.
fn held(gateway: &Gateway, asked: &mut Asked, count: usize) -> Vec<(Peer, support::Question)> {
    (0..count)
        .map(|number| {
            let mut client = gateway.connect();
            client.send(get(&format!("/{number}")));
            (client, asked.question())
        })
        .collect()
}

/// One request on an idle gateway, answered: over which connection it went.
fn connection_used(client: &mut Peer, asked: &mut Asked) -> usize {
    client.send(get("/"));
    let question = asked.question();
    let connection = question.connection;
    question.ok("");
    assert_eq!(client.response().status, 200);
    connection
}

#[test]
fn the_last_connection_released_is_the_first_used() {
    let (upstream, mut asked) = Upstream::asking();
    let gateway = pooled(&upstream, "");
    let mut clients = Vec::new();
    for (mut client, question) in held(&gateway, &mut asked, 3) {
        question.ok("");
        assert_eq!(client.response().status, 200);
        clients.push(client);
    }
    for _ in 0..3 {
        assert_eq!(connection_used(&mut clients[0], &mut asked), 2);
    }
    let used: Vec<_> = clients
        .iter_mut()
        .map(|client| {
            client.send(get("/"));
            asked.question()
        })
        .collect();
    assert_eq!(used.iter().map(|question| question.connection).collect::<Vec<_>>(), [2, 1, 0]);
}

#[test]
fn no_more_idle_connections_than_allowed() {
    let (upstream, mut asked) = Upstream::asking();
    let gateway = pooled(&upstream, "max_idle = 1");
    for (mut client, question) in held(&gateway, &mut asked, 3) {
        question.ok("");
        assert_eq!(client.response().status, 200);
    }
    let mut ended = [asked.ended(), asked.ended()];
    ended.sort_unstable();
    assert_eq!(ended, [1, 2], "the first one released fills the pool");
    assert_eq!(connection_used(&mut gateway.connect(), &mut asked), 0);
}

#[test]
fn no_idle_connection_when_none_is_allowed() {
    let (upstream, mut asked) = Upstream::asking();
    let gateway = pooled(&upstream, "max_idle = 0");
    let mut client = gateway.connect();
    for number in 0..3 {
        assert_eq!(connection_used(&mut client, &mut asked), number);
        assert_eq!(asked.ended(), number);
    }
}

#[test]
fn idle_for_too_long_is_closed() {
    let (upstream, mut asked) = Upstream::asking();
    let gateway = pooled(&upstream, "idle_timeout = \"200ms\"");
    let mut client = gateway.connect();
    assert_eq!(connection_used(&mut client, &mut asked), 0);
    assert_eq!(asked.ended(), 0);
    assert_eq!(connection_used(&mut client, &mut asked), 1);
}

#[test]
fn too_old_is_not_used_again() {
    let (upstream, mut asked) = Upstream::asking();
    let gateway = pooled(&upstream, "max_age = \"300ms\", idle_timeout = \"1h\"");
    let mut client = gateway.connect();
    assert_eq!(connection_used(&mut client, &mut asked), 0);
    within("a second connection", || (connection_used(&mut client, &mut asked) == 1).then_some(()));
    assert_eq!(asked.ended(), 0);
    assert_eq!(gateway.figure("retries"), 0);
}

#[test]
fn the_hosts_connections_are_shared_out_over_the_cores() {
    let (upstream, mut asked) = Upstream::asking();
    let workers = thread::available_parallelism().unwrap().get().min(2);
    let text =
        config(&cluster(&[upstream.address], "pool = { max_connections = 4, queue_timeout = \"1h\" }\n"))
            .replace("workers = 1", &format!("workers = {workers}"));
    let gateway = Gateway::start(&text);
    const CLIENTS: usize = 48;
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| gateway.connect()).collect();
    for client in &mut clients {
        client.send(get("/"));
    }
    gateway.wait_for_figure("pool_waits", CLIENTS as u64 - 4);
    assert_eq!(upstream.accepted(), 4);
    assert_eq!(gateway.figure("upstream_connections_active"), 4);
    for _ in 0..CLIENTS {
        asked.question().ok("");
    }
    for client in &mut clients {
        assert_eq!(client.response().status, 200);
    }
    assert_eq!(upstream.accepted(), 4, "who waited got the connections of those before");
}

#[test]
fn who_waits_is_served_in_order() {
    let (upstream, mut asked) = Upstream::asking();
    let gateway = pooled(&upstream, "max_connections = 1, queue_timeout = \"1h\"");
    let mut first = gateway.connect();
    first.send(get("/first"));
    let mut question = asked.question();
    let mut clients = Vec::new();
    for number in 0..5 {
        let mut client = gateway.connect();
        client.send(get(&format!("/{number}")));
        gateway.wait_for_figure("pool_waits", number + 1);
        clients.push(client);
    }
    for number in 0..5 {
        // Sometimes the connection is given on, sometimes it is closed and only its place is.
        if number % 2 == 0 {
            question.ok("")
        } else {
            question.last("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        }
        question = asked.question();
        assert_eq!(question.path(), format!("/{number}"));
    }
    question.ok("");
    for client in clients.iter_mut().chain([&mut first]) {
        assert_eq!(client.response().status, 200);
    }
}

#[test]
fn a_full_queue_refuses() {
    let (upstream, mut asked) = Upstream::asking();
    let gateway = pooled(&upstream, "max_connections = 1, queue = 1, queue_timeout = \"1h\"");
    let mut held = held(&gateway, &mut asked, 1);
    let (mut first, question) = held.remove(0);
    let mut second = gateway.connect();
    second.send(get("/second"));
    gateway.wait_for_figure("pool_waits", 1);
    let mut third = gateway.connect();
    third.send(get("/third"));
    let refused = third.response();
    let problem: serde_json::Value = serde_json::from_slice(&refused.body).unwrap();
    assert_eq!((refused.status, problem["type"].as_str()), (503, Some("urn:ringgate:problem:queue-full")));
    assert!(refused.field("retry-after").is_some());
    question.ok("");
    assert_eq!(first.response().status, 200);
    asked.question().ok("");
    assert_eq!(second.response().status, 200);
    // The connection on which it was refused is good for another request.
    third.send(get("/fourth"));
    let question = asked.question();
    assert_eq!(question.path(), "/fourth");
    question.ok("");
    assert_eq!(third.response().status, 200);
    let ends: Vec<_> = (0..4).map(|_| gateway.log_line()["end"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ends, ["queue-full", "ok", "ok", "ok"]);
}

#[test]
fn waiting_has_an_end() {
    let (upstream, mut asked) = Upstream::asking();
    let gateway = pooled(&upstream, "max_connections = 1, queue_timeout = \"100ms\"");
    let mut held = held(&gateway, &mut asked, 1);
    let mut second = gateway.connect();
    second.send(get("/second"));
    let refused = second.response();
    let problem: serde_json::Value = serde_json::from_slice(&refused.body).unwrap();
    assert_eq!((refused.status, problem["type"].as_str()), (503, Some("urn:ringgate:problem:queue-timeout")));
    assert_eq!(gateway.log_line()["end"], "queue-timeout");
    let (mut first, question) = held.remove(0);
    question.ok("");
    assert_eq!(first.response().status, 200);
    assert_eq!(connection_used(&mut second, &mut asked), 0, "the place was not lost");
}

#[test]
fn the_wait_for_a_connection_does_not_limit_what_comes_after() {
    // The second request waits, gets the first one's connection, and then is slow itself.
    let (upstream, mut asked) = Upstream::asking();
    let silent = Upstream::scripted(|mut peer, _| drop(peer.rest()));
    let text = config(&cluster(
        &[upstream.address],
        "pool = { max_connections = 1, queue_timeout = \"300ms\" }\n",
    )) + &format!(
        "[[cluster]]\nname = \"clock\"\nendpoints = [{{ address = \"{}\" }}]\ntimeouts = {{ first_byte = \"600ms\" }}\n\
             [[route]]\nname = \"clock\"\nmatch = {{ path = \"/clock\" }}\ncluster = \"clock\"\n",
        silent.address
    );
    let gateway = Gateway::start(&text);
    let mut held = held(&gateway, &mut asked, 1);
    let mut second = gateway.connect();
    second.send("POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab");
    gateway.wait_for_figure("pool_waits", 1);
    let (mut first, question) = held.remove(0);
    question.ok("");
    assert_eq!(first.response().status, 200);
    // Another request's timeout tells that the time in the queue would be over by now, twice.
    let mut clock = gateway.connect();
    clock.send(get("/clock"));
    assert_eq!(clock.response().status, 504);
    second.send("cd");
    let question = asked.question();
    assert_eq!((question.connection, question.body.as_slice()), (0, b"abcd".as_slice()));
    question.ok("done");
    assert_eq!(second.response().text(), "done");
}

#[test]
fn a_client_that_leaves_the_queue_gives_its_place_on() {
    let (upstream, mut asked) = Upstream::asking();
    let gateway = pooled(&upstream, "max_connections = 1, queue_timeout = \"1h\"");
    let mut held = held(&gateway, &mut asked, 1);
    let mut leaver = gateway.connect();
    leaver.send(get("/leaver"));
    gateway.wait_for_figure("pool_waits", 1);
    let mut stayer = gateway.connect();
    stayer.send(get("/stayer"));
    gateway.wait_for_figure("pool_waits", 2);
    leaver.reset();
    let line = gateway.log_line();
    assert_eq!((line["path"].as_str(), line["end"].as_str()), (Some("/leaver"), Some("client-gone")));
    let (mut first, question) = held.remove(0);
    question.ok("");
    assert_eq!(first.response().status, 200);
    let question = asked.question();
    assert_eq!((question.path(), question.connection), ("/stayer", 0));
    question.ok("");
    assert_eq!(stayer.response().status, 200);
    assert!(!asked.has_question());
}

#[test]
fn what_comes_while_a_request_waits_is_the_next_one() {
    let (upstream, mut asked) = Upstream::asking();
    let gateway = pooled(&upstream, "max_connections = 1, queue_timeout = \"1h\"");
    let mut held = held(&gateway, &mut asked, 1);
    let mut client = gateway.connect();
    client.send(get("/one"));
    gateway.wait_for_figure("pool_waits", 1);
    client.send(get("/two"));
    client.finish();
    let (mut first, question) = held.remove(0);
    question.ok("");
    assert_eq!(first.response().status, 200);
    for path in ["/one", "/two"] {
        let question = asked.question();
        assert_eq!(question.path(), path);
        let path = question.path().to_owned();
        question.ok(&path);
    }
    assert_eq!((client.response().text(), client.response().text()), ("/one".into(), "/two".into()));
    assert!(client.is_ended());
}

#[test]
fn a_connection_closed_while_idle_is_noticed_before_use() {
    let (upstream, mut asked) = Upstream::asking();
    let gateway = pooled(&upstream, "");
    let mut client = gateway.connect();
    for number in 0..40 {
        // A method that must not be sent twice: had the dead connection been tried, this would be a 502.
        client.send(post("/", "body"));
        let question = asked.question();
        assert_eq!(question.connection, number);
        question.last(ok(b""));
        assert_eq!(asked.ended(), number);
        assert_eq!(client.response().status, 200);
    }
    let figures = gateway.figures();
    assert_eq!(figures.get("retries"), None);
    assert!(figures["pool_dead"] > 0, "{figures:?}");
}

#[test]
fn bytes_that_no_one_asked_for_are_no_answer() {
    let (upstream, mut asked) = Upstream::asking();
    let gateway = pooled(&upstream, "");
    let mut client = gateway.connect();
    client.send(get("/one"));
    let question = asked.question();
    question.part(ok(b"one"));
    assert_eq!(client.response().text(), "one");
    question.part(ok(b"poison"));
    question.end();
    // The gateway closes what it no longer trusts.
    assert_eq!(asked.ended(), 0);
    client.send(get("/two"));
    let question = asked.question();
    assert_eq!(question.connection, 1);
    // And so when they come with the response.
    question.part([ok(b"two"), ok(b"poison")].concat());
    question.end();
    assert_eq!(client.response().text(), "two");
    client.send(get("/three"));
    let question = asked.question();
    assert_eq!(question.connection, 2);
    question.ok("three");
    assert_eq!(client.response().text(), "three");
}

/// A request on a connection that was used before, and which the endpoint closes without an answer once it has the
/// request. Says what the client got and how often the request arrived.
fn on_a_dying_connection(request: &str) -> (u16, usize, Vec<u8>) {
    let (upstream, mut asked) = Upstream::asking();
    let gateway = pooled(&upstream, "");
    let mut client = gateway.connect();
    assert_eq!(connection_used(&mut client, &mut asked), 0);
    client.send(request);
    let question = asked.question();
    assert_eq!(question.connection, 0);
    drop(question);
    let answered = thread::spawn(move || (client.response(), client));
    let mut arrived = 1;
    let mut body = Vec::new();
    while !answered.is_finished() {
        if asked.has_question() {
            arrived += 1;
            let question = asked.question();
            assert_eq!(question.connection, 1, "a fresh one");
            body.clone_from(&question.body);
            question.ok("second");
        }
        thread::park_timeout(Duration::from_millis(1));
    }
    let (response, _client) = answered.join().unwrap();
    assert_eq!(gateway.log_line()["tries"], 1);
    let line = gateway.log_line();
    assert_eq!(line["tries"], arrived as u64);
    assert_eq!(line["end"], if response.status == 200 { "ok" } else { "upstream-closed" });
    assert_eq!(gateway.figure("retries"), arrived as u64 - 1);
    (response.status, arrived, body)
}

#[test]
fn what_may_be_repeated_is_sent_once_more_on_a_fresh_connection() {
    for request in [
        get("/"),
        "OPTIONS / HTTP/1.1\r\nHost: a\r\n\r\n".into(),
        "DELETE / HTTP/1.1\r\nHost: a\r\n\r\n".into(),
    ] {
        assert_eq!(on_a_dying_connection(&request), (200, 2, Vec::new()), "{request}");
    }
    let put = "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody";
    assert_eq!(on_a_dying_connection(put), (200, 2, b"body".to_vec()));
    let chunked = "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n";
    assert_eq!(on_a_dying_connection(chunked), (200, 2, b"body".to_vec()));
}

#[test]
fn what_must_not_be_repeated_is_sent_once() {
    for method in ["POST", "PATCH", "LOCK"] {
        let request = format!("{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody");
        assert_eq!(on_a_dying_connection(&request), (502, 1, Vec::new()), "{method}");
        let request = format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(on_a_dying_connection(&request), (502, 1, Vec::new()), "{method} without a body");
    }
}

#[test]
fn a_body_that_was_streamed_is_not_repeated() {
    let (upstream, mut asked) = Upstream::asking();
    let gateway = pooled(&upstream, "");
    let mut client = gateway.connect();
    assert_eq!(connection_used(&mut client, &mut asked), 0);
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n");
    client.send(vec![b'x'; 300_000]);
    drop(asked.question());
    assert_eq!(client.response().status, 502);
    assert_eq!((upstream.accepted(), asked.has_question()), (1, false));
}

#[test]
fn nothing_is_repeated_after_a_byte_of_a_response() {
    for part in ["H", "HTTP/1.1 200 OK\r\nContent-Le", "HTTP/1.1 103 Early Hints\r\n\r\n"] {
        let (upstream, mut asked) = Upstream::asking();
        let gateway = pooled(&upstream, "");
        let mut client = gateway.connect();
        assert_eq!(connection_used(&mut client, &mut asked), 0);
        client.send(get("/"));
        asked.question().last(part);
        let mut response = client.response();
        if response.status == 103 {
            response = client.response();
        }
        assert_eq!(response.status, 502, "{part:?}");
        assert_eq!((upstream.accepted(), asked.has_question()), (1, false), "{part:?}");
        gateway.log_line();
        let end = gateway.log_line()["end"].as_str().unwrap().to_owned();
        assert!(["response-truncated", "upstream-closed"].contains(&end.as_str()), "{part:?}: {end}");
    }
}

#[test]
fn a_repeated_request_that_fails_again_is_a_502() {
    let (upstream, mut asked) = Upstream::asking();
    let gateway = pooled(&upstream, "");
    let mut client = gateway.connect();
    assert_eq!(connection_used(&mut client, &mut asked), 0);
    client.send(get("/"));
    drop(asked.question());
    drop(asked.question());
    assert_eq!(client.response().status, 502);
    assert_eq!((upstream.accepted(), asked.has_question()), (2, false));
}

/// Serves a connection, and closes it at a random moment after a response, whatever is under way.
fn closes_idle(mut peer: Peer, asked: &AtomicUsize, closed: &AtomicUsize) {
    let mut chunk = [0; 4096];
    peer.head();
    asked.fetch_add(1, Ordering::Relaxed);
    peer.send(ok(b"fine"));
    loop {
        peer.stream.set_read_timeout(Some(Duration::from_micros(fastrand::u64(1..6000)))).unwrap();
        let count = match peer.stream.read(&mut chunk) {
            Ok(count) => count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                closed.fetch_add(1, Ordering::Relaxed);
                return;
            }
            Err(_) => 0,
        };
        if count == 0 {
            return;
        }
        assert!(chunk[..count].ends_with(b"\r\n\r\n"), "a head comes in one piece here");
        asked.fetch_add(1, Ordering::Relaxed);
        if !peer.try_send(ok(b"fine")) {
            return;
        }
    }
}

/// Bursts over idle connections that are being closed. `RINGGATE_RACE_REQUESTS` sets how many requests, `loadtest/race`
/// does the same with the bundled upstream.
#[test]
fn closing_idle_connections_costs_no_request() {
    const CLIENTS: usize = 24;
    let requests: usize =
        std::env::var("RINGGATE_RACE_REQUESTS").map_or(12_000, |count| count.parse().unwrap());
    let (asked, closed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let upstream = Upstream::scripted({
        let (asked, closed) = (Arc::clone(&asked), Arc::clone(&closed));
        move |peer, _| closes_idle(peer, &asked, &closed)
    });
    let gateway = Gateway::start(
        &(config(&cluster(&[upstream.address], "eject = { failures = 0 }\n"))
            + "[access_log]\nformat = \"off\"\n"),
    );
    let bursts = requests / CLIENTS;
    let barrier = Arc::new(Barrier::new(CLIENTS));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let mut client = gateway.connect();
            let barrier = Arc::clone(&barrier);
            thread::spawn(move || {
                let mut wrong = Vec::new();
                for _ in 0..bursts {
                    if barrier.wait().is_leader() {
                        // Lets connections be idle for about as long as they live.
                        thread::park_timeout(Duration::from_micros(fastrand::u64(..5000)));
                    }
                    barrier.wait();
                    client.send(get("/"));
                    let response = client.response();
                    if response.status != 200 {
                        wrong.push(response);
                    }
                }
                wrong
            })
        })
        .collect();
    let wrong: Vec<_> = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
    assert!(wrong.is_empty(), "{} of {requests}, such as {:?}", wrong.len(), wrong[0]);
    assert!(closed.load(Ordering::Relaxed) > bursts, "connections were closed while idle");
    assert!(asked.load(Ordering::Relaxed) >= bursts * CLIENTS);
}
