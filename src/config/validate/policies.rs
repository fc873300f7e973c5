//! What is wrong with `[[policy]]`, and with what attaches policies. Origins are judged where they are compiled.

use super::{Names, address, fields};
use crate::config::{
    diagnostic::Diagnostic,
    report::Report,
    source::{self, key_path},
    types::{
        Authorize, Basic, ClientCert, Config, Cors, Cost, CountedBy, HeaderEdits, Introspect, Ip, Jwt, Key,
        Listener, OriginMatch, Policy, RateLimit,
    },
    values::Span,
};

/// The kinds, of which a policy has exactly one.
const KINDS: [&str; 11] = [
    "cors",
    "ip",
    "client_cert",
    "key",
    "basic",
    "jwt",
    "introspect",
    "authorize",
    "allow",
    "rate_limit",
    "concurrency",
];

/// Bytes of a realm.
const REALM_BYTES_MAX: usize = 128;

/// Those that a request is asked for once.
const ASKED_ONCE: [&str; 7] = ["cors", "client_cert", "key", "basic", "jwt", "introspect", "authorize"];

pub(super) fn validate(config: &Config, policies: &Names<'_>, consumers: &Names<'_>, report: &mut Report) {
    for (index, policy) in config.policy.iter().enumerate() {
        let is_refused = KINDS.iter().any(|kind| report.is_replaced(&key_path!["policy", index, *kind]));
        if let Some(cors) = &policy.cors {
            self::cors(index, cors, report);
        }
        if let Some(ip) = &policy.ip {
            self::ip(index, ip, report);
        }
        if let Some(client_cert) = &policy.client_cert {
            self::client_cert(config, index, client_cert, report);
        }
        if let Some(key) = &policy.key {
            self::key(config, index, key, consumers, report);
        }
        if let Some(basic) = &policy.basic {
            self::basic(index, basic, report);
        }
        if let Some(jwt) = &policy.jwt {
            self::jwt(index, jwt, report);
        }
        if let Some(introspect) = &policy.introspect {
            self::introspect(index, introspect, report);
        }
        if let Some(authorize) = &policy.authorize {
            self::authorize(index, authorize, report);
        }
        if let Some(limit) = &policy.rate_limit {
            rate_limit(index, limit, &policy.name, report);
        }
        let kinds = kinds(policy);
        if kinds.len() != 1 && !(kinds.is_empty() && is_refused) {
            let error = Diagnostic::error(match &kinds[..] {
                [] => "this policy does not say what it does".into(),
                several => format!("this policy is {}", several.join(" and ")),
            });
            let hint =
                format!("a policy has exactly one of {}", KINDS.map(|kind| format!("`{kind}`")).join(", "));
            report.push_at(&key_path!["policy", index], error.hint(hint));
        }
    }
    attached(config, policies, report);
}

/// What a policy is.
fn kinds(policy: &Policy) -> Vec<&'static str> {
    let is = [
        policy.cors.is_some(),
        policy.ip.is_some(),
        policy.client_cert.is_some(),
        policy.key.is_some(),
        policy.basic.is_some(),
        policy.jwt.is_some(),
        policy.introspect.is_some(),
        policy.authorize.is_some(),
        policy.allow.is_some(),
        policy.rate_limit.is_some(),
        policy.concurrency.is_some(),
    ];
    KINDS.into_iter().zip(is).filter_map(|(kind, is)| is.then_some(kind)).collect()
}

