//! What is noted of an exchange while it lasts, and written down when it is over: figures and the access-log line.

use std::{
    net::{IpAddr, SocketAddr},
    rc::Rc,
};

use super::{
    connection::Connection,
    core::{Core, Log},
    error::Error,
    identity::Whose,
    outgoing::Progress,
    reply::{CLIENT_GONE, Reason, reply},
    seen::Outcome,
    tunnel::TunnelEnd,
};
use crate::{
    config::types::LogFormat,
    http::{field::FieldName, request::RequestHead, version::Version},
    policy::{
        concurrency::Permit,
        request_id::{REQUEST_ID_BYTES, uuid_v7},
        token::Claims,
    },
    table::Table,
    telemetry::{
        access::{AccessRecord, ClientCert, Phases},
        figures::Timeout,
    },
};

/// A request's id: made here, or a trusted peer's.
#[derive(Clone)]
pub(super) struct RequestId {
    /// One that is no longer than ours are.
    bytes: [u8; REQUEST_ID_BYTES],
    len: u8,
    /// A longer one, which hardly any request has: so the others are smaller.
    long: Option<Box<[u8]>>,
}

const _: () = assert!(REQUEST_ID_BYTES <= u8::MAX as usize);

impl RequestId {
    pub(super) fn none() -> Self {
        Self { bytes: [0; REQUEST_ID_BYTES], len: 0, long: None }
    }

    pub(super) fn make(&mut self, unix_ms: u64, rng: &mut fastrand::Rng) {
        self.adopt(&uuid_v7(unix_ms, rng));
    }

    /// Takes an id.
    pub(super) fn adopt(&mut self, id: &[u8]) {
        if let Some(short) = self.bytes.get_mut(..id.len()) {
            short.copy_from_slice(id);
            self.len = id.len() as u8;
            self.long = None;
        } else {
            self.long = Some(id.into());
        }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        match &self.long {
            Some(long) => long,
            None => &self.bytes[..usize::from(self.len)],
        }
    }
}

/// A request as its line tells it.
#[derive(Default)]
pub(super) struct Told<'t> {
    method: &'t [u8],
    host: &'t [u8],
    path: &'t [u8],
    user_agent: Option<&'t [u8]>,
    referer: Option<&'t [u8]>,
    is_http10: bool,
}

/// The same kept, in as little memory as that takes.
pub(super) struct Kept {
    /// Everything, in the order of [`Told`].
    text: Box<[u8]>,
    /// Where each of the first four ends.
    ends: [u32; 4],
    has_user_agent: bool,
    has_referer: bool,
    is_http10: bool,
}

impl Kept {
    pub(super) fn of(told: &Told<'_>) -> Self {
        let mut text = Vec::new();
        let mut ends = [0; 4];
        let parts = [told.method, told.host, told.path, told.user_agent.unwrap_or_default()];
        for (end, part) in ends.iter_mut().zip(parts) {
            text.extend_from_slice(part);
            *end = text.len() as u32;
        }
        text.extend_from_slice(told.referer.unwrap_or_default());
        Self {
            text: text.into(),
            ends,
            has_user_agent: told.user_agent.is_some(),
            has_referer: told.referer.is_some(),
            is_http10: told.is_http10,
        }
    }

    pub(super) fn told(&self) -> Told<'_> {
        let [method, host, path, agent] = self.ends.map(|end| end as usize);
        Told {
            method: &self.text[..method],
            host: &self.text[method..host],
            path: &self.text[host..path],
            user_agent: self.has_user_agent.then_some(&self.text[path..agent]),
            referer: self.has_referer.then_some(&self.text[agent..]),
            is_http10: self.is_http10,
        }
    }
}

/// What a rate limit has to say of a request; of several, the one with the least left.
#[derive(Clone, Copy)]
pub(super) struct Quota {
    /// An index of the table's policies.
    pub(super) policy: u32,
    /// Permits.
    pub(super) left: u32,
    /// Until all are there again.
    pub(super) full_s: u32,
    /// Until the request would pass; 0: it has passed.
    pub(super) retry_s: u32,
    /// Whether it is the consumer's own limit.
    pub(super) is_own: bool,
}

impl Quota {
    pub(super) fn is_exceeded(&self) -> bool {
        self.retry_s > 0
    }
}

