//! An upgraded connection (101, or 2xx to CONNECT): bytes both ways, each direction closed by itself, until both are
//! closed or nothing came for too long.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
};

use super::relay::{Wait, received, sent};
use crate::{
    buf::Buf,
    clock::{Deadline, Timer},
    tls::{Rx, Stream, Tx},
};

/// How a tunnel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TunnelEnd {
    /// Both sides said so.
    Closed,
    /// One side's connection broke.
    Broken,
    /// Nothing came for too long.
    Idle,
    /// The gateway is stopping.
    Drained,
    /// The core has no buffer left.
    NoBuffer,
}

/// One direction.
struct Direction<'t> {
    rx: &'t mut Rx,
    tx: &'t mut Tx,
    deadline: &'t Deadline,
    timer: Timer,
    idle_ms: u64,
    stall_ms: u64,
    carried: &'t Cell<u64>,
}

impl Direction<'_> {
    /// Carries until the sender ends its side, and ends the other's.
    async fn run(self, first: Option<Buf>) -> Result<(), TunnelEnd> {
        let mut spare = None;
        let mut waiting = first.filter(|buf| !buf.is_empty());
        loop {
            if let Some(buf) = waiting.take() {
                self.carried.set(self.carried.get() + buf.len() as u64);
                let sent = sent(self.tx, buf, self.deadline, self.timer, self.stall_ms).await;
                spare = Some(sent.map_err(end_of)?);
                self.deadline.clear(self.timer);
            }
            if !self.rx.is_armed() {
                // A quiet tunnel holds no memory.
                drop(spare.take());
                if !self.rx.arm_lazily() {
                    return Err(TunnelEnd::NoBuffer);
                }
            }
            let (count, buf) = received(self.rx, self.deadline, self.timer).await.map_err(end_of)?;
            // Traffic in either direction keeps the tunnel.
            self.deadline.set(Timer::Exchange, self.idle_ms);
            if count == 0 {
                self.tx.finish();
                return Ok(());
            }
            waiting = Some(buf);
        }
    }
}

fn end_of(wait: Wait) -> TunnelEnd {
    match wait {
        Wait::Broken | Wait::Malformed | Wait::Refused | Wait::Timeout => TunnelEnd::Broken,
        Wait::ExchangeTimeout => TunnelEnd::Idle,
        Wait::NoBuffer => TunnelEnd::NoBuffer,
    }
}

/// What a tunnel carried, in bytes.
#[derive(Debug, Default)]
pub(super) struct Carried {
    pub(super) up: Cell<u64>,
    pub(super) down: Cell<u64>,
}

/// Joins the two until they end. `from_client` and `from_upstream` are what was received before.
pub(super) async fn tunnel(
    client: &mut Stream,
    upstream: &mut Stream,
    from_client: Option<Buf>,
    from_upstream: Option<Buf>,
    deadline: &Deadline,
    (idle_ms, stall_ms): (u64, u64),
    carried: &Carried,
) -> TunnelEnd {
    deadline.set(Timer::Exchange, idle_ms);
    let up = Direction {
        rx: &mut client.rx,
        tx: &mut upstream.tx,
        deadline,
        timer: Timer::Request,
        idle_ms,
        stall_ms,
        carried: &carried.up,
    };
    let down = Direction {
        rx: &mut upstream.rx,
        tx: &mut client.tx,
        deadline,
        timer: Timer::Response,
        idle_ms,
        stall_ms,
        carried: &carried.down,
    };
    deadline.clear(Timer::Request);
    deadline.clear(Timer::Response);
    let mut up = pin!(up.run(from_client));
    let mut down = pin!(down.run(from_upstream));
    let mut open = [true, true];
    poll_fn(|cx| {
        if open[0]
            && let Poll::Ready(end) = up.as_mut().poll(cx)
        {
            open[0] = false;
            if let Err(end) = end {
                return Poll::Ready(end);
            }
        }
        if open[1]
            && let Poll::Ready(end) = down.as_mut().poll(cx)
        {
            open[1] = false;
            if let Err(end) = end {
                return Poll::Ready(end);
            }
        }
        if open == [false, false] { Poll::Ready(TunnelEnd::Closed) } else { Poll::Pending }
    })
    .await
}
