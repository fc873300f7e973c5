//! Policies at their places in an exchange: what is asked of them, and what their answers come to. What each of them means is
//! [`crate::policy`]'s to know.

use std::{borrow::Cow, hash::Hasher as _, net::IpAddr, rc::Rc};

use super::{
    acquire::waited,
    answer::answer_preflight,
    consult::{self, Waiting},
    core::Core,
    error::Error,
    exchange::{Exchange, Next},
    facts::Facts,
    generation::Generation,
    identity::Whose,
    passwords::WAIT_MAX_MS,
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
        basic::{CredentialFault, Credentials, UserAccess},
        cookie,
        cors::Cors,
        credential::Place,
        jwt::TokenAccess,
        key::{KeyAccess, Shown},
        rate_limit::{By, Cost, OwnLimit, Passed, RateLimit, Refused},
        token::{self, TokenFault},
    },
    route::{Captures, Params, RequestView, query_values},
    table::{Chain, Listener, NO_POLICIES, Policy, Rule, Table},
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

/// Asks the policies of a chain, one after the other, whether a request may pass, and notes what they find out about it. Where one of them answers the
/// request itself, it is told what becomes of the connection.
pub(super) async fn admit<'f, 'x: 'f>(
    x: &mut Exchange<'x>,
    facts: &mut Facts<'f>,
    (chain, params): (u32, Params<'_>),
    waiting: Waiting<'_>,
) -> Result<Option<Next>, Error> {
    if chain == NO_POLICIES {
        return Ok(None);
    }
    let chain = &x.generation.table.chains[chain as usize];
    if chain.waits() {
        // On the heap: exchanges that do not wait need no room for it.
        return Box::pin(ask_waiting(x, facts, (chain, params), waiting)).await;
    }
    ask(x, facts, chain, params).map(|()| None)
}

/// Not inlined: an exchange without policies is not to be larger for them.
#[inline(never)]
fn ask<'f, 'x: 'f>(
    x: &mut Exchange<'x>,
    facts: &mut Facts<'f>,
    chain: &Chain,
    params: Params<'_>,
) -> Result<(), Error> {
    for at in chain.asked() {
        let passes = ask_one(x, facts, at, params);
        note(x, at, passes)?;
    }
    if !chain.rate_limits.is_empty() {
        count(x, facts, &chain.rate_limits, params)?;
    }
    enter(x, &chain.concurrency)
}

/// The same, where some have to wait for their answers.
async fn ask_waiting<'f, 'x: 'f>(
    x: &mut Exchange<'x>,
    facts: &mut Facts<'f>,
    (chain, params): (&Chain, Params<'_>),
    mut waiting: Waiting<'_>,
) -> Result<Option<Next>, Error> {
    let generation: &'x Generation = x.generation;
    for at in chain.asked() {
        let passes = match &generation.table.policies[at].rule {
            Rule::Basic(access) => admit_user(x, facts, (at, access), waiting.may_watch).await,
            Rule::Introspect(access) => consult::introspect(x, facts, (at, access), &mut waiting).await,
            Rule::Authorize(door) => match consult::authorize(x, facts, door, &mut waiting).await {
                Ok(Some(next)) => {
                    x.core.figures.borrow_mut().on_policy(at, false);
                    return Ok(Some(next));
                }
                answer => answer.map(|_| ()),
            },
            _ => ask_one(x, facts, at, params),
        };
        note(x, at, passes)?;
    }
    if !chain.rate_limits.is_empty() {
        count(x, facts, &chain.rate_limits, params)?;
    }
    enter(x, &chain.concurrency)?;
    Ok(None)
}

fn note(x: &Exchange<'_>, at: usize, passes: Result<(), Error>) -> Result<(), Error> {
    x.core.figures.borrow_mut().on_policy(at, passes.is_ok());
    passes
}

