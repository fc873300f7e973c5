//! Where something lies in a head. Extents instead of slices let a parsed head be kept, moved and reused beside the
//! buffer it describes, without a lifetime. An extent does not know its buffer: the caller pairs the two.

/// A run of bytes in a message head: its offset and length, both in bytes. Heads are at most
/// [`HEAD_BYTES_MAX`](super::head::HEAD_BYTES_MAX) long, so 32 bits are plenty.
#[derive(Copy, Clone, Default, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Offset of the first byte.
    pub start: u32,
    /// Number of bytes.
    pub len: u32,
}

impl Extent {
    /// The extent `from..to`.
    #[inline]
    pub const fn between(from: usize, to: usize) -> Self {
        debug_assert!(from <= to && to <= u32::MAX as usize);
        Self { start: from as u32, len: (to - from) as u32 }
    }

    /// Where `part`, a subslice of `bytes`, lies in it.
    #[inline]
    pub fn of(bytes: &[u8], part: &[u8]) -> Self {
        let start = part.as_ptr().addr().wrapping_sub(bytes.as_ptr().addr());
        debug_assert!(start <= bytes.len() && part.len() <= bytes.len() - start, "not a part of these bytes");
        Self { start: start as u32, len: part.len() as u32 }
    }

    /// The bytes meant, in the head they were parsed from. Panics if `head` is too short to be that head.
    #[inline]
    pub fn bytes(self, head: &[u8]) -> &[u8] {
        &head[self.start as usize..self.end()]
    }

    /// Whether there is nothing in it.
    #[inline]
    pub const fn is_empty(self) -> bool {
        self.len == 0
    }

    /// Offset behind the last byte.
    #[inline]
    pub const fn end(self) -> usize {
        self.start as usize + self.len as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_found_where_it_lies() {
        let head = b"GET /path HTTP/1.1";
        let at = Extent::of(head, &head[4..9]);
        assert_eq!(at, Extent::between(4, 9));
        assert_eq!(at.bytes(head), b"/path");
        assert_eq!(at.end(), 9);
        assert!(Extent::of(head, &head[18..]).is_empty());
    }
}
