//! The heads that leave the gateway: what is kept of a received head, what is put in its place, what is added. One
//! buffer, written once.

use super::{error::Error, facts::Facts};
use crate::{
    buf::{Buf, FRAMING_BYTES, SMALL_BYTES, Size},
    clock::HTTP_DATE_BYTES,
    http::{
        body::SendAs,
        field::{FieldName, NameSet, is_forwarding},
        framing::BodyLength,
        request::TargetForm,
        response::{ResponseBody, ResponseHead},
        status,
        version::Version,
        write::{HeadWriter, LeftOut, Overflow},
    },
    policy::{cors, forwarded::Hop, headers::HeaderEdits, request_id::REQUEST_ID_BYTES},
    table::Forwarding,
};

impl From<Overflow> for Error {
    fn from(_: Overflow) -> Self {
        Self::HeadOverflow
    }
}

/// What edits and forwarding fields may add to a head before a large buffer is taken for it.
const EDITS_ROOM: usize = 2048;

/// An empty buffer for a head, and a body's beginning, of about `len` bytes.
pub(super) fn buffer_for(len: usize) -> Result<Buf, Error> {
    let size = if len + EDITS_ROOM <= SMALL_BYTES { Size::Small } else { Size::Large };
    let mut buf = Buf::take(size).ok_or(Error::NoBuffer)?;
    if len + EDITS_ROOM + 2 * FRAMING_BYTES <= buf.capacity() {
        // What is sent by TLS becomes a record where it lies.
        buf.reset(FRAMING_BYTES, FRAMING_BYTES);
    }
    Ok(buf)
}

/// What a request's head is made of.
pub(super) struct RequestParts<'a> {
    pub(super) facts: &'a Facts<'a>,
    /// The path instead of the client's.
    pub(super) rewritten: Option<&'a [u8]>,
    /// Whether it comes with its own query, so that the client's is dropped.
    pub(super) rewrites_query: bool,
    /// The host instead of the client's.
    pub(super) host: Option<&'a [u8]>,
    /// Whether the path is canonical as sent.
    pub(super) is_as_sent: bool,
    pub(super) edits: &'a HeaderEdits,
    /// Whole lines to add.
    pub(super) lines: &'a [u8],
    pub(super) forwarding: &'a Forwarding,
}

/// Writes the head that goes upstream.
pub(super) fn request(out: &mut Buf, parts: &RequestParts<'_>) -> Result<(), Error> {
    let RequestParts { facts, edits, forwarding, .. } = parts;
    let head = facts.head;
    let mut to = HeadWriter::new(out);
    // The request line and Host go on as they came, unless there is something to change in them.
    let goes_as_is =
        parts.is_as_sent && parts.rewritten.is_none() && parts.host.is_none() && !facts.hides_query();
    let mut first = 0..0;
    if goes_as_is && head.target == TargetForm::Origin && head.version == Version::Http11 {
        first = head.method_at.start as usize..head.fields.start(facts.bytes);
    } else {
        request_line(&mut to, parts);
    }
    let withheld = Withheld::new(facts, edits, forwarding);
    let mut names = withheld.names;
    if first.is_empty() {
        names = names.and(FieldName::Host);
    }
    let hides_cookies = facts.hides_cookies() && !edits.removes(b"cookie");
    if hides_cookies {
        names = names.and(FieldName::Cookie);
    }
    let has_odd_names = head.fields.has_odd_names();
    let removes = |name: &[u8]| withheld.removes(name) || (has_odd_names && withheld.poses(name));
    let removes = (edits.removes_any() || facts.hides() || has_odd_names).then_some(removes);
    to.lines(facts.bytes, first, &head.fields, &LeftOut { names, removes });
    if hides_cookies {
        facts.shown_cookies().for_each(|cookies| to.field(b"Cookie", &cookies));
    }
    to.put(parts.lines);
    if head.body == BodyLength::Chunked {
        to.put(b"Transfer-Encoding: chunked\r\n");
    }
    if let Some(upgrade) = head.upgrade {
        to.put(b"Connection: upgrade\r\n");
        to.field(b"Upgrade", upgrade.bytes(facts.bytes));
    }
    via(&mut to, forwarding, if facts.is_stream { b"2" } else { number(head.version) });
    Ok(to.finish()?)
}

