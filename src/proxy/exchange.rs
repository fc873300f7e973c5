//! One request and its response: the table of contents of a request's life. Every branch of it is visible in
//! [`serve_request`] and [`relay`]; the helpers only do.
//!
//! head → canonical path → route → policies → endpoint → connection → request ⇄ response → release → log line

use std::{cell::OnceCell, rc::Rc};

use super::{
    acquire::acquire,
    aggregate::aggregate,
    answer::{answer, answer_with_https, refuse},
    attempt::{Failure, attempt},
    call::Inner,
    connection::{Connection, Request},
    consult::Waiting,
    core::{Core, Scratch},
    error::Error,
    facts::Facts,
    generation::{ClusterState, EndpointState, Generation},
    identity::Known,
    policies::{self, Preflight},
    record::{Kept, Record},
    relay::{Stall, settled},
    seen::Seen,
    tunnel::Notes,
};
use crate::{
    clock::Timer,
    config::types::{PathRules, UpstreamProtocol},
    expression::Expression,
    http::{
        body::BodyReader,
        field::FieldName,
        method::Method,
        path::{Canonical, PathError, canonicalize},
        request::{RequestHead, TargetForm},
        response::ResponseHead,
        version::Version,
    },
    policy::{forwarded, request_id},
    route::{Captures, Params},
    table::{Action, Attached, Cluster, Listener, NO_POLICIES, Route},
    upstream::health::Mode,
};

/// What becomes of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// It may bring another request.
    KeepAlive,
    /// It is closed.
    Close,
    /// It is something else now, and its tunnel is to be carried ([`super::tunnel::carry`]).
    Tunnel,
    /// It is closed once the client has read what was sent: there may be unread bytes of it.
    Linger,
}

/// Endpoints one request is offered to, at most.
const TRIES_MAX: usize = 5;

/// One exchange's surroundings.
pub(super) struct Exchange<'x> {
    pub(super) core: &'x Core,
    pub(super) generation: &'x Rc<Generation>,
    pub(super) listener: &'x Listener,
    pub(super) connection: &'x mut Connection,
    pub(super) record: &'x mut Record,
    /// Whether the client would have the connection live on, and the gateway too.
    pub(super) keep_alive: bool,
    pub(super) version: Version,
}

/// What is asked, and by which route it goes.
pub(super) struct Asked<'a> {
    pub(super) facts: Facts<'a>,
    pub(super) route: &'a Route,
    pub(super) captures: &'a Captures,
    /// What of the body came with the head, decoded.
    pub(super) payload: &'a [u8],
    /// What came behind the request: the next one, or an upgraded connection's first bytes.
    pub(super) rest: &'a [u8],
    pub(super) body: BodyReader,
    /// Whether the request is received to its last byte, and what follows it is kept: another one may come.
    pub(super) is_whole: bool,
    /// Scratch space.
    pub(super) text: &'a mut Vec<u8>,
    /// Scratch space.
    pub(super) lines: &'a mut Vec<u8>,
}

