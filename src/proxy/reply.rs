//! What each failure costs the client: one total table, and the writing of the answer it names (RFC 9457
//! `application/problem+json`, RFC 9209 `Proxy-Status`). Answers say what is wrong and the request's id, and nothing of
//! the gateway's inside.

use super::{core::Core, error::Error, heads};
use crate::{
    buf::Buf,
    clock::HTTP_DATE_BYTES,
    http::{request::RequestError, response::ResponseError, status, version::Version},
    policy::grpc,
    telemetry::figures::REFUSALS_MAX,
};

/// The answer to a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reply {
    /// The status.
    pub(super) status: u16,
    /// Why: the problem type's last part, and the access log's `end`.
    pub(super) reason: Reason,
}

macro_rules! reasons {
    ($($name:ident = $kind:literal, $error:expr, $detail:literal;)*) => {
        /// Why the gateway answered by itself, or cut an exchange off. Stable: clients and alerts go by them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Reason {
            $(#[doc = $detail] $name,)*
        }

        /// Every reason, in the order of their numbers.
        pub const REASONS: &[Reason] = &[$(Reason::$name,)*];

        impl Reason {
            /// Its name in problem types, logs and figures.
            pub const fn kind(self) -> &'static str {
                match self { $(Self::$name => $kind,)* }
            }

            /// A sentence for people.
            pub const fn detail(self) -> &'static str {
                match self { $(Self::$name => $detail,)* }
            }

            /// The error type of RFC 9209 §2.3, where one fits.
            pub const fn proxy_error(self) -> Option<&'static str> {
                match self { $(Self::$name => $error,)* }
            }
        }
    };
}

