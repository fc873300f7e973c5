//! One try at an endpoint: the request goes out while the response is awaited, so that an early answer, an interim
//! response or a client that leaves is noticed whatever the other direction does.

use std::{cell::Cell, pin::pin};

use super::{
    connection::Connection,
    core::Core,
    error::Error,
    exchange::{Asked, Exchange, Next, Target},
    facts::{Facts, RouteFacts},
    generation::Generation,
    heads::{self, KeptBack, Withheld},
    incoming::{Incoming, ReceivedHead},
    outgoing::{Outgoing, Progress, beside},
    policies,
    record::Record,
    relay::{Failed, Relay, Relayed, Stall, Unsent, Wait, append_payload, copy_of, end_sent, sent, settled},
    tunnel::{Patience, Tunnelled},
};
use crate::{
    buf::Buf,
    clock::{Deadline, Timer},
    config::types::PathRules,
    http::{
        body::{BodyReader, SendAs},
        framing::BodyLength,
        method::Method,
        path::{Canonical, canonicalize},
        response::{ResponseBody, ResponseError, ResponseHead},
        version::Version,
    },
    policy::template::Template,
    route::Captures,
    table::{HostRule, Listener, Route},
    tls::{Stream, Tx},
    upstream::pool::Lease,
};

/// Why a try did not end with a response.
pub(super) struct Failure {
    pub(super) error: Error,
    /// Whether the request may be sent once more, on a fresh connection or to another endpoint: the connection ended
    /// with nothing of a response, and sending it twice does no harm (RFC 9110 §9.2.2, RFC 9112 §9.3.1).
    pub(super) is_repeatable: bool,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, is_repeatable: false }
    }
}

/// One try: the request out, and beside it its response back.
pub(super) async fn attempt(
    x: &mut Exchange<'_>,
    asked: &mut Asked<'_>,
    response: &mut ResponseHead,
    target: Target<'_>,
    mut lease: Lease,
) -> Result<Next, Failure> {
    let body_was_whole = asked.body.is_done();
    let (out, unsent) = write_request(x, asked, target)?;
    let (core, generation, listener) = (x.core, x.generation, x.listener);
    // A try before this one may have received of the next request already.
    let connection_has_next = x.connection.has_next();
    let Connection { stream: Stream { rx: client_rx, tx: client_tx, .. }, deadline, .. } = &mut *x.connection;
    let Some(Stream { rx: upstream_rx, tx: upstream_tx, .. }) = lease.stream() else {
        return Err(Error::UpstreamClosed.into());
    };
    let progress = Progress::default();
    let began = Cell::new(false);
    let facts = asked.facts;
    let request_edits = &asked.route.request_headers;
    let passes_trailer =
        |name: &[u8]| Withheld::new(&facts, request_edits, &generation.table.forwarding).passes_trailer(name);
    asked.body.retain_trailers(passes_trailer);

    let result = {
        let outgoing = Outgoing {
            client: client_rx,
            upstream: upstream_tx,
            send_as: send_as(asked.facts.head.body),
            body: &mut asked.body,
            deadline,
            progress: &progress,
            body_idle_ms: listener.timeouts.body_idle_ms,
            first_byte_ms: target.cluster.first_byte_ms,
            stall: Stall::after(target.cluster.idle_ms),
            half_close: listener.half_close,
            has_next: !asked.rest.is_empty() || connection_has_next,
            passes_trailer: &passes_trailer,
        };
        let responding = Responding {
            core,
            generation,
            listener,
            target,
            facts: asked.facts,
            route: asked.route,
            captures: asked.captures,
            keep_alive: x.keep_alive,
            version: x.version,
            deadline,
            client: client_tx,
            incoming: Incoming::new(upstream_rx, &listener.head, deadline, target.cluster.idle_ms, &began),
            progress: &progress,
            lines: asked.lines,
            record: x.record,
        };
        let request = pin!(outgoing.run(out, unsent));
        let response = pin!(responding.run(response));
        beside(request, response).await
    };

    asked.is_whole |= progress.request_sent.get();
    x.record.on_request_side(&progress);
    x.connection.half_closed |= progress.half_closed.get();
    x.connection.keep(progress.next.take());
    let responded = match result {
        Ok(responded) => responded,
        Err(error) => {
            // An endpoint that has the whole request and keeps silent is to blame, whichever deadline ends it.
            // But not for a caller's own, shorter one, or callers could have it left alone.
            let route_ms = asked.route.timeout_ms;
            let is_silent =
                progress.request_sent.get() && !began.get() && asked.facts.timeout_ms(route_ms) == route_ms;
            if error == Error::ExchangeTimeout && is_silent && !x.core.is_cutting() {
                x.on_endpoint_failure(target, false);
            }
            let is_unanswered = error == Error::UpstreamClosed && !began.get();
            let is_harmless = is_unanswered && asked.facts.head.method.is_idempotent();
            // What was not looked at may be sent again whatever it is (RFC 9113 §8.7).
            let is_refused = error == Error::UpstreamRefused && !began.get();
            let is_repeatable = (is_harmless || is_refused) && body_was_whole;
            return Err(Failure { error, is_repeatable });
        }
    };
    x.on_endpoint_response(target, response.status);
    match responded {
        Responded::Tunnel { rest } => {
            let early = match x.connection.take_next() {
                None if !asked.rest.is_empty() => Some(copy_of(asked.rest).ok_or(Error::NoBuffer)?),
                next => next,
            };
            x.core.figures.borrow_mut().counters.upgrades += 1;
            let timeouts = &x.listener.timeouts;
            let patience = Patience {
                idle_ms: timeouts.tunnel_idle_ms,
                age_ms: timeouts.tunnel_age_ms,
                stall_ms: timeouts.write_stall_ms,
            };
            let endpoint = (target.cluster_id, target.at);
            x.connection.tunnel = Some(Box::new(Tunnelled::new(lease, early, rest, patience, endpoint)));
            Ok(Next::Tunnel)
        }
        Responded::Complete { reusable, keep_alive } => {
            // One that was told whose it is is nobody else's.
            if reusable && target.cluster.proxy_protocol.is_none() {
                lease.release(&target.state.pool, x.core.clock.now_ms());
            }
            Ok(match progress.request_sent.get() {
                true if keep_alive => Next::KeepAlive,
                true => x.last(asked),
                false => Next::Linger,
            })
        }
    }
}

