//! Bodies cut anywhere must decode as the whole does, and a naive reference decoder must agree.

use proptest::prelude::*;

use super::*;
use crate::http::field::FieldName;

/// Payload, bytes consumed, done, trailers.
type Outcome = Result<(Vec<u8>, usize, bool, Vec<u8>), ChunkError>;

/// Decodes `wire` in pieces of the lengths that `cuts` gives, the rest as one.
fn decode(wire: &[u8], cuts: impl IntoIterator<Item = usize>, limits: ChunkLimits) -> Outcome {
    let mut decoder = ChunkedDecoder::new(limits);
    let mut cuts = cuts.into_iter();
    let (mut payload, mut consumed) = (Vec::new(), 0);
    while !decoder.is_done() && consumed < wire.len() {
        let rest = &wire[consumed..];
        let mut piece = rest[..cuts.next().unwrap_or(rest.len()).min(rest.len())].to_vec();
        let decoded = decoder.decode(&mut piece)?;
        assert!(decoded.payload <= decoded.consumed);
        assert!(decoded.done || decoded.consumed == piece.len(), "bytes left over in the middle of a body");
        assert_eq!(decoded.done, decoder.is_done());
        assert_eq!(
            piece[decoded.consumed..],
            rest[decoded.consumed..piece.len()],
            "the next message was touched"
        );
        payload.extend_from_slice(&piece[..decoded.payload]);
        consumed += decoded.consumed;
    }
    Ok((payload, consumed, decoder.is_done(), decoder.trailers().to_vec()))
}

fn whole(wire: &[u8]) -> Outcome {
    decode(wire, [], ChunkLimits::default())
}

#[test]
fn good_bodies_decode_at_every_cut() {
    for (wire, payload, trailers) in [
        ("0\r\n\r\n", "", ""),
        ("5\r\nhello\r\n0\r\n\r\n", "hello", ""),
        ("5\r\nhello\r\n1\r\n!\r\n000\r\n\r\n", "hello!", ""),
        ("0000000000000003;a=b;c=\"d e\"\r\n\r\n\r\r\n0;x\r\n\r\n", "\r\n\r", ""),
        ("a\r\n0123456789\r\nB\r\n0123456789a\r\n0\r\n\r\n", "01234567890123456789a", ""),
        (
            "1\r\na\r\n0\r\nX:b\r\nX-Sum:  c d\t\r\nEmpty:\r\nEtag: x\r\n\r\n",
            "a",
            "X: b\r\nX-Sum: c d\r\nEmpty: \r\nEtag: x\r\n",
        ),
    ] {
        let followed = [wire.as_bytes(), b"GET / HTTP/1.1"].concat();
        let expected = Ok((payload.as_bytes().to_vec(), wire.len(), true, trailers.as_bytes().to_vec()));
        assert_eq!(whole(&followed), expected, "{wire:?}");
        assert_eq!(
            decode(&followed, std::iter::repeat(1), ChunkLimits::default()),
            expected,
            "{wire:?} byte by byte"
        );
        for cut in 1..wire.len() {
            assert_eq!(decode(&followed, [cut], ChunkLimits::default()), expected, "{wire:?} cut at {cut}");
            let (_, consumed, done, trailers) = whole(&wire.as_bytes()[..cut]).unwrap();
            assert_eq!((consumed, done, trailers.len()), (cut, false, 0), "{wire:?} ends at {cut}");
        }
    }
}