/// Reports names that lead nowhere, and policies that nothing uses.
fn attached(config: &Config, policies: &Names<'_>, report: &mut Report) {
    let mut is_used: Vec<bool> = config.policy.iter().map(|policy| policy.default).collect();
    let mut is_partial = false;
    let mut attach = |found: Option<usize>| match found {
        Some(index) => is_used[index] = true,
        None => is_partial = true,
    };
    for (index, listener) in config.listener.iter().enumerate() {
        for (place, name) in listener.uses.iter().enumerate() {
            attach(policies.find(&key_path!["listener", index, "use", place], name, report));
        }
        one_of_a_kind(config, &key_path!["listener", index, "use"], &listener.uses, report);
    }
    for (index, route) in config.route.iter().enumerate() {
        for (place, name) in route.uses.iter().enumerate() {
            attach(policies.find(&key_path!["route", index, "use", place], name, report));
        }
        one_of_a_kind(config, &key_path!["route", index, "use"], &route.uses, report);
        for (place, name) in route.skip.iter().enumerate() {
            let path = key_path!["route", index, "skip", place];
            let Some(found) = policies.find(&path, name, report) else { continue };
            if route.uses.contains(name) {
                let error = Diagnostic::error(format!(
                    "this route both uses and skips {}",
                    report.shown(&path, name)
                ));
                report.push_at(&path, error.hint("leave one of them out"));
            } else if !config.policy[found].default
                && !config.listener.iter().any(|listener| listener.uses.contains(name))
            {
                let warning = Diagnostic::warning(format!(
                    "{} is on no listener, so skipping it does nothing",
                    report.shown(&path, name)
                ));
                report.push_at(&path, warning);
            }
        }
        let legs = route.aggregate.iter().flat_map(|aggregate| aggregate.legs.iter().enumerate());
        for (leg, name, place) in
            legs.flat_map(|(leg, of)| of.uses.iter().enumerate().map(move |(place, name)| (leg, name, place)))
        {
            let path = key_path!["route", index, "aggregate", "legs", leg, "use", place];
            let found = policies.find(&path, name, report);
            if found.is_some_and(|found| config.policy[found].cors.is_some()) {
                let error = Diagnostic::error("no page reads a leg's answer, so `cors` says nothing here");
                report.push_at(&path, error.hint("`use` it on the route"));
            }
            attach(found);
        }
        let shares = || {
            let names =
                config.policy.iter().filter(|policy| policy.cors.is_some()).map(|policy| &policy.name);
            names.filter(|name| !route.skip.contains(name)).any(|name| {
                let is_default = config.policy.iter().any(|policy| policy.default && policy.name == *name);
                is_default
                    || route.uses.contains(name)
                    || config.listener.iter().any(|one| one.uses.contains(name))
            })
        };
        if has_grants(&route.response_headers) && shares() {
            let error = Diagnostic::error(
                "this route has a `cors` policy, which alone says who may read its responses",
            );
            let hint = "leave the `Access-Control-` fields to it, or `skip` it";
            report.push_at_key(&key_path!["route", index, "response_headers"], error.hint(hint));
        }
    }
    let defaults: Vec<String> =
        config.policy.iter().filter(|policy| policy.default).map(|policy| policy.name.clone()).collect();
    one_of_a_kind(config, &key_path!["policy"], &defaults, report);
    if is_partial || report.diagnostics.has_replaced() {
        return;
    }
    for (index, policy) in config.policy.iter().enumerate().filter(|(index, _)| !is_used[*index]) {
        let path = key_path!["policy", index, "name"];
        let warning =
            Diagnostic::warning(format!("nothing uses policy {}", report.shown(&path, &policy.name)));
        report.push_at(&path, warning.hint("`use` it on a listener or a route, or make it a `default`"));
    }
}

