//! What request and response heads have in common: their limits, their lines and their fields. `httparse` splits a
//! head; this module takes back what it forgives (bare LF), finds a head's end in bytes that trickle in at linear
//! cost, says precisely what is wrong with a head that was refused, and notes the fields that framing and routing
//! depend on. It does not know what those fields mean.

use super::{
    extent::Extent,
    field::{Field, FieldName, Fields, may_be_forwarding, trim},
};

pub use super::field::FIELDS_MAX;

/// The most bytes a head may be allowed to have. Well below what an [`Extent`] can address.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;
const _: () = assert!(HEAD_BYTES_MAX <= u32::MAX as usize);

/// Sizes a head may have.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// First line and fields with the blank line, in bytes; [`HEAD_BYTES_MAX`] if it is more than that.
    pub head_bytes: usize,
    /// Fields; [`FIELDS_MAX`] if it is more than that.
    pub headers: usize,
    /// The request target, in bytes.
    pub target_bytes: usize,
}

impl HeadLimits {
    /// No others than those of the parser.
    pub const MOST: Self =
        Self { head_bytes: HEAD_BYTES_MAX, headers: FIELDS_MAX, target_bytes: HEAD_BYTES_MAX };

    /// `head_bytes` as it counts.
    #[inline]
    pub(super) fn head_bytes(&self) -> usize {
        self.head_bytes.min(HEAD_BYTES_MAX)
    }

    /// `headers` as it counts.
    #[inline]
    pub(super) fn headers(&self) -> usize {
        self.headers.min(FIELDS_MAX)
    }
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self { head_bytes: 16 * 1024, headers: 100, target_bytes: 8 * 1024 }
    }
}

/// How far parsing a head came.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// Nothing wrong so far, and no end yet.
    Partial,
    /// The head is complete.
    Complete {
        /// Bytes of the head, blank line included: the body or the next message begins here.
        head_len: usize,
    },
}

/// What can be wrong with a line of a head.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum LineError {
    BareCr,
    BareLf,
    ObsFold,
    SpaceBeforeColon,
    FieldName,
    FieldValue,
    /// The first line is not what it should be.
    FirstLine,
}

/// Looks at `bytes[from..]`, up to the blank line, for what no head may have in any place: a CR or LF alone, a
/// folded line, a control character. `from` is how far previous calls looked. Returns whether the blank line is
/// there.
pub(super) fn scan_lines(bytes: &[u8], from: usize) -> Result<bool, LineError> {
    // The last byte seen before may have been a CR whose LF was still to come.
    for at in from.saturating_sub(1)..bytes.len() {
        let previous = if at == 0 { 0 } else { bytes[at - 1] };
        match bytes[at] {
            b'\n' if previous != b'\r' => return Err(LineError::BareLf),
            b'\n' if at >= 3 && bytes[at - 2] == b'\n' => return Ok(true),
            b'\r' if bytes.get(at + 1).is_some_and(|next| *next != b'\n') => return Err(LineError::BareCr),
            b' ' | b'\t' if previous == b'\n' => return Err(LineError::ObsFold),
            b'\r' | b'\n' | b'\t' => {}
            0..0x20 | 0x7f if bytes[..at].contains(&b'\n') => return Err(LineError::FieldValue),
            0..0x20 | 0x7f => return Err(LineError::FirstLine),
            _ => {}
        }
    }
    Ok(false)
}

/// Says what is wrong with the head at the beginning of `bytes`, which `httparse` refused with `error`: before it had
/// split the first line, or after.
#[cold]
pub(super) fn diagnose(bytes: &[u8], error: httparse::Error, first_line_is_split: bool) -> LineError {
    let mut lines = bytes.split_inclusive(|byte| *byte == b'\n');
    if let Err(error) = check_ending(lines.next().unwrap_or_default()) {
        return error;
    }
    let fields = if first_line_is_split { Some(lines) } else { None };
    for line in fields.into_iter().flatten() {
        let found = match check_ending(line) {
            Err(error) => Err(error),
            Ok([]) => break,
            Ok([b' ' | b'\t', ..]) => Err(LineError::ObsFold),
            // The end of a line was wrong, not what it says.
            Ok(_) if error == httparse::Error::NewLine => Ok(()),
            Ok(content) => field_line(content).map(|_| ()),
        };
        if let Err(error) = found {
            return error;
        }
    }
    LineError::FirstLine
}

