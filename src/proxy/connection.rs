//! A client's connection: one request after the other, each served by [`super::exchange`], until one side has had
//! enough. Here is the waiting between requests; what a request is worth is decided elsewhere.

use std::{
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    task::Poll,
};

use super::{
    announced,
    answer::refuse_head,
    call::Inner,
    core::{Core, Scratch},
    error::Error,
    exchange::{Next, exchange},
    generation::Generation,
    multiplex,
    relay::{Stall, Unwatched, Wait, received, sent, settled, with_room},
    reply::overloaded,
    secure, slot,
    tunnel::{Tunnelled, carry},
};
use crate::{
    buf::{Buf, Size},
    clock::{Deadline, Timer},
    http::{
        head::{HeadLimits, Parsed},
        request::{RequestError, parse_request},
    },
    http2, net,
    policy::forwarded::is_trusted,
    table::Listener,
    telemetry::figures::Timeout,
    tls::Stream,
};

/// Between whom a client's connection stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ends {
    pub(super) peer: SocketAddr,
    /// Where it connected to, if someone will be told.
    pub(super) local: Option<SocketAddr>,
}

/// A client's connection.
pub(super) struct Connection {
    pub(super) core: Rc<Core>,
    pub(super) stream: Stream,
    pub(super) ends: Ends,
    /// Its listener's place in the table.
    pub(super) listener: usize,
    pub(super) deadline: Deadline,
    /// The client ended its side: no further request comes.
    pub(super) half_closed: bool,
    requests: u64,
    born_ms: u64,
    /// What was received beyond the last request.
    pub(super) inbox: Option<Buf>,
    /// What it has become.
    pub(super) tunnel: Option<Box<Tunnelled>>,
    /// Why the next request is refused, whatever it is.
    refusal: Option<Error>,
    /// Whether it is a stream of HTTP/2.
    pub(super) is_stream: bool,
    /// What it is, if it brings a request of the gateway's own.
    pub(super) inner: Option<Box<Inner>>,
}

/// A request whose head is complete: the buffer begins with it.
pub(super) struct Request {
    pub(super) buf: Buf,
    pub(super) head_len: usize,
    /// Bytes of the buffer that belong to this request.
    pub(super) consumed: usize,
    /// Whether its body is known to be complete.
    pub(super) is_complete: bool,
    pub(super) began_us: u64,
}

/// Why there is no next request.
enum NoRequest {
    /// The client, or the time between requests, is over: nothing to say.
    Quiet,
    /// Something came that is not a request.
    Refused { error: Error, buf: Option<Buf>, began_us: u64 },
}

/// How long an idle connection may still bring a request while the core drains: the client may have sent one just now.
pub(super) const DRAIN_IDLE_MS: u64 = 1000;

/// What a lingering close waits for, and reads, at most.
const LINGER_MS: u64 = 2000;
const LINGER_BYTES_MAX: usize = 1 << 20;

/// Serves one client until its connection ends.
pub fn serve(
    core: Rc<Core>,
    socket: net::Stream,
    peer: SocketAddr,
    listener: usize,
) -> impl Future<Output = ()> + 'static {
    let deadline = core.deadlines.register();
    let generation = core.generation();
    let rules = &generation.table.listeners[listener];
    let local = generation.table.announces.then(|| socket.local_address().ok()).flatten();
    let ends = Ends { peer, local };
    // Made here and not in the future, which would keep room for what it is made of.
    serve_all(if !rules.announced.is_empty() && is_trusted(peer.ip(), &rules.announced) {
        Beginning::Header(Box::pin(announced::accept(core, socket, ends, listener, deadline)))
    } else if rules.tls.is_some() {
        Beginning::Handshake(Box::pin(secure::accept(core, socket, ends, listener, deadline, (None, 0))))
    } else {
        let stream = Stream::plain(socket);
        Beginning::Request(Box::new(Connection::new(core, stream, ends, listener, deadline)))
    })
}

/// What a connection begins with.
enum Beginning<P, H> {
    Request(Box<Connection>),
    Header(Pin<Box<P>>),
    Handshake(Pin<Box<H>>),
}

