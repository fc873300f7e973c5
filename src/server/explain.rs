//! What would become of a request, in words: every candidate route and why it lost, what was captured, where the winner
//! leads. It asks the same router, and renders the same texts, that serve requests.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use crate::{
    config::types::{ProxyVersion, UpstreamProtocol},
    http::{
        head::Parsed,
        request::{RequestError, RequestHead, parse_request},
    },
    proxy::{Preview, preview},
    route::{Captures, Outcome},
    table::{Action, Attached, Cluster, HostRule, Listener, Route, Table},
};

/// A request to explain.
#[derive(Debug, Clone)]
pub struct Question {
    /// The method.
    pub method: String,
    /// `http://host/path?query`, or `/path?query`.
    pub url: String,
    /// Field names and values.
    pub headers: Vec<(String, String)>,
    /// The listener it comes in on; the first one when there is none.
    pub listener: Option<String>,
}

/// Why there is nothing to explain.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// There is no such listener.
    #[error("there is no listener `{0}`")]
    NoListener(String),
    /// The URL, method or fields make no request.
    #[error("the gateway would refuse this request: {0}")]
    Refused(RequestError),
    /// The request's head is not complete, as a line break in one of its parts makes it.
    #[error("this is not one request")]
    NotOne,
    /// No route of this listener may have it.
    #[error("the gateway would refuse this request: {0}")]
    NotAdmitted(crate::proxy::Error),
    /// The path has no one meaning.
    #[error("the gateway would refuse this path: {0}")]
    Path(crate::http::path::PathError),
}

/// The whole explanation, for a terminal. `Ok(true)` when a route matches.
pub fn explain(table: &Table, question: &Question, out: &mut String) -> Result<bool, ExplainError> {
    let listener = match &question.listener {
        None => table.listeners.first().ok_or_else(|| ExplainError::NoListener(String::new()))?,
        Some(name) => table
            .listeners
            .iter()
            .find(|listener| *listener.name == **name)
            .ok_or_else(|| ExplainError::NoListener(name.clone()))?,
    };
    let wire = wire(question);
    let mut head = RequestHead::default();
    let parsed =
        parse_request(wire.as_bytes(), &mut 0, &listener.head, &mut head).map_err(ExplainError::Refused)?;
    let Parsed::Complete { head_len } = parsed else { return Err(ExplainError::NotOne) };
    if head_len != wire.len() {
        return Err(ExplainError::NotOne);
    }
    let peer = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
    let mut path = Vec::new();
    let seen = preview(&head, wire.as_bytes(), listener, peer, &mut path).map_err(ExplainError::Path)?;
    seen.admit(listener).map_err(ExplainError::NotAdmitted)?;
    Ok(tell(table, listener, &seen, out))
}

/// The request as it would come.
fn wire(question: &Question) -> String {
    let mut wire = format!("{} {} HTTP/1.1\r\n", question.method, question.url);
    let has_host = question.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host"));
    let authority =
        question.url.split_once("://").map(|(_, rest)| rest.split(['/', '?']).next().unwrap_or_default());
    if !has_host {
        let _ = write!(wire, "Host: {}\r\n", authority.unwrap_or("localhost"));
    }
    for (name, value) in &question.headers {
        let _ = write!(wire, "{name}: {value}\r\n");
    }
    wire.push_str("\r\n");
    wire
}

fn tell(table: &Table, listener: &Listener, seen: &Preview<'_>, out: &mut String) -> bool {
    let name = |id: u32| &*table.routes[listener.routes[id as usize].route as usize].name;
    let _ = writeln!(out, "listener   {}", listener.name);
    let _ = writeln!(out, "host       {}", text(seen.host()));
    let _ = writeln!(out, "path       {}", text(seen.path()));
    if let Some(port) = listener.https_redirect {
        let port = if port == 443 { String::new() } else { format!(":{port}") };
        let (host, path) = (text(seen.host()), text(seen.path()));
        let _ = writeln!(
            out,
            "answer     308, Location: https://{host}{port}{path} (https_redirect; routes are not asked)"
        );
        return true;
    }
    if let Some((route, policy, grants)) = seen.preflight(table, listener) {
        let of = route.map_or(String::new(), |route| format!(" of route {}", table.routes[route].name));
        let policy = &table.policies[policy].name;
        let _ = writeln!(out, "preflight  answered by policy {policy} (cors){of}");
        let status = if grants { "204" } else { "403 (cors-origin-refused)" };
        let _ = writeln!(out, "answer     {status}");
        return true;
    }
    let candidates = seen.explain(&listener.router);
    let _ = writeln!(out, "candidates {}", if candidates.is_empty() { "none" } else { "" });
    let mut winner = None;
    for candidate in &candidates {
        let route = name(candidate.route);
        let _ = match &candidate.outcome {
            Outcome::Won { .. } => {
                winner = Some(candidate.route);
                writeln!(out, "  + {route}: matches")
            }
            Outcome::Lost(why) => writeln!(out, "  - {route}: {why}"),
            Outcome::LostTo(other) => writeln!(out, "  - {route}: `{}` goes before it", name(*other)),
            Outcome::NearMiss(why) => writeln!(out, "  ~ {route}: {why}"),
        };
    }
    let Some(winner) = winner else {
        let _ = writeln!(out, "answer     404 (no-route)");
        return false;
    };
    let Attached { route, chain } = listener.routes[winner as usize];
    let route = &table.routes[route as usize];
    let _ = writeln!(out, "route      {}", route.name);
    let policies = table.chains[chain as usize].names(&table.policies);
    if !policies.is_empty() {
        let _ = writeln!(out, "policies   {}", policies.join(", "));
    }
    let mut captures = Captures::default();
    seen.find(&listener.router, &mut captures);
    for (index, capture) in listener.router.capture_names(winner).iter().enumerate() {
        let _ = writeln!(
            out,
            "  {{{capture}}} = {}",
            text(captures.value(index, seen.path()).unwrap_or_default())
        );
    }
    tell_action(table, listener, route, seen, &captures, out);
    true
}

