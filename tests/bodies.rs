//! Bodies of every size arrive byte for byte, both ways and in every framing, while the gateway's memory stays flat. They
//! are made and compared as they go: no side of a test holds one.
#![allow(clippy::disallowed_methods, reason = "tests run no data plane")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{
    io::{ErrorKind, Write},
    iter::repeat,
    net::{SocketAddr, TcpStream},
    sync::{LazyLock, mpsc::channel},
    thread,
    time::Duration,
};

use support::{Gateway, Peer, Upstream, all_to, config, field};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;

/// How far the gateway's memory may grow over what it had after a first, small exchange. Bodies are far larger.
const GROWTH_MAX_KIB: u64 = 4096;

/// The length of [`NOISE`]'s period, a prime: bytes that are lost, doubled or from another place show.
const PERIOD: usize = 1_000_003;

/// The most that is sent or compared at once.
const PIECE_MAX: usize = 256 * 1024;

/// What bodies are cut from: byte `i` of a body is byte `(seed + i) % PERIOD`.
static NOISE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut noise: Vec<u8> = (0..PERIOD)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect();
    noise.extend_from_within(..PIECE_MAX);
    noise
});

/// A body: how long, and from where it is cut. Two seeds make two bodies.
#[derive(Debug, Clone, Copy)]
struct Body {
    length: u64,
    seed: u64,
}

impl Body {
    /// At most `max` bytes from `at` on.
    fn piece(self, at: u64, max: usize) -> &'static [u8] {
        let from = ((self.seed + at) % PERIOD as u64) as usize;
        let count = usize::try_from(self.length - at).unwrap_or(usize::MAX).min(max).min(PIECE_MAX);
        &NOISE[from..from + count]
    }

    /// Whether these are its bytes from `at` on.
    fn has(self, mut at: u64, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            if at >= self.length {
                return false;
            }
            let (piece, rest) = bytes.split_at(self.piece(at, bytes.len()).len());
            if piece != self.piece(at, piece.len()) {
                return false;
            }
            at += piece.len() as u64;
            bytes = rest;
        }
        true
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Counted,
    Chunked,
    /// Ended by the connection's end. Responses only.
    UntilClose,
}
use Framing::{Chunked, Counted, UntilClose};

impl Framing {
    fn field(self, length: u64) -> String {
        match self {
            Counted => format!("Content-Length: {length}\r\n"),
            Chunked => "Transfer-Encoding: chunked\r\n".into(),
            UntilClose => "Connection: close\r\n".into(),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Counted => "counted",
            Chunked => "chunked",
            UntilClose => "until-close",
        }
    }

    fn of_name(name: &str) -> Self {
        [Counted, Chunked, UntilClose].into_iter().find(|framing| framing.name() == name).unwrap()
    }
}

/// Sends a body, in pieces of changing lengths.
fn send_body(stream: &mut TcpStream, body: Body, framing: Framing) -> std::io::Result<()> {
    // No two pieces in a row end alike on any power of two; the first are small.
    let lengths = [1, 7, 1000, 4099, 16_384, 65_536, 70_001, 200_003, PIECE_MAX];
    let mut at = 0;
    for length in lengths.into_iter().chain(repeat(PIECE_MAX)) {
        let piece = body.piece(at, length);
        if piece.is_empty() {
            break;
        }
        if framing == Chunked {
            stream.write_all(format!("{:x}\r\n", piece.len()).as_bytes())?;
            stream.write_all(piece)?;
            stream.write_all(b"\r\n")?;
        } else {
            stream.write_all(piece)?;
        }
        at += piece.len() as u64;
    }
    if framing == Chunked {
        stream.write_all(b"0\r\n\r\n")?;
    }
    Ok(())
}

/// Receives a body as its head frames it, and compares it. `false` when it is another one.
fn receive_body(peer: &mut Peer, head: &str, body: Body) -> bool {
    let mut at = 0;
    if field(head, "transfer-encoding").as_deref() == Some("chunked") {
        loop {
            let line = String::from_utf8(peer.until(b"\r\n")).unwrap();
            let size = u64::from_str_radix(line.trim(), 16).unwrap();
            if size == 0 {
                while peer.until(b"\r\n") != b"\r\n" {}
                return at == body.length;
            }
            if !receive_exactly(peer, size, body, at) || peer.exactly(2) != b"\r\n" {
                return false;
            }
            at += size;
        }
    }
    match field(head, "content-length") {
        Some(length) => length == body.length.to_string() && receive_exactly(peer, body.length, body, 0),
        None => {
            while let Some(piece) = some_bytes(peer, u64::MAX) {
                if !body.has(at, &piece) {
                    return false;
                }
                at += piece.len() as u64;
            }
            at == body.length
        }
    }
}