#[test]
fn refusals_at_every_cut() {
    use ChunkError::*;
    let long_extension = format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(300));
    let many_extensions = format!("1;{}\r\na\r\n", "x".repeat(200)).repeat(100);
    let many_trailers = format!("0\r\n{}\r\n", "a: b\r\n".repeat(65));
    let large_trailers = format!("0\r\na: {}\r\n\r\n", "b".repeat(9000));
    for (wire, error) in [
        ("\r\n", SizeInvalid),
        ("x\r\n", SizeInvalid),
        ("-1\r\n", SizeInvalid),
        ("+1\r\n", SizeInvalid),
        ("0x1\r\na\r\n", SizeInvalid),
        (" 1\r\na\r\n", SizeInvalid),
        ("1 \r\na\r\n", SizeInvalid),
        ("1\t;a\r\na\r\n", SizeInvalid),
        ("1_0\r\n", SizeInvalid),
        (";a\r\n", SizeInvalid),
        ("\n", SizeInvalid),
        ("1\0\r\na\r\n", SizeInvalid),
        ("10000000000000000\r\n", SizeTooLarge),
        ("00000000000000001\r\na\r\n", SizeTooLarge),
        ("ffffffffffffffff\r\n", SizeTooLarge),
        ("8000000000000000\r\n", SizeTooLarge),
        (&long_extension, LineTooLong),
        (&many_extensions, ExtensionsTooLarge),
        ("1;\0\r\na\r\n", ExtensionInvalid),
        ("1;a\x7f\r\na\r\n", ExtensionInvalid),
        ("1;\u{e9}\r\na\r\n", ExtensionInvalid),
        ("1\na\r\n", LineEnding),
        ("1;a\na\r\n", LineEnding),
        ("1\ra\r\n", LineEnding),
        ("1;a\rb\r\na\r\n", LineEnding),
        ("1\r\r\na\r\n", LineEnding),
        ("1\r\nab\r\n", DataEnding),
        ("1\r\na\n0\r\n\r\n", DataEnding),
        ("1\r\na\rb0\r\n\r\n", DataEnding),
        ("1\r\na0\r\n\r\n", DataEnding),
        ("2\r\na\r\n0\r\n\r\n", DataEnding),
        ("0\r\n\n", TrailerInvalid),
        ("0\r\n\ra", TrailerInvalid),
        ("0\r\na: b\n\r\n", TrailerInvalid),
        ("0\r\na: b\rc: d\r\n\r\n", TrailerInvalid),
        ("0\r\na : b\r\n\r\n", TrailerInvalid),
        ("0\r\n: b\r\n\r\n", TrailerInvalid),
        ("0\r\na\r\n\r\n", TrailerInvalid),
        ("0\r\na: b\r\n c\r\n\r\n", TrailerInvalid),
        ("0\r\na: \0\r\n\r\n", TrailerInvalid),
        ("0\r\na: \x7f\r\n\r\n", TrailerInvalid),
        ("0\r\nGET / HTTP/1.1\r\n\r\n", TrailerInvalid),
        (&many_trailers, TrailersTooMany),
        (&large_trailers, TrailersTooLarge),
    ] {
        refused(wire, error);
    }
    for name in [
        "Content-Length",
        "Transfer-Encoding",
        "Host",
        "Connection",
        "Trailer",
        "TE",
        "Upgrade",
        "Keep-Alive",
        "Authorization",
        "Proxy-Authorization",
        "WWW-Authenticate",
        "Cookie",
        "Set-Cookie",
        "Content-Type",
        "Content-Encoding",
        "Content-Range",
        "Expect",
        "Range",
        "If-Match",
        "Cache-Control",
        "Max-Forwards",
        "Forwarded",
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "X-Forwarded-Proto",
        "X-Request-Id",
        "Via",
        "Location",
    ] {
        refused(&format!("1\r\na\r\n0\r\nx: y\r\n{}: z\r\n\r\n", name.to_lowercase()), TrailerForbidden);
        refused(&format!("0\r\n{}:z\r\n\r\n", name.to_uppercase()), TrailerForbidden);
    }
}

fn refused(wire: &str, error: ChunkError) {
    let wire = wire.as_bytes();
    let shown = String::from_utf8_lossy(&wire[..wire.len().min(60)]);
    assert_eq!(whole(wire), Err(error), "{shown:?}");
    assert_eq!(
        decode(wire, std::iter::repeat(1), ChunkLimits::default()),
        Err(error),
        "{shown:?} byte by byte"
    );
    for cut in (1..wire.len()).step_by(wire.len().div_ceil(400)) {
        assert_eq!(decode(wire, [cut], ChunkLimits::default()), Err(error), "{shown:?} cut at {cut}");
        let ended = whole(&wire[..cut]);
        assert!(ended.is_err() || ended.is_ok_and(|(_, _, done, _)| !done), "{shown:?} complete at {cut}");
    }
}

