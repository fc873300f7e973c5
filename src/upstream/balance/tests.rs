//! Known sequences, exact proportions, and what holds for every kind. The tests of `hash` alone are in `hash`.

mod hash;

use super::*;
use proptest::prelude::*;

const KINDS: [Balance; 5] =
    [Balance::RoundRobin, Balance::LeastRequests, Balance::P2c, Balance::Random, Balance::Hash];

/// Ids of the endpoints 10.0.0.1:9000, 10.0.0.2:9000, …
fn ids(endpoints: usize) -> Vec<u64> {
    (0..endpoints).map(|i| stable_hash(format!("10.0.{}.{}:9000", i / 256, i % 256).as_bytes())).collect()
}

fn balancer(kind: Balance, weights: &[u32]) -> Balancer {
    Balancer::new(kind, weights, &ids(weights.len()), 0)
}

/// How often each endpoint is picked in so many picks of different keys.
fn counts(balancer: &mut Balancer, endpoints: usize, picks: u32, usable: impl Fn(usize) -> bool) -> Vec<u32> {
    let mut counts = vec![0; endpoints];
    for key in 0..picks {
        let picked = balancer.pick(stable_hash(&key.to_le_bytes()), &usable, |_| 0);
        counts[picked.expect("one is usable")] += 1;
    }
    counts
}

/// So many picks as letters: endpoint 0 is a.
fn letters(balancer: &mut Balancer, picks: usize, usable: impl Fn(usize) -> bool) -> String {
    (0..picks).map(|_| char::from(b'a' + balancer.pick(0, &usable, |_| 0).unwrap() as u8)).collect()
}

fn assert_near(counts: &[u32], weights: &[u32], percent: f64) {
    let picks: f64 = counts.iter().map(|&count| f64::from(count)).sum();
    let total: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
    for (i, (&count, &weight)) in counts.iter().zip(weights).enumerate() {
        let share = picks * f64::from(weight) / total;
        let off = (f64::from(count) - share).abs();
        assert!(off <= share * percent / 100.0, "endpoint {i}: {count} instead of {share}");
    }
}

#[test]
fn stable_hash_is_the_published_xxh3() {
    assert_eq!(stable_hash(b""), 0x2d06_8005_38d3_94c2);
    // A change here moves every key of every operator.
    assert_eq!(stable_hash(b"10.0.0.1:9000"), 0xc560_8026_9db6_f03c);
}

#[test]
fn round_robin_gives_the_known_sequences() {
    for (weights, sequence) in [
        (&[5, 1, 1][..], "aabacaaaabacaa"),
        (&[1, 1, 1], "abcabc"),
        (&[7, 7], "abab"),
        (&[4, 2, 1], "abacabaabacaba"),
        (&[5, 0, 1, 0, 1], "aacaeaa"),
        (&[3, 2], "ababa"),
    ] {
        let mut balancer = balancer(Balance::RoundRobin, weights);
        assert_eq!(letters(&mut balancer, sequence.len(), |_| true), sequence, "{weights:?}");
    }
}

#[test]
fn round_robin_without_one_is_that_of_the_others() {
    let mut round_robin = balancer(Balance::RoundRobin, &[5, 1, 1]);
    assert_eq!(letters(&mut round_robin, 6, |i| i != 0), "bcbcbc");
    assert_eq!(letters(&mut round_robin, 7, |_| true), "aabacaa");
    let mut equal = balancer(Balance::RoundRobin, &[1, 1, 1]);
    assert_eq!(letters(&mut equal, 6, |i| i != 0), "bcbcbc");
}

#[test]
fn round_robin_begins_where_the_seed_says() {
    let prototype = balancer(Balance::RoundRobin, &[5, 1, 1]);
    assert_eq!(letters(&mut prototype.for_core(2), 7, |_| true), "bacaaaa");
    assert_eq!(letters(&mut prototype.for_core(7), 7, |_| true), "aabacaa");
    assert_eq!(letters(&mut prototype.for_core(u64::MAX), 7, |_| true), {
        let turned = u64::MAX % 7;
        let mut balancer = prototype.for_core(0);
        letters(&mut balancer, turned as usize, |_| true);
        letters(&mut balancer, 7, |_| true)
    });
}

