//! Every rule, and the two properties that matter: canonical paths stay as they are, and have no dot segments.

use proptest::prelude::*;

use super::*;

fn canonical(raw: &str, rules: &PathRules) -> Result<String, PathError> {
    let mut out = b"left over from the last path".to_vec();
    Ok(match canonicalize(raw.as_bytes(), rules, &mut out)? {
        Canonical::AsIs => {
            assert!(out.is_empty());
            raw.to_owned()
        }
        Canonical::Written => String::from_utf8(out).unwrap(),
    })
}

fn every_rule() -> impl Iterator<Item = PathRules> {
    let slashes = [EncodedSlash::Keep, EncodedSlash::Reject, EncodedSlash::Decode];
    let backslashes = [Backslash::Reject, Backslash::Slash, Backslash::Keep];
    let empty_segments = [EmptySegment::Merge, EmptySegment::Reject, EmptySegment::Keep];
    slashes.into_iter().flat_map(move |encoded_slash| {
        backslashes.into_iter().flat_map(move |backslash| {
            empty_segments.into_iter().map(move |empty_segment| PathRules {
                encoded_slash,
                backslash,
                empty_segment,
            })
        })
    })
}

#[test]
fn what_any_rules_make_of_a_path() {
    for rules in every_rule() {
        for (raw, expected) in [
            ("", "/"),
            ("/", "/"),
            ("/a/b.c/..d/e.", "/a/b.c/..d/e."),
            ("/.well-known/x", "/.well-known/x"),
            ("/...", "/..."),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/b/../../c", "/c"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("/.", "/"),
            ("/..", "/"),
            ("/../../a", "/a"),
            ("/a/../../../b", "/b"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/.%2e/b", "/b"),
            ("/a/%2e/b", "/a/b"),
            ("/%61%5A%7e%2d%5f%30", "/aZ~-_0"),
            ("/a%3ab%c3%a9", "/a%3Ab%C3%A9"),
            ("/a%3Ab", "/a%3Ab"),
            ("/%20%22%25%3C%60%7B", "/%20%22%25%3C%60%7B"),
            ("/%252e%252e/a", "/%252e%252e/a"),
            ("/%25%32%65/a", "/%252e/a"),
            ("/a|b[c]d^e", "/a%7Cb%5Bc%5Dd%5Ee"),
            ("/a%7cb", "/a%7Cb"),
            ("/!$&'()*+,;=:@", "/!$&'()*+,;=:@"),
            ("/%21", "/%21"),
        ] {
            assert_eq!(canonical(raw, &rules).as_deref(), Ok(expected), "{raw} {rules:?}");
        }
        for (raw, error) in [
            ("a", PathError::NotAbsolute),
            ("*", PathError::NotAbsolute),
            ("%2Fa", PathError::NotAbsolute),
            ("/%", PathError::Triplet),
            ("/%4", PathError::Triplet),
            ("/%4g", PathError::Triplet),
            ("/%%41", PathError::Triplet),
            ("/a%00b", PathError::Control),
            ("/%0a", PathError::Control),
            ("/%1F", PathError::Control),
            ("/%7f", PathError::Control),
            ("/a b", PathError::InvalidByte),
            ("/a?b", PathError::InvalidByte),
            ("/a#b", PathError::InvalidByte),
            ("/\0", PathError::InvalidByte),
            ("/\u{e9}", PathError::InvalidByte),
            ("/{", PathError::InvalidByte),
        ] {
            assert_eq!(canonical(raw, &rules), Err(error), "{raw} {rules:?}");
        }
    }
}

#[test]
fn encoded_slashes() {
    let rules = |encoded_slash| PathRules { encoded_slash, ..PathRules::default() };
    for (raw, keep, decode) in [
        ("/a%2fb", "/a%2Fb", "/a/b"),
        ("/a/..%2Fb", "/a/..%2Fb", "/b"),
        ("/a%2f..%2fb", "/a%2F..%2Fb", "/b"),
        ("/a%2F%2fb", "/a%2F%2Fb", "/a/b"),
        ("/a/%252f", "/a/%252f", "/a/%252f"),
    ] {
        assert_eq!(canonical(raw, &rules(EncodedSlash::Keep)).as_deref(), Ok(keep));
        assert_eq!(canonical(raw, &rules(EncodedSlash::Decode)).as_deref(), Ok(decode));
    }
    assert_eq!(canonical("/a%2fb", &rules(EncodedSlash::Reject)), Err(PathError::EncodedSlash));
    assert_eq!(canonical("/a%252fb", &rules(EncodedSlash::Reject)).as_deref(), Ok("/a%252fb"));
}

#[test]
fn backslashes() {
    let rules = |backslash| PathRules { backslash, ..PathRules::default() };
    for (raw, slash, keep) in [
        ("/a\\b", "/a/b", "/a%5Cb"),
        ("/a%5cb", "/a/b", "/a%5Cb"),
        ("/a\\..\\b", "/b", "/a%5C..%5Cb"),
        ("/\\a", "/a", "/%5Ca"),
    ] {
        assert_eq!(canonical(raw, &rules(Backslash::Slash)).as_deref(), Ok(slash));
        assert_eq!(canonical(raw, &rules(Backslash::Keep)).as_deref(), Ok(keep));
        assert_eq!(canonical(raw, &rules(Backslash::Reject)), Err(PathError::Backslash));
    }
}

#[test]
fn empty_segments() {
    let rules = |empty_segment| PathRules { empty_segment, ..PathRules::default() };
    for (raw, merge, keep) in [
        ("//", "/", "//"),
        ("//a", "/a", "//a"),
        ("/a///b//", "/a/b/", "/a///b//"),
        ("/a//../b", "/b", "/a/b"),
        ("//..", "/", "/"),
        ("/a/.//b", "/a/b", "/a//b"),
        ("/..//a", "/a", "//a"),
    ] {
        assert_eq!(canonical(raw, &rules(EmptySegment::Merge)).as_deref(), Ok(merge), "{raw}");
        assert_eq!(canonical(raw, &rules(EmptySegment::Keep)).as_deref(), Ok(keep), "{raw}");
        assert_eq!(canonical(raw, &rules(EmptySegment::Reject)), Err(PathError::EmptySegment), "{raw}");
    }
    assert_eq!(canonical("/a/./../b/", &rules(EmptySegment::Reject)).as_deref(), Ok("/b/"));
    let decoded = PathRules {
        encoded_slash: EncodedSlash::Decode,
        empty_segment: EmptySegment::Reject,
        ..PathRules::default()
    };
    assert_eq!(canonical("/a/%2fb", &decoded), Err(PathError::EmptySegment));
}

#[test]
fn ordinary_paths_are_left_alone() {
    let mut out = Vec::new();
    for raw in ["/", "/a", "/users/42/orders", "/a.b/c.d", "/a/", "/v1/x:y@z;p=1,2"] {
        assert!(is_plainly_canonical(raw.as_bytes()));
        assert_eq!(canonicalize(raw.as_bytes(), &PathRules::default(), &mut out), Ok(Canonical::AsIs));
    }
    assert_eq!(out.capacity(), 0);
}

/// The same by another way: split into segments after decoding, then resolve.
fn reference(raw: &[u8], rules: &PathRules) -> Option<String> {
    let rest = if raw.is_empty() { b"" } else { raw.strip_prefix(b"/")? };
    let mut units: Vec<String> = Vec::new();
    let mut at = 0;
    while at < rest.len() {
        let (byte, encoded) = match rest[at] {
            b'%' => {
                let digits = rest.get(at + 1..at + 3)?;
                digits.iter().all(u8::is_ascii_hexdigit).then_some(())?;
                at += 2;
                (u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?, true)
            }
            byte => (byte, false),
        };
        at += 1;
        let written = format!("%{byte:02X}");
        units.push(match (byte, encoded) {
            (b'/', false) => "/".to_owned(),
            (b'/', true) => match rules.encoded_slash {
                EncodedSlash::Keep => written,
                EncodedSlash::Reject => return None,
                EncodedSlash::Decode => "/".to_owned(),
            },
            (b'\\', _) => match rules.backslash {
                Backslash::Reject => return None,
                Backslash::Slash => "/".to_owned(),
                Backslash::Keep => written,
            },
            (_, true) if byte.is_ascii_control() => return None,
            (_, true) if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => {
                char::from(byte).to_string()
            }
            (_, true) => written,
            (b'|' | b'[' | b']' | b'^', false) => written,
            (_, false) if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte) => {
                char::from(byte).to_string()
            }
            _ => return None,
        });
    }
    let decoded = units.concat();
    let segments: Vec<&str> = decoded.split('/').collect();
    let (last, before) = segments.split_last()?;
    if before.contains(&"") && rules.empty_segment == EmptySegment::Reject {
        return None;
    }
    let mut stack: Vec<&str> = Vec::new();
    for segment in before {
        match *segment {
            "" if rules.empty_segment == EmptySegment::Merge => {}
            "." => {}
            ".." => drop(stack.pop()),
            segment => stack.push(segment),
        }
    }
    let last = match *last {
        ".." => {
            stack.pop();
            ""
        }
        "." => "",
        last => last,
    };
    Some(format!("/{}{last}", stack.iter().map(|segment| format!("{segment}/")).collect::<String>()))
}

