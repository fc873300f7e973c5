//! How many exchanges may be under way at once, on however many cores.
#![allow(clippy::disallowed_methods, reason = "tests run no data plane")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use support::{Gateway, Peer, Upstream, get, route, trusting};

fn gateway(upstream: &Upstream, limit: u32) -> Gateway {
    let policy = format!("[[policy]]\nname = \"few\"\nconcurrency = {{ limit = {limit} }}\n");
    let config = trusting(upstream.address, &[policy, route("/*", "use = [\"few\"]")].concat());
    Gateway::start(&config.replacen("workers = 1", "workers = 2", 1))
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

#[test]
fn cores_share_a_limit_exactly_and_permits_come_home() {
    let (upstream, accepted) = Upstream::manual();
    let gateway = gateway(&upstream, 3);
    let mut peers: Vec<Peer> = (0..16).map(|_| gateway.connect()).collect();
    for round in 0..3 {
        let mut held = Vec::new();
        for peer in &mut peers[..3] {
            peer.send(get("/"));
            let mut upstream = accepted.next();
            upstream.head();
            held.push(upstream);
        }
        for peer in &mut peers[3..] {
            peer.send(get("/"));
            let refused = peer.response();
            assert_eq!(refused.status, 503, "round {round}");
            assert_eq!(refused.field("retry-after").as_deref(), Some("1"));
            assert!(refused.text().contains("concurrency-exceeded"), "{}", refused.text());
        }
        // Each ends in its own way: with an answer, and with the upstream's death.
        for (at, mut upstream) in held.into_iter().enumerate() {
            if at > 0 {
                upstream.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
            }
            drop(upstream);
            let status = peers[at].response().status;
            assert_eq!(status, if at > 0 { 200 } else { 502 });
        }
        // What has failed may have cost its client the connection.
        peers = (0..16).map(|_| gateway.connect()).collect();
    }
}

#[test]
fn a_client_that_leaves_makes_room() {
    let (upstream, accepted) = Upstream::manual();
    let gateway = gateway(&upstream, 1);
    let mut first = gateway.connect();
    first.send(get("/"));
    let mut held = accepted.next();
    held.head();
    first.reset();
    // The gateway has noticed, and says so to the upstream.
    assert!(held.is_ended());
    gateway.log_line();
    let mut second = gateway.connect();
    second.send(get("/"));
    let mut held = accepted.next();
    held.head();
    held.send(OK);
    assert_eq!(second.response().status, 200);
}

#[test]
fn a_tunnel_is_under_way_while_it_is_open() {
    let (upstream, accepted) = Upstream::manual();
    let gateway = gateway(&upstream, 1);
    let mut tunnel = gateway.connect();
    tunnel.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
    let mut held = accepted.next();
    held.head();
    held.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
    assert!(tunnel.head().starts_with("HTTP/1.1 101 "));
    let mut other = gateway.connect();
    other.send(get("/"));
    assert_eq!(other.response().status, 503);
    gateway.log_line();
    drop((tunnel, held));
    gateway.log_line();
    other.send(get("/"));
    let mut held = accepted.next();
    held.head();
    held.send(OK);
    assert_eq!(other.response().status, 200);
}
