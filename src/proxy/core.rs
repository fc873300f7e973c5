//! What one core owns: its clock, pools, figures, log and the generation in force. Everything here is this thread's
//! alone; nothing is shared, so nothing is locked.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
};

use super::{
    generation::Generation,
    passwords::{Passwords, TrialLane},
    secure::Handshakes,
    slot::Slots,
};
use crate::{
    buf,
    clock::{Clock, Deadlines, Timer},
    config::types::LogFormat,
    http::{request::RequestHead, response::ResponseHead},
    net,
    policy::{jose, key::Consumers, password::Users},
    route::Captures,
    table::Table,
    telemetry::{date::DateCache, figures::Figures, log_queue::LogBatcher},
    tls::{ClientTls, ServerTls, TicketKeys},
    upstream::pool::Pools,
};

/// What a core is made with.
pub struct CoreOptions {
    /// Its number among the workers, from 0.
    pub worker: usize,
    /// How many workers there are.
    pub workers: usize,
    /// Seed of its random choices.
    pub seed: u64,
    /// Where its log lines go, and in which format; none when the log is off.
    pub log: Option<(LogBatcher, LogFormat)>,
    /// The first table.
    pub table: Table,
    /// The keys of session tickets, which all cores have.
    pub tickets: TicketKeys,
    /// TLS handshakes under way at once.
    pub max_handshakes: usize,
    /// The way to those who try passwords, if any are asked for.
    pub passwords: Option<TrialLane>,
}

/// What connections to come are secured with, and requests to come are judged by.
#[derive(Debug, Clone)]
pub enum Renewal {
    /// The keys of session tickets.
    Tickets(TicketKeys),
    /// A listener's certificates, by its place in the table.
    Listener(usize, Arc<ServerTls>),
    /// A cluster's authorities and certificate, by its place in the table.
    Cluster(usize, Arc<ClientTls>),
    /// The keys that the issuer of a policy's tokens publishes, by the policy's place in the table.
    Published(usize, Arc<[jose::Key]>),
    /// Who uses the API.
    Consumers(Arc<Consumers>),
    /// The users of a policy, by its place in the table.
    Users(usize, Arc<Users>),
}

/// One core's own things.
pub struct Core {
    /// Its number among the workers, from 0.
    pub worker: usize,
    /// How many workers there are.
    pub workers: usize,
    /// Its clock.
    pub clock: Clock,
    /// Its connections' deadlines.
    pub deadlines: Rc<Deadlines>,
    /// Its connections to endpoints.
    pub pools: Pools,
    /// What it counts.
    pub figures: RefCell<Figures>,
    /// Client connections it holds.
    pub connections: Cell<usize>,
    /// Exchanges under way.
    pub exchanges: Cell<usize>,
    /// Expressions that had no value.
    pub(super) expressions_failed: Cell<u64>,
    pub(super) rng: RefCell<fastrand::Rng>,
    pub(super) log: RefCell<Option<Log>>,
    generation: RefCell<Rc<Generation>>,
    is_draining: Cell<bool>,
    is_cutting: Cell<bool>,
    pub(super) slots: Slots,
    tickets: RefCell<TicketKeys>,
    pub(super) handshakes: Handshakes,
    pub(super) passwords: Passwords,
    complained_ms: Cell<u64>,
}

/// An exchange under way.
pub(super) struct UnderWay(Rc<Core>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.exchanges.set(self.0.exchanges.get() - 1);
    }
}

/// The access log of a core.
pub(super) struct Log {
    pub(super) batcher: LogBatcher,
    pub(super) dates: DateCache,
    pub(super) format: LogFormat,
}

/// What an exchange needs and the next one can use again.
#[derive(Default)]
pub(super) struct Scratch {
    pub(super) request: RequestHead,
    pub(super) response: ResponseHead,
    pub(super) captures: Captures,
    /// The canonical path, when the request's is not canonical itself.
    pub(super) path: Vec<u8>,
    /// The rewritten path, and whatever else is rendered.
    pub(super) text: Vec<u8>,
    pub(super) lines: Vec<u8>,
}

impl Core {
    /// A core that serves the given table.
    ///
    /// # Errors
    /// Randomness or memory for TLS ran out.
    pub fn new(options: CoreOptions) -> Result<Rc<Self>, rustls::Error> {
        let CoreOptions { worker, workers, seed, log, table, tickets, max_handshakes, passwords } = options;
        let pools = Pools::default();
        let figures = Figures::new(table.routes.len(), table.endpoints, table.policies.len());
        let generation = Generation::new(0, table, &tickets, &pools, (worker, workers))?;
        Ok(Rc::new(Self {
            worker,
            workers,
            clock: Clock::new(),
            deadlines: Rc::default(),
            pools,
            figures: RefCell::new(figures),
            connections: Cell::new(0),
            exchanges: Cell::new(0),
            expressions_failed: Cell::new(0),
            rng: RefCell::new(fastrand::Rng::with_seed(seed)),
            log: RefCell::new(log.map(|(batcher, format)| Log {
                batcher,
                dates: DateCache::default(),
                format,
            })),
            generation: RefCell::new(Rc::new(generation)),
            is_draining: Cell::new(false),
            is_cutting: Cell::new(false),
            slots: Slots::default(),
            tickets: RefCell::new(tickets),
            handshakes: Handshakes::new(max_handshakes),
            passwords: Passwords::new(passwords),
            complained_ms: Cell::new(0),
        }))
    }

