//! Writing a head: lines into one buffer, unchanged fields copied in runs. Knows bytes, not which fields a gateway
//! keeps.

use std::ops::Range;

use super::field::{Field, Fields, NameSet, Places, mark};
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

    /// Copies the fields but those that end at this hop, and those that are `left_out`: neighbouring lines in one go,
    /// unless they are not in the one canonical shape, `name: value`. `head` is the whole head.
    #[inline]
    pub fn fields<R: Fn(&[u8]) -> bool>(&mut self, head: &[u8], fields: &Fields, left_out: &LeftOut<R>) {
        self.lines(head, 0..0, fields, left_out);
    }

    /// The same, with the lines `first` of the head copied before them: a first line that goes on as it came is part
    /// of the first run.
    ///
    /// Only lines where a run ends are looked at, so what goes on unchanged costs its bytes and nothing per field.
    #[inline]
    pub fn lines<R: Fn(&[u8]) -> bool>(
        &mut self,
        head: &[u8],
        first: Range<usize>,
        fields: &Fields,
        left_out: &LeftOut<R>,
    ) {
        let mut run = first;
        if run.end != fields.start(head) {
            self.put_lines(&head[run]);
            run = fields.start(head)..0;
        }
        let stops = left_out.places(head, fields);
        for (word, mut places) in stops.into_iter().enumerate() {
            while places != 0 {
                let at = word * u64::BITS as usize + places.trailing_zeros() as usize;
                places &= places - 1;
                let field = &fields.as_slice()[at];
                self.put_lines(&head[run.start..field.name_at.start as usize]);
                if left_out.keeps(head, field) {
                    self.field(field.name_at.bytes(head), field.value_at.bytes(head));
                }
                run.start = fields.line_end(head, at);
            }
        }
        self.put_lines(&head[run.start..head.len() - 2]);
    }

    /// Appends whole lines, if there are any: asking is less than a copy of nothing.
    #[inline]
    pub fn put_lines(&mut self, lines: &[u8]) {
        if !lines.is_empty() {
            self.put(lines);
        }
    }

    /// Ends the head with its blank line.
    #[inline]
    pub fn finish(mut self) -> Result<(), Overflow> {
        self.put(b"\r\n");
        if self.overflow { Err(Overflow) } else { Ok(()) }
    }
}

/// The fields of a head that are not copied, beside those that end at this hop.
#[derive(Debug, Clone, Copy)]
pub struct LeftOut<R> {
    /// Those of these names.
    pub names: NameSet,
    /// Those whose name, as sent, this says; it is not asked when there is none.
    pub removes: Option<R>,
}

impl LeftOut<fn(&[u8]) -> bool> {
    /// Those of these names.
    pub const fn names(names: NameSet) -> Self {
        Self { names, removes: None }
    }
}

impl<R: Fn(&[u8]) -> bool> LeftOut<R> {
    /// The places of the fields that do not go on as they came.
    #[inline]
    fn places(&self, head: &[u8], fields: &Fields) -> Places {
        let mut places = *fields.marked();
        if self.removes.is_some() || fields.names().meets(self.names) {
            for (at, field) in fields.iter().enumerate() {
                if !self.keeps(head, field) {
                    mark(&mut places, at);
                }
            }
        }
        places
    }

    #[inline]
    fn keeps(&self, head: &[u8], field: &Field) -> bool {
        let is_removed = || self.removes.as_ref().is_some_and(|removes| removes(field.name_at.bytes(head)));
        !field.hop && !self.names.has(field.name) && !is_removed()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        buf::Size,
        http::{
            field::FieldName,
            request::{HeadLimits, RequestHead, parse_request},
        },
    };

    /// The first line, if it is wanted, and the fields that a head's writer is to copy.
    fn copied(wire: &[u8], with_first_line: bool, names: &[FieldName], removed: Option<&[u8]>) -> String {
        let mut head = RequestHead::default();
        parse_request(wire, &mut 0, &HeadLimits::default(), &mut head).unwrap();
        let mut out = Buf::take(Size::Small).unwrap();
        let mut to = HeadWriter::new(&mut out);
        let first = if with_first_line { 0..head.fields.start(wire) } else { 0..0 };
        let removes = removed.map(|removed| move |name: &[u8]| name.eq_ignore_ascii_case(removed));
        to.lines(wire, first, &head.fields, &LeftOut { names: NameSet::of(names), removes });
        to.finish().unwrap();
        String::from_utf8(out.filled().to_vec()).unwrap()
    }

