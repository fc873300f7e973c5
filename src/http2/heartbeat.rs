//! Whether the peer is still there: a PING now and then (RFC 9113 §6.7), which it must answer before long.

use std::task::{Context, Poll};

use h2::{Ping, PingPong};

use crate::clock::{Deadline, Timer};

/// Between two PINGs to a client.
pub(super) const CLIENT_BEAT_MS: u64 = 30_000;

/// How long an answer may take.
const PONG_MS: u64 = 20_000;

/// A connection's PINGs, timed by its [`Timer::Exchange`].
pub(super) struct Heartbeat {
    ping: Option<PingPong>,
    beat_ms: u64,
    is_awaited: bool,
}

impl Heartbeat {
    /// `beat_ms`: between two PINGs; 0: none are sent.
    pub(super) fn new(ping: Option<PingPong>, beat_ms: u64, deadline: &Deadline) -> Self {
        deadline.set(Timer::Exchange, beat_ms);
        Self { ping: ping.filter(|_| beat_ms > 0), beat_ms, is_awaited: false }
    }

    /// Ready when the peer has not answered in time. It is asked only while `is_in_use`: servers of gRPC take offence at PINGs over
    /// connections without streams. The task must be woken by `deadline`.
    pub(super) fn poll(&mut self, is_in_use: bool, deadline: &Deadline, cx: &mut Context<'_>) -> Poll<()> {
        let Some(ping) = &mut self.ping else { return Poll::Pending };
        if self.is_awaited && ping.poll_pong(cx).is_ready() {
            self.is_awaited = false;
            deadline.set(Timer::Exchange, self.beat_ms);
        }
        if deadline.has_expired(Timer::Exchange) {
            if self.is_awaited {
                return Poll::Ready(());
            }
            // Once it is sent, its answer must wake this task.
            self.is_awaited =
                is_in_use && ping.send_ping(Ping::opaque()).is_ok() && ping.poll_pong(cx).is_pending();
            deadline.set(Timer::Exchange, if self.is_awaited { PONG_MS } else { self.beat_ms });
        }
        Poll::Pending
    }
}
