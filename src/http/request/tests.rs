//! Raw bytes in, one head or one refusal out, wherever the bytes are cut.

use proptest::prelude::*;

use super::*;

/// A head's length and content, or its refusal.
type Outcome = Result<(usize, RequestHead), RequestError>;

/// Parses all of it at once.
fn whole(wire: &[u8], limits: &HeadLimits) -> Outcome {
    let mut head = RequestHead::default();
    match parse_request(wire, &mut 0, limits, &mut head)? {
        Parsed::Complete { head_len } => Ok((head_len, head)),
        Parsed::Partial => panic!("partial: {:?}", String::from_utf8_lossy(wire)),
    }
}

fn good(wire: &str) -> RequestHead {
    match whole(wire.as_bytes(), &HeadLimits::default()) {
        Ok((head_len, head)) => {
            assert_eq!(head_len, wire.len());
            head
        }
        Err(error) => panic!("{error:?}: {wire:?}"),
    }
}

/// Feeds growing prefixes, `step` bytes at a time, with one `scanned`; the head or the refusal, and how many bytes
/// had come.
fn trickle(wire: &[u8], first: usize, step: usize, limits: &HeadLimits) -> Option<(usize, Outcome)> {
    let mut head = RequestHead::default();
    let mut scanned = 0;
    let mut end = first.min(wire.len());
    loop {
        match parse_request(&wire[..end], &mut scanned, limits, &mut head) {
            Ok(Parsed::Complete { head_len }) => return Some((end, Ok((head_len, head)))),
            Err(error) => return Some((end, Err(error))),
            Ok(Parsed::Partial) if end == wire.len() => return None,
            Ok(Parsed::Partial) => end = (end + step).min(wire.len()),
        }
    }
}

/// Asserts that the whole is refused as `error`, and that no cut, at once or trickling, is ever accepted.
fn refused(wire: &[u8], error: RequestError, limits: &HeadLimits) {
    let shown = String::from_utf8_lossy(wire);
    assert_eq!(whole(wire, limits).err(), Some(error), "{shown:?}");
    for cut in 0..wire.len() {
        let mut head = RequestHead::default();
        let mut scanned = 0;
        let cut_result = parse_request(&wire[..cut], &mut scanned, limits, &mut head);
        assert!(!matches!(cut_result, Ok(Parsed::Complete { .. })), "{shown:?} accepted when cut at {cut}");
        if cut_result.is_ok() {
            let rest = parse_request(wire, &mut scanned, limits, &mut head);
            assert!(rest.is_err(), "{shown:?} not refused when continued at {cut}");
        }
        let (_, result) =
            trickle(wire, cut, 1, limits).unwrap_or_else(|| panic!("{shown:?} from {cut}: no end"));
        assert!(result.is_err(), "{shown:?} accepted byte by byte from {cut}");
    }
}

const GOOD: &[&str] = &[
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /a/b?c=d HTTP/1.1\r\nHost: example.com:8080\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\r\n",
    "GET / HTTP/1.0\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nHOST:a\r\nx:\r\ny: \t \r\nz:\t \x09b c\t \r\n\r\n",
    "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
    "!#$%&'*+-.^_`|~09azAZ http://[::1]:80?q HTTP/1.1\r\nHost: other\r\n\r\n",
    "POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: Chunked\r\nTE: trailers\r\nConnection: TE, close\r\n\r\n",
    "POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\nexpect: 100-Continue\r\n\r\n",
    "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n",
];

#[test]
fn good_heads_are_partial_at_every_cut() {
    for wire in GOOD {
        let expected = good(wire);
        let followed = [wire.as_bytes(), b"\0\n\r rest"].concat();
        assert_eq!(whole(&followed, &HeadLimits::default()), Ok((wire.len(), expected.clone())));
        for cut in 0..wire.len() {
            let mut head = RequestHead::default();
            let mut scanned = 0;
            let first =
                parse_request(&wire.as_bytes()[..cut], &mut scanned, &HeadLimits::default(), &mut head);
            assert_eq!(first, Ok(Parsed::Partial), "{wire:?} cut at {cut}");
            let rest = parse_request(&followed, &mut scanned, &HeadLimits::default(), &mut head);
            assert_eq!(rest, Ok(Parsed::Complete { head_len: wire.len() }), "{wire:?} continued at {cut}");
            assert_eq!((&head, scanned), (&expected, 0));
            let (end, result) = trickle(wire.as_bytes(), cut, 1, &HeadLimits::default()).unwrap();
            assert_eq!(end, wire.len());
            assert_eq!(result, Ok((wire.len(), expected.clone())));
        }
    }
}