fn request_line(to: &mut HeadWriter<'_>, parts: &RequestParts<'_>) {
    let facts = parts.facts;
    to.put(facts.method());
    to.put(b" ");
    match (facts.head.target, parts.rewritten) {
        (TargetForm::Asterisk, _) => to.put(b"*"),
        (TargetForm::Authority, _) => to.put(facts.authority()),
        (TargetForm::Origin | TargetForm::Absolute, rewritten) => {
            to.put(rewritten.unwrap_or(facts.path));
            if !parts.rewrites_query
                && let Some(query) = facts.shown_query()
            {
                to.put(b"?");
                to.put(&query);
            }
        }
    }
    to.put(b" HTTP/1.1\r\n");
    to.field(b"Host", parts.host.unwrap_or_else(|| facts.authority()));
}

const X_FORWARDED: NameSet =
    NameSet::of(&[FieldName::XForwardedFor, FieldName::XForwardedHost, FieldName::XForwardedProto]);
const FORWARDED: NameSet = NameSet::of(&[FieldName::Forwarded]);
const REQUEST_ID: NameSet = NameSet::of(&[FieldName::XRequestId]);

/// What a stranger says of itself and must not be believed, here or behind the gateway: also where it is not written
/// here, since many an upstream reads it.
const CLAIMS: NameSet = X_FORWARDED.union(FORWARDED).union(REQUEST_ID).union(NameSet::of(&[
    FieldName::TrueClientIp,
    FieldName::XClientIp,
    FieldName::XForwardedMethod,
    FieldName::XForwardedPort,
    FieldName::XForwardedPrefix,
    FieldName::XForwardedScheme,
    FieldName::XForwardedServer,
    FieldName::XForwardedSsl,
    FieldName::XForwardedUri,
    FieldName::XOriginalHost,
    FieldName::XOriginalUrl,
    FieldName::XRealIp,
    FieldName::XRewriteUrl,
]));

/// Whether a field is one of those that no stranger is believed.
pub(super) fn is_claim(known: FieldName, name: &[u8]) -> bool {
    CLAIMS.has(known) || is_forwarding(name)
}

/// What decides where a request goes and how long it is, and must not seem to come twice.
const NOT_BY_ANOTHER_NAME: NameSet = NameSet::of(&[FieldName::ContentLength, FieldName::Host]);

/// What of a request does not go on, be it in its head or in its trailers.
pub(super) struct Withheld<'a> {
    facts: &'a Facts<'a>,
    edits: &'a HeaderEdits,
    names: NameSet,
}

impl<'a> Withheld<'a> {
    #[inline]
    pub(super) fn new(facts: &'a Facts<'a>, edits: &'a HeaderEdits, forwarding: &Forwarding) -> Self {
        Self { facts, edits, names: disowned(forwarding, facts.is_trusted) }
    }

    /// Whether the operator removes or sets it, or it is a credential that is not for the upstream to see.
    fn removes(&self, name: &[u8]) -> bool {
        self.edits.removes(name) || (self.facts.hides() && self.facts.hides_field(name))
    }

    /// Whether a stranger claims with it what only a proxy may say.
    fn is_claim(&self, name: &[u8]) -> bool {
        !self.facts.is_trusted && is_forwarding(name)
    }

    /// Whether it is, or seems to be, another one that does not go on.
    fn poses(&self, name: &[u8]) -> bool {
        self.is_claim(name)
            || as_hyphens(name, |meant| {
                let known = FieldName::recognise(meant);
                self.is_claim(meant)
                    || NOT_BY_ANOTHER_NAME.union(self.names).has(known)
                    || known.is_hop_by_hop()
                    || self.removes(meant)
            })
    }

