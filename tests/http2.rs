//! HTTP/2 on both sides of the real binary: against the `h2` crate, which behaves, against a peer that says frame by frame
//! what no library would, and against clients that people use.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests run no data plane")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(unreachable_pub, dead_code, reason = "modules of which this binary uses a part")]

#[path = "support/frames.rs"]
mod frames;
#[path = "support/http2.rs"]
mod h2peers;
mod support;

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use aws_lc_rs::digest;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, FLOW_CONTROL_ERROR, Fate, Frames, GOAWAY, HEADERS,
    INITIAL_WINDOW_SIZE, NO_ERROR, PING, PREFACE, PRIORITY, PROTOCOL_ERROR, REFUSED_STREAM, RST_STREAM,
    SETTINGS, block, frame, goaway, headers, pseudo, reset, settings, window,
};
use h2::{Reason, client, ext::Protocol, server};
use h2peers::{Answer, Client, Server, Trust, fields, get, post, request, wait};
use support::{
    Gateway, PATIENCE, Peer, Response, Upstream, all_received, all_to_with, closed_port, config, field, ok,
    strict, within,
};

const MIB: usize = 1024 * 1024;

const ENHANCE_YOUR_CALM: u32 = 11;

/// Speaks HTTP/2 without TLS.
const H2C: &str = "h2c = true";

/// Answers by itself.
const HERE: &str = "[[route]]\nname = \"here\"\nmatch = { path = \"/*\" }\nrespond = { body = \"yes\" }\n";

/// A gateway that speaks HTTP/2, with further keys of its listener, before an endpoint.
fn before(endpoint: SocketAddr, listener: &str) -> Gateway {
    Gateway::start(&all_to_with(endpoint, &format!("{H2C}\n{listener}"), "", ""))
}

/// The same before an endpoint that speaks HTTP/2 too, with further keys of the cluster.
fn between(endpoint: SocketAddr, cluster: &str) -> Gateway {
    Gateway::start(&all_to_with(endpoint, H2C, &format!("protocol = \"h2\"\n{cluster}"), ""))
}

fn client(gateway: &Gateway) -> Client {
    Client::connect(gateway.address())
}

fn raw(gateway: &Gateway) -> Frames {
    Frames::client(gateway.connect())
}

/// One exchange by HTTP/1.
fn ask_http1(gateway: &Gateway, wire: impl AsRef<[u8]>) -> Response {
    let mut peer = gateway.connect();
    peer.send(wire);
    peer.response()
}

/// An upstream that answers with the body it got, or with the head when there was none; chunked when it was asked so.
fn echo() -> Upstream {
    Upstream::answering(|head, body| {
        let body = if body.is_empty() { head.as_bytes() } else { body };
        if field(head, "transfer-encoding").is_none() {
            return ok(body);
        }
        let mut answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for chunk in body.chunks(50_000) {
            answer.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
            answer.extend_from_slice(chunk);
            answer.extend(b"\r\n");
        }
        answer.extend(b"0\r\n\r\n");
        answer
    })
}

/// Bytes of which no two parts look alike.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at / 251 + at) as u8).collect()
}

/// Others are served, by either version.
fn serves_others(gateway: &Gateway) {
    assert_eq!(client(gateway).ask(get("/other"), "").status, 200);
    assert_eq!(ask_http1(gateway, support::get("/other")).status, 200);
}

/// All clients have left: nothing of them is left. Idle connections to endpoints hold a buffer each, by epoll.
fn is_clean(gateway: &Gateway) {
    is_settled(gateway);
    within("the buffers are back", || {
        let figures = gateway.figures();
        let figure = |name: &str| figures.get(name).copied().unwrap_or(0);
        (figure("buffers_active") <= figure("upstream_connections_active")).then_some(())
    });
}

/// No exchange is left, though connections to endpoints may be.
fn is_settled(gateway: &Gateway) {
    for figure in ["connections_active", "exchanges_active"] {
        gateway.wait_for_figure(figure, 0);
    }
    assert_eq!(gateway.figure("panics"), 0);
}

// ------------------------------------------------------------------------------------------------------ the front door

#[test]
fn both_versions_on_one_listener() {
    let upstream = echo();
    let gateway = before(upstream.address, "");
    let client = client(&gateway);
    let mut peer = gateway.connect();
    for _ in 0..3 {
        assert!(client.says("/a?b=c").starts_with("GET /a?b=c HTTP/1.1\r\n"));
        assert_eq!(gateway.log_line()["version"], "2");
        peer.send(support::get("/d"));
        assert!(peer.response().text().starts_with("GET /d HTTP/1.1\r\n"));
        assert_eq!(gateway.log_line()["version"], "1.1");
    }
    // One after the other, they share a connection.
    assert_eq!(upstream.accepted(), 1);
    drop((client, peer));
}

#[test]
fn an_answer_looks_as_it_should() {
    let upstream = Upstream::answering(|_, _| {
        b"HTTP/1.1 200 Fine\r\nConnection: close, x-hop\r\nKeep-Alive: timeout=5\r\nX-Hop: 1\r\nSet-Cookie: a=1\r\n\
          Set-Cookie: b=2\r\nX-UPPER: Yes\r\nContent-Length: 2\r\n\r\nok"
            .to_vec()
    });
    let gateway = before(upstream.address, "");
    let answer = client(&gateway).ask(get("/"), "");
    assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
    for name in ["connection", "keep-alive", "x-hop", "transfer-encoding", "upgrade"] {
        assert_eq!(answer.field(name), None, "{name}");
    }
    let cookies: Vec<_> = answer.fields.get_all("set-cookie").iter().collect();
    assert_eq!(cookies, ["a=1", "b=2"]);
    assert_eq!((answer.field("x-upper"), answer.field("content-length")), (Some("Yes"), Some("2")));
    assert!(answer.field("date").is_some());
    let line = gateway.log_line();
    assert_eq!((line["status"].as_u64(), line["end"].as_str()), (Some(200), Some("ok")));
}

#[test]
fn the_upstream_is_told_who_asks() {
    let upstream = echo();
    let gateway = before(upstream.address, "");
    let request =
        request("GET", "http://example.com:81/", &[("x-forwarded-for", "6.6.6.6"), ("user-agent", "test")]);
    let seen = client(&gateway).ask(request, "").text();
    assert_eq!(field(&seen, "host").as_deref(), Some("example.com:81"));
    assert_eq!(field(&seen, "x-forwarded-for").as_deref(), Some("127.0.0.1"));
    assert_eq!(field(&seen, "x-forwarded-proto").as_deref(), Some("http"));
    assert_eq!(field(&seen, "user-agent").as_deref(), Some("test"));
    assert!(field(&seen, "x-request-id").is_some());
    for name in ["content-length", "transfer-encoding", "connection"] {
        assert_eq!(field(&seen, name), None, "{seen}");
    }
}

#[test]
fn the_gateway_answers_by_itself() {
    let rest = "h2c = true\n[[route]]\nname = \"only\"\nmatch = { path = \"/only\" }\nrespond = { body = \"yes\" }\n\
                [[route]]\nname = \"old\"\nmatch = { path = \"/old\" }\nredirect = { to = \"/only\" }\n";
    let gateway = Gateway::start(&config(rest));
    let client = client(&gateway);
    assert_eq!(client.says("/only"), "yes");
    let answer = client.ask(get("/old"), "");
    assert_eq!((answer.status, answer.field("location")), (308, Some("/only")));
    let answer = client.ask(get("/other"), "");
    let problem: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!((answer.status, problem["type"].as_str()), (404, Some("urn:ringgate:problem:no-route")));
    let answer = client.ask(request("HEAD", "http://a/only", &[]), "");
    assert_eq!((answer.status, answer.field("content-length"), answer.body.len()), (200, Some("3"), 0));
    // With a body that no one wants.
    let answer = client.ask(post("/only"), vec![0; 100_000]);
    assert_eq!((answer.status, answer.text().as_str()), (200, "yes"));
    assert_eq!(client.says("/only"), "yes");
    drop(client);
    is_clean(&gateway);
}

#[test]
fn without_h2c_the_preface_is_no_request() {
    let (upstream, seen) = Upstream::witness();
    let gateway = Gateway::start(&all_to_with(upstream.address, "", "", ""));
    let mut peer = gateway.connect();
    peer.send([PREFACE.as_slice(), &settings(&[]), &frames::get(1, "/")].concat());
    let head = peer.head();
    assert!(head.starts_with("HTTP/1.1 505 ") || head.starts_with("HTTP/1.1 400 "), "{head}");
    peer.body_of(head);
    assert!(peer.is_ended());
    assert_eq!(upstream.accepted(), 0);
    assert!(seen.try_recv().is_err());
}

#[test]
fn the_preface_may_come_in_pieces() {
    let gateway = Gateway::start(&config(&format!("{H2C}\n{HERE}")));
    let hello = [PREFACE.as_slice(), &settings(&[(frames::HEADER_TABLE_SIZE, 0)])].concat();
    for cut in 1..hello.len() {
        let mut peer = gateway.connect();
        peer.send(&hello[..cut]);
        all_received([&peer.stream]);
        // The rest goes out with what makes a client's beginning.
        peer.send(&hello[cut..]);
        peer.send(frames::get(1, "/"));
        let mut first = [0; 9];
        let count = peer.stream.peek(&mut first).unwrap();
        assert!(!first.starts_with(b"HTTP/"), "cut at {cut}: an answer of HTTP/1, of {count} bytes");
        let mut frames = Frames::beside(peer);
        assert_eq!(frames.fate(1), Fate::Answered { status: 200, body: b"yes".to_vec() }, "cut at {cut}");
    }
}

#[test]
fn a_preface_byte_by_byte_is_waited_for_in_peace() {
    let gateway = Gateway::start(&config(&format!("{H2C}\n{HERE}")));
    let mut peer = gateway.connect();
    let hello = [PREFACE.as_slice(), &settings(&[(frames::HEADER_TABLE_SIZE, 0)])].concat();
    let (last, most) = hello.split_last().unwrap();
    for byte in most {
        peer.send([*byte]);
        all_received([&peer.stream]);
    }
    // Who waits does not turn: others are served, in no time of the processor to speak of.
    let before = gateway.processor_ticks();
    (0..20).for_each(|_| serves_others(&gateway));
    assert!(gateway.processor_ticks() - before < 100);
    peer.send([*last]);
    peer.send(frames::get(1, "/"));
    let mut frames = Frames::beside(peer);
    assert_eq!(frames.fate(1), Fate::Answered { status: 200, body: b"yes".to_vec() });
}

#[test]
fn a_request_that_only_looks_like_the_preface_is_one_of_http1() {
    let upstream = echo();
    let gateway = before(upstream.address, "");
    for method in ["P", "PR", "PRI", "PRIX", "PUT"] {
        let response = ask_http1(&gateway, format!("{method} /x HTTP/1.1\r\nHost: a\r\n\r\n"));
        // A method of no one's registration goes on, but for the one that RFC 9113 took away.
        let seen = response.text();
        assert!(response.status == 200 && seen.starts_with(method) || method == "PRI", "{method}: {seen}");
    }
}

#[test]
fn half_a_preface_has_a_deadline() {
    let gateway = Gateway::start(&config(&format!("{H2C}\ntimeouts = {{ head = \"100ms\" }}\n{HERE}")));
    let mut peer = gateway.connect();
    peer.send(&PREFACE[..10]);
    while peer.more() > 0 {}
    is_clean(&gateway);
}

#[test]
fn by_alpn() {
    let trust = Trust::new();
    let upstream = echo();
    let both = trust.listener("");
    let gateway = Gateway::start(&all_to_with(upstream.address, &both, "", ""));
    for protocols in [&["h2"][..], &["h2", "http/1.1"], &["http/1.1", "h2"]] {
        let client = Client::secured(gateway.address(), &trust.client(protocols)).expect("HTTP/2");
        let body = pattern(300_000);
        assert!(client.ask(request("POST", "https://localhost/", &[]), body.clone()).body == body);
        let line = gateway.log_line();
        assert_eq!((line["version"].as_str(), line["tls"].as_str()), (Some("2"), Some("TLSv1.3")));
        let seen = client.ask(request("GET", "https://localhost/", &[]), "").text();
        assert_eq!(field(&seen, "x-forwarded-proto").as_deref(), Some("https"));
        gateway.log_line();
        // Made for another certificate, were there one.
        assert_eq!(client.ask(request("GET", "https://127.0.0.1/", &[]), "").status, 200);
        gateway.log_line();
    }
    for protocols in [&["http/1.1"][..], &[]] {
        let other = Client::secured(gateway.address(), &trust.client(protocols));
        assert_eq!(other.err().unwrap().as_deref(), protocols.first().map(|name| name.as_bytes()));
    }
    // Only what is configured.
    let http1 = trust.listener(", alpn = [\"http/1.1\"]");
    let gateway = Gateway::start(&all_to_with(upstream.address, &http1, "", ""));
    let agreed = Client::secured(gateway.address(), &trust.client(&["h2", "http/1.1"])).err().unwrap();
    assert_eq!(agreed.as_deref(), Some(b"http/1.1".as_slice()));
}

#[test]
fn by_every_driver() {
    for driver in ["auto", "epoll"] {
        let trust = Trust::new();
        let upstream = echo();
        let text = all_to_with(upstream.address, &trust.listener(""), "", "")
            .replace("workers = 1\n", &format!("workers = 1\ndriver = \"{driver}\"\n"))
            + "[[listener]]\nname = \"plain\"\naddress = \"127.0.0.1:0\"\nh2c = true\n";
        let gateway = Gateway::start(&text);
        let plain = Client::connect(gateway.address_of("plain"));
        let secured = Client::secured(gateway.address(), &trust.client(&["h2"])).unwrap();
        let body = pattern(2 * MIB);
        for (client, scheme) in [(&plain, "http"), (&secured, "https")] {
            let requests = (0..8).map(|n| {
                (request("POST", &format!("{scheme}://localhost/{n}"), &[]), Bytes::from(body.clone()))
            });
            for answer in client.ask_all(requests) {
                assert!(answer.unwrap().body == body, "{driver}, {scheme}");
            }
        }
        drop((plain, secured));
        is_clean(&gateway);
    }
}

// -------------------------------------------------------------------------------------------------------------- bodies

#[test]
fn bodies_with_a_length_and_without() {
    let upstream = Upstream::answering(|head, body| {
        let framing = |name| field(head, name).unwrap_or_default();
        ok(format!("{}|{}|{}", framing("content-length"), framing("transfer-encoding"), body.len())
            .as_bytes())
    });
    let gateway = before(upstream.address, "");
    let client = client(&gateway);
    assert_eq!(client.ask(post("/"), "").text(), "||0");
    assert_eq!(client.ask(post("/"), "hello").text(), "|chunked|5");
    let sized = |length: &str| request("POST", "http://a/", &[("content-length", length)]);
    assert_eq!(client.ask(sized("5"), "hello").text(), "5||5");
    assert_eq!(client.ask(sized("0"), "").text(), "0||0");
    // Its end comes by itself.
    for (head, expected) in [(post("/"), "|chunked|0"), (sized("0"), "0||0")] {
        let mut exchange = client.begin(head, false);
        exchange.last("");
        assert_eq!(exchange.answer().unwrap().text(), expected);
    }
    let mut exchange = client.begin(post("/"), false);
    for piece in ["one", "", "two", "", ""] {
        exchange.send.send_data(piece.into(), false).unwrap();
    }
    exchange.last("three");
    assert_eq!(exchange.answer().unwrap().text(), "|chunked|11");
    // A GET may have one too.
    assert_eq!(client.ask(get("/"), "hello").text(), "|chunked|5");
}

#[test]
fn megabytes_both_ways() {
    let upstream = echo();
    let gateway = before(upstream.address, "");
    let client = client(&gateway);
    let body = pattern(5 * MIB);
    let length = body.len().to_string();
    for fields in [&[][..], &[("content-length", length.as_str())]] {
        let answer = client.ask(request("POST", "http://a/", fields), body.clone());
        assert!(answer.body == body);
        assert_eq!(answer.field("content-length").is_some(), !fields.is_empty());
    }
    drop(client);
    is_clean(&gateway);
}

#[test]
fn many_streams_at_once() {
    let upstream = echo();
    let gateway = before(upstream.address, "");
    let client = client(&gateway);
    let body = |n: usize| Bytes::from(pattern(1 + n * 997));
    for answer in client.ask_all((0..200).map(|n| (post(&format!("/{n}")), body(n)))).into_iter().enumerate()
    {
        assert!(answer.1.unwrap().body == body(answer.0));
    }
    drop(client);
    is_clean(&gateway);
}

#[test]
fn trailers_both_ways() {
    let (upstream, accepted) = Upstream::manual();
    let gateway = before(upstream.address, "");
    let client = client(&gateway);
    let mut exchange =
        client.begin(request("POST", "http://a/", &[("te", "trailers"), ("trailer", "x-sum")]), false);
    exchange.send("body");
    exchange.send.send_trailers(fields(&[("x-sum", "42"), ("x-other", "a"), ("x-other", "b")])).unwrap();
    let mut peer = accepted.next();
    let head = peer.head();
    assert_eq!(field(&head, "transfer-encoding").as_deref(), Some("chunked"));
    assert_eq!(
        String::from_utf8(peer.until(b"\r\n\r\n")).unwrap().to_lowercase(),
        "4\r\nbody\r\n0\r\nx-sum: 42\r\nx-other: a\r\nx-other: b\r\n\r\n"
    );
    peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Done\r\n\r\n3\r\nall\r\n0\r\nX-Done: yes\r\n\r\n");
    let answer = exchange.answer().unwrap();
    assert_eq!((answer.text().as_str(), answer.trailers), ("all", fields(&[("x-done", "yes")])));
    // Trailers behind nothing.
    let mut exchange = client.begin(post("/"), false);
    exchange.send.send_trailers(fields(&[("x-sum", "0")])).unwrap();
    peer.head();
    assert_eq!(peer.until(b"\r\n\r\n").to_ascii_lowercase(), b"0\r\nx-sum: 0\r\n\r\n");
    peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Done: yes\r\n\r\n");
    let answer = exchange.answer().unwrap();
    assert_eq!((answer.body.len(), answer.trailers), (0, fields(&[("x-done", "yes")])));
}

