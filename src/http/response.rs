//! Response heads (RFC 9112 §4–6), parsed as strictly as requests: an upstream whose framing is in doubt would let one
//! client's response leak into another's. Every refusal means 502 and the end of the connection. What a gateway does
//! with the fields is not decided here.

use std::mem::MaybeUninit;

use super::{
    extent::Extent,
    fast,
    field::{FIELDS_MAX, Fields},
    framing::{self, BodyLength, ConnectionInvalid, FramingError},
    head::{self, HeadLimits, LineError, Noted, Parsed},
    method::Method,
    version::{self, Version},
};

/// A response's head. Reuse it: parsing into it again allocates nothing once it has held as many fields. Its content
/// is meaningful only after [`Parsed::Complete`].
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub struct ResponseHead {
    /// The version.
    pub version: Version,
    /// The status, 100 to 599.
    pub status: u16,
    /// The reason phrase as sent; often empty.
    pub reason: Extent,
    /// All fields, the framing included.
    pub fields: Fields,
    /// `Content-Length`, in bytes. Whether a body of that length follows says [`ResponseHead::body`].
    pub content_length: Option<u64>,
    /// Whether `Transfer-Encoding` is `chunked`.
    pub chunked: bool,
    /// Whether the upstream would have the connection live on (RFC 9112 §9.3). A connection whose response ends with
    /// [`ResponseBody::UntilClose`] or that has changed protocol (101, CONNECT) does not, whatever this says.
    pub keep_alive: bool,
    /// The protocol changed to, if the status is 101 and `Connection` names `upgrade`.
    pub upgrade: Option<Extent>,
}

/// How a response's body ends.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum ResponseBody {
    /// There is none.
    None,
    /// After this many bytes.
    Exact(u64),
    /// With the last chunk.
    Chunked,
    /// With the connection; a cut cannot be told from the end.
    UntilClose,
}

/// Why a response head is refused: 502, all of them.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResponseError {
    /// A CR that no LF follows.
    #[error("a CR without LF")]
    BareCr,
    /// A LF that follows no CR.
    #[error("a LF without CR")]
    BareLf,
    /// A field line that begins with whitespace.
    #[error("a folded field line")]
    ObsFold,
    /// Whitespace between a name and its colon.
    #[error("whitespace before a field's colon")]
    SpaceBeforeColon,
    /// A field name that is empty, no token, or not followed by a colon.
    #[error("an invalid field name")]
    FieldName,
    /// NUL or another control character in a field.
    #[error("a control character in a field")]
    FieldValue,
    /// A first line that is not `version SP status [SP reason]`, or something before it.
    #[error("a malformed status line")]
    StatusLine,
    /// A status that is not three digits from 100 to 599 (RFC 9110 §15).
    #[error("an invalid status")]
    Status,
    /// A version of HTTP other than 1.0 and 1.1.
    #[error("an unsupported version")]
    Version,
    /// No end within the limit.
    #[error("a head that is too large")]
    HeadTooLarge,
    /// More fields than the limit.
    #[error("too many fields")]
    TooManyFields,
    /// A `Content-Length` that is not a number below 2^64.
    #[error("an invalid Content-Length")]
    ContentLengthInvalid,
    /// More than one `Content-Length`, or a list of them, equal or not.
    #[error("a repeated Content-Length")]
    ContentLengthRepeated,
    /// Both `Content-Length` and `Transfer-Encoding`.
    #[error("Content-Length beside Transfer-Encoding")]
    ContentLengthWithTransferEncoding,
    /// A `Transfer-Encoding` that is repeated, malformed, or has `chunked` more than once or not last.
    #[error("an invalid Transfer-Encoding")]
    TransferEncodingInvalid,
    /// A transfer coding other than `chunked`, which was not asked for.
    #[error("an unknown transfer coding")]
    TransferEncodingUnknown,
    /// `Transfer-Encoding` in HTTP/1.0.
    #[error("Transfer-Encoding in HTTP/1.0")]
    TransferEncodingInHttp10,
    /// A `Connection` that is no list of tokens, or too long a one.
    #[error("an invalid Connection")]
    ConnectionInvalid,
}

/// Parses the response head at the beginning of `bytes`, which may hold more than it. `scanned` is as in
/// [`parse_request`](super::request::parse_request); `limits.target_bytes` plays no part.
#[inline]
pub fn parse_response(
    bytes: &[u8],
    scanned: &mut usize,
    limits: &HeadLimits,
    head: &mut ResponseHead,
) -> Result<Parsed, ResponseError> {
    let window = &bytes[..bytes.len().min(limits.head_bytes())];
    if *scanned > 0 && !head::scan_lines(window, *scanned)? {
        return partial(window, scanned, limits);
    }
    // `httparse` would skip empty lines here. RFC 9112 §2.2 tolerates them before requests only.
    match window.first() {
        Some(b'\r' | b'\n') => return Err(ResponseError::StatusLine),
        Some(_) => {}
        None => return partial(window, scanned, limits),
    }
    if let Some(head_len) = fast_head(window, limits, head)? {
        *scanned = 0;
        return Ok(Parsed::Complete { head_len });
    }
    careful_head(window, scanned, limits, head)
}

/// The quick way; `None` when the head is not there yet or not plainly well-formed.
#[inline]
pub(super) fn fast_head(
    window: &[u8],
    limits: &HeadLimits,
    head: &mut ResponseHead,
) -> Result<Option<usize>, ResponseError> {
    let Some((minor, status, at)) = fast::status_line(window) else { return Ok(None) };
    let mut noted = Noted::default();
    let Some(head_len) = fast::fields(window, at, limits.headers(), &mut head.fields, &mut noted) else {
        return Ok(None);
    };
    understand(&window[..head_len], Version::from_minor(minor), status, &noted, head)?;
    Ok(Some(head_len))
}

