//! Responses of the gateway's own: what the configuration says, the way to HTTPS, and what is wrong. Which of them a
//! request gets is decided in [`super::exchange`].

use std::rc::Rc;

use super::{
    call::Answer,
    connection::Connection,
    consult::Waiting,
    core::Scratch,
    error::Error,
    exchange::{Asked, Exchange, Next},
    facts::{Facts, grpc_type},
    generation::Generation,
    heads, policies,
    record::{Quota, Record},
    relay::{Stall, sent},
    reply,
};
use crate::{
    buf::{Buf, FRAMING_BYTES},
    clock::Timer,
    http::{
        body::BodyReader,
        field::{FieldName, NameSet},
        method::Method,
        version::Version,
    },
    policy::{cors, headers::HeaderEdits},
    table::Action,
    telemetry::text::append_decimal,
};

/// Answers from the configuration.
pub(super) async fn answer(x: &mut Exchange<'_>, asked: &mut Asked<'_>) -> Result<Next, Error> {
    let Asked { facts, route, captures, body, text, lines, .. } = asked;
    let variables = facts.variables(route, captures);
    let (status, content_type) = match &route.action {
        Action::Redirect { status, to } => {
            lines.clear();
            text.clear();
            to.render(&variables, text).map_err(|_| Error::Rewrite)?;
            if !route.response_headers.removes(b"location") {
                lines.extend_from_slice(b"Location: ");
                lines.extend_from_slice(text);
                lines.extend_from_slice(b"\r\n");
            }
            text.clear();
            (*status, None)
        }
        Action::Respond { status, body, content_type } => {
            lines.clear();
            text.clear();
            body.render(&variables, text).map_err(|_| Error::Rewrite)?;
            (*status, Some(content_type.as_bytes()))
        }
        Action::Cluster(_) | Action::Split(_) | Action::Aggregate(_) => return Err(Error::NoEndpoint),
    };
    route.response_headers.append(&variables, lines).map_err(|_| Error::Rewrite)?;
    let table = &x.generation.table;
    policies::append_response_lines(table, x.record, &facts.head.fields, facts.bytes, lines);
    let is_done = body.is_done();
    let own = Own { status, content_type, edits: Some(&route.response_headers), lines, body: text };
    let keep_alive = send(x, facts, own, is_done).await?;
    Ok(match (is_done, keep_alive) {
        (false, _) => Next::Linger,
        (true, true) => Next::KeepAlive,
        (true, false) => x.last(asked),
    })
}

/// Sends the client to the same URL by HTTPS, on `port`. 308: by the same method, and for good.
pub(super) async fn answer_with_https(
    x: &mut Exchange<'_>,
    facts: &Facts<'_>,
    body: &BodyReader,
    port: u16,
    lines: &mut Vec<u8>,
) -> Result<Next, Error> {
    // HTTP/1.0 can do without a host, and `*` is no path.
    if facts.host().is_empty() || !facts.path.starts_with(b"/") {
        return Err(Error::Rewrite);
    }
    lines.clear();
    lines.extend_from_slice(b"Location: https://");
    lines.extend_from_slice(facts.host());
    if port != 443 {
        lines.push(b':');
        append_decimal(u64::from(port), lines);
    }
    lines.extend_from_slice(facts.path);
    if let Some(query) = facts.query() {
        lines.push(b'?');
        lines.extend_from_slice(query);
    }
    lines.extend_from_slice(b"\r\n");
    let own = Own { status: 308, content_type: None, edits: None, lines, body: b"" };
    let is_done = body.is_done();
    Ok(if send(x, facts, own, is_done).await? { Next::KeepAlive } else { Next::Linger })
}

/// Tells a browser what it may send; `lines` say it.
pub(super) async fn answer_preflight(
    x: &mut Exchange<'_>,
    facts: &Facts<'_>,
    body: &BodyReader,
    lines: &mut Vec<u8>,
) -> Result<Next, Error> {
    let own = Own { status: 204, content_type: None, edits: None, lines, body: b"" };
    let is_done = body.is_done();
    Ok(if send(x, facts, own, is_done).await? { Next::KeepAlive } else { Next::Linger })
}

/// Fields of another's answer that do not go on with it: the gateway writes its own.
const REWRITTEN: NameSet = NameSet::of(&[FieldName::ContentLength, FieldName::Date, FieldName::Via]);

/// Answers with what someone else, who was asked about the request, has said.
pub(super) async fn answer_of_another(
    x: &mut Exchange<'_>,
    facts: &Facts<'_>,
    answer: &Answer,
    waiting: &mut Waiting<'_>,
) -> Result<Next, Error> {
    let Answer { head, bytes, body } = answer;
    let Waiting { is_done, lines, .. } = waiting;
    lines.clear();
    for field in head.fields.iter().filter(|field| !field.hop && !REWRITTEN.has(field.name)) {
        let name = field.name_at.bytes(bytes);
        if !cors::is_grant(name) {
            for part in [name, b": ", field.value_at.bytes(bytes), b"\r\n"] {
                lines.extend_from_slice(part);
            }
        }
    }
    policies::append_response_lines(&x.generation.table, x.record, &facts.head.fields, facts.bytes, lines);
    let own = Own { status: head.status, content_type: None, edits: None, lines, body };
    Ok(if send(x, facts, own, *is_done).await? { Next::KeepAlive } else { Next::Linger })
}

