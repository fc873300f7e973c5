//! What is wrong with `[[route]]`, and which clusters and listeners no route uses.

use std::collections::HashMap;

use super::{Names, fields, legs};
use crate::config::{
    diagnostic::Diagnostic,
    report::Report,
    source::{Key, key_path},
    types::{ClusterShare, Config, GrpcMatch, HeaderEdits, Match, Redirect, Respond, Route},
    values::{OneOrMany, Span},
};

/// The keys of which a route has exactly one.
const TARGETS: [&str; 5] = ["cluster", "clusters", "aggregate", "redirect", "respond"];

const ONE_TARGET: &str =
    "a route has exactly one of `cluster`, `clusters`, `aggregate`, `redirect` and `respond`";

pub(super) fn validate(config: &Config, listeners: &Names<'_>, clusters: &Names<'_>, report: &mut Report) {
    let mut used = Used {
        listeners: vec![false; config.listener.len()],
        clusters: vec![false; config.cluster.len()],
        is_partial: false,
    };
    for (index, route) in config.route.iter().enumerate() {
        target(index, route, clusters, &mut used, report);
        on_listeners(index, route, listeners, &mut used, report);
        matches(index, &route.matches, report);
        if let Some(redirect) = &route.redirect {
            self::redirect(index, redirect, report);
        }
        if let Some(respond) = &route.respond {
            self::respond(index, respond, report);
        }
        if let Some(rewrite) = &route.rewrite {
            self::rewrite(index, rewrite, report);
        }
        fields::edits(
            &key_path!["route", index, "request_headers"],
            &route.request_headers,
            fields::Of::Request,
            report,
        );
        fields::edits(
            &key_path!["route", index, "response_headers"],
            &route.response_headers,
            fields::Of::Response,
            report,
        );
    }
    for (index, policy) in config.policy.iter().enumerate() {
        let asked = [
            ("introspect", policy.introspect.as_ref().map(|introspect| &introspect.cluster)),
            ("authorize", policy.authorize.as_ref().map(|authorize| &authorize.cluster)),
        ];
        for (kind, name) in asked {
            if let Some(name) = name {
                used.cluster(clusters.find(&key_path!["policy", index, kind, "cluster"], name, report));
            }
        }
    }
    used.report(config, report);
}

/// What at least one route uses.
struct Used {
    listeners: Vec<bool>,
    clusters: Vec<bool>,
    /// Some name led nowhere, and may have meant any of them.
    is_partial: bool,
}

impl Used {
    fn cluster(&mut self, found: Option<usize>) {
        match found {
            Some(index) => self.clusters[index] = true,
            None => self.is_partial = true,
        }
    }

    fn listener(&mut self, found: Option<usize>) {
        match found {
            Some(index) => self.listeners[index] = true,
            None => self.is_partial = true,
        }
    }

    fn report(&self, config: &Config, report: &mut Report) {
        // A route that could not be read may use any of them as well.
        if self.is_partial || report.diagnostics.has_replaced() {
            return;
        }
        for (index, cluster) in config.cluster.iter().enumerate().filter(|(index, _)| !self.clusters[*index])
        {
            let path = key_path!["cluster", index, "name"];
            let warning =
                Diagnostic::warning(format!("nothing uses cluster {}", report.shown(&path, &cluster.name)));
            report.push_at(&path, warning);
        }
        for (index, listener) in
            config.listener.iter().enumerate().filter(|(index, _)| !self.listeners[*index])
        {
            if listener.https_redirect.is_some() {
                // It needs none: routes are not asked.
                continue;
            }
            let path = key_path!["listener", index, "name"];
            let name = report.shown(&path, &listener.name);
            let warning = Diagnostic::warning(format!("listener {name} has no route"));
            report.push_at(&path, warning.hint("every request to it is answered 404"));
        }
    }
}