/// The way that says what is wrong.
pub(super) fn careful_head(
    window: &[u8],
    scanned: &mut usize,
    limits: &HeadLimits,
    head: &mut ResponseHead,
) -> Result<Parsed, ResponseError> {
    let mut slots = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut split = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    match config.parse_response_with_uninit_headers(&mut split, window, &mut slots[..limits.headers()]) {
        Ok(httparse::Status::Complete(head_len)) => {
            let bytes = &window[..head_len];
            let mut noted = Noted::default();
            head::collect(bytes, split.headers, &mut head.fields, &mut noted)?;
            let (Some(minor), Some(status)) = (split.version, split.code) else {
                return Err(ResponseError::StatusLine);
            };
            understand(bytes, Version::from_minor(minor), status, &noted, head)?;
            *scanned = 0;
            Ok(Parsed::Complete { head_len })
        }
        Ok(httparse::Status::Partial) => {
            head::scan_lines(window, 0)?;
            partial(window, scanned, limits)
        }
        Err(error) => Err(refuse(window, error, split.reason.is_some())),
    }
}

/// Waits for more bytes, unless more are not allowed.
fn partial(window: &[u8], scanned: &mut usize, limits: &HeadLimits) -> Result<Parsed, ResponseError> {
    *scanned = window.len();
    if window.len() < limits.head_bytes() { Ok(Parsed::Partial) } else { Err(ResponseError::HeadTooLarge) }
}

/// Says what `httparse` found wrong.
#[cold]
fn refuse(bytes: &[u8], error: httparse::Error, first_line_is_split: bool) -> ResponseError {
    if error == httparse::Error::TooManyHeaders {
        return ResponseError::TooManyFields;
    }
    let error = ResponseError::from(head::diagnose(bytes, error, first_line_is_split));
    if error != ResponseError::StatusLine {
        return error;
    }
    let line = bytes.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    let mut parts = line.splitn(3, |byte| *byte == b' ');
    let version = parts.next().unwrap_or_default();
    if !version::is_shaped_like_one(version, line.len() == bytes.len()) {
        ResponseError::StatusLine
    } else if version != b"HTTP/1.1" && version != b"HTTP/1.0" {
        ResponseError::Version
    } else if parts.next().is_some_and(|status| status.len() != 3 || !status.iter().all(u8::is_ascii_digit)) {
        ResponseError::Status
    } else {
        ResponseError::StatusLine
    }
}

/// `HTTP/1.1 200`, what a status line has before its reason phrase.
const STATUS_END: usize = "HTTP/1.1 200".len();

/// Reads the meaning of a complete head.
#[inline]
fn understand(
    bytes: &[u8],
    version: Version,
    status: u16,
    noted: &Noted,
    head: &mut ResponseHead,
) -> Result<(), ResponseError> {
    if !(100..=599).contains(&status) {
        return Err(ResponseError::Status);
    }
    head.version = version;
    head.status = status;
    // `httparse` gives no reason phrase that has obs-text. The line ends two bytes before the first name, or the
    // blank line.
    let line_end = head.fields.start(bytes) - 2;
    head.reason = Extent::between((STATUS_END + 1).min(line_end), line_end);
    let length = framing::body_length(bytes, noted, head.version)?;
    head.chunked = length == BodyLength::Chunked;
    head.content_length = if let BodyLength::Exact(length) = length { Some(length) } else { None };
    let connection = framing::connection(bytes, noted, &mut head.fields)?;
    // RFC 9110 §8.6 and RFC 9112 §6.1 forbid these fields where no body can follow. An upstream that sends them
    // may send the body, too: such a connection is in doubt.
    let doubtful = (status < 200 || status == 204) && (head.chunked || head.content_length.unwrap_or(0) > 0);
    head.keep_alive = connection.persist(head.version) && !doubtful;
    head.upgrade = if status == 101 { connection.upgrade(bytes, &noted.upgrade, head.version) } else { None };
    Ok(())
}

impl ResponseHead {
    /// How the body of this response to a request of `request_method` ends (RFC 9112 §6.3). After 101, and a 2xx to
    /// CONNECT, what follows is no body but the tunnel.
    #[inline]
    pub fn body(&self, request_method: Method) -> ResponseBody {
        match self.status {
            _ if request_method == Method::Head => ResponseBody::None,
            100..200 | 204 | 304 => ResponseBody::None,
            200..300 if request_method == Method::Connect => ResponseBody::None,
            _ if self.chunked => ResponseBody::Chunked,
            _ => self.content_length.map_or(ResponseBody::UntilClose, ResponseBody::Exact),
        }
    }
}

impl From<LineError> for ResponseError {
    fn from(error: LineError) -> Self {
        match error {
            LineError::BareCr => Self::BareCr,
            LineError::BareLf => Self::BareLf,
            LineError::ObsFold => Self::ObsFold,
            LineError::SpaceBeforeColon => Self::SpaceBeforeColon,
            LineError::FieldName => Self::FieldName,
            LineError::FieldValue => Self::FieldValue,
            LineError::FirstLine => Self::StatusLine,
        }
    }
}

impl From<FramingError> for ResponseError {
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

impl From<ConnectionInvalid> for ResponseError {
    fn from(_: ConnectionInvalid) -> Self {
        Self::ConnectionInvalid
    }
}

#[cfg(test)]
mod tests;
