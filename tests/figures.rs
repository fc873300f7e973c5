//! What the gateway counts, against what a test counts itself: SIGQUIT writes the figures to the process's log.
#![allow(clippy::disallowed_methods, reason = "tests run no data plane")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use support::{Gateway, PATIENCE, Peer, Upstream, all_to, closed_port, config, ok, within};

/// The figures by kind and name, such as `figure retries`; what is not there is zero.
struct Figures(HashMap<String, u64>);

impl Figures {
    /// Asks the gateway.
    fn of(gateway: &Gateway) -> Self {
        gateway.signal("QUIT");
        let mut figures = HashMap::new();
        loop {
            let line = gateway.messages.recv_timeout(PATIENCE).expect("the figures");
            if let Some((name, value)) = figure(&line) {
                figures.insert(name, value);
            } else if line.contains("exchanges responses=") {
                return Self(figures);
            }
        }
    }

    fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    fn assert(&self, expected: &[(&str, u64)]) {
        for (name, value) in expected {
            assert_eq!(self.get(name), *value, "{name} in {:#?}", self.0);
        }
    }
}

/// `figure="retries" value=1` of a message.
fn figure(line: &str) -> Option<(String, u64)> {
    let (rest, value) = line.split_once("\" value=")?;
    let (kind, name) = rest.rsplit_once("=\"")?;
    let kind = kind.rsplit(' ').next()?;
    Some((format!("{kind} {name}"), value.trim().parse().ok()?))
}

/// Bytes that a peer sent and received.
#[derive(Default)]
struct Traffic {
    sent: AtomicU64,
    received: AtomicU64,
}

fn add(to: &AtomicU64, bytes: usize) {
    to.fetch_add(bytes as u64, Ordering::SeqCst);
}

/// An upstream that answers `hello`, on each connection as often as `answers` says and then closes it.
fn counted_upstream(traffic: &Arc<Traffic>, answers: usize) -> Upstream {
    let traffic = Arc::clone(traffic);
    Upstream::scripted(move |mut peer, _| {
        for _ in 0..answers {
            let Some(head) = peer.try_head() else { return };
            let body = support::request_body(&mut peer, &head);
            add(&traffic.received, head.len() + body.len());
            let answer = ok(b"hello");
            add(&traffic.sent, answer.len());
            peer.send(answer);
        }
    })
}

/// One exchange of a client, its bytes counted.
fn ask(client: &mut Peer, request: &str, traffic: &Traffic) -> u16 {
    client.send(request);
    add(&traffic.sent, request.len());
    let response = client.response();
    add(&traffic.received, response.head.len() + response.body.len());
    response.status
}

const GET: &str = "GET /a HTTP/1.1\r\nHost: a\r\n\r\n";
const POST: &str = "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\nhello world";

/// Whether the gateway's cores run on rings; on epoll nothing of a ring is counted.
fn has_ring(gateway: &Gateway) -> bool {
    std::fs::read_dir(format!("/proc/{}/fd", gateway.pid()))
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .any(|to| to.as_os_str() == "anon_inode:[io_uring]")
}

#[test]
fn bytes_connections_and_exchanges_are_what_peers_saw() {
    let (above, below) = (Arc::new(Traffic::default()), Traffic::default());
    let upstream = counted_upstream(&above, usize::MAX);
    let gateway = Gateway::start(&all_to(&[upstream.address]));
    let has_ring = has_ring(&gateway);
    let mut clients = [gateway.connect(), gateway.connect()];
    for turn in 0..10 {
        for client in &mut clients {
            assert_eq!(ask(client, if turn % 2 == 0 { GET } else { POST }, &below), 200);
        }
    }
    assert_eq!(ask(&mut clients[0], "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", &below), 200);
    assert_eq!(ask(&mut clients[1], "NOT A REQUEST\r\n\r\n", &below), 400);
    (0..22).for_each(|_| drop(gateway.log_line()));

    let opened = upstream.accepted() as u64;
    let figures = Figures::of(&gateway);
    figures.assert(&[
        ("figure connections_accepted", 2),
        ("figure exchanges_active", 0),
        ("figure downstream_bytes_received", below.sent.load(Ordering::SeqCst)),
        ("figure downstream_bytes_sent", below.received.load(Ordering::SeqCst)),
        ("figure upstream_bytes_received", above.sent.load(Ordering::SeqCst)),
        ("figure upstream_bytes_sent", above.received.load(Ordering::SeqCst)),
        ("figure pool_misses", opened),
        ("figure pool_hits", 21 - opened),
        ("figure upstream_connections_active", opened),
        ("figure retries", 0),
        ("figure log_lines", 22),
        ("figure log_dropped", 0),
        ("ended head-malformed", 1),
        ("ring connects", opened),
        ("ring sends", 43),
        // One for each client under way, and the next.
        ("ring accepts", 3),
        ("ring errors", 0),
    ]);
    // Each request and response is one, and each connection that is idle waits in another.
    assert!(figures.get("ring receives") >= 43, "{:?}", figures.0);
    assert_eq!(figures.get("ring enters") > 0, has_ring, "{:?}", figures.0);
    // Some receives are left standing, so that there are fewer submissions than operations; but no send is.
    assert_eq!(figures.get("ring submissions") >= 43, has_ring, "{:?}", figures.0);
    assert_eq!(figures.get("ring completions") >= 43, has_ring, "{:?}", figures.0);
}

