//! TLS on both sides of the real binary: against rustls by hand, which says where records begin and end and sees how a
//! connection ended; against curl; and against sslyze, which judges what is offered.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests run no data plane")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{
    collections::HashSet,
    io::Write,
    net::{Shutdown, SocketAddr, TcpStream},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::channel,
    },
    thread,
    time::Duration,
};

use rustls::{
    AlertDescription, ClientConfig, Error as TlsError, ProtocolVersion, ServerConfig, SignatureScheme,
};
use support::{
    Gateway, Peer, Upstream, all_received, all_to_with, cluster, config, field, get,
    mint::{Files, Mint, Pair},
    ok, post, repository, request_body,
    secure::{
        BOTH_VERSIONS, CHANGE_CIPHER_SPEC, Client, DATA, EACH_VERSION, Ending, HANDSHAKE, Raw, Versions,
        hello, server,
    },
    within,
};

const MIB: usize = 1024 * 1024;
const DRIVERS: [&str; 2] = ["auto", "epoll"];

/// Answers by itself.
const HERE: &str =
    "[[route]]\nname = \"here\"\nmatch = { path = \"/*\" }\nrespond = { body = \"yes, by {scheme}\" }\n";

/// An authority, a certificate of it for `a.test`, and a place for files.
struct Ground {
    root: Mint,
    pair: Pair,
    files: Files,
}

impl Ground {
    fn new() -> Self {
        let root = Mint::new("root");
        let pair = root.pair(&["a.test"]);
        Self { root, pair, files: Files::new() }
    }

    /// The key that makes a listener speak TLS, with more keys in it.
    fn listener(&self, more: &str) -> String {
        secured(&[self.files.pair("a", &self.pair)], more)
    }

    fn client(&self) -> Client {
        Client::of(&self.root)
    }

    fn root_file(&self) -> String {
        self.files.write("root.pem", &self.root.cert)
    }
}

fn secured(pairs: &[String], more: &str) -> String {
    format!("tls = {{ certificates = [{}]{more} }}", pairs.join(", "))
}

/// The same configuration on this driver.
fn on(driver: &str, config: &str) -> String {
    config.replacen("workers = 1\n", &format!("workers = 1\ndriver = \"{driver}\"\n"), 1)
}

/// Shakes hands with the gateway.
fn try_secure(gateway: &Gateway, client: &Arc<ClientConfig>, name: &str) -> Result<Peer, Ending> {
    gateway.connect().secured(client, name)
}

fn secure(gateway: &Gateway, client: &Arc<ClientConfig>) -> Peer {
    try_secure(gateway, client, "a.test").unwrap()
}

/// One exchange with an upstream that answers with the path, or a gateway that answers by itself.
fn ask(client: &mut Peer, path: &str) -> String {
    client.send(get(path));
    let response = client.response();
    assert_eq!(response.status, 200, "{}{}", response.head, response.text());
    response.text()
}

/// Comes anew until it is let in and answered: on a busy machine a short deadline may pass first.
fn come_and_ask(address: SocketAddr, client: &Arc<ClientConfig>) -> String {
    within("someone who comes is served", || {
        let mut client = Peer::connect(address).secured(client, "a.test").ok()?;
        client.try_send(get("/"));
        let head = client.try_head()?;
        Some(client.body_of(head).text())
    })
}

/// An upstream that answers with the body it got, or with the path when there was none; chunked when it was asked so.
fn echo() -> Upstream {
    Upstream::answering(echoed)
}

fn echoed(head: &str, body: &[u8]) -> Vec<u8> {
    if head.starts_with("HEAD ") {
        return b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n".to_vec();
    }
    let body = if body.is_empty() { head.split(' ').nth(1).unwrap().as_bytes() } else { body };
    if field(head, "transfer-encoding").is_none() {
        return ok(body);
    }
    let mut answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    answer.extend(chunks(body));
    answer
}

fn chunks(body: &[u8]) -> Vec<u8> {
    let mut chunks = Vec::new();
    for chunk in body.chunks(50_000) {
        chunks.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
        chunks.extend_from_slice(chunk);
        chunks.extend(b"\r\n");
    }
    chunks.extend(b"0\r\n\r\n");
    chunks
}

fn body(length: usize) -> Vec<u8> {
    let mut body = (0..251).collect::<Vec<u8>>().repeat(length / 251 + 1);
    body.truncate(length);
    body
}

fn upload(body: &[u8], is_chunked: bool) -> Vec<u8> {
    let mut request = b"POST /up HTTP/1.1\r\nHost: a.test\r\n".to_vec();
    if is_chunked {
        request.extend(b"Transfer-Encoding: chunked\r\n\r\n");
        request.extend(chunks(body));
    } else {
        request.extend(format!("Content-Length: {}\r\n\r\n", body.len()).into_bytes());
        request.extend_from_slice(body);
    }
    request
}

/// An upstream that speaks TLS. `answer` sees the connection that a request came by.
fn secured_upstream(
    config: &Arc<ServerConfig>,
    answer: impl Fn(&Peer, &str, &[u8]) -> Vec<u8> + Send + Sync + 'static,
) -> Upstream {
    let config = Arc::clone(config);
    Upstream::scripted(move |peer, _| {
        if let Ok(peer) = peer.serving(&config) {
            answer_all(peer, &answer);
        }
    })
}

fn answer_all(mut peer: Peer, answer: impl Fn(&Peer, &str, &[u8]) -> Vec<u8>) {
    while let Some(head) = peer.try_head() {
        let body = request_body(&mut peer, &head);
        let bytes = answer(&peer, &head, &body);
        if !peer.try_send(bytes) {
            return;
        }
    }
}

/// No connection is left, and no buffer of one.
fn nothing_is_left(gateway: &Gateway) {
    for figure in ["connections_active", "exchanges_active"] {
        within(&format!("no {figure}"), || (gateway.figure(figure) == 0).then_some(()));
    }
    // On epoll a receive that waits has its buffer, and a kept connection to an endpoint has a receive that waits.
    let is_on_epoll = gateway.start_messages.iter().any(|line| line.contains("driver=epoll"));
    within("no buffer in use", || {
        let figures = gateway.figures();
        let kept = figures.get("upstream_connections_active").filter(|_| is_on_epoll);
        (figures.get("buffers_active").unwrap_or(&0) <= kept.unwrap_or(&0)).then_some(())
    });
    assert_eq!(gateway.figure("panics"), 0);
}

fn end_of(gateway: &Gateway) -> String {
    gateway.log_line()["end"].as_str().unwrap().to_owned()
}

/// What one request to a gateway without TLS gets, and the log's word for it.
fn outcome(gateway: &Gateway, request: &str) -> (u16, String) {
    let mut client = gateway.connect();
    client.send(request);
    let response = client.response();
    let end = end_of(gateway);
    if response.status >= 500 {
        assert!(response.text().contains(&format!("urn:ringgate:problem:{end}")), "{}", response.text());
    }
    (response.status, end)
}

fn curl(ground: &Ground, gateway: &Gateway) -> Command {
    let port = gateway.address().port();
    let mut curl = Command::new("curl");
    curl.args(["--disable", "--silent", "--show-error", "--max-time", "60", "--noproxy", "*", "--http1.1"]);
    curl.args(["--resolve", &format!("a.test:{port}:127.0.0.1"), "--cacert", &ground.root_file()]);
    curl
}

fn url(gateway: &Gateway, path: &str) -> String {
    format!("https://a.test:{}{path}", gateway.address().port())
}

// What clients get.

#[test]
fn curl_by_each_version() {
    let ground = Ground::new();
    let upstream = Upstream::answering(|head, _| ok(head.as_bytes()));
    let rest = HERE.replace("/*", "/here") + &cluster(&[upstream.address], "");
    let text = config(&(ground.listener("") + "\n" + &rest));
    for driver in DRIVERS {
        let gateway = Gateway::start(&on(driver, &text));
        for version in ["1.2", "1.3"] {
            let run = |path: &str| {
                let mut curl = curl(&ground, &gateway);
                curl.args([&format!("--tlsv{version}"), "--tls-max", version, &url(&gateway, path)]);
                let out = curl.output().expect("curl, by `scripts/install-tools --tests`");
                assert!(out.status.success(), "{out:?}");
                String::from_utf8(out.stdout).unwrap()
            };
            assert_eq!(run("/here"), "yes, by https");
            let head = run("/there");
            assert_eq!(field(&head, "x-forwarded-proto").as_deref(), Some("https"), "{head}");
            assert!(field(&head, "forwarded").unwrap().contains("proto=https"), "{head}");
            assert_eq!(run("/here?[1-20]"), "yes, by https".repeat(20));
        }
        // One connection for each of the twenty.
        assert_eq!(gateway.figure("handshakes"), 6);
        assert_eq!(gateway.figure("handshakes_failed"), 0);
    }
}

#[test]
fn curl_sends_and_gets_large_bodies() {
    let ground = Ground::new();
    let upstream = echo();
    let gateway = Gateway::start(&all_to_with(upstream.address, &ground.listener(""), "", ""));
    let sent = body(5 * MIB);
    let file = ground.files.write("up", "");
    std::fs::write(&file, &sent).unwrap();
    for framing in ["Accept: */*", "Transfer-Encoding: chunked"] {
        let mut curl = curl(&ground, &gateway);
        curl.args(["-H", "Expect:", "-H", framing, "-X", "POST", "-T", &file, &url(&gateway, "/up")]);
        let out = curl.output().unwrap();
        assert!(out.status.success(), "{out:?}");
        assert!(out.stdout == sent, "{framing}: it came back changed");
    }
}

#[test]
fn a_version_that_is_too_old_is_refused() {
    let ground = Ground::new();
    let gateway = Gateway::start(&config(&(ground.listener(", min_version = \"1.3\"") + "\n" + HERE)));
    let [old, new] = EACH_VERSION.map(|versions| ground.client().versions(versions).config());
    let refused = try_secure(&gateway, &old, "a.test").err();
    assert_eq!(refused, Some(Ending::Failed(TlsError::AlertReceived(AlertDescription::ProtocolVersion))));
    assert_eq!(ask(&mut secure(&gateway, &new), "/"), "yes, by https");
    let mut curl = curl(&ground, &gateway);
    let out = curl.args(["--tls-max", "1.2", &url(&gateway, "/")]).output().unwrap();
    assert_eq!(out.status.code(), Some(35), "curl's code for a failed handshake: {out:?}");
    nothing_is_left(&gateway);
}

#[test]
fn many_requests_on_one_connection() {
    let ground = Ground::new();
    let upstream = echo();
    let text = all_to_with(upstream.address, &ground.listener(""), "", "");
    for driver in DRIVERS {
        let gateway = Gateway::start(&on(driver, &text));
        for versions in EACH_VERSION {
            let mut client = secure(&gateway, &ground.client().versions(versions).config());
            assert_eq!(client.alpn().as_deref(), Some(&b"http/1.1"[..]));
            for number in 0..200 {
                let path = format!("/{number}");
                assert_eq!(ask(&mut client, &path), path);
            }
            client.send("HEAD /head HTTP/1.1\r\nHost: a.test\r\n\r\n");
            assert_eq!(field(&client.head(), "content-length").as_deref(), Some("12"));
            assert_eq!(ask(&mut client, "/after-head"), "/after-head");
        }
        assert_eq!(gateway.figure("connections_accepted"), 2);
        nothing_is_left(&gateway);
    }
}

#[test]
fn each_suite_is_spoken() {
    let ground = Ground::new();
    let rsa = ground.root.rsa(&["a.test"]);
    let pairs = [ground.files.pair("a", &ground.pair), ground.files.pair("rsa", &rsa)];
    let upstream = echo();
    let gateway = Gateway::start(&all_to_with(upstream.address, &secured(&pairs, ""), "", ""));
    let sent = body(100_000);
    for suite in [
        "TLS13_AES_128",
        "TLS13_AES_256",
        "TLS13_CHACHA20",
        "ECDHE_ECDSA_WITH_AES_128",
        "ECDHE_ECDSA_WITH_AES_256",
        "ECDHE_ECDSA_WITH_CHACHA20",
        "ECDHE_RSA_WITH_AES_128",
        "ECDHE_RSA_WITH_AES_256",
        "ECDHE_RSA_WITH_CHACHA20",
    ] {
        let versions = EACH_VERSION[usize::from(suite.starts_with("TLS13"))];
        let client = ground.client().suites(suite).versions(versions);
        let mut client = secure(&gateway, &client.config());
        assert_eq!(ask(&mut client, "/"), "/", "{suite}");
        client.send(upload(&sent, false));
        assert!(client.response().body == sent, "{suite}: it came back changed");
        assert_eq!(ask(&mut client, "/again"), "/again", "{suite}");
    }
}

