//! What a route asks beside host and path: method, fields, query parameters. Compiled from text, asked of a request,
//! and, when it fails, said in words. It does not know the order in which routes are asked.

use std::fmt::Write;

use super::{
    capture::{Captures, Params},
    find::RequestView,
    query,
    spec::{Refusal, RouteError, RouteField, RouteSpec, ValueSpec, is_token},
};
use crate::{
    expression::{Expression, Failed, Kind, Scope},
    regex::WholeRegex,
};

/// The methods with a bit of their own (RFC 9110 §9.3, RFC 5789); [`Method::OTHER`] stands for all the rest.
const STANDARD: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

/// A request's method as one bit, so that most routes are asked with one `and`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Method(u16);

impl Method {
    const OTHER: Self = Self(1 << STANDARD.len());

    #[inline]
    pub(super) fn of(name: &[u8]) -> Self {
        let bit = match name {
            b"GET" => 0,
            b"HEAD" => 1,
            b"POST" => 2,
            b"PUT" => 3,
            b"DELETE" => 4,
            b"CONNECT" => 5,
            b"OPTIONS" => 6,
            b"TRACE" => 7,
            b"PATCH" => 8,
            _ => return Self::OTHER,
        };
        Self(1 << bit)
    }
}

/// The methods that a route takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MethodSet(u16);

impl MethodSet {
    pub(super) const ANY: Self = Self(u16::MAX);

    #[inline]
    fn has(self, method: Method) -> bool {
        self.0 & method.0 != 0
    }
}

/// What a route asks that does not fit into a [`MethodSet`].
#[derive(Debug, Clone)]
pub(super) struct Predicates {
    /// Methods without a bit of their own, when the set has [`Method::OTHER`] and is not [`MethodSet::ANY`].
    other_methods: Box<[Box<str>]>,
    /// Names in lower case.
    headers: Box<[(Box<str>, ValueTest)]>,
    query: Box<[(Box<str>, ValueTest)]>,
    when: Option<When>,
}

/// What must hold, and the names that it may call captures by.
#[derive(Debug, Clone)]
struct When {
    expression: Expression,
    params: Box<[String]>,
}

#[derive(Debug, Clone)]
pub(super) enum ValueTest {
    Exact(Box<[u8]>),
    Regex(WholeRegex, Box<str>),
    Present(bool),
}

