//! Query parameters, read where they stand: `name=value` pairs between `&`, percent-decoded and `+` as space, as HTML
//! forms write them (WHATWG URL, application/x-www-form-urlencoded). It does not know why a value is wanted. A `%`
//! without two digits stands for itself; a parameter without `=` has an empty value.

use memchr::memchr;

/// Bytes of a decoded value that a regex can see: the default of `limits.target_bytes`. A longer one that needs
/// decoding matches no regex; one that does not is matched where it stands, whatever its length.
pub const QUERY_VALUE_BYTES_MAX: usize = 8 * 1024;

/// The parameters of a query, as written; empty ones are none.
fn pairs(query: &[u8]) -> impl Iterator<Item = &[u8]> {
    query.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty())
}

/// A parameter's name and its value, as written.
fn parts(pair: &[u8]) -> (&[u8], &[u8]) {
    let cut = memchr(b'=', pair).unwrap_or(pair.len());
    (&pair[..cut], pair.get(cut + 1..).unwrap_or_default())
}

/// The names of all parameters, decoded, in order.
pub fn names(query: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    pairs(query).map(parts).map(|(written, _)| Decoded(written).collect())
}

/// The values of parameter `name` (given decoded), decoded.
pub fn values<'q>(query: &'q [u8], name: &'q [u8]) -> impl Iterator<Item = Vec<u8>> {
    let those = pairs(query).map(parts).filter(move |(written, _)| equals(written, name));
    those.map(|(_, value)| Decoded(value).collect())
}

/// The query without parameter `name` (given decoded), the others as they were written.
pub fn without(query: &[u8], name: &[u8]) -> Vec<u8> {
    let kept: Vec<_> = pairs(query).filter(|pair| !equals(parts(pair).0, name)).collect();
    kept.join(&b'&')
}

/// Whether some parameter `name` (given decoded) has a value, as written in the query, that satisfies `test`.
pub(super) fn any_value(query: &[u8], name: &[u8], mut test: impl FnMut(&[u8]) -> bool) -> bool {
    let mut rest = query;
    loop {
        let end = memchr(b'&', rest).unwrap_or(rest.len());
        let pair = &rest[..end];
        let cut = memchr(b'=', pair).unwrap_or(pair.len());
        if !pair.is_empty() && equals(&pair[..cut], name) && test(pair.get(cut + 1..).unwrap_or_default()) {
            return true;
        }
        match rest.get(end + 1..) {
            Some(after) => rest = after,
            None => return false,
        }
    }
}

/// Whether `written` decodes to `wanted`.
pub(super) fn equals(written: &[u8], wanted: &[u8]) -> bool {
    // Decoding never lengthens, and shortens at most to a third.
    written.len() >= wanted.len() && Decoded(written).eq(wanted.iter().copied())
}

/// Calls `test` with `written` decoded; `false` when that is longer than [`QUERY_VALUE_BYTES_MAX`].
pub(super) fn decoded(written: &[u8], test: impl FnOnce(&[u8]) -> bool) -> bool {
    if !written.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return test(written);
    }
    let mut buffer = [0; QUERY_VALUE_BYTES_MAX];
    let mut len = 0;
    for byte in Decoded(written) {
        let Some(place) = buffer.get_mut(len) else { return false };
        *place = byte;
        len += 1;
    }
    test(&buffer[..len])
}

/// The bytes that a written name or value stands for.
pub(super) struct Decoded<'q>(pub(super) &'q [u8]);

impl Iterator for Decoded<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        match first {
            b'+' => Some(b' '),
            b'%' => match rest {
                [high, low, after @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                    self.0 = after;
                    Some(digit(*high) << 4 | digit(*low))
                }
                _ => Some(b'%'),
            },
            other => Some(other),
        }
    }
}

/// The value of a hexadecimal digit.
fn digit(digit: u8) -> u8 {
    (digit & 0xf) + if digit.is_ascii_alphabetic() { 9 } else { 0 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_parameter_is_found_and_left_out() {
        for (query, values, rest) in [
            ("", &[][..], ""),
            ("key=1", &["1"], ""),
            ("a=b&key=1&c", &["1"], "a=b&c"),
            ("k%65y=%31+&&key&akey=3&Key=4", &["1 ", ""], "akey=3&Key=4"),
            ("a=key=1&=key", &[], "a=key=1&=key"),
        ] {
            let found: Vec<_> = super::values(query.as_bytes(), b"key").collect();
            assert_eq!(
                found,
                values.iter().map(|value| value.as_bytes().to_vec()).collect::<Vec<_>>(),
                "{query}"
            );
            assert_eq!(without(query.as_bytes(), b"key"), rest.as_bytes(), "{query}");
        }
    }

    proptest! {
        #[test]
        fn what_is_left_out_is_gone(query in "[key=&%6579+a]{0,30}") {
            let rest = without(query.as_bytes(), b"key");
            prop_assert_eq!(super::values(&rest, b"key").count(), 0);
            prop_assert!(rest.len() <= query.len());
        }
    }

    fn values(query: &str, name: &str) -> Vec<String> {
        let mut values = Vec::new();
        any_value(query.as_bytes(), name.as_bytes(), |value| {
            values.push(String::from_utf8(Decoded(value).collect()).unwrap());
            false
        });
        values
    }

    #[test]
    fn parameters_are_found_and_decoded() {
        assert_eq!(values("a=1&b=2&a=3", "a"), ["1", "3"]);
        assert_eq!(values("a", "a"), [""]);
        assert_eq!(values("a=", "a"), [""]);
        assert_eq!(values("a=b=c", "a"), ["b=c"]);
        assert_eq!(values("&&a=1&", "a"), ["1"]);
        assert_eq!(values("%61+b=%C3%A9+%2B%26", "a b"), ["é +&"]);
        assert_eq!(values("a=100%&a=%zz&a=%4", "a"), ["100%", "%zz", "%4"]);
        assert_eq!(values("ab=1&A=2", "a"), [""; 0]);
        assert_eq!(values("", "a"), [""; 0]);
        assert_eq!(values("=1", ""), ["1"]);
    }

    #[test]
    fn a_value_too_long_to_decode_satisfies_nothing() {
        let long = "a".repeat(QUERY_VALUE_BYTES_MAX);
        assert!(decoded(long.as_bytes(), |value| value.len() == QUERY_VALUE_BYTES_MAX));
        assert!(decoded(format!("{}+", &long[1..]).as_bytes(), |value| value.ends_with(b" ")));
        assert!(!decoded(format!("{long}+").as_bytes(), |_| true));
    }

    fn encoded(text: &str) -> String {
        text.bytes()
            .map(|byte| match byte {
                b' ' => "+".to_owned(),
                b'a'..=b'z' => char::from(byte).to_string(),
                _ => format!("%{byte:02x}"),
            })
            .collect()
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_found(pairs in proptest::collection::vec(("\\PC{1,4}", "\\PC{0,8}"), 0..5)) {
            let query = pairs.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value)));
            let query = query.collect::<Vec<_>>().join("&");
            for (name, _) in &pairs {
                let wanted: Vec<_> = pairs.iter().filter(|pair| pair.0 == *name).map(|pair| pair.1.clone()).collect();
                prop_assert_eq!(values(&query, name), wanted);
            }
        }

        #[test]
        fn no_query_breaks_it(query: Vec<u8>, name: Vec<u8>, value: Vec<u8>) {
            any_value(&query, &name, |written| {
                assert_eq!(equals(written, &value), decoded(written, |decoded| decoded == value));
                false
            });
        }
    }
}
