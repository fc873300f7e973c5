//! The configuration file, key by key. The doc comments here are the reference: `docs/configuration.md` and
//! `ringgate schema` are generated from them. Values are as written (names, patterns, addresses as text);
//! [`crate::table`] turns them into what a core runs.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

mod path;
mod tls;

pub use path::{Backslash, EmptySegment, EncodedSlash, PathRules};
pub use tls::{
    AlpnProtocol, CertificateFiles, ClientAuth, ClientAuthMode, ClusterTls, Hsts, ListenerTls, TlsVersion,
    UpstreamProtocol,
};

pub use super::values::Workers;
use super::values::{ByteSize, OneOrMany, Span};

/// A ringgate configuration file.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Threads, rings and what a whole core may hold.
    pub runtime: Runtime,
    /// Tuning of single cores; what is not set here comes from `[runtime]`.
    pub core: Vec<Core>,
    /// Sizes a request may have. Each listener may override them.
    pub limits: Limits,
    /// How long a client may take. Each listener may override them.
    pub timeouts: Timeouts,
    /// Fields that tell the upstream who asked.
    pub forwarding: Forwarding,
    /// One line per request.
    pub access_log: AccessLog,
    /// Addresses to listen on.
    pub listener: Vec<Listener>,
    /// Groups of equivalent upstream endpoints.
    pub cluster: Vec<Cluster>,
    /// Which request goes where.
    pub route: Vec<Route>,
}

/// Threads, rings and what a whole core may hold.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Runtime {
    /// `"auto"` (one worker per CPU this process may use) or a number of workers.
    pub workers: Workers,
    /// `"auto"` takes io_uring and falls back to epoll where the kernel refuses it; `"io_uring"` and `"epoll"`
    /// insist.
    pub driver: DriverChoice,
    /// Entries of each core's submission queue. A power of two between 256 and 32768.
    #[schemars(range(min = 256, max = 32768))]
    pub ring_entries: u32,
    /// Client connections one core holds at once.
    #[schemars(range(min = 1))]
    pub max_connections: usize,
    /// What happens to connections beyond `max_connections`: `"wait"` leaves them in the kernel's backlog,
    /// `"reject"` answers 503 and closes.
    pub on_full: OnFull,
    /// Buffers of 16 KiB one core may have in use at once; a large buffer of 64 KiB counts as four. A request
    /// that finds none is answered 503.
    #[schemars(range(min = 64))]
    pub buffers: usize,
    /// TLS handshakes with clients that one core has under way at once with all of `timeouts.handshake` for each; further ones
    /// have a second at most, so that silent ones make room. However many they are, running requests come between them.
    #[schemars(range(min = 1))]
    pub max_handshakes: usize,
    /// How long a drain (SIGTERM) waits for running exchanges before it cuts them.
    pub drain_timeout: Span,
}

impl Default for Runtime {
    fn default() -> Self {
        Self {
            workers: Workers::Auto,
            driver: DriverChoice::Auto,
            ring_entries: 4096,
            max_connections: 20_000,
            on_full: OnFull::Wait,
            buffers: 65_536,
            max_handshakes: 1024,
            drain_timeout: Span::secs(30),
        }
    }
}

/// How a core talks to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DriverChoice {
    /// io_uring, else epoll.
    Auto,
    /// io_uring or refuse to start.
    IoUring,
    /// epoll.
    Epoll,
}

/// What happens to connections beyond `max_connections`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnFull {
    /// They wait in the kernel's backlog.
    Wait,
    /// They get 503 and are closed.
    Reject,
}

/// Tuning of one core.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Core {
    /// The CPU's number. It must be one this process may use, and have a worker.
    #[schemars(range(max = 65535))]
    pub cpu: usize,
    /// Overrides `runtime.ring_entries`.
    #[schemars(range(min = 256, max = 32768))]
    pub ring_entries: Option<u32>,
    /// Overrides `runtime.max_connections`.
    #[schemars(range(min = 1))]
    pub max_connections: Option<usize>,
    /// Overrides `runtime.buffers`.
    #[schemars(range(min = 64))]
    pub buffers: Option<usize>,
    /// Overrides `runtime.max_handshakes`.
    #[schemars(range(min = 1))]
    pub max_handshakes: Option<usize>,
    /// Names of the listeners this core serves. Default: all.
    pub listeners: Option<Vec<String>>,
}

