//! The written precedence, one rule at a time, and what happens when the best candidate's predicates fail.

use super::*;

/// Asserts that of these specs the earlier always wins against the later for this request, whichever stands first in
/// the file.
fn ranked(request: &Request, specs: &[RouteSpec]) {
    for (at, better) in specs.iter().enumerate() {
        for worse in &specs[at + 1..] {
            for (first, second, expected) in [(better, worse, 0), (worse, better, 1)] {
                let router = router(&[first.clone(), second.clone()]);
                assert_eq!(found(&router, request), Some(expected), "{better:?} before {worse:?}");
            }
        }
    }
    // And as a whole: taking the best away leaves the next.
    let mut reversed: Vec<RouteSpec> = specs.iter().rev().cloned().collect();
    while let Some(last) = reversed.len().checked_sub(1) {
        assert_eq!(found(&router(&reversed), request), Some(last as RouteId));
        reversed.pop();
    }
}

#[test]
fn hosts_go_from_exact_to_none() {
    ranked(
        &get("a.b.example.com", "/a/b"),
        &[
            on("").host("a.b.example.com"),
            on("/a/b").host("*.b.example.com").method("GET"),
            on("/a/b").host("*.example.com").header("x", ABSENT),
            on("/a/b").host("*.com"),
            on("/a/b").method("GET"),
        ],
    );
}

#[test]
fn paths_go_from_exact_to_none() {
    ranked(
        &get("", "/a/b/7"),
        &[
            on("/a/b/7"),
            on("/a/b/{x:int}"),
            on("/a/b/{x}"),
            on("/a/b/{*x}"),
            on("/a/b/*"),
            on("/a/{x:alpha}/7"),
            on("/a/{x}/7"),
            on("/a/{x}/{y:int}"),
            on("/a/{x}/{y}").method("GET"),
            on("/a/{x}/{*y}"),
            on("/a/{x}/*"),
            on("/a/{*x}"),
            on("/a/*").method("GET").header("x", ABSENT),
            on("/{x}/b/7"),
            on("/{*x}"),
            on("/*"),
            on("~/a/.*"),
            on(""),
        ],
    );
}

#[test]
fn captures_go_from_narrow_types_to_none() {
    ranked(
        &get("", "/42"),
        &[on("/{x:int}"), on("/{x:hex}"), on("/{x:alnum}"), on("/{x:slug}"), on("/{x}"), on("/{*x}")],
    );
    ranked(&get("", "/abc"), &[on("/{x:hex}"), on("/{x:alpha}"), on("/{x:alnum}")]);
    ranked(&get("", "/0190163d-8694-739b-aea5-966c26f8ad91"), &[on("/{x:uuid}"), on("/{x:slug}")]);
}

#[test]
fn predicates_go_from_method_to_query() {
    ranked(
        &get("", "/a?p=1&q=1").header("x", "1").header("y", "1"),
        &[
            on("/a").method("GET").header("x", PRESENT).query("q", PRESENT),
            on("/a").method("GET").header("x", PRESENT),
            on("/a").method("GET").query("p", PRESENT).query("q", PRESENT),
            on("/a").method("GET").method("POST"),
            on("/a").header("x", PRESENT).header("y", PRESENT),
            on("/a").header("x", PRESENT).query("p", PRESENT).query("q", PRESENT),
            on("/a").header("y", exact("1")),
            on("/a").query("p", PRESENT).query("q", PRESENT),
            on("/a").query("p", exact("1")),
            on("/a"),
        ],
    );
}

#[test]
fn the_rest_goes_by_the_order_in_the_file() {
    for path in ["", "/a", "/{x}", "/{*x}", "/*", "~/a"] {
        let both = [on(path).header("x", ABSENT), on(path).header("y", ABSENT)];
        assert_eq!(found(&router(&both), &get("", "/a")), Some(0), "{path}");
    }
    // Other names for captures do not make another path.
    assert_eq!(found(&router(&[on("/{b}/x"), on("/{a}/x")]), &get("", "/a/x")), Some(0));
}