    /// Whether a trailer of this name goes on: many an upstream makes fields and trailers one.
    pub(super) fn passes_trailer(&self, name: &[u8]) -> bool {
        let is_forbidden = |name: &[u8]| {
            FieldName::recognise(name).is_forbidden_in_trailers() || self.is_claim(name) || self.removes(name)
        };
        !is_forbidden(name) && !as_hyphens(name, is_forbidden)
    }
}

/// What `is_meant` says of the name with a hyphen for each byte that is neither letter nor digit, if it has any: upstreams that show
/// fields as variables make all of them one, so what is not to pass by the one name shall not by the other.
#[cold]
fn as_hyphens(name: &[u8], is_meant: impl FnOnce(&[u8]) -> bool) -> bool {
    let is_odd = |byte: &u8| !byte.is_ascii_alphanumeric() && *byte != b'-';
    if !name.iter().any(is_odd) {
        return false;
    }
    let meant: Vec<u8> = name.iter().map(|byte| if is_odd(byte) { b'-' } else { *byte }).collect();
    is_meant(&meant)
}

/// The fields about who asks that do not go on: all of a stranger's, and of a trusted peer's those that are written
/// anew.
#[inline]
fn disowned(forwarding: &Forwarding, is_trusted: bool) -> NameSet {
    if !is_trusted {
        return CLAIMS;
    }
    [
        (forwarding.x_forwarded, X_FORWARDED),
        (forwarding.forwarded, FORWARDED),
        (forwarding.request_id, REQUEST_ID),
    ]
    .into_iter()
    .filter(|(is_written, _)| *is_written)
    .fold(NameSet::NONE, |all, (_, names)| all.union(names))
}

/// The received protocol's version (RFC 9110 §7.6.3).
fn number(version: Version) -> &'static [u8] {
    match version {
        Version::Http10 => b"1.0",
        Version::Http11 => b"1.1",
    }
}

fn via(to: &mut HeadWriter<'_>, forwarding: &Forwarding, received: &[u8]) {
    if !forwarding.via.is_empty() {
        to.put(b"Via: ");
        to.put(received);
        to.put(b" ");
        to.put(&forwarding.via);
        to.put(b"\r\n");
    }
}

/// Appends the lines that tell the upstream who asked, but for those that the operator removes or sets.
pub(super) fn forwarding_lines(
    facts: &Facts<'_>,
    forwarding: &Forwarding,
    edits: &HeaderEdits,
    lines: &mut Vec<u8>,
) {
    let is_ours = |name: FieldName| edits.is_empty() || !edits.removes(name.as_str().as_bytes());
    let hop = Hop {
        peer: facts.peer.ip(),
        host: facts.authority(),
        scheme: facts.scheme(),
        is_trusted: facts.is_trusted,
    };
    if forwarding.x_forwarded && !facts.is_trusted && !edits.removes_any() {
        hop.append_x_forwarded_anew(lines);
    } else {
        edited_x_forwarded(facts, forwarding, &hop, is_ours, lines);
    }
    if forwarding.forwarded && is_ours(FieldName::Forwarded) {
        hop.append_forwarded(facts.values(FieldName::Forwarded), lines);
    }
    if forwarding.request_id && is_ours(FieldName::XRequestId) {
        lines.extend_from_slice(b"X-Request-Id: ");
        // One of ours, as most are, has a known length.
        match <&[u8; REQUEST_ID_BYTES]>::try_from(facts.id) {
            Ok(id) => lines.extend_from_slice(id),
            Err(_) => lines.extend_from_slice(facts.id),
        }
        lines.extend_from_slice(b"\r\n");
    }
}

