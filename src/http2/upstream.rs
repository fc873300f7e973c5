//! Streams to endpoints: each takes a request as bytes of HTTP/1, and shows the response so.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use h2::{
    Reason, RecvStream,
    client::{self, Connection, ResponseFuture, SendRequest},
};
use http::Response;

use super::{
    body::{Armed, Incoming, Outgoing, broken},
    grpc_web::GrpcWeb,
    heartbeat::Heartbeat,
    io::{Io, READS_PER_POLL, shaken},
    message::{Framing, connect_of, put_interim, put_response, put_switched, request_of, room_for_response},
};
use crate::{
    buf::{Buf, FRAMING_BYTES, LARGE_BYTES, SMALL_BYTES, Size},
    clock::Deadline,
    http::{
        body::BodyReader,
        field::FIELDS_MAX,
        head::{HeadLimits, Parsed},
        method::Method,
        request::{RequestHead, parse_request},
    },
    net::Outcome,
    tls::{OtherRx, OtherTx, Stream},
};

/// Bytes of a body that an endpoint may send before someone has taken them, and the same for all of a connection.
const STREAM_WINDOW: u32 = 128 * 1024;
const CONNECTION_WINDOW: u32 = STREAMS_MAX as u32 * STREAM_WINDOW;

/// Streams on one connection, at most: so many that none of them can use up the others' share of its window.
const STREAMS_MAX: usize = 128;

/// A connection to an endpoint.
#[derive(Clone)]
pub struct Upstream {
    sender: SendRequest<Bytes>,
    connection: Rc<Common>,
}

/// What a connection's streams have in common.
struct Common {
    is_over: Cell<bool>,
    /// Streams that are open.
    streams: Cell<usize>,
    is_secured: bool,
    /// Scratch space: the head of the request that is being sent.
    head: RefCell<RequestHead>,
}

impl Common {
    /// What a failed request means. [`io::ErrorKind::ConnectionRefused`]: the endpoint has not looked at it (RFC 9113 §8.7). Where it
    /// was the connection that failed, no further request is to try it, though its own future may not have come to its end yet.
    fn failed(&self, error: &h2::Error) -> io::ErrorKind {
        if error.is_io() || error.is_go_away() {
            self.is_over.set(true);
        }
        let is_refused =
            error.reason() == Some(Reason::REFUSED_STREAM) || (error.is_go_away() && error.is_remote());
        if is_refused { io::ErrorKind::ConnectionRefused } else { broken(error).kind() }
    }
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upstream").field("is_over", &self.connection.is_over.get()).finish_non_exhaustive()
    }
}

impl Upstream {
    /// Shakes hands over a connection. Bounded by the caller's deadline. The future that comes with it does the I/O of all
    /// streams, and is to be spawned; it ends when the connection does, or when the last clone has gone and its streams have.
    /// `ping_ms`: between two PINGs while there are streams; 0: none are sent.
    ///
    /// # Errors
    /// The endpoint does not speak HTTP/2, or has left.
    pub async fn connect(
        stream: Stream,
        head_bytes: u32,
        ping_ms: u64,
        deadline: Deadline,
    ) -> Result<(Self, impl Future<Output = ()> + 'static), h2::Error> {
        let is_secured = stream.session().is_some();
        let mut builder = client::Builder::new();
        builder
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(head_bytes)
            .max_send_buffer_size(LARGE_BYTES)
            // None before the endpoint has said how many.
            .initial_max_send_streams(0);
        let io = Io::new(stream, None);
        let budget = io.budget();
        let (sender, mut connection) = shaken(&budget, builder.handshake(io)).await?;
        let settled = poll_fn(|cx| match Pin::new(&mut connection).poll(cx) {
            Poll::Ready(over) => Poll::Ready(over.and(Err(Reason::NO_ERROR.into()))),
            Poll::Pending if sender.current_max_send_streams() > 0 => Poll::Ready(Ok(())),
            Poll::Pending => Poll::Pending,
        });
        shaken(&budget, settled).await?;
        let common = Rc::new(Common {
            is_over: Cell::new(false),
            streams: Cell::new(0),
            is_secured,
            head: RefCell::default(),
        });
        let driver = drive(connection, budget, ping_ms, deadline, Rc::clone(&common));
        Ok((Self { sender, connection: common }, driver))
    }

    /// Whether it takes another stream now.
    pub fn has_room(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        !self.connection.is_over.get()
            && !matches!(self.sender.poll_ready(&mut cx), Poll::Ready(Err(_)))
            && self.connection.streams.get() < self.sender.current_max_send_streams().min(STREAMS_MAX)
    }