/// The response's side of a try.
struct Responding<'a> {
    core: &'a Core,
    generation: &'a Generation,
    listener: &'a Listener,
    target: Target<'a>,
    facts: Facts<'a>,
    route: &'a Route,
    captures: &'a Captures,
    keep_alive: bool,
    version: Version,
    deadline: &'a Deadline,
    client: &'a mut Tx,
    incoming: Incoming<'a>,
    progress: &'a Progress,
    lines: &'a mut Vec<u8>,
    record: &'a mut Record,
}

/// What a response came to.
enum Responded {
    /// It is out, whole.
    Complete {
        /// Whether the connection to the endpoint can serve another exchange.
        reusable: bool,
        /// Whether the client was told that its connection lives on.
        keep_alive: bool,
    },
    /// The connection is now something else.
    Tunnel {
        /// What the endpoint sent behind its head.
        rest: Option<Buf>,
    },
}

impl<'a> Responding<'a> {
    async fn run(mut self, response: &mut ResponseHead) -> Result<Responded, Error> {
        let ReceivedHead { mut buf, head_len } = self.final_head(response).await?;
        self.progress.answered.set(true);
        self.record.on_response_head(self.core, self.target.number(), response.status);
        if is_tunnel(response.status, self.facts.head.method) {
            return self.switch(response, buf, head_len).await;
        }

        let framing = response.body(self.facts.head.method);
        let mut body = BodyReader::response(framing);
        let taken = body.take(&mut buf.filled_mut()[head_len..]).map_err(Error::of_response_body)?;
        let kept_back = self.kept_back();
        body.retain_trailers(|name| !kept_back.has(name));
        // Bytes behind the response belong to no one: they are dropped, and the connection with them. A buffer that is
        // full hides whether there are any.
        let has_excess = body.is_done() && (head_len + taken.consumed < buf.len() || buf.spare_len() == 0);
        let send_as = heads::send_as(framing, self.version);
        // The drain may have begun since the request came.
        let keep_alive = self.keep_alive
            && !self.core.is_draining()
            && self.progress.request_sent.get()
            && (matches!(framing, ResponseBody::None | ResponseBody::Exact(_)) || send_as == SendAs::Chunked);

        let (head, payload) = buf.filled()[..head_len + taken.payload].split_at(head_len);
        self.record.ends_with_close =
            send_as == SendAs::Plain && matches!(framing, ResponseBody::Chunked | ResponseBody::UntilClose);
        let mut out = heads::buffer_for(buf.len())?;
        self.write_head(&mut out, response, head, send_as, keep_alive)?;
        let mut unsent = append_payload(&mut out, payload, send_as, &body);

        let reusable = |body: &BodyReader| {
            body.is_done() && !has_excess && response.keep_alive && framing != ResponseBody::UntilClose
        };
        let is_whole = body.is_done() && unsent.is_nothing();
        if is_whole && reusable(&body) && self.progress.request_sent.get() {
            // The next response's receive goes to the kernel together with this one's send.
            drop(buf);
            if !self.incoming.upstream.arm_lazily() {
                return Err(Error::NoBuffer);
            }
            if keep_alive {
                self.send_unwatched(out).await?;
            } else {
                self.send(out).await?;
            }
            return Ok(Responded::Complete { reusable: true, keep_alive });
        }
        let mut spare = self.send(out).await?;
        while !unsent.payload.is_empty() {
            spare.reset(0, 0);
            unsent = append_payload(&mut spare, unsent.payload, send_as, &body);
            spare = self.send(spare).await?;
        }
        if unsent.end {
            spare = self.send_trailers(&body, spare).await?;
        }
        drop(spare);
        let Relayed { rest, was_full } = self.relay_body(&mut body, send_as, buf).await?;
        let reusable = reusable(&body) && rest.is_none() && !was_full && self.progress.request_sent.get();
        Ok(Responded::Complete { reusable, keep_alive })
    }