#[test]
fn responses_without_content() {
    let upstream = Upstream::answering(|head, _| {
        match head.split(' ').nth(1).unwrap() {
            "/204" => "HTTP/1.1 204 No Content\r\n\r\n",
            "/304" => "HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\nETag: \"x\"\r\n\r\n",
            "/head" => "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n",
            "/chunked" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            _ => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        }
        .into()
    });
    let gateway = before(upstream.address, "");
    let client = client(&gateway);
    for (method, path, status, length) in [
        ("GET", "/204", 204, None),
        ("GET", "/304", 304, Some("7")),
        ("HEAD", "/head", 200, Some("7")),
        ("HEAD", "/chunked", 200, None),
        ("GET", "/empty", 200, Some("0")),
    ] {
        let answer = client.ask(request(method, &format!("http://a{path}"), &[]), "");
        assert_eq!((answer.status, answer.field("content-length")), (status, length), "{path}");
        assert_eq!(answer.body.len(), 0, "{path}");
    }
    assert_eq!(upstream.accepted(), 1);
}

#[test]
fn interim_responses_come_as_they_are_sent() {
    let (upstream, accepted) = Upstream::manual();
    let gateway = before(upstream.address, "");
    let client = client(&gateway);
    let mut exchange = client.begin(request("POST", "http://a/", &[("expect", "100-continue")]), false);
    let mut peer = accepted.next();
    peer.head();
    peer.send("HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(exchange.interim().status(), 100);
    exchange.last("body");
    assert_eq!(peer.chunked(), b"body");
    for link in ["</a>", "</b>"] {
        peer.send(format!("HTTP/1.1 103 Early Hints\r\nLink: {link}\r\n\r\n"));
        let hints = exchange.interim();
        assert_eq!((hints.status().as_u16(), hints.headers()["link"].to_str().unwrap()), (103, link));
    }
    peer.send(ok(b"late"));
    assert_eq!(exchange.answer().unwrap().text(), "late");
}

#[test]
fn an_answer_may_come_before_the_body() {
    let (upstream, accepted) = Upstream::manual();
    let gateway = before(upstream.address, "");
    let client = client(&gateway);
    let mut exchange = client.begin(post("/"), false);
    exchange.send("some");
    let mut peer = accepted.next();
    peer.until(b"some");
    peer.send("HTTP/1.1 413 Too Much\r\nContent-Length: 4\r\nConnection: close\r\n\r\nless");
    drop(peer);
    // It comes whole, and only then the stream is given up.
    let answer = exchange.answer().unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (413, "less"));
    while exchange.try_send(vec![0; 65_536]).is_ok() {}
    let reason = exchange.is_reset();
    assert!(matches!(reason, Reason::NO_ERROR | Reason::CANCEL), "{reason}");
    // The connection lives on.
    let mut next = client.begin(get("/"), true);
    let mut peer = accepted.next();
    peer.head();
    peer.send(ok(b"on"));
    assert_eq!(next.answer().unwrap().text(), "on");
    drop((client, exchange, next, peer));
    is_clean(&gateway);
}

#[test]
fn both_directions_flow_at_once() {
    let (upstream, accepted) = Upstream::manual();
    let gateway = before(upstream.address, "");
    let client = client(&gateway);
    let mut exchange = client.begin(post("/"), false);
    let mut peer = accepted.next();
    peer.head();
    peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    let mut incoming = exchange.head().unwrap();
    for n in 0..50 {
        let piece = format!("piece {n:04}");
        exchange.send(piece.clone());
        peer.until(format!("a\r\n{piece}\r\n").as_bytes());
        peer.send(format!("a\r\n{piece}\r\n"));
        assert_eq!(incoming.some(10).unwrap(), piece.as_bytes());
    }
    exchange.last("");
    peer.until(b"0\r\n\r\n");
    peer.send("0\r\n\r\n");
    assert!(incoming.rest().unwrap().0.is_empty());
}

#[test]
fn cookies_in_crumbs_are_joined() {
    let upstream = echo();
    let gateway = before(upstream.address, "");
    let crumbs = [("cookie", "a=1"), ("x-between", "x"), ("cookie", "b=2; c=3"), ("cookie", "d=4")];
    let seen = client(&gateway).ask(request("GET", "http://a/", &crumbs), "").text();
    assert_eq!(support::fields(&seen, "cookie"), ["a=1; b=2; c=3; d=4"]);
}

#[test]
fn te_is_of_the_hop() {
    let upstream = echo();
    let gateway = before(upstream.address, "");
    let seen = client(&gateway).ask(request("GET", "http://a/", &[("te", "trailers")]), "").text();
    // Not forwarded without a Connection that names it.
    let named = field(&seen, "connection").is_some_and(|value| value.eq_ignore_ascii_case("te"));
    assert!(field(&seen, "te").is_none() || named, "{seen}");
}

#[test]
fn the_authority_and_the_host_agree() {
    let upstream = echo();
    let gateway = before(upstream.address, "");
    let mut frames = raw(&gateway);
    let mut stream = 1;
    let mut ask = |fields: &[(&str, &str)]| {
        let all = [&[(":method", "GET"), (":scheme", "http"), (":path", "/")], fields].concat();
        frames.send(headers(stream, &all, true));
        stream += 2;
        match frames.fate(stream - 2) {
            Fate::Answered { status: 200, body } => {
                let seen = String::from_utf8(body).unwrap();
                assert_eq!(support::fields(&seen, "host").len(), 1, "{seen}");
                field(&seen, "host")
            }
            Fate::Answered { status: 400, .. } | Fate::Reset(PROTOCOL_ERROR) => None,
            other => panic!("{fields:?}: {other:?}"),
        }
    };
    assert_eq!(ask(&[(":authority", "a.test")]).as_deref(), Some("a.test"));
    assert_eq!(ask(&[(":authority", "a.test:80"), ("host", "a.test:80")]).as_deref(), Some("a.test:80"));
    assert_eq!(ask(&[("host", "b.test")]).as_deref(), Some("b.test"));
    for other in [
        &[(":authority", "a.test"), ("host", "b.test")][..],
        &[(":authority", "a.test"), ("host", "a.test:80")],
        &[(":authority", "a.test"), ("host", "a.test"), ("host", "b.test")],
        &[("host", "a.test"), ("host", "b.test")],
        &[("host", "a.test"), ("host", "a.test")],
        &[(":authority", "a.test"), ("host", "")],
        &[("host", "")],
        &[],
    ] {
        assert_eq!(ask(other), None, "{other:?}");
    }
    assert_eq!(ask(&[(":authority", "c.test")]).as_deref(), Some("c.test"));
}

#[test]
fn connect_is_refused() {
    let (upstream, seen) = Upstream::witness();
    let gateway = before(upstream.address, "");
    let mut frames = raw(&gateway);
    for (stream, ends) in [(1, true), (3, false)] {
        frames.send(headers(stream, &[(":method", "CONNECT"), (":authority", "a:443")], ends));
        let fate = frames.fate(stream);
        assert!(matches!(fate, Fate::Answered { status: 405, .. } | Fate::Reset(_)), "{fate:?}");
    }
    assert_eq!(upstream.accepted(), 0);
    assert!(seen.try_recv().is_err());
}

#[test]
fn connect_makes_a_tunnel_of_a_stream_where_it_is_allowed() {
    let (upstream, accepted) = Upstream::manual();
    let mut gateway = before(upstream.address, "allow_methods = [\"CONNECT\"]");
    let client = client(&gateway);
    let connect = || {
        let mut request = http::Request::new(());
        *request.method_mut() = http::Method::CONNECT;
        *request.uri_mut() = http::Uri::from_static("a.test:443");
        request
    };
    let mut exchange = client.begin(connect(), false);
    exchange.send(b"early".to_vec());
    let mut peer = accepted.next();
    let head = peer.head();
    assert!(head.starts_with("CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n"), "{head}");
    assert_eq!((field(&head, "transfer-encoding"), field(&head, "content-length")), (None, None));
    peer.send("HTTP/1.1 200 Established\r\nContent-Length: 5\r\n\r\nhello");
    let mut incoming = exchange.head().unwrap();
    assert_eq!((incoming.status(), incoming.head.headers.get("content-length")), (200, None));
    assert_eq!(incoming.some(5).unwrap(), b"hello");
    assert_eq!(peer.exactly(5), b"early");
    exchange.send(b"0\r\n\r\n".to_vec());
    assert_eq!(peer.exactly(5), b"0\r\n\r\n");
    exchange.last("bye");
    assert_eq!(peer.rest(), b"bye");
    peer.send("last");
    assert_eq!(incoming.some(4).unwrap(), b"last");
    drop(peer);
    assert!(incoming.rest().unwrap().0.is_empty());

    // One that is refused is an ordinary response, and what was sent for the tunnel is no request.
    let mut exchange = client.begin(connect(), false);
    exchange.send(b"GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n".to_vec());
    let mut peer = accepted.next();
    peer.head();
    peer.send("HTTP/1.1 407 No\r\nContent-Length: 2\r\n\r\nno");
    let answer = exchange.answer().unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (407, "no"));
    gateway.signal("TERM");
    assert!(gateway.wait().success());
    assert!(peer.rest().is_empty());
}

// ----------------------------------------------------------------------------------------------------------- WebSocket

/// The consent to the WebSocket that `head` asks for (RFC 6455 §4.2.2).
fn switched(head: &str) -> String {
    let key = field(head, "sec-websocket-key").unwrap();
    let asked = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let sum = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, asked.as_bytes());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {}\r\nSec-WebSocket-Protocol: chat\r\n\r\n",
        STANDARD.encode(sum.as_ref())
    )
}

/// An extended CONNECT (RFC 8441).
fn websocket() -> http::Request<()> {
    let fields =
        [("sec-websocket-version", "13"), ("sec-websocket-protocol", "chat"), ("origin", "http://a")];
    let mut request = request("CONNECT", "http://a/chat?x=1", &fields);
    request.extensions_mut().insert(Protocol::from_static("websocket"));
    request
}

/// A tunnel through the gateway: the client's side and the upstream's.
fn tunnel(
    gateway: &Gateway,
    accepted: &support::Accepted,
) -> (Client, h2peers::Exchange, h2peers::Incoming, Peer) {
    let client = client(gateway);
    client.may_connect();
    let mut exchange = client.begin(websocket(), false);
    let mut peer = accepted.next();
    let head = peer.head();
    assert!(head.starts_with("GET /chat?x=1 HTTP/1.1\r\n"), "{head}");
    peer.send(switched(&head));
    let incoming = exchange.head().unwrap();
    assert_eq!(incoming.status(), 200);
    (client, exchange, incoming, peer)
}

fn by_hand() -> (Gateway, support::Accepted) {
    let (upstream, accepted) = Upstream::manual();
    (before(upstream.address, ""), accepted)
}

#[test]
fn silence_and_age_end_a_websocket() {
    for (timeouts, end) in
        [("tunnel_idle = \"300ms\"", "tunnel-idle"), ("tunnel_age = \"300ms\"", "tunnel-aged")]
    {
        let (upstream, accepted) = Upstream::manual();
        let gateway = before(upstream.address, &format!("timeouts = {{ {timeouts} }}"));
        let client = client(&gateway);
        client.may_connect();
        let mut exchange = client.begin(websocket(), false);
        let mut peer = accepted.next();
        let head = peer.head();
        peer.send(switched(&head));
        let incoming = exchange.head().unwrap();
        assert_eq!(incoming.status(), 200);
        peer.rest();
        let _ = incoming.rest();
        assert_eq!(gateway.log_line()["end"], end);
        // The connection lives on.
        let mut other = client.begin(get("/other"), true);
        let mut second = accepted.next();
        second.head();
        second.send(ok(b"beside"));
        assert_eq!(other.answer().unwrap().text(), "beside");
    }
}

#[test]
fn a_websocket_is_upgraded() {
    let (gateway, accepted) = by_hand();
    let client = client(&gateway);
    client.may_connect();
    let mut exchange = client.begin(websocket(), false);
    let mut peer = accepted.next();
    let head = peer.head();
    assert!(head.starts_with("GET /chat?x=1 HTTP/1.1\r\n"), "{head}");
    for (name, value) in [
        ("host", "a"),
        ("upgrade", "websocket"),
        ("connection", "upgrade"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-protocol", "chat"),
        ("origin", "http://a"),
    ] {
        assert_eq!(support::fields(&head, name), [value], "{head}");
    }
    assert_eq!(field(&head, "sec-websocket-key").unwrap().len(), 24);
    assert_eq!((field(&head, "transfer-encoding"), field(&head, "content-length")), (None, None));
    peer.send(switched(&head));
    let mut incoming = exchange.head().unwrap();
    assert_eq!(incoming.status(), 200);
    let said = |name: &str| incoming.head.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    assert_eq!(said("sec-websocket-protocol").as_deref(), Some("chat"));
    for name in ["upgrade", "connection", "sec-websocket-accept", "content-length"] {
        assert_eq!(said(name), None, "{name}");
    }
    for n in 0_u8..50 {
        let bytes = [0x81, 0x85, n, 0, b'\r', b'\n', b'0', b'\r', b'\n'];
        exchange.send(bytes.to_vec());
        assert_eq!(peer.exactly(bytes.len()), bytes);
        peer.send(bytes);
        assert_eq!(incoming.some(bytes.len()).unwrap(), bytes);
    }
    // Others go on beside it.
    let mut other = client.begin(get("/other"), true);
    let mut second = accepted.next();
    second.head();
    second.send(ok(b"beside"));
    assert_eq!(other.answer().unwrap().text(), "beside");
    exchange.last("");
    assert!(peer.rest().is_empty());
    peer.finish();
    assert!(incoming.rest().unwrap().0.is_empty());
    let lines = [gateway.log_line(), gateway.log_line()];
    let line = lines.iter().find(|line| line["path"] == "/chat").unwrap();
    assert_eq!((line["end"].as_str(), line["version"].as_str()), (Some("ok"), Some("2")));
    assert_eq!(gateway.figure("upgrades"), 1);
    drop((client, exchange, other));
    is_clean(&gateway);
}

#[test]
fn each_direction_of_a_websocket_ends_by_itself() {
    let (gateway, accepted) = by_hand();
    let (_client, mut exchange, mut incoming, mut peer) = tunnel(&gateway, &accepted);
    exchange.last("last words");
    assert_eq!(peer.rest(), b"last words");
    peer.send("and an answer");
    assert_eq!(incoming.some(13).unwrap(), b"and an answer");
    peer.finish();
    assert!(incoming.rest().unwrap().0.is_empty());
    assert_eq!(gateway.log_line()["end"], "ok");

    let (_client, mut exchange, mut incoming, mut peer) = tunnel(&gateway, &accepted);
    peer.send("last words");
    peer.finish();
    assert_eq!(incoming.some(10).unwrap(), b"last words");
    assert!(incoming.some(1).unwrap().is_empty());
    exchange.last("and an answer");
    assert_eq!(peer.rest(), b"and an answer");
    assert_eq!(gateway.log_line()["end"], "ok");
}

#[test]
fn a_side_of_a_websocket_that_breaks_takes_the_other_along() {
    let (gateway, accepted) = by_hand();
    let (client, exchange, incoming, mut peer) = tunnel(&gateway, &accepted);
    exchange.reset();
    assert!(peer.rest().is_empty());
    assert_eq!(gateway.log_line()["end"], "tunnel-broken");
    drop(incoming);
    // RFC 8441 §5: what a reset is to TCP, RST_STREAM is here.
    let (other, _exchange, incoming, peer) = tunnel(&gateway, &accepted);
    peer.reset();
    assert!(incoming.rest().unwrap_err().is_reset());
    assert_eq!(gateway.log_line()["end"], "tunnel-broken");
    // The connection goes with all of its streams.
    let (third, _exchange, _incoming, mut peer) = tunnel(&gateway, &accepted);
    drop((client, other, third, _exchange, _incoming));
    assert!(peer.rest().is_empty());
    assert_eq!(gateway.log_line()["end"], "tunnel-broken");
}

#[test]
fn what_a_websocket_sends_early_is_kept() {
    let (gateway, accepted) = by_hand();
    let client = client(&gateway);
    client.may_connect();
    let mut exchange = client.begin(websocket(), false);
    exchange.send("early, ");
    let mut peer = accepted.next();
    let head = peer.head();
    peer.send([switched(&head).as_bytes(), b"hello"].concat());
    let mut incoming = exchange.head().unwrap();
    assert_eq!(incoming.some(5).unwrap(), b"hello");
    exchange.send("late");
    assert_eq!(peer.exactly(11), b"early, late");
}

#[test]
fn a_websocket_refused_is_an_ordinary_response() {
    let (gateway, accepted) = by_hand();
    let client = client(&gateway);
    client.may_connect();
    let mut exchange = client.begin(websocket(), false);
    let mut peer = accepted.next();
    peer.head();
    peer.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
    let answer = exchange.answer().unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (403, "no"));
    // And one that the upstream takes for an ordinary request is not switched.
    let mut exchange = client.begin(websocket(), false);
    peer.head();
    peer.send(ok(b"a page"));
    // Of whom it would be taken for consent.
    let answer = exchange.answer();
    assert!(answer.as_ref().map_or(true, |answer| answer.status != 200), "{answer:?}");
}

