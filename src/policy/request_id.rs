//! Request ids: new ones as UUIDv7, and which incoming ones are good enough to keep. Where the time and the random
//! bits come from, and whether the peer is to be believed, the caller decides.

/// Bytes of a new id.
pub const REQUEST_ID_BYTES: usize = 36;

/// A new id: a UUIDv7 (RFC 9562 §5.7) as text, lower case, such as `019b76da-a800-7d3c-9f00-5be0d78b3a11`.
/// `unix_ms`: milliseconds since 1970, of which 48 bits are used. Two ids of one millisecond are in no particular
/// order; 74 random bits keep them apart. They identify and do not authorise: `rng` need not be unpredictable.
pub fn uuid_v7(unix_ms: u64, rng: &mut fastrand::Rng) -> [u8; REQUEST_ID_BYTES] {
    let high = (unix_ms << 16) | 0x7000 | (rng.u64(..) & 0x0fff);
    let low = (0b10 << 62) | (rng.u64(..) >> 2);
    let [time, version] = [eight_hex((high >> 32) as u32), eight_hex(high as u32)];
    let [variant, tail] = [eight_hex((low >> 32) as u32), eight_hex(low as u32)];
    let mut text = [b'-'; REQUEST_ID_BYTES];
    text[..8].copy_from_slice(&time);
    text[9..13].copy_from_slice(&version[..4]);
    text[14..18].copy_from_slice(&version[4..]);
    text[19..23].copy_from_slice(&variant[..4]);
    text[24..28].copy_from_slice(&variant[4..]);
    text[28..].copy_from_slice(&tail);
    text
}

/// The eight hexadecimal digits of `value`, lower case. Spreads the nibbles over the bytes of a word, the first in the
/// lowest, and turns all of them into digits at once.
#[inline]
fn eight_hex(value: u32) -> [u8; 8] {
    let value = u64::from(value.swap_bytes());
    let value = (value | (value << 16)) & 0x0000_ffff_0000_ffff;
    let value = (value | (value << 8)) & 0x00ff_00ff_00ff_00ff;
    let nibbles = ((value >> 4) | (value << 8)) & 0x0f0f_0f0f_0f0f_0f0f;
    let letters = ((nibbles + 0x0606_0606_0606_0606) >> 4) & 0x0101_0101_0101_0101;
    (nibbles + 0x3030_3030_3030_3030 + letters * u64::from(b'a' - b'0' - 10)).to_le_bytes()
}

/// Bytes of an incoming id that is kept.
pub const REQUEST_ID_BYTES_MAX: usize = 128;

/// Whether an incoming id is kept: 1 to 128 letters, digits and `-_.:/+=@~`, which covers UUIDs, ULIDs, hex, base64
/// and the trace ids of the large clouds, and nothing that would need escaping in a field, a log or a URL's query.
pub fn is_acceptable(id: &[u8]) -> bool {
    (1..=REQUEST_ID_BYTES_MAX).contains(&id.len())
        && id.iter().all(|byte| {
            byte.is_ascii_alphanumeric()
                || matches!(byte, b'-' | b'_' | b'.' | b':' | b'/' | b'+' | b'=' | b'@' | b'~')
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hexadecimal_digits_are_those_of_format() {
        for value in [0, 1, 9, 10, 0x0123_4567, 0x89ab_cdef, 0xffff_ffff, 0x00f0_0a05, 0xdead_beef] {
            assert_eq!(eight_hex(value), format!("{value:08x}").as_bytes());
        }
    }

    #[test]
    fn the_example_of_the_rfc() {
        // RFC 9562 appendix A.6: the time 0x017F22E279B0, version 7, variant 0b10.
        let id = uuid_v7(0x017f_22e2_79b0, &mut fastrand::Rng::with_seed(1));
        assert_eq!(&id[..15], b"017f22e2-79b0-7");
        assert!(matches!(id[19], b'8' | b'9' | b'a' | b'b'));
        assert!(is_acceptable(&id));
    }

    #[test]
    fn ids_kept_and_not() {
        for id in
            ["a", "Root=1-67891233-abcdef012345678912345678", "01ARZ3NDEKTSV4RRFFQ69G5FAV", "YQ==", "a:b/c"]
        {
            assert!(is_acceptable(id.as_bytes()), "{id}");
        }
        for id in ["", "a b", "a,b", "a\r\nx: y", "\"", "\\", "é", "a\0", "{}", "<", "&", ";", "%00"] {
            assert!(!is_acceptable(id.as_bytes()), "{id:?}");
        }
        assert!(is_acceptable(&[b'a'; 128]) && !is_acceptable(&[b'a'; 129]));
    }

    proptest! {
        #[test]
        fn ids_are_well_formed_and_differ(unix_ms in 0..1_u64 << 48, seed: u64) {
            let mut rng = fastrand::Rng::with_seed(seed);
            let (one, other) = (uuid_v7(unix_ms, &mut rng), uuid_v7(unix_ms, &mut rng));
            prop_assert_ne!(one, other);
            for id in [one, other] {
                let text = std::str::from_utf8(&id).unwrap();
                prop_assert_eq!(text.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
                let bits = u128::from_str_radix(&text.replace('-', ""), 16).unwrap();
                prop_assert_eq!((bits >> 80) as u64, unix_ms);
                prop_assert_eq!((bits >> 76 & 0xf, bits >> 62 & 0b11), (7, 0b10));
            }
        }

        #[test]
        fn later_milliseconds_sort_later(early in 0..u64::from(u32::MAX), more in 1..1000_u64, seed: u64) {
            let mut rng = fastrand::Rng::with_seed(seed);
            prop_assert!(uuid_v7(early, &mut rng) < uuid_v7(early + more, &mut rng));
        }
    }
}
