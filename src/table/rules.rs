//! From `[[policy]]` to what policies do.

use std::{path::Path, sync::Arc};

use super::{
    Policy, Rule,
    compile::{Compiler, networks},
    policies::Chains,
    tokens, users,
};
use crate::{
    config::{Key, types},
    expression::{Kind, Scope},
    policy::{
        basic::UserAccess,
        client_cert::CertAccess,
        concurrency::Concurrency,
        cors::Cors,
        ip::IpAccess,
        key::KeyAccess,
        rate_limit::{LimitFault, LimitPart, RateLimit},
    },
    tls::Authorities,
};

impl Compiler<'_, '_> {
    pub(super) fn policies(&mut self) -> (Vec<Policy>, Chains) {
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
            } else if let Some(basic) = &policy.basic {
                self.basic(at, basic)
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
                    let place = tokens::place((&key.header, types::KEY_HEADER), &key.query, &key.cookie);
                    Rule::Key(KeyAccess { place, forward: key.forward })
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

    /// What is wrong with a user is said of the number, as of a key.
    fn basic(&mut self, at: usize, basic: &types::Basic) -> Option<Rule> {
        match users(basic) {
            Ok(users) => {
                let remembered_ms = basic.remember.as_millis();
                Some(Rule::Basic(UserAccess::new(
                    &basic.realm,
                    Arc::new(users),
                    basic.forward,
                    remembered_ms,
                )))
            }
            Err(faults) => {
                for fault in faults {
                    self.error(&["policy".into(), at.into(), "name".into()], fault, None);
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
}
