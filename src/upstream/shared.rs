//! Connections to an endpoint that many exchanges share (HTTP/2): as few as the endpoint's limits allow. One at a time is opened;
//! whoever needs one meanwhile waits for it.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::{Context, Poll, Waker},
};

use super::pool::PoolPolicy;
use crate::{http2::Upstream, tls::Stream};

/// Exchanges that may wait for a connection that is being opened.
const WAITING_MAX: usize = 1024;

/// The connections of one endpoint on one core.
#[derive(Debug, Default)]
pub struct Shared {
    connections: RefCell<Vec<Kept>>,
    is_opening: Cell<bool>,
    waiting: RefCell<Vec<Waker>>,
    /// The endpoint, asked by ALPN, has chosen HTTP/1.1 last time.
    prefers_http1: Cell<bool>,
}

#[derive(Debug)]
struct Kept {
    upstream: Upstream,
    born_ms: u64,
    used_ms: u64,
}

/// What was found.
#[derive(Debug)]
pub enum Found {
    /// A stream on a connection that is open.
    Stream(Stream),
    /// The right, and the duty, to open a connection.
    Open(Opening),
    /// Too many wait.
    QueueFull,
}

/// The right to open a connection. Dropped, it goes to the next who waits.
#[derive(Debug)]
pub struct Opening {
    shared: Rc<Shared>,
}

impl Opening {
    /// Here is one.
    pub fn opened(self, upstream: Upstream, speaks_web: bool, now_ms: u64) -> Stream {
        let stream = upstream.open(speaks_web);
        self.shared.connections.borrow_mut().push(Kept { upstream, born_ms: now_ms, used_ms: now_ms });
        self.shared.prefers_http1.set(false);
        stream
    }

    /// The endpoint speaks HTTP/1.1 instead.
    pub fn is_http1(self) {
        self.shared.prefers_http1.set(true);
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        self.shared.is_opening.set(false);
        self.shared.wake();
    }
}

impl Shared {
    /// Whether the endpoint has chosen HTTP/1.1 when it could choose.
    pub fn prefers_http1(&self) -> bool {
        self.prefers_http1.get()
    }

    /// The endpoint has chosen HTTP/2 after all.
    pub fn is_http2(&self) {
        self.prefers_http1.set(false);
    }

    /// A stream (see [`Upstream::open`]; of a connection that is opened for it, if `fresh_only` and that may be), or the right to open a connection for one; pending while someone else opens one, and while all are full and
    /// no more may be opened.
    pub fn poll_stream(
        self: &Rc<Self>,
        policy: &PoolPolicy,
        (speaks_web, fresh_only): (bool, bool),
        now_ms: u64,
        cx: &mut Context<'_>,
    ) -> Poll<Found> {
        let mut connections = self.connections.borrow_mut();
        let is_young =
            |kept: &Kept| policy.max_age_ms == 0 || now_ms.saturating_sub(kept.born_ms) < policy.max_age_ms;
        // One that is too old is gone with its last stream, and counts until then.
        connections
            .retain_mut(|kept| !kept.upstream.is_over() && (is_young(kept) || kept.upstream.streams() > 0));
        let may_open = policy.max_connections == 0 || connections.len() < policy.max_connections;
        let mut free = |young| {
            let mut kept = connections.iter_mut().filter(|kept| is_young(kept) == young);
            kept.find_map(|kept| kept.upstream.has_room().then_some(kept)).map(|kept| {
                kept.used_ms = now_ms;
                kept.upstream.open(speaks_web)
            })
        };
        // An old one is better than none.
        let stream = match (may_open, fresh_only) {
            (true, true) => None,
            (true, false) => free(true),
            (false, _) => free(true).or_else(|| free(false)),
        };
        if let Some(stream) = stream {
            return Poll::Ready(Found::Stream(stream));
        }
        if may_open && !self.is_opening.replace(true) {
            return Poll::Ready(Found::Open(Opening { shared: Rc::clone(self) }));
        }
        let mut waiting = self.waiting.borrow_mut();
        if waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            return Poll::Pending;
        }
        // Who waits for a connection that is being opened is not in the queue of those for whom there is no room.
        let waiting_max = if self.is_opening.get() { WAITING_MAX } else { policy.queue.min(WAITING_MAX) };
        if waiting.len() >= waiting_max {
            return Poll::Ready(Found::QueueFull);
        }
        waiting.push(cx.waker().clone());
        Poll::Pending
    }

    /// A stream has ended, or a connection may be opened: who waits looks again.
    pub fn wake(&self) {
        let waiting = std::mem::take(&mut *self.waiting.borrow_mut());
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Connections that are open.
    pub fn open(&self) -> usize {
        self.connections.borrow().len()
    }

    /// Closes connections that no one has used for too long, once their streams have ended.
    pub fn sweep(&self, now_ms: u64, idle_timeout_ms: u64, is_closing: bool) {
        self.connections.borrow_mut().retain_mut(|kept| {
            let is_idle = kept.upstream.streams() == 0
                && (is_closing
                    || (idle_timeout_ms > 0 && now_ms.saturating_sub(kept.used_ms) >= idle_timeout_ms));
            !is_idle && !kept.upstream.is_over()
        });
    }
}
