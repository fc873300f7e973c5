//! gRPC through the real binary: the official implementation for Python calls, and serves, with TLS and without; and what
//! the gateway says by itself is looked at frame by frame, as far as `h2` shows it.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests run no data plane")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(unreachable_pub, dead_code, reason = "modules of which this binary uses a part")]

#[path = "support/http2.rs"]
mod h2peers;
mod support;

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
};

use bytes::Bytes;
use h2peers::{Answer, Client, Server, Trust, fields, request};
use support::{Gateway, Response, all_received, all_to_with, closed_port, config, field, repository};

const H2C: &str = "h2c = true";

/// A script of `tests/clients`, with the venv's Python.
fn python(script: &str) -> Command {
    let python = repository("target/venv/bin/python");
    assert!(python.is_file(), "target/venv is missing; `scripts/install-tools --tests` makes it");
    let mut command = Command::new("timeout");
    command.arg("100").arg(python).arg(repository("tests/clients").join(script));
    for name in
        ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "grpc_proxy"]
    {
        command.env_remove(name);
    }
    command
}

/// A server of gRPC. It ends with its standard input.
struct Grpc {
    child: Child,
    address: SocketAddr,
}

impl Grpc {
    fn start(trust: Option<&Trust>) -> Self {
        let mut command = python("grpc_server.py");
        if let Some(trust) = trust {
            command.args(trust.pair());
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let port: u16 = line.trim().parse().expect("the server's port");
        Self { child, address: ([127, 0, 0, 1], port).into() }
    }
}

impl Drop for Grpc {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// Runs checks of the caller's script against a target.
fn passes(checks: &str, target: SocketAddr, trust: Option<&Trust>) {
    let mut command = python("grpc_client.py");
    command.args([checks, &target.to_string()]);
    if let Some(trust) = trust {
        command.arg(trust.root());
    }
    let run = command.output().unwrap();
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{checks}: {}\n{said}", run.status);
}

const ALL: &str = "unary,metadata,errors,streams,large,cancellation";

fn before(endpoint: SocketAddr, route: &str) -> Gateway {
    Gateway::start(&all_to_with(endpoint, H2C, "protocol = \"h2\"", route))
}

#[test]
fn calls_without_tls() {
    let server = Grpc::start(None);
    // The checks hold without a gateway.
    passes(ALL, server.address, None);
    let gateway = before(server.address, "");
    passes(ALL, gateway.address(), None);
    assert_eq!(gateway.log_line()["version"], "2");
    gateway.wait_for_figure("exchanges_active", 0);
    assert_eq!(gateway.figure("panics"), 0);
}

#[test]
fn calls_by_tls_on_both_sides() {
    let trust = Trust::new();
    let server = Grpc::start(Some(&trust));
    for protocol in ["h2", "auto"] {
        let cluster = format!("protocol = \"{protocol}\"\n{}", trust.cluster());
        let gateway = Gateway::start(&all_to_with(server.address, &trust.listener(""), &cluster, ""));
        passes(ALL, gateway.address(), Some(&trust));
        assert_eq!(gateway.figure("panics"), 0);
    }
}

#[test]
fn calls_by_tls_on_one_side() {
    let trust = Trust::new();
    let plain = Grpc::start(None);
    let gateway = Gateway::start(&all_to_with(plain.address, &trust.listener(""), "protocol = \"h2\"", ""));
    passes(ALL, gateway.address(), Some(&trust));
    let secure = Grpc::start(Some(&trust));
    let cluster = format!("protocol = \"h2\"\n{}", trust.cluster());
    passes(ALL, Gateway::start(&all_to_with(secure.address, H2C, &cluster, "")).address(), None);
}

#[test]
fn flags_of_compression_are_passed_on() {
    let server = Server::answering(|head, body| {
        let encoding = head.headers["grpc-encoding"].to_str().unwrap();
        let accepted = head.headers["grpc-accept-encoding"].to_str().unwrap();
        Answer {
            fields: fields(&[
                ("content-type", "application/grpc"),
                ("grpc-encoding", encoding),
                ("grpc-accept-encoding", accepted),
            ]),
            trailers: fields(&[("grpc-status", "0")]),
            ..Answer::ok(body)
        }
    });
    let gateway = before(server.address, "");
    let client = Client::connect(gateway.address());
    let head = request(
        "POST",
        "http://a/a.B/C",
        &[
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            ("grpc-encoding", "gzip"),
            ("grpc-accept-encoding", "identity,gzip"),
        ],
    );
    // One message that says it is compressed, and one that is not; nobody on the way looks inside.
    let messages = Bytes::from_static(b"\x01\0\0\0\x02\xff\0\0\0\0\0\x01a");
    let answer = client.ask(head, messages.clone());
    assert_eq!(answer.body.as_slice(), &messages[..]);
    assert_eq!(answer.field("grpc-encoding"), Some("gzip"));
    assert_eq!(answer.field("grpc-accept-encoding"), Some("identity,gzip"));
}

#[test]
fn what_the_gateway_says_of_failures() {
    let (closed, _guard) = closed_port();
    passes("unavailable", before(closed, "").address(), None);
    let server = Grpc::start(None);
    let gateway = before(server.address, "match = { path = \"/test.Echo/*\" }");
    passes("unimplemented", gateway.address(), None);
    // One method's time is short.
    let rest = format!(
        "{H2C}\n[[cluster]]\nname = \"all\"\nendpoints = [{{ address = \"{}\" }}]\nprotocol = \"h2\"\n\
         [[route]]\nname = \"all\"\ncluster = \"all\"\n\
         [[route]]\nname = \"short\"\nmatch = {{ path = \"/test.Echo/Silent\" }}\ntimeout = \"200ms\"\ncluster = \"all\"\n",
        server.address
    );
    passes("late", Gateway::start(&config(&rest)).address(), None);
}

/// A call's head, with this `grpc-timeout`.
fn call(path: &str, timeout: &str) -> http::Request<()> {
    let fields = [("content-type", "application/grpc"), ("te", "trailers"), ("grpc-timeout", timeout)];
    request("POST", &format!("http://a{path}"), &fields)
}

/// A message of five bytes behind its head.
fn message() -> Bytes {
    Bytes::from_static(b"\0\0\0\0\x05hello")
}

/// The status of a response that is nothing else ("Trailers-Only").
fn status_alone(answer: &Answer) -> Option<&str> {
    assert_eq!((answer.status, answer.field("content-type")), (200, Some("application/grpc")));
    assert!(answer.body.is_empty() && answer.trailers.is_empty(), "{answer:?}");
    assert!(answer.field("grpc-message").is_some());
    answer.field("grpc-status")
}

#[test]
fn the_callers_deadline_is_the_gateways() {
    let (server, mut asked) = Server::asking(h2::server::Builder::new(), None);
    let gateway = before(server.address, "");
    let client = Client::connect(gateway.address());
    for timeout in ["150m", "100000u", "1000n"] {
        let mut exchange = client.begin(call("/a.B/C", timeout), false);
        exchange.last(message());
        let question = (timeout != "1000n").then(|| asked.question());
        assert_eq!(status_alone(&exchange.answer().unwrap()), Some("4"), "{timeout}");
        // The endpoint is told how long it is waited for, and that it no longer is.
        if let Some(mut question) = question {
            assert!(question.head.headers.contains_key("grpc-timeout"));
            assert_eq!(question.is_reset(), h2::Reason::CANCEL);
        }
    }
    // It is of gRPC alone, and longer than nothing; what is no time is none.
    while asked.has_question() {
        drop(asked.question());
    }
    for (content_type, timeout) in
        [("application/json", "1n"), ("application/grpc-webs", "1n"), ("application/grpc", "soon")]
    {
        let fields = [("content-type", content_type), ("grpc-timeout", timeout)];
        let mut exchange = client.begin(request("POST", "http://a/", &fields), true);
        asked.question().ok("in time");
        assert_eq!(exchange.answer().unwrap().text(), "in time", "{content_type}");
    }
}

#[test]
fn failures_come_as_trailers_alone() {
    let rest = format!("{H2C}\n[[route]]\nname = \"x\"\nmatch = {{ path = \"/x\" }}\nrespond = {{}}\n");
    let gateway = Gateway::start(&config(&rest));
    let client = Client::connect(gateway.address());
    let answer = client.ask(call("/a.B/C", "1H"), message());
    assert_eq!(status_alone(&answer), Some("12"));
    // Whoever asks otherwise is answered otherwise.
    let other = client.ask(request("POST", "http://a/a.B/C", &[("content-type", "application/grpcs")]), "x");
    assert_eq!(other.status, 404);
    let (closed, _guard) = closed_port();
    let gateway = before(closed, "");
    let client = Client::connect(gateway.address());
    assert_eq!(status_alone(&client.ask(call("/a.B/C", "1H"), message())), Some("14"));
    // A body that is too large.
    let (server, _asked) = Server::asking(h2::server::Builder::new(), None);
    let gateway = before(server.address, "body_bytes = \"4B\"");
    let client = Client::connect(gateway.address());
    assert_eq!(status_alone(&client.ask(call("/a.B/C", "1H"), message())), Some("8"));
}

#[test]
fn a_status_is_passed_on_as_it_is() {
    let server = Server::answering(|head, body| {
        let content_type = ("content-type", "application/grpc+proto");
        match head.uri.path() {
            // In trailers behind messages, behind none, and alone.
            "/a.B/Messages" => Answer {
                fields: fields(&[content_type, ("grpc-encoding", "identity")]),
                trailers: fields(&[("grpc-status", "5"), ("grpc-message", "50 %25"), ("x-bin", "AAE")]),
                ..Answer::ok(body)
            },
            "/a.B/None" => Answer {
                fields: fields(&[content_type]),
                trailers: fields(&[("grpc-status", "0")]),
                ..Answer::ok("")
            },
            _ => Answer { fields: fields(&[content_type, ("grpc-status", "7")]), ..Answer::ok("") },
        }
    });
    let gateway = before(server.address, "");
    let client = Client::connect(gateway.address());
    let answer = client.ask(call("/a.B/Messages", "1H"), message());
    assert_eq!((answer.body.as_slice(), answer.field("grpc-encoding")), (&message()[..], Some("identity")));
    assert_eq!(
        answer.trailers,
        fields(&[("grpc-status", "5"), ("grpc-message", "50 %25"), ("x-bin", "AAE")])
    );
    let answer = client.ask(call("/a.B/None", "1H"), message());
    assert_eq!((answer.body.len(), answer.trailers), (0, fields(&[("grpc-status", "0")])));
    let answer = client.ask(call("/a.B/Alone", "1H"), message());
    assert_eq!((answer.field("grpc-status"), answer.trailers.len()), (Some("7"), 0));
    assert_eq!(answer.field("content-type"), Some("application/grpc+proto"));
}

#[test]
fn an_endpoint_that_breaks_amid_a_call_is_no_success() {
    let (server, mut asked) = Server::asking(h2::server::Builder::new(), None);
    let gateway = before(server.address, "");
    let client = Client::connect(gateway.address());
    let mut exchange = client.begin(call("/a.B/C", "1H"), false);
    exchange.last(message());
    let mut question = asked.question();
    let mut send = question.begin(&[("content-type", "application/grpc")]);
    send.send_data(message(), false).unwrap();
    let mut incoming = exchange.head().unwrap();
    assert_eq!(incoming.some(10).unwrap(), message());
    question.cut();
    assert!(incoming.rest().is_err());
    // Before a response it is UNAVAILABLE, for the caller to try again.
    let mut exchange = client.begin(call("/a.B/C", "1H"), false);
    exchange.last(message());
    asked.question().cut();
    assert_eq!(status_alone(&exchange.answer().unwrap()), Some("14"));
}

/// Checks of the official client of gRPC-Web against a target.
fn passes_web(format: &str, target: SocketAddr) {
    let run = Command::new("timeout")
        .args(["100", "node"])
        .arg(repository("tests/clients/grpc_web.mjs"))
        .args([&format!("http://{target}"), format])
        .env("PACKAGES", repository("target/node/node_modules"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{format}: {}\n{said}", run.status);
}

#[test]
fn calls_of_grpc_web() {
    let server = Grpc::start(None);
    let gateway = Gateway::start(&all_to_with(server.address, H2C, "protocol = \"h2\"\ngrpc_web = true", ""));
    for format in ["text", "binary"] {
        passes_web(format, gateway.address());
    }
    assert_eq!(gateway.figure("panics"), 0);
}

/// A call of gRPC-Web by HTTP/1.1, its body in these pieces.
fn web_call(gateway: &Gateway, content_type: &str, pieces: &[&[u8]]) -> Response {
    let mut client = gateway.connect();
    client.send(format!(
        "POST /a.B/C HTTP/1.1\r\nHost: a\r\nContent-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n\r\n"
    ));
    for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
        client.send([format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat());
        all_received([&client.stream]);
    }
    client.send("0\r\n\r\n");
    let head = client.head();
    if field(&head, "transfer-encoding").is_some() {
        let body = client.chunked();
        return Response { status: head[9..12].parse().unwrap(), head, body };
    }
    client.body_of(head)
}

/// An endpoint that says what it was asked, in two messages, and a status.
fn echoing() -> Server {
    Server::answering(|head, body| {
        assert_eq!(head.headers["content-type"], "application/grpc+proto");
        assert_eq!(head.headers["te"], "trailers");
        Answer {
            fields: fields(&[("content-type", "application/grpc+proto")]),
            trailers: fields(&[("grpc-status", "0"), ("x-more", "yes")]),
            ..Answer::ok(body)
        }
    })
}

#[test]
fn grpc_web_in_any_pieces() {
    let server = echoing();
    let gateway = Gateway::start(&all_to_with(server.address, "", "protocol = \"h2\"\ngrpc_web = true", ""));
    let trailers = b"\x80\0\0\0\x1dgrpc-status: 0\r\nx-more: yes\r\n";
    let answer = [&message()[..], trailers].concat();
    let text = b"AAAAAAVoZWxsbw==";
    for at in 0..=text.len() {
        let response = web_call(&gateway, "application/grpc-web-text+proto", &[&text[..at], &text[at..]]);
        assert_eq!(response.status, 200, "{}", response.text());
        assert_eq!(response.field("content-type").as_deref(), Some("application/grpc-web-text+proto"));
        assert_eq!(unpadded(&response.body), answer, "in two at {at}");
    }
    for at in 0..=10 {
        let response =
            web_call(&gateway, "application/grpc-web+proto", &[&message()[..at], &message()[at..]]);
        assert_eq!(response.field("content-type").as_deref(), Some("application/grpc-web+proto"));
        assert_eq!(response.body, answer);
    }
    // By HTTP/2 it is the same.
    let gateway = Gateway::start(&all_to_with(server.address, H2C, "protocol = \"h2\"\ngrpc_web = true", ""));
    let client = Client::connect(gateway.address());
    let call = request("POST", "http://a/a.B/C", &[("content-type", "application/grpc-web-text+proto")]);
    let response = client.ask(call, &text[..]);
    assert_eq!((unpadded(&response.body), response.trailers.len()), (answer, 0));
}

/// What pieces of base64, each padded, stand for.
fn unpadded(text: &[u8]) -> Vec<u8> {
    let run = Command::new("python3")
        .args([
            "-c",
            "import base64, re, sys\nfor piece in re.findall(rb'[^=]+=*', sys.argv[1].encode()):\n \
            sys.stdout.buffer.write(base64.b64decode(piece, validate=True))",
        ])
        .arg(std::str::from_utf8(text).unwrap())
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    run.stdout
}

#[test]
fn what_is_no_grpc_web_is_told_so_and_harms_no_endpoint() {
    let (server, mut asked) = Server::asking(h2::server::Builder::new(), None);
    let cluster = "protocol = \"h2\"\ngrpc_web = true\neject = { failures = 1 }";
    let gateway = Gateway::start(&all_to_with(server.address, "", cluster, ""));
    for wrong in [&b"AAAA!"[..], b"AAA", b"A=AA"] {
        let response = web_call(&gateway, "application/grpc-web-text", &[wrong]);
        assert_eq!((response.status, response.body.len()), (200, 0), "{}", response.text());
        assert_eq!(response.field("content-type").as_deref(), Some("application/grpc-web+proto"));
        assert_eq!(response.field("grpc-status").as_deref(), Some("13"));
        assert_eq!(gateway.log_line()["end"], "body-malformed");
        while asked.has_question() {
            drop(asked.question());
        }
    }
    assert_eq!(gateway.figure("ejections"), 0);
    // Without the key it goes on as it is.
    let server = Server::answering(|head, body| {
        assert_eq!(head.headers["content-type"], "application/grpc-web-text");
        Answer::ok(body)
    });
    let gateway = Gateway::start(&all_to_with(server.address, "", "protocol = \"h2\"", ""));
    assert_eq!(web_call(&gateway, "application/grpc-web-text", &[b"AAAA!"]).text(), "AAAA!");
}

#[test]
fn routes_by_service_and_method() {
    let rest = format!(
        "{H2C}\n\
         [[route]]\nname = \"method\"\nmatch = {{ grpc = {{ service = \"shop.v1.Cart\", method = \"Add\" }} }}\nrespond = {{}}\n\
         [[route]]\nname = \"service\"\nmatch = {{ grpc = {{ service = \"shop.v1.Cart\" }} }}\nrespond = {{}}\n\
         [[route]]\nname = \"named\"\nmatch = {{ grpc = {{ method = \"Check\" }} }}\nrespond = {{}}\n\
         [[route]]\nname = \"any\"\nmatch = {{ grpc = {{}} }}\nrespond = {{}}\n\
         [[route]]\nname = \"rest\"\nrespond = {{}}\n"
    );
    let gateway = Gateway::start(&config(&rest));
    let client = Client::connect(gateway.address());
    for (method, path, content_type, route) in [
        ("POST", "/shop.v1.Cart/Add", "application/grpc", "method"),
        ("POST", "/shop.v1.Cart/Add", "application/grpc-web-text+proto", "method"),
        ("POST", "/shop.v1.Cart/Add", "Application/GRPC+proto; a=b", "method"),
        ("POST", "/shop.v1.Cart/Remove", "application/grpc", "service"),
        ("POST", "/other.Service/Check", "application/grpc", "named"),
        ("POST", "/other.Service/Other", "application/grpc", "any"),
        ("POST", "/other.Service/Other/More", "application/grpc", "rest"),
        ("POST", "/shop.v1.Cart/Add", "application/json", "rest"),
        ("POST", "/shop.v1.Cart/Add", "application/grpcs", "rest"),
        ("GET", "/shop.v1.Cart/Add", "application/grpc", "rest"),
    ] {
        client.ask(request(method, &format!("http://a{path}"), &[("content-type", content_type)]), "");
        assert_eq!(gateway.log_line()["route"], route, "{method} {path} {content_type}");
    }
}
