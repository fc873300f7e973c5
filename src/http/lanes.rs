//! Sixteen bytes of a head at once, told apart by kind: a mask says which of them are of a kind, the first in the lowest
//! bit. Only this file knows vectors (`wide` makes them SSE2 or NEON, and plain arrays elsewhere); where bytes lie in a
//! head and what they mean there is not known.

use wide::u8x16;

/// Bytes that are looked at at once.
pub(super) const LANES: usize = 16;

/// Some bytes of a head.
#[derive(Copy, Clone)]
pub(super) struct Lanes(u8x16);

impl Lanes {
    #[inline]
    fn at(bytes: &[u8], at: usize) -> Option<Self> {
        bytes.get(at..)?.first_chunk().map(|chunk| Self(u8x16::new(*chunk)))
    }

    #[inline]
    fn are(self, byte: u8) -> u8x16 {
        self.0.simd_eq(u8x16::splat(byte))
    }

    /// Those from `first` to `last`.
    #[inline]
    fn within(self, first: u8, last: u8) -> u8x16 {
        let from_first = self.0 - u8x16::splat(first);
        from_first.min(u8x16::splat(last - first)).simd_eq(from_first)
    }

    #[inline]
    fn letters(self) -> u8x16 {
        Self(self.0 | u8x16::splat(0x20)).within(b'a', b'z')
    }

    /// Control characters, HTAB among them.
    #[inline]
    pub(super) fn controls(self) -> u32 {
        (self.within(0, b' ' - 1) | self.are(0x7f)).to_bitmask()
    }

    /// Control characters and blanks.
    #[inline]
    pub(super) fn controls_and_blanks(self) -> u32 {
        (self.within(0, b' ') | self.are(0x7f)).to_bitmask()
    }

    /// All but letters, digits and `-`, of which most names consist.
    #[inline]
    pub(super) fn but_name_bytes(self) -> u32 {
        !(self.letters() | self.within(b'0', b'9') | self.are(b'-')).to_bitmask() & 0xffff
    }
}

/// The first byte from `at` on that `mask` marks. `None` also for fewer than [`LANES`] bytes in all, which are no head.
#[inline]
pub(super) fn find(bytes: &[u8], mut at: usize, mask: impl Fn(Lanes) -> u32) -> Option<usize> {
    let last = bytes.len().checked_sub(LANES)?;
    while at <= last {
        let marked = mask(Lanes::at(bytes, at)?);
        if marked != 0 {
            return Some(at + marked.trailing_zeros() as usize);
        }
        at += LANES;
    }
    // The last bytes, together with some that were seen before.
    let marked = mask(Lanes::at(bytes, last)?).checked_shr((at - last) as u32)?;
    if marked == 0 { None } else { Some(at + marked.trailing_zeros() as usize) }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Kind = (fn(Lanes) -> u32, fn(u8) -> bool);

    const KINDS: [Kind; 3] = [
        (Lanes::controls, |byte| byte < 0x20 || byte == 0x7f),
        (Lanes::controls_and_blanks, |byte| byte <= 0x20 || byte == 0x7f),
        (Lanes::but_name_bytes, |byte| !byte.is_ascii_alphanumeric() && byte != b'-'),
    ];

    #[test]
    fn every_byte_is_of_its_kinds_in_every_place() {
        for (mask, is_marked) in KINDS {
            for (byte, place) in (0..=255).flat_map(|byte| (0..LANES).map(move |place| (byte, place))) {
                let mut bytes = [b'a'; LANES];
                bytes[place] = byte;
                let expected = u32::from(is_marked(byte)) << place;
                assert_eq!(mask(Lanes(u8x16::new(bytes))), expected, "{byte:#x} at {place}");
            }
        }
    }

    #[test]
    fn the_first_one_is_found_wherever_the_search_begins_and_the_bytes_end() {
        for len in 0..60 {
            for place in 0..=len {
                let mut bytes = vec![b'a'; len];
                let found = if place < len { Some(place) } else { None };
                // What lies before the beginning of the search must not be found, whatever it is.
                if let Some(byte) = bytes.get_mut(place) {
                    *byte = b'\r';
                }
                for from in 0..=place {
                    let expected = if len < LANES { None } else { found };
                    assert_eq!(find(&bytes, from, Lanes::controls), expected, "{len}, {place}, {from}");
                }
                if place < len && len >= LANES {
                    assert_eq!(find(&bytes, place + 1, Lanes::controls), None, "{len}, {place}");
                }
                assert_eq!(find(&bytes, len + 1, Lanes::controls), None);
                assert_eq!(find(&bytes, len + 100, Lanes::controls), None);
            }
        }
    }
}
