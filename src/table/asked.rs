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
        let route = self.inner_route(
            &self.config.policy[at].name,
            (&authorize.cluster, &below("cluster")),
            authorize.timeout.as_millis(),
        )?;
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
        let route = self.inner_route(
            &self.config.policy[at].name,
            (&introspect.cluster, &below("cluster")),
            timeout_ms,
        )?;
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
            self.error(path, "this is no path in canonical form", hint);
        }
    }

    /// A route to a cluster for requests of the gateway's own.
    pub(super) fn inner_route(
        &mut self,
        name: &str,
        (cluster, path): (&str, &[Key<'_>]),
        timeout_ms: u64,
    ) -> Option<u32> {
        let cluster = self.cluster(cluster, path)?;
        self.inner.push(Route {
            name: name.into(),
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

#[cfg(test)]
mod tests {
    use super::{super::compile, *};

    fn faults(policy: &str) -> Vec<String> {
        let text = format!(
            "[[cluster]]\nname = 'c'\nendpoints = [{{ address = '10.0.0.1:80' }}]\n[[policy]]\nname = 'p'\n{policy}"
        );
        let config = toml::from_str(&text).unwrap();
        let mut faults = Vec::new();
        let table = compile(&config, &mut |_, fault| faults.push(fault.message));
        assert_eq!(table.is_some(), faults.is_empty());
        faults
    }

    #[test]
    fn whom_policies_ask_and_where() {
        let introspect = "path = '/i', client_id = 'a', client_secret = 'b'";
        for (policy, expected) in [
            (String::from("authorize = { cluster = 'c' }"), &[][..]),
            ("authorize = { cluster = 'c', path = '/check/it?a=b' }".into(), &[]),
            ("authorize = { cluster = 'd' }".into(), &["there is no cluster `d`"]),
            (format!("introspect = {{ cluster = 'c', {introspect} }}"), &[]),
            (format!("introspect = {{ cluster = 'd', {introspect} }}"), &["there is no cluster `d`"]),
        ] {
            assert_eq!(faults(&policy), expected, "{policy}");
        }
        for path in ["", "check", "//a", "/a/../b", "/a b", "/a#b", "/%61", "http://a/"] {
            let told = faults(&format!("authorize = {{ cluster = 'c', path = '{path}' }}"));
            assert_eq!(told, ["this is no path in canonical form"], "{path}");
        }
    }

    #[test]
    fn only_the_gateways_own_requests_take_its_own_routes() {
        let text = "[[listener]]\nname = 'l'\naddress = '127.0.0.1:0'\n\
                    [[cluster]]\nname = 'c'\nendpoints = [{ address = '10.0.0.1:80' }]\n\
                    [[route]]\nname = 'r'\nmatch.path = '/*'\ncluster = 'c'\nuse = ['p']\n\
                    [[policy]]\nname = 'p'\nauthorize = { cluster = 'c', timeout = '3s' }\n";
        let table = compile(&toml::from_str(text).unwrap(), &mut |_, _| {}).unwrap();
        let Rule::Authorize(door) = &table.policies[0].rule else { panic!("it is one") };
        assert_eq!((table.routes.len(), door.route, table.routes[1].timeout_ms), (2, 1, 3000));
        assert!(table.listeners[0].routes.iter().all(|attached| attached.route == 0));
        assert!(table.chains[table.listeners[0].routes[0].chain as usize].waits());
    }
}
