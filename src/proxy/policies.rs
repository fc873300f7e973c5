//! Policies at their places in an exchange: what is asked of them, and what their answers come to. What each of them means is
//! [`crate::policy`]'s to know.

use std::{borrow::Cow, future::Future, hash::Hasher as _, net::IpAddr, pin::Pin, rc::Rc};

use super::{
    answer::answer_preflight,
    consult::{self, Waiting},
    core::Core,
    error::Error,
    exchange::{Exchange, Next},
    facts::Facts,
    generation::Generation,
    record::{Quota, Record},
    seen::Seen,
};
use crate::{
    expression::{Expression, Failed},
    http::{
        body::BodyReader,
        field::{FieldName, Fields},
        method::Method,
    },
    policy::{
        cookie,
        cors::Cors,
        credential::Place,
        jwt::TokenAccess,
        key::{KeyAccess, Shown},
        rate_limit::{By, Cost, Passed, RateLimit, Refused},
        token::{self, TokenFault},
    },
    route::{Captures, Params, RequestView, query_values},
    table::{Listener, NO_POLICIES, Policy, Rule, Table},
    telemetry::text::append_decimal,
};

/// A preflight (Fetch §3.3.2): a browser's question about the request that it would send next, of which it tells the method
/// and the names of some fields.
pub(super) struct Preflight<'p> {
    facts: &'p Facts<'p>,
    origin: &'p [u8],
    method: &'p [u8],
}

impl<'p> Preflight<'p> {
    /// The preflight that a request is, if it is one.
    #[inline]
    pub(super) fn of(facts: &'p Facts<'p>) -> Option<Self> {
        if facts.head.method != Method::Options {
            return None;
        }
        let origin = origin(&facts.head.fields, facts.bytes)?;
        let method = facts.values(FieldName::AccessControlRequestMethod).next()?;
        Some(Self { facts, origin, method })
    }

    /// Whose page asks.
    pub(super) fn origin(&self) -> &'p [u8] {
        self.origin
    }

    /// The rule that answers it: that of the route which the request to come would take, or of the listener if there is none.
    /// Before it, the number of that route among the listener's, and of the policy.
    pub(super) fn rule<'t>(
        &self,
        table: &'t Table,
        listener: &Listener,
        captures: &mut Captures,
    ) -> Option<(Option<u32>, usize, &'t Cors)> {
        let found = listener.router.find(self, captures);
        let chain = found.map_or(listener.chain, |found| listener.routes[found as usize].chain);
        let (policy, cors) = cors(table, chain)?;
        Some((found, policy, cors))
    }
}

impl RequestView for Preflight<'_> {
    fn method(&self) -> &[u8] {
        self.method
    }

    fn host(&self) -> &[u8] {
        self.facts.host()
    }

    fn path(&self) -> &[u8] {
        self.facts.path
    }

    fn query(&self) -> Option<&[u8]> {
        self.facts.query()
    }

    /// A field that the request to come has, with a value that is not known yet, may be any that is asked for.
    fn header(&self, name: &str, test: impl FnMut(&[u8]) -> bool) -> bool {
        let is_name = |listed: &[u8]| listed.trim_ascii().eq_ignore_ascii_case(name.as_bytes());
        let mut lists = self.facts.values(FieldName::AccessControlRequestHeaders);
        lists.any(|list| list.split(|byte| *byte == b',').any(is_name)) || self.facts.header(name, test)
    }

    /// Of its fields an expression knows no more than the preflight has.
    fn holds(&self, expression: &Expression, params: Params<'_>) -> Result<bool, Failed> {
        self.facts.asked(|| expression.holds(&Seen::new(self.facts, params).by(self.method)))
    }
}

/// Answers a preflight by a rule.
pub(super) async fn answer(
    x: &mut Exchange<'_>,
    asked: Preflight<'_>,
    policy: usize,
    rule: &Cors,
    body: &BodyReader,
    lines: &mut Vec<u8>,
) -> Result<Next, Error> {
    let name = b"access-control-request-private-network";
    let asks_private_network = asked.facts.value_of(name).is_some_and(|value| value == b"true");
    lines.clear();
    let passes = rule.append_preflight(asked.origin, asks_private_network, lines);
    x.core.figures.borrow_mut().on_policy(policy, passes);
    if !passes {
        return Err(Error::CorsOrigin);
    }
    answer_preflight(x, asked.facts, body, lines).await
}

/// Asks the policies of a chain, one after the other, whether a request may pass, and notes what they find out about it.
#[inline]
pub(super) fn admit<'f, 'x: 'f>(
    x: &mut Exchange<'x>,
    facts: &mut Facts<'f>,
    chain: u32,
    params: Params<'_>,
) -> Result<(), Error> {
    if chain == NO_POLICIES { Ok(()) } else { ask(x, facts, chain, params) }
}