/// Reports two policies in one list of a kind that is asked once.
fn one_of_a_kind(config: &Config, path: &[source::Key<'_>], names: &[String], report: &mut Report) {
    for kind in ASKED_ONCE {
        let is_one = |name: &String| {
            config.policy.iter().any(|policy| policy.name == *name && kinds(policy).contains(&kind))
        };
        let mut those = names.iter().filter(|name| is_one(name));
        if let (Some(first), Some(second)) = (those.next(), those.next()) {
            let error = Diagnostic::error(format!(
                "`{first}` and `{second}` are both `{kind}`, and only one is asked"
            ));
            report.push_at(path, error.hint("make them one policy"));
        }
    }
}

fn has_grants(edits: &HeaderEdits) -> bool {
    let is_grant = |name: &String| name.to_ascii_lowercase().starts_with("access-control-");
    edits.set.keys().any(is_grant) || edits.add.keys().any(is_grant)
}

/// Where a credential comes: a field's, a parameter's or a cookie's name, and no two of them.
fn places(index: usize, kind: &'static str, names: [&Option<String>; 3], report: &mut Report) {
    let kinds = [("header", "a field name"), ("query", "a parameter's name"), ("cookie", "a cookie's name")];
    let mut before = None;
    for ((place, what), name) in kinds.into_iter().zip(names) {
        let Some(name) = name else { continue };
        let path = key_path!["policy", index, kind, place];
        if place != "query" {
            fields::token(&path, name, what, report);
        } else if name.is_empty() {
            report.push_at(&path, Diagnostic::error(format!("`` is not {what}")));
        }
        if let Some(before) = before {
            let error = Diagnostic::error(format!("it comes in `{before}` or in `{place}`, not in both"));
            report.push_at(&path, error.hint("make two policies, for two routes"));
        }
        before = Some(place);
    }
}

/// Rates are judged where they are compiled.
fn rate_limit(index: usize, limit: &RateLimit, name: &str, report: &mut Report) {
    let at = |key| key_path!["policy", index, "rate_limit", key];
    // RFC 9651 §3.3.3, without what would need an escape.
    if !name.bytes().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\')) {
        let path = key_path!["policy", index, "name"];
        let error =
            Diagnostic::error("clients are told this name, which may have ASCII letters, digits and signs");
        report.push_at(&path, error.hint("leave out `\"`, `\\` and what is not ASCII"));
    }
    if limit.per.as_millis() == 0 {
        report.push_at(&at("per"), Diagnostic::error("there is no rate in no time"));
    }
    if matches!(limit.cost, Cost::Fixed(0)) {
        report.push_at(&at("cost"), Diagnostic::error("what costs nothing is not limited"));
    }
    if matches!(limit.cost, Cost::Fixed(cost) if cost > limit.burst.unwrap_or(limit.limit)) {
        let error = Diagnostic::error("a request costs more than there ever is");
        report.push_at(&at("cost"), error.hint("give a `burst` of at least `cost`"));
    }
    for (place, by) in limit.by.iter().enumerate() {
        let (key, name) = match by {
            CountedBy::Header(name) => ("header", name),
            CountedBy::Claim(name) => ("claim", name),
            CountedBy::ClientIp
            | CountedBy::Consumer
            | CountedBy::Subject
            | CountedBy::Route
            | CountedBy::Expression(_) => {
                continue;
            }
        };
        let path = key_path!["policy", index, "rate_limit", "by", place, key];
        if key == "header" {
            fields::token(&path, name, "a field name", report);
        } else if name.is_empty() {
            report.push_at(&path, Diagnostic::error("`` is no claim"));
        }
    }
}

/// Users are judged where they are compiled.
fn basic(index: usize, basic: &Basic, report: &mut Report) {
    let at = |key| key_path!["policy", index, "basic", key];
    let is_visible = basic.realm.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    if basic.realm.is_empty() || basic.realm.len() > REALM_BYTES_MAX || !is_visible {
        let error = Diagnostic::error(format!("{} is no realm", report.shown(&at("realm"), &basic.realm)));
        report.push_at(
            &at("realm"),
            error.hint(format!("a realm is a short text of ASCII, at most {REALM_BYTES_MAX} bytes")),
        );
    }
    match &basic.file {
        Some(file) if !file.starts_with('/') => {
            let error = Diagnostic::error(format!(
                "{} is not the absolute path of a file",
                report.shown(&at("file"), file)
            ));
            report.push_at(&at("file"), error.hint("\"/etc/ringgate/htpasswd\""));
        }
        None if basic.users.is_empty() => {
            let error = Diagnostic::error("this policy lets no one pass: there are no users");
            report.push_at(
                &key_path!["policy", index, "basic"],
                error.hint("give it `users`, or a `file` of them"),
            );
        }
        Some(_) | None => {}
    }
}

fn scopes(index: usize, kind: &'static str, scopes: &[String], report: &mut Report) {
    for (place, scope) in scopes.iter().enumerate() {
        if scope.is_empty() || scope.contains(' ') {
            let path = key_path!["policy", index, kind, "scopes", place];
            let error = Diagnostic::error(format!("{} is not a scope", report.shown(&path, scope)));
            report.push_at(&path, error.hint("a scope is one word; several are several texts"));
        }
    }
}

/// Clusters and paths are judged where they are compiled.
fn introspect(index: usize, introspect: &Introspect, report: &mut Report) {
    scopes(index, "introspect", &introspect.scopes, report);
    places(index, "introspect", [&introspect.header, &introspect.query, &introspect.cookie], report);
    no_wait(index, "introspect", introspect.timeout, report);
}

fn authorize(index: usize, authorize: &Authorize, report: &mut Report) {
    for (list, names) in [("headers", authorize.headers.as_deref()), ("copy", Some(&authorize.copy[..]))] {
        for (place, name) in names.unwrap_or_default().iter().enumerate() {
            fields::copied(&key_path!["policy", index, "authorize", list, place], name, report);
        }
    }
    no_wait(index, "authorize", authorize.timeout, report);
}

