//! Request heads (RFC 9112 §2–3, §5–6). One call takes the bytes received so far to one head with one meaning, or to
//! the one reason why it has none. Nothing is copied: the head holds extents into those bytes. What is allowed by
//! policy (methods, body sizes, paths) is not decided here.

use std::mem::MaybeUninit;

use super::{
    authority::Authority,
    extent::Extent,
    fast,
    field::{FIELDS_MAX, FieldName, Fields, NameSet, is_folded},
    framing::{self, BodyLength, ConnectionInvalid, FramingError},
    head::{self, LineError, Noted},
    method::{METHOD_BYTES_MAX, Method},
    target::{self, TargetError},
    version::{self, Version},
};

pub use super::{
    head::{HEAD_BYTES_MAX, HeadLimits, Parsed},
    target::TargetForm,
};

/// A request's head. Reuse it: parsing into it again allocates nothing once it has held as many fields. Its content
/// is meaningful only after [`Parsed::Complete`].
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// The method.
    pub method: Method,
    /// The method as sent.
    pub method_at: Extent,
    /// The version.
    pub version: Version,
    /// The form of the target.
    pub target: TargetForm,
    /// The path as sent, before canonicalisation. Empty for [`TargetForm::Asterisk`], [`TargetForm::Authority`], and
    /// an absolute-form that has none (which means `/`).
    pub path: Extent,
    /// The query as sent, without its `?`.
    pub query: Option<Extent>,
    /// `host[:port]` of the target URI. That of an absolute-form or authority-form wins over `Host`, which may differ
    /// and is then to be replaced (RFC 9112 §3.2.2). Empty only for an HTTP/1.0 request that names none.
    pub authority: Extent,
    /// `authority` without port and without a trailing dot; an IPv6 address keeps its brackets. Compare it without
    /// regard to case.
    pub host: Extent,
    /// The port in `authority`.
    pub port: Option<u16>,
    /// All fields, `Host` and the framing included.
    pub fields: Fields,
    /// How the body is framed.
    pub body: BodyLength,
    /// Whether the client would have the connection live on (RFC 9112 §9.3).
    pub keep_alive: bool,
    /// Whether the client waits for 100 before it sends the body (RFC 9110 §10.1.1); never in HTTP/1.0.
    pub expect_continue: bool,
    /// The protocols to upgrade to, if `Connection` names `upgrade`, the version is 1.1 and `h2c` is not among them.
    pub upgrade: Option<Extent>,
    /// Whether the client accepts trailers (`TE: trailers`).
    pub te_trailers: bool,
}

