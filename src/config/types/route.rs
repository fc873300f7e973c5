//! `[[route]]`, as it is configured.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::values::{ByteSize, OneOrMany, Span};

/// Which request goes where. Exactly one of `cluster`, `clusters`, `aggregate`, `redirect` and `respond`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Its name, unique among routes; in logs and figures.
    pub name: String,
    /// What a request must have. Empty: everything matches.
    #[serde(default, rename = "match")]
    pub matches: Match,
    /// Names of the listeners it is on. Default: all.
    pub listeners: Option<Vec<String>>,
    /// Names of its policies, beside the default ones and its listener's.
    #[serde(default, rename = "use")]
    pub uses: Vec<String>,
    /// Names of default policies and of its listener's that it goes without.
    #[serde(default)]
    pub skip: Vec<String>,
    /// The cluster that serves it.
    pub cluster: Option<String>,
    /// A weighted split over clusters.
    pub clusters: Option<Vec<ClusterShare>>,
    /// Answers with what several services say.
    pub aggregate: Option<Aggregate>,
    /// Answers with a redirect.
    pub redirect: Option<Redirect>,
    /// Answers itself.
    pub respond: Option<Respond>,
    /// The whole exchange, from the request's head to the response's last byte. `"0s"`: no limit.
    #[serde(default)]
    pub timeout: Span,
    /// The path (and query, if it has a `?`) sent upstream, with variables. Without a `?` the client's query stays.
    pub rewrite: Option<String>,
    /// Overrides `limits.body_bytes`.
    pub body_bytes: Option<ByteSize>,
    /// Edits of the request's fields on their way upstream.
    #[serde(default)]
    pub request_headers: HeaderEdits,
    /// Edits of the response's fields on their way to the client.
    #[serde(default)]
    pub response_headers: HeaderEdits,
}

/// What a request must have; all of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Match {
    /// `api.example.com`, or `*.example.com` for every name below it. Without a port.
    pub host: Option<OneOrMany<String>>,
    /// `/a` exact, `/a/{id}` one segment, `/a/{*rest}` the non-empty rest, `/a/*` that element and everything
    /// below it.
    pub path: Option<String>,
    /// A regex over the whole canonical path, with named captures. Instead of `path`.
    pub path_regex: Option<String>,
    /// Calls of gRPC, gRPC-Web included, by their service and method. Instead of `path`, `path_regex` and `method`.
    pub grpc: Option<GrpcMatch>,
    /// One of these methods. `GET` does not imply `HEAD`.
    pub method: Option<OneOrMany<String>>,
    /// Fields and their values.
    pub header: BTreeMap<String, ValueMatch>,
    /// Query parameters and their values.
    pub query: BTreeMap<String, ValueMatch>,
    /// An expression that must hold (see [Expressions](#expressions)): of `request` and `now`. One that fails, since a field that it asks for is not there
    /// for one, does not match.
    pub when: Option<String>,
}

/// Calls of gRPC.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GrpcMatch {
    /// The service with its package: `"shop.v1.Cart"`. Default: any.
    pub service: Option<String>,
    /// The method: `"AddItem"`. Default: any.
    pub method: Option<String>,
}

/// A value: exact text, `{ regex = "…" }` over the whole value, or `{ present = true }` (or `false`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ValueMatch {
    /// This text.
    Exact(String),
    /// A regex over the whole value.
    Regex(ValueRegex),
    /// Whether it is there at all.
    Present(ValuePresent),
}

/// A regex over a whole value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ValueRegex {
    /// The pattern, anchored at both ends.
    pub regex: String,
}

/// Whether a value is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ValuePresent {
    /// `true`: it must be there; `false`: it must not.
    pub present: bool,
}

/// Answers a GET with one JSON document that is made of several services' answers, which are asked at the same time. While a leg that is not `required`
/// fails, the response has what there is, a member that tells of it (`problems`), the field `X-Partial` and `Cache-Control: no-store`. A route's `request_headers` are those of
/// every leg's request.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Aggregate {
    /// How answers become one: `"name"`, each is a member by its leg's name; `"deep"`, they are objects whose members are one object's, and so within
    /// them; where two cannot be one, the later leg's stays.
    #[serde(default)]
    pub merge: Merge,
    /// The member that tells of legs that have failed: a list of `{ "leg", "reason", "status" }`. It is there only if some have.
    #[serde(default = "defaults::problems")]
    pub problems: String,
    /// Whom to ask: 1 to 32.
    pub legs: Vec<Leg>,
}

