//! A table and the mutable state that belongs to its slots: balancers, splits, health. They are made and swapped
//! together, so that no index of one table is ever used in another's state.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use super::secure::Secrets;
use crate::{
    policy::jwt::Verified,
    table::Table,
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
        Ok(Self { number, table, clusters, splits, secrets, verified: RefCell::default() })
    }
}
