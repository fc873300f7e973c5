//! The one canonical form of a path (RFC 3986 §6.2.2), which routes, policies, logs and the upstream all see. It is
//! computed once, here; canonicalising it again changes nothing, so nobody downstream of this function can read it
//! differently by decoding it once more. Queries are not touched, and what a path leads to is not known.

use crate::config::types::{Backslash, EmptySegment, EncodedSlash, PathRules};

/// Where the canonical path is.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Canonical {
    /// The path given is canonical; nothing was written.
    AsIs,
    /// In the output.
    Written,
}

/// Why a path is refused: 400, all of them.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It does not begin with `/`.
    #[error("a path that does not begin with a slash")]
    NotAbsolute,
    /// A byte that no path may have raw: control, space, non-ASCII, `"<>#?{}` or a backtick.
    #[error("an invalid byte in the path")]
    InvalidByte,
    /// A `%` without two hexadecimal digits.
    #[error("a malformed percent-encoding")]
    Triplet,
    /// An encoded control character, NUL included.
    #[error("an encoded control character")]
    Control,
    /// `%2F`, by [`EncodedSlash::Reject`].
    #[error("an encoded slash")]
    EncodedSlash,
    /// `\` or `%5C`, by [`Backslash::Reject`].
    #[error("a backslash")]
    Backslash,
    /// `//`, by [`EmptySegment::Reject`].
    #[error("an empty segment")]
    EmptySegment,
}

/// Brings `raw` to its canonical form by `rules`. `out` is scratch space: it is cleared, and holds the path only on
/// [`Canonical::Written`]. An empty path, as an absolute-form target may have, is `/`.
///
/// The result begins with `/`; has no `.` and `..` segments (those above the root stop at it), encoded or not; has no
/// percent-encoded unreserved character and no lower-case digit in a triplet; has `|`, `[`, `]` and `^` encoded; and
/// has `%2F`, `\`, `%5C` and `//` only as `rules` allow. Separators that `rules` make are separators before segments
/// are looked at, and empty segments are merged before `..` takes one away.
#[inline]
pub fn canonicalize(raw: &[u8], rules: &PathRules, out: &mut Vec<u8>) -> Result<Canonical, PathError> {
    out.clear();
    if is_plainly_canonical(raw) {
        return Ok(Canonical::AsIs);
    }
    rewrite(raw, rules, out)?;
    if out == raw {
        out.clear();
        return Ok(Canonical::AsIs);
    }
    Ok(Canonical::Written)
}

/// Whether a path is canonical by any rules. `false` says nothing: a path with a triplet, or a segment that begins
/// with a dot, may be canonical, too.
#[inline]
fn is_plainly_canonical(raw: &[u8]) -> bool {
    if raw.first() != Some(&b'/') {
        return false;
    }
    let mut behind_slash = true;
    for &byte in &raw[1..] {
        match KINDS[byte as usize] {
            Kind::Plain => behind_slash = false,
            Kind::Dot if !behind_slash => {}
            Kind::Slash if !behind_slash => behind_slash = true,
            _ => return false,
        }
    }
    true
}

/// The path as it is being written. It begins with `/`, and has no dot segment before `segment`.
struct Output<'o> {
    out: &'o mut Vec<u8>,
    /// Where the last segment begins: behind the last separator.
    segment: usize,
    empty_segment: EmptySegment,
}

fn rewrite(raw: &[u8], rules: &PathRules, out: &mut Vec<u8>) -> Result<(), PathError> {
    out.push(b'/');
    let mut path = Output { out, segment: 1, empty_segment: rules.empty_segment };
    let mut rest = match raw {
        [] => return Ok(()),
        [b'/', rest @ ..] => rest,
        _ => return Err(PathError::NotAbsolute),
    };
    while let [byte, behind @ ..] = rest {
        rest = behind;
        match KINDS[*byte as usize] {
            Kind::Plain | Kind::Dot => path.out.push(*byte),
            Kind::Slash => path.separate()?,
            Kind::Encode => path.encode(*byte),
            Kind::Backslash => path.backslash(rules.backslash)?,
            Kind::Percent => {
                let [high, low, behind @ ..] = behind else { return Err(PathError::Triplet) };
                rest = behind;
                let byte = hex(*high)? << 4 | hex(*low)?;
                path.triplet(byte, rules)?;
            }
            Kind::Invalid => return Err(PathError::InvalidByte),
        }
    }
    path.end_segment();
    Ok(())
}

impl Output<'_> {
    /// An encoded byte.
    fn triplet(&mut self, byte: u8, rules: &PathRules) -> Result<(), PathError> {
        match byte {
            0..0x20 | 0x7f => return Err(PathError::Control),
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => self.out.push(byte),
            b'\\' => self.backslash(rules.backslash)?,
            b'/' => match rules.encoded_slash {
                EncodedSlash::Keep => self.encode(byte),
                EncodedSlash::Reject => return Err(PathError::EncodedSlash),
                EncodedSlash::Decode => self.separate()?,
            },
            _ => self.encode(byte),
        }
        Ok(())
    }

    fn backslash(&mut self, rule: Backslash) -> Result<(), PathError> {
        match rule {
            Backslash::Reject => return Err(PathError::Backslash),
            Backslash::Slash => self.separate()?,
            Backslash::Keep => self.encode(b'\\'),
        }
        Ok(())
    }

    fn encode(&mut self, byte: u8) {
        let digit = |value: u8| b"0123456789ABCDEF"[value as usize];
        self.out.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte & 0xf)]);
    }

    /// A separator: ends a segment and begins the next.
    fn separate(&mut self) -> Result<(), PathError> {
        let is_empty = self.segment == self.out.len();
        match self.empty_segment {
            EmptySegment::Merge if is_empty => return Ok(()),
            EmptySegment::Reject if is_empty => return Err(PathError::EmptySegment),
            _ => {}
        }
        if !self.end_segment() {
            self.out.push(b'/');
            self.segment = self.out.len();
        }
        Ok(())
    }

    /// Takes a dot segment out, and the one before it for `..` (RFC 3986 §5.2.4). Returns whether it was one; the
    /// output then ends in the separator before it.
    fn end_segment(&mut self) -> bool {
        match &self.out[self.segment..] {
            b"." => {}
            b".." => {
                // Never before the first separator, which is the root.
                let before = &self.out[..(self.segment - 1).max(1)];
                self.segment = before.iter().rposition(|byte| *byte == b'/').map_or(1, |slash| slash + 1);
            }
            _ => return false,
        }
        self.out.truncate(self.segment);
        true
    }
}

fn hex(digit: u8) -> Result<u8, PathError> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        b'A'..=b'F' => Ok(digit - b'A' + 10),
        _ => Err(PathError::Triplet),
    }
}

/// What a raw byte is to a path.
#[derive(Copy, Clone, PartialEq, Eq)]
enum Kind {
    /// `pchar` (RFC 3986 §3.3) without `%` and `.`.
    Plain,
    Dot,
    Slash,
    Percent,
    Backslash,
    /// Sent raw by browsers, though no `pchar`.
    Encode,
    Invalid,
}

static KINDS: [Kind; 256] = {
    let mut table = [Kind::Invalid; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = match byte as u8 {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'~' => Kind::Plain,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' | b':' | b'@' => {
                Kind::Plain
            }
            b'.' => Kind::Dot,
            b'/' => Kind::Slash,
            b'%' => Kind::Percent,
            b'\\' => Kind::Backslash,
            b'|' | b'[' | b']' | b'^' => Kind::Encode,
            _ => Kind::Invalid,
        };
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests;
