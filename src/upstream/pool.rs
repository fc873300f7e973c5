//! Connections to endpoints, per core: kept by address, last in first out, bounded, with a bounded queue of requests
//! that wait for one. It knows sockets and time limits, and nothing of HTTP: whoever releases a connection vouches that
//! its exchange ended cleanly.
//!
//! An idle connection has its next receive armed. A peer that closes it, or sends what no one asked for, completes that
//! receive, so a dead connection is seen before use without a system call, and a live one needs no further submission
//! when its next response comes.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use super::shared::Shared;
use crate::tls::{Identity, Stream};

/// Limits of one endpoint's connections on one core. Times in ms; 0 means no limit, but for `max_idle`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolPolicy {
    /// Idle connections kept.
    pub max_idle: usize,
    /// How long one may be idle.
    pub idle_timeout_ms: u64,
    /// The age after which one is not used again.
    pub max_age_ms: u64,
    /// Connections at once: this core's share of the host's limit.
    pub max_connections: usize,
    /// Requests that may wait for one.
    pub queue: usize,
    /// How long a request may wait.
    pub queue_timeout_ms: u64,
}

/// A core's share of a limit for the whole host: as even as whole numbers allow, and at least one, so that every core
/// can serve. 0 stays 0 (no limit).
pub fn share(limit: usize, worker: usize, workers: usize) -> usize {
    match limit {
        0 => 0,
        limit => (limit / workers + usize::from(worker < limit % workers)).max(1),
    }
}

/// An address, what is demanded of who is there, and whether its connections are told whose they are.
type Key = (SocketAddr, Option<Identity>, bool);

/// All pools of a core, by address, and by what is demanded of who is there. They outlive generations.
#[derive(Debug, Default)]
pub struct Pools {
    by_address: RefCell<HashMap<Key, Rc<Pool>>>,
    dead: Rc<Cell<u64>>,
}

impl Pools {
    /// The pool of an address, made when there is none. Connections by TLS are another pool's than plain ones, and those
    /// that were made by other rules.
    pub fn of(&self, address: SocketAddr, identity: Option<Identity>, is_announced: bool) -> Rc<Pool> {
        let mut pools = self.by_address.borrow_mut();
        let key = (address, identity, is_announced);
        Rc::clone(pools.entry(key).or_insert_with(|| Rc::new(Pool::new(address, Rc::clone(&self.dead)))))
    }

    /// Closes connections that are dead or idle for too long, and forgets pools that no generation uses any more.
    pub fn sweep(&self, now_ms: u64) {
        self.by_address.borrow_mut().retain(|_, pool| {
            pool.sweep(now_ms);
            Rc::strong_count(pool) > 1 || pool.open.get() > 0 || pool.shared.open() > 0
        });
    }

    /// Connections open and idle, over all pools.
    pub fn counts(&self) -> (usize, usize) {
        self.by_address.borrow().values().fold((0, 0), |(open, idle), pool| {
            (open + pool.open.get() + pool.shared.open(), idle + pool.idle.borrow().len())
        })
    }

    /// Idle connections that the endpoint ended, since the start.
    pub fn dead(&self) -> u64 {
        self.dead.get()
    }

    /// Closes all idle connections.
    pub fn close_idle(&self) {
        for pool in self.by_address.borrow().values() {
            let idle = std::mem::take(&mut *pool.idle.borrow_mut());
            pool.open.set(pool.open.get() - idle.len());
            pool.shared.sweep(0, 0, true);
        }
    }
}

/// The connections to one address.
#[derive(Debug)]
pub struct Pool {
    /// Where they lead.
    pub address: SocketAddr,
    idle: RefCell<Vec<Idle>>,
    open: Cell<usize>,
    waiting: RefCell<VecDeque<Rc<Waiter>>>,
    /// The policy's time limit at the last release, for the sweep.
    idle_timeout_ms: Cell<u64>,
    /// Idle connections that were found dead, over all pools.
    dead: Rc<Cell<u64>>,
    /// Connections by HTTP/2, which are not counted among those above.
    pub shared: Rc<Shared>,
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    since_ms: u64,
}