/// A line without its CRLF, which is missing when the line has not ended yet.
fn check_ending(line: &[u8]) -> Result<&[u8], LineError> {
    let content = match line {
        [content @ .., b'\r', b'\n'] => content,
        [.., b'\n'] => return Err(LineError::BareLf),
        [content @ .., b'\r'] => content,
        content => content,
    };
    if content.contains(&b'\r') { Err(LineError::BareCr) } else { Ok(content) }
}

/// Splits a field line without its CRLF into name and trimmed value, as strictly as a head is parsed (RFC 9112 §5).
pub(super) fn field_line(line: &[u8]) -> Result<(&[u8], &[u8]), LineError> {
    let name_len = line.iter().position(|byte| !is_token_byte(*byte)).unwrap_or(line.len());
    let (name, rest) = line.split_at(name_len);
    match rest {
        [b':', ..] if name.is_empty() => Err(LineError::FieldName),
        [b':', value @ ..] if value.iter().all(|byte| is_value_byte(*byte)) => Ok((name, trim(value))),
        [b':', ..] => Err(LineError::FieldValue),
        [b' ' | b'\t', ..] if !name.is_empty() && trim(rest).first() == Some(&b':') => {
            Err(LineError::SpaceBeforeColon)
        }
        _ => Err(LineError::FieldName),
    }
}

/// `tchar` of RFC 9110 §5.6.2.
#[inline]
pub(super) const fn is_token_byte(byte: u8) -> bool {
    TOKEN_BYTES[byte as usize]
}

/// One look instead of a row of comparisons: every name that is not known is looked at byte by byte.
static TOKEN_BYTES: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = is_tchar(byte as u8);
        byte += 1;
    }
    table
};

const fn is_tchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
}

/// A byte of a field value (RFC 9110 §5.5): visible, space, tab or obs-text.
pub(super) const fn is_value_byte(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=0x7e | 0x80..)
}

/// Whether `text` is a token (RFC 9110 §5.6.2).
pub(super) fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| is_token_byte(*byte))
}

/// How often a field came, and where its first value is.
#[derive(Copy, Clone, Default, Debug)]
pub(super) struct Seen {
    pub(super) times: u32,
    pub(super) first: Extent,
}

impl Seen {
    #[inline]
    fn note(&mut self, value: Extent) {
        if self.times == 0 {
            self.first = value;
        }
        self.times += 1;
    }
}

/// The fields that routing, framing and the connection depend on.
#[derive(Copy, Clone, Default, Debug)]
pub(super) struct Noted {
    pub(super) connection: Seen,
    pub(super) content_length: Seen,
    pub(super) expect: Seen,
    pub(super) host: Seen,
    pub(super) te: Seen,
    pub(super) transfer_encoding: Seen,
    pub(super) upgrade: Seen,
}

impl Noted {
    #[inline]
    pub(super) fn note(&mut self, name: FieldName, value_at: Extent) {
        match name {
            FieldName::Connection => self.connection.note(value_at),
            FieldName::ContentLength => self.content_length.note(value_at),
            FieldName::Expect => self.expect.note(value_at),
            FieldName::Host => self.host.note(value_at),
            FieldName::Te => self.te.note(value_at),
            FieldName::TransferEncoding => self.transfer_encoding.note(value_at),
            FieldName::Upgrade => self.upgrade.note(value_at),
            _ => {}
        }
    }
}

