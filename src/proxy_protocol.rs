//! The PROXY protocol, versions 1 and 2 (HAProxy's `proxy-protocol.txt`): a header in front of a connection's own bytes that says
//! between which addresses the client and the first proxy spoke. Bytes only: whom to believe is not decided here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use thiserror::Error;

/// Bytes of a header, at most. Version 2 could have 64 KiB; what it may hold beside addresses takes some hundred.
pub const PROXY_HEADER_BYTES_MAX: usize = 4096;

/// Bytes of a line of version 1, at most, CRLF included (§2.1).
const LINE_BYTES_MAX: usize = 107;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// The type of the value that holds a checksum (§2.2.3).
const CRC32C: u8 = 0x03;

/// Whose connection it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProxyAddresses {
    /// The client.
    pub source: SocketAddr,
    /// Where it connected to.
    pub destination: SocketAddr,
}

/// What the beginning of a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyHeader {
    /// The beginning of a header; more must come.
    Partial,
    /// A whole one, and how long it is. Without addresses the connection is its peer's own, such as a check of health.
    Complete(usize, Option<ProxyAddresses>),
}

/// Why it is no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ProxyHeaderError {
    /// It begins otherwise.
    #[error("no PROXY header where one must be")]
    Absent,
    /// A line of version 1 that is not as it should be.
    #[error("a malformed PROXY line")]
    Line,
    /// Version 2 of another version, command or kind than is known, or too short for what it says it is.
    #[error("a malformed PROXY header of version 2")]
    Binary,
    /// Longer than [`PROXY_HEADER_BYTES_MAX`].
    #[error("a PROXY header that is too long")]
    TooLong,
    /// The checksum in it is another than its own.
    #[error("a PROXY header with a wrong checksum")]
    Checksum,
}

/// Reads the header that a connection begins with.
///
/// # Errors
/// There is none, or it is malformed.
pub fn parse(bytes: &[u8]) -> Result<ProxyHeader, ProxyHeaderError> {
    let is_beginning = |of: &[u8]| bytes.iter().zip(of).all(|(is, should)| is == should);
    if is_beginning(SIGNATURE) {
        return if bytes.len() < SIGNATURE.len() { Ok(ProxyHeader::Partial) } else { binary(bytes) };
    }
    if !is_beginning(b"PROXY ") {
        return Err(ProxyHeaderError::Absent);
    }
    match memchr::memchr(b'\n', &bytes[..bytes.len().min(LINE_BYTES_MAX)]) {
        Some(at) => {
            let line = bytes[..at].strip_suffix(b"\r").ok_or(ProxyHeaderError::Line)?;
            Ok(ProxyHeader::Complete(at + 1, self::line(line).ok_or(ProxyHeaderError::Line)?))
        }
        None if bytes.len() < LINE_BYTES_MAX => Ok(ProxyHeader::Partial),
        None => Err(ProxyHeaderError::Line),
    }
}

/// A line of version 1; `None`: it is none.
fn line(line: &[u8]) -> Option<Option<ProxyAddresses>> {
    let line = std::str::from_utf8(line).ok()?.strip_prefix("PROXY ")?;
    if line == "UNKNOWN" || line.starts_with("UNKNOWN ") {
        return Some(None);
    }
    let mut words = line.split(' ');
    let (kind, source, destination) = (words.next()?, words.next()?, words.next()?);
    let (source_port, destination_port) = (port(words.next()?)?, port(words.next()?)?);
    if words.next().is_some() {
        return None;
    }
    let ip = |text: &str| -> Option<IpAddr> {
        match kind {
            "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    Some(Some(ProxyAddresses {
        source: SocketAddr::new(ip(source)?.to_canonical(), source_port),
        destination: SocketAddr::new(ip(destination)?.to_canonical(), destination_port),
    }))
}

/// A port as it must be written: digits without a zero in front.
fn port(text: &str) -> Option<u16> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| is_plain)
}

