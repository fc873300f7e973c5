//! Whether the peer is still there: a PING now and then (RFC 9113 §6.7), which it must answer before the next one is due.

use std::task::{Context, Poll};

use h2::{Ping, PingPong};

use crate::clock::{Deadline, Timer};

/// Between two PINGs.
const BEAT_MS: u64 = 30_000;

/// A connection's PINGs, timed by its [`Timer::Exchange`].
pub(super) struct Heartbeat {
    ping: Option<PingPong>,
    is_awaited: bool,
}

impl Heartbeat {
    pub(super) fn new(ping: Option<PingPong>, deadline: &Deadline) -> Self {
        deadline.set(Timer::Exchange, BEAT_MS);
        Self { ping, is_awaited: false }
    }

    /// Ready when the peer has not answered in time. The task must be woken by `deadline`.
    pub(super) fn poll(&mut self, deadline: &Deadline, cx: &mut Context<'_>) -> Poll<()> {
        let Some(ping) = &mut self.ping else { return Poll::Pending };
        if self.is_awaited && ping.poll_pong(cx).is_ready() {
            self.is_awaited = false;
        }
        if deadline.has_expired(Timer::Exchange) {
            if self.is_awaited {
                return Poll::Ready(());
            }
            deadline.set(Timer::Exchange, BEAT_MS);
            self.is_awaited = ping.send_ping(Ping::opaque()).is_ok();
            if self.is_awaited {
                // Registers this task for the answer.
                self.is_awaited = ping.poll_pong(cx).is_pending();
            }
        }
        Poll::Pending
    }
}
