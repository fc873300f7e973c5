//! Writing a head: lines into one buffer, unchanged fields copied in runs. Knows bytes, not which fields a gateway
//! keeps.

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
        let mut run = 0..0;
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
