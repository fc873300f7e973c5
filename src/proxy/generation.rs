//! A table and the mutable state that belongs to its slots: balancers, splits, health. They are made and swapped
//! together, so that no index of one table is ever used in another's state.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
};

use super::{identity::Roll, secure::Secrets};
use crate::{
    policy::{
        basic::Remembered, introspect::Introspected, jose::Key, jwt::Verified, key::Consumers,
        password::Users, rate_limit::Leases,
    },
    table::{Policy, Rule, Table},
    tls::TicketKeys,
    upstream::{
        balance::{Balancer, Split},
        health::Health,
        pool::{Pool, PoolPolicy, Pools, share},
    },
};

/// What a core runs by, until the next one.
pub struct Generation {
    /// Its number, from 0.
    pub number: u64,
    /// The table.
    pub table: Table,
    /// The clusters' state, by the table's indices.
    pub(super) clusters: Vec<ClusterState>,
    /// The splits' state, by the table's indices.
    pub(super) splits: Vec<RefCell<Split>>,
    /// What listeners and clusters speak TLS with.
    pub(super) secrets: Secrets,
    /// Tokens that its policies have verified.
    pub(super) verified: RefCell<Verified>,
    /// What issuers have said of tokens.
    pub(super) introspected: RefCell<Introspected>,
    /// Keys that issuers publish, by policy; `None`: they are not here yet.
    pub(super) published: RefCell<Vec<Option<Rc<[Key]>>>>,
    /// The users of policies that ask for passwords, by the table's policies.
    pub(super) users: RefCell<Vec<Option<Arc<Users>>>>,
    /// Those of them who have shown theirs.
    pub(super) remembered: RefCell<Remembered>,
    /// Who uses the API now.
    pub(super) consumers: RefCell<Rc<Roll>>,
    /// What this core has of the host's rate limits, by the table's policies.
    pub(super) leases: RefCell<Vec<Option<Leases>>>,
}

/// One cluster's state on one core.
pub(super) struct ClusterState {
    pub(super) balancer: RefCell<Balancer>,
    pub(super) health: RefCell<Health>,
    pub(super) endpoints: Vec<EndpointState>,
    /// The limits with this core's share of the host's.
    pub(super) pool: PoolPolicy,
}

/// One endpoint's state on one core.
pub(super) struct EndpointState {
    pub(super) pool: Rc<Pool>,
    /// Exchanges under way there.
    pub(super) load: Cell<u32>,
}

impl Generation {
    pub(super) fn new(
        number: u64,
        table: Table,
        tickets: &TicketKeys,
        pools: &Pools,
        (worker, workers): (usize, usize),
    ) -> Result<Self, rustls::Error> {
        let secrets = Secrets::new(&table, tickets)?;
        let clusters = table
            .clusters
            .iter()
            .map(|cluster| {
                let weights: Vec<u32> = cluster.endpoints.iter().map(|endpoint| endpoint.weight).collect();
                ClusterState {
                    balancer: RefCell::new(cluster.balancer.for_core(worker as u64)),
                    health: RefCell::new(Health::new(&weights, cluster.eject)),
                    endpoints: cluster
                        .endpoints
                        .iter()
                        .enumerate()
                        .map(|(at, endpoint)| {
                            let identity = cluster.tls.as_ref().map(|tls| tls.identity(at));
                            let is_announced = cluster.proxy_protocol.is_some();
                            let pool = pools.of(endpoint.address, identity, is_announced);
                            EndpointState { pool, load: Cell::new(0) }
                        })
                        .collect(),
                    pool: PoolPolicy {
                        max_connections: share(cluster.pool.max_connections, worker, workers),
                        ..cluster.pool.clone()
                    },
                }
            })
            .collect();
        let splits = table
            .splits
            .iter()
            .map(|split| RefCell::new(Split::new(&split.weights, worker as u64)))
            .collect();
        let leases = table.policies.iter().map(|policy| match &policy.rule {
            Rule::RateLimit(limit) => Some(Leases::new(limit, workers)),
            Rule::Cors(_)
            | Rule::Ip(_)
            | Rule::ClientCert(_)
            | Rule::Key(_)
            | Rule::Basic(_)
            | Rule::Jwt(_)
            | Rule::Introspect(_)
            | Rule::Authorize(_)
            | Rule::Concurrency(_)
            | Rule::Allow(_) => None,
        });
        let leases = RefCell::new(leases.collect());
        let published = RefCell::new(vec![None; table.policies.len()]);
        let (verified, introspected) = (RefCell::default(), RefCell::default());
        let users = table.policies.iter().map(|policy| match &policy.rule {
            Rule::Basic(access) => Some(Arc::clone(&access.users)),
            Rule::Cors(_)
            | Rule::Ip(_)
            | Rule::ClientCert(_)
            | Rule::Key(_)
            | Rule::Jwt(_)
            | Rule::Introspect(_)
            | Rule::Authorize(_)
            | Rule::Allow(_)
            | Rule::Concurrency(_)
            | Rule::RateLimit(_) => None,
        });
        let users = RefCell::new(users.collect());
        let remembered = RefCell::new(Remembered::new().ok_or(rustls::Error::FailedToGetRandomBytes)?);
        let consumers = RefCell::new(Rc::new(Roll(Arc::clone(&table.consumers))));
        Ok(Self {
            number,
            table,
            clusters,
            splits,
            secrets,
            verified,
            introspected,
            published,
            users,
            remembered,
            consumers,
            leases,
        })
    }

    /// Takes the users of the policy of this number. No one is remembered any longer: each shows a password that is right now.
    pub(super) fn take_users(&self, policy: usize, users: &Arc<Users>) {
        if let Some(slot) = self.users.borrow_mut().get_mut(policy) {
            *slot = Some(Arc::clone(users));
        }
        self.remembered.borrow_mut().forget();
    }

    /// Takes another set of consumers. Exchanges under way keep the one in which they found theirs.
    pub(super) fn take_consumers(&self, consumers: &Arc<Consumers>) {
        *self.consumers.borrow_mut() = Rc::new(Roll(Arc::clone(consumers)));
    }

    /// Takes the keys that an issuer publishes now, for the policy of this number.
    pub(super) fn take_published(&self, policy: usize, keys: &[Key]) {
        if let Some(slot) = self.published.borrow_mut().get_mut(policy) {
            *slot = Some(keys.into());
        }
        // What was believed for a key that is gone is not believed any longer.
        self.verified.take();
    }

    /// What limits have forgotten. It is the host's, so one core alone tells it.
    pub(super) fn evictions(&self) -> u64 {
        let of = |policy: &Policy| match &policy.rule {
            Rule::RateLimit(limit) => limit.evictions(),
            Rule::Cors(_)
            | Rule::Ip(_)
            | Rule::ClientCert(_)
            | Rule::Key(_)
            | Rule::Basic(_)
            | Rule::Jwt(_)
            | Rule::Introspect(_)
            | Rule::Authorize(_)
            | Rule::Concurrency(_)
            | Rule::Allow(_) => 0,
        };
        self.table.policies.iter().map(of).sum()
    }

    /// Gives back what of the host's limits was not asked for of late.
    pub(super) fn give_back_idle(&self, now_ns: u64) {
        self.leases.borrow_mut().iter_mut().flatten().for_each(|leases| leases.give_back_idle(now_ns));
    }
}