#[test]
fn bodies_come_back_as_they_went() {
    let ground = Ground::new();
    let upstream = echo();
    let text = all_to_with(upstream.address, &ground.listener(""), "", "");
    for driver in DRIVERS {
        let gateway = Gateway::start(&on(driver, &text));
        for versions in EACH_VERSION {
            let mut client = secure(&gateway, &ground.client().versions(versions).config());
            for is_chunked in [false, true] {
                let sent = body(5 * MIB);
                client.send(upload(&sent, is_chunked));
                let response = client.response();
                assert_eq!(response.field("transfer-encoding").is_some(), is_chunked);
                assert!(response.body == sent, "it came back changed");
                // Around what one record, and one buffer, holds.
                for length in [1, 100, 16_000, 16_383, 16_384, 16_385, 32_768, 65_535, 65_536, 70_000] {
                    let sent = body(length);
                    client.send(upload(&sent, is_chunked));
                    assert!(client.response().body == sent, "{length} bytes came back changed");
                }
            }
            drop(client);
            nothing_is_left(&gateway);
        }
    }
}

/// An upstream that sends what comes as it comes, once it has answered.
fn streaming_echo(mut peer: Peer) {
    let head = peer.head();
    let length: usize = field(&head, "content-length").unwrap().parse().unwrap();
    peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"));
    let mut left = length;
    loop {
        left -= peer.inbox.len();
        let bytes = std::mem::take(&mut peer.inbox);
        if !peer.try_send(bytes) || left == 0 {
            return;
        }
        peer.more();
    }
}

#[test]
fn a_body_goes_up_while_it_comes_down() {
    let ground = Ground::new();
    let config = server(&ground.root.pair(&["up.test"]), BOTH_VERSIONS, None);
    let plain = Upstream::scripted(|peer, _| streaming_echo(peer));
    let safe = Upstream::scripted(move |peer, _| streaming_echo(peer.serving(&config).unwrap()));
    let cluster = format!("tls = {{ ca = \"{}\", server_name = \"up.test\" }}", ground.root_file());
    for driver in DRIVERS {
        for (upstream, cluster) in [(&plain, ""), (&safe, &cluster)] {
            let text = all_to_with(upstream.address, &ground.listener(""), cluster, "");
            let gateway = Gateway::start(&on(driver, &text));
            let mut client = secure(&gateway, &ground.client().config());
            let mut reader = client.twin();
            let sender = thread::spawn(move || {
                client.send(upload(&body(5 * MIB), false));
                client
            });
            let head = reader.head();
            assert!(reader.body_of(head).body == body(5 * MIB), "it came back changed");
            drop((sender.join().unwrap(), reader));
            within("the connection ends", || (gateway.figure("connections_active") == 0).then_some(()));
        }
    }
}

// Records and segments, wherever they are cut.

/// For each driver and version, clients of a gateway before an echo.
fn with_each(test: impl Fn(&mut [Peer])) {
    let ground = Ground::new();
    let upstream = echo();
    let text = all_to_with(upstream.address, &ground.listener(""), "", "");
    for driver in DRIVERS {
        let gateway = Gateway::start(&on(driver, &text));
        for versions in EACH_VERSION {
            let config = ground.client().versions(versions).config();
            let mut clients: Vec<Peer> = (0..8).map(|_| secure(&gateway, &config)).collect();
            test(&mut clients);
            for client in &mut clients {
                assert_eq!(ask(client, "/afterwards"), "/afterwards");
            }
        }
        nothing_is_left(&gateway);
    }
}

/// Sends the first parts, a client each, and the second ones when those were received; then answers come.
fn in_two_segments(clients: &mut [Peer], parts: &[(Vec<u8>, Vec<u8>)]) {
    for (client, (first, _)) in clients.iter_mut().zip(parts) {
        client.send_wire(first);
    }
    all_received(clients.iter().map(|client| &client.stream));
    for (client, (_, second)) in clients.iter_mut().zip(parts) {
        client.send_wire(second);
    }
    for (client, (first, _)) in clients.iter_mut().zip(parts) {
        assert_eq!(client.response().text(), "/cut", "after {} bytes", first.len());
    }
}

#[test]
fn a_head_cut_over_two_records_at_every_point() {
    with_each(|clients| {
        let wire = get("/cut");
        let points: Vec<usize> = (1..wire.len()).collect();
        for points in points.chunks(clients.len()) {
            let cut = |(client, at): (&Peer, &usize)| {
                let (first, second) = wire.as_bytes().split_at(*at);
                (client.records(&[first]), client.records(&[second]))
            };
            let parts: Vec<_> = clients.iter().zip(points).map(cut).collect();
            in_two_segments(clients, &parts);
            for (client, at) in clients.iter_mut().zip(points) {
                let (first, second) = wire.as_bytes().split_at(*at);
                let records = client.records(&[first, second]);
                client.send_wire(records);
                assert_eq!(client.response().text(), "/cut", "cut at {at}, in one segment");
            }
        }
    });
}

#[test]
fn a_record_cut_over_two_segments_at_every_point() {
    with_each(|clients| {
        let wire = get("/cut");
        let mut at = 1;
        let mut is_over = false;
        while !is_over {
            let mut parts = Vec::new();
            for client in &*clients {
                let mut record = client.records(&[wire.as_bytes()]);
                is_over = at + 1 >= record.len();
                let second = record.split_off(at.min(record.len() - 1));
                parts.push((record, second));
                at += 1;
            }
            in_two_segments(clients, &parts);
        }
    });
}

#[test]
fn a_request_of_records_of_one_byte() {
    with_each(|clients| {
        let client = &mut clients[0];
        let wire = post("/", &"x".repeat(3000));
        let pieces: Vec<&[u8]> = wire.as_bytes().chunks(1).collect();
        let records = client.records(&pieces);
        client.send_wire(records);
        assert_eq!(client.response().body.len(), 3000);
    });
}

#[test]
fn pipelined_requests_in_one_record_and_in_many() {
    with_each(|clients| {
        let client = &mut clients[0];
        let requests: Vec<String> = (0..50).map(|number| get(&format!("/many/{number}"))).collect();
        let pieces: Vec<&[u8]> = requests.iter().map(String::as_bytes).collect();
        let all = requests.concat();
        for records in [vec![all.as_bytes()], pieces] {
            let records = client.records(&records);
            client.send_wire(records);
            for number in 0..50 {
                assert_eq!(client.response().text(), format!("/many/{number}"));
            }
        }
    });
}

/// Records that end where a request does not, over segments that end where a record does not.
#[test]
fn uneven_records_over_uneven_segments() {
    with_each(|clients| {
        let client = &mut clients[0];
        let mut wire = Vec::new();
        for length in [10, 20_000, 300, 50_000, 1] {
            wire.extend(upload(&body(length), length % 3 == 0));
        }
        for (record_len, segment_len) in [(16_384, 1000), (777, 4096), (16_384, 16_384), (5000, 70_000)] {
            let pieces: Vec<&[u8]> = wire.chunks(record_len).collect();
            let records = client.records(&pieces);
            for segment in records.chunks(segment_len) {
                client.send_wire(segment);
                all_received([&client.stream]);
            }
            for length in [10, 20_000, 300, 50_000, 1] {
                assert!(client.response().body == body(length), "{record_len}, {segment_len}: changed");
            }
        }
    });
}

/// Hands are shaken in pieces, and the first request comes with the last of them.
#[test]
fn a_handshake_in_pieces_and_a_request_behind_it() {
    let ground = Ground::new();
    let upstream = echo();
    let text = all_to_with(upstream.address, &ground.listener(""), "", "");
    for driver in DRIVERS {
        let gateway = Gateway::start(&on(driver, &text));
        for versions in EACH_VERSION {
            for (record_max, segment_max) in
                [(None, usize::MAX), (None, 300), (Some(64), usize::MAX), (Some(100), 177)]
            {
                for length in [0, 20_000] {
                    let mut config = ground.client().versions(versions).plain_config();
                    config.max_fragment_size = record_max;
                    let mut first = get("/first").into_bytes();
                    first.extend(upload(&body(length + 1), false));
                    let client = gateway.connect();
                    let mut client =
                        client.secured_with(&Arc::new(config), "a.test", &first, segment_max).unwrap();
                    assert_eq!(client.response().text(), "/first");
                    assert!(client.response().body == body(length + 1), "it came back changed");
                    assert_eq!(ask(&mut client, "/next"), "/next");
                }
            }
        }
        nothing_is_left(&gateway);
    }
}

/// For each version, a connection whose records the test makes, after one request on it.
fn raw(ground: &Ground, gateway: &Gateway, versions: Versions) -> Raw {
    let config = ground.client().versions(versions).suites("AES_128").config();
    let mut client = secure(gateway, &config);
    ask(&mut client, "/before");
    client.into_raw()
}

#[test]
fn empty_and_padded_records_carry_on() {
    let ground = Ground::new();
    let upstream = echo();
    let text = all_to_with(upstream.address, &ground.listener(""), "", "");
    for driver in DRIVERS {
        let gateway = Gateway::start(&on(driver, &text));
        for (versions, padding) in [(EACH_VERSION[0], 0), (EACH_VERSION[1], 0), (EACH_VERSION[1], 1000)] {
            let mut client = raw(&ground, &gateway, versions);
            for number in 0..20 {
                let mut wire = Vec::new();
                let path = format!("/empty/{number}");
                for piece in get(&path).as_bytes().chunks(7) {
                    (0..number).for_each(|_| wire.extend(client.record(DATA, b"", padding)));
                    wire.extend(client.record(DATA, piece, padding));
                }
                client.send_wire(wire);
                client.until(path.as_bytes());
                client.plaintext.clear();
            }
        }
        nothing_is_left(&gateway);
    }
}

// Which certificate.

#[test]
fn the_certificate_of_the_name_that_is_asked_for() {
    let ground = Ground::new();
    let wild = ground.root.pair(&["*.wild.test"]);
    let exact = ground.root.pair(&["x.wild.test", "other.test"]);
    let pairs = [
        ground.files.pair("a", &ground.pair),
        ground.files.pair("wild", &wild),
        ground.files.pair("exact", &exact),
    ];
    let gateway = Gateway::start(&config(&(secured(&pairs, "") + "\n" + HERE)));
    for versions in EACH_VERSION {
        let client = Client::curious().versions(versions).config();
        for (name, expected) in [
            ("a.test", &ground.pair),
            ("y.wild.test", &wild),
            ("X.Wild.Test", &exact),
            ("other.test", &exact),
            ("z.y.wild.test", &ground.pair),
            ("wild.test", &ground.pair),
            ("unknown.test", &ground.pair),
            // No name is asked for.
            ("127.0.0.1", &ground.pair),
        ] {
            let mut client = try_secure(&gateway, &client, name).unwrap();
            assert!(client.certificate() == Some(expected.leaf()), "{name}");
            client.send(format!("GET / HTTP/1.1\r\nHost: {name}\r\n\r\n"));
            assert_eq!(client.response().text(), "yes, by https");
        }
    }
    // Who looks at it is content.
    let client = ground.client().config();
    for name in ["a.test", "y.wild.test", "x.wild.test", "other.test"] {
        try_secure(&gateway, &client, name).unwrap();
    }
    assert!(matches!(try_secure(&gateway, &client, "unknown.test"), Err(Ending::Failed(_))));
}

#[test]
fn ecdsa_and_rsa_side_by_side() {
    let ground = Ground::new();
    let rsa = ground.root.rsa(&["a.test"]);
    // RSA is named first, and second choice all the same.
    let pairs = [ground.files.pair("rsa", &rsa), ground.files.pair("a", &ground.pair)];
    let gateway = Gateway::start(&config(&(secured(&pairs, "") + "\n" + HERE)));
    let ecdsa_only = [SignatureScheme::ECDSA_NISTP256_SHA256];
    let rsa_only = [SignatureScheme::RSA_PSS_SHA256, SignatureScheme::RSA_PKCS1_SHA256];
    let either = [rsa_only[0], rsa_only[1], ecdsa_only[0]];
    for versions in EACH_VERSION {
        for (schemes, expected) in
            [(&ecdsa_only[..], &ground.pair), (&rsa_only[..], &rsa), (&either[..], &ground.pair)]
        {
            let client = ground.client().versions(versions).schemes(schemes).config();
            assert!(secure(&gateway, &client).certificate() == Some(expected.leaf()), "{schemes:?}");
        }
    }
    // In TLS 1.2 it is a matter of suites too.
    for (suites, expected) in [("ECDHE_RSA", &rsa), ("ECDHE_ECDSA", &ground.pair)] {
        let client = ground.client().versions(EACH_VERSION[0]).suites(suites).config();
        assert!(secure(&gateway, &client).certificate() == Some(expected.leaf()), "{suites}");
    }
}

