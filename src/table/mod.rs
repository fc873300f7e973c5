//! The configuration compiled: routes, policies and clusters by index, patterns built, texts parsed, times in ms.
//! Immutable; everything that can be refused is refused here, off the data path. A core clones the table it is sent, so
//! that no two cores share a cache line of it (a clone of a regex has its own scratch space), but for the buckets of rate limits, which are the host's.

mod asked;
mod compile;
mod consumers;
mod legs;
mod policies;
mod rules;
mod tokens;
mod users;

use std::{net::SocketAddr, sync::Arc};

use ipnet::IpNet;

pub use compile::{Report, compile};
pub use consumers::consumers;
pub use users::users;

use crate::{
    config::types::{HalfClose, PathRules, ProxyVersion, UpstreamProtocol},
    expression::Expression,
    http::request::HeadLimits,
    policy::{
        aggregate::Aggregate,
        authorize::Authorize,
        basic::UserAccess,
        client_cert::CertAccess,
        concurrency::Concurrency,
        cookie::StickyCookie,
        cors::Cors,
        headers::HeaderEdits,
        introspect::Introspect,
        ip::IpAccess,
        jwt::TokenAccess,
        key::{Consumers, KeyAccess},
        rate_limit::RateLimit,
        template::Template,
    },
    route::Router,
    tls::{ClientTls, ServerTls},
    upstream::{balance::Balancer, health::EjectPolicy, pool::PoolPolicy},
};

/// What a core runs by. Its parts refer to each other by index.
#[derive(Debug, Clone)]
pub struct Table {
    /// What must hold for a line of the access log to be written.
    pub log_when: Option<Expression>,
    /// Listeners, in the order of the file.
    pub listeners: Vec<Listener>,
    /// Routes, in the order of the file: a router's route id is an index of this list. Behind them those that only the gateway's own requests
    /// take.
    pub routes: Vec<Route>,
    /// Clusters, in the order of the file.
    pub clusters: Vec<Cluster>,
    /// Weighted splits of routes over clusters.
    pub splits: Vec<Split>,
    /// Policies, in the order of the file.
    pub policies: Vec<Policy>,
    /// The distinct sets of policies that routes have on listeners. The first one is empty.
    pub chains: Vec<Chain>,
    /// Fields that tell the upstream who asked.
    pub forwarding: Forwarding,
    /// Whether some cluster tells its endpoints where a client connected to.
    pub announces: bool,
    /// Who uses the API, as it was when the table was compiled.
    pub consumers: Arc<Consumers>,
    /// How many endpoints there are: they are numbered through all clusters, for figures.
    pub endpoints: usize,
}

impl Table {
    /// A table for one core: nothing of it is shared with another's, the regexes' scratch space included.
    pub fn for_core(&self) -> Self {
        let mut own = self.clone();
        let mut routers: Vec<(*const Router, Arc<Router>)> = Vec::new();
        for listener in &mut own.listeners {
            let shared = Arc::as_ptr(&listener.router);
            let router = match routers.iter().find(|(from, _)| *from == shared) {
                Some((_, router)) => Arc::clone(router),
                None => {
                    let router = Arc::new(Router::clone(&listener.router));
                    routers.push((shared, Arc::clone(&router)));
                    router
                }
            };
            listener.router = router;
            listener.routes = listener.routes.iter().copied().collect();
        }
        own
    }
}

/// One listener's rules.
#[derive(Debug, Clone)]
pub struct Listener {
    /// Its name.
    pub name: Box<str>,
    /// What it serves TLS with, if it does. Each core makes its own configuration from it.
    pub tls: Option<Arc<ServerTls>>,
    /// HTTP/2.
    pub http2: Http2,
    /// The port of HTTPS to which all requests are sent, if they are.
    pub https_redirect: Option<u16>,
    /// The line `Strict-Transport-Security` that goes with each response, or nothing.
    pub hsts: Box<[u8]>,
    /// The routes on it.
    pub router: Arc<Router>,
    /// Which route of the table each of the router's routes is, with which policies.
    pub routes: Arc<[Attached]>,
    /// The policies of a request that has no route: an index of the table's chains.
    pub chain: u32,
    /// Whether some route on it, or the listener itself, shares with other origins.
    pub shares: bool,
    /// Limits of heads.
    pub head: HeadLimits,
    /// Bytes of a request body.
    pub body_bytes: u64,
    /// Requests on one connection; 0: no limit.
    pub requests_per_connection: u64,
    /// How long a client may take.
    pub timeouts: Timeouts,
    /// Peers whose connections begin with a PROXY header.
    pub announced: Vec<IpNet>,
    /// Peers whose forwarding fields are believed.
    pub trusted: Vec<IpNet>,
    /// How a path is made canonical.
    pub path: PathRules,
    /// Whether TRACE is let through.
    pub allow_trace: bool,
    /// Whether CONNECT is let through.
    pub allow_connect: bool,
    /// What a client's half-close means.
    pub half_close: HalfClose,
}