fn receive_exactly(peer: &mut Peer, count: u64, body: Body, mut at: u64) -> bool {
    let end = at + count;
    while at < end {
        let Some(piece) = some_bytes(peer, end - at) else { return false };
        if !body.has(at, &piece) {
            return false;
        }
        at += piece.len() as u64;
    }
    true
}

/// What has come, at least a byte and at most `max`; `None` at the end.
fn some_bytes(peer: &mut Peer, max: u64) -> Option<Vec<u8>> {
    if peer.inbox.is_empty() && peer.more() == 0 {
        return None;
    }
    let count = usize::try_from(max).unwrap_or(usize::MAX).min(peer.inbox.len());
    let rest = peer.inbox.split_off(count);
    Some(std::mem::replace(&mut peer.inbox, rest))
}

/// An upstream that compares what it gets with `X-Up: LENGTH SEED`, and sends `X-Down: LENGTH SEED FRAMING`.
fn comparing_upstream() -> Upstream {
    Upstream::scripted(|mut peer, _| {
        while let Some(head) = peer.try_head() {
            let up = body_of(&field(&head, "x-up").unwrap()).0;
            let (down, framing) = body_of(&field(&head, "x-down").unwrap());
            let is_same = receive_body(&mut peer, &head, up);
            let head = format!("HTTP/1.1 200 OK\r\nX-Same: {is_same}\r\n{}\r\n", framing.field(down.length));
            peer.send(head);
            if send_body(&mut peer.stream, down, framing).is_err() || framing == UntilClose {
                return;
            }
        }
    })
}

fn body_of(text: &str) -> (Body, Framing) {
    let words: Vec<&str> = text.split(' ').collect();
    let body = Body { length: words[0].parse().unwrap(), seed: words[1].parse().unwrap() };
    (body, Framing::of_name(words.get(2).unwrap_or(&"counted")))
}

/// One exchange with a body each way.
fn exchange(client: &mut Peer, (up, up_framing): (Body, Framing), (down, down_framing): (Body, Framing)) {
    client.send(format!(
        "POST /bodies HTTP/1.1\r\nHost: a\r\nX-Up: {} {}\r\nX-Down: {} {} {}\r\n{}\r\n",
        up.length,
        up.seed,
        down.length,
        down.seed,
        down_framing.name(),
        up_framing.field(up.length)
    ));
    let shown = format!("{up:?} {up_framing:?}, {down:?} {down_framing:?}");
    send_body(&mut client.stream, up, up_framing).unwrap_or_else(|error| panic!("{shown}: {error}"));
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 200 "), "{shown}: {head}");
    assert_eq!(field(&head, "x-same").as_deref(), Some("true"), "{shown}: it arrived changed upstream");
    let expected = if down_framing == Counted { None } else { Some("chunked".to_owned()) };
    assert_eq!(field(&head, "transfer-encoding"), expected, "{shown}");
    assert!(receive_body(client, &head, down), "{shown}: it arrived changed at the client");
}

/// A gateway that has served one small exchange, and what memory it has then.
fn warm(upstream: &Upstream) -> (Gateway, Peer, u64) {
    warm_with(&all_to(&[upstream.address]))
}

fn warm_with(config: &str) -> (Gateway, Peer, u64) {
    let gateway = Gateway::start(config);
    let mut client = gateway.connect();
    let small = Body { length: 256 * KIB, seed: 0 };
    exchange(&mut client, (small, Chunked), (small, Chunked));
    let memory_kib = gateway.resident_max_kib();
    (gateway, client, memory_kib)
}

fn assert_flat(gateway: &Gateway, before_kib: u64) {
    let grown_kib = gateway.resident_max_kib() - before_kib;
    assert!(grown_kib <= GROWTH_MAX_KIB, "{grown_kib} KiB more than {before_kib} KiB");
}

#[test]
fn every_size_and_framing_on_one_connection() {
    let upstream = comparing_upstream();
    every_size_and_framing(&upstream, &all_to(&[upstream.address]));
}

#[test]
fn every_size_and_framing_over_epoll() {
    let upstream = comparing_upstream();
    let config = all_to(&[upstream.address]).replace("[runtime]", "[runtime]\ndriver = \"epoll\"");
    every_size_and_framing(&upstream, &config);
}

fn every_size_and_framing(upstream: &Upstream, config: &str) {
    let (gateway, mut client, memory_kib) = warm_with(config);
    let small = [0, 1, 2, KIB, 4095, 4096, 4097];
    let around_buffers = [15, 16, 17, 63, 64, 65, 128].map(|kib| kib * KIB);
    let around = around_buffers.into_iter().flat_map(|length| length - 1..=length + 1);
    for length in small.into_iter().chain(around).chain([MIB]) {
        for up_framing in [Counted, Chunked] {
            for down_framing in [Counted, Chunked] {
                let (up, down) = (Body { length, seed: length }, Body { length, seed: length + 1 });
                exchange(&mut client, (up, up_framing), (down, down_framing));
            }
        }
    }
    assert_eq!(upstream.accepted(), 1, "one connection served them all");
    assert_flat(&gateway, memory_kib);
}