#[test]
fn a_host_of_another_certificate_is_misdirected() {
    let ground = Ground::new();
    let first = ground.root.pair(&["a.test", "b.test"]);
    let wild = ground.root.pair(&["*.wild.test"]);
    let pairs = [ground.files.pair("first", &first), ground.files.pair("wild", &wild)];
    let gateway = Gateway::start(&config(&(secured(&pairs, "") + "\n" + HERE)));
    let client = Client::curious().config();
    for (name, host, status) in [
        ("a.test", "a.test", 200),
        ("a.test", "A.TEST", 200),
        ("a.test", "a.test:8443", 200),
        ("a.test", "b.test", 200),
        // The first certificate is for these too.
        ("a.test", "unknown.test", 200),
        ("unknown.test", "a.test", 200),
        ("a.test", "x.wild.test", 421),
        ("x.wild.test", "y.wild.test", 200),
        ("x.wild.test", "a.test", 421),
        ("x.wild.test", "unknown.test", 421),
        ("unknown.test", "x.wild.test", 421),
        // Who asked for no name cannot be wrong.
        ("127.0.0.1", "x.wild.test", 200),
        ("127.0.0.1", "a.test", 200),
    ] {
        let mut client = try_secure(&gateway, &client, name).unwrap();
        client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        let response = client.response();
        assert_eq!(response.status, status, "{host} by {name}");
        let end = end_of(&gateway);
        if status == 421 {
            assert_eq!(end, "misdirected");
            assert!(response.text().contains("urn:ringgate:problem:misdirected"));
            assert_eq!(client.ending(), Ending::Said);
        }
    }
    // Another listener's names are no one's here.
    let other = ground.root.pair(&["other.test"]);
    let listener = format!(
        "[[listener]]\nname = \"second\"\naddress = \"127.0.0.1:0\"\n{}\n",
        secured(&[ground.files.pair("other", &other)], "")
    );
    let both = Gateway::start(&config(&format!("{}\n{listener}{HERE}", secured(&pairs, ""))));
    for (name, host, status) in [
        ("a.test", "other.test", 421),
        ("unknown.test", "other.test", 421),
        ("a.test", "unknown.test", 200),
        // They agree, though not with the port.
        ("other.test", "other.test", 200),
    ] {
        let mut client = try_secure(&both, &client, name).unwrap();
        client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(client.response().status, status, "{host} by {name}");
    }
    // Sessions that are resumed know the name that was asked for too.
    let mut again = try_secure(&gateway, &client, "x.wild.test").unwrap();
    assert!(again.is_resumed());
    again.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!(again.response().status, 421);
}

// Sessions.

#[test]
fn sessions_are_resumed_on_every_core() {
    let ground = Ground::new();
    let workers = thread::available_parallelism().unwrap().get().min(2);
    let text =
        config(&(ground.listener("") + "\n" + HERE)).replace("workers = 1", &format!("workers = {workers}"));
    let gateway = Gateway::start(&text);
    for versions in EACH_VERSION {
        let mut config = ground.client().versions(versions).plain_config();
        config.enable_early_data = true;
        let config = Arc::new(config);
        let mut first = secure(&gateway, &config);
        assert!(!first.is_resumed());
        ask(&mut first, "/");
        let mut cores = HashSet::from([gateway.log_line()["core"].as_u64().unwrap()]);
        let mut resumed = HashSet::new();
        // Each stays, so that the next may land elsewhere.
        let mut others = Vec::new();
        while others.len() < 10 || resumed.len() < workers {
            assert!(others.len() < 200, "only cores {resumed:?} resume");
            let mut client = secure(&gateway, &config);
            assert!(client.is_resumed(), "after cores {cores:?}");
            assert!(!client.may_send_early());
            assert!(client.certificate() == Some(ground.pair.leaf()));
            ask(&mut client, "/");
            let core = gateway.log_line()["core"].as_u64().unwrap();
            resumed.insert(core);
            cores.insert(core);
            others.push(client);
        }
    }
    assert!(gateway.figure("handshakes_resumed") >= 20);
}

#[test]
fn a_ticket_is_no_key_to_a_listener_that_demands_more() {
    let ground = Ground::new();
    let people = Mint::new("people");
    let ca = ground.files.write("people.pem", &people.cert);
    let more = format!(", client_auth = {{ ca = \"{ca}\" }}");
    let text = config(&format!(
        "{}\n[[listener]]\nname = \"closed\"\naddress = \"127.0.0.1:0\"\n{}\n{HERE}",
        ground.listener(""),
        ground.listener(&more)
    ));
    let gateway = Gateway::start(&text);
    for versions in EACH_VERSION {
        let stranger = ground.client().versions(versions).config();
        ask(&mut secure(&gateway, &stranger), "/");
        let closed = || Peer::connect(gateway.address_of("closed"));
        match closed().secured(&stranger, "a.test") {
            Ok(mut client) => {
                assert!(!client.is_resumed());
                client.try_send(get("/"));
                assert!(client.is_ended());
            }
            Err(ending) => assert!(matches!(ending, Ending::Failed(TlsError::AlertReceived(_)))),
        }
        // One that is resumed there is who it was.
        let known = ground.client().versions(versions).shows(&people.pair(&["someone"])).config();
        for is_resumed in [false, true] {
            let mut client = closed().secured(&known, "a.test").unwrap();
            assert_eq!(client.is_resumed(), is_resumed);
            assert_eq!(ask(&mut client, "/"), "yes, by https");
        }
    }
}

#[test]
fn keys_are_renewed_amid_a_connection() {
    /// What a renewal of keys is on the wire.
    const KEY_UPDATE: (u8, usize) = (23, 5 + 1 + 16);
    let ground = Ground::new();
    let upstream = echo();
    let text = all_to_with(upstream.address, &ground.listener(""), "", "");
    for driver in DRIVERS {
        let gateway = Gateway::start(&on(driver, &text));
        let mut client = secure(&gateway, &ground.client().versions(EACH_VERSION[1]).config());
        for number in 0..40 {
            client.received_records();
            let is_renewed = number % 3 != 0;
            if is_renewed {
                client.renew_keys();
            }
            let path = format!("/{number}");
            assert_eq!(ask(&mut client, &path), path);
            assert_eq!(client.received_records().contains(&KEY_UPDATE), is_renewed, "{number}");
        }
        // Between the records of a body, and of one that comes back.
        let sent = body(MIB);
        let wire = upload(&sent, false);
        for piece in wire.chunks(60_000) {
            client.renew_keys();
            client.send(piece);
        }
        client.renew_keys();
        client.renew_keys();
        client.send(get("/behind"));
        assert!(client.response().body == sent, "it came back changed");
        assert_eq!(client.response().text(), "/behind");
        assert_eq!(ask(&mut client, "/last"), "/last");
        drop(client);
        nothing_is_left(&gateway);
    }
}

/// New keys, and nothing else, on a connection where nothing is under way: on either side it lives on.
#[test]
fn keys_are_renewed_on_idle_connections() {
    let ground = Ground::new();
    let config = server(&ground.root.pair(&["up.test"]), EACH_VERSION[1], None);
    let (sender, kept) = channel();
    let sender = std::sync::Mutex::new(sender);
    let upstream = Upstream::scripted(move |peer, _| {
        let mut peer = peer.serving(&config).unwrap();
        while let Some(head) = peer.try_head() {
            peer.send(echoed(&head, b""));
            for _ in 0..3 {
                peer.renew_keys();
                let keys = peer.records(&[]);
                peer.send_wire(keys);
            }
            sender.lock().unwrap().send(peer.twin()).unwrap();
        }
    });
    let tls = format!("tls = {{ ca = \"{}\", server_name = \"up.test\" }}", ground.root_file());
    let text = all_to_with(upstream.address, &ground.listener(""), &tls, "");
    for (number, driver) in DRIVERS.into_iter().enumerate() {
        let gateway = Gateway::start(&on(driver, &text));
        let mut client = secure(&gateway, &ground.client().versions(EACH_VERSION[1]).config());
        for number in 0..10 {
            let path = format!("/{number}");
            assert_eq!(ask(&mut client, &path), path);
            all_received([&kept.recv_timeout(support::PATIENCE).unwrap().stream]);
            client.renew_keys();
            let keys = client.records(&[]);
            client.send_wire(keys);
            all_received([&client.stream]);
        }
        assert_eq!(upstream.accepted(), number + 1, "a kept connection was given up");
        drop(client);
        nothing_is_left(&gateway);
    }
}

// How connections end.

#[test]
fn the_gateway_says_that_it_closes() {
    let ground = Ground::new();
    let text = config(&(ground.listener("") + "\n" + HERE));
    for driver in DRIVERS {
        let gateway = Gateway::start(&on(driver, &text));
        for versions in EACH_VERSION {
            let config = ground.client().versions(versions).config();
            for request in [
                "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n",
                "GET / HTTP/1.0\r\n\r\n",
                "NO REQUEST AT ALL\r\n\r\n",
            ] {
                let mut client = secure(&gateway, &config);
                client.send(request);
                assert!(client.head().starts_with("HTTP/1.1 "));
                assert_eq!(client.ending(), Ending::Said, "{request}");
            }
        }
        nothing_is_left(&gateway);
    }
}

/// The last byte comes before the last word, however much there is and however slowly it is read.
#[test]
fn a_large_last_response_is_whole() {
    let ground = Ground::new();
    let upstream = Upstream::scripted(|mut peer, _| {
        let head = peer.head();
        if head.starts_with("GET /sized ") {
            peer.send(ok(&body(3 * MIB)));
        } else {
            peer.send([&b"HTTP/1.1 200 OK\r\n\r\n"[..], &body(3 * MIB)].concat());
        }
    });
    let text = all_to_with(upstream.address, &ground.listener(""), "", "");
    for driver in DRIVERS {
        let gateway = Gateway::start(&on(driver, &text));
        for (path, versions) in
            [("/sized", EACH_VERSION[1]), ("/rest", EACH_VERSION[1]), ("/rest", EACH_VERSION[0])]
        {
            let mut client = secure(&gateway, &ground.client().versions(versions).config());
            client.send(format!("GET {path} HTTP/1.0\r\n\r\n"));
            client.head();
            // What fits between is there before any more is read.
            let before = client.inbox.len();
            gateway.figures();
            assert_eq!(client.ending(), Ending::Said);
            assert!(client.inbox == body(3 * MIB), "{} of it, {before} at first", client.inbox.len());
            assert_eq!(end_of(&gateway), "ok");
        }
        nothing_is_left(&gateway);
    }
}

/// Who sends more than is wanted gets to read that, and sees the end of it.
#[test]
fn a_refusal_amid_an_upload_is_heard() {
    let ground = Ground::new();
    let listener = ground.listener("") + "\nlimits = { body_bytes = \"1KiB\" }\n";
    let upstream = echo();
    let text = all_to_with(upstream.address, &listener, "", "");
    for driver in DRIVERS {
        let gateway = Gateway::start(&on(driver, &text));
        for versions in EACH_VERSION {
            for is_chunked in [false, true] {
                let mut client = secure(&gateway, &ground.client().versions(versions).config());
                client.try_send(upload(&body(500_000), is_chunked));
                assert_eq!(client.response().status, 413);
                assert_eq!(client.ending(), Ending::Said);
                assert_eq!(end_of(&gateway), "body-too-large");
            }
        }
        nothing_is_left(&gateway);
    }
}

#[test]
fn an_upload_waits_for_its_hundred() {
    let ground = Ground::new();
    let (upstream, accepted) = Upstream::manual();
    let gateway = Gateway::start(&all_to_with(upstream.address, &ground.listener(""), "", ""));
    let mut client = secure(&gateway, &ground.client().config());
    client.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    let mut endpoint = accepted.next();
    endpoint.head();
    endpoint.send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
    assert!(client.head().starts_with("HTTP/1.1 100 "));
    assert!(client.head().starts_with("HTTP/1.1 103 "));
    client.send("body");
    assert_eq!(endpoint.exactly(4), b"body");
    endpoint.send(ok(b"thanks"));
    assert_eq!(client.response().text(), "thanks");
}