/// Why a request head is refused. After any of them the connection cannot be used: where the next request begins is
/// unknown. The status intended for each is in its doc.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// 400. A CR that no LF follows.
    #[error("a CR without LF")]
    BareCr,
    /// 400. A LF that follows no CR.
    #[error("a LF without CR")]
    BareLf,
    /// 400. A field line that begins with whitespace (RFC 9112 §5.2).
    #[error("a folded field line")]
    ObsFold,
    /// 400. Whitespace between a name and its colon (RFC 9112 §5.1).
    #[error("whitespace before a field's colon")]
    SpaceBeforeColon,
    /// 400. A field name that is empty, no token, or not followed by a colon.
    #[error("an invalid field name")]
    FieldName,
    /// 400. NUL or another control character in a field.
    #[error("a control character in a field")]
    FieldValue,
    /// 400. A first line that is not `method SP target SP version`, or more than one CRLF before it (RFC 9112 §2.2).
    #[error("a malformed request line")]
    RequestLine,
    /// 400. A method of more than [`METHOD_BYTES_MAX`] bytes.
    #[error("a method that is too long")]
    Method,
    /// 505. A version of HTTP other than 1.0 and 1.1.
    #[error("an unsupported version")]
    Version,
    /// 414. A target, or a request line without end, beyond the limit.
    #[error("a target that is too long")]
    TargetTooLong,
    /// 431. No end within the limit.
    #[error("a head that is too large")]
    HeadTooLarge,
    /// 431. More fields than the limit.
    #[error("too many fields")]
    TooManyFields,
    /// 400. No `Host` in HTTP/1.1 (RFC 9112 §3.2).
    #[error("no Host")]
    HostMissing,
    /// 400. More than one `Host`.
    #[error("more than one Host")]
    HostRepeated,
    /// 400. A `Host` that is not `host[:port]`; see [`Authority::parse`].
    #[error("an invalid Host")]
    HostInvalid,
    /// 400. A target in no form that the method allows, with a fragment, or with bytes that a URI cannot have.
    #[error("an invalid target")]
    TargetInvalid,
    /// 400. A target with userinfo (RFC 9110 §4.2.4).
    #[error("userinfo in the target")]
    Userinfo,
    /// 400. A `Content-Length` that is not a number below 2^64.
    #[error("an invalid Content-Length")]
    ContentLengthInvalid,
    /// 400. More than one `Content-Length`, or a list of them, equal or not.
    #[error("a repeated Content-Length")]
    ContentLengthRepeated,
    /// 400. Both `Content-Length` and `Transfer-Encoding`.
    #[error("Content-Length beside Transfer-Encoding")]
    ContentLengthWithTransferEncoding,
    /// 400. A `Transfer-Encoding` that is repeated, malformed, or has `chunked` more than once or not last.
    #[error("an invalid Transfer-Encoding")]
    TransferEncodingInvalid,
    /// 501. A transfer coding other than `chunked` (RFC 9112 §6.1).
    #[error("an unknown transfer coding")]
    TransferEncodingUnknown,
    /// 400. `Transfer-Encoding` in HTTP/1.0.
    #[error("Transfer-Encoding in HTTP/1.0")]
    TransferEncodingInHttp10,
    /// 400. Content in a CONNECT, which has none (RFC 9110 §9.3.6): it would be taken for the tunnel's first bytes.
    #[error("content in a CONNECT")]
    ContentInConnect,
    /// 400. A `Connection` that is no list of tokens, or too long a one.
    #[error("an invalid Connection")]
    ConnectionInvalid,
    /// 417. An expectation other than `100-continue`.
    #[error("an unknown expectation")]
    ExpectationUnknown,
}

/// Parses the request head at the beginning of `bytes`, which may hold more than it.
///
/// `scanned` says how far previous calls on the same growing bytes looked; begin with 0 and leave it alone. It is 0
/// again after [`Parsed::Complete`]. With it, a head that comes byte by byte costs linear work: the first call reads
/// all there is, later ones only check the line endings of what is new, until the blank line is there.
///
/// On [`Parsed::Complete`], `head` describes `bytes[..head_len]`, and a CRLF before the request line counts.
#[inline]
pub fn parse_request(
    bytes: &[u8],
    scanned: &mut usize,
    limits: &HeadLimits,
    head: &mut RequestHead,
) -> Result<Parsed, RequestError> {
    let window = &bytes[..bytes.len().min(limits.head_bytes())];
    if *scanned > 0 && !head::scan_lines(window, *scanned)? {
        return partial(window, scanned, limits);
    }
    let Some(from) = request_line_start(window)? else { return partial(window, scanned, limits) };
    if let Some(head_len) = fast_head(window, from, limits, head)? {
        *scanned = 0;
        return Ok(Parsed::Complete { head_len });
    }
    careful_head(window, from, scanned, limits, head)
}

/// The quick way; `None` when the head is not there yet or not plainly well-formed.
#[inline]
pub(super) fn fast_head(
    window: &[u8],
    from: usize,
    limits: &HeadLimits,
    head: &mut RequestHead,
) -> Result<Option<usize>, RequestError> {
    let Some((method, target, minor, at)) = fast::request_line(window, from) else { return Ok(None) };
    let mut noted = Noted::default();
    let Some(head_len) = fast::fields(window, at, limits.headers(), &mut head.fields, &mut noted) else {
        return Ok(None);
    };
    understand(&window[..head_len], method, target, Version::from_minor(minor), &noted, limits, head)?;
    Ok(Some(head_len))
}