#[test]
fn a_dead_group_that_comes_back_gets_its_share_again() {
    let weights: Vec<u32> = (0..300).map(|i| [5, 1, 3][i % 3]).collect();
    let mut balancer = balancer(Balance::RoundRobin, &weights);
    let asked = std::cell::Cell::new(0);
    let without_fives = |i: usize| {
        asked.set(asked.get() + 1);
        weights[i] != 5
    };
    counts(&mut balancer, 300, 1_000, without_fives);
    assert!(asked.get() < 1_000 * 5, "asked {} times", asked.get());
    // One of the hundred is back: found after a round at most, and then its turns come.
    let with_one = |i: usize| i == 150 || weights[i] != 5;
    let after_a_round = counts(&mut balancer, 300, 100, with_one);
    assert!(after_a_round[150] <= 5);
    let shares: Vec<u32> = (0..300).map(|i| if with_one(i) { weights[i] } else { 0 }).collect();
    let got = counts(&mut balancer, 300, shares.iter().sum(), with_one);
    for (got, share) in got.iter().zip(&shares) {
        assert!(got.abs_diff(*share) <= 1, "{got} instead of {share}");
    }
    // And when the others die, at once.
    assert_eq!(balancer.pick(0, |_| false, |_| 0), None);
    assert_eq!(balancer.pick(0, |i| i == 3, |_| 0), Some(3));
}

#[test]
fn round_robin_owes_turns_not_weight() {
    let mut balancer = balancer(Balance::RoundRobin, &[1000, 1, 1]);
    // Up to and with the first turn of b; then a dies.
    while balancer.pick(0, |_| true, |_| 0) != Some(1) {}
    assert_eq!(letters(&mut balancer, 7, |i| i != 0), "cbcbcbc");
}

#[test]
fn retries_do_not_change_the_shares_of_round_robin() {
    let mut balancer = balancer(Balance::RoundRobin, &[5, 1, 1]);
    let (mut first, mut retried) = ([0i32; 3], [0i32; 3]);
    for _ in 0..1_000 {
        for _ in 0..7 {
            first[balancer.pick(0, |_| true, |_| 0).unwrap()] += 1;
        }
        // A request that failed at a, which is then not asked again.
        retried[balancer.pick(0, |i| i != 0, |_| 0).unwrap()] += 1;
    }
    assert!((first[0] - 5_000).abs() <= 1, "{first:?}");
    assert!((first[1] + retried[1] - 1_500).abs() <= 1, "{first:?} {retried:?}");
}

