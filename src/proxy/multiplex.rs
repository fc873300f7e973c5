//! A client's connection by HTTP/2: its streams are served like connections of their own, each by a task, while this one does
//! the I/O for all of them. What a request is worth is decided elsewhere, as ever.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    task::{Poll, Waker},
};

use super::{
    connection::{Connection, DRAIN_IDLE_MS, serve_requests},
    core::Core,
    guard::guard,
};
use crate::{
    clock::{Deadline, Timer},
    http2::{Downstream, DownstreamLimits, Io},
    net,
    table::Listener,
    telemetry::figures::Timeout,
    tls::Stream,
};

/// How long a connection that takes no further requests may take to end, once its streams have.
const CLOSE_MS: u64 = 2000;

/// Responses broken off by a client before it is asked whether they are most of all.
const BROKEN_MIN: u64 = 128;

/// The streams under way.
#[derive(Default)]
struct Streams {
    open: Cell<usize>,
    /// The connection's task.
    waker: RefCell<Option<Waker>>,
}

/// One of them.
struct Open(Rc<Streams>);

impl Open {
    fn new(streams: &Rc<Streams>) -> Self {
        streams.open.set(streams.open.get() + 1);
        Self(Rc::clone(streams))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
        if self.0.open.get() == 0
            && let Some(waker) = self.0.waker.borrow_mut().take()
        {
            waker.wake();
        }
    }
}

/// Serves a connection's streams until it ends.
pub(super) async fn serve(connection: Connection) {
    let Connection { core, stream, ends, listener, deadline, inbox, .. } = connection;
    let generation = core.generation();
    let rules = &generation.table.listeners[listener];
    let session = stream.session().cloned();
    let Some(mut downstream) = greet(Io::new(stream, inbox), rules, &deadline).await else { return };
    let streams = Rc::<Streams>::default();
    let born_ms = core.clock.now_ms();
    let mut life = Life { requests: 0, born_ms, is_closing: false, is_idle: false };
    while let Some(accepted) = poll_fn(|cx| {
        deadline.wake_with(cx.waker());
        *streams.waker.borrow_mut() = Some(cx.waker().clone());
        loop {
            if let Poll::Ready(next) = downstream.poll_request(streams.open.get(), &deadline, cx) {
                return Poll::Ready(next);
            }
            match life.look(&core, rules, &deadline, &streams, downstream.broken()) {
                Look::Wait => return Poll::Pending,
                // It is said in the next poll.
                Look::ShutDown => downstream.shut_down(),
                Look::End => return Poll::Ready(None),
            }
        }
    })
    .await
    {
        life.requests += 1;
        let stream = Stream::other(accepted.rx, accepted.tx, session.clone());
        let deadline = core.deadlines.register();
        let served = Box::new(Connection::of_stream(Rc::clone(&core), stream, ends, listener, deadline));
        let (core, open, peer) = (Rc::clone(&core), Open::new(&streams), ends.peer);
        net::spawn(async move {
            if guard(serve_requests(served)).await.is_err() {
                core.figures.borrow_mut().counters.panics += 1;
                tracing::error!(core = core.worker, %peer, "a stream's task panicked; the stream is reset");
            }
            drop(open);
        });
    }
    drop(downstream);
    // They see that their connection has gone.
    poll_fn(|cx| {
        *streams.waker.borrow_mut() = Some(cx.waker().clone());
        if streams.open.get() == 0 { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

async fn greet(io: Io, rules: &Listener, deadline: &Deadline) -> Option<Downstream> {
    let limits = DownstreamLimits {
        streams: rules.http2.streams,
        head_bytes: rules.head.head_bytes as u32,
        stream_window: rules.http2.stream_window,
        connection_window: rules.http2.connection_window,
    };
    deadline.set(Timer::Request, rules.timeouts.head_ms);
    let mut accepting = pin!(Downstream::accept(io, &limits, deadline));
    let accepted = poll_fn(|cx| {
        deadline.wake_with(cx.waker());
        match accepting.as_mut().poll(cx) {
            Poll::Ready(accepted) => Poll::Ready(accepted.ok()),
            Poll::Pending if deadline.has_expired(Timer::Request) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await;
    deadline.clear(Timer::Request);
    accepted
}

/// How long a connection goes on.
struct Life {
    requests: u64,
    born_ms: u64,
    /// It takes no further requests.
    is_closing: bool,
    /// No stream is open, and the time is counted.
    is_idle: bool,
}

enum Look {
    Wait,
    ShutDown,
    End,
}

impl Life {
    fn look(
        &mut self,
        core: &Core,
        rules: &Listener,
        deadline: &Deadline,
        streams: &Streams,
        broken: u64,
    ) -> Look {
        // Most of what it asks for it does not want: its endpoints shall not pay for that any longer.
        let is_flood = broken > BROKEN_MIN && broken * 2 > self.requests;
        if !self.is_closing && (is_flood || self.is_over(core, rules)) {
            self.is_closing = true;
            self.is_idle = false;
            return Look::ShutDown;
        }
        if streams.open.get() > 0 {
            if std::mem::take(&mut self.is_idle) {
                deadline.clear(Timer::Request);
            }
            return Look::Wait;
        }
        if !std::mem::replace(&mut self.is_idle, true) {
            let limit_ms = match (self.is_closing, core.is_draining()) {
                (true, true) => DRAIN_IDLE_MS,
                (true, false) => CLOSE_MS,
                (false, _) => rules.timeouts.keep_alive_ms,
            };
            deadline.set(Timer::Request, limit_ms);
            return Look::Wait;
        }
        if !deadline.has_expired(Timer::Request) {
            return Look::Wait;
        }
        if self.is_closing {
            return Look::End;
        }
        core.figures.borrow_mut().on_timeout(Timeout::KeepAlive);
        self.is_closing = true;
        self.is_idle = false;
        Look::ShutDown
    }

    /// Whether no further request is wanted.
    fn is_over(&self, core: &Core, rules: &Listener) -> bool {
        let age_max_ms = rules.timeouts.connection_age_ms;
        core.is_draining()
            || (rules.requests_per_connection > 0 && self.requests >= rules.requests_per_connection)
            || (age_max_ms > 0 && core.clock.now_ms().saturating_sub(self.born_ms) >= age_max_ms)
    }
}
