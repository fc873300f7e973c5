//! Moving bytes from one socket to another: receive, take the payload, frame it, send, with one buffer and a deadline
//! for each wait. The same loop serves both directions and every pair of framings.

use std::{
    cell::Cell,
    future::poll_fn,
    io,
    task::{Context, Poll},
};

use super::error::Error;
use crate::{
    buf::{Buf, FRAMING_BYTES, SMALL_BYTES, Size},
    clock::{Deadline, Timer},
    http::{
        body::{BodyError, BodyReader, SendAs},
        chunked::{CHUNK_HEADER_BYTES, LAST_CHUNK, write_chunk_header},
    },
    net::Probe,
    tls::{Rx, Tx},
};

/// Room kept before a payload for its chunk line, and behind it for the line's end and the last chunk.
pub(super) const HEADROOM: usize = CHUNK_HEADER_BYTES;
pub(super) const TAILROOM: usize = 2 + LAST_CHUNK.len();
const _: () = assert!(HEADROOM <= FRAMING_BYTES && TAILROOM <= FRAMING_BYTES);

/// Why a wait on a socket ended without its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// This wait's own deadline.
    Timeout,
    /// The whole exchange's.
    ExchangeTimeout,
    /// The socket failed.
    Broken,
    /// Something came, and the core has no buffer left for it.
    NoBuffer,
    /// What is to be sent cannot be what the other side made it out to be.
    Malformed,
    /// The peer says that it has not looked at the request, which may be sent again.
    Refused,
    /// Whoever it is sent for has left.
    Abandoned,
}

impl Wait {
    /// What a failed receive means.
    pub(super) fn of(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::OutOfMemory => Self::NoBuffer,
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => Self::Malformed,
            _ => Self::Broken,
        }
    }

    /// What a failed send means.
    fn of_send(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::InvalidInput { Self::Malformed } else { Self::Broken }
    }
}

/// Waits for the receive that is armed.
pub(super) async fn received(rx: &mut Rx, deadline: &Deadline, timer: Timer) -> Result<(usize, Buf), Wait> {
    poll_fn(|cx| match rx.poll_recv(cx) {
        Poll::Ready((Ok(count), buf)) => Poll::Ready(Ok((count, buf))),
        Poll::Ready((Err(error), _)) => Poll::Ready(Err(Wait::of(&error))),
        Poll::Pending => overdue(deadline, timer),
    })
    .await
}

/// How long a peer may take nothing of what is sent to it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stall {
    ms: u64,
    /// Who it is sent for, if it is in vain once they have left.
    asker: Option<Probe>,
}

/// Between two looks whether who it is sent for is still there.
const ASKER_MS: u64 = 1000;

impl Stall {
    /// So many ms.
    pub(super) fn after(ms: u64) -> Self {
        Self { ms, asker: None }
    }

    /// Between two looks.
    fn part_ms(&self) -> u64 {
        let half_ms = self.ms.div_ceil(2);
        if self.asker.is_some() { half_ms.min(ASKER_MS) } else { half_ms }
    }

    /// The same, and no longer than the sender of `body` is there.
    pub(super) fn for_sender(self, sender: &Rx, leaves_with_its_end: bool, body: &BodyReader) -> Self {
        let awaited = body.bytes_left().unwrap_or(0);
        Self { asker: sender.probe(leaves_with_its_end, awaited), ..self }
    }
}

/// Watches a send for standstill: the time that the peer may take nothing is waited for in parts, with a look at what
/// it has taken in between. A peer that takes bytes slowly but steadily goes on, however large the buffers on the way.
#[derive(Debug)]
pub(super) struct Standstill {
    stall: Stall,
    /// Parts of its time in which nothing was taken, one after the other.
    idle: u32,
    taken: Option<u64>,
}

impl Standstill {
    pub(super) fn begin(deadline: &Deadline, timer: Timer, stall: Stall) -> Self {
        deadline.set(timer, stall.part_ms());
        Self { stall, idle: 0, taken: None }
    }

    /// Pending, unless the peer has taken nothing for too long, or the exchange is over.
    #[inline]
    pub(super) fn poll<T>(
        &mut self,
        taken: impl FnOnce() -> u64,
        deadline: &Deadline,
        timer: Timer,
    ) -> Poll<Result<T, Wait>> {
        match overdue(deadline, timer) {
            Poll::Ready(Err(Wait::Timeout)) => self.look(taken()).map_or_else(
                || {
                    deadline.set(timer, self.stall.part_ms());
                    Poll::Pending
                },
                |wait| Poll::Ready(Err(wait)),
            ),
            other => other,
        }
    }

