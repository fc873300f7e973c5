//! The request's side of a try: the head and the body go out, then the client is watched. It never ends by itself when
//! all went well: the response's side decides when the try is over, and drops it. What it learns on the way is in
//! [`Progress`].

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    pin::Pin,
    task::Poll,
};

use super::{
    error::Error,
    relay::{
        Failed, Relay, Relayed, Stall, Unsent, Unwatched, Wait, append_payload, end_sent, poll_received, sent,
    },
};
use crate::{
    buf::Buf,
    clock::{Deadline, Timer},
    config::types::HalfClose,
    http::body::{BodyReader, SendAs},
    tls::{Rx, Tx},
};

/// What the request's side has come to, for the response's side to see.
#[derive(Default)]
pub(super) struct Progress {
    /// The request is out, to its last byte.
    pub(super) request_sent: Cell<bool>,
    /// The endpoint takes no more of it; it may have answered all the same.
    pub(super) send_failed: Cell<bool>,
    /// The final response's head came: its first byte is no longer waited for.
    pub(super) answered: Cell<bool>,
    /// The client ended its side.
    pub(super) half_closed: Cell<bool>,
    /// What the client sent beyond the request.
    pub(super) next: RefCell<Option<Buf>>,
    /// Bytes sent upstream.
    pub(super) sent: Cell<u64>,
    /// Bytes of the request's body received behind what came with its head.
    pub(super) received: Cell<u64>,
}

/// The request's side of a try.
pub(super) struct Outgoing<'a> {
    pub(super) client: &'a mut Rx,
    pub(super) upstream: &'a mut Tx,
    pub(super) body: &'a mut BodyReader,
    pub(super) send_as: SendAs,
    pub(super) deadline: &'a Deadline,
    pub(super) progress: &'a Progress,
    pub(super) body_idle_ms: u64,
    pub(super) first_byte_ms: u64,
    pub(super) stall: Stall,
    pub(super) half_close: HalfClose,
    /// Whether bytes beyond the request are here already, so that the client is not to be read further.
    pub(super) has_next: bool,
    /// Whether a trailer of this name goes on.
    pub(super) passes_trailer: &'a dyn Fn(&[u8]) -> bool,
}

