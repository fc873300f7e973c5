//! One request and its response: the table of contents of a request's life. Every branch of it is visible in
//! [`serve_request`] and [`relay`]; the helpers only do.
//!
//! head → canonical path → route → policies → endpoint → connection → request ⇄ response → release → log line

use std::{
    cell::OnceCell,
    future::poll_fn,
    pin::pin,
    rc::Rc,
    task::{Context, Poll},
};

use super::{
    announced::announce,
    answer::{answer, answer_with_https, refuse},
    attempt::{Failure, attempt},
    connection::{Connection, Request},
    core::{Core, Scratch},
    error::Error,
    facts::Facts,
    generation::{ClusterState, EndpointState, Generation},
    guard::guard,
    policies::{self, Preflight},
    record::{Kept, Record},
    relay::{Stall, Wait, overdue, poll_received, settled},
    secure,
    tunnel::Notes,
};
use crate::{
    clock::Timer,
    config::types::{HalfClose, UpstreamProtocol},
    http::{
        body::BodyReader,
        field::FieldName,
        method::Method,
        path::{Canonical, PathError, canonicalize},
        request::{RequestHead, TargetForm},
        response::ResponseHead,
        version::Version,
    },
    http2::Upstream,
    net,
    policy::{forwarded, request_id},
    route::Captures,
    table::{Action, Attached, Cluster, Listener, Route},
    tls::Stream,
    upstream::{
        health::Mode,
        pool::{Acquired, Lease, Waiting},
        shared::{Found, Opening},
    },
};

/// What becomes of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// It may bring another request.
    KeepAlive,
    /// It is closed.
    Close,
    /// It is something else now, and its tunnel is to be carried ([`super::tunnel::carry`]).
    Tunnel,
    /// It is closed once the client has read what was sent: there may be unread bytes of it.
    Linger,
}

/// Endpoints one request is offered to, at most.
const TRIES_MAX: usize = 5;

/// One exchange's surroundings.
pub(super) struct Exchange<'x> {
    pub(super) core: &'x Core,
    pub(super) generation: &'x Generation,
    pub(super) listener: &'x Listener,
    pub(super) connection: &'x mut Connection,
    pub(super) record: &'x mut Record,
    /// Whether the client would have the connection live on, and the gateway too.
    pub(super) keep_alive: bool,
    pub(super) version: Version,
}

/// What is asked, and by which route it goes.
pub(super) struct Asked<'a> {
    pub(super) facts: Facts<'a>,
    pub(super) route: &'a Route,
    pub(super) captures: &'a Captures,
    /// What of the body came with the head, decoded.
    pub(super) payload: &'a [u8],
    /// What came behind the request: the next one, or an upgraded connection's first bytes.
    pub(super) rest: &'a [u8],
    pub(super) body: BodyReader,
    /// Whether the request is received to its last byte, and what follows it is kept: another one may come.
    pub(super) is_whole: bool,
    /// Scratch space.
    pub(super) text: &'a mut Vec<u8>,
    /// Scratch space.
    pub(super) lines: &'a mut Vec<u8>,
}

/// Serves one request whose head is complete, and writes down what came of it.
pub(super) async fn exchange(
    connection: &mut Connection,
    scratch: &mut Scratch,
    mut request: Request,
) -> Next {
    let core = Rc::clone(&connection.core);
    let under_way = core.begin_exchange();
    let generation = core.generation();
    let listener = &generation.table.listeners[connection.listener];
    let mut record = Record::begin(request.began_us, connection.ends.peer);
    record.is_understood = true;

    // Behind a CONNECT that fails may come what was meant for the tunnel.
    let may_live_on = scratch.request.method != Method::Connect && connection.may_live_on(listener);
    let keep_alive = scratch.request.keep_alive && may_live_on;
    // The response before this one may still be on its way out: it comes first.
    let stall = Stall::after(listener.timeouts.write_stall_ms);
    let before = settled(&mut connection.stream.tx, &connection.deadline, Timer::Response, stall).await;
    let mut exchange = Exchange {
        core: &core,
        generation: &generation,
        listener,
        connection,
        record: &mut record,
        keep_alive,
        version: scratch.request.version,
    };
    let served = match before {
        Ok(()) => serve_request(&mut exchange, scratch, &mut request).await,
        Err(wait) => Err(Error::of_client(wait)),
    };
    let next = match served {
        Ok(next) => next,
        Err(error) => {
            let is_cut = error == Error::ExchangeTimeout && core.is_cutting();
            let error = if is_cut { Error::Drained } else { error };
            let keep_alive =
                exchange.keep_alive && !core.is_draining() && request.is_complete && !error.ends_connection();
            record.on_error(error);
            {
                let bytes = request.buf.filled();
                refuse(connection, &generation, scratch, &mut record, error, bytes, keep_alive).await
            }
        }
    };
    for timer in [Timer::Request, Timer::Response, Timer::Exchange] {
        connection.deadline.clear(timer);
    }
    let bytes = request.buf.filled();
    let Scratch { request: head, path, .. } = scratch;
    if let Some(tunnel) = &mut connection.tunnel {
        // It may last for long. What is written down in the end is kept, and no more of the exchange than that.
        let told = Kept::of(&record.told(head, path, bytes));
        tunnel.notes = Some(Notes { record, told, generation, _under_way: under_way });
        return Next::Tunnel;
    }
    record.finish(&core, &generation.table, || record.told(head, path, bytes), connection);
    connection.keep_rest(request);
    next
}