/// A response of the gateway's own.
pub(super) struct Own<'a> {
    pub(super) status: u16,
    pub(super) content_type: Option<&'a [u8]>,
    pub(super) edits: Option<&'a HeaderEdits>,
    pub(super) lines: &'a mut Vec<u8>,
    pub(super) body: &'a [u8],
}

/// Sends it; returns whether the connection lives on.
pub(super) async fn send(
    x: &mut Exchange<'_>,
    facts: &Facts<'_>,
    own: Own<'_>,
    is_request_done: bool,
) -> Result<bool, Error> {
    let Own { status, content_type, edits, lines, body } = own;
    let keep_alive = x.keep_alive && is_request_done;
    lines.extend_from_slice(&x.listener.hsts);
    let mut out = heads::buffer_for(body.len() + lines.len())?;
    let mut unsent = heads::own(
        &mut out,
        &heads::OwnParts {
            status,
            content_type,
            edits,
            lines,
            body,
            is_head: facts.head.method == Method::Head,
            keep_alive,
            version: x.version,
            date: x.core.clock.date(),
        },
    )?;
    x.record.on_answer(status);
    let Connection { stream, deadline, .. } = &mut *x.connection;
    loop {
        x.record.sent += out.len() as u64;
        let stall = Stall::after(x.listener.timeouts.write_stall_ms);
        out = sent(&mut stream.tx, out, deadline, Timer::Response, stall).await.map_err(Error::of_client)?;
        if unsent.is_empty() {
            return Ok(keep_alive);
        }
        out.reset(0, 0);
        let (now, later) = unsent.split_at(unsent.len().min(out.spare_len()));
        let fits = out.push(now);
        debug_assert!(fits, "there is room for it");
        unsent = later;
    }
}

/// Tells the client what is wrong, if it can still be told.
pub(super) async fn refuse(
    connection: &mut Connection,
    generation: &Generation,
    scratch: &mut Scratch,
    record: &mut Record,
    error: Error,
    bytes: &[u8],
    keep_alive: bool,
) -> Next {
    let core = Rc::clone(&connection.core);
    let table = &generation.table;
    // What is broken off in the midst of a response must not look complete; who has gone is told nothing.
    if record.is_answered || matches!(error, Error::ClientGone | Error::WriteStall) {
        if record.ends_with_close {
            connection.stream.tx.abort();
        }
        return Next::Close;
    }
    let reply = reply::reply(error);
    let head = &scratch.request;
    let grpc = record.is_understood.then(|| grpc_type(head, bytes, connection.is_stream)).flatten();
    let asker = reply::Asker {
        id: record.id.as_bytes(),
        name: &table.forwarding.via,
        is_head: record.is_understood && head.method == Method::Head,
        keep_alive,
        version: if record.is_understood { head.version } else { Version::Http11 },
        date: core.clock.date(),
        quota: record
            .quota
            .filter(Quota::is_exceeded)
            .map(|quota| &*table.policies[quota.policy as usize].name),
        challenge: policies::challenge(table, record),
        grpc,
    };
    let Some(mut out) = Buf::take_reserved() else { return Next::Close };
    // By TLS it becomes a record where it lies: there may be no other buffer.
    out.reset(FRAMING_BYTES, FRAMING_BYTES);
    let Scratch { request, lines, text, .. } = scratch;
    lines.clear();
    lines.extend_from_slice(&table.listeners[connection.listener].hsts);
    if record.is_understood {
        policies::append_response_lines(table, record, &request.fields, bytes, lines);
    }
    if reply::write(&mut out, reply, &asker, lines, text).is_err() {
        return Next::Close;
    }
    record.on_answer(reply.status);
    record.sent += out.len() as u64;
    connection.deadline.clear(Timer::Exchange);
    let stall = Stall::after(table.listeners[connection.listener].timeouts.write_stall_ms);
    match sent(&mut connection.stream.tx, out, &connection.deadline, Timer::Response, stall).await {
        Ok(_) if keep_alive => Next::KeepAlive,
        Ok(_) => Next::Linger,
        Err(_) => Next::Close,
    }
}

/// Answers what is not a request, and writes it down.
pub(super) async fn refuse_head(
    connection: &mut Connection,
    scratch: &mut Scratch,
    error: Error,
    buf: Option<Buf>,
    began_us: u64,
) -> Next {
    let core = Rc::clone(&connection.core);
    let generation = connection.generation();
    let mut record = Record::begin(began_us, connection.ends.peer);
    record.id.make(core.clock.unix_us(began_us) / 1000, &mut core.rng.borrow_mut());
    record.received = buf.as_ref().map_or(0, Buf::len) as u64;
    record.on_error(error);
    if let Some(inner) = &connection.inner {
        inner.on_error(error);
    }
    let next = refuse(connection, &generation, scratch, &mut record, error, &[], false).await;
    let Scratch { request: head, path, .. } = &*scratch;
    record.finish(&core, &generation.table, || Some(record.told(head, path, &[])), connection);
    connection.deadline.clear(Timer::Request);
    connection.deadline.clear(Timer::Response);
    next
}
