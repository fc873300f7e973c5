//! Raw bytes in, one head or one refusal out, wherever the bytes are cut.

use proptest::prelude::*;

use super::*;
use crate::http::field::FieldName;

fn parse(wire: &[u8], limits: &HeadLimits) -> Result<(Parsed, ResponseHead), ResponseError> {
    let mut head = ResponseHead::default();
    parse_response(wire, &mut 0, limits, &mut head).map(|parsed| (parsed, head))
}

fn good(wire: &str) -> ResponseHead {
    match parse(wire.as_bytes(), &HeadLimits::default()) {
        Ok((Parsed::Complete { head_len }, head)) if head_len == wire.len() => head,
        other => panic!("{other:?}: {wire:?}"),
    }
}

/// Asserts that the whole is refused as `error`, and that no cut is ever accepted, at once or continued.
fn refused(wire: &[u8], error: ResponseError, limits: &HeadLimits) {
    let shown = String::from_utf8_lossy(wire);
    assert_eq!(parse(wire, limits).err(), Some(error), "{shown:?}");
    for cut in 0..wire.len() {
        let mut head = ResponseHead::default();
        let mut scanned = 0;
        match parse_response(&wire[..cut], &mut scanned, limits, &mut head) {
            Ok(Parsed::Partial) => {
                let rest = parse_response(wire, &mut scanned, limits, &mut head);
                assert!(rest.is_err(), "{shown:?} continued at {cut}");
            }
            Ok(Parsed::Complete { .. }) => panic!("{shown:?} accepted when cut at {cut}"),
            Err(_) => {}
        }
    }
}

const GOOD: &[&str] = &[
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
    "HTTP/1.1 200 \r\n\r\n",
    "HTTP/1.1 200\r\nA: b\r\n\r\n",
    "HTTP/1.0 404 Not  Found\tat all \r\n\r\n",
    "HTTP/1.1 200 Gr\u{fc}n\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
    "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
];

#[test]
fn good_heads_are_partial_at_every_cut() {
    for wire in GOOD {
        let expected = good(wire);
        let followed = [wire.as_bytes(), b"\0\n\r rest"].concat();
        for cut in 0..wire.len() {
            let mut head = ResponseHead::default();
            let mut scanned = 0;
            let first =
                parse_response(&wire.as_bytes()[..cut], &mut scanned, &HeadLimits::default(), &mut head);
            assert_eq!(first, Ok(Parsed::Partial), "{wire:?} cut at {cut}");
            let rest = parse_response(&followed, &mut scanned, &HeadLimits::default(), &mut head);
            assert_eq!(rest, Ok(Parsed::Complete { head_len: wire.len() }), "{wire:?} continued at {cut}");
            assert_eq!((&head, scanned), (&expected, 0));
        }
    }
}

#[test]
fn status_lines_are_taken_apart() {
    let reason = |wire: &str| {
        let head = good(wire);
        (head.status, head.version, String::from_utf8(head.reason.bytes(wire.as_bytes()).to_vec()).unwrap())
    };
    assert_eq!(reason(GOOD[0]), (200, Version::Http11, "OK".to_owned()));
    assert_eq!(reason(GOOD[1]), (200, Version::Http11, String::new()));
    assert_eq!(reason(GOOD[2]), (200, Version::Http11, String::new()));
    assert_eq!(reason(GOOD[3]), (404, Version::Http10, "Not  Found\tat all ".to_owned()));
    assert_eq!(reason(GOOD[4]).2, "Gr\u{fc}n");
}