    /// Takes new keys, other certificates or other consumers, for what is to come. What cannot be taken leaves the old in force.
    pub fn renew(&self, renewal: &Renewal) {
        let secrets = &self.generation.borrow().secrets;
        let renewed = match renewal {
            Renewal::Tickets(tickets) => {
                let renewed = secrets.renew_tickets(tickets);
                *self.tickets.borrow_mut() = tickets.clone();
                renewed
            }
            Renewal::Listener(place, tls) => secrets.renew_listener(*place, tls, &self.tickets.borrow()),
            Renewal::Cluster(place, tls) => secrets.renew_cluster(*place, tls),
            Renewal::Published(policy, keys) => {
                self.generation.borrow().take_published(*policy, keys);
                Ok(())
            }
            Renewal::Users(policy, users) => {
                self.generation.borrow().take_users(*policy, users);
                Ok(())
            }
            Renewal::Consumers(consumers) => {
                self.generation.borrow().take_consumers(consumers);
                Ok(())
            }
        };
        if let Err(error) = renewed {
            tracing::error!(core = self.worker, %error, "new keys cannot be taken; the old ones stay");
        }
    }

    /// Takes the answer to a password that was tried.
    pub fn take_trial(&self, number: u64, is_right: bool) {
        self.figures.borrow_mut().counters.passwords_tried += 1;
        self.passwords.answer(number, is_right);
    }

    /// The generation in force.
    #[inline]
    pub fn generation(&self) -> Rc<Generation> {
        Rc::clone(&self.generation.borrow())
    }

    /// Whether a peer's fault may be a line of the process's log now: once a second, so that no one can fill it.
    pub(super) fn may_complain(&self) -> bool {
        let now_ms = self.clock.now_ms();
        let is_due =
            now_ms.saturating_sub(self.complained_ms.get()) >= COMPLAINT_MS || self.complained_ms.get() == 0;
        if is_due {
            self.complained_ms.set(now_ms.max(1));
        }
        is_due
    }

    /// Whether no further requests are wanted.
    #[inline]
    pub fn is_draining(&self) -> bool {
        self.is_draining.get()
    }

    /// Counts an exchange as long as the guard lives.
    pub(super) fn begin_exchange(self: &Rc<Self>) -> UnderWay {
        self.exchanges.set(self.exchanges.get() + 1);
        UnderWay(Rc::clone(self))
    }

    /// Asks every connection to end after its exchange under way.
    pub fn drain(&self) {
        self.is_draining.set(true);
        self.pools.close_idle();
        self.deadlines.wake_all();
    }

    /// Ends the exchanges under way, for which the drain has no more time: the clients that have no response yet are
    /// told so.
    pub fn cut(&self) {
        if !self.is_cutting.replace(true) {
            self.deadlines.expire_all(Timer::Exchange);
        }
    }

    /// Whether the exchanges under way are being ended.
    pub(super) fn is_cutting(&self) -> bool {
        self.is_cutting.get()
    }

    /// The work of a tick: clock, deadlines; and now and then pools, log and buffers.
    pub fn tick(&self, number: u64) {
        self.clock.tick();
        self.deadlines.sweep(self.clock.now_ms());
        if number.is_multiple_of(TICKS_PER_FLUSH) {
            if let Some(log) = self.log.borrow_mut().as_mut() {
                log.batcher.flush();
            }
            self.pools.sweep(self.clock.now_ms());
            self.generation.borrow().give_back_idle(self.clock.host_ns());
        }
        if number.is_multiple_of(TICKS_PER_TRIM) {
            buf::trim();
            net::calm_down();
            self.slots.trim();
        }
    }

    /// Hands over the log lines that are still here.
    pub fn flush_log(&self) {
        if let Some(log) = self.log.borrow_mut().as_mut() {
            log.batcher.flush();
        }
    }

    /// A copy of the core's figures, with what other rooms of this thread count for themselves read now.
    pub fn figures(&self) -> Figures {
        let mut figures = self.figures.borrow().clone();
        let pool = buf::figures();
        let (open, _) = self.pools.counts();
        let [downstream, upstream] = net::traffic();
        figures.ring = net::operations();
        figures.counters.connections_active = self.connections.get() as u64;
        figures.counters.exchanges_active = self.exchanges.get() as u64;
        figures.counters.downstream_bytes_received = downstream.received;
        figures.counters.downstream_bytes_sent = downstream.sent;
        figures.counters.upstream_bytes_received = upstream.received;
        figures.counters.upstream_bytes_sent = upstream.sent;
        figures.counters.pool_dead = self.pools.dead();
        figures.counters.upstream_connections_active = open as u64;
        // What the kernel has in advance is not in use before something comes.
        figures.counters.buffers_active = pool.units_in_use.saturating_sub(net::buffers_provided()) as u64;
        figures.counters.buffers_exhausted = pool.exhausted;
        figures.counters.expressions_failed = self.expressions_failed.get();
        if self.worker == 0 {
            figures.counters.rate_limit_evictions = self.generation.borrow().evictions();
        }
        if let Some(log) = self.log.borrow().as_ref() {
            figures.counters.log_lines = log.batcher.written();
            figures.counters.log_dropped = log.batcher.dropped();
        }
        figures
    }
}

/// Between two complaints about peers.
const COMPLAINT_MS: u64 = 1000;

/// Log batches go out, dead connections are looked for, and idle permits given back, every fifth tick (100 ms).
const TICKS_PER_FLUSH: u64 = 5;
/// Unneeded buffers are freed every 500th tick (10 s).
const TICKS_PER_TRIM: u64 = 500;
