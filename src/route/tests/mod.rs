//! The router as its callers see it: what each kind of pattern takes, which route wins, what is said about it. The
//! property test against a naive router is in `reference`.

mod precedence;
mod reference;
mod said;

use std::borrow::Cow;

use super::*;
use crate::expression::{Expression, Failed, Number, Scene, Text, TextMap};

/// A request, written out.
#[derive(Debug, Clone, Default)]
struct Request {
    method: String,
    host: String,
    path: String,
    query: Option<String>,
    headers: Vec<(String, String)>,
}

impl RequestView for Request {
    fn method(&self) -> &[u8] {
        self.method.as_bytes()
    }
    fn host(&self) -> &[u8] {
        self.host.as_bytes()
    }
    fn path(&self) -> &[u8] {
        self.path.as_bytes()
    }
    fn query(&self) -> Option<&[u8]> {
        self.query.as_deref().map(str::as_bytes)
    }
    fn header(&self, name: &str, mut test: impl FnMut(&[u8]) -> bool) -> bool {
        assert_eq!(name, name.to_ascii_lowercase());
        self.headers.iter().any(|(other, value)| other.eq_ignore_ascii_case(name) && test(value.as_bytes()))
    }
    fn holds(&self, expression: &Expression, params: Params<'_>) -> Result<bool, Failed> {
        expression.holds(&Scenery { request: self, params })
    }
}

/// What expressions of these tests ask about.
struct Scenery<'s> {
    request: &'s Request,
    params: Params<'s>,
}

impl Scene for Scenery<'_> {
    fn text(&self, text: Text) -> Cow<'_, [u8]> {
        Cow::Borrowed(if text == Text::Method { self.request.method.as_bytes() } else { b"" })
    }
    fn number(&self, _: Number) -> i64 {
        0
    }
    fn values(&self, map: TextMap, name: &str, each: &mut dyn FnMut(&[u8])) {
        if map == TextMap::Params {
            self.params.iter().filter(|(param, _)| *param == name).for_each(|(_, value)| each(value));
        }
    }
    fn names(&self, _: TextMap, _: &mut dyn FnMut(&[u8])) {}
    fn claims(&self) -> Option<&serde_json::Map<String, serde_json::Value>> {
        None
    }
    fn unix_us(&self) -> u64 {
        0
    }
}

/// `GET http://{host}{target}`.
fn get(host: &str, target: &str) -> Request {
    let (path, query) =
        target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query.to_owned())));
    Request { method: "GET".into(), host: host.into(), path: path.into(), query, headers: Vec::new() }
}

impl Request {
    fn method(mut self, method: &str) -> Self {
        self.method = method.into();
        self
    }
    fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}

/// A spec of a path: a pattern, a regex after `~`, or none when empty.
fn on(path: &str) -> RouteSpec {
    let path = match (path, path.strip_prefix('~')) {
        ("", _) => PathSpec::Any,
        (_, Some(regex)) => PathSpec::Regex(regex.into()),
        (pattern, None) => PathSpec::Pattern(pattern.into()),
    };
    RouteSpec { path, ..RouteSpec::default() }
}

impl RouteSpec {
    fn host(mut self, host: &str) -> Self {
        self.hosts.push(host.into());
        self
    }
    fn method(mut self, method: &str) -> Self {
        self.methods.push(method.into());
        self
    }
    fn header(mut self, name: &str, value: ValueSpec) -> Self {
        self.headers.push((name.into(), value));
        self
    }
    fn query(mut self, name: &str, value: ValueSpec) -> Self {
        self.query.push((name.into(), value));
        self
    }
    fn when(mut self, source: &str) -> Self {
        self.when = Some(source.into());
        self
    }
}

fn exact(text: &str) -> ValueSpec {
    ValueSpec::Exact(text.into())
}

fn regex(text: &str) -> ValueSpec {
    ValueSpec::Regex(text.into())
}

const PRESENT: ValueSpec = ValueSpec::Present(true);
const ABSENT: ValueSpec = ValueSpec::Present(false);

fn router(specs: &[RouteSpec]) -> Router {
    Router::compile(specs).unwrap()
}

/// The route that is found, after `find` and `explain` have agreed on it and its captures.
fn found(router: &Router, request: &Request) -> Option<RouteId> {
    let mut captures = Captures::default();
    let route = router.find(request, &mut captures);
    let won = router.explain(request).into_iter().find_map(|candidate| match candidate.outcome {
        Outcome::Won { captures } => Some((candidate.route, captures)),
        Outcome::Lost(_) | Outcome::LostTo(_) | Outcome::NearMiss(_) => None,
    });
    let named = route.map(|route| (route, router.named(route, &captures, request.path.as_bytes())));
    assert_eq!(named, won, "find and explain differ");
    assert!(route.is_some() || captures.is_empty());
    route
}

