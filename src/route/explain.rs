//! Why a request goes where it goes: the same walk as the lookup, not stopping, in words. For people and off the
//! data path, so it may allocate and look at every route. It does not know routes' names, only ids.

use std::{collections::HashSet, ops::ControlFlow};

use super::{
    capture::Captures,
    find::RequestView,
    host::{self, HOST_BYTES_MAX, HostPattern},
    pattern::Comparison,
    predicate::{Method, either},
    spec::RouteId,
    table::{CONTENDERS, DescribedPath, DescribedRoute, Leaf, Router},
};

/// Near misses that are named when no route matches.
pub const NEAR_MISSES_MAX: usize = 5;

/// Hosts that a near miss names.
const HOSTS_NAMED_MAX: usize = 3;

/// What became of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The route.
    pub route: RouteId,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a candidate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It takes the request. Names and values of its captures, without regex groups that took no part.
    Won {
        /// In the order of [`Router::capture_names`].
        captures: Vec<(String, String)>,
    },
    /// A predicate failed; the text says which: "method is POST, not GET".
    Lost(String),
    /// All its predicates hold, but this more specific route won.
    LostTo(RouteId),
    /// Its host or its path does not match, but nearly; the text says how.
    NearMiss(String),
}

impl Router {
    /// Every route whose host and path match, once, in order of precedence, with its outcome. When there is none, up
    /// to [`NEAR_MISSES_MAX`] near misses, the nearest kind first: a capture of another type, a final slash more or
    /// less, another host. The one that won, if any, is the one that [`Router::find`] returns.
    pub fn explain<V: RequestView>(&self, view: &V) -> Vec<Candidate> {
        let mut candidates = Vec::new();
        let mut seen = HashSet::new();
        let mut winner = None;
        let method = Method::of(view.method());
        let mut on_route = |route: RouteId, failure: Option<String>, captures: &Captures| {
            // A route with several hosts may match by more than one; its first place counts.
            if !seen.insert(route) {
                return;
            }
            let outcome = match (failure, winner) {
                (Some(text), _) => Outcome::Lost(text),
                (None, Some(winner)) => Outcome::LostTo(winner),
                (None, None) => {
                    winner = Some(route);
                    Outcome::Won { captures: self.named(route, captures, view.path()) }
                }
            };
            candidates.push(Candidate { route, outcome });
        };
        let mut on_leaf = |leaf: Leaf, captures: &Captures| {
            if leaf.0 & CONTENDERS == 0 {
                on_route(leaf.0, None, captures);
            } else {
                for contender in self.contenders(leaf) {
                    let failure =
                        self.failure(contender, method, view, captures).map(|failure| failure.text(view));
                    on_route(contender.route, failure, captures);
                }
            }
            ControlFlow::<()>::Continue(())
        };
        // It never breaks, so there is nothing to return.
        let _ = self.walk(view, &mut Captures::default(), &mut on_leaf);
        if candidates.is_empty() { self.near_misses(view) } else { candidates }
    }

    fn near_misses<V: RequestView>(&self, view: &V) -> Vec<Candidate> {
        let mut buffer = [0; HOST_BYTES_MAX];
        let host = host::normal(view.host(), &mut buffer);
        let mut misses: Vec<(Nearness, RouteId, String)> = Vec::new();
        for (id, route) in (0..).zip(&self.described.routes) {
            let Some((nearness, text)) = self.near_miss(route, host, view) else { continue };
            // Kept sorted and short, so that 100,000 routes on one path cost no more than a look at each.
            let place = misses.partition_point(|miss| miss.0 <= nearness);
            if place < NEAR_MISSES_MAX {
                misses.insert(place, (nearness, id, text()));
                misses.truncate(NEAR_MISSES_MAX);
            }
        }
        let candidate = |(_, route, text)| Candidate { route, outcome: Outcome::NearMiss(text) };
        misses.into_iter().map(candidate).collect()
    }

    fn near_miss<'r, V: RequestView>(
        &'r self,
        route: &'r DescribedRoute,
        host: Option<&[u8]>,
        view: &'r V,
    ) -> Option<(Nearness, Box<dyn Fn() -> String + 'r>)> {
        let path = view.path();
        let host_takes = route.hosts.is_empty()
            || host.is_some_and(|host| route.hosts.iter().any(|pattern| pattern.takes(host)));
        let comparison = match &route.path {
            DescribedPath::Any => Comparison::Same,
            DescribedPath::Pattern(pattern) => pattern.compare(path),
            DescribedPath::Regex(regex) if self.regexes[*regex as usize].is_match(path) => Comparison::Same,
            DescribedPath::Regex(_) => Comparison::Different,
        };
        match (comparison, &route.path) {
            (Comparison::Same, _) if !host_takes => {
                Some((Nearness::Host, Box::new(|| host_text(&route.hosts, view.host()))))
            }
            (Comparison::WrongType { capture, kind }, _) if host_takes => {
                let name = &route.captures[capture];
                Some((Nearness::Type, Box::new(move || format!("path capture `{name}` takes only {kind}"))))
            }
            (Comparison::Different, DescribedPath::Pattern(pattern))
                if host_takes && pattern.compare(&other_slash(path)) == Comparison::Same =>
            {
                let how = if path.ends_with(b"/") {
                    "has a final `/` that the pattern has not"
                } else {
                    "lacks a final `/`"
                };
                Some((Nearness::Slash, Box::new(move || format!("path {how}"))))
            }
            _ => None,
        }
    }
}

/// How near a miss is, nearest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Nearness {
    Type,
    Slash,
    Host,
}

/// The path with its final slash added or removed.
fn other_slash(path: &[u8]) -> Vec<u8> {
    path.strip_suffix(b"/").map_or_else(|| [path, b"/"].concat(), <[u8]>::to_vec)
}

fn host_text(hosts: &[HostPattern], host: &[u8]) -> String {
    let written = |host: &HostPattern| match host {
        HostPattern::Exact(name) => name.clone(),
        HostPattern::Below(name) => format!("*.{name}"),
    };
    let mut names: Vec<String> = hosts.iter().take(HOSTS_NAMED_MAX).map(written).collect();
    if hosts.len() > HOSTS_NAMED_MAX {
        names.push(format!("{} more", hosts.len() - HOSTS_NAMED_MAX));
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    if host.is_empty() {
        return format!("request has no host, route asks for {}", either(&names));
    }
    format!("host is {}, not {}", host.escape_ascii(), either(&names))
}