fn target(index: usize, route: &Route, clusters: &Names<'_>, used: &mut Used, report: &mut Report) {
    let is_set = [
        route.cluster.is_some(),
        route.clusters.is_some(),
        route.aggregate.is_some(),
        route.redirect.is_some(),
        route.respond.is_some(),
    ];
    let mut set = TARGETS.iter().zip(is_set).filter_map(|(key, is_set)| is_set.then_some(*key));
    match (set.next(), set.next()) {
        (None, _) => {
            let is_refused = TARGETS.iter().any(|key| report.is_replaced(&key_path!["route", index, *key]));
            if !is_refused {
                let error = Diagnostic::error("this route does not say what to do with a request");
                report.push_at(&key_path!["route", index], error.hint(ONE_TARGET));
            }
        }
        (Some(first), Some(second)) => {
            let place = report.diagnostics.source().locate_key(&key_path!["route", index, first]);
            let error = Diagnostic::error(format!("a route cannot have both `{first}` and `{second}`"));
            let error = error.hint(ONE_TARGET).also(place, format!("`{first}` is set here"));
            report.push_at_key(&key_path!["route", index, second], error);
        }
        (Some("redirect" | "respond"), None) => idle_keys(index, route, report),
        (Some("aggregate"), None) if route.rewrite.is_some() => {
            let warning = Diagnostic::warning("`rewrite` has no effect here: each leg has its own path");
            report.push_at_key(&key_path!["route", index, "rewrite"], warning);
        }
        (Some(_), None) => {}
    }
    if let Some(name) = &route.cluster {
        used.cluster(clusters.find(&key_path!["route", index, "cluster"], name, report));
    }
    if let Some(shares) = &route.clusters {
        split(index, shares, clusters, used, report);
    }
    if let Some(aggregate) = &route.aggregate {
        for (place, leg) in aggregate.legs.iter().enumerate() {
            let path = key_path!["route", index, "aggregate", "legs", place, "cluster"];
            used.cluster(clusters.find(&path, &leg.cluster, report));
        }
        legs::validate(index, aggregate, report);
    }
}

/// Warns of keys that only concern an upstream.
fn idle_keys(index: usize, route: &Route, report: &mut Report) {
    let set = [
        ("timeout", route.timeout != Span::default()),
        ("rewrite", route.rewrite.is_some()),
        ("request_headers", has_edits(&route.request_headers)),
    ];
    for (key, _) in set.iter().filter(|(_, is_set)| *is_set) {
        let warning = Diagnostic::warning(format!("`{key}` has no effect here: this route has no upstream"));
        report.push_at_key(&key_path!["route", index, *key], warning);
    }
}

fn has_edits(edits: &HeaderEdits) -> bool {
    !(edits.remove.is_empty() && edits.set.is_empty() && edits.add.is_empty())
}

fn split(index: usize, shares: &[ClusterShare], clusters: &Names<'_>, used: &mut Used, report: &mut Report) {
    let list = key_path!["route", index, "clusters"];
    if shares.is_empty() {
        let error = Diagnostic::error("a split needs at least one cluster");
        report.push_at(
            &list,
            error.hint("clusters = [{ name = \"v1\", weight = 95 }, { name = \"v2\", weight = 5 }]"),
        );
        return;
    }
    let mut is_partial = false;
    let mut seen = HashMap::with_capacity(shares.len());
    for (place, share) in shares.iter().enumerate() {
        is_partial |= report.is_replaced(&key_path!["route", index, "clusters", place, "weight"]);
        let path = key_path!["route", index, "clusters", place, "name"];
        let found = clusters.find(&path, &share.name, report);
        used.cluster(found);
        let Some(cluster) = found else { continue };
        let earlier = *seen.entry(cluster).or_insert(place);
        if earlier != place {
            let first =
                report.diagnostics.source().locate(&key_path!["route", index, "clusters", earlier, "name"]);
            let shown = report.shown(&path, &share.name);
            let warning = Diagnostic::warning(format!("cluster {shown} is in this split twice"));
            report.push_at(&path, warning.also(first, "first here").hint("add their weights"));
        }
    }
    if !is_partial && shares.iter().all(|share| share.weight == 0) {
        let error = Diagnostic::error("every cluster of this split has a weight of 0");
        report.push_at(&list, error.hint("give at least one a weight above 0"));
    }
}

fn on_listeners(index: usize, route: &Route, listeners: &Names<'_>, used: &mut Used, report: &mut Report) {
    let Some(names) = &route.listeners else {
        used.listeners.fill(true);
        return;
    };
    if names.is_empty() {
        let error = Diagnostic::error("this route is on no listener");
        report.push_at(
            &key_path!["route", index, "listeners"],
            error.hint("leave `listeners` out for all of them"),
        );
    }
    for (place, name) in names.iter().enumerate() {
        used.listener(listeners.find(&key_path!["route", index, "listeners", place], name, report));
    }
}

