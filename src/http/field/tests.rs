//! Names are recognised in any case and nothing else is taken for one; fields are found; lists are trimmed.

use proptest::prelude::*;

use super::*;

#[test]
fn every_known_name_is_recognised_in_any_case() {
    for (known, text) in KNOWN.iter().zip(TEXTS) {
        assert_eq!(known.as_str(), *text);
        assert_eq!(FieldName::recognise(text.as_bytes()), *known);
        assert_eq!(FieldName::recognise(text.to_ascii_uppercase().as_bytes()), *known);
    }
}

#[test]
fn near_misses_are_other() {
    for text in
        ["", "h", "hosts", "hos", "hast", "host ", "content_length", "content-\x0cength", "x-forwarded-foo"]
    {
        assert_eq!(FieldName::recognise(text.as_bytes()), FieldName::Other, "{text:?}");
    }
    assert_eq!(FieldName::Other.as_str(), "");
}

#[test]
fn hop_by_hop_names_may_not_come_in_trailers() {
    assert!(KNOWN.iter().filter(|name| name.is_hop_by_hop()).all(|name| name.is_forbidden_in_trailers()));
}

#[test]
fn fields_are_found_by_name() {
    let head = b"Host: a\r\nX-Y: b\r\nx-y: c\r\n";
    let mut fields = Fields::default();
    for (name, value) in [((0, 4), (6, 7)), ((9, 12), (14, 15)), ((17, 20), (22, 23))] {
        let name_at = Extent::between(name.0, name.1);
        let name = FieldName::recognise(name_at.bytes(head));
        fields.push(Field { name, hop: false, name_at, value_at: Extent::between(value.0, value.1) }, true);
    }
    assert_eq!(fields.find(FieldName::Host).unwrap().value_at.bytes(head), b"a");
    assert_eq!(fields.find_by_name(head, b"X-y").unwrap().value_at.bytes(head), b"b");
    assert!(fields.find_by_name(head, b"x-yy").is_none());
    assert_eq!((fields.len(), fields.iter().count()), (3, 3));
    fields.clear();
    assert!(fields.is_empty());
}

#[test]
fn lists_are_trimmed() {
    assert_eq!(list(b" a ,\tb,, c").collect::<Vec<_>>(), [&b"a"[..], b"b", b"", b"c"]);
    assert_eq!(trim(b" \t "), b"");
}

proptest! {
    #[test]
    fn recognising_agrees_with_comparing(text in "\\PC{0,24}|[a-zA-Z-]{1,20}") {
        let expected = TEXTS[..KNOWN.len()].iter().position(|known| known.eq_ignore_ascii_case(&text));
        prop_assert_eq!(FieldName::recognise(text.as_bytes()), expected.map_or(FieldName::Other, |at| KNOWN[at]));
    }
}

proptest! {
    #[test]
    fn folding_agrees_with_the_standard_library(
        lower in "[a-z0-9-]{0,40}",
        flips in proptest::collection::vec(any::<bool>(), 40),
        other in any::<u8>(),
        at in 0_usize..41,
    ) {
        let mut text: Vec<u8> = lower.bytes().zip(flips)
            .map(|(byte, flip)| if flip { byte.to_ascii_uppercase() } else { byte })
            .collect();
        prop_assert!(is_folded(&text, lower.as_bytes()));
        if let Some(byte) = text.get_mut(at) {
            *byte = other;
        }
        prop_assert_eq!(is_folded(&text, lower.as_bytes()), text.eq_ignore_ascii_case(lower.as_bytes()));
        text.push(other);
        prop_assert!(!is_folded(&text, lower.as_bytes()));
    }
}
