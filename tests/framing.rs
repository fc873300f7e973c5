//! One meaning on the way up, and no byte of another's response on the way down: properties of the real binary between
//! generated clients and upstreams that misbehave, judged by a reading of HTTP that is independent of it.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests run no data plane")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{Arc, Barrier, Mutex, mpsc::channel},
    thread,
};

use proptest::{prelude::*, sample::Index};
use support::{
    Gateway, PATIENCE, Peer, Upstream, all_received, all_to, config, field,
    strict::{Fields, Found, Request, request},
};

// ---- Requests ----

/// What an upstream recorded: every complete request of any connection, and what was no request.
#[derive(Default)]
struct Log {
    requests: Vec<Request>,
    faults: Vec<String>,
}

/// An upstream that reads strictly, writes down what it reads and answers with its number in the log.
fn recorder() -> (Upstream, Arc<Mutex<Log>>) {
    let log = Arc::new(Mutex::new(Log::default()));
    let shared = Arc::clone(&log);
    let upstream = Upstream::scripted(move |mut peer, _| {
        let mut chunk = [0; 4096];
        loop {
            match request(&peer.inbox, false) {
                Found::Whole(request, len) => {
                    let is_head = request.method == "HEAD";
                    let number = {
                        let mut log = shared.lock().unwrap();
                        log.faults.extend(fault_of(&request));
                        log.requests.push(request);
                        log.requests.len() - 1
                    };
                    let body = if is_head { "" } else { "seen" };
                    let head = format!("HTTP/1.1 200 OK\r\nX-Number: {number}\r\nContent-Length: 4\r\n\r\n");
                    peer.inbox.drain(..len);
                    if !peer.try_send(head + body) {
                        return;
                    }
                }
                Found::Part => match peer.stream.read(&mut chunk) {
                    Ok(0) | Err(_) => return,
                    Ok(count) => peer.inbox.extend_from_slice(&chunk[..count]),
                },
                Found::Bad(why) => {
                    let text = String::from_utf8_lossy(&peer.inbox).into_owned();
                    shared.lock().unwrap().faults.push(format!("{why}: {text:?}"));
                    return;
                }
            }
        }
    });
    (upstream, log)
}

const FORBIDDEN_TRAILERS: &[&str] = &[
    "content-length",
    "transfer-encoding",
    "host",
    "connection",
    "trailer",
    "te",
    "upgrade",
    "authorization",
    "cookie",
];

/// What a forwarded request must not have.
fn fault_of(request: &Request) -> Option<String> {
    let names = |name: &str| request.fields.iter().filter(|(at, _)| at == name).count();
    let upgrade = request.value("upgrade").is_some();
    let connection: &[&[u8]] = if upgrade { &[b"upgrade"] } else { &[] };
    let all: Vec<&[u8]> = request
        .fields
        .iter()
        .filter(|(name, _)| name == "connection")
        .map(|(_, value)| value.as_slice())
        .collect();
    let is_clean = request.version == "HTTP/1.1"
        && names("host") == 1
        && ["keep-alive", "proxy-connection", "te", "http2-settings"].iter().all(|name| names(name) == 0)
        && all == connection
        && names("upgrade") <= 1
        && request.value("x-forwarded-for") == Some(b"127.0.0.1")
        && names("x-forwarded-for") == 1
        && !request.trailers.iter().any(|(name, _)| FORBIDDEN_TRAILERS.contains(&name.as_str()));
    (!is_clean).then(|| format!("{request:?}"))
}

