//! `host[:port]`, as `Host` and request targets have it (RFC 9110 §7.2, RFC 3986 §3.2). Narrower than the RFC's
//! grammar: only what a DNS name or an IP address needs, so that no two readers can disagree on where a request goes.

use std::net::Ipv6Addr;

use super::extent::Extent;

/// A valid `host[:port]` in a head. Compare hosts without regard to case.
#[derive(Copy, Clone, Default, Debug, PartialEq, Eq)]
pub struct Authority {
    /// All of it, as sent.
    pub whole: Extent,
    /// Without the port and without a trailing dot. An IPv6 address keeps its brackets.
    pub host: Extent,
    /// The port, if one was sent.
    pub port: Option<u16>,
}

/// Bytes of a host: a DNS name's limit (RFC 1035 §2.3.4) and a trailing dot.
const HOST_BYTES_MAX: usize = 254;

impl Authority {
    /// Reads the authority at `at` in `head`: letters, digits, `-`, `.` and `_` in labels that are not empty, or an
    /// IPv6 address in brackets; then nothing, or `:` and a port of 1 to 5 digits up to 65535. `None` otherwise:
    /// also for userinfo, percent-encoding, sub-delimiters, an empty port and an address with a zone.
    #[inline]
    pub fn parse(head: &[u8], at: Extent) -> Option<Self> {
        let text = at.bytes(head);
        let host_len = if text.first() == Some(&b'[') { ipv6_len(text)? } else { name_len(text)? };
        if host_len == 0 || host_len > HOST_BYTES_MAX {
            return None;
        }
        let port = match &text[host_len..] {
            [] => None,
            [b':', digits @ ..] => Some(port(digits)?),
            _ => return None,
        };
        let dot = usize::from(text[host_len - 1] == b'.');
        Some(Self { whole: at, host: Extent { start: at.start, len: (host_len - dot) as u32 }, port })
    }
}

/// Bytes of a registered name or IPv4 address at the beginning of `text`, up to a byte it cannot have.
#[inline]
fn name_len(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        match NAME_BYTES[byte as usize] {
            NameByte::Other => break,
            NameByte::Dot if at == 0 || text[at - 1] == b'.' => return None,
            NameByte::Dot | NameByte::InLabel => at += 1,
        }
    }
    Some(at)
}

/// What a byte is to a name.
#[derive(Copy, Clone)]
enum NameByte {
    InLabel,
    Dot,
    Other,
}

static NAME_BYTES: [NameByte; 256] = {
    let mut table = [NameByte::Other; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = match byte as u8 {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => NameByte::InLabel,
            b'.' => NameByte::Dot,
            _ => NameByte::Other,
        };
        byte += 1;
    }
    table
};

/// Bytes of a bracketed IPv6 address at the beginning of `text`.
fn ipv6_len(text: &[u8]) -> Option<usize> {
    let close = text.iter().position(|byte| *byte == b']')?;
    let address = std::str::from_utf8(&text[1..close]).ok()?;
    address.parse::<Ipv6Addr>().ok().map(|_| close + 1)
}

#[inline]
fn port(digits: &[u8]) -> Option<u16> {
    if digits.is_empty() || digits.len() > 5 {
        return None;
    }
    let mut port = 0_u32;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        port = port * 10 + u32::from(digit - b'0');
    }
    u16::try_from(port).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<(String, Option<u16>)> {
        let head = format!("??{text}??");
        let found = Authority::parse(head.as_bytes(), Extent::between(2, 2 + text.len()))?;
        assert_eq!(found.whole.bytes(head.as_bytes()), text.as_bytes());
        Some((String::from_utf8(found.host.bytes(head.as_bytes()).to_vec()).unwrap(), found.port))
    }

    #[test]
    fn good_ones() {
        for (text, host, port) in [
            ("example.com", "example.com", None),
            ("Example.com.:80", "Example.com", Some(80)),
            ("127.0.0.1:65535", "127.0.0.1", Some(65535)),
            ("[::1]", "[::1]", None),
            ("[2001:db8::1.2.3.4]:0", "[2001:db8::1.2.3.4]", Some(0)),
            ("my_service-1:00080", "my_service-1", Some(80)),
        ] {
            assert_eq!(parse(text), Some((host.to_owned(), port)), "{text}");
        }
        assert!(parse(&"a".repeat(254)).is_some());
    }

    #[test]
    fn bad_ones() {
        for text in [
            "",
            ".",
            "a..b",
            ".a",
            "a..",
            ":80",
            "a:",
            "a:65536",
            "a:000080",
            "a:8o",
            "a:80:80",
            "a b",
            "a,b",
            "a/b",
            "a@b",
            "a%2eb",
            "a\\b",
            "a?b",
            "a#b",
            "a!b",
            "\u{e9}",
            "[::1",
            "[::1]a",
            "[::1]:",
            "[]",
            "[v1.a]",
            "[fe80::1%25eth0]",
            "[127.0.0.1]",
            "::1",
            "a*b",
            "*",
            "a[::1]",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert!(parse(&"a".repeat(255)).is_none());
    }
}