/// A connection and what the pool must remember of it.
#[derive(Debug)]
struct Connection {
    stream: Stream,
    born_ms: u64,
}

#[derive(Debug)]
struct Waiter {
    granted: Cell<bool>,
    /// The connection that came with the grant; without one the waiter may open its own.
    connection: RefCell<Option<Connection>>,
    waker: RefCell<Waker>,
}

/// What an [`Pool::acquire`] found.
#[derive(Debug)]
pub enum Acquired {
    /// An idle connection, believed alive.
    Reused(Lease),
    /// The right to open a new one; see [`Lease::connected`].
    Fresh(Lease),
    /// All are busy: wait for one.
    Wait(Waiting),
    /// All are busy and the queue is full.
    QueueFull,
}

/// One counted connection, or the right to open one. Dropped, the connection is closed and its place given on.
#[derive(Debug)]
pub struct Lease {
    pool: Rc<Pool>,
    connection: Option<Connection>,
    /// Whether the place is this lease's to give on.
    holds_place: bool,
}

impl Lease {
    fn new(pool: &Rc<Pool>, connection: Option<Connection>) -> Self {
        Self { pool: Rc::clone(pool), connection, holds_place: true }
    }

    /// A stream of a connection that others use too. It is used once, and closes nothing when it is dropped.
    pub fn of_stream(pool: &Rc<Pool>, stream: Stream, policy: &PoolPolicy) -> Self {
        pool.idle_timeout_ms.set(policy.idle_timeout_ms);
        let connection = Connection { stream, born_ms: 0 };
        Self { pool: Rc::clone(pool), connection: Some(connection), holds_place: false }
    }

    /// Puts the new connection in.
    pub fn connected(&mut self, stream: Stream, now_ms: u64) {
        self.connection = Some(Connection { stream, born_ms: now_ms });
    }

    /// Closes the connection and keeps its place, for another one.
    pub fn forget_connection(&mut self) {
        self.connection = None;
    }

    /// The connection, once there is one.
    #[inline]
    pub fn stream(&mut self) -> Option<&mut Stream> {
        self.connection.as_mut().map(|connection| &mut connection.stream)
    }

    /// Gives a connection back whose exchange ended cleanly: its response complete, nothing of it unread.
    pub fn release(mut self, policy: &PoolPolicy, now_ms: u64) {
        if !self.holds_place {
            // A stream is used once: the drop of `self` says that it has ended.
            return;
        }
        let Some(mut connection) = self.connection.take() else { return };
        if !connection.stream.rx.is_armed() && !connection.stream.rx.arm_lazily() {
            return;
        }
        let too_old =
            policy.max_age_ms != 0 && now_ms.saturating_sub(connection.born_ms) >= policy.max_age_ms;
        let waiter = if too_old { None } else { self.pool.next_waiter() };
        if too_old || (waiter.is_none() && self.pool.idle.borrow().len() >= policy.max_idle) {
            return; // The drop of `self` gives the place on.
        }
        // The place goes with the connection.
        self.holds_place = false;
        self.pool.idle_timeout_ms.set(policy.idle_timeout_ms);
        match waiter {
            Some(waiter) => waiter.grant(Some(connection)),
            None => self.pool.idle.borrow_mut().push(Idle { connection, since_ms: now_ms }),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.holds_place {
            self.pool.give_place_on();
        } else if self.connection.take().is_some() {
            self.pool.shared.wake();
        }
    }
}

impl Pool {
    fn new(address: SocketAddr, dead: Rc<Cell<u64>>) -> Self {
        Self {
            address,
            idle: RefCell::default(),
            open: Cell::new(0),
            waiting: RefCell::default(),
            idle_timeout_ms: Cell::new(0),
            dead,
            shared: Rc::default(),
        }
    }

