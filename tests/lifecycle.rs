//! From the start to the end of the process: cores, listeners, limits, and how it goes.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests run no data plane")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    process::Command,
    sync::{
        Arc, Barrier,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use support::{Gateway, Peer, Upstream, cluster, config, get, ok, post, tempdir::TempDir, within};

/// Answers by itself.
const HERE: &str = "[[route]]\nname = \"here\"\nmatch = { path = \"/*\" }\nrespond = { body = \"yes\" }\n";

fn workers() -> usize {
    thread::available_parallelism().unwrap().get().min(2)
}

/// With these lines in `[runtime]`.
fn runtime(lines: &str, rest: &str) -> String {
    config(rest).replace("workers = 1\n", &format!("workers = 1\n{lines}\n"))
}

fn asks(client: &mut Peer) -> u16 {
    client.send(get("/"));
    client.response().status
}

/// Runs with a configuration that is refused: what it says.
fn refused_start(text: &str) -> String {
    let dir = TempDir::new();
    let file = dir.path().join("gateway.toml");
    std::fs::write(&file, text).unwrap();
    let run = Command::new("timeout")
        .args(["--signal=KILL", "20", env!("CARGO_BIN_EXE_ringgate"), "run", "-c"])
        .arg(&file)
        .output()
        .unwrap();
    assert_eq!(run.status.code(), Some(1), "{run:?}");
    String::from_utf8(run.stderr).unwrap()
}

#[test]
fn one_line_per_core_at_the_start() {
    let text = config(HERE).replace("workers = 1", "workers = \"auto\"")
        + "[[listener]]\nname = \"second\"\naddress = \"127.0.0.1:0\"\n";
    let gateway = Gateway::start(&text);
    let lines: Vec<_> = gateway.start_messages.iter().filter(|line| line.contains("core started")).collect();
    assert_eq!(lines.len(), thread::available_parallelism().unwrap().get());
    let mut cpus: Vec<_> = lines
        .iter()
        .map(|line| {
            assert!(line.contains("driver=io_uring (") || line.contains("driver=epoll ("), "{line}");
            assert!(line.contains("listeners=\"public,second\""), "{line}");
            line.split("cpu=").nth(1).unwrap().split(' ').next().unwrap()
        })
        .collect();
    cpus.dedup();
    assert_eq!(cpus.len(), lines.len(), "each on its own: {cpus:?}");
    // And pinned there: each thread may use its CPU alone.
    let mut pinned = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{}/task", gateway.pid())).unwrap() {
        let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let of =
            |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).unwrap().trim().to_owned();
        if let Some(cpu) = of("Name:").strip_prefix("core-") {
            assert_eq!(of("Cpus_allowed_list:"), cpu);
            pinned.push(cpu.to_owned());
        }
    }
    pinned.sort();
    cpus.sort_unstable();
    assert_eq!(pinned, cpus);
}

#[test]
fn a_core_serves_the_listeners_it_is_told() {
    // On a machine of one CPU both listeners are that one's.
    let cpus: Vec<usize> = core_affinity::get_core_ids().unwrap().iter().map(|core| core.id).collect();
    let (first, last) = (cpus[0], cpus[workers() - 1]);
    let tuned = if first == last {
        format!("[[core]]\ncpu = {first}\nlisteners = [\"second\", \"public\"]\n")
    } else {
        format!(
            "[[core]]\ncpu = {first}\nlisteners = [\"public\"]\n[[core]]\ncpu = {last}\nlisteners = [\"second\"]\n"
        )
    };
    let upstream = Upstream::saying("x");
    let text = config("").replace("workers = 1", &format!("workers = {}", workers()))
        + "[[listener]]\nname = \"second\"\naddress = \"127.0.0.1:0\"\n"
        + &tuned
        + &cluster(&[upstream.address], "");
    let gateway = Gateway::start(&text);
    for (listener, core) in [("public", 0), ("second", workers() - 1)] {
        for _ in 0..10 {
            let mut client = Peer::new(TcpStream::connect(gateway.address_of(listener)).unwrap());
            assert_eq!(asks(&mut client), 200);
            assert_eq!(gateway.log_line()["core"], core, "{listener}");
        }
    }
    let started = gateway.start_messages.iter().filter(|line| line.contains("core started"));
    assert_eq!(started.count(), workers());
}

