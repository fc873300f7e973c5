//! Messages of the `h2` crate as heads of HTTP/1 and back. What HTTP/2 forbids and `h2` does not look at is refused here; all
//! else is left to the one parser that judges every request.

use aws_lc_rs::digest;
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header,
    uri::{self, Authority, PathAndQuery, Scheme},
};

use super::{
    grpc_web::encode as base64,
    names::{is_passing, name_of},
};
use crate::{
    buf::Buf,
    http::{
        field::{Field, FieldName},
        framing::BodyLength,
        method as http1,
        request::{RequestHead, TargetForm},
        response::ResponseHead,
    },
};

/// Why a request cannot be shown as one of HTTP/1: it is malformed (RFC 9113 §8.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Malformed {
    /// A pseudo field that is missing, or has no place there.
    Pseudo,
    /// `:authority` and `Host` disagree (RFC 9113 §8.3.1).
    Authority,
    /// A value that begins or ends with whitespace (RFC 9113 §8.2.1).
    Value,
    /// It does not fit into a head.
    TooLarge,
}

/// How a request's body is framed in its form of HTTP/1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// There is none.
    None,
    /// As long as `Content-Length` says.
    Plain,
    /// In chunks.
    Chunked,
    /// What follows is another protocol's (RFC 9113 §8.5, RFC 8441).
    Tunnel,
}

/// A request's head as put.
pub(super) struct Put {
    pub(super) framing: Framing,
    /// The `Sec-WebSocket-Accept` that shows that the other side speaks WebSocket, where it was asked for.
    pub(super) accept: Option<Bytes>,
}

