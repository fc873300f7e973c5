//! A core on the test's own thread, between clients and the ties to another core that the test plays.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use super::*;
use crate::{
    config::types::{Config, DriverChoice},
    table::{self, Table},
    tls::TicketKeys,
};

const CONFIG: &str = "
    [[listener]]
    name = 'public'
    address = '127.0.0.1:0'
    [[route]]
    name = 'here'
    respond = { body = 'still here' }
";

const DRIVERS: [DriverChoice; 2] = [DriverChoice::Auto, DriverChoice::Epoll];

/// A worker that has room for so many connections.
fn plan(max_connections: usize, on_full: OnFull) -> WorkerPlan {
    WorkerPlan {
        cpu: 0,
        driver: DriverChoice::Auto,
        ring_entries: 256,
        max_connections,
        max_handshakes: 16,
        on_full,
        buffers: 1024,
        listeners: vec![0],
    }
}

fn options() -> CoreOptions {
    let config: Config = toml::from_str(CONFIG).unwrap();
    let table: Table = table::compile(&config, &mut |_, fault| panic!("{fault:?}")).unwrap();
    let tickets = TicketKeys::generate().unwrap();
    CoreOptions {
        worker: 0,
        workers: 1,
        seed: 0,
        log: None,
        table,
        tickets,
        max_handshakes: 16,
        passwords: None,
    }
}

fn bind() -> BoundListener {
    net::bind("127.0.0.1:0".parse().unwrap(), 16, false, 1).unwrap().remove(0)
}

/// Opens a core.
fn open(plan: &WorkerPlan, bound: BoundListener, ties: Ties) -> Open {
    Open::new(plan, vec![(0, bound)], ties, options()).unwrap()
}

/// Two cores' ties: those of one that gives, and of one that takes.
fn tie_two(plan: &WorkerPlan) -> [Ties; 2] {
    tie(&[plan.clone(), plan.clone()]).unwrap().try_into().ok().unwrap()
}

/// A client's connection with a request on its way, and its other end as some core has accepted it.
async fn connection() -> (TcpStream, Accepted) {
    let bound = bind();
    let mut client = TcpStream::connect(bound.address).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    (client, Listener::new(bound).unwrap().accept().await.unwrap())
}

fn rest(mut client: TcpStream) -> String {
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    answer
}

/// Ticks until something is so.
async fn tick_until(serving: &Serving, ticker: &Ticker, mut is_so: impl FnMut(&Core) -> bool) {
    let core = &serving.core;
    let mut number = 0;
    while !is_so(core) {
        ticker.tick().await.unwrap();
        number += 1;
        core.tick(number);
        assert!(number < 1000, "waited in vain");
    }
}

fn promise(from: &Ties) -> Option<usize> {
    from.spread.promise(from.others.iter().map(|other| other.candidate))
}

/// Takes promises from now on, as a core does that serves.
fn stay_open(open: &Open) {
    std::mem::forget(open.serving.spread.open());
}

/// A core with one listener, in which the task of a connection panics; what a client gets there after that.
fn answer_after_a_panic(driver: DriverChoice) -> String {
    let bound = bind();
    let address = bound.address;
    let client = thread::spawn(move || {
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        rest(client)
    });
    let panics = net::run(driver, 256, 1024, |_| async {
        let plan = plan(1, OnFull::Wait);
        let ties = tie(std::slice::from_ref(&plan)).unwrap().remove(0);
        let Open { serving, ticker, .. } = open(&plan, bound, ties);
        // It has the only place, so the client comes in only if the panic gives it back.
        host(&serving, address, async { panic!("on purpose, in a test") });
        assert_eq!(serving.core.connections.get(), 1);
        net::spawn(accept(Rc::clone(&serving), Rc::clone(&serving.listeners[0])));
        let is_over = |core: &Core| core.figures().responses[1] > 0 && core.connections.get() == 0;
        tick_until(&serving, &ticker, is_over).await;
        serving.core.figures().counters.panics
    });
    assert_eq!(panics.unwrap(), 1);
    client.join().unwrap()
}

#[test]
fn a_panic_ends_one_connection_and_no_other() {
    for driver in DRIVERS {
        let answer = answer_after_a_panic(driver);
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("still here"), "{answer}");
    }
}

