//! What RFC 9113 and RFC 7541 ask of a server, section by section: what must be served, and by which error what must not. Each case is a
//! connection of its own, given as bytes. The results of the public suite stand in `docs/benchmarks.md`; this one is run with every
//! change.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests run no data plane")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(unreachable_pub, dead_code, reason = "modules of which this binary uses a part")]

#[path = "support/frames.rs"]
mod frames;
mod support;

use frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, INITIAL_WINDOW_SIZE, PING,
    PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE, block, frame, get, headers, pseudo, reset, settings,
    status, window,
};
use support::{Gateway, Upstream, all_to_with, ok};

/// Where a more specific code exists, `h2` says PROTOCOL_ERROR for some; no peer does otherwise for one than for the other.
const PROTOCOL: u32 = 1;
const FLOW_CONTROL: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE: u32 = 6;
const COMPRESSION: u32 = 9;

const PUSH_PROMISE: u8 = 5;
const PADDED: u8 = 8;
const PRIORITISED: u8 = 0x20;

/// What must come of a case.
enum Then {
    /// This stream is answered with 200.
    Served(u32),
    /// The connection ends with one of these codes.
    Ends(&'static [u32]),
    /// This stream, or the connection, ends with one of these codes.
    Fails(u32, &'static [u32]),
}
use Then::{Ends, Fails, Served};

type Case = (&'static str, &'static str, Vec<u8>, Then);

/// HEADERS of a request by this block.
fn by_block(stream: u32, block: impl AsRef<[u8]>) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, block)
}

/// A request with more fields.
fn with(more: &[(&'static str, &'static str)]) -> Vec<u8> {
    headers(1, &[&pseudo("GET", "/")[..], more].concat(), true)
}

/// A request of these fields only.
fn only(fields: &[(&'static str, &'static str)]) -> Vec<u8> {
    headers(1, fields, true)
}

fn post(stream: u32) -> Vec<u8> {
    headers(stream, &pseudo("POST", "/"), false)
}

fn data(stream: u32, bytes: impl AsRef<[u8]>) -> Vec<u8> {
    frame(DATA, END_STREAM, stream, bytes)
}

/// A setting and its value.
fn setting(id: u16, value: u32) -> Vec<u8> {
    settings(&[(id, value)])
}

/// The bytes behind which a connection must still serve: a request.
fn still(wire: Vec<u8>) -> Vec<u8> {
    [wire, get(1, "/")].concat()
}

fn all(parts: &[Vec<u8>]) -> Vec<u8> {
    parts.concat()
}

const CLOSED: &[u32] = &[STREAM_CLOSED, PROTOCOL];

