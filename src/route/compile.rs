//! From specs to a [`Router`]: every route is read first and all errors are collected, then hosts, paths and
//! predicates are laid out in the router's flat arrays. It does not decide what wins: it puts things where the walk of
//! [`find`](super::find) meets them in that order. It runs when a configuration is loaded and may allocate.

use std::{cmp::Reverse, collections::HashMap, mem, sync::Arc};

use super::{
    capture::CAPTURES_MAX,
    hash::{Index, hash, in_scope},
    host::HostPattern,
    pattern::{Pattern, Segment, SegmentKind, check_name},
    predicate::{self, MethodSet, Predicates},
    shadow,
    spec::{PathSpec, Refusal, RouteError, RouteField, RouteId, RouteSpec},
    table::{
        Bucket, CONTENDERS, Contender, Described, DescribedPath, DescribedRoute, ExactPath, Leaf, NO_HOST,
        NONE, Node, ROUTES_MAX, RegexPath, Router, SCOPE_BELOW, SCOPE_EXACT, Text,
    },
};
use crate::regex::WholeRegex;

/// A route's specs, read.
struct Parsed {
    hosts: Vec<HostPattern>,
    path: DescribedPath,
    captures: Vec<String>,
    methods: MethodSet,
    predicates: Option<Predicates>,
}

