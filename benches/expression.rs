//! What an expression costs each time that it is asked, and what a route costs that is chosen among 1,000 with one each: the last of them,
//! and one that no expression takes.

use std::{borrow::Cow, hint::black_box};

use criterion::{Criterion, criterion_group, criterion_main};
use ringgate::{
    expression::{Expression, Failed, Kind, Number, Scene, Scope, Text, TextMap},
    route::{Captures, Params, PathSpec, RequestView, RouteSpec, Router},
};
use serde_json::{Map, Value, json};

/// A request with ten fields, and a token's claims.
struct Asked {
    claims: Map<String, Value>,
    version: &'static str,
}

impl Scene for Asked {
    fn text(&self, text: Text) -> Cow<'_, [u8]> {
        Cow::Borrowed(match text {
            Text::Method => b"GET",
            Text::Host => b"shop.example",
            Text::Path => b"/orders/4711",
            Text::ClientIp => b"10.1.2.3",
            _ => b"",
        })
    }

    fn number(&self, _: Number) -> i64 {
        0
    }

    fn values(&self, map: TextMap, name: &str, each: &mut dyn FnMut(&[u8])) {
        if map == TextMap::Headers && name == "x-version" {
            each(self.version.as_bytes());
        }
    }

    fn names(&self, _: TextMap, each: &mut dyn FnMut(&[u8])) {
        for name in ["accept", "user-agent", "host", "x-version", "cookie", "a", "b", "c", "d", "e"] {
            each(name.as_bytes());
        }
    }

    fn claims(&self) -> Option<&Map<String, Value>> {
        Some(&self.claims)
    }

    fn unix_us(&self) -> u64 {
        1_767_225_600_000_000
    }
}

impl RequestView for Asked {
    fn method(&self) -> &[u8] {
        b"GET"
    }

    fn host(&self) -> &[u8] {
        b"shop.example"
    }

    fn path(&self) -> &[u8] {
        b"/orders/4711"
    }

    fn query(&self) -> Option<&[u8]> {
        None
    }

    fn header(&self, _: &str, _: impl FnMut(&[u8]) -> bool) -> bool {
        false
    }

    fn holds(&self, expression: &Expression, _: Params<'_>) -> Result<bool, Failed> {
        expression.holds(self)
    }
}

fn asked(version: &'static str) -> Asked {
    let claims = json!({"sub": "anna", "roles": ["admin", "ops", "dev"], "org": {"id": "a1"}, "level": 7});
    let Value::Object(claims) = claims else { unreachable!("it is an object") };
    Asked { claims, version }
}

fn evaluations(c: &mut Criterion) {
    let mut group = c.benchmark_group("expression");
    let request = asked("v1");
    for (name, source) in [
        ("method", "request.method == 'GET'"),
        ("field", "request.headers['x-version'] == 'v1'"),
        ("missing", "request.headers['x-nothing'] == 'v1'"),
        ("regex", "request.path.matches('^/orders/[0-9]+$')"),
        ("network", "cidr('10.0.0.0/8').containsIP(request.client.ip)"),
        ("claims", "'admin' in claims.roles && claims.org.id == 'a1'"),
        ("loop", "request.headers.exists(name, name.startsWith('x-v'))"),
        (
            "mixed",
            "request.method in ['GET', 'HEAD'] && request.path.startsWith('/orders/') && !has(auth.subject)",
        ),
    ] {
        let expression = match Expression::compile(source, Kind::Bool, Scope::Identity) {
            Ok(expression) => expression,
            Err(fault) => panic!("{source}: {fault:?}"),
        };
        group.bench_function(name, |b| b.iter(|| black_box(&expression).holds(black_box(&request))));
    }
    group.bench_function("compile", |b| {
        b.iter(|| {
            Expression::compile(black_box("request.headers['x-version'] == 'v1'"), Kind::Bool, Scope::Request)
        });
    });
}

fn routes(c: &mut Criterion) {
    let spec = |n: usize| RouteSpec {
        path: PathSpec::Pattern("/orders/{id}".into()),
        when: Some(format!("request.headers['x-version'] == 'v{n}'")),
        ..RouteSpec::default()
    };
    let specs: Vec<RouteSpec> = (0..1000).map(spec).collect();
    let router = match Router::compile(&specs) {
        Ok(router) => router,
        Err(errors) => panic!("{errors:?}"),
    };
    let mut group = c.benchmark_group("when-1000");
    for (name, version) in [("first", "v0"), ("last", "v999"), ("none", "x")] {
        let (request, mut captures) = (asked(version), Captures::default());
        group.bench_function(name, |b| b.iter(|| router.find(black_box(&request), &mut captures)));
    }
}

criterion_group!(benches, evaluations, routes);
criterion_main!(benches);
