//! An upgraded connection (101, or 2xx to CONNECT): bytes both ways, each direction closed by itself, until both are
//! closed or nothing came for too long.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    task::Poll,
};

use super::{
    connection::Connection,
    core::UnderWay,
    exchange::Load,
    generation::Generation,
    record::{Record, Seen},
    relay::{Wait, received, sent},
};
use crate::{
    buf::Buf,
    clock::{Deadline, Timer},
    http::request::RequestHead,
    tls::{Rx, Stream, Tx},
    upstream::pool::Lease,
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
    /// It has lasted as long as it may.
    Aged,
    /// The gateway is stopping.
    Drained,
    /// The core has no buffer left.
    NoBuffer,
}

/// How long a tunnel may be silent, and last; in ms, 0: no limit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    pub(super) idle_ms: u64,
    pub(super) age_ms: u64,
    /// While one side takes nothing.
    pub(super) stall_ms: u64,
}

/// When a tunnel ends if nothing more is said.
#[derive(Debug, Clone, Copy)]
struct Life {
    idle_ms: u64,
    /// When it ends in any case.
    over_ms: u64,
}

impl Life {
    fn begin(patience: Patience, deadline: &Deadline) -> Self {
        let over_ms = if patience.age_ms == 0 { u64::MAX } else { deadline.now_ms() + patience.age_ms };
        Self { idle_ms: patience.idle_ms, over_ms }
    }

    /// Something was said.
    fn renew(self, deadline: &Deadline) {
        let left_ms = self.over_ms.saturating_sub(deadline.now_ms()).max(1);
        let idle_ms = if self.idle_ms == 0 { u64::MAX } else { self.idle_ms };
        let ms = left_ms.min(idle_ms);
        deadline.set(Timer::Exchange, if ms > u64::MAX / 2 { 0 } else { ms });
    }

    fn is_over(self, deadline: &Deadline) -> bool {
        deadline.now_ms() >= self.over_ms
    }
}

/// One direction.
struct Direction<'t> {
    rx: &'t mut Rx,
    tx: &'t mut Tx,
    deadline: &'t Deadline,
    timer: Timer,
    life: Life,
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
            self.life.renew(self.deadline);
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
struct Carried {
    up: Cell<u64>,
    down: Cell<u64>,
}

/// A connection that was upgraded: what it needs as long as it lasts. The exchange that has made it is over as far as its memory goes.
pub(super) struct Tunnelled {
    upstream: Lease,
    /// What came before, from either side.
    from_client: Option<Buf>,
    from_upstream: Option<Buf>,
    patience: Patience,
    /// The cluster's place in the table, and the endpoint's in the cluster.
    endpoint: (usize, usize),
    /// What is written down in the end.
    pub(super) notes: Option<Notes>,
}

/// What is left of an exchange.
pub(super) struct Notes {
    pub(super) record: Record,
    pub(super) head: RequestHead,
    pub(super) path: Box<[u8]>,
    pub(super) bytes: Box<[u8]>,
    pub(super) generation: Rc<Generation>,
    pub(super) _under_way: UnderWay,
}

impl Tunnelled {
    pub(super) fn new(
        upstream: Lease,
        from_client: Option<Buf>,
        from_upstream: Option<Buf>,
        patience: Patience,
        endpoint: (usize, usize),
    ) -> Self {
        Self { upstream, from_client, from_upstream, patience, endpoint, notes: None }
    }
}

/// Carries what an upgraded connection says until it ends, and writes it down.
pub(super) async fn carry(mut connection: Box<Connection>) {
    let Some(mut tunnelled) = connection.tunnel.take() else { return };
    let Some(mut notes) = tunnelled.notes.take() else { return };
    let core = Rc::clone(&connection.core);
    let (cluster, at) = tunnelled.endpoint;
    let generation = Rc::clone(&notes.generation);
    // It is still an exchange of its endpoint's.
    let _load = Load::on(&generation.clusters[cluster].endpoints[at]);
    let carried = Carried::default();
    let end = match tunnelled.upstream.stream() {
        Some(upstream) => {
            let (from_client, from_upstream) = (tunnelled.from_client.take(), tunnelled.from_upstream.take());
            let Connection { stream, deadline, .. } = &mut *connection;
            let patience = tunnelled.patience;
            let end =
                tunnel(stream, upstream, from_client, from_upstream, deadline, patience, &carried).await;
            if end != TunnelEnd::Closed {
                stream.tx.break_off();
                upstream.tx.break_off();
            }
            end
        }
        None => TunnelEnd::Broken,
    };
    let is_late = matches!(end, TunnelEnd::Idle | TunnelEnd::Aged);
    let end = if is_late && core.is_cutting() { TunnelEnd::Drained } else { end };
    notes.record.on_tunnel_end(end, carried.up.get(), carried.down.get());
    connection.deadline.clear(Timer::Exchange);
    let Notes { record, head, path, bytes, .. } = &notes;
    record.finish(&core, &generation.table, &Seen { head, path, bytes }, &connection);
}

/// Joins the two until they end. `from_client` and `from_upstream` are what was received before.
async fn tunnel(
    client: &mut Stream,
    upstream: &mut Stream,
    from_client: Option<Buf>,
    from_upstream: Option<Buf>,
    deadline: &Deadline,
    patience: Patience,
    carried: &Carried,
) -> TunnelEnd {
    let life = Life::begin(patience, deadline);
    life.renew(deadline);
    let up = Direction {
        rx: &mut client.rx,
        tx: &mut upstream.tx,
        deadline,
        timer: Timer::Request,
        life,
        stall_ms: patience.stall_ms,
        carried: &carried.up,
    };
    let down = Direction {
        rx: &mut upstream.rx,
        tx: &mut client.tx,
        deadline,
        timer: Timer::Response,
        life,
        stall_ms: patience.stall_ms,
        carried: &carried.down,
    };
    deadline.clear(Timer::Request);
    deadline.clear(Timer::Response);
    let mut up = pin!(up.run(from_client));
    let mut down = pin!(down.run(from_upstream));
    let mut open = [true, true];
    let aged = |end| if end == TunnelEnd::Idle && life.is_over(deadline) { TunnelEnd::Aged } else { end };
    poll_fn(|cx| {
        if open[0]
            && let Poll::Ready(end) = up.as_mut().poll(cx)
        {
            open[0] = false;
            if let Err(end) = end {
                return Poll::Ready(aged(end));
            }
        }
        if open[1]
            && let Poll::Ready(end) = down.as_mut().poll(cx)
        {
            open[1] = false;
            if let Err(end) = end {
                return Poll::Ready(aged(end));
            }
        }
        if open == [false, false] { Poll::Ready(TunnelEnd::Closed) } else { Poll::Pending }
    })
    .await
}
