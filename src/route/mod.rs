//! The router: host, canonical path and predicates to a route's id. It owns what a pattern means, which of several
//! matching routes wins, and why. It deliberately does not know what a route does, where a request comes from
//! (it sees one through [`RequestView`]), or how a path became canonical; it does no I/O and keeps no state between
//! requests.
//!
//! # What matches
//!
//! | `path` | takes |
//! |---|---|
//! | `/a` | exactly this path |
//! | `/a/{id}` | one non-empty segment |
//! | `/a/{id:int}` | one segment of a type, see [`SegmentKind`]; another value falls through |
//! | `/a/{*rest}` | the non-empty rest, slashes included |
//! | `/a/*` | `/a`, `/a/` and everything below; `/*` everything that starts with `/` |
//!
//! `path_regex` takes the whole canonical path in linear time, with up to [`CAPTURES_MAX`] named captures. Only a
//! route without a path takes the asterisk-form `*` (RFC 9112 §3.2.4) unless a regex does.
//!
//! # Which route wins
//!
//! The first of these that differs decides. A route that loses by a predicate (capture type, method, header, query)
//! hands over to the next, through all paths of a host and then through all host tiers.
//! 1. Host: exact, then wildcards from the longest suffix to the shortest, then no host.
//! 2. Path: exact; then the longest literal prefix; then regexes by the position in the file of the first route of
//!    that host with that text; then no path. Patterns with equal literal prefix are compared segment by segment:
//!    literal, typed capture (in the order of [`SegmentKind`]), untyped capture, `{*rest}`, `*`. Two patterns that
//!    differ only in their captures' names are the same path.
//! 3. A route with a method before one without; then the most header predicates; then the most query predicates;
//!    then the order in the file.
//!
//! # What it costs
//!
//! A lookup is: one hash of the host, and one per label count that some wildcard has; one hash of the path for all
//! exact paths; then a walk down a trie of segments, one hash per node that has literal children. Tables are flat
//! (hash → index, names in one arena), tiers and kinds that no route uses are skipped. No lookup allocates, except
//! that a regex's lazy automaton warms up once. The worst case is bounded by the configuration, not by the request:
//! a trie node sits at one depth and has one parent, so each is visited at most once per host tier; each regex of a
//! tier is tried at most once, in linear time; each candidate of a path is asked at most once. Routes that share
//! host *and* path, and regexes, are tried one after the other, so those are what to keep short.

mod capture;
mod compile;
mod explain;
mod find;
mod hash;
mod host;
mod pattern;
mod predicate;
mod query;
mod shadow;
mod spec;
mod table;

#[cfg(test)]
mod tests;

pub use capture::{CAPTURES_MAX, Captures, Params};
pub use explain::{Candidate, NEAR_MISSES_MAX, Outcome};
pub use find::RequestView;
pub use pattern::{PATTERN_BYTES_MAX, SEGMENTS_MAX, SegmentKind};
pub use query::{
    QUERY_VALUE_BYTES_MAX, names as query_names, values as query_values, without as query_without,
};
pub use shadow::Shadow;
pub use spec::{PathSpec, RouteError, RouteField, RouteId, RouteSpec, ValueSpec};
pub use table::{ROUTES_MAX, Router};