/// What a client sends for a tunnel before there is one is no request, whatever it looks like: a stream carries one.
#[test]
fn bytes_of_a_websocket_that_is_refused_are_no_request() {
    for answer in
        ["HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno", "HTTP/1.1 101 Switching Protocols\r\n\r\n"]
    {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let memory = Arc::clone(&seen);
        let (tell, told) = std::sync::mpsc::channel();
        let (tell, told) = (Mutex::new(tell), Mutex::new(told));
        let upstream = Upstream::answering(move |head, _| {
            memory.lock().unwrap().push(head.lines().next().unwrap().to_owned());
            if head.starts_with("GET /chat ") {
                // The other request says that the bytes before it have come.
                told.lock().unwrap().recv_timeout(PATIENCE).unwrap();
                return answer.into();
            }
            let _ = tell.lock().unwrap().send(());
            ok(b"fine")
        });
        let mut gateway = before(upstream.address, "");
        let mut frames = raw(&gateway);
        let connect = [
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            (":scheme", "http"),
            (":authority", "a"),
            (":path", "/chat"),
            ("sec-websocket-version", "13"),
        ];
        let hidden = "DELETE /hidden HTTP/1.1\r\nHost: a\r\n\r\n";
        frames.send([headers(1, &connect, false), frame(DATA, 0, 1, hidden)].concat());
        frames.send(frames::get(3, "/other"));
        let fate = frames.fate(1);
        assert!(matches!(fate, Fate::Answered { status: 404 | 502, .. }), "{fate:?}");
        // Whatever is under way is finished first.
        gateway.signal("TERM");
        assert!(gateway.wait().success());
        let mut seen = std::mem::take(&mut *seen.lock().unwrap());
        seen.sort();
        assert_eq!(seen, ["GET /chat HTTP/1.1", "GET /other HTTP/1.1"]);
    }
}

/// The gateway made the key, so no one else can look whether the answer is for it.
#[test]
fn who_only_says_to_speak_websocket_is_not_believed() {
    let (gateway, accepted) = by_hand();
    let client = client(&gateway);
    client.may_connect();
    let others = "dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let of_others = switched(&format!("GET / HTTP/1.1\r\nSec-WebSocket-Key: {others}"));
    let none = "HTTP/1.1 101 Yes\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n".to_owned();
    for wrong in [of_others, none] {
        let mut exchange = client.begin(websocket(), false);
        let mut peer = accepted.next();
        peer.head();
        peer.send(&wrong);
        let answer = exchange.answer();
        assert!(answer.as_ref().is_ok_and(|answer| answer.status == 502), "{wrong}: {answer:?}");
    }
    drop(client);
    is_settled(&gateway);
}

#[test]
fn only_websocket_is_connected() {
    let (upstream, seen) = Upstream::witness();
    let gateway = before(upstream.address, "");
    let mut frames = raw(&gateway);
    let mut stream = 1;
    for wrong in [
        &[
            (":method", "CONNECT"),
            (":protocol", "connect-udp"),
            (":scheme", "http"),
            (":path", "/"),
            (":authority", "a"),
        ][..],
        &[
            (":method", "GET"),
            (":protocol", "websocket"),
            (":scheme", "http"),
            (":path", "/"),
            (":authority", "a"),
        ],
        &[(":method", "CONNECT"), (":protocol", "websocket"), (":path", "/"), (":authority", "a")],
        &[(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":authority", "a")],
    ] {
        frames.send(headers(stream, wrong, false));
        let fate = frames.fate(stream);
        assert!(
            matches!(fate, Fate::Reset(_) | Fate::Answered { status: 400..=501, .. }),
            "{wrong:?}: {fate:?}"
        );
        stream += 2;
    }
    assert_eq!(upstream.accepted(), 0);
    assert!(seen.try_recv().is_err());
}

#[test]
fn much_passes_a_websocket_both_ways() {
    let (gateway, accepted) = by_hand();
    let (_client, mut exchange, incoming, mut peer) = tunnel(&gateway, &accepted);
    let body = pattern(4 * MIB);
    let mut twin = Peer::new(peer.stream.try_clone().unwrap());
    let expected = body.clone();
    let receiving = thread::spawn(move || assert!(twin.rest() == expected));
    let sent = body.clone();
    let sending = thread::spawn(move || {
        peer.send(&sent);
        peer.finish();
        peer
    });
    let bytes = Bytes::from(body.clone());
    let upload = thread::spawn(move || {
        exchange.send(bytes);
        exchange.last("");
        exchange
    });
    assert!(incoming.rest().unwrap().0 == body);
    upload.join().unwrap();
    sending.join().unwrap();
    receiving.join().unwrap();
}

// -------------------------------------------------------------------------------------------------------- flow control

/// Bytes that queues and windows on the way may hold, generously: the kernel's of two connections, and ours.
const ON_THE_WAY_MAX: usize = 24 * MIB;

#[test]
fn a_client_that_does_not_read_stops_its_own_stream_only() {
    const SIZE: usize = 64 * MIB;
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let upstream = Upstream::scripted(move |mut peer, _| {
        while let Some(head) = peer.try_head() {
            if !head.starts_with("GET /much ") {
                peer.send(ok(b"small"));
                continue;
            }
            peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n"));
            let piece = pattern(MIB);
            for _ in 0..SIZE / MIB {
                // As long as the other side takes it, whether a test is still there or not.
                if !peer.try_send(&piece) {
                    return;
                }
                count.fetch_add(MIB, Ordering::SeqCst);
            }
        }
    });
    let gateway = before(upstream.address, "timeouts = { write_stall = \"1h\" }");
    let mut builder = client::Builder::new();
    builder.initial_window_size(256 * 1024).initial_connection_window_size(16 * MIB as u32);
    let client = Client::with(&builder, gateway.address());
    let resident_kib = gateway.resident_kib();
    let mut exchanges: Vec<_> = (0..4).map(|_| client.begin(get("/much"), true)).collect();
    let mut unread: Vec<_> = exchanges.iter_mut().map(|exchange| exchange.head().unwrap()).collect();
    for _ in 0..200 {
        assert_eq!(client.says("/small"), "small");
    }
    assert!(sent.load(Ordering::SeqCst) < 4 * ON_THE_WAY_MAX, "{sent:?}");
    let grown_kib = gateway.resident_kib().saturating_sub(resident_kib);
    assert!(grown_kib < 32 * 1024, "{grown_kib} KiB more for four streams that are not read");
    // What was left to the reader is all there.
    let (body, _) = unread.remove(0).rest().unwrap();
    assert_eq!(body.len(), SIZE);
    let piece = pattern(MIB);
    assert!(body.chunks(MIB).all(|chunk| chunk == piece));
    drop((unread, exchanges, client));
    is_clean(&gateway);
}

#[test]
fn an_upstream_that_does_not_read_stops_its_own_stream_only() {
    const SIZE: usize = 48 * MIB;
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = Mutex::new(released);
    let upstream = Upstream::scripted(move |mut peer, _| {
        while let Some(head) = peer.try_head() {
            if !head.starts_with("POST /stuck ") {
                support::request_body(&mut peer, &head);
                peer.send(ok(b"small"));
                continue;
            }
            let _ = released.lock().unwrap().recv();
            let body = peer.exactly(SIZE);
            peer.send(ok(body.len().to_string().as_bytes()));
        }
    });
    let timeouts = "timeouts = { idle = \"1h\" }";
    let gateway = Gateway::start(&all_to_with(upstream.address, H2C, timeouts, ""));
    let client = client(&gateway);
    let resident_kib = gateway.resident_kib();
    let length = SIZE.to_string();
    let mut stuck =
        client.begin(request("POST", "http://a/stuck", &[("content-length", length.as_str())]), false);
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let mut send = stuck.send;
    let sending = thread::spawn(move || {
        let piece = Bytes::from(pattern(64 * 1024));
        for _ in 0..SIZE / piece.len() {
            wait(h2peers::send_all(&mut send, piece.clone(), false)).unwrap();
            count.fetch_add(piece.len(), Ordering::SeqCst);
        }
        send.send_data(Bytes::new(), true).unwrap();
    });
    within("it begins", || (sent.load(Ordering::SeqCst) > 0).then_some(()));
    for _ in 0..100 {
        assert_eq!(client.ask(post("/small"), pattern(10_000)).text(), "small");
    }
    assert!(sent.load(Ordering::SeqCst) < ON_THE_WAY_MAX, "{sent:?}");
    let grown_kib = gateway.resident_kib().saturating_sub(resident_kib);
    assert!(grown_kib < 16 * 1024, "{grown_kib} KiB more");
    release.send(()).unwrap();
    sending.join().unwrap();
    let (head, body) = wait(&mut stuck.response).unwrap().into_parts();
    assert_eq!(head.status, 200);
    assert_eq!(h2peers::Incoming { head, body }.rest().unwrap().0, length.as_bytes());
    drop((client, stuck.response));
    is_clean(&gateway);
}

#[test]
fn a_client_that_takes_nothing_for_too_long_loses_its_stream_only() {
    let upstream =
        Upstream::answering(|head, _| ok(&vec![7; if head.contains(" /much ") { 8 * MIB } else { 10 }]));
    let gateway = before(upstream.address, "timeouts = { write_stall = \"200ms\" }");
    let mut frames = Frames::client_with(gateway.connect(), &[(INITIAL_WINDOW_SIZE, 0)]);
    frames.send(frames::get(1, "/much"));
    frames.until(|frame| frame.is(RST_STREAM, 1));
    assert_eq!(gateway.log_line()["end"], "write-stall");
    // A window for one stream is enough for it.
    frames.send([frames::get(3, "/small"), window(3, 100)].concat());
    assert_eq!(frames.fate(3), Fate::Answered { status: 200, body: vec![7; 10] });
    drop(frames);
    is_clean(&gateway);
}

// -------------------------------------------------------------------------------------------------------------- resets

#[test]
fn a_stream_that_the_client_resets_takes_its_exchange_along() {
    let (upstream, mut asked) = Upstream::asking();
    let gateway = before(upstream.address, "");
    let client = client(&gateway);
    let mut kept = client.begin(get("/kept"), true);
    let other = asked.question();
    let left = client.begin(get("/left"), true);
    let question = asked.question();
    assert_ne!(question.connection, other.connection);
    left.reset();
    assert_eq!(gateway.log_line()["end"], "client-gone");
    // The connection to the upstream went with it.
    let number = question.connection;
    drop(question);
    assert_eq!(asked.ended(), number);
    // So it does amid a body, in either direction.
    let mut left = client.begin(post("/left"), false);
    left.send("some");
    gateway.wait_for_figure("exchanges_active", 2);
    left.reset();
    gateway.wait_for_figure("exchanges_active", 1);
    let mut left = client.begin(get("/left"), true);
    let question = asked.question();
    question.part("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
    left.head().unwrap();
    left.reset();
    gateway.wait_for_figure("exchanges_active", 1);
    drop(question);
    other.ok("still");
    assert_eq!(kept.answer().unwrap().text(), "still");
    drop((client, kept));
    is_clean(&gateway);
}

#[test]
fn a_connection_that_breaks_takes_its_exchanges_along() {
    let (upstream, mut asked) = Upstream::asking();
    let gateway = before(upstream.address, "");
    let mut frames = raw(&gateway);
    frames.send(
        [frames::get(1, "/a"), frames::get(3, "/b"), headers(5, &pseudo("POST", "/c"), false)].concat(),
    );
    let questions = [asked.question(), asked.question()];
    gateway.wait_for_figure("exchanges_active", 3);
    frames.peer.reset();
    gateway.wait_for_figure("exchanges_active", 0);
    drop(questions);
    is_clean(&gateway);
    serves_clean(&gateway, &mut asked);
}

/// One more exchange through a gateway before an upstream that asks.
fn serves_clean(gateway: &Gateway, asked: &mut support::Asked) {
    let client = client(gateway);
    let mut exchange = client.begin(get("/on"), true);
    asked.question().ok("on");
    assert_eq!(exchange.answer().unwrap().text(), "on");
}

#[test]
fn an_upstream_that_breaks_amid_a_response_resets_the_stream() {
    let (upstream, accepted) = Upstream::manual();
    let gateway = before(upstream.address, "");
    let client = client(&gateway);
    for (head, by_reset) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", true),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n", false),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n", true),
        ("HTTP/1.0 200 OK\r\n\r\n", true),
    ] {
        let mut exchange = client.begin(get("/"), true);
        let mut peer = accepted.next();
        peer.head();
        peer.send(head);
        peer.send("half");
        let mut incoming = exchange.head().unwrap();
        assert_eq!(incoming.some(4).unwrap(), b"half", "{head}");
        if by_reset {
            peer.reset();
        } else {
            drop(peer);
        }
        let error = incoming.rest().expect_err(head);
        assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR), "{head}");
        gateway.log_line();
    }
    // What only the connection's end ends is whole with it.
    let mut exchange = client.begin(get("/"), true);
    let mut peer = accepted.next();
    peer.head();
    peer.send("HTTP/1.0 200 OK\r\n\r\nwhole");
    drop(peer);
    assert_eq!(exchange.answer().unwrap().text(), "whole");
    // Before a response it is one of the gateway's own.
    let mut exchange = client.begin(post("/"), true);
    accepted.next().head();
    assert_eq!(exchange.answer().unwrap().status, 502);
}

#[test]
fn a_body_that_stops_coming_has_a_deadline() {
    let upstream = Upstream::saying("whole");
    let gateway = before(upstream.address, "timeouts = { body_idle = \"100ms\" }");
    let client = client(&gateway);
    let mut slow = client.begin(post("/"), false);
    slow.send("some");
    let answer = slow.answer();
    assert!(answer.as_ref().map_or(true, |answer| answer.status == 408), "{answer:?}");
    assert_eq!(gateway.log_line()["end"], "body-timeout");
    assert_eq!(client.says("/"), "whole");
}

#[test]
fn limits_of_requests_hold() {
    let upstream = echo();
    let limits =
        "limits = { body_bytes = \"1KiB\", head_bytes = \"4KiB\", headers = 20, target_bytes = \"1KiB\" }";
    let gateway = before(upstream.address, limits);
    let client = client(&gateway);
    let long = "x".repeat(2000);
    let very_long = "x".repeat(5000);
    let many: Vec<_> = (0..40).map(|n| format!("x-{n}")).collect();
    let many: Vec<_> = many.iter().map(|name| (name.as_str(), "1")).collect();
    let sized = request("POST", "http://a/", &[("content-length", "2000")]);
    for (what, request, body, status) in [
        ("a body", post("/"), vec![0; 2000], 413),
        ("a sized body", sized, vec![0; 2000], 413),
        ("a target", get(&format!("/{long}")), vec![], 414),
        (
            "a head",
            request("GET", "http://a/", &[("x-a", long.as_str()), ("x-b", &long), ("x-c", &long)]),
            vec![],
            431,
        ),
        ("a field", request("GET", "http://a/", &[("x-a", very_long.as_str())]), vec![], 431),
        ("many fields", request("GET", "http://a/", &many), vec![], 431),
    ] {
        let answer = client.try_ask(request, body);
        let is_refused =
            answer.as_ref().map_or_else(|error| error.is_reset(), |answer| answer.status == status);
        assert!(is_refused, "{what}: {answer:?}");
        assert_eq!(client.ask(post("/"), vec![b'x'; 1000]).body.len(), 1000, "after {what}");
    }
}

// ----------------------------------------------------------------------------------------------------------- smuggling

/// An upstream that remembers what it was asked for.
fn remembering() -> (Upstream, Arc<Mutex<Vec<String>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let memory = Arc::clone(&seen);
    let upstream = Upstream::answering(move |head, _| {
        memory.lock().unwrap().push(head.lines().next().unwrap().to_owned());
        ok(b"fine")
    });
    (upstream, seen)
}

/// A request with these fields instead of a GET's, or behind them.
fn with(more: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    [pseudo("GET", "/bad"), more.to_vec()].concat()
}