/// Puts a request's head into `out`. `has_body`: its stream has not ended with its head.
pub(super) fn put_request(
    request: &Request<()>,
    has_body: bool,
    is_secured: bool,
    out: &mut Buf,
) -> Result<Put, Malformed> {
    let (uri, fields) = (request.uri(), request.headers());
    let scheme = match uri.scheme_str() {
        // `h2` refuses a request without a scheme, and keeps none where there is no authority to go with it.
        None if request.method() == Method::CONNECT || uri.authority().is_none() => None,
        Some(scheme @ ("http" | "https")) => Some(scheme),
        _ => return Err(Malformed::Pseudo),
    };
    // Another scheme than the connection's is said as HTTP/1 says it, and answered alike.
    let other = scheme.filter(|scheme| (*scheme == "https") != is_secured);
    let protocol = request.extensions().get::<h2::ext::Protocol>();
    let authority = authority(request)?;
    let mut head = Head { out, fits: true };
    let framing = match protocol {
        Some(protocol) if request.method() == Method::CONNECT => {
            if !protocol.as_str().eq_ignore_ascii_case("websocket")
                || uri.scheme().is_none()
                || other.is_some()
            {
                return Err(Malformed::Pseudo);
            }
            head.put(&[b"GET ", uri.path_and_query().map_or("/", |path| path.as_str()).as_bytes()]);
            Framing::Tunnel
        }
        Some(_) => return Err(Malformed::Pseudo),
        None => {
            let target = match (request.method(), uri.path_and_query()) {
                (&Method::CONNECT, _) => authority,
                (_, Some(path)) => path.as_str().as_bytes(),
                (_, None) => return Err(Malformed::Pseudo),
            };
            head.put(&[request.method().as_str().as_bytes(), b" "]);
            if let Some(scheme) = other.filter(|_| target.starts_with(b"/")) {
                head.put(&[scheme.as_bytes(), b"://", authority]);
            }
            head.put(&[target]);
            match (has_body, fields.contains_key(header::CONTENT_LENGTH)) {
                _ if request.method() == Method::CONNECT => Framing::Tunnel,
                (false, _) => Framing::None,
                (true, true) => Framing::Plain,
                (true, false) => Framing::Chunked,
            }
        }
    };
    let is_websocket = protocol.is_some();
    let mut accept = None;
    head.put(&[b" HTTP/1.1\r\nHost: ", authority, b"\r\n"]);
    match framing {
        Framing::Chunked => head.put(&[b"Transfer-Encoding: chunked\r\n"]),
        Framing::Tunnel if is_websocket => {
            // It need not be unpredictable: it only shows that the other side speaks WebSocket (RFC 6455 §4.1).
            let key = base64(&fastrand::u128(..).to_be_bytes());
            head.put(&[b"Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: ", &key, b"\r\n"]);
            accept = Some(accept_of(&key));
        }
        Framing::None | Framing::Plain | Framing::Tunnel => {}
    }
    put_cookies(fields, &mut head);
    for (name, value) in fields {
        let is_left_out = *name == header::HOST
            || *name == header::COOKIE
            || (is_websocket && *name == header::SEC_WEBSOCKET_KEY)
            || (is_websocket && *name == header::CONTENT_LENGTH);
        if is_padded(value) {
            return Err(Malformed::Value);
        }
        if *name == header::TE {
            // Nothing else may be in it (RFC 9113 §8.2.2), and it is about this hop.
            head.put(&[b"TE: trailers\r\nConnection: te\r\n"]);
        } else if !is_left_out {
            head.put(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"]);
        }
    }
    head.put(&[b"\r\n"]);
    if head.fits { Ok(Put { framing, accept }) } else { Err(Malformed::TooLarge) }
}

/// Whether whitespace is around a value.
#[inline]
fn is_padded(value: &HeaderValue) -> bool {
    matches!(value.as_bytes(), [b' ' | b'\t', ..] | [.., b' ' | b'\t'])
}

/// Bytes that a request's head may take.
pub(super) fn room_for(request: &Request<()>) -> usize {
    /// The first line's and the added fields' own.
    const LINES: usize = 256;
    let (uri, fields) = (request.uri(), request.headers());
    let fields: usize = fields.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    let target = uri.path_and_query().map_or(0, |path| path.as_str().len());
    LINES + fields + target + uri.authority().map_or(0, |authority| authority.as_str().len())
}

/// What the request is for. Where both `:authority` and `Host` are given they are the same.
fn authority(request: &Request<()>) -> Result<&[u8], Malformed> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = hosts.next().map(HeaderValue::as_bytes);
    if hosts.next().is_some() {
        return Err(Malformed::Authority);
    }
    match (request.uri().authority(), host) {
        (Some(authority), Some(host)) if !authority.as_str().as_bytes().eq_ignore_ascii_case(host) => {
            Err(Malformed::Authority)
        }
        (Some(authority), _) => Ok(authority.as_str().as_bytes()),
        (None, Some(host)) => Ok(host),
        (None, None) => Err(Malformed::Pseudo),
    }
}

/// Cookies come in crumbs, and are one field in HTTP/1 (RFC 9113 §8.2.3).
fn put_cookies(fields: &HeaderMap, head: &mut Head<'_>) {
    let mut crumbs = fields.get_all(header::COOKIE).iter();
    let Some(first) = crumbs.next() else { return };
    head.put(&[b"Cookie: ", first.as_bytes()]);
    crumbs.for_each(|crumb| head.put(&[b"; ", crumb.as_bytes()]));
    head.put(&[b"\r\n"]);
}

struct Head<'o> {
    out: &'o mut Buf,
    fits: bool,
}

impl Head<'_> {
    fn put(&mut self, parts: &[&[u8]]) {
        for part in parts {
            self.fits = self.fits && self.out.push(part);
        }
    }
}

/// Trailers as lines of a trailer section. Those that do not belong there are left out (RFC 9110 §6.5.1).
pub(super) fn trailer_lines(trailers: &HeaderMap) -> Vec<u8> {
    let mut lines = Vec::new();
    for (name, value) in trailers {
        if is_no_trailer(name) {
            continue;
        }
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            lines.extend_from_slice(part);
        }
    }
    lines
}

/// A trailer section's lines as trailers.
pub(super) fn trailers_of(lines: &[u8]) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    for line in lines.split(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let value = line[colon + 1..].trim_ascii();
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(&line[..colon]), HeaderValue::from_bytes(value))
            && !is_no_trailer(&name)
        {
            trailers.append(name, value);
        }
    }
    trailers
}