impl Outgoing<'_> {
    /// Sends the head and what of the body came with it, then the rest of the body; then watches the client. Comes
    /// back only with an error that ends the exchange.
    pub(super) async fn run(mut self, head: Buf, unsent: Unsent<'_>) -> Error {
        if self.body.is_done() && unsent.is_nothing() {
            self.progress.sent.set(self.progress.sent.get() + head.len() as u64);
            self.upstream.arm(head);
            self.deadline.set(Timer::Response, self.first_byte_ms);
            let send = Unwatched::leave(self.upstream, self.deadline, Timer::Request, self.stall);
            return self.watch(Some(send)).await;
        }
        match self.send_all(head, unsent).await {
            Ok(()) => self.progress.request_sent.set(true),
            Err(Failed::Send(Wait::ExchangeTimeout) | Failed::Receive(Wait::ExchangeTimeout)) => {
                return Error::ExchangeTimeout;
            }
            Err(Failed::Send(Wait::Timeout)) => return Error::UpstreamStall,
            Err(Failed::Send(Wait::Malformed)) => return Error::BodyMalformed,
            Err(Failed::Send(Wait::Broken | Wait::Refused)) => self.progress.send_failed.set(true),
            Err(Failed::Receive(Wait::Timeout)) => return Error::BodyTimeout,
            Err(
                Failed::Send(Wait::Abandoned)
                | Failed::Receive(Wait::Broken | Wait::Malformed | Wait::Refused | Wait::Abandoned),
            ) => return Error::ClientGone,
            Err(Failed::Body(error)) => return Error::of_request_body(error),
            Err(Failed::NoBuffer | Failed::Receive(Wait::NoBuffer) | Failed::Send(Wait::NoBuffer)) => {
                return Error::NoBuffer;
            }
        }
        self.deadline.clear(Timer::Request);
        if !self.progress.answered.get() {
            self.deadline.set(Timer::Response, self.first_byte_ms);
        }
        self.watch(None).await
    }

    async fn send_all(&mut self, head: Buf, mut unsent: Unsent<'_>) -> Result<(), Failed> {
        let mut spare = self.send(head).await?;
        while !unsent.payload.is_empty() {
            spare.reset(0, 0);
            unsent = append_payload(&mut spare, unsent.payload, self.send_as, self.body);
            spare = self.send(spare).await?;
        }
        if unsent.end {
            let end = end_sent(self.upstream, self.body, spare, self.deadline, Timer::Request, self.stall);
            let (buf, count) = end.await.map_err(Failed::Send)?;
            self.progress.sent.set(self.progress.sent.get() + count);
            spare = buf;
        }
        if self.body.is_done() {
            return Ok(());
        }
        let relay = Relay {
            rx: self.client,
            tx: self.upstream,
            send_as: self.send_as,
            deadline: self.deadline,
            timer: Timer::Request,
            receive_ms: self.body_idle_ms,
            stall: self.stall,
            leaves_with_its_end: Some(self.half_close == HalfClose::Abort),
            received: &self.progress.received,
            sent: &self.progress.sent,
            // The next request waits in the kernel.
            beyond: 0,
            is_copied: false,
            passes_trailer: self.passes_trailer,
        };
        let Relayed { rest, .. } = relay.run(self.body, spare).await?;
        if rest.is_some() {
            self.has_next = true;
            *self.progress.next.borrow_mut() = rest;
        }
        Ok(())
    }

    async fn send(&mut self, buf: Buf) -> Result<Buf, Failed> {
        self.progress.sent.set(self.progress.sent.get() + buf.len() as u64);
        let leaves_with_its_end = self.half_close == HalfClose::Abort;
        let stall = self.stall.for_sender(self.client, leaves_with_its_end, self.body);
        sent(self.upstream, buf, self.deadline, Timer::Request, stall).await.map_err(Failed::Send)
    }

    /// The client's next bytes are the next request's, and are kept for it; its end or its failure may be the end.
    async fn watch(&mut self, mut send: Option<Unwatched>) -> Error {
        // After a failed send, what the client sends may still be this request's body, for which no one is left.
        let is_bodys = self.progress.send_failed.get() && !self.body.is_done();
        let mut is_reading = !is_bodys && !self.has_next && !self.progress.half_closed.get();
        if is_reading && !self.client.is_armed() {
            is_reading = self.client.arm_lazily();
        }
        poll_fn(|cx| {
            if let Some(unwatched) = &mut send {
                match unwatched.poll(self.upstream, cx, self.deadline, Timer::Request, self.stall) {
                    Poll::Pending => {}
                    Poll::Ready(Err(Wait::Timeout)) => return Poll::Ready(Error::UpstreamStall),
                    Poll::Ready(Err(Wait::ExchangeTimeout)) => return Poll::Ready(Error::ExchangeTimeout),
                    Poll::Ready(Err(Wait::Malformed)) => return Poll::Ready(Error::BodyMalformed),
                    Poll::Ready(Err(Wait::Abandoned)) => return Poll::Ready(Error::ClientGone),
                    Poll::Ready(result) => {
                        self.progress.request_sent.set(result.is_ok());
                        self.progress.send_failed.set(result.is_err());
                        send = None;
                    }
                }
            }
            if is_reading && let Poll::Ready(received) = poll_received(self.client, cx) {
                is_reading = false;
                match received {
                    Ok((0, _)) => {
                        self.progress.half_closed.set(true);
                        if self.half_close == HalfClose::Abort {
                            return Poll::Ready(Error::ClientGone);
                        }
                    }
                    Ok((_, buf)) => *self.progress.next.borrow_mut() = Some(buf),
                    Err(_) => return Poll::Ready(Error::ClientGone),
                }
            }
            Poll::Pending
        })
        .await
    }
}

/// Runs the response's side beside the request's, whose only outcome is an error.
pub(super) async fn beside<T>(
    mut request: Pin<&mut impl Future<Output = Error>>,
    mut response: Pin<&mut impl Future<Output = Result<T, Error>>>,
) -> Result<T, Error> {
    poll_fn(|cx| {
        if let Poll::Ready(error) = request.as_mut().poll(cx) {
            return Poll::Ready(Err(error));
        }
        response.as_mut().poll(cx)
    })
    .await
}
