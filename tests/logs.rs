//! The access log: what stands in a line, where lines go, and that no request waits for them.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests run no data plane")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
};

use support::{Gateway, Peer, Upstream, cluster, config, get, ok, post, tempdir::TempDir, within};

fn log_to(path: &Path, format: &str) -> String {
    format!("[access_log]\nformat = \"{format}\"\npath = \"{}\"\n", path.display())
}

/// A gateway that answers by itself, with this access log.
fn answering(log: &str) -> String {
    config("[[route]]\nname = \"here\"\nmatch = { path = \"/*\" }\nrespond = { body = \"yes\" }\n") + log
}

fn lines_of(file: &Path) -> Vec<String> {
    std::fs::read_to_string(file).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// Waits until a file has so many lines.
fn lines_when(file: &Path, count: usize) -> Vec<String> {
    let lines =
        within(&format!("{count} lines"), || Some(lines_of(file)).filter(|lines| lines.len() >= count));
    assert_eq!(lines.len(), count);
    lines
}

#[test]
fn a_line_says_what_happened() {
    let upstream = Upstream::saying("hello");
    let gateway = Gateway::start(&config(&cluster(&[upstream.address], "")));
    let mut client = gateway.connect();
    let client_port = client.stream.local_addr().unwrap().port();
    for number in 0..2 {
        let request = format!(
            "GET /a/./b?secret=1 HTTP/1.1\r\nHost: Example.com:80\r\nUser-Agent: test/{number}\r\nReferer: http://r/\r\n\r\n"
        );
        client.send(&request);
        let head = client.head();
        assert_eq!(client.exactly(5), b"hello");
        let line = gateway.log_line();
        for (key, value) in [
            ("client", "127.0.0.1"),
            ("method", "GET"),
            ("host", "Example.com:80"),
            ("path", "/a/b"),
            ("version", "1.1"),
            ("route", "all"),
            ("cluster", "all"),
            ("endpoint", &upstream.address.to_string()),
            ("user_agent", &format!("test/{number}")),
            ("referer", "http://r/"),
            ("end", "ok"),
        ] {
            assert_eq!(line[key], value, "{key} in {line}");
        }
        for (key, value) in [
            ("client_port", u64::from(client_port)),
            ("status", 200),
            ("tries", 1),
            ("core", 0),
            ("received_bytes", request.len() as u64),
            ("sent_bytes", head.len() as u64 + 5),
        ] {
            assert_eq!(line[key], value, "{key} in {line}");
        }
        assert_eq!(line["reused"], number == 1, "{line}");
        assert!(!line.to_string().contains("secret"), "a query does not belong into a log");
        let time = |key: &str| line[key].as_u64().unwrap_or_else(|| panic!("{key} in {line}"));
        let parts = time("gateway_us") + time("connect_us") + time("first_byte_us") + time("body_us");
        assert!(time("total_us") > 0 && parts <= time("total_us") + 3, "{line}");
        assert_eq!(time("connect_us") > 0, number == 0, "{line}");
        assert_eq!(line["request_id"].as_str().unwrap().len(), 36);
        assert!(line["time"].as_str().unwrap().ends_with('Z'));
    }
}

#[test]
fn the_request_id_is_the_one_sent_upstream_and_in_problems() {
    let upstream =
        Upstream::answering(|head, _| ok(support::field(head, "x-request-id").unwrap().as_bytes()));
    let gateway = Gateway::start(
        &(config(&cluster(&[upstream.address], ""))
            .replace("name = \"all\"\ncluster", "name = \"all\"\nmatch = { path = \"/up\" }\ncluster")),
    );
    let mut client = gateway.connect();
    client.send(get("/up"));
    let sent = client.response().text();
    assert_eq!(gateway.log_line()["request_id"], sent.as_str());
    client.send(get("/none"));
    let problem: serde_json::Value = serde_json::from_slice(&client.response().body).unwrap();
    let line = gateway.log_line();
    assert_eq!(line["request_id"], problem["request_id"]);
    assert_ne!(line["request_id"], sent.as_str());
    assert_eq!((line["status"].as_u64(), line["end"].as_str()), (Some(404), Some("no-route")));
    assert!(line.get("route").is_none() && line.get("endpoint").is_none(), "{line}");
    assert_eq!(line["tries"], 0);
}

#[test]
fn bytes_are_counted_as_they_went_over_the_wire() {
    let large = vec![b'l'; 300_000];
    let chunked = {
        let mut response = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for piece in large.chunks(10_000) {
            response.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
            response.extend_from_slice(piece);
            response.extend_from_slice(b"\r\n");
        }
        response.extend_from_slice(b"0\r\nx-sum: 7\r\n\r\n");
        response
    };
    let upstream = Upstream::answering(
        move |head, _| {
            if head.contains("/chunked") { chunked.clone() } else { ok(&large) }
        },
    );
    let gateway = Gateway::start(&config(&cluster(&[upstream.address], "")));
    let small = "PUT /small HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody".to_owned();
    let sized =
        format!("PUT /sized HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n{}", "x".repeat(200_000));
    let mut chunks = "PUT /chunked HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned();
    for _ in 0..30 {
        chunks += &format!("1388;ext=1\r\n{}\r\n", "y".repeat(5000));
    }
    chunks += "0\r\nx-trailer: 1\r\n\r\n";
    let (mut sent_all, mut received_all) = (0, 0);
    for request in [&small, &sized, &chunks, &small] {
        // The last one says how it ends, so that everything can be counted to the connection's end.
        let mut client = gateway.connect();
        let request = request.replace("Host: a", "Host: a\r\nConnection: close");
        client.send(&request);
        let received = client.rest();
        let line = gateway.log_line();
        assert_eq!(line["end"], "ok", "{line}");
        assert_eq!(line["received_bytes"], request.len() as u64, "{line}");
        assert_eq!(line["sent_bytes"], received.len() as u64, "{line}");
        sent_all += request.len() as u64;
        received_all += received.len() as u64;
    }
    // What belongs to two requests is counted once.
    let mut client = gateway.connect();
    client.send(small.clone() + &small);
    client.response();
    client.response();
    for _ in 0..2 {
        assert_eq!(gateway.log_line()["received_bytes"], small.len() as u64);
    }
    let figures = gateway.figures();
    assert_eq!(figures["downstream_bytes_received"], sent_all + 2 * small.len() as u64);
    assert!(figures["downstream_bytes_sent"] > received_all);
    assert!(figures["upstream_bytes_sent"] > 350_000, "{figures:?}");
    assert!(figures["upstream_bytes_received"] > 1_500_000, "{figures:?}");
}

#[test]
fn a_body_that_breaks_off_is_counted_as_far_as_it_came() {
    let upstream = Upstream::scripted(|mut peer, _| drop(peer.rest()));
    let gateway = Gateway::start(&config(&cluster(&[upstream.address], "")));
    let mut client = gateway.connect();
    let head = "PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n";
    client.send(head);
    client.send(vec![b'x'; 50_000]);
    client.finish();
    assert_eq!(client.response().status, 400);
    let line = gateway.log_line();
    assert_eq!((line["end"].as_str(), line["status"].as_u64()), (Some("body-truncated"), Some(400)));
    assert_eq!(line["received_bytes"], head.len() as u64 + 50_000);
}

#[test]
fn tunnel_bytes_are_counted() {
    let upstream = Upstream::scripted(|mut peer, _| {
        peer.head();
        peer.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
        assert_eq!(peer.exactly(4), b"ping");
        peer.send("longer pong");
        peer.finish();
        peer.rest();
    });
    let gateway = Gateway::start(&config(&cluster(&[upstream.address], "")));
    let mut client = gateway.connect();
    let request = "GET /t HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
    client.send(request);
    let head = client.head();
    client.send("ping");
    assert_eq!(client.rest(), b"longer pong");
    client.finish();
    let line = gateway.log_line();
    assert_eq!((line["status"].as_u64(), line["end"].as_str()), (Some(101), Some("ok")));
    assert_eq!(line["received_bytes"], (request.len() + 4) as u64);
    assert_eq!(line["sent_bytes"], (head.len() + 11) as u64);
}

#[test]
fn combined_to_a_file() {
    let dir = TempDir::new();
    let file = dir.path().join("access.log");
    let gateway = Gateway::start(&answering(&log_to(&file, "combined")));
    let mut client = gateway.connect();
    client.send("GET /x?y HTTP/1.1\r\nHost: a\r\nUser-Agent: evil\" \\ \r\nReferer: here\r\n\r\n");
    let sent = client.response();
    let line = lines_when(&file, 1).remove(0);
    assert!(line.starts_with("127.0.0.1 - - ["), "{line}");
    let bytes = sent.head.len() + sent.body.len();
    assert!(
        line.ends_with(&format!("] \"GET /x HTTP/1.1\" 200 {bytes} \"here\" \"evil\\x22 \\x5C\"")),
        "{line}"
    );
}

#[test]
fn every_request_has_one_line() {
    let dir = TempDir::new();
    let file = dir.path().join("access.log");
    let mut gateway = Gateway::start(&answering(&log_to(&file, "json")));
    let mut client = gateway.connect();
    for number in 0..3000 {
        client.send(get(&format!("/{number}")));
        assert_eq!(client.response().status, 200);
    }
    drop(client);
    gateway.signal("TERM");
    assert!(gateway.wait().success());
    let lines = lines_of(&file);
    assert_eq!(lines.len(), 3000, "the end writes what was not written yet");
    for (number, line) in lines.iter().enumerate() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["path"], format!("/{number}"));
    }
}

