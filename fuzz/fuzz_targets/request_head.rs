//! A request head, at once and in two pieces: neither may be accepted without the other, and what is accepted must have clean lines.
//! The first byte of the input says where it is cut.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringgate::http::request::{HeadLimits, Parsed, RequestHead, parse_request};

fuzz_target!(|input: &[u8]| {
    let Some((cut, wire)) = input.split_first() else { return };
    let cut = usize::from(*cut) % (wire.len() + 1);
    let limits = HeadLimits { head_bytes: 2048, headers: 16, target_bytes: 256 };

    let mut head = RequestHead::default();
    let at_once = parse_request(wire, &mut 0, &limits, &mut head);

    let mut pieced_head = RequestHead::default();
    let mut scanned = 0;
    let pieced = match parse_request(&wire[..cut], &mut scanned, &limits, &mut pieced_head) {
        Ok(Parsed::Partial) => parse_request(wire, &mut scanned, &limits, &mut pieced_head),
        other => other,
    };
    // A head that comes in pieces may be refused later, up to its blank line; it is never accepted.
    assert!(at_once == pieced || at_once.is_err() && !matches!(pieced, Ok(Parsed::Complete { .. })));

    if let Ok(Parsed::Complete { head_len }) = at_once {
        assert_eq!(head, pieced_head);
        let bytes = &wire[..head_len];
        assert!(head_len <= limits.head_bytes && head.fields.len() <= limits.headers);
        assert!(bytes.ends_with(b"\r\n\r\n") && !bytes.contains(&0));
        assert_eq!(
            bytes.iter().filter(|byte| **byte == b'\n').count(),
            bytes.windows(2).filter(|pair| pair == b"\r\n").count()
        );
        for field in &head.fields {
            assert!(!field.name_at.is_empty() && !field.value_at.bytes(bytes).contains(&b'\r'));
        }
        for extent in [head.method_at, head.path, head.authority, head.host] {
            let _ = extent.bytes(bytes);
        }
    }
});