/// The routes of one host and path, while they gather.
pub(super) struct Group {
    /// Index of the [`Bucket`].
    pub(super) bucket: u32,
    /// In the order of the file; in order of precedence once [`rank`] has sorted them.
    pub(super) routes: Vec<RouteId>,
    /// What kind of path it is, as far as shadows depend on it.
    pub(super) path: GroupPath,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GroupPath {
    /// `/*`.
    Everything,
    /// This regex.
    Regex(u32),
    /// Any other.
    Other,
}

pub(super) fn compile(specs: &[RouteSpec]) -> Result<Router, Vec<RouteError>> {
    if specs.len() > ROUTES_MAX {
        let refusal =
            Refusal::new(format!("there are {} routes, at most {ROUTES_MAX} can be held", specs.len()));
        return Err(vec![refusal.at(ROUTES_MAX, RouteField::Path)]);
    }
    let mut errors = Vec::new();
    let mut regexes = Regexes::default();
    let parsed: Vec<Parsed> =
        specs.iter().enumerate().map(|(route, spec)| parse(spec, route, &mut regexes, &mut errors)).collect();
    if !errors.is_empty() {
        return Err(errors);
    }
    let mut builder = Builder::new(regexes.compiled);
    for (route, parsed) in parsed.iter().enumerate() {
        if let Err(refusal) = builder.add(route as RouteId, parsed) {
            return Err(vec![refusal.at(route, RouteField::Path)]);
        }
    }
    Ok(builder.finish(specs, parsed))
}

fn parse(spec: &RouteSpec, route: usize, regexes: &mut Regexes, errors: &mut Vec<RouteError>) -> Parsed {
    let mut hosts = Vec::with_capacity(spec.hosts.len());
    for text in &spec.hosts {
        match HostPattern::parse(text) {
            // Written twice, perhaps in two spellings, it is still one.
            Ok(host) if hosts.contains(&host) => {}
            Ok(host) => hosts.push(host),
            Err(refusal) => errors.push(refusal.at(route, RouteField::Host)),
        }
    }
    let (path, captures) = match parse_path(&spec.path, regexes) {
        Ok(path) => path,
        Err((field, refusal)) => {
            errors.push(refusal.at(route, field));
            (DescribedPath::Any, Vec::new())
        }
    };
    let (methods, predicates) = predicate::compile(spec, route, &captures, errors);
    Parsed { hosts, path, captures, methods, predicates }
}

type PathRefusal = (RouteField, Refusal);

fn parse_path(path: &PathSpec, regexes: &mut Regexes) -> Result<(DescribedPath, Vec<String>), PathRefusal> {
    match path {
        PathSpec::Any => Ok((DescribedPath::Any, Vec::new())),
        PathSpec::Pattern(text) => {
            let pattern = Pattern::parse(text).map_err(|refusal| (RouteField::Path, refusal))?;
            let names = pattern.names.clone();
            Ok((DescribedPath::Pattern(pattern), names))
        }
        PathSpec::Regex(text) => {
            let (at, names) = regexes.compile(text).map_err(|refusal| (RouteField::PathRegex, refusal))?;
            Ok((DescribedPath::Regex(at), names))
        }
        PathSpec::Both(..) => {
            let refusal =
                Refusal::new("a route has `path` or `path_regex`, not both").hint("remove one of them");
            Err((RouteField::PathRegex, refusal))
        }
    }
}

/// Path regexes; equal text is compiled once, which also makes it the same path.
#[derive(Default)]
struct Regexes {
    compiled: Vec<WholeRegex>,
    by_text: HashMap<String, (u32, Vec<String>)>,
}

impl Regexes {
    fn compile(&mut self, text: &str) -> Result<(u32, Vec<String>), Refusal> {
        if let Some(known) = self.by_text.get(text) {
            return Ok(known.clone());
        }
        let (regex, names) = WholeRegex::compile(text)?;
        names.iter().try_for_each(|name| check_name(name))?;
        if names.len() > CAPTURES_MAX {
            return Err(Refusal::new(format!("a path has at most {CAPTURES_MAX} captures")));
        }
        let new = (self.compiled.len() as u32, names);
        self.compiled.push(regex);
        self.by_text.insert(text.into(), new.clone());
        Ok(new)
    }
}

/// The router's arrays while they grow. Until [`Builder::finish`], a [`Leaf`] is the index of a [`Group`].
struct Builder {
    text: Vec<u8>,
    texts: HashMap<Box<[u8]>, Text>,
    buckets: Vec<Bucket>,
    bucket_of: HashMap<HostPattern, u32>,
    wildcard_labels: u128,
    exact_paths: Vec<ExactPath>,
    exact_of: HashMap<(u32, Text), u32>,
    nodes: Vec<Node>,
    literal_of: HashMap<(u32, Text), u32>,
    regexes: Vec<WholeRegex>,
    /// Per bucket, in the order of their first routes.
    regex_paths: Vec<Vec<RegexPath>>,
    regex_of: HashMap<(u32, u32), usize>,
    groups: Vec<Group>,
}

impl Builder {
    fn new(regexes: Vec<WholeRegex>) -> Self {
        let mut builder = Self {
            text: Vec::new(),
            texts: HashMap::new(),
            buckets: Vec::new(),
            bucket_of: HashMap::new(),
            wildcard_labels: 0,
            exact_paths: Vec::new(),
            exact_of: HashMap::new(),
            nodes: Vec::new(),
            literal_of: HashMap::new(),
            regexes,
            regex_paths: Vec::new(),
            regex_of: HashMap::new(),
            groups: Vec::new(),
        };
        let no_host = builder.new_bucket(Text { start: 0, len: 0 }, false);
        debug_assert_eq!(no_host, NO_HOST);
        builder
    }

    fn add(&mut self, route: RouteId, parsed: &Parsed) -> Result<(), Refusal> {
        if parsed.hosts.is_empty() {
            self.add_path(NO_HOST, route, &parsed.path)?;
        }
        for host in &parsed.hosts {
            let bucket = self.bucket(host)?;
            self.add_path(bucket, route, &parsed.path)?;
        }
        Ok(())
    }

    fn add_path(&mut self, bucket: u32, route: RouteId, path: &DescribedPath) -> Result<(), Refusal> {
        match path {
            DescribedPath::Any => {
                let leaf = self.buckets[bucket as usize].any;
                self.buckets[bucket as usize].any = self.join(leaf, bucket, route, GroupPath::Other);
            }
            DescribedPath::Regex(regex) => self.add_regex(bucket, route, *regex),
            DescribedPath::Pattern(pattern) if pattern.is_exact() => {
                self.add_exact(bucket, route, pattern)?
            }
            DescribedPath::Pattern(pattern) => self.add_pattern(bucket, route, pattern)?,
        }
        Ok(())
    }

