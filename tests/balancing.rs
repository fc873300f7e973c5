//! Which endpoint gets a request: weights, splits, hashes and cookies, seen from the endpoints.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests run no data plane")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{collections::HashMap, net::SocketAddr};

use support::{Gateway, Peer, Upstream, config, get, ok, weighted};

/// Endpoints that each answer with their letter.
fn letters(count: usize) -> Vec<Upstream> {
    const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
    NAMES[..count].iter().map(|name| Upstream::saying(name)).collect()
}

fn addresses(upstreams: &[Upstream]) -> Vec<SocketAddr> {
    upstreams.iter().map(|upstream| upstream.address).collect()
}

fn with_weights(upstreams: &[Upstream], weights: &[u32], keys: &str) -> String {
    let endpoints: Vec<_> = addresses(upstreams).into_iter().zip(weights.iter().copied()).collect();
    config(&weighted(&endpoints, keys))
}

/// Who answers.
fn asked(client: &mut Peer, request: &str) -> String {
    client.send(request);
    let response = client.response();
    assert_eq!(response.status, 200, "{}", response.text());
    response.text()
}

fn sequence(gateway: &Gateway, requests: usize) -> String {
    let mut client = gateway.connect();
    (0..requests).map(|_| asked(&mut client, &get("/"))).collect()
}

fn counts(sequence: &str) -> HashMap<char, usize> {
    let mut counts = HashMap::new();
    for letter in sequence.chars() {
        *counts.entry(letter).or_default() += 1;
    }
    counts
}

#[test]
fn five_one_one_gives_the_known_sequence() {
    let upstreams = letters(3);
    let gateway = Gateway::start(&with_weights(&upstreams, &[5, 1, 1], ""));
    assert_eq!(sequence(&gateway, 21), "aabacaa".repeat(3));
}

#[test]
fn the_turn_goes_on_over_connections() {
    let upstreams = letters(3);
    let gateway = Gateway::start(&with_weights(&upstreams, &[1, 1, 1], ""));
    let seen: String = (0..9).map(|_| sequence(&gateway, 1)).collect();
    assert_eq!(seen, "abcabcabc");
}

#[test]
fn weights_are_exact_in_every_cycle() {
    let upstreams = letters(4);
    let weights = [7, 3, 2, 1];
    let gateway = Gateway::start(&with_weights(&upstreams, &weights, ""));
    let seen: Vec<char> = sequence(&gateway, 13 * 5).chars().collect();
    for start in 0..=seen.len() - 13 {
        let window: String = seen[start..start + 13].iter().collect();
        let counts = counts(&window);
        for (letter, weight) in ['a', 'b', 'c', 'd'].into_iter().zip(weights) {
            let count = counts.get(&letter).copied().unwrap_or(0);
            assert!(count.abs_diff(weight as usize) <= 1, "{letter} {count} times in {window}");
            if start % 13 == 0 {
                assert_eq!(count, weight as usize, "{letter} in {window}");
            }
        }
    }
}

#[test]
fn weight_zero_gets_nothing() {
    for balance in ["round_robin", "least_requests", "p2c", "random", "hash"] {
        let upstreams = letters(3);
        let keys = format!("balance = \"{balance}\"\n");
        let gateway = Gateway::start(&with_weights(&upstreams, &[2, 0, 1], &keys));
        assert!(!sequence(&gateway, 60).contains('b'), "{balance}");
        assert_eq!(upstreams[1].accepted(), 0, "{balance}");
    }
}

#[test]
fn every_core_keeps_the_weights() {
    let upstreams = letters(3);
    let workers = std::thread::available_parallelism().unwrap().get().min(2);
    let text =
        with_weights(&upstreams, &[5, 1, 1], "").replace("workers = 1", &format!("workers = {workers}"));
    let gateway = Gateway::start(&text);
    let mut by_core: HashMap<u64, String> = HashMap::new();
    for _ in 0..24 {
        // Connections are spread by the kernel; each brings what it brings to the turn of its core.
        let answers = sequence(&gateway, 7);
        let cores: Vec<_> = (0..7).map(|_| gateway.log_line()["core"].as_u64().unwrap()).collect();
        let core = cores[0];
        assert!(cores.iter().all(|other| *other == core), "a connection stays at its core");
        by_core.entry(core).or_default().push_str(&answers);
    }
    assert_eq!(by_core.len(), workers, "24 connections reach every core");
    for (core, seen) in by_core {
        for cycle in seen.as_bytes().chunks(7) {
            let counts = counts(std::str::from_utf8(cycle).unwrap());
            assert_eq!((counts[&'a'], counts[&'b'], counts[&'c']), (5, 1, 1), "core {core}: {seen}");
        }
    }
}