    /// Whether it will take no further stream.
    pub fn is_over(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        self.connection.is_over.get() || matches!(self.sender.poll_ready(&mut cx), Poll::Ready(Err(_)))
    }

    /// Streams that are open.
    pub fn streams(&self) -> usize {
        self.connection.streams.get()
    }

    /// A stream, as a connection that takes one request. `speaks_web`: requests of gRPC-Web become ones of gRPC.
    pub fn open(&self, speaks_web: bool) -> Stream {
        self.connection.streams.set(self.connection.streams.get() + 1);
        let shared = Rc::new(RefCell::new(Shared {
            connection: Rc::clone(&self.connection),
            sender: Some(self.sender.clone()),
            method: Method::Get,
            speaks_web,
            web: None,
            key: None,
            response: None,
            body: None,
            waiting: None,
            failure: None,
        }));
        let rx = StreamRx { shared: Rc::clone(&shared), body: None, armed: Armed::No };
        let tx = StreamTx { shared, sending: None, spent: None, failure: None };
        Stream::other(Box::new(rx), Box::new(tx), None)
    }
}

async fn drive(
    mut connection: Connection<Io, Bytes>,
    budget: Rc<Cell<u32>>,
    ping_ms: u64,
    deadline: Deadline,
    common: Rc<Common>,
) {
    let mut heartbeat = Heartbeat::new(connection.ping_pong(), ping_ms, &deadline);
    let mut connection = pin!(connection);
    poll_fn(|cx| {
        deadline.wake_with(cx.waker());
        budget.set(READS_PER_POLL);
        // Streams learn of its failure themselves.
        if connection.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        heartbeat.poll(common.streams.get() > 0, &deadline, cx)
    })
    .await;
    common.is_over.set(true);
}

/// What both halves of a stream need.
struct Shared {
    connection: Rc<Common>,
    /// Until the request's head is sent.
    sender: Option<SendRequest<Bytes>>,
    method: Method,
    speaks_web: bool,
    /// How the request was gRPC-Web.
    web: Option<GrpcWeb>,
    /// What a WebSocket's client wants to see answered.
    key: Option<Bytes>,
    /// Until the final response comes.
    response: Option<ResponseFuture>,
    body: Option<Outgoing>,
    /// Who waits for a response to a request that is not sent yet.
    waiting: Option<Waker>,
    failure: Option<io::ErrorKind>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.connection.streams.set(self.connection.streams.get() - 1);
    }
}

/// The sending half.
struct StreamTx {
    shared: Rc<RefCell<Shared>>,
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
        }
        self.spent = None;
        self.sending = Some(buf);
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
        let buf = self.spent.take().or_else(|| self.sending.take());
        Poll::Ready((result, buf.unwrap_or_else(Buf::none)))
    }

    fn taken(&self) -> u64 {
        self.shared.borrow().body.as_ref().map_or(0, |body| body.sent)
    }

    fn abort(&mut self) {
        if let Some(body) = &mut self.shared.borrow_mut().body {
            body.stream().send_reset(Reason::CANCEL);
        }
    }

    fn finish(&mut self) {
        if let Some(body) = &mut self.shared.borrow_mut().body {
            body.finish();
        }
    }
}

impl StreamTx {
    fn send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(kind) = self.failure {
            return Poll::Ready(Err(kind.into()));
        }
        let result = match &mut self.shared.borrow_mut().body {
            Some(body) => ready!(body.poll_sent(cx)),
            None => Ok(()),
        };
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

