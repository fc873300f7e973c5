//! An upgraded connection (101, or 2xx to CONNECT): bytes both ways, each direction closed by itself, until both are
//! closed or nothing came for too long.

use std::{
    future::poll_fn,
    rc::Rc,
    task::{Context, Poll, ready},
};

use super::{
    connection::Connection,
    core::UnderWay,
    exchange::Load,
    generation::Generation,
    record::{Kept, Record},
    relay::{Stall, Standstill, Wait, overdue},
};
use crate::{
    buf::Buf,
    clock::{Deadline, Timer},
    tls::{Rx, Tx},
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
    stall_ms: u64,
    /// When it ends in any case.
    over_ms: u64,
}

impl Life {
    fn begin(patience: Patience, deadline: &Deadline) -> Self {
        let over_ms = if patience.age_ms == 0 { u64::MAX } else { deadline.now_ms() + patience.age_ms };
        Self { idle_ms: patience.idle_ms, stall_ms: patience.stall_ms, over_ms }
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

/// One direction. Written as the steps that it is, since a future of it would be several times as large, and many tunnels wait.
struct Direction<'t> {
    rx: &'t mut Rx,
    tx: &'t mut Tx,
    timer: Timer,
    /// What came before.
    first: Option<Buf>,
    /// Watches the send that is under way.
    sending: Option<Standstill>,
    is_over: bool,
    carried: u64,
}

impl<'t> Direction<'t> {
    fn new(rx: &'t mut Rx, tx: &'t mut Tx, timer: Timer, first: Option<Buf>) -> Self {
        let first = first.filter(|buf| !buf.is_empty());
        Self { rx, tx, timer, first, sending: None, is_over: false, carried: 0 }
    }

    /// Carries until the sender ends its side, and ends the other's.
    fn poll(&mut self, cx: &mut Context<'_>, deadline: &Deadline, life: Life) -> Poll<Result<(), TunnelEnd>> {
        while !self.is_over {
            if self.sending.is_none() && self.tx.is_sending() {
                // The head that made it a tunnel may still be on its way.
                self.sending = Some(Standstill::begin(deadline, self.timer, Stall::after(life.stall_ms)));
            }
            if let Some(standstill) = &mut self.sending {
                match self.tx.poll_sent(cx) {
                    // A quiet tunnel holds no memory.
                    Poll::Ready((Ok(()), spent)) => drop(spent),
                    Poll::Ready((Err(_), _)) => return Poll::Ready(Err(TunnelEnd::Broken)),
                    Poll::Pending => {
                        let tx = &self.tx;
                        return standstill.poll(|| tx.taken(), deadline, self.timer).map_err(end_of);
                    }
                }
                self.sending = None;
                deadline.clear(self.timer);
            }
            let buf = match self.first.take() {
                Some(first) => first,
                None => match ready!(self.poll_more(cx, deadline))? {
                    None => {
                        life.renew(deadline);
                        self.tx.finish();
                        self.is_over = true;
                        continue;
                    }
                    Some(buf) => {
                        // Traffic in either direction keeps the tunnel.
                        life.renew(deadline);
                        buf
                    }
                },
            };
            self.carried += buf.len() as u64;
            self.tx.arm(buf);
        }
        Poll::Ready(Ok(()))
    }

    /// What comes next; `None`: the end.
    fn poll_more(
        &mut self,
        cx: &mut Context<'_>,
        deadline: &Deadline,
    ) -> Poll<Result<Option<Buf>, TunnelEnd>> {
        if !self.rx.is_armed() && !self.rx.arm_lazily() {
            return Poll::Ready(Err(TunnelEnd::NoBuffer));
        }
        match self.rx.poll_recv(cx) {
            Poll::Ready((Ok(0), _)) => Poll::Ready(Ok(None)),
            Poll::Ready((Ok(_), buf)) => Poll::Ready(Ok(Some(buf))),
            Poll::Ready((Err(error), _)) => Poll::Ready(Err(end_of(Wait::of(&error)))),
            Poll::Pending => overdue(deadline, self.timer).map_err(end_of),
        }
    }
}

fn end_of(wait: Wait) -> TunnelEnd {
    match wait {
        Wait::Broken | Wait::Malformed | Wait::Refused | Wait::Abandoned | Wait::Timeout => TunnelEnd::Broken,
        Wait::ExchangeTimeout => TunnelEnd::Idle,
        Wait::NoBuffer => TunnelEnd::NoBuffer,
    }
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
    pub(super) told: Kept,
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
    let Some(notes) = &tunnelled.notes else { return };
    let generation = Rc::clone(&notes.generation);
    let (cluster, at) = tunnelled.endpoint;
    // It is still an exchange of its endpoint's.
    let _load = Load::on(&generation.clusters[cluster].endpoints[at]);
    let mut tunnel = Tunnel::join(&mut connection, &mut tunnelled);
    let end = poll_fn(|cx| match &mut tunnel {
        Some(tunnel) => tunnel.poll(cx),
        None => Poll::Ready(TunnelEnd::Broken),
    })
    .await;
    let (end, up, down) = tunnel.map_or((end, 0, 0), |tunnel| tunnel.ended(end));
    let is_late = matches!(end, TunnelEnd::Idle | TunnelEnd::Aged);
    let end = if is_late && connection.core.is_cutting() { TunnelEnd::Drained } else { end };
    connection.deadline.clear(Timer::Exchange);
    let Some(Notes { record, told, .. }) = &mut tunnelled.notes else { return };
    record.on_tunnel_end(end, up, down);
    record.finish(&connection.core, &generation.table, || Some(told.told()), &connection);
}

/// The two directions.
struct Tunnel<'t> {
    up: Direction<'t>,
    down: Direction<'t>,
    deadline: &'t Deadline,
    life: Life,
}

impl<'t> Tunnel<'t> {
    /// Joins both sides, if the upstream's is still there.
    fn join(connection: &'t mut Connection, tunnelled: &'t mut Tunnelled) -> Option<Self> {
        let Connection { stream: client, deadline, .. } = connection;
        let Tunnelled { upstream, from_client, from_upstream, patience, .. } = tunnelled;
        let upstream = upstream.stream()?;
        let life = Life::begin(*patience, deadline);
        life.renew(deadline);
        deadline.clear(Timer::Request);
        deadline.clear(Timer::Response);
        let up = Direction::new(&mut client.rx, &mut upstream.tx, Timer::Request, from_client.take());
        let down = Direction::new(&mut upstream.rx, &mut client.tx, Timer::Response, from_upstream.take());
        Some(Self { up, down, deadline, life })
    }

    /// Carries until both directions are over, or one breaks.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<TunnelEnd> {
        let up = self.up.poll(cx, self.deadline, self.life);
        let down = self.down.poll(cx, self.deadline, self.life);
        match (up, down) {
            (Poll::Ready(Err(end)), _) | (_, Poll::Ready(Err(end))) => Poll::Ready(end),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(TunnelEnd::Closed),
            _ => Poll::Pending,
        }
    }

    /// How it ended, and how many bytes went up and down. What is not whole shall not look so.
    fn ended(self, end: TunnelEnd) -> (TunnelEnd, u64, u64) {
        let is_aged = end == TunnelEnd::Idle && self.life.is_over(self.deadline);
        let end = if is_aged { TunnelEnd::Aged } else { end };
        if end != TunnelEnd::Closed {
            self.down.tx.break_off();
            self.up.tx.break_off();
        }
        (end, self.up.carried, self.down.carried)
    }
}