#[test]
fn a_split_is_exact_and_zero_gets_nothing() {
    let upstreams = letters(3);
    let mut text = config("");
    for (name, upstream) in ["v1", "v2", "v3"].iter().zip(&upstreams) {
        text += &format!(
            "[[cluster]]\nname = \"{name}\"\nendpoints = [{{ address = \"{}\" }}]\n",
            upstream.address
        );
    }
    text += "[[route]]\nname = \"canary\"\nclusters = [{ name = \"v1\", weight = 9 }, { name = \"v2\", weight = 1 }, { name = \"v3\", weight = 0 }]\n";
    let gateway = Gateway::start(&text);
    for cycle in sequence(&gateway, 50).as_bytes().chunks(10) {
        let counts = counts(std::str::from_utf8(cycle).unwrap());
        assert_eq!((counts[&'a'], counts[&'b'], counts.get(&'c')), (9, 1, None));
    }
    assert_eq!(gateway.log_line()["cluster"], "v1");
}

#[test]
fn random_goes_by_weight() {
    let upstreams = letters(3);
    let gateway = Gateway::start(&with_weights(&upstreams, &[2, 1, 1], "balance = \"random\"\n"));
    let counts = counts(&sequence(&gateway, 2000));
    // Six standard deviations: this fails once in 10^8 seeds.
    assert!(counts[&'a'].abs_diff(1000) < 135, "{counts:?}");
    assert!(counts[&'b'].abs_diff(500) < 117, "{counts:?}");
}

/// Two endpoints that hold each request until told otherwise; the busy one gets no more.
fn prefers_the_idle_one(balance: &str) {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let slow = Upstream::answering(move |head, _| {
        if head.starts_with("GET /hold") {
            let _ = wait.lock().unwrap().recv_timeout(support::PATIENCE);
        }
        ok(b"a")
    });
    let fast = Upstream::saying("b");
    let endpoints = [(slow.address, 1), (fast.address, 1)];
    let gateway = Gateway::start(&config(&weighted(&endpoints, &format!("balance = \"{balance}\"\n"))));
    // Whatever the first pick is: ask until one request is held.
    let mut holder = gateway.connect();
    let held = || slow.accepted() == 1;
    while !held() {
        holder.send(get("/hold"));
        if support::within("an answer or a held request", || {
            holder.stream.set_nonblocking(true).unwrap();
            let came = holder.stream.peek(&mut [0]).is_ok();
            holder.stream.set_nonblocking(false).unwrap();
            (came || held()).then_some(came)
        }) {
            holder.response();
        }
    }
    assert_eq!(sequence(&gateway, 40), "b".repeat(40), "{balance}");
    go.send(()).unwrap();
    assert_eq!(holder.response().text(), "a");
    let after = counts(&sequence(&gateway, 40));
    assert!(after.get(&'a').copied().unwrap_or(0) > 5, "{balance}: {after:?}");
}

#[test]
fn least_requests_prefers_the_idle_one() {
    prefers_the_idle_one("least_requests");
}

#[test]
fn p2c_of_two_prefers_the_idle_one() {
    prefers_the_idle_one("p2c");
}

/// Requests that differ in one thing by its value: the same value goes to the same endpoint, different ones spread.
fn is_stable_and_spreads(hash_on: &str, request: impl Fn(usize) -> String) {
    let upstreams = letters(4);
    let keys = format!("balance = \"hash\"\nhash_on = {hash_on}\n");
    let gateway = Gateway::start(&with_weights(&upstreams, &[1; 4], &keys));
    let mut client = gateway.connect();
    let first: Vec<String> = (0..60).map(|key| asked(&mut client, &request(key))).collect();
    let mut other = gateway.connect();
    let second: Vec<String> = (0..60).map(|key| asked(&mut other, &request(key))).collect();
    assert_eq!(first, second, "{hash_on}");
    assert_eq!(counts(&first.concat()).len(), 4, "{hash_on}: {first:?}");
    // Another gateway with the same endpoints agrees, whatever their order in the file.
    let mut reversed: Vec<_> = addresses(&upstreams).into_iter().map(|address| (address, 1)).collect();
    reversed.reverse();
    let replica = Gateway::start(&config(&weighted(&reversed, &keys)));
    let mut client = replica.connect();
    let third: Vec<String> = (0..60).map(|key| asked(&mut client, &request(key))).collect();
    assert_eq!(first, third, "{hash_on}");
}

#[test]
fn hash_by_header() {
    is_stable_and_spreads("{ header = \"X-Tenant\" }", |key| {
        format!("GET /{} HTTP/1.1\r\nHost: a\r\nx-tenant: t{key}\r\n\r\n", key % 3)
    });
}

#[test]
fn hash_by_cookie() {
    is_stable_and_spreads("{ cookie = \"sid\" }", |key| {
        format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: x=1; sid=s{key}; y=2\r\n\r\n")
    });
}

