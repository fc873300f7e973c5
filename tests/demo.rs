//! `ringgate demo` as a newcomer meets it: every line of its banner does what it says, shows up live, and a taken port is
//! told plainly. The files in `config/` are good, and the README's two commands are there.
#![allow(clippy::disallowed_methods, reason = "tests run no data plane")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{
    collections::HashSet,
    io::Read,
    net::TcpListener,
    process::{Command, Output, Stdio},
};

use ringgate::server::demo::{Try, routes};
use support::{Gateway, PATIENCE, Peer, demo::Demo, field, repository, tempdir::TempDir};

fn ringgate(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ringgate")).args(arguments).output().unwrap()
}

/// Sends what a try's curl line sends, the `turn`th time.
fn send(peer: &mut Peer, demo: &Demo, tried: &Try, turn: u32) {
    let has_host = tried.headers.iter().any(|(name, _)| *name == "host");
    let mut head = match tried.times {
        1 => format!("{} {} HTTP/1.1\r\n", tried.method, tried.target),
        _ => format!("{} {}?try={turn} HTTP/1.1\r\n", tried.method, tried.target),
    };
    if !has_host {
        head.push_str(&format!("host: {}\r\n", demo.address));
    }
    for (name, value) in tried.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !tried.body.is_empty() {
        head.push_str(&format!("content-length: {}\r\n", tried.body.len()));
    }
    peer.send(format!("{head}\r\n{}", tried.body));
}

/// Reads as many bytes as there are, and keeps none.
fn count_bytes(peer: &mut Peer, count: usize) {
    let mut left = count - peer.inbox.len();
    peer.inbox.clear();
    let mut piece = vec![0; 1 << 20];
    while left > 0 {
        let room = left.min(piece.len());
        let got = peer.stream.read(&mut piece[..room]).unwrap();
        assert!(got > 0, "it ended {left} bytes too early");
        left -= got;
    }
}

/// The statuses of a try, sent as often as its line sends it, on one connection. What is special about its bodies is
/// looked at here.
fn statuses(demo: &Demo, tried: &Try) -> Vec<u16> {
    let mut peer = demo.connect();
    let mut statuses = Vec::new();
    for turn in 1..=tried.times {
        send(&mut peer, demo, tried, turn);
        let head = peer.head();
        let status = head[9..12].parse().unwrap();
        statuses.push(status);
        match tried.route {
            Some("websocket") => {
                // A text frame, masked with zeros, and its echo.
                peer.send(b"\x81\x82\0\0\0\0hi");
                assert_eq!(peer.exactly(4), b"\x81\x02hi");
            }
            Some("events") => {
                let events = String::from_utf8(peer.body_of(head).body).unwrap();
                assert_eq!(events.matches("data: event ").count(), 5, "{events}");
            }
            Some("broken") => {
                let length: usize = field(&head, "content-length").unwrap().parse().unwrap();
                assert!(peer.rest().len() < length, "a response cut short looks whole");
            }
            Some("bytes") => {
                let length = field(&head, "content-length").unwrap().parse().unwrap();
                assert_eq!(length, 1_000_000_000);
                count_bytes(&mut peer, length);
            }
            _ => {
                let closes = field(&head, "connection").as_deref() == Some("close");
                peer.body_of(head);
                if closes && turn < tried.times {
                    peer = demo.connect();
                }
            }
        }
    }
    statuses
}

#[test]
fn everything_the_banner_offers_is_answered_as_it_says_and_shown() {
    let demo = Demo::start();
    for tried in routes() {
        assert!(demo.banner.contains(&tried.curl(demo.address)), "{}", tried.curl(demo.address));
        let statuses = statuses(&demo, tried);
        let name = tried.route.unwrap_or("no route");
        assert!(statuses.iter().all(|status| tried.statuses.contains(status)), "{name}: {statuses:?}");
        // Each of them at least once: what is said to fail now and then does.
        let seen: HashSet<&u16> = statuses.iter().collect();
        assert_eq!(seen.len(), tried.statuses.len(), "{name}: {statuses:?}");
        for status in statuses {
            let line = demo.live.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no line for {name}"));
            let path = tried.target.split('?').next().unwrap();
            for word in [tried.method, path, &status.to_string()] {
                assert!(line.split_whitespace().any(|part| part == word), "`{word}` is not in: {line}");
            }
            assert!(line.contains(&format!(" {name} ")), "`{name}` is not in: {line}");
            assert!(!line.contains('\x1b'), "no colours but for a terminal: {line:?}");
        }
    }
    assert!(demo.end_by("INT").success());
}

/// The upstreams' names in the answers to a try, in order.
fn upstreams(demo: &Demo, route: &str) -> Vec<String> {
    let tried = routes().iter().find(|tried| tried.route == Some(route)).unwrap();
    let mut peer = demo.connect();
    let answers = (1..=tried.times).map(|turn| {
        send(&mut peer, demo, tried, turn);
        let report: serde_json::Value = serde_json::from_slice(&peer.response().body).unwrap();
        report["upstream"].as_str().unwrap().to_owned()
    });
    answers.collect()
}