/// Whether the only route, on `path`, takes the request; with its captures as `name=value`.
fn takes(path: &str, target: &str) -> Option<Vec<String>> {
    let router = router(&[on(path)]);
    let request = get("example.com", target);
    let route = found(&router, &request)?;
    let mut captures = Captures::default();
    router.find(&request, &mut captures);
    let named = router.named(route, &captures, request.path.as_bytes());
    Some(named.iter().map(|(name, value)| format!("{name}={value}")).collect())
}

#[test]
fn every_kind_of_path_takes_what_it_says() {
    let none: &[&str] = &[];
    let table: &[(&str, &str, Option<&[&str]>)] = &[
        ("", "/anything", Some(none)),
        ("", "*", Some(none)),
        ("/", "/", Some(none)),
        ("/", "/a", None),
        ("/a", "/a", Some(none)),
        ("/a", "/a/", None),
        ("/a", "/A", None),
        ("/a", "/ab", None),
        ("/a/", "/a/", Some(none)),
        ("/a/", "/a", None),
        ("/a%2Fb", "/a%2Fb", Some(none)),
        ("/a%2Fb", "/a/b", None),
        ("/a/{id}", "/a/5", Some(&["id=5"])),
        ("/a/{id}", "/a/5%2F6", Some(&["id=5%2F6"])),
        ("/a/{id}", "/a/", None),
        ("/a/{id}", "/a", None),
        ("/a/{id}", "/a/5/", None),
        ("/a/{id}", "/a/5/6", None),
        ("/a/{id}/", "/a/5/", Some(&["id=5"])),
        ("/a/{id}/", "/a/5", None),
        ("/{a}/{b}/c/{d}", "/1/2/c/3", Some(&["a=1", "b=2", "d=3"])),
        ("/{a}/{b}/c/{d}", "/1/2/x/3", None),
        ("/{a}", "/", None),
        ("/a/{*rest}", "/a/b", Some(&["rest=b"])),
        ("/a/{*rest}", "/a/b/c/", Some(&["rest=b/c/"])),
        ("/a/{*rest}", "/a//b", Some(&["rest=/b"])),
        ("/a/{*rest}", "/a/", None),
        ("/a/{*rest}", "/a", None),
        ("/{*rest}", "/", None),
        ("/{*rest}", "/x", Some(&["rest=x"])),
        ("/{a}/{*rest}", "/x/y/z", Some(&["a=x", "rest=y/z"])),
        ("/a/*", "/a", Some(none)),
        ("/a/*", "/a/", Some(none)),
        ("/a/*", "/a/b", Some(none)),
        ("/a/*", "/a/b/c", Some(none)),
        ("/a/*", "/ab", None),
        ("/a/*", "/", None),
        ("/a/{id}/*", "/a/5", Some(&["id=5"])),
        ("/a/{id}/*", "/a/5/x", Some(&["id=5"])),
        ("/a/{id}/*", "/a", None),
        ("/*", "/", Some(none)),
        ("/*", "/a/b", Some(none)),
        ("/*", "*", None),
        ("/*", "", None),
        ("/a/{id:int}", "/a/42", Some(&["id=42"])),
        ("/a/{id:int}", "/a/x", None),
        ("/a/{id:slug}/b", "/a/x-1/b", Some(&["id=x-1"])),
        ("/a/{id:slug}/b", "/a/x.1/b", None),
        ("~/a/(?<id>\\d+)", "/a/42", Some(&["id=42"])),
        ("~/a/(?<id>\\d+)", "/a/42/", None),
        ("~/a/(?<id>\\d+)", "/x/a/42", None),
        ("~/(?<a>x)?(?<b>y)?", "/y", Some(&["b=y"])),
        ("~.*", "*", Some(none)),
    ];
    for (path, target, expected) in table {
        let expected = expected.map(|values| values.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(takes(path, target), expected, "{path} on {target}");
    }
}

#[test]
fn predicates_take_what_they_say() {
    let get = || get("example.com", "/?a=1&a=b+c&d");
    let with = |value: &str| get().header("X-Beta", "0").header("x-beta", value);
    let table: &[(RouteSpec, Request, bool)] = &[
        (on("").method("GET"), get(), true),
        (on("").method("POST").method("GET"), get(), true),
        (on("").method("POST"), get(), false),
        (on("").method("GET"), get().method("get"), false),
        (on("").method("GET"), get().method("HEAD"), false),
        (on("").method("PURGE"), get().method("PURGE"), true),
        (on("").method("PURGE"), get().method("BAN"), false),
        (on("").method("PURGE"), get(), false),
        (on(""), get().method("BAN"), true),
        (on("").header("X-BETA", exact("1")), with("1"), true),
        (on("").header("x-beta", exact("1")), with("1 "), false),
        (on("").header("x-beta", exact("A")), with("a"), false),
        (on("").header("x-beta", regex("[12]")), with("2"), true),
        (on("").header("x-beta", regex("[12]")), with("12"), false),
        (on("").header("x-beta", PRESENT), with(""), true),
        (on("").header("x-beta", PRESENT), get(), false),
        (on("").header("x-beta", ABSENT), with(""), false),
        (on("").header("x-beta", ABSENT), get(), true),
        (on("").header("x-beta", exact("0")).header("X-Beta", exact("1")), with("1"), true),
        (on("").header("x-beta", exact("0")).header("X-Beta", exact("1")), with("2"), false),
        (on("").query("a", exact("1")), get(), true),
        (on("").query("a", exact("b c")), get(), true),
        (on("").query("a", exact("b+c")), get(), false),
        (on("").query("A", exact("1")), get(), false),
        (on("").query("a", regex("b\\sc")), get(), true),
        (on("").query("a", regex("b")), get(), false),
        (on("").query("d", exact("")), get(), true),
        (on("").query("d", PRESENT), get(), true),
        (on("").query("d", ABSENT), get(), false),
        (on("").query("e", ABSENT), get(), true),
        (on("").query("e", PRESENT), Request { query: None, ..get() }, false),
        (on("").query("a", exact("1")).query("e", PRESENT), get(), false),
    ];
    for (spec, request, expected) in table {
        let router = router(std::slice::from_ref(spec));
        assert_eq!(found(&router, request).is_some(), *expected, "{spec:?} {request:?}");
    }
}

#[test]
fn hosts_take_what_they_say() {
    let router = router(&[
        on("").host("Example.com").host("[::1]"),
        on("").host("*.example.com"),
        on("").host("*.b.example.com").host("*.a"),
    ]);
    let table = [
        ("example.com", Some(0)),
        ("EXAMPLE.com.", Some(0)),
        ("[0::1]", Some(0)),
        ("a.example.com", Some(1)),
        ("b.example.com", Some(1)),
        ("a.b.example.com", Some(2)),
        ("x.y.B.example.com", Some(2)),
        ("x.a", Some(2)),
        ("a", None),
        (".example.com", None),
        ("example.org", None),
        ("", None),
        ("[::2]", None),
    ];
    for (host, expected) in table {
        assert_eq!(found(&router, &get(host, "/")), expected, "{host}");
    }
    assert_eq!(found(&router, &get(&".".repeat(253), "/")), None);
    assert_eq!(found(&router, &get(&"a.".repeat(5000), "/")), None);
}

#[test]
fn captures_belong_to_the_route_that_won() {
    let router = router(&[on("/{a}/{b}/x").method("POST"), on("/{c}/{*d}"), on("~/(?<e>.*)/z")]);
    let mut captures = Captures::default();
    assert_eq!(router.find(&get("", "/1/2/x").method("POST"), &mut captures), Some(0));
    assert_eq!((captures.len(), captures.value(1, b"/1/2/x")), (2, Some(&b"2"[..])));
    assert_eq!(router.find(&get("", "/1/2/x"), &mut captures), Some(1));
    assert_eq!((captures.len(), captures.value(1, b"/1/2/x")), (2, Some(&b"2/x"[..])));
    assert_eq!(router.find(&get("", "/1"), &mut captures), None);
    assert!(captures.is_empty() && captures.range(0).is_none());
    assert_eq!(router.capture_names(1), ["c", "d"]);
    assert_eq!(router.capture_names(2), ["e"]);
    assert!(router.capture_names(3).is_empty());
}

#[test]
fn sixteen_captures_fit() {
    let path = (0..CAPTURES_MAX).map(|n| format!("/{{c{n}}}")).collect::<String>();
    assert_eq!(takes(&path, &"/v".repeat(CAPTURES_MAX)).map(|values| values.len()), Some(CAPTURES_MAX));
}

#[test]
fn no_route_is_no_error() {
    let router = router(&[]);
    assert_eq!(found(&router, &get("example.com", "/")), None);
    assert!(router.explain(&get("example.com", "/")).is_empty());
    assert!(router.shadowed().is_empty());
}

#[test]
fn all_errors_of_all_routes_come_back() {
    let specs = [
        on("a").host("a:80").host("b..c").method("get"),
        on("/fine"),
        RouteSpec { path: PathSpec::Both("/a".into(), "/b".into()), ..RouteSpec::default() },
        on("~(").header("x y", PRESENT).query("q", regex("[")),
    ];
    let errors = Router::compile(&specs).unwrap_err();
    let places: Vec<_> = errors.iter().map(|error| (error.route, error.field.to_string())).collect();
    let expected = [
        (0, "host"),
        (0, "host"),
        (0, "path"),
        (0, "method"),
        (2, "path_regex"),
        (3, "path_regex"),
        (3, "header.x y"),
        (3, "query.q"),
    ];
    assert_eq!(places, expected.map(|(route, field)| (route, field.to_owned())));
    assert_eq!(errors[2].to_string(), "route 0: path: a path starts with `/` (\"/a\")");
}

#[test]
fn the_configuration_is_read_key_by_key() {
    let text = r#"
        host = ["a.example.com", "*.b.example.com"]
        path = "/users/{id}"
        method = "GET"
        header = { x-beta = "1", x-gamma = { present = false } }
        query = { q = { regex = "a+" } }
    "#;
    let matches: crate::config::types::Match = toml::from_str(text).unwrap();
    let expected = on("/users/{id}")
        .host("a.example.com")
        .host("*.b.example.com")
        .method("GET")
        .header("x-beta", exact("1"))
        .header("x-gamma", ABSENT)
        .query("q", regex("a+"));
    assert_eq!(RouteSpec::from(&matches), expected);
    let path =
        |text: &str| RouteSpec::from(&toml::from_str::<crate::config::types::Match>(text).unwrap()).path;
    assert_eq!(path(""), PathSpec::Any);
    assert_eq!(path("path_regex = '/a'"), PathSpec::Regex("/a".into()));
    assert_eq!(path("path = '/b'\npath_regex = '/a'"), PathSpec::Both("/b".into(), "/a".into()));
}

#[test]
fn captures_of_a_path_regex_have_names_and_are_not_too_many() {
    let many = |n: usize| (0..n).map(|n| format!("(?<c{n}>a)")).collect::<String>();
    let message = |regex: &str| {
        Router::compile(&[on(&format!("~{regex}"))]).map_err(|errors| errors[0].message.clone())
    };
    assert!(message("(?<a.b>a)").unwrap_err().contains("not a capture's name"));
    assert!(message(&many(16)).is_ok());
    assert!(message(&many(17)).unwrap_err().contains("at most 16 captures"));
}

#[test]
fn a_router_may_go_to_any_core_and_a_clone_finds_the_same() {
    fn may_go<T: Send + Sync + Clone>(_: &T) {}
    let router = router(&[on("~/(?<a>\\d+)"), on("/a/{id}").host("*.example.com")]);
    may_go(&router);
    let clone = router.clone();
    drop(router);
    assert_eq!(found(&clone, &get("x", "/12")), Some(0));
    assert_eq!(found(&clone, &get("x.example.com", "/a/1")), Some(1));
}

#[test]
fn among_100_000_routes_each_finds_its_own() {
    let specs: Vec<RouteSpec> = (0..100_000)
        .map(|n| match n % 4 {
            0 => on(&format!("/exact/{n}")),
            1 => on("/shared").host(&format!("h{n}.example.com")),
            2 => on(&format!("/svc{n}/{{id}}")),
            _ => on("/*").host(&format!("*.w{n}.example.com")),
        })
        .collect();
    let router = router(&specs);
    assert!(router.shadowed().is_empty());
    let mut captures = Captures::default();
    for n in 0..100_000 {
        let request = match n % 4 {
            0 => get("any.example.com", &format!("/exact/{n}")),
            1 => get(&format!("h{n}.example.com"), "/shared"),
            2 => get("any.example.com", &format!("/svc{n}/7")),
            _ => get(&format!("x.w{n}.example.com"), "/y"),
        };
        assert_eq!(router.find(&request, &mut captures), Some(n), "{request:?}");
    }
    assert_eq!(router.find(&get("any.example.com", "/exact/1"), &mut captures), None);
}