#[test]
fn an_idle_connection_is_closed_with_a_word() {
    let ground = Ground::new();
    let listener = ground.listener("") + "\ntimeouts = { keep_alive = \"100ms\" }\n";
    let gateway = Gateway::start(&config(&(listener + HERE)));
    let mut silent = secure(&gateway, &ground.client().config());
    let mut once = secure(&gateway, &ground.client().config());
    ask(&mut once, "/");
    assert_eq!((silent.ending(), once.ending()), (Ending::Said, Ending::Said));
}

#[test]
fn a_client_that_says_close_behind_its_request_gets_its_response() {
    let ground = Ground::new();
    for driver in DRIVERS {
        let (upstream, mut asked) = Upstream::asking();
        let text = all_to_with(upstream.address, &ground.listener(""), "", "");
        let gateway = Gateway::start(&on(driver, &text));
        for versions in EACH_VERSION {
            let config = ground.client().versions(versions).config();
            for ends_stream in [false, true] {
                let mut client = secure(&gateway, &config);
                client.send(post("/", "whole"));
                client.say_close();
                let question = asked.question();
                // The gateway has seen it before there is an answer.
                all_received([&client.stream]);
                if ends_stream {
                    client.finish();
                }
                question.ok("late");
                assert_eq!(client.response().text(), "late");
                assert_eq!(client.ending(), Ending::Said);
                assert_eq!(end_of(&gateway), "ok");
            }
        }
    }
}

#[test]
fn a_client_that_ends_without_a_word_has_left() {
    let ground = Ground::new();
    for driver in DRIVERS {
        let (upstream, mut asked) = Upstream::asking();
        let text = all_to_with(upstream.address, &ground.listener(""), "", "");
        let gateway = Gateway::start(&on(driver, &text));
        for versions in EACH_VERSION {
            // While its response is awaited.
            let mut client = secure(&gateway, &ground.client().versions(versions).config());
            client.send(get("/"));
            let question = asked.question();
            client.stream.shutdown(Shutdown::Write).unwrap();
            assert_eq!(end_of(&gateway), "client-gone");
            // The connection upstream is in doubt, and closed: the next request comes by another.
            let number = question.connection;
            question.end();
            assert_eq!(asked.ended(), number);
            // Amid a record.
            let mut client = secure(&gateway, &ground.client().versions(versions).config());
            client.send(get("/"));
            let question = asked.question();
            let next = client.records(&[get("/next").as_bytes()]);
            client.send_wire(&next[..next.len() - 1]);
            client.stream.shutdown(Shutdown::Write).unwrap();
            assert_eq!(end_of(&gateway), "client-gone");
            let number = question.connection;
            question.end();
            assert_eq!(asked.ended(), number);
        }
        nothing_is_left(&gateway);
    }
}

/// What was sent of it must not look like all of it, whatever ends it.
#[test]
fn a_request_body_that_is_cut_short_goes_to_no_one() {
    let ground = Ground::new();
    let (upstream, seen) = Upstream::witness();
    let gateway = Gateway::start(&all_to_with(upstream.address, &ground.listener(""), "", ""));
    for versions in EACH_VERSION {
        for says_close in [false, true] {
            let before = upstream.accepted();
            let mut client = secure(&gateway, &ground.client().versions(versions).config());
            client.send("POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n");
            upstream.wait_for(before + 1);
            if says_close {
                client.say_close();
            }
            client.finish();
            let seen = String::from_utf8(seen.recv_timeout(support::PATIENCE).unwrap()).unwrap();
            assert!(!seen.contains("\r\n0\r\n"), "{seen}");
            let end = end_of(&gateway);
            assert!(matches!(end.as_str(), "client-gone" | "body-truncated"), "{end}");
        }
    }
    nothing_is_left(&gateway);
}

