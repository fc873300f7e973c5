//! From the configuration's words to the table's indices. Collects every fault with the key it is about.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    path::Path,
    sync::Arc,
};

use ipnet::IpNet;
use rustls_pki_types::UnixTime;

use super::{
    Action, Attached, Cluster, Endpoint, Forwarding, HashOn, HostRule, Http2, Listener, Policy, Route, Rule,
    Split, Table, Timeouts, policies::Chains, tokens,
};
use crate::{
    config::{
        Diagnostic, Key, Severity,
        types::{self, Balance, Config, RiskyMethod},
        values::ByteSize,
    },
    expression::{Expression, Kind, Scope},
    http::request::HeadLimits,
    policy::{
        client_cert::CertAccess,
        concurrency::Concurrency,
        cookie::StickyCookie,
        cors::Cors,
        headers::{EditErrorCause, HeaderEdits, List},
        ip::IpAccess,
        key::{KeyAccess, KeyHash, Keys},
        rate_limit::{LimitFault, LimitPart, RateLimit},
        template::{Place, Template},
    },
    route::{RouteError, RouteField, RouteSpec, Router},
    tls::{Authorities, ClientTls, Loader, ServerTls},
    upstream::{
        balance::{Balancer, stable_hash},
        health::EjectPolicy,
        pool::PoolPolicy,
    },
};

/// Where faults go: each with the keys it is about.
pub type Report<'r> = dyn FnMut(&[Key<'_>], Diagnostic) + 'r;

/// Compiles a validated configuration. Every fault is reported; with an error among them there is no table.
pub fn compile(config: &Config, report: &mut Report<'_>) -> Option<Table> {
    let mut compiler = Compiler {
        config,
        report,
        failed: false,
        clusters: HashMap::new(),
        splits: Vec::new(),
        inner: Vec::new(),
        tls: Loader::new(UnixTime::now()),
    };
    let clusters = compiler.clusters();
    let mut specs: Vec<RouteSpec> =
        config.route.iter().map(|route| RouteSpec::from(&route.matches)).collect();
    // Routes whose `match` is wrong. What their texts may name is not known, nor what they take from others.
    let mut faulty = HashSet::new();
    let router = match Router::compile(&specs) {
        Ok(router) => router,
        Err(errors) => {
            for error in errors {
                faulty.insert(error.route);
                // It takes no request that anyone sends, so that the sound routes can be checked beside it.
                specs[error.route] = RouteSpec { methods: vec!["-".into()], ..RouteSpec::default() };
                compiler.route_error(error);
            }
            Router::compile(&specs).ok()?
        }
    };
    let router = Arc::new(router);
    let mut routes = compiler.routes(&router, &faulty);
    compiler.shadowed(&router, &faulty);
    let (policies, mut chains) = compiler.policies();
    let listeners = compiler.listeners(&specs, &router, &mut chains);
    let log_when = config.access_log.when.as_ref().and_then(|source| {
        compiler.expression(&["access_log".into(), "when".into()], source, Kind::Bool, Scope::Exchange)
    });
    let Compiler { failed, splits, inner, .. } = compiler;
    routes.extend(inner);
    let announces = clusters.iter().any(|cluster| cluster.proxy_protocol.is_some());
    let endpoints = clusters.iter().map(|cluster| cluster.endpoints.len()).sum();
    let forwarding = forwarding(&config.forwarding);
    let chains = chains.into_list();
    (!failed).then_some(Table {
        log_when,
        listeners,
        routes,
        clusters,
        splits,
        policies,
        chains,
        forwarding,
        announces,
        endpoints,
        keys: keys(&config.consumer),
        consumers: config.consumer.iter().map(|consumer| consumer.name.as_str().into()).collect(),
    })
}

pub(super) struct Compiler<'c, 'r> {
    pub(super) config: &'c Config,
    report: &'r mut Report<'r>,
    failed: bool,
    clusters: HashMap<&'c str, usize>,
    splits: Vec<Split>,
    /// Routes of the gateway's own requests.
    pub(super) inner: Vec<Route>,
    /// Reads certificates.
    tls: Loader,
}

