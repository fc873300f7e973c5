//! What bytes a value may bring to its place in a text, and what becomes of the others.

use crate::telemetry::text::HEX;

/// How a value is made safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Escape {
    /// As it is.
    Verbatim,
    /// A value with a control character, which no field may have (RFC 9110 §5.5), is left out: what is left of it without them could
    /// be another's.
    Field,
    /// Bytes of the class stay, others are percent-encoded.
    Percent(Class),
    /// The same for text that is percent-encoded already: its triplets stay too.
    Encoded(Class),
}

/// A set of ASCII characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Class(u128);

impl Class {
    /// RFC 3986 §2.3. What a value may bring anywhere without meaning anything.
    pub(super) const UNRESERVED: Self =
        Self::of(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~");
    /// The characters of a path (RFC 3986 §3.3).
    pub(super) const PATH: Self = Self::UNRESERVED.and(b"!$&'()*+,;=:@/");
    /// A host and port (RFC 3986 §3.2.2), without what a name has no use for.
    pub(super) const HOST: Self = Self::UNRESERVED.and(b":[]");
    /// The characters of a query (RFC 3986 §3.4).
    pub(super) const QUERY: Self = Self::PATH.and(b"?");
    /// What the value of one parameter may have: it cannot begin another.
    pub(super) const PARAMETER: Self = Self::UNRESERVED.and(b"!$'()*+,=:@/?");
    /// What a path may have within a query: neither a new parameter nor a blank written `+`.
    pub(super) const PATH_IN_QUERY: Self = Self::UNRESERVED.and(b"/:@");
    /// What the text of a `Location` may have, beside percent-encoded triplets.
    pub(super) const REFERENCE: Self = Self::QUERY.and(b"#[]");

    const fn of(characters: &[u8]) -> Self {
        Self(0).and(characters)
    }

    const fn and(self, characters: &[u8]) -> Self {
        let mut set = self.0;
        let mut at = 0;
        while at < characters.len() {
            set |= 1 << characters[at];
            at += 1;
        }
        Self(set)
    }

    pub(super) const fn has(self, byte: u8) -> bool {
        byte < 128 && self.0 >> byte & 1 == 1
    }
}

/// Takes the value of a variable on its way into a text, and makes it safe there.
#[derive(Debug)]
pub struct Value<'o> {
    out: &'o mut Vec<u8>,
    /// Where `out` must end.
    end_max: usize,
    pub(super) escape: Escape,
    /// It was more than that: nothing more is taken.
    pub(super) is_overfull: bool,
}

impl<'o> Value<'o> {
    pub(super) fn new(out: &'o mut Vec<u8>, end_max: usize) -> Self {
        Self { out, end_max, escape: Escape::Verbatim, is_overfull: false }
    }

    /// Puts the variable's value, as it was sent.
    #[inline]
    pub fn put(&mut self, bytes: &[u8]) {
        self.put_escaped(bytes, self.escape);
    }

    pub(super) fn put_escaped(&mut self, bytes: &[u8], escape: Escape) {
        // What is too long as it is, is not looked at; what is not, grows to three times that at most.
        if self.is_overfull || bytes.len() > self.end_max - self.out.len() {
            self.is_overfull = true;
            return;
        }
        match escape {
            Escape::Verbatim => self.out.extend_from_slice(bytes),
            Escape::Field => self.put_field(bytes),
            Escape::Percent(class) => self.put_percent(bytes, class, false),
            Escape::Encoded(class) => self.put_percent(bytes, class, true),
        }
        self.is_overfull = self.out.len() > self.end_max;
    }

    fn put_field(&mut self, bytes: &[u8]) {
        if is_field_value(bytes) {
            self.out.extend_from_slice(bytes);
        }
    }

    fn put_percent(&mut self, bytes: &[u8], class: Class, is_encoded: bool) {
        let is_kept = |rest: &[u8]| class.has(rest[0]) || is_encoded && is_triplet(rest);
        for at in 0..bytes.len() {
            let byte = bytes[at];
            if is_kept(&bytes[at..]) {
                self.out.push(byte);
            } else {
                self.out.extend_from_slice(&[
                    b'%',
                    HEX_UPPER[usize::from(byte >> 4)],
                    HEX_UPPER[usize::from(byte & 15)],
                ]);
            }
        }
    }
}

/// Whether it has no control character, which no field may have (RFC 9110 §5.5).
pub fn is_field_value(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~' | 0x80..))
}

/// RFC 3986 §2.1: upper case is the normal form of triplets.
const HEX_UPPER: [u8; 16] = {
    let mut digits = *HEX;
    digits.make_ascii_uppercase();
    digits
};

/// Whether `text` begins with a percent sign and two hexadecimal digits.
pub(super) fn is_triplet(text: &[u8]) -> bool {
    matches!(text, [b'%', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit())
}

/// Whether the path in front of `?` has a segment `.` or `..`, also when its dots are written `%2E` or its borders
/// `%2F`, `\` or `%5C`: stricter than any reader behind.
pub(super) fn has_dot_segment(target: &[u8]) -> bool {
    let mut rest = target;
    // Dots since the border; `None` when something else was there too.
    let mut dots = Some(0);
    loop {
        let is_border = match rest {
            [] | [b'?', ..] => return matches!(dots, Some(1 | 2)),
            [b'%', b'2', b'e' | b'E', ..] => {
                dots = dots.map(|n| n + 1);
                false
            }
            [b'.', ..] => {
                dots = dots.map(|n| n + 1);
                false
            }
            [b'/' | b'\\', ..] | [b'%', b'2', b'f' | b'F', ..] | [b'%', b'5', b'c' | b'C', ..] => true,
            _ => {
                dots = None;
                false
            }
        };
        if is_border {
            if matches!(dots, Some(1 | 2)) {
                return true;
            }
            dots = Some(0);
        }
        rest = &rest[if rest[0] == b'%' && is_triplet(rest) { 3 } else { 1 }..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dot_segments() {
        for target in [
            "/.",
            "/..",
            "/./a",
            "/a/..",
            "/a/../b",
            "/%2e",
            "/%2E%2e/a",
            "/.%2e?x",
            "/a%2f..%2fb",
            "/a\\..\\b",
            "/%5c..",
            "..",
            ".",
        ] {
            assert!(has_dot_segment(target.as_bytes()), "{target}");
        }
        for target in [
            "",
            "/",
            "/...",
            "/.a",
            "/a.",
            "/a..b",
            "/a?/../b",
            "/%2e%2e%2e",
            "/..%20",
            "/%",
            "/%2",
            "/..a/b",
        ] {
            assert!(!has_dot_segment(target.as_bytes()), "{target}");
        }
    }
}