#[test]
fn regexes_go_by_their_position_whatever_they_ask() {
    let specs = [on("~/a.*"), on("~/ab.*").method("GET"), on("~/a.*").method("GET")];
    // Same text, same path: there the method counts.
    assert_eq!(found(&router(&specs), &get("", "/ab")), Some(2));
    assert_eq!(found(&router(&specs[..2]), &get("", "/ab")), Some(0));
    // The position counts among the routes of one host.
    let specs = [on("~/a.*").host("x"), on("~/ab.*").host("y"), on("~/a.*").host("y")];
    assert_eq!(found(&router(&specs), &get("y", "/ab")), Some(1));
}

#[test]
fn a_failed_predicate_falls_through_paths_and_hosts() {
    let specs = [
        on("/a/b").host("a.example.com").method("POST"),
        on("/a/{x:int}").host("a.example.com"),
        on("/a/{x}").host("a.example.com").header("x-beta", exact("1")),
        on("~/a/.*").host("a.example.com").query("q", PRESENT),
        on("").host("a.example.com").method("PUT"),
        on("/a/b").host("*.example.com").method("DELETE"),
        on("/a/*").host("*.com").method("PATCH"),
        on("/a/b").method("OPTIONS"),
        on(""),
    ];
    let router = router(&specs);
    let b = |method: &str| get("a.example.com", "/a/b").method(method);
    assert_eq!(found(&router, &b("POST")), Some(0));
    assert_eq!(found(&router, &get("a.example.com", "/a/5").method("POST")), Some(1));
    assert_eq!(found(&router, &b("GET").header("x-beta", "1")), Some(2));
    assert_eq!(found(&router, &get("a.example.com", "/a/b?q")), Some(3));
    assert_eq!(found(&router, &b("PUT")), Some(4));
    assert_eq!(found(&router, &b("DELETE")), Some(5));
    assert_eq!(found(&router, &b("PATCH")), Some(6));
    assert_eq!(found(&router, &b("OPTIONS")), Some(7));
    assert_eq!(found(&router, &b("GET")), Some(8));
}

#[test]
fn a_dead_end_in_the_trie_is_left_again() {
    let router = router(&[
        on("/a/{x}/c/d"),
        on("/{x}/b/c/{y}"),
        on("/a/b/{*rest}").method("POST"),
        on("/a/*").method("PUT"),
    ]);
    assert_eq!(found(&router, &get("", "/a/b/c/e")), Some(1));
    assert_eq!(found(&router, &get("", "/a/b/c/d")), Some(0));
    assert_eq!(found(&router, &get("", "/a/b/c/d").method("POST")), Some(2));
    assert_eq!(found(&router, &get("", "/a/q").method("PUT")), Some(3));
    assert_eq!(found(&router, &get("", "/a/q")), None);
}

#[test]
fn an_expression_is_asked_last_and_falls_through() {
    let by_id = |source: &str| on("/a/{id}").when(source);
    let router = router(&[
        on("/a/{id}"),
        by_id("request.params.id == '1'"),
        by_id("request.params.id == '1' || request.method == 'PUT'"),
        by_id("request.params.id == '2'").query("q", PRESENT),
        by_id("request.headers.nope == ''"),
        on("/a/{other:int}").when("request.params.other == '7'"),
    ]);
    assert_eq!(found(&router, &get("", "/a/x")), Some(0));
    assert_eq!(found(&router, &get("", "/a/1")), Some(1));
    assert_eq!(found(&router, &get("", "/a/x").method("PUT")), Some(2));
    assert_eq!(found(&router, &get("", "/a/2?q=1")), Some(3));
    assert_eq!(found(&router, &get("", "/a/2")), Some(0));
    assert_eq!(found(&router, &get("", "/a/7")), Some(5));
    assert_eq!(router.shadowed(), []);
    let error = &Router::compile(&[on("/").when("request.nope == 1")]).unwrap_err()[0];
    assert_eq!((error.route, &error.field), (0, &RouteField::When));
}