    #[test]
    fn a_head_that_goes_on_as_it_came_is_the_same() {
        for wire in ["GET / HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n", "GET / HTTP/1.0\r\n\r\n"] {
            assert_eq!(copied(wire.as_bytes(), true, &[], None), wire);
        }
    }

    #[test]
    fn fields_are_left_out_and_put_into_shape() {
        let wire = b"GET / HTTP/1.1\r\nHost: a\r\nX-A:1\r\nX-B: \t2 \r\nX-C: 3\r\nX-Empty:\r\nX-D: 4\r\n\r\n";
        let all = "Host: a\r\nX-A: 1\r\nX-B: 2\r\nX-C: 3\r\nX-Empty: \r\nX-D: 4\r\n\r\n";
        assert_eq!(copied(wire, false, &[], None), all);
        let without_host = copied(wire, false, &[FieldName::Host, FieldName::Date], None);
        assert_eq!(without_host, all.strip_prefix("Host: a\r\n").unwrap());
        for removed in ["X-A: 1\r\n", "X-B: 2\r\n", "X-C: 3\r\n", "X-D: 4\r\n"] {
            let rest = copied(wire, false, &[], Some(removed.split_once(':').unwrap().0.as_bytes()));
            assert_eq!(rest, all.replace(removed, ""));
        }
    }

    #[test]
    fn what_ends_at_this_hop_is_left_out_wherever_it_stands() {
        let own = [
            "Connection: X-Own, keep-alive\r\n",
            "Keep-Alive: timeout=5\r\n",
            "TE:trailers\r\n",
            "x-own: 1\r\n",
        ];
        let kept = ["Host: a\r\n", "Accept: */*\r\n", "X-Owner: 2\r\n"];
        for turn in 0..own.len() {
            for apart in [true, false] {
                let mut lines: Vec<_> = kept.iter().chain(&own).copied().collect();
                lines.rotate_right(turn);
                if apart {
                    lines.sort_by_key(|line| line.len());
                }
                let wire = format!("GET / HTTP/1.1\r\n{}\r\n", lines.concat());
                lines.retain(|line| kept.contains(line));
                assert_eq!(copied(wire.as_bytes(), false, &[], None), lines.concat() + "\r\n", "{wire}");
            }
        }
    }

    proptest! {
        /// Runs of lines come to the same as line by line.
        #[test]
        fn runs_are_their_lines(
            lines in proptest::collection::vec(
                "(Host|Connection|TE|Accept|x-a|X-B|Date|X-Request-Id):( |\t){0,2}[a-z]{0,4}(, x-[ab])?( ){0,1}", 0..40),
            names in proptest::sample::subsequence(&[FieldName::Accept, FieldName::XRequestId, FieldName::Date], 0..3),
            removes in any::<Option<bool>>(),
        ) {
            let wire = format!("GET http://a/ HTTP/1.1\r\nHost: a\r\n{}\r\n", lines.iter()
                .filter(|line| !line.starts_with("Host"))
                .map(|line| format!("{line}\r\n")).collect::<String>());
            let removed: Option<&[u8]> = removes.map(|is_known| if is_known { &b"ACCEPT"[..] } else { b"X-a" });
            let mut head = RequestHead::default();
            prop_assume!(parse_request(wire.as_bytes(), &mut 0, &HeadLimits::default(), &mut head).is_ok());
            let mut expected = String::new();
            for field in &head.fields {
                let (name, value) = (field.name_at.bytes(wire.as_bytes()), field.value_at.bytes(wire.as_bytes()));
                let is_removed = removed.is_some_and(|removed| removed.eq_ignore_ascii_case(name));
                if !field.hop && !names.contains(&field.name) && !is_removed {
                    let (name, value) = (str::from_utf8(name).unwrap(), str::from_utf8(value).unwrap());
                    expected += &format!("{name}: {value}\r\n");
                }
            }
            prop_assert_eq!(copied(wire.as_bytes(), false, &names, removed), expected + "\r\n");
        }
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