/// A route on a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attached {
    /// An index of the table's routes.
    pub route: u32,
    /// An index of the table's chains.
    pub chain: u32,
}

/// A policy.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Its name.
    pub name: Box<str>,
    /// What it does.
    pub rule: Rule,
}

/// What a policy does.
#[derive(Debug, Clone)]
pub enum Rule {
    /// Lets pages of other origins read.
    Cors(Cors),
    /// Refuses by address.
    Ip(IpAccess),
    /// Asks for a client certificate.
    ClientCert(CertAccess),
    /// Asks for a key.
    Key(KeyAccess),
    /// Asks for a name and a password.
    Basic(UserAccess),
    /// Asks for a token.
    Jwt(Box<TokenAccess>),
    /// Asks an issuer about a token.
    Introspect(Box<Introspect>),
    /// Asks someone else.
    Authorize(Box<Authorize>),
    /// Says how often.
    RateLimit(Box<RateLimit>),
    /// Says how many at once.
    Concurrency(Concurrency),
    /// What a request must be like.
    Allow(Box<Expression>),
}

impl Rule {
    /// What kind it is, as it is configured.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Cors(_) => "cors",
            Self::Ip(_) => "ip",
            Self::ClientCert(_) => "client_cert",
            Self::Key(_) => "key",
            Self::Basic(_) => "basic",
            Self::Jwt(_) => "jwt",
            Self::Introspect(_) => "introspect",
            Self::Authorize(_) => "authorize",
            Self::RateLimit(_) => "rate_limit",
            Self::Concurrency(_) => "concurrency",
            Self::Allow(_) => "allow",
        }
    }
}

/// The chain without a policy: the first of every table.
pub const NO_POLICIES: u32 = 0;

/// The policies of a route on a listener, each an index of the table's policies. The order of the fields is the order in which
/// they are asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chain {
    /// Who may read across origins.
    pub cors: Option<usize>,
    /// From which addresses: every one of them, as they are attached.
    pub ip: Box<[usize]>,
    /// With which certificate.
    pub client_cert: Option<usize>,
    /// With which key.
    pub key: Option<usize>,
    /// With whose password.
    pub basic: Option<usize>,
    /// With which token.
    pub jwt: Option<usize>,
    /// With which token, of which its issuer is asked.
    pub introspect: Option<usize>,
    /// Who is asked about them.
    pub authorize: Option<usize>,
    /// What they must be like: every one of them, as they are attached.
    pub allow: Box<[usize]>,
    /// How often: every one of them, as they are attached.
    pub rate_limits: Box<[usize]>,
    /// How many at once: every one of them, as they are attached.
    pub concurrency: Box<[usize]>,
}

impl Chain {
    /// Those that are asked who may pass, in order.
    #[inline]
    pub fn asked(&self) -> impl Iterator<Item = usize> {
        self.ip
            .iter()
            .copied()
            .chain(self.client_cert)
            .chain(self.key)
            .chain(self.basic)
            .chain(self.jwt)
            .chain(self.introspect)
            .chain(self.authorize)
            .chain(self.allow.iter().copied())
    }

    /// Whether one of them may have to wait for its answer.
    #[inline]
    pub fn waits(&self) -> bool {
        self.basic.is_some() || self.introspect.is_some() || self.authorize.is_some()
    }

    /// Its policies in the order in which they are asked, for people: `browsers (cors)`.
    pub fn names(&self, policies: &[Policy]) -> Vec<String> {
        let of = |at: usize| format!("{} ({})", policies[at].name, policies[at].rule.kind());
        let counted = self.rate_limits.iter().chain(&self.concurrency).copied();
        self.cors.into_iter().chain(self.asked()).chain(counted).map(of).collect()
    }
}

/// HTTP/2 on a listener.
#[derive(Debug, Clone, Copy)]
pub struct Http2 {
    /// Whether it is spoken without TLS.
    pub is_h2c: bool,
    /// Streams at once on one connection.
    pub streams: u32,
    /// Bytes of one request's body that may come before more of it is wanted.
    pub stream_window: u32,
    /// The same for all of a connection.
    pub connection_window: u32,
}