/// Asks one policy that knows its answer at once.
#[inline]
fn ask_one<'f, 'x: 'f>(
    x: &mut Exchange<'x>,
    facts: &mut Facts<'f>,
    at: usize,
    params: Params<'_>,
) -> Result<(), Error> {
    let generation: &'x Generation = x.generation;
    match &generation.table.policies[at].rule {
        Rule::Ip(access) if access.admits(facts.client) => Ok(()),
        Rule::Ip(_) => Err(Error::IpRefused),
        Rule::ClientCert(access) => match facts.session.and_then(|session| session.peer.as_ref()) {
            Some(shown) if access.admits(&shown.names, &shown.fingerprint) => Ok(()),
            Some(_) => Err(Error::CertificateRefused),
            None => Err(Error::CertificateMissing),
        },
        Rule::Key(access) => admit_key((at, access), generation, x.record, facts),
        Rule::Jwt(access) => admit_token((at, access), x.core, generation, x.record, facts),
        // What has no value allows nothing.
        Rule::Allow(expression) => {
            let seen = Seen::new(facts, params);
            match facts.asked(|| expression.holds(&seen)) {
                Ok(true) => Ok(()),
                Ok(false) | Err(_) => Err(Error::NotAllowed),
            }
        }
        // They wait, and no one passes by being asked in the wrong place.
        Rule::Basic(_) => Err(Error::PasswordsBusy),
        Rule::Introspect(_) => Err(Error::IntrospectFailed),
        Rule::Authorize(_) => Err(Error::AuthorizeFailed),
        // They are asked by themselves, before and after.
        Rule::Cors(_) | Rule::RateLimit(_) | Rule::Concurrency(_) => Ok(()),
    }
}

/// A user shows a password: one that was right not long ago, or one that is tried now.
async fn admit_user<'f, 'x: 'f>(
    x: &mut Exchange<'x>,
    facts: &mut Facts<'f>,
    (at, access): (usize, &'f UserAccess),
    may_watch: bool,
) -> Result<(), Error> {
    let core = x.core;
    let generation: &'x Generation = x.generation;
    let credentials =
        Credentials::read(facts.values(FieldName::Authorization)).map_err(|fault| match fault {
            CredentialFault::Missing => Error::PasswordMissing,
            CredentialFault::Malformed => Error::PasswordMalformed,
        })?;
    let mark = generation.remembered.borrow().mark(at, &credentials);
    let known = generation.remembered.borrow_mut().user(&mark, core.clock.now_ms());
    let user = match known {
        Some(user) => user,
        None => {
            let users = generation.users.borrow()[at].clone().ok_or(Error::PasswordWrong)?;
            let waiting = core.passwords.ask(mark, &credentials, &users, facts.client)?;
            let user: Rc<str> = credentials.name().into();
            drop((credentials, users));
            let limit = (WAIT_MAX_MS, Error::PasswordsBusy);
            if !waited(x, may_watch, limit, |cx| waiting.poll(cx)).await? {
                return Err(Error::PasswordWrong);
            }
            let until_ms = core.clock.now_ms() + access.remembered_ms;
            // Where there are other users by now, no one will have this mark again.
            generation.remembered.borrow_mut().remember(mark, Rc::clone(&user), until_ms);
            user
        }
    };
    x.record.user = Some(Rc::clone(&user));
    if let Some(known) = facts.known {
        let _ = known.user.set(user);
    }
    if !access.forward {
        facts.hide(&access.place);
    }
    Ok(())
}

/// The line with which the policies of a request ask for a password, if they do.
pub(super) fn challenge<'t>(table: &'t Table, record: &Record) -> &'t [u8] {
    let basic = table.chains[record.chain as usize].basic.map(|at| &table.policies[at].rule);
    if let Some(Rule::Basic(access)) = basic { access.challenge() } else { &[] }
}

