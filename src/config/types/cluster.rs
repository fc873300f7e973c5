//! `[[cluster]]`, as it is configured.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ClusterTls, UpstreamProtocol};
use crate::config::values::Span;

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
    /// Makes requests of gRPC-Web into gRPC for endpoints that speak only that, and their answers into gRPC-Web. For
    /// `protocol = "h2"` or `"auto"`.
    #[serde(default)]
    pub grpc_web: bool,
    /// Begins each connection to an endpoint with a PROXY header of this version, `"v1"` or `"v2"`, which names the client's address
    /// and the one it connected to. Such a connection carries one request and is closed after it. With `protocol = "h1"` only.
    pub proxy_protocol: Option<ProxyVersion>,
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

/// A version of the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// Binary.
    V2,
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
    /// Between two PINGs over a connection of HTTP/2 with requests under way; one that is not answered within 20 s ends
    /// the connection. Servers of gRPC that are not told otherwise allow one in five minutes. `"0s"`: none.
    pub ping: Span,
}

impl Default for UpstreamTimeouts {
    fn default() -> Self {
        Self {
            connect: Span::secs(2),
            first_byte: Span::secs(30),
            idle: Span::secs(30),
            ping: Span::secs(300),
        }
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

/// Defaults that serde needs as functions.
mod defaults {
    pub(super) fn host() -> String {
        "preserve".into()
    }
    pub(super) fn weight() -> u32 {
        1
    }
}