/// Weights for each way that endpoints are put in groups: one group, singles, by weight, by binary digit.
fn groupings() -> [(&'static str, Vec<u32>); 4] {
    [
        ("equal", vec![3; 100]),
        ("singles", (0..32).map(|i| i % 7 + 1).collect()),
        ("by weight", (0..500).map(|i| i % 9).collect()),
        ("by digit", (0..300).map(|i| i % 150).collect()),
    ]
}

#[test]
fn round_robin_is_exact_over_each_cycle_in_every_grouping() {
    for (name, weights) in groupings() {
        let cycle: u32 = weights.iter().sum::<u32>() / if name == "equal" { 3 } else { 1 };
        let share: Vec<u32> =
            weights.iter().map(|weight| if name == "equal" { 1 } else { *weight }).collect();
        let mut balancer = balancer(Balance::RoundRobin, &weights);
        for _ in 0..3 {
            assert_eq!(counts(&mut balancer, weights.len(), cycle, |_| true), share, "{name}");
        }
    }
}

#[test]
fn round_robin_is_exact_among_the_usable_in_every_grouping() {
    for (name, weights) in groupings() {
        for dead in [1, 2, 3, 5, 9] {
            let usable = |i: usize| i % 10 >= dead;
            let share: Vec<u32> =
                weights.iter().enumerate().map(|(i, &weight)| if usable(i) { weight } else { 0 }).collect();
            let mut balancer = balancer(Balance::RoundRobin, &weights);
            let got = counts(&mut balancer, weights.len(), share.iter().sum(), usable);
            assert_eq!(got, share, "{name}, {dead} of ten dead");
        }
    }
}

#[test]
fn round_robin_strays_by_at_most_one_within_a_cycle_of_up_to_five() {
    let mut all = vec![vec![]];
    for _ in 0..5 {
        let longer = all.iter().flat_map(|weights: &Vec<u32>| {
            let least = weights.last().copied().unwrap_or(1);
            (least..=8).map(move |weight| weights.iter().copied().chain([weight]).collect())
        });
        all = longer.collect();
        for weights in &all {
            let strayed = strayed(weights);
            assert!(strayed <= 1.0, "{weights:?} strayed by {strayed}");
        }
    }
}

/// The most by which a count differs from the exact share after any number of picks in a cycle.
fn strayed(weights: &[u32]) -> f64 {
    let total: u32 = weights.iter().sum();
    let mut balancer = balancer(Balance::RoundRobin, weights);
    let mut counts = vec![0; weights.len()];
    let mut strayed: f64 = 0.0;
    for picks in 1..=total {
        counts[balancer.pick(0, |_| true, |_| 0).unwrap()] += 1;
        for (&count, &weight) in counts.iter().zip(weights) {
            let share = f64::from(picks) * f64::from(weight) / f64::from(total);
            strayed = strayed.max((f64::from(count) - share).abs());
        }
    }
    strayed
}

#[test]
fn round_robin_is_smooth_in_every_grouping() {
    for (name, weights) in groupings() {
        let strayed = strayed(&weights);
        assert!(strayed < if name == "by digit" { 8.0 } else { 2.0 }, "{name} strayed by {strayed}");
    }
}

#[test]
fn extreme_weights_do_not_overflow() {
    let mut weights = vec![u32::MAX; 40];
    weights.extend([1, 2, 3]);
    for kind in KINDS {
        let mut balancer = balancer(kind, &weights);
        for _ in 0..1_000 {
            assert!(balancer.pick(7, |i| i != 0, |_| u32::MAX).is_some());
        }
    }
}

#[test]
fn a_split_is_smooth_and_exact() {
    let mut split = Split::new(&[95, 5, 0], 0);
    for _ in 0..3 {
        let mut counts = [0; 3];
        for _ in 0..5 {
            let twenty: Vec<usize> = (0..20).map(|_| split.pick().unwrap()).collect();
            assert_eq!(twenty.iter().filter(|&&cluster| cluster == 1).count(), 1, "{twenty:?}");
            twenty.into_iter().for_each(|cluster| counts[cluster] += 1);
        }
        assert_eq!(counts, [95, 5, 0]);
    }
    assert_eq!(Split::new(&[0, 0], 3).pick(), None);
    assert_eq!(Split::new(&[], 3).pick(), None);
    assert_eq!(Split::new(&[0, 9], 3).pick(), Some(1));
    let begun: Vec<_> = (0..20).map(|seed| Split::new(&[95, 5], seed).pick().unwrap()).collect();
    assert_eq!(begun.iter().sum::<usize>(), 1, "of twenty cores one begins with the second: {begun:?}");
}

#[test]
fn least_requests_takes_the_smallest_load_for_its_weight() {
    for (weights, loads, picked) in [
        ([1, 1, 1], [3, 1, 2], 1),
        ([4, 1, 1], [3, 1, 2], 0), // 4/4 < 2/1
        ([4, 1, 1], [4, 0, 2], 1), // 1/1 < 5/4
        ([2, 0, 1], [9, 0, 4], 0), // 10/2 = 5/1, the first
        ([2, 3, 1], [u32::MAX, u32::MAX, u32::MAX], 1),
    ] {
        let mut balancer = balancer(Balance::LeastRequests, &weights);
        assert_eq!(balancer.pick(0, |_| true, |i| loads[i]), Some(picked), "{weights:?} {loads:?}");
    }
}

#[test]
fn least_requests_goes_round_among_ties() {
    let mut idle = balancer(Balance::LeastRequests, &[1, 1, 1, 1]);
    assert_eq!(letters(&mut idle, 8, |_| true), "abcdabcd");
    let mut busy = balancer(Balance::LeastRequests, &[1, 1, 1, 1]);
    let picks: Vec<_> = (0..6).map(|_| busy.pick(0, |_| true, |i| [5, 2, 9, 2][i]).unwrap()).collect();
    assert_eq!(picks, [1, 3, 1, 3, 1, 3]);
}

#[test]
fn least_requests_shares_by_weight_under_load() {
    let weights = [5, 3, 2];
    let mut balancer = balancer(Balance::LeastRequests, &weights);
    let mut loads = [0; 3];
    for _ in 0..100 {
        loads[balancer.pick(0, |_| true, |i| loads[i]).unwrap()] += 1;
    }
    assert_eq!(loads, [50, 30, 20]);
}

#[test]
fn random_draws_by_weight() {
    for weights in [vec![1, 1, 1], vec![5, 1, 1], vec![1, 2, 3, 4, 5, 6, 7], vec![100, 1, 50]] {
        let mut balancer = balancer(Balance::Random, &weights);
        assert_near(&counts(&mut balancer, weights.len(), 400_000, |_| true), &weights, 5.0);
    }
}

#[test]
fn random_draws_by_weight_among_the_usable() {
    // The heavy one dead: nearly every draw goes the long way.
    let mut balancer = balancer(Balance::Random, &[10_000, 1, 3, 2]);
    assert_near(&counts(&mut balancer, 4, 60_000, |i| i != 0), &[0, 1, 3, 2], 5.0);
}

#[test]
fn p2c_never_picks_the_busiest_of_distinct_loads() {
    let loads = [4, 9, 2, 7];
    let mut balancer = balancer(Balance::P2c, &[1, 1, 1, 1]);
    let mut counts = [0; 4];
    for _ in 0..60_000 {
        counts[balancer.pick(0, |_| true, |i| loads[i]).unwrap()] += 1;
    }
    // Of six pairs the idlest wins three, the next two, the next one.
    assert_near(&counts, &[2, 0, 3, 1], 5.0);
}

#[test]
fn p2c_weighs_loads() {
    let mut balancer = balancer(Balance::P2c, &[4, 1]);
    assert_eq!(balancer.pick(0, |_| true, |i| [7, 2][i]), Some(0), "7/4 < 2/1");
    assert_eq!(balancer.pick(0, |_| true, |i| [9, 2][i]), Some(1), "2/1 < 9/4");
    assert_eq!(balancer.pick(0, |i| i == 0, |i| [9, 0][i]), Some(0), "the only one");
}

#[test]
fn p2c_shares_an_idle_cluster_by_weight() {
    let mut balancer = balancer(Balance::P2c, &[5, 3, 2]);
    assert_near(&counts(&mut balancer, 3, 100_000, |_| true), &[5, 3, 2], 5.0);
}

#[test]
fn seeds_repeat_and_differ() {
    for kind in [Balance::Random, Balance::P2c] {
        let prototype = balancer(kind, &[1; 10]);
        let run = |seed| letters(&mut prototype.for_core(seed), 50, |_| true);
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }
}

#[test]
fn empty_and_single_clusters() {
    for kind in KINDS {
        for weights in [&[][..], &[0], &[0, 0, 0]] {
            assert_eq!(balancer(kind, weights).pick(1, |_| true, |_| 0), None);
        }
        let mut single = balancer(kind, &[0, 7, 0]);
        assert_eq!(single.pick(1, |_| true, |_| 9), Some(1));
        assert_eq!(single.pick(1, |i| i != 1, |_| 0), None);
    }
}

#[test]
fn an_endpoint_tried_is_not_tried_again() {
    for kind in KINDS {
        let mut balancer = balancer(kind, &[5, 1, 1, 3]);
        for key in 0..100 {
            let mut tried = vec![];
            while let Some(next) = balancer.pick(stable_hash(&[key]), |i| !tried.contains(&i), |_| 0) {
                tried.push(next);
            }
            tried.sort_unstable();
            assert_eq!(tried, [0, 1, 2, 3], "{kind:?}");
        }
    }
}

fn cluster() -> impl Strategy<Value = Vec<(u32, bool)>> {
    let weight = prop_oneof![Just(0), Just(1), 0..10u32, 0..200u32];
    prop_oneof![
        6 => prop::collection::vec((weight.clone(), any::<bool>()), 0..12),
        1 => prop::collection::vec((weight, any::<bool>()), 30..200),
        1 => prop::collection::vec((Just(2), any::<bool>()), 0..100),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Any kind, any weights, any health: only a usable endpoint with a weight is picked, and one is whenever there is
    /// one; also when health changes and loads are anything.
    #[test]
    fn only_usable_ones_and_always_one(
        mut cluster in cluster(),
        seed: u64,
        picks in prop::collection::vec((any::<u64>(), any::<prop::sample::Index>(), any::<u32>()), 1..60),
    ) {
        let weights: Vec<u32> = cluster.iter().map(|&(weight, _)| weight).collect();
        for kind in KINDS {
            let mut balancer = Balancer::new(kind, &weights, &ids(weights.len()), seed);
            for (hash, changes, load) in &picks {
                let any_usable = cluster.iter().any(|&(weight, usable)| weight > 0 && usable);
                let picked = balancer.pick(*hash, |i| cluster[i].1, |i| load.rotate_left(i as u32));
                prop_assert_eq!(picked.is_some(), any_usable);
                prop_assert!(picked.is_none_or(|i| cluster[i].1 && weights[i] > 0));
                if !cluster.is_empty() {
                    let at = changes.index(cluster.len());
                    cluster[at].1 ^= true;
                }
            }
        }
    }

    /// Round robin from its beginning: over each cycle of the usable ones, everyone gets exactly its weight.
    #[test]
    fn round_robin_is_exact_whoever_is_usable(cluster in cluster()) {
        let weights: Vec<u32> = cluster.iter().map(|&(weight, _)| weight).collect();
        let shares: Vec<u32> = cluster.iter().map(|&(weight, usable)| if usable { weight } else { 0 }).collect();
        let mut balancer = balancer(Balance::RoundRobin, &weights);
        for _ in 0..2 {
            prop_assert_eq!(&counts(&mut balancer, weights.len(), shares.iter().sum(), |i| cluster[i].1), &shares);
        }
    }

    /// From any point on, after any changes of health and any retries: over a cycle of the usable ones everyone gets
    /// its weight, give or take one.
    #[test]
    fn round_robin_is_within_one_from_anywhere(
        cluster in prop::collection::vec((0..10u32, any::<bool>()), 1..8),
        before in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let weights: Vec<u32> = cluster.iter().map(|&(weight, _)| weight).collect();
        let shares: Vec<u32> = cluster.iter().map(|&(weight, usable)| if usable { weight } else { 0 }).collect();
        let mut balancer = balancer(Balance::RoundRobin, &weights);
        for usable in before {
            balancer.pick(0, |i| usable >> i & 1 == 1, |_| 0);
        }
        let got = counts(&mut balancer, weights.len(), shares.iter().sum(), |i| cluster[i].1);
        for (got, share) in got.iter().zip(&shares) {
            prop_assert!(got.abs_diff(*share) <= 1, "{got} instead of {share}");
        }
    }

    /// Up to 32 endpoints of any weights stray by less than two within a cycle.
    #[test]
    fn round_robin_is_smooth(weights in prop::collection::vec(1..60u32, 2..=32)) {
        prop_assert!(strayed(&weights) < 2.0);
    }
}