/// Asks the rate limits, each of which counts the request, or none of them.
fn count(x: &mut Exchange<'_>, facts: &Facts<'_>, limits: &[usize], params: Params<'_>) -> Result<(), Error> {
    let Exchange { core, generation, record, .. } = x;
    let table = &generation.table;
    let now_ns = core.clock.host_ns();
    let mut leases = generation.leases.borrow_mut();
    // What has counted it so far; a limit that is alone has nothing to take back.
    let mut counted: Vec<(usize, u64, u64, Option<&OwnLimit>)> = Vec::new();
    for at in limits.iter().copied() {
        let (Rule::RateLimit(limit), Some(own)) = (&table.policies[at].rule, &mut leases[at]) else {
            continue;
        };
        let whose = facts.known.filter(|_| limit.takes_own()).and_then(|known| known.consumer.get());
        let numbers = whose.and_then(Whose::limit);
        let key = counted_by((limit, numbers), facts, record, table, params);
        let cost = cost_of((limit, numbers), facts, params);
        if cost == 0 {
            core.figures.borrow_mut().on_policy(at, true);
            continue;
        }
        let answer = own.take(key, cost, now_ns, numbers);
        core.figures.borrow_mut().on_policy(at, answer.is_ok());
        let quota = quota(at, answer, numbers.is_some());
        if answer.is_err() {
            record.quota = Some(quota);
            for (before, key, cost, numbers) in counted {
                if let Some(own) = &mut leases[before] {
                    own.put_back(key, cost, now_ns, numbers);
                }
            }
            return Err(Error::QuotaExceeded);
        }
        if limits.len() > 1 {
            counted.push((at, key, cost, numbers));
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
fn cost_of((limit, own): (&RateLimit, Option<&OwnLimit>), facts: &Facts<'_>, params: Params<'_>) -> u64 {
    match &limit.cost {
        Cost::Fixed(cost) if own.is_none() => *cost,
        Cost::Fixed(cost) => limit.cost(i64::try_from(*cost).unwrap_or(i64::MAX), own),
        Cost::Expression(expression) => {
            let cost = facts.asked(|| expression.number(&Seen::new(facts, params)));
            limit.cost(cost.unwrap_or(1), own)
        }
    }
}

fn quota(at: usize, answer: Result<Passed, Refused>, is_own: bool) -> Quota {
    let seconds = |ns: u64| u32::try_from(ns.div_ceil(1_000_000_000)).unwrap_or(u32::MAX);
    let (left, full_ns, retry_s) = match answer {
        Ok(Passed { left, full_ns }) => (left, full_ns, 0),
        Err(Refused { retry_ns, full_ns }) => (0, full_ns, seconds(retry_ns).max(1)),
    };
    let left = u32::try_from(left).unwrap_or(u32::MAX);
    Quota { policy: at as u32, left, full_s: seconds(full_ns), retry_s, is_own }
}

/// By what a limit counts a request, hashed. What it does not have is replaced by its client's address, which is no one else's either.
fn counted_by(
    (limit, own): (&RateLimit, Option<&OwnLimit>),
    facts: &Facts<'_>,
    record: &Record,
    table: &Table,
    params: Params<'_>,
) -> u64 {
    let mut hasher = limit.hasher(own);
    for by in &limit.by {
        let text;
        let value = match by {
            By::ClientIp => None,
            By::Consumer => facts.consumer().map(str::as_bytes),
            By::Subject => facts.subject().map(str::as_bytes),
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
    (at, access): (usize, &'f KeyAccess),
    generation: &Generation,
    record: &mut Record,
    facts: &mut Facts<'f>,
) -> Result<(), Error> {
    let consumers = generation.consumers.borrow();
    let shown = shown(facts, &access.place, |values| access.look(values, at, &consumers.0));
    let (consumer, passes) = match shown {
        Shown::Passes(consumer) => (consumer, true),
        Shown::NotAllowed(consumer) => (consumer, false),
        Shown::Unknown => return Err(Error::KeyUnknown),
        Shown::Missing => return Err(Error::KeyMissing),
    };
    let whose = Whose::new(Rc::clone(&consumers), consumer);
    record.consumer = Some(whose.clone());
    if !passes {
        return Err(Error::KeyNotAllowed);
    }
    if let Some(known) = facts.known {
        let _ = known.consumer.set(whose);
    }
    if !access.forward {
        facts.hide(&access.place);
    }
    Ok(())
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
        append_quota(table, record, quota, lines);
    }
}

/// What is left (draft-ietf-httpapi-ratelimit-headers-10 §4), and when to come again (RFC 9110 §10.2.3).
fn append_quota(table: &Table, record: &Record, quota: Quota, lines: &mut Vec<u8>) {
    let Policy { name, rule: Rule::RateLimit(limit) } = &table.policies[quota.policy as usize] else {
        return;
    };
    match record.consumer.as_ref().filter(|_| quota.is_own).and_then(Whose::limit) {
        Some(own) => own.append_line(name, lines),
        None => lines.extend_from_slice(limit.line()),
    }
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
        | Rule::Basic(_)
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
