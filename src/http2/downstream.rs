//! Clients' streams: each is a receiving half that shows the request as bytes of HTTP/1, and a sending half that takes the
//! response so and gives it to `h2`.

use std::{
    cell::{Cell, RefCell},
    io,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use h2::{
    Reason, RecvStream,
    server::{self, Connection, SendResponse},
};
use http::{Request, Response, StatusCode};

use super::{
    body::{Armed, Incoming, Outgoing},
    heartbeat::{CLIENT_BEAT_MS, Heartbeat},
    io::{Io, WORK_PER_POLL, shaken},
    message::{Malformed, Put, put_request, response_of, room_for},
    toll::Toll,
};
use crate::{
    buf::{Buf, FRAMING_BYTES, LARGE_BYTES, SMALL_BYTES, Size},
    clock::Deadline,
    http::{
        body::BodyReader,
        field::FIELDS_MAX,
        head::{HeadLimits, Parsed},
        method::Method,
        response::{ResponseHead, parse_response},
    },
    net::Outcome,
    tls::{OtherRx, OtherTx},
};

/// What a client may do on one connection.
#[derive(Debug, Clone, Copy)]
pub struct DownstreamLimits {
    /// Requests at once.
    pub streams: u32,
    /// Bytes of a head, as RFC 9113 §6.5.2 counts them.
    pub head_bytes: u32,
    /// Bytes that a client may send of one body before more of it is wanted.
    pub stream_window: u32,
    /// The same for all bodies together.
    pub connection_window: u32,
}

/// A client's connection.
pub struct Downstream {
    connection: Connection<Io, Bytes>,
    is_secured: bool,
    /// Work before others have their turn.
    budget: Rc<Cell<u32>>,
    streams_max: u32,
    /// The client was told that it floods.
    is_flood: bool,
    shared: Rc<Shared>,
    heartbeat: Heartbeat,
}

/// What a connection's streams have in common.
struct Shared {
    /// Responses that were broken off, mostly by the client.
    broken: Cell<u64>,
    /// Scratch space: the head of the response that is being sent.
    head: RefCell<ResponseHead>,
    /// What the client's frames cost.
    toll: Rc<RefCell<Toll>>,
}

/// A request, as the two halves of a connection.
pub struct Accepted {
    /// What shows the request.
    pub rx: Box<dyn OtherRx>,
    /// What takes the response.
    pub tx: Box<dyn OtherTx>,
}

/// Payload that `h2` keeps of one stream until it can be sent.
const SEND_BYTES_MAX: usize = LARGE_BYTES;

/// Streams that a client may reset before they were accepted, before it is taken for a flood (CVE-2023-44487).
const RESETS_PENDING_MAX: usize = 32;
/// What a request that its client takes back at once costs, in frames (CVE-2023-44487); and one beyond the streams that are allowed,
/// of which the client may have reset as many as it liked.
const PER_TAKEN_BACK: i64 = 200;
const PER_REFUSED: i64 = 50;
/// Streams that were reset here and are remembered, so that what is on its way for them is not taken for an error.
const RESETS_REMEMBERED_MAX: usize = 64;
/// Streams that a client may make us reset by its errors.
const ERRORS_MAX: usize = 256;

impl Downstream {
    /// Shakes hands. Bounded by the caller's deadline.
    ///
    /// # Errors
    /// The peer does not speak HTTP/2, or has left.
    pub async fn accept(
        mut io: Io,
        limits: &DownstreamLimits,
        deadline: &Deadline,
    ) -> Result<Self, h2::Error> {
        let mut builder = server::Builder::new();
        builder
            .max_concurrent_streams(limits.streams)
            .max_header_list_size(limits.head_bytes)
            .initial_window_size(limits.stream_window)
            .initial_connection_window_size(limits.connection_window)
            .max_send_buffer_size(SEND_BYTES_MAX)
            .max_pending_accept_reset_streams(RESETS_PENDING_MAX)
            .max_concurrent_reset_streams(RESETS_REMEMBERED_MAX)
            .max_local_error_reset_streams(Some(ERRORS_MAX))
            .enable_connect_protocol();
        let (is_secured, budget, toll) = (io.is_secured(), io.budget(), io.with_toll(limits.head_bytes));
        let mut connection = shaken(&budget, builder.handshake(io)).await?;
        let heartbeat = Heartbeat::new(connection.ping_pong(), CLIENT_BEAT_MS, deadline);
        Ok(Self {
            connection,
            is_secured,
            streams_max: limits.streams,
            shared: Rc::new(Shared { broken: Cell::new(0), head: RefCell::default(), toll }),
            is_flood: false,
            budget,
            heartbeat,
        })
    }

    /// The next request. It also does the connection's I/O, so it is to be polled for as long as streams live.
    /// `None` when the connection is over, or the client no longer there.
    /// `open`: requests that are being served. A client's reset frees its place with `h2` at once, but not what its request
    /// has begun.
    pub fn poll_request(
        &mut self,
        open: usize,
        deadline: &Deadline,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Accepted>> {
        self.budget.set(WORK_PER_POLL);
        if !self.is_flood && self.shared.toll.borrow_mut().is_overdrawn(deadline.now_ms()) {
            self.is_flood = true;
            self.connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
        }
        loop {
            match self.connection.poll_accept(cx) {
                Poll::Ready(Some(Ok((_, mut respond)))) if open >= self.streams_max as usize => {
                    respond.send_reset(Reason::REFUSED_STREAM);
                    self.shared.toll.borrow_mut().charge(PER_REFUSED);
                }
                Poll::Ready(Some(Ok((request, mut respond)))) => {
                    // The client has taken it back already: no one shall begin with it.
                    if respond.poll_reset(&mut Context::from_waker(Waker::noop())).is_ready() {
                        self.shared.toll.borrow_mut().charge(PER_TAKEN_BACK);
                    } else if let Some(accepted) = show(request, respond, self.is_secured, &self.shared) {
                        return Poll::Ready(Some(accepted));
                    }
                }
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(None),
                Poll::Pending => return self.heartbeat.poll(true, deadline, cx).map(|()| None),
            }
        }
    }

    /// Responses that were broken off, mostly since the client has reset their streams.
    pub fn broken(&self) -> u64 {
        self.shared.broken.get()
    }

    /// Takes no further requests, in two steps, so that none which is on its way is lost (RFC 9113 §6.8).
    pub fn shut_down(&mut self) {
        self.connection.graceful_shutdown();
    }
}

/// Shows a request as a connection; one that cannot be shown is reset, and `None`.
fn show(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    is_secured: bool,
    shared: &Rc<Shared>,
) -> Option<Accepted> {
    let (parts, body) = request.into_parts();
    let request = Request::from_parts(parts, ());
    let is_small = room_for(&request) + 2 * FRAMING_BYTES <= SMALL_BYTES;
    let Some(mut head) = Buf::take(if is_small { Size::Small } else { Size::Large }) else {
        respond.send_reset(Reason::REFUSED_STREAM);
        return None;
    };
    head.reset(FRAMING_BYTES, FRAMING_BYTES);
    let Put { framing, accept } = match put_request(&request, !body.is_end_stream(), is_secured, &mut head) {
        Ok(put) => put,
        Err(malformed) => {
            respond.send_reset(match malformed {
                Malformed::Pseudo | Malformed::Authority | Malformed::Value => Reason::PROTOCOL_ERROR,
                Malformed::TooLarge => Reason::ENHANCE_YOUR_CALM,
            });
            return None;
        }
    };
    let (method, wish) = match accept {
        Some(accept) => (Method::Get, Wish::WebSocket(accept)),
        None => match Method::parse(request.method().as_str().as_bytes()) {
            Method::Connect => (Method::Connect, Wish::Connect),
            method => (method, Wish::None),
        },
    };
    let out = Rc::new(RefCell::new(Out::Head(respond)));
    let rx = StreamRx {
        head: Some(head),
        body: Incoming::new(body, framing),
        armed: Armed::No,
        out: Rc::clone(&out),
    };
    let tx = StreamTx {
        shared: Rc::clone(shared),
        out,
        method,
        wish,
        is_tunnel: false,
        sending: None,
        spent: None,
        failure: None,
    };
    Some(Accepted { rx: Box::new(rx), tx: Box::new(tx) })
}

/// The way out, which both halves look at: the receiving one to see that the client has left.
enum Out {
    /// No final response yet.
    Head(SendResponse<Bytes>),
    Body(Outgoing),
    /// The response is whole, or given up.
    Over,
}

impl Out {
    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Head(respond) => respond.poll_reset(cx).map(|_| ()),
            Self::Body(body) => body.stream().poll_reset(cx).map(|_| ()),
            Self::Over => Poll::Pending,
        }
    }

    fn reset(&mut self, reason: Reason) {
        match self {
            Self::Head(respond) => respond.send_reset(reason),
            Self::Body(body) => body.stream().send_reset(reason),
            Self::Over => {}
        }
        *self = Self::Over;
    }
}