/// Not inlined: an exchange without policies is not to be larger for them.
#[inline(never)]
fn ask<'f, 'x: 'f>(
    x: &mut Exchange<'x>,
    facts: &mut Facts<'f>,
    chain: u32,
    params: Params<'_>,
) -> Result<(), Error> {
    let generation = x.generation;
    let table = &generation.table;
    let chain = &table.chains[chain as usize];
    for at in chain.asked() {
        ask_one(x, facts, at, params)?;
    }
    if !chain.rate_limits.is_empty() {
        count(x, facts, &chain.rate_limits, params)?;
    }
    enter(x, &chain.concurrency)
}

/// Whether some policy of a chain asks someone else.
#[inline]
pub(super) fn wait(table: &Table, chain: u32) -> bool {
    chain != NO_POLICIES && table.chains[chain as usize].waits
}

/// As [`admit`], where some policy asks someone else. What becomes of the connection is told where the request is answered by that.
///
/// On the heap: an exchange whose policies do not wait needs no room for it.
pub(super) fn admitted<'a, 'f, 'x: 'f>(
    x: &'a mut Exchange<'x>,
    facts: &'a mut Facts<'f>,
    chain: u32,
    params: Params<'a>,
    mut waiting: Waiting<'a>,
) -> Pin<Box<dyn Future<Output = Result<Option<Next>, Error>> + 'a>> {
    Box::pin(async move {
        let generation: &'x Generation = x.generation;
        let chain = &generation.table.chains[chain as usize];
        for at in chain.asked() {
            let answer = match &generation.table.policies[at].rule {
                Rule::Authorize(door) => consult::authorize(x, facts, door, &mut waiting).await,
                Rule::Introspect(access) => {
                    consult::introspect(x, facts, (at, access), &mut waiting).await.map(|()| None)
                }
                _ => {
                    ask_one(x, facts, at, params)?;
                    continue;
                }
            };
            x.core.figures.borrow_mut().on_policy(at, matches!(answer, Ok(None)));
            if let Some(next) = answer? {
                return Ok(Some(next));
            }
        }
        if !chain.rate_limits.is_empty() {
            count(x, facts, &chain.rate_limits, params)?;
        }
        enter(x, &chain.concurrency)?;
        Ok(None)
    })
}

/// Asks one policy that needs no one else.
fn ask_one<'f, 'x: 'f>(
    x: &mut Exchange<'x>,
    facts: &mut Facts<'f>,
    at: usize,
    params: Params<'_>,
) -> Result<(), Error> {
    let generation: &'x Generation = x.generation;
    let table = &generation.table;
    let passes = match &table.policies[at].rule {
        Rule::Ip(access) if access.admits(facts.client) => Ok(()),
        Rule::Ip(_) => Err(Error::IpRefused),
        Rule::ClientCert(access) => match facts.session.and_then(|session| session.peer.as_ref()) {
            Some(shown) if access.admits(&shown.names, &shown.fingerprint) => Ok(()),
            Some(_) => Err(Error::CertificateRefused),
            None => Err(Error::CertificateMissing),
        },
        Rule::Key(access) => admit_key(access, table, x.record, facts),
        Rule::Jwt(access) => admit_token((at, access), x.core, generation, x.record, facts),
        // What has no value allows nothing.
        Rule::Allow(expression) => {
            let seen = Seen::new(facts, params);
            match facts.asked(|| expression.holds(&seen)) {
                Ok(true) => Ok(()),
                Ok(false) | Err(_) => Err(Error::NotAllowed),
            }
        }
        // They are asked by themselves, before and after, or by those that wait.
        Rule::Cors(_)
        | Rule::RateLimit(_)
        | Rule::Concurrency(_)
        | Rule::Introspect(_)
        | Rule::Authorize(_) => Ok(()),
    };
    x.core.figures.borrow_mut().on_policy(at, passes.is_ok());
    passes
}

