//! A connection as the `h2` crate wants it. What is written is gathered and goes out in one send per flush; sends are left
//! to the ring where it goes on alone.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::toll::Toll;
use crate::{
    buf::{Buf, FRAMING_BYTES, Size},
    tls::Stream,
};

/// A connection, and what was received of it before.
#[derive(Debug)]
pub struct Io {
    stream: Stream,
    inbox: Option<Buf>,
    /// What is gathered for the next send.
    outbox: Option<Buf>,
    /// Work until others have their turn. Whoever polls the connection sets it.
    budget: Rc<Cell<u32>>,
    /// A client's account.
    toll: Option<Rc<RefCell<Toll>>>,
}

/// Reads in one poll of a connection: `h2` reads on for as long as something comes, and a peer that never stops would keep the
/// core to itself.
pub(super) const READS_PER_POLL: u32 = 16;
/// The same for a client, whose frames are work too, see [`Toll::read`]: a read may have a thousand of them.
pub(super) const WORK_PER_POLL: u32 = 64;

/// Waits for a handshake. It may read as often in each poll as a connection may later.
pub(super) async fn shaken<T>(budget: &Cell<u32>, handshake: impl Future<Output = T>) -> T {
    let mut handshake = pin!(handshake);
    poll_fn(|cx| {
        budget.set(READS_PER_POLL);
        handshake.as_mut().poll(cx)
    })
    .await
}

impl Io {
    /// `inbox`: what has come already.
    pub fn new(stream: Stream, inbox: Option<Buf>) -> Self {
        Self {
            stream,
            inbox: inbox.filter(|buf| !buf.is_empty()),
            outbox: None,
            budget: Rc::new(Cell::new(READS_PER_POLL)),
            toll: None,
        }
    }

    /// Opens an account for the client whose connection it is, and whose heads may have so many bytes.
    pub(super) fn with_toll(&mut self, head_bytes_max: u32) -> Rc<RefCell<Toll>> {
        let toll = Rc::new(RefCell::new(Toll::new(head_bytes_max)));
        self.toll = Some(Rc::clone(&toll));
        toll
    }

    /// Its budget of reads.
    pub(super) fn budget(&self) -> Rc<Cell<u32>> {
        Rc::clone(&self.budget)
    }

    /// Whether the bytes go by TLS.
    pub(super) fn is_secured(&self) -> bool {
        self.stream.session().is_some()
    }

    /// Waits until the send before is out.
    fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.stream.tx.is_sending() {
            return Poll::Ready(Ok(()));
        }
        let (result, _) = ready!(self.stream.tx.poll_sent(cx));
        Poll::Ready(result)
    }

    /// Sends what is gathered, after the send before.
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.outbox.as_ref().is_none_or(Buf::is_empty) {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_sent(cx))?;
        if let Some(buf) = self.outbox.take() {
            self.stream.tx.arm(buf);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.budget.get() == 0 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if this.inbox.is_none() {
            if !this.stream.rx.is_armed() && !this.stream.rx.arm_lazily() {
                return Poll::Ready(Err(io::ErrorKind::OutOfMemory.into()));
            }
            let (result, buf) = ready!(this.stream.rx.poll_recv(cx));
            if result? == 0 {
                return Poll::Ready(Ok(()));
            }
            this.inbox = Some(buf);
        }
        if let Some(buf) = &mut this.inbox {
            let mut count = buf.len().min(into.remaining());
            let mut budget = this.budget.get();
            if let Some(toll) = &this.toll {
                count = toll.borrow_mut().read(&buf.filled()[..count], &mut budget);
            }
            this.budget.set(budget.saturating_sub(1));
            into.put_slice(&buf.filled()[..count]);
            buf.consume(count);
        }
        this.inbox = this.inbox.take().filter(|buf| !buf.is_empty());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        loop {
            if this.outbox.is_none() {
                let mut buf = Buf::take(Size::Large).ok_or(io::ErrorKind::OutOfMemory)?;
                buf.reset(FRAMING_BYTES, FRAMING_BYTES);
                this.outbox = Some(buf);
            }
            let Some(buf) = &mut this.outbox else { return Poll::Pending };
            let count = bytes.len().min(buf.spare_len());
            if count > 0 || bytes.is_empty() {
                let fits = buf.push(&bytes[..count]);
                debug_assert!(fits, "there is room for it");
                if let Some(toll) = &this.toll {
                    toll.borrow_mut().sent(count);
                }
                return Poll::Ready(Ok(count));
            }
            ready!(this.poll_out(cx))?;
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_out(cx))?;
        if self.stream.tx.is_sending() && !self.stream.tx.goes_on_alone() {
            return self.poll_sent(cx);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_out(cx))?;
        ready!(self.poll_sent(cx))?;
        self.stream.tx.finish();
        Poll::Ready(Ok(()))
    }
}