reasons! {
    HeadMalformed = "head-malformed", Some("http_request_error"), "The request's head is malformed or ambiguous.";
    HeadTooLarge = "head-too-large", Some("http_request_error"), "The request's head is larger, or has more fields, than allowed.";
    TargetTooLong = "target-too-long", Some("http_request_error"), "The request target is longer than allowed.";
    VersionUnsupported = "version-unsupported", Some("http_request_error"), "Only HTTP/1.0 and HTTP/1.1 are spoken here.";
    CodingUnknown = "coding-unknown", Some("http_request_error"), "The only transfer coding understood is chunked.";
    ExpectationUnknown = "expectation-unknown", Some("http_request_error"), "The only expectation understood is 100-continue.";
    PathInvalid = "path-invalid", Some("http_request_error"), "The path has no one meaning, or one that is not allowed.";
    HeadTimeout = "head-timeout", Some("http_request_error"), "The request's head did not come in time.";
    MethodNotAllowed = "method-not-allowed", Some("http_request_denied"), "This method is not allowed here.";
    Misdirected = "misdirected", Some("http_request_error"), "This listener does not serve that scheme or host.";
    CorsOrigin = "cors-origin-refused", Some("http_request_denied"), "Pages of this origin may not ask here.";
    IpRefused = "ip-refused", Some("http_request_denied"), "Requests from your address are not allowed here.";
    CertificateMissing = "certificate-missing", Some("http_request_denied"), "A client certificate is needed here.";
    CertificateRefused = "certificate-refused", Some("http_request_denied"), "This client certificate is not for what was asked.";
    KeyMissing = "key-missing", Some("http_request_denied"), "An API key is needed here.";
    KeyUnknown = "key-unknown", Some("http_request_denied"), "This API key is not known.";
    KeyNotAllowed = "key-not-allowed", Some("http_request_denied"), "This API key is not for what was asked.";
    PasswordMissing = "password-missing", Some("http_request_denied"), "A name and a password are needed here.";
    PasswordMalformed = "password-malformed", Some("http_request_denied"), "What is shown is no name and password.";
    PasswordWrong = "password-wrong", Some("http_request_denied"), "This name and password are not known.";
    PasswordsBusy = "passwords-busy", Some("proxy_internal_error"), "Too many passwords wait to be verified; try again later.";
    TokenMissing = "token-missing", Some("http_request_denied"), "A token is needed here.";
    TokenInvalid = "token-invalid", Some("http_request_denied"), "This token is not to be believed here.";
    TokenExpired = "token-expired", Some("http_request_denied"), "This token's time is over, or has not come.";
    TokenScope = "token-scope", Some("http_request_denied"), "This token does not allow what was asked for.";
    TokenKeys = "token-keys-missing", Some("proxy_internal_error"), "Tokens cannot be verified now; try again later.";
    NotAllowed = "not-allowed", Some("http_request_denied"), "What was asked for is not allowed.";
    Denied = "denied", Some("http_request_denied"), "What was asked for is not allowed.";
    AuthorizeFailed = "authorize-failed", Some("proxy_internal_error"), "Whether this is allowed cannot be found out now; try again later.";
    IntrospectFailed = "introspect-failed", Some("proxy_internal_error"), "Tokens cannot be looked at now; try again later.";
    LegFailed = "leg-failed", None, "One of the services that the response is made of has failed.";
    ConcurrencyExceeded = "concurrency-exceeded", Some("http_request_denied"), "As many requests are under way as may be; try again later.";
    QuotaExceeded = "quota-exceeded", Some("http_request_denied"), "More requests have come than may; try again later.";
    NoRoute = "no-route", Some("destination_not_found"), "No route matches the request.";
    BodyTooLarge = "body-too-large", Some("http_request_error"), "The request's body is larger than allowed.";
    BodyMalformed = "body-malformed", Some("http_request_error"), "The request's body is not framed as it should be.";
    BodyTruncated = "body-truncated", Some("http_request_error"), "The request's body ended before its end.";
    BodyTimeout = "body-timeout", Some("http_request_error"), "The request's body stopped coming.";
    TunnelIdle = "tunnel-idle", None, "The upgraded connection was silent for too long.";
    TunnelAged = "tunnel-aged", None, "The upgraded connection has lasted as long as it may.";
    TunnelBroken = "tunnel-broken", None, "One side of the upgraded connection broke.";
    ClientGone = "client-gone", None, "The client closed the connection.";
    WriteStall = "write-stall", None, "The client took nothing of the response for too long.";
    NoBuffer = "no-buffer", Some("proxy_internal_error"), "The gateway is short of memory; try again later.";
    NoSocket = "no-socket", Some("proxy_internal_error"), "The gateway is short of sockets; try again later.";
    Overloaded = "overloaded", Some("connection_limit_reached"), "The gateway has as many connections as it may; try again later.";
    RewriteInvalid = "rewrite-invalid", Some("http_request_error"), "The request's values do not fit where the configuration puts them.";
    NoEndpoint = "no-endpoint", Some("destination_unavailable"), "No endpoint can serve the request now.";
    QueueFull = "queue-full", Some("connection_limit_reached"), "Too many requests wait for the upstream; try again later.";
    QueueTimeout = "queue-timeout", Some("connection_limit_reached"), "No connection to the upstream became free in time.";
    ConnectFailed = "connect-failed", Some("connection_refused"), "The upstream cannot be connected to.";
    ConnectTimeout = "connect-timeout", Some("connection_timeout"), "The upstream did not accept a connection in time.";
    UpstreamTlsFailed = "upstream-tls-failed", Some("tls_protocol_error"), "The upstream and the gateway do not agree on TLS.";
    UpstreamCertificate = "upstream-certificate", Some("tls_certificate_error"), "The upstream's certificate is not believed.";
    UpstreamRefused = "upstream-refused", Some("destination_unavailable"), "The upstream did not take the request; try again later.";
    UpstreamClosed = "upstream-closed", Some("connection_terminated"), "The upstream closed the connection without a response.";
    UpstreamStall = "upstream-stall", Some("connection_write_timeout"), "The upstream took nothing of the request for too long.";
    FirstByteTimeout = "first-byte-timeout", Some("http_response_timeout"), "The upstream did not begin to respond in time.";
    ResponseInvalid = "response-invalid", Some("http_protocol_error"), "The upstream's response is malformed or ambiguous.";
    ResponseTooLarge = "response-head-too-large", Some("http_response_header_section_size"), "The upstream's response head is larger than allowed.";
    ResponseTruncated = "response-truncated", Some("http_response_incomplete"), "The upstream's response ended before its end.";
    ResponseTimeout = "response-timeout", Some("connection_read_timeout"), "The upstream's response stopped coming.";
    Drained = "drained", Some("proxy_internal_response"), "The gateway is stopping; try again.";
    ExchangeTimeout = "exchange-timeout", Some("http_response_timeout"), "The whole exchange took longer than the route allows.";
}

