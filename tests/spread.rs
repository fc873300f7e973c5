//! Few, long-lived connections over two cores: the log says which core serves each. The kernel's hash is as good as chance,
//! so what is asserted is what comes of any hash, with the hand-overs.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests run no data plane")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{
    collections::HashMap,
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use support::{Gateway, Peer, config, get, within};

/// Answers by itself.
const HERE: &str = "[[route]]\nname = \"here\"\nmatch = { path = \"/*\" }\nrespond = { body = \"yes\" }\n";

/// Two cores, if this machine has them.
fn two_cores(driver: &str, rest: &str) -> Option<String> {
    let runtime = format!("workers = 2\ndriver = \"{driver}\"\n");
    let is_possible = thread::available_parallelism().unwrap().get() >= 2;
    is_possible.then(|| config(&format!("{rest}{HERE}")).replace("workers = 1\n", &runtime))
}

/// Connections, each of which is served once before the next one comes, and the cores that serve them.
fn connect(gateway: &Gateway, listener: &str, count: usize) -> Vec<(usize, Peer)> {
    let mut clients: HashMap<u64, Peer> = HashMap::new();
    for _ in 0..count {
        let mut client = Peer::connect(gateway.address_of(listener));
        client.send(get("/"));
        assert_eq!(client.response().status, 200);
        clients.insert(client.stream.local_addr().unwrap().port().into(), client);
    }
    let served = (0..count).map(|_| {
        let line = gateway.log_line();
        let client = clients.remove(&line["client_port"].as_u64().unwrap()).unwrap();
        (line["core"].as_u64().unwrap() as usize, client)
    });
    served.collect()
}

/// How many of the connections each core serves.
fn counts(connections: &[(usize, Peer)]) -> [usize; 2] {
    let first = connections.iter().filter(|(core, _)| *core == 0).count();
    [first, connections.len() - first]
}

/// Connections of one core alone, the other one's closed: `count` of them.
fn lopsided(gateway: &Gateway, core: usize, count: usize) -> Vec<(usize, Peer)> {
    let mut all = connect(gateway, "public", count * 2);
    all.retain(|(of, _)| *of == core);
    assert_eq!(all.len(), count, "half of them");
    gateway.wait_for_figure("connections_active", count as u64);
    all
}

/// Twelve each are spread evenly without exception.
const FEW: usize = 12;

fn few_are_spread_evenly(driver: &str) {
    let Some(text) = two_cores(driver, "") else { return };
    let gateway = Gateway::start(&text);
    let mut open = connect(&gateway, "public", 2);
    assert_eq!(counts(&open), [1, 1]);
    open.extend(connect(&gateway, "public", 15));
    let mut counts = counts(&open);
    counts.sort_unstable();
    assert_eq!(counts, [8, 9]);
    let figures = gateway.figures();
    assert_eq!((figures["connections_accepted"], figures["connections_active"]), (17, 17));
    let mut cores = [0, 0];
    for (core, mut client) in open {
        client.send(get("/"));
        assert_eq!(client.response().status, 200);
        cores[core] += 1;
    }
    for _ in 0..17 {
        cores[gateway.log_line()["core"].as_u64().unwrap() as usize] -= 1;
    }
    assert_eq!(cores, [0, 0], "they stay where they are");
}

#[test]
fn few_connections_are_spread_evenly() {
    few_are_spread_evenly("auto");
}

#[test]
fn few_connections_are_spread_evenly_over_epoll() {
    few_are_spread_evenly("epoll");
}

#[test]
fn who_holds_fewer_gets_all_until_it_is_even() {
    let Some(text) = two_cores("auto", "") else { return };
    for fuller in [0, 1] {
        let gateway = Gateway::start(&text);
        let mut open = lopsided(&gateway, fuller, FEW);
        let before = gateway.figure("connections_handed_over");
        open.extend(connect(&gateway, "public", FEW));
        assert_eq!(counts(&open), [FEW, FEW]);
        assert!(gateway.figure("connections_handed_over") > before);
    }
}

#[test]
fn connections_go_only_to_cores_that_serve_their_listener() {
    let cpus: Vec<usize> = core_affinity::get_core_ids().unwrap().iter().map(|core| core.id).collect();
    let listeners = "[[listener]]\nname = \"second\"\naddress = \"127.0.0.1:0\"\n";
    let tuned = |cpu: usize, names: &str| format!("[[core]]\ncpu = {cpu}\nlisteners = [{names}]\n");
    let cores =
        cpus.get(1).map(|second| tuned(cpus[0], "\"public\", \"second\"") + &tuned(*second, "\"second\""));
    let Some(text) = two_cores("auto", &format!("{listeners}{}", cores.unwrap_or_default())) else { return };
    let gateway = Gateway::start(&text);
    let mut open = connect(&gateway, "public", FEW);
    assert_eq!(counts(&open), [FEW, 0]);
    assert_eq!(gateway.figure("connections_handed_over"), 0);
    open.extend(connect(&gateway, "second", FEW));
    assert_eq!(counts(&open), [FEW, FEW]);
    open.extend(connect(&gateway, "public", FEW / 2));
    assert_eq!(counts(&open), [FEW + FEW / 2, FEW]);
}

#[test]
fn few_connections_are_refused_only_when_both_cores_are_full() {
    let Some(text) = two_cores("auto", "") else { return };
    let limited = text.replace("workers = 2\n", "workers = 2\nmax_connections = 4\non_full = \"reject\"\n");
    let gateway = Gateway::start(&limited);
    let open = connect(&gateway, "public", 8);
    assert_eq!(counts(&open), [4, 4]);
    let handed_over = gateway.figure("connections_handed_over");
    for _ in 0..8 {
        let mut client = gateway.connect();
        client.send(get("/"));
        assert_eq!(client.response().status, 503);
    }
    assert_eq!(gateway.figure("connections_handed_over"), handed_over);
}

/// Connects anew for each request until no one listens; how many were answered. A connection that brings no answer must
/// have come too late to be accepted.
fn ask_until_the_end(address: SocketAddr, answered: &AtomicUsize) {
    while let Ok(stream) = TcpStream::connect(address) {
        let mut client = Peer::new(stream);
        if client.try_send(get("/"))
            && let Some(head) = client.try_head()
        {
            assert_eq!(client.body_of(head).status, 200);
            answered.fetch_add(1, Ordering::SeqCst);
        }
    }
}

fn drains_while_connections_are_handed_over(driver: &str) {
    let Some(text) = two_cores(driver, "") else { return };
    let mut gateway = Gateway::start(&text);
    let idle = lopsided(&gateway, 0, FEW);
    let before = gateway.figure("connections_handed_over");
    let answered = AtomicUsize::new(0);
    let address = gateway.address();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| ask_until_the_end(address, &answered));
        }
        within("hand-overs", || (gateway.figure("connections_handed_over") > before + 20).then_some(()));
        gateway.signal("TERM");
    });
    assert_eq!(gateway.wait().code(), Some(0));
    for (_, mut client) in idle {
        assert!(client.is_ended());
    }
    assert_eq!(gateway.rest_of_log().len(), answered.load(Ordering::SeqCst), "nothing was served for no one");
}

#[test]
fn a_drain_serves_what_is_handed_over() {
    for _ in 0..3 {
        drains_while_connections_are_handed_over("auto");
    }
}

#[test]
fn a_drain_serves_what_is_handed_over_over_epoll() {
    drains_while_connections_are_handed_over("epoll");
}
