//! Policies that ask someone else: an authorisation service about a request, an issuer about a token. They are asked through the
//! core's own pools ([`super::call`]), while the client is watched, and not longer than their time.

use std::rc::Rc;

use super::{
    acquire::waited,
    answer::answer_of_another,
    call::{Answer, Behalf, Call, CallFault, request_for},
    error::Error,
    exchange::{Exchange, Next},
    facts::Facts,
    policies::{shown, token_error},
    reply::reply,
};
use crate::{
    buf::LARGE_BYTES,
    http::method::Method,
    policy::{
        authorize::{Authorize, Grant, Verdict},
        introspect::{Duty, Introspect, NoAnswer, QUESTION_TYPE, Said, Standing, question},
        token,
    },
    table::{Attached, NO_POLICIES},
};

/// Bytes that an answer may have, its head included.
const ANSWER_BYTES_MAX: usize = 128 * 1024;

const _: () = assert!(ANSWER_BYTES_MAX > LARGE_BYTES, "a head fits");

/// What is left of a request's body while policies are asked about it.
pub(super) struct Waiting<'w> {
    /// Whether it is received to its end.
    pub(super) is_done: bool,
    /// Whether what the client sends meanwhile can only be its next request.
    pub(super) may_watch: bool,
    pub(super) lines: &'w mut Vec<u8>,
}

/// Asks an authorisation service. Its refusal is the client's answer; then there is what becomes of the connection.
pub(super) async fn authorize(
    x: &mut Exchange<'_>,
    facts: &mut Facts<'_>,
    door: &Authorize,
    waiting: &mut Waiting<'_>,
) -> Result<Option<Next>, Error> {
    let mut lines = Vec::new();
    for (name, value) in [("X-Forwarded-Method: ", facts.method()), ("X-Forwarded-Uri: ", facts.path)] {
        lines.extend_from_slice(name.as_bytes());
        lines.extend_from_slice(value);
        if name.starts_with("X-Forwarded-Uri")
            && let Some(query) = facts.shown_query()
        {
            lines.push(b'?');
            lines.extend_from_slice(&query);
        }
        lines.extend_from_slice(b"\r\n");
    }
    let request = request_for(facts, b"GET", door.target.as_bytes(), |name| door.asks_with(name), None);
    let answer = ask(x, facts, (door.route, door.timeout_ms), (Method::Get, request, lines), waiting).await?;
    let verdict = answer.as_ref().map_or(Verdict::Unknown, |answer| Verdict::of(answer.head.status));
    // What the client has brought about, by a head that leaves no room for instance, opens no door.
    let is_clients = matches!(&answer, Err(CallFault::Failed(error)) if reply(*error).status < 500);
    // What the client says there goes on in no case.
    let mut grant = Grant { names: door.copy.to_vec(), lines: Vec::new() };
    match (verdict, answer) {
        (Verdict::Passes, Ok(Answer { head, bytes, .. })) => {
            for name in &door.copy {
                for field in head.fields.called(&bytes, name.as_bytes()).filter(|field| !field.hop) {
                    grant.put(name, field.value_at.bytes(&bytes));
                }
            }
        }
        (Verdict::Refused, Ok(answer)) => {
            let denied = Error::Denied(answer.head.status);
            // Callers of gRPC look for a refusal in other places.
            if facts.is_grpc() {
                return Err(denied);
            }
            x.record.on_error(denied);
            return answer_of_another(x, facts, &answer, waiting).await.map(Some);
        }
        _ if door.fails_open && !is_clients => {}
        _ => return Err(Error::AuthorizeFailed),
    }
    if !grant.names.is_empty() {
        facts.grant(grant);
    }
    Ok(None)
}

/// Asks an issuer about the token that a request shows, unless it has said so already.
pub(super) async fn introspect<'f>(
    x: &mut Exchange<'_>,
    facts: &mut Facts<'f>,
    (at, access): (usize, &'f Introspect),
    waiting: &mut Waiting<'_>,
) -> Result<(), Error> {
    let token =
        shown(facts, &access.place, |values| token::shown(&access.place, values)).map_err(token_error)?;
    let said = said_of(x, facts, (at, access), &token, waiting).await?;
    let now_s = x.core.clock.unix_us(x.core.clock.now_us()) / 1_000_000;
    let claims = access.admits(&said, now_s).map_err(token_error)?;
    x.record.claims = Some(Rc::clone(&claims));
    access.demands.allows(&claims).map_err(token_error)?;
    if let Some(place) = facts.claims {
        let _ = place.set(claims);
    }
    if !access.forward {
        facts.hide(&access.place);
    }
    Ok(())
}

async fn said_of(
    x: &mut Exchange<'_>,
    facts: &Facts<'_>,
    (at, access): (usize, &Introspect),
    token: &[u8],
    waiting: &mut Waiting<'_>,
) -> Result<Said, Error> {
    let (generation, core) = (x.generation, x.core);
    loop {
        let standing = generation.introspected.borrow_mut().look(at, token, core.clock.now_ms());
        match standing {
            Standing::Said(said) => return Ok(said),
            Standing::Asked(question) => {
                let limit = (access.timeout_ms, Error::IntrospectFailed);
                match waited(x, waiting.may_watch, limit, |cx| question.poll(cx)).await? {
                    Some(answer) => return answer.map_err(|NoAnswer| Error::IntrospectFailed),
                    // Whoever asked has gone.
                    None => continue,
                }
            }
            Standing::ToAsk(known) => {
                let duty = Duty::of(&generation.introspected, known);
                let content = question(token);
                let body = Some((QUESTION_TYPE, content.as_bytes()));
                let request = request_for(facts, b"POST", access.target.as_bytes(), |_| false, body);
                let lines =
                    format!("Authorization: {}\r\nAccept: application/json\r\n", access.authorization);
                let asked = (Method::Post, request, lines.into_bytes());
                let answer = ask(x, facts, (access.route, access.timeout_ms), asked, waiting).await?;
                let said = answer
                    .map_err(|_| NoAnswer)
                    .and_then(|answer| access.understand(answer.head.status, &answer.body));
                duty.answer(said.clone(), access.cache_ms, core.clock.now_ms());
                return said.map_err(|NoAnswer| Error::IntrospectFailed);
            }
        }
    }
}

/// Sends a question and waits for its answer. An error is the client's, who does not wait any longer.
async fn ask(
    x: &mut Exchange<'_>,
    facts: &Facts<'_>,
    (route, timeout_ms): (u32, u64),
    (method, request, lines): (Method, Vec<u8>, Vec<u8>),
    waiting: &Waiting<'_>,
) -> Result<Result<Answer, CallFault>, Error> {
    let attached = Attached { route, chain: NO_POLICIES };
    let behalf = Behalf::of(x, facts, attached, lines);
    let mut call = Call::send(x, behalf, (method, request), ANSWER_BYTES_MAX);
    // Its own deadline is the call's; this one is only later than that.
    let limit = (timeout_ms, Error::ExchangeTimeout);
    match waited(x, waiting.may_watch, limit, |cx| call.poll(cx)).await {
        Ok(answer) => Ok(answer),
        Err(Error::ExchangeTimeout) if !x.core.is_cutting() => {
            Ok(Err(CallFault::Failed(Error::ExchangeTimeout)))
        }
        Err(error) => Err(error),
    }
}
