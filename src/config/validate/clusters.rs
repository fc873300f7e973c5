//! What is wrong with `[[cluster]]`.

use std::collections::HashMap;

use super::{address, fields, not_zero, tls};
use crate::config::{
    diagnostic::Diagnostic,
    report::Report,
    source::key_path,
    types::{Balance, Cluster, Config, HashOn, UpstreamProtocol},
};

pub(super) fn validate(config: &Config, report: &mut Report) {
    for (index, cluster) in config.cluster.iter().enumerate() {
        endpoints(index, cluster, report);
        balance(index, cluster, report);
        host(index, cluster, report);
        tls::cluster(index, cluster, report);
        waits(index, cluster, report);
        if cluster.grpc_web && cluster.protocol == UpstreamProtocol::Http1 {
            let error = Diagnostic::error("gRPC is spoken by HTTP/2 only");
            let path = key_path!["cluster", index, "grpc_web"];
            report.push_at(&path, error.hint("set `protocol = \"h2\"`"));
        }
        if cluster.proxy_protocol.is_some() && cluster.protocol != UpstreamProtocol::Http1 {
            let error = Diagnostic::error(
                "a connection of HTTP/2 carries requests of many clients, and a PROXY header names one",
            );
            let path = key_path!["cluster", index, "proxy_protocol"];
            report.push_at(&path, error.hint("leave it out, or set `protocol = \"h1\"`"));
        }
    }
}

fn endpoints(index: usize, cluster: &Cluster, report: &mut Report) {
    let list = key_path!["cluster", index, "endpoints"];
    if cluster.endpoints.is_empty() {
        let error = Diagnostic::error("a cluster needs at least one endpoint");
        report.push_at(&list, error.hint("endpoints = [{ address = \"10.0.0.1:9000\" }]"));
        return;
    }
    let mut is_partial = false;
    let mut seen = HashMap::with_capacity(cluster.endpoints.len());
    for (place, endpoint) in cluster.endpoints.iter().enumerate() {
        is_partial |= report.is_replaced(&key_path!["cluster", index, "endpoints", place, "weight"]);
        let path = key_path!["cluster", index, "endpoints", place, "address"];
        if report.is_replaced(&path) {
            continue;
        }
        let Some(address) = address::parse(&path, &endpoint.address, report) else { continue };
        if address.port() == 0 {
            let error = Diagnostic::error("an endpoint needs a port that is not 0");
            report.push_at(&path, error.label("port 0 cannot be connected to"));
        }
        let earlier = *seen.entry(address).or_insert(place);
        if earlier != place {
            let first = key_path!["cluster", index, "endpoints", earlier, "address"];
            let first = report.diagnostics.source().locate(&first);
            let warning =
                Diagnostic::warning("this endpoint is in the cluster twice").also(first, "first here");
            report.push_at(&path, warning.hint("give it a greater `weight` instead"));
        }
    }
    if !is_partial && cluster.endpoints.iter().all(|endpoint| endpoint.weight == 0) {
        let error = Diagnostic::error("every endpoint of this cluster has a weight of 0");
        report.push_at(
            &list,
            error.hint("give at least one a weight above 0, else nothing can be sent anywhere"),
        );
    }
}

fn balance(index: usize, cluster: &Cluster, report: &mut Report) {
    if let Some(on) = &cluster.hash_on {
        let is_known = !report.is_replaced(&key_path!["cluster", index, "balance"]);
        if cluster.balance != Balance::Hash && is_known {
            let error = Diagnostic::error("`hash_on` has no effect without `balance = \"hash\"`");
            report.push_at(
                &key_path!["cluster", index, "hash_on"],
                error.hint("add `balance = \"hash\"`, or leave `hash_on` out"),
            );
        }
        let at = |key| key_path!["cluster", index, "hash_on", key];
        match on {
            HashOn::ClientIp | HashOn::Path => {}
            HashOn::Header(name) => fields::token(&at("header"), name, "a field name", report),
            HashOn::Cookie(name) => fields::token(&at("cookie"), name, "a cookie's name", report),
            HashOn::Query(name) if name.is_empty() => {
                report.push_at(&at("query"), Diagnostic::error("the query parameter needs a name"));
            }
            HashOn::Query(_) => {}
        }
    }
    if let Some(sticky) = &cluster.sticky {
        fields::token(
            &key_path!["cluster", index, "sticky", "cookie"],
            &sticky.cookie,
            "a cookie's name",
            report,
        );
    }
}

fn host(index: usize, cluster: &Cluster, report: &mut Report) {
    const WORDS: [&str; 2] = ["preserve", "endpoint"];
    let path = key_path!["cluster", index, "host"];
    let host = cluster.host.as_str();
    if WORDS.contains(&host) {
        return;
    }
    if !fields::is_host(host) {
        let error = Diagnostic::error(format!("{} is not a host", report.shown(&path, host)));
        report
            .push_at(&path, error.hint("\"preserve\", \"endpoint\", or a literal such as \"api.internal\""));
    } else if let Some(word) = report.similar(host, WORDS)
        && !report.diagnostics.source().is_interpolated(&path)
    {
        let warning = Diagnostic::warning(format!("`{host}` is sent as it stands, did you mean `{word}`?"));
        report.push_at(&path, warning);
    }
}

/// Durations that must not be zero, and those that must go together.
fn waits(index: usize, cluster: &Cluster, report: &mut Report) {
    let timeouts = &cluster.timeouts;
    for (key, span) in
        [("connect", timeouts.connect), ("first_byte", timeouts.first_byte), ("idle", timeouts.idle)]
    {
        not_zero(&key_path!["cluster", index, "timeouts", key], span, report);
    }
    let pool = &cluster.pool;
    if pool.max_idle > 0 {
        not_zero(&key_path!["cluster", index, "pool", "idle_timeout"], pool.idle_timeout, report);
    }
    if pool.queue > 0 {
        not_zero(&key_path!["cluster", index, "pool", "queue_timeout"], pool.queue_timeout, report);
    }
    let eject = &cluster.eject;
    if eject.failures > 0 {
        not_zero(&key_path!["cluster", index, "eject", "backoff"], eject.backoff, report);
        if eject.max_backoff < eject.backoff {
            let (max, first) = (eject.max_backoff, eject.backoff);
            let error = Diagnostic::error(format!("`max_backoff` ({max}) is less than `backoff` ({first})"));
            report.push_at(&key_path!["cluster", index, "eject", "max_backoff"], error);
        }
    }
}
