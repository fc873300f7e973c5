//! One log line while it is written: a window of fixed size into a batch, so that no write can make it grow, and the
//! escapes that make bytes which others chose harmless in it. Whatever comes in, a value goes out as printable ASCII
//! without the quote or backslash that would end or bend it: one line stays one line, in any terminal.

use std::net::IpAddr;

use super::text::{EIGHT_DIGITS, HEX, Short, decimal, decimal_small, ipv4, ipv6, padded_digits};

/// Bytes of one line at most, its newline included.
pub const LINE_BYTES_MAX: usize = 36 * 1024;

/// What a line is written into.
type Window = [u8; LINE_BYTES_MAX];

/// Where a line has ended that found no room: no write fits behind it.
const OVERFULL: usize = LINE_BYTES_MAX + 1;

/// A line in the making. What does not fit makes the whole line void, see [`Line::is_overfull`].
#[derive(Debug)]
pub struct Line<'w> {
    window: &'w mut Window,
    end: usize,
}

impl<'w> Line<'w> {
    /// An empty line at the beginning of `window`.
    pub fn new(window: &'w mut Window) -> Self {
        Self { window, end: 0 }
    }

    /// The same line under another name, which the compiler can keep in registers; [`Line::resume`] ends it.
    #[inline]
    pub(super) fn local(&mut self) -> Line<'_> {
        Line { window: self.window, end: self.end }
    }

    /// Goes on where the local line ended.
    #[inline]
    pub(super) fn resume(&mut self, end: usize) {
        self.end = end;
    }

    /// Where it ends now.
    #[inline]
    pub(super) fn end(&self) -> usize {
        self.end
    }

    /// Whether it became longer than [`LINE_BYTES_MAX`] and is void.
    #[inline]
    pub fn is_overfull(&self) -> bool {
        self.end > LINE_BYTES_MAX
    }

    /// What was written; nothing when it is void.
    pub fn as_bytes(&self) -> &[u8] {
        self.window.get(..self.end).unwrap_or_default()
    }

    /// Writes text that is known when compiled.
    #[inline]
    pub fn text<const N: usize>(&mut self, text: &[u8; N]) {
        self.put(text, N);
    }

    /// Writes bytes as they are.
    #[inline]
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.end = put_bytes(self.window, self.end, bytes);
    }

    /// Writes a number in decimal.
    #[inline]
    pub fn number(&mut self, value: u64) {
        if value < 10 {
            self.put(&[b'0' + value as u8], 1);
        } else {
            self.end = put_number(self.window, self.end, value);
        }
    }

    /// Writes an address, as [`super::text::append_ip`] does.
    #[inline]
    pub fn ip(&mut self, ip: IpAddr) {
        match ip.to_canonical() {
            IpAddr::V4(ip) => self.short(&ipv4(ip)),
            IpAddr::V6(ip) => self.bytes(&ipv6(ip)),
        }
    }

    /// Writes bytes as the inside of a JSON string (RFC 8259 §7): quote and backslash escaped, control characters, DEL
    /// and everything beyond ASCII as `\uXXXX` (beyond U+FFFF as a surrogate pair). What is not UTF-8 becomes
    /// `\ufffd`, one for each maximal broken part, as `String::from_utf8_lossy` has it. A reader gets the text back;
    /// a terminal gets no C1 control, no bidi mark and no second line (U+0085, U+2028).
    #[inline]
    pub fn json(&mut self, bytes: &[u8]) {
        self.end = match put_plain(self.window, self.end, bytes) {
            Some(end) => end,
            None => put_json(self.window, self.end, bytes),
        };
    }

    /// Writes bytes as the combined log format has them, escaped as nginx does: quote, backslash, control characters
    /// and everything beyond ASCII as `\xXX`, byte by byte. Nothing at all becomes `-`.
    #[inline]
    pub fn combined(&mut self, bytes: &[u8]) {
        let bytes = if bytes.is_empty() { b"-" } else { bytes };
        self.end = match put_plain(self.window, self.end, bytes) {
            Some(end) => end,
            None => put_combined(self.window, self.end, bytes),
        };
    }

    #[inline]
    fn short<const N: usize>(&mut self, short: &Short<N>) {
        let (bytes, length) = short.padded();
        self.put(bytes, length);
    }

    /// Writes the first `length` bytes, and behind them for now the others.
    #[inline]
    fn put<const N: usize>(&mut self, bytes: &[u8; N], length: usize) {
        self.end = match self.window.get_mut(self.end..self.end + N) {
            Some(room) => {
                room.copy_from_slice(bytes);
                self.end + length
            }
            None => OVERFULL,
        };
    }
}

// What follows works on a window and an end, and answers the new end, instead of on a `Line`: one whose address was
// given away could not be kept in registers.

fn put_bytes(window: &mut Window, end: usize, bytes: &[u8]) -> usize {
    match window.get_mut(end..end + bytes.len()) {
        Some(room) => {
            room.copy_from_slice(bytes);
            end + bytes.len()
        }
        None => OVERFULL,
    }
}