    /// A part is over, and so much was taken until now. What ends the send, if anything does.
    fn look(&mut self, taken: u64) -> Option<Wait> {
        if self.stall.asker.is_some_and(Probe::has_left) {
            return Some(Wait::Abandoned);
        }
        let stands_still = self.taken.replace(taken).is_some_and(|before| taken <= before);
        self.idle = if stands_still { self.idle + 1 } else { 0 };
        // The first look only learns what was taken until then.
        let parts = self.stall.ms.div_ceil(self.stall.part_ms().max(1)).saturating_sub(1).max(1);
        (u64::from(self.idle) >= parts).then_some(Wait::Timeout)
    }
}

/// A send that is not waited for. Its task looks at it when it wakes for another reason, and at the next tick at the
/// latest; so a send that the kernel takes at once, as nearly all of a few KiB are, costs no turn of its own.
#[derive(Debug)]
pub(super) struct Unwatched {
    /// Whether it was left alone once, so that the next look is worth it.
    was_left: bool,
    /// There once it was not done at a look; from the beginning, where it goes on without being looked at.
    late: Option<Standstill>,
}

/// Longer than nothing, and over at the next tick.
const LOOK_MS: u64 = 1;

impl Unwatched {
    /// Leaves alone what was just started; `timer` is this send's until it is done.
    pub(super) fn leave(tx: &Tx, deadline: &Deadline, timer: Timer, stall: Stall) -> Self {
        if tx.goes_on_alone() {
            return Self { was_left: false, late: Some(Standstill::begin(deadline, timer, stall)) };
        }
        deadline.set(timer, LOOK_MS);
        Self { was_left: true, late: None }
    }

    /// Whether it is done by now.
    #[inline]
    pub(super) fn poll(
        &mut self,
        tx: &mut Tx,
        cx: &mut Context<'_>,
        deadline: &Deadline,
        timer: Timer,
        stall: Stall,
    ) -> Poll<Result<(), Wait>> {
        if !std::mem::replace(&mut self.was_left, true) {
            return Poll::Pending;
        }
        if let Poll::Ready(result) = tx.look(cx) {
            deadline.clear(timer);
            return Poll::Ready(result.map_err(|error| Wait::of_send(&error)));
        }
        match &mut self.late {
            Some(standstill) => standstill.poll(|| tx.taken(), deadline, timer),
            None if deadline.has_expired(timer) => {
                self.late = Some(Standstill::begin(deadline, timer, stall));
                Poll::Pending
            }
            None => Poll::Pending,
        }
    }
}

/// Waits for a send that was left alone, if there is one.
pub(super) async fn settled(
    tx: &mut Tx,
    deadline: &Deadline,
    timer: Timer,
    stall: Stall,
) -> Result<(), Wait> {
    if tx.is_sending() { finished(tx, deadline, timer, stall).await.map(drop) } else { Ok(()) }
}

/// Sends a whole buffer and gives it back empty. The peer may take nothing of it for `stall`.
pub(super) async fn sent(
    tx: &mut Tx,
    buf: Buf,
    deadline: &Deadline,
    timer: Timer,
    stall: Stall,
) -> Result<Buf, Wait> {
    settled(tx, deadline, timer, stall).await?;
    tx.arm(buf);
    finished(tx, deadline, timer, stall).await
}

/// Waits for the send that is under way.
async fn finished(tx: &mut Tx, deadline: &Deadline, timer: Timer, stall: Stall) -> Result<Buf, Wait> {
    let mut standstill = Standstill::begin(deadline, timer, stall);
    let finished = poll_fn(|cx| match tx.poll_sent(cx) {
        Poll::Ready((Ok(()), buf)) => Poll::Ready(Ok(buf)),
        Poll::Ready((Err(error), _)) => Poll::Ready(Err(Wait::of_send(&error))),
        Poll::Pending => standstill.poll(|| tx.taken(), deadline, timer),
    })
    .await;
    deadline.clear(timer);
    finished
}

/// Pending, unless a deadline has passed.
#[inline]
pub(super) fn overdue<T>(deadline: &Deadline, timer: Timer) -> Poll<Result<T, Wait>> {
    if deadline.has_expired(Timer::Exchange) {
        Poll::Ready(Err(Wait::ExchangeTimeout))
    } else if deadline.has_expired(timer) {
        Poll::Ready(Err(Wait::Timeout))
    } else {
        Poll::Pending
    }
}

