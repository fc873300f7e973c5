//! Least requests: the endpoint with the fewest requests under way for its weight. It owns a cursor; the counts are the
//! caller's, and are those of this core only.

use super::{Share, shares};

/// An exact minimum over all endpoints. Loads live with the caller, so there is nothing to keep sorted and a pick looks
/// at every endpoint; clusters of thousands that are never idle are better served by `p2c`.
#[derive(Debug, Clone)]
pub(super) struct Least {
    /// At least one.
    shares: Box<[Share]>,
    /// The highest weight: idle, such an endpoint cannot be beaten.
    heaviest: u32,
    /// Where the search begins, one past the last pick, so that ties go round.
    cursor: usize,
}

impl Least {
    pub(super) fn new(weights: &[u32]) -> Self {
        let shares: Box<[Share]> = shares(weights).collect();
        let heaviest = shares.iter().map(|share| share.weight).max().unwrap_or(0);
        Self { shares, heaviest, cursor: 0 }
    }

    /// Begins the search at the endpoint that `seed` names, modulo their number.
    pub(super) fn begin(&mut self, seed: u64) {
        self.cursor = (seed % self.shares.len() as u64) as usize;
    }

    /// The usable endpoint with the smallest (load + 1) / weight: what its load would be with this request, so an idle
    /// heavy endpoint goes before an idle light one.
    #[inline]
    pub(super) fn pick(
        &mut self,
        usable: impl Fn(usize) -> bool,
        load: impl Fn(usize) -> u32,
    ) -> Option<usize> {
        let (before, after) = self.shares.split_at(self.cursor);
        let mut best: Option<(usize, u64, u64)> = None;
        'search: for (first, part) in [(self.cursor, after), (0, before)] {
            for (at, share) in (first..).zip(part) {
                let index = share.index as usize;
                if !usable(index) {
                    continue;
                }
                let load = u64::from(load(index)) + 1;
                let weight = u64::from(share.weight);
                // load / weight < best_load / best_weight, without division. 2^32 × (2^32 - 1) fits in 64 bits.
                if best.is_none_or(|(_, best_load, best_weight)| load * best_weight < best_load * weight) {
                    best = Some((at, load, weight));
                    if load == 1 && share.weight == self.heaviest {
                        break 'search;
                    }
                }
            }
        }
        let (at, ..) = best?;
        self.cursor = if at + 1 == self.shares.len() { 0 } else { at + 1 };
        Some(self.shares[at].index as usize)
    }
}