/// What is noted of an exchange.
pub(super) struct Record {
    pub(super) began_us: u64,
    pub(super) id: RequestId,
    pub(super) client: IpAddr,
    /// Whether the head was understood, so that its parts can be named.
    pub(super) is_understood: bool,
    /// Whether the path as sent is the canonical one; else it is in the scratch space.
    pub(super) is_canonical: bool,
    pub(super) route: Option<usize>,
    /// Its policies: an index of the table's chains.
    pub(super) chain: u32,
    /// Whose key it shows.
    pub(super) consumer: Option<Whose>,
    /// The user whose password it shows.
    pub(super) user: Option<Rc<str>>,
    /// What the token that it shows says.
    pub(super) claims: Option<Rc<Claims>>,
    /// What is left to who asks.
    pub(super) quota: Option<Quota>,
    /// Of limits of what is under way at once: they come home with it, or with the tunnel that it becomes.
    pub(super) permits: Vec<Permit>,
    pub(super) cluster: Option<usize>,
    /// The endpoint last tried: its place in the cluster.
    endpoint: Option<usize>,
    tries: u32,
    was_idle: bool,
    status: u16,
    /// Whether a final response's head is out.
    pub(super) is_answered: bool,
    /// Whether only the connection's end tells the client where the response ends.
    pub(super) ends_with_close: bool,
    pub(super) received: u64,
    pub(super) sent: u64,
    error: Option<Error>,
    end: Option<Reason>,
    tried_us: u64,
    sent_us: u64,
    response_us: u64,
    connect_us: u64,
}

impl Record {
    pub(super) fn begin(began_us: u64, peer: SocketAddr) -> Self {
        Self {
            began_us,
            id: RequestId::none(),
            client: peer.ip(),
            is_understood: false,
            is_canonical: true,
            route: None,
            chain: 0,
            consumer: None,
            user: None,
            claims: None,
            quota: None,
            permits: Vec::new(),
            cluster: None,
            endpoint: None,
            tries: 0,
            was_idle: false,
            status: CLIENT_GONE,
            is_answered: false,
            ends_with_close: false,
            received: 0,
            sent: 0,
            error: None,
            end: None,
            tried_us: 0,
            sent_us: 0,
            response_us: 0,
            connect_us: 0,
        }
    }

    /// An endpoint was picked.
    pub(super) fn on_try(&mut self, core: &Core, place: usize, number: usize) {
        self.tries += 1;
        self.tried_us = 0;
        self.endpoint = Some(place);
        self.sent_us = 0;
        let mut figures = core.figures.borrow_mut();
        figures.counters.retries += u64::from(self.tries > 1);
        if let Some(endpoint) = figures.endpoints.get_mut(number) {
            endpoint.requests += 1;
        }
    }

    /// A connection is about to be opened, or waited for.
    pub(super) fn on_wait(&mut self, core: &Core) {
        self.tried_us = core.clock.turn_us();
    }

    /// There is none after all. What was waited is not the gateway's own time.
    pub(super) fn on_no_connection(&mut self, core: &Core) {
        if self.tried_us != 0 {
            self.connect_us += core.clock.turn_us().saturating_sub(self.tried_us);
            self.tried_us = 0;
        }
    }

    /// There is a connection; the request goes out.
    pub(super) fn on_connection(&mut self, core: &Core, was_idle: bool) {
        self.was_idle = was_idle;
        self.sent_us = core.clock.turn_us();
        if self.tried_us != 0 {
            let waited_us = self.sent_us.saturating_sub(self.tried_us);
            self.connect_us += waited_us;
            if !was_idle {
                core.figures.borrow_mut().connect_us.record(waited_us);
            }
        }
    }

    /// A final response's head came.
    pub(super) fn on_response_head(&mut self, core: &Core, endpoint: usize, status: u16) {
        self.response_us = core.clock.turn_us();
        let waited_us = self.response_us.saturating_sub(self.sent_us);
        core.figures.borrow_mut().on_response_head(endpoint, status, waited_us);
    }

    /// A final response's head goes to the client.
    pub(super) fn on_answer(&mut self, status: u16) {
        self.status = status;
        self.is_answered = true;
    }

    /// The request's side of a try is over.
    pub(super) fn on_request_side(&mut self, progress: &Progress) {
        self.received += progress.received.get();
    }

    /// The exchange failed. Until a response is out, the answer is still to come.
    pub(super) fn on_error(&mut self, error: Error) {
        self.error = Some(error);
        self.end = Some(reply(error).reason);
    }

    /// An upgraded connection ended.
    pub(super) fn on_tunnel_end(&mut self, end: TunnelEnd, up: u64, down: u64) {
        self.received += up;
        self.sent += down;
        match end {
            TunnelEnd::Closed => {}
            TunnelEnd::Broken => self.end = Some(Reason::TunnelBroken),
            TunnelEnd::Idle => self.end = Some(Reason::TunnelIdle),
            TunnelEnd::Aged => self.end = Some(Reason::TunnelAged),
            TunnelEnd::Drained => self.end = Some(Reason::Drained),
            TunnelEnd::NoBuffer => self.end = Some(Reason::NoBuffer),
        }
    }

    /// What is told of a request. `path` is the canonical one, if it is not as sent; `bytes` are what the head's extents are about.
    pub(super) fn told<'t>(&self, head: &RequestHead, path: &'t [u8], bytes: &'t [u8]) -> Told<'t> {
        let canonical = |as_sent| if self.is_canonical { as_sent } else { path };
        if !self.is_understood {
            return Told { path: canonical(b""), ..Told::default() };
        }
        let field = |name| head.fields.find(name).map(|field| field.value_at.bytes(bytes));
        Told {
            method: head.method_at.bytes(bytes),
            host: head.authority.bytes(bytes),
            path: canonical(head.path.bytes(bytes)),
            user_agent: field(FieldName::UserAgent),
            // Without its query, as little as the request's own: it may hold secrets.
            referer: field(FieldName::Referer)
                .and_then(|referer| referer.split(|byte| matches!(byte, b'?' | b'#')).next()),
            is_http10: head.version == Version::Http10,
        }
    }