    /// Connections open now, idle ones included.
    pub fn open(&self) -> usize {
        self.open.get()
    }

    /// An idle connection, the right to open one, or a place in the queue.
    #[inline]
    pub fn acquire(self: &Rc<Self>, policy: &PoolPolicy, now_ms: u64, cx: &mut Context<'_>) -> Acquired {
        while let Some(Idle { mut connection, since_ms }) = self.pop_idle() {
            let dead = connection.stream.rx.poll_recv(cx).is_ready();
            self.dead.set(self.dead.get() + u64::from(dead));
            if dead
                || is_over(now_ms, since_ms, policy.idle_timeout_ms)
                || is_over(now_ms, connection.born_ms, policy.max_age_ms)
            {
                self.open.set(self.open.get() - 1);
                continue;
            }
            return Acquired::Reused(Lease::new(self, Some(connection)));
        }
        self.acquire_fresh(policy, cx)
    }

    /// The right to open a connection, or a place in the queue; never an idle one.
    pub fn acquire_fresh(self: &Rc<Self>, policy: &PoolPolicy, cx: &mut Context<'_>) -> Acquired {
        if policy.max_connections == 0 || self.open.get() < policy.max_connections {
            self.open.set(self.open.get() + 1);
            return Acquired::Fresh(Lease::new(self, None));
        }
        if self.pop_idle().is_some() {
            // An idle one was closed, so that a fresh one has room.
            return Acquired::Fresh(Lease::new(self, None));
        }
        let mut waiting = self.waiting.borrow_mut();
        if waiting.len() >= policy.queue {
            return Acquired::QueueFull;
        }
        let waiter = Rc::new(Waiter {
            granted: Cell::new(false),
            connection: RefCell::new(None),
            waker: RefCell::new(cx.waker().clone()),
        });
        waiting.push_back(Rc::clone(&waiter));
        Acquired::Wait(Waiting { pool: Rc::clone(self), waiter: Some(waiter) })
    }

    fn pop_idle(&self) -> Option<Idle> {
        self.idle.borrow_mut().pop()
    }

    fn next_waiter(&self) -> Option<Rc<Waiter>> {
        self.waiting.borrow_mut().pop_front()
    }

    /// Someone's place is free: the first who waits has it, else no one.
    fn give_place_on(&self) {
        match self.next_waiter() {
            Some(waiter) => waiter.grant(None),
            None => self.open.set(self.open.get() - 1),
        }
    }

