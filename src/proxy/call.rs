//! Requests of the gateway's own: to ask someone about a client's request, or to make one answer of several. Each is an exchange like
//! any other, on a connection that is memory at both ends and that takes a route which no client's request finds; so the pools,
//! the retries, the deadlines and the policies are the same ones. What is asked, and what an answer means, is decided elsewhere.

use std::{
    cell::RefCell,
    io,
    net::IpAddr,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use super::{
    connection::{Connection, serve_requests},
    error::Error,
    exchange::Exchange,
    facts::Facts,
    generation::Generation,
    guard::guard,
    identity::Whose,
    record::RequestId,
};
use crate::{
    buf::{Buf, LARGE_BYTES, SMALL_BYTES, Size},
    http::{
        body::BodyReader,
        field::{FieldName, NameSet},
        head::{FIELDS_MAX, HeadLimits, Parsed},
        method::Method,
        response::{ResponseHead, parse_response},
    },
    net::{self, Outcome},
    policy::token::Claims,
    table::Attached,
    telemetry::text::append_decimal,
    tls::{OtherRx, OtherTx, Stream},
};

/// On whose behalf a request is made, and by which route.
pub(super) struct Behalf {
    pub(super) generation: Rc<Generation>,
    pub(super) attached: Attached,
    pub(super) client: IpAddr,
    /// Whether the peer's forwarding fields are believed.
    pub(super) is_trusted: bool,
    pub(super) id: RequestId,
    pub(super) consumer: Option<Whose>,
    pub(super) user: Option<Rc<str>>,
    pub(super) claims: Option<Rc<Claims>>,
    /// Whole lines that go upstream beside what the request itself has.
    pub(super) lines: Vec<u8>,
}

impl Behalf {
    /// That of the client whose exchange it is. `lines` are whole ones, which no one but the gateway has written.
    pub(super) fn of(x: &Exchange<'_>, facts: &Facts<'_>, attached: Attached, lines: Vec<u8>) -> Self {
        Self {
            generation: Rc::clone(x.generation),
            attached,
            client: facts.client,
            is_trusted: facts.is_trusted,
            id: x.record.id.clone(),
            consumer: x.record.consumer.clone(),
            user: x.record.user.clone(),
            claims: x.record.claims.clone(),
            lines,
        }
    }
}

/// Fields that are about a request's content, its connection or its very resource, and of no use in one that is made of it.
const NOT_TAKEN: NameSet = NameSet::of(&[
    FieldName::AcceptEncoding,
    FieldName::ContentDisposition,
    FieldName::ContentEncoding,
    FieldName::ContentLanguage,
    FieldName::ContentLength,
    FieldName::ContentLocation,
    FieldName::ContentRange,
    FieldName::ContentType,
    FieldName::Cookie,
    FieldName::Expect,
    FieldName::Host,
    FieldName::IfMatch,
    FieldName::IfModifiedSince,
    FieldName::IfNoneMatch,
    FieldName::IfRange,
    FieldName::IfUnmodifiedSince,
    FieldName::MaxForwards,
    FieldName::Range,
    FieldName::Trailer,
    FieldName::XForwardedMethod,
    FieldName::XForwardedUri,
]);

/// What a trusted peer says of who asks: it goes wherever the request goes.
const ABOUT_THE_CLIENT: NameSet = NameSet::of(&[
    FieldName::Forwarded,
    FieldName::XForwardedFor,
    FieldName::XForwardedHost,
    FieldName::XForwardedProto,
]);

/// A request on behalf of another one: of that one's fields it has those that `wants` names and that an upstream may see. `content` is
/// its type and itself.
pub(super) fn request_for(
    facts: &Facts<'_>,
    method: &[u8],
    target: &[u8],
    wants: impl Fn(&[u8]) -> bool,
    content: Option<(&str, &[u8])>,
) -> Vec<u8> {
    let mut out =
        Vec::with_capacity(facts.bytes.len() + content.map_or(0, |(_, content)| content.len()) + 256);
    let host = if facts.authority().is_empty() { b"localhost" } else { facts.authority() };
    for part in [method, b" ", target, b" HTTP/1.1\r\nHost: ", host, b"\r\n"] {
        out.extend_from_slice(part);
    }
    let mut put = |name: &[u8], value: &[u8]| {
        for part in [name, b": ", value, b"\r\n"] {
            out.extend_from_slice(part);
        }
    };
    for field in facts.head.fields.iter().filter(|field| !field.hop && !NOT_TAKEN.has(field.name)) {
        let name = field.name_at.bytes(facts.bytes);
        let is_about_the_client = facts.is_trusted && ABOUT_THE_CLIENT.has(field.name);
        if (is_about_the_client || wants(name)) && !facts.hides_field(name) {
            put(name, field.value_at.bytes(facts.bytes));
        }
    }
    if wants(b"cookie") && !facts.hides_field(b"cookie") {
        facts.shown_cookies().for_each(|cookies| put(b"Cookie", &cookies));
    }
    put(b"Connection", b"close");
    if let Some((content_type, content)) = content {
        put(b"Content-Type", content_type.as_bytes());
        let mut length = Vec::new();
        append_decimal(content.len() as u64, &mut length);
        put(b"Content-Length", &length);
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(content.map_or(b"", |(_, content)| content));
    out
}

/// A connection's part in a request of the gateway's own.
pub(super) struct Inner {
    pub(super) behalf: Behalf,
    wire: Rc<RefCell<Wire>>,
}

impl Inner {
    /// Tells the caller why there is no answer of an endpoint.
    pub(super) fn on_error(&self, error: Error) {
        self.wire.borrow_mut().error = Some(error);
    }
}

/// What lies between the one who asks and the exchange.
#[derive(Default)]
struct Wire {
    request: Vec<u8>,
    /// How much of it was delivered.
    delivered: usize,
    answer: Vec<u8>,
    /// Bytes that an answer may have.
    answer_max: usize,
    is_too_large: bool,
    error: Option<Error>,
    /// The exchange is over.
    is_over: bool,
    /// Whoever asked has gone.
    is_unwanted: bool,
    caller: Option<Waker>,
    exchange: Option<Waker>,
}

/// A request under way. Dropping it ends the exchange.
pub(super) struct Call {
    wire: Rc<RefCell<Wire>>,
    method: Method,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CallFault {
    /// The exchange failed.
    Failed(Error),
    /// It has more bytes than it may.
    TooLarge,
    /// It is not whole.
    Broken,
}

/// A whole answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) head: ResponseHead,
    /// What the head's extents are about.
    pub(super) bytes: Vec<u8>,
    pub(super) body: Vec<u8>,
}

impl Call {
    /// Sends a request that [`request_for`] has made, in the course of an exchange. The answer may have `answer_max` bytes.
    pub(super) fn send(
        x: &Exchange<'_>,
        behalf: Behalf,
        (method, request): (Method, Vec<u8>),
        answer_max: usize,
    ) -> Self {
        let Connection { core, stream, ends, listener, .. } = &*x.connection;
        let session = stream.session().cloned();
        let wire = Rc::new(RefCell::new(Wire { request, answer_max, ..Wire::default() }));
        let rx = Box::new(InnerRx { wire: Rc::clone(&wire), armed: None });
        let tx = Box::new(InnerTx { wire: Rc::clone(&wire), spent: None, has_failed: false });
        let stream = Stream::other(rx, tx, session);
        let deadline = core.deadlines.register();
        let inner = Box::new(Inner { behalf, wire: Rc::clone(&wire) });
        let connection = Connection::inner(Rc::clone(core), stream, *ends, *listener, deadline, inner);
        let (core, peer) = (Rc::clone(core), ends.peer);
        net::spawn(async move {
            if guard(serve_requests(Box::new(connection))).await.is_err() {
                core.figures.borrow_mut().counters.panics += 1;
                tracing::error!(core = core.worker, %peer, "the task of a request of the gateway's own panicked");
            }
        });
        Self { wire, method }
    }

    /// The answer, once it is whole.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Answer, CallFault>> {
        let mut wire = self.wire.borrow_mut();
        if !wire.is_over {
            wire.caller = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(match (wire.is_too_large, wire.error) {
            (true, _) => Err(CallFault::TooLarge),
            (false, Some(error)) => Err(CallFault::Failed(error)),
            (false, None) => read(std::mem::take(&mut wire.answer), self.method),
        })
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let mut wire = self.wire.borrow_mut();
        wire.is_unwanted = true;
        if let Some(exchange) = wire.exchange.take() {
            exchange.wake();
        }
    }
}

/// Reads an answer as the exchange wrote it. Interim responses are no part of it.
fn read(mut bytes: Vec<u8>, method: Method) -> Result<Answer, CallFault> {
    let limits = HeadLimits { head_bytes: LARGE_BYTES, headers: FIELDS_MAX, target_bytes: 0 };
    let mut head = ResponseHead::default();
    loop {
        let Ok(Parsed::Complete { head_len }) = parse_response(&bytes, &mut 0, &limits, &mut head) else {
            return Err(CallFault::Broken);
        };
        if head.status < 200 {
            bytes.drain(..head_len);
            continue;
        }
        let mut body = bytes.split_off(head_len);
        let mut reader = BodyReader::response(head.body(method));
        let taken = reader.take(&mut body).map_err(|_| CallFault::Broken)?;
        if !reader.is_done() && reader.on_close().is_err() {
            return Err(CallFault::Broken);
        }
        body.truncate(taken.payload);
        return Ok(Answer { head, bytes, body });
    }
}

/// Where the exchange hears the request.
struct InnerRx {
    wire: Rc<RefCell<Wire>>,
    /// An empty one stands for any.
    armed: Option<Buf>,
}

impl OtherRx for InnerRx {
    fn arm(&mut self, buf: Buf) {
        self.armed = Some(buf);
    }

    fn arm_lazily(&mut self) -> bool {
        self.armed = Some(Buf::none());
        true
    }

    fn is_armed(&self) -> bool {
        self.armed.is_some()
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Outcome<usize>> {
        if self.armed.is_none() {
            return Poll::Pending;
        }
        let wire = &mut *self.wire.borrow_mut();
        let left = &wire.request[wire.delivered..];
        if wire.is_unwanted {
            self.armed = None;
            return Poll::Ready((Err(io::ErrorKind::ConnectionReset.into()), Buf::none()));
        }
        if left.is_empty() {
            // What can still come is that whoever asks has gone.
            wire.exchange = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let armed = self.armed.take().filter(|buf| buf.spare_len() > 0);
        let size = if left.len() > SMALL_BYTES { Size::Large } else { Size::Small };
        let Some(mut buf) = armed.or_else(|| Buf::take(size)) else {
            return Poll::Ready((Err(io::ErrorKind::OutOfMemory.into()), Buf::none()));
        };
        let count = left.len().min(buf.spare_len());
        let fits = buf.push(&left[..count]);
        debug_assert!(fits, "there is room for it");
        wire.delivered += count;
        if wire.delivered == wire.request.len() {
            wire.delivered = 0;
            wire.request = Vec::new();
        }
        Poll::Ready((Ok(count), buf))
    }
}

/// Where the exchange says the answer.
struct InnerTx {
    wire: Rc<RefCell<Wire>>,
    /// The buffer that was sent last, for whoever waits for that.
    spent: Option<Buf>,
    has_failed: bool,
}

impl OtherTx for InnerTx {
    fn arm(&mut self, mut buf: Buf) {
        let mut wire = self.wire.borrow_mut();
        if wire.answer.len() + buf.len() > wire.answer_max {
            wire.is_too_large = true;
        }
        self.has_failed |= wire.is_too_large || wire.is_unwanted;
        if !self.has_failed {
            wire.answer.extend_from_slice(buf.filled());
        }
        buf.reset(0, 0);
        self.spent = Some(buf);
    }

    fn is_sending(&self) -> bool {
        self.has_failed
    }

    fn poll_sent(&mut self, _: &mut Context<'_>) -> Poll<Outcome<()>> {
        let buf = self.spent.take().unwrap_or_else(Buf::none);
        let result = if self.has_failed { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) };
        Poll::Ready((result, buf))
    }

    fn taken(&self) -> u64 {
        self.wire.borrow().answer.len() as u64
    }

    fn abort(&mut self) {
        self.has_failed = true;
        self.wire.borrow_mut().answer.clear();
    }

    fn finish(&mut self) {}
}

impl Drop for InnerTx {
    fn drop(&mut self) {
        let mut wire = self.wire.borrow_mut();
        wire.is_over = true;
        if let Some(caller) = wire.caller.take() {
            caller.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_whole_or_not_at_all() {
        let wire =
            b"HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
        for end in 0..wire.len() {
            assert_eq!(
                read(wire[..end].to_vec(), Method::Get).err(),
                Some(CallFault::Broken),
                "cut at {end}"
            );
        }
        let answer = read(wire.to_vec(), Method::Get).expect("it is whole");
        assert_eq!((answer.head.status, &answer.body[..]), (200, &b"hello"[..]));
        let chunked =
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n";
        assert_eq!(read(chunked.to_vec(), Method::Get).expect("it is whole").body, b"hello");
        let until_close = b"HTTP/1.0 200 OK\r\n\r\nhello";
        assert_eq!(read(until_close.to_vec(), Method::Get).expect("it is whole").body, b"hello");
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n";
        assert_eq!(read(head.to_vec(), Method::Head).expect("it is whole").body, b"");
    }
}