/// Sizes a request may have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Request line and fields together, and an upstream's response head. Beyond it: 431, or 414 when it is the
    /// target. At most 64 KiB.
    pub head_bytes: ByteSize,
    /// Fields in a head. Beyond it: 431. At most 256.
    #[schemars(range(min = 1, max = 256))]
    pub headers: usize,
    /// The request target. Beyond it: 414.
    pub target_bytes: ByteSize,
    /// A request body, as sent without transfer coding. Beyond it: 413.
    pub body_bytes: ByteSize,
    /// Requests on one connection; the last one is answered with `Connection: close`, or by HTTP/2 with GOAWAY. 0: no limit.
    pub requests_per_connection: u64,
    /// Requests at once on one connection of HTTP/2. Further ones are refused, and may be sent again.
    #[schemars(range(min = 1, max = 10_000))]
    pub http2_streams: u32,
    /// Bytes of one request's body by HTTP/2 that a client may send before the gateway has passed them on.
    pub http2_stream_window: ByteSize,
    /// The same for all bodies on a connection together.
    pub http2_connection_window: ByteSize,
}

impl Limits {
    /// The least that `head_bytes` may be.
    pub const HEAD_BYTES_MIN: ByteSize = ByteSize::kib(1);
    /// The most that `head_bytes` may be: a head must fit in one large buffer.
    pub const HEAD_BYTES_MAX: ByteSize = ByteSize::kib(64);
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes: ByteSize::kib(16),
            headers: 100,
            target_bytes: ByteSize::kib(8),
            body_bytes: ByteSize::gib(16),
            requests_per_connection: 0,
            http2_streams: 128,
            http2_stream_window: ByteSize::kib(256),
            http2_connection_window: ByteSize::kib(1024),
        }
    }
}

/// How long a client may take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// A TLS handshake, from the connection's first moment to its end, absolute. Beyond it the connection is closed.
    pub handshake: Span,
    /// From the first byte of a request to the end of its head, absolute. Beyond it: 408.
    pub head: Span,
    /// Between two reads of a request body. Beyond it: 408.
    pub body_idle: Span,
    /// Between two requests on a connection, and before the first.
    pub keep_alive: Span,
    /// The age after which a connection's next response says `Connection: close`. `"0s"`: none.
    pub connection_age: Span,
    /// How long a client may take nothing of what is sent to it.
    pub write_stall: Span,
    /// How long an upgraded connection may be silent in both directions. `"0s"`: forever.
    pub tunnel_idle: Span,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            handshake: Span::secs(10),
            head: Span::secs(10),
            body_idle: Span::secs(30),
            keep_alive: Span::secs(60),
            connection_age: Span::secs(0),
            write_stall: Span::secs(30),
            tunnel_idle: Span::secs(3600),
        }
    }
}

/// Fields that tell the upstream who asked. They are overwritten, or extended when the peer is in the listener's
/// `trusted_proxies`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Forwarding {
    /// `X-Forwarded-For`, `-Proto` and `-Host`.
    pub x_forwarded: bool,
    /// `Forwarded` (RFC 7239).
    pub forwarded: bool,
    /// `X-Request-Id`, a UUIDv7. It is logged in any case.
    pub request_id: bool,
    /// The pseudonym in `Via` (RFC 9110 §7.6.3), both ways; an empty string sends none.
    pub via: String,
}

impl Default for Forwarding {
    fn default() -> Self {
        Self { x_forwarded: true, forwarded: true, request_id: true, via: "ringgate".into() }
    }
}

/// One line per request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AccessLog {
    /// `"json"`, `"combined"` (as Apache and nginx write it) or `"off"`.
    pub format: LogFormat,
    /// `"stdout"` or a file's path. A file is reopened on SIGUSR1.
    pub path: String,
}

impl Default for AccessLog {
    fn default() -> Self {
        Self { format: LogFormat::Json, path: "stdout".into() }
    }
}

/// The shape of an access-log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// The combined log format.
    Combined,
    /// No access log.
    Off,
}