fn matches(index: usize, matches: &Match, report: &mut Report) {
    let at = |key| key_path!["route", index, "match", key];
    if matches.path.is_some() && matches.path_regex.is_some() {
        let place = report.diagnostics.source().locate_key(&at("path"));
        let error = Diagnostic::error("a route cannot match both `path` and `path_regex`");
        report
            .push_at_key(&at("path_regex"), error.hint("keep one of them").also(place, "`path` is set here"));
    }
    if let Some(grpc) = &matches.grpc {
        self::grpc(index, matches, grpc, report);
    }
    for (key, list) in [("host", &matches.host), ("method", &matches.method)] {
        if list.as_ref().is_some_and(|list| list.as_slice().is_empty()) {
            let error = Diagnostic::error(format!("no request has a `{key}` out of an empty list"));
            report.push_at(&at(key), error.hint(format!("leave `{key}` out for all of them")));
        }
    }
    match &matches.method {
        Some(OneOrMany::One(method)) => self::method(&at("method"), method, report),
        Some(OneOrMany::Many(methods)) => {
            for (place, method) in methods.iter().enumerate() {
                self::method(&key_path!["route", index, "match", "method", place], method, report);
            }
        }
        None => {}
    }
    for name in matches.header.keys() {
        fields::field_name_key(&key_path!["route", index, "match", "header", name], name, report);
    }
}

fn grpc(index: usize, matches: &Match, grpc: &GrpcMatch, report: &mut Report) {
    let others = [
        ("path", matches.path.is_some()),
        ("path_regex", matches.path_regex.is_some()),
        ("method", matches.method.is_some()),
    ];
    for (key, _) in others.iter().filter(|(_, is_set)| *is_set) {
        let error = Diagnostic::error(format!(
            "`grpc` says what `{key}` would: calls are POSTs to `/service/method`"
        ));
        report
            .push_at_key(&key_path!["route", index, "match", *key], error.hint(format!("leave `{key}` out")));
    }
    let is_name = |name: &str| {
        name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    if let Some(service) = &grpc.service
        && !service.split('.').all(is_name)
    {
        let error = Diagnostic::error("this is not the name of a service");
        report.push_at(
            &key_path!["route", index, "match", "grpc", "service"],
            error.hint("with its package, as in the `.proto` file: \"shop.v1.Cart\""),
        );
    }
    if let Some(method) = &grpc.method
        && !is_name(method)
    {
        let error = Diagnostic::error("this is not the name of a method");
        report.push_at(
            &key_path!["route", index, "match", "grpc", "method"],
            error.hint("such as \"AddItem\""),
        );
    }
}

fn method(path: &[Key<'_>], method: &str, report: &mut Report) {
    fields::token(path, method, "a method", report);
    let is_shown = !report.diagnostics.source().is_interpolated(path);
    if fields::is_token(method) && is_shown && method.bytes().any(|byte| byte.is_ascii_lowercase()) {
        let upper = method.to_ascii_uppercase();
        let warning = Diagnostic::warning(format!("methods are case-sensitive, did you mean `{upper}`?"));
        report.push_at(path, warning);
    }
}

fn redirect(index: usize, redirect: &Redirect, report: &mut Report) {
    let at = |key| key_path!["route", index, "redirect", key];
    if ![301, 302, 303, 307, 308].contains(&redirect.status) {
        let error = Diagnostic::error(format!("{} is not the status of a redirect", redirect.status));
        report.push_at(&at("status"), error.hint("301, 302, 303, 307 or 308"));
    }
    let is_begun = ["/", "http://", "https://", "{"].iter().any(|start| redirect.to.starts_with(start));
    if !is_begun {
        let error = Diagnostic::error("a redirect needs a target that is a path or a URL");
        report.push_at(&at("to"), error.hint("it begins with `/`, `http://`, `https://` or a variable"));
    }
    fields::field_value(&at("to"), &redirect.to, report);
}

fn respond(index: usize, respond: &Respond, report: &mut Report) {
    let at = |key| key_path!["route", index, "respond", key];
    // RFC 9110 §15.3.5, §15.3.6, §15.4.5: these have no content.
    if [204, 205, 304].contains(&respond.status) && !respond.body.is_empty() {
        let error = Diagnostic::error(format!("a response with status {} has no body", respond.status));
        report.push_at(&at("body"), error.hint("leave `body` out, or set another `status`"));
    }
    fields::field_value(&at("content_type"), &respond.content_type, report);
}

fn rewrite(index: usize, rewrite: &str, report: &mut Report) {
    let path = key_path!["route", index, "rewrite"];
    if !rewrite.starts_with('/') && !rewrite.starts_with("{path}") {
        let error = Diagnostic::error("a rewritten path begins with `/`");
        report.push_at(&path, error.hint("or with the variable `{path}`"));
    }
    if let Some(bad) = rewrite.chars().find(|letter| !letter.is_ascii_graphic() || *letter == '#') {
        let error = Diagnostic::error("a request target has only printable ASCII characters, and no `#`");
        let shown = !report.diagnostics.source().is_interpolated(&path);
        let error = if shown { error.label(format!("{bad:?} is in it")) } else { error };
        report.push_at(&path, error.hint("write others percent-encoded: a space is `%20`"));
    }
}