/// The way that says what is wrong.
pub(super) fn careful_head(
    window: &[u8],
    from: usize,
    scanned: &mut usize,
    limits: &HeadLimits,
    head: &mut RequestHead,
) -> Result<Parsed, RequestError> {
    let mut slots = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut split = httparse::Request::new(&mut []);
    match split.parse_with_uninit_headers(&window[from..], &mut slots[..limits.headers()]) {
        Ok(httparse::Status::Complete(len)) => {
            let head_len = from + len;
            let bytes = &window[..head_len];
            let mut noted = Noted::default();
            head::collect(bytes, split.headers, &mut head.fields, &mut noted)?;
            let (Some(method), Some(target), Some(minor)) = (split.method, split.path, split.version) else {
                return Err(RequestError::RequestLine);
            };
            let (method, target) =
                (Extent::of(bytes, method.as_bytes()), Extent::of(bytes, target.as_bytes()));
            understand(bytes, method, target, Version::from_minor(minor), &noted, limits, head)?;
            *scanned = 0;
            Ok(Parsed::Complete { head_len })
        }
        Ok(httparse::Status::Partial) => {
            if split.path.is_some_and(|target| target.len() > limits.target_bytes) {
                return Err(RequestError::TargetTooLong);
            }
            head::scan_lines(window, 0)?;
            partial(window, scanned, limits)
        }
        Err(error) => Err(refuse(&window[from..], error, split.version.is_some())),
    }
}

/// Where the request line begins: behind one CRLF, if there is one (RFC 9112 §2.2). `None` when it has not begun.
#[inline]
fn request_line_start(bytes: &[u8]) -> Result<Option<usize>, RequestError> {
    match bytes {
        [b'\r', b'\n', b'\r' | b'\n', ..] => Err(RequestError::RequestLine),
        [b'\r', b'\n', _, ..] => Ok(Some(2)),
        [] | [b'\r'] | [b'\r', b'\n'] => Ok(None),
        [b'\r', ..] => Err(RequestError::BareCr),
        [b'\n', ..] => Err(RequestError::BareLf),
        _ => Ok(Some(0)),
    }
}

/// Waits for more bytes, unless more are not allowed.
fn partial(window: &[u8], scanned: &mut usize, limits: &HeadLimits) -> Result<Parsed, RequestError> {
    *scanned = window.len();
    if window.len() < limits.head_bytes() {
        return Ok(Parsed::Partial);
    }
    let mut lines = window.strip_prefix(b"\r\n").unwrap_or(window).split(|byte| *byte == b'\n');
    let request_line = lines.next().unwrap_or_default();
    let target = request_line.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
    let is_target = lines.next().is_none() || target.len() > limits.target_bytes;
    Err(if is_target { RequestError::TargetTooLong } else { RequestError::HeadTooLarge })
}

/// Says what `httparse` found wrong.
#[cold]
fn refuse(bytes: &[u8], error: httparse::Error, first_line_is_split: bool) -> RequestError {
    if error == httparse::Error::TooManyHeaders {
        return RequestError::TooManyFields;
    }
    let line = bytes.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    let version = line.splitn(3, |byte| *byte == b' ').nth(2).unwrap_or_default();
    match head::diagnose(bytes, error, first_line_is_split) {
        // `httparse` comes to the version only behind a method and a target.
        LineError::FirstLine if error == httparse::Error::Version => {
            let is_one = version::is_shaped_like_one(version, line.len() == bytes.len());
            if is_one { RequestError::Version } else { RequestError::RequestLine }
        }
        error => error.into(),
    }
}

/// The fields that what follows `Host` in [`understand`] reads. A head without any of them, as most are, need not be
/// asked for each.
const MEANT_FOR_THIS_HOP: NameSet = NameSet::of(&[
    FieldName::Connection,
    FieldName::ContentLength,
    FieldName::Expect,
    FieldName::Te,
    FieldName::TransferEncoding,
    FieldName::Upgrade,
]);

