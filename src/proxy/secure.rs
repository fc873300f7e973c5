//! What a core speaks TLS with, and the handshakes, each in its time. What a handshake says is [`crate::tls`]'s business.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::Poll,
};

use rustls::{ClientConfig, ServerConfig};

use super::{
    connection::{Connection, DRAIN_IDLE_MS, Ends},
    core::Core,
    error::Error,
    exchange::Target,
};
use crate::{
    buf::Buf,
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

    /// Whether a request for `host` came over a connection that was made for another certificate, be that host's this listener's
    /// or another's.
    pub(super) fn is_misdirected(&self, listener: usize, session: &Session, host: &[u8]) -> bool {
        let served = self.listeners[listener].borrow();
        let (Some(served), Some(asked)) = (served.as_ref(), session.server_name.as_deref()) else {
            return false;
        };
        // The ordinary case, without a look into any table.
        if asked.as_bytes().eq_ignore_ascii_case(host) {
            return false;
        }
        let Ok(host) = std::str::from_utf8(host) else { return true };
        served.tls.is_misdirected(Some(asked), host)
            || (!served.tls.is_for(host) && self.has_other_for(listener, host))
    }

    /// Whether another listener has a certificate for `host`.
    fn has_other_for(&self, listener: usize, host: &str) -> bool {
        let is_for = |other: &RefCell<Option<Served>>| {
            other.borrow().as_ref().is_some_and(|served| served.tls.is_for(host))
        };
        self.listeners.iter().enumerate().any(|(at, other)| at != listener && is_for(other))
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

/// A core's handshakes under way. What they compute is bounded by [`tls::accept`]'s steps per turn; of those that only wait
/// for their client, too many shorten the time that each further one has, so that silent ones make room for others.
pub(super) struct Handshakes {
    max: usize,
    under_way: Cell<usize>,
}

/// Time for a handshake when there are too many. A client that is there needs less.
const CROWDED_MS: u64 = 1000;

impl Handshakes {
    pub(super) fn new(max: usize) -> Self {
        Self { max, under_way: Cell::new(0) }
    }

    /// Counts one more, and says how long it may take at most.
    fn begin(&self, limit_ms: u64) -> (UnderWay<'_>, u64) {
        let is_crowded = self.under_way.get() >= self.max;
        self.under_way.set(self.under_way.get() + 1);
        let limit_ms = match limit_ms {
            0 if is_crowded => CROWDED_MS,
            limit_ms if is_crowded => limit_ms.min(CROWDED_MS),
            limit_ms => limit_ms,
        };
        (UnderWay(self), limit_ms)
    }
}

struct UnderWay<'h>(&'h Handshakes);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.set(self.0.under_way.get() - 1);
    }
}

/// Brings a client's connection behind its handshake, whose beginning may have come already; `None` when it does not come so
/// far. `spent_ms`: what is gone of its time.
pub(super) async fn accept(
    core: Rc<Core>,
    socket: net::Stream,
    ends: Ends,
    listener: usize,
    deadline: Deadline,
    (early, spent_ms): (Option<Buf>, u64),
) -> Option<Box<Connection>> {
    let generation = core.generation();
    let limit_ms = match generation.table.listeners[listener].timeouts.handshake_ms {
        // No limit.
        0 => 0,
        limit_ms => limit_ms.saturating_sub(spent_ms).max(1),
    };
    let shaken = match generation.secrets.served(listener) {
        Some(served) => {
            in_its_time(&core, &deadline, limit_ms, tls::accept(socket, served.config, early)).await
        }
        None => None,
    };
    let mut figures = core.figures.borrow_mut();
    match shaken {
        Some(Ok(stream)) => {
            let is_resumed = stream.session().is_some_and(|session| session.is_resumed);
            figures.counters.handshakes += 1;
            figures.counters.handshakes_resumed += u64::from(is_resumed);
            drop(figures);
            Some(Box::new(Connection::new(core, stream, ends, listener, deadline)))
        }
        failed => {
            figures.counters.handshakes_failed += 1;
            if let Some(Err(error)) = failed {
                drop(figures);
                if core.may_complain() {
                    let peer = ends.peer;
                    tracing::info!(core = core.worker, %peer, %error, "a client's handshake failed");
                }
            }
            None
        }
    }
}

/// Waits for what a client says before its first request, as long as it may take; `None` when it is late. There may be so many
/// such waits at once that they get less time.
pub(super) async fn in_its_time<T>(
    core: &Core,
    deadline: &Deadline,
    limit_ms: u64,
    said: impl Future<Output = T>,
) -> Option<T> {
    let (_under_way, limit_ms) = core.handshakes.begin(limit_ms);
    deadline.set(Timer::Request, limit_ms);
    let mut said = pin!(said);
    let mut was_told = false;
    let said = poll_fn(|cx| {
        deadline.wake_with(cx.waker());
        if let Poll::Ready(said) = said.as_mut().poll(cx) {
            return Poll::Ready(Some(said));
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
    .await;
    deadline.clear(Timer::Request);
    said
}

/// Greets an endpoint, if its cluster speaks TLS.
pub(super) async fn connect(
    core: &Core,
    socket: net::Stream,
    secrets: &Secrets,
    target: Target<'_>,
) -> Result<Stream, Error> {
    let Some(tls) = &target.cluster.tls else { return Ok(Stream::plain(socket)) };
    let (Some(config), Some(name)) = (secrets.greeting(target.cluster_id), tls.server_name(target.at)) else {
        return Err(Error::UpstreamTls);
    };
    // On the heap, so that exchanges over connections that are there, or plain, need no room for it.
    Box::pin(tls::connect(socket, config, name.clone())).await.map_err(|error| {
        if core.may_complain() {
            let endpoint = &target.cluster.endpoints[target.at].text;
            tracing::warn!(core = core.worker, %endpoint, %error, "no TLS with an endpoint");
        }
        of_handshake(&error)
    })
}

/// What a failure to shake hands with an endpoint is to the exchange.
fn of_handshake(error: &HandshakeError) -> Error {
    match error {
        HandshakeError::Tls(rustls::Error::InvalidCertificate(_)) => Error::UpstreamCertificate,
        HandshakeError::Io(error) if error.kind() == std::io::ErrorKind::OutOfMemory => Error::NoBuffer,
        HandshakeError::Tls(_)
        | HandshakeError::PlainHttp
        | HandshakeError::TooLong
        | HandshakeError::Io(_)
        | HandshakeError::Gone => Error::UpstreamTls,
    }
}