/// A header of version 2, whose signature is there.
fn binary(bytes: &[u8]) -> Result<ProxyHeader, ProxyHeaderError> {
    let Some(&[command, kind, high, low]) = bytes[SIGNATURE.len()..].first_chunk::<4>() else {
        return Ok(ProxyHeader::Partial);
    };
    let begin = SIGNATURE.len() + 4;
    let whole = begin + usize::from(u16::from_be_bytes([high, low]));
    if whole > PROXY_HEADER_BYTES_MAX {
        return Err(ProxyHeaderError::TooLong);
    }
    // Version 2, LOCAL or PROXY.
    if !matches!(command, 0x20 | 0x21) {
        return Err(ProxyHeaderError::Binary);
    }
    let Some(header) = bytes.get(..whole) else { return Ok(ProxyHeader::Partial) };
    let rest = &header[begin..];
    let (addresses, values) = match kind {
        // UNSPEC.
        0x00 => (None, rest),
        // TCP over IPv4.
        0x11 => {
            let (addresses, values) = rest.split_first_chunk::<12>().ok_or(ProxyHeaderError::Binary)?;
            let ip = |at: usize| {
                let octets: [u8; 4] = std::array::from_fn(|place| addresses[at + place]);
                IpAddr::from(octets)
            };
            (Some(ends(ip(0), ip(4), &addresses[8..])), values)
        }
        // TCP over IPv6.
        0x21 => {
            let (addresses, values) = rest.split_first_chunk::<36>().ok_or(ProxyHeaderError::Binary)?;
            let ip = |at: usize| {
                let octets: [u8; 16] = std::array::from_fn(|place| addresses[at + place]);
                IpAddr::from(octets).to_canonical()
            };
            (Some(ends(ip(0), ip(16), &addresses[32..])), values)
        }
        // A stream between names of files: the addresses of the connection are as good.
        0x31 => (None, rest.get(216..).ok_or(ProxyHeaderError::Binary)?),
        _ => return Err(ProxyHeaderError::Binary),
    };
    check_values(header, whole - values.len())?;
    Ok(ProxyHeader::Complete(whole, addresses.filter(|_| command == 0x21)))
}

fn ends(source: IpAddr, destination: IpAddr, ports: &[u8]) -> ProxyAddresses {
    let port = |at: usize| u16::from_be_bytes([ports[at], ports[at + 1]]);
    ProxyAddresses {
        source: SocketAddr::new(source, port(0)),
        destination: SocketAddr::new(destination, port(2)),
    }
}

/// Walks the values behind the addresses: each must be whole, and a checksum right.
fn check_values(header: &[u8], mut at: usize) -> Result<(), ProxyHeaderError> {
    while at < header.len() {
        let Some(&[kind, high, low]) = header[at..].first_chunk::<3>() else {
            return Err(ProxyHeaderError::Binary);
        };
        let begin = at + 3;
        at = begin + usize::from(u16::from_be_bytes([high, low]));
        let value = header.get(begin..at).ok_or(ProxyHeaderError::Binary)?;
        if kind == CRC32C {
            let said = <[u8; 4]>::try_from(value).map_err(|_| ProxyHeaderError::Binary)?;
            // Over the whole header, with zeros in the checksum's place.
            let mut sum = Crc::new();
            sum.add(&header[..begin]);
            sum.add(&[0; 4]);
            sum.add(&header[at..]);
            if sum.value() != u32::from_be_bytes(said) {
                return Err(ProxyHeaderError::Checksum);
            }
        }
    }
    Ok(())
}

/// CRC-32C (RFC 3720 §12.1), bit by bit: it is for one short header per connection.
struct Crc(u32);

impl Crc {
    fn new() -> Self {
        Self(!0)
    }

    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 ^= u32::from(*byte);
            for _ in 0..8 {
                self.0 = if self.0 & 1 == 0 { self.0 >> 1 } else { self.0 >> 1 ^ 0x82f6_3b78 };
            }
        }
    }

    fn value(&self) -> u32 {
        !self.0
    }
}

/// Appends the line of version 1.
pub fn append_line(addresses: ProxyAddresses, out: &mut Vec<u8>) {
    let ProxyAddresses { source, destination } = of_one_family(addresses);
    let kind = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let (from, to) = (source.ip(), destination.ip());
    let line = format!("PROXY {kind} {from} {to} {} {}\r\n", source.port(), destination.port());
    out.extend_from_slice(line.as_bytes());
}

