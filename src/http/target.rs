//! The request target (RFC 9112 §3.2): which of its four forms it has, and where path, query and authority lie in it.
//! Bytes that cannot be part of a URI are refused here; what the path *means* is [`super::path`]'s.

use super::{authority::Authority, extent::Extent, method::Method};

/// The form of a request target (RFC 9112 §3.2).
#[derive(Copy, Clone, Default, Debug, PartialEq, Eq)]
pub enum TargetForm {
    /// `/path?query`.
    #[default]
    Origin,
    /// `http://authority/path?query`, as sent to a proxy.
    Absolute,
    /// `*`: the server as a whole; with OPTIONS only. An absolute-form without path and query means the same then
    /// (RFC 9112 §3.2.4).
    Asterisk,
    /// `authority`: with CONNECT only.
    Authority,
}

/// What a target consists of.
#[derive(Copy, Clone, Debug)]
pub(super) struct Target {
    pub(super) form: TargetForm,
    /// Empty when the form has none.
    pub(super) path: Extent,
    pub(super) query: Option<Extent>,
    pub(super) authority: Option<Authority>,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum TargetError {
    Invalid,
    Userinfo,
}

/// Splits the target at `at` in `head`. It is not empty.
#[inline]
pub(super) fn parse(head: &[u8], at: Extent, method: Method) -> Result<Target, TargetError> {
    let text = at.bytes(head);
    if text[0] == b'/' && method != Method::Connect {
        let (path, query) = path_and_query(text, at.start as usize)?;
        return Ok(Target { form: TargetForm::Origin, path, query, authority: None });
    }
    other_form(head, at, method)
}

fn other_form(head: &[u8], at: Extent, method: Method) -> Result<Target, TargetError> {
    let text = at.bytes(head);
    let from = at.start as usize;
    let nothing = Extent::between(at.end(), at.end());
    if method == Method::Connect {
        // RFC 9112 §3.2.3: the port is part of the form.
        let authority = authority(head, at)?;
        let authority = authority.port.map(|_| authority).ok_or(TargetError::Invalid)?;
        return Ok(Target {
            form: TargetForm::Authority,
            path: nothing,
            query: None,
            authority: Some(authority),
        });
    }
    if text == b"*" && method == Method::Options {
        return Ok(Target { form: TargetForm::Asterisk, path: nothing, query: None, authority: None });
    }
    let scheme_len = match text {
        _ if text.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"http://")) => 7,
        _ if text.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"https://")) => 8,
        _ => return Err(TargetError::Invalid),
    };
    let rest = &text[scheme_len..];
    let authority_len = rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(rest.len());
    let path_from = from + scheme_len + authority_len;
    let authority = authority(head, Extent::between(from + scheme_len, path_from))?;
    let (path, query) = path_and_query(&rest[authority_len..], path_from)?;
    let server_wide = method == Method::Options && path.is_empty() && query.is_none();
    let form = if server_wide { TargetForm::Asterisk } else { TargetForm::Absolute };
    Ok(Target { form, path, query, authority: Some(authority) })
}

fn authority(head: &[u8], at: Extent) -> Result<Authority, TargetError> {
    Authority::parse(head, at).ok_or_else(|| {
        if at.bytes(head).contains(&b'@') { TargetError::Userinfo } else { TargetError::Invalid }
    })
}

/// Splits `text`, which lies at `from` in the head, at the first `?`, and checks every byte of it.
#[inline]
fn path_and_query(text: &[u8], from: usize) -> Result<(Extent, Option<Extent>), TargetError> {
    let mut at = 0;
    let path_len = loop {
        let Some(&byte) = text.get(at) else { break text.len() };
        if BYTES[byte as usize] & IN_PATH != 0 {
            at += 1;
        } else if byte == b'?' {
            break at;
        } else if byte == b'%' && is_triplet(&text[at..]) {
            at += 3;
        } else {
            return Err(TargetError::Invalid);
        }
    };
    let path = Extent::between(from, from + path_len);
    if path_len == text.len() {
        return Ok((path, None));
    }
    if text[path_len + 1..].iter().any(|byte| BYTES[*byte as usize] & IN_QUERY == 0) {
        return Err(TargetError::Invalid);
    }
    Ok((path, Some(Extent::between(from + path_len + 1, from + text.len()))))
}