fn no_wait(index: usize, kind: &'static str, timeout: Span, report: &mut Report) {
    if timeout.as_millis() == 0 {
        let error = Diagnostic::error("there is no answer in no time");
        report.push_at(&key_path!["policy", index, kind, "timeout"], error.hint("timeout = \"2s\""));
    }
}

/// Keys are judged where they are compiled.
fn jwt(index: usize, jwt: &Jwt, report: &mut Report) {
    scopes(index, "jwt", &jwt.scopes, report);
    places(index, "jwt", [&jwt.header, &jwt.query, &jwt.cookie], report);
    if jwt.algorithms.is_empty() {
        let error = Diagnostic::error("no algorithm is named, so no token is believed");
        report.push_at(
            &key_path!["policy", index, "jwt", "algorithms"],
            error.hint("algorithms = [\"ES256\"]"),
        );
    }
    published(index, jwt, report);
    if jwt.keys.is_empty() && jwt.jwks.is_none() && !jwt.discovery {
        let error = Diagnostic::error("there is no key, so no token is believed");
        report.push_at(&key_path!["policy", index, "jwt", "keys"], error);
    }
}

/// Keys that an issuer publishes.
fn published(index: usize, jwt: &Jwt, report: &mut Report) {
    let at = |key| key_path!["policy", index, "jwt", key];
    if let Some(place) = &jwt.jwks {
        if jwt.discovery {
            let error = Diagnostic::error("the issuer tells where its keys are, or `jwks` does, not both");
            report.push_at(&at("jwks"), error.hint("leave one of them out"));
        }
        published_at(&at("jwks"), place, true, report);
    }
    match (&jwt.issuer, jwt.discovery) {
        (Some(issuer), true) => published_at(&at("issuer"), issuer, false, report),
        (None, true) => {
            let error = Diagnostic::error("there is no `issuer` to ask for its keys");
            report.push_at(&at("discovery"), error.hint("issuer = \"https://login.example\""));
        }
        (_, false) => {}
    }
    if jwt.refresh.as_millis() == 0 {
        report.push_at(&at("refresh"), Diagnostic::error("keys that are published are fetched again"));
    }
}