fn paths() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => "[a-z0-9_~]{1,3}",
        4 => Just("/".to_owned()),
        2 => "\\.{1,3}",
        2 => "%(2[eEfF5]|5[cC])",
        1 => "%[0-9a-fA-F]{2}",
        1 => "[ -~]",
    ];
    proptest::collection::vec(piece, 0..16).prop_map(|pieces| format!("/{}", pieces.concat()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn canonical_paths_stay_as_they_are(raw in paths()) {
        for rules in every_rule() {
            let Ok(path) = canonical(&raw, &rules) else { continue };
            let mut out = Vec::new();
            prop_assert_eq!(canonicalize(path.as_bytes(), &rules, &mut out), Ok(Canonical::AsIs), "{} {:?}", path, rules);
            prop_assert!(path.starts_with('/'));
            prop_assert!(!path.split('/').any(|segment| segment == "." || segment == ".."), "{}", path);
            prop_assert!(rules.empty_segment == EmptySegment::Keep || !path.contains("//"), "{}", path);
            prop_assert!(!path.contains('\\') && !path.contains("%2E"), "{}", path);
        }
    }

    #[test]
    fn canonical_paths_agree_with_the_reference(raw in prop_oneof![paths(), "\\PC{0,8}"]) {
        for rules in every_rule() {
            prop_assert_eq!(canonical(&raw, &rules).ok(), reference(raw.as_bytes(), &rules), "{} {:?}", raw, rules);
        }
    }

    #[test]
    fn any_bytes_are_accepted_or_refused(raw in proptest::collection::vec(any::<u8>(), 0..40)) {
        for rules in every_rule() {
            let _ = canonicalize(&raw, &rules, &mut Vec::new());
        }
    }
}