#[test]
fn what_the_banner_says_of_balancing_is_to_be_seen() {
    let demo = Demo::start();
    // The order is fixed; where in it a core begins is not.
    let turns = ["plain-1", "plain-1", "plain-2", "plain-1", "plain-3", "plain-1", "plain-1"];
    let seen = upstreams(&demo, "user");
    let is_in_order = |begin| seen.iter().eq(turns.iter().cycle().skip(begin).take(turns.len()));
    assert!((0..turns.len()).any(is_in_order), "{seen:?}");
    let shop = upstreams(&demo, "shop");
    assert_eq!(shop.iter().filter(|name| *name == "canary").count(), 4, "20 % of 20: {shop:?}");
    let session: HashSet<String> = upstreams(&demo, "session").into_iter().collect();
    assert_eq!(session.len(), 1, "{session:?}");
    assert_eq!(upstreams(&demo, "search-beta"), ["canary"]);
}

#[test]
fn a_second_demo_runs_beside_the_first() {
    let first = Demo::start();
    let second = Demo::start();
    assert_ne!(first.address, second.address);
    for demo in [&first, &second] {
        assert_eq!(upstreams(demo, "me"), ["plain-1"]);
    }
    // Other tests run demos too: one that has all of the configuration's ports says nothing, the next one must.
    let is_told = |demo: &Demo| demo.banner.starts_with("Taken by another program: port ");
    assert!(is_told(&first) || is_told(&second), "{}", second.banner);
}

#[test]
fn a_taken_port_is_an_error_that_names_it() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = holder.local_addr().unwrap().to_string();
    let output = Demo::command(&address).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains(&format!("cannot listen on {address}")), "{error}");
    assert!(error.contains("another process listens there"), "{error}");
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(!said.contains("ringgate listens on"), "{said}");
}

#[test]
fn a_demo_on_all_addresses_names_one_to_reach() {
    let mut child = Demo::command("0.0.0.0:0").stderr(Stdio::null()).spawn().unwrap();
    let out = support::lines(child.stdout.take().unwrap());
    let listens = std::iter::from_fn(|| out.recv_timeout(PATIENCE).ok())
        .find(|line| line.starts_with("ringgate listens on http://"));
    child.kill().unwrap();
    child.wait().unwrap();
    let listens = listens.unwrap();
    assert!(listens.contains("http://127.0.0.1:") && !listens.contains(":0."), "{listens}");
}

#[test]
fn the_files_in_config_pass_check() {
    let dir = TempDir::new();
    // The files that the reference names are not there.
    let pair = rcgen::generate_simple_self_signed(["example.com".into()]).unwrap();
    let rsa = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap();
    let of_rsa = rcgen::CertificateParams::new(["example.com".into()]).unwrap().self_signed(&rsa).unwrap();
    for name in ["example.com", "gateway", "clients", "internal"] {
        std::fs::write(dir.path().join(name).with_added_extension("pem"), pair.cert.pem()).unwrap();
        std::fs::write(dir.path().join(name).with_added_extension("key"), pair.signing_key.serialize_pem())
            .unwrap();
    }
    std::fs::write(dir.path().join("example.com-rsa.pem"), of_rsa.pem()).unwrap();
    std::fs::write(dir.path().join("example.com-rsa.key"), rsa.serialize_pem()).unwrap();

    let user = "bob:$2y$10$zACPE4D.KHgquuxZkEDgAOy9Gh7gLV.a180ebHsIguzEVqCvorXj2\n";
    std::fs::write(dir.path().join("htpasswd"), user).unwrap();
    std::fs::write(dir.path().join("consumers.toml"), "[[consumer]]\nname = \"initech\"\n").unwrap();
    let of_dir = |text: &str| {
        let dir = dir.path().to_str().unwrap();
        text.replace("/etc/ringgate/tls", dir).replace("/etc/ringgate", dir)
    };

    for name in ["demo.toml", "reference.toml", "per-core.toml"] {
        let text = std::fs::read_to_string(repository("config").join(name)).unwrap();
        let file = dir.path().join(name);
        std::fs::write(&file, of_dir(&text)).unwrap();
        let output = ringgate(&["check", file.to_str().unwrap()]);
        let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{name}: {error}");
        assert!(out.contains(": good (") && error.is_empty(), "{name}: {out}{error}");
    }
}

#[test]
fn the_demos_file_runs_without_the_demo() {
    let text = std::fs::read_to_string(repository("config/demo.toml")).unwrap();
    assert_eq!(text.matches("\"127.0.0.1:8080\"").count(), 1);
    // On a free port, and before upstreams that are not there.
    let text = text.replace("127.0.0.1:8080", "127.0.0.1:0").replace("\"127.0.0.1:91", "\"127.0.0.2:91");
    let gateway = Gateway::start(&text);
    let mut client = gateway.connect();
    client.send("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.response().text(), "ok\n");
    client.send("GET /users/7 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!([502, 503].contains(&client.response().status));
    let line = gateway.log_line();
    assert_eq!((line["route"].as_str(), line["status"].as_u64()), (Some("health"), Some(200)));
}

#[test]
fn the_readmes_two_commands() {
    let readme = std::fs::read_to_string(repository("README.md")).unwrap();
    let lines: HashSet<&str> = readme.lines().map(|line| line.split('#').next().unwrap().trim()).collect();
    for command in ["cargo run --release -- demo", "scripts/test"] {
        assert!(lines.contains(command), "`{command}` is a line of the README");
    }
    assert!(repository("scripts/test").is_file());
}