/// Serves one request whose head is complete, and writes down what came of it.
pub(super) async fn exchange(
    connection: &mut Connection,
    scratch: &mut Scratch,
    mut request: Request,
) -> Next {
    let core = Rc::clone(&connection.core);
    let under_way = core.begin_exchange();
    let generation = connection.generation();
    let listener = &generation.table.listeners[connection.listener];
    let mut record = Record::begin(request.began_us, connection.ends.peer);
    record.is_understood = true;

    // Behind a CONNECT that fails may come what was meant for the tunnel.
    let may_live_on = scratch.request.method != Method::Connect && connection.may_live_on(listener);
    let keep_alive = scratch.request.keep_alive && may_live_on;
    // The response before this one may still be on its way out: it comes first.
    let stall = Stall::after(listener.timeouts.write_stall_ms);
    let before = settled(&mut connection.stream.tx, &connection.deadline, Timer::Response, stall).await;
    let mut exchange = Exchange {
        core: &core,
        generation: &generation,
        listener,
        connection,
        record: &mut record,
        keep_alive,
        version: scratch.request.version,
    };
    let served = match before {
        Ok(()) => serve_request(&mut exchange, scratch, &mut request).await,
        Err(wait) => Err(Error::of_client(wait)),
    };
    let next = match served {
        Ok(next) => next,
        Err(error) => {
            let is_cut = error == Error::ExchangeTimeout && core.is_cutting();
            let error = if is_cut { Error::Drained } else { error };
            let keep_alive =
                exchange.keep_alive && !core.is_draining() && request.is_complete && !error.ends_connection();
            record.on_error(error);
            if let Some(inner) = &connection.inner {
                inner.on_error(error);
            }
            {
                let bytes = request.buf.filled();
                refuse(connection, &generation, scratch, &mut record, error, bytes, keep_alive).await
            }
        }
    };
    for timer in [Timer::Request, Timer::Response, Timer::Exchange] {
        connection.deadline.clear(timer);
    }
    let bytes = request.buf.filled();
    let Scratch { request: head, path, .. } = scratch;
    if let Some(tunnel) = &mut connection.tunnel {
        // It may last for long. What is written down in the end is kept, and no more of the exchange than that.
        let told = Kept::of(&record.told(head, path, bytes));
        tunnel.notes = Some(Notes { record, told, generation, _under_way: under_way });
        return Next::Tunnel;
    }
    let told = || {
        // What the gateway asks for itself is no one's request.
        if connection.inner.is_some() {
            return None;
        }
        let is_told = match &generation.table.log_when {
            None => true,
            Some(when) => is_told(when, &core, &generation, &record, (head, path, bytes), connection),
        };
        is_told.then(|| record.told(head, path, bytes))
    };
    record.finish(&core, &generation.table, told, connection);
    connection.keep_rest(request);
    next
}

/// Whether an exchange has its line in the log. What cannot be told of it is no reason to be silent.
#[cold]
fn is_told(
    when: &Expression,
    core: &Core,
    generation: &Generation,
    record: &Record,
    (head, path, bytes): (&RequestHead, &[u8], &[u8]),
    connection: &Connection,
) -> bool {
    let trusted = &generation.table.listeners[connection.listener].trusted;
    let as_sent = head.path.bytes(bytes);
    let (claims, known) = (OnceCell::new(), Known::default());
    let facts = Facts {
        is_secured: connection.stream.session().is_some(),
        is_stream: connection.is_stream,
        session: connection.stream.session().map(|session| &**session),
        bytes,
        head,
        path: match (record.is_canonical, as_sent) {
            (true, b"") => b"/",
            (true, as_sent) => as_sent,
            (false, _) => path,
        },
        peer: connection.ends.peer,
        client: record.client,
        is_trusted: forwarded::is_trusted(connection.ends.peer.ip(), trusted),
        id: record.id.as_bytes(),
        known: Some(&known),
        claims: Some(&claims),
        hidden: [None; 4],
        granted: None,
        hides: false,
        unix_us: core.clock.unix_us(record.began_us),
        failed: Some(&core.expressions_failed),
    };
    facts.know(record);
    let captures = Captures::default();
    let seen = Seen::new(&facts, Params::new(&[], &captures, b"")).over(record.outcome(core));
    facts.asked(|| when.holds(&seen)).unwrap_or(true)
}

