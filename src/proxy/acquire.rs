//! A connection to an endpoint for one try: one that is idle, a stream of one that is shared, or a new one. Every wait has its deadline, and
//! is over when the client leaves.

use std::{
    future::poll_fn,
    pin::pin,
    task::{Context, Poll},
};

use super::{
    announced::announce,
    connection::Connection,
    error::Error,
    exchange::{Exchange, Target},
    guard::guard,
    relay::{Wait, overdue, poll_received},
    secure,
};
use crate::{
    clock::Timer,
    config::types::{HalfClose, UpstreamProtocol},
    http2::Upstream,
    net,
    tls::Stream,
    upstream::{
        pool::{Acquired, Lease, Waiting},
        shared::{Found, Opening},
    },
};

/// A connection to the endpoint: one that was idle (`true`), or a new one.
pub(super) async fn acquire(
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
    let found = found.await?;
    // Whoever has what they wanted waits no longer.
    drop(asking);
    match found {
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
pub(super) async fn waited<T>(
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
