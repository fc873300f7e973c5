//! Why an exchange did not end as it should: one enum, whoever is to blame. What each costs the client stands in
//! [`super::reply`].

use std::io;

use super::relay::Wait;
use crate::http::{body::BodyError, path::PathError, request::RequestError, response::ResponseError};

/// Why an exchange failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    // The client's doing, or its going.
    /// The request's head is refused.
    Head(RequestError),
    /// The head was not complete in time.
    HeadTimeout,
    /// The path has no one meaning.
    Path(PathError),
    /// CONNECT or TRACE where it is not allowed.
    MethodNotAllowed,
    /// The target's scheme is not served here.
    Misdirected,
    /// A preflight comes from an origin whose pages may not ask.
    CorsOrigin,
    /// The client's address may not ask.
    IpRefused,
    /// The client has shown no certificate.
    CertificateMissing,
    /// The client's certificate may not ask here.
    CertificateRefused,
    /// There is no API key.
    KeyMissing,
    /// The API key is no one's.
    KeyUnknown,
    /// There is no name and password.
    PasswordMissing,
    /// What is shown is no name and password.
    PasswordMalformed,
    /// The password is not the user's, or there is no such user.
    PasswordWrong,
    /// Too many passwords wait to be verified.
    PasswordsBusy,
    /// There is no token.
    TokenMissing,
    /// The token is not to be believed.
    TokenInvalid,
    /// The token's time is over, or has not come.
    TokenExpired,
    /// The token does not allow what was asked for.
    TokenScope,
    /// What tokens may be signed with is not known yet.
    TokenKeys,
    /// The API key's consumer may not ask here.
    KeyNotAllowed,
    /// What a policy allows it is not.
    NotAllowed,
    /// Whoever was asked has refused it, with this status.
    Denied(u16),
    /// Whoever is to be asked whether it may pass does not answer.
    AuthorizeFailed,
    /// The issuer of its token does not answer.
    IntrospectFailed,
    /// One of those that the response is to be made of has failed, which has this status.
    LegFailed(u16),
    /// More requests came than may.
    QuotaExceeded,
    /// As many are under way as may be.
    ConcurrencyExceeded,
    /// No route matches.
    NoRoute,
    /// The body is larger than allowed.
    BodyTooLarge,
    /// The body's framing is broken.
    BodyMalformed,
    /// The client closed before its body's end.
    BodyTruncated,
    /// Nothing of the body came for too long.
    BodyTimeout,
    /// The connection is broken.
    ClientGone,
    /// The client takes nothing of its response.
    WriteStall,

    // The gateway's limits.
    /// The core's buffers are all in use.
    NoBuffer,
    /// The process or the machine has no socket left.
    NoSocket,
    /// Edits made a head larger than its buffer.
    HeadOverflow,
    /// The rewritten path is not a path.
    Rewrite,

    // The upstream's doing.
    /// Every endpoint was tried, or there is none with a weight.
    NoEndpoint,
    /// As many requests wait for the endpoint as may.
    QueueFull,
    /// No connection came free in time.
    QueueTimeout,
    /// No endpoint could be connected to.
    Connect,
    /// No endpoint accepted in time.
    ConnectTimeout,
    /// The endpoint and the gateway do not agree on TLS.
    UpstreamTls,
    /// The endpoint's certificate is not believed.
    UpstreamCertificate,
    /// The endpoint says that it has not looked at the request.
    UpstreamRefused,
    /// The connection ended before a response.
    UpstreamClosed,
    /// The endpoint takes nothing of the request.
    UpstreamStall,
    /// No response began in time.
    FirstByteTimeout,
    /// The response's head is refused.
    ResponseHead(ResponseError),
    /// The connection ended amid the response's head.
    ResponseTruncated,
    /// The endpoint switched protocols unasked, or sent too many interim responses.
    ResponseUnexpected,
    /// The response stopped for too long.
    ResponseIdle,
    /// The response's body is cut short.
    ResponseBody,
    /// The response's body is not framed as it should be.
    ResponseBodyMalformed,
    /// The whole exchange took too long.
    ExchangeTimeout,
    /// The gateway is stopping, and waited for the exchange's end as long as it may.
    Drained,
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(super::reply::reply(*self).reason.detail())
    }
}

impl std::error::Error for Error {}

impl Error {
    /// A failure of a request's body.
    pub(super) fn of_request_body(error: BodyError) -> Self {
        match error {
            BodyError::Chunked(_) => Self::BodyMalformed,
            BodyError::TooLarge => Self::BodyTooLarge,
            BodyError::Truncated => Self::BodyTruncated,
        }
    }

    /// A failure to connect. What is short here is not the endpoint's fault.
    pub(super) fn of_connect(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => Self::NoSocket,
            _ => Self::Connect,
        }
    }

    /// A failure of a response's body.
    pub(super) fn of_response_body(error: BodyError) -> Self {
        match error {
            BodyError::Chunked(_) => Self::ResponseBodyMalformed,
            BodyError::TooLarge | BodyError::Truncated => Self::ResponseBody,
        }
    }

    /// A failure to send to the client.
    pub(super) fn of_client(wait: Wait) -> Self {
        match wait {
            Wait::Timeout => Self::WriteStall,
            Wait::ExchangeTimeout => Self::ExchangeTimeout,
            Wait::Broken | Wait::Malformed | Wait::Refused | Wait::Abandoned => Self::ClientGone,
            Wait::NoBuffer => Self::NoBuffer,
        }
    }

    /// Whether the client's connection ends with it even when the request was complete: who asks in such a way may
    /// mean by the bytes that follow something else than a request. A body that is too large is refused alike however
    /// much of it was here at once.
    pub(super) fn ends_connection(self) -> bool {
        matches!(
            self,
            Self::Path(_)
                | Self::MethodNotAllowed
                | Self::Misdirected
                | Self::BodyTooLarge
                | Self::HeadOverflow
        )
    }

    /// Whether the endpoint is to blame, so that it counts against its health.
    pub(super) fn is_endpoints(self) -> bool {
        matches!(
            self,
            Self::Connect
                | Self::ConnectTimeout
                | Self::UpstreamTls
                | Self::UpstreamCertificate
                | Self::UpstreamRefused
                | Self::UpstreamClosed
                | Self::UpstreamStall
                | Self::FirstByteTimeout
                | Self::ResponseHead(_)
                | Self::ResponseTruncated
                | Self::ResponseUnexpected
                | Self::ResponseIdle
                | Self::ResponseBody
                | Self::ResponseBodyMalformed
        )
    }
}
