//! The fields that tell an upstream who asked: `X-Forwarded-For`, `-Proto`, `-Host` and `Forwarded` (RFC 7239); and,
//! read the other way round, who the client behind trusted proxies is. The incoming fields themselves are removed by
//! the caller in any case: what is written here is all that goes on.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::telemetry::text::append_ip;

use super::is_token;

/// Elements of `X-Forwarded-For` that are looked at from the right, to find the client. A chain longer than that is
/// no chain of proxies.
pub const HOPS_MAX: usize = 32;
/// Bytes of an incoming `X-Forwarded-Host` that is kept: a name of 255 bytes and a port.
const HOST_BYTES_MAX: usize = 261;
/// Bytes of an incoming `X-Forwarded-Proto` that is kept.
const PROTO_BYTES_MAX: usize = 16;

/// The hop that ends here: what is said of it upstream.
#[derive(Debug, Clone, Copy)]
pub struct Hop<'a> {
    /// The peer of the client connection: client or proxy.
    pub peer: IpAddr,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// The host the request is for, with its port, as sent; empty when it has none.
    pub host: &'a [u8],
    /// Whether the peer is one of the listener's `trusted_proxies`: what it says is extended. What anyone else says
    /// is ignored, the fields are made anew.
    pub is_trusted: bool,
}

impl Hop<'_> {
    /// Appends the three `X-Forwarded-` lines of a peer that is not trusted: what the three functions below append,
    /// whatever came in. Most requests have these, so that they are written in few pieces, most of a fixed length.
    pub fn append_x_forwarded_anew(&self, out: &mut Vec<u8>) {
        debug_assert!(!self.is_trusted);
        out.extend_from_slice(b"X-Forwarded-For: ");
        append_ip(self.peer, out);
        match self.scheme {
            "http" => out.extend_from_slice(b"\r\nX-Forwarded-Proto: http\r\n"),
            scheme => append_line(b"\r\nX-Forwarded-Proto: ", scheme.as_bytes(), out),
        }
        if is_host(self.host) {
            append_line(b"X-Forwarded-Host: ", self.host, out);
        }
    }

    /// Appends the line `X-Forwarded-For`: what a trusted peer said, and the peer's address. `incoming`: the values
    /// of the fields of that name, in order. One with bytes that no field value has is left out.
    pub fn append_x_forwarded_for<'v>(
        &self,
        incoming: impl IntoIterator<Item = &'v [u8]>,
        out: &mut Vec<u8>,
    ) {
        out.extend_from_slice(b"X-Forwarded-For: ");
        if self.is_trusted {
            let values = incoming.into_iter().map(<[u8]>::trim_ascii);
            append_list(values.filter(|value| is_field_text(value)), out);
        }
        append_ip(self.peer, out);
        out.extend_from_slice(b"\r\n");
    }

    /// Appends the line `X-Forwarded-Proto`: what a trusted peer said if that is one scheme, else this hop's.
    pub fn append_x_forwarded_proto<'v>(
        &self,
        incoming: impl IntoIterator<Item = &'v [u8]>,
        out: &mut Vec<u8>,
    ) {
        let kept = self.only(incoming).filter(|value| is_scheme(value));
        append_line(b"X-Forwarded-Proto: ", kept.unwrap_or(self.scheme.as_bytes()), out);
    }

    /// Appends the line `X-Forwarded-Host`: what a trusted peer said if that is one host, else this hop's; nothing
    /// when there is neither.
    pub fn append_x_forwarded_host<'v>(
        &self,
        incoming: impl IntoIterator<Item = &'v [u8]>,
        out: &mut Vec<u8>,
    ) {
        let kept = self.only(incoming).filter(|value| is_host(value));
        if let Some(host) = kept.or_else(|| Some(self.host).filter(|host| is_host(host))) {
            append_line(b"X-Forwarded-Host: ", host, out);
        }
    }

    /// Appends the line `Forwarded` (RFC 7239 §4): what a trusted peer said, and an element with `for`, `host` and
    /// `proto`. `by` is not said: it would tell the gateway's inner address. An incoming value that is no list of
    /// elements is left out: an open quote in it would swallow the element that follows.
    pub fn append_forwarded<'v>(&self, incoming: impl IntoIterator<Item = &'v [u8]>, out: &mut Vec<u8>) {
        out.extend_from_slice(b"Forwarded: ");
        if self.is_trusted {
            let values = incoming.into_iter().map(<[u8]>::trim_ascii);
            append_list(values.filter(|value| is_forwarded_list(value)), out);
        }
        match self.peer.to_canonical() {
            ip @ IpAddr::V4(_) => {
                out.extend_from_slice(b"for=");
                append_ip(ip, out);
            }
            // Colons and brackets are no token: quoted (RFC 7239 §6).
            ip @ IpAddr::V6(_) => {
                out.extend_from_slice(b"for=\"[");
                append_ip(ip, out);
                out.extend_from_slice(b"]\"");
            }
        }
        if is_host(self.host) {
            out.extend_from_slice(b";host=");
            if is_token(self.host) {
                out.extend_from_slice(self.host);
            } else {
                // A host has no quote and no backslash.
                out.push(b'"');
                out.extend_from_slice(self.host);
                out.push(b'"');
            }
        }
        append_line(b";proto=", self.scheme.as_bytes(), out);
    }

    /// What a trusted peer said, if it said it once.
    fn only<'v>(&self, incoming: impl IntoIterator<Item = &'v [u8]>) -> Option<&'v [u8]> {
        if !self.is_trusted {
            return None;
        }
        let mut values = incoming.into_iter();
        let value = values.next()?;
        values.next().is_none().then_some(value.trim_ascii())
    }
}

