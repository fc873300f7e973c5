//! The quick way through a head: one pass over complete, plainly well-formed bytes, sixteen at a time. It never refuses;
//! at anything else (a cut, an odd byte, a line end that is not CRLF) it gives up, and `httparse` and
//! [`head`](super::head) read the same bytes again and say what is wrong. So it may only take what they take, and must
//! find in it what they find, which property tests compare.

use super::{
    extent::Extent,
    field::{Field, FieldName, Fields, may_be_forwarding},
    head::{Noted, is_token_byte},
    lanes::{Lanes, find},
};

/// Where a line ends that has no control character but HTAB: at its CRLF.
#[inline]
fn line_end(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let stop = find(bytes, at, Lanes::controls)?;
        match bytes.get(stop..stop + 2)? {
            b"\r\n" => return Some(stop),
            [b'\t', _] => at = stop + 1,
            _ => return None,
        }
    }
}

/// Where the colon behind a name is that has other bytes than letters, digits and `-`, from `plain_end` on.
#[cold]
fn colon_behind(bytes: &[u8], plain_end: usize) -> Option<usize> {
    let end = plain_end + bytes.get(plain_end..)?.iter().position(|byte| !is_token_byte(*byte))?;
    (bytes[end] == b':').then_some(end)
}

/// A value without the blanks around it.
fn trimmed(bytes: &[u8], mut start: usize, mut end: usize) -> Extent {
    let is_blank = |byte: u8| matches!(byte, b' ' | b'\t');
    while start < end && is_blank(bytes[start]) {
        start += 1;
    }
    while start < end && is_blank(bytes[end - 1]) {
        end -= 1;
    }
    Extent::between(start, end)
}

/// Reads field lines from `at` to the blank line, at most `fields_max`; says where the head ends. `None`: not this way.
///
/// Not inlined: within a connection's state machine there are too few registers left for its loop, which costs more per
/// field than the call per head.
#[inline(never)]
pub(super) fn fields(
    bytes: &[u8],
    mut at: usize,
    fields_max: usize,
    fields: &mut Fields,
    noted: &mut Noted,
) -> Option<usize> {
    fields.clear();
    loop {
        let mut colon = find(bytes, at, Lanes::but_name_bytes)?;
        if bytes[colon] != b':' {
            if bytes.get(at..at + 2)? == b"\r\n" {
                return Some(at + 2);
            }
            colon = colon_behind(bytes, colon)?;
            fields.note_odd();
        }
        if colon == at || fields.len() == fields_max {
            return None;
        }
        let end = line_end(bytes, colon + 1)?;
        let name_at = Extent::between(at, colon);
        // The one canonical shape is a single blank before the value and none behind it.
        let is_canonical = bytes[colon + 1] == b' ' && bytes[colon + 2] > b' ' && bytes[end - 1] > b' ';
        let value_at =
            if is_canonical { Extent::between(colon + 2, end) } else { trimmed(bytes, colon + 1, end) };
        let name = FieldName::recognise(&bytes[at..colon]);
        if name == FieldName::Other {
            if may_be_forwarding(&bytes[at..colon]) {
                fields.note_odd();
            }
            fields.push(Field { name: FieldName::Other, hop: false, name_at, value_at }, is_canonical);
        } else {
            noted.note(name, value_at);
            fields.push(Field { name, hop: name.is_hop_by_hop(), name_at, value_at }, is_canonical);
        }
        at = end + 2;
    }
}

/// A request line: method and target as they are, the version's last digit, and where the line ends.
#[inline]
pub(super) fn request_line(bytes: &[u8], at: usize) -> Option<(Extent, Extent, u8, usize)> {
    let method_end = find(bytes, at, Lanes::but_name_bytes)?;
    let target_end = find(bytes, method_end + 1, Lanes::controls_and_blanks)?;
    let is_line = bytes[method_end] == b' ' && bytes[target_end] == b' ';
    if !is_line || method_end == at || target_end == method_end + 1 {
        return None;
    }
    let end: &[u8; 10] = bytes.get(target_end + 1..)?.first_chunk()?;
    let minor = match end {
        b"HTTP/1.1\r\n" => 1,
        b"HTTP/1.0\r\n" => 0,
        _ => return None,
    };
    let (method, target) = (Extent::between(at, method_end), Extent::between(method_end + 1, target_end));
    Some((method, target, minor, target_end + 1 + end.len()))
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
    Some((minor, hundreds * 100 + tens * 10 + ones, line_end(bytes, 13)? + 2))
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
