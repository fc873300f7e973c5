//! The one hash table of the router: a scope and a name to a `u32`, eight bytes a slot. It stores neither keys nor
//! values, only where they are; who looks up compares the key in its own array. It is built once and never changed.

use std::hash::{BuildHasher, Hasher};

use foldhash::fast::FixedState;

/// Hash → index, open addressing with linear probing, at most half full.
#[derive(Debug, Clone, Default)]
pub(super) struct Index {
    slots: Box<[Slot]>,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    /// The hash's upper half; what remains after it is compared with the key itself.
    tag: u32,
    /// [`EMPTY`] or the value.
    value: u32,
}

const EMPTY: u32 = u32::MAX;

/// Slots that a lookup looks at. Reached only by an unlucky set of keys, and then the table grows instead; a request
/// cannot change it, since only the configuration puts keys in.
const PROBES_MAX: usize = 24;

/// How often a table is doubled to meet [`PROBES_MAX`]. Keys of equal hash would not part however large it is.
const DOUBLINGS_MAX: usize = 3;

impl Index {
    /// A table of these (hash, value) pairs. Values are below `u32::MAX`, keys distinct.
    pub(super) fn new(pairs: &[(u64, u32)]) -> Self {
        if pairs.is_empty() {
            return Self::default();
        }
        let mut len = (pairs.len() * 2).next_power_of_two();
        for _ in 0..DOUBLINGS_MAX {
            let (index, probes) = Self::filled(pairs, len);
            if probes <= PROBES_MAX {
                return index;
            }
            len *= 2;
        }
        Self::filled(pairs, len).0
    }

    fn filled(pairs: &[(u64, u32)], len: usize) -> (Self, usize) {
        let mut slots = vec![Slot { tag: 0, value: EMPTY }; len].into_boxed_slice();
        let mut probes_most = 0;
        for &(hash, value) in pairs {
            let mut at = hash as usize & (len - 1);
            let mut probes = 1;
            while slots[at].value != EMPTY {
                at = (at + 1) & (len - 1);
                probes += 1;
            }
            slots[at] = Slot { tag: tag(hash), value };
            probes_most = probes_most.max(probes);
        }
        (Self { slots }, probes_most)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The value whose key `is_it` finds to be the one looked for.
    #[inline]
    pub(super) fn find(&self, hash: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let mask = self.slots.len().wrapping_sub(1);
        let mut at = hash as usize & mask;
        loop {
            let slot = self.slots.get(at).filter(|slot| slot.value != EMPTY)?;
            if slot.tag == tag(hash) && is_it(slot.value) {
                return Some(slot.value);
            }
            at = (at + 1) & mask;
        }
    }
}

fn tag(hash: u64) -> u32 {
    (hash >> 32) as u32
}

/// The hash of a name alone. The seed is fixed: keys come from the configuration, and a request that looks up names of
/// its choice cannot make the table any worse.
#[inline]
pub(super) fn hash(name: &[u8]) -> u64 {
    let mut hasher = FixedState::with_seed(0x72_69_6e_67).build_hasher();
    hasher.write(name);
    hasher.finish()
}

/// The hash of a name in a scope (a host's number, a trie node's), from the name's own: one hash of a path serves
/// all host tiers.
#[inline]
pub(super) fn in_scope(scope: u32, hash: u64) -> u64 {
    let product =
        u128::from(hash ^ u64::from(scope).wrapping_mul(0x9e37_79b9_7f4a_7c15)) * 0xa076_1d64_78bd_642f_u128;
    (product as u64) ^ ((product >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_found_and_no_other() {
        let names: Vec<String> = (0..5000).map(|n| format!("/path/{n}")).collect();
        let pairs: Vec<_> =
            names.iter().zip(0..).map(|(name, n)| (in_scope(n % 7, hash(name.as_bytes())), n)).collect();
        let index = Index::new(&pairs);
        for (n, &(hash, _)) in (0..).zip(&pairs) {
            assert_eq!(index.find(hash, |value| value == n), Some(n));
            assert_eq!(index.find(hash, |_| false), None);
        }
        assert_eq!(index.find(in_scope(8, hash(b"/path/0")), |_| false), None);
    }

    #[test]
    fn an_empty_table_has_nothing() {
        assert!(Index::new(&[]).is_empty());
        assert_eq!(Index::new(&[]).find(0, |_| true), None);
    }

    #[test]
    fn keys_of_equal_hash_live_side_by_side() {
        let pairs: Vec<_> = (0..100).map(|n| (42, n)).collect();
        let index = Index::new(&pairs);
        for n in 0..100 {
            assert_eq!(index.find(42, |value| value == n), Some(n));
        }
    }
}