const _: () = assert!(REASONS.len() <= REFUSALS_MAX);

/// What a failure costs: status and reason. The status counts only while no response is out.
#[deny(clippy::wildcard_enum_match_arm)]
pub(super) fn reply(error: Error) -> Reply {
    let (status, reason) = match error {
        Error::Head(error) => head_reply(error),
        Error::HeadTimeout => (408, Reason::HeadTimeout),
        Error::Path(_) => (400, Reason::PathInvalid),
        Error::MethodNotAllowed => (405, Reason::MethodNotAllowed),
        Error::Misdirected => (421, Reason::Misdirected),
        Error::CorsOrigin => (403, Reason::CorsOrigin),
        Error::IpRefused => (403, Reason::IpRefused),
        Error::CertificateMissing => (403, Reason::CertificateMissing),
        Error::CertificateRefused => (403, Reason::CertificateRefused),
        Error::KeyMissing => (401, Reason::KeyMissing),
        Error::KeyUnknown => (401, Reason::KeyUnknown),
        Error::KeyNotAllowed => (403, Reason::KeyNotAllowed),
        Error::PasswordMissing => (401, Reason::PasswordMissing),
        Error::PasswordMalformed => (401, Reason::PasswordMalformed),
        Error::PasswordWrong => (401, Reason::PasswordWrong),
        Error::PasswordsBusy => (503, Reason::PasswordsBusy),
        Error::TokenMissing => (401, Reason::TokenMissing),
        Error::TokenInvalid => (401, Reason::TokenInvalid),
        Error::TokenExpired => (401, Reason::TokenExpired),
        Error::TokenScope => (403, Reason::TokenScope),
        Error::TokenKeys => (503, Reason::TokenKeys),
        Error::NotAllowed => (403, Reason::NotAllowed),
        Error::Denied(status) => (status, Reason::Denied),
        Error::AuthorizeFailed => (503, Reason::AuthorizeFailed),
        Error::IntrospectFailed => (503, Reason::IntrospectFailed),
        Error::LegFailed(status) => (status, Reason::LegFailed),
        Error::QuotaExceeded => (429, Reason::QuotaExceeded),
        Error::ConcurrencyExceeded => (503, Reason::ConcurrencyExceeded),
        Error::NoRoute => (404, Reason::NoRoute),
        Error::BodyTooLarge => (413, Reason::BodyTooLarge),
        Error::BodyMalformed => (400, Reason::BodyMalformed),
        Error::BodyTruncated => (400, Reason::BodyTruncated),
        Error::BodyTimeout => (408, Reason::BodyTimeout),
        Error::ClientGone => (499, Reason::ClientGone),
        Error::WriteStall => (499, Reason::WriteStall),
        Error::NoBuffer => (503, Reason::NoBuffer),
        Error::NoSocket => (503, Reason::NoSocket),
        Error::HeadOverflow => (431, Reason::HeadTooLarge),
        Error::Rewrite => (400, Reason::RewriteInvalid),
        Error::NoEndpoint => (503, Reason::NoEndpoint),
        Error::QueueFull => (503, Reason::QueueFull),
        Error::QueueTimeout => (503, Reason::QueueTimeout),
        Error::Connect => (502, Reason::ConnectFailed),
        Error::ConnectTimeout => (504, Reason::ConnectTimeout),
        Error::UpstreamTls => (502, Reason::UpstreamTlsFailed),
        Error::UpstreamCertificate => (502, Reason::UpstreamCertificate),
        Error::UpstreamRefused => (503, Reason::UpstreamRefused),
        Error::UpstreamClosed => (502, Reason::UpstreamClosed),
        Error::UpstreamStall => (504, Reason::UpstreamStall),
        Error::FirstByteTimeout => (504, Reason::FirstByteTimeout),
        Error::ResponseHead(ResponseError::HeadTooLarge | ResponseError::TooManyFields) => {
            (502, Reason::ResponseTooLarge)
        }
        Error::ResponseHead(_) | Error::ResponseUnexpected | Error::ResponseBodyMalformed => {
            (502, Reason::ResponseInvalid)
        }
        Error::ResponseTruncated => (502, Reason::ResponseTruncated),
        Error::ResponseBody => (502, Reason::ResponseTruncated),
        Error::ResponseIdle => (504, Reason::ResponseTimeout),
        Error::ExchangeTimeout => (504, Reason::ExchangeTimeout),
        Error::Drained => (503, Reason::Drained),
    };
    Reply { status, reason }
}

