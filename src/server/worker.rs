//! One core's thread: pinned, with its own runtime, listeners and [`Core`]; it accepts, ticks, reads its mailbox, and
//! ends when it has drained.

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
    guard::{Guard, guard},
    plan::WorkerPlan,
};
use crate::{
    buf,
    clock::{TICK_MS, Timer},
    config::types::OnFull,
    net::{
        self, Accepted, BoundListener, Driver, Listener, Mailbox, MailboxSender, OpenMailbox, Stream, Ticker,
    },
    proxy::{self, Core, CoreOptions},
    telemetry::figures::Figures,
};

/// What the control plane tells a core.
pub(super) enum Message {
    /// Accept no more, finish what is under way, end after this many ms at the latest.
    Drain {
        /// 0: at once.
        timeout_ms: u64,
    },
    /// Give your figures.
    Figures(oneshot::Sender<Box<Figures>>),
}

/// Messages that wait in a mailbox at most.
const MAILBOX_MAX: usize = 64;

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

/// Starts a core's thread.
pub(super) fn start(plan: WorkerPlan, listeners: Vec<Served>, options: CoreOptions) -> io::Result<Worker> {
    let (sender, mailbox) = net::mailbox(MAILBOX_MAX)?;
    let (tell_started, started) = oneshot::channel();
    let (tell_ended, ended) = oneshot::channel();
    let name = format!("core-{}", plan.cpu);
    let thread = thread::Builder::new().name(name).spawn(move || {
        run(&plan, listeners, options, mailbox, tell_started);
        let _ = tell_ended.send(());
    })?;
    Ok(Worker { mailbox: sender, started, ended, thread })
}