fn tell_action(
    table: &Table,
    listener: &Listener,
    route: &Route,
    seen: &Preview<'_>,
    captures: &Captures,
    out: &mut String,
) {
    match &route.action {
        Action::Redirect { status, to } => {
            let to = seen.render(to, route, captures).map_or_else(|error| error.to_string(), |to| text(&to));
            let _ = writeln!(out, "answer     {status}, Location: {to}");
        }
        Action::Respond { status, body, content_type } => {
            let length = seen.render(body, route, captures).map_or(0, |body| body.len());
            let _ = writeln!(out, "answer     {status}, {content_type}, {length} bytes");
        }
        Action::Aggregate(all) => {
            for leg in &all.legs {
                let Action::Cluster(cluster) = &table.routes[leg.route as usize].action else { continue };
                let needs = if leg.is_required { "required" } else { "optional" };
                let mut after: Vec<&str> =
                    leg.values.iter().map(|value| &*all.legs[value.leg].name).collect();
                after.dedup();
                let after =
                    if after.is_empty() { String::new() } else { format!(", after {}", after.join(", ")) };
                let _ = writeln!(
                    out,
                    "leg        {}: {} ({needs}{after})",
                    leg.name, table.clusters[*cluster].name
                );
                let policies = table.chains[leg.chain as usize].names(&table.policies);
                if !policies.is_empty() {
                    let _ = writeln!(out, "  policies   {}", policies.join(", "));
                }
            }
        }
        Action::Cluster(cluster) => {
            tell_cluster(&table.clusters[*cluster], 100.0, route, listener, seen, captures, out)
        }
        Action::Split(split) => {
            let split = &table.splits[*split];
            let total: u32 = split.weights.iter().sum();
            for (cluster, weight) in split.clusters.iter().zip(&split.weights) {
                let share = f64::from(*weight) * 100.0 / f64::from(total.max(1));
                tell_cluster(&table.clusters[*cluster], share, route, listener, seen, captures, out);
            }
        }
    }
    let limit = route.body_bytes.unwrap_or(listener.body_bytes);
    let _ = writeln!(out, "body       at most {}", crate::config::values::ByteSize(limit));
}

fn tell_cluster(
    cluster: &Cluster,
    share: f64,
    route: &Route,
    listener: &Listener,
    seen: &Preview<'_>,
    captures: &Captures,
    out: &mut String,
) {
    let _ = writeln!(out, "cluster    {} ({share:.0} %)", cluster.name);
    let target = match seen.upstream_target(route, listener, captures) {
        Ok(target) => text(&target),
        Err(error) => format!("<refused with 400: {error}>"),
    };
    let scheme = if cluster.tls.is_some() { "https" } else { "http" };
    for endpoint in cluster.endpoints.iter().filter(|endpoint| endpoint.weight > 0) {
        let _ = writeln!(out, "  weight {:<5} {scheme}://{}{target}", endpoint.weight, endpoint.text);
    }
    let host = match &cluster.host {
        HostRule::Preserve => text(seen.authority()),
        HostRule::Endpoint => "the endpoint's address".into(),
        HostRule::Literal(host) => host.to_string(),
    };
    let _ = writeln!(out, "  host       {host}");
    tell_connections(cluster, out);
    let limit = |ms: u64| match ms {
        0 => "none".into(),
        ms => crate::config::values::Span(std::time::Duration::from_millis(ms)).to_string(),
    };
    let _ = writeln!(
        out,
        "  timeouts   connect {}, first byte {}, idle {}, whole exchange {}",
        limit(cluster.connect_ms),
        limit(cluster.first_byte_ms),
        limit(cluster.idle_ms),
        limit(route.timeout_ms)
    );
}

/// What is spoken with endpoints.
fn tell_connections(cluster: &Cluster, out: &mut String) {
    let spoken = match (cluster.protocol, &cluster.tls) {
        (UpstreamProtocol::Http1, _) => "HTTP/1.1",
        (UpstreamProtocol::Http2, Some(_)) => "HTTP/2",
        (UpstreamProtocol::Http2, None) => "HTTP/2 by prior knowledge",
        (UpstreamProtocol::Auto, _) => "HTTP/2 or HTTP/1.1 by ALPN",
    };
    let web = if cluster.grpc_web { ", gRPC-Web made into gRPC" } else { "" };
    let _ = writeln!(out, "  protocol   {spoken}{web}");
    if let Some(version) = cluster.proxy_protocol {
        let version = match version {
            ProxyVersion::V1 => 1,
            ProxyVersion::V2 => 2,
        };
        let _ = writeln!(out, "  PROXY      version {version}");
    }
    let Some(tls) = &cluster.tls else { return };
    let verified = if tls.verifies() { "verified" } else { "not verified" };
    let own = if tls.certificate().is_some() { ", with a client certificate" } else { "" };
    let mut names: Vec<_> = (0..cluster.endpoints.len())
        .filter_map(|endpoint| Some(tls.server_name(endpoint)?.to_str()))
        .collect();
    names.sort_unstable();
    names.dedup();
    let _ = writeln!(out, "  tls        {verified} as {}{own}", names.join(", "));
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
