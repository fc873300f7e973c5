//! What a core speaks TLS with, and the handshakes: so many at once, each in its time, the others in the order in which they
//! came. What a handshake says is [`crate::tls`]'s business.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::{Poll, Waker},
};

use rustls::{ClientConfig, ServerConfig};

use super::{
    connection::{Connection, DRAIN_IDLE_MS},
    core::Core,
    error::Error,
    exchange::Target,
};
use crate::{
    clock::{Deadline, Timer},
    net,
    table::Table,
    telemetry::figures::Timeout,
    tls::{self, ClientTls, HandshakeError, ServerTls, Session, Stream, TicketKeys},
};

/// What the listeners and clusters of a generation speak TLS with, on one core.
pub(super) struct Secrets {
    listeners: Vec<RefCell<Option<Served>>>,
    clusters: Vec<RefCell<Option<Arc<ClientConfig>>>>,
}

/// What a listener serves with.
#[derive(Clone)]
pub(super) struct Served {
    pub(super) tls: Arc<ServerTls>,
    config: Arc<ServerConfig>,
}

impl Served {
    fn new(tls: &Arc<ServerTls>, tickets: &TicketKeys) -> Result<Self, rustls::Error> {
        Ok(Self { tls: Arc::clone(tls), config: tls.config(tickets)? })
    }
}

impl Secrets {
    pub(super) fn new(table: &Table, tickets: &TicketKeys) -> Result<Self, rustls::Error> {
        let served = |tls: &Arc<ServerTls>| Served::new(tls, tickets);
        let listeners = table.listeners.iter().map(|listener| listener.tls.as_ref().map(served).transpose());
        let config = |tls: &Arc<ClientTls>| tls.config();
        let clusters = table.clusters.iter().map(|cluster| cluster.tls.as_ref().map(config).transpose());
        Ok(Self {
            listeners: listeners.map(|served| served.map(RefCell::new)).collect::<Result<_, _>>()?,
            clusters: clusters.map(|config| config.map(RefCell::new)).collect::<Result<_, _>>()?,
        })
    }

    /// What a listener serves with now, by its place in the table.
    pub(super) fn served(&self, listener: usize) -> Option<Served> {
        self.listeners[listener].borrow().clone()
    }

    /// Whether a request for `host` came over a connection that was made for another certificate.
    pub(super) fn is_misdirected(&self, listener: usize, session: &Session, host: &[u8]) -> bool {
        let served = self.listeners[listener].borrow();
        let asked = session.server_name.as_deref();
        served.as_ref().is_some_and(|served| {
            std::str::from_utf8(host).map_or(true, |host| served.tls.is_misdirected(asked, host))
        })
    }

    /// What a cluster's endpoints are greeted with, by its place in the table.
    fn greeting(&self, cluster: usize) -> Option<Arc<ClientConfig>> {
        self.clusters[cluster].borrow().clone()
    }

    /// New tickets' keys, for all listeners.
    pub(super) fn renew_tickets(&self, tickets: &TicketKeys) -> Result<(), rustls::Error> {
        for listener in &self.listeners {
            let mut served = listener.borrow_mut();
            if let Some(served) = served.as_mut() {
                served.config = served.tls.config(tickets)?;
            }
        }
        Ok(())
    }

    /// Another set of certificates, for one listener.
    pub(super) fn renew_listener(
        &self,
        listener: usize,
        tls: &Arc<ServerTls>,
        tickets: &TicketKeys,
    ) -> Result<(), rustls::Error> {
        if let Some(slot) = self.listeners.get(listener) {
            *slot.borrow_mut() = Some(Served::new(tls, tickets)?);
        }
        Ok(())
    }

    /// Other authorities, or another certificate, for one cluster.
    pub(super) fn renew_cluster(&self, cluster: usize, tls: &ClientTls) -> Result<(), rustls::Error> {
        if let Some(slot) = self.clusters.get(cluster) {
            *slot.borrow_mut() = Some(tls.config()?);
        }
        Ok(())
    }
}

/// A core's handshakes under way.
pub(super) struct Handshakes {
    max: usize,
    under_way: Cell<usize>,
    waiting: RefCell<VecDeque<Rc<Waiter>>>,
}

#[derive(Default)]
struct Waiter {
    waker: RefCell<Option<Waker>>,
    is_next: Cell<bool>,
    has_left: Cell<bool>,
}

impl Handshakes {
    pub(super) fn new(max: usize) -> Self {
        Self { max, under_way: Cell::new(0), waiting: RefCell::default() }
    }