    /// The final response's head. Interim ones (100, 103) go to the client as they come.
    async fn final_head(&mut self, response: &mut ResponseHead) -> Result<ReceivedHead, Error> {
        let mut rest = None;
        loop {
            let ReceivedHead { mut buf, head_len } = self.incoming.head(rest, response).await?;
            if response.status >= 200 || response.status == 101 {
                return Ok(ReceivedHead { buf, head_len });
            }
            self.core.figures.borrow_mut().on_interim();
            if self.version == Version::Http11 {
                let mut out = heads::buffer_for(head_len)?;
                heads::interim(
                    &mut out,
                    response,
                    &buf.filled()[..head_len],
                    self.kept_back(),
                    &self.generation.table.forwarding,
                )
                .map_err(|_| Error::ResponseHead(ResponseError::HeadTooLarge))?;
                // Once a byte of a response is out, no other endpoint's may follow it.
                self.send(out).await?;
            }
            buf.consume(head_len);
            rest = Some(buf);
            if self.progress.request_sent.get() {
                self.deadline.set(Timer::Response, self.target.cluster.first_byte_ms);
            } else {
                self.deadline.clear(Timer::Response);
            }
        }
    }

    /// Passes on the endpoint's consent to another protocol.
    async fn switch(
        mut self,
        response: &ResponseHead,
        mut buf: Buf,
        head_len: usize,
    ) -> Result<Responded, Error> {
        // RFC 9110 §7.8: one of those that were asked for, and no other.
        let was_asked = self.facts.head.upgrade.zip(response.upgrade).is_some_and(|(asked, chosen)| {
            let chosen = chosen.bytes(buf.filled()).trim_ascii();
            let mut asked = asked.bytes(self.facts.bytes).split(|byte| *byte == b',');
            asked.any(|protocol| protocol.trim_ascii().eq_ignore_ascii_case(chosen))
        });
        // RFC 9110 §7.8: not before the whole request was received. What is left of it would be taken for the tunnel's.
        let is_too_early = !self.progress.request_sent.get();
        if is_too_early || (response.status == 101 && !was_asked) {
            return Err(Error::ResponseUnexpected);
        }
        let mut out = heads::buffer_for(head_len)?;
        self.write_head(&mut out, response, &buf.filled()[..head_len], SendAs::Plain, true)?;
        buf.consume(head_len);
        self.send(out).await?;
        Ok(Responded::Tunnel { rest: Some(buf).filter(|buf| !buf.is_empty()) })
    }

