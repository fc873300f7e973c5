//! The router as data: flat arrays that point into each other by index, read by [`find`](super::find) and written
//! once by [`compile`](super::compile). Nothing here acts.

use std::sync::Arc;

use super::{
    capture::{Captures, Params},
    compile,
    hash::Index,
    host::HostPattern,
    pattern::{Pattern, SegmentKind},
    predicate::{MethodSet, Predicates},
    shadow::Shadow,
    spec::{RouteError, RouteId, RouteSpec},
};
use crate::regex::WholeRegex;

/// Routes that one router holds. A `Leaf` tells routes from other indices by its top bit.
pub const ROUTES_MAX: usize = 1 << 20;
const _: () = assert!(ROUTES_MAX < CONTENDERS as usize);

/// A compiled set of routes. Immutable.
///
/// A clone is a copy of everything a lookup reads, so that each core has its own, near it, and none touches another's
/// memory; only what explanations read is shared. Regexes share their program, which is never written, and have
/// their own cache (see [`crate::regex`]). Give every core its own clone.
#[derive(Debug, Clone)]
pub struct Router {
    /// Every name: hosts, exact paths, literal segments. Equal ones are stored once.
    pub(super) text: Box<[u8]>,
    /// Host name → [`Bucket`], in scope [`SCOPE_EXACT`] or [`SCOPE_BELOW`].
    pub(super) hosts: Index,
    /// Per host; [`NO_HOST`] is the one of routes without a host.
    pub(super) buckets: Box<[Bucket]>,
    /// Bit n: some wildcard's suffix has n labels.
    pub(super) wildcard_labels: u128,
    /// Path → [`ExactPath`], in the bucket's scope.
    pub(super) exact: Index,
    pub(super) exact_paths: Box<[ExactPath]>,
    /// Bytes of the longest exact path: a longer one in a request is not even hashed.
    pub(super) exact_bytes_max: usize,
    /// Segment → child [`Node`], in the parent's scope.
    pub(super) literals: Index,
    pub(super) nodes: Box<[Node]>,
    /// Bytes of the longest literal segment in a trie.
    pub(super) literal_bytes_max: usize,
    pub(super) regexes: Box<[WholeRegex]>,
    pub(super) regex_paths: Box<[RegexPath]>,
    pub(super) contenders: Box<[Contender]>,
    pub(super) predicates: Box<[Predicates]>,
    /// What only explanations read.
    pub(super) described: Arc<Described>,
}

/// No such index.
pub(super) const NONE: u32 = u32::MAX;

/// The bucket of routes without a host.
pub(super) const NO_HOST: u32 = 0;

/// The scope of exact host names.
pub(super) const SCOPE_EXACT: u32 = 0;

/// The scope of wildcards' suffixes.
pub(super) const SCOPE_BELOW: u32 = 1;

/// A name in [`Router::text`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Text {
    pub(super) start: u32,
    pub(super) len: u16,
}

/// The routes of one host or wildcard.
#[derive(Debug, Clone)]
pub(super) struct Bucket {
    /// The host, or the wildcard's suffix.
    pub(super) name: Text,
    /// Whether it is a wildcard's.
    pub(super) below: bool,
    /// Whether it has exact paths.
    pub(super) has_exact: bool,
    /// The root of its trie or [`NONE`].
    pub(super) root: u32,
    /// Its part of [`Router::regex_paths`].
    pub(super) regex_start: u32,
    pub(super) regex_end: u32,
    /// The routes without a path.
    pub(super) any: Leaf,
}

#[derive(Debug, Clone)]
pub(super) struct ExactPath {
    pub(super) bucket: u32,
    pub(super) path: Text,
    pub(super) leaf: Leaf,
}