    /// What came of it.
    pub(super) fn outcome(&self, core: &Core) -> Outcome {
        Outcome {
            status: self.status,
            end: self.end.map_or("ok", Reason::kind),
            milliseconds: core.clock.turn_us().saturating_sub(self.began_us) / 1000,
        }
    }

    /// Counts the exchange and writes its line, if `told` gives what it tells.
    pub(super) fn finish<'t>(
        &self,
        core: &Core,
        table: &Table,
        told: impl FnOnce() -> Option<Told<'t>>,
        connection: &Connection,
    ) {
        let now_us = core.clock.turn_us();
        self.count(core, now_us);
        let mut log = core.log.borrow_mut();
        let Some(Log { batcher, dates, format }) = log.as_mut() else { return };
        let Some(Told { method, host, path, user_agent, referer, is_http10 }) = told() else { return };
        let endpoint =
            self.cluster.zip(self.endpoint).map(|(cluster, at)| &table.clusters[cluster].endpoints[at]);
        let session = connection.stream.session();
        let peer = session.and_then(|session| session.peer.as_ref());
        let record = AccessRecord {
            time_us: core.clock.unix_us(self.began_us),
            client: self.client,
            client_port: connection.ends.peer.port(),
            method,
            host,
            path,
            version: match (connection.is_stream, is_http10) {
                (true, _) => "2",
                (false, true) => "1.0",
                (false, false) => "1.1",
            },
            status: self.status,
            received_bytes: self.received,
            sent_bytes: self.sent,
            route: self.route.map(|route| &*table.routes[route].name),
            cluster: self.cluster.map(|cluster| &*table.clusters[cluster].name),
            endpoint: endpoint.map(|endpoint| &*endpoint.text),
            tries: self.tries,
            core: core.worker as u32,
            request_id: self.id.as_bytes(),
            user_agent,
            referer,
            phases: self.phases(now_us),
            reused: self.was_idle,
            tls: session.map(|session| session.version),
            client_cert: peer.map(|peer| ClientCert {
                fingerprint: &peer.fingerprint_hex,
                subject: &peer.subject,
                names: &peer.all_names,
            }),
            consumer: self.consumer.as_ref().map(Whose::name),
            subject: self.claims.as_ref().and_then(|claims| claims.subject()).or(self.user.as_deref()),
            end: self.end.map_or("ok", Reason::kind),
        };
        batcher.line(|line| match format {
            LogFormat::Json => record.write_json(dates, line),
            LogFormat::Combined => record.write_combined(dates, line),
            LogFormat::Off => {}
        });
    }

    fn count(&self, core: &Core, now_us: u64) {
        let mut figures = core.figures.borrow_mut();
        let status = (self.status != CLIENT_GONE).then_some(self.status);
        figures.on_exchange(self.route, status, now_us.saturating_sub(self.began_us));
        if let Some(reason) = self.end {
            figures.on_refusal(reason as u8);
            figures.counters.clients_gone += u64::from(reason == Reason::ClientGone);
        }
        let tunnel_idle = (self.end == Some(Reason::TunnelIdle)).then_some(Timeout::TunnelIdle);
        if let Some(timeout) = self.error.and_then(timeout_of).or(tunnel_idle) {
            figures.on_timeout(timeout);
        }
    }

    fn phases(&self, now_us: u64) -> Phases {
        let sent_us = if self.sent_us == 0 { now_us } else { self.sent_us };
        let response_us = if self.response_us == 0 { now_us } else { self.response_us };
        Phases {
            total: now_us.saturating_sub(self.began_us),
            gateway: sent_us.saturating_sub(self.began_us).saturating_sub(self.connect_us),
            connect: self.connect_us,
            first_byte: if self.sent_us == 0 { 0 } else { response_us.saturating_sub(sent_us) },
            body: now_us.saturating_sub(response_us),
        }
    }
}

/// The deadline that a failure is about.
fn timeout_of(error: Error) -> Option<Timeout> {
    Some(match error {
        Error::HeadTimeout => Timeout::Head,
        Error::BodyTimeout => Timeout::BodyIdle,
        Error::WriteStall => Timeout::WriteStall,
        Error::QueueTimeout => Timeout::Queue,
        Error::ConnectTimeout => Timeout::Connect,
        Error::FirstByteTimeout => Timeout::FirstByte,
        Error::UpstreamStall | Error::ResponseIdle => Timeout::UpstreamIdle,
        Error::ExchangeTimeout => Timeout::Exchange,
        _ => return None,
    })
}