/// The straight line.
async fn serve_request(
    x: &mut Exchange<'_>,
    scratch: &mut Scratch,
    request: &mut Request,
) -> Result<Next, Error> {
    let Scratch { request: head, response, captures, path, text, lines } = scratch;
    let (bytes, tail) = request.buf.filled_mut().split_at_mut(request.head_len);
    let bytes = &*bytes;
    let as_sent = head.path.bytes(bytes);
    let session = x.connection.stream.session().cloned();
    let (claims, granted, known) = (OnceCell::new(), OnceCell::new(), Known::default());
    let mut facts = Facts {
        is_secured: session.is_some(),
        is_stream: x.connection.is_stream,
        session: session.as_deref(),
        bytes,
        head,
        path: as_sent,
        peer: x.connection.ends.peer,
        client: x.connection.ends.peer.ip(),
        is_trusted: false,
        id: &[],
        known: Some(&known),
        claims: Some(&claims),
        hidden: [None; 4],
        granted: Some(&granted),
        hides: false,
        unix_us: x.core.clock.unix_us(x.record.began_us),
        failed: Some(&x.core.expressions_failed),
    };
    x.identify(&mut facts);
    let id = x.record.id.clone();
    facts.id = id.as_bytes();
    if x.core.is_cutting() {
        return Err(Error::Drained);
    }

    // What came of the body with the head, decoded where it lies; what follows it is the next request's.
    let mut body = BodyReader::request(head.body, u64::MAX);
    let taken = body.take(tail).map_err(Error::of_request_body)?;
    request.consumed = request.head_len + taken.consumed;
    request.is_complete = body.is_done();
    x.record.received = request.consumed as u64;
    let tail = &*tail;
    // While the request waits, what the client sends can only be its next one.
    let may_watch = request.is_complete && tail.len() == taken.consumed;

    // What the gateway says itself means what it says, whatever clients' paths mean on the listener.
    let own_rules;
    let rules = if x.connection.inner.is_none() {
        &x.listener.path
    } else {
        own_rules = PathRules::default();
        &own_rules
    };
    let canonical = canonical_path(head, as_sent, rules, path).map_err(Error::Path)?;
    x.record.is_canonical = canonical == Canonical::AsIs;
    facts.path = match canonical {
        Canonical::Written => path,
        Canonical::AsIs if as_sent.is_empty() => b"/",
        Canonical::AsIs => as_sent,
    };
    admit(&facts, x.listener)?;
    let table = &x.generation.table;
    let (found, Attached { route, chain }) = if let Some(inner) = &x.connection.inner {
        (None, inner.behalf.attached)
    } else {
        if let Some(session) = &session
            && x.generation.secrets.is_misdirected(x.connection.listener, session, facts.host())
        {
            return Err(Error::Misdirected);
        }
        if let Some(port) = x.listener.https_redirect {
            return answer_with_https(x, &facts, &body, port, lines).await;
        }
        x.record.chain = x.listener.chain;
        if x.listener.shares
            && let Some(asked) = Preflight::of(&facts)
            && let Some((found, policy, rule)) = asked.rule(table, x.listener, captures)
        {
            x.record.route = found.map(|found| x.listener.routes[found as usize].route as usize);
            return policies::answer(x, asked, policy, rule, &body, lines).await;
        }
        let Some(found) = x.listener.router.find(&facts, captures) else {
            let params = x.listener.router.params(None, captures, facts.path);
            let waiting = Waiting { is_done: body.is_done(), may_watch, lines };
            if let Some(next) = policies::admit(x, &mut facts, (x.listener.chain, params), waiting).await? {
                return Ok(next);
            }
            return Err(Error::NoRoute);
        };
        (Some(found), x.listener.routes[found as usize])
    };
    x.record.route = Some(route as usize);
    x.record.chain = chain;
    let route = &table.routes[route as usize];
    let params = x.listener.router.params(found, captures, facts.path);
    if chain != NO_POLICIES {
        let waiting = Waiting { is_done: body.is_done(), may_watch, lines };
        if let Some(next) = policies::admit(x, &mut facts, (chain, params), waiting).await? {
            return Ok(next);
        }
    }
    x.connection.deadline.set(Timer::Exchange, facts.timeout_ms(route.timeout_ms));
    body.limit_payload(route.body_bytes.unwrap_or(x.listener.body_bytes)).map_err(Error::of_request_body)?;

    let payload = &tail[..taken.payload];
    let rest = &tail[taken.consumed..];
    let is_whole = body.is_done();
    let mut asked = Asked { facts, route, captures, payload, rest, body, is_whole, text, lines };
    let next = match &route.action {
        Action::Redirect { .. } | Action::Respond { .. } => answer(x, &mut asked).await,
        // On the heap: few exchanges are of several, and others need no room for them.
        Action::Aggregate(all) => Box::pin(aggregate(x, &mut asked, all, params)).await,
        Action::Cluster(cluster) => relay(x, &mut asked, response, *cluster).await,
        Action::Split(split) => {
            let share = x.generation.splits[*split].borrow_mut().pick().ok_or(Error::NoEndpoint)?;
            relay(x, &mut asked, response, x.generation.table.splits[*split].clusters[share]).await
        }
    };
    request.is_complete = asked.is_whole;
    next
}

/// Refuses what no route may have: another scheme, and the methods that are refused by default.
#[inline]
pub(super) fn admit(facts: &Facts<'_>, listener: &Listener) -> Result<(), Error> {
    if facts.is_misdirected() {
        return Err(Error::Misdirected);
    }
    match facts.head.method {
        Method::Trace if !listener.allow_trace => Err(Error::MethodNotAllowed),
        Method::Connect if !listener.allow_connect => Err(Error::MethodNotAllowed),
        _ => Ok(()),
    }
}

