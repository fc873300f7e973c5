//! What it costs to write the head that goes upstream and the one that goes back, as an exchange writes them: into one
//! buffer, the received fields copied in runs and edited, the gateway's own lines behind them.

use std::{hint::black_box, net::Ipv4Addr};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringgate::{
    buf::{Buf, Size},
    clock::http_date,
    config::types,
    expression::Expression,
    http::{
        field::{FieldName, NameSet},
        head::{HeadLimits, Parsed},
        request::{RequestHead, parse_request},
        response::{ResponseHead, parse_response},
        write::{HeadWriter, LeftOut},
    },
    policy::{
        forwarded::Hop,
        headers::HeaderEdits,
        template::{Value, Variable, Variables},
    },
};

const CURL: &str = "GET /users/42?fields=name HTTP/1.1\r\nHost: api.example.com\r\nUser-Agent: curl/8.5.0\r\n\
    Accept: */*\r\n\r\n";

const BROWSER: &str = "GET /articles/2024/05/how-gateways-work?utm_source=feed&page=2 HTTP/1.1\r\n\
    Host: www.example.com\r\nConnection: keep-alive\r\nCache-Control: max-age=0\r\n\
    sec-ch-ua: \"Chromium\";v=\"124\", \"Not-A.Brand\";v=\"99\"\r\nsec-ch-ua-mobile: ?0\r\n\
    sec-ch-ua-platform: \"Linux\"\r\nUpgrade-Insecure-Requests: 1\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/124.0.0.0 Safari/537.36\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n\
    Sec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: navigate\r\nReferer: https://www.example.com/articles\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-GB,en;q=0.9\r\n\
    Cookie: session=0f8fad5bd9cb469fa16570867728950e; theme=dark; consent=granted\r\n\r\n";

const SMALL: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 100\r\n\r\n";

const PAGE: &str = "HTTP/1.1 200 OK\r\nServer: origin\r\nDate: Wed, 01 Jul 2026 12:00:00 GMT\r\n\
    Content-Type: text/html; charset=utf-8\r\nContent-Length: 18230\r\nConnection: keep-alive\r\n\
    Cache-Control: public, max-age=300, stale-while-revalidate=60\r\nETag: \"33a64df551425fcc55e4d42a148795d9\"\r\n\
    Vary: Accept-Encoding\r\nStrict-Transport-Security: max-age=31536000; includeSubDomains\r\n\
    X-Content-Type-Options: nosniff\r\nX-Frame-Options: DENY\r\nX-Powered-By: origin/1.0\r\n\
    Set-Cookie: session=0f8fad5bd9cb469fa16570867728950e; Path=/; HttpOnly; Secure; SameSite=Lax\r\n\r\n";

const ID: &[u8] = b"019b76da-a800-7000-8000-000000000001";

/// What a stranger says of itself.
const CLAIMS: NameSet = NameSet::of(&[
    FieldName::XForwardedFor,
    FieldName::XForwardedProto,
    FieldName::XForwardedHost,
    FieldName::Forwarded,
    FieldName::XRequestId,
]);

fn left_out(names: NameSet, edits: &HeaderEdits) -> LeftOut<impl Fn(&[u8]) -> bool> {
    LeftOut { names, removes: edits.removes_any().then_some(|name: &[u8]| edits.removes(name)) }
}

/// Only literals are edited in here.
struct NoVariables;