/// The straight line.
async fn serve_request(
    x: &mut Exchange<'_>,
    scratch: &mut Scratch,
    request: &mut Request,
) -> Result<Next, Error> {
    let Scratch { request: head, response, captures, path, text, lines } = scratch;
    let (bytes, tail) = request.buf.filled_mut().split_at_mut(request.head_len);
    let bytes = &*bytes;
    let as_sent = head.path.bytes(bytes);
    let session = x.connection.stream.session().cloned();
    let claims = OnceCell::new();
    let mut facts = Facts {
        is_secured: session.is_some(),
        is_stream: x.connection.is_stream,
        session: session.as_deref(),
        bytes,
        head,
        path: as_sent,
        peer: x.connection.ends.peer,
        client: x.connection.ends.peer.ip(),
        is_trusted: false,
        id: &[],
        consumer: None,
        claims: Some(&claims),
        hidden: [None; 2],
    };
    x.identify(&mut facts);
    let id = x.record.id.clone();
    facts.id = id.as_bytes();
    if x.core.is_cutting() {
        return Err(Error::Drained);
    }

    // What came of the body with the head, decoded where it lies; what follows it is the next request's.
    let mut body = BodyReader::request(head.body, u64::MAX);
    let taken = body.take(tail).map_err(Error::of_request_body)?;
    request.consumed = request.head_len + taken.consumed;
    request.is_complete = body.is_done();
    x.record.received = request.consumed as u64;
    let tail = &*tail;

    let canonical = canonical_path(head, as_sent, x.listener, path).map_err(Error::Path)?;
    x.record.is_canonical = canonical == Canonical::AsIs;
    facts.path = match canonical {
        Canonical::Written => path,
        Canonical::AsIs if as_sent.is_empty() => b"/",
        Canonical::AsIs => as_sent,
    };
    admit(&facts, x.listener)?;
    if let Some(session) = &session
        && x.generation.secrets.is_misdirected(x.connection.listener, session, facts.host())
    {
        return Err(Error::Misdirected);
    }

    if let Some(port) = x.listener.https_redirect {
        return answer_with_https(x, &facts, &body, port, lines).await;
    }
    let table = &x.generation.table;
    x.record.chain = x.listener.chain;
    if x.listener.shares
        && let Some(asked) = Preflight::of(&facts)
        && let Some((found, policy, rule)) = asked.rule(table, x.listener, captures)
    {
        x.record.route = found.map(|found| x.listener.routes[found as usize].route as usize);
        return policies::answer(x, asked, policy, rule, &body, lines).await;
    }
    let Some(found) = x.listener.router.find(&facts, captures) else {
        policies::admit(x, &mut facts, x.listener.chain)?;
        return Err(Error::NoRoute);
    };
    let Attached { route, chain } = x.listener.routes[found as usize];
    x.record.route = Some(route as usize);
    x.record.chain = chain;
    let route = &table.routes[route as usize];
    policies::admit(x, &mut facts, chain)?;
    x.connection.deadline.set(Timer::Exchange, facts.timeout_ms(route.timeout_ms));
    body.limit_payload(route.body_bytes.unwrap_or(x.listener.body_bytes)).map_err(Error::of_request_body)?;

    let payload = &tail[..taken.payload];
    let rest = &tail[taken.consumed..];
    let is_whole = body.is_done();
    let mut asked = Asked { facts, route, captures, payload, rest, body, is_whole, text, lines };
    let next = match &route.action {
        Action::Redirect { .. } | Action::Respond { .. } => answer(x, &mut asked).await,
        Action::Cluster(cluster) => relay(x, &mut asked, response, *cluster).await,
        Action::Split(split) => {
            let share = x.generation.splits[*split].borrow_mut().pick().ok_or(Error::NoEndpoint)?;
            relay(x, &mut asked, response, x.generation.table.splits[*split].clusters[share]).await
        }
    };
    request.is_complete = asked.is_whole;
    next
}