/// The thread, from its first to its last moment.
fn run(
    plan: &WorkerPlan,
    listeners: Vec<Served>,
    options: CoreOptions,
    mailbox: Mailbox<Message>,
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
        match Open::new(plan, listeners, mailbox, options) {
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
    core: Rc<Core>,
    listeners: Vec<Rc<Accepting>>,
    mailbox: OpenMailbox<Message>,
    ticker: Ticker,
}

/// One listener at work.
struct Accepting {
    listener: Listener,
    /// Its place in the table.
    place: usize,
    max_connections: usize,
    on_full: OnFull,
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
    fn new(
        plan: &WorkerPlan,
        listeners: Vec<Served>,
        mailbox: Mailbox<Message>,
        options: CoreOptions,
    ) -> io::Result<Self> {
        let listeners = listeners.into_iter().map(|(place, bound)| {
            Ok(Rc::new(Accepting {
                listener: Listener::new(bound)?,
                place,
                max_connections: plan.max_connections,
                on_full: plan.on_full,
                waker: RefCell::new(None),
                is_draining: Cell::new(false),
                rejecting: Cell::new(0),
            }))
        });
        Ok(Self {
            listeners: listeners.collect::<io::Result<_>>()?,
            mailbox: mailbox.open()?,
            ticker: Ticker::new(TICK_MS)?,
            core: Core::new(options),
        })
    }

    /// Serves until the drain is over.
    async fn serve(self) {
        let Self { core, listeners, mailbox, ticker } = self;
        let accepting = listeners.clone();
        for accepting in &listeners {
            net::spawn(accept(Rc::clone(&core), Rc::clone(accepting), Rc::new(listeners.clone())));
        }
        let drain_until_ms = Rc::new(Cell::new(None));
        net::spawn(read_mailbox(Rc::clone(&core), listeners, mailbox, Rc::clone(&drain_until_ms)));
        let mut number = 0;
        loop {
            if ticker.tick().await.is_err() {
                tracing::error!(core = core.worker, "the tick failed; the core ends");
                return;
            }
            number += 1;
            core.tick(number);
            let Some(until_ms) = drain_until_ms.get() else { continue };
            let late_ms = core.clock.now_ms().checked_sub(until_ms);
            if late_ms.is_some() {
                core.cut();
            }
            if is_drained(&core, &accepting) || late_ms.is_some_and(|late_ms| late_ms >= CUT_MS) {
                core.flush_log();
                return;
            }
        }
    }
}

/// How long exchanges that are cut may take to say so and to be written down.
const CUT_MS: u64 = 100;

/// Whether all is done: no connection is left, and none waits to be accepted.
fn is_drained(core: &Core, listeners: &[Rc<Accepting>]) -> bool {
    core.connections.get() == 0 && listeners.iter().all(|accepting| accepting.listener.is_closed())
}

async fn read_mailbox(
    core: Rc<Core>,
    listeners: Vec<Rc<Accepting>>,
    mailbox: OpenMailbox<Message>,
    drain_until_ms: Rc<Cell<Option<u64>>>,
) {
    loop {
        match mailbox.receive().await {
            Ok(Message::Drain { timeout_ms }) => {
                for accepting in &listeners {
                    accepting.drain();
                }
                core.drain();
                drain_until_ms.set(Some(core.clock.now_ms() + timeout_ms));
            }
            Ok(Message::Figures(answer)) => {
                // Who asked may have stopped waiting.
                let _ = answer.send(Box::new(core.figures()));
            }
            Err(error) => {
                tracing::error!(core = core.worker, %error, "the mailbox failed");
                return;
            }
        }
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
async fn accept(core: Rc<Core>, accepting: Rc<Accepting>, all: Rc<Vec<Rc<Accepting>>>) {
    let mut in_a_row = 0u32;
    loop {
        in_a_row = in_a_row.wrapping_add(1);
        if in_a_row.is_multiple_of(ACCEPTS_IN_A_ROW) {
            give_way().await;
        }
        if accepting.on_full == OnFull::Wait {
            room(&core, &accepting).await;
        }
        match next(&accepting).await {
            Ok(accepted) => take(&core, &accepting, &all, accepted),
            Err(_) if accepting.listener.is_closed() => return,
            Err(error) => {
                // Out of descriptors or memory, or a connection that was gone before it was taken.
                core.figures.borrow_mut().counters.accept_errors += 1;
                if !matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
                {
                    tracing::warn!(core = core.worker, %error, "cannot accept; resting");
                    rest(&core, ACCEPT_REST_MS).await;
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
struct Place {
    core: Rc<Core>,
    listeners: Rc<Vec<Rc<Accepting>>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        for accepting in self.listeners.iter() {
            if accepting.on_full == OnFull::Wait && accepting.is_full(&self.core) {
                accepting.wake();
            }
        }
        self.core.connections.set(self.core.connections.get() - 1);
    }
}

/// Serves a connection, or tells it that there is no room.
fn take(core: &Rc<Core>, accepting: &Rc<Accepting>, all: &Rc<Vec<Rc<Accepting>>>, accepted: Accepted) {
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
        host(core, all, peer, proxy::serve(Rc::clone(core), stream, peer, accepting.place));
    }
}

/// Gives a connection's task a place. Its panic is its own end only.
fn host(
    core: &Rc<Core>,
    all: &Rc<Vec<Rc<Accepting>>>,
    peer: SocketAddr,
    task: impl Future<Output = ()> + 'static,
) {
    core.connections.set(core.connections.get() + 1);
    let place = Place { core: Rc::clone(core), listeners: Rc::clone(all) };
    net::spawn(Hosted { task: guard(task), place, peer });
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
            let (core, peer) = (&this.place.core, this.peer);
            core.figures.borrow_mut().counters.panics += 1;
            tracing::error!(core = core.worker, %peer, "a connection's task panicked; the connection is closed");
        }
        Poll::Ready(())
    }
}

/// Tells a connection that there is no room for it.
fn reject(core: &Rc<Core>, accepting: &Rc<Accepting>, stream: Stream) {
    core.figures.borrow_mut().counters.connections_refused += 1;
    if accepting.rejecting.get() >= REJECTING_MAX {
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
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpStream,
    };

    use super::*;
    use crate::{config::types::DriverChoice, table};

    const CONFIG: &str = "
        [[listener]]
        name = 'public'
        address = '127.0.0.1:0'
        [[route]]
        name = 'here'
        respond = { body = 'still here' }
    ";

    /// A core with one listener, in which the task of a connection panics; what a client gets there after that.
    fn answer_after_a_panic(driver: DriverChoice) -> String {
        let config = toml::from_str(CONFIG).unwrap();
        let table = table::compile(&config, &mut |_, fault| panic!("{fault:?}")).unwrap();
        let [bound] =
            <[_; 1]>::try_from(net::bind("127.0.0.1:0".parse().unwrap(), 16, false, 1).unwrap()).unwrap();
        let address = bound.address;
        let client = thread::spawn(move || {
            let mut client = TcpStream::connect(address).unwrap();
            client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).unwrap();
            answer
        });
        let panics = net::run(driver, 256, 1024, |_| async {
            let core = Core::new(CoreOptions { worker: 0, workers: 1, seed: 0, log: None, table });
            let accepting = Rc::new(Accepting {
                listener: Listener::new(bound).unwrap(),
                place: 0,
                max_connections: 1,
                on_full: OnFull::Wait,
                waker: RefCell::new(None),
                is_draining: Cell::new(false),
                rejecting: Cell::new(0),
            });
            let all = Rc::new(vec![Rc::clone(&accepting)]);
            // It has the only place, so the client comes in only if the panic gives it back.
            host(&core, &all, address, async { panic!("on purpose, in a test") });
            assert_eq!(core.connections.get(), 1);
            net::spawn(accept(Rc::clone(&core), accepting, all));
            let ticker = Ticker::new(TICK_MS).unwrap();
            let mut number = 0;
            while core.figures().responses[1] == 0 || core.connections.get() > 0 {
                ticker.tick().await.unwrap();
                number += 1;
                core.tick(number);
                assert!(number < 1000, "no one was served in time");
            }
            core.figures().counters.panics
        });
        assert_eq!(panics.unwrap(), 1);
        client.join().unwrap()
    }

    #[test]
    fn a_panic_ends_one_connection_and_no_other() {
        for driver in [DriverChoice::Auto, DriverChoice::Epoll] {
            let answer = answer_after_a_panic(driver);
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("still here"), "{answer}");
        }
    }
}