    /// Waits for a place, which is held as long as the guard lives.
    async fn place(&self) -> Place<'_> {
        if self.under_way.get() < self.max {
            self.under_way.set(self.under_way.get() + 1);
            return Place(self);
        }
        let waiter = Rc::new(Waiter::default());
        self.waiting.borrow_mut().push_back(Rc::clone(&waiter));
        let mut leaving = Leaving { handshakes: self, waiter: Some(waiter) };
        poll_fn(|cx| {
            let Some(waiter) = leaving.waiter.as_ref() else { return Poll::Pending };
            if waiter.is_next.get() {
                leaving.waiter = None;
                return Poll::Ready(Place(self));
            }
            *waiter.waker.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// A place is free: the first who waits has it.
    fn give_on(&self) {
        while let Some(waiter) = self.waiting.borrow_mut().pop_front() {
            if waiter.has_left.get() {
                continue;
            }
            waiter.is_next.set(true);
            if let Some(waker) = waiter.waker.borrow_mut().take() {
                waker.wake();
            }
            return;
        }
        self.under_way.set(self.under_way.get() - 1);
    }
}

/// A place among the handshakes under way.
struct Place<'h>(&'h Handshakes);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.give_on();
    }
}

/// Who waits no longer gives the place on that was his meanwhile.
struct Leaving<'h> {
    handshakes: &'h Handshakes,
    waiter: Option<Rc<Waiter>>,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        if let Some(waiter) = self.waiter.take() {
            waiter.has_left.set(true);
            if waiter.is_next.get() {
                self.handshakes.give_on();
            }
        }
    }
}

/// Brings a client's connection behind its handshake; `None` when it does not come so far.
pub(super) async fn accept(
    core: Rc<Core>,
    socket: net::Stream,
    peer: SocketAddr,
    listener: usize,
    deadline: Deadline,
) -> Option<Box<Connection>> {
    let generation = core.generation();
    deadline.set(Timer::Request, generation.table.listeners[listener].timeouts.handshake_ms);
    let shaken = {
        let mut shaking = pin!(async {
            let _place = core.handshakes.place().await;
            let served = generation.secrets.served(listener)?;
            Some(tls::accept(socket, served.config).await)
        });
        let mut was_told = false;
        poll_fn(|cx| {
            deadline.wake_with(cx.waker());
            if let Poll::Ready(shaken) = shaking.as_mut().poll(cx) {
                return Poll::Ready(shaken);
            }
            if core.is_draining() && !was_told {
                was_told = true;
                deadline.set(Timer::Request, DRAIN_IDLE_MS);
            }
            if deadline.has_expired(Timer::Request) {
                if !was_told {
                    core.figures.borrow_mut().on_timeout(Timeout::Handshake);
                }
                return Poll::Ready(None);
            }
            Poll::Pending
        })
        .await
    };
    deadline.clear(Timer::Request);
    let mut figures = core.figures.borrow_mut();
    match shaken {
        Some(Ok(stream)) => {
            let is_resumed = stream.session().is_some_and(|session| session.is_resumed);
            figures.counters.handshakes += 1;
            figures.counters.handshakes_resumed += u64::from(is_resumed);
            drop(figures);
            Some(Box::new(Connection::new(core, stream, peer, listener, deadline)))
        }
        failed => {
            figures.counters.handshakes_failed += 1;
            if let Some(Err(error)) = failed {
                tracing::debug!(core = core.worker, %peer, %error, "a client's handshake failed");
            }
            None
        }
    }
}

/// Greets an endpoint, if its cluster speaks TLS.
pub(super) async fn connect(
    socket: net::Stream,
    secrets: &Secrets,
    target: Target<'_>,
) -> Result<Stream, Error> {
    let Some(tls) = &target.cluster.tls else { return Ok(Stream::plain(socket)) };
    let (Some(config), Some(name)) = (secrets.greeting(target.cluster_id), tls.server_name(target.at)) else {
        return Err(Error::UpstreamTls);
    };
    // On the heap, so that exchanges over connections that are there, or plain, need no room for it.
    Box::pin(tls::connect(socket, config, name.clone())).await.map_err(|error| match error {
        HandshakeError::Tls(rustls::Error::InvalidCertificate(_)) => Error::UpstreamCertificate,
        HandshakeError::Io(error) if error.kind() == std::io::ErrorKind::OutOfMemory => Error::NoBuffer,
        HandshakeError::Tls(_)
        | HandshakeError::PlainHttp
        | HandshakeError::TooLong
        | HandshakeError::Io(_)
        | HandshakeError::Gone => Error::UpstreamTls,
    })
}
