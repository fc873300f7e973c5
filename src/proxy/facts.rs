//! What is known of a request, in one place: for the router to match, for texts to be filled in, for keys to be hashed,
//! for the log. It borrows everything and decides nothing.

use std::{
    borrow::Cow,
    cell::{Cell, OnceCell},
    net::{IpAddr, SocketAddr},
    rc::Rc,
};

use super::{
    identity::{Known, Whose},
    record::Record,
    seen::Seen,
};
use crate::{
    expression::{Expression, Failed},
    http::{
        field::FieldName,
        method::Method,
        request::{RequestHead, TargetForm},
    },
    http2::is_grpc_web,
    policy::{
        authorize::Grant,
        cookie,
        credential::Place,
        grpc,
        template::{TlsVariable, Value, Variable, Variables},
        token::Claims,
    },
    route::{Captures, Params, RequestView, query_without},
    table::{Cluster, HashOn, Route},
    telemetry::text::{append_decimal, append_ip},
    tls::Session,
    upstream::balance::stable_hash,
};

/// Where credentials came that are not for the upstream to see: of each policy that asks for one.
pub(super) type Hidden<'f> = [Option<&'f Place>; 4];

/// A request as parsed.
#[derive(Clone, Copy)]
pub(super) struct Facts<'f> {
    /// Whether it came by TLS.
    pub(super) is_secured: bool,
    /// Whether it came by HTTP/2.
    pub(super) is_stream: bool,
    /// What the connection's handshake came to, if there was one.
    pub(super) session: Option<&'f Session>,
    /// The bytes that the head's extents are about.
    pub(super) bytes: &'f [u8],
    pub(super) head: &'f RequestHead,
    /// The canonical path; `/` when the target has none.
    pub(super) path: &'f [u8],
    /// Who is at the other end of the connection.
    pub(super) peer: SocketAddr,
    /// Whose request it is: the peer, or whom a trusted peer names.
    pub(super) client: IpAddr,
    /// Whether the peer's forwarding fields are believed.
    pub(super) is_trusted: bool,
    /// `X-Request-Id`.
    pub(super) id: &'f [u8],
    /// Who asks, as far as it is known.
    pub(super) known: Option<&'f Known>,
    /// What the token that it shows says.
    pub(super) claims: Option<&'f OnceCell<Rc<Claims>>>,
    /// What is not for the upstream to see.
    pub(super) hidden: Hidden<'f>,
    /// What someone who was asked has the upstream told.
    pub(super) granted: Option<&'f OnceCell<Grant>>,
    /// Whether there is something in these two.
    pub(super) hides: bool,
    /// When it came, in µs since 1970.
    pub(super) unix_us: u64,
    /// How many expressions had no value for it.
    pub(super) failed: Option<&'f Cell<u64>>,
}