#[test]
fn a_renamed_file_is_reopened_on_sigusr1() {
    let dir = TempDir::new();
    let (file, old) = (dir.path().join("access.log"), dir.path().join("access.log.1"));
    let gateway = Gateway::start(&answering(&log_to(&file, "json")));
    let mut client = gateway.connect();
    client.send(get("/before"));
    client.response();
    lines_when(&file, 1);
    std::fs::rename(&file, &old).unwrap();
    client.send(get("/between"));
    client.response();
    lines_when(&old, 2);
    assert!(!file.exists());
    gateway.signal("USR1");
    within("the new file", || file.exists().then_some(()));
    client.send(get("/after"));
    client.response();
    let line = lines_when(&file, 1).remove(0);
    assert!(line.contains("/after"), "{line}");
    assert_eq!(lines_of(&old).len(), 2);
}

#[test]
fn a_file_that_cannot_be_reopened_stays_in_use() {
    let dir = TempDir::new();
    let folder = dir.path().join("logs");
    std::fs::create_dir(&folder).unwrap();
    let gateway = Gateway::start(&answering(&log_to(&folder.join("access.log"), "json")));
    let mut client = gateway.connect();
    let moved = dir.path().join("moved");
    std::fs::rename(&folder, &moved).unwrap();
    gateway.signal("USR1");
    gateway.message("cannot be reopened");
    client.send(get("/after"));
    client.response();
    lines_when(&moved.join("access.log"), 1);
}

