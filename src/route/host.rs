//! Hosts: what may be written in `match.host`, and the one form in which it is compared with a request's. It does not
//! know ports, `Host` fields or authorities; those are parsed before a request gets here.

use std::{io::Write, net::Ipv6Addr, str};

use super::spec::Refusal;

/// Bytes of a host name without its trailing dot (RFC 1035 §2.3.4). A longer one in a request matches no written host.
pub(super) const HOST_BYTES_MAX: usize = 253;

/// Bytes of one label (RFC 1035 §2.3.4).
const LABEL_BYTES_MAX: usize = 63;

/// A host as routes ask for it: lower case, no trailing dot, IPv6 in brackets and in its shortest form (RFC 5952).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum HostPattern {
    /// This host.
    Exact(String),
    /// Every name below this one, at any depth; not this one.
    Below(String),
}

impl HostPattern {
    pub(super) fn parse(text: &str) -> Result<Self, Refusal> {
        let lower = text.to_ascii_lowercase();
        if let Some(refusal) = mistaken(text, &lower) {
            return Err(refusal);
        }
        if let Some(address) = ipv6(lower.as_bytes()) {
            return Ok(Self::Exact(format!("[{address}]")));
        }
        if lower.contains(['[', ']']) {
            return Err(Refusal::new(format!("`{text}` is not an IPv6 address")));
        }
        if let Some((name, port)) = lower.rsplit_once(':') {
            let port_like = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
            let refusal = Refusal::new(format!("`{text}` is not a host name: it has a `:`"));
            return Err(if port_like && !name.contains(':') {
                refusal.hint(format!("a host is matched without its port: \"{name}\""))
            } else {
                refusal
            });
        }
        let name = lower.strip_suffix('.').unwrap_or(&lower);
        let (name, below) = name.strip_prefix("*.").map_or((name, false), |name| (name, true));
        check_name(text, name)?;
        Ok(if below { Self::Below(name.into()) } else { Self::Exact(name.into()) })
    }

    /// Whether a request's host, as [`normal`] returns it, is one of these.
    pub(super) fn takes(&self, host: &[u8]) -> bool {
        match self {
            Self::Exact(name) => host == name.as_bytes(),
            Self::Below(name) => host
                .strip_suffix(name.as_bytes())
                .and_then(|above| above.strip_suffix(b"."))
                .is_some_and(|above| !above.is_empty() && !host.starts_with(b"[")),
        }
    }
}

/// The mistakes that deserve their own words.
fn mistaken(text: &str, lower: &str) -> Option<Refusal> {
    if text.is_empty() {
        return Some(
            Refusal::new("an empty host matches nothing").hint("leave `host` out to match any host"),
        );
    }
    if text == "*" {
        return Some(Refusal::new("`*` is not a host").hint("leave `host` out to match any host"));
    }
    if let Some((_, rest)) = lower.split_once("://") {
        let host = rest.split('/').next().unwrap_or(rest);
        return Some(
            Refusal::new(format!("`{text}` is a URL, not a host"))
                .hint(format!("write the host alone: \"{host}\"")),
        );
    }
    if !text.is_ascii() {
        return Some(
            Refusal::new(format!("`{text}` is not ASCII, and on the wire a host is"))
                .hint("write its A-label form, `xn--…` (RFC 5890)"),
        );
    }
    None
}

fn check_name(text: &str, name: &str) -> Result<(), Refusal> {
    if name.len() > HOST_BYTES_MAX {
        return Err(Refusal::new(format!(
            "a host name has at most {HOST_BYTES_MAX} bytes, this one {}",
            name.len()
        )));
    }
    for label in name.split('.') {
        if label.is_empty() {
            return Err(Refusal::new(format!("`{text}` has an empty label")));
        }
        if label.len() > LABEL_BYTES_MAX {
            return Err(Refusal::new(format!(
                "a label has at most {LABEL_BYTES_MAX} bytes, `{label}` is longer"
            )));
        }
        if label.contains('*') {
            let suffix = name.rsplit_once("*.").map_or("example.com", |(_, suffix)| suffix);
            return Err(Refusal::new(format!("in `{text}`, `*` must be the whole first label, once"))
                .hint(format!("\"*.{suffix}\" takes every name below {suffix}, at any depth")));
        }
        if let Some(bad) = label.chars().find(|c| !c.is_ascii_alphanumeric() && *c != '-' && *c != '_') {
            return Err(Refusal::new(format!(
                "`{text}` is not a host name: it has a `{}`",
                bad.escape_default()
            )));
        }
    }
    Ok(())
}