/// Messages, and how they may be framed.
fn messages() -> Vec<Case> {
    let split = block(&pseudo("GET", "/"));
    let thirds = |first: u8| {
        let (a, rest) = split.split_at(5);
        let (b, c) = rest.split_at(5);
        all(&[
            frame(HEADERS, first, 1, a),
            frame(CONTINUATION, 0, 1, b),
            frame(CONTINUATION, END_HEADERS, 1, c),
        ])
    };
    let padded = [&[3][..], &split, &[0; 3]].concat();
    let prioritised = [&[0, 0, 0, 0, 15][..], &split].concat();
    let both = [&[2][..], &[0, 0, 0, 0, 15], &split, &[0; 2]].concat();
    vec![
        ("8.1", "a request without a body", get(1, "/"), Served(1)),
        ("8.1", "HEAD", headers(1, &pseudo("HEAD", "/"), true), Served(1)),
        ("8.1", "OPTIONS of the server", headers(1, &pseudo("OPTIONS", "*"), true), Served(1)),
        ("8.1", "a body in one frame", all(&[post(1), data(1, "some")]), Served(1)),
        ("8.1", "a body in several", all(&[post(1), frame(DATA, 0, 1, "some"), data(1, " more")]), Served(1)),
        (
            "8.1",
            "a body whose end is a frame of its own",
            all(&[post(1), frame(DATA, 0, 1, "some"), data(1, "")]),
            Served(1),
        ),
        (
            "8.1",
            "trailers",
            all(&[post(1), frame(DATA, 0, 1, "some"), headers(1, &[("x-sum", "1")], true)]),
            Served(1),
        ),
        ("8.1", "trailers without a body", all(&[post(1), headers(1, &[("x-sum", "1")], true)]), Served(1)),
        (
            "6.1",
            "DATA with padding",
            all(&[post(1), frame(DATA, PADDED | END_STREAM, 1, b"\x03some\0\0\0")]),
            Served(1),
        ),
        (
            "6.1",
            "DATA that is padding only",
            all(&[post(1), frame(DATA, PADDED, 1, b"\x03\0\0\0"), data(1, "x")]),
            Served(1),
        ),
        (
            "6.2",
            "HEADERS with padding",
            frame(HEADERS, END_HEADERS | END_STREAM | PADDED, 1, padded),
            Served(1),
        ),
        (
            "6.2",
            "HEADERS with a priority",
            frame(HEADERS, END_HEADERS | END_STREAM | PRIORITISED, 1, prioritised),
            Served(1),
        ),
        (
            "6.2",
            "HEADERS with both",
            frame(HEADERS, END_HEADERS | END_STREAM | PADDED | PRIORITISED, 1, both),
            Served(1),
        ),
        ("6.3", "PRIORITY of an idle stream", still(frame(PRIORITY, 0, 3, [0, 0, 0, 0, 15])), Served(1)),
        ("6.10", "a block in several frames", thirds(END_STREAM), Served(1)),
        ("4.2", "DATA of 16,384 bytes", all(&[post(1), data(1, vec![b'x'; 16_384])]), Served(1)),
        ("4.1", "a frame of an unknown type", still(frame(0x16, 0, 0, [0; 8])), Served(1)),
        ("4.1", "one of a stream", all(&[post(1), frame(0x16, 0xff, 1, [0; 8]), data(1, "")]), Served(1)),
        ("4.1", "flags that mean nothing", still(frame(PING, 0x16, 0, [0; 8])), Served(1)),
        ("4.1", "the bit that is reserved", still(frame(PING, 0, 1 << 31, [0; 8])), Served(1)),
        (
            "5.1",
            "PRIORITY of a stream that is closed",
            all(&[post(1), reset(1, 8), frame(PRIORITY, 0, 1, [0, 0, 0, 0, 15]), get(3, "/")]),
            Served(3),
        ),
        ("5.1", "RST_STREAM twice", all(&[post(1), reset(1, 8), reset(1, 8), get(3, "/")]), Served(3)),
        (
            "5.1",
            "WINDOW_UPDATE of a stream that is closed",
            all(&[post(1), reset(1, 8), window(1, 5), get(3, "/")]),
            Served(3),
        ),
        ("5.1.1", "numbers that are left out", all(&[get(101, "/")]), Served(101)),
        ("6.5", "a setting that is unknown", still(setting(0xff, 1)), Served(1)),
        (
            "6.5",
            "a setting twice",
            still(settings(&[(INITIAL_WINDOW_SIZE, 0), (INITIAL_WINDOW_SIZE, 1000)])),
            Served(1),
        ),
        ("6.5.2", "the largest window", still(setting(INITIAL_WINDOW_SIZE, 0x7fff_ffff)), Served(1)),
        ("6.5.2", "the largest frame", still(setting(5, 0x00ff_ffff)), Served(1)),
        ("6.5.2", "no push", still(setting(2, 0)), Served(1)),
        ("6.7", "an answer to no PING", still(frame(PING, ACK, 0, [0; 8])), Served(1)),
        ("6.9", "a window of the connection that grows", still(window(0, 1)), Served(1)),
        (
            "6.9.2",
            "a window that opens late",
            all(&[setting(INITIAL_WINDOW_SIZE, 0), get(1, "/"), window(1, 100)]),
            Served(1),
        ),
        (
            "6.9.2",
            "a window that was negative",
            all(&[
                setting(INITIAL_WINDOW_SIZE, 3),
                get(1, "/"),
                setting(INITIAL_WINDOW_SIZE, 0),
                window(1, 100),
            ]),
            Served(1),
        ),
        ("7", "RST_STREAM with an unknown code", all(&[post(1), reset(1, 0xff), get(3, "/")]), Served(3)),
        ("8.2.3", "cookies in crumbs", with(&[("cookie", "a=1"), ("cookie", "b=2")]), Served(1)),
        ("8.2.2", "TE of trailers", with(&[("te", "trailers")]), Served(1)),
        ("8.3.1", "Host beside an authority that is the same", with(&[("host", "a")]), Served(1)),
        (
            "8.3.1",
            "Host alone",
            only(&[(":method", "GET"), (":scheme", "http"), (":path", "/"), ("host", "a")]),
            Served(1),
        ),
    ]
}