    fn take(&mut self, buf: &mut Buf) -> io::Result<()> {
        let mut shared = self.shared.borrow_mut();
        if let Some(mut sender) = shared.sender.take() {
            let limits =
                HeadLimits { head_bytes: LARGE_BYTES, headers: FIELDS_MAX, target_bytes: LARGE_BYTES };
            let common = Rc::clone(&shared.connection);
            let head = &mut *common.head.borrow_mut();
            // Heads are written in one piece, by this process.
            let parsed = parse_request(buf.filled(), &mut 0, &limits, head);
            let request = match parsed {
                Ok(Parsed::Complete { head_len }) => {
                    let bytes = &buf.filled()[..head_len];
                    let may_connect = sender.is_extended_connect_protocol_enabled();
                    let request = match connect_of(head, bytes, common.is_secured).filter(|_| may_connect) {
                        Some((request, key)) => {
                            shared.key = Some(key);
                            Some(request)
                        }
                        None => request_of(head, bytes, common.is_secured),
                    };
                    buf.consume(head_len);
                    request
                }
                Ok(Parsed::Partial) | Err(_) => None,
            };
            shared.method = head.method;
            let is_connect = shared.key.is_some();
            let request = request.map(|mut request| {
                if shared.speaks_web {
                    shared.web = GrpcWeb::translate_request(request.headers_mut());
                }
                request
            });
            let decoder = shared.web.and_then(GrpcWeb::decoder);
            // What follows a CONNECT is the WebSocket's.
            let body = (!is_connect).then(|| BodyReader::request(head.body, u64::MAX));
            let ends = body.as_ref().is_some_and(BodyReader::is_done);
            match request.map(|request| sender.send_request(request, ends)) {
                Some(Ok((response, send))) => {
                    shared.response = Some(response);
                    shared.body = (!ends).then(|| Outgoing::new(send, body).decoded(decoder));
                }
                Some(Err(error)) => shared.failure = Some(common.failed(&error)),
                // HTTP/2 cannot say it.
                None => shared.failure = Some(io::ErrorKind::InvalidInput),
            }
            if let Some(waker) = shared.waiting.take() {
                waker.wake();
            }
        }
        if let Some(kind) = shared.failure {
            return Err(kind.into());
        }
        match &mut shared.body {
            Some(body) => body.take(buf.filled_mut()),
            None if buf.is_empty() => Ok(()),
            None => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// The receiving half.
struct StreamRx {
    shared: Rc<RefCell<Shared>>,
    /// Once the final response's head came.
    body: Option<Incoming>,
    armed: Armed,
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
        let outcome = match &mut self.body {
            None => ready!(self.poll_head(cx)),
            Some(body) => match ready!(body.poll_more(cx)) {
                Ok(true) => {
                    let armed = self.armed.take();
                    return Poll::Ready(body.deliver(armed));
                }
                Ok(false) => (Ok(0), Buf::none()),
                Err(error) => (Err(error), Buf::none()),
            },
        };
        self.armed = Armed::No;
        Poll::Ready(outcome)
    }
}

impl StreamRx {
    /// The next head, interim ones included.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Outcome<usize>> {
        let mut shared = self.shared.borrow_mut();
        if let Some(kind) = shared.failure {
            return Poll::Ready((Err(kind.into()), Buf::none()));
        }
        let method = shared.method;
        let Some(response) = &mut shared.response else {
            shared.waiting = Some(cx.waker().clone());
            return Poll::Pending;
        };
        if let Poll::Ready(Some(Ok(interim))) = response.poll_informational(cx) {
            return Poll::Ready(head(&interim, |buf| put_interim(&interim, buf)));
        }
        let response = match ready!(Pin::new(response).poll(cx)) {
            Ok(response) => response,
            Err(error) => {
                let kind = shared.connection.failed(&error);
                shared.failure = Some(kind);
                return Poll::Ready((Err(kind.into()), Buf::none()));
            }
        };
        shared.response = None;
        let web = shared.web;
        let key = shared.key.clone().filter(|_| response.status().is_success());
        drop(shared);
        Poll::Ready(match key {
            Some(key) => self.switch(response, &key),
            None => self.begin(response, method, web),
        })
    }

    /// The endpoint has become a WebSocket.
    fn switch(&mut self, response: Response<RecvStream>, key: &[u8]) -> Outcome<usize> {
        let (parts, body) = response.into_parts();
        let response = Response::from_parts(parts, ());
        self.body = Some(Incoming::new(body, Framing::Tunnel));
        head(&response, |buf| put_switched(&response, key, buf))
    }

    fn begin(
        &mut self,
        response: Response<RecvStream>,
        method: Method,
        web: Option<GrpcWeb>,
    ) -> Outcome<usize> {
        let (mut parts, body) = response.into_parts();
        let web = web.filter(|web| web.translate_response(&mut parts.headers));
        let response = Response::from_parts(parts, ());
        let mut framing = Framing::None;
        let outcome = head(&response, |buf| {
            put_response(&response, method == Method::Head, !body.is_end_stream(), buf)
                .map(|put| framing = put)
        });
        self.body = Some(Incoming::new(body, framing).translated(web));
        outcome
    }
}

/// A head in a buffer of its own.
fn head(response: &Response<()>, put: impl FnOnce(&mut Buf) -> Option<()>) -> Outcome<usize> {
    let is_small = room_for_response(response) + 2 * FRAMING_BYTES <= SMALL_BYTES;
    let Some(mut buf) = Buf::take(if is_small { Size::Small } else { Size::Large }) else {
        return (Err(io::ErrorKind::OutOfMemory.into()), Buf::none());
    };
    buf.reset(FRAMING_BYTES, FRAMING_BYTES);
    match put(&mut buf) {
        Some(()) => (Ok(buf.len()), buf),
        None => (Err(io::ErrorKind::InvalidData.into()), Buf::none()),
    }
}