#[test]
fn a_connection_that_comes_behind_the_drain_is_served() {
    for driver in DRIVERS {
        let client = net::run(driver, 256, 1024, |_| async {
            let plan = plan(10, OnFull::Wait);
            let [giver, taker] = tie_two(&plan);
            let to_taker = taker.sender.clone();
            let open = open(&plan, bind(), taker);
            let core = Rc::clone(&open.serving.core);
            stay_open(&open);
            giver.spread.hold(2);
            assert_eq!(promise(&giver), Some(0));
            let (client, accepted) = connection().await;
            to_taker.send(Message::Drain { timeout_ms: 60_000 }).ok().unwrap();
            to_taker.send(Message::Connection { accepted, place: 0 }).ok().unwrap();
            open.serve().await;
            assert_eq!(core.figures().counters.connections_accepted, 1);
            assert_eq!(promise(&giver), None, "no one gives to a core that has ended");
            client
        });
        let answer = rest(client.unwrap()).to_lowercase();
        assert!(answer.contains("connection: close") && answer.ends_with("still here"), "{answer}");
    }
}

#[test]
fn the_drain_waits_for_a_promised_connection() {
    net::run(DriverChoice::Auto, 256, 1024, |_| async {
        let plan = plan(10, OnFull::Wait);
        let [giver, taker] = tie_two(&plan);
        let Open { serving, ticker, .. } = open(&plan, bind(), taker);
        let opened = serving.spread.open();
        giver.spread.hold(2);
        assert_eq!(promise(&giver), Some(0));
        net::spawn(accept(Rc::clone(&serving), Rc::clone(&serving.listeners[0])));
        serving.drain();
        tick_until(&serving, &ticker, |_| serving.listeners[0].listener.is_closed()).await;
        assert!(!serving.is_drained());
        giver.spread.break_promise(1);
        assert!(serving.is_drained());
        drop(opened);
    })
    .unwrap();
}

#[test]
fn what_another_core_has_no_room_for_is_kept() {
    net::run(DriverChoice::Auto, 256, 1024, |_| async {
        let plan = plan(10, OnFull::Wait);
        let [giver, taker] = tie_two(&plan);
        let to_taker = taker.sender.clone();
        let giver = open(&plan, bind(), giver);
        let taker = open(&plan, bind(), taker);
        stay_open(&taker);
        let (from, to) = (&giver.serving, &taker.serving);
        from.spread.hold(3);
        let (_client, accepted) = connection().await;
        let mut waiting = Vec::new();
        loop {
            let (answer, answered) = oneshot::channel();
            if to_taker.send(Message::Figures(answer)).is_err() {
                break;
            }
            waiting.push(answered);
        }
        let accepted = hand_over(from, &from.listeners[0], accepted).expect("its mailbox is full");
        assert!(!to.spread.is_promised_any());
        drop(taker.mailbox.receive().await);
        from.listeners[0].is_draining.set(true);
        let accepted = hand_over(from, &from.listeners[0], accepted).expect("who drains keeps what it has");
        from.listeners[0].is_draining.set(false);
        assert_eq!(from.core.figures().counters.connections_handed_over, 0);
        assert!(hand_over(from, &from.listeners[0], accepted).is_none());
        assert!(to.spread.is_promised_any());
        assert_eq!(from.core.figures().counters.connections_handed_over, 1);
    })
    .unwrap();
}

/// What a client gets on a core that became full while its connection was on the way there.
fn answer_of_a_core_that_became_full(on_full: OnFull) -> String {
    let client = net::run(DriverChoice::Auto, 256, 1024, |_| async {
        let plan = plan(1, on_full);
        let [giver, taker] = tie_two(&plan);
        let to_taker = taker.sender.clone();
        let open = open(&plan, bind(), taker);
        stay_open(&open);
        giver.spread.hold(2);
        assert_eq!(promise(&giver), Some(0));
        let Open { serving, mailbox, ticker } = open;
        host(&serving, serving_address(), std::future::pending());
        assert_eq!(promise(&giver), None, "it is full");
        let (client, accepted) = connection().await;
        to_taker.send(Message::Connection { accepted, place: 0 }).ok().unwrap();
        net::spawn(read_mailbox(Rc::clone(&serving), mailbox, Rc::new(Cell::new(None))));
        let client = thread::spawn(move || {
            client.shutdown(std::net::Shutdown::Write).unwrap();
            rest(client)
        });
        tick_until(&serving, &ticker, |_| client.is_finished()).await;
        assert!(!serving.spread.is_promised_any());
        let refused = serving.core.figures().counters.connections_refused;
        assert_eq!(refused, u64::from(on_full == OnFull::Reject));
        client
    });
    client.unwrap().join().unwrap()
}

fn serving_address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 1))
}

#[test]
fn a_full_core_refuses_what_comes_from_another_one_as_its_own() {
    assert!(answer_of_a_core_that_became_full(OnFull::Reject).starts_with("HTTP/1.1 503 "));
}

#[test]
fn a_full_core_that_lets_wait_serves_what_was_under_way() {
    assert!(answer_of_a_core_that_became_full(OnFull::Wait).starts_with("HTTP/1.1 200 "));
}
