//! Cookies, as far as a gateway needs them: one value found in a `Cookie` field, and the cookie that keeps a client
//! at its endpoint. Which endpoint an identity stands for is not known here.

use crate::telemetry::text::{HEX, append_decimal};

use super::is_token;

/// The value of the first cookie of this name in one `Cookie` field (RFC 6265 §4.2.1), without surrounding blanks.
/// Names are case-sensitive; quotes around a value are part of it, as browsers have it. Work is linear in the
/// field, which the head's limit bounds. HTTP/2 may split the field: look in each.
pub fn find<'a>(field: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut rest = field;
    loop {
        let end = memchr::memchr(b';', rest).unwrap_or(rest.len());
        let pair = rest[..end].trim_ascii();
        if let Some(value) =
            pair.strip_prefix(name).and_then(|rest| rest.trim_ascii_start().strip_prefix(b"="))
        {
            return Some(value.trim_ascii_start());
        }
        rest = rest.get(end + 1..)?;
    }
}

/// The values of every cookie of this name in one `Cookie` field.
pub fn values<'a>(field: &'a [u8], name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    field.split(|byte| *byte == b';').filter_map(move |pair| find(pair, name))
}

/// A `Cookie` field without the cookies of this name, the others as they were written.
pub fn without(field: &[u8], name: &[u8]) -> Vec<u8> {
    let kept = field.split(|byte| *byte == b';').filter(|pair| find(pair, name).is_none());
    let kept: Vec<_> = kept.map(<[u8]>::trim_ascii).filter(|pair| !pair.is_empty()).collect();
    kept.join(&b"; "[..])
}

/// The cookie that keeps a client at its endpoint. Its value is the endpoint's identity as 16 hexadecimal digits: it
/// tells a client nothing, and one that is made up is as good as none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StickyCookie {
    name: Box<str>,
    /// `Set-Cookie: name=`
    before: Box<[u8]>,
    /// `; Path=/…` and the newline.
    after: Box<[u8]>,
}

/// Why a name cannot be a sticky cookie's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CookieNameError {
    /// RFC 6265 §4.1.1.
    #[error("a cookie's name has only letters, digits and !#$%&'*+-.^_`|~")]
    NotAToken,
    /// Browsers drop `__Secure-` and `__Host-` cookies without the `Secure` attribute, which this one does not have.
    #[error(
        "names with the prefix `__Secure-` or `__Host-` need the attribute Secure, which sticky cookies do not have"
    )]
    SecurePrefix,
}

impl StickyCookie {
    /// The cookie of this name, kept by the client for `max_age_s` seconds, or until it closes when that is 0.
    pub fn new(name: &str, max_age_s: u64) -> Result<Self, CookieNameError> {
        if !is_token(name.as_bytes()) {
            return Err(CookieNameError::NotAToken);
        }
        let lower = name.to_ascii_lowercase();
        if lower.starts_with("__secure-") || lower.starts_with("__host-") {
            return Err(CookieNameError::SecurePrefix);
        }
        let mut after = b"; Path=/; HttpOnly; SameSite=Lax".to_vec();
        if max_age_s > 0 {
            after.extend_from_slice(b"; Max-Age=");
            append_decimal(max_age_s, &mut after);
        }
        after.extend_from_slice(b"\r\n");
        let before = [b"Set-Cookie: ", name.as_bytes(), b"="].concat();
        Ok(Self { name: name.into(), before: before.into(), after: after.into() })
    }

    /// The cookie's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The identity that a `Cookie` field carries; `None` when there is none or it is not one of ours.
    pub fn identity(&self, field: &[u8]) -> Option<u64> {
        find(field, self.name.as_bytes()).and_then(parse_identity)
    }

    /// Appends the `Set-Cookie` line that keeps a client at the endpoint of this identity, its CRLF included.
    pub fn append_set_cookie(&self, identity: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.before);
        for shift in (0..64).step_by(4).rev() {
            out.push(HEX[(identity >> shift & 0xf) as usize]);
        }
        out.extend_from_slice(&self.after);
    }
}

