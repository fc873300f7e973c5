//! Where a route's captures are in the path: ranges only, so that nothing is copied and one value serves every
//! request. It does not know names; those belong to a route and are known when it is compiled.

use std::ops::Range;

use crate::regex::{REGEX_GROUPS_MAX, WholeRegex};

/// Captures that one route may have.
pub const CAPTURES_MAX: usize = 16;
const _: () = assert!(REGEX_GROUPS_MAX > CAPTURES_MAX);

/// The ranges of a path that the captures of a route took, in the order of
/// [`Router::capture_names`](super::Router::capture_names). Made once and reused: it allocates nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Captures {
    ranges: [(u32, u32); CAPTURES_MAX],
    len: usize,
}

/// What a route's captures took, by their names.
#[derive(Debug, Clone, Copy)]
pub struct Params<'p> {
    names: &'p [String],
    captures: &'p Captures,
    path: &'p [u8],
}

impl<'p> Params<'p> {
    /// `names` are those of the route that the captures are of.
    pub fn new(names: &'p [String], captures: &'p Captures, path: &'p [u8]) -> Self {
        Self { names, captures, path }
    }

    /// Names and what they took, of those that took part.
    pub fn iter(&self) -> impl Iterator<Item = (&'p str, &'p [u8])> {
        let Self { names, captures, path } = *self;
        let of = move |(at, name): (usize, &'p String)| Some((name.as_str(), captures.value(at, path)?));
        names.iter().enumerate().filter_map(of)
    }
}

/// The range of a regex's group that took no part in the match.
const ABSENT: (u32, u32) = (u32::MAX, u32::MAX);

impl Captures {
    /// How many captures the route has.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the route has none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes of the path that capture `index` took, as an offset range. `None` when there is no such capture, or
    /// it is a regex's group that took no part in the match (`(?<b>x)?`).
    pub fn range(&self, index: usize) -> Option<Range<usize>> {
        let range = self.ranges[..self.len].get(index).filter(|range| **range != ABSENT)?;
        Some(range.0 as usize..range.1 as usize)
    }

    /// What capture `index` took of `path`, which must be the one it was found in.
    pub fn value<'p>(&self, index: usize, path: &'p [u8]) -> Option<&'p [u8]> {
        path.get(self.range(index)?)
    }

    pub(super) fn clear(&mut self) {
        self.len = 0;
    }

    /// Appends the capture `start..end`. A pattern with more than [`CAPTURES_MAX`] is not compiled.
    pub(super) fn push(&mut self, start: usize, end: usize) {
        debug_assert!(end < u32::MAX as usize, "a head is at most 64 KiB");
        self.put((start as u32, end as u32));
    }

    /// Whether a regex, of at most [`CAPTURES_MAX`] named groups, takes the whole of `path`; then these are appended.
    pub(super) fn push_groups(&mut self, regex: &WholeRegex, path: &[u8]) -> bool {
        regex.captures(path, |group| match group {
            Some(group) => self.push(group.start, group.end),
            None => self.put(ABSENT),
        })
    }

    pub(super) fn pop(&mut self) {
        self.len -= 1;
    }

    fn put(&mut self, range: (u32, u32)) {
        self.ranges[self.len] = range;
        self.len += 1;
    }
}
