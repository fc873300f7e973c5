//! Everything that is refused, as raw bytes: whole, and cut in two at every point with the gateway made to see the parts
//! one after the other. What a head refuses must never reach an upstream; what a body refuses must never look complete
//! there; and in either case neither connection may be used again, whatever follows.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests run no data plane")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{net::Shutdown, sync::mpsc::Receiver};

use support::{
    Gateway, PATIENCE, Peer, Upstream, all_received, all_to, config, field, ok,
    strict::{Found, Framing, request},
};

/// A request behind the one that is refused. It must never be answered, or reach anybody.
const NEXT: &[u8] = b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n";

/// Connections tried at once; fewer than wait in a test upstream's backlog, so that they are accepted in order.
const BATCH: usize = 100;

/// A gateway with small limits before this upstream.
fn limited(upstream: &Upstream) -> Gateway {
    Gateway::start(&config(&format!(
        "limits = {{ head_bytes = \"1KiB\", headers = 8, target_bytes = \"128B\", body_bytes = \"16B\" }}\n\
         [[cluster]]\nname = \"all\"\nendpoints = [{{ address = \"{}\" }}]\n\
         [[route]]\nname = \"all\"\ncluster = \"all\"",
        upstream.address
    )))
}

/// A request that is refused by its head.
struct Refusal {
    wire: Vec<u8>,
    status: u16,
    kind: &'static str,
}