impl Compiler<'_, '_> {
    pub(super) fn error(&mut self, path: &[Key<'_>], message: impl Into<String>, hint: Option<String>) {
        let diagnostic = Diagnostic::error(message);
        let diagnostic = match hint {
            Some(hint) => diagnostic.hint(hint),
            None => diagnostic,
        };
        self.failed = true;
        (self.report)(path, diagnostic);
    }

    fn route_error(&mut self, error: RouteError) {
        let route = ["route".into(), error.route.into(), "match".into()];
        let mut path: Vec<Key<'_>> = route.to_vec();
        match &error.field {
            RouteField::Host => path.push("host".into()),
            RouteField::Path => path.push("path".into()),
            RouteField::PathRegex => path.push("path_regex".into()),
            RouteField::Method => path.push("method".into()),
            RouteField::Header(name) => path.extend([Key::from("header"), name.into()]),
            RouteField::Query(name) => path.extend([Key::from("query"), name.into()]),
            RouteField::When => path.push("when".into()),
        }
        self.error(&path, error.message, error.hint);
    }

    fn clusters(&mut self) -> Vec<Cluster> {
        let config = self.config;
        let mut first_endpoint = 0;
        let mut clusters = Vec::with_capacity(config.cluster.len());
        for (at, cluster) in config.cluster.iter().enumerate() {
            self.clusters.insert(&cluster.name, at);
            let endpoints = self.endpoints(at, cluster);
            let weights: Vec<u32> = endpoints.iter().map(|endpoint| endpoint.weight).collect();
            let ids: Vec<u64> = endpoints.iter().map(|endpoint| endpoint.id).collect();
            let count = endpoints.len();
            let tls = self.client_tls(at, cluster, &endpoints);
            clusters.push(Cluster {
                name: cluster.name.as_str().into(),
                endpoints,
                first_endpoint,
                balancer: Arc::new(Balancer::new(cluster.balance, &weights, &ids, 0)),
                hash_on: hash_on(cluster),
                sticky: self.sticky(at, cluster),
                host: match cluster.host.as_str() {
                    "preserve" => HostRule::Preserve,
                    "endpoint" => HostRule::Endpoint,
                    literal => HostRule::Literal(literal.into()),
                },
                tls,
                protocol: cluster.protocol,
                grpc_web: cluster.grpc_web,
                proxy_protocol: cluster.proxy_protocol,
                connect_ms: cluster.timeouts.connect.as_millis(),
                first_byte_ms: cluster.timeouts.first_byte.as_millis(),
                idle_ms: cluster.timeouts.idle.as_millis(),
                ping_ms: cluster.timeouts.ping.as_millis(),
                pool: PoolPolicy {
                    max_idle: cluster.pool.max_idle,
                    idle_timeout_ms: cluster.pool.idle_timeout.as_millis(),
                    max_age_ms: cluster.pool.max_age.as_millis(),
                    max_connections: cluster.pool.max_connections,
                    queue: cluster.pool.queue,
                    queue_timeout_ms: cluster.pool.queue_timeout.as_millis(),
                },
                eject: EjectPolicy {
                    failures: cluster.eject.failures,
                    backoff_ms: cluster.eject.backoff.as_millis(),
                    max_backoff_ms: cluster.eject.max_backoff.as_millis(),
                },
            });
            first_endpoint += count;
        }
        clusters
    }

    fn endpoints(&mut self, at: usize, cluster: &types::Cluster) -> Vec<Endpoint> {
        let mut endpoints = Vec::with_capacity(cluster.endpoints.len());
        for (place, endpoint) in cluster.endpoints.iter().enumerate() {
            match endpoint.address.parse::<SocketAddr>() {
                Ok(address) => {
                    let text = address.to_string();
                    let id = stable_hash(text.as_bytes());
                    endpoints.push(Endpoint { address, text: text.into(), weight: endpoint.weight, id });
                }
                Err(_) => self.error(
                    &["cluster".into(), at.into(), "endpoints".into(), place.into(), "address".into()],
                    format!("`{}` is not an address", endpoint.address),
                    Some("write `ip:port` or `[ipv6]:port`".into()),
                ),
            }
        }
        endpoints
    }

    fn client_tls(
        &mut self,
        at: usize,
        cluster: &types::Cluster,
        endpoints: &[Endpoint],
    ) -> Option<Arc<ClientTls>> {
        let tls = cluster.tls.as_ref()?;
        let addresses: Vec<SocketAddr> = endpoints.iter().map(|endpoint| endpoint.address).collect();
        let Self { report, failed, tls: loader, .. } = self;
        let mut below = below(["cluster".into(), at.into(), "tls".into()], report, failed);
        loader.client(tls, &addresses, &mut below).map(|tls| Arc::new(tls.offering(cluster.protocol)))
    }

    fn server_tls(&mut self, at: usize, listener: &types::Listener) -> Option<Arc<ServerTls>> {
        let tls = listener.tls.as_ref()?;
        let Self { report, failed, tls: loader, .. } = self;
        let mut below = below(["listener".into(), at.into(), "tls".into()], report, failed);
        loader.server(tls, &mut below).map(Arc::new)
    }

    fn sticky(&mut self, at: usize, cluster: &types::Cluster) -> Option<StickyCookie> {
        let sticky = cluster.sticky.as_ref()?;
        match StickyCookie::new(&sticky.cookie, sticky.ttl.0.as_secs()) {
            Ok(cookie) => Some(cookie),
            Err(error) => {
                let path = ["cluster".into(), at.into(), "sticky".into(), "cookie".into()];
                self.error(&path, error.to_string(), None);
                None
            }
        }
    }

    fn routes(&mut self, router: &Router, faulty: &HashSet<usize>) -> Vec<Route> {
        let config = self.config;
        let mut routes = Vec::with_capacity(config.route.len());
        for (at, route) in config.route.iter().enumerate().filter(|(at, _)| !faulty.contains(at)) {
            let captures = router.capture_names(at as u32);
            let action = self.action(at, route, captures);
            let rewrite = route
                .rewrite
                .as_ref()
                .and_then(|text| self.template(at, &["rewrite".into()], text, captures, Place::Target));
            let request_headers = self.edits(at, "request_headers", &route.request_headers, captures);
            let response_headers = self.edits(at, "response_headers", &route.response_headers, captures);
            routes.extend(action.map(|action| Route {
                name: route.name.as_str().into(),
                action,
                timeout_ms: route.timeout.as_millis(),
                rewrite,
                body_bytes: route.body_bytes.map(|size| size.0),
                request_headers,
                response_headers,
            }));
        }
        routes
    }

    fn action(&mut self, at: usize, route: &types::Route, captures: &[String]) -> Option<Action> {
        if let Some(name) = &route.cluster {
            return self.cluster(name, &["route".into(), at.into(), "cluster".into()]).map(Action::Cluster);
        }
        if let Some(shares) = &route.clusters {
            let mut split = Split { clusters: Vec::new(), weights: Vec::new() };
            for (place, share) in shares.iter().enumerate() {
                let path = ["route".into(), at.into(), "clusters".into(), place.into(), "name".into()];
                split.clusters.push(self.cluster(&share.name, &path)?);
                split.weights.push(share.weight);
            }
            self.splits.push(split);
            return Some(Action::Split(self.splits.len() - 1));
        }
        if let Some(redirect) = &route.redirect {
            let keys = ["redirect".into(), "to".into()];
            let to = self.template(at, &keys, &redirect.to, captures, Place::Location)?;
            return Some(Action::Redirect { status: redirect.status, to });
        }
        if let Some(respond) = &route.respond {
            let keys = ["respond".into(), "body".into()];
            let body = self.template(at, &keys, &respond.body, captures, Place::Body)?;
            let content_type = respond.content_type.as_str().into();
            return Some(Action::Respond { status: respond.status, body, content_type });
        }
        let message = "a route needs `cluster`, `clusters`, `redirect` or `respond`";
        self.error(&["route".into(), at.into()], message, None);
        None
    }

    pub(super) fn cluster(&mut self, name: &str, path: &[Key<'_>]) -> Option<usize> {
        let found = self.clusters.get(name).copied();
        if found.is_none() {
            self.error(path, format!("there is no cluster `{name}`"), None);
        }
        found
    }

    fn template(
        &mut self,
        at: usize,
        keys: &[Key<'_>],
        text: &str,
        captures: &[String],
        place: Place,
    ) -> Option<Template> {
        match Template::compile(text, captures, place) {
            Ok(template) => Some(template),
            Err(error) => {
                let route = ["route".into(), at.into()];
                self.error(&[&route, keys].concat(), error.message, error.hint);
                None
            }
        }
    }

    fn edits(
        &mut self,
        at: usize,
        key: &'static str,
        edits: &types::HeaderEdits,
        captures: &[String],
    ) -> HeaderEdits {
        HeaderEdits::compile(edits, captures).unwrap_or_else(|errors| {
            for error in errors {
                let path =
                    ["route".into(), at.into(), key.into(), error.list.key().into(), (&error.name).into()];
                // `remove` is a list of names; the others are tables.
                let path = if error.list == List::Remove { &path[..4] } else { &path[..] };
                let hint = match &error.cause {
                    EditErrorCause::Expression(fault) => fault.hint.clone(),
                    _ => None,
                };
                self.error(path, format!("`{}`: {error}", error.name), hint);
            }
            HeaderEdits::default()
        })
    }

    fn policies(&mut self) -> (Vec<Policy>, Chains) {
        let config = self.config;
        let mut policies = Vec::with_capacity(config.policy.len());
        for (at, policy) in config.policy.iter().enumerate() {
            let rule = if let Some(cors) = &policy.cors {
                self.cors(at, cors)
            } else if let Some(ip) = &policy.ip {
                let of = |texts: &Option<Vec<String>>| networks(texts.as_deref().unwrap_or_default());
                Some(Rule::Ip(IpAccess::new(&of(&ip.allow), &of(&ip.deny))))
            } else if let Some(access) = &policy.client_cert {
                Some(Rule::ClientCert(CertAccess::new(&access.names, &access.fingerprints)))
            } else if let Some(jwt) = &policy.jwt {
                self.jwt(at, jwt)
            } else if let Some(introspect) = &policy.introspect {
                self.introspect(at, introspect)
            } else if let Some(authorize) = &policy.authorize {
                self.authorize(at, authorize)
            } else if let Some(limit) = &policy.rate_limit {
                self.rate_limit(at, limit)
            } else if let Some(concurrency) = &policy.concurrency {
                Some(Rule::Concurrency(Concurrency::new(concurrency.limit)))
            } else if let Some(source) = &policy.allow {
                let path = ["policy".into(), at.into(), "allow".into()];
                let expression = self.expression(&path, source, Kind::Bool, Scope::Identity);
                expression.map(|expression| Rule::Allow(Box::new(expression)))
            } else {
                policy.key.as_ref().map(|key| {
                    let allowed = allowed(key, &config.consumer);
                    let place = tokens::place((&key.header, types::KEY_HEADER), &key.query, &key.cookie);
                    Rule::Key(KeyAccess::new(place, key.forward, allowed))
                })
            };
            policies.extend(rule.map(|rule| Policy { name: policy.name.as_str().into(), rule }));
        }
        let chains = Chains::new(config);
        (policies, chains)
    }

    fn cors(&mut self, at: usize, cors: &types::Cors) -> Option<Rule> {
        match Cors::compile(cors) {
            Ok(cors) => Some(Rule::Cors(cors)),
            Err(errors) => {
                for error in errors {
                    let origins = ["cors".into(), "origins".into(), error.at.into()];
                    let path = [&["policy".into(), at.into()], &origins[..]].concat();
                    self.error(&path, error.message, error.hint);
                }
                None
            }
        }
    }

    /// What is wrong with a key is said of its number: the line where it stands may have a secret.
    fn jwt(&mut self, at: usize, jwt: &types::Jwt) -> Option<Rule> {
        if let Some(Err(error)) = jwt.jwks_ca.as_ref().map(|ca| Authorities::read(Path::new(ca))) {
            self.error(
                &["policy".into(), at.into(), "jwt".into(), "jwks_ca".into()],
                error.to_string(),
                None,
            );
        }
        match tokens::compile(jwt) {
            Ok(access) => Some(Rule::Jwt(Box::new(access))),
            Err(faults) => {
                for fault in faults {
                    self.error(&["policy".into(), at.into(), "name".into()], fault, None);
                }
                None
            }
        }
    }

    fn expression(&mut self, path: &[Key<'_>], source: &str, kind: Kind, scope: Scope) -> Option<Expression> {
        match Expression::compile(source, kind, scope) {
            Ok(expression) => Some(expression),
            Err(fault) => {
                self.error(path, fault.message, fault.hint);
                None
            }
        }
    }

    fn rate_limit(&mut self, at: usize, limit: &types::RateLimit) -> Option<Rule> {
        match RateLimit::compile(&self.config.policy[at].name, limit) {
            Ok(limit) => Some(Rule::RateLimit(Box::new(limit))),
            Err(LimitFault { part, fault }) => {
                let mut path = vec!["policy".into(), at.into(), "rate_limit".into()];
                match part {
                    LimitPart::Limit => path.push("limit".into()),
                    LimitPart::Cost => path.push("cost".into()),
                    LimitPart::By(place) => {
                        path.extend([Key::from("by"), place.into(), "expression".into()]);
                    }
                }
                self.error(&path, fault.message, fault.hint);
                None
            }
        }
    }

    /// One router for each distinct set of routes: where no route names its listeners, all share the one of all.
    fn listeners(&mut self, specs: &[RouteSpec], all: &Arc<Router>, chains: &mut Chains) -> Vec<Listener> {
        let everything: Vec<u32> = (0..specs.len() as u32).collect();
        let config = self.config;
        let is_restricted = config.route.iter().any(|route| route.listeners.is_some());
        let listeners = config.listener.iter().enumerate().map(|(at, listener)| {
            let tls = self.server_tls(at, listener);
            let (router, ids) = if is_restricted {
                self.router_of(&listener.name, specs, all)
            } else {
                (Arc::clone(all), everything.clone())
            };
            let routes = ids.into_iter().map(|route| {
                let chain = chains.of(config, listener, Some(&config.route[route as usize]));
                Attached { route, chain }
            });
            let routes: Arc<[Attached]> = routes.collect();
            let chain = chains.of(config, listener, None);
            let mut ids = routes.iter().map(|attached| attached.chain).chain([chain]);
            let shares = ids.any(|chain| chains.shares(chain));
            Listener { tls, routes, chain, shares, ..listener_rules(config, listener, router) }
        });
        listeners.collect()
    }

    fn router_of(
        &mut self,
        listener: &str,
        specs: &[RouteSpec],
        all: &Arc<Router>,
    ) -> (Arc<Router>, Vec<u32>) {
        let is_on = |route: &types::Route| {
            route.listeners.as_ref().is_none_or(|names| names.iter().any(|name| name == listener))
        };
        let ids: Vec<u32> =
            (0..specs.len() as u32).filter(|id| is_on(&self.config.route[*id as usize])).collect();
        let own: Vec<RouteSpec> = ids.iter().map(|id| specs[*id as usize].clone()).collect();
        match Router::compile(&own) {
            Ok(router) => (Arc::new(router), ids),
            Err(errors) => {
                // The same patterns compiled before: nothing comes here, and if it did it would not be lost.
                errors.into_iter().for_each(|error| self.route_error(error));
                (Arc::clone(all), ids)
            }
        }
    }

    fn shadowed(&mut self, router: &Router, faulty: &HashSet<usize>) {
        let config = self.config;
        let is_sound = |route: u32| !faulty.contains(&(route as usize));
        for shadow in
            router.shadowed().into_iter().filter(|shadow| is_sound(shadow.route) && is_sound(shadow.by))
        {
            let (route, by) = (&config.route[shadow.route as usize], &config.route[shadow.by as usize]);
            let is_wherever_it_is = match (&by.listeners, &route.listeners) {
                (None, _) => true,
                (Some(_), None) => false,
                (Some(by), Some(route)) => route.iter().all(|name| by.contains(name)),
            };
            if is_wherever_it_is {
                self.error(
                    &["route".into(), (shadow.route as usize).into(), "match".into()],
                    format!(
                        "route `{}` can never match: `{}` takes every request it could",
                        route.name, by.name
                    ),
                    Some("give it a narrower match, put it first, or remove it".into()),
                );
            }
        }
    }
}

/// Reports what is below the keys `at`, and notes whether it is an error.
fn below<'b>(
    at: [Key<'static>; 3],
    report: &'b mut Report<'_>,
    failed: &'b mut bool,
) -> impl FnMut(&[Key<'_>], Diagnostic) + 'b {
    move |path, diagnostic| {
        *failed |= diagnostic.severity == Severity::Error;
        let whole: Vec<Key<'_>> = at.iter().copied().chain(path.iter().copied()).collect();
        report(&whole, diagnostic);
    }
}

fn hash_on(cluster: &types::Cluster) -> HashOn {
    match &cluster.hash_on {
        _ if cluster.balance != Balance::Hash => HashOn::Nothing,
        None | Some(types::HashOn::ClientIp) => HashOn::ClientIp,
        Some(types::HashOn::Path) => HashOn::Path,
        Some(types::HashOn::Header(name)) => HashOn::Header(name.as_str().into()),
        Some(types::HashOn::Cookie(name)) => HashOn::Cookie(name.as_str().into()),
        Some(types::HashOn::Query(name)) => HashOn::Query(name.as_str().into()),
    }
}

fn forwarding(forwarding: &types::Forwarding) -> Forwarding {
    Forwarding {
        x_forwarded: forwarding.x_forwarded,
        forwarded: forwarding.forwarded,
        request_id: forwarding.request_id,
        via: forwarding.via.as_bytes().into(),
    }
}

/// RFC 6797 §6.1.
fn hsts(hsts: &types::Hsts) -> Box<[u8]> {
    let mut line = format!("Strict-Transport-Security: max-age={}", hsts.max_age.as_millis() / 1000);
    line.push_str(if hsts.include_subdomains { "; includeSubDomains" } else { "" });
    line.push_str(if hsts.preload { "; preload" } else { "" });
    line.push_str("\r\n");
    line.into_bytes().into()
}

/// A window of flow control: at least one frame's worth, at most what RFC 9113 §6.9.1 allows.
fn window(bytes: ByteSize) -> u32 {
    bytes.0.clamp(16 * 1024, (1 << 31) - 1) as u32
}

fn listener_rules(config: &Config, listener: &types::Listener, router: Arc<Router>) -> Listener {
    let (limits, own) = (&config.limits, &listener.limits);
    let (timeouts, ours) = (&config.timeouts, &listener.timeouts);
    Listener {
        name: listener.name.as_str().into(),
        tls: None,
        http2: Http2 {
            is_h2c: listener.h2c,
            streams: own.http2_streams.unwrap_or(limits.http2_streams),
            stream_window: window(own.http2_stream_window.unwrap_or(limits.http2_stream_window)),
            connection_window: window(own.http2_connection_window.unwrap_or(limits.http2_connection_window)),
        },
        https_redirect: listener.https_redirect,
        hsts: listener.tls.as_ref().and_then(|tls| tls.hsts.as_ref()).map_or_else(Box::default, hsts),
        router,
        routes: Arc::default(),
        chain: 0,
        shares: false,
        head: HeadLimits {
            head_bytes: own.head_bytes.unwrap_or(limits.head_bytes).0 as usize,
            headers: own.headers.unwrap_or(limits.headers),
            target_bytes: own.target_bytes.unwrap_or(limits.target_bytes).0 as usize,
        },
        body_bytes: own.body_bytes.unwrap_or(limits.body_bytes).0,
        requests_per_connection: own.requests_per_connection.unwrap_or(limits.requests_per_connection),
        timeouts: Timeouts {
            handshake_ms: ours.handshake.unwrap_or(timeouts.handshake).as_millis(),
            head_ms: ours.head.unwrap_or(timeouts.head).as_millis(),
            body_idle_ms: ours.body_idle.unwrap_or(timeouts.body_idle).as_millis(),
            keep_alive_ms: ours.keep_alive.unwrap_or(timeouts.keep_alive).as_millis(),
            connection_age_ms: ours.connection_age.unwrap_or(timeouts.connection_age).as_millis(),
            write_stall_ms: ours.write_stall.unwrap_or(timeouts.write_stall).as_millis(),
            tunnel_idle_ms: ours.tunnel_idle.unwrap_or(timeouts.tunnel_idle).as_millis(),
            tunnel_age_ms: ours.tunnel_age.unwrap_or(timeouts.tunnel_age).as_millis(),
        },
        announced: listener.proxy_protocol.as_ref().map_or_else(Vec::new, |proxy| networks(&proxy.from)),
        trusted: networks(&listener.trusted_proxies),
        path: listener.path,
        allow_trace: listener.allow_methods.contains(&RiskyMethod::Trace),
        allow_connect: listener.allow_methods.contains(&RiskyMethod::Connect),
        half_close: listener.half_close,
    }
}

/// Every key and whose it is. Validation has refused what is no hash.
fn keys(consumers: &[types::Consumer]) -> Keys {
    let of = |(number, consumer): (usize, &'_ types::Consumer)| {
        let hashes: Vec<_> = consumer.keys.iter().filter_map(|text| KeyHash::parse(text)).collect();
        hashes.into_iter().map(move |hash| (hash, number as u32))
    };
    consumers.iter().enumerate().flat_map(of).collect()
}

/// Whether each consumer may ask; `None`: all may.
fn allowed(key: &types::Key, consumers: &[types::Consumer]) -> Option<Box<[bool]>> {
    let has =
        |list: &Option<Vec<String>>, word: &String| list.as_ref().is_some_and(|list| list.contains(word));
    let may = |consumer: &types::Consumer| {
        has(&key.consumers, &consumer.name) || consumer.tags.iter().any(|tag| has(&key.tags, tag))
    };
    (key.consumers.is_some() || key.tags.is_some()).then(|| consumers.iter().map(may).collect())
}

/// Validation has refused what is none.
fn networks(texts: &[String]) -> Vec<IpNet> {
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> Table {
        let config = toml::from_str(text).unwrap();
        compile(&config, &mut |path, fault| panic!("{path:?}: {fault:?}")).unwrap()
    }

    #[test]
    fn handshakes_have_their_time_on_each_listener() {
        let table = table(
            "timeouts.handshake = '3s'\n[[listener]]\nname = 'a'\naddress = '127.0.0.1:0'\n\
             [[listener]]\nname = 'b'\naddress = '127.0.0.1:0'\ntimeouts.handshake = '7s'\n",
        );
        let times: Vec<u64> = table.listeners.iter().map(|one| one.timeouts.handshake_ms).collect();
        assert_eq!(times, [3000, 7000]);
        assert!(table.listeners.iter().all(|one| one.tls.is_none()));
    }

    #[test]
    fn endpoints_are_spoken_to_with_tls_where_that_is_said() {
        let table = table(
            "[[cluster]]\nname = 'plain'\nendpoints = [{ address = '10.0.0.1:80' }]\n\
             [[cluster]]\nname = 'tls'\nendpoints = [{ address = '10.0.0.1:443' }, { address = '[::1]:443' }]\n\
             tls = { verify = false }\n",
        );
        let [plain, tls] = &table.for_core().clusters[..] else { panic!("two clusters") };
        assert!(plain.tls.is_none());
        let tls = tls.tls.as_ref().unwrap();
        assert_eq!(tls.server_name(0).unwrap().to_str(), "10.0.0.1");
        assert_eq!(tls.server_name(1).unwrap().to_str(), "::1");
    }
}
