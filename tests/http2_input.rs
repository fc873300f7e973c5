//! Whatever a client sends by HTTP/2, each stream shows itself as one request of HTTP/1 or as none, with nothing behind it; and a connection
//! comes to an end. Properties of the adapter, without sockets.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests run no data plane")]
#![allow(unreachable_pub, dead_code, reason = "modules of which this binary uses a part")]

#[path = "support/frames.rs"]
mod frames;
#[path = "support/memory.rs"]
mod memory;
mod support;

use frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, RST_STREAM, SETTINGS, WINDOW_UPDATE,
    block, frame, get, headers, pseudo, settings,
};
use memory::requests;
use proptest::prelude::*;

fn begun(rest: &[u8]) -> Vec<u8> {
    [&PREFACE[..], &settings(&[]), rest].concat()
}

#[test]
fn requests_come_as_they_are_sent() {
    let post = [
        headers(3, &pseudo("POST", "/b"), false),
        frame(DATA, 0, 3, b"some"),
        frame(DATA, END_STREAM, 3, b" more"),
    ]
    .concat();
    let sent = begun(&[get(1, "/a?b"), post].concat());
    for piece in [1, 2, 7, 100, 100_000] {
        let mut seen = requests(&sent, piece);
        seen.sort();
        let line = |text: &str, length| (text.to_owned(), length);
        assert_eq!(seen, [line("GET /a?b HTTP/1.1", 0), line("POST /b HTTP/1.1", 9)], "{piece} at a time");
    }
    assert!(requests(b"GET / HTTP/1.1\r\n\r\n", 100).is_empty());
    assert!(requests(&begun(&[]), 100).is_empty());
}

/// Text with what could split a head in it.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z:/ ?#%]{0,12}",
        Just("a\r\nb: c".to_owned()),
        Just("\r\n\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        Just("chunked".to_owned()),
        Just("5".to_owned()),
        Just("\0".to_owned()),
        Just("websocket".to_owned()),
    ]
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("content-length".to_owned()),
        Just("transfer-encoding".to_owned()),
        Just("connection".to_owned()),
        Just("host".to_owned()),
        Just("te".to_owned()),
        Just("cookie".to_owned()),
        Just("expect".to_owned()),
        Just("upgrade".to_owned()),
        Just(":path".to_owned()),
        Just(":protocol".to_owned()),
        Just(":authority".to_owned()),
        text(),
    ]
}

fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let stream = prop_oneof![Just(1u32), Just(3), Just(5), 0u32..8];
    let fields = proptest::collection::vec((name(), text()), 0..5);
    let method =
        prop_oneof![Just("GET"), Just("POST"), Just("CONNECT"), Just("OPTIONS"), Just("GET / HTTP/1.1\r\n")];
    let path = prop_oneof![Just("/".to_owned()), Just("*".to_owned()), text()];
    let head = (stream.clone(), method, path, fields, any::<bool>()).prop_map(
        |(stream, method, path, fields, ends)| {
            let mut all = pseudo(method, &path);
            all.extend(fields.iter().map(|(name, value)| (name.as_str(), value.as_str())));
            headers(stream, &all, ends)
        },
    );
    let data = (stream.clone(), proptest::collection::vec(any::<u8>(), 0..40), any::<bool>())
        .prop_map(|(stream, bytes, ends)| frame(DATA, u8::from(ends), stream, bytes));
    let odd = (0u8..12, any::<u8>(), stream.clone(), proptest::collection::vec(any::<u8>(), 0..20))
        .prop_map(|(kind, flags, stream, bytes)| frame(kind, flags, stream, bytes));
    let split = (stream.clone(), any::<prop::sample::Index>()).prop_map(|(stream, at)| {
        let block = block(&pseudo("POST", "/split"));
        let at = at.index(block.len() + 1);
        [
            frame(HEADERS, END_STREAM, stream, &block[..at]),
            frame(CONTINUATION, END_HEADERS, stream, &block[at..]),
        ]
        .concat()
    });
    let small = prop_oneof![
        stream.prop_map(|stream| frame(RST_STREAM, 0, stream, 8u32.to_be_bytes())),
        Just(frame(SETTINGS, 1, 0, [])),
        Just(frame(WINDOW_UPDATE, 0, 0, 1u32.to_be_bytes())),
    ];
    prop_oneof![6 => head, 4 => data, 1 => odd, 1 => split, 1 => small]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Frames of any kind in any order; `requests` panics at what would be a smuggled request.
    #[test]
    fn any_frames(frames in proptest::collection::vec(any_frame(), 0..12), piece in 1usize..200) {
        requests(&begun(&frames.concat()), piece);
    }

    /// The same with bytes changed.
    #[test]
    fn spoiled_frames(
        frames in proptest::collection::vec(any_frame(), 1..8),
        spoils in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut sent = begun(&frames.concat());
        for (at, byte) in spoils {
            let at = at.index(sent.len());
            sent[at] = byte;
        }
        requests(&sent, 100_000);
    }
}
