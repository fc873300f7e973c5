//! `[[listener]]`, as it is configured.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ListenerTls, PathRules};
use crate::config::values::{ByteSize, Span};

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
    /// Networks (CIDR) whose `X-Forwarded-*`, `Forwarded` and `X-Request-Id` are believed and extended. From anyone else these do not
    /// go on, nor do `X-Real-IP`, `X-Client-IP`, `True-Client-IP`, `X-Original-Host`, `X-Original-URL` and `X-Rewrite-URL`.
    #[serde(default)]
    pub trusted_proxies: Vec<String>,
    /// Demands a PROXY header (version 1 or 2) in front of connections from some peers, and takes the client's address from it.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// How a path is brought to its one canonical form.
    #[serde(default)]
    pub path: PathRules,
    /// Methods to let through that are refused by default: `"TRACE"`, `"CONNECT"`.
    #[serde(default)]
    pub allow_methods: Vec<RiskyMethod>,
    /// Names of the policies of every route on it, beside the default ones.
    #[serde(default, rename = "use")]
    pub uses: Vec<String>,
    /// What a client's half-close (FIN) means while its response is awaited: `"honour"` finishes the exchange,
    /// `"abort"` takes it for a departure and aborts the upstream request. Over HTTP/2 a request ends with
    /// its stream, so the end of the connection is always a departure.
    #[serde(default)]
    pub half_close: HalfClose,
    /// Overrides of `[limits]` for this listener.
    #[serde(default)]
    pub limits: LimitsOverride,
    /// Overrides of `[timeouts]` for this listener.
    #[serde(default)]
    pub timeouts: TimeoutsOverride,
}

/// A PROXY header in front of connections: from these peers always, from others never.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProxyProtocol {
    /// Networks (CIDR) of the peers whose connections must begin with it, within `timeouts.handshake`; one that does not is closed.
    /// What others send is never taken for it.
    pub from: Vec<String>,
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
    /// See `timeouts.tunnel_age`.
    pub tunnel_age: Option<Span>,
}

/// Defaults that serde needs as functions.
mod defaults {
    pub(super) fn backlog() -> u32 {
        4096
    }
}