/// The receiving half.
struct StreamRx {
    head: Option<Buf>,
    body: Incoming,
    armed: Armed,
    out: Rc<RefCell<Out>>,
}

impl OtherRx for StreamRx {
    fn arm(&mut self, buf: Buf) {
        self.armed = Armed::with(buf);
    }

    fn arm_lazily(&mut self) -> bool {
        self.armed = Armed::Anywhere;
        true
    }

    fn is_armed(&self) -> bool {
        self.armed.is_armed()
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Outcome<usize>> {
        if !self.armed.is_armed() {
            return Poll::Pending;
        }
        let outcome = if let Some(head) = self.head.take() {
            (Ok(head.len()), head)
        } else if matches!(*self.out.borrow(), Out::Over) {
            // All is said, and a stream carries one request. Its body's end may still be on its way, as a frame of its own: the
            // stream is not reset for that, only for more of a body that no one takes.
            let _ = ready!(self.body.poll_more(cx));
            (Ok(0), Buf::none())
        } else {
            match ready!(self.body.poll_more(cx)) {
                Ok(true) => {
                    let armed = self.armed.take();
                    return Poll::Ready(self.body.deliver(armed));
                }
                Ok(false) if self.body.is_tunnel() => (Ok(0), Buf::none()),
                // What can still come is that the client leaves.
                Ok(false) => {
                    ready!(self.out.borrow_mut().poll_reset(cx));
                    (Err(io::ErrorKind::ConnectionReset.into()), Buf::none())
                }
                Err(error) => (Err(error), Buf::none()),
            }
        };
        self.armed = Armed::No;
        Poll::Ready(outcome)
    }
}

/// What the client would have its stream become.
#[derive(PartialEq, Eq)]
enum Wish {
    /// It only wants its response.
    None,
    /// A tunnel (RFC 9113 §8.5), once a status says that it succeeded.
    Connect,
    /// A WebSocket (RFC 8441), once a 101 comes with this `Sec-WebSocket-Accept`.
    WebSocket(Bytes),
}

/// The sending half.
struct StreamTx {
    shared: Rc<Shared>,
    out: Rc<RefCell<Out>>,
    method: Method,
    wish: Wish,
    /// The wish came true.
    is_tunnel: bool,
    /// The buffer that is being sent.
    sending: Option<Buf>,
    /// The one that was sent last, for whoever has waited for that.
    spent: Option<Buf>,
    failure: Option<io::ErrorKind>,
}

impl OtherTx for StreamTx {
    fn arm(&mut self, mut buf: Buf) {
        if let Err(error) = self.take(&mut buf) {
            self.failure = Some(error.kind());
            self.out.borrow_mut().reset(Reason::INTERNAL_ERROR);
        }
        self.spent = None;
        self.sending = Some(buf);
        // Mostly the client takes all of it at once; who waits for more is woken otherwise.
        let _ = self.send(&mut Context::from_waker(Waker::noop()));
    }