#[inline]
fn append_line(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name);
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Appends the values, each followed by a comma.
fn append_list<'v>(values: impl Iterator<Item = &'v [u8]>, out: &mut Vec<u8>) {
    for value in values.filter(|value| !value.is_empty()) {
        out.extend_from_slice(value);
        out.extend_from_slice(b", ");
    }
}

/// The client's address as policies see it: when the peer is trusted, the right-most untrusted element of its
/// `X-Forwarded-For`; every element to its right was written by a proxy of ours.
///
/// `values`: the fields of that name, in order. An element may have a port and brackets. At one that is no address
/// the search ends: the proxy that passed it on is the last that is known. When all are trusted, it is the left-most;
/// at most [`HOPS_MAX`] are looked at.
pub fn client_ip<'v, I>(peer: IpAddr, values: I, trusted: &[IpNet]) -> IpAddr
where
    I: IntoIterator<Item = &'v [u8]>,
    I::IntoIter: DoubleEndedIterator,
{
    let mut client = peer.to_canonical();
    let elements = values.into_iter().rev().flat_map(|value| value.rsplit(|byte| *byte == b','));
    for element in elements.take(HOPS_MAX) {
        if !is_trusted(client, trusted) {
            break;
        }
        let Some(ip) = parse_element(element.trim_ascii()) else { break };
        client = ip.to_canonical();
    }
    client
}

