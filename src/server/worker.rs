//! One core's thread: pinned, with its own runtime, listeners and [`Core`]; it accepts, hands over what another core should
//! rather serve, ticks, reads its mailbox, and ends when it has drained.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, Waker, ready},
    thread::{self, JoinHandle},
};

use pin_project_lite::pin_project;
use tokio::sync::oneshot;

use super::{
    plan::WorkerPlan,
    spread::{Candidate, PROMISED_MAX, Spread},
};
use crate::{
    buf,
    clock::{TICK_MS, Timer},
    config::types::OnFull,
    net::{
        self, Accepted, BoundListener, Driver, Listener, Mailbox, MailboxSender, OpenMailbox, Stream, Ticker,
    },
    proxy::{self, Core, CoreOptions, Guard, Renewal, guard},
    telemetry::figures::Figures,
};

/// What the control plane tells a core, or another core gives it.
pub(super) enum Message {
    /// Accept no more, finish what is under way, end after this many ms at the latest.
    Drain {
        /// 0: at once.
        timeout_ms: u64,
    },
    /// Give your figures.
    Figures(oneshot::Sender<Box<Figures>>),
    /// Secure connections to come with these.
    Renew(Renewal),
    /// The password of this number was tried.
    Password { number: u64, is_right: bool },
    /// Serve this connection, which another core accepted at the listener of this place, and which it has promised.
    Connection { accepted: Accepted, place: usize },
}

/// Messages that wait in a mailbox at most. Connections never fill it, so that the control plane is heard.
const MAILBOX_MAX: usize = 64;
const _: () = assert!(PROMISED_MAX * 2 <= MAILBOX_MAX);

/// A core as the control plane sees it.
pub(super) struct Worker {
    /// Its mailbox.
    pub(super) mailbox: MailboxSender<Message>,
    /// Says how it started.
    pub(super) started: oneshot::Receiver<io::Result<Driver>>,
    /// Says that it ended; an error if it did so by a panic.
    pub(super) ended: oneshot::Receiver<()>,
    pub(super) thread: JoinHandle<()>,
}

/// A listener to serve: its place in the table, and its socket.
pub(super) type Served = (usize, BoundListener);

/// What ties a core to the control plane and to the other cores.
pub(super) struct Ties {
    sender: MailboxSender<Message>,
    mailbox: Mailbox<Message>,
    spread: Spread,
    /// The others, from the next one on, so that equals are not all filled from the first.
    others: Vec<Other>,
}

/// Another core, as far as connections can go there.
struct Other {
    candidate: Candidate,
    /// The listeners it serves.
    places: Vec<usize>,
    mailbox: MailboxSender<Message>,
}

impl Ties {
    /// The core's mailbox.
    pub(super) fn mailbox(&self) -> MailboxSender<Message> {
        self.sender.clone()
    }
}

/// Makes mailboxes and ties the cores together.
pub(super) fn tie(workers: &[WorkerPlan]) -> io::Result<Vec<Ties>> {
    let mailboxes: Vec<_> = workers.iter().map(|_| net::mailbox(MAILBOX_MAX)).collect::<io::Result<_>>()?;
    let senders: Vec<_> = mailboxes.iter().map(|(sender, _)| sender.clone()).collect();
    let other = |core: usize| Other {
        candidate: Candidate { core, max_connections: workers[core].max_connections },
        places: workers[core].listeners.clone(),
        mailbox: senders[core].clone(),
    };
    let tied = mailboxes.into_iter().zip(Spread::new(workers.len())).enumerate();
    let ties = tied.map(|(own, ((sender, mailbox), spread))| Ties {
        sender,
        mailbox,
        spread,
        others: (own + 1..workers.len()).chain(0..own).map(other).collect(),
    });
    Ok(ties.collect())
}

/// Starts a core's thread.
pub(super) fn start(
    plan: WorkerPlan,
    listeners: Vec<Served>,
    options: CoreOptions,
    ties: Ties,
) -> io::Result<Worker> {
    let mailbox = ties.sender.clone();
    let (tell_started, started) = oneshot::channel();
    let (tell_ended, ended) = oneshot::channel();
    let name = format!("core-{}", plan.cpu);
    let thread = thread::Builder::new().name(name).spawn(move || {
        run(&plan, listeners, options, ties, tell_started);
        let _ = tell_ended.send(());
    })?;
    Ok(Worker { mailbox, started, ended, thread })
}