/// The predicate that a request fails.
#[derive(Debug, Clone)]
pub(super) enum Failure<'r> {
    Method(MethodSet, &'r [Box<str>]),
    Header(&'r str, &'r ValueTest),
    Query(&'r str, &'r ValueTest),
    When(&'r Expression, Option<Failed>),
}

/// Compiles the predicates of route number `route`, which has these captures; what is wrong with them goes to `errors`.
pub(super) fn compile(
    spec: &RouteSpec,
    route: usize,
    captures: &[String],
    errors: &mut Vec<RouteError>,
) -> (MethodSet, Option<Predicates>) {
    let mut other_methods = Vec::new();
    let mut set = if spec.methods.is_empty() { MethodSet::ANY } else { MethodSet(0) };
    for name in &spec.methods {
        match check_method(name) {
            Ok(method) => {
                set.0 |= method.0;
                if method == Method::OTHER {
                    other_methods.push(name.as_str().into());
                }
            }
            Err(refusal) => errors.push(refusal.at(route, RouteField::Method)),
        }
    }
    let mut headers = Vec::with_capacity(spec.headers.len());
    for (name, value) in &spec.headers {
        match check_header(name, value).and_then(|()| ValueTest::compile(value)) {
            Ok(test) => headers.push((name.to_ascii_lowercase().into(), test)),
            Err(refusal) => errors.push(refusal.at(route, RouteField::Header(name.clone()))),
        }
    }
    let mut query = Vec::with_capacity(spec.query.len());
    for (name, value) in &spec.query {
        match ValueTest::compile(value) {
            Ok(test) => query.push((name.as_str().into(), test)),
            Err(refusal) => errors.push(refusal.at(route, RouteField::Query(name.clone()))),
        }
    }
    let when =
        spec.when.as_ref().and_then(|text| match Expression::compile(text, Kind::Bool, Scope::Request) {
            Ok(expression) => Some(When { expression, params: captures.into() }),
            Err(fault) => {
                errors.push(Refusal::from(fault).at(route, RouteField::When));
                None
            }
        });
    if other_methods.is_empty() && headers.is_empty() && query.is_empty() && when.is_none() {
        return (set, None);
    }
    (
        set,
        Some(Predicates {
            other_methods: other_methods.into(),
            headers: headers.into(),
            query: query.into(),
            when,
        }),
    )
}

fn check_method(name: &str) -> Result<Method, Refusal> {
    if !is_token(name) {
        return Err(Refusal::new(format!("`{}` is not a method (RFC 9110 §9.1)", name.escape_debug())));
    }
    let method = Method::of(name.as_bytes());
    let upper = name.to_ascii_uppercase();
    if method == Method::OTHER && Method::of(upper.as_bytes()) != Method::OTHER {
        return Err(Refusal::new(format!("methods are case-sensitive, and `{name}` is not `{upper}`"))
            .hint(format!("\"{upper}\"")));
    }
    Ok(method)
}

fn check_header(name: &str, value: &ValueSpec) -> Result<(), Refusal> {
    if !is_token(name) {
        return Err(Refusal::new(format!("`{}` is not a field name (RFC 9110 §5.1)", name.escape_debug())));
    }
    let ValueSpec::Exact(text) = value else { return Ok(()) };
    if text.bytes().any(|byte| byte != b'\t' && (byte < 0x20 || byte == 0x7f)) {
        return Err(Refusal::new("a field's value has no control characters, so it would never match"));
    }
    let trimmed = text.trim_matches([' ', '\t']);
    if trimmed != text {
        return Err(Refusal::new(
            "a field's value does not begin or end with a space, so it would never match",
        )
        .hint(format!("\"{trimmed}\"")));
    }
    Ok(())
}

impl ValueTest {
    fn compile(spec: &ValueSpec) -> Result<Self, Refusal> {
        Ok(match spec {
            ValueSpec::Exact(text) => Self::Exact(text.as_bytes().into()),
            ValueSpec::Regex(text) => Self::Regex(WholeRegex::compile(text)?.0, text.as_str().into()),
            ValueSpec::Present(present) => Self::Present(*present),
        })
    }

    fn header<V: RequestView>(&self, name: &str, view: &V) -> bool {
        match self {
            Self::Exact(wanted) => view.header(name, |value| value == &**wanted),
            Self::Regex(regex, _) => view.header(name, |value| regex.is_match(value)),
            Self::Present(present) => view.header(name, |_| true) == *present,
        }
    }

    fn query(&self, name: &str, query: &[u8]) -> bool {
        let name = name.as_bytes();
        match self {
            Self::Exact(wanted) => query::any_value(query, name, |value| query::equals(value, wanted)),
            Self::Regex(regex, _) => {
                query::any_value(query, name, |value| query::decoded(value, |value| regex.is_match(value)))
            }
            Self::Present(present) => query::any_value(query, name, |_| true) == *present,
        }
    }
}

/// The first predicate that the request fails, if any: method, then fields, then query parameters, then the expression.
#[inline]
pub(super) fn failure<'r, V: RequestView>(
    set: MethodSet,
    predicates: Option<&'r Predicates>,
    method: Method,
    view: &V,
    captures: &Captures,
) -> Option<Failure<'r>> {
    if !set.has(method) {
        return Some(Failure::Method(set, predicates.map_or(&[], |predicates| &*predicates.other_methods)));
    }
    predicates.and_then(|predicates| predicates.failure(set, method, view, captures))
}

impl Predicates {
    fn failure<V: RequestView>(
        &self,
        set: MethodSet,
        method: Method,
        view: &V,
        captures: &Captures,
    ) -> Option<Failure<'_>> {
        if method == Method::OTHER && set != MethodSet::ANY {
            let name = view.method();
            if !self.other_methods.iter().any(|other| other.as_bytes() == name) {
                return Some(Failure::Method(set, &self.other_methods));
            }
        }
        if let Some((name, test)) = self.headers.iter().find(|(name, test)| !test.header(name, view)) {
            return Some(Failure::Header(name, test));
        }
        if !self.query.is_empty() {
            let query = view.query().unwrap_or_default();
            if let Some((name, test)) = self.query.iter().find(|(name, test)| !test.query(name, query)) {
                return Some(Failure::Query(name, test));
            }
        }
        let When { expression, params } = self.when.as_ref()?;
        match view.holds(expression, Params::new(params, captures, view.path())) {
            Ok(true) => None,
            Ok(false) => Some(Failure::When(expression, None)),
            Err(failed) => Some(Failure::When(expression, Some(failed))),
        }
    }
}

