//! What it costs to parse a request head: as curl sends it, as a browser does, and a long one.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringgate::{
    config::types::PathRules,
    http::{
        path::canonicalize,
        request::{HeadLimits, Parsed, RequestHead, parse_request},
    },
};

const CURL: &str = "GET /users/42?fields=name HTTP/1.1\r\nHost: api.example.com\r\nUser-Agent: curl/8.5.0\r\n\
    Accept: */*\r\nX-Request-Id: 0190b6d4-8b5e-7cc4\r\n\r\n";

const BROWSER: &str = "GET /articles/2024/05/how-gateways-work?utm_source=feed&page=2 HTTP/1.1\r\n\
    Host: www.example.com\r\nConnection: keep-alive\r\nCache-Control: max-age=0\r\n\
    sec-ch-ua: \"Chromium\";v=\"124\", \"Not-A.Brand\";v=\"99\"\r\nsec-ch-ua-mobile: ?0\r\n\
    sec-ch-ua-platform: \"Linux\"\r\nUpgrade-Insecure-Requests: 1\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/124.0.0.0 Safari/537.36\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n\
    Sec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: navigate\r\nReferer: https://www.example.com/articles\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-GB,en;q=0.9\r\n\
    Cookie: session=0f8fad5bd9cb469fa16570867728950e; theme=dark; consent=granted\r\n\r\n";

fn head_parsing(criterion: &mut Criterion) {
    let long = format!(
        "GET /a HTTP/1.1\r\nHost: a\r\n{}\r\n",
        (1..50).map(|n| format!("X-Field-{n}: value number {n}\r\n")).collect::<String>()
    );
    let mut group = criterion.benchmark_group("request_head");
    for (name, wire) in [("curl", CURL), ("browser", BROWSER), ("50_fields", &long)] {
        let limits = HeadLimits::default();
        let mut head = RequestHead::default();
        let complete = Ok(Parsed::Complete { head_len: wire.len() });
        assert_eq!(parse_request(wire.as_bytes(), &mut 0, &limits, &mut head), complete);
        group.throughput(Throughput::Bytes(wire.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| parse_request(black_box(wire.as_bytes()), &mut 0, &limits, &mut head));
        });
    }
    group.finish();
}

fn canonical_paths(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("canonical_path");
    for (name, path) in
        [("plain", "/articles/2024/05/how-gateways-work"), ("rewritten", "/a/./b/%7euser/../c%2fd")]
    {
        let mut out = Vec::with_capacity(64);
        group.bench_function(name, |bencher| {
            bencher.iter(|| canonicalize(black_box(path.as_bytes()), &PathRules::default(), &mut out));
        });
    }
    group.finish();
}

criterion_group!(benches, head_parsing, canonical_paths);
criterion_main!(benches);