impl<'f> Facts<'f> {
    pub(super) fn method(&self) -> &'f [u8] {
        self.head.method_at.bytes(self.bytes)
    }

    pub(super) fn host(&self) -> &'f [u8] {
        self.head.host.bytes(self.bytes)
    }

    pub(super) fn authority(&self) -> &'f [u8] {
        self.head.authority.bytes(self.bytes)
    }

    pub(super) fn query(&self) -> Option<&'f [u8]> {
        self.head.query.map(|query| query.bytes(self.bytes))
    }

    /// The name of the consumer whose key it shows.
    pub(super) fn consumer(&self) -> Option<&'f str> {
        self.known.and_then(|known| known.consumer.get()).map(Whose::name)
    }

    /// The user whose password it shows, or the subject of its token.
    pub(super) fn subject(&self) -> Option<&'f str> {
        let of_token = self.claims.and_then(OnceCell::get).and_then(|claims| claims.subject());
        of_token.or_else(|| self.known.and_then(|known| known.user.get()).map(|user| &**user))
    }

    /// Takes over what an exchange has found out about who asks.
    pub(super) fn know(&self, record: &Record) {
        if let Some(known) = self.known {
            record.consumer.iter().for_each(|consumer| drop(known.consumer.set(consumer.clone())));
            record.user.iter().for_each(|user| drop(known.user.set(Rc::clone(user))));
        }
        if let (Some(place), Some(claims)) = (self.claims, &record.claims) {
            let _ = place.set(Rc::clone(claims));
        }
    }

    /// Has a credential not go on to the upstream.
    pub(super) fn hide(&mut self, place: &'f Place) {
        if let Some(free) = self.hidden.iter_mut().find(|hidden| hidden.is_none()) {
            *free = Some(place);
            self.hides = true;
        }
    }

    /// Has the upstream told what someone who was asked says, and not what the client says there.
    pub(super) fn grant(&mut self, grant: Grant) {
        if let Some(place) = self.granted {
            self.hides = place.set(grant).is_ok() || self.hides;
        }
    }

    /// Whole lines for the upstream, of someone who was asked.
    pub(super) fn granted_lines(&self) -> &'f [u8] {
        if !self.hides {
            return &[];
        }
        self.granted.and_then(OnceCell::get).map_or(&[], |grant| &grant.lines)
    }

    /// Whether anything is not for the upstream to see.
    #[inline]
    pub(super) fn hides(&self) -> bool {
        self.hides
    }

    fn hidden(&self) -> impl Iterator<Item = &'f Place> + use<'f> {
        self.hidden.into_iter().flatten()
    }

    /// Whether the field of this name, in whatever case, is not for the upstream to see.
    pub(super) fn hides_field(&self, name: &[u8]) -> bool {
        let is_granted = || self.granted.and_then(OnceCell::get).is_some_and(|grant| grant.has(name));
        self.hidden().any(
            |place| matches!(place, Place::Header(hidden) if name.eq_ignore_ascii_case(hidden.as_bytes())),
        ) || is_granted()
    }

    /// Whether something of the query is not for the upstream to see.
    #[inline]
    pub(super) fn hides_query(&self) -> bool {
        self.hides() && self.hidden().any(|place| matches!(place, Place::Query(_)))
    }

    /// Whether a cookie is not for the upstream to see.
    #[inline]
    pub(super) fn hides_cookies(&self) -> bool {
        self.hides() && self.hidden().any(|place| matches!(place, Place::Cookie(_)))
    }

    /// The query that goes on: without what is not for the upstream to see.
    #[inline]
    pub(super) fn shown_query(&self) -> Option<Cow<'f, [u8]>> {
        let query = self.query()?;
        if self.hides_query() { self.rest_of_query(query) } else { Some(Cow::Borrowed(query)) }
    }

    #[cold]
    fn rest_of_query(&self, query: &[u8]) -> Option<Cow<'f, [u8]>> {
        let rest = self.hidden().fold(query.to_vec(), |rest, place| match place {
            Place::Query(name) => query_without(&rest, name.as_bytes()),
            Place::Header(_) | Place::Cookie(_) => rest,
        });
        Some(rest).filter(|rest| !rest.is_empty()).map(Cow::Owned)
    }

    /// The cookies that go on, field by field: without those that are not for the upstream to see.
    pub(super) fn shown_cookies(&self) -> impl Iterator<Item = Vec<u8>> {
        let fields = self.values(FieldName::Cookie).map(|field| {
            self.hidden().fold(field.to_vec(), |rest, place| match place {
                Place::Cookie(name) => cookie::without(&rest, name.as_bytes()),
                Place::Header(_) | Place::Query(_) => rest,
            })
        });
        fields.filter(|rest| !rest.is_empty())
    }

    /// The values of a known field.
    pub(super) fn values(&self, name: FieldName) -> impl DoubleEndedIterator<Item = &'f [u8]> {
        let bytes = self.bytes;
        self.head.fields.named(name).map(move |field| field.value_at.bytes(bytes))
    }

    /// The first value of any field.
    pub(super) fn value_of(&self, name: &[u8]) -> Option<&'f [u8]> {
        self.head.fields.find_by_name(self.bytes, name).map(|field| field.value_at.bytes(self.bytes))
    }

    /// The values of any field.
    pub(super) fn values_of(&self, name: &'f [u8]) -> impl Iterator<Item = &'f [u8]> {
        let bytes = self.bytes;
        self.head.fields.called(bytes, name).map(move |field| field.value_at.bytes(bytes))
    }

    /// The value of a cookie.
    pub(super) fn cookie(&self, name: &[u8]) -> Option<&'f [u8]> {
        self.values(FieldName::Cookie).find_map(|cookies| cookie::find(cookies, name))
    }

    /// The raw value of a query parameter.
    pub(super) fn query_value(&self, name: &[u8]) -> Option<&'f [u8]> {
        self.query()?.split(|byte| *byte == b'&').find_map(|pair| {
            let at = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
            (&pair[..at] == name).then(|| pair.get(at + 1..).unwrap_or_default())
        })
    }

    /// The hash that consistent balancing goes by; the client's when the named value is missing.
    pub(super) fn hash(&self, on: &HashOn) -> u64 {
        let value = match on {
            HashOn::Nothing => return 0,
            HashOn::ClientIp => None,
            HashOn::Path => Some(self.path),
            HashOn::Header(name) => self.value_of(name.as_bytes()),
            HashOn::Cookie(name) => self.cookie(name.as_bytes()),
            HashOn::Query(name) => self.query_value(name.as_bytes()),
        };
        match (value, self.client) {
            (Some(value), _) => stable_hash(value),
            (None, IpAddr::V4(ip)) => stable_hash(&ip.octets()),
            (None, IpAddr::V6(ip)) => stable_hash(&ip.octets()),
        }
    }

    /// Whether an absolute target names a scheme that is not this connection's.
    pub(super) fn is_misdirected(&self) -> bool {
        self.head.target == TargetForm::Absolute
            && self.bytes[..self.head.authority.start as usize]
                .last_chunk::<8>()
                .is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"https://") != self.is_secured)
    }

    /// Whether it is a call of gRPC, or of gRPC-Web.
    pub(super) fn is_grpc(&self) -> bool {
        grpc_type(self.head, self.bytes, self.is_stream).is_some()
    }

    /// How long the caller of gRPC waits, in ms; the route's limit if that is less. 0: no limit.
    pub(super) fn timeout_ms(&self, route_ms: u64) -> u64 {
        if !self.is_grpc() {
            return route_ms;
        }
        match self.value_of(b"grpc-timeout").and_then(grpc::timeout_ms) {
            // At once would be never: 0 is no limit.
            Some(asked_ms) if route_ms == 0 => asked_ms.max(1),
            Some(asked_ms) => asked_ms.clamp(1, route_ms),
            None => route_ms,
        }
    }

    /// `https` over TLS, else `http`.
    pub(super) fn scheme(&self) -> &'static str {
        if self.is_secured { "https" } else { "http" }
    }
}