impl Failure<'_> {
    /// Says what the request lacks: "method is POST, not GET". For people; it allocates.
    pub(super) fn text<V: RequestView>(&self, view: &V) -> String {
        match self {
            Self::Method(set, others) => {
                let standard = STANDARD.iter().copied().filter(|name| set.has(Method::of(name.as_bytes())));
                let names: Vec<&str> = standard.chain(others.iter().map(|name| &**name)).collect();
                format!("method is {}, not {}", view.method().escape_ascii(), either(&names))
            }
            Self::Header(name, test) => {
                let mut found = None;
                view.header(name, |value| {
                    found = Some(value.escape_ascii().to_string());
                    true
                });
                test.text("header", name, found)
            }
            Self::Query(name, test) => {
                let mut found = None;
                query::any_value(view.query().unwrap_or_default(), name.as_bytes(), |value| {
                    found = Some(query::Decoded(value).collect::<Vec<u8>>().escape_ascii().to_string());
                    true
                });
                test.text("query parameter", name, found)
            }
            Self::When(expression, None) => format!("`{}` does not hold", expression.source()),
            Self::When(expression, Some(failed)) => format!("`{}` fails: {failed}", expression.source()),
        }
    }
}

impl ValueTest {
    fn text(&self, what: &str, name: &str, found: Option<String>) -> String {
        let Some(found) = found else { return format!("{what} {name} is missing") };
        match self {
            Self::Exact(wanted) => format!("{what} {name} is `{found}`, not `{}`", wanted.escape_ascii()),
            Self::Regex(_, regex) => format!("{what} {name} is `{found}`, which does not match `{regex}`"),
            Self::Present(_) => format!("{what} {name} is present"),
        }
    }
}

/// `a`, `a or b`, `a, b or c`.
pub(super) fn either(names: &[&str]) -> String {
    let mut text = String::new();
    for (at, name) in names.iter().enumerate() {
        let before = match at {
            0 => "",
            _ if at + 1 == names.len() => " or ",
            _ => ", ",
        };
        // Writing into a `String` cannot fail.
        let _ = write!(text, "{before}{name}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(spec: &RouteSpec) -> Vec<RouteError> {
        let mut errors = Vec::new();
        compile(spec, 3, &[], &mut errors);
        errors
    }

    #[test]
    fn every_standard_method_has_a_bit_of_its_own() {
        let mut seen = Method::OTHER.0;
        for name in STANDARD {
            let bit = Method::of(name.as_bytes()).0;
            assert_eq!(seen & bit, 0, "{name}");
            seen |= bit;
        }
        assert_eq!(Method::of(b"get"), Method::OTHER);
    }

    #[test]
    fn a_method_in_the_wrong_case_is_refused_and_an_unknown_one_is_not() {
        let spec = |name: &str| RouteSpec { methods: vec![name.into()], ..RouteSpec::default() };
        let error = &errors(&spec("get"))[0];
        assert_eq!(
            (error.route, &error.field, error.hint.as_deref()),
            (3, &RouteField::Method, Some("\"GET\""))
        );
        assert!(errors(&spec("purge")).is_empty());
        assert_eq!(errors(&spec("A B")).len(), 1);
        assert_eq!(errors(&spec("")).len(), 1);
    }

    #[test]
    fn a_field_that_no_request_could_have_is_refused() {
        let spec = |name: &str, value: &str| RouteSpec {
            headers: vec![(name.into(), ValueSpec::Exact(value.into()))],
            ..RouteSpec::default()
        };
        assert!(errors(&spec("X-Beta", "1 2")).is_empty());
        assert_eq!(errors(&spec("x beta", "1"))[0].field, RouteField::Header("x beta".into()));
        assert_eq!(errors(&spec("x-beta", " 1"))[0].hint.as_deref(), Some("\"1\""));
        assert_eq!(errors(&spec("x-beta", "a\nb")).len(), 1);
        let regex =
            RouteSpec { query: vec![("q".into(), ValueSpec::Regex("(".into()))], ..RouteSpec::default() };
        assert_eq!(errors(&regex)[0].field, RouteField::Query("q".into()));
    }

    #[test]
    fn alternatives_read_as_english() {
        assert_eq!(either(&["a"]), "a");
        assert_eq!(either(&["a", "b"]), "a or b");
        assert_eq!(either(&["a", "b", "c"]), "a, b or c");
    }
}