fn malformed_heads() -> Vec<Vec<(&'static str, &'static str)>> {
    let mut heads = Vec::new();
    // Fields of a connection of HTTP/1 (RFC 9113 §8.2.2).
    for field in [
        ("connection", "close"),
        ("connection", "x-forwarded-for"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("transfer-encoding", "chunked"),
        ("transfer-encoding", "identity"),
        ("upgrade", "h2c"),
        ("te", "gzip"),
        ("te", "trailers, gzip"),
    ] {
        heads.push(with(&[field]));
    }
    // Names (§8.2.1).
    for name in [
        "X-Up", "x-uP", "x y", "x:y", "", " x", "x ", "x\r\ny", "x\ny", "x\0y", "x\u{e9}", "x\ty", "(x)",
        "x\u{7f}",
    ] {
        heads.push(with(&[(name, "1")]));
    }
    // Values.
    for value in [
        "a\r\nx-evil: 1",
        "a\nx-evil: 1",
        "a\rb",
        "a\0b",
        "\n",
        "\r",
        "\0",
        "a\r\n\r\nGET /evil HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        heads.push(with(&[("x-value", value)]));
    }
    // §8.2.1: no whitespace around them.
    for value in [" a", "a ", "\ta", "a\t", " ", "\t"] {
        heads.push(with(&[("x-value", value)]));
        heads.push(with(&[("cookie", value)]));
        heads.push(with(&[("user-agent", value)]));
    }
    // Lengths.
    for length in ["5", "-1", "+0", "0x0", "abc", "0, 5", "", " ", "1e1", "99999999999999999999999"] {
        heads.push(with(&[("content-length", length)]));
    }
    heads.push(with(&[("content-length", "0"), ("content-length", "5")]));
    // Paths.
    for path in [
        "",
        "/a b",
        "a",
        "/a\0",
        "/a\r\nx: y",
        "/a\nb",
        "/a\tb",
        "http://b/x",
        "*",
        "/a HTTP/1.1\r\nHost: b\r\n\r\n",
        "/\u{7f}",
        "\\a",
        "?a",
    ] {
        heads.push(vec![(":method", "GET"), (":scheme", "http"), (":path", path), (":authority", "a")]);
    }
    // Methods.
    for method in
        ["", "G T", "GET\r\n", "GET /evil HTTP/1.1\r\nHost: a\r\n\r\nGET", "G\0T", "GET\t", "G\u{e9}T"]
    {
        heads.push(vec![(":method", method), (":scheme", "http"), (":path", "/bad"), (":authority", "a")]);
    }
    // Authorities.
    for authority in [
        "a b",
        "a/b",
        "a@b",
        "user:pass@b",
        "a\r\nx: y",
        "a\0",
        "a:b:c",
        "a,b",
        "a:99999",
        "a?b",
        "a#b",
        "[::1",
        "a\\b",
        "\u{e9}",
    ] {
        heads.push(vec![
            (":method", "GET"),
            (":scheme", "http"),
            (":path", "/bad"),
            (":authority", authority),
        ]);
        heads.push(vec![(":method", "GET"), (":scheme", "http"), (":path", "/bad"), ("host", authority)]);
    }
    // Schemes.
    for scheme in ["ht tp", "http://evil/", "http\r\n", "http\0"] {
        heads.push(vec![(":method", "GET"), (":scheme", scheme), (":path", "/bad"), (":authority", "a")]);
    }
    // Pseudo fields (§8.3): missing, twice, late, unknown, a response's, in CONNECT.
    for missing in 0..3 {
        let mut fields = pseudo("GET", "/bad");
        fields.remove(missing);
        heads.push(fields);
    }
    for twice in 0..4 {
        let mut fields = pseudo("GET", "/bad");
        fields.push(fields[twice]);
        heads.push(fields);
    }
    for late in 0..4 {
        let mut fields = pseudo("GET", "/bad");
        let field = fields.remove(late);
        fields.extend([("x-before", "1"), field]);
        heads.push(fields);
    }
    heads.push(with(&[(":unknown", "1")]));
    heads.push(with(&[(":status", "200")]));
    heads.push([vec![(":status", "200")], pseudo("GET", "/bad")].concat());
    heads.push([vec![(":protocol", "websocket")], pseudo("GET", "/bad")].concat());
    heads.push(vec![(":method", "CONNECT"), (":scheme", "http"), (":path", "/bad"), (":authority", "a")]);
    heads.push(vec![(":method", "CONNECT"), (":scheme", "http"), (":authority", "a:1")]);
    heads.push(vec![(":method", "CONNECT")]);
    heads
}

#[test]
fn a_malformed_head_never_reaches_an_upstream() {
    let (upstream, seen) = remembering();
    let gateway = before(upstream.address, "");
    let mut wrong = Vec::new();
    let mut good = 0;
    for fields in malformed_heads() {
        let mut frames = raw(&gateway);
        frames.send(headers(1, &fields, true));
        let fate = frames.fate(1);
        let is_refused = match fate {
            Fate::Answered { status, .. } => (400..500).contains(&status),
            Fate::Reset(code) => code != NO_ERROR,
            Fate::Gone(code) => code.is_some_and(|code| code != NO_ERROR),
        };
        if !is_refused {
            wrong.push(format!("{fields:?}: {fate:?}"));
        }
        // A stream's error is not the connection's.
        if !matches!(fate, Fate::Gone(_)) {
            frames.serves(3, "/good");
            good += 1;
        }
    }
    serves_others(&gateway);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let seen = seen.lock().unwrap();
    assert_eq!(seen.iter().filter(|line| *line == "GET /good HTTP/1.1").count(), good);
    assert_eq!(seen.len(), good + 2, "{seen:?}");
}

/// `h2` cuts a fragment off before anyone sees it: then it is cut off for everyone.
#[test]
fn a_fragment_never_reaches_an_upstream() {
    let (upstream, seen) = remembering();
    let gateway = before(upstream.address, "");
    let mut frames = raw(&gateway);
    for (stream, path) in [(1, "/a#b"), (3, "/a?b#/../c"), (5, "/a#?b")] {
        frames.send(headers(stream, &pseudo("GET", path), true));
        if let Fate::Answered { status: 200, .. } = frames.fate(stream) {
            assert_eq!(gateway.log_line()["path"], "/a");
            let line = seen.lock().unwrap().pop().unwrap();
            assert!(matches!(line.as_str(), "GET /a HTTP/1.1" | "GET /a?b HTTP/1.1"), "{line}");
        }
    }
}

#[test]
fn a_malformed_head_is_its_streams_error() {
    let gateway = Gateway::start(&config(&format!("{H2C}\n{HERE}")));
    let mut frames = raw(&gateway);
    let mut stream = 1;
    for fields in [
        with(&[("connection", "close")]),
        with(&[("te", "gzip")]),
        with(&[("x-before", "1"), (":path", "/late")]),
        with(&[("content-length", "5")]),
        pseudo("GET", ""),
    ] {
        frames.send(headers(stream, &fields, true));
        assert_eq!(frames.fate(stream), Fate::Reset(PROTOCOL_ERROR), "{fields:?}");
        stream += 2;
    }
    frames.serves(stream, "/good");
}

#[test]
fn what_is_wellformed_passes_and_means_the_same() {
    let upstream = echo();
    let gateway = before(upstream.address, "");
    let mut frames = raw(&gateway);
    let mut stream = 1;
    for (fields, line, name, value) in [
        (with(&[("x-tab", "a\tb")]), "GET /bad HTTP/1.1", "x-tab", "a\tb"),
        (with(&[("te", "trailers")]), "GET /bad HTTP/1.1", "host", "a"),
        (with(&[("x-empty", "")]), "GET /bad HTTP/1.1", "x-empty", ""),
        (pseudo("GET", "/a%20b?c=%0d%0a"), "GET /a%20b?c=%0d%0a HTTP/1.1", "host", "a"),
        (pseudo("GET", "/a/../b"), "GET /b HTTP/1.1", "host", "a"),
        (pseudo("OPTIONS", "/x"), "OPTIONS /x HTTP/1.1", "host", "a"),
        (pseudo("PURGE", "/x"), "PURGE /x HTTP/1.1", "host", "a"),
        (with(&[("content-length", "0")]), "GET /bad HTTP/1.1", "content-length", "0"),
    ] {
        frames.send(headers(stream, &fields, true));
        let Fate::Answered { status: 200, body } = frames.fate(stream) else { panic!("{fields:?}") };
        let seen = String::from_utf8(body).unwrap();
        assert_eq!(seen.lines().next().unwrap(), line, "{fields:?}");
        assert_eq!(support::fields(&seen, name), [value], "{seen}");
        let strict::Found::Whole(request, length) = strict::request(seen.as_bytes(), false) else {
            panic!("{seen}")
        };
        assert_eq!((length, request.body.len()), (seen.len(), 0));
        stream += 2;
    }
}

#[test]
fn a_body_that_disagrees_with_its_length_is_never_whole() {
    let (upstream, seen) = Upstream::witness();
    let gateway = before(upstream.address, "");
    let sized = |length: &'static str| [pseudo("POST", "/bad"), vec![("content-length", length)]].concat();
    let head = |length| headers(1, &sized(length), false);
    let data = |bytes: &str, ends: bool| frame(DATA, u8::from(ends), 1, bytes);
    let trailers = |fields: &[(&str, &str)]| headers(1, fields, true);
    let chunked = || headers(1, &pseudo("POST", "/bad"), false);
    let cases = [
        ("shorter", vec![head("10"), data("hello", true)]),
        ("shorter by all", vec![head("10"), data("", true)]),
        ("shorter, with trailers", vec![head("10"), data("hello", false), trailers(&[("x-t", "1")])]),
        ("longer", vec![head("5"), data("hello, world", true)]),
        ("longer by what comes later", vec![head("10"), data("hello", false), data(", world", true)]),
        (
            "a connection's fields in trailers",
            vec![chunked(), data("hello", false), trailers(&[("connection", "close")])],
        ),
        (
            "names in upper case in trailers",
            vec![chunked(), data("hello", false), trailers(&[("X-Up", "1")])],
        ),
        ("lines in trailers", vec![chunked(), data("hello", false), trailers(&[("x-t", "1\r\nx-evil: 2")])]),
        (
            "trailers that do not end",
            vec![chunked(), data("hello", false), headers(1, &[("x-t", "1")], false)],
        ),
        ("data behind the end", vec![chunked(), reset(1, frames::CANCEL), data("hello", true)]),
    ];
    for (what, wire) in cases {
        // All at once, and one after the other.
        for together in [true, false] {
            let before = upstream.accepted();
            let mut frames = raw(&gateway);
            let pieces = if together { vec![wire.concat()] } else { wire.clone() };
            for piece in pieces {
                frames.send(piece);
                all_received([&frames.peer.stream]);
            }
            if what != "data behind the end" {
                let fate = frames.fate(1);
                let is_refused = match fate {
                    Fate::Answered { status, .. } => (400..500).contains(&status),
                    Fate::Reset(code) => code != NO_ERROR,
                    Fate::Gone(code) => code.is_some_and(|code| code != NO_ERROR),
                };
                assert!(is_refused, "{what}: {fate:?}");
            }
            gateway.wait_for_figure("exchanges_active", 0);
            for _ in before..upstream.accepted() {
                let bytes = seen.recv_timeout(PATIENCE).unwrap();
                let text = String::from_utf8_lossy(&bytes);
                assert!(!text.contains("evil"), "{what}: {text}");
                assert!(
                    !matches!(strict::request(&bytes, false), strict::Found::Whole(..)),
                    "{what}: {text}"
                );
            }
        }
    }
    // What comes behind a body that was whole is no one's.
    for (length, body) in [("5", "hello"), ("0", "")] {
        let before = upstream.accepted();
        let mut frames = raw(&gateway);
        frames.send([head(length), data(body, false)].concat());
        within("the body is passed on", || (upstream.accepted() > before).then_some(()));
        frames.send(data("GET /evil HTTP/1.1\r\nHost: a\r\n\r\n", true));
        let fate = frames.fate(1);
        assert!(
            matches!(fate, Fate::Reset(_) | Fate::Gone(_) | Fate::Answered { status: 400..=499, .. }),
            "{fate:?}"
        );
        let bytes = seen.recv_timeout(PATIENCE).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains("evil"));
    }
    is_clean(&gateway);
}
#[test]
fn a_bodys_end_may_come_late() {
    let upstream = echo();
    let gateway = before(upstream.address, "");
    let mut frames = raw(&gateway);
    let mut stream = 1;
    for (length, body) in [("5", "hello"), ("0", "")] {
        // All of its length is there, and answered.
        let sized = [pseudo("POST", "/"), vec![("content-length", length)]].concat();
        frames.send([headers(stream, &sized, false), frame(DATA, 0, stream, body)].concat());
        assert!(matches!(frames.fate(stream), Fate::Answered { status: 200, .. }));
        // Only now the client says that it was all; no one has given the stream up meanwhile.
        frames.send([frame(DATA, END_STREAM, stream, ""), frames::get(stream + 2, "/next")].concat());
        let next = frames.until(|frame| frame.kind == RST_STREAM || frame.is(HEADERS, stream + 2));
        assert_eq!(next.kind, HEADERS, "{next:?}");
        frames.body(stream + 2);
        stream += 4;
    }
    drop(frames);
    is_clean(&gateway);
}

#[test]
fn empty_data_is_not_a_bodys_end() {
    let upstream = echo();
    let gateway = before(upstream.address, "");
    let mut frames = raw(&gateway);
    let pieces = [
        headers(1, &pseudo("POST", "/"), false),
        frame(DATA, 0, 1, ""),
        frame(DATA, 0, 1, "one"),
        frame(DATA, 0, 1, ""),
        frame(DATA, 8, 1, "\x03xyz\0\0\0"),
        frame(DATA, 0, 1, ""),
        frame(DATA, END_STREAM, 1, ""),
    ];
    for piece in pieces {
        frames.send(piece);
        all_received([&frames.peer.stream]);
    }
    assert_eq!(frames.fate(1), Fate::Answered { status: 200, body: b"onexyz".to_vec() });
}

// -------------------------------------------------------------------------------------------------------------- floods

/// A gateway for floods: small limits, a slow upstream for `/held`, whose answers come never.
fn flooded(listener: &str) -> (Gateway, Upstream) {
    let upstream = Upstream::scripted(|mut peer, _| {
        while let Some(head) = peer.try_head() {
            if head.contains(" /held") {
                peer.rest();
                return;
            }
            support::request_body(&mut peer, &head);
            peer.try_send(ok(&vec![7; if head.contains(" /much") { MIB } else { 2 }]));
        }
    });
    (before(upstream.address, listener), upstream)
}

/// Sends as much of these bytes as the gateway takes while its answers are read, or not read. Comes back when all is sent
/// or the connection is gone.
fn flood(gateway: &Gateway, first: &[u8], piece: &[u8], times: usize, reads: bool) -> Peer {
    let mut peer = gateway.connect();
    let mut reader = reads.then(|| {
        let mut stream = peer.stream.try_clone().unwrap();
        thread::spawn(move || std::io::copy(&mut stream, &mut std::io::sink()))
    });
    let is_over = Arc::new(AtomicBool::new(false));
    // Who does not read may block for ever: it is sent from a thread of its own.
    let over = Arc::clone(&is_over);
    let mut writer = Peer::new(peer.stream.try_clone().unwrap());
    writer.stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    writer.try_send([PREFACE.as_slice(), &settings(&[]), first].concat());
    let (piece, together) = (piece.to_vec(), (16_384 / piece.len()).max(1));
    let batch = piece.repeat(together);
    let writing = thread::spawn(move || {
        for _ in 0..times.div_ceil(together) {
            if !writer.try_send(&batch) {
                break;
            }
        }
        over.store(true, Ordering::SeqCst);
    });
    // Meanwhile others are served.
    let other = client(gateway);
    let mut served = 0;
    while !is_over.load(Ordering::SeqCst) || served < 10 {
        assert_eq!(other.ask(get("/other"), "").status, 200);
        served += 1;
    }
    writing.join().unwrap();
    serves_others(gateway);
    let _ = peer.stream.shutdown(std::net::Shutdown::Both);
    if let Some(reader) = reader.take() {
        let _ = reader.join();
    }
    peer.inbox.clear();
    peer
}

fn survives(gateway: &Gateway, what: &str, first: &[u8], piece: &[u8], times: usize) {
    let resident_kib = gateway.resident_kib();
    for reads in [true, false] {
        drop(flood(gateway, first, piece, times, reads));
        is_clean(gateway);
    }
    let grown_kib = gateway.resident_kib().saturating_sub(resident_kib);
    assert!(grown_kib < 24 * 1024, "{what}: {grown_kib} KiB more");
}

#[test]
fn floods_of_frames() {
    let (gateway, _upstream) = flooded("");
    let held = headers(1, &pseudo("POST", "/held"), false);
    let settings_frame = settings(&[(INITIAL_WINDOW_SIZE, 100)]);
    for (what, first, piece, times) in [
        ("SETTINGS", vec![], settings_frame, 20_000),
        ("PING", vec![], frame(PING, 0, 0, [7; 8]), 20_000),
        ("empty DATA", held.clone(), frame(DATA, 0, 1, ""), 20_000),
        ("small DATA", held.clone(), frame(DATA, 0, 1, "x"), 20_000),
        ("padding alone", held.clone(), frame(DATA, 8, 1, [&[255][..], &[0; 255]].concat()), 2000),
        ("PRIORITY", vec![], frame(PRIORITY, 0, 5, [0, 0, 0, 3, 16]), 20_000),
        ("WINDOW_UPDATE", vec![], window(0, 1), 20_000),
        ("unknown frames", vec![], frame(0xbe, 0xff, 0, [1; 32]), 20_000),
        ("RST_STREAM of one stream", held.clone(), reset(1, frames::CANCEL), 20_000),
        ("GOAWAY", vec![], goaway(0, 0), 20_000),
    ] {
        survives(&gateway, what, &first, &piece, times);
    }
}

/// Sends so many batches, if the gateway takes them, and sees the connection end because of that.
fn is_calmed(gateway: &Gateway, what: &str, first: &[u8], most: u32, batch: impl Fn(u32) -> Vec<u8>) {
    let mut frames = raw(gateway);
    frames.is_mute = true;
    frames.send(first);
    let mut reader = Frames::beside(Peer::new(frames.peer.stream.try_clone().unwrap()));
    reader.is_mute = true;
    let ended = thread::spawn(move || reader.ended());
    let batches = (0..most).take_while(|number| frames.peer.try_send(batch(*number))).count();
    let _ = frames.peer.stream.shutdown(std::net::Shutdown::Write);
    let code = ended.join().unwrap();
    assert!(matches!(code, Some(ENHANCE_YOUR_CALM) | None), "{what}: {code:?}");
    assert!(code.is_some() || batches < most as usize, "{what}: it goes on for ever");
}

#[test]
fn who_takes_requests_back_at_once_or_sends_too_long_ones_is_told_to_calm_down() {
    let (gateway, _upstream) = flooded("");
    let taken_back = |batch: u32| {
        let ids = (batch * 10..(batch + 1) * 10).map(|n| 2 * n + 1);
        ids.flat_map(|id| [frames::get(id, "/small"), reset(id, frames::CANCEL)].concat()).collect()
    };
    is_calmed(&gateway, "taken back", b"", 1000, taken_back);

    let long = "y".repeat(5000);
    let fields: Vec<(&str, &str)> =
        [pseudo("GET", "/small"), ["x-a", "x-b", "x-c", "x-d"].map(|name| (name, long.as_str())).to_vec()]
            .concat();
    let block = block(&fields);
    let too_long = |number: u32| {
        let id = 2 * number + 1;
        [
            frame(HEADERS, END_STREAM, id, &block[..16_000]),
            frame(CONTINUATION, END_HEADERS, id, &block[16_000..]),
        ]
        .concat()
    };
    is_calmed(&gateway, "too long", b"", 1000, too_long);
    serves_others(&gateway);
    is_clean(&gateway);
}