fn put_number(window: &mut Window, end: usize, value: u64) -> usize {
    let mut line = Line { window, end };
    if value < 10_000 {
        line.short(&decimal_small(value as u32));
    } else if value < EIGHT_DIGITS {
        line.short(&decimal(value as u32));
    } else {
        // Rare: byte counts of large bodies.
        line.number(value / EIGHT_DIGITS);
        line.text(&padded_digits((value % EIGHT_DIGITS) as u32));
    }
    line.end
}

/// Whether a byte stands for itself in both formats.
#[inline]
const fn is_plain(byte: u8) -> bool {
    // One comparison for the range, and none that branches.
    (byte.wrapping_sub(b' ') <= b'~' - b' ') & (byte != b'"') & (byte != b'\\')
}

/// Writes bytes that all stand for themselves, and answers the new end; `None` when one does not. Nearly every value is
/// such. They are looked at while they are copied, sixteen at a time and without a branch, which compiles to vector
/// compares; what is left over is taken together with bytes that already were.
fn put_plain(window: &mut Window, end: usize, bytes: &[u8]) -> Option<usize> {
    let Some(room) = window.get_mut(end..end + bytes.len()) else { return Some(OVERFULL) };
    let is_odd = if let (Some(last), Some(last_room)) = (bytes.last_chunk(), room.last_chunk_mut()) {
        let mut odd = [0; 16];
        *last_room = *last;
        note_odd(&mut odd, last);
        for (chunk, room) in bytes.as_chunks().0.iter().zip(room.as_chunks_mut().0) {
            *room = *chunk;
            note_odd(&mut odd, chunk);
        }
        odd.iter().fold(0, |any, odd| any | odd) != 0
    } else {
        put_few(room, bytes)
    };
    (!is_odd).then_some(end + bytes.len())
}

/// Marks the lanes of the bytes that do not stand for themselves.
#[inline]
fn note_odd(odd: &mut [u8; 16], chunk: &[u8; 16]) {
    for (odd, byte) in odd.iter_mut().zip(chunk) {
        *odd |= u8::from(!is_plain(*byte));
    }
}

/// Writes fewer than sixteen bytes, as two words that overlap in the middle, or three bytes; answers whether one of
/// them does not stand for itself.
#[inline]
fn put_few(room: &mut [u8], bytes: &[u8]) -> bool {
    if let (Some(first), Some(last)) = (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        room[..8].copy_from_slice(first);
        room[bytes.len() - 8..].copy_from_slice(last);
        (odd_lanes(u64::from_ne_bytes(*first)) | odd_lanes(u64::from_ne_bytes(*last))) & TOP_BITS != 0
    } else if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        room[..4].copy_from_slice(first);
        room[bytes.len() - 4..].copy_from_slice(last);
        let both = u64::from(u32::from_ne_bytes(*first)) << 32 | u64::from(u32::from_ne_bytes(*last));
        odd_lanes(both) & TOP_BITS != 0
    } else if let ([first, .., last], [first_room, .., last_room]) = (bytes, &mut *room) {
        (*first_room, *last_room) = (*first, *last);
        let middle = bytes[bytes.len() / 2];
        room[bytes.len() / 2] = middle;
        !(is_plain(*first) & is_plain(middle) & is_plain(*last))
    } else if let ([byte], [room]) = (bytes, room) {
        *room = *byte;
        !is_plain(*byte)
    } else {
        false
    }
}

const TOP_BITS: u64 = 0x8080_8080_8080_8080;

/// Has a top bit set exactly when one of eight bytes does not stand for itself, though not always in that byte's
/// lane only: a subtraction that finds one borrows from the lane above. Without one, nothing borrows or carries.
#[inline]
fn odd_lanes(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let control = word.wrapping_sub(ONES * 0x20);
    let delete = word.wrapping_add(ONES);
    let quote = (word ^ (ONES * b'"' as u64)).wrapping_sub(ONES);
    let backslash = (word ^ (ONES * b'\\' as u64)).wrapping_sub(ONES);
    word | control | delete | quote | backslash
}

#[cold]
fn put_json(window: &mut Window, end: usize, bytes: &[u8]) -> usize {
    let mut line = Line { window, end };
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' => line.text(b"\\\""),
                '\\' => line.text(b"\\\\"),
                ' '..='~' => line.text(&[c as u8]),
                _ => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| {
                    let [a, b, c, d] = [12, 8, 4, 0].map(|shift| HEX[usize::from(unit >> shift & 0xf)]);
                    line.text(&[b'\\', b'u', a, b, c, d]);
                }),
            }
        }
        if !chunk.invalid().is_empty() {
            line.text(b"\\ufffd");
        }
    }
    line.end
}