/// Every refusal of a head.
fn refusals() -> Vec<Refusal> {
    let mut all = Vec::new();
    let mut refuse = |wire: &[u8], status, kind| all.push(Refusal { wire: wire.to_vec(), status, kind });
    let in_field = |line: &[u8]| [b"POST / HTTP/1.1\r\nHost: a\r\n", line, b"\r\n\r\n"].concat();
    let at = |target: &[u8]| [b"GET ", target, b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
    let behind = |line: &[u8]| [line, b"\r\nHost: a\r\n\r\n"].concat();

    // Content-Length beside Transfer-Encoding, in any order, case and value.
    for lines in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "content-length: 0\r\nTRANSFER-ENCODING: Chunked",
        "Content-Length: 5\r\nX: y\r\nTransfer-Encoding: identity",
        "Content-Length: 5\r\nTransfer-Encoding:",
    ] {
        refuse(&in_field(lines.as_bytes()), 400, "head-malformed");
    }
    // A Content-Length that is repeated, a list, no number, or too large a one.
    for lines in [
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 5\r\ncontent-length: 6",
        "Content-Length: 0\r\nX: y\r\nContent-Length: 5",
        "Content-Length: 5, 5",
        "Content-Length: 5,6",
        "Content-Length: 5,",
        "Content-Length: ,5",
        "Content-Length:",
        "Content-Length: +5",
        "Content-Length: -5",
        "Content-Length: 0x5",
        "Content-Length: 5.0",
        "Content-Length: 5 5",
        "Content-Length: 5e1",
        "Content-Length: 5;",
        "Content-Length: \"5\"",
        "Content-Length: \u{665}",
        "Content-Length: 5\u{a0}",
        "Content-Length: 18446744073709551616",
        "Content-Length: 99999999999999999999999999999999",
    ] {
        refuse(&in_field(lines.as_bytes()), 400, "head-malformed");
    }
    // A Transfer-Encoding that is not exactly one chunked.
    for lines in [
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\ntransfer-encoding:",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked, gzip",
        "Transfer-Encoding: chunked,",
        "Transfer-Encoding: ,chunked",
        "Transfer-Encoding: chunked;a=b",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: chun ked",
        "Transfer-Encoding: chunked\u{a0}",
        "Transfer-Encoding:",
    ] {
        refuse(&in_field(lines.as_bytes()), 400, "head-malformed");
    }
    refuse(&in_field(b"Transfer-Encoding: \x0bchunked"), 400, "head-malformed");
    refuse(&in_field(b"Transfer-Encoding: chunked\x00"), 400, "head-malformed");
    refuse(&behind(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked"), 400, "head-malformed");
    refuse(&behind(b"POST / HTTP/1.0\r\nTransfer-Encoding: identity"), 400, "head-malformed");
    for lines in ["gzip", "identity", "xchunked", "gzip, chunked", "chunked-not", "identity;q=1"] {
        let line = format!("Transfer-Encoding: {lines}");
        refuse(&in_field(line.as_bytes()), 501, "coding-unknown");
    }
    // A CR or LF alone, in every kind of line.
    for wire in [
        &b"GET / HTTP/1.1\nHost: a\n\n"[..],
        b"GET / HTTP/1.1\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\n",
        b"GET / HTTP/1.1\r\nHost: a\n\r\n",
        b"GET / HTTP/1.1\rHost: a\r\r",
        b"GET / HTTP/1.1\rX: y\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\rX: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n",
        b"GET / HTTP/1.1\r\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX:\ry\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX\r: y\r\n\r\n",
        b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\rGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        refuse(wire, 400, "head-malformed");
    }
    // Folded lines, space around names, and names that are none.
    for lines in [
        "X: y\r\n z",
        "X: y\r\n\tz",
        "X: y\r\n ",
        "Transfer-Encoding:\r\n chunked",
        "Content-Length : 5",
        "Transfer-Encoding\t: chunked",
        "X : y",
        ": y",
        "X",
        "X y: z",
        "X\u{e9}: y",
        "(X): y",
        "X/Y: z",
        "\"X\": y",
        "X@: y",
        "Content-Length\u{a0}: 5",
    ] {
        refuse(&in_field(lines.as_bytes()), 400, "head-malformed");
    }
    refuse(b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400, "head-malformed");
    refuse(b"GET / HTTP/1.1\r\n\tX: y\r\nHost: a\r\n\r\n", 400, "head-malformed");
    // NUL and other control characters.
    for byte in [0, 1, 7, 8, 0x0b, 0x0c, 0x1b, 0x1f, 0x7f] {
        refuse(&in_field(&[b'X', b':', b' ', b'a', byte, b'b']), 400, "head-malformed");
        refuse(&in_field(&[b'X', byte, b'Y', b':', b' ', b'a']), 400, "head-malformed");
        refuse(&at(&[b'/', b'a', byte, b'b']), 400, "head-malformed");
        refuse(&behind(&[b'G', byte, b'T', b' ', b'/', b' ', b'H', b'T', b'T', b'P']), 400, "head-malformed");
    }
    // Host missing, repeated or invalid.
    for lines in [
        "X: y",
        "Host: a\r\nHost: a",
        "Host: a\r\nhost: b",
        "Host: a\r\nX: y\r\nHost:",
        "Host:",
        "Host: a b",
        "Host: a,b",
        "Host: a, a",
        "Host: u@a",
        "Host: a/",
        "Host: a?b",
        "Host: a#b",
        "Host: a\\b",
        "Host: a:b",
        "Host: a:",
        "Host: :80",
        "Host: a:65536",
        "Host: a:80:80",
        "Host: a..b",
        "Host: .",
        "Host: a%2fb",
        "Host: [::1",
        "Host: ::1",
        "Host: [a]",
        "Host: http://a",
        "Host: \u{e9}",
        "Host: *",
    ] {
        refuse(format!("GET / HTTP/1.1\r\n{lines}\r\n\r\n").as_bytes(), 400, "head-malformed");
    }
    refuse(b"GET http://a/ HTTP/1.1\r\n\r\n", 400, "head-malformed");
    refuse(b"GET http://a/ HTTP/1.1\r\nHost: a b\r\n\r\n", 400, "head-malformed");
    refuse(b"GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", 400, "head-malformed");
    refuse(b"GET / HTTP/1.0\r\nHost: a b\r\n\r\n", 400, "head-malformed");
    // Targets in no form, with a fragment, invalid bytes or userinfo.
    for target in [
        "/a#b",
        "/#",
        "#",
        "/?#",
        "/a b",
        "/\u{e9}",
        "/?\u{e9}",
        "/<",
        "/>",
        "/\"",
        "/`",
        "/{a}",
        "/?\"",
        "/%",
        "/%2",
        "/%zz",
        "/%u0041",
        "a",
        "?a",
        "*",
        "a:80",
        "ftp://a/",
        "http:/a",
        "http:///a",
        "http://",
        "http://a#b",
        "http://a/#b",
        "http://a:b/",
        "http://u@a/",
        "http://u:p@a/",
        "http://@a/",
        "http://u@/",
        "http://a%2fb/",
        "http://a\\b/",
    ] {
        refuse(&at(target.as_bytes()), 400, "head-malformed");
    }
    for target in ["/%00", "/a%00b", "/%0d%0aX:y", "/%7F", "/\\", "/a%5Cb"] {
        refuse(&at(target.as_bytes()), 400, "path-invalid");
    }
    // Request lines that are none.
    for line in [
        &b"GET  / HTTP/1.1"[..],
        b"GET /  HTTP/1.1",
        b"GET / HTTP/1.1 ",
        b"GET / HTTP/1.1\t",
        b"GET / HTTP/1.1 x",
        b" GET / HTTP/1.1",
        b"GET\t/\tHTTP/1.1",
        b"GET\x0b/\x0bHTTP/1.1",
        b"GET /",
        b"GET / ",
        b"GET",
        b"/ HTTP/1.1",
        b"GET HTTP/1.1",
        b"G(T / HTTP/1.1",
        b"G\xc9T / HTTP/1.1",
        b"GET / http/1.1",
        b"GET / HTTP/1,1",
        b"GET / HTTP/11",
        b"GET / HTTP/1.10",
        b"GET / HTTP/+1.1",
        b"GET / HTTP/1.x",
        b"GET / ICY/1.1",
        b"GET / XHTTP/1.1",
        b"HTTP/1.1 200 OK",
        b"AMETHODTHATISLONGERTHANANYREGISTEREDONE / HTTP/1.1",
    ] {
        refuse(&behind(line), 400, "head-malformed");
    }
    for lines in [
        "Connection: a b",
        "Connection: (a)",
        "Connection: close, \"x\"",
        "Connection: close\r\nConnection: a/b",
    ] {
        refuse(&in_field(lines.as_bytes()), 400, "head-malformed");
    }
    // Versions.
    for version in ["HTTP/0.9", "HTTP/1.2", "HTTP/1.9", "HTTP/2.0", "HTTP/3.0", "HTTP/0.0"] {
        refuse(&behind(format!("GET / {version}").as_bytes()), 505, "version-unsupported");
    }
    refuse(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "version-unsupported");
    // Sizes.
    let long = "x".repeat(2000);
    refuse(&at(format!("/{}", &long[..128]).as_bytes()), 414, "target-too-long");
    refuse(&at(format!("/?{}", &long[..200]).as_bytes()), 414, "target-too-long");
    refuse(&at(format!("http://a/{}", &long[..128]).as_bytes()), 414, "target-too-long");
    refuse(format!("GET /{long}").as_bytes(), 414, "target-too-long");
    refuse(&in_field(format!("X: {}", &long[..1000]).as_bytes()), 431, "head-too-large");
    refuse(format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", &long[..1100]).as_bytes(), 431, "head-too-large");
    refuse(&in_field("X: y\r\n".repeat(8).trim_end().as_bytes()), 431, "head-too-large");
    // What is understood, and not done.
    refuse(&in_field(b"Expect: 200-ok"), 417, "expectation-unknown");
    refuse(&in_field(b"Expect:"), 417, "expectation-unknown");
    refuse(&in_field(b"Expect: 100-continue, x"), 417, "expectation-unknown");
    refuse(&in_field(b"Expect: 100-continue\r\nExpect: x"), 417, "expectation-unknown");
    refuse(&in_field(b"Content-Length: 100"), 413, "body-too-large");
    refuse(&in_field(b"Content-Length: 18446744073709551615"), 413, "body-too-large");
    refuse(&in_field(b"Content-Length: 100\r\nExpect: 100-continue"), 413, "body-too-large");
    refuse(&at(b"https://a/"), 421, "misdirected");
    refuse(&at(b"HTTPS://a:443/"), 421, "misdirected");
    refuse(b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 405, "method-not-allowed");
    refuse(b"TRACE / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", 405, "method-not-allowed");
    refuse(b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 405, "method-not-allowed");
    for target in ["a", "/", "http://a:443/", "u@a:443", "a:"] {
        refuse(format!("CONNECT {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes(), 400, "head-malformed");
    }
    all
}

/// Reads what must be the gateway's only answer, and all that comes.
fn assert_refused(client: &mut Peer, status: u16, kind: &str, wire: &[u8], cut: usize) {
    let all = client.rest();
    let what = || {
        let (before, after) = wire.split_at(cut.min(wire.len()));
        let text = String::from_utf8_lossy(&all);
        format!("{:?} | {:?} got {text}", String::from_utf8_lossy(before), String::from_utf8_lossy(after))
    };
    let at = all.windows(4).position(|four| four == b"\r\n\r\n");
    let at = at.unwrap_or_else(|| panic!("no answer to {}", what()));
    let (head, body) = all.split_at(at + 4);
    let head = String::from_utf8(head.to_vec()).unwrap();
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{}", what());
    assert_eq!(field(&head, "content-length"), Some(body.len().to_string()), "one answer only: {}", what());
    assert_eq!(field(&head, "connection").as_deref(), Some("close"), "{}", what());
    assert_eq!(field(&head, "content-type").as_deref(), Some("application/problem+json"), "{}", what());
    let problem: serde_json::Value = serde_json::from_slice(body).unwrap_or_else(|_| panic!("{}", what()));
    assert_eq!(problem["type"], format!("urn:ringgate:problem:{kind}"), "{}", what());
    assert_eq!(problem["status"], status, "{}", what());
}

/// Sends each pair one after the other, the gateway having received the first before the second, and gives the clients.
fn in_two(gateway: &Gateway, pairs: &[(Vec<u8>, Vec<u8>)]) -> Vec<Peer> {
    let mut clients: Vec<Peer> = pairs.iter().map(|_| gateway.connect()).collect();
    for (client, (first, _)) in clients.iter_mut().zip(pairs) {
        client.send(first);
    }
    all_received(clients.iter().map(|client| &client.stream));
    for (client, (_, second)) in clients.iter_mut().zip(pairs) {
        client.send(second);
    }
    clients
}

/// Shows that the upstream has seen nothing: a good request's connection is its first.
fn assert_untouched(gateway: &Gateway, upstream: &Upstream, seen: &Receiver<Vec<u8>>) {
    assert_eq!(upstream.accepted(), 0, "a refused request reached the upstream");
    let mut client = gateway.connect();
    client.send("GET /witness HTTP/1.1\r\nHost: a\r\n\r\n");
    upstream.wait_for(1);
    client.reset();
    // The client's going aborts the exchange.
    let seen = seen.recv_timeout(PATIENCE).unwrap();
    assert!(seen.starts_with(b"GET /witness HTTP/1.1\r\n"), "{:?}", String::from_utf8_lossy(&seen));
    assert_eq!(upstream.accepted(), 1, "a refused request reached the upstream");
}

#[test]
fn a_refused_head_is_answered_and_reaches_no_upstream() {
    let (upstream, seen) = Upstream::witness();
    let gateway = limited(&upstream);
    for Refusal { wire, status, kind } in refusals() {
        let mut client = gateway.connect();
        client.send([&wire, NEXT].concat());
        assert_refused(&mut client, status, kind, &wire, wire.len());
        client.reset();
    }
    assert_untouched(&gateway, &upstream, &seen);
}

#[test]
fn a_refused_head_is_refused_alike_wherever_it_is_cut() {
    let (upstream, seen) = Upstream::witness();
    let gateway = limited(&upstream);
    let refusals = refusals();
    let cuts: Vec<(&Refusal, usize)> = refusals
        .iter()
        .flat_map(|refusal| (1..refusal.wire.len()).map(move |cut| (refusal, cut)))
        // Where a long run of equal bytes is cut makes no difference.
        .filter(|(refusal, cut)| !is_within_a_run(&refusal.wire, *cut) || cut % 61 == 0)
        .collect();
    for batch in cuts.chunks(BATCH) {
        let pairs: Vec<_> = batch
            .iter()
            .map(|(refusal, cut)| {
                let (first, second) = refusal.wire.split_at(*cut);
                (first.to_vec(), [second, NEXT].concat())
            })
            .collect();
        for (mut client, (refusal, cut)) in in_two(&gateway, &pairs).into_iter().zip(batch) {
            assert_refused(&mut client, refusal.status, refusal.kind, &refusal.wire, *cut);
            client.reset();
        }
    }
    assert_untouched(&gateway, &upstream, &seen);
}

/// Whether all of 32 bytes around a place are the same.
fn is_within_a_run(wire: &[u8], at: usize) -> bool {
    let around = wire.get(at.saturating_sub(16)..at + 16);
    around.is_some_and(|around| around.iter().all(|byte| *byte == around[0]))
}

#[test]
fn a_head_that_never_ends_is_refused_at_the_clients_end() {
    let (upstream, seen) = Upstream::witness();
    let gateway = limited(&upstream);
    let wire = b"POST /a?b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n";
    let clients: Vec<(usize, Peer)> = (1..wire.len())
        .map(|end| {
            let mut client = gateway.connect();
            client.send(&wire[..end]);
            client.finish();
            (end, client)
        })
        .collect();
    for (end, mut client) in clients {
        assert_refused(&mut client, 400, "head-malformed", wire, end);
    }
    assert_untouched(&gateway, &upstream, &seen);
}

#[test]
fn the_default_limits_are_exact() {
    let upstream = Upstream::saying("yes");
    let gateway = Gateway::start(&all_to(&[upstream.address]));
    let target = |bytes: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(bytes - 1));
    let fields = |count: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(count - 1));
    let head = |bytes: usize| {
        let frame = "GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n";
        frame.replace("X: ", &format!("X: {}", "x".repeat(bytes - frame.len())))
    };
    for wire in [target(8192), fields(100), head(16384)] {
        let mut client = gateway.connect();
        client.send(&wire);
        assert_eq!(client.response().status, 200, "{} bytes", wire.len());
    }
    for (wire, status, kind) in [
        (target(8193), 414, "target-too-long"),
        (fields(101), 431, "head-too-large"),
        (head(16385), 431, "head-too-large"),
    ] {
        let mut client = gateway.connect();
        client.send(&wire);
        assert_refused(&mut client, status, kind, wire.as_bytes(), wire.len());
    }
}

/// What a chunked body is broken with, behind a good chunk.
fn broken_chunks() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = [
        // Sizes.
        &b"g\r\n"[..],
        b"\r\n",
        b" 5\r\nhello\r\n",
        b"5 \r\nhello\r\n",
        b"\t5\r\nhello\r\n",
        b"+5\r\nhello\r\n",
        b"-5\r\nhello\r\n",
        b"0x5\r\nhello\r\n",
        b"5h\r\nhello\r\n",
        b"5,\r\nhello\r\n",
        b"5\x00\r\nhello\r\n",
        b";a\r\nhello\r\n",
        b"00000000000000005\r\nhello\r\n",
        b"10000000000000005\r\nhello\r\n",
        b"ffffffffffffffff\r\nhello\r\n",
        b"8000000000000000\r\nhello\r\n",
        b"\xef\xbc\x95\r\nhello\r\n",
        // Size lines that CRLF does not end.
        b"5\nhello\r\n",
        b"5\rhello\r\n",
        b"5\r\rhello\r\n",
        b"5;a\nhello\r\n",
        b"5;a\rhello\r\n",
        b"0\n\r\n",
        b"0\r\r\n",
        // Extensions.
        b"5 ;a\r\nhello\r\n",
        b"5;a\x00\r\nhello\r\n",
        b"5;a\x7f\r\nhello\r\n",
        b"5;a\x80\r\nhello\r\n",
        b"5;a=\"\n0\r\n\r\n\"\r\nhello\r\n",
        // Chunk endings.
        b"5\r\nhelloX\r\n",
        b"5\r\nhello\n",
        b"5\r\nhello\rX",
        b"5\r\nhello0\r\n\r\n",
        b"5\r\nhello\r\r\n",
        b"5\r\nhello\n\r\n",
        b"5\r\nhell\r\n",
        // Trailer sections.
        b"0\r\n\n",
        b"0\r\n\rX",
        b"0\r\nX\r\n\r\n",
        b"0\r\n X: y\r\n\r\n",
        b"0\r\nX: y\r\n z\r\n\r\n",
        b"0\r\nX : y\r\n\r\n",
        b"0\r\n: y\r\n\r\n",
        b"0\r\nX: y\n\r\n",
        b"0\r\nX: y\rZ: z\r\n\r\n",
        b"0\r\nX: \x00\r\n\r\n",
        b"0\r\nX: y\r\n\n",
        b"0\r\nGET /inner HTTP/1.1\r\nHost: a\r\n\r\n",
    ]
    .map(<[u8]>::to_vec)
    .to_vec();
    all.push(format!("5;{}\r\nhello\r\n", "x".repeat(300)).into_bytes());
    all.push(format!("0\r\n{}\r\n", "X: y\r\n".repeat(65)).into_bytes());
    all.push(format!("0\r\nX: {}\r\n\r\n", "x".repeat(8192)).into_bytes());
    // Forbidden trailers: framing, routing, authentication, modifiers, content format.
    for name in [
        "Content-Length",
        "Transfer-Encoding",
        "transfer-encoding",
        "Trailer",
        "TE",
        "Connection",
        "Keep-Alive",
        "Upgrade",
        "Proxy-Connection",
        "Host",
        "Max-Forwards",
        "Expect",
        "Cache-Control",
        "Range",
        "If-Match",
        "Authorization",
        "Proxy-Authorization",
        "WWW-Authenticate",
        "Cookie",
        "Set-Cookie",
        "Content-Encoding",
        "Content-Type",
        "Content-Range",
        "Forwarded",
        "X-Forwarded-For",
        "X-Forwarded-Proto",
        "X-Forwarded-Host",
        "X-Real-IP",
        "X-Request-Id",
        "Via",
        "Location",
    ] {
        all.push(format!("0\r\n{name}: 0\r\n\r\n").into_bytes());
    }
    all
}

/// A request with a body that is broken or cut short.
struct Broken {
    head: String,
    body: Vec<u8>,
    /// The client ends its side behind it; otherwise [`NEXT`] follows.
    ends: bool,
    kind: &'static str,
}

fn chunked_head(number: usize) -> String {
    format!("POST /{number} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
}

/// All of them, numbered from 0 in their paths.
fn broken_bodies() -> Vec<Broken> {
    let mut all = Vec::new();
    for broken in broken_chunks() {
        let body = [b"5\r\nhello\r\n", &broken[..]].concat();
        all.push(Broken { head: chunked_head(all.len()), body, ends: false, kind: "body-malformed" });
    }
    let sized = b"0123456789";
    for end in 0..sized.len() {
        let head = format!("POST /{} HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n", all.len());
        all.push(Broken { head, body: sized[..end].to_vec(), ends: true, kind: "body-truncated" });
    }
    let chunked = b"5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n";
    for end in 0..chunked.len() {
        let body = chunked[..end].to_vec();
        all.push(Broken { head: chunked_head(all.len()), body, ends: true, kind: "body-truncated" });
    }
    all
}

/// What came of a witness's connections, each to its end, up to the one that brings `/last`.
fn all_seen(gateway: &Gateway, upstream: &Upstream, seen: &Receiver<Vec<u8>>) -> Vec<Vec<u8>> {
    // Connections come in order: when this one is here, so are all before it.
    let mut client = gateway.connect();
    client.send("POST /last HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n");
    let mut all = Vec::new();
    let mut is_gone = false;
    let mut has_last = false;
    while !has_last || all.len() < upstream.accepted() {
        if !is_gone && upstream.accepted() > all.len() {
            client.stream.shutdown(Shutdown::Both).unwrap();
            is_gone = true;
        }
        let bytes = seen.recv_timeout(PATIENCE).expect("every connection ends");
        has_last |= bytes.starts_with(b"POST /last ");
        all.push(bytes);
    }
    all
}

/// Checks that a connection brought the beginning of one request of its own, and nothing that is complete. Its number.
fn assert_incomplete(bytes: &[u8]) -> Option<usize> {
    let text = String::from_utf8_lossy(bytes);
    assert_eq!(request(bytes, false), Found::Part, "not the beginning of one request: {text:?}");
    assert!(!text.contains("/next") && !text.contains("/inner"), "{text:?}");
    let path = text.split(' ').nth(1)?;
    path.trim_start_matches('/').parse().ok()
}

#[test]
fn a_broken_body_never_looks_complete_wherever_it_is_cut() {
    let (upstream, seen) = Upstream::witness();
    let gateway = Gateway::start(&all_to(&[upstream.address]));
    let all = broken_bodies();
    let mut wires = Vec::new();
    for (number, broken) in all.iter().enumerate() {
        let whole = [broken.head.as_bytes(), &broken.body].concat();
        // The head with nothing or a little of the body, and every cut within the body.
        let from = broken.head.len() - 2;
        for cut in (from..whole.len()).filter(|cut| !is_within_a_run(&whole, *cut) || cut % 1009 == 0) {
            let (first, second) = whole.split_at(cut);
            let next = if broken.ends { &[] } else { NEXT };
            wires.push((number, cut, (first.to_vec(), [second, next].concat())));
        }
        // And both with no cut at all.
        wires.push((number, 0, (Vec::new(), [&whole[..], if broken.ends { &[] } else { NEXT }].concat())));
    }
    for batch in wires.chunks(BATCH) {
        let pairs: Vec<_> = batch.iter().map(|(_, _, pair)| pair.clone()).collect();
        let clients = in_two(&gateway, &pairs);
        for (client, (number, ..)) in clients.iter().zip(batch) {
            if all[*number].ends {
                client.finish();
            }
        }
        for (mut client, (number, cut, _)) in clients.into_iter().zip(batch) {
            let broken = &all[*number];
            let whole = [broken.head.as_bytes(), &broken.body].concat();
            assert_refused(&mut client, 400, broken.kind, &whole, *cut);
            client.reset();
        }
    }
    let mut reached = vec![false; all.len()];
    let seen = all_seen(&gateway, &upstream, &seen);
    for number in seen.iter().filter_map(|bytes| assert_incomplete(bytes)) {
        reached[number] = true;
    }
    // Each was cut at least once so late that the upstream had some of it: nothing above was shown of nothing.
    assert!(reached.iter().all(|reached| *reached), "{reached:?}");
}

#[test]
fn a_client_that_resets_amid_its_body_leaves_nothing_complete() {
    let (upstream, seen) = Upstream::witness();
    let gateway = Gateway::start(&all_to(&[upstream.address]));
    let mut clients = Vec::new();
    for number in 0..40 {
        let mut client = gateway.connect();
        if number % 2 == 0 {
            client.send(chunked_head(number) + "5\r\nhello\r\n");
        } else {
            client.send(format!("POST /{number} HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello"));
        }
        clients.push(client);
    }
    upstream.wait_for(40);
    clients.into_iter().for_each(Peer::reset);
    let seen = all_seen(&gateway, &upstream, &seen);
    let numbers: Vec<usize> = seen.iter().filter_map(|bytes| assert_incomplete(bytes)).collect();
    assert_eq!(numbers.len(), 40);
}

#[test]
fn a_body_beyond_the_limit_is_cut_and_what_came_with_its_end_is_no_request() {
    let (upstream, seen) = Upstream::witness();
    let gateway = limited(&upstream);
    let pairs: Vec<(Vec<u8>, Vec<u8>)> = (0..20)
        .map(|number| {
            let second = [&b"10\r\n0123456789abcdef\r\n0\r\n\r\n"[..], NEXT].concat();
            ((chunked_head(number) + "5\r\nhello\r\n").into_bytes(), second)
        })
        .collect();
    for mut client in in_two(&gateway, &pairs) {
        assert_refused(&mut client, 413, "body-too-large", b"", 0);
    }
    for bytes in all_seen(&gateway, &upstream, &seen) {
        assert_incomplete(&bytes);
    }
}

#[test]
fn a_body_that_breaks_behind_an_early_answer_ends_both_connections() {
    for breaks in ["g\r\n", "5\r\nhelloX\r\n", "0\r\nHost: a\r\n\r\n"] {
        let upstream = Upstream::scripted(|mut peer, number| {
            let head = peer.head();
            assert_eq!(number == 0, head.starts_with("POST /0 "), "{head}");
            if number == 0 {
                // An answer before the body is complete.
                peer.until(b"hello");
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nearly");
                let rest = peer.rest();
                assert!(!rest.ends_with(b"0\r\n\r\n"), "{:?}", String::from_utf8_lossy(&rest));
            } else {
                peer.send(ok(b"other"));
                peer.rest();
            }
        });
        let gateway = Gateway::start(&all_to(&[upstream.address]));
        let mut client = gateway.connect();
        client.send(chunked_head(0) + "5\r\nhello\r\n");
        assert!(client.head().contains("Connection: close"));
        client.send([breaks.as_bytes(), NEXT].concat());
        let all = client.rest();
        assert!(all.len() <= 5 && b"early".starts_with(&all), "{:?}", String::from_utf8_lossy(&all));
        let mut other = gateway.connect();
        other.send("GET /other HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(other.response().text(), "other");
        assert_eq!(upstream.accepted(), 2);
    }
}

#[test]
fn an_early_whole_answer_ends_both_connections_though_the_body_goes_on() {
    for body in ["5\r\nhello\r\n", "5\r\nhel"] {
        let upstream = Upstream::scripted(|mut peer, _| {
            let head = peer.head();
            peer.send(ok(if head.starts_with("POST") { b"early" } else { b"other" }));
            peer.rest();
        });
        let gateway = Gateway::start(&all_to(&[upstream.address]));
        let mut client = gateway.connect();
        client.send(chunked_head(0) + body);
        let response = client.response();
        assert_eq!((response.status, response.text().as_str()), (200, "early"));
        assert_eq!(response.field("connection").as_deref(), Some("close"));
        // What might be the body's end, and what would be the next request if the connection lived on.
        client.try_send([b"lo\r\n0\r\n\r\n", NEXT, NEXT].concat());
        assert_eq!(client.rest(), b"");
        let mut other = gateway.connect();
        other.send("GET /other HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(other.response().text(), "other");
        assert_eq!(upstream.accepted(), 2);
    }
}

#[test]
fn a_large_answer_to_a_refused_request_survives_what_the_client_still_sends() {
    let upstream = Upstream::saying("no");
    let gateway = limited(&upstream);
    // The client goes on sending a body that no one wants, and reads only then.
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 500000\r\n\r\n");
    for _ in 0..50 {
        client.try_send([b'x'; 10_000]);
    }
    assert_refused(&mut client, 413, "body-too-large", b"500000 bytes", 0);
    assert_eq!(upstream.accepted(), 0);
}

#[test]
fn a_body_that_pauses_is_given_up_and_its_rest_is_no_request() {
    for (listener, route, status, kind) in [
        ("timeouts = { body_idle = \"200ms\" }", "", 408, "body-timeout"),
        ("", "timeout = \"200ms\"", 504, "exchange-timeout"),
    ] {
        for had in [&NEXT[..0], &NEXT[..4]] {
            let (upstream, seen) = Upstream::witness();
            let gateway = Gateway::start(&config(&format!(
                "{listener}\n[[cluster]]\nname = \"all\"\nendpoints = [{{ address = \"{}\" }}]\n\
                 [[route]]\nname = \"all\"\ncluster = \"all\"\n{route}",
                upstream.address
            )));
            let mut client = gateway.connect();
            let head = format!("POST /0 HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", NEXT.len());
            client.send([head.as_bytes(), had].concat());
            assert_refused(&mut client, status, kind, had, had.len());
            // The rest is a request if the length is forgotten.
            client.try_send([&NEXT[had.len()..], NEXT].concat());
            assert_eq!(String::from_utf8_lossy(&client.rest()), "");
            assert_eq!(assert_incomplete(&seen.recv_timeout(PATIENCE).unwrap()), Some(0));
            assert_eq!(upstream.accepted(), 1);
        }
    }
}

/// A gateway that lets TRACE and CONNECT through.
fn permissive(upstream: &Upstream) -> Gateway {
    Gateway::start(&config(&format!(
        "allow_methods = [\"TRACE\", \"CONNECT\"]\n\
         [[cluster]]\nname = \"all\"\nendpoints = [{{ address = \"{}\" }}]\n\
         [[route]]\nname = \"all\"\nmatch = {{ host = \"a\" }}\ncluster = \"all\"",
        upstream.address
    )))
}

#[test]
fn trace_goes_through_where_it_is_allowed() {
    let upstream = Upstream::answering(|head, _| ok(head.as_bytes()));
    let gateway = permissive(&upstream);
    let mut client = gateway.connect();
    for path in ["/a", "/b"] {
        client.send(format!("TRACE {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let response = client.response();
        assert_eq!(response.status, 200);
        assert!(response.text().starts_with(&format!("TRACE {path} HTTP/1.1\r\n")), "{}", response.text());
    }
}

#[test]
fn connect_becomes_a_tunnel_where_it_is_allowed() {
    let upstream = Upstream::scripted(|mut peer, _| {
        let head = peer.head();
        assert!(head.starts_with("CONNECT a:443 HTTP/1.1\r\n"), "{head}");
        // Fields that would frame a body mean nothing here; bytes come right behind the head.
        peer.send("HTTP/1.1 200 Go\r\nContent-Length: 5\r\n\r\nfirst");
        assert_eq!(peer.exactly(5), b"early");
        assert_eq!(peer.exactly(17), b"\0\r\n\r\nGET / HTTP/1");
        peer.send("HTTP/1.1 500 no response\r\n\r\n");
        // The client ends its side first, and still gets the rest.
        assert_eq!(peer.rest(), b"");
        peer.send("last");
    });
    let gateway = permissive(&upstream);
    let mut client = gateway.connect();
    client.send("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\nearly");
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 200 Go\r\n"), "{head}");
    assert_eq!(
        (field(&head, "content-length"), field(&head, "transfer-encoding"), field(&head, "connection")),
        (None, None, None)
    );
    assert_eq!(client.exactly(5), b"first");
    client.send(b"\0\r\n\r\nGET / HTTP/1");
    assert_eq!(client.exactly(28), b"HTTP/1.1 500 no response\r\n\r\n");
    client.finish();
    assert_eq!(client.rest(), b"last");
}

/// A client may send what it wants to tunnel before it knows that there is no tunnel: that must not become requests.
#[test]
fn bytes_behind_a_connect_that_failed_are_not_requests() {
    let upstream = Upstream::answering(|head, _| {
        assert!(head.starts_with("CONNECT "), "{head}");
        b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno".to_vec()
    });
    let gateway = permissive(&upstream);
    let refused: [(&str, u16); 2] = [("a:443", 403), ("elsewhere:443", 404)];
    for (target, status) in refused {
        for cut in [false, true] {
            let mut client = gateway.connect();
            let head = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").into_bytes();
            if cut {
                client.send(&head);
                all_received([&client.stream]);
                client.try_send(NEXT);
            } else {
                client.send([&head, NEXT].concat());
            }
            let response = client.response();
            assert_eq!(response.status, status);
            assert_eq!(response.field("connection").as_deref(), Some("close"), "{target}");
            assert_eq!(String::from_utf8_lossy(&client.rest()), "", "{target}");
        }
    }
    let mut client = gateway.connect();
    client.send([b"CONNECT b HTTP/1.1\r\nHost: a\r\n\r\n", NEXT].concat());
    assert_refused(&mut client, 400, "head-malformed", NEXT, 0);
}

#[test]
fn a_broken_body_is_told_from_its_framing_alone() {
    // The witness of this file can fail: a good chunked body is complete by the same reading.
    let wire =
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x\r\nhello\r\n0\r\nX: y\r\n\r\n";
    let Found::Whole(read, len) = request(wire, false) else { panic!("a good request") };
    assert_eq!((read.framing, read.body.as_slice(), len), (Framing::Chunked, &b"hello"[..], wire.len()));
}
