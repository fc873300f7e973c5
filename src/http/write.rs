//! Writing a head: lines into one buffer, unchanged fields copied in runs. Knows bytes, not which fields a gateway
//! keeps.

use std::ops::Range;

use super::field::{Field, Fields};
use crate::buf::Buf;

/// Writes a head into a buffer. An overflow is remembered and reported once, at the end.
pub struct HeadWriter<'b> {
    out: &'b mut Buf,
    overflow: bool,
}

/// The head did not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overflow;

impl<'b> HeadWriter<'b> {
    /// Writes behind what is in `out`.
    #[inline]
    pub fn new(out: &'b mut Buf) -> Self {
        Self { out, overflow: false }
    }

    /// Appends bytes as they are.
    #[inline]
    pub fn put(&mut self, bytes: &[u8]) {
        self.overflow |= !self.out.push(bytes);
    }

    /// Appends a field line.
    #[inline]
    pub fn field(&mut self, name: &[u8], value: &[u8]) {
        self.put(name);
        self.put(b": ");
        self.put(value);
        self.put(b"\r\n");
    }

    /// Appends a number in decimal.
    #[inline]
    pub fn number(&mut self, mut number: u64) {
        let mut digits = [0; 20];
        let mut at = digits.len();
        loop {
            at -= 1;
            digits[at] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                break;
            }
        }
        self.put(&digits[at..]);
    }

    /// Copies the fields that `keeps` wants. Neighbouring lines that are already in the one canonical shape,
    /// `name: value`, are copied in one go.
    #[inline]
    pub fn fields(&mut self, head: &[u8], fields: &Fields, keeps: impl Fn(&Field) -> bool) {
        self.lines(head, 0..0, fields, keeps);
    }

    /// The same, with the lines `first` of the head copied before them: a first line that goes on as it came is part
    /// of the first run.
    #[inline]
    pub fn lines(
        &mut self,
        head: &[u8],
        first: Range<usize>,
        fields: &Fields,
        keeps: impl Fn(&Field) -> bool,
    ) {
        let mut run = first;
        for field in fields.iter() {
            if !keeps(field) {
                continue;
            }
            let (start, end) = (field.name_at.start as usize, field.value_at.end());
            let is_canonical = field.value_at.start as usize == field.name_at.end() + 2
                && head[field.name_at.end() + 1] == b' '
                && head[end] == b'\r';
            if !is_canonical {
                self.put(&head[run]);
                run = 0..0;
                self.field(field.name_at.bytes(head), field.value_at.bytes(head));
            } else if run.end == start {
                run.end = end + 2;
            } else {
                self.put(&head[run]);
                run = start..end + 2;
            }
        }
        self.put(&head[run]);
    }

    /// Ends the head with its blank line.
    #[inline]
    pub fn finish(mut self) -> Result<(), Overflow> {
        self.put(b"\r\n");
        if self.overflow { Err(Overflow) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        buf::Size,
        http::{
            field::FieldName,
            request::{HeadLimits, RequestHead, parse_request},
        },
    };

    fn copied(wire: &[u8], with_first_line: bool, keeps: impl Fn(&Field) -> bool) -> String {
        let mut head = RequestHead::default();
        parse_request(wire, &mut 0, &HeadLimits::default(), &mut head).unwrap();
        let mut out = Buf::take(Size::Small).unwrap();
        let mut to = HeadWriter::new(&mut out);
        let first_len = wire.windows(2).position(|two| two == b"\r\n").unwrap() + 2;
        to.lines(wire, if with_first_line { 0..first_len } else { 0..0 }, &head.fields, keeps);
        to.finish().unwrap();
        String::from_utf8(out.filled().to_vec()).unwrap()
    }

    #[test]
    fn a_head_that_goes_on_as_it_came_is_the_same() {
        let wire = b"GET / HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n";
        assert_eq!(copied(wire, true, |_| true).as_bytes(), wire);
    }

    #[test]
    fn fields_are_left_out_and_put_into_shape() {
        let wire = b"GET / HTTP/1.1\r\nHost: a\r\nX-A:1\r\nX-B: \t2 \r\nX-C: 3\r\nX-Empty:\r\nX-D: 4\r\n\r\n";
        let all = "Host: a\r\nX-A: 1\r\nX-B: 2\r\nX-C: 3\r\nX-Empty: \r\nX-D: 4\r\n\r\n";
        assert_eq!(copied(wire, false, |_| true), all);
        let without_host = copied(wire, false, |field| field.name != FieldName::Host);
        assert_eq!(without_host, all.strip_prefix("Host: a\r\n").unwrap());
    }

    #[test]
    fn overflow_is_reported_at_the_end() {
        let mut out = Buf::take(Size::Small).unwrap();
        let mut to = HeadWriter::new(&mut out);
        for _ in 0..crate::buf::SMALL_BYTES / 8 {
            to.put(b"12345678");
        }
        assert_eq!(to.finish(), Err(Overflow));
    }
}