/// Refuses what no route may have: another scheme, and the methods that are refused by default.
#[inline]
pub(super) fn admit(facts: &Facts<'_>, listener: &Listener) -> Result<(), Error> {
    if facts.is_misdirected() {
        return Err(Error::Misdirected);
    }
    match facts.head.method {
        Method::Trace if !listener.allow_trace => Err(Error::MethodNotAllowed),
        Method::Connect if !listener.allow_connect => Err(Error::MethodNotAllowed),
        _ => Ok(()),
    }
}

/// The one form of the target's path, in `out` if it is not the one sent.
#[inline]
pub(super) fn canonical_path(
    head: &RequestHead,
    as_sent: &[u8],
    listener: &Listener,
    out: &mut Vec<u8>,
) -> Result<Canonical, PathError> {
    match head.target {
        TargetForm::Origin | TargetForm::Absolute => canonicalize(as_sent, &listener.path, out),
        TargetForm::Asterisk => {
            // The whole server, not its root (RFC 9112 §3.2.4): no pattern of a path takes it.
            out.clear();
            out.push(b'*');
            Ok(Canonical::Written)
        }
        TargetForm::Authority => Ok(Canonical::AsIs),
    }
}

/// Offers the request to endpoints until one answers.
async fn relay(
    x: &mut Exchange<'_>,
    asked: &mut Asked<'_>,
    response: &mut ResponseHead,
    cluster_id: usize,
) -> Result<Next, Error> {
    let generation = x.generation;
    let (cluster, state) = (&generation.table.clusters[cluster_id], &generation.clusters[cluster_id]);
    x.record.cluster = Some(cluster_id);
    if cluster.protocol != UpstreamProtocol::Http1 && asked.facts.head.method == Method::Connect {
        return Err(Error::MethodNotAllowed);
    }
    let mut tried = Tried::default();
    let mut error = Error::NoEndpoint;
    // The endpoint to try once more, on a fresh connection; or on the same, where it was only not willing.
    let mut again = None;
    let mut has_moved_on = false;
    loop {
        let is_second = again.is_some();
        let at = match again.take() {
            Some(same) => same,
            None => x.pick(cluster, state, &asked.facts, &tried).ok_or(error)?,
        };
        let target = Target { cluster_id, cluster, state, at };
        let _load = Load::on(target.endpoint());
        x.record.on_try(x.core, at, target.number());

        // While the request waits, what the client sends can only be its next one.
        let may_watch = asked.body.is_done() && asked.rest.is_empty();
        let needs_fresh = is_second && error != Error::UpstreamRefused;
        let (lease, was_idle) = match acquire(x, target, (is_second, needs_fresh), may_watch).await {
            Ok(acquired) => acquired,
            Err(
                failed @ (Error::Connect
                | Error::ConnectTimeout
                | Error::UpstreamTls
                | Error::UpstreamCertificate),
            ) => {
                // Nothing was sent: the next endpoint may have it, whatever the method.
                x.record.on_no_connection(x.core);
                x.on_endpoint_failure(target, true);
                error = failed;
                if !tried.add(at) {
                    return Err(error);
                }
                continue;
            }
            Err(failed) => return Err(failed),
        };
        x.record.on_connection(x.core, was_idle);

        match attempt(x, asked, response, target, lease).await {
            Ok(next) => return Ok(next),
            // It had been idle: its end says nothing of the endpoint.
            Err(Failure { is_repeatable: true, error: failed }) if was_idle && !is_second => {
                error = failed;
                again = Some(at);
            }
            Err(Failure { error: failed, is_repeatable }) => {
                if failed.is_endpoints() {
                    x.on_endpoint_failure(target, false);
                }
                error = failed;
                // A fresh one that dies is its endpoint's death: one other may have the request.
                if !is_repeatable || has_moved_on || !tried.add(at) {
                    return Err(error);
                }
                has_moved_on = true;
            }
        }
    }
}