#[test]
fn off_is_off() {
    let mut gateway = Gateway::start(&answering("[access_log]\nformat = \"off\"\n"));
    let mut client = gateway.connect();
    client.send(get("/"));
    assert_eq!(client.response().status, 200);
    assert_eq!(gateway.figure("log_lines"), 0);
    drop(client);
    gateway.signal("USR1");
    gateway.signal("TERM");
    assert!(gateway.wait().success());
    assert!(gateway.rest_of_log().is_empty());
}

#[test]
fn a_file_that_cannot_be_opened_is_a_reason_not_to_start() {
    let dir = TempDir::new();
    let file = dir.path().join("gateway.toml");
    std::fs::write(&file, answering(&log_to(&dir.path().join("no/such/access.log"), "json"))).unwrap();
    let run = Command::new(env!("CARGO_BIN_EXE_ringgate")).args(["run", "-c"]).arg(&file).output().unwrap();
    assert_eq!(run.status.code(), Some(1));
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(said.contains("access log") && said.contains("no/such/access.log"), "{said}");
}

/// Asks until lines are dropped. Every request is answered all the same.
fn drops_and_serves(gateway: &Gateway) -> u64 {
    let mut client = gateway.connect();
    let filler = "f".repeat(2000);
    let request = format!("GET /{filler} HTTP/1.1\r\nHost: a\r\nUser-Agent: {filler}\r\n\r\n");
    let mut requests = 0;
    within("dropped lines", || {
        for _ in 0..500 {
            client.send(&request);
            assert_eq!(client.response().status, 200);
            requests += 1;
        }
        (gateway.figure("log_dropped") > 0).then_some(())
    });
    requests
}

#[test]
fn a_full_pipe_drops_lines_and_stalls_no_request() {
    let mut gateway = Gateway::start_unread(&answering(""));
    let requests = drops_and_serves(&gateway);
    let dropped = gateway.figure("log_dropped");
    assert!(dropped < requests, "{dropped} of {requests}");
    // Once someone reads, everything that was not dropped is there, each line whole.
    gateway.read_log();
    for _ in 0..requests - dropped {
        assert_eq!(gateway.log_line()["status"], 200);
    }
    assert_eq!(gateway.figure("log_dropped"), dropped);
    let mut client = gateway.connect();
    client.send(get("/again"));
    client.response();
    assert_eq!(gateway.log_line()["path"], "/again");
}

#[test]
fn a_full_pipe_does_not_keep_the_gateway_from_ending() {
    let mut gateway = Gateway::start_unread(&answering(""));
    drops_and_serves(&gateway);
    gateway.signal("TERM");
    assert!(gateway.wait().success());
}