    fn add_regex(&mut self, bucket: u32, route: RouteId, regex: u32) {
        let paths = &mut self.regex_paths[bucket as usize];
        let at = *self.regex_of.entry((bucket, regex)).or_insert_with(|| {
            paths.push(RegexPath { regex, leaf: Leaf::EMPTY });
            paths.len() - 1
        });
        let leaf = self.regex_paths[bucket as usize][at].leaf;
        self.regex_paths[bucket as usize][at].leaf = self.join(leaf, bucket, route, GroupPath::Regex(regex));
    }

    fn add_exact(&mut self, bucket: u32, route: RouteId, pattern: &Pattern) -> Result<(), Refusal> {
        let mut path = String::new();
        for segment in &pattern.segments {
            if let Segment::Literal(literal) = segment {
                path.push('/');
                path.push_str(literal);
            }
        }
        let path = self.intern(path.as_bytes())?;
        self.buckets[bucket as usize].has_exact = true;
        let paths = &mut self.exact_paths;
        let at = *self.exact_of.entry((bucket, path)).or_insert_with(|| {
            paths.push(ExactPath { bucket, path, leaf: Leaf::EMPTY });
            paths.len() as u32 - 1
        });
        let leaf = self.exact_paths[at as usize].leaf;
        self.exact_paths[at as usize].leaf = self.join(leaf, bucket, route, GroupPath::Other);
        Ok(())
    }

    fn add_pattern(&mut self, bucket: u32, route: RouteId, pattern: &Pattern) -> Result<(), Refusal> {
        if self.buckets[bucket as usize].root == NONE {
            self.buckets[bucket as usize].root = self.new_node(NONE);
        }
        let root = self.buckets[bucket as usize].root;
        let mut at = root;
        for segment in &pattern.segments {
            match segment {
                Segment::Literal(literal) => at = self.literal_child(at, literal)?,
                Segment::Capture(kind) => at = self.capture_child(at, *kind),
                Segment::Rest => {
                    let leaf = self.nodes[at as usize].rest;
                    self.nodes[at as usize].rest = self.join(leaf, bucket, route, GroupPath::Other);
                    return Ok(());
                }
                Segment::Below => {
                    let path = if at == root { GroupPath::Everything } else { GroupPath::Other };
                    let leaf = self.nodes[at as usize].below;
                    self.nodes[at as usize].below = self.join(leaf, bucket, route, path);
                    return Ok(());
                }
            }
        }
        let leaf = self.nodes[at as usize].end;
        self.nodes[at as usize].end = self.join(leaf, bucket, route, GroupPath::Other);
        Ok(())
    }

    fn literal_child(&mut self, parent: u32, literal: &str) -> Result<u32, Refusal> {
        let text = self.intern(literal.as_bytes())?;
        if let Some(child) = self.literal_of.get(&(parent, text)) {
            return Ok(*child);
        }
        let child = self.new_node(parent);
        self.nodes[child as usize].segment_start = text.start;
        self.nodes[child as usize].segment_len = text.len;
        self.nodes[parent as usize].has_literals = true;
        self.literal_of.insert((parent, text), child);
        Ok(child)
    }

    /// The captures' children of a node are a list in the order of their kinds, each kind once.
    fn capture_child(&mut self, parent: u32, kind: SegmentKind) -> u32 {
        let mut before = NONE;
        let mut after = self.nodes[parent as usize].first_capture;
        while let Some(node) = self.nodes.get(after as usize).filter(|node| node.kind <= kind) {
            if node.kind == kind {
                return after;
            }
            before = after;
            after = node.next_capture;
        }
        let child = self.new_node(parent);
        self.nodes[child as usize].kind = kind;
        self.nodes[child as usize].next_capture = after;
        match self.nodes.get_mut(before as usize) {
            Some(before) => before.next_capture = child,
            None => self.nodes[parent as usize].first_capture = child,
        }
        child
    }