#[test]
fn a_broken_body_stays_broken() {
    let mut decoder = ChunkedDecoder::new(ChunkLimits::default());
    assert_eq!(decoder.decode(&mut b"x".to_vec()), Err(ChunkError::SizeInvalid));
    assert_eq!(decoder.decode(&mut b"0\r\n\r\n".to_vec()), Err(ChunkError::SizeInvalid));
    assert_eq!(decoder.decode(&mut []), Err(ChunkError::SizeInvalid));
    assert!(!decoder.is_done());
}

#[test]
fn nothing_is_taken_after_the_end() {
    let mut decoder = ChunkedDecoder::new(ChunkLimits::default());
    let mut wire = b"0\r\n\r\n0\r\n\r\n".to_vec();
    assert_eq!(decoder.decode(&mut wire), Ok(Decoded { payload: 0, consumed: 5, done: true }));
    assert_eq!(decoder.decode(&mut wire[5..]), Ok(Decoded { payload: 0, consumed: 0, done: true }));
}

#[test]
fn limits_hold_to_the_byte() {
    let limits = ChunkLimits { line_bytes: 4, trailer_bytes: 12, trailers: 2 };
    assert!(decode(b"1;ab\r\na\r\n0\r\na: b\r\nc: d\r\n\r\n", [], limits).is_ok_and(|(_, _, done, _)| done));
    assert_eq!(decode(b"1;abc\r\n", [], limits), Err(ChunkError::LineTooLong));
    assert_eq!(decode(b"00000\r\n", [], limits), Err(ChunkError::LineTooLong));
    assert_eq!(decode(b"0\r\na: b\r\nc: de\r\n", [], limits), Err(ChunkError::TrailersTooLarge));
    assert_eq!(decode(b"0\r\na:\r\nc:\r\ne:\r\n", [], limits), Err(ChunkError::TrailersTooMany));
}

#[test]
fn extensions_are_paid_for_by_payload() {
    let chunk = format!("ff;{}\r\n{}\r\n", "x".repeat(200), "y".repeat(255));
    let wire = chunk.repeat(1000) + "0\r\n\r\n";
    assert!(whole(wire.as_bytes()).is_ok_and(|(payload, _, done, _)| done && payload.len() == 255_000));
}

#[test]
fn the_largest_chunk_is_begun() {
    let mut decoder = ChunkedDecoder::new(ChunkLimits::default());
    let mut wire = b"7fffffffffffffff\r\nab".to_vec();
    assert_eq!(decoder.decode(&mut wire), Ok(Decoded { payload: 2, consumed: 20, done: false }));
    assert_eq!(&wire[..2], b"ab");
}

#[test]
fn size_lines_lie_before_their_payload() {
    for (len, line) in
        [(1, "1\r\n"), (0x10, "10\r\n"), (0xbeef, "beef\r\n"), (usize::MAX, "ffffffffffffffff\r\n")]
    {
        let mut room = [0; CHUNK_HEADER_BYTES];
        let from = write_chunk_header(len, &mut room);
        assert_eq!(&room[from..], line.as_bytes());
        assert!(room[..from].iter().all(|byte| *byte == 0));
    }
}