/// One direction of a body.
pub(super) struct Relay<'r> {
    pub(super) rx: &'r mut Rx,
    pub(super) tx: &'r mut Tx,
    pub(super) send_as: SendAs,
    pub(super) deadline: &'r Deadline,
    /// The timer both waits use: they never overlap.
    pub(super) timer: Timer,
    pub(super) receive_ms: u64,
    pub(super) stall: Stall,
    /// Whether the sender leaves with the end of what it sends; `None`: its leave is no reason to stop.
    pub(super) leaves_with_its_end: Option<bool>,
    /// Bytes of the body received, framing included.
    pub(super) received: &'r Cell<u64>,
    /// Bytes sent, framing included.
    pub(super) sent: &'r Cell<u64>,
    /// Bytes to receive beyond the end of a body whose length is known, if they are there: what an endpoint sends
    /// unasked must be seen before its connection is used again.
    pub(super) beyond: usize,
    /// Whether the body's bytes must be copied, since they could not be spliced.
    pub(super) is_copied: bool,
    /// Whether a trailer of this name goes on.
    pub(super) passes_trailer: &'r dyn Fn(&[u8]) -> bool,
}

/// What a relay that came to the body's end leaves behind.
pub(super) struct Relayed {
    /// What was received beyond the body's end, if anything.
    pub(super) rest: Option<Buf>,
    /// Whether the last receive took all that there was room for, so that more may be waiting.
    pub(super) was_full: bool,
}

/// Which side of a relay failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failed {
    /// The receiving side's socket.
    Receive(Wait),
    /// The receiving side's framing.
    Body(BodyError),
    /// The sending side's socket.
    Send(Wait),
    /// The core's buffers are used up.
    NoBuffer,
}

impl Relay<'_> {
    /// Relays what is left of `body` through `buf`.
    pub(super) async fn run(mut self, body: &mut BodyReader, mut buf: Buf) -> Result<Relayed, Failed> {
        let mut rest = None;
        let mut was_full = false;
        while !body.is_done() {
            if let Some(pipe) = self.pipe_for(body) {
                // While the kernel moves the bytes, no buffer is needed.
                drop(buf);
                self.splice(body, pipe).await?;
                if body.is_done() {
                    // What lies behind the body was not received with it.
                    was_full = self.beyond > 0 && self.rx.has_waiting();
                    break;
                }
                buf = Buf::take(Size::Large).ok_or(Failed::NoBuffer)?;
            }
            buf = prepare(body, buf, was_full, self.beyond);
            let room = buf.spare_len();
            self.deadline.set(self.timer, self.receive_ms);
            self.rx.arm(buf);
            let (count, received) =
                received(self.rx, self.deadline, self.timer).await.map_err(Failed::Receive)?;
            buf = received;
            was_full = count == room;
            if count == 0 {
                body.on_close().map_err(Failed::Body)?;
            } else {
                let taken = body.take(buf.filled_mut()).map_err(Failed::Body)?;
                body.retain_trailers(self.passes_trailer);
                self.received.set(self.received.get() + taken.consumed as u64);
                if taken.consumed < buf.len() {
                    rest = Some(copy_of(&buf.filled()[taken.consumed..]).ok_or(Failed::NoBuffer)?);
                }
                buf.truncate(taken.payload);
            }
            buf = self.send(body, buf).await.map_err(Failed::Send)?;
        }
        self.deadline.clear(self.timer);
        Ok(Relayed { rest, was_full })
    }

    /// How long the receiver may stand still.
    pub(super) fn stall_for(&self, body: &BodyReader) -> Stall {
        match self.leaves_with_its_end {
            Some(leaves_with_its_end) => self.stall.for_sender(self.rx, leaves_with_its_end, body),
            None => self.stall,
        }
    }

    /// Sends a payload, framed, and the body's end with it when this was the last.
    async fn send(&mut self, body: &BodyReader, mut buf: Buf) -> Result<Buf, Wait> {
        let stall = self.stall_for(body);
        let fits = frame(&mut buf, self.send_as, body);
        if !buf.is_empty() {
            self.sent.set(self.sent.get() + buf.len() as u64);
            buf = sent(self.tx, buf, self.deadline, self.timer, stall).await?;
        }
        if !fits {
            let end = end_sent(self.tx, body, buf, self.deadline, self.timer, stall).await?;
            self.sent.set(self.sent.get() + end.1);
            buf = end.0;
        }
        Ok(buf)
    }
}

/// An empty buffer for the next receive: a large one when much is still to come, and no room for more than belongs to
/// the body and `beyond`, where that is known.
fn prepare(body: &BodyReader, mut buf: Buf, was_full: bool, beyond: usize) -> Buf {
    let left = body.bytes_left();
    let wants_large = left.map_or(was_full, |left| left > SMALL_BYTES as u64);
    if wants_large && buf.capacity() == SMALL_BYTES {
        buf = Buf::take(Size::Large).unwrap_or(buf);
    }
    buf.reset(FRAMING_BYTES, FRAMING_BYTES);
    if let Some(left) = left {
        buf.limit_spare(usize::try_from(left).unwrap_or(usize::MAX).saturating_add(beyond));
    }
    buf
}