impl Variables for NoVariables {
    fn write(&self, _: &Variable, _: &mut Value<'_>) {}

    fn evaluate(&self, _: &Expression, _: &[String]) -> Option<String> {
        None
    }
}

/// No edits, and those that configurations often have.
fn edits() -> [(&'static str, HeaderEdits); 2] {
    let typical = types::HeaderEdits {
        remove: vec!["x-powered-by".into(), "server".into(), "cookie".into()],
        set: [("X-Frame-Options".into(), "SAMEORIGIN".into())].into(),
        add: [("X-Served-By".into(), "gateway".into())].into(),
    };
    let Ok(typical) = HeaderEdits::compile(&typical, &[]) else { panic!("the edits do not compile") };
    [("plain", HeaderEdits::default()), ("edited", typical)]
}

fn buffer() -> Buf {
    let Some(buf) = Buf::take(Size::Small) else { panic!("no buffer") };
    buf
}

/// The lines that the gateway adds to a request.
fn own_lines(host: &[u8], edits: &HeaderEdits, lines: &mut Vec<u8>) {
    let hop = Hop { peer: Ipv4Addr::LOCALHOST.into(), scheme: "http", host, is_trusted: false };
    lines.clear();
    hop.append_x_forwarded_for([], lines);
    hop.append_x_forwarded_proto([], lines);
    hop.append_x_forwarded_host([], lines);
    lines.extend_from_slice(b"X-Request-Id: ");
    lines.extend_from_slice(ID);
    lines.extend_from_slice(b"\r\n");
    assert!(edits.append(&NoVariables, lines).is_ok());
}

fn requests(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("upstream_head");
    for (name, wire) in [("curl", CURL), ("browser", BROWSER)] {
        let bytes = wire.as_bytes();
        let mut head = RequestHead::default();
        let parsed = parse_request(bytes, &mut 0, &HeadLimits::default(), &mut head);
        assert_eq!(parsed, Ok(Parsed::Complete { head_len: bytes.len() }));
        for (kind, edits) in edits() {
            let (mut out, mut lines) = (buffer(), Vec::with_capacity(1024));
            let mut write = |head: &RequestHead| {
                own_lines(head.authority.bytes(bytes), &edits, &mut lines);
                out.reset(0, 0);
                let mut to = HeadWriter::new(&mut out);
                let first_line = wire.find("\r\n").map_or(0, |end| end + 2);
                to.lines(bytes, 0..first_line, &head.fields, &left_out(CLAIMS, &edits));
                to.put(&lines);
                to.put(b"Via: 1.1 ringgate\r\n");
                assert!(to.finish().is_ok());
                out.len()
            };
            group.throughput(Throughput::Bytes(write(&head) as u64));
            group.bench_function(format!("{name}/{kind}"), |bencher| {
                bencher.iter(|| write(black_box(&head)));
            });
        }
    }
    group.finish();
}

fn responses(criterion: &mut Criterion) {
    let date = http_date(1_782_907_200);
    let mut group = criterion.benchmark_group("downstream_head");
    for (name, wire) in [("small", SMALL), ("page", PAGE)] {
        let bytes = wire.as_bytes();
        let mut head = ResponseHead::default();
        let parsed = parse_response(bytes, &mut 0, &HeadLimits::default(), &mut head);
        assert_eq!(parsed, Ok(Parsed::Complete { head_len: bytes.len() }));
        for (kind, edits) in edits() {
            let (mut out, mut lines) = (buffer(), Vec::with_capacity(1024));
            let mut write = |head: &ResponseHead| {
                lines.clear();
                assert!(edits.append(&NoVariables, &mut lines).is_ok());
                out.reset(0, 0);
                let mut to = HeadWriter::new(&mut out);
                let has_date = head.fields.has(FieldName::Date);
                let first_line = wire.find("\r\n").map_or(0, |end| end + 2);
                to.lines(bytes, 0..first_line, &head.fields, &left_out(NameSet::NONE, &edits));
                if !has_date {
                    to.field(b"Date", &date);
                }
                to.put(&lines);
                to.put(b"Via: 1.1 ringgate\r\n");
                assert!(to.finish().is_ok());
                out.len()
            };
            group.throughput(Throughput::Bytes(write(&head) as u64));
            group.bench_function(format!("{name}/{kind}"), |bencher| {
                bencher.iter(|| write(black_box(&head)));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, requests, responses);
criterion_main!(benches);