/// The content type of a call of gRPC, or of gRPC-Web, as it is answered by; `None`: it is none.
pub(super) fn grpc_type(head: &RequestHead, bytes: &[u8], is_stream: bool) -> Option<&'static str> {
    if head.method != Method::Post {
        return None;
    }
    let content_type = head.fields.find(FieldName::ContentType)?.value_at.bytes(bytes);
    // gRPC by HTTP/2 only: to anyone else, a cache for one, its answers would say something else.
    if is_stream && grpc::is_grpc(content_type) {
        return Some("application/grpc");
    }
    is_grpc_web(content_type).then_some("application/grpc-web+proto")
}

impl<'f> Facts<'f> {
    /// The endpoint that the request's sticky cookie names, if it is still there.
    pub(super) fn sticky_endpoint(&self, cluster: &Cluster) -> Option<usize> {
        let sticky = cluster.sticky.as_ref()?;
        let id = self.values(FieldName::Cookie).find_map(|cookies| sticky.identity(cookies))?;
        cluster.endpoints.iter().position(|endpoint| endpoint.id == id && endpoint.weight > 0)
    }

    /// The request as texts see it.
    pub(super) fn variables(&self, route: &'f Route, captures: &'f Captures) -> RouteFacts<'f> {
        RouteFacts { facts: *self, route, captures }
    }
}