#[test]
fn refusals_of_lines_and_names() {
    use RequestError::*;
    for (wire, error) in [
        ("GET / HTTP/1.1\nHost: a\r\n\r\n", BareLf),
        ("GET / HTTP/1.1\r\nHost: a\n\r\n", BareLf),
        ("GET / HTTP/1.1\r\nHost: a\r\n\n", BareLf),
        ("GET / HTTP/1.1\r\nHost: a\n\n", BareLf),
        ("GET / HTTP/1.1\r\nHost:\na\r\n\r\n", BareLf),
        ("GET / HTTP/1.1\n\nGET /b HTTP/1.1\r\n\r\n", BareLf),
        ("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", BareLf),
        ("\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", BareCr),
        ("GET / HTTP/1.1\rHost: a\r\n\r\n", BareCr),
        ("GET / HTTP/1.1\r\nHost: a\rb: c\r\n\r\n", BareCr),
        ("GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", BareCr),
        ("GET / HTTP/1.1\r\nHost: a\r\n\rb", BareCr),
        ("GET / HTTP/1.1\r\nHo\rst: a\r\n\r\n", BareCr),
        ("GET /\r HTTP/1.1\r\nHost: a\r\n\r\n", BareCr),
        ("GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n", ObsFold),
        ("GET / HTTP/1.1\r\nHost: a\r\n\tb: c\r\n\r\n", ObsFold),
        ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", ObsFold),
        ("GET / HTTP/1.1\r\nHost: a\r\n \r\n\r\n", ObsFold),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", SpaceBeforeColon),
        ("GET / HTTP/1.1\r\nHost\t: a\r\n\r\n", SpaceBeforeColon),
        ("GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", FieldName),
        ("GET / HTTP/1.1\r\nHost: a\r\nb\r\n\r\n", FieldName),
        ("GET / HTTP/1.1\r\nHost: a\r\nb c: d\r\n\r\n", FieldName),
        ("GET / HTTP/1.1\r\nHost: a\r\n\"b\": c\r\n\r\n", FieldName),
        ("GET / HTTP/1.1\r\nHost: a\r\nb\u{e9}: c\r\n\r\n", FieldName),
        ("GET / HTTP/1.1\r\nHost: a\r\nb\0: c\r\n\r\n", FieldName),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length\x0b: 5\r\n\r\n", FieldName),
        ("GET / HTTP/1.1\r\nHost: a\r\nb: \0\r\n\r\n", FieldValue),
        ("GET / HTTP/1.1\r\nHost: a\r\nb: c\x01d\r\n\r\n", FieldValue),
        ("GET / HTTP/1.1\r\nHost: a\r\nb: c\x7f\r\n\r\n", FieldValue),
        ("GET / HTTP/1.1\r\nHost: a\x0b\r\n\r\n", FieldValue),
    ] {
        refused(wire.as_bytes(), error, &HeadLimits::default());
    }
}

#[test]
fn refusals_of_request_lines() {
    use RequestError::*;
    for (line, error) in [
        ("\r\n\r\nGET / HTTP/1.1", RequestLine),
        (" GET / HTTP/1.1", RequestLine),
        ("GET  / HTTP/1.1", RequestLine),
        ("GET /  HTTP/1.1", RequestLine),
        ("GET / HTTP/1.1 ", RequestLine),
        ("GET\t/ HTTP/1.1", RequestLine),
        ("GET /\tHTTP/1.1", RequestLine),
        ("GET /", RequestLine),
        ("GET", RequestLine),
        ("GET / a HTTP/1.1", RequestLine),
        ("GET / HTTP/1.", RequestLine),
        ("GET / HTTP/1.10", RequestLine),
        ("GET / http/1.1", RequestLine),
        ("GET / HTTP/1,1", RequestLine),
        ("GET / XTTP/1.1", RequestLine),
        ("G(T / HTTP/1.1", RequestLine),
        ("G\0T / HTTP/1.1", RequestLine),
        ("GET /\0 HTTP/1.1", RequestLine),
        ("GET /\x7f HTTP/1.1", RequestLine),
        ("\x16\x03\x01\x02\x00\x01\x00\x01\u{fc}\x03", RequestLine),
        ("ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG / HTTP/1.1", Method),
        ("GET / HTTP/1.2", Version),
        ("GET / HTTP/2.0", Version),
        ("GET /\" HTTP/3.0", Version),
        ("GET / a HTTP/2.0", RequestLine),
        ("GET / HTTP/0.9", Version),
        ("PRI * HTTP/2.0", Version),
    ] {
        refused(format!("{line}\r\nHost: a\r\n\r\n").as_bytes(), error, &HeadLimits::default());
    }
}