/// The thread, from its first to its last moment.
fn run(
    plan: &WorkerPlan,
    listeners: Vec<Served>,
    options: CoreOptions,
    ties: Ties,
    started: oneshot::Sender<io::Result<Driver>>,
) {
    if !core_affinity::set_for_current(core_affinity::CoreId { id: plan.cpu }) {
        let _ = started.send(Err(io::Error::other(format!("cannot be pinned to CPU {}", plan.cpu))));
        return;
    }
    buf::set_budget(plan.buffers);
    let started = RefCell::new(Some(started));
    let tell = |result| {
        if let Some(started) = started.borrow_mut().take() {
            let _ = started.send(result);
        }
    };
    let ended = net::run(plan.driver, plan.ring_entries, plan.buffers, |driver| async {
        match Open::new(plan, listeners, ties, options) {
            Ok(open) => {
                tell(Ok(driver));
                open.serve().await;
            }
            Err(error) => tell(Err(error)),
        }
    });
    if let Err(error) = ended {
        tell(Err(error));
    }
}

/// A core with everything open.
struct Open {
    serving: Rc<Serving>,
    mailbox: OpenMailbox<Message>,
    ticker: Ticker,
}

/// What connections come to.
struct Serving {
    core: Rc<Core>,
    spread: Spread,
    listeners: Vec<Rc<Accepting>>,
}

/// One listener at work.
struct Accepting {
    listener: Listener,
    /// Its place in the table.
    place: usize,
    max_connections: usize,
    on_full: OnFull,
    is_secured: bool,
    /// The other cores that serve it.
    others: Vec<(Candidate, MailboxSender<Message>)>,
    /// The accepting task, for when there is room again or the drain begins.
    waker: RefCell<Option<Waker>>,
    is_draining: Cell<bool>,
    /// Connections that are being told that there is no room.
    rejecting: Cell<usize>,
}

/// Connections that are being told that there is no room, at most: beyond them the door is simply shut.
const REJECTING_MAX: usize = 256;

/// Connections accepted before others have their turn: a full backlog, or a flood, does not keep the core from its I/O.
const ACCEPTS_IN_A_ROW: u32 = 32;

/// How long accepting rests when the kernel is out of descriptors or memory.
const ACCEPT_REST_MS: u64 = 100;

impl Open {
    fn new(plan: &WorkerPlan, listeners: Vec<Served>, ties: Ties, options: CoreOptions) -> io::Result<Self> {
        let Ties { mailbox, spread, others, .. } = ties;
        let listeners = listeners.into_iter().map(|(place, bound)| {
            let others = others.iter().filter(|other| other.places.contains(&place));
            Ok(Rc::new(Accepting {
                listener: Listener::new(bound)?,
                place,
                max_connections: plan.max_connections,
                on_full: plan.on_full,
                is_secured: options.table.listeners[place].tls.is_some(),
                others: others.map(|other| (other.candidate, other.mailbox.clone())).collect(),
                waker: RefCell::new(None),
                is_draining: Cell::new(false),
                rejecting: Cell::new(0),
            }))
        });
        let listeners = listeners.collect::<io::Result<_>>()?;
        let serving =
            Rc::new(Serving { core: Core::new(options).map_err(io::Error::other)?, spread, listeners });
        Ok(Self { serving, mailbox: mailbox.open()?, ticker: Ticker::new(TICK_MS)? })
    }

    /// Serves until the drain is over.
    async fn serve(self) {
        let Self { serving, mailbox, ticker } = self;
        for accepting in &serving.listeners {
            net::spawn(accept(Rc::clone(&serving), Rc::clone(accepting)));
        }
        let drain_until_ms = Rc::new(Cell::new(None));
        net::spawn(read_mailbox(Rc::clone(&serving), mailbox, Rc::clone(&drain_until_ms)));
        let (core, spread) = (&serving.core, &serving.spread);
        let _opened = spread.open();
        let mut number = 0;
        loop {
            if ticker.tick().await.is_err() {
                tracing::error!(core = core.worker, "the tick failed; the core ends");
                return;
            }
            number += 1;
            core.tick(number);
            spread.tick();
            let Some(until_ms) = drain_until_ms.get() else { continue };
            let late_ms = core.clock.now_ms().checked_sub(until_ms);
            if late_ms.is_some() {
                core.cut();
            }
            if serving.is_drained() || late_ms.is_some_and(|late_ms| late_ms >= CUT_MS) {
                core.flush_log();
                return;
            }
        }
    }
}