async fn serve_all(
    beginning: Beginning<
        impl Future<Output = Option<Box<Connection>>>,
        impl Future<Output = Option<Box<Connection>>>,
    >,
) {
    let mut connection = match beginning {
        Beginning::Request(connection) => connection,
        Beginning::Header(header) => match header.await {
            Some(connection) => connection,
            None => return,
        },
        Beginning::Handshake(handshake) => match handshake.await {
            Some(connection) => connection,
            None => return,
        },
    };
    let protocol = connection.stream.session().and_then(|session| session.protocol.as_deref());
    if protocol == Some(b"h2") {
        return multiplexed(*connection).await;
    }
    let core = Rc::clone(&connection.core);
    if core.generation().table.listeners[connection.listener].http2.is_h2c {
        // With prior knowledge (RFC 9113 §3.3): the first bytes tell.
        connection.watch_deadline().await;
        if !connection.is_to_go_on().await {
            return;
        }
        loop {
            let inbox = connection.inbox.as_ref().map_or(&b""[..], Buf::filled);
            match http2::beginning(inbox) {
                http2::Beginning::Http2 => return multiplexed(*connection).await,
                http2::Beginning::Unclear if !inbox.is_empty() => {
                    if !connection.has_more().await {
                        return;
                    }
                }
                http2::Beginning::Other | http2::Beginning::Unclear => break,
            }
        }
    }
    serve_requests(connection).await;
}

/// On the heap, so that connections of HTTP/1 need no room for it.
fn multiplexed(connection: Connection) -> Pin<Box<dyn Future<Output = ()>>> {
    Box::pin(multiplex::serve(connection))
}

/// Serves one request after the other.
pub(super) async fn serve_requests(mut connection: Box<Connection>) {
    let core = Rc::clone(&connection.core);
    connection.watch_deadline().await;
    let mut next = Next::KeepAlive;
    while next == Next::KeepAlive && connection.is_to_go_on().await {
        // A stream carries one request (RFC 9113 §8.1). What comes behind it, of a tunnel that was refused for one, is none.
        if connection.is_stream && connection.requests > 0 {
            break;
        }
        (connection, next) = slot::serve(&core, connection).await;
    }
    if next == Next::Tunnel {
        // On the heap, as above.
        return Box::pin(carry(connection)).await;
    }
    // The last response may still be on its way out.
    if settled(&mut connection.stream.tx, &connection.deadline, Timer::Response, Stall::after(LINGER_MS))
        .await
        .is_ok()
        && next == Next::Linger
    {
        // On the heap, so that connections which never linger need no room for it.
        Box::pin(connection.linger()).await;
    }
}

impl Connection {
    pub(super) fn new(
        core: Rc<Core>,
        stream: Stream,
        ends: Ends,
        listener: usize,
        deadline: Deadline,
    ) -> Self {
        let born_ms = core.clock.now_ms();
        Self {
            core,
            stream,
            ends,
            listener,
            deadline,
            half_closed: false,
            requests: 0,
            born_ms,
            inbox: None,
            tunnel: None,
            refusal: None,
            is_stream: false,
            inner: None,
        }
    }

    /// A connection that brings one request of the gateway's own.
    pub(super) fn inner(
        core: Rc<Core>,
        stream: Stream,
        ends: Ends,
        listener: usize,
        deadline: Deadline,
        inner: Box<Inner>,
    ) -> Self {
        Self { inner: Some(inner), ..Self::new(core, stream, ends, listener, deadline) }
    }

    /// By what its next request is served: a request of the gateway's own by what the one is that it is made for.
    #[inline]
    pub(super) fn generation(&self) -> Rc<Generation> {
        match &self.inner {
            None => self.core.generation(),
            Some(inner) => Rc::clone(&inner.behalf.generation),
        }
    }

    /// A connection that is a stream of HTTP/2, and so carries one request.
    pub(super) fn of_stream(
        core: Rc<Core>,
        stream: Stream,
        ends: Ends,
        listener: usize,
        deadline: Deadline,
    ) -> Self {
        Self { is_stream: true, ..Self::new(core, stream, ends, listener, deadline) }
    }

    /// Receives more behind what came first; `false` when nothing comes in time.
    async fn has_more(&mut self) -> bool {
        let Some(Ok(buf)) = self.inbox.take().map(with_room) else { return false };
        let head_ms = self.core.generation().table.listeners[self.listener].timeouts.head_ms;
        self.deadline.set(Timer::Request, head_ms);
        self.stream.rx.arm(buf);
        let more = received(&mut self.stream.rx, &self.deadline, Timer::Request).await;
        self.deadline.clear(Timer::Request);
        match more {
            Ok((1.., buf)) => {
                self.inbox = Some(buf);
                true
            }
            Ok(_) | Err(_) => false,
        }
    }

    /// Has this task woken by its deadlines.
    async fn watch_deadline(&self) {
        poll_fn(|cx| {
            self.deadline.wake_with(cx.waker());
            Poll::Ready(())
        })
        .await;
    }