#[test]
fn refusals_of_targets() {
    use RequestError::*;
    for (line, error) in [
        ("GET /a#b", TargetInvalid),
        ("GET /?a#b", TargetInvalid),
        ("GET /a\"b", TargetInvalid),
        ("GET /a<b", TargetInvalid),
        ("GET /?a<b", TargetInvalid),
        ("GET /a{b", TargetInvalid),
        ("GET /a`b", TargetInvalid),
        ("GET /\u{e9}", TargetInvalid),
        ("GET /?\u{e9}", TargetInvalid),
        ("GET /%2", TargetInvalid),
        ("GET /%zz", TargetInvalid),
        ("GET *", TargetInvalid),
        ("GET a.example/b", TargetInvalid),
        ("GET a:443", TargetInvalid),
        ("GET ftp://a/", TargetInvalid),
        ("GET http:///a", TargetInvalid),
        ("GET http://a b", RequestLine),
        ("GET http://a:99999/", TargetInvalid),
        ("OPTIONS *a", TargetInvalid),
        ("CONNECT /", TargetInvalid),
        ("CONNECT a", TargetInvalid),
        ("CONNECT *", TargetInvalid),
        ("GET http://user@a/", Userinfo),
        ("GET http://user:word@a/", Userinfo),
        ("CONNECT user@a:443", Userinfo),
    ] {
        refused(format!("{line} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes(), error, &HeadLimits::default());
    }
}

#[test]
fn refusals_of_hosts_and_framing() {
    use RequestError::*;
    for (fields, error) in [
        ("", HostMissing),
        ("X-Host: a\r\n", HostMissing),
        ("Host: a\r\nHost: a\r\n", HostRepeated),
        ("Host: a\r\nX: y\r\nhOST: b\r\n", HostRepeated),
        ("Host:\r\n", HostInvalid),
        ("Host: a b\r\n", HostInvalid),
        ("Host: a, b\r\n", HostInvalid),
        ("Host: a/b\r\n", HostInvalid),
        ("Host: user@a\r\n", HostInvalid),
        ("Host: a:b\r\n", HostInvalid),
        ("Host: a:\r\n", HostInvalid),
        ("Host: [::1\r\n", HostInvalid),
        ("Host: \u{e9}\r\n", HostInvalid),
        ("Host: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n", ContentLengthWithTransferEncoding),
        ("Host: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n", ContentLengthWithTransferEncoding),
        ("Host: a\r\nTransfer-Encoding: x\r\nContent-Length: 0\r\n", ContentLengthWithTransferEncoding),
        ("Host: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n", ContentLengthRepeated),
        ("Host: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n", ContentLengthRepeated),
        ("Host: a\r\nContent-Length: 5, 5\r\n", ContentLengthRepeated),
        ("Host: a\r\nContent-Length: 5,\r\n", ContentLengthRepeated),
        ("Host: a\r\nContent-Length:\r\n", ContentLengthInvalid),
        ("Host: a\r\nContent-Length: +5\r\n", ContentLengthInvalid),
        ("Host: a\r\nContent-Length: -5\r\n", ContentLengthInvalid),
        ("Host: a\r\nContent-Length: 0x5\r\n", ContentLengthInvalid),
        ("Host: a\r\nContent-Length: 5 5\r\n", ContentLengthInvalid),
        ("Host: a\r\nContent-Length: 18446744073709551616\r\n", ContentLengthInvalid),
        ("Host: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", TransferEncodingInvalid),
        ("Host: a\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", TransferEncodingInvalid),
        ("Host: a\r\nTransfer-Encoding: chunked, chunked\r\n", TransferEncodingInvalid),
        ("Host: a\r\nTransfer-Encoding: chunked, gzip\r\n", TransferEncodingInvalid),
        ("Host: a\r\nTransfer-Encoding:\r\n", TransferEncodingInvalid),
        ("Host: a\r\nTransfer-Encoding: chunked;q=1\r\n", TransferEncodingInvalid),
        ("Host: a\r\nTransfer-Encoding: \"chunked\"\r\n", TransferEncodingInvalid),
        ("Host: a\r\nTransfer-Encoding: gzip\r\n", TransferEncodingUnknown),
        ("Host: a\r\nTransfer-Encoding: gzip, chunked\r\n", TransferEncodingUnknown),
        ("Host: a\r\nTransfer-Encoding: xchunked\r\n", TransferEncodingUnknown),
        ("Host: a\r\nTransfer-Encoding: identity\r\n", TransferEncodingUnknown),
        ("Host: a\r\nConnection: a b\r\n", ConnectionInvalid),
        ("Host: a\r\nConnection: close;x\r\n", ConnectionInvalid),
        ("Host: a\r\nExpect: 200-ok\r\n", ExpectationUnknown),
        ("Host: a\r\nExpect: 100-continue, x\r\n", ExpectationUnknown),
        ("Host: a\r\nExpect: 100-continue\r\nExpect: x\r\n", ExpectationUnknown),
    ] {
        refused(format!("POST / HTTP/1.1\r\n{fields}\r\n").as_bytes(), error, &HeadLimits::default());
    }
    let many = format!("POST / HTTP/1.1\r\nHost: a\r\nConnection: {}\r\n\r\n", "a,".repeat(65));
    assert_eq!(whole(many.as_bytes(), &HeadLimits::default()).err(), Some(ConnectionInvalid));
    let old = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
    refused(old.as_bytes(), TransferEncodingInHttp10, &HeadLimits::default());
    for lines in ["Content-Length: 1", "Transfer-Encoding: chunked"] {
        let connect = format!("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n{lines}\r\n\r\n");
        refused(connect.as_bytes(), ContentInConnect, &HeadLimits::default());
    }
    let absolute = "GET http://a/ HTTP/1.1\r\n\r\n";
    refused(absolute.as_bytes(), HostMissing, &HeadLimits::default());
    let absolute = "GET http://a/ HTTP/1.1\r\nHost: ?\r\n\r\n";
    refused(absolute.as_bytes(), HostInvalid, &HeadLimits::default());
}

#[test]
fn limits_hold_to_the_byte() {
    let wire = b"GET /0123456789 HTTP/1.1\r\nHost: a\r\nA: b\r\n\r\n";
    let exact = HeadLimits { head_bytes: wire.len(), headers: 2, target_bytes: 11 };
    assert!(whole(wire, &exact).is_ok());
    assert!(whole(&[&wire[..], b"GET / HTTP/1.1"].concat(), &exact).is_ok());
    refused(wire, RequestError::HeadTooLarge, &HeadLimits { head_bytes: wire.len() - 1, ..exact });
    refused(wire, RequestError::TooManyFields, &HeadLimits { headers: 1, ..exact });
    refused(wire, RequestError::TargetTooLong, &HeadLimits { target_bytes: 10, ..exact });
    refused(wire, RequestError::TargetTooLong, &HeadLimits { head_bytes: 20, target_bytes: 1000, ..exact });
    refused(wire, RequestError::TargetTooLong, &HeadLimits { head_bytes: 30, target_bytes: 10, ..exact });
    refused(wire, RequestError::TargetTooLong, &HeadLimits { head_bytes: 0, ..exact });
}

#[test]
fn a_head_without_end_is_refused_as_soon_as_the_limit_is_reached() {
    let limits = HeadLimits { head_bytes: 100, ..HeadLimits::default() };
    let endless_fields = format!("GET / HTTP/1.1\r\nHost: {}", "a".repeat(200));
    let endless_target = format!("\r\nGET /{}", "a".repeat(200));
    for step in [1, 7, 300] {
        let (end, error) = trickle(endless_fields.as_bytes(), 1, step, &limits).unwrap();
        assert_eq!(error.err(), Some(RequestError::HeadTooLarge));
        assert!((100..100 + step).contains(&end), "{end}");
        let (end, error) = trickle(endless_target.as_bytes(), 1, step, &limits).unwrap();
        assert_eq!(error.err(), Some(RequestError::TargetTooLong));
        assert!((100..100 + step).contains(&end), "{end}");
    }
}

#[test]
fn limits_never_pass_their_own_maximum() {
    let limits = HeadLimits { head_bytes: usize::MAX, headers: usize::MAX, target_bytes: usize::MAX };
    let huge = format!("GET / HTTP/1.1\r\nHost: a\r\nA: {}\r\n\r\n", "b".repeat(HEAD_BYTES_MAX));
    assert_eq!(whole(huge.as_bytes(), &limits).err(), Some(RequestError::HeadTooLarge));
    let with_fields =
        |count: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "A: b\r\n".repeat(count - 1));
    assert!(whole(with_fields(FIELDS_MAX).as_bytes(), &limits).is_ok());
    assert_eq!(
        whole(with_fields(FIELDS_MAX + 1).as_bytes(), &limits).err(),
        Some(RequestError::TooManyFields)
    );
}

#[test]
fn what_is_wrong_is_refused_before_the_head_ends() {
    for (wire, soon) in [
        ("GET / HTTP/1.1\nHost: a\r\n\r\n", 15),
        ("GET / HTTP/1.1\r\nHost: a\0\r\n\r\n", 24),
        ("GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n", 26),
        ("GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n", 25),
        ("\0", 1),
    ] {
        let (end, result) = trickle(wire.as_bytes(), 1, 1, &HeadLimits::default()).unwrap();
        assert!(result.is_err());
        assert_eq!(end, soon, "{wire:?}");
    }
}

#[test]
fn the_target_and_the_host_are_taken_apart() {
    let wire = "GET http://A.example.:8080/b%2Fc?d=e HTTP/1.1\r\nHost: other\r\n\r\n";
    let head = good(wire);
    let text = |at: Extent| std::str::from_utf8(at.bytes(wire.as_bytes())).unwrap();
    assert_eq!(head.target, TargetForm::Absolute);
    assert_eq!((text(head.method_at), text(head.path)), ("GET", "/b%2Fc"));
    assert_eq!(head.query.map(text), Some("d=e"));
    assert_eq!(
        (text(head.authority), text(head.host), head.port),
        ("A.example.:8080", "A.example", Some(8080))
    );

    let head = good("\r\nGET / HTTP/1.1\r\nHost: [::1]:1\r\n\r\n");
    assert_eq!(head.path, Extent::between(6, 7));
    assert_eq!((head.target, head.host, head.port), (TargetForm::Origin, Extent::between(24, 29), Some(1)));

    let head = good("GET / HTTP/1.0\r\n\r\n");
    assert!(head.authority.is_empty() && head.host.is_empty() && head.port.is_none());
    assert_eq!(good("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").target, TargetForm::Asterisk);
    assert_eq!(good("CONNECT b:1 HTTP/1.1\r\nHost: a\r\n\r\n").authority, Extent::between(8, 11));
}

#[test]
fn framing_and_connection_are_understood() {
    let with =
        |version: &str, fields: &str| good(&format!("POST / HTTP/1.{version}\r\nHost: a\r\n{fields}\r\n"));
    assert_eq!(with("1", "").body, BodyLength::None);
    assert_eq!(with("1", "Content-Length: 0\r\n").body, BodyLength::Exact(0));
    assert_eq!(with("0", "Content-Length:\t7 \r\n").body, BodyLength::Exact(7));
    assert_eq!(with("1", "Transfer-Encoding: CHUNKED\r\n").body, BodyLength::Chunked);
    assert!(BodyLength::Exact(0).is_empty() && !BodyLength::Chunked.is_empty());

    for (version, fields, keep_alive) in [
        ("1", "", true),
        ("1", "Connection: close\r\n", false),
        ("1", "Connection: x\r\nConnection: ,\tClose ,\r\n", false),
        ("1", "Connection: keep-alive, close\r\n", false),
        ("0", "", false),
        ("0", "Connection: Keep-Alive\r\n", true),
        ("0", "Connection: keep-alive, close\r\n", false),
        ("0", "Keep-Alive: timeout=5\r\n", false),
    ] {
        assert_eq!(with(version, fields).keep_alive, keep_alive, "1.{version} {fields}");
    }

    assert!(with("1", "Expect: 100-CONTINUE\r\n").expect_continue);
    assert!(!with("0", "Expect: 100-continue\r\n").expect_continue);
    assert!(!with("0", "Expect: something\r\n").expect_continue);
    assert!(with("1", "TE: deflate\r\nTE: x, Trailers\r\n").te_trailers);
    assert!(!with("0", "TE: trailers\r\n").te_trailers);
    assert!(!with("1", "TE: gzip\r\n").te_trailers);
}

#[test]
fn an_upgrade_counts_only_where_it_may() {
    let upgrade = |version: &str, fields: &str| {
        let wire = format!("GET / HTTP/1.{version}\r\nHost: a\r\n{fields}\r\n");
        good(&wire).upgrade.map(|at| String::from_utf8(at.bytes(wire.as_bytes()).to_vec()).unwrap())
    };
    assert_eq!(upgrade("1", "Connection: Upgrade\r\nUpgrade: websocket\r\n").as_deref(), Some("websocket"));
    assert_eq!(upgrade("1", "Upgrade: a, b\r\nConnection: x, UPGRADE\r\n").as_deref(), Some("a, b"));
    for (version, fields) in [
        ("1", "Upgrade: websocket\r\n"),
        ("1", "Connection: upgrade\r\n"),
        ("1", "Connection: upgrade\r\nUpgrade:\r\n"),
        ("1", "Connection: upgrade, http2-settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"),
        ("1", "Connection: upgrade\r\nUpgrade: websocket, H2C\r\n"),
        ("0", "Connection: upgrade\r\nUpgrade: websocket\r\n"),
    ] {
        assert_eq!(upgrade(version, fields), None, "{fields}");
    }
}

#[test]
fn hop_by_hop_fields_are_marked() {
    let wire = "GET / HTTP/1.1\r\nX-Mine: a\r\nHost: a\r\nConnection: x-MINE, host, content-length, cookie,\r\n\
        Content-Length: 0\r\nCookie: a\r\nKeep-Alive: 5\r\nProxy-Connection: a\r\nTE: a\r\nUpgrade: a\r\n\
        X-Forwarded-For: a\r\nProxy-Authorization: a\r\nX-Mine: b\r\nX-Mine2: c\r\nConnection: X-Forwarded-For, te\r\n\
        Trailer: x\r\nHTTP2-Settings: a\r\n\r\n";
    let head = good(wire);
    let hops: Vec<&str> = (head.fields.iter().filter(|field| field.hop))
        .map(|field| std::str::from_utf8(field.name_at.bytes(wire.as_bytes())).unwrap())
        .collect();
    assert_eq!(
        hops,
        [
            "X-Mine",
            "Connection",
            "Keep-Alive",
            "Proxy-Connection",
            "TE",
            "Upgrade",
            "X-Mine",
            "Connection",
            "HTTP2-Settings",
        ]
    );
}

#[test]
fn a_reused_head_keeps_nothing_of_the_one_before() {
    let mut head = RequestHead::default();
    let expected = good(GOOD[0]);
    for wire in GOOD {
        parse_request(wire.as_bytes(), &mut 0, &HeadLimits::default(), &mut head).unwrap();
        parse_request(GOOD[0].as_bytes(), &mut 0, &HeadLimits::default(), &mut head).unwrap();
        assert_eq!(head, expected);
    }
}

/// Writes an accepted head again, from what was found in it.
fn rewritten(bytes: &[u8], head: &RequestHead) -> Vec<u8> {
    let at = |extent: Extent| extent.bytes(bytes).to_vec();
    let mut wire = at(head.method_at);
    wire.push(b' ');
    match head.target {
        TargetForm::Origin => {}
        TargetForm::Asterisk if head.authority.is_empty() => wire.push(b'*'),
        TargetForm::Absolute | TargetForm::Asterisk => {
            wire.extend([&b"http://"[..], &at(head.authority)].concat())
        }
        TargetForm::Authority => wire.extend(at(head.authority)),
    }
    wire.extend(at(head.path));
    if let Some(query) = head.query {
        wire.extend([&b"?"[..], &at(query)].concat());
    }
    wire.extend([b" ", head.version.as_str().as_bytes(), b"\r\n"].concat());
    for field in &head.fields {
        wire.extend([&at(field.name_at), &b": "[..], &at(field.value_at), b"\r\n"].concat());
    }
    wire.extend(b"\r\n");
    wire
}

/// What a head says, without where.
fn meaning(bytes: &[u8], head: &RequestHead) -> impl PartialEq + std::fmt::Debug {
    let at = |extent: Extent| extent.bytes(bytes).to_vec();
    let fields: Vec<_> = head
        .fields
        .iter()
        .map(|field| (field.name, field.hop, at(field.name_at), at(field.value_at)))
        .collect();
    (
        (at(head.method_at), head.method, head.version, head.target, at(head.path), head.query.map(at)),
        (head.port, head.body, head.keep_alive, head.expect_continue, head.upgrade.map(at), head.te_trailers),
        fields,
    )
}

/// Text that looks like a head, often enough a valid one, with what attackers put into it.
fn heads() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        9 => "(GET|POST|OPTIONS|CONNECT|X) (/[a-z/.%0-9A-F?|]{0,8}|\\*|http://a(:1)?(/b)?|a:1) HTTP/1\\.[01]",
        1 => "[ -~]{0,30}",
    ];
    let field = prop_oneof![
        6 => "[A-Za-z-]{1,8}:[ \t]?[ -~\t]{0,12}",
        4 => "(Host|host): (a|b:1|\\[::1\\])",
        2 => "Content-Length: ([0-9]{1,3}|[0-9, +]{0,4})",
        2 => "Transfer-Encoding: (chunked|gzip|chunked, chunked)",
        2 => "Connection: (close|keep-alive|upgrade|x-a, [a-z]{1,3})",
        1 => "(Upgrade|Expect|TE): (websocket|h2c|100-continue|trailers)",
        1 => "[ \t:]?[ -~\t\r\n\0]{0,12}",
    ];
    let ending = prop_oneof![40 => Just("\r\n"), 1 => Just("\n"), 1 => Just("\r"), 1 => Just("\r\n ")];
    (line, proptest::collection::vec((field, ending), 0..6), any::<bool>()).prop_map(
        |(line, fields, host)| {
            let mut wire = format!("{line}\r\n{}", if host { "Host: a\r\n" } else { "" });
            wire.extend(fields.into_iter().flat_map(|(field, ending)| [field, ending.to_owned()]));
            wire.push_str("\r\n");
            wire.into_bytes()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_accepted_or_refused(wire in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = trickle(&wire, 1, 3, &HeadLimits::default());
        let _ = parse_request(&wire, &mut 0, &HeadLimits::default(), &mut RequestHead::default());
    }

    #[test]
    fn what_is_accepted_means_the_same_when_written_again(wire in heads()) {
        let mut head = RequestHead::default();
        if let Ok(Parsed::Complete { head_len }) = parse_request(&wire, &mut 0, &HeadLimits::default(), &mut head) {
            let again = rewritten(&wire[..head_len], &head);
            let (again_len, again_head) = whole(&again, &HeadLimits::default()).unwrap();
            prop_assert_eq!(again_len, again.len());
            prop_assert_eq!(meaning(&wire, &head), meaning(&again, &again_head));
        }
    }

    #[test]
    fn cuts_change_nothing(wire in heads(), first in 0_usize..60, step in 1_usize..40) {
        let mut head = RequestHead::default();
        let at_once = parse_request(&wire, &mut 0, &HeadLimits::default(), &mut head);
        let result = trickle(&wire, first, step, &HeadLimits::default());
        match at_once {
            Ok(Parsed::Complete { head_len }) => prop_assert_eq!(result.map(|(_, result)| result), Some(Ok((head_len, head)))),
            Ok(Parsed::Partial) => prop_assert!(result.is_none()),
            Err(_) => prop_assert!(result.is_some_and(|(_, result)| result.is_err())),
        }
    }

    /// Nothing of the strictness is `httparse`'s alone: a second, naive reading of the bytes agrees.
    #[test]
    fn an_accepted_head_has_only_clean_lines(wire in heads()) {
        let mut head = RequestHead::default();
        if let Ok(Parsed::Complete { head_len }) = parse_request(&wire, &mut 0, &HeadLimits::default(), &mut head) {
            let text = wire[..head_len].strip_suffix(b"\r\n\r\n").unwrap();
            let lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
            prop_assert_eq!(lines.len(), head.fields.len() + 1);
            for (at, line) in lines.iter().enumerate() {
                let line = if at + 1 < lines.len() { line.strip_suffix(b"\r").unwrap() } else { line };
                prop_assert!(line.iter().all(|byte| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f)));
                prop_assert!(!line.is_empty() && !line.starts_with(b" ") && !line.starts_with(b"\t"));
            }
        }
    }
}