/// An address to listen on.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// Its name, unique among listeners.
    pub name: String,
    /// `ip:port`, `[ipv6]:port`. Port 0 takes a free one and says which.
    pub address: String,
    /// Speaks TLS on this address.
    pub tls: Option<ListenerTls>,
    /// Speaks HTTP/2 without TLS too, to clients that begin with it (prior knowledge, RFC 9113 §3.3). With `tls` it is agreed by
    /// `tls.alpn`.
    #[serde(default)]
    pub h2c: bool,
    /// Answers every request with a redirect (308) to the same URL by HTTPS on this port, such as 443; routes are not asked.
    /// Not with `tls`.
    #[schemars(range(min = 1))]
    pub https_redirect: Option<u16>,
    /// Connections the kernel holds before they are accepted, per core.
    #[serde(default = "defaults::backlog")]
    #[schemars(range(min = 1, max = 1_048_576))]
    pub backlog: u32,
    /// Accept a connection only when its first bytes are there (`TCP_DEFER_ACCEPT`), which spares a wait for each;
    /// clients that connect ahead of their first request are then in the kernel until they send.
    #[serde(default)]
    pub defer_accept: bool,
    /// Networks (CIDR) whose `X-Forwarded-*`, `Forwarded` and `X-Request-Id` are believed and extended.
    #[serde(default)]
    pub trusted_proxies: Vec<String>,
    /// How a path is brought to its one canonical form.
    #[serde(default)]
    pub path: PathRules,
    /// Methods to let through that are refused by default: `"TRACE"`, `"CONNECT"`.
    #[serde(default)]
    pub allow_methods: Vec<RiskyMethod>,
    /// What a client's half-close (FIN) means while its response is awaited: `"honour"` finishes the exchange,
    /// `"abort"` takes it for a departure and aborts the upstream request.
    #[serde(default)]
    pub half_close: HalfClose,
    /// Overrides of `[limits]` for this listener.
    #[serde(default)]
    pub limits: LimitsOverride,
    /// Overrides of `[timeouts]` for this listener.
    #[serde(default)]
    pub timeouts: TimeoutsOverride,
}

/// A method refused by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum RiskyMethod {
    /// RFC 9110 §9.3.8.
    Trace,
    /// RFC 9110 §9.3.6: the upstream's 2xx turns the connection into a tunnel.
    Connect,
}

/// What a client's half-close means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HalfClose {
    /// The client still wants its response.
    #[default]
    Honour,
    /// The client has gone.
    Abort,
}

/// Overrides of `[limits]`; the same keys, each optional.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsOverride {
    /// See `limits.head_bytes`.
    pub head_bytes: Option<ByteSize>,
    /// See `limits.headers`.
    #[schemars(range(min = 1, max = 256))]
    pub headers: Option<usize>,
    /// See `limits.target_bytes`.
    pub target_bytes: Option<ByteSize>,
    /// See `limits.body_bytes`.
    pub body_bytes: Option<ByteSize>,
    /// See `limits.requests_per_connection`.
    pub requests_per_connection: Option<u64>,
    /// See `limits.http2_streams`.
    #[schemars(range(min = 1, max = 10_000))]
    pub http2_streams: Option<u32>,
    /// See `limits.http2_stream_window`.
    pub http2_stream_window: Option<ByteSize>,
    /// See `limits.http2_connection_window`.
    pub http2_connection_window: Option<ByteSize>,
}

/// Overrides of `[timeouts]`; the same keys, each optional.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TimeoutsOverride {
    /// See `timeouts.handshake`.
    pub handshake: Option<Span>,
    /// See `timeouts.head`.
    pub head: Option<Span>,
    /// See `timeouts.body_idle`.
    pub body_idle: Option<Span>,
    /// See `timeouts.keep_alive`.
    pub keep_alive: Option<Span>,
    /// See `timeouts.connection_age`.
    pub connection_age: Option<Span>,
    /// See `timeouts.write_stall`.
    pub write_stall: Option<Span>,
    /// See `timeouts.tunnel_idle`.
    pub tunnel_idle: Option<Span>,
}

/// A group of equivalent upstream endpoints.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// Its name, unique among clusters.
    pub name: String,
    /// Who serves it. At least one with a weight above 0.
    pub endpoints: Vec<Endpoint>,
    /// How an endpoint is picked.
    #[serde(default)]
    pub balance: Balance,
    /// What `balance = "hash"` hashes. Default: the client's address.
    pub hash_on: Option<HashOn>,
    /// Keeps a client at its endpoint by a cookie.
    pub sticky: Option<Sticky>,
    /// The `Host` sent upstream: `"preserve"` (the client's), `"endpoint"` (the endpoint's address) or a literal.
    #[serde(default = "defaults::host")]
    pub host: String,
    /// Speaks TLS to the endpoints. `tls = {}` is enough.
    pub tls: Option<ClusterTls>,
    /// The version of HTTP that is spoken to the endpoints: `"h1"`; `"h2"`, by prior knowledge where there is no `tls`; `"auto"`
    /// lets each endpoint choose by ALPN, and needs `tls`.
    #[serde(default)]
    pub protocol: UpstreamProtocol,
    /// How long an endpoint may take.
    #[serde(default)]
    pub timeouts: UpstreamTimeouts,
    /// Connections kept and allowed per endpoint.
    #[serde(default)]
    pub pool: Pool,
    /// When a failing endpoint is left alone for a while.
    #[serde(default)]
    pub eject: Eject,
}