/// Takes what `httparse` found in the complete head `bytes` into `fields`, and notes those that count.
/// `httparse` has refused everything a field line must not have, except a line that ends in LF alone: so each name
/// and the blank line must be behind a CRLF.
#[inline]
pub(super) fn collect(
    bytes: &[u8],
    headers: &[httparse::Header<'_>],
    fields: &mut Fields,
    noted: &mut Noted,
) -> Result<(), LineError> {
    let mut clean = bytes.ends_with(b"\r\n\r\n");
    fields.clear();
    for header in headers {
        let name = FieldName::recognise(header.name.as_bytes());
        let name_at = Extent::of(bytes, header.name.as_bytes());
        let value_at = Extent::of(bytes, header.value);
        clean &= bytes.get((name_at.start as usize).wrapping_sub(2)) == Some(&b'\r');
        let is_canonical = bytes[name_at.end()..].starts_with(b": ")
            && value_at.start as usize == name_at.end() + 2
            && bytes[value_at.end()..].starts_with(b"\r\n");
        noted.note(name, value_at);
        let is_odd = |byte: u8| !byte.is_ascii_alphanumeric() && byte != b'-';
        if header.name.bytes().any(is_odd) || may_be_forwarding(header.name.as_bytes()) {
            fields.note_odd();
        }
        fields.push(Field { name, hop: name.is_hop_by_hop(), name_at, value_at }, is_canonical);
    }
    if clean { Ok(()) } else { Err(LineError::BareLf) }
}

/// The values of every field called `name`.
pub(super) fn values<'h>(
    bytes: &'h [u8],
    fields: &'h Fields,
    name: FieldName,
) -> impl Iterator<Item = &'h [u8]> {
    fields.named(name).map(|field| field.value_at.bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_blank_line_is_found_wherever_the_bytes_are_cut() {
        let wire = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nbody\n\0";
        for cut in 0..=wire.len() {
            let seen = scan_lines(&wire[..cut], 0).unwrap();
            assert_eq!(seen, cut >= 27, "cut at {cut}");
            if !seen {
                assert_eq!(scan_lines(wire, cut), Ok(true), "continued at {cut}");
            }
        }
    }

    #[test]
    fn what_no_line_may_have_is_found_wherever_the_bytes_are_cut() {
        let cases: [(&[u8], LineError); 6] = [
            (b"GET / HTTP/1.1\nHost", LineError::BareLf),
            (b"GET / HTTP/1.1\rHost", LineError::BareCr),
            (b"GET / HTTP/1.1\r\r\n", LineError::BareCr),
            (b"GET / HTTP/1.1\r\nA: b\r\n c", LineError::ObsFold),
            (b"GET /\0", LineError::FirstLine),
            (b"GET / HTTP/1.1\r\nA: \x7f", LineError::FieldValue),
        ];
        for (wire, error) in cases {
            for cut in 0..=wire.len() {
                let found = scan_lines(&wire[..cut], 0).and_then(|_| scan_lines(wire, cut));
                assert_eq!(found, Err(error), "{wire:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn field_lines_are_split_or_refused() {
        assert_eq!(field_line(b"a:\t b c\t"), Ok((&b"a"[..], &b"b c"[..])));
        assert_eq!(field_line(b"a:"), Ok((&b"a"[..], &b""[..])));
        assert_eq!(field_line(b"a:\x80\xff"), Ok((&b"a"[..], &b"\x80\xff"[..])));
        for (line, error) in [
            (&b"a : b"[..], LineError::SpaceBeforeColon),
            (b"a\t: b", LineError::SpaceBeforeColon),
            (b": b", LineError::FieldName),
            (b" : b", LineError::FieldName),
            (b"a b: c", LineError::FieldName),
            (b"a", LineError::FieldName),
            (b"", LineError::FieldName),
            (b"\xe9: b", LineError::FieldName),
            (b"a: \0", LineError::FieldValue),
            (b"a: \x0b", LineError::FieldValue),
        ] {
            assert_eq!(field_line(line), Err(error), "{line:?}");
        }
    }

    #[test]
    fn token_bytes_are_those_of_the_rfc() {
        let tokens: Vec<u8> =
            (0..=255).filter(|byte| is_token_byte(*byte)).filter(|b| !b.is_ascii_alphanumeric()).collect();
        assert_eq!(tokens, b"!#$%&'*+-.^_`|~");
    }
}
