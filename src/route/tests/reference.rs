//! The lookup against a router that does what the precedence says, word by word: it takes all routes that match, each
//! by a regex made from its pattern, sorts them, and takes the first.

use std::cmp::Reverse;

use proptest::{collection::vec, option, prelude::*, sample::select};

use super::*;

const HOSTS: [&str; 7] = ["a.b.com", "b.com", "*.b.com", "*.com", "*.a.b.com", "[::1]", "B.com."];
const SEGMENTS: [&str; 9] = ["a", "b", "7", "{1}", "{2:int}", "{3:alpha}", "{4:hex}", "{5:slug}", "a-1"];
const ENDS: [&str; 5] = ["", "/", "/*", "/{*6}", "/a"];
const REGEXES: [&str; 5] = ["/a.*", "/(?<x>[^/]*)/b", ".*", "/7|/a", "/(?:a|b)/(?<y>.*)"];

fn arb_path() -> impl Strategy<Value = PathSpec> {
    let pattern = (vec(select(&SEGMENTS[..]), 0..4), select(&ENDS[..])).prop_map(|(segments, end)| {
        // Each capture gets a name of its own by its place.
        let mut path = String::new();
        for (at, segment) in segments.iter().enumerate() {
            path.push('/');
            path.push_str(&segment.replace('{', &format!("{{c{at}_")));
        }
        path.push_str(&end.replace("{*", "{*r"));
        PathSpec::Pattern(if path.is_empty() { "/".into() } else { path })
    });
    prop_oneof![
        8 => pattern,
        1 => Just(PathSpec::Any),
        2 => select(&REGEXES[..]).prop_map(|regex| PathSpec::Regex(regex.into())),
    ]
}

fn arb_value() -> impl Strategy<Value = ValueSpec> {
    select(vec![exact("1"), exact("2 3"), regex("[12]"), PRESENT, ABSENT])
}

fn arb_named() -> impl Strategy<Value = Vec<(String, ValueSpec)>> {
    let named = (select(vec!["x".to_owned(), "Y".to_owned()]), arb_value());
    option::weighted(0.4, vec(named, 1..3)).prop_map(Option::unwrap_or_default)
}

prop_compose! {
    fn arb_spec()(
        hosts in vec(select(&HOSTS[..]), 0..3),
        path in arb_path(),
        methods in option::weighted(0.3, vec(select(vec!["GET", "POST", "PURGE"]), 1..3)),
        headers in arb_named(),
        query in arb_named(),
    ) -> RouteSpec {
        RouteSpec {
            hosts: hosts.into_iter().map(Into::into).collect(),
            path,
            methods: methods.unwrap_or_default().into_iter().map(Into::into).collect(),
            headers,
            query,
            when: None,
        }
    }
}

prop_compose! {
    fn arb_request()(
        host in select(vec!["a.b.com", "b.com", "x.A.b.com", "x.com", "[0::1]", "org", ""]),
        segments in vec(select(vec!["a", "b", "7", "a-1", "", "%20"]), 1..6),
        star in prop::bool::weighted(0.05),
        method in select(vec!["GET", "POST", "PURGE", "BAN"]),
        headers in vec((select(vec!["X", "y"]), select(vec!["1", "2", "2 3"])), 0..3),
        query in option::of(vec(select(vec!["x=1", "x=2+3", "Y=2%203", "Y", "z=1"]), 0..3)),
    ) -> Request {
        Request {
            method: method.into(),
            host: host.into(),
            path: if star { "*".into() } else { format!("/{}", segments.join("/")) },
            query: query.map(|pairs| pairs.join("&")),
            headers: headers.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
        }
    }
}

/// The pattern's segments, without the first slash.
fn segments(pattern: &str) -> Vec<&str> {
    pattern[1..].split('/').collect()
}

fn matches_whole(regex: &str, text: &str) -> bool {
    regex::Regex::new(&format!("^(?:{regex})$")).unwrap().is_match(text)
}

/// The pattern as a regex.
fn as_regex(pattern: &str) -> String {
    let mut regex = String::new();
    for segment in segments(pattern) {
        let class = segment.split_once(':').map(|(_, kind)| kind.trim_end_matches('}'));
        match (segment, class) {
            ("*", _) => regex.push_str("(?:/.*)?"),
            (_, Some("int")) => regex.push_str("/[0-9]+"),
            (_, Some("alpha")) => regex.push_str("/[A-Za-z]+"),
            (_, Some("hex")) => regex.push_str("/[0-9A-Fa-f]+"),
            (_, Some("slug")) => regex.push_str("/[A-Za-z0-9_-]+"),
            (_, Some(other)) => panic!("{other}"),
            _ if segment.starts_with("{*") => regex.push_str("/.+"),
            _ if segment.starts_with('{') => regex.push_str("/[^/]+"),
            _ => regex.push_str(&format!("/{}", regex::escape(segment))),
        }
    }
    regex
}

/// Equal for the same host in any spelling.
fn host_key(host: &str) -> String {
    host.trim_end_matches('.').to_ascii_lowercase()
}

/// How well one of the route's hosts fits: the lower the better.
fn host_rank(pattern: Option<&str>, host: &str) -> Option<(u8, Reverse<usize>)> {
    let host = host_key(&host.replace("[0::1]", "[::1]"));
    let Some(pattern) = pattern.map(host_key) else { return Some((2, Reverse(0))) };
    match pattern.strip_prefix('*') {
        None => (pattern == host).then_some((0, Reverse(0))),
        Some(suffix) => {
            (host.ends_with(suffix) && host.len() > suffix.len()).then_some((1, Reverse(suffix.len())))
        }
    }
}

