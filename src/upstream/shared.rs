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
    waiting: RefCell<Vec<(u64, Waker)>>,
    /// How many have waited.
    turns: Cell<u64>,
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

/// Someone who wants a stream. Dropped, they wait no longer.
#[derive(Debug)]
pub struct Asking {
    shared: Rc<Shared>,
    /// Their place among those who wait, if they do.
    turn: Option<u64>,
}

impl Asking {
    /// A stream (see [`Upstream::open`]; of a connection that is opened for it, if `fresh_only` and that may be), or the right to
    /// open a connection for one; pending while someone else opens one, and while all are full and no more may be opened.
    pub fn poll(
        &mut self,
        policy: &PoolPolicy,
        (speaks_web, fresh_only): (bool, bool),
        now_ms: u64,
        cx: &mut Context<'_>,
    ) -> Poll<Found> {
        self.shared.poll_stream(policy, (speaks_web, fresh_only), now_ms, &mut self.turn, cx)
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if let Some(turn) = self.turn {
            self.shared.waiting.borrow_mut().retain(|(waiter, _)| *waiter != turn);
        }
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

    /// Asks for a stream, or for the right to open a connection for one (see [`Asking::poll`]).
    pub fn ask(self: &Rc<Self>) -> Asking {
        Asking { shared: Rc::clone(self), turn: None }
    }

    /// Whether someone waits.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.waiting.borrow().len()
    }

    fn poll_stream(
        self: &Rc<Self>,
        policy: &PoolPolicy,
        (speaks_web, fresh_only): (bool, bool),
        now_ms: u64,
        turn: &mut Option<u64>,
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
        if let Some((_, waker)) = waiting.iter_mut().find(|(waiter, _)| Some(*waiter) == *turn) {
            waker.clone_from(cx.waker());
            return Poll::Pending;
        }
        // Who waits for a connection that is being opened is not in the queue of those for whom there is no room.
        let waiting_max = if self.is_opening.get() { WAITING_MAX } else { policy.queue.min(WAITING_MAX) };
        if waiting.len() >= waiting_max {
            return Poll::Ready(Found::QueueFull);
        }
        self.turns.set(self.turns.get() + 1);
        *turn = Some(self.turns.get());
        waiting.push((self.turns.get(), cx.waker().clone()));
        Poll::Pending
    }

    /// A stream has ended, or a connection may be opened: who waits looks again.
    pub fn wake(&self) {
        let waiting = std::mem::take(&mut *self.waiting.borrow_mut());
        waiting.into_iter().for_each(|(_, waker)| waker.wake());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_gives_up_no_longer_counts() {
        let shared = Rc::new(Shared::default());
        let policy = PoolPolicy {
            max_idle: 1,
            idle_timeout_ms: 0,
            max_age_ms: 0,
            max_connections: 0,
            queue: 2,
            queue_timeout_ms: 0,
        };
        let mut cx = Context::from_waker(Waker::noop());
        let Poll::Ready(Found::Open(opening)) = shared.ask().poll(&policy, (false, false), 0, &mut cx) else {
            panic!("the first one opens a connection");
        };
        let ask = |cx: &mut Context<'_>| {
            let mut asking = shared.ask();
            assert!(asking.poll(&policy, (false, false), 0, cx).is_pending());
            assert!(asking.poll(&policy, (false, false), 0, cx).is_pending());
            asking
        };
        let (one, two) = (ask(&mut cx), ask(&mut cx));
        assert_eq!(shared.waiting(), 2);
        drop(one);
        assert_eq!(shared.waiting(), 1);
        // Whoever was woken and looks again has a place again.
        drop(opening);
        assert_eq!(shared.waiting(), 0);
        drop(two);
        assert_eq!(shared.waiting(), 0);
    }
}