/// A connection to the endpoint: one that was idle (`true`), or a new one.
async fn acquire(
    x: &mut Exchange<'_>,
    target: Target<'_>,
    (fresh_only, needs_fresh): (bool, bool),
    may_watch: bool,
) -> Result<(Lease, bool), Error> {
    let (policy, pool) = (&target.state.pool, &target.endpoint().pool);
    let core = x.core;
    let now_ms = core.clock.now_ms();
    let is_shared = match target.cluster.protocol {
        UpstreamProtocol::Http1 => false,
        UpstreamProtocol::Http2 => true,
        UpstreamProtocol::Auto => !pool.shared.prefers_http1(),
    };
    if is_shared && let Some(acquired) = acquire_stream(x, target, needs_fresh, may_watch).await? {
        return Ok(acquired);
    }
    let acquired = poll_fn(|cx| {
        Poll::Ready(if fresh_only {
            pool.acquire_fresh(policy, cx)
        } else {
            pool.acquire(policy, now_ms, cx)
        })
    })
    .await;
    if let Acquired::Reused(lease) = acquired {
        core.figures.borrow_mut().counters.pool_hits += 1;
        return Ok((lease, true));
    }
    x.record.on_wait(core);
    let (mut lease, was_idle) = match acquired {
        Acquired::Reused(lease) => (lease, true),
        Acquired::Fresh(lease) => (lease, false),
        Acquired::QueueFull => return Err(Error::QueueFull),
        Acquired::Wait(waiting) => {
            core.figures.borrow_mut().counters.pool_waits += 1;
            wait_turn(x, waiting, policy.queue_timeout_ms, may_watch).await?
        }
    };
    if was_idle && fresh_only {
        // What comes from the queue had a life before: in its place a new one is opened.
        lease.forget_connection();
    } else if was_idle {
        core.figures.borrow_mut().counters.pool_hits += 1;
        return Ok((lease, true));
    }
    core.figures.borrow_mut().counters.pool_misses += 1;
    let (generation, ends) = (x.generation, x.connection.ends);
    let mut connecting = pin!(async {
        let mut socket = net::connect(pool.address).await.map_err(Error::of_connect)?;
        if let Some(version) = target.cluster.proxy_protocol {
            // On the heap, so that other exchanges need no room for it.
            Box::pin(announce(&mut socket, version, ends)).await.map_err(Error::of_connect)?;
        }
        secure::connect(core, socket, &generation.secrets, target).await
    });
    let limit = (target.cluster.connect_ms, Error::ConnectTimeout);
    let connected = waited(x, may_watch, limit, |cx| connecting.as_mut().poll(cx)).await;
    let stream = connected??;
    if target.cluster.protocol == UpstreamProtocol::Auto
        && stream.session().is_some_and(|session| session.protocol.as_deref() == Some(b"h2"))
    {
        // The endpoint has changed its mind, and what it chooses is spoken (RFC 7301 §3.2).
        drop((stream, lease));
        pool.shared.is_http2();
        return Box::pin(acquire_stream(x, target, needs_fresh, may_watch)).await?.ok_or(Error::UpstreamTls);
    }
    lease.connected(stream, core.clock.now_ms());
    Ok((lease, false))
}

/// What an endpoint that was connected to speaks.
enum Connected<D> {
    Http1(Stream),
    Http2(Upstream, D),
}

/// A stream of a connection to the endpoint that exchanges share; `None` when the endpoint turns out not to speak HTTP/2.
async fn acquire_stream(
    x: &mut Exchange<'_>,
    target: Target<'_>,
    needs_fresh: bool,
    may_watch: bool,
) -> Result<Option<(Lease, bool)>, Error> {
    let (policy, pool) = (&target.state.pool, &target.endpoint().pool);
    let core = x.core;
    // For a connection that someone else opens, or for a stream to end.
    let limit = (target.cluster.connect_ms.max(policy.queue_timeout_ms), Error::QueueTimeout);
    let mut asking = pool.shared.ask();
    let found = waited(x, may_watch, limit, |cx| {
        asking.poll(policy, (target.cluster.grpc_web, needs_fresh), core.clock.now_ms(), cx)
    });
    match found.await? {
        Found::Stream(stream) => {
            core.figures.borrow_mut().counters.pool_hits += 1;
            Ok(Some((Lease::of_stream(pool, stream, policy), true)))
        }
        Found::QueueFull => Err(Error::QueueFull),
        // On the heap: exchanges that find a connection need no room for it, and do not move that room about.
        Found::Open(opening) => Box::pin(open_shared(x, target, opening, may_watch)).await,
    }
}