#[test]
fn who_sends_what_asks_for_nothing_is_told_to_calm_down() {
    let (gateway, _upstream) = flooded("");
    let held = headers(1, &pseudo("POST", "/held"), false);
    for (what, first, piece) in [
        ("SETTINGS", vec![], settings(&[])),
        ("PING", vec![], frame(PING, 0, 0, [7; 8])),
        ("empty DATA", held.clone(), frame(DATA, 0, 1, "")),
        ("PRIORITY", vec![], frame(PRIORITY, 0, 5, [0, 0, 0, 3, 16])),
        ("WINDOW_UPDATE", vec![], window(0, 1)),
        ("unknown frames", vec![], frame(0xbe, 0xff, 0, [1; 32])),
    ] {
        // As much as it takes, and no more than that.
        is_calmed(&gateway, what, &first, 100, |_| piece.repeat(500));
    }
    serves_others(&gateway);
    is_clean(&gateway);
}

#[test]
fn rapid_resets() {
    let (gateway, _upstream) = flooded("");
    let resident_kib = gateway.resident_kib();
    for path in ["/held", "/much", "/small"] {
        let mut peer = gateway.connect();
        peer.try_send([PREFACE.as_slice(), &settings(&[])].concat());
        let mut stream = peer.stream.try_clone().unwrap();
        let reader = thread::spawn(move || std::io::copy(&mut stream, &mut std::io::sink()));
        for batch in 0..100_u32 {
            let pairs = (batch * 100..(batch + 1) * 100).map(|n| 2 * n + 1);
            let wire: Vec<u8> =
                pairs.flat_map(|id| [frames::get(id, path), reset(id, frames::CANCEL)].concat()).collect();
            if !peer.try_send(wire) {
                break;
            }
            if batch % 10 == 0 {
                assert_eq!(ask_http1(&gateway, support::get("/other")).status, 200);
            }
        }
        serves_others(&gateway);
        let _ = peer.stream.shutdown(std::net::Shutdown::Both);
        let _ = reader.join();
        drop(peer);
        is_clean(&gateway);
    }
    let grown_kib = gateway.resident_kib().saturating_sub(resident_kib);
    assert!(grown_kib < 24 * 1024, "{grown_kib} KiB more");
}

/// Each stream is answered for before it is reset, so that none of them waits to be looked at (CVE-2023-44487).
#[test]
fn resets_one_by_one_leave_nothing_behind() {
    let (gateway, _upstream) = flooded("");
    let mut frames = raw(&gateway);
    for n in 0..300 {
        let stream = 4 * n + 1;
        frames.send([frames::get(stream, "/held"), frames::get(stream + 2, "/small")].concat());
        let fate = frames.fate(stream + 2);
        if matches!(fate, Fate::Gone(_)) {
            break;
        }
        assert!(matches!(fate, Fate::Answered { status: 200, .. }), "{fate:?}");
        frames.send(reset(stream, frames::CANCEL));
    }
    drop(frames);
    is_clean(&gateway);
    serves_others(&gateway);
}

#[test]
fn continuation_without_an_end() {
    let (gateway, _upstream) = flooded("");
    let begin = frame(HEADERS, END_STREAM, 1, block(&pseudo("GET", "/held")));
    for (what, piece, times) in [
        ("empty", frame(CONTINUATION, 0, 1, ""), 20_000),
        ("small fields", frame(CONTINUATION, 0, 1, block(&[("a", "b")])), 20_000),
        ("large fields", frame(CONTINUATION, 0, 1, block(&[("x-large", &"y".repeat(16_000))])), 2000),
        // One literal that never ends.
        ("a long literal", frame(CONTINUATION, 0, 1, [b'z'; 16_000]), 2000),
    ] {
        let mut first = begin.clone();
        if what == "a long literal" {
            first.extend(frame(CONTINUATION, 0, 1, [0, 1, b'a', 127, 255, 255, 255, 127]));
        }
        survives(&gateway, what, &first, &piece, times);
    }
    // Frames of others between.
    let mut frames = raw(&gateway);
    frames.send([begin, frame(PING, 0, 0, [0; 8]), frame(CONTINUATION, END_HEADERS, 1, "")].concat());
    assert_eq!(frames.ended(), Some(PROTOCOL_ERROR));
}

#[test]
fn header_bombs() {
    let (gateway, upstream) = flooded("");
    let resident_kib = gateway.resident_kib();
    // A field of 4000 bytes in the table, and one byte for each time that it is meant.
    let mut bomb = block(&pseudo("GET", "/bomb"));
    bomb.push(0x40);
    let entry = block(&[("x-b", &"y".repeat(3900))]);
    bomb.extend_from_slice(&entry[1..]);
    bomb.extend([0xbe; 12_000]);
    let mut frames = raw(&gateway);
    frames.send(frame(HEADERS, END_STREAM | END_HEADERS, 1, &bomb));
    let fate = frames.fate(1);
    assert!(matches!(fate, Fate::Answered { status: 431, .. } | Fate::Reset(_) | Fate::Gone(_)), "{fate:?}");
    // Literally: more than a head may have, in one frame and in several.
    for size in [20_000, 100_000, 4 * MIB] {
        let large = block(&[pseudo("GET", "/bomb"), vec![("x-b", &"y".repeat(size))]].concat());
        let mut chunks = large.chunks(16_000);
        let mut wire = frame(HEADERS, END_STREAM, 1, chunks.next().unwrap());
        chunks.for_each(|chunk| wire.extend(frame(CONTINUATION, 0, 1, chunk)));
        wire.extend(frame(CONTINUATION, END_HEADERS, 1, ""));
        let mut frames = raw(&gateway);
        frames.peer.try_send(&wire);
        let fate = frames.fate(1);
        assert!(
            matches!(fate, Fate::Answered { status: 431, .. } | Fate::Reset(_) | Fate::Gone(_)),
            "{size}: {fate:?}"
        );
    }
    // Very many fields, and very many crumbs.
    for field in [("a", "b"), ("cookie", "a=b")] {
        let mut fields = pseudo("GET", "/bomb");
        fields.extend([field; 3000]);
        let mut frames = raw(&gateway);
        let many = block(&fields);
        let (now, later) = many.split_at(many.len().min(16_000));
        frames.peer.try_send(
            [frame(HEADERS, END_STREAM, 1, now), frame(CONTINUATION, END_HEADERS, 1, later)].concat(),
        );
        let fate = frames.fate(1);
        assert!(
            matches!(fate, Fate::Answered { status: 431, .. } | Fate::Reset(_) | Fate::Gone(_)),
            "{field:?}: {fate:?}"
        );
    }
    drop(frames);
    assert_eq!(upstream.accepted(), 0);
    serves_others(&gateway);
    is_clean(&gateway);
    let grown_kib = gateway.resident_kib().saturating_sub(resident_kib);
    assert!(grown_kib < 24 * 1024, "{grown_kib} KiB more");
}

#[test]
fn windows_of_nothing() {
    let (gateway, _upstream) = flooded("timeouts = { write_stall = \"300ms\" }");
    let resident_kib = gateway.resident_kib();
    let mut frames = Frames::client_with(gateway.connect(), &[(INITIAL_WINDOW_SIZE, 0)]);
    frames.send((0..100).flat_map(|n| frames::get(2 * n + 1, "/much")).collect::<Vec<_>>());
    let mut reset = 0;
    while reset < 100 {
        let frame = frames.until(|frame| frame.kind == RST_STREAM || frame.kind == DATA);
        assert_ne!(frame.kind, DATA, "{frame:?}");
        reset += 1;
    }
    let grown_kib = gateway.resident_kib().saturating_sub(resident_kib);
    assert!(grown_kib < 32 * 1024, "{grown_kib} KiB more");
    serves_others(&gateway);
    drop(frames);
    is_clean(&gateway);
}

#[test]
fn windows_of_one_byte() {
    let upstream = Upstream::saying("the whole of a short text");
    let gateway = before(upstream.address, "");
    let mut frames = Frames::client_with(gateway.connect(), &[(INITIAL_WINDOW_SIZE, 1)]);
    frames.send(frames::get(1, "/"));
    let mut body = Vec::new();
    let mut empty = 0;
    loop {
        let frame = frames.until(|frame| frame.is(DATA, 1));
        assert!(frame.payload.len() <= 1);
        empty += usize::from(frame.payload.is_empty());
        body.extend_from_slice(&frame.payload);
        if frame.has(END_STREAM) {
            break;
        }
        frames.send(window(1, 1));
    }
    assert_eq!(body, b"the whole of a short text");
    assert!(empty <= 1, "{empty} frames of nothing");
    // Smaller than nothing, by a change of the settings.
    frames.send([settings(&[(INITIAL_WINDOW_SIZE, 4)]), frames::get(3, "/")].concat());
    let first = frames.until(|frame| frame.is(DATA, 3));
    assert_eq!(first.payload, b"the ");
    frames.send([settings(&[(INITIAL_WINDOW_SIZE, 0)]), window(3, 10), frame(PING, 0, 0, [1; 8])].concat());
    let rest = frames.until(|frame| frame.is(DATA, 3));
    assert_eq!(rest.payload, b"whole ");
    frames.send(window(3, 100));
    assert_eq!(frames.body(3), b"of a short text");
}

#[test]
fn windows_that_overflow() {
    let (gateway, _upstream) = flooded("");
    let max = (1 << 31) - 1;
    let held = || headers(1, &pseudo("POST", "/held"), false);
    let fate = |wire: Vec<u8>| {
        let mut frames = raw(&gateway);
        frames.peer.try_send(wire);
        frames.fate(1)
    };
    // A stream's, and the connection's.
    let overflow = fate([held(), window(1, max)].concat());
    assert!(
        matches!(overflow, Fate::Reset(FLOW_CONTROL_ERROR) | Fate::Gone(Some(FLOW_CONTROL_ERROR))),
        "{overflow:?}"
    );
    assert_eq!(fate(window(0, max)), Fate::Gone(Some(FLOW_CONTROL_ERROR)));
    // By the settings; RFC 9113 §6.5.2 has another code for it than h2.
    let overflow = fate([held(), settings(&[(INITIAL_WINDOW_SIZE, 1 << 31)])].concat());
    assert!(matches!(overflow, Fate::Gone(Some(PROTOCOL_ERROR | FLOW_CONTROL_ERROR))), "{overflow:?}");
    // By nothing.
    let nothing = fate([held(), window(1, 0)].concat());
    assert!(matches!(nothing, Fate::Reset(PROTOCOL_ERROR) | Fate::Gone(Some(PROTOCOL_ERROR))), "{nothing:?}");
    // More data than ours allows.
    let data: Vec<u8> = (0..100).flat_map(|_| frame(DATA, 0, 1, [0; 16_384])).collect();
    let overflow = fate([held(), data].concat());
    assert!(matches!(overflow, Fate::Reset(FLOW_CONTROL_ERROR) | Fate::Gone(_)), "{overflow:?}");
    serves_others(&gateway);
    is_clean(&gateway);
}
#[test]
fn streams_beyond_the_limit_are_refused() {
    let (upstream, mut asked) = Upstream::asking();
    let gateway = before(upstream.address, "limits = { http2_streams = 2 }");
    let mut frames = raw(&gateway);
    let said = frames.until(|frame| frame.kind == SETTINGS && !frame.has(frames::ACK));
    let streams = said.payload.chunks(6).find(|setting| setting[..2] == [0, 3]).unwrap();
    assert_eq!(streams[2..], [0, 0, 0, 2]);
    frames.send((0..6).flat_map(|n| frames::get(2 * n + 1, "/held")).collect::<Vec<_>>());
    for stream in [5, 7, 9, 11] {
        let refused = frames.until(|frame| frame.kind == RST_STREAM);
        assert_eq!((refused.stream, refused.number(0)), (stream, REFUSED_STREAM));
    }
    let questions = [asked.question(), asked.question()];
    assert!(!asked.has_question());
    for question in questions {
        question.ok("held");
    }
    for _ in 0..2 {
        frames.until(|frame| frame.kind == DATA && frame.has(END_STREAM));
    }
    // There is room again.
    frames.send(frames::get(13, "/again"));
    asked.question().ok("again");
    assert_eq!(frames.fate(13), Fate::Answered { status: 200, body: b"again".to_vec() });
    drop(frames);
    is_clean(&gateway);
}

/// These bytes with some of them changed, from the `keep`th on.
fn spoiled(mut wire: Vec<u8>, keep: usize, rng: &mut fastrand::Rng) -> Vec<u8> {
    for _ in 0..rng.usize(1..6) {
        let at = rng.usize(keep..wire.len());
        wire[at] = if rng.bool() { rng.u8(..) } else { wire[at] ^ (1 << rng.u8(..8)) };
    }
    wire
}

#[test]
fn noise_of_clients_ends_their_connections_only() {
    let (gateway, _upstream) = flooded("");
    let mut rng = fastrand::Rng::with_seed(1);
    let wire = [
        PREFACE.to_vec(),
        settings(&[(INITIAL_WINDOW_SIZE, 100)]),
        frames::get(1, "/small"),
        headers(3, &pseudo("POST", "/held"), false),
        frame(DATA, 0, 3, "some"),
        window(3, 100),
        frame(HEADERS, 0, 5, block(&pseudo("GET", "/much"))),
        frame(CONTINUATION, END_HEADERS, 5, block(&[("x-a", "b")])),
        frame(PING, 0, 0, [0; 8]),
        frame(DATA, END_STREAM, 3, ""),
        reset(5, frames::CANCEL),
        frames::get(7, "/small"),
    ]
    .concat();
    for _ in 0..400 {
        let mut frames = Frames::beside(gateway.connect());
        frames.peer.try_send(spoiled(wire.clone(), PREFACE.len(), &mut rng));
        frames.peer.finish();
        frames.ended();
    }
    serves_others(&gateway);
    is_clean(&gateway);
}

#[test]
fn noise_of_endpoints_ends_their_connections_only() {
    let wire = [
        settings(&[(INITIAL_WINDOW_SIZE, 100)]),
        frame(SETTINGS, frames::ACK, 0, ""),
        frame(HEADERS, END_HEADERS, 1, [&[0x08, 3][..], b"103", &block(&[("link", "</a>")])].concat()),
        frame(
            HEADERS,
            END_HEADERS,
            1,
            [&[0x88][..], &block(&[("content-length", "9"), ("x-a", "b")])].concat(),
        ),
        frame(DATA, 0, 1, "hello"),
        window(0, 100),
        frame(PING, 0, 0, [0; 8]),
        frame(DATA, 0, 1, "more"),
        headers(1, &[("x-trailer", "c")], true),
    ]
    .concat();
    let rng = Mutex::new(fastrand::Rng::with_seed(2));
    let upstream = Upstream::scripted(move |mut peer, _| {
        peer.exactly(PREFACE.len());
        let wire = spoiled(wire.clone(), 0, &mut rng.lock().unwrap());
        peer.try_send(wire);
        peer.finish();
        peer.rest();
    });
    let gateway = between(upstream.address, "timeouts = { first_byte = \"100ms\", idle = \"100ms\" }");
    for n in 0..300 {
        // Whatever comes of it, something does.
        let mut peer = gateway.connect();
        peer.send(if n % 2 == 0 { support::get("/") } else { support::post("/", "body") });
        while peer.try_head().is_some_and(|head| head.starts_with("HTTP/1.1 103 ")) {}
    }
    is_clean(&gateway);
}

#[test]
fn frames_that_make_no_sense_end_the_connection() {
    let (gateway, _upstream) = flooded("");
    for (what, wire) in [
        ("DATA of an idle stream", frame(DATA, 0, 1, "x")),
        ("DATA of no stream", frame(DATA, 0, 0, "x")),
        ("HEADERS of no stream", frame(HEADERS, END_HEADERS, 0, block(&pseudo("GET", "/")))),
        ("a server's stream", frames::get(2, "/")),
        ("streams that go backwards", [frames::get(5, "/small"), frames::get(3, "/small")].concat()),
        ("RST_STREAM of an idle stream", reset(1, 8)),
        ("WINDOW_UPDATE of an idle stream", window(1, 1)),
        ("CONTINUATION of nothing", frame(CONTINUATION, END_HEADERS, 1, "")),
        ("a short PING", frame(PING, 0, 0, [0; 7])),
        ("a PING of a stream", frame(PING, 0, 1, [0; 8])),
        ("SETTINGS of a stream", frame(SETTINGS, 0, 1, "")),
        ("SETTINGS of an odd length", frame(SETTINGS, 0, 0, [0; 5])),
        ("an acknowledgement with content", frame(SETTINGS, frames::ACK, 0, [0; 6])),
        ("a client that pushes", frame(5, END_HEADERS, 1, [0, 0, 0, 2])),
        ("a frame beyond the size", frame(DATA, 0, 1, vec![0; 20_000])),
        (
            "padding longer than its frame",
            [headers(1, &pseudo("POST", "/held"), false), frame(DATA, 8, 1, [9, 1])].concat(),
        ),
        ("an index of no one", frame(HEADERS, END_HEADERS | END_STREAM, 1, [0xff, 0xff, 0xff, 0x7f])),
        ("a block cut short", frame(HEADERS, END_HEADERS | END_STREAM, 1, [0x40, 0x05, b'a'])),
        (
            "a broken code of Huffman",
            frame(HEADERS, END_HEADERS | END_STREAM, 1, [0x82, 0x84, 0x86, 0x01, 0x81, 0xff]),
        ),
    ] {
        let mut frames = raw(&gateway);
        frames.peer.try_send(wire);
        let code = frames.ended();
        assert!(code.is_some_and(|code| code != NO_ERROR), "{what}: {code:?}");
    }
    is_clean(&gateway);
}

// --------------------------------------------------------------------------------------------------------------- drain