    /// Serves the request of which something has come.
    pub(super) async fn serve_request(&mut self, scratch: &mut Scratch) -> Next {
        let request = match self.refusal.take() {
            None => self.head(scratch).await,
            Some(error) => Err(refused(error, None, self.core.clock.turn_us())),
        };
        match request {
            Ok(request) => {
                self.requests += 1;
                exchange(self, scratch, request).await
            }
            Err(NoRequest::Quiet) => Next::Close,
            Err(NoRequest::Refused { error, buf, began_us }) => {
                refuse_head(self, scratch, error, buf, began_us).await
            }
        }
    }

    /// Whether the connection may bring another request after this one.
    pub(super) fn may_live_on(&self, listener: &Listener) -> bool {
        let age_max_ms = listener.timeouts.connection_age_ms;
        !self.core.is_draining()
            && (listener.requests_per_connection == 0 || self.requests < listener.requests_per_connection)
            && (age_max_ms == 0 || self.core.clock.now_ms().saturating_sub(self.born_ms) < age_max_ms)
    }

    /// Keeps what was received beyond a request for the next.
    pub(super) fn keep(&mut self, rest: Option<Buf>) {
        if let Some(rest) = rest.filter(|rest| !rest.is_empty()) {
            self.inbox = Some(rest);
        }
    }

    /// Whether something beyond the request was received.
    pub(super) fn has_next(&self) -> bool {
        self.inbox.is_some()
    }

    /// Takes what was received beyond the request.
    pub(super) fn take_next(&mut self) -> Option<Buf> {
        self.inbox.take()
    }

    /// Keeps what of a request's buffer is beyond it.
    pub(super) fn keep_rest(&mut self, request: Request) {
        let Request { mut buf, consumed, .. } = request;
        buf.consume(consumed);
        self.keep(Some(buf));
    }

    /// Waits until something of the next request is there, or is to be refused; `false` when the connection is over.
    async fn is_to_go_on(&mut self) -> bool {
        if self.inbox.is_some() {
            return true;
        }
        if self.half_closed {
            return false;
        }
        if !self.stream.rx.is_armed() && !self.stream.rx.arm_lazily() {
            return self.lacks_buffer();
        }
        let core = Rc::clone(&self.core);
        let generation = self.generation();
        let timeouts = &generation.table.listeners[self.listener].timeouts;
        let (keep_alive_ms, stall) = (timeouts.keep_alive_ms, Stall::after(timeouts.write_stall_ms));
        drop(generation);
        self.deadline.set(Timer::Request, keep_alive_ms);
        let mut was_told = false;
        // The last response may still be on its way out.
        let is_sending = self.stream.tx.is_sending();
        let mut send =
            is_sending.then(|| Unwatched::leave(&self.stream.tx, &self.deadline, Timer::Response, stall));
        let received = poll_fn(|cx| {
            if let Poll::Ready(received) = self.stream.rx.poll_recv(cx) {
                return Poll::Ready(Some(received));
            }
            if let Some(unwatched) = &mut send {
                match unwatched.poll(&mut self.stream.tx, cx, &self.deadline, Timer::Response, stall) {
                    Poll::Pending => {}
                    Poll::Ready(Ok(())) => send = None,
                    Poll::Ready(Err(_)) => return Poll::Ready(None),
                }
            }
            if core.is_draining() && !was_told {
                was_told = true;
                self.deadline.set(Timer::Request, DRAIN_IDLE_MS);
            }
            if self.deadline.has_expired(Timer::Request) {
                if !was_told {
                    core.figures.borrow_mut().on_timeout(Timeout::KeepAlive);
                }
                return Poll::Ready(None);
            }
            Poll::Pending
        })
        .await;
        self.deadline.clear(Timer::Response);
        match received {
            Some((Ok(count), buf)) if count > 0 => {
                self.inbox = Some(buf);
                true
            }
            Some((Err(error), _)) if Wait::of(&error) == Wait::NoBuffer => self.lacks_buffer(),
            _ => false,
        }
    }

    /// A client's first request is refused with an answer; an idle connection may be closed at any time.
    fn lacks_buffer(&mut self) -> bool {
        let is_first = self.requests == 0;
        self.refusal = is_first.then_some(Error::NoBuffer);
        is_first
    }

