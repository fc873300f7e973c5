//! The quick way through a head: one pass over complete, plainly well-formed bytes, eight at a time. It never refuses;
//! at anything else (a cut, an odd byte, a line end that is not CRLF) it gives up, and `httparse` and
//! [`head`](super::head) read the same bytes again and say what is wrong. So it may only take what they take, and must
//! find in it what they find, which property tests compare.

use super::{
    extent::Extent,
    field::{Field, FieldName, Fields},
    head::{Noted, is_token_byte},
};

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = ONES << 7;

/// The eight bytes at `at`, the first in the lowest place.
#[inline]
fn word(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|chunk| u64::from_le_bytes(*chunk))
}

/// The high bits of the bytes that are below `limit` (at most 0x80); exact up to the lowest one.
#[inline]
const fn below(word: u64, limit: u8) -> u64 {
    word.wrapping_sub(ONES * limit as u64) & !word & HIGHS
}

/// The high bits of the bytes that are `byte`; exact up to the lowest one.
#[inline]
const fn equal(word: u64, byte: u8) -> u64 {
    below(word ^ (ONES * byte as u64), 1)
}

/// Which byte the lowest high bit of a mask is of.
#[inline]
const fn lowest(mask: u64) -> usize {
    mask.trailing_zeros() as usize / 8
}

/// The first byte from `at` on for which `stops` holds; `mask` marks such bytes in a word.
#[inline]
fn find(bytes: &[u8], mut at: usize, mask: impl Fn(u64) -> u64, stops: impl Fn(u8) -> bool) -> Option<usize> {
    while let Some(word) = word(bytes, at) {
        let mask = mask(word);
        if mask != 0 {
            return Some(at + lowest(mask));
        }
        at += 8;
    }
    let rest = bytes.get(at..)?;
    rest.iter().position(|byte| stops(*byte)).map(|offset| at + offset)
}

/// Where a field's value ends: at the first control character but HTAB.
#[inline]
fn value_end(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let stop = find(
            bytes,
            at,
            |word| below(word, b' ') | equal(word, 0x7f),
            |byte| byte < b' ' || byte == 0x7f,
        )?;
        if bytes[stop] != b'\t' {
            return Some(stop);
        }
        at = stop + 1;
    }
}

/// Reads field lines from `at` to the blank line, at most `fields_max`; says where the head ends. `None`: not this way.
#[inline]
pub(super) fn fields(
    bytes: &[u8],
    mut at: usize,
    fields_max: usize,
    fields: &mut Fields,
    noted: &mut Noted,
) -> Option<usize> {
    fields.clear();
    loop {
        if *bytes.get(at)? == b'\r' {
            return (*bytes.get(at + 1)? == b'\n').then_some(at + 2);
        }
        let colon = find(bytes, at, |word| equal(word, b':'), |byte| byte == b':')?;
        let text = &bytes[at..colon];
        let name = FieldName::recognise(text);
        if name == FieldName::Other && (text.is_empty() || !text.iter().all(|byte| is_token_byte(*byte))) {
            return None;
        }
        let mut start = colon + 1;
        while matches!(bytes.get(start)?, b' ' | b'\t') {
            start += 1;
        }
        let line_end = value_end(bytes, start)?;
        if bytes.get(line_end..line_end + 2)? != b"\r\n" || fields.len() == fields_max {
            return None;
        }
        let mut end = line_end;
        while end > start && matches!(bytes[end - 1], b' ' | b'\t') {
            end -= 1;
        }
        let value_at = Extent::between(start, end);
        noted.note(name, value_at);
        fields.push(Field { name, hop: name.is_hop_by_hop(), name_at: Extent::between(at, colon), value_at });
        at = line_end + 2;
    }
}

/// A request line: method and target as they are, the version's last digit, and where the line ends.
#[inline]
pub(super) fn request_line(bytes: &[u8], at: usize) -> Option<(Extent, Extent, u8, usize)> {
    let is_stop = |byte| byte <= b' ' || byte == 0x7f;
    let mask = |word| below(word, b' ' + 1) | equal(word, 0x7f);
    let method_end = find(bytes, at, mask, is_stop)?;
    let target_end = find(bytes, method_end + 1, mask, is_stop)?;
    let method = bytes.get(at..method_end)?;
    let is_method = !method.is_empty() && method.iter().all(|byte| is_token_byte(*byte));
    if !is_method || bytes[method_end] != b' ' || bytes[target_end] != b' ' || target_end == method_end + 1 {
        return None;
    }
    let minor = minor_version(bytes.get(target_end + 1..target_end + 9)?)?;
    let line_end = target_end + 11;
    (bytes.get(target_end + 9..line_end)? == b"\r\n").then_some((
        Extent::between(at, method_end),
        Extent::between(method_end + 1, target_end),
        minor,
        line_end,
    ))
}

/// A status line: the version's last digit, the status, and where the line ends.
#[inline]
pub(super) fn status_line(bytes: &[u8]) -> Option<(u8, u16, usize)> {
    let minor = minor_version(bytes.get(..8)?)?;
    let [b' ', hundreds @ b'0'..=b'9', tens @ b'0'..=b'9', ones @ b'0'..=b'9', b' '] = *bytes.get(8..13)?
    else {
        return None;
    };
    let [hundreds, tens, ones] = [hundreds, tens, ones].map(|digit| u16::from(digit - b'0'));
    let line_end = value_end(bytes, 13)?;
    (bytes.get(line_end..line_end + 2)? == b"\r\n").then_some((
        minor,
        hundreds * 100 + tens * 10 + ones,
        line_end + 2,
    ))
}

#[inline]
fn minor_version(version: &[u8]) -> Option<u8> {
    match version {
        b"HTTP/1.1" => Some(1),
        b"HTTP/1.0" => Some(0),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