/// Reads the meaning of a complete head.
#[inline]
fn understand(
    bytes: &[u8],
    method: Extent,
    target: Extent,
    version: Version,
    noted: &Noted,
    limits: &HeadLimits,
    head: &mut RequestHead,
) -> Result<(), RequestError> {
    if target.len as usize > limits.target_bytes {
        return Err(RequestError::TargetTooLong);
    }
    if method.len as usize > METHOD_BYTES_MAX {
        return Err(RequestError::Method);
    }
    head.version = version;
    head.method = Method::parse(method.bytes(bytes));
    head.method_at = method;
    let target = target::parse(bytes, target, head.method)?;
    head.target = target.form;
    head.path = target.path;
    head.query = target.query;
    // `Host` is checked even where the target's authority wins.
    let host = host(bytes, noted, head.version)?;
    let authority = target.authority.unwrap_or(host);
    head.authority = authority.whole;
    head.host = authority.host;
    head.port = authority.port;
    if !head.fields.names().meets(MEANT_FOR_THIS_HOP) {
        head.body = BodyLength::None;
        head.keep_alive = framing::persists_unsaid(head.version);
        (head.upgrade, head.expect_continue, head.te_trailers) = (None, false, false);
        return Ok(());
    }
    head.body = framing::body_length(bytes, noted, head.version)?;
    if head.method == Method::Connect && !matches!(head.body, BodyLength::None | BodyLength::Exact(0)) {
        return Err(RequestError::ContentInConnect);
    }
    let connection = framing::connection(bytes, noted, &mut head.fields)?;
    head.keep_alive = connection.persist(head.version);
    head.upgrade = connection.upgrade(bytes, &noted.upgrade, head.version);
    head.expect_continue = expects_continue(bytes, noted, head)?;
    head.te_trailers = framing::accepts_trailers(bytes, noted, &head.fields, head.version);
    Ok(())
}

/// What `Host` says; nothing when it is absent where it may be, in HTTP/1.0.
#[inline]
fn host(bytes: &[u8], noted: &Noted, version: Version) -> Result<Authority, RequestError> {
    match noted.host.times {
        1 => Authority::parse(bytes, noted.host.first).ok_or(RequestError::HostInvalid),
        0 if version == Version::Http10 => Ok(Authority::default()),
        0 => Err(RequestError::HostMissing),
        _ => Err(RequestError::HostRepeated),
    }
}

/// RFC 9110 §10.1.1. In HTTP/1.0 the field is to be ignored.
#[inline]
fn expects_continue(bytes: &[u8], noted: &Noted, head: &RequestHead) -> Result<bool, RequestError> {
    if noted.expect.times == 0 || head.version == Version::Http10 {
        return Ok(false);
    }
    let mut all = head::values(bytes, &head.fields, FieldName::Expect);
    let known = all.all(|value| is_folded(value, b"100-continue"));
    if known { Ok(true) } else { Err(RequestError::ExpectationUnknown) }
}

impl From<LineError> for RequestError {
    fn from(error: LineError) -> Self {
        match error {
            LineError::BareCr => Self::BareCr,
            LineError::BareLf => Self::BareLf,
            LineError::ObsFold => Self::ObsFold,
            LineError::SpaceBeforeColon => Self::SpaceBeforeColon,
            LineError::FieldName => Self::FieldName,
            LineError::FieldValue => Self::FieldValue,
            LineError::FirstLine => Self::RequestLine,
        }
    }
}

impl From<TargetError> for RequestError {
    fn from(error: TargetError) -> Self {
        match error {
            TargetError::Invalid => Self::TargetInvalid,
            TargetError::Userinfo => Self::Userinfo,
        }
    }
}

impl From<FramingError> for RequestError {
    fn from(error: FramingError) -> Self {
        match error {
            FramingError::ContentLengthInvalid => Self::ContentLengthInvalid,
            FramingError::ContentLengthRepeated => Self::ContentLengthRepeated,
            FramingError::ContentLengthWithTransferEncoding => Self::ContentLengthWithTransferEncoding,
            FramingError::TransferEncodingInvalid => Self::TransferEncodingInvalid,
            FramingError::TransferEncodingUnknown => Self::TransferEncodingUnknown,
            FramingError::TransferEncodingInHttp10 => Self::TransferEncodingInHttp10,
        }
    }
}

impl From<ConnectionInvalid> for RequestError {
    fn from(_: ConnectionInvalid) -> Self {
        Self::ConnectionInvalid
    }
}

#[cfg(test)]
mod tests;