/// The written order of paths: exact, literal prefix, segment by segment; regexes by position; none.
fn path_rank(path: &PathSpec, regex_position: usize) -> (u8, Reverse<usize>, Vec<u8>, usize) {
    match path {
        PathSpec::Pattern(pattern) => {
            let literal = pattern.find(['{', '*']).unwrap_or(pattern.len());
            let kinds = ["int}", "hex}", "alpha}", "alnum}", "slug}"];
            let ranks = segments(pattern).into_iter().map(|segment| match segment {
                "*" => 20,
                _ if segment.starts_with("{*") => 19,
                _ if segment.starts_with('{') => {
                    let kind = kinds.iter().position(|kind| segment.ends_with(kind));
                    2 + kind.unwrap_or(kinds.len()) as u8
                }
                _ => 0,
            });
            (u8::from(literal < pattern.len()), Reverse(literal), ranks.collect(), 0)
        }
        PathSpec::Regex(_) => (2, Reverse(0), Vec::new(), regex_position),
        PathSpec::Any | PathSpec::Both(..) => (3, Reverse(0), Vec::new(), 0),
    }
}

fn path_takes(path: &PathSpec, request: &Request) -> bool {
    match path {
        PathSpec::Any => true,
        PathSpec::Pattern(pattern) => matches_whole(&as_regex(pattern), &request.path),
        PathSpec::Regex(regex) => matches_whole(regex, &request.path),
        PathSpec::Both(..) => false,
    }
}

fn value_takes(value: &ValueSpec, found: &[String]) -> bool {
    match value {
        ValueSpec::Exact(text) => found.contains(text),
        ValueSpec::Regex(regex) => found.iter().any(|found| matches_whole(regex, found)),
        ValueSpec::Present(present) => *present != found.is_empty(),
    }
}

fn predicates_take(spec: &RouteSpec, request: &Request) -> bool {
    let header = |name: &str| -> Vec<String> {
        let named = request.headers.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.clone()).collect()
    };
    let query = |name: &str| -> Vec<String> {
        let pairs = request.query.as_deref().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let named = pairs.filter(|(other, _)| *other == name);
        named.map(|(_, value)| value.replace('+', " ").replace("%20", " ")).collect()
    };
    (spec.methods.is_empty() || spec.methods.contains(&request.method))
        && spec.headers.iter().all(|(name, value)| value_takes(value, &header(name)))
        && spec.query.iter().all(|(name, value)| value_takes(value, &query(name)))
}

/// All matching routes, best first, without what predicates say.
fn candidates(specs: &[RouteSpec], request: &Request) -> Vec<RouteId> {
    let mut ranked = Vec::new();
    for (id, spec) in specs.iter().enumerate() {
        let hosts: Vec<Option<&str>> = if spec.hosts.is_empty() {
            vec![None]
        } else {
            spec.hosts.iter().map(|host| Some(host.as_str())).collect()
        };
        for host in hosts {
            let Some(host_rank) = host_rank(host, &request.host) else { continue };
            if !path_takes(&spec.path, request) {
                continue;
            }
            let first_of_text = specs.iter().position(|other| {
                let same_host = match host {
                    None => other.hosts.is_empty(),
                    Some(host) => other.hosts.iter().any(|other| host_key(other) == host_key(host)),
                };
                same_host && other.path == spec.path
            });
            let path_rank = path_rank(&spec.path, first_of_text.unwrap());
            let rest = (spec.methods.is_empty(), Reverse(spec.headers.len()), Reverse(spec.query.len()), id);
            ranked.push((host_rank, path_rank, rest));
        }
    }
    ranked.sort();
    let mut ids = Vec::new();
    for (_, _, (.., id)) in ranked {
        if !ids.contains(&(id as RouteId)) {
            ids.push(id as RouteId);
        }
    }
    ids
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn find_and_explain_do_what_the_precedence_says(
        specs in vec(arb_spec(), 1..12),
        requests in vec(arb_request(), 1..8),
    ) {
        let router = Router::compile(&specs).unwrap();
        for request in requests {
            let candidates = candidates(&specs, &request);
            let winner = candidates.iter().copied().find(|id| predicates_take(&specs[*id as usize], &request));
            prop_assert_eq!(found(&router, &request), winner);
            if !candidates.is_empty() {
                let explained: Vec<_> = router.explain(&request).iter().map(|candidate| candidate.route).collect();
                prop_assert_eq!(explained, candidates);
            }
            prop_assert!(router.shadowed().iter().all(|shadow| Some(shadow.route) != winner));
        }
    }

    #[test]
    fn no_request_breaks_it(specs in vec(arb_spec(), 1..12), host: String, path: String, query: Option<String>) {
        let router = Router::compile(&specs).unwrap();
        found(&router, &Request { method: "GET".into(), host, path, query, headers: Vec::new() });
    }

    #[test]
    fn no_spec_breaks_it(host: String, path in "\\PC{0,20}", pattern in "[/{}*:a.%0-]{0,12}", method: String, name: String) {
        for path in [PathSpec::Pattern(path.clone()), PathSpec::Regex(path.clone()), PathSpec::Pattern(pattern.clone())] {
            let spec = RouteSpec { hosts: vec![host.clone()], path, methods: vec![method.clone()], ..RouteSpec::default() };
            let _ = Router::compile(&[spec.header(&name, exact(&name)).query(&name, regex(&name))]);
        }
        // An exact pattern that is accepted takes the path that it spells.
        if let Ok(router) = Router::compile(&[on(&format!("/{pattern}"))])
            && !pattern.contains(['{', '*'])
        {
            prop_assert_eq!(found(&router, &get("", &format!("/{pattern}"))), Some(0));
        }
    }
}
