//! Routes that can never win. It finds those that another route of the same host and path always beats, and regexes
//! behind a `/*`; it does not compare different patterns, nor say whether one regex contains another, so it may miss
//! some. What it reports is certain.

use std::collections::HashMap;

use super::{
    compile::{Group, GroupPath},
    spec::{RouteId, RouteSpec, ValueSpec},
};
use crate::regex::WholeRegex;

/// A route that can never win.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shadow {
    /// The route.
    pub route: RouteId,
    /// A route that wins before it. Where several together take all its requests (by method or host), one of them.
    pub by: RouteId,
}

/// Predicates of a route that are looked up in weaker forms; with more, only equal ones are.
const WEAKENED_MAX: usize = 4;

/// The predicates on fields (`true`) and query parameters (`false`), sorted; `None` asks for presence only.
type Asked<'s> = Vec<(bool, String, Value<'s>)>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Value<'s> {
    Exact(&'s str),
    Regex(&'s str),
    Present,
    Absent,
}

/// The shadows among groups that are sorted by precedence. A route is one only if it is shadowed for each of its
/// hosts; `hosts` says how many those are.
pub(super) fn find(
    groups: &[Group],
    specs: &[RouteSpec],
    hosts: &[usize],
    regexes: &[WholeRegex],
) -> Vec<Shadow> {
    let mut shadowed: HashMap<RouteId, (usize, RouteId)> = HashMap::new();
    let everything = everything(groups, specs);
    for group in groups {
        let mut before: HashMap<Asked<'_>, Cover<'_>> = HashMap::new();
        let behind = match group.path {
            // Every canonical path starts with `/`, save the asterisk-form and none at all.
            GroupPath::Regex(regex) if !takes_odd_path(&regexes[regex as usize]) => {
                everything.get(&group.bucket)
            }
            GroupPath::Regex(_) | GroupPath::Everything | GroupPath::Other => None,
        };
        if behind.is_none() && group.routes.len() == 1 {
            continue;
        }
        for route in &group.routes {
            let spec = &specs[*route as usize];
            let asked = asked(spec);
            let by = behind.and_then(|cover| cover.by(spec));
            let by = by.or_else(|| weaker(&asked).find_map(|weaker| before.get(&weaker)?.by(spec)));
            if let Some(by) = by {
                shadowed.entry(*route).or_insert((0, by)).0 += 1;
            }
            // What an expression takes no one knows beforehand.
            if spec.when.is_none() {
                before.entry(asked).or_default().add(*route, spec);
            }
        }
    }
    let certain = shadowed.into_iter().filter(|(route, (times, _))| *times == hosts[*route as usize]);
    let mut shadows: Vec<_> = certain.map(|(route, (_, by))| Shadow { route, by }).collect();
    shadows.sort_unstable_by_key(|shadow| shadow.route);
    shadows
}

/// Per bucket with a `/*`, which methods it takes whatever else a request has.
fn everything<'s>(groups: &[Group], specs: &'s [RouteSpec]) -> HashMap<u32, Cover<'s>> {
    let mut covers: HashMap<u32, Cover<'s>> = HashMap::new();
    for group in groups.iter().filter(|group| group.path == GroupPath::Everything) {
        for route in &group.routes {
            let spec = &specs[*route as usize];
            if spec.headers.is_empty() && spec.query.is_empty() && spec.when.is_none() {
                covers.entry(group.bucket).or_default().add(*route, spec);
            }
        }
    }
    covers
}

fn takes_odd_path(regex: &WholeRegex) -> bool {
    regex.is_match(b"*") || regex.is_match(b"")
}

/// Routes with the same predicates on fields and query, by method.
#[derive(Default)]
struct Cover<'s> {
    any: Option<RouteId>,
    methods: HashMap<&'s str, RouteId>,
}

impl<'s> Cover<'s> {
    fn add(&mut self, route: RouteId, spec: &'s RouteSpec) {
        if spec.methods.is_empty() {
            self.any.get_or_insert(route);
        }
        for method in &spec.methods {
            self.methods.entry(method).or_insert(route);
        }
    }

    /// A route that takes a request before `spec` does, if every request that `spec` takes is taken before.
    fn by(&self, spec: &RouteSpec) -> Option<RouteId> {
        if spec.methods.is_empty() {
            return self.any;
        }
        let mut taken =
            spec.methods.iter().map(|method| self.methods.get(method.as_str()).copied().or(self.any));
        let first = taken.next()??;
        taken.all(|taken| taken.is_some()).then_some(first)
    }
}

fn asked(spec: &RouteSpec) -> Asked<'_> {
    let headers = spec.headers.iter().map(|(name, value)| (true, name.to_ascii_lowercase(), value_of(value)));
    let query = spec.query.iter().map(|(name, value)| (false, name.clone(), value_of(value)));
    let mut asked: Asked<'_> = headers.chain(query).collect();
    asked.sort_unstable();
    asked
}

fn value_of(value: &ValueSpec) -> Value<'_> {
    match value {
        ValueSpec::Exact(text) => Value::Exact(text),
        ValueSpec::Regex(text) => Value::Regex(text),
        ValueSpec::Present(true) => Value::Present,
        ValueSpec::Present(false) => Value::Absent,
    }
}

/// The same predicates, and those that ask only for the presence of what these ask a value of. Fewer predicates are
/// weaker too, but rank later.
fn weaker<'a, 's>(asked: &'a Asked<'s>) -> impl Iterator<Item = Asked<'s>> + use<'a, 's> {
    let choices = if asked.len() <= WEAKENED_MAX { 1_u32 << asked.len() } else { 1 };
    (0..choices).map(move |choice| {
        let mut weaker = asked.clone();
        for (at, (_, _, value)) in weaker.iter_mut().enumerate() {
            if choice & 1 << at != 0 && *value != Value::Absent {
                *value = Value::Present;
            }
        }
        weaker.sort_unstable();
        weaker
    })
}
