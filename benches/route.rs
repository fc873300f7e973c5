//! What a lookup costs among 1, 1,000 and 100,000 routes, for the shapes such configurations have: exact paths on one
//! host, a host each, and a captured segment below a service each. `last` asks for the last route again and again,
//! `spread` for all of them in random order, so that what it needs is not in a near cache; `miss` for what no route
//! takes. `compile` is the whole of loading 100,000 routes, `clone` what a core pays for its copy.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use ringgate::{
    expression::{Expression, Failed},
    route::{Captures, Params, PathSpec, RequestView, RouteSpec, Router},
};

struct Request {
    host: String,
    path: String,
}

impl RequestView for Request {
    fn method(&self) -> &[u8] {
        b"GET"
    }
    fn host(&self) -> &[u8] {
        self.host.as_bytes()
    }
    fn path(&self) -> &[u8] {
        self.path.as_bytes()
    }
    fn query(&self) -> Option<&[u8]> {
        None
    }
    fn header(&self, _: &str, _: impl FnMut(&[u8]) -> bool) -> bool {
        false
    }
    fn holds(&self, _: &Expression, _: Params<'_>) -> Result<bool, Failed> {
        Ok(false)
    }
}

const SHAPES: [&str; 3] = ["exact", "hosts", "param"];
const COUNTS: [usize; 3] = [1, 1_000, 100_000];

/// Requests asked in random order; more than the near caches hold answers for.
const SPREAD: usize = 1 << 14;

/// Route number `n` of a shape. Numbers have one width, so that every count of routes is asked equally long names.
fn spec(shape: &str, n: usize) -> RouteSpec {
    let (host, path) = match shape {
        "exact" => ("api.example.com".to_owned(), format!("/api/v1/resource-{n:06}")),
        "hosts" => (format!("tenant-{n:06}.example.com"), "/api/*".to_owned()),
        _ => ("api.example.com".to_owned(), format!("/svc-{n:06}/{{id}}")),
    };
    RouteSpec {
        hosts: vec![host],
        path: PathSpec::Pattern(path),
        methods: vec!["GET".into()],
        ..RouteSpec::default()
    }
}

/// A request that route number `n` takes.
fn request(shape: &str, n: usize) -> Request {
    let (host, path) = match shape {
        "exact" => ("api.example.com".to_owned(), format!("/api/v1/resource-{n:06}")),
        "hosts" => (format!("tenant-{n:06}.example.com"), "/api/users".to_owned()),
        _ => ("api.example.com".to_owned(), format!("/svc-{n:06}/12345")),
    };
    Request { host, path }
}

fn lookups(criterion: &mut Criterion) {
    let mut captures = Captures::default();
    for shape in SHAPES {
        let mut group = criterion.benchmark_group(format!("route/{shape}"));
        for count in COUNTS {
            let specs: Vec<RouteSpec> = (0..count).map(|n| spec(shape, n)).collect();
            let Ok(router) = Router::compile(&specs) else { panic!("{shape} does not compile") };
            let last = request(shape, count - 1);
            assert!(router.find(&last, &mut captures).is_some());
            group.bench_function(BenchmarkId::new("last", count), |bencher| {
                bencher.iter(|| router.find(black_box(&last), &mut captures));
            });
            let mut random = fastrand::Rng::with_seed(1);
            let spread: Vec<Request> = (0..SPREAD).map(|_| request(shape, random.usize(..count))).collect();
            let mut at = 0;
            group.bench_function(BenchmarkId::new("spread", count), |bencher| {
                bencher.iter(|| {
                    at = (at + 1) % SPREAD;
                    router.find(black_box(&spread[at]), &mut captures)
                });
            });
            let miss = request(shape, 999_999);
            assert!(router.find(&miss, &mut captures).is_none());
            group.bench_function(BenchmarkId::new("miss", count), |bencher| {
                bencher.iter(|| router.find(black_box(&miss), &mut captures));
            });
        }
        group.finish();
    }
}

fn loading(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("route/loading");
    group.sample_size(10);
    for shape in SHAPES {
        let specs: Vec<RouteSpec> = (0..100_000).map(|n| spec(shape, n)).collect();
        group.bench_function(BenchmarkId::new("compile", shape), |bencher| {
            bencher.iter(|| Router::compile(black_box(&specs)).is_ok());
        });
        let Ok(router) = Router::compile(&specs) else { panic!("{shape} does not compile") };
        group.bench_function(BenchmarkId::new("clone", shape), |bencher| {
            bencher.iter(|| black_box(&router).clone())
        });
    }
    group.finish();
}

criterion_group!(benches, lookups, loading);
criterion_main!(benches);