/// How answers become one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Merge {
    /// Each is a member.
    #[default]
    Name,
    /// Their members are one object's.
    Deep,
}

/// One service that is asked, by GET. Its answer is a 2xx with JSON; numbers in it that are neither integers of 64 bits nor double precision are rounded.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Leg {
    /// Its name, unique among the legs of its route: letters, digits, `-` and `_`. Its figures are those of `route/leg`.
    pub name: String,
    /// The cluster that is asked.
    pub cluster: String,
    /// The path, and perhaps a query, with variables. Beside those of every text there is `{legs.NAME/POINTER}`: a value (a JSON pointer, RFC 6901) of what was taken of the answer of a leg
    /// before it in the list, for which it waits then.
    pub path: String,
    /// Fields of the request that it gets.
    #[serde(default = "defaults::leg_headers")]
    pub headers: Vec<String>,
    /// Names of policies that its request must pass. Those of the route are asked before, about the client's request.
    #[serde(default, rename = "use")]
    pub uses: Vec<String>,
    /// How long it may take. `"0s"`: as long as the route.
    #[serde(default)]
    pub timeout: Span,
    /// Whether there is no response without it. Then its 400, 403, 404, 409, 410, 422 or 429 is the response's status, and else 502 or 504 (`leg-failed`).
    #[serde(default = "defaults::yes")]
    pub required: bool,
    /// An expression that must hold for it to be asked (see [Expressions](#expressions)): of `request`, `auth`, `claims` and `now`. Else there is nothing of it, nor of legs that need what it says, and that is no failure.
    pub when: Option<String>,
    /// What of its answer is taken: a JSON pointer. `""`: all.
    #[serde(default)]
    pub select: String,
    /// JSON pointers, in that, to what is left out.
    #[serde(default)]
    pub remove: Vec<String>,
    /// Fields of its answer that go to the client, such as `set-cookie`.
    #[serde(default)]
    pub pass: Vec<String>,
    /// Bytes that its answer may have.
    #[serde(default = "defaults::leg_bytes")]
    pub body_bytes: ByteSize,
}

/// A cluster's share of a route.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClusterShare {
    /// The cluster's name.
    pub name: String,
    /// Its share. 0 gets nothing.
    #[serde(default = "defaults::weight")]
    #[schemars(range(max = 65535))]
    pub weight: u32,
}

/// A redirect.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Redirect {
    /// `Location`, with variables.
    pub to: String,
    /// 301, 302, 303, 307 or 308.
    #[serde(default = "defaults::redirect_status")]
    #[schemars(range(min = 300, max = 399))]
    pub status: u16,
}

/// An answer from the configuration.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Respond {
    /// 200 to 599.
    #[serde(default = "defaults::respond_status")]
    #[schemars(range(min = 200, max = 599))]
    pub status: u16,
    /// The body, with variables.
    #[serde(default)]
    pub body: String,
    /// `Content-Type`.
    #[serde(default = "defaults::content_type")]
    pub content_type: String,
}

/// Edits of fields: first `remove`, then `set` (replaces), then `add` (appends). Values may hold variables.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HeaderEdits {
    /// Names to remove.
    pub remove: Vec<String>,
    /// Names and values to set.
    pub set: BTreeMap<String, HeaderValue>,
    /// Names and values to add.
    pub add: BTreeMap<String, HeaderValue>,
}

/// What a field says: a text with variables, or `{ expression = "…" }` (see [Expressions](#expressions)), which comes to a text. Where that fails, the field
/// is left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum HeaderValue {
    /// A text with variables.
    Text(String),
    /// What an expression comes to.
    Expression(ValueExpression),
}

/// A value that an expression comes to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ValueExpression {
    /// The expression.
    pub expression: String,
}

impl From<&str> for HeaderValue {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

/// Defaults that serde needs as functions.
mod defaults {
    use crate::config::values::ByteSize;

    pub(super) fn yes() -> bool {
        true
    }
    pub(super) fn problems() -> String {
        "problems".into()
    }
    pub(super) fn leg_headers() -> Vec<String> {
        ["accept-language", "authorization", "cookie", "traceparent", "tracestate"].map(String::from).into()
    }
    pub(super) fn leg_bytes() -> ByteSize {
        ByteSize(1 << 20)
    }
    pub(super) fn weight() -> u32 {
        1
    }
    pub(super) fn redirect_status() -> u16 {
        308
    }
    pub(super) fn respond_status() -> u16 {
        200
    }
    pub(super) fn content_type() -> String {
        "text/plain; charset=utf-8".into()
    }
}