    /// The next request's head, of which something is there.
    async fn head(&mut self, scratch: &mut Scratch) -> Result<Request, NoRequest> {
        let core = Rc::clone(&self.core);
        let began_us = core.clock.turn_us();
        let generation = self.generation();
        let listener = &generation.table.listeners[self.listener];
        // The gateway's own requests have what their clients' had, and some lines more.
        let limits = if self.inner.is_some() { &HeadLimits::MOST } else { &listener.head };
        let mut scanned = 0;
        let mut has_deadline = false;
        let Some(mut buf) = self.inbox.take() else { return Err(NoRequest::Quiet) };
        loop {
            match parse_request(buf.filled(), &mut scanned, limits, &mut scratch.request) {
                Ok(Parsed::Complete { head_len }) => {
                    self.deadline.clear(Timer::Request);
                    return Ok(Request { buf, head_len, consumed: head_len, is_complete: false, began_us });
                }
                Ok(Parsed::Partial) => {}
                Err(error) => return Err(refused(Error::Head(error), Some(buf), began_us)),
            }
            if !has_deadline {
                // Absolute, from the first byte: sending slowly gains nothing.
                self.deadline.set(Timer::Request, listener.timeouts.head_ms);
                has_deadline = true;
            }
            // RFC 9112 §2.2: some clients send an empty line behind a body. Alone it is no request.
            let is_nothing = buf.filled() == b"\r\n";
            if self.stream.rx.is_armed() {
                // Armed before these bytes were looked at, with a buffer of its own.
                let (count, more) = self.receive(began_us).await?;
                if count == 0 {
                    return Err(NoRequest::Quiet);
                }
                buf = join(buf, &more).ok_or_else(|| refused(Error::NoBuffer, None, began_us))?;
                continue;
            }
            buf = with_room(buf).map_err(|error| refused(error, None, began_us))?;
            self.stream.rx.arm(buf);
            let received = self.receive(began_us).await;
            if is_nothing && !matches!(received, Ok((1.., _))) {
                return Err(NoRequest::Quiet);
            }
            let (count, more) = received?;
            buf = more;
            if count == 0 {
                // A head that never ends is nobody's request.
                return Err(refused(Error::Head(RequestError::RequestLine), Some(buf), began_us));
            }
        }
    }

    async fn receive(&mut self, began_us: u64) -> Result<(usize, Buf), NoRequest> {
        received(&mut self.stream.rx, &self.deadline, Timer::Request).await.map_err(|wait| match wait {
            Wait::ExchangeTimeout => refused(Error::Drained, None, began_us),
            Wait::Timeout => refused(Error::HeadTimeout, None, began_us),
            Wait::NoBuffer => refused(Error::NoBuffer, None, began_us),
            Wait::Broken | Wait::Malformed | Wait::Refused | Wait::Abandoned => NoRequest::Quiet,
        })
    }

    /// Ends the sending side and reads on for a while, so that the client gets what was sent to it: closing with bytes
    /// unread would reset the connection and could destroy the answer on its way (RFC 9112 §9.6).
    async fn linger(&mut self) {
        self.stream.tx.finish();
        self.deadline.set(Timer::Request, LINGER_MS);
        let mut read = 0;
        let mut spare = self.inbox.take();
        while read < LINGER_BYTES_MAX {
            if !self.stream.rx.is_armed() {
                let Some(mut buf) = spare.take().or_else(Buf::take_reserved) else { return };
                buf.reset(0, 0);
                self.stream.rx.arm(buf);
            }
            match received(&mut self.stream.rx, &self.deadline, Timer::Request).await {
                Ok((count, buf)) if count > 0 => {
                    read += count;
                    spare = Some(buf);
                }
                _ => return,
            }
        }
    }
}

fn refused(error: Error, buf: Option<Buf>, began_us: u64) -> NoRequest {
    NoRequest::Refused { error, buf, began_us }
}

/// Puts what came later behind what was there.
fn join(mut buf: Buf, more: &Buf) -> Option<Buf> {
    if buf.push(more.filled()) {
        return Some(buf);
    }
    let mut large = Buf::take(Size::Large)?;
    (large.push(buf.filled()) && large.push(more.filled())).then_some(large)
}

/// Tells a client for which there is no room so, and lets it go.
pub async fn reject(core: Rc<Core>, socket: net::Stream) {
    let deadline = core.deadlines.register();
    poll_fn(|cx| {
        deadline.wake_with(cx.waker());
        Poll::Ready(())
    })
    .await;
    let Some(out) = overloaded(&core) else { return };
    let ends = Ends { peer: SocketAddr::from(([0, 0, 0, 0], 0)), local: None };
    let mut connection = Connection::new(core, Stream::plain(socket), ends, 0, deadline);
    if sent(&mut connection.stream.tx, out, &connection.deadline, Timer::Response, Stall::after(LINGER_MS))
        .await
        .is_ok()
    {
        connection.linger().await;
    }
}