#[deny(clippy::wildcard_enum_match_arm)]
fn head_reply(error: RequestError) -> (u16, Reason) {
    match error {
        RequestError::BareCr
        | RequestError::BareLf
        | RequestError::ObsFold
        | RequestError::SpaceBeforeColon
        | RequestError::FieldName
        | RequestError::FieldValue
        | RequestError::RequestLine
        | RequestError::Method
        | RequestError::HostMissing
        | RequestError::HostRepeated
        | RequestError::HostInvalid
        | RequestError::TargetInvalid
        | RequestError::Userinfo
        | RequestError::ContentLengthInvalid
        | RequestError::ContentLengthRepeated
        | RequestError::ContentLengthWithTransferEncoding
        | RequestError::TransferEncodingInvalid
        | RequestError::TransferEncodingInHttp10
        | RequestError::ContentInConnect
        | RequestError::ConnectionInvalid => (400, Reason::HeadMalformed),
        RequestError::Version => (505, Reason::VersionUnsupported),
        RequestError::TargetTooLong => (414, Reason::TargetTooLong),
        RequestError::HeadTooLarge | RequestError::TooManyFields => (431, Reason::HeadTooLarge),
        RequestError::TransferEncodingUnknown => (501, Reason::CodingUnknown),
        RequestError::ExpectationUnknown => (417, Reason::ExpectationUnknown),
    }
}

/// The status that stands in the log for a client that did not wait for its answer. It is never sent.
pub(super) const CLIENT_GONE: u16 = 499;

/// What an answer needs to know of its request.
pub(super) struct Asker<'a> {
    pub(super) id: &'a [u8],
    /// The gateway's name in `Proxy-Status`.
    pub(super) name: &'a [u8],
    pub(super) is_head: bool,
    pub(super) keep_alive: bool,
    pub(super) version: Version,
    pub(super) date: [u8; HTTP_DATE_BYTES],
    /// The policy that counted too many, as a quoted string has it.
    pub(super) quota: Option<&'a str>,
    /// The line with which the route's policy asks for a password; empty: none does.
    pub(super) challenge: &'a [u8],
    /// The content type for a caller of gRPC, who looks for a failure in other places.
    pub(super) grpc: Option<&'static str>,
}

