//! The two versions this parser speaks.

/// The version in a request or status line.
#[derive(Copy, Clone, Default, Debug, PartialEq, Eq)]
pub enum Version {
    /// `HTTP/1.0`: no chunked coding, closes by default, Host is optional.
    Http10,
    /// `HTTP/1.1` (RFC 9112).
    #[default]
    Http11,
}

impl Version {
    /// As written on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
        }
    }

    /// From httparse's minor version.
    #[inline]
    pub(super) const fn from_minor(minor: u8) -> Self {
        if minor == 0 { Self::Http10 } else { Self::Http11 }
    }
}

/// Whether `text` is shaped like a version (`HTTP/` DIGIT `.` DIGIT, RFC 9112 §2.3), or, when it `may_go_on`, like the
/// beginning of one: what is wrong with it is then only the number.
pub(super) fn is_shaped_like_one(text: &[u8], may_go_on: bool) -> bool {
    let shape = b"HTTP/0.0";
    let fits = |(byte, form): (&u8, &u8)| if *form == b'0' { byte.is_ascii_digit() } else { byte == form };
    (text.len() == shape.len() || may_go_on && text.len() < shape.len()) && text.iter().zip(shape).all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes() {
        for good in ["HTTP/1.1", "HTTP/2.0", "HTTP/9.9"] {
            assert!(is_shaped_like_one(good.as_bytes(), false), "{good}");
            assert!(is_shaped_like_one(good.as_bytes(), true), "{good}");
        }
        for begun in ["HTTP/2", "HT", ""] {
            assert!(is_shaped_like_one(begun.as_bytes(), true), "{begun}");
            assert!(!is_shaped_like_one(begun.as_bytes(), false), "{begun}");
        }
        for bad in ["HTTP/1.10", "http/1.1", "HTTP/x.1", "HTTP 1.1", "HTTPS/1.1"] {
            assert!(!is_shaped_like_one(bad.as_bytes(), true), "{bad}");
        }
    }
}