#[test]
fn a_core_that_does_not_exist_is_refused() {
    let said = refused_start(&(config(HERE) + "[[core]]\ncpu = 4000\n"));
    assert!(said.contains("cpu = 4000"), "{said}");
    let said = refused_start(&config(HERE).replace("workers = 1", "workers = 1024"));
    assert!(said.contains("runtime.workers is 1024"), "{said}");
}

#[test]
fn a_taken_port_is_refused() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap();
    let at = |address: SocketAddr| config(HERE).replace("127.0.0.1:0", &address.to_string());
    let said = refused_start(&at(address));
    assert!(said.contains("listener `public`") && said.contains(&address.to_string()), "{said}");
    assert!(said.contains("another process listens there"), "{said}");
    // Another gateway, whose sockets have SO_REUSEPORT, is another process all the same.
    let gateway = Gateway::start(&config(HERE));
    let said = refused_start(&at(gateway.address()));
    assert!(said.contains("another process listens there"), "{said}");
    assert_eq!(asks(&mut gateway.connect()), 200);
}

#[test]
fn a_restart_on_the_same_port_works_at_once() {
    let mut gateway = Gateway::start(&config(HERE));
    let address = gateway.address();
    let mut client = gateway.connect();
    assert_eq!(asks(&mut client), 200);
    gateway.signal("TERM");
    assert!(gateway.wait().success());
    let again = Gateway::start(&config(HERE).replace("127.0.0.1:0", &address.to_string()));
    assert_eq!(asks(&mut again.connect()), 200);
}

/// Drains an idle gateway: its kept connection is closed cleanly, and it ends with 0.
fn drains_idle(signal: &str) {
    let mut gateway = Gateway::start(&config(HERE));
    let mut idle = gateway.connect();
    assert_eq!(asks(&mut idle), 200);
    let mut silent = gateway.connect();
    gateway.signal(signal);
    assert!(idle.is_ended() && silent.is_ended());
    assert_eq!(gateway.wait().code(), Some(0), "{signal}");
}

#[test]
fn sigterm_and_sigint_drain() {
    drains_idle("TERM");
    drains_idle("INT");
}

/// Waits until the gateway no longer listens.
fn wait_for_drain(gateway: &Gateway) {
    within("the listener is closed", || TcpStream::connect(gateway.address()).is_err().then_some(()));
}

#[test]
fn an_idle_connection_may_bring_one_more_request_while_draining() {
    let mut gateway = Gateway::start(&config(HERE));
    let mut client = gateway.connect();
    assert_eq!(asks(&mut client), 200);
    gateway.signal("TERM");
    wait_for_drain(&gateway);
    client.send(get("/"));
    let response = client.response();
    assert_eq!((response.status, response.field("connection").as_deref()), (200, Some("close")));
    assert!(client.is_ended());
    assert!(gateway.wait().success());
}

#[test]
fn what_is_under_way_is_finished_and_nothing_new_is_taken() {
    let (upstream, mut asked) = Upstream::asking();
    let mut gateway = Gateway::start(&config(&cluster(&[upstream.address], "")));
    let mut waiting = gateway.connect();
    waiting.send(get("/waiting"));
    let question = asked.question();
    let mut sending = gateway.connect();
    sending.send("POST /sending HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\nhalf");
    gateway.wait_for_figure("exchanges_active", 2);
    gateway.signal("TERM");
    wait_for_drain(&gateway);
    sending.send("half");
    let body = asked.question();
    assert_eq!(body.body, b"halfhalf");
    body.ok("sent");
    question.part("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nlate");
    assert!(support::field(&waiting.head(), "connection").is_some_and(|value| value == "close"));
    question.part("late");
    question.end();
    assert_eq!(waiting.rest(), b"latelate");
    let response = sending.response();
    assert_eq!((response.text().as_str(), response.field("connection").as_deref()), ("sent", Some("close")));
    assert!(sending.is_ended());
    assert_eq!(gateway.wait().code(), Some(0));
}

#[test]
fn a_drain_has_an_end() {
    let (upstream, mut asked) = Upstream::asking();
    let text = runtime("drain_timeout = \"200ms\"", &cluster(&[upstream.address], ""));
    let mut gateway = Gateway::start(&text);
    let mut client = gateway.connect();
    client.send(get("/"));
    let _question = asked.question();
    gateway.signal("TERM");
    // The client is told, and so is the log.
    let response = client.response();
    assert_eq!((response.status, response.field("connection").as_deref()), (503, Some("close")));
    assert!(response.text().contains("urn:ringgate:problem:drained"));
    assert!(client.is_ended());
    assert_eq!(gateway.log_line()["end"], "drained");
    assert_eq!(gateway.wait().code(), Some(0));
}

