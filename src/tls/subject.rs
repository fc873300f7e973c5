//! The subject of a certificate as text (RFC 4514): one text for each subject, which no other can be written like.

use std::fmt::Write as _;

use x509_parser::{
    objects::{oid_registry, oid2abbrev},
    x509::{AttributeTypeAndValue, X509Name},
};

/// Writes a name, its last part first.
pub(super) fn text(name: &X509Name<'_>) -> String {
    let parts: Vec<_> = name.iter_rdn().collect();
    let part = |attributes: Vec<String>| attributes.join("+");
    let parts = parts.iter().rev().map(|rdn| part(rdn.iter().map(attribute).collect()));
    parts.collect::<Vec<_>>().join(",")
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let oid = attribute.attr_type();
    // RFC 4514 §2.4: a value whose type has no name, or that is no text, stands as its bytes.
    match (oid2abbrev(oid, oid_registry()), attribute.as_str()) {
        (Ok(name), Ok(value)) => format!("{name}={}", escaped(value)),
        (name, _) => {
            let mut text = format!("{}=#", name.map_or_else(|_| oid.to_id_string(), ToOwned::to_owned));
            let value = attribute.attr_value();
            let len = u32::try_from(value.data.len()).unwrap_or(u32::MAX);
            // Its tag and its length before it, so that no two values look alike.
            let before = [&[value.header.tag().0 as u8][..], &len.to_be_bytes()].concat();
            for byte in before.iter().chain(value.data) {
                let _ = write!(text, "{byte:02x}");
            }
            text
        }
    }
}

/// RFC 4514 §2.4; all control characters, and not only NUL, as their digits.
fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    let end = value.chars().count();
    for (at, character) in value.chars().enumerate() {
        match character {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => text.extend(['\\', character]),
            '#' | ' ' if at == 0 => text.extend(['\\', character]),
            ' ' if at + 1 == end => text.push_str("\\ "),
            '\0'..='\x1f' | '\x7f' => {
                let _ = write!(text, "\\{:02x}", u32::from(character));
            }
            _ => text.push(character),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_are_escaped() {
        for (value, expected) in [
            ("a", "a"),
            ("x, CN=good", "x\\, CN=good"),
            ("#a b ", "\\#a b\\ "),
            (" ", "\\ "),
            ("a\0\n\u{7f}", "a\\00\\0a\\7f"),
            ("\"<>;+\\", "\\\"\\<\\>\\;\\+\\\\"),
            ("J\u{f6}rg", "J\u{f6}rg"),
        ] {
            assert_eq!(escaped(value), expected);
        }
    }

    /// The value that a text is of, by the rules of RFC 4514 §3.
    fn unescaped(text: &str) -> String {
        let mut value = String::new();
        let mut rest = text.chars();
        while let Some(character) = rest.next() {
            match (character, rest.next().filter(|_| character == '\\')) {
                ('\\', Some(high)) if high.is_ascii_hexdigit() => {
                    let digits = format!("{high}{}", rest.next().unwrap());
                    value.push(char::from(u8::from_str_radix(&digits, 16).unwrap()));
                }
                ('\\', Some(escaped)) => value.push(escaped),
                _ => unreachable!("only what is escaped is taken in twos"),
            }
        }
        value
    }

    proptest! {
        #[test]
        fn what_is_written_can_be_read(value in "\\PC{0,8}[ #,+=\\x00-\\x1f\\\\]{0,8}") {
            let text = escaped(&value);
            prop_assert!(!text.chars().any(|character| character.is_ascii_control()));
            let mut read = String::new();
            let mut rest = text.as_str();
            while let Some(character) = rest.chars().next() {
                let len = match (character, rest.as_bytes().get(1)) {
                    ('\\', Some(byte)) if byte.is_ascii_hexdigit() => 3,
                    ('\\', Some(_)) => 2,
                    _ => character.len_utf8(),
                };
                let (one, behind) = rest.split_at(len);
                read += &if character == '\\' { unescaped(one) } else { one.to_owned() };
                rest = behind;
            }
            prop_assert_eq!(read, value);
        }
    }
}
