//! What is said about routes: explanations and shadows.

use super::*;

/// Explanations as `id: text`.
fn said(specs: &[RouteSpec], request: &Request) -> Vec<String> {
    let candidates = router(specs).explain(request).into_iter();
    candidates
        .map(|candidate| {
            let text = match candidate.outcome {
                Outcome::Won { captures } => format!("won {captures:?}"),
                Outcome::Lost(text) => text,
                Outcome::LostTo(winner) => format!("lost to {winner}"),
                Outcome::NearMiss(text) => format!("near: {text}"),
            };
            format!("{}: {text}", candidate.route)
        })
        .collect()
}

fn shadows(specs: &[RouteSpec]) -> Vec<(RouteId, RouteId)> {
    router(specs).shadowed().into_iter().map(|shadow| (shadow.route, shadow.by)).collect()
}

#[test]
fn every_candidate_is_explained_in_order() {
    let specs = [
        on(""),
        on("/a/{id}").method("GET").method("PURGE"),
        on("/a/{id}").header("X-Beta", PRESENT),
        on("/a/{id}").header("x-kind", exact("1")),
        on("/a/{id}").header("x-kind", regex("[0-9]")),
        on("/a/{id}").header("x-kind", ABSENT),
        on("/a/{id}").query("q", exact("c d")),
        on("/a/{id}").query("r", PRESENT),
        on("/a/{id}"),
        on("/a/*").method("POST"),
        on("/b"),
    ];
    let request = get("", "/a/5?q=a+b").method("POST").header("X-Kind", "x");
    assert_eq!(
        said(&specs, &request),
        [
            "1: method is POST, not GET or PURGE",
            "2: header x-beta is missing",
            "3: header x-kind is `x`, not `1`",
            "4: header x-kind is `x`, which does not match `[0-9]`",
            "5: header x-kind is present",
            "6: query parameter q is `a b`, not `c d`",
            "7: query parameter r is missing",
            "8: won [(\"id\", \"5\")]",
            "9: lost to 8",
            "0: lost to 8",
        ]
    );
}

#[test]
fn a_route_with_several_matching_hosts_is_one_candidate() {
    let specs = [on("").host("*.com").host("a.com"), on("").host("a.com")];
    assert_eq!(said(&specs, &get("a.com", "/")), ["0: won []", "1: lost to 0"]);
}

#[test]
fn near_misses_are_named_when_nothing_matches() {
    let specs = [
        on("/a/{id}").host("b.com").host("*.c.com"),
        on("/x"),
        on("/a/{id:int}"),
        on("/a/x/"),
        on("~/a/.*").host("b.com"),
        on("").host("1.com").host("2.com").host("3.com").host("4.com").host("5.com"),
        on("/a/x").host("b.com"),
        on("/a/x").host("c.com"),
    ];
    assert_eq!(
        said(&specs, &get("d.com", "/a/x")),
        [
            "2: near: path capture `id` takes only int",
            "3: near: path lacks a final `/`",
            "0: near: host is d.com, not b.com or *.c.com",
            "4: near: host is d.com, not b.com",
            "5: near: host is d.com, not 1.com, 2.com, 3.com or 2 more",
        ]
    );
    assert_eq!(
        said(&specs[1..2], &get("", "/x/")),
        ["1: near: path has a final `/` that the pattern has not"].map(|text| text.replace("1:", "0:"))
    );
    assert_eq!(said(&specs[6..7], &get("", "/a/x")), ["0: near: request has no host, route asks for b.com"]);
    assert_eq!(said(&specs[1..2], &get("", "/y")), [""; 0]);
}

#[test]
fn a_route_behind_an_equal_or_weaker_one_is_shadowed() {
    let by_get = || on("/a").method("GET");
    type Case<'c> = (&'c [RouteSpec], &'c [(RouteId, RouteId)]);
    let table: &[Case<'_>] = &[
        (&[on("/a"), on("/a")], &[(1, 0)]),
        (&[on("/{x}"), on("/{y}")], &[(1, 0)]),
        (&[on("~/a"), on("~/a")], &[(1, 0)]),
        (&[on(""), on("")], &[(1, 0)]),
        (&[on("/a"), by_get()], &[]),
        (&[by_get(), on("/a")], &[]),
        (&[by_get(), by_get()], &[(1, 0)]),
        (&[by_get().method("POST"), by_get()], &[(1, 0)]),
        (&[by_get(), by_get().method("POST")], &[]),
        (&[by_get(), on("/a").method("POST"), by_get().method("POST")], &[(2, 0)]),
        (&[on("/a").header("x", PRESENT), on("/a").header("X", exact("1"))], &[(1, 0)]),
        (&[on("/a").header("x", exact("1")), on("/a").header("X", PRESENT)], &[]),
        (&[on("/a").header("x", exact("1")), on("/a").header("X", exact("1"))], &[(1, 0)]),
        (&[on("/a").header("x", exact("1")), on("/a").header("x", exact("2"))], &[]),
        (&[on("/a").header("x", PRESENT), on("/a").header("x", ABSENT)], &[]),
        (&[on("/a").header("x", PRESENT), on("/a").query("x", PRESENT)], &[]),
        (&[on("/a").header("x", PRESENT), on("/a").header("x", exact("1")).header("y", PRESENT)], &[]),
        (
            &[
                on("/a").header("x", PRESENT).query("q", exact("1")),
                on("/a").header("x", regex("1+")).query("q", exact("1")),
            ],
            &[(1, 0)],
        ),
        (&[on("/a"), on("/b"), on("/{x}"), on("/*"), on("")], &[]),
        (&[on("/a/{x:int}"), on("/a/{x:hex}"), on("/a/{x}")], &[]),
    ];
    for (specs, expected) in table {
        assert_eq!(shadows(specs), *expected, "{specs:?}");
    }
}

#[test]
fn a_route_is_shadowed_only_on_all_its_hosts() {
    assert_eq!(shadows(&[on("/a").host("a.com"), on("/a").host("a.com").host("b.com")]), []);
    assert_eq!(
        shadows(&[on("/a").host("a.com"), on("/a").host("b.com"), on("/a").host("A.com").host("b.com")]),
        [(2, 0)]
    );
    assert_eq!(shadows(&[on("/a").host("*.a.com"), on("/a").host("b.a.com")]), []);
    // The same host in two spellings is one host.
    assert_eq!(shadows(&[on("/a").host("a.com"), on("/a").host("a.com").host("A.com.")]), [(1, 0)]);
}

#[test]
fn a_regex_behind_everything_is_shadowed() {
    assert_eq!(shadows(&[on("~/a.*"), on("/*")]), [(0, 1)]);
    assert_eq!(shadows(&[on("~/a.*").method("GET"), on("/*").method("GET")]), [(0, 1)]);
    assert_eq!(shadows(&[on("~/a.*"), on("/*").method("GET")]), []);
    assert_eq!(shadows(&[on("~/a.*"), on("/*").header("x", PRESENT)]), []);
    assert_eq!(shadows(&[on("~/a.*").host("a.com"), on("/*")]), []);
    // This one also takes `*`, which `/*` does not.
    assert_eq!(shadows(&[on("~.*"), on("/*")]), []);
}