/// How long exchanges that are cut may take to say so and to be written down.
const CUT_MS: u64 = 100;

async fn read_mailbox(
    serving: Rc<Serving>,
    mailbox: OpenMailbox<Message>,
    drain_until_ms: Rc<Cell<Option<u64>>>,
) {
    let core = &serving.core;
    loop {
        match mailbox.receive().await {
            Ok(Message::Drain { timeout_ms }) => {
                serving.drain();
                drain_until_ms.set(Some(core.clock.now_ms() + timeout_ms));
            }
            Ok(Message::Figures(answer)) => {
                // Who asked may have stopped waiting.
                let _ = answer.send(Box::new(core.figures()));
            }
            Ok(Message::Renew(renewal)) => core.renew(&renewal),
            Ok(Message::Password { number, is_right }) => core.take_trial(number, is_right),
            Ok(Message::Connection { accepted, place }) => {
                // Others send only what comes to a listener that is here too.
                if let Some(accepting) = serving.listeners.iter().find(|accepting| accepting.place == place) {
                    take(&serving, accepting, accepted);
                }
                serving.spread.keep_promise();
            }
            Err(error) => {
                tracing::error!(core = core.worker, %error, "the mailbox failed");
                serving.spread.close();
                return;
            }
        }
    }
}

impl Serving {
    /// Takes nothing new. Connections that are promised are served like those that wait in the backlog.
    fn drain(&self) {
        self.spread.close();
        for accepting in &self.listeners {
            accepting.drain();
        }
        self.core.drain();
    }

    /// Whether all is done: no connection is left, and none waits to be accepted or is on its way from another core.
    fn is_drained(&self) -> bool {
        self.core.connections.get() == 0
            && !self.spread.is_promised_any()
            && self.listeners.iter().all(|accepting| accepting.listener.is_closed())
    }
}