    /// What of the response does not go on.
    fn kept_back(&self) -> KeptBack<'a> {
        let chain = &self.generation.table.chains[self.record.chain as usize];
        KeptBack { edits: &self.route.response_headers, is_shared: chain.cors.is_some() }
    }

    fn write_head(
        &mut self,
        out: &mut Buf,
        response: &ResponseHead,
        head: &[u8],
        send_as: SendAs,
        keep_alive: bool,
    ) -> Result<(), Error> {
        // Too large with what is added to it: the upstream's fault or the configuration's, never the client's.
        let too_large = || Error::ResponseHead(ResponseError::HeadTooLarge);
        let Target { cluster, at, .. } = self.target;
        let sticky = cluster.sticky.as_ref().filter(|_| self.facts.sticky_endpoint(cluster) != Some(at));
        self.lines.clear();
        if let Some(sticky) = sticky {
            sticky.append_set_cookie(cluster.endpoints[at].id, self.lines);
        }
        let variables = self.facts.variables(self.route, self.captures);
        self.route.response_headers.append(&variables, self.lines).map_err(|_| too_large())?;
        let table = &self.generation.table;
        let Facts { head: request, bytes, .. } = self.facts;
        policies::append_response_lines(table, self.record, &request.fields, bytes, self.lines);
        // What the upstream itself says stays (RFC 6797 §6.1: not more than one).
        if !self.listener.hsts.is_empty() && response.fields.find_by_name(head, HSTS).is_none() {
            self.lines.extend_from_slice(&self.listener.hsts);
        }
        heads::response(
            out,
            &heads::ResponseParts {
                response,
                head,
                send_as,
                keep_alive,
                version: self.version,
                is_tunnel: is_tunnel(response.status, self.facts.head.method),
                kept_back: self.kept_back(),
                lines: self.lines,
                forwarding: &self.generation.table.forwarding,
                date: self.core.clock.date(),
            },
        )
        .map_err(|_| too_large())?;
        self.record.on_answer(response.status);
        Ok(())
    }

    async fn send(&mut self, out: Buf) -> Result<Buf, Error> {
        self.record.sent += out.len() as u64;
        let stall = Stall::after(self.listener.timeouts.write_stall_ms);
        sent(self.client, out, self.deadline, Timer::Response, stall).await.map_err(Error::of_client)
    }

    /// Starts the last send of an exchange whose connection lives on; who waits for the next request looks after it.
    async fn send_unwatched(&mut self, out: Buf) -> Result<(), Error> {
        self.record.sent += out.len() as u64;
        let stall = Stall::after(self.listener.timeouts.write_stall_ms);
        settled(self.client, self.deadline, Timer::Response, stall).await.map_err(Error::of_client)?;
        self.client.arm(out);
        Ok(())
    }

    async fn send_trailers(&mut self, body: &BodyReader, spare: Buf) -> Result<Buf, Error> {
        let stall = Stall::after(self.listener.timeouts.write_stall_ms);
        let end = end_sent(self.client, body, spare, self.deadline, Timer::Response, stall);
        let (spare, count) = end.await.map_err(Error::of_client)?;
        self.record.sent += count;
        Ok(spare)
    }

    async fn relay_body(
        &mut self,
        body: &mut BodyReader,
        send_as: SendAs,
        buf: Buf,
    ) -> Result<Relayed, Error> {
        let (received, sent) = (Cell::new(0), Cell::new(0));
        let kept_back = self.kept_back();
        let relay = Relay {
            rx: self.incoming.upstream,
            tx: self.client,
            send_as,
            deadline: self.deadline,
            timer: Timer::Response,
            receive_ms: self.target.cluster.idle_ms,
            stall: Stall::after(self.listener.timeouts.write_stall_ms),
            leaves_with_its_end: None,
            received: &received,
            sent: &sent,
            beyond: 1,
            is_copied: false,
            passes_trailer: &|name| !kept_back.has(name),
        };
        let result = relay.run(body, buf).await;
        self.record.sent += sent.get();
        result.map_err(|failed| match failed {
            Failed::Receive(Wait::Timeout) => Error::ResponseIdle,
            Failed::Receive(Wait::ExchangeTimeout) | Failed::Send(Wait::ExchangeTimeout) => {
                Error::ExchangeTimeout
            }
            Failed::Receive(Wait::Broken | Wait::Malformed | Wait::Refused | Wait::Abandoned) => {
                Error::ResponseBody
            }
            Failed::Body(error) => Error::of_response_body(error),
            Failed::Send(wait) => Error::of_client(wait),
            Failed::NoBuffer | Failed::Receive(Wait::NoBuffer) => Error::NoBuffer,
        })
    }
}

