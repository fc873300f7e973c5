//! Which certificate a name gets.

use proptest::prelude::*;

use crate::tls::{Facts, KeyType, Selection, Shadowed};

fn facts(key: KeyType, names: &[&str]) -> Facts {
    Facts {
        subject: String::new(),
        names: names.iter().map(|name| (*name).into()).collect(),
        addresses: Vec::new(),
        not_before: 0,
        not_after: 0,
        key,
        fingerprint: [0; 32],
        fingerprint_hex: "".into(),
        all_names: "".into(),
    }
}

use KeyType::{EcdsaP256, EcdsaP384, Rsa};

#[test]
fn an_exact_name_before_a_wildcard_before_the_default() {
    let all = [
        facts(EcdsaP256, &["first.test"]),
        facts(EcdsaP256, &["*.example.com", "example.com"]),
        facts(EcdsaP256, &["api.example.com", "xn--bcher-kva.example"]),
    ];
    let (selection, shadowed) = Selection::new(&all);
    assert_eq!(shadowed, []);
    for (name, expected) in [
        (Some("api.example.com"), 2),
        (Some("API.Example.Com"), 2),
        (Some("api.example.com."), 2),
        (Some("www.example.com"), 1),
        (Some("example.com"), 1),
        (Some("xn--bcher-kva.example"), 2),
        // A wildcard is for one label.
        (Some("a.b.example.com"), 0),
        (Some(".example.com"), 0),
        (Some("first.test"), 0),
        (Some("other.test"), 0),
        (Some("com"), 0),
        (Some(""), 0),
        (Some("."), 0),
        (Some("10.0.0.1"), 0),
        (Some("*.example.com"), 1),
        (None, 0),
    ] {
        assert_eq!(selection.group(name), [expected], "{name:?}");
    }
    assert_eq!(selection.group(Some(&"a".repeat(300))), [0]);
}

#[test]
fn types_of_keys_stand_side_by_side() {
    let all = [
        facts(Rsa, &["a.test", "*.b.test"]),
        facts(EcdsaP384, &["a.test"]),
        facts(EcdsaP256, &["a.test", "*.b.test"]),
    ];
    let (selection, shadowed) = Selection::new(&all);
    assert_eq!(shadowed, []);
    assert_eq!(selection.group(Some("a.test")), [2, 1, 0]);
    assert_eq!(selection.group(Some("x.b.test")), [2, 0]);
    // The first one's name is the default's.
    assert_eq!(selection.group(None), [2, 1, 0]);
}

#[test]
fn a_name_that_is_taken_is_shadowed() {
    let all = [
        facts(Rsa, &["a.test", "a.test", "*.a.test"]),
        facts(EcdsaP256, &["a.test"]),
        facts(Rsa, &["b.test", "a.test", "*.a.test"]),
    ];
    let (selection, shadowed) = Selection::new(&all);
    let of = |name: &str| Shadowed { certificate: 2, by: 0, name: name.into() };
    assert_eq!(shadowed, [of("a.test"), of("*.a.test")]);
    assert_eq!(selection.group(Some("a.test")), [1, 0]);
    assert_eq!(selection.group(Some("b.test")), [2]);
}

/// The same by looking at every certificate.
fn reference(all: &[Facts], name: &str) -> Vec<usize> {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let wildcard =
        name.split_once('.').filter(|(label, _)| !label.is_empty()).map(|(_, rest)| format!("*.{rest}"));
    let of = |wanted: &str| {
        let mut group: Vec<usize> = Vec::new();
        for (at, facts) in all.iter().enumerate() {
            let is_taken = group.iter().any(|other| all[*other].key == facts.key);
            if facts.names.iter().any(|name| **name == *wanted) && !is_taken {
                group.push(at);
            }
        }
        group.sort_by_key(|at| all[*at].key);
        group
    };
    let candidates = [Some(name), wildcard, all[0].names.first().map(ToString::to_string)];
    let mut found = candidates.into_iter().flatten().map(|name| of(&name)).filter(|group| !group.is_empty());
    found.next().unwrap_or_else(|| vec![0])
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_is_what_looking_at_every_certificate_finds(
        all in prop::collection::vec(
            (0..3usize, prop::collection::vec("(\\*\\.)?[ab](\\.[ab]){0,2}", 0..4)),
            1..6,
        ),
        name in "[abAB*]?(\\.[abAB]){0,3}\\.?",
    ) {
        let all: Vec<Facts> = all
            .iter()
            .map(|(key, names)| {
                facts([EcdsaP256, EcdsaP384, Rsa][*key], &names.iter().map(String::as_str).collect::<Vec<_>>())
            })
            .collect();
        let (selection, _) = Selection::new(&all);
        prop_assert_eq!(selection.group(Some(&name)), reference(&all, &name));
    }
}