#[cold]
fn put_combined(window: &mut Window, end: usize, bytes: &[u8]) -> usize {
    let mut line = Line { window, end };
    for &byte in bytes {
        if is_plain(byte) {
            line.text(&[byte]);
        } else {
            let [high, low] =
                [byte >> 4, byte & 0xf].map(|digit| HEX[usize::from(digit)].to_ascii_uppercase());
            line.text(&[b'\\', b'x', high, low]);
        }
    }
    line.end
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What `write` leaves behind other text, in a window that holds the rests of another line.
    pub(in crate::telemetry) fn written(write: impl FnOnce(&mut Line<'_>)) -> Vec<u8> {
        let mut window = Box::new([b'#'; LINE_BYTES_MAX]);
        let mut line = Line::new(&mut window);
        line.text(b"before ");
        write(&mut line);
        assert!(!line.is_overfull());
        line.as_bytes().strip_prefix(b"before ").unwrap().to_vec()
    }

    fn json(bytes: &[u8]) -> Vec<u8> {
        written(|line| line.json(bytes))
    }

    fn combined(bytes: &[u8]) -> String {
        String::from_utf8(written(|line| line.combined(bytes))).unwrap()
    }

    #[test]
    fn combined_as_nginx_writes_it() {
        assert_eq!(combined(b""), "-");
        assert_eq!(combined(b"curl/8"), "curl/8");
        assert_eq!(combined(b"a\"b\\c\r\n\x00\x7f\xc3\xa9"), r"a\x22b\x5Cc\x0D\x0A\x00\x7F\xC3\xA9");
    }

    #[test]
    fn json_of_note() {
        let text = "\"\\\n\u{7f}é\u{85}\u{2028}😀";
        assert_eq!(json(text.as_bytes()), br#"\"\\\u000a\u007f\u00e9\u0085\u2028\ud83d\ude00"#);
        assert_eq!(json(b"a\xff\xe2\x82b"), br"a\ufffd\ufffdb");
    }

    /// Every byte at every position of every short length: the wide looks and the narrow one agree.
    #[test]
    fn every_byte_at_every_place() {
        let mut window = Box::new([0; LINE_BYTES_MAX]);
        for length in 1..50 {
            for at in 0..length {
                for byte in 0..=u8::MAX {
                    let mut bytes = vec![b'a'; length];
                    bytes[at] = byte;
                    let end = put_plain(&mut window, 3, &bytes);
                    let is_plain = matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\';
                    assert_eq!(end, is_plain.then_some(3 + length), "{byte:#x} at {at} of {length}");
                    assert!(!is_plain || window[3..3 + length] == bytes);
                }
            }
        }
    }

    #[test]
    fn what_does_not_fit_makes_the_line_void() {
        let mut window = Box::new([0; LINE_BYTES_MAX]);
        let full = vec![b'a'; LINE_BYTES_MAX];
        let mut line = Line::new(&mut window);
        line.bytes(&full);
        assert!(!line.is_overfull() && line.as_bytes() == full);
        let writes: [fn(&mut Line<'_>); 7] = [
            |line| line.text(b"a"),
            |line| line.bytes(b"a"),
            |line| line.number(1),
            |line| line.number(u64::MAX),
            |line| line.ip(IpAddr::from([1, 2, 3, 4])),
            |line| line.json(b"a"),
            |line| line.combined(b"\n"),
        ];
        for write in writes {
            let mut line = Line::new(&mut window);
            line.bytes(&full);
            write(&mut line);
            line.text(b"");
            assert!(line.is_overfull() && line.as_bytes().is_empty());
        }
    }

    proptest! {
        #[test]
        fn json_reads_back(bytes: Vec<u8>) {
            let quoted = [&b"\""[..], &json(&bytes), b"\""].concat();
            prop_assert!(quoted.iter().all(|byte| matches!(byte, b' '..=b'~')));
            prop_assert_eq!(serde_json::from_slice::<String>(&quoted).unwrap(), String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn plain_text_is_itself(text in "[ !#-\\[\\]-~]{1,100}") {
            prop_assert_eq!(json(text.as_bytes()), text.as_bytes());
            prop_assert_eq!(combined(text.as_bytes()), text);
        }

        #[test]
        fn combined_is_harmless_and_loses_nothing(bytes: Vec<u8>) {
            let text = combined(&bytes);
            prop_assert!(text.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"'));
            let mut back = Vec::new();
            let mut rest = text.as_str();
            while let Some((plain, escape)) = rest.split_once("\\x") {
                back.extend_from_slice(plain.as_bytes());
                back.push(u8::from_str_radix(&escape[..2], 16).unwrap());
                rest = &escape[2..];
            }
            back.extend_from_slice(rest.as_bytes());
            prop_assert_eq!(back, if bytes.is_empty() { b"-".to_vec() } else { bytes });
        }

        #[test]
        fn numbers_and_addresses(value: u64, shift in 0..64, ip: IpAddr) {
            let value = value >> shift;
            prop_assert_eq!(written(|line| line.number(value)), value.to_string().into_bytes());
            prop_assert_eq!(written(|line| line.ip(ip)), ip.to_canonical().to_string().into_bytes());
        }
    }
}