/// Frames that make no sense.
fn frames_that_fail() -> Vec<Case> {
    let open = |rest: Vec<u8>| all(&[post(1), rest]);
    let ended = |rest: Vec<u8>| all(&[get(1, "/held"), rest]);
    let gone = |rest: Vec<u8>| all(&[post(1), reset(1, 8), rest]);
    let begun = |rest: Vec<u8>| all(&[frame(HEADERS, END_STREAM, 1, &block(&pseudo("GET", "/"))[..5]), rest]);
    let large = block(&[&pseudo("GET", "/")[..], &[("x-large", "x")]].concat());
    let large = [large, vec![0; 17_000]].concat();
    vec![
        ("4.2", "DATA beyond the size", open(data(1, vec![0; 16_385])), Ends(&[FRAME_SIZE, PROTOCOL])),
        ("4.2", "HEADERS beyond the size", by_block(1, large), Ends(&[FRAME_SIZE, PROTOCOL])),
        (
            "4.2",
            "SETTINGS beyond the size",
            frame(SETTINGS, 0, 0, vec![0; 6 * 3000]),
            Ends(&[FRAME_SIZE, PROTOCOL]),
        ),
        ("4.3", "PRIORITY within a block", begun(frame(PRIORITY, 0, 1, [0, 0, 0, 0, 15])), Ends(&[PROTOCOL])),
        ("4.3", "PING within a block", begun(frame(PING, 0, 0, [0; 8])), Ends(&[PROTOCOL])),
        ("4.3", "another stream within a block", begun(get(3, "/")), Ends(&[PROTOCOL])),
        (
            "4.3",
            "another stream's rest of a block",
            begun(frame(CONTINUATION, END_HEADERS, 3, "")),
            Ends(&[PROTOCOL]),
        ),
        ("5.5", "an unknown type within a block", begun(frame(0x16, 0, 0, [0; 8])), Ends(&[PROTOCOL])),
        ("5.1", "DATA of an idle stream", data(1, "x"), Ends(&[PROTOCOL])),
        ("5.1", "RST_STREAM of an idle stream", reset(1, 8), Ends(&[PROTOCOL])),
        ("5.1", "WINDOW_UPDATE of an idle stream", window(1, 1), Ends(&[PROTOCOL])),
        ("5.1", "CONTINUATION of an idle stream", frame(CONTINUATION, END_HEADERS, 1, ""), Ends(&[PROTOCOL])),
        ("5.1", "DATA behind a request's end", ended(data(1, "x")), Fails(1, CLOSED)),
        ("5.1", "HEADERS behind a request's end", ended(get(1, "/")), Fails(1, CLOSED)),
        (
            "5.1",
            "CONTINUATION behind a request's end",
            ended(frame(CONTINUATION, END_HEADERS, 1, "")),
            Ends(CLOSED),
        ),
        ("5.1", "CONTINUATION behind a reset", gone(frame(CONTINUATION, END_HEADERS, 1, "")), Ends(CLOSED)),
        ("5.1", "HEADERS behind a reset", gone(get(1, "/")), Fails(1, CLOSED)),
        ("5.1.1", "a server's number", get(2, "/"), Ends(&[PROTOCOL])),
        ("5.1.1", "a number that goes back", all(&[get(5, "/"), get(3, "/")]), Ends(&[PROTOCOL])),
        ("6.1", "DATA of no stream", data(0, "x"), Ends(&[PROTOCOL])),
        (
            "6.1",
            "padding as long as the frame",
            open(frame(DATA, PADDED | END_STREAM, 1, [5, 1, 2, 3, 4])),
            Ends(&[PROTOCOL]),
        ),
        (
            "6.1",
            "padding without its length",
            open(frame(DATA, PADDED | END_STREAM, 1, "")),
            Ends(&[PROTOCOL, FRAME_SIZE]),
        ),
        ("6.2", "HEADERS of no stream", by_block(0, block(&pseudo("GET", "/"))), Ends(&[PROTOCOL])),
        (
            "6.2",
            "HEADERS with too much padding",
            frame(HEADERS, END_HEADERS | END_STREAM | PADDED, 1, [9, 0x82]),
            Ends(&[PROTOCOL]),
        ),
        (
            "6.2",
            "HEADERS too short for a priority",
            frame(HEADERS, END_HEADERS | END_STREAM | PRIORITISED, 1, [0, 0]),
            Ends(&[PROTOCOL, FRAME_SIZE]),
        ),
        ("6.3", "PRIORITY of no stream", frame(PRIORITY, 0, 0, [0, 0, 0, 0, 15]), Ends(&[PROTOCOL])),
        (
            "6.3",
            "PRIORITY of another length",
            open(frame(PRIORITY, 0, 1, [0, 0, 0, 0])),
            Fails(1, &[FRAME_SIZE, PROTOCOL]),
        ),
        ("6.4", "RST_STREAM of no stream", reset(0, 8), Ends(&[PROTOCOL])),
        (
            "6.4",
            "RST_STREAM of another length",
            open(frame(RST_STREAM, 0, 1, [0; 3])),
            Ends(&[FRAME_SIZE, PROTOCOL]),
        ),
        ("6.5", "SETTINGS of a stream", frame(SETTINGS, 0, 1, ""), Ends(&[PROTOCOL])),
        ("6.5", "SETTINGS of another length", frame(SETTINGS, 0, 0, [0; 5]), Ends(&[FRAME_SIZE, PROTOCOL])),
        (
            "6.5",
            "an acknowledgement with content",
            frame(SETTINGS, ACK, 0, [0; 6]),
            Ends(&[FRAME_SIZE, PROTOCOL]),
        ),
        ("6.5.2", "push that is neither on nor off", setting(2, 2), Ends(&[PROTOCOL])),
        (
            "6.5.2",
            "a window that is too large",
            setting(INITIAL_WINDOW_SIZE, 1 << 31),
            Ends(&[FLOW_CONTROL, PROTOCOL]),
        ),
        ("6.5.2", "frames that are too small", setting(5, 16_383), Ends(&[PROTOCOL])),
        ("6.5.2", "frames that are too large", setting(5, 1 << 24), Ends(&[PROTOCOL])),
        ("6.6", "a client that pushes", frame(PUSH_PROMISE, END_HEADERS, 1, [0, 0, 0, 2]), Ends(&[PROTOCOL])),
        ("6.7", "PING of a stream", frame(PING, 0, 1, [0; 8]), Ends(&[PROTOCOL])),
        ("6.7", "PING that is too short", frame(PING, 0, 0, [0; 7]), Ends(&[FRAME_SIZE, PROTOCOL])),
        ("6.7", "PING that is too long", frame(PING, 0, 0, [0; 9]), Ends(&[FRAME_SIZE, PROTOCOL])),
        ("6.8", "GOAWAY of a stream", frame(GOAWAY, 0, 1, [0; 8]), Ends(&[PROTOCOL])),
        ("6.9", "WINDOW_UPDATE of nothing", window(0, 0), Ends(&[PROTOCOL])),
        ("6.9", "WINDOW_UPDATE of nothing for a stream", open(window(1, 0)), Fails(1, &[PROTOCOL])),
        (
            "6.9",
            "WINDOW_UPDATE of another length",
            frame(WINDOW_UPDATE, 0, 0, [0; 3]),
            Ends(&[FRAME_SIZE, PROTOCOL]),
        ),
        (
            "6.9.1",
            "a window of the connection beyond all",
            all(&[window(0, 0x7fff_ffff), window(0, 0x7fff_ffff)]),
            Ends(&[FLOW_CONTROL]),
        ),
        (
            "6.9.1",
            "a window of a stream beyond all",
            open(all(&[window(1, 0x7fff_ffff), window(1, 0x7fff_ffff)])),
            Fails(1, &[FLOW_CONTROL]),
        ),
        (
            "6.9.2",
            "a setting that makes a window too large",
            open(all(&[window(1, 0x7fff_0000), setting(INITIAL_WINDOW_SIZE, 0x7fff_ffff)])),
            Ends(&[FLOW_CONTROL]),
        ),
        (
            "6.10",
            "CONTINUATION behind a whole block",
            all(&[post(1), frame(CONTINUATION, END_HEADERS, 1, "")]),
            Ends(&[PROTOCOL]),
        ),
        (
            "6.10",
            "CONTINUATION behind DATA",
            open(all(&[frame(DATA, 0, 1, "x"), frame(CONTINUATION, END_HEADERS, 1, "")])),
            Ends(&[PROTOCOL]),
        ),
        (
            "6.10",
            "CONTINUATION of no stream",
            begun(frame(CONTINUATION, END_HEADERS, 0, "")),
            Ends(&[PROTOCOL]),
        ),
        ("6.10", "DATA within a block", begun(data(1, "x")), Ends(&[PROTOCOL])),
    ]
}

