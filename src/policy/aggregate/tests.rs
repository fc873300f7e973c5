//! Documents of several answers.

use proptest::prelude::*;

use super::*;
use crate::policy::template::Place;

fn leg(name: &str) -> Leg {
    Leg {
        name: name.into(),
        route: 0,
        chain: 0,
        path: Template::compile("/", &[], Place::Target).unwrap(),
        captures: 0,
        values: Box::default(),
        headers: Box::default(),
        is_required: false,
        when: None,
        select: Pointer::parse("").unwrap(),
        remove: Box::default(),
        pass: Box::default(),
        body_bytes: 1000,
    }
}

fn aggregate(merge: Merge, names: &[&str]) -> Aggregate {
    Aggregate { merge, legs: names.iter().map(|name| leg(name)).collect(), problems: "problems".into() }
}

#[test]
fn answers_are_members_by_their_names() {
    let all = aggregate(Merge::Name, &["a", "b", "c", "d"]);
    let outcomes = vec![
        Outcome::Answered(json!([1])),
        Outcome::Failed(LegFault::Status(503)),
        Outcome::Skipped,
        Outcome::Failed(LegFault::Request("connect-failed", 502)),
    ];
    let problems = json!([
        { "leg": "b", "reason": "status", "status": 503 },
        { "leg": "d", "reason": "connect-failed" },
    ]);
    assert_eq!(all.document(outcomes), json!({ "a": [1], "b": null, "d": null, "problems": problems }));
}

#[test]
fn objects_become_one() {
    let all = aggregate(Merge::Deep, &["a", "b"]);
    let outcomes = vec![
        Outcome::Answered(json!({ "x": { "y": 1, "z": 2 }, "l": [1], "s": "a" })),
        Outcome::Answered(json!({ "x": { "y": 3 }, "l": [2], "s": { "t": 1 } })),
    ];
    assert_eq!(all.document(outcomes), json!({ "x": { "y": 3, "z": 2 }, "l": [2], "s": { "t": 1 } }));
    assert_eq!(all.document(vec![Outcome::Skipped, Outcome::Skipped]), json!({}));
    let forged = Outcome::Answered(json!({ "problems": [], "x": 1 }));
    assert_eq!(all.document(vec![forged, Outcome::Skipped]), json!({ "x": 1 }));
}

#[test]
fn what_is_taken_of_an_answer() {
    let json = b"application/json; charset=utf-8";
    let mut one = leg("a");
    one.select = Pointer::parse("/data/0").unwrap();
    one.remove =
        ["/secret", "/list/0", "/none/x", "/list/9"].map(|text| Pointer::parse(text).unwrap()).into();
    let body = br#"{"data":[{"a":1,"secret":2,"list":[1,2]}]}"#;
    assert_eq!(one.understand(200, json, body, Merge::Name), Ok(json!({ "a": 1, "list": [2] })));
    for (status, content_type, body, fault) in [
        (404, &json[..], &body[..], LegFault::Status(404)),
        (302, json, body, LegFault::Status(302)),
        (200, b"text/html", body, LegFault::NotJson),
        (200, b"", body, LegFault::NotJson),
        (200, json, b"{", LegFault::NotJson),
        (200, json, b"{} {}", LegFault::NotJson),
        (200, json, b"\"\xff\"", LegFault::NotJson),
        (200, b"application/problem+json", b"{}", LegFault::NotThere),
    ] {
        assert_eq!(one.understand(status, content_type, body, Merge::Name), Err(fault), "{body:?}");
    }
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    assert_eq!(leg("a").understand(200, json, deep.as_bytes(), Merge::Name), Err(LegFault::NotJson));
    assert_eq!(leg("a").understand(200, json, b"[]", Merge::Deep), Err(LegFault::NotThere));
}

#[test]
fn statuses_of_failures() {
    for (fault, status) in [
        (LegFault::Status(404), 404),
        (LegFault::Status(500), 502),
        (LegFault::Status(302), 502),
        (LegFault::Status(401), 502),
        (LegFault::Status(405), 502),
        (LegFault::Request("quota-exceeded", 429), 429),
        (LegFault::Request("token-missing", 401), 502),
        (LegFault::Request("first-byte-timeout", 504), 504),
        (LegFault::Request("connect-failed", 502), 502),
        (LegFault::TooLarge, 502),
    ] {
        assert_eq!(fault.status(), status, "{fault:?}");
    }
}

#[test]
fn values_in_paths_are_one_segment() {
    for (value, expected) in [
        (json!("a/b?c#d e%2f"), Some("a%2Fb%3Fc%23d%20e%252f")),
        (json!(-7), Some("-7")),
        (json!(true), Some("true")),
        (json!(""), None),
        (json!(null), None),
        (json!([1]), None),
    ] {
        assert_eq!(as_segment(Some(&value)).as_deref(), expected, "{value}");
    }
    assert_eq!(as_segment(None), None);
}

fn any_json() -> impl Strategy<Value = Value> {
    let plain = prop_oneof![
        Just(Value::Null),
        any::<i64>().prop_map(Value::from),
        "[a-c/~]{0,3}".prop_map(Value::from)
    ];
    plain.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map("[a-c]", inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn object_of(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        other => Map::from_iter([("a".to_owned(), other)]),
    }
}

proptest! {
    #[test]
    fn a_document_with_itself_is_itself(value in any_json()) {
        let mut own = object_of(value);
        let before = own.clone();
        merge(&mut own, before.clone());
        prop_assert_eq!(own, before);
    }

    #[test]
    fn the_later_ones_words_stay(one in any_json(), other in any_json()) {
        let (mut one, other) = (object_of(one), object_of(other));
        merge(&mut one, other.clone());
        for (name, value) in other.iter().filter(|(_, value)| !value.is_object()) {
            prop_assert_eq!(one.get(name), Some(value));
        }
        // Once more changes nothing.
        let after = one.clone();
        merge(&mut one, other);
        prop_assert_eq!(one, after);
    }

    #[test]
    fn no_pointer_makes_it_stumble(text in "[/~01a-c]{0,8}", value in any_json()) {
        if let Some(pointer) = Pointer::parse(&text) {
            let there = pointer.of(&value).cloned();
            prop_assert_eq!(pointer.take(value.clone()), there);
            let mut rest = value;
            pointer.remove(&mut rest);
        }
    }

    #[test]
    fn no_answer_makes_it_stumble(body in proptest::collection::vec(any::<u8>(), 0..64)) {
        let _ = leg("a").understand(200, b"application/json", &body, Merge::Deep);
    }
}
