//! The configuration file, key by key. The doc comments here are the reference: `docs/configuration.md` and
//! `ringgate schema` are generated from them. Values are as written (names, patterns, addresses as text);
//! [`crate::table`] turns them into what a core runs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

mod cluster;
mod listener;
mod path;
mod policy;
mod route;
mod tls;

pub use cluster::{Balance, Cluster, Eject, Endpoint, HashOn, Pool, ProxyVersion, Sticky, UpstreamTimeouts};
pub use listener::{HalfClose, LimitsOverride, Listener, ProxyProtocol, RiskyMethod, TimeoutsOverride};
pub use path::{Backslash, EmptySegment, EncodedSlash, PathRules};
pub use policy::{
    Authorize, Basic, ClientCert, Concurrency, Consumer, ConsumerLimit, Cors, Cost, CountedBy, Introspect,
    Ip, Jwt, JwtKey, KEY_HEADER, Key, OnFailure, OriginMatch, Policy, RateLimit, User,
};
pub use route::{
    Aggregate, ClusterShare, GrpcMatch, HeaderEdits, HeaderValue, Leg, Match, Merge, Redirect, Respond,
    Route, ValueExpression, ValueMatch, ValuePresent, ValueRegex,
};
pub use tls::{
    AlpnProtocol, CertificateFiles, ClientAuth, ClientAuthMode, ClusterTls, Hsts, ListenerTls, TlsVersion,
    UpstreamProtocol,
};

pub use super::values::Workers;
use super::values::{ByteSize, Span};

/// A ringgate configuration file.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// A file of further `[[consumer]]` tables, by its absolute path. It is watched: a change is taken within seconds, without a reload and
    /// for requests to come; one that cannot be used changes nothing.
    pub consumers: Option<String>,
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
    /// Who uses the API and has keys to it.
    pub consumer: Vec<Consumer>,
    /// What requests must pass, and what is done to them, by name.
    pub policy: Vec<Policy>,
    /// Which request goes where.
    pub route: Vec<Route>,
    /// What stands in the file that `consumers` names.
    #[serde(skip)]
    #[schemars(skip)]
    pub consumers_of_file: Vec<Consumer>,
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
    /// A TLS handshake, from the connection's first moment to its end, absolute; and a PROXY header before it. Beyond it the
    /// connection is closed.
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
    /// How long an upgraded connection may last, however much is said on it. `"0s"`: as long as both sides want.
    pub tunnel_age: Span,
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
            tunnel_age: Span::secs(0),
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
    /// An expression that must hold for a line to be written (see [Expressions](#expressions)): of `request`, `auth`, `claims`, `now` and `response`, such as
    /// `"response.status >= 400"`. Where it fails, and for what is no request or has become a tunnel, the line is written.
    pub when: Option<String>,
}

impl Default for AccessLog {
    fn default() -> Self {
        Self { format: LogFormat::Json, path: "stdout".into(), when: None }
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