/// Frames the payload in `buf`, which has room for framing before and behind it, and the body's end if it is
/// there. `false` when the end has trailers and is still to be sent.
pub(super) fn frame(buf: &mut Buf, send_as: SendAs, body: &BodyReader) -> bool {
    if send_as == SendAs::Plain {
        return true;
    }
    let mut fits = true;
    if !buf.is_empty() {
        let mut header = [0; CHUNK_HEADER_BYTES];
        let start = write_chunk_header(buf.len(), &mut header);
        fits &= buf.push_front(&header[start..]);
        fits &= buf.push(b"\r\n");
    }
    debug_assert!(fits, "the room for framing was kept");
    if !body.is_done() {
        return true;
    }
    body.trailers().is_empty() && buf.push(LAST_CHUNK)
}

/// Sends the last chunk with its trailers, which are rare and bounded, in pieces if need be. Gives the buffer back, and
/// how many bytes it were.
pub(super) async fn end_sent(
    tx: &mut Tx,
    body: &BodyReader,
    mut buf: Buf,
    deadline: &Deadline,
    timer: Timer,
    stall: Stall,
) -> Result<(Buf, u64), Wait> {
    let section = [b"0\r\n", body.trailers(), b"\r\n"].concat();
    for piece in section.chunks(SMALL_BYTES) {
        buf.reset(0, 0);
        let fits = buf.push(piece);
        debug_assert!(fits, "no piece is larger than the smallest buffer");
        buf = sent(tx, buf, deadline, timer, stall).await?;
    }
    Ok((buf, section.len() as u64))
}

/// The same bytes with room to receive more. The parser refuses a head before it outgrows a large buffer.
pub(super) fn with_room(mut buf: Buf) -> Result<Buf, Error> {
    if buf.spare_len() > 0 {
        return Ok(buf);
    }
    if buf.len() < buf.capacity() {
        buf.compact();
        return Ok(buf);
    }
    let mut large = Buf::take(Size::Large).ok_or(Error::NoBuffer)?;
    if large.push(buf.filled()) && large.spare_len() > 0 { Ok(large) } else { Err(Error::HeadOverflow) }
}

/// What of a body's beginning did not fit behind its head, and is still to be sent.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Unsent<'p> {
    pub(super) payload: &'p [u8],
    /// The body's end, after the payload.
    pub(super) end: bool,
}

impl Unsent<'_> {
    /// Whether all of it fitted.
    pub(super) fn is_nothing(&self) -> bool {
        self.payload.is_empty() && !self.end
    }
}

/// Puts as much of a body's beginning as fits behind what is in `out`, framed, and the body's end if it is there.
pub(super) fn append_payload<'p>(
    out: &mut Buf,
    payload: &'p [u8],
    send_as: SendAs,
    body: &BodyReader,
) -> Unsent<'p> {
    let framing = if send_as == SendAs::Chunked { HEADROOM + TAILROOM } else { 0 };
    let room = out.spare_len().saturating_sub(framing);
    let (now, later) = payload.split_at(payload.len().min(room));
    if send_as == SendAs::Plain {
        let fits = out.push(now);
        debug_assert!(fits, "there is room for it");
        return Unsent { payload: later, end: false };
    }
    if !now.is_empty() {
        let mut header = [0; CHUNK_HEADER_BYTES];
        let start = write_chunk_header(now.len(), &mut header);
        let fits = out.push(&header[start..]) && out.push(now) && out.push(b"\r\n");
        debug_assert!(fits, "the room for framing was kept");
    }
    let ends_here = body.is_done() && later.is_empty() && body.trailers().is_empty() && out.push(LAST_CHUNK);
    Unsent { payload: later, end: body.is_done() && !ends_here }
}

/// A buffer of its own for bytes that belong to what comes next.
pub(super) fn copy_of(bytes: &[u8]) -> Option<Buf> {
    let size = if bytes.len() <= SMALL_BYTES { Size::Small } else { Size::Large };
    let mut buf = Buf::take(size)?;
    buf.push(bytes).then_some(buf)
}

/// Polls an armed receive once, as part of a larger wait.
#[inline]
pub(super) fn poll_received(rx: &mut Rx, cx: &mut Context<'_>) -> Poll<io::Result<(usize, Buf)>> {
    rx.poll_recv(cx).map(|(result, buf)| result.map(|count| (count, buf)))
}