#[test]
fn a_second_signal_stops_at_once() {
    let (upstream, mut asked) = Upstream::asking();
    let text = runtime("drain_timeout = \"1h\"", &cluster(&[upstream.address], ""));
    let mut gateway = Gateway::start(&text);
    let mut client = gateway.connect();
    client.send(get("/"));
    let _question = asked.question();
    gateway.signal("TERM");
    gateway.message("draining");
    gateway.signal("TERM");
    gateway.message("stopping at once");
    assert_eq!(client.response().status, 503);
    assert!(client.is_ended());
    assert_eq!(gateway.wait().code(), Some(0));
}

/// What happened to the requests of one client.
#[derive(Default)]
struct Tally {
    answered: usize,
    lost: usize,
}

/// Asks on one connection until it is told that it is the last; or, if `anew`, on ever new ones until one is refused.
fn ask_until_the_end(address: SocketAddr, barrier: &Barrier, anew: bool) -> Tally {
    let mut tally = Tally::default();
    loop {
        let Ok(stream) = TcpStream::connect(address) else { return tally };
        let mut client = Peer::new(stream);
        for number in 0.. {
            let request = if number % 3 == 0 { post("/", &"x".repeat(20_000)) } else { get("/") };
            let is_sent = client.try_send(&request);
            let Some(head) = client.try_head() else {
                // A connection that was never served may be one that was never accepted.
                tally.lost += usize::from(is_sent && number > 0);
                return tally;
            };
            let response = client.body_of(head);
            assert_eq!(response.status, 200, "{}", response.text());
            tally.answered += 1;
            if tally.answered == 1 {
                barrier.wait();
            }
            if response.field("connection").as_deref() == Some("close") {
                assert!(client.is_ended());
                if !anew {
                    return tally;
                }
                break;
            }
            if anew && number == 8 {
                break;
            }
        }
    }
}

fn sigterm_under_load(driver: &str) {
    const CLIENTS: usize = 16;
    let served = Arc::new(AtomicUsize::new(0));
    let upstream = Upstream::answering({
        let served = Arc::clone(&served);
        move |_, _| {
            served.fetch_add(1, Ordering::SeqCst);
            ok(b"fine")
        }
    });
    let text = runtime(&format!("driver = \"{driver}\""), &cluster(&[upstream.address], ""))
        .replace("workers = 1", &format!("workers = {}", workers()));
    let mut gateway = Gateway::start(&text);
    let barrier = Arc::new(Barrier::new(CLIENTS + 1));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let (barrier, address) = (Arc::clone(&barrier), gateway.address());
            thread::spawn(move || ask_until_the_end(address, &barrier, number % 4 == 0))
        })
        .collect();
    barrier.wait();
    within("some load", || (served.load(Ordering::SeqCst) > 500).then_some(()));
    gateway.signal("TERM");
    let tallies: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    assert_eq!(gateway.wait().code(), Some(0));
    let (answered, lost) =
        tallies.iter().fold((0, 0), |(answered, lost), tally| (answered + tally.answered, lost + tally.lost));
    assert_eq!(lost, 0, "of {answered}");
    assert_eq!(served.load(Ordering::SeqCst), answered, "nothing was served for no one");
    assert_eq!(gateway.rest_of_log().len(), answered, "every request has its line");
}

#[test]
fn sigterm_under_load_loses_no_request() {
    for _ in 0..3 {
        sigterm_under_load("auto");
    }
}

#[test]
fn sigterm_under_load_loses_no_request_over_epoll() {
    sigterm_under_load("epoll");
}

#[test]
fn connections_beyond_the_limit_wait() {
    let gateway = Gateway::start(&runtime("max_connections = 2", HERE));
    let mut first = gateway.connect();
    let mut second = gateway.connect();
    assert_eq!((asks(&mut first), asks(&mut second)), (200, 200));
    let mut third = gateway.connect();
    third.send(get("/"));
    let mut fourth = gateway.connect();
    fourth.send(get("/"));
    // One accept was under way when the core became full, so one more may be in; never two.
    assert_eq!((asks(&mut first), asks(&mut second)), (200, 200));
    assert!(gateway.figure("connections_active") <= 3);
    drop((first, second));
    assert_eq!((third.response().status, fourth.response().status), (200, 200));
    assert_eq!(gateway.figure("connections_refused"), 0);
}