#[test]
fn an_idle_connection_that_the_endpoint_closed_is_counted_dead() {
    let (above, below) = (Arc::new(Traffic::default()), Traffic::default());
    let upstream = counted_upstream(&above, 1);
    let gateway = Gateway::start(&all_to(&[upstream.address]));
    let mut client = gateway.connect();
    assert_eq!(ask(&mut client, GET, &below), 200);
    within("the closed connection is found", || {
        let figures = Figures::of(&gateway);
        (figures.get("figure pool_dead") == 1).then(|| {
            figures.assert(&[("figure upstream_connections_active", 0), ("figure pool_hits", 0)]);
        })
    });
}

#[test]
fn a_failed_connect_a_second_try_and_a_timeout_are_counted() {
    let (closed, _guard) = closed_port();
    let upstream = Upstream::saying("hello");
    let gateway = Gateway::start(&config(&format!(
        "[[cluster]]\nname = \"both\"\nendpoints = [{{ address = \"{closed}\" }}, {{ address = \"{}\" }}]\n\
         [[cluster]]\nname = \"slow\"\nendpoints = [{{ address = \"{}\" }}]\ntimeouts = {{ first_byte = \"100ms\" }}\n\
         [[route]]\nname = \"both\"\nmatch = {{ path = \"/both\" }}\ncluster = \"both\"\n\
         [[route]]\nname = \"slow\"\nmatch = {{ path = \"/slow\" }}\ncluster = \"slow\"",
        upstream.address,
        Upstream::witness().0.address,
    )));
    let mut client = gateway.connect();
    let mut statuses = Vec::new();
    for path in ["/both", "/both", "/slow"] {
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        statuses.push(client.response().status);
    }
    assert_eq!(statuses, [200, 200, 504]);
    let tries: u64 = (0..3).map(|_| gateway.log_line()["tries"].as_u64().unwrap()).sum();
    assert!(tries > 3, "the closed endpoint was not tried");
    Figures::of(&gateway).assert(&[
        ("figure connect_failures", tries - 3),
        ("figure retries", tries - 3),
        ("ring connects", 2 + tries - 3),
        ("ring errors", tries - 3),
        ("timeout first_byte", 1),
        ("ended first-byte-timeout", 1),
    ]);
}

#[test]
fn an_exchange_under_way_is_active_and_a_client_that_left_is_gone() {
    let (upstream, _seen) = Upstream::witness();
    let gateway = Gateway::start(&all_to(&[upstream.address]));
    let mut client = gateway.connect();
    client.send(GET);
    upstream.wait_for(1);
    Figures::of(&gateway).assert(&[
        ("figure exchanges_active", 1),
        ("figure connections_active", 1),
        ("figure clients_gone", 0),
    ]);
    client.reset();
    assert_eq!(gateway.log_line()["end"], "client-gone");
    within("the connection is gone", || {
        let figures = Figures::of(&gateway);
        (figures.get("figure connections_active") == 0).then(|| {
            figures.assert(&[("figure exchanges_active", 0), ("figure clients_gone", 1)]);
            // The receive that waited for the response, at least, was given up.
            assert!(figures.get("ring cancels") > 0);
        })
    });
}

/// Regression: what of a body came together with the head was counted twice.
#[test]
fn a_request_body_counts_once_in_the_log() {
    let upstream = Upstream::saying("hello");
    let gateway = Gateway::start(&all_to(&[upstream.address]));
    let mut client = gateway.connect();
    client.send(POST);
    assert_eq!(client.response().status, 200);
    assert_eq!(gateway.log_line()["received_bytes"], POST.len());
    let (head, body) = POST.split_at(POST.len() - 6);
    client.send(head);
    upstream.wait_for(1);
    client.send(body);
    assert_eq!(client.response().status, 200);
    assert_eq!(gateway.log_line()["received_bytes"], POST.len());
}
