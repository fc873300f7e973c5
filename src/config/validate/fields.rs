//! HTTP fields that an operator may name or write: what is a token, a field value, a host, and which fields no edit may
//! touch because the gateway's own correctness stands on them.

use std::collections::{BTreeMap, HashMap};

use crate::config::{
    diagnostic::Diagnostic,
    report::Report,
    source::{Key, key_path},
    types::{HeaderEdits, HeaderValue},
};

/// Whether `text` is a token (RFC 9110 §5.6.2): a method, a field name, a cookie name.
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// What is wrong with `text` as a field value (RFC 9110 §5.5).
pub(super) fn field_value_fault(text: &str) -> Option<&'static str> {
    if text.bytes().any(|byte| (byte < b' ' && byte != b'\t') || byte == 0x7f) {
        return Some("a field value has no control characters and no line breaks");
    }
    let is_padded = text.starts_with([' ', '\t']) || text.ends_with([' ', '\t']);
    is_padded.then_some("a field value does not begin or end with a space")
}

/// Whether `text` is `host` or `host:port`, as it may stand in `Host`.
pub(super) fn is_host(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let is_bracketed = || host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_name = || host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte));
    let is_host = match is_bracketed() {
        Some(ip) => ip.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && is_name(),
    };
    is_host && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

/// Reports `text` at `path` if it is no token; `what` says what it should be.
pub(super) fn token(path: &[Key<'_>], text: &str, what: &str, report: &mut Report) {
    if !is_token(text) {
        let error = Diagnostic::error(format!("{} is not {what}", report.shown(path, text)));
        report.push_at(path, error.hint(TOKEN_HINT));
    }
}

/// Reports `name` at `path` if it is no field that may be taken over from one message into another.
pub(super) fn copied(path: &[Key<'_>], name: &str, report: &mut Report) {
    token(path, name, "a field name", report);
    if let Some(why) = forbidden(name, Of::Request) {
        let error = Diagnostic::error(format!("{} cannot be taken over", report.shown(path, name)));
        report.push_at(path, error.label(why.label).hint(why.hint));
    }
}

/// Reports the key at the end of `path` if it is not a field name.
pub(super) fn field_name_key(path: &[Key<'_>], name: &str, report: &mut Report) {
    if !is_token(name) {
        report.push_at_key(path, Diagnostic::error(format!("`{name}` is not a field name")).hint(TOKEN_HINT));
    }
}

/// Reports `text` at `path` if it cannot be a field value.
pub(super) fn field_value(path: &[Key<'_>], text: &str, report: &mut Report) {
    if let Some(fault) = field_value_fault(text) {
        report.push_at(path, Diagnostic::error("this cannot be sent as a field value").hint(fault));
    }
}

const TOKEN_HINT: &str = "it is made of letters, digits and !#$%&'*+-.^_`|~";

/// Which message's fields are edited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    Request,
    Response,
}

/// Reports what is wrong with the edits at `path`.
pub(super) fn edits(path: &[Key<'_>], edits: &HeaderEdits, of: Of, report: &mut Report) {
    let below = |keys: &[Key<'static>]| path.iter().copied().chain(keys.iter().copied()).collect::<Vec<_>>();
    for (index, name) in edits.remove.iter().enumerate() {
        let path = below(&key_path!["remove", index]);
        token(&path, name, "a field name", report);
        if let Some(why) = forbidden(name, of) {
            let error = Diagnostic::error(format!("{} cannot be edited", report.shown(&path, name)));
            report.push_at(&path, error.label(why.label).hint(why.hint));
        }
    }
    for (key, fields) in [("set", &edits.set), ("add", &edits.add)] {
        values(&below(&key_path![key]), fields, of, report);
    }
}

fn values(path: &[Key<'_>], fields: &BTreeMap<String, HeaderValue>, of: Of, report: &mut Report) {
    let mut seen = HashMap::new();
    for (name, value) in fields {
        let mut at = path.to_vec();
        at.push(name.into());
        field_name_key(&at, name, report);
        if let HeaderValue::Text(value) = value {
            field_value(&at, value, report);
        }
        if let Some(why) = forbidden(name, of) {
            let error = Diagnostic::error(format!("`{name}` cannot be edited"));
            report.push_at_key(&at, error.label(why.label).hint(why.hint));
        }
        if let Some(earlier) = seen.insert(name.to_ascii_lowercase(), name) {
            let mut first = path.to_vec();
            first.push(earlier.into());
            let place = report.diagnostics.source().locate_key(&first);
            let error = Diagnostic::error(format!("`{name}` is the same field as `{earlier}`"));
            report.push_at_key(&at, error.hint("field names ignore case").also(place, "first here"));
        }
    }
}

struct Why {
    label: &'static str,
    hint: &'static str,
}

/// Why no edit may touch the field `name`: what frames a message (RFC 9112 §6) or belongs to one connection
/// (RFC 9110 §7.6.1) is written by the gateway alone, else one side would read the message otherwise than the other.
fn forbidden(name: &str, of: Of) -> Option<Why> {
    const HOP: [&str; 7] =
        ["connection", "keep-alive", "proxy-connection", "te", "trailer", "upgrade", "expect"];
    let is = |field: &str| name.eq_ignore_ascii_case(field);
    if is("content-length") || is("transfer-encoding") {
        return Some(Why {
            label: "it frames the message",
            hint: "the gateway writes it, to match the body",
        });
    }
    if is("host") {
        let hint = match of {
            Of::Request => "set `host` of the cluster",
            Of::Response => "a response has no such field",
        };
        return Some(Why { label: "it says where the request goes", hint });
    }
    HOP.iter().any(|field| is(field)).then_some(Why {
        label: "it belongs to one connection",
        hint: "the gateway keeps its own connections on each side",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens() {
        for (text, expected) in [
            ("GET", true),
            ("x-a_b.c", true),
            ("", false),
            ("a b", false),
            ("a:", false),
            ("ä", false),
            ("\0", false),
        ] {
            assert_eq!(is_token(text), expected, "{text:?}");
        }
    }

    #[test]
    fn field_values() {
        for (text, is_fine) in [
            ("", true),
            ("a b\tc", true),
            ("ä {host}", true),
            (" a", false),
            ("a\r\nb: c", false),
            ("\x7f", false),
        ] {
            assert_eq!(field_value_fault(text).is_none(), is_fine, "{text:?}");
        }
    }

    #[test]
    fn hosts() {
        for (text, expected) in [
            ("example.com", true),
            ("example.com:8080", true),
            ("10.0.0.1", true),
            ("[::1]", true),
            ("[::1]:80", true),
            ("", false),
            (":80", false),
            ("a/b", false),
            ("user@host", false),
            ("a:99999", false),
            ("::1", false),
            ("[::x]", false),
            ("a b", false),
        ] {
            assert_eq!(is_host(text), expected, "{text:?}");
        }
    }

    #[test]
    fn framing_and_connection_fields_are_the_gateways() {
        for name in
            ["Content-Length", "transfer-encoding", "CONNECTION", "Keep-Alive", "TE", "Upgrade", "Host"]
        {
            assert!(
                forbidden(name, Of::Request).is_some() && forbidden(name, Of::Response).is_some(),
                "{name}"
            );
        }
        for name in ["X-Forwarded-For", "Authorization", "Cookie", "Server", "Date"] {
            assert!(
                forbidden(name, Of::Request).is_none() && forbidden(name, Of::Response).is_none(),
                "{name}"
            );
        }
    }
}
