//! A response head, at once and in two pieces: neither may be accepted without the other. The first byte of the input says where it
//! is cut.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringgate::http::{
    method::Method,
    request::{HeadLimits, Parsed},
    response::{ResponseBody, ResponseHead, parse_response},
};

fuzz_target!(|input: &[u8]| {
    let Some((cut, wire)) = input.split_first() else { return };
    let cut = usize::from(*cut) % (wire.len() + 1);
    let limits = HeadLimits { head_bytes: 2048, headers: 16, target_bytes: 0 };

    let mut head = ResponseHead::default();
    let at_once = parse_response(wire, &mut 0, &limits, &mut head);

    let mut pieced_head = ResponseHead::default();
    let mut scanned = 0;
    let pieced = match parse_response(&wire[..cut], &mut scanned, &limits, &mut pieced_head) {
        Ok(Parsed::Partial) => parse_response(wire, &mut scanned, &limits, &mut pieced_head),
        other => other,
    };
    // A head that comes in pieces may be refused later, up to its blank line; it is never accepted.
    assert!(at_once == pieced || at_once.is_err() && !matches!(pieced, Ok(Parsed::Complete { .. })));

    if let Ok(Parsed::Complete { head_len }) = at_once {
        assert_eq!(head, pieced_head);
        assert!((100..=599).contains(&head.status));
        assert!(!(head.chunked && head.content_length.is_some()));
        assert_eq!(head.body(Method::Head), ResponseBody::None);
        let bytes = &wire[..head_len];
        let _ = head.reason.bytes(bytes);
        assert!(head.fields.iter().all(|field| !field.name_at.bytes(bytes).is_empty()));
    }
});