/// Asks the rate limits, each of which counts the request, or none of them.
fn count(x: &mut Exchange<'_>, facts: &Facts<'_>, limits: &[usize], params: Params<'_>) -> Result<(), Error> {
    let Exchange { core, generation, record, .. } = x;
    let table = &generation.table;
    let now_ns = core.clock.host_ns();
    let mut leases = generation.leases.borrow_mut();
    // What has counted it so far; a limit that is alone has nothing to take back.
    let mut counted: Vec<(usize, u64, u64)> = Vec::new();
    for at in limits.iter().copied() {
        let (Rule::RateLimit(limit), Some(own)) = (&table.policies[at].rule, &mut leases[at]) else {
            continue;
        };
        let key = counted_by(limit, facts, record, table, params);
        let cost = cost_of(limit, facts, params);
        if cost == 0 {
            core.figures.borrow_mut().on_policy(at, true);
            continue;
        }
        let answer = own.take(key, cost, now_ns);
        core.figures.borrow_mut().on_policy(at, answer.is_ok());
        let quota = quota(at, answer);
        if answer.is_err() {
            record.quota = Some(quota);
            for (before, key, cost) in counted {
                if let Some(own) = &mut leases[before] {
                    own.put_back(key, cost, now_ns);
                }
            }
            return Err(Error::QuotaExceeded);
        }
        if limits.len() > 1 {
            counted.push((at, key, cost));
        }
        if limit.announces && record.quota.is_none_or(|other| quota.left < other.left) {
            record.quota = Some(quota);
        }
    }
    Ok(())
}

/// Asks the limits of what is under way at once. A request that one of them refuses is under way behind none.
fn enter(x: &mut Exchange<'_>, limits: &[usize]) -> Result<(), Error> {
    for at in limits.iter().copied() {
        let Rule::Concurrency(limit) = &x.generation.table.policies[at].rule else { continue };
        let permit = limit.enter();
        x.core.figures.borrow_mut().on_policy(at, permit.is_some());
        let Some(permit) = permit else {
            x.record.permits.clear();
            return Err(Error::ConcurrencyExceeded);
        };
        x.record.permits.push(permit);
    }
    Ok(())
}

/// What a request costs.
fn cost_of(limit: &RateLimit, facts: &Facts<'_>, params: Params<'_>) -> u64 {
    match &limit.cost {
        Cost::Fixed(cost) => *cost,
        Cost::Expression(expression) => {
            let cost = facts.asked(|| expression.number(&Seen::new(facts, params)));
            limit.cost(cost.unwrap_or(1))
        }
    }
}

fn quota(at: usize, answer: Result<Passed, Refused>) -> Quota {
    let seconds = |ns: u64| u32::try_from(ns.div_ceil(1_000_000_000)).unwrap_or(u32::MAX);
    let (left, full_ns, retry_s) = match answer {
        Ok(Passed { left, full_ns }) => (left, full_ns, 0),
        Err(Refused { retry_ns, full_ns }) => (0, full_ns, seconds(retry_ns).max(1)),
    };
    let left = u32::try_from(left).unwrap_or(u32::MAX);
    Quota { policy: at as u32, left, full_s: seconds(full_ns), retry_s }
}

/// By what a limit counts a request, hashed. What it does not have is replaced by its client's address, which is no one else's either.
fn counted_by(
    limit: &RateLimit,
    facts: &Facts<'_>,
    record: &Record,
    table: &Table,
    params: Params<'_>,
) -> u64 {
    let mut hasher = limit.hasher();
    for by in &limit.by {
        let text;
        let value = match by {
            By::ClientIp => None,
            By::Consumer => facts.consumer.map(str::as_bytes),
            By::Route => Some(record.route.map_or(&b""[..], |route| table.routes[route].name.as_bytes())),
            By::Header(name) => facts.value_of(name.as_bytes()),
            By::Claim(name) => {
                text = record.claims.as_ref().and_then(|claims| claims.text(name));
                text.as_deref().map(str::as_bytes)
            }
            By::Expression(expression) => {
                text = facts.asked(|| expression.text(&Seen::new(facts, params))).ok();
                text.as_deref().map(str::as_bytes)
            }
        };
        match (value, facts.client.to_canonical()) {
            (Some(value), _) => {
                hasher.write_u8(1);
                hasher.write_usize(value.len());
                hasher.write(value);
            }
            (None, IpAddr::V4(ip)) => hasher.write_u32(ip.to_bits()),
            (None, IpAddr::V6(ip)) => {
                hasher.write_u128(ip.to_bits() >> (128 - u32::from(limit.ipv6_prefix)));
            }
        }
    }
    hasher.finish()
}

