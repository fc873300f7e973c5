//! What gRPC says over HTTP beside its messages: which requests are its, how long a caller waits, and how it is told of a failure
//! (the gRPC project's "gRPC over HTTP2" and "HTTP to gRPC Status Code Mapping").

/// Whether a `Content-Type` is gRPC's: `application/grpc`, alone or with a format (`+proto`) or parameters. gRPC-Web
/// (`application/grpc-web`) is another protocol.
pub fn is_grpc(content_type: &[u8]) -> bool {
    const NAME: &[u8] = b"application/grpc";
    content_type.get(..NAME.len()).is_some_and(|name| name.eq_ignore_ascii_case(NAME))
        && matches!(content_type.get(NAME.len()), None | Some(b'+' | b';' | b' '))
}

/// What a `grpc-timeout` says, in ms, rounded up: one to eight digits and a unit. `None`: it is malformed.
pub fn timeout_ms(value: &[u8]) -> Option<u64> {
    let (unit, digits) = value.split_last()?;
    if !(1..=8).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count = digits.iter().fold(0u64, |count, digit| count * 10 + u64::from(digit - b'0'));
    Some(match unit {
        b'H' => count * 3_600_000,
        b'M' => count * 60_000,
        b'S' => count * 1000,
        b'm' => count,
        b'u' => count.div_ceil(1000),
        b'n' => count.div_ceil(1_000_000),
        _ => return None,
    })
}

/// A status of gRPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// 1.
    Cancelled = 1,
    /// 2.
    Unknown = 2,
    /// 4.
    DeadlineExceeded = 4,
    /// 7.
    PermissionDenied = 7,
    /// 8.
    ResourceExhausted = 8,
    /// 12.
    Unimplemented = 12,
    /// 13.
    Internal = 13,
    /// 14.
    Unavailable = 14,
    /// 16.
    Unauthenticated = 16,
}

impl Status {
    /// What a status of HTTP, by which the gateway would answer, is to gRPC.
    pub const fn of_http(status: u16) -> Self {
        match status {
            400 | 431 | 414 => Self::Internal,
            401 => Self::Unauthenticated,
            403 => Self::PermissionDenied,
            404 | 405 => Self::Unimplemented,
            408 | 504 => Self::DeadlineExceeded,
            413 => Self::ResourceExhausted,
            429 | 502 | 503 => Self::Unavailable,
            499 => Self::Cancelled,
            _ => Self::Unknown,
        }
    }
}

/// Appends the lines that make a response's head all that there is of it ("Trailers-Only"). `message` is plain text.
pub fn append_status(status: Status, message: &str, lines: &mut Vec<u8>) {
    lines.extend_from_slice(b"grpc-status: ");
    lines.extend_from_slice((status as u8).to_string().as_bytes());
    lines.extend_from_slice(b"\r\ngrpc-message: ");
    for byte in message.bytes() {
        // Percent-encoded but for printable ASCII.
        match byte {
            b' '..=b'~' if byte != b'%' => lines.push(byte),
            _ => lines.extend_from_slice(format!("%{byte:02X}").as_bytes()),
        }
    }
    lines.extend_from_slice(b"\r\nCache-Control: no-store\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types() {
        for ours in
            ["application/grpc", "Application/gRPC+proto", "application/grpc;x=1", "application/grpc ; x"]
        {
            assert!(is_grpc(ours.as_bytes()), "{ours}");
        }
        for other in ["", "application/grp", "application/grpc-web", "application/grpcs", "application/json"]
        {
            assert!(!is_grpc(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn timeouts() {
        let cases: [(&[u8], Option<u64>); 11] = [
            (b"1H", Some(3_600_000)),
            (b"2M", Some(120_000)),
            (b"3S", Some(3000)),
            (b"250m", Some(250)),
            (b"1u", Some(1)),
            (b"99999999n", Some(100)),
            (b"0S", Some(0)),
            (b"123456789m", None),
            (b"S", None),
            (b"1", None),
            (b"-1S", None),
        ];
        for (value, expected) in cases {
            assert_eq!(timeout_ms(value), expected, "{}", String::from_utf8_lossy(value));
        }
    }

    /// The table of `docs/operations.md` is the mapping.
    #[test]
    fn the_documented_mapping_is_current() {
        let mut rows: Vec<(Status, Vec<String>)> = Vec::new();
        for http in 400..600 {
            let status = Status::of_http(http);
            match rows.iter_mut().find(|(known, _)| *known == status) {
                Some((_, from)) => from.push(http.to_string()),
                None if status != Status::Unknown => rows.push((status, vec![http.to_string()])),
                None => {}
            }
        }
        rows.push((Status::Unknown, vec!["others".into()]));
        let mut table = String::from("| the gateway's status | `grpc-status` |\n|---|---|\n");
        for (status, from) in rows {
            let mut name = String::new();
            for letter in format!("{status:?}").chars() {
                name.extend(letter.is_uppercase().then_some(' '));
                name.push(letter.to_ascii_lowercase());
            }
            table.push_str(&format!("| {} | {}{name} |\n", from.join(", "), status as u8));
        }
        let documented = include_str!("../../docs/operations.md");
        assert!(documented.contains(&format!("\n\n{table}\n")), "docs/operations.md lacks:\n{table}");
    }

    #[test]
    fn a_status_is_said_in_lines() {
        let mut lines = Vec::new();
        append_status(Status::Unavailable, "50 % of \u{e9}", &mut lines);
        assert_eq!(
            lines,
            b"grpc-status: 14\r\ngrpc-message: 50 %25 of %C3%A9\r\nCache-Control: no-store\r\n"
        );
    }
}