#[test]
fn connections_beyond_the_limit_are_told_so() {
    let gateway = Gateway::start(&runtime("max_connections = 2\non_full = \"reject\"", HERE));
    let mut first = gateway.connect();
    let mut second = gateway.connect();
    assert_eq!((asks(&mut first), asks(&mut second)), (200, 200));
    for size in [0, 100_000] {
        let mut third = gateway.connect();
        // Even who has sent much gets to read the answer.
        third.try_send(post("/", &"x".repeat(size)));
        let response = third.response();
        let problem: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
        assert_eq!(
            (response.status, problem["type"].as_str()),
            (503, Some("urn:ringgate:problem:overloaded"))
        );
        assert_eq!(response.field("connection").as_deref(), Some("close"));
        let _ = third.stream.shutdown(Shutdown::Write);
        assert!(third.is_ended());
    }
    assert_eq!(gateway.figure("connections_refused"), 2);
    drop(second);
    gateway.wait_for_figure("connections_active", 1);
    assert_eq!(asks(&mut gateway.connect()), 200);
}

#[test]
fn out_of_descriptors_it_rests_and_recovers() {
    let gateway = Gateway::start_limited(&config(HERE), 40);
    let mut kept = gateway.connect();
    assert_eq!(asks(&mut kept), 200);
    let crowd: Vec<_> = (0..60).map(|_| gateway.connect()).collect();
    gateway.message("cannot accept; resting");
    let ticks = gateway.processor_ticks();
    let errors = gateway.figure("accept_errors");
    assert!(errors > 0);
    // Ten more rests, a tenth of a second each: spinning would use all of that time.
    within("ten more rests", || (gateway.figure("accept_errors") >= errors + 10).then_some(()));
    let used = gateway.processor_ticks() - ticks;
    assert!(used < 60, "{used} hundredths of a second");
    assert_eq!(asks(&mut kept), 200, "open connections go on");
    drop(crowd);
    let mut late = gateway.connect();
    assert_eq!(asks(&mut late), 200);
}

#[test]
fn out_of_descriptors_no_endpoint_is_blamed() {
    let (upstream, mut asked) = Upstream::asking();
    let keys = "eject = { failures = 1, backoff = \"1h\", max_backoff = \"1h\" }\n";
    let other = Upstream::saying("other");
    let gateway = Gateway::start_limited(&config(&cluster(&[upstream.address, other.address], keys)), 40);
    // All but the last few descriptors go to clients; then requests need connections.
    let mut kept: Vec<_> = (0..60).map(|_| gateway.connect()).collect();
    gateway.message("cannot accept; resting");
    let mut client = kept.remove(0);
    client.send(get("/"));
    let response = client.response();
    let problem: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
    assert_eq!((response.status, problem["type"].as_str()), (503, Some("urn:ringgate:problem:no-socket")));
    assert_eq!(gateway.figure("ejections"), 0);
    drop(kept);
    let mut client = gateway.connect();
    // Both are there.
    let mut answers = Vec::new();
    for _ in 0..2 {
        client.send(get("/"));
        answers.push(within("an answer or a question", || {
            if asked.has_question() {
                asked.question().ok("asked");
            }
            client.stream.set_nonblocking(true).unwrap();
            let came = client.stream.peek(&mut [0]).is_ok();
            client.stream.set_nonblocking(false).unwrap();
            came.then(|| client.response().text())
        }));
    }
    answers.sort();
    assert_eq!(answers, ["asked", "other"]);
}