/// A response's head. `None`: a status or field that HTTP/2 cannot say.
pub(super) fn response_of(head: &ResponseHead, bytes: &[u8], status: u16) -> Option<Response<()>> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(status).ok()?;
    let fields = response.headers_mut();
    fields.reserve(head.fields.len());
    for field in head.fields.iter() {
        append(fields, field, bytes, |_| false)?;
    }
    Some(response)
}

/// Appends a field of a head, unless it is about a connection of HTTP/1, or `is_left_out`. `None`: HTTP/2 cannot say it.
#[inline]
fn append(
    fields: &mut HeaderMap,
    field: &Field,
    bytes: &[u8],
    is_left_out: impl Fn(FieldName) -> bool,
) -> Option<()> {
    let is_of_this_hop = match field.name {
        FieldName::Connection
        | FieldName::KeepAlive
        | FieldName::ProxyConnection
        | FieldName::TransferEncoding
        | FieldName::Upgrade => true,
        name => is_left_out(name),
    };
    if is_of_this_hop {
        return Some(());
    }
    let name = name_of(field.name, field.name_at.bytes(bytes))?;
    if name == header::SEC_WEBSOCKET_ACCEPT {
        return Some(());
    }
    let mut value = HeaderValue::from_bytes(field.value_at.bytes(bytes)).ok()?;
    value.set_sensitive(is_passing(field.name));
    fields.append(name, value);
    Some(())
}

/// A request's head. `None`: something that HTTP/2 cannot say.
pub(super) fn request_of(head: &RequestHead, bytes: &[u8], is_secured: bool) -> Option<Request<()>> {
    let method = Method::from_bytes(head.method_at.bytes(bytes)).ok()?;
    let authority = head.authority.bytes(bytes);
    // An upgrade is left out: whoever asks for one can do without (RFC 9110 §7.8). But see `connect_of`.
    if head.target == TargetForm::Authority {
        return None;
    }
    let target = match head.target {
        TargetForm::Asterisk => Bytes::from_static(b"*"),
        // The query is behind the path, with a question mark between them.
        _ => Bytes::copy_from_slice(&bytes[head.path.start as usize..head.query.unwrap_or(head.path).end()]),
    };
    let mut uri = uri::Parts::default();
    uri.scheme = Some(if is_secured { Scheme::HTTPS } else { Scheme::HTTP });
    uri.authority = Some(Authority::try_from(authority).ok()?);
    uri.path_and_query = Some(PathAndQuery::from_maybe_shared(target).ok()?);
    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = Uri::from_parts(uri).ok()?;
    *request.version_mut() = http::Version::HTTP_2;
    let fields = request.headers_mut();
    fields.reserve(head.fields.len());
    for field in head.fields.iter() {
        append(fields, field, bytes, |name| matches!(name, FieldName::Host | FieldName::Te))?;
    }
    // What comes back has room for them, and some endpoints (gRPC's) insist on hearing so.
    fields.insert(header::TE, HeaderValue::from_static("trailers"));
    Some(request)
}

/// A request for a WebSocket as an extended CONNECT (RFC 8441 §5), and the `Sec-WebSocket-Key` that its answer is for; `None`:
/// it is another request, or one that is malformed.
pub(super) fn connect_of(head: &RequestHead, bytes: &[u8], is_secured: bool) -> Option<(Request<()>, Bytes)> {
    let upgrade = head.upgrade?.bytes(bytes);
    // Content would be taken for the tunnel's first bytes.
    let has_content = !matches!(head.body, BodyLength::None | BodyLength::Exact(0));
    if has_content || head.method != http1::Method::Get || !upgrade.eq_ignore_ascii_case(b"websocket") {
        return None;
    }
    let mut request = request_of(head, bytes, is_secured)?;
    let key = request.headers_mut().remove(header::SEC_WEBSOCKET_KEY)?;
    request.headers_mut().remove(header::TE);
    request.headers_mut().remove(header::CONTENT_LENGTH);
    *request.method_mut() = Method::CONNECT;
    request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
    Some((request, Bytes::copy_from_slice(key.as_bytes())))
}

