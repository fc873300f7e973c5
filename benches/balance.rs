//! Picking an endpoint: every kind at 3, 10 and 1000 endpoints, with equal and with mixed weights, all usable and with
//! a third unusable; the split of a route; and building a balancer.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use ringgate::config::types::Balance;
use ringgate::upstream::balance::{Balancer, Split, stable_hash};
use ringgate::upstream::health::{EjectPolicy, Health};
use std::hint::black_box;

const KINDS: [(&str, Balance); 5] = [
    ("round_robin", Balance::RoundRobin),
    ("least_requests", Balance::LeastRequests),
    ("p2c", Balance::P2c),
    ("random", Balance::Random),
    ("hash", Balance::Hash),
];
const SIZES: [usize; 3] = [3, 10, 1000];

fn ids(endpoints: usize) -> Vec<u64> {
    (0..endpoints as u64).map(|i| stable_hash(&i.to_le_bytes())).collect()
}

/// 5, 1, 3, 5, 1, 3, …
fn mixed(endpoints: usize) -> Vec<u32> {
    [5, 1, 3].into_iter().cycle().take(endpoints).collect()
}

fn picks(c: &mut Criterion) {
    let policy = EjectPolicy { failures: 1, backoff_ms: 1_000, max_backoff_ms: 1_000 };
    for (name, kind) in KINDS {
        let mut group = c.benchmark_group(name);
        for endpoints in SIZES {
            let loads: Vec<u32> = (0..endpoints as u32).map(|i| i * 7 % 5 + 1).collect();
            for (weights_name, weights) in [("equal", vec![1; endpoints]), ("mixed", mixed(endpoints))] {
                for (health_name, dead) in [("all up", 0), ("third out", endpoints / 3)] {
                    let mut health = Health::new(&weights, policy);
                    (0..dead).for_each(|i| assert!(health.on_failure(i * 3, 0).is_some()));
                    let mut balancer = Balancer::new(kind, &weights, &ids(endpoints), 0);
                    let mut key = 0u64;
                    let id = BenchmarkId::new(format!("{weights_name}, {health_name}"), endpoints);
                    group.bench_function(id, |b| {
                        b.iter(|| {
                            key = key.wrapping_add(0x9e37_79b9_7f4a_7c15);
                            balancer.pick(black_box(key), |i| health.is_usable(i, 1), |i| loads[i])
                        });
                    });
                }
            }
        }
        group.finish();
    }
}

fn split(c: &mut Criterion) {
    let mut split = Split::new(&[95, 5], 0);
    c.bench_function("split/95 to 5", |b| b.iter(|| split.pick()));
}

fn build(c: &mut Criterion) {
    let mut group = c.benchmark_group("build");
    for (name, kind) in
        [("round_robin", Balance::RoundRobin), ("random", Balance::Random), ("hash", Balance::Hash)]
    {
        for endpoints in SIZES {
            let (weights, ids) = (mixed(endpoints), ids(endpoints));
            group.bench_function(BenchmarkId::new(name, endpoints), |b| {
                b.iter(|| Balancer::new(kind, black_box(&weights), &ids, 0));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, picks, split, build);
criterion_main!(benches);