/// Requests that are malformed.
fn malformed() -> Vec<Case> {
    const MALFORMED: &[u32] = &[PROTOCOL];
    let (method, scheme, path, authority) =
        ((":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a"));
    let fails = |what, wire| ("8.1.1", what, wire, Fails(1, MALFORMED));
    let lengthy = |length: &'static str, parts: &[Vec<u8>]| {
        let head = headers(1, &[&pseudo("POST", "/")[..], &[("content-length", length)]].concat(), false);
        all(&[&[head], parts].concat())
    };
    vec![
        (
            "8.1",
            "a second head",
            all(&[post(1), headers(1, &[("x-sum", "1")], false), data(1, "x")]),
            Fails(1, MALFORMED),
        ),
        fails("a name in upper case", with(&[("X-Case", "1")])),
        fails("an empty name", with(&[("", "1")])),
        fails("a name with a space", with(&[("x y", "1")])),
        fails("a value with a line break", with(&[("x", "a\r\nb: c")])),
        fails("a value with NUL", with(&[("x", "a\0b")])),
        fails("an unknown pseudo field", with(&[(":test", "1")])),
        fails("a response's pseudo field", with(&[(":status", "200")])),
        fails("a pseudo field behind others", only(&[method, scheme, ("x", "1"), path, authority])),
        // `h2` leaves it out without a word, and so does what goes upstream.
        (
            "8.1",
            "a pseudo field in trailers",
            all(&[post(1), headers(1, &[(":method", "GET")], true)]),
            Served(1),
        ),
        fails("Connection", with(&[("connection", "keep-alive")])),
        fails("Keep-Alive", with(&[("keep-alive", "1")])),
        fails("Proxy-Connection", with(&[("proxy-connection", "keep-alive")])),
        fails("Transfer-Encoding", with(&[("transfer-encoding", "chunked")])),
        fails("Upgrade", with(&[("upgrade", "h2c")])),
        fails("TE of anything else", with(&[("te", "trailers, deflate")])),
        fails("no method", only(&[scheme, path, authority])),
        fails("no scheme", only(&[method, path, authority])),
        fails("no path", only(&[method, scheme, authority])),
        fails("an empty path", only(&[method, scheme, (":path", ""), authority])),
        fails("a path that is none", only(&[method, scheme, (":path", "a"), authority])),
        fails("a method twice", only(&[method, method, scheme, path, authority])),
        fails("a scheme twice", only(&[method, scheme, scheme, path, authority])),
        fails("a path twice", only(&[method, scheme, path, path, authority])),
        fails("an authority twice", only(&[method, scheme, path, authority, authority])),
        fails("a method with a space", only(&[(":method", "GET /"), scheme, path, authority])),
        fails("Host that is another", with(&[("host", "b")])),
        fails("a length that is more than comes", lengthy("5", &[data(1, "some")])),
        fails("a length that is less than comes", lengthy("1", &[data(1, "some")])),
        fails(
            "a length that several frames do not keep to",
            lengthy("1", &[frame(DATA, 0, 1, "so"), data(1, "me")]),
        ),
        fails(
            "a length and no body",
            headers(1, &[&pseudo("POST", "/")[..], &[("content-length", "1")]].concat(), true),
        ),
    ]
}