/// Appends the header of version 2.
pub fn append_binary(addresses: ProxyAddresses, out: &mut Vec<u8>) {
    let ProxyAddresses { source, destination } = of_one_family(addresses);
    out.extend_from_slice(SIGNATURE);
    out.push(0x21);
    match (source.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            out.extend_from_slice(&[0x11, 0, 12]);
            out.extend_from_slice(&from.octets());
            out.extend_from_slice(&to.octets());
        }
        (from, to) => {
            out.extend_from_slice(&[0x21, 0, 36]);
            out.extend_from_slice(&mapped(from).octets());
            out.extend_from_slice(&mapped(to).octets());
        }
    }
    out.extend_from_slice(&source.port().to_be_bytes());
    out.extend_from_slice(&destination.port().to_be_bytes());
}

/// A header has addresses of one family.
fn of_one_family(ProxyAddresses { source, destination }: ProxyAddresses) -> ProxyAddresses {
    if source.is_ipv4() == destination.is_ipv4() {
        return ProxyAddresses { source, destination };
    }
    let mapped = |address: SocketAddr| SocketAddr::new(mapped(address.ip()).into(), address.port());
    ProxyAddresses { source: mapped(source), destination: mapped(destination) }
}

fn mapped(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WHO: &str = "203.0.113.7:4000";
    const TO: &str = "198.51.100.1:443";

    fn addresses(source: &str, destination: &str) -> ProxyAddresses {
        ProxyAddresses { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
    }

    fn v2(command: u8, kind: u8, rest: &[u8]) -> Vec<u8> {
        let len = (rest.len() as u16).to_be_bytes();
        [&SIGNATURE[..], &[command, kind], &len, rest].concat()
    }

    #[test]
    fn lines() {
        let complete = |line: &str| match parse(line.as_bytes()) {
            Ok(ProxyHeader::Complete(len, addresses)) => (len, addresses),
            other => panic!("{line}: {other:?}"),
        };
        let line = "PROXY TCP4 203.0.113.7 198.51.100.1 4000 443\r\n";
        assert_eq!(complete(line), (line.len(), Some(addresses(WHO, TO))));
        assert_eq!(complete(&format!("{line}GET /")), (line.len(), Some(addresses(WHO, TO))));
        let six = "PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n";
        assert_eq!(complete(six).1, Some(addresses("[2001:db8::1]:1", "[2001:db8::2]:65535")));
        let mapped = "PROXY TCP6 ::ffff:203.0.113.7 ::ffff:198.51.100.1 4000 443\r\n";
        assert_eq!(complete(mapped).1, Some(addresses(WHO, TO)));
        assert_eq!(complete("PROXY UNKNOWN\r\n"), (15, None));
        assert_eq!(complete("PROXY UNKNOWN whatever 1 2 3\r\n").1, None);
        for wrong in [
            "PROXY TCP4 203.0.113.7 198.51.100.1 4000 443\n",
            "PROXY TCP4 203.0.113.7 198.51.100.1 4000\r\n",
            "PROXY TCP4 203.0.113.7 198.51.100.1 4000 443 1\r\n",
            "PROXY TCP4  203.0.113.7 198.51.100.1 4000 443\r\n",
            "PROXY TCP4 203.0.113.007 198.51.100.1 4000 443\r\n",
            "PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
            "PROXY TCP6 203.0.113.7 198.51.100.1 4000 443\r\n",
            "PROXY TCP4 203.0.113.7 198.51.100.1 04000 443\r\n",
            "PROXY TCP4 203.0.113.7 198.51.100.1 +400 443\r\n",
            "PROXY TCP4 203.0.113.7 198.51.100.1 65536 443\r\n",
            "PROXY UDP4 203.0.113.7 198.51.100.1 1 2\r\n",
            "PROXY \r\n",
            "PROXY UNKNOWNX\r\n",
        ] {
            assert_eq!(parse(wrong.as_bytes()), Err(ProxyHeaderError::Line), "{wrong}");
        }
        for absent in ["GET / HTTP/1.1\r\n", "proxy TCP4", "PROXX", "\r\n\r\n\0\r\nQUIX", "\x16\x03\x01"] {
            assert_eq!(parse(absent.as_bytes()), Err(ProxyHeaderError::Absent), "{absent}");
        }
        let endless = format!("PROXY UNKNOWN {}", "x".repeat(100));
        assert_eq!(parse(&endless.as_bytes()[..106]), Ok(ProxyHeader::Partial));
        assert_eq!(parse(endless.as_bytes()), Err(ProxyHeaderError::Line));
    }

    #[test]
    fn headers_of_version_2() {
        let four =
            [&[203, 0, 113, 7, 198, 51, 100, 1][..], &4000u16.to_be_bytes(), &443u16.to_be_bytes()].concat();
        let whole = v2(0x21, 0x11, &four);
        assert_eq!(parse(&whole), Ok(ProxyHeader::Complete(28, Some(addresses(WHO, TO)))));
        assert_eq!(parse(&v2(0x20, 0x11, &four)), Ok(ProxyHeader::Complete(28, None)), "LOCAL");
        assert_eq!(parse(&v2(0x20, 0, &[])), Ok(ProxyHeader::Complete(16, None)));
        assert_eq!(parse(&v2(0x21, 0x31, &[0; 216])), Ok(ProxyHeader::Complete(232, None)), "files");
        // Values behind: one that is known to say nothing, and a checksum.
        let mut summed = v2(0x21, 0x11, &[&four[..], &[4, 0, 1, 9, CRC32C, 0, 4, 0, 0, 0, 0]].concat());
        let mut sum = Crc::new();
        sum.add(&summed);
        let at = summed.len() - 4;
        summed[at..].copy_from_slice(&sum.value().to_be_bytes());
        assert_eq!(parse(&summed), Ok(ProxyHeader::Complete(summed.len(), Some(addresses(WHO, TO)))));
        summed[17] ^= 1;
        assert_eq!(parse(&summed), Err(ProxyHeaderError::Checksum));
        for wrong in [
            v2(0x11, 0x11, &four),
            v2(0x22, 0x11, &four),
            v2(0x21, 0x12, &four),
            v2(0x21, 0x41, &four),
            v2(0x21, 0x11, &four[..11]),
            v2(0x21, 0x21, &four),
            v2(0x21, 0x11, &[&four[..], &[4, 0]].concat()),
            v2(0x21, 0x11, &[&four[..], &[4, 0, 2, 9]].concat()),
            v2(0x21, 0x11, &[&four[..], &[CRC32C, 0, 1, 9]].concat()),
        ] {
            assert_eq!(parse(&wrong), Err(ProxyHeaderError::Binary), "{wrong:?}");
        }
        assert_eq!(parse(&v2(0x21, 0, &[0; 5000])), Err(ProxyHeaderError::TooLong));
    }

    #[test]
    fn the_checksum_is_the_one_of_the_standard() {
        let mut sum = Crc::new();
        sum.add(b"123456789");
        assert_eq!(sum.value(), 0xe306_9283);
    }

    fn any_address() -> impl Strategy<Value = SocketAddr> {
        let ip =
            prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u8; 16]>().prop_map(IpAddr::from)];
        (ip, any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip.to_canonical(), port))
    }

    proptest! {
        /// What is written is read again, and never before its end.
        #[test]
        fn what_is_written_is_read(source in any_address(), destination in any_address(), rest: Vec<u8>) {
            let said = ProxyAddresses { source, destination };
            for append in [append_line, append_binary] {
                let mut bytes = Vec::new();
                append(said, &mut bytes);
                let len = bytes.len();
                for end in 0..len {
                    prop_assert_eq!(parse(&bytes[..end]), Ok(ProxyHeader::Partial));
                }
                bytes.extend_from_slice(&rest);
                prop_assert_eq!(parse(&bytes), Ok(ProxyHeader::Complete(len, Some(said))));
            }
        }

        /// Whatever comes is judged within the limit, and alike however much of it is there.
        #[test]
        fn hostile_bytes(
            start in prop_oneof![Just(&b"PROXY "[..]), Just(&SIGNATURE[..]), Just(&b""[..])],
            rest in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let bytes = [start, &rest].concat();
            let whole = parse(&bytes);
            if let Ok(ProxyHeader::Complete(len, _)) = whole {
                prop_assert!(len <= bytes.len() && len <= PROXY_HEADER_BYTES_MAX);
                prop_assert_eq!(parse(&bytes[..len]), whole);
            }
            for end in 0..bytes.len() {
                match parse(&bytes[..end]) {
                    Ok(ProxyHeader::Partial) => {}
                    settled => prop_assert_eq!(settled, whole),
                }
            }
        }
    }
}