#[test]
fn a_response_that_ends_with_its_connection() {
    let upstream = comparing_upstream();
    let (_gateway, mut client, _) = warm(&upstream);
    for length in [0, 1, 16 * KIB - 1, 16 * KIB, 16 * KIB + 1, MIB] {
        let body = Body { length, seed: length };
        exchange(&mut client, (Body { length: 0, seed: 0 }, Counted), (body, UntilClose));
    }
}

#[test]
fn sixty_four_mebibytes_in_every_framing() {
    let upstream = comparing_upstream();
    let (gateway, mut client, memory_kib) = warm(&upstream);
    for (up_framing, down_framing) in [(Counted, Chunked), (Chunked, Counted)] {
        let (up, down) = (Body { length: 64 * MIB, seed: 1 }, Body { length: 64 * MIB, seed: 2 });
        exchange(&mut client, (up, up_framing), (down, down_framing));
    }
    assert_flat(&gateway, memory_kib);
}

#[test]
fn a_gibibyte_each_way_sized_up_chunked_down() {
    gibibyte(Counted, Chunked);
}

#[test]
fn a_gibibyte_each_way_chunked_up_sized_down() {
    gibibyte(Chunked, Counted);
}

fn gibibyte(up_framing: Framing, down_framing: Framing) {
    let upstream = comparing_upstream();
    let (gateway, mut client, memory_kib) = warm(&upstream);
    let (up, down) = (Body { length: GIB, seed: 3 }, Body { length: GIB, seed: 4 });
    exchange(&mut client, (up, up_framing), (down, down_framing));
    assert_flat(&gateway, memory_kib);
    gateway.log_line();
    let line = gateway.log_line();
    assert!(line["received_bytes"].as_u64() >= Some(GIB), "{line}");
    assert!(line["sent_bytes"].as_u64() >= Some(GIB), "{line}");
}

#[test]
fn both_directions_at_once() {
    let upstream = Upstream::scripted(|mut peer, _| {
        let head = peer.head();
        let length: u64 = field(&head, "content-length").unwrap().parse().unwrap();
        peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"));
        let mut left = length;
        while left > 0 {
            let Some(piece) = some_bytes(&mut peer, left) else { return };
            left -= piece.len() as u64;
            peer.send(piece);
        }
    });
    let gateway = Gateway::start(&all_to(&[upstream.address]));
    let mut client = gateway.connect();
    let body = Body { length: 64 * MIB, seed: 5 };
    let mut up = client.stream.try_clone().unwrap();
    let sender = thread::spawn(move || {
        write!(up, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.length).unwrap();
        send_body(&mut up, body, Counted).unwrap();
    });
    let head = client.head();
    assert!(receive_body(&mut client, &head, body));
    sender.join().unwrap();
}

