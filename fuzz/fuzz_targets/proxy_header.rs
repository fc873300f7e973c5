//! A PROXY header: judged alike however much of it is there, within its limit; and what it says can be said again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringgate::proxy_protocol::{PROXY_HEADER_BYTES_MAX, ProxyHeader, append_binary, append_line, parse};

fuzz_target!(|input: &[u8]| {
    let whole = parse(input);
    for end in 0..input.len().min(300) {
        match parse(&input[..end]) {
            Ok(ProxyHeader::Partial) => {}
            settled => assert_eq!(settled, whole),
        }
    }
    let Ok(ProxyHeader::Complete(len, addresses)) = whole else { return };
    assert!(len <= input.len() && len <= PROXY_HEADER_BYTES_MAX);
    let Some(addresses) = addresses else { return };
    for append in [append_line, append_binary] {
        let mut again = Vec::new();
        append(addresses, &mut again);
        assert_eq!(parse(&again), Ok(ProxyHeader::Complete(again.len(), Some(addresses))));
    }
});
