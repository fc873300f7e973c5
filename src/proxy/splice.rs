//! A large body of known length whose bytes go on as they are: the kernel moves them from socket to socket, and they
//! are only counted here. Waits and deadlines are those of [`Relay`].

use std::{
    future::{Future, poll_fn},
    io,
    pin::pin,
    task::Poll,
};

use super::relay::{Failed, Relay, Stall, Standstill, Wait, overdue};
use crate::{
    clock::{Deadline, Timer},
    http::body::{BodyReader, SendAs},
    net::Pipe,
};

/// Bytes still to come that make it worth while. To copy bodies of 256 KiB takes 1.7 times the CPU of splicing them; what is
/// received with the head, and bodies not much larger, are copied with less work than the calls cost.
const SPLICE_BYTES_MIN: u64 = 64 * 1024;

impl Relay<'_> {
    /// A pipe, if the rest of `body` can go through one.
    pub(super) fn pipe_for(&self, body: &BodyReader) -> Option<Pipe> {
        let is_worth_while = !self.is_copied
            && self.send_as == SendAs::Plain
            && body.bytes_left().is_some_and(|left| left >= SPLICE_BYTES_MIN)
            && self.rx.can_splice()
            && self.tx.can_splice();
        is_worth_while.then(Pipe::take).flatten()
    }

    /// Moves the rest of `body` through `pipe`, or as much of it as can go that way: urgent data (RFC 9293 §3.8.5) make a
    /// socket readable from which nothing can be spliced, and then the rest is copied.
    pub(super) async fn splice(&mut self, body: &mut BodyReader, mut pipe: Pipe) -> Result<(), Failed> {
        while let Some(left) = body.bytes_left().filter(|left| *left > 0) {
            self.deadline.set(self.timer, self.receive_ms);
            let Some(rx) = self.rx.as_plain() else { break };
            in_time(rx.readable(), self.deadline, self.timer).await.map_err(Failed::Receive)?;
            match pipe.fill(rx, left) {
                Ok(0) => body.on_close().map_err(Failed::Body)?,
                Ok(moved) => {
                    body.pass(moved as u64).map_err(Failed::Body)?;
                    self.received.set(self.received.get() + moved as u64);
                }
                Err(error) if is_transient(&error) => {
                    self.is_copied = true;
                    break;
                }
                Err(_) => return Err(Failed::Receive(Wait::Broken)),
            }
            let stall = self.stall_for(body);
            self.drain(&mut pipe, stall).await.map_err(Failed::Send)?;
        }
        pipe.give_back();
        Ok(())
    }

    async fn drain(&mut self, pipe: &mut Pipe, stall: Stall) -> Result<(), Wait> {
        while !pipe.is_empty() {
            let tx = self.tx.as_plain().ok_or(Wait::Broken)?;
            match pipe.drain(tx) {
                Ok(moved) => self.sent.set(self.sent.get() + moved as u64),
                Err(error) if is_transient(&error) => self.drain_late(pipe, stall).await?,
                Err(_) => return Err(Wait::Broken),
            }
        }
        Ok(())
    }

    /// Waits until the socket takes bytes again. One that says so and still takes none (the kernel is short of memory) is
    /// tried only when its standstill is looked at, so that the core does not spin.
    async fn drain_late(&mut self, pipe: &mut Pipe, stall: Stall) -> Result<(), Wait> {
        let mut standstill = Standstill::begin(self.deadline, self.timer, stall);
        let tx = self.tx.as_plain().ok_or(Wait::Broken)?;
        {
            let mut writable = pin!(tx.writable());
            poll_fn(|cx| match writable.as_mut().poll(cx) {
                Poll::Ready(ready) => Poll::Ready(ready.map_err(|_| Wait::Broken)),
                Poll::Pending => standstill.poll(|| tx.taken(), self.deadline, self.timer),
            })
            .await?;
        }
        let moved = poll_fn(|_| match pipe.drain(tx) {
            Ok(moved) => Poll::Ready(Ok(moved)),
            Err(error) if is_transient(&error) => standstill.poll(|| tx.taken(), self.deadline, self.timer),
            Err(_) => Poll::Ready(Err(Wait::Broken)),
        })
        .await?;
        self.sent.set(self.sent.get() + moved as u64);
        Ok(())
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

async fn in_time(
    ready: impl Future<Output = io::Result<()>>,
    deadline: &Deadline,
    timer: Timer,
) -> Result<(), Wait> {
    let mut ready = pin!(ready);
    poll_fn(|cx| match ready.as_mut().poll(cx) {
        Poll::Ready(ready) => Poll::Ready(ready.map_err(|_| Wait::Broken)),
        Poll::Pending => overdue(deadline, timer),
    })
    .await
}