impl Accepting {
    fn drain(&self) {
        // Once: to a closed listener it would mean to listen again.
        if self.is_draining.replace(true) {
            return;
        }
        self.listener.stop_queueing();
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    fn is_full(&self, core: &Core) -> bool {
        core.connections.get() >= self.max_connections
    }
}

/// Accepts until the drain, and then what had already come.
async fn accept(serving: Rc<Serving>, accepting: Rc<Accepting>) {
    let core = &serving.core;
    let mut in_a_row = 0u32;
    loop {
        in_a_row = in_a_row.wrapping_add(1);
        if in_a_row.is_multiple_of(ACCEPTS_IN_A_ROW) {
            give_way().await;
        }
        if accepting.on_full == OnFull::Wait {
            room(core, &accepting).await;
        }
        match next(&accepting).await {
            Ok(accepted) => {
                if let Some(accepted) = hand_over(&serving, &accepting, accepted) {
                    take(&serving, &accepting, accepted);
                }
            }
            Err(_) if accepting.listener.is_closed() => return,
            Err(error) => {
                // Out of descriptors or memory, or a connection that was gone before it was taken.
                core.figures.borrow_mut().counters.accept_errors += 1;
                if !matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
                {
                    tracing::warn!(core = core.worker, %error, "cannot accept; resting");
                    rest(core, ACCEPT_REST_MS).await;
                }
            }
        }
    }
}

/// The next connection. While draining: what waits already, and then the end.
async fn next(accepting: &Accepting) -> io::Result<Accepted> {
    let mut accepted = pin!(accepting.listener.accept());
    poll_fn(|cx| {
        let poll = accepted.as_mut().poll(cx);
        if poll.is_pending() {
            *accepting.waker.borrow_mut() = Some(cx.waker().clone());
            if accepting.is_draining.get()
                && !accepting.listener.has_waiting()
                && !accepting.listener.is_closed()
            {
                accepting.listener.close();
            }
        }
        poll
    })
    .await
}

/// Waits until there is room for a connection, or the drain begins.
async fn room(core: &Core, accepting: &Accepting) {
    poll_fn(|cx| {
        if !accepting.is_full(core) || accepting.is_draining.get() {
            return Poll::Ready(());
        }
        *accepting.waker.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    })
    .await;
}

/// Lets everything else that is ready go first.
async fn give_way() {
    let mut has_waited = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut has_waited, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

async fn rest(core: &Core, for_ms: u64) {
    let deadline = core.deadlines.register();
    deadline.set(Timer::Request, for_ms);
    poll_fn(|cx| {
        deadline.wake_with(cx.waker());
        if deadline.has_expired(Timer::Request) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// One connection's place among the core's.
struct Place(Rc<Serving>);

impl Place {
    fn new(serving: &Rc<Serving>) -> Self {
        let place = Self(Rc::clone(serving));
        place.count(serving.core.connections.get() + 1);
        place
    }

    /// Says how many places are taken.
    fn count(&self, connections: usize) {
        self.0.core.connections.set(connections);
        self.0.spread.hold(connections);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let core = &self.0.core;
        for accepting in &self.0.listeners {
            if accepting.on_full == OnFull::Wait && accepting.is_full(core) {
                accepting.wake();
            }
        }
        self.count(core.connections.get() - 1);
    }
}

/// Gives a connection to a core that holds clearly fewer. Returns it when it is to be served here.
fn hand_over(serving: &Serving, accepting: &Accepting, accepted: Accepted) -> Option<Accepted> {
    if accepting.others.is_empty() || accepting.is_draining.get() {
        return Some(accepted);
    }
    let candidates = accepting.others.iter().map(|(candidate, _)| *candidate);
    let Some(place) = serving.spread.promise(candidates) else { return Some(accepted) };
    let (other, mailbox) = &accepting.others[place];
    let refused = mailbox.send(Message::Connection { accepted, place: accepting.place }).err();
    if let Some(Message::Connection { accepted, .. }) = refused {
        serving.spread.break_promise(other.core);
        return Some(accepted);
    }
    serving.core.figures.borrow_mut().counters.connections_handed_over += 1;
    None
}

/// Serves a connection, or tells it that there is no room.
fn take(serving: &Rc<Serving>, accepting: &Rc<Accepting>, accepted: Accepted) {
    let core = &serving.core;
    let peer = accepted.peer;
    let stream = match accepted.into_stream() {
        Ok(stream) => stream,
        Err(error) => {
            core.figures.borrow_mut().counters.accept_errors += 1;
            tracing::warn!(core = core.worker, %peer, %error, "cannot serve a connection; it is closed");
            return;
        }
    };
    core.figures.borrow_mut().counters.connections_accepted += 1;
    // Waiting listeners may overshoot by the connections that were under way when the core became full.
    if accepting.is_full(core) && accepting.on_full == OnFull::Reject {
        reject(core, accepting, stream);
    } else {
        host(serving, peer, proxy::serve(Rc::clone(core), stream, peer, accepting.place));
    }
}

/// Gives a connection's task a place. Its panic is its own end only.
fn host(serving: &Rc<Serving>, peer: SocketAddr, task: impl Future<Output = ()> + 'static) {
    net::spawn(Hosted { task: guard(task), place: Place::new(serving), peer });
}

pin_project! {
    /// A connection's task in its place. Not an async block, which would have room for the task twice.
    struct Hosted<F> {
        #[pin]
        task: Guard<F>,
        place: Place,
        peer: SocketAddr,
    }
}

impl<F: Future<Output = ()>> Future for Hosted<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        if ready!(this.task.poll(cx)).is_err() {
            let (core, peer) = (&this.place.0.core, this.peer);
            core.figures.borrow_mut().counters.panics += 1;
            tracing::error!(core = core.worker, %peer, "a connection's task panicked; the connection is closed");
        }
        Poll::Ready(())
    }
}

/// Tells a connection that there is no room for it.
fn reject(core: &Rc<Core>, accepting: &Rc<Accepting>, stream: Stream) {
    core.figures.borrow_mut().counters.connections_refused += 1;
    // By TLS it would take a handshake to say so.
    if accepting.is_secured || accepting.rejecting.get() >= REJECTING_MAX {
        return;
    }
    accepting.rejecting.set(accepting.rejecting.get() + 1);
    let (core, accepting) = (Rc::clone(core), Rc::clone(accepting));
    net::spawn(async move {
        let told = guard(proxy::reject(Rc::clone(&core), stream)).await;
        core.figures.borrow_mut().counters.panics += u64::from(told.is_err());
        accepting.rejecting.set(accepting.rejecting.get() - 1);
    });
}

#[cfg(test)]
mod tests;