/// The streams that a connection still takes, by its last GOAWAY.
fn last_stream(frame: &frames::Frame) -> u32 {
    assert_eq!(frame.number(4), NO_ERROR);
    frame.number(0)
}

#[test]
fn a_drain_says_so_twice_and_loses_no_stream() {
    let (upstream, mut asked) = Upstream::asking();
    let mut gateway = before(upstream.address, "");
    let mut frames = raw(&gateway);
    frames.send(frames::get(1, "/before"));
    let before = asked.question();
    frames.is_mute = true;
    gateway.signal("TERM");
    let first = frames.until(|frame| frame.kind == GOAWAY);
    assert_eq!(last_stream(&first), (1 << 31) - 1);
    let ping = frames.until(|frame| frame.kind == PING && !frame.has(frames::ACK));
    // It was on its way.
    frames.send(frames::get(3, "/between"));
    let between = asked.question();
    frames.send(frame(PING, frames::ACK, 0, &ping.payload));
    let second = frames.until(|frame| frame.kind == GOAWAY);
    assert_eq!(last_stream(&second), 3);
    // It was not, and is not looked at.
    frames.send(frames::get(5, "/behind"));
    before.ok("before");
    assert_eq!(frames.fate(1), Fate::Answered { status: 200, body: b"before".to_vec() });
    between.ok("between");
    assert_eq!(frames.fate(3), Fate::Answered { status: 200, body: b"between".to_vec() });
    assert_eq!(frames.ended(), Some(NO_ERROR));
    assert!(!asked.has_question());
    assert_eq!(gateway.wait().code(), Some(0));
}

#[test]
fn a_drain_closes_idle_connections() {
    let mut gateway = Gateway::start(&config(&format!("{H2C}\n{HERE}")));
    let idle = client(&gateway);
    assert_eq!(idle.says("/"), "yes");
    let fresh = client(&gateway);
    // And one that does not answer.
    let mut mute = raw(&gateway);
    mute.serves(1, "/");
    mute.is_mute = true;
    gateway.signal("TERM");
    idle.ended().unwrap();
    fresh.ended().unwrap();
    assert_eq!(mute.ended(), Some(NO_ERROR));
    assert_eq!(gateway.wait().code(), Some(0));
}

#[test]
fn a_drain_has_an_end_for_streams_too() {
    let (upstream, mut asked) = Upstream::asking();
    let text = all_to_with(upstream.address, H2C, "", "")
        .replace("workers = 1\n", "workers = 1\ndrain_timeout = \"200ms\"\n");
    let mut gateway = Gateway::start(&text);
    let client = client(&gateway);
    let mut silent = client.begin(get("/"), true);
    let _question = asked.question();
    let mut begun = client.begin(get("/"), true);
    let question = asked.question();
    question.part("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf");
    let incoming = begun.head().unwrap();
    gateway.signal("TERM");
    assert_eq!(silent.answer().unwrap().status, 503);
    assert!(incoming.rest().is_err());
    assert_eq!(gateway.wait().code(), Some(0));
}

#[test]
fn sigterm_under_load_loses_no_stream() {
    const CLIENTS: usize = 4;
    let served = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&served);
    let upstream = Upstream::answering(move |_, _| {
        count.fetch_add(1, Ordering::SeqCst);
        ok(b"fine")
    });
    let mut gateway = before(upstream.address, "");
    let address = gateway.address();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            thread::spawn(move || {
                let client = Client::connect(address);
                let mut answered = 0;
                loop {
                    let requests = (0..8).map(|n| {
                        let body = if n % 2 == 0 { Bytes::new() } else { vec![7; 5000].into() };
                        (post("/"), body)
                    });
                    for answer in client.ask_all(requests) {
                        match answer {
                            Ok(answer) => {
                                assert_eq!(answer.status, 200, "{}", answer.text());
                                answered += 1;
                            }
                            // Not looked at: the client may send it elsewhere.
                            Err(error) if error.is_go_away() && error.reason() == Some(Reason::NO_ERROR) => {
                                return answered;
                            }
                            Err(error) if error.reason() == Some(Reason::REFUSED_STREAM) => return answered,
                            Err(error) => panic!("{error:?}, after {answered}"),
                        }
                    }
                }
            })
        })
        .collect();
    within("some load", || (served.load(Ordering::SeqCst) > 300).then_some(()));
    gateway.signal("TERM");
    let answered: usize = clients.into_iter().map(|client| client.join().unwrap()).sum();
    assert_eq!(gateway.wait().code(), Some(0));
    assert_eq!(served.load(Ordering::SeqCst), answered, "nothing was served for no one");
}

#[test]
fn an_idle_connection_is_closed_in_time() {
    let timeouts = "timeouts = { keep_alive = \"200ms\" }";
    let gateway = Gateway::start(&config(&format!("{H2C}\n{timeouts}\n{HERE}")));
    let mut frames = raw(&gateway);
    frames.serves(1, "/");
    assert_eq!(frames.ended(), Some(NO_ERROR));
    // So is one on which nothing was asked, and one that does not answer.
    assert_eq!(raw(&gateway).ended(), Some(NO_ERROR));
    let mut mute = raw(&gateway);
    mute.is_mute = true;
    assert_eq!(mute.ended(), Some(NO_ERROR));
    assert!(gateway.figure("timeouts_keep_alive") <= 3);
    is_clean(&gateway);
}

#[test]
fn a_connection_that_is_in_use_is_not_idle() {
    let (upstream, mut asked) = Upstream::asking();
    let gateway = before(upstream.address, "timeouts = { keep_alive = \"100ms\" }");
    let client = client(&gateway);
    let mut long = client.begin(get("/long"), true);
    let question = asked.question();
    // An idle one has come and gone meanwhile.
    raw(&gateway).ended();
    raw(&gateway).ended();
    let mut short = client.begin(get("/short"), true);
    asked.question().ok("short");
    assert_eq!(short.answer().unwrap().text(), "short");
    question.ok("long");
    assert_eq!(long.answer().unwrap().text(), "long");
    client.ended().unwrap();
}

#[test]
fn a_connection_takes_so_many_requests() {
    let limits = "limits = { requests_per_connection = 3 }";
    let gateway = Gateway::start(&config(&format!("{H2C}\n{limits}\n{HERE}")));
    let mut frames = raw(&gateway);
    for stream in [1, 3, 5] {
        frames.serves(stream, "/");
    }
    let last = frames.until(|frame| frame.kind == GOAWAY && frame.number(0) < 1 << 30);
    assert_eq!(last_stream(&last), 5);
    assert_eq!(frames.ended(), Some(NO_ERROR));
    // What came before the client knew is served all the same.
    let mut frames = raw(&gateway);
    frames.send((0..6).flat_map(|n| frames::get(2 * n + 1, "/")).collect::<Vec<_>>());
    let mut answered = 0;
    while let Some(frame) = frames.next() {
        answered += usize::from(frame.kind == DATA && frame.has(END_STREAM));
    }
    assert_eq!(answered, 6);
    // And a connection of some age takes no more either.
    let timeouts = "timeouts = { connection_age = \"1ms\" }";
    let gateway = Gateway::start(&config(&format!("{H2C}\n{timeouts}\n{HERE}")));
    let mut frames = raw(&gateway);
    let answered = Fate::Answered { status: 200, body: b"yes".to_vec() };
    // The first one may be served before the connection has that age.
    let mut fates = (0..).map(|n| {
        frames.peer.try_send(frames::get(2 * n + 1, "/"));
        frames.fate(2 * n + 1)
    });
    assert_eq!(fates.next().as_ref(), Some(&answered));
    let other = fates.find(|fate| *fate != answered);
    assert!(matches!(other, Some(Fate::Gone(Some(NO_ERROR) | None))), "{other:?}");
}

// ------------------------------------------------------------------------------------------- HTTP/2 towards endpoints

/// What a server of HTTP/2 sees of a request.
fn describe(head: &http::request::Parts, body: &[u8]) -> String {
    let fields: Vec<_> =
        head.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    format!(
        "{} {} {}\n{}\n\n{}",
        head.method,
        head.uri,
        body.len(),
        fields.join("\n"),
        String::from_utf8_lossy(body)
    )
}

/// A server that says what it sees.
fn describing() -> Server {
    Server::answering(|head, body| Answer::ok(describe(head, &body)))
}

#[test]
fn any_version_to_an_endpoint_of_http2() {
    let server = describing();
    let gateway = between(server.address, "");
    let by_http1 = ask_http1(
        &gateway,
        "POST /a?b=c HTTP/1.1\r\nHost: example.com:81\r\nConnection: x-hop\r\nX-Hop: 1\r\nX-Two: a\r\nX-Two: b\r\n\
         Cookie: a=1\r\nContent-Length: 5\r\n\r\nhello",
    );
    let fields = [("x-two", "a"), ("x-two", "b"), ("cookie", "a=1"), ("content-length", "5")];
    let by_http2 = client(&gateway).ask(request("POST", "http://example.com:81/a?b=c", &fields), "hello");
    for seen in [by_http1.text(), by_http2.text()] {
        assert!(seen.starts_with("POST http://example.com:81/a?b=c 5\n"), "{seen}");
        assert!(seen.ends_with("\n\nhello"), "{seen}");
        for line in
            ["x-two: a\nx-two: b\n", "cookie: a=1\n", "content-length: 5\n", "x-forwarded-for: 127.0.0.1\n"]
        {
            assert!(seen.contains(line), "{line}: {seen}");
        }
        for name in ["host:", "connection:", "x-hop:", "transfer-encoding:", "upgrade:"] {
            assert!(!seen.contains(&format!("\n{name}")), "{name} {seen}");
        }
    }
    assert_eq!(server.accepted(), 1);
    let response = ask_http1(
        &gateway,
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n0\r\n\r\n",
    );
    assert!(response.text().starts_with("POST http://a/ 3\n"), "{}", response.text());
    // A length that is not known is framed.
    assert_eq!(response.field("transfer-encoding").as_deref(), Some("chunked"));
    let mut peer = gateway.connect();
    peer.send("GET / HTTP/1.0\r\n\r\n");
    assert!(peer.response().text().starts_with(&format!("GET http://{}/ 0\n", server.address)));
}

#[test]
fn an_endpoint_of_http2_is_asked_over_and_over_on_one_connection() {
    let server = Server::answering(|_, _| Answer::ok("fine"));
    let gateway = between(server.address, "");
    let mut peer = gateway.connect();
    let client = client(&gateway);
    for n in 0..20 {
        peer.send(support::get("/"));
        assert_eq!(peer.response().text(), "fine");
        assert_eq!(gateway.log_line()["reused"], n > 0);
        assert_eq!(client.says("/"), "fine");
        assert_eq!(gateway.log_line()["reused"], true);
    }
    assert_eq!(server.accepted(), 1);
    assert_eq!(gateway.figure("upstream_connections_active"), 1);
}

#[test]
fn one_connection_serves_many_at_once() {
    let (server, mut asked) = Server::asking(server::Builder::new(), None);
    let gateway = between(server.address, "");
    let client = client(&gateway);
    let mut exchanges: Vec<_> = (0..90).map(|n| client.begin(get(&format!("/{n}")), true)).collect();
    let mut questions = asked.questions(90);
    questions.reverse();
    for question in questions {
        let path = question.path().to_owned();
        question.ok(&path);
    }
    for (n, exchange) in exchanges.iter_mut().enumerate() {
        assert_eq!(exchange.answer().unwrap().text(), format!("/{n}"));
    }
    assert_eq!(server.accepted(), 1);
    drop((client, exchanges));
    is_settled(&gateway);
}

#[test]
fn an_endpoint_gets_as_many_streams_as_it_allows() {
    let mut builder = server::Builder::new();
    builder.max_concurrent_streams(2);
    let (server, mut asked) = Server::asking(builder, None);
    let gateway = between(server.address, "");
    let client = client(&gateway);
    // All are under way before one is answered.
    let mut exchanges: Vec<_> = (0..6).map(|n| client.begin(post(&format!("/{n}")), true)).collect();
    let questions = asked.questions(6);
    let mut per_connection = [0; 6];
    for question in &questions {
        per_connection[question.connection] += 1;
    }
    assert_eq!(per_connection, [2, 2, 2, 0, 0, 0]);
    for question in questions {
        question.ok("fine");
    }
    for exchange in &mut exchanges {
        assert_eq!(exchange.answer().unwrap().text(), "fine");
    }
    assert_eq!(server.accepted(), 3);
    // And these are enough for the next.
    let mut exchanges: Vec<_> = (0..6).map(|n| client.begin(get(&format!("/{n}")), true)).collect();
    for question in asked.questions(6) {
        question.ok("again");
    }
    for exchange in &mut exchanges {
        assert_eq!(exchange.answer().unwrap().text(), "again");
    }
    assert_eq!(server.accepted(), 3);
}

#[test]
fn who_finds_no_stream_waits_for_one() {
    let mut builder = server::Builder::new();
    builder.max_concurrent_streams(1);
    let (server, mut asked) = Server::asking(builder, None);
    let gateway = between(server.address, "pool = { max_connections = 1 }\ntimeouts = { connect = \"1h\" }");
    let client = client(&gateway);
    let mut first = client.begin(get("/first"), true);
    let question = asked.question();
    let mut exchanges: Vec<_> = (0..3).map(|_| client.begin(get("/next"), true)).collect();
    gateway.wait_for_figure("exchanges_active", 4);
    assert!(!asked.has_question());
    question.ok("first");
    assert_eq!(first.answer().unwrap().text(), "first");
    for _ in 0..3 {
        asked.question().ok("next");
    }
    for exchange in &mut exchanges {
        assert_eq!(exchange.answer().unwrap().text(), "next");
    }
    assert_eq!(server.accepted(), 1);
}

#[test]
fn so_many_wait_for_a_stream_as_may() {
    let mut builder = server::Builder::new();
    builder.max_concurrent_streams(1);
    let (server, mut asked) = Server::asking(builder, None);
    let gateway =
        between(server.address, "pool = { max_connections = 1, queue = 2, queue_timeout = \"1h\" }");
    let ask = || {
        let mut peer = gateway.connect();
        peer.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        peer
    };
    let mut first = ask();
    let question = asked.question();
    let (mut second, third) = (ask(), ask());
    gateway.wait_for_figure("exchanges_active", 3);
    assert_eq!(ask().response().status, 503);
    assert_eq!(gateway.log_line()["end"], "queue-full");
    // One that leaves makes room for another.
    third.reset();
    assert_eq!(gateway.log_line()["end"], "client-gone");
    let mut fourth = ask();
    gateway.wait_for_figure("exchanges_active", 3);
    question.ok("yes");
    assert_eq!(first.response().text(), "yes");
    for _ in 0..2 {
        asked.question().ok("yes");
    }
    assert_eq!((second.response().text(), fourth.response().text()), ("yes".into(), "yes".into()));
}

#[test]
fn bodies_to_an_endpoint_of_http2() {
    let server = Server::answering(|head, body| {
        let mut answer = Answer::ok(body);
        if head.headers.contains_key("content-length") {
            let length = answer.body.len().to_string();
            answer.fields.insert("content-length", length.parse().unwrap());
        }
        answer
    });
    let gateway = between(server.address, "");
    let client = client(&gateway);
    let body = pattern(5 * MIB);
    let length = body.len().to_string();
    for fields in [&[][..], &[("content-length", length.as_str())]] {
        let answer = client.ask(request("POST", "http://a/", fields), body.clone());
        assert!(answer.body == body);
        assert_eq!(answer.field("content-length").is_some(), !fields.is_empty());
    }
    for head in [
        format!("Content-Length: {length}\r\n\r\n").into_bytes(),
        b"Transfer-Encoding: chunked\r\n\r\n".to_vec(),
    ] {
        let mut peer = gateway.connect();
        let mut wire = b"POST / HTTP/1.1\r\nHost: a\r\n".to_vec();
        wire.extend(&head);
        if head.starts_with(b"Content") {
            wire.extend(&body);
        } else {
            for chunk in body.chunks(70_000) {
                wire.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
                wire.extend(chunk);
                wire.extend(b"\r\n");
            }
            wire.extend(b"0\r\n\r\n");
        }
        let mut writer = Peer::new(peer.stream.try_clone().unwrap());
        let sending = thread::spawn(move || writer.send(wire));
        assert!(peer.response().body == body);
        sending.join().unwrap();
    }
    for answer in
        client.ask_all((0..100).map(|n| (post("/"), Bytes::from(pattern(n * 1009))))).into_iter().enumerate()
    {
        assert!(answer.1.unwrap().body == pattern(answer.0 * 1009));
    }
    assert_eq!(server.accepted(), 1);
}

#[test]
fn trailers_and_interim_responses_through_http2_alone() {
    let (server, mut asked) = Server::asking(server::Builder::new(), None);
    let gateway = between(server.address, "");
    let client = client(&gateway);
    let mut exchange = client.begin(request("POST", "http://a/", &[("te", "trailers")]), false);
    exchange.send("body");
    exchange.send.send_trailers(fields(&[("x-sum", "42")])).unwrap();
    let mut question = asked.question();
    let (body, trailers) = question.read().unwrap();
    assert_eq!((body.as_slice(), trailers), (b"body".as_slice(), fields(&[("x-sum", "42")])));
    assert_eq!(question.head.headers["te"], "trailers");
    let hints = http::Response::builder().status(103).header("link", "</a>").body(()).unwrap();
    question.respond.send_informational(hints).unwrap();
    let hints = exchange.interim();
    assert_eq!((hints.status().as_u16(), hints.headers()["link"].to_str().unwrap()), (103, "</a>"));
    question.answer(Answer { trailers: fields(&[("x-done", "yes")]), ..Answer::ok("all") });
    let answer = exchange.answer().unwrap();
    assert_eq!((answer.text().as_str(), answer.trailers), ("all", fields(&[("x-done", "yes")])));
    // To HTTP/1 in chunks.
    let mut peer = gateway.connect();
    peer.send(support::get("/"));
    asked.question().answer(Answer { trailers: fields(&[("x-done", "yes")]), ..Answer::ok("all") });
    peer.head();
    assert_eq!(peer.until(b"\r\n\r\n").to_ascii_lowercase(), b"3\r\nall\r\n0\r\nx-done: yes\r\n\r\n");
}

