//! The lookup: one walk over everything that matches a request's host and path, in the order in which routes win. It
//! stops at the first route that takes the request; an explanation does not stop. It allocates nothing.

use std::ops::ControlFlow::{self, Break, Continue};

use memchr::{memchr, memchr_iter};

use super::{
    capture::{Captures, Params},
    hash::{hash, in_scope},
    host::{self, HOST_BYTES_MAX},
    predicate::{self, Failure, Method, Predicates},
    spec::RouteId,
    table::{CONTENDERS, Contender, Leaf, NO_HOST, NONE, Router, SCOPE_BELOW, SCOPE_EXACT, Text},
};
use crate::expression::{Expression, Failed};

/// A request as routes see it.
pub trait RequestView {
    /// The method, as sent.
    fn method(&self) -> &[u8];
    /// The host without its port, as sent; empty when there is none. IPv6 with or without brackets.
    fn host(&self) -> &[u8];
    /// The canonical path.
    fn path(&self) -> &[u8];
    /// The query after its `?`, as sent; `None` without a `?`.
    fn query(&self) -> Option<&[u8]>;
    /// Whether `test` holds for some value of the field `name`, which is given in lower case. Values come without
    /// surrounding whitespace, a repeated field's one by one.
    fn header(&self, name: &str, test: impl FnMut(&[u8]) -> bool) -> bool;
    /// Whether an expression holds, for a route whose captures took `params`.
    fn holds(&self, expression: &Expression, params: Params<'_>) -> Result<bool, Failed>;
}

impl Router {
    /// The route that takes this request, if any, and in `captures` what its captures took, in the order of
    /// [`Router::capture_names`].
    pub fn find<V: RequestView>(&self, view: &V, captures: &mut Captures) -> Option<RouteId> {
        let method = Method::of(view.method());
        captures.clear();
        let end = self.walk(view, captures, &mut |leaf, captures| {
            self.first(leaf, method, view, captures).map_or(Continue(()), Break)
        });
        end.break_value()
    }

    /// The first route of a leaf whose predicates hold.
    #[inline]
    fn first<V: RequestView>(
        &self,
        leaf: Leaf,
        method: Method,
        view: &V,
        captures: &Captures,
    ) -> Option<RouteId> {
        if leaf.0 & CONTENDERS == 0 {
            return Some(leaf.0);
        }
        let passes = |contender: &&Contender| self.failure(contender, method, view, captures).is_none();
        self.contenders(leaf).find(passes).map(|contender| contender.route)
    }

    /// The contenders of a leaf that points to such.
    pub(super) fn contenders(&self, leaf: Leaf) -> impl Iterator<Item = &Contender> {
        let mut more = true;
        self.contenders[(leaf.0 & !CONTENDERS) as usize..]
            .iter()
            .take_while(move |contender| std::mem::replace(&mut more, !contender.last))
    }

    /// The first predicate of a contender that the request fails.
    #[inline]
    pub(super) fn failure<V: RequestView>(
        &self,
        contender: &Contender,
        method: Method,
        view: &V,
        captures: &Captures,
    ) -> Option<Failure<'_>> {
        let predicates: Option<&Predicates> = self.predicates.get(contender.predicates as usize);
        predicate::failure(contender.methods, predicates, method, view, captures)
    }

    /// Calls `on_leaf` for each leaf that matches the request's host and path, in order of precedence, with what its
    /// captures took. When it breaks, `captures` stay; when it never does, they are empty.
    pub(super) fn walk<V: RequestView, B>(
        &self,
        view: &V,
        captures: &mut Captures,
        on_leaf: &mut impl FnMut(Leaf, &Captures) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let path = view.path();
        // One hash serves every tier; a path longer than any exact one needs none.
        let may_be_exact = !self.exact.is_empty() && path.len() <= self.exact_bytes_max;
        let path_hash = may_be_exact.then(|| hash(path));
        self.tiers(view.host(), |bucket| self.paths(bucket, path, path_hash, captures, on_leaf))
    }

    /// Calls `on_bucket` for each host tier that takes `host`: exact, wildcards from the longest, none.
    fn tiers<B>(&self, host: &[u8], mut on_bucket: impl FnMut(u32) -> ControlFlow<B>) -> ControlFlow<B> {
        if !self.hosts.is_empty() {
            let mut buffer = [0; HOST_BYTES_MAX];
            if let Some(host) = host::normal(host, &mut buffer) {
                if let Some(bucket) = self.bucket(SCOPE_EXACT, host) {
                    on_bucket(bucket)?;
                }
                if self.wildcard_labels != 0 && !host.starts_with(b"[") {
                    self.wildcards(host, &mut on_bucket)?;
                }
            }
        }
        on_bucket(NO_HOST)
    }