#[test]
fn out_of_buffers_is_a_503() {
    let (upstream, mut asked) = Upstream::asking();
    let text = runtime("buffers = 64", &cluster(&[upstream.address], ""));
    let gateway = Gateway::start(&text);
    // Every exchange holds some; beyond the budget a request is told so, and not cut off.
    let mut held = Vec::new();
    let refused = within("a refusal", || {
        let mut client = gateway.connect();
        client.send(get("/"));
        within("an answer or a question", || {
            if asked.has_question() {
                return Some(None);
            }
            client.stream.set_nonblocking(true).unwrap();
            let came = client.stream.peek(&mut [0]).is_ok();
            client.stream.set_nonblocking(false).unwrap();
            came.then(|| Some(client.response()))
        })
        .or_else(|| {
            held.push((std::mem::replace(&mut client, gateway.connect()), asked.question()));
            None
        })
    });
    let problem: serde_json::Value = serde_json::from_slice(&refused.body).unwrap();
    assert_eq!((refused.status, problem["type"].as_str()), (503, Some("urn:ringgate:problem:no-buffer")));
    assert!(!held.is_empty() && held.len() <= 64, "{}", held.len());
    assert!(gateway.figure("buffers_exhausted") > 0);
    // A response needs a buffer too: the refused connection gives its own back first.
    within("room for a response", || (gateway.figure("buffers_active") <= 60).then_some(()));
    for (client, question) in &mut held {
        question.part(ok(b"held"));
        assert_eq!(client.response().text(), "held");
    }
    drop(held);
    within("it serves again", || {
        let mut client = gateway.connect();
        client.send(get("/"));
        within("an answer or a question", || {
            if asked.has_question() {
                asked.question().ok("again");
            }
            client.stream.set_nonblocking(true).unwrap();
            let came = client.stream.peek(&mut [0]).is_ok();
            client.stream.set_nonblocking(false).unwrap();
            came.then(|| client.response().status)
        })
        .eq(&200)
        .then_some(())
    });
}

#[test]
fn epoll_serves_the_same() {
    let upstream = Upstream::scripted(|mut peer, _| {
        while let Some(head) = peer.try_head() {
            if head.contains("upgrade") {
                peer.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
                while let Some(line) = peer.try_until(b"\n") {
                    peer.send(line);
                }
                peer.finish();
                return;
            }
            let body = support::request_body(&mut peer, &head);
            if head.contains("/chunked") {
                peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
                for piece in body.chunks(7000) {
                    peer.send(format!("{:x}\r\n", piece.len()));
                    peer.send(piece);
                    peer.send("\r\n");
                }
                peer.send("0\r\n\r\n");
            } else {
                peer.send(ok(&body));
            }
        }
    });
    let gateway = Gateway::start(&runtime("driver = \"epoll\"", &cluster(&[upstream.address], "")));
    assert!(
        gateway.start_messages.iter().any(|line| line.contains("driver=epoll (chosen by runtime.driver)"))
    );
    let mut client = gateway.connect();
    let body = "0123456789abcdef".repeat(40_000);
    for path in ["/sized", "/chunked", "/sized"] {
        client.send(get(path));
        assert_eq!(client.response().body, b"");
        let (mut sender, request) = (client.stream.try_clone().unwrap(), post(path, &body));
        let sending =
            thread::spawn(move || std::io::Write::write_all(&mut sender, request.as_bytes()).unwrap());
        assert!(client.response().body == body.as_bytes(), "{path}");
        sending.join().unwrap();
    }
    // Pipelined.
    client.send(get("/1") + &post("/2", "two") + &get("/3"));
    let texts: Vec<_> = (0..3).map(|_| client.response().text()).collect();
    assert_eq!(texts, ["", "two", ""]);
    assert_eq!(upstream.accepted(), 1, "kept alive");
    let mut client = gateway.connect();
    client.send("GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
    assert!(client.head().starts_with("HTTP/1.1 101 "));
    client.send("one\n");
    assert_eq!(client.until(b"\n"), b"one\n");
    client.send("two\n");
    client.finish();
    assert_eq!(client.rest(), b"two\n");
    let figures = gateway.figures();
    assert_eq!((figures["upgrades"], figures.get("panics")), (1, None));
}

#[test]
fn epoll_drains() {
    let (upstream, mut asked) = Upstream::asking();
    let mut gateway = Gateway::start(&runtime("driver = \"epoll\"", &cluster(&[upstream.address], "")));
    let mut idle = gateway.connect();
    let mut client = gateway.connect();
    client.send(get("/"));
    let question = asked.question();
    gateway.signal("TERM");
    wait_for_drain(&gateway);
    assert!(idle.is_ended());
    question.ok("late");
    let response = client.response();
    assert_eq!((response.text().as_str(), response.field("connection").as_deref()), ("late", Some("close")));
    assert_eq!(gateway.wait().code(), Some(0));
}

/// Scripts that renew certificates send it, and a terminal that closes does.
#[test]
fn a_hangup_ends_nothing_and_is_explained() {
    let gateway = Gateway::start(&config(HERE));
    gateway.signal("HUP");
    gateway.message("SIGHUP changes nothing");
    let mut client = gateway.connect();
    client.send(get("/"));
    assert_eq!(client.response().text(), "yes");
}