impl RequestView for Facts<'_> {
    #[inline]
    fn method(&self) -> &[u8] {
        Facts::method(self)
    }

    #[inline]
    fn host(&self) -> &[u8] {
        Facts::host(self)
    }

    #[inline]
    fn path(&self) -> &[u8] {
        self.path
    }

    #[inline]
    fn query(&self) -> Option<&[u8]> {
        Facts::query(self)
    }

    fn header(&self, name: &str, mut test: impl FnMut(&[u8]) -> bool) -> bool {
        let mut fields = self.head.fields.called(self.bytes, name.as_bytes());
        fields.any(|field| test(field.value_at.bytes(self.bytes)))
    }

    fn holds(&self, expression: &Expression, params: Params<'_>) -> Result<bool, Failed> {
        self.asked(|| expression.holds(&Seen::new(self, params)))
    }
}

impl Facts<'_> {
    /// Counts an expression that had no value.
    pub(super) fn asked<T>(&self, ask: impl FnOnce() -> Result<T, Failed>) -> Result<T, Failed> {
        let answer = ask();
        if answer.is_err()
            && let Some(failed) = self.failed
        {
            failed.set(failed.get() + 1);
        }
        answer
    }
}

/// A request whose route is found, as texts see it.
pub(super) struct RouteFacts<'f> {
    facts: Facts<'f>,
    route: &'f Route,
    captures: &'f Captures,
}

impl Variables for RouteFacts<'_> {
    fn write(&self, variable: &Variable, value: &mut Value<'_>) {
        let facts = &self.facts;
        match variable {
            Variable::ClientIp => {
                let mut text = Vec::new();
                append_ip(facts.client, &mut text);
                value.put(&text);
            }
            Variable::ClientPort => {
                let mut text = Vec::new();
                append_decimal(u64::from(facts.peer.port()), &mut text);
                value.put(&text);
            }
            Variable::Host => value.put(facts.authority()),
            Variable::Path => value.put(facts.path),
            Variable::Capture(index) => {
                if let Some(captured) = self.captures.value(*index, facts.path) {
                    value.put(captured);
                }
            }
            Variable::Query => value.put(&facts.shown_query().unwrap_or_default()),
            Variable::QueryParameter(name) => {
                if let Some(parameter) = facts.query_value(name.as_bytes()) {
                    value.put(parameter);
                }
            }
            Variable::Header(name) => {
                if let Some(field) = facts.value_of(name.as_bytes()) {
                    value.put(field);
                }
            }
            Variable::RequestId => value.put(facts.id),
            Variable::Method => value.put(facts.method()),
            Variable::Scheme => value.put(facts.scheme().as_bytes()),
            Variable::Route => value.put(self.route.name.as_bytes()),
            Variable::Consumer => value.put(facts.consumer().unwrap_or_default().as_bytes()),
            Variable::Subject => value.put(facts.subject().unwrap_or_default().as_bytes()),
            Variable::Claim(name) => {
                if let Some(claim) = facts.claims.and_then(OnceCell::get).and_then(|claims| claims.text(name))
                {
                    value.put(claim.as_bytes());
                }
            }
            Variable::Tls(variable) => {
                if let Some(session) = facts.session {
                    write_tls(session, *variable, value);
                }
            }
        }
    }

    fn evaluate(&self, expression: &Expression, names: &[String]) -> Option<String> {
        let params = Params::new(names, self.captures, self.facts.path);
        self.facts.asked(|| expression.text(&Seen::new(&self.facts, params))).ok()
    }
}

fn write_tls(session: &Session, variable: TlsVariable, value: &mut Value<'_>) {
    let peer = session.peer.as_ref();
    match variable {
        TlsVariable::Version => value.put(session.version.as_bytes()),
        TlsVariable::Cipher => value.put(session.cipher.as_bytes()),
        TlsVariable::ServerName => value.put(session.server_name.as_deref().unwrap_or_default().as_bytes()),
        TlsVariable::ClientSubject => value.put(peer.map_or("", |peer| &peer.subject).as_bytes()),
        TlsVariable::ClientNames => value.put(peer.map_or("", |peer| &peer.all_names).as_bytes()),
        TlsVariable::ClientFingerprint => value.put(peer.map_or("", |peer| &peer.fingerprint_hex).as_bytes()),
    }
}
