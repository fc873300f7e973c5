//! A path, by the rules that the first byte of the input picks: the result must be canonical, and stay so.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringgate::{
    config::types::{Backslash, EmptySegment, EncodedSlash, PathRules},
    http::path::{Canonical, canonicalize},
};

fuzz_target!(|input: &[u8]| {
    let Some((choice, raw)) = input.split_first() else { return };
    let choice = usize::from(*choice);
    let rules = PathRules {
        encoded_slash: [EncodedSlash::Keep, EncodedSlash::Reject, EncodedSlash::Decode][choice % 3],
        backslash: [Backslash::Reject, Backslash::Slash, Backslash::Keep][choice / 3 % 3],
        empty_segment: [EmptySegment::Merge, EmptySegment::Reject, EmptySegment::Keep][choice / 9 % 3],
    };
    let mut out = Vec::new();
    let path = match canonicalize(raw, &rules, &mut out) {
        Ok(Canonical::AsIs) => raw.to_vec(),
        Ok(Canonical::Written) => out.clone(),
        Err(_) => return,
    };
    assert_eq!(path[0], b'/');
    assert!(path.iter().all(u8::is_ascii_graphic));
    assert!(!path.split(|byte| *byte == b'/').any(|segment| segment == b"." || segment == b".."));
    assert!(rules.empty_segment == EmptySegment::Keep || !path.windows(2).any(|pair| pair == b"//"));
    assert_eq!(canonicalize(&path, &rules, &mut out), Ok(Canonical::AsIs));
});
