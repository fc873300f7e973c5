//! Those whom policies ask: a route of its own for each, which no client's request finds.

use super::{
    Action, Route, Rule,
    compile::Compiler,
    tokens::{self, demands},
};
use crate::{
    config::{Key, types},
    http::path::canonicalize,
    policy::{
        authorize::Authorize,
        headers::HeaderEdits,
        introspect::{Introspect, basic},
    },
};

impl Compiler<'_, '_> {
    pub(super) fn authorize(&mut self, at: usize, authorize: &types::Authorize) -> Option<Rule> {
        let below = |key: &'static str| ["policy".into(), at.into(), "authorize".into(), key.into()];
        self.target(&below("path"), &authorize.path);
        let route =
            self.inner_route(at, (&authorize.cluster, &below("cluster")), authorize.timeout.as_millis())?;
        let lower = |names: &[String]| names.iter().map(|name| name.to_ascii_lowercase().into()).collect();
        Some(Rule::Authorize(Box::new(Authorize {
            route,
            target: authorize.path.as_str().into(),
            headers: authorize.headers.as_deref().map(lower),
            copy: lower(&authorize.copy),
            timeout_ms: authorize.timeout.as_millis(),
            fails_open: authorize.on_failure == types::OnFailure::Allow,
        })))
    }

    pub(super) fn introspect(&mut self, at: usize, introspect: &types::Introspect) -> Option<Rule> {
        let below = |key: &'static str| ["policy".into(), at.into(), "introspect".into(), key.into()];
        self.target(&below("path"), &introspect.path);
        let timeout_ms = introspect.timeout.as_millis();
        let route = self.inner_route(at, (&introspect.cluster, &below("cluster")), timeout_ms)?;
        let types::Introspect { header, query, cookie, issuer, audience, require, scopes, leeway, .. } =
            introspect;
        Some(Rule::Introspect(Box::new(Introspect {
            route,
            target: introspect.path.as_str().into(),
            place: tokens::place((header, "authorization"), query, cookie),
            forward: introspect.forward,
            authorization: basic(&introspect.client_id, &introspect.client_secret.0),
            demands: demands(issuer, [audience, require, scopes], *leeway, false),
            cache_ms: introspect.cache.as_millis(),
            timeout_ms,
        })))
    }

    /// A path, and perhaps a query, as it is sent: what the gateway would not take from a client it does not say itself.
    fn target(&mut self, path: &[Key<'_>], target: &str) {
        let is_visible = target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
        let bare = target.split('?').next().unwrap_or_default();
        let is_canonical = || {
            let mut out = Vec::new();
            let canonical = canonicalize(bare.as_bytes(), &types::PathRules::default(), &mut out);
            canonical.is_ok() && (out.is_empty() || out == bare.as_bytes())
        };
        if !target.starts_with('/') || !is_visible || !is_canonical() {
            let hint = Some("a path, and perhaps a query: `/check?for=gateway`".into());
            self.error(path, format!("`{target}` is no path"), hint);
        }
    }

    /// A route to a cluster for the requests of a policy.
    fn inner_route(
        &mut self,
        at: usize,
        (cluster, path): (&str, &[Key<'_>]),
        timeout_ms: u64,
    ) -> Option<u32> {
        let cluster = self.cluster(cluster, path)?;
        self.inner.push(Route {
            name: self.config.policy[at].name.as_str().into(),
            action: Action::Cluster(cluster),
            timeout_ms,
            rewrite: None,
            body_bytes: None,
            request_headers: HeaderEdits::default(),
            response_headers: HeaderEdits::default(),
        });
        Some((self.config.route.len() + self.inner.len() - 1) as u32)
    }
}