/// How long a client may take, in ms; 0: no limit.
#[derive(Debug, Clone)]
pub struct Timeouts {
    /// A TLS handshake.
    pub handshake_ms: u64,
    /// A request's head, from its first byte.
    pub head_ms: u64,
    /// Between two reads of a request body.
    pub body_idle_ms: u64,
    /// Between two requests.
    pub keep_alive_ms: u64,
    /// A connection's age at which it is no longer kept alive.
    pub connection_age_ms: u64,
    /// While a client takes nothing of what is sent.
    pub write_stall_ms: u64,
    /// An upgraded connection without a byte in either direction.
    pub tunnel_idle_ms: u64,
    /// An upgraded connection as a whole.
    pub tunnel_age_ms: u64,
}

/// Fields that tell the upstream who asked.
#[derive(Debug, Clone)]
pub struct Forwarding {
    /// `X-Forwarded-*`.
    pub x_forwarded: bool,
    /// `Forwarded`.
    pub forwarded: bool,
    /// `X-Request-Id`.
    pub request_id: bool,
    /// The pseudonym in `Via`; empty: none.
    pub via: Box<[u8]>,
}

/// One route.
#[derive(Debug, Clone)]
pub struct Route {
    /// Its name.
    pub name: Box<str>,
    /// What it does.
    pub action: Action,
    /// The whole exchange, in ms; 0: no limit.
    pub timeout_ms: u64,
    /// The upstream's path, if it is not the client's.
    pub rewrite: Option<Template>,
    /// Bytes of a request body, if not the listener's.
    pub body_bytes: Option<u64>,
    /// Edits of the request's fields.
    pub request_headers: HeaderEdits,
    /// Edits of the response's fields.
    pub response_headers: HeaderEdits,
}

/// What a route does.
#[derive(Debug, Clone)]
pub enum Action {
    /// Relays to this cluster.
    Cluster(usize),
    /// Relays to one of a split's clusters.
    Split(usize),
    /// Answers with what others' answers make.
    Aggregate(Box<Aggregate>),
    /// Answers with a redirect.
    Redirect {
        /// 3xx.
        status: u16,
        /// `Location`.
        to: Template,
    },
    /// Answers itself.
    Respond {
        /// 200 to 599.
        status: u16,
        /// The body.
        body: Template,
        /// `Content-Type`.
        content_type: Box<str>,
    },
}

/// A weighted split over clusters.
#[derive(Debug, Clone)]
pub struct Split {
    /// The clusters.
    pub clusters: Vec<usize>,
    /// Their shares.
    pub weights: Vec<u32>,
}

/// A group of equivalent endpoints.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// Its name.
    pub name: Box<str>,
    /// Who serves it.
    pub endpoints: Vec<Endpoint>,
    /// The number of its first endpoint among all of the table.
    pub first_endpoint: usize,
    /// How one is picked: what each core's own balancer is made from.
    pub balancer: Arc<Balancer>,
    /// What is hashed.
    pub hash_on: HashOn,
    /// The cookie that keeps a client at its endpoint.
    pub sticky: Option<StickyCookie>,
    /// The upstream's `Host`.
    pub host: HostRule,
    /// What TLS to its endpoints is made with, if it is. Each core makes its own configuration from it.
    pub tls: Option<Arc<ClientTls>>,
    /// The version of HTTP that is spoken.
    pub protocol: UpstreamProtocol,
    /// Whether gRPC-Web is made into gRPC.
    pub grpc_web: bool,
    /// The PROXY header that connections to endpoints begin with.
    pub proxy_protocol: Option<ProxyVersion>,
    /// Until an endpoint accepts, in ms.
    pub connect_ms: u64,
    /// Until a response begins, in ms.
    pub first_byte_ms: u64,
    /// Between two reads of a response, in ms.
    pub idle_ms: u64,
    /// Between two PINGs over HTTP/2, in ms; 0: none.
    pub ping_ms: u64,
    /// Connections per endpoint; `max_connections` is still the whole host's.
    pub pool: PoolPolicy,
    /// When a failing endpoint is left alone.
    pub eject: EjectPolicy,
}

/// One endpoint.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Where it is.
    pub address: SocketAddr,
    /// The same as text.
    pub text: Box<str>,
    /// Its share.
    pub weight: u32,
    /// Who it is, whatever its place in the list.
    pub id: u64,
}

/// What is hashed to pick an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashOn {
    /// Nothing: the balance needs no hash.
    Nothing,
    /// The client's address.
    ClientIp,
    /// The canonical path.
    Path,
    /// A field, by its name.
    Header(Box<str>),
    /// A cookie, by its name.
    Cookie(Box<str>),
    /// A query parameter, by its name.
    Query(Box<str>),
}

/// The `Host` sent upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostRule {
    /// The client's.
    Preserve,
    /// The endpoint's address.
    Endpoint,
    /// This.
    Literal(Box<str>),
}