    /// Only suffixes with as many labels as some wildcard's are looked up.
    fn wildcards<B>(&self, host: &[u8], on_bucket: &mut impl FnMut(u32) -> ControlFlow<B>) -> ControlFlow<B> {
        // A host is at most 253 bytes, but those may all be dots.
        let mut labels = memchr_iter(b'.', host).count();
        for dot in memchr_iter(b'.', host) {
            let some_has = labels < 128 && self.wildcard_labels & 1 << labels != 0;
            labels -= 1;
            if some_has
                && dot > 0
                && let Some(bucket) = self.bucket(SCOPE_BELOW, &host[dot + 1..])
            {
                on_bucket(bucket)?;
            }
        }
        Continue(())
    }

    fn bucket(&self, scope: u32, name: &[u8]) -> Option<u32> {
        self.hosts.find(in_scope(scope, hash(name)), |at| {
            let bucket = &self.buckets[at as usize];
            bucket.below == (scope == SCOPE_BELOW) && self.text_is(bucket.name, name)
        })
    }

    /// All leaves of one bucket: exact path, trie, regexes, no path.
    fn paths<B>(
        &self,
        bucket: u32,
        path: &[u8],
        path_hash: Option<u64>,
        captures: &mut Captures,
        on_leaf: &mut impl FnMut(Leaf, &Captures) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let number = bucket;
        let bucket = &self.buckets[number as usize];
        if bucket.has_exact
            && let Some(path_hash) = path_hash
            && let Some(leaf) = self.exact_leaf(number, path, path_hash)
        {
            on_leaf(leaf, captures)?;
        }
        if bucket.root != NONE && path.first() == Some(&b'/') {
            self.descend(bucket.root, path, 1, captures, on_leaf)?;
        }
        for regex_path in &self.regex_paths[bucket.regex_start as usize..bucket.regex_end as usize] {
            if captures.push_groups(&self.regexes[regex_path.regex as usize], path) {
                on_leaf(regex_path.leaf, captures)?;
                captures.clear();
            }
        }
        at_leaf(bucket.any, captures, on_leaf)
    }

    fn exact_leaf(&self, bucket: u32, path: &[u8], path_hash: u64) -> Option<Leaf> {
        let at = self.exact.find(in_scope(bucket, path_hash), |at| {
            let exact = &self.exact_paths[at as usize];
            exact.bucket == bucket && self.text_is(exact.path, path)
        })?;
        Some(self.exact_paths[at as usize].leaf)
    }

    /// All leaves at and below `node` for the segments of `path` from `start` on, where `start` is one past the end
    /// when there are none left. Recurses at most as deep as the longest pattern has segments; visits a node at most
    /// once, since each has one parent and stands at one depth.
    fn descend<B>(
        &self,
        node: u32,
        path: &[u8],
        start: usize,
        captures: &mut Captures,
        on_leaf: &mut impl FnMut(Leaf, &Captures) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let number = node;
        let node = &self.nodes[number as usize];
        if start > path.len() {
            at_leaf(node.end, captures, on_leaf)?;
            return at_leaf(node.below, captures, on_leaf);
        }
        let end = memchr(b'/', &path[start..]).map_or(path.len(), |at| start + at);
        let segment = &path[start..end];
        if node.has_literals
            && let Some(child) = self.literal_child(number, segment)
        {
            self.descend(child, path, end + 1, captures, on_leaf)?;
        }
        if !segment.is_empty() {
            let mut child = node.first_capture;
            while let Some(next) = self.nodes.get(child as usize) {
                if next.kind.takes(segment) {
                    captures.push(start, end);
                    self.descend(child, path, end + 1, captures, on_leaf)?;
                    captures.pop();
                }
                child = next.next_capture;
            }
        }
        if start < path.len() && node.rest != Leaf::EMPTY {
            captures.push(start, path.len());
            on_leaf(node.rest, captures)?;
            captures.pop();
        }
        at_leaf(node.below, captures, on_leaf)
    }

    fn literal_child(&self, parent: u32, segment: &[u8]) -> Option<u32> {
        if segment.len() > self.literal_bytes_max {
            return None;
        }
        self.literals.find(in_scope(parent, hash(segment)), |at| {
            let node = &self.nodes[at as usize];
            node.parent == parent
                && self.text_is(Text { start: node.segment_start, len: node.segment_len }, segment)
        })
    }
}

fn at_leaf<B>(
    leaf: Leaf,
    captures: &Captures,
    on_leaf: &mut impl FnMut(Leaf, &Captures) -> ControlFlow<B>,
) -> ControlFlow<B> {
    if leaf == Leaf::EMPTY { Continue(()) } else { on_leaf(leaf, captures) }
}