/// The one form of the target's path, in `out` if it is not the one sent.
#[inline]
pub(super) fn canonical_path(
    head: &RequestHead,
    as_sent: &[u8],
    rules: &PathRules,
    out: &mut Vec<u8>,
) -> Result<Canonical, PathError> {
    match head.target {
        TargetForm::Origin | TargetForm::Absolute => canonicalize(as_sent, rules, out),
        TargetForm::Asterisk => {
            // The whole server, not its root (RFC 9112 §3.2.4): no pattern of a path takes it.
            out.clear();
            out.push(b'*');
            Ok(Canonical::Written)
        }
        TargetForm::Authority => Ok(Canonical::AsIs),
    }
}

/// Offers the request to endpoints until one answers.
async fn relay(
    x: &mut Exchange<'_>,
    asked: &mut Asked<'_>,
    response: &mut ResponseHead,
    cluster_id: usize,
) -> Result<Next, Error> {
    let generation = x.generation;
    let (cluster, state) = (&generation.table.clusters[cluster_id], &generation.clusters[cluster_id]);
    x.record.cluster = Some(cluster_id);
    if cluster.protocol != UpstreamProtocol::Http1 && asked.facts.head.method == Method::Connect {
        return Err(Error::MethodNotAllowed);
    }
    let mut tried = Tried::default();
    let mut error = Error::NoEndpoint;
    // The endpoint to try once more, on a fresh connection; or on the same, where it was only not willing.
    let mut again = None;
    let mut has_moved_on = false;
    loop {
        let is_second = again.is_some();
        let at = match again.take() {
            Some(same) => same,
            None => x.pick(cluster, state, &asked.facts, &tried).ok_or(error)?,
        };
        let target = Target { cluster_id, cluster, state, at };
        let _load = Load::on(target.endpoint());
        x.record.on_try(x.core, at, target.number());

        // While the request waits, what the client sends can only be its next one.
        let may_watch = asked.body.is_done() && asked.rest.is_empty();
        let needs_fresh = is_second && error != Error::UpstreamRefused;
        let (lease, was_idle) = match acquire(x, target, (is_second, needs_fresh), may_watch).await {
            Ok(acquired) => acquired,
            Err(
                failed @ (Error::Connect
                | Error::ConnectTimeout
                | Error::UpstreamTls
                | Error::UpstreamCertificate),
            ) => {
                // Nothing was sent: the next endpoint may have it, whatever the method.
                x.record.on_no_connection(x.core);
                x.on_endpoint_failure(target, true);
                error = failed;
                if !tried.add(at) {
                    return Err(error);
                }
                continue;
            }
            Err(failed) => return Err(failed),
        };
        x.record.on_connection(x.core, was_idle);

        match attempt(x, asked, response, target, lease).await {
            Ok(next) => return Ok(next),
            // It had been idle: its end says nothing of the endpoint.
            Err(Failure { is_repeatable: true, error: failed }) if was_idle && !is_second => {
                error = failed;
                again = Some(at);
            }
            Err(Failure { error: failed, is_repeatable }) => {
                if failed.is_endpoints() {
                    x.on_endpoint_failure(target, false);
                }
                error = failed;
                // A fresh one that dies is its endpoint's death: one other may have the request.
                if !is_repeatable || has_moved_on || !tried.add(at) {
                    return Err(error);
                }
                has_moved_on = true;
            }
        }
    }
}

/// Where a try goes.
#[derive(Clone, Copy)]
pub(super) struct Target<'t> {
    /// The cluster's place in the table.
    pub(super) cluster_id: usize,
    pub(super) cluster: &'t Cluster,
    pub(super) state: &'t ClusterState,
    /// The endpoint's place in the cluster.
    pub(super) at: usize,
}

impl Target<'_> {
    /// The endpoint's number among all.
    pub(super) fn number(&self) -> usize {
        self.cluster.first_endpoint + self.at
    }

    pub(super) fn endpoint(&self) -> &EndpointState {
        &self.state.endpoints[self.at]
    }
}

/// Endpoints that failed this request.
#[derive(Default)]
struct Tried {
    places: [usize; TRIES_MAX],
    count: usize,
}

impl Tried {
    /// Notes one; `false` when there have been enough.
    fn add(&mut self, at: usize) -> bool {
        self.places[self.count] = at;
        self.count += 1;
        self.count < TRIES_MAX
    }