/// A stream's end, which anyone on the way can make, is no end of a response.
#[test]
fn a_response_that_is_cut_short_does_not_look_whole() {
    let ground = Ground::new();
    let config = server(&ground.root.pair(&["up.test"]), BOTH_VERSIONS, None);
    let cluster = format!("tls = {{ ca = \"{}\", server_name = \"up.test\" }}", ground.root_file());
    for driver in DRIVERS {
        for says_close in [false, true] {
            let config = Arc::clone(&config);
            let upstream = Upstream::scripted(move |peer, _| {
                let mut peer = peer.serving(&config).unwrap();
                peer.head();
                peer.send("HTTP/1.1 200 OK\r\n\r\nso far");
                if says_close {
                    peer.say_close();
                }
            });
            let text = all_to_with(upstream.address, &ground.listener(""), &cluster, "");
            let gateway = Gateway::start(&on(driver, &text));
            let end = if says_close { "ok" } else { "response-truncated" };
            for versions in EACH_VERSION {
                let config = ground.client().versions(versions).config();
                // Whose end is the connection's.
                let mut client = secure(&gateway, &config);
                client.send("GET / HTTP/1.0\r\nHost: a.test\r\n\r\n");
                let head = client.try_head();
                let ending = client.ending();
                assert_eq!(end_of(&gateway), end);
                assert_eq!(ending == Ending::Said, says_close, "{head:?} {ending:?}");
                if says_close {
                    assert_eq!(client.inbox, b"so far");
                }
                // Whose end is a chunk.
                let mut client = secure(&gateway, &config);
                client.send("GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
                client.head();
                client.ending();
                assert_eq!(end_of(&gateway), end);
                let body = String::from_utf8(client.inbox).unwrap();
                assert_eq!(body.ends_with("\r\n0\r\n\r\n"), says_close, "{body}");
            }
            nothing_is_left(&gateway);
        }
    }
}

// Who means no good.

/// What a stranger sends instead of a handshake; and what ends it.
fn strange_beginnings(ground: &Ground) -> Vec<(&'static str, Vec<u8>)> {
    let hello = hello(&ground.client().config(), "a.test");
    let mut corrupted = hello.clone();
    corrupted[50..90].fill(0xff);
    let mut endless = Vec::new();
    // A hello that says to have 16 MiB, and never comes to its end.
    for number in 0..20 {
        endless.extend([22, 3, 1, 0x40, 0]);
        endless.extend(if number == 0 { &[1, 0xff, 0xff, 0xff][..] } else { &[0, 0, 0, 0][..] });
        endless.extend(vec![0; 0x4000 - 4]);
    }
    let nothing_but_changes = [20, 3, 3, 0, 1, 1].repeat(100_000 / 6);
    vec![
        ("nothing", Vec::new()),
        ("garbage", (0..5000_u32).map(|place| ((place * 7919) >> 3) as u8).collect()),
        ("zeros", vec![0; 100]),
        ("http", b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n".to_vec()),
        ("a record that is too long", [22, 3, 1, 0xff, 0xff].to_vec()),
        ("an old hello", b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10\x01\x00\x80".to_vec()),
        ("application data", [23, 3, 3, 0, 5, 1, 2, 3, 4, 5].to_vec()),
        ("an alert", [21, 3, 3, 0, 2, 2, 40].to_vec()),
        ("an empty handshake record", [22, 3, 1, 0, 0].to_vec()),
        ("a server's hello", [&[22, 3, 3, 0, 40, 2, 0, 0, 36, 3, 3][..], &[7; 34]].concat()),
        ("half a hello", hello[..hello.len() / 2].to_vec()),
        ("a corrupted hello", corrupted),
        ("a hello and garbage", [&hello[..], &[0x55; 3000]].concat()),
        ("two hellos", hello.repeat(2)),
        ("an endless hello", endless),
        ("changes of nothing", nothing_but_changes),
    ]
}

#[test]
fn strange_beginnings_end_at_once() {
    let ground = Ground::new();
    let text = config(&(ground.listener("") + "\n" + HERE));
    for driver in DRIVERS {
        let gateway = Gateway::start(&on(driver, &text));
        let mut other = secure(&gateway, &ground.client().config());
        for (what, wire) in strange_beginnings(&ground) {
            let mut stranger = gateway.connect();
            stranger.try_send(&wire);
            stranger.finish();
            let answer = stranger.rest();
            assert!(!String::from_utf8_lossy(&answer).contains("yes"), "{what}: {answer:?}");
            // Who has taken the port for another one is told so.
            assert_eq!(answer.starts_with(b"HTTP/1.1 400 "), what == "http", "{what}: {answer:?}");
            assert_eq!(ask(&mut other, "/"), "yes, by https", "after {what}");
            // And whoever resets instead of waiting.
            let mut stranger = gateway.connect();
            stranger.try_send(&wire);
            stranger.reset();
            assert_eq!(ask(&mut secure(&gateway, &ground.client().config()), "/"), "yes, by https");
        }
        drop(other);
        nothing_is_left(&gateway);
        assert!(gateway.figure("handshakes_failed") >= 16);
    }
}

/// The same without an end of the stream, so that it is the gateway who ends it; whatever is not wrong has a deadline.
#[test]
fn silent_and_slow_handshakes_have_an_end() {
    let ground = Ground::new();
    let listener = ground.listener("") + "\ntimeouts = { handshake = \"200ms\" }\n";
    let text = config(&(listener + HERE));
    for driver in DRIVERS {
        let gateway = Gateway::start(&on(driver, &text));
        let mut strangers: Vec<(&str, Peer)> = Vec::new();
        for (what, wire) in strange_beginnings(&ground) {
            let mut stranger = gateway.connect();
            stranger.try_send(&wire);
            strangers.push((what, stranger));
        }
        // It sends on as long as someone listens.
        let mut slow = gateway.connect();
        let hello = hello(&ground.client().config(), "a.test");
        let mut sent = 0;
        slow.stream.set_nonblocking(true).unwrap();
        while slow.stream.peek(&mut [0]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
            && sent < hello.len()
        {
            slow.try_send(&hello[sent..=sent]);
            sent += 1;
            thread::park_timeout(Duration::from_millis(5));
        }
        assert!(sent < hello.len(), "it was let in byte by byte");
        // One that has greeted and says no more is no better.
        for (what, stranger) in &mut strangers {
            let answer = stranger.rest();
            assert!(!String::from_utf8_lossy(&answer).contains("yes"), "{what}");
        }
        assert_eq!(come_and_ask(gateway.address(), &ground.client().config()), "yes, by https");
        nothing_is_left(&gateway);
    }
}

#[test]
fn a_storm_of_handshakes_stops_no_one_else() {
    let ground = Ground::new();
    let listener = ground.listener("") + "\ntimeouts = { handshake = \"1s\" }\n";
    let text = config(&(listener + HERE)).replace("workers = 1\n", "workers = 1\nmax_handshakes = 2\n");
    for driver in DRIVERS {
        let gateway = Gateway::start(&on(driver, &text));
        let mut inside =
            within("it is in", || try_secure(&gateway, &ground.client().config(), "a.test").ok());
        let mut silent: Vec<Peer> = (0..40).map(|_| gateway.connect()).collect();
        let left = silent.split_off(20);
        for number in 0..50 {
            assert_eq!(ask(&mut inside, "/"), "yes, by https", "{number}");
        }
        // Who waits and leaves takes no place with him.
        drop(left);
        // In the end there is a place for whoever has something to say.
        let config = ground.client().config();
        assert_eq!(come_and_ask(gateway.address(), &config), "yes, by https");
        assert!(silent.iter_mut().all(Peer::is_ended));
        // And for many at once, two at a time.
        let address = gateway.address();
        let clients: Vec<_> = (0..10)
            .map(|_| {
                let config = Arc::clone(&config);
                thread::spawn(move || come_and_ask(address, &config))
            })
            .collect();
        for client in clients {
            assert_eq!(client.join().unwrap(), "yes, by https");
        }
        drop(inside);
        nothing_is_left(&gateway);
    }
}

/// Far more clients than there are buffers for, all at once: each is served, or told that there is no room, or let go.
#[test]
fn more_clients_at_once_than_buffers() {
    let ground = Ground::new();
    let upstream = echo();
    let text = all_to_with(upstream.address, &ground.listener(""), "", "")
        .replace("workers = 1\n", "workers = 1\nbuffers = 64\n");
    for driver in DRIVERS {
        let gateway = Gateway::start(&on(driver, &text));
        let config = ground.client().config();
        let come = || try_secure(&gateway, &config, "a.test").ok();
        // On epoll who waits has a buffer already, so that later ones are let go amid their handshakes.
        let mut clients: Vec<Peer> = (0..150).filter_map(|_| come()).collect();
        for (number, client) in clients.iter_mut().enumerate() {
            let request = upload(&body(20_000), false);
            // A record that is not whole holds what came of it.
            let wire = client.records(&[&request]);
            let (first, _) = wire.split_at(if number % 2 == 0 { 10_000 } else { wire.len() });
            let _ = client.stream.write_all(first);
        }
        let mut served = 0;
        for (number, client) in clients.iter_mut().enumerate().filter(|(number, _)| number % 2 == 1) {
            let Some(head) = client.try_head() else { continue };
            let response = client.body_of(head);
            match response.status {
                200 => assert!(response.body == body(20_000), "{number}: another's bytes"),
                status => assert_eq!(status, 503),
            }
            served += 1;
        }
        assert!(served > 0);
        drop(clients);
        nothing_is_left(&gateway);
        assert_eq!(ask(&mut secure(&gateway, &config), "/afterwards"), "/afterwards");
        assert!(gateway.figure("buffers_exhausted") > 0);
    }
}

const UNEXPECTED_MESSAGE: u8 = 10;
const BAD_RECORD_MAC: u8 = 20;
const RECORD_OVERFLOW: u8 = 22;

/// What it is, the alert that it gets, if that is certain, and its bytes.
type Offence = (&'static str, Option<u8>, fn(&mut Raw) -> Vec<u8>);

/// What a client may send amid a connection of TLS 1.3 that is no good.
fn offences() -> Vec<Offence> {
    let unexpected = Some(UNEXPECTED_MESSAGE);
    vec![
        ("a changed byte", Some(BAD_RECORD_MAC), |raw| {
            let mut record = raw.record(DATA, get("/").as_bytes(), 0);
            record[20] ^= 1;
            record
        }),
        ("a changed tag", Some(BAD_RECORD_MAC), |raw| {
            let mut record = raw.record(DATA, get("/").as_bytes(), 0);
            *record.last_mut().unwrap() ^= 0x80;
            record
        }),
        ("a record again", Some(BAD_RECORD_MAC), |raw| raw.record(DATA, b"\r\n", 0).repeat(2)),
        ("a record left out", Some(BAD_RECORD_MAC), |raw| {
            raw.record(DATA, b"GET", 0);
            raw.record(DATA, get("/").as_bytes(), 0)
        }),
        ("a short record", Some(BAD_RECORD_MAC), |_| vec![23, 3, 3, 0, 3, 1, 2, 3]),
        ("a length beyond all records", Some(RECORD_OVERFLOW), |_| vec![23, 3, 3, 0xff, 0xff, 0]),
        ("a plaintext that is too long", Some(RECORD_OVERFLOW), |raw| raw.record(DATA, &[b'x'; 16_385], 0)),
        ("no record", unexpected, |_| b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("plain data", None, |_| [&[23, 3, 3, 0, 40][..], &[0; 40]].concat()),
        ("a plain alert", unexpected, |_| vec![21, 3, 3, 0, 2, 1, 0]),
        ("a plain hello", unexpected, |_| vec![22, 3, 3, 0, 4, 1, 0, 0, 0]),
        ("a late change of ciphers", unexpected, |_| vec![20, 3, 3, 0, 1, 1]),
        ("a protected change of ciphers", unexpected, |raw| raw.record(CHANGE_CIPHER_SPEC, &[1], 0)),
        ("a record of no kind", unexpected, |raw| raw.record(0, b"", 100)),
        ("a record of an unknown kind", unexpected, |raw| raw.record(99, b"data", 0)),
        ("an empty handshake record", unexpected, |raw| raw.record(HANDSHAKE, b"", 0)),
        ("a hello", unexpected, |raw| raw.record(HANDSHAKE, &[1, 0, 0, 0], 0)),
        ("a finished", unexpected, |raw| raw.record(HANDSHAKE, &[20, 0, 0, 4, 1, 2, 3, 4], 0)),
        ("a ticket", unexpected, |raw| raw.record(HANDSHAKE, &[4, 0, 0, 0], 0)),
        ("a certificate", unexpected, |raw| raw.record(HANDSHAKE, &[11, 0, 0, 4, 0, 0, 0, 0], 0)),
        ("new keys of no kind", None, |raw| raw.record(HANDSHAKE, &[24, 0, 0, 1, 2], 0)),
        ("new keys twice in a record", unexpected, |raw| {
            raw.record(HANDSHAKE, &[24, 0, 0, 1, 0, 24, 0, 0, 1, 0], 0)
        }),
        ("a message broken off by data", unexpected, |raw| {
            let mut wire = raw.record(HANDSHAKE, &[24, 0, 0], 0);
            wire.extend(raw.record(DATA, get("/").as_bytes(), 0));
            wire
        }),
        ("an endless message", None, |raw| {
            let mut wire = raw.record(HANDSHAKE, &[24, 0xff, 0xff, 0xff], 0);
            (0..20).for_each(|_| wire.extend(raw.record(HANDSHAKE, &[0; 16_000], 0)));
            wire
        }),
        ("a message by the byte", None, |raw| {
            let mut wire = raw.record(HANDSHAKE, &[24, 0, 0xff, 0xff], 0);
            (0..200).for_each(|_| wire.extend(raw.record(HANDSHAKE, &[0], 0)));
            wire
        }),
        ("nothing, a hundred times", unexpected, |raw| {
            (0..100).flat_map(|_| raw.record(DATA, b"", 0)).collect()
        }),
        ("padding, a hundred times", unexpected, |raw| {
            (0..100).flat_map(|_| raw.record(DATA, b"", 16_000)).collect()
        }),
        ("an alert that is too long", None, |raw| raw.record(21, &[1, 0, 0], 0)),
        ("an empty alert", None, |raw| raw.record(21, b"", 0)),
        ("a fatal alert", None, |raw| raw.record(21, &[2, 40], 0)),
    ]
}

#[test]
fn offences_amid_a_connection_end_it_and_nothing_else() {
    let ground = Ground::new();
    let upstream = echo();
    let text = all_to_with(upstream.address, &ground.listener(""), "", "");
    for driver in DRIVERS {
        let gateway = Gateway::start(&on(driver, &text));
        let mut other = secure(&gateway, &ground.client().config());
        for (what, alert, wire) in offences() {
            let mut offender = raw(&ground, &gateway, EACH_VERSION[1]);
            let wire = wire(&mut offender);
            offender.send_wire(wire);
            let got = offender.last_alert();
            assert!(alert.is_none() || got == alert, "{what}: {got:?}");
            assert!(offender.plaintext.is_empty(), "{what}");
            assert_eq!(ask(&mut other, "/other"), "/other", "after {what}");
        }
        drop(other);
        nothing_is_left(&gateway);
    }
}

#[test]
fn nothing_is_negotiated_anew() {
    let ground = Ground::new();
    let upstream = echo();
    let gateway = Gateway::start(&all_to_with(upstream.address, &ground.listener(""), "", ""));
    // TLS 1.2 without its record's header.
    let hello = hello(&ground.client().versions(EACH_VERSION[0]).config(), "a.test");
    for (kind, message) in
        [(HANDSHAKE, &hello[5..]), (HANDSHAKE, &[0; 4][..]), (CHANGE_CIPHER_SPEC, &[1][..])]
    {
        let mut offender = raw(&ground, &gateway, EACH_VERSION[0]);
        let wire = offender.record(kind, message, 0);
        offender.send_wire(wire);
        assert_eq!(offender.last_alert(), Some(UNEXPECTED_MESSAGE));
    }
    let mut offender = raw(&ground, &gateway, EACH_VERSION[0]);
    let mut wire = offender.record(DATA, get("/").as_bytes(), 0);
    wire[20] ^= 1;
    offender.send_wire(wire);
    assert_eq!(offender.last_alert(), Some(BAD_RECORD_MAC));
    nothing_is_left(&gateway);
}

#[test]
fn a_flood_of_renewed_keys_ends_a_connection() {
    let ground = Ground::new();
    let upstream = echo();
    let gateway = Gateway::start(&all_to_with(upstream.address, &ground.listener(""), "", ""));
    let config = ground.client().versions(EACH_VERSION[1]).config();
    let mut client = secure(&gateway, &config);
    (0..20).for_each(|_| client.renew_keys());
    assert_eq!(ask(&mut client, "/a-few"), "/a-few");
    (0..2000).for_each(|_| client.renew_keys());
    client.try_send(get("/too-many"));
    assert!(client.is_ended());
    assert_eq!(client.ending(), Ending::Failed(TlsError::AlertReceived(AlertDescription::UnexpectedMessage)));
    nothing_is_left(&gateway);
}

/// What comes after a record that was changed on its way is no part of the request, and what came before is not all of it.
#[test]
fn a_changed_record_in_a_body_aborts_the_request() {
    let ground = Ground::new();
    let (upstream, seen) = Upstream::witness();
    let gateway = Gateway::start(&all_to_with(upstream.address, &ground.listener(""), "", ""));
    for versions in EACH_VERSION {
        let before = upstream.accepted();
        let mut client = secure(&gateway, &ground.client().versions(versions).config());
        client.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 12\r\n\r\ngood");
        upstream.wait_for(before + 1);
        let mut record = client.records(&[b"evil"]);
        let last = record.len() - 1;
        record[last] ^= 1;
        client.send_wire(record);
        let after = client.records(&[b"more"]);
        client.send_wire(after);
        let seen = String::from_utf8(seen.recv_timeout(support::PATIENCE).unwrap()).unwrap();
        assert!(seen.ends_with("good") || seen.is_empty(), "{seen}");
        assert_eq!(end_of(&gateway), "client-gone");
        assert_ne!(client.ending(), Ending::Said);
    }
    nothing_is_left(&gateway);
}

/// While its response is awaited, and while it is on its way.
#[test]
fn a_changed_record_amid_an_exchange_aborts_it() {
    let ground = Ground::new();
    let (upstream, mut asked) = Upstream::asking();
    let gateway = Gateway::start(&all_to_with(upstream.address, &ground.listener(""), "", ""));
    for begins in [false, true] {
        let mut client = secure(&gateway, &ground.client().config());
        client.send(get("/"));
        let question = asked.question();
        if begins {
            question.part("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
            client.until(b"half");
        }
        let mut record = client.records(&[get("/next").as_bytes()]);
        record[10] ^= 1;
        client.send_wire(record);
        assert_ne!(client.ending(), Ending::Said);
        assert!(client.inbox.is_empty());
        assert_eq!(end_of(&gateway), "client-gone");
        let number = question.connection;
        question.end();
        assert_eq!(asked.ended(), number);
    }
    nothing_is_left(&gateway);
}

// Clients with certificates.

#[test]
fn clients_show_certificates() {
    let ground = Ground::new();
    let people = Mint::new("people");
    let someone = people.pair(&["someone"]);
    let stranger = Mint::new("others").pair(&["someone"]);
    let late = people.expired(&["someone"]);
    let ca = ground.files.write("people.pem", &people.cert);
    for mode in ["require", "optional"] {
        let more = format!(", client_auth = {{ ca = \"{ca}\", mode = \"{mode}\" }}");
        let gateway = Gateway::start(&config(&(ground.listener(&more) + "\n" + HERE)));
        for versions in EACH_VERSION {
            let client = || ground.client().versions(versions);
            for (client, may_enter) in [
                (client().shows(&someone), true),
                (client(), mode == "optional"),
                (client().shows(&stranger), false),
                (client().shows(&late), false),
            ] {
                let entered = try_secure(&gateway, &client.config(), "a.test").and_then(|mut client| {
                    // In TLS 1.3 the client is through before the server has judged.
                    client.try_send(get("/"));
                    let head = client.try_head();
                    head.map_or_else(|| Err(client.ending()), Ok)
                });
                match entered {
                    Ok(head) => assert!(may_enter && head.starts_with("HTTP/1.1 200 "), "{head}"),
                    Err(Ending::Failed(TlsError::AlertReceived(_))) => assert!(!may_enter),
                    Err(ending) => panic!("{ending:?}"),
                }
            }
        }
        nothing_is_left(&gateway);
    }
}

#[test]
fn routes_ask_for_certificates() {
    let ground = Ground::new();
    let people = Mint::new("people");
    let (partner, other) = (people.pair(&["pc.partner.test"]), people.pair(&["pc.other.test"]));
    let ca = ground.files.write("people.pem", &people.cert);
    let more = format!(", client_auth = {{ ca = \"{ca}\", mode = \"optional\" }}");
    let route = |name: &str, uses: &str| {
        format!(
            "[[route]]\nname = \"{name}\"\nmatch.path = \"/{name}\"\nuse = [{uses}]\nrespond = {{ body = \"yes\" }}\n"
        )
    };
    let gateway = Gateway::start(&config(
        &[
            &*ground.listener(&more),
            "\n[[policy]]\nname = \"any\"\nclient_cert = {}\n",
            "[[policy]]\nname = \"partners\"\nclient_cert = { names = [\"*.partner.test\"] }\n",
            &route("any", "\"any\""),
            &route("partners", "\"partners\""),
            &route("open", ""),
        ]
        .concat(),
    ));
    for versions in EACH_VERSION {
        let client = || ground.client().versions(versions);
        for (client, ends) in [
            (client().shows(&partner), ["ok", "ok", "ok"]),
            (client().shows(&other), ["ok", "certificate-refused", "ok"]),
            (client(), ["certificate-missing", "certificate-missing", "ok"]),
        ] {
            let config = client.config();
            for (path, expected) in ["/any", "/partners", "/open"].into_iter().zip(ends) {
                let Ok(mut client) = try_secure(&gateway, &config, "a.test") else {
                    panic!("no handshake");
                };
                client.send(get(path));
                let status = if expected == "ok" { 200 } else { 403 };
                assert!(client.head().starts_with(&format!("HTTP/1.1 {status} ")), "{path}");
                assert_eq!(end_of(&gateway), expected, "{path}");
            }
        }
    }
}

/// What a client's certificate says comes from the certificate alone, and cannot be made to look like another's.
#[test]
fn certificates_are_told_to_endpoints_and_logs() {
    let ground = Ground::new();
    let people = Mint::new("people");
    let ca = ground.files.write("people.pem", &people.cert);
    let more = format!(", client_auth = {{ ca = \"{ca}\", mode = \"optional\" }}");
    let upstream = Upstream::answering(|head, _| ok(head.as_bytes()));
    let edits = "[route.request_headers.set]\nX-Subject = \"{tls.client_subject}\"\nX-Names = \"{tls.client_names}\"\n\
                 X-Fingerprint = \"{tls.client_fingerprint}\"\n";
    let gateway = Gateway::start(&all_to_with(upstream.address, &ground.listener(&more), "", edits));
    let posing = "GET / HTTP/1.1\r\nHost: a.test\r\nX-Subject: CN=root\r\nX_Subject: CN=root\r\nx-names: root\r\n\
                  X-Fingerprint: 00\r\n\r\n";
    let anna = people.person("anna", &["pc.partner.test", "10.0.0.1"]);
    let eve = people.person("eve, CN=anna", &["good.test,admin.test"]);
    for versions in EACH_VERSION {
        let client = || ground.client().versions(versions);
        for (client, shown) in [
            (client().shows(&anna), Some((&anna, "O=people,CN=anna", "pc.partner.test,10.0.0.1"))),
            (client().shows(&eve), Some((&eve, "O=people,CN=eve\\, CN=anna", ""))),
            (client(), None),
        ] {
            let mut client = secure(&gateway, &client.config());
            client.send(posing);
            let seen = client.response().text();
            let (subject, names) = shown.map_or(("", ""), |(_, subject, names)| (subject, names));
            let digest = |pair: &Pair| {
                let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &pair.leaf());
                digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
            };
            let fingerprint = shown.map_or_else(String::new, |(pair, ..)| digest(pair));
            assert_eq!(support::fields(&seen, "x-subject"), [subject]);
            assert_eq!(support::fields(&seen, "x-names"), [names]);
            assert_eq!(support::fields(&seen, "x-fingerprint"), [fingerprint.as_str()]);
            assert!(!seen.contains("root"), "{seen}");
            let line = gateway.log_line();
            let told = ["client_cert", "client_subject", "client_names"].map(|key| line[key].as_str());
            let expected = shown.map(|_| fingerprint.as_str());
            assert_eq!(told, [expected, expected.map(|_| subject), expected.map(|_| names)]);
        }
    }
}

#[test]
fn browsers_are_told_to_come_by_https() {
    let ground = Ground::new();
    let upstream = Upstream::answering(|head, _| {
        if head.starts_with("GET /up/own") {
            let own = "Strict-Transport-Security: max-age=1\r\n";
            return format!("HTTP/1.1 200 OK\r\n{own}Content-Length: 0\r\n\r\n").into_bytes();
        }
        ok(b"")
    });
    let hsts = ", hsts = { max_age = \"365d\", include_subdomains = true, preload = true }";
    let routes = format!(
        "{}\n[[route]]\nname = \"here\"\nmatch = {{ path = \"/here\" }}\nrespond = {{ body = \"yes\" }}\n",
        all_to_with(upstream.address, &ground.listener(hsts), "", "match = { path = \"/up/*\" }")
    );
    let gateway = Gateway::start(&routes);
    let mut client = secure(&gateway, &ground.client().config());
    let expected = "max-age=31536000; includeSubDomains; preload";
    for (path, status, field) in [
        ("/up/a", 200, expected),
        ("/up/own", 200, "max-age=1"),
        ("/here", 200, expected),
        ("/nowhere", 404, expected),
    ] {
        client.send(get(path));
        let response = client.response();
        assert_eq!(response.status, status, "{path}");
        assert_eq!(support::fields(&response.head, "strict-transport-security"), [field], "{path}");
    }
    // A head that is refused is answered so too, as is a request over a plain listener without it.
    client.send("GET / HTTP/1.1\r\n\r\n");
    let response = client.response();
    assert_eq!(
        (response.status, response.field("strict-transport-security").as_deref()),
        (400, Some(expected))
    );
}

#[test]
fn silence_and_age_end_websockets_over_tls() {
    let ground = Ground::new();
    for (timeouts, end) in
        [("tunnel_idle = \"300ms\"", "tunnel-idle"), ("tunnel_age = \"300ms\"", "tunnel-aged")]
    {
        let (upstream, accepted) = Upstream::manual();
        let listener = format!("{}\ntimeouts = {{ {timeouts} }}", ground.listener(""));
        let gateway = Gateway::start(&all_to_with(upstream.address, &listener, "", ""));
        let mut client = secure(&gateway, &ground.client().config());
        client.send(
            "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
        );
        let mut server = accepted.next();
        server.head();
        server.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
        assert!(client.head().starts_with("HTTP/1.1 101 "));
        server.rest();
        assert_eq!(end_of(&gateway), end);
        nothing_is_left(&gateway);
    }
}

// Towards endpoints.

/// A gateway without TLS towards its clients, before this endpoint, with these keys of `tls`.
fn before(endpoint: SocketAddr, tls: &str, more: &str) -> Gateway {
    Gateway::start(&all_to_with(endpoint, "", &format!("tls = {{ {tls} }}\n{more}"), ""))
}

#[test]
fn an_endpoint_is_who_it_should_be() {
    let ground = Ground::new();
    let ca = format!("ca = \"{}\"", ground.root_file());
    let named = format!("{ca}, server_name = \"up.test\"");
    let wild = format!("{ca}, server_name = \"x.up.test\"");
    let refused = (502, "upstream-certificate");
    let good = (200, "ok");
    let (root, others) = (&ground.root, Mint::new("others"));
    for versions in EACH_VERSION {
        let cases = [
            ("named", root.pair(&["up.test"]), named.as_str(), good),
            ("one of many names", root.pair(&["*.up.test", "up.test"]), &named, good),
            ("wildcard", root.pair(&["*.up.test"]), &wild, good),
            ("rsa", root.rsa(&["up.test"]), &named, good),
            ("by address", root.pair(&["127.0.0.1"]), &ca, good),
            ("another name", root.pair(&["other.test"]), &named, refused),
            ("an address instead of a name", root.pair(&["127.0.0.1"]), &named, refused),
            ("a name instead of an address", root.pair(&["up.test"]), &ca, refused),
            ("another authority", others.pair(&["up.test"]), &named, refused),
            ("expired", root.expired(&["up.test"]), &named, refused),
            ("anyone", others.expired(&["other.test"]), "verify = false", good),
        ];
        let mut rest = String::new();
        let mut upstreams = Vec::new();
        for (number, (_, pair, tls, _)) in cases.iter().enumerate() {
            let upstream = secured_upstream(&server(pair, versions, None), |_, _, _| ok(b"hello"));
            rest += &format!(
                "[[cluster]]\nname = \"{number}\"\nendpoints = [{{ address = \"{}\" }}]\ntls = {{ {tls} }}\n\
                 [[route]]\nname = \"{number}\"\nmatch = {{ path = \"/{number}\" }}\ncluster = \"{number}\"\n",
                upstream.address
            );
            upstreams.push(upstream);
        }
        let gateway = Gateway::start(&config(&rest));
        for (number, (what, _, _, (status, end))) in cases.iter().enumerate() {
            let got = outcome(&gateway, &get(&format!("/{number}")));
            assert_eq!(got, (*status, (*end).to_owned()), "{what}");
        }
        nothing_is_left(&gateway);
    }
}

#[test]
fn the_systems_authorities_are_believed_where_none_are_named() {
    let ground = Ground::new();
    let config = server(&ground.root.pair(&["up.test"]), BOTH_VERSIONS, None);
    let upstream = secured_upstream(&config, |_, _, _| ok(b"hello"));
    let text = all_to_with(upstream.address, "", "tls = { server_name = \"up.test\" }", "");
    let others = ground.files.write("others.pem", &Mint::new("others").cert);
    for (system, expected) in
        [(ground.root_file(), (200, "ok".to_owned())), (others, (502, "upstream-certificate".to_owned()))]
    {
        let gateway = Gateway::start_with(&text, &[("SSL_CERT_FILE", &system)]);
        assert_eq!(outcome(&gateway, &get("/")), expected);
    }
}

#[test]
fn an_endpoint_is_asked_for_its_name() {
    let ground = Ground::new();
    let ca = format!("ca = \"{}\"", ground.root_file());
    let config = server(&ground.root.pair(&["up.test", "127.0.0.1"]), BOTH_VERSIONS, None);
    let upstream = secured_upstream(&config, |peer, head, _| {
        assert_eq!(peer.version(), ProtocolVersion::TLSv1_3);
        ok(format!("{:?} for {}", peer.asked_name(), field(head, "host").unwrap()).as_bytes())
    });
    for (tls, expected) in
        [(format!("{ca}, server_name = \"up.test\""), "Some(\"up.test\") for a"), (ca, "None for a")]
    {
        let gateway = before(upstream.address, &tls, "");
        assert_eq!(ask(&mut gateway.connect(), "/"), expected);
    }
}

#[test]
fn an_endpoint_that_does_not_speak_tls() {
    let plain = Upstream::scripted(|mut peer, _| {
        peer.more();
        peer.send("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    });
    let closing = Upstream::scripted(|mut peer, _| {
        peer.more();
    });
    let resetting = Upstream::scripted(|mut peer, _| {
        peer.more();
        peer.reset();
    });
    let alerting = Upstream::scripted(|mut peer, _| {
        peer.more();
        peer.send([21, 3, 3, 0, 2, 2, 40]);
    });
    for upstream in [plain, closing, resetting, alerting] {
        let gateway = before(upstream.address, "verify = false", "");
        assert_eq!(outcome(&gateway, &get("/")), (502, "upstream-tls-failed".into()));
        assert_eq!(outcome(&gateway, &post("/", "body")), (502, "upstream-tls-failed".into()));
        nothing_is_left(&gateway);
        assert_eq!(gateway.figure("upstream_connections_active"), 0);
    }
    let silent = Upstream::scripted(|mut peer, _| drop(peer.rest()));
    let gateway = before(silent.address, "verify = false", "timeouts = { connect = \"100ms\" }");
    assert_eq!(outcome(&gateway, &get("/")), (504, "connect-timeout".into()));
    nothing_is_left(&gateway);
}

#[test]
fn another_endpoint_serves_in_place_of_one_that_is_not_believed() {
    let ground = Ground::new();
    let bad =
        secured_upstream(&server(&Mint::new("others").pair(&["up.test"]), BOTH_VERSIONS, None), |_, _, _| {
            ok(b"bad")
        });
    let good = secured_upstream(&server(&ground.root.pair(&["up.test"]), BOTH_VERSIONS, None), |_, _, _| {
        ok(b"good")
    });
    let tls = format!("tls = {{ ca = \"{}\", server_name = \"up.test\" }}", ground.root_file());
    let gateway = Gateway::start(&config(&cluster(&[bad.address, good.address], &tls)));
    let mut client = gateway.connect();
    for _ in 0..10 {
        assert_eq!(ask(&mut client, "/"), "good");
        client.send(post("/", "body"));
        assert_eq!(client.response().text(), "good");
    }
}

#[test]
fn an_endpoint_sees_the_gateways_certificate() {
    let ground = Ground::new();
    let gates = Mint::new("gates");
    let own = gates.pair(&["gate"]);
    let leaf = own.leaf();
    let tls = format!("ca = \"{}\", server_name = \"up.test\"", ground.root_file());
    let shows = format!("{tls}, client_cert = {}", ground.files.pair("gate", &own));
    for versions in EACH_VERSION {
        let config = server(&ground.root.pair(&["up.test"]), versions, Some(&gates));
        let leaf = leaf.clone();
        let upstream = secured_upstream(&config, move |peer, _, _| {
            ok(if peer.certificate().as_ref() == Some(&leaf) { b"known" } else { b"other" })
        });
        let gateway = before(upstream.address, &shows, "");
        assert_eq!(ask(&mut gateway.connect(), "/"), "known");
        let gateway = before(upstream.address, &tls, "");
        let (status, end) = outcome(&gateway, &get("/"));
        assert_eq!(status, 502, "{end}");
        nothing_is_left(&gateway);
    }
}

#[test]
fn sessions_with_endpoints_are_resumed() {
    let ground = Ground::new();
    let tls = format!("ca = \"{}\", server_name = \"up.test\"", ground.root_file());
    for versions in EACH_VERSION {
        let config = server(&ground.root.pair(&["up.test"]), versions, None);
        let upstream =
            secured_upstream(&config, |peer, _, _| ok(if peer.is_resumed() { b"again" } else { b"first" }));
        let gateway = before(upstream.address, &tls, "pool = { max_idle = 0 }");
        let mut client = gateway.connect();
        assert_eq!(ask(&mut client, "/"), "first");
        for _ in 0..5 {
            assert_eq!(ask(&mut client, "/"), "again");
        }
        assert_eq!(upstream.accepted(), 6);
    }
}

#[test]
fn connections_to_endpoints_are_kept() {
    let ground = Ground::new();
    let config = server(&ground.root.pair(&["up.test"]), BOTH_VERSIONS, None);
    let upstream = secured_upstream(&config, |_, head, body| echoed(head, body));
    let tls = format!("tls = {{ ca = \"{}\", server_name = \"up.test\" }}", ground.root_file());
    for driver in DRIVERS {
        let before = upstream.accepted();
        let gateway = Gateway::start(&on(driver, &all_to_with(upstream.address, "", &tls, "")));
        let mut client = gateway.connect();
        for number in 0..100 {
            let path = format!("/{number}");
            assert_eq!(ask(&mut client, &path), path);
            client.send(upload(&body(number * 500 + 1), number % 2 == 0));
            assert!(client.response().body == body(number * 500 + 1), "{number}: changed");
        }
        assert_eq!(upstream.accepted() - before, 1);
        drop(client);
        nothing_is_left(&gateway);
    }
}

/// A connection that was made by other rules is another connection, wherever it leads.
#[test]
fn clusters_with_other_rules_share_no_connections() {
    let ground = Ground::new();
    let config = server(&ground.root.pair(&["up.test"]), BOTH_VERSIONS, None);
    let upstream = Upstream::scripted(move |peer, number| {
        let mut first = [0];
        let is_secured = peer.stream.peek(&mut first).is_ok_and(|_| first[0] == 22);
        let answer = |peer: &Peer, _: &str, _: &[u8]| {
            let name = is_secured.then(|| peer.asked_name());
            ok(format!("{number} {name:?}").as_bytes())
        };
        if !is_secured {
            answer_all(peer, answer);
        } else if let Ok(peer) = peer.serving(&config) {
            answer_all(peer, answer);
        }
    });
    let root = ground.root_file();
    let other = ground.files.write("other.pem", &Mint::new("others").cert);
    let mut rest = String::new();
    for (name, tls) in [
        ("blind", "tls = { verify = false, server_name = \"up.test\" }".to_owned()),
        ("plain", String::new()),
        ("named", format!("tls = {{ ca = \"{root}\", server_name = \"up.test\" }}")),
        ("unbelieving", format!("tls = {{ ca = \"{other}\", server_name = \"up.test\" }}")),
        ("unnamed", "tls = { verify = false }".to_owned()),
    ] {
        rest += &format!(
            "[[cluster]]\nname = \"{name}\"\nendpoints = [{{ address = \"{}\" }}]\n{tls}\n\
             [[route]]\nname = \"{name}\"\nmatch = {{ path = \"/{name}\" }}\ncluster = \"{name}\"\n",
            upstream.address
        );
    }
    let gateway = Gateway::start(&support::config(&rest));
    let mut client = gateway.connect();
    let mut seen: Vec<(String, String)> = Vec::new();
    for _ in 0..3 {
        for (name, sees) in [
            ("blind", "Some(Some(\"up.test\"))"),
            ("plain", "None"),
            ("named", "Some(Some(\"up.test\"))"),
            ("unnamed", "Some(None)"),
        ] {
            let answer = ask(&mut client, &format!("/{name}"));
            let (number, rest) = answer.split_once(' ').unwrap();
            assert_eq!(rest, sees, "{name}");
            seen.push((name.to_owned(), number.to_owned()));
        }
        client.send(get("/unbelieving"));
        assert_eq!(client.response().status, 502);
    }
    let distinct: HashSet<_> = seen.iter().collect();
    let numbers: HashSet<_> = seen.iter().map(|(_, number)| number).collect();
    assert_eq!((distinct.len(), numbers.len()), (4, 4), "{seen:?}");
}

#[test]
fn bodies_from_tls_to_tls_come_back_as_they_went() {
    let ground = Ground::new();
    let tls = format!("tls = {{ ca = \"{}\", server_name = \"up.test\" }}", ground.root_file());
    for (driver, versions, upper) in [
        ("auto", EACH_VERSION[1], EACH_VERSION[1]),
        ("auto", EACH_VERSION[0], EACH_VERSION[1]),
        ("auto", EACH_VERSION[1], EACH_VERSION[0]),
        ("epoll", EACH_VERSION[1], EACH_VERSION[1]),
    ] {
        let config = server(&ground.root.pair(&["up.test"]), upper, None);
        let upstream = secured_upstream(&config, |_, head, body| echoed(head, body));
        let text = all_to_with(upstream.address, &ground.listener(""), &tls, "");
        let gateway = Gateway::start(&on(driver, &text));
        let mut client = secure(&gateway, &ground.client().versions(versions).config());
        for is_chunked in [false, true] {
            for length in [1, 16_384, 16_385, 65_536, 5 * MIB] {
                let sent = body(length);
                client.send(upload(&sent, is_chunked));
                assert!(client.response().body == sent, "{length}: it came back changed");
            }
        }
        assert_eq!(upstream.accepted(), 1);
        drop(client);
        nothing_is_left(&gateway);
    }
}

#[test]
fn an_endpoint_renews_keys_amid_its_responses() {
    let ground = Ground::new();
    let config = server(&ground.root.pair(&["up.test"]), EACH_VERSION[1], None);
    let (sender, renewals) = channel();
    let sender = std::sync::Mutex::new(sender);
    let upstream = Upstream::scripted(move |peer, _| {
        let mut peer = peer.serving(&config).unwrap();
        while let Some(head) = peer.try_head() {
            let body = request_body(&mut peer, &head);
            let renewed = peer.received_records().iter().filter(|record| record.1 == 22).count();
            sender.lock().unwrap().send(renewed).unwrap();
            for piece in ok(&body).chunks(70_000) {
                peer.renew_keys();
                peer.send(piece);
            }
        }
    });
    let tls = format!("ca = \"{}\", server_name = \"up.test\"", ground.root_file());
    let gateway = before(upstream.address, &tls, "");
    let mut client = gateway.connect();
    for number in 0..10 {
        let sent = body(number * 30_000 + 1);
        client.send(upload(&sent, false));
        assert!(client.response().body == sent, "{number}: it came back changed");
        let renewed = renewals.recv_timeout(support::PATIENCE).unwrap();
        // Once for all that was asked before.
        assert_eq!(renewed > 0, number > 0, "{number}");
    }
    assert_eq!(upstream.accepted(), 1);
}

/// Tickets behind a response are no answer to the next request, nor a death of the connection.
#[test]
fn an_endpoint_that_closes_a_kept_connection_costs_nothing() {
    let ground = Ground::new();
    let config = server(&ground.root.pair(&["up.test"]), BOTH_VERSIONS, None);
    let upstream = Upstream::scripted(move |peer, number| {
        let mut peer = peer.serving(&config).unwrap();
        peer.head();
        peer.send(ok(b"one"));
        // In turn with a word, without one, and with what no one asked for.
        match number % 3 {
            0 => peer.say_close(),
            1 => {}
            _ => peer.send(ok(b"poison")),
        }
    });
    let tls = format!("ca = \"{}\", server_name = \"up.test\"", ground.root_file());
    let gateway = before(upstream.address, &tls, "");
    let mut client = gateway.connect();
    for number in 1..=9 {
        assert_eq!(ask(&mut client, "/"), "one");
        within("it is found dead", || (gateway.figure("upstream_connections_active") == 0).then_some(()));
        assert_eq!(upstream.accepted(), number);
    }
    drop(client);
    nothing_is_left(&gateway);
}

#[test]
fn a_changed_record_of_an_endpoint_is_no_response() {
    let ground = Ground::new();
    let config = server(&ground.root.pair(&["up.test"]), BOTH_VERSIONS, None);
    let upstream = Upstream::scripted(move |peer, _| {
        let mut peer = peer.serving(&config).unwrap();
        let head = peer.head();
        if head.starts_with("GET /later ") {
            peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n");
        }
        let mut record = peer.records(&[b"4\r\nevil\r\n0\r\n\r\n"]);
        record[12] ^= 1;
        peer.send_wire(record);
        peer.rest();
    });
    let tls = format!("ca = \"{}\", server_name = \"up.test\"", ground.root_file());
    let gateway = before(upstream.address, &tls, "");
    assert_eq!(outcome(&gateway, &post("/now", "x")).0, 502);
    let mut client = gateway.connect();
    client.send(get("/later"));
    client.head();
    let rest = String::from_utf8(client.rest()).unwrap();
    assert!(!rest.contains("evil") && !rest.contains("0\r\n\r\n"), "{rest}");
    assert_eq!(end_of(&gateway), "response-truncated");
    nothing_is_left(&gateway);
}

// Files that change.

#[test]
fn a_new_certificate_is_taken_and_a_broken_one_is_not() {
    let ground = Ground::new();
    let workers = thread::available_parallelism().unwrap().get().min(2);
    let text =
        config(&(ground.listener("") + "\n" + HERE)).replace("workers = 1", &format!("workers = {workers}"));
    let gateway = Gateway::start(&text);
    let client = ground.client().config();
    let fresh = || secure(&gateway, &ground.client().config()).certificate();
    let mut kept = secure(&gateway, &client);
    ask(&mut kept, "/");
    assert!(fresh() == Some(ground.pair.leaf()));

    let second = ground.root.pair(&["a.test"]);
    ground.files.pair("a", &second);
    gateway.message("new certificates are in force");
    // On every core.
    within("the new certificate, often in a row", || {
        (0..10).all(|_| fresh() == Some(second.leaf())).then_some(())
    });
    assert_eq!(ask(&mut kept, "/"), "yes, by https");

    // A key that is another certificate's, then no certificate at all.
    let third = ground.root.pair(&["a.test"]);
    ground.files.write("a.key", &third.key);
    let said = gateway.message("stay in force");
    assert!(said.contains("ERROR") && said.contains("listener `public`"), "{said}");
    assert!(said.contains("certificates[0]"), "{said}");
    assert!(fresh() == Some(second.leaf()));
    ground.files.write("a.crt", "-----BEGIN CERTIFICATE-----\nbroken\n-----END CERTIFICATE-----\n");
    gateway.message("stay in force");
    assert!(fresh() == Some(second.leaf()));
    assert_eq!(gateway.figure("certificates_refused"), 2);

    // And all is well again.
    ground.files.pair("a", &third);
    gateway.message("new certificates are in force");
    within("the third one", || (0..10).all(|_| fresh() == Some(third.leaf())).then_some(()));
    assert_eq!(ask(&mut kept, "/"), "yes, by https");
    assert_eq!(gateway.figure("certificates_taken"), 2);
}

#[test]
fn new_authorities_are_taken_for_endpoints_and_for_clients() {
    let ground = Ground::new();
    let (people, others) = (Mint::new("people"), Mint::new("others"));
    let upstream =
        secured_upstream(&server(&others.pair(&["up.test"]), BOTH_VERSIONS, None), |_, _, _| ok(b"up"));
    let tls =
        format!("tls = {{ ca = \"{}\", server_name = \"up.test\" }}", ground.files.write("ca", &people.cert));
    let ca = ground.files.write("people.pem", &others.cert);
    let listener = ground.listener(&format!(", client_auth = {{ ca = \"{ca}\" }}"));
    let gateway = Gateway::start(&all_to_with(upstream.address, &listener, &tls, ""));
    let someone = ground.client().shows(&others.pair(&["someone"])).config();
    let mut kept = secure(&gateway, &someone);
    kept.send(get("/"));
    assert_eq!(kept.response().status, 502);
    ground.files.write("ca", &others.cert);
    ground.files.write("people.pem", &people.cert);
    within("the endpoint is believed", || {
        kept.send(get("/"));
        (kept.response().status == 200).then_some(())
    });
    // Who was let in stays; who comes must be known by now, and no ticket helps.
    within("someone is a stranger", || {
        let mut client = try_secure(&gateway, &someone, "a.test").ok();
        let Some(client) = &mut client else { return Some(()) };
        client.try_send(get("/"));
        client.try_head().is_none().then_some(())
    });
    let known = ground.client().shows(&people.pair(&["known"])).config();
    assert_eq!(ask(&mut secure(&gateway, &known), "/"), "up");
    assert_eq!(ask(&mut kept, "/"), "up");
}

// The end of the gateway.

#[test]
fn a_drain_finishes_what_is_under_way_and_closes_what_is_idle() {
    let ground = Ground::new();
    for driver in DRIVERS {
        let (upstream, mut asked) = Upstream::asking();
        let text = all_to_with(upstream.address, &ground.listener(""), "", "");
        let mut gateway = Gateway::start(&on(driver, &text));
        let mut clients: Vec<_> = EACH_VERSION
            .into_iter()
            .map(|versions| {
                let mut client = secure(&gateway, &ground.client().versions(versions).config());
                client.send(get("/"));
                (client, asked.question())
            })
            .collect();
        let mut idle = secure(&gateway, &ground.client().config());
        idle.send(get("/"));
        asked.question().ok("before");
        assert_eq!(idle.response().text(), "before");
        let mut silent = secure(&gateway, &ground.client().config());
        let mut half_open = gateway.connect();
        half_open.send(&hello(&ground.client().config(), "a.test")[..100]);
        gateway.signal("TERM");
        within("the listener is closed", || TcpStream::connect(gateway.address()).is_err().then_some(()));
        for (client, question) in &mut clients {
            question.part("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nlate");
            assert_eq!(field(&client.head(), "connection").as_deref(), Some("close"));
        }
        for (mut client, question) in clients {
            question.part("late");
            question.end();
            assert_eq!(client.exactly(8), b"latelate");
            assert_eq!(client.ending(), Ending::Said);
        }
        assert_eq!((idle.ending(), silent.ending()), (Ending::Said, Ending::Said));
        assert!(half_open.is_ended());
        assert_eq!(gateway.wait().code(), Some(0));
    }
}

#[test]
fn an_idle_connection_may_bring_one_more_request_while_draining() {
    let ground = Ground::new();
    let mut gateway = Gateway::start(&config(&(ground.listener("") + "\n" + HERE)));
    let mut client = secure(&gateway, &ground.client().config());
    ask(&mut client, "/");
    gateway.signal("TERM");
    within("the listener is closed", || TcpStream::connect(gateway.address()).is_err().then_some(()));
    client.send(get("/"));
    let response = client.response();
    assert_eq!((response.status, response.field("connection").as_deref()), (200, Some("close")));
    assert_eq!(client.ending(), Ending::Said);
    assert!(gateway.wait().success());
}

#[test]
fn a_drain_under_load_loses_no_request() {
    let ground = Ground::new();
    let served = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&served);
    let upstream = Upstream::answering(move |_, body| {
        counter.fetch_add(1, Ordering::SeqCst);
        ok(body)
    });
    let text = all_to_with(upstream.address, &ground.listener(""), "", "");
    for driver in DRIVERS {
        served.store(0, Ordering::SeqCst);
        let mut gateway = Gateway::start(&on(driver, &text));
        let clients: Vec<_> = (0..8)
            .map(|number| {
                let versions = EACH_VERSION[number % 2];
                let mut client = secure(&gateway, &ground.client().versions(versions).config());
                thread::spawn(move || {
                    let sent = body(1 + number * 5000);
                    for answered in 1.. {
                        client.send(upload(&sent, false));
                        let response = client.response();
                        assert_eq!(response.status, 200, "{}", response.text());
                        assert!(response.body == sent, "it came back changed");
                        if response.field("connection").as_deref() == Some("close") {
                            assert_eq!(client.ending(), Ending::Said);
                            return answered;
                        }
                    }
                    0
                })
            })
            .collect();
        within("some load", || (served.load(Ordering::SeqCst) > 200).then_some(()));
        gateway.signal("TERM");
        let answered: usize = clients.into_iter().map(|client| client.join().unwrap()).sum();
        assert_eq!(gateway.wait().code(), Some(0));
        assert_eq!(answered, served.load(Ordering::SeqCst));
    }
}

// Connections that become something else.

const WEBSOCKET: &str = "GET /chat HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// A WebSocket through the gateway, secured on the client's side and, if so, the endpoint's.
fn websocket(ground: &Ground, driver: &str, is_secured_above: bool) -> (Gateway, Peer, Peer) {
    let (upstream, accepted) = Upstream::manual();
    let tls = format!("tls = {{ ca = \"{}\", server_name = \"up.test\" }}", ground.root_file());
    let tls = if is_secured_above { &tls } else { "" };
    let text = all_to_with(upstream.address, &ground.listener(""), tls, "");
    let gateway = Gateway::start(&on(driver, &text));
    let mut client = secure(&gateway, &ground.client().config());
    // What comes with the request, and with the answer, is kept.
    client.send([WEBSOCKET, "early"].concat());
    let mut endpoint = accepted.next();
    if is_secured_above {
        endpoint = endpoint.serving(&server(&ground.root.pair(&["up.test"]), BOTH_VERSIONS, None)).unwrap();
    }
    assert_eq!(field(&endpoint.head(), "upgrade").as_deref(), Some("websocket"));
    endpoint.send([SWITCHED, "early too"].concat());
    assert!(client.head().starts_with("HTTP/1.1 101 "));
    assert_eq!(client.exactly(9), b"early too");
    assert_eq!(endpoint.exactly(5), b"early");
    (gateway, client, endpoint)
}

#[test]
fn a_websocket_carries_both_ways_and_ends_one_way_at_a_time() {
    let ground = Ground::new();
    for (driver, is_secured_above) in [("auto", false), ("auto", true), ("epoll", false), ("epoll", true)] {
        let (gateway, mut client, mut endpoint) = websocket(&ground, driver, is_secured_above);
        for number in 0_u8..50 {
            let frame = [0x81, 0x85, number, 0, 255, number, b'\r', b'\n', b'\r', b'\n'];
            client.send(frame);
            assert_eq!(endpoint.exactly(frame.len()), frame);
            endpoint.send(b"HTTP/1.1 200 OK\r\n\r\n");
            assert_eq!(client.exactly(19), b"HTTP/1.1 200 OK\r\n\r\n");
        }
        client.renew_keys();
        client.send("renewed");
        assert_eq!(endpoint.exactly(7), b"renewed");
        // The client ends first, and still hears.
        client.send("last words");
        client.say_close();
        assert_eq!(endpoint.rest(), b"last words");
        endpoint.send("and an answer");
        assert_eq!(client.exactly(13), b"and an answer");
        if is_secured_above {
            assert_eq!(endpoint.ending(), Ending::Said);
            endpoint.say_close();
        } else {
            endpoint.finish();
        }
        assert_eq!(client.ending(), Ending::Said);
        drop((client, endpoint));
        assert_eq!(end_of(&gateway), "ok");
        nothing_is_left(&gateway);
    }
}

#[test]
fn much_passes_a_websocket_both_ways_at_once() {
    let ground = Ground::new();
    for (driver, is_secured_above) in [("auto", false), ("auto", true), ("epoll", true)] {
        let (_gateway, client, endpoint) = websocket(&ground, driver, is_secured_above);
        let sides = [client, endpoint].map(|side| {
            let (mut reader, mut writer) = if side.is_secured() {
                (side.twin(), side)
            } else {
                (Peer::new(side.stream.try_clone().unwrap()), side)
            };
            let writing = thread::spawn(move || {
                writer.send(body(2 * MIB));
                writer
            });
            let reading = thread::spawn(move || {
                assert!(reader.exactly(2 * MIB) == body(2 * MIB), "it came changed");
            });
            (writing, reading)
        });
        for (writing, reading) in sides {
            reading.join().unwrap();
            writing.join().unwrap();
        }
    }
}

#[test]
fn a_websocket_whose_side_breaks_takes_the_other_along() {
    let ground = Ground::new();
    for (driver, is_secured_above) in [("auto", false), ("auto", true), ("epoll", true)] {
        // A stream's end without a word is a break.
        let (gateway, client, mut endpoint) = websocket(&ground, driver, is_secured_above);
        client.stream.shutdown(Shutdown::Write).unwrap();
        assert!(endpoint.is_ended());
        assert_eq!(end_of(&gateway), "tunnel-broken");
        drop((client, endpoint));
        nothing_is_left(&gateway);
        let (gateway, mut client, endpoint) = websocket(&ground, driver, is_secured_above);
        endpoint.reset();
        assert!(client.is_ended());
        assert_eq!(end_of(&gateway), "tunnel-broken");
        drop(client);
        nothing_is_left(&gateway);
    }
}

/// Who cuts one side must not make the other believe that all was said.
#[test]
fn a_websocket_that_is_cut_on_one_side_does_not_look_whole_on_the_other() {
    let ground = Ground::new();
    for driver in DRIVERS {
        let (_gateway, client, mut endpoint) = websocket(&ground, driver, true);
        client.stream.shutdown(Shutdown::Write).unwrap();
        assert_ne!(endpoint.ending(), Ending::Said);
        let (_gateway, mut client, endpoint) = websocket(&ground, driver, true);
        endpoint.stream.shutdown(Shutdown::Write).unwrap();
        assert_ne!(client.ending(), Ending::Said);
    }
}

// A judge.

/// What Mozilla recommends, looked at from outside: versions, suites, groups, the certificate, and known holes.
#[test]
fn sslyze_finds_mozillas_intermediate_configuration() {
    let python = repository("target/venv/bin/python");
    let has_sslyze = Command::new(&python).args(["-c", "import sslyze"]).output();
    assert!(
        has_sslyze.is_ok_and(|out| out.status.success()),
        "sslyze, in target/venv, is missing; `scripts/install-tools --tests` installs what the tests need"
    );
    let ground = Ground::new();
    let pair = ground.root.short_lived(&["a.test"]);
    let listener = secured(&[ground.files.pair("short", &pair)], "");
    let gateway = Gateway::start(&config(&(listener + "\n" + HERE)));
    let out = Command::new(python)
        .args(["-m", "sslyze", "--mozilla_config=intermediate"])
        .arg(format!("--certinfo_ca_file={}", ground.root_file()))
        .arg(format!("a.test:{}{{127.0.0.1}}", gateway.address().port()))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(
        out.status.success() && said.contains("OK - Compliant"),
        "{said}{}",
        String::from_utf8_lossy(&out.stderr)
    );
    assert_eq!(ask(&mut secure(&gateway, &ground.client().config()), "/"), "yes, by https");
    nothing_is_left(&gateway);
}