#[test]
fn hash_by_query() {
    is_stable_and_spreads("{ query = \"user\" }", |key| get(&format!("/p?other={}&user={key}", key * 7)));
}

#[test]
fn hash_by_path_ignores_the_query() {
    is_stable_and_spreads("\"path\"", |key| get(&format!("/p/{key}?n={}", fastrand::u32(..))));
}

#[test]
fn hash_by_client_address() {
    let upstreams = letters(4);
    let text = with_weights(&upstreams, &[1; 4], "balance = \"hash\"\n")
        .replace("[[cluster]]", "trusted_proxies = [\"127.0.0.1/32\"]\n[[cluster]]");
    let gateway = Gateway::start(&text);
    let mut seen = String::new();
    for host in 0..60 {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 10.0.0.{host}\r\n\r\n");
        let answers: Vec<_> = (0..3).map(|_| asked(&mut gateway.connect(), &request)).collect();
        assert!(answers.iter().all(|answer| *answer == answers[0]), "10.0.0.{host}: {answers:?}");
        seen += &answers[0];
    }
    assert_eq!(counts(&seen).len(), 4, "{seen}");
}

#[test]
fn without_the_named_value_the_client_address_counts() {
    let upstreams = letters(4);
    let keys = "balance = \"hash\"\nhash_on = { header = \"x-tenant\" }\n";
    let gateway = Gateway::start(&with_weights(&upstreams, &[1; 4], keys));
    let seen = sequence(&gateway, 20) + &sequence(&gateway, 20);
    assert_eq!(counts(&seen).len(), 1, "{seen}");
}

#[test]
fn a_sticky_cookie_is_set_once_and_honoured() {
    let upstreams = letters(3);
    let keys = "sticky = { cookie = \"stay\", ttl = \"1h\" }\n";
    let gateway = Gateway::start(&with_weights(&upstreams, &[1; 3], keys));
    let mut homes = HashMap::new();
    for _ in 0..3 {
        let mut client = gateway.connect();
        client.send(get("/"));
        let response = client.response();
        let cookie = response.field("set-cookie").unwrap();
        assert!(cookie.starts_with("stay=") && cookie.contains("Max-Age=3600"), "{cookie}");
        assert!(cookie.contains("HttpOnly") && cookie.contains("Path=/"), "{cookie}");
        let home = response.text();
        let pair = cookie.split(';').next().unwrap().to_owned();
        for _ in 0..7 {
            client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: x=1; {pair}\r\n\r\n"));
            let response = client.response();
            assert_eq!(response.text(), home);
            assert_eq!(response.field("set-cookie"), None, "set once");
        }
        homes.insert(home, pair);
    }
    assert_eq!(homes.len(), 3, "every new client is balanced: {homes:?}");
}

#[test]
fn a_made_up_sticky_cookie_is_as_good_as_none() {
    let upstreams = letters(3);
    let gateway = Gateway::start(&with_weights(&upstreams, &[1, 1, 0], "sticky = { cookie = \"stay\" }\n"));
    let mut client = gateway.connect();
    for value in ["0000000000000000", "", "zzzzzzzzzzzzzzzz", "127.0.0.1:1", &"f".repeat(4000)] {
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: stay={value}\r\n\r\n"));
        let response = client.response();
        assert_eq!(response.status, 200);
        assert!(response.field("set-cookie").unwrap().starts_with("stay="), "{value}");
    }
}

#[test]
fn a_sticky_client_moves_when_its_endpoint_is_ejected() {
    let failing = Upstream::answering(|head, _| {
        if head.contains("/fail") {
            b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n".to_vec()
        } else {
            ok(b"a")
        }
    });
    let other = Upstream::saying("b");
    let keys =
        "sticky = { cookie = \"stay\" }\neject = { failures = 2, backoff = \"1h\", max_backoff = \"1h\" }\n";
    let endpoints = [(failing.address, 1), (other.address, 1)];
    let gateway = Gateway::start(&config(&weighted(&endpoints, keys)));
    let mut client = gateway.connect();
    client.send(get("/"));
    let response = client.response();
    assert_eq!(response.text(), "a");
    let pair = response.field("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    let request =
        |path: &str, pair: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\nCookie: {pair}\r\n\r\n");
    for _ in 0..2 {
        client.send(request("/fail", &pair));
        assert_eq!(client.response().status, 503);
    }
    client.send(request("/", &pair));
    let response = client.response();
    assert_eq!(response.text(), "b");
    let moved = response.field("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    assert_ne!(moved, pair);
    client.send(request("/", &moved));
    let response = client.response();
    assert_eq!((response.text().as_str(), response.field("set-cookie")), ("b", None));
}
