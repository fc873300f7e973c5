//! Who may ask, by the certificate that the client has shown. That it is to be believed, the handshake has found out.

/// Which certificates let a client ask.
#[derive(Debug, Clone)]
pub struct CertAccess {
    /// Names, some with `*.` in front, in lower case.
    names: Box<[Box<str>]>,
    fingerprints: Box<[[u8; 32]]>,
}

impl CertAccess {
    /// Those that are for one of `names`, and those with one of `fingerprints`; any where both are empty.
    pub fn new(names: &[String], fingerprints: &[String]) -> Self {
        Self {
            names: names.iter().map(|name| name.to_ascii_lowercase().into()).collect(),
            fingerprints: fingerprints.iter().filter_map(|text| parse_fingerprint(text)).collect(),
        }
    }

    /// Whether a certificate for these names, in lower case, and with this fingerprint lets its client ask.
    pub fn admits(&self, names: &[Box<str>], fingerprint: &[u8; 32]) -> bool {
        let is_any = self.names.is_empty() && self.fingerprints.is_empty();
        is_any
            || self.fingerprints.contains(fingerprint)
            || names.iter().any(|name| self.names.iter().any(|wanted| is_for(name, wanted)))
    }
}

/// Whether a name is the one that is wanted: the same, or with one label in place of `*`, which no certificate brings itself.
fn is_for(name: &str, wanted: &str) -> bool {
    match wanted.strip_prefix("*.") {
        None => name == wanted,
        Some(below) => {
            name.split_once('.').is_some_and(|(label, rest)| !matches!(label, "" | "*") && rest == below)
        }
    }
}

/// A SHA-256 as 64 hexadecimal digits, perhaps with a colon between each two.
pub fn parse_fingerprint(text: &str) -> Option<[u8; 32]> {
    let digits: Vec<u8> = match text.contains(':') {
        true if text.split(':').any(|pair| pair.len() != 2) => return None,
        _ => text.bytes().filter(|byte| *byte != b':').collect(),
    };
    let mut fingerprint = [0; 32];
    if digits.len() != 2 * fingerprint.len() {
        return None;
    }
    for (byte, pair) in fingerprint.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |digit: u8| char::from(digit).to_digit(16);
        *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
    }
    Some(fingerprint)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn certificates_by_name_and_fingerprint() {
        let ones = "01".repeat(32);
        let access = CertAccess::new(&texts(&["A.test", "*.b.test"]), &[ones]);
        let any = CertAccess::new(&[], &[]);
        for (names, fingerprint, expected) in [
            (&["a.test"][..], 0, true),
            (&["x", "c.b.test"], 0, true),
            (&["b.test"], 0, false),
            (&["d.c.b.test"], 0, false),
            (&[".b.test"], 0, false),
            (&["*.b.test", "*.a.test"], 0, false),
            (&["xb.test", "a.test.x", "xa.test"], 0, false),
            (&[], 0, false),
            (&[], 1, true),
        ] {
            let names: Vec<Box<str>> = names.iter().map(|name| (*name).into()).collect();
            assert_eq!(access.admits(&names, &[fingerprint; 32]), expected, "{names:?} {fingerprint}");
            assert!(any.admits(&names, &[fingerprint; 32]));
        }
    }

    #[test]
    fn fingerprints_are_read() {
        let plain = "aB".repeat(32);
        let colons = vec!["aB"; 32].join(":");
        assert_eq!(parse_fingerprint(&plain), Some([0xab; 32]));
        assert_eq!(parse_fingerprint(&colons), Some([0xab; 32]));
        for wrong in [
            "",
            &plain[1..],
            &format!("{plain}0"),
            &colons[3..],
            &plain.replace('a', "g"),
            &format!("{plain}:"),
        ] {
            assert_eq!(parse_fingerprint(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_fingerprint_or_none(text in "[0-9a-fA-F:]{0,100}") {
            let _ = parse_fingerprint(&text);
        }
    }
}