    fn is_sending(&self) -> bool {
        self.sending.is_some() || self.failure.is_some()
    }

    fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<Outcome<()>> {
        if self.sending.is_none() && self.failure.is_none() {
            return Poll::Ready((Ok(()), self.spent.take().unwrap_or_else(Buf::none)));
        }
        let result = ready!(self.send(cx));
        // Whoever waits for the next request is to see that there is none.
        if matches!(*self.out.borrow(), Out::Over) {
            cx.waker().wake_by_ref();
        }
        let buf = self.spent.take().or_else(|| self.sending.take());
        Poll::Ready((result, buf.unwrap_or_else(Buf::none)))
    }

    fn taken(&self) -> u64 {
        match &*self.out.borrow() {
            Out::Body(body) => body.sent,
            Out::Head(_) | Out::Over => 0,
        }
    }

    fn abort(&mut self) {
        self.out.borrow_mut().reset(Reason::INTERNAL_ERROR);
        self.sending = None;
    }

    fn finish(&mut self) {
        if let Out::Body(body) = &mut *self.out.borrow_mut() {
            body.finish();
        }
    }
}

impl StreamTx {
    /// Sends what was taken. When all is, the buffer is empty, and gone if no one has asked for it yet.
    fn send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(kind) = self.failure {
            return Poll::Ready(Err(kind.into()));
        }
        let mut out = self.out.borrow_mut();
        let result = match &mut *out {
            Out::Body(body) => {
                let result = ready!(body.poll_sent(cx));
                if body.is_over() && !self.is_tunnel {
                    *out = Out::Over;
                }
                result
            }
            Out::Head(_) | Out::Over => Ok(()),
        };
        drop(out);
        match &result {
            Ok(()) => {
                self.spent = self.sending.take();
                if let Some(buf) = &mut self.spent {
                    buf.reset(0, 0);
                }
            }
            Err(error) => self.failure = Some(error.kind()),
        }
        Poll::Ready(result)
    }