/// Writes the answer to a failure. `lines` are whole ones that go with it; `body` is scratch space.
pub(super) fn write(
    out: &mut Buf,
    reply: Reply,
    asker: &Asker<'_>,
    lines: &mut Vec<u8>,
    body: &mut Vec<u8>,
) -> Result<(), Error> {
    if let Some(error) = reply.reason.proxy_error() {
        let name = if asker.name.is_empty() { b"ringgate" } else { asker.name };
        for part in [b"Proxy-Status: ", name, b"; error=", error.as_bytes(), b"\r\n"] {
            lines.extend_from_slice(part);
        }
    }
    match reply.status {
        // RFC 9110 §15.5.2 wants it. There is no registered scheme for keys in a field of their own.
        401 => lines.extend_from_slice(match reply.reason {
            Reason::PasswordMissing | Reason::PasswordMalformed | Reason::PasswordWrong => asker.challenge,
            // RFC 6750 §3: who shows none is told no more.
            Reason::TokenMissing => &b"WWW-Authenticate: Bearer\r\n"[..],
            Reason::TokenInvalid | Reason::TokenExpired => {
                b"WWW-Authenticate: Bearer error=\"invalid_token\"\r\n"
            }
            _ => b"WWW-Authenticate: ApiKey\r\n",
        }),
        // RFC 6750 §3.1.
        403 if reply.reason == Reason::TokenScope => {
            lines.extend_from_slice(b"WWW-Authenticate: Bearer error=\"insufficient_scope\"\r\n");
        }
        // RFC 9110 §15.5.6 wants it. Which methods the target takes is its upstream's to know; these pass the gateway.
        405 => lines.extend_from_slice(b"Allow: GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH\r\n"),
        503 => lines.extend_from_slice(b"Retry-After: 1\r\n"),
        _ => {}
    }
    let (status, content_type) = if let Some(content_type) = asker.grpc {
        body.clear();
        grpc::append_status(grpc::Status::of_http(reply.status), reply.reason.detail(), lines);
        (200, content_type)
    } else {
        problem(reply, asker, body);
        (reply.status, "application/problem+json")
    };
    let unsent = heads::own(
        out,
        &heads::OwnParts {
            status,
            content_type: Some(content_type.as_bytes()),
            edits: None,
            lines,
            body,
            is_head: asker.is_head,
            keep_alive: asker.keep_alive,
            version: asker.version,
            date: asker.date,
        },
    )?;
    debug_assert!(unsent.is_empty(), "a problem document is small");
    Ok(())
}

/// The problem document (RFC 9457). The id is either made here or checked to be harmless in JSON.
fn problem(reply: Reply, asker: &Asker<'_>, body: &mut Vec<u8>) {
    body.clear();
    let space = match reply.reason {
        // It is registered (draft-ietf-httpapi-ratelimit-headers-10 §8.3).
        Reason::QuotaExceeded => "https://iana.org/assignments/http-problem-types#",
        _ => "urn:ringgate:problem:",
    };
    for part in [
        "{\"type\":\"",
        space,
        reply.reason.kind(),
        "\",\"title\":\"",
        status::reason(reply.status),
        "\",\"status\":",
    ] {
        body.extend_from_slice(part.as_bytes());
    }
    let status = reply.status;
    body.extend([100, 10, 1].map(|place| b'0' + (status / place % 10) as u8));
    body.extend_from_slice(b",\"detail\":\"");
    body.extend_from_slice(reply.reason.detail().as_bytes());
    if !asker.id.is_empty() {
        body.extend_from_slice(b"\",\"request_id\":\"");
        body.extend_from_slice(asker.id);
    }
    body.push(b'"');
    if let Some(policy) = asker.quota {
        body.extend_from_slice(b",\"violated-policies\":[\"");
        body.extend_from_slice(policy.as_bytes());
        body.extend_from_slice(b"\"]");
    }
    body.extend_from_slice(b"}\n");
}

/// The whole answer to a connection beyond `max_connections`, for which no exchange begins.
pub(super) fn overloaded(core: &Core) -> Option<Buf> {
    let mut out = Buf::take_reserved()?;
    let generation = core.generation();
    let (date, name) = (core.clock.date(), &generation.table.forwarding.via);
    let reply = Reply { status: 503, reason: Reason::Overloaded };
    let asker = Asker {
        id: &[],
        name,
        is_head: false,
        keep_alive: false,
        version: Version::Http11,
        date,
        quota: None,
        challenge: &[],
        grpc: None,
    };
    write(&mut out, reply, &asker, &mut Vec::new(), &mut Vec::new()).ok()?;
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPERATIONS: &str = include_str!("../../docs/operations.md");

    #[test]
    fn every_reason_is_documented() {
        let missing: Vec<_> = REASONS
            .iter()
            .map(|reason| reason.kind())
            .filter(|kind| !OPERATIONS.contains(&format!("`{kind}`")))
            .collect();
        assert!(missing.is_empty(), "docs/operations.md does not say what these mean: {missing:?}");
    }
}