    fn has(&self, at: usize) -> bool {
        self.places[..self.count].contains(&at)
    }
}

/// One exchange under way at an endpoint.
pub(super) struct Load<'e>(&'e EndpointState);

impl<'e> Load<'e> {
    pub(super) fn on(endpoint: &'e EndpointState) -> Self {
        endpoint.load.set(endpoint.load.get() + 1);
        Self(endpoint)
    }
}

impl Drop for Load<'_> {
    fn drop(&mut self) {
        self.0.load.set(self.0.load.get() - 1);
    }
}

impl Exchange<'_> {
    /// What becomes of the connection after the last response on it: a client that does not know yet may have sent on.
    pub(super) fn last(&self, asked: &Asked<'_>) -> Next {
        if asked.facts.head.keep_alive { Next::Linger } else { Next::Close }
    }

    /// Who asks, and by which id.
    fn identify(&mut self, facts: &mut Facts<'_>) {
        if let Some(Inner { behalf, .. }) = self.connection.inner.as_deref() {
            facts.is_trusted = behalf.is_trusted;
            facts.client = behalf.client;
            self.record.client = behalf.client;
            self.record.id.clone_from(&behalf.id);
            self.record.consumer.clone_from(&behalf.consumer);
            self.record.user.clone_from(&behalf.user);
            self.record.claims.clone_from(&behalf.claims);
            facts.know(self.record);
            return;
        }
        facts.is_trusted = forwarded::is_trusted(facts.client, &self.listener.trusted);
        if facts.is_trusted {
            let claimed = facts.values(FieldName::XForwardedFor);
            facts.client = forwarded::client_ip(facts.peer.ip(), claimed, &self.listener.trusted);
        }
        let claimed = if facts.is_trusted { facts.values(FieldName::XRequestId).next() } else { None };
        match claimed.filter(|id| request_id::is_acceptable(id)) {
            Some(id) => self.record.id.adopt(id),
            None => {
                let unix_ms = self.core.clock.unix_us(self.record.began_us) / 1000;
                self.record.id.make(unix_ms, &mut self.core.rng.borrow_mut());
            }
        }
        self.record.client = facts.client;
    }

    /// The endpoint to try: the one a cookie names, else the balancer's choice, of those not tried yet.
    fn pick(
        &self,
        cluster: &Cluster,
        state: &ClusterState,
        facts: &Facts<'_>,
        tried: &Tried,
    ) -> Option<usize> {
        let now_ms = self.core.clock.now_ms();
        let health = state.health.borrow();
        let panics = health.mode(now_ms) == Mode::Panic;
        let usable = |at: usize| !tried.has(at) && (panics || health.is_usable(at, now_ms));
        if panics {
            self.core.figures.borrow_mut().counters.panic_mode_picks += 1;
        }
        if let Some(at) = facts.sticky_endpoint(cluster).filter(|at| usable(*at)) {
            return Some(at);
        }
        let load = |at: usize| state.endpoints[at].load.get();
        let mut balancer = state.balancer.borrow_mut();
        let picked = balancer.pick(facts.hash(&cluster.hash_on), usable, load);
        // Ejected endpoints are better than none at all.
        picked.or_else(|| balancer.pick(facts.hash(&cluster.hash_on), |at| !tried.has(at), load))
    }

    pub(super) fn on_endpoint_failure(&self, target: Target<'_>, was_connecting: bool) {
        let ejected = target.state.health.borrow_mut().on_failure(target.at, self.core.clock.now_ms());
        let mut figures = self.core.figures.borrow_mut();
        figures.counters.connect_failures += u64::from(was_connecting);
        figures.counters.ejections += u64::from(ejected.is_some());
        if let Some(endpoint) = figures.endpoints.get_mut(target.number()) {
            endpoint.connect_failures += u64::from(was_connecting);
            endpoint.failures += u64::from(!was_connecting);
        }
    }

    /// A gateway's error from an endpoint means that it cannot do its work now.
    pub(super) fn on_endpoint_response(&self, target: Target<'_>, status: u16) {
        if matches!(status, 502..=504) {
            self.on_endpoint_failure(target, false);
        } else {
            target.state.health.borrow_mut().on_success(target.at, self.core.clock.now_ms());
        }
    }
}
