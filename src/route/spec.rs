//! What a route asks of a request, as text, and what can be said against it. This file owns the shapes that come in
//! and the errors that go out; it does not judge either.

use std::fmt;

use crate::{
    config::types::{GrpcMatch, Match, ValueMatch},
    expression,
    regex::RegexError,
};

/// A route: its index in the list given to [`Router::compile`](super::Router::compile).
pub type RouteId = u32;

/// What a route asks of a request; all of it. Empty: everything matches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RouteSpec {
    /// `api.example.com`, `*.example.com`, `[::1]`; without a port. One of them must match; empty: any host.
    pub hosts: Vec<String>,
    /// The path.
    pub path: PathSpec,
    /// Methods, case-sensitive (RFC 9110 §9.1). One of them must match; empty: any method.
    pub methods: Vec<String>,
    /// Field names, in any case, and what is asked of their values. All must hold.
    pub headers: Vec<(String, ValueSpec)>,
    /// Names of query parameters, decoded, and what is asked of their values. All must hold.
    pub query: Vec<(String, ValueSpec)>,
    /// An expression that must hold.
    pub when: Option<String>,
}

/// What is asked of a path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum PathSpec {
    /// Nothing.
    #[default]
    Any,
    /// `/a`, `/a/{id}`, `/a/{*rest}`, `/a/*`.
    Pattern(String),
    /// A regex over the whole canonical path.
    Regex(String),
    /// The file has both a pattern and a regex. Refused when compiled, so that neither is silently ignored.
    Both(String, String),
}

/// What is asked of a field or query parameter. A repeated one passes if any of its values does.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ValueSpec {
    /// The whole value is this text.
    Exact(String),
    /// The whole value matches this regex.
    Regex(String),
    /// It is there (`true`) or not (`false`).
    Present(bool),
}

impl From<&Match> for RouteSpec {
    fn from(matches: &Match) -> Self {
        if let Some(grpc) = &matches.grpc {
            return grpc_call(matches, grpc);
        }
        let path = match (&matches.path, &matches.path_regex) {
            (None, None) => PathSpec::Any,
            (Some(pattern), None) => PathSpec::Pattern(pattern.clone()),
            (None, Some(regex)) => PathSpec::Regex(regex.clone()),
            (Some(pattern), Some(regex)) => PathSpec::Both(pattern.clone(), regex.clone()),
        };
        Self {
            hosts: matches.host.as_ref().map_or_else(Vec::new, |hosts| hosts.as_slice().to_vec()),
            path,
            methods: matches.method.as_ref().map_or_else(Vec::new, |methods| methods.as_slice().to_vec()),
            headers: matches.header.iter().map(|(name, value)| (name.clone(), value.into())).collect(),
            query: matches.query.iter().map(|(name, value)| (name.clone(), value.into())).collect(),
            when: matches.when.clone(),
        }
    }
}

/// What a `Content-Type` of gRPC is like, gRPC-Web's included.
const GRPC_TYPES: &str = "(?i)application/grpc(-web(-text)?)?([+; ].*)?";

/// A call of gRPC is a POST to `/service/method` with a content type of its own.
fn grpc_call(matches: &Match, grpc: &GrpcMatch) -> RouteSpec {
    let path = match (&grpc.service, &grpc.method) {
        (Some(service), Some(method)) => PathSpec::Pattern(format!("/{service}/{method}")),
        (Some(service), None) => PathSpec::Pattern(format!("/{service}/{{grpc_method}}")),
        (None, Some(method)) => PathSpec::Pattern(format!("/{{grpc_service}}/{method}")),
        (None, None) => PathSpec::Pattern("/{grpc_service}/{grpc_method}".into()),
    };
    let others = Match { grpc: None, path: None, path_regex: None, method: None, ..matches.clone() };
    let mut spec = RouteSpec { path, methods: vec!["POST".into()], ..RouteSpec::from(&others) };
    spec.headers.push(("content-type".into(), ValueSpec::Regex(GRPC_TYPES.into())));
    spec
}

impl From<&ValueMatch> for ValueSpec {
    fn from(value: &ValueMatch) -> Self {
        match value {
            ValueMatch::Exact(text) => Self::Exact(text.clone()),
            ValueMatch::Regex(regex) => Self::Regex(regex.regex.clone()),
            ValueMatch::Present(present) => Self::Present(present.present),
        }
    }
}

/// Why a route cannot be compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteError {
    /// The route's index in the list given to [`Router::compile`](super::Router::compile).
    pub route: usize,
    /// The key that is wrong.
    pub field: RouteField,
    /// What is wrong with it, as a clause that starts in lower case.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
}

/// A key of a route's `match`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteField {
    /// `host`.
    Host,
    /// `path`.
    Path,
    /// `path_regex`.
    PathRegex,
    /// `method`.
    Method,
    /// `header`, this name.
    Header(String),
    /// `query`, this name.
    Query(String),
    /// `when`.
    When,
}

impl fmt::Display for RouteField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("host"),
            Self::Path => f.write_str("path"),
            Self::PathRegex => f.write_str("path_regex"),
            Self::Method => f.write_str("method"),
            Self::Header(name) => write!(f, "header.{name}"),
            Self::Query(name) => write!(f, "query.{name}"),
            Self::When => f.write_str("when"),
        }
    }
}

impl fmt::Display for RouteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "route {}: {}: {}", self.route, self.field, self.message)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, " ({hint})"))
    }
}

impl std::error::Error for RouteError {}

/// What is wrong with one value, before it is known whose value it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl Refusal {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None }
    }

    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    pub(super) fn at(self, route: usize, field: RouteField) -> RouteError {
        RouteError { route, field, message: self.message, hint: self.hint }
    }
}

impl From<expression::Fault> for Refusal {
    fn from(expression::Fault { message, hint }: expression::Fault) -> Self {
        Self { message, hint }
    }
}

impl From<RegexError> for Refusal {
    fn from(RegexError { message, hint }: RegexError) -> Self {
        Self { message, hint }
    }
}

/// Whether `text` is a token (RFC 9110 §5.6.2), as methods and field names are.
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}