    fn new_node(&mut self, parent: u32) -> u32 {
        self.nodes.push(Node {
            parent,
            segment_start: 0,
            segment_len: 0,
            kind: SegmentKind::Any,
            has_literals: false,
            first_capture: NONE,
            next_capture: NONE,
            end: Leaf::EMPTY,
            rest: Leaf::EMPTY,
            below: Leaf::EMPTY,
        });
        self.nodes.len() as u32 - 1
    }

    fn bucket(&mut self, host: &HostPattern) -> Result<u32, Refusal> {
        if let Some(bucket) = self.bucket_of.get(host) {
            return Ok(*bucket);
        }
        let (name, below) = match host {
            HostPattern::Exact(name) => (name, false),
            HostPattern::Below(name) => (name, true),
        };
        if below {
            self.wildcard_labels |= 1 << name.split('.').count();
        }
        let name = self.intern(name.as_bytes())?;
        let bucket = self.new_bucket(name, below);
        self.bucket_of.insert(host.clone(), bucket);
        Ok(bucket)
    }

    fn new_bucket(&mut self, name: Text, below: bool) -> u32 {
        self.buckets.push(Bucket {
            name,
            below,
            has_exact: false,
            root: NONE,
            regex_start: 0,
            regex_end: 0,
            any: Leaf::EMPTY,
        });
        self.regex_paths.push(Vec::new());
        self.buckets.len() as u32 - 1
    }

    /// Adds a route to the group of `leaf`, which is a new one when it is empty.
    fn join(&mut self, leaf: Leaf, bucket: u32, route: RouteId, path: GroupPath) -> Leaf {
        if leaf != Leaf::EMPTY {
            self.groups[leaf.0 as usize].routes.push(route);
            return leaf;
        }
        self.groups.push(Group { bucket, routes: vec![route], path });
        Leaf(self.groups.len() as u32 - 1)
    }

    fn intern(&mut self, name: &[u8]) -> Result<Text, Refusal> {
        if let Some(text) = self.texts.get(name) {
            return Ok(*text);
        }
        // Offsets stay below 31 bits. So do all other indices: ROUTES_MAX times SEGMENTS_MAX bounds nodes, and 2^31 pairs
        // of route and host would be specs of 50 GiB.
        if self.text.len() + name.len() > CONTENDERS as usize {
            return Err(Refusal::new("all hosts and paths up to here have more than 2 GiB of text"));
        }
        let text = Text { start: self.text.len() as u32, len: name.len() as u16 };
        self.text.extend_from_slice(name);
        self.texts.insert(name.into(), text);
        Ok(text)
    }

    fn finish(mut self, specs: &[RouteSpec], parsed: Vec<Parsed>) -> Router {
        for group in &mut self.groups {
            rank(&mut group.routes, specs);
        }
        let shadows = shadow::find(&self.groups, specs, &parsed_host_counts(&parsed), &self.regexes);
        let mut leaves = Leaves { contenders: Vec::new(), predicates: Vec::new(), predicates_of: Vec::new() };
        let mut described = Vec::with_capacity(parsed.len());
        let mut methods = Vec::with_capacity(parsed.len());
        for route in parsed {
            leaves.predicates_of.push(route.predicates.map_or(NONE, |predicates| {
                leaves.predicates.push(predicates);
                leaves.predicates.len() as u32 - 1
            }));
            methods.push(route.methods);
            described.push(DescribedRoute { hosts: route.hosts, path: route.path, captures: route.captures });
        }
        let final_leaves: Vec<Leaf> =
            self.groups.iter().map(|group| leaves.add(&group.routes, &methods)).collect();
        let resolve =
            |leaf: &mut Leaf| *leaf = final_leaves.get(leaf.0 as usize).copied().unwrap_or(Leaf::EMPTY);
        for node in &mut self.nodes {
            resolve(&mut node.end);
            resolve(&mut node.rest);
            resolve(&mut node.below);
        }
        for exact in &mut self.exact_paths {
            resolve(&mut exact.leaf);
        }
        let mut regex_paths = Vec::new();
        for (bucket, paths) in self.buckets.iter_mut().zip(mem::take(&mut self.regex_paths)) {
            resolve(&mut bucket.any);
            bucket.regex_start = regex_paths.len() as u32;
            regex_paths.extend(paths.into_iter().map(|mut path| {
                resolve(&mut path.leaf);
                path
            }));
            bucket.regex_end = regex_paths.len() as u32;
        }
        let longest = |lens: &mut dyn Iterator<Item = u16>| usize::from(lens.max().unwrap_or(0));
        Router {
            hosts: self.host_index(),
            exact: self.exact_index(),
            literals: self.literal_index(),
            exact_bytes_max: longest(&mut self.exact_paths.iter().map(|exact| exact.path.len)),
            literal_bytes_max: longest(&mut self.nodes.iter().map(|node| node.segment_len)),
            text: self.text.into(),
            buckets: self.buckets.into(),
            wildcard_labels: self.wildcard_labels,
            exact_paths: self.exact_paths.into(),
            nodes: self.nodes.into(),
            regexes: self.regexes.into(),
            regex_paths: regex_paths.into(),
            contenders: leaves.contenders.into(),
            predicates: leaves.predicates.into(),
            described: Arc::new(Described { routes: described, shadows }),
        }
    }