/// Whether an address is in one of the networks. An IPv4 address mapped into IPv6 is the IPv4 address.
pub fn is_trusted(ip: IpAddr, trusted: &[IpNet]) -> bool {
    let ip = ip.to_canonical();
    trusted.iter().any(|net| net.contains(&ip))
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`.
fn parse_element(element: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(element).ok()?;
    if let Ok(ip) = text.parse() {
        return Some(ip);
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some(address.ip());
    }
    text.strip_prefix('[')?.strip_suffix(']')?.parse().ok().map(IpAddr::V6)
}

/// Visible ASCII, blank and tab: what is copied into a field of ours.
fn is_field_text(value: &[u8]) -> bool {
    value.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\t'))
}

/// RFC 3986 §3.1.
fn is_scheme(value: &[u8]) -> bool {
    value.len() <= PROTO_BYTES_MAX
        && value.first().is_some_and(u8::is_ascii_alphabetic)
        && value.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
}

/// The characters of a host and port (RFC 3986 §3.2.2), none of which needs an escape between quotes. What a host
/// means was settled where the request was accepted.
fn is_host(value: &[u8]) -> bool {
    (1..=HOST_BYTES_MAX).contains(&value.len())
        && value.iter().fold(true, |all, byte| all & HOST_BYTES[usize::from(*byte)])
}

/// Every request's host is looked at byte by byte: one look instead of a row of comparisons.
static HOST_BYTES: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = (byte as u8).is_ascii_alphanumeric()
            || matches!(byte as u8, b'-' | b'.' | b'_' | b'~' | b'%' | b':' | b'[' | b']')
            || matches!(byte as u8, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b';' | b'=');
        byte += 1;
    }
    table
};

/// RFC 7239 §4: elements separated by commas, each of `name=value` separated by semicolons, a value being a token or
/// a quoted string. Blanks round the separators and empty elements are let pass (RFC 9110 §5.6.1.2).
fn is_forwarded_list(value: &[u8]) -> bool {
    // Else the blanks skipped below could be line breaks.
    if !is_field_text(value) {
        return false;
    }
    let mut rest = value;
    loop {
        rest = rest.trim_ascii_start();
        match rest {
            [] => return true,
            [b',' | b';', after @ ..] => rest = after,
            _ => match skip_pair(rest).map(<[u8]>::trim_ascii_start) {
                Some(after @ ([] | [b',' | b';', ..])) => rest = after,
                _ => return false,
            },
        }
    }
}

/// What follows `name=value`.
fn skip_pair(text: &[u8]) -> Option<&[u8]> {
    let (name, text) = text.split_at(memchr::memchr(b'=', text)?);
    let value = &text[1..];
    if !is_token(name) {
        return None;
    }
    if let Some(mut rest) = value.strip_prefix(b"\"") {
        loop {
            match rest {
                [b'"', after @ ..] => return Some(after),
                [b'\\', b' '..=b'~' | b'\t', after @ ..] => rest = after,
                [b' '..=b'~' | b'\t', after @ ..] if rest[0] != b'\\' => rest = after,
                _ => return None,
            }
        }
    }
    let end = value.iter().position(|byte| !super::is_token_byte(*byte)).unwrap_or(value.len());
    (end > 0).then(|| &value[end..])
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, sample};

    use super::*;

    fn hop(peer: &str, host: &'static str, is_trusted: bool) -> Hop<'static> {
        Hop { peer: peer.parse().unwrap(), scheme: "http", host: host.as_bytes(), is_trusted }
    }

    /// All four lines, with `incoming` for each of them.
    fn lines(hop: &Hop<'_>, incoming: &[&[u8]]) -> String {
        let mut out = Vec::new();
        hop.append_x_forwarded_for(incoming.iter().copied(), &mut out);
        hop.append_x_forwarded_proto(incoming.iter().copied(), &mut out);
        hop.append_x_forwarded_host(incoming.iter().copied(), &mut out);
        hop.append_forwarded(incoming.iter().copied(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_unknown_peer_is_overwritten() {
        let expected = "X-Forwarded-For: 192.0.2.1\r\n\
                        X-Forwarded-Proto: http\r\n\
                        X-Forwarded-Host: a.example:8080\r\n\
                        Forwarded: for=192.0.2.1;host=\"a.example:8080\";proto=http\r\n";
        let hop = hop("192.0.2.1", "a.example:8080", false);
        assert_eq!(lines(&hop, &[]), expected);
        assert_eq!(lines(&hop, &[b"for=10.0.0.1"]), expected);
        assert_eq!(lines(&hop, &[b"https"]), expected);
    }

    #[test]
    fn a_trusted_peer_is_extended() {
        let hop = hop("2001:db8::7", "a.example", true);
        let mut out = Vec::new();
        hop.append_x_forwarded_for([&b"203.0.113.9"[..], b"unknown , 10.0.0.1 "], &mut out);
        hop.append_x_forwarded_proto([&b"https"[..]], &mut out);
        hop.append_x_forwarded_host([&b"b.example:444"[..]], &mut out);
        hop.append_forwarded([&b"for=\"[2001:db8::9]:1\";proto=https, for=_x"[..], b"for=unknown"], &mut out);
        let expected = "X-Forwarded-For: 203.0.113.9, unknown , 10.0.0.1, 2001:db8::7\r\n\
                        X-Forwarded-Proto: https\r\n\
                        X-Forwarded-Host: b.example:444\r\n\
                        Forwarded: for=\"[2001:db8::9]:1\";proto=https, for=_x, for=unknown, \
                        for=\"[2001:db8::7]\";host=a.example;proto=http\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn nonsense_of_a_trusted_peer_is_left_out() {
        let fresh = lines(&hop("::ffff:192.0.2.1", "", true), &[]);
        assert_eq!(
            fresh,
            "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: http\r\nForwarded: for=192.0.2.1;proto=http\r\n"
        );
        for nonsense in [&b"\xff"[..], b"a\r\nx: y", b"\0", b"", b"  ", b"\"\x7f"] {
            assert_eq!(lines(&hop("192.0.2.1", "", true), &[nonsense]), fresh, "{nonsense:?}");
        }
        // Said twice, it says nothing.
        assert!(lines(&hop("192.0.2.1", "", true), &[b"https", b"https"]).contains("Proto: http\r\n"));
    }

    #[test]
    fn forwarded_lists() {
        for good in [
            "for=1.2.3.4",
            "For=\"[::1]:80\" ; proto=http,for=b",
            "for=\"a\\\"b, for=c\"",
            "",
            ", ,for=a",
            "for=a;",
            "for=\"\"",
        ] {
            assert!(is_forwarded_list(good.as_bytes()), "{good}");
        }
        for bad in [
            "for=\"a",
            "for=\"a\\\"",
            "for",
            "for=",
            "=a",
            "for=a b",
            "for=[::1]",
            "for =a",
            ",\r,",
            "for=a\n",
            "for=\"a\"b",
            "f\\=a",
        ] {
            assert!(!is_forwarded_list(bad.as_bytes()), "{bad}");
        }
    }

    fn nets(nets: &[&str]) -> Vec<IpNet> {
        nets.iter().map(|net| net.parse().unwrap()).collect()
    }

    #[test]
    fn the_client_is_the_right_most_untrusted() {
        let trusted = nets(&["10.0.0.0/8", "fd00::/8"]);
        for (peer, values, expected) in [
            ("192.0.2.1", &["203.0.113.9"][..], "192.0.2.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["203.0.113.9"], "203.0.113.9"),
            ("::ffff:10.0.0.1", &["203.0.113.9:4711"], "203.0.113.9"),
            ("10.0.0.1", &["1.1.1.1, 203.0.113.9", "10.0.0.2 , fd00::3"], "203.0.113.9"),
            ("10.0.0.1", &["1.1.1.1", "[2001:db8::1]:80,[fd00::2]"], "2001:db8::1"),
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            ("10.0.0.1", &["1.1.1.1, unknown, 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &["1.1.1.1,"], "10.0.0.1"),
            ("10.0.0.1", &["1.1.1.1, 010.0.0.2"], "10.0.0.1"),
        ] {
            let values = values.iter().map(|value| value.as_bytes());
            assert_eq!(
                client_ip(peer.parse().unwrap(), values, &trusted),
                expected.parse::<IpAddr>().unwrap()
            );
        }
    }

    #[test]
    fn a_chain_is_looked_at_to_its_limit() {
        let trusted = nets(&["10.0.0.0/8"]);
        let at_limit = format!("1.1.1.1{}", ", 10.0.0.2".repeat(HOPS_MAX - 1));
        let beyond = format!("1.1.1.1{}", ", 10.0.0.2".repeat(HOPS_MAX));
        let peer = "10.0.0.1".parse().unwrap();
        assert_eq!(client_ip(peer, [at_limit.as_bytes()], &trusted), "1.1.1.1".parse::<IpAddr>().unwrap());
        assert_eq!(client_ip(peer, [beyond.as_bytes()], &trusted), "10.0.0.2".parse::<IpAddr>().unwrap());
    }

    /// Values of fields, hostile ones too.
    fn values() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let hostile = sample::select(b"\"\\\r\n,;=:[] \t\x00af1.\xff".to_vec());
        let value = prop_oneof![
            prop::collection::vec(hostile, 0..40),
            "[ -~]{0,40}".prop_map(String::into_bytes),
            "(for=(\"[a-z:\\[\\]]{0,5}\"|[a-z]{1,5})[,;] ?){0,3}".prop_map(String::into_bytes),
        ];
        prop::collection::vec(value, 0..4)
    }

    proptest! {
        /// Whatever comes in: well-formed lines, and our element is the last one, outside any quotes.
        #[test]
        fn lines_stay_lines(values in values(), host in prop::collection::vec(any::<u8>(), 0..20), is_trusted: bool) {
            let hop = Hop { peer: IpAddr::from([192, 0, 2, 1]), scheme: "https", host: &host, is_trusted };
            let incoming: Vec<_> = values.iter().map(Vec::as_slice).collect();
            let text = lines(&hop, &incoming);
            if !is_trusted {
                let mut anew = Vec::new();
                hop.append_x_forwarded_anew(&mut anew);
                prop_assert_eq!(str::from_utf8(&anew), Ok(&text[..text.find("Forwarded: ").unwrap()]));
            }
            prop_assert!(text.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\t' | b'\r' | b'\n')));
            let lines: Vec<_> = text.split("\r\n").collect();
            prop_assert_eq!(lines.len(), if text.contains("-Host: ") { 5 } else { 4 });
            prop_assert!(lines.iter().all(|line| !line.contains(['\r', '\n'])));
            prop_assert!(lines[0].ends_with(": 192.0.2.1") || lines[0].ends_with(", 192.0.2.1"));
            let forwarded = lines[lines.len() - 2].strip_prefix("Forwarded: ").unwrap();
            prop_assert!(is_forwarded_list(forwarded.as_bytes()));
            let quotes = forwarded[..forwarded.rfind("for=192.0.2.1").unwrap()].replace("\\\\", "").replace("\\\"", "");
            prop_assert_eq!(quotes.matches('"').count() % 2, 0);
        }

        #[test]
        fn a_client_is_the_peer_or_was_named(values in values(), peer: IpAddr) {
            let named: Vec<_> = values.iter().flat_map(|value| value.split(|b| *b == b',')).collect();
            let client = client_ip(peer, values.iter().map(Vec::as_slice), &nets(&["0.0.0.0/1", "::/1"]));
            let was_named = named.iter().filter_map(|element| parse_element(element.trim_ascii()));
            prop_assert!(client == peer.to_canonical() || was_named.into_iter().any(|ip| ip.to_canonical() == client));
        }
    }
}
