//! Balancing: which endpoint of a cluster serves the next request. This room owns the algorithms and their cursors,
//! one [`Balancer`] per cluster, core and generation. It does not know endpoints beyond their index, weight and
//! identity: who is healthy, who was already tried and how busy each is are asked of the caller, pick by pick.
//!
//! | kind | choice | cost of a pick |
//! |---|---|---|
//! | `round_robin` | smooth weighted round robin, see `rotation` | equal weights: 1; else the distinct weights, at most 64 |
//! | `least_requests` | fewest requests under way for its weight | every endpoint, until an idle one of the highest weight |
//! | `p2c` | the better of two drawn by weight | 2 draws |
//! | `random` | drawn by weight | 1 draw |
//! | `hash` | Maglev, see `maglev` | 1 look-up |
//!
//! The costs are those of a healthy cluster; beside each algorithm stands what unusable endpoints add. No pick
//! allocates.

mod draw;
mod least;
mod maglev;
mod rotation;
#[cfg(test)]
mod tests;

use crate::config::types::Balance;
use draw::Draw;
use least::Least;
use maglev::Maglev;
use rotation::Rotation;

/// The hash of a key or an endpoint's address: XXH3, 64 bits, seed 0. It is the same in every version of the gateway
/// and on every machine, so replicas agree on who serves a key. Not for tables that a client could attack by
/// collisions.
#[inline]
pub fn stable_hash(bytes: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(bytes)
}

/// One endpoint that may be picked: weight 0 never becomes one.
#[derive(Debug, Clone, Copy)]
struct Share {
    /// Its index in the cluster's list.
    index: u32,
    /// Above 0.
    weight: u32,
}

/// The endpoints with a weight above 0, in the list's order.
fn shares(weights: &[u32]) -> impl Iterator<Item = Share> {
    (0..).zip(weights).filter(|&(_, &weight)| weight > 0).map(|(index, &weight)| Share { index, weight })
}

/// The mutable state of one cluster's balancing on one core, for one generation.
#[derive(Debug)]
pub struct Balancer {
    state: State,
}

#[derive(Debug, Clone)]
enum State {
    /// No endpoint has a weight.
    Empty,
    /// The only endpoint with a weight: nothing to choose.
    One(usize),
    RoundRobin(Rotation),
    LeastRequests(Least),
    P2c(Draw),
    Random(Draw),
    Hash(Maglev),
}

impl Balancer {
    /// The balancer of a cluster whose endpoints have these `weights` (0 = gets nothing) and `ids`, one each, in the
    /// list's order. An endpoint's id is the [`stable_hash`] of its address; only `hash` looks at it.
    ///
    /// `seed` seeds the draws of `p2c` and `random`. `round_robin` and `least_requests` begin `seed` picks into their
    /// turn, so that many cores do not all begin with the first endpoint; 0 begins at the beginning.
    ///
    /// `hash` builds a table, which takes some milliseconds: build one balancer per cluster off the data path, then
    /// [`Balancer::for_core`].
    ///
    /// # Panics
    /// When `ids` and `weights` differ in length.
    pub fn new(kind: Balance, weights: &[u32], ids: &[u64], seed: u64) -> Self {
        assert_eq!(weights.len(), ids.len(), "one id per endpoint");
        let mut with_weight = shares(weights);
        let state = match (with_weight.next(), with_weight.next()) {
            (None, _) => State::Empty,
            (Some(only), None) => State::One(only.index as usize),
            (Some(_), Some(_)) => match kind {
                Balance::RoundRobin => State::RoundRobin(Rotation::new(weights)),
                Balance::LeastRequests => State::LeastRequests(Least::new(weights)),
                Balance::P2c => State::P2c(Draw::new(weights)),
                Balance::Random => State::Random(Draw::new(weights)),
                Balance::Hash => State::Hash(Maglev::new(weights, ids)),
            },
        };
        Self { state }.for_core(seed)
    }

    /// The same cluster's balancer for another core, at the beginning of its turn, with its own `seed` (see
    /// [`Balancer::new`]). The table of `hash`, which never changes, is shared and not built again.
    #[must_use]
    pub fn for_core(&self, seed: u64) -> Self {
        let mut state = self.state.clone();
        match &mut state {
            State::Empty | State::One(_) | State::Hash(_) => {}
            State::RoundRobin(rotation) => rotation.begin(seed),
            State::LeastRequests(least) => least.begin(seed),
            State::P2c(draw) | State::Random(draw) => draw.begin(seed),
        }
        Self { state }
    }

    /// Picks an endpoint by its index. `hash` is the [`stable_hash`] of the request's key and matters to `hash` alone.
    /// `usable(i)`: healthy and not yet tried in this exchange; `load(i)`: requests under way to it on this core. Both
    /// are asked a few times per pick at most while endpoints are usable, must be cheap, and must answer the same
    /// throughout one pick. `None` exactly when no endpoint with a weight is usable.
    #[inline]
    pub fn pick(
        &mut self,
        hash: u64,
        usable: impl Fn(usize) -> bool,
        load: impl Fn(usize) -> u32,
    ) -> Option<usize> {
        match &mut self.state {
            State::Empty => None,
            State::One(only) => usable(*only).then_some(*only),
            State::RoundRobin(rotation) => rotation.pick(usable),
            State::LeastRequests(least) => least.pick(usable, load),
            State::P2c(draw) => draw.pick_better_of_two(usable, load),
            State::Random(draw) => draw.pick(usable),
            State::Hash(maglev) => maglev.pick(hash, usable),
        }
    }
}

/// The weighted split of one route over clusters, per core and generation. Smooth, and exact over each cycle of as
/// many picks as the weights sum up to.
#[derive(Debug)]
pub struct Split {
    rotation: Rotation,
}

impl Split {
    /// A split by these weights, one per cluster in the route's order; 0 gets nothing. It begins `seed` picks into its
    /// cycle, for the same reason as [`Balancer::new`].
    pub fn new(weights: &[u32], seed: u64) -> Self {
        let mut rotation = Rotation::new(weights);
        rotation.begin(seed);
        Self { rotation }
    }

    /// The index of the cluster that serves the next request; `None` only when every weight is 0.
    #[inline]
    pub fn pick(&mut self) -> Option<usize> {
        self.rotation.pick(|_| true)
    }
}