fn fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn a_pipe_without_a_reader_is_a_reason_not_to_start() {
    let dir = TempDir::new();
    let (file, pipe) = (dir.path().join("gateway.toml"), dir.path().join("pipe"));
    fifo(&pipe);
    std::fs::write(&file, answering(&log_to(&pipe, "json"))).unwrap();
    let mut run = Command::new("timeout")
        .args(["--signal=KILL", "20", env!("CARGO_BIN_EXE_ringgate"), "run", "-c"])
        .arg(&file)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(1));
}

#[test]
fn a_pipe_whose_reader_stalls_or_leaves_stalls_no_request() {
    let dir = TempDir::new();
    let pipe = dir.path().join("pipe");
    fifo(&pipe);
    // Opened for both, so that it waits for no one.
    let reader = std::fs::OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
    let gateway = Gateway::start(&answering(&log_to(&pipe, "json")));
    drops_and_serves(&gateway);
    drop(reader);
    gateway.message("cannot be written");
    let mut client = gateway.connect();
    client.send(get("/while-no-one-reads"));
    assert_eq!(client.response().status, 200);
    // A new reader gets the lines from now on.
    let reader = std::fs::OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
    let mut lines = BufReader::new(reader).lines();
    let mut asked = 0;
    let line = within("a line for the new reader", || {
        client.send(get("/again"));
        assert_eq!(client.response().status, 200);
        asked += 1;
        lines.next().unwrap().ok().filter(|line| line.contains("/again"))
    });
    assert!(asked >= 1 && line.ends_with('}'), "{line}");
}

#[test]
fn a_post_that_fails_over_counts_its_tries() {
    let (closed, _guard) = support::closed_port();
    let upstream = Upstream::saying("there");
    let gateway = Gateway::start(&config(&cluster(&[closed, upstream.address], "")));
    let mut client = gateway.connect();
    client.send(post("/", "body"));
    assert_eq!(client.response().text(), "there");
    let line = gateway.log_line();
    assert_eq!((line["tries"].as_u64(), line["end"].as_str()), (Some(2), Some("ok")));
    assert_eq!(line["endpoint"], upstream.address.to_string());
}

/// Reads standard error until a listener's address.
fn address_in(messages: &mut impl BufRead, listener: &str) -> SocketAddr {
    let mut line = String::new();
    loop {
        line.clear();
        assert!(messages.read_line(&mut line).unwrap() > 0, "no listener `{listener}`");
        if line.contains(&format!("listener=\"{listener}\"")) {
            return line.rsplit('=').next().unwrap().trim().parse().unwrap();
        }
    }
}

/// What the kernel keeps of a pipe that no one reads.
const PIPE_BYTES: usize = 64 * 1024;

#[test]
fn a_standard_error_that_no_one_reads_stalls_no_core() {
    let dir = TempDir::new();
    let file = dir.path().join("gateway.toml");
    let listeners = "[[listener]]\nname = \"announced\"\naddress = \"127.0.0.1:0\"\n\
                     proxy_protocol = { from = [\"127.0.0.0/8\"] }\n\
                     [[listener]]\nname = \"public\"\naddress = \"127.0.0.1:0\"\n";
    let rest = "[access_log]\nformat = \"off\"\n[runtime]\nworkers = 1\n\
                [[route]]\nname = \"here\"\nrespond = { body = \"yes\" }\n";
    std::fs::write(&file, format!("{listeners}{rest}")).unwrap();
    let mut gateway = Command::new(env!("CARGO_BIN_EXE_ringgate"))
        .args(["run", "-c", file.to_str().unwrap()])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut messages = BufReader::new(gateway.stderr.take().unwrap());
    let announced = address_in(&mut messages, "announced");
    let public = address_in(&mut messages, "public");
    let pid = gateway.id().to_string();
    let signal =
        |name: &str| assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());

    let mut client = Peer::connect(public);
    let mut answered = || {
        client.send(get("/"));
        assert_eq!(client.response().status, 200);
    };
    // The control plane fills the pipe, ...
    for _ in 0..400 {
        signal("QUIT");
        answered();
    }
    // ... and then a core has something to say.
    let mut unannounced = Peer::connect(announced);
    unannounced.send("GET / HTTP/1.1\r\n\r\n");
    assert!(unannounced.is_ended());
    answered();

    let mut said = String::new();
    let mut bytes_before = 0;
    while !said.contains("a connection is closed") {
        bytes_before += said.len();
        said.clear();
        assert!(messages.read_line(&mut said).unwrap() > 0);
    }
    assert!(bytes_before > PIPE_BYTES, "{bytes_before} bytes did not fill the pipe");
    signal("TERM");
    assert!(gateway.wait().unwrap().success());
}