#[test]
fn refusals() {
    use ResponseError::*;
    for (wire, error) in [
        ("HTTP/1.1 200 OK\nA: b\r\n\r\n", BareLf),
        ("HTTP/1.1 200 OK\r\nA: b\n\r\n", BareLf),
        ("HTTP/1.1 200 OK\r\nA: b\r\n\n", BareLf),
        ("HTTP/1.1 200 OK\n\n", BareLf),
        ("HTTP/1.1 200\n\r\n", BareLf),
        ("HTTP/1.1 200 OK\rA: b\r\n\r\n", BareCr),
        ("HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n", BareCr),
        ("HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", ObsFold),
        ("HTTP/1.1 200 OK\r\nA : b\r\n\r\n", SpaceBeforeColon),
        ("HTTP/1.1 200 OK\r\n: b\r\n\r\n", FieldName),
        ("HTTP/1.1 200 OK\r\nA\r\n\r\n", FieldName),
        ("HTTP/1.1 200 OK\r\nA: \0\r\n\r\n", FieldValue),
        ("\r\nHTTP/1.1 200 OK\r\n\r\n", StatusLine),
        ("\nHTTP/1.1 200 OK\r\n\r\n", StatusLine),
        ("0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", StatusLine),
        ("HTTP/1.1 200 O\x01K\r\n\r\n", StatusLine),
        ("HTTP/1.1\t200 OK\r\n\r\n", StatusLine),
        ("ICY 200 OK\r\n\r\n", StatusLine),
        ("HTTP/1.1\r\n\r\n", StatusLine),
        ("HTTP/1.1  200 OK\r\n\r\n", Status),
        ("HTTP/1.1 20 OK\r\n\r\n", Status),
        ("HTTP/1.1 2000 OK\r\n\r\n", Status),
        ("HTTP/1.1 2x0 OK\r\n\r\n", Status),
        ("HTTP/1.1 099 OK\r\n\r\n", Status),
        ("HTTP/1.1 000 OK\r\n\r\n", Status),
        ("HTTP/1.1 600 OK\r\n\r\n", Status),
        ("HTTP/2.0 200 OK\r\n\r\n", Version),
        ("HTTP/1.2 200 OK\r\n\r\n", Version),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            ContentLengthWithTransferEncoding,
        ),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", ContentLengthRepeated),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n", ContentLengthRepeated),
        ("HTTP/1.1 204 OK\r\nContent-Length: x\r\n\r\n", ContentLengthInvalid),
        ("HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n", ContentLengthInvalid),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", TransferEncodingUnknown),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n", TransferEncodingInvalid),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            TransferEncodingInvalid,
        ),
        ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", TransferEncodingInHttp10),
        ("HTTP/1.1 200 OK\r\nConnection: a b\r\n\r\n", ConnectionInvalid),
    ] {
        refused(wire.as_bytes(), error, &HeadLimits::default());
    }
}

#[test]
fn limits_hold_to_the_byte() {
    let wire = b"HTTP/1.1 200 OK\r\nA: b\r\nC: d\r\n\r\n";
    let exact = HeadLimits { head_bytes: wire.len(), headers: 2, target_bytes: 0 };
    assert!(parse(wire, &exact).is_ok());
    refused(wire, ResponseError::HeadTooLarge, &HeadLimits { head_bytes: wire.len() - 1, ..exact });
    refused(wire, ResponseError::TooManyFields, &HeadLimits { headers: 1, ..exact });
}

#[test]
fn a_body_ends_as_the_rfc_says() {
    let body = |status: u16, fields: &str, method: Method| {
        good(&format!("HTTP/1.1 {status} x\r\n{fields}\r\n")).body(method)
    };
    let (sized, chunked) = ("Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n");
    for (status, fields, method, expected) in [
        (200, sized, Method::Get, ResponseBody::Exact(5)),
        (200, "Content-Length: 0\r\n", Method::Get, ResponseBody::Exact(0)),
        (200, chunked, Method::Get, ResponseBody::Chunked),
        (200, "", Method::Get, ResponseBody::UntilClose),
        (404, "", Method::Post, ResponseBody::UntilClose),
        (200, sized, Method::Head, ResponseBody::None),
        (200, chunked, Method::Head, ResponseBody::None),
        (200, "", Method::Head, ResponseBody::None),
        (100, "", Method::Post, ResponseBody::None),
        (103, sized, Method::Get, ResponseBody::None),
        (101, "", Method::Get, ResponseBody::None),
        (204, sized, Method::Get, ResponseBody::None),
        (304, sized, Method::Get, ResponseBody::None),
        (304, chunked, Method::Get, ResponseBody::None),
        (205, "", Method::Get, ResponseBody::UntilClose),
        (200, sized, Method::Connect, ResponseBody::None),
        (299, chunked, Method::Connect, ResponseBody::None),
        (407, sized, Method::Connect, ResponseBody::Exact(5)),
        (300, "", Method::Connect, ResponseBody::UntilClose),
    ] {
        assert_eq!(body(status, fields, method), expected, "{status} {fields:?} {method:?}");
    }
}