    /// Takes what was written of the response: heads go to `h2` at once.
    fn take(&mut self, buf: &mut Buf) -> io::Result<()> {
        while matches!(*self.out.borrow(), Out::Head(_)) && !buf.is_empty() {
            self.take_head(buf)?;
        }
        match &mut *self.out.borrow_mut() {
            Out::Body(body) => body.take(buf.filled_mut()),
            Out::Head(_) => Ok(()),
            Out::Over if buf.is_empty() => Ok(()),
            Out::Over => Err(io::ErrorKind::ConnectionReset.into()),
        }
    }

    fn take_head(&mut self, buf: &mut Buf) -> io::Result<()> {
        let limits = HeadLimits { head_bytes: LARGE_BYTES, headers: FIELDS_MAX, target_bytes: 0 };
        let shared = Rc::clone(&self.shared);
        let head = &mut *shared.head.borrow_mut();
        // Heads are written in one piece, by this process.
        let Ok(Parsed::Complete { head_len }) = parse_response(buf.filled(), &mut 0, &limits, head) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let is_success = (200..300).contains(&head.status);
        let (is_switch, is_false_consent) = match &self.wish {
            Wish::None => (false, false),
            Wish::Connect => (is_success, false),
            Wish::WebSocket(accept) => {
                let is_right = || is_accepted(head, buf.filled(), accept);
                let is_switch = head.status == 101 && is_right();
                // To a client of HTTP/2 a success would be the consent that it is not, and so would a 101 without proof.
                (is_switch, is_success || (head.status == 101 && !is_switch))
            }
        };
        if head.status == 101 && !is_switch && !is_false_consent {
            return Err(io::ErrorKind::InvalidData.into());
        }
        // RFC 8441 §5: 200 is what 101 is in HTTP/1.
        let status = if head.status == 101 { 200 } else { head.status };
        let response =
            response_of(head, &buf.filled()[..head_len], status).ok_or(io::ErrorKind::InvalidData)?;
        buf.consume(head_len);
        let mut out = self.out.borrow_mut();
        let Out::Head(respond) = &mut *out else { return Err(io::ErrorKind::ConnectionReset.into()) };
        if is_false_consent {
            let mut refusal = Response::new(());
            *refusal.status_mut() = StatusCode::BAD_GATEWAY;
            let _ = respond.send_response(refusal, true);
            *out = Out::Over;
            return Err(io::ErrorKind::InvalidData.into());
        }
        let gone = |_| io::Error::from(io::ErrorKind::ConnectionReset);
        if status < 200 {
            return respond.send_informational(response).map_err(gone);
        }
        self.is_tunnel = is_switch;
        let body = BodyReader::response(head.body(self.method));
        let ends = !is_switch && body.is_done();
        let send = respond.send_response(response, ends).map_err(gone)?;
        *out = if ends { Out::Over } else { Out::Body(Outgoing::new(send, (!is_switch).then_some(body))) };
        Ok(())
    }
}

/// Whether the response shows that its sender speaks WebSocket (RFC 6455 §4.1).
fn is_accepted(head: &ResponseHead, bytes: &[u8], accept: &[u8]) -> bool {
    let mut said = head.fields.called(bytes, b"sec-websocket-accept");
    said.next().is_some_and(|field| field.value_at.bytes(bytes) == accept) && said.next().is_none()
}

impl Drop for StreamTx {
    fn drop(&mut self) {
        let mut out = self.out.borrow_mut();
        if let Out::Body(body) = &mut *out
            && self.is_tunnel
        {
            body.finish();
            *out = Out::Over;
        }
        if !matches!(*out, Out::Over) {
            self.shared.broken.set(self.shared.broken.get() + 1);
        }
        // A response that is not whole must not look so.
        out.reset(Reason::INTERNAL_ERROR);
    }
}
