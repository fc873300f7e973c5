//! Spread, disruption, and where keys go that always went there.

use super::*;

/// Where each of so many keys goes.
fn placed(balancer: &mut Balancer, keys: u32, usable: impl Fn(usize) -> bool) -> Vec<usize> {
    (0..keys).map(|key| balancer.pick(stable_hash(&key.to_le_bytes()), &usable, |_| 0).unwrap()).collect()
}

const KEYS: u32 = 100_000;

#[test]
fn hash_spreads_by_weight() {
    for weights in [vec![1; 3], vec![1; 10], vec![5, 1, 1], vec![1, 2, 3, 4], vec![1; 100]] {
        let mut balancer = balancer(Balance::Hash, &weights);
        // Every slot once: the table itself.
        let mut slots = vec![0; weights.len()];
        (0..65_537).for_each(|slot| slots[balancer.pick(slot, |_| true, |_| 0).unwrap()] += 1);
        assert_near(&slots, &weights, 0.5);
        let percent = if weights.len() < 100 { 3.0 } else { 12.0 };
        assert_near(&counts(&mut balancer, weights.len(), KEYS, |_| true), &weights, percent);
    }
}

#[test]
fn hash_gives_everyone_something_among_ten_thousand() {
    let mut balancer = balancer(Balance::Hash, &vec![1; 10_000]);
    let mut slots = vec![0; 10_000];
    (0..65_537).for_each(|slot| slots[balancer.pick(slot, |_| true, |_| 0).unwrap()] += 1);
    assert!(slots.iter().all(|slots| (6..=7).contains(slots)));
}

#[test]
fn hash_moves_few_keys_when_an_endpoint_leaves() {
    for endpoints in [3, 10, 100] {
        let ids = ids(endpoints);
        let all = placed(&mut Balancer::new(Balance::Hash, &vec![1; endpoints], &ids, 0), KEYS, |_| true);
        let mut less = Balancer::new(Balance::Hash, &vec![1; endpoints - 1], &ids[1..], 0);
        let without_first: Vec<usize> = placed(&mut less, KEYS, |_| true).iter().map(|i| i + 1).collect();
        let stayed_on = all.iter().zip(&without_first).filter(|(before, _)| **before != 0);
        let moved = stayed_on.filter(|(before, after)| before != after).count();
        assert!(
            moved * 100 < KEYS as usize * 4,
            "{moved} of {KEYS} keys moved between the other {endpoints}"
        );
    }
}

#[test]
fn hash_moves_few_keys_when_a_weight_changes() {
    let before = placed(&mut balancer(Balance::Hash, &[10, 10, 10, 10]), KEYS, |_| true);
    let after = placed(&mut balancer(Balance::Hash, &[10, 10, 11, 10]), KEYS, |_| true);
    let moved = before.iter().zip(&after).filter(|(before, after)| before != after).count();
    // The heavier one gains 11/41 - 10/40 = 1.8 %.
    assert!(moved * 100 < KEYS as usize * 8, "{moved} of {KEYS}");
}

#[test]
fn hash_goes_by_identity_not_by_position() {
    let mut ids = ids(10);
    let mut weights: Vec<u32> = (1..=10).collect();
    let forward = placed(&mut Balancer::new(Balance::Hash, &weights, &ids, 1), KEYS, |_| true);
    ids.reverse();
    weights.reverse();
    let backward = placed(&mut Balancer::new(Balance::Hash, &weights, &ids, 2), KEYS, |_| true);
    assert!(forward.iter().zip(&backward).all(|(forward, backward)| *forward == 9 - backward));
}

#[test]
fn hash_places_keys_as_it_always_did() {
    // A change here moves every key of every operator.
    let placed = placed(&mut balancer(Balance::Hash, &[3, 1, 2, 1, 1]), 32, |_| true);
    let placed: String = placed.iter().map(|i| char::from(b'a' + *i as u8)).collect();
    assert_eq!(placed, "accabaabcddaabaacdccacecabceaaba");
}

#[test]
fn hash_moves_only_the_keys_of_the_unusable_and_spreads_them() {
    let weights = [4, 2, 1, 1];
    let mut balancer = balancer(Balance::Hash, &weights);
    let all = placed(&mut balancer, KEYS, |_| true);
    let without = placed(&mut balancer, KEYS, |i| i != 0);
    assert!(all.iter().zip(&without).all(|(all, without)| *all == 0 || all == without));
    assert_eq!(without, placed(&mut balancer, KEYS, |i| i != 0), "and always the same way");
    let mut moved = [0; 4];
    all.iter().zip(&without).filter(|(all, _)| **all == 0).for_each(|(_, without)| moved[*without] += 1);
    assert_near(&moved, &[0, 2, 1, 1], 5.0);
}

#[test]
fn hash_finds_the_only_usable_one() {
    let mut balancer = balancer(Balance::Hash, &[1; 1000]);
    for key in 0..50 {
        assert_eq!(balancer.pick(stable_hash(&[key]), |i| i == 777, |_| 0), Some(777));
    }
}

#[test]
fn hash_finds_an_endpoint_too_light_for_a_slot() {
    let mut weights = vec![u32::MAX; 10];
    weights.push(1);
    let mut balancer = balancer(Balance::Hash, &weights);
    assert!((0..65_537).all(|slot| balancer.pick(slot, |_| true, |_| 0) != Some(10)));
    assert_eq!(balancer.pick(1, |i| i == 10, |_| 0), Some(10));
}

#[test]
fn endpoints_of_one_identity_share_its_keys() {
    let mut balancer = Balancer::new(Balance::Hash, &[1, 1, 1], &[7, 7, 7], 0);
    assert_near(&counts(&mut balancer, 3, KEYS, |_| true), &[1, 1, 1], 3.0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Everyone with some weight to speak of has slots, and about as many as are due.
    #[test]
    fn hash_slots_follow_weights(weights in prop::collection::vec(0..100u32, 2..20)) {
        let total: u32 = weights.iter().sum();
        prop_assume!(total > 0);
        let mut balancer = balancer(Balance::Hash, &weights);
        let mut slots = vec![0u32; weights.len()];
        (0..65_537).for_each(|slot| slots[balancer.pick(slot, |_| true, |_| 0).unwrap()] += 1);
        for (&slots, &weight) in slots.iter().zip(&weights) {
            let due = 65_537.0 * f64::from(weight) / f64::from(total);
            prop_assert!((f64::from(slots) - due).abs() <= 2.0, "{slots} instead of {due}");
        }
    }

    /// The same key goes to the same endpoint while health is the same, whatever came in between.
    #[test]
    fn hash_remembers_nothing(cluster in cluster(), hash: u64, others in prop::collection::vec(any::<u64>(), 0..20)) {
        let weights: Vec<u32> = cluster.iter().map(|&(weight, _)| weight).collect();
        let mut balancer = balancer(Balance::Hash, &weights);
        let first = balancer.pick(hash, |i| cluster[i].1, |_| 0);
        for other in others {
            balancer.pick(other, |_| true, |_| 0);
        }
        prop_assert_eq!(balancer.pick(hash, |i| cluster[i].1, |_| 0), first);
    }
}