/// A place between two segments of patterns: what may follow, and who ends here. Two to a cache line.
#[derive(Debug, Clone)]
#[repr(align(32))]
pub(super) struct Node {
    /// The node before it; with the segment, the key of a literal child.
    pub(super) parent: u32,
    /// The literal segment that leads here, unless a capture does.
    pub(super) segment_start: u32,
    pub(super) segment_len: u16,
    /// What the capture that leads here takes, unless a literal does.
    pub(super) kind: SegmentKind,
    /// Whether some literal segment may follow.
    pub(super) has_literals: bool,
    /// The first node that a capture leads to, in the order of [`SegmentKind`], or [`NONE`].
    pub(super) first_capture: u32,
    /// The next node that a capture leads to from the same parent, or [`NONE`].
    pub(super) next_capture: u32,
    /// Routes whose pattern ends here.
    pub(super) end: Leaf,
    /// Routes whose pattern goes on with `{*rest}`.
    pub(super) rest: Leaf,
    /// Routes whose pattern goes on with `*`.
    pub(super) below: Leaf,
}
const _: () = assert!(size_of::<Node>() == 32);

#[derive(Debug, Clone)]
pub(super) struct RegexPath {
    pub(super) regex: u32,
    pub(super) leaf: Leaf,
}

/// The routes of one host and path: none, a single one that asks nothing more (the ordinary case, so it costs no
/// further look-up), or the index of the first [`Contender`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Leaf(pub(super) u32);

/// The bit of a [`Leaf`] that makes it an index of a [`Contender`].
pub(super) const CONTENDERS: u32 = 1 << 31;

impl Leaf {
    pub(super) const EMPTY: Self = Self(NONE);
}

/// One of the routes of a [`Leaf`], in the order in which they are asked.
#[derive(Debug, Clone)]
pub(super) struct Contender {
    pub(super) route: RouteId,
    /// Its [`Predicates`] or [`NONE`].
    pub(super) predicates: u32,
    pub(super) methods: MethodSet,
    /// Whether it is the leaf's last.
    pub(super) last: bool,
}

/// What was compiled, in the words of those who wrote it.
#[derive(Debug)]
pub(super) struct Described {
    pub(super) routes: Vec<DescribedRoute>,
    pub(super) shadows: Vec<Shadow>,
}

#[derive(Debug)]
pub(super) struct DescribedRoute {
    pub(super) hosts: Vec<HostPattern>,
    pub(super) path: DescribedPath,
    pub(super) captures: Vec<String>,
}

#[derive(Debug)]
pub(super) enum DescribedPath {
    Any,
    Pattern(Pattern),
    /// An index into [`Router::regexes`].
    Regex(u32),
}

impl Router {
    /// Compiles routes; a route's id is its index in `specs`. All errors of all routes come back, in order. Takes a
    /// fraction of a second for 100,000 routes.
    pub fn compile(specs: &[RouteSpec]) -> Result<Self, Vec<RouteError>> {
        compile::compile(specs)
    }

    /// The names of a route's captures; a name's index is its index in [`Captures`]. Empty for an id it does not have.
    pub fn capture_names(&self, route: RouteId) -> &[String] {
        self.described.routes.get(route as usize).map_or(&[], |route| &route.captures)
    }

    /// What a route's captures took of `path`, by their names. Without a route there are none.
    pub fn params<'p>(
        &'p self,
        route: Option<RouteId>,
        captures: &'p Captures,
        path: &'p [u8],
    ) -> Params<'p> {
        Params::new(route.map_or(&[], |route| self.capture_names(route)), captures, path)
    }

    /// The routes that can never win, each with one that always wins before it. None of them is a false alarm; that
    /// none is missing is not promised (see `shadow`). Found when compiled.
    pub fn shadowed(&self) -> Vec<Shadow> {
        self.described.shadows.clone()
    }

    /// The named captures of `route` as text.
    pub(super) fn named(&self, route: RouteId, captures: &Captures, path: &[u8]) -> Vec<(String, String)> {
        let names = self.capture_names(route).iter().enumerate();
        names
            .filter_map(|(at, name)| {
                Some((name.clone(), String::from_utf8_lossy(captures.value(at, path)?).into_owned()))
            })
            .collect()
    }

    #[inline]
    pub(super) fn text_is(&self, text: Text, bytes: &[u8]) -> bool {
        usize::from(text.len) == bytes.len() && &self.text[text.start as usize..][..bytes.len()] == bytes
    }
}