/// The `Sec-WebSocket-Accept` for a key (RFC 6455 §4.2.2).
fn accept_of(key: &[u8]) -> Bytes {
    /// RFC 6455 §1.3.
    const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    let mut sum = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    sum.update(key);
    sum.update(GUID);
    base64(sum.finish().as_ref()).into()
}

/// Puts the head that says an endpoint has become a WebSocket, for the key that the client gave.
pub(super) fn put_switched(response: &Response<()>, key: &[u8], out: &mut Buf) -> Option<()> {
    let accept = accept_of(key);
    let mut head = Head { out, fits: true };
    head.put(&[b"HTTP/1.1 101 \r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: "]);
    head.put(&[&accept, b"\r\n"]);
    let fields = response.headers().iter().filter(|(name, _)| !is_of_connection(name));
    for (name, value) in fields.filter(|(name, _)| **name != header::CONTENT_LENGTH) {
        head.put(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"]);
    }
    head.put(&[b"\r\n"]);
    head.fits.then_some(())
}

/// Bytes that a response's head may take.
pub(super) fn room_for_response(response: &Response<()>) -> usize {
    /// The first line's and the added fields' own.
    const LINES: usize = 128;
    let fields = response.headers().iter();
    LINES + fields.map(|(name, value)| name.as_str().len() + value.len() + 4).sum::<usize>()
}

/// Puts an interim response's head into `out`.
pub(super) fn put_interim(response: &Response<()>, out: &mut Buf) -> Option<()> {
    let mut head = Head { out, fits: true };
    head.put(&[b"HTTP/1.1 ", response.status().as_str().as_bytes(), b" \r\n"]);
    put_fields(response.headers(), &mut head);
    head.put(&[b"\r\n"]);
    head.fits.then_some(())
}

/// Puts a response's head into `out`. `has_body`: its stream has not ended with its head.
pub(super) fn put_response(
    response: &Response<()>,
    is_head: bool,
    has_body: bool,
    out: &mut Buf,
) -> Option<Framing> {
    let status = response.status();
    let fields = response.headers();
    let has_none = is_head || matches!(status.as_u16(), 204 | 304);
    let mut head = Head { out, fits: true };
    head.put(&[b"HTTP/1.1 ", status.as_str().as_bytes(), b" \r\n"]);
    let framing = match (has_body, fields.contains_key(header::CONTENT_LENGTH)) {
        (false, true) => Framing::None,
        (false, false) if has_none => Framing::None,
        (false, false) => {
            head.put(&[b"Content-Length: 0\r\n"]);
            Framing::None
        }
        // What should not be there makes the response malformed when it comes.
        (true, _) if has_none => Framing::Plain,
        (true, true) => Framing::Plain,
        (true, false) => {
            head.put(&[b"Transfer-Encoding: chunked\r\n"]);
            Framing::Chunked
        }
    };
    put_fields(fields, &mut head);
    head.put(&[b"\r\n"]);
    head.fits.then_some(framing)
}

fn put_fields(fields: &HeaderMap, head: &mut Head<'_>) {
    for (name, value) in fields.iter().filter(|(name, _)| !is_of_connection(name)) {
        head.fits &= !is_padded(value);
        head.put(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"]);
    }
}

/// Fields that must not come behind the content.
fn is_no_trailer(name: &HeaderName) -> bool {
    is_of_connection(name) || FieldName::recognise(name.as_str().as_bytes()).is_forbidden_in_trailers()
}

/// Fields that are about a connection of HTTP/1 (RFC 9113 §8.2.2).
fn is_of_connection(name: &HeaderName) -> bool {
    matches!(
        *name,
        header::CONNECTION | header::TRANSFER_ENCODING | header::UPGRADE | header::SEC_WEBSOCKET_ACCEPT
    ) || matches!(name.as_str(), "keep-alive" | "proxy-connection")
}