#[test]
fn the_connection_is_understood() {
    for (wire, keep_alive) in [
        ("HTTP/1.1 200 OK\r\n\r\n", true),
        ("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", false),
        ("HTTP/1.0 200 OK\r\n\r\n", false),
        ("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n", true),
        ("HTTP/1.1 204 x\r\nContent-Length: 0\r\n\r\n", true),
        ("HTTP/1.1 304 x\r\nContent-Length: 5\r\n\r\n", true),
        // A body may follow where none can: the connection is in doubt.
        ("HTTP/1.1 204 x\r\nContent-Length: 5\r\n\r\n", false),
        ("HTTP/1.1 204 x\r\nTransfer-Encoding: chunked\r\n\r\n", false),
    ] {
        assert_eq!(good(wire).keep_alive, keep_alive, "{wire:?}");
    }
    let head = good(GOOD[5]);
    assert_eq!(head.upgrade.map(|at| at.bytes(GOOD[5].as_bytes())), Some(&b"websocket"[..]));
    assert!(head.fields.iter().all(|field| field.hop));
    // A server that only says what it could speak does not change the protocol.
    assert_eq!(good("HTTP/1.1 426 x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n").upgrade, None);
    assert_eq!(good("HTTP/1.1 101 x\r\nUpgrade: websocket\r\n\r\n").upgrade, None);
}

#[test]
fn an_upstream_cannot_strip_what_framing_needs() {
    let head = good(
        "HTTP/1.1 200 OK\r\nConnection: content-length, set-cookie, x-a\r\nContent-Length: 1\r\nSet-Cookie: a\r\nX-A: b\r\n\r\n",
    );
    let hops: Vec<_> = head.fields.iter().filter(|field| field.hop).map(|field| field.name).collect();
    assert_eq!(hops, [FieldName::Connection, FieldName::Other]);
}

fn heads() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![9 => "HTTP/1\\.[01] [0-6][0-9]{2}( [ -~\t]{0,8})?", 1 => "[ -~]{0,20}"];
    let field = prop_oneof![
        6 => "[A-Za-z-]{1,8}:[ \t]?[ -~\t]{0,12}",
        2 => "Content-Length: ([0-9]{1,3}|[0-9, +]{0,4})",
        2 => "Transfer-Encoding: (chunked|gzip)",
        1 => "[ \t:]?[ -~\t\r\n\0]{0,12}",
    ];
    let ending = prop_oneof![40 => Just("\r\n"), 1 => Just("\n"), 1 => Just("\r")];
    (line, proptest::collection::vec((field, ending), 0..5)).prop_map(|(line, fields)| {
        let mut wire = format!("{line}\r\n");
        wire.extend(fields.into_iter().flat_map(|(field, ending)| [field, ending.to_owned()]));
        wire.push_str("\r\n");
        wire.into_bytes()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_accepted_or_refused(wire in proptest::collection::vec(any::<u8>(), 0..200), from in 0_usize..9) {
        let _ = parse(&wire, &HeadLimits::default());
        let begun = [&b"HTTP/1.1 200 "[..from], &wire].concat();
        let _ = parse(&begun, &HeadLimits::default());
    }

    #[test]
    fn what_is_accepted_means_the_same_when_written_again(wire in heads(), cut in 0_usize..60) {
        let Ok((Parsed::Complete { head_len }, head)) = parse(&wire, &HeadLimits::default()) else { return Ok(()) };
        let at = |extent: Extent| extent.bytes(&wire);
        let status = head.status.to_string();
        let mut again = [head.version.as_str().as_bytes(), b" ", status.as_bytes(), b" ", at(head.reason), b"\r\n"].concat();
        for field in &head.fields {
            again.extend([at(field.name_at), b": ", at(field.value_at), b"\r\n"].concat());
        }
        again.extend(b"\r\n");
        let (parsed, same) = parse(&again, &HeadLimits::default()).unwrap();
        prop_assert_eq!(parsed, Parsed::Complete { head_len: again.len() });
        prop_assert_eq!((same.status, same.version, same.content_length), (head.status, head.version, head.content_length));
        prop_assert_eq!((same.chunked, same.keep_alive, same.fields.len()), (head.chunked, head.keep_alive, head.fields.len()));
        prop_assert_eq!(at(head.reason), same.reason.bytes(&again));
        for (one, other) in head.fields.iter().zip(&same.fields) {
            prop_assert_eq!((one.name, one.hop, at(one.value_at)), (other.name, other.hop, other.value_at.bytes(&again)));
        }

        // And the same when it comes in two pieces.
        let cut = cut.min(head_len - 1);
        let (mut scanned, mut pieced) = (0, ResponseHead::default());
        prop_assert_eq!(parse_response(&wire[..cut], &mut scanned, &HeadLimits::default(), &mut pieced), Ok(Parsed::Partial));
        let rest = parse_response(&wire, &mut scanned, &HeadLimits::default(), &mut pieced);
        prop_assert_eq!(rest, Ok(Parsed::Complete { head_len }));
        prop_assert_eq!(pieced, head);
    }
}