fn published_at(path: &[source::Key<'_>], place: &str, may_be_file: bool, report: &mut Report) {
    let is_url = place.starts_with("https://") || place.starts_with("http://");
    let is_file = may_be_file && place.starts_with('/');
    if !(is_url || is_file) {
        let what = if may_be_file { "a URL, nor the absolute path of a file" } else { "a URL" };
        let error = Diagnostic::error(format!("{} is not {what}", report.shown(path, place)));
        report.push_at(path, error.hint("\"https://login.example/keys.json\""));
    } else if place.starts_with("http://") {
        let warning = Diagnostic::warning("keys that come without TLS may be anyone's");
        report.push_at(path, warning.hint("https://"));
    }
}

fn key(config: &Config, index: usize, key: &Key, consumers: &Names<'_>, report: &mut Report) {
    places(index, "key", [&key.header, &key.query, &key.cookie], report);
    for (list, names) in [("consumers", &key.consumers), ("tags", &key.tags)] {
        let Some(names) = names else { continue };
        if names.is_empty() {
            let error = Diagnostic::error(format!("`{list}` lets no one pass"));
            report
                .push_at(&key_path!["policy", index, "key", list], error.hint("leave it out, or name some"));
        }
        for (place, name) in names.iter().enumerate() {
            let path = key_path!["policy", index, "key", list, place];
            if config.consumers.is_some() {
                named_in_file(config, &path, (list, name), report);
            } else if list == "consumers" {
                consumers.find(&path, name, report);
            } else if !config.consumer.iter().any(|consumer| consumer.tags.contains(name)) {
                let error =
                    Diagnostic::error(format!("no consumer has the tag {}", report.shown(&path, name)));
                report.push_at(&path, error);
            }
        }
    }
    if config.consumers.is_none() && config.consumer.iter().all(|consumer| consumer.keys.is_empty()) {
        let error = Diagnostic::error("this policy lets no one pass: there are no keys");
        report.push_at(&key_path!["policy", index, "key"], error.hint("give a `[[consumer]]` some `keys`"));
    }
}

/// A consumer's name, or a tag, where some consumers are in a file: one that is missing may come with its next change.
fn named_in_file(
    config: &Config,
    path: &[source::Key<'_>],
    (list, name): (&str, &String),
    report: &mut Report,
) {
    let mut all = config.consumer.iter().chain(&config.consumers_of_file);
    let is_there = match list {
        "consumers" => all.any(|consumer| consumer.name == *name),
        _ => all.any(|consumer| consumer.tags.contains(name)),
    };
    // Nothing is known of a file that was not looked at.
    if !is_there && !config.consumers_of_file.is_empty() && !report.is_replaced(path) {
        let what = if list == "consumers" { "is called" } else { "has the tag" };
        let warning = Diagnostic::warning(format!("no consumer {what} {} now", report.shown(path, name)));
        report.push_at(path, warning.hint("one may come with the next change of the file"));
    }
}

fn client_cert(config: &Config, index: usize, access: &ClientCert, report: &mut Report) {
    for (place, text) in access.fingerprints.iter().enumerate() {
        let pairs = text.split(':');
        let digits: String = pairs.clone().collect();
        let is_even = !text.contains(':') || pairs.clone().all(|pair| pair.len() == 2);
        if !is_even || digits.len() != 64 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            let path = key_path!["policy", index, "client_cert", "fingerprints", place];
            let error = Diagnostic::error(format!("{} is no fingerprint", report.shown(&path, text)));
            report.push_at(
                &path,
                error.hint("write the 64 digits that `openssl x509 -noout -sha256 -fingerprint` prints"),
            );
        }
    }
    for (place, name) in access.names.iter().enumerate() {
        let labels = name.strip_prefix("*.").unwrap_or(name);
        let is_label = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if labels.split('.').any(|label| label.is_empty() || !label.bytes().all(is_label)) {
            let path = key_path!["policy", index, "client_cert", "names", place];
            let error = Diagnostic::error(format!("{} is no DNS name", report.shown(&path, name)));
            report.push_at(&path, error);
        }
    }
    let asks = |listener: &Listener| listener.tls.as_ref().is_some_and(|tls| tls.client_auth.is_some());
    if !config.listener.iter().any(asks) {
        let error = Diagnostic::error("this policy lets no one pass: no listener asks for certificates");
        report.push_at(&key_path!["policy", index, "client_cert"], error.hint("give one `tls.client_auth`"));
    }
}

fn ip(index: usize, ip: &Ip, report: &mut Report) {
    if ip.allow.is_none() && ip.deny.is_none() {
        let error = Diagnostic::error("this policy lets everyone pass");
        report.push_at(
            &key_path!["policy", index, "ip"],
            error.hint("name networks in `allow`, in `deny` or in both"),
        );
    }
    for (key, networks) in [("allow", &ip.allow), ("deny", &ip.deny)] {
        let Some(networks) = networks else { continue };
        if networks.is_empty() {
            let error = Diagnostic::error(format!("`{key}` names no network"));
            report.push_at(&key_path!["policy", index, "ip", key], error.hint("leave it out, or name some"));
        }
        for (place, network) in networks.iter().enumerate() {
            address::network(&key_path!["policy", index, "ip", key, place], network, report);
        }
    }
}

fn cors(index: usize, cors: &Cors, report: &mut Report) {
    let at = |key| key_path!["policy", index, "cors", key];
    if cors.origins.is_empty() {
        let error = Diagnostic::error("no page has an origin out of an empty list");
        report.push_at(&at("origins"), error.hint("origins = [\"https://shop.example\"]"));
    }
    let is_any = |origin: &OriginMatch| *origin == OriginMatch::Text("*".into());
    if cors.origins.len() > 1
        && let Some(place) = cors.origins.iter().position(is_any)
    {
        let error = Diagnostic::error("`*` takes every origin; the others say nothing beside it");
        report.push_at(
            &key_path!["policy", index, "cors", "origins", place],
            error.hint("keep one or the others"),
        );
    }
    let has_any_origin = cors.origins.iter().any(is_any);
    let lists = [("methods", &cors.methods), ("headers", &cors.headers), ("expose", &cors.expose)];
    for (key, list) in lists {
        for (place, name) in list.iter().enumerate() {
            let what = if key == "methods" { "a method" } else { "a field name" };
            fields::token(&key_path!["policy", index, "cors", key, place], name, what, report);
        }
    }
    // Fetch §3.3.5: with credentials a browser takes `*` for a name.
    let any = lists.iter().filter(|(_, list)| list.iter().any(|name| name == "*")).map(|(key, _)| *key);
    for key in any.chain(has_any_origin.then_some("origins")).filter(|_| cors.credentials) {
        let error = Diagnostic::error(format!("with `credentials`, `*` is not allowed in `{key}`"));
        report.push_at(&at(key), error.hint("browsers would refuse it; name each"));
    }
}