#[test]
fn responses_of_http2_without_content() {
    let server = Server::answering(|head, _| {
        let status = head.uri.path()[1..].parse().unwrap();
        let fields = if status == 204 {
            fields(&[])
        } else {
            fields(&[("content-length", if head.method == "HEAD" || status == 304 { "7" } else { "0" })])
        };
        Answer { status, fields, ..Answer::default() }
    });
    let gateway = between(server.address, "");
    let client = client(&gateway);
    let mut peer = gateway.connect();
    for (method, path, status, length) in [
        ("GET", "/204", 204, None),
        ("GET", "/304", 304, Some("7")),
        ("HEAD", "/200", 200, Some("7")),
        ("GET", "/200", 200, Some("0")),
    ] {
        let answer = client.ask(request(method, &format!("http://a{path}"), &[]), "");
        assert_eq!(
            (answer.status, answer.field("content-length"), answer.body.len()),
            (status, length, 0),
            "{path}"
        );
        peer.send(format!("{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let head = peer.head();
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        assert_eq!(field(&head, "content-length").as_deref(), length, "{head}");
        assert_eq!(field(&head, "transfer-encoding"), None, "{head}");
    }
}

#[test]
fn what_an_endpoint_refuses_is_sent_again() {
    let (server, mut asked) = Server::asking(server::Builder::new(), None);
    let gateway = between(server.address, "");
    let client = client(&gateway);
    let mut warm = client.begin(get("/warm"), true);
    asked.question().ok("warm");
    warm.answer().unwrap();
    // Not looked at: a POST too, if its body was whole.
    for body in ["", "body"] {
        let mut exchange = client.begin(post("/"), body.is_empty());
        if !body.is_empty() {
            exchange.last(body);
        }
        asked.question().reset(Reason::REFUSED_STREAM);
        if body.is_empty() {
            asked.question().ok("again");
            assert_eq!(exchange.answer().unwrap().text(), "again");
            continue;
        }
        // A body that came behind its head may have been on its way already.
        let answered = exchange.head().map(|incoming| incoming.status());
        assert!(matches!(answered, Ok(503)) || asked.has_question(), "{answered:?}");
    }
    let mut peer = gateway.connect();
    peer.send(support::post("/", "body, all at once"));
    asked.question().reset(Reason::REFUSED_STREAM);
    let mut question = asked.question();
    assert_eq!(question.read().unwrap().0, b"body, all at once");
    question.ok("again");
    assert_eq!(peer.response().text(), "again");
    // Not for ever, and not another error.
    peer.send(support::get("/"));
    let mut refusals = 0;
    let response = loop {
        asked.question().reset(Reason::REFUSED_STREAM);
        refusals += 1;
        assert!(refusals < 10);
        peer.stream.set_nonblocking(true).unwrap();
        within("it is asked again, or given up", || {
            (asked.has_question() || peer.stream.peek(&mut [0]).is_ok()).then_some(())
        });
        peer.stream.set_nonblocking(false).unwrap();
        if !asked.has_question() {
            break peer.response();
        }
    };
    assert_eq!(response.status, 503);
    assert!(response.text().contains("urn:ringgate:problem:upstream-refused"), "{}", response.text());
    peer.send(support::post("/", "body"));
    asked.question().reset(Reason::INTERNAL_ERROR);
    assert_eq!(peer.response().status, 502);
    assert!(!asked.has_question());
}

#[test]
fn an_old_connection_goes_when_it_can() {
    let (server, mut asked) = Server::asking(server::Builder::new(), None);
    let gateway = between(
        server.address,
        "pool = { max_connections = 1, max_age = \"1ms\", idle_timeout = \"1h\", queue_timeout = \"1h\" }",
    );
    let client = client(&gateway);
    let used = |asked: &mut h2peers::Asked| {
        let mut exchange = client.begin(get("/"), true);
        let question = asked.question();
        let connection = question.connection;
        question.ok("");
        assert_eq!(exchange.answer().unwrap().status, 200);
        connection
    };
    let first = used(&mut asked);
    within("another one in its place", || (used(&mut asked) > first).then_some(()));
    // While a stream is on it and no other may be opened, it serves on.
    let mut long = client.begin(get("/long"), true);
    let held = asked.question();
    for _ in 0..20 {
        assert_eq!(used(&mut asked), held.connection);
    }
    let last = held.connection;
    held.ok("long");
    assert_eq!(long.answer().unwrap().text(), "long");
    within("another one when that is over", || (used(&mut asked) > last).then_some(()));
}

#[test]
fn what_a_goaway_left_out_is_sent_again() {
    let (upstream, accepted) = Upstream::manual();
    let gateway = between(upstream.address, "");
    let client = client(&gateway);
    let mut exchanges: Vec<_> = ["/1", "/3", "/5"].map(|path| client.begin(post(path), true)).into();
    let mut frames = Frames::server(accepted.next(), &[]);
    for stream in [1, 3, 5] {
        frames.until(|frame| frame.is(HEADERS, stream));
    }
    frames.send(goaway(1, NO_ERROR));
    // Two of them come anew, to another connection; the first goes on.
    let mut second = Frames::server(accepted.next(), &[]);
    for stream in [1, 3] {
        second.until(|frame| frame.is(HEADERS, stream));
        second.send(
            [frame(HEADERS, END_HEADERS, stream, [0x88]), frame(DATA, END_STREAM, stream, "second")].concat(),
        );
    }
    frames.send([frame(HEADERS, END_HEADERS, 1, [0x88]), frame(DATA, END_STREAM, 1, "first")].concat());
    for (exchange, expected) in exchanges.iter_mut().zip(["first", "second", "second"]) {
        assert_eq!(exchange.answer().unwrap().text(), expected);
    }
    // The old connection is closed, once its last stream is over; the new one lives on.
    frames.ended();
    let mut exchange = client.begin(get("/"), true);
    second.until(|frame| frame.is(HEADERS, 5));
    second.send(frame(HEADERS, END_HEADERS | END_STREAM, 5, [0x89]));
    assert_eq!(exchange.answer().unwrap().status, 204);
    assert_eq!(upstream.accepted(), 2);
}

#[test]
fn an_endpoint_that_leaves_politely_loses_nothing() {
    let (server, mut asked) = Server::asking(server::Builder::new(), None);
    let gateway = between(server.address, "");
    let client = client(&gateway);
    for _ in 0..5 {
        let mut first = client.begin(post("/a"), true);
        let question = asked.question();
        let leaving = question.connection;
        question.shut_down();
        // On the same connection, or on the next.
        let mut second = client.begin(post("/b"), true);
        asked.question().ok("b");
        assert_eq!(second.answer().unwrap().text(), "b");
        question.ok("a");
        assert_eq!(first.answer().unwrap().text(), "a");
        while asked.ended() != leaving {}
    }
    assert!(server.accepted() <= 10);
}

#[test]
fn a_malformed_response_is_no_reason_to_ask_again() {
    // A status that is none, which ends the connection; a value with blanks around it; a field of HTTP/1's connections.
    for bad in [
        block(&[(":status", "2x0")]),
        block(&[(":status", "200"), ("x-a", " padded ")]),
        block(&[(":status", "200"), ("connection", "close")]),
    ] {
        let (upstream, accepted) = Upstream::manual();
        let gateway = between(upstream.address, "");
        let client = client(&gateway);
        let mut exchange = client.begin(get("/"), true);
        let mut frames = Frames::server(accepted.next(), &[]);
        frames.until(|frame| frame.is(HEADERS, 1));
        frames.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, bad));
        let answer = exchange.answer().unwrap();
        assert_eq!(answer.status, 502);
        assert!(answer.text().contains("response-invalid"), "{}", answer.text());
        let line = gateway.log_line();
        assert_eq!((&line["end"], &line["tries"]), (&"response-invalid".into(), &1.into()));
        assert_eq!(upstream.accepted(), 1);
    }
}

/// Servers of gRPC take offence at PINGs over connections that no one uses.
#[test]
fn endpoints_are_pinged_while_they_have_streams() {
    let (idle, idles) = Upstream::manual();
    let (busy, busies) = Upstream::manual();
    let cluster = |name: &str, address: SocketAddr| {
        format!(
            "[[cluster]]\nname = \"{name}\"\nendpoints = [{{ address = \"{address}\" }}]\nprotocol = \"h2\"\n\
             timeouts = {{ ping = \"5ms\", first_byte = \"1h\" }}\n[[route]]\nname = \"{name}\"\n\
             match = {{ path = \"/{name}\" }}\ncluster = \"{name}\"\n"
        )
    };
    let clusters = cluster("idle", idle.address) + &cluster("busy", busy.address);
    let gateway = Gateway::start(&config(&format!("{H2C}\n{clusters}")));
    let client = client(&gateway);
    let is_ping = |frame: &frames::Frame| frame.kind == PING && !frame.has(frames::ACK);
    let mut first = client.begin(get("/idle"), true);
    let mut idle = Frames::server(idles.next(), &[]);
    idle.until(|frame| frame.is(HEADERS, 1));
    idle.until(is_ping);
    idle.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, [0x89]));
    assert_eq!(first.answer().unwrap().status, 204);
    let _long = client.begin(get("/busy"), true);
    let mut busy = Frames::server(busies.next(), &[]);
    for _ in 0..20 {
        busy.until(is_ping);
    }
    // Meanwhile there were none, but for one that was on its way.
    let mut second = client.begin(get("/idle"), true);
    let mut pings = 0;
    while !idle.until(|frame| is_ping(frame) || frame.is(HEADERS, 3)).is(HEADERS, 3) {
        pings += 1;
    }
    assert!(pings <= 1, "{pings}");
    // Who does not answer is given up.
    idle.send(frame(HEADERS, END_HEADERS | END_STREAM, 3, [0x89]));
    assert_eq!(second.answer().unwrap().status, 204);
}

#[test]
fn a_connection_lost_before_a_response() {
    let (server, mut asked) = Server::asking(server::Builder::new(), None);
    let gateway = between(server.address, "");
    let client = client(&gateway);
    let mut warm = client.begin(get("/warm"), true);
    asked.question().ok("warm");
    warm.answer().unwrap();
    // What does no harm when it is sent twice is.
    let mut exchange = client.begin(get("/"), true);
    asked.question().cut();
    asked.question().ok("again");
    assert_eq!(exchange.answer().unwrap().text(), "again");
    // The rest is not.
    let mut exchange = client.begin(post("/"), true);
    asked.question().cut();
    let answer = exchange.answer().unwrap();
    assert_eq!(answer.status, 502);
    assert!(answer.text().contains("upstream-closed"), "{}", answer.text());
    assert!(!asked.has_question());
    // Nor what a GOAWAY says that it was looked at.
    let (upstream, accepted) = Upstream::manual();
    let gateway = between(upstream.address, "");
    let mut peer = gateway.connect();
    peer.send(support::post("/", "body"));
    let mut frames = Frames::server(accepted.next(), &[]);
    frames.until(|frame| frame.is(HEADERS, 1));
    frames.send(goaway(1, 2));
    drop(frames);
    assert_eq!(peer.response().status, 502);
    assert_eq!(upstream.accepted(), 1);
}

#[test]
fn a_connection_lost_amid_a_response() {
    let (server, mut asked) = Server::asking(server::Builder::new(), None);
    let gateway = between(server.address, "");
    let client = client(&gateway);
    for by_reset in [true, false] {
        for fields in [&[][..], &[("content-length", "10")]] {
            let mut exchange = client.begin(get("/"), true);
            let mut peer = gateway.connect();
            let mut question = asked.question();
            let mut send = question.begin(fields);
            send.send_data("half".into(), false).unwrap();
            peer.send(support::get("/"));
            let mut second = asked.question();
            let mut also = second.begin(fields);
            also.send_data("half".into(), false).unwrap();
            let mut incoming = exchange.head().unwrap();
            assert_eq!(incoming.some(4).unwrap(), b"half");
            let head = peer.head();
            peer.until(b"half");
            if by_reset {
                send.send_reset(Reason::INTERNAL_ERROR);
                also.send_reset(Reason::INTERNAL_ERROR);
            } else {
                question.cut();
            }
            assert!(incoming.rest().is_err());
            let rest = peer.rest();
            assert!(
                !rest.ends_with(b"0\r\n\r\n") && rest.len() < 6,
                "{head}{:?}",
                String::from_utf8_lossy(&rest)
            );
            assert_eq!(gateway.log_line()["end"], "response-truncated");
            assert_eq!(gateway.log_line()["end"], "response-truncated");
        }
    }
}

#[test]
fn a_response_that_disagrees_with_its_length_is_never_whole() {
    let (upstream, accepted) = Upstream::manual();
    let gateway = between(upstream.address, "");
    let client = client(&gateway);
    let mut peer = gateway.connect();
    let mut frames = None;
    let mut stream = 1;
    let head = |length| [&[0x88][..], &block(&[("content-length", length)])].concat();
    for (length, body) in [("10", "hello"), ("2", "hello"), ("abc", "hello")] {
        let mut exchange = client.begin(post("/"), true);
        let server = frames.get_or_insert_with(|| Frames::server(accepted.next(), &[]));
        server.until(|frame| frame.is(HEADERS, stream));
        server.send(
            [frame(HEADERS, END_HEADERS, stream, head(length)), frame(DATA, END_STREAM, stream, body)]
                .concat(),
        );
        let answer = exchange.answer();
        assert!(answer.as_ref().map_or(true, |answer| answer.status >= 500), "{length}: {answer:?}");
        stream += 2;
        peer.send("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        server.until(|frame| frame.is(HEADERS, stream));
        server.send(
            [frame(HEADERS, END_HEADERS, stream, head(length)), frame(DATA, END_STREAM, stream, body)]
                .concat(),
        );
        // Whatever of it came, no more than was said, and the connection's end shows what is missing.
        let text = String::from_utf8_lossy(&peer.rest()).into_owned();
        let content = text.split_once("\r\n\r\n").map_or("", |(_, content)| content);
        assert!(
            !text.starts_with("HTTP/1.1 200 ") || content.len() < length.parse().unwrap(),
            "{length}: {text}"
        );
        stream += 2;
        peer = gateway.connect();
    }
}

#[test]
fn what_the_client_gives_up_the_endpoint_need_not_finish() {
    let (server, mut asked) = Server::asking(server::Builder::new(), None);
    let gateway = between(server.address, "timeouts = { first_byte = \"200ms\" }");
    let client = client(&gateway);
    // By HTTP/2, by HTTP/1, and by a deadline.
    let exchange = client.begin(get("/"), true);
    let mut question = asked.question();
    exchange.reset();
    assert_eq!(question.is_reset(), Reason::CANCEL);
    let mut peer = gateway.connect();
    peer.send(support::get("/"));
    let mut question = asked.question();
    peer.reset();
    assert_eq!(question.is_reset(), Reason::CANCEL);
    let mut exchange = client.begin(get("/"), true);
    let mut question = asked.question();
    assert_eq!(exchange.answer().unwrap().status, 504);
    assert_eq!(question.is_reset(), Reason::CANCEL);
    assert_eq!(server.accepted(), 1);
}

#[test]
fn an_early_answer_of_http2_ends_the_upload() {
    let (_server, mut asked) = Server::asking(server::Builder::new(), None);
    let gateway = between(_server.address, "");
    let client = client(&gateway);
    let mut exchange = client.begin(post("/"), false);
    exchange.send("some");
    asked.question().answer(Answer { status: 413, ..Answer::ok("less") });
    let answer = exchange.answer().unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (413, "less"));
    let mut next = client.begin(get("/"), true);
    asked.question().ok("on");
    assert_eq!(next.answer().unwrap().text(), "on");
}

#[test]
fn an_endpoint_of_http2_that_does_not_read_stops_its_own_stream_only() {
    let (server, mut asked) = Server::asking(server::Builder::new(), None);
    let gateway = between(server.address, "timeouts = { idle = \"1h\" }");
    let client = client(&gateway);
    let resident_kib = gateway.resident_kib();
    let mut stuck = client.begin(post("/stuck"), false);
    let mut question = asked.question();
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let mut send = stuck.send;
    let body = pattern(32 * MIB);
    let bytes = Bytes::from(body.clone());
    let sending = thread::spawn(move || {
        let mut rest = bytes;
        while !rest.is_empty() {
            let piece = rest.split_to(rest.len().min(64 * 1024));
            let len = piece.len();
            wait(h2peers::send_all(&mut send, piece, false)).unwrap();
            count.fetch_add(len, Ordering::SeqCst);
        }
        send.send_data(Bytes::new(), true).unwrap();
    });
    within("it begins", || (sent.load(Ordering::SeqCst) > 0).then_some(()));
    // The server's window for the whole connection is the stuck stream's too: what is left is enough for those without.
    for _ in 0..50 {
        let mut exchange = client.begin(get("/small"), true);
        asked.question().ok("small");
        assert_eq!(exchange.answer().unwrap().text(), "small");
    }
    assert!(sent.load(Ordering::SeqCst) < 2 * MIB, "{sent:?}");
    let grown_kib = gateway.resident_kib().saturating_sub(resident_kib);
    assert!(grown_kib < 16 * 1024, "{grown_kib} KiB more");
    assert!(question.read().unwrap().0 == body);
    sending.join().unwrap();
    question.ok("read");
    assert_eq!(wait(&mut stuck.response).unwrap().status(), 200);
}