/// A body's framing as a client writes it.
#[derive(Debug, Clone)]
enum Framed {
    None,
    Length(&'static [u8]),
    Chunked { chunks: Vec<&'static [u8]>, extension: &'static str, zeros: usize, trailer: &'static str },
}

/// One thing done to a good request.
#[derive(Debug, Clone)]
enum Mutation {
    /// A line among the fields.
    Line(Index, &'static str),
    /// A CRLF becomes something else.
    Ending(Index, &'static str),
    /// Bytes in place of so many.
    Splice(Index, usize, Vec<u8>),
    /// A piece comes twice.
    Repeat(Index, usize),
}

const LINES: &[&str] = &[
    "Content-Length: 0",
    "Content-Length: 5",
    "Content-Length: 05",
    "content-length: 44",
    "Content-Length: 5, 5",
    "Content-Length: +5",
    "Content-Length : 5",
    "Content-Length:\t5 ",
    "Content-Length: 5 6",
    "Content-Length: 18446744073709551616",
    "Content-Length",
    "Content_Length: 5",
    " Content-Length: 5",
    "Transfer-Encoding: chunked",
    "transfer-encoding:chunked",
    "TRANSFER-ENCODING: CHUNKED",
    "Transfer-Encoding: chunked ",
    "Transfer-Encoding: \tchunked",
    "Transfer-Encoding : chunked",
    "Transfer-Encoding: xchunked",
    "Transfer-Encoding: identity",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: chunked, identity",
    "Transfer-Encoding:",
    "Transfer-Encoding: \"chunked\"",
    "Transfer-Encoding:\r\n chunked",
    "Transfer-Encoding: chunked\nX: y",
    "Transfer-Encoding: chunked\rX: y",
    "X: y\nTransfer-Encoding: chunked",
    "X: y\rTransfer-Encoding: chunked",
    "X: y\0\r\nTransfer-Encoding: chunked",
    "X\x0b: y",
    "Connection: content-length, transfer-encoding, host",
    "Connection: Transfer-Encoding",
    "Host: b",
    "Host: a\r\nHost: a",
    "\r\nGET /inner HTTP/1.1\r\nHost: a\r\n",
    ":",
    "",
    " ",
];

const FIELDS: &[&str] = &[
    "X-A: b",
    "x-b:  spaced \t",
    "X-C:",
    "X-O: \u{e9}",
    "X_Under: score",
    "Connection: keep-alive",
    "Connection: close",
    "Connection: keep-alive, X-A",
    "Connection: X-Hop\r\nX-Hop: 1",
    "Keep-Alive: timeout=5",
    "Proxy-Connection: keep-alive",
    "TE: trailers, gzip",
    "Upgrade: websocket\r\nConnection: Upgrade",
    "Connection: upgrade, http2-settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAAA",
    "Trailer: X-T",
    "Expect: 100-continue",
    "X-Forwarded-For: 6.6.6.6",
    "Via: 1.0 x",
    "Content-Type: text/plain",
];

const BODIES: &[&[u8]] = &[
    b"",
    b"x",
    b"hello",
    b"\r\n",
    b"0\r\n\r\n",
    b"5\r\nhello\r\n0\r\n\r\n",
    b"GET /inner HTTP/1.1\r\nHost: a\r\n\r\n",
    &[b'z'; 3000],
];

/// A request, good but for its mutations.
#[derive(Debug, Clone)]
struct Generated {
    method: &'static str,
    target: &'static str,
    version: &'static str,
    fields: Vec<&'static str>,
    framing_at: Index,
    framed: Framed,
    mutations: Vec<Mutation>,
    /// Where the bytes are cut into writes.
    cuts: Vec<Index>,
}

impl Generated {
    fn wire(&self) -> Vec<u8> {
        let mut fields = self.fields.clone();
        let length;
        let mut body = Vec::new();
        let line = match &self.framed {
            Framed::None => None,
            Framed::Length(bytes) => {
                body.extend_from_slice(bytes);
                length = format!("Content-Length: {}", bytes.len());
                Some(length.as_str())
            }
            Framed::Chunked { chunks, extension, zeros, trailer } => {
                for chunk in chunks.iter().filter(|chunk| !chunk.is_empty()) {
                    let zeros = "0".repeat(*zeros);
                    body.extend_from_slice(format!("{zeros}{:X}{extension}\r\n", chunk.len()).as_bytes());
                    body.extend_from_slice(chunk);
                    body.extend_from_slice(b"\r\n");
                }
                body.extend_from_slice(format!("0{extension}\r\n{trailer}\r\n").as_bytes());
                Some("Transfer-Encoding: chunked")
            }
        };
        fields.push("Host: a");
        if let Some(line) = line {
            fields.insert(self.framing_at.index(fields.len() + 1), line);
        }
        let mut wire = format!("{} {} {}\r\n", self.method, self.target, self.version).into_bytes();
        for field in fields {
            wire.extend_from_slice(format!("{field}\r\n").as_bytes());
        }
        wire.extend_from_slice(b"\r\n");
        wire.extend_from_slice(&body);
        for mutation in &self.mutations {
            mutation.apply(&mut wire);
        }
        wire
    }

    /// Whether nothing was done to it, so that it must be served.
    fn is_good(&self) -> bool {
        let chunked_in_http_10 = self.version == "HTTP/1.0" && matches!(self.framed, Framed::Chunked { .. });
        self.mutations.is_empty() && !chunked_in_http_10
    }

    /// Whether the client asked for the connection's end.
    fn closes(&self) -> bool {
        let says = |option: &str| {
            self.fields.iter().any(|field| field.starts_with("Connection: ") && field.contains(option))
        };
        says("close") || (self.version == "HTTP/1.0" && !says("keep-alive"))
    }
}

impl Mutation {
    fn apply(&self, wire: &mut Vec<u8>) {
        let ends: Vec<usize> =
            wire.windows(2).enumerate().filter(|(_, two)| two == b"\r\n").map(|(at, _)| at).collect();
        match self {
            Self::Line(at, line) => {
                let Some(end) = wire.windows(4).position(|four| four == b"\r\n\r\n") else { return };
                let ends: Vec<usize> = ends.into_iter().filter(|at| *at <= end).collect();
                let at = ends[at.index(ends.len())] + 2;
                wire.splice(at..at, format!("{line}\r\n").into_bytes());
            }
            Self::Ending(at, with) if !ends.is_empty() => {
                let at = ends[at.index(ends.len())];
                wire.splice(at..at + 2, with.bytes());
            }
            Self::Splice(at, count, bytes) if !wire.is_empty() => {
                let at = at.index(wire.len());
                wire.splice(at..(at + count).min(wire.len()), bytes.iter().copied());
            }
            Self::Repeat(at, count) if !wire.is_empty() => {
                let at = at.index(wire.len());
                let piece = wire[at..(at + count).min(wire.len())].to_vec();
                wire.splice(at..at, piece);
            }
            Self::Ending(..) | Self::Splice(..) | Self::Repeat(..) => {}
        }
    }
}

fn framed() -> impl Strategy<Value = Framed> {
    let chunks = prop::collection::vec(prop::sample::select(BODIES), 0..4);
    let extension = prop::sample::select(vec!["", "", ";a", ";a=b", ";a=\"b c\""]);
    let trailer = prop::sample::select(vec!["", "", "X-T: v\r\n", "x-t:v \r\nX-U:\r\n"]);
    prop_oneof![
        Just(Framed::None),
        prop::sample::select(BODIES).prop_map(Framed::Length),
        (chunks, extension, 0_usize..3, trailer).prop_map(|(chunks, extension, zeros, trailer)| {
            Framed::Chunked { chunks, extension, zeros, trailer }
        }),
    ]
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let byte =
        prop_oneof![prop::sample::select(b" \t\r\n\0\x0b\x0c:,;0\x7f\x80\x85\xa0\xff".to_vec()), any::<u8>()];
    let endings = vec!["\n", "\r", "\r\r\n", "\n\n", "\r\n\r\n", "\r\n ", "\r\n\t", " \r\n", "\0\r\n", ""];
    prop_oneof![
        3 => (any::<Index>(), prop::sample::select(LINES)).prop_map(|(at, line)| Mutation::Line(at, line)),
        2 => (any::<Index>(), prop::sample::select(endings)).prop_map(|(at, with)| Mutation::Ending(at, with)),
        3 => (any::<Index>(), 0_usize..3, prop::collection::vec(byte, 0..3))
            .prop_map(|(at, count, bytes)| Mutation::Splice(at, count, bytes)),
        1 => (any::<Index>(), 1_usize..40).prop_map(|(at, count)| Mutation::Repeat(at, count)),
    ]
}

fn generated() -> impl Strategy<Value = Generated> {
    let methods = vec!["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "BREW", "get"];
    let targets = vec!["/", "/a", "/a/b?c=d", "/%41%2f", "/a?x=%2", "http://b.example/x", "/a//b", "/./c/.."];
    (
        prop::sample::select(methods),
        prop::sample::select(targets),
        prop::sample::select(vec!["HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0"]),
        prop::collection::vec(prop::sample::select(FIELDS), 0..4),
        any::<Index>(),
        framed(),
        prop::collection::vec(mutation(), 0..4),
        prop::collection::vec(any::<Index>(), 0..4),
    )
        .prop_map(|(method, target, version, fields, framing_at, framed, mutations, cuts)| Generated {
            method,
            target,
            version,
            fields,
            framing_at,
            framed,
            mutations,
            cuts,
        })
}

/// The requests that a client's bytes are, up to the first that is none.
fn meaning(mut wire: &[u8]) -> Vec<Request> {
    let mut all = Vec::new();
    while let Found::Whole(request, len) = request(wire, true) {
        all.push(request);
        wire = &wire[len..];
    }
    all
}

/// The fields that the gateway knows nothing of, less those that `Connection` names.
fn own_fields(request: &Request) -> Fields {
    let nominated: Vec<String> = request
        .fields
        .iter()
        .filter(|(name, _)| name == "connection")
        .flat_map(|(_, value)| {
            String::from_utf8_lossy(value)
                .to_ascii_lowercase()
                .split(',')
                .map(|name| name.trim().to_owned())
                .collect::<Vec<_>>()
        })
        .collect();
    let is_own = |name: &String| {
        // Under whatever spelling: many an upstream makes all of them one.
        let meant = name.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        let is_gateways = meant.starts_with("x-forwarded-") || meant == "x-request-id";
        name.starts_with('x') && !is_gateways && !nominated.contains(name)
    };
    request.fields.iter().filter(|(name, _)| is_own(name)).cloned().collect()
}

/// The log numbers of the answers in what a client received: upstream answers, and at the end perhaps one refusal.
fn answers(mut bytes: &[u8], log: &Log) -> Result<Vec<usize>, String> {
    let mut numbers = Vec::new();
    while !bytes.is_empty() {
        let text = || String::from_utf8_lossy(bytes).into_owned();
        let at = bytes.windows(4).position(|four| four == b"\r\n\r\n").ok_or_else(text)?;
        let head = String::from_utf8_lossy(&bytes[..at + 4]).into_owned();
        bytes = &bytes[at + 4..];
        if let Some(number) = field(&head, "x-number") {
            let number: usize = number.parse().map_err(|_| head.clone())?;
            let is_head = log.requests.get(number).ok_or(head)?.method == "HEAD";
            bytes = if is_head { bytes } else { bytes.strip_prefix(b"seen").ok_or("a body")? };
            numbers.push(number);
        } else {
            let is_refusal = head[9..].starts_with(['4', '5']) && head.contains("Connection: close\r\n");
            let length: usize = field(&head, "content-length")
                .and_then(|text| text.parse().ok())
                .ok_or_else(|| head.clone())?;
            // To HEAD there is no body.
            return if is_refusal && (bytes.len() == length || bytes.is_empty()) {
                Ok(numbers)
            } else {
                Err(head)
            };
        }
    }
    Ok(numbers)
}

#[test]
fn whatever_is_accepted_is_forwarded_with_one_meaning() {
    let (upstream, log) = recorder();
    let gateway = Gateway::start(&all_to(&[upstream.address]));
    let settings = ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(settings, |(generated in generated())| {
        let first = generated.wire();
        let wire = [&first[..], b"GET /next HTTP/1.1\r\nHost: a\r\nX-Next: 1\r\n\r\n"].concat();
        let (before, faults) = {
            let log = log.lock().unwrap();
            (log.requests.len(), log.faults.len())
        };

        let mut cuts: Vec<usize> = generated.cuts.iter().map(|cut| cut.index(wire.len())).collect();
        cuts.sort_unstable();
        let mut client = gateway.connect();
        let mut from = 0;
        for cut in cuts.into_iter().chain([wire.len()]) {
            // A gateway that has refused may not take all of it.
            client.try_send(&wire[from..cut]);
            from = cut;
        }
        client.finish();
        let received = client.rest();

        let log = log.lock().unwrap();
        prop_assert!(log.faults.len() == faults, "{:?}", &log.faults[faults..]);
        let meant = meaning(&wire);
        let numbers = answers(&received, &log);
        prop_assert!(numbers.is_ok(), "{numbers:?} in {:?}", String::from_utf8_lossy(&received));
        let numbers = numbers.unwrap();
        let expected: Vec<usize> = (before..log.requests.len()).collect();
        prop_assert_eq!(&numbers, &expected, "each request an answer, in order");
        prop_assert!(numbers.len() <= meant.len(), "{:?} is not what was meant: {:?}", &log.requests[before..], meant);
        for (seen, meant) in log.requests[before..].iter().zip(&meant) {
            prop_assert_eq!(&seen.method, &meant.method);
            prop_assert_eq!(seen.framing, meant.framing);
            prop_assert_eq!(&seen.body, &meant.body);
            prop_assert_eq!(&seen.trailers, &meant.trailers);
            prop_assert_eq!(own_fields(seen), own_fields(meant));
            let is_plain = meant.target.starts_with('/') && !meant.target.contains(['%', '.', '\\', '|', '[', ']', '^']);
            if is_plain && !meant.target.contains("//") {
                prop_assert_eq!(&seen.target, &meant.target);
            }
        }
        if generated.is_good() {
            let served = if generated.closes() { 1 } else { 2 };
            prop_assert_eq!(numbers.len(), served, "{:?}", String::from_utf8_lossy(&received));
        }
    });
    // What the upstream still had in hand comes to light when its connections end.
    let served = log.lock().unwrap().requests.len();
    assert!(served > 100, "{served} requests were accepted");
    drop(gateway);
    let log = log.lock().unwrap();
    assert_eq!((log.requests.len(), &log.faults[..]), (served, &[][..]));
}

// ---- Responses ----

/// What must never be seen by anyone.
const POISON: &str = "HTTP/1.1 200 OK\r\nX-Id: poison\r\nContent-Length: 6\r\n\r\npoison";

/// A body that says whose it is with every byte.
fn body_of(id: &str, len: usize) -> String {
    format!("[{id}]").repeat(len / (id.len() + 2) + 1)[..len].to_owned()
}

/// How an upstream answers a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Sized,
    SizedLarge,
    InPieces,
    Chunked,
    UntilClose,
    ExcessBehindSized,
    ExcessBehindLarge,
    ExcessBehindFullBuffer,
    ExcessBehindChunked,
    ExcessInHttp10,
    ExcessByte,
    TwoResponses,
    LengthTooLong,
    LengthAndCoding,
    LengthTwice,
    ChunkSizeBroken,
    ChunkEndBroken,
    ChunkedCut,
    TrailerForbidden,
    NoAnswer,
    HeadCut,
    BodyReset,
    Interims,
    InterimFlood,
    InterimThenJunk,
    BodyOfNoContent,
    LengthOfNoContent,
    BodyOfNotModified,
    SwitchUnasked,
    JunkBefore,
    LineBefore,
    EarlyAnswer,
    Http10,
}

use Manner::*;

const MANNERS: &[Manner] = &[
    Sized,
    SizedLarge,
    InPieces,
    Chunked,
    UntilClose,
    ExcessBehindSized,
    ExcessBehindLarge,
    ExcessBehindFullBuffer,
    ExcessBehindChunked,
    ExcessInHttp10,
    ExcessByte,
    TwoResponses,
    LengthTooLong,
    LengthAndCoding,
    LengthTwice,
    ChunkSizeBroken,
    ChunkEndBroken,
    ChunkedCut,
    TrailerForbidden,
    NoAnswer,
    HeadCut,
    BodyReset,
    Interims,
    InterimFlood,
    InterimThenJunk,
    BodyOfNoContent,
    LengthOfNoContent,
    BodyOfNotModified,
    SwitchUnasked,
    JunkBefore,
    LineBefore,
    EarlyAnswer,
    Http10,
];

/// Answers `id` in this manner; to HEAD, all that would be a body is poison. `false` ends the connection.
fn misbehave(peer: &mut Peer, id: &str, is_head: bool, manner: Manner) -> bool {
    let ok = format!("HTTP/1.1 200 OK\r\nX-Id: {id}\r\n");
    let sized = |len: usize| format!("{ok}Content-Length: {len}\r\n\r\n{}", body_of(id, len));
    let chunked = |end: &str| {
        let all = body_of(id, 706);
        let chunks = [&all[..1], &all[1..6], &all[6..]];
        let chunks: String = chunks.map(|chunk| format!("{:x};x\r\n{chunk}\r\n", chunk.len())).concat();
        format!("{ok}Transfer-Encoding: chunked\r\n\r\n{chunks}{end}")
    };
    if is_head {
        let sent = match manner {
            NoAnswer => return false,
            Sized | SizedLarge | Chunked => format!("{ok}Content-Length: 500\r\n\r\n"),
            _ => format!("{ok}Content-Length: {}\r\n\r\n{POISON}", POISON.len()),
        };
        return peer.try_send(sent);
    }
    let (sent, lives) = match manner {
        Sized => (sized(100), true),
        SizedLarge => (sized(200_000), true),
        InPieces => {
            let whole = sized(40);
            return whole.as_bytes().chunks(7).all(|piece| peer.try_send(piece));
        }
        Chunked => (chunked("0\r\n\r\n"), true),
        UntilClose => (format!("{ok}\r\n{}", body_of(id, 3000)), false),
        Http10 => (format!("HTTP/1.0 200 OK\r\nX-Id: {id}\r\n\r\n{}", body_of(id, 3000)), false),
        ExcessBehindSized | TwoResponses => (sized(100) + POISON, true),
        ExcessByte => (sized(100) + "\r\n", true),
        ExcessBehindLarge => {
            // The body's last bytes come in one piece with the excess.
            let whole = sized(100_000);
            let (most, last) = whole.split_at(whole.len() - 10);
            return peer.try_send(most) && peer.try_send(last.to_owned() + POISON);
        }
        ExcessBehindFullBuffer => {
            // The response fills the receive buffer to its last byte.
            let head = sized(10_000).len() - 10_000;
            (sized(16 * 1024 - head) + POISON, true)
        }
        ExcessBehindChunked => (chunked("0\r\n\r\n") + POISON, true),
        ExcessInHttp10 => {
            let sent = sized(50)
                .replace("HTTP/1.1", "HTTP/1.0")
                .replace("\r\nX-Id", "\r\nConnection: keep-alive\r\nX-Id");
            (sent + POISON, true)
        }
        LengthTooLong => (sized(100)[..sized(100).len() - 1].to_owned(), false),
        LengthAndCoding => {
            (format!("{ok}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{POISON}"), true)
        }
        LengthTwice => (format!("{ok}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello{POISON}"), true),
        ChunkSizeBroken => (chunked("x\r\n\r\n") + POISON, true),
        ChunkEndBroken => (chunked("1\r\n[poison\r\n0\r\n\r\n") + POISON, true),
        ChunkedCut => (chunked("5\r\n"), false),
        TrailerForbidden => (chunked("0\r\nContent-Length: 0\r\n\r\n") + POISON, true),
        NoAnswer => return false,
        HeadCut => (ok[..ok.len() - 1].to_owned(), false),
        BodyReset => {
            let _ = peer.try_send(&sized(5000)[..300]);
            socket2::SockRef::from(&peer.stream).set_linger(Some(std::time::Duration::ZERO)).unwrap();
            return false;
        }
        Interims => {
            let early = format!("HTTP/1.1 103 Early\r\nX-Id: {id}\r\n\r\n");
            (format!("HTTP/1.1 100 Continue\r\n\r\n{early}{early}{}", sized(9)), true)
        }
        InterimFlood => (format!("HTTP/1.1 103 Early\r\nX-Id: {id}\r\n\r\n").repeat(17) + POISON, true),
        InterimThenJunk => {
            (format!("HTTP/1.1 103 Early\r\nX-Id: {id}\r\nContent-Length: 9\r\n\r\njunk {POISON}"), true)
        }
        BodyOfNoContent => (format!("HTTP/1.1 204 No Content\r\nX-Id: {id}\r\n\r\n{POISON}"), true),
        LengthOfNoContent => {
            (format!("HTTP/1.1 204 No Content\r\nX-Id: {id}\r\nContent-Length: 5\r\n\r\n"), true)
        }
        BodyOfNotModified => {
            let length = POISON.len();
            (
                format!(
                    "HTTP/1.1 304 Not Modified\r\nX-Id: {id}\r\nContent-Length: {length}\r\n\r\n{POISON}"
                ),
                true,
            )
        }
        SwitchUnasked => (
            format!("HTTP/1.1 101 Go\r\nX-Id: {id}\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n{POISON}"),
            true,
        ),
        JunkBefore => (format!("junk\r\n{}", sized(10)), true),
        LineBefore => (format!("\r\n{}", sized(10)), true),
        EarlyAnswer => (sized(100), true),
    };
    peer.try_send(sent) && lives
}

/// An upstream whose requests say how they are to be answered: `/id/manner`. It gives access to its open connections.
fn misbehaving() -> (Upstream, Arc<Mutex<HashMap<usize, TcpStream>>>) {
    let open: Arc<Mutex<HashMap<usize, TcpStream>>> = Arc::default();
    let shared = Arc::clone(&open);
    let upstream = Upstream::scripted(move |mut peer, number| {
        // An idle connection waits for longer than a test.
        peer.stream.set_read_timeout(None).unwrap();
        shared.lock().unwrap().insert(number, peer.stream.try_clone().unwrap());
        while let Some(head) = peer.try_head() {
            let mut parts = head.split([' ', '/']).filter(|part| !part.is_empty());
            let (method, id) = (parts.next().unwrap().to_owned(), parts.next().unwrap().to_owned());
            let manner = MANNERS[parts.next().unwrap().parse::<usize>().unwrap()];
            if manner != EarlyAnswer {
                support::request_body(&mut peer, &head);
            }
            if !misbehave(&mut peer, &id, method == "HEAD", manner) {
                break;
            }
            if manner == EarlyAnswer {
                support::request_body(&mut peer, &head);
            }
        }
        shared.lock().unwrap().remove(&number);
    });
    (upstream, open)
}

/// Reads the answer to the exchange `id`. `true` if another may follow on the connection.
fn own_answer(client: &mut Peer, id: &str, method: &str, version: &str) -> bool {
    let (head, status) = loop {
        let Some(head) = client.try_head() else {
            assert!(!String::from_utf8_lossy(&client.inbox).contains("poison"), "{id}: {:?}", client.inbox);
            return false;
        };
        let status: u16 = head[9..12].parse().unwrap();
        if let Some(said) = field(&head, "x-id") {
            assert_eq!(said, id, "another's head: {head}");
        } else {
            assert!(status == 100 || matches!(status, 502..=504), "{id}: {head}");
        }
        if status >= 200 {
            break (head, status);
        }
        assert_ne!(status, 101, "{id}");
    };
    let is_own = field(&head, "x-id").is_some();
    let (body, is_whole) = body(client, &head, method == "HEAD" || matches!(status, 204 | 304));
    let text = String::from_utf8_lossy(&body).into_owned();
    if is_own {
        let is_own = text == body_of(id, body.len());
        assert!(is_own, "{id}: another's body behind {head}: {}", text.chars().take(400).collect::<String>());
    } else if is_whole && method != "HEAD" {
        let problem: serde_json::Value =
            serde_json::from_str(&text).unwrap_or_else(|_| panic!("{id}: {text}"));
        assert_eq!(problem["status"], status);
    }
    let connection = field(&head, "connection");
    is_whole
        && if version == "1.0" {
            assert_eq!(field(&head, "transfer-encoding"), None, "{id}: {head}");
            connection.as_deref() == Some("keep-alive")
        } else {
            connection.as_deref() != Some("close")
        }
}

/// A response's body as far as it comes, and whether it is whole.
fn body(client: &mut Peer, head: &str, is_empty: bool) -> (Vec<u8>, bool) {
    if is_empty {
        return (Vec::new(), true);
    }
    if field(head, "transfer-encoding").is_some() {
        let mut body = Vec::new();
        loop {
            let Some(line) = client.try_until(b"\r\n") else { return (body, false) };
            let size =
                usize::from_str_radix(std::str::from_utf8(&line[..line.len() - 2]).unwrap(), 16).unwrap();
            let chunk = some(client, size + 2);
            body.extend_from_slice(&chunk[..chunk.len().min(size)]);
            if chunk.len() < size + 2 || size == 0 {
                return (body, chunk == b"\r\n");
            }
        }
    }
    let length: usize = field(head, "content-length").map_or(usize::MAX, |length| length.parse().unwrap());
    let body = some(client, length);
    let is_whole = body.len() == length;
    (body, is_whole)
}

/// So many bytes, or as many as come before the end.
fn some(client: &mut Peer, count: usize) -> Vec<u8> {
    let mut chunk = [0; 65536];
    while client.inbox.len() < count {
        match client.stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(more) => client.inbox.extend_from_slice(&chunk[..more]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
            Err(error) => panic!("nothing came: {error}"),
        }
    }
    let rest = client.inbox.split_off(count.min(client.inbox.len()));
    std::mem::replace(&mut client.inbox, rest)
}

/// A client that asks for exchanges of its own, several at once.
struct LeakClient {
    number: usize,
    address: SocketAddr,
    random: fastrand::Rng,
    peer: Option<Peer>,
    served: usize,
}

impl LeakClient {
    fn ask(&mut self, round: usize) {
        let mut peer =
            self.peer.take().unwrap_or_else(|| Peer::new(TcpStream::connect(self.address).unwrap()));
        let mut asked = Vec::new();
        let mut wire = String::new();
        for turn in 0..self.random.usize(1..4) {
            let id = format!("{}.{round}.{turn}", self.number);
            let manner = self.random.usize(0..MANNERS.len());
            // Half of the requests go well, so that connections are kept.
            let manner = if self.random.bool() { manner } else { manner % 4 };
            let (method, version, body) = match self.random.u8(0..5) {
                0 => ("HEAD", "1.1", "\r\n"),
                1 => ("POST", "1.1", "Content-Length: 4\r\n\r\nbody"),
                2 => ("PUT", "1.1", "Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"),
                3 => ("GET", "1.0", "Connection: keep-alive\r\n\r\n"),
                _ => ("GET", "1.1", "\r\n"),
            };
            wire += &format!("{method} /{id}/{manner} HTTP/{version}\r\nHost: a\r\n{body}");
            asked.push((id, method, version));
        }
        peer.try_send(&wire);
        for (id, method, version) in asked {
            if !own_answer(&mut peer, &id, method, version) {
                // Nothing comes behind an end, or behind an answer that announced one.
                assert_eq!(String::from_utf8_lossy(&peer.rest()), "");
                return;
            }
            self.served += 1;
        }
        assert!(peer.inbox.is_empty(), "{:?}", String::from_utf8_lossy(&peer.inbox));
        self.peer = Some(peer);
    }
}

/// Clients at the same time.
const CLIENTS: usize = 6;
/// How often all of them ask, in step.
const ROUNDS: usize = 150;

/// Runs clients in rounds against one misbehaving upstream; between rounds idle upstream connections say what no one asked
/// for.
fn nothing_leaks(pool: &str, seed: u64) {
    let (upstream, open) = misbehaving();
    let gateway = Gateway::start(&config(&format!(
        "[[cluster]]\nname = \"all\"\nendpoints = [{{ address = \"{}\" }}]\n{pool}\n\
         [[route]]\nname = \"all\"\ncluster = \"all\"",
        upstream.address
    )));
    let address = gateway.address();
    let barrier = Arc::new(Barrier::new(CLIENTS + 1));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let barrier = Arc::clone(&barrier);
            let mut client = LeakClient {
                number,
                address,
                random: fastrand::Rng::with_seed(seed + number as u64),
                peer: None,
                served: 0,
            };
            thread::spawn(move || {
                // Whoever fails goes on in step, so that nobody waits for it in vain.
                let mut failure = None;
                for round in 0..ROUNDS {
                    barrier.wait();
                    if failure.is_none() {
                        failure = catch_unwind(AssertUnwindSafe(|| client.ask(round))).err();
                    }
                    barrier.wait();
                }
                failure.map_or(client.served, |failure| resume_unwind(failure))
            })
        })
        .collect();
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..ROUNDS {
        barrier.wait();
        barrier.wait();
        let open = open.lock().unwrap();
        let chosen: Vec<&TcpStream> = open.values().filter(|_| random.bool()).collect();
        for mut stream in chosen.iter().copied() {
            let unasked = if random.bool() { POISON } else { "\r\n" };
            let _ = stream.write_all(unasked.as_bytes());
        }
        all_received(chosen);
    }
    let served: usize = clients.into_iter().map(|client| client.join().unwrap()).sum();
    assert!(served > CLIENTS * ROUNDS / 2, "{served} exchanges went well");
}

#[test]
fn no_response_leaks_into_another_exchange() {
    nothing_leaks("", 1);
}

#[test]
fn no_response_leaks_where_requests_wait_for_a_connection() {
    nothing_leaks(
        "pool = { max_connections = 2, queue = 100, queue_timeout = \"20s\" }",
        2 + std::env::var("SEED").map_or(0, |s| s.parse::<u64>().unwrap() * 100),
    );
}

#[test]
fn no_response_leaks_where_no_connection_is_kept() {
    nothing_leaks(
        "pool = { max_idle = 0 }",
        3 + std::env::var("SEED").map_or(0, |s| s.parse::<u64>().unwrap() * 100),
    );
}

/// Upstream connections that wait to answer `/0`, `/1` and so on, and the clients that asked.
fn asked(
    gateway: &Gateway,
    count: usize,
    method: &str,
    peers: &std::sync::mpsc::Receiver<(usize, Peer)>,
) -> Vec<(Peer, Peer)> {
    let clients: Vec<Peer> = (0..count)
        .map(|number| {
            let mut client = gateway.connect();
            client.send(format!("{method} /{number} HTTP/1.1\r\nHost: a\r\n\r\n"));
            client
        })
        .collect();
    let mut upstreams: Vec<(usize, Peer)> =
        (0..count).map(|_| peers.recv_timeout(PATIENCE).unwrap()).collect();
    upstreams.sort_by_key(|(number, _)| *number);
    clients.into_iter().zip(upstreams.into_iter().map(|(_, peer)| peer)).collect()
}

/// An upstream that hands its connections over when a request has come, with the number in its path.
fn handing_over() -> (Upstream, std::sync::mpsc::Receiver<(usize, Peer)>) {
    let (sender, receiver) = channel();
    let sender = Mutex::new(sender);
    let upstream = Upstream::scripted(move |mut peer, _| {
        let head = peer.head();
        let number = head.split(['/', ' ']).nth(2).unwrap().parse().unwrap();
        let _ = sender.lock().unwrap().send((number, peer));
    });
    (upstream, receiver)
}

/// Reads a refusal of the gateway's own, behind any interim responses.
fn assert_problem(client: &mut Peer, status: u16, kind: &str, what: &str) {
    let head = loop {
        let head = client.head();
        if !head.starts_with("HTTP/1.1 1") {
            break head;
        }
    };
    let response = client.body_of(head);
    assert_eq!(response.status, status, "{what}: {response:?}");
    let problem: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
    assert_eq!(problem["type"], format!("urn:ringgate:problem:{kind}"), "{what}");
}

/// Response heads that are refused, and by which problem type.
fn bad_heads() -> Vec<(Vec<u8>, &'static str)> {
    let mut all: Vec<(Vec<u8>, &'static str)> = Vec::new();
    let mut invalid = |wire: &[u8]| all.push((wire.to_vec(), "response-invalid"));
    for line in [
        &b"junk"[..],
        b" HTTP/1.1 200 OK",
        b"\r\nHTTP/1.1 200 OK",
        b"\nHTTP/1.1 200 OK",
        b"\0HTTP/1.1 200 OK",
        b"http/1.1 200 OK",
        b"HTTP/1.2 200 OK",
        b"HTTP/2 200",
        b"HTTP/2.0 200 OK",
        b"ICY 200 OK",
        b"HTTP/1.1 20 OK",
        b"HTTP/1.1 2000 OK",
        b"HTTP/1.1 099 OK",
        b"HTTP/1.1 600 OK",
        b"HTTP/1.1 999 OK",
        b"HTTP/1.1 -20 OK",
        b"HTTP/1.1 2x0 OK",
        b"HTTP/1.1  200 OK",
        b"HTTP/1.1\t200 OK",
        b"HTTP/1.1 200OK",
        b"HTTP/1.1 200 O\x00K",
        b"HTTP/1.1 200 O\x0bK",
        b"HTTP/1.1 200 O\rK",
        b"GET / HTTP/1.1",
    ] {
        invalid(&[line, b"\r\nContent-Length: 0\r\n\r\n"].concat());
    }
    for fields in [
        &b"Content-Length: 5\r\nContent-Length: 5"[..],
        b"Content-Length: 5\r\nContent-Length: 6",
        b"Content-Length: 5, 5",
        b"Content-Length: +5",
        b"Content-Length: -1",
        b"Content-Length: 0x5",
        b"Content-Length:",
        b"Content-Length: five",
        b"Content-Length: 18446744073709551616",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked, chunked",
        b"Transfer-Encoding: chunked, gzip",
        b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding: gzip",
        b"Transfer-Encoding: identity",
        b"Transfer-Encoding:",
        b"Transfer-Encoding: \x0bchunked",
        b"Connection: a b",
        b"X: y\r\n z",
        b"X: y\nZ: a",
        b"X: y\rZ: a",
        b"X : y",
        b": y",
        b"X",
        b"X\x00: y",
        b"X: \x00",
        b"X: \x7f",
        b"(X): y",
    ] {
        invalid(&[b"HTTP/1.1 200 OK\r\n", fields, b"\r\n\r\nhello"].concat());
    }
    invalid(b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
    invalid(b"HTTP/1.1 200 OK\nContent-Length: 0\n\n");
    invalid(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\n");
    invalid(b"HTTP/1.1 200 OK\r\nContent-Length: 0\n\r\n");
    invalid(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
    invalid(b"HTTP/1.1 101 Switching Protocols\r\n\r\n");
    invalid(b"HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\nhello");
    invalid(b"HTTP/1.1 103 Early\r\n\r\njunk\r\n\r\n");
    invalid("HTTP/1.1 103 Early\r\n\r\n".repeat(17).as_bytes());
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(101));
    let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(16 * 1024));
    all.push((many.into_bytes(), "response-head-too-large"));
    all.push((long.into_bytes(), "response-head-too-large"));
    all
}

/// Connections tried at once; fewer than wait in the upstream's backlog.
const BATCH: usize = 100;

#[test]
fn a_malformed_response_head_is_a_bad_gateway_wherever_it_is_cut() {
    let (upstream, peers) = handing_over();
    let gateway = Gateway::start(&all_to(&[upstream.address]));
    let bad = bad_heads();
    let cuts: Vec<(&[u8], &str, usize)> = bad
        .iter()
        .flat_map(|(wire, kind)| (0..wire.len()).map(move |cut| (&wire[..], *kind, cut)))
        .filter(|(wire, _, cut)| wire.len() < 500 || cut % 211 == 0)
        .collect();
    for batch in cuts.chunks(BATCH) {
        let mut pairs = asked(&gateway, batch.len(), "GET", &peers);
        for ((_, upstream), (wire, _, cut)) in pairs.iter_mut().zip(batch) {
            upstream.send(&wire[..*cut]);
        }
        all_received(pairs.iter().map(|(_, upstream)| &upstream.stream));
        for ((_, upstream), (wire, _, cut)) in pairs.iter_mut().zip(batch) {
            upstream.try_send([&wire[*cut..], POISON.as_bytes()].concat());
        }
        for ((client, upstream), (wire, kind, cut)) in pairs.iter_mut().zip(batch) {
            let what = format!("{:?} cut at {cut}", String::from_utf8_lossy(wire));
            assert_problem(client, 502, kind, &what);
            assert_eq!(upstream.rest(), b"", "the upstream's connection is closed");
        }
    }
}

#[test]
fn a_response_head_that_ends_early_is_a_bad_gateway() {
    let (upstream, peers) = handing_over();
    let gateway = Gateway::start(&all_to(&[upstream.address]));
    let wire = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
    for (number, (mut client, mut upstream)) in
        asked(&gateway, wire.len(), "GET", &peers).into_iter().enumerate()
    {
        upstream.send(&wire[..number]);
        drop(upstream);
        let kind = if number == 0 { "upstream-closed" } else { "response-truncated" };
        assert_problem(&mut client, 502, kind, &format!("ends at {number}"));
    }
}

#[test]
fn a_response_body_that_breaks_never_looks_complete() {
    let (upstream, peers) = handing_over();
    let gateway = Gateway::start(&all_to(&[upstream.address]));
    let chunked =
        |rest: &str| format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n{rest}");
    let sized = |rest: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{rest}");
    // Whether the upstream ends its side behind it.
    let cases = [
        (chunked("g\r\n"), "response-invalid", false),
        (chunked("5 \r\nhello\r\n"), "response-invalid", false),
        (chunked("5\nhello\r\n"), "response-invalid", false),
        (chunked("5\r\nhelloX\r\n"), "response-invalid", false),
        (chunked("5\r\nhello\n0\r\n\r\n"), "response-invalid", false),
        (chunked("0\r\n\n"), "response-invalid", false),
        (chunked("0\r\nContent-Length: 5\r\n\r\n"), "response-invalid", false),
        (chunked("0\r\nX\r\n\r\n"), "response-invalid", false),
        (chunked("0\r\n"), "response-truncated", true),
        (chunked("5\r\nhel"), "response-truncated", true),
        (chunked("5\r\nhello\r\n"), "response-truncated", true),
        (sized(""), "response-truncated", true),
        (sized("123456789"), "response-truncated", true),
    ];
    let cuts: Vec<(&(String, &str, bool), usize)> =
        cases.iter().flat_map(|case| (0..case.0.len()).map(move |cut| (case, cut))).collect();
    let mut told = 0;
    for batch in cuts.chunks(BATCH) {
        let mut pairs = asked(&gateway, batch.len(), "GET", &peers);
        for ((_, upstream), ((wire, ..), cut)) in pairs.iter_mut().zip(batch) {
            upstream.send(&wire[..*cut]);
        }
        all_received(pairs.iter().map(|(_, upstream)| &upstream.stream));
        for ((_, upstream), ((wire, _, ends), cut)) in pairs.iter_mut().zip(batch) {
            upstream
                .try_send([&wire.as_bytes()[*cut..], if *ends { b"" } else { POISON.as_bytes() }].concat());
            if *ends {
                upstream.finish();
            }
        }
        for ((client, upstream), ((wire, kind, _), cut)) in pairs.iter_mut().zip(batch) {
            let what = format!("{wire:?} cut at {cut}");
            let head = client.head();
            if head.starts_with("HTTP/1.1 200") {
                let (body, is_whole) = body(client, &head, false);
                assert!(!is_whole, "{what}: {:?}", String::from_utf8_lossy(&body));
                assert!(!String::from_utf8_lossy(&body).contains("poison"), "{what}");
            } else {
                let response = client.body_of(head);
                assert_eq!(response.status, 502, "{what}: {response:?}");
                assert!(
                    response.text().contains(&format!("urn:ringgate:problem:{kind}\"")),
                    "{what}: {response:?}"
                );
                told += 1;
            }
            assert_eq!(upstream.rest(), b"", "{what}: the upstream's connection is closed");
        }
    }
    assert!(told > 0);
}

/// What a client had sent of its next request when its first one had to be sent again was lost when more of it came.
#[test]
fn a_second_try_loses_nothing_of_the_next_request() {
    let (upstream, peers) = handing_over();
    let gateway = Gateway::start(&all_to(&[upstream.address]));
    let mut client = gateway.connect();
    client.send("GET /0 HTTP/1.1\r\nHost: a\r\n\r\n");
    let (_, mut first) = peers.recv_timeout(PATIENCE).unwrap();
    first.send(support::ok(b"zero"));
    assert_eq!(client.response().text(), "zero");
    // The kept connection takes the second request, and ends while a part of the third is here.
    client.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(first.head().starts_with("GET /1 "));
    let inner = "GET /9 HTTP/1.1\r\nHost: a\r\n\r\n";
    client.send(format!("POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", inner.len()));
    all_received([&client.stream]);
    drop(first);
    let (number, mut second) = peers.recv_timeout(PATIENCE).unwrap();
    assert_eq!(number, 1);
    client.send(inner);
    second.send(support::ok(b"one"));
    assert_eq!(client.response().text(), "one");
    let head = second.head();
    assert!(head.starts_with("POST /2 "), "{head}");
    assert_eq!(support::request_body(&mut second, &head), inner.as_bytes());
    second.send(support::ok(b"two"));
    assert_eq!(client.response().text(), "two");
}

#[test]
fn a_connection_is_kept_behind_every_kind_of_good_response() {
    let (upstream, _open) = misbehaving();
    let gateway = Gateway::start(&all_to(&[upstream.address]));
    let mut client = gateway.connect();
    for (turn, manner) in
        [Sized, SizedLarge, InPieces, Chunked, Interims, EarlyAnswer].into_iter().cycle().take(24).enumerate()
    {
        for method in ["GET", "HEAD"] {
            let id = format!("{turn}.{method}");
            let number =
                MANNERS.iter().position(|at| *at == if method == "HEAD" { Sized } else { manner }).unwrap();
            client.send(format!("{method} /{id}/{number} HTTP/1.1\r\nHost: a\r\n\r\n"));
            assert!(own_answer(&mut client, &id, method, "1.1"), "{manner:?}");
        }
    }
    assert_eq!(upstream.accepted(), 1);
}

/// Such an upstream may send the content that it speaks of.
#[test]
fn a_response_that_announces_content_where_there_is_none_ends_its_connection() {
    let (upstream, peers) = handing_over();
    let gateway = Gateway::start(&all_to(&[upstream.address]));
    for fields in ["Content-Length: 5", "Transfer-Encoding: chunked"] {
        let mut pairs = asked(&gateway, 1, "GET", &peers);
        let (client, upstream) = &mut pairs[0];
        upstream.send(format!("HTTP/1.1 204 No Content\r\n{fields}\r\n\r\n"));
        let head = client.head();
        assert!(head.starts_with("HTTP/1.1 204 "), "{head}");
        assert_eq!((field(&head, "content-length"), field(&head, "transfer-encoding")), (None, None));
        assert_eq!(upstream.rest(), b"");
    }
}