/// Fields in HPACK.
fn compressed() -> Vec<Case> {
    // `:method: GET`, `:scheme: http` and `:path: /` are in the static table.
    let indexed = [0x82, 0x86, 0x84];
    let authority = |first: u8| [&indexed[..], &[first, 1, b'a']].concat();
    let behind = |rest: &[u8]| [&authority(0x01), rest].concat();
    vec![
        ("7541 6.1", "indexed fields", by_block(1, behind(&[])), Served(1)),
        ("7541 6.2.1", "a literal to be remembered", by_block(1, authority(0x41)), Served(1)),
        (
            "7541 6.2.1",
            "and one that refers to it",
            all(&[
                setting(1, 4096),
                by_block(1, authority(0x41)),
                by_block(3, [&indexed[..], &[0xbe]].concat()),
            ]),
            Served(3),
        ),
        ("7541 6.2.2", "a literal that is not", by_block(1, authority(0x01)), Served(1)),
        ("7541 6.2.3", "a literal that never is", by_block(1, authority(0x11)), Served(1)),
        ("7541 6.2.2", "a name of its own", by_block(1, behind(&[0x00, 1, b'x', 1, b'y'])), Served(1)),
        ("7541 5.2", "Huffman's code", by_block(1, [&indexed[..], &[0x01, 0x81, 0x1f]].concat()), Served(1)),
        (
            "7541 4.2",
            "a table that becomes smaller",
            by_block(1, [&[0x20][..], &behind(&[])].concat()),
            Served(1),
        ),
        (
            "7541 2.3.3",
            "an index of nothing",
            by_block(1, behind(&[0xff, 0x80, 0x01])),
            Ends(&[COMPRESSION, PROTOCOL]),
        ),
        ("7541 6.1", "index zero", by_block(1, behind(&[0x80])), Ends(&[COMPRESSION, PROTOCOL])),
        (
            "7541 2.3.3",
            "a name of nothing",
            by_block(1, behind(&[0x7f, 0x80, 0x01, 1, b'x'])),
            Ends(&[COMPRESSION, PROTOCOL]),
        ),
        (
            "7541 4.2",
            "a table's size at the end",
            by_block(1, behind(&[0x20])),
            Ends(&[COMPRESSION, PROTOCOL]),
        ),
        (
            "7541 6.3",
            "a table beyond its limit",
            by_block(1, [&[0x3f, 0xe2, 0x3f][..], &behind(&[])].concat()),
            Ends(&[COMPRESSION, PROTOCOL]),
        ),
        (
            "7541 5.2",
            "padding of eight bits",
            by_block(1, behind(&[0x00, 0x81, 0xf3, 0x82, 0x1f, 0xff])),
            Ends(&[COMPRESSION, PROTOCOL]),
        ),
        (
            "7541 5.2",
            "padding of zeros",
            by_block(1, behind(&[0x00, 0x81, 0xf3, 0x81, 0x18])),
            Ends(&[COMPRESSION, PROTOCOL]),
        ),
        (
            "7541 5.2",
            "the end of a string within one",
            by_block(1, behind(&[0x00, 0x81, 0xf3, 0x84, 0xff, 0xff, 0xff, 0xff])),
            Ends(&[COMPRESSION, PROTOCOL]),
        ),
        (
            "7541 5.1",
            "a number without an end",
            by_block(1, behind(&[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f])),
            Ends(&[COMPRESSION, PROTOCOL]),
        ),
        (
            "7541 5.2",
            "a string longer than the block",
            by_block(1, behind(&[0x00, 5, b'x'])),
            Ends(&[COMPRESSION, PROTOCOL]),
        ),
        ("4.3", "a block that ends within a field", by_block(1, [0x40]), Ends(&[COMPRESSION, PROTOCOL])),
    ]
}