    fn bytes(&self, text: Text) -> &[u8] {
        &self.text[text.start as usize..][..usize::from(text.len)]
    }

    fn host_index(&self) -> Index {
        let hosts = (0..).zip(&self.buckets).filter(|(at, _)| *at != NO_HOST);
        let pairs: Vec<_> = hosts
            .map(|(at, bucket)| {
                let scope = if bucket.below { SCOPE_BELOW } else { SCOPE_EXACT };
                (in_scope(scope, hash(self.bytes(bucket.name))), at)
            })
            .collect();
        Index::new(&pairs)
    }

    fn exact_index(&self) -> Index {
        let paths = (0..).zip(&self.exact_paths);
        let pairs: Vec<_> =
            paths.map(|(at, exact)| (in_scope(exact.bucket, hash(self.bytes(exact.path))), at)).collect();
        Index::new(&pairs)
    }

    fn literal_index(&self) -> Index {
        let children = self.literal_of.iter();
        let mut pairs: Vec<_> =
            children.map(|((parent, text), at)| (in_scope(*parent, hash(self.bytes(*text))), *at)).collect();
        // The map's order is random; the table's layout need not be.
        pairs.sort_unstable_by_key(|pair| pair.1);
        Index::new(&pairs)
    }
}

/// In how many groups each route is: one per host, and one without.
fn parsed_host_counts(parsed: &[Parsed]) -> Vec<usize> {
    parsed.iter().map(|route| route.hosts.len().max(1)).collect()
}

/// Sorts the routes of one host and path into order of precedence.
fn rank(routes: &mut [RouteId], specs: &[RouteSpec]) {
    routes.sort_by_key(|id| {
        let spec = &specs[*id as usize];
        (
            spec.methods.is_empty(),
            Reverse(spec.headers.len()),
            Reverse(spec.query.len()),
            spec.when.is_none(),
            *id,
        )
    });
}

/// Final leaves and what they point to.
struct Leaves {
    contenders: Vec<Contender>,
    predicates: Vec<Predicates>,
    /// Per route an index into `predicates` or [`NONE`].
    predicates_of: Vec<u32>,
}

impl Leaves {
    /// The leaf of these routes, which are at least one, in order of precedence.
    fn add(&mut self, routes: &[RouteId], methods: &[MethodSet]) -> Leaf {
        if let [only] = routes
            && methods[*only as usize] == MethodSet::ANY
            && self.predicates_of[*only as usize] == NONE
        {
            return Leaf(*only);
        }
        let start = self.contenders.len() as u32;
        self.contenders.extend(routes.iter().map(|route| Contender {
            route: *route,
            predicates: self.predicates_of[*route as usize],
            methods: methods[*route as usize],
            last: false,
        }));
        if let Some(last) = self.contenders.last_mut() {
            last.last = true;
        }
        Leaf(CONTENDERS | start)
    }
}