/// Exactly 16 lower-case hexadecimal digits.
fn parse_identity(value: &[u8]) -> Option<u64> {
    if value.len() != 16 {
        return None;
    }
    value.iter().try_fold(0, |identity, byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        Some(identity << 4 | u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn cookies_are_found_and_left_out() {
        for (field, found, rest) in [
            ("", &[][..], ""),
            ("key=1", &["1"], ""),
            ("a=b; key=1;key = 2 ;c", &["1", "2"], "a=b; c"),
            ("akey=1; keya=2; Key=3; a=key=4", &[], "akey=1; keya=2; Key=3; a=key=4"),
        ] {
            let expected: Vec<_> = found.iter().map(|value: &&str| value.as_bytes()).collect();
            assert_eq!(values(field.as_bytes(), b"key").collect::<Vec<_>>(), expected, "{field}");
            assert_eq!(without(field.as_bytes(), b"key"), rest.as_bytes(), "{field}");
        }
    }

    #[test]
    fn cookies_are_found() {
        for (field, expected) in [
            ("a=1", Some("1")),
            ("b=2; a=1", Some("1")),
            ("a=1; a=2", Some("1")),
            ("b=2;a=1;c=3", Some("1")),
            ("a=", Some("")),
            ("a = 1 ; b", Some("1")),
            ("a=\"1\"", Some("\"1\"")),
            ("a=x=y", Some("x=y")),
            ("A=1; aa=2; ba=3; b=a=4; a", None),
            ("a", None),
            ("", None),
            (";;;", None),
            ("=a", None),
        ] {
            assert_eq!(find(field.as_bytes(), b"a"), expected.map(str::as_bytes), "{field}");
        }
    }

    #[test]
    fn the_set_cookie_line() {
        let mut out = Vec::new();
        StickyCookie::new("node", 0).unwrap().append_set_cookie(0xab, &mut out);
        StickyCookie::new("node", 3600).unwrap().append_set_cookie(u64::MAX, &mut out);
        let expected = "Set-Cookie: node=00000000000000ab; Path=/; HttpOnly; SameSite=Lax\r\n\
                        Set-Cookie: node=ffffffffffffffff; Path=/; HttpOnly; SameSite=Lax; Max-Age=3600\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn bad_names_are_refused() {
        for name in ["", "a b", "a=b", "a;b", "a\r\nb", "ä"] {
            assert_eq!(StickyCookie::new(name, 0), Err(CookieNameError::NotAToken));
        }
        assert_eq!(StickyCookie::new("__host-x", 0), Err(CookieNameError::SecurePrefix));
    }

    #[test]
    fn made_up_identities_are_none() {
        let cookie = StickyCookie::new("node", 0).unwrap();
        for value in
            ["", "0", "00000000000000AB", "00000000000000ab0", "-000000000000001", "0x000000000000ab"]
        {
            assert_eq!(cookie.identity(format!("node={value}").as_bytes()), None, "{value}");
        }
    }

    proptest! {
        #[test]
        fn identities_come_back(identity: u64, before in "([a-m]=[a-z]{0,5}; ){0,3}") {
            let cookie = StickyCookie::new("node", 1).unwrap();
            let mut line = Vec::new();
            cookie.append_set_cookie(identity, &mut line);
            let pair = line.strip_prefix(b"Set-Cookie: ").unwrap().split(|byte| *byte == b';').next().unwrap();
            let field = [before.as_bytes(), pair].concat();
            prop_assert_eq!(cookie.identity(&field), Some(identity));
        }

        #[test]
        fn any_field_is_survived(field: Vec<u8>, name in "[a-z]{1,2}") {
            if let Some(value) = find(&field, name.as_bytes()) {
                prop_assert!(!value.contains(&b';'));
            }
        }
    }
}