/// A whole body, read the obvious way: `None` when it is broken or incomplete.
fn reference(wire: &[u8]) -> Option<(Vec<u8>, usize, Vec<u8>)> {
    let line = |from: usize| {
        let len = wire[from..].windows(2).position(|pair| pair == b"\r\n")?;
        let text = &wire[from..from + len];
        text.iter().all(|byte| *byte != b'\r' && *byte != b'\n').then_some((text, from + len + 2))
    };
    let (mut payload, mut at) = (Vec::new(), 0);
    loop {
        let (text, begin) = line(at)?;
        let mut parts = text.splitn(2, |byte| *byte == b';');
        let digits = std::str::from_utf8(parts.next()?).ok()?;
        let valid_digits =
            !digits.is_empty() && digits.len() <= 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let clean =
            parts.next().is_none_or(|rest| rest.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~')));
        if !valid_digits || !clean || text.len() > ChunkLimits::default().line_bytes {
            return None;
        }
        let size = usize::from_str_radix(digits, 16).ok()?;
        at = begin;
        if size == 0 {
            break;
        }
        payload.extend_from_slice(wire.get(at..at.checked_add(size)?)?);
        if wire.get(at + size..at + size + 2)? != b"\r\n" {
            return None;
        }
        at += size + 2;
    }
    let mut trailers = Vec::new();
    loop {
        let (text, next) = line(at)?;
        at = next;
        if text.is_empty() {
            return Some((payload, at, trailers));
        }
        let text = std::str::from_utf8(text).ok()?;
        let (name, value) = text.split_once(':')?;
        let valid_name = !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte));
        let valid_value = value.bytes().all(|byte| matches!(byte, b'\t' | b' '..=b'~'));
        if !valid_name || !valid_value || FieldName::recognise(name.as_bytes()).is_forbidden_in_trailers() {
            return None;
        }
        trailers.extend(format!("{name}: {}\r\n", value.trim_matches([' ', '\t'])).into_bytes());
    }
}

/// Pieces of bodies, most of them in an order that makes one.
fn bodies() -> impl Strategy<Value = Vec<u8>> {
    let chunk = ("[ -~\r\n]{1,20}", "(;[a-z=\" \t]{0,6})?")
        .prop_map(|(payload, extension)| format!("{:x}{extension}\r\n{payload}\r\n", payload.len()));
    let trailer = prop_oneof![5 => "[a-zA-Z-]{1,5}:[ \t]?[ -~]{0,5}\r\n", 1 => "Host: a\r\n", 1 => "[ -~\r\n]{0,4}\r\n"];
    let noise = prop_oneof![6 => Just(String::new()), 1 => "[0-9a-f;\r\n \0]{1,3}"];
    let chunks = proptest::collection::vec((chunk, noise), 0..5);
    let end = prop_oneof![5 => Just("0\r\n"), 1 => Just("00;x\r\n"), 1 => Just("0\n"), 1 => Just("")];
    (chunks, end, proptest::collection::vec(trailer, 0..3), "[a-z\r\n]{0,5}").prop_map(
        |(chunks, end, trailers, rest)| {
            let chunks: String = chunks.into_iter().flat_map(|(chunk, noise)| [chunk, noise]).collect();
            [&chunks, end, &trailers.concat(), "\r\n", &rest].concat().into_bytes()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn decoding_agrees_with_the_reference_however_it_is_cut(
        wire in bodies(),
        cuts in proptest::collection::vec(1_usize..12, 0..40),
    ) {
        let at_once = whole(&wire);
        prop_assert_eq!(&decode(&wire, cuts, ChunkLimits::default()), &at_once);
        let complete = at_once.ok().filter(|(_, _, done, _)| *done);
        let complete = complete.map(|(payload, consumed, _, trailers)| (payload, consumed, trailers));
        prop_assert_eq!(complete, reference(&wire));
    }

    #[test]
    fn any_bytes_are_decoded_or_refused(wire in proptest::collection::vec(any::<u8>(), 0..100), cut in 1_usize..100) {
        prop_assert_eq!(decode(&wire, [cut], ChunkLimits::default()), whole(&wire));
    }

    #[test]
    fn what_is_framed_is_decoded(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..600), 0..6)) {
        let mut wire = Vec::new();
        for chunk in &chunks {
            let mut room = [0; CHUNK_HEADER_BYTES];
            let from = write_chunk_header(chunk.len(), &mut room);
            wire.extend([&room[from..], chunk, CHUNK_END].concat());
        }
        wire.extend_from_slice(LAST_CHUNK);
        prop_assert_eq!(whole(&wire), Ok((chunks.concat(), wire.len(), true, Vec::new())));
    }
}