/// Opens a connection that exchanges will share, and takes its first stream.
async fn open_shared(
    x: &mut Exchange<'_>,
    target: Target<'_>,
    opening: Opening,
    may_watch: bool,
) -> Result<Option<(Lease, bool)>, Error> {
    let (policy, pool) = (&target.state.pool, &target.endpoint().pool);
    let (core, generation, head_bytes) = (x.core, x.generation, x.listener.head.head_bytes as u32);
    x.record.on_wait(core);
    core.figures.borrow_mut().counters.pool_misses += 1;
    let is_asked = target.cluster.protocol == UpstreamProtocol::Auto;
    let mut connecting = pin!(async {
        let socket = net::connect(pool.address).await.map_err(Error::of_connect)?;
        let stream: Stream = secure::connect(core, socket, &generation.secrets, target).await?;
        let chosen = stream.session().and_then(|session| session.protocol.as_deref());
        if is_asked && chosen != Some(b"h2") {
            return Ok::<_, Error>(Connected::Http1(stream));
        }
        let deadline = core.deadlines.register();
        let (upstream, driver) = Upstream::connect(stream, head_bytes, target.cluster.ping_ms, deadline)
            .await
            .map_err(|_| Error::UpstreamClosed)?;
        Ok(Connected::Http2(upstream, driver))
    });
    let limit = (target.cluster.connect_ms, Error::ConnectTimeout);
    let connected = waited(x, may_watch, limit, |cx| connecting.as_mut().poll(cx)).await;
    match connected?? {
        Connected::Http2(upstream, driver) => {
            net::spawn(async move {
                // A panic in it is its streams' end.
                let _ = guard(driver).await;
            });
            let stream = opening.opened(upstream, target.cluster.grpc_web, core.clock.now_ms());
            Ok(Some((Lease::of_stream(pool, stream, policy), false)))
        }
        Connected::Http1(stream) => {
            opening.is_http1();
            // It is as good as any that would be opened now.
            let Acquired::Fresh(mut lease) = poll_fn(|cx| Poll::Ready(pool.acquire_fresh(policy, cx))).await
            else {
                return Ok(None);
            };
            lease.connected(stream, core.clock.now_ms());
            Ok(Some((lease, false)))
        }
    }
}

/// Waits in a pool's queue.
async fn wait_turn(
    x: &mut Exchange<'_>,
    mut waiting: Waiting,
    timeout_ms: u64,
    may_watch: bool,
) -> Result<(Lease, bool), Error> {
    waited(x, may_watch, (timeout_ms, Error::QueueTimeout), |cx| waiting.poll(cx)).await
}

/// Waits for `poll` so many ms, beyond which it is the error beside them, or until the exchange's time is over. A client that leaves
/// meanwhile gives its place up; what else it sends is kept.
async fn waited<T>(
    x: &mut Exchange<'_>,
    may_watch: bool,
    (limit_ms, late): (u64, Error),
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
) -> Result<T, Error> {
    let half_close = x.listener.half_close;
    let mut watches = may_watch && !x.connection.has_next() && !x.connection.half_closed;
    let Connection { stream: Stream { rx, .. }, deadline, half_closed, .. } = &mut *x.connection;
    let mut next = None;
    deadline.set(Timer::Response, limit_ms);
    let result = poll_fn(|cx| {
        if let Poll::Ready(value) = poll(cx) {
            return Poll::Ready(Ok(value));
        }
        // Not before there is something to wait for: mostly there is not.
        if watches && !rx.is_armed() {
            watches = rx.arm_lazily();
        }
        if watches && let Poll::Ready(received) = poll_received(rx, cx) {
            watches = false;
            match received {
                Ok((0, _)) => {
                    *half_closed = true;
                    if half_close == HalfClose::Abort {
                        return Poll::Ready(Err(Error::ClientGone));
                    }
                }
                Ok((_, buf)) => next = Some(buf),
                Err(_) => return Poll::Ready(Err(Error::ClientGone)),
            }
        }
        overdue(deadline, Timer::Response)
            .map_err(|wait| if wait == Wait::ExchangeTimeout { Error::ExchangeTimeout } else { late })
    })
    .await;
    deadline.clear(Timer::Response);
    x.connection.keep(next);
    result
}

/// Where a try goes.
#[derive(Clone, Copy)]
pub(super) struct Target<'t> {
    /// The cluster's place in the table.
    pub(super) cluster_id: usize,
    pub(super) cluster: &'t Cluster,
    pub(super) state: &'t ClusterState,
    /// The endpoint's place in the cluster.
    pub(super) at: usize,
}