/// Appends the `X-Forwarded-` lines where a trusted peer may have said something or the operator removes some.
fn edited_x_forwarded(
    facts: &Facts<'_>,
    forwarding: &Forwarding,
    hop: &Hop<'_>,
    is_ours: impl Fn(FieldName) -> bool,
    lines: &mut Vec<u8>,
) {
    if forwarding.x_forwarded && is_ours(FieldName::XForwardedFor) {
        hop.append_x_forwarded_for(facts.values(FieldName::XForwardedFor), lines);
    }
    if forwarding.x_forwarded && is_ours(FieldName::XForwardedProto) {
        hop.append_x_forwarded_proto(facts.values(FieldName::XForwardedProto), lines);
    }
    if forwarding.x_forwarded && is_ours(FieldName::XForwardedHost) {
        hop.append_x_forwarded_host(facts.values(FieldName::XForwardedHost), lines);
    }
}

/// How a response's body is sent to a client: in chunks where its end cannot be told otherwise and the client
/// understands them.
pub(super) fn send_as(framing: ResponseBody, client: Version) -> SendAs {
    match (framing, client) {
        (ResponseBody::Chunked | ResponseBody::UntilClose, Version::Http11) => SendAs::Chunked,
        _ => SendAs::Plain,
    }
}

const CONTENT_LENGTH: NameSet = NameSet::of(&[FieldName::ContentLength]);

/// What of a response does not go on, be it in a head, an interim one's too, or in trailers.
#[derive(Clone, Copy)]
pub(super) struct KeptBack<'a> {
    pub(super) edits: &'a HeaderEdits,
    /// Whether the gateway says who may read it, and the upstream does not.
    pub(super) is_shared: bool,
}

impl KeptBack<'_> {
    /// Whether the field goes no further.
    pub(super) fn has(&self, name: &[u8]) -> bool {
        self.edits.removes(name) || (self.is_shared && cors::is_grant(name))
    }

    /// The same, as a head's writer asks it; not at all where nothing is.
    #[inline]
    fn asked_by_a_writer(&self) -> Option<impl Fn(&[u8]) -> bool> {
        (self.edits.removes_any() || self.is_shared).then_some(|name: &[u8]| self.has(name))
    }
}

/// What a relayed response's head is made of.
pub(super) struct ResponseParts<'a> {
    pub(super) response: &'a ResponseHead,
    /// The bytes of the received head.
    pub(super) head: &'a [u8],
    pub(super) send_as: SendAs,
    pub(super) keep_alive: bool,
    /// The client's version.
    pub(super) version: Version,
    pub(super) is_tunnel: bool,
    pub(super) kept_back: KeptBack<'a>,
    /// Whole lines to add.
    pub(super) lines: &'a [u8],
    pub(super) forwarding: &'a Forwarding,
    pub(super) date: [u8; HTTP_DATE_BYTES],
}

/// Writes the head of a relayed response.
pub(super) fn response(out: &mut Buf, parts: &ResponseParts<'_>) -> Result<(), Error> {
    let ResponseParts { response, head, kept_back, .. } = parts;
    let mut to = HeadWriter::new(out);
    // Everything up to the first field that is left out goes on in one piece, the status line included.
    let mut first = 0..response.fields.start(head);
    if response.version != Version::Http11 || response.reason.is_empty() {
        first = 0..0;
        status_line(&mut to, response.status, Some(response.reason.bytes(head)));
    }
    // RFC 9110 §8.6: no Content-Length where there can be no content.
    let drops_length = parts.is_tunnel || response.status == 204;
    let names = if drops_length { CONTENT_LENGTH } else { NameSet::NONE };
    to.lines(head, first, &response.fields, &LeftOut { names, removes: kept_back.asked_by_a_writer() });
    if !response.fields.has(FieldName::Date) && !kept_back.edits.removes(b"date") {
        date(&mut to, &parts.date);
    }
    to.put_lines(parts.lines);
    if parts.send_as == SendAs::Chunked {
        to.put(b"Transfer-Encoding: chunked\r\n");
    }
    match response.upgrade.filter(|_| response.status == 101) {
        Some(upgrade) => {
            to.put(b"Connection: upgrade\r\n");
            to.field(b"Upgrade", upgrade.bytes(head));
        }
        None if parts.is_tunnel => {}
        None => connection(&mut to, parts.keep_alive, parts.version),
    }
    via(&mut to, parts.forwarding, number(response.version));
    Ok(to.finish()?)
}

