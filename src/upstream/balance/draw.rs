//! Draws by weight: one at random, or the better of two. It owns the random numbers and the alias table; it does not
//! know what makes an endpoint busy.
//!
//! The table is Walker's, built by Vose's method in whole numbers: a slot per endpoint, equally likely, that is kept
//! with a chance or handed to its alias. A draw costs two random numbers, whatever the number of endpoints.

use super::{Share, shares};
use std::cmp::Ordering;

/// Draws that may hit an unusable endpoint before the usable ones are summed up. With half of the weight usable, one
/// pick in 256 comes to that.
const DRAWS_MAX: usize = 8;

/// Endpoints drawn by weight.
#[derive(Debug, Clone)]
pub(super) struct Draw {
    /// At least one.
    shares: Box<[Share]>,
    /// As many; empty when all weights are equal, and then the slot alone decides.
    slots: Box<[Slot]>,
    /// Sum of the weights.
    total: u64,
    rng: fastrand::Rng,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    /// Out of `total`: below it the slot's own endpoint is drawn, else its alias.
    keep: u64,
    alias: u32,
}

impl Draw {
    pub(super) fn new(weights: &[u32]) -> Self {
        let shares: Box<[Share]> = shares(weights).collect();
        let total = shares.iter().map(|share| u64::from(share.weight)).sum();
        let equal = shares.windows(2).all(|pair| pair[0].weight == pair[1].weight);
        let slots = if equal { Box::default() } else { alias_table(&shares, total) };
        Self { shares, slots, total, rng: fastrand::Rng::with_seed(0) }
    }

    /// Begins the sequence of random numbers that `seed` names.
    pub(super) fn begin(&mut self, seed: u64) {
        self.rng.seed(seed);
    }

    /// A usable endpoint, each as likely as its weight among those usable.
    #[inline]
    pub(super) fn pick(&mut self, usable: impl Fn(usize) -> bool) -> Option<usize> {
        self.draw(usable).map(|share| share.index as usize)
    }

    /// Two distinct usable endpoints are drawn, and the one with fewer requests under way for its weight is picked; of
    /// two alike the first drawn, so an idle cluster is shared by weight. When only one is usable, that one.
    #[inline]
    pub(super) fn pick_better_of_two(
        &mut self,
        usable: impl Fn(usize) -> bool,
        load: impl Fn(usize) -> u32,
    ) -> Option<usize> {
        let first = self.draw(&usable)?;
        let first_index = first.index as usize;
        let Some(second) = self.draw(|index| index != first_index && usable(index)) else {
            return Some(first_index);
        };
        let second_index = second.index as usize;
        // load / weight compared without division; below 2^64.
        let first_load = u64::from(load(first_index)) * u64::from(second.weight);
        let second_load = u64::from(load(second_index)) * u64::from(first.weight);
        Some(if first_load <= second_load { first_index } else { second_index })
    }

    /// Draws until one is usable, and after [`DRAWS_MAX`] draws sums up those that are. Both ways have the same
    /// distribution, so together they have it too.
    #[inline]
    fn draw(&mut self, usable: impl Fn(usize) -> bool) -> Option<Share> {
        for _ in 0..DRAWS_MAX {
            let share = self.draw_any();
            if usable(share.index as usize) {
                return Some(share);
            }
        }
        self.draw_by_sum(usable)
    }

    #[inline]
    fn draw_any(&mut self) -> Share {
        let at = self.rng.usize(..self.shares.len());
        let Some(slot) = self.slots.get(at) else {
            return self.shares[at];
        };
        let kept = self.rng.u64(..self.total) < slot.keep;
        self.shares[if kept { at } else { slot.alias as usize }]
    }

    #[cold]
    fn draw_by_sum(&mut self, usable: impl Fn(usize) -> bool) -> Option<Share> {
        let usable = || self.shares.iter().filter(|share| usable(share.index as usize));
        let total: u64 = usable().map(|share| u64::from(share.weight)).sum();
        if total == 0 {
            return None;
        }
        let mut left = self.rng.u64(..total);
        for share in usable() {
            let weight = u64::from(share.weight);
            match left.cmp(&weight) {
                Ordering::Less => return Some(*share),
                Ordering::Equal | Ordering::Greater => left -= weight,
            }
        }
        None
    }
}

/// Vose's alias table. With each weight times the number of slots, an average endpoint has exactly `total`: who has
/// less gives the rest of its slot to one who has more.
fn alias_table(shares: &[Share], total: u64) -> Box<[Slot]> {
    // Below 2^32 endpoints of weights below 2^32: no overflow.
    let mut mass: Vec<u64> =
        shares.iter().map(|share| u64::from(share.weight) * shares.len() as u64).collect();
    let mut slots: Box<[Slot]> = (0..shares.len()).map(|at| Slot { keep: total, alias: at as u32 }).collect();
    let (mut poor, mut rich): (Vec<usize>, Vec<usize>) = (0..shares.len()).partition(|&at| mass[at] < total);
    while let (Some(from), Some(&to)) = (poor.pop(), rich.last()) {
        slots[from] = Slot { keep: mass[from], alias: to as u32 };
        mass[to] -= total - mass[from];
        if mass[to] < total {
            rich.pop();
            poor.push(to);
        }
    }
    slots
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alias_table_is_exact() {
        for weights in [vec![5, 1, 1], vec![1, 2, 3, 4, 5, 6, 7], vec![65_535, 1, 9, 9], (1..=1000).collect()]
        {
            let shares: Vec<Share> = shares(&weights).collect();
            let total: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
            let mut mass = vec![0; weights.len()];
            for (at, slot) in alias_table(&shares, total).iter().enumerate() {
                mass[at] += slot.keep;
                mass[slot.alias as usize] += total - slot.keep;
            }
            let exact: Vec<u64> =
                weights.iter().map(|&weight| u64::from(weight) * weights.len() as u64).collect();
            assert_eq!(mass, exact);
        }
    }
}
