//! A set of keys as an issuer publishes it: any text is one or none, and none of its keys makes a token of nobody's good.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringgate::policy::jwks::{PUBLISHED_KEYS_MAX, parse};

fuzz_target!(|input: &[u8]| {
    if let Ok(keys) = parse(input) {
        assert!((1..=PUBLISHED_KEYS_MAX).contains(&keys.len()));
    }
});