/// What came of a case: a status, a reset, or the connection's end, with their codes.
#[derive(Debug)]
enum Came {
    Status(u16),
    Reset(u32),
    Gone(Option<u32>),
}

fn outcome(frames: &mut Frames, stream: Option<u32>) -> Came {
    let mut code = None;
    let mut answered = None;
    while let Some(next) = frames.next() {
        match next.kind {
            GOAWAY => code = Some(next.number(4)),
            RST_STREAM if Some(next.stream) == stream => return Came::Reset(next.number(0)),
            HEADERS if Some(next.stream) == stream && answered.is_none() => {
                answered = Some(status(&next.payload))
            }
            _ => {}
        }
        if let Some(status) = answered
            && Some(next.stream) == stream
            && next.has(END_STREAM)
            && matches!(next.kind, HEADERS | DATA)
        {
            return Came::Status(status);
        }
    }
    Came::Gone(code)
}

fn is_as_it_should_be(then: &Then, came: &Came) -> bool {
    match (then, came) {
        (Served(_), Came::Status(200)) => true,
        (Ends(codes), Came::Gone(Some(code))) => codes.contains(code),
        (Fails(_, codes), Came::Reset(code) | Came::Gone(Some(code))) => codes.contains(code),
        _ => false,
    }
}

/// Runs all cases of a kind, and says which fail.
fn conforms(cases: Vec<Case>) {
    // `/held` is answered late, so that its stream stays open.
    let upstream = Upstream::scripted(|mut peer, _| {
        while let Some(head) = peer.try_head() {
            if head.starts_with("GET /held") {
                peer.rest();
                return;
            }
            support::request_body(&mut peer, &head);
            peer.try_send(if head.starts_with("HEAD") {
                b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n".to_vec()
            } else {
                ok(b"hello")
            });
        }
    });
    let gateway = Gateway::start(&all_to_with(upstream.address, "h2c = true", "", ""));
    let count = cases.len();
    let mut failed = Vec::new();
    for (section, what, wire, then) in cases {
        // What HPACK's table may hold is not restricted: some cases are about it.
        let mut peer = gateway.connect();
        peer.send([&frames::PREFACE[..], &settings(&[])].concat());
        let mut frames = Frames::beside(peer);
        frames.peer.try_send(wire);
        let stream = match then {
            Served(stream) | Fails(stream, _) => Some(stream),
            Ends(_) => None,
        };
        let came = outcome(&mut frames, stream);
        if !is_as_it_should_be(&then, &came) {
            failed.push(format!("§{section} {what}: {came:?}"));
        }
    }
    assert!(failed.is_empty(), "{} of {count} fail:\n{}", failed.len(), failed.join("\n"));
    assert_eq!(gateway.figure("panics"), 0);
}

#[test]
fn messages_are_served() {
    conforms(messages());
}

#[test]
fn frames_that_make_no_sense_are_errors() {
    conforms(frames_that_fail());
}

#[test]
fn malformed_requests_are_errors() {
    conforms(malformed());
}

#[test]
fn fields_are_decompressed() {
    conforms(compressed());
}

/// A case that comes out otherwise is found out.
#[test]
fn the_suite_can_fail() {
    assert!(!is_as_it_should_be(&Ends(&[PROTOCOL]), &Came::Gone(None)));
    assert!(!is_as_it_should_be(&Ends(&[PROTOCOL]), &Came::Gone(Some(COMPRESSION))));
    assert!(!is_as_it_should_be(&Ends(&[PROTOCOL]), &Came::Reset(PROTOCOL)));
    assert!(!is_as_it_should_be(&Fails(1, &[PROTOCOL]), &Came::Status(400)));
    assert!(!is_as_it_should_be(&Served(1), &Came::Status(400)));
}