impl Target<'_> {
    /// The endpoint's number among all.
    pub(super) fn number(&self) -> usize {
        self.cluster.first_endpoint + self.at
    }

    pub(super) fn endpoint(&self) -> &EndpointState {
        &self.state.endpoints[self.at]
    }
}

/// Endpoints that failed this request.
#[derive(Default)]
struct Tried {
    places: [usize; TRIES_MAX],
    count: usize,
}

impl Tried {
    /// Notes one; `false` when there have been enough.
    fn add(&mut self, at: usize) -> bool {
        self.places[self.count] = at;
        self.count += 1;
        self.count < TRIES_MAX
    }

    fn has(&self, at: usize) -> bool {
        self.places[..self.count].contains(&at)
    }
}

/// One exchange under way at an endpoint.
pub(super) struct Load<'e>(&'e EndpointState);

impl<'e> Load<'e> {
    pub(super) fn on(endpoint: &'e EndpointState) -> Self {
        endpoint.load.set(endpoint.load.get() + 1);
        Self(endpoint)
    }
}

impl Drop for Load<'_> {
    fn drop(&mut self) {
        self.0.load.set(self.0.load.get() - 1);
    }
}

impl Exchange<'_> {
    /// What becomes of the connection after the last response on it: a client that does not know yet may have sent on.
    pub(super) fn last(&self, asked: &Asked<'_>) -> Next {
        if asked.facts.head.keep_alive { Next::Linger } else { Next::Close }
    }

    /// Who asks, and by which id.
    fn identify(&mut self, facts: &mut Facts<'_>) {
        facts.is_trusted = forwarded::is_trusted(facts.client, &self.listener.trusted);
        if facts.is_trusted {
            let claimed = facts.values(FieldName::XForwardedFor);
            facts.client = forwarded::client_ip(facts.peer.ip(), claimed, &self.listener.trusted);
        }
        let claimed = if facts.is_trusted { facts.values(FieldName::XRequestId).next() } else { None };
        match claimed.filter(|id| request_id::is_acceptable(id)) {
            Some(id) => self.record.id.adopt(id),
            None => {
                let unix_ms = self.core.clock.unix_us(self.record.began_us) / 1000;
                self.record.id.make(unix_ms, &mut self.core.rng.borrow_mut());
            }
        }
        self.record.client = facts.client;
    }

    /// The endpoint to try: the one a cookie names, else the balancer's choice, of those not tried yet.
    fn pick(
        &self,
        cluster: &Cluster,
        state: &ClusterState,
        facts: &Facts<'_>,
        tried: &Tried,
    ) -> Option<usize> {
        let now_ms = self.core.clock.now_ms();
        let health = state.health.borrow();
        let panics = health.mode(now_ms) == Mode::Panic;
        let usable = |at: usize| !tried.has(at) && (panics || health.is_usable(at, now_ms));
        if panics {
            self.core.figures.borrow_mut().counters.panic_mode_picks += 1;
        }
        if let Some(at) = facts.sticky_endpoint(cluster).filter(|at| usable(*at)) {
            return Some(at);
        }
        let load = |at: usize| state.endpoints[at].load.get();
        let mut balancer = state.balancer.borrow_mut();
        let picked = balancer.pick(facts.hash(&cluster.hash_on), usable, load);
        // Ejected endpoints are better than none at all.
        picked.or_else(|| balancer.pick(facts.hash(&cluster.hash_on), |at| !tried.has(at), load))
    }

    pub(super) fn on_endpoint_failure(&self, target: Target<'_>, was_connecting: bool) {
        let ejected = target.state.health.borrow_mut().on_failure(target.at, self.core.clock.now_ms());
        let mut figures = self.core.figures.borrow_mut();
        figures.counters.connect_failures += u64::from(was_connecting);
        figures.counters.ejections += u64::from(ejected.is_some());
        if let Some(endpoint) = figures.endpoints.get_mut(target.number()) {
            endpoint.connect_failures += u64::from(was_connecting);
            endpoint.failures += u64::from(!was_connecting);
        }
    }

    /// A gateway's error from an endpoint means that it cannot do its work now.
    pub(super) fn on_endpoint_response(&self, target: Target<'_>, status: u16) {
        if matches!(status, 502..=504) {
            self.on_endpoint_failure(target, false);
        } else {
            target.state.health.borrow_mut().on_success(target.at, self.core.clock.now_ms());
        }
    }
}