/// A request's host in the form in which [`HostPattern`]s are written, in `buffer`. `None` when it is none that a
/// pattern could have: empty or longer than a name may be.
pub(super) fn normal<'b>(host: &[u8], buffer: &'b mut [u8; HOST_BYTES_MAX]) -> Option<&'b [u8]> {
    if memchr::memchr(b':', host).is_some() {
        let address = ipv6(host)?;
        let room = buffer.len();
        let mut rest = &mut buffer[..];
        write!(rest, "[{address}]").ok()?;
        let len = room - rest.len();
        return Some(&buffer[..len]);
    }
    let name = host.strip_suffix(b".").unwrap_or(host);
    let normal = buffer.get_mut(..name.len()).filter(|normal| !normal.is_empty())?;
    normal.copy_from_slice(name);
    normal.make_ascii_lowercase();
    Some(normal)
}

/// An IPv6 address, with or without its brackets.
fn ipv6(host: &[u8]) -> Option<Ipv6Addr> {
    let bare = host.strip_prefix(b"[").map_or(Some(host), |rest| rest.strip_suffix(b"]"))?;
    str::from_utf8(bare).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn takes(pattern: &str, host: &str) -> bool {
        let mut buffer = [0; HOST_BYTES_MAX];
        normal(host.as_bytes(), &mut buffer)
            .is_some_and(|host| HostPattern::parse(pattern).unwrap().takes(host))
    }

    #[test]
    fn names_are_compared_without_case_and_trailing_dot() {
        assert!(takes("Example.COM", "eXample.com"));
        assert!(takes("example.com.", "example.com"));
        assert!(takes("example.com", "example.com."));
        assert!(!takes("example.com", "example.com.."));
        assert!(!takes("example.com", "xexample.com"));
    }

    #[test]
    fn a_wildcard_takes_what_is_below_at_any_depth() {
        assert!(takes("*.example.com", "a.example.com"));
        assert!(takes("*.example.com", "a.b.Example.com."));
        assert!(!takes("*.example.com", "example.com"));
        assert!(!takes("*.example.com", ".example.com"));
        assert!(!takes("*.example.com", "aexample.com"));
    }

    #[test]
    fn ipv6_is_compared_as_an_address() {
        assert!(takes("[::1]", "[0:0:0:0:0:0:0:1]"));
        assert!(takes("::1", "[::1]"));
        assert!(takes("[2001:DB8::A]", "[2001:db8:0::a]"));
        assert!(!takes("[::1]", "[::2]"));
        assert!(!takes("[::1]", "[::1"));
    }

    #[test]
    fn hosts_that_nobody_could_have_sent_are_refused() {
        let hint = |text: &str| HostPattern::parse(text).unwrap_err().hint.unwrap_or_default();
        assert_eq!(hint("example.com:8080"), "a host is matched without its port: \"example.com\"");
        assert_eq!(hint("https://Example.com/x"), "write the host alone: \"example.com\"");
        assert_eq!(hint("*"), "leave `host` out to match any host");
        assert!(hint("a.*.example.com").starts_with("\"*.example.com\""));
        assert!(hint("*.*.example.com").starts_with("\"*.example.com\""));
        assert!(hint("bücher.example").contains("xn--"));
        let long = format!("{}.com", "a".repeat(64));
        for bad in ["", "a..b", ".a", "a b", "a/b", "[::1", "[x]", "api*.example.com", "*.", ".", &long] {
            assert!(HostPattern::parse(bad).is_err(), "{bad}");
        }
        assert!(HostPattern::parse(&"a.".repeat(127)).is_ok());
        assert!(HostPattern::parse(&"a.".repeat(128)).is_err());
    }

    #[test]
    fn a_host_longer_than_a_name_has_no_normal_form() {
        let mut buffer = [0; HOST_BYTES_MAX];
        assert!(normal(&[b'a'; HOST_BYTES_MAX], &mut buffer).is_some());
        assert!(normal(&[b'a'; HOST_BYTES_MAX + 1], &mut buffer).is_none());
        assert!(normal(b"", &mut buffer).is_none());
        assert!(normal(b".", &mut buffer).is_none());
    }
}