const HSTS: &[u8] = b"strict-transport-security";

/// Whether a response makes the connection a tunnel (RFC 9110 §7.8, §9.3.6).
fn is_tunnel(status: u16, method: Method) -> bool {
    status == 101 || (method == Method::Connect && (200..300).contains(&status))
}

/// The request as it goes upstream: its head and what of its body is here, and what of that did not fit.
fn write_request<'a>(
    x: &Exchange<'_>,
    asked: &mut Asked<'a>,
    target: Target<'_>,
) -> Result<(Buf, Unsent<'a>), Error> {
    let Asked { facts, route, captures, payload, body, text, lines, .. } = asked;
    let variables = facts.variables(route, captures);
    let is_rewritten = upstream_target(route, x.listener, &variables, lines, text)?;
    let rewritten = is_rewritten.then_some(text.as_slice());
    lines.clear();
    heads::forwarding_lines(facts, &x.generation.table.forwarding, &route.request_headers, lines);
    route.request_headers.append(&variables, lines).map_err(|_| Error::Rewrite)?;
    lines.extend_from_slice(facts.granted_lines());
    if let Some(inner) = &x.connection.inner {
        lines.extend_from_slice(&inner.behalf.lines);
    }
    let text_len = rewritten.map_or(0, <[u8]>::len);
    let mut out = heads::buffer_for(facts.bytes.len() + payload.len() + text_len + lines.len())?;
    let endpoint = target.cluster.endpoints[target.at].text.as_bytes();
    heads::request(
        &mut out,
        &heads::RequestParts {
            facts,
            rewritten,
            rewrites_query: route.rewrite.as_ref().is_some_and(Template::has_query),
            host: match &target.cluster.host {
                HostRule::Literal(host) => Some(host.as_bytes()),
                // Only HTTP/1.0 may come without a host.
                HostRule::Preserve if !facts.authority().is_empty() => None,
                HostRule::Preserve | HostRule::Endpoint => Some(endpoint),
            },
            is_as_sent: x.record.is_canonical,
            edits: &route.request_headers,
            lines,
            forwarding: &x.generation.table.forwarding,
        },
    )?;
    let unsent = append_payload(&mut out, payload, send_as(facts.head.body), body);
    Ok((out, unsent))
}

/// Renders a route's rewrite into `out`; `false` when it has none. `rendered` is scratch space.
pub(super) fn upstream_target(
    route: &Route,
    listener: &Listener,
    variables: &RouteFacts<'_>,
    rendered: &mut Vec<u8>,
    out: &mut Vec<u8>,
) -> Result<bool, Error> {
    let Some(rewrite) = &route.rewrite else { return Ok(false) };
    rendered.clear();
    rewrite.render(variables, rendered).map_err(|_| Error::Rewrite)?;
    canonical_target(rendered, &listener.path, out)?;
    Ok(true)
}

/// Brings a rendered target to canonical form, its query as it is: what goes upstream has one meaning too.
pub(super) fn canonical_target(target: &[u8], rules: &PathRules, out: &mut Vec<u8>) -> Result<(), Error> {
    let at = memchr::memchr(b'?', target).unwrap_or(target.len());
    let (path, query) = target.split_at(at);
    match canonicalize(path, rules, out).map_err(|_| Error::Rewrite)? {
        Canonical::Written => {}
        Canonical::AsIs => {
            out.clear();
            out.extend_from_slice(if path.is_empty() { b"/" } else { path });
        }
    }
    out.extend_from_slice(query);
    Ok(())
}

fn send_as(body: BodyLength) -> SendAs {
    match body {
        BodyLength::Chunked => SendAs::Chunked,
        BodyLength::None | BodyLength::Exact(_) => SendAs::Plain,
    }
}
