//! Consistent hashing by Maglev (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI
//! 2016, §3.4). It owns the table from a key's hash to an endpoint; it does not know what the key was.
//!
//! Every endpoint has a preference order of the table's slots, made from its id alone, and in turns claims the first
//! slot of it that is free. Turns come as often as the weight says, at moments that follow from id and weight alone, so
//! the same endpoints give the same table on every core, on every replica and in any order of the list, and when one
//! comes or goes few keys move between the others.

use super::{Share, shares, stable_hash};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Slots of every table; a prime, so that each step of a preference order visits all slots. The same for all clusters:
/// were it fitted to the number of endpoints, a new endpoint could change it and with it every key's place. It is the
/// paper's small table: shares are within about 1 % of the weights for up to 655 endpoints (100 slots each) and coarser
/// beyond. 128 KiB.
const SLOTS: usize = 65_537;

/// Endpoints that a table can name; the ones with the highest ids beyond are never hashed to.
const ENDPOINTS_MAX: usize = FREE as usize;

/// A slot that is not yet claimed.
const FREE: u16 = u16::MAX;

/// The time between two turns of an endpoint of weight 1; one of weight w has w turns in it. A table takes at most
/// `SLOTS` turns: no overflow.
const TURN: u64 = 1 << 44;
const _: () = assert!(TURN < u64::MAX / (2 * SLOTS as u64));

/// Times that a hash is hashed again before it is made sure that any endpoint is usable at all. With half of the weight
/// usable, one pick in 65,536 comes to that.
const PROBES_MAX: usize = 16;

/// The endpoints of a cluster by hash. Nothing in it changes: cores share it.
#[derive(Debug, Clone)]
pub(super) struct Maglev {
    /// Sorted by id.
    members: Arc<[u32]>,
    /// By slot, an index of `members`.
    slots: Arc<[u16]>,
}

impl Maglev {
    /// Builds the table: some milliseconds, and about 800,000 steps through 128 KiB.
    pub(super) fn new(weights: &[u32], ids: &[u64]) -> Self {
        let mut by_id: Vec<(u64, Share)> =
            shares(weights).map(|share| (ids[share.index as usize], share)).collect();
        by_id.sort_unstable_by_key(|&(id, share)| (id, share.index));
        by_id.truncate(ENDPOINTS_MAX);
        let claims: Vec<Claimant> =
            by_id.iter().map(|&(id, share)| Claimant::new(id, share.weight)).collect();
        Self {
            members: by_id.iter().map(|(_, share)| share.index).collect(),
            slots: claim_all(claims).into(),
        }
    }

    /// The endpoint that `hash` leads to. When it is unusable, the hash is hashed again: its keys spread over the others
    /// by weight, always the same way, and no other key moves.
    #[inline]
    pub(super) fn pick(&self, hash: u64, usable: impl Fn(usize) -> bool) -> Option<usize> {
        let hashed = self.member(slot_of(hash));
        if usable(hashed) { Some(hashed) } else { self.probe(hash, usable) }
    }

    /// Hashes `hash` again and again until an endpoint is usable. (The next slot instead would be the wrong one to take:
    /// preference orders are arithmetic, so who follows whom in the table is far from random.) When that leads nowhere
    /// few of many are usable, and the table is gone through.
    #[cold]
    fn probe(&self, hash: u64, usable: impl Fn(usize) -> bool) -> Option<usize> {
        let mut hash = hash;
        for _ in 0..PROBES_MAX {
            hash = stable_hash(&hash.to_le_bytes());
            let member = self.member(slot_of(hash));
            if usable(member) {
                return Some(member);
            }
        }
        let last_resort =
            self.members.iter().map(|&member| member as usize).find(|&member| usable(member))?;
        let slot = slot_of(hash);
        let mut next = (slot + 1..SLOTS).chain(0..slot).map(|slot| self.member(slot));
        // A light endpoint among very heavy ones may have no slot at all.
        Some(next.find(|&member| usable(member)).unwrap_or(last_resort))
    }

    #[inline]
    fn member(&self, slot: usize) -> usize {
        self.members[usize::from(self.slots[slot])] as usize
    }
}

#[inline]
fn slot_of(hash: u64) -> usize {
    (hash % SLOTS as u64) as usize
}

/// An endpoint while the table is built.
struct Claimant {
    /// The next slot of its preference order.
    slot: usize,
    /// From one slot of the order to the next.
    step: usize,
    /// From one turn to the next.
    turn: u64,
    /// When its first turn is, within one `turn`: spread by id, so that the rounding favours no one.
    first: u64,
}

impl Claimant {
    fn new(id: u64, weight: u32) -> Self {
        let hash = |seed| xxh3_64_with_seed(&id.to_le_bytes(), seed);
        let turn = TURN / u64::from(weight);
        Self {
            slot: slot_of(hash(1)),
            step: (hash(2) % (SLOTS as u64 - 1)) as usize + 1,
            turn,
            first: hash(3) % turn,
        }
    }

    /// The first slot of its order that no one has; there must be one.
    fn next_free(&mut self, slots: &[u16]) -> usize {
        while slots[self.slot] != FREE {
            self.slot += self.step;
            if self.slot >= SLOTS {
                self.slot -= SLOTS;
            }
        }
        self.slot
    }
}

/// Gives every slot to the claimant whose turn it is, in order of time.
fn claim_all(mut claimants: Vec<Claimant>) -> Vec<u16> {
    let mut slots = vec![FREE; SLOTS];
    let mut turns: BinaryHeap<Reverse<(u64, u16)>> =
        (0..).zip(&claimants).map(|(at, claimant)| Reverse((claimant.first, at))).collect();
    for _ in 0..SLOTS {
        let Some(mut earliest) = turns.peek_mut() else { break };
        let Reverse((time, at)) = &mut *earliest;
        let claimant = &mut claimants[usize::from(*at)];
        let slot = claimant.next_free(&slots);
        slots[slot] = *at;
        *time += claimant.turn;
    }
    slots
}
