//! Which policies a route has on a listener: the default ones, the listener's and its own, less those that it skips. Of a kind
//! that is asked once, the one attached nearest to the route is the one; of the others, all.

use std::collections::HashMap;

use super::{Chain, Policy, Rule};
use crate::{
    config::types::{Config, Listener, Route},
    policy::credential::Place,
};

/// The distinct chains, while they gather.
pub(super) struct Chains {
    list: Vec<Chain>,
    /// Policies by name.
    by_name: HashMap<Box<str>, usize>,
}

impl Chains {
    pub(super) fn new(config: &Config) -> Self {
        let by_name = config.policy.iter().enumerate().map(|(at, policy)| (policy.name.as_str().into(), at));
        // `NO_POLICIES`.
        Self { list: vec![Chain::default()], by_name: by_name.collect() }
    }

    /// The chain of a route on a listener, or of a request there that has no route.
    pub(super) fn of(&mut self, config: &Config, listener: &Listener, route: Option<&Route>) -> u32 {
        let is_skipped =
            |name: &str| route.is_some_and(|route| route.skip.iter().any(|skipped| skipped == name));
        let defaults = config.policy.iter().filter(|policy| policy.default).map(|policy| &policy.name);
        let shared = defaults.chain(&listener.uses).filter(|name| !is_skipped(name));
        // Later ones are nearer.
        self.named(config, shared.chain(route.map_or(&[][..], |route| &route.uses)))
    }

    /// The chain of these policies alone.
    pub(super) fn named<'n>(&mut self, config: &Config, names: impl Iterator<Item = &'n String>) -> u32 {
        let chain = self.chain(config, names);
        let known = self.list.iter().position(|other| *other == chain);
        known.unwrap_or_else(|| {
            self.list.push(chain);
            self.list.len() - 1
        }) as u32
    }

    fn chain<'n>(&self, config: &Config, names: impl Iterator<Item = &'n String>) -> Chain {
        let mut chain = Chain::default();
        let (mut ip, mut allow) = (Vec::new(), Vec::new());
        let (mut rate_limits, mut concurrency) = (Vec::new(), Vec::new());
        for name in names {
            let Some(at) = self.by_name.get(name.as_str()).copied() else { continue };
            let policy = &config.policy[at];
            if policy.cors.is_some() {
                chain.cors = Some(at);
            } else if policy.client_cert.is_some() {
                chain.client_cert = Some(at);
            } else if policy.key.is_some() {
                chain.key = Some(at);
            } else if policy.basic.is_some() {
                chain.basic = Some(at);
            } else if policy.jwt.is_some() {
                chain.jwt = Some(at);
            } else if policy.introspect.is_some() {
                chain.introspect = Some(at);
            } else if policy.authorize.is_some() {
                chain.authorize = Some(at);
            } else if policy.ip.is_some() && !ip.contains(&at) {
                ip.push(at);
            } else if policy.allow.is_some() && !allow.contains(&at) {
                allow.push(at);
            } else if policy.rate_limit.is_some() && !rate_limits.contains(&at) {
                rate_limits.push(at);
            } else if policy.concurrency.is_some() && !concurrency.contains(&at) {
                concurrency.push(at);
            }
        }
        chain.ip = ip.into();
        chain.allow = allow.into();
        chain.rate_limits = rate_limits.into();
        chain.concurrency = concurrency.into();
        chain
    }

    /// Two policies of a chain that ask for credentials in one field, which has but one, if there are two.
    pub(super) fn at_odds<'p>(&self, chain: u32, policies: &'p [Policy]) -> Option<(&'p Policy, &'p Policy)> {
        let Chain { key, basic, jwt, introspect, .. } = self.list[chain as usize];
        let asking = [key, basic, jwt, introspect].into_iter().flatten().map(|at| &policies[at]);
        let places = asking.filter_map(|policy| match &policy.rule {
            Rule::Key(access) => Some((policy, &access.place)),
            Rule::Basic(access) => Some((policy, &access.place)),
            Rule::Jwt(access) => Some((policy, &access.place)),
            Rule::Introspect(access) => Some((policy, &access.place)),
            Rule::Cors(_)
            | Rule::Ip(_)
            | Rule::ClientCert(_)
            | Rule::Authorize(_)
            | Rule::Allow(_)
            | Rule::RateLimit(_)
            | Rule::Concurrency(_) => None,
        });
        let places: Vec<_> = places.collect();
        let is_same =
            |(at, (_, place)): &(usize, (_, &Place))| places[..*at].iter().any(|(_, one)| one == place);
        let (at, (second, place)) = places.iter().copied().enumerate().find(is_same)?;
        let (first, _) = places[..at].iter().find(|(_, one)| *one == place)?;
        Some((first, second))
    }

    /// Whether a chain shares with other origins.
    pub(super) fn shares(&self, chain: u32) -> bool {
        self.list[chain as usize].cors.is_some()
    }

    pub(super) fn into_list(self) -> Vec<Chain> {
        self.list
    }
}