#[test]
fn a_slow_reader_stops_an_endpoint_of_http2_and_no_one_else() {
    const SIZE: usize = 32 * MIB;
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let (server, mut asked) = Server::asking(server::Builder::new(), None);
    let gateway = between(server.address, "");
    let client = client(&gateway);
    let mut peer = gateway.connect();
    peer.send(support::get("/much"));
    let mut question = asked.question();
    let mut send = question.begin(&[]);
    thread::spawn(move || {
        let piece = Bytes::from(pattern(64 * 1024));
        for _ in 0..SIZE / piece.len() {
            wait(h2peers::send_all(&mut send, piece.clone(), false)).unwrap();
            count.fetch_add(piece.len(), Ordering::SeqCst);
        }
        send.send_data(Bytes::new(), true).unwrap();
    });
    peer.head();
    for _ in 0..50 {
        let mut exchange = client.begin(get("/small"), true);
        asked.question().ok("small");
        assert_eq!(exchange.answer().unwrap().text(), "small");
    }
    assert!(sent.load(Ordering::SeqCst) < ON_THE_WAY_MAX, "{sent:?}");
    assert_eq!(peer.chunked().len(), SIZE);
}

#[test]
fn an_idle_connection_to_an_endpoint_of_http2_is_closed_in_time() {
    let (server, mut asked) = Server::asking(server::Builder::new(), None);
    let gateway = between(server.address, "pool = { idle_timeout = \"100ms\" }");
    let client = client(&gateway);
    for n in 0..2 {
        let mut exchange = client.begin(get("/"), true);
        asked.question().ok("fine");
        assert_eq!(exchange.answer().unwrap().text(), "fine");
        assert_eq!(asked.ended(), n);
    }
    // One that is in use is not idle.
    let mut exchange = client.begin(get("/"), true);
    let question = asked.question();
    let mut other = client.begin(get("/"), true);
    asked.question().ok("fine");
    assert_eq!(other.answer().unwrap().text(), "fine");
    gateway.wait_for_figure("exchanges_active", 1);
    question.ok("late");
    assert_eq!(exchange.answer().unwrap().text(), "late");
    assert_eq!(asked.ended(), 2);
    assert_eq!(server.accepted(), 3);
}

#[test]
fn the_end_of_the_gateway_ends_its_connections_to_endpoints() {
    let (server, mut asked) = Server::asking(server::Builder::new(), None);
    let mut gateway = between(server.address, "");
    let mut peer = gateway.connect();
    peer.send(support::get("/"));
    let question = asked.question();
    gateway.signal("TERM");
    gateway.message("draining");
    question.ok("last");
    assert_eq!(peer.response().text(), "last");
    assert_eq!(gateway.wait().code(), Some(0));
    assert_eq!(asked.ended(), 0);
}

#[test]
fn an_endpoint_that_does_not_speak_http2() {
    // By HTTP/1, by closing, and by nothing at all.
    for answer in ["HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", ""] {
        let upstream = Upstream::scripted(move |mut peer, _| {
            peer.exactly(PREFACE.len());
            peer.try_send(answer);
        });
        let gateway = between(upstream.address, "timeouts = { first_byte = \"1h\" }");
        assert_eq!(ask_http1(&gateway, support::get("/")).status, 502);
        assert_eq!(ask_http1(&gateway, support::post("/", "body")).status, 502);
        assert_eq!(client(&gateway).ask(get("/"), "").status, 502);
        is_settled(&gateway);
    }
    let (silent, _kept) = Upstream::manual();
    let gateway = between(silent.address, "timeouts = { first_byte = \"100ms\" }");
    assert_eq!(ask_http1(&gateway, support::get("/")).status, 504);
    let (closed, _guard) = closed_port();
    let gateway = between(closed, "");
    assert_eq!(ask_http1(&gateway, support::get("/")).status, 502);
}

#[test]
fn the_next_endpoint_is_tried() {
    let (closed, _guard) = closed_port();
    let server = Server::answering(|_, _| Answer::ok("here"));
    let text =
        config(&format!("{H2C}\n{}", support::cluster(&[closed, server.address], "protocol = \"h2\"")));
    let gateway = Gateway::start(&text);
    let client = client(&gateway);
    for answer in client.ask_all((0..20).map(|_| (post("/"), Bytes::from("body")))) {
        assert_eq!(answer.unwrap().text(), "here");
    }
}

#[test]
fn what_http2_cannot_say_is_answered_at_once() {
    let server = describing();
    let gateway = between(server.address, "timeouts = { first_byte = \"1h\" }");
    // An upgrade is asked for, not demanded; but no tunnel comes of it.
    let response = ask_http1(
        &gateway,
        "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    assert_ne!(response.status, 101);
    let client = client(&gateway);
    client.may_connect();
    let mut exchange = client.begin(websocket(), false);
    let answer = exchange.answer();
    assert!(answer.as_ref().is_ok_and(|answer| answer.status != 200), "{answer:?}");
    // OPTIONS for the whole server can be said.
    let response = ask_http1(&gateway, "OPTIONS / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(response.text().starts_with("OPTIONS http://a/ 0\n"), "{}", response.text());
    drop((client, exchange));
    is_settled(&gateway);
}

/// Its content would be the first bytes of the tunnel.
#[test]
fn a_request_for_websocket_with_content_is_an_ordinary_one() {
    let (upstream, accepted) = Upstream::manual();
    // It knows WebSockets over HTTP/2.
    let inner = before(upstream.address, "");
    let outer = between(inner.address(), "");
    for body in ["Content-Length: 4\r\n\r\nbody", "Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"]
    {
        let mut client = outer.connect();
        client.send(format!(
            "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{body}"
        ));
        let mut peer = accepted.next();
        let head = peer.head();
        assert!(head.starts_with("GET /chat HTTP/1.1\r\n"), "{head}");
        assert_eq!(field(&head, "upgrade"), None);
        peer.until(b"body");
        peer.send("HTTP/1.1 400 No\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno");
        assert_eq!(client.response().status, 400);
    }
}

#[test]
fn who_expects_to_be_told_to_continue_is_told() {
    let (server, mut asked) = Server::asking(server::Builder::new(), None);
    let gateway = between(server.address, "");
    let mut peer = gateway.connect();
    peer.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
    // By the endpoint, if it hears of it, or by the gateway.
    let mut question = asked.question();
    if question.head.headers.get("expect").is_some_and(|value| value == "100-continue") {
        let told = http::Response::builder().status(100).body(()).unwrap();
        question.respond.send_informational(told).unwrap();
    }
    assert!(peer.head().starts_with("HTTP/1.1 100 "));
    peer.send("body");
    assert_eq!(question.read().unwrap().0, b"body");
    question.ok("thanks");
    assert_eq!(peer.response().text(), "thanks");
}

/// An address whose connections go to the one of these that is chosen.
fn switchboard(to: [SocketAddr; 2], chosen: &Arc<AtomicUsize>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let chosen = Arc::clone(chosen);
    thread::spawn(move || {
        for from in listener.incoming().map_while(Result::ok) {
            let to = TcpStream::connect(to[chosen.load(Ordering::SeqCst)]).unwrap();
            for (mut from, mut to) in [
                (from.try_clone().unwrap(), to.try_clone().unwrap()),
                (to.try_clone().unwrap(), from.try_clone().unwrap()),
            ] {
                thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(std::net::Shutdown::Write);
                });
            }
        }
    });
    address
}

#[test]
fn what_an_endpoint_chooses_by_alpn_is_spoken() {
    let trust = Trust::new();
    for (protocols, expected) in [
        (&["h2", "http/1.1"][..], "HTTP/2.0"),
        (&["h2"], "HTTP/2.0"),
        (&["http/1.1"], "http/1.1"),
        (&[], "http/1.1"),
    ] {
        let server =
            Server::answering_with(server::Builder::new(), Some(trust.server(protocols)), |head, _| {
                assert_eq!(head.uri.scheme_str(), Some("https"));
                Answer::ok(format!("{:?}", head.version))
            });
        let cluster = format!("protocol = \"auto\"\n{}", trust.cluster());
        let gateway = Gateway::start(&all_to_with(server.address, H2C, &cluster, ""));
        let client = client(&gateway);
        for _ in 0..3 {
            assert_eq!(client.says("/"), expected);
            assert_eq!(ask_http1(&gateway, support::get("/")).text(), expected);
        }
        // Where it is not HTTP/2 that is chosen, one was made to find out.
        assert!(server.accepted() <= if expected == "HTTP/2.0" { 1 } else { 2 }, "{protocols:?}");
    }
    // It may choose otherwise later, and is followed both ways.
    let servers = [&["http/1.1"][..], &["h2", "http/1.1"]].map(|protocols| {
        Server::answering_with(server::Builder::new(), Some(trust.server(protocols)), |head, _| {
            Answer::ok(format!("{:?}", head.version))
        })
    });
    let chosen = Arc::new(AtomicUsize::new(0));
    let switch = switchboard(servers.each_ref().map(|server| server.address), &chosen);
    let cluster = format!("protocol = \"auto\"\npool.max_idle = 0\n{}", trust.cluster());
    let gateway = Gateway::start(&all_to_with(switch, H2C, &cluster, ""));
    let client_of_it = client(&gateway);
    for (at, expected) in [(0, "http/1.1"), (1, "HTTP/2.0")] {
        chosen.store(at, Ordering::SeqCst);
        for _ in 0..3 {
            assert_eq!(client_of_it.says("/"), expected);
            assert_eq!(ask_http1(&gateway, support::get("/")).text(), expected);
        }
    }
    // HTTP/2 is demanded, or HTTP/1 spoken to whoever knows both.
    let both = trust.server(&["h2", "http/1.1"]);
    let server = Server::answering_with(server::Builder::new(), Some(both), |head, _| {
        Answer::ok(format!("{:?}", head.version))
    });
    for (protocol, expected) in [("h2", "HTTP/2.0"), ("h1", "http/1.1")] {
        let cluster = format!("protocol = \"{protocol}\"\n{}", trust.cluster());
        let gateway = Gateway::start(&all_to_with(server.address, H2C, &cluster, ""));
        assert_eq!(client(&gateway).says("/"), expected);
    }
    let http1 = trust.server(&["http/1.1"]);
    let server = Server::answering_with(server::Builder::new(), Some(http1), |_, _| Answer::ok(""));
    let gateway = Gateway::start(&all_to_with(
        server.address,
        H2C,
        &format!("protocol = \"h2\"\n{}", trust.cluster()),
        "",
    ));
    assert_eq!(client(&gateway).ask(get("/"), "").status, 502);
}

#[test]
fn http2_over_tls_on_both_sides() {
    let trust = Trust::new();
    let server = Server::answering_with(server::Builder::new(), Some(trust.server(&["h2"])), |_, body| {
        Answer::ok(body)
    });
    let cluster = format!("protocol = \"h2\"\n{}", trust.cluster());
    let gateway = Gateway::start(&all_to_with(server.address, &trust.listener(""), &cluster, ""));
    let client = Client::secured(gateway.address(), &trust.client(&["h2"])).unwrap();
    let body = |n: usize| Bytes::from(pattern(n * 100_003));
    let requests = (0..20).map(|n| (request("POST", "https://localhost/", &[]), body(n)));
    for (n, answer) in client.ask_all(requests).into_iter().enumerate() {
        assert!(answer.unwrap().body == body(n), "{n}");
    }
    assert_eq!(server.accepted(), 1);
}

// ------------------------------------------------------------------------------------------- clients that people use

/// A program in PATH.
fn tool(name: &str) -> Command {
    let found = Command::new("which").arg(name).output().unwrap().status.success();
    assert!(found, "{name} is missing; `scripts/install-tools --tests` installs what the tests need");
    let mut command = Command::new("timeout");
    command.args(["60", name]);
    command
}

/// What a program says; it must succeed.
fn says(command: &mut Command) -> String {
    let run = command.output().unwrap();
    let said = String::from_utf8_lossy(&run.stdout).into_owned();
    assert!(
        run.status.success(),
        "{command:?}: {}\n{said}\n{}",
        run.status,
        String::from_utf8_lossy(&run.stderr)
    );
    said
}

/// A gateway on both kinds of listener, before an echo.
fn both_listeners(trust: &Trust, endpoint: SocketAddr) -> Gateway {
    let secure =
        format!("[[listener]]\nname = \"secure\"\naddress = \"127.0.0.1:0\"\n{}\n", trust.listener(""));
    Gateway::start(&(all_to_with(endpoint, H2C, "", "") + "\n" + &secure))
}

#[test]
fn curl_speaks_http2() {
    let trust = Trust::new();
    let upstream = echo();
    let gateway = both_listeners(&trust, upstream.address);
    let plain = format!("http://{}", gateway.address());
    let secure = format!("https://{}", gateway.address_of("secure"));
    let curl = |arguments: &[&str]| {
        let mut command = tool("curl");
        let root = trust.root();
        command.args([
            "--disable",
            "--silent",
            "--show-error",
            "--noproxy",
            "*",
            "--max-time",
            "50",
            "--cacert",
            &root,
        ]);
        says(command.args(arguments))
    };
    let version = ["-o", "/dev/null", "-w", "%{http_code} %{http_version} %{num_connects}\\n"];
    for (arguments, expected) in [
        (&["--http2-prior-knowledge", &plain][..], "200 2 1\n"),
        (&["--http2", &secure], "200 2 1\n"),
        (&["--http1.1", &secure], "200 1.1 1\n"),
        (&["--http1.1", &plain], "200 1.1 1\n"),
        // An upgrade to h2c is not taken (RFC 9113 §3.1 gave it up).
        (&["--http2", &plain], "200 1.1 1\n"),
    ] {
        assert_eq!(curl(&[&version[..], arguments].concat()), expected, "{arguments:?}");
    }
    let file = trust.file("upload");
    std::fs::write(&file, pattern(3_000_000)).unwrap();
    let upload = format!("@{file}");
    let out = trust.file("download");
    for url in [&plain, &secure] {
        let how = if url == &plain { "--http2-prior-knowledge" } else { "--http2" };
        curl(&[how, "--data-binary", &upload, "-o", &out, url]);
        assert!(std::fs::read(&out).unwrap() == pattern(3_000_000));
        curl(&[how, "-T", &file, "-H", "Content-Length:", "-o", &out, url]);
        assert!(std::fs::read(&out).unwrap() == pattern(3_000_000));
        if url == &secure {
            // So many at once with TLS alone: by prior knowledge, all but the first fail before they are sent.
            let many = format!("{url}/?try=[1-60]");
            let written = ["-o", "/dev/null", "-w", "%{http_code} %{http_version}\\n"];
            let said = curl(
                &[&["--http2", "-Z", "--no-progress-meter", "--parallel-max", "20", &many], &written[..]]
                    .concat(),
            );
            assert_eq!(said.lines().filter(|line| *line == "200 2").count(), 60, "{said}");
        }
        let head = curl(&[if url == &plain { "--http2-prior-knowledge" } else { "--http2" }, "-I", url]);
        assert!(head.starts_with("HTTP/2 200"), "{head}");
    }
}

#[test]
fn nghttp_speaks_http2() {
    let trust = Trust::new();
    let upstream = echo();
    let gateway = both_listeners(&trust, upstream.address);
    for url in
        [format!("http://{}/x", gateway.address()), format!("https://{}/x", gateway.address_of("secure"))]
    {
        let said = says(tool("nghttp").args(["-n", "-v", "-m", "20", &url]));
        assert_eq!(said.matches(":status: 200").count(), 20, "{said}");
        let said = says(tool("nghttp").args(["-w", "10", "-W", "10", &url]));
        assert!(said.starts_with("GET /x HTTP/1.1"), "{said}");
        // A body, padded; and trailers.
        let body = trust.file("body");
        std::fs::write(&body, pattern(100_000)).unwrap();
        let said =
            says(tool("nghttp").args(["-v", "-n", "-b", "100", "--trailer", "x-t: 1", "-d", &body, &url]));
        assert!(said.contains(":status: 200") && !said.contains("RST_STREAM"), "{said}");
    }
}

#[test]
fn h2load_gets_answers_only() {
    let trust = Trust::new();
    let upstream = Upstream::saying("fine");
    let gateway = both_listeners(&trust, upstream.address);
    for url in
        [format!("http://{}/", gateway.address()), format!("https://{}/", gateway.address_of("secure"))]
    {
        for (clients, streams) in [("1", "100"), ("16", "16")] {
            let said = says(tool("h2load").args(["-n", "3000", "-c", clients, "-m", streams, &url]));
            let all = "requests: 3000 total, 3000 started, 3000 done, 3000 succeeded, 0 failed, 0 errored, 0 timeout";
            assert!(said.contains(all) && said.contains("status codes: 3000 2xx"), "{said}");
        }
    }
    assert_eq!(gateway.figure("panics"), 0);
}

/// A script of `tests/clients`, with the venv's Python.
fn python(script: &str) -> Command {
    let python = support::repository("target/venv/bin/python");
    assert!(python.is_file(), "target/venv is missing; `scripts/install-tools --tests` makes it");
    let mut command = Command::new("timeout");
    command.arg("60").arg(python).arg(support::repository("tests/clients").join(script));
    for name in
        ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "SSL_CERT_FILE"]
    {
        command.env_remove(name);
    }
    command
}

#[test]
fn httpx_speaks_http2() {
    let trust = Trust::new();
    let upstream = echo();
    let gateway = both_listeners(&trust, upstream.address);
    let plain = format!("http://{}", gateway.address());
    let secure = format!("https://{}", gateway.address_of("secure"));
    says(python("httpx_http2.py").args([plain, secure, trust.root()]));
}

#[test]
fn node_speaks_http2() {
    let trust = Trust::new();
    let upstream = echo();
    let gateway = both_listeners(&trust, upstream.address);
    let plain = format!("http://{}", gateway.address());
    let secure = format!("https://{}", gateway.address_of("secure"));
    let script = support::repository("tests/clients/http2.mjs");
    says(tool("node").arg(script).args([plain, secure, trust.root()]));
}