/// What `look` makes of the values in a credential's place.
pub(super) fn shown<R>(
    facts: &Facts<'_>,
    place: &Place,
    look: impl FnOnce(&mut dyn Iterator<Item = Cow<'_, [u8]>>) -> R,
) -> R {
    match place {
        Place::Header(name) => look(&mut facts.values_of(name.as_bytes()).map(Cow::Borrowed)),
        Place::Query(name) => {
            let query = facts.query().unwrap_or_default();
            look(&mut query_values(query, name.as_bytes()).map(Cow::Owned))
        }
        Place::Cookie(name) => {
            let cookies = facts.values(FieldName::Cookie);
            look(&mut cookies.flat_map(|field| cookie::values(field, name.as_bytes())).map(Cow::Borrowed))
        }
    }
}

fn admit_token<'f>(
    (at, access): (usize, &'f TokenAccess),
    core: &Core,
    generation: &Generation,
    record: &mut Record,
    facts: &mut Facts<'f>,
) -> Result<(), Error> {
    let now_s = core.clock.unix_us(core.clock.now_us()) / 1_000_000;
    let token = shown(facts, &access.place, |values| token::shown(&access.place, values));
    let published = generation.published.borrow();
    let published = published[at].as_deref();
    let claims = token
        .and_then(|token| generation.verified.borrow_mut().claims((at, access), &token, published, now_s));
    let claims = claims.map_err(token_error)?;
    record.claims = Some(Rc::clone(&claims));
    access.demands.allows(&claims).map_err(token_error)?;
    if let Some(place) = facts.claims {
        let _ = place.set(claims);
    }
    if !access.forward {
        facts.hide(&access.place);
    }
    Ok(())
}

/// What is wrong with a request for what is wrong with its token.
pub(super) fn token_error(fault: TokenFault) -> Error {
    match fault {
        TokenFault::Missing => Error::TokenMissing,
        TokenFault::Invalid => Error::TokenInvalid,
        TokenFault::Expired => Error::TokenExpired,
        TokenFault::NotAllowed => Error::TokenScope,
        TokenFault::NoKeys => Error::TokenKeys,
    }
}

fn admit_key<'f>(
    access: &'f KeyAccess,
    table: &'f Table,
    record: &mut Record,
    facts: &mut Facts<'f>,
) -> Result<(), Error> {
    let shown = shown(facts, &access.place, |values| access.look(values, &table.keys));
    if let Shown::Passes(consumer) | Shown::NotAllowed(consumer) = shown {
        record.consumer = Some(consumer);
    }
    match shown {
        Shown::Passes(consumer) => {
            facts.consumer = Some(&table.consumers[consumer as usize]);
            if !access.forward {
                facts.hide(&access.place);
            }
            Ok(())
        }
        Shown::NotAllowed(_) => Err(Error::KeyNotAllowed),
        Shown::Unknown => Err(Error::KeyUnknown),
        Shown::Missing => Err(Error::KeyMissing),
    }
}

/// Appends the lines that policies add to every response, the gateway's own included.
#[inline]
pub(super) fn append_response_lines(
    table: &Table,
    record: &Record,
    fields: &Fields,
    bytes: &[u8],
    lines: &mut Vec<u8>,
) {
    if let Some((_, cors)) = cors(table, record.chain) {
        cors.append_response(origin(fields, bytes), lines);
    }
    if let Some(quota) = record.quota {
        append_quota(table, quota, lines);
    }
}

/// What is left (draft-ietf-httpapi-ratelimit-headers-10 §4), and when to come again (RFC 9110 §10.2.3).
fn append_quota(table: &Table, quota: Quota, lines: &mut Vec<u8>) {
    let Policy { name, rule: Rule::RateLimit(limit) } = &table.policies[quota.policy as usize] else {
        return;
    };
    lines.extend_from_slice(limit.line());
    lines.extend_from_slice(b"RateLimit: \"");
    lines.extend_from_slice(name.as_bytes());
    lines.extend_from_slice(b"\";r=");
    append_decimal(u64::from(quota.left), lines);
    lines.extend_from_slice(b";t=");
    append_decimal(u64::from(quota.full_s), lines);
    lines.extend_from_slice(b"\r\n");
    if quota.is_exceeded() {
        lines.extend_from_slice(b"Retry-After: ");
        append_decimal(u64::from(quota.retry_s), lines);
        lines.extend_from_slice(b"\r\n");
    }
}

/// The rule of a chain about other origins, and which policy it is.
#[inline]
fn cors(table: &Table, chain: u32) -> Option<(usize, &Cors)> {
    let policy = table.chains[chain as usize].cors?;
    match &table.policies[policy].rule {
        Rule::Cors(cors) => Some((policy, cors)),
        Rule::Ip(_)
        | Rule::ClientCert(_)
        | Rule::Key(_)
        | Rule::Jwt(_)
        | Rule::Introspect(_)
        | Rule::Authorize(_)
        | Rule::Allow(_)
        | Rule::RateLimit(_)
        | Rule::Concurrency(_) => None,
    }
}

/// The origin whose page asks. One that is said twice is nobody's.
fn origin<'b>(fields: &Fields, bytes: &'b [u8]) -> Option<&'b [u8]> {
    let mut values = fields.named(FieldName::Origin).map(|field| field.value_at.bytes(bytes));
    let first = values.next()?;
    Some(if values.next().is_some() { b"" } else { first })
}
