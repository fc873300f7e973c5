//! A response made of several: asks the legs of a route at once, those that need others' answers after them, and sends what
//! their answers make. The time of it is the slowest way through the legs, not their sum.

use std::task::Poll;

use super::{
    acquire::waited,
    answer::{Own, send},
    attempt::canonical_target,
    call::{Answer, Behalf, Call, CallFault, request_for},
    error::Error,
    exchange::{Asked, Exchange, Next},
    facts::RouteFacts,
    policies,
    reply::reply,
    seen::Seen,
};
use crate::{
    buf::LARGE_BYTES,
    config::types::PathRules,
    expression::Expression,
    http::{field::FieldName, method::Method},
    policy::{
        aggregate::{Aggregate, Leg, LegFault, Outcome, as_segment},
        template::{Value, Variable, Variables},
    },
    route::Params,
    table::Attached,
};

/// The content type of what is made.
const JSON: &[u8] = b"application/json";

/// What goes to a service beside the fields that its leg names.
const ACCEPT: &[u8] = b"Accept: application/json\r\n";

/// How far a leg is.
enum Stage {
    /// It was not looked at yet.
    New,
    /// It is to be asked, and waits for others.
    Waits,
    UnderWay(Call),
    /// It is over. Beside it the fields that go to the client.
    Over(Outcome, Vec<u8>),
}

/// Answers with what the legs' answers make.
pub(super) async fn aggregate(
    x: &mut Exchange<'_>,
    asked: &mut Asked<'_>,
    all: &Aggregate,
    params: Params<'_>,
) -> Result<Next, Error> {
    if !matches!(asked.facts.head.method, Method::Get | Method::Head) {
        return Err(Error::MethodNotAllowed);
    }
    let may_watch = asked.body.is_done() && asked.rest.is_empty();
    let mut ways: Vec<Stage> = all.legs.iter().map(|_| Stage::New).collect();
    loop {
        // One that is skipped, or fails at once, may be what the next has waited for; those before a leg are the only ones it waits for.
        for at in 0..ways.len() {
            if matches!(ways[at], Stage::New | Stage::Waits)
                && let Some(way) = begin(x, asked, (all, at), &ways, params)
            {
                ways[at] = way;
            }
        }
        let is_lost = |(leg, way): (&Leg, &Stage)| match way {
            Stage::Over(Outcome::Failed(fault), _) if leg.is_required => Some(*fault),
            _ => None,
        };
        if let Some(fault) = all.legs.iter().zip(&ways).find_map(is_lost) {
            // What is still under way ends here.
            return Err(Error::LegFailed(fault.status()));
        }
        if ways.iter().all(|way| matches!(way, Stage::Over(..))) {
            break;
        }
        // Each leg has its own time, and the exchange has its own.
        let ended = waited(x, may_watch, (0, Error::ExchangeTimeout), |cx| {
            let mut ended = Poll::Pending;
            for (leg, way) in all.legs.iter().zip(&mut ways) {
                if let Stage::UnderWay(call) = way
                    && let Poll::Ready(answer) = call.poll(cx)
                {
                    *way = over(leg, answer, all);
                    ended = Poll::Ready(());
                }
            }
            ended
        });
        ended.await?;
    }
    respond(x, asked, all, ways).await
}

/// Begins with a leg, if those that it needs are over.
fn begin(
    x: &Exchange<'_>,
    asked: &Asked<'_>,
    (all, at): (&Aggregate, usize),
    ways: &[Stage],
    params: Params<'_>,
) -> Option<Stage> {
    let (leg, facts) = (&all.legs[at], &asked.facts);
    let failed = |fault| Some(Stage::Over(Outcome::Failed(fault), Vec::new()));
    if let (Stage::New, Some(when)) = (&ways[at], &leg.when)
        && !facts.asked(|| when.holds(&Seen::new(facts, params))).unwrap_or(false)
    {
        return Some(Stage::Over(Outcome::Skipped, Vec::new()));
    }
    let mut values = Vec::with_capacity(leg.values.len());
    for needed in &leg.values {
        match &ways[needed.leg] {
            Stage::Over(Outcome::Answered(value), _) => match as_segment(needed.pointer.of(value)) {
                Some(value) => values.push(value),
                None => return failed(LegFault::NotAsked),
            },
            Stage::Over(Outcome::Failed(_), _) => return failed(LegFault::NotAsked),
            // What is not wanted is no failure, nor is what would need it.
            Stage::Over(Outcome::Skipped, _) => return Some(Stage::Over(Outcome::Skipped, Vec::new())),
            Stage::New | Stage::Waits | Stage::UnderWay(_) => return Some(Stage::Waits),
        }
    }
    let variables = LegFacts { route: facts.variables(asked.route, asked.captures), leg, values };
    let (mut rendered, mut target) = (Vec::new(), Vec::new());
    if leg.path.render(&variables, &mut rendered).is_err()
        || canonical_target(&rendered, &PathRules::default(), &mut target).is_err()
    {
        return failed(LegFault::NoPath);
    }
    let edits = &asked.route.request_headers;
    let mut lines = facts.granted_lines().to_vec();
    if edits.append(&variables.route, &mut lines).is_err() {
        return failed(LegFault::NoPath);
    }
    let has = |name: &[u8]| leg.headers.iter().any(|own| name.eq_ignore_ascii_case(own.as_bytes()));
    if !has(b"accept") {
        lines.extend_from_slice(ACCEPT);
    }
    let request = request_for(facts, b"GET", &target, |name| has(name) && !edits.removes(name), None);
    let attached = Attached { route: leg.route, chain: leg.chain };
    let behalf = Behalf::of(x, facts, attached, lines);
    Some(Stage::UnderWay(Call::send(x, behalf, (Method::Get, request), leg.body_bytes + LARGE_BYTES)))
}