/// Writes the head of an interim response (1xx).
pub(super) fn interim(
    out: &mut Buf,
    response: &ResponseHead,
    head: &[u8],
    kept_back: KeptBack<'_>,
    forwarding: &Forwarding,
) -> Result<(), Error> {
    let mut to = HeadWriter::new(out);
    status_line(&mut to, response.status, Some(response.reason.bytes(head)));
    let left_out = LeftOut { names: CONTENT_LENGTH, removes: kept_back.asked_by_a_writer() };
    to.fields(head, &response.fields, &left_out);
    if response.status != 100 {
        via(&mut to, forwarding, number(response.version));
    }
    Ok(to.finish()?)
}

/// What a response of the gateway's own is made of.
pub(super) struct OwnParts<'a> {
    pub(super) status: u16,
    pub(super) content_type: Option<&'a [u8]>,
    /// What the operator removes or sets.
    pub(super) edits: Option<&'a HeaderEdits>,
    /// Whole lines to add.
    pub(super) lines: &'a [u8],
    pub(super) body: &'a [u8],
    /// Whether the body is only spoken of (HEAD).
    pub(super) is_head: bool,
    pub(super) keep_alive: bool,
    pub(super) version: Version,
    pub(super) date: [u8; HTTP_DATE_BYTES],
}

/// Writes a response of the gateway's own with as much of its body as fits, and gives back the rest.
pub(super) fn own<'p>(out: &mut Buf, parts: &OwnParts<'p>) -> Result<&'p [u8], Error> {
    let is_ours = |name: &[u8]| parts.edits.is_none_or(|edits| !edits.removes(name));
    let mut to = HeadWriter::new(out);
    status_line(&mut to, parts.status, None);
    if is_ours(b"date") {
        to.field(b"Date", &parts.date);
    }
    let has_body = !matches!(parts.status, 204 | 304);
    if let Some(content_type) = parts.content_type.filter(|_| has_body && is_ours(b"content-type")) {
        to.field(b"Content-Type", content_type);
    }
    if has_body {
        to.put(b"Content-Length: ");
        to.number(parts.body.len() as u64);
        to.put(b"\r\n");
    }
    to.put(parts.lines);
    connection(&mut to, parts.keep_alive, parts.version);
    to.finish()?;
    if !has_body || parts.is_head {
        return Ok(&[]);
    }
    let (now, later) = parts.body.split_at(parts.body.len().min(out.spare_len()));
    let fits = out.push(now);
    debug_assert!(fits, "there is room for it");
    Ok(later)
}

/// The first line. An upstream's reason phrase is kept; where there is none, the usual one is put.
fn status_line(to: &mut HeadWriter<'_>, code: u16, reason: Option<&[u8]>) {
    to.put(b"HTTP/1.1 ");
    to.number(u64::from(code));
    to.put(b" ");
    to.put(reason.unwrap_or_else(|| status::reason(code).as_bytes()));
    to.put(b"\r\n");
}

/// The line in one piece, whose length is known when this is compiled.
fn date(to: &mut HeadWriter<'_>, date: &[u8; HTTP_DATE_BYTES]) {
    const NAME: &[u8; 6] = b"Date: ";
    let mut line = [0; NAME.len() + HTTP_DATE_BYTES + 2];
    line[..NAME.len()].copy_from_slice(NAME);
    line[NAME.len()..][..HTTP_DATE_BYTES].copy_from_slice(date);
    line[NAME.len() + HTTP_DATE_BYTES..].copy_from_slice(b"\r\n");
    to.put(&line);
}

fn connection(to: &mut HeadWriter<'_>, keep_alive: bool, version: Version) {
    match (keep_alive, version) {
        (true, Version::Http11) => {}
        (true, Version::Http10) => to.put(b"Connection: keep-alive\r\n"),
        (false, _) => to.put(b"Connection: close\r\n"),
    }
}