    fn sweep(&self, now_ms: u64) {
        self.shared.sweep(now_ms, self.idle_timeout_ms.get(), false);
        let mut cx = Context::from_waker(Waker::noop());
        let mut closed = 0;
        self.idle.borrow_mut().retain_mut(|idle| {
            let dead = idle.connection.stream.rx.poll_recv(&mut cx).is_ready();
            self.dead.set(self.dead.get() + u64::from(dead));
            let keep = !dead && !is_over(now_ms, idle.since_ms, self.idle_timeout_ms.get());
            closed += usize::from(!keep);
            keep
        });
        self.open.set(self.open.get() - closed);
    }
}

fn is_over(now_ms: u64, since_ms: u64, limit_ms: u64) -> bool {
    limit_ms != 0 && now_ms.saturating_sub(since_ms) >= limit_ms
}

impl Waiter {
    fn grant(&self, connection: Option<Connection>) {
        *self.connection.borrow_mut() = connection;
        self.granted.set(true);
        self.waker.borrow().wake_by_ref();
    }
}

/// A place in a pool's queue. Dropped, it is given up, and what was granted meanwhile is given on.
#[derive(Debug)]
pub struct Waiting {
    pool: Rc<Pool>,
    waiter: Option<Rc<Waiter>>,
}

impl Waiting {
    /// The lease, once it is this one's turn: with a connection (reused) or without (to be opened).
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<(Lease, bool)> {
        let Some(waiter) = self.waiter.as_ref() else { return Poll::Pending };
        if !waiter.granted.get() {
            waiter.waker.borrow_mut().clone_from(cx.waker());
            return Poll::Pending;
        }
        let mut connection = waiter.connection.borrow_mut().take();
        self.waiter = None;
        // It may have ended, or brought what no one asked for, since its last response.
        if connection.as_mut().is_some_and(|connection| connection.stream.rx.poll_recv(cx).is_ready()) {
            connection = None;
        }
        let reused = connection.is_some();
        Poll::Ready((Lease::new(&self.pool, connection), reused))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let Some(waiter) = self.waiter.take() else { return };
        if waiter.granted.get() {
            drop(waiter.connection.borrow_mut().take());
            self.pool.give_place_on();
        } else {
            self.pool.waiting.borrow_mut().retain(|other| !Rc::ptr_eq(other, &waiter));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(max_connections: usize, queue: usize) -> PoolPolicy {
        PoolPolicy {
            max_idle: 4,
            idle_timeout_ms: 0,
            max_age_ms: 0,
            max_connections,
            queue,
            queue_timeout_ms: 0,
        }
    }

    fn pool() -> Rc<Pool> {
        Pools::default().of("127.0.0.1:1".parse().unwrap(), None, false)
    }

    #[test]
    fn shares_add_up_and_are_never_nothing() {
        assert_eq!((0..4).map(|worker| share(10, worker, 4)).collect::<Vec<_>>(), [3, 3, 2, 2]);
        assert_eq!((0..4).map(|worker| share(2, worker, 4)).collect::<Vec<_>>(), [1, 1, 1, 1]);
        assert_eq!(share(0, 0, 4), 0);
    }

    #[test]
    fn a_full_pool_queues_and_a_full_queue_refuses() {
        let (pool, policy) = (pool(), policy(1, 1));
        let mut cx = Context::from_waker(Waker::noop());
        let Acquired::Fresh(lease) = pool.acquire(&policy, 0, &mut cx) else { panic!("room for one") };
        let Acquired::Wait(mut waiting) = pool.acquire(&policy, 0, &mut cx) else { panic!("room to wait") };
        assert!(matches!(pool.acquire(&policy, 0, &mut cx), Acquired::QueueFull));
        assert!(waiting.poll(&mut cx).is_pending());
        drop(lease);
        let Poll::Ready((granted, reused)) = waiting.poll(&mut cx) else { panic!("its turn") };
        assert!(!reused);
        assert_eq!(pool.open(), 1);
        drop(granted);
        assert_eq!(pool.open(), 0);
    }

    #[test]
    fn who_leaves_the_queue_gives_the_grant_on() {
        let (pool, policy) = (pool(), policy(1, 2));
        let mut cx = Context::from_waker(Waker::noop());
        let Acquired::Fresh(lease) = pool.acquire(&policy, 0, &mut cx) else { panic!("room for one") };
        let Acquired::Wait(first) = pool.acquire(&policy, 0, &mut cx) else { panic!("room to wait") };
        let Acquired::Wait(mut second) = pool.acquire(&policy, 0, &mut cx) else { panic!("room to wait") };
        drop(lease);
        drop(first);
        assert!(second.poll(&mut cx).is_ready());
        assert_eq!(pool.open(), 0, "the granted lease was dropped at once");
    }

    #[test]
    fn who_leaves_ungranted_is_forgotten() {
        let (pool, policy) = (pool(), policy(1, 1));
        let mut cx = Context::from_waker(Waker::noop());
        let Acquired::Fresh(lease) = pool.acquire(&policy, 0, &mut cx) else { panic!("room for one") };
        let Acquired::Wait(waiting) = pool.acquire(&policy, 0, &mut cx) else { panic!("room to wait") };
        drop(waiting);
        drop(lease);
        assert_eq!(pool.open(), 0);
        assert!(pool.waiting.borrow().is_empty());
    }
}