/// What came of a leg's request.
fn over(leg: &Leg, answer: Result<Answer, CallFault>, all: &Aggregate) -> Stage {
    let understood = match answer {
        Ok(answer) if answer.body.len() > leg.body_bytes => Err(LegFault::TooLarge),
        Ok(Answer { head, bytes, body }) => {
            let content_type = head
                .fields
                .find(FieldName::ContentType)
                .map_or(&b""[..], |field| field.value_at.bytes(&bytes));
            leg.understand(head.status, content_type, &body, all.merge).map(|value| {
                let mut lines = Vec::new();
                for name in &leg.pass {
                    for field in head.fields.called(&bytes, name.as_bytes()).filter(|field| !field.hop) {
                        for part in [name.as_bytes(), b": ", field.value_at.bytes(&bytes), b"\r\n"] {
                            lines.extend_from_slice(part);
                        }
                    }
                }
                (value, lines)
            })
        }
        Err(CallFault::TooLarge) => Err(LegFault::TooLarge),
        Err(CallFault::Broken) => Err(LegFault::NotJson),
        Err(CallFault::Failed(error)) => {
            let reply = reply(error);
            Err(LegFault::Request(reply.reason.kind(), reply.status))
        }
    };
    match understood {
        Ok((value, lines)) => Stage::Over(Outcome::Answered(value), lines),
        Err(fault) => Stage::Over(Outcome::Failed(fault), Vec::new()),
    }
}

async fn respond(
    x: &mut Exchange<'_>,
    asked: &mut Asked<'_>,
    all: &Aggregate,
    ways: Vec<Stage>,
) -> Result<Next, Error> {
    let Asked { facts, route, captures, body, lines, .. } = asked;
    lines.clear();
    let mut outcomes = Vec::with_capacity(ways.len());
    let mut missing = Vec::new();
    for (leg, way) in all.legs.iter().zip(ways) {
        // All of them are over.
        let Stage::Over(outcome, passed) = way else { continue };
        lines.extend_from_slice(&passed);
        if matches!(outcome, Outcome::Failed(_)) {
            missing.push(&*leg.name);
        }
        outcomes.push(outcome);
    }
    if !missing.is_empty() {
        // What is not whole is not for others, nor for later, whatever is said of its parts.
        let whole = std::mem::take(*lines);
        for line in whole.split_inclusive(|byte| *byte == b'\n') {
            let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
            if name != b"cache-control" && name != b"expires" {
                lines.extend_from_slice(line);
            }
        }
        lines.extend_from_slice(b"Cache-Control: no-store\r\nX-Partial: ");
        lines.extend_from_slice(missing.join(", ").as_bytes());
        lines.extend_from_slice(b"\r\n");
    }
    let variables = facts.variables(route, captures);
    route.response_headers.append(&variables, lines).map_err(|_| Error::Rewrite)?;
    policies::append_response_lines(&x.generation.table, x.record, &facts.head.fields, facts.bytes, lines);
    let document = serde_json::to_vec(&all.document(outcomes)).map_err(|_| Error::LegFailed(502))?;
    let is_done = body.is_done();
    let edits = Some(&route.response_headers);
    let own = Own { status: 200, content_type: Some(JSON), edits, lines, body: &document };
    let keep_alive = send(x, facts, own, is_done).await?;
    Ok(match (is_done, keep_alive) {
        (false, _) => Next::Linger,
        (true, true) => Next::KeepAlive,
        (true, false) => x.last(asked),
    })
}

/// A request as a leg's path sees it: with values of other legs' answers behind the route's captures.
struct LegFacts<'f> {
    route: RouteFacts<'f>,
    leg: &'f Leg,
    values: Vec<String>,
}

impl Variables for LegFacts<'_> {
    fn write(&self, variable: &Variable, value: &mut Value<'_>) {
        match variable {
            Variable::Capture(at) if *at >= self.leg.captures => {
                if let Some(text) = self.values.get(at - self.leg.captures) {
                    value.put(text.as_bytes());
                }
            }
            other => self.route.write(other, value),
        }
    }

    fn evaluate(&self, expression: &Expression, names: &[String]) -> Option<String> {
        self.route.evaluate(expression, names)
    }
}