/// One address of a cluster.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// `ip:port` or `[ipv6]:port`.
    pub address: String,
    /// Its share. 0 gets nothing.
    #[serde(default = "defaults::weight")]
    #[schemars(range(max = 65535))]
    pub weight: u32,
}

/// How an endpoint is picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// Smooth weighted round robin: 5,1,1 gives a a b a c a a.
    #[default]
    RoundRobin,
    /// The endpoint with the fewest requests under way for its weight.
    LeastRequests,
    /// The better of two endpoints drawn by weight, by requests under way.
    P2c,
    /// By weight, at random.
    Random,
    /// Consistent (Maglev) by `hash_on`.
    Hash,
}

/// What is hashed: `"client_ip"`, `"path"`, `{ header = "…" }`, `{ cookie = "…" }` or `{ query = "…" }`. A
/// request without the named value is hashed by the client's address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HashOn {
    /// The client's address.
    ClientIp,
    /// The canonical path.
    Path,
    /// The field of this name.
    Header(String),
    /// The cookie of this name.
    Cookie(String),
    /// The query parameter of this name.
    Query(String),
}

/// Keeps a client at its endpoint by a cookie.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sticky {
    /// The cookie's name.
    pub cookie: String,
    /// How long the client keeps it; `"0s"`: until it closes.
    #[serde(default)]
    pub ttl: Span,
}

/// How long an endpoint may take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UpstreamTimeouts {
    /// To accept a connection. Beyond it the next endpoint is tried.
    pub connect: Span,
    /// From the request's last byte to the response's first. Beyond it: 504.
    pub first_byte: Span,
    /// Between two reads of a response, or while it takes nothing of a request. Beyond it: 504, or the end of the
    /// connection when the head is out.
    pub idle: Span,
}

impl Default for UpstreamTimeouts {
    fn default() -> Self {
        Self { connect: Span::secs(2), first_byte: Span::secs(30), idle: Span::secs(30) }
    }
}

/// Connections kept and allowed per endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Pool {
    /// Idle connections kept, per core. 0 closes each after its response.
    pub max_idle: usize,
    /// How long a connection may be idle.
    pub idle_timeout: Span,
    /// The age after which a connection is not used again. `"0s"`: none.
    pub max_age: Span,
    /// Connections to one endpoint from the whole host, shared out over the cores. 0: no limit.
    pub max_connections: usize,
    /// Requests that may wait for a connection, per core and endpoint. Beyond it: 503.
    pub queue: usize,
    /// How long a request may wait for a connection. Beyond it: 503.
    pub queue_timeout: Span,
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            max_idle: 256,
            idle_timeout: Span::secs(60),
            max_age: Span::secs(0),
            max_connections: 0,
            queue: 1024,
            queue_timeout: Span::secs(1),
        }
    }
}

/// When a failing endpoint is left alone for a while. Never more than half of a cluster is; when all are down, all
/// are used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Eject {
    /// Failures in a row (connect, timeout, broken or 502/503/504 response) that eject. 0: never.
    pub failures: u32,
    /// How long the first time; each further time doubles it.
    pub backoff: Span,
    /// The longest.
    pub max_backoff: Span,
}

impl Default for Eject {
    fn default() -> Self {
        Self { failures: 5, backoff: Span::secs(5), max_backoff: Span::secs(300) }
    }
}

/// Which request goes where. Exactly one of `cluster`, `clusters`, `redirect` and `respond`.
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
    /// The cluster that serves it.
    pub cluster: Option<String>,
    /// A weighted split over clusters.
    pub clusters: Option<Vec<ClusterShare>>,
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
    /// One of these methods. `GET` does not imply `HEAD`.
    pub method: Option<OneOrMany<String>>,
    /// Fields and their values.
    pub header: BTreeMap<String, ValueMatch>,
    /// Query parameters and their values.
    pub query: BTreeMap<String, ValueMatch>,
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
    pub set: BTreeMap<String, String>,
    /// Names and values to add.
    pub add: BTreeMap<String, String>,
}

/// Defaults that serde needs as functions.
mod defaults {
    pub(super) fn backlog() -> u32 {
        4096
    }
    pub(super) fn host() -> String {
        "preserve".into()
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