#[inline]
fn is_triplet(text: &[u8]) -> bool {
    matches!(text, [b'%', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit())
}

const IN_PATH: u8 = 1;
const IN_QUERY: u8 = 2;

/// Where a byte may stand. In a path: `pchar` and `/` (RFC 3986 §3.3), and `|[]^\`, which canonicalisation encodes or
/// judges; `%` is looked at by itself. In a query: also the rest of what browsers leave raw, and a stray `%`.
static BYTES: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = match byte as u8 {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => IN_PATH | IN_QUERY,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' => IN_PATH | IN_QUERY,
            b':' | b'@' | b'/' | b'|' | b'[' | b']' | b'^' | b'\\' => IN_PATH | IN_QUERY,
            b'?' | b'%' | b'{' | b'}' | b'`' => IN_QUERY,
            _ => 0,
        };
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    fn split(
        method: Method,
        text: &str,
    ) -> Result<(TargetForm, String, Option<String>, Option<String>), TargetError> {
        let head = format!("GET {text} HTTP/1.1");
        let found = parse(head.as_bytes(), Extent::between(4, 4 + text.len()), method)?;
        let text = |at: Extent| String::from_utf8(at.bytes(head.as_bytes()).to_vec()).unwrap();
        Ok((found.form, text(found.path), found.query.map(text), found.authority.map(|a| text(a.whole))))
    }

    #[test]
    fn the_four_forms() {
        let some = |text: &str| Some(text.to_owned());
        for (method, text, expected) in [
            (Method::Get, "/a/b?c=d?e", (TargetForm::Origin, "/a/b", some("c=d?e"), None)),
            (Method::Get, "/?", (TargetForm::Origin, "/", some(""), None)),
            (Method::Get, "//x/%2e|[]^\\", (TargetForm::Origin, "//x/%2e|[]^\\", None, None)),
            (Method::Get, "/?%{}`|\\^[]%2", (TargetForm::Origin, "/", some("%{}`|\\^[]%2"), None)),
            (Method::Get, "http://a:1/b?c", (TargetForm::Absolute, "/b", some("c"), some("a:1"))),
            (Method::Get, "HTTPS://[::1]", (TargetForm::Absolute, "", None, some("[::1]"))),
            (Method::Get, "http://a?c", (TargetForm::Absolute, "", some("c"), some("a"))),
            (Method::Options, "*", (TargetForm::Asterisk, "", None, None)),
            (Method::Options, "http://a", (TargetForm::Asterisk, "", None, some("a"))),
            (Method::Options, "http://a/", (TargetForm::Absolute, "/", None, some("a"))),
            (Method::Connect, "a:443", (TargetForm::Authority, "", None, some("a:443"))),
        ] {
            let (form, path, query, authority) = expected;
            assert_eq!(split(method, text), Ok((form, path.to_owned(), query, authority)), "{text}");
        }
    }

    #[test]
    fn what_is_refused() {
        for (method, text) in [
            (Method::Get, "*"),
            (Method::Get, "a"),
            (Method::Get, "a:443"),
            (Method::Get, "ftp://a/"),
            (Method::Get, "http:/a"),
            (Method::Get, "http:///a"),
            (Method::Get, "http://"),
            (Method::Get, "http://a#b"),
            (Method::Get, "http://a:b/"),
            (Method::Get, "/a#b"),
            (Method::Get, "/a?b#c"),
            (Method::Get, "/%"),
            (Method::Get, "/%2"),
            (Method::Get, "/%2g"),
            (Method::Get, "/\u{e9}"),
            (Method::Get, "/?\u{e9}"),
            (Method::Get, "/a\tb"),
            (Method::Get, "/\u{7f}"),
            (Method::Connect, "/"),
            (Method::Connect, "a"),
            (Method::Connect, "http://a:443/"),
            (Method::Options, "**"),
        ] {
            assert_eq!(split(method, text), Err(TargetError::Invalid), "{text}");
        }
        for byte in "\"<>`{}".chars() {
            assert_eq!(split(Method::Get, &format!("/{byte}")), Err(TargetError::Invalid), "{byte}");
        }
        for byte in "\"<>\0\n".chars() {
            assert_eq!(split(Method::Get, &format!("/?{byte}")), Err(TargetError::Invalid), "{byte}");
        }
        for (method, text) in
            [(Method::Get, "http://u@a/"), (Method::Get, "http://u:p@a/"), (Method::Connect, "u@a:1")]
        {
            assert_eq!(split(method, text), Err(TargetError::Userinfo), "{text}");
        }
    }
}