#[test]
fn many_at_once_and_none_gets_anothers_bytes() {
    let upstream = comparing_upstream();
    let (gateway, _, memory_kib) = warm(&upstream);
    let address = gateway.address();
    let clients: Vec<_> = (0..32_u64)
        .map(|number| {
            thread::spawn(move || {
                let mut client = Peer::connect(address);
                for turn in 0..6 {
                    let length = MIB / 2 + number * 1009 + turn;
                    let body = |seed| Body { length, seed: number * 31_013 + turn * 1009 + seed };
                    let framings =
                        if (number + turn) % 2 == 0 { (Counted, Chunked) } else { (Chunked, Counted) };
                    exchange(&mut client, (body(0), framings.0), (body(17), framings.1));
                }
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    // Each of 32 exchanges may hold 64 KiB in each direction.
    assert_flat(&gateway, memory_kib + 32 * 2 * 64);
}

#[test]
fn a_large_response_after_another_on_the_same_connections() {
    let upstream = comparing_upstream();
    let (_gateway, mut client, _) = warm(&upstream);
    let nothing = Body { length: 0, seed: 0 };
    for seed in 0..20 {
        let body = Body { length: 100_000, seed };
        exchange(&mut client, (nothing, Counted), (body, if seed % 2 == 0 { Counted } else { Chunked }));
    }
    assert_eq!(upstream.accepted(), 1);
}

/// A configuration for heads of up to 64 KiB.
fn large_heads(endpoint: SocketAddr) -> String {
    format!("[limits]\nhead_bytes = \"64KiB\"\n{}", all_to(&[endpoint]))
}

/// A message whose head and body's beginning fill a large buffer, so that with the gateway's own fields they do not fit
/// into another.
fn head_and_body(first_line: &str, framing: Framing, body: Body) -> Vec<u8> {
    let filler = "x".repeat(30_000);
    let mut message =
        format!("{first_line}\r\nX-Filler: {filler}\r\n{}\r\n", framing.field(body.length)).into_bytes();
    if framing == Chunked {
        message.extend(format!("{:x}\r\n", body.length).bytes());
    }
    message.extend(body.piece(0, usize::MAX));
    if framing == Chunked {
        message.extend(b"\r\n0\r\nX-Trailer: yes\r\n\r\n");
    }
    message
}

#[test]
fn a_body_that_does_not_fit_behind_its_large_head() {
    let upstream = Upstream::scripted(|mut peer, _| {
        while let Some(head) = peer.try_head() {
            let (body, framing) = body_of(&field(&head, "x-body").unwrap());
            let is_same = receive_body(&mut peer, &head, body);
            let first = format!("HTTP/1.1 200 OK\r\nX-Same: {is_same}");
            peer.send(head_and_body(&first, framing, body));
        }
    });
    let gateway = Gateway::start(&large_heads(upstream.address));
    let mut client = gateway.connect();
    for length in [1, 30_000, 34_800, 35_000, 35_200, 35_400, 35_500, 36_000, 100_000] {
        for framing in [Counted, Chunked] {
            let body = Body { length, seed: length };
            let first = format!("POST / HTTP/1.1\r\nHost: a\r\nX-Body: {length} {length} {}", framing.name());
            client.send(head_and_body(&first, framing, body));
            let head = client.head();
            assert!(head.starts_with("HTTP/1.1 200 "), "{length} {framing:?}: {head:.300}");
            assert_eq!(field(&head, "x-same").as_deref(), Some("true"), "{length} {framing:?}, upstream");
            assert!(receive_body(&mut client, &head, body), "{length} {framing:?}, client");
        }
    }
    assert_eq!(upstream.accepted(), 1);
}

#[test]
fn a_response_head_that_outgrows_its_buffer_is_the_upstreams_fault() {
    // As large as may be, before the gateway adds to it.
    let upstream = Upstream::answering(|_, _| {
        let rest = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Filler: \r\n\r\n".len();
        let filler = "x".repeat(64 * KIB as usize - rest);
        format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Filler: {filler}\r\n\r\n").into_bytes()
    });
    let gateway = Gateway::start(&large_heads(upstream.address));
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let response = client.response();
    assert_eq!(response.status, 502);
    assert!(response.text().contains("urn:ringgate:problem:response-head-too-large"), "{}", response.text());
}

#[test]
fn an_answer_of_the_configuration_larger_than_a_buffer() {
    let text = "0123456789".repeat(20_000);
    let route = format!("[[route]]\nname = \"large\"\nrespond = {{ body = \"{text}\" }}");
    let gateway = Gateway::start(&config(&route));
    let mut client = gateway.connect();
    for _ in 0..3 {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let response = client.response();
        assert_eq!((response.status, response.text()), (200, text.clone()));
    }
}

/// Sends a body until the other side takes no more for a while; `true` when it took all.
fn takes_all(stream: &mut TcpStream, body: Body) -> bool {
    stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    match send_body(stream, body, Counted) {
        Ok(()) => true,
        Err(error) => {
            assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
            false
        }
    }
}

#[test]
fn a_client_that_does_not_read_holds_the_upstream_up() {
    let (sender, stalled) = channel();
    let upstream = Upstream::scripted(move |mut peer, number| {
        peer.head();
        peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {GIB}\r\n\r\n"));
        if number > 0 {
            let _ = sender.send(takes_all(&mut peer.stream, Body { length: GIB, seed: 0 }));
        }
    });
    let gateway = Gateway::start(&all_to(&[upstream.address]));
    let request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut first = gateway.connect();
    first.send(request);
    first.head();
    let before_kib = gateway.resident_max_kib();
    let mut client = gateway.connect();
    client.send(request);
    assert!(!stalled.recv_timeout(support::PATIENCE).unwrap(), "someone took a GiB that the client did not");
    assert_flat(&gateway, before_kib);
}

#[test]
fn an_upstream_that_does_not_read_holds_the_client_up() {
    let upstream = Upstream::scripted(|mut peer, _| {
        peer.head();
        // The end of the test ends this.
        thread::park_timeout(support::PATIENCE);
    });
    let gateway = Gateway::start(&all_to(&[upstream.address]));
    let mut client = gateway.connect();
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {GIB}\r\n\r\n"));
    upstream.wait_for(1);
    let before_kib = gateway.resident_max_kib();
    let took_all = takes_all(&mut client.stream, Body { length: GIB, seed: 0 });
    assert!(!took_all, "someone took a GiB that the upstream did not");
    assert_flat(&gateway, before_kib);
}
