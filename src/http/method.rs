//! Request methods: those with a meaning of their own here, and what may be assumed of them (RFC 9110 §9).

/// A request method. Names are case-sensitive (RFC 9110 §9.1), so `get` is [`Method::Other`].
#[derive(Copy, Clone, Default, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Options,
    Patch,
    Connect,
    Trace,
    /// Any other token; its text is where the head says.
    #[default]
    Other,
}

/// Bytes a method may have. The longest registered one (`UPDATEREDIRECTREF`) has 17.
pub const METHOD_BYTES_MAX: usize = 32;

impl Method {
    /// The method written as `text`.
    #[inline]
    pub fn parse(text: &[u8]) -> Self {
        match text {
            b"GET" => Self::Get,
            b"POST" => Self::Post,
            b"HEAD" => Self::Head,
            b"PUT" => Self::Put,
            b"DELETE" => Self::Delete,
            b"OPTIONS" => Self::Options,
            b"PATCH" => Self::Patch,
            b"CONNECT" => Self::Connect,
            b"TRACE" => Self::Trace,
            _ => Self::Other,
        }
    }

    /// Whether the client asks for no change (RFC 9110 §9.2.1). Nothing is known of [`Method::Other`].
    #[inline]
    pub const fn is_safe(self) -> bool {
        matches!(self, Self::Get | Self::Head | Self::Options | Self::Trace)
    }

    /// Whether sending it twice is meant to have the effect of sending it once (RFC 9110 §9.2.2): only then may a
    /// gateway repeat it by itself.
    #[inline]
    pub const fn is_idempotent(self) -> bool {
        self.is_safe() || matches!(self, Self::Put | Self::Delete)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_case_sensitive_and_whole() {
        assert_eq!(Method::parse(b"PATCH"), Method::Patch);
        for other in ["get", "GETS", "", "PROPFIND"] {
            assert_eq!(Method::parse(other.as_bytes()), Method::Other, "{other}");
        }
    }

    #[test]
    fn only_what_the_rfc_calls_idempotent_is() {
        use Method::*;
        let all = [Get, Head, Post, Put, Delete, Options, Patch, Connect, Trace, Other];
        let idempotent: Vec<_> = all.into_iter().filter(|method| method.is_idempotent()).collect();
        assert_eq!(idempotent, [Get, Head, Put, Delete, Options, Trace]);
        let safe: Vec<_> = all.into_iter().filter(|method| method.is_safe()).collect();
        assert_eq!(safe, [Get, Head, Options, Trace]);
    }
}
